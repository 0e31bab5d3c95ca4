"""What stands in the files of a run, declared once: their entries, and for each a rule in words and as a test.

Everything that is read from a run folder is held against these tables before it is used, so a file that was edited,
damaged or forged gets a sentence with the entry, what was found there and what was expected.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tinyvae.choices import an
from tinyvae.models import MODELS
from tinyvae.models.base import shapes_of
from tinyvae.runs.checkpoint import Shapes, check_shapes
from tinyvae.runs.files import CheckpointError
from tinyvae.training.settings import Settings

FORMAT, VERSION = "tinyvae-run", 1  # of config.json
LARGEST = 2**63  # beyond it no whole number of a run lies
LONGEST = 60  # characters of a value in a sentence
UNDO = "if it was edited, undo that, or start a new run"
ANOTHER = "use another checkpoint"


class Rule(NamedTuple):
    """What an entry must be, in words and as a test; an entry that is not `needed` may be missing."""

    words: str
    holds: Callable[[Any], bool]
    needed: bool = True

    def optional(self) -> Rule:
        return self._replace(needed=False)


Table = Mapping[str, Rule]


def whole(least: int) -> Rule:
    """A whole number, at least `least`."""
    return Rule(f"a whole number, at least {least}", lambda v: type(v) is int and least <= v < LARGEST)


def entries(table: Table) -> Rule:
    """An object with the entries of a table."""
    return Rule(f"an object with {', '.join(table)}", lambda v: not list(faults(v, table)))


def many(rule: Rule) -> Rule:
    """A list of values that follow one rule."""
    return Rule(f"a list, of {rule.words} each", lambda v: isinstance(v, list) and all(map(rule.holds, v)))


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) < LARGEST)


def _is_recorded(value: Any) -> bool:
    """Whether an epoch's record may hold the value: a number, a word, nothing, or a list of these."""
    return (value is None or isinstance(value, bool | str) or _is_number(value)
            or (isinstance(value, list) and all(v is None or _is_number(v) for v in value)))


TEXT = Rule("text", lambda v: isinstance(v, str) and "\0" not in v)
OBJECT = Rule("an object", lambda v: isinstance(v, dict))
YES_OR_NO = Rule("true or false", lambda v: isinstance(v, bool))
NO_NAN = Rule("a number", lambda v: _is_number(v) and not math.isnan(v))
NUMBERS = Rule("an object of numbers", lambda v: isinstance(v, dict) and all(map(_is_number, v.values())))

BLAS = {"blas": Rule("an object or null", lambda v: v is None or isinstance(v, dict)).optional()}
USES = many(entries({"file": TEXT, "sha256": TEXT}))
# A deliberate change says from which epoch and step on it holds, and of each setting the value before and after it.
CHANGES = many(Rule("an object with epoch, step and pairs of values", lambda v: not list(
    faults(v, {"epoch": whole(0), "step": whole(0)})) and all(
        name in ("epoch", "step") or (isinstance(pair, list) and len(pair) == 2) for name, pair in v.items())))
ORIGIN = entries({"run": TEXT, "fingerprint": TEXT})

MODEL = entries({"pixels": whole(1), "seed": whole(0).optional(),
                 **{name: TEXT.optional() for name in ("kind", "init", "dtype")}})  # fmt: skip
# These entries stand in config.json and in both checkpoints.
COMMON: dict[str, Rule] = {"model": MODEL, "data": TEXT, "uses": USES.optional()}
CONFIG: dict[str, Rule] = COMMON | {
    "version": whole(1),
    "data_dir": Rule("text or null", lambda v: v is None or TEXT.holds(v)).optional(),
    "settings": OBJECT,
    "environment": entries(BLAS).optional(),
    "changes": CHANGES.optional(),
    "init_from": ORIGIN.optional(),
    "initial": TEXT.optional(),  # the fingerprint of the parameters at step 0
    "pictures": YES_OR_NO.optional(),
    "supervised": YES_OR_NO.optional(),  # whether the supervised network is trained beside it
}
# The meta of last.safetensors says what the run was trained with, and how far it is.
LAST: dict[str, Rule] = COMMON | {
    "settings": OBJECT,
    "epoch": whole(0),
    "best": NO_NAN.optional(),
    "best_epoch": whole(0).optional(),
    "first_losses": NUMBERS.optional(),
    "first_loss": Rule("a number", _is_number).optional(),  # in runs of version 0.1.0
    "data_sha256": TEXT.optional(),
    "changes": CHANGES.optional(),
    "init_from": ORIGIN.optional(),
    "was": entries({"settings": OBJECT, "changes": CHANGES}).optional(),  # while a change is being made
}
# a line of metrics.jsonl
RECORD: dict[str, Rule] = {
    "epoch": whole(1),
    **{name: Rule("a number or null", lambda v: v is None or _is_number(v)).optional()
       for name in ("train_elbo", "test_elbo", "test_reconstruction", "test_kl")},
    "best": YES_OR_NO.optional(),
    "fingerprint": TEXT.optional(),
}
BEST: dict[str, Rule] = COMMON | {"record": entries(RECORD), "data_sha256": TEXT.optional()}
OF_KIND: dict[str, Table] = {"last": LAST, "best": BEST}


def faults(value: Any, table: Table) -> Iterator[tuple[str, str, str]]:
    """The entries that break their rules: of each its name, the rule in words, and what was found."""
    if not isinstance(value, dict):
        yield "it", "an object", shown(value)
        return
    for name, rule in table.items():
        if name not in value:
            if rule.needed:
                yield name, rule.words, "nothing"
        elif not rule.holds(value[name]):
            yield name, rule.words, shown(value[name])


def is_record(value: Any) -> bool:
    """Whether this is the record of an epoch, as a line of metrics.jsonl holds it."""
    return not list(faults(value, RECORD)) and all(map(_is_recorded, value.values()))


def check(value: Any, table: Table, file: Any, cure: str) -> None:
    """Raise CheckpointError at the first entry of `value`, the content of `file`, that breaks its rule."""
    for name, words, found in faults(value, table):
        raise CheckpointError(f"{file} has {name}: found {found}; expected {words}; {cure}")


def check_config(config: Any, file: Any) -> None:
    """Raise CheckpointError if this is not the configuration of a run that this version reads."""
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise CheckpointError(f"{file} is not the configuration of a tinyvae run; {UNDO}")
    version = config.get("version")
    if type(version) is int and version > VERSION:
        raise CheckpointError(f"{file} has version {version}, newer than version {VERSION} that this tinyvae reads; "
                              "upgrade tinyvae")
    check(config, CONFIG, file, UNDO)


def settings_of(values: dict[str, Any], file: Any, cure: str) -> Settings:
    """The settings that `file` holds; CheckpointError for unknown names and values of another type."""
    try:
        return Settings.from_dict(values)
    except ValueError as fault:
        raise CheckpointError(f"{file}: {fault}; {cure}") from None


def check_parameters(config: dict[str, Any], found: Shapes, file: Any, cure: str) -> None:
    """Raise CheckpointError unless the model of a configuration has the parameters that `file` holds.

    No memory is taken for a model: `found` are the shapes that the file's header names, with those of the optimizer.
    """
    stored = {name: shape for name, shape in found.items() if not name.startswith(("optimizer.", "training."))}
    check_options(config, file, cure)
    most = sum(math.prod(shape) for shape, _ in stored.values())
    for name in ("pixels", "hidden", "latent"):  # each needs numbers of its own
        value = config.get(name)
        for size in value if isinstance(value, list) else [value]:
            if isinstance(size, int) and size > most:
                raise CheckpointError(f"{file} says {name}={shown(size)} of a model with {most} parameters; {cure}")
    try:
        expected = shapes_of(config)
    except Exception as fault:  # what a model's own code says of values for which there is no rule here
        reason = f"it has no {fault}" if isinstance(fault, KeyError) else str(fault) or type(fault).__name__
        raise CheckpointError(f"{file} holds no model that this version can build ({reason}); {cure}") from None
    check_shapes(stored, expected, file)


def completed(config: dict[str, Any]) -> dict[str, Any]:
    """A model's configuration with the defaults of the options that it does not name."""
    kind = config.get("kind", "vae")
    takes = inspect.signature(MODELS[kind].build).parameters if kind in MODELS else {}
    defaults = {name: list(p.default) if isinstance(p.default, tuple) else p.default for name, p in takes.items()
                if p.default is not inspect.Parameter.empty}  # fmt: skip
    return {"kind": kind, **defaults, **config}


def differences(config: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """The options in which two configurations of a model differ, each with both values."""
    ours, theirs = completed(config), completed(other)
    return [(name, ours.get(name), theirs.get(name)) for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)]  # fmt: skip


def check_options(config: dict[str, Any], file: Any, cure: str) -> None:
    """Raise CheckpointError for an option that the model does not take, or a value of another type than its default."""
    kind = config.get("kind", "vae")
    if not isinstance(kind, str) or kind not in MODELS:
        return  # `shapes_of` lists the kinds
    takes = inspect.signature(MODELS[kind].build).parameters
    known = [*list(takes)[1:], "kind", "init", "seed", "dtype"]
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values()):
        known += config
    for name, value in config.items():
        if name not in known:
            raise CheckpointError(f"{file} has {name!r} among the options of the model; {an(kind)} takes "
                                  f"{', '.join(known)}; {cure}")
        default = takes[name].default if name in takes else None
        if isinstance(default, bool | str | int | float) and not _alike(value, default):
            raise CheckpointError(f"{file} has the model's {name}: found {shown(value)}; expected a value like "
                                  f"{default!r}; {cure}")


def _alike(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, str):
        return isinstance(value, str)
    return all(map(_is_number, value if isinstance(value, list) else [value]))  # one width, or several


def shown(value: Any) -> str:
    """A value from a file for a sentence, cut where it is long."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    if isinstance(value, int) and abs(value) >= LARGEST:
        return "a number beyond 64 bits"
    try:
        text = repr(value)
    except RecursionError:
        text = ""
    if text and len(text) <= LONGEST:
        return text
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    return text[:LONGEST] + "..."
