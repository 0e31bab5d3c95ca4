"""`tinyvae classify`: the classes of data, by a run whose model learned from labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tinyvae.cli.options import Data, DataDir, Device, Json, Part, Run, Seed, Use, check_part, opened, opt

SHOWN = 20  # rows of the table


def classify(
    run: Run,
    images: Annotated[Path | None, typer.Argument(help=(
        "Images without labels: a file (.npy, .npz, IDX, a picture) or a folder; of a run of a table, another "
        "table with its columns. By default: the run's test data."
    ))] = None,
    csv: Annotated[Path | None, opt("Write the class and all probabilities of each datum into this file.",
                                    metavar="FILE")] = None,
    part: Part = "test",
    data: Data = None,
    use: Use = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Give the probability of each class, p(y|x), and how often the most probable one is right."""
    from tinyvae import data as data_sets
    from tinyvae import runs
    from tinyvae.cli import display
    from tinyvae.runs import files
    from tinyvae.tasks import classification, inputs

    check_part(part)
    model = runs.load(run, device)
    classification.check_classifier(model)
    model, data_set = opened(run, data, data_dir, device, model)
    if images is None:
        found = classification.classify(model, data_set, part, seed)
    elif data_set.is_table:
        found = classification.classify_images(model, data_sets.rows_of(images, data_set), data_set)
    else:
        rows = inputs.images_of(images, [data_set.shape])
        if rows.shape[1:] != tuple(data_set.shape):
            raise ValueError(f"found images of {' x '.join(map(str, rows.shape[1:]))} pixels in {images}; the run "
                             f"learned from {data_set.size_in_words}")
        found = classification.classify_images(model, rows.reshape(len(rows), -1), data_set)
    if csv is not None:
        files.write_bytes(csv, as_csv(found).encode())
    summary = summarised(found)
    if as_json:
        labels = [None] * len(found.probabilities) if found.labels is None else [
            found.names[i] if i >= 0 else None for i in found.labels]
        print(json.dumps({"classes": list(found.names), "class": [found.names[i] for i in found.classes],
                          "label": labels, "probabilities": found.probabilities.tolist(), **summary}, indent=2))
        return
    what = f"{data_set.name}, {part} data" if images is None else str(images)
    display.console().print(table(found, what), markup=False)
    print(found)
    if csv is not None:
        print(csv)


def summarised(found: Any) -> dict[str, Any]:
    """Accuracy and calibration, where labels are known."""
    from tinyvae.tasks.classification import BINS

    if not len(found.known):
        return {}
    accuracy, error = found.accuracy()
    return {"accuracy": accuracy, "accuracy_stderr": error, "labelled_count": len(found.known),
            "expected_calibration_error": found.calibration().error, "bins": BINS}


def table(found: Any, what: str) -> Any:
    """The first rows: the class of each datum, its probability, the label where one is known, and the runner-up."""
    from rich.table import Table

    count = len(found.probabilities)
    caption = f"{count - SHOWN:,} more of {count:,}: --csv FILE or --json gives all" if count > SHOWN else None
    made = Table(title=f"Classes of {what}", caption=caption)
    for name in ("datum", "class", "probability", "second", "probability", *(["label"] if len(found.known) else [])):
        made.add_column(name, justify="right")
    order = found.probabilities.argsort(1)[:, ::-1]
    for i in range(min(count, SHOWN)):
        cells = [str(i)]
        for k in order[i, :2]:
            cells += [found.names[k], f"{found.probabilities[i, k]:.4f}"]
        if len(found.known):
            cells.append(found.names[found.labels[i]] if found.labels[i] >= 0 else "")
        made.add_row(*cells)
    return made


def as_csv(found: Any) -> str:
    """A line for each datum: its class, its label where one is known, and the probability of every class."""
    import csv
    import io

    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["datum", "class", "label", *(f"p({name})" for name in found.names)])
    for i, row in enumerate(found.probabilities):
        known = found.labels is not None and found.labels[i] >= 0
        lines.writerow([i, found.names[found.classes[i]], found.names[found.labels[i]] if known else "",
                        *(f"{p:.6g}" for p in row)])
    return text.getvalue()
