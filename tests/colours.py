"""Small images in colour for tests: the bundled digits, each in an ink of its own on a dark ground."""

import numpy as np

import tinyvae as tv

INKS = np.array([[1, 0, 0], [0, 1, 0], [0, 0.4, 1], [1, 1, 0]])


def coloured_digits(count=60):
    """(count, 8, 8, 3) uint8, and their labels."""
    data = tv.data.load("digits-gray")
    grey = data.train[:count].reshape(count, 8, 8, 1) / data.scale
    rng = np.random.default_rng(0)
    ink, ground = (found[:, None, None] for found in (INKS[rng.integers(0, 4, count)], 0.3 * rng.random((count, 3))))
    return np.rint(255 * (grey * ink + (1 - grey) * ground)).astype(np.uint8), data.train_labels[:count]


def data_set(count=60):
    images, labels = coloured_digits(count)
    rows, cut = images.reshape(count, -1), count // 2
    return tv.DataSet("made-color", rows[:cut], rows[cut:], (8, 8, 3), 255.0, "color", train_labels=labels[:cut],
                      test_labels=labels[cut:])
