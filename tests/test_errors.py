"""What an exception says, on one line of any command."""

import pytest

from jaxvae.errors import InputError, one_line


@pytest.mark.parametrize(
    ("error", "line", "with_its_kind"),
    [
        (ValueError("no\n  such\tthing."), "no such thing", "ValueError: no such thing"),
        (AssertionError(), "AssertionError", "AssertionError"),
        (TimeoutError("..."), "TimeoutError", "TimeoutError"),
        (InputError("a.b: wrong"), "a.b: wrong", "InputError: a.b: wrong"),
        ("a reason, which some libraries give", "a reason, which some libraries give", None),
    ],
)
def test_one_line(error, line, with_its_kind):
    assert one_line(error) == line
    if with_its_kind:
        assert one_line(error, kind=True) == with_its_kind


def test_an_error_of_input_is_one_line_whatever_it_quotes():
    assert str(InputError("unknown tag 'slow\r\n  jazz'\n")) == "unknown tag 'slow jazz'"


def test_of_a_long_one_the_beginning_and_the_end_are_kept():
    line = one_line(OSError(f"can't write {'x' * 1000}: No space left on device"), kind=True)
    assert line.startswith("OSError: can't write xxx")
    assert line.endswith("xxx: No space left on device")
    assert " ... " in line
    assert len(line) <= 300
    assert one_line("y" * 300) == "y" * 300
