"""The cursor on the words of a reply, its alternatives and branches, by keys and by the mouse."""

import re

from engine.data.tokenizers import EOS_ID
from engine.generation.generate import TextInProgress, TokenEvent, generate, next_token_probs
from engine.generation.settings import SamplerSettings
from lotr_tui.formatting import format_percent
from lotr_tui.screens.session.side import TokenBars
from lotr_tui.screens.session.transcript import Transcript
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.prompt import PromptInput
from tests.support import pilot as ui
from tests.support.app import make_decoder
from tests.support.conversations import ids_of


def segments_of(app, style):
    """Return the painted texts of the transcript with an attribute of their style, such as `reverse`."""
    transcript = app.screen.query_one(Transcript)
    lines = [transcript.render_line(y) for y in range(transcript.size.height)]
    return [segment.text for line in lines for segment in line if segment.style and getattr(segment.style, style)]


async def test_inspector_shows_why_a_word_was_picked(opened):
    async with opened(size=(60, 20)) as (pilot, app):
        reply = await ui.reply_to(pilot)
        await pilot.press("ctrl+g", "left", "left")
        number = len(reply.tokens) - 3
        await ui.until(pilot, lambda: f"WORD {number + 1} of" in ui.bars_text(app))
        shown = ui.bars_text(app)
        assert segments_of(app, "reverse") == [reply.tokens[number].text]
        assert all(app.screen.query_one(pane).region.area for pane in (TokenBars, Transcript))
    ids = ids_of("bilbo is")
    words = [
        e for e in generate(TextInProgress(make_decoder(), ids, SamplerSettings(), 7)) if isinstance(e, TokenEvent)
    ]
    word, before = words[number], [*ids, *(w.id for w in words[:number])]
    assert f'WORD {number + 1} of {len(words)}  "{word.text}"' in shown
    assert f"rank {word.rank}" in shown
    assert f"after sampling {format_percent(word.sampling_prob)}" in shown
    assert f"entropy {word.entropy:.1f} bits" in shown
    expected = next_token_probs(TextInProgress(make_decoder(), before, SamplerSettings(), is_first_token=False), 8)
    for candidate in expected.candidates:
        bar = rf"{re.escape(candidate.text[:4])}\S*[ █▏▎▍▌▋▊▉]+{candidate.sampling_prob:.1%}"
        assert re.search(bar, shown), candidate


async def test_choosing_an_alternative_by_digit_enter_or_click_creates_a_branch_and_brackets_show_others(opened):
    async with opened() as (pilot, app):
        reply = await ui.reply_to(pilot)
        await pilot.press("ctrl+g", "home", "right", "right")
        await ui.until(pilot, lambda: "WORD 3 of" in ui.bars_text(app))
        for number_of_branches, method in enumerate(("digit", "enter", "click"), 2):
            old = ui.latest_reply(app)
            number, word = ui.alternative_to(app, old.tokens[2].text)
            if method == "digit":
                await pilot.press(str(number))
            elif method == "enter":
                await pilot.press("enter")
            else:
                lines = ui.bars_text(app).splitlines()
                line = next(row for row, text in enumerate(lines) if text.startswith(f"{number} "))
                padding = app.screen.query_one(TokenBars).styles.padding
                await pilot.click(TokenBars, offset=(padding.left + 3, padding.top + line))
            await ui.until(pilot, lambda old=old: ui.latest_reply(app) is not old)
            await ui.until_reply_ended(pilot)
            branch = ui.latest_reply(app)
            assert [w.text for w in branch.tokens[:3]] == [*(w.text for w in reply.tokens[:2]), word]
            assert len(ui.entries(app, Reply)) == 1
            assert f"‹ {number_of_branches}/{number_of_branches} ›" in ui.exchange_text(app)
            assert f'WORD 3 of {len(branch.tokens)}  "{word}"' in ui.bars_text(app)
        for key, shown in (("left_square_bracket", old), ("right_square_bracket", branch)):
            await pilot.press(key)
            await ui.until(pilot, lambda shown=shown: ui.latest_reply(app) is shown)
            assert " ".join(token.text for token in shown.tokens) in ui.exchange_text(app)


async def test_current_word_end_of_line_and_rare_word_are_no_branches(opened):
    decoder = make_decoder()
    decoder.weights["output.bias"][:2] = 6, 3
    async with opened(session_model=SessionModel("test", "", decoder)) as (pilot, app):
        ui.set_field(app, "top_k", "4")  # the removed words follow, likeliest first
        reply = await ui.reply_to(pilot)
        await pilot.press("ctrl+g")
        await pilot.pause()
        shown = ui.bars_text(app).splitlines()
        for name in ("end of line", "rare word"):
            await pilot.press(next(line[0] for line in shown if line[2:].startswith(name)))
            await ui.until(pilot, lambda name=name: f"{name!r} is not a word" in ui.notices(app))
        await pilot.press(next(line[0] for line in shown if line[1:].startswith(f"●{reply.tokens[-1].text}")))
        await ui.until(pilot, lambda: "already the word here" in ui.notices(app))
        assert len(ui.conversation_of(app).replies) == 1
        assert not {"<eos>", "<unk>"} & set(ui.bars_text(app).split())


async def test_regenerate_uses_the_seed_of_the_controls_and_an_edited_prompt_is_sent_again(opened):
    async with opened() as (pilot, app):
        prompt = app.screen.query_one("#prompt", PromptInput)
        await ui.reply_to(pilot)
        await pilot.press("ctrl+r")  # the fixed seed has drawn the reply, so the next one is taken
        await ui.until_reply_ended(pilot)
        assert re.search("^‹ 2/2 › · .* · seed 8 · ", ui.exchange_text(app), re.MULTILINE)
        ui.set_field(app, "max_tokens", "4")
        reply = await ui.reply_to(pilot)
        await pilot.press("ctrl+n")
        await ui.until_reply_ended(pilot)
        assert ui.latest_reply(app).tokens[: len(reply.tokens)] == reply.tokens
        assert len(reply.tokens) < len(ui.latest_reply(app).tokens) <= 8
        assert "›" not in ui.exchange_text(app)
        await pilot.press("ctrl+g", "e")
        await ui.until(pilot, lambda: prompt.value == "bilbo is")
        await pilot.press("escape")
        await ui.until(pilot, lambda: prompt.value == "")
        await pilot.press("ctrl+g", "e", "ctrl+u", "escape")
        await ui.until(pilot, lambda: ui.text_of(app.screen.query_one("#prompt-mark")) == "❯")
        await pilot.press("ctrl+g", "e", *" old", "enter")
        await ui.until_reply_ended(pilot)
        assert ui.latest_reply(app).prompt == "bilbo is old"
        assert ui.exchange_text(app).startswith("❯ bilbo is old\n")
        assert len(ui.entries(app, Reply)) == 2
        assert len(ui.latest_reply(app).turn.replies) == 2


async def test_reply_mode_conditions_on_the_previous_turns(opened):
    async with opened() as (pilot, app):
        await pilot.click("#reply-mode")
        await ui.until(pilot, lambda: ui.text_of(app.screen.query_one("#prompt-mark")) == "reply ❯")
        first, second = await ui.reply_to(pilot), await ui.reply_to(pilot, "the lamp", "8")
        third = await ui.reply_to(pilot, "and knows", "3")
        # Editing an earlier prompt branches the conversation there.
        await pilot.press("ctrl+g", "up", "e")
        other = await ui.reply_to(pilot, "frodo is", "9")
        assert other.turn is second.turn
        assert second.turn.replies == [second, other]
        # The reply to the second prompt does not follow the edited one.
        assert [e.splitlines()[0] for e in ui.entries(app, Reply)] == ["❯ bilbo is", "❯ frodo is"]
        await pilot.press("ctrl+g", "left_square_bracket")
        await pilot.pause()
        assert [e.splitlines()[0] for e in ui.entries(app, Reply)] == ["❯ bilbo is", "❯ the lamp", "❯ and knows"]
        # So does editing the first one, which follows none.
        await pilot.press("ctrl+g", "up", "up", "e")
        changed = await ui.reply_to(pilot, "he knows", "9")
        assert changed.turn.replies == [first, changed]
        assert [e.splitlines()[0] for e in ui.entries(app, Reply)] == ["❯ he knows"]
        await pilot.press("ctrl+g", "left_square_bracket")
        await pilot.pause()
        assert [e.splitlines()[0] for e in ui.entries(app, Reply)] == ["❯ bilbo is", "❯ the lamp", "❯ and knows"]
        # The bars show the distribution of the answer.
        await pilot.press("escape", *"he knows")
        await ui.until(pilot, lambda: "after end of line" in ui.bars_text(app))
        await pilot.pause()
        bars = ui.bars_text(app)
    assert list(second.context_ids) == [*first.token_ids(), EOS_ID, *ids_of("the lamp"), EOS_ID]
    ids = [*third.token_ids(), EOS_ID, *ids_of("he knows"), EOS_ID]
    expected = next_token_probs(TextInProgress(make_decoder(), ids, SamplerSettings()), 3)
    assert bars.splitlines()[2].startswith(expected.candidates[0].text)


# The mouse


def position_of(app, text):
    """Return the offset of the first character of a painted text in the transcript, with its padding."""
    lines = ui.transcript_text(app).splitlines()
    y = next(y for y, line in enumerate(lines) if text in line)
    padding = app.screen.query_one(Transcript).styles.padding
    return padding.left + lines[y].index(text), padding.top + y


async def short_reply_to(pilot, prompt="bilbo is"):
    """Generate a reply of five words, and return them."""
    ui.set_field(pilot.app, "max_tokens", "5")
    return [token.text for token in (await ui.reply_to(pilot, prompt)).tokens]


async def test_click_inspects_a_word_or_the_one_after_a_prompt(opened):
    async with opened(size=(60, 20)) as (pilot, app):
        for _ in range(4):  # the transcript scrolls when the inspector appears below it
            words = await short_reply_to(pilot)
        text = " ".join(words)
        for index in (1, 4):
            x, y = position_of(app, text)
            await pilot.click(Transcript, offset=(x + len(" ".join(words[: index + 1])) - 1, y))
            title = f'WORD {index + 1} of 5  "{words[index]}"'
            await ui.until(pilot, lambda title=title: title in ui.bars_text(app))
