"""One column of a data set on the Hugging Face hub, by the `datasets` library.

From the library's cache, which keeps the whole data set, or as a stream that keeps nothing.
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
    """Opens a hub data set and returns its column's cells and a line that says what was read.

    Args:
        name: the data set's id, "user/name".
        split: one of its splits, as `datasets` writes them; of a stream, all of it or its first
            rows, `train[:1000]`.
        column: the name of a column.
        streaming: read the rows as they come, of Parquet files this column alone, and keep no
            copy. The hub must be within reach.

    Raises:
        InputError: the data set, split or column does not exist or may not be read, or the hub is
            out of reach and the data set not in the cache.
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
        except Exception as error:  # The library lets its HTTP client's and pyarrow's through.
            raise InputError(_explain(name, split, error, trouble)) from error
    source = f"hub data set {name}, split {split}" + (f", cached ({trouble})" if trouble else "")
    check_column(column, table.column_names, source)
    table = table.select_columns([column]).with_format("arrow")
    return arrow_cells(table.iter(batch_size=ARROW_BATCH), column), source


def _stream(datasets, name: str, split: str, column: str) -> Cells:
    """Yields a column's cells while they arrive; what goes wrong on the way is an InputError."""
    part, limit = split, None
    if first := _FIRST_ROWS.fullmatch(split):
        part, limit = first[1], int(first[2])
    with _quiet(datasets):
        try:
            table = datasets.load_dataset(name, split=part, streaming=True)
            # Of files that say it nowhere, the first row does.
            names = table.column_names or list(next(iter(table), ()))
            check_column(column, names, f"hub data set {name}")
            try:  # Else a column of sound would come along, to be left out here.
                table = datasets.load_dataset(name, split=part, streaming=True, columns=[column])
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
    # Older ones may run a script that the data set brings along.
    if int(datasets.__version__.split(".")[0]) < 4:
        raise InputError(f"datasets {datasets.__version__} is too old; hub data sets need >= 4")
    return datasets


@contextmanager
def _quiet(datasets) -> Iterator[None]:
    """Keeps the libraries' progress bars and log lines off the terminal."""
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        with quiet("datasets", "huggingface_hub"):
            yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _explain(name: str, split: str, error: Exception, trouble: str) -> str:
    """Says on one line why a data set did not load and what to do."""
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
