"""Coverage-guided fuzzing of one parser, in a process of its own since libFuzzer ends it.

    python -m tests.faults.fuzz cells|taxonomies|pth RUNS [options of libFuzzer]

What an input may do: be read, or be refused with the parser's own exception and one line; within a
second, without the process growing by 100 MB, and without running anything. Anything else ends the
process with libFuzzer's code for a crash, and the input is left in the current folder.
"""

import codecs
import io
import json
import os
import random
import sys
import time
import zipfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["jaxvae", "pickletools"]):
    import pickletools  # noqa: F401  the machine reads a program by it

    from jaxvae.data.cells.tag_parser import TagParseError, parse_tags
    from jaxvae.data.taxonomy import Taxonomy
    from jaxvae.errors import InputError
    from jaxvae.export.torch.pickler import TensorEntry, encode
    from jaxvae.export.torch.pth import _write_zip, read_pth

MOST_SECONDS = 1.0
MOST_KIB = 100 << 10
# A file in memory: a disk would take longer than a parser.
MEMORY = os.memfd_create("input")
PATH = f"/proc/self/fd/{MEMORY}"
# What runs something, or reaches out; a parser's own reading is neither.
FORBIDDEN = ("exec", "os.", "pickle.", "subprocess.", "socket.", "ctypes.", "shutil.")
CODECS = ("utf-8-sig", "cp437", "latin-1", "ascii", "unicode_escape", "raw_unicode_escape")
TOKENS = ["[", "]", "{", "}", "(", ")", "'", '"', ",", ":", "\\", "\0", "nan", "null", "1e999"]
TOKENS += ["\ufeff", "\u200b", "\ud800", "é", "e\u0301", "ﬁ", "İ", "jazz", "Rock ", "u'", "b'"]
TOKENS += ["-" * 999, "9" * 5000, "[" * 3000, '{"a":' * 2000, "\u2028", "__import__('os')", "true"]
TOKENS = [token.encode("utf-8", "surrogatepass") for token in TOKENS]


INSTRUCTIONS = [b"(", b"t", b"R", b"}", b"]", b"e", b"a", b"b", b"s", b"u", b"Q", b".", b"N"]
INSTRUCTIONS += [b"q\0", b"h\0", b"\x85", b"\x87", b"\x8a\x01\x07", b"K\x01", b"\x80\x02"]
INSTRUCTIONS += [b"cos\nsystem\n", b"ctorch._utils\n_rebuild_parameter\n", b"X\x01\0\0\0a"]


def cells(data: bytes) -> None:
    try:
        text = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    tags = parse_tags(text)
    assert all(isinstance(tag, str) and tag.strip() for tag in tags)
    assert parse_tags(tags) == tags


def taxonomies(data: bytes) -> None:
    taxonomy = Taxonomy.load(PATH)
    again = Taxonomy.from_mapping(taxonomy.to_mapping(), source="itself")
    assert again == taxonomy
    assert again.digest == taxonomy.digest
    assert again.merged == ()


def pth(data: bytes) -> None:
    for name, array in read_pth(PATH).items():
        assert isinstance(name, str)
        assert array.flags.owndata
        array.tobytes()


def planted(fault: str):
    """A target that does one thing that must be noticed, at an input that only guidance finds."""

    @atheris.instrument_func
    def target(data: bytes) -> None:
        if data[:1] == b"<" and data[1:2] == b"!" and data[2:3] == b">":
            if fault == "memory":
                bytearray(MOST_KIB << 10)[:: 1 << 12] = b"x" * (MOST_KIB >> 2)
            elif fault == "time":
                time.sleep(MOST_SECONDS)
            elif fault == "code":
                exec("pass")
            elif fault == "exception":
                raise KeyError("planted")
            elif fault == "lines":
                raise TagParseError("two\nlines")

    return target


def spliced(data: bytes, most: int, seed: int) -> bytes:
    """Text with a token put in, in the place of what was there or between, or libFuzzer's own."""
    rng = random.Random(seed)
    if rng.random() < 0.4:
        return atheris.Mutate(data, most)
    for _ in range(rng.randrange(1, 4)):
        at, cut = rng.randrange(len(data) + 1), rng.choice((0, 0, 1, 3))
        data = data[:at] + rng.choice(TOKENS) + data[at + cut :]
    return data[:most]


def members_of(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        named = [(info.filename.partition("/")[2], info) for info in archive.infolist()]
        # The last is a digest of the others, which the writer adds.
        return [(name, archive.read(info)) for name, info in named if name[:6] != ".data/"]


def zipped(members: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    _write_zip(file, members)
    return file.getvalue()


def rezipped(data: bytes, most: int, seed: int) -> bytes:
    """An archive with a member changed, and sums that are right again; at times without that."""
    rng = random.Random(seed)
    if rng.random() < 0.1:
        return atheris.Mutate(data, most)
    try:
        members = members_of(data)
        at = 0 if rng.random() < 0.7 else rng.randrange(len(members))  # data.pkl is the first
        name, content = members[at]
    except Exception:
        return SEEDS["pth"][0]
    what = rng.random()
    if what < 0.85:
        if rng.random() < 0.4:
            content = atheris.Mutate(content, 4096)
        else:  # a piece of a program between two others
            other = members_of(rng.choice(SEEDS["pth"]))[0][1]
            start, to = rng.randrange(len(other)), rng.randrange(len(content) + 1)
            taken = other[start : start + rng.choice((1, 2, 5, 20))]
            piece = rng.choice((taken, rng.choice(INSTRUCTIONS)))
            content = content[:to] + piece + content[to + rng.choice((0, len(piece))) :]
        members[at] = (name, content)
    elif what < 0.9:
        del members[at]
    else:
        members.append((rng.choice((name, f"data/{rng.randrange(3)}", "../x")), content[:64]))
    try:
        return zipped(members)[:most]
    except (ValueError, UnicodeError):
        return data


def torch_files() -> list[bytes]:
    def entry(kind, key, numel, shape, stride, offset=0):
        return TensorEntry(kind, key, numel, offset, shape, stride)

    plain = {"fc1.weight": entry("f4", "0", 6, (2, 3), (3, 1)), "n": entry("i8", "1", 1, (), ())}
    tied = {"a": entry("f4", "0", 6, (2,), (3,), 1), "b": entry("f4", "0", 6, (0, 2), (2, 1))}
    narrow = {"h": entry("bf16", "1", 4, (4,), (1,)), "t": entry("b1", "2", 3, (3,), (1,))}
    records = [("data/0", bytes(24)), ("data/1", bytes(8)), ("data/2", b"\0\1\1")]
    named = {f"model.{name}": tensor for name, tensor in plain.items()}
    about_modules = b"}X\x09\0\0\0_metadata]K\x01asb"
    wrapped = b"\x80\x02}X\x0a\0\0\0state_dict" + encode(named, "cpu")[2:-1]
    wrapped += about_modules + b"s."
    programs = [*(encode(tensors, "cpu") for tensors in (plain, tied, narrow)), wrapped]
    about = [("byteorder", b"little"), ("version", b"3\n")]
    # As the mutator makes them: read or refused for what it changed, and for nothing else.
    sound = [zipped([("data.pkl", program), *records, *about]) for program in programs]
    return [zipped(members_of(data)) for data in sound]


MAPPING = {"genre": ["jazz", "rock"], "mood": ["calm", "Calm "], "é": ["ﬁ", "dance music"]}
CELLS = ["['jazz', 'rock']", '["jazz", "rock"]', "jazz, rock", "'90s rock, jazz", "(u'a', 'b')"]
CELLS += ["{'a', \"b\"}", "['AC\\\\DC']", "nan", "[]", "'a', 'b'", '["\\u00e9"]']
SEEDS = {
    "cells": [cell.encode() for cell in CELLS],
    "taxonomies": [json.dumps(MAPPING, ensure_ascii=plain).encode() for plain in (True, False)],
    "pth": torch_files(),
}
TARGETS = {"cells": cells, "taxonomies": taxonomies, "pth": pth}
PLANTED = ("memory", "time", "code", "exception", "lines", "nothing")
TARGETS |= {f"planted {fault}": planted(fault) for fault in PLANTED}
MUTATORS = {"pth": rezipped, "cells": spliced, "taxonomies": spliced}


def most_kib() -> int:
    """The most memory this process ever had; what getrusage says may be its parent's."""
    with open("/proc/self/status", "rb") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(b"VmHWM"))


def fill(data: bytes) -> None:
    os.ftruncate(MEMORY, 0)
    os.pwrite(MEMORY, data, 0)


class Watch:
    """Runs a target on an input and raises where it did what no input may make it do."""

    def __init__(self, target):
        self.target, self.inside, self.ran = target, False, ""
        for codec in CODECS:  # found by importing, which would look like running something
            codecs.lookup(codec)
        sys.addaudithook(self.notice)
        self.before = most_kib()

    def notice(self, event: str, arguments: tuple) -> None:
        if self.inside and event.startswith(FORBIDDEN):
            self.ran = f"{event} {arguments!r:.200}"

    def __call__(self, data: bytes) -> None:
        fill(data)
        said = ""
        began, self.inside = time.perf_counter(), True
        try:
            self.target(data)
        except (InputError, TagParseError) as refusal:
            said = str(refusal)
        finally:
            self.inside = False
        assert "\n" not in said, "more than one line"
        assert not self.ran, f"it ran something: {self.ran}"
        assert time.perf_counter() - began < MOST_SECONDS, "too slow"
        grown = most_kib() - self.before
        assert grown < MOST_KIB, f"too hungry: {grown:,} KiB"


def main() -> None:
    name, runs, *options = sys.argv[1:]
    corpus = Path("corpus")
    corpus.mkdir()
    seeds = SEEDS.get(name, [b"xxx"])
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    for seed in seeds:  # which are sound: each must be read
        fill(seed)
        TARGETS[name](seed)
    watch = Watch(TARGETS[name])
    libfuzzer = [sys.argv[0], f"-runs={runs}", "-seed=1", "-max_len=8192", "-len_control=0"]
    mutator = {"custom_mutator": MUTATORS[name]} if name in MUTATORS else {}
    atheris.Setup([*libfuzzer, *options, str(corpus)], watch, **mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
