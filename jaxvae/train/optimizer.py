"""The optimizer: gradient clipping, weight decay and Adam, by a learning-rate schedule."""

import jax
import jax.numpy as jnp
import optax

from jaxvae.train.hyperparams import Numbers


def learning_rate_at(numbers: Numbers, step: jax.Array) -> jax.Array:
    """The learning rate of a step: linear warm-up, then a cosine to the final fraction.

    optax's schedules want their lengths at trace time; these are traced (see `Numbers`).
    """
    done = step.astype(jnp.float32)
    warmup = jnp.minimum(1.0, (done + 1.0) / jnp.maximum(numbers.warmup_steps, 1.0))
    progress = jnp.clip((done - numbers.warmup_steps) / numbers.decay_steps, 0.0, 1.0)
    cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    decay = numbers.final_fraction + (1.0 - numbers.final_fraction) * cosine
    return numbers.learning_rate * warmup * decay


def _chain(
    numbers: Numbers, step: jax.Array, norm: jax.Array, decoupled: bool
) -> optax.GradientTransformation:
    """Clip, coupled L2, Adam: in this order the chain is torch's Adam(weight_decay) after clip.

    Decoupled, the decay comes after Adam and touches kernels alone (Loshchilov & Hutter 2019). The
    global norm is given, since the test for finiteness needs it too: optax's own clipping would
    read every gradient once more.
    """
    clipped = jnp.where(norm > numbers.clip_norm, numbers.clip_norm / norm, 1.0)
    adam = optax.scale_by_adam(b1=numbers.b1, b2=numbers.b2)
    if decoupled:
        middle = (adam, optax.add_decayed_weights(numbers.weight_decay, mask=_kernels))
    else:
        middle = (optax.add_decayed_weights(numbers.weight_decay), adam)
    return optax.chain(
        optax.scale(clipped),
        *middle,
        optax.scale_by_learning_rate(learning_rate_at(numbers, step)),
    )


def _kernels(params: dict) -> dict:
    return {layer: {name: name == "kernel" for name in arrays} for layer, arrays in params.items()}


def _global_norm(gradients: dict) -> jax.Array:
    with jax.numpy_dtype_promotion("standard"):
        return optax.tree.norm(gradients)
