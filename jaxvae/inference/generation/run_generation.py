"""Tag sets to order, asked of a trained model: the methods that a run inherits."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxvae.config.paths import user_path
from jaxvae.data.layouts.options import TableFields
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError, type_name
from jaxvae.export.hub_files import without_paths
from jaxvae.inference.arguments import check_count
from jaxvae.inference.generation import variants
from jaxvae.inference.generation.options import check_options
from jaxvae.inference.generation.order import SetSource
from jaxvae.inference.generation.request import Generated, draw_all, start_generation
from jaxvae.inference.generation.splits import SHARES
from jaxvae.inference.generation.tables import table
from jaxvae.inference.generation.tables.parts import parts_folder
from jaxvae.inference.generation.tables.prompts import Prompts
from jaxvae.inference.generation.tables.record import make_order, record_path
from jaxvae.models.trained import TrainedModel
from jaxvae.storage.places import check_outputs, existing
from jaxvae.storage.row_tables import check_suffix

_OF_A_TABLE = ("num_importance_samples", "judge", "command", "resume", "beside")


class GeneratingRun:
    """A trained model that writes tag sets to order."""

    folder: Path
    config: dict
    taxonomy: Taxonomy
    network: TrainedModel

    def rows(self, split: str) -> np.ndarray:
        """Returns the rows of a split, as in `Run.rows`."""
        raise NotImplementedError

    def to_rows(self, tag_sets: Any, *, on_unknown: str = "error") -> np.ndarray:
        """Converts tag sets to column numbers, as in `Run.to_rows`."""
        raise NotImplementedError

    def table_fields(self, column: str | None) -> TableFields:
        """Says how to find a table's tags, as in `Run.table_fields`."""
        raise NotImplementedError

    def generate(
        self, num: int, *, template: str | Path | None = None, **options: Any
    ) -> Generated:
        """Draws tag sets from p(set | constraints), none of them empty.

        Given z the constraints are met exactly, and z has its posterior under them.

        Args:
          num: number of sets; of pairs; of sets like each row; or of sets at each step.
          template: a Jinja2 template, or the path of its file, for a text of each set in
            `labels["text"]`: each concept is a list that prints between commas, and `tags` has all
            tags, or those of a concept as `tags["mood/theme"]`.
          **options: `present` and `absent`, tags that every set has, or none; `count`, by concept
            the number of its tags in a set, as `{"genre": (1, 2), "tempo": 1}`; `tags`, the number
            in all, as `(3, 12)`; None in a pair is no limit. `balance`, a concept or a list of
            tags, asks for equally many sets with each of the tags, and with it alone of them;
            `{"jazz": 0.7, "rock": 0.3}` for these shares. Where `count` says that sets have other
            numbers of the concept's tags than 1, sets are reweighted instead, so that the tags'
            rates are in such proportions.
            `pairs`, a tag, asks for pairs of sets, with and without it, whose rest is the same and
            meets the constraints. `like`, a file or tag sets, asks for `num` variants of each, by
            its posterior with `distance` times the standard deviation (1); `column` is the file's
            of tags. `between`, two tag sets, asks for sets at `steps` points (7) on the way from
            one posterior to the other. `temperature` divides the logits; of several there
            are `num` sets each. `distinct` leaves out repeats: the sets are the first occurrences
            among independent draws. `unseen` leaves out training rows' sets; a number leaves out
            those that differ from a training row by fewer tags. `seed` is the seed of every draw;
            unless balanced, fewer sets are the first of more.

        Raises:
          InputError: a tag or concept is unknown; no set meets the constraints, or fewer than one
            in a billion; there are not so many sets; the run has no rows for `unseen`; or the
            template is wrong.
        """
        options = check_options({**options, "template": template})
        prompts = self._prompts(options.pop("template", None))
        return draw_all(self._start_generation(num, **options), prompts)

    def generate_file(
        self,
        num: int,
        output: str | Path,
        *,
        splits: tuple[float, ...] = SHARES,
        num_importance_samples: int | None = None,
        template: str | Path | None = None,
        judge: table.Judge | None = None,
        command: str | None = None,
        resume: bool = False,
        beside: Mapping[str, Path] = MappingProxyType({}),
        **options: Any,
    ) -> dict[str, Any]:
        """Writes the sets of `generate` as a table, in bounded memory, and a `.json` beside it.

        The table has the columns `id` (a digest of the set), `tags`, one for each concept, such as
        `genre_tags`, `temperature`, `split` and perhaps `log_likelihood`; of pairs `pair`,
        `with_tag` and `log_likelihood_difference`, with the tag minus without it. The split of a
        set is drawn by its digest, so that equal sets share one, in this file and in all others;
        both sets of a pair have that of the set without the tag, whatever the other's own is.

        Args:
          num: number of sets.
          output: the table: `.csv` or `.jsonl`, numbers to six digits, or `.parquet`.
          splits: shares of train, val and test; balanced sets are balanced within each.
          num_importance_samples: draws for each set's log-likelihood, without temperature and
            constraints, nats; None leaves it out.
          template: as in `generate`; the column is called `text`.
          judge: returns figures of at most 10,000 of the sets, boolean `[n, V]`, for the record, as
            `evaluation.sets.set_files.judge_of` makes it of a run.
          command: the command that asks for the table, for the record.
          resume: whether to go on with the parts of such a table in `NAME.partial`, which a killed
            process left; the table is then the same to the byte.
          beside: files that the caller writes once the table is there, each by what it is called,
            whose places are checked with the table's.
          **options: as in `generate`.

        Returns:
          The record in the JSON file: constraints and their probability, counts, seed, the
          digest of the parameters.

        Raises:
          InputError: as in `generate`; or the table can't be written. Then nothing is, but
            complete parts of it where the disk was full.
        """
        options = check_options({**options, "splits": splits, "template": template}, _OF_A_TABLE)
        check_count("num", num)
        if not isinstance(output, str | Path):
            raise InputError(f"output: expected a file's path, found {type_name(output)}")
        path = user_path(output)
        published = without_paths(self.config).get("data", {}).get("dataset_name")
        facts = {"command": command, "trained_on": published}
        prompts = self._prompts(options.pop("template", None))
        self._check_places(path, beside, prompts, options.get("like"))
        order = make_order(
            self.network,
            self.taxonomy,
            {
                "num": num,
                **options,
                "num_importance_samples": num_importance_samples,
                "template": prompts and prompts.source,
            },
        )
        return table.write_sets(
            self._start_generation(num, **options),
            path,
            table.TableOptions(num_importance_samples, prompts, facts, order, resume, judge),
        )

    def _check_places(
        self, output: Path, beside: Mapping[str, Path], prompts: Prompts | None, like: Any
    ) -> None:
        """Raises InputError unless the files can be written, none of them over what is read."""
        check_suffix(output)
        of_data = self.config.get("data", {}).values()
        inputs = [
            *existing(value for value in of_data if isinstance(value, str)),
            *existing([like] if isinstance(like, str | Path) else []),
            *(() if prompts is None or prompts.path is None else [prompts.path]),
            self.folder,
        ]
        check_outputs({"output": output, "record": record_path(output), **beside}, inputs)
        parts = parts_folder(output)
        if inside := [path for path in inputs if path.resolve().is_relative_to(parts.resolve())]:
            raise InputError(f"{inside[0]}: is a part of a table on its way; copy it elsewhere")

    def _prompts(self, template: str | Path | None) -> Prompts | None:
        return None if template is None else Prompts(template, self.taxonomy)

    def _start_generation(self, num: int, **options: Any) -> SetSource:
        like, between = options.pop("like", None), options.pop("between", None)
        if like is not None and between is not None:
            raise InputError("like and between: give one of them")
        if like is not None:
            rows = self._rows_like(like, options.pop("column", None))
            distance = options.pop("distance", 1.0)
            options["around"] = variants.around_rows(
                self.network, rows, per_row=num, distance=distance
            )
        if between is not None:
            between = list(between)
            if len(between) != 2:
                raise InputError("between: give two tag sets, the ends of the way")
            steps, ends = options.pop("steps", 7), self._rows_with_tags("between", between)
            options["around"] = variants.around_way(self.network, ends, steps)
        return start_generation(
            self.network, self.taxonomy, num, train_rows=lambda: self.rows("train"), **options
        )

    def _rows_like(self, like: Any, column: str | None) -> variants.LikeRows:
        if isinstance(like, str | Path):
            return variants.read_like(user_path(like), self.taxonomy, self.table_fields(column))
        rows = self._rows_with_tags("like", like)
        return variants.LikeRows(rows, np.arange(len(rows)), {})

    def _rows_with_tags(self, name: str, tag_sets: Any) -> np.ndarray:
        """Converts tag sets to rows, of which none may be empty."""
        rows = self.to_rows(tag_sets)
        empty = np.flatnonzero((rows == self.network.num_tags).all(axis=1))
        if len(empty):
            raise InputError(f"{name}: set {empty[0] + 1} of {len(rows)} has no tag")
        return rows
