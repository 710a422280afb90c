"""`explore.html`: one offline file in which a user queries a model by clicking on tags.

The page holds encoder, decoder and prior and computes by itself; this module chooses its contents.
Everything that comes from a taxonomy is data to the page, never markup.
"""

import html
import json
from pathlib import Path

import numpy as np

from jaxvae.config.paths import user_path
from jaxvae.data import encoding
from jaxvae.data.encoding import to_multi_hot
from jaxvae.data.splits import subsample
from jaxvae.errors import InputError
from jaxvae.evaluation import latents, split_metrics
from jaxvae.evaluation.streaming_metrics import ACTIVE_KL
from jaxvae.inference import queries
from jaxvae.inference.run import Run
from jaxvae.reports import explorer_data
from jaxvae.storage import run_files
from jaxvae.storage.atomic_files import write_text

TEMPLATE = Path(__file__).with_name("explorer.html")
MAP_POINTS = 2000
"""Most rows on the map."""


def write_explore(run: Run, *, output: Path | None) -> Path:
    """Writes the page of a run.

    Args:
      run: any run; without rows, as of an imported model, the page shows sampled sets instead.
      output: file to write; None is `explore.html` in the run, or beside a lone `.pth`.

    Raises:
      InputError: the run's rows are damaged, or the file can't be written.
    """
    path = None if output is None else user_path(output)
    if path is None:
        if "source" in run.facts:  # the run's folder is a cache
            raise InputError(f"{run.source} is not a folder here; name the page by --output")
        lone = not run.folder.is_dir()
        path = run.folder.with_suffix(".explore.html") if lone else run.folder / run_files.EXPLORER
    write_text(path, make_page(run))
    return path


def make_page(run: Run) -> str:
    """Returns the page as text; the same run gives the same bytes."""
    network = run.network
    rows, of = _rows(run)
    mean, logvar = queries.posterior(network, rows)
    some = subsample(len(rows), split_metrics.INFORMATION_ROWS)
    name = str(run.config.get("model_name", "vae"))
    data = {
        "name": name,
        "checkpoint": run.facts.get("checkpoint"),
        "epoch": run.facts.get("epoch"),
        "prior_name": network.prior,
        "tags": run.taxonomy.spellings,
        "folded": run.taxonomy.tags,
        "concepts": [
            {"name": concept, "start": columns.start, "stop": columns.stop}
            for concept, columns in run.taxonomy.concepts
        ],
        "network": explorer_data.network_data(network),
        "prior": explorer_data.prior_data(network),
        "bank": explorer_data.prior_sample_bank(network)[0],
        "dimensions": _dimensions(run, rows[some], mean[some], logvar[some]),
        "map": _map(rows, mean, network.num_tags, of),
    }
    head, _, remainder = TEMPLATE.read_text(encoding="utf-8").partition("__TITLE__")
    middle, _, tail = remainder.partition("__DATA__")
    return head + html.escape(name) + middle + _script_json(data) + tail


def _rows(run: Run) -> tuple[np.ndarray, str]:
    """Returns rows `[N, K]` that represent the data, and a description of them."""
    if (run.folder / run_files.ROWS).is_file():
        rows = run.rows("train")
        if len(rows) == 0:
            raise InputError(f"{run.folder}: has no training rows to show")
        return rows, "training rows"
    sets = run.sample_sets(MAP_POINTS, seed=0).multi_hot
    columns = [np.flatnonzero(row).tolist() for row in sets]
    return encoding.pad_tag_ids(columns, run.network.num_tags), "sets the model drew"


def _dimensions(run: Run, rows, mean, logvar) -> list[dict]:
    """Active dimensions, largest KL first, named by the tags that they move."""
    network = run.network
    centre, deviation = queries.prior_moments(network)
    kl = queries.kl_per_dimension(network, mean, logvar).mean(axis=0)
    named = latents.name_dimensions(
        network,
        mean,
        to_multi_hot(rows, network.num_tags),
        kl,
        tags=run.taxonomy.spellings,
        concepts=dict(run.taxonomy.concepts),
    )
    return [
        {
            "dim": dimension["dim"],
            "kl": round(dimension["kl"], 4),
            "rises": [tag for tag, _ in dimension["rises"][:3]],
            "falls": [tag for tag, _ in dimension["falls"][:3]],
            "centre": float(centre[dimension["dim"]]),
            "deviation": float(deviation[dimension["dim"]]),
        }
        for dimension in named
        if dimension["kl"] > ACTIVE_KL
    ]


def _map(rows: np.ndarray, mean: np.ndarray, num_tags: int, of: str) -> dict:
    """Two principal axes of posterior means `[N, L]`, and the positions of some rows on them."""
    centre, axes, explained = latents.principal_axes(mean)
    positions = subsample(len(rows), MAP_POINTS)
    points = (mean[positions] - centre) @ axes.T
    return {
        "of": of,
        "total": len(rows),
        "explained": round(explained, 4),
        "centre": explorer_data.encode_float32(centre),
        "axes": explorer_data.encode_float32(axes),
        "points": explorer_data.encode_float16(points)[0],
        "rows": [[int(v) for v in row if v < num_tags] for row in rows[positions]],
    }


def _script_json(value: dict) -> str:
    """Returns JSON that is safe in a script element: no text in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
