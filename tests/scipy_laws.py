"""The distributions of the lessons as SciPy knows them, and what holds draws against its distribution functions."""

import math

from scipy import stats
from support import likely

from tinyvae.lessons.families import drawable

SCIPY = {
    "exponential": lambda rate: stats.expon(scale=1 / rate), "logistic": stats.logistic, "gumbel": stats.gumbel_r,
    "rayleigh": lambda scale: stats.rayleigh(scale=scale), "weibull": lambda k, s: stats.weibull_min(k, scale=s),
    "pareto": lambda k, s: stats.pareto(k, scale=s), "normal": stats.norm, "laplace": stats.laplace,
    "uniform": lambda low, high: stats.uniform(low, high - low),
    "log-normal": lambda mu, sigma: stats.lognorm(sigma, scale=math.exp(mu)),
    "gamma": lambda shape, rate: stats.gamma(shape, scale=1 / rate), "chi-square": stats.chi2, "f": stats.f,
    "beta": stats.beta, "dirichlet": lambda first, *others: stats.beta(first, sum(others)), "cauchy": stats.cauchy,
}  # fmt: skip
LAWS = ["exponential(2)", "logistic(1, 0.5)", "gumbel(-1, 2)", "rayleigh(3)", "weibull(0.7, 2)", "pareto(2.5, 3)",
        "normal(1, 2)", "laplace(1, 0.5)", "uniform(-1, 3)", "log-normal(1, 0.5)", "gamma(4, 0.5)", "chi-square(1)",
        "f(3, 7)", "beta(1, 4)", "dirichlet(1, 2, 3, 4)", "cauchy(-1, 2)"]  # fmt: skip


def drawn(text):
    return drawable(text)[0]


def of_scipy(q):
    return SCIPY[q.family.name](*q.at.values())


def distances(draw, laws=LAWS, count=4000):
    """Kolmogorov and Smirnov's p-value of the draws of each law against SciPy's distribution function."""
    return {text: stats.kstest(draw(drawn(text), count), of_scipy(drawn(text)).cdf).pvalue for text in laws}


def assert_right_law(draw, laws=LAWS):
    p = distances(draw, laws)
    print(p)
    likely("the smallest of all", min(1.0, len(p) * min(p.values())))
