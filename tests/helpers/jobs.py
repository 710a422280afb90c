"""Several processes of one run."""

import os
import subprocess
import sys

from tests.conftest import ROOT
from tests.faults.conftest import arguments
from tests.helpers import warm_start
from tests.helpers.ports import free_port


def launch(clips, folder, num, *, own=None, devices=1, port=None, start=None, **overrides):
    """One process each, with a working folder of its own: nothing is shared but the source."""
    port = port or free_port()
    overrides = {"trainer.max_epochs": 4, "trainer.devices": -1, **overrides}
    processes = []
    for number in range(num) if start is None else start:
        cwd = folder / f"host{number}"
        cwd.mkdir(parents=True, exist_ok=True)
        command = [*arguments(clips, **overrides | (own or {}).get(number, {})), "--workdir=run"]
        if num > 1:
            command += [
                f"--coordinator=127.0.0.1:{port}",
                f"--num_processes={num}",
                f"--process_id={number}",
            ]
        processes.append(
            warm_start.Popen(
                [sys.executable, str(ROOT / "launch.py"), *command],
                cwd=cwd,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                env={
                    **os.environ,
                    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
                },
            )
        )
    return processes


def end(processes, expect=0, timeout=120) -> list[str]:
    """Their standard errors; each must end by itself with the code that is expected of it."""
    codes = [expect] * len(processes) if isinstance(expect, int) else expect
    try:
        errors = [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == codes, errors
    assert not any("Traceback" in error for error in errors), errors
    return errors
