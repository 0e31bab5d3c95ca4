"""The contract of models: training, evaluation, run folders, pictures and the command line use only what stands here.

A model is a generative model p(x, z) and an inference model q(z|x). A model with one latent variable defines

    generator(batch)    the prior p(z) and the likelihood p(x|z), given the labels or conditions of the batch
    posterior(batch)    q(z|x)

and the base class derives the rest: the terms of the bound that training maximises, log p(x, z) - log q(z|x) for the
evidence, and the images for pictures. Any other model defines `terms` itself, and `log_weights` if they exist.

A subclass is registered under its `kind`, by default its class name in lower case. A run folder stores the kind, from
which `build_model` builds the model again.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinyvae.choices import an, array_of, chosen, whole
from tinyvae.data import DataSet, ways_to_label
from tinyvae.data.checks import check_range
from tinyvae.distributions import LIKELIHOODS, Distribution, misfit
from tinyvae.engine.devices import Namespace, floating, namespace, read
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.inference.bounds import Draw, Generator, Terms, terms_of
from tinyvae.models.batch import Batch
from tinyvae.models.contract import bound_arguments, check_declared, check_network, check_phase
from tinyvae.nn.layers import Parameters
from tinyvae.nn.network import Matrix, Network

MODELS: dict[str, type[Model]] = {}  # by kind

# The arguments of a model's `build` that the data set gives, each by a function of the data set or of its outline.
FROM_DATA: dict[str, Callable[[Any], Any]] = {
    "pixels": lambda data: math.prod(data.shape), "shape": lambda data: list(data.shape),
    "classes": lambda data: data.classes, "likelihood": lambda data: data.likelihood,
    "counts": lambda data: getattr(LIKELIHOODS.get(data.likelihood), "data", "") == "counts",
}  # fmt: skip


@dataclass(frozen=True)
class Phase:
    """A part of the training that has terms and parameters of its own.

    Phases with a number of `epochs` follow each other. Phases without one alternate from step to step.

    Attributes
    ----------
    name : the name of its optimizer's state in a checkpoint; "" for a model with one phase
    terms : a function of a batch and a `Draw` that returns the terms that the phase maximises
    networks : the networks whose parameters it trains, neighbours in the flat vector; () trains all parameters
    epochs : the number of epochs, or None; None for the last phase stands for all remaining epochs
    chains : whether its terms take draws of p(z|x) from Markov chains, in `Draw.z` (training/mcem.py)
    """

    name: str
    terms: Callable[[Batch, Draw], Terms]
    networks: tuple[str, ...] = ()
    epochs: int | None = None
    chains: bool = False

    def __post_init__(self) -> None:
        check_phase(self)


class Model:
    """Base of all models. A subclass declares its networks in `build`.

    Parameters
    ----------
    pixels
        The number of pixels of a datum.
    init, seed, dtype, device
        The initial weights (`glorot`, or `aevb` for N(0, 0.01^2)) and the seed of their draws; float32 or float64;
        `cpu` or `cuda`.
    **config
        The arguments of `build`.

    Attributes
    ----------
    parameters : all learned parameters, as views of one flat vector
    config : the configuration from which `build_model(config)` builds the model again
    """

    kind: ClassVar[str]
    needs: tuple[str, ...] = ()  # the fields of `Batch` that the model reads besides x
    weights: Mapping[str, float] = {"kl": -1.0}  # the weights of terms in the objective; 1 for all others
    copies: int = 1  # of the rows of a batch in a step, as where it sums over classes; each draw of z makes more
    bound: tuple[str, ...] = ()  # the terms whose weighted sum is the bound on log p(x); () if all of them
    goal: ClassVar[str] = "ELBO"  # what that sum is; another name says that it bounds no log p(x)
    options: ClassVar[Mapping[str, str]] = {}  # arguments of `build` that are options of `train`, with a sentence each
    defaults: ClassVar[Mapping[str, Any]] = {}  # settings of its trainings with other defaults than those of `Settings`
    layers: tuple[int, ...] = ()  # of a z of several layers the size of each, the lowest first
    condition: Any = None  # of a conditional model: a `Condition`, which `build` sets together with `needs`
    mixes: str = ""  # what in its terms compares a row of a batch with others, so that no part of a batch has them

    def __init_subclass__(cls, kind: str = "", **more: Any) -> None:
        super().__init_subclass__(**more)
        cls.kind = kind or cls.__name__.lower()
        other = MODELS.get(cls.kind)
        if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"found a second model of the kind {cls.kind!r}, after {other.__module__}."
                             f"{other.__qualname__}; choose another: class {cls.__name__}(Model, kind=...)")
        MODELS[cls.kind] = cls

    def __init__(self, pixels: int, *, init: str = "glorot", seed: int = 0, dtype: Any = "float32",
                 device: str = "cpu", **config: Any) -> None:
        if type(self) is Model:
            raise TypeError("found tv.Model itself to build; expected one of its kinds, as tv.VAE(pixels), or a "
                            "subclass of your own with build(pixels, ...)")
        pixels, seed = plain_number(pixels), plain_number(seed)
        config = {name: plain_number(value) for name, value in config.items()}
        self.config: dict[str, Any] = {
            "kind": self.kind, **{name: list(value) if isinstance(value, tuple) else value
                                  for name, value in bound_arguments(self, pixels, config).items()},
            "init": init, "seed": seed, "dtype": floating(dtype).name}  # fmt: skip
        shapes = self._declare(dtype, device, pixels, config)
        check_declared(self, self._networks)
        self.parameters = Parameters(shapes, self._dtype, self.xp)
        for network in self._networks:
            network.attach(self.parameters)
        self.parameters.initialise(init, seed)

    def _declare(self, dtype: Any, device: str, pixels: int, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        """Call `build`; returns the shapes of all parameters, for which no memory is taken yet."""
        self.xp: Namespace = namespace(device)
        self._dtype = floating(dtype)
        self._networks: list[Any] = []
        self.build(pixels, **config)
        return {name: shape for network in self._networks for name, shape in network.shapes().items()}

    def build(self, *arguments: Any, **config: Any) -> None:
        """Declare each network with `self.network(...)`; the arguments are the model's configuration."""
        raise TypeError(f"{type(self).__name__} has no build(pixels, ...), which declares its networks")

    def network(self, name: str, inputs: int | Sequence[int], hidden: int | Sequence[int], family: Any, size: int,
                activation: str = "relu") -> Network:
        """Add a network to this model; see `tinyvae.nn.network.Network`."""
        widths = widths_of(hidden)
        check_network(self.kind, name, inputs, widths, family, size, [network.name for network in self._networks])
        return self.add(Network(name, inputs, widths, family, size, activation))

    def matrix(self, name: str, rows: int, columns: int) -> Matrix:
        """Add learned numbers (rows, columns) that belong to no network."""
        return self.add(Matrix(name, whole(f"the rows of {name},", rows, 1), columns))

    def add(self, made: Any) -> Any:
        """Add learned numbers: what has a `name`, `shapes()` and `attach(parameters)`, as a network has."""
        self._networks.append(made)
        return made

    dtype = property(lambda self: self._dtype)
    pixels = property(lambda self: self.config["pixels"])
    latent = property(lambda self: self.config.get("latent"))
    targets = property(lambda self: self.pixels if self.condition is None else len(self.condition.pixels))
    device = property(lambda self: self.xp.device)

    @property
    def takes(self) -> str:
        """The kind of data of the likelihood that the configuration names: "grey" for all that are pixels."""
        row = LIKELIHOODS.get(self.config.get("likelihood", ""))
        return row.data if row is not None and row.data in ("real", "counts") else "grey"

    def seen(self, x: Tensor) -> Tensor:
        """What networks of x are given: log(1 + x) of counts, whose sizes differ by powers of ten, else x itself."""
        return x.log1p() if self.takes == "counts" else x

    # ---- the probabilistic model -------------------------------------------------------------------------------------

    def generator(self, batch: Batch | None) -> Generator:
        """p(z) and p(x|z), given the batch's labels or conditions; None stands for a batch that has none."""
        raise TypeError(f"{type(self).__name__} has no generator")

    def target(self, batch: Batch) -> Tensor:
        """What the likelihood p(x|z) is of: all pixels x, or those that a condition leaves open; (rows, targets)."""
        return batch.x if self.condition is None else self.condition.target(batch)

    def posterior(self, batch: Batch) -> Distribution:
        """q(z|x), with parameters (rows, latent)."""
        raise TypeError(f"{type(self).__name__} has no posterior")

    def terms(self, batch: Batch, draw: Draw) -> Terms:
        """The terms that training maximises, in nats: each (rows,) with its own number of rows, or () for the model."""
        return terms_of(self.generator(batch), lambda x: self.posterior(batch), self.target(batch), draw)

    def log_weights(self, batch: Batch, draw: Draw, samples: int) -> Tensor:
        """log w = log p(x, z) - log q(z|x) of draws z ~ q(z|x), (samples, rows) in nats; E[w] = p(x)."""
        p, q = self.generator(batch), self.posterior(batch)
        z, log_q = q.draw(draw.noise, samples)
        return p.likelihood(z).log_prob(self.target(batch)) + p.prior.log_prob(z) - log_q

    def answers(self, c: Tensor, noise: Noise, draws: int, temperature: float) -> Tensor:
        """Means of p(target|z, c), (draws, rows, targets), for conditions c (rows, width) and draws z of p(z|c), whose
        distance from the mean of p(z|c) is multiplied by `temperature`; one for all draws where there is no z."""
        raise TypeError(f"{type(self).__name__} has no answers")

    def learn(self, data: DataSet) -> None:
        """What the model learns from its training data when an epoch ends, beside its gradients; by default nothing.

        It may change parameters that no phase trains, and must be a function of the data and the parameters alone, so
        that a run that was stopped goes on with the same bits.
        """

    def bound_of(self, terms: Mapping[str, Any]) -> Any:
        """The bound on log p(x), from all terms by name: the weighted sum of those that `bound` names."""
        return sum(self.weights.get(name, 1.0) * value for name, value in terms.items()
                   if not self.bound or name in self.bound)

    def classify(self, batch: Batch) -> Tensor:
        """p(y|x) of each class, (rows, classes)."""
        raise TypeError(f"{type(self).__name__} has no classifier")

    @classmethod
    def defaults_beside(cls, given: Collection[str]) -> dict[str, Any]:
        """Its own `defaults`, beside the names of settings that are given; none if another bound is."""
        return {} if "bound" in given else {name: value for name, value in cls.defaults.items() if name not in given}

    def phases(self) -> Sequence[Phase]:
        """The phases of the training; by default one phase with all terms and all parameters."""
        return (Phase("", self.terms),)

    # ---- plain arrays, for models without labels or conditions -------------------------------------------------------

    def encode(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and log-variance of z under q(z|x), each (batch, latent), for x (batch, pixels) in [0, 1].

        A grey value stands for the probability of a pixel that is drawn, so every model of pixels takes it; a model of
        counts takes counts, and one of real numbers the standardised columns of its data set. DataError for others.
        """
        check_finite(self, "with which nothing can be encoded")
        batch = Batch(self.tensor(x, self.pixels, "x"))
        if np.size(x):
            check_range(np.asarray(x), "x", kind=self.takes)
        posterior = self.posterior(batch)
        logvar = posterior.logvar if hasattr(posterior, "logvar") else posterior.variance.log()
        return posterior.mean.numpy(), logvar.numpy()

    def decode(self, z: np.ndarray) -> np.ndarray:
        """The mean of p(x|z), (batch, pixels), as the data are stored: in [0, 1] of images; for z (batch, latent)."""
        check_finite(self, "with which nothing can be decoded")
        found = self.tensor(z, self.latent, "z")
        if not np.isfinite(np.asarray(z)).all():
            raise ValueError("found NaN or infinite numbers in z; expected finite ones")
        return self.generator(None).likelihood(found).mean.numpy()

    def reconstruct(self, x: np.ndarray) -> np.ndarray:
        """The mean image decoded from the posterior mean, (batch, pixels)."""
        return self.decode(self.encode(x)[0])

    def generate(self, count: int, seed: int = 0) -> np.ndarray:
        """Mean images of `count` draws from the prior, (count, pixels)."""
        draw = Noise(seed, "generate", self.xp.zeros(1, np.int64))
        return self.decode(self.generator(None).prior.sample(draw, whole("the count of images", count, 1)).numpy())

    # ---- questions about a model -------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether the model defines `generator`, `posterior`, `log_weights`, `answers` or `classify`."""
        own = getattr(type(self), name) is not getattr(Model, name)
        return own or (name == "log_weights" and self.has("generator") and self.has("posterior"))

    @property
    def has_pictures(self) -> bool:
        """Whether a latent vector alone determines an image: the model has one latent variable and no conditions."""
        return self.has("generator") and self.has("posterior") and not self.needs and self.condition is None

    def check(self, data: DataSet) -> None:
        """Raise ValueError, with one sentence, for data that the model cannot take."""
        if data.dimensions != self.pixels:
            raise ValueError(f"{data.name} has {data.dimensions} pixels a datum; the model takes {self.pixels}")
        if data.has_missing and "mask" not in self.needs:
            raise ValueError(f"{data.name} has missing values (NaN or empty cells), and {an(self.kind)} needs every "
                             "value: take --model miwae, which learns from those that were observed, or fill them in "
                             "first, as scikit-learn's IterativeImputer does")
        likelihood = self.config.get("likelihood")
        if likelihood in LIKELIHOODS and (fault := misfit(likelihood, data.kind, data.name)):
            values = data.name.endswith(("-gray", "-color"))
            raise ValueError(fault + "; or take its -dynamic, -static or -threshold form" * values)

    def start_at(self, data_mean: np.ndarray) -> None:
        """Set the decoder's output bias so that with zero weights p(x|z) has the mean `data_mean`, (pixels,), kept
        within [0.001, 0.999] of pixels and above 0.001 of counts: the bias of what is always 0 would be infinite."""
        decoder = getattr(self, "decoder", None)
        if decoder is None or self.condition is not None:
            raise ValueError(f"found data_mean_bias with {an(self.kind)}; only a model whose decoder gives all pixels "
                             "can start at the data's mean: leave it out")
        mean = np.asarray(data_mean)
        if mean.shape != (self.pixels,) or mean.dtype.kind not in "fiub":
            raise ValueError(f"found data_mean of shape {mean.shape} and type {mean.dtype}; expected ({self.pixels},) "
                             "numbers in [0, 1]")
        check_range(mean[None], "data_mean", kind="real" if self.takes == "counts" else self.takes)
        ends = {"real": (-np.inf, np.inf), "counts": (1e-3, np.inf)}.get(self.takes, (1e-3, 1 - 1e-3))
        mean = np.clip(mean.astype(np.float64), *ends)
        # A Gaussian likelihood has two numbers for each pixel; the first half of the bias belongs to the means.
        start = np.asarray(decoder.family.parameter_of_mean(mean), self.dtype)
        decoder.layers[-1].bias.data[: self.pixels] = self.xp.asarray(start)

    def tensor(self, values: Any, width: int, name: str) -> Tensor:
        """An array (rows, width) as a tensor of this model's type on its device; `name` names it in errors."""
        array = np.ascontiguousarray(array_of(name, values, self.dtype))
        if array.ndim != 2 or array.shape[1] != width:
            raise ValueError(f"found {name} of shape {array.shape}; this model takes (batch, {width})")
        return Tensor(self.xp.asarray(array))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.pixels} pixels, {self.parameters.count:,} parameters)"


def config_for(kind: str, data: Any, **given: Any) -> dict[str, Any]:
    """The configuration of a model for a data set, or for the outline of one: what `build` takes and is not given here
    comes from the data, where `FROM_DATA` says how. ValueError for an option that the model does not take."""
    options = options_of(kind)
    if not hasattr(data, "shape") or not hasattr(data, "likelihood"):
        raise TypeError(f"found data of type {type(data).__name__} for {an(kind)}; expected a DataSet: "
                        "tv.data.load(name) or tv.DataSet(name, train, test, shape, scale)")
    takes = inspect.signature(MODELS[kind].build).parameters
    for name in given:
        if name not in (*options, "init", "seed", "dtype"):
            raise ValueError(f"found {name} for {an(kind)}; expected one of its own options: {', '.join(options)}"
                             f"{taken_by(name)}")
    if "labelled" in MODELS[kind].needs and not given.get("classes", data.classes):
        raise ValueError(f"found no labels in {data.name}, and {an(kind)} learns from them: {ways_to_label(data)}, or "
                         "take another model")
    return {"kind": kind, **{name: value(data) for name, value in FROM_DATA.items() if name in takes}, **given}


def options_of(kind: str) -> dict[str, inspect.Parameter]:
    """The arguments of a model's `build` that can be chosen: all but the sizes of a datum."""
    takes = list(inspect.signature(chosen("model", kind, MODELS).build).parameters.items())[1:]  # without self
    return {name: parameter for name, parameter in takes if name not in ("pixels", "shape")}


def taken_by(option: str) -> str:
    """The end of a refusal of an option: which other models take it; "" if none does."""
    kinds = [kind for kind in MODELS if option in options_of(kind)]
    what = option.replace("_", "-")
    return f"; {what} is an option of {', '.join(kinds)}: take {kinds[0] if len(kinds) == 1 else 'one of them'} as " \
        "--model, or leave it out" if kinds else ""


def model_for(kind: str, data: DataSet, device: str = "cpu", **given: Any) -> Model:
    """A model of a registered kind for a data set: `model_for("vae", data, latent=10)`."""
    return build_model(config_for(kind, data, **given), device)


def check_model(model: Any, **called: Any) -> None:
    """Raise TypeError for what is no model, and for what shall be called, by name, and is no function."""
    for name, function in called.items():
        if function is not None and not callable(function):
            raise TypeError(f"found {name}={function!r}; expected a function, or None")
    if not isinstance(model, Model):
        what = f"the class {model.__name__}" if isinstance(model, type) else an(type(model).__name__)
        raise TypeError(f"found {what} in place of a model; expected one that is built, as tv.VAE(data.dimensions)")


def check_finite(model: Model, why: str) -> None:
    """Raise ValueError for a model with parameters that are not finite, all of whose numbers are NaN; `why` ends it."""
    if wrong := read((~model.xp.isfinite(model.parameters.flat)).sum()):
        raise ValueError(f"found {wrong:,} of {model.parameters.count:,} parameters of {an(model.kind)} that are not "
                         f"finite, {why}: build the model again, or load another checkpoint")


def widths_of(hidden: int | Sequence[int]) -> tuple[int, ...]:
    """The width of one hidden layer, or the widths of several, as a tuple of Python's whole numbers."""
    given = tuple(hidden) if isinstance(hidden, (list, tuple, np.ndarray)) else (hidden,)
    return tuple(map(plain_number, given))


def plain_number(value: Any) -> Any:
    """A number of NumPy's as Python's, which JSON can hold; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def shapes_of(config: dict[str, Any]) -> dict[str, tuple[tuple[int, ...], Any]]:
    """The (shape, dtype) of each parameter of the model of a configuration, by name, without memory for them."""
    rest = {name: value for name, value in config.items() if name not in ("kind", "init", "seed", "dtype")}
    kind, dtype = config.get("kind", "vae"), np.dtype(config.get("dtype", "float32"))
    family = chosen("model", kind, MODELS)
    declared = family.__new__(family)._declare(dtype, "cpu", rest.pop("pixels"), rest)
    return {name: (shape, dtype) for name, shape in declared.items()}


def build_model(config: dict[str, Any], device: str = "cpu") -> Model:
    """The model of a configuration, with its initial weights; ValueError for a kind that is not registered."""
    if not isinstance(config, Mapping) or "pixels" not in config:
        raise TypeError(f"found {config!r:.60} for a configuration of a model; expected that of a model, model.config, "
                        "with its number of pixels")
    rest = dict(config)
    kind = rest.pop("kind", "vae")  # configurations of version 0.1.0 have no kind
    if kind not in MODELS:
        raise ValueError(f"found a model of kind {kind!r}; expected one of {', '.join(MODELS)}: import the file that "
                         "defines it first, or name it with --use FILE")
    return MODELS[kind](**rest, device=device)
