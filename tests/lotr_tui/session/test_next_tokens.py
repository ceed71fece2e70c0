"""Preview of the next token: the text it reads, the state after it, and what it calls the end of the text."""

import numpy as np
import pytest

from engine.data.tokenizers.base import Tokenizer
from engine.generation.prompt import prefill, prefill_prompt
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.next_tokens import NextTokenContext, NextTokenPreview
from lotr_tui.session.session_model import SessionModel
from tests.support.app import VOCABULARY, make_decoder
from tests.support.open_models import bpe_tokenizer, character_tokenizer, open_model

TOKENIZERS = pytest.mark.parametrize("tokenizer", [bpe_tokenizer(), character_tokenizer()], ids=["bpe", "characters"])


@TOKENIZERS
def test_growing_draft_has_the_distribution_of_its_reply(tokenizer: Tokenizer) -> None:
    """As `prefill_prompt` reads it: the next token may begin with the last characters of the draft."""
    session_model = SessionModel("open", "", open_model(tokenizer))
    preview, conversation, text = NextTokenPreview(session_model), Conversation(0), "Where is the wizard"
    for end in range(1, len(text) + 1):
        draft = text[:end]
        context = preview.read(session_model, conversation, draft, "continue", None)
        expected = prefill_prompt(session_model.model, tokenizer.encode(draft).tolist())
        assert context.state.num_reread_tokens == expected.num_reread_tokens, draft
        assert np.allclose(context.state.log_probs, expected.log_probs, atol=1e-4), draft
        assert tokenizer.decode(context.ids) == draft


@TOKENIZERS
@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("the wizard", "wizard"), ("the wizard ", "wizard"), ("the wiz", "wiz"), ("Ring?", "?"), ("“No", "No"),
        ("", ""), (" ", ""),
    ],
)  # fmt: skip
def test_end_of_the_text_is_named_by_its_last_word(tokenizer: Tokenizer, text: str, word: str) -> None:
    model = open_model(tokenizer)
    ids = tokenizer.encode(text).tolist()
    context = NextTokenContext(model, prefill(model, ids), ids, is_first_token=True)
    assert context.last_text("word") == word
    assert context.last_text("token") == (tokenizer.tokens[ids[-1]] if ids else "")


def test_end_of_a_text_of_words_is_its_last_token() -> None:
    ids = VOCABULARY.encode("bilbo is").tolist()
    model = make_decoder()
    context = NextTokenContext(model, prefill(model, ids), ids, is_first_token=True)
    assert context.last_text("word") == context.last_text("token") == "is"


def test_same_text_is_recognized() -> None:
    session_model = SessionModel("open", "", open_model(bpe_tokenizer()))
    preview, conversation = NextTokenPreview(session_model), Conversation(0)
    first, again, longer = (
        preview.read(session_model, conversation, draft, "continue", None) for draft in ("the", "the", "the wizard")
    )
    other = SessionModel("other", "", open_model(bpe_tokenizer(), seed=1))
    assert first.is_same_text(again)
    assert not first.is_same_text(longer)
    assert not first.is_same_text(NextTokenPreview(other).read(other, conversation, "the", "continue", None))


@pytest.mark.parametrize("draft", ["\ud800", "a\ud800b", "\0", "\t\n", "☺"])
@TOKENIZERS
def test_any_draft_can_be_read(tokenizer: Tokenizer, draft: str) -> None:
    session_model = SessionModel("open", "", open_model(tokenizer))
    context = NextTokenPreview(session_model).read(session_model, Conversation(0), draft, "continue", None)
    assert np.exp(context.state.log_probs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-4)
