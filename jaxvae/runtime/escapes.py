r"""Text that a terminal, a pipe or a file can't hold: what does not fit is escaped, never an error.

The escapes are those of JSON, `\u00e9` and `\ud83c\udfb7`, whatever the encoding, so that JSON
stays the same JSON, and so do the tag lists in CSV. Of a file's name that is no UTF-8 each odd byte
is one (`\udcff`), and a JSON reader gets the name back.
"""

import codecs
import contextlib
import sys
from typing import Any

ERRORS = "jaxvae.runtime.escapes"
"""For `errors=` of whatever encodes."""


def escape_output() -> None:
    """From now on standard output and standard error take any text."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a notebook's streams take any text
        if reconfigure is not None:
            with contextlib.suppress(OSError, ValueError):  # closed
                reconfigure(errors=ERRORS)


def escaped(value: Any) -> Any:
    """Text that every library takes as UTF-8; of a dict, list or tuple all texts in it."""
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
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)), error.end


codecs.register_error(ERRORS, _escape)
