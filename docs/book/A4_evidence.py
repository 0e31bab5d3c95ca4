# %% [markdown]
# # A4. Evidence
#
# Training raises the ELBO, because $\log p(x)$ is out of reach (chapter 5) and the ELBO is not (chapter 7). But the
# ELBO mixes two things: how good the model is, and how good its encoder is. Of two models with the same ELBO one may
# be better by nats. To judge a *model* we want $\log p(x)$ itself. This page estimates it, for a trained model and a
# few data, from below and from above, and says how to notice that an estimate is not to be trusted.
#
# ## What you need to know
#
# A Monte Carlo mean and its standard error (chapter 10), the ELBO (chapter 7), and Jensen's inequality: the mean of
# logarithms is at most the logarithm of the mean. A *weight* $w$ is a positive random number; an average of $K$
# weights is $\bar w = \frac1K \sum_k w_k$.
#
# > **Claim.** An unbiased estimate of $p(x)$ gives, on average, a lower bound of $\log p(x)$, and an unbiased
# > estimate of its reciprocal an upper bound: for positive weights
# >
# > $$\begin{aligned}
# >   E[w] = p(x) &\;\Rightarrow\; E[\log \bar w] \le \log p(x), \\
# >   E[v] = 1/p(x) &\;\Rightarrow\; E[-\log \bar v] \ge \log p(x).
# > \end{aligned}$$
# >
# > For $K$ independent weights of finite variance both gaps are, for large $K$, about half the variance of the
# > logarithm, and shrink like $1/K$. All methods of this page differ in their weights alone.

# %%
import math

import numpy as np
from scipy import special, stats

import tinyvae as tv
from tinyvae.evidence import ais, pareto
from tinyvae.evidence.diagnostics import variance_of
from tinyvae.lessons.book import exercise, show
from tinyvae.pictures.page import INK, TEST, TRAIN, new_figure, plain_axes

# %% [markdown]
# ## Asking the buses and asking the passengers
#
# How many people sit in a bus of this town on average? Stop a few buses at random and count. That is right on
# average, but if nearly everybody rides in three buses at eight o'clock, you will most likely stop none of these and
# report too little; and the one who stops one reports far too much. Or ask passengers in the street: how full was
# your bus? They all say "packed", because a full bus has many to tell of it. Yet their answers are not useless.
# Average the *reciprocals* of what they say: a bus with $n$ people is named $n$ times, each time with $1/n$, so every
# bus counts once, and the mean is the number of buses over the number of people, exactly. Nobody tells of an empty
# bus, so those are left out.
#
# The bus is $z$, and how full it is is the weight. Buses stopped at random are draws from $q(z)$: their estimate is
# mostly too low. Passengers are draws from the posterior, which meets a $z$ the more often the more weight it has:
# their estimate is mostly too high. Who can ask both knows where the truth is.
#
# ## A model whose evidence is known
#
# With two latents the integral $p(x) = \int p(z)\,p(x|z)\,dz$ can still be done on a grid. We train a small VAE on
# digits of $8 \times 8$ bits, and compute $\log p(x)$ of 50 test images by quadrature. This is the answer that the
# methods have to find without a grid.

# %%
data = tv.data.load("digits-static")
model = tv.VAE(data.dimensions, hidden=100, latent=2)
tv.fit(model, data, epochs=20, quiet=True)
generator = model.generator(None)
axis = np.linspace(-6, 6, 141)
grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
decoded = generator.likelihood(tv.Tensor(grid.astype(np.float32)))
logits = decoded.logits.numpy().astype(float)
log_cell = stats.norm.logpdf(grid).sum(1) + 2 * math.log(axis[1] - axis[0])


def quadrature(x):
    """log p(x) in nats of images of bits (data, 64), by the grid over z."""
    log_likelihood = x @ logits.T - np.logaddexp(0, logits).sum(1)
    return special.logsumexp(log_likelihood + log_cell, axis=1)


x = data.test[:50].astype(np.float32)
exact = quadrature(x)
print(f"log p(x): {exact.mean():.3f} nats per datum, the mean of {len(x)} test images")

# %% [markdown]
# ## Importance sampling
#
# The integral is an expectation under any $q$ that is not 0 where $p(x, z)$ is not 0. The encoder gives a good one:
#
# $$p(x) = E_{q(z|x)}[w], \qquad w = \frac{p(x, z)}{q(z|x)}, \qquad
#   \log p(x) \approx \log \frac1K \sum_{k=1}^{K} w_k$$
#
# A weight of an image with 784 pixels may be $e^{-100}$, so everything is done in logarithms, and in chunks of draws,
# so that no memory grows with $K$:
#
# ```{line} tinyvae/evidence/importance.py
# first = np.logaddexp(first, np.logaddexp.reduce(values, axis=0))
# second = np.logaddexp(second, np.logaddexp.reduce(2 * values, axis=0))
# ```
#
# The second sum tells how many of the draws carry the mean, the *effective sample size*; the first is the estimate:
#
# $$\mathrm{ESS} = \frac{\left(\sum_k w_k\right)^2}{\sum_k w_k^2} \in [1, K]$$
#
# ```{line} tinyvae/evidence/importance.py
# return first - math.log(samples), np.exp(2 * first - second)
# ```
#
# $K = 1$ is the ELBO's own estimate. From the effective sample size follows the variance of the logarithm, to first
# order in $1/K$, and by the claim half of it is the bias:
#
# $$\mathrm{var}(\log \bar w) \approx \frac{\mathrm{var}(w)}{K\,p(x)^2}
#   \approx \left( \frac{1}{\mathrm{ESS}} - \frac1K \right) \frac{K}{K - 1}$$
#
# ```{line} tinyvae/evidence/diagnostics.py
# return (1 / effective - 1 / count) * np.divide(count, count - 1)
# ```
#
# We draw 4,096 weights for each image, and look at their means in groups of $K$.

# %%
DRAWS = 4096
source = tv.Draw(tv.Noise(0, "appendix 4"))
log_w = model.log_weights(tv.Batch(tv.Tensor(x)), source, DRAWS).numpy().astype(float)
sizes = 4 ** np.arange(6)
errors, stderrs = [], []
for size in sizes:
    groups = special.logsumexp(log_w.reshape(-1, size, len(x)), axis=1) - math.log(size)
    errors.append((groups.mean(0) - exact).mean())
    stderrs.append(math.sqrt((groups.var(0, ddof=1) / len(groups)).mean() / len(x)))
ess = np.exp(2 * special.logsumexp(log_w, axis=0) - special.logsumexp(2 * log_w, axis=0))
predicted = -0.5 * DRAWS * variance_of(ess, DRAWS).mean() / sizes
print("draws K   mean error, nats per datum   minus half the variance")
for size, error, stderr, half in zip(sizes, errors, stderrs, predicted, strict=True):
    print(f"{size:>7}{error:>+18.4f} ± {stderr:.4f}{half:>+20.4f}")

# %% tags=["drawing"]
figure = new_figure(7, 2.8)
axes = figure.add_subplot()
axes.axhline(0, color=TRAIN, linewidth=2, label="log p(x) by quadrature")
axes.plot(sizes, errors, "o-", color=TEST, markersize=4, label="importance sampling")
axes.plot(sizes[1:], predicted[1:], "--", color=INK, linewidth=1,
          label="minus half the variance")
axes.set_xscale("log", base=4)
axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
axes.minorticks_off()
axes.set_ylim(bottom=1.35 * errors[0])
axes.text(1.15, errors[0], "the ELBO", fontsize=8.5, color=INK, va="center")
plain_axes(axes, "The mean error over the number of draws", x="draws K of an estimate",
           y="nats per datum")
axes.legend(loc="lower right", fontsize=8, frameon=False)
figure.tight_layout()
show(figure, "The mean error of importance sampling over the number of draws K. It begins "
             "below log p(x) by the ELBO's distance for K = 1 and rises towards 0, from "
             "some K on along the dashed line of half the variance.")

# %% [markdown]
# The mean error is below 0, or 0 within its standard error; it shrinks with $K$; and half the variance predicts it
# once $K$ is not too small. So the estimate knows how wrong it is. Or does it?
#
# ## What the draws cannot know
#
# The variance is itself estimated from the draws. If $w$ is huge in a place that $q$ hardly ever visits, none of $K$
# draws has been there: the mean is too low, and the variance, which would say so, is too low as well. What remains is
# the tail of the weights that were drawn. Above a large threshold $u$ it nearly always looks like a generalized
# Pareto law,
#
# $$P(w - u > y \mid w > u) = \left(1 + \frac{k y}{\sigma}\right)^{-1/k},$$
#
# which for $k > 0$ has moments of order below $1/k$ only. For $k \ge 1/2$ the weights have no variance; above 0.7 the
# mean is carried by weights that are too rare to be drawn in practice. The fit is a mean of logarithms for a given
# ratio $\theta = -k/\sigma$, and the ratio is averaged over its likelihood:
#
# $$k = \frac1n \sum_i \log(1 - \theta y_i)$$
#
# ```{line} tinyvae/evidence/pareto.py
# return np.log1p(-t * y).mean(0)
# ```
#
# `tv.evaluate` computes $k$ for each datum, and says in one sentence whether the mean can be trusted.
#
# ## Predict, then run
#
# Let the posterior be $N(0, I)$ in four dimensions and $\log p(x) = 0$. Two encoders have the right mean, and the
# wrong width: one is 0.4 times as wide as the posterior in every direction, the other 2.5 times. The ELBO of the
# narrow one is $-2.0$ nats, that of the wide one $-6.8$ nats, so training would prefer the narrow one by far. Both
# now draw $K = 1000$ weights, 200 times over. **Whose estimate of $\log p(x)$ is better? For which of the two is the
# effective sample size above 10, which tinyvae asks for, and for which is the Pareto $k$ above 0.7, which it refuses?**

# %% tags=["answer"]
def weights_of(width, count=1000, repetitions=200, dimensions=4):
    """log w for the posterior N(0, I) and q = N(0, width^2 I), (count, repetitions)."""
    z = width * np.random.default_rng(4).normal(size=(count, repetitions, dimensions))
    return (stats.norm.logpdf(z) - stats.norm.logpdf(z, scale=width)).sum(-1)


for name, width in (("narrow", 0.4), ("wide", 2.5)):
    log_weights = weights_of(width)
    count, repetitions = log_weights.shape
    elbo = -4 * 0.5 * (width**2 - 1 - math.log(width**2))
    total = special.logsumexp(log_weights, axis=0)
    found = total - math.log(count)
    effective = np.exp(2 * total - special.logsumexp(2 * log_weights, axis=0))
    tail = pareto.Tail(count, repetitions)
    tail.add(log_weights)
    stderr = found.std(ddof=1) / math.sqrt(repetitions)
    print(f"{name}: ELBO {elbo:.2f} nats\n"
          f"  log p(x) {found.mean():+.3f} ± {stderr:.3f} nats, where 0 is right; "
          f"{np.mean(found < 0):.0%} of {repetitions} estimates are too low\n"
          f"  effective sample size {effective.mean():.0f} of {count:,} on average; "
          f"a Pareto k above 0.7 in {pareto.high(tail.shape()).mean():.0%}")

# %% [markdown]
# The encoder with the worse bound gives the better estimate. The ELBO's $\mathrm{KL}(q \,\|\, p(z|x))$ punishes a $q$
# that goes where the posterior is not, and hardly one that stays away from where it is. Importance sampling needs the
# opposite: a wide $q$ wastes draws, but no weight is larger than $2.5^4 \approx 39$; a narrow one has weights without
# bound. The effective sample size passes in both cases, for it knows only the weights that were drawn. The Pareto $k$
# does tell. For normal densities it has a closed form, $k = 1 - s^2$ for a $q$ of $s < 1$ times the posterior's width
# (exercise 4): 0.84 for the narrow one, whatever the number of dimensions. (For $s > 1$ no weight is larger than $s^d$,
# and $k$ is negative.)
#
# ## A path in place of a leap: annealed importance sampling
#
# If $q$ and the posterior differ too much for one ratio, take many small ones. Between $f_0 = q(z|x)$, or the prior,
# and $f_T = p(x, z)$ lies a path of densities,
#
# $$\log f_t(z) = \log f_0(z) + \beta_t \left( \log p(x, z) - \log f_0(z) \right), \qquad
#   0 = \beta_0 < \dots < \beta_T = 1.$$
#
# A chain begins with a draw of $f_0$. Step by step the density moves on, the weight takes the ratio, and a
# Hamiltonian move lets $z$ follow:
#
# $$\log w = \sum_{t=1}^{T} (\beta_t - \beta_{t-1}) \left( \log p(x, z_{t-1}) - \log f_0(z_{t-1}) \right)$$
#
# ```{line} tinyvae/evidence/ais.py
# log_w += (betas[t] - betas[t - 1]) * chains.go_to(betas[t])  # at z_(t-1), before the transition
# ```
#
# It is remarkable that $E[w] = p(x)$ holds *exactly*, for every $T$, although no chain ever reaches its density.
# Weighted by $f_1/f_0$, draws of $f_0$ have the expectations of $f_1$; a move that leaves $f_1$ invariant changes
# nothing of this; and so on, ratio by ratio, up to $f_T$, whose total mass is $p(x)$. $T = 1$ is importance sampling.
#
# The chain can also run backwards, from the posterior to $f_0$. The same sum is then $-\log v$ with $E[v] = 1/p(x)$,
# so by the claim it is too high on average. This needs one exact draw of the posterior, which nobody has for real
# data. But for data that the model itself simulated everybody has it: first $z$ is drawn from the prior, then $x$
# from $p(x|z)$, and this very $z$ is a draw of $p(z|x)$.
#
# $$(z, x) \sim p(z)\,p(x|z) \;\Rightarrow\; z \sim p(z|x)$$
#
# ```{line} tinyvae/evidence/ais.py
# x = Tensor(p.likelihood(z).sample(noise).data[0].copy())  # x ~ p(x|z), and so z ~ p(z|x)
# ```
#
# So for simulated data $\log p(x)$ is bounded from both sides, on average, and the gap bounds the error of both. Here
# $f_0$ is the prior in both directions, the hard case, with four chains for each of 40 simulated images. (All chains
# back from an image share its one draw of the posterior, so more chains do not close the upper gap; a longer path
# does.)

# %%
noise = tv.Noise(0, "simulated images")
z = generator.prior.sample(noise, 40)
simulated = tv.Tensor(generator.likelihood(z).sample(noise).data[0].copy())
truth = quadrature(simulated.numpy())
encoded, temperatures, sides = model.posterior(tv.Batch(simulated)), (2, 5, 12, 30, 75), []
for count in temperatures:
    path = ais.Annealing(generator, encoded, simulated, noise, count, leapfrog=3,
                         start="prior")
    both = [path.run(4).log_evidence, path.run(4, z.data).log_evidence]
    gap = both[1] - both[0]
    stderr = gap.std(ddof=1) / math.sqrt(len(gap))
    sides.append([side - truth for side in both])
    print(f"T = {count:>2}: forwards {both[0].mean():.3f}, backwards {both[1].mean():.3f}, "
          f"gap {gap.mean():.3f} ± {stderr:.3f} nats per datum")
print(f"quadrature:       {truth.mean():.3f}")

# %% tags=["drawing"]
figure = new_figure(7, 2.8)
axes = figure.add_subplot()
axes.axhline(0, color=INK, linewidth=1, linestyle="--", label="log p(x) by quadrature")
for side, color, label in ((1, TEST, "backwards, from the posterior's draw"),
                           (0, TRAIN, "forwards, from the prior")):
    values = np.array([errors_of[side] for errors_of in sides])
    stderrs = values.std(1, ddof=1) / math.sqrt(len(truth))
    axes.errorbar(temperatures, values.mean(1), stderrs, fmt="o-", color=color,
                  markersize=4, capsize=3, label=label)
axes.set_xscale("log")
axes.set_xticks(temperatures, [str(count) for count in temperatures])
axes.minorticks_off()
plain_axes(axes, "Two bounds close in on log p(x); bars are standard errors over 40 images",
           x="temperatures T of the path", y="nats per datum")
axes.legend(loc="lower right", fontsize=8, frameon=False)
figure.tight_layout()
show(figure, "The errors of annealed importance sampling over the number of temperatures. "
             "Forwards it comes from below, backwards from above, and with 75 temperatures "
             "both are near the exact value.")

# %% [markdown]
# ## From the posterior alone: the harmonic mean
#
# Bayes' rule gives the second half of the claim a weight without a path. For any density $q$
#
# $$\frac{1}{p(x)} = E_{p(z|x)}\left[ \frac{q(z)}{p(x, z)} \right],$$
#
# as $p(z|x)/p(x, z) = 1/p(x)$ and $q$ integrates to 1. Draws of $p(z|x)$ come from a Markov chain, and
#
# $$\log v = \log q(z) - \log p(x, z)$$
#
# ```{line} tinyvae/evidence/harmonic.py
# ratio = fit.log_prob(z) - log_f  # log q(z) - log p(x, z)
# ```
#
# Everything depends on $q$. With $q = p(z)$ the ratio is $1/p(x|z)$, whose mean is the notorious *harmonic mean
# estimator*; it looks convenient and is useless. The model $p(z) = N(0, 1)$, $p(x|z) = N(2z, 1/4)$ of chapter 7 shows
# it, with exact draws of the posterior, so that no chain can be blamed:

# %%
observed, posterior = 1.3, stats.norm(10.4 / 17, math.sqrt(1 / 17))
known = stats.norm(0, math.sqrt(4.25)).logpdf(observed)
draws = np.random.default_rng(5).normal(posterior.mean(), posterior.std(), size=(200, 1000))
log_joint = stats.norm.logpdf(draws) + stats.norm.logpdf(observed, 2 * draws, 0.5)
print(f"log p(x) = {known:.3f} nats; 200 estimates of 1,000 posterior draws each:")
narrower = stats.norm(posterior.mean(), 0.9 * posterior.std())
for name, q in (("q = prior", stats.norm(0, 1)), ("q 10 % too narrow", narrower)):
    found = -(special.logsumexp(q.logpdf(draws) - log_joint, axis=1) - math.log(1000))
    stderr = found.std(ddof=1) / math.sqrt(len(found))
    print(f"{name:<18} mean {found.mean():.4f} ± {stderr:.4f} nats, "
          f"{np.mean(found > known):.0%} are too high")

# %% [markdown]
# With the prior the answer is too high nearly always, and more draws hardly help: the variance of $1/p(x|z)$ is
# infinite here. With a $q$ that resembles the posterior, and has no wider tails, the ratio is nearly constant; with
# the posterior itself it would be $1/p(x)$ at every draw. AEVB's appendix D therefore fits $q$ to some draws and
# takes the mean over others, and calls the result reliable for less than five latents. tinyvae refuses more.
#
# ## All of them against the grid
#
# The same 50 test images; what counts is the distance from quadrature, beside the standard error that each method
# gives for its draws; the ELBO gives none, so its error is the standard deviation over 20 seeds. The posterior draws
# are the slowest, so they get few chains here.

# %%
methods = {
    "ELBO, one draw": {},
    "importance, K = 10": {"importance_samples": 10},
    "importance, K = 1,000": {"importance_samples": 1000},
    "ais, 4 chains, T = 30": {"method": "ais", "chains": 4, "temperatures": 30},
    "hmc, 4 chains, 20 draws": {"method": "hmc", "chains": 4, "draws": 20},
}
elbos = [tv.evaluate(model, data, count=len(x), seed=seed).elbo for seed in range(20)]
print(f"{'nats per datum':<25}{'log p(x)':>10}{'from quadrature':>18}"
      f"{'error of draws':>18}")
for name, settings in methods.items():
    if settings:
        result = tv.evaluate(model, data, count=len(x), **settings)
        found, stderr = result.log_evidence, result.log_evidence_sampling_stderr
    else:
        found, stderr = elbos[0], np.std(elbos, ddof=1)
    print(f"{name:<25}{found:>10.3f}{found - exact.mean():>+18.3f}{stderr:>18.3f}")

# %% [markdown]
# In practice: importance sampling with some hundred draws; where its diagnosis finds a fault, annealing; and
# `ais.bidirectional(model)` on simulated data, to learn how large the error of such a setting is for this model.
#
# ## Exercises
#
# The functions `effective_size`, `bias`, `people_in_a_bus` and `tail_of` return 0.0 so far. Replace that line,
# `return 0.0`, and run the cell: the check says whether it is right. The solution is folded below.
#
# **1. The effective sample size.** Write it for given $\log w_k$, so that weights of $e^{-2000}$ do no harm.

# %%
@exercise("The effective sample size")
def effective_size(log_w):
    """(sum w)^2 / sum w^2 for an array log_w of any length."""
    return 0.0  # your answer


@effective_size.check
def _(answer):
    for log_w, expected in ((np.log([1.0, 3.0]), 1.6), (np.full(7, -2000.0), 7.0),
                            (np.array([900.0, 0.0, 0.0]), 1.0)):
        found = answer(log_w)
        told = (f"for log w = {log_w.round(4).tolist()} expected {expected}, "
                f"found {found:.4f}")
        assert abs(found - expected) < 1e-9, told


# %% tags=["solution"]
@effective_size.solution
def _(log_w):
    w = np.exp(log_w - np.max(log_w))  # a factor common to all weights cancels
    return w.sum() ** 2 / (w * w).sum()


# %% [markdown]
# **2. How far too low.** The weights have the mean $m$ and the standard deviation $s$. By how much is
# $E[\log \bar w]$ below $\log m$ for $K$ draws, to first order in $1/K$? Hint: expand the logarithm around $m$ to
# second order. The check uses weights that are 1 or 3 with probability one half each, for which the expectation is a
# finite sum.

# %%
@exercise("How far too low")
def bias(m, s, count):
    """E[log of the mean of `count` weights] - log m, approximately, in nats."""
    return 0.0  # your answer


@bias.check
def _(answer):
    for count in (100, 400):
        threes = stats.binom(count, 0.5)
        k = np.arange(count + 1)
        expected = threes.pmf(k) @ np.log((count + 2 * k) / count) - math.log(2)
        found = answer(2.0, 1.0, count)
        told = (f"for {count} weights with m = 2 and s = 1 the sum gives {expected:.7f} "
                f"nats, and 2 % more or less are allowed; found {found:.7f}")
        assert abs(found / expected - 1) < 0.02, told


# %% tags=["solution"]
@bias.solution
def _(m, s, count):
    return -(s**2) / (2 * count * m**2)


# %% [markdown]
# **3. Ask the passengers.** Everybody who got off a bus today says how many people were in it. How many were in a bus
# on average, empty buses left aside?

# %%
@exercise("Ask the passengers")
def people_in_a_bus(answers):
    """The mean number of people in a bus, from an array with the answer of each person."""
    return 0.0  # your answer


@people_in_a_bus.check
def _(answer):
    for buses in ([50, 10], [3, 3, 3], [1, 2, 97]):
        found = answer(np.repeat(buses, buses))
        told = (f"buses with {buses} people have {np.mean(buses):.4f} on average; "
                f"found {found:.4f}")
        assert abs(found - np.mean(buses)) < 1e-9, told


# %% tags=["solution"]
@people_in_a_bus.solution
def _(answers):
    return 1 / np.mean(1 / answers)  # the plain mean would be 43.3 for 50 and 10


# %% [markdown]
# **4. The tail of a narrow $q$.** The posterior is $N(0, 1)$ and $q = N(0, s^2)$ with $s < 1$. Find the Pareto $k$ of
# the weights: $P(w > u)$ falls like $u^{-1/k}$. Hint:
# $\log w = \text{const} + \frac{z^2}{2} \left( \frac{1}{s^2} - 1 \right)$, and $P(|z| > t)$ falls like
# $e^{-t^2/(2 s^2)}$. For which $s$ is $k = 0.7$?

# %%
@exercise("The tail of a narrow q")
def tail_of(s):
    """The Pareto k of w = N(z; 0, 1) / N(z; 0, s^2) with z ~ N(0, s^2), for 0 < s < 1."""
    return 0.0  # your answer


@tail_of.check
def _(answer):
    for s in (0.3, 0.5, 0.9):
        t = np.array([2000.0, 2001.0]) * s  # so far out that only the tail is left
        log_w = 0.5 * t**2 * (1 / s**2 - 1)
        fall = np.diff(stats.norm.logsf(t / s)) / np.diff(log_w)  # of log P(w > u)
        found = answer(s)
        told = (f"for s = {s} the tail of the normal law gives k = {-1 / fall[0]:.5f}; "
                f"found {found:.5f}")
        assert abs(found + 1 / fall[0]) < 1e-4, told


# %% tags=["solution"]
@tail_of.solution
def _(s):
    return 1 - s**2  # 0.7 for s = 0.55


# %% [markdown]
# ## What the sources say
#
# - AEVB, appendix D, has the harmonic mean with a fitted $q$, in three steps, for less than five latents, and
#   measures Figure 3 by it. Kingma and Welling (2019), chapter 2, estimate by importance sampling, as here.
# - Burda, Grosse and Salakhutdinov (2016) prove that the bound rises with every further draw, and report $\log p(x)$
#   by 5,000 of them.
# - Neal, "Annealed importance sampling" (2001), has the path and the proof. Grosse, Ghahramani and Adams (2015) run
#   it backwards from simulated data; Wu, Burda, Salakhutdinov and Grosse (2017) apply both directions to decoders,
#   and space the temperatures as tinyvae does.
# - Vehtari, Simpson, Gelman, Yao and Gabry (2024) have the Pareto $k$ and the limit 0.7.
# - These papers start a decoder's path at the prior. Ours starts at the encoder's $q(z|x)$ unless asked otherwise,
#   which makes it short; it then misses a mode of the posterior that $q$ does not cover.
