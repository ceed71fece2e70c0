"""The session: prompt a model, watch its words come, see what may come next."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Footer, Input, Label, Rule, TextArea

from engine.config import Config
from engine.errors import LotrError, printable
from engine.events import Evaluated, Finished, TrainingEvent
from engine.runs import load, resolve
from engine.sampling import Done, SamplerSettings, TokenEvent, draw_seed, encode_prompt, preview
from engine.worker import Worker
from lotr_tui.history import History
from lotr_tui.messages import PaneChosen, TemperatureChanged, TrainingChanged
from lotr_tui.session import Player, Reader, start_stream
from lotr_tui.theme import MUTED
from lotr_tui.training_view import TrainingView
from lotr_tui.widgets.next_word import NextWordBars
from lotr_tui.widgets.number_field import NumberField
from lotr_tui.widgets.pane_tabs import PANES, PaneTabs
from lotr_tui.widgets.perplexity_chart import PerplexityChart
from lotr_tui.widgets.prompt import Prompt
from lotr_tui.widgets.status_bar import StatusBar
from lotr_tui.widgets.temperature_slider import TemperatureSlider
from lotr_tui.widgets.transcript import Exchange, Note, Transcript
from lotr_tui.wording import duration

if TYPE_CHECKING:
    from lotr_tui.app import LotrApp

DRAIN_SECONDS = 0.05
BARS_SECONDS = 0.2
"""Between two looks at the bars while words stream; faster, nobody could read them."""
CANDIDATES = 40
"""Bars computed; as many are shown as there is room for."""


class PlayScreen(Screen[None]):
    """Transcript, next-word bars, the curve of a training; below them the controls and the prompt."""

    AUTO_FOCUS = "#prompt"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "escape", "stop", "stop", id="play.stop", tooltip="Stop the words; those that came stay", priority=True
        ),
        Binding("f2", "next_pane", "pane", id="play.pane", tooltip="On a narrow terminal: another pane"),
        Binding(
            "f7", "temperature(-1)", "temp", key_display="f7/8", id="play.cooler", tooltip="Temperature 0.05 lower"
        ),
        Binding("f8", "temperature(1)", "hotter", show=False, id="play.hotter", tooltip="Temperature 0.05 higher"),
        Binding("ctrl+t", "train", "train", id="play.train", tooltip="Start a training, or see the one going on"),
        Binding("ctrl+o", "choose_model", "model", id="play.model", tooltip="Play with another run's model"),
        Binding("ctrl+l", "ladder", "ladder", id="play.ladder", tooltip="The prompt at several temperatures"),
        Binding("ctrl+y", "side_by_side", "compare", id="play.compare", tooltip="The prompt with several models"),
        Binding("ctrl+e", "lens", "lens", id="play.lens", tooltip="Bits a word of a text of yours"),
        Binding("pageup", "scroll(-1)", "scroll up", show=False, id="play.up", tooltip="Earlier exchanges"),
        Binding("pagedown", "scroll(1)", "scroll down", show=False, id="play.down", tooltip="Later exchanges"),
        Binding("ctrl+c", "stop", "stop", show=False, id="play.interrupt", priority=True),
    ]

    def __init__(self, player: Player, run: Path | None, runs_dir: Path | None, pace: float) -> None:
        """Play with `player`, the model of the run directory `run` (None: of a training that goes on)."""
        super().__init__()
        self._player = player
        self._reader = Reader(player.model)
        self._run = run
        self._runs_dir = runs_dir
        self._pace = pace
        self._follows = run is None
        self._stream: Worker[TokenEvent | Done] | None = None
        self._exchange: Exchange | None = None
        self._ids_so_far: list[int] = []
        self._vocabulary = player.model.vocabulary  # that these ids are of
        self._corpus = player.corpus
        self._bars_shown = 0.0

    @classmethod
    def learning(cls, view: TrainingView, runs_dir: Path | None, pace: float) -> "PlayScreen":
        """A session with the model of a training, which gets better as it goes on."""
        player = _learner(view, [view.finished] if view.finished else view.evaluations[-1:])
        assert player is not None, "the dashboard offers this once there is a model"
        return cls(player, None, runs_dir, pace)

    @property
    def lotr(self) -> "LotrApp":
        """The app, with its own type."""
        return cast("LotrApp", self.app)

    def compose(self) -> ComposeResult:
        """Status, the panes, controls, prompt, keys."""
        yield StatusBar(id="status")
        yield PaneTabs(id="panes")
        yield Rule(line_style="solid")
        with Horizontal(id="body"):
            yield Transcript(self._welcome(), id="transcript")
            with Vertical(id="side"):
                yield NextWordBars(id="next")
                yield PerplexityChart(id="training")
        yield Rule(line_style="solid")
        with Horizontal(id="controls"):
            yield TemperatureSlider(0.8, id="temperature")
            yield NumberField("top-k", "", id="top_k", width=4, placeholder="all")
            yield NumberField("top-p", "", id="top_p", width=4, placeholder="1", decimal=True)
            yield NumberField("seed", "", id="seed", width=8, placeholder="drawn")
            yield NumberField("words", "30", id="max_tokens", width=4, placeholder="30")
        with Horizontal(id="prompt-line"):
            yield Label("❯", id="prompt-mark")
            yield Prompt(self._player.model.vocabulary, History(), id="prompt")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        """Show the model; what takes longer comes after the first paint."""
        self._drain_timer: Timer = self.set_interval(DRAIN_SECONDS, self._drain, pause=True)
        self._show_status()
        self.call_after_refresh(self._show_next_words)
        self.set_timer(0.05, self._show_curve_of_model)

    # The prompt and its reply

    @on(Prompt.Submitted, "#prompt")
    def _send(self, event: Prompt.Submitted) -> None:
        if self._stream is not None:
            self.notify("Words are still coming; esc stops them.")
            return
        model = self._player.model
        try:
            prompt = encode_prompt(event.value, model.vocabulary)
            settings = self._settings()
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)
            return
        seed_field = self.query_one("#seed", NumberField).whole()
        seed = draw_seed() if seed_field is None else seed_field
        self._exchange = Exchange(printable(prompt.text), prompt.unknown, seed, settings.chain())
        self.query_one("#transcript", Transcript).append(self._exchange)
        self._ids_so_far = list(prompt.ids)
        self._vocabulary = model.vocabulary
        event.prompt.clear()
        self._stream = start_stream(model, prompt.ids, settings, seed, self._pace)
        self._drain_timer.resume()

    def _drain(self) -> None:
        """Show the words that came since the last tick."""
        worker, exchange = self._stream, self._exchange
        if worker is None or exchange is None:
            return
        ended = not worker.running
        events = worker.drain()
        if events:
            exchange.add(events)
            self.query_one("#transcript", Transcript).last_changed()
            self._ids_so_far += [event.id for event in events if isinstance(event, TokenEvent)]
            if ended or time.monotonic() - self._bars_shown >= BARS_SECONDS:
                self._show_next_words()
        if ended:
            self._drain_timer.pause()
            self._stream = None
            if worker.failure is not None:
                exchange.fail(f"{type(worker.failure).__name__}: {worker.failure}")
                self.query_one("#transcript", Transcript).last_changed()

    @on(Prompt.Notice)
    def _tell(self, event: Prompt.Notice) -> None:
        self.notify(event.text, severity="warning", markup=False)

    def action_stop(self) -> None:
        """Stop the words that are coming."""
        if self._stream is not None:
            self._stream.cancel()
        else:
            self.query_one("#prompt", Prompt).focus()

    def action_scroll(self, direction: int) -> None:
        """A page through the transcript, wherever the cursor is."""
        transcript = self.query_one("#transcript", Transcript)
        if direction < 0:
            transcript.scroll_page_up(animate=False)
        else:
            transcript.scroll_page_down(animate=False)

    def on_unmount(self) -> None:
        """Leave no thread behind."""
        if self._stream is not None:
            self._stream.cancel()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """On a wide terminal all panes are seen, so there is no next one."""
        return action != "next_pane" or self.has_class("-narrow")

    # The controls and the bars that follow them

    def action_temperature(self, steps: int) -> None:
        """Move the slider from wherever the cursor is."""
        self.query_one("#temperature", TemperatureSlider).action_move(steps)

    @on(TemperatureChanged)
    @on(Input.Changed)
    @on(TextArea.Changed)
    def _controls_changed(self) -> None:
        if self._stream is None:  # while words come the bars follow those, and take note of the controls too
            self._show_next_words()

    def _settings(self) -> SamplerSettings:
        """What the controls say.

        Raises:
            UnusableInput: a value is out of range.
        """
        fields = {
            "top_k": self.query_one("#top_k", NumberField).whole(),
            "top_p": self.query_one("#top_p", NumberField).number(),
            "max_tokens": self.query_one("#max_tokens", NumberField).whole(),
        }
        given: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
        return SamplerSettings(temperature=self.query_one("#temperature", TemperatureSlider).value, **given)

    def _show_next_words(self) -> None:
        """Bars for what may follow the prompt being typed, or else the last words; nothing is drawn for it."""
        try:
            settings = self._settings()
        except LotrError:
            return  # half-typed; said when the prompt is sent
        self._bars_shown = time.monotonic()
        vocabulary = self._player.model.vocabulary
        typed = vocabulary.tokenize(self.query_one("#prompt", Prompt).value)
        same_words = self._vocabulary == vocabulary  # else they were said by a model that played before
        ids = vocabulary.encode(typed).tolist() if typed else self._ids_so_far if same_words else []
        first = bool(typed) or self._exchange is None or not self._exchange.words
        next_words = preview(self._reader.after(ids), settings, ids, vocabulary, CANDIDATES, first=first)
        after = vocabulary.words[ids[-1]] if ids else ""
        self.query_one("#next", NextWordBars).show(next_words, after, settings.chain())

    # Other ways to look at the model

    def action_ladder(self) -> None:
        """The prompt at several temperatures."""
        from lotr_tui.screens.ladder import LadderScreen

        if (settings := self._checked_settings()) is not None:
            seed = self.query_one("#seed", NumberField).whole()
            self.app.push_screen(LadderScreen(self._player, self._prompt_at_hand(), settings, seed, self._pace))

    def action_side_by_side(self) -> None:
        """The prompt with several models."""
        from lotr_tui.screens.side_by_side import SideBySideScreen

        if (settings := self._checked_settings()) is not None:
            seed, prompt = self.query_one("#seed", NumberField).whole(), self._prompt_at_hand()
            self.app.push_screen(SideBySideScreen(self._player, self._runs_dir, prompt, settings, seed, self._pace))

    def action_lens(self) -> None:
        """Bits a word of a text, to begin with what was said last."""
        from lotr_tui.screens.lens import LensScreen

        self.app.push_screen(LensScreen(self._player, self._prompt_at_hand()))

    def _prompt_at_hand(self) -> str:
        """What is being typed, or else the last prompt."""
        return self.query_one("#prompt", Prompt).value or (self._exchange.prompt if self._exchange else "")

    def _checked_settings(self) -> SamplerSettings | None:
        try:
            return self._settings()
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)
            return None

    # Models and trainings

    def action_choose_model(self) -> None:
        """Play with another run's model."""
        from lotr_tui.screens.choose_model import ChooseModel

        self.app.push_screen(ChooseModel(self._runs_dir), self._chosen)

    def _chosen(self, name: str | None) -> None:
        if name is None:
            return
        try:
            loaded = load(resolve(name, self._runs_dir))
        except LotrError as error:
            self.notify(str(error), severity="error", markup=False)
            return
        self._follows = False
        self._run = loaded.path
        self._corpus = loaded.config.data.corpus
        self._play_with(Player.of(loaded), f"now playing: {loaded.name}")
        if not self.lotr.is_training:
            self._show_chart(TrainingView.of_run(loaded.path))

    def action_train(self) -> None:
        """Ask what to train; while a training goes on, show its dashboard."""
        if self.lotr.is_training and self.lotr.training is not None:
            from lotr_tui.screens.train import TrainScreen

            self.app.push_screen(TrainScreen(self.lotr.training))
            return
        from lotr_tui.screens.new_training import NewTraining

        self.app.push_screen(NewTraining(self._corpus), self._asked)

    def _asked(self, config: Config | None) -> None:
        if config is not None:
            self.begin_training(config)

    def begin_training(self, config: Config) -> None:
        """Train, and play with the model as it learns."""
        self._follows = True
        self._corpus = config.data.corpus
        self.lotr.start_training(config)
        self._note(f"training {config.preset}; each evaluation's model takes over here: prompt it as it learns")

    def on_training_changed(self, message: TrainingChanged) -> None:
        """The training went on: its figures, its curve, and the model as it stands."""
        if message.view.evaluations:
            self._show_chart(message.view)
        self._show_status()
        if message.view.failure:
            self._note(f"training failed: {message.view.failure}")
        player = _learner(message.view, message.events) if self._follows else None
        if player is not None:
            ended = any(isinstance(event, Finished) for event in message.events)
            self._play_with(player, f"training ended; now playing its best: {player.description}" if ended else "")

    def _play_with(self, player: Player, note: str) -> None:
        self._player = player
        self._reader = Reader(player.model)
        self.query_one("#prompt", Prompt).vocabulary = player.model.vocabulary
        if note:
            self._note(note)
        self._show_status()
        self._show_next_words()

    # What is shown

    def _note(self, text: str) -> None:
        self.query_one("#transcript", Transcript).append(Note(text))

    def action_next_pane(self) -> None:
        """The next of transcript, next word, training."""
        panes = list(PANES)
        tabs = self.query_one("#panes", PaneTabs)
        self._show_pane(panes[(panes.index(tabs.pane) + 1) % len(panes)])

    def on_pane_chosen(self, message: PaneChosen) -> None:
        """A pane was clicked."""
        self._show_pane(message.pane)

    def _show_pane(self, pane: str) -> None:
        self.query_one("#panes", PaneTabs).pane = pane
        for name in PANES:
            self.set_class(name == pane, f"-pane-{name}")
        self.call_after_refresh(self._show_next_words)

    def _show_status(self) -> None:
        left = Content.assemble(
            ("lotr-tui", "bold $accent"),
            "  ",
            (self._player.name, "bold"),
            (f" · {self._player.description}", MUTED),
        )
        view = self.lotr.training
        right = Content("")
        if view is not None and view.active:
            text = f"training: {view.note}"
            if view.started and view.evaluations:
                left_over = f" · {duration(view.steps[-1].eta_seconds)} left" if view.steps else ""
                valid = view.evaluations[-1].valid_perplexity
                text = f"training epoch {view.epoch:.1f}/{view.epochs} · {valid:.1f}{left_over}"
            right = Content.styled(text, "$accent")
        self.query_one("#status", StatusBar).show(left, right)

    def _show_curve_of_model(self) -> None:
        """The curve of the training that goes on, or of the one that made this model."""
        view = self.lotr.training or (TrainingView.of_run(self._run) if self._run else None)
        if view is not None:
            self._show_chart(view)

    def _show_chart(self, view: TrainingView) -> None:
        self.query_one("#training", PerplexityChart).show(view)

    def _welcome(self) -> str:
        vocabulary = self._player.model.vocabulary
        tries = [
            text
            for text in ("Bilbo Baggins is", "Where is Frodo", "The lamp")
            if all(word in vocabulary for word in vocabulary.tokenize(text))
        ]
        first = f'"{tries[0]}"' if tries else "a few words"
        return (
            f"This is {self._player.name}, a small LSTM language model that knows {len(vocabulary):,} words. "
            f"Type {first} and press enter: it goes on, word by word. Then press F7 and F8 for a cooler or "
            "hotter temperature, and see how the bars of the next word change. ctrl+t trains a model while you play."
        )


def _learner(view: TrainingView, events: Sequence[TrainingEvent]) -> Player | None:
    """The latest model among `events`, named after its training."""
    models = [event for event in events if isinstance(event, (Evaluated, Finished)) and event.model is not None]
    if not models or view.started is None:
        return None
    event = models[-1]
    assert event.model is not None
    if isinstance(event, Finished):
        description = f"valid {event.valid_perplexity:.1f} (Kneser-Ney {view.started.kneser_ney_perplexity:.1f})"
    else:
        description = f"learning · epoch {event.epoch:.1f} · valid {event.valid_perplexity:.1f}"
    return Player(view.started.run, description, event.model)
