"""Converts between this package's layers and the state dict of the equivalent torch module.

Torch stores a linear map as [out, in] under `weight`; here it is [in, out] under `kernel`.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from jaxvae.errors import InputError, did_you_mean
from jaxvae.models.layer_names import decoder_layers, encoder_layers, num_hidden_layers
from jaxvae.models.priors import most_alike, prior_class

_LINEAR = {"kernel": "weight", "bias": "bias"}
_NORM = {
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "count": "num_batches_tracked",
}
_LAYER_NORM = {"scale": "weight", "bias": "bias"}

# Prefixes that wrappers add to a module's names, and words that they add anywhere in names.
_WRAPPERS = ("model.", "module.", "vae.", "net.", "_module.", "_forward_module.")
_INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


def _layers(depth: int) -> dict[str, tuple[str, ...]]:
    """Returns every possible layer with the shape of its weight, in names of sizes.

    The order is that in which the torch module defines its layers, and so lists its tensors. Sizes
    are V (tags), L (latent units) and H (hidden units), for further hidden layers H2, H3, ...
    """
    widths = ["H", *(f"H{k}" for k in range(2, depth + 1))]

    def hidden(layers, fan_in, widths):
        shapes: dict[str, tuple[str, ...]] = {}
        for (linear, layer_norm, batch_norm), width in zip(layers, widths, strict=True):
            shapes |= {linear: (width, fan_in), layer_norm: (width,), batch_norm: (width,)}
            fan_in = width
        return shapes

    return {
        **hidden(encoder_layers(depth), "V", widths),
        "fc2_mu": ("L", widths[-1]),
        "fc2_logvar": ("L", widths[-1]),
        **hidden(decoder_layers(depth), "L", widths[::-1]),
        "fc4": ("V", "H"),
        "prior": (),
    }


def to_torch(
    params: Mapping[str, Mapping[str, np.ndarray]], *, user_prior: bool = False
) -> dict[str, np.ndarray]:
    """Converts parameters to the torch module's state dict, in its order.

    A prior's arrays have the same names and layout in torch.

    Args:
        params: layers `fc1 fc2_mu fc2_logvar fc3 fc4`, each with `kernel` [in, out] and `bias`
            [out]; with batch norm also `bn1 bn2`, each with `scale bias mean var` [H] and `count`;
            with layer norm `ln1 ln2`, each with `scale bias` [H]; with a learned prior `prior`;
            with several hidden layers also theirs, as `layer_names` names them.
        user_prior: whether the prior is a user's own, which has any arrays.

    Returns:
        Contiguous float32 arrays under torch's names; the counts are int64 scalars.

    Raises:
        InputError: layers or arrays are missing or unknown.
    """
    present = [f"{layer}.{name}" for layer, arrays in params.items() for name in arrays]
    shapes, table = _table(present, user_prior)
    expected = [f"{layer}.{name}" for layer, name, _ in table]
    _check_names(present, expected, shapes, "the parameter dictionary")
    tensors = {}
    for layer, name, torch_name in table:
        array = np.asarray(params[layer][name])
        dtype = np.int64 if name == "count" else np.float32
        tensors[torch_name] = np.array(_turned(layer, array), dtype, order="C")
    return tensors


def from_torch(
    tensors: Mapping[str, np.ndarray], *, user_prior: bool = False
) -> dict[str, dict[str, np.ndarray]]:
    """Converts a torch module's state dict to layers; the inverse of `to_torch`.

    Args:
        tensors: arrays under torch's names, in any order; floats of any width.
        user_prior: whether the prior is a user's own, which has any arrays.

    Returns:
        Layers as `to_torch` takes them: contiguous float32 arrays, counts as int64 scalars.

    Raises:
        InputError: tensors are missing or unknown, their sizes do not fit together, or a value is
            not finite as float32.
    """
    shapes, table = _table(tensors, user_prior)
    prior = prior_class(most_alike(name for layer, name, _ in table if layer == "prior"))
    _check_names(tensors, [torch_name for _, _, torch_name in table], shapes, "the state dict")
    sizes: dict[str, tuple[int, str]] = {}
    layers: dict[str, dict[str, np.ndarray]] = {}
    for layer, name, torch_name in table:
        array = np.asarray(tensors[torch_name])
        if name == "count":
            _check_sizes(torch_name, array, (), sizes)
            if array.dtype.kind not in "iu" or array < 0:
                raise InputError(f"{torch_name} is no count: {array.dtype} {array}")
            array = array.astype(np.int64)
        else:
            if layer != "prior":
                dims = shapes[layer] if name == "kernel" else shapes[layer][:1]
                _check_sizes(torch_name, array, dims, sizes)
            elif not user_prior:
                _check_sizes(torch_name, array, tuple(prior.arrays[name]), sizes)
            array = _finite_float32(torch_name, array)
        layers.setdefault(layer, {})[name] = np.array(_turned(layer, array), order="C")
    return layers


def cut_wrappers(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Strips the prefixes of wrappers from the names of tensors.

    Each wrapper puts a word before the names of the module it wraps: `module.` of DataParallel,
    `_orig_mod.` of `torch.compile`, `model.` of a Lightning module. AveragedModel's own count of
    averages is left out.

    Args:
        tensors: values of any kind under a state dict's names.
    """
    names = {name: name for name in tensors}
    for word in _INSIDE:
        names = {name: short.replace(word, "") for name, short in names.items()}
    if any(short.startswith("module.") for short in names.values()):
        names.pop("n_averaged", None)
    while prefix := _common_prefix(names.values()):
        names = {name: short.removeprefix(prefix) for name, short in names.items()}
    if prefix := _one_model(names.values()):  # next to tensors of a loss or a metric
        names = {name: short.removeprefix(prefix) for name, short in names.items()}
    if len(set(names.values())) < len(names):
        return dict(tensors)
    return {short: tensors[name] for name, short in names.items()}


def _one_model(names: Collection[str]) -> str:
    """Returns the prefix of the only first layer among the names, or ""."""
    first = "fc1.weight"
    prefixes = [name.removesuffix(first) for name in names if name.endswith("." + first)]
    return prefixes[0] if len(prefixes) == 1 and first not in names else ""


def _common_prefix(names: Collection[str]) -> str:
    """Returns the prefix of all names, if it is the first layer's or a known wrapper's; or ""."""
    first = "fc1.weight"
    prefixes = [name.removesuffix(first) for name in names if name.endswith("." + first)]
    for prefix in (*prefixes, *_WRAPPERS):
        if names and all(name.startswith(prefix) for name in names):
            return prefix
    return ""


def _turned(layer: str, array: np.ndarray) -> np.ndarray:
    return array if layer == "prior" else array.T


def _table(
    present: Iterable[str], user_prior: bool
) -> tuple[dict[str, tuple[str, ...]], list[tuple[str, str, str]]]:
    """Returns each layer's shape, and (layer, our name, torch's full name) for each array.

    Norms, further hidden layers and the prior's arrays are included if `present` (our names or
    torch's) has any of them.
    """
    present = set(present)
    shapes = _layers(num_hidden_layers({name.partition(".")[0] for name in present}))
    prior = sorted(name.partition(".")[2] for name in present if name.startswith("prior."))
    if not user_prior:
        prior = list(prior_class(most_alike(prior)).arrays)
    kinds = {
        "fc": _LINEAR,
        "bn": _NORM if any(name.startswith("bn") for name in present) else {},
        "ln": _LAYER_NORM if any(name.startswith("ln") for name in present) else {},
        "pr": {name: name for name in prior},
    }
    return shapes, [
        (layer, name, f"{layer}.{torch_name}")
        for layer in shapes
        for name, torch_name in kinds[layer[:2]].items()
    ]


def _check_names(
    present: Iterable[str], expected: list[str], layers: Iterable[str], where: str
) -> None:
    present = list(present)
    missing = [name for name in expected if name not in present]
    extra = [name for name in present if name not in expected]
    if not missing and not extra:
        return
    faults = [f"lacks {', '.join(missing)}"] if missing else []
    if extra:
        listing = ", ".join(
            f"{name[:80]!r}{did_you_mean(name[:80], missing)}" for name in extra[:8]
        )
        faults.append(f"has unknown {listing}{', ...' * (len(extra) > 8)}")
    raise InputError(f"{where} {' and '.join(faults)}; expected layers {', '.join(layers)}")


def _check_sizes(
    name: str, array: np.ndarray, dims: tuple[str, ...], sizes: dict[str, tuple[int, str]]
) -> None:
    """Checks a tensor's shape against the sizes of earlier tensors, and records new sizes."""
    if array.ndim != len(dims):
        raise InputError(f"{name} has {array.ndim} dimensions, expected {len(dims)}")
    for axis, (dim, size) in enumerate(zip(dims, array.shape, strict=True)):
        expected, first = sizes.setdefault(dim, (size, name))
        if size != expected:
            raise InputError(
                f"{name} has size {size} along axis {axis}, but {first} has {expected} there "
                f"({dim} of V tags, H hidden units, L latent units, K components)"
            )
        if not size:
            raise InputError(f"{name} is empty: shape {array.shape}")


def _finite_float32(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f":
        raise InputError(f"{name} holds {array.dtype}, expected floating point")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise InputError(f"{name}: {count} of {array.size} values are not finite float32 numbers")
    return array
