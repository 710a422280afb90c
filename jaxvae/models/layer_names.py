"""Hidden layers: how many there are each way, how wide, and what their parts are called.

One hidden layer each way has the original's names. Of several, the k-th has the first one's with
`_k` behind: `fc1`, `fc1_2`, ... from the input inwards, `fc3`, `fc3_2`, ... from z outwards.
"""

from collections.abc import Container, Sequence
from typing import NamedTuple

MAX_HIDDEN_LAYERS = 8
"""Hidden layers each way that a config may ask for."""


class HiddenLayer(NamedTuple):
    """The names of a hidden layer's parts, in the order in which they compute."""

    linear: str
    layer_norm: str
    batch_norm: str


def encoder_layers(depth: int) -> list[HiddenLayer]:
    """The encoder's hidden layers, from the input inwards."""
    return _layers(HiddenLayer("fc1", "ln1", "bn1"), depth)


def decoder_layers(depth: int) -> list[HiddenLayer]:
    """The decoder's hidden layers, from z outwards: as wide as the encoder's in reverse."""
    return _layers(HiddenLayer("fc3", "ln2", "bn2"), depth)


def _layers(first: HiddenLayer, depth: int) -> list[HiddenLayer]:
    further = [HiddenLayer(*(f"{name}_{k}" for name in first)) for k in range(2, depth + 1)]
    return [first, *further]


def num_hidden_layers(names: Container[str]) -> int:
    """How many hidden layers each way a model has whose layers have these names."""
    depth = 1
    while f"fc1_{depth + 1}" in names:
        depth += 1
    return depth


def resolve_hidden_dims(hidden_dim: int, hidden_dims: Sequence[int]) -> tuple[int, ...]:
    """The widths of the hidden layers, from the input inwards.

    Args:
      hidden_dim: the width of a single one.
      hidden_dims: those of one or several; where it is not empty, it takes `hidden_dim`'s place.
    """
    return tuple(hidden_dims) or (hidden_dim,)


def is_valid_hidden_dims(value: object) -> bool:
    """Whether a value of a config says the widths of hidden layers, or () of none."""
    return (
        isinstance(value, list | tuple)
        and len(value) <= MAX_HIDDEN_LAYERS
        and all(type(width) is int and 1 <= width <= 2**20 for width in value)
    )
