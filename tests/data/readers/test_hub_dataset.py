"""Hub data sets against a hub of our own on the loopback interface; nothing else is contacted."""

import http.server
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

pytestmark = pytest.mark.ecosystem

SHA = "0123456789abcdef0123456789abcdef01234567"
CSV = b"id,aspect_list\n1,\"['rock', 'jazz']\"\n2,\n3,NA\n4,\"jazz, piano\"\n" + b"5,rock\n" * 40

# Runs in a process of its own, since the libraries read their environment once, on import. A guard
# refuses every address but the loopback's and says so.
CHILD = """
import json, socket, sys, time
connect = socket.socket.connect
def guarded(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "localhost"):
        print("CONTACTED", address, file=sys.stderr)
        raise OSError("refused by the test")
    return connect(self, address)
socket.socket.connect = guarded
lookup = socket.getaddrinfo
def looked_up(host, *args, **kwargs):
    if host not in ("127.0.0.1", "localhost"):
        if host != "datasets-server.127.0.0.1":  # The library's way from our hub to its sister.
            print("CONTACTED", host, file=sys.stderr)
        raise socket.gaierror("refused by the test")
    return lookup(host, *args, **kwargs)
socket.getaddrinfo = looked_up
from jaxvae.data.dataset import load_dataset
from jaxvae.errors import InputError
from jaxvae.data.taxonomy import Taxonomy
import datasets
taxonomy = Taxonomy.from_mapping({"all": ["rock", "jazz", "piano"]}, source="test")
start = time.monotonic()
results = []
for name, split, column, *streaming in json.loads(sys.argv[1]):
    try:
        data = load_dataset(taxonomy=taxonomy, dataset_name=name, dataset_split=split,
                            aspect_column=column, hub_streaming=bool(streaming),
                            val_fraction=0.1, test_fraction=0.1)
        results.append({"rows": data.rows.tolist(), "source": data.source, "report": data.report})
    except InputError as error:
        results.append({"error": str(error)})
bars = datasets.is_progress_bar_enabled()
print(json.dumps({"results": results, "seconds": time.monotonic() - start, "bars": bars}))
"""


def with_sound() -> bytes:
    """Parquet of tags beside 64 MB that no compression makes smaller, in two row groups."""
    rng = np.random.default_rng(0)
    tags = [["rock"], ["jazz", "piano"], [], None] * 16
    table = pyarrow.table({"sound": [rng.bytes(2**20) for _ in tags], "aspect_list": tags})
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file, row_group_size=32)
    return file.getvalue()


FILES = {"someone/clips": ("clips.csv", CSV), "someone/sounds": ("sounds.parquet", with_sound())}


class Hub(http.server.BaseHTTPRequestHandler):
    """The few routes of the hub that two small data sets need, and a gated one."""

    protocol_version = "HTTP/1.1"
    sent = 0

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer()

    def answer(self):
        path = self.path.split("?")[0]
        repo = re.search(r"/datasets/([\w.-]+/[\w.-]+)", path)
        name = repo.group(1) if repo else None
        file, content = FILES.get(name, ("", b""))
        entry = {"type": "file", "path": file, "size": len(content), "oid": "a" * 40}
        if path == "/":
            self.send(200, b"hub")
        elif name == "someone/gated":
            self.send(401, b"{}", {"X-Error-Code": "GatedRepo"})
        elif not file:
            self.send(401 if name else 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif "/resolve/" in path and path.endswith(file):
            self.send_part(content, {"ETag": '"' + "a" * 40 + '"', "X-Repo-Commit": SHA})
        elif "/resolve/" in path:
            self.send(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": SHA})
        elif "/tree/" in path:
            if "/" in path.split("/tree/")[1].strip("/"):
                self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            else:
                self.send(200, json.dumps([entry]).encode())
        elif "/paths-info/" in path:
            self.send(200, json.dumps([entry]).encode())
        else:
            siblings = [{"rfilename": file}]
            info = {"id": name, "sha": SHA, "siblings": siblings, "private": False, "tags": []}
            self.send(200, json.dumps(info).encode())

    def send_part(self, content, headers):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            self.send(200, content, headers)
            return
        start, end = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self.send(206, content[start : end + 1], headers)

    def send(self, status, body, headers=None):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            Hub.sent += len(body)
            self.wfile.write(body)

    def log_message(self, *args):
        self.server.log.append((self.command, self.path))


@pytest.fixture(scope="module")
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    server.log = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("hf_home")


def load(cases, *, endpoint, home, **extra):
    """Loads data sets in a fresh process; returns its results and what it printed to stderr."""
    keep = {k: v for k, v in os.environ.items() if not re.match(r"HF_|.*proxy$", k, re.I)}
    root = str(Path(__file__).parents[2])
    env = {**keep, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PYTHONPATH": root, **extra}
    env["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"  # Else the library also reports to another host.
    command = [sys.executable, "-c", CHILD, json.dumps(cases)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    assert "CONTACTED" not in done.stderr
    return json.loads(done.stdout), done.stderr


CLIPS = ("someone/clips", "train", "aspect_list")


@pytest.fixture(scope="module")
def warm(hub, home):
    """One process that reads from the loopback hub and fills the cache at `home`."""
    cases = [
        CLIPS,
        ("someone/clips", "tset", "aspect_list"),
        ("someone/clips", "train", "aspects"),
        ("someone/absent", "train", "aspect_list"),
        ("someone/gated", "train", "aspect_list"),
    ]
    return load(cases, endpoint=hub, home=home)


def test_reads_a_data_set_and_says_what_was_read(warm):
    result = warm[0]["results"][0]
    assert "error" not in result, result
    assert result["rows"][:2] == [[0, 1], [1, 2]]
    assert result["report"]["rows_read"] == 44
    assert result["report"]["rows_kept"] == 42
    assert result["source"].startswith("hub data set someone/clips, split train")
    assert "cached" not in result["source"]


def test_is_quiet_and_leaves_the_progress_bars_as_they_were(warm):
    assert warm[1] == ""
    assert warm[0]["bars"] is True


@pytest.mark.parametrize(
    ("number", "needles"),
    [
        (1, ["'tset'", "train", "data.dataset_split"]),
        (2, ["no column 'aspects'", "did you mean 'aspect_list'", "'id'"]),
        (3, ["someone/absent", "no such data set"]),
        (4, ["someone/gated", "gated", "log in"]),
    ],
)
def test_what_is_wrong_is_one_line(warm, number, needles):
    error = warm[0]["results"][number]["error"]
    assert "\n" not in error
    for needle in needles:
        assert needle in error


SOUNDS = ("someone/sounds", "train", "aspect_list")


@pytest.fixture(scope="module")
def streamed(hub, tmp_path_factory):
    """What streams give, how much was sent for the first, and what is left of them on disk."""
    home = tmp_path_factory.mktemp("streamed")
    before = Hub.sent
    (first, stderr) = load([(*SOUNDS, "streaming")], endpoint=hub, home=home)
    sent = Hub.sent - before
    cases = [
        (*CLIPS, "streaming"),
        ("someone/sounds", "train[:33]", "aspect_list", "streaming"),
        ("someone/sounds", "tset", "aspect_list", "streaming"),
        ("someone/sounds", "train", "aspects", "streaming"),
        ("someone/clips", "train", "aspects", "streaming"),
        ("someone/absent", "train", "aspect_list", "streaming"),
        ("someone/gated", "train", "aspect_list", "streaming"),
        ("embedded", "train", "", "streaming"),
    ]
    (rest, more) = load(cases, endpoint=hub, home=home)
    kept = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
    return first["results"] + rest["results"], sent, kept, stderr + more


def test_a_stream_gives_the_rows_of_the_copy(hub, streamed, warm, tmp_path):
    sounds, clips, part, *_ = streamed[0]
    before = Hub.sent
    copy = load([SOUNDS], endpoint=hub, home=tmp_path)[0]["results"][0]
    assert sounds["rows"] == copy["rows"]
    assert sounds["report"]["rows_read"] == 64
    assert clips["rows"] == warm[0]["results"][0]["rows"]
    assert (part["report"]["rows_read"], part["report"]["rows_kept"]) == (33, 17)
    assert part["source"] == "hub data set someone/sounds, split train[:33], streamed"
    # Of the file with sound the stream brings the tags, the copy everything.
    size = len(FILES["someone/sounds"][1])
    assert Hub.sent - before > size > 2**26
    assert streamed[1] < size / 4
    assert streamed[2] < size / 100
    assert streamed[3] == ""


@pytest.mark.parametrize(
    ("number", "needles"),
    [
        (3, ["'tset'", "train", "data.dataset_split"]),
        (4, ["no column 'aspects'", "did you mean 'aspect_list'", "'sound'"]),
        (5, ["no column 'aspects'", "did you mean 'aspect_list'", "'id'"]),
        (6, ["someone/absent", "no such data set"]),
        (7, ["someone/gated", "gated", "log in"]),
        (8, ["hub_streaming", "only hub data sets"]),
    ],
)
def test_what_is_wrong_with_a_stream_is_one_line(streamed, number, needles):
    error = streamed[0][number]["error"]
    assert "\n" not in error
    for needle in needles:
        assert needle in error


def test_a_stream_needs_the_hub(home, warm):
    """Also where the cache has a copy."""
    check_no_network(load([(*CLIPS, "streaming")], endpoint=refusing_endpoint(), home=home))


def check_no_network(outcome):
    results, stderr = outcome
    assert stderr == ""
    assert results["seconds"] < 10
    error = results["results"][0]["error"]
    assert "\n" not in error
    for needle in ("HF_HUB_OFFLINE=1", "data.dataset_name=clips.csv", "embedded", "someone/clips"):
        assert needle in error


def refusing_endpoint():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def hanging_endpoint():
    """Accepts connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_hub_that_refuses(tmp_path):
    check_no_network(load([CLIPS], endpoint=refusing_endpoint(), home=tmp_path))


def test_hub_that_hangs(tmp_path, hanging_endpoint):
    check_no_network(load([CLIPS], endpoint=hanging_endpoint, home=tmp_path))


def test_warm_cache_serves_when_the_hub_refuses_or_offline_mode_is_set(warm, home):
    online = warm[0]["results"][0]
    for extra in ({}, {"HF_HUB_OFFLINE": "1"}):
        results, stderr = load([CLIPS], endpoint=refusing_endpoint(), home=home, **extra)
        assert stderr == ""
        assert results["seconds"] < 10
        (result,) = results["results"]
        assert result["rows"] == online["rows"]
        assert "cached" in result["source"]


def test_offline_mode_without_a_cache(tmp_path):
    check_no_network(load([CLIPS], endpoint=refusing_endpoint(), home=tmp_path, HF_HUB_OFFLINE="1"))


def test_endpoint_that_is_no_web_address(tmp_path):
    results, _ = load([CLIPS], endpoint="file:///etc", home=tmp_path)
    assert "HF_ENDPOINT" in results["results"][0]["error"]


def test_too_old_a_library_is_refused(monkeypatch):
    import datasets

    from jaxvae.data.readers.hub.dataset import open_hub
    from jaxvae.errors import InputError

    monkeypatch.setattr(datasets, "__version__", "3.6.0")
    start = time.monotonic()
    with pytest.raises(InputError, match="too old"):
        open_hub("someone/clips", split="train")
    assert time.monotonic() - start < 5
