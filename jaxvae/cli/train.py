"""The command that trains: `launch.py`, and `jaxvae train` of an installed package."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from jaxvae import __version__
from jaxvae.cli.quiet import quiet_libraries
from jaxvae.config import parsing, schema
from jaxvae.config.paths import run_path, user_path
from jaxvae.errors import CommandEnded, InputError
from jaxvae.runtime import job_launcher, signals
from jaxvae.storage import lock, run_files
from jaxvae.train.choices import CHOICES

USAGE_ERROR = 2
TRAINING_FAILED = 1
_FORWARDED_SECONDS = 1.0
_DESCRIPTION = """
Trains a variational autoencoder on multi-label tag data.

    {program} --config=configs/medium.py                      # the embedded corpus
    {program} --config=configs/medium.py:data=musiccaps       # MusicCaps, from the hub
    {program} --config=configs/small.py:trainer=quick_test \\
        --config.data.dataset_name=clips.csv --config.data.taxonomy_path=concepts_to_tags.json

Presets behind the colon: data=embedded|musiccaps|msd|mtt, trainer=default|quick_test|tuned|
tuned_iw|tuned_iw_wide|distributed. The run's folder is outputs/vae_training/<date and time>, or
what --workdir names; the same --workdir resumes. Exit codes: 0 done, 1 training failed (or another
process of the job ended), 2 something given is wrong, 130 or 143 stopped by SIGINT or SIGTERM,
after saving.

Flags:
  --config=FILE[:PRESETS]
      the experiment, such as configs/medium.py
  --workdir=FOLDER
      the run's folder; one that holds a run resumes it
  --coordinator=HOST:PORT --num_processes=N --process_id=I
      one of several processes (on SLURM, Open MPI, TPU pods and indexed
      Kubernetes jobs they are found without; --num_processes=1 is a run by itself there)
  --print_config
      print the resolved config as JSON and exit
  --flagfile=FILE
      more of these arguments, one a line
  --version
      print the version and exit

Fields, with the values of the config given (or of configs/base.py):
"""


def run(program: Sequence[str], arguments: Sequence[str]) -> int:
    """Trains the config of `--config`.

    Args:
      program: the command line after `python`, before the arguments.
      arguments: `--config` and the other arguments.

    Returns:
      The exit code.

    Raises:
      InputError: an argument or a file is wrong.
      CommandEnded: training failed, or was stopped.
    """
    argv = [" ".join(program), *arguments]
    if any(argument in ("-h", "-help", "--help") for argument in arguments):
        print(_help(program, argv))
        return 0
    if any(argument in ("-version", "--version") for argument in arguments):
        print(f"jaxvae {__version__}")
        return 0
    config, overrides, values = parsing.parse(argv, define=_define_flags, choices=CHOICES)
    if values.print_config:
        print(config.to_json(indent=2))
        return 0
    flagged = {
        name: getattr(values, name) for name in ("coordinator", "num_processes", "process_id")
    }
    job_launcher.check_flags(**flagged)
    is_distributed = values.coordinator or job_launcher.in_a_cluster(os.environ)
    alone = not is_distributed or values.num_processes == 1
    if not alone and not job_launcher.is_supervised():
        return job_launcher.supervise([*program, *arguments])
    if not alone:
        job_launcher.follow_supervisor()
        signals.debounce(_FORWARDED_SECONDS)
    workdir = user_path(values.workdir) if values.workdir else run_files.new_workdir()
    folder = run_path(values.workdir or workdir)  # the typed text, since a Path spoils a URL
    if alone:  # before the slow import of JAX
        lock.check_not_held(folder)
    if alone and values.num_processes != 1 and job_launcher.is_indexed_pod(os.environ):
        print(
            "jaxvae: this pod of a Kubernetes job trains by itself; pip install 'jax[k8s]', or "
            "--coordinator, joins it to the others",
            file=sys.stderr,
        )
    quiet_libraries()
    at_once = "jaxvae: stopped at once; what was saved before stands"
    with signals.exit_at_second_signal(at_once):
        from jaxvae.runtime import multihost
        from jaxvae.storage import same_run
        from jaxvae.train.trainer import CallbackFailed, TrainingFailed, train_and_evaluate

        for line in same_run.keep_values_of_older_run(folder, config, typed=overrides):
            print(f"jaxvae: {line}", file=sys.stderr)
        try:
            multihost.join(**flagged)
            with multihost.exit_primary_last():
                train_and_evaluate(config, workdir, overrides=overrides)
        except (CallbackFailed, TrainingFailed) as error:
            raise CommandEnded(
                error, TRAINING_FAILED if alone else job_launcher.EXIT_REASON_PRINTED
            ) from error
        except job_launcher.PeerLost as error:  # `supervise` prints the explanation
            raise CommandEnded(error.reason, TRAINING_FAILED) from error
        except signals.Interrupted as error:
            how = _how_to_resume([*program, *arguments], workdir)
            raise CommandEnded(f"{error}{how}", 128 + error.signum) from error
        except OSError as error:
            message = f"{error.filename or workdir}: {error.strerror or error}"
            raise CommandEnded(message, USAGE_ERROR) from error
    return 0


def _define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", "", "the run's folder", flag_values=values)
    flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0", flag_values=values)
    flags.DEFINE_integer("num_processes", -1, "processes of the job", flag_values=values)
    flags.DEFINE_integer("process_id", -1, "this one's number, from 0", flag_values=values)
    flags.DEFINE_bool("print_config", False, "print the config and exit", flag_values=values)


def _how_to_resume(command: Sequence[str], workdir: Path) -> str:
    if not (workdir / run_files.CONFIG).exists():
        return ""
    arguments = list(command)
    if "--workdir" in arguments:
        position = arguments.index("--workdir")
        del arguments[position : position + 2]
    arguments = [argument for argument in arguments if not argument.startswith("--workdir=")]
    python = "python" if shutil.which("python") == sys.executable else sys.executable
    return f"; resume with: {shlex.join([python, *arguments, f'--workdir={workdir}'])}"


def _help(program: Sequence[str], argv: Sequence[str]) -> str:
    base = parsing.find_file("configs/base.py")
    try:
        config = parsing.load_config(parsing.take_config(argv[1:])[0])
    except InputError:
        config = parsing.load_config(str(base))
    source = base.read_text(encoding="utf-8")
    opening = _DESCRIPTION.strip().format(program=shlex.join(["python", *program]))
    return f"{opening}\n{schema.field_help(source, config)}"
