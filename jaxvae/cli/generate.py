"""The commands that query a trained model: sample, complete, traverse."""

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Any

from jaxvae.cli.files import add_complete_options, complete_file
from jaxvae.cli.run_options import (
    TAG_LIST,
    add_command,
    add_seed_and_format,
    add_tag_options,
    add_unknown_option,
    load_any,
    load_run,
    on_unknown,
    print_csv,
    print_json,
    refuse_repeats,
    typed_tags,
)
from jaxvae.data.cells.tag_lists import format_tags, parse_tags, quote_tag
from jaxvae.errors import InputError


def add_to(commands) -> None:
    """Adds the commands to argparse's subparsers."""
    sample = add_command(commands, "sample", _sample, "new tag sets")
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
    add_seed_and_format(sample)

    complete = add_command(commands, "complete", _complete, "complete a tag set, or a file of them")
    refuse_repeats(complete)
    add_tag_options(complete, TAG_LIST, '"fast tempo"')
    complete.add_argument("--num", type=int, help="distinct sets (5)")
    add_unknown_option(complete)
    add_complete_options(complete)
    add_seed_and_format(complete)

    traverse = add_command(commands, "traverse", _traverse, "move along one latent dimension")
    traverse.add_argument("--around", required=True, help='where to start, "jazz, mellow"')
    traverse.add_argument("--dim", type=int, required=True, help="the dimension, from 0")
    traverse.add_argument("--top", type=int, default=8, help="tags of each step (8)")
    add_unknown_option(traverse)
    traverse.add_argument("--format", choices=("text", "json"), default="text")


def _sample(options: argparse.Namespace, rest: list[str]) -> int:
    for option, decode in (("threshold", "threshold"), ("top_k", "top_k")):
        if getattr(options, option) is not None and options.decode != decode:
            name = option.replace("_", "-")
            raise InputError(f"--{name} is for --decode {decode}, not {options.decode}")
    run = load_any(options)
    sets = run.sample(
        options.num,
        temperature=options.temperature,
        decode=options.decode,
        threshold=0.5 if options.threshold is None else options.threshold,
        top_k=options.top_k,
        seed=options.seed,
    )
    if options.format == "json":
        print_json(sets)
    elif options.format == "csv":
        print_csv(["tags"], ([json.dumps(tags, ensure_ascii=False)] for tags in sets))
    else:
        print("\n".join(format_tags(tags, run.taxonomy) for tags in sets))
    return 0


_OF_A_SET = {
    "--with": "present",
    "--without": "absent",
    "--num": "num",
    "--ignore-unknown": "ignore_unknown",
}
_OF_A_FILE = {name: name.strip("-") for name in ("--output", "--column", "--top", "--draws")}


def _complete(options: argparse.Namespace, rest: list[str]) -> int:
    for_others = _OF_A_FILE if options.input is None else _OF_A_SET
    for name, field in for_others.items():
        if getattr(options, field) not in (None, [], False):
            goes_with = "goes with" if options.input is None else "does not go with"
            raise InputError(f"{name} {goes_with} --input, a file whose rows to complete")
    if options.input is not None:
        if options.output is None or options.format != "text":
            raise InputError("--input needs --output, the table to write, and no --format")
        return complete_file(options)
    run = load_any(options)
    completion = run.complete(
        typed_tags(options.present, run.taxonomy, "--with"),
        typed_tags(options.absent, run.taxonomy, "--without"),
        num=5 if options.num is None else options.num,
        seed=options.seed,
        on_unknown=on_unknown(options),
    )
    pairs = list(zip(completion.sets, completion.probability, strict=True))
    if options.format == "json":
        print_json([{"tags": tags, "probability": p} for tags, p in pairs])
        return 0
    if options.format == "csv":
        print_csv(
            ["tags", "probability"],
            ([json.dumps(tags, ensure_ascii=False), p] for tags, p in pairs),
        )
        return 0
    print("Sets drawn from p(rest | given), the most probable first:")
    for tags, p in pairs:
        print(f"  {p:8.2g}  {format_tags(tags, run.taxonomy)}")
    print("Every other tag by concept, with its probability:")
    for concept, ranked in completion.tags.items():
        print(f"  {concept}: {_likely(ranked[:6])}")
    if completion.effective_draws < 100.0:
        print(
            f"jaxvae: the estimate is worth only {completion.effective_draws:.0f} draws; give "
            f"fewer tags",
            file=sys.stderr,
        )
    return 0


def _traverse(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.inference.traversal import STEPS, traverse

    run = load_run(options)
    dims = run.network.latent_dim
    if not 0 <= options.dim < dims:
        raise InputError(f"--dim {options.dim}: must be between 0 and {dims - 1}")
    if not 1 <= options.top <= run.network.num_tags:
        raise InputError(f"--top {options.top}: must be between 1 and {run.network.num_tags}")
    around = parse_tags(options.around, run.taxonomy, option="--around")
    rows = run.to_rows([around], on_unknown=on_unknown(options))
    if not (rows < run.network.num_tags).any():
        raise InputError("--around: no tag to start from")
    mean = run.encode([around], on_unknown=on_unknown(options))[0]
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
        print_json(steps)
        return 0
    start = format_tags(around, run.taxonomy)
    print(f"Dimension {options.dim}, around {start} (z = {mean[options.dim]:+.2f}):")
    for step in steps:
        likely = _likely((entry["tag"], entry["probability"]) for entry in step["tags"])
        print(f"  z = {step['z']:+.0f}  {likely}")
    return 0


def _likely(ranked: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{quote_tag(tag)} {p:.2f}" for tag, p in ranked)
