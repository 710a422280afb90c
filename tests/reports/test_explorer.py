"""The page to click on tags in: what is in it, and in a browser what it says and does."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import jaxvae
from jaxvae.cli import main
from jaxvae.config import parsing
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.inference import completion, queries
from jaxvae.reports import explorer, explorer_data
from jaxvae.train.trainer import train_and_evaluate
from tests.conftest import ROOT, lacking
from tests.helpers.networks import DEEPER, make_run

HOSTILE = ("</script><b>", 'it\'s "quoted"', "a & b", "<!--", "🎷 sax", "\u2028line", "__proto__")


def test_the_page_is_one_file_and_the_same_each_time(run):
    page = explorer.make_page(run)
    assert page == explorer.make_page(run)
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    for outside in ("src=", 'href="http', "@import", "fetch(", "XMLHttpRequest", "__DATA__"):
        assert outside not in page
    data = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    assert tuple(data["tags"]) == run.taxonomy.tags


@pytest.mark.long
def test_medium_is_under_three_megabytes(tmp_path):
    config = parsing.load_config(f"{ROOT}/configs/medium.py")
    config.trainer.max_epochs, config.logger.name = 1, ()
    train_and_evaluate(config, tmp_path / "run", models_dir=tmp_path / "models")
    path = explorer.write_explore(jaxvae.load(tmp_path / "run"), output=None)
    assert path == tmp_path / "run" / "explore.html"
    assert path.stat().st_size < 3 * 2**20


def test_half_precision_is_what_it_says():
    values = np.array([0.0, 1.0, -3.5e-7, 1e30, -2e29], np.float64)
    packed, found = explorer_data.encode_float16(values)
    np.testing.assert_allclose(found, values, rtol=1e-3, atol=1e30 * 2.0**-24)
    assert set(packed) == {"half", "scale"}
    zeros = explorer_data.encode_float16(np.zeros(3))[1]
    assert (zeros == 0.0).all()


def test_the_command_writes_and_opens(run, folder, tmp_path, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    output = tmp_path / "page.html"
    assert main.main(["explore", str(folder), "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    assert opened == [output.as_uri()]
    assert main.main(["explore", str(folder), "--output", str(output), "--no-open"]) == 0
    assert len(opened) == 1
    assert main.main(["explore", str(folder), "--output", str(tmp_path / "page.txt")]) == 2
    assert "must end in .html" in capsys.readouterr().err


def test_damaged_rows_are_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "rows.npz").write_bytes(b"no")
    with pytest.raises(InputError, match=r"rows\.npz"):
        explorer.write_explore(jaxvae.load(copy), output=tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


in_a_browser = pytest.mark.ecosystem
"""Another runtime; what the page is made of is tested without one."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run whose tags are made to break out of a page."""
    place = tmp_path_factory.mktemp("hostile")
    (place / "taxonomy.json").write_text(json.dumps({"<i>": HOSTILE[:3], "b": HOSTILE[3:]}))
    rng = np.random.default_rng(0)
    rows = [[tag for tag in HOSTILE if rng.random() < 0.5] or [HOSTILE[0]] for _ in range(300)]
    (place / "clips.json").write_text(json.dumps([{"tags": row} for row in rows]))
    config = parsing.load_config(f"{ROOT}/configs/small.py")
    config.trainer.max_epochs, config.logger.name = 2, ()
    config.data.dataset_name, config.data.aspect_column = str(place / "clips.json"), "tags"
    config.data.taxonomy_path = str(place / "taxonomy.json")
    train_and_evaluate(config, place / "run", models_dir=place / "models")
    return jaxvae.load(place / "run")


@pytest.mark.long
def test_no_tag_is_markup(hostile):
    page = explorer.make_page(hostile)
    assert "<b>" not in page
    assert page.count("</script>") == 2
    data = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    assert tuple(data["tags"]) == hostile.taxonomy.tags


@pytest.fixture(scope="module")
def browser():
    """A Chromium, where there is one."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        lacking("no Chromium here")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Page:
    """A run's page in a browser; an error on its console fails the test that made it."""

    def __init__(self, browser, path):
        self.errors = []
        self.page = browser.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "console",
            lambda said: self.errors.append(said.text) if said.type == "error" else None,
        )
        self.page.goto(path.as_uri())

    def state(self):
        self.page.evaluate("explore.settled")
        assert not self.errors
        return self.page.evaluate("explore.snapshot()")

    def tag(self, name):
        return self.page.locator("#concepts button.tag", has=self.page.locator(
            f"xpath=.//*[normalize-space(.)={json.dumps(name)}]"
        )).first  # fmt: skip


@pytest.fixture
def opened(browser, run, tmp_path):
    page = Page(browser, explorer.write_explore(run, output=tmp_path / "page.html"))
    yield page
    page.page.close()


def averaged(run, present, absent):
    """p(tag | given) by Python, over several seeds, and how far one of them is from the mean."""
    columns = [run.taxonomy.columns(tags, "error") for tags in (present, absent)]
    each = [completion.complete([run.network], *columns, num=1, seed=s).marginals for s in range(4)]
    return np.mean(each, axis=0)


@in_a_browser
@pytest.mark.parametrize(
    "given", [(["jazz"], []), (["jazz", "piano"], ["fast tempo"]), ([], ["rock"])]
)
def test_its_probabilities_are_pythons(opened, run, given):
    present, absent = given
    hash_ = opened.page.evaluate(
        "([p, a]) => { chosen.present = new Set(p.map((t) => columnOf.get(t)));"
        " chosen.absent = new Set(a.map((t) => columnOf.get(t))); ask(); return toHash(); }",
        [present, absent],
    )
    found = opened.state()
    assert (found["with"], found["without"]) == (present, absent)
    expected = averaged(run, present, absent)
    shown = np.array([found["probabilities"][tag] for tag in run.taxonomy.tags])
    assert np.abs(shown - expected).max() < 1e-2
    assert hash_


@in_a_browser
def test_its_layers_are_the_models(browser, tmp_path):
    """Three hidden layers with both norms, in half precision."""
    run = make_run("vamp", True, True, tmp_path, hidden_dims=DEEPER)
    page = Page(browser, explorer.write_explore(run, output=tmp_path / "page.html"))
    page.state()
    rows = np.array([[0, 3, 7], [5, 7, 7], [7, 7, 7]])  # 7 is padding
    mean, logvar = queries.posterior(run.network, rows)
    for row, *expected in zip(rows, mean, logvar, strict=True):
        code = "columns => { const { mean, logvar } = explore.encode(columns); return [[...mean], [...logvar]]; }"
        found = page.page.evaluate(code, row[row < 7].tolist())
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)
    for z, expected in zip(mean, queries.logits(run.network, mean), strict=True):
        found = page.page.evaluate("z => [...explore.decode(Float32Array.from(z))]", z.tolist())
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)
    page.page.close()


@in_a_browser
def test_clicks_search_and_links(opened):
    before = opened.state()
    assert before["with"] == []
    opened.tag("jazz").click()
    chosen = opened.state()
    assert chosen["with"] == ["jazz"]
    assert "jazz" in chosen["set"]
    assert opened.tag("jazz").get_attribute("aria-pressed") == "true"
    assert chosen["probabilities"] != before["probabilities"]
    # Another set of the same tags, then back by the link.
    sets = set()
    for _ in range(5):
        opened.page.locator("#again").click()
        sets.add(tuple(opened.state()["set"]))
    assert len(sets) > 1
    last = opened.state()
    opened.page.wait_for_url("**#with=jazz&s=6")
    link = opened.page.url
    opened.page.goto("about:blank")
    opened.page.goto(link)
    restored = opened.state()
    assert restored["with"] == ["jazz"]
    assert restored["set"] == last["set"]
    # Without.
    opened.page.locator("input[value=without]").check()
    opened.tag("rock").click()
    assert opened.state()["without"] == ["rock"]
    assert "rock" not in opened.state()["set"]
    opened.page.locator("#clear").click()
    assert opened.state()["with"] == []
    # Search, by keyboard alone.
    opened.page.locator("input[value=with]").check()
    opened.page.keyboard.press("/")
    opened.page.keyboard.type("upright")
    visible = opened.page.locator("#concepts button.tag:visible")
    assert all("upright" in text for text in visible.all_inner_texts())
    opened.page.keyboard.press("Enter")
    assert all("upright" in tag for tag in opened.state()["with"])
    assert len(opened.state()["with"]) == 1


@in_a_browser
def test_a_tag_is_found_as_it_is_spelled_and_folded(browser, tmp_path):
    tags = {"genre": ["Straße", "R&B", "JAZZ", "rock"], "mood": ["calm", "Ünïcode Rock", "a,b"]}
    taxonomy = Taxonomy.from_mapping(tags, source="spelled")
    run = dataclasses.replace(make_run("normal", False, False, tmp_path), taxonomy=taxonomy)
    page = Page(browser, explorer.write_explore(run, output=tmp_path / "page.html"))
    assert tuple(page.state()["probabilities"]) == taxonomy.spellings
    link = page.page.url
    for hash_, chosen in (
        ("with=Stra%C3%9Fe,jazz", ["Straße", "JAZZ"]),
        ("with=strasse,JAZZ", ["Straße", "JAZZ"]),
        ("with=Jazz", []),  # neither
    ):
        page.page.goto("about:blank")
        page.page.goto(f"{link}#{hash_}")
        assert page.state()["with"] == chosen
        assert ("does not have" in page.page.inner_text("#unknown")) == (not chosen)
    for typed, found in (("STRASS", ["Straße"]), ("straß", ["Straße"]), ("ROCK", ["rock"])):
        page.page.locator("#clear").click()
        page.page.locator("#search").fill(typed)
        page.page.keyboard.press("Enter")
        assert page.state()["with"] == found
        shown = page.page.locator("#concepts button.tag:visible .name").all_inner_texts()
        assert shown == (["rock", "Ünïcode Rock"] if typed == "ROCK" else found)
    page.page.close()


@pytest.fixture(scope="module")
def active(tmp_path_factory):
    """A model with active dimensions: the short one of the other tests may have none."""
    config = parsing.load_config(f"{ROOT}/configs/small.py")
    config.trainer.max_epochs, config.logger.name, config.loss.kld_weight = 6, (), 0.01
    config.trainer.optimizer.lr = 5e-3
    place = tmp_path_factory.mktemp("active")
    train_and_evaluate(config, place / "run", models_dir=place / "models")
    run = jaxvae.load(place / "run")
    explorer.write_explore(run, output=None)
    return run


@pytest.fixture
def lively(browser, active):
    page = Page(browser, active.folder / "explore.html")
    yield page
    page.page.close()


@in_a_browser
def test_a_slider_holds_a_dimension(lively, active):
    free = lively.state()
    slider = lively.page.locator("#sliders input[type=range]").first
    slider.evaluate(
        "s => { s.value = s.max; s.dispatchEvent(new Event('input', {bubbles: true})); }"
    )
    held = lively.state()
    (dim,) = held["held"]
    assert held["probability_is"] != free["probability_is"]
    assert held["z"][int(dim)] != pytest.approx(free["z"][int(dim)], abs=0.1)
    expected = active.probabilities(np.array([held["z"]], np.float32))[0]
    shown = np.array([held["probabilities"][tag] for tag in active.taxonomy.tags])
    assert np.abs(shown - expected).max() < 1e-2
    lively.page.locator("#release").click()
    assert lively.state()["held"] == {}


@in_a_browser
def test_a_slider_that_is_dragged_writes_one_address(lively):
    """Firefox and Safari end a script that changes the address some hundred times in a row."""
    lively.state()
    written = lively.page.evaluate(
        """async () => {
          const slider = document.querySelector("#sliders input"), write = history.replaceState;
          let count = 0;
          history.replaceState = (...rest) => { count++; write.apply(history, rest); };
          for (let step = 0; step < 50; step++) {
            slider.value = Number(slider.min) + (slider.max - slider.min) * step / 50;
            slider.dispatchEvent(new Event("input", { bubbles: true }));
          }
          while (!location.hash) await new Promise((resolve) => setTimeout(resolve, 20));
          return count;
        }"""
    )
    assert written == 1


@in_a_browser
def test_an_answer_that_stands_says_what_it_is_worth(lively, active):
    """Tags that the bank knows little of are drawn for anew, and then no more is promised."""
    rows = active.sets("train")
    rarest = np.argsort(rows.sum(axis=0))[:3].tolist()
    lively.page.evaluate("all => { chosen.present = new Set(all); ask(); }", rarest)
    assert "Drawing more" in lively.page.inner_text("#method")
    worth = lively.state()["effective_draws"]
    said = lively.page.inner_text("#method")
    assert f"Worth {worth:,} independent draws" in said
    assert ("too few to trust" in said) == (worth < 100)


@in_a_browser
def test_a_click_restyles_bars_and_no_button_but_those_that_change_state(lively):
    lively.state()
    found = lively.page.evaluate(
        """async () => {
          const observer = new MutationObserver(() => {});
          observer.observe($("concepts"), { subtree: true, attributes: true, childList: true });
          buttons[0].button.click();
          const marks = observer.takeRecords().map((each) => each.attributeName + " " + each.target.className);
          return [...new Set(marks)];
        }"""
    )
    assert "style bar" in found
    assert {each.partition(" ")[0] for each in found if "tag" in each} <= {"class", "aria-pressed"}


@in_a_browser
@pytest.mark.parametrize(
    ("hash_", "said"),
    [
        ("z=0:1e38,1:-1e308,2:NaN,x:1", ""),
        ("with=jaz,%E0%A4%A&t=9&s=-1", "tags that this model does not have: jaz, %E0%A4%A."),
        ("&&==&z=::,,&with=", ""),
    ],
)
def test_an_address_with_nonsense_shows_what_can_be(browser, active, hash_, said):
    page = Page(browser, active.folder / "explore.html")
    page.page.goto(f"{page.page.url}#{hash_}")
    page.page.reload()
    state = page.state()
    assert all(p is not None and 0.0 <= p <= 1.0 for p in state["probabilities"].values())
    assert state["set"]
    assert "NaN" not in page.page.inner_text("body")
    assert said in page.page.inner_text("#unknown")
    assert bool(said) == page.page.locator("#unknown").is_visible()
    page.page.close()


@in_a_browser
def test_hostile_tags_in_a_browser(browser, hostile, tmp_path):
    page = Page(browser, explorer.write_explore(hostile, output=tmp_path / "page.html"))
    page.state()
    copied = json.loads(page.page.evaluate("JSON.stringify(explore.snapshot())"))
    assert set(copied["probabilities"]) == set(hostile.taxonomy.tags)
    assert page.page.locator("main b").count() == 0
    page.page.close()


@in_a_browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_accessible_by_axe(browser, run, tmp_path, scheme, width):
    """As axe-core finds it, with tags chosen both ways; a picture without a text it must find."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    path = explorer.write_explore(run, output=tmp_path / "page.html")
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True
    )
    page = context.new_page()
    page.goto(path.as_uri())
    page.evaluate("chosen.present.add(0); chosen.absent.add(1); ask(); explore.settled")
    found = axe.run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("document.body.append(document.createElement('img'))")
    assert "image-alt" in {each["id"] for each in axe.run(page).response["violations"]}
    context.close()
