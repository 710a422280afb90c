"""Probes the Hugging Face hub, and holds its libraries quiet or offline.

Without a network, the libraries retry for minutes before they use their cache. Here the hub gets a
few seconds to answer; if it does not, only the cache is used.
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
    """Returns the reason why the hub does not answer within `PROBE_SECONDS`, or "" if it does.

    Args:
      endpoint: the hub's address.

    Raises:
      InputError: `endpoint` is not a web address.
    """
    if not endpoint.startswith(("https://", "http://")):
        raise InputError(f"HF_ENDPOINT must begin with https:// or http://, found {endpoint!r}")
    outcome = [f"no answer from {endpoint} in {PROBE_SECONDS:.0f} s"]

    def ask():
        # urllib uses the same proxies from the environment as the library does.
        request = urllib.request.Request(endpoint, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
                outcome[0] = ""
        except urllib.error.HTTPError:
            outcome[0] = ""
        except Exception as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLError):
                outcome[0] = ""  # The hub answers; the library will report what is wrong.
            elif not isinstance(reason, TimeoutError):
                outcome[0] = f"{endpoint} cannot be reached: {one_line(reason)}"

    # A thread, because the look-up of the host's name ignores the timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return outcome[0]


@contextmanager
def held_offline(places: Sequence[Any], on: bool) -> Iterator[None]:
    """Holds libraries in offline mode; their environment variable acts only on import.

    Args:
      places: modules with the switch `HF_HUB_OFFLINE`.
      on: whether to switch them offline; False leaves them as they are.
    """
    previous = [module.HF_HUB_OFFLINE for module in places]
    try:
        for module in places:
            module.HF_HUB_OFFLINE = module.HF_HUB_OFFLINE or on
        yield
    finally:
        for module, value in zip(places, previous, strict=True):
            module.HF_HUB_OFFLINE = value


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Hides the hub's progress bars and the log lines of the named loggers."""
    from huggingface_hub import utils
    from huggingface_hub.utils import logging as configured

    del configured  # Imported early: it sets its log level on import and would undo ours.
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    bars_enabled = not utils.are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    utils.disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars_enabled:
            utils.enable_progress_bars()
