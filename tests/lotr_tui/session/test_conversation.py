"""Conversations without a screen: generation, branches, context, saving and memory limits."""

import pytest

from engine.data.tokenizers import EOS_ID
from engine.generation.generate import TextInProgress, TokenEvent, generate, prefill
from engine.generation.settings import SamplerSettings
from lotr_tui.session import read_text
from lotr_tui.session.read_text import NextTokenContext
from lotr_tui.session.session_file import load_session
from lotr_tui.session.session_model import SessionModel
from tests.support.app import make_decoder
from tests.support.conversations import SETTINGS, branch_off, ids_of, only_session, request, written


class CountingModel:
    """Model that counts the tokens it reads, and that seldom or never predicts `<eos>`."""

    def __init__(self):
        self.decoder, self.num_read, self.predicts_eos = make_decoder(), 0, False
        self.tokenizer, self.start = self.decoder.tokenizer, self.decoder.start

    def advance(self, state, token):
        self.num_read += 1
        log_probs, state = self.decoder.advance(state, token)
        if not self.predicts_eos:
            log_probs[EOS_ID] = -1e9
        return log_probs, state


@pytest.fixture
def model():
    return CountingModel()


@pytest.fixture
def session_model(model):
    return SessionModel("test", "", model)


def sampled_ids(model, ids, settings, seed, *, is_first_token=True):
    """Ids of the tokens that follow `ids`, if the whole text is read from the beginning."""
    history = [id for id in ids if id != EOS_ID]
    text = TextInProgress(model, history, settings, seed, prefill(model, ids), is_first_token=is_first_token)
    return [event.id for event in generate(text) if isinstance(event, TokenEvent)]


def test_branch_after_500_tokens_reads_only_the_chosen_token(conversation, model, ask):
    reply = ask("bilbo is", settings=SamplerSettings(max_tokens=500))
    assert len(reply.tokens) == 500
    chosen = next(id for id in ids_of("tower pony frodo") if id != reply.tokens[480].id)
    model.num_read = 0
    settings = SamplerSettings(max_tokens=3)
    branch = branch_off(conversation, reply, 480, chosen, settings, 7)
    assert model.num_read == 1 + 3
    ids = [*ids_of("bilbo is"), *(token.id for token in reply.tokens[:480]), chosen]
    assert branch.token_ids() == [*ids, *sampled_ids(model, ids, settings, 7, is_first_token=False)]


def test_context_of_an_answer_is_the_whole_conversation(model, ask):
    first = ask("bilbo is", "reply")
    model.num_read = 0
    second = ask("where frodo", "reply", seed=2, previous=first)
    assert model.num_read == 1 + 2 + 1 + 12  # <eos>, the prompt, <eos>, the generated tokens
    context = [
        *ids_of("bilbo is"), EOS_ID, *(token.id for token in first.tokens), EOS_ID, *ids_of("where frodo"), EOS_ID
    ]  # fmt: skip
    assert list(second.context_ids) == context
    assert [token.id for token in second.tokens] == sampled_ids(model, context, SETTINGS, 2)


def test_continuation_replaces_the_reply_and_reads_no_token_again(conversation, model, ask):
    reply = ask("bilbo is")
    model.num_read = 0
    continuation = branch_off(conversation, reply, 12, None, SETTINGS, 2)
    assert model.num_read == 12
    assert continuation.tokens[:12] == reply.tokens
    assert len(continuation.tokens) == 24
    assert continuation.turn.replies == [continuation]
    assert (continuation.parent, continuation.parent_offset) == (reply, 12)


def end_line(model, ask):
    """Return a reply that the model has ended by `<eos>`."""
    model.predicts_eos = True
    settings = SamplerSettings(max_tokens=200, temperature=2)
    return next(reply for seed in range(50) if (reply := ask("bilbo is", seed=seed, settings=settings)).has_ended_line)


def test_keeping_going_after_the_end_of_a_line_writes_the_next_line(conversation, model, ask, tmp_path):
    reply = end_line(model, ask)
    settings = SamplerSettings(max_tokens=5)
    model.num_read = 0
    more = written(conversation.continue_reply, reply, request(settings, 3))
    next_line = sampled_ids(model, [*reply.token_ids(), EOS_ID], settings, 3)
    assert next_line
    assert more.token_ids() == [*reply.token_ids(), EOS_ID, *next_line]
    assert more.full_text() == f"{reply.full_text()}\n{model.tokenizer.decode(next_line)}"
    assert more.turn.replies == [more]
    saved = load_session(only_session(tmp_path)).replies[more.id]
    assert "".join(token.piece for token in saved.own_tokens) == f"\n{model.tokenizer.decode(next_line)}"


def test_branch_is_the_same_where_decoder_states_were_evicted(conversation, model, monkeypatch, ask):
    monkeypatch.setattr(read_text, "MAX_STATES", 13)
    reply = ask("bilbo is")
    ask("the lamp")
    assert conversation.reader.find(NextTokenContext.of_reply(reply, 5)) is None
    branch = branch_off(conversation, reply, 5, None, SETTINGS, 9)
    expected = sampled_ids(model, reply.token_ids(5), SETTINGS, 9, is_first_token=False)
    assert [token.id for token in branch.tokens[5:]] == expected
    model.num_read = 0
    assert branch_off(conversation, branch, 8, None, SETTINGS, 9).num_shared_tokens == 8
    assert model.num_read == 12


def test_failure_to_save_is_reported_once(conversation, tmp_path, ask):
    (tmp_path / "sessions").write_text("not a folder")
    ask("bilbo is")
    assert "not saved" in conversation.notice
    conversation.notice = ""
    ask("the lamp")
    assert conversation.notice == ""
