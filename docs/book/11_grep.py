# %% [markdown]
# # 11. G-REP
#
# Chapter 9 needs noise whose law has no parameters. For a Gamma, a Beta or a Dirichlet distribution no simple $g$
# makes such noise into $z$. Chapter 8 needs nothing, and pays with variance. The generalized reparameterization
# gradient takes noise whose law depends on the parameters *a little*, and accounts for what is left. Both earlier
# estimators turn out to be its limits.
#
# ## What you need to know
#
# Chapters 8 and 9: the score $\nabla_v \log q(z; v)$, and the change of variables. For the Gamma distribution with
# shape $a$ and rate $b$: $E[\log z] = \psi(a) - \log b$ and $\mathrm{Var}[\log z] = \psi_1(a)$, where $\psi$,
# $\psi_1$, $\psi_2$ are the derivatives of $\log\Gamma$ (digamma, trigamma, tetragamma).
#
# > **Claim.** Let $z = T(\epsilon; v)$ with an invertible $T$, and let $q_\epsilon(\epsilon; v)$ be the law of
# > $\epsilon = T^{-1}(z; v)$, which may depend on $v$. Let $q_\epsilon\, f(T)$ meet the condition of chapter 8, under
# > which derivative and integral change places. Then
# >
# > $$\nabla_v\, E_{q(z; v)}[f(z)] = \underbrace{E\bigl[h^\top \nabla_z f(z)\bigr]}_{g_{\mathrm{rep}}}
# >   + \underbrace{E\bigl[f(z)\, ( h^\top \nabla_z \log q(z; v)
# >   + \nabla_v \log q(z; v) + u )\bigr]}_{g_{\mathrm{corr}}}$$
# >
# > with $h = \partial T(\epsilon; v) / \partial v$ and
# > $u = \nabla_v \log |\det \partial T(\epsilon; v) / \partial \epsilon|$. If $T$ does not contain $v$, this is BBVI;
# > if $q_\epsilon$ does not contain $v$, this is the reparameterization trick.

# %%
import math

import numpy as np
from scipy import integrate, special, stats

import tinyvae as tv
from tinyvae.distributions import Gamma
from tinyvae.lessons import figures, variance
from tinyvae.lessons.book import drawn, exercise, show
from tinyvae.lessons.estimates import Choice
from tinyvae.lessons.expressions import parse
from tinyvae.lessons.families import member
from tinyvae.pictures.page import INK, TEST, TRAIN, new_figure, plain_axes

# %% [markdown]
# ## A camera that follows
#
# A dancer crosses a stage, and you want to describe how the picture changes. With a camera that stands still you must
# compare whole pictures, everything is change: that is the score. If the dancer were a statue on a trolley, it would
# be enough to know how the trolley moves: that is the reparameterization. A camera that pans and zooms so that the
# dancer stays in the middle, and of the same size, is in between. Nearly all of the change is the motion of the
# camera, which you know exactly ($g_{\mathrm{rep}}$). What is left is how the dancer's posture changes inside the
# frame ($g_{\mathrm{corr}}$). The camera is $T$; in the middle and of the same size means mean 0 and variance 1.
#
# ## The derivation
#
# **The law of the noise.** By the transformation theorem (chapter 9, step 1, read from $z$ to $\epsilon$),
#
# $$q_\epsilon(\epsilon; v) = q(T(\epsilon; v); v)\, J(\epsilon, v), \qquad J = |\det \partial T / \partial \epsilon|.$$
#
# **The expectation over it.** As in chapter 9,
#
# $$E_{q(z; v)}[f(z)] = \int q_\epsilon(\epsilon; v)\, f(T(\epsilon; v))\, d\epsilon.$$
#
# But now $v$ stands in both factors.
#
# **The rule of products** gives two integrals,
#
# $$\nabla_v \int q_\epsilon\, f(T)\, d\epsilon = \int q_\epsilon\, \nabla_v f(T(\epsilon; v))\, d\epsilon
#   + \int f(T)\, q_\epsilon\, \nabla_v \log q_\epsilon(\epsilon; v)\, d\epsilon.$$
#
# **The first** is the path: by the chain rule $\nabla_v f(T(\epsilon; v)) = h^\top \nabla_z f(z)$. Its expectation is
# $g_{\mathrm{rep}}$.
#
# **The second** is the score, of $\epsilon$ and not of $z$. In
#
# $$\log q_\epsilon = \log q(T(\epsilon; v); v) + \log J(\epsilon, v)$$
#
# the parameters occur three times: inside $T$, as parameters of $q$, and in $J$. One derivative for each,
#
# $$\nabla_v \log q_\epsilon(\epsilon; v) = h^\top \nabla_z \log q(z; v) + \nabla_v \log q(z; v) + u,$$
#
# and $f(z)$ times this has the expectation $g_{\mathrm{corr}}$. $\square$
#
# No draws of $\epsilon$ are needed: draw $z \sim q$ as one can, and set $\epsilon = T^{-1}(z; v)$.
#
# ## The lines that compute it
#
# The three derivatives need not be written down. A program holds $\epsilon$ fixed, computes $z$ from it again, and
# lets the reverse walk find all three in $\log q_\epsilon$:
#
# $$\epsilon = T^{-1}(z; \bar v), \qquad z = T(\epsilon; v),
#   \qquad \log q_\epsilon = \log q(z; v) + \log J(\epsilon, v)$$
#
# ```{line} tinyvae/inference/estimators.py
# eps = q.standardise(q.to_stable(z)).detach()
# w = q.unstandardise(eps)
# return MappedDraw(q.from_stable(w), q.log_density(w) + q.log_scale())
# ```
#
# The code works with a function $w$ of $z$ in which no draw underflows (`to_stable`), for the Gamma distribution
# $w = \log z$. `log_density` is the density of $w$, and the two Jacobians, of $z$ by $w$ and of $w$ by $\epsilon$,
# multiply to $J$.
#
# For the Gamma distribution $T^{-1}$ standardises $\log z$, a sufficient statistic:
#
# $$\epsilon = \frac{\log z - (\psi(a) - \log b)}{\sqrt{\psi_1(a)}}$$
#
# ```{line} tinyvae/distributions/gamma.py
# # log z is a sufficient statistic; G-REP standardises it (eq. 11)
# return log_ratio(self.shape, self.rate) - self.slope, self.shape.polygamma(1).sqrt()
# ```
#
# (`slope` is $\log a - \psi(a)$, so the first number is $\psi(a) - \log b$.)
#
# So $\epsilon$ has mean 0 and variance 1 for every $a$ and $b$. Its shape still depends on $a$, a little:

# %% tags=["drawing"]
figure = new_figure(7.2, 2.8)
shapes = ((0.3, TEST, "solid"), (1.0, "#009E73", "dashed"), (3.0, TRAIN, "dashdot"),
          (30.0, INK, "dotted"))
for place, title in enumerate(("density of log z", "density of ε")):
    axes = figure.add_subplot(1, 2, place + 1)
    for a, colour, style in shapes:
        centre, width = special.digamma(a), math.sqrt(special.polygamma(1, a))
        at = np.linspace(-4, 3, 400)
        w = centre + width * at if place else np.linspace(-8, 5, 600)
        density = np.exp(a * w - np.exp(w) - special.gammaln(a))  # of log z, for the rate 1
        axes.plot(at if place else w, density * width if place else density, color=colour,
                  linestyle=style, linewidth=1.6, label=f"a = {a:g}")
    plain_axes(axes, title, x="ε" if place else "log z")
    axes.legend(fontsize=7.5, frameon=False, labelcolor=INK, loc="upper left")
figure.tight_layout()
show(figure, "Left, the densities of log z for four shapes lie far apart and have "
             "different widths. Right, those of the standardised noise nearly coincide, "
             "but for the skewness of the small shapes.")

# %% [markdown]
# ## The formulas against the walk
#
# For $z = e^{\epsilon \sqrt{\psi_1(a)} + \psi(a)} / b$ and the derivative by $a$, the claim's pieces are
#
# $$h = z \left( \frac{\epsilon\, \psi_2}{2 \sqrt{\psi_1}} + \psi_1 \right), \qquad
#   u = \frac{\psi_2}{2 \psi_1} + \frac{\epsilon\, \psi_2}{2 \sqrt{\psi_1}} + \psi_1.$$
#
# We put them into the claim at 1000 draws with $f(z) = z^2$, and let the walk of tinyvae find the same two terms from
# the three lines above.

# %%
count, a, b = 1000, 2.0, 1.5
shape = tv.Tensor(np.full((count, 1), a), requires_grad=True)  # a row for each draw
q = Gamma(shape, tv.Tensor(np.array([b])))
z = q.sample(tv.Noise(0, "chapter 11")).detach()

eps = q.standardise(q.to_stable(z)).detach()
w = q.unstandardise(eps)
log_q_eps = q.log_density(w) + q.log_scale()
walked = [tv.grad((w.exp() ** 2).sum(), shape).numpy(),
          tv.grad((z * z * log_q_eps).sum(), shape).numpy()]

draw, noise = z.numpy()[0], eps.numpy()[0]
psi1, psi2 = special.polygamma(1, a), special.polygamma(2, a)
moved = noise * psi2 / (2 * math.sqrt(psi1)) + psi1
h, u = draw * moved, psi2 / (2 * psi1) + moved
score = np.log(draw) + math.log(b) - special.digamma(a)  # d log q / da
slope = (a - 1) / draw - b  # d log q / dz
written = [h * 2 * draw, draw**2 * (h * slope + score + u)]
for name, one, other in zip(("g_rep", "g_corr"), walked, written, strict=True):
    print(f"{name:<7} largest difference of a draw {np.abs(one - other).max():.1e}, "
          f"largest value {np.abs(other).max():.1f}")

# %% [markdown]
# ## Both limits
#
# **T without v.** With $T(\epsilon) = \epsilon$ we have $h = 0$ and $u = 0$, and what is left is
# $f(z)\, \nabla_v \log q(z; v)$, the score estimate.
#
# **Noise without v.** For $q = N(\mu, \sigma^2)$, standardising gives $\epsilon = (z - \mu)/\sigma \sim N(0, 1)$.
# Then $\nabla_v \log q_\epsilon = 0$, so $g_{\mathrm{corr}} = 0$ draw by draw, and $g_{\mathrm{rep}}$ is the path.
# Both can be seen in single draws, not only in means:

# %%
normal = tv.distributions.Normal(tv.Tensor(np.full((count, 1), 0.7), requires_grad=True),
                                 tv.Tensor(np.full((count, 1), -1.0), requires_grad=True))
z = normal.sample(tv.Noise(1, "chapter 11")).detach()
parameters = [normal.mu, normal.logvar]
eps = normal.standardise(z).detach()
log_q_eps = normal.log_density(normal.unstandardise(eps)) + normal.log_scale()
g_corr = tv.grad((z**2 * log_q_eps).sum(), parameters)
largest = max(np.abs(part.numpy()).max() for part in g_corr)
print(f"noise without v: largest |g_corr| of {count} draws of a normal distribution "
      f"{largest:.1e}")

# T is the identity: nothing moves with v
held = q.to_stable(q.sample(tv.Noise(2, "chapter 11"))).detach()
found = tv.grad((held.exp() ** 2 * q.log_density(held)).sum(), shape).numpy()
draw = held.exp().numpy()[0]
off = np.abs(found - draw**2 * (np.log(draw) + math.log(b) - special.digamma(a))).max()
print(f"T without v: largest difference to z² times the score {off:.1e}")

# %% [markdown]
# ## What each term carries
#
# For $f(z) = z$ and $b = 1$ the gradient by $a$ is 1, and
# $g_{\mathrm{rep}} = a \psi_1(a) + \psi_2(a) / (2 \psi_1(a))$. The larger the shape, the more normal is $\log z$, and
# the less is left to the correction.

# %%
print(f"{'a':>6}{'g_rep':>10}{'g_corr':>10}{'variance, score':>18}{'variance, G-REP':>18}")
rows = [Choice("score"), Choice("grep")]
for a in (0.3, 1.0, 3.0, 30.0):
    psi1, psi2 = special.polygamma(1, a), special.polygamma(2, a)
    path = a * psi1 + psi2 / (2 * psi1)
    exact = variance.exact_variances(member(f"gamma({a}, 1)"), parse("z"), rows, 8, 1201)
    by_score, by_grep = (exact["shape", row] for row in rows)
    print(f"{a:>6g}{path:>10.4f}{1 - path:>10.4f}{by_score:>18.4g}{by_grep:>18.4g}")

# %% [markdown]
# The correction is 0 on average for every $f$ that is a quadratic polynomial in $\log z$, since the expectations of
# $1$, $\epsilon$ and $\epsilon^2$ do not depend on $a$. And it is 0 for the rate, for every $f$: the rate only shifts
# $\log z$, and the standardised noise does not see a shift.
#
# ## Predict, then run
#
# Look at the last two columns for $a = 0.3$. There G-REP loses to the plain score. The table was for $f(z) = z$.
# **For $f(z) = \log z$ and $a = 0.3$, is G-REP better or worse than the score? And for $f(z) = z^2$ and $a = 3$?**

# %% tags=["answer"]
for f, a in (("log(z)", 0.3), ("z**2", 1.0), ("z**2", 3.0)):
    exact = variance.exact_variances(member(f"gamma({a}, 1)"), parse(f), rows, 8, 1201)
    by_score, by_grep = (exact["shape", row] for row in rows)
    print(f"f = {f:<7} a = {a:g}: variance of the score {by_score:.4g}, "
          f"of G-REP {by_grep:.4g}")

# %% [markdown]
# ## Where G-REP loses
#
# The map is made for $\log z$. A function that is nearly quadratic in $\log z$ where $q$ has its mass is easy for it.
# Below shape 1, $\log z$ spreads over many units, and seen from there $z$ and $z^2$ are steep exponential functions.
# A steep step has a large derivative at few draws, whatever the shape. The article presents G-REP as the better
# estimator; the honest statement is that it is better where $f$ varies smoothly over the bulk of $\log z$.

# %%
curves = {}
values = np.geomspace(0.1, 30, 10)
for f in ("z", "sigmoid(8*(z-1))"):
    each = [variance.exact_variances(member(f"gamma({a}, 1)"), parse(f), rows, 8, 1201)
            for a in values]
    curves[f] = [[exact["shape", row] for exact in each] for row in rows]
    by_score, by_grep = map(np.array, curves[f])
    lost = ", ".join(f"{a:.2g}" for a in values[by_grep > by_score])
    print(f"f(z) = {f:<18} G-REP has more variance at the shapes {lost}")

# %% tags=["drawing"]
figure = new_figure(7.2, 2.9)
for place, (f, pair) in enumerate(curves.items()):
    axes = figure.add_subplot(1, 2, place + 1)
    looks = (TEST, "s", "score"), (TRAIN, "o", "G-REP")
    for by, (colour, marker, name) in zip(pair, looks, strict=True):
        axes.plot(values, by, color=colour, marker=marker, markersize=4, linewidth=1.5,
                  label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    plain_axes(axes, f"f(z) = {f}", x="shape a of q",
               y="variance of a draw" if not place else "")
    axes.legend(fontsize=8, frameon=False, labelcolor=INK)
figure.tight_layout()
show(figure, "Variance of a draw of the derivative by the shape. For f = z the curves "
             "cross: at small shapes G-REP has more variance, at large ones far less. For "
             "a steep step they cross at a larger shape.")

# %% [markdown]
# Since then maps with a smaller correction have been found. The one of the sampler itself (rejection sampling
# variational inference) leaves less of it, and implicit reparameterization leaves none. A smaller correction is not
# always a smaller variance, as the rows of G-REP and `implicit` show. `tinyvae variance --q gamma` compares the
# estimators that tinyvae has for a family; here for the shape 2 and $f(z) = e^{-z}$:

# %%
found = variance.of_expectation(member("gamma(2, 1)"), parse("exp(-z)"), draws=40_000)
drawn(figures.side_by_side, found,
      text="Variance of a draw of each estimator by shape and by rate. G-REP and the "
           "implicit estimate are lowest, far below the score with and without baselines.")
by_shape = found.tables[0]
print(f"derivative of E[exp(-z)] by the shape, exactly {by_shape.exact.value:.5f}")
for line in by_shape.lines:
    print(f"{line.name:<31}{line.mean:>9.5f} ± {line.stderr:.5f}   "
          f"variance {line.variance:.5f}")

# %% [markdown]
# ## Exercises
#
# Replace what follows the docstring and run the cell: the check says whether it is right. The solution is folded below.
#
# **1. How a Gamma draw moves.** Write $h = \partial z / \partial a$ at fixed $\epsilon$ for
# $z = e^{\epsilon \sqrt{\psi_1(a)} + \psi(a)}$, by `special.polygamma`.

# %%
def gamma_map(eps, a):
    """T for a Gamma of rate 1."""
    return np.exp(eps * np.sqrt(special.polygamma(1, a)) + special.digamma(a))


@exercise("How a Gamma draw moves")
def by_shape_of(eps, a):
    """dT/da at fixed eps."""
    return gamma_map(eps, a) * special.polygamma(1, a)  # what else depends on a?


@by_shape_of.check
def _(answer):
    for eps, a in ((0.0, 1.0), (1.0, 0.5), (-2.0, 4.0)):
        expected = (gamma_map(eps, a + 1e-6) - gamma_map(eps, a - 1e-6)) / 2e-6
        found = answer(eps, a)
        told = (f"for eps = {eps}, a = {a} a central difference gives {expected:.5f}; "
                f"found {found:.5f}")
        assert abs(found - expected) < 1e-5 * max(1, abs(expected)), told


# %% tags=["solution"]
@by_shape_of.solution
def _(eps, a):
    psi1, psi2 = special.polygamma(1, a), special.polygamma(2, a)
    return gamma_map(eps, a) * (eps * psi2 / (2 * np.sqrt(psi1)) + psi1)


# %% [markdown]
# **2. The part of the path.** By the formula for $h$, compute $g_{\mathrm{rep}} = E[h\, f'(z)]$ for a given $f'$ and
# a Gamma of rate 1, by quadrature over the density of `stats.gamma`.

# %%
@exercise("The part of the path")
def path_part(slope_of_f, a):
    """E[h f'(z)] under Gamma(a, 1)."""
    return 0.0  # your answer


@path_part.check
def _(answer):
    for a in (1.0, 2.0, 5.0):
        psi1, psi2 = special.polygamma(1, a), special.polygamma(2, a)
        of_z = a * psi1 + psi2 / (2 * psi1)
        for name, slope_of_f, expected in (("z", lambda z: 1.0, of_z),
                                           ("log z", lambda z: 1 / z, psi1)):
            found = answer(slope_of_f, a)
            told = f"for f = {name}, a = {a} it is {expected:.6f}; found {found:.6f}"
            assert abs(found - expected) < 1e-6, told


# %% tags=["solution"]
@path_part.solution
def _(slope_of_f, a):
    psi1, psi2 = special.polygamma(1, a), special.polygamma(2, a)

    def integrand(w):  # over w = log z, whose density is z times that of z
        z, eps = math.exp(w), (w - special.digamma(a)) / math.sqrt(psi1)
        h = z * (eps * psi2 / (2 * math.sqrt(psi1)) + psi1)
        return h * slope_of_f(z) * z * stats.gamma(a).pdf(z)

    return integrate.quad(integrand, -30, 6, limit=200)[0]


# %% [markdown]
# **3. A map for the Beta distribution.** Which combination of the sufficient statistics $\log z$ and $\log(1 - z)$ of
# $z \sim \mathrm{Beta}(a, b)$ has the whole line as its range? Standardise it, so that $\epsilon$ has mean 0 and
# variance 1 for all $a$ and $b$.

# %%
@exercise("A map for the Beta distribution")
def beta_noise(z, a, b):
    """eps of z ~ Beta(a, b), for 0 < z < 1."""
    # of z itself; its range depends on a, b
    return (z - a / (a + b)) * math.sqrt((a + b + 1) / (a * b)) * (a + b)


@beta_noise.check
def _(answer):
    for a, b in ((1.0, 1.0), (0.5, 2.0), (4.0, 3.0)):

        def moment(n, a=a, b=b):
            def integrand(t):  # over t = logit z: its density is z (1 - z) times that of z
                z, rest = special.expit(t), special.expit(-t)
                return answer(z, a, b) ** n * stats.beta(a, b).pdf(z) * z * rest

            return integrate.quad(integrand, -60, 30, limit=300)[0]

        first, second = moment(1), moment(2)
        told = f"for a = {a}, b = {b} the mean of eps should be 0, found {first:.4f}"
        assert abs(first) < 1e-5, told
        told = f"for a = {a}, b = {b} the mean of eps² should be 1, found {second:.4f}"
        assert abs(second - 1) < 1e-5, told
        for end, z in ((0, 1e-12), (1, 1 - 1e-12)):
            found = answer(z, a, b)
            told = ("the range of eps should be the whole line: for a = "
                    f"{a}, b = {b} eps near z = {end} should be far out, found {found:.4f}")
            assert abs(found) > 5, told


# %% tags=["solution"]
@beta_noise.solution
def _(z, a, b):
    # the difference of log z and log(1 - z) is the logit, with this mean and this spread
    centre = special.digamma(a) - special.digamma(b)
    spread = math.sqrt(special.polygamma(1, a) + special.polygamma(1, b))
    return (special.logit(z) - centre) / spread


# %% [markdown]
# ## What the sources say
#
# - Ruiz, Titsias & Blei (2016), the G-REP paper: eqs. 5 to 8 are the claim, eq. 11 is the map for the Gamma
#   distribution; and both limits are named. It uses one draw a step, against some thirty of BBVI with Rao-Blackwell
#   and control variate.
# - Its two experiments are run again in `examples/`. On 320 images of faces, a model with 463,800 latents, the training
#   ELBO of G-REP by one draw after 1000 steps
#   is <!--figure gamma-def:rows[setting=G-REP, step 1000].value:,.0f-->-8,586,539<!--/figure--> nats, that of BBVI by
#   thirty draws after 500
#   steps <!--figure gamma-def:rows[setting=BBVI, step 500].value:,.0f-->-12,412,725<!--/figure--> nats (one run each).
#   [The gradient problem, from BBVI to G-REP](../estimators.md) says where ours differ from the paper's.
# - Naesseth, Ruiz, Linderman & Blei (2017) take the map of the rejection sampler; Figurnov, Mohamed & Mnih (2018)
#   differentiate the distribution function.
