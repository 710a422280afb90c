"""The fields of a config that say where a table has its tags."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the commands know the layouts before NumPy is imported
    from jaxvae.data.encoding import TagBlock

LAYOUTS = ("auto", "column", "trailing", "one_hot", "long")
DEFAULT_COLUMN = "aspect_list"
COLUMN_FIELD = "--config.data.aspect_column"


@dataclass(frozen=True)
class TableFields:
    """Fields that say how a table is read; the names are those of the fields in `data` of a config.

    Attributes:
        layout: one of `LAYOUTS`.
        aspect_column: the column of tags, or several between commas, each a concept.
        separator: what stands between tags of a text; "" finds it.
        group_by: of a row for each tag, the column that says which rows belong together.
        weight_column: of such rows, the column of weights; "" finds it.
        min_weight: the least weight of a tag; 0.0 takes all.
        split_column: the column that says each row's split; "" if none.
    """

    layout: str = "auto"
    aspect_column: str = DEFAULT_COLUMN
    separator: str = ""
    group_by: str = ""
    weight_column: str = ""
    min_weight: float = 0.0
    split_column: str = ""

    @property
    def named_by(self) -> str:
        """The option that names the column of tags, for messages."""
        return COLUMN_FIELD


@dataclass(frozen=True)
class FileFields(TableFields):
    """Fields of a table that a command names, which has no other options than for the column.

    Attributes:
        option: the option that names the column of tags.
    """

    option: str = "--column"

    @property
    def named_by(self) -> str:
        """The option that names the column of tags, for messages."""
        return self.option


@dataclass(frozen=True)
class Reading:
    """A table as it is read.

    Attributes:
        blocks: its rows, in order.
        read_as: what was taken for tags, for people.
    """

    blocks: "Iterator[TagBlock]"
    read_as: str
