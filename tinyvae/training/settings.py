"""The settings of a training, which are checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from tinyvae.engine.noise import Noise
from tinyvae.inference.bounds import Draw, check_draw
from tinyvae.nn.optimizers import OPTIMIZERS

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
}
# The settings that say how the bound is estimated; they are also fields of `Draw`.
OF_THE_BOUND = ("bound", "samples", "importance_samples", "gradient", "estimator", "baseline", "free_bits")


def setting(default: Any, words: str) -> Any:
    """A field with its default value and its help text."""
    return field(default=default, metadata={"words": words})


@dataclass(frozen=True)
class Settings:
    """The settings of a training; the text beside each setting explains it."""

    epochs: int = setting(10, "passes over the training data")
    batch: int = setting(100, "data a step")
    optimizer: str = setting("adam", "adam, adagrad, sgd or advi")
    lr: float = setting(1e-3, "learning rate")
    schedule: str = setting("constant", "of the learning rate over the whole run: constant, linear or cosine")
    bound: str = setting("elbo-b", "elbo-b (closed-form KL), elbo-a (all sampled) or iwae (K weighted draws)")
    samples: int = setting(1, "draws of z a datum (L); with iwae, repetitions of its draws")
    importance_samples: int = setting(1, "draws inside the logarithm of iwae (K)")
    gradient: str = setting("path", "of the encoder: path; stl with elbo-a and iwae (biased if K > 1); dreg with iwae")
    estimator: str = setting("", "of the encoder's gradient: reparam, implicit, grep, score; none: the posterior's own")
    baseline: str = setting("none", "of grep and score: none, and from two samples on leave-one-out or fitted")
    beta: float = setting(1.0, "weight of the KL in the objective; the reported bound always has weight 1")
    warmup: float = setting(0.0, "epochs over which the KL's weight rises from 0 to beta")
    free_bits: float = setting(0.0, "nats a latent dimension that the objective does not charge for")
    clip: float = setting(0.0, "largest gradient norm; 0: unbounded")
    weight_prior: bool = setting(False, "a N(0, 1) prior over the weights, as in AEVB section 5")
    data_mean_bias: bool = setting(False, "start the decoder's output bias at the data's mean")
    on_nonfinite: str = setting("stop", "stop, also when training diverges; or skip a batch that is not finite")
    validation: int = setting(0, "data held out of the training part, to choose the best epoch")
    patience: int = setting(0, "stop after so many epochs without a better validation bound; 0: never")
    seed: int = setting(0, "of everything random")

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
            raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}; there are "
                             f"{', '.join(f.name for f in fields(cls))}")
        for f in fields(cls):
            kinds = (int, float) if f.type == "float" else {"int": int, "str": str, "bool": bool}[str(f.type)]
            if f.name in values and not isinstance(values[f.name], kinds):
                raise ValueError(f"found {f.name}={values[f.name]!r}; expected a value of type {f.type}")
        return cls(**values)


def described(indent: str) -> str:
    """The settings as lines of a docstring, each with its default value."""
    return "\n".join(f"{indent}{f.name} = {f.default!r}: {f.metadata['words']}" for f in fields(Settings))
