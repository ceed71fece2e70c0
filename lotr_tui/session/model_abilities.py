"""Abilities of models by others that the session uses: a chat template, a limited context, and how fast they are."""

from typing import Protocol, runtime_checkable

import numpy as np

from engine.errors import InvalidInputError
from engine.generation.prompt import DecoderState
from engine.models.base import LanguageModel, LogProbs, ModelState
from engine.models.pretrained.chat import ChatTemplate

NO_LOG_PROBS: LogProbs = np.empty(0, np.float32)
"""Log-probabilities of a state whose own were evicted, or that has read nothing; reading a token computes new ones."""


@runtime_checkable
class ChatModel(Protocol):
    """A model that may have a chat template."""

    chat: ChatTemplate | None
    """Form of a conversation; None if the model has no chat template."""

    def start_chat(self) -> ModelState:
        """Return the state from which the ids of `ChatTemplate.encode` are read."""


@runtime_checkable
class ContextModel(Protocol):
    """A model with a limited context, out of which the beginning of a long text slides."""

    context_size: int
    """Maximum number of positions."""

    def has_slid(self, state: ModelState) -> bool:
        """Return True if the start of the text has left the context."""


@runtime_checkable
class SharedMemoryModel(Protocol):
    """A model whose states share large memory, such as the keys and values of a text."""

    def state_memory(self, state: ModelState) -> tuple[int, int]:
        """Return the identity of the memory that `state` shares with others, and its size in bytes."""


def is_slow(model: LanguageModel) -> bool:
    """Return True if reading a token may delay the keyboard, so that screens must call the model in a thread."""
    return bool(getattr(model, "is_slow", False))


def find_chat_template(model: LanguageModel) -> ChatTemplate | None:
    """Return the chat template of a model; None if it has none."""
    return model.chat if isinstance(model, ChatModel) else None


def chat_start(model: LanguageModel) -> DecoderState:
    """Return the state before the ids of a chat template, which has no log-probabilities.

    Raises:
        InvalidInputError: If the model has no chat template.
    """
    if not isinstance(model, ChatModel) or model.chat is None:
        raise InvalidInputError("this model has no chat template; F6 continues a text instead")
    return DecoderState(NO_LOG_PROBS, model.start_chat())


def has_log_probs(state: DecoderState) -> bool:
    """Return True if a state has the distribution of the next token, and False if it can only be read on from."""
    return len(state.log_probs) > 0


def has_slid(model: LanguageModel, state: DecoderState) -> bool:
    """Return True if the beginning of the text has left the context of the model."""
    return isinstance(model, ContextModel) and model.has_slid(state.model_state)
