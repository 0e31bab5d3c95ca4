"""Data completion: what the missing pixels of a datum may be, given the observed ones, by any trained model.

Chains draw z and the missing pixels (chains.py). With the kept draws z_s and their normalised weights w_s

    E[x_i|x_obs] ~ sum_s w_s E[x_i|z_s],    log p(x_hid|x_obs) ~ log sum_s w_s p(x_hid|z_s)

for a missing pixel i, and for the pixels x_hid that were hidden on purpose, whose values are known. With equal weights
and draws of p(z|x_obs) the last line is on average below log p(x_hid|x_obs), as the logarithm is concave; so minus it
is an upper bound on average.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from tinyvae.choices import an, counted, known, whole
from tinyvae.data import DataSet, as_data_set
from tinyvae.data.dataset import PARTS
from tinyvae.distributions.observed import Observed, Placed
from tinyvae.engine import table
from tinyvae.engine.devices import to_host
from tinyvae.engine.noise import Noise, uniform
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence.diagnostics import EFFECTIVE, HIGHER, LOWER, Quantity, mean_and_error
from tinyvae.evidence.evaluation import batches_of
from tinyvae.models import Batch, check_model
from tinyvae.tasks import baselines
from tinyvae.tasks.chains import METHODS, Sweep, copies, law_of_all, repeated, rows_of_draw, targets_of
from tinyvae.tasks.masks import missing_pixels

CHUNK = 2**21  # about the number of pixels of all chains that run together; it addresses the noise, so it stays fixed
LOW = 0.05  # an acceptance rate below this share gets a warning


@dataclass(frozen=True)
class Completion:
    """The result of `complete` for `rows` data; `print` shows its numbers as a table.

    Attributes
    ----------
    data, method : the names of the data set and of the method
    chains, sweeps, gibbs_sweeps : chains of each datum, their sweeps, and how many of these were of gibbs at first
    kept : the number of draws of z of each datum that are averaged: those of the later half of the sweeps
    x : (rows, pixels), the data; 0 where a value is unknown
    missing : (rows, pixels), true where a pixel was missing for the model
    hidden : (rows, pixels), true where it was missing and its value is known
    draws : (chains, rows, pixels), or fewer chains where `keep` said so
        Completed data: draws of p(x_mis|x_obs) beside the observed pixels.
    mean, sd : (rows, pixels), the mean and standard deviation of each missing pixel; x and 0 for the others
    nats : (rows,), -log p(x_hid|x_obs) per hidden pixel
    baselines : the same of simple answers, by their names
    wrong : (rows,) of each answer
        The share of hidden pixels that it puts on the wrong side of 1/2; of a table the mean squared error of the
        hidden values, as they are stored.
    stored_in : the unit of a table's stored values
    of_table : whether the data are a table, whose columns stand for pixels
    of_colour : whether they are images in colour, of which a pixel has three values
    acceptance : the share of proposals that metropolis accepted, or None
    effective : (rows,), (sum w)^2 / sum w^2 of the weights of importance, or None
    """

    data: str
    method: str
    chains: int
    sweeps: int
    gibbs_sweeps: int
    kept: int
    x: np.ndarray
    missing: np.ndarray
    hidden: np.ndarray
    draws: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    nats: np.ndarray
    baselines: dict[str, np.ndarray] = field(default_factory=dict)
    wrong: dict[str, np.ndarray] = field(default_factory=dict)
    acceptance: float | None = None
    effective: np.ndarray | None = None
    of_table: bool = False
    of_colour: bool = False
    stored_in: str = ""

    @property
    def of_each(self) -> str:
        """What is hidden one by one: a pixel, or a value of a table or of a colour."""
        return "value" if self.of_table or self.of_colour else "pixel"

    def quantities(self) -> list[Quantity]:
        """What was measured, each number with its standard error over the data, unit and direction."""
        what, scored = self.of_each, self.hidden.any(1)
        rows = {self.method: self.nats} | self.baselines
        found = [Quantity(f"-log p(hidden | observed), {name}", *mean_and_error(values[scored]),
                          f"nats per hidden {what}", LOWER) for name, values in rows.items() if scored.any()]
        for name, values in self.wrong.items():
            mean, error = mean_and_error(values[scored])
            if self.of_table:  # the error of a square root
                root = math.sqrt(mean)
                found.append(Quantity(f"RMSE, {name}", root, error / (2 * root or math.inf), self.stored_in,
                                      LOWER))
            else:
                found.append(Quantity(f"wrong {what}s, {name}", mean, error, f"share of the hidden {what}s", LOWER))
        if self.acceptance is not None:
            found.append(Quantity("acceptance", self.acceptance, None, "share of the proposals", HIGHER))
        if self.effective is not None:
            found.append(Quantity("effective draws", *mean_and_error(self.effective), f"of {self.kept}", HIGHER))
        return found

    def remarks(self) -> str:
        """How the draws were made, in one sentence."""
        first = f", the first {self.gibbs_sweeps} of gibbs" if self.method == "metropolis" else ""
        how = f"{counted(self.chains, 'chain')} a datum, {counted(self.sweeps, 'sweep')} each{first}"
        return (f"{self.method}: {how}; means over the "
                f"{self.kept} draws of z of the later half" if self.kept < self.chains * self.sweeps else
                f"{self.method}: means over {self.kept} independent draws of z a datum")

    def __str__(self) -> str:
        share = self.missing.mean()
        head = (f"{self.data}, {len(self.x):,} data, {share:.0%} of the {self.of_each}s "
                "missing")
        rows = [("quantity", "value", "std. error", "unit", "direction"), *(q.cells() for q in self.quantities())]
        lines = table.lines(rows, left=(0, 3, 4)) if len(rows) > 1 else ""
        return "\n".join(filter(None, (head, lines, self.remarks())))

    def to_dict(self) -> dict[str, Any]:
        """The numbers, without the arrays of pixels."""
        names = ("data", "method", "chains", "sweeps", "gibbs_sweeps", "kept")
        return {name: getattr(self, name) for name in names} | {
            "data_count": len(self.x), "hidden_count": int(self.hidden.sum()),
            "quantities": [q._asdict() for q in self.quantities()]}


class Average:
    """Means over weighted draws that come bit by bit, for each row, with weights that are known by their logarithm."""

    def __init__(self, rows: int) -> None:
        self.log_total, self.log_squares = np.full((2, rows), -np.inf)  # log sum w, log sum w^2
        self.means: dict[str, np.ndarray] = {}

    def add(self, log_weight: np.ndarray, **values: np.ndarray) -> np.ndarray:
        """Add draws with log weights (draws, rows) and values (draws, rows, ...).

        Returns the share of all weight so far that these draws have, (draws, rows).
        """
        before = self.log_total
        self.log_total = np.logaddexp(before, np.logaddexp.reduce(log_weight, axis=0))
        self.log_squares = np.logaddexp(self.log_squares, np.logaddexp.reduce(2 * log_weight, axis=0))
        kept, share = np.exp(before - self.log_total), np.exp(log_weight - self.log_total)
        for name, value in values.items():
            more = (1,) * (value.ndim - 2)
            mean = (share.reshape(*share.shape, *more) * value).sum(0)
            self.means[name] = mean + kept.reshape(-1, *more) * self.means.get(name, np.zeros_like(mean))
        return share

    @property
    def effective(self) -> np.ndarray:
        """(sum w)^2 / sum w^2, (rows,)."""
        return np.exp(2 * self.log_total - self.log_squares)


@np.errstate(all="ignore")  # the result shows numbers that are not finite
def complete(model: Any, data: DataSet | np.ndarray | str, missing: Any = None, method: str | None = None,
             draws: int = 20, sweeps: int = 40, gibbs_sweeps: int = 10, count: int | None = 100, part: str = "test",
             seed: int = 0, progress: Callable[[float], Any] = lambda share: None,
             keep: int | None = None) -> Completion:
    """Complete data of which pixels are missing.

    Parameters
    ----------
    model
        Any model with a generator and a posterior.
    missing
        The pixels that are hidden from the model: a name, a file or an array (`masks.missing_pixels`). None hides none;
        then the missing entries of the data themselves are completed.
    method
        `gibbs`, `metropolis` or `importance` (chains.py). None takes gibbs; or importance, if the model learned from
        data with holes. A conditional model answers by `prior` what its condition leaves open, if nothing is hidden.
    draws
        The number of chains for each datum, and so of completions.
    sweeps, gibbs_sweeps
        The number of sweeps of each chain, and how many of them, the first ones, metropolis makes by gibbs. The draws
        of the later half are averaged.
    count
        The number of data, from the first on; None takes all.
    keep
        The number of completions of each datum that the result holds, from the first on; None keeps all. Numbers, means
        and standard deviations are those of all draws, and take no memory for each of them.

    Raises
    ------
    ValueError
        For a mask that does not fit, data that the model cannot take, and a model without generator or posterior.
    """
    check_model(model)
    data = as_data_set(data)
    if not (model.has("generator") and model.has("posterior")):
        raise ValueError(f"found {an(model.kind)}, which has no generator or no posterior; data are completed by a "
                         "model with both, as a vae")
    targets = targets_of(model)
    usual = "prior" if targets is not None and missing is None else "importance" if "mask" in model.needs else "gibbs"
    method = known("the method", method or usual, METHODS)
    if (method == "prior") != (targets is not None and missing is None):
        given = " and pixels to hide" * (missing is not None)
        others = ", ".join(name for name in METHODS if (name == "prior") != (method == "prior"))
        raise ValueError(f"found the method {method} with {an(model.kind)}{given}; the method prior goes with a "
                         "conditional model, as a cvae, which completes what its own condition leaves open; expected "
                         f"here {others}")
    if missing is not None and targets is not None and len(targets) < model.pixels:
        raise ValueError(f"found pixels to hide from {an(model.kind)} that is given {model.condition.words}; it "
                         "completes the pixels that this leaves open: leave missing (--missing) out")
    draws, sweeps, gibbs_sweeps = (whole(name, value, 1) for name, value in (
        ("draws", draws), ("sweeps", sweeps), ("gibbs_sweeps", gibbs_sweeps)))
    if method == "metropolis" and 2 * gibbs_sweeps > sweeps:
        raise ValueError(f"found gibbs_sweeps={gibbs_sweeps} of {sweeps} sweeps; expected at most half of them, since "
                         "only later draws are averaged")
    if getattr(data, known("the part", part, PARTS)) is None:
        raise ValueError(f"{data.name} has no part {part!r}; take another part, such as test")
    available = len(getattr(data, part))
    rows = available if count is None else min(whole("count", count, 1), available)
    truth = getattr(data, f"{part}_mask")
    truth = np.ones((rows, data.dimensions), bool) if truth is None else truth[:rows] > 0
    if missing is None and targets is None and truth.all():
        raise ValueError(f"found nothing missing in the {part} data of {data.name}; expected data with holes, or "
                         "pixels to hide: missing='left' (--missing left)")
    hidden = np.zeros_like(truth) if missing is None else missing_pixels(missing, data.shape, rows, seed)
    if method == "prior":
        hidden[:, targets] = True
    keep = draws if keep is None else min(whole("the completions to keep,", keep), draws)
    task = _Task(model, data, method, draws, sweeps, gibbs_sweeps, seed, bool((hidden & truth).any()), keep)
    if "mask" not in model.needs:  # the model sees filled data
        data = replace(data, train_mask=None, valid_mask=None, test_mask=None)
    found: list[dict[str, Any]] = []
    begin = 0

    def report(share: float) -> None:
        progress((begin + share * len(batch)) / rows)

    for batch in _chunks(batches_of(model, data, seed, part, rows), max(1, CHUNK // (draws * model.pixels))):
        seen, gone = truth[begin : begin + len(batch)], hidden[begin : begin + len(batch)]
        found.append(task.run(batch, gone | ~seen, gone & seen, len(found), report))
        begin += len(batch)
    parts: dict[str, Any] = {name: np.concatenate([each[name] for each in found], axis=1 if name == "draws" else 0)
                             for name in found[0] if name not in ("baselines", "wrong")}
    for name in ("baselines", "wrong"):
        parts[name] = {key: np.concatenate([each[name][key] for each in found]) for key in found[0][name]}
    accepted = parts.pop("accepted")
    acceptance = float(accepted.mean()) if method == "metropolis" else None
    if acceptance is not None and not acceptance >= LOW:
        warnings.warn(f"metropolis accepted {acceptance:.1%} of its proposals (below {LOW:.0%}), so its chains hardly "
                      "move: take more sweeps and more gibbs sweeps first, or the method importance", RuntimeWarning,
                      stacklevel=3)
    kept = draws * (sweeps - task.first)
    if method != "importance":
        parts["effective"] = None
    elif not (effective := parts["effective"].mean()) >= EFFECTIVE:
        warnings.warn(f"the weights of importance are so uneven that {effective:.1f} of {kept:,} draws count (at "
                      f"least {EFFECTIVE} are needed): take more draws, or the method metropolis", RuntimeWarning,
                      stacklevel=3)
    unit = "counts" if data.kind == "counts" else "own units" if data.spread is None else "std. deviations of a column"
    return Completion(data.name, method, draws, sweeps, gibbs_sweeps if method == "metropolis" else 0, kept,
                      acceptance=acceptance, of_table=data.is_table, of_colour=data.is_colour, stored_in=unit, **parts)


def _chunks(batches: Iterator[Batch], size: int) -> Iterator[Batch]:
    """The batches in pieces of at most `size` rows."""
    for batch in batches:
        values: dict[str, Any] = {f.name: value for f in fields(batch)
                                  if isinstance(value := getattr(batch, f.name), Tensor)}
        for start in range(0, len(batch), size):
            yield replace(batch, **{name: value[start : start + size] for name, value in values.items()})


class _Task:
    """One way of completing, and what it knows of the training data."""

    def __init__(self, model: Any, data: DataSet, method: str, draws: int, sweeps: int, gibbs_sweeps: int,
                 seed: int, scored: bool, keep: int) -> None:
        self.model, self.data, self.method, self.draws, self.sweeps = model, data, method, draws, sweeps
        self.gibbs_sweeps, self.seed, self.scored, self.keep = gibbs_sweeps, seed, scored, keep
        # draws of a model that reads a mask do not depend on how the image is filled, so all are kept
        self.first = 0 if method == "prior" or ("mask" in model.needs and method == "importance") else sweeps // 2
        self.fill = baselines.training_moments(data)[0]

    def run(self, batch: Batch, missing: np.ndarray, hidden: np.ndarray, number: int,
            report: Callable[[float], Any]) -> dict[str, Any]:
        """Complete the rows of a batch; `number` addresses its noise."""
        model, rows, draws = self.model, len(batch), self.draws
        noise = Noise(self.seed, "complete", model.xp.zeros(1, np.int64)).restart(number)
        mask = self._tensor(hidden)
        average, accepted, picked = Average(rows), [], None
        x = to_host(batch.x.data).astype(np.float64)
        states = METHODS[self.method](model, batch, missing, self.fill, noise, draws, self.sweeps,
                                      gibbs_sweeps=self.gibbs_sweeps)
        for sweep, state in enumerate(states):
            report((sweep + 1) / self.sweeps)
            if state.accepted is not None:
                accepted.append(state.accepted.reshape(draws, rows).mean(0))
            if sweep >= self.first:
                share = self._average(average, state, batch.x, mask, rows)
                if self.method == "importance":
                    picked = self._pick(picked, share, state.z, number, sweep)
        drawn = state.x if picked is None else self._drawn(batch, picked, noise)
        kept = to_host(drawn.data).reshape(draws, *x.shape)[: self.keep]
        mean, square = average.means["mean"], average.means["square"]
        count = np.where(hidden.any(1), hidden.sum(1), np.nan)
        filled = np.where(missing, mean, x)
        return {"x": x, "missing": missing, "hidden": hidden,
                "draws": np.where(missing, kept, x.astype(model.dtype)), "mean": filled,
                "sd": np.where(missing, np.sqrt(np.maximum(square - mean**2, 0)), 0.0),
                "nats": -(average.means["log_p"]) / count, "effective": average.effective,
                "accepted": np.array(accepted).mean(0) if accepted else np.zeros(rows),
                **self._compared(batch, x, missing, hidden, filled, law_of_all(model, state.law), count)}

    def _average(self, average: Average, state: Sweep, x: Tensor, mask: Tensor, rows: int) -> np.ndarray:
        """Add the draws of a sweep to the averages; returns their shares of all weight, (draws, rows)."""
        def each(values: Any) -> np.ndarray:
            return to_host(values).astype(np.float64).reshape(self.draws, rows, *values.shape[1:])

        law = law_of_all(self.model, state.law)
        mean, variance, log_weight = each(law.mean.data), each(law.variance.data), each(state.log_weight)
        log_p = each(Observed(law, copies(mask, self.draws)).log_prob(copies(x, self.draws)).data)
        before, log_before = average.log_total, average.means.get("log_p", np.full(rows, -np.inf))
        share = average.add(log_weight, mean=mean, square=variance + mean**2)
        # the mean of p(x_hid|z), which underflows, is kept by its logarithm
        kept = before - average.log_total + log_before
        average.means["log_p"] = np.logaddexp(kept, np.logaddexp.reduce(log_weight - average.log_total + log_p, axis=0))
        return share

    def _pick(self, picked: np.ndarray | None, share: np.ndarray, z: Tensor, number: int, sweep: int) -> np.ndarray:
        """Latents (draws, rows, latent): each is one of all draws of z so far, by the probability of its weight.

        It is replaced by one of this sweep's with the probability of their share of all weight.
        """
        drawn = to_host(z.data).reshape(*share.shape, -1)
        u = uniform(self.seed, "complete-pick", number, sweep, share.shape, np.float64)
        edges = np.cumsum(share, axis=0)  # (draws, rows); the last one is the share of the whole sweep
        index = (u[:, None] >= edges).sum(1)  # of each latent the first draw with u < edge; `draws` where none is
        taken = index < self.draws
        chosen = drawn[np.minimum(index, self.draws - 1), np.arange(share.shape[1])]
        # (rounding may leave an edge of the first sweep a little below 1; then its last draw is taken)
        return chosen if picked is None else np.where(taken[..., None], chosen, picked)

    def _drawn(self, batch: Batch, z: np.ndarray, noise: Noise) -> Tensor:
        """A draw of p(x|z) for each of the latents (draws, rows, latent), as (draws * rows, pixels)."""
        p = self.model.generator(replace(repeated(batch, self.draws), mask=None))
        return rows_of_draw(p.likelihood(self._tensor(z.reshape(-1, z.shape[-1]))).sample(noise))

    def _compared(self, batch: Batch, x: np.ndarray, missing: np.ndarray, hidden: np.ndarray, mean: np.ndarray,
                  law: Any, count: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        """The baselines, and the shares of wrong pixels."""
        if not self.scored:
            return {"baselines": {}, "wrong": {}}
        mask, model = self._tensor(hidden), self.model
        fill = self._tensor(np.broadcast_to(self.fill, x.shape))
        by_mean = baselines.pixel_means(model, self.data, type(law.part if isinstance(law, Placed) else law))
        gone = Tensor(model.xp.asarray(missing))
        found = {"one-shot re-encoding": -baselines.one_shot(model, batch, gone, fill, mask) / count}
        if by_mean is not None:
            what = "column" if self.data.is_table else "pixel"
            found = {f"each {what}'s training mean": -by_mean(batch.x, mask) / count} | found
        answers = {self.method: mean}
        if self.data.is_table:
            answers["training mean"] = np.broadcast_to(self.fill, x.shape)
        if self.data.train_mask is None and not missing.all():
            answers[f"nearest training {'row' if self.data.is_table else 'image'}"] = baselines.nearest(
                self.data, x, missing)
        wrong = {name: (hidden * ((answer - x) ** 2 if self.data.is_table else (answer > 0.5) != (x > 0.5))).sum(1)
                 / count for name, answer in answers.items()}
        return {"baselines": found, "wrong": wrong}

    def _tensor(self, values: np.ndarray) -> Tensor:
        return Tensor(self.model.xp.asarray(np.ascontiguousarray(values, self.model.dtype)))

