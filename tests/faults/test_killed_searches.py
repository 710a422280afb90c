"""A search that is killed, and one that is told to end."""

import signal
import subprocess
import sys
from collections import Counter

from jaxvae.inference.verify import verify
from tests.conftest import ROOT
from tests.helpers import warm_start
from tests.helpers.studies import SMALL, states, study_of


def test_a_killed_search_loses_and_repeats_nothing(tmp_path, space):
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "jaxvae", "search"]
    start = ("--space", str(space), "--trials", "9", "--at_once", "3", "--workdir", str(folder))
    first = warm_start.Popen(
        [*command, *SMALL, *start], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    for line in first.stderr:
        if line.startswith("trial 3"):
            break
    first.kill()
    first.communicate()
    done = Counter(states(folder))
    assert 1 <= done["COMPLETE"] < 9  # killed in the middle
    assert done["RUNNING"] >= 1
    # Once more, by a signal: what it says is what the user types.
    second = warm_start.Popen(
        [*command, "--resume", str(folder)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    for line in second.stderr:
        if line.startswith("trial"):
            second.send_signal(signal.SIGTERM)
            break
    told = second.communicate()[1]
    assert second.returncode == 128 + signal.SIGTERM
    assert f"search --resume {folder}" in told
    third = warm_start.run([*command, "--resume", str(folder)], cwd=ROOT)
    assert third.returncode == 0, third.stderr
    assert states(folder) == ["COMPLETE"] * 9
    study = study_of(study_name="killed", storage=f"sqlite:///{folder / 'study.db'}")
    assert [trial.number for trial in study.trials] == list(range(9))
    assert not verify(folder / f"trial_{study.best_trial.number:04d}")[1]
