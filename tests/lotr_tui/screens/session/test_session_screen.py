"""The session, driven as a person would."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from engine.config import PRESETS, ModelConfig
from engine.data.vocabulary import EOS, UNK, Vocabulary
from engine.events import Evaluated, Started
from engine.generation.generate import TokenEvent, read, stream
from engine.generation.preview import preview
from engine.generation.settings import SamplerSettings
from engine.models.cache import Cache, CacheSettings
from engine.models.mixture import Mixture
from engine.models.numpy_lstm import Decoder, weight_shapes
from engine.runs.store import LoadedModel
from engine.training import job as jobs
from lotr_tui.app import LotrApp
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.dashboard.screen import TrainScreen
from lotr_tui.screens.dialogs.new_training import NewTraining
from lotr_tui.screens.runs.screen import RunsScreen
from lotr_tui.screens.session.next_word import NextWordBars
from lotr_tui.screens.session.screen import PlayScreen
from lotr_tui.screens.session.transcript import Exchange, Note, Transcript
from lotr_tui.session.player import Player
from lotr_tui.widgets.charts.perplexity_chart import PerplexityChart
from lotr_tui.widgets.prompt import Prompt
from lotr_tui.widgets.status_bar import StatusBar
from lotr_tui.widgets.temperature_slider import TemperatureSlider
from tests.lotr_tui.conftest import VOCABULARY, FakeJob, finished, make_decoder, training_events

MakeApp = Callable[..., LotrApp]


async def until(pilot: Pilot[None], condition: Callable[[], object], seconds: float = 10) -> None:
    """Let the app run until `condition` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the app did not get there"
        await pilot.pause(0.01)


def text_of(widget: object) -> str:
    """What stands on a widget, as plain text."""
    return str(widget.render())  # type: ignore[attr-defined]


def entries(app: LotrApp, kind: type) -> list[str]:
    """The plain text of the exchanges or notes of the transcript."""
    transcript = app.screen.query_one(Transcript)
    chosen = [entry for entry in transcript.entries if isinstance(entry, kind)]
    return ["\n".join(block.plain for block in entry.blocks()) for entry in chosen]


def bars_text(app: LotrApp) -> str:
    bars = app.screen.query_one(NextWordBars)
    return "\n".join(bars.render_line(y).text for y in range(bars.size.height))


def exchange_text(app: LotrApp) -> str:
    return entries(app, Exchange)[-1]


async def send(pilot: Pilot[None], prompt: str) -> None:
    pilot.app.screen.query_one("#prompt", Prompt).value = prompt
    await pilot.press("enter")


def set_field(app: LotrApp, field: str, value: str) -> None:
    app.screen.query_one(f"#{field} Input", Input).value = value


async def test_a_mixture_with_a_cache_plays_like_any_model(make_app: MakeApp) -> None:
    model = Cache(Mixture([make_decoder(1), make_decoder(2)], [0.7, 0.3]), CacheSettings(share=0.2))
    app = make_app(player=Player("one+two", "0.70 one + 0.30 two, cache 0.2", model))
    async with app.run_test(size=(160, 45)) as pilot:
        set_field(app, "seed", "3")
        await send(pilot, "the tower")
        await until(pilot, lambda: "words/s" in exchange_text(app))
        shown = exchange_text(app)
        assert "one+two · 0.70 one + 0.30 two, cache 0.2" in text_of(app.screen.query_one(StatusBar))
    ids = VOCABULARY.encode(["the", "tower"]).tolist()
    words = [e.text for e in stream(model, ids, SamplerSettings(), 3) if isinstance(e, TokenEvent)]
    assert " ".join(words) in " ".join(shown.split())


async def test_a_prompt_is_continued_word_by_word_with_its_seed(make_app: MakeApp, loaded: LoadedModel) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        set_field(app, "seed", "7")
        await send(pilot, "Bilbo Baggins is")
        await until(pilot, lambda: "words/s" in exchange_text(app))
        shown = exchange_text(app)
    ids = VOCABULARY.encode(["bilbo", "baggins", "is"]).tolist()
    events = stream(loaded.decoder, ids, SamplerSettings(temperature=0.8), seed=7)
    words = " ".join(event.text for event in events if isinstance(event, TokenEvent))
    assert words in shown
    assert "❯ Bilbo Baggins is" in shown
    assert "seed 7" in shown
    assert "temperature 0.80" in shown


async def test_typed_keys_reach_the_prompt(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await pilot.press(*"the")
        assert app.screen.query_one("#prompt", Prompt).value == "the"


async def test_words_outside_the_vocabulary_are_named(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await send(pilot, "bilbo xylophone is")
        await until(pilot, lambda: "words/s" in exchange_text(app))
        assert "read as <unk>: xylophone" in exchange_text(app)


async def test_a_prompt_that_cannot_be_read_is_refused_and_nothing_is_lost(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        for prompt in ("", "   ", "xylophone"):
            app.clear_notifications()
            await send(pilot, prompt)
            await pilot.pause()
            assert not entries(app, Exchange)
            assert len(app._notifications) == 1
            assert app.screen.query_one("#prompt", Prompt).value == prompt


async def test_markup_in_a_prompt_is_shown_as_text(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await send(pilot, "[red]bilbo[/red] is [/")
        await until(pilot, lambda: "words/s" in exchange_text(app))
        assert "[red]bilbo[/red] is [/" in exchange_text(app)


async def test_control_characters_in_a_prompt_never_reach_the_terminal(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await send(pilot, "bilbo \x1b]0;owned\x07 is")
        await until(pilot, lambda: "words/s" in exchange_text(app))
        assert "\x1b" not in exchange_text(app)
        assert "\x07" not in exchange_text(app)


async def test_a_model_of_other_words_takes_over_while_words_stream(make_app: MakeApp) -> None:
    other_words = Vocabulary((UNK, EOS, "ring", "is"))
    shapes = weight_shapes(ModelConfig(embedding_size=4, hidden_size=4), 4)
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    other = Decoder(ModelConfig(embedding_size=4, hidden_size=4), other_words, weights)
    app = make_app(pace=40)
    async with app.run_test(size=(160, 45)) as pilot:
        set_field(app, "seed", "0")
        await send(pilot, "bilbo baggins is")
        await until(pilot, lambda: len(exchange_text(app).split()) > 6)
        app.screen._play_with(Player("other", "", other), "")  # type: ignore[attr-defined]
        await until(pilot, lambda: "words/s" in exchange_text(app))
        await pilot.pause()
        assert "at the start" in bars_text(app)
        assert "keeps 2 of 4" in bars_text(app)  # neither <unk> nor, as the first word, <eos>


async def test_escape_stops_the_words_and_keeps_those_that_came(make_app: MakeApp) -> None:
    app = make_app(pace=20)
    async with app.run_test() as pilot:
        set_field(app, "max_tokens", "900")
        set_field(app, "seed", "0")
        await send(pilot, "bilbo is")
        await until(pilot, lambda: len(exchange_text(app).split()) > 6)
        await pilot.press("escape")
        await until(pilot, lambda: "stopped by you" in exchange_text(app))
        assert len(exchange_text(app).split()) > 6


async def test_a_second_prompt_waits_for_the_first_to_end(make_app: MakeApp) -> None:
    app = make_app(pace=5)
    async with app.run_test() as pilot:
        await send(pilot, "bilbo is")
        await pilot.pause(0.1)
        await send(pilot, "frodo is")
        assert len(entries(app, Exchange)) == 1
        assert app.screen.query_one("#prompt", Prompt).value == "frodo is"


async def test_bars_show_the_whole_vocabulary_after_the_typed_words(make_app: MakeApp, loaded: LoadedModel) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        app.screen.query_one("#prompt", Prompt).value = "the lamp"
        await pilot.press("f8", "f8")
        await pilot.pause()
        bars = bars_text(app)
    ids = VOCABULARY.encode(["the", "lamp"]).tolist()
    expected = preview(read(loaded.decoder, ids)[0], SamplerSettings(temperature=0.9), ids, VOCABULARY, 40, first=True)
    assert 'after "lamp"' in bars
    for candidate in expected.candidates[:5]:
        line = next(line for line in bars.splitlines() if line.startswith(candidate.text + " "))
        assert f"{candidate.after:.1%}" in line
        assert f"{candidate.before:.1%}" in line


async def test_moving_the_slider_never_draws(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        set_field(app, "seed", "3")
        texts = []
        for moves in (0, 6):
            await pilot.press(*["f8", "f7"] * moves)
            await send(pilot, "bilbo is")
            await until(pilot, lambda: "words/s" in exchange_text(app))
            texts.append(exchange_text(app).splitlines()[1])
        assert texts[0] == texts[1]


async def test_top_k_and_top_p_reach_the_sampler_and_the_cut_line(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        set_field(app, "top_k", "5")
        await pilot.pause()
        assert "top-k 5 keeps 5 of" in bars_text(app)
        await send(pilot, "bilbo is")
        await until(pilot, lambda: "words/s" in exchange_text(app))
        assert "top-k 5" in exchange_text(app)


async def test_tab_leads_from_the_prompt_to_the_slider_and_round(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 30)) as pilot:
        await pilot.press("tab")
        assert app.screen.focused is app.screen.query_one(TemperatureSlider)
        await pilot.press(".", "5", "shift+tab")
        assert app.screen.focused is app.screen.query_one("#prompt")
        assert app.screen.query_one(TemperatureSlider).value == 0.5


async def test_the_transcript_follows_the_end_unless_scrolled_away(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 20)) as pilot:
        transcript = app.screen.query_one(Transcript)
        for number in range(8):
            transcript.append(Note(f"note {number}"))
        await pilot.pause()
        assert transcript.is_vertical_scroll_end
        await pilot.press("pageup")
        await pilot.pause()
        place = transcript.scroll_offset.y
        assert not transcript.is_vertical_scroll_end
        assert transcript.entries[-1].blocks()[0].plain == "note 7"
        transcript.entries[-1].text = "note 7\n" * 5  # type: ignore[union-attr]
        transcript.last_changed()
        await pilot.pause()
        assert transcript.scroll_offset.y == place
        await pilot.press("pagedown", "pagedown", "pagedown")
        await pilot.pause()
        transcript.last_changed()
        assert transcript.is_vertical_scroll_end
        assert "note 7" in "".join(transcript.render_line(y).text for y in range(transcript.size.height))


async def test_a_field_out_of_range_is_told_when_the_prompt_is_sent(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        for field, value in [("top_p", "0"), ("top_p", "1.5"), ("max_tokens", "0")]:
            app.clear_notifications()
            set_field(app, field, value)
            await send(pilot, "bilbo is")
            await pilot.pause()
            assert not entries(app, Exchange)
            assert "out of range" in next(iter(app._notifications)).message
            set_field(app, field, "")


async def test_panes_on_a_narrow_terminal(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.pause(0.2)
        screen = app.screen
        for pane, seen in (("transcript", Transcript), ("next", NextWordBars), ("training", PerplexityChart)):
            shown = [kind for kind in (Transcript, NextWordBars, PerplexityChart) if screen.query_one(kind).region.area]
            assert shown == [seen], pane
            for fixed in ("#temperature", "#prompt"):
                region = screen.query_one(fixed).region
                assert region.height == 1
                assert screen.region.contains_region(region)
            await pilot.press("f2")
            await pilot.pause()


async def test_everything_is_seen_at_once_on_a_wide_terminal(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.pause(0.2)
        for kind in (Transcript, NextWordBars, PerplexityChart, TemperatureSlider):
            assert app.screen.query_one(kind).region.area


class BreaksAfterThree:
    """A model whose fourth word raises."""

    vocabulary = VOCABULARY

    def __init__(self) -> None:
        self.calls = 0
        self._inner = make_decoder()

    def start(self) -> object:
        return self._inner.start()

    def advance(self, state: object, token: int) -> object:
        if threading.current_thread().name == "generation":
            self.calls += 1
            if self.calls > 5:
                raise ValueError("the weights [broke]")
        return self._inner.advance(state, token)  # type: ignore[arg-type]


async def test_an_error_in_the_worker_is_shown_and_the_app_goes_on(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        screen = app.screen
        assert isinstance(screen, PlayScreen)
        screen._player = type(screen._player)("broken", "", BreaksAfterThree())  # type: ignore[arg-type]
        await send(pilot, "bilbo is")
        await until(pilot, lambda: "broken off" in exchange_text(app))
        assert "ValueError: the weights [broke]" in exchange_text(app)
        screen._player = type(screen._player)("whole", "", make_decoder())
        await send(pilot, "frodo is")
        await until(pilot, lambda: "words/s" in exchange_text(app))


async def test_the_model_takes_over_as_it_learns(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    events = training_events()
    job = FakeJob([*events, finished(make_decoder(99))]).release(3)
    monkeypatch.setattr(jobs, "prepare_job", lambda *_, **__: job)
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        app.screen.begin_training(PRESETS["tiny"])  # type: ignore[attr-defined]
        await until(pilot, lambda: "learning · epoch 0.0" in text_of(app.screen.query_one("#status")))
        first = next(event for event in events if isinstance(event, Evaluated)).model
        assert app.screen._player.model is first  # type: ignore[attr-defined]
        set_field(app, "seed", "1")
        await send(pilot, "bilbo is")
        await until(pilot, lambda: "words/s" in exchange_text(app))
        job.release(100)
        await until(pilot, lambda: "valid 72.5" in text_of(app.screen.query_one("#status")))
        assert any("training ended" in note for note in entries(app, Note))
        started = next(event for event in events if isinstance(event, Started))
        assert app.screen._player.name == started.run  # type: ignore[attr-defined]


async def test_a_training_that_fails_is_told_and_the_app_goes_on(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = FakeJob(training_events()[:3], failure=RuntimeError("out of [memory]")).release()
    monkeypatch.setattr(jobs, "prepare_job", lambda *_, **__: job)
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        app.screen.begin_training(PRESETS["tiny"])  # type: ignore[attr-defined]
        await until(pilot, lambda: any("out of [memory]" in note for note in entries(app, Note)))
        assert not app.is_training
        await send(pilot, "bilbo is")
        await until(pilot, lambda: "words/s" in exchange_text(app))


async def test_ctrl_t_asks_what_to_train_then_shows_the_dashboard(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def prepare(config: object, **_: object) -> FakeJob:
        asked.append(config)
        return FakeJob(training_events()).release(5)

    monkeypatch.setattr(jobs, "prepare_job", prepare)
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+t")
        assert isinstance(app.screen, NewTraining)
        await pilot.press("enter")
        await until(pilot, lambda: asked)
        assert asked == [PRESETS["tiny"]]
        await pilot.press("ctrl+t")
        await pilot.pause()
        assert isinstance(app.screen, TrainScreen)
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(app.screen, PlayScreen)


async def test_a_run_chosen_on_the_dashboard_is_played_with_in_the_session_below(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time another session on top of it would take its own memory, and one more key to leave."""
    monkeypatch.setattr(jobs, "prepare_job", lambda *_, **__: FakeJob(training_events()).release(5))
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        session = app.screen
        await pilot.press("ctrl+t", "enter")
        await until(pilot, lambda: app.training is not None and app.training.started)
        await pilot.press("ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen) and app.screen.query_one(OptionList).option_count)
        await pilot.press("slash", *"bundled", "enter")
        runs = app.screen.query_one(OptionList)
        await until(pilot, lambda: runs.has_focus and runs.option_count == 1)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is session)
        assert app.screen_stack == [session]
        await until(pilot, lambda: any("now playing: bundled" in note for note in entries(app, Note)))


async def test_a_corpus_that_is_not_there_is_told_in_the_dialog(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+t")
        for path in ("/nowhere/x.csv", "x" * 5000, "~nobody-of-this-name/x.csv", "[red]x"):
            app.screen.query_one("#corpus", Input).value = path
            await pilot.press("enter")
            await pilot.pause()
            assert isinstance(app.screen, NewTraining)
            assert f"{path[:200]} is no file" in text_of(app.screen.query_one("#problem"))
            assert not app.is_training


async def test_a_training_without_a_model_yet_leaves_the_curve_that_was_there(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = FakeJob(training_events()[:2], failure=RuntimeError("broke")).release()
    monkeypatch.setattr(jobs, "prepare_job", lambda *_, **__: job)
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        view = TrainingView()
        for event in training_events():
            view.apply(event)
        chart = app.screen.query_one(PerplexityChart)
        await pilot.pause(0.1)
        chart.show(view)
        app.screen.begin_training(PRESETS["tiny"])  # type: ignore[attr-defined]
        await until(pilot, lambda: any("broke" in note for note in entries(app, Note)))
        assert "valid 72.5" in chart.render_line(0).text


async def test_the_runs_are_a_key_away(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await pilot.press("ctrl+o")
        assert isinstance(app.screen, RunsScreen)
        await pilot.press("escape")
        assert isinstance(app.screen, PlayScreen)


async def test_quitting_leaves_no_thread_behind(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    job = FakeJob(training_events()).release(5)
    monkeypatch.setattr(jobs, "prepare_job", lambda *_, **__: job)
    app = make_app(pace=2)
    async with app.run_test() as pilot:
        app.screen.begin_training(PRESETS["tiny"])  # type: ignore[attr-defined]
        await send(pilot, "bilbo is")
        await pilot.pause(0.3)
        await pilot.press("ctrl+q")
    assert job.stopped.wait(1)
    end = time.monotonic() + 1
    while {"training", "generation"} & {thread.name for thread in threading.enumerate()}:
        assert time.monotonic() < end, "a worker outlived the app"
        time.sleep(0.01)


async def test_help_lists_the_keys_of_the_one_table(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("f1")
        await pilot.pause()
        assert app.screen.query("HelpPanel")
        await pilot.press("f1")
        await pilot.pause()
        assert not app.screen.query("HelpPanel")
