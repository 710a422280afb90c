"""The commands that exchange models with other software: export, import and push."""

import argparse
import functools
from collections.abc import Callable

from jaxvae.cli.run_options import add_trust_option, load_run, say
from jaxvae.config.paths import user_path
from jaxvae.errors import InputError


def add_to(commands) -> None:
    """Adds the commands to argparse's subparsers."""
    export = commands.add_parser(
        "export", help="write a run's model for PyTorch, ONNX runtimes, JAX without this package"
    )
    export.add_argument("run_folder", metavar="RUN", help="a run's folder, a .pth, or hf://…")
    export.add_argument(
        "--output",
        required=True,
        help="file to write, ending in .pth, .safetensors, .onnx or .stablehlo; of torch_module a "
        "folder",
    )
    export.add_argument(
        "--format",
        metavar="FORMAT",
        help="pth, safetensors, onnx, stablehlo or torch_module (default: by the ending)",
    )
    _checkpoint(export)
    add_trust_option(export)
    export.set_defaults(run=_export)

    import_ = commands.add_parser("import", help="turn a .pth or .safetensors into a run")
    import_.add_argument("file", help="a .pth or .safetensors of the model's architecture")
    import_.add_argument("--taxonomy", help="JSON {concept: [tags]}; default: the .json beside it")
    import_.add_argument("--output", required=True, help="folder to make")
    add_trust_option(import_)
    import_.set_defaults(run=_import)

    push = commands.add_parser(
        "push",
        help="publish a run's model, or a generated table, on the Hugging Face Hub",
        description="Publishes parameters, taxonomy, config and a model card, never the rows; or, "
        "with --dataset, a table of generate with its record and a data card. The token is the one "
        "of `hf auth login` or HF_TOKEN.",
    )
    push.add_argument(
        "run_folder",
        metavar="RUN",
        help="a run's folder, or an exported .pth; with --dataset a table of generate",
    )
    push.add_argument("repository", metavar="USER/NAME", help="the repository, made if missing")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    push.add_argument("--revision", metavar="BRANCH", help="branch to write (main)")
    push.add_argument("--folder", help="write the repository's files here and contact nobody")
    push.add_argument("--license", metavar="ID", help="for the card, such as apache-2.0")
    push.add_argument("--dataset", action="store_true", help="RUN is a table of generate")
    push.add_argument("--card", metavar="FILE", help="of --dataset: a card to take as it is")
    _checkpoint(push)
    add_trust_option(push)
    push.set_defaults(run=_push)


def _checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        help="the parameters of the best validation (default) or of the last epoch",
    )


def _export(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.export.formats import check_place, format_of

    name = format_of(options.output, options.format)  # before the run is read
    check_place(user_path(options.output), name)
    run = load_run(options)
    files, difference = run.export(options.output, format=name)
    print(
        f"{', '.join(map(str, files))}: the {run.facts.get('checkpoint')} checkpoint of "
        f"{run.source}; read back, its logits differ from the model's by at most {difference:.1e}"
    )
    return 0


def _import(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.inference.load import import_model

    run = import_model(
        options.file,
        taxonomy_path=options.taxonomy,
        output=options.output,
        trust_code=options.trust_code,
    )
    network = run.network
    units = " and ".join(map(str, network.hidden_dims))
    print(
        f"{run.folder}: {run.taxonomy.num_tags} tags, {units} hidden units, "
        f"{network.latent_dim} latent dimensions"
    )
    return 0


def _push(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.export import hub_repo
    from jaxvae.reports import model_card, publish

    hub_repo.check_repository(options.repository)
    model_card.check_license(options.license)
    if options.folder and (options.private or options.revision):
        raise InputError("--folder writes here alone; --private and --revision are for the Hub")
    if options.dataset:
        return _push_table(options)
    if options.card:
        raise InputError("--card goes with --dataset; a model's card is made of its evaluation")
    run = load_run(options)
    if run.network.user_classes:
        say(f"config.json has the code of {', '.join(run.network.user_classes.sources)}, as text")
    _publish(
        options,
        write=functools.partial(publish.write_folder, run),
        push=functools.partial(publish.push, run),
    )
    if publish.judged_of(run) is None:
        say("the card has no results; python -m jaxvae evaluate RUN, and push again")
    return 0


def _push_table(options: argparse.Namespace) -> int:
    from jaxvae.reports.sets import publish_table

    if options.trust_code or options.checkpoint != "best":
        raise InputError("--checkpoint and --trust-code are for models, not for --dataset")
    table = user_path(options.run_folder)
    card = user_path(options.card) if options.card else None
    _publish(
        options,
        write=functools.partial(publish_table.write_table_folder, table, card=card),
        push=functools.partial(publish_table.push_table, table, card=card),
        kind="datasets/",
    )
    return 0


def _publish(
    options: argparse.Namespace,
    *,
    write: Callable[..., list[str]],
    push: Callable[..., str],
    kind: str = "",
) -> None:
    """Writes a repository's files into `--folder`, or uploads them, and prints where they are."""
    if options.folder:
        folder = user_path(options.folder)
        names = write(folder, repository=options.repository, license=options.license)
        print(f"{options.folder}: {', '.join(names)}")
    else:
        commit = push(
            options.repository,
            private=options.private,
            revision=options.revision,
            license=options.license,
        )
        print(f"hf://{kind}{options.repository}@{commit}")
