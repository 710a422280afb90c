"""One column of a data set on the Hugging Face hub, through the `datasets` library and its cache.

Without a network the library tries for minutes before it looks into its cache. Here the hub gets a
few seconds to answer anything at all; if it does not, only the cache is asked.
"""

import logging
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxvae.errors import InputError
from jaxvae.tables import ARROW_BATCH, Cells, arrow_cells, check_column

PROBE_SECONDS = 3.0
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
    trouble = "HF_HUB_OFFLINE is set" if offline else _unreachable(datasets.config.HF_ENDPOINT)
    with _quiet(datasets), _offline(datasets, offline or bool(trouble)):
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


def _unreachable(endpoint: str) -> str:
    """Returns why the hub does not answer within `PROBE_SECONDS`, or "" if it does."""
    if not endpoint.startswith(("https://", "http://")):
        raise InputError(f"HF_ENDPOINT must begin with https:// or http://, found {endpoint!r}")
    outcome = [f"no answer from {endpoint} in {PROBE_SECONDS:.0f} s"]

    def ask():
        # urllib takes the same proxies from the environment as the library does.
        request = urllib.request.Request(endpoint, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
                outcome[0] = ""
        except urllib.error.HTTPError:
            outcome[0] = ""
        except Exception as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLError):
                outcome[0] = ""  # It answers; what is wrong is for the library to tell.
            elif not isinstance(reason, TimeoutError):
                outcome[0] = f"{endpoint} cannot be reached: {_one_line(reason)}"

    # A thread, because looking up the host's name obeys no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return outcome[0]


@contextmanager
def _offline(datasets, on: bool) -> Iterator[None]:
    """Holds the libraries in offline mode; their environment variable acts only on import."""
    from huggingface_hub import constants

    places: tuple[Any, ...] = (datasets.config, constants)
    before = [place.HF_HUB_OFFLINE for place in places]
    try:
        for place in places:
            place.HF_HUB_OFFLINE = place.HF_HUB_OFFLINE or on
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


@contextmanager
def _quiet(datasets) -> Iterator[None]:
    """Keeps the libraries' progress bars and log lines off the terminal."""
    from huggingface_hub import utils

    bars = (datasets.enable_progress_bars, utils.enable_progress_bars)
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    shown = datasets.is_progress_bar_enabled(), not utils.are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    datasets.disable_progress_bars()
    utils.disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for enable, was in zip(bars, shown, strict=True):
            if was:
                enable()


def _explain(name: str, split: str, error: Exception, trouble: str) -> str:
    """Says on one line why a data set did not load and what to do."""
    reason = _one_line(error)
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


def _one_line(error: object) -> str:
    text = " ".join(str(error).split())
    return (text if len(text) <= 300 else text[:300] + "...").rstrip(".")
