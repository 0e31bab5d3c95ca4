# %% [markdown]
# # A3. Super-resolution
#
# A small image is given, a large one is wanted. Chapter 1 did it with a conditional model. This page says what there
# is to be found, why the answer with the fewest errors looks blurred, and how much a sharp one costs.
#
# ## What you need to know
#
# Let $x$ be the large image and $y$ the small one, whose pixels are the means of blocks of $n \times n$ pixels of
# $x$. The squared error of an answer $\hat{x}$ is $|\hat{x} - x|^2$, summed over the pixels. It is told as PSNR,
# $-10 \log_{10}$ of the mean squared error of a pixel, in decibels: half the error is 3.01 dB more.
#
# > **Claim.** Let $m(y) = E[x|y]$, and let $V$ be its expected squared error. No answer to $y$ has a smaller one. An
# > answer $x'$ drawn from $p(x|y)$ has
# >
# > $$E\,|x' - x|^2 = 2\,V,$$
# >
# > so an honest draw, however good the model, loses 3.01 dB in expected squared error against the mean of all draws.

# %%
import itertools
import math

import numpy as np

import tinyvae as tv
from tinyvae.lessons.book import drawn, exercise, show
from tinyvae.models import model_for
from tinyvae.pictures.answers import upscaled
from tinyvae.pictures.page import INK, TEST, TRAIN, new_figure, plain_axes
from tinyvae.tasks.generation.upscaling import upscale

# %% [markdown]
# ## The bill
#
# A bill from a restaurant says 40, and nothing else. What did they eat? You know the menu and the guests, so you can
# name dinners that come to 40: two pizzas and a bottle of wine, or three pastas, or the fish for one who ate alone.
# Each of them is a dinner somebody may have had. The *mean* of all these dinners is 0.7 pizzas, 0.9 pastas and a
# quarter of a fish. It is the best guess if you are fined by the squared error for each dish, and nobody ever ate it.
# The sum on the bill is $y$, the dishes are $x$, the menu and the guests are the prior, and the mean dinner is the
# blurred image.
#
# ## The proof
#
# Given $y$, let $x$ and $x'$ be independent draws of $p(x|y)$, and $m$ their mean. Then
#
# $$E\,|x' - x|^2 = E\,|x' - m|^2 + E\,|x - m|^2 - 2\, E[x' - m] \cdot E[x - m] = V + V - 0.$$
#
# And for any answer $a$ that depends on $y$ alone, $E\,|a - x|^2 = |a - m|^2 + V$ by the same step, which is least
# for $a = m$. A small example, all of whose images can be listed, shows it: 2 x 2 pixels of bits, where images with a
# vertical or horizontal stroke are frequent, and $y$ is the mean of the pixels.

# %%
images = np.array(list(itertools.product((0, 1), repeat=4)))
strokes = [[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1]]
chance = np.array([8.0 if list(image) in strokes else 1.0 for image in images])
chance /= chance.sum()

print("y     images   error of the mean   of a draw   ratio")
for y in np.unique(images.mean(1)):
    p = np.where(images.mean(1) == y, chance, 0)
    p /= p.sum()
    m = p @ images
    of_mean = p @ ((m - images) ** 2).sum(1)
    of_draw = p @ ((images[:, None] - images) ** 2).sum(2) @ p
    ratio = f"{of_draw / of_mean:.3f}" if of_mean else "-"
    print(f"{y:<6}{np.count_nonzero(p):>6}{of_mean:>20.4f}{of_draw:>12.4f}{ratio:>8}")

# %% [markdown]
# For $y = \tfrac12$ the mean answer is four pixels of one half: flat grey, without any stroke, although nearly every
# image with this $y$ has one. No stroke of the mean is wrong, because it has none.
#
# ## A model of what the coarse image leaves open
#
# The condition is the pooled image,
#
# $$y_{ij} = \frac{1}{n^2} \sum_{a, b = 1}^{n} x_{(i-1) n + a,\; (j-1) n + b}$$
#
# ```{line} tinyvae/models/conditions.py
# blocks = images.reshape(*before, high, n, wide, n, *channels)
# means = blocks.mean((len(before) + 1, len(before) + 3), dtype=np.float32)
# ```
#
# and the model has a prior $p(z|y)$ that is a network, too. An answer is $E[x|z, y]$ for a draw of $z$, and the
# *temperature* $T$ multiplies the distance of $z$ from the mean $\mu(y)$ of $p(z|y)$:
#
# $$z = \mu(y) + T\,(z' - \mu(y)), \qquad z' \sim p(z|y)$$
#
# ```{line} tinyvae/models/cvae.py
# z = prior.mean + temperature * (prior.sample(noise, draws) - prior.mean)
# return self.decoder(z, c).mean
# ```
#
# It is compared with a network of the same size without $z$, whose pixels are independent given $y$, and with
# interpolation, which knows nothing of digits. The answers are judged by
#
# $$\mathrm{PSNR} = -10 \log_{10} \frac1D \sum_{i=1}^{D} (a_i - b_i)^2$$
#
# ```{line} tinyvae/tasks/generation/likeness.py
# error = np.square(np.asarray(a, np.float64) - b).mean(-1)
# with np.errstate(divide="ignore"):
#     return -10 * np.log10(error)
# ```

# %%
data = tv.data.load("digits")
quick = {"epochs": 40, "batch": 50, "lr": 3e-3}
cvae = model_for("cvae", data, given="pooled:2", hidden=100, latent=8)
tv.fit(cvae, data, **quick)
net = model_for("net", data, given="pooled:2", hidden=100)
tv.fit(net, data, **quick)
test = (data.test / np.float32(data.scale)).reshape(-1, 8, 8)
found = upscale(cvae, test, temperatures=(0.0, 0.5, 1.0), draws=32)
flat = upscale(net, test, temperatures=(0.0,), draws=1)
drawn(upscaled, upscale(cvae, test[:10], temperatures=(0.0, 1.0), draws=16), (8, 8),
      text="Ten digits of 4 x 4 pixels and their bicubic interpolation, both coarse; "
           "answers at temperature 0, smooth, and at temperature 1, sharper, some with a "
           "wrong stroke; means of answers; the originals.")
by_draws, at_once = tv.evaluate(cvae, data, importance_samples=50), tv.evaluate(net, data)
print(f"log p(x|y) of {len(test)} test digits, in nats per digit, higher is better")
print(f"CVAE, 50 draws     {by_draws.log_evidence:.2f} "
      f"± {by_draws.log_evidence_stderr:.2f}")
print(f"network without z  {at_once.elbo:.2f} ± {at_once.elbo_stderr:.2f}")

# %% [markdown]
# ## Predict, then run
#
# The network without $z$ is trained to give every pixel its mean. The CVAE is asked for one answer at $T = 0$, at
# $T = 0.5$ and at $T = 1$, and for the mean of 32 answers at $T = 1$. **Order these five by PSNR. And how many
# decibels does the answer at $T = 1$ lose against the mean of 32: about 3, or less?** (The claim is
# about expected squared errors. The table has the mean of the images' PSNR, for which 3 dB is a guide.)

# %% tags=["answer"]
ways = [way for way in found.ways if way.draws in (0, 1) or way.temperature == 1.0]
for way in (*ways, flat.way(1, 0.0)):
    name = "network without z" if way not in ways else way.name
    print(f"{name:<19}PSNR {way.psnr:.2f} ± {way.psnr_stderr:.2f} dB,   "
          f"SSIM {way.ssim:.3f} ± {way.ssim_stderr:.3f}")
lost = found.way(32, 1.0).psnr - found.way(1, 1.0).psnr
print(f"an answer at T = 1 loses {lost:.2f} dB against the mean of 32")

# %% tags=["outcome"]
temperatures = np.linspace(0, 1.5, 7)
course = upscale(cvae, test, temperatures=tuple(temperatures), draws=16)
one, mean = ([course.way(draws, t) for t in temperatures] for draws in (1, 16))
figure = new_figure(7, 2.6)
left, right = figure.subplots(1, 2)
looks = {"one answer": (one, "o-", TEST), "mean of 16": (mean, "s--", TRAIN)}
for name, (each, style, colour) in looks.items():
    values, errors = [way.psnr for way in each], [way.psnr_stderr for way in each]
    left.errorbar(temperatures, values, errors, fmt=style, color=colour, markersize=4,
                  label=name)
right.plot(temperatures, [way.diversity for way in one], "o-", color=INK, markersize=4)
plain_axes(left, "Likeness with the original", "temperature T",
           "PSNR in dB, higher is better")
plain_axes(right, "Spread of the answers", "temperature T", "standard deviation of a pixel")
left.legend(fontsize=8, frameon=False)
figure.tight_layout()
show(figure, "Left, PSNR over the temperature: that of one answer falls, that of the mean "
             "of sixteen stays nearly level. Right, the spread of the answers rises with "
             "the temperature from 0.")

# %% [markdown]
# The answer at $T = 0$ and the mean of many answers are nearest to $E[x|y]$, and lead; the network without $z$, which
# is trained for that mean, comes close. A single answer at $T = 1$ loses, as the claim says, but the loss in the last
# line is less than the 3.01 dB of an honest draw: an answer is $E[x|z, y]$ and not a draw of $x$. It leaves out the
# noise of single pixels and has only that part of the spread that comes with $z$. So PSNR prefers what is blurred, by a
# theorem and not by chance. A model of super-resolution should be judged by its log-likelihood as well: there a sharp
# answer that is one of several right ones counts, and a mean that is no image does not.
#
# ## Exercises
#
# **1. Decibels.** Write the PSNR of an answer. What is it, if every pixel is wrong by 0.1?

# %%
@exercise("Decibels")
def decibels(answer, original):
    """The PSNR in dB, for images in [0, 1] as arrays of one shape."""
    return 0.0  # your answer


@decibels.check
def _(answer):
    image = np.linspace(0, 0.9, 16).reshape(4, 4)
    found = answer(image + 0.1, image)
    told = ("an error of 0.1 in every pixel has the mean square 10^-2, so it is 20 dB; "
            f"found {found:.4f} dB")
    assert abs(found - 20) < 1e-9, told
    worse = answer(image + 0.1 * math.sqrt(2), image)
    told = f"twice the squared error is 3.01 dB less, 16.99 dB; found {worse:.4f} dB"
    assert abs(worse - 16.9897) < 1e-3, told


# %% tags=["solution"]
@decibels.solution
def _(answer, original):
    return -10 * math.log10(np.mean((answer - original) ** 2))


# %% [markdown]
# **2. The price of K draws.** Let $x'$ be the mean of $K$ independent draws of $p(x|y)$. How many decibels does it
# lose against $m(y)$ itself? How many draws are needed to lose less than 0.5 dB?

# %%
@exercise("The price of K draws")
def loss(K):
    """How many dB the mean of K draws loses in expected squared error against E[x|y]."""
    return 3.01  # your answer


@loss.check
def _(answer):
    x = np.array([0.0, 1.0, 3.0])  # equally likely; all means of K draws can be listed
    of_mean = x.var()
    for K in (1, 2, 5):
        means = np.array(list(itertools.product(x, repeat=K))).mean(1)
        expected = 10 * math.log10(np.mean((means[:, None] - x) ** 2) / of_mean)
        found = answer(K)
        told = (f"for K = {K} a list of all draws gives {expected:.6f} dB; "
                f"found {found:.6f} dB")
        assert abs(found - expected) < 1e-9, told


# %% tags=["solution"]
@loss.solution
def _(K):
    return 10 * math.log10(1 + 1 / K)  # V and V / K; K = 9 is the first below 0.5 dB


# %% [markdown]
# **3. An answer that keeps to what was given.** An answer of a network, averaged over the blocks again, is not quite
# the image that was given. Change it as little as possible (by the squared change) so that it is.

# %%
@exercise("An answer that keeps to what was given")
def consistent(answer, y, n):
    """The image nearest to `answer` (n H, n W) whose n x n blocks have the means y."""
    return np.kron(y, np.ones((n, n)))  # your answer


@consistent.check
def _(answer):
    rng, n = np.random.default_rng(0), 2
    image, y = rng.uniform(size=(4, 6)), rng.uniform(size=(2, 3))
    found = answer(image, y, n)
    pooled = found.reshape(2, n, 3, n).mean((1, 3))
    told = f"the means of the blocks should be\n{y.round(3)}\nfound\n{pooled.round(3)}"
    assert np.allclose(pooled, y, rtol=0, atol=1e-12), told
    down, across = (np.kron(np.eye(blocks), np.ones(n) / n) for blocks in (2, 3))
    pool = np.kron(down, across)  # the means of the blocks as a matrix
    nearest = image.ravel() + np.linalg.pinv(pool) @ (y.ravel() - pool @ image.ravel())
    least, change = (((new - image.ravel()) ** 2).sum()
                     for new in (nearest, found.ravel()))
    told = (f"least squares gives {least:.4f} for the sum of the squared changes; "
            f"found {change:.4f}")
    assert np.allclose(found.ravel(), nearest, rtol=0, atol=1e-9), told


# %% tags=["solution"]
@consistent.solution
def _(answer, y, n):
    high, wide = y.shape
    found = answer.reshape(high, n, wide, n).mean((1, 3))
    return answer + np.kron(y - found, np.ones((n, n)))  # a block moves as one


# %% [markdown]
# ## What the sources say
#
# - Sohn, Lee & Yan (2015) have the conditional VAE: the bound (eq. 4), a prior $p(z|y)$ that is a network, and the
#   comparison with a network without $z$ (section 5.1).
# - Chira et al. (2022), VDVAE-SR, raise photographs by four times with a very deep VAE whose prior sees the small
#   image, and draw at a temperature. On Set5 they report 31.68 dB at 0.2 and 31.06 dB at 0.8, against 28.88 dB of
#   bicubic interpolation: a low temperature has the higher PSNR, as here. For EDSR, a network that gives one answer,
#   their table has 32.98 dB.
# - Wang, Bovik, Sheikh & Simoncelli (2004) define SSIM (eq. 13), which compares means, spreads and correlation in
#   small windows.
