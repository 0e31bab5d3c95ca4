"""tinyvae: the variational auto-encoder, complete and from scratch.

    import tinyvae as tv

    data = tv.data.load("digits")
    model = tv.VAE(data.dimensions, hidden=200, latent=10)
    tv.fit(model, data, epochs=20)
    print(tv.evaluate(model, data, importance_samples=100))

The parts, from the bottom: `devices`, `rules` (the calculus), `tape`, `tensor`; `noise`, `layers`, `optimizers`,
`distributions`; `bounds`, `models`; `batches`, `training`, `evidence`; `runs`, `cli`.
"""

from __future__ import annotations

from tinyvae import data, measure
from tinyvae.data import DataError, DataSet
from tinyvae.engine import fusion, noise, testing
from tinyvae.engine.fusion import fused, tf32
from tinyvae.engine.noise import Noise
from tinyvae.engine.program import Tape
from tinyvae.engine.rules import Interval, rule
from tinyvae.engine.tape import TapeError
from tinyvae.engine.tensor import Tensor, apply, grad, matmul, stack
from tinyvae.evidence.evaluation import Evaluation, evaluate
from tinyvae.inference.bounds import elbo
from tinyvae.inference.estimators import Term
from tinyvae.inference.svi import Factor, Inference, infer
from tinyvae.models import VAE
from tinyvae.training.checkpoint import CheckpointError
from tinyvae.training.runs import fit, load, resume

__version__ = "0.1.0"
__all__ = [
    "VAE", "CheckpointError", "DataError", "DataSet", "Evaluation", "Factor", "Inference", "Interval", "Noise", "Tape",
    "TapeError", "Tensor", "Term", "apply", "data", "elbo", "evaluate", "fit", "fused", "fusion", "grad", "infer",
    "load", "matmul", "measure", "noise", "resume", "rule", "stack", "testing", "tf32",
]  # fmt: skip
