"""Text of a conversation: what is shown is exactly what the model has read and generated."""

import random
from dataclasses import replace

import numpy as np
import pytest

from engine.data.tokenizers import EOS_ID, ByteTokenizer
from engine.generation.settings import SamplerSettings
from lotr_tui.session.session_file import parse_session
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.transcript import entry_blocks, token_index_at, token_span
from tests.support.app import VOCABULARY, make_decoder
from tests.support.conversations import branch_off, finish_reply, request, restored, written
from tests.support.open_models import bpe_tokenizer, character_tokenizer, open_model
from tests.support.sessions import session_bytes

# Open vocabularies

TOKENIZERS = pytest.mark.parametrize("tokenizer", [bpe_tokenizer(), character_tokenizer()], ids=["bpe", "characters"])
OPEN_PROMPTS = (
    "The wiz", "Where is the Ring?", "“We walked", "Éo", "the lamp ", "ale …", "日本 語", "a\n\nb\tc", "x\x1b[31m",
    "👩\u200d👧",
)  # fmt: skip
GREEDY = SamplerSettings(max_tokens=12, temperature=0)


def ask_greedily(conversation, model, prompt, settings=GREEDY):
    return written(conversation.say, prompt, request(settings, 1, model))


def shown_text(reply):
    return next(block.text for block in entry_blocks(reply) if block.is_reply)


def assert_ids_spell_the_text(reply):
    """Assert that the ids that the model has read and written up to each token are exactly the text so far.

    A character that is not complete, at the end of a reply, is in the ids only.
    """
    tokenizer = reply.session_model.model.tokenizer
    assert isinstance(tokenizer, ByteTokenizer)
    for end in range(len(reply.tokens) + 1):
        text = b"".join(tokenizer.token_bytes[id] for id in reply.token_ids(end)).decode(errors="replace")
        assert text.replace("�", "") == reply.full_text(end).replace("�", "")
    assert reply.token_ids()[: len(reply.context_ids)] == list(reply.context_ids)


@TOKENIZERS
@pytest.mark.parametrize("seed", range(2))
def test_ids_that_a_model_reads_and_writes_spell_the_text(conversation, tokenizer, seed):
    rng = random.Random(seed)
    model = open_model(tokenizer, seed)
    model.weights["output.bias"][EOS_ID] = -3  # lines end soon
    session_model, other = SessionModel("test", "", model), SessionModel("words", "", make_decoder())
    for number in range(20):
        replies = list(conversation.replies.values())
        reply = rng.choice(replies) if replies else None
        action = rng.choice(["continue", "reply", "branch", "more"]) if reply else "continue"
        settings = SamplerSettings(max_tokens=rng.randint(1, 20), temperature=rng.choice([0.8, 2.0]))
        if reply is None or action in ("continue", "reply"):
            previous = reply if reply is not None and reply.reply_mode == action == "reply" else None
            speaker = other if rng.random() < 0.2 else session_model
            prompt = "the lamp" if speaker is other else rng.choice(OPEN_PROMPTS)
            conversation.say(prompt, request(settings, number, speaker, action, previous))
            if rng.random() < 0.3:
                conversation.stop()  # perhaps before the first token
        elif action == "branch" and reply.tokens:
            conversation.branch(reply, rng.randrange(len(reply.tokens)), (), request(settings, number))
        else:
            conversation.continue_reply(reply, request(settings, number))
        finish_reply(conversation)
    restored = restore(list(conversation.replies.values()), session_model)
    for one, again in zip(conversation.replies.values(), restored.replies.values(), strict=True):
        assert again.full_text() == one.full_text()
        if one.session_model is session_model:
            assert_ids_spell_the_text(one)
            if not again.read_only_reason:  # as after a reply of the other model
                assert again.token_ids() == one.token_ids()
                assert again.context_ids == one.context_ids


def test_prompt_may_end_inside_a_word(conversation):
    tokenizer = bpe_tokenizer()
    model = open_model(tokenizer)
    model.weights["output.bias"][tokenizer.tokens.index(" wizard")] = 20  # also where the model reads " wi" and "z"
    reply = ask_greedily(conversation, SessionModel("test", "", model), "The wiz")
    assert (reply.tokens[0].text, reply.tokens[0].piece) == (" wizard", "ard")
    assert reply.full_text().startswith("The wizard")
    assert shown_text(reply).startswith("wizard")
    again = branch_off(conversation, reply, 0, None, GREEDY, 2)
    assert again.full_text() == reply.full_text()
    assert list(again.context_ids) == list(reply.context_ids) == [tokenizer.tokens.index("The")]
    (restored, _) = restore([reply, again], reply.session_model).replies.values()
    assert restored.token_ids() == reply.token_ids()
    assert tokenizer.decode(restored.token_ids(0)) == "The wiz"


def test_character_of_several_tokens_is_shown_once_it_is_complete(conversation):
    tokenizer = character_tokenizer()
    ids = [2 + byte - 1 for byte in "日".encode()]
    assert [tokenizer.tokens[id] for id in ids] == ["<0xE6>", "<0x97>", "<0xA5>"]
    model, one_token = SessionModel("test", "", open_model(tokenizer)), SamplerSettings(max_tokens=1)
    reply = ask_greedily(conversation, model, "The lamp", one_token)
    branch = written(conversation.branch, reply, 1, ids, request(SamplerSettings(max_tokens=1)))
    assert [token.piece for token in branch.tokens[1:4]] == ["", "", "日"]
    shown = shown_text(branch)
    start, end = token_span(branch, 3)
    assert shown[start:end] == "日"
    assert {token_span(branch, index) for index in (1, 2, 3)} == {(start, end)}
    assert token_index_at(branch, start) == 3


def test_control_characters_that_a_model_generates_do_not_reach_the_terminal(conversation):
    tokenizer = character_tokenizer()
    session_model = SessionModel("test", "", open_model(tokenizer))
    reply = ask_greedily(conversation, session_model, "The lamp", SamplerSettings(max_tokens=1))
    for text, shown in (("\x1b[2J", "�[2J"), ("\u202eab", "�ab"), ("\t\r", "  "), ("\x00", "�")):
        branch = written(
            conversation.branch, reply, 1, tokenizer.encode(text).tolist(), request(SamplerSettings(max_tokens=1))
        )
        assert text in branch.full_text()
        assert shown in shown_text(branch)


def restore(replies, session_model):
    """Return a conversation with replies as they are read from a file."""
    return restored(parse_session("name", session_bytes(*replies)), session_model)


@TOKENIZERS
def test_other_vocabulary_shows_and_answers_a_saved_reply_but_cannot_branch(conversation, tokenizer):
    open_session_model = SessionModel("open", "", open_model(tokenizer))
    word_model = SessionModel("w", "", make_decoder())
    saved = written(conversation.say, "the lamp", request(GREEDY, 1, open_session_model, "reply"))
    (by_words,) = restore([saved], word_model).replies.values()
    assert by_words.text() == conversation.current_reply.text()
    assert "splits text into other tokens" in by_words.read_only_reason
    words = VOCABULARY.encode(by_words.text().partition("\n")[2]).tolist()
    assert by_words.token_ids() == [*VOCABULARY.encode("the lamp").tolist(), EOS_ID, *words]
    edited = replace(saved, tokens=[token._replace(id=token.id + 10**6) for token in saved.tokens])
    changed = restore([edited], open_session_model)
    (reply,) = changed.replies.values()
    assert "splits text into other tokens" in reply.read_only_reason
    answer = changed.say("frodo", request(GREEDY, 1, open_session_model, "reply", reply))
    finish_reply(changed)
    assert tokenizer.decode(answer.context_ids) == f"{reply.full_text()}\nfrodo\n"
    assert np.all(np.array(reply.token_ids()) < len(tokenizer))
