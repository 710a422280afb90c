"""Reads multi-label lines of machine learning: libsvm's, and the extreme-classification text.

Such a line begins with the row's labels, numbers between commas; features follow, which are not
read. The labels are the tags.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxvae.data.readers import containers
from jaxvae.data.readers.tables import Rows, Table, check_columns
from jaxvae.errors import InputError, one_line

LABELS = "labels"


def open_libsvm(path: Path, wanted: Sequence[str]) -> Table:
    """Opens a file of lines such as `3,17 1:0.5 8:1`, read by scikit-learn.

    Raises:
        InputError: a line is malformed.
    """
    del wanted
    with containers.open_plain(path) as file:
        content = file.read()
    return _table(path, "libsvm's lines of labels", lambda: _labels(path, content))


def open_extreme(path: Path, wanted: Sequence[str]) -> Table:
    """Opens a text of the extreme-classification repository: libsvm's lines below three numbers.

    The first line has the numbers of rows, of features and of labels.

    Raises:
        InputError: the first line is another, or the rows are not as many as it says.
    """
    del wanted
    with containers.open_plain(path) as file:
        first, content = file.readline(1000), file.read()
    numbers = first.split()
    if len(numbers) != 3 or not all(number.isdigit() for number in numbers):
        first_line = first[:40].decode(errors="replace").rstrip()
        raise InputError(
            f"{path}: a .txt file is read if it is of the extreme-classification repository, with "
            f"three whole numbers in line 1, found {first_line!r}; name a table .csv or .tsv"
        )

    def labels() -> list[list[str]]:
        rows = _labels(path, content)
        num_rows, num_labels = int(numbers[0]), int(numbers[2])
        if len(rows) != num_rows:
            raise InputError(f"{path}: {len(rows):,} rows where line 1 says {num_rows:,}")
        for number, row in enumerate(rows):
            for label in row:
                if not 0 <= int(label) < num_labels:
                    raise InputError(
                        f"{path}, line {number + 2}: label {label} where line 1 says {num_labels:,}"
                    )
        return rows

    return _table(path, "the extreme-classification text format", labels)


def _table(path: Path, kind: str, read: Callable[[], list[list[str]]]) -> Table:
    def rows(columns: Sequence[str]) -> Rows:
        check_columns(columns, [LABELS], str(path))
        return ((None, [labels] * len(columns)) for labels in read())

    return Table(str(path), [LABELS], rows, kind)


def _labels(path: Path, content: bytes) -> list[list[str]]:
    from sklearn.datasets import load_svmlight_file

    try:
        _, labels = load_svmlight_file(io.BytesIO(content), multilabel=True, zero_based=True)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: malformed lines of labels: {one_line(error)}") from error
    for number, row in enumerate(labels):
        for label in row:
            if not float(label).is_integer():
                raise InputError(
                    f"{path}, row {number} (counted from 0): label {label} is no "
                    f"whole number; labels are numbers between commas"
                )
    if not labels:
        raise InputError(f"{path} is empty")
    return [[str(int(label)) for label in row] for row in labels]
