"""TensorBoard's embedding projector: posterior means of some rows, labelled with their tags."""

from pathlib import Path

import numpy as np

from jaxvae.data.cells.tag_lists import quote_tag
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.storage import atomic_files

_CONFIG = """embeddings {{
  tensor_name: "posterior means"
  tensor_shape: {rows}
  tensor_shape: {width}
  tensor_path: "tensors.tsv"
  metadata_path: "metadata.tsv"
}}
"""
_COLUMNS = ("tags", "number of tags", "concept of most tags", "first tag")


def write_projector(folder: Path, mean: np.ndarray, rows: np.ndarray, taxonomy: Taxonomy) -> None:
    """Writes `projector_config.pbtxt`, `tensors.tsv` and `metadata.tsv`.

    The two tables also load in a standalone projector.

    Args:
      folder: the run's folder of TensorBoard files.
      mean: `[N, L]` posterior means.
      rows: `[N, K]` column numbers of the same rows, rising, padded with V.
      taxonomy: what the columns mean.
    """
    line = "\t".join(["%.5g"] * mean.shape[1])
    tensors = "\n".join(line % tuple(values) for values in mean.tolist())
    concepts = [name for name, columns in taxonomy.concepts for _ in columns]
    labels = ["\t".join(_COLUMNS)]
    for row in rows.tolist():
        columns = [column for column in row if column < taxonomy.num_tags]
        owners = [concepts[column] for column in columns]
        tags = taxonomy.names(columns)
        line_of_tags = ", ".join(map(quote_tag, tags))
        # A tie between concepts goes to the first.
        cells = (line_of_tags, str(len(tags)), max(owners, key=owners.count), tags[0])
        labels.append("\t".join(" ".join(cell.split()) for cell in cells))
    atomic_files.write_text(folder / "tensors.tsv", tensors + "\n")
    atomic_files.write_text(folder / "metadata.tsv", "\n".join(labels) + "\n")
    # The config last: it names the other two.
    text = _CONFIG.format(rows=mean.shape[0], width=mean.shape[1])
    atomic_files.write_text(folder / "projector_config.pbtxt", text)
