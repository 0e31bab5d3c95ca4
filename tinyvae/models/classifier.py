"""The supervised network beside semi-supervised models: q(y|x) alone, trained on the labelled data alone."""

from __future__ import annotations

from collections.abc import Sequence

from tinyvae.distributions import Categorical
from tinyvae.engine.tensor import Tensor
from tinyvae.inference.bounds import Draw, Terms
from tinyvae.models.base import Model
from tinyvae.models.batch import Batch


class Classifier(Model, kind="classifier"):
    """q(y|x), a network that has the size of M2's; its bound is log q(y|x), the log-likelihood of the label.

    `counts` says that the data are counts, which the network reads as log(1 + x)."""

    needs = ("y", "labelled")
    goal = "log q(y|x)"

    def build(self, pixels: int, classes: int = 10, hidden: int | Sequence[int] = 400, activation: str = "relu",
              counts: bool = False) -> None:
        self.q_y = self.network("q_y", pixels, hidden, Categorical, classes, activation)

    @property
    def takes(self) -> str:
        return "counts" if self.config["counts"] else "grey"

    def terms(self, batch: Batch, draw: Draw) -> Terms:
        seen = batch.labelled or batch  # evaluations have all labels in `y`
        assert seen.y is not None, "the data room refuses data without labels"
        return Terms(classifier=self.q_y(self.seen(seen.x)).log_prob(seen.y))

    def classify(self, batch: Batch) -> Tensor:
        return self.q_y(self.seen(batch.x)).mean
