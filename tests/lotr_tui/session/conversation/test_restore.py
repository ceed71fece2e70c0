"""Restored conversations equal conversations that were never closed, and continue with the same tokens."""

import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS, EOS_ID, UNK
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import InvalidInputError
from engine.generation.settings import SamplerSettings
from engine.models.numpy_lstm import NumpyLSTM, weight_shapes
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.conversation.restore import rebuild_conversation, resume_conversation, selected_replies
from lotr_tui.session.session_file import SessionError, SessionWriter, load_session
from lotr_tui.session.session_model import SessionModel
from tests.support.app import VOCABULARY, make_decoder
from tests.support.conversations import SETTINGS, Ask, branch_off, finish_reply, ids_of, only_session


@pytest.fixture
def session_model() -> SessionModel:
    return SessionModel("test", "", make_decoder())


def copy_session(conversation: Conversation, home: Path) -> Path:
    """Copy the session file, so that it can be resumed while the conversation holds its lock."""
    copy = home / "copy.jsonl"
    shutil.copy(home / "sessions" / f"{conversation.name}.jsonl", copy)
    return copy


def restore_selected_ids(conversation: Conversation, session_model: SessionModel, home: Path) -> list[int]:
    """Return the ids of the visible replies after a restart."""
    restored = resume_conversation(copy_session(conversation, home), session_model, 0)
    restored.close()
    return [reply.id for reply in selected_replies(restored)]


def describe(reply: Reply) -> tuple[object, ...]:
    """Return all properties of a reply except its decoder states."""
    turn, blocks = reply.turn, reply.exchange.blocks()
    return (
        reply.id,
        None if reply.parent is None else reply.parent.id,
        (reply.parent_offset, reply.num_shared_tokens, reply.name, reply.prompt, reply.unknown_tokens),
        (reply.reply_mode, reply.seed, reply.settings),
        list(reply.context_ids),
        [(token.id, token.text, token.sampling_prob, token.rank, token.entropy) for token in reply.tokens],
        None if reply.done is None else reply.done.reason,
        [other.id for other in turn.replies],
        None if turn.previous_reply is None else turn.previous_reply.id,
        None if reply.next_turn is None else [other.id for other in reply.next_turn.replies],
        # A reply that was continued is not shown. Two measured speeds differ.
        [block.text for block in blocks] if reply in turn.replies else None,
        re.sub(r" · [\d,]+ words/s", "", reply.exchange.figures) if reply in turn.replies else None,
        [block.spans for block in blocks],
    )


def describe_all(conversation: Conversation) -> list[tuple[object, ...]]:
    return [describe(reply) for reply in conversation.replies_by_exchange.values()]


def act_randomly(conversation: Conversation, session_model: SessionModel, rng: random.Random, seed: int) -> None:
    """Prompt, answer, edit a prompt, branch, regenerate or continue; perhaps name the branch; then select a reply."""
    visible = [reply for reply in conversation.replies_by_exchange.values() if reply in reply.turn.replies]
    reply = rng.choice(visible) if visible else None
    actions = ["continue", "reply", "edit", "branch", "branch", "again", "more", "more"]
    action = rng.choice(actions) if reply else "reply"
    settings = SamplerSettings(max_tokens=rng.randint(1, 8), temperature=rng.choice([0.5, 2.0]))
    if reply is None or action in ("continue", "reply"):
        current = conversation.current_reply
        previous = current if action == "reply" and current and current.reply_mode == "reply" else None
        reply_mode = "reply" if action == "reply" else "continue"
        prompt = rng.choice(["the lamp", "bilbo Xylophone is"])
        conversation.submit_prompt(session_model, prompt, reply_mode, settings, seed, previous)  # type: ignore[arg-type]
    elif action == "edit":
        conversation.submit_prompt(session_model, "frodo", reply.reply_mode, settings, seed, reply.turn.previous_reply)
    elif action == "branch" and reply.tokens:
        conversation.branch(reply, rng.randrange(len(reply.tokens)), [rng.randrange(2, 20)], settings, seed)
    elif action == "more":
        conversation.continue_reply(reply, settings, seed)
    else:
        conversation.branch(reply, 0, (), settings, seed)
    new = finish_reply(conversation)
    if rng.random() < 0.3:
        conversation.rename_branch(new, f"name {seed}")
    visible = [other for other in conversation.replies_by_exchange.values() if other in other.turn.replies]
    conversation.select_reply(rng.choice(visible))


@pytest.mark.parametrize("seed", range(6))
def test_any_tree_of_replies_is_restored_and_continued_as_if_never_closed(
    conversation: Conversation, session_model: SessionModel, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    session_model.model.weights["output.bias"][EOS_ID] = 4  # type: ignore[attr-defined]  # lines end soon
    for number in range(25):
        act_randomly(conversation, session_model, rng, number)
    assert any(token.text == EOS for reply in conversation.replies_by_exchange.values() for token in reply.tokens)
    restored = resume_conversation(copy_session(conversation, tmp_path), session_model, 0)
    assert not restored.notice
    assert describe_all(restored) == describe_all(conversation)
    assert restored.current_reply is not None
    assert conversation.current_reply is not None
    assert restored.current_reply.id == conversation.current_reply.id
    for each in (conversation, restored):
        rng = random.Random(seed)
        for number in range(10):
            act_randomly(each, session_model, rng, 100 + number)
    assert describe_all(restored) == describe_all(conversation)
    restored.close()
    assert load_session(tmp_path / "copy.jsonl").replies_by_id.keys() == {
        reply.id for reply in conversation.replies_by_exchange.values()
    }


def test_visible_replies_are_in_the_order_of_their_turns(
    conversation: Conversation, session_model: SessionModel, tmp_path: Path, ask: Ask
) -> None:
    first = ask("bilbo is", "reply")
    ask("the lamp", seed=2)
    conversation.select_reply(first)
    ask("frodo", "reply", seed=3, previous=first)
    conversation.branch(first, 0, (), SETTINGS, 4)
    assert restore_selected_ids(conversation, session_model, tmp_path) == [0, 1, 2]
    finish_reply(conversation)  # the new branch of the first turn has no answer
    assert restore_selected_ids(conversation, session_model, tmp_path) == [3, 1]


def test_selected_branches_of_later_turns_are_restored(
    conversation: Conversation, session_model: SessionModel, tmp_path: Path, ask: Ask
) -> None:
    first = ask("bilbo is", "reply")
    second = ask("the lamp", "reply", seed=2, previous=first)
    branch_off(conversation, second, 0, None, SETTINGS, 3)
    for action in (
        lambda: conversation.select_reply(second),
        lambda: conversation.rename_branch(first, "a name"),
        lambda: conversation.select_reply(first),
    ):
        action()
        assert restore_selected_ids(conversation, session_model, tmp_path) == [0, 1]


def test_session_that_another_window_has_open_continues_in_a_new_file(
    conversation: Conversation, session_model: SessionModel, tmp_path: Path, ask: Ask
) -> None:
    ask("bilbo is")
    path = only_session(tmp_path)
    before = path.read_bytes()
    restored = resume_conversation(path, session_model, 0)
    assert "is open in another window" in restored.notice
    assert "saved as a new session" in restored.notice
    assert restored.current_reply is not None
    assert only_session(tmp_path) == path  # the new file is created with the first reply
    branch = branch_off(restored, restored.current_reply, 4, ids_of("tower")[0], SETTINGS, 2)
    restored.close()
    assert path.read_bytes() == before
    assert restored.name != conversation.name
    session = load_session(path.with_name(f"{restored.name}.jsonl"))
    assert session.replies[0] == load_session(path).replies[0]
    assert [token.text for token in session.replies[1].tokens] == [token.text for token in branch.tokens[4:]]


def make_other_model() -> SessionModel:
    """Return a model with the vocabulary of the tests in another order and without "tower"."""
    words = [word for word in reversed(VOCABULARY.tokens[2:]) if word != "tower"]
    tokenizer = WordTokenizer((UNK, EOS, *words))
    config = ModelConfig(embedding_size=4, hidden_size=4)
    rng = np.random.default_rng(0)
    shapes = weight_shapes(config, len(tokenizer))
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return SessionModel("other", "", NumpyLSTM(config, tokenizer, weights))


def test_another_model_continues_only_replies_whose_tokens_it_knows(
    conversation: Conversation, tmp_path: Path, ask: Ask
) -> None:
    greedy = SamplerSettings(max_tokens=3, temperature=0)
    original = ask("bilbo is", settings=greedy)
    assert "tower" not in original.text()
    branch_off(conversation, original, 1, ids_of("tower")[0], SETTINGS, 2)
    session = load_session(only_session(tmp_path))
    restored = resume_conversation(copy_session(conversation, tmp_path), make_other_model(), 0)
    readable, unreadable = restored.replies_by_exchange.values()
    assert [reply.exchange.blocks() for reply in (readable, unreadable)] == [
        reply.exchange.blocks() for reply in conversation.replies_by_exchange.values()
    ]
    with pytest.raises(InvalidInputError, match=r"^other does not know 'tower' and cannot continue from here$"):
        restored.branch(unreadable, 0, (), SETTINGS, 3)
    restored.rename_branch(unreadable, "a name")
    continuation = branch_off(restored, readable, 3, None, SETTINGS, 3)
    assert [token.text for token in continuation.tokens[:3]] == [token.text for token in original.tokens]
    restored.close()
    replies = load_session(tmp_path / "copy.jsonl").replies
    assert replies[0] == session.replies[0]  # with the ids and the name of the original model
    assert replies[1].tokens == session.replies[1].tokens
    assert [reply.model for reply in replies] == ["test", "test", "other"]


def test_damaged_session_raises_the_reason(session_model: SessionModel, tmp_path: Path) -> None:
    path = tmp_path / "damaged.jsonl"
    path.write_text('{"session": 3}\n')
    with pytest.raises(SessionError, match="a line describes neither a session nor a reply; set aside"):
        resume_conversation(path, session_model, 0)
    with pytest.raises(SessionError, match="session 'damaged' is gone"):
        resume_conversation(path, session_model, 0)  # the file has been set aside


def test_empty_session_is_restored_as_an_empty_conversation(session_model: SessionModel) -> None:
    restored = rebuild_conversation(SessionWriter("test").session, session_model, 0)
    assert restored.current_reply is None
    assert selected_replies(restored) == []
