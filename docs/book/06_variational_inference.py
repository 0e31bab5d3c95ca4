# %% [markdown]
# # 6. Variational inference
#
# The posterior $p(z|x)$ is what we want, and the last chapter showed that we cannot have it. This chapter asks for
# less: not the posterior, but the distribution nearest to it among those that we can write down. With that, an
# integral becomes a search.
#
# ## What you need to know
#
# The divergence $\mathrm{KL}(q \,\|\, p) = E_q[\log q(z) - \log p(z)]$, which is never negative, 0 only if both are
# equal almost everywhere, and *not* symmetric; the evidence $\log p(x)$; the conjugate pairs of chapter 3.
#
# > **Claim.** Choose a family of distributions and take its member nearest to the posterior,
# >
# > $$q^* = \arg\min_{q} \mathrm{KL}(q(z) \,\|\, p(z|x)).$$
# >
# > The KL itself cannot be computed, but the sum
# >
# > $$\log p(x) = \mathrm{ELBO}(q) + \mathrm{KL}(q \,\|\, p(z|x))$$
# >
# > does not depend on $q$. So the search for the smallest KL is a search for the largest *evidence lower bound*,
# >
# > $$\mathrm{ELBO}(q) = E_q[\log p(x, z) - \log q(z)],$$
# >
# > which needs only $p(x, z)$ and $q$.

# %%
import itertools
import math

import numpy as np
from scipy import stats

import tinyvae as tv
from tinyvae.bayes.conjugate import NormalNormal
from tinyvae.bayes.grid import on_grid
from tinyvae.bayes.mixture import GaussianMixture
from tinyvae.bayes.quadrature import by_quadrature
from tinyvae.bayes.regression import LinearRegression
from tinyvae.distributions import FullNormal, Normal
from tinyvae.inference.ascent import coordinate_ascent, stochastic_ascent
from tinyvae.lessons.book import exercise, show
from tinyvae.pictures.page import INK, LABELS, PALE, TEST, TRAIN, new_figure, plain_axes

# %% [markdown]
# ## A suit off the rack
#
# A tailor can make a suit for exactly your body, but that takes weeks. In a shop hangs a rack of suits, each described
# by two numbers, the size of the jacket and that of the trousers. You try them on, keep the one that pinches least, and
# leave. You never measured your body; trying on was enough to compare two suits. Your body is the posterior, the rack
# is the family, its two numbers are the parameters of $q$, and trying on is the ELBO. A rack that sells jacket and
# trousers separately, without asking how one goes with the other, is the mean field of this chapter. And one encoder
# that guesses your size from a photograph, for everybody who comes in, is the VAE.
#
# ## A real image, while $q$ moves
#
# We take a VAE with a single latent and a test image of a digit, because with one latent everything can be checked:
# the evidence by quadrature (chapter 5), the posterior on a grid (chapter 3). The family is the normal distributions.
# We start at the prior and raise the ELBO by stochastic gradients; `tv.infer` needs the log joint of the network alone.

# %%
data = tv.data.load("digits-static")
vae = tv.VAE(64, hidden=60, latent=1, activation="tanh", dtype="float64")
tv.fit(vae, data, epochs=20, lr=5e-3, quiet=True)
x = np.array(data.test[7] / data.scale, np.float64)
rows = tv.Tensor(x.reshape(1, -1))

network = tv.BayesianNetwork({
    "z": tv.Node(vae.prior),
    "x": tv.Node(vae.likelihood, ("z",)),
})
log_evidence = by_quadrature(vae, rows, 60).log_evidence[0]
grid = np.linspace(-7, 7, 3001)
posterior = on_grid(vae.prior.log_prob,
                    lambda z: vae.likelihood(z).log_prob(tv.Tensor(x)), grid)


def elbo_and_kl(mean, variance):
    """The two parts of log p(x) for q = N(mean, variance), by an integral each."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    z = tv.Tensor((mean + math.sqrt(variance) * nodes).reshape(-1, 1))
    log_p = (vae.prior.log_prob(z) + vae.likelihood(z).log_prob(tv.Tensor(x))).numpy()
    entropy = 0.5 * math.log(2 * math.pi * math.e * variance)
    bound = weights @ log_p / weights.sum() + entropy
    q = stats.norm(mean, math.sqrt(variance))
    ratio = q.logpdf(grid) - np.log(posterior.density)
    return bound, np.trapezoid(q.pdf(grid) * ratio, grid)


stages = {"the prior": (0.0, 1.0)}
for steps in (30, 80, 400):
    start = np.zeros(2)  # mean and log-variance
    found = tv.infer(network.given({"x": x}), {"z": tv.Factor(Normal, (1,), start=start)},
                     samples=8, steps=steps, lr=0.03)
    q = found.q["z"]
    stages[f"{steps} steps"] = float(q.mu.numpy()[0]), float(q.variance.numpy()[0])
mean, logvar = vae.encode(rows.numpy())
stages["the encoder"] = float(mean[0, 0]), math.exp(logvar[0, 0])

print(f"log p(x) = {log_evidence:.4f} nats\n")
print(f"{'q':<14}{'mean':>8}{'variance':>10}{'ELBO':>11}{'KL':>9}{'sum':>11}   nats")
for name, (mean, variance) in stages.items():
    bound, gap = elbo_and_kl(mean, variance)
    print(f"{name:<14}{mean:>8.3f}{variance:>10.3f}"
          f"{bound:>11.4f}{gap:>9.4f}{bound + gap:>11.4f}")

# %% tags=["drawing"]
figure = new_figure(5.9, 2.5)
left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
lowest = min(elbo_and_kl(*stage)[0] for stage in stages.values()) - 1.5
for place, (stage, colour) in enumerate(zip(stages.values(), LABELS[::2], strict=True)):
    bound, gap = elbo_and_kl(*stage)
    left.barh(place, bound - lowest, left=lowest, color=TRAIN, height=0.6)
    left.barh(place, gap, left=bound, color=TEST, height=0.6)
    left.text(log_evidence + 0.15, place, f"{gap:.3f}", fontsize=7.5, va="center")
    right.plot(grid, stats.norm(stage[0], math.sqrt(stage[1])).pdf(grid), color=colour,
               linewidth=1, label=list(stages)[place])
inside = {"color": "white", "fontsize": 8, "va": "center", "ha": "center"}
left.text((elbo_and_kl(0.0, 1.0)[0] + log_evidence) / 2, 0, "KL(q ‖ posterior)", **inside)
left.text((lowest + log_evidence) / 2, 3, "ELBO(q)", **inside)
left.axvline(log_evidence, color=INK, linewidth=1)
left.set_yticks(range(len(stages)), stages)
left.invert_yaxis()
left.set_xlim(lowest, log_evidence + 1.6)
right.plot(grid, posterior.density, color=INK, linewidth=2.2, linestyle=":",
           label="posterior")
right.set_xlim(-6.5, 3.5)
right.legend(fontsize=7, frameon=False, loc="upper left")
plain_axes(left, f"Every bar ends at {log_evidence:.2f}", x="nats; the KL in numbers")
plain_axes(right, "q moves to the posterior", x="z", y="density")
figure.tight_layout()
show(figure, "On the left five bars that all end at the same log p(x), each of a blue ELBO "
             f"and a red KL; the red part is {elbo_and_kl(0.0, 1.0)[1]:.1f} nats for the "
             "prior and vanishes with more steps. On the right the densities of q, the "
             "last of which lie on the posterior.")

# %% [markdown]
# The sum in the last column is the evidence, whatever $q$ is: two integrals of different functions, which add up to a
# third. After enough steps the KL is nearly nothing, because the posterior of this image is nearly normal. The encoder
# was not trained for this image alone. It guesses $q$ for every image, and what it loses against the best normal is
# called the *amortization gap*.
#
# ## Predict, then run
#
# Two latents now, whose posterior is a normal distribution with variances 1 and correlation 0.9. The mean-field
# family has $q(z_1)\,q(z_2)$, independent of each other. The best member has the right means. **Are its variances
# larger than 1, equal to 1, or smaller, and by how much?**

# %% tags=["answer"]
correlation = 0.9
covariance = np.array([[1, correlation], [correlation, 1]])
root = tv.Tensor(np.linalg.inv(np.linalg.cholesky(covariance)).T)


def log_joint(draws):
    """log N(z; 0, covariance) up to a constant, for z (samples, 2)."""
    whitened = draws["z"] @ root
    return -0.5 * (whitened * whitened).sum(-1)


best = {}
for name, family in (("mean field", Normal), ("full covariance", FullNormal)):
    found = tv.infer(log_joint, {"z": tv.Factor(family, (2,))}, samples=16, steps=600,
                     lr=0.03)
    best[name] = found.q["z"]
    print(f"{name:<16} variances {np.round(best[name].variance.numpy(), 3)}")

# %% [markdown]
# Smaller, and far: the best ones are $1 - \rho^2 = 0.19$, and the search comes near them. With the covariance in the
# family they come out near 1. $\mathrm{KL}(q \,\|\, p)$ is an expectation under $q$, so $q$ is punished for being where
# $p$ is not, and not for being absent where $p$ is. A product that were as wide as the marginals would lie half outside
# the narrow ridge, so the best one shrinks until little of it lies outside. The variance that it reports is that of
# $z_1$ when $z_2$ is *known*. Whoever reads a mean-field variance as "how sure we may be of $z_1$" is too sure. (Of
# $z_1 - z_2$ it is less sure than it could be: the variance is $2\,(1 - \rho^2) = 0.38$ under $q$, and
# $2\,(1 - \rho) = 0.20$ under the posterior.)

# %% tags=["drawing"]
angle = np.linspace(0, 2 * math.pi, 200)
circle = np.stack([np.cos(angle), np.sin(angle)])
figure = new_figure(6.4, 2.7)
axes = figure.add_subplot()
for radius in (1, 2):
    ridge = radius * np.linalg.cholesky(covariance) @ circle
    axes.plot(*ridge, color=INK, linewidth=2, linestyle=":",
              label="posterior" if radius == 1 else None)
    product = radius * np.sqrt(1 - correlation**2) * circle
    axes.plot(*product, color=TEST, label="best product" if radius == 1 else None)
axes.set_aspect("equal")
plain_axes(axes, "One and two standard deviations", x="z₁", y="z₂")
axes.legend(fontsize=8, frameon=False)
figure.tight_layout()
show(figure, "Two long tilted ellipses of the posterior, and two circles of the best "
             "product of independent normals, far shorter than the ellipses, which reach "
             "a little over their long sides.")

# %% [markdown]
# ## Coordinate ascent
#
# How is the best product found? One factor at a time. Hold all others fixed. As $\log p(x, z)$ is
# $\log p(z_j \mid z_{\text{others}}, x)$ plus what does not contain $z_j$, the ELBO as a function of $q_j$ is
#
# $$E_{q_j}\bigl[E_{\text{others}}[\log p(z_j \mid z_{\text{others}}, x)]\bigr] - E_{q_j}[\log q_j(z_j)]
#   + \text{const},$$
#
# and this is $-\mathrm{KL}(q_j \,\|\, q_j^*)$ plus a constant, with
#
# $$q_j^*(z_j) \propto \exp E_{\text{others}}[\log p(z_j \mid z_{\text{others}}, x)] .$$
#
# So $q_j^*$ is the best factor, and the ELBO can only rise. If the model is *conditionally conjugate*, that is, if each
# $p(z_j | z_{\text{others}}, x)$ belongs to one exponential family, $q_j^*$ is a known distribution and the step is one
# of the additions of chapter 3. The example of Blei's review is a mixture of Gaussians whose means are unknown, too:
# $\mu_k \sim N(0, v I)$, each datum of $d$ numbers belongs to one of $K$ components, each with the probability $1/K$,
# and $x_i \sim N(\mu_{c_i}, I)$. The best $q(c_i)$ has the probabilities
#
# $$\phi_{ik} \propto \exp\bigl(x_i^\top m_k - \tfrac12 (d\, s_k + m_k^\top m_k)\bigr)$$
#
# ```{line} tinyvae/bayes/mixture.py
# logits = self.x[rows] @ q.mean.T - 0.5 * (d * q.variance + (q.mean**2).sum(1))
# ```
#
# and the best $q(\mu_k) = N(m_k, s_k I)$ is the normal pair of chapter 3, in which the datum $i$ counts as
# $\phi_{ik}$ of a datum:
#
# $$\frac1{s_k} = \frac1v + \sum_i \phi_{ik}, \qquad \frac{m_k}{s_k} = \sum_i \phi_{ik}\, x_i$$
#
# ```{line} tinyvae/bayes/mixture.py
# precision = (1 - rate) / q.variance + rate * (1 / self.prior_variance + weight * phi.sum(0))
# shifted = (1 - rate) * q.mean / q.variance[:, None] + rate * weight * (phi.T @ self.x[rows])
# ```
#
# (For a whole step `rate` is 1 and `weight` is 1. The rest of the line is for the section on stochastic
# variational inference.)

# %%
rng = np.random.default_rng(0)
centres = np.array([[-5.0, 2.0], [-5.0, -2.0], [5.0, 2.0], [5.0, -2.0]])
points = centres[rng.integers(0, 4, 200)] + rng.standard_normal((200, 2))
model = GaussianMixture(points, components=4, prior_variance=100.0)
fits = [coordinate_ascent(model, seed=seed) for seed in (0, 2, 3, 4, 5)]
for number, fit in enumerate(fits, 1):
    gains = np.diff(fit.elbo)
    print(f"start {number}: ELBO {fit.elbo[0]:>9.2f} -> {fit.elbo[-1]:.2f} nats, "
          f"{len(gains):>2} sweeps; the smallest gain of one {gains.min():.0e}")
ends = np.array([one.elbo[-1] for one in fits])
for name, one in (("highest", fits[ends.argmax()]), ("lowest", fits[ends.argmin()])):
    sizes = np.bincount(model.responsibilities(one.q).argmax(1), minlength=4)
    print(f"at the {name} ELBO the four means serve {', '.join(map(str, sizes))} data")
slow = coordinate_ascent(model, seed=1).elbo
print(f"left out, as its curve is so long: seed 1, {len(slow) - 1} sweeps to {slow[-1]:.2f}")

# %% tags=["drawing"]
fit = max(fits, key=lambda one: one.elbo[-1])
figure = new_figure(5.9, 2.5)
left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
which = model.responsibilities(fit.q).argmax(1)
for k, marker in enumerate("os^D"):
    left.scatter(*points[which == k].T, s=7, marker=marker, color=LABELS[2 * k])
left.scatter(*fit.q.mean.T, s=90, marker="+", color=INK, linewidth=2)
for number, (one, style) in enumerate(zip(fits, ("-", "--", "-", "--", ":"), strict=True)):
    right.plot(one.elbo, style, linewidth=1.4, color=LABELS[2 * number],
               label=f"start {number + 1}")
right.set_xscale("symlog", linthresh=10, linscale=2)
right.set_xticks([0, 2, 4, 6, 8, 10, 20, 40])
right.xaxis.set_major_formatter("{x:g}")
right.minorticks_off()
right.set_xlim(-0.5, max(len(one.elbo) for one in fits))
right.legend(fontsize=7.5, frameon=False, loc="lower right")
plain_axes(left, "200 data; the crosses are means of q(μ)", x="x₁", y="x₂")
plain_axes(right, "The ELBO never falls", x="sweeps", y="nats")
figure.tight_layout()
show(figure, "On the left four clouds of points with a cross in the middle of each. On the "
             f"right {len(fits)} curves of the ELBO, none of which ever falls; "
             f"{np.sum(ends > ends.max() - 1)} of them end at the highest value.")

# %% [markdown]
# (The starts are the seeds 0, 2, 3, 4 and 5.) No sweep lowers the ELBO beyond rounding; the smallest gain is that of
# the last sweep. Not all starts end at the same value: some stay far below the others, at another optimum. There one
# mean serves two clouds, and three means share the two others, as the lines of the highest and the lowest ELBO show.
# The start that is left out ends lower still. The ELBO of a mixture has many optima, so one tries several starts, and
# the ELBO says which is best.
#
# ## Against the exact answer
#
# For few data the evidence can be computed after all, by a sum over all $K^n$ assignments of data to components. With
# $K = 2$ and 10 data these are 1024 terms, each with the evidence of a normal pair (chapter 3) for each component:

# %%
few = np.concatenate([rng.normal(-4, 1, 4), rng.normal(4, 1, 6)])
prior_of_a_mean = NormalNormal(0.0, 16.0, noise=1.0)
terms = []
for assignment in itertools.product((False, True), repeat=len(few)):
    second = np.array(assignment)
    terms.append(len(few) * math.log(0.5) + prior_of_a_mean.log_evidence(few[second])
                 + prior_of_a_mean.log_evidence(few[~second]))
exact = np.logaddexp.reduce(terms)
small = GaussianMixture(few.reshape(-1, 1), components=2, prior_variance=16.0)
bound = max(coordinate_ascent(small, seed=seed).elbo[-1] for seed in range(4))
print(f"log p(x) = {exact:.4f} nats, best ELBO {bound:.4f}, gap {exact - bound:.4f}")
print(f"log 2 = {math.log(2):.4f} nats, from which the gap differs by "
      f"{abs(exact - bound - math.log(2)):.0e}")

# %% [markdown]
# The gap is $\log 2$, but for the small difference in the last line. The posterior has two equal modes, since the names
# of the components can be exchanged, and the product $q$ sits in one of them. Its bound counts half of the mass. Again
# $q$ avoids where $p$ is not: between the modes there is nothing.
#
# ## Stochastic variational inference
#
# A sweep reads all data before it changes anything. With a million data that is wasteful at the beginning, when any
# hundred would say where to go. The *natural gradient*, in which the length of a step is measured by the KL between the
# two $q$ and not by their parameters, is simple: with respect to the natural parameters $\lambda$ of $q(\mu)$, which
# are $m_k / s_k$ and $1 / s_k$ here, it is $\lambda^* - \lambda$, the way to the coordinate step. A batch of $B$ data
# drawn at random, all with the same probability, and each counted $n / B$ times, gives an unbiased estimate of
# $\lambda^*$, and a step goes a part of the way:
#
# $$\lambda \leftarrow (1 - \rho_t)\,\lambda + \rho_t\, \hat\lambda^*, \qquad \rho_t = (t + t_0)^{-\kappa}, \qquad
# \tfrac12 < \kappa \le 1$$
#
# ```{line} tinyvae/inference/ascent.py
# q = model.step(q, rows, (t + delay) ** -kappa)
# ```

# %%
count = 20_000
triangle = np.array([[-3.0, 0.0], [2.0, 2.5], [2.5, -2.5]])
drawn = triangle[rng.integers(0, 3, count)] + rng.standard_normal((count, 2))
many = GaussianMixture(drawn, components=3)
start = many.start(2)
sweeps = coordinate_ascent(many, sweeps=8, start=start)
batches = stochastic_ascent(many, steps=150, batch=100, start=start)
for read in (0.05, 0.25, 0.5):
    step = round(read * count / 100)
    print(f"after {read:.0%} of the data: stochastic {batches.elbo[step] / count:.4f} "
          "nats per datum; a sweep is not finished")
falls = np.diff(batches.elbo) < 0
print(f"{falls.sum()} of {len(falls)} stochastic steps lowered the ELBO")
for number in (1, 2, 8):
    print(f"after {number} sweep{'s' * (number > 1)}: {sweeps.elbo[number] / count:.4f}")

# %% tags=["drawing"]
figure = new_figure(6.4, 2.5)
axes = figure.add_subplot()
axes.plot(np.arange(len(batches.elbo)) * 100, batches.elbo / count, color=TEST, linewidth=1,
          label="stochastic, 100 data a step")
axes.plot(np.arange(1, 9) * count, sweeps.elbo[1:] / count, "o-", color=TRAIN, markersize=4,
          label="coordinate ascent, all data a sweep")
axes.axhline(sweeps.elbo[-1] / count, color=PALE, linewidth=0.8, linestyle="--")
axes.set_xscale("log")
axes.set_ylim(bottom=min(sweeps.elbo[1], batches.elbo[5]) / count - 0.05)
plain_axes(axes, "The same optimum, from fewer data", x="data read",
           y="ELBO, nats per datum")
axes.legend(fontsize=8, frameon=False, loc="center")
figure.tight_layout()
show(figure, "The ELBO against the number of data read, on a logarithmic axis. The "
             "stochastic curve rises at once and is near the optimum before the first "
             "sweep over all 20,000 data ends; the curve of the sweeps arrives later.")

# %% [markdown]
# A stochastic step may lower the ELBO, and some do. This is the form in which variational inference meets
# large data, and the VAE is trained like this: by batches, each counted as if it were the whole.
#
# ## A regression, and a posterior that is no product
#
# One more conditionally conjugate model, for $n$ data: $y_i = x_i^\top w + \text{noise}$, with noise $N(0, 1/\tau)$,
# the prior $N(0, v I)$ of the weights $w$ and the prior $\mathrm{Gamma}(a_0, b_0)$ of the noise's precision $\tau$.
# Given one, the other has a conjugate posterior; together they are entangled. With $q(w) = N(m, S)$ and
# $q(\tau) = \mathrm{Gamma}(a, b)$, so that $E[\tau] = a / b$, the two steps are
#
# $$\begin{gathered}
#   S^{-1} = \frac1v I + E[\tau]\, X^\top X, \qquad S^{-1} m = E[\tau]\, X^\top y, \\
#   a = a_0 + \tfrac n2, \qquad b = b_0 + \tfrac12 E|y - X w|^2
# \end{gathered}$$
#
# and these are the lines of $q(w)$, which also serve a batch (`rate`, `seen`):
#
# ```{line} tinyvae/bayes/regression.py
# inverse = (1 - rate) * old + rate * (prior + seen * (x.T @ x))
# shifted = (1 - rate) * (old @ q.mean) + rate * seen * (x.T @ y)
# ```
#
# As $w$ can be integrated out for every $\tau$, the exact posterior of $\tau$ fits on a grid:

# %%
inputs = np.column_stack([np.ones(12), rng.standard_normal(12)])
outputs = inputs @ [0.5, -1.0] + 0.4 * rng.standard_normal(12)
regression = LinearRegression(inputs, outputs)
fit = coordinate_ascent(regression)


def log_p_of_outputs(precision):
    """log p(y | tau), with w integrated out, for tau (points, 1)."""
    return np.array([stats.multivariate_normal(
        np.zeros(12), np.eye(12) / tau + inputs @ inputs.T).logpdf(outputs)
        for tau in precision.numpy()[:, 0]])


exact = on_grid(tv.distributions.Gamma(tv.Tensor([1.0]), tv.Tensor([1.0])).log_prob,
                log_p_of_outputs, np.linspace(0.01, 12, 240))
q_variance = fit.q.shape / fit.q.rate**2
print(f"ELBO {fit.elbo[-1]:.4f} nats after {len(fit.elbo) - 1} sweeps, "
      f"log p(y) {exact.log_evidence:.4f}, gap {exact.log_evidence - fit.elbo[-1]:.4f}")
print(f"E[tau]:   q {fit.q.precision:.3f}, exactly {exact.mean:.3f}")
print(f"Var[tau]: q {q_variance:.3f}, exactly {exact.variance:.3f}, "
      f"ratio {q_variance / exact.variance:.2f}")

# %% [markdown]
# The bound lies close below the evidence; the gap in the first line is what the product costs. The means nearly agree.
# The variance of $\tau$ comes out too small, as with the two latents above, but less so: compare the ratio in the last
# line with the $1 - \rho^2$ of that section. $w$ and $\tau$ are not much entangled.
#
# ## From here to the VAE
#
# Three things of this chapter do not carry over to a neural network: the coordinate step in closed form, because the
# decoder is conjugate to nothing; a $q$ for each datum, which costs too much with many data; and the natural gradient,
# which came with the exponential family. The VAE replaces the first and the third by plain stochastic gradients of the
# ELBO (chapters 8 to 11), and the second by one encoder network, which maps any $x$ to the parameters of its $q(z|x)$.
# Before that, the ELBO deserves a chapter of its own.
#
# ## Exercises
#
# Replace the line after the docstring and run the cell: the check says whether it is right. The solution is folded
# below.
#
# **1. Not symmetric.** Write $\mathrm{KL}(q \,\|\, p)$ of two discrete distributions, with $0 \log 0 = 0$. Which is
# larger for $q = (1/2, 1/2, 0)$ and $p = (1/3, 1/3, 1/3)$: $\mathrm{KL}(q \,\|\, p)$ or $\mathrm{KL}(p \,\|\, q)$?

# %%
@exercise("Not symmetric")
def divergence(q, p):
    """KL(q || p) in nats, for two arrays of probabilities."""
    return float(np.abs(q - p).sum())  # your answer


@divergence.check
def _(answer):
    q, p = np.array([0.5, 0.5, 0.0]), np.full(3, 1 / 3)
    found = answer(q, p)
    told = f"expected log 1.5 = 0.4055, found {found:.4f}"
    assert abs(found - math.log(1.5)) < 1e-12, told
    found = answer(p, q)
    assert found == math.inf, f"p is where q is not: expected infinity, found {found:.4f}"
    rng = np.random.default_rng(0)
    for _ in range(5):
        q, p = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(4))
        expected, found = stats.entropy(q, p), answer(q, p)
        told = f"SciPy gives {expected:.6f}, found {found:.6f}"
        assert abs(found - expected) < 1e-12, told


# %% tags=["solution"]
@divergence.solution
def _(q, p):
    there = q > 0
    with np.errstate(divide="ignore"):
        return float((q[there] * np.log(q[there] / p[there])).sum())


# %% [markdown]
# **2. The variances of the best product.** The posterior is $N(m, \Sigma)$ in $d$ dimensions. Of which matrix, and how,
# do you read the variances of the best $\prod_j N(z_j; m_j, v_j)$? (Write the KL of two normals, and set its derivative
# by $v_j$ to 0. For two latents with correlation $\rho$ it must give $1 - \rho^2$.)

# %%
@exercise("The variances of the best product")
def variances(covariance):
    """The variances v (d,) of the mean-field q nearest to N(m, covariance)."""
    return np.diag(covariance)  # your answer


@variances.check
def _(answer):
    rng = np.random.default_rng(1)
    for d in (2, 4):
        root = rng.standard_normal((d, d))
        covariance = root @ root.T + 0.2 * np.eye(d)

        def kl(v, covariance=covariance, d=d):
            inverse = np.linalg.inv(covariance)
            _, log_det = np.linalg.slogdet(covariance)
            return 0.5 * ((np.diag(inverse) * v).sum() - d + log_det - np.log(v).sum())

        found = np.asarray(answer(covariance), float)
        told = f"a variance is above 0; found {found}"
        assert (found > 0).all(), told
        for j, factor in itertools.product(range(d), (0.99, 1.01)):
            other = found.copy()
            other[j] *= factor
            told = (f"found v = {found.round(4)}; with v_{j} times {factor} the KL is smaller, "
                    "so these are not the best")
            assert kl(other) > kl(found), told


# %% tags=["solution"]
@variances.solution
def _(covariance):
    return 1 / np.diag(np.linalg.inv(covariance))  # of each when all others are known


# %% [markdown]
# **3. A sweep by hand.** Write one sweep of coordinate ascent for the mixture in one dimension, with equal weights and
# the variance 1 of each component: first all $\phi_{ik}$, then $m_k$ and $s_k$.

# %%
@exercise("A sweep by hand")
def sweep(x, m, s, v):
    """The new (m, s), each (K,), from data x (n,), the old m and s, and the variance v of
    the prior of the means."""
    return m, s  # your answer


@sweep.check
def _(answer):
    x = np.array([-2.0, -1.5, 0.3, 1.9, 2.2])
    m, s = np.array([-0.5, 0.7]), np.array([0.4, 0.9])
    mixture = GaussianMixture(x.reshape(-1, 1), 2, prior_variance=4.0)
    start = mixture.start(0)._replace(mean=m.reshape(-1, 1), variance=s)
    expected = mixture.step(start)
    found = answer(x, m, s, 4.0)
    told = (f"expected means {expected.mean[:, 0].round(4)}, variances "
            f"{expected.variance.round(4)}; found {np.round(found[0], 4)} and "
            f"{np.round(found[1], 4)}")
    assert np.allclose(found[0], expected.mean[:, 0], atol=1e-9), told
    assert np.allclose(found[1], expected.variance, atol=1e-9), told


# %% tags=["solution"]
@sweep.solution
def _(x, m, s, v):
    logits = np.outer(x, m) - 0.5 * (s + m**2)
    phi = np.exp(logits - logits.max(1, keepdims=True))
    phi /= phi.sum(1, keepdims=True)
    s = 1 / (1 / v + phi.sum(0))
    return s * (phi.T @ x), s


# %% [markdown]
# **4. A part of the way.** $q = N(m, s)$ for an unknown mean of data $N(\theta, 1)$ with the prior $N(0, v)$. Make one
# stochastic step of length $\rho$ by a batch, which stands for all $n$ data. Average the natural parameters
# $m / s$ and $1 / s$, not $m$ and $s$.

# %%
@exercise("A part of the way")
def stochastic_step(m, s, batch, n, rho, v):
    """The new (m, s) after a step by the data `batch` of n."""
    return m, s  # your answer


@stochastic_step.check
def _(answer):
    data = np.array([0.5, 1.5, -0.2, 2.2])
    mixture = GaussianMixture(data.reshape(-1, 1), 1, prior_variance=3.0)
    start = mixture.start(0)._replace(mean=np.array([[0.4]]), variance=np.array([0.8]))
    for rows, rho in (([0, 3], 0.25), ([0, 1, 2, 3], 1.0)):
        expected = mixture.step(start, np.array(rows), rho)
        found = answer(0.4, 0.8, data[rows], 4, rho, 3.0)
        wanted = expected.mean[0, 0], expected.variance[0]
        told = (f"for m = 0.4, s = 0.8, the batch {data[rows].tolist()} of n = 4 data, "
                f"rho = {rho} and v = 3 expected the new m = {wanted[0]:.5f}, "
                f"s = {wanted[1]:.5f}; found {np.round(found, 5)}")
        assert np.allclose(found, wanted, atol=1e-9), told


# %% tags=["solution"]
@stochastic_step.solution
def _(m, s, batch, n, rho, v):
    precision = (1 - rho) / s + rho * (1 / v + n)
    shifted = (1 - rho) * m / s + rho * n * np.mean(batch)
    return shifted / precision, 1 / precision


# %% [markdown]
# ## What the sources say
#
# - Blei, Kucukelbir & McAuliffe (2017) is this chapter: the search for the nearest member (eq. 10), the ELBO (eq. 13),
#   mean field and its too small variances (section 2.3, their figure 1), the best factor (eq. 17), the mixture
#   (section 3.1) and stochastic variational inference (section 4.3).
# - Hoffman, Blei, Wang & Paisley (2013) derive the natural gradient $\lambda^* - \lambda$ and the step sizes.
# - AEVB (Kingma & Welling 2014), section 2.1, says why none of this serves a neural network: the expectations that a
#   coordinate step needs have no closed form.
# - `tv.infer` needs no more of a model than $\log p(x, z)$ as a function, as the black box variational inference of
#   Ranganath, Gerrish & Blei (2014) does. They use the score, for which its values are enough; here the gradient is the
#   reparameterized one, which also differentiates it by $z$ (chapters 8 to 11).
