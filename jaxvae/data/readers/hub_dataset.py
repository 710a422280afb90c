"""Reads one column of a data set on the Hugging Face hub, by the `datasets` library.

The column comes from the library's cache, which keeps the whole data set, or is streamed without a
copy.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from jaxvae.data.readers.hub_client import held_offline, quiet, unreachable
from jaxvae.data.readers.tables import ARROW_BATCH, Cells, arrow_cells, check_column
from jaxvae.errors import InputError, one_line

WAYS_OUT = (
    "ways out: a copy cached earlier (HF_HUB_OFFLINE=1), a local file "
    "(data.dataset_name=clips.csv), or data.dataset_name=embedded"
)


_FIRST_ROWS = re.compile(r"(.+)\[:(\d+)\]")


def read_hub(name: str, split: str, column: str, *, streaming: bool = False) -> tuple[Cells, str]:
    """Opens a hub data set; returns its column's cells and a line that describes the source.

    Args:
        name: the data set's id, "user/name".
        split: one of its splits, as `datasets` writes them; a stream takes a whole split or its
            first rows, `train[:1000]`.
        column: the name of a column.
        streaming: stream the rows (from Parquet files, only this column) without a cached copy.
            The hub must be reachable.

    Raises:
        InputError: the data set, split or column does not exist or may not be read, or the hub is
            unreachable and the data set not in the cache.
    """
    datasets = _import_datasets()
    offline = bool(datasets.config.HF_HUB_OFFLINE)
    trouble = "HF_HUB_OFFLINE is set" if offline else unreachable(datasets.config.HF_ENDPOINT)
    from huggingface_hub import constants

    if streaming:
        if trouble:
            raise InputError(f"cannot stream {name!r}: {trouble}; {WAYS_OUT}")
        cells = _stream(datasets, name, split, column)
        return cells, f"hub data set {name}, split {split}, streamed"
    with _quiet(datasets), held_offline([datasets.config, constants], offline or bool(trouble)):
        try:
            table = datasets.load_dataset(name, split=split)
        except Exception as error:  # Includes exceptions of the HTTP client and of pyarrow.
            raise InputError(_explain(name, split, error, trouble)) from error
    source = f"hub data set {name}, split {split}" + (f", cached ({trouble})" if trouble else "")
    check_column(column, table.column_names, source)
    table = table.select_columns([column]).with_format("arrow")
    return arrow_cells(table.iter(batch_size=ARROW_BATCH), column), source


def _stream(datasets, name: str, split: str, column: str) -> Cells:
    """Streams a column's cells; any exception on the way becomes an InputError."""
    split_name, limit = split, None
    if first := _FIRST_ROWS.fullmatch(split):
        split_name, limit = first[1], int(first[2])
    with _quiet(datasets):
        try:
            table = datasets.load_dataset(name, split=split_name, streaming=True)
            # Files without column names in their metadata have them in their first row.
            names = table.column_names or list(next(iter(table), ()))
            check_column(column, names, f"hub data set {name}")
            try:  # Avoids the download of other columns, such as audio.
                table = datasets.load_dataset(
                    name, split=split_name, streaming=True, columns=[column]
                )
            except (TypeError, ValueError):  # no format that can be read by columns
                table = table.select_columns([column])
            if limit is not None:
                table = table.take(limit)
            yield from arrow_cells(table.with_format("arrow").iter(ARROW_BATCH), column)
        except InputError:
            raise
        except Exception as error:
            raise InputError(_explain(name, split, error, "")) from error


def _import_datasets():
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            "hub data sets need the package datasets (pip install datasets)"
        ) from error
    # Older versions may run a script that comes with the data set.
    if int(datasets.__version__.split(".")[0]) < 4:
        raise InputError(f"datasets {datasets.__version__} is too old; hub data sets need >= 4")
    return datasets


@contextmanager
def _quiet(datasets) -> Iterator[None]:
    """Hides the libraries' progress bars and log lines."""
    bars_enabled = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        with quiet("datasets", "huggingface_hub"):
            yield
    finally:
        if bars_enabled:
            datasets.enable_progress_bars()


def _explain(name: str, split: str, error: Exception, trouble: str) -> str:
    """Explains on one line why a data set did not load, with a remedy."""
    reason = one_line(error)
    if reason.startswith(("Unknown split", "Unrecognized instruction", "Bad split")):
        return f"cannot load split {split!r} of {name!r}: {reason}; set data.dataset_split"
    if trouble:
        return f"cannot load {name!r}: {trouble}, and no cached copy was found; {WAYS_OUT}"
    if "gated" in str(error).lower():
        login = "accept its terms on its page on the hub, then log in (hf auth login, or HF_TOKEN)"
        return f"cannot load {name!r}: the data set is gated; {login}"
    if type(error).__name__ == "DatasetNotFoundError":
        login = "check the spelling; a private one needs a login (hf auth login, or HF_TOKEN)"
        return f"cannot load {name!r}: no such data set on the hub, or it is private; {login}"
    if isinstance(error, ConnectionError):
        return f"cannot load {name!r}: {reason}; {WAYS_OUT}"
    return f"cannot load {name!r}: {one_line(error, kind=True)}; {WAYS_OUT}"
