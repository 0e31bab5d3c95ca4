"""Data sets by name or by path, of images or of tables, as plain NumPy arrays.

    import tinyvae as tv
    data = tv.data.load("mnist-dynamic")      # or a path: tv.data.load("faces.npy-gray")
    print(data)                               # mnist-dynamic: 60000 train, 10000 test, 28 x 28, ...

`checks` holds what all images must fulfil; `dataset` defines a data set and the treatments of its pixels. The folder
`formats` reads files, one module a format; `arrays` finds out which array of a file is what, and `rows` brings images
into one form. `sources` is the catalogue of the named sets; `readers` reads each of them, `folders` finds their files,
and `download` fetches the two sets that have public mirrors. `loading` puts these together.
"""

from tinyvae.data.checks import DataError
from tinyvae.data.dataset import PIXELS, DataSet
from tinyvae.data.folders import find, verify
from tinyvae.data.formats.labels import split_labels, with_labels
from tinyvae.data.loading import (
    Outline,
    anywhere,
    as_data_set,
    from_table,
    load,
    outline,
    rows_of,
    ways_to_label,
    with_label,
)
from tinyvae.data.sources import NAMES

__all__ = ["NAMES", "PIXELS", "DataError", "DataSet", "Outline", "anywhere", "as_data_set", "find", "from_table",
           "load", "outline", "rows_of", "split_labels", "verify", "ways_to_label", "with_label", "with_labels"]
