"""Reads the pickle in a torch file with a restricted unpickler instead of the pickle module.

A pickle is a program. The unpickler here knows some thirty instructions and can build text,
numbers, containers and descriptions of tensors. Names of functions are only compared with a short
list; nothing is imported or called.
"""

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxvae.export.torch.pickler import STORAGES, TensorEntry
from jaxvae.export.torch.state_dict import cut_wrappers

MAX_TENSORS = 10_000
MAX_DIMENSIONS = 16
MAX_BYTES = 2**22
# An invalid escape in a text is a warning, which is raised if warnings are errors.
_MALFORMED = (
    *(ValueError, IndexError, KeyError, TypeError, struct.error, OverflowError),
    Warning,
)
# Usual keys of the state dict in a checkpoint; the first one present is used.
_HOLDERS = (
    *("state_dict", "model_state_dict", "model", "module", "model_state", "net", "network"),
    *("vae", "weights", "params"),
)
_MOST_HOLDERS = 4
_WAY_OUT = (
    "load it in PyTorch, if you trust it (torch.load(FILE, weights_only=False)), and save the "
    'state dict alone: torch.save(model.state_dict(), "weights.pth"), of a checkpoint '
    'torch.save(checkpoint["state_dict"], "weights.pth")'
)


class FormatError(ValueError):
    """Raised for a file that does not plainly hold tensors; the message is the reason."""


@dataclass(frozen=True)
class _Global:
    module: str
    name: str


@dataclass(frozen=True)
class _Storage:
    kind: str
    key: str
    numel: int


_ORDERED_DICT = _Global("collections", "OrderedDict")
_REBUILD_TENSOR = _Global("torch._utils", "_rebuild_tensor_v2")
_REBUILD_PARAMETER = _Global("torch._utils", "_rebuild_parameter")
_STORAGE_OF = {_Global("torch", name): kind for name, kind in STORAGES.items()}
_ALLOWED = {_ORDERED_DICT, _REBUILD_TENSOR, _REBUILD_PARAMETER, *_STORAGE_OF}


def decode(content: bytes) -> dict:
    """Runs a pickle in the restricted unpickler and returns the dictionary it builds.

    Args:
        content: at most `MAX_BYTES` of pickle, protocol 2.

    Returns:
        A plain dictionary whose values are `TensorEntry` or other values from the file.

    Raises:
        FormatError: the pickle is malformed, too long, or uses a forbidden instruction or name.
    """
    if len(content) > MAX_BYTES:
        raise FormatError(f"its list of contents is over {MAX_BYTES:,} bytes long")
    machine = _RestrictedUnpickler()
    end = 0
    try:
        for opcode, argument, position in pickletools.genops(content):
            end = (position or 0) + 1
            action = _ACTIONS.get(opcode.name)
            if action is None:
                raise FormatError(
                    f"instruction {opcode.name} is not needed to describe tensors; {_WAY_OUT}"
                )
            action(machine, argument)
    except FormatError:
        raise
    except _MALFORMED as error:
        raise FormatError(f"its list of contents is malformed near byte {end}") from error
    if end != len(content) or len(machine.stack) != 1 or machine.marks:
        raise FormatError("its list of contents has parts left over")
    (root,) = machine.stack
    if not isinstance(root, dict):
        raise FormatError(f"it holds no dictionary of tensors; {_WAY_OUT}")
    return root


def find_tensors(root: dict) -> dict[str, TensorEntry]:
    """Finds the state dict in a file's root and strips the prefixes of wrappers from its names.

    Args:
        root: from `decode`; a state dict, or a dictionary with one under a name that training
            scripts use, such as `state_dict`, `model_state_dict` or `model`.

    Raises:
        FormatError: there is no state dict, or it holds something else than tensors.
    """
    for _ in range(_MOST_HOLDERS):
        inner = _held(root)
        if inner is None:
            break
        root = inner
    if not root:
        raise FormatError("it holds no tensors")
    for name, entry in root.items():
        if not isinstance(name, str) or not isinstance(entry, TensorEntry):
            raise FormatError(
                f"its entry {name!r:.80} is no tensor; expected a state dict, or one under "
                f"{', '.join(map(repr, _HOLDERS[:3]))}; {_WAY_OUT}"
            )
    return cut_wrappers(root)


def _held(root: dict) -> dict | None:
    """Returns the inner dictionary that holds the tensors, directly or further inside; or None."""
    usual = [root[key] for key in _HOLDERS if isinstance(root.get(key), dict)]
    full = [value for value in usual if _all_tensors(value)]
    dicts_of_tensors = [value for value in root.values() if _all_tensors(value)]
    if full or usual:
        return (full or usual)[0]
    return dicts_of_tensors[0] if len(dicts_of_tensors) == 1 else None


def _all_tensors(value: object) -> bool:
    """Tests whether a value is a non-empty dictionary of tensors."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(entry, TensorEntry) for entry in value.values())
    )


class _RestrictedUnpickler:
    """State of the restricted unpickler: stack, marks, memo, and number of tensors so far."""

    def __init__(self):
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.num_tensors = 0

    def pop_from(self, start: int) -> list:
        """Pops all items from a position of the stack on; never below the last mark."""
        if start < (self.marks[-1] if self.marks else 0) or start > len(self.stack):
            raise FormatError("its list of contents takes more than there is")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def pop(self, number: int) -> list:
        return self.pop_from(len(self.stack) - number)

    def pop_to_mark(self) -> list:
        return self.pop_from(self.marks.pop())

    def set_items(self, pairs: list) -> None:
        target = self.stack[-1]
        _require(type(target) is dict and len(pairs) % 2 == 0, "items are set on no dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            _require(type(key) in (str, int), "a dictionary's key is neither text nor a number")
            _require(key not in target, "a dictionary has the same key twice")
            target[key] = value

    def append(self, items: list) -> None:
        _require(type(self.stack[-1]) is list, "items are appended to no list")
        self.stack[-1].extend(items)

    def look_up(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        if (target := _Global(module, name)) not in _ALLOWED:
            raise FormatError(
                f"it asks for {argument[:60]!a}, which no state dict needs and which is not run; "
                f"{_WAY_OUT}"
            )
        self.stack.append(target)

    def resolve_storage(self, _: object) -> None:
        (description,) = self.pop(1)
        _require(
            type(description) is tuple and len(description) == 5,
            "a storage is not described by five parts",
        )
        tag, kind, key, location, numel = description
        _require(type(tag) is str and tag == "storage", "a reference is to no storage")
        _require(type(kind) is _Global and kind in _STORAGE_OF, "a storage is of no known type")
        digits = type(key) is str and key.isascii() and key.isdigit() and len(key) < 10
        _require(digits, "a storage's key is not a number")
        _require(
            type(location) is str and type(numel) is int and numel >= 0, "a storage has no size"
        )
        self.stack.append(_Storage(_STORAGE_OF[kind], key, numel))

    def reduce(self, _: object) -> None:
        function, arguments = self.pop(2)
        _require(type(function) is _Global and type(arguments) is tuple, "a call of no function")
        if function == _ORDERED_DICT:
            _require(not arguments, "an ordered dictionary is made of something")
            self.stack.append({})
        elif function == _REBUILD_TENSOR:
            self.stack.append(self.tensor(arguments))
        else:
            _require(function == _REBUILD_PARAMETER, "a storage type is called")
            _require(
                len(arguments) == 3 and type(arguments[0]) is TensorEntry, "a parameter of what?"
            )
            self.stack.append(arguments[0])

    def tensor(self, arguments: tuple) -> TensorEntry:
        _require(len(arguments) == 6, "a tensor is not described by six parts")
        storage, offset, shape, stride = arguments[:4]
        _require(type(storage) is _Storage, "a tensor has no storage")
        _require(type(shape) is tuple and type(stride) is tuple, "a tensor has no shape")
        _require(len(shape) == len(stride) <= MAX_DIMENSIONS, "a tensor has an impossible shape")
        for number in (offset, *shape, *stride):
            _require(type(number) is int and 0 <= number < 2**48, "a tensor has an impossible size")
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        inside = offset <= storage.numel if 0 in shape else last < storage.numel
        _require(inside, "a tensor reaches beyond its storage")
        self.num_tensors += 1
        _require(self.num_tensors <= MAX_TENSORS, f"it describes over {MAX_TENSORS:,} tensors")
        return TensorEntry(storage.kind, storage.key, storage.numel, offset, shape, stride)

    def build(self, _: object) -> None:
        # Torch attaches the modules' versions to the dictionary; they are not needed here.
        target, state = self.pop(2)
        _require(
            type(target) is dict and type(state) is dict, "attributes are set on no dictionary"
        )
        self.stack.append(target)


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise FormatError(complaint)


def _protocol(_: _RestrictedUnpickler, argument: int) -> None:
    _require(
        argument == 2, f"its list of contents has pickle protocol {argument}, not 2; {_WAY_OUT}"
    )


def _push(machine: _RestrictedUnpickler, argument: object) -> None:
    machine.stack.append(argument)


def _pushing(make: Callable[[], object]) -> Callable[[_RestrictedUnpickler, Any], None]:
    return lambda machine, _: machine.stack.append(make())


def _tuple_of(number: int) -> Callable[[_RestrictedUnpickler, Any], None]:
    return lambda machine, _: machine.stack.append(tuple(machine.pop(number)))


def _remember(machine: _RestrictedUnpickler, argument: int) -> None:
    machine.memo[argument] = machine.stack[-1]


_ACTIONS: dict[str, Callable[[_RestrictedUnpickler, Any], None]] = {
    "PROTO": _protocol,
    "STOP": lambda machine, _: None,
    "GLOBAL": _RestrictedUnpickler.look_up,
    "REDUCE": _RestrictedUnpickler.reduce,
    "BUILD": _RestrictedUnpickler.build,
    "BINPERSID": _RestrictedUnpickler.resolve_storage,
    "BINPUT": _remember,
    "LONG_BINPUT": _remember,
    "BINGET": lambda machine, argument: machine.stack.append(machine.memo[argument]),
    "LONG_BINGET": lambda machine, argument: machine.stack.append(machine.memo[argument]),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "EMPTY_TUPLE": _pushing(tuple),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "EMPTY_LIST": _pushing(list),
    "EMPTY_DICT": _pushing(dict),
    "APPEND": lambda machine, _: machine.append(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "BINUNICODE": _push,
    "BININT": _push,
    "BININT1": _push,
    "BININT2": _push,
    "LONG1": _push,
    "BINFLOAT": _push,
    "NONE": _pushing(lambda: None),
    "NEWTRUE": _pushing(lambda: True),
    "NEWFALSE": _pushing(lambda: False),
}
