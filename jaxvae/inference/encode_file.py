"""Latent vectors of a file's rows, one for each input row, as a table others can read."""

import csv
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvae.data import encoding
from jaxvae.data.encoding import make_tag_lookup
from jaxvae.data.readers import tables
from jaxvae.errors import InputError
from jaxvae.inference import queries
from jaxvae.inference.run import Run

SUFFIXES = (".parquet", ".npz", ".csv")


class Latents(NamedTuple):
    """Posteriors of a file's rows, in its order.

    Attributes:
      mean: `[N, L]`; NaN for rows without a known tag.
      logvar: `[N, L]`, likewise.
      row: `[N]` 0-based position of each row in the file.
      without_known_tag: rows that could be read and have none.
      unreadable: rows whose cell is no set of tags.
      unknown_tags: tags met that are not in the taxonomy, repeats counted.
    """

    mean: np.ndarray
    logvar: np.ndarray
    row: np.ndarray
    without_known_tag: int
    unreadable: int
    unknown_tags: int


def encode_file(run: Run, path: Path, column: str | None) -> Latents:
    """Encodes every row of a file.

    Args:
      run: the model.
      path: a file of one of `tables.SUFFIXES`.
      column: where the tags are; None takes the run's own `data.aspect_column`.

    Raises:
      InputError: the file can't be read, has no such column, or no row.
    """
    column = column or run.config.get("data", {}).get("aspect_column", "aspect_list")
    column_of = make_tag_lookup(run.taxonomy)
    num_tags = run.network.num_tags
    parts = []
    unknown = unreadable = 0
    for block in encoding.read_blocks(tables.read_column(path, column), run.taxonomy):
        *part, unknown_here = encoding.encode_block(block, column_of, num_tags)
        parts.append(part)
        unknown += unknown_here.total()
        unreadable += len(block.unreadable)
    if not parts:
        raise InputError(f"{path}: there are column names but no rows")
    columns, lengths = (np.concatenate(part) for part in zip(*parts, strict=True))
    rows = encoding.pad_ragged(columns, lengths, fill=num_tags, dtype=np.int32)
    has = lengths > 0
    if not has.any():
        raise InputError(
            f"{path}: none of its {len(has):,} rows has a tag of the run's taxonomy in column "
            f"{column!r}; name another with --column"
        )
    mean, logvar = queries.posterior(run.network, rows)
    mean[~has], logvar[~has] = np.nan, np.nan
    without = int((~has).sum()) - unreadable
    return Latents(mean, logvar, np.arange(len(has)), without, unreadable, unknown)


def write_latents(path: Path, latents: Latents) -> None:
    """Writes `mean`, `logvar` and `row` as Parquet (two columns of lists), `.npz` or CSV.

    A CSV has columns `row`, `mean_0` ..., `logvar_0` ... The file appears whole or not at all.
    """
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _WRITERS[path.suffix](fresh, latents)
        os.replace(fresh, path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise InputError(f"{path}: can't be written: {error.strerror or error}") from error


def _write_parquet(path: Path, latents: Latents) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    def lists(values: np.ndarray):
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])

    table = pa.table(
        {"row": latents.row, "mean": lists(latents.mean), "logvar": lists(latents.logvar)}
    )
    with path.open("wb") as file:  # of a name that is no UTF-8 the library makes nothing
        parquet.write_table(table, file)


def _write_npz(path: Path, latents: Latents) -> None:
    with path.open("wb") as file:
        np.savez(file, mean=latents.mean, logvar=latents.logvar, row=latents.row)


def _write_csv(path: Path, latents: Latents) -> None:
    width = range(latents.mean.shape[1])
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", *(f"mean_{d}" for d in width), *(f"logvar_{d}" for d in width)])
        for number, mean, logvar in zip(latents.row, latents.mean, latents.logvar, strict=True):
            writer.writerow([number, *mean.tolist(), *logvar.tolist()])


_WRITERS = {".parquet": _write_parquet, ".npz": _write_npz, ".csv": _write_csv}
