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

from tinyvae import data, fusion, noise, testing
from tinyvae.bounds import elbo
from tinyvae.checkpoint import CheckpointError
from tinyvae.data import DataError, DataSet
from tinyvae.estimators import Term
from tinyvae.evidence import Evaluation, evaluate
from tinyvae.fusion import fused, tf32
from tinyvae.inference import Free, Inference, infer
from tinyvae.models import VAE
from tinyvae.noise import Noise
from tinyvae.rules import Interval, rule
from tinyvae.runs import fit, load, resume
from tinyvae.tape import Tape, TapeError
from tinyvae.tensor import Tensor, apply, grad, matmul, stack

__version__ = "0.1.0"
__all__ = [
    "VAE", "CheckpointError", "DataError", "DataSet", "Evaluation", "Free", "Inference", "Interval", "Noise", "Tape",
    "TapeError", "Tensor", "Term", "apply", "data", "elbo", "evaluate", "fit", "fused", "fusion", "grad", "infer",
    "load", "matmul", "noise", "resume", "rule", "stack", "testing", "tf32",
]  # fmt: skip
