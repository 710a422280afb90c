"""Hidden layers of the encoder and the decoder: their names, number and widths.

With one hidden layer each way, names match the original model. Further layers append `_2`, `_3`,
...: `fc1`, `fc1_2`, ... from the input inwards, `fc3`, `fc3_2`, ... from z outwards.
"""

from collections.abc import Container, Sequence
from typing import NamedTuple

NORM_EPSILON = 1e-5
"""What batch norm and layer norm add to a variance, as in torch."""
MAX_HIDDEN_LAYERS = 8
"""Greatest number of hidden layers each way in a config."""


class HiddenLayer(NamedTuple):
    """Names of a hidden layer's parts, in the order of computation."""

    linear: str
    layer_norm: str
    batch_norm: str


def encoder_layers(depth: int) -> list[HiddenLayer]:
    """Returns the names of the encoder's hidden layers, from the input inwards."""
    return _layers(HiddenLayer("fc1", "ln1", "bn1"), depth)


def decoder_layers(depth: int) -> list[HiddenLayer]:
    """Returns the names of the decoder's hidden layers, from z outwards."""
    return _layers(HiddenLayer("fc3", "ln2", "bn2"), depth)


def _layers(first: HiddenLayer, depth: int) -> list[HiddenLayer]:
    further = [HiddenLayer(*(f"{name}_{k}" for name in first)) for k in range(2, depth + 1)]
    return [first, *further]


def num_hidden_layers(names: Container[str]) -> int:
    """Infers the number of hidden layers each way from the names of a model's layers."""
    depth = 1
    while f"fc1_{depth + 1}" in names:
        depth += 1
    return depth


def resolve_hidden_dims(hidden_dim: int, hidden_dims: Sequence[int]) -> tuple[int, ...]:
    """Returns the widths of the encoder's hidden layers, from the input inwards.

    The decoder has the same widths in reverse.

    Args:
      hidden_dim: the width of a single hidden layer.
      hidden_dims: the widths of one or several; replaces `hidden_dim` if not empty.
    """
    return tuple(hidden_dims) or (hidden_dim,)


def is_valid_hidden_dims(value: object) -> bool:
    """Tests whether `value` is a valid `hidden_dims`: positive ints, possibly none."""
    return (
        isinstance(value, list | tuple)
        and len(value) <= MAX_HIDDEN_LAYERS
        and all(type(width) is int and 1 <= width <= 2**20 for width in value)
    )
