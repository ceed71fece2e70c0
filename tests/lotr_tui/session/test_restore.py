"""Sessions that were saved go on: the same is shown, and the same words come, as if they had never been closed."""

import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from textual.pilot import Pilot

from engine.config import ModelConfig
from engine.data.vocabulary import EOS, UNK, Vocabulary
from engine.errors import UnusableInput
from engine.generation.settings import SamplerSettings
from engine.models.numpy_lstm import Decoder, weight_shapes
from lotr_tui.app import LotrApp
from lotr_tui.screens.dialogs.sessions import SessionsScreen
from lotr_tui.session.conversation import Conversation, Reply
from lotr_tui.session.entries import Exchange
from lotr_tui.session.player import Player
from lotr_tui.session.restore import rebuild, resume, shown
from lotr_tui.session.session_file import SessionError, SessionWriter, load_session
from lotr_tui.widgets.prompt import Prompt
from tests.lotr_tui.conftest import VOCABULARY, make_decoder
from tests.lotr_tui.screens.session.test_conversation_view import ended, inspector, last, said, talk_of
from tests.lotr_tui.screens.session.test_session_screen import entries, exchange_text, send, set_field, until
from tests.lotr_tui.session.test_conversation import finish, ids_of

MakeApp = Callable[..., LotrApp]
SETTINGS = SamplerSettings(max_tokens=8)


@pytest.fixture
def player() -> Player:
    return Player("test", "", make_decoder())


@pytest.fixture
def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Conversation]:
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    conversation = Conversation(0)
    yield conversation
    conversation.close()


def only_session(home: Path) -> Path:
    (path,) = (home / "sessions").glob("*.jsonl")
    return path


def copied(talk: Conversation, home: Path) -> Path:
    """The session as it stands now, in a file that nobody has locked."""
    copy = home / "copy.jsonl"
    shutil.copy(home / "sessions" / f"{talk.name}.jsonl", copy)
    return copy


def told(reply: Reply) -> tuple[object, ...]:
    """All there is to know of a reply, but what was read with it."""
    turn, blocks = reply.turn, reply.exchange.blocks()
    return (
        reply.id,
        None if reply.parent is None else reply.parent.id,
        (reply.at, reply.shared, reply.name, reply.prompt, reply.unknown, reply.way, reply.seed, reply.settings),
        list(reply.context),
        [(word.id, word.text, word.prob, word.rank, word.entropy) for word in reply.words],
        None if reply.done is None else reply.done.reason,
        [other.id for other in turn.replies],
        None if turn.before is None else turn.before.id,
        None if reply.next is None else [other.id for other in reply.next.replies],
        # Else another one took its place. How fast the words came is saved, but not twice the same.
        [re.sub(r"[\d,]+ words/s", "", block.plain) for block in blocks] if reply in turn.replies else None,
        [block.spans for block in blocks],
    )


def do_something(talk: Conversation, player: Player, chance: random.Random, seed: int) -> None:
    """What a person might do: prompt, answer, edit a prompt, branch, again, more, name; then look somewhere else."""
    replies = [reply for reply in talk.replies.values() if reply in reply.turn.replies]
    reply = chance.choice(replies) if replies else None
    doing = chance.choice(["continue", "reply", "edit", "branch", "branch", "again", "more"]) if reply else "reply"
    settings = SamplerSettings(max_tokens=chance.randint(1, 8), temperature=chance.choice([0.5, 1.0]))
    if reply is None or doing in ("continue", "reply"):
        after = talk.last if doing == "reply" and talk.last and talk.last.way == "reply" else None
        way = "reply" if doing == "reply" else "continue"
        talk.prompt(player, chance.choice(["the lamp", "bilbo Xylophone is"]), way, settings, seed, after)  # type: ignore[arg-type]
    elif doing == "edit":
        talk.prompt(player, "frodo", reply.way, settings, seed, reply.turn.before)
    elif doing == "branch" and reply.words:
        talk.branch(reply, chance.randrange(len(reply.words)), chance.randrange(2, 20), settings, seed)
    else:
        talk.branch(reply, 0 if doing == "again" else len(reply.words), None, settings, seed)
    new = finish(talk)
    if chance.random() < 0.3:
        talk.rename(new, f"name {seed}")
    visible = [other for other in talk.replies.values() if other in other.turn.replies]
    talk.show(chance.choice(visible))


@pytest.mark.parametrize("seed", range(6))
def test_any_tree_of_replies_is_built_again_and_goes_on_as_if_never_closed(
    talk: Conversation, player: Player, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    for number in range(25):
        do_something(talk, player, chance, number)
    again = resume(copied(talk, tmp_path), player, 0)
    assert not again.notice
    assert [told(reply) for reply in again.replies.values()] == [told(reply) for reply in talk.replies.values()]
    assert again.last is not None
    assert talk.last is not None
    assert again.last.id == talk.last.id
    chances = random.Random(seed), random.Random(seed)
    for number in range(10):
        for conversation, same_chance in zip((talk, again), chances, strict=True):
            do_something(conversation, player, same_chance, 100 + number)
    assert [told(reply) for reply in again.replies.values()] == [told(reply) for reply in talk.replies.values()]
    again.close()
    assert load_session(tmp_path / "copy.jsonl").by_id.keys() == {reply.id for reply in talk.replies.values()}


def test_what_is_seen_is_in_the_order_in_which_it_was_said(talk: Conversation, player: Player, tmp_path: Path) -> None:
    talk.prompt(player, "bilbo is", "reply", SETTINGS, 1, None)
    first = finish(talk)
    talk.prompt(player, "the lamp", "continue", SETTINGS, 2, None)
    finish(talk)
    talk.show(first)
    talk.prompt(player, "frodo", "reply", SETTINGS, 3, first)
    finish(talk)
    talk.branch(first, 0, None, SETTINGS, 4)
    assert [reply.id for reply in shown(resume(copied(talk, tmp_path), player, 0))] == [0, 1, 2]
    finish(talk)  # another first turn, which nothing follows
    assert [reply.id for reply in shown(resume(copied(talk, tmp_path), player, 0))] == [3, 1]


def test_the_branches_of_later_turns_are_those_that_were_looked_at(
    talk: Conversation, player: Player, tmp_path: Path
) -> None:
    talk.prompt(player, "bilbo is", "reply", SETTINGS, 1, None)
    first = finish(talk)
    talk.prompt(player, "the lamp", "reply", SETTINGS, 2, first)
    second = finish(talk)
    talk.branch(second, 0, None, SETTINGS, 3)
    finish(talk)
    for look in (lambda: talk.show(second), lambda: talk.rename(first, "a name"), lambda: talk.show(first)):
        look()
        assert [reply.id for reply in shown(resume(copied(talk, tmp_path), player, 0))] == [0, 1]
        (tmp_path / "copy.jsonl").unlink()


def test_a_session_that_another_window_has_goes_on_in_a_file_of_its_own(
    talk: Conversation, player: Player, tmp_path: Path
) -> None:
    talk.prompt(player, "bilbo is", "continue", SETTINGS, 1, None)
    finish(talk)
    path = only_session(tmp_path)
    before = path.read_bytes()
    again = resume(path, player, 0)
    assert "is open in another window" in again.notice
    assert "saved as a new session" in again.notice
    assert again.last is not None
    assert only_session(tmp_path) == path  # none is made before there is something to save
    again.branch(again.last, 4, ids_of("tower")[0], SETTINGS, 2)
    branch = finish(again)
    again.close()
    assert path.read_bytes() == before
    assert again.name != talk.name
    saved = load_session(path.with_name(f"{again.name}.jsonl"))
    assert saved.nodes[0] == load_session(path).nodes[0]
    assert [word.text for word in saved.nodes[1].words] == [word.text for word in branch.words[4:]]


def other_model() -> Player:
    """One that knows the words of the tests in another order, but for the tower."""
    words = Vocabulary((UNK, EOS, *(word for word in reversed(VOCABULARY.words[2:]) if word != "tower")))
    config = ModelConfig(embedding_size=4, hidden_size=4)
    chance = np.random.default_rng(0)
    weights = {
        name: chance.normal(size=shape).astype(np.float32) for name, shape in weight_shapes(config, len(words)).items()
    }
    return Player("other", "", Decoder(config, words, weights))


def test_another_model_goes_on_where_it_knows_the_words_and_says_where_not(
    talk: Conversation, player: Player, tmp_path: Path
) -> None:
    talk.prompt(player, "bilbo is", "continue", SamplerSettings(max_tokens=3, temperature=0), 1, None)
    known = finish(talk)
    assert "tower" not in known.text()
    talk.branch(known, 1, ids_of("tower")[0], SETTINGS, 2)
    finish(talk)
    saved = load_session(only_session(tmp_path))
    again = resume(copied(talk, tmp_path), other_model(), 0)
    knows, knows_not = again.replies.values()
    assert [reply.exchange.blocks() for reply in (knows, knows_not)] == [
        reply.exchange.blocks() for reply in talk.replies.values()
    ]
    with pytest.raises(UnusableInput, match=r"^other does not know 'tower', so that it cannot go on from here$"):
        again.branch(knows_not, 0, None, SETTINGS, 3)
    again.rename(knows_not, "a name")
    again.branch(knows, 3, None, SETTINGS, 3)
    more = finish(again)
    assert [word.text for word in more.words[:3]] == [word.text for word in known.words]
    again.close()
    nodes = load_session(tmp_path / "copy.jsonl").nodes
    assert nodes[0] == saved.nodes[0]  # ids and model are those that said it
    assert nodes[1].words == saved.nodes[1].words
    assert [node.model for node in nodes] == ["test", "test", "other"]


def test_a_damaged_session_raises_its_own_reason(talk: Conversation, player: Player, tmp_path: Path) -> None:
    path = tmp_path / "damaged.jsonl"
    path.write_text('{"session": 3}\n')
    with pytest.raises(SessionError, match="damaged"):
        resume(path, player, 0)
    with pytest.raises(SessionError, match="cannot be resumed"):
        resume(path, player, 0)  # it has been set aside


def test_an_empty_session_is_an_empty_conversation(talk: Conversation, player: Player) -> None:
    again = rebuild(SessionWriter("test").session, player, 0)
    assert again.last is None
    assert shown(again) == []


# Driven as a person would


async def open_latest(pilot: Pilot[None]) -> None:
    await pilot.press("ctrl+s")
    await until(pilot, lambda: isinstance(pilot.app.screen, SessionsScreen))
    await pilot.press("enter")
    await until(pilot, lambda: not isinstance(pilot.app.screen, SessionsScreen))
    await pilot.pause()


async def test_a_session_is_resumed_shown_branched_and_saved_in_its_file(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        set_field(app, "max_tokens", "12")
        await pilot.press("f6")
        await said(pilot, "bilbo is", "1")
        await said(pilot, "the lamp", "2")
        await pilot.press("ctrl+g", "left", "left", "left", "enter")
        await ended(pilot)
        branch = last(app)
        talk_of(app).rename(branch, "the better one")
        before = entries(app, Exchange)
        await pilot.press("escape", "ctrl+g", "left")
        await until(pilot, lambda: f"WORD {len(branch.words) - 1} of" in inspector(app))
        walked = inspector(app)
    never_closed, path = talk_of_closed(branch), only_session(tmp_path)
    assert [node.parent for node in load_session(path).nodes] == [None, 0, 1]

    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        set_field(app, "max_tokens", "12")
        await open_latest(pilot)
        assert entries(app, Exchange) == before
        assert "branch 2 of 2 'the better one'" in exchange_text(app)
        assert app.screen.focused is app.screen.query_one("#prompt", Prompt)
        await pilot.press("ctrl+g", "left")
        await until(pilot, lambda: f"WORD {len(branch.words) - 1} of" in inspector(app))
        assert inspector(app) == walked
        set_field(app, "seed", "9")
        await pilot.press("enter")
        await ended(pilot)
        new = last(app)
    assert only_session(tmp_path) == path
    saved = load_session(path)
    assert [node.parent for node in saved.nodes] == [None, 0, 1, 2]
    assert saved.nodes[2].name == "the better one"
    assert new.shared == len(branch.words) - 2
    never_closed.branch(branch, new.shared, new.words[new.shared].id, branch.settings, 9)
    expected = finish(never_closed)
    never_closed.close()
    assert len(expected.words) > new.shared + 1
    assert [word.id for word in new.words] == [word.id for word in expected.words]
    assert [word.text for word in saved.nodes[3].words] == [word.text for word in expected.words[new.shared :]]


def talk_of_closed(branch: Reply) -> Conversation:
    """A conversation that still has what was read for `branch`."""
    assert branch.reading(1) is not None
    conversation = Conversation(0)
    conversation.replies = {reply.exchange: reply for reply in branch.turn.replies}
    return conversation


async def test_opening_another_session_stops_the_words_and_saves_them(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await said(pilot, "bilbo is", "1")
        shown_before = entries(app, Exchange)
    app = make_app(pace=20)
    async with app.run_test(size=(100, 30)) as pilot:
        set_field(app, "max_tokens", "900")
        await send(pilot, "the lamp")
        await until(pilot, lambda: len(exchange_text(app).split()) > 6)
        written = talk_of(app)
        await open_latest(pilot)
        assert entries(app, Exchange) == shown_before
        assert written.writing is None
        sessions = [load_session(path) for path in (tmp_path / "sessions").iterdir()]
        (stopped,) = (session for session in sessions if session.nodes[0].prompt == "the lamp")
        assert stopped.nodes[0].reason == "cancelled"
        assert len(stopped.nodes[0].words) > 3
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, SessionsScreen))
        await pilot.press("escape")
        assert entries(app, Exchange) == shown_before


async def test_a_damaged_session_is_told_in_a_line_and_the_present_one_stays(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await said(pilot, "bilbo is", "1")
    with only_session(tmp_path).open("a") as file:
        file.write('{"node": {"id": "[red]"}}\n')
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        present = talk_of(app)
        await open_latest(pilot)
        (notice,) = app._notifications
        assert "damaged" in notice.message
        assert "\n" not in notice.message
        assert talk_of(app) is present
        await said(pilot, "the lamp", "2")
        assert "words/s" in exchange_text(app)
