"""Tests of the cursor, of branches and of reply mode, driven through keys and clicks."""

import re
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from engine.data.tokenizers.base import EOS_ID
from engine.generation.generate import TokenEvent, generate
from engine.generation.preview import next_token_probs
from engine.generation.prompt import prefill
from engine.generation.settings import SamplerSettings
from lotr_tui.formatting import format_percent
from lotr_tui.screens.dialogs.line_dialog import NameDialog
from lotr_tui.screens.session.conversation.token_inspector import TokenInspector
from lotr_tui.screens.session.conversation.transcript import Transcript
from lotr_tui.screens.session.conversation.view import ConversationView
from lotr_tui.screens.session.next_token_bars import NextTokenBars
from lotr_tui.session.conversation import saved_replies
from lotr_tui.session.conversation.entries import Exchange, Note
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.session_file import load_session
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from tests.support.app import VOCABULARY, make_decoder
from tests.support.pilot import (
    MakeApp,
    alternative_to,
    bars_text,
    conversation_of,
    entries,
    exchange_text,
    inspector_text,
    latest_reply,
    notices,
    reply_to,
    send,
    set_field,
    transcript_text,
    until,
    until_reply_ended,
)

SIZES = [(60, 20), (80, 24), (160, 45)]


async def inspect_third_word(pilot: Pilot[None]) -> Reply:
    """Generate a reply, and put the cursor on its third word."""
    reply = await reply_to(pilot)
    await pilot.press("ctrl+g", "home", "right", "right")
    await pilot.pause()
    return reply


@pytest.mark.parametrize("size", SIZES)
async def test_inspector_shows_why_a_word_was_picked(make_app: MakeApp, size: tuple[int, int]) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        reply = await reply_to(pilot)
        await pilot.press("ctrl+g", "left", "left")
        await pilot.pause()
        shown = inspector_text(app)
        number = len(reply.tokens) - 3
        assert app.screen.query_one(TokenInspector).region.area
        assert app.screen.query_one(Transcript).region.area
        assert not app.screen.query_one(NextTokenBars).region.area
    ids = VOCABULARY.encode_words(["bilbo", "is"]).tolist()
    words = [e for e in generate(make_decoder(), ids, SamplerSettings(), 7) if isinstance(e, TokenEvent)]
    word, before = words[number], [*ids, *(w.id for w in words[:number])]
    assert f'WORD {number + 1} of {len(words)}  "{word.text}"' in shown
    assert f"rank {word.rank}" in shown
    assert f"after sampling {format_percent(word.sampling_prob)}" in shown
    assert f"entropy {word.entropy:.1f} bits" in shown
    expected = next_token_probs(prefill(make_decoder(), before).log_probs, SamplerSettings(), before, VOCABULARY, 8)
    for candidate in expected.candidates:
        assert re.search(rf"{re.escape(candidate.text[:4])}\S*[ █▏▎▍▌▋▊▉]+{candidate.sampling_prob:.1%}", shown), (
            candidate
        )


async def test_probabilities_in_the_inspector_are_below_their_names(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await inspect_third_word(pilot)
        lines = [line.rstrip() for line in inspector_text(app).splitlines()]
        names = next(line for line in lines if line.endswith("raw"))
        first = next(line for line in lines if line.startswith("1"))
        assert len(names) == len(first)
        assert names.index("after sampling") + len("after sampling") == first.index("%") + 1


async def test_cursor_moves_by_word_and_by_reply(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        first, second = await reply_to(pilot), await reply_to(pilot, "the lamp", "8")
        transcript = app.screen.query_one(Transcript)
        one, two = (transcript.entries.index(reply.exchange) for reply in (first, second))
        places = []
        for key in ("ctrl+g", "home", "left", "right", "right", "up", "up", "end", "right", "down", "end", "right"):
            await pilot.press(key)
            places.append(transcript.cursor)
        ends = len(first.tokens) - 1, len(second.tokens) - 1
        assert places == [
            (two, ends[1]), (two, 0), (one, ends[0]), (two, 0), (two, 1), (one, 0), (one, 0), (one, ends[0]),
            (two, 0), (two, 0), (two, ends[1]), (two, ends[1]),
        ]  # fmt: skip
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen.focused is app.screen.query_one("#prompt")
        assert transcript.cursor is None
        assert app.screen.query_one(NextTokenBars).region.area


async def test_word_under_the_cursor_is_reversed_and_visible(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(60, 20)) as pilot:
        set_field(app, "max_tokens", "300")
        reply = await reply_to(pilot)
        await pilot.press("ctrl+g", "home")
        await pilot.pause()
        transcript = app.screen.query_one(Transcript)
        lines = [transcript.render_line(y) for y in range(transcript.size.height)]
        reversed_text = [s.text for line in lines for s in line if s.style is not None and s.style.reverse]
        assert reversed_text == [reply.tokens[0].text]


async def test_reply_keys_do_nothing_before_the_first_reply(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await pilot.press("ctrl+g", "ctrl+r", "ctrl+n", "ctrl+x")
        await pilot.pause()
        assert app.screen.focused is app.screen.query_one("#prompt")
        assert not entries(app, Exchange)


async def test_click_inspects_a_word(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        reply = await reply_to(pilot)
        transcript = app.screen.query_one(Transcript)
        lines = transcript_text(app).splitlines()
        y = next(i for i, line in enumerate(lines) if line.strip().startswith(reply.tokens[0].text))
        x = lines[y].index(f" {reply.tokens[2].text}") + 1
        await pilot.click(transcript, offset=(x + 2, y + 1))
        await pilot.pause()
        assert f'WORD 3 of {len(reply.tokens)}  "{reply.tokens[2].text}"' in inspector_text(app)
        y = next(i for i, line in enumerate(lines) if "seed 7" in line)
        await pilot.click(transcript, offset=(x + 2, y + 1))  # the footer of the reply has no words
        assert transcript.cursor is not None
        assert transcript.cursor[1] == 2


@pytest.mark.parametrize("method", ["digit", "enter", "click"])
async def test_choosing_an_alternative_creates_a_branch(make_app: MakeApp, method: str) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        reply = await inspect_third_word(pilot)
        number, word = alternative_to(app, reply.tokens[2].text)
        if method == "digit":
            await pilot.press(str(number))
        elif method == "enter":
            view = app.screen.query_one(ConversationView)
            await pilot.press(*["j"] * 9, *["k"] * 9)
            while view.highlighted != number:
                await pilot.press("j")
                await pilot.pause()
            await pilot.press("enter")
        else:
            line = next(i for i, text in enumerate(inspector_text(app).splitlines()) if text.startswith(f"{number} "))
            padding = app.screen.query_one(TokenInspector).styles.padding
            await pilot.click(TokenInspector, offset=(padding.left + 3, padding.top + line))
        await until_reply_ended(pilot)
        branch = latest_reply(app)
        assert branch is not reply
        assert [w.text for w in branch.tokens[:3]] == [*(w.text for w in reply.tokens[:2]), word]
        assert len(entries(app, Exchange)) == 1
        assert "branch 2 of 2" in exchange_text(app)
        assert f'WORD 3 of {len(branch.tokens)}  "{word}"' in inspector_text(app)


async def test_choosing_the_current_word_creates_no_branch(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await reply_to(pilot)
        set_field(app, "top_k", "1")
        reply = await reply_to(pilot, "the lamp")
        await pilot.press("ctrl+g")
        await pilot.pause()
        assert f"1●{reply.tokens[-1].text}" in inspector_text(app)
        await pilot.press("1")
        await pilot.pause()
        assert len(conversation_of(app).replies_by_exchange) == 2
        assert "already the word here" in notices(app)


async def test_branches_are_selected_compared_and_named(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        reply = await inspect_third_word(pilot)
        await pilot.press(str(alternative_to(app, reply.tokens[2].text)[0]))
        await until_reply_ended(pilot)
        branch = latest_reply(app)
        await pilot.press("left_square_bracket")
        await pilot.pause()
        assert latest_reply(app) is reply
        assert "branch 1 of 2" in exchange_text(app)
        assert " ".join(w.text for w in reply.tokens) in exchange_text(app)
        await pilot.press("right_square_bracket", "c")
        await pilot.pause()
        assert "branch 1 of 2: " in exchange_text(app)
        assert reply.tokens[2].text in exchange_text(app).splitlines()[-1]
        await pilot.press("u")
        await pilot.pause()
        assert latest_reply(app) is reply
        assert exchange_text(app).splitlines()[-1].startswith("branch 2 of 2: ")  # the comparison stays
        await pilot.press("c")
        await pilot.pause()
        assert "branch 2 of 2" not in exchange_text(app)
        await pilot.press("n")
        await pilot.pause()
        assert isinstance(app.screen, NameDialog)
        app.screen.query_one(Input).value = "the long [path]"
        await pilot.press("enter")
        await pilot.pause()
        assert "branch 1 of 2 'the long [path]'" in exchange_text(app)
        await pilot.press("n")
        await pilot.pause()
        await pilot.press("x", "escape")
        await pilot.pause()
        assert reply.name == "the long [path]"
    saved = load_session(next((tmp_path / "sessions").iterdir()))
    assert [(node.parent_id, node.parent_offset, node.name) for node in saved.replies] == [
        (None, 0, "the long [path]"),
        (0, 2, ""),
    ]
    assert saved.replies[1].text == " ".join(w.text for w in branch.tokens[2:])


async def test_regenerate_uses_the_seed_of_the_controls(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        reply = await reply_to(pilot)
        set_field(app, "seed", "8")
        await pilot.press("ctrl+r")
        await until_reply_ended(pilot)
        shown = exchange_text(app)
        assert re.search("^branch 2 of 2 · .* · seed 8 · ", shown, re.MULTILINE)
    ids = VOCABULARY.encode_words(["bilbo", "is"]).tolist()
    words = [e.text for e in generate(make_decoder(), ids, SamplerSettings(), 8) if isinstance(e, TokenEvent)]
    assert " ".join(words) in shown
    assert reply.tokens


async def test_continue_appends_words_to_the_reply(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        set_field(app, "max_tokens", "4")
        reply = await reply_to(pilot)
        await pilot.press("ctrl+n")
        await until_reply_ended(pilot)
        more = latest_reply(app)
        assert more.tokens[: len(reply.tokens)] == reply.tokens
        assert len(reply.tokens) < len(more.tokens) <= 8
        assert len(entries(app, Exchange)) == 1
        assert "branch" not in exchange_text(app)


async def test_edited_prompt_is_sent_again(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        prompt = app.screen.query_one("#prompt", PromptInput)
        await reply_to(pilot)
        await pilot.press("ctrl+x")
        await until(pilot, lambda: prompt.value == "bilbo is")
        await pilot.press("escape")
        await pilot.pause()
        assert prompt.value == ""
        await pilot.press("ctrl+x")
        await pilot.pause()
        await pilot.press(*" old", "enter")
        await until_reply_ended(pilot)
        assert latest_reply(app).prompt == "bilbo is old"
        assert len(entries(app, Exchange)) == 2


async def test_reply_mode_conditions_on_the_previous_turns(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.press("f6")
        await pilot.pause()
        assert "reply" in str(app.screen.query_one("#reply-mode").render())
        first, second = await reply_to(pilot), await reply_to(pilot, "the lamp", "8")
        third = await reply_to(pilot, "and knows", "3")
        assert second.turn.previous_reply is first
        # Editing an earlier prompt branches the conversation there.
        await pilot.press("ctrl+g", "up")
        await pilot.pause()
        await pilot.press("ctrl+x")
        await pilot.pause()
        other = await reply_to(pilot, "frodo is", "9")
        assert other.turn is second.turn
        assert [second.exchange.branch_label, other.exchange.branch_label] == ["branch 1 of 2", "branch 2 of 2"]
        # The reply to the second prompt does not follow the edited one.
        assert [e.splitlines()[0] for e in entries(app, Exchange)] == ["❯ bilbo is", "❯ frodo is"]
        await pilot.press("ctrl+g")
        await pilot.pause()
        await pilot.press("left_square_bracket")
        await pilot.pause()
        assert [e.splitlines()[0] for e in entries(app, Exchange)] == ["❯ bilbo is", "❯ the lamp", "❯ and knows"]
        # The bars show the distribution of the answer.
        await pilot.press("escape")
        app.screen.query_one("#prompt", PromptInput).value = "he knows"
        await pilot.pause()
        bars = bars_text(app)
    context = [*first.token_ids(), EOS_ID, *VOCABULARY.encode_words(["the", "lamp"]).tolist(), EOS_ID]
    assert list(second.context_ids) == context
    ids = [*third.token_ids(), EOS_ID, *VOCABULARY.encode_words(["he", "knows"]).tolist(), EOS_ID]
    expected = next_token_probs(
        prefill(make_decoder(), ids).log_probs, SamplerSettings(), ids, VOCABULARY, 3, is_first_token=True
    )
    assert "after end of line" in bars
    assert bars.splitlines()[2].startswith(expected.candidates[0].text)


async def test_click_toggles_the_reply_mode(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.click("#reply-mode")
        await pilot.pause()
        assert str(app.screen.query_one("#prompt-mark").render()) == "reply ❯"
        await pilot.click("#reply-mode")
        await pilot.pause()
        assert str(app.screen.query_one("#prompt-mark").render()) == "❯"


async def test_model_without_line_ends_warns_once(make_app: MakeApp) -> None:
    app = make_app(session_model=SessionModel("notebook", "", make_decoder(), predicts_eos=False))
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.press("f6", "f6", "f6")
        await pilot.pause()
        assert entries(app, Note)[1:] == [
            "Reply mode: notebook was trained without line ends, so it rarely answers, or stops."
        ]
        assert (await reply_to(pilot)).reply_mode == "reply"


async def test_pace_key_cycles_through_the_paces(make_app: MakeApp) -> None:
    app = make_app(pace=25)
    async with app.run_test(size=(160, 45)) as pilot:
        paces = []
        for _ in range(6):
            await pilot.press("f5")
            await pilot.pause()
            paces.append(conversation_of(app).pace)
        assert paces == [100, 0, 5, 10, 25, 100]
        assert app.settings_store.current.pace == 100


async def test_escape_stops_a_branch_then_removes_the_cursor(make_app: MakeApp) -> None:
    app = make_app(pace=0)
    async with app.run_test(size=(160, 45)) as pilot:
        reply = await reply_to(pilot)
        conversation_of(app).pace = 5
        await pilot.press("ctrl+g", "home")
        await pilot.pause()
        await pilot.press(str(alternative_to(app, reply.tokens[0].text)[0]))
        await until(pilot, lambda: latest_reply(app).tokens)
        await pilot.press("escape")
        await until_reply_ended(pilot)
        assert "stopped by you" in exchange_text(app)
        assert app.screen.query_one(Transcript).cursor is not None
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen.query_one(Transcript).cursor is None


async def test_another_branch_can_be_shown_while_words_are_written(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        reply = await reply_to(pilot)
        conversation_of(app).pace = 20
        await pilot.press("ctrl+g", "ctrl+r")
        await until(pilot, lambda: latest_reply(app) is not reply and latest_reply(app).tokens)
        branch = latest_reply(app)
        await pilot.press("left_square_bracket")
        await pilot.pause(0.2)
        assert latest_reply(app) is reply
        assert " ".join(word.text for word in reply.tokens) in exchange_text(app)
        await until(pilot, lambda: conversation_of(app).active_reply is None)
        await pilot.press("right_square_bracket")
        await pilot.pause()
        assert latest_reply(app) is branch
        assert " ".join(word.text for word in branch.tokens) in exchange_text(app)


async def test_full_conversation_is_saved_and_a_new_one_begins(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(saved_replies, "MAX_TOKENS", 50)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        first = conversation_of(app)
        replies = [await reply_to(pilot, seed="7")]
        await pilot.press("ctrl+x")  # an edit is in progress when the session becomes full
        while conversation_of(app) is first:
            await send(pilot, "the lamp")
            await until(pilot, lambda: first.active_reply is None)
            await pilot.pause()
            replies.append(first.current_reply)  # type: ignore[arg-type]
        assert sum(len(reply.tokens) for reply in replies) > 50
        shown = app.screen.query_one(Transcript).entries
        assert [type(entry) for entry in shown] == [Exchange, Note]
        assert first.name in shown[1].text  # type: ignore[union-attr]
        assert len(load_session(tmp_path / "sessions" / f"{first.name}.jsonl").replies) == len(
            first.replies_by_exchange
        )
        new = await reply_to(pilot, "bilbo")
        assert new.parent is None
        assert list(conversation_of(app).replies_by_exchange.values()) == [new]
        assert len(list((tmp_path / "sessions").glob("*.jsonl"))) == 2
        await pilot.press("ctrl+g")
        assert new.exchange in app.screen.query_one(Transcript).entries
