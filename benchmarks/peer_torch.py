"""The same training step in PyTorch: eager modules with the fused Adam, and the whole step with torch.compile."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import nets
from benchmarks.nets import Net

BETA1, BETA2, EPSILON, RATE = 0.9, 0.999, 1e-8, 1e-3


class VAE(nn.Module):
    """A VAE of two perceptrons, with tinyvae's names; the shape of its weights is (out, in)."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([nn.Linear(net.pixels, net.hidden), nn.Linear(net.hidden, 2 * net.latent)])
        self.decoder = nn.ModuleList([nn.Linear(net.latent, net.hidden), nn.Linear(net.hidden, net.pixels)])
        self.first = {name: torch.from_numpy(array.T.copy()) for name, array in nets.weights(net).items()}

    def forward(self, x: Tensor, eps: Tensor) -> Tensor:
        """-ELBO in nats per datum: estimator B, one draw of z."""
        mu, logvar = self.encoder[1](torch.relu(self.encoder[0](x))).chunk(2, dim=-1)
        z = mu + torch.exp(0.5 * logvar) * eps
        logits = self.decoder[1](torch.relu(self.decoder[0](z)))
        reconstruction = (x * logits - F.softplus(logits)).sum()
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum()
        return (kl - reconstruction) / len(x)


class Eager:
    """The contestant; workers.py explains its methods."""

    # These forms were tried on a CPU and are no faster: Adam that is not fused, pixels kept as bytes, torch.bernoulli
    # instead of rand < x, denormals flushed, one thread, and binary_cross_entropy_with_logits, which takes more passes
    # than softplus.
    def __init__(self, net: Net, device: str = "cpu", tf32: bool = False) -> None:
        if device == "cuda":
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
        self.net, self.device, stored = net, device, nets.data_set(net)
        self.data = torch.from_numpy(stored.train).to(device).float() / stored.scale
        self.order = list(torch.from_numpy(nets.order(net)).to(device))
        self.model = VAE(net).to(device)
        self.start()

    def start(self) -> None:
        """Restore the initial weights, and start a new optimizer."""
        torch.manual_seed(0)
        self.model.load_state_dict(self.model.first)
        self.optimizer = torch.optim.Adam(self.model.parameters(), RATE, (BETA1, BETA2), EPSILON, fused=True)

    def about(self) -> dict[str, Any]:
        return {"torch": torch.__version__, "threads": torch.get_num_threads(),
                "capability": torch.backends.cpu.get_cpu_capability(), "cuda": torch.version.cuda}

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Gather the batch, draw its pixels if they are dynamic, and draw the normals."""
        x = self.data.index_select(0, index)
        if self.net.dynamic:
            x = (torch.rand_like(x) < x).float()
        return x, torch.randn(self.net.batch, self.net.latent, device=self.device)

    def step(self, x: Tensor, eps: Tensor) -> Tensor:
        """Make a step: forward pass, backward pass and Adam; return the loss."""
        loss = self.model(x, eps)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of the last step."""
        return {name: p.grad for name, p in self.model.named_parameters()}

    def first_batch(self) -> tuple[np.ndarray, np.ndarray]:
        x, eps = self.batch(self.order[0])
        return x.cpu().numpy(), eps.cpu().numpy()

    def loss_and_gradients(self, x: np.ndarray, eps: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        self.start()
        loss = self.step(torch.from_numpy(x).to(self.device), torch.from_numpy(eps).to(self.device))
        return float(loss), {name: g.cpu().numpy().T.copy() for name, g in self.gradients().items()}

    def losses(self, count: int) -> list[float]:
        self.start()
        return [float(self.step(*self.batch(index))) for index in self.order[:count]]

    def epoch(self) -> None:
        for index in self.order:
            self.step(*self.batch(index))
        if self.device == "cuda":
            torch.cuda.synchronize()


class Compiled(Eager):
    """The whole step, Adam included, as one compiled graph."""

    # These forms were tried on a CPU and are no faster: compiling the loss alone beside the fused Adam, or Adam alone;
    # drawing within the graph; one flat vector; max_autotune; without cpp_wrapper, whose calls between kernels are
    # Python's.
    def __init__(self, net: Net, device: str = "cpu", tf32: bool = False) -> None:
        self.compiled = torch.compile(self._step, options={"cpp_wrapper": True} if device == "cpu" else None)
        super().__init__(net, device, tf32)

    def start(self) -> None:
        super().start()
        if not hasattr(self, "m"):
            self.p = {name: p.detach() for name, p in self.model.named_parameters()}
            self.m, self.v = ({name: torch.zeros_like(p) for name, p in self.p.items()} for _ in "mv")
            self.t = torch.zeros((), device=self.device)
        for tensor in (self.t, *self.m.values(), *self.v.values()):
            tensor.zero_()

    def _step(self, x: Tensor, eps: Tensor) -> Tensor:
        def loss(p: dict[str, Tensor]) -> Tensor:
            return torch.func.functional_call(self.model, p, (x, eps))

        g, value = torch.func.grad_and_value(loss)(self.p)
        self.t.add_(1)
        rate, correct = RATE / (1 - BETA1**self.t), 1 / (1 - BETA2**self.t)
        for name, p in self.p.items():
            self.m[name].mul_(BETA1).add_(g[name], alpha=1 - BETA1)
            self.v[name].mul_(BETA2).addcmul_(g[name], g[name], value=1 - BETA2)
            p.sub_(rate * self.m[name] / ((self.v[name] * correct).sqrt() + EPSILON))
        return value

    def step(self, x: Tensor, eps: Tensor) -> Tensor:
        with torch.no_grad():
            return self.compiled(x, eps)

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of the first step: Adam's first moment after it is (1 - beta1) times the gradient."""
        return {name: m / (1 - BETA1) for name, m in self.m.items()}


class Captured(Compiled):
    """The compiled step on a GPU with its gather and its draws, as one CUDA graph, for the rows in `rows`."""

    def __init__(self, net: Net, device: str = "cuda", tf32: bool = False) -> None:
        super().__init__(net, device, tf32)
        self.rows, side = self.order[0].clone(), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # these calls compile the step before it is captured
            for _ in range(3):
                self.step(*self.batch(self.rows))
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = self.step(*self.batch(self.rows))

    def replay(self, index: Tensor) -> Tensor:
        self.rows.copy_(index)
        self.graph.replay()
        return self.loss

    def losses(self, count: int) -> list[float]:
        self.start()
        return [float(self.replay(index)) for index in self.order[:count]]

    def epoch(self) -> None:
        for index in self.order:
            self.replay(index)
        torch.cuda.synchronize()
