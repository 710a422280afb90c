"""A run's config as it was asked for, and as it is trained, with what follows the data."""

import functools
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvae.config import schema
from jaxvae.data.dataset import Dataset
from jaxvae.storage import run_dir
from jaxvae.train.plan import hyperparams, recipe
from jaxvae.train.plan.budget import LONGER, Budget
from jaxvae.train.plan.progress import RunPlan


class RunConfig:
    """Holds a run's config, and fills in what follows the data once the rows are read.

    Attributes:
      asked: every field, as given; what follows the data is 0 or -1.
      plain: the same, as nested dictionaries of what JSON has.
      fields: the same, by dotted names.
      filled: the config to train with.
      resolved: values of the fields that follow the data, and, where minutes limit training, the
        number of epochs once it is settled.
    """

    def __init__(self, config: ConfigDict):
        self.asked = config
        self.plain = json.loads(config.to_json())
        self.fields = dict(schema.flatten(self.plain))
        self.filled = config
        self.resolved: dict[str, Any] = {}

    def fill_in(self, dataset: Dataset, folder: Path, *, start: dict[str, Any] | None) -> None:
        """Fills in the fields that follow the data, as the folder's run did if it has begun.

        Args:
          dataset: the rows.
          folder: the run's folder.
          start: sizes of the model that training starts from, if there is one.

        Raises:
          InputError: the values that the folder's run resolved are damaged.
        """
        values = recipe.resolve(self.asked, functools.partial(recipe.measure, dataset), start=start)
        saved = recipe.recorded(self.asked, folder)
        self.resolved = values | saved
        if self.asked.trainer.max_minutes and "trainer.max_epochs" not in saved:
            self.resolved.pop("trainer.max_epochs", None)  # until it is settled
        if self.has_unsettled_length and "trainer.max_epochs" in values:
            values["trainer.max_epochs"] *= LONGER
        self.filled = recipe.fill_in(self.asked, values | saved)

    @property
    def has_unsettled_length(self) -> bool:
        """True while minutes are given that have not been turned into epochs."""
        return bool(self.asked.trainer.max_minutes) and "trainer.max_epochs" not in self.resolved

    def budget(self, *, steps: int, growth: int, folder: Path | None) -> Budget | None:
        """Returns what settles the run's length; None if that is known.

        Args:
          steps: optimizer steps of an epoch.
          growth: the batch size as a multiple of `data.batch_size`.
          folder: where the settled length is recorded; None in a process that writes nothing.
        """
        if not self.has_unsettled_length:
            return None

        def replan(epochs: int) -> tuple[hyperparams.Hyperparams, RunPlan]:
            self.filled = recipe.fill_in(self.filled, {"trainer.max_epochs": epochs})
            numbers = hyperparams.hyperparams_from_config(self.filled, steps=steps, growth=growth)
            return numbers, hyperparams.run_plan_from_config(self.filled, steps=steps)

        def record(epochs: int) -> None:
            if folder is not None:
                self.resolved["trainer.max_epochs"] = epochs
                run_dir.write_resolved(folder, self.resolved)

        return Budget(60.0 * self.asked.trainer.max_minutes, replan=replan, record=record)
