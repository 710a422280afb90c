"""What one run and an ensemble of several answer alike: both are mixtures with equal weights."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxvae.config.paths import user_path
from jaxvae.inference.complete_tags import Completed, complete_tags
from jaxvae.inference.files import row_files
from jaxvae.models.trained import TrainedModel
from jaxvae.storage.places import check_outputs
from jaxvae.storage.row_tables import check_suffix

if TYPE_CHECKING:
    from jaxvae.inference.run import Run


class Mixture:
    """A mixture of runs with one taxonomy, perhaps of one.

    Members that explain the given tags better get more weight in its answers.
    """

    def members(self) -> Sequence["Run"]:
        """Returns the runs, at least one."""
        raise NotImplementedError

    def _networks(self) -> list[TrainedModel]:
        return [run.network for run in self.members()]

    def complete(
        self,
        present: Iterable[str] = (),
        absent: Iterable[str] = (),
        *,
        num: int = 5,
        seed: int = 0,
        on_unknown: str = "error",
    ) -> Completed:
        """Completes a partial set by conditioning the model on present and absent tags.

        Args:
          present: tags that the sets must have.
          absent: tags that the sets must not have.
          num: number of distinct sets to return; fewer if there are not as many.
          seed: seed of the draws.
          on_unknown: "ignore" skips unknown tags.

        Raises:
          InputError: a tag is both present and absent, or no tag is given.
        """
        return complete_tags(
            self._networks(),
            self.members()[0].taxonomy,
            present,
            absent,
            num=num,
            seed=seed,
            on_unknown=on_unknown,
        )

    def complete_file(
        self,
        source: str | Path,
        output: str | Path,
        *,
        top: int = 10,
        column: str | None = None,
        draws: int | None = None,
        seed: int = 0,
    ) -> row_files.FileRows:
        """Writes the likeliest missing tags of every row of a file, in bounded memory.

        A row's tags are present, nothing is assumed of the others. The table has the columns `row`
        (position in the file, from 0), `effective_draws`, `tags` and `probabilities`, both lists,
        likeliest first. All rows share the draws; distrust a row with under 100 effective ones.

        Args:
          source: a file that training reads.
          output: the table: `.csv` or `.jsonl`, numbers to six digits, or `.parquet`.
          top: tags per row, fewer if the row lacks fewer.
          column: the column of tags; None reads the file as training read its own.
          draws: draws from the prior; None takes 32,768, fewer for a vocabulary above 256 tags.
          seed: seed of the draws.

        Raises:
          InputError: the file can't be read, has no such column or no known tag, or an argument is
            wrong; nothing is written.
        """
        return row_files.complete_file(
            self._networks(),
            self.members()[0].taxonomy,
            user_path(source),
            self._checked_table(source, output),
            table=self.members()[0].table_fields(column),
            top=top,
            draws=draws,
            seed=seed,
        )

    def likelihood_file(
        self,
        source: str | Path,
        output: str | Path,
        *,
        num_importance_samples: int = 100,
        column: str | None = None,
        seed: int = 0,
    ) -> row_files.FileRows:
        """Writes the log-likelihood of every row of a file, nats, in bounded memory.

        The table has the columns `row` (position in the file, from 0), `known_tags` (their number),
        `log_likelihood` (as in `log_likelihood`), `log_likelihood_nonempty` (given that the row has
        a tag), `standard_error` and `effective_draws`. Arguments are those of `complete_file` and
        `log_likelihood`.
        """
        return row_files.likelihood_file(
            self._networks(),
            self.members()[0].taxonomy,
            user_path(source),
            self._checked_table(source, output),
            table=self.members()[0].table_fields(column),
            num_importance_samples=num_importance_samples,
            seed=seed,
        )

    def _checked_table(self, source: str | Path, output: str | Path) -> Path:
        """Returns the path of a table that can be written without harm to what is read."""
        path = user_path(output)
        check_suffix(path)
        check_outputs(
            {"output": path}, [user_path(source), *(run.folder for run in self.members())]
        )
        return path
