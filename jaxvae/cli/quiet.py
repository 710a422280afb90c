"""What libraries may say on a user's terminal: nothing."""

import logging
import sys
import warnings


def quiet_libraries() -> None:
    """Libraries tell users about their internals; what matters is raised.

    When a save fails, its other writers fail too, with a traceback each that nobody awaits.
    """
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.FATAL)
    # Compiled programs that can't be kept, for want of room, are compiled again.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    sys.unraisablehook = _except_of_abandoned_writers
    for name in ("orbax", "jax", "datasets", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)


def _except_of_abandoned_writers(unraisable: "sys.UnraisableHookArgs") -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
