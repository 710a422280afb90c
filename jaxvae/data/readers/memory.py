"""Makes tables of rows in memory: lists of tags, indicator matrices, data frames and columns.

Neither pandas nor polars is imported: their objects are known by their methods.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxvae.data.readers.tables import Rows, Table, check_columns
from jaxvae.errors import InputError

WHERE = "rows in memory"
TAGS = "tags"


def of_memory(rows: Any, names: Sequence[str] | None = None) -> Table:
    """Returns rows in memory as a table.

    Args:
        rows: a list of lists of tags; a column (pandas, polars, Arrow) of such lists or of texts; a
            data frame or a `datasets.Dataset`, whose layout is found as that of a file; or a matrix
            of 0 and 1, dense or scipy's sparse, `[N, V]`.
        names: of a matrix, the V tags; else None.

    Raises:
        InputError: the rows are of another kind, a value of a matrix is neither 0 nor 1, or names
            are missing or not V.
    """
    if _is_matrix(rows):
        return _of_matrix(rows, names)
    if names is not None:
        raise InputError("names: they are for a matrix of 0 and 1; leave them out")
    if hasattr(rows, "features") and hasattr(rows, "with_format"):
        from jaxvae.data.readers.hub.dataset import of_dataset

        return of_dataset(rows, WHERE)
    if hasattr(rows, "columns") and hasattr(rows, "shape"):
        return _of_frame(rows)
    for method in ("to_pylist", "to_list", "tolist"):
        if hasattr(rows, method):
            rows = getattr(rows, method)()
            break
    if isinstance(rows, str | bytes) or not isinstance(rows, Sequence):
        raise InputError(
            f"{WHERE}: expected a list of lists of tags, a column, a data frame, or a matrix of 0 "
            f"and 1, found {type(rows).__name__}"
        )
    return _of_columns({TAGS: rows})


def _is_matrix(rows: Any) -> bool:
    is_array = isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.dtype.kind in "biuf"
    return is_array or (hasattr(rows, "tocsr") and len(getattr(rows, "shape", ())) == 2)


def _of_matrix(matrix: Any, names: Sequence[str] | None) -> Table:
    import pyarrow as pa
    from scipy import sparse

    num_columns = matrix.shape[1]
    if names is None:
        raise InputError(f"{WHERE}: a matrix of {num_columns} columns needs their names=")
    names = [str(name) for name in names]
    if len(names) != num_columns:
        raise InputError(f"{WHERE}: {len(names)} names for {num_columns} columns")
    hot = sparse.csr_array(matrix)
    hot.sum_duplicates()
    wrong = np.flatnonzero(~np.isin(hot.data, (0, 1)))
    if len(wrong):
        row = int(np.searchsorted(hot.indptr, wrong[0], side="right")) - 1
        raise InputError(
            f"{WHERE}, row {row} (counted from 0): {hot.data[wrong[0]]} in column "
            f"{names[hot.indices[wrong[0]]]!r}, where 0 or 1 is expected"
        )
    hot.eliminate_zeros()
    words = pa.DictionaryArray.from_arrays(pa.array(hot.indices.astype(np.int32)), pa.array(names))
    lists = pa.LargeListArray.from_arrays(pa.array(hot.indptr.astype(np.int64)), words)

    def rows(columns: Sequence[str]) -> Rows:
        check_columns(columns, [TAGS], WHERE)
        yield pa.RecordBatch.from_arrays([lists] * len(columns), names=list(columns))

    return Table(WHERE, [TAGS], rows, "")


def _of_frame(frame: Any) -> Table:
    columns = [str(name) for name in frame.columns]
    lists = {}
    for name, original in zip(columns, frame.columns, strict=True):
        column = frame[original]
        lists[name] = column.to_list() if hasattr(column, "to_list") else list(column)
    return _of_columns(lists)


def _of_columns(columns: dict[str, Sequence[Any]]) -> Table:
    def rows(wanted: Sequence[str]) -> Rows:
        check_columns(wanted, list(columns), WHERE)
        selected = [columns[name] for name in wanted]
        return ((None, list(cells)) for cells in zip(*selected, strict=True))

    return Table(WHERE, list(columns), rows, "")
