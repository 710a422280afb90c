"""Draws tag sets near given latent vectors: variants of rows, and sets between two sets."""

import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxvae.data import encoding
from jaxvae.data.layouts.options import TableFields
from jaxvae.data.row_collector import CollectedRows
from jaxvae.data.sources import open_file
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.inference import queries
from jaxvae.inference.arguments import check_count
from jaxvae.inference.generation import conditioning
from jaxvae.inference.generation.drawing import Generation
from jaxvae.inference.generation.order import LabelledSets, Task
from jaxvae.models.trained import TrainedModel

_PROPOSALS = 64
_ROUNDS = 100
_MOST_IN_VAIN = 1000
_MOST_NUMBERS = 2**22
_STREAM = 7


class Around(NamedTuple):
    """Gaussians of z to draw sets from, one after the other.

    Attributes:
      centre: `[N, L]` means.
      scale: `[N, L]` standard deviations, or zeros.
      label: the column that tells them apart, with its kind.
      values: `[N]` values of that column.
      facts: what a record says of them.
    """

    centre: np.ndarray
    scale: np.ndarray
    label: tuple[str, str]
    values: np.ndarray
    facts: dict


class LikeRows(NamedTuple):
    """Rows to draw variants of.

    Attributes:
      rows: `[N, K]` column numbers padded with V.
      source_row: `[N]` positions of the rows in their file.
      facts: counts of what is left out of the file, for the record.
    """

    rows: np.ndarray
    source_row: np.ndarray
    facts: dict[str, int]


class Variants(Generation):
    """Sets whose z comes from given Gaussians, in proportion to p(constraints | z).

    For each set, z is chosen among 64 draws of its Gaussian with these weights; the tags given z
    meet the constraints exactly.

    Args:
      task: the sets to draw, in all a multiple of the Gaussians.
      around: the Gaussians.

    Raises:
      InputError: as in `Generation`.
    """

    def __init__(self, task: Task, around: Around):
        super().__init__(task)
        self._around, self._each = around, task.order.num // len(around.centre)
        self._tables = task.constraints.tables()
        self.fields = dict([around.label])
        limit = max(1, _MOST_NUMBERS // (task.network.num_tags * _PROPOSALS))
        self._at_once = min(64, task.order.num, limit)
        # With no deviation all draws have the same z.
        self._is_point = ~around.scale.any(axis=1)

    @property
    def sets_are(self) -> str:
        """Says that each set has draws of its own."""
        prefix = "first occurrences among " if self.order.distinct else ""
        return f"{prefix}independent draws, each by one of {_PROPOSALS} z of its own"

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields boolean sets `[n, V]`, those of the first Gaussian first.

        Raises:
          InputError: too few of the sets near a Gaussian are kept.
        """
        for block in self.labelled():
            yield block.sets

    def labelled(self) -> Iterator[LabelledSets]:
        """Yields the sets of `blocks`, each with its Gaussian's label."""
        for first in range(0, len(self._around.centre), self._at_once):
            sets = self._near(first)
            values = self._around.values[first : first + self._at_once]
            temperature = np.full(len(sets), float(self.order.temperature))
            labels = {self._around.label[0]: np.repeat(values, self._each)}
            yield LabelledSets(sets, sets, {"temperature": temperature, **labels})

    def describe(self) -> dict:
        """Returns the facts of the Gaussians."""
        return self._around.facts

    def _near(self, first: int) -> np.ndarray:
        """Draws the sets `[n * each, V]` of some Gaussians, again where some are turned away."""
        stop = min(first + self._at_once, len(self._around.centre))
        accepted: dict[int, list[np.ndarray]] = {number: [] for number in range(first, stop)}
        in_vain = Counter[int]()
        for attempt in range(_ROUNDS + 1):
            lacking = [number for number, so_far in accepted.items() if len(so_far) < self._each]
            if not lacking:
                return np.concatenate([np.stack(so_far) for so_far in accepted.values()])
            if attempt == _ROUNDS or max(map(in_vain.__getitem__, lacking)) >= _MOST_IN_VAIN:
                break
            new_sets = self._draw(np.repeat(lacking, self._each), first, attempt)
            for number, sets in zip(lacking, np.split(new_sets, len(lacking)), strict=True):
                origin = np.zeros(len(sets)) if self._is_point[number] else np.arange(len(sets))
                so_far = accepted[number]
                added = sets[self._keep(sets, origin, self._each - len(so_far))]
                so_far.extend(added)
                in_vain[number] = 0 if len(added) else in_vain[number] + len(sets)
        number = max(lacking, key=in_vain.__getitem__)
        raise InputError(
            f"{self._name(number)}: only {len(accepted[number])} of {self._each} such sets near it "
            f"in {attempt * self._each:,} draws; ask for fewer, or loosen the constraints"
        )

    def _name(self, number: int) -> str:
        return f"{self._around.label[0]} {self._around.values[number]:g}"

    def _draw(self, numbers: np.ndarray, first: int, attempt: int) -> np.ndarray:
        """Draws a set `[n, V]` near each of some Gaussians, by their numbers `[n]`.

        Raises:
          InputError: no set near one of them meets the constraints, or it is too far away.
        """
        size, blocks = self._at_once, []
        key = jax.random.fold_in(jax.random.key(self.order.seed), _STREAM)
        key = jax.random.fold_in(jax.random.fold_in(key, first), attempt)
        for start in range(0, len(numbers), size):
            some = numbers[start : start + size]
            sets, weights = self._run(some, jax.random.fold_in(key, start))
            for at in np.flatnonzero(~np.isfinite(weights).all(axis=1)):
                raise InputError(
                    f"{self._name(some[at])}: so far away that the model's numbers overflow; give "
                    f"a smaller distance, or a temperature nearer to 1"
                )
            for at in np.flatnonzero(~weights.any(axis=1)):
                raise InputError(f"{self._name(some[at])}: no set near it meets the constraints")
            blocks.append(sets)
        return np.concatenate(blocks)

    def _run(self, numbers: np.ndarray, key: jax.Array) -> tuple[np.ndarray, np.ndarray]:
        """Returns a set for each number, and the weights `[n, M]` of the z it was chosen from."""
        network, around = self.network, self._around
        short = [(0, self._at_once - len(numbers)), (0, 0)]
        sets, weights = _program(network.graphdef)(
            network.params,
            network.batch_stats,
            self._tables,
            np.pad(around.centre[numbers], short, mode="edge"),
            np.pad(around.scale[numbers], short, mode="edge"),
            np.float32(self.order.temperature),
            key,
        )
        return np.asarray(sets)[: len(numbers)], np.asarray(weights)[: len(numbers)]


def around_rows(
    network: TrainedModel,
    like: LikeRows,
    *,
    per_row: int,
    distance: float,
) -> Around:
    """Returns the posteriors of rows, as Gaussians to draw variants from.

    Args:
      network: the model.
      like: the rows.
      per_row: sets of each row.
      distance: factor of the posteriors' standard deviations; 0 is their mean.

    Raises:
      InputError: a number is out of range.
    """
    check_count("per_row", per_row)
    if not 0.0 <= distance < float("inf"):
        raise InputError(f"distance {distance}: must be a finite number, 0 or more")
    mean, logvar = queries.posterior(network, like.rows)
    facts = {"rows": len(like.rows), **like.facts, "per_row": per_row, "distance": distance}
    with np.errstate(over="ignore"):
        scale = (distance * np.exp(0.5 * logvar)).astype(np.float32)
    if not np.isfinite(scale).all():
        raise InputError(f"distance {distance:g}: too large a number; 1 is the posterior's own")
    return Around(mean, scale, ("source_row", "count"), like.source_row, {"like": facts})


def around_way(network: TrainedModel, rows: np.ndarray, steps: int) -> Around:
    """Returns Gaussians on the straight way between the posteriors of two rows `[2, K]`.

    Standard deviations go along with the means: means alone lie where z rarely is.

    Raises:
      InputError: there are fewer than two steps.
    """
    check_count("steps", steps)
    if steps < 2:
        raise InputError(f"steps {steps}: both ends are steps, so there are two or more")
    means, logvars = queries.posterior(network, rows)
    position = np.linspace(0.0, 1.0, steps)
    part = position[:, None].astype(np.float32)
    centre, scale = (
        (1.0 - part) * start[None, :] + part * end[None, :]
        for start, end in (means, np.exp(0.5 * logvars).astype(np.float32))
    )
    facts = {"between": {"steps": steps}}
    return Around(centre, scale, ("position", "number"), position, facts)


def read_like(path: Path, taxonomy: Taxonomy, table: TableFields) -> LikeRows:
    """Reads a file's rows of known tags; others are ignored, as in all files of rows.

    Raises:
      InputError: the file can't be read, or has no known tag.
    """
    source = open_file(path, table, taxonomy)
    num_tags = taxonomy.num_tags
    rows = CollectedRows(source.blocks, encoding.make_tag_lookup(taxonomy), num_tags=num_tags)
    rows.check_readable(str(path), 1.0)
    num_rows, num_tagged = rows.num_read, len(rows.lengths)
    if not num_tagged:
        raise InputError(
            f"{path}: none of its {num_rows:,} rows, read as {source.read_as}, has a tag of the "
            f"run's taxonomy; name another column by --column"
        )
    padded = encoding.pad_ragged(rows.columns, rows.lengths, fill=num_tags, dtype=np.int32)
    facts = {
        "without_known_tag": num_rows - num_tagged - rows.num_unreadable,
        "unreadable": rows.num_unreadable,
        "unknown_tags": rows.unknown.total(),
    }
    return LikeRows(padded, rows.source_row, facts)


@functools.lru_cache(maxsize=8)
def _program(graphdef: nnx.GraphDef):
    """Builds the compiled draw of a set for every Gaussian of a batch."""

    def draw(params, batch_stats, tables, centre, scale, temperature, key):
        model = nnx.merge(graphdef, params, batch_stats)
        z_key, choice_key, sets_key = jax.random.split(key, 3)
        num, width = centre.shape
        noise = jax.random.normal(z_key, (num, _PROPOSALS, width))
        z = centre[:, None, :] + scale[:, None, :] * noise
        logits = model.decode(z.reshape(-1, width)) / temperature
        weights = conditioning.probability(logits, tables).reshape(num, _PROPOSALS)
        chosen = jax.random.categorical(choice_key, jnp.log(weights), axis=-1)
        at = jnp.arange(num, dtype=chosen.dtype) * _PROPOSALS + chosen
        return conditioning.draw_sets(logits[at], tables, sets_key), weights

    return jax.jit(draw)
