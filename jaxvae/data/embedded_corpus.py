"""The embedded corpus: a small model of how music is tagged, whose likelihood is known exactly.

A row has five hidden factors: style, mood, tempo, players, and the amount of detail that the
listener gave. Style influences mood, tempo and players; mood influences tempo. Given the factors,
tags are independent: a tag is present if any of its causes in `embedded_corpus_tables` fires (a
noisy-or), so every probability is a sum over the few thousand factor states. Rows are drawn on the
condition that they have 1 to `max_tags` tags, as described music has; each method says whether its
probability is conditional on that.
"""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxvae.data.embedded_corpus_tables import (
    DETAIL,
    FAMILIES,
    MAX_PROBABILITY,
    MOODS,
    OUTSIDE_ONLY,
    OUTSIDE_TAGS,
    OUTSIDE_TOO,
    PLAYERS,
    SCALES,
    STRAY_RATE,
    STYLE_WEIGHTS,
    STYLES,
    TEMPO_GIVEN_MOOD,
    TEMPOS,
)
from jaxvae.data.taxonomy import Taxonomy

_DRAWN_AT_ONCE = 4096  # Changing it changes the rows that a seed gives.
_SCORED_AT_ONCE = 512


@dataclass(frozen=True)
class Draw:
    """Sampled rows, both as raw tag strings and as tag ids.

    Attributes:
        tags: [N] lists of tag texts, in no particular order, some from outside the taxonomy.
        columns: [N] lists of columns, rising; empty where a row has only outside tags.
        factors: [N] indices of each factor's values, by the factor's name; also set for rows with
            only outside tags.
    """

    tags: list[list[str]]
    columns: list[list[int]]
    factors: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Corpus:
    """A mixture over factor states in which tags are independent given the state.

    Attributes:
        taxonomy: V tags.
        factors: the names of each factor's values, by the factor's name; the states are their
            product, the last factor varying fastest.
        log_prior: [S] log p(state), float64, -inf allowed.
        tag_probs: [S, V] p(tag present | state), strictly between 0 and 1, float64.
        max_tags: the greatest number of tags of the taxonomy in a drawn row; the least is one.
        outside_tags: further texts, none of them in the taxonomy, that drawn rows may hold.
    """

    taxonomy: Taxonomy
    factors: dict[str, tuple[str, ...]]
    log_prior: np.ndarray
    tag_probs: np.ndarray
    max_tags: int = 14
    outside_tags: tuple[str, ...] = tuple(tag.strip() for tag in OUTSIDE_TAGS.split(","))

    def __post_init__(self):
        states = int(np.prod([len(values) for values in self.factors.values()]))
        if self.log_prior.shape != (states,):
            raise ValueError(f"log_prior has shape {self.log_prior.shape}, not ({states},)")
        if self.tag_probs.shape != (states, self.taxonomy.num_tags):
            expected = (states, self.taxonomy.num_tags)
            raise ValueError(f"tag_probs has shape {self.tag_probs.shape}, not {expected}")
        if not (np.all(self.tag_probs > 0) and np.all(self.tag_probs < 1)):
            raise ValueError("tag_probs must lie strictly between 0 and 1")
        if abs(np.exp(self.log_prior).sum() - 1) > 1e-9:
            raise ValueError("log_prior is not that of probabilities which sum to 1")
        overlap = self.taxonomy.columns(self.outside_tags, on_unknown="ignore")
        if overlap:
            raise ValueError(f"outside tags {self.taxonomy.names(overlap)} are in the taxonomy")

    def draw(self, num_rows: int = 5500, seed: int = 0) -> Draw:
        """Draws rows of 1 to `max_tags` tags, determined by the seed.

        The first rows of a longer draw are those of a shorter one. A few rows hold tags from
        outside the taxonomy too (`OUTSIDE_TOO`) or only such tags (`OUTSIDE_ONLY`); these rows are
        chosen independently of everything else, so the rows that keep a column follow the model.

        Args:
            num_rows: N, at least 1.
            seed: any non-negative integer.

        Raises:
            ValueError: `num_rows` is less than 1, `seed` is negative, or this model almost never
                gives an allowed number of tags.
        """
        if num_rows < 1:
            raise ValueError(f"num_rows must be at least 1, not {num_rows}")
        tags: list[list[str]] = []
        columns: list[list[int]] = []
        states: list[np.ndarray] = []
        for part_tags, part_columns, part_states in self._draw_chunks(seed):
            tags += part_tags
            columns += part_columns
            states.append(part_states)
            if len(tags) >= num_rows:
                break
        shape = [len(values) for values in self.factors.values()]
        indices = np.unravel_index(np.concatenate(states)[:num_rows], shape)
        factors = dict(zip(self.factors, indices, strict=True))
        return Draw(tags[:num_rows], columns[:num_rows], factors)

    def draw_tags(self, num_rows: int, seed: int = 0) -> Iterator[list[str]]:
        """Yields the tags of the rows that `draw` gives, a chunk of them in memory at a time."""
        rows = (tags for part_tags, _, _ in self._draw_chunks(seed) for tags in part_tags)
        return itertools.islice(rows, num_rows)

    def _draw_chunks(self, seed: int) -> Iterator[tuple[list, list, np.ndarray]]:
        for number in itertools.count():
            chunk = self._draw_chunk(seed, number)
            if not chunk[0]:
                raise ValueError(f"under one row in {_DRAWN_AT_ONCE} has 1 to {self.max_tags} tags")
            yield chunk

    def _draw_chunk(self, seed: int, chunk: int) -> tuple[list, list, np.ndarray]:
        rng = np.random.default_rng([seed, chunk])
        edges = np.cumsum(np.exp(self.log_prior))
        state = np.searchsorted(edges, rng.random(_DRAWN_AT_ONCE) * edges[-1], side="right")
        present = rng.random((len(state), self.taxonomy.num_tags)) < self.tag_probs[state]
        # State and tags are rejected together: keeping the state would draw from another model.
        size = present.sum(axis=1)
        allowed = (size >= 1) & (size <= self.max_tags)
        state, present = state[allowed], present[allowed]

        fate = rng.random(len(state))
        present[fate < OUTSIDE_ONLY] = False
        extra = np.where(fate < OUTSIDE_ONLY + OUTSIDE_TOO, rng.integers(1, 4, len(state)), 0)
        rank = rng.random((len(state), len(self.outside_tags))).argsort(axis=1).argsort(axis=1)
        mentioned = np.concatenate([present, rank < extra[:, None]], axis=1)

        row, word = np.nonzero(mentioned)
        shuffled = word[np.lexsort((rng.random(len(row)), row))]
        words = np.array(self.taxonomy.tags + self.outside_tags, dtype=object)
        tags = _split(words[shuffled].tolist(), mentioned)
        return tags, _split(np.nonzero(present)[1].tolist(), present), state

    def log_likelihood(self, rows: np.ndarray) -> np.ndarray:
        """Returns log p(x), in nats [N], not conditional on the number of tags.

        Args:
            rows: [N, K] integer columns of the tags present, padded with V.

        Raises:
            ValueError: `rows` is not two-dimensional and integer, or holds a number beyond 0..V.
        """
        batches = [_log_sum_exp(joint)[:, 0] for joint in self._log_joint(rows)]
        return np.concatenate([np.zeros(0), *batches])

    def log_likelihood_given_allowed(self, rows: np.ndarray) -> np.ndarray:
        """Returns log p(x | 1 <= |x| <= max_tags), in nats [N]; -inf for rows of other sizes.

        This is the distribution that `draw` draws from.

        Args:
            rows: [N, K] integer columns of the tags present, padded with V.

        Raises:
            ValueError: as in `log_likelihood`.
        """
        size = self._multi_hot(rows).sum(axis=1)
        allowed = (size >= 1) & (size <= self.max_tags)
        return np.where(allowed, self.log_likelihood(rows) - self.log_prob_allowed(), -np.inf)

    def log_prob_allowed(self) -> float:
        """Returns log P(1 <= |x| <= max_tags), exactly, in nats."""
        return float(np.log(self.size_probs[1:].sum()))

    @functools.cached_property
    def size_probs(self) -> np.ndarray:
        """Unconditional P(|x| = k) for k = 0 .. max_tags, [max_tags + 1]."""
        # Poisson-binomial, a tag at a time; sizes beyond max_tags fall off the end.
        sizes = np.zeros((len(self.log_prior), self.max_tags + 1))
        sizes[:, 0] = 1.0
        for present in self.tag_probs.T[:, :, None]:
            grown = sizes * (1 - present)
            grown[:, 1:] += sizes[:, :-1] * present
            sizes = grown
        return np.exp(self.log_prior) @ sizes

    def posterior(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the exact p(value | x) of every factor, [N, number of values].

        Conditioning on the number of tags makes no difference, since that is a function of x.

        Args:
            rows: [N, K] integer columns of the tags present, padded with V.

        Raises:
            ValueError: as in `log_likelihood`.
        """
        shape = [len(values) for values in self.factors.values()]
        values = np.unravel_index(np.arange(len(self.log_prior)), shape)
        # One column of ones and zeros for each value: the states that have it.
        has = np.concatenate([np.eye(n)[v] for n, v in zip(shape, values, strict=True)], axis=1)
        batches = [np.exp(joint - _log_sum_exp(joint)) @ has for joint in self._log_joint(rows)]
        probabilities = np.concatenate([np.zeros((0, sum(shape))), *batches])
        edges = np.cumsum(shape)[:-1]
        return dict(zip(self.factors, np.split(probabilities, edges, axis=1), strict=True))

    def _log_joint(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yields log p(x, state), [B, S], for consecutive batches of rows."""
        absent = np.log1p(-self.tag_probs)
        odds = (np.log(self.tag_probs) - absent).T
        base = self.log_prior + absent.sum(axis=1)
        hot = self._multi_hot(rows)
        for start in range(0, len(hot), _SCORED_AT_ONCE):
            yield hot[start : start + _SCORED_AT_ONCE].astype(np.float64) @ odds + base

    def _multi_hot(self, rows: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows)
        width = self.taxonomy.num_tags
        if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.integer):
            raise ValueError(f"rows must be integers [N, K], not {rows.dtype} {list(rows.shape)}")
        if rows.size and (rows.min() < 0 or rows.max() > width):
            raise ValueError(f"rows hold {rows.min()}..{rows.max()}, beyond 0..{width}")
        hot = np.zeros((len(rows), width + 1), dtype=bool)
        np.put_along_axis(hot, rows.astype(np.int64), True, axis=1)
        return hot[:, :width]


@functools.cache
def build_corpus() -> Corpus:
    """Returns the embedded corpus over the shipped taxonomy; every call gives the same object."""
    taxonomy = Taxonomy.load()
    styles, moods, tempos, players = (
        _table(taxonomy, rows) for rows in (STYLES, MOODS, TEMPOS, PLAYERS)
    )
    causes = np.concatenate([styles, moods, tempos, players])
    stray = STRAY_RATE * (1 + np.count_nonzero(causes, axis=0))

    # Axes: style, mood, tempo, players, detail, tag. A tag is absent if every cause stays silent.
    played = styles[:, None, :] * _scales(taxonomy)[None, :, :]
    silent = 1 - stray
    detail = np.array(list(DETAIL.values()))[:, None]
    for cause in (
        played[:, None, None, :, None, :],
        moods[None, :, None, None, None, :],
        tempos[None, None, :, None, None, :],
        players[None, None, None, :, None, :],
    ):
        silent = silent * (1 - np.minimum(cause * detail, MAX_PROBABILITY))

    style, mood, tempo, player = (
        np.array(column, dtype=np.float64)
        for column in zip(*(STYLE_WEIGHTS[name] for name in STYLES), strict=True)
    )
    tempo = tempo[:, None, :] * np.array([TEMPO_GIVEN_MOOD[name] for name in MOODS])
    prior = (
        _shares(style)[:, None, None, None, None]
        * _shares(mood)[:, :, None, None, None]
        * _shares(tempo)[:, :, :, None, None]
        * _shares(player)[:, None, None, :, None]
        * np.full(len(DETAIL), 1 / len(DETAIL))
    )
    with np.errstate(divide="ignore"):  # Combinations that do not occur have log 0.
        log_prior = np.log(prior.ravel())
    factors = {
        "style": tuple(STYLES),
        "mood": tuple(MOODS),
        "tempo": tuple(TEMPOS),
        "players": tuple(PLAYERS),
        "detail": tuple(DETAIL),
    }
    tag_probs = (1 - silent).reshape(-1, taxonomy.num_tags)
    for shared in (log_prior, tag_probs):  # All callers share these arrays: make them read-only.
        shared.setflags(write=False)
    return Corpus(taxonomy, factors, log_prior, tag_probs)


def _table(taxonomy: Taxonomy, rows: dict[str, str]) -> np.ndarray:
    """Returns the probabilities of a table of percentages, [number of rows, V]."""
    table = np.zeros((len(rows), taxonomy.num_tags))
    for index, entries in enumerate(rows.values()):
        for entry in entries.split(","):
            tag, percent = entry.rsplit(maxsplit=1)
            table[index, taxonomy.column(tag)] = float(percent) / 100
    return table


def _scales(taxonomy: Taxonomy) -> np.ndarray:
    """Returns the factor by which each kind of players scales each tag of a style, [players, V]."""
    family = np.array(
        [0 if taxonomy.concept_of(v) == "instrument" else -1 for v in range(taxonomy.num_tags)]
    )
    for number, members in enumerate(FAMILIES.values(), start=1):
        family[taxonomy.columns(members.split(","))] = number
    scales = np.array([(*SCALES[name], 1.0) for name in PLAYERS])
    return scales[:, family]


def _shares(weights: np.ndarray) -> np.ndarray:
    """Normalises weights to probabilities over their last axis."""
    return weights / weights.sum(axis=-1, keepdims=True)


def _log_sum_exp(values: np.ndarray) -> np.ndarray:
    """Returns the log-sum-exp over the last axis, [B, S] to [B, 1]."""
    top = values.max(axis=-1, keepdims=True)
    return top + np.log(np.exp(values - top).sum(axis=-1, keepdims=True))


def _split(flat: list, mask: np.ndarray) -> list[list]:
    """Cuts a flat list into rows, each as long as the number of entries in the mask's row."""
    ends = np.cumsum(mask.sum(axis=1)).tolist()
    return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]
