"""Torch files: torch reads ours, we read torch's, and what is not a plain file of tensors is refused."""

import io
import os
import stat
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxvae.errors import InputError
from jaxvae.export.torch import pth
from jaxvae.export.torch.pickler import TensorEntry, encode
from jaxvae.export.torch.pth import from_torch, read_pth, to_torch, write_pth
from jaxvae.export.torch.unpickler import MAX_BYTES, MAX_TENSORS

RNG = np.random.default_rng(0)
DTYPES = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?")


def samples() -> dict[str, np.ndarray]:
    rng, tensors = np.random.default_rng(1), {}
    for kind in DTYPES:
        dtype = np.dtype(kind)
        tensors[f"of {dtype.name}"] = (rng.normal(size=(3, 4)) * 50).astype(dtype)
    tensors["scalar"] = np.array(5)
    tensors["empty"] = np.zeros((0, 3), np.float32)
    tensors["turned"] = rng.normal(size=(3, 4)).astype(np.float32).T
    tensors["every other"] = np.arange(10)[::2]
    tensors["swapped"] = np.arange(3, dtype=">f4")
    tensors["four axes"] = rng.normal(size=(2, 1, 3, 2)).astype(np.float32)
    tensors["naïve ♫"] = np.array([np.nan, -0.0, np.inf], np.float32)
    return tensors


def check_equal(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        array = np.asarray(array)
        assert found[name].shape == array.shape, name
        assert found[name].dtype == array.dtype.newbyteorder("="), name
        np.testing.assert_array_equal(found[name], array)


def params(hidden=5, latent=2, tags=7, norm=False) -> dict:
    sizes = {"fc1": (tags, hidden), "fc2_mu": (hidden, latent), "fc2_logvar": (hidden, latent)}
    sizes |= {"fc3": (latent, hidden), "fc4": (hidden, tags)}
    layers = {}
    for name, (fan_in, out) in sizes.items():
        kernel, bias = RNG.normal(size=(fan_in, out)), RNG.normal(size=out)
        layers[name] = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
    for name in ("bn1", "bn2") if norm else ():
        vectors = {key: RNG.uniform(0.5, 2, hidden).astype(np.float32) for key in NORM}
        layers[name] = {**vectors, "count": np.array(9, np.int32)}
    return layers


NORM = ("scale", "bias", "mean", "var")


# Our own round trip


def test_round_trip(tmp_path):
    tensors = samples()
    write_pth(tmp_path / "x.pth", tensors)
    found = read_pth(tmp_path / "x.pth")
    check_equal(found, tensors)
    assert type(found) is dict
    for array in found.values():
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.flags.owndata


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shapes=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=4)),
        min_size=1,
        max_size=5,
    )
)
def test_any_names_shapes_and_types_round_trip(tmp_path, shapes):
    tensors = {
        name: (RNG.normal(size=shape) * 9).astype(kind) for name, (kind, shape) in shapes.items()
    }
    write_pth(tmp_path / "x.pth", tensors)
    check_equal(read_pth(tmp_path / "x.pth"), tensors)


def test_bytes_depend_on_the_tensors_alone(tmp_path):
    tensors = samples()
    write_pth(tmp_path / "one.pth", tensors)
    write_pth(tmp_path / "two.other", {name: array.copy() for name, array in tensors.items()})
    first = (tmp_path / "one.pth").read_bytes()
    assert first == (tmp_path / "two.other").read_bytes()
    tensors["scalar"] = np.array(6)
    write_pth(tmp_path / "two.other", tensors)
    assert first != (tmp_path / "two.other").read_bytes()


def test_the_archive_is_as_torch_writes_it(tmp_path):
    write_pth(tmp_path / "x.pth", samples())
    raw = (tmp_path / "x.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        assert archive.testzip() is None
        infos = archive.infolist()
        extras = [f"archive/data/{i}" for i in range(len(samples()))]
        assert [info.filename for info in infos] == [
            "archive/data.pkl",
            "archive/.format_version",
            "archive/.storage_alignment",
            "archive/byteorder",
            *extras,
            "archive/version",
            "archive/.data/serialization_id",
        ]
        assert len(archive.read("archive/.data/serialization_id")) == 40
    for info in infos:
        name_length, extra_length = struct.unpack_from("<2H", raw, info.header_offset + 26)
        assert (info.header_offset + 30 + name_length + extra_length) % 64 == 0
        assert info.compress_type == zipfile.ZIP_STORED
        assert info.date_time[0] == 1980


def test_permissions_follow_the_umask_and_nothing_else_is_left(tmp_path):
    before = os.umask(0o027)
    try:
        write_pth(tmp_path / "x.pth", samples())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.pth").stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["x.pth"]


def test_failing_to_write_is_one_line_and_leaves_what_was_there(tmp_path, monkeypatch):
    target = tmp_path / "x.pth"
    write_pth(target, {"a": np.ones(3)})
    before = target.read_bytes()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").touch()
    absent = tmp_path / "absent" / "x.pth"
    for path in (absent, target / "x.pth", tmp_path / "folder", "", "/", tmp_path / "a\0b"):
        with pytest.raises(InputError, match="cannot write"):
            write_pth(path, samples())
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(28, "No space left on device")

        patch.setattr(pth.os, "fsync", full)
        with pytest.raises(InputError, match="No space left"):
            write_pth(target, samples())
    assert target.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["folder", "x.pth"]
    write_pth(target, {"a": np.zeros(3)})
    assert target.read_bytes() != before


def test_read_only_folder():
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for folder, mode in ((root, 0o755), (root / "locked", 0o555), (root / "open", 0o777)):
            folder.mkdir(exist_ok=True)
            folder.chmod(mode)
        superuser = os.geteuid() == 0
        if superuser:  # Whom no permission stops.
            os.seteuid(65534)
        try:
            write_pth(root / "open" / "x.pth", samples())
            with pytest.raises(InputError, match="Permission denied"):
                write_pth(root / "locked" / "x.pth", samples())
        finally:
            if superuser:
                os.seteuid(0)
        assert os.listdir(root / "open") == ["x.pth"]
        assert os.listdir(root / "locked") == []


@pytest.mark.parametrize(
    "value", [np.array(["text"]), np.ones(2, np.complex64), np.ones(2, "u2"), np.array([{}])]
)
def test_types_torch_does_not_have_are_refused(tmp_path, value):
    with pytest.raises(InputError, match="'odd'"):
        write_pth(tmp_path / "x.pth", {"odd": value})
    assert not os.listdir(tmp_path)


def test_too_large_a_file_is_refused_before_it_is_begun(tmp_path):
    # One number, seen two billion times: it takes no memory until it is copied.
    for tensors in (
        {"a": np.broadcast_to(np.float32(0), (2**16, 2**15))},
        dict.fromkeys(map(str, range(MAX_TENSORS + 1)), np.ones(1)),
    ):
        with pytest.raises(InputError, match="holds under 4 GiB or 10,000 tensors"):
            write_pth(tmp_path / "x.pth", tensors)
    assert not os.listdir(tmp_path)


# Against torch


def twin(torch, norm: bool):
    """The torch module whose state dict the table of names mirrors."""

    class VAE(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = torch.nn.Linear(7, 5)
            if norm:
                self.bn1 = torch.nn.BatchNorm1d(5)
            self.fc2_mu = torch.nn.Linear(5, 2)
            self.fc2_logvar = torch.nn.Linear(5, 2)
            self.fc3 = torch.nn.Linear(2, 5)
            if norm:
                self.bn2 = torch.nn.BatchNorm1d(5)
            self.fc4 = torch.nn.Linear(5, 7)

    return VAE()


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_loads_what_we_write(torch, tmp_path, mmap):
    tensors = samples()
    write_pth(tmp_path / "x.pth", tensors)
    loaded = torch.load(tmp_path / "x.pth", weights_only=True, mmap=mmap)
    assert type(loaded).__name__ == "OrderedDict"
    check_equal({name: tensor.numpy() for name, tensor in loaded.items()}, tensors)


@pytest.mark.parametrize("norm", [False, True])
def test_state_dict_goes_both_ways(torch, tmp_path, norm):
    layers = params(norm=norm)
    write_pth(tmp_path / "ours.pth", to_torch(layers))
    module = twin(torch, norm)
    module.load_state_dict(torch.load(tmp_path / "ours.pth", weights_only=True), strict=True)
    assert list(module.state_dict()) == list(to_torch(layers))
    x = RNG.normal(size=(4, 7)).astype(np.float32)
    ours = x @ layers["fc1"]["kernel"] + layers["fc1"]["bias"]
    theirs = module.fc1(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    if norm:
        assert module.bn1.num_batches_tracked.item() == 9
        np.testing.assert_array_equal(module.bn2.running_var.numpy(), layers["bn2"]["var"])

    torch.save(module.state_dict(), tmp_path / "theirs.pth")
    back = from_torch(read_pth(tmp_path / "theirs.pth"))
    assert set(back) == set(layers)
    for layer, arrays in layers.items():
        check_equal(
            {name: back[layer][name].astype(array.dtype) for name, array in arrays.items()}, arrays
        )


def test_we_read_what_torch_saves(torch, tmp_path):
    base = torch.randn(6, 4)
    tied = torch.randn(3, 3)
    saved = {
        **{kind: (torch.randn(3, 2) * 20).to(getattr(torch, kind)) for kind in TORCH_TYPES},
        "turned": base.T,
        "part": base[1:4, ::2],
        "expanded": torch.randn(3, 1).expand(3, 4),
        "tied": tied,
        "tied too": tied,
        "tied and turned": tied.T,
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        "frozen": torch.nn.Parameter(torch.randn(2), requires_grad=False),
    }
    torch.save(saved, tmp_path / "x.pth")
    found = read_pth(tmp_path / "x.pth")
    expected = {}
    for name, tensor in saved.items():
        tensor = tensor.detach()
        expected[name] = (tensor.float() if name == "bfloat16" else tensor).numpy()
    check_equal(found, expected)
    found["tied"][:] = 0
    np.testing.assert_array_equal(found["tied too"], tied.numpy())


TORCH_TYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8")
TORCH_TYPES += ("uint8", "bool")


def test_every_bfloat16_is_read_exactly(torch, tmp_path):
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    values = bits.view(torch.bfloat16)
    torch.save({"a": values}, tmp_path / "x.pth")
    expected = values.float().numpy()
    np.testing.assert_array_equal(read_pth(tmp_path / "x.pth")["a"], expected)


def test_checkpoint_with_the_state_dict_inside(torch, tmp_path):
    module = torch.nn.Module()
    module.model = twin(torch, norm=True)
    checkpoint = {
        "epoch": 3,
        "lr": 0.5,
        "sizes": [1, (2, 3, 4, 5)],
        "state_dict": module.state_dict(),
    }
    checkpoint |= {"none": None, "flag": True, "big": 2**40}
    torch.save(checkpoint, tmp_path / "x.ckpt")
    found = read_pth(tmp_path / "x.ckpt")
    expected = {name: tensor.numpy() for name, tensor in module.model.state_dict().items()}
    check_equal(found, expected)


def test_file_from_an_accelerator(torch, tmp_path):
    tensors = samples()
    write_pth(tmp_path / "cuda.pth", tensors, _location="cuda:0")
    check_equal(read_pth(tmp_path / "cuda.pth"), tensors)
    if not torch.cuda.is_available():  # That it really is tagged so: torch itself refuses it here.
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(tmp_path / "cuda.pth", weights_only=True)
    loaded = torch.load(tmp_path / "cuda.pth", weights_only=True, map_location="cpu")
    check_equal({name: tensor.numpy() for name, tensor in loaded.items()}, tensors)


def test_torchs_own_big_endian_and_legacy_formats(torch, tmp_path):
    value = np.arange(5, dtype=np.float32)
    write_zip(
        tmp_path / "big.pth", members(byteorder=b"big", payload=value.astype(">f4").tobytes())
    )
    loaded = torch.load(tmp_path / "big.pth", weights_only=True)["a"]
    np.testing.assert_array_equal(loaded.numpy(), value)
    np.testing.assert_array_equal(read_pth(tmp_path / "big.pth")["a"], value)
    legacy = tmp_path / "legacy.pth"
    torch.save({"a": torch.ones(2)}, legacy, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="before torch"):
        read_pth(legacy)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(InputError, match="no state dict needs"):
        read_pth(tmp_path / "module.pth")


# Hostile files


VALUE = np.arange(5, dtype=np.float32)
ENTRY = {"kind": "f4", "key": "0", "numel": 5, "offset": 0, "shape": (5,), "stride": (1,)}


PAYLOAD = VALUE.tobytes()


def members(pickle=None, payload=PAYLOAD, byteorder=b"little", **entry) -> list:
    """The members of a sound file with one tensor, `a`, or of one with lies about that tensor."""
    content = encode({"a": TensorEntry(**ENTRY | entry)}, "cpu") if pickle is None else pickle
    return [
        ("data.pkl", content),
        ("byteorder", byteorder),
        ("data/0", payload),
        ("version", b"3\n"),
    ]


def write_zip(path, listed) -> None:
    with path.open("wb") as file:
        pth._write_zip(file, listed)


def with_zipfile(listed, **options) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, content in listed:
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def sound_bytes() -> bytes:
    file = io.BytesIO()
    pth._write_zip(file, members())
    return file.getvalue()


def patched(old: bytes, new: bytes) -> bytes:
    """The program of the sound file with one piece of it replaced."""
    content = encode({"a": TensorEntry(**ENTRY)}, "cpu")
    assert content.count(old) == 1, (old, content)
    return content.replace(old, new)


def program(body: bytes) -> list:
    return members(pickle=b"\x80\x02" + body + b".")


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


HOOKS = b"ccollections\nOrderedDict\n)RtR"
RUN = b"cos\nsystem\n(" + text("touch marker") + b"tR"
MEMBER_LIES = {
    "runs a command": program(RUN),
    "runs a command as a value": program(b"}" + text("a") + RUN + b"s"),
    "runs a command by its platform's name": program(RUN.replace(b"cos\n", b"cposix\n")),
    "evaluates": program(b"cbuiltins\neval\n(" + text("open('marker','w')") + b"tR"),
    "runs in a hook": members(pickle=patched(b"\x89j", b"\x89" + RUN + b"j")),
    "old-style instance": program(b"(" + text("touch marker") + b"ios\nsystem\n"),
    "object instruction": program(b"(ccollections\nOrderedDict\no"),
    "new object": program(b"ccollections\nOrderedDict\n)\x81"),
    "stack global": program(text("os") + text("system") + b"\x93"),
    "extension registry": program(b"\x82\x01"),
    "another torch function": program(b"ctorch._utils\n_rebuild_tensor\n)R"),
    "a dotted way out": program(b"ctorch.serialization\nos.system\n)R"),
    "storage called": program(b"ctorch\nFloatStorage\n)R"),
    "unknown storage type": members(pickle=patched(b"FloatStorage", b"ComplexFloatStorage")),
    "attributes of a tensor": members(pickle=patched(b")RtRu.", b")RtR}bu.")),
    "build on a name": program(b"ccollections\nOrderedDict\n}b"),
    "build with no dictionary": program(b"})b"),
    "path for a key": members(key="../../etc/passwd"),
    "path to another member": members(key="0/../0"),
    "foreign digits for a key": members(key="٠"),
    "empty key": members(key=""),
    "long key": members(key="0" * 100),
    "record missing": members(key="1"),
    "more elements than the record": members(numel=6),
    "fewer elements than the record": members(numel=4, shape=(4,)),
    "huge number of elements": members(numel=2**62, shape=(2**46,)),
    "record too short": members(payload=VALUE.tobytes()[:-4]),
    "shape beyond the storage": members(shape=(6,)),
    "stride beyond the storage": members(stride=(2,)),
    "offset beyond the storage": members(offset=1),
    "offset of an empty tensor beyond": members(offset=6, shape=(0,)),
    "negative offset": members(offset=-1, shape=(2,)),
    "negative stride": members(offset=4, stride=(-1,)),
    "negative shape": members(shape=(-5,)),
    "shape and stride differ": members(shape=(5, 1)),
    "too many dimensions": members(shape=(1,) * 70, stride=(1,) * 70),
    "expanded without end": members(shape=(10**6, 10**6), stride=(0, 0)),
    "shape is a number": members(pickle=patched(b"(J\5\0\0\0t", b"J\5\0\0\0")),
    "persistent id is text": program(text("storage") + b"Q"),
    "persistent id too short": program(b"(" + text("storage") + b"tQ"),
    "persistent id of no storage": members(pickle=patched(text("storage"), text("strange"))),
    "tensor of no storage": program(b"ctorch._utils\n_rebuild_tensor_v2\n(NK\0))\x89" + HOOKS),
    "parameter of no tensor": program(b"ctorch._utils\n_rebuild_parameter\n(N\x89}tR"),
    "recursive": program(b"}q\0" + text("a") + b"h\0s"),
    "recursive state dict": program(b"}q\0" + text("state_dict") + b"h\0s"),
    "root is a list": program(b"]"),
    "root is a tensor's name": program(b"ctorch._utils\n_rebuild_tensor_v2\n"),
    "nothing in it": program(b"}"),
    "values of other kinds": program(b"}" + text("a") + b"K\x01s"),
    "key of another kind": program(b"}(K\x01K\x02tK\x01s"),
    "key unhashable": program(b"}]K\x01s"),
    "same name twice": members(pickle=patched(b")RtRu.", b")RtRq\xff" + text("a") + b"h\xffu.")),
    "odd number of items": program(b"}(" + text("a") + b"u"),
    "items on no dictionary": program(b"](" + text("a") + b"K\x01u"),
    "takes from an empty stack": program(b"R"),
    "takes beyond a mark": program(b"}" + text("a") + b"(s"),
    "mark missing": program(b"t"),
    "memo missing": program(b"h\x07"),
    "left over on the stack": program(b"}}"),
    "left over mark": members(pickle=patched(b"u.", b"u(.")),
    "no end": members(pickle=b"\x80\x02}"),
    "more after the end": members(pickle=patched(b"u.", b"u.}.")),
    "another protocol": members(pickle=patched(b"\x80\x02", b"\x80\x04")),
    "text longer than the program": program(b"X\xff\xff\xff\x7f"),
    "text that is not UTF-8": program(b"X\x01\0\0\0\xff"),
    "name that is not ASCII": program(b"c\xff\n\xff\n"),
    "name with an odd escape": program(b"c\\c\n\\c\n"),
    "no program": members(pickle=b""),
    "deeply nested": program(b")" + b"\x85" * 200_000),
    "nested in itself again and again": program(b")" + b"q\0h\0\x86" * 100_000),
    "long program": members(pickle=b"\x80\x02" + b"N" * MAX_BYTES + b"."),
    "too many tensors": members(
        pickle=encode({str(i): TensorEntry(**ENTRY) for i in range(MAX_TENSORS + 1)}, "cpu")
    ),
    "no byte order": members(byteorder=b"middle"),
    "long byte order": members(byteorder=b"little" * 100),
    "no list of contents": members()[1:],
    "two lists of contents": [*members(), ("other/data.pkl", members()[0][1])],
    "two members of one name": [*members(), members()[2]],
    "two members of one name that differ": [*members(), ("data/0", bytes(20))],
}
BYTE_LIES = {
    "empty file": b"",
    "text": b"hello, world",
    "only zeros": bytes(1000),
    "safetensors": struct.pack("<Q", 2) + b"{}",
    "from before the zip format": pth._BEFORE_ZIP + bytes(100),
    "empty archive": with_zipfile([]),
    "compressed": with_zipfile(members(), compression=zipfile.ZIP_DEFLATED),
    "called compressed": sound_bytes().replace(
        b"PK\x01\x02\x14\0\x14\0\0\0\0\0", b"PK\x01\x02\x14\0\x14\0\0\0\x08\0"
    ),
    "a bomb": with_zipfile(
        [*members(), ("data/1", bytes(10**7))], compression=zipfile.ZIP_DEFLATED, compresslevel=9
    ),
    "bzip2": with_zipfile(members(), compression=zipfile.ZIP_BZIP2),
    "encrypted": sound_bytes().replace(
        b"PK\x01\x02\x14\0\x14\0\0\0", b"PK\x01\x02\x14\0\x14\0\x01\0"
    ),
    "cut in the middle": sound_bytes()[: len(sound_bytes()) // 2],
    "cut before its last byte": sound_bytes()[:-1],
    "cut at the front": sound_bytes()[64:],
}


def refused(path) -> str:
    with pytest.raises(InputError) as caught:
        read_pth(path)
    message = str(caught.value)
    assert message.isprintable()
    assert str(path) in message
    return message


def test_control_is_read_by_torch_too(tmp_path, torch):
    """What every hostile file differs from in one thing."""
    write_zip(tmp_path / "x.pth", members())
    check_equal(read_pth(tmp_path / "x.pth"), {"a": VALUE})
    (tmp_path / "y.pth").write_bytes(with_zipfile(members()))
    check_equal(read_pth(tmp_path / "y.pth"), {"a": VALUE})
    for name in "xy":
        loaded = torch.load(tmp_path / f"{name}.pth", weights_only=True)
        np.testing.assert_array_equal(loaded["a"].numpy(), VALUE)


@pytest.mark.parametrize("lie", MEMBER_LIES)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_members_are_refused(tmp_path, monkeypatch, lie):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pth"
    write_zip(path, members())
    check_equal(read_pth(path), {"a": VALUE})
    write_zip(path, MEMBER_LIES[lie])
    refused(path)
    assert os.listdir(tmp_path) == ["x.pth"]  # No marker: nothing ran.


def test_the_command_would_have_run(tmp_path, monkeypatch):
    """The hostile programs are real ones: Python's own unpickler runs them."""
    import pickle

    monkeypatch.chdir(tmp_path)
    pickle.loads(MEMBER_LIES["runs a command"][0][1])
    assert os.listdir(tmp_path) == ["marker"]


@pytest.mark.parametrize("lie", BYTE_LIES)
def test_hostile_bytes_are_refused(tmp_path, lie):
    (tmp_path / "x.pth").write_bytes(BYTE_LIES[lie])
    refused(tmp_path / "x.pth")


def test_messages_name_the_cause(tmp_path):
    path = tmp_path / "x.pth"
    for lie, needle in {
        "runs a command": "os system",
        "path for a key": "not a number",
        "record missing": "data/1 is missing",
        "more elements than the record": "20 bytes",
        "shape beyond the storage": "beyond its storage",
        "another protocol": "protocol 4",
        "expanded without end": "would take",
        "values of other kinds": "'a' is no tensor",
        "too many tensors": "10,000",
    }.items():
        write_zip(path, MEMBER_LIES[lie])
        assert needle in refused(path), lie
    path.write_bytes(BYTE_LIES["compressed"])
    assert "compressed" in refused(path)
    assert "no such file" in refused(tmp_path / "absent.pth")
    assert "no such file" in refused(tmp_path)


def test_every_truncation_is_refused(tmp_path):
    content = sound_bytes()
    path = tmp_path / "x.pth"
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        refused(path)


def test_every_bit_flip_is_refused_or_harmless(tmp_path):
    content = bytearray(sound_bytes())
    path = tmp_path / "x.pth"
    payload = bytes(content).index(VALUE.tobytes())
    inside = range(8 * payload, 8 * (payload + VALUE.nbytes))
    chosen = set(inside) | set(RNG.integers(0, 8 * len(content), 600).tolist())
    caught = 0
    for bit in chosen:
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        content[bit // 8] ^= 1 << bit % 8
        try:
            found = read_pth(path)
        except InputError:
            caught += 1
            continue
        assert bit not in inside
        check_equal(found, {"a": VALUE})
    assert caught >= len(inside)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_mutated_programs_never_end_in_a_traceback(tmp_path, monkeypatch, data):
    """Mutations keep a right checksum, so that it is the machine that has to judge them."""
    monkeypatch.chdir(tmp_path)
    content = bytearray(encode({"a": TensorEntry(**ENTRY)}, "cpu"))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, min(len(content), start + 3)))
        content[start:stop] = data.draw(
            st.binary(max_size=4) | st.sampled_from([RUN, b"(", b"q\0"])
        )
    write_zip(tmp_path / "x.pth", members(pickle=bytes(content)))
    try:
        found = read_pth(tmp_path / "x.pth")
    except InputError:
        found = {}
    for array in found.values():
        assert array.nbytes <= 2**26
    assert os.listdir(tmp_path) == ["x.pth"]


def test_lying_sizes_in_the_directory_are_refused(tmp_path):
    content = sound_bytes()
    entry = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    path = tmp_path / "x.pth"
    for size in (0, 7, 2**31, 2**32 - 2):
        lying = bytearray(content)
        struct.pack_into("<2I", lying, entry + 20, size, size)
        path.write_bytes(lying)
        refused(path)
    lying = bytearray(content)
    struct.pack_into("<I", lying, entry + 16, zlib.crc32(b"something else"))
    path.write_bytes(lying)
    refused(path)


# The table of names


def test_names_shapes_and_order():
    tensors = to_torch(params(norm=True))
    assert {name: array.shape for name, array in tensors.items()} == {
        "fc1.weight": (5, 7),
        "fc1.bias": (5,),
        "bn1.weight": (5,),
        "bn1.bias": (5,),
        "bn1.running_mean": (5,),
        "bn1.running_var": (5,),
        "bn1.num_batches_tracked": (),
        "fc2_mu.weight": (2, 5),
        "fc2_mu.bias": (2,),
        "fc2_logvar.weight": (2, 5),
        "fc2_logvar.bias": (2,),
        "fc3.weight": (5, 2),
        "fc3.bias": (5,),
        "bn2.weight": (5,),
        "bn2.bias": (5,),
        "bn2.running_mean": (5,),
        "bn2.running_var": (5,),
        "bn2.num_batches_tracked": (),
        "fc4.weight": (7, 5),
        "fc4.bias": (7,),
    }
    assert list(tensors)[2:7] == [name for name in tensors if name.startswith("bn1")]
    for name, array in tensors.items():
        assert array.dtype == (np.int64 if name.endswith("tracked") else np.float32)
        assert array.flags.c_contiguous


@pytest.mark.parametrize("norm", [False, True])
def test_table_is_its_own_inverse(norm):
    layers = params(norm=norm)
    back = from_torch(to_torch(layers))
    assert {name: list(arrays) for name, arrays in back.items()} == {
        name: list(layers[name]) for name in back
    }
    for layer, arrays in layers.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(back[layer][name], array)
            assert back[layer][name].flags.c_contiguous


def test_floats_of_any_width_become_float32():
    tensors = to_torch(params())
    wide = {name: array.astype(np.float64) for name, array in tensors.items()}
    narrow = {name: array.astype(np.float16) for name, array in tensors.items()}
    for given_tensors in (wide, narrow):
        back = from_torch(given_tensors)
        assert back["fc1"]["kernel"].dtype == np.float32
        np.testing.assert_allclose(back["fc1"]["kernel"], tensors["fc1.weight"].T, rtol=1e-2)


@pytest.mark.parametrize(
    ("change", "needles"),
    [
        ({"fc4.bias": None}, ["lacks fc4.bias"]),
        ({"fc5.bias": np.ones(7)}, ["'fc5.bias'"]),
        ({"fc4.bias": None, "fc4.bais": np.ones(7)}, ["'fc4.bais'", "did you mean 'fc4.bias'"]),
        ({"bn1.weight": np.ones(5)}, ["lacks bn1.bias", "bn2.num_batches_tracked"]),
        ({"fc1.weight": np.ones((5, 8))}, ["fc4.weight has size 7", "fc1.weight has 8", "V tags"]),
        ({"fc3.bias": np.ones(6)}, ["fc3.bias has size 6", "has 5"]),
        ({"fc1.bias": np.ones((5, 1))}, ["fc1.bias has 2 dimensions, expected 1"]),
        ({"fc1.bias": np.array([1, 2, np.nan, np.inf, 3])}, ["fc1.bias: 2 of 5", "not finite"]),
        ({"fc1.bias": np.array([1, 2, 3, 4, 1e300])}, ["fc1.bias: 1 of 5", "not finite"]),
        ({"fc1.bias": np.arange(5)}, ["fc1.bias holds int64"]),
        ({"fc1.weight": np.ones((0, 7))}, ["fc1.weight is empty"]),
    ],
)
def test_state_dicts_that_do_not_fit(change, needles):
    tensors = {**to_torch(params()), **change}
    tensors = {name: array for name, array in tensors.items() if array is not None}
    with pytest.raises(InputError) as caught:
        from_torch(tensors)
    for needle in needles:
        assert needle in str(caught.value)
    assert "\n" not in str(caught.value)


def test_counts_are_counts():
    for bad in (np.array(-1), np.array(1.5), np.array([1])):
        with pytest.raises(InputError, match="num_batches_tracked"):
            from_torch({**to_torch(params(norm=True)), "bn1.num_batches_tracked": bad})


def test_parameters_that_are_not_the_models():
    layers = params()
    del layers["fc4"]["bias"]
    with pytest.raises(InputError, match=r"the parameter dictionary lacks fc4\.bias"):
        to_torch(layers)


def test_reading_needs_neither_torch_nor_pickle_loading(tmp_path, monkeypatch):
    import pickle
    import sys

    write_pth(tmp_path / "x.pth", samples())

    def never(*args, **kwargs):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, never)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    check_equal(read_pth(tmp_path / "x.pth"), samples())
