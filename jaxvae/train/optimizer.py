"""The optimizer: gradient clipping, weight decay and Adam, by a learning-rate schedule."""

import jax
import jax.numpy as jnp
import optax

from jaxvae.train.plan.hyperparams import Hyperparams


def learning_rate_schedule(hyperparams: Hyperparams, step: jax.Array) -> jax.Array:
    """The learning rate of a step: linear warm-up, then a cosine to the final fraction.

    optax's schedules need their lengths at trace time; these are traced (see `Hyperparams`).
    """
    steps_taken = step.astype(jnp.float32)
    lengths, final = hyperparams.lengths, hyperparams.lr_scheduler.final_fraction
    warmup = jnp.minimum(1.0, (steps_taken + 1.0) / jnp.maximum(lengths.warmup, 1.0))
    progress = jnp.clip((steps_taken - lengths.warmup) / lengths.decay, 0.0, 1.0)
    cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return hyperparams.optimizer.lr * warmup * (final + (1.0 - final) * cosine)


def make_optimizer(
    hyperparams: Hyperparams, step: jax.Array, norm: jax.Array, decoupled: bool
) -> optax.GradientTransformation:
    """Chains clipping, coupled L2 and Adam: torch's Adam(weight_decay) after clipping.

    Decoupled decay comes after Adam and changes kernels alone (Loshchilov & Hutter 2019). The
    global norm is an argument, since the test for finiteness needs it too: optax's own clipping
    would read every gradient once more.
    """
    clip, numbers = hyperparams.trainer.gradient_clip_val, hyperparams.optimizer
    clipped = jnp.where(norm > clip, clip / norm, 1.0)
    adam = optax.scale_by_adam(*numbers.betas)
    if decoupled:
        middle = (adam, optax.add_decayed_weights(numbers.weight_decay, mask=_kernel_mask))
    else:
        middle = (optax.add_decayed_weights(numbers.weight_decay), adam)
    return optax.chain(
        optax.scale(clipped),
        *middle,
        optax.scale_by_learning_rate(learning_rate_schedule(hyperparams, step)),
    )


def _kernel_mask(params: dict) -> dict:
    return {layer: {name: name == "kernel" for name in arrays} for layer, arrays in params.items()}


def global_norm(gradients: dict) -> jax.Array:
    """Returns the Euclidean norm of all gradients together."""
    with jax.numpy_dtype_promotion("standard"):
        return optax.tree.norm(gradients)
