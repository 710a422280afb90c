"""One column of a table, as its reader yields it."""

from jaxvae.data.readers.tables import open_table


def read_column(path, column):
    """Yields (line, cell) pairs of text formats, and Arrow arrays of typed ones."""
    for item in open_table(path, [column]).rows([column]):
        yield (item[0], item[1][0]) if isinstance(item, tuple) else item.column(0)
