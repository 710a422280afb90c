"""The command `taxonomy`: writes the taxonomy that a config's data make, for editing."""

import argparse
from typing import Any

from jaxvae.config import parsing
from jaxvae.config.paths import user_path
from jaxvae.errors import InputError
from jaxvae.train.choices import CHOICES

_SHOWN = 20


def add_to(commands) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "taxonomy",
        help="write a taxonomy of a file's own tags, for editing",
        description="Writes the taxonomy that data.taxonomy_path=from_data makes of a config's "
        "data, and lists likely variants of one tag under its aliases, for editing. Takes "
        "--config=FILE[:PRESETS] and --config.data.FIELD=VALUE as launch.py does.",
        allow_abbrev=False,
    )
    parser.add_argument("--output", required=True, help="the JSON file to write")
    parser.set_defaults(run=_run, takes_config=True)


def _run(options: argparse.Namespace, rest: list[str]) -> int:
    config, _, _ = parsing.parse(["jaxvae", *rest], define=lambda values: None, choices=CHOICES)

    from jaxvae.data.dataset import load_from_config
    from jaxvae.data.taxonomy import Taxonomy
    from jaxvae.data.variants import find_variants
    from jaxvae.data.vocabulary import FROM_DATA
    from jaxvae.storage.atomic_files import write_json

    output = user_path(options.output)
    if output.suffix.lower() != ".json":
        raise InputError(f"--output {output}: a taxonomy is a .json file")
    with config.unlocked():
        config.data.taxonomy_path = FROM_DATA
    dataset = load_from_config(config)
    vocabulary = dataset.vocabulary
    assert vocabulary is not None
    in_taxonomy = [tag for tag, _ in vocabulary.kept]
    counts = [*vocabulary.kept, *vocabulary.left_out]
    aliases = {
        variant: tag for variant, tag in find_variants(counts).items() if tag in set(in_taxonomy)
    }
    concepts = {
        concept: tags
        for concept, listed in dataset.taxonomy.to_mapping().items()
        if (tags := [tag for tag in listed if tag not in aliases])
    }
    contents: dict[str, Any] = {"concepts": concepts, "aliases": aliases}
    taxonomy = Taxonomy.from_mapping(contents, source=str(output))
    write_json(output, taxonomy.to_file())
    rows = dict(counts)
    sizes = ", ".join(f"{name} {len(columns)}" for name, columns in taxonomy.concepts)
    print(f"{output}: {taxonomy.num_tags} tags; concepts: {sizes}")
    print(f"{len(vocabulary.left_out)} tags have fewer than {config.data.min_tag_rows} rows")
    if aliases:
        print(f"likely variants, under aliases: {len(aliases)}; delete those that are none:")
        for variant, tag in list(aliases.items())[:_SHOWN]:
            print(f"  {variant} ({rows[variant]:,}) -> {tag} ({rows[tag]:,})")
        if len(aliases) > _SHOWN:
            print(f"  and {len(aliases) - _SHOWN} more")
    print(f"use it by --config.data.taxonomy_path={output}")
    return 0
