"""Steering in the session: progress, the note, the slider of the vector, and replies without it."""

import threading

from lotr_tui.session import steering
from lotr_tui.session.session_model import SessionModel
from tests.support import pilot as ui
from tests.support.dialogues import with_cast
from tests.support.networks import random_transformer
from tests.support.open_models import bpe_tokenizer

MODEL = SessionModel("plain", "small", with_cast(random_transformer(bpe_tokenizer(), num_layers=3)), source="hf:plain")


def sliders(app):
    return {slider.change: slider.value for slider in app.screen.slot.sampler.strength_sliders}


async def test_a_steered_reply_keeps_its_vector_and_reads_without_it(opened, home):
    async with opened(session_model=MODEL, notifications=True) as (pilot, app):
        await ui.send(pilot, "/steer Gollum")
        await ui.until(pilot, lambda: sliders(app) == {"steer Gollum": 1})
        await ui.until(pilot, lambda: "strength 1 moves layer 2 of 3" in ui.transcript_text(app))
        assert "steer Gollum ├" in ui.text_of(app.screen.slot.sampler.strength_sliders[0])
        assert "0: not steered" in app.screen.slot.sampler.strength_sliders[0].HELP_LINE
        await ui.send(pilot, "/strength gollum 9")
        await ui.until(pilot, lambda: "use 0 (not steered) to 1.5" in ui.notices(app))
        assert "now using" not in ui.transcript_text(app)  # which the note about the steering says
        await ui.send(pilot, "/steer gollum:1.5")
        await ui.until(pilot, lambda: sliders(app) == {"steer Gollum": 1.5})
        for command in ("/set best-of 1", "/set length 8", "/strength gollum 0.5"):
            await ui.send(pilot, command)
        await ui.send(pilot, "Where is Frodo?")
        await ui.until(pilot, lambda: ui.conversation_of(app).current_reply is not None)
        await ui.until(pilot, lambda: ui.conversation_of(app).active_reply is None)
        reply = ui.latest_reply(app)
        assert reply.strengths == {"steer Gollum": 0.5}
        await ui.send(pilot, "/steer off")
        await ui.until(pilot, lambda: not sliders(app))
        await ui.send(pilot, "/steer Golum")
        await ui.until(pilot, lambda: "did you mean GOLLUM?" in ui.notices(app))
        await ui.send(pilot, "/steer off")
        await ui.until(pilot, lambda: "the model is not steered" in ui.notices(app))
        text, (path,) = reply.text(), (home / "sessions").glob("*.jsonl")
    async with opened(session_model=MODEL) as (pilot, app):
        app.screen.view.open_session(path)
        await pilot.pause()
        restored = ui.latest_reply(app)
        assert (restored.text(), restored.strengths) == (text, {"steer Gollum": 0.5})
        await ui.until(pilot, lambda: sliders(app) == {"steer Gollum": 0.5})
        assert restored.session_model.strengths == {"steer Gollum": 0.5}


async def test_the_report_of_a_steering_never_stands_below_replies_that_were_written_without_it(opened, monkeypatch):
    found, find_vector = threading.Event(), steering.find_vector

    def find_slowly(*arguments):
        found.wait(30)
        yield from find_vector(*arguments)

    monkeypatch.setattr(steering, "find_vector", find_slowly)
    async with opened(session_model=MODEL, notifications=True) as (pilot, app):
        for command in ("/set best-of 1", "/set length 4", "/steer Gollum", "Where is Frodo?"):
            await ui.send(pilot, command)
        await ui.until(pilot, lambda: ui.conversation_of(app).current_reply is not None)
        await ui.until(pilot, lambda: ui.conversation_of(app).active_reply is None)
        assert ui.latest_reply(app).strengths == {}
        found.set()
        await ui.until(pilot, lambda: "strength 1 moves layer 2 of 3" in ui.notices(app))
        assert sliders(app) == {"steer Gollum": 1}
        assert "moves layer" not in ui.transcript_text(app)
