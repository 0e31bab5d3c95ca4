"""The catalogue of the named sets: the files of each, their sizes and SHA-256, and where they come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tinyvae.data import readers
from tinyvae.data.checks import DataError
from tinyvae.data.dataset import PIXELS, DataSet


@dataclass(frozen=True)
class SourceFile:
    """A file with its size in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """A named set.

    Attributes
    ----------
    pixels : the treatment of the pixels if the name has no suffix
    shape, count : (rows, columns) of an image, and the number of training images
    classes : the number of classes of the labels; 0 without labels
    read : a function of the folder of the files that returns the data set with grey values
    folder : the name of its folder within a data folder
    origin : where the files can be found
    mirrors : addresses, to which the file names are appended, in the order in which they are tried
    derived : whether the files were packed from the original files. Other packings hold the same pixels, so loading
        checks the arrays and not the sizes of the files.
    grey_likelihood : the default likelihood of its grey pixels
    fragile : whether the reader can crash on a damaged file, so that loading checks the SHA-256 besides the size
    """

    name: str
    pixels: str
    shape: tuple[int, int]
    count: int
    classes: int
    read: Callable[[Path], DataSet]
    folder: str = ""
    files: tuple[SourceFile, ...] = ()
    origin: str = ""
    mirrors: tuple[str, ...] = ()
    derived: bool = False
    fragile: bool = False
    grey_likelihood: str = PIXELS["gray"]

    def likelihood(self, pixels: str) -> str:
        """The default likelihood for a treatment of the pixels."""
        return self.grey_likelihood if pixels == "gray" else PIXELS[pixels]


DIGITS = Source("digits", "dynamic", (8, 8), 1497, 10, readers.read_digits)

MNIST = Source(
    "mnist", "dynamic", (28, 28), 60000, 10, partial(readers.read_mnist, "mnist"), "mnist",
    files=tuple(map(
        SourceFile, readers.MNIST_FILES, (9912422, 28881, 1648877, 4542),
        (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    )),
    origin="https://storage.googleapis.com/cvdf-datasets/mnist/",
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://github.com/fgnt/mnist/raw/master/",
    ),
)

FASHION_MNIST = Source(
    "fashion-mnist", "dynamic", (28, 28), 60000, 10, partial(readers.read_mnist, "fashion-mnist"),
    folder="fashion-mnist",
    files=tuple(map(
        SourceFile, readers.MNIST_FILES, (26421880, 29515, 4422102, 5148),
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    )),
    origin="https://github.com/zalandoresearch/fashion-mnist",
    mirrors=(
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # the SHA-256 makes http safe
    ),
)

OMNIGLOT = Source(
    "omniglot", "dynamic", (28, 28), 19280, 1623, readers.read_omniglot, "omniglot",
    files=(
        SourceFile(
            "omniglot_28x28.npz", 4142374, "a2a376dfe88158908212c7cee2148b294ec05e4e659ae1b581faf708c3f39815"
        ),
    ),
    origin="images_background.zip and images_evaluation.zip of https://github.com/brendenlake/omniglot, "
    "saved as train_images and test_images (ink = 255, averaged by area from 105x105 to 28x28, uint8) with "
    "train_character and test_character (uint16)",
    derived=True,
)

FREY_FACES = Source(
    "frey-faces", "gray", (28, 20), 1500, 0, readers.read_frey_faces, "freyfaces",
    files=(
        SourceFile(
            "frey_rawface.mat", 1100584, "265a83a23adb081755cd3de375509828e690324d1d60f076b8ecebc840d59c64"
        ),
    ),
    origin="https://cs.nyu.edu/~roweis/data/frey_rawface.mat",
    grey_likelihood="gaussian",
    fragile=True,
)

OLIVETTI = Source(
    "olivetti", "gray", (64, 64), 320, 40, readers.read_olivetti, "olivetti",
    files=(
        SourceFile(
            "olivetti_faces.npz", 1412949, "1bc306c8729a0170c186c82adbabe9ca9b4f3a5bd8a01f37278c167a9f8e6404"
        ),
    ),
    origin="the array `faces` of https://cs.nyu.edu/~roweis/data/olivettifaces.mat, saved as images = "
    "faces.T.reshape(400, 64, 64).transpose(0, 2, 1) and target = np.uint8(np.arange(400) // 10)",
    grey_likelihood="gaussian",
    derived=True,
)

MNIST_BINARIZED = Source(
    "mnist-binarized", "static", (28, 28), 50000, 0, readers.read_mnist_binarized, "binarized-mnist",
    files=(
        SourceFile(
            "binarized_mnist_packed.npz", 2295919,
            "50de2c8299a5a297789293ab2c30f6fc3cb8c359a15e5e88d5501aa18ebb8fa5",
        ),
    ),
    origin="the three .amat files of http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/, "
    "each saved as np.packbits(x, axis=1) under the names train, valid and test",
    derived=True,
)

SOURCES = {
    source.name: source
    for source in (DIGITS, MNIST, FASHION_MNIST, OMNIGLOT, FREY_FACES, OLIVETTI, MNIST_BINARIZED)
}

NAMES = tuple(SOURCES)


def get(name: str) -> Source:
    """The source of a name without suffix; DataError for an unknown name."""
    if name not in SOURCES:
        raise DataError(f"unknown data set {name!r}; expected one of {', '.join(NAMES)}.")
    return SOURCES[name]
