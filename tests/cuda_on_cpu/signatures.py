"""What the real CuPy offers, so that its stand-in offers no more: each name, and the parameters of each function.

`python tests/cuda_on_cpu/signatures.py > tests/cuda_on_cpu/cupy.json`, where CuPy is installed, writes the table that
the stand-in obeys; a card is not needed. Names among the arguments (cupy.cuda.Stream.begin_capture) are described, too.
"""

import importlib
import inspect
import json
import re
import sys
import warnings

MODULES = "cupy", "cupyx.scipy.special"
ARRAY = "cupy.ndarray"


def parameters(thing):
    """The parameters as words, "a axis out * dtype": after * by keyword only; None for what is not called."""
    if not callable(thing):
        return None
    if type(thing).__name__ == "ufunc":
        return "*args out * casting dtype"  # not all of them say it
    try:
        text = str(inspect.signature(thing))
    except (ValueError, TypeError):  # compiled: the first line of the docstring has the signature
        text = (thing.__doc__ or "").strip().partition("\n")[0]
    inside = re.search(r"\((.*)\)", text)
    if not inside:
        return "*args **kwargs"
    words = re.sub(r"'[^']*'|<[^>]*>|\[[^\]]*\]|\([^()]*\)|\\", "", inside[1]).split(",")
    names = [re.split(r"[=:]", word)[0].split() for word in words]
    return " ".join(name[-1] for name in names if name and name[-1] != "self")


def described(others=()):
    """The table: by module the names with their parameters; and of `others` those that exist, and that are modules."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no card
        for name in MODULES:
            importlib.import_module(name)
    table = {}
    for place in (*MODULES, ARRAY):
        thing = find(place)
        names = [name for name in dir(thing) if not (name.startswith("_") or inspect.ismodule(getattr(thing, name)))]
        table[place] = {name: parameters(getattr(thing, name)) for name in names}
    if not others:
        return table
    return table | {"": {name: parameters(find(name)) for name in others if there(name)},
                    "folder": importlib.import_module("cupy_backends").__path__[0],
                    "modules": [name for name in others if is_module(name)]}


def find(path):
    """The thing at a dotted path, which begins with a module that is imported."""
    first, *rest = path.split(".")
    found = sys.modules[first]
    for i, word in enumerate(rest):
        module = sys.modules.get(".".join([first, *rest[: i + 1]]))
        found = getattr(found, word) if hasattr(found, word) or module is None else module
    return found


def there(path):
    try:
        find(path)
    except (KeyError, AttributeError):
        return False
    return True


def is_module(path):
    try:
        importlib.import_module(path)
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    print(json.dumps(described(sys.argv[1:]), indent=0, sort_keys=True))
