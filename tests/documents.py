"""The code in the documents, to be run as it stands."""

from tests.conftest import ROOT


def python_block(document: str, heading: str | None = None) -> str:
    """The first block of Python in a document, or below one of its headings."""
    text = (ROOT / "docs" / document).read_text()
    if heading is not None:
        _, found, text = text.partition(f"\n## {heading}\n")
        assert found, f"{document} has no heading {heading!r}"
    return text.partition("```python\n")[2].partition("```")[0]
