"""The settings of a training, which are checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from tinyvae.choices import an
from tinyvae.engine.noise import Noise
from tinyvae.inference.bounds import GRADIENTS, Draw, check_draw
from tinyvae.inference.estimators import BASELINES, MAPS
from tinyvae.models.base import plain_number
from tinyvae.nn.optimizers import OPTIMIZERS

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
}
# The settings that say how the bound is estimated; they are also fields of `Draw`.
OF_THE_BOUND = ("bound", "samples", "importance_samples", "gradient", "estimator", "baseline", "free_bits")
# the types of settings: in Python, and in words
TYPES: dict[str, tuple[Any, str]] = {"int": (int, "a whole number"), "float": ((int, float), "a number"),
                                     "str": (str, "a name"), "bool": (bool, "True or False")}  # fmt: skip


def setting(default: Any, words: str, choices: Iterable[str] = (), later: bool = False) -> Any:
    """A field with its default and its sentence for the help text; {} in it stands for the choices of a registry.

    `later`: a run that goes on can take another value.
    """
    return field(default=default, metadata={"words": words, "choices": choices, "later": later})


def words(f: Any) -> str:
    """The sentence of a setting, with the choices that are registered by now."""
    return str(f.metadata["words"]).format(either(f.metadata["choices"]))


def either(names: Iterable[str]) -> str:
    """"a, b or c", of the names in a registry."""
    *first, last = names or [""]
    return f"{', '.join(first)} or {last}" if first else last


@dataclass(frozen=True)
class Settings:
    """The settings of a training; the text beside each setting explains it."""

    epochs: int = setting(10, "The number of passes over the training data.", later=True)
    batch: int = setting(100, "The number of data in a step.")
    optimizer: str = setting("adam", "The optimizer: {}.", OPTIMIZERS)
    lr: float = setting(1e-3, "The learning rate.", later=True)
    schedule: str = setting("constant", "How the learning rate changes over the run, or over each phase of a run "
                                        "whose phases follow each other: {}.", SCHEDULES, later=True)
    bound: str = setting("elbo-b", "The bound to raise: {}. elbo-b takes the KL in closed form, elbo-a samples it; "
                                   "iwae weighs K draws.", GRADIENTS)
    samples: int = setting(1, "The number of draws of z for each datum (L); with iwae, repetitions of its K draws.")
    importance_samples: int = setting(1, "The number of draws inside the logarithm of iwae (K).")
    gradient: str = setting("path", "The form of the encoder's gradient: {}. stl goes with elbo-a and iwae (biased if "
                                    "K > 1), dreg with iwae.", dict.fromkeys(sum(GRADIENTS.values(), ())))
    estimator: str = setting("", "The estimator of the encoder's gradient: {}. By default the posterior's own.", MAPS)
    baseline: str = setting("none", "What lowers the variance of grep and score, given two samples or more: {}.",
                            [name for name in BASELINES if name != "moving-average"])
    beta: float = setting(1.0, "The weight of the KL in the objective; the reported bound always has weight 1.",
                          later=True)
    warmup: float = setting(0.0, "The number of epochs over which the KL's weight rises from 0 to beta.", later=True)
    free_bits: float = setting(0.0, "The nats of each latent dimension that the objective does not charge for.")
    clip: float = setting(0.0, "The largest norm of a gradient; a longer one is shortened to it. 0 sets no limit.",
                          later=True)
    weight_prior: bool = setting(False, "Give the weights a N(0, 1) prior, as in AEVB section 5.")
    data_mean_bias: bool = setting(False, "Start the decoder's output bias at the mean of the data.")
    on_nonfinite: str = setting("stop", "What to do where a loss or gradient is not finite: stop, or skip the batch. "
                                        "With stop, a training that diverges ends too.", later=True)
    validation: int = setting(0, "The number of training data that are held out to choose the best epoch.")
    labels: int = setting(0, "The number of training labels that are used, the same number of each class; 0 uses all.")
    labelled_batch: int = setting(0, "The number of labelled data in a step, where a model learns from labels; 0 takes "
                                     "as many as of the others.")
    shards: int = setting(1, "The number of parts that each batch is cut into, one for each process of `mpiexec` or "
                             "more; the bits of a run depend on it.")
    patience: int = setting(0, "Stop after this many epochs that are not better on the validation data; 0 never "
                                 "stops.",
                            later=True)
    seed: int = setting(0, "The seed of everything that is random.")

    def __post_init__(self) -> None:
        if faults := [*self._faults(), *check_draw(**self._of_the_bound())]:
            raise ValueError("; ".join(faults))

    def _faults(self) -> Iterator[str]:
        """A sentence for each setting with an invalid value, except those in `OF_THE_BOUND`."""
        for name, ok, need in (
            ("epochs", self.epochs >= 0, "at least 0"),
            ("batch", self.batch >= 1, "at least 1"),
            ("lr", 0 < self.lr < math.inf, "a finite number above 0"),
            ("beta", 0 <= self.beta < math.inf, "a finite number, at least 0"),
            ("warmup", 0 <= self.warmup < math.inf, "a finite number of epochs, at least 0"),
            ("clip", self.clip >= 0, "at least 0"),
            ("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            ("optimizer", self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
            ("on_nonfinite", self.on_nonfinite in ("stop", "skip"), "stop or skip"),
            ("validation", self.validation >= 0, "at least 0"),
            ("labels", self.labels >= 0, "at least 0"),
            ("labelled_batch", self.labelled_batch >= 0, "at least 0"),
            ("shards", self.shards >= 1, "at least 1"),
            ("patience", self.patience >= 0, "at least 0"),
            ("seed", 0 <= self.seed < 2**32, "a whole number from 0 to 4294967295"),
        ):
            if not ok:
                yield f"found {name}={getattr(self, name)}; expected {need}"
        if self.bound == "iwae" and (self.beta != 1 or self.warmup):
            name = "beta" if self.beta != 1 else "warmup"
            yield (f"found {name}={getattr(self, name)} with bound=iwae, which has no separate KL to weight: "
                   f"leave {name} out, or take bound=elbo-b")

    def _of_the_bound(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in OF_THE_BOUND}

    def draw(self, noise: Noise) -> Draw:
        """The `Draw` of these settings, with draws from `noise`."""
        return Draw(noise, **self._of_the_bound())

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """The settings of a dictionary; ValueError for an unknown name or a value of another type."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"found unknown settings: {', '.join(sorted(unknown))}; there are "
                             f"{', '.join(f.name for f in fields(cls))}")
        values = {name: plain_number(value) for name, value in values.items()}
        for f in fields(cls):
            kinds, expected = TYPES[str(f.type)]
            value = values.get(f.name, f.default)
            too_long = isinstance(value, int) and abs(value) >= 2**63
            if not isinstance(value, kinds) or isinstance(value, bool) != (f.type == "bool") or too_long:
                raise ValueError(f"found {f.name}={value!r}; expected {expected}{' below 2^63' if too_long else ''}")
        return cls(**values)


def check_read(model: Any, settings: Settings, read: Collection[str]) -> None:
    """Raise ValueError for a setting that changes nothing: the steps of the model `read` only these fields of a batch
    and of a draw."""
    plain = {f.name: f.default for f in fields(Settings)}
    for name, field_read in {**{name: name for name in OF_THE_BOUND}, "labelled_batch": "labelled"}.items():
        value = getattr(settings, name)
        if value != plain[name] and field_read not in read:
            of = "labelled data" if name == "labelled_batch" else "draws of z that it changes"
            raise ValueError(f"found {name}={value} with {an(model.kind)}, whose steps have no {of}: leave {name} out")


def may_change() -> list[str]:
    """The settings that can have another value in a run that goes on."""
    return [f.name for f in fields(Settings) if f.metadata["later"]]


def described(indent: str) -> str:
    """The settings as lines of a docstring, each with its default."""
    return "\n".join(f"{indent}{f.name} = {f.default!r}: {words(f)}" for f in fields(Settings))
