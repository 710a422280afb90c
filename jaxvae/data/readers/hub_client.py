"""Whether the Hugging Face hub answers, and its libraries held quiet or offline meanwhile.

Without a network they try for minutes before they look into their cache. Here the hub gets a few
seconds to answer anything at all; if it does not, only the cache is asked.
"""

import logging
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jaxvae.errors import InputError, one_line

PROBE_SECONDS = 3.0


def unreachable(endpoint: str) -> str:
    """Returns why the hub does not answer within `PROBE_SECONDS`, or "" if it does.

    Args:
      endpoint: the hub's address.

    Raises:
      InputError: it is no web address.
    """
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
                outcome[0] = f"{endpoint} cannot be reached: {one_line(reason)}"

    # A thread, because looking up the host's name obeys no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return outcome[0]


@contextmanager
def held_offline(places: Sequence[Any], on: bool) -> Iterator[None]:
    """Holds libraries in offline mode; their environment variable acts only on import.

    Args:
      places: modules with the switch `HF_HUB_OFFLINE`.
      on: whether to; False leaves them as they are.
    """
    before = [place.HF_HUB_OFFLINE for place in places]
    try:
        for place in places:
            place.HF_HUB_OFFLINE = place.HF_HUB_OFFLINE or on
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Keeps the hub's progress bars, and the log lines of these loggers, off the terminal."""
    from huggingface_hub import utils
    from huggingface_hub.utils import logging as configured

    del configured  # it sets its level on import, which is late, and would undo what is set here
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    shown = not utils.are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    utils.disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if shown:
            utils.enable_progress_bars()
