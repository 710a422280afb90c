"""The embedded corpus: a small model of how music is tagged, whose likelihood is known exactly.

A row has five hidden factors: a style, a mood, a tempo, who plays, and how much detail the listener
gave. Style bears on the other three, mood on tempo. Given the factors, tags are independent: a tag
is present if any of its causes in the tables below fires (a noisy-or), so every probability can be
computed by summing over the few thousand factor states. Rows are drawn on condition that they have
1 to `max_tags` tags, as described music has; methods say which of the two probabilities, with or
without that condition, they give.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxvae.taxonomy import Taxonomy

# Tables: a tag and the percentage of rows in which this cause alone would bring it up.
STYLES = {
    "rock": "rock 62, classic rock 9, hard rock 10, alternative rock 9, indie rock 8, punk rock 7,"
    "progressive rock 5, psychedelic rock 4, rock and roll 7, soft rock 5, folk rock 3, blues 4,"
    "electric guitar 55, bass guitar 36, acoustic drums 41, drums 8, cymbals 7, acoustic guitar 6,"
    "keyboard 4, organ 4, harmonica 2, backbeat 5, rebellious 6, psychedelic 4, youthful 4",
    "metal": "metal 50, heavy metal 43, death metal 19, hard rock 14, rock 10, electric guitar 60,"
    "bass guitar 38, acoustic drums 41, drums 10, cymbals 14, half time feel 4, rebellious 9,"
    "aggressive 17, powerful 8",
    "pop": "pop 62, pop rock 10, synth pop 9, dance pop 11, k-pop 5, latin pop 4, easy listening 6,"
    "soft rock 5, country pop 3, keyboard 24, piano 14, synth 14, electronic drums 24, drums 7,"
    "bass guitar 20, electric guitar 10, acoustic guitar 9, synth bass 8, tambourine 4, clapping 6,"
    "backup singers 17, vocal harmony 10, youthful 9, danceable 9, groovy 6, strings 3",
    "hip hop": "hip hop 67, rap 31, trap 20, r&b 6, rapping 62, drum machine 22, beatboxing 9,"
    "electronic drums 31, synth bass 24, turntable 14, synth 10, keyboard 6, clapping 5,"
    "half time feel 5, syncopated 3, groovy 13, rebellious 9, youthful 6, backup singers 6",
    "soul": "soul 34, r&b 38, funk 26, disco 16, gospel 14, soulful 29, groovy 22, funky 22,"
    "electric piano 17, organ 16, bass guitar 38, brass section 16, acoustic drums 26, drums 6,"
    "electric guitar 17, tambourine 10, clapping 8, saxophone 6, vocal harmony 19, congas 3,"
    "backup singers 26, choir 4, groovy rhythm 14, syncopated 5, sensual 6, spiritual 3",
    "jazz": "jazz 77, big band 9, swing 18, blues 10, bossa nova 6, easy listening 5, piano 41,"
    "upright bass 43, saxophone 31, trumpet 20, trombone 8, clarinet 6, vibraphone 7, flute 3,"
    "acoustic drums 29, cymbals 6, electric guitar 9, brass section 8, electric piano 4, shuffle 5,"
    "syncopated 6, polyrhythms 2, groovy 5, mellow 5",
    "country": "country 58, country pop 8, bluegrass 19, blues 17, folk 8, rock and roll 3,"
    "acoustic guitar 48, slide guitar 20, banjo 22, mandolin 14, fiddle 24, upright bass 14,"
    "harmonica 14, bass guitar 17, acoustic drums 16, electric guitar 8, piano 4, shuffle 7,"
    "steady rhythm 4, nostalgic 5, heartfelt 5, vocal harmony 6",
    "folk": "folk 55, traditional 29, world music 7, folk rock 7, ballad 3, acoustic guitar 41,"
    "accordion 18, fiddle 16, bagpipes 7, flute 10, mandolin 8, harp 6, ukulele 8, violin 5,"
    "harmonica 6, tambourine 6, clapping 4, percussion 6, whistling 4, waltz 6, nostalgic 6,"
    "vocal harmony 6, spirited 4",
    "latin": "latin 41, salsa 22, bossa nova 11, flamenco 14, tango 8, latin pop 11, congas 29,"
    "bongos 20, acoustic guitar 29, percussion 24, shaker 14, cowbell 9, trumpet 19, piano 17,"
    "brass section 10, accordion 6, upright bass 6, bass guitar 9, timpani 1, marimba 3,"
    "dance rhythm 19, syncopated 8, passionate 9, sensual 7, danceable 14",
    "reggae": "reggae 67, ska 16, afrobeat 20, world music 5, bass guitar 41, electric guitar 20,"
    "keyboard 16, organ 10, acoustic drums 20, percussion 17, djembe 8, congas 8, shaker 6,"
    "brass section 9, trombone 4, syncopated 9, polyrhythms 7, groovy 17, groovy rhythm 10,"
    "easygoing 10, chill 8, backup singers 9, saxophone 4",
    "raga": "indian classical 36, middle eastern music 25, traditional 29, world music 20, folk 5,"
    "sitar 31, tabla 48, flute 18, oud 18, percussion 18, violin 8, didgeridoo 4, djembe 5,"
    "clapping 4, synth pad 2, spiritual 11, hypnotic 8, meditative 9, polyrhythms 4, strings 6",
    "classical": "classical 74, baroque 16, chamber music 19, orchestral 16, opera 10, piano 29,"
    "violin 29, cello 19, viola 9, harpsichord 8, harp 7, strings 30, orchestra 29, flute 9,"
    "clarinet 6, oboe 7, french horn 7, timpani 6, choir 8, organ 4, waltz 7, free time 4,"
    "marching rhythm 3, tuba 3, trumpet 3, dramatic 5",
    "dance": "electronic music 38, edm 31, house 19, techno 25, trance 17, dubstep 8, electro 18,"
    "drum & bass 7, dance music 29, disco 3, synth 41, synth bass 24, electronic drums 41,"
    "drum machine 18, synth pad 9, turntable 5, clapping 4, dance rhythm 17, steady rhythm 6,"
    "half time feel 2, danceable 24, groovy 7, hypnotic 8, exciting 5",
    "ambient": "ambient 60, new age 25, downtempo 16, experimental 18, electronic music 9,"
    "synth pad 43, synth 19, bells 14, theremin 6, flute 7, didgeridoo 5, harp 5, piano 8,"
    "free time 6, atmospheric 26, meditative 18, ethereal 18, dreamy 16, hypnotic 7, choir 2,"
    "electric guitar 3",
    "soundtrack": "movie soundtrack 50, video game music 20, orchestral 36, experimental 2,"
    "orchestra 31, strings 34, brass section 17, timpani 14, french horn 9, choir 16, piano 14,"
    "cello 6, synth pad 9, percussion 9, tuba 4, theremin 3, cymbals 5, marching rhythm 5, epic 24,"
    "dramatic 20, atmospheric 7, suspenseful 7, bells 3",
    "nursery": "children's song 55, lullaby 24, christmas song 24, xylophone 18, music box 11,"
    "ukulele 16, piano 20, bells 18, acoustic guitar 10, clapping 8, whistling 7, choir 9,"
    "marimba 7, tuba 3, marching rhythm 5, waltz 4, playful 17, fun 8, funny 5, keyboard 5",
}
MOODS = {
    "cheerful": "happy 26, cheerful 19, joyful 15, upbeat 20, fun 19, playful 10, funny 4,"
    "lively 8, festive 6, uplifting 9, easygoing 8, youthful 5, vibrant 5",
    "energetic": "energetic 40, exciting 17, lively 11, enthusiastic 14, vibrant 11, spirited 14,"
    "upbeat 14, powerful 8, youthful 6, passionate 8, fun 5",
    "fierce": "aggressive 27, intense 26, powerful 17, energetic 20, rebellious 8, chaotic 11,"
    "exciting 7, passionate 8, dark 5, dramatic 4",
    "tender": "emotional 32, passionate 30, romantic 27, sentimental 14, heartfelt 11, sensual 7,"
    "soulful 7, ballad 7, mellow 7, hopeful 5, inspiring 8, uplifting 6",
    "calm": "relaxing 24, calming 23, mellow 22, soothing 19, peaceful 13, easygoing 11, chill 11,"
    "dreamy 9, meditative 8, hopeful 4, ethereal 3",
    "sad": "sad 27, melancholic 25, emotional 31, poignant 12, pensive 11, nostalgic 12,"
    "sentimental 10, heartfelt 6, haunting 7, passionate 8, ballad 5",
    "dark": "dark 17, eerie 20, suspenseful 20, mysterious 17, ominous 14, haunting 13, tense 15,"
    "scary 12, dramatic 10, intense 10, hypnotic 6, atmospheric 6, chaotic 4",
}
TEMPOS = {
    "slow": "slow tempo 50, slow to medium tempo 7, very slow tempo 4, free time 3",
    "medium": "medium tempo 50, steady tempo 6, steady rhythm 5, medium to uptempo 4",
    "brisk": "uptempo 45, medium to uptempo 9, steady rhythm 4, steady tempo 2",
    "fast": "fast tempo 50, very fast tempo 4, steady rhythm 3",
}
PLAYERS = {
    "soloist": "instrumental 32",
    "group": "instrumental 27",
    "orchestra": "instrumental 18, orchestra 14, strings 9",
    "male singer": "male vocal 50, backup singers 3, vocal harmony 4",
    "female singer": "female vocal 50, backup singers 3, vocal harmony 4",
    "vocal group": "vocal harmony 46, choir 30, male vocal 12, female vocal 12, clapping 3",
}
# How readily each sort of player brings up what a style's table lists, by family of instrument; an
# instrument of no family is a lead and is scaled by the first number, other tags are not scaled.
FAMILIES = {
    "rhythm": "bass guitar, synth bass, acoustic drums, drums, drum machine, electronic drums,"
    "cymbals, percussion, congas, bongos, tambourine, shaker, cowbell, clapping, timpani",
    "section": "orchestra, strings, brass section, french horn, viola, oboe, tuba",
    "voice": "vocal harmony, backup singers, choir, rapping, beatboxing",
}
SCALES = {  #            lead, rhythm, section, voice
    "soloist": (1.1, 0.05, 0.0, 0.0),
    "group": (1.0, 1.1, 0.8, 0.0),
    "orchestra": (0.5, 0.3, 1.7, 0.5),
    "male singer": (0.8, 0.9, 0.5, 1.0),
    "female singer": (0.8, 0.9, 0.5, 0.7),
    "vocal group": (0.4, 0.5, 0.4, 1.3),
}
DETAIL = {"brief": 0.40, "full": 0.92}  # Scales every percentage above.
# Relative weights: the style itself; then, in the order of the tables above, mood (cheerful,
# energetic, fierce, tender, calm, sad, dark), tempo (slow to fast) and players given the style.
STYLE_WEIGHTS = {
    "rock": (11, (6, 9, 6, 5, 2, 4, 1), (2, 5, 4, 4), (2, 5, 0, 12, 4, 1)),
    "metal": (5, (0, 5, 14, 1, 0, 1, 4), (1, 3, 3, 8), (2, 6, 0, 12, 2, 0)),
    "pop": (12, (9, 6, 0.3, 9, 3, 4, 0.3), (3, 6, 5, 2), (1, 2, 0, 7, 9, 2)),
    "hip hop": (6, (4, 6, 5, 2, 2, 1, 2), (2, 6, 3, 2), (0, 3, 0, 12, 3, 1)),
    "soul": (7, (6, 6, 0.3, 8, 3, 2, 0), (3, 6, 4, 1), (1, 3, 0, 6, 7, 4)),
    "jazz": (7, (5, 4, 0.2, 5, 8, 3, 1), (5, 5, 3, 3), (4, 10, 2, 3, 4, 0.5)),
    "country": (6, (7, 4, 0.2, 6, 4, 4, 0.2), (3, 5, 4, 3), (4, 4, 0, 9, 4, 1)),
    "folk": (7, (7, 4, 0.2, 5, 5, 5, 1), (4, 5, 3, 3), (6, 4, 0, 5, 5, 3)),
    "latin": (5, (6, 8, 0.3, 8, 2, 2, 0.2), (2, 4, 5, 4), (3, 5, 0, 6, 5, 1)),
    "reggae": (4, (7, 5, 0.3, 3, 7, 1, 0.3), (3, 7, 4, 1), (0, 4, 0, 10, 3, 2)),
    "raga": (5, (3, 3, 0.1, 5, 7, 3, 2), (5, 5, 2, 2), (6, 5, 0.5, 5, 5, 1)),
    "classical": (8, (2, 2, 1, 6, 6, 6, 3), (7, 4, 2, 3), (8, 4, 9, 1, 2, 2)),
    "dance": (9, (5, 12, 2, 2, 1, 0.5, 2), (0.3, 3, 7, 6), (0, 12, 0, 3, 5, 0)),
    "ambient": (5, (0, 0, 0, 2, 13, 2, 7), (12, 3, 0.3, 0), (5, 10, 1, 0.5, 1, 0.5)),
    "soundtrack": (5, (1, 3, 3, 3, 2, 4, 9), (5, 4, 2, 3), (2, 4, 14, 0, 0.5, 2)),
    "nursery": (3, (14, 3, 0, 3, 6, 0.5, 0), (6, 7, 3, 1), (4, 4, 1, 4, 5, 4)),
}
TEMPO_GIVEN_MOOD = {  # Factors on the tempo weights of the style.
    "cheerful": (0.3, 1.0, 1.5, 1.0),
    "energetic": (0.1, 0.7, 1.5, 1.8),
    "fierce": (0.3, 0.7, 1.1, 1.8),
    "tender": (1.6, 1.3, 0.6, 0.3),
    "calm": (2.2, 1.0, 0.15, 0.05),
    "sad": (2.2, 1.0, 0.3, 0.2),
    "dark": (1.3, 1.0, 0.7, 0.8),
}
# A tag may come up with no cause at all, the more readily the more tables name it.
STRAY_RATE = 0.00006
MAX_PROBABILITY = 0.95

# What listeners say beyond the vocabulary: sound quality and occasion.
OUTSIDE_TAGS = (
    "low quality, noisy, mono, amateur recording, live performance, home recording, reverberant,"
    "muffled audio, crowd cheering, people talking, tutorial, unbalanced stereo, background noise"
)
OUTSIDE_ONLY = 0.03  # Share of rows that have only such tags,
OUTSIDE_TOO = 0.08  # and of rows that have some of them beside their own.

_DRAWN_AT_ONCE = 4096  # Part of what a seed means: changing it changes the rows.
_SCORED_AT_ONCE = 512


@dataclass(frozen=True)
class Draw:
    """Rows drawn from a corpus, as a data set's and as the model's.

    Attributes:
        tags: [N] lists of tag texts, in no particular order, some from outside the taxonomy.
        columns: [N] lists of columns, rising; empty where a row has only outside tags.
        factors: name of a factor to [N] indices of its values; also known for those rows.
    """

    tags: list[list[str]]
    columns: list[list[int]]
    factors: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Corpus:
    """A mixture over factor states in which tags are independent given the state.

    Attributes:
        taxonomy: V tags.
        factors: name of each factor to the names of its values; the states are their product, the
            last factor varying fastest.
        log_prior: [S] log p(state), float64, -inf allowed.
        tag_probs: [S, V] p(tag present | state), strictly between 0 and 1, float64.
        max_tags: the most tags that a drawn row has in the taxonomy; the fewest is one.
        outside_tags: texts, none of them in the taxonomy, that drawn rows may hold beside.
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
            wanted = (states, self.taxonomy.num_tags)
            raise ValueError(f"tag_probs has shape {self.tag_probs.shape}, not {wanted}")
        if not (np.all(self.tag_probs > 0) and np.all(self.tag_probs < 1)):
            raise ValueError("tag_probs must lie strictly between 0 and 1")
        if abs(np.exp(self.log_prior).sum() - 1) > 1e-9:
            raise ValueError("log_prior is not that of probabilities which sum to 1")
        known = self.taxonomy.columns(self.outside_tags, on_unknown="ignore")
        if known:
            raise ValueError(f"outside tags {self.taxonomy.names(known)} are in the taxonomy")

    def draw(self, num_rows: int = 5500, seed: int = 0) -> Draw:
        """Draws rows of 1 to `max_tags` tags, fixed by the seed.

        The first rows of a longer draw are those of a shorter one. A few rows hold tags from
        outside the taxonomy too (`OUTSIDE_TOO`) or only such tags (`OUTSIDE_ONLY`); which rows
        those are is independent of the rest, so the rows that keep a column follow the model.

        Args:
            num_rows: N, at least 1.
            seed: any non-negative integer.

        Raises:
            ValueError: `num_rows` is less than 1, `seed` is negative, or this model all but never
                gives an allowed number of tags.
        """
        if num_rows < 1:
            raise ValueError(f"num_rows must be at least 1, not {num_rows}")
        tags: list[list[str]] = []
        columns: list[list[int]] = []
        states: list[np.ndarray] = []
        chunk = 0
        while len(tags) < num_rows:
            part_tags, part_columns, part_states = self._draw_chunk(seed, chunk)
            if not part_tags:
                raise ValueError(f"under one row in {_DRAWN_AT_ONCE} has 1 to {self.max_tags} tags")
            tags += part_tags
            columns += part_columns
            states.append(part_states)
            chunk += 1
        shape = [len(values) for values in self.factors.values()]
        indices = np.unravel_index(np.concatenate(states)[:num_rows], shape)
        factors = dict(zip(self.factors, indices, strict=True))
        return Draw(tags[:num_rows], columns[:num_rows], factors)

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
        said = np.concatenate([present, rank < extra[:, None]], axis=1)

        row, word = np.nonzero(said)
        shuffled = word[np.lexsort((rng.random(len(row)), row))]
        words = np.array(self.taxonomy.tags + self.outside_tags, dtype=object)
        tags = _split(words[shuffled].tolist(), said)
        return tags, _split(np.nonzero(present)[1].tolist(), present), state

    def log_likelihood(self, rows: np.ndarray) -> np.ndarray:
        """Returns log p(x), in nats [N], without any condition on the number of tags.

        Args:
            rows: [N, K] integer columns of the tags present, padded with V.

        Raises:
            ValueError: `rows` is not two-dimensional and integer, or holds a number beyond 0..V.
        """
        parts = [_log_sum_exp(joint)[:, 0] for joint in self._log_joint(rows)]
        return np.concatenate([np.zeros(0), *parts])

    def log_likelihood_given_allowed(self, rows: np.ndarray) -> np.ndarray:
        """Returns log p(x | 1 <= |x| <= max_tags), in nats [N]; -inf for rows of other sizes.

        This is the distribution that `draw` draws from.

        Args:
            rows: [N, K] integer columns of the tags present, padded with V.

        Raises:
            ValueError: as `log_likelihood`.
        """
        size = self._multi_hot(rows).sum(axis=1)
        allowed = (size >= 1) & (size <= self.max_tags)
        return np.where(allowed, self.log_likelihood(rows) - self.log_prob_allowed(), -np.inf)

    def log_prob_allowed(self) -> float:
        """Returns log P(1 <= |x| <= max_tags), exactly, in nats."""
        return float(np.log(self.size_probs[1:].sum()))

    @functools.cached_property
    def size_probs(self) -> np.ndarray:
        """P(|x| = k) for k = 0 .. max_tags, without any condition [max_tags + 1]."""
        # Poisson-binomial, a tag at a time; sizes beyond max_tags fall off the end.
        sizes = np.zeros((len(self.log_prior), self.max_tags + 1))
        sizes[:, 0] = 1.0
        for present in self.tag_probs.T[:, :, None]:
            grown = sizes * (1 - present)
            grown[:, 1:] += sizes[:, :-1] * present
            sizes = grown
        return np.exp(self.log_prior) @ sizes

    def posterior(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Returns p(value | x) of every factor, [N, number of values], exactly.

        The size condition changes nothing here: it is a function of x.

        Args:
            rows: [N, K] integer columns of the tags present, padded with V.

        Raises:
            ValueError: as `log_likelihood`.
        """
        shape = [len(values) for values in self.factors.values()]
        values = np.unravel_index(np.arange(len(self.log_prior)), shape)
        # One column of ones and zeros for each value: the states that have it.
        has = np.concatenate([np.eye(n)[v] for n, v in zip(shape, values, strict=True)], axis=1)
        parts = [np.exp(joint - _log_sum_exp(joint)) @ has for joint in self._log_joint(rows)]
        found = np.concatenate([np.zeros((0, sum(shape))), *parts])
        edges = np.cumsum(shape)[:-1]
        return dict(zip(self.factors, np.split(found, edges, axis=1), strict=True))

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
    for shared in (log_prior, tag_probs):  # By every caller, so none may write to them.
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
    """Returns by how much each sort of player scales each tag of a style, [players, V]."""
    family = np.array(
        [0 if taxonomy.concept_of(v) == "instrument" else -1 for v in range(taxonomy.num_tags)]
    )
    for number, members in enumerate(FAMILIES.values(), start=1):
        family[taxonomy.columns(members.split(","))] = number
    scales = np.array([(*SCALES[name], 1.0) for name in PLAYERS])
    return scales[:, family]


def _shares(weights: np.ndarray) -> np.ndarray:
    """Returns weights as probabilities over their last axis."""
    return weights / weights.sum(axis=-1, keepdims=True)


def _log_sum_exp(values: np.ndarray) -> np.ndarray:
    """Returns log sum exp over the last axis, kept, [B, S] to [B, 1]."""
    top = values.max(axis=-1, keepdims=True)
    return top + np.log(np.exp(values - top).sum(axis=-1, keepdims=True))


def _split(flat: list, mask: np.ndarray) -> list[list]:
    """Cuts a flat list into rows as long as the rows of a mask have entries."""
    ends = np.cumsum(mask.sum(axis=1)).tolist()
    return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]
