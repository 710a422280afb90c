"""Writes the pickle in a torch file that describes its tensors."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bf16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
}


@dataclass(frozen=True)
class TensorEntry:
    """Location of a tensor's elements in a storage.

    Attributes:
        kind: a value of `STORAGES`.
        key: the number, as text, of the storage's record.
        numel: number of elements in the storage.
        offset: offset of the tensor's first element, in elements.
        shape: size of each dimension.
        stride: steps between neighbours along each dimension, in elements.
    """

    kind: str
    key: str
    numel: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def encode(entries: Mapping[str, TensorEntry], location: str) -> bytes:
    """Encodes an ordered dictionary of tensors as a pickle, protocol 2.

    Args:
        entries: the tensors by name, in order.
        location: the device on which torch puts them by default.
    """
    storage_names = {kind: name for name, kind in STORAGES.items()}
    memo: dict[bytes, int] = {}

    def once(code: bytes) -> bytes:
        if code in memo:
            return b"j" + struct.pack("<I", memo[code])  # LONG_BINGET
        memo[code] = len(memo)
        return code + b"r" + struct.pack("<I", memo[code])  # LONG_BINPUT

    def text(value: str) -> bytes:
        raw = value.encode("utf-8")
        return once(b"X" + struct.pack("<I", len(raw)) + raw)  # BINUNICODE

    def name(module: str, value: str) -> bytes:
        return once(f"c{module}\n{value}\n".encode("ascii"))  # GLOBAL

    def whole(value: int) -> bytes:
        if value < 2**31:
            return b"J" + struct.pack("<i", value)  # BININT
        return b"\x8a\x08" + struct.pack("<q", value)  # LONG1

    def sizes(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(whole, values)) + b"t"  # MARK, TUPLE

    # PROTO 2; EMPTY_TUPLE and REDUCE call the name before them.
    pieces = [b"\x80\x02", name("collections", "OrderedDict"), b")R("]
    for label, entry in entries.items():
        pieces += [text(label), name("torch._utils", "_rebuild_tensor_v2"), b"(("]
        pieces += [text("storage"), name("torch", storage_names[entry.kind]), text(entry.key)]
        pieces += [text(location), whole(entry.numel), b"tQ"]  # BINPERSID
        pieces += [whole(entry.offset), sizes(entry.shape), sizes(entry.stride), b"\x89"]  # False
        pieces += [name("collections", "OrderedDict"), b")RtR"]
    return b"".join([*pieces, b"u."])  # SETITEMS, STOP
