"""Texts that a slow model reads in a thread: what is read again, what is kept, and how reading is cancelled."""

import numpy as np
import pytest

from engine.data.tokenizers.base import EOS_ID
from engine.generation.prompt import prefill, prefill_prompt
from lotr_tui.session.conversation.generation import ReplyContext
from lotr_tui.session.conversation.read_text import UnreadText
from lotr_tui.session.text_reader import CHUNK_TOKENS, MAX_STATES, TextReader
from lotr_tui.session.word_completion import complete_slowly
from tests.support.slow_models import FakeSlowModel

TEXT = "Bilbo Baggins is a very old friend of mine, and I think he knows it. Where is the wiz"


@pytest.fixture
def model() -> FakeSlowModel:
    return FakeSlowModel()


def unread(model: FakeSlowModel, text: str, *, is_chat: bool = False, reopens: bool = False) -> UnreadText:
    return UnreadText(model, model.tokenizer.encode(text).tolist(), None, 0, is_chat, reopens, True)


@pytest.mark.parametrize("text", ["", "B", TEXT, f"{TEXT} ", f"{TEXT}\n"])
def test_state_is_the_one_that_a_reply_continues_from(model: FakeSlowModel, text: str) -> None:
    item = unread(model, text, reopens=True)
    state = TextReader().read(item)
    expected = prefill_prompt(model, item.ids)
    assert state is not None
    assert np.allclose(state.log_probs, expected.log_probs, atol=1e-5)
    assert state.num_reread_tokens == expected.num_reread_tokens
    assert state.num_reread_characters == expected.num_reread_characters


def test_text_of_a_chat_template_begins_without_eos(model: FakeSlowModel) -> None:
    item = unread(model, TEXT, is_chat=True)
    state = TextReader().read(item)
    log_probs, expected = model.advance_tokens(model.start_chat(), item.ids)
    assert state is not None
    assert np.allclose(state.log_probs, log_probs, atol=1e-5)
    assert state.model_state.num_read == expected.num_read == len(item.ids)


def test_only_what_follows_the_common_beginning_is_read(model: FakeSlowModel) -> None:
    reader = TextReader()
    for length in range(20, len(TEXT)):  # as it is typed
        reader.read(unread(model, TEXT[:length], reopens=True))
    num_tokens = len(unread(model, TEXT).ids)
    assert model.num_read < 3 * num_tokens
    model.num_read = 0
    reader.read(unread(model, TEXT, reopens=True))
    reader.read(unread(model, TEXT, reopens=True))
    assert model.num_read <= 3
    reader.read(unread(model, f"X{TEXT}"))
    assert model.num_read > num_tokens


def test_long_text_is_read_in_few_passes_and_keeps_few_large_states(model: FakeSlowModel) -> None:
    reader = TextReader()
    item = unread(model, TEXT * 40)
    reader.read(item)
    assert model.num_passes <= len(item.ids) // CHUNK_TOKENS + 2
    assert reader.latest is not None
    assert len(reader.latest.states) <= MAX_STATES
    assert sum(len(state.log_probs) > 0 for state in reader.latest.states.values()) == 1


def test_cancelled_text_is_continued_where_it_was_left(model: FakeSlowModel) -> None:
    reader = TextReader()
    item = unread(model, TEXT * 10)
    assert reader.read(item, lambda: model.num_passes >= 3) is None
    assert model.num_read < len(item.ids)
    state = reader.read(item)
    assert model.num_read <= len(item.ids) + 1  # with <eos>
    assert state is not None
    assert np.allclose(state.log_probs, prefill(model, item.ids).log_probs, atol=1e-5)


@pytest.mark.parametrize("is_chat", [False, True])
def test_reply_to_a_text_that_was_read_starts_there(model: FakeSlowModel, is_chat: bool) -> None:
    reader = TextReader()
    item = unread(model, TEXT, is_chat=is_chat, reopens=not is_chat)
    reader.read(item)
    assert reader.latest is not None
    context = ReplyContext(None, list(item.ids), list(item.ids))
    shorter = reader.latest.shorten(context, model, is_chat=is_chat)
    assert len(shorter.unread_ids) == (0 if is_chat else 2)  # the last word may be left to the next token
    assert shorter.state is not None
    read = prefill if is_chat else prefill_prompt
    state = read(model, shorter.unread_ids, shorter.state)
    expected = reader.read(item)
    assert expected is not None
    assert np.allclose(state.log_probs, expected.log_probs, atol=1e-5)
    assert state.num_reread_tokens == expected.num_reread_tokens
    assert reader.latest.shorten(context, model, is_chat=not is_chat) is context
    assert reader.latest.shorten(context, FakeSlowModel(), is_chat=is_chat) is context
    other = ReplyContext(None, [5, EOS_ID], [5, EOS_ID])
    assert reader.latest.shorten(other, model, is_chat=is_chat).unread_ids == [5, EOS_ID]


def test_word_is_completed_only_inside_of_a_word(model: FakeSlowModel) -> None:
    model.prefer(" wizard", 20)
    reader = TextReader()
    assert complete_slowly(reader, model, "the wiz", lambda: False) == "ard"
    assert complete_slowly(reader, model, "the wizard ", lambda: False) == ""
    assert complete_slowly(reader, model, "the w", lambda: False) == ""
    assert complete_slowly(reader, model, "the wiz", lambda: True) == ""
