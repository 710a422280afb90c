"""Encodes a file's rows and writes their latent vectors, one per input row, as a table."""

import csv
import io
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from jaxvae.data import encoding
from jaxvae.data.encoding import make_tag_lookup
from jaxvae.data.row_collector import CollectedRows
from jaxvae.data.sources import open_file
from jaxvae.errors import InputError
from jaxvae.inference import queries
from jaxvae.inference.run import Run
from jaxvae.storage.atomic_files import atomic_write

SUFFIXES = (".parquet", ".npz", ".csv")


class Latents(NamedTuple):
    """Posteriors of a file's rows, in its order.

    Attributes:
      mean: `[N, L]`; NaN for rows without a known tag.
      logvar: `[N, L]`, likewise.
      row: `[N]` 0-based position of each row in the file.
      without_known_tag: number of readable rows without a known tag.
      unreadable: number of rows whose cell is not a set of tags.
      unknown_tags: number of tags not in the taxonomy, repeats counted.
      read_as: what was taken for tags.
    """

    mean: np.ndarray
    logvar: np.ndarray
    row: np.ndarray
    without_known_tag: int
    unreadable: int
    unknown_tags: int
    read_as: str


def encode_file(run: Run, path: Path, column: str | None) -> Latents:
    """Encodes every row of a file.

    Args:
      run: the model.
      path: a file of one of `tables.SUFFIXES`.
      column: the column of tags; None reads the file as training read its own.

    Raises:
      InputError: the file can't be read, has no such column, or no row.
    """
    source = open_file(path, run.table_fields(column), run.taxonomy)
    num_tags = run.network.num_tags
    collected = CollectedRows(source.blocks, make_tag_lookup(run.taxonomy), num_tags=num_tags)
    collected.check_readable(str(path), 1.0)
    num_rows, num_encoded = collected.num_read, len(collected.lengths)
    if not num_encoded:
        raise InputError(
            f"{path}: none of its {num_rows:,} rows, read as {source.read_as}, has a tag of the "
            f"run's taxonomy; name another column by --column"
        )
    lengths = np.zeros(num_rows, np.int64)
    lengths[collected.source_row] = collected.lengths
    rows = encoding.pad_ragged(collected.columns, lengths, fill=num_tags, dtype=np.int32)
    mean, logvar = queries.posterior(run.network, rows)
    mean[lengths == 0], logvar[lengths == 0] = np.nan, np.nan
    return Latents(
        mean=mean,
        logvar=logvar,
        row=np.arange(num_rows),
        without_known_tag=num_rows - num_encoded - collected.num_unreadable,
        unreadable=collected.num_unreadable,
        unknown_tags=collected.unknown.total(),
        read_as=source.read_as,
    )


def write_latents(path: Path, latents: Latents) -> None:
    """Writes `mean`, `logvar` and `row` as Parquet (two columns of lists), `.npz` or CSV.

    A CSV has columns `row`, `mean_0` ..., `logvar_0` ... The file is written atomically.
    """
    with atomic_write(path) as file:
        _WRITERS[path.suffix](file, latents)


def _write_parquet(file: BinaryIO, latents: Latents) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    def lists(values: np.ndarray):
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])

    table = pa.table(
        {"row": latents.row, "mean": lists(latents.mean), "logvar": lists(latents.logvar)}
    )
    parquet.write_table(table, file)


def _write_npz(file: BinaryIO, latents: Latents) -> None:
    np.savez(file, mean=latents.mean, logvar=latents.logvar, row=latents.row)


def _write_csv(file: BinaryIO, latents: Latents) -> None:
    width = range(latents.mean.shape[1])
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", *(f"mean_{d}" for d in width), *(f"logvar_{d}" for d in width)])
    for number, mean, logvar in zip(latents.row, latents.mean, latents.logvar, strict=True):
        writer.writerow([number, *mean.tolist(), *logvar.tolist()])
    text.detach()  # flushes; the file is closed by whoever opened it


_WRITERS = {".parquet": _write_parquet, ".npz": _write_npz, ".csv": _write_csv}
