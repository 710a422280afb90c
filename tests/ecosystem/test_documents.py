"""What the documents say is done, block by block; and the site that is built of them."""

import functools
import http.server
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from jaxvae.config import schema
from tests.conftest import ROOT, lacking
from tests.helpers.documents import Block, blocks, is_like, pages, reader, wrong_with
from tests.helpers.model_hub import TOKEN, ModelHub

pytestmark = pytest.mark.ecosystem

MOST_NOT_RUN = 15
NEEDS = {
    "docs/export.md": ("onnx", "onnxruntime", "flatbuffers", "torch"),
    "docs/generate.md": ("jinja2",),
    "docs/search.md": ("optuna",),
    "docs/trackers.md": ("tensorboard", "wandb", "trackio", "mlflow"),
}


def read(page: str) -> list[Block]:
    return blocks((ROOT / page).read_text())


def need(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            lacking(f"{package} is not installed")


@pytest.fixture(scope="module")
def hub():
    server = ModelHub()
    yield server
    server.close()


def with_code() -> list:
    """Every page with blocks, that which needs PyTorch marked so."""
    return [
        pytest.param(page, marks=[pytest.mark.torch] if "torch" in NEEDS.get(page, ()) else [])
        for page in pages()
        if read(page)
    ]


@pytest.mark.parametrize("page", with_code())
def test_a_page_does_what_it_says(page, hub):
    need(*NEEDS.get(page, ()))
    # The stand-in speaks LFS alone.
    account = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    # What is promised of both is tried in the one that has less.
    with (
        # A short path, or what is printed of it breaks where the page has it whole.
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place,
        reader(Path(place), installed=page == "docs/tutorial.md", **account) as someone,
    ):
        for block in read(page):
            assert not wrong_with(block), f"{page}:{block.line}"
            try:
                someone.do(block)
            except AssertionError as error:
                raise AssertionError(f"{page}:{block.line}: {error}") from error


def test_what_is_not_run_is_little_and_says_why():
    marked = [
        f"{page}:{each.line}: {each.excuse}"
        for page in pages()
        for each in read(page)
        if each.excuse
    ]
    print("\n".join(marked))
    assert len(marked) <= MOST_NOT_RUN, marked


def test_no_fence_is_overlooked():
    for page in pages():
        fences = len(re.findall(r"^\s*(?:```|~~~)", (ROOT / page).read_text(), re.M))
        assert fences == 2 * len(read(page)), page


# The reader notices: each of these pages is wrong in one place.

RIGHT = "```bash\nN=3\necho $N files\n```\n\n<!-- output -->\n```text\n3 files\n```\n\n```python\nx = 1\n```\n\n```python\nprint(x)\n```\n"


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        (RIGHT, None),
        (RIGHT.replace("echo", "ecko"), "ecko"),
        (RIGHT.replace("\n3 files", "\n4 files"), "4 files"),
        (RIGHT.replace("<!-- output -->\n", ""), "neither run nor marked"),
        (RIGHT.replace("<!-- output -->", "<!-- ouput -->"), "neither run nor marked"),
        (RIGHT.replace("```bash", "```"), "neither run nor marked"),
        (RIGHT.replace("```bash", "```sh"), "neither run nor marked"),
        (RIGHT.replace("x = 1", "y = 1"), "NameError"),
        (RIGHT.replace("x = 1", "raise SystemExit(3)"), "SystemExit"),
        ("```bash\nfalse\ntrue\n```\n", "false"),
        ("```bash\nfalse | cat\n```\n", "false"),
        ("```diff\n--- a/jaxvae/errors.py\n+++ b/jaxvae/errors.py\n@@ -1 +1 @@\n-no\n+n\n```\n", "no"),
    ],
)  # fmt: skip
def test_a_wrong_page_is_noticed(page, wrong, tmp_path):
    with reader(tmp_path) as someone:
        found = ""
        for block in blocks(page):
            found = found or wrong_with(block)
            try:
                if not found:
                    someone.do(block)
            except AssertionError as error:
                found = str(error)
    assert (wrong in found) if wrong else not found, found


def test_outputs_are_compared_where_they_are_stable():
    assert is_like("epoch 4/4  val 9.438 …", "epoch 4/4 val 12.1  kl 3")
    assert is_like("…\nb\n…", "a\nb\nc")
    assert is_like("1,200 rows", "1,200   rows\n")
    assert not is_like("epoch 4/4  val 9.438", "epoch 3/4  val 9.438")
    assert not is_like("1,200 rows", "1,201 rows")
    assert not is_like("a\nb", "a\nb\nc")
    assert not is_like("val 9.4", "val nan")


# The site


class Links(HTMLParser):
    """Everything that a page would fetch by itself, and its anchors."""

    def __init__(self):
        super().__init__()
        self.fetched, self.linked, self.anchors = [], [], set()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found["id"]} if found.get("id") else set()
        if tag == "a":
            self.linked.append(found.get("href") or "")
        elif tag == "link" and found.get("rel") not in ("canonical", "prev", "next"):
            self.fetched.append(found.get("href") or "")
        elif found.get("src"):
            self.fetched.append(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    need("mkdocs", "mkdocstrings", "material")
    place = tmp_path_factory.mktemp("site")
    guard = place / "guard"
    guard.mkdir()
    # Building is done without a network: whoever asks for an address is refused, and it fails.
    (guard / "sitecustomize.py").write_text(
        "import socket\n"
        "def refuse(*a, **k): raise SystemExit('the build asked for the network')\n"
        "socket.getaddrinfo = socket.socket.connect = refuse\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(place / "site")],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": f"{guard}:{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "site"


@pytest.fixture(scope="module")
def links(site):
    found = {}
    for path in site.rglob("*.html"):
        found[path.resolve()] = parser = Links()
        parser.feed(path.read_text())
    return found


def test_every_page_is_in_the_site(site):
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file(), page


def test_the_site_fetches_nothing_from_elsewhere(site, links):
    for path, page in links.items():
        for address in page.fetched:
            assert not urlsplit(address).netloc, f"{path.name}: {address}"
            if path.name != "404.html" and not address.startswith("data:"):
                assert (path.parent / unquote(urlsplit(address).path)).is_file(), address
    for path in site.rglob("*.css"):
        fetched = re.findall(r"(?:url\(|@import)\s*[\"']?(https?:|//)", path.read_text())
        assert not fetched, path


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_its_search_finds_and_nobody_else_is_asked(site):
    need("playwright")
    from playwright.sync_api import sync_playwright

    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        lacking("chromium is not installed")
    handler = functools.partial(Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}/"
    asked = []
    try:
        with sync_playwright() as started:
            page = started.chromium.launch(
                executable_path=browser, args=["--no-sandbox"]
            ).new_page()
            page.on("request", lambda request: asked.append(request.url))
            page.goto(f"{here}index.html")
            page.locator("input[name=query]").click()
            page.keyboard.type("vampprior")
            page.locator(".md-search-result__item").first.wait_for(timeout=30_000)
            found = page.locator(".md-search-result__link").first.get_attribute("href")
    finally:
        server.shutdown()
        server.server_close()
    assert "quality.html" in found or "reference/" in found, found
    assert len(asked) > 5
    assert all(address.startswith((here, "blob:", "data:")) for address in asked)


def test_the_sites_links_lead_somewhere(links):
    checked = 0
    for path, page in links.items():
        for address in page.linked:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target in links or target.is_file(), f"{path.name}: {address}"
            if parts.fragment and target in links:
                assert unquote(parts.fragment) in links[target].anchors, f"{path.name}: {address}"
            checked += 1
    assert checked > 100


def test_the_reference_is_the_programs_own(site):
    fields = (site / "reference/fields.html").read_text()
    from ml_collections import ConfigDict

    from jaxvae.config import parsing

    config: ConfigDict = parsing.load_config("configs/base.py")
    for name, _ in schema.flatten(config):
        assert f"<code>{name}</code>" in fields, name
    helped = subprocess.run(
        [sys.executable, "-m", "jaxvae", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )  # fmt: skip
    names = re.findall(r"^    ([\w-]+)(?:  |$)", helped.stdout, re.M)
    commands = (site / "reference/commands.html").read_text()
    assert len(names) >= 17
    for name in names:
        assert f'<h2 id="{name}">' in commands
    python = (site / "reference/python.html").read_text()
    for name in ("load_many", "train_and_evaluate", "log_likelihood", "Completed", "free_bits"):
        assert name in python


def test_links_of_the_files_beside_the_site_lead_somewhere():
    for page in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "configs/README.md",
        "benchmarks/README.md",
    ):
        for address in re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text()):
            if not urlsplit(address).scheme:
                assert (ROOT / page).parent.joinpath(address).exists(), f"{page}: {address}"
