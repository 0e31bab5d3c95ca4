# %% [markdown]
# # 3. Bayesian inference
#
# The last chapter wrote down how latent things make observed ones, and asked at its end for the way back: we have seen
# $x$, what do we now believe of $z$? This chapter is about that step alone, in models so small that it can be done
# exactly and watched.
#
# ## What you need to know
#
# The product rule in both orders, $p(x, z) = p(z)\,p(x|z) = p(x)\,p(z|x)$, and that a density integrates to 1. In this
# chapter the latent is often called $\theta$: the probability of a coin, the mean of a measurement.
#
# > **Claim.** The belief after the data is the belief before, times what the data say, divided by a number that makes
# > the whole 1:
# >
# > $$\underbrace{p(z|x)}_{\text{posterior}}
# >   = \frac{\overbrace{p(x|z)}^{\text{likelihood}}\;\overbrace{p(z)}^{\text{prior}}}
# >          {\underbrace{p(x)}_{\text{evidence}}},
# >   \qquad p(x) = \int p(x|z)\,p(z)\,dz .$$
# >
# > If the data are independent given $z$, the posterior is the prior of the next datum, so that they may come one by
# > one, all at once, or in any order.

# %%
import math

import numpy as np
from scipy import integrate, stats

import tinyvae as tv
from tinyvae.bayes.conjugate import BetaBernoulli, GammaPoisson, NormalNormal
from tinyvae.bayes.grid import on_grid
from tinyvae.distributions import Bernoulli
from tinyvae.lessons.book import exercise, show
from tinyvae.pictures.page import INK, LABELS, PALE, TEST, TRAIN, new_figure, plain_axes

# %% [markdown]
# ## Looking for the keys
#
# The keys are in the coat (you are 60 % sure), in the kitchen (30 %) or in the car (10 %). You search the coat and do
# not find them. You are no careful searcher: one time in five you overlook keys that are there. So the coat is not
# ruled out. It has lost four fifths of its weight, and what is left is shared out anew. That is Bayes' theorem: each
# place keeps its old weight times the probability of *not finding them there*, and then all are divided by the sum. The
# 60, 30 and 10 are the prior, the search is the datum, and the sum by which we divide is the evidence: how probable it
# was to come back without keys.

# %%
keys = tv.BayesianNetwork({
    "place": tv.Node([0.6, 0.3, 0.1], (), ("coat", "kitchen", "car")),
    "coat": tv.Node([[0.8, 0.2], [0, 1], [0, 1]], ("place",), ("found", "nothing")),
})
after = keys.posterior("place", {"coat": "nothing"})
print({place: round(p, 3) for place, p in after.items()})
evidence = math.exp(keys.log_evidence({"coat": "nothing"}))
print(f"evidence p(nothing) = {evidence:.3f}")

# %% [markdown]
# ## On a grid: a coin
#
# A coin shows heads ($x = 1$) with an unknown probability $\theta$. The prior says that it is probably about fair. At
# each point of a grid we multiply prior and likelihood, and divide by the sum. Nothing else is needed, as long as
# $\theta$ is one number.
#
# $$p(\theta|x) \propto p(\theta) \prod_i p(x_i|\theta), \qquad
#   \log p(x) \approx \log \sum_j p(\theta_j)\, p(x|\theta_j)\, \Delta_j$$
#
# ```{line} tinyvae/bayes/grid.py
# total = np.trapezoid(np.exp(log_p - top), grid)
# return GridPosterior(grid, np.exp(log_p - top) / total, float(np.log(total) + top))
# ```

# %%
tosses = np.array([1, 1, 0, 1, 1, 1, 0, 1, 1, 0], np.float64)  # seven heads of ten
prior = BetaBernoulli(4, 4)
grid = np.linspace(0.001, 0.999, 500)


def log_likelihood(theta):
    """log p(x|theta) of all tosses, for theta (points, 1)."""
    return Bernoulli(theta.log() - (1 - theta).log()).log_prob(tv.Tensor(tosses))


found = on_grid(prior.law.log_prob, log_likelihood, grid)
likelihood = np.exp(log_likelihood(tv.Tensor(grid.reshape(-1, 1))).numpy())
print(f"log p(x) = {found.log_evidence:.4f} nats; E[theta|x] = {found.mean:.4f}, "
      f"standard deviation {math.sqrt(found.variance):.4f}")

# %% tags=["drawing"]
figure = new_figure(7, 2.9)
axes = figure.add_subplot()
axes.plot(grid, stats.beta(4, 4).pdf(grid), color=TRAIN, label="prior p(θ)")
axes.plot(grid, likelihood / np.trapezoid(likelihood, grid), color=PALE, linestyle="--",
          label="likelihood p(x|θ), scaled")
axes.plot(grid, found.density, color=TEST, linewidth=2, label="posterior p(θ|x)")
plain_axes(axes, "Seven heads of ten: the posterior lies between prior and likelihood",
           x="θ, the probability of heads", y="density")
axes.legend(fontsize=8, frameon=False)
figure.tight_layout()
show(figure, "Three curves over the probability of heads: a prior around 0.5, the "
             "likelihood with its peak at 0.7, and between them the posterior, narrower "
             "than both.")

# %% [markdown]
# ## Without a grid: conjugate pairs
#
# The prior was $\mathrm{Beta}(4, 4)$, whose density is proportional to $\theta^3 (1-\theta)^3$. A head multiplies it by
# $\theta$, a tail by $1 - \theta$. So the posterior is again a Beta, and the data only add to its two numbers:
#
# $$p(\theta|x) = \mathrm{Beta}(a + \text{heads},\; b + \text{tails})$$
#
# ```{line} tinyvae/bayes/conjugate.py
# return BetaBernoulli(self.a + ones, self.b + zeros)
# ```
#
# A prior that keeps its form is called *conjugate* to the likelihood. Then the evidence has a closed form, too, a
# quotient of the two constants that make the densities integrate to 1:
#
# $$p(x) = \frac{B(a + \text{heads},\; b + \text{tails})}{B(a, b)}$$
#
# ```{line} tinyvae/bayes/conjugate.py
# return _log_beta(after.a, after.b) - _log_beta(self.a, self.b)
# ```

# %%
exact = prior.update(tosses)
print(f"{prior}  ->  {exact}")
print(f"log p(x) on the grid {found.log_evidence:.6f}, "
      f"exactly {prior.log_evidence(tosses):.6f} nats")
print(f"E[theta|x] on the grid {found.mean:.6f}, "
      f"exactly {exact.a / (exact.a + exact.b):.6f}")

# %% [markdown]
# Two more pairs are in daily use. Counts $x \sim \mathrm{Poisson}(\theta)$ with a Gamma prior: the data add their sum
# to its shape and their number to its rate.
#
# $$p(\theta|x) = \mathrm{Gamma}\bigl(\text{shape} + \textstyle\sum_i x_i,\; \text{rate} + n\bigr)$$
#
# ```{line} tinyvae/bayes/conjugate.py
# return GammaPoisson(self.shape + float(x.sum()), self.rate + len(x))
# ```
#
# And measurements $x \sim N(\theta, s^2)$ of an unknown mean with a normal prior $N(m, v)$: precisions add, and the new
# mean is the average of the old one and of the data, weighted by the precisions.
#
# $$\frac1{v'} = \frac1v + \frac n{s^2}, \qquad m' = v' \left( \frac mv + \frac{\sum_i x_i}{s^2} \right)$$
#
# ```{line} tinyvae/bayes/conjugate.py
# precision = 1 / self.variance + len(x) / self.noise  # precisions add
# mean = (self.mean / self.variance + float(x.sum()) / self.noise) / precision  # weighted by them
# ```
#
# This last pair is the linear VAE: $\theta$ is the latent $z$, and a decoder without hidden layers gives the mean.

# %%
print("letters a day:", GammaPoisson(2, 1).update([3, 0, 2, 5]))
print("a thermometer:", NormalNormal(mean=20, variance=4, noise=1).update([22.0, 22.4]))

# %% [markdown]
# ## One datum after the other
#
# The posterior takes the prior's place when the next datum comes, and with a conjugate prior it also keeps its form. By
# the product rule the evidence then splits into predictions, each made with what was known before:
#
# $$p(\theta | x_1, x_2) \propto p(x_2|\theta)\, p(\theta|x_1), \qquad
#   p(x_1, x_2, \dots) = p(x_1)\, p(x_2|x_1)\, p(x_3|x_1, x_2) \cdots$$
#
# ```{line} tinyvae/bayes/conjugate.py
# before = before.update(datum)
# ```

# %%
rng = np.random.default_rng(3)
many = (rng.random(400) < 0.7).astype(int)  # a coin with theta = 0.7
moments = (0, 1, 5, 20, 80, 400)
belief, in_parts, kept = BetaBernoulli(4, 4), 0.0, {}
for n, toss in enumerate([*many, None]):
    if n in moments:
        kept[n] = belief
    if toss is not None:
        in_parts += belief.log_evidence(toss)
        belief = belief.update(toss)
print(f"log p of 400 tosses: one by one {in_parts:.8f}, together "
      f"{BetaBernoulli(4, 4).log_evidence(many):.8f} nats")
print("the posterior, forwards: ", belief)
print("the posterior, backwards:", BetaBernoulli(4, 4).update(many[::-1]))

# %% tags=["drawing"]
figure = new_figure(7, 2.9)
axes = figure.add_subplot()
for (n, one), colour in zip(kept.items(), LABELS[::2] + LABELS[1:2], strict=True):
    axes.plot(grid, stats.beta(one.a, one.b).pdf(grid), color=colour, label=f"{n} tosses")
axes.axvline(0.7, color=INK, linewidth=0.8, linestyle=":", label="the coin's θ")
plain_axes(axes, "The belief narrows like 1/√n",
           x="θ, the probability of heads", y="density")
axes.legend(fontsize=8, frameon=False)
figure.tight_layout()
show(figure, "Six densities of the probability of heads after 0, 1, 5, 20, 80 and 400 "
             "tosses. The last ones are far narrower, and lie around 0.7.")

# %% [markdown]
# With few data the prior matters, with many it is forgotten: after 400 tosses another smooth prior, which does not
# rule out the neighbourhood of 0.7, would give nearly the same curve. In a VAE each image has a $z$ of its own, so that
# for every single $z$ there is one datum only. How much the prior matters depends on how sharply its pixels determine
# $z$: for a latent of which they say nothing, the posterior is the prior.
#
# ## Predict, then run
#
# Seven heads of ten. Model A says that the coin is exactly fair, $\theta = 1/2$. Model B knows nothing: every
# $\theta$ from 0 to 1 is equally probable, and it may bend to 0.7, which fits better than any other. **Under which of
# the two is the sequence more probable, that is, which has the larger evidence?**

# %% tags=["answer"]
fair, free = 10 * math.log(0.5), BetaBernoulli(1, 1).log_evidence(tosses)
best = 7 * math.log(0.7) + 3 * math.log(0.3)
print(f"A, a fair coin:             log p(x) = {fair:.3f} nats")
print(f"B, any coin:                log p(x) = {free:.3f} nats")
print(f"B at its best, theta = 0.7: log p(x|theta) = {best:.3f} nats")
print(f"A is {math.exp(fair - free):.2f} times as probable as B, if they were equal before")

# %% [markdown]
# The fair coin wins. The evidence is not the best that a model can do; it is the average over all that the prior held
# possible, and B spent most of its prior on coins that explain these tosses badly. A model is punished for what it
# *could* have said, without any term that counts parameters. The same average, over $z$, is the $p(x)$ by which this
# book judges models.
#
# ## What it means for the VAE
#
# Take $z$ for the latent and a neural network for the likelihood, and every word stays. The prior is $p(z)$, the
# likelihood is the decoder's $p(x|z)$, the posterior $p(z|x)$ says which codes an image may have, and the evidence
# $p(x)$ is how probable the model makes this image. What is lost is the closed form: there is no conjugate prior for a
# neural network. And a grid over ten latents has more points than we have time, as chapter 5 shows in numbers.
#
# ## Exercises
#
# Replace the line after the docstring and run the cell: the check says whether it is right. The solution is folded
# below.
#
# **1. The next toss.** After some tosses, what is the probability that the next one shows heads? It is the mean of
# $\theta$ under the posterior, not the share of heads. (With $a = b = 1$ this is Laplace's rule.)

# %%
@exercise("The next toss")
def next_head(a, b, heads, tails):
    """p(next = 1 | tosses) for the prior Beta(a, b)."""
    return heads / (heads + tails)  # your answer


@next_head.check
def _(answer):
    for a, b, heads, tails in ((1, 1, 7, 3), (4, 4, 7, 3), (0.5, 2, 1, 0)):
        def joint(t, a=a, b=b, heads=heads, tails=tails):
            return stats.beta(a, b).pdf(t) * t**heads * (1 - t) ** tails

        evidence = integrate.quad(joint, 0, 1)[0]
        expected = integrate.quad(lambda t: t * joint(t), 0, 1)[0] / evidence
        value = answer(a, b, heads, tails)
        told = (f"for Beta({a}, {b}), {heads} heads and {tails} tails quadrature gives "
                f"{expected:.6f}, found {value:.6f}")
        assert abs(value - expected) < 1e-6, told


# %% tags=["solution"]
@next_head.solution
def _(a, b, heads, tails):
    return (a + heads) / (a + heads + b + tails)


# %% [markdown]
# **2. A grid of your own.** Two thermometers disagree about a temperature $\theta$: one says $x_1$, the other $x_2$,
# each with a normal error of standard deviation 1, independent of the other's. Before, any $\theta$ from 0 to 40 was
# equally probable, and none outside. Give the posterior at the points of a grid, as a density (use `np.trapezoid`).

# %%
@exercise("A grid of your own")
def temperature(points, x1, x2):
    """p(theta | x1, x2) at each of the points, which lie in [0, 40]."""
    return np.ones(len(points)) / 40  # your answer


@temperature.check
def _(answer):
    points = np.linspace(0, 40, 4001)
    for x1, x2 in ((20.0, 22.0), (0.5, -0.5)):
        low, deviation = -(x1 + x2) * math.sqrt(0.5), math.sqrt(0.5)
        law = stats.truncnorm(low, np.inf, (x1 + x2) / 2, deviation)
        expected, found = law.pdf(points), np.asarray(answer(points, x1, x2))
        off = np.abs(found - expected)
        at = off.argmax()
        assert off.max() < 1e-3, (
            f"for x1 = {x1} and x2 = {x2} SciPy gives the density {expected[at]:.4f} at "
            f"theta = {points[at]:g}; found {np.broadcast_to(found, points.shape)[at]:.4f}")


# %% tags=["solution"]
@temperature.solution
def _(points, x1, x2):
    # the prior is constant, and so is what does not depend on theta
    joint = np.exp(-0.5 * (points - x1) ** 2 - 0.5 * (points - x2) ** 2)
    return joint / np.trapezoid(joint, points)


# %% [markdown]
# **3. Between prior and datum.** For $z \sim N(0, 1)$ and $x \sim N(w z, s^2)$, one number each, give mean and variance
# of $p(z|x)$. This is the exact encoder of a linear VAE. ($\theta = w z$ has the prior $N(0, w^2)$. Divide the mean
# that the normal pair gives for $\theta$ by $w$, and its variance by $w^2$; or multiply the two densities and complete
# the square.)

# %%
@exercise("Between prior and datum")
def encoder(x, w, s):
    """(mean, variance) of p(z|x)."""
    return 0.0, 1.0  # your answer


@encoder.check
def _(answer):
    for x, w, s in ((1.3, 2.0, 0.5), (-2.0, 0.3, 1.0)):
        def joint(z, x=x, w=w, s=s):
            return stats.norm.pdf(z) * stats.norm.pdf(x, w * z, s)

        total, first, second = (integrate.quad(lambda z, k=k: z**k * joint(z), -9, 9)[0]
                                for k in range(3))
        mean, variance = answer(x, w, s)
        expected = first / total, second / total - (first / total) ** 2
        told = (f"for x = {x}, w = {w}, s = {s} quadrature gives the mean "
                f"{expected[0]:.5f} and the variance {expected[1]:.5f}; found {mean:.5f} "
                f"and {variance:.5f}")
        assert abs(mean - expected[0]) < 1e-6, told
        assert abs(variance - expected[1]) < 1e-6, told


# %% tags=["solution"]
@encoder.solution
def _(x, w, s):
    variance = 1 / (1 + w**2 / s**2)
    return variance * w * x / s**2, variance


# %% [markdown]
# **4. Which coin?** You hold a fair coin with probability $p$, otherwise one about which nothing is known ($\theta$
# uniform). What is the probability that it is the fair one, given heads and tails? The "latent" is now a whole model.

# %%
@exercise("Which coin?")
def is_fair(p, heads, tails):
    """p(fair | tosses)."""
    return p  # your answer


@is_fair.check
def _(answer):
    for p, heads, tails in ((0.5, 7, 3), (0.9, 20, 2), (0.1, 0, 0)):
        def free(t, heads=heads, tails=tails):
            return t**heads * (1 - t) ** tails

        odds = p * 0.5 ** (heads + tails) / ((1 - p) * integrate.quad(free, 0, 1)[0])
        value = answer(p, heads, tails)
        told = (f"for p = {p}, {heads} heads and {tails} tails expected "
                f"{odds / (1 + odds):.6f}, found {value:.6f}")
        assert abs(value - odds / (1 + odds)) < 1e-6, told


# %% tags=["solution"]
@is_fair.solution
def _(p, heads, tails):
    tosses = [1] * heads + [0] * tails
    fair = p * 0.5 ** (heads + tails)
    return fair / (fair + (1 - p) * math.exp(BetaBernoulli(1, 1).log_evidence(tosses)))


# %% [markdown]
# ## What the sources say
#
# - Blei, Kucukelbir & McAuliffe (2017), eq. 2, begin where this chapter ends: the posterior is the joint divided by the
#   evidence, and the evidence is the integral that makes inference hard.
# - AEVB (Kingma & Welling 2014), section 2.1, uses the names prior, likelihood and posterior for the VAE, and calls the
#   evidence the marginal likelihood; its $\theta$ are the weights of
#   the decoder, not a latent as here.
# - Conjugacy is why coordinate ascent has closed steps: each of its updates (chapter 6) is one of the additions above,
#   with expectations in the place of data.
