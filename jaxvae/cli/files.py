"""The commands that answer about every row of a file: encode, likelihood, complete --input."""

import argparse
import sys

from jaxvae.cli.run_options import add_command, add_importance_options, load_any, load_run
from jaxvae.config.paths import user_path
from jaxvae.errors import InputError

INPUT = "CSV, TSV, JSON, JSON lines or Parquet"
COLUMN = "column with the tags (default: found as in training)"
TABLE = "table to write, a row for each row: .csv, .jsonl or .parquet"


def add_to(commands) -> None:
    """Adds the commands to argparse's subparsers."""
    encode = add_command(commands, "encode", _encode, "latent vectors of a file's rows")
    encode.add_argument("--input", required=True, help=INPUT)
    encode.add_argument("--output", required=True, help="file to write: .parquet, .npz or .csv")
    encode.add_argument("--column", help=COLUMN)

    likelihood = add_command(
        commands, "likelihood", _likelihood, "log-likelihood of a file's rows, nats: which are odd"
    )
    likelihood.add_argument("--input", required=True, help=INPUT)
    likelihood.add_argument("--output", required=True, help=TABLE)
    likelihood.add_argument("--column", help=COLUMN)
    add_importance_options(likelihood, default=100)


def add_complete_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options with which `complete` takes a file."""
    parser.add_argument("--input", help=f"a file whose rows to complete, instead: {INPUT}")
    parser.add_argument("--output", help=TABLE)
    parser.add_argument("--column", help=COLUMN)
    parser.add_argument("--top", type=int, help="likeliest missing tags of each row (10)")
    parser.add_argument(
        "--draws",
        type=int,
        help="from the prior, for all rows (32768, fewer for a wide vocabulary)",
    )


def complete_file(options: argparse.Namespace) -> int:
    """Runs `complete --input`."""
    _check_table(options)
    counts = load_any(options).complete_file(
        options.input,
        options.output,
        top=10 if options.top is None else options.top,
        column=options.column,
        draws=options.draws,
        seed=options.seed,
    )
    return _report(options, counts)


def _likelihood(options: argparse.Namespace, rest: list[str]) -> int:
    _check_table(options)
    counts = load_any(options).likelihood_file(
        options.input,
        options.output,
        num_importance_samples=options.num_importance_samples,
        column=options.column,
        seed=options.seed,
    )
    return _report(options, counts)


def _check_table(options: argparse.Namespace) -> None:
    from jaxvae.storage.places import check_outputs, existing
    from jaxvae.storage.row_tables import check_suffix

    output = user_path(options.output)
    check_suffix(output)
    check_outputs({"output": output}, existing([options.input, options.run_folder]))


def _report(options: argparse.Namespace, counts) -> int:
    print(
        f"{options.output}: {counts.rows:,} rows, read as {counts.read_as}; "
        f"{counts.without_known_tag:,} without a known tag and {counts.unreadable:,} unreadable "
        f"are empty; {counts.unknown_tags:,} unknown tags ignored",
        file=sys.stderr,
    )
    return 0


def _encode(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.inference.files.encode_file import SUFFIXES, encode_file, write_latents
    from jaxvae.storage.places import check_outputs, existing

    output = user_path(options.output)
    if output.suffix not in SUFFIXES:
        raise InputError(f"--output {output}: the name must end in {', '.join(SUFFIXES)}")
    check_outputs({"--output": output}, existing([options.input, options.run_folder]))
    run = load_run(options)
    encoded = encode_file(run, user_path(options.input), options.column)
    write_latents(output, encoded)
    print(
        f"{output}: {len(encoded.row):,} rows of {run.network.latent_dim} dimensions, read as "
        f"{encoded.read_as}; "
        f"{encoded.without_known_tag:,} without a known tag and {encoded.unreadable:,} unreadable "
        f"are NaN; {encoded.unknown_tags:,} unknown tags ignored",
        file=sys.stderr,
    )
    return 0
