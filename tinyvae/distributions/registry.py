"""The families and likelihoods by name: a file that registers one makes it a choice everywhere.

    @family("gamma", prior=("gamma", 0.3, 0.3))    its name; as a posterior q(z|x) it goes with the prior p(z) named
    @likelihood("gaussian", pixels="grey")         it is a likelihood p(x|z) for data of this kind

Python, the command line and the property tests read these tables, so nothing else lists a family.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tinyvae.choices import chosen, known
from tinyvae.distributions.base import Distribution
from tinyvae.engine.tensor import Tensor

if TYPE_CHECKING:
    from tinyvae.engine.devices import Namespace

# Where a draw lies, in words; `Distribution.support` is one of these.
SUPPORTS = {
    "real": "any number", "positive": "a number above 0", "unit": "a number from 0 to 1",
    "simplex": "positive numbers whose sum is 1", "binary": "0 or 1", "counts": "0, 1, 2, ...",
    "one-hot": "1 in one place and 0 elsewhere",
}  # fmt: skip
DISCRETE = ("binary", "counts", "one-hot")


class Likelihood(NamedTuple):
    """A likelihood p(x|z): its family, and the kind of data that it takes, one of DATA."""

    family: type[Distribution]
    data: str


# Each kind of data in words, with the kinds of which it is a special case.
DATA = {
    "binary": ("0 and 1", ("grey", "counts", "real")), "grey": ("numbers from 0 to 1", ("real",)),
    "counts": ("whole numbers from 0 on", ("real",)), "real": ("any numbers", ()),
}  # fmt: skip

FAMILIES: dict[str, type[Distribution]] = {}
POSTERIORS: dict[str, Any] = {}  # families that can be q(z|x), and kinds of flows (tinyvae/flows)
PRIORS: dict[str, tuple[Any, ...]] = {}  # of each posterior: the prior's family, then a number for each parameter
LIKELIHOODS: dict[str, Likelihood] = {}
D = TypeVar("D", bound=type[Distribution])


def _check_free(name: str, cls: type, others: dict[str, type], what: str) -> None:
    """ValueError if another class has the name. The same class may come again, as when a notebook's cell is rerun."""
    other = others.get(name, cls)
    if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"found a second {what} of the name {name!r}: {cls.__qualname__} in {cls.__module__}, beside "
                         f"{other.__qualname__} in {other.__module__}; choose another name")


def family(name: str, prior: tuple[Any, ...] | None = None) -> Callable[[D], D]:
    """Register the class below as a family.

    Parameters
    ----------
    name
        By which Python and the command line choose it: "gamma".
    prior
        Makes it a choice as posterior q(z|x): the name of the family of p(z), and the number that each of its
        parameters has in every dimension: ("gamma", 0.3, 0.3). None: it is no posterior.

    Raises
    ------
    ValueError
        If another family has the name, or `support` is none of SUPPORTS.
    """

    def register(cls: D) -> D:
        known(f"the support of {name}", cls.support, SUPPORTS)
        _check_free(name, cls, FAMILIES, "family")
        FAMILIES[name] = cls
        if prior is not None:
            POSTERIORS[name], PRIORS[name] = cls, prior
        return cls

    return register


def likelihood(name: str, pixels: str) -> Callable[[D], D]:
    """Register the class below as a likelihood p(x|z) for data of one kind: "binary", "grey", "counts" or "real"."""
    known(f"the pixels of the likelihood {name}", pixels, DATA)

    def register(cls: D) -> D:
        _check_free(name, cls, {other: row.family for other, row in LIKELIHOODS.items()}, "likelihood")
        LIKELIHOODS[name] = Likelihood(cls, pixels)
        return cls

    return register


def posteriors() -> dict[str, Any]:
    """What can be a posterior q(z|x), by name: families, and kinds of flows."""
    return dict(sorted(POSTERIORS.items()))


def prior_family(posterior: str) -> type[Distribution]:
    """The family of the prior p(z) that goes with a posterior."""
    return FAMILIES[chosen("posterior", posterior, PRIORS)[0]]


def prior_of(posterior: str, latent: int, dtype: Any, xp: Namespace) -> Distribution:
    """The prior p(z) over `latent` dimensions that goes with a posterior."""
    name, *numbers = chosen("posterior", posterior, PRIORS)
    return FAMILIES[name](*(Tensor(xp.full(latent, number, dtype)) for number in numbers))


def misfit(likelihood: str, data: str, name: str = "the data set") -> str:
    """Why data of a kind do not fit a likelihood, as a sentence; "" if they do."""
    wanted, (words, wider) = chosen("likelihood", likelihood, LIKELIHOODS).data, chosen("the kind of data", data, DATA)
    if wanted == data or wanted in wider:
        return ""
    others = [other for other, row in LIKELIHOODS.items() if row.data in (data, *wider)]
    instead = f"; likelihoods that do: {', '.join(others)}" if others else ""
    return f"the likelihood {likelihood} takes {DATA[wanted][0]}, and {name} has {words}{instead}"
