"""Compiled programs on disk, shared by processes and damaged between them."""

from tests.conftest import ROOT
from tests.faults.conftest import finish, start

ARGUMENTS = (
    *(f"--config={ROOT}/configs/small.py", "--config.trainer.max_epochs=1"),
    *("--config.logger.name=()", "--config.inference.enabled=False"),
)


def begin(place):
    """A run of one epoch, with the cache that it has by default in a user's folder."""
    cache = {"JAX_COMPILATION_CACHE_DIR": "", "XDG_CACHE_HOME": str(place.parent / "cache")}
    return start(*ARGUMENTS, f"--workdir={place}", cwd=place.parent, **cache)


def test_processes_share_compiled_programs_and_a_torn_one_is_compiled_anew(tmp_path):
    places = [tmp_path / name for name in ("a", "b", "torn")]
    both = [begin(place) for place in places[:2]]
    for process in both:
        finish(process)
    (folder,) = (tmp_path / "cache" / "jaxvae").iterdir()
    programs = [path for path in folder.iterdir() if "train_epoch" in path.name]
    assert programs
    for path in programs:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    finish(begin(places[2]))
    first, *others = ((place / "model.pth").read_bytes() for place in places)
    assert all(other == first for other in others)
