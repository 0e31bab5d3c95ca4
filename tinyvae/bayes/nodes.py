"""A node of a Bayesian network: p(x | parents), as a table or as a function that returns a distribution.

A table is such a function, too. A value of a discrete node is one-hot, so the row of the table that belongs to the
states of the parents is a product: for parents a and b,

    p(x = k | a, b) = sum_ij a_i b_j table_ijk,

and the node is the categorical distribution with these probabilities.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tinyvae.distributions import Categorical, Distribution
from tinyvae.engine.tensor import Tensor

ROUNDING = 1e-9  # how far the sum of a row may be from 1


class Node:
    """A conditional distribution p(x | parents).

    Parameters
    ----------
    conditional
        A table of probabilities, (states of the first parent, ..., own states), whose rows along the last axis have
        the sum 1; or a distribution, for a node without parents; or a function of the values of the parents, in their
        order, that returns one. A function gets each value (samples, n), one-hot of a discrete parent, and returns
        parameters (samples, n), whose last axis is this node's vector.
    parents
        The names of the parents.
    states
        The names of the states of a table, by default 0, 1, 2, ...
    """

    def __init__(self, conditional: Any, parents: Sequence[str] = (), states: Sequence[Any] = ()) -> None:
        if isinstance(parents, str):
            raise TypeError(f"found the parents {parents!r}; expected several names: ({parents!r},)")
        self.parents, self.table = tuple(parents), None
        self.function: Callable[..., Any] | None = conditional if callable(conditional) else None
        self.law = conditional if isinstance(conditional, Distribution) else None
        if self.law is not None and self.parents:
            raise TypeError(f"found a distribution for a node with the parents {', '.join(self.parents)}; expected a "
                            "function of their values that returns one")
        if self.function is None and self.law is None:
            try:
                self.table = np.array(conditional, np.float64)
            except (TypeError, ValueError):
                raise TypeError(f"found {conditional!r:.60} as a conditional distribution; expected a table of "
                                "probabilities, a distribution, or a function that returns one") from None
        if self.table is None and states:
            raise TypeError(f"found the states {', '.join(map(str, states))} of a node without a table; expected "
                            "states of a table alone")
        count = self.table.shape[-1] if self.table is not None and self.table.ndim else 0
        self.states: tuple[Any, ...] = tuple(states) or tuple(range(count))

    def check(self, name: str, parents: Mapping[str, Node]) -> None:
        """Raise ValueError for a table that is none, given the nodes of the parents."""
        if self.table is None:
            return
        for parent, node in parents.items():
            if not node.states:
                raise ValueError(f"found the parent {parent} of {name}, which has no states, so {name} can have no "
                                 "table; expected a function of its value")
        if len(set(self.states)) < len(self.states):
            raise ValueError(f"found the states {', '.join(map(str, self.states))} of {name}; expected a different "
                             "name for each")
        expected = (*(len(node.states) for node in parents.values()), len(self.states))
        if self.table.shape != expected or not self.states:
            axes = " and ".join([*(f"the states of {parent}" for parent in parents), "its own states"])
            raise ValueError(f"found a table of shape {self.table.shape} for {name}; expected {expected}: an axis for "
                             f"{axes}")
        for place in itertools.product(*(range(n) for n in expected[:-1])):
            row = self.table[place]
            if not (row >= 0).all() or not abs(row.sum() - 1) <= ROUNDING:
                where = ", ".join(f"{parent} = {node.states[i]}"
                                  for (parent, node), i in zip(parents.items(), place, strict=True))
                raise ValueError(f"found the row {row.tolist()}{' at ' * bool(where)}{where} in the table of {name}, "
                                 f"with the sum {row.sum():.6g}; expected probabilities with the sum 1")

    def given(self, name: str, values: Sequence[Tensor]) -> Distribution:
        """p(x | parents) at values of the parents, in their order."""
        if self.law is not None:
            return self.law
        if self.function is not None:
            law = self.function(*values)
            if not isinstance(law, Distribution):
                raise TypeError(f"found {type(law).__name__} from the function of {name}; expected a distribution, as "
                                "tv.distributions.Normal(mu, logvar)")
            return law
        assert self.table is not None
        rows = Tensor(self.table.reshape(-1, len(self.states)))
        chosen = None
        for value in values:  # the states of all parents together, one-hot
            chosen = value if chosen is None else _outer(chosen, value)
        p = rows.reshape(-1) if chosen is None else \
            (chosen.reshape(-1, chosen.shape[-1]) @ rows).reshape(*chosen.shape[:-1], len(self.states))
        impossible = p == 0
        return Categorical(impossible.where(-np.inf, impossible.where(1.0, p).log()))

    def tensor(self, name: str, value: Any) -> Tensor:
        """A value as a tensor (..., n); a state as a one-hot vector (n,)."""
        if isinstance(value, Tensor):
            found = value
        elif self.states and np.ndim(value) == 0:
            if value not in self.states:
                raise ValueError(f"found the state {value!r} of {name}; expected one of "
                                 f"{', '.join(map(str, self.states))}")
            return Tensor(np.eye(len(self.states))[self.states.index(value)])
        else:
            found = Tensor(np.atleast_1d(np.asarray(value)))
        if self.states and (found.ndim == 0 or found.shape[-1] != len(self.states)):
            raise ValueError(f"found a value of {name} of shape {found.shape}; expected (..., {len(self.states)}), "
                             "one-hot, or the name of a state")
        return found


def _outer(a: Tensor, b: Tensor) -> Tensor:
    """(..., m) and (..., n) to all their products, (..., m n)."""
    product = a.reshape(*a.shape, 1) * b.reshape(*b.shape[:-1], 1, b.shape[-1])
    return product.reshape(*product.shape[:-2], -1)
