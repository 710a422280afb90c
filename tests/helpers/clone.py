"""A clone of this repository as a user has it, and the package as pip would install it."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
GIT = ("git", "-c", "safe.directory=*")
"""Git, in a folder of whatever user: it may be mounted into a container."""


def tracked() -> list[str]:
    """Every file of the repository, but for what git ignores."""
    done = subprocess.run(
        [*GIT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return sorted({name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()})


def copy(place: Path) -> Path:
    """Copies them to a folder and returns it."""
    for name in tracked():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes((ROOT / name).read_bytes())
        (place / name).chmod((ROOT / name).stat().st_mode)
    return place


def unpack(place: Path) -> Path:
    """Builds the wheel and returns a folder with what pip would put into site-packages."""
    source = copy(place / "source")  # setuptools writes into the folder it builds from
    build = "from setuptools import build_meta; print(build_meta.build_wheel('..'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = place.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(place / "site")
    return place / "site"
