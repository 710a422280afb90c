"""Start-up stays light; what imports what is import-linter's to check (`pyproject.toml`)."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "jaxvae"
MODULES = sorted(str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py"))
LAZY = {
    *("datasets", "flatbuffers", "huggingface_hub", "jinja2", "matplotlib", "mlflow", "onnx"),
    "optuna",
    *("pyarrow", "safetensors", "sklearn", "tensorboard", "torch", "trackio", "wandb"),
}


def loaded(code: str, names: tuple[str, ...]) -> str:
    """Which of some libraries a fresh process has imported after some code."""
    code = f"import sys\n{code}\nprint([name for name in {names} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return done.stdout.strip()


def test_importing_the_package_does_not_import_jax():
    assert loaded("import jaxvae", ("jax", "numpy")) == "[]"
    assert loaded("import jaxvae, jax", ("jax",)) == "['jax']"  # a control


def test_the_python_api_loads_neither_torch_nor_tensorflow_nor_plots():
    code = "import jaxvae\njaxvae.load, jaxvae.load_many, jaxvae.train_and_evaluate"
    assert loaded(code, ("torch", "tensorflow", "matplotlib", "sklearn", "datasets")) == "[]"


@pytest.mark.parametrize("path", MODULES)
def test_slow_libraries_are_imported_where_they_are_used(path):
    names = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).partition(".")[0])
    # The estimator's base class is scikit-learn's, and nothing else imports its module.
    allowed = {"sklearn"} if path == "jaxvae/estimators/tag_vae.py" else set()
    assert not names & LAZY - allowed


def test_every_package_is_installed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [path.parent.relative_to(ROOT) for path in PACKAGE.rglob("__init__.py")]
    brought = {"jaxvae.shipped.configs", "jaxvae.shipped.configs.search"}  # configs/ of the root
    assert {*listed} - brought == {".".join(folder.parts) for folder in folders}


def test_a_package_says_what_lives_in_it_and_imports_nothing():
    packages = sorted(path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)
    assert len(packages) == 28
    for path in packages:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(body[0], ast.Expr), path
        eager = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert all(node.module == "typing" for node in eager), path


def test_the_map_names_files_that_are_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:jaxvae|tests|configs)(?:/[\w.]+)*)`", text))
    assert {"jaxvae/train/optimizer.py", "jaxvae/models", "tests/helpers"} <= named  # a control
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    packages = {f"jaxvae/{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= named
    for name in re.findall(r"`(\w+)` in `(jaxvae/[\w/.]+)`", text):
        assert name[0] in (ROOT / name[1]).read_text(encoding="utf-8")
