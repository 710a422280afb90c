"""The table of names: this package's layers and the state dict of the torch module they mirror.

Torch keeps a linear map as [out, in] under `weight`; here it is [in, out] under `kernel`.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from jaxvae.errors import InputError, did_you_mean
from jaxvae.models.layer_names import decoder_layers, encoder_layers, num_hidden_layers

_LINEAR = {"kernel": "weight", "bias": "bias"}
_NORM = {
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "count": "num_batches_tracked",
}
_LAYER_NORM = {"scale": "weight", "bias": "bias"}
# The priors' own arrays, under the same names in the same layout; by sizes as for layers, K
# components, S layers, W hidden units and D = 2 L outputs of a flow.
PRIORS = {
    "normal": {},
    "mixture": {"means": "KL", "logvars": "KL", "logits": "K"},
    "vamp": {"pseudo_inputs": "KV", "logits": "K"},
    "flow": {
        "hidden": "SLW",
        "hidden_bias": "SW",
        "shift_and_scale": "SWD",
        "shift_and_scale_bias": "SD",
    },
}

# What wrappers put before the names of a module, and what they put inside names too.
_WRAPPERS = ("model.", "module.", "vae.", "net.", "_module.", "_forward_module.")
_INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


def _layers(depth: int) -> dict[str, tuple[str, ...]]:
    """Every layer there may be, and the shape of its weight, by the names of sizes.

    In the order in which the torch module defines its layers, and so lists its tensors. Sizes are V
    (tags), L (latent units) and H (hidden units), of further hidden layers H2, H3, ...
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


def to_torch(params: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the torch module's state dict, in its order.

    Args:
        params: layers `fc1 fc2_mu fc2_logvar fc3 fc4`, each with `kernel` [in, out] and `bias`
            [out]; with batch norm also `bn1 bn2`, each with `scale bias mean var` [H] and `count`;
            with layer norm `ln1 ln2`, each with `scale bias` [H]; with a learned prior `prior`;
            with several hidden layers also theirs, as `hidden_layers` names them.

    Returns:
        Contiguous float32 arrays under torch's names; the counts are int64 scalars.

    Raises:
        InputError: layers or arrays are missing or unknown.
    """
    present = [f"{layer}.{name}" for layer, arrays in params.items() for name in arrays]
    shapes, table = _table(present)
    expected = [f"{layer}.{name}" for layer, name, _ in table]
    _check_names(present, expected, shapes, "the parameter dictionary")
    tensors = {}
    for layer, name, torch_name in table:
        array = np.asarray(params[layer][name])
        dtype = np.int64 if name == "count" else np.float32
        tensors[torch_name] = np.array(_turned(layer, array), dtype, order="C")
    return tensors


def from_torch(tensors: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Returns the layers that a torch module's state dict holds; the inverse of `to_torch`.

    Args:
        tensors: arrays under torch's names, in any order; floats of any width.

    Returns:
        Layers as `to_torch` takes them: contiguous float32 arrays, counts as int64 scalars.

    Raises:
        InputError: tensors are missing or unknown, their sizes do not fit together, or a value is
            not finite as float32.
    """
    shapes, table = _table(tensors)
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
            dims = shapes[layer] if name == "kernel" else shapes[layer][:1]
            if layer == "prior":
                dims = tuple(next(each[name] for each in PRIORS.values() if name in each))
            _check_sizes(torch_name, array, dims, sizes)
            array = _finite_float32(torch_name, array)
        layers.setdefault(layer, {})[name] = np.array(_turned(layer, array), order="C")
    return layers


def cut_wrappers(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Returns tensors under the names that they have in the model alone.

    Wrappers put a word before the names of what they wrap, several of them one before the other:
    `module.` of DataParallel, `_orig_mod.` of `torch.compile`, `model.` of a Lightning module. The
    count of averages beside what AveragedModel wraps is left out.

    Args:
        tensors: anything under a state dict's names.
    """
    names = {name: name for name in tensors}
    for word in _INSIDE:
        names = {name: short.replace(word, "") for name, short in names.items()}
    if any(short.startswith("module.") for short in names.values()):
        names.pop("n_averaged", None)
    while prefix := _common_prefix(names.values()):
        names = {name: short.removeprefix(prefix) for name, short in names.items()}
    if prefix := _one_model(names.values()):  # beside a loss's or a metric's own tensors
        names = {name: short.removeprefix(prefix) for name, short in names.items()}
    if len(set(names.values())) < len(names):
        return dict(tensors)
    return {short: tensors[name] for name, short in names.items()}


def _one_model(names: Collection[str]) -> str:
    """Returns the prefix of the one first layer that there is, if that has one; or ""."""
    first = "fc1.weight"
    prefixes = [name.removesuffix(first) for name in names if name.endswith("." + first)]
    return prefixes[0] if len(prefixes) == 1 and first not in names else ""


def _common_prefix(names: Collection[str]) -> str:
    """Returns what all names begin with, up to the first layer's or of a known wrapper; or ""."""
    first = "fc1.weight"
    prefixes = [name.removesuffix(first) for name in names if name.endswith("." + first)]
    for prefix in (*prefixes, *_WRAPPERS):
        if names and all(name.startswith(prefix) for name in names):
            return prefix
    return ""


def _turned(layer: str, array: np.ndarray) -> np.ndarray:
    return array if layer == "prior" else array.T


def _table(
    present: Iterable[str],
) -> tuple[dict[str, tuple[str, ...]], list[tuple[str, str, str]]]:
    """Returns each layer's shape; and (layer, name here, torch's full name) for each array.

    Norms, further hidden layers and the prior's arrays belong to them where `present` (names here
    or torch's) has any.
    """
    present = set(present)
    shapes = _layers(num_hidden_layers({name.partition(".")[0] for name in present}))
    prior = next(
        (each for each in PRIORS.values() if any(f"prior.{name}" in present for name in each)), {}
    )
    if "prior.pseudo_inputs" in present:
        prior = PRIORS["vamp"]
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
    parts = [f"lacks {', '.join(missing)}"] if missing else []
    if extra:
        shown = ", ".join(f"{name[:80]!r}{did_you_mean(name[:80], missing)}" for name in extra[:8])
        parts.append(f"has unknown {shown}{', ...' * (len(extra) > 8)}")
    raise InputError(f"{where} {' and '.join(parts)}; expected layers {', '.join(layers)}")


def _check_sizes(
    name: str, array: np.ndarray, dims: tuple[str, ...], sizes: dict[str, tuple[int, str]]
) -> None:
    """Checks a tensor's shape against the sizes that earlier ones fixed, and notes new ones."""
    if array.ndim != len(dims):
        raise InputError(f"{name} has {array.ndim} dimensions, expected {len(dims)}")
    for axis, (dim, size) in enumerate(zip(dims, array.shape, strict=True)):
        known, first = sizes.setdefault(dim, (size, name))
        if size != known:
            raise InputError(
                f"{name} has size {size} along axis {axis}, but {first} has {known} there "
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
