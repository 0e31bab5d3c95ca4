"""Hamiltonian Monte Carlo: draws from a density f(z) / Z of which only log f and its gradient are known (Duane et al.
1987; Neal 2011, "MCMC using Hamiltonian dynamics").

z is the position of a particle in the potential -log f(z). Each transition draws a momentum r ~ N(0, I) and follows

    H(z, r) = -log f(z) + r^T r / 2,    dz/dt = r,    dr/dt = grad log f(z)

for some time. The exact motion conserves the energy H, conserves volume and is reversible. The leapfrog method
conserves volume and is reversible as well, but it changes H by an error dH of O(step^2). The Metropolis test corrects
this error: it accepts the end point with probability min(1, exp(-dH)), so the transition leaves f / Z invariant for
every step size. The step size decides only how similar successive draws are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinyvae.engine.devices import Array, namespace_of
from tinyvae.engine.noise import Noise
from tinyvae.engine.program import Program
from tinyvae.engine.tensor import Tensor, grad

TARGET = 0.9  # the acceptance probability to which step sizes are tuned (AEVB appendix E)
# Each step size is drawn within +-20 %, so that no closed orbit returns to its start in every move (Neal 2011, sec.
# 3.2).
JITTER = 0.2


class Move(NamedTuple):
    """The outcome of a transition; all arrays are (chains, batch)."""

    acceptance: Array  # min(1, exp(-dH)), the probability of the Metropolis test; 0 if dH is NaN
    energy_error: Array  # dH, in nats
    accepted: Array  # whether the end point was accepted


class Chains:
    """Independent chains that move at the same time; the chains of one datum share a step size.

    The log density and its gradient are recorded once, and every move replays the recorded program.

    Parameters
    ----------
    log_density
        A function of a tensor z (chains, batch, latent) that returns log f(z), (chains, batch) in nats, computed with
        operations of this package; or a tuple of log f(z) and further tensors. Arrays that the function reads may
        change later, if `refresh` is called after each change.
    start
        The initial positions, (chains, batch, latent), on the device of the arrays that `log_density` reads.
    noise
        The source of momenta and of acceptance decisions, with two draws in each transition. The chains are a function
        of the seed, stream, step and first site of the noise.

    Attributes
    ----------
    z, log_f, force
        The current positions (chains, batch, latent), log f there (chains, batch), and its gradient, shaped like z.
    beside
        The further tensors of `log_density`, at the positions of its last call.

    Raises
    ------
    ValueError
        If log f has another shape than (chains, batch).
    """

    def __init__(self, log_density: Callable[[Tensor], Any], start: Array, noise: Noise) -> None:
        self.xp, self.noise = namespace_of(start), noise
        place = Tensor(start.copy(), requires_grad=True)
        one = self.xp.ones(start.shape[:-1], start.dtype)

        def with_gradient() -> tuple[Tensor, ...]:
            found = log_density(place)
            value, *beside = found if isinstance(found, tuple) else (found,)
            if value.shape != one.shape:
                raise ValueError(f"found a log density of shape {value.shape} for z {start.shape}; expected "
                                 f"{one.shape}: one number a chain, summed over the latents")
            return value, grad(value, place, one), *beside

        self._place, self._program = place, Program(with_gradient)
        self.z = start.copy()
        self.log_f, self.force = (array.copy() for array in self.at(start))

    def at(self, z: Array) -> tuple[Array, Array]:
        """log f and its gradient at z; the next call overwrites the arrays."""
        self._place.data[...] = z
        log_f, force, *self.beside = (tensor.data for tensor in self._program())
        return log_f, force

    def refresh(self) -> None:
        """Compute log f again at the current positions, after an array that it reads has changed."""
        log_f, force = self.at(self.z)
        self.log_f[...], self.force[...] = log_f, force

    def leapfrog(self, z: Array, r: Array, step: Any, steps: int, force: Array) -> tuple[Array, Array, Array, Array]:
        """Move by `steps` leapfrog steps from position z with momentum r; `force` is the gradient at z.

            r(t + h/2) = r(t) + h/2 grad log f(z(t)),    z(t + h) = z(t) + h r(t + h/2),
            r(t + h)   = r(t + h/2) + h/2 grad log f(z(t + h))                             (Neal 2011, section 2.3)

        Each line is a shear, so volume is conserved; from the end point with momentum -r the same steps lead back.
        Returns the final position and momentum, and log f and its gradient there. The step h broadcasts to z.
        """
        r = r + 0.5 * step * force  # r(t + h/2)
        for i in range(1, steps + 1):
            z = z + step * r  # z(t + h)
            log_f, force = self.at(z)
            r += (step if i < steps else 0.5 * step) * force  # two half steps in r make a whole one
        return z, r, log_f, force

    @np.errstate(all="ignore")  # a move whose energy overflows is rejected
    def transition(self, step: Array, steps: int) -> Move:
        """Draw momenta, make `steps` leapfrog steps and the Metropolis test; `step` (batch,) holds the step sizes."""
        xp, shape, dtype = self.xp, self.log_f.shape, self.z.dtype
        r = self.noise.normal(self.z.shape, dtype).data
        u = self.noise.uniform((2, *shape), np.float64).data
        drawn = (step * (1 + JITTER * (2 * u[1] - 1))).astype(dtype)[..., None]
        before = kinetic(r) - self.log_f
        z, r, log_f, force = self.leapfrog(self.z, r, drawn, steps, self.force)
        change = kinetic(r) - log_f - before
        accepted = xp.log1p(-u[0]) < -change  # log u < -dH for a uniform u in (0, 1]; a NaN is rejected
        for current, new in ((self.z, z), (self.log_f, log_f), (self.force, force)):
            xp.copyto(current, new, where=accepted if current.ndim == 2 else accepted[..., None])
        probability = xp.where(change < math.inf, xp.exp(-xp.maximum(change, 0)), 0)
        return Move(probability, change, accepted)

    def settle(self, step: Array, moves: int, steps: int, target: float = TARGET) -> Array:
        """Make `moves` transitions to forget the start, and find the step sizes (batch,) with acceptance `target`."""
        for t in range(1, moves + 1):
            step = tuned(step, self.transition(step, steps).acceptance.mean(0), target, fading(t))
        return step


def kinetic(r: Array) -> Array:
    """r^T r / 2, summed in float64."""
    return 0.5 * (r * r).sum(-1, dtype=np.float64)


def tuned(step: Array, acceptance: Array, target: float, gain: float) -> Array:
    """A larger step size if more than `target` was accepted, a smaller one if less (Andrieu & Thoms 2008, eq. 16):

        log step' = log step + gain (acceptance - target).

    A tuned step size depends on the past of its chain, so its draws are not exactly from f. Therefore the step size
    stays fixed in the moves that an estimate is made of.
    """
    return step * namespace_of(step).exp(gain * (acceptance - target))


def fading(t: int) -> float:
    """The gain of move t, from 1: ever smaller, so that the step size settles."""
    return t**-0.6


def first_step(n: int) -> float:
    """1/2 n^(-1/4) for n latents, the step size that suits a density of width 1."""
    return 0.5 * n**-0.25


def first_step_size(chains: Chains) -> Array:
    """The step size at which tuning begins, (batch,)."""
    return chains.xp.full(chains.z.shape[1], first_step(chains.z.shape[-1]))
