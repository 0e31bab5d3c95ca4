"""What the contract asks of a model of one's own, checked where a mistake first shows: each gets one sentence.

`check_network` is called while `build` runs, `check_declared` after it, and `check_parts` and `check_terms` with the
first two data of a training.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Mapping
from typing import Any

from tinyvae.choices import an, known, whole
from tinyvae.engine.tensor import Tensor
from tinyvae.inference.bounds import Draw, Terms
from tinyvae.models.batch import FIELDS, Batch


def check_network(kind: str, name: Any, inputs: Any, hidden: Collection[Any], family: Any, size: Any,
                  others: Collection[str]) -> None:
    """Raise TypeError or ValueError for arguments of `Model.network` that are none."""
    if not isinstance(name, str) or not name or "." in name or name in others:
        after = f"; this {kind} has {', '.join(others)}" if others else ""
        raise ValueError(f"found a network named {name!r}; expected another name for each, without a dot{after}")
    if not all(hasattr(family, method) for method in ("width", "from_raw")):
        raise TypeError(f"found the family {family!r} of the network {name}; expected a class, such as "
                        "tv.distributions.Normal")
    for width in inputs if isinstance(inputs, (list, tuple)) else [inputs]:
        whole(f"the inputs of the network {name},", width, 1)
    for width in hidden:
        whole(f"a hidden width of the network {name},", width, 1)
    whole(f"the size of the network {name},", size, 1)


def bound_arguments(model: Any, pixels: Any, config: dict[str, Any]) -> dict[str, Any]:
    """The arguments with which `build` is called, with its defaults; TypeError for others than it takes."""
    takes = inspect.signature(model.build)
    try:
        arguments = takes.bind(pixels, **config)
    except TypeError as fault:
        raise TypeError(f"build of {an(model.kind)} has {fault}; it is build{takes}") from None
    if "pixels" not in arguments.arguments and model.has("build"):
        raise TypeError(f"found build{takes} of {an(model.kind)}; expected its first argument to be named pixels")
    arguments.apply_defaults()
    return arguments.arguments


def check_declared(model: Any, networks: Collection[Any]) -> None:
    """Raise TypeError or ValueError for what a model declares in `build` and beside it."""
    kind = model.kind
    if not networks:
        raise TypeError(f"build of {an(kind)} declared no network; expected self.network(name, inputs, hidden, family, "
                        "size) for each")
    if not isinstance(model.needs, (tuple, list)):
        raise TypeError(f"found needs={model.needs!r} of {an(kind)}; expected a tuple of names: needs = (\"y\",)")
    for name in model.needs:
        known(f"needs of {an(kind)} with", name, FIELDS)
    if "given" in model.needs and model.condition is None:
        raise TypeError(f"{an(kind)} needs what is given, and build set no condition; expected it to set "
                        "self.condition, as cvae.py does")
    if {"y", "labelled"} & set(model.needs) and "classes" not in model.config:
        raise TypeError(f"{an(kind)} needs labels, whose number of classes is its option `classes`; expected build to "
                        "take it: def build(self, pixels, classes=10, ...)")


def check_phases(kind: str, phases: Any) -> None:
    """Raise TypeError or ValueError for what `phases` returned, if no training can go through it."""
    if not isinstance(phases, (list, tuple)) or not phases or not all(hasattr(phase, "epochs") for phase in phases):
        raise TypeError(f"found {phases!r:.80} from the phases of {an(kind)}; expected at least one: "
                        "(tv.Phase(name, terms), ...)")
    names = [phase.name for phase in phases]
    if len(set(names)) < len(names):
        raise ValueError(f"found phases {', '.join(map(repr, names))} of {an(kind)}; expected a different name "
                         "for each, under which its state is saved")
    lengths = [phase.epochs is not None for phase in phases]
    if any(lengths) and not all(lengths[:-1]):
        first = names[lengths.index(False)]
        raise ValueError(f"found the phase {first!r} of {an(kind)} without epochs before other phases, which would "
                         "never begin; expected epochs for each but the last, or for none")


def check_phase(phase: Any) -> None:
    """Raise TypeError or ValueError for a `Phase` that is none."""
    if not isinstance(phase.name, str):
        raise TypeError(f"found a phase named {phase.name!r}; expected text")
    if not callable(phase.terms):
        raise TypeError(f"found terms={phase.terms!r:.60} of the phase {phase.name!r}; expected a function of a batch "
                        "and a draw")
    if not isinstance(phase.networks, (list, tuple)):
        raise TypeError(f"found networks={phase.networks!r} of the phase {phase.name!r}; expected a tuple of names: "
                        "(\"encoder\",)")
    if phase.epochs is not None:
        whole(f"epochs of the phase {phase.name!r}", phase.epochs)


def check_parts(model: Any, batch: Batch, draw: Draw) -> None:
    """Raise TypeError unless `posterior` gives a distribution, and `generator` a prior and a function of z that gives
    one; a model that has only one of the two is not asked."""
    if not (model.has("generator") and model.has("posterior")):
        return
    p, q = model.generator(batch), model.posterior(batch)
    if not _is_distribution(q):
        raise TypeError(f"found {type(q).__name__} from the posterior of {an(model.kind)}; expected a distribution, as "
                        "a network gives it: self.encoder(batch.x)")
    for name, right in (("prior", _is_distribution), ("likelihood", callable)):
        if not right(getattr(p, name, None)):
            raise TypeError(f"found {type(p).__name__} from the generator of {an(model.kind)}; expected a prior and a "
                            "function of z that gives p(x|z): tv.Joint(prior, self.decoder)")
    if not callable(getattr(likelihood := p.likelihood(q.sample(draw.noise)), "log_prob", None)):
        raise TypeError(f"found {type(likelihood).__name__} from the likelihood of {an(model.kind)}; expected a "
                        "distribution, as a network gives it")


def _is_distribution(found: Any) -> bool:
    return all(callable(getattr(found, name, None)) for name in ("sample", "log_prob"))


def check_terms(kind: str, terms: Any) -> None:
    """Raise TypeError or ValueError for what `terms` returned, unless it is named tensors, at least one."""
    if not isinstance(terms, Terms) or not terms:
        found = "no term" if isinstance(terms, Terms) else type(terms).__name__
        raise TypeError(f"found {found} from the terms of {an(kind)}; expected tv.Terms(name=tensor, ...)")
    for name, term in (dict(terms) | terms.reported).items():
        if not isinstance(term, Tensor):
            raise TypeError(f"found a term {name!r} of type {type(term).__name__} from {an(kind)}; expected a tensor")
        if term.ndim > 1:
            raise ValueError(f"found a term {name!r} of shape {term.shape} from {an(kind)}; expected (rows,), one "
                             "number for each datum, or () for the whole model")


def check_weights(kind: str, weights: Any, terms: Collection[str], default: Mapping[str, float]) -> None:
    """Raise TypeError or ValueError for weights that are no numbers, of terms that do not exist, or without one for
    the KL, which would be raised with the weight 1."""
    if not isinstance(weights, Mapping):
        raise TypeError(f"found weights={weights!r:.60} of {an(kind)}; expected them by the names of its terms: "
                        "{\"kl\": -1.0}")
    for name, weight in weights.items():
        if name not in terms and name not in default:
            raise ValueError(f"found a weight for {name!r} of {an(kind)}; its terms are {', '.join(terms)}")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
            raise ValueError(f"found the weight {weight!r} for {name!r} of {an(kind)}; expected a finite number")
    for name in default:
        if name in terms and name not in weights:
            raise ValueError(f"found weights of {an(kind)} without {name!r}, one of its terms, which would be raised; "
                             f"name it, too: {{{name!r}: {default[name]}, ...}}")
