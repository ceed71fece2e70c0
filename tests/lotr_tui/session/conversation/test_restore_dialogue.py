"""Saved conversations with speakers: restored as they were, also by models with another cast or without one."""

import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.data.tokenizers.base import EOS_ID
from engine.errors import InvalidInputError
from engine.generation.settings import SamplerSettings
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.conversation.restore import rebuild_conversation, resume_conversation, selected_replies
from lotr_tui.session.saved_session import SavedSession
from lotr_tui.session.session_file import load_session
from lotr_tui.session.session_model import SessionModel
from tests.support.app import make_decoder
from tests.support.conversations import SETTINGS, finish_reply, only_session
from tests.support.dialogues import dialogue_session_model, finish_scene, say, text_of
from tests.support.sessions import header_line, saved_reply


@pytest.fixture(params=[False, True], ids=["words", "bpe"])
def session_model(request: pytest.FixtureRequest) -> SessionModel:
    return dialogue_session_model(is_open=request.param)


@pytest.fixture
def restored(conversation: Conversation, session_model: SessionModel, tmp_path: Path) -> Iterator[Conversation]:
    """A conversation of several turns with branches, restored from a copy of its file."""
    first = say(conversation, session_model, "where is frodo", best_of=3)
    conversation.answer_as(first, "FRODO", SETTINGS, 4)
    conversation.go_on(session_model, ["GOLLUM"], 2, SETTINGS, 5, finish_reply(conversation))
    last = finish_scene(conversation)[-1]
    say(conversation, session_model, "bilbo is", None, speaking_as="GANDALF", previous=last)
    yield (restored := resume_conversation(copy_session(conversation, tmp_path), session_model, 0))
    restored.close()


def copy_session(conversation: Conversation, home: Path) -> Path:
    """Copy the session file, so that it can be resumed while the conversation holds its lock."""
    copy = home / "copy.jsonl"
    shutil.copy(home / "sessions" / f"{conversation.name}.jsonl", copy)
    return copy


def describe(reply: Reply) -> tuple[object, ...]:
    """Return all properties of a reply except its decoder states."""
    turn, is_shown = reply.turn, reply in reply.turn.replies
    return (
        (reply.id, reply.parent and reply.parent.id, reply.parent_offset, reply.num_shared_tokens, reply.name),
        (reply.prompt, reply.reply_mode, reply.seed, reply.settings, reply.read_only_reason),
        (reply.speaking_as, reply.speaker, reply.speaker_prob and round(reply.speaker_prob, 4)),
        # Batched products round otherwise than those of the text that a restored conversation reads again.
        reply.score and (reply.score.rank, reply.score.num_answers, round(reply.score.log_prob, 3)),
        list(reply.context_ids),
        [(token.id, token.piece, token.rank) for token in reply.tokens],
        reply.done and reply.done.reason,
        [other.id for other in turn.replies],
        turn.selected_reply.id,
        turn.previous_reply and turn.previous_reply.id,
        reply.exchange.blocks() if is_shown else None,
        re.sub(r" · [\d,.]+ \w+/s", "", reply.exchange.figures) if is_shown else None,
        reply.full_text(),
    )


def describe_all(conversation: Conversation) -> list[tuple[object, ...]]:
    return [describe(reply) for reply in conversation.replies_by_exchange.values()]


def act_randomly(conversation: Conversation, session_model: SessionModel, rng: random.Random, seed: int) -> None:
    """Say a line, let the scene go on, answer as another speaker, branch, or continue a line; then select a reply."""
    visible = [reply for reply in conversation.replies_by_exchange.values() if reply in reply.turn.replies]
    reply = rng.choice(visible) if visible else None
    settings = SamplerSettings(max_tokens=rng.randint(1, 8), temperature=rng.choice([0.5, 2.0]))
    best_of = rng.choice([1, 1, 3])
    action = rng.choice(["say", "say", "edit", "scene", "answer", "branch", "more"]) if reply else "say"
    if reply is None or action == "say":
        roles = rng.choice(["", "FRODO"]), rng.choice([None, "GOLLUM"])
        current = rng.choice([conversation.current_reply, conversation.current_reply, None])
        conversation.say(session_model, "bilbo is", *roles, settings, seed, current, best_of)
    elif action == "edit":
        conversation.say(session_model, "the lamp", "", None, settings, seed, reply.turn.previous_reply, best_of)
    elif action == "scene":
        conversation.go_on(session_model, None, 2, settings, seed, conversation.current_reply, best_of)
    elif action == "answer":
        conversation.answer_as(reply, rng.choice([None, "GANDALF", reply.speaker]), settings, seed, best_of)
    elif action == "branch" and reply.tokens:
        conversation.branch(reply, rng.randrange(len(reply.tokens)), [rng.randrange(2, 20)], settings, seed)
    elif not reply.has_ended_line:
        conversation.continue_reply(reply, settings, seed)
    finish_scene(conversation)
    if rng.random() < 0.3 and conversation.current_reply is not None:
        conversation.rename_branch(conversation.current_reply, f"name {seed}")
    visible = [other for other in conversation.replies_by_exchange.values() if other in other.turn.replies]
    conversation.select_reply(rng.choice(visible))


@pytest.mark.parametrize("seed", range(4))
def test_any_conversation_is_restored_and_continued_as_if_never_closed(
    conversation: Conversation, session_model: SessionModel, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    network = session_model.model.model  # type: ignore[attr-defined]
    network.weights["output.bias"][EOS_ID] = 4  # lines end soon
    for number in range(20):
        act_randomly(conversation, session_model, rng, 1000 * number)
    restored = resume_conversation(copy_session(conversation, tmp_path), session_model, 0)
    assert not restored.notice
    assert restored.current_reply is not None
    assert conversation.current_reply is not None
    assert restored.current_reply.id == conversation.current_reply.id
    # Selections off the visible path are not saved.
    for reply in restored.replies_by_exchange.values():
        original = next(each for each in conversation.replies_by_exchange.values() if each.id == reply.id)
        reply.turn.selected_index = original.turn.selected_index
    assert describe_all(restored) == describe_all(conversation)
    for each in (conversation, restored):
        rng = random.Random(seed)
        for number in range(8):
            act_randomly(each, session_model, rng, 100_000 + 1000 * number)
    assert describe_all(restored) == describe_all(conversation)
    restored.close()


def test_answers_that_were_not_chosen_are_not_shown_after_a_restart(conversation: Conversation, tmp_path: Path) -> None:
    session_model = dialogue_session_model()
    first = say(conversation, session_model, "where is frodo", best_of=4)
    second = say(conversation, session_model, "bilbo is", best_of=4)  # a new scene
    restored = resume_conversation(copy_session(conversation, tmp_path), session_model, 0)
    restored.close()
    assert [reply.id for reply in selected_replies(restored)] == [first.id, second.id]
    assert [len(reply.turn.replies) for reply in selected_replies(restored)] == [4, 4]


def test_scene_that_was_killed_is_restored_with_its_finished_turns(conversation: Conversation, tmp_path: Path) -> None:
    session_model = dialogue_session_model()
    conversation.go_on(session_model, None, 5, SETTINGS, 5, None, best_of=3)
    copies: list[Path] = []

    def copy_third_turn(reply: Reply) -> bool:
        if not copies and len(conversation.replies_by_exchange) > 6:
            copies.append(copy_session(conversation, tmp_path))
        return False

    turns = finish_scene(conversation, copy_third_turn)
    restored = resume_conversation(copies[0], session_model, 0)
    restored.close()
    assert [text_of(reply) for reply in selected_replies(restored)] == [text_of(turn) for turn in turns[:2]]


def test_model_with_another_cast_reads_what_its_cast_knows(
    restored: Conversation, session_model: SessionModel, tmp_path: Path
) -> None:
    is_open = session_model.model.tokenizer.is_open
    other = dialogue_session_model(("FRODO", "GANDALF", "SAM", "STRANGER", "SOMEONE"), is_open=is_open)
    changed = rebuild_conversation(load_session(tmp_path / "copy.jsonl"), other, 0)
    originals = {reply.id: reply for reply in restored.replies_by_exchange.values()}
    tokenizer = other.model.tokenizer
    for reply in changed.replies_by_exchange.values():
        original = originals[reply.id]
        assert reply.exchange.blocks()[-1].text == original.exchange.blocks()[-1].text
        assert reply.full_text() == original.full_text()
        assert bool(reply.read_only_reason) == ("GOLLUM: " in reply.full_text())
        if not reply.read_only_reason:
            assert reply.context_ids[-1] == tokenizer.speaker_id(reply.speaker)
    gollum = next(reply for reply in changed.replies_by_exchange.values() if reply.speaker == "GOLLUM")
    assert gollum.read_only_reason == "scenes does not know Gollum and cannot continue from here"
    with pytest.raises(InvalidInputError, match="does not know Gollum"):
        changed.answer_as(gollum, "SAM", SETTINGS, 1)
    with pytest.raises(InvalidInputError, match="does not know Gollum"):
        changed.branch(gollum, 0, (), SETTINGS, 1)
    # The conversation goes on with the speakers of the new cast; Gollum's lines are someone's.
    reply = say(changed, other, "where is frodo", "SAM", previous=gollum)
    text = tokenizer.decode([id for id in reply.context_ids if id >= tokenizer.num_text_tokens])
    assert text.replace(" ", "").endswith("SOMEONE:STRANGER:SAM:")
    changed.close()


def test_model_without_speakers_shows_a_conversation_and_goes_on_in_its_own_way(
    restored: Conversation, tmp_path: Path
) -> None:
    plain = SessionModel("plain", "", make_decoder())
    shown = rebuild_conversation(load_session(tmp_path / "copy.jsonl"), plain, 0)
    assert [reply.full_text() for reply in shown.replies_by_exchange.values()] == [
        reply.full_text() for reply in restored.replies_by_exchange.values()
    ]
    last = shown.current_reply
    assert last is not None
    assert last.read_only_reason
    assert last.exchange.speakers is not None
    assert last.exchange.speakers.answerer.text
    reply = shown.submit_prompt(plain, "the lamp", "reply", SETTINGS, 1, last)
    finish_reply(shown)
    lines = plain.model.tokenizer.decode(reply.context_ids).split("\n")
    assert lines[-2:] == ["the lamp", ""]
    assert "bilbo is" in lines
    assert not any("gandalf" in line.lower() for line in lines)
    shown.close()


def test_model_with_speakers_opens_a_session_without_them(conversation: Conversation, tmp_path: Path) -> None:
    plain, session_model = SessionModel("plain", "", make_decoder()), dialogue_session_model()
    first = conversation.submit_prompt(plain, "bilbo is", "reply", SETTINGS, 1, None)
    finish_reply(conversation)
    restored = resume_conversation(copy_session(conversation, tmp_path), session_model, 0)
    (shown,) = restored.replies_by_exchange.values()
    assert shown.exchange.blocks() == first.exchange.blocks()
    assert not shown.read_only_reason
    reply = say(restored, session_model, "where is frodo", "GOLLUM", previous=shown)
    tokenizer = session_model.model.tokenizer
    someone, stranger = tokenizer.speaker_id("SOMEONE"), tokenizer.speaker_id("STRANGER")
    assert list(reply.context_ids) == [
        stranger, *tokenizer.encode("bilbo is").tolist(), EOS_ID,
        someone, *(token.id for token in first.tokens), EOS_ID,
        stranger, *tokenizer.encode("where is frodo").tolist(), EOS_ID, tokenizer.speaker_id("GOLLUM"),
    ]  # fmt: skip
    restored.close()


def test_file_of_the_second_format_is_resumed_and_continued(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    path = tmp_path / "sessions" / "old.jsonl"
    path.parent.mkdir()
    record: dict[str, object] = {"id": 0, "parent_id": None, "parent_offset": 0, "prompt": "bilbo is"}
    record |= {
        "reply_mode": "reply",
        "seed": 7,
        "tokens": [[2, "a", -1.5, 0.25, 3, 4.5, "a"]],
        "settings": {},
        "reason": "eos",
        "model": "old",
    }
    path.write_bytes(
        header_line(version=2) + json.dumps({"reply": record | {"tokens_per_second": 1.0}}).encode() + b"\n"
    )
    session_model = dialogue_session_model()
    resumed = resume_conversation(path, session_model, 0)
    assert not resumed.notice
    say(resumed, session_model, "where is frodo", previous=resumed.current_reply)
    resumed.close()
    again = resume_conversation(only_session(tmp_path), session_model, 0)
    assert [reply.speaker for reply in again.replies_by_exchange.values()] == ["", "GANDALF"]
    assert [reply.full_text() for reply in selected_replies(again)] == [
        reply.full_text() for reply in selected_replies(resumed)
    ]
    again.close()


def test_edited_file_with_any_roles_opens(session_model: SessionModel) -> None:
    replies = (
        saved_reply(0, reply_mode="conversation", speaker="GANDALF", speaking_as="nobody", speaker_prob=0.5),
        saved_reply(1, 0, 2, prompt="", reply_mode="conversation", speaker="", text=""),
        saved_reply(2, 0, 0, prompt=None, reply_mode="conversation", speaker="SOMEONE"),
        saved_reply(3, 0, 1, prompt=None, reply_mode="reply", speaker="GOLLUM"),
        saved_reply(4, 1, 0, prompt="bilbo", reply_mode="continue", speaker="GOLLUM"),
    )
    conversation = rebuild_conversation(SavedSession("x", "m", 1.0, replies), session_model, 0)
    for reply in conversation.replies_by_exchange.values():
        assert reply.exchange.blocks()
        assert all(0 <= id < len(session_model.model.tokenizer) for id in reply.token_ids())
    conversation.close()
