# %% [markdown]
# # 9. Reparameterization trick
#
# The last chapter asked for the gradient of an expectation by the parameters of its own law, and found an answer that
# wastes most of what we know: the score function never looks at how $f$ changes from one $z$ to the next. This
# chapter moves the parameters out of the law and into a function, where the chain rule can reach them.
#
# ## What you need to know
#
# Substitution in an integral, $\int h(z)\,dz = \int h(g(\epsilon))\,|\det dg/d\epsilon|\,d\epsilon$; the chain rule;
# and what it means that $z$ "has the density $q$". The parameters of $q$ are called $v$ ($\phi$ in chapter 8), for a
# normal distribution $v = (\mu, \sigma)$.
#
# > **Claim.** Let $\epsilon$ have a law $p(\epsilon)$ that does not depend on $v$, and let $z = g(\epsilon; v)$ have
# > the law $q(z; v)$. Then
# >
# > $$E_{q(z; v)}[f(z)] = E_{p(\epsilon)}[f(g(\epsilon; v))], \qquad
# >   \nabla_v\, E_{q(z; v)}[f(z)] = E_{p(\epsilon)}[\nabla_v f(g(\epsilon; v))],$$
# >
# > the second where $f$ and $g$ are smooth enough. So the gradient can be estimated by drawing $\epsilon$ and
# > differentiating $f(g(\epsilon; v))$.

# %%
import math

import numpy as np
from scipy import integrate, stats

import tinyvae as tv
from tinyvae.distributions import Normal
from tinyvae.lessons.book import exercise, show
from tinyvae.lessons.families import drawable
from tinyvae.pictures.page import INK, PALE, TEST, TRAIN, new_figure, plain_axes

# %% [markdown]
# ## A lawn sprinkler
#
# A sprinkler throws each drop at a random angle; how far the drop flies depends on the angle and on the tap. You want
# the flower bed to get more water. One way is to watch where drops land, and to make those more frequent that landed
# well; you learn only from where they landed. The other way is to note the angle of each drop, and to work out how
# much further *this* drop would have flown with the tap a little more open. Each drop then tells you in which
# direction to turn. The angle is $\epsilon$, the tap is $v$, the place where the drop lands is $z$, and how thirsty
# the ground is there is $f(z)$. The trick is to keep the angle fixed while the tap is turned.
#
# ## The same noise, other parameters
#
# The line that does this for a normal distribution is
#
# $$z = \mu + \sigma\,\epsilon, \qquad \epsilon \sim N(0, 1)$$
#
# ```{line} tinyvae/distributions/normal.py
# return self.mu + self.sigma * eps
# ```
#
# The estimate of $E_q[f(z)]$ by 20 draws is then a smooth function of $\mu$, if all $\mu$ share the same 20 values of
# $\epsilon$. With fresh draws at each $\mu$ it has the same expectation, but nothing that one could differentiate.

# %% tags=["drawing"]
def f(z):
    return np.exp(-((z - 1) ** 2))


grid, draws = np.linspace(-1.5, 3.5, 120), 20
rng = np.random.default_rng(1)
eps = rng.standard_normal(draws)
shared = [f(mu + eps).mean() for mu in grid]
fresh = [f(mu + rng.standard_normal(draws)).mean() for mu in grid]
# of a normal density and f, whose variances 1 and 1/2 add up
exact = np.exp(-((grid - 1) ** 2) / 3) / math.sqrt(3)

figure = new_figure(7.2, 2.9)
panels = (fresh, "fresh ε at every μ"), (shared, "the same 20 ε for all μ")
for place, (values, title) in enumerate(panels):
    axes = figure.add_subplot(1, 2, place + 1)
    axes.plot(grid, exact, color=PALE, linewidth=1, label="exact")
    axes.plot(grid, values, color=(TEST, TRAIN)[place], linewidth=1.5,
              label="mean of 20 draws")
    axes.set_ylim(0, 0.85)
    plain_axes(axes, title, x="μ", y="estimate of E[f(z)]" if not place else "")
    axes.legend(fontsize=7.5, frameon=False, labelcolor=INK)
figure.tight_layout()
show(figure, "Two panels. With fresh draws at every mu the estimate jumps up and down "
             "around the exact curve. With the same draws for all mu it is a smooth curve "
             "beside the exact one.")

# %% [markdown]
# ## The proof, step by step
#
# Let $g(\cdot; v)$ be a bijection, differentiable in both directions; write $g^{-1}$ for its inverse.
#
# **Step 1, the transformation theorem.** The mass of a small region stays the same when $g$ carries it elsewhere; its
# volume does not. So the density of $z = g(\epsilon)$ is
#
# $$q(z; v) = p(g^{-1}(z)) \left| \det \frac{d g^{-1}}{dz}(z) \right|.$$
#
# **Step 2.** Put this into the expectation,
#
# $$E_q[f(z)] = \int f(z)\, p(g^{-1}(z)) \left| \det \frac{dg^{-1}}{dz}(z) \right| dz.$$
#
# **Step 3, substitution** of $z = g(\epsilon)$, with $dz = \left| \det \frac{dg}{d\epsilon} \right| d\epsilon$, gives
#
# $$\int f(g(\epsilon))\, p(\epsilon) \left| \det \frac{dg^{-1}}{dz}(g(\epsilon)) \right|
#   \left| \det \frac{dg}{d\epsilon}(\epsilon) \right| d\epsilon.$$
#
# **Step 4.** The derivative of $g^{-1}$ is the inverse matrix of the derivative of $g$ (the inverse function
# theorem), so the product of the two determinants is 1.
#
# **Step 5.** What is left is $\int f(g(\epsilon))\, p(\epsilon)\, d\epsilon = E_{p(\epsilon)}[f(g(\epsilon; v))]$,
# the first half of the claim.
#
# **Step 6.** In this integral $v$ stands in $f(g(\epsilon; v))$ alone. The derivative may be taken under the integral
# if, for almost every $\epsilon$, $f(g(\epsilon; v))$ is continuous near $v$ and differentiable there but for finitely
# many points, and if $|\nabla_v f(g(\epsilon; v))|$ stays, for all these $v$, below one function of $\epsilon$ with a
# finite expectation. This gives the second half. $\square$
#
# ## Each step in numbers
#
# The log-normal distribution has $z = g(\epsilon; \mu, \sigma) = e^{\mu + \sigma \epsilon}$, so
# $g^{-1}(z) = (\log z - \mu) / \sigma$. We take $f(z) = z / (1 + z^2)$, and compute every line of the proof by
# quadrature.

# %%
mu, sigma = 0.4, 0.7
normal, lognormal = stats.norm(), stats.lognorm(sigma, scale=math.exp(mu))


def g(eps, mu=mu, sigma=sigma):
    return np.exp(mu + sigma * eps)


def inverse(z):
    return (np.log(z) - mu) / sigma


def slope_of_inverse(z):
    return 1 / (sigma * z)


def slope(eps):
    return sigma * g(eps)


def f(z):
    return z / (1 + z**2)


def integral(h, low, high):
    return integrate.quad(h, low, high, epsabs=1e-13, limit=200)[0]


z = np.linspace(0.05, 8, 400)
off = np.abs(normal.pdf(inverse(z)) * slope_of_inverse(z) - lognormal.pdf(z)).max()
print(f"step 1  largest difference to SciPy's density on 400 points: {off:.1e}")
steps = {
    "E_q[f]": integral(lambda z: f(z) * lognormal.pdf(z), 0, np.inf),
    "step 2": integral(lambda z: f(z) * normal.pdf(inverse(z)) * slope_of_inverse(z),
                       0, np.inf),
    "step 3": integral(lambda e: f(g(e)) * normal.pdf(e)
                       * slope_of_inverse(g(e)) * slope(e), -12, 12),
    "step 5": integral(lambda e: f(g(e)) * normal.pdf(e), -12, 12),
}
eps = np.linspace(-4, 4, 400)
product = slope_of_inverse(g(eps)) * slope(eps)
print(f"step 4  the product of the slopes lies within {np.abs(product - 1).max():.1e} of 1")
for name, value in steps.items():
    print(f"{name}  {value:.12f}")

# %% [markdown]
# Step 6 says that a derivative by $\mu$ on one side is that on the other. On the left we take a central difference of
# the exact integral; on the right the expectation of $f'(g(\epsilon))\, \partial g / \partial\mu$, with
# $\partial g/\partial\mu = z$ and $\partial g / \partial\sigma = \epsilon z$.

# %%
def slope_of_f(z):
    return (1 - z**2) / (1 + z**2) ** 2


def expectation(mu, sigma):
    return integral(lambda e: f(g(e, mu, sigma)) * normal.pdf(e), -12, 12)


h = 1e-5
for name, left, right in (
    ("mu", (expectation(mu + h, sigma) - expectation(mu - h, sigma)) / (2 * h),
     integral(lambda e: slope_of_f(g(e)) * g(e) * normal.pdf(e), -12, 12)),
    ("sigma", (expectation(mu, sigma + h) - expectation(mu, sigma - h)) / (2 * h),
     integral(lambda e: slope_of_f(g(e)) * e * g(e) * normal.pdf(e), -12, 12)),
):
    print(f"d/d{name:<6} of the expectation {left:.9f}, "
          f"expectation of the derivative {right:.9f}")

# %% [markdown]
# ## The gradient by the tape
#
# Nothing special is needed to use this in a program. A draw is computed from $\mu$ and $\log\sigma^2$ like anything
# else, and the reverse walk goes through it. For the estimators of chapter 11 the trick is the case in which the law
# of the noise has no parameters, so no score is left:
#
# $$\log q_\epsilon(\epsilon; v) = \log p(\epsilon) \quad\text{does not depend on } v$$
#
# ```{line} tinyvae/inference/estimators.py
# """The draw itself, which the family's sampler has already made a differentiable function of the parameters."""
# return MappedDraw(z, None)
# ```
#
# Now $q$ is the normal distribution $N(0.4, 0.7^2)$ itself, with the same $f$:

# %%
count = 100_000
mean, logvar = (tv.Tensor(np.full((count, 1), value), requires_grad=True)
                for value in (0.4, 2 * math.log(0.7)))  # a row for each draw
z = Normal(mean, logvar).sample(tv.Noise(0, "chapter 9"))
# of each draw by its own parameters
slopes = tv.grad((z / (1 + z * z)).sum(), [mean, logvar])
q = stats.norm(0.4, 0.7)


def exact(h):
    """By quadrature, with the derivative of log q and without any g."""
    return integral(lambda z: f(z) * q.pdf(z) * h(z), -9, 9)


scores = {"mu": lambda z: (z - 0.4) / 0.49,
          "logvar": lambda z: 0.5 * ((z - 0.4) ** 2 / 0.49 - 1)}
for found, (name, score) in zip(slopes, scores.items(), strict=True):
    stderr = found.numpy().std(ddof=1) / math.sqrt(count)
    print(f"d/d{name:<7} {found.numpy().mean():.4f} ± {stderr:.4f} by {count:,} draws, "
          f"{exact(score):.4f} exactly")

# %% [markdown]
# ## Three ways to find g
#
# AEVB names three. `tinyvae montecarlo --q NAME` shows sixteen families with their recipe, and holds each against
# draws that use the density alone.
#
# 1. **The inverse distribution function.** If $\epsilon$ is uniform on $(0, 1)$, then $F^{-1}(\epsilon)$ has the
#    distribution function $F$. For the exponential distribution:
#
# $$g(\epsilon; \lambda) = -\log(1 - \epsilon) / \lambda$$
#
# ```{line} tinyvae/lessons/families.py
# INVERSE, "-log(1 - eps) / rate", "uniform", lambda eps, rate: -(-eps[0]).log1p() / rate)
# ```
#
# 2. **Location and scale.** Draw from the standard member of the family, stretch and shift:
#
# $$g(\epsilon; m, s) = m + s\,\epsilon$$
#
# ```{line} tinyvae/lessons/families.py
# recipe(GRADIENT_FAMILIES["normal"], LOCATION_SCALE, "mu + sigma * eps, eps ~ N(0, 1)", "normal",
#        lambda eps, mu, sigma: mu + sigma * eps[0])
# ```
#
# 3. **Composition.** Put together what can be drawn, as $e^{\mu + \sigma\epsilon}$ above:
#
# $$g(\epsilon; \mu, \sigma) = \exp(\mu + \sigma\,\epsilon)$$
#
# ```{line} tinyvae/lessons/families.py
# lambda eps, mu, sigma: (mu + sigma * eps[0]).exp(), heavy=True)
# ```
#
# ## A correction: g need not be a bijection
#
# The proof above needs the inverse of $g$, and the article asks for one. The claim does not: it says only that
# $g(\epsilon; v)$ has the law $q$. The expectation of $f(z)$ is then that of $f(g(\epsilon))$ by what "has the law"
# means (the law of the unconscious statistician). The chi-square distribution with 3 degrees of freedom is the law of
# $\epsilon_1^2 + \epsilon_2^2 + \epsilon_3^2$; this $g$ takes three numbers to one, and has no inverse.

# %%
law, recipe = drawable("chi-square(3)")
z = recipe.draw(law, tv.Noise(0, "chapter 9"), 200_000).numpy()
value, stderr = f(z).mean(), f(z).std(ddof=1) / math.sqrt(len(z))
by_density = integral(lambda z: f(z) * stats.chi2(3).pdf(z), 0, np.inf)
print(f"z is {recipe.formula}")
print(f"E[f(z)] = {value:.4f} ± {stderr:.4f} by {len(z):,} draws of it")
print(f"E[f(z)] = {by_density:.4f} by the density, exactly")

# %% [markdown]
# ## Predict, then run
#
# Let $f(z)$ be 1 for $z > 0$ and 0 otherwise, and $q = N(\mu, 1)$ with $\mu = 0.5$. The expectation is
# $P(z > 0) = \Phi(\mu)$, and its derivative by $\mu$ is the density $\varphi(\mu) \approx 0.352$. **What does the
# reparameterized estimate of this derivative tend to, as the number of draws grows?**

# %% tags=["answer"]
mean = tv.Tensor(np.full((count, 1), 0.5), requires_grad=True)
q = Normal(mean, tv.Tensor(np.array([0.0])))
z = q.sample(tv.Noise(1, "chapter 9"))
f_of_z = z.maximum(0.0) / z  # 1 for z > 0 and 0 otherwise
ways = {"the trick": f_of_z, "the score": f_of_z.detach() * q.log_density(z.detach())}
for name, value in ways.items():
    slopes = tv.grad(value.sum(), mean).numpy()
    print(f"by {name}: {slopes.mean():.4f} ± {slopes.std(ddof=1) / math.sqrt(count):.4f}")
print(f"exactly: {stats.norm.pdf(0.5):.4f}")

# %% [markdown]
# It is 0 for every number of draws. The derivative of $f$ is 0 wherever it exists, and it exists at every draw; the
# whole effect of $\mu$ is that mass crosses the jump, and no single draw sees that. This is the "smooth enough" of
# the claim. The score function needs nothing of $f$. For the same reason the trick is of no use for a discrete $q$:
# $z$ jumps as $v$ moves, so there $g$ is not smooth.
#
# ## Exercises
#
# Replace the line after the docstring and run the cell: the check says whether it is right. The solution is folded
# below.
#
# **1. A power of a uniform number.** Find $g$ for the density $q(z; a) = a z^{a-1}$ on $(0, 1)$ by its inverse
# distribution function.

# %%
@exercise("A power of a uniform number")
def power(eps, a):
    """z with density a z^(a - 1), for eps uniform on (0, 1)."""
    return eps  # your answer


@power.check
def _(answer):
    u = np.linspace(0.05, 0.95, 19)
    for a in (0.5, 2.0, 7.0):
        off = np.abs(stats.powerlaw(a).cdf(answer(u, a)) - u).max()
        told = (f"for a = {a} SciPy's distribution function of g(eps) should be eps; "
                f"found it off by {off:.4f}")
        assert off < 1e-9, told


# %% tags=["solution"]
@power.solution
def _(eps, a):
    return eps ** (1 / a)  # F(z) = z^a


# %% [markdown]
# **2. How a draw moves.** An exponential variate is $z = -\log(1 - \epsilon) / \lambda$. Write
# $\partial z/\partial\lambda$ at fixed $\epsilon$ as a function of $z$ and $\lambda$ alone, without $\epsilon$.

# %%
@exercise("How a draw moves")
def by_rate(z, rate):
    """dz/drate at fixed eps."""
    return 0.0  # your answer


@by_rate.check
def _(answer):
    for u, rate in ((0.1, 0.5), (0.5, 2.0), (0.9, 3.0)):
        high, low = (stats.expon.ppf(u) / (rate + h) for h in (1e-6, -1e-6))
        expected = (high - low) / 2e-6
        found = answer(stats.expon.ppf(u) / rate, rate)
        told = (f"for eps = {u}, rate = {rate} a central difference gives {expected:.5f}; "
                f"found {found:.5f}")
        assert abs(found - expected) < 1e-5, told


# %% tags=["solution"]
@by_rate.solution
def _(z, rate):
    return -z / rate  # the rate only scales z: doubling it halves every draw


# %% [markdown]
# **3. The density by the noise.** Step 1 gives
#
# $$\log q(z) = \log p(\epsilon) - \log |\det dg/d\epsilon|,$$
#
# which a program can compute although it knows only $\epsilon$ and $g$. Do so for $z = m + L \epsilon$ in several
# dimensions, with a lower triangular $L$ of positive diagonal: this is the posterior with a full covariance.

# %%
@exercise("The density by the noise")
def log_density(eps, lower):
    """log q(z) of z = m + lower @ eps, with eps ~ N(0, I), in nats."""
    return -0.5 * (eps @ eps + len(eps) * math.log(2 * math.pi))  # what is missing?


@log_density.check
def _(answer):
    lower, mean = np.array([[2.0, 0.0], [-1.0, 0.3]]), np.array([1.0, -2.0])
    law = stats.multivariate_normal(mean, lower @ lower.T)
    for eps in ([0.0, 0.0], [1.0, -2.0], [0.3, 3.0]):
        expected = law.logpdf(mean + lower @ eps)
        found = answer(np.array(eps), lower)
        told = f"for eps = {eps} SciPy gives {expected:.6f}; found {found:.6f}"
        assert abs(found - expected) < 1e-9, told


# %% tags=["solution"]
@log_density.solution
def _(eps, lower):
    noise = -0.5 * (eps @ eps + len(eps) * math.log(2 * math.pi))
    return noise - np.log(np.diag(lower)).sum()  # the determinant of a triangular matrix


# %% [markdown]
# ## What the sources say
#
# - AEVB, section 2.4, states the trick and the three ways to find $g$; its argument is steps 2 to 5 in one line,
#   $q(z|x) \prod_i dz_i = p(\epsilon) \prod_i d\epsilon_i$. Rezende, Mohamed & Wierstra (2014) found the same
#   independently.
# - Kingma & Welling (2019), section 2.4, use step 1 to compute $\log q(z|x)$ from the noise, as in exercise 3.
# - Figurnov, Mohamed & Mnih (2018) differentiate $F(z; v) = \epsilon$ instead of inverting it:
#   $\partial z / \partial v = -(\partial F / \partial v) / q(z)$. Gamma and Beta draws of tinyvae have their
#   derivatives in this way.
# - The G-REP paper (Ruiz, Titsias & Blei 2016) starts where no such $g$ is at hand: chapter 11.
