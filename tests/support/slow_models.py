"""A fake of a model by others: slow where a test wants it to be, with a chat template and a limited context."""

import threading
from copy import copy
from dataclasses import dataclass

import numpy as np

from engine.data.tokenizers import EOS_ID
from engine.errors import InvalidInputError
from engine.models.base import ModelState
from engine.models.pretrained.chat import ChatMessage, ChatTemplate
from lotr_tui.session.session_model import SessionModel
from tests.support.open_models import bpe_tokenizer, open_model

REFUSED_TEXT = "refuse this"  # text of a message that the fake template does not accept


def line_tokenizer():
    """Return a small tokenizer of byte pairs whose line breaks are ordinary characters, as in models by others."""
    tokenizer = copy(bpe_tokenizer())
    tokenizer.reads_line_ends = True
    return tokenizer


class FakeChatTemplate(ChatTemplate):
    """Template that writes `role: text`, and `<eos>` after each message; the role has tokens of its own."""

    def __init__(self, tokenizer):
        self._fake_tokenizer = tokenizer
        self.problem = ""
        self.default_system_prompt = "You help."
        self.encoded: list[tuple[ChatMessage, ...]] = []  # messages of each call

    def encode(self, messages):
        self.encoded.append(tuple(messages))
        if any(message.text == REFUSED_TEXT for message in messages):
            raise InvalidInputError("the model's chat template cannot write this conversation")
        ids: list[int] = []
        if messages[0].role != "system":
            messages = [ChatMessage("system", self.default_system_prompt), *messages]
        for message in messages:
            ids += [*self._encode(f"{message.role}: "), *self._encode(message.text), EOS_ID]
        return (*ids, *self._encode("assistant: "))

    def _encode(self, text):
        ids: list[int] = self._fake_tokenizer.encode(text).tolist()
        return ids


@dataclass(frozen=True)
class FakeState:
    state: ModelState
    num_read: int


class FakeSlowModel:
    """A small LSTM that behaves like a model by others. After `hold`, it computes nothing until `release`."""

    is_slow = True

    def __init__(self, *, has_chat=True, context_size=10000):
        self.tokenizer = line_tokenizer()
        self.chat = FakeChatTemplate(self.tokenizer) if has_chat else None
        self.context_size = context_size
        self.threads: set[str] = set()  # names of the threads that the model has computed in
        self.num_read = 0  # number of tokens that the model has read
        self.num_passes = 0  # number of calls in which the model has read tokens
        self.holds_at_pass: int | None = None  # number of the call at which the model holds by itself
        self._model = open_model(self.tokenizer)
        self._released = threading.Event()
        self._released.set()

    def hold(self):
        self._released.clear()

    def release(self):
        self._released.set()

    def prefer(self, text, bias):
        self._model.weights["output.bias"][np.unique(self.tokenizer.encode(text))] += bias

    def start(self):
        return FakeState(self._model.start(), 0)

    def advance(self, state, token):
        rows, state = self.predict_tokens(state, [token])
        return rows[0], state

    def predict_tokens(self, state, tokens, *, last_only=False):
        if self.num_passes == self.holds_at_pass:
            self.hold()
        assert self._released.wait(10), "the model was never released"
        self.threads.add(threading.current_thread().name)
        self.num_read += len(tokens)
        self.num_passes += 1
        rows, inner = self._model.predict_tokens(state.state, tokens, last_only=last_only)
        return rows, FakeState(inner, state.num_read + len(tokens))

    def advance_batch(self, states, tokens):
        return [self.advance(state, token) for state, token in zip(states, tokens, strict=True)]

    def has_slid(self, state):
        return state.num_read > self.context_size


def slow_session_model(model, name="Slowpoke-1B-Instruct"):
    return SessionModel(name, "Llama · 2 layers", model, corpus="", source=f"gguf:/models/{name}.gguf")
