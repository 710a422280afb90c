"""The commands that ask a finished run: evaluate, sample, complete, encode and others.

Results go to standard output and nothing else does, so that they can be piped.
"""

import argparse
import contextlib
import csv
import json
import sys
from collections.abc import Iterable
from typing import Any

from jaxvae.config.paths import user_path
from jaxvae.data.tag_lists import format_tags, parse_tags, quote_tag
from jaxvae.errors import InputError

FORMATS = ("text", "json", "csv")
_LIST = '"jazz, upright bass"; a tag with a comma in double quotes; or a JSON list'


def add_to(commands) -> None:
    """Adds the commands to argparse's subparsers."""
    evaluate = _command(commands, "evaluate", _evaluate, "how good a run is, among baselines")
    evaluate.add_argument("--split", default="test", help="train, val or test (default)")
    evaluate.add_argument("--json", action="store_true", help="one flat JSON object")
    _importance(evaluate)

    sample = _command(commands, "sample", _sample, "new tag sets")
    sample.add_argument("--num", type=int, default=20, help="how many (20)")
    sample.add_argument("--temperature", type=float, default=1.0, help="divides the logits (1.0)")
    sample.add_argument(
        "--decode",
        default="bernoulli",
        help="bernoulli (default, never empty), threshold, calibrated (every tag as frequent as in "
        "validation) or top_k",
    )
    sample.add_argument("--threshold", type=float, help="cut of threshold (0.5)")
    sample.add_argument("--top-k", type=int, help="tags of a top_k set (mean of the training rows)")
    _seed_and_format(sample)

    complete = _command(commands, "complete", _complete, "complete a partial tag set")
    complete.add_argument("--with", dest="present", default="", help=_LIST)
    complete.add_argument("--without", dest="absent", default="", help='"fast tempo"')
    complete.add_argument("--num", type=int, default=5, help="distinct sets (5)")
    _unknown(complete)
    _seed_and_format(complete)

    encode = _command(commands, "encode", _encode, "latent vectors of a file's rows")
    encode.add_argument("--input", required=True, help="CSV, TSV, JSON, JSON lines or Parquet")
    encode.add_argument("--output", required=True, help="file to write: .parquet, .npz or .csv")
    encode.add_argument("--column", help="column with the tags (default: as in training)")

    traverse = _command(commands, "traverse", _traverse, "move along one latent dimension")
    traverse.add_argument("--around", required=True, help='where to start, "jazz, mellow"')
    traverse.add_argument("--dim", type=int, required=True, help="the dimension, from 0")
    traverse.add_argument("--top", type=int, default=8, help="tags of each step (8)")
    _unknown(traverse)
    traverse.add_argument("--format", choices=("text", "json"), default="text")

    report = _command(commands, "report", _report, "write report.html into the run")
    report.add_argument("--split", default="test", help="train, val or test (default)")
    report.add_argument("--output", help="file to write (default: report.html in the run)")
    _importance(report)

    explore = _command(commands, "explore", _explore, "write explore.html: click on tags, see all")
    explore.add_argument("--output", help="file to write (default: explore.html in the run)")
    explore.add_argument("--no-open", action="store_true", help="don't open it in the browser")

    compare = commands.add_parser("compare", help="one table of several runs")
    compare.add_argument("run_folders", metavar="RUN", nargs="+", help="runs' folders")
    compare.add_argument("--json", action="store_true", help="as JSON")
    compare.set_defaults(run=_compare)


def _command(commands, name: str, run, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument(
        "run_folder", metavar="RUN", help="a run's folder, an exported .pth, or hf://user/name"
    )
    parser.add_argument(
        "--checkpoint", choices=("best", "last"), default="best", help="which parameters (best)"
    )
    parser.set_defaults(run=run)
    return parser


def _importance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--num-importance-samples", type=int, default=1000, metavar="K", help="draws a row (1000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of every draw (0)")


def _seed_and_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="of every draw (0)")
    parser.add_argument("--format", choices=FORMATS, default="text", help="text (default)")


def _unknown(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ignore-unknown", action="store_true", help="skip tags that are not in the taxonomy"
    )


def _load(options: argparse.Namespace):
    from jaxvae.inference.load import load

    return load(options.run_folder, checkpoint=options.checkpoint)


def _load_any(options: argparse.Namespace):
    """A run, or all runs of a folder as an ensemble."""
    from jaxvae.inference.load import load_many

    return load_many(options.run_folder) if options.checkpoint == "best" else _load(options)


def _on_unknown(options: argparse.Namespace) -> str:
    return "ignore" if options.ignore_unknown else "error"


def _evaluate(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.evaluation.evaluate_run import judge
    from jaxvae.evaluation.saved_evaluation import evaluation_path
    from jaxvae.inference.ensemble import Ensemble
    from jaxvae.reports.summary_text import evaluation_table
    from jaxvae.storage.atomic_files import write_json

    run = _load_any(options)
    if isinstance(run, Ensemble):
        return _evaluate_ensemble(run, options)
    judged = judge(
        run,
        split=options.split,
        num_importance_samples=options.num_importance_samples,
        seed=options.seed,
        say=_say,
    )
    with contextlib.suppress(OSError):  # a run that may only be read is judged all the same
        write_json(evaluation_path(run.folder, options.split), judged)
    if options.json:
        _print_json(judged)
    else:
        print(evaluation_table(judged))
    return 0


def _evaluate_ensemble(ensemble, options: argparse.Namespace) -> int:
    from jaxvae.inference.ensemble import judge_ensemble

    judged = judge_ensemble(
        ensemble,
        split=options.split,
        num_importance_samples=options.num_importance_samples,
        seed=options.seed,
    )
    if options.json:
        _print_json(judged)
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


def _sample(options: argparse.Namespace, rest: list[str]) -> int:
    for option, decode in (("threshold", "threshold"), ("top_k", "top_k")):
        if getattr(options, option) is not None and options.decode != decode:
            name = option.replace("_", "-")
            raise InputError(f"--{name} is for --decode {decode}, not {options.decode}")
    run = _load_any(options)
    sets = run.sample(
        options.num,
        temperature=options.temperature,
        decode=options.decode,
        threshold=0.5 if options.threshold is None else options.threshold,
        top_k=options.top_k,
        seed=options.seed,
    )
    if options.format == "json":
        _print_json(sets)
    elif options.format == "csv":
        _print_csv(["tags"], ([json.dumps(tags, ensure_ascii=False)] for tags in sets))
    else:
        print("\n".join(format_tags(tags, run.taxonomy) for tags in sets))
    return 0


def _complete(options: argparse.Namespace, rest: list[str]) -> int:
    run = _load_any(options)
    done = run.complete(
        parse_tags(options.present, run.taxonomy, option="--with"),
        parse_tags(options.absent, run.taxonomy, option="--without"),
        num=options.num,
        seed=options.seed,
        on_unknown=_on_unknown(options),
    )
    pairs = list(zip(done.sets, done.probability, strict=True))
    if options.format == "json":
        _print_json([{"tags": tags, "probability": p} for tags, p in pairs])
        return 0
    if options.format == "csv":
        _print_csv(
            ["tags", "probability"],
            ([json.dumps(tags, ensure_ascii=False), p] for tags, p in pairs),
        )
        return 0
    print("Sets drawn from p(rest | given), the most probable first:")
    for tags, p in pairs:
        print(f"  {p:8.2g}  {format_tags(tags, run.taxonomy)}")
    print("Every other tag by concept, with its probability:")
    for concept, ranked in done.tags.items():
        print(f"  {concept}: {_likely(ranked[:6])}")
    if done.effective_draws < 100.0:
        print(
            f"jaxvae: the estimate is worth only {done.effective_draws:.0f} draws; give fewer tags",
            file=sys.stderr,
        )
    return 0


def _encode(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.inference.encode_file import SUFFIXES, encode_file, write_latents

    output = user_path(options.output)
    if output.suffix not in SUFFIXES:
        raise InputError(f"--output {output}: the name must end in {', '.join(SUFFIXES)}")
    if output.exists() and output.samefile(user_path(options.input)):
        raise InputError(f"--output {output}: is the input file too; name another")
    run = _load(options)
    encoded = encode_file(run, user_path(options.input), options.column)
    write_latents(output, encoded)
    print(
        f"{output}: {len(encoded.row):,} rows of {run.network.latent_dim} dimensions; "
        f"{encoded.without_known_tag:,} without a known tag and {encoded.unreadable:,} unreadable "
        f"are NaN; {encoded.unknown_tags:,} unknown tags ignored",
        file=sys.stderr,
    )
    return 0


def _traverse(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.evaluation.latents import STEPS, traverse

    run = _load(options)
    dims = run.network.latent_dim
    if not 0 <= options.dim < dims:
        raise InputError(f"--dim {options.dim}: must be between 0 and {dims - 1}")
    if not 1 <= options.top <= run.network.num_tags:
        raise InputError(f"--top {options.top}: must be between 1 and {run.network.num_tags}")
    around = parse_tags(options.around, run.taxonomy, option="--around")
    rows = run.to_rows([around], on_unknown=_on_unknown(options))
    if not (rows < run.network.num_tags).any():
        raise InputError("--around: no tag to start from")
    mean = run.encode([around], on_unknown=_on_unknown(options))[0]
    _, probabilities = traverse(run.network, mean, options.dim)
    steps: list[dict[str, Any]] = []
    for value, p in zip(STEPS, probabilities, strict=True):
        best = p.argsort()[::-1][: options.top]
        steps.append(
            {
                "z": value,
                "tags": [
                    {"tag": tag, "probability": float(p[v])}
                    for v, tag in zip(best, run.taxonomy.names(best), strict=True)
                ],
            }
        )
    if options.format == "json":
        _print_json(steps)
        return 0
    start = format_tags(around, run.taxonomy)
    print(f"Dimension {options.dim}, around {start} (z = {mean[options.dim]:+.2f}):")
    for step in steps:
        likely = _likely((each["tag"], each["probability"]) for each in step["tags"])
        print(f"  z = {step['z']:+.0f}  {likely}")
    return 0


def _report(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.reports.run_report import write_report

    _check_page_name(options)
    run = _load(options)
    path = write_report(
        run,
        output=user_path(options.output) if options.output else None,
        split=options.split,
        num_importance_samples=options.num_importance_samples,
        seed=options.seed,
        say=_say,
    )
    print(path)
    return 0


def _explore(options: argparse.Namespace, rest: list[str]) -> int:
    import webbrowser

    from jaxvae.reports.explorer import write_explore

    _check_page_name(options)
    run = _load(options)
    path = write_explore(run, output=user_path(options.output) if options.output else None)
    print(path, flush=True)
    if not options.no_open:
        with contextlib.suppress(webbrowser.Error):  # the page is there, and its name is said
            webbrowser.open(path.resolve().as_uri())
    return 0


def _check_page_name(options: argparse.Namespace) -> None:
    if options.output and user_path(options.output).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--output {options.output}: the name must end in .html")


def _compare(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.evaluation.compare import compare_runs, comparison_table
    from jaxvae.export.hub_repo import refuse_published

    for folder in options.run_folders:
        refuse_published(folder, "compare")
    groups = compare_runs([user_path(folder) for folder in options.run_folders])
    if options.json:
        _print_json(groups)
    else:
        print(comparison_table(groups))
    return 0


def _likely(ranked: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{quote_tag(tag)} {p:.2f}" for tag, p in ranked)


def _say(line: str) -> None:
    print(f"jaxvae: {line}", file=sys.stderr, flush=True)


def _print_json(value) -> None:
    # NaN is no JSON: what can't be computed is null.
    from jaxvae.storage.atomic_files import to_json

    print(to_json(value))


def _print_csv(header: list[str], rows) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
