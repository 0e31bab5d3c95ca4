# %% [markdown]
# # 4. The VAE architecture
#
# Chapter 2 wrote a model as a network of named variables, and chapter 3 turned the arrow round: from data to what
# caused them. This chapter fills both arrows with neural networks. What is left is a model of two nodes, $z \to x$,
# that can be trained on images.
#
# ## What you need to know
#
# A prior $p(z)$, a likelihood $p(x|z)$ and a posterior $p(z|x)$ (chapter 3); and that a multilayer perceptron is a
# function made of linear maps, $h = W x + b$, with a bend, such as $\max(0, h)$, in between. The latent $z$ has some
# ten numbers, a datum $x$ has hundreds.
#
# > **Claim.** A variational auto-encoder is a generative model $p(z)\, p_\theta(x|z)$ and, beside it, a distribution
# > $q_\phi(z|x)$ that stands for its posterior. A network does not give an image or a code: it gives the *parameters
# > of a distribution*. The decoder maps $z$ to those of $p_\theta(x|z)$; the encoder maps any $x$ to those of
# > $q_\phi(z|x)$, in one pass, without a search for each datum.

# %%
import math

import numpy as np
from scipy import stats

import tinyvae as tv
from tinyvae.distributions import Normal
from tinyvae.lessons.book import drawn, exercise, show
from tinyvae.pictures import figures
from tinyvae.pictures.page import LABELS, new_figure, plain_axes

# %% [markdown]
# ## A witness and a sketch
#
# A witness has seen a face. She cannot draw; she tells a sketch artist what she remembers, on a form with a few
# fields: age, length of the nose, beard. In each field she writes a value and how sure she is. The artist has never
# seen the face. He draws from the form, and where the form is vague, he draws what is usual. Both are judged
# together: by how well the sketch fits the face, and the form must not be filled in more finely than is worth it.
# After many cases they have agreed on what the fields mean, although nobody told them. The face is $x$, the witness
# is the encoder, the filled form is $q(z|x)$, the artist is the decoder. And a form filled at random, as forms
# usually look, gives the sketch of a face that nobody has seen: that is generating.
#
# ## The decoder: from z to a distribution of images
#
# The prior is a standard normal distribution, $p(z) = N(0, I)$. The decoder is a network that ends in one number for
# each pixel, a logit $l_i(z)$. For pixels that are 0 or 1,
#
# $$p_\theta(x|z) = \prod_i y_i^{x_i} (1 - y_i)^{1 - x_i}, \qquad y_i = \frac{1}{1 + e^{-l_i(z)}}$$
#
# ```{line} tinyvae/distributions/bernoulli.py
# def mean(self) -> Tensor:  # type: ignore[override]
#     return self.logits.sigmoid()
# ```
#
# Its logarithm is a sum over pixels. As $\log y = -\log(1 + e^{-l})$ and $\log(1 - y) = -\log(1 + e^{l})$, each pixel
# needs the function $\mathrm{softplus}(t) = \log(1 + e^t)$ once, and no logarithm of a number that could be 0:
#
# $$\log p(x_i|z) = -\mathrm{softplus}\bigl( (1 - 2 x_i)\, l_i(z) \bigr)$$
#
# ```{line} tinyvae/distributions/bernoulli.py
# return -((1 - 2 * w) * self.logits).softplus()
# ```
#
# (For whole images the library computes the same number in a form that also takes grey pixels.)
#
# For real numbers the network ends in two numbers a pixel, the mean and the log-variance of a normal distribution. For
# grey pixels the first of them is a logit, and its sigmoid is the mean, which so stays between 0 and 1. The rest of the
# model stays as it is.
#
# ## The encoder: from x to a distribution of codes
#
# The encoder ends in two numbers for each latent, too. The first half of its output is the mean, the second half
# $\log\sigma^2$:
#
# $$q_\phi(z|x) = N\bigl( \mu_\phi(x),\ \mathrm{diag}\, \sigma^2_\phi(x) \bigr)$$
#
# ```{line} tinyvae/distributions/normal.py
# mu, logvar = raw.split(2)
# return cls(mu, logvar, raw)
# ```
#
# Why the logarithm? A variance has to be positive, and a network's output can be any number; the exponential of any
# number is positive. Both networks are the same kind of thing, a perceptron whose last layer feeds a distribution:
#
# $$x \mapsto \text{parameters of } q_\phi(z|x), \qquad z \mapsto \text{parameters of } p_\theta(x|z)$$
#
# ```{line} tinyvae/models/vae.py
# self.encoder = self.network("encoder", self.reads * pixels, hidden, family, latent, activation)
# self.decoder = self.network("decoder", latent, tuple(reversed(hidden)), pixel, pixels, activation)
# ```
#
# ```{line} tinyvae/nn/network.py
# """The distribution given the inputs, each (..., width); leading axes broadcast."""
# return self.family.from_raw(self.raw(*inputs))
# ```
#
# ## The whole of it, trained
#
# What both are trained for is the ELBO, for each datum (chapter 7): how well $x$ is explained by draws of $q$, minus
# the divergence of $q$ from the prior,
#
# $$E_{q_\phi(z|x)}[\log p_\theta(x|z)] - \mathrm{KL}(q_\phi(z|x) \,\|\, p(z)).$$
#
# Real handwritten digits of 8 x 8 pixels, each 1 where the ink covers more than half of it, a hidden layer of 100 and
# eight latents:

# %%
data = tv.data.load("digits-threshold")
model = tv.VAE(data.dimensions, hidden=100, latent=8)
print(model)
tv.fit(model, data, epochs=100, lr=4e-3, quiet=True)  # without a progress bar
result = tv.evaluate(model, data)
print(f"ELBO {result.elbo:.2f} ± {result.elbo_stderr:.2f} nats per datum, higher is better "
      f"({result.data_count} test data)\n"
      f"It is the reconstruction {result.reconstruction:.2f} less the KL {result.kl:.2f}.")

# %% [markdown]
# Now look at what each network says. Below eight test digits stand the mean of $p(x|z)$ for the mean of $q(z|x)$, and
# the means of $p(x|z)$ for two draws of $z$ from $q(z|x)$. The draws differ where the encoder is not sure.

# %%
x = tv.Tensor((data.test[:200] / data.scale).astype(np.float32))
q = model.q(x)
z = q.sample(tv.Noise(0, "chapter 4"), samples=2)
rows = [x.numpy(), model.likelihood(q.mean).mean.numpy(), *model.likelihood(z).mean.numpy()]
names = ["digit x", "z is the mean of q", "z is a draw of q", "z is another draw"]
drawn(lambda path: figures.labelled_rows(
    np.array([row[:8] for row in rows]), data.shape, path, "From x to q(z|x), and back",
    names),
    text="Four rows of eight small digits: the black and white originals, a smooth "
         "reconstruction, and two slightly different ones.")
print("first digit: mean of q", np.round(q.mean.numpy()[0], 2),
      "\nits standard deviation", np.round(q.sigma.numpy()[0], 2))

# %% [markdown]
# And the other way: $z$ from the prior, through the decoder. No image goes in.

# %%
z = model.prior.sample(tv.Noise(1, "chapter 4"), 40)
made = model.likelihood(z).mean.numpy()
drawn(lambda path: figures.samples(made, data.shape, path, columns=10,
                                   title="Means of p(x|z) for z from the prior"),
      text="Forty generated images. Many can be read as digits, some lie between two "
           "digits.")

# %% [markdown]
# ## A common map
#
# The encoder was never told the labels. Yet digits of a kind lie together, because a decoder that is smooth can
# explain alike images from nearby codes. Here are the means of $q(z|x)$ of the test digits, along the two directions
# in which they spread most:

# %% tags=["drawing"]
means = model.q(tv.Tensor((data.test / data.scale).astype(np.float32))).mean.numpy()
centred = means - means.mean(0)
plane = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
figure = new_figure(6, 4)
axes = figure.add_subplot()
for digit in range(10):
    at = plane[data.test_labels == digit]
    axes.scatter(*at.T, s=0)  # so that the axes know the extent
    for place in at:
        axes.text(*place, str(digit), color=LABELS[digit], fontsize=8, ha="center",
                  va="center")
plain_axes(axes, "Means of q(z|x) of 300 test digits", x="first principal direction",
           y="second")
figure.tight_layout()
show(figure, "Three hundred digits at the places of their codes. Digits of a kind form "
             "clouds, which overlap, for eight latents are shown in two directions.")

# %% [markdown]
# ## Predict, then run
#
# The encoder has to serve all images with the same weights. For a single image one could do better: take its own
# $\mu$ and $\log\sigma^2$ and climb the ELBO with the decoder held fixed. **By how many nats per datum will that
# improve on the encoder's $q$: by about half a nat, by about two, or by more than five?**

# %% tags=["answer"]
def log_joint(z):
    each = model.likelihood(z["z"]).log_prob(x) + model.prior.log_prob(z["z"])
    return [tv.Term(each, "n", ("z",))]  # (samples, images)


def elbo(q):
    """Of each image, with the same 400 draws of the noise whichever q it is."""
    return tv.elbo(model, lambda x: q, x, tv.Noise(2, "chapter 4"), samples=400).numpy()


factor = tv.Factor(Normal, q.mean.shape, "nd", start=q.raw.numpy())  # a q for each image
fitted = tv.infer(log_joint, {"z": factor}, samples=8, steps=400, lr=0.02, dtype="float32")
gain = elbo(fitted.q["z"]) - elbo(q)
print(f"encoder {elbo(q).mean():.2f}, "
      f"each image its own q {elbo(fitted.q['z']).mean():.2f} nats")
stderr = gain.std(ddof=1) / math.sqrt(len(gain))
print(f"gain {gain.mean():.2f} ± {stderr:.2f} nats per datum, {len(gain)} test images")

# %% [markdown]
# This gain estimates the *amortization gap*, and is below it as far as the search has not ended. It is small, and it
# cost 400 steps for each image, where the encoder makes one pass. (There is a second gap, between the best $q$ of this
# family, the normals with a diagonal covariance, and the true posterior. No search in the family closes it: it is the
# price of the family, as in chapter 7.)
#
# ## A correction: the encoder is not the posterior
#
# One reads that the encoder "is the posterior". It is not: $p(z|x)$ is fixed by the decoder and the prior through
# Bayes' theorem, and $q(z|x)$ is a stand-in with two errors, the family's and the network's. Nor is the model trained
# to copy $x$: without the KL it would be an auto-encoder that writes its forms with needless precision, and a form
# filled in at random would give nonsense.
#
# ## Exercises
#
# **1. Count the parameters.** Of a VAE with one hidden layer in each network, normal $q$ and binary pixels. Mind how
# many numbers the encoder's last layer gives.

# %%
@exercise("Count the parameters")
def parameters(pixels, hidden, latent):
    """How many weights and biases encoder and decoder have together."""
    return 2 * (pixels * hidden + hidden * latent)  # what is missing?


@parameters.check
def _(answer):
    for sizes, expected in (((784, 500, 20), 815_824), ((784, 400, 20), 652_824),
                            ((64, 100, 5), 14_574)):
        found = answer(*sizes)
        assert found == expected, f"{sizes} has {expected:,} parameters; found {found:,}"


# %% tags=["solution"]
@parameters.solution
def _(pixels, hidden, latent):
    encoder = pixels * hidden + hidden + hidden * 2 * latent + 2 * latent  # mu and logvar
    decoder = latent * hidden + hidden + hidden * pixels + pixels
    return encoder + decoder


# %% [markdown]
# **2. A pixel from its logit.** Write $\log p(x|l)$ of one pixel so that it is right also for $l = \pm 800$, where
# $e^{800}$ is beyond the largest number of a computer.

# %%
@exercise("A pixel from its logit")
def pixel_log_prob(x, logit):
    """log p(x) of a pixel x = 0 or 1 with p(x = 1) = sigmoid(logit), in nats."""
    p = 1 / (1 + np.exp(-min(logit, 30.0)))
    return np.log(p) if x else np.log(1 - p)  # where does this go wrong?


@pixel_log_prob.check
def _(answer):
    for logit in (-2.0, 0.0, 3.0):
        for x in (0, 1):
            expected = stats.bernoulli(1 / (1 + math.exp(-logit))).logpmf(x)
            found = answer(x, logit)
            told = (f"x = {x}, logit = {logit}: SciPy gives {expected:.6f}, "
                    f"found {found:.6f}")
            assert abs(found - expected) < 1e-9, told
    for x, logit, expected in ((0, 800.0, -800.0), (1, -800.0, -800.0), (1, 800.0, 0.0),
                               (0, 45.0, -45.0)):
        with np.errstate(all="ignore"):
            found = answer(x, logit)
        told = f"x = {x}, logit = {logit}: expected {expected}, found {found}"
        assert abs(found - expected) < 1e-9, told


# %% tags=["solution"]
@pixel_log_prob.solution
def _(x, logit):
    return -np.logaddexp(0, (1 - 2 * x) * logit)  # log(1 + exp(t)), without an overflow


# %% [markdown]
# **3. An encoder that is exact.** For $p(z) = N(0, 1)$ and $p(x|z) = N(w z, s^2)$ the posterior is normal, so a
# perfect encoder exists, and it is linear. Give its mean and its variance.

# %%
@exercise("An encoder that is exact")
def encoder(x, w, s):
    """The mean and the variance of p(z|x)."""
    return x / w, s**2 / w**2  # without the prior


@encoder.check
def _(answer):
    z = np.linspace(-8, 8, 20_001)
    for x, w, s in ((1.3, 2.0, 0.5), (-0.7, 0.5, 1.0)):
        weight = stats.norm.pdf(z) * stats.norm.pdf(x, w * z, s)
        weight /= weight.sum()
        mean = weight @ z
        expected = mean, weight @ (z - mean) ** 2
        found = answer(x, w, s)
        told = (f"for x = {x}, w = {w}, s = {s} a grid gives the mean {expected[0]:.5f} "
                f"and the variance {expected[1]:.5f}; found {np.round(found, 5)}")
        assert np.allclose(found, expected, rtol=0, atol=1e-7), told


# %% [markdown]
# The prior pulls the mean to 0 and makes the variance smaller; for a small $s$ it hardly matters.

# %% tags=["solution"]
@encoder.solution
def _(x, w, s):
    variance = 1 / (1 + w**2 / s**2)
    return variance * w * x / s**2, variance


# %% [markdown]
# ## What the sources say
#
# - AEVB, section 3 and appendix C, has this model: one hidden layer in each network, a normal $q$ with a diagonal
#   covariance, and Bernoulli or normal pixels. Its 784-500-20 has the 815,824 parameters of exercise 1.
# - Kingma & Welling (2019), section 2.1, call the shared encoder amortized inference: the cost of inference is paid
#   once, in training, for all data.
# - The article draws encoder and decoder as two networks that end in means and variances; here these are named as
#   what they are, parameters of distributions, so that other families (`--posterior gamma`, `--likelihood gaussian`)
#   are the same architecture.
