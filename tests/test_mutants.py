"""The list of faults fits the sources, and a fault is found by its name or not at all."""

import ast
import collections
import subprocess
import sys

import pytest

from tests.helpers.clone import ROOT
from tests.mutants import coverage, faults, process, results
from tests.mutants.faults import Fault, FaultError

LISTED = faults.load()
FEWEST, MOST_OF_A_MODULE = 80, 5
TOPICS = {
    *("loss", "mask", "seed", "schedule", "split", "parsing"),
    *("digest", "export", "sharding", "search", "error"),
}
TWO_MODULES = {
    "one.py": "def f(x):\n    return x + 1\n\n\nclass A:\n    def f(self):\n        return 1 + 1\n",
    "two.py": '"""Two."""\n\n\n@staticmethod\ndef f(x):\n    """Says 2."""\n    return x + 2\n',
    "deep/three.py": "def g():\n    def inner():\n        return 7\n\n    return inner\n",
}


@pytest.fixture(scope="module")
def known():
    return faults.functions(ROOT / faults.PACKAGE)


@pytest.fixture
def small(tmp_path):
    for name, text in TWO_MODULES.items():
        (tmp_path / "jaxvae" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "jaxvae" / name).write_text(text)
    return tmp_path


def fault(function, old, new="9"):
    return Fault("a-fault", "loss", function, old, new)


def test_there_are_enough_and_each_has_a_name_of_its_own():
    assert len(LISTED) >= FEWEST
    assert max(collections.Counter(entry.name for entry in LISTED).values()) == 1
    assert max(collections.Counter(entry.digest for entry in LISTED).values()) == 1


def test_they_are_spread():
    topics = collections.Counter(entry.topic for entry in LISTED)
    assert {topic for topic, count in topics.items() if count >= 5} >= TOPICS
    assert max(topics.values()) <= len(LISTED) // 4


def test_no_module_has_most_of_them(known):
    modules = collections.Counter(faults.find(entry, known).path for entry in LISTED)
    assert [(path.name, n) for path, n in modules.items() if n > MOST_OF_A_MODULE] == []


def test_none_of_them_is_a_name_that_is_not_there(known, tmp_path):
    for entry in LISTED:
        text = faults.mutated(entry, faults.find(entry, known))
        (tmp_path / f"{entry.name}.py").write_text(text)
    (tmp_path / "control.py").write_text("def f():\n    return no_such_name\n")
    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--isolated",
            "--no-cache",
            "--select",
            "F821",
            ".",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Found 1 error" in checked.stdout, checked.stdout + checked.stderr
    assert "no_such_name" in checked.stdout


@pytest.mark.parametrize("listed", LISTED, ids=lambda entry: entry.name)
def test_a_fault_is_where_the_list_says_and_changes_the_program(listed, known):
    function = faults.find(listed, known)
    assert function.text.count(listed.old) == 1
    before, after = (
        ast.parse("if True:\n" * function.text.startswith(" ") + text)
        for text in (function.text, function.text.replace(listed.old, listed.new))
    )
    assert ast.dump(before) != ast.dump(after)
    compile(faults.mutated(listed, function), str(function.path), "exec")


def test_the_text_decides_between_functions_of_one_name(small):
    path = faults.apply(fault("f", "x + 2"), small)
    assert path.name == "two.py"
    assert path.read_text() == TWO_MODULES["two.py"].replace("x + 2", "9")
    assert (small / "jaxvae" / "one.py").read_text() == TWO_MODULES["one.py"]


def test_a_method_has_the_name_of_its_class_and_an_inner_function_that_of_the_outer(small):
    assert faults.apply(fault("A.f", "1 + 1"), small).read_text().endswith("        return 9\n")
    assert "return 9" in faults.apply(fault("g", "return 7", "return 9"), small).read_text()


@pytest.mark.parametrize(
    ("function", "old", "message"),
    [
        ("h", "x", "a-fault: there is no function h"),
        ("inner", "7", "a-fault: there is no function inner"),
        ("f", "return x", "a-fault: f has the old text in each of one.py, two.py"),
        ("f", "x + 3", "a-fault: f has the old text 0 times; it must be once"),
        ("A.f", "1", "a-fault: A.f has the old text 2 times; it must be once"),
    ],
)
def test_what_is_not_found_just_once_is_an_error(small, function, old, message):
    with pytest.raises(FaultError) as error:
        faults.find(fault(function, old), faults.functions(small / "jaxvae"))
    assert str(error.value) == message


def test_a_mark_names_the_test_that_is_running_and_changes_nothing(small, monkeypatch):
    coverage.instrument(small, [fault("f", "x + 2"), fault("g", "return 7")])
    texts = {name: (small / "jaxvae" / name).read_text() for name in TWO_MODULES}
    assert texts["one.py"] == TWO_MODULES["one.py"]
    monkeypatch.setenv(coverage.HITS, str(small / "hits"))
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "tests/test_x.py::test_y[a b] (call)")
    vars(sys).pop("_jaxvae_mark", None)
    names: dict = {}
    exec(texts["two.py"].replace("@staticmethod\n", ""), names)
    assert [names["f"](1), names["f"](2)] == [3, 4]
    assert names["f"].__doc__ == "Says 2."
    exec(texts["deep/three.py"], names)
    assert names["g"]()() == 7
    del sys._jaxvae_mark
    # Both are called a-fault here, and once a test is enough.
    assert (small / "hits").read_text() == "a-fault\ttests/test_x.py::test_y[a b] (call)\n"


def test_tests_come_in_the_order_in_which_they_are_likely_to_notice():
    measured = {
        "tests": {
            "tests/test_command.py::test_a": 0.1,
            "tests/models/test_distributions.py::test_b": 4.0,
            "tests/models/test_distributions.py::test_c": 2.0,
            "tests/test_quick.py::test_d": 0.5,
            "tests/test_quick.py::test_e": 0.1,
            "tests/test_quick.py::test_f": 0.2,
            "tests/test_other.py::test_g": 0.1,
            "tests/test_slow.py::test_j": 0.1,
            "tests/test_slow.py::test_h[1]": 9.0,
            "tests/test_slow.py::test_h[2]": 0.1,
            "tests/test_slow.py::test_i": 0.1,
        },
        "hits": {
            "a-fault": [
                ["tests/test_command.py::test_a", "call"],
                ["tests/models/test_distributions.py::test_b", "call"],
                ["tests/models/test_distributions.py::test_c", "call"],
                ["tests/models/test_distributions.py::test_that_failed", "call"],
                ["tests/test_quick.py::test_d", "call"],
                ["tests/test_quick.py::test_f", "setup"],
                ["tests/test_slow.py::test_h[1]", "call"],
                ["tests/test_slow.py::test_i", "call"],
            ],
            "another": [
                ["tests/test_command.py::test_a", "call"],
                ["tests/test_slow.py::test_j", "call"],
            ],
            "a-third": [["tests/test_command.py::test_a", "call"]],
        },
    }
    num_faults = coverage.faults_by_file(measured)
    assert num_faults["tests/test_command.py"] == 3
    tests = coverage.covering(fault("f", "x"), "distributions", measured, num_faults)
    names = [test.partition("::test_")[2] for test in tests]
    # One file is named like the module. Behind the others' first seconds comes what they have more
    # that is reached, and then what may be.
    assert names == ["b", "c", "d", "e", "f", "h[1]", "a", "h[2]", "i", "j"]


@pytest.mark.parametrize(("limit", "as_many"), [(3.0, 2), (2.9, 1), (0.5, 1), (9.0, 3)])
def test_as_many_tests_as_take_so_long(limit, as_many):
    seconds = {"a": 1.0, "b": 2.0, "c": 4.0}
    assert coverage.as_many_as_take(limit, [*seconds], seconds) == [*seconds][:as_many]


def test_the_command_for_survivors_is_the_scripts_and_runs_the_long_ones_too():
    *command, everything = process.whole_suite()[1:]
    assert everything == "tests"
    assert command[:2] == ["-m", "pytest"]
    assert (
        f'exec "$venv/bin/python" {" ".join(command)} "$@"'
        in (ROOT / "scripts" / "run_tests.sh").read_text()
    )


def test_a_kept_result_is_of_the_same_fault_and_the_same_sources(tmp_path, capsys):
    path = tmp_path / "results.jsonl"
    path.write_text('{"name": "half a li')
    kept = results.Results(path, "sources")
    caught = {"result": "caught", "stage": "covering", "first": "t", "seconds": 2.0}
    kept.keep("a", "1", caught)
    kept.keep("b", "1", caught | {"result": "survived"})
    again = results.Results(path, "sources")
    assert again.kept("a", "1", whole=True)["first"] == "t"
    assert again.kept("a", "2", whole=True) is None
    assert results.Results(path, "others").kept("a", "1", whole=True) is None
    # Not tried to the end yet; without the whole suite that is all there is to know.
    assert again.kept("b", "1", whole=True) is None
    assert again.kept("b", "1", whole=False)["result"] == "survived"
    assert capsys.readouterr().out.splitlines()[0].split() == ["caught", "2", "s", "a", "t"]


def test_the_table_counts_by_topic_and_names_survivors():
    three = [
        Fault(name, topic, "f", "", "") for name, topic in (("a", "x"), ("b", "y"), ("c", "y"))
    ]
    outcomes = {
        "a": {"result": "timeout", "stage": "covering"},
        "b": {"result": "survived", "stage": "whole"},
        "c": {"result": "caught", "stage": "whole"},
    }
    assert results.table(three, outcomes).splitlines() == [
        "x              1 of 1",
        "y              1 of 2",
        "all            2 of 3",
        "survived the whole suite: b (f)",
    ]
