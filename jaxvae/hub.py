"""One column of a data set on the Hugging Face hub, by the `datasets` library and its cache."""

from collections.abc import Iterator
from contextlib import contextmanager

from jaxvae.errors import InputError
from jaxvae.hub_access import held_offline, one_line, quiet, unreachable
from jaxvae.tables import ARROW_BATCH, Cells, arrow_cells, check_column

WAYS_OUT = (
    "ways out: a copy cached earlier (HF_HUB_OFFLINE=1), a local file "
    "(data.dataset_name=clips.csv), or data.dataset_name=embedded"
)


def read_hub(name: str, split: str, column: str) -> tuple[Cells, str]:
    """Opens a hub data set and returns its column's cells and a line that says what was read.

    Args:
        name: the data set's id, "user/name".
        split: one of its splits, as `datasets` writes them.
        column: the name of a column.

    Raises:
        InputError: the data set, split or column does not exist or may not be read, or the hub is
            out of reach and the data set not in the cache.
    """
    datasets = _import_datasets()
    offline = bool(datasets.config.HF_HUB_OFFLINE)
    trouble = "HF_HUB_OFFLINE is set" if offline else unreachable(datasets.config.HF_ENDPOINT)
    from huggingface_hub import constants

    with _quiet(datasets), held_offline([datasets.config, constants], offline or bool(trouble)):
        try:
            table = datasets.load_dataset(name, split=split)
        except Exception as error:  # The library lets its HTTP client's and pyarrow's through.
            raise InputError(_explain(name, split, error, trouble)) from error
    source = f"hub data set {name}, split {split}" + (f", cached ({trouble})" if trouble else "")
    check_column(column, table.column_names, source)
    table = table.select_columns([column]).with_format("arrow")
    return arrow_cells(table.iter(batch_size=ARROW_BATCH), column), source


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
    if reason.startswith(("Unknown split", "Unrecognized instruction")):
        return f"cannot load split {split!r} of {name!r}: {reason}; set data.dataset_split"
    if trouble:
        return f"cannot load {name!r}: {trouble}, and no cached copy was found; {WAYS_OUT}"
    if "gated" in reason.lower():
        login = "accept its terms on its page on the hub, then log in (hf auth login, or HF_TOKEN)"
        return f"cannot load {name!r}: the data set is gated; {login}"
    if type(error).__name__ == "DatasetNotFoundError":
        login = "check the spelling; a private one needs a login (hf auth login, or HF_TOKEN)"
        return f"cannot load {name!r}: no such data set on the hub, or it is private; {login}"
    if isinstance(error, ConnectionError):
        return f"cannot load {name!r}: {reason}; {WAYS_OUT}"
    return f"cannot load {name!r}: {type(error).__name__}: {reason}; {WAYS_OUT}"
