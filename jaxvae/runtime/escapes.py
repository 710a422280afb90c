r"""Escapes characters that an output's encoding can't represent, instead of raising an error.

The escapes are JSON's, `\u00e9` and `\ud83c\udfb7`, in any encoding, so that the meaning of JSON
and of tag lists in CSV does not change. Each invalid byte of a file name that is not UTF-8 becomes
one escape (`\udcff`), and a JSON reader gets the name back.
"""

import codecs
import contextlib
import sys
from typing import Any

ERRORS = "jaxvae.runtime.escapes"
"""Name of the error handler, for the `errors` argument of encoders."""


def escape_output() -> None:
    """Makes standard output and standard error accept any text from now on."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a notebook's streams accept any text
        if reconfigure is not None:
            with contextlib.suppress(OSError, ValueError):  # closed
                reconfigure(errors=ERRORS)


def escaped(value: Any) -> Any:
    """Escapes text that is not valid UTF-8, also inside a dict, list or tuple."""
    if isinstance(value, str):
        return value.encode(errors=ERRORS).decode()
    if isinstance(value, dict):
        return {escaped(key): escaped(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(escaped, value))
    return value


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4)), error.end


codecs.register_error(ERRORS, _escape)
