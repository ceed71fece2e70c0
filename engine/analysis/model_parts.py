"""The models inside a model."""

from collections.abc import Iterator

from engine.models.base import LanguageModel
from engine.models.cache import NeuralCache
from engine.models.dialogue import DialogueModel
from engine.models.mixture import Mixture


def iter_parts(model: LanguageModel) -> Iterator[LanguageModel]:
    """Yield `model`, and then the models that it consists of, the models inside them included.

    Dynamic evaluation contains the LSTM with its weights after training.
    """
    yield model
    if isinstance(model, (NeuralCache, DialogueModel)):
        yield from iter_parts(model.model)
    elif isinstance(model, Mixture):
        for part in model.models:
            yield from iter_parts(part)
    elif (base_model := getattr(model, "base_model", None)) is not None:
        # Not isinstance: importing DynamicEvaluation would import torch.
        yield from iter_parts(base_model)
