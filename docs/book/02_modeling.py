# %% [markdown]
# # 2. Modeling
#
# The last chapter wanted a generator: not only the border between classes, but the law $p(x)$ from which data come.
# An image has hundreds of pixels, and a table of all their joint states fits into no computer. This chapter says how
# such a law is written at all: by things that are not seen, and by arrows that say what depends on what.
#
# ## What you need to know
#
# The product rule $p(a, b) = p(a)\,p(b|a)$ and the sum rule $p(a) = \sum_b p(a, b)$. A variable that is observed is
# called $x$; one that is not, but explains what is, is *latent* and called $z$. The colour of an apple is observed;
# whether it is rotten inside is latent.
#
# > **Claim.** If, given its parents in a directed graph without a cycle, each variable is independent of all others
# > that do not descend from it, the joint distribution is a product of small ones, one for each node,
# >
# > $$p(x_1, \dots, x_n) = \prod_{i=1}^n p(x_i \mid \text{parents of } x_i),$$
# >
# > and the variational auto-encoder is the smallest case with something latent: two nodes, $p(z)\,p(x|z)$.

# %%
import itertools
import math
import tempfile
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

import tinyvae as tv
from tinyvae.bayes.apple import decaying_apple
from tinyvae.lessons.book import drawn, embedded, exercise, show
from tinyvae.pictures import figures
from tinyvae.pictures.gallery import by_activity
from tinyvae.pictures.page import INK, TEST, new_figure, plain_axes

# %% [markdown]
# ## A bump in the cellar
#
# At night you hear a bump in the cellar. It may be the cat, or the washing machine that walks when it spins. You did
# not see either, but you know the machine also hums, and the cat also leaves open doors. So you listen for a hum and
# look at the door. The story runs from causes to signs: a cat makes a bump. Your thought runs the other way: from a
# bump and a closed door to a machine. A model is the story, written with probabilities. The cat and the machine are
# latent, bump, hum and door are observed, and each "makes" is an arrow.
#
# ## The decaying apple
#
# An injury of the skin and the spores of a fungus make an apple decay, and hardly one without the other. An apple
# that decays gets a brown skin and brown spots; an injury leaves a brown spot, too. That story is five nodes, each
# with its parents and a table. A row of a table belongs to a state of the parents, and its numbers have the sum 1:
#
# ```{line} tinyvae/bayes/apple.py
# "injury": Node([0.8, 0.2], (), no_yes),
# "spores": Node([0.75, 0.25], (), no_yes),
# "decayed": Node([[[0.99, 0.01], [0.9, 0.1]],  # no injury: without spores, with
#                  [[0.8, 0.2], [0.2, 0.8]]], ("injury", "spores"), no_yes),
# "spots": Node([[[0.95, 0.05], [0.5, 0.5]],  # not decayed: without an injury, with
#                [[0.3, 0.7], [0.1, 0.9]]], ("decayed", "injury"), no_yes),
# "skin": Node([[0.6, 0.3, 0.1],
#               [0.1, 0.15, 0.75]], ("decayed",), ("green", "red", "brown")),
# ```
#
# Its graph, with the two nodes that we see in grey:

# %%
apple = decaying_apple()
drawn(lambda path: path.write_text(apple.svg(observed=["skin", "spots"])), form="svg",
      text="A graph of five nodes. Arrows lead from injury and from spores to decayed, "
           "from decayed to skin, and from decayed and from injury to spots. Skin and "
           "spots are grey.")

# %% [markdown]
# The graph is a statement about what does *not* depend on what. Skin has one arrow, from decayed: once we know whether
# the apple decays, its injury says nothing more about the colour of its skin. Such statements are what makes the law
# small. All states of five variables are a table of $2^4 \cdot 3 = 48$ probabilities, 47 of them free; the five
# conditionals need 14 free numbers (exercise 1), and each of them is a number that somebody could count in an orchard.
#
# ## Along the arrows: ancestral sampling
#
# To draw an apple, go along the arrows: first the causes, each from its table; then what depends on them, from the row
# of the table that belongs to the states drawn,
#
# $$x_i \sim p(x_i \mid \text{parents of } x_i), \qquad \text{parents first}$$
#
# ```{line} tinyvae/bayes/network.py
# draw = law.sample(noise, 1)[0] if node.parents else law.sample(noise, samples)
# ```
#
# All that follows is a function of the seed, so these are the same 20,000 apples on every machine.

# %%
count = 20_000
apples = apple.sample(tv.Noise(0, "apples"), count)  # one-hot, (count, states)
for node in ("decayed", "skin"):
    shares = apples[node].numpy().mean(0)
    for state, share in zip(apple.nodes[node].states, shares, strict=True):
        stderr = math.sqrt(share * (1 - share) / count)
        print(f"{node:>8} = {state:<6} {share:.4f} ± {stderr:.4f} of {count:,} draws; "
              f"exactly {apple.posterior(node)[state]:.4f}")

# %% [markdown]
# ## The log joint
#
# Of a complete apple, signs and causes, the probability is the product of the claim. Products of many small numbers
# underflow, so we add logarithms:
#
# $$\log p(x_1, \dots, x_n) = \sum_i \log p(x_i \mid \text{parents of } x_i)$$
#
# ```{line} tinyvae/bayes/network.py
# for each in self._each(values).values():
#     total = total + each
# ```

# %%
sound = {"injury": "no", "spores": "no", "decayed": "no", "spots": "no",
         "skin": "green"}
rotten = {"injury": "yes", "spores": "yes", "decayed": "yes", "spots": "yes",
          "skin": "brown"}
for words, states in (("sound", sound), ("rotten", rotten)):
    log_p = float(apple.log_joint(states).numpy())
    print(f"a {words} apple: log p = {log_p:.4f} nats, p = {math.exp(log_p):.5f}")
print(f"by hand, rotten: {0.2 * 0.25 * 0.8 * 0.9 * 0.75:.5f}")

# %% [markdown]
# ## Against the arrows: what the signs tell
#
# We see a brown skin and ask for the decay. The question runs against the arrows, and nothing in the model answers it
# directly. The two rules do: sum the joint over all that is not asked, and divide.
#
# $$p(\text{decayed} \mid \text{skin}) = \frac{\sum_{\text{injury, spores, spots}} p(\text{all})}
#                                             {\sum_{\text{injury, spores, spots, decayed}} p(\text{all})}$$
#
# ```{line} tinyvae/bayes/network.py
# found = np.exp(np.logaddexp.reduce(log_p - total, axis=others) if others else log_p - total)
# ```

# %% tags=["drawing"]
seen = {"nothing": {}, "a green skin": {"skin": "green"}, "a brown skin": {"skin": "brown"},
        "a brown skin and spots": {"skin": "brown", "spots": "yes"}}
figure = new_figure(7, 2.5)
axes = figure.add_subplot()
for place, observed in enumerate(seen.values()):
    p = apple.posterior("decayed", observed)["yes"]
    axes.barh(place, p, color=TEST, height=0.55)
    axes.text(p + 0.01, place, f"{p:.3f}", va="center", fontsize=8, color=INK)
axes.set_yticks(range(len(seen)), seen)
axes.set_xlim(0, 1)
axes.invert_yaxis()
plain_axes(axes, "What is seen changes what is believed", x="p(decayed = yes | seen)")
figure.tight_layout()
show(figure, "Four bars: the probability of decay is 0.10 if nothing is seen, 0.02 for "
             "a green skin, 0.44 for a brown skin, and 0.85 for a brown skin with spots.")

# %% [markdown]
# Although three of four decaying apples have a brown skin, an apple with a brown skin is more probably sound than not.
# Decay is rare: of 1000 apples 72 decay and are brown, and 90 are sound and brown. The next chapter is about this rule.
#
# ## Predict, then run
#
# Injuries and spores are independent: each in its own table, no arrow between them. Now we cut an apple open and find
# it decayed, which makes an injury far more probable. Then a laboratory tells us that there were spores.
# **Does the probability of an injury go up, go down, or stay, as the two are independent?**

# %% tags=["answer"]
for observed in ({}, {"spores": "yes"}, {"decayed": "yes"},
                 {"decayed": "yes", "spores": "yes"}):
    p = apple.posterior("injury", observed)["yes"]
    words = ", ".join(f"{name} = yes" for name in observed) or "nothing"
    print(f"p(injury = yes | {words}) = {p:.4f}")

# %% [markdown]
# It goes down. Spores alone say nothing about injuries (the second line is the first). But the decay needed an
# explanation, and once the spores are known, the injury is needed a little less as one. One cause *explains the other
# away*. So causes that are independent before anything is seen depend on each other afterwards: posteriors of latent
# variables are tangled even where the prior is a plain product. Chapter 6 will pay for pretending that they are not.
#
# ## The smallest network: the VAE
#
# In the apple a person named every latent. For images nobody can: what are the causes of a handwritten seven? The VAE
# gives up the names. It has one latent node, a vector $z$ with a fixed simple law, and one observed node, whose
# conditional is not a table but a neural network that maps $z$ to the parameters of $p(x|z)$:
#
# $$p(x, z) = p(z)\,p(x|z), \qquad p(z) = N(0, I)$$
#
# A node of our network may be such a function of its parents, so this is no analogy. We train a VAE on 8 x 8 digits and
# write it down as a network of two nodes:

# %%
data = tv.data.load("digits-threshold")  # a pixel is 1 where more than half is ink
vae = tv.VAE(data.dimensions, hidden=100, latent=10)
run = Path(tempfile.mkdtemp()) / "digits"
tv.fit(vae, data, epochs=50, lr=5e-3, out=run, quiet=True)

network = tv.BayesianNetwork({
    "z": tv.Node(vae.prior),
    "x": tv.Node(vae.likelihood, ("z",)),
})
draws = network.sample(tv.Noise(0, "digits"), 5)
both = network.log_joint(draws).numpy()
z, x = draws["z"], draws["x"]
print(network)
print("log p(x, z) of five draws, in nats:")
print("  the network          ", np.round(both, 4))
print("  log p(z) + log p(x|z)", np.round(
    (vae.prior.log_prob(z) + vae.likelihood(z).log_prob(x)).numpy(), 4))

# %% [markdown]
# To generate an image is ancestral sampling along one arrow. To ask which $z$ made a given image is the way against
# it, and there the sum over all states has become an integral over ten numbers. The rest of this book is about that
# integral.
#
# What has $z$ learned, whose names nobody gave? Start at a test image, and change one latent while all others stay:

# %%
start = vae.encode(data.test[:1] / data.scale)[0]
span = np.linspace(-2.5, 2.5, 11, dtype=np.float32)
active = by_activity(vae, data)[:6]  # the latents that say most about the image
frames = np.tile(start, (len(active), len(span), 1))
for row, j in enumerate(active):
    frames[row, :, j] = span
images = vae.decode(frames.reshape(-1, vae.latent)).reshape(len(active), len(span), -1)
heads, names = span.tolist(), active.tolist()
drawn(lambda path: figures.traversal(images, data.shape, path, heads, names),
      text="Six rows of eleven digits. In each row one latent grows from -2.5 to 2.5, "
           "and the digit changes gradually, each row in its own manner.")
drawn(figures.animation, images.swapaxes(0, 1), data.shape, form="gif",
      text="An animation: six digits change as one latent each goes from -2.5 to 2.5.")

# %% [markdown]
# Now turn the knobs yourself. The page below holds this very model: point into the map of test images, move the
# sliders, draw a digit of your own and see what the model makes of it. The page is several times as high as its frame,
# so scroll within the frame, or open the page by itself with the button below. `tinyvae explore RUN` writes such a page
# of any run, and it computes all it shows in your browser.

# %%
embedded(tv.explore(run), "The latent space of the digits: a map, a slider for each "
                          "latent, and your own drawings")

# %% [markdown]
# ## Latents beside principal components and a plain auto-encoder
#
# A vector of ten numbers that stands for an image is no invention of the VAE. Two older ones:
#
# - **PCA** keeps the ten directions of largest variance. Of all affine maps to ten numbers and back it has the least
#   squared error on the data that it is fitted to.
# - A **plain auto-encoder** has the encoder and the decoder of the VAE, but the code of an image is a point. It is
#   trained for the reconstruction alone, $\log p(x \mid \text{code}(x))$:
#
# ```{line} tinyvae/models/autoencoder.py
# return Terms(reconstruction=self.decoder(self.code(batch.x)).log_prob(batch.x))
# ```
#
# We ask of each: how far is the reconstruction from the image, and how much of the label can a linear classifier read
# from the ten numbers? (One training each, of the same length and with the same networks; the errors are those of the
# 300 test data.)

# %%
plain = tv.models.model_for("autoencoder", data, hidden=100, latent=10)
tv.fit(plain, data, epochs=50, lr=5e-3, quiet=True)
train, test = data.train / data.scale, data.test / data.scale
pca = PCA(10).fit(train)

codes = {
    "PCA": (pca.transform, lambda images: pca.inverse_transform(pca.transform(images))),
    "auto-encoder": (plain.features, plain.reconstruct),
    "VAE": (lambda images: vae.encode(images)[0], vae.reconstruct),
}
print(f"{'ten numbers by':<16}{'squared error':>20}{'accuracy of labels':>22}")
for name, (features, rebuilt) in codes.items():
    error = ((test - rebuilt(test)) ** 2).sum(1)
    classifier = LogisticRegression(max_iter=3000).fit(features(train), data.train_labels)
    right = classifier.predict(features(test)) == data.test_labels
    errors = [values.std(ddof=1) / math.sqrt(len(test)) for values in (error, right)]
    print(f"{name:<16}{error.mean():>13.3f} ± {errors[0]:.3f}"
          f"{right.mean():>14.3f} ± {errors[1]:.3f}")
print("squared error per image (lower is better), accuracy (higher is better); "
      "300 test data")

# %% [markdown]
# For the label all three are about as good, within their errors. PCA, which is linear, reconstructs worst. Of the two
# with the same networks the *VAE* reconstructs worse, and that is as it should be: the auto-encoder was asked for
# nothing else, while the VAE also pays for each nat by which its codes leave the prior (chapter 7), so that it
# reconstructs with fewer of them. What it gets for the price is what the two others do not have: a law of the codes.
# From $p(z)$ new images can be drawn, $p(x)$ is a number, and a missing half can be completed. The auto-encoder,
# asked for these, says so:

# %%
try:
    plain.generate(3)
except TypeError as refusal:
    print(refusal)
print(tv.evaluate(plain, data).remarks())

rng = np.random.default_rng(0)
features = plain.features(train)
normal_codes = features.mean(0) + features.std(0) * rng.standard_normal((8, 10))
rows = np.stack([vae.generate(8), plain.decode(normal_codes)])
names = ["VAE, z of its prior", "auto-encoder, normal codes"]
drawn(lambda path: figures.labelled_rows(rows, data.shape, path,
                                         "Decoded from random codes", names),
      text="Two rows of eight images. Most of those decoded from the VAE's prior can be "
           "read as digits, those of the auto-encoder less often.")

# %% [markdown]
# For the second row we had to invent a law of the codes, a normal one with the mean and the spread of the training
# data's codes. The auto-encoder knows none, and so it has no number, either, that would say how good this one is.

# %% [markdown]
# ## Exercises
#
# Replace the line after the docstring and run the cell: the check says whether it is right. The solution is folded
# below.
#
# **1. What a graph saves.** A node with $k$ states has a row for each joint state of its parents, and a row of $k$
# numbers with the sum 1 has $k - 1$ free ones. Count the free numbers of a network.

# %%
@exercise("What a graph saves")
def free_numbers(states, parents):
    """The free numbers of all tables: `states` has the number of states of each node by its
    name, and `parents` the names of its parents."""
    return 0  # your answer


@free_numbers.check
def _(answer):
    chain = {"a": 3, "b": 2, "c": 5}
    found = answer(chain, {"a": (), "b": ("a",), "c": ("b",)})
    assert found == 13, f"a chain a -> b -> c has 2 + 3 + 8 = 13, found {found}"
    nodes = decaying_apple().nodes
    found = answer({name: len(node.states) for name, node in nodes.items()},
                   {name: node.parents for name, node in nodes.items()})
    assert found == 14, f"the apple has 1 + 1 + 4 + 4 + 4 = 14, found {found}"


# %% tags=["solution"]
@free_numbers.solution
def _(states, parents):
    return sum((states[name] - 1) * math.prod(states[parent] for parent in parents[name])
               for name in states)


# %% [markdown]
# **2. Bayes' theorem with a pencil.** 12 of 125 apples decay. Three of four of those, and one in ten of the others,
# have a brown skin. Write $p(\text{decayed} \mid \text{brown})$ for any three such numbers.

# %%
@exercise("Bayes' theorem with a pencil")
def decayed_if_brown(p_decayed, p_brown_if_decayed, p_brown_if_sound):
    """p(decayed | brown)."""
    return p_brown_if_decayed  # your answer


@decayed_if_brown.check
def _(answer):
    expected = decaying_apple().posterior("decayed", {"skin": "brown"})["yes"]
    found = answer(12 / 125, 3 / 4, 1 / 10)
    told = f"enumeration gives {expected:.6f}, found {found:.6f}"
    assert abs(found - expected) < 1e-12, told
    found = answer(0.5, 0.2, 0.2)
    told = f"a sign that both have equally often says nothing: expected 0.5, found {found:.6f}"
    assert abs(found - 0.5) < 1e-12, told


# %% tags=["solution"]
@decayed_if_brown.solution
def _(p_decayed, p_brown_if_decayed, p_brown_if_sound):
    decayed, sound = p_decayed * p_brown_if_decayed, (1 - p_decayed) * p_brown_if_sound
    return decayed / (decayed + sound)


# %% [markdown]
# **3. Draw an apple.** Write ancestral sampling yourself, for the three nodes injury, spores and decayed, with uniform
# numbers $u$: a node is "yes" if its $u$ is below its probability of "yes".

# %%
DECAYED = {(0, 0): 0.01, (0, 1): 0.1, (1, 0): 0.2, (1, 1): 0.8}  # p(yes | injury, spores)


@exercise("Draw an apple")
def draw(u):
    """(injury, spores, decayed), each 0 or 1, from three uniform numbers."""
    return 0, 0, 0  # your answer


@draw.check
def _(answer):
    uniform = np.random.default_rng(0).random((20_000, 3))
    seen = [tuple(map(int, answer(u))) for u in uniform]
    for states in itertools.product((0, 1), repeat=3):
        injury, spores, decayed = states
        p = (0.2 if injury else 0.8) * (0.25 if spores else 0.75)
        p *= DECAYED[injury, spores] if decayed else 1 - DECAYED[injury, spores]
        found, stderr = seen.count(states) / 20_000, math.sqrt(p * (1 - p) / 20_000)
        told = f"of {states} expected {p:.4f} ± {stderr:.4f}, found {found:.4f}"
        assert abs(found - p) < 5 * stderr, told


# %% tags=["solution"]
@draw.solution
def _(u):
    injury, spores = int(u[0] < 0.2), int(u[1] < 0.25)  # the causes first
    return injury, spores, int(u[2] < DECAYED[injury, spores])


# %% [markdown]
# **4. What PCA leaves.** Keep the $k$ principal components of data (one datum a row), map back, and give the mean
# squared error of a datum. The singular values of the centred data are enough: no component has to be written down.

# %%
@exercise("What PCA leaves")
def left_by_pca(data, k):
    """The mean over the rows of the squared distance to their reconstruction."""
    return 0.0  # your answer


@left_by_pca.check
def _(answer):
    rng = np.random.default_rng(0)
    made = rng.standard_normal((40, 6)) @ rng.standard_normal((6, 6)) + 1
    for k in (1, 3, 6):
        pca = PCA(k).fit(made)
        expected = ((made - pca.inverse_transform(pca.transform(made))) ** 2).sum(1).mean()
        found = answer(made, k)
        told = f"scikit-learn gives {expected:.6f} for k = {k}, found {found:.6f}"
        assert abs(found - expected) < 1e-9, told


# %% tags=["solution"]
@left_by_pca.solution
def _(data, k):
    singular = np.linalg.svd(data - data.mean(0), compute_uv=False)
    return (singular[k:] ** 2).sum() / len(data)


# %% [markdown]
# ## What the sources say
#
# - Kingma & Welling (2019), chapter 1, introduce conditionals that are neural networks, directed graphical models, and
#   deep latent-variable models (sections 1.4, 1.5 and 1.7); the factorisation of the claim is in section 1.5.
# - AEVB (Kingma & Welling 2014), section 2.1, states the two-node model: $z$ is drawn from $p(z)$, then $x$ from
#   $p(x|z)$.
# - Blei, Kucukelbir & McAuliffe (2017), section 2, write the same model with $z$ for everything latent.
# - That a linear auto-encoder finds the space of the principal components is due to Baldi & Hornik (1989). None of
#   these papers has the apple's numbers; they are made up, and so small that every result can be checked by hand.
