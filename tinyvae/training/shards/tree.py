"""Sums in an order that depends on the number of vectors alone.

Floating numbers added in another order give other bits. A balanced binary tree fixes the order: neighbours are added,
level by level, and an odd last one passes up. So the sum of M vectors is the same whether one process adds all of them,
or each of several processes adds its part of the tree's lowest levels first.
"""

from __future__ import annotations

from collections.abc import Iterable

from tinyvae.engine.devices import Array, namespace_of


class Tree:
    """The sum of vectors that come one after another. It keeps one vector for each level of the tree."""

    def __init__(self, like: Array) -> None:
        self.like, self.count = like, 0
        self.levels: list[Array] = []  # at level l, the sum of 2^l neighbours whose right neighbour has not come yet

    def add(self, vector: Array) -> None:
        """Add the next vector, whose array serves for sums from here on."""
        level = 0
        while self.count >> level & 1:
            vector += self.levels[level]  # the sum of two numbers does not depend on their order
            level += 1
        if level == len(self.levels):
            self.levels.append(namespace_of(self.like).empty(self.like.shape, self.like.dtype))
        self.levels[level][...] = vector
        self.count += 1

    def take(self, out: Array) -> None:
        """Write the sum of all vectors that came into `out`, and begin the next sum; 0 if none came."""
        out[...] = 0
        waiting = [level for level in range(len(self.levels)) if self.count >> level & 1]
        for number, level in enumerate(waiting):  # an odd last one passes up until it meets a neighbour
            out[...] = self.levels[level] if number == 0 else out + self.levels[level]
        self.count = 0


def total(vectors: Iterable[Array], out: Array) -> None:
    """Write the sum of vectors that are all there into `out`; their arrays serve for sums."""
    level = list(vectors)
    while len(level) > 1:
        for left, right in zip(level[::2], level[1::2], strict=False):
            left += right
        level = level[::2]  # with an odd last one
    out[...] = level[0]
