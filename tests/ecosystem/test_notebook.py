"""The notebook, run cell by cell as Jupyter does, on a CPU and outside Colab."""

import base64
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

import jaxvae
from tests.conftest import ROOT, lacking
from tests.helpers import clone

pytestmark = pytest.mark.ecosystem

NOTEBOOK = ROOT / "notebooks" / "jaxvae_colab.ipynb"
EPOCHS = 6


def read():
    return json.loads(NOTEBOOK.read_text())


def source(cell) -> str:
    return "".join(cell["source"])


def execute(notebook, place, **environment):
    """Runs it in a folder of its own; returns the notebook with what it printed and drew."""
    for package in ("nbclient", "nbformat", "ipykernel"):
        if importlib.util.find_spec(package) is None:
            lacking(f"{package} is not installed")
    nbclient, nbformat = importlib.import_module("nbclient"), importlib.import_module("nbformat")
    ours = {
        **os.environ, "PYTHONPATH": str(ROOT), "JAXVAE_NOTEBOOK_EPOCHS": str(EPOCHS),
        "HF_HUB_OFFLINE": "1", "HF_HOME": str(place / "hub"), "IPYTHONDIR": str(place / "ipython"),
        "HOME": str(place), **environment,
    }  # fmt: skip
    made = nbformat.reads(json.dumps(notebook), as_version=4)
    client = nbclient.NotebookClient(
        made, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(place)}}
    )
    client.execute(env=ours)
    return made


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    place = tmp_path_factory.mktemp("notebook")
    return execute(read(), place), place


def printed(notebook, needle):
    """What the cell with a text in its source printed."""
    (cell,) = [each for each in notebook.cells if needle in each.source]
    # rich shows its lines as HTML in a notebook, with the text beside it.
    return "".join(
        each.text if each.output_type == "stream" else each.get("data", {}).get("text/plain", "")
        for each in cell.outputs
    )


def test_it_is_kept_without_outputs():
    for cell in read()["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_it_trains_on_what_is_in_reach(done):
    notebook, place = done
    report = printed(notebook, "format_report(dataset.report)")
    assert "The embedded corpus instead: " in report
    assert "rows kept                          5,334" in report
    lines = (place / "runs" / "best" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == EPOCHS


def test_it_says_how_good_the_model_is(done):
    said = printed(done[0], '"evaluate"')
    assert "-> this model" in said
    assert "mixture of Bernoullis" in said
    assert "Try next: " in said


def test_it_samples_and_completes(done):
    samples = printed(done[0], "run.sample(10").splitlines()
    assert len(samples) == 10
    assert all(samples)
    completed = printed(done[0], "run.complete(")
    assert "jazz" in completed.splitlines()[0]
    assert "upright bass" in completed.splitlines()[0]
    assert "tempo: " in completed


def test_its_pictures_are_there_and_not_blank(done):
    from matplotlib.image import imread

    pictures = [
        (cell.source.split("(")[0], output.data["image/png"])
        for cell in done[0].cells if cell.cell_type == "code"
        for output in cell.outputs if "image/png" in output.get("data", {})
    ]  # fmt: skip
    names = [name.removeprefix("run.plot.") for name, _ in pictures]
    assert names[1:] == ["cooccurrence", "calibration", "kl", "latent_map", "traversal"]
    keep = os.environ.get("JAXVAE_KEEP_PICTURES")
    for (_, data), name in zip(pictures, ["curves", *names[1:]], strict=True):
        png = base64.b64decode(data)
        if keep:
            (Path(keep) / f"{name}.png").write_bytes(png)
        pixels = imread(io.BytesIO(png))[..., :3]
        assert min(pixels.shape[:2]) > 200, name
        ink = (np.abs(pixels - pixels[0, 0]).max(axis=-1) > 0.1).mean()
        assert ink > 0.005, name


def test_the_page_to_click_in_answers_inside_the_notebook(done, tmp_path):
    if importlib.util.find_spec("playwright") is None:
        lacking("playwright is not installed")
    from playwright.sync_api import sync_playwright

    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        lacking("chromium is not installed")
    (cell,) = [each for each in done[0].cells if "iframe" in each.source]
    (shown,) = [
        each.data["text/html"] for each in cell.outputs if "text/html" in each.get("data", {})
    ]
    (tmp_path / "page.html").write_text(f"<!doctype html><body>{shown}")
    wrong = []
    with sync_playwright() as started:
        page = started.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((tmp_path / "page.html").as_uri())
        inside = page.frame_locator("iframe")
        inside.get_by_role("button", name="jazz").first.click()
        inside.locator("#set .given", has_text="jazz").wait_for(timeout=30_000)
    assert not wrong


def test_what_only_colab_has_is_guarded():
    outside = []
    for cell in read()["cells"]:
        if cell["cell_type"] != "code":
            continue
        text = source(cell)
        assert not re.search(r"^\s*[%!]", text, re.M), "a magic that is not guarded"
        for line in text.splitlines():
            if re.search(r"\bdrive\.|\bfiles\.|run_line_magic", line) and not line.startswith(
                "    "
            ):
                outside.append(line)
    assert not outside


def test_the_same_cells_again_find_the_run(done):
    """As after a disconnect, by the same line; what is finished is left as it is."""
    _, place = done
    again = read()
    until = next(
        n for n, each in enumerate(again["cells"]) if "train_and_evaluate(" in source(each)
    )
    again["cells"] = again["cells"][: until + 1]
    before = (place / "runs" / "best" / "model.pth").read_bytes()
    finished = execute(again, place)
    said = printed(finished, "train_and_evaluate(")
    assert "epoch 1/6" in printed(done[0], "train_and_evaluate(")
    assert "epoch 1/6" not in said
    assert (place / "runs" / "best" / "model.pth").read_bytes() == before


def test_it_installs_the_clone_and_leaves_jax_in_place(tmp_path):
    """The cell that installs, by pip, in an environment that has all but the package."""
    (cell,) = [each for each in read()["cells"] if "sources[0].parent" in source(each)]
    with zipfile.ZipFile(tmp_path / "jaxvae.zip", "w") as archive:
        for name in clone.tracked():
            archive.write(ROOT / name, f"jaxvae-main/{name}")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv" / "lib").glob("python3*/site-packages")
    (site / "image.pth").write_text(sysconfig.get_path("purelib") + "\n")
    # An older Python's venv brings a setuptools that is too old to build with.
    subprocess.run([python, "-m", "pip", "uninstall", "-qy", "setuptools"], check=True)
    keep = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = f'REPOSITORY = ""\n{source(cell)}\nprint(jaxvae.__file__)'
    done = subprocess.run(
        [python, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={**keep, "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said, where = done.stdout.splitlines()[-2:]
    assert said.startswith(f"jaxvae {jaxvae.__version__} ")
    assert f"'jax': '{importlib.metadata.version('jax')}'" in said
    assert where.startswith(str(site))
    missing = subprocess.run(
        [sys.executable, "-c", code], cwd=site.parent, capture_output=True, text=True, env=keep
    )
    assert missing.returncode == 1
    assert missing.stderr.strip().startswith("Set REPOSITORY above, or upload jaxvae.zip")
