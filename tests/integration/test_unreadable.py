"""What can't be read now is no damage: it stops a command, changes nothing, and then it goes on."""

import builtins
import contextlib
import errno
import io
import os
import shutil
import tempfile
from pathlib import Path

import orbax.checkpoint as ocp
import pytest

from jaxvae.cli import main
from jaxvae.data.readers.regular_file import open_regular, refuse_unreadable
from jaxvae.errors import InputError, Unreadable
from jaxvae.runtime import devices
from jaxvae.storage import manifest
from jaxvae.storage.atomic_files import read_json
from jaxvae.storage.epoch_metrics import read_epochs
from tests.conftest import lacking
from tests.helpers.training import Killed, run, timeless, write_clips

CAUSES = {
    "another user's": OSError(errno.EACCES, "Permission denied"),
    "a disk that fails": OSError(errno.EIO, "Input/output error"),
    "a server that is gone": OSError(errno.ESTALE, "Stale file handle"),
    "no memory": MemoryError(),
}
OPTIONS = {"trainer__max_epochs": 3, "trainer__checkpoint_every_seconds": 0.0}


@pytest.fixture
def clips():
    """A folder that another user may look into."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o777)
        yield write_clips(place)


def files(folder):
    """Every file and folder below a folder, with its content."""
    paths = sorted(folder.rglob("*"))
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


@contextlib.contextmanager
def as_nobody():
    """A user whom root's files refuse; compiled programs are everyone's."""
    programs = os.environ["JAX_COMPILATION_CACHE_DIR"]
    os.chmod(programs, 0o777)
    for name in os.listdir(programs):  # JAX writes some of them anew
        os.chmod(os.path.join(programs, name), 0o666)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def stop_after(epoch):
    def stop(finished, metrics, state):
        if finished == epoch:
            raise Killed

    return stop


def stopped(clips, name="run"):
    """A run of three epochs that was stopped in its third, with checkpoints of two."""
    with contextlib.suppress(Killed):
        run(clips, name, hooks=[stop_after(3)], **OPTIONS)
    folder = clips / name
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["1", "2"]
    return folder


@contextlib.contextmanager
def failing(monkeypatch, target, cause):
    """Reading files whose path has `target` in it fails, however they are opened."""
    opened, described = builtins.open, os.open

    def refuse(path):
        if isinstance(path, str | Path) and target in str(path):
            if isinstance(cause, OSError):
                raise OSError(cause.errno, cause.strerror, str(path))
            raise cause

    def open_text(path, mode="r", *arguments, **options):
        if "r" in mode:
            refuse(path)
        return opened(path, mode, *arguments, **options)

    def open_descriptor(path, flags, *arguments, **options):
        if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            refuse(path)
        return described(path, flags, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "open", open_text)
        patched.setattr(io, "open", open_text)
        patched.setattr(os, "open", open_descriptor)
        yield


@pytest.mark.parametrize("cause", CAUSES)
def test_a_checkpoint_that_cannot_be_read_now_stops_a_resume(clips, monkeypatch, cause):
    folder = stopped(clips)
    before = files(folder)
    with (
        failing(monkeypatch, "checkpoints/2/state/", CAUSES[cause]),
        pytest.raises((Unreadable, MemoryError)) as caught,
    ):
        run(clips, **OPTIONS)
    if cause != "no memory":
        assert "checkpoints/2/state" in str(caught.value)
        assert CAUSES[cause].strerror in str(caught.value)
    assert files(folder) == before
    run(clips, **OPTIONS)
    assert [line["epoch"] for line in read_epochs(folder)] == [1, 2, 3]
    if cause == "another user's":
        run(clips, "whole", **OPTIONS)
        assert timeless(folder) == timeless(clips / "whole")


@pytest.mark.parametrize(
    "error", [ValueError("PERMISSION_DENIED"), MemoryError(), AssertionError()]
)
def test_nor_is_damage_what_a_reader_of_whole_files_says(clips, monkeypatch, error):
    folder = stopped(clips)
    before = files(folder)

    def fails(*arguments, **options):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(ocp.CheckpointManager, "restore", fails)
        with pytest.raises(Unreadable, match=r"checkpoints/2 can't be read now"):
            run(clips, **OPTIONS)
    assert files(folder) == before
    run(clips, **OPTIONS)
    assert len(read_epochs(folder)) == 3


@pytest.fixture(scope="session")
def _other_users():
    if os.geteuid() != 0:
        lacking("needs another user's files", "root")


def test_the_control_damage_is_set_aside(clips):
    folder = stopped(clips)
    path = max((folder / "checkpoints" / "2").rglob("state/**/*"), key=lambda path: len(path.name))
    path.write_bytes(b"no") if path.is_file() else shutil.rmtree(path)
    run(clips, **OPTIONS)
    assert (folder / "checkpoints" / "2.damaged").is_dir()
    assert [line["epoch"] for line in read_epochs(folder)] == [1, 2, 3]


@pytest.mark.usefixtures("_other_users")
def test_another_users_files(clips):
    folder = stopped(clips)
    for path in (clips, *clips.rglob("*")):
        os.chown(path, 65534, 65534)
    theirs = [path for path in (folder / "checkpoints").rglob("state/**/*") if path.is_file()]
    for path in theirs:
        os.chown(path, 0, 0)
        path.chmod(0o600)
    before = files(folder)
    with as_nobody(), pytest.raises(Unreadable, match="Permission denied"):
        run(clips, **OPTIONS)
    assert files(folder) == before
    for path in theirs:
        path.chmod(0o644)
    with as_nobody():
        run(clips, **OPTIONS)
    assert [line["epoch"] for line in read_epochs(folder)] == [1, 2, 3]


@pytest.mark.long
@pytest.mark.usefixtures("_other_users")
@pytest.mark.parametrize("what", ["checkpoints/3", "checkpoints", "final"])
def test_a_finished_run_that_can_not_go_on_is_left_finished(clips, what):
    folder = run(clips, **OPTIONS)[1]
    for path in (clips, *clips.rglob("*")):
        os.chown(path, 65534, 65534)
    path = folder / what
    os.chown(path, 0, 0)
    path.chmod(0o700)
    before = files(folder)
    more = {**OPTIONS, "trainer__max_epochs": OPTIONS["trainer__max_epochs"] + 1}
    with as_nobody(), pytest.raises(Unreadable, match=f"{path}.*Permission denied"):
        run(clips, **more)
    assert files(folder) == before  # its seal and its config among them
    path.chmod(0o755)
    os.chown(path, 65534, 65534)
    with as_nobody():
        run(clips, **more)
    assert len(read_epochs(folder)) == more["trainer__max_epochs"]


def test_a_config_that_can_not_be_read_is_not_called_missing(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    with pytest.raises(InputError, match="missing or not JSON"):  # the control
        read_json(path)
    path.write_text("{}")
    assert read_json(path) == {}

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("jaxvae.storage.atomic_files.open_regular", refused)
    with pytest.raises(Unreadable, match=f"{path} can't be read now: Permission denied"):
        read_json(path)


def test_epochs_whose_checkpoints_were_all_set_aside_are_not_trained_again_unasked(clips, capsys):
    folder = stopped(clips)
    before = read_epochs(folder)
    for epoch in (1, 2):
        step = folder / "checkpoints" / str(epoch)
        step.rename(step.with_name(f"{epoch}.damaged"))
    with pytest.raises(InputError, match=r"1\.damaged, 2\.damaged.*train from the first epoch"):
        run(clips, **OPTIONS)
    assert read_epochs(folder) == before
    # As it says: one put back, it goes on; with none, it was asked to begin again.
    copy = shutil.copytree(folder, clips / "again")
    (folder / "checkpoints" / "2.damaged").rename(folder / "checkpoints" / "2")
    run(clips, **OPTIONS)
    assert "Resuming after epoch 2" in capsys.readouterr().err
    shutil.rmtree(copy / "checkpoints")
    run(clips, "again", **OPTIONS)
    assert "training starts from the first" in capsys.readouterr().err


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("name", ["rows.npz", "final/"])
def test_no_command_calls_it_damaged(folder, monkeypatch, capsys, cause, name):
    command = ["sample", str(folder), "--num", "1"] if name == "final/" else ["verify", str(folder)]
    before = files(folder)
    with failing(monkeypatch, f"{folder.name}/{name}", CAUSES[cause]):
        code = main.main(command)
    said = capsys.readouterr()
    assert code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "damaged" not in said.err
    if cause != "no memory":
        assert CAUSES[cause].strerror in said.err
    assert files(folder) == before
    assert main.main(command) == 0


def test_rows_that_cannot_be_read_now_are_not_written_again(clips, monkeypatch):
    folder = stopped(clips)
    before = files(folder)
    with (
        failing(monkeypatch, "run/rows.npz", CAUSES["a disk that fails"]),
        pytest.raises(Unreadable, match=r"rows\.npz"),
    ):
        run(clips, **OPTIONS)
    assert files(folder) == before


@pytest.mark.parametrize("error", [RuntimeError("no cuda\nhere"), AssertionError()])
def test_a_platform_that_does_not_start_is_one_line(folder, clips, monkeypatch, capsys, error):
    def fails(*arguments):
        raise error

    commands = (["sample", str(folder), "--num", "1"], ["verify", str(folder)])
    with monkeypatch.context() as patched:
        patched.setattr(devices.jax, "devices", fails)
        for command in commands:
            assert main.main(command) == 2
            line = capsys.readouterr().err
            assert line.startswith("jaxvae: JAX can't start on JAX_PLATFORMS=cpu: ")
            assert line.count("\n") == 1
        with pytest.raises(InputError, match="JAX can't start"):
            run(clips, "new")
        assert not (clips / "new").exists()
    for command in commands:
        assert main.main(command) == 0


@pytest.mark.parametrize("cause", CAUSES)
def test_an_error_that_says_nothing_about_a_file_is_unreadable(cause):
    with pytest.raises(Unreadable, match=r"^a can't be read now: ") as caught:
        refuse_unreadable("a", CAUSES[cause])
    assert caught.value.__cause__ is CAUSES[cause]


def test_an_error_that_says_what_a_file_is_is_not(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("none", "pipe", "", "pipe/below"):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            open_regular(tmp_path / name)
        refuse_unreadable(tmp_path / name, caught.value)
    refuse_unreadable("a", UnicodeDecodeError("utf-8", b"", 0, 1, "no text"))


def test_what_is_missing_or_no_file_is_said_of_the_folder_itself(tmp_path):
    (tmp_path / "a").write_text("a")
    manifest.seal(tmp_path)
    assert list(manifest.damaged(tmp_path)) == []
    (tmp_path / "a").unlink()
    assert "can't be read: No such file" in next(manifest.damaged(tmp_path))
    os.mkfifo(tmp_path / "a")
    assert "can't be read: no regular file" in next(manifest.damaged(tmp_path))
