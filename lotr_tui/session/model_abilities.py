"""Abilities of models that the session uses: a cast, a chat template, a limited context, and how fast they are."""

from typing import Protocol, runtime_checkable

import numpy as np

from engine.generation.best_of import NUM_ANSWERS
from engine.generation.prompt import DecoderState
from engine.models.base import LanguageModel, LogProbs, ModelState
from engine.models.dialogue import DialogueModel
from engine.models.pretrained.chat import ChatTemplate
from lotr_tui.session.settings import ReplyMode

NUM_SLOW_ANSWERS = 4
"""Answers that a slow model draws to choose from by default: the choice takes it a third of a second."""
NO_LOG_PROBS: LogProbs = np.empty(0, np.float32)
"""Log-probabilities of a state whose own were evicted, or that has read nothing; reading a token computes new ones."""


@runtime_checkable
class ChatModel(Protocol):
    """A model that may have a chat template."""

    chat: ChatTemplate | None
    """Form of a conversation; None if the model has no chat template."""


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


def find_cast(model: LanguageModel) -> tuple[str, ...]:
    """Return the speakers that a model knows, of which the last stands for all others; empty if it knows none.

    A model with a cast reads and writes a script (`engine.data.scripts`).
    """
    return model.cast if isinstance(model, DialogueModel) else ()


def reads_line_ends(model: LanguageModel) -> bool:
    """Return True if line breaks are ordinary characters for a model, and `<eos>` ends a whole text."""
    return model.tokenizer.reads_line_ends or bool(find_cast(model))


def split_dialogue(model: LanguageModel, state: ModelState) -> tuple[LanguageModel, ModelState]:
    """Return the language model inside a dialogue model with its state; another model is returned as it is."""
    return (model.model, state.model_state) if isinstance(model, DialogueModel) else (model, state)


def is_slow(model: LanguageModel) -> bool:
    """Return True if reading a token may delay the keyboard, so that screens must call the model in a thread."""
    return bool(getattr(model.model if isinstance(model, DialogueModel) else model, "is_slow", False))


def default_num_answers(model: LanguageModel) -> int:
    """Return the number of answers that a model draws for a turn by default."""
    return NUM_SLOW_ANSWERS if is_slow(model) else NUM_ANSWERS


def find_chat_template(model: LanguageModel) -> ChatTemplate | None:
    """Return the chat template of a model; None if it has none that works."""
    chat = model.chat if isinstance(model, ChatModel) else None
    return None if chat is None or chat.problem else chat


def answers_by_template(model: LanguageModel, reply_mode: ReplyMode) -> bool:
    """Return True if a model without a cast answers by its chat template in a reply mode."""
    return reply_mode == "conversation" and not find_cast(model) and find_chat_template(model) is not None


def chat_start(model: LanguageModel) -> DecoderState:
    """Return the state before the ids of a model's chat template, which has no log-probabilities."""
    return DecoderState(NO_LOG_PROBS, model.start())


def has_log_probs(state: DecoderState) -> bool:
    """Return True if a state has the distribution of the next token, and False if the model must read another token."""
    return len(state.log_probs) > 0
