# %% [markdown]
# # 5. Intractability
#
# The last chapters have a model $p(z)\,p(x|z)$ and a theorem that gives the posterior. So why is this book not over?
# Because the theorem divides by $p(x)$. This chapter tries to compute that number, by every honest means, and measures
# what each costs.
#
# ## What you need to know
#
# The evidence $p(x) = \int p(x|z)\,p(z)\,dz$ of chapter 3, and the posterior $p(z|x) = p(x|z)\,p(z) / p(x)$. An
# *evaluation* is one run of the decoder: one $z$ in, the number $p(x|z)$ out.
#
# > **Claim.** If the decoder is a neural network, neither $p(x)$ nor $p(z|x)$ has in general a closed form, and a rule
# > that fills a space of $d$ latents with $n$ points on each axis needs
# >
# > $$n^d$$
# >
# > evaluations. If its terms have a finite variance, an average of $N$ random draws has a standard error proportional
# > to $1/\sqrt N$ in every dimension. The factor before it grows with the dimension, and slowly only if the draws come
# > from a distribution near the posterior.

# %%
import math
import textwrap

import numpy as np
from scipy import stats

import tinyvae as tv
from tinyvae.bayes.quadrature import by_quadrature, refined
from tinyvae.distributions import Normal
from tinyvae.evidence.diagnostics import variance_of
from tinyvae.evidence.importance import log_evidence
from tinyvae.lessons.book import exercise, show
from tinyvae.pictures.page import INK, LABELS, PALE, TEST, TRAIN, new_figure, plain_axes

# %% [markdown]
# ## Thermometers
#
# You want the mean temperature of a pipe, and hang up a thermometer at every metre of its 20 metres. For a field of
# 20 by 20 metres at the same spacing you buy 400, for a hall 8,000. Nobody would: one would hang up fifty at random,
# and know the mean to within a fraction of a degree, in the hall as in the pipe. But if all the heat sits in a lamp in
# one corner, fifty random thermometers miss it, and the hall seems cold. Then one hangs them where it is warm, and
# corrects for having done so. The spacing is quadrature, the random places are Monte Carlo, and the correction is
# importance sampling. The lamp is the posterior.
#
# ## Where there is a formula, and where it ends
#
# With a linear decoder, $p(x|z) = N(W z + b, S)$, everything is normal and the integral is known:
#
# $$p(x) = N(b,\; W W^\top + S)$$
#
# One hidden layer is enough to end this. With ReLU units, $W_2 \max(0, W_1 z + b_1)$ is linear in pieces, and the
# integral is a sum over up to about $H^d$ pieces for $H$ units, each of them the normal probability of a polyhedron,
# for which there is a formula with one latent only. With a sigmoid at the output there is none even then. If the
# latents are discrete, the integral is a sum over all states. For the apple of chapter 2 these were 16 states of four
# hidden nodes. A chain of 21 nodes, each yes or no, is refused. (It is only the shortest example to write. Its sum
# could be done node by node, because each node meets only two others; where all causes share a sign, as injury and
# spores share the decay, no order of the sums is short.)

# %%
half = [0.5, 0.5]
nodes = {"a0": tv.Node(half)}
nodes |= {f"a{i}": tv.Node([half, half], (f"a{i - 1}",)) for i in range(1, 21)}
try:
    tv.BayesianNetwork(nodes).posterior("a0")
except ValueError as refusal:
    print(textwrap.fill(str(refusal), 92))

# %% [markdown]
# ## One latent: quadrature wins
#
# We train four VAEs on the digits, with 1, 2, 3 and 4 latents, and take one test image $x$. For one latent the
# integrand can be drawn. A rule of Gauss and Hermite chooses $n$ points $z_i$ and weights $w_i$ so that polynomials of
# degree up to $2n - 1$ are integrated exactly against the normal prior:
#
# $$p(x) = \int p(x|z)\,N(z; 0, 1)\,dz \approx \sum_{i=1}^n \frac{w_i}{\sqrt{2\pi}}\, p(x|z_i)$$
#
# ```{line} tinyvae/bayes/quadrature.py
# nodes, weights = np.polynomial.hermite_e.hermegauss(points)
# log_weights = np.log(weights) - 0.5 * math.log(2 * math.pi)
# ```

# %%
data = tv.data.load("digits-static")  # each pixel drawn once
x = tv.Tensor(np.array(data.test[:1] / data.scale, np.float64))
vaes = {}
for latent in (1, 2, 3, 4):
    vaes[latent] = tv.VAE(64, hidden=60, latent=latent, activation="tanh", dtype="float64")
    tv.fit(vaes[latent], data, epochs=20, lr=5e-3, quiet=True)

one = vaes[1].generator(None)
for points in (3, 5, 9, 17, 33):
    log_p = by_quadrature(one, x, points).log_evidence[0]
    print(f"{points:>3} points: log p(x) = {log_p:.5f} nats")

# %% tags=["drawing"]
z = np.linspace(-4.8, 4.8, 500)
log_likelihood = one.likelihood(tv.Tensor(z.reshape(-1, 1, 1))).log_prob(x).numpy()[:, 0]
joint = np.exp(log_likelihood - log_likelihood.max()) * stats.norm.pdf(z)
nodes = np.polynomial.hermite_e.hermegauss(9)[0]
figure = new_figure(7, 2.6)
axes = figure.add_subplot()
axes.plot(z, stats.norm.pdf(z), color=TRAIN, label="prior p(z)")
axes.plot(z, joint / np.trapezoid(joint, z), color=TEST, linewidth=2,
          label="p(x|z) p(z), scaled: the posterior")
axes.plot(nodes, np.zeros(9), "|", color=INK, markersize=12,
          label="points of a rule with nine")
plain_axes(axes, "A VAE with one latent: the integrand of p(x)", x="z", y="density")
axes.legend(fontsize=8, frameon=False)
figure.tight_layout()
show(figure, "The standard normal prior, the narrower posterior of one image beside its "
             "middle, and the points of a rule with nine, of which a few lie under the "
             "posterior.")

# %% [markdown]
# ## Two, three, four latents
#
# In $d$ dimensions each point of one axis meets each point of the others. The weights multiply, and the rule is a sum
# over $n^d$ points:
#
# $$p(x) \approx \sum_{i_1 = 1}^n \cdots \sum_{i_d = 1}^n
#           \frac{w_{i_1} \cdots w_{i_d}}{(2\pi)^{d/2}}\; p(x \mid z_{i_1}, \dots, z_{i_d})$$
#
# ```{line} tinyvae/bayes/quadrature.py
# weighted = log_p + log_weights[each].sum(-1)[:, None]
# total = np.logaddexp(total, np.logaddexp.reduce(weighted, axis=0))
# ```
#
# Beside it stands importance sampling: draw $z_k$ from the encoder's $q(z|x)$, which lies near the posterior, and
# correct for having drawn there,
#
# $$p(x) = E_{q}\!\left[\frac{p(x|z)\,p(z)}{q(z|x)}\right] \approx \frac1K \sum_{k=1}^K w_k,$$
#
# $$\log w_k = \log p(x|z_k) + \log p(z_k) - \log q(z_k|x)$$
#
# ```{line} tinyvae/models/base.py
# return p.likelihood(z).log_prob(self.target(batch)) + p.prior.log_prob(z) - log_q
# ```
#
# To first order the standard error of $\log \frac1K \sum_k w_k$ is the relative standard error of the mean weight. The
# line gives its square, with the effective number of draws $(\sum_k w_k)^2 / \sum_k w_k^2$ (`effective`) and the
# number of all of them, $K$ (`count`):
#
# ```{line} tinyvae/evidence/diagnostics.py
# return (1 / effective - 1 / count) * np.divide(count, count - 1)
# ```

# %%
draws = 2000
print("latents   quadrature: points  evaluations  log p(x)     2000 draws: log p(x)")
for latent, vae in vaes.items():
    rule = refined(vae.generator(None), x, tolerance=0.01)
    estimate, effective = log_evidence(vae, tv.Batch(x), tv.Noise(0), draws)
    error = math.sqrt(variance_of(effective, draws)[0])
    print(f"{latent:>7}{rule.points:>20}{rule.evaluations:>13,}"
          f"{rule.log_evidence[0]:>10.3f}{estimate[0]:>18.3f} ± {error:.3f}")
print("log p(x) in nats. The points of an axis grow by half until log p(x) has changed twice\n"
      "in a row by less than 0.01 nats; the evaluations are those of the last rule.")

# %% [markdown]
# Both agree. For one latent, a few dozen evaluations do what two thousand draws do. With four, the rule takes far more
# evaluations than there are draws. At the same number of points on each axis every further latent multiplies the bill
# by that number, while the draws stay as many. (The table stops at different numbers of points, so its bill need not
# rise by as much from one row to the next. And a rule that is refined until it stops changing may also stop by luck.
# The next picture therefore takes a model whose evidence is known.)
#
# ## The true errors
#
# The linear model has its exact evidence, so errors are errors. For each dimension we let $n$ grow, and for the draws
# $K$; the horizontal axis is the number of evaluations of the decoder, the price.

# %%
def linear_model(latent, pixels=6):
    """A linear decoder, one datum, and its exact log p(x)."""
    rng = np.random.default_rng(7)
    weight = 1.2 * np.linalg.qr(rng.standard_normal((pixels, pixels)))[0][:, :latent]
    datum = weight @ rng.standard_normal(latent) + rng.standard_normal(pixels)
    exact = stats.multivariate_normal(np.zeros(pixels), weight @ weight.T + np.eye(pixels))
    columns, unit = tv.Tensor(weight.T.copy()), tv.Tensor(np.zeros(pixels))
    prior = Normal.standard(latent, np.float64)

    def decoder(z):
        rows = z.reshape(-1, latent) @ columns
        return Normal(rows.reshape(*z.shape[:-1], pixels), unit)

    return tv.Joint(prior, decoder), datum.reshape(1, -1), exact.logpdf(datum), weight


def by_draws(p, datum, weight, count, repeats=40):
    """log p(x) by `count` draws of a normal q that is too wide, `repeats` times."""
    variance = 1 / (1 + (weight**2).sum(0))  # the columns of the weight are orthogonal
    mean = variance * (weight.T @ datum[0])
    q = Normal(tv.Tensor(mean), tv.Tensor(np.log(1.5 * variance)))
    z, log_q = q.draw(tv.Noise(0, "chapter 5"), count * repeats)
    log_w = p.likelihood(z).log_prob(tv.Tensor(datum[0])) + p.prior.log_prob(z) - log_q
    values = log_w.numpy().reshape(repeats, count)
    return np.logaddexp.reduce(values, axis=1) - math.log(count)


# %% tags=["drawing"]
figure = new_figure(7, 3.4)
axes = figure.add_subplot()
needed = []  # evaluations until the error of quadrature stays below 1e-4
for latent, colour in zip((1, 2, 3, 4), LABELS[::2], strict=False):
    p, datum, exact, weight = linear_model(latent)
    sizes = range(2, {1: 25, 2: 25, 3: 25, 4: 17}[latent], 2)
    found = [by_quadrature(p, tv.Tensor(datum), n) for n in sizes]
    errors = np.array([abs(one.log_evidence[0] - exact) for one in found])
    evaluations = [one.evaluations for one in found]
    needed.append(evaluations[np.flatnonzero(errors > 1e-4)[-1] + 1])
    axes.plot(evaluations, errors, "o-", color=colour, markersize=3,
              label=f"quadrature, {latent} latent{'s' * (latent > 1)}")
    counts = (10, 100, 1000, 10_000)
    misses = [by_draws(p, datum, weight, count) - exact for count in counts]
    errors = [np.sqrt((miss**2).mean()) for miss in misses]
    axes.plot(counts, errors, "s--", color=colour, markersize=3, linewidth=0.9)
axes.plot([], [], "s--", color=PALE, markersize=3, label="draws, the same colours")
axes.set_xscale("log")
axes.set_yscale("log")
axes.set_ylim(1e-7, 2)
plain_axes(axes, "Every latent costs quadrature far more than draws",
           x="evaluations of the decoder", y="error of log p(x), nats")
axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
figure.tight_layout()
show(figure, "Errors of log p(x) against evaluations, both on logarithmic axes. Four "
             "curves of quadrature fall steeply, most of them out of the picture. They "
             f"stay below 0.0001 nats from {'; '.join(f'{count:,}' for count in needed)} "
             "evaluations on, for 1 to 4 latents. Four dashed lines of random draws fall "
             "slowly and lie close to each other.")

# %% [markdown]
# Each curve of quadrature falls like a stone, but a small error needs far more evaluations with every further latent:
# the number of points on an axis is about the same, and it is the exponent that grows. (A coarse rule may be near by
# luck, so at the left two curves cross.) The lines of the draws fall by $\sqrt{10}$ for each factor of 10, and lie near
# each other. (They grow, too: for a $q$ of 1.5 times the posterior's variance the variance of a weight, over the square
# of its mean, is $1.06^d - 1$.) For 20 latents, ten points an axis are $10^{20}$ evaluations: at a billion a second,
# three thousand years for one image.
#
# ## Predict, then run
#
# Importance sampling needs a $q$ near the posterior. Why not draw from the prior, which is known? Then
# $w_k = p(x|z_k)$, and nothing has to be learned. Of 10,000 draws from the prior, some carry nearly all of the weight;
# their effective number is $(\sum_k w_k)^2 / \sum_k w_k^2$. For one latent thousands of the draws count. **How many do
# for 4 latents, and how many for 10?**

# %% tags=["answer"]
vaes[10] = tv.VAE(64, hidden=60, latent=10, activation="tanh", dtype="float64")
tv.fit(vaes[10], data, epochs=20, lr=5e-3, quiet=True)
for latent, vae in vaes.items():
    from_prior = vae.prior.sample(tv.Noise(1, "prior"), 10_000)
    log_w = vae.likelihood(from_prior.reshape(10_000, 1, latent)).log_prob(x).numpy()[:, 0]
    w = np.exp(log_w - log_w.max())
    _, effective = log_evidence(vae, tv.Batch(x), tv.Noise(1), 10_000)
    words = f"{latent:>2} latent{'s' * (latent > 1)}:"
    print(f"{words:<11} effective draws of 10,000 from the prior "
          f"{w.sum() ** 2 / (w**2).sum():>7,.0f}, from the encoder {effective[0]:>7,.0f}")

# %% [markdown]
# The prior and the posterior drift apart with every latent, because each latent that is used narrows the posterior.
# Draws from the prior are thermometers all over the hall. The encoder knows where the lamp is, and that is what it is
# trained for: to be near $p(z|x)$ without ever computing it. The next chapter says how one can be near to what one
# cannot compute.
#
# ## Other ways, and what they need
#
# - **Expectation maximisation** needs $p(z|x)$ in its first step, the very thing that is missing. With draws in its
#   place it is *Monte Carlo EM*, which the article calls by another name.
# - **Markov chains** (Metropolis, Hamiltonian Monte Carlo) need only ratios of $p(x, z)$, the latter also the gradient
#   of its logarithm by $z$, and in both $p(x)$ cancels. So they draw from the exact posterior in the limit, but they
#   run anew for each image, and for each step of the decoder's weights. `tinyvae evaluate --method ais` uses them to
#   judge a trained model, where time is cheap.
# - **Mean-field inference with closed steps** needs expectations of $\log p(x, z)$ in closed form. For conjugate
#   models they exist (chapter 6), for a network they do not.
#
# AEVB wants two more things: that it works with many data, of which each step sees a few, and that a new image needs no
# optimisation of its own.
#
# ## Exercises
#
# Replace the line after the docstring and run the cell: the check says whether it is right. The solution is folded
# below.
#
# **1. How many latents can you pay for?** You can afford so many evaluations and want $n$ points on each axis.

# %%
@exercise("How many latents can you pay for?")
def affordable(evaluations, points):
    """The largest whole d with points^d <= evaluations."""
    return evaluations // points  # your answer


@affordable.check
def _(answer):
    for evaluations, points, expected in ((10**6, 10, 6), (10**6 - 1, 10, 5), (5, 21, 0),
                                          (200_000, 21, 4), (10**18, 10, 18)):
        value = answer(evaluations, points)
        told = f"{points} points and {evaluations:,} evaluations: {expected}, found {value}"
        assert value == expected, told


# %% tags=["solution"]
@affordable.solution
def _(evaluations, points):
    latents = 0
    while points ** (latents + 1) <= evaluations:  # whole numbers: no logarithm rounds
        latents += 1
    return latents


# %% [markdown]
# **2. A rule with three points.** Take the points $-\sqrt3$, $0$ and $\sqrt3$. Which weights integrate every polynomial
# of degree up to 5 exactly against $N(0, 1)$? (Ask it of $1$ and $z^2$, whose means are 1 and 1; then $z^4$, whose mean
# is 3, comes for free.)

# %%
@exercise("A rule with three points")
def three_points(f):
    """E[f(z)] for z ~ N(0, 1), by three evaluations of f."""
    return (f(-math.sqrt(3)) + f(0.0) + f(math.sqrt(3))) / 3  # your answer


@three_points.check
def _(answer):
    for degree, expected in enumerate((1, 0, 1, 0, 3, 0)):
        value = answer(lambda z, k=degree: z**k)
        told = f"the mean of z^{degree} is {expected}, found {value:.6f}"
        assert abs(value - expected) < 1e-9, told


# %% tags=["solution"]
@three_points.solution
def _(f):
    return (f(-math.sqrt(3)) + 4 * f(0.0) + f(math.sqrt(3))) / 6


# %% [markdown]
# **3. An estimate and its error.** From $\log w_k$ of $K$ independent draws, give the estimate
# $\log \frac1K \sum_k w_k$ and its standard error, to first order: the standard error of the mean weight (with
# $K - 1$ in the sample variance) over the mean weight. The largest $\log w_k$ may be $-5000$.

# %%
@exercise("An estimate and its error")
def estimated(log_w):
    """(log p(x), standard error) from the logarithms of the weights, an array (K,)."""
    return float(np.mean(log_w)), 0.0  # your answer


@estimated.check
def _(answer):
    log_w = np.log([1.0, 2.0, 3.0, 6.0])
    expected = math.log(3.0), math.sqrt(14 / 3 / 4) / 3
    for shift in (0.0, -5000.0):
        value, error = answer(log_w + shift)
        told = (f"the mean of 1, 2, 3, 6 is 3: expected {expected[0] + shift:.4f}, "
                f"found {value:.4f}")
        assert abs(value - shift - expected[0]) < 1e-9, told
        told = f"their relative standard error is {expected[1]:.4f}, found {error:.4f}"
        assert abs(error - expected[1]) < 1e-9, told


# %% tags=["solution"]
@estimated.solution
def _(log_w):
    highest = np.max(log_w)
    w = np.exp(log_w - highest)  # the largest is 1
    return highest + math.log(w.mean()), w.std(ddof=1) / math.sqrt(len(w)) / w.mean()


# %% [markdown]
# **4. The formula that does exist.** Write $\log p(x)$ of the linear model, $z \sim N(0, I)$ and
# $x \sim N(W z, s^2 I)$.

# %%
@exercise("The formula that does exist")
def log_p(x, w, s):
    """log p(x) for x (pixels,), w (pixels, latents) and a number s."""
    return float(stats.norm.logpdf(x, 0, s).sum())  # your answer


@log_p.check
def _(answer):
    rng = np.random.default_rng(0)
    w, datum, s = 0.6 * rng.standard_normal((4, 2)), rng.standard_normal(4), 0.9
    weight = tv.Tensor(w.T.copy())
    prior = Normal.standard(2, np.float64)
    spread = tv.Tensor(np.full(4, 2 * math.log(s)))

    def decoder(z):
        return Normal((z.reshape(-1, 2) @ weight).reshape(-1, 1, 4), spread)

    p = tv.Joint(prior, decoder)
    expected = by_quadrature(p, tv.Tensor(datum.reshape(1, 4)), 40).log_evidence[0]
    value = answer(datum, w, s)
    told = f"quadrature gives {expected:.5f}, found {value:.5f}"
    assert abs(value - expected) < 1e-4, told


# %% tags=["solution"]
@log_p.solution
def _(x, w, s):
    covariance = w @ w.T + s**2 * np.eye(len(x))
    return stats.multivariate_normal(np.zeros(len(x)), covariance).logpdf(x)


# %% [markdown]
# ## What the sources say
#
# - AEVB (Kingma & Welling 2014), section 2.1, names the two troubles that this chapter measures: intractability, in
#   which neither evidence nor posterior can be computed and so neither EM nor mean-field inference applies, and large
#   data sets, for which sampling per datum (Monte Carlo EM) is too slow.
# - Blei, Kucukelbir & McAuliffe (2017), section 2, take the mixture of Gaussians, whose evidence is a sum over
#   $K^n$ assignments, as their example of an evidence in closed form that nobody can compute.
# - Kingma & Welling (2019), section 1.8, add that $p(x)$ and $p(z|x)$ are intractable together: from one the other
#   would follow. Burda, Grosse & Salakhutdinov (2016) use the estimate of exercise 3 to judge VAEs.
