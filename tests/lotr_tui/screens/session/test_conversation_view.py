"""Walking over the words, branching, answering: driven as a person would."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from engine.data.vocabulary import EOS_ID
from engine.generation.generate import TokenEvent, read, stream
from engine.generation.preview import preview
from engine.generation.settings import SamplerSettings
from lotr_tui.app import LotrApp
from lotr_tui.screens.dialogs.name import AskName
from lotr_tui.screens.session.conversation_view import ConversationView
from lotr_tui.screens.session.next_word import NextWordBars
from lotr_tui.screens.session.transcript import Transcript
from lotr_tui.screens.session.word_inspector import WordInspector
from lotr_tui.session import conversation
from lotr_tui.session.conversation import Conversation, Reply
from lotr_tui.session.entries import Exchange, Note
from lotr_tui.session.player import Player
from lotr_tui.session.session_file import load_session
from lotr_tui.widgets.prompt import Prompt
from tests.lotr_tui.conftest import VOCABULARY, make_decoder
from tests.lotr_tui.screens.session.test_session_screen import bars_text, entries, exchange_text, send, set_field, until

MakeApp = Callable[..., LotrApp]

SIZES = [(60, 20), (80, 24), (160, 45)]


def talk_of(app: LotrApp) -> Conversation:
    return app.screen.query_one(ConversationView).conversation


def last(app: LotrApp) -> Reply:
    reply = talk_of(app).last
    assert reply is not None
    return reply


def inspector(app: LotrApp) -> str:
    widget = app.screen.query_one(WordInspector)
    return "\n".join(widget.render_line(y).text for y in range(widget.size.height))


def transcript_lines(app: LotrApp) -> str:
    widget = app.screen.query_one(Transcript)
    return "\n".join(widget.render_line(y).text for y in range(widget.size.height))


async def said(pilot: Pilot[None], prompt: str = "bilbo is", seed: str = "7") -> Reply:
    app = pilot.app
    set_field(app, "seed", seed)  # type: ignore[arg-type]
    await send(pilot, prompt)
    await ended(pilot)
    return last(app)  # type: ignore[arg-type]


async def ended(pilot: Pilot[None]) -> None:
    app: LotrApp = pilot.app  # type: ignore[assignment]
    await until(pilot, lambda: talk_of(app).writing is None and talk_of(app).last)
    await pilot.pause()


def other_than(app: LotrApp, word: str) -> tuple[int, str]:
    """The number of an alternative in the inspector, and its word."""
    found = re.findall(r"^([1-8])[ ●]([a-z']+)", inspector(app), re.MULTILINE)
    return next((int(number), text) for number, text in found if text != word)


@pytest.mark.parametrize("size", SIZES)
async def test_a_word_tells_why_it_was_picked(make_app: MakeApp, size: tuple[int, int]) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        reply = await said(pilot)
        await pilot.press("ctrl+g", "left", "left")
        await pilot.pause()
        shown = inspector(app)
        number = len(reply.words) - 3
        assert app.screen.query_one(WordInspector).region.area
        assert app.screen.query_one(Transcript).region.area
        assert not app.screen.query_one(NextWordBars).region.area
    ids = VOCABULARY.encode(["bilbo", "is"]).tolist()
    words = [e for e in stream(make_decoder(), ids, SamplerSettings(), 7) if isinstance(e, TokenEvent)]
    word, before = words[number], [*ids, *(w.id for w in words[:number])]
    assert f'WORD {number + 1} of {len(words)}  "{word.text}"' in shown
    assert f"rank {word.rank}" in shown
    assert f"drawn with {word.prob:.1%}" in shown
    assert f"entropy {word.entropy:.1f} bits" in shown
    expected = preview(read(make_decoder(), before).log_probs, SamplerSettings(), before, VOCABULARY, 8)
    for candidate in expected.candidates:
        assert re.search(rf"{re.escape(candidate.text[:4])}\S*[ █▏▎▍▌▋▊▉]+{candidate.after:.1%}", shown), candidate


async def test_the_walk_goes_word_by_word_and_reply_by_reply(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        first, second = await said(pilot), await said(pilot, "the lamp", "8")
        transcript = app.screen.query_one(Transcript)
        one, two = (transcript.entries.index(reply.exchange) for reply in (first, second))
        places = []
        for key in ("ctrl+g", "home", "left", "right", "right", "up", "up", "end", "right", "down", "end", "right"):
            await pilot.press(key)
            places.append(transcript.cursor)
        ends = len(first.words) - 1, len(second.words) - 1
        assert places == [
            (two, ends[1]), (two, 0), (one, ends[0]), (two, 0), (two, 1), (one, 0), (one, 0), (one, ends[0]),
            (two, 0), (two, 0), (two, ends[1]), (two, ends[1]),
        ]  # fmt: skip
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen.focused is app.screen.query_one("#prompt")
        assert transcript.cursor is None
        assert app.screen.query_one(NextWordBars).region.area


async def test_the_word_under_the_cursor_is_reversed_and_stays_in_sight(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(60, 20)) as pilot:
        set_field(app, "max_tokens", "300")
        reply = await said(pilot)
        await pilot.press("ctrl+g", "home")
        await pilot.pause()
        transcript = app.screen.query_one(Transcript)
        lines = [transcript.render_line(y) for y in range(transcript.size.height)]
        reversed_text = [s.text for line in lines for s in line if s.style is not None and s.style.reverse]
        assert reversed_text == [reply.words[0].text]


async def test_there_is_nothing_to_walk_over_before_the_first_reply(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await pilot.press("ctrl+g", "ctrl+r", "ctrl+n", "ctrl+x")
        await pilot.pause()
        assert app.screen.focused is app.screen.query_one("#prompt")
        assert not entries(app, Exchange)


async def test_a_click_on_a_word_looks_at_it(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        reply = await said(pilot)
        transcript = app.screen.query_one(Transcript)
        lines = transcript_lines(app).splitlines()
        y = next(i for i, line in enumerate(lines) if line.strip().startswith(reply.words[0].text))
        x = lines[y].index(f" {reply.words[2].text}") + 1
        await pilot.click(transcript, offset=(x + 2, y + 1))  # the padding
        await pilot.pause()
        assert f'WORD 3 of {len(reply.words)}  "{reply.words[2].text}"' in inspector(app)
        y = next(i for i, line in enumerate(lines) if "seed 7" in line)
        await pilot.click(transcript, offset=(x + 2, y + 1))  # the line of figures is no word
        assert transcript.cursor is not None
        assert transcript.cursor[1] == 2


@pytest.mark.parametrize("way", ["digit", "enter", "click"])
async def test_an_alternative_that_is_chosen_begins_a_branch(make_app: MakeApp, way: str) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        reply = await said(pilot)
        await pilot.press("ctrl+g", "home", "right", "right")
        await pilot.pause()
        number, word = other_than(app, reply.words[2].text)
        if way == "digit":
            await pilot.press(str(number))
        elif way == "enter":
            widget = app.screen.query_one(WordInspector)
            await pilot.press(*["j"] * 9, *["k"] * 9)
            while widget.marked != number:
                await pilot.press("j")
                await pilot.pause()
            await pilot.press("enter")
        else:
            line = next(i for i, text in enumerate(inspector(app).splitlines()) if text.startswith(f"{number} "))
            padding = app.screen.query_one(WordInspector).styles.padding
            await pilot.click(WordInspector, offset=(padding.left + 3, padding.top + line))
        await ended(pilot)
        branch = last(app)
        assert branch is not reply
        assert [w.text for w in branch.words[:3]] == [*(w.text for w in reply.words[:2]), word]
        assert len(entries(app, Exchange)) == 1
        assert "branch 2 of 2" in exchange_text(app)
        assert f'WORD 3 of {len(branch.words)}  "{word}"' in inspector(app)


async def test_the_word_that_stands_there_is_no_branch(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await said(pilot)
        set_field(app, "top_k", "1")
        reply = await said(pilot, "the lamp")
        await pilot.press("ctrl+g")
        await pilot.pause()
        assert f"1●{reply.words[-1].text}" in inspector(app)
        await pilot.press("1")
        await pilot.pause()
        assert len(talk_of(app).replies) == 2
        assert "stands there" in next(iter(app._notifications)).message


async def test_branches_are_walked_compared_and_named(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        reply = await said(pilot)
        await pilot.press("ctrl+g", "home", "right", "right")
        await pilot.pause()
        await pilot.press(str(other_than(app, reply.words[2].text)[0]))
        await ended(pilot)
        branch = last(app)
        await pilot.press("left_square_bracket")
        await pilot.pause()
        assert last(app) is reply
        assert "branch 1 of 2" in exchange_text(app)
        assert " ".join(w.text for w in reply.words) in exchange_text(app)
        await pilot.press("right_square_bracket", "c")
        await pilot.pause()
        assert "branch 1 of 2: " in exchange_text(app)
        assert reply.words[2].text in exchange_text(app).splitlines()[-1]
        await pilot.press("u")
        await pilot.pause()
        assert last(app) is reply
        assert exchange_text(app).splitlines()[-1].startswith("branch 2 of 2: ")  # still compared
        await pilot.press("c")
        await pilot.pause()
        assert "branch 2 of 2" not in exchange_text(app)
        await pilot.press("n")
        await pilot.pause()
        assert isinstance(app.screen, AskName)
        app.screen.query_one(Input).value = "the long [way]"
        await pilot.press("enter")
        await pilot.pause()
        assert "branch 1 of 2 'the long [way]'" in exchange_text(app)
        await pilot.press("n")
        await pilot.pause()
        await pilot.press("x", "escape")
        await pilot.pause()
        assert reply.name == "the long [way]"
    saved = load_session(next((tmp_path / "sessions").iterdir()))
    assert [(node.parent, node.at, node.name) for node in saved.nodes] == [(None, 0, "the long [way]"), (0, 2, "")]
    assert saved.nodes[1].text == " ".join(w.text for w in branch.words[2:])


async def test_again_says_it_anew_with_another_seed(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        reply = await said(pilot)
        set_field(app, "seed", "8")
        await pilot.press("ctrl+r")
        await ended(pilot)
        shown = exchange_text(app)
        assert "branch 2 of 2 · seed 8" in shown
    ids = VOCABULARY.encode(["bilbo", "is"]).tolist()
    words = [e.text for e in stream(make_decoder(), ids, SamplerSettings(), 8) if isinstance(e, TokenEvent)]
    assert " ".join(words) in shown
    assert reply.words


async def test_more_goes_on_behind_the_last_word(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        set_field(app, "max_tokens", "4")
        reply = await said(pilot)
        await pilot.press("ctrl+n")
        await ended(pilot)
        more = last(app)
        assert more.words[: len(reply.words)] == reply.words
        assert len(reply.words) < len(more.words) <= 8
        assert len(entries(app, Exchange)) == 1
        assert "branch" not in exchange_text(app)


async def test_a_prompt_is_edited_and_sent_again(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await said(pilot)
        await pilot.press("ctrl+x")
        await pilot.pause()
        prompt = app.screen.query_one("#prompt", Prompt)
        assert prompt.value == "bilbo is"
        await pilot.press("escape")
        await pilot.pause()
        assert prompt.value == ""
        await pilot.press("ctrl+x")
        await pilot.pause()
        await pilot.press(*" old", "enter")
        await ended(pilot)
        assert last(app).prompt == "bilbo is old"
        assert len(entries(app, Exchange)) == 2


async def test_in_a_conversation_the_model_answers_what_was_said(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.press("f6")
        await pilot.pause()
        assert "reply" in str(app.screen.query_one("#way").render())
        first, second = await said(pilot), await said(pilot, "the lamp", "8")
        third = await said(pilot, "and knows", "3")
        assert second.turn.before is first
        # An earlier prompt that is edited branches the conversation there.
        await pilot.press("ctrl+g", "up")
        await pilot.pause()
        await pilot.press("ctrl+x")
        await pilot.pause()
        other = await said(pilot, "frodo is", "9")
        assert other.turn is second.turn
        assert [second.exchange.mark, other.exchange.mark] == ["branch 1 of 2", "branch 2 of 2"]
        # What was answered to the second is not said behind the other.
        assert [e.splitlines()[0] for e in entries(app, Exchange)] == ["❯ bilbo is", "❯ frodo is"]
        await pilot.press("ctrl+g")
        await pilot.pause()
        await pilot.press("left_square_bracket")
        await pilot.pause()
        assert [e.splitlines()[0] for e in entries(app, Exchange)] == ["❯ bilbo is", "❯ the lamp", "❯ and knows"]
        # The bars show what would be answered.
        await pilot.press("escape")
        app.screen.query_one("#prompt", Prompt).value = "he knows"
        await pilot.pause()
        bars = bars_text(app)
    said_before = [*first.ids(), EOS_ID, *VOCABULARY.encode(["the", "lamp"]).tolist(), EOS_ID]
    assert list(second.context) == said_before
    ids = [*third.ids(), EOS_ID, *VOCABULARY.encode(["he", "knows"]).tolist(), EOS_ID]
    expected = preview(read(make_decoder(), ids).log_probs, SamplerSettings(), ids, VOCABULARY, 3, first=True)
    assert 'after "<eos>"' in bars
    assert bars.splitlines()[1].startswith(expected.candidates[0].text)


async def test_a_click_changes_the_way_to_play(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.click("#way")
        await pilot.pause()
        assert str(app.screen.query_one("#prompt-mark").render()) == "reply ❯"
        await pilot.click("#way")
        await pilot.pause()
        assert str(app.screen.query_one("#prompt-mark").render()) == "❯"


async def test_a_model_that_saw_no_line_end_says_so_once(make_app: MakeApp) -> None:
    app = make_app(player=Player("notebook", "", make_decoder(), ends_lines=False))
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.press("f6", "f6", "f6")
        await pilot.pause()
        assert [n.message for n in app._notifications if "end of a line" in n.message] == [
            "notebook never saw the end of a line: its replies seldom answer, or end."
        ]
        assert (await said(pilot)).way == "reply"


async def test_the_pace_goes_round(make_app: MakeApp) -> None:
    app = make_app(pace=25)
    async with app.run_test(size=(160, 45)) as pilot:
        paces = []
        for _ in range(6):
            await pilot.press("f5")
            await pilot.pause()
            paces.append(talk_of(app).pace)
        assert paces == [100, 0, 5, 10, 25, 100]
        assert app.screen._pace == 100  # type: ignore[attr-defined]


async def test_escape_stops_a_branch_then_leaves_the_words(make_app: MakeApp) -> None:
    app = make_app(pace=0)
    async with app.run_test(size=(160, 45)) as pilot:
        reply = await said(pilot)
        talk_of(app).pace = 5
        await pilot.press("ctrl+g", "home")
        await pilot.pause()
        await pilot.press(str(other_than(app, reply.words[0].text)[0]))
        await until(pilot, lambda: last(app).words)
        await pilot.press("escape")
        await ended(pilot)
        assert "stopped by you" in exchange_text(app)
        assert app.screen.query_one(Transcript).cursor is not None
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen.query_one(Transcript).cursor is None


async def test_another_branch_is_looked_at_while_words_come(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        reply = await said(pilot)
        talk_of(app).pace = 20
        await pilot.press("ctrl+g", "ctrl+r")
        await until(pilot, lambda: last(app) is not reply and last(app).words)
        branch = last(app)
        await pilot.press("left_square_bracket")
        await pilot.pause(0.2)
        assert last(app) is reply
        assert " ".join(word.text for word in reply.words) in exchange_text(app)
        await until(pilot, lambda: talk_of(app).writing is None)
        await pilot.press("right_square_bracket")
        await pilot.pause()
        assert last(app) is branch
        assert " ".join(word.text for word in branch.words) in exchange_text(app)


async def test_a_full_conversation_is_put_away_and_another_one_begins(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(conversation, "MOST_WORDS", 50)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        first = talk_of(app)
        replies = [await said(pilot, seed="7")]
        await pilot.press("ctrl+x")  # whose prompt is being typed anew when it is put away
        while talk_of(app) is first:
            await send(pilot, "the lamp")
            await until(pilot, lambda: first.writing is None)
            await pilot.pause()
            replies.append(first.last)  # type: ignore[arg-type]
        assert sum(len(reply.words) for reply in replies) > 50
        shown = app.screen.query_one(Transcript).entries
        assert [type(entry) for entry in shown] == [Exchange, Note]
        assert first.name in shown[1].text  # type: ignore[union-attr]
        assert len(load_session(tmp_path / "sessions" / f"{first.name}.jsonl").nodes) == len(first.replies)
        new = await said(pilot, "bilbo")
        assert new.parent is None
        assert list(talk_of(app).replies.values()) == [new]
        assert len(list((tmp_path / "sessions").glob("*.jsonl"))) == 2
        await pilot.press("ctrl+g")
        assert new.exchange in app.screen.query_one(Transcript).entries
