"""One config with several seeds, trained in one program: a run of each, and the spread of all.

Takes config objects.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvae.evaluation.spread import is_number, spread
from jaxvae.runtime import signals
from jaxvae.storage import atomic_files, manifest, run_files
from jaxvae.sweeps.member_loop import Member, MemberCallbacks
from jaxvae.sweeps.trials import TrialRunner


def train_seeds(
    trials: TrialRunner,
    config: ConfigDict,
    folder: Path,
    *,
    num: int,
    overrides: dict[str, Any],
    requests: signals.StopRequest,
    ended: Callable[[int, Member], None],
) -> dict[str, dict[str, Any]]:
    """Trains runs that differ by their seed alone; finished runs in `folder` stay.

    Args:
      trials: trains the runs.
      config: the config of all runs, with the first seed; the seeds after it are consecutive.
      folder: the folder of the runs, each in a `seed_<n>` of its own.
      num: number of seeds.
      overrides: values that the user typed.
      requests: signals that ask the training to stop.
      ended: called with each seed whose run is written.

    Returns:
      `{stage: {name: {"mean", "sd", "values"}}}` for every final metric, over the runs whose loss
      stayed finite.

    Raises:
      Interrupted: SIGINT or SIGTERM was received; runs that were written stay.
    """
    configs = {}
    for seed in range(config.seed, config.seed + num):
        configs[seed] = config.copy_and_resolve_references()
        configs[seed].seed = seed
    folders = {seed: folder / f"seed_{seed}" for seed in configs}
    finished = [path for path in folders.values() if manifest.is_sealed(path)]
    if finished:  # seeds of one config differ by nothing else, also where the rule has changed
        trials.resolve_as(finished[0])
    waiting = [
        trials.member(seed, configs[seed]) for seed in configs if folders[seed] not in finished
    ]

    def end(member: Member, trees: dict[str, Any]) -> None:
        if not member.failed:
            run_overrides = {**overrides, "seed": member.name}
            trials.write_run(
                folders[member.name], configs[member.name], member, trees, overrides=run_overrides
            )
        ended(member.name, member)

    trials.train(
        lambda: waiting.pop(0) if waiting else None,
        MemberCallbacks(lambda member: None, end),
        requests,
    )
    paths = [path / run_files.METRICS for path in folders.values() if manifest.is_sealed(path)]
    return summarize([atomic_files.read_json(path) for path in paths])


def summarize(runs: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation of every number that all runs have.

    Args:
      runs: the final metrics of each run, nested as in `metrics.json`.

    Returns:
      `{stage: {name: {"mean", "sd", "values"}}}`; sd is None for a single run.
    """
    summary: dict[str, dict[str, Any]] = {}
    for stage, metrics in (runs[0] if runs else {}).items():
        for name in metrics:
            values: list[Any] = [run.get(stage, {}).get(name) for run in runs]
            if all(map(is_number, values)):
                summary.setdefault(stage, {})[name] = {**spread(values), "values": values}
    return summary
