"""The commands that evaluate trained models: evaluate, report, explore, compare.

Only results go to standard output, so that they can be piped.
"""

import argparse
import contextlib

from jaxvae.cli.run_options import (
    add_command,
    add_importance_options,
    check_page_name,
    load_any,
    load_run,
    print_json,
    say,
)
from jaxvae.config.paths import user_path


def add_to(commands) -> None:
    """Adds the commands to argparse's subparsers."""
    evaluate = add_command(commands, "evaluate", _evaluate, "how good a run is, among baselines")
    evaluate.add_argument("--split", default="test", help="train, val or test (default)")
    evaluate.add_argument("--json", action="store_true", help="one flat JSON object")
    add_importance_options(evaluate)

    report = add_command(commands, "report", _report, "write report.html into the run")
    report.add_argument("--split", default="test", help="train, val or test (default)")
    report.add_argument("--output", help="file to write (default: report.html in the run)")
    add_importance_options(report, default=None)

    explore = add_command(
        commands, "explore", _explore, "write explore.html: click on tags, see all"
    )
    explore.add_argument("--output", help="file to write (default: explore.html in the run)")
    explore.add_argument("--no-open", action="store_true", help="don't open it in the browser")

    compare = commands.add_parser("compare", help="one table of several runs")
    compare.add_argument("run_folders", metavar="RUN", nargs="+", help="runs' folders")
    compare.add_argument("--json", action="store_true", help="as JSON")
    compare.set_defaults(run=_compare)


def _evaluate(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.evaluation.evaluate_once import load_or_evaluate
    from jaxvae.inference.ensemble import Ensemble
    from jaxvae.reports.summary_text import evaluation_table

    run = load_any(options)
    if isinstance(run, Ensemble):
        return _evaluate_ensemble(run, options)
    judged = load_or_evaluate(
        run,
        split=options.split,
        num_importance_samples=options.num_importance_samples,
        seed=options.seed,
        say=say,
    )
    if options.json:
        print_json(judged)
    else:
        print(evaluation_table(judged))
    return 0


def _evaluate_ensemble(ensemble, options: argparse.Namespace) -> int:
    from jaxvae.inference.ensemble import evaluate_ensemble

    judged = evaluate_ensemble(
        ensemble,
        split=options.split,
        num_importance_samples=options.num_importance_samples,
        seed=options.seed,
    )
    if options.json:
        print_json(judged)
        return 0
    print(
        f"{judged['split']}: {judged['rows']} rows, {judged['members']} runs, nats per row\n"
        f"the ensemble   {judged['nll_iw']:8.3f}"
    )
    for run, nll in zip(ensemble.runs, judged["members/nll_iw"], strict=True):
        print(f"  {run.folder.name:<13}{nll:8.3f}")
    error = judged["gain/members_stderr"]
    spread = "" if error is None else f" ± {error:.3f}"
    print(f"better than its members on average by {judged['gain/members']:.3f}{spread}")
    return 0


def _report(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.reports.run_report import write_report

    check_page_name(options)
    run = load_run(options)
    path = write_report(
        run,
        output=user_path(options.output) if options.output else None,
        split=options.split,
        num_importance_samples=options.num_importance_samples,
        seed=options.seed,
        say=say,
    )
    print(path)
    return 0


def _explore(options: argparse.Namespace, rest: list[str]) -> int:
    import webbrowser

    from jaxvae.reports.explorer import write_explore

    check_page_name(options)
    run = load_run(options)
    path = write_explore(run, output=user_path(options.output) if options.output else None)
    print(path, flush=True)
    if not options.no_open:
        with contextlib.suppress(webbrowser.Error):  # the page is written, and its name printed
            webbrowser.open(path.resolve().as_uri())
    return 0


def _compare(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.evaluation.compare import compare_runs, comparison_table
    from jaxvae.export.hub_repo import refuse_published

    for folder in options.run_folders:
        refuse_published(folder, "compare")
    groups = compare_runs([user_path(folder) for folder in options.run_folders])
    if options.json:
        print_json(groups)
    else:
        print(comparison_table(groups))
    return 0
