"""Models on the Hub, against a Hub of our own on the loopback interface; nothing else is contacted."""

import json
import os
import re
import shutil
import socket
import sys

import numpy as np
import pytest
import yaml

import jaxvae
from jaxvae.errors import InputError
from jaxvae.evaluation.saved_evaluation import save_evaluation
from jaxvae.export.network_tensors import to_state_dict
from jaxvae.models.trained import parameters_digest
from jaxvae.reports import publish
from tests.conftest import ROOT, XLA_FLAGS
from tests.helpers import warm_start
from tests.helpers.documents import python_block
from tests.helpers.model_hub import TOKEN, ModelHub

pytestmark = [pytest.mark.ecosystem, pytest.mark.usefixtures("optimized")]

# Runs in a process of its own, since the library reads its environment once, on import. A guard
# refuses every address but the loopback's and says so.
CHILD = """
import contextlib, io, json, socket, sys
connect, lookup = socket.socket.connect, socket.getaddrinfo
def guarded(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "localhost"):
        print("CONTACTED", address, file=sys.stderr)
        raise OSError("refused by the test")
    return connect(self, address)
def looked_up(host, *args, **kwargs):
    if host not in ("127.0.0.1", "localhost"):
        print("CONTACTED", host, file=sys.stderr)
        raise socket.gaierror("refused by the test")
    return lookup(host, *args, **kwargs)
socket.socket.connect, socket.getaddrinfo = guarded, looked_up
import jaxvae
from jaxvae.cli import main
results = []
for step in json.loads(sys.argv[1]):
    if isinstance(step, list):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main.main(step)
        results.append({"code": code, "out": out.getvalue(), "err": err.getvalue()})
        continue
    if isinstance(step, dict):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(step["code"], {})
        results.append({"out": out.getvalue()})
        continue
    try:
        run = jaxvae.load(step)
        tags = list(run.taxonomy.tags[:2])
        results.append({
            "facts": run.facts,
            "sample": run.sample(3, seed=1),
            "mean": run.encode([tags]).tolist(),
            "sets": run.complete(tags[:1], num=2).sets,
            "nats": run.log_likelihood([tags], num_importance_samples=10).tolist(),
        })
    except jaxvae.InputError as error:
        results.append({"error": str(error)})
print(json.dumps(results))
"""


def child(steps, *, endpoint, home, **extra):
    """Runs commands (lists), code (dictionaries) and opens models (addresses) in a fresh process."""
    keep = {k: v for k, v in os.environ.items() if not re.match(r"HF_|.*proxy$", k, re.I)}
    env = {**keep, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PYTHONPATH": str(ROOT), **extra}
    env |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    env["XLA_FLAGS"] = XLA_FLAGS  # whose results are compared with this process's to the bit
    command = [sys.executable, "-c", CHILD, json.dumps(steps)]
    done = warm_start.run(command, env=env, timeout=180)
    assert done.returncode == 0, done.stderr
    assert "CONTACTED" not in done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def one_line_of(result):
    """The message of a command that ended with exit code 2, or of a model that did not open."""
    if "error" in result:
        assert "\n" not in result["error"]
        return result["error"]
    assert result["code"] == 2, result
    assert re.fullmatch(r"jaxvae: [^\n]+\n", result["err"])
    assert result["out"] == ""
    return result["err"]


JUDGED = {
    "split": "test",
    "rows": 266,
    "num_importance_samples": 1000,
    "checkpoint": "best",
    "kld_weight": 1.0,
    "nll_iw": 18.125,
    "nll_iw_stderr": 0.002,
    "elbo": -18.5,
    "rate": 1.25,
    "distortion": 17.25,
    "information": 3.5,
    "collapsed": False,
    "active_units": 4,
    "latent_dim": 32,
    "kl_per_dimension": [0.5] * 4 + [0.0] * 28,
    "mean_average_precision": 0.375,
    "held_out_tags/model/recall_at_10": 0.625,
    "baseline/independent": 19.375,
    "gain/independent": 1.25,
    "gain/independent_stderr": 0.05,
    "baseline/mixture": 17.5,
    "gain/mixture": -0.625,
    "gain/mixture_stderr": 0.05,
}
FILES = {
    *("README.md", "config.json", "taxonomy.json", "model.safetensors", "metrics.json"),
    *("training.png", "kl_per_dimension.png", "cooccurrence.png"),
}


def digest_of(run):
    return parameters_digest(to_state_dict(run.network))


@pytest.fixture(scope="module")
def judged_folder(folder, run, tmp_path_factory):
    """The run with an evaluation beside it, as `evaluate` leaves one, and a source on this disk."""
    copy = tmp_path_factory.mktemp("judged") / "a"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("evaluation_*"))
    save_evaluation(copy, "test", {**JUDGED, "parameters": digest_of(run)})
    return copy


@pytest.fixture(scope="module")
def published(judged_folder, tmp_path_factory):
    """What `push --folder` writes."""
    folder = tmp_path_factory.mktemp("published") / "model"
    publish.write_folder(
        jaxvae.load(judged_folder), folder, repository="someone/tags", license="cc-by-4.0"
    )
    return folder


@pytest.fixture(scope="module")
def hub():
    hub = ModelHub()
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("hf_home")


@pytest.fixture(scope="module")
def pushed(hub, judged_folder, tmp_path_factory):
    """One process with a token that pushes in every way there is."""
    run = str(judged_folder)
    hub.commit("someone/public", {"README.md": b""})
    before = hub.commit(
        "someone/tags", {"training.png": b"old", "metrics.json": b"{}", "mine.txt": b"x"}
    )
    steps = [
        ["push", run, "someone/tags", "--license", "cc-by-4.0"],
        ["push", run, "someone/secret", "--private"],
        ["push", run, "someone/tags", "--revision", "dev/two", "--license", "mit"],
        ["push", run, "someone/public", "--private"],
        ["push", run, "stranger/tags"],
        "hf://someone/secret",
    ]
    place = tmp_path_factory.mktemp("pusher")
    results = child(steps, endpoint=hub.endpoint, home=place, HF_TOKEN=TOKEN)
    return {"results": results, "home": place, "before": before, "requests": list(hub.requests)}


def test_a_push_commits_what_push_to_a_folder_writes(hub, pushed, published):
    result = pushed["results"][0]
    assert result["code"] == 0, result
    address = result["out"].strip()
    files = hub.files("someone/tags", address.partition("@")[2])
    assert {path.name for path in published.iterdir()} == FILES
    assert set(files) == FILES | {"mine.txt"}  # an older picture went, what is not ours stayed
    for path in published.iterdir():
        assert files[path.name] == path.read_bytes(), path.name


def test_private_and_branches_are_what_was_asked_for(hub, pushed):
    assert hub.repos["someone/secret"]["private"] is True
    assert not hub.repos["someone/tags"]["private"]
    assert b"license: mit" in hub.files("someone/tags", "dev/two")["README.md"]
    assert b"license: cc-by-4.0" in hub.files("someone/tags")["README.md"]
    assert pushed["results"][5]["facts"]["source"] == "hf://someone/secret"


def test_nothing_private_goes_into_a_public_repository(hub, pushed):
    assert "is public; nothing was uploaded" in one_line_of(pushed["results"][3])
    assert hub.files("someone/public") == {"README.md": b""}


def test_a_token_without_the_right_is_one_line(pushed):
    message = one_line_of(pushed["results"][4])
    assert "may not do this with stranger/tags" in message
    assert "hf auth login" in message


def test_the_token_goes_to_the_hub_and_into_no_file(hub, pushed, judged_folder):
    writes = [each for each in pushed["requests"] if each[0] == "POST" and "/commit/" in each[1]]
    assert len(writes) == 3
    assert {token for _, _, token in writes} == {f"Bearer {TOKEN}"}
    for place in (judged_folder, pushed["home"]):
        for path in place.rglob("*"):
            assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
    for repo in hub.repos.values():
        for files in repo["commits"].values():
            assert not any(TOKEN.encode() in data for data in files.values())


def test_a_table_becomes_a_data_set(hub, run, tmp_path):
    table = tmp_path / "tags.parquet"
    run.generate_file(30, table)
    hub.commit("datasets/someone/public", {"README.md": b""})
    push = ["push", str(table)]
    steps = [
        [*push, "someone/sets", "--dataset", "--license", "mit"],
        [*push, "someone/hidden", "--dataset", "--private", "--revision", "dev"],
        [*push, "someone/public", "--dataset", "--private"],
    ]
    done, hidden, refused = child(
        steps, endpoint=hub.endpoint, home=tmp_path / "home", HF_TOKEN=TOKEN
    )
    address, commit = done["out"].strip().split("@")
    assert address == "hf://datasets/someone/sets"
    assert commit == hub.repos["datasets/someone/sets"]["branches"]["main"]
    files = hub.files("datasets/someone/sets")
    assert {*files} == {".gitattributes", "README.md", "tags.parquet", "tags.parquet.json"}
    assert files["tags.parquet"] == table.read_bytes()
    assert b"license: mit" in files["README.md"]
    assert b'load_dataset("someone/sets"' in files["README.md"]
    assert "someone/sets" not in hub.repos  # that is a model's name
    assert hidden["code"] == 0
    assert hub.repos["datasets/someone/hidden"]["private"] is True
    assert "tags.parquet" in hub.files("datasets/someone/hidden", "dev")
    assert "is public; nothing was uploaded" in one_line_of(refused)


@pytest.fixture(scope="module")
def opened(hub, pushed, published, home):
    """One process without a token that opens good models and bad, by name."""
    first = pushed["results"][0]["out"].strip()
    good = {path.name: path.read_bytes() for path in published.iterdir()}
    hub.commit("someone/other", {"config.json": b'{"model_type": "bert"}'})
    hub.commit("someone/empty", {"README.md": b""})
    hub.commit("someone/cut", {**good, "model.safetensors": good["model.safetensors"][:-8]})
    longer = good["model.safetensors"] + bytes(2**21)
    hub.commit("someone/longer", {**good, "model.safetensors": longer})
    hub.breaks.add(hub.commit("someone/dead", {**good, "mine.txt": b"x"}))
    own = json.loads(good["config.json"])
    own["config"]["model"]["prior"] = "my_priors.py:Mine"
    hub.commit("someone/code", {**good, "config.json": json.dumps(own).encode()})
    hub.commit("someone/lists", {**good, "config.json": b"[" * 100000})
    cases = {
        "dead": "hf://someone/dead",  # the first: the library sets itself up meanwhile, and talks
        "main": "hf://someone/tags",
        "pinned": first,
        "branch": "hf://someone/tags@dev/two",
        "private": "hf://someone/secret",
        "unknown": "hf://someone/absent",
        "revision": "hf://someone/tags@v9",
        "other": "hf://someone/other",
        "empty": "hf://someone/empty",
        "cut": "hf://someone/cut",
        "longer": "hf://someone/longer",
        "lists": "hf://someone/lists",
        "code": "hf://someone/code",
        "address": "hf://someone",
        "escape": "hf://someone/tags@../../etc",
        "evaluate": ["evaluate", "hf://someone/tags"],
        "verify": ["verify", "hf://someone/tags"],
        "compare": ["compare", "hf://someone/tags"],
        "verify a folder": ["verify", str(published)],
        "compare a folder": ["compare", str(published)],
        "explore": ["explore", "hf://someone/tags", "--no-open"],
        "last": ["sample", "hf://someone/tags", "--checkpoint", "last"],
        "calibrated": ["sample", "hf://someone/tags", "--decode", "calibrated"],
        "sample": ["sample", "hf://someone/tags", "--num", "3", "--seed", "1"],
        "traverse": ["traverse", "hf://someone/tags", "--around", "jazz", "--dim", "0"],
        "export": ["export", "hf://someone/tags", "--output", str(home / "m.safetensors")],
        "no token": ["push", str(published), "someone/more"],
        "documented": {"code": python_block("hub.md").replace("user/name", "someone/tags")},
        "bad name": ["push", str(published), "more"],
        "bad license": ["push", str(published), "someone/more", "--license", "MIT license"],
        "both": ["push", str(published), "someone/more", "--folder", "x", "--private"],
    }
    results = child(list(cases.values()), endpoint=hub.endpoint, home=home)
    return dict(zip(cases, results, strict=True))


def test_a_published_model_does_what_the_run_does(opened, run):
    tags = list(run.taxonomy.tags[:2])
    for name in ("main", "pinned", "branch"):
        found = opened[name]
        assert found["sample"] == run.sample(3, seed=1)
        assert np.array_equal(found["mean"], run.encode([tags]))
        assert found["sets"] == run.complete(tags[:1], num=2).sets
        assert found["nats"] == run.log_likelihood([tags], num_importance_samples=10).tolist()
    lines = [", ".join(each) for each in run.sample(3, seed=1)]
    assert opened["sample"]["out"].splitlines() == lines


def test_commands_take_an_address(opened, published, home):
    assert opened["traverse"]["code"] == 0
    assert "Dimension 0, around jazz" in opened["traverse"]["out"]
    assert "of hf://someone/tags;" in opened["export"]["out"]
    exported = (home / "m.safetensors").read_bytes()
    assert exported == (published / "model.safetensors").read_bytes()


def test_the_commit_is_recorded(hub, opened, pushed, run):
    branches = hub.repos["someone/tags"]["branches"]
    assert opened["main"]["facts"] == {
        "checkpoint": "best",
        "epoch": run.facts["epoch"],
        "source": "hf://someone/tags",
        "commit": branches["main"],
    }
    assert opened["pinned"]["facts"]["commit"] == pushed["results"][0]["out"].strip()[-40:]
    assert opened["branch"]["facts"]["commit"] == branches["dev/two"] != branches["main"]


@pytest.mark.parametrize(
    ("name", "needles"),
    [
        ("private", ["no such repository", "private", "hf auth login"]),
        ("unknown", ["hf://someone/absent", "no such repository", "private"]),
        ("revision", ["no revision 'v9'"]),
        ("other", ["not a jaxvae model"]),
        ("empty", ["not a jaxvae model", "config.json"]),
        ("cut", ["damaged"]),
        ("longer", ["the size of model.safetensors", "at most"]),
        ("lists", ["config.json", "not JSON"]),
        ("code", ["hf://someone/code", "model.prior=my_priors.py:Mine", "--trust-code"]),
        ("dead", ["cannot load hf://someone/dead"]),
        ("address", ["user/name"]),
        ("escape", ["not a branch, a tag or a commit"]),
        ("evaluate", ["no rows", "the run that trained it"]),
        ("verify", ["reads a run's folder"]),
        ("compare", ["reads a run's folder"]),
        ("verify a folder", ["reads a run's folder"]),
        ("compare a folder", ["reads a run's folder"]),
        ("explore", ["--output"]),
        ("last", ["one set of parameters"]),
        ("calibrated", ["no rows"]),
        ("no token", ["hf auth login"]),
        ("bad name", ["user/name"]),
        ("bad license", ["--license", "apache-2.0"]),
        ("both", ["--folder"]),
    ],
)
def test_what_is_wrong_is_one_line(opened, name, needles):
    message = one_line_of(opened[name])
    for needle in needles:
        assert needle in message


def test_a_model_whose_code_may_not_run_is_not_downloaded(hub, opened):
    asked = {path.rpartition("/")[2] for _, path, _ in hub.requests if "someone/code" in path}
    assert "config.json" in asked
    assert "model.safetensors" not in asked
    other = {path.rpartition("/")[2] for _, path, _ in hub.requests if "someone/tags" in path}
    assert "model.safetensors" in other  # a control


def test_the_documented_lines_run(hub, opened):
    assert opened["documented"]["out"].strip() == hub.repos["someone/tags"]["branches"]["main"]


def test_weights_too_large_for_the_config_are_not_downloaded(hub, opened):
    assert "error" in opened["longer"]
    asked = [path for method, path, _ in hub.requests if method == "GET" and "longer" in path]
    assert any("config.json" in path for path in asked)
    assert not any("safetensors" in path for path in asked)


def refusing_endpoint():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_without_a_network_the_cache_serves(opened, home, run):
    steps = ["hf://someone/tags", "hf://someone/absent", ["push", str(run.folder), "someone/tags"]]
    cached, absent, push = child(steps, endpoint=refusing_endpoint(), home=home)
    assert cached == opened["main"]
    assert "cannot be reached" in one_line_of(absent)
    assert "not in the cache" in one_line_of(absent)
    assert "cannot be reached" in one_line_of(push)


def test_offline_mode_says_so(hub, opened, tmp_path):
    before = len(hub.requests)
    steps = ["hf://someone/tags", ["push", str(tmp_path), "someone/tags"]]
    (found, _) = child(steps, endpoint=hub.endpoint, home=tmp_path, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in one_line_of(found)
    assert len(hub.requests) == before


# What is published, and what is believed of it


def test_the_card_has_valid_metadata_and_the_results(published):
    text = (published / "README.md").read_text()
    _, metadata, page = text.split("---\n", 2)
    card = yaml.safe_load(metadata)
    assert card["library_name"] == "jaxvae"
    assert card["license"] == "cc-by-4.0"
    assert "vae" in card["tags"]
    metrics = card["model-index"][0]["results"][0]["metrics"]
    assert {each["type"]: each["value"] for each in metrics} == {
        "nll_iw": 18.125,
        "mean_average_precision": 0.375,
        "recall_at_10": 0.625,
    }
    assert "| **this model** | 18.125 |" in page
    assert "| independent tags | 19.375 | the model is 1.250 ± 0.050 better |" in page
    assert 'jaxvae.load("hf://someone/tags")' in page
    assert "the embedded corpus" in page
    for name in re.findall(r"!\[[^]]*\]\(([^)]*)\)", page):
        assert (published / name).read_bytes().startswith(b"\x89PNG\r\n")
    assert len(re.findall(r"!\[", page)) == 3


def test_the_library_reads_the_card(published):
    from huggingface_hub import ModelCard

    card = ModelCard.load(published / "README.md")
    assert card.data.library_name == "jaxvae"
    assert card.data.eval_results[0].metric_value == 18.125


def test_an_evaluation_of_other_parameters_is_not_shown(judged_folder, run, tmp_path):
    copy = tmp_path / "a"
    shutil.copytree(judged_folder, copy)
    save_evaluation(copy, "test", {**JUDGED, "parameters": digest_of(run)[::-1]})
    names = publish.write_folder(
        jaxvae.load(copy), tmp_path / "out", repository="someone/tags", license=None
    )
    assert set(names) == FILES - {"metrics.json", "kl_per_dimension.png"}
    text = (tmp_path / "out" / "README.md").read_text()
    assert "was not evaluated" in text
    assert "model-index" not in text
    assert "license:" not in text
    assert "stated no license" in text


def test_folders_of_this_disk_and_markup_stay_here(run, tmp_path):
    config = json.loads(json.dumps(run.config))
    config["model_name"] = "a<b>|c"
    config["data"] |= {
        "dataset_name": "/home/me/secret/clips.csv",
        "taxonomy_path": "/home/me/t.json",
    }
    model = jaxvae.inference.run.Run(tmp_path, config, run.taxonomy, run.network, run.facts)
    publish.write_folder(model, tmp_path / "out", repository="someone/tags", license=None)
    for path in (tmp_path / "out").iterdir():
        assert b"/home/me" not in path.read_bytes(), path
    text = (tmp_path / "out" / "README.md").read_text()
    assert "clips.csv" in text
    assert r"# a\<b\>\|c" in text
    back = jaxvae.load(tmp_path / "out")
    assert back.config["data"]["dataset_name"] == "clips.csv"


def test_a_folder_that_was_written_opens(published, run):
    found = jaxvae.load(published)
    assert found.facts == {"checkpoint": "best", "epoch": run.facts["epoch"]}
    assert found.sample(5, seed=3) == run.sample(5, seed=3)
    with pytest.raises(InputError, match=r"rows\.npz"):
        found.rows("test")


def test_a_folder_that_exists_is_left_as_it_is(published, run):
    before = {path.name: path.read_bytes() for path in published.iterdir()}
    with pytest.raises(InputError, match="exists already"):
        publish.write_folder(run, published, repository="someone/tags", license=None)
    assert {path.name: path.read_bytes() for path in published.iterdir()} == before
    assert [path.name for path in published.parent.iterdir()] == [published.name]


def edit_config(**changes):
    def edit(folder):
        content = json.loads((folder / "config.json").read_text())
        for key, value in changes.items():
            place = content
            *outer, last = key.split("__")
            for name in outer:
                place = place[name]
            place[last] = value
        (folder / "config.json").write_text(json.dumps(content))

    return edit


def resealed(change):
    """Weights that were changed by someone who also changed their digest in the config."""

    def edit(folder):
        import hashlib

        from safetensors.numpy import load_file, save_file

        path = folder / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        edit_config(weights_sha256=digest)(folder)

    return edit


def rewrite_taxonomy(change):
    def edit(folder):
        from jaxvae.data.taxonomy import Taxonomy

        path = folder / "taxonomy.json"
        taxonomy = json.loads(path.read_text())
        change(taxonomy)
        path.write_text(json.dumps(taxonomy))
        edit_config(taxonomy_digest=Taxonomy.load(path).digest)(folder)

    return edit


def flip(name):
    def edit(folder):
        data = bytearray((folder / name).read_bytes())
        data[-5] ^= 1
        (folder / name).write_bytes(data)

    return edit


DAMAGE = {
    "nothing": (lambda folder: None, None),
    "a bit of the weights": (
        flip("model.safetensors"),
        "damaged: not what config.json was written with",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    "no taxonomy": (lambda folder: (folder / "taxonomy.json").unlink(), "taxonomy"),
    "another taxonomy": (
        lambda folder: (folder / "taxonomy.json").write_text('{"genre": ["jazz"]}'),
        "not the one the model was trained with",
    ),
    "a shorter taxonomy": (
        rewrite_taxonomy(lambda taxonomy: taxonomy.pop("tempo")),
        "by its config and taxonomy",
    ),
    "a tag that moves the cursor": (
        rewrite_taxonomy(lambda taxonomy: taxonomy["tempo"].__setitem__(0, "\x1b[2J")),
        "control characters",
    ),
    "another width": (edit_config(config__model__hidden_dim=64), "by its config and taxonomy"),
    "an absurd width": (edit_config(config__model__hidden_dim=10**30), "by its config"),
    "hidden layers that are not there": (
        edit_config(config__model__hidden_dims=[128, 64]),
        "another hidden_dims",
    ),
    "hidden layers that are text": (edit_config(config__model__hidden_dims="12"), "model"),
    "a width that is text": (edit_config(config__model__latent_dim="32"), "model"),
    "another prior": (edit_config(config__model__prior="flow"), "another prior"),
    "a config that is a list": (edit_config(config=[1]), "model"),
    "a group that is text": (edit_config(config__data="x"), "data"),
    "a name with an escape": (edit_config(config__model_name="\x1b]0;x\x07"), "model_name"),
    "a format of tomorrow": (edit_config(format=2), "does not know"),
    "a checkpoint that is a list": (edit_config(checkpoint=["best"]), "checkpoint"),
    "a huge config": (edit_config(config__more="x" * 2**21), "config"),
    "a tensor more": (
        resealed(lambda tensors: tensors.update(more=np.zeros(3, np.float32))),
        "unknown 'more'",
    ),
    "a tensor less": (resealed(lambda tensors: tensors.pop("fc3.bias")), "lacks fc3.bias"),
    "integers": (
        resealed(lambda tensors: tensors.update({"fc3.bias": np.zeros(128, np.uint8)})),
        "holds U8",
    ),
    "numbers that are none": (
        resealed(lambda tensors: tensors["fc3.bias"].fill(np.nan)),
        "not finite",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_or_forged_is_refused(published, tmp_path, name):
    damage, needle = DAMAGE[name]
    copy = tmp_path / "copy"
    shutil.copytree(published, copy)
    damage(copy)
    if needle is None:
        jaxvae.load(copy)
        return
    with pytest.raises(InputError, match=re.escape(needle)) as caught:
        jaxvae.load(copy)
    assert "\x1b" not in str(caught.value)
