"""Tables in Parquet files, which pyarrow reads where it is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tinyvae.data.checks import DataError
from tinyvae.data.formats.registry import check_memory, expected, reads
from tinyvae.data.formats.table import Table, column_of


@reads("a Parquet file", b"PAR1", is_data_set=False)
def read_parquet(path: Path) -> Table:
    """The table of a Parquet file."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise DataError(f"{path} is a Parquet file; expected {expected()}: install pyarrow, which reads it, or read it "
                        "with pandas.read_parquet and save it with to_csv.") from None
    try:
        file = parquet.ParquetFile(path)
        check_memory(path, (file.metadata.num_rows, file.metadata.num_columns), np.dtype(np.float64))
        found = file.read()
        return Table(tuple(found.column_names), tuple(column_of(column.to_numpy()) for column in found.columns))
    except DataError:
        raise
    except Exception as error:  # pyarrow's errors are of many types
        raise DataError(f"{path} is a Parquet file that cannot be read ({error}); write it again.") from error
