# %% [markdown]
# # 1. Introduction
#
# A program that is given an image of a digit and answers "seven" has learned something. Could it draw a seven? Could
# it finish one of which half is covered? Could it notice that it was given no digit at all? This book is about models
# that can, and about one of them, the *variational auto-encoder*. This chapter says what such a model is for; the
# next ones say how it is built, and why it can be trained. The book follows an article, *Mathematical Explanation:
# Variational Auto-Encoder*, chapter by chapter; where a chapter says "the article", it means this one.
#
# ## What you need to know
#
# The product rule $p(a, b) = p(a)\,p(b|a)$, and the sum rule $p(a) = \sum_b p(a, b)$. A datum is $x$, here the 64
# pixels of a small image; its label is $y$. A *discriminator* is a model of $p(y|x)$. A *generator* is a model of how
# the data come about, $p(x)$ or $p(x, y)$. Their networks may look alike; what differs is the question. A $q$ is a
# distribution that a network guesses, and $E_q$ is the mean over its draws. The logarithm, $\log$, is the natural one;
# its unit is called *nat*.
#
# > **Claim.** From a joint distribution $p(x, y)$ every other answer follows by sums and divisions, and with
# > $x = (x_{\mathrm{seen}}, x_{\mathrm{hidden}})$ so do
# >
# > $$p(y|x) = \frac{p(x, y)}{\sum_{y'} p(x, y')}, \qquad p(x) = \sum_{y} p(x, y),$$
# >
# > $$p(x_{\mathrm{hidden}} | x_{\mathrm{seen}}) = \frac{p(x)}{\sum_h p(x_{\mathrm{seen}}, h)},$$
# >
# > where $h$ runs over everything that may be hidden.
# >
# > From $p(y|x)$ alone follows neither of the last two, for it says nothing of which $x$ there are.

# %%
import math

import numpy as np
from scipy import special
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import BernoulliNB

import tinyvae as tv
from tinyvae.lessons.book import drawn, exercise, show
from tinyvae.models import model_for
from tinyvae.pictures.answers import answers, upscaled
from tinyvae.pictures.completions import completions
from tinyvae.pictures.page import INK, TEST, TRAIN, new_figure, plain_axes
from tinyvae.tasks.classification import gain
from tinyvae.tasks.generation.conditional import answers_to
from tinyvae.tasks.generation.upscaling import upscale

# %% [markdown]
# ## The cashier and the baker
#
# A cashier in a bakery tells rolls from croissants at a glance. That is all her till needs, and she learned it in an
# hour. Put a stone painted like a roll on the counter, and she will charge you for a roll. The baker learned for
# years. He can make both, so he can also tell them apart. Shown half a croissant, he can say how it went on, and
# several ways in which it may have. He knows a stone from a roll, because no dough he knows comes out like that. And
# a new hand who has watched him bake a thousand rolls of every kind needs to hear each name only once. The cashier is
# the discriminator, the baker is the generator, and his years are what the rest of this book has to pay.
#
# ## Both on one data set
#
# The digits of scikit-learn are 8 x 8 pixels, here drawn as bits, with 1,497 images to learn from and 300 to test.
# The discriminator is a logistic regression. The generator is the simplest there is: it draws a class, and then each
# pixel by itself, with a probability that depends on the class alone,
#
# $$p(x, y) = p(y) \prod_{i=1}^{64} \mu_{yi}^{x_i} (1 - \mu_{yi})^{1 - x_i}.$$
#
# To learn it, count: $p(y)$ is the share of the class, and $\mu_{yi}$ the share of its images whose pixel $i$
# is white.

# %%
data = tv.data.load("digits-static")
classes = np.eye(10)[data.train_labels]
count = classes.sum(0)
ones = classes.T @ data.train  # (10, 64)
mu = (ones + 1) / (count[:, None] + 2)  # one image more with 1, and one with 0


def log_joint(x):
    """log p(x, y) of images (rows, 64) for every class, (rows, 10)."""
    return np.log(count / count.sum()) + x @ np.log(mu).T + (1 - x) @ np.log1p(-mu).T


def accuracy(found):
    right = found == data.test_labels
    return f"{right.mean():.1%} ± {right.std(ddof=1) / math.sqrt(len(right)):.1%}"


discriminator = LogisticRegression(max_iter=300).fit(data.train, data.train_labels)
found = discriminator.predict(data.test), log_joint(data.test).argmax(1)
for name, classes_found in zip(("discriminator", "generator"), found, strict=True):
    print(f"{name:<15}{accuracy(classes_found)} of {len(data.test)} test images are right")

# %% [markdown]
# Both name about as many digits right. But only the second can also be asked to draw. Here is an image of each class:

# %% tags=["drawing"]
rng = np.random.default_rng(1)
dreamt = (rng.uniform(size=(10, 64)) < mu).astype(float)
figure = new_figure(7, 1.0)
for place, image in enumerate(dreamt):
    axes = figure.add_axes((0.01 + 0.099 * place, 0.05, 0.09, 0.63))
    axes.imshow(image.reshape(8, 8), cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()
figure.text(0.01, 0.83, "Draws of the generator, from 0 to 9", fontsize=9, color=INK)
show(figure, "Ten images of 8 x 8 pixels. Some of the digits can be guessed, but their "
             "strokes are frayed and have holes.")

# %% [markdown]
# ## Predict, then run
#
# Both are now shown four images: a three of the test images; the same with black and white exchanged; the same with
# its pixels shuffled; and the three that the generator drew. **How sure will the discriminator be of its answer to
# each, and which of them will the generator find strange?**

# %% tags=["answer"]
three = data.test[data.test_labels == 3][0].astype(float)
shown = {"test image": three, "exchanged": 1 - three, "shuffled": rng.permutation(three),
         "drawn": dreamt[3]}
log_p = special.logsumexp(log_joint(data.test), axis=1)  # log p(x) of the test digits
print(f"{'':<12}{'discriminator':<20}generator")
for name, image in shown.items():
    p_y = discriminator.predict_proba([image])[0]
    value = special.logsumexp(log_joint(image))
    higher = np.mean(log_p > value)
    print(f"{name:<12}{p_y.argmax()}, {p_y.max():<6.1%} sure     "
          f"log p(x) = {value:6.1f} nats; {higher:.0%} of the test digits have more")

# %% tags=["outcome"]
figure = new_figure(7, 2.4)
axes = figure.add_subplot()
axes.hist(log_p, bins=30, color=TRAIN, alpha=0.75)
top = 1.6 * axes.get_ylim()[1]
axes.set_ylim(0, top)
for name, image in shown.items():
    value = special.logsumexp(log_joint(image))
    axes.axvline(value, color=TEST, linewidth=1.5)
    axes.text(value, top, f"{name} ", rotation=90, fontsize=8, va="top", ha="right")
plain_axes(axes, f"log p(x) of {len(log_p)} test digits and of the four images",
           x="nats", y="digits")
figure.tight_layout()
show(figure, f"A histogram of log p(x) of the test digits, between {log_p.min():.0f} and "
             f"{log_p.max():.0f} nats. "
             "The test image and the drawn one lie within it, the shuffled one below "
             "it, the exchanged one far below.")

# %% [markdown]
# The discriminator is sure of all of them. It has to share out 100 % among ten classes, whatever it is shown, and a
# few pixels decide. The generator has $p(x)$, the second formula of the claim, and tells that the exchanged image and
# the shuffled one are like nothing it learned. (The reverse does not hold: an image can have a high $p(x)$ and be no
# digit. A likely image is one of which no single pixel is odd, and this generator knows nothing but single pixels.)
#
# That is also what is wrong with its drawings: the pixels know their class, but not each other. A better generator
# needs something that all pixels of an image share: its slant, its width, its style. Nobody wrote that down for any
# image. It is *latent*, it is called $z$, and the rest of the book is about it.
#
# ## First purpose: learning from few labels
#
# Twenty labels, two of each class, and 1,497 images. The supervised network sees only what has a label, and raises
#
# $$\log q(y|x), \qquad (x, y) \text{ with a label}$$
#
# ```{line} tinyvae/models/classifier.py
# return Terms(classifier=self.q_y(self.seen(seen.x)).log_prob(seen.y))
# ```
#
# The model M2 has the same network and trains it beside a generator $p(x|y, z)$, so that the class that an image
# without a label gets has to fit how images of that class come about. The probability of such an image sums the class
# out, the second formula of the claim. (Training raises a lower bound of its logarithm, in which $q(y|x)$ weighs the
# classes; the line below estimates it for a trained model.)
#
# $$p(x) = \sum_y p(x, y), \qquad p(x, y) = E_{q(z|x, y)}\!\left[\frac{p(x, y, z)}{q(z|x, y)}\right]$$
#
# ```{line} tinyvae/models/m2.py
# return self.class_weights(batch.x, draw, samples).logsumexp(1)  # p(x) = sum_y p(x, y)
# ```

# %%
digits = tv.data.load("digits")  # its bits are drawn anew at each use
few = {"labels": 20, "epochs": 20, "batch": 50, "lr": 3e-3}
m2 = model_for("m2", digits, hidden=50, latent=5)
tv.fit(m2, digits, **few)
alone = model_for("classifier", digits, hidden=50)
tv.fit(alone, digits, **few)
with_images, without = tv.classify(m2, digits), tv.classify(alone, digits)
for name, found in (("M2, with all images", with_images), ("the network alone", without)):
    share, error = found.accuracy()
    print(f"{name:<22}{share:.1%} ± {error:.1%} of {len(digits.test)} test digits "
          "are right")
better, error = gain(with_images, without)
print(f"{'gain, paired by digit':<22}{better:+.1%} ± {error:.1%}")

# %% [markdown]
# The two classifiers are of one size, and saw the same 20 labels. [Learning from few labels](A1_semi_supervised.py) is
# the appendix about how this works, and when it does not.
#
# ## Second purpose: completing data
#
# Of each digit the left half is hidden, and a model that was trained on whole digits says what it may be: the third
# formula of the claim. Its sum over all that may be hidden has $2^{32}$ terms, so it is drawn and not summed. The
# chain holds a filled image, draws a $z$ for it, and draws the hidden pixels again,
#
# $$z \sim q(z | x_{\mathrm{seen}}, x_{\mathrm{hidden}}), \qquad x_{\mathrm{hidden}} \sim p(x_{\mathrm{hidden}}|z)$$
#
# ```{line} tinyvae/tasks/chains.py
# x = hidden.where(rows_of_draw(law.sample(noise)), x)
# ```
#
# A new $z$ is accepted with the probability $\min(1, w' / w)$, where $w = p(x|z)\,p(z) / q(z|x)$ belongs to the old one
# and $w'$ to the new one; else the old one stays. With this step, `method="metropolis"`, the draws of the chain tend to
# the third formula; without it, only if $q$ is the posterior.

# %%
quick = {"epochs": 20, "batch": 50, "lr": 3e-3}
vae = tv.VAE(digits.dimensions, hidden=100, latent=8)
tv.fit(vae, digits, **quick)
completed = tv.complete(vae, digits, "left", method="metropolis", draws=10, count=100)
told = [one for one in completed.quantities() if not one.name.startswith("wrong pixels")]
for quantity in told:
    error = "" if quantity.error is None else f" ± {quantity.error:.3f}"
    print(f"{quantity.name:<54}{quantity.value:.3f}{error:<10}{quantity.unit}")
drawn(completions, completed, (8, 8),
      text="Ten test digits, their right halves, four completions of each, the mean of the"
           " completions and their standard deviation. The completions of a digit differ, "
           "and most continue its strokes.")

# %% [markdown]
# The first row is the chain. The two below it are simpler answers: each hidden pixel has its mean over the training
# images; or the hole is filled with that mean once, and the mean of $q(z|x)$ is decoded. The last row is the share of
# the new $z$ that were accepted.
#
# There is no single right answer: a right half that may belong to a three or to an eight is completed to either. The
# [appendix about completion](A2_completion.py) makes this exact.
#
# ## Third purpose: generating realistic data
#
# A generator draws. More useful is one that draws *in a context*: a sentence that goes on from another, an image with
# a given label, a sharp image of which a coarse one is given. The condition $c$ enters the prior and the decoder, and
# an answer is the mean image of a drawn $z$,
#
# $$z \sim p(z|c), \qquad \hat x = E[x|z, c]$$
#
# ```{line} tinyvae/models/cvae.py
# z = prior.mean + temperature * (prior.sample(noise, draws) - prior.mean)
# return self.decoder(z, c).mean
# ```
#
# (`temperature` scales the distance of $z$ from its mean; here it is 1.) First $c$ is a label:

# %%
of_label = model_for("cvae", digits, given="label", hidden=100, latent=8)
tv.fit(of_label, digits, **quick)
found = answers_to(of_label, of_label.condition.every())
drawn(answers, found, (8, 8),
      text="A column for each label from 0 to 9, with six digits in each, their mean and "
           "their spread. The six differ in width and slant, and are digits of that label.")

# %% [markdown]
# and then it is the digit averaged over 2 x 2 pixels, 16 numbers in place of 64. That is super-resolution, in [an
# appendix of its own](A3_super_resolution.py). PSNR and SSIM are two measures of likeness with the original; higher is
# better:

# %%
of_coarse = model_for("cvae", digits, given="pooled:2", hidden=100, latent=8)
tv.fit(of_coarse, digits, **quick)
images = (digits.test / np.float32(digits.scale)).reshape(-1, 8, 8)
sharper = upscale(of_coarse, images, temperatures=(1.0,), draws=16)
for way in sharper.ways:
    print(f"{way.name:<20}PSNR {way.psnr:.2f} ± {way.psnr_stderr:.2f} dB,   "
          f"SSIM {way.ssim:.3f} ± {way.ssim_stderr:.3f}")
drawn(upscaled, sharper, (8, 8),
      text="Ten digits of 4 x 4 pixels, the same enlarged by bicubic interpolation, which "
           "is blurred, one answer of the model, the mean of sixteen answers, and the "
           "originals. The answers have the strokes of the originals.")

# %% [markdown]
# The three purposes are three questions to one kind of model, $p(x, z)$ with parts of $x$, $y$ or $c$ known. What
# stands between us and the answers is the same each time: a sum over everything that is not known. Chapter 5 shows
# that it cannot be computed, and chapters 6 to 11 what is done in its place.
#
# ## Exercises
#
# Replace the line that returns something wrong and run the cell: the check says whether it is right. The solution is
# folded below.
#
# **1. A discriminator from a generator.** The first formula of the claim, for logarithms: an image may have
# $\log p(x, y) = -2000$ for every class, and $e^{-2000}$ is 0 for a computer.

# %%
@exercise("A discriminator from a generator")
def classify(log_joint):
    """p(y|x), from log p(x, y) as an array (rows, classes)."""
    return np.full(log_joint.shape, 1 / log_joint.shape[1])  # your answer


@classify.check
def _(answer):
    for given in (np.log([[0.1, 0.3], [0.2, 0.2]]), np.array([[-2000.0, -2001.0]])):
        expected = special.softmax(given, axis=1)
        found = answer(given)
        told = (f"for log p(x, y) = {given.round(2).tolist()} softmax gives "
                f"{expected.round(4).tolist()}; found {np.round(found, 4).tolist()}")
        assert np.allclose(found, expected, rtol=0, atol=1e-12), told


# %% tags=["solution"]
@classify.solution
def _(log_joint):
    shifted = np.exp(log_joint - log_joint.max(1, keepdims=True))  # the largest is 1
    return shifted / shifted.sum(1, keepdims=True)


# %% [markdown]
# **2. A generator by counting.** Write $\log p(x, y)$ of the simplest generator for given images and labels. Count
# one image more in which a pixel is 1, and one in which it is 0, for each class; they count for the probabilities of
# pixels only, and $p(y)$ stays the share of the class. Why are they needed?

# %%
@exercise("A generator by counting")
def count_pixels(images, labels, x):
    """log p(x, y) of bits x (rows, pixels) for the classes 0 and 1, (rows, 2)."""
    return np.zeros((len(x), 2))  # your answer


@count_pixels.check
def _(answer):
    rng = np.random.default_rng(0)
    images, x = rng.integers(2, size=(9, 5)), rng.integers(2, size=(4, 5))
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1])
    expected = BernoulliNB(alpha=1.0).fit(images, labels).predict_joint_log_proba(x)
    found = answer(images, labels, x)
    told = (f"for the four images x BernoulliNB gives log p(x, y) =\n{expected.round(4)}\n"
            f"found\n{np.round(found, 4)}")
    assert np.allclose(found, expected, rtol=0, atol=1e-9), told


# %% tags=["solution"]
@count_pixels.solution
def _(images, labels, x):
    columns = []
    for label in (0, 1):
        own = images[labels == label]
        mu = (own.sum(0) + 1) / (len(own) + 2)  # 0 would rule out a class by one new pixel
        log_p = x @ np.log(mu) + (1 - x) @ np.log(1 - mu)
        columns.append(math.log(len(own) / len(images)) + log_p)
    return np.stack(columns, axis=1)


# %% [markdown]
# **3. A completion by a table.** Three bits have a joint distribution, `table[a, b, c]`. The first two were seen.
# Write the third formula of the claim: the probability that the third one is 1.

# %%
@exercise("A completion by a table")
def third_bit(table, a, b):
    """p(c = 1 | a, b), for an array (2, 2, 2) of probabilities whose sum is 1."""
    return 0.5  # your answer


@third_bit.check
def _(answer):
    even = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]]]) / 4
    found = answer(even, 0, 1)
    told = ("if the sum of the bits is always even, 0 and 1 are followed by 1: expected 1, "
            f"found {np.round(found, 4)}")
    assert found == 1, told
    table = np.array([[[1, 3], [2, 2]], [[5, 1], [1, 1]]]) / 16
    found = answer(table, 1, 0)
    told = ("after 1, 0 come five chances for 0 and one for 1: expected 1/6 = 0.1667, "
            f"found {np.round(found, 4)}")
    assert abs(found - 1 / 6) < 1e-12, told
    found = answer(table, 0, 0)
    told = ("after 0, 0 come one chance for 0 and three for 1: expected 3/4 = 0.75, "
            f"found {np.round(found, 4)}")
    assert abs(found - 3 / 4) < 1e-12, told


# %% tags=["solution"]
@third_bit.solution
def _(table, a, b):
    return table[a, b, 1] / table[a, b].sum()  # the sum runs over what is hidden


# %% [markdown]
# ## What the sources say
#
# - Kingma & Welling (2019), chapter 1, set generative against discriminative models as this chapter does: to learn
#   how the data come about, or to predict. If only the prediction counts and data are plenty, they expect fewer
#   errors of the latter, as the assumptions of the former are never quite right; with fewer data the former may help,
#   as it did here with 20 labels.
# - Kingma, Rezende, Mohamed & Welling (2014) have the model M2 of the first purpose. Feng et al. (2021) train a
#   classifier beside the generator for the same purpose; it is among the article's sources.
# - Rezende, Mohamed & Wierstra (2014), appendix F, complete images by drawing $z$ and the hidden pixels in turn;
#   Mattei & Frellsen (2018) make the chain exact.
# - Sohn, Lee & Yan (2015) have the conditional model of the third purpose. Chira et al. (2022) raise the resolution
#   of photographs with a very deep VAE; it is among the article's sources. This chapter is about digits of 64 pixels.
