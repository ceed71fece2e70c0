"""Helpers that drive the app through a Textual pilot and read its widgets."""

import re
import time

from lotr_tui.session.reply import Reply
from lotr_tui.session.transcript import entry_blocks, reply_figures


async def until(pilot, condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        await pilot.pause(0.01)


def text_of(widget):
    return str(widget.render())


def lines_of(widget):
    return "\n".join(widget.render_line(y).text for y in range(widget.size.height))


def notices(app):
    return "\n".join(each.message for each in app._notifications)  # noqa: SLF001  # no public access


def screen_name(app):
    return type(app.screen).__name__


# The session


def conversation_of(app):
    return app.screen.query_one("ConversationView").conversation


def latest_reply(app):
    reply = conversation_of(app).current_reply
    assert reply is not None
    return reply


def entries(app, entry_type):
    """Return the texts of the exchanges or notes of the transcript, without figures."""
    transcript = app.screen.query_one("Transcript")
    found = [entry for entry in transcript.entries if isinstance(entry, entry_type)]
    return ["\n".join(block.text for block in entry_blocks(entry)) for entry in found]


def exchange_text(app):
    """Return the text of the last exchange, with its figures below the reply once that has ended."""
    reply = [entry for entry in app.screen.query_one("Transcript").entries if isinstance(entry, Reply)][-1]
    lines = [block.text for block in entry_blocks(reply)]
    if not reply.is_generating:
        lines.append(reply_figures(reply))
    return "\n".join(lines)


def transcript_text(app):
    return lines_of(app.screen.query_one("Transcript"))


def bars_text(app):
    return lines_of(app.screen.query_one("TokenBars"))


def alternative_to(app, token):
    """Return the number and text of an alternative to the token under the cursor that differs from `token`."""
    alternatives = re.findall(r"^([1-8])[ ●]([a-z']+)", bars_text(app), re.MULTILINE)
    return next((int(number), text) for number, text in alternatives if text != token)


def set_field(app, field, value):
    app.screen.query_one("SamplerPanel").set_texts({field: value})


async def press_letter(pilot, letter):
    """Press a letter where it is a key of the conversation."""
    await pilot.press("ctrl+g", letter)


async def send(pilot, prompt):
    prompt_input = pilot.app.screen.query_one("#prompt")
    prompt_input.value = prompt
    prompt_input.focus()
    await pilot.press("enter")


async def until_reply_ended(pilot):
    app = pilot.app
    await until(pilot, lambda: conversation_of(app).active_reply is None and conversation_of(app).current_reply)
    await pilot.pause()


async def reply_to(pilot, prompt="bilbo is", seed="7"):
    set_field(pilot.app, "seed", seed)
    await send(pilot, prompt)
    await until_reply_ended(pilot)
    return latest_reply(pilot.app)


# The dashboard


def dashboard_text(app):
    """Return the status line and the first lines of the metrics, the tiles and the chart."""
    widgets = [app.screen.query_one(kind) for kind in ("TrainingMetrics", "MetricTiles", "PerplexityChart")]
    lines = [widget.render_line(row).text for widget in widgets for row in range(3)]
    return "\n".join([text_of(app.screen.query_one("#status")), *lines])
