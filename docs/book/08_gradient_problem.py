# %% [markdown]
# # 8. The gradient problem
#
# The ELBO is a bound that one can estimate. To raise it we need its gradient: by the parameters $\theta$ of the model
# $p$, and by the parameters $\phi$ of $q$. The first is easy. The second is not, because $\phi$ is not in what is
# averaged: it is in the law over which we average.
#
# ## What you need to know
#
# The derivative of a product and of a logarithm, $\nabla q = q\, \nabla \log q$; and that the draws of chapter 7 were
# made by $q$. The derivative of $\log q(z; \phi)$ by $\phi$ is called the *score*.
#
# > **Claim.** Let the set where $q > 0$ be the same for all $\phi$, and let $|\nabla_\phi (q f)|$ stay, near $\phi$,
# > below one function of $z$ that has a finite integral. The gradient of an expectation is not the expectation of the
# > gradient. There is a second term, in which the score says how much more often each $z$ will be drawn:
# >
# > $$\nabla_\phi\, E_{q(z; \phi)}[f(z; \phi)]
# >   = E_q[\nabla_\phi f(z; \phi)] + E_q[f(z; \phi)\, \nabla_\phi \log q(z; \phi)].$$
# >
# > It can be estimated by draws, without any derivative of $f$ by $z$; and its variance is large if $f$ is large where
# > $q$ has its mass, even if $f$ is constant.

# %%
import math

import numpy as np
from scipy import optimize, stats

import tinyvae as tv
from tinyvae.distributions import Normal
from tinyvae.lessons import figures, variance
from tinyvae.lessons.book import drawn, exercise, show
from tinyvae.lessons.estimates import Choice
from tinyvae.lessons.expressions import parse
from tinyvae.lessons.families import member
from tinyvae.pictures.page import INK, TEST, TRAIN, new_figure, plain_axes

# %% [markdown]
# ## Tickets in a hat
#
# A hat holds tickets, and each has a prize written on it. You may change how many tickets of each kind there are, and
# you want the mean prize to rise. No single prize changes when you do so, so looking at how a prize changes tells you
# nothing: it does not. You have to know how much more frequent each kind of ticket becomes, in proportion to how
# frequent it is, and to weigh that by its prize. The tickets are $z$, the prizes $f(z)$, the composition of the hat
# is $\phi$, and the relative change of a kind's frequency is the score.
#
# ## Why the gradient does not go inside
#
# For the parameters of $p$ it does, for the law does not contain them:
#
# $$\nabla_\theta E_q[\log p_\theta(x, z)] = E_q[\nabla_\theta \log p_\theta(x, z)].$$
#
# For $\phi$, write the expectation as an integral and use the rule of products:
#
# $$\nabla_\phi \int q(z; \phi)\, f(z; \phi)\, dz = \int q\, \nabla_\phi f\, dz + \int f\, \nabla_\phi q\, dz,
#   \qquad \nabla_\phi q = q\, \nabla_\phi \log q.$$
#
# Here derivative and integral change places, which the two conditions of the claim allow. (For $q$ uniform on
# $(0, \phi)$ the first one fails: $E_q[z] = \phi / 2$ has the slope $\tfrac12$, the score is $-1 / \phi$, and
# $E_q[z \cdot (-1 / \phi)] = -\tfrac12$.) The last step turns the second integral back into an expectation, which draws
# can estimate. In the ELBO, $f = \log p(x, z) - \log q(z; \phi)$ does contain $\phi$, but the first term vanishes: the
# mean of the score is
#
# $$E_q[\nabla_\phi \log q(z; \phi)] = \int \nabla_\phi q(z; \phi)\, dz
#   = \nabla_\phi \int q(z; \phi)\, dz = \nabla_\phi 1 = 0.$$
#
# So the gradient of the ELBO is
#
# $$E_q[(\log p(x, z) - \log q(z; \phi))\, \nabla_\phi \log q(z; \phi)].$$
#
# This is *black box variational inference* (BBVI): nothing of the model is needed but the value of $\log p(x, z)$.
#
# The program computes it by a *surrogate*, an expression of which back-propagation (the reverse walk of page A6) gives
# that estimate. It is $f(z)$, held fixed, times $\log q$:
#
# $$\bar{f} \cdot \left( \log q(z; \phi) - \overline{\log q(z; \phi)} \right),
#   \qquad \text{with a bar for what is not differentiated}$$
#
# ```{line} tinyvae/inference/estimators.py
# return weight.detach() * (log_q - log_q.detach())
# ```
#
# where the draw itself is held fixed, too. (The names are those of chapter 11: there $z = T(\epsilon; v)$ with
# parameters $v$, and here $T$ is the identity and $\epsilon$ is $z$ itself. `to_stable` maps $z$ to a scale without
# underflow, and `from_stable` maps it back; read both as $z$ here.)
#
# ```{line} tinyvae/inference/estimators.py
# """The identity as T: only log q_eps = log q depends on v."""
# w = q.to_stable(z).detach()
# return MappedDraw(q.from_stable(w), q.log_density(w))
# ```
#
# ## The wrong and the right gradient
#
# Let $q = N(\mu, 1)$ and $f(z) = z^2$. Then $E_q[f] = \mu^2 + 1$, so the derivative by $\mu$ is 2 for $\mu = 1$. What
# is averaged, $z^2$, does not contain $\mu$, so the mean of its derivative is 0.

# %%
count = 100_000
mu = tv.Tensor(np.full((count, 1), 1.0), requires_grad=True)  # a row for each draw
q = Normal(mu, tv.Tensor(np.array([0.0])))
z = q.sample(tv.Noise(0, "chapter 8")).detach()
ways = {"inside, which is wrong": z * z + 0 * mu, "by the score": z * z * q.log_density(z)}
for name, value in ways.items():
    found = tv.grad(value.sum(), mu).numpy()
    stderr = found.std(ddof=1) / math.sqrt(count)
    print(f"{name:<24}{found.mean():.3f} ± {stderr:.3f}, variance {found.var(ddof=1):.2f}")
print(f"{'exactly':<24}{2:.3f}")

# %% [markdown]
# The score finds the 2, with a variance near 30. It can be computed by hand: the estimate is $z^2 (z - 1)$, and with
# $z = 1 + \epsilon$ its variance is $E[(1 + \epsilon)^4 \epsilon^2] - 4 = 34 - 4 = 30$. The estimate of the next
# chapter is $2z$, with variance 4. The table has all estimators of tinyvae on this problem, with the exact variance by
# quadrature where it is known. A baseline is a number that is subtracted from $f$. The mean of $f$ over the other draws
# (leave-one-out) follows below; moving-average takes the mean of $f$ over earlier steps, and fitted the best baseline
# of exercise 3, estimated from the other draws. G-REP is chapter 11. With a baseline the terms of one estimate need not
# be independent, so there the "variance of a draw" is $L$ times the variance of the mean of $L$ draws.
# `tinyvae variance` makes such a table for any $f$.

# %%
found = variance.of_expectation(member("normal(1, 1)"), parse("z**2"), draws=100_000)
by_mu = found.tables[0]
print(f"derivative of E[z²] by mu, exactly {by_mu.exact.value:.3f}; "
      f"{found.draws:,} draws each\n")
print(f"{'estimator':<32}{'mean':>20}{'variance of a draw':>20}{'exact':>9}")
for line in by_mu.lines:
    if not line.row.part:
        known = "" if line.exact_variance is None else f"{line.exact_variance:.2f}"
        estimate = f"{line.mean:.3f} ± {line.stderr:.3f}"
        print(f"{line.name:<32}{estimate:>20}{line.variance:>20.2f}{known:>9}")
drawn(figures.side_by_side, found,
      text="Variance of a draw of each estimator by mu and by sigma, on a logarithmic "
           "axis. The plain score has the largest; baselines reduce it; G-REP and the "
           "reparameterized estimate have the least.")

# %% [markdown]
# ## Predict, then run
#
# Add a constant to $f$, say $f(z) = z^2 + 10$. The gradient stays 2. **What happens to the variance of the score
# estimate: nothing, a little more, or several times as much?**

# %% tags=["answer"]
rows = [Choice("score"), Choice("score", "leave-one-out")]
print("    c   score alone   with a baseline (mean of 7 other draws)")
for c in (0, 10, -10, 100):
    shifted = parse(f"z**2 + {c}" if c >= 0 else f"z**2 - {-c}")
    exact = variance.exact_variances(member("normal(1, 1)"), shifted, rows, 8, 1201)
    plain, joined = (exact["mu", row] for row in rows)
    print(f"{c:>5}{plain:>14.1f}{joined:>18.1f}")

# %% [markdown]
# In the estimate $(f(z) + c)\, s(z)$ the score $s$ has the mean 0, so the constant adds nothing to the expectation,
# but a lot to the variance: the same computation by hand as above gives $30 + 8c + c^2$, which is lowest not at
# $c = 0$ but at $c = -4$. The log joint of the five digits that chapter 2 draws is 22 to 32 nats below 0, that of a
# larger image often hundreds, and nearly all of this is such a constant. This is the case for a *baseline*: subtract a
# number $b$ that does not depend on the draw. The mean over the *other* draws is one,
#
# $$\left( f(z_l) - \frac{1}{L - 1} \sum_{k \ne l} f(z_k) \right) \nabla_\phi \log q(z_l; \phi)$$
#
# ```{line} tinyvae/inference/estimators.py
# others = (f.sum(0, keepdims=True) - f) * (1 / (len(f) - 1))
# return score_term(f - others, latent)
# ```
#
# and its variance, in the right column, does not see the constant.
#
# ## Many latents
#
# With $D$ latents that are independent under $q$, the score of one of them is multiplied by all of $f$. The terms that
# do not contain that latent have nothing to do with its gradient; they are noise to it. Leaving them out
# (Rao-Blackwell) keeps the variance where it was:

# %%
rng = np.random.default_rng(0)
print(f"{'latents':>8}{'all of f':>12}{'own term':>12}"
      "   variance of the derivative by the first mean")
for D in (1, 10, 100):
    z = 1 + rng.standard_normal((20_000, D))
    score, f = z[:, 0] - 1, z**2
    by_all, by_own = (np.var(terms * score, ddof=1) for terms in (f.sum(1), f[:, 0]))
    print(f"{D:>8}{by_all:>12.1f}{by_own:>12.1f}")

# %% [markdown]
# In tinyvae a log joint may be a list of terms, each with the names of the latents that it contains, and each
# latent's score meets only its own:
#
# $$\nabla_{\phi_i} \mathrm{ELBO} = E_q\Bigl[ \sum_{t \,\ni\, z_i} f_t(z)\, \nabla_{\phi_i} \log q_i(z_i) \Bigr]
#   + \nabla_{\phi_i} H(q_i),$$
#
# and where the entropy has no closed form, $-\log q_i$ is one more term:
#
# ```{line} tinyvae/inference/estimators.py
# if latent.name in term.of:
#     total = total + sum_to_axes(term.value, term.axes, latent.axes)
# ```
#
# ## A correction: the score is not always worse
#
# The article says that BBVI has a large variance and reparameterization a small one. That is what one sees in
# practice, not a law. The score sees the *values* of $f$, the path its *derivative*. Let $f(z) = \sin(k z)$ with
# $q = N(0, 1)$: its values stay within $\pm 1$, its derivative grows with $k$.

# %%
frequencies = np.geomspace(0.2, 8, 60)
nodes, weights = np.polynomial.hermite_e.hermegauss(200)  # a Gauss rule for N(0, 1)
weights = weights / weights.sum()


def spread(values):
    return weights @ values**2 - (weights @ values) ** 2


def of_score(k):
    return spread(np.sin(k * nodes) * nodes)


def of_path(k):
    return spread(k * np.cos(k * nodes))


by_score, by_path = ([of(k) for k in frequencies] for of in (of_score, of_path))
dip = optimize.minimize_scalar(of_score, bounds=(1, 2), method="bounded").x
crossing = optimize.brentq(lambda k: of_path(k) - of_score(k), 0.5, 2)

# %% tags=["drawing"]
figure = new_figure(6.4, 3)
axes = figure.add_subplot()
axes.plot(frequencies, by_score, color=TEST, linewidth=1.8, label="score: sin(kz) z")
axes.plot(frequencies, by_path, color=TRAIN, linestyle="dashed", linewidth=1.8,
          label="reparameterized: k cos(kz)")
axes.set_xscale("log")
axes.set_yscale("log")
axes.set_xticks([0.2, 0.5, 1, 2, 5])
axes.xaxis.set_major_formatter("{x:g}")
axes.xaxis.set_minor_formatter("")
plain_axes(axes, "Variance of one draw of d/dμ E[sin(kz)], q = N(0, 1)", x="k",
           y="variance")
axes.legend(fontsize=8, frameon=False, labelcolor=INK)
figure.tight_layout()
show(figure, f"The variance of the score estimate rises, with a dip near k = {dip:.1f}, to "
             "1/2 and stays there. That of the reparameterized estimate is smaller for k "
             f"below about {crossing:.1f} and grows without limit beyond.")
print(f"the score has less variance from about k = {crossing:.1f} on")

# %% [markdown]
# Log densities of trained models are smooth on the scale of their posteriors, like the left end of the picture, and
# this is why the trick of the next chapter wins in a VAE.
#
# ## Exercises
#
# Replace the line after the docstring and run the cell: the check says whether it is right. The solution is folded
# below.
#
# **1. The score of a coin.** $z$ is 1 with probability $p$ and else 0. Write the derivative of $\log q(z; p)$ by $p$.
# With it, the claim can be checked by adding up two cases.

# %%
@exercise("The score of a coin")
def coin_score(z, p):
    """d/dp log q(z; p) for z = 0 or 1."""
    return 0.0  # your answer


@coin_score.check
def _(answer):
    for p in (0.2, 0.5, 0.9):
        mean = p * answer(1, p) + (1 - p) * answer(0, p)
        told = f"for p = {p} the mean of the score is {mean:.3f}, and should be 0"
        assert abs(mean) < 1e-12, told
        found = p * 5.0 * answer(1, p) + (1 - p) * 2.0 * answer(0, p)
        told = f"for f(1) = 5, f(0) = 2 the gradient is 3; found {found:.3f} for p = {p}"
        assert abs(found - 3.0) < 1e-12, told


# %% tags=["solution"]
@coin_score.solution
def _(z, p):
    return (z - p) / (p * (1 - p))  # 1 / p for z = 1, -1 / (1 - p) for z = 0


# %% [markdown]
# **2. The score of a width.** The same for $q = N(\mu, \sigma^2)$ and $\sigma$.

# %%
@exercise("The score of a width")
def width_score(z, mu, sigma):
    """d/dsigma log N(z; mu, sigma^2), for an array z."""
    return 0.0 * z  # your answer


@width_score.check
def _(answer):
    for mu, sigma in ((0.0, 1.0), (1.0, 0.5), (-2.0, 3.0)):
        found = stats.norm(mu, sigma).expect(
            lambda z, mu=mu, sigma=sigma: z**2 * answer(z, mu, sigma), epsabs=1e-10)
        told = (f"E[z²] = mu² + sigma², so its derivative is {2 * sigma:.3f}; "
                f"found {found:.3f}")
        assert abs(found - 2 * sigma) < 1e-6, told


# %% tags=["solution"]
@width_score.solution
def _(z, mu, sigma):
    return ((z - mu) ** 2 / sigma**2 - 1) / sigma


# %% [markdown]
# **3. The best baseline.** Among all numbers $b$, which makes the mean square of $(f(z) - b)\, s(z)$ least? Write it
# for arrays of $f$ and $s$ at equally probable $z$.

# %%
@exercise("The best baseline")
def best_baseline(f, score):
    """The b with the least mean of ((f - b) score)^2."""
    return np.mean(f)  # your answer


@best_baseline.check
def _(answer):
    z = stats.norm(1, 1).ppf((np.arange(1000) + 0.5) / 1000)
    for f in (z**2 + 10, np.exp(z), np.sin(3 * z)):
        score = z - 1
        expected = np.linalg.lstsq(score[:, None], f * score, rcond=None)[0][0]
        found = answer(f, score)
        told = f"least squares gives {expected:.4f}; found {found:.4f}"
        assert abs(found - expected) < 1e-9, told


# %% tags=["solution"]
@best_baseline.solution
def _(f, score):
    # the mean of f is only good: where the score is large, f counts more
    return np.sum(f * score**2) / np.sum(score**2)


# %% [markdown]
# ## What the sources say
#
# - AEVB, section 2.2, names the estimate by the score and calls its variance too high for its purpose.
# - Ranganath, Gerrish & Blei (2014) made a method of it, black box variational inference, with Rao-Blackwell (section
#   3.1) and the baseline of exercise 3 (section 3.2, there a control variate). In reinforcement learning it is called
#   REINFORCE.
# - The G-REP paper (2016) begins with the two estimates of this chapter and the next, and ends with one that has both
#   as limits: chapter 11.
