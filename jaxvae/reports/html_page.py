"""Pieces of a self-contained HTML page: good in light and dark, on a phone and on paper."""

import html
from typing import TYPE_CHECKING

from jaxvae.reports.figures import to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
:root{color-scheme:light dark;--line:#8885;--soft:#8882}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem;overflow-wrap:anywhere}h2{font-size:1.15rem;margin-top:2.2rem}
.verdict{border-left:4px solid #2a7fb8;background:var(--soft);padding:.6rem 1rem}
.verdict p{margin:.35rem 0}.verdict pre{white-space:pre-wrap;overflow-wrap:anywhere}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.92rem}
th,td{text-align:left;padding:.25rem .8rem .25rem 0;border-bottom:1px solid var(--line);
vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr.this{font-weight:600}
svg{display:block;width:100%;height:auto;min-width:20rem}
.small svg{max-width:34rem}pre{overflow-x:auto;background:var(--soft);padding:.6rem;
font-size:.8rem}
figure{margin:1rem 0}ul.sets{padding-left:1.2rem}.note{opacity:.75;font-size:.88rem}
@media print{body{max-width:none}h2{break-after:avoid}figure,tr{break-inside:avoid}}
"""


def document(title: str, sections: list[str]) -> str:
    """Returns a whole page of sections."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        + "".join(sections)
        + "</body></html>\n"
    )


def section(title: str, body: str) -> str:
    """Returns a heading and its body, or "" if the body is empty."""
    return f"<h2>{html.escape(title)}</h2>{body}" if body else ""


def figure(figure: "Figure", *, small: bool = False) -> str:
    """Returns a matplotlib figure as wide as the page, or about half."""
    svg = to_svg(figure)
    return f'<figure class="wide{" small" if small else ""}">{svg}</figure>'


def table(header: list[str], rows: list[list[str]], *, marked: int | None = None) -> str:
    """Returns a table; cells that look like numbers are aligned as such."""

    def cells(row, kind):
        return "".join(
            f"<{kind}{' class=n' if _is_number(cell) else ''}>{html.escape(cell)}</{kind}>"
            for cell in row
        )

    body = "".join(
        f"<tr{' class=this' if number == marked else ''}>{cells(row, 'td')}</tr>"
        for number, row in enumerate(rows)
    )
    head = f"<tr>{cells(header, 'th')}</tr>"
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "").replace("-", "").replace("+", "").isdigit()
