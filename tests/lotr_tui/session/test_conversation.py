"""The tree of replies, without a screen."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.data.vocabulary import EOS_ID
from engine.errors import PromptError, UnusableInput
from engine.generation.generate import TokenEvent, go_on, read
from engine.generation.settings import SamplerSettings
from engine.models.base import LogProbs
from engine.models.numpy_lstm import Decoder, LSTMState
from lotr_tui.session import state_cache
from lotr_tui.session.conversation import Conversation, Reply
from lotr_tui.session.player import Player
from lotr_tui.session.session_file import load_session
from tests.lotr_tui.conftest import VOCABULARY, make_decoder

SETTINGS = SamplerSettings(max_tokens=12)


class Counting:
    """A model that counts the words it reads, and says `<eos>` seldom or never."""

    def __init__(self, decoder: Decoder, *, ends: bool = True) -> None:
        self.decoder = decoder
        self.vocabulary = decoder.vocabulary
        self.read = 0
        self.ends = ends

    def start(self) -> LSTMState:
        return self.decoder.start()

    def advance(self, state: LSTMState, token: int) -> tuple[LogProbs, LSTMState]:
        self.read += 1
        log_probs, state = self.decoder.advance(state, token)
        if not self.ends:
            log_probs[EOS_ID] = -1e9
        return log_probs, state


@pytest.fixture
def model() -> Counting:
    return Counting(make_decoder(), ends=False)


@pytest.fixture
def player(model: Counting) -> Player:
    return Player("test", "", model)


@pytest.fixture
def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Conversation]:
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    conversation = Conversation(0)
    yield conversation
    conversation.close()


def finish(talk: Conversation) -> Reply:
    end = time.monotonic() + 10
    while talk.writing is not None:
        assert time.monotonic() < end
        talk.poll()
        time.sleep(0.001)
    assert talk.last is not None
    return talk.last


def ids_of(text: str) -> list[int]:
    return VOCABULARY.encode(text.split()).tolist()


def drawn(model: Counting, ids: list[int], settings: SamplerSettings, seed: int, *, first: bool = True) -> list[int]:
    """The words that would come behind `ids`, all read from the beginning."""
    history = [id for id in ids if id != EOS_ID]
    events = go_on(model, read(model, ids), history, settings, seed, first=first)
    return [event[0].id for event in events if isinstance(event, tuple)]


def test_branching_after_500_words_reads_the_chosen_word_and_no_other_again(
    talk: Conversation, player: Player, model: Counting
) -> None:
    talk.prompt(player, "bilbo is", "continue", SamplerSettings(max_tokens=500), 1, None)
    reply = finish(talk)
    assert len(reply.words) == 500
    token = next(id for id in ids_of("tower pony frodo") if id != reply.words[480].id)
    model.read = 0
    talk.branch(reply, 480, token, SamplerSettings(max_tokens=3), 7)
    branch = finish(talk)
    assert model.read == 1 + 3
    ids = [*ids_of("bilbo is"), *(word.id for word in reply.words[:480]), token]
    assert branch.ids() == [*ids, *drawn(model, ids, SamplerSettings(max_tokens=3), 7, first=False)]


def test_figures_of_a_chosen_word_are_those_of_its_place(talk: Conversation, player: Player, model: Counting) -> None:
    talk.prompt(player, "bilbo is", "continue", SETTINGS, 1, None)
    reply = finish(talk)
    token = next(id for id in ids_of("tower pony") if id != reply.words[4].id)
    talk.branch(reply, 4, token, SETTINGS, 2)
    word: TokenEvent = finish(talk).words[4]
    log_probs = read(model, reply.ids(4)).log_probs.astype(np.float64)
    assert word.logprob == pytest.approx(log_probs[token], abs=1e-6)
    assert word.rank == 1 + int((log_probs > log_probs[token]).sum())
    warm = np.exp(log_probs / SETTINGS.temperature)
    warm[[0, EOS_ID]] = 0
    assert word.prob == pytest.approx(warm[token] / warm.sum(), rel=1e-5)


def test_what_is_read_for_an_answer_is_the_whole_conversation(
    talk: Conversation, player: Player, model: Counting
) -> None:
    talk.prompt(player, "bilbo is", "reply", SETTINGS, 1, None)
    first = finish(talk)
    model.read = 0
    talk.prompt(player, "where frodo", "reply", SETTINGS, 2, first)
    second = finish(talk)
    assert model.read == 1 + 2 + 1 + 12  # <eos>, the line, <eos>, the words
    lines = [*ids_of("bilbo is"), EOS_ID, *(word.id for word in first.words), EOS_ID, *ids_of("where frodo"), EOS_ID]
    assert list(second.context) == lines
    assert [word.id for word in second.words] == drawn(model, lines, SETTINGS, 2)


def test_another_model_reads_the_conversation_from_the_beginning(talk: Conversation, player: Player) -> None:
    talk.prompt(player, "bilbo is", "reply", SETTINGS, 1, None)
    first = finish(talk)
    other = Counting(make_decoder(5), ends=False)
    talk.prompt(Player("other", "", other), "frodo", "reply", SETTINGS, 2, first)
    second = finish(talk)
    assert [word.id for word in second.words] == drawn(other, list(second.context), SETTINGS, 2)


def test_going_on_takes_the_place_of_the_reply_and_reads_nothing_again(
    talk: Conversation, player: Player, model: Counting
) -> None:
    talk.prompt(player, "bilbo is", "continue", SETTINGS, 1, None)
    reply = finish(talk)
    model.read = 0
    talk.branch(reply, 12, None, SETTINGS, 2)
    more = finish(talk)
    assert model.read == 12
    assert more.words[:12] == reply.words
    assert len(more.words) == 24
    assert more.turn.replies == [more]
    assert (more.parent, more.at) == (reply, 12)


def test_a_branch_in_the_words_of_its_parent_is_a_branch_of_the_parent(talk: Conversation, player: Player) -> None:
    talk.prompt(player, "bilbo is", "continue", SETTINGS, 1, None)
    root = finish(talk)
    talk.branch(root, 6, ids_of("tower")[0], SETTINGS, 2)
    branch = finish(talk)
    assert branch.place(3) == (root, 3)
    assert branch.place(6) == (root, 6)  # another choice there
    assert branch.place(8) == (branch, 2)
    assert [reply.exchange.mark for reply in branch.turn.replies] == ["branch 1 of 2", "branch 2 of 2"]


@pytest.mark.parametrize("seed", range(4))
def test_the_session_that_is_saved_tells_every_reply_again(
    talk: Conversation, player: Player, model: Counting, tmp_path: Path, seed: int
) -> None:
    model.ends = True
    chance = random.Random(seed)
    for number in range(25):
        replies = list(talk.replies.values())
        reply = chance.choice(replies) if replies else None
        doing = chance.choice(["continue", "reply", "branch", "branch", "again", "more"]) if reply else "continue"
        settings = SamplerSettings(max_tokens=chance.randint(1, 8))
        if doing in ("continue", "reply"):
            after = talk.last if doing == "reply" and talk.last and talk.last.way == "reply" else None
            talk.prompt(player, "the lamp", doing, settings, number, after)  # type: ignore[arg-type]
        elif doing == "branch" and reply is not None and reply.words:
            talk.branch(reply, chance.randrange(len(reply.words)), chance.randrange(2, 20), settings, number)
        elif reply is not None:
            talk.branch(reply, 0 if doing == "again" else len(reply.words), None, settings, number)
        finish(talk)
    talk.close()
    assert not talk.notice
    saved = load_session(next((tmp_path / "sessions").iterdir()))
    assert len(saved.nodes) == 25
    for reply in talk.replies.values():
        words: list[int] = []
        for node in saved.line(reply.id):
            if node.prompt is not None:
                words = []  # a turn begins
                parent: list[int] = []
            # `at` counts the parent's own words; those before them stay.
            else:
                own = len(saved.by_id[node.parent].words)  # type: ignore[index]
                parent = words[: len(words) - own + node.at]
            words = parent + [word.id for word in node.words]
        assert words == [word.id for word in reply.words]


def test_where_readings_were_let_go_a_branch_is_the_same(
    talk: Conversation, player: Player, model: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_cache, "MOST_BYTES", 13 * state_cache._bytes(read(model, ())))  # those of one reply
    talk.prompt(player, "bilbo is", "continue", SETTINGS, 1, None)
    reply = finish(talk)
    talk.prompt(player, "the lamp", "continue", SETTINGS, 1, None)
    finish(talk)
    assert reply.reading(5) is None
    talk.branch(reply, 5, None, SETTINGS, 9)
    branch = finish(talk)
    assert [word.id for word in branch.words[5:]] == drawn(model, reply.ids(5), SETTINGS, 9, first=False)
    model.read = 0
    talk.branch(branch, 8, None, SETTINGS, 9)
    assert finish(talk).shared == 8
    assert model.read == 12


def test_one_reply_is_written_at_a_time(talk: Conversation, player: Player) -> None:
    talk.pace = 5
    reply = talk.prompt(player, "bilbo is", "continue", SETTINGS, 1, None)
    with pytest.raises(UnusableInput, match="still coming"):
        talk.branch(reply, 0, None, SETTINGS, 2)
    assert len(talk.replies) == len(reply.turn.replies) == 1
    talk.stop()
    assert finish(talk).done is not None


def test_a_prompt_that_cannot_be_read_changes_nothing(talk: Conversation, player: Player) -> None:
    with pytest.raises(PromptError):
        talk.prompt(player, "xylophone", "reply", SETTINGS, 1, None)
    assert talk.last is None
    assert not talk.replies


def test_that_a_session_is_not_saved_is_said_once(talk: Conversation, player: Player, tmp_path: Path) -> None:
    (tmp_path / "sessions").write_text("in the way")
    notices = []
    for seed in range(3):
        talk.prompt(player, "bilbo is", "continue", SETTINGS, seed, None)
        finish(talk)
        notices.append(talk.notice)
        talk.notice = ""
    assert "not saved" in notices[0]
    assert notices[1:] == ["", ""]


def test_a_reply_of_any_length_keeps_so_many_readings(
    talk: Conversation, player: Player, model: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_cache, "MOST_BYTES", 20 * state_cache._bytes(read(model, ())))
    reply = talk.prompt(player, "bilbo is", "continue", SamplerSettings(max_tokens=200), 1, None)
    most = 0
    while talk.writing is not None:
        talk.poll()
        most = max(most, sum(reading is not None for reading in reply.readings))
        time.sleep(0.001)
    assert len(reply.words) == 200
    assert most == 20
    assert reply.reading(200) is not None
    assert all(word.top == () for word in reply.words)


def test_of_the_models_of_a_training_the_latest_are_kept(talk: Conversation) -> None:
    players = [Player("learning", "", make_decoder(seed)) for seed in range(6)]
    for player in players:
        talk.prompt(player, "bilbo is", "continue", SETTINGS, 1, None)
        finish(talk)
    kept = [reply.player for reply in talk.replies.values()]
    assert kept == [*players[3:], *players[3:]]  # each was handed on to the one that was the latest then
    first = next(iter(talk.replies.values()))
    assert first.reading(5) is None  # it was another model's
    talk.branch(first, 5, None, SETTINGS, 9)
    assert [word.id for word in finish(talk).words[5:]] == drawn(kept[0].model, first.ids(5), SETTINGS, 9, first=False)
