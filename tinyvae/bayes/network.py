"""A Bayesian network: named nodes, each with its parents and a conditional distribution (Kingma & Welling 2019, 1.5).

    p(x_1, ..., x_n) = prod_i p(x_i | parents of x_i)

A directed graph without a cycle says who the parents are, and this product is all that it claims. Sampling goes along
the arrows: a node is drawn once its parents are. Inference goes against them: where all that is not observed is
discrete, Bayes' theorem is a sum over all states,

    p(query | observed) = sum_rest p(query, rest, observed) / sum_hidden p(hidden, observed),

whose number of terms is the product of the numbers of states. Everything else is for `tv.infer`, which takes the log
joint of the same object.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tinyvae.bayes.drawing import Svg, svg
from tinyvae.bayes.nodes import Node
from tinyvae.choices import known, whole
from tinyvae.distributions import Distribution
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.inference.estimators import Term

TERMS = 2**20  # the most states that an exact answer sums over

Values = Mapping[str, Any]  # of nodes by name: tensors or arrays (..., n); of a discrete node one of its states, too


class BayesianNetwork:
    """A joint distribution written as nodes by name: `BayesianNetwork({"z": Node(prior), "x": Node(f, ["z"])})`.

    Parameters
    ----------
    nodes
        Each `tv.Node` by its name, in any order.

    Raises
    ------
    ValueError, TypeError
        For a parent that is no node, a cycle, or a table of the wrong shape or with a row whose sum is not 1.

    Attributes
    ----------
    nodes : the nodes by name, in the order of sampling: parents first
    """

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        if not isinstance(nodes, Mapping) or not nodes:
            raise TypeError(f"found {nodes!r:.60} in place of the nodes; expected them by name: {{'z': tv.Node(...)}}")
        for name, node in nodes.items():
            if not isinstance(node, Node):
                raise TypeError(f"found {node!r:.60} for {name!r}; expected a node: tv.Node(conditional, parents)")
            for parent in node.parents:
                known(f"the parent of {name}", parent, nodes)
        self.nodes = {name: nodes[name] for name in _parents_first({n: node.parents for n, node in nodes.items()})}
        for name, node in self.nodes.items():
            node.check(name, {parent: self.nodes[parent] for parent in node.parents})

    # ---- along the arrows --------------------------------------------------------------------------------------------

    def conditional(self, name: str, values: Values) -> Distribution:
        """p(x_name | parents) at the values of the parents."""
        node = self.nodes[known("a node", name, self.nodes)]
        for parent in node.parents:
            if parent not in values:
                raise ValueError(f"found no value of {parent}, a parent of {name}; expected one of each parent")
        return node.given(name, [self._tensor(parent, values[parent]) for parent in node.parents])

    def sample(self, noise: Noise, samples: int = 1) -> dict[str, Tensor]:
        """Ancestral sampling: each node (samples, n), drawn from its conditional once its parents are drawn.

        The draws are a function of the noise's address alone: the same seed and step give the same values.
        """
        samples, drawn = whole("samples", samples, 1), dict[str, Tensor]()
        for name, node in self.nodes.items():
            law = self.conditional(name, drawn)
            draw = law.sample(noise, 1)[0] if node.parents else law.sample(noise, samples)
            if draw.ndim < 2 or len(draw) != samples:
                raise ValueError(f"found draws of {name} of shape {draw.shape}; expected ({samples}, n): its function "
                                 "has to return parameters (samples, n) for parents (samples, ...)")
            drawn[name] = draw
        return drawn

    # ---- the log joint -----------------------------------------------------------------------------------------------

    def log_joint(self, values: Values) -> Tensor:
        """sum_i log p(x_i | parents), in nats, for a value of every node.

        Values (samples, n) give (samples,). Other leading axes broadcast, as in `log_prob`: the VAE's z (samples,
        batch, latent) and x (batch, pixels) give (samples, batch).
        """
        total: Any = 0.0
        for each in self._each(values).values():
            total = total + each
        return total

    def given(self, observed: Values) -> Callable[[Mapping[str, Tensor]], list[Term]]:
        """log p(x, z) as `tv.infer` takes it: a function of the draws z of all other nodes, x being observed.

        It returns one `tv.Term` for each node, with the latents on which it depends: the node and its parents. So the
        score of a latent is multiplied by its own term and by those of its children alone (Rao-Blackwell).
        """
        seen = {name: self._tensor(name, value) for name, value in observed.items()}
        latents = [name for name in self.nodes if name not in seen]
        if not latents:
            raise ValueError("found a value of every node, which leaves nothing to infer; log_joint gives their log p")

        def log_joint(draws: Mapping[str, Tensor]) -> list[Term]:
            values = seen | {name: draws[name] for name in latents}
            samples, terms = len(values[latents[0]]), []
            for name, each in self._each(values).items():
                rows = each.reshape(samples, -1).sum(-1) if each.ndim and len(each) == samples else \
                    each.sum().broadcast_to(samples)
                terms.append(Term(rows, "", tuple(n for n in (name, *self.nodes[name].parents) if n in latents)))
            return terms

        return log_joint

    def _each(self, values: Values) -> dict[str, Tensor]:
        """log p(x_i | parents) of each node."""
        for name in values:
            known("a node", name, self.nodes)
        if missing := [name for name in self.nodes if name not in values]:
            raise ValueError(f"found no value of {', '.join(missing)}; expected one of each node: "
                             f"{', '.join(self.nodes)}")
        return {name: self.conditional(name, values).log_prob(self._tensor(name, values[name])) for name in self.nodes}

    def _tensor(self, name: str, value: Any) -> Tensor:
        """A value as a tensor (..., n); a state of a discrete node is one-hot."""
        return self.nodes[known("a node", name, self.nodes)].tensor(name, value)

    # ---- against the arrows, where all that is hidden is discrete ----------------------------------------------------

    def posterior(self, query: str, observed: Values | None = None) -> dict[Any, float]:
        """p(query | observed) of each state of a discrete node, by enumeration.

        Raises
        ------
        ValueError
            If a node that is not observed has no states, if there are more than 2^20 terms, or if what is observed has
            the probability 0.
        """
        observed = {} if observed is None else observed
        if known("the query", query, self.nodes) in observed:
            raise ValueError(f"found {query} as the query and among the observed; expected it in one of the two")
        hidden, log_p = self._enumerated(observed)
        total = np.logaddexp.reduce(log_p, axis=None)
        if not total > -np.inf:
            raise ValueError(f"found {_words(observed)}, which has the probability 0; nothing can be concluded from it")
        others = tuple(axis for axis, name in enumerate(hidden) if name != query)
        found = np.exp(np.logaddexp.reduce(log_p - total, axis=others) if others else log_p - total)
        return dict(zip(self.nodes[query].states, found.tolist(), strict=True))

    def log_evidence(self, observed: Values) -> float:
        """log p(observed) in nats, by the same enumeration."""
        return float(np.logaddexp.reduce(self._enumerated(observed)[1], axis=None))

    def _enumerated(self, observed: Values) -> tuple[list[str], np.ndarray]:
        """The hidden nodes, and log p(hidden, observed) with an axis for each."""
        seen = {name: self._tensor(name, value) for name, value in observed.items()}
        for name, value in seen.items():
            if value.ndim != 1:
                raise ValueError(f"found a value of {name} of shape {value.shape}; expected that of one datum, (n,)")
        hidden = [name for name in self.nodes if name not in seen]
        for name in hidden:
            if not self.nodes[name].states:
                raise ValueError(f"found the hidden node {name}, which has no table of states; enumeration needs one, "
                                 "so observe it, or fit q to it with tv.infer")
        sizes = [len(self.nodes[name].states) for name in hidden]
        if math.prod(sizes) > TERMS:
            raise ValueError(f"found {math.prod(sizes):,} joint states of {len(hidden)} hidden nodes; expected at most "
                             f"{TERMS:,}: observe more, or fit q with tv.infer")
        places = np.indices(sizes).reshape(len(sizes), -1)
        states = {name: Tensor(np.eye(size)[place])
                  for name, size, place in zip(hidden, sizes, places, strict=True)}
        return hidden, np.asarray(self.log_joint(seen | states).numpy(), np.float64).reshape(sizes)

    # ---- its graph ---------------------------------------------------------------------------------------------------

    def svg(self, observed: Sequence[str] = ()) -> Svg:
        """The graph as the text of an SVG picture, which a notebook shows; nodes that are observed are grey."""
        for name in observed:
            known("a node", name, self.nodes)
        return svg({name: node.parents for name, node in self.nodes.items()}, observed)

    def _repr_svg_(self) -> str:  # by which a notebook shows it
        return self.svg()

    def __repr__(self) -> str:
        factors = (f"p({name}{' | ' * bool(node.parents)}{', '.join(node.parents)})"
                   for name, node in self.nodes.items())
        return f"BayesianNetwork({' '.join(factors)})"


def _parents_first(parents: Mapping[str, Sequence[str]]) -> list[str]:
    """The names in an order in which each follows its parents; ValueError names a cycle."""
    order: list[str] = []
    while len(order) < len(parents):
        free = [name for name in parents if name not in order and all(p in order for p in parents[name])]
        if not free:  # each of the others has a parent among them, so going from parent to parent closes a cycle
            way = [next(name for name in parents if name not in order)]
            while way[-1] not in way[:-1]:
                way.append(next(p for p in parents[way[-1]] if p not in order))
            cycle = way[way.index(way[-1]):][::-1]
            raise ValueError(f"found the cycle {' -> '.join(cycle)}; expected a graph without one: leave out one of "
                             "these arrows")
        order += free
    return order


def _words(observed: Values) -> str:
    return ", ".join(f"{name} = {value}" for name, value in observed.items())
