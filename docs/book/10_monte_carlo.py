# %% [markdown]
# # 10. Monte Carlo estimator
#
# The reparameterization trick turned the gradient into an expectation over noise,
# $E_{p(\epsilon)}[\nabla_v f(g(\epsilon; v))]$. An expectation is an integral, and chapter 5 showed what integrals
# cost in many dimensions. This chapter replaces the integral by a mean over a few draws, says how wrong that is, and
# why in a VAE one draw for each datum is enough.
#
# ## What you need to know
#
# The variance of a sum of independent numbers is the sum of their variances; an estimator is *unbiased* if its
# expectation is what it estimates; the standard error of an estimator is its standard deviation over repetitions.
#
# > **Claim.** For independent draws $z_1, \dots, z_L \sim q$ the mean $\frac1L \sum_l f(z_l)$ is an unbiased estimate
# > of $E_q[f(z)]$, with the standard error
# >
# > $$\frac{\mathrm{sd}_q[f(z)]}{\sqrt{L}},$$
# >
# > if that standard deviation is finite. The number of dimensions of $z$ does not occur in it. A hundred times more
# > draws make the error ten times smaller.

# %%
import itertools
import math
import textwrap

import numpy as np
from scipy import stats

from tinyvae.lessons import figures, montecarlo
from tinyvae.lessons.book import drawn, exercise, show
from tinyvae.lessons.expectations import NotFinite
from tinyvae.lessons.expressions import parse
from tinyvae.lessons.families import drawable, member
from tinyvae.pictures.page import INK, TEST, TRAIN, new_figure, plain_axes

# %% [markdown]
# ## Tasting a soup
#
# How salty is a pot of soup? If it is well stirred, a few spoonfuls tell, and it does not matter whether the pot is
# small or as large as a bathtub: what counts is the number of spoonfuls, and how much they differ from each other.
# The spoonfuls are the draws, stirring makes them independent draws of $q$, and the size of the pot is the number of
# dimensions. Only if almost all of the salt is in a single lump will tasting fail: most tasters say "no salt", and
# the few who meet the lump say something absurd. That is an $f$ with a large or infinite variance.
#
# ## Both routes, against the exact value
#
# The mean can be taken over draws of $q$ itself, or over noise through $g$, as chapter 9 showed:
#
# $$E_q[f(z)] \approx \frac1L \sum_{l=1}^{L} f(z_l), \quad z_l \sim q
#   \qquad\text{or}\qquad z_l = g(\epsilon_l; v), \quad \epsilon_l \sim p(\epsilon)$$
#
# ```{line} tinyvae/lessons/montecarlo.py
# values = f(Tensor(draw(count * draws))).data.reshape(count, draws)
# found.append((values.mean(1), values.std(1, ddof=1) / math.sqrt(draws)))
# ```
#
# The second number in that line is the standard error as the sample itself knows it: $s/\sqrt{L}$, with the sample's
# own standard deviation $s$. Here both routes estimate $E[z^2]$ of a Gamma variate with $L = 16, 64, \dots, 4096$
# draws, each a hundred times over. The direct draws use nothing of $q$ but its density.

# %%
q, recipe = drawable("gamma(3, 2)")
study = montecarlo.study(q, recipe, parse("z**2"), largest=4096, repetitions=100)
drawn(figures.montecarlo, study,
      text="Left, a histogram of draws of g(ε) beside the density of q: they agree. Right, "
           "the error over the number of draws on logarithmic axes: both routes lie on a "
           "line that falls with slope -1/2.")
print(f"E[z²] = {study.exact:.4f} exactly, standard deviation of f {study.sd:.4f}\n")
print(f"{'L':>6}  {'estimate by g(ε)':>19}  {'error of 100 such':>18}  {'sd/sqrt(L)':>10}")
for row in study.rows:
    print(f"{row.draws:>6}  {row.estimate[1]:>9.4f} ± {row.stderr[1]:>7.4f}  "
          f"{row.rms[1]:>18.4f}  {row.expected:>10.4f}")
low, high = study.slopes[1].interval
print(f"\nslope of log error over log L: {study.slopes[1].value:.3f}, "
      f"95 % interval {low:.3f} to {high:.3f}")

# %% [markdown]
# ## The number of dimensions matters only through the spread of f
#
# For $z \sim N(0, I)$ in $d$ dimensions let $f(z) = \left( \sum_i z_i \right)^2 / d$. Its expectation is 1 and its
# standard deviation $\sqrt2$ for every $d$. With 400 draws the error is $\sqrt{2/400} \approx 0.071$, in one
# dimension as in a thousand. A grid with only ten points an axis needs $10^d$ values of $f$.

# %%
draws, repetitions = 400, 200
rng = np.random.default_rng(0)
print(f"{'dimensions':>10}  {'error of the mean of 400 draws':>31}  "
      f"{'points of a grid':>17}")
for dimensions in (1, 10, 100, 1000):
    errors = [np.mean(rng.standard_normal((draws, dimensions)).sum(1) ** 2 / dimensions) - 1
              for _ in range(repetitions)]
    rms = math.sqrt(np.mean(np.square(errors)))
    stderr = np.std(np.square(errors), ddof=1) / math.sqrt(repetitions) / (2 * rms)
    print(f"{dimensions:>10}  {rms:>22.3f} ± {stderr:.3f}  {f'10^{dimensions}':>17}")

# %% [markdown]
# ## In a VAE: many data, one draw each
#
# The ELBO of a data set is a sum over $N$ data, and each term is an expectation. The estimator replaces both: $M$
# data stand for all, and $L$ draws for the expectation,
#
# $$\mathcal{L}(X) \approx \frac{N}{M} \sum_{i=1}^{M} \left[ \frac1L \sum_{l=1}^{L} \log p(x_i|z_{il})
#   - \mathrm{KL}(q(z|x_i) \,\|\, p(z)) \right], \qquad z_{il} = g(\epsilon_{il}; x_i).$$
#
# The mean over $l$ is this line; the mean over $i$ follows in the objective. (tinyvae divides by $M$ and not by
# $M/N$: its numbers are nats per datum. The factor $N$ changes the length of a gradient, not its direction.)
#
# ```{line} tinyvae/inference/bounds.py
# """The mean of (samples, batch) over the samples; one sample needs no arithmetic."""
# return values.reshape(values.shape[1:]) if len(values) == 1 else values.mean(0)
# ```
#
# Let $V_x$ be the variance, over the data, of a datum's expected gradient, and $V_\epsilon$ the mean, over the data, of
# the variance of one draw of it. For the mean over a minibatch of $M$ data that are drawn independently, with $L$ draws
# each,
#
# $$\mathrm{Var} = \frac1M \left( V_x + \frac{V_\epsilon}{L} \right).$$
#
# More draws help only with the second part. With $M = 100$ it is already divided by 100 for $L = 1$.
#
# ## Predict, then run
#
# You may compute 1000 draws a step. Either a minibatch of 100 data gets 10 draws each, or one of 1000 data gets a
# single draw each. **Which estimate of the gradient has the smaller variance?** Guess also by what factor, for the
# model $z \sim N(0, 1)$, $x|z \sim N(w z, 1/4)$ and the exact posterior as $q$, and the gradient by $w$ at $w = 1.5$,
# while the data come from $w = 2$.

# %% tags=["answer"]
w, noise_variance = 1.5, 0.25


def gradient(M, L, repetitions=2000, seed=0):
    """The mean over M data and L draws of d/dw log p(x|z), (repetitions,)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, math.sqrt(2.0**2 + noise_variance), (repetitions, M, 1))
    variance = 1 / (1 + w**2 / noise_variance)
    mean = variance * w * x / noise_variance
    z = mean + math.sqrt(variance) * rng.standard_normal((repetitions, M, L))
    return ((x - w * z) * z / noise_variance).mean((1, 2))


for M, L in ((100, 10), (1000, 1), (100, 1)):
    found = gradient(M, L)
    stderr = found.std(ddof=1) / math.sqrt(len(found))
    print(f"{M:>4} data, {L:>2} draw{'s' if L > 1 else ' '} each: mean {found.mean():.3f} "
          f"± {stderr:.3f}, variance {found.var(ddof=1):.4f}")

# %% [markdown]
# New data beat new draws of the same data, always: with $M L$ fixed, $V_\epsilon / (M L)$ stays as it is, and
# $V_x / M$ grows as $M$ shrinks. Ten draws of each datum cost ten times the work of the last row and leave more than
# a third of its variance; ten times as many data leave a tenth. This is why AEVB sets $L = 1$ for $M = 100$: what
# else one can afford is better spent on a larger minibatch, or on the next step. Two things can speak for $L > 1$: a
# decoder that is cheap beside the encoder, and few data. And with $K$ draws *inside* the logarithm (chapter 7,
# exercise 2) the bound itself changes, which more draws outside never do.
#
# ## When it fails
#
# The claim needs a finite standard deviation. Let $z \sim N(0, 1)$ and $f(z) = e^{z^2/3}$. The expectation is
# $\sqrt3$, since $e^{z^2/3 - z^2/2}$ can be integrated. The expectation of $f^2$ is infinite. The mean still tends to
# the right value (that is the law of large numbers), but no $\sqrt{L}$ says how fast, and an error estimated from the
# sample is worth nothing.

# %% tags=["drawing"]
rng = np.random.default_rng(3)
count = np.arange(1, 20_001)
figure = new_figure(7, 2.8)
axes = figure.add_subplot()
for number in range(6):
    means = np.cumsum(np.exp(rng.standard_normal(len(count)) ** 2 / 3)) / count
    axes.plot(count, means, color=(TRAIN, TEST)[number % 2], linewidth=1,
              alpha=0.4 + 0.1 * number)
axes.axhline(math.sqrt(3), color=INK, linewidth=1, linestyle=(0, (4, 3)))
axes.text(1.01, math.sqrt(3), "exact", fontsize=8, color=INK, va="center",
          transform=axes.get_yaxis_transform())
axes.set_xscale("log")
axes.set_xlim(1, len(count))
plain_axes(axes, "Six running means of exp(z²/3): jumps at rare draws", x="draws",
           y="mean so far")
figure.tight_layout()
show(figure, "Six running means over 20,000 draws. They begin far off, stay below the "
             "exact value for long stretches, and jump above it at single draws.")

# %%
try:
    montecarlo.moments(member("normal"), parse("exp(z**2/3)"))
except NotFinite as refused:
    print(textwrap.fill(f"tinyvae: {refused}", 92))

# %% [markdown]
# ## Exercises
#
# **1. The standard error.** From a sample, the standard error of its mean. Mind the divisor of the variance.

# %%
@exercise("The standard error")
def standard_error(values):
    """The estimated standard error of the mean of independent values."""
    return np.std(values)  # your answer


@standard_error.check
def _(answer):
    for values in ([1.0, 2.0], [0.0, 0.0, 6.0], np.linspace(0, 1, 50) ** 2):
        expected = stats.sem(values)
        found = answer(np.array(values))
        told = f"SciPy gives {expected:.6f} for {len(values)} values; found {found:.6f}"
        assert abs(found - expected) < 1e-12, told


# %% tags=["solution"]
@standard_error.solution
def _(values):
    # the divisor is L - 1, for the mean was taken from the same values
    return np.std(values, ddof=1) / math.sqrt(len(values))


# %% [markdown]
# **2. A minibatch for all data.** Write the estimate of $\sum_{i=1}^N t_i$ by a minibatch of $M$ of the $N$ terms.
# Your estimate is unbiased if its mean over *all* minibatches is the sum; the check takes them all.

# %%
@exercise("A minibatch for all data")
def whole_sum(minibatch, N):
    """An unbiased estimate of the sum of N terms, by an array of some of them."""
    return np.sum(minibatch)  # your answer


@whole_sum.check
def _(answer):
    terms = np.array([3.0, -1.0, 4.0, 1.5, 9.0])
    for M in (1, 2, 4):
        minibatches = list(itertools.combinations(terms, M))
        each = [answer(np.array(chosen), len(terms)) for chosen in minibatches]
        told = (f"the mean over all {len(each)} minibatches with M = {M} should be the "
                f"sum, {terms.sum():.3f}; found {np.mean(each):.3f}")
        assert abs(np.mean(each) - terms.sum()) < 1e-9, told


# %% tags=["solution"]
@whole_sum.solution
def _(minibatch, N):
    # each term is in a share M / N of the minibatches
    return N / len(minibatch) * np.sum(minibatch)


# %% [markdown]
# **3. Pairs of opposite noise.** $\epsilon$ and $-\epsilon$ have the same law, so
# $\frac12 [f(g(\epsilon)) + f(g(-\epsilon))]$ is unbiased, too. Write it for a normal $q$ as a mean over given
# $\epsilon$. For which $f$ is it exact with a single pair, and for which $f$ does it waste a draw?

# %%
@exercise("Pairs of opposite noise")
def antithetic(f, mu, sigma, eps):
    """The mean over the pairs (eps, -eps) of f(mu + sigma eps), for an array eps."""
    return np.mean(f(mu + sigma * eps))  # your answer


@antithetic.check
def _(answer):
    line = answer(lambda z: 3 * z - 1, 2.0, 0.5, np.array([0.7]))
    told = f"the mean of 3 z - 1 is 5, exactly by one pair; found {line:.4f}"
    assert abs(line - 5) < 1e-12, told
    eps = np.random.default_rng(0).standard_normal(20_000)
    expected, found = math.exp(0.3 + 0.5**2 / 2), answer(np.exp, 0.3, 0.5, eps)
    assert abs(found - expected) < 0.006, f"E[exp(z)] is {expected:.4f}; found {found:.4f}"


# %% [markdown]
# The odd part of $f$ around $\mu$ cancels, so a straight line is exact. If $f$ is even around $\mu$, as
# $(z - \mu)^2$, both members of a pair say the same, and one of them was wasted.

# %% tags=["solution"]
@antithetic.solution
def _(f, mu, sigma, eps):
    return np.mean((f(mu + sigma * eps) + f(mu - sigma * eps)) / 2)


# %% [markdown]
# ## What the sources say
#
# - AEVB, section 2.3, has the estimator for a data set (eq. 8), and reports that $L = 1$ was enough for minibatches
#   of $M = 100$.
# - Blei, Kucukelbir & McAuliffe (2017), section 4.3, put the same idea, noisy but unbiased gradients from a part of
#   the data, under variational inference as stochastic VI.
# - Burda, Grosse & Salakhutdinov (2016) put draws inside the logarithm: then more of them make the bound tighter, not
#   only less noisy.
# - The exact values of this chapter are by quadrature in one dimension; that a density alone is enough for them is
#   shown by `tinyvae montecarlo`, which takes sixteen families.
