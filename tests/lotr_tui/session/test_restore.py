"""Restored conversations equal conversations that were never closed, and continue with the same tokens."""

import random
import re
import shutil
from dataclasses import replace

import pytest

from engine.data.tokenizers import EOS, EOS_ID, UNK, WordTokenizer
from engine.errors import InvalidInputError
from engine.generation.settings import SamplerSettings
from lotr_tui.session.cast import Roles
from lotr_tui.session.conversation import Conversation
from lotr_tui.session.reply import encode_lines
from lotr_tui.session.session_file import load_session
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.transcript import entry_blocks, reply_figures
from tests.support.app import VOCABULARY, make_decoder
from tests.support.conversations import SETTINGS, branch_off, finish_reply, finish_scene, ids_of, only_session, request
from tests.support.dialogues import dialogue_session_model, say
from tests.support.open_models import open_model
from tests.support.sessions import records_of

PROMPTS = (
    "bilbo Xylophone is",
    "Bilbo's\n\npony,\r\n  the LAMP!",
    "the xylophone of \x07frodo\x0b☺ it\x1bs where\u2028frodo\ttower",
    "a <eos> old <unk> friend",
)


@pytest.fixture
def session_model():
    return SessionModel("test", "", make_decoder())


def copy_session(conversation, home):
    """Copy the session file, so that it can be resumed while the conversation holds its lock."""
    copy = home / "copy.jsonl"
    shutil.copy(home / "sessions" / f"{conversation.session.name}.jsonl", copy)
    return copy


def describe(reply):
    turn, is_shown = reply.turn, reply in reply.turn.replies  # a reply that was continued is not shown
    return (
        (reply.id, reply.parent and reply.parent.id, reply.parent_offset, reply.num_shared_tokens),
        (reply.prompt, reply.reply_mode, reply.seed, reply.settings, reply.unknown_tokens, reply.read_only_reason),
        (reply.speaking_as, reply.speaker, reply.speaker_prob and round(reply.speaker_prob, 4)),
        # Batched products round otherwise than those of the text that a restored conversation reads again.
        reply.score and (reply.score.rank, reply.score.num_answers, round(reply.score.log_prob, 3)),
        list(reply.context_ids),
        [(token.id, token.piece, token.rank) for token in reply.tokens],
        reply.reason,
        [other.id for other in turn.replies],
        turn.previous_reply and turn.previous_reply.id,
        reply.next_turn and [other.id for other in reply.next_turn.replies],
        entry_blocks(reply) if is_shown else None,
        re.sub(r" · [\d,.]+ \w+/s", "", reply_figures(reply)) if is_shown else None,
        reply.full_text(),
    )


def describe_all(conversation):
    return [describe(reply) for reply in conversation.replies.values()]


def visible_replies(conversation):
    return [reply for reply in conversation.replies.values() if reply in reply.turn.replies]


def random_settings(rng):
    return SamplerSettings(max_tokens=rng.randint(1, 8), temperature=rng.choice([0.5, 2.0]))


def edit(reply, request):
    previous = reply.turn.previous_reply
    edited = reply if previous is None else None
    return replace(request, context=replace(request.context, previous_reply=previous, edited_reply=edited))


def act_randomly(conversation, session_model, rng, seed):
    """Prompt, answer, edit a prompt, branch, regenerate or continue; then select a reply."""
    reply, settings = rng.choice(visible_replies(conversation) or [None]), random_settings(rng)
    actions = ["continue", "reply", "edit", "branch", "branch", "again", "more", "more"]
    action = rng.choice(actions) if reply else "reply"
    if reply is None or action in ("continue", "reply"):
        current = conversation.current_reply
        previous = current if action == "reply" and current and current.reply_mode == "reply" else None
        reply_mode = "reply" if action == "reply" else "continue"
        conversation.say(rng.choice(PROMPTS), request(settings, seed, session_model, reply_mode, previous))
    elif action == "edit":
        conversation.say("frodo", edit(reply, request(settings, seed, session_model, reply.reply_mode)))
    elif action == "branch" and reply.tokens:
        conversation.branch(reply, rng.randrange(len(reply.tokens)), [rng.randrange(2, 20)], request(settings, seed))
    elif action == "more":
        conversation.continue_reply(reply, request(settings, seed))
    else:
        conversation.branch(reply, 0, (), request(settings, seed))
    finish_reply(conversation)
    conversation.select_reply(rng.choice(visible_replies(conversation)))


def assert_restored(conversation, session_model, home, act, seed):
    """Assert that a resumed copy of a session has the same replies, also after the same further actions."""
    restored = Conversation.resume(copy_session(conversation, home), session_model, 0)
    assert not restored.notice
    assert restored.current_reply.id == conversation.current_reply.id
    for reply in restored.replies.values():  # selections off the visible path are not saved
        reply.turn.selected_reply = restored.replies[conversation.replies[reply.id].turn.selected_reply.id]
    assert describe_all(restored) == describe_all(conversation)
    for each in (conversation, restored):
        rng = random.Random(seed)
        for number in range(10):
            act(each, session_model, rng, 100_000 + 1000 * number)
    assert describe_all(restored) == describe_all(conversation)
    restored.close()
    assert load_session(home / "copy.jsonl").replies.keys() == conversation.replies.keys()


@pytest.mark.parametrize("seed", range(3))
def test_any_tree_of_replies_is_restored_and_continued_as_if_never_closed(conversation, session_model, tmp_path, seed):
    rng = random.Random(seed)
    session_model.model.weights["output.bias"][EOS_ID] = 4  # lines end soon
    for number in range(25):
        act_randomly(conversation, session_model, rng, number)
    assert any(token.text == EOS for reply in conversation.replies.values() for token in reply.tokens)
    for reply in conversation.replies.values():  # the text is exactly what the model has read and written
        assert encode_lines(VOCABULARY, reply.full_text()) == reply.token_ids()
    assert_restored(conversation, session_model, tmp_path, act_randomly, seed)


def test_session_that_another_window_has_open_continues_in_a_new_file(conversation, session_model, tmp_path, ask):
    ask("bilbo is")
    path = only_session(tmp_path)
    before = path.read_bytes()
    restored = Conversation.resume(path, session_model, 0)
    assert "is open in another window" in restored.notice
    assert "saved as a new session" in restored.notice
    assert restored.current_reply is not None
    assert only_session(tmp_path) == path  # the new file is created with the first reply
    branch = branch_off(restored, restored.current_reply, 4, ids_of("tower")[0], SETTINGS, 2)
    restored.close()
    assert path.read_bytes() == before
    assert restored.session.name != conversation.session.name
    session = load_session(path.with_name(f"{restored.session.name}.jsonl"))
    assert records_of(session)[0] == records_of(load_session(path))[0]
    assert [token.text for token in session.replies[1].own_tokens] == [token.text for token in branch.tokens[4:]]


def test_another_model_continues_only_replies_whose_tokens_it_knows(conversation, tmp_path, ask):
    greedy = SamplerSettings(max_tokens=3, temperature=0)
    original = ask("bilbo is", settings=greedy)
    assert "tower" not in original.text()
    branch_off(conversation, original, 1, ids_of("tower")[0], SETTINGS, 2)
    session = load_session(only_session(tmp_path))
    words = [word for word in reversed(VOCABULARY.tokens[2:]) if word != "tower"]
    other = SessionModel("other", "", open_model(WordTokenizer((UNK, EOS, *words))))
    restored = Conversation.resume(copy_session(conversation, tmp_path), other, 0)
    readable, unreadable = restored.replies.values()
    assert [entry_blocks(reply) for reply in (readable, unreadable)] == [
        entry_blocks(reply) for reply in conversation.replies.values()
    ]
    with pytest.raises(InvalidInputError, match=r"^other does not know 'tower' and cannot continue from here$"):
        restored.branch(unreadable, 0, (), request())
    continuation = branch_off(restored, readable, 3, None, SETTINGS, 3)
    assert [token.text for token in continuation.tokens[:3]] == [token.text for token in original.tokens]
    restored.close()
    saved = load_session(tmp_path / "copy.jsonl")
    assert records_of(saved)[0] == records_of(session)[0]  # with the ids and the name of the original model
    assert saved.replies[1].tokens == session.replies[1].tokens
    assert [reply.model for reply in saved.replies.values()] == ["test", "test", "other"]


# Conversations with speakers


@pytest.fixture
def speaking_model():
    return dialogue_session_model(end_bias=8.0)  # lines end soon


def speak_randomly(conversation, speaking_model, rng, seed):
    """Say a line, let the scene go on, answer as another speaker, branch, or continue a line; then select a reply."""
    reply, settings = rng.choice(visible_replies(conversation) or [None]), random_settings(rng)
    best_of = rng.choice([1, 1, 3])
    action = rng.choice(["say", "say", "edit", "scene", "answer", "branch", "more"]) if reply else "say"
    if reply is None or action == "say":
        roles = rng.choice(["", "FRODO", "BARLIMAN"]), rng.choice(["", "GOLLUM", "TOM BOMBADIL"])
        current = rng.choice([conversation.current_reply, conversation.current_reply, None])
        asked = request(settings, seed, speaking_model, "conversation", current, Roles(*roles), best_of)
        conversation.say("bilbo is", asked)
    elif action == "edit":
        asked = request(settings, seed, speaking_model, "conversation", best_of=best_of)
        conversation.say("the lamp", edit(reply, asked))
    elif action == "scene":
        asked = request(settings, seed, speaking_model, previous=conversation.current_reply, best_of=best_of)
        conversation.go_on(None, 2, asked)
    elif action == "answer":
        name = rng.choice(["", "GANDALF", reply.speaker])
        conversation.answer_as(reply, name, request(settings, seed, best_of=best_of))
    elif action == "branch" and reply.tokens:
        conversation.branch(reply, rng.randrange(len(reply.tokens)), [rng.randrange(2, 20)], request(settings, seed))
    elif not reply.has_ended_line:
        conversation.continue_reply(reply, request(settings, seed))
    finish_scene(conversation)
    conversation.select_reply(rng.choice(visible_replies(conversation)))


@pytest.mark.parametrize("seed", range(2))
def test_any_conversation_is_restored_and_continued_as_if_never_closed(conversation, speaking_model, tmp_path, seed):
    rng = random.Random(seed)
    for number in range(20):
        speak_randomly(conversation, speaking_model, rng, 1000 * number)
    assert_restored(conversation, speaking_model, tmp_path, speak_randomly, seed)


def test_a_model_with_another_cast_continues_the_conversation_of_any_speakers(conversation, speaking_model, tmp_path):
    first = say(conversation, speaking_model, "where is frodo", best_of=3)
    last = say(conversation, speaking_model, "bilbo is", "GOLLUM", speaking_as="GANDALF", previous=first)
    other = dialogue_session_model(("FRODO", "SAM", "SOMEONE"))
    changed = Conversation.resume(copy_session(conversation, tmp_path), other, 0)
    assert not any(reply.read_only_reason for reply in changed.replies.values())
    reply = say(changed, other, "where is frodo", "SAM", previous=changed.current_reply)
    assert other.model.tokenizer.decode(reply.context_ids) == f"{last.full_text()}\nStranger: where is frodo\nSam:"
    changed.close()


def test_a_model_without_a_cast_shows_a_conversation_but_does_not_continue_it(conversation, speaking_model, tmp_path):
    original = say(conversation, speaking_model, "where is frodo")
    plain = SessionModel("plain", "", speaking_model.model.model)
    changed = Conversation.resume(copy_session(conversation, tmp_path), plain, 0)
    (reply,) = changed.replies.values()
    assert reply.full_text() == original.full_text()
    with pytest.raises(InvalidInputError, match=r"^plain knows no speakers and cannot continue from here$"):
        changed.branch(reply, 0, (), request())
    changed.close()
