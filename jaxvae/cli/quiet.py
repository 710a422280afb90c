"""Silences third-party logging."""

import logging
import sys
import warnings


def quiet_libraries() -> None:
    """Silences the logs and warnings of libraries; errors that matter are raised.

    If a save fails, Orbax's other writers also fail, and each prints an un-awaited traceback.
    """
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.FATAL)
    # Programs that don't fit into the compilation cache are compiled again.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    sys.unraisablehook = _except_of_abandoned_writers
    for name in ("orbax", "jax", "datasets", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)


def _except_of_abandoned_writers(unraisable: "sys.UnraisableHookArgs") -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
