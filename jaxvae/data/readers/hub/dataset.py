"""Opens data sets on the Hugging Face hub as tables, by the `datasets` library.

Rows come from the library's cache, which keeps the whole data set, or are streamed without a copy.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from jaxvae.data.readers.arrow_tables import ARROW_BATCH, checked_batches
from jaxvae.data.readers.hub.client import held_offline, quiet, unreachable
from jaxvae.data.readers.tables import Rows, Table, check_columns
from jaxvae.errors import InputError, one_line

WAYS_OUT = (
    "ways out: a copy cached earlier (HF_HUB_OFFLINE=1), a local file "
    "(data.dataset_name=clips.csv), or data.dataset_name=embedded"
)


_FIRST_ROWS = re.compile(r"(.+)\[:(\d+)\]")


def open_hub(name: str, *, split: str, config_name: str = "", streaming: bool = False) -> Table:
    """Opens a split of a hub data set as a table.

    Args:
        name: the data set's id, "user/name".
        split: one of its splits, as `datasets` writes them; a stream takes a whole split or its
            first rows, `train[:1000]`.
        config_name: one of its configurations (subsets); "" for the only one.
        streaming: stream the rows (from Parquet files, only the columns read) without a cached
            copy. The hub must be reachable.

    Raises:
        InputError: the data set, configuration or split does not exist or may not be read, or the
            hub is unreachable and the data set not in the cache.
    """
    datasets = _import_datasets()
    offline = bool(datasets.config.HF_HUB_OFFLINE)
    trouble = "HF_HUB_OFFLINE is set" if offline else unreachable(datasets.config.HF_ENDPOINT)
    from huggingface_hub import constants

    source = f"hub data set {name}" + (f" ({config_name})" if config_name else "")
    identity = (name, config_name or None)
    if streaming:
        if trouble:
            raise InputError(f"cannot stream {name!r}: {trouble}; {WAYS_OUT}")
        return _open_stream(datasets, identity, split, f"{source}, split {split}, streamed")
    with _quiet(datasets), held_offline([datasets.config, constants], offline or bool(trouble)):
        try:
            table = datasets.load_dataset(*identity, split=split)
        except Exception as error:  # Includes exceptions of the HTTP client and of pyarrow.
            raise InputError(_explain(identity, split, error, trouble)) from error
    source += f", split {split}" + (f", cached ({trouble})" if trouble else "")
    return of_dataset(table, source)


def of_dataset(table: Any, source: str) -> Table:
    """Returns a `datasets.Dataset` as a table; numbered classes are read by their names.

    Args:
        table: the data set, in memory or mapped.
        source: a description of it.
    """

    def rows(columns: Sequence[str]) -> Rows:
        check_columns(columns, table.column_names, source)
        selected = table.select_columns(list(columns)).with_format("arrow")
        batches = checked_batches(selected.iter(batch_size=ARROW_BATCH), columns)
        return _named_classes(batches, [table.features[column] for column in columns])

    return Table(source, table.column_names, rows, "")


def _open_stream(datasets, chosen: tuple[str, str | None], split: str, source: str) -> Table:
    """Opens a stream; any exception on the way becomes an InputError."""
    split_name, limit = split, None
    if first := _FIRST_ROWS.fullmatch(split):
        split_name, limit = first[1], int(first[2])
    with _streaming(datasets, chosen, split):
        table = datasets.load_dataset(*chosen, split=split_name, streaming=True)
        # Files without column names in their metadata have them in their first row.
        names = table.column_names or list(next(iter(table), ()))

    def rows(columns: Sequence[str]) -> Rows:
        check_columns(columns, names, source)
        with _streaming(datasets, chosen, split):
            try:  # Avoids the download of other columns, such as audio.
                stream = datasets.load_dataset(
                    *chosen, split=split_name, streaming=True, columns=list(columns)
                )
            except (TypeError, ValueError):  # no format that can be read by columns
                stream = table.select_columns(list(columns))
            if limit is not None:
                stream = stream.take(limit)
            features = [(stream.features or {}).get(column) for column in columns]
            batches = checked_batches(stream.with_format("arrow").iter(ARROW_BATCH), columns)
            yield from _named_classes(batches, features)

    return Table(source, names, rows, "")


@contextmanager
def _streaming(datasets, chosen: tuple[str, str | None], split: str) -> Iterator[None]:
    with _quiet(datasets):
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            raise InputError(_explain(chosen, split, error, "")) from error


def _named_classes(batches: Iterator, features: Sequence[Any]) -> Iterator:
    """Yields record batches with the names of classes in place of their numbers."""
    import pyarrow as pa

    inner = [getattr(feature, "feature", feature) for feature in features]
    names = [getattr(feature, "names", None) for feature in inner]
    for batch in batches:
        if not any(names):
            yield batch
            continue
        columns = [
            column if labels is None else _by_name(column, labels)
            for column, labels in zip(batch.columns, names, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _by_name(column: Any, labels: list[str]) -> Any:
    """Returns an array of class numbers, or of lists of them, by name; -1 is a missing one."""
    import pyarrow as pa
    from pyarrow import compute

    listed = hasattr(column.type, "value_type")
    numbers = compute.list_flatten(column) if listed else column
    texts = pa.array(labels).take(compute.if_else(compute.less(numbers, 0), None, numbers))
    if not listed:
        return texts
    lengths = compute.fill_null(compute.list_value_length(column), 0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    return pa.LargeListArray.from_arrays(offsets, texts)


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


def _explain(chosen: tuple[str, str | None], split: str, error: Exception, trouble: str) -> str:
    """Explains on one line why a data set did not load, with a remedy."""
    name = chosen[0]
    reason = one_line(error)
    if reason.startswith(("Config name is missing", "BuilderConfig")):
        return f"cannot load {name!r}: {reason}; set data.dataset_config"
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
