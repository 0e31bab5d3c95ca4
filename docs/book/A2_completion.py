# %% [markdown]
# # A2. Completion
#
# A part of an image is covered, a value of a table was not measured. Chapter 1 let a VAE fill such holes. This page
# says from which distribution the filling is drawn, when that distribution is the right one, and how a model learns
# if its training data have holes as well.
#
# ## What you need to know
#
# A datum $x$ consists of what was observed, $x_o$, and what is missing, $x_m$. Given $z$, the pixels of this book's
# decoders are independent, so $p(x_m|z, x_o) = p(x_m|z)$ is easy to draw. A *Markov chain* draws its next state from
# the last one. A distribution is *stationary* for it if a state drawn from it is followed by a state with the same
# distribution.
#
# > **Claim.** Draw in turn a latent and the missing part. Let $w(z) = p(x|z)\,p(z) / q(z|x)$.
# >
# > $$z' \sim q(z|x), \quad z \leftarrow z' \text{ with probability } \min\!\left(1, \frac{w(z')}{w(z)}\right),
# >   \qquad x_m \sim p(x_m|z).$$
# >
# > This chain has the stationary distribution $p(x_m, z | x_o)$ for *every* $q$ that is positive where the posterior
# > is. If every $z'$ is taken, this is so for $q(z|x) = p(z|x)$, and in general for no other $q$.

# %%
import itertools
import math

import numpy as np
from scipy import integrate, special, stats

import tinyvae as tv
from tinyvae.lessons.book import drawn, exercise, show
from tinyvae.pictures.completions import completions
from tinyvae.pictures.page import INK, TEST, TRAIN, new_figure, plain_axes

# %% [markdown]
# ## A bad line
#
# Your aunt is on the telephone, and the line swallows every other word. You guess what she is talking about, and from
# that the words you missed. With these words filled in, the sentence sounds like something else, so you guess again
# what she is talking about, and fill in again. After a few rounds your words fit what you heard, and if you are
# honest you can name several stories that do. What you heard is $x_o$, the swallowed words are $x_m$, what she talks
# about is $z$. If you tend to think she is talking about the neighbours whatever she says, your stories will be about
# the neighbours too often, unless you check each new guess against all the words before you take it. That check is
# the ratio in the claim.
#
# ## The proof
#
# The second step draws $x_m$ from its exact conditional given $z$, so it leaves $p(x_m, z|x_o)$ as it is. For the
# first, fix $x$. Let $\pi(z) = p(z|x)$, which is $w(z)\,q(z|x)$ up to a factor. The flow from $z$ to $z'$ is
#
# $$\pi(z)\, q(z'|x) \min\!\left(1, \frac{w(z')}{w(z)}\right) \propto q(z|x)\, q(z'|x) \min\bigl(w(z), w(z')\bigr),$$
#
# and this is the same from $z'$ to $z$. Flows in both directions cancel, so $\pi$ is stationary. Nothing was assumed
# of $q$, but that it can reach every $z$ with $\pi(z) > 0$. If every $z'$ is taken, the new $z$ is a draw of $q(z|x)$
# and not of $\pi$, unless $q$ is the posterior.
#
# $$\log w(z) = \log p(x|z) + \log p(z) - \log q(z|x)$$
#
# ```{line} tinyvae/tasks/chains.py
# found, prior, posterior = (to_host(value.data).astype(np.float64) for value in each)
# return found + prior - posterior
# ```
#
# $$u < \frac{w(z')}{w(z)}, \qquad u \text{ uniform on } (0, 1)$$
#
# ```{line} tinyvae/tasks/chains.py
# accepted = np.log(u) < ratio  # a ratio that is NaN accepts nothing
# ```
#
# ## Where the answer is known
#
# Let $z \sim N(0, 1)$, and let two numbers be seen through noise, $x_i = z + N(0, \tfrac14)$. The first is observed,
# $x_1 = 1.5$. Then $x_2$ given $x_1$ is normal with mean $x_1 / (1 + \tfrac14) = 1.2$ and variance
# $\tfrac54 - 1/\tfrac54 = 0.45$. The encoder of this example is wrong on purpose: its spread is twice that of the
# posterior, and its mean is off.

# %%
noise, x1, rng = 0.25, 1.5, np.random.default_rng(0)
q_sd = 2 / math.sqrt(1 + 2 / noise)  # the posterior has half of it


def q_mean(x2):
    return 0.7 * (x1 + x2) / noise / (1 + 2 / noise)  # without 0.7 the posterior's


def log_w(z, x2):
    """log p(x|z) + log p(z) - log q(z|x), for arrays (chains,)."""
    likelihood = stats.norm.logpdf(x1, z, noise**0.5) + stats.norm.logpdf(x2, z, noise**0.5)
    return likelihood + stats.norm.logpdf(z) - stats.norm.logpdf(z, q_mean(x2), q_sd)


def chain(exact, chains=10_000, sweeps=40):
    """The missing x2 after the last sweep of each chain; and the share of z' taken."""
    x2, taken = np.zeros(chains), []
    z = rng.normal(q_mean(x2), q_sd)
    for _ in range(sweeps):
        proposed = rng.normal(q_mean(x2), q_sd)
        ratio = log_w(proposed, x2) - log_w(z, x2)
        accept = np.log(rng.uniform(size=chains)) < ratio if exact else True
        taken.append(np.mean(accept))
        z = np.where(accept, proposed, z)
        x2 = rng.normal(z, noise**0.5)
    return x2, np.mean(taken)


found = {"every z' taken": chain(exact=False), "by the ratio": chain(exact=True)}
print(f"{'':<18}{'mean of x2':>16}{'sd of x2':>16}{'taken':>8}")
for name, (x2, taken) in found.items():
    sd, count = x2.std(ddof=1), len(x2)
    mean_text = f"{x2.mean():.3f} ± {sd / math.sqrt(count):.3f}"
    sd_text = f"{sd:.3f} ± {sd / math.sqrt(2 * count):.3f}"
    print(f"{name:<18}{mean_text:>16}{sd_text:>16}{taken:>8.0%}")
print(f"{'exactly':<18}{1.2:>8.3f}{math.sqrt(0.45):>16.3f}")

# %% tags=["drawing"]
grid = np.linspace(-2, 4, 300)
figure = new_figure(7, 2.6)
axes = figure.add_subplot()
for name, colour, style in zip(found, (TEST, TRAIN), ("--", "-"), strict=True):
    x2 = found[name][0]
    axes.hist(x2, bins=60, range=(-2, 4), density=True, histtype="step", color=colour,
              linestyle=style, linewidth=1.3, label=name)
exact = stats.norm(1.2, math.sqrt(0.45)).pdf(grid)
axes.plot(grid, exact, color=INK, linewidth=1, label="p(x2|x1), exactly")
axes.axvline(x1, color=INK, linewidth=1, linestyle=":")
axes.text(x1 + 0.05, 0.66, "x1", fontsize=8, color=INK)
axes.set_ylim(0, 0.72)
plain_axes(axes, "The missing number, by 10,000 chains with a wrong q", x="x2", y="density")
axes.legend(fontsize=8, frameon=False)
figure.tight_layout()
show(figure, "Two histograms and the exact density. The chains that take every z' lie too "
             "far to the left and are too wide; those that decide by the ratio follow the "
             "exact density.")

# %% [markdown]
# ## On digits
#
# The left half of each test digit is hidden. Three methods: `gibbs` takes every $z'$, `metropolis` decides by the
# ratio, and `importance` takes every $z'$ but gives it a weight, by which the draws are averaged:
#
# $$w_o(z) = \frac{p(x_o|z)\, p(z)}{q(z|x)}, \qquad E_{q(z|x)}[w_o(z)] = p(x_o) \text{ whatever } x_m \text{ is}$$
#
# ```{line} tinyvae/tasks/chains.py
# log_weight = _log_weight(p, q, Observed(law, observed), w, x)
# ```

# %%
data = tv.data.load("digits")
vae = tv.VAE(data.dimensions, hidden=100, latent=8)
tv.fit(vae, data, epochs=30, batch=50, lr=3e-3)
results = {method: tv.complete(vae, data, "left", method=method, draws=20)
           for method in ("gibbs", "metropolis", "importance")}
completed = results["metropolis"]
print(f"-log p(hidden | observed) of {len(completed.x)} digits, in nats per hidden pixel, "
      "lower is better")
compared = {name: result.nats for name, result in results.items()} | completed.baselines
for name, nats in compared.items():
    print(f"{name:<30}{nats.mean():.4f} ± {nats.std(ddof=1) / math.sqrt(len(nats)):.4f}")

# %%
drawn(completions, completed, (8, 8),
      text="Ten digits, their right halves, four completions of each, their mean and their"
           " standard deviation.")
print(f"{completed.acceptance:.0%} of the proposals were taken")

# %% [markdown]
# On these digits the three methods come out close to each other, and all of them better than the two baselines. The
# encoder is not the posterior: the line above says what share of the proposals `metropolis` takes, and if the encoder
# were the posterior, it would take all of them. But what the encoder gets wrong hardly moves this score. The picture
# has draws above, and below them their mean, which is grey where the draws disagree.
#
# ## Predict, then run
#
# Compare each answer with what was really hidden, and count the wrong pixels. **Which has fewer of them: a
# completion, drawn from $p(x_m|x_o)$, or the mean of twenty completions, cut at one half to black and white? By what
# factor?**

# %% tags=["answer"]
hidden, truth = completed.hidden, completed.x > 0.5
answers = {"a completion": completed.draws, "their mean, cut": completed.mean[None]}
means = []
for name, each in answers.items():
    wrong = ((each > 0.5) != truth) & hidden
    shares = wrong.sum(2).mean(0) / hidden.sum(1)
    error = shares.std(ddof=1) / math.sqrt(len(shares))
    means.append(shares.mean())
    print(f"{name:<16}{shares.mean():.1%} ± {error:.1%} of the hidden pixels are wrong")
print(f"a completion has {means[0] / means[1]:.2f} times as many wrong pixels as the mean")

# %% [markdown]
# A pixel that is white with probability $p$ is guessed wrong with probability $\min(p, 1 - p)$ by the cut mean. A
# draw is wrong if draw and truth differ, with probability $2 p (1 - p)$. That is up to twice as much, and the last line
# has the factor of these digits: an honest draw repeats the doubt that the data leave. So the mean wins wherever pixels
# are counted one by one, and yet it is no digit that anybody would write. If you need one image that could be real,
# draw; if you need the fewest errors, average; and if you want to know how sure you may be, look at the spread.
#
# ## Learning from data with holes
#
# A model can also learn from data of which parts are missing: the bound is one on what was observed, so what is
# missing is simply left out of the likelihood,
#
# $$\log p(x_o) \ge E\!\left[\log \frac1K \sum_{k=1}^K \frac{p(x_o|z_k)\, p(z_k)}{q(z_k|x_o)}\right],
#   \qquad z_k \sim q(z|x_o)$$
#
# ```{line} tinyvae/models/miwae.py
# return Joint(self.prior, lambda z: Observed(self.decoder(z), mask))
# ```
#
# This is right if *whether* a value is missing does not depend, given what was observed, on any value that is missing.
# Afterwards the holes are
# filled, and it matters how. Two columns with correlation 0.8; a half of the second is missing at random, and is
# filled by its conditional mean, or by a draw of its conditional distribution:

# %%
rng, rho, count = np.random.default_rng(0), 0.8, 20_000
first = rng.standard_normal(count)
second = rho * first + math.sqrt(1 - rho**2) * rng.standard_normal(count)
gone = rng.uniform(size=count) < 0.5
by_mean = np.where(gone, rho * first, second)
drawn_anew = rho * first + math.sqrt(1 - rho**2) * rng.standard_normal(count)
by_draw = np.where(gone, drawn_anew, second)
columns = {"all known": second, "filled by the mean": by_mean, "filled by draws": by_draw}
for name, column in columns.items():
    correlation = np.corrcoef(first, column)[0, 1]
    print(f"{name:<20}standard deviation {column.std():.3f}, correlation {correlation:.3f}")

# %% [markdown]
# Filled by the mean, the column varies too little and follows the other one too closely: everything computed from it
# will look more certain than it is. Draws keep both. If several tables are filled by draws, what differs between them
# is what the holes leave open; that is *multiple imputation*, `tinyvae complete RUN --draws 5`. (In
# full it would draw the parameters of the model, too; here they are fixed.)
#
# ## Exercises
#
# Replace the line after the docstring and run the cell: the check says whether it is right. The solution is folded
# below.
#
# **1. The ratio.** Write the probability with which a proposal is taken. The check makes a chain of three states out
# of it, and looks whether the posterior is stationary.

# %%
@exercise("The ratio")
def accept(log_joint_new, log_q_new, log_joint_old, log_q_old):
    """The probability of taking the new z, from log p(x, z) and log q(z|x) of both."""
    return 1.0  # your answer


@accept.check
def _(answer):
    joint, q = np.array([0.02, 0.05, 0.01]), np.array([0.2, 0.3, 0.5])
    log_joint, log_q = np.log(joint), np.log(q)
    flow = np.zeros((3, 3))
    for old, new in itertools.product(range(3), repeat=2):
        taken = answer(log_joint[new], log_q[new], log_joint[old], log_q[old])
        flow[old, new] = q[new] * taken
    chain = flow + np.diag(1 - flow.sum(1))  # what is not taken stays
    posterior = joint / joint.sum()
    after = posterior @ chain
    told = (f"from the posterior {posterior.tolist()} a step leads to "
            f"{after.round(3).tolist()}")
    assert np.allclose(after, posterior, rtol=0, atol=1e-12), told
    always = answer(-3.0, -1.0, -2.0, 0.0)
    told = f"with equal weights w every proposal is taken: expected 1, found {always:.6f}"
    assert abs(always - 1) < 1e-12, told


# %% tags=["solution"]
@accept.solution
def _(log_joint_new, log_q_new, log_joint_old, log_q_old):
    return math.exp(min(0.0, log_joint_new - log_q_new - (log_joint_old - log_q_old)))


# %% [markdown]
# **2. How well the hidden part is predicted.** From kept draws $z_s$ with weights $w_s$,
# $p(x_m|x_o) \approx \sum_s \tilde w_s\, p(x_m|z_s)$ with normalised weights $\tilde w_s$. Write its logarithm; the
# densities of half an image underflow.

# %%
@exercise("How well the hidden part is predicted")
def log_predictive(log_p, log_weight):
    """log sum_s w_s p(x_m|z_s) / sum_s w_s, from the logarithms of both, (draws,)."""
    return np.mean(log_p)  # your answer


@log_predictive.check
def _(answer):
    p, w = np.array([0.5, 0.1, 0.2]), np.array([1.0, 3.0, 4.0])
    expected = math.log(np.average(p, weights=w))
    found = answer(np.log(p), np.log(w))
    told = f"NumPy's weighted average gives {expected:.6f}; found {found:.6f}"
    assert abs(found - expected) < 1e-9, told
    shifted = answer(np.log(p) - 2000, np.log(w) + 900)
    told = (f"densities e^-2000 times as high give {expected - 2000:.4f}; "
            f"found {shifted:.4f}")
    assert abs(shifted - expected + 2000) < 1e-9, told


# %% tags=["solution"]
@log_predictive.solution
def _(log_p, log_weight):
    return special.logsumexp(log_p + log_weight) - special.logsumexp(log_weight)


# %% [markdown]
# **3. Where no chain is needed.** For a pair $(x_1, x_2)$ of normal numbers with means $m$ and covariance matrix $C$,
# what are mean and variance of $x_2$ given $x_1$?

# %%
@exercise("Where no chain is needed")
def conditional(m, C, x1):
    """Mean and variance of x2 given x1, for m (2,) and C (2, 2)."""
    return m[1], C[1, 1]  # your answer


@conditional.check
def _(answer):
    m, C, x1 = np.array([1.0, -2.0]), np.array([[2.0, 0.9], [0.9, 1.0]]), 2.5
    law = stats.multivariate_normal(m, C)
    moments = [integrate.quad(lambda x2, k=k: x2**k * law.pdf([x1, x2]), -12, 12)[0]
               for k in range(3)]
    mean = moments[1] / moments[0]
    expected = mean, moments[2] / moments[0] - mean**2
    found = answer(m, C, x1)
    told = (f"quadrature gives the mean {expected[0]:.4f} and the variance "
            f"{expected[1]:.4f}; found {np.round(found, 4)}")
    assert np.allclose(found, expected, rtol=0, atol=1e-6), told


# %% tags=["solution"]
@conditional.solution
def _(m, C, x1):
    slope = C[1, 0] / C[0, 0]
    variance = C[1, 1] - slope * C[0, 1]  # which does not depend on x1
    return m[1] + slope * (x1 - m[0]), variance


# %% [markdown]
# ## What the sources say
#
# - Rezende, Mohamed & Wierstra (2014), appendix F, complete images by re-encoding: here `gibbs`.
# - Mattei & Frellsen (2018), algorithm 2, add the ratio ("Metropolis within Gibbs"): here `metropolis`, which begins
#   with a few sweeps of gibbs, because far from the data few proposals are taken.
# - Mattei & Frellsen (2019) learn from data with holes (eq. 4, here `miwae`) and fill them by weighted draws (eq. 8).
# - [Data completion](../completion.md) has the commands, and what is printed.
