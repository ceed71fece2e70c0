"""Tests of the session screen, driven through keys and clicks."""

import threading
import time

import numpy as np
import pytest
from textual.pilot import Pilot
from textual.widgets import OptionList

from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS, UNK
from engine.data.tokenizers.words import WordTokenizer
from engine.events import Evaluated, Started
from engine.generation.generate import TokenEvent, generate
from engine.generation.preview import next_token_probs
from engine.generation.prompt import prefill
from engine.generation.settings import SamplerSettings
from engine.models.cache import CacheSettings, NeuralCache
from engine.models.mixture import Mixture
from engine.models.numpy_lstm import NumpyLSTM, weight_shapes
from engine.presets import PRESETS
from engine.runs.loading import LoadedModel
from engine.training import job as jobs
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.dashboard.screen import DashboardScreen
from lotr_tui.screens.dialogs.help import KeyBindingsPanel
from lotr_tui.screens.dialogs.new_training import NewTrainingDialog
from lotr_tui.screens.runs.screen import RunsScreen
from lotr_tui.screens.session.conversation.transcript import Exchange, Note, Transcript
from lotr_tui.screens.session.next_token_bars import NextTokenBars
from lotr_tui.screens.session.screen import SessionScreen
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.charts.perplexity_chart import PerplexityChart
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from lotr_tui.widgets.status_bar import StatusBar
from lotr_tui.widgets.temperature_slider import TemperatureSlider
from tests.support.app import VOCABULARY, FakeJob, UseJob, finished, make_decoder, training_events
from tests.support.pilot import (
    MakeApp,
    bars_text,
    conversation_of,
    entries,
    exchange_text,
    notices,
    send,
    set_field,
    text_of,
    until,
)


async def send_and_wait(pilot: Pilot[None], prompt: str) -> None:
    """Send a prompt, and wait until its reply is complete."""
    await send(pilot, prompt)
    await until(pilot, lambda: "words/s" in exchange_text(pilot.app))


async def test_mixture_with_cache_generates_like_any_model(make_app: MakeApp) -> None:
    model = NeuralCache(Mixture([make_decoder(1), make_decoder(2)], [0.7, 0.3]), CacheSettings(weight=0.2))
    app = make_app(session_model=SessionModel("one+two", "0.70 one + 0.30 two, cache 0.2", model))
    async with app.run_test(size=(160, 45)) as pilot:
        set_field(app, "seed", "3")
        await send_and_wait(pilot, "the tower")
        shown = exchange_text(app)
        assert "one+two · 0.70 one + 0.30 two, cache 0.2" in text_of(app.screen.query_one(StatusBar))
    ids = VOCABULARY.encode_words(["the", "tower"]).tolist()
    words = [e.text for e in generate(model, ids, SamplerSettings(), 3) if isinstance(e, TokenEvent)]
    assert " ".join(words) in " ".join(shown.split())


async def test_prompt_is_continued_with_its_seed(make_app: MakeApp, loaded: LoadedModel) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        set_field(app, "seed", "7")
        await send_and_wait(pilot, "Bilbo Baggins is")
        shown = exchange_text(app)
    ids = VOCABULARY.encode_words(["bilbo", "baggins", "is"]).tolist()
    events = generate(loaded.decoder, ids, SamplerSettings(temperature=0.8), seed=7)
    words = " ".join(event.text for event in events if isinstance(event, TokenEvent))
    assert words in shown
    assert "❯ Bilbo Baggins is" in shown
    assert "seed 7" in shown
    assert "temperature 0.80" in shown


async def test_typed_keys_reach_the_prompt(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await pilot.press(*"the")
        assert app.screen.query_one("#prompt", PromptInput).value == "the"


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("bilbo xylophone is", "the model does not know: xylophone"),
        ("[red]bilbo[/red] is [/", "[red]bilbo[/red] is [/"),
        ("bilbo \x1b]0;owned\x07 is", "❯ bilbo is\n"),
    ],
    ids=["unknown word", "markup", "control characters"],
)
async def test_unusual_prompt_is_shown_as_plain_text(make_app: MakeApp, prompt: str, text: str) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await send_and_wait(pilot, prompt)
        assert text in exchange_text(app)
        assert not {"\x1b", "\x07"} & set(exchange_text(app))


async def test_unreadable_prompt_is_refused_and_kept(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        for prompt in ("", "   ", "xylophone"):
            app.clear_notifications()
            await send(pilot, prompt)
            await pilot.pause()
            assert not entries(app, Exchange)
            assert len(app._notifications) == 1
            assert app.screen.query_one("#prompt", PromptInput).value == prompt


async def test_model_with_another_vocabulary_replaces_a_generating_one(make_app: MakeApp) -> None:
    other_words = WordTokenizer((UNK, EOS, "ring", "is"))
    shapes = weight_shapes(ModelConfig(embedding_size=4, hidden_size=4), 4)
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    other = NumpyLSTM(ModelConfig(embedding_size=4, hidden_size=4), other_words, weights)
    app = make_app(pace=40)
    async with app.run_test(size=(160, 45)) as pilot:
        set_field(app, "seed", "0")
        await send(pilot, "bilbo baggins is")
        await until(pilot, lambda: len(exchange_text(app).split()) > 6)
        app.screen.set_session_model(SessionModel("other", "", other), "")  # type: ignore[attr-defined]
        await until(pilot, lambda: "words/s" in exchange_text(app))
        await pilot.pause()
        assert "at the start" in bars_text(app)
        assert "2 of 4 words can be sampled" in bars_text(app)  # neither <unk> nor, as the first word, <eos>


async def test_escape_stops_and_keeps_what_was_written(make_app: MakeApp) -> None:
    app = make_app(pace=20)
    async with app.run_test() as pilot:
        set_field(app, "max_tokens", "900")
        set_field(app, "seed", "0")
        await send(pilot, "bilbo is")
        await until(pilot, lambda: len(exchange_text(app).split()) > 6)
        await pilot.press("escape")
        await until(pilot, lambda: "stopped by you" in exchange_text(app))
        assert len(exchange_text(app).split()) > 6


async def test_second_prompt_is_refused_while_a_reply_is_written(make_app: MakeApp) -> None:
    app = make_app(pace=5)
    async with app.run_test() as pilot:
        await send(pilot, "bilbo is")
        await pilot.pause(0.1)
        await send(pilot, "frodo is")
        assert len(entries(app, Exchange)) == 1
        assert app.screen.query_one("#prompt", PromptInput).value == "frodo is"


async def test_bars_follow_the_typed_words(make_app: MakeApp, loaded: LoadedModel) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        app.screen.query_one("#prompt", PromptInput).value = "the lamp"
        await pilot.press("f8", "f8")
        await pilot.pause()
        bars = bars_text(app)
    ids = VOCABULARY.encode_words(["the", "lamp"]).tolist()
    expected = next_token_probs(
        prefill(loaded.decoder, ids)[0], SamplerSettings(temperature=0.9), ids, VOCABULARY, 40, is_first_token=True
    )
    assert 'after "lamp"' in bars
    for candidate in expected.candidates[:5]:
        line = next(line for line in bars.splitlines() if line.startswith(candidate.text + " "))
        assert f"{candidate.sampling_prob:.1%}" in line
        assert f"{candidate.model_prob:.1%}" in line


async def test_moving_the_slider_consumes_no_randomness(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        set_field(app, "seed", "3")
        replies = []
        for moves in (0, 6):
            await pilot.press(*["f8", "f7"] * moves)
            await send_and_wait(pilot, "bilbo is")
            replies.append(exchange_text(app).splitlines()[1])
        assert replies[0] == replies[1]


async def test_top_k_reaches_the_sampler_and_the_cutoff_line(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        set_field(app, "top_k", "5")
        await pilot.pause()
        assert f"top-k 5: 5 of {len(VOCABULARY)} words can be sampled" in bars_text(app)
        await send_and_wait(pilot, "bilbo is")
        assert "top-k 5" in exchange_text(app)


async def test_tab_moves_from_the_prompt_to_the_slider_and_back(make_app: MakeApp) -> None:
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
        top = transcript.scroll_offset.y
        assert not transcript.is_vertical_scroll_end
        assert transcript.entries[-1].blocks()[0].text == "note 7"
        transcript.entries[-1].text = "note 7\n" * 5  # type: ignore[union-attr]
        transcript.refresh_entry(len(transcript.entries) - 1)
        await pilot.pause()
        assert transcript.scroll_offset.y == top
        await pilot.press("pagedown", "pagedown", "pagedown")
        await pilot.pause()
        transcript.refresh_entry(len(transcript.entries) - 1)
        assert transcript.is_vertical_scroll_end
        assert "note 7" in "".join(transcript.render_line(y).text for y in range(transcript.size.height))


async def test_control_out_of_range_is_reported_when_sending(make_app: MakeApp) -> None:
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


async def test_narrow_terminal_shows_one_pane_at_a_time(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.pause(0.2)
        screen = app.screen
        for pane, seen in (("transcript", Transcript), ("next", NextTokenBars), ("training", PerplexityChart)):
            shown = [
                kind for kind in (Transcript, NextTokenBars, PerplexityChart) if screen.query_one(kind).region.area
            ]
            assert shown == [seen], pane
            for fixed in ("#temperature", "#prompt"):
                region = screen.query_one(fixed).region
                assert region.height == 1
                assert screen.region.contains_region(region)
            await pilot.press("f2")
            await pilot.pause()


async def test_wide_terminal_shows_all_panes(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.pause(0.2)
        for kind in (Transcript, NextTokenBars, PerplexityChart, TemperatureSlider):
            assert app.screen.query_one(kind).region.area


class FailingModel:
    """Model that raises an error at the fourth word."""

    tokenizer = VOCABULARY

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


async def test_error_during_generation_is_shown_and_the_app_continues(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        screen = app.screen
        assert isinstance(screen, SessionScreen)
        screen.session_model = type(screen.session_model)("broken", "", FailingModel())  # type: ignore[arg-type]
        await send(pilot, "bilbo is")
        await until(pilot, lambda: "failed: " in exchange_text(app))
        assert "ValueError: the weights [broke]" in exchange_text(app)
        screen.session_model = type(screen.session_model)("whole", "", make_decoder())
        await send_and_wait(pilot, "frodo is")


async def test_session_uses_each_model_of_a_training(make_app: MakeApp, use_job: UseJob) -> None:
    events = training_events()
    job = use_job(FakeJob([*events, finished(make_decoder(99))]).release(3))
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        app.screen.start_training(PRESETS["tiny"])  # type: ignore[attr-defined]
        await until(pilot, lambda: "learning · epoch 0.0" in text_of(app.screen.query_one("#status")))
        first = next(event for event in events if isinstance(event, Evaluated)).model
        assert app.screen.session_model.model is first  # type: ignore[attr-defined]
        set_field(app, "seed", "1")
        await send_and_wait(pilot, "bilbo is")
        job.release(100)
        await until(pilot, lambda: "valid 72.5" in text_of(app.screen.query_one("#status")))
        assert any("training finished" in note for note in entries(app, Note))
        started = next(event for event in events if isinstance(event, Started))
        assert app.screen.session_model.name == started.run  # type: ignore[attr-defined]


async def test_failed_training_is_reported_and_the_app_continues(make_app: MakeApp, use_job: UseJob) -> None:
    use_job(FakeJob(training_events()[:3], failure=RuntimeError("out of [memory]")).release())
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        app.screen.start_training(PRESETS["tiny"])  # type: ignore[attr-defined]
        await until(pilot, lambda: any("out of [memory]" in note for note in entries(app, Note)))
        assert not app.is_training
        await send_and_wait(pilot, "bilbo is")


async def test_ctrl_t_asks_for_a_training_then_shows_its_dashboard(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = []

    def prepare(config: object, **_: object) -> FakeJob:
        configs.append(config)
        return FakeJob(training_events()).release(5)

    monkeypatch.setattr(jobs, "prepare_job", prepare)
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+t")
        assert isinstance(app.screen, NewTrainingDialog)
        await pilot.press("enter")
        await until(pilot, lambda: configs)
        assert configs == [PRESETS["tiny"]]
        await pilot.press("ctrl+t")
        await pilot.pause()
        assert isinstance(app.screen, DashboardScreen)
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(app.screen, SessionScreen)


async def test_run_chosen_on_the_dashboard_is_used_in_the_session(make_app: MakeApp, use_job: UseJob) -> None:
    """A second session above the first one would take memory, and one more key to leave."""
    use_job(FakeJob(training_events()).release(5))
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        session = app.screen
        await pilot.press("ctrl+t", "enter")
        await until(pilot, lambda: app.training_view is not None and app.training_view.started)
        await pilot.press("ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen))
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen) and app.screen.query_one(OptionList).option_count)
        await pilot.press("slash", *"bundled", "enter")
        runs = app.screen.query_one(OptionList)
        await until(pilot, lambda: runs.has_focus and runs.option_count == 1)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is session)
        assert app.screen_stack == [session]
        await until(pilot, lambda: any("now using bundled" in note for note in entries(app, Note)))


async def test_training_without_evaluations_keeps_the_previous_chart(make_app: MakeApp, use_job: UseJob) -> None:
    use_job(FakeJob(training_events()[:2], failure=RuntimeError("broke")).release())
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        view = TrainingView()
        for event in training_events():
            view.apply(event)
        chart = app.screen.query_one(PerplexityChart)
        await pilot.pause(0.1)
        chart.show(view)
        app.screen.start_training(PRESETS["tiny"])  # type: ignore[attr-defined]
        await until(pilot, lambda: any("broke" in note for note in entries(app, Note)))
        assert "valid 72.5" in chart.render_line(0).text


async def test_ctrl_o_lists_the_runs(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await pilot.press("ctrl+o")
        assert isinstance(app.screen, RunsScreen)
        await pilot.press("escape")
        assert isinstance(app.screen, SessionScreen)


async def test_quitting_leaves_no_thread_behind(make_app: MakeApp, use_job: UseJob) -> None:
    job = use_job(FakeJob(training_events()).release(5))
    app = make_app(pace=2)
    async with app.run_test() as pilot:
        app.screen.start_training(PRESETS["tiny"])  # type: ignore[attr-defined]
        await send(pilot, "bilbo is")
        await pilot.pause(0.3)
        await pilot.press("ctrl+q", "s")
    assert job.stopped.wait(1)
    end = time.monotonic() + 1
    while {"training", "generation"} & {thread.name for thread in threading.enumerate()}:
        assert time.monotonic() < end, "a worker outlived the app"
        time.sleep(0.01)


async def test_help_lists_the_keys_of_the_binding_table(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("f1")
        await pilot.pause()
        assert app.screen.query(KeyBindingsPanel)
        await pilot.press("f1")
        await pilot.pause()
        assert not app.screen.query(KeyBindingsPanel)


async def test_ctrl_c_stops_a_reply_and_otherwise_says_once_how_to_quit(make_app: MakeApp) -> None:
    app = make_app(pace=2)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(pilot, "bilbo is")
        await until(pilot, lambda: conversation_of(app).active_reply is not None)
        await pilot.press("ctrl+c")
        await until(pilot, lambda: conversation_of(app).active_reply is None)
        assert not notices(app)
        await pilot.press("ctrl+c")
        assert notices(app) == "ctrl+q quits"
        await pilot.press("ctrl+c")
        assert notices(app) == "ctrl+q quits"
        assert app.return_code is None
