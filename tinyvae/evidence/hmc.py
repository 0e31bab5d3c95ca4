"""Hamiltonian Monte Carlo: draws from a density of which only log f(z), without its constant, and its gradient are
known (Duane et al. 1987; Neal 2011, "MCMC using Hamiltonian dynamics").

z is the place of a particle in the potential -log f(z); it gets a momentum r ~ N(0, I) and moves for a while with
the energy

    H(z, r) = -log f(z) + r^T r / 2,    dz/dt = r,    dr/dt = grad log f(z).

Exact motion would keep H, volumes, and be the same backwards. The leapfrog method keeps the last two and H up to
O(step^2), and what it errs by the Metropolis test makes good: the end is accepted with probability min(1, exp(-dH)).
So f / Z is left as it is whatever the step; a good step only makes the draws less alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tinyvae.engine.devices import Array, namespace_of, to_host
from tinyvae.engine.noise import Noise
from tinyvae.engine.program import Program
from tinyvae.engine.tensor import Tensor, grad

TARGET = 0.9  # of the moves are to be accepted (AEVB appendix E)
CHUNK, CHUNK_OF_A_GPU = 2**17, 2**24  # numbers of log f's data that move at once: bounds the memory, and fits caches
JITTER = 0.2  # a step is drawn within +-20 %, so that no orbit closes after just as many steps (Neal 2011, section 3.2)


class Move(NamedTuple):
    """What a transition did, each (chains, batch) float64."""

    acceptance: Array  # min(1, exp(-dH)), the probability of the Metropolis test; 0 where dH is not a number
    energy_error: Array  # dH, in nats
    accepted: Array  # the test's outcome


class Chains:
    """Chains that move at once, each by itself; those of one datum share a step size.

    The log density and its gradient are recorded as a tape once; moving replays it over fixed buffers.

    Parameters
    ----------
    log_density
        log f(z), (chains, batch) in nats, for a tensor z (chains, batch, latent), in operations of this package; or a
        tuple of it and other tensors. An array that it reads may be changed later, if `refresh` is called then.
    start
        Where the chains begin, (chains, batch, latent), on the device of what `log_density` reads.
    noise
        Draws momenta and decides acceptance, at two sites a transition: chains are the same for the same seed, stream,
        step and first site.

    Attributes
    ----------
    z, log_f, force
        The chains now: places, log f there and its gradient, (chains, batch, latent), (chains, batch), as z.
    beside
        What `log_density` gave beside log f, at the place where it was computed last.

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
        """log f and its gradient at z; the arrays are overwritten by the next call."""
        self._place.data[...] = z
        log_f, force, *self.beside = (tensor.data for tensor in self._program())
        return log_f, force

    def refresh(self) -> None:
        """Compute log f anew where the chains are, after something that it reads has changed."""
        log_f, force = self.at(self.z)
        self.log_f[...], self.force[...] = log_f, force

    def leapfrog(self, z: Array, r: Array, step: Any, steps: int, force: Array) -> tuple[Array, Array, Array, Array]:
        """Move by `steps` steps from place z with momentum r; `force` is the gradient at z.

        Returns the place, the momentum, and log f and its gradient there. `step` broadcasts to z. A step is a shear
        in r, one in z, one in r again, so volumes are kept; with -r at the end it runs back (Neal 2011, section 2.3).
        """
        r = r + 0.5 * step * force  # half a step of the momentum: r(t + step/2)
        for i in range(1, steps + 1):
            z = z + step * r  # z(t + step)
            log_f, force = self.at(z)
            r += (step if i < steps else 0.5 * step) * force  # two half steps meet between two whole ones
        return z, r, log_f, force

    @np.errstate(all="ignore")  # where the energy overflows, the move is refused
    def transition(self, step: Array, steps: int) -> Move:
        """New momenta, `steps` leapfrog steps, and the Metropolis test; `step` (batch,) is each datum's step size."""
        xp, shape, dtype = self.xp, self.log_f.shape, self.z.dtype
        r = self.noise.normal(self.z.shape, dtype).data
        u = self.noise.uniform((2, *shape), np.float64).data
        drawn = (step * (1 + JITTER * (2 * u[1] - 1))).astype(dtype)[..., None]
        before = kinetic(r) - self.log_f
        z, r, log_f, force = self.leapfrog(self.z, r, drawn, steps, self.force)
        change = kinetic(r) - log_f - before
        accepted = xp.log1p(-u[0]) < -change  # the logarithm of a uniform number in (0, 1]; NaN is refused
        for mine, new in ((self.z, z), (self.log_f, log_f), (self.force, force)):
            xp.copyto(mine, new, where=accepted if mine.ndim == 2 else accepted[..., None])
        probability = xp.where(change < math.inf, xp.exp(-xp.maximum(change, 0)), 0)
        return Move(probability, change, accepted)

    def settle(self, step: Array, moves: int, steps: int, target: float = TARGET) -> Array:
        """Make that many transitions to forget the start, and find the step sizes (batch,) that accept `target`."""
        for t in range(1, moves + 1):
            step = tuned(step, self.transition(step, steps).acceptance.mean(0), target, t**-0.6)
        return step


def log_density(distribution: Any, w: Tensor) -> Tensor:
    """The log density of draws by their stable form w (chains, batch, n), in which they are free: (chains, batch).

    w is z for a normal, log z for a Gamma: whatever number it is, there is a draw. z itself would leave its support.
    """
    each = distribution.log_density(w)
    return each.sum(-1) if each.ndim == w.ndim else each


def kinetic(r: Array) -> Array:
    """r^T r / 2, summed in float64."""
    return 0.5 * (r * r).sum(-1, dtype=np.float64)


def tuned(step: Array, acceptance: Array, target: float, gain: float) -> Array:
    """A larger step where more than `target` was accepted, a smaller one where less (Andrieu & Thoms 2008, eq. (16)).

    log step' = log step + gain (acceptance - target). A step that is still tuned depends on where its chain has been,
    and then the draws are not exactly from f: whoever measures keeps it fixed.
    """
    return step * namespace_of(step).exp(gain * (acceptance - target))


def first_step(chains: Chains) -> Array:
    """Where tuning begins, (batch,): 1/2 for a density of width 1, and the usual shrinking with the dimension."""
    return chains.xp.full(chains.z.shape[1], 0.5 * chains.z.shape[-1] ** -0.25)


# ---- what several files of estimates share ---------------------------------------------------------------------------


class Tally:
    """How the moves of each datum's chains went, in constant memory."""

    def __init__(self, batch: int) -> None:
        self.moves, (self._probability, self._accepted, self._error) = 0, np.zeros((3, batch))

    def add(self, move: Move) -> None:
        """Count one transition of some chains."""
        error = abs(move.energy_error)
        error[~move.accepted] = 0
        self.moves += len(error)
        self._probability += to_host(move.acceptance.sum(0))
        self._accepted += to_host(move.accepted.sum(0))
        self._error += to_host(error.sum(0))

    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean acceptance probability, and the mean |dH| of accepted moves in nats, each (batch,)."""
        with np.errstate(all="ignore"):  # NaN where nothing was counted
            return self._probability / np.float64(self.moves), self._error / self._accepted


def groups(chains: int, x: Tensor) -> Iterator[int]:
    """The sizes of the groups in which so many chains for each row of x are run one after the other."""
    size = max(1, (CHUNK if x.device == "cpu" else CHUNK_OF_A_GPU) // x.size)
    for start in range(0, chains, size):
        yield min(size, chains - start)
