"""Exact conditioning of independent tags on constraints: their probability, and draws of sets.

Given z the tags are independent, so the number of a concept's tags has a Poisson-binomial
distribution, computed tag by tag; the distributions of the concepts, each restricted to its range,
are convolved to that of the number in all. A set is drawn backwards through the same tables: the
number in all, then for each concept, the last one first, its number, then its tags, the last one
first.

Probabilities are plain float32 numbers. A sum of positive terms loses no digits, and only ways to
meet the constraints that are less likely than 1e-38 vanish; constraints less likely than one set in
a billion are refused long before.
"""

import jax
import jax.numpy as jnp

from jaxvae.inference.generation.constraints import Tables


def probability(logits: jax.Array, tables: Tables) -> jax.Array:
    """p(constraints | z) `[B]`, from the logits `[B, V]` of the tags given z.

    With factors other than 1 it is the mean weight, over all sets, of those that meet them.
    """
    on, off = _tag_probabilities(logits, tables)
    (total, _), _ = _scan_tags(on, off, tables, keep=False)
    return jnp.sum(total * tables.total_allows[:, None], axis=0)


def draw_sets(logits: jax.Array, tables: Tables, key: jax.Array) -> jax.Array:
    """Draws a set for each row of logits from p(set | z, constraints).

    Args:
      logits: `[B, V]` logits of the tags given z, under which the constraints have a probability.
      tables: the constraints.
      key: key of the draws.

    Returns:
      boolean `[B, V]`.
    """
    on, off = _tag_probabilities(logits, tables)
    (total, _), states = _scan_tags(on, off, tables, keep=True)
    first_key, tags_key = jax.random.split(key)
    num = _draw_state(total * tables.total_allows[:, None], first_key)

    def step(carry, inputs):
        num, count = carry
        total, counts, on, off, last, allows, key = inputs
        tag_key, concept_key = jax.random.split(key)
        num, count = jax.lax.cond(
            last,
            lambda: _draw_count(
                num, total, _add_tag(counts, on, off) * allows[:, None], concept_key
            ),
            lambda: (num, count),
        )
        count, has_tag = _draw_tag(count, counts, on, off, tag_key)
        return (num, count), has_tag

    keys = jax.random.split(tags_key, len(on))
    inputs = (*states, on, off, tables.last, tables.concept_allows, keys)
    _, sets = jax.lax.scan(step, (num, jnp.zeros_like(num)), inputs, reverse=True)
    return sets.T


def _tag_probabilities(logits: jax.Array, tables: Tables) -> tuple[jax.Array, jax.Array]:
    """Returns p(tag | z) times its factor and p(no tag | z), `[V, B]`; zero where forbidden."""
    on = jax.nn.sigmoid(logits.T) * tables.factors[:, None]
    on = jnp.where(tables.absent[:, None], 0.0, on)
    off = jnp.where(tables.present[:, None], 0.0, jax.nn.sigmoid(-logits.T))
    return on, off


def _scan_tags(on: jax.Array, off: jax.Array, tables: Tables, *, keep: bool):
    """Computes the distribution of the number of tags `[T + 1, B]`, concepts restricted.

    With `keep` it also returns, for every tag, the distributions before it: of the number of tags
    in the concepts before, `[V, T + 1, B]`, and in its own concept, `[V, K + 1, B]`.
    """
    batch = on.shape[1]
    total_states, states = len(tables.total_allows), tables.concept_allows.shape[1]

    def none(size):
        return jnp.zeros((size, batch), jnp.float32).at[0].set(1.0)

    def step(carry, inputs):
        total, counts = carry
        on, off, last, allows = inputs
        added = _add_tag(counts, on, off)
        result = jax.lax.cond(
            last,
            lambda: (_convolve(total, added * allows[:, None]), none(states)),
            lambda: (total, added),
        )
        return result, (carry if keep else None)

    inputs = (on, off, tables.last, tables.concept_allows)
    return jax.lax.scan(step, (none(total_states), none(states)), inputs)


def _add_tag(counts: jax.Array, on: jax.Array, off: jax.Array) -> jax.Array:
    """Adds a tag to the distribution of a count; the last state is "so many or more"."""
    more = counts * on[None, :]
    result = counts * off[None, :] + _shift(more)
    return result.at[-1].add(more[-1])


def _shift(states: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]])


def _convolve(total: jax.Array, counts: jax.Array) -> jax.Array:
    """Distribution `[T + 1, B]` of the sum of two counts; the last state is "T or more"."""

    def step(carry, count):
        result, shifted = carry
        result = result + shifted * count[None, :]
        overflow = shifted[-1]
        return (result, _shift(shifted).at[-1].add(overflow)), None

    (result, _), _ = jax.lax.scan(step, (jnp.zeros_like(total), total), counts)
    return result


def _draw_count(
    num: jax.Array, total: jax.Array, counts: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Divides a number of tags between the concepts before and the last one.

    Args:
      num: `[B]` the number, capped.
      total: `[T + 1, B]` distribution of the number in the concepts before.
      counts: `[K + 1, B]` distribution of the number in the last concept.
      key: key of the draws.

    Returns:
      (the number in the concepts before, that in the last one), `[B]` each.
    """
    cap = len(total) - 1
    count_key, rest_key = jax.random.split(key)
    at_cap = num == cap
    number = jnp.arange(len(counts), dtype=jnp.int32)
    remaining = num[None, :] - number[:, None]
    exactly = jnp.take_along_axis(total, jnp.maximum(remaining, 0), axis=0)
    at_least = jnp.flip(jnp.cumsum(jnp.flip(total, 0), axis=0), 0)[jnp.maximum(cap - number, 0)]
    fitting = jnp.where(at_cap[None, :], at_least, jnp.where(remaining >= 0, exactly, 0.0))
    count = _draw_state(counts * fitting, count_key)
    enough = jnp.arange(cap + 1, dtype=jnp.int32)[:, None] >= (cap - count)[None, :]
    num_before = _draw_state(jnp.where(enough, total, 0.0), rest_key)
    return jnp.where(at_cap, num_before, num - count), count


def _draw_tag(
    count: jax.Array, counts: jax.Array, on: jax.Array, off: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Draws whether a set has a tag, given the number in its concept up to it.

    Returns:
      (the number up to the tag before, whether the set has the tag), `[B]` each.
    """
    cap = len(counts) - 1
    same = jnp.take_along_axis(counts, count[None, :], axis=0)[0]
    lower = jnp.take_along_axis(counts, jnp.maximum(count - 1, 0)[None, :], axis=0)[0]
    without = same * off
    still_capped = without + jnp.where(count == cap, same * on, 0.0)
    everything = still_capped + jnp.where(count > 0, lower * on, 0.0)
    point = jax.random.uniform(key, count.shape) * everything
    has_tag = point >= without
    return jnp.where(point >= still_capped, count - 1, count), has_tag


def _draw_state(weights: jax.Array, key: jax.Array) -> jax.Array:
    """Draws a state `[B]` in proportion to weights `[states, B]`."""
    edges = jnp.cumsum(weights, axis=0)
    point = jax.random.uniform(key, edges.shape[1:]) * edges[-1]
    # The state is the first whose edge is above the point, so none of weight 0.
    return jnp.sum(edges <= point[None, :], axis=0, dtype=jnp.int32)
