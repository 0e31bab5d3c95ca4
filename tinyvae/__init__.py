"""tinyvae: the variational auto-encoder, complete and from scratch.

    import tinyvae as tv

    data = tv.data.load("digits")
    model = tv.VAE(data.dimensions, hidden=200, latent=10)
    tv.fit(model, data, epochs=20)
    print(tv.evaluate(model, data, importance_samples=100))

The rooms, from the bottom; each imports only from those before it:

    engine          rules of derivatives, the chain rule, tensors, recorded programs, noise, devices
    data            data sets, files, images
    nn              layers, networks that give distributions, optimizers
    distributions   one file a family, with its density, draws and KL
    flows           posteriors that invertible maps make of a normal one, one file a kind
    inference       the ELBO and its relatives; estimators of gradients; inference without a VAE
    models          the contract for models, and one file a model
    evidence        bounds and log p(x) of a trained model, with standard errors
    bayes           Bayesian networks, conjugate pairs, quadrature, mixtures: models with exact answers beside them
    training        steps and epochs
    runs            run folders: checkpoints, logs, how a training goes on after any interruption
    tasks           what a trained model is for, one file a task
    measure         times, this machine's peaks, what is wrong with it
    pictures        what a trained model shows
    explorer        a trained model in one HTML page
    lessons         the article's chapters as tables and pictures
    cli             the command line
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

# ruff: noqa: E402 - before the imports
# While the program is being imported, Ctrl-C ends it as it ends any other program, and not with a traceback;
# cli/main.py answers from then on. This does not concern other programs that import tinyvae.
_called = Path(sys.argv[0]).stem if getattr(sys, "argv", None) else ""
_module = sys.orig_argv[-len(sys.argv)] if _called == "-m" else ""  # python -m tinyvae
if "tinyvae" in (_called, _module) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from tinyvae import data, distributions, measure, models
from tinyvae.bayes.network import BayesianNetwork
from tinyvae.bayes.nodes import Node
from tinyvae.data import DataError, DataSet
from tinyvae.engine import fusion, noise, testing
from tinyvae.engine.fusion import fused, tf32
from tinyvae.engine.noise import Noise
from tinyvae.engine.program import Tape
from tinyvae.engine.rules import Interval, rule
from tinyvae.engine.tape import TapeError
from tinyvae.engine.tensor import Tensor, apply, grad, matmul, stack
from tinyvae.evidence.evaluation import Evaluation, evaluate
from tinyvae.explorer import explore
from tinyvae.inference.bounds import Draw, Joint, Terms, elbo, terms_of
from tinyvae.inference.estimators import Term
from tinyvae.inference.svi import Factor, Inference, infer
from tinyvae.models import VAE, Batch, Model, Phase, use
from tinyvae.runs import CheckpointError, fit, load, resume
from tinyvae.tasks.classification import Classified, classify
from tinyvae.tasks.completion import Completion, complete

__version__ = "0.2.0"
__all__ = [
    "VAE", "Batch", "BayesianNetwork", "CheckpointError", "Classified", "Completion", "DataError", "DataSet", "Draw",
    "Evaluation", "Factor", "Inference", "Interval", "Joint", "Model", "Node", "Noise", "Phase", "Tape", "TapeError",
    "Tensor", "Term", "Terms", "apply", "classify", "complete", "data",
    "distributions", "elbo", "evaluate", "explore", "fit", "fused", "fusion", "grad", "infer", "load",
    "matmul", "measure", "models", "noise", "resume", "rule", "stack", "terms_of", "testing", "tf32", "use",
]  # fmt: skip
