"""Loading of models by others, with checks before anything large is read. Pickles and remote code are never loaded."""

from collections.abc import Callable
from dataclasses import dataclass

from engine.models.pretrained.model import PretrainedModel


@dataclass(frozen=True)
class LoadingProgress:
    """One step of loading a model."""

    text: str
    """The step in words, such as "reading the weights"."""
    memory_bytes: int | None = None
    """Memory in bytes that the model needs; None before it is known."""


def load_pretrained(name: str, on_progress: Callable[[LoadingProgress], None] | None = None) -> PretrainedModel:
    """Load the model that `name` names (see `is_pretrained_name`), and report each step to `on_progress`.

    Loading takes seconds, so use a thread. `on_progress` is called in the same thread.

    Raises:
        InvalidInputError: If the model cannot be loaded: one line that names the model and the remedy.
    """
    raise NotImplementedError
