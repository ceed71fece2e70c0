"""The strengths of adapters in the session: sliders, bars, replies, commands and saved sessions."""

import re
import shutil
import threading
from pathlib import Path

import pytest

from engine.config import Config
from engine.runs.loading import LoadedModel
from lotr_tui.screens.session.keys import find_hint
from lotr_tui.session import read_text, steering
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.transcript import Note
from lotr_tui.widgets.keys import KeyFooter
from tests.support import pilot as ui
from tests.support.dialogues import with_cast
from tests.support.open_models import adapted_model


def session_model(*names):
    model = adapted_model(*names)
    model.is_slow = True  # so that it reads in a thread
    return SessionModel(names[0], "a small adapter", with_cast(model), run=Path("/runs/film"))


def sliders(app):
    return {slider.change: slider.value for slider in app.screen.slot.sampler.strength_sliders}


def is_exact(app):
    title = next((line for line in ui.bars_text(app).splitlines() if line.startswith("NEXT")), "…")
    return "%" in ui.bars_text(app) and not title.rstrip().endswith("…")


def figures(app):
    return ui.exchange_text(app).splitlines()[-1]


async def say(pilot, app, text="Where is Frodo?"):
    before = ui.conversation_of(app).current_reply
    await ui.send(pilot, text)
    await ui.until(pilot, lambda: ui.conversation_of(app).current_reply is not before)
    await ui.until(pilot, lambda: ui.conversation_of(app).active_reply is None)


async def test_bars_follow_a_step_at_once_and_are_exact_once_the_slider_rests(opened, monkeypatch):
    is_released, read, texts = threading.Event(), read_text.read_next_token, [""]

    def held(reader, text, *arguments):
        is_released.wait(10)
        context = read(reader, text, *arguments)
        texts.append(text.model.tokenizer.decode(text.ids))
        return context

    monkeypatch.setattr(read_text, "read_next_token", held)
    is_released.set()
    async with opened(session_model=session_model("film")) as (pilot, app):
        await ui.until(pilot, lambda: is_exact(app))
        before = ui.bars_text(app)
        await pilot.press(*"Where is Frodo")
        await ui.until(pilot, lambda: "Where is Frodo" in texts[-1] and ui.bars_text(app) != before)
        seen = [ui.bars_text(app)]
        is_released.clear()
        await pilot.press(*["alt+down"] * 10)
        assert not is_exact(app)
        seen.append(ui.bars_text(app))
        is_released.set()
        await ui.until(pilot, lambda: is_exact(app))
        seen.append(ui.bars_text(app))
        assert len({re.sub(" …", "", text) for text in seen}) == 3
        assert sliders(app) == {"film": 0.5}
    async with opened(session_model=session_model("film")) as (pilot, app):
        assert sliders(app) == {"film": 0.5}  # it is remembered for the model
        await pilot.press(*"Where is Frodo")
        await ui.until(pilot, lambda: ui.bars_text(app) == seen[-1])


async def test_a_reply_keeps_the_strength_at_which_it_began_also_in_a_saved_session(opened, home):
    async with opened(session_model=session_model("film")) as (pilot, app):
        for command in ("/set seed 7", "/set best-of 1", "/to Gandalf", "/set length 8"):
            await ui.send(pilot, command)
        await say(pilot, app)
        first = ui.latest_reply(app)
        await ui.send(pilot, "/strength 0.25")
        await pilot.press("ctrl+r")
        await ui.until(pilot, lambda: ui.latest_reply(app) is not first)
        await ui.until(pilot, lambda: ui.conversation_of(app).active_reply is None)
        second = ui.latest_reply(app)
        assert [(each.seed, each.strengths) for each in (first, second)] == [(7, {"film": 1}), (7, {"film": 0.25})]
        assert "strength" not in "\n".join(map(str, ui.exchange_text(app).splitlines()[:-1]))
        assert "· strength 0.25 ·" in figures(app)
        assert first.reply_text() != second.reply_text()
        (path,) = (home / "sessions").glob("*.jsonl")
        await ui.send(pilot, "/strength 1.5")
        app.screen.view.open_session(path)
        await ui.until(pilot, lambda: sliders(app) == {"film": 0.25})
        restored = ui.conversation_of(app).replies
        assert [each.session_model.strengths for each in restored.values()] == [{"film": 1}, {"film": 0.25}]
        await pilot.press("ctrl+r")
        await ui.until(pilot, lambda: len(restored) == 3 and ui.conversation_of(app).active_reply is None)
        assert restored[2].strengths == {"film": 0.25}


async def test_commands_set_the_strength_of_each_adapter_and_refuse_others(opened):
    async with opened(session_model=session_model("film", "romeo"), notifications=True) as (pilot, app):
        for command, expected in [
            ("/strength 0.5", (0.5, 1)), ("/strength romeo 0.256", (0.5, 0.26)), ("/set strength Film 0", (0, 0.26)),
            ("/strength 1.51", "'1.51' is out of range; use 0 (the model as it came) to 1.5"),
            ("/strength much", "'much' is not a number"), ("/strength nan", "strength 'nan' is out of range"),
            ("/strength rome 1", "did you mean romeo?"), ("/adapter romeo:2", "out of range"),
            ("/adapter :1", "write RUN:X"), ("/adapter film off", "is no adapter beside film"),
            ("/adapter romeo:0.75", (0, 0.75)),
        ]:  # fmt: skip
            await ui.send(pilot, command)
            await pilot.pause()
            if isinstance(expected, str):
                assert expected in ui.notices(app), command
            else:
                assert tuple(sliders(app).values()) == expected, command
        assert "film 0.00 + romeo 0.75" in ui.text_of(app.screen.query_one("#status"))
        app.screen.query_one(f"#{app.screen.slot.sampler.strength_sliders[1].id}").focus()
        await pilot.press("right", "alt+up")
        assert sliders(app) == {"film": 0, "romeo": 0.85}
        hints = [find_hint(app.screen.slot.session_model, number) for number in range(1, 8)]
        assert [hint for hint in hints if "strength" in hint] == [hints[4]] != [hints[5]]


async def test_the_footer_has_the_keys_of_the_strength_which_say_why_they_do_nothing_without_an_adapter(opened):
    async with opened(size=(120, 35), session_model=session_model("film")) as (_, app):
        assert "alt+↑↓ strength" in ui.text_of(app.screen.query_one(KeyFooter))
    async with opened(size=(120, 35), notifications=True) as (pilot, app):
        assert "strength" not in ui.text_of(app.screen.query_one(KeyFooter))
        await pilot.press("alt+down")
        await ui.until(pilot, lambda: "/strength needs a model with an adapter" in ui.notices(app))


async def test_adapters_are_put_beside_the_model_and_taken_away(opened, monkeypatch, home, tmp_path):
    def load(name, runs_dir, precision, on_progress, adapters):
        assert name == "/runs/film"
        return LoadedModel("film", Path(name), Config(), adapted_model("film", *adapters), with_cast=with_cast)

    monkeypatch.setattr("engine.runs.loading.load_model_by_name", load)
    async with opened(session_model=session_model("film")) as (pilot, app):
        for command, expected in [
            ("/strength 0.5", {"film": 0.5}),
            ("/adapter romeo:0.25", {"film": 0.5, "romeo": 0.25}),
            ("/adapter tales", {"film": 0.5, "romeo": 0.25, "tales": 1.0}),
            ("/adapter romeo off", {"film": 0.5, "tales": 1.0}),
        ]:
            await ui.send(pilot, command)
            await ui.until(pilot, lambda expected=expected: sliders(app) == expected)
        assert "now using film 0.50 + romeo 0.25 + tales 1.00" in ui.entries(app, Note)
        await say(pilot, app)
        assert ui.latest_reply(app).strengths == expected
        (path,) = (home / "sessions").glob("*.jsonl")
        await ui.send(pilot, "/adapter tales off")
        await ui.until(pilot, lambda: sliders(app) == {"film": 0.5})
        (tales := tmp_path / "runs" / "tales").mkdir(parents=True)
        (tales / "config.json").write_text("{}")
        app.screen.view.open_session(path)
        await ui.until(pilot, lambda: sliders(app) == expected)
        shutil.rmtree(tales)
        await ui.send(pilot, "/adapter tales off")
        await ui.until(pilot, lambda: sliders(app) == {"film": 0.5})
        app.screen.view.open_session(path)
        await ui.until(pilot, lambda: "/adapter tales:1 puts it beside the model again" in ui.transcript_text(app))


async def test_another_adapter_keeps_a_steering_and_waits_until_it_is_found(opened, monkeypatch, tmp_path):
    is_released, find_vector = threading.Event(), steering.find_vector

    def held(*arguments):
        is_released.wait(10)
        yield from find_vector(*arguments)

    def load(name, runs_dir, precision, on_progress, adapters):
        return LoadedModel("film", Path(name), Config(), adapted_model("film", *adapters), with_cast=with_cast)

    monkeypatch.setattr("engine.runs.loading.load_model_by_name", load)
    monkeypatch.setattr(steering, "find_vector", held)
    monkeypatch.chdir(tmp_path)
    Path("good.txt").write_text("What a fine day!\n" * 9)
    Path("bad.txt").write_text("All is lost.\n" * 9)
    async with opened(session_model=session_model("film"), notifications=True) as (pilot, app):
        await ui.send(pilot, "/steer ./good.txt ./bad.txt:0.75")
        await ui.until(pilot, lambda: app.screen.slot.loader is not None)
        await ui.send(pilot, "/adapter romeo")
        await ui.until(pilot, lambda: "steering to ./good.txt ./bad.txt: 0 %; try again" in ui.notices(app))
        is_released.set()
        await ui.until(pilot, lambda: sliders(app) == {"film": 1, "steer good.txt": 0.75})
        await ui.send(pilot, "/adapter romeo:0.25")
        await ui.until(pilot, lambda: sliders(app) == {"film": 1, "romeo": 0.25, "steer good.txt": 0.75})
        await ui.send(pilot, "/adapter romeo off")
        await ui.until(pilot, lambda: sliders(app) == {"film": 1, "steer good.txt": 0.75})
        is_released.clear()
        await ui.send(pilot, "/steer ./bad.txt ./good.txt")
        await ui.until(pilot, lambda: app.screen.slot.loader is not None)
        await ui.send(pilot, "/model film")
        await ui.until(pilot, lambda: "steering to ./bad.txt ./good.txt: 0 %: cancelled" in ui.notices(app))
        await ui.until(pilot, lambda: sliders(app) == {"film": 1})
        is_released.set()


@pytest.mark.parametrize(
    ("size", "names", "num_rows"),
    [((60, 20), 1, 1), ((80, 24), 1, 1), ((160, 45), 1, 1), ((80, 24), 3, 2), ((120, 35), 2, 2)],
)
async def test_several_strengths_have_a_row_of_their_own_and_no_slider_is_cut(opened, size, names, num_rows):
    names = ("film", "romeo", "tales")[:names]
    async with opened(session_model=session_model(*names), size=size) as (pilot, app):
        await ui.until(pilot, lambda: sliders(app))
        await pilot.pause()
        shown = [app.screen.query_one("#temperature"), *app.screen.slot.sampler.strength_sliders]
        assert len({slider.region.y for slider in shown}) == num_rows
        for slider, value in zip(shown, ("0.80", *["1.00"] * len(names)), strict=True):
            assert re.search(rf"├─*●─*┤ {value}$", ui.lines_of(slider).rstrip())
            assert slider.region.right <= size[0]
        assert "seed" in ui.text_of(app.screen.query_one("#run"))


async def test_columns_compare_the_strengths_of_one_seed(opened):
    async with opened(session_model=session_model("film")) as (pilot, app):
        await ui.send(pilot, "/to Gandalf")
        await pilot.press(*"Where is Frodo?")
        await ui.until(pilot, lambda: is_exact(app))
        app.screen.action_inspect("strengths")
        await ui.until(pilot, lambda: ui.screen_name(app) == "StrengthLadderScreen")
        await ui.until(pilot, lambda: all(slot.done_event for slot in app.screen.slots))
        columns = [(slot.title, slot.model.strengths["film"]) for slot in app.screen.slots]
        assert columns == [(f"strength {value:.2f}", value) for value in (0, 0.5, 1, 1.5)]
        assert len({tuple(slot.shown_words) for slot in app.screen.slots}) > 1
        await pilot.press("plus")
        assert app.screen.slots[0].model.strengths == {"film": 0.05}
