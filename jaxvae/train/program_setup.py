"""Builds the compiled programs of a config and its data, and places the rows on the devices."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxvae.config import monitor
from jaxvae.data.dataset import Dataset
from jaxvae.data.splits import subsample
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.evaluation import split_metrics
from jaxvae.inference import likelihood
from jaxvae.models.layer_names import resolve_hidden_dims
from jaxvae.runtime import devices
from jaxvae.runtime.row_stream import RowStream
from jaxvae.runtime.sharding import Sharding
from jaxvae.train import loop
from jaxvae.train.model_setup import ModelSetup
from jaxvae.train.plan import hyperparams
from jaxvae.train.steps import eval_epoch, rng, train_epoch
from jaxvae.train.train_state import eval_params


def build_train_epoch(
    config: ConfigDict,
    model: ModelSetup,
    *,
    num_rows: int,
    num_tags: int,
    batch_size: int,
    sharding: Sharding | None = None,
) -> Callable:
    """Builds the training epoch of a config: see `make_train_epoch`; `num_rows` is the split's."""
    hidden = sum(resolve_hidden_dims(config.model.hidden_dim, config.model.hidden_dims))
    return train_epoch.make_train_epoch(
        model.graphdef,
        num_rows=config.data.rows_per_epoch or num_rows,
        split_rows=num_rows,
        num_tags=num_tags,
        latent_dim=config.model.latent_dim,
        batch_size=batch_size,
        # Streamed rows are already shuffled.
        shuffle=config.data.shuffle and not config.data.rows_per_epoch,
        accumulate=config.trainer.accumulate_grad_batches,
        objective=model.objective,
        dropout_per_row=config.model.dropout_per_row,
        hidden_dropout=hidden if config.model.hidden_dropout_p else 0,
        decoupled=config.trainer.optimizer.decoupled_weight_decay,
        sharding=sharding,
    )


def build_eval_epoch(
    config: ConfigDict,
    model: ModelSetup,
    *,
    num_rows: int,
    num_tags: int,
    sharding: Sharding | None = None,
) -> Callable:
    """Builds the pass over the validation split: see `eval_epoch.make_eval_pass`."""
    return eval_epoch.make_eval_pass(
        model.graphdef,
        num_rows=num_rows,
        num_tags=num_tags,
        latent_dim=config.model.latent_dim,
        batch_size=eval_epoch.eval_batch_size(num_rows, num_tags),
        objective=model.objective,
        sharding=sharding,
    )


def build_likelihood_bound(
    config: ConfigDict, graphdef: nnx.GraphDef, *, val_rows: np.ndarray, num_tags: int
) -> tuple[Callable | None, np.ndarray]:
    """Builds the likelihood bound of a config whose monitor it is: see `make_likelihood_bound`.

    Args:
      config: every field of `configs/base.py`.
      graphdef: the model's static graph.
      val_rows: `[N, K]`, rows of the validation split.
      num_tags: V.

    Returns:
      (the compiled bound or None, the rows it is called with, spread evenly over the split).
    """
    positions = np.linspace(0, len(val_rows) - 1, min(len(val_rows), monitor.MAX_ROWS)).astype(int)
    rows = val_rows[positions]
    if config.trainer.monitor != "val/nll_iw":
        return None, rows
    bound = likelihood.make_likelihood_bound(
        graphdef,
        num_rows=len(rows),
        num_tags=num_tags,
        latent_dim=config.model.latent_dim,
        num_draws=monitor.NUM_DRAWS,
        draw_noise=rng.bound_noise,
    )
    return bound, rows


def check_memory(model: ModelSetup, mesh: Mesh, *, at_once: int = 1) -> None:
    """Checks that what a model is trained with fits in the memory of a device.

    That are its state, the best parameters so far, and gradients; activations come on top. Where a
    system grants more memory than it has, a process that uses it would be killed.

    Args:
      model: the model.
      mesh: the devices.
      at_once: most models that each device holds.

    Raises:
      InputError: they do not fit.
    """
    state, layout = model.state_shapes, Sharding(mesh)
    arrays = (state.params, state.batch_stats, state.opt_state, state.average, eval_params(state))
    needed = at_once * layout.bytes_per_device(arrays) + layout.bytes_per_device(state.params)
    memory = devices.device_memory_bytes(mesh)
    if memory and needed > memory:
        what, other = "this model", ""
        if at_once > 1:
            what, other = f"{at_once} such models at once", ", or fewer --at_once"
        raise InputError(
            f"training {what} needs {needed:,} of a device's {memory:,} bytes of memory; take a "
            f"smaller --config.model.hidden_dim or latent_dim{other}"
        )


def build_train_context(
    config: ConfigDict,
    model: ModelSetup,
    taxonomy: Taxonomy,
    dataset: Dataset,
    sharding: Sharding,
) -> loop.TrainContext:
    """Builds the compiled programs of a run, and places its rows on the mesh."""
    growth = sharding.mesh.shape["data"] if config.trainer.scale_batch_with_devices else 1
    train, val = dataset.splits["train"], dataset.splits["val"]
    num_tags = taxonomy.num_tags
    steps = hyperparams.steps_per_epoch_from_config(config, num_rows=len(train), growth=growth)
    bound, bound_rows = build_likelihood_bound(
        config, model.graphdef, val_rows=dataset.rows[val], num_tags=num_tags
    )
    labelled = subsample(len(val), split_metrics.SILHOUETTE_ROWS)
    # A program for one device needs no sharding.
    several = sharding if sharding.mesh.size > 1 else None
    return loop.TrainContext(
        train_epoch=build_train_epoch(
            config,
            model,
            num_rows=len(train),
            num_tags=num_tags,
            batch_size=config.data.batch_size * growth,
            sharding=several,
        ),
        validate=build_eval_epoch(
            config, model, num_rows=len(val), num_tags=num_tags, sharding=several
        ),
        hyperparams=hyperparams.hyperparams_from_config(config, steps=steps, growth=growth),
        rows_of_epoch=_make_epoch_rows(config, dataset, sharding, num_tags),
        val_rows=sharding.place_rows(dataset.rows, val, num_tags=num_tags),
        labelled=labelled,
        labelled_rows=dataset.rows[val[labelled]],
        steps=steps,
        growth=growth,
        # With a single process, arrays can be saved where they are; no gather is needed.
        gather=sharding.gather if not sharding.is_here else lambda tree: tree,
        likelihood_bound=bound and functools.partial(bound, rows=bound_rows),
    )


def _make_epoch_rows(
    config: ConfigDict, dataset: Dataset, sharding: Sharding, num_tags: int
) -> Callable[[int], jax.Array]:
    """Returns a function of an epoch to its training rows: all, or the epoch's share of a stream.

    Raises:
      InputError: the rows do not fit in the memory of a device.
    """
    positions = dataset.splits["train"]
    shares = sharding.mesh.shape["data"]
    needed, memory = (
        len(positions) * dataset.rows[:1].nbytes // shares,
        devices.device_memory_bytes(sharding.mesh),
    )
    if not config.data.rows_per_epoch and memory and 2 * needed > memory:
        raise InputError(
            f"{len(positions):,} training rows need {needed:,} of a device's {memory:,} bytes of "
            f"memory; set --config.data.rows_per_epoch, such as {len(positions) // 100}, to bring "
            f"them there an epoch at a time"
        )
    if config.data.rows_per_epoch:
        return RowStream(
            positions,
            per_epoch=config.data.rows_per_epoch,
            shuffle=config.data.shuffle,
            seed=config.seed,
            place=lambda share: sharding.place_rows(dataset.rows, share, num_tags=num_tags),
        )
    resident = sharding.place_rows(dataset.rows, positions, num_tags=num_tags)
    return lambda epoch: resident
