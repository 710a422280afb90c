"""Writes and reads torch's `.pth` files with only the standard library and numpy.

Such a file is a zip archive of uncompressed members: a pickle that lists tensors, and a record of
raw numbers for each storage. Equal tensors give byte-identical files. Reading runs no code from the
file, follows no path in it, and trusts no size it claims.
"""

import contextlib
import hashlib
import math
import os
import secrets
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jaxvae.errors import InputError
from jaxvae.export.torch.pickler import STORAGES, TensorEntry, encode
from jaxvae.export.torch.state_dict import from_torch, to_torch
from jaxvae.export.torch.unpickler import MAX_BYTES, MAX_TENSORS, FormatError, decode, find_tensors

__all__ = ["from_torch", "read_pth", "to_torch", "write_pth"]

MAX_WRITE = 2**32 - 2**20  # The limit of zip without its 64-bit extension.
MAX_READ = 2**33
# Tied and expanded tensors take more memory than disk, but real state dicts grow only a little.
MAX_GROWTH = 64
SMALL = 2**26

_ALIGNMENT = 64
_FOLDER = "archive"
_DOS_TIME, _DOS_DATE = 0, 0x21  # 1 January 1980
_BEFORE_ZIP = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_BROKEN = (
    *(zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, LookupError),
    *(struct.error, OverflowError, MemoryError),
)

Members = list[tuple[str, bytes | memoryview]]


def write_pth(
    path: str | Path, tensors: Mapping[str, np.ndarray], *, _location: str = "cpu"
) -> None:
    """Writes tensors as an ordered dictionary that torch loads, also with mmap or weights_only.

    The file is written atomically; an existing one of that name is replaced.

    Args:
        path: the file; its folder must exist.
        tensors: arrays of any shape by name, in order; floating point, integer or boolean.

    Raises:
        InputError: a tensor's type or the total size is impossible, or writing failed.
    """
    path = Path(path)
    if not path.name:
        raise InputError(f"cannot write {str(path)!r}: it names no file")
    # Checked before anything is copied: an array may be larger than memory.
    size = sum(np.asarray(value).nbytes + 2 * len(name) + 512 for name, value in tensors.items())
    if size > MAX_WRITE or len(tensors) > MAX_TENSORS:
        limit = f"{MAX_WRITE / 2**30:.0f} GiB or {MAX_TENSORS:,} tensors"
        raise InputError(
            f"cannot write {path}: {len(tensors):,} tensors of {size:,} bytes; a "
            f".pth file written here holds under {limit}"
        )
    members = _members(tensors, _location)
    scratch = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with scratch.open("xb") as file:
            _write_zip(file, members)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write {path}: {reason}") from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            scratch.unlink(missing_ok=True)  # Missing if it was renamed to the final file.


def read_pth(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict that torch or `write_pth` saved, from any device.

    Args:
        path: a file in torch's zip format whose root is a dictionary of tensors, or one with such
            a dictionary under `state_dict`, `model_state_dict`, `model` or another usual name;
            wrappers' prefixes are stripped from the names of tensors.

    Returns:
        Contiguous arrays, each with its own memory, by name, in the file's order; bfloat16 as
        float32.

    Raises:
        InputError: the file is damaged, or holds anything but tensors; no code of it was run.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise FormatError("no such file, or not a file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            _check_start(file.read(len(_BEFORE_ZIP)))
            with zipfile.ZipFile(file) as archive:
                return _read_archive(archive, size)
    except FormatError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    except _BROKEN as error:
        reason = str(error)[:200] or type(error).__name__
        raise InputError(f"cannot read {path}: damaged or no torch file ({reason})") from error


def _members(tensors: Mapping[str, np.ndarray], location: str) -> Members:
    """Returns the archive's members in torch's order."""
    entries: dict[str, TensorEntry] = {}
    records: Members = []
    for name, value in tensors.items():
        array = np.asarray(value)
        kind = f"{array.dtype.kind}{array.dtype.itemsize}"
        if not isinstance(name, str) or kind not in STORAGES.values():
            raise InputError(f"tensor {name!r}: no torch type for numpy's {array.dtype}")
        array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        shape = array.shape
        stride = tuple(
            math.prod(max(n, 1) for n in shape[axis:]) for axis in range(1, len(shape) + 1)
        )
        key = str(len(records))
        entries[name] = TensorEntry(kind, key, array.size, 0, shape, stride)
        records.append((f"data/{key}", array.reshape(-1).view(np.uint8).data))
    return [
        ("data.pkl", encode(entries, location)),
        (".format_version", b"1"),
        (".storage_alignment", str(_ALIGNMENT).encode()),
        ("byteorder", b"little"),
        *records,
        ("version", b"3\n"),
    ]


def _write_zip(file: BinaryIO, members: Members) -> None:
    """Writes a zip archive by hand: uncompressed, with a fixed date and aligned contents."""
    listing, offset, identity = [], 0, hashlib.sha256()
    # The last member is a digest of those before it.
    for number in range(len(members) + 1):
        if number < len(members):
            name, content = members[number]
        else:
            digits = f"{int(identity.hexdigest(), 16):040d}"[:40]
            name, content = ".data/serialization_id", digits.encode()
        raw, crc = f"{_FOLDER}/{name}".encode("ascii"), zlib.crc32(content)
        identity.update(raw + struct.pack("<IQ", crc, len(content)))
        padding = -(offset + 30 + len(raw) + 4) % _ALIGNMENT
        extra = b"FB" + struct.pack("<H", padding) + bytes(padding)
        common = (0, 0, _DOS_TIME, _DOS_DATE, crc, len(content), len(content), len(raw))
        local = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, *common, len(extra))
        listed = (b"PK\x01\x02", 20, 20, *common, 0, 0, 0, 0, 0, offset)
        listing.append(struct.pack("<4s6H3I5H2I", *listed) + raw)
        for piece in (local, raw, extra, content):
            offset += file.write(piece)
    directory = b"".join(listing)
    number = len(listing)
    end = (b"PK\x05\x06", 0, 0, number, number, len(directory), offset, 0)
    file.write(directory + struct.pack("<4s4H2IH", *end))


def _check_start(start: bytes) -> None:
    if not start:
        raise FormatError("the file is empty")
    if start == _BEFORE_ZIP:
        raise FormatError("it is in the format from before torch 1.6; save it again with torch")


def _read_archive(archive: zipfile.ZipFile, size: int) -> dict[str, np.ndarray]:
    members = {info.filename: info for info in archive.infolist()}
    if len(members) < len(archive.infolist()):
        raise FormatError("two members of the archive have the same name")
    for name, info in members.items():
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise FormatError(f"member {name[:80]!r} is compressed, which torch never does")
    if size > MAX_READ or sum(info.file_size for info in members.values()) > size:
        raise FormatError("its members are larger than they can be")
    folders = [name[: -len("/data.pkl")] for name in members if name.endswith("/data.pkl")]
    if len(folders) != 1:
        raise FormatError(f"a torch file holds one data.pkl, this one {len(folders)}")
    (folder,) = folders
    content = members[f"{folder}/data.pkl"]
    if content.file_size > MAX_BYTES:
        raise FormatError(f"its list of contents is over {MAX_BYTES:,} bytes long")
    order = "little"
    if member := members.get(f"{folder}/byteorder"):
        order = archive.read(member)[:16].decode("ascii") if member.file_size < 16 else ""
    if order not in ("little", "big"):
        raise FormatError("its byte order is neither little nor big")
    entries = find_tensors(decode(archive.read(content)))
    grown = sum(math.prod(entry.shape) * _dtype(entry.kind).itemsize for entry in entries.values())
    if grown > min(MAX_READ, MAX_GROWTH * size + SMALL):
        raise FormatError(f"its tensors would take {grown:,} bytes, out of a file of {size:,}")
    storages: dict[tuple[str, str, int], np.ndarray] = {}
    tensors = {}
    for name, entry in entries.items():
        described = (entry.key, entry.kind, entry.numel)
        if described not in storages:  # Tied tensors share one.
            record = members.get(f"{folder}/data/{entry.key}")
            storages[described] = _read_storage(archive, record, entry, order)
        tensors[name] = _lay_out(storages[described], entry)
    return tensors


def _dtype(kind: str) -> np.dtype:
    """Returns the type in memory: float32 for bfloat16, which numpy lacks; float32 is exact."""
    return np.dtype("f4" if kind == "bf16" else kind)


def _read_storage(
    archive: zipfile.ZipFile, record: zipfile.ZipInfo | None, entry: TensorEntry, order: str
) -> np.ndarray:
    """Returns a storage's elements [numel]; zipfile verifies the checksum."""
    on_disk = np.dtype({"bf16": "u2", "b1": "u1"}.get(entry.kind, entry.kind))
    on_disk = on_disk.newbyteorder("<" if order == "little" else ">")
    if record is None:
        raise FormatError(f"record data/{entry.key} is missing")
    if record.file_size != entry.numel * on_disk.itemsize:
        raise FormatError(
            f"record data/{entry.key} has {record.file_size:,} bytes, but the list of contents "
            f"says {entry.numel:,} elements of {on_disk.itemsize}"
        )
    raw = np.frombuffer(archive.read(record), on_disk)
    if entry.kind == "b1":
        return raw != 0
    if entry.kind == "bf16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw


def _lay_out(storage: np.ndarray, entry: TensorEntry) -> np.ndarray:
    """Copies one tensor out of its storage; `decode` has checked its bounds."""
    if 0 in entry.shape:
        return np.zeros(entry.shape, _dtype(entry.kind))
    steps = [step * storage.itemsize for step in entry.stride]
    view = np.lib.stride_tricks.as_strided(storage[entry.offset :], entry.shape, steps)
    return np.array(view, _dtype(entry.kind), order="C")
