"""The decaying apple: five nodes, each with few states, of which every probability can be computed by hand.

An injury of the skin and spores of a fungus make an apple decay, and hardly one without the other. An apple that decays
gets a brown skin and brown spots; an injury leaves a brown spot, too. We see skin and spots, and ask whether it decays.
"""

from __future__ import annotations

from tinyvae.bayes.network import BayesianNetwork
from tinyvae.bayes.nodes import Node


def decaying_apple() -> BayesianNetwork:
    """The network of the nodes injury, spores, decayed, spots and skin."""
    no_yes = ("no", "yes")
    return BayesianNetwork({
        "injury": Node([0.8, 0.2], (), no_yes),
        "spores": Node([0.75, 0.25], (), no_yes),
        "decayed": Node([[[0.99, 0.01], [0.9, 0.1]],  # no injury: without spores, with
                         [[0.8, 0.2], [0.2, 0.8]]], ("injury", "spores"), no_yes),
        "spots": Node([[[0.95, 0.05], [0.5, 0.5]],  # not decayed: without an injury, with
                       [[0.3, 0.7], [0.1, 0.9]]], ("decayed", "injury"), no_yes),
        "skin": Node([[0.6, 0.3, 0.1],
                      [0.1, 0.15, 0.75]], ("decayed",), ("green", "red", "brown")),
    })  # fmt: skip
