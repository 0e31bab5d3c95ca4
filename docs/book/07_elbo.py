# %% [markdown]
# # 7. The Evidence Lower Bound
#
# The last chapter chose an approximation $q(z)$ and asked it to be close to the posterior $p(z|x)$. That posterior is
# what we cannot compute, so neither can we compute a distance to it. This chapter finds a number that we can compute,
# and that is highest where the distance is least.
#
# ## What you need to know
#
# A density and its expectation $E_q[f(z)] = \int q(z) f(z)\,dz$; the logarithm of a product; and that a divergence
# $\mathrm{KL}(q \,\|\, p) = E_q[\log q(z) - \log p(z)]$ is never negative and 0 only for $q = p$. The evidence
# $p(x) = \int p(x, z)\,dz$ is what chapter 5 found intractable.
#
# > **Claim.** For every $q$ that is 0 wherever $p(x, z)$ is, the evidence splits into a part that we can estimate and a
# > part that is never negative,
# >
# > $$\log p(x) = \underbrace{E_q[\log p(x, z) - \log q(z)]}_{\mathrm{ELBO}(q)}
# >             + \underbrace{\mathrm{KL}(q(z) \,\|\, p(z|x))}_{\ge 0},$$
# >
# > so the ELBO is a lower bound of the log evidence, and the $q$ that raises it most is the $q$ nearest to the
# > posterior.

# %%
import math

import numpy as np
from scipy import integrate, stats

import tinyvae as tv
from tinyvae.distributions import Normal
from tinyvae.lessons import elbo as lesson
from tinyvae.lessons import figures
from tinyvae.lessons.book import drawn, exercise, show
from tinyvae.pictures.page import INK, TEST, TRAIN, new_figure, plain_axes

# %% [markdown]
# ## A dark room and a bundle of sticks
#
# You stand in a dark room and want to know how high the ceiling is. You have a bundle of sticks. Each stick that
# stands upright proves that the ceiling is at least that high. You never see the gap above it, but you know that no
# gap is negative, so the longest stick that fits is your best answer, and above it the gap is smallest. The ceiling
# does not move while you change sticks. Here the ceiling is $\log p(x)$, the sticks are the $q$ of a family, the
# length of a stick is its ELBO, and the gap is the KL divergence to the posterior.
#
# ## The proof
#
# It takes one line that is easy to miss. As $p(x, z) = p(x)\,p(z|x)$, we have for every single $z$
#
# $$\log p(x) = \log p(x, z) - \log p(z|x)
#             = \bigl[\log p(x, z) - \log q(z)\bigr] + \bigl[\log q(z) - \log p(z|x)\bigr].$$
#
# The left side does not depend on $z$, so its expectation under $q$ is itself. The expectation of the first bracket
# is the ELBO, that of the second is the KL divergence. No inequality was used so far. The bound comes from the last
# step alone: a KL divergence is never negative, so
#
# $$\mathrm{ELBO}(q) \le \log p(x), \qquad \text{with equality for } q(z) = p(z|x) \text{ and for no other } q.$$
#
# $\log p(x)$ does not contain $q$. So raising the ELBO over $q$ lowers the KL by just as much, although the KL itself
# stays unknown.
#
# ## The identity in numbers
#
# Let $p(z) = N(0, 1)$ and $p(x|z) = N(2 z, 1/4)$. Then everything has a closed form: $p(x) = N(0, 17/4)$, and the
# posterior is normal, too. We observe $x = 1.3$ and try four $q$.

# %%
x, noise_variance, slope = 1.3, 0.25, 2.0
evidence = stats.norm(0, math.sqrt(slope**2 + noise_variance)).logpdf(x)
posterior_variance = 1 / (1 + slope**2 / noise_variance)
posterior_mean = posterior_variance * slope * x / noise_variance


def elbo_of_normal(mean, variance):
    """E_q[log p(x, z)] + H(q) for q = N(mean, variance), in nats."""
    expected_prior = -0.5 * (math.log(2 * math.pi) + mean**2 + variance)
    miss = (x - slope * mean) ** 2 + slope**2 * variance
    log_scale = math.log(2 * math.pi * noise_variance)
    expected_likelihood = -0.5 * (log_scale + miss / noise_variance)
    entropy = 0.5 * math.log(2 * math.pi * math.e * variance)
    return expected_prior + expected_likelihood + entropy


def kl_of_normals(mean, variance, mean_p, variance_p):
    """KL(N(mean, variance) || N(mean_p, variance_p)), in nats."""
    ratio = variance / variance_p
    return 0.5 * (ratio + (mean - mean_p) ** 2 / variance_p - 1 - math.log(ratio))


tried = {
    "the posterior": (posterior_mean, posterior_variance),
    "a wrong mean": (0.5, posterior_variance),
    "a wrong variance": (posterior_mean, 0.5),
    "the prior": (0.0, 1.0),
}
print(f"log p(x) = {evidence:.4f} nats\n")
print(f"{'q':<18}{'ELBO':>10}{'KL':>10}{'sum':>10}   nats")
for name, (mean, variance) in tried.items():
    bound = elbo_of_normal(mean, variance)
    gap = kl_of_normals(mean, variance, posterior_mean, posterior_variance)
    print(f"{name:<18}{bound:>10.4f}{gap:>10.4f}{bound + gap:>10.4f}")

# %% [markdown]
# The sum is the same in every row. As a picture: the level is fixed, and each bar reaches below it by the KL.

# %% tags=["drawing"]
figure = new_figure(7, 2.9)
axes = figure.add_subplot()
for place, (mean, variance) in enumerate(tried.values()):
    bound = elbo_of_normal(mean, variance)
    label = "KL(q ‖ posterior)" if place == 0 else None
    axes.barh(place, evidence - bound, left=bound, color=TEST, height=0.5, label=label)
    axes.text(evidence + 0.15, place, f"ELBO {bound:.2f}\nKL {evidence - bound:.2f}",
              fontsize=8, color=INK, va="center")
axes.axvline(evidence, color=TRAIN, linewidth=2, label=f"log p(x) = {evidence:.2f}")
axes.set_yticks(range(len(tried)), tried)
axes.set_xlim(right=evidence + 1.6)
plain_axes(axes, "The log evidence is fixed; the ELBO lies below it by the KL", x="nats")
axes.legend(loc="lower left", fontsize=8, frameon=False)
figure.tight_layout()
show(figure, f"Four bars that end at log p(x) = {evidence:.2f} nats. The bar of the "
             "posterior has no length, that of a wrong mean is short, that of a wrong "
             "variance longer, that of the prior by far the longest.")

# %% [markdown]
# ## Two forms, and the lines that compute them
#
# The ELBO in the claim needs $\log p(x, z)$ and $\log q(z)$ at draws of $z$, and nothing else. This is AEVB's
# estimator A. Its bracket consists of what the decoder says, less $\log q(z|x) - \log p(z)$, whose expectation is a
# KL divergence to the *prior*:
#
# $$\log q(z_l|x) - \log p(z_l), \qquad z_l \sim q(z|x)$$
#
# ```{line} tinyvae/inference/bounds.py
# kl = log_q - p.prior.log_prob(z)
# ```
#
# As $p(x, z) = p(z)\,p(x|z)$, the ELBO can be regrouped. What is left is a reconstruction and a price for leaving the
# prior:
#
# $$\mathrm{ELBO} = \underbrace{E_q[\log p(x|z)]}_{\text{reconstruction}}
#                 - \underbrace{\mathrm{KL}(q(z|x) \,\|\, p(z))}_{\text{price}}$$
#
# ```{line} tinyvae/inference/bounds.py
# reconstruction, kl = terms(p, q, x, noise, samples, bound, gradient)
# return reconstruction - kl
# ```
#
# Between two normals the price has a closed form, so that only the reconstruction must be sampled (estimator B). With
# $t = \log(\sigma^2 / s^2)$ it is
#
# $$\mathrm{KL}(N(\mu, \sigma^2) \,\|\, N(m, s^2))
#   = \tfrac12 \left[ (e^t - 1 - t) + \left(\frac{\mu - m}{s}\right)^2 \right],$$
#
# where both terms are visibly not negative:
#
# ```{line} tinyvae/distributions/normal.py
# z = p.standardise(q.mu)
# return 0.5 * ((q.logvar - p.logvar).apply("exp_remainder") + z * z)
# ```
#
# Do not confuse the two KL divergences: the one in the claim goes to the posterior and is the error of the bound;
# this one goes to the prior and is a part of the bound. Only the second can be computed.
#
# ## Predict, then run
#
# Both estimators now get the same task: the ELBO of $q = N(0.5, 0.3)$, by a single draw each, 4000 times over. Their
# means agree, for both are unbiased. **Which of the two varies more, and by roughly what factor?** Write your guess
# down, as a ratio of the two standard deviations, then open the output.

# %% tags=["answer"]
def tensor(*values):
    return tv.Tensor(np.array(values))


def estimates(bound, mean=0.5, variance=0.3, count=4000):
    """The ELBO of q = N(mean, variance) by one draw, `count` times, each a row."""
    def full(value):
        return tv.Tensor(np.full((count, 1), value))

    prior = Normal.standard(1, np.float64)
    log_noise = tensor(math.log(noise_variance))
    generator = tv.Joint(prior, lambda z: Normal(slope * z, log_noise))
    q = Normal(full(mean), full(math.log(variance)))
    noise = tv.Noise(0, "chapter 7")
    return tv.elbo(generator, lambda x: q, full(x), noise, bound=bound).numpy()


print(f"exact: {elbo_of_normal(0.5, 0.3):.3f} nats")
for bound in ("elbo-a", "elbo-b"):
    found = estimates(bound)
    stderr = found.std(ddof=1) / math.sqrt(len(found))
    print(f"{bound}: mean {found.mean():.3f} ± {stderr:.3f} nats, "
          f"standard deviation of a draw {found.std(ddof=1):.3f}")

# %% [markdown]
# If you expected A to vary more, because it samples two terms in place of one, you are in good company, and AEVB says
# that B *usually* has less variance. Here it is the other way round. In A the fluctuation of $\log q$ cancels a part
# of that of $\log p(x, z)$; at the exact posterior it cancels all of it, since $\log p(x, z) - \log q(z)$ is then
# $\log p(x)$ for every $z$. B gives up this cancellation. Try `mean=0, variance=1` in the call: for $q$ at the prior
# $\log q(z)$ and $\log p(z)$ are the same number, and A is B.
#
# ## A bound that cannot be reached
#
# The article animates the ELBO without any data: $p(z) = N(\mu, \sigma^2)$ takes the place of $p(x, z)$, and $q$ is a
# Gamma with shape $a$ and rate $b$. As this $p$ is normalised, $\log p(x)$ is $\log 1 = 0$ and the identity of the
# claim reads $0 = \mathrm{ELBO}(a, b) + \mathrm{KL}(q \,\|\, p)$. In closed form
#
# $$\mathrm{ELBO}(a, b) = -\tfrac12 \log 2\pi\sigma^2 - \frac{\mathrm{Var}_q[z] + (E_q[z] - \mu)^2}{2\sigma^2} + H(q),$$
#
# where $H(q) = -E_q[\log q(z)]$ is the entropy:
#
# ```{line} tinyvae/lessons/elbo.py
# expected_log_p = (-0.5 * (LOG_2PI + 2 * math.log(sigma))
#                   - (q.variance + (q.mean - mu) ** 2).sum(-1) * (0.5 / sigma**2))
# return expected_log_p + q.entropy()
# ```
#
# First the shape moves, then the rate, each a little too far; then both climb by gradient ascent, along the natural
# gradient. `tinyvae elbo --mu 4` draws the same for another $\mu$.

# %%
course = lesson.lesson(mu=1.0, sigma=1.0, frames=24)
drawn(figures.elbo_strip, course,
      text="The ELBO over the way of q rises while the shape moves to its best value, and "
           "falls as it goes too far. It rises and falls again with the rate. Then both "
           "climb, and it ends just below a dashed line. Below, both densities at five "
           "moments.")
drawn(figures.elbo_animation, course, form="gif",
      text="An animation of the same: the Gamma density moves under the normal one, and "
           "a dot follows the ELBO.")
best = course.best
print(f"best Gamma: a = {best.shape:.4f}, b = {best.rate:.4f}, ELBO {best.elbo:.4f} nats")
print(f"highest ELBO of any q on z > 0: {course.bound:.4f} nats")

# %% [markdown]
# The ELBO does not reach 0, and no Gamma could: $q$ has mass on $z > 0$ only. Among all such $q$, of any form, the
# best is $p$ cut off at 0 and divided by its mass there, $\Phi(\mu/\sigma)$. Its ELBO is the dashed line,
#
# $$\max_{q \text{ on } z > 0} \mathrm{ELBO}(q) = \log P(z > 0) = \log \Phi(\mu / \sigma)$$
#
# ```{line} tinyvae/lessons/elbo.py
# return float(log_ndtr(mu / sigma))
# ```
#
# The gap between the dashed line and 0 is the price of a family that cannot be right; the gap between the best Gamma
# and the dashed line is the price of the Gamma's form. A family on the right set of $z$ pays the second price only, and
# one that contains the posterior pays neither.
#
# ## A correction: the ELBO may be positive
#
# One reads, also in the article, that the ELBO is at most 0 because a logarithm of a probability is. That is true of
# probabilities, so for binary pixels. It is not true of densities: a density may exceed 1, and then its logarithm is
# positive. In the animation the ELBO stays below 0 for another reason, because it is $-\mathrm{KL}(q \,\|\, p)$. With
# data that are real numbers nothing keeps $\log p(x)$ below 0:

# %%
for sigma in (1.0, 0.1, 0.01):
    density = stats.norm(0, sigma).pdf(0)
    print(f"N(0, {sigma:g}²) at its mean: density {density:7.3f}, "
          f"log density {math.log(density):7.3f}")

# %% [markdown]
# So a positive ELBO of grey images is no mistake, and comparing it with the ELBO of binary images is one: scale the
# pixels by 255, and the log density of 64 pixels moves by $64 \log 255 \approx 355$ nats.
#
# ## Exercises
#
# The functions `price`, `importance_weighted` and `highest` return 0.0 so far. Replace that line, `return 0.0`, and run
# the cell: the check says whether it is right. The solution is folded below.
#
# **1. The divergence of two normals.** Write $\mathrm{KL}(N(\mu, \sigma^2) \,\|\, N(0, 1))$, the price in the VAE of
# chapter 4. What does a datum pay for one latent whose mean is 2, if its variance is that of the prior?

# %%
def divergence(q, p):
    """KL(q || p) by quadrature, for the checks."""
    low, high = q.interval(1 - 1e-14)
    return integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), low, high)[0]


@exercise("The divergence of two normals")
def price(mu, sigma):
    """KL(N(mu, sigma^2) || N(0, 1)) in nats."""
    return 0.0  # your answer


@price.check
def _(answer):
    for mu, sigma in ((2.0, 1.0), (0.0, 0.1), (-1.0, 3.0)):
        expected = divergence(stats.norm(mu, sigma), stats.norm(0, 1))
        found = answer(mu, sigma)
        told = (f"for mu = {mu}, sigma = {sigma} quadrature gives {expected:.6f} nats; "
                f"found {found:.6f}")
        assert abs(found - expected) < 1e-6, told


# %% tags=["solution"]
@price.solution
def _(mu, sigma):
    return 0.5 * (mu**2 + sigma**2 - 1 - math.log(sigma**2))  # 2 nats for mu = 2, sigma = 1


# %% [markdown]
# **2. A bound from several draws.** For $K$ draws, $\log \frac1K \sum_k p(x, z_k) / q(z_k)$ is, on average, a lower
# bound, too (by Jensen's inequality), and a tighter one. Write it for given
# $\log w_k = \log p(x, z_k) - \log q(z_k)$, so that it also works for $\log w_k = -2000$, where the exponential is 0.

# %%
@exercise("A bound from several draws")
def importance_weighted(log_w):
    """log of the mean of exp(log_w), for an array log_w of any length."""
    return 0.0  # your answer


@importance_weighted.check
def _(answer):
    for log_w, expected, told in (
        (np.log([1.0, 3.0]), math.log(2), "the mean of 1 and 3 is 2"),
        (np.full(2, -2000.0), -2000.0, "two weights of exp(-2000) have that mean"),
        (np.array([800.0]), 800.0, "of a single draw it is log w, the ELBO's estimate"),
    ):
        found = answer(log_w)
        told = f"{told}: expected {expected:.4f}, found {found:.4f}"
        assert abs(found - expected) < 1e-9, told


# %% tags=["solution"]
@importance_weighted.solution
def _(log_w):
    highest = np.max(log_w)  # taken out, so that the largest exponential is 1
    return highest + math.log(np.mean(np.exp(log_w - highest)))


# %% [markdown]
# **3. The line that no Gamma reaches.** Compute the ELBO of $p = N(\mu, \sigma^2)$ cut off at 0, the best $q$ on
# $z > 0$, without quadrature. Hint: where $q$ is not 0, the ratio $q(z) / p(z)$ is the same number for all $z$.

# %%
@exercise("The line that no Gamma reaches")
def highest(mu, sigma):
    """max over q on z > 0 of E_q[log p(z) - log q(z)], in nats."""
    return 0.0  # your answer


@highest.check
def _(answer):
    for mu, sigma in ((0.0, 1.0), (1.0, 1.0), (-1.0, 2.0)):
        cut_off = stats.truncnorm(-mu / sigma, np.inf, mu, sigma)
        expected = -divergence(cut_off, stats.norm(mu, sigma))
        found = answer(mu, sigma)
        told = (f"for mu = {mu}, sigma = {sigma} quadrature gives {expected:.6f} nats; "
                f"found {found:.6f}")
        assert abs(found - expected) < 1e-6, told


# %% tags=["solution"]
@highest.solution
def _(mu, sigma):
    # q = p / P(z > 0), so log p - log q is log P(z > 0) everywhere on z > 0
    return stats.norm.logcdf(mu / sigma)


# %% [markdown]
# ## What the sources say
#
# - AEVB (Kingma & Welling 2014), eqs. 1 to 3, has the identity of the claim and both forms of the bound; eqs. 6 and 7
#   are the estimators A and B, appendix B is the closed form of the KL.
# - Blei, Kucukelbir & McAuliffe (2017) define the ELBO as $E[\log p(z, x)] - E[\log q(z)]$ and read it as in the
#   second form here: explain the data, stay near the prior.
# - Kingma & Welling (2019), section 2.2, add what the VAE makes of it: raising the ELBO over the parameters of $q$
#   tightens the bound, raising it over those of $p$ improves the model, and one gradient does both. The next chapter
#   is about that gradient.
# - Burda, Grosse & Salakhutdinov (2016) have the bound of exercise 2.
