"""The commands on files of tag sets: generate, evaluate-sets."""

import argparse
import shlex
import sys
from typing import Any

from jaxvae.cli.files import INPUT
from jaxvae.cli.order_texts import parse_balance, parse_counts, parse_numbers, parse_range, unquoted
from jaxvae.cli.run_options import (
    TAG_LIST,
    add_command,
    add_tag_options,
    check_page_name,
    load_run,
    print_json,
    refuse_repeats,
    typed_tags,
)
from jaxvae.config.paths import user_path
from jaxvae.data.cells.tag_lists import parse_tags
from jaxvae.errors import InputError

_LIKELIHOOD_DRAWS = 100
_PAIRS = 500


def add_to(commands) -> None:
    """Adds the commands to argparse's subparsers."""
    generate = add_command(commands, "generate", _generate, "write tag sets to order")
    refuse_repeats(generate)
    generate.add_argument(
        "--num", type=int, help="how many sets, at each temperature; of pairs how many pairs (500)"
    )
    generate.add_argument(
        "--output", required=True, help="table to write: .csv, .jsonl or .parquet"
    )
    add_tag_options(generate, f"every set has: {TAG_LIST}", 'no set has: "fast tempo"')
    generate.add_argument(
        "--count", action="append", default=[],
        help='tags of a concept: "genre=1..2, tempo=1, instrument=1.."',
    )  # fmt: skip
    generate.add_argument("--tags", help="tags in all: 3..12, 3.. or 5 (1..)")
    generate.add_argument(
        "--balance", metavar="CONCEPT",
        help='equally many sets with each tag of a concept, of a list: "jazz, rock", or shares: '
        '"jazz=0.7, rock=0.3"; each with one of them, unless --count allows more',
    )  # fmt: skip
    generate.add_argument(
        "--pairs", metavar="TAG",
        help="pairs of sets with the tag and without it, the rest the same, under the constraints",
    )  # fmt: skip
    generate.add_argument("--like", metavar="FILE", help=f"variants of its rows: {INPUT}")
    generate.add_argument("--per-row", type=int, help="variants of each row of --like (3)")
    generate.add_argument("--column", help="column of --like with the tags (as in training)")
    generate.add_argument(
        "--distance", type=float,
        help="of variants from their rows: times the posterior's standard deviation (1.0)",
    )  # fmt: skip
    generate.add_argument(
        "--between", nargs=2, metavar="TAGS",
        help="sets on the way between two, in latent space; --num at each step (1)",
    )  # fmt: skip
    generate.add_argument("--steps", type=int, help="of --between, both ends included (7)")
    generate.add_argument(
        "--temperature", default="1.0",
        help="divides the logits (1.0); of several, as 0.5,1,2, each has --num sets",
    )  # fmt: skip
    generate.add_argument("--distinct", action="store_true", help="no set twice")
    generate.add_argument("--unseen", action="store_true", help="no training row's set")
    generate.add_argument(
        "--min-distance", type=int, metavar="D",
        help="only sets that differ from every training row by D tags",
    )  # fmt: skip
    _add_table_options(generate)
    generate.add_argument("--seed", type=int, default=0, help="of every draw (0)")
    _add_judge(commands)


def _add_table_options(generate: argparse.ArgumentParser) -> None:
    """Adds what is written, rather than drawn."""
    generate.add_argument(
        "--splits", default="0.9,0.05,0.05", help="shares of train, val and test (0.9,0.05,0.05)"
    )
    generate.add_argument(
        "--likelihood", type=int, nargs="?", const=_LIKELIHOOD_DRAWS, metavar="K",
        help=f"add each set's log-likelihood, by K draws ({_LIKELIHOOD_DRAWS} if bare)",
    )  # fmt: skip
    generate.add_argument(
        "--template", metavar="FILE",
        help="add a text of each set by a Jinja2 template, a file or typed: "
        "\"A {{ genre }} song\"; or tags['mood/theme'], or all tags",
    )  # fmt: skip
    generate.add_argument(
        "--no-figures", action="store_true",
        help="don't compare at most 10,000 of the sets with held-out rows in the .json",
    )  # fmt: skip
    generate.add_argument(
        "--card", metavar="README.md", help="write a data card in the form of the Hugging Face Hub"
    )
    generate.add_argument(
        "--resume", action="store_true",
        help="go on with the parts that the same command, killed, left in NAME.partial, if any",
    )  # fmt: skip


def _add_judge(commands) -> None:
    judge = commands.add_parser(
        "evaluate-sets",
        help="how like a file's rows the tag sets of another are",
        description="Compares a file of tag sets with rows that they should be like; no model.",
    )
    refuse_repeats(judge)
    judge.add_argument("file", metavar="FILE", help=f"the sets: {INPUT}")
    judge.add_argument("--against", required=True, metavar="ROWS", help="the rows, a file likewise")
    judge.add_argument(
        "--train", metavar="ROWS",
        help="the rows that a model has seen, for novelty (those of --against)",
    )  # fmt: skip
    judge.add_argument("--taxonomy", help="the tags that count (all of the files, as one concept)")
    for name, what in (("column", "FILE"), ("against-column", "the other files")):
        judge.add_argument(f"--{name}", help=f"column of {what} with the tags (found)")
    judge.add_argument("--seed", type=int, default=0, help="of the two-sample tests (0)")
    judge.add_argument("--json", action="store_true", help="one JSON object")
    judge.add_argument("--output", metavar="PAGE.html", help="write a page too, with figures")
    judge.set_defaults(run=_evaluate_sets)


def _generate(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.inference.arguments import check_count
    from jaxvae.inference.generation.draws import one_in
    from jaxvae.inference.generation.splits import check_shares
    from jaxvae.reports.sets.data_card import check_card_path, write_card
    from jaxvae.reports.sets.table_record import to_publish
    from jaxvae.storage.row_tables import check_suffix

    output = user_path(options.output)
    card = user_path(options.card) if options.card else None
    check_suffix(output)
    if card is not None:
        check_card_path(card)
    shares = parse_numbers("--splits", options.splits, "shares, as 0.9,0.05,0.05")
    temperatures = parse_numbers("--temperature", options.temperature, "numbers, as 0.5,1,2")
    check_shares(shares)
    count = parse_counts(", ".join(options.count))
    if options.min_distance is not None:
        check_count("--min-distance", options.min_distance)
    if options.likelihood is not None:
        check_count("--likelihood", options.likelihood)
    tags = None if options.tags is None else parse_range("--tags", options.tags)
    num = _num(options)
    run = load_run(options)
    record = run.generate_file(
        num,
        options.output,
        splits=shares,
        num_importance_samples=options.likelihood,
        template=options.template,
        judge=_judge(options, run),
        command=shlex.join(["jaxvae", *(word for word in sys.argv[1:] if word != "--resume")]),
        resume=options.resume,
        beside={} if card is None else {"card": card},
        present=typed_tags(options.present, run.taxonomy, "--with"),
        absent=typed_tags(options.absent, run.taxonomy, "--without"),
        count=count,
        tags=tags,
        temperature=temperatures if len(temperatures) > 1 else temperatures[0],
        distinct=options.distinct,
        unseen=options.min_distance or int(options.unseen),
        balance=parse_balance(options.balance, run.taxonomy),
        pairs=_pairs(options, run),
        **_near(options, run),
        seed=options.seed,
    )
    if card is not None:
        write_card(card, to_publish(record), output)
    first = record.get("by_temperature", [record])[0]
    if "unknown_tags" in (like := first.get("like", {})):
        print(
            f"jaxvae: {options.like}: {like['rows']:,} rows; {like['without_known_tag']:,} without "
            f"a known tag and {like['unreadable']:,} unreadable left out; "
            f"{like['unknown_tags']:,} unknown tags ignored",
            file=sys.stderr,
        )
    print(
        f"{options.output}: {record['sets']:,} sets; {one_in(record['probability'])} of the "
        f"model's is like these ({record['log_probability']:.2f} nats); {record['repeats']:,} "
        f"repeats and {record['near_training']:,} near training rows turned away; "
        f"{record['effective_draws']:,.0f} effective draws",
        file=sys.stderr,
    )
    return 0


def _num(options: argparse.Namespace) -> int:
    from jaxvae.inference.generation.options import GOES_WITH

    for name, needed in {"per_row": "like", **GOES_WITH}.items():
        if getattr(options, name) is not None and getattr(options, needed) is None:
            raise InputError(f"--{name.replace('_', '-')} goes with --{needed}")
    if options.like is not None:
        if options.num is not None:
            raise InputError("--num does not go with --like; --per-row says how many of each row")
        return 3 if options.per_row is None else options.per_row
    if options.num is not None:
        return options.num
    if options.pairs is not None:
        return _PAIRS
    if options.between is not None:
        return 1
    raise InputError("--num: say how many sets to write")


def _judge(options: argparse.Namespace, run):
    """Returns the comparison with held-out rows, or the reason why there is none."""
    from jaxvae.evaluation.sets.set_files import judge_of
    from jaxvae.inference.arguments import check_seed

    check_seed(options.seed)
    if options.no_figures:
        return None
    if not run.has_rows:
        return lambda sets: {"none_because": "the model came without rows"}
    return judge_of(run, seed=options.seed)


def _pairs(options: argparse.Namespace, run) -> str | None:
    if options.pairs is None or run.taxonomy.knows(options.pairs):
        return options.pairs
    return unquoted(options.pairs, run.taxonomy, option="--pairs") or options.pairs


def _near(options: argparse.Namespace, run) -> dict[str, Any]:
    """Returns the options about given sets that were given."""
    from jaxvae.inference.generation.options import GOES_WITH

    given = {name: getattr(options, name) for name in (*GOES_WITH, "like", "between")}
    if options.between is not None:
        given["between"] = [
            parse_tags(tags, run.taxonomy, option="--between") for tags in options.between
        ]
    return {name: value for name, value in given.items() if value is not None}


def _evaluate_sets(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.data.taxonomy import Taxonomy
    from jaxvae.evaluation.sets.set_files import TagFile, evaluate_set_files
    from jaxvae.inference.arguments import check_seed
    from jaxvae.reports.sets.sets_page import write_sets_page
    from jaxvae.reports.summary_text import set_files_table
    from jaxvae.storage.places import check_outputs, existing

    check_seed(options.seed)
    check_page_name(options)
    page = user_path(options.output) if options.output else None
    if page is not None:
        read = (options.file, options.against, options.train, options.taxonomy)
        check_outputs({"--output": page}, existing(read))
    others = [
        TagFile(user_path(path), options.against_column, "--against-column")
        for path in (options.against, options.train)
        if path
    ]
    judged = evaluate_set_files(
        TagFile(user_path(options.file), options.column),
        others[0],
        taxonomy=Taxonomy.load(options.taxonomy) if options.taxonomy else None,
        train=others[1] if options.train else None,
        seed=options.seed,
    )
    if page is not None:
        write_sets_page(judged, page)
    if options.json:
        print_json(judged)
    else:
        print(set_files_table(judged))
    return 0
