"""Writes and reads `.safetensors` files: tensors by name, without any code."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxvae.errors import InputError
from jaxvae.storage.atomic_files import atomic_write

MAX_READ = 2**33
MAX_TENSORS = 1024
_DTYPES = ("F64", "F32", "F16", "I64", "I32")


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors to a file, atomically.

    Args:
      path: the file.
      tensors: contiguous arrays by name.

    Raises:
      InputError: writing failed.
    """
    from safetensors.numpy import save

    with atomic_write(path) as file:
        file.write(save(dict(tensors)))


def read_safetensors(path: Path, *, shapes: Mapping[str, tuple] | None = None) -> dict:
    """Reads every tensor of a file.

    Args:
      path: the file.
      shapes: required shapes of some tensors, checked before any is read; None in a shape is any
        size.

    Returns:
      Arrays by name.

    Raises:
      InputError: the file is missing, damaged or too large, or a tensor has another shape or type.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if path.stat().st_size > MAX_READ:
            raise InputError(f"{path}: larger than {MAX_READ >> 30} GiB, which no model here is")
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            if len(names) > MAX_TENSORS:
                raise InputError(f"{path}: {len(names):,} tensors, which no model here has")
            for name in names:
                tensor = file.get_slice(name)
                _check(path, name, tensor.get_dtype(), tuple(tensor.get_shape()), shapes or {})
            if missing := [name for name in shapes or {} if name not in names]:
                raise InputError(f"{path}: lacks {', '.join(missing)}")
            return {name: file.get_tensor(name) for name in names}
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise InputError(f"{path}: damaged, or not a .safetensors: {str(error)[:200]}") from error


def _check(path: Path, name: str, dtype: str, shape: tuple, shapes: Mapping[str, tuple]) -> None:
    label = name[:80]
    if dtype not in _DTYPES:
        raise InputError(f"{path}: {label!r} holds {dtype}; expected one of {', '.join(_DTYPES)}")
    expected = shapes.get(name)
    if expected is not None and (
        len(expected) != len(shape)
        or any(size not in (None, actual) for size, actual in zip(expected, shape, strict=True))
    ):
        listing = ", ".join("any" if size is None else str(size) for size in expected)
        raise InputError(
            f"{path}: {label} has the shape {list(shape)}; by its config and taxonomy it is "
            f"[{listing}]"
        )
