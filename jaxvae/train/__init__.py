"""One run, from its config to a sealed run directory; `loggers` is where its metrics go."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxvae.train.trainer import CallbackFailed, Hook, TrainingFailed, train_and_evaluate

__all__ = ["CallbackFailed", "Hook", "TrainingFailed", "train_and_evaluate"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jaxvae.train import trainer

    return getattr(trainer, name)
