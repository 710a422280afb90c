"""Decides which layout a table has: as the config says, or where that is certain by itself."""

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator

from jaxvae.data.layouts import columns, long_table, one_hot, trailing
from jaxvae.data.layouts.options import COLUMN_FIELD, DEFAULT_COLUMN, Reading, TableFields
from jaxvae.data.layouts.separators import unescape
from jaxvae.data.readers.tables import Table, check_columns, list_names
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError

TAG_COLUMNS = ("tags", "tag", "labels", "label", "tag_list", "taglist")
"""Names of a column of tags that is found without being named."""
_PEEKED = 1000
_LEAST_INDICATORS, _ALMOST_ALL = 4, 0.8


def read_table(table: Table, fields: TableFields, taxonomy: Taxonomy | None) -> Reading:
    """Reads a table's tags.

    Args:
        table: the source.
        fields: what the config says about its layout.
        taxonomy: the known tags, or None.

    Raises:
        InputError: the layout is uncertain, or a column is missing.
    """
    layout = fields.layout
    if layout == "auto":
        layout = _recognise(table, fields, taxonomy)
    _refuse_unused(fields, layout)
    if layout == "long":
        return _read_long(table, fields)
    if layout == "one_hot":
        return _read_one_hot(table, fields)
    if layout == "trailing":
        column = _tag_column(table, fields) or table.names[-1]
        return trailing.read_trailing(table, column, split_column=fields.split_column)
    return columns.read_columns(
        table,
        _named_columns(table, fields),
        separator=unescape(fields.separator),
        split_column=fields.split_column,
        taxonomy=taxonomy,
    )


def _recognise(table: Table, fields: TableFields, taxonomy: Taxonomy | None) -> str:
    if fields.group_by:
        return "long"
    column = _tag_column(table, fields)
    if column and table.names[-1:] == [column] and _has_wide_rows(table):
        return "trailing"
    if fields.aspect_column in table.names or fields.aspect_column != DEFAULT_COLUMN:
        return "column"
    if table.indicators is not None:
        return "one_hot"
    indicators = one_hot.indicator_columns(table, share=1.0) if len(table.names) > 1 else []
    enough = len(indicators) >= max(_LEAST_INDICATORS, _ALMOST_ALL * len(table.names))
    every = len(indicators) == len(table.names)
    known = taxonomy is not None and sum(map(taxonomy.knows, indicators)) > 1
    if column and column in indicators and len(indicators) > 1 and not (enough or known):
        layout = "say --config.data.layout=one_hot, or " * (fields.named_by == COLUMN_FIELD)
        raise InputError(
            f"{table.where}: column {column!r} holds 0 and 1, as {len(indicators) - 1} others do; "
            f"{layout}name the columns of tags by {fields.named_by}"
        )
    if (enough or every or known) and (not column or column in indicators):
        return "one_hot"
    return "column"  # which may be missing


def _refuse_unused(fields: TableFields, layout: str) -> None:
    """Refuses what is given and would do nothing."""
    of_long = ("group_by", "weight_column", "min_weight")
    unused = {
        "long": ("separator",),
        "column": of_long,
        "trailing": ("separator", *of_long),
        "one_hot": ("separator", *of_long),
    }[layout]
    for name in unused:
        if value := getattr(fields, name):
            raise InputError(
                f"--config.data.{name}={value}: does nothing where the layout is "
                f"{layout!r}; leave it out, or set --config.data.layout"
                + "=long and --config.data.group_by"
                * (name in of_long[1:])
            )
    if fields.weight_column and not fields.min_weight:
        raise InputError(
            f"--config.data.weight_column={fields.weight_column}: does nothing without "
            f"--config.data.min_weight"
        )


def _tag_column(table: Table, fields: TableFields) -> str:
    """Returns the one column of tags: the config's, or the only one that is called so; else ""."""
    if fields.aspect_column in table.names:
        return fields.aspect_column
    if fields.aspect_column != DEFAULT_COLUMN:
        return ""
    called = [name for name in table.names if name.casefold() in TAG_COLUMNS]
    return called[0] if len(called) == 1 else ""


def _named_columns(table: Table, fields: TableFields) -> list[str]:
    """Returns the columns of tags; several are between commas.

    Raises:
        InputError: one is missing, repeated, or named twice.
    """
    if column := _tag_column(table, fields):
        return [column]
    listed = [name.strip() for name in fields.aspect_column.split(",") if name.strip()]
    if len(listed) < 2 or not any(name in table.names for name in listed):
        try:
            check_columns([fields.aspect_column], table.names, table.where)
        except InputError as error:
            raise InputError(f"{error}{_other_layouts(table, fields)}") from None
        return [fields.aspect_column]
    check_columns(listed, table.names, table.where)
    if repeated := [name for name, count in Counter(listed).items() if count > 1]:
        raise InputError(f"{fields.named_by}: {repeated[0]!r} is given twice")
    return listed


def _other_layouts(table: Table, fields: TableFields) -> str:
    """Says how to name the columns of tags, or the layout without one."""
    called = [name for name in table.names if name.casefold() in TAG_COLUMNS]
    several = ""
    if fields.aspect_column == DEFAULT_COLUMN and len(called) > 1:
        several = f" ({' and '.join(map(repr, called[:3]))} may both hold tags)"
    way = f"; name the column of tags by {fields.named_by}, several as a,b,c{several}"
    if fields.named_by != COLUMN_FIELD:  # of a command, which has no fields
        return way
    return (
        f"{way}; where each tag has a column of 0 and 1, "
        f"--config.data.layout=one_hot, or a row, --config.data.group_by=COLUMN"
    )


def _read_long(table: Table, fields: TableFields) -> Reading:
    if not fields.group_by:
        raise InputError(
            f"{table.where}: --config.data.layout=long needs the column that says which rows "
            f"belong together: --config.data.group_by=NAME, one of "
            f"{list_names(table.names)}"
        )
    column = _tag_column(table, fields)
    remaining = [name for name in table.names if name not in (fields.group_by, fields.split_column)]
    if not column and fields.aspect_column == DEFAULT_COLUMN and len(remaining) == 1:
        column = remaining[0]
    return long_table.read_long(
        table,
        column or fields.aspect_column,
        group_by=fields.group_by,
        weight_column=fields.weight_column,
        min_weight=fields.min_weight,
        split_column=fields.split_column,
    )


def _read_one_hot(table: Table, fields: TableFields) -> Reading:
    if fields.aspect_column == DEFAULT_COLUMN:
        indicators = one_hot.indicator_columns(table)
        indicators = [name for name in indicators if name != fields.split_column]
    else:
        indicators = [name.strip() for name in fields.aspect_column.split(",") if name.strip()]
    if not indicators:
        raise InputError(
            f"{table.where}: no column holds 0 and 1 (or true and false) alone, among "
            f"{list_names(table.names)}"
        )
    return one_hot.read_one_hot(table, indicators, split_column=fields.split_column)


def _has_wide_rows(table: Table) -> bool:
    """Tests whether some of the first rows of tab-separated text are longer than its first line.

    With commas that is rather a text whose commas are not quoted.
    """
    if table.wide_rows is None or table.reader is None or table.reader[1] != "\t":
        return False
    rows: Iterator = table.wide_rows()
    with contextlib.closing(rows):  # type: ignore[type-var]
        return any(len(row) > len(table.names) for _, row in itertools.islice(rows, _PEEKED))
