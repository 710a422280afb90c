"""One compiled pass over a split: losses, metrics and posterior means."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from jaxvae.evaluation import streaming_metrics
from jaxvae.models.layers import multi_hot
from jaxvae.runtime.sharding import Sharding
from jaxvae.train.objectives import ELBO, Objective
from jaxvae.train.plan.progress import steps_per_epoch
from jaxvae.train.steps import rng
from jaxvae.train.steps.forward import forward


def eval_batch_size(num_rows: int, num_tags: int) -> int:
    """Returns the rows of an evaluation's forward pass: up to 1024, with logits up to 64 MiB."""
    return min(num_rows, 1024, max(16, 2**24 // num_tags))


@functools.lru_cache(maxsize=8)
def make_eval_pass(
    graphdef: nnx.GraphDef,
    *,
    num_rows: int,
    num_tags: int,
    latent_dim: int,
    batch_size: int,
    objective: Objective = ELBO,
    sharding: Sharding | None = None,
) -> Callable:
    """Builds the compiled pass over a split: every metric, and the posterior of every row.

    The pass is cached by its arguments, so splits of equal size share a program.

    Losses use a sampled z (the noise of a row does not depend on the batch size), reconstruction
    metrics the posterior mean.

    Args:
      graphdef: the model's static graph.
      num_rows: N, rows of the split.
      num_tags: V.
      latent_dim: L.
      batch_size: rows of a forward pass; changes speed, not results.
      objective: the objective whose loss is measured, at its final weights.
      sharding: as for training.

    Returns:
      A jitted function of (params, batch_stats, weights, threshold, key, rows) to
      (SplitMetrics, mean `[N, L]`, logvar `[N, L]`); `rows` as for training.
    """
    if sharding is not None:
        batch_size = sharding.padded(batch_size)
    steps = steps_per_epoch(num_rows, batch_size)

    def eval_pass(params, batch_stats, weights, threshold, key, rows):
        model = nnx.merge(graphdef, params, batch_stats)
        cut = jnp.log(threshold) - jnp.log1p(-threshold)

        def body(total, inputs):
            row_numbers, noise = inputs
            columns = sharding.take(rows, row_numbers) if sharding else rows[row_numbers]
            mask = row_numbers < num_rows
            x = multi_hot(columns, jnp.ones(columns.shape, jnp.float32), num_tags)
            terms = forward(model, columns, objective=objective, noise=noise, mask=mask)
            bce = jnp.mean(terms.reconstruction, axis=0)
            sums = streaming_metrics.SplitMetrics(
                streaming_metrics.Losses.from_batch(
                    loss=objective.loss(terms, weights, num_rows),
                    bce=bce,
                    kld=terms.rate,
                    mask=mask,
                ),
                streaming_metrics.Reconstruction.from_batch(
                    predicted=model.decode(terms.mean) > cut, x=x > 0.5, mask=mask
                ),
                streaming_metrics.Latent.from_batch(kl=terms.kl, mean=terms.mean, mask=mask),
            )
            return total.merge(sums), (terms.mean, terms.logvar)

        padded = steps * batch_size
        # Rising row numbers; the padding points to the empty row.
        order = jnp.minimum(jnp.arange(padded, dtype=jnp.int32), num_rows)
        width = objective.num_draws * latent_dim
        noise = rng.eval_noise(key, (padded, width))
        inputs = (
            order.reshape(steps, batch_size),
            noise.reshape(steps, batch_size, width),
        )
        total, (mean, logvar) = jax.lax.scan(
            body, streaming_metrics.SplitMetrics.empty(latent_dim), inputs
        )
        mean = mean.reshape(padded, latent_dim)[:num_rows]
        outputs = total, mean, logvar.reshape(padded, latent_dim)[:num_rows]
        return sharding.whole(outputs) if sharding else outputs

    return jax.jit(eval_pass)
