"""The session: prompt a model, watch its words come, see what may come next and what else might have come."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import events, on
from textual.binding import BindingType
from textual.widget import Widget
from textual.widgets import Label, TextArea

from engine.errors import LotrError
from engine.generation.settings import SamplerSettings, draw_seed
from lotr_tui.messages import TrainingChanged
from lotr_tui.screens.runs.open_run import open_runs
from lotr_tui.screens.session.bindings import PLAY_KEYS
from lotr_tui.screens.session.frame import SessionFrame
from lotr_tui.screens.session.inspectors import AtHand, Look, screen_of
from lotr_tui.screens.session.reply_mode_label import WayLabel
from lotr_tui.screens.session.status import SessionStatus
from lotr_tui.session.settings import Way
from lotr_tui.widgets.prompt import Prompt

if TYPE_CHECKING:  # with numpy, which the first paint does without
    from engine.config import Config
    from engine.runs.store import LoadedModel
    from lotr_tui.monitor.training_view import TrainingView
    from lotr_tui.screens.session.conversation_view import ConversationView
    from lotr_tui.screens.session.next_word import NextWordBars
    from lotr_tui.screens.session.run_curve import RunCurve
    from lotr_tui.screens.session.word_inspector import WordInspector
    from lotr_tui.session.conversation import Reply
    from lotr_tui.session.player import Player
    from lotr_tui.widgets.sampler_panel import SamplerPanel
    from lotr_tui.widgets.temperature_slider import TemperatureSlider

BARS_SECONDS = 0.2
"""Between two looks at the bars while words stream; faster, nobody could read them."""
PACES = (5.0, 10.0, 25.0, 100.0, 0.0)
"""Words a second to choose from; 0 is as fast as they come."""


class PlayScreen(SessionFrame):
    """Transcript, next-word bars, the curve of a training; below them the controls and the prompt."""

    BINDINGS: ClassVar[list[BindingType]] = PLAY_KEYS

    def __init__(
        self,
        player: "Player | None",
        runs_dir: Path | None,
        pace: float,
        *,
        opening: "Callable[[], Player] | None" = None,
        follows: bool = False,
    ) -> None:
        """Play with `player`, or with what `opening` makes behind the first paint.

        A prompt that is sent before there is a model waits for it. Where the session `follows` the training that
        goes on, its models take over.
        """
        super().__init__(player, opening)
        self._follows = follows
        self._run: Path | None = None
        self._corpus = ""
        self._runs_dir = runs_dir
        self._pace = pace
        self._way: Way = "continue"
        self._edited: Reply | None = None
        self._unsent: Prompt.Submitted | None = None
        self._said_no_lines = False
        self._bars_shown = 0.0

    @classmethod
    def learning(cls, view: "TrainingView", runs_dir: Path | None, pace: float) -> "PlayScreen":
        """A session with the model of a training, which gets better as it goes on."""
        from lotr_tui.session.player import Player

        player = Player.learning(view, [view.finished] if view.finished else view.evaluations[-1:], runs_dir)
        assert player is not None, "the dashboard offers this once there is a model"
        return cls(player, runs_dir, pace, follows=True)

    def _parts(self) -> tuple[list[Widget], list[Widget]]:
        from lotr_tui.screens.session.panes import controls, panes

        asked = self._asked_for
        return panes(self._player.welcome(), self._pace, asked), controls(self.lotr.kept.current.sampler, self._way)

    def _opened(self) -> None:
        """Show the model; what takes longer comes after the next paint."""
        from lotr_tui.session.next_words import WhatIsNext

        self._next = WhatIsNext(self._player)
        self._run = None if self._follows else self._player.run
        self._corpus = self._corpus or self._player.corpus
        if self.lotr.kept.current.way != self._way:
            self.action_way()
        self._show_status()
        self.call_after_refresh(self._show_next_words)
        self.set_timer(0.05, self._show_curve_of_model)
        if self._unsent is not None:
            self._send(self._unsent)

    # The prompt and its reply

    @property
    def _talk(self) -> "ConversationView":
        return cast("ConversationView", self.query_one("#conversation"))

    @on(Prompt.Submitted, "#prompt")
    def _send(self, event: Prompt.Submitted) -> None:
        self._unsent = None if self._is_open else event
        if not self._is_open:
            return
        try:
            self._talk.send(self._player, event.value, self._way, self._answered())
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)
            return
        self._edit(None)
        typed_since = event.prompt.value.removeprefix(event.value)
        event.prompt.clear()
        if typed_since:
            event.prompt.value = typed_since

    def _answered(self) -> "Reply | None":
        """The reply behind which the next prompt is said; None: it begins a text."""
        last = self._talk.conversation.last if self._edited is None else self._edited.turn.before
        if last is not None and last.exchange not in self._talk.conversation.replies:
            return None  # it was put away
        return last if self._way == "reply" and last is not None and last.way == "reply" else None

    def _asked_for(self) -> tuple[SamplerSettings, int]:
        """Settings and seed for what is to be said.

        Raises:
            UnusableInput: a control is out of range.
        """
        settings, seed = self._sampler.settings(), self._sampler.seed()
        if seed is None:
            seed = draw_seed()
            self._sampler.show_seed(seed)
        return settings, seed

    def on_conversation_view_changed(self, event: "ConversationView.Changed") -> None:
        """Words came."""
        if self._edited is not None and self._edited.exchange not in self._talk.conversation.replies:
            self._edit(None)  # it was put away
        if event.ended or time.monotonic() - self._bars_shown >= BARS_SECONDS:
            self._show_next_words()

    @on(Prompt.Notice)
    def _tell(self, event: Prompt.Notice) -> None:
        self.notify(event.text, severity="warning", markup=False)

    def on_conversation_view_editing(self, event: "ConversationView.Editing") -> None:
        """A prompt is to be typed anew."""
        self._edit(event.reply)
        prompt = self.query_one("#prompt", Prompt)
        prompt.value = event.reply.prompt
        self.set_focus(prompt)

    def _edit(self, reply: "Reply | None") -> None:
        """Whether what is typed takes the place of an earlier prompt."""
        self._edited = reply
        self._mark_prompt()

    def _mark_prompt(self) -> None:
        words = ["edit" if self._edited else "", "reply" if self._way == "reply" else "", "❯"]
        self.query_one("#prompt-mark", Label).update(" ".join(filter(None, words)))

    def action_stop(self) -> None:
        """Stop the words that are coming; else leave what was opened last, and go back to the prompt."""
        talk = self._talk
        if talk.conversation.writing is not None:
            talk.conversation.stop()
            return
        if not talk.close_search() and not talk.leave() and self._edited is not None:
            self._edit(None)
            self.query_one("#prompt", Prompt).clear()
        self.set_focus(self.query_one("#prompt"))

    async def action_talk(self, action: str) -> None:
        """Something is to be done with a reply, wherever the cursor is."""
        await self._talk.run_action(action)

    def action_way(self) -> None:
        """Continue or reply."""
        self._way = "reply" if self._way == "continue" else "continue"
        self.query_one(WayLabel).update(self._way)
        self.lotr.remember(way=self._way)
        self._mark_prompt()
        self._show_next_words()
        if self._way == "reply" and not self._player.ends_lines and not self._said_no_lines:
            self._said_no_lines = True
            self.notify(f"{self._player.name} never saw the end of a line: its replies seldom answer, or end.")

    @on(WayLabel.Toggled)
    def _way_clicked(self) -> None:
        self.action_way()

    def action_pace(self) -> None:
        """The next of the paces."""
        conversation = self._talk.conversation
        faster = [pace for pace in PACES if pace > conversation.pace > 0]
        self._pace = conversation.pace = faster[0] if faster else 0.0 if conversation.pace >= PACES[-2] else PACES[0]
        self.lotr.remember(pace=self._pace)
        said = f"{self._pace:g} words a second" if self._pace else "as fast as the words come"
        self.notify(f"pace: {said}", timeout=2)

    def action_scroll(self, direction: int) -> None:
        """A page through the transcript, wherever the cursor is."""
        transcript = self._talk.transcript
        if direction < 0:
            transcript.scroll_page_up(animate=False)
        else:
            transcript.scroll_page_down(animate=False)

    # The word under the cursor

    @property
    def _inspector(self) -> "WordInspector":
        return cast("WordInspector", self.query_one("#inspector"))

    def on_conversation_view_inspecting(self, event: "ConversationView.Inspecting") -> None:
        """A word is looked at."""
        self.set_class(event.inspected is not None, "-inspecting")
        if event.inspected is not None:
            self._inspector.show(event.inspected)
            self._talk.marked = self._inspector.marked

    def on_conversation_view_marking(self, event: "ConversationView.Marking") -> None:
        """Another alternative is marked."""
        self._inspector.mark(event.step)
        self._talk.marked = self._inspector.marked

    def on_word_inspector_chosen(self, event: "WordInspector.Chosen") -> None:
        """An alternative was clicked."""
        self._talk.action_take(event.number)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Whoever goes back to the prompt is done with the words."""
        if event.widget.id == "prompt" and self._is_open:
            self._talk.leave()

    # The controls and the bars that follow them

    def action_temperature(self, steps: int) -> None:
        """Move the slider from wherever the cursor is."""
        cast("TemperatureSlider", self.query_one("#temperature")).action_move(steps)

    async def action_sampler(self, action: str) -> None:
        """Something is to be done with the controls, wherever the cursor is."""
        await self._sampler.run_action(action)

    @property
    def _sampler(self) -> "SamplerPanel":
        return cast("SamplerPanel", self.query_one("#sampler"))

    def on_sampler_panel_changed(self) -> None:
        """A control was moved."""
        with suppress(LotrError):  # half-typed; said when the prompt is sent
            self.lotr.remember(sampler=self._sampler.settings())
        self._look_ahead()

    @on(TextArea.Changed)
    def _look_ahead(self) -> None:
        if self._is_open and self._talk.conversation.writing is None:
            # else the bars follow the words, and take note of the controls too
            self._show_next_words()

    def _show_next_words(self) -> None:
        """Bars for what may follow the prompt being typed, or else the last words; nothing is drawn for it."""
        if not self._is_open:
            return
        try:
            settings = self._sampler.settings()
        except LotrError:
            return  # half-typed; said when the prompt is sent
        self._bars_shown = time.monotonic()
        typed = self.query_one("#prompt", Prompt).value
        next_words, after = self._next.look(
            self._player, self._talk.conversation, typed, self._way, self._answered(), settings
        )
        cast("NextWordBars", self.query_one("#next")).show(next_words, after, settings.chain())

    # Other ways to look at the model

    def action_look(self, look: Look) -> None:
        """Another screen, on what is being typed or was said last."""
        reply = self._talk.reply
        try:
            settings, seed = self._sampler.settings(), self._sampler.seed()
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)
            return
        typed = self.query_one("#prompt", Prompt).value
        prompt = typed or (reply.prompt if reply else "")
        said = reply.text() if reply else typed
        hand = AtHand(self._player, prompt, said, settings, seed, self._runs_dir, self._pace)
        self.app.push_screen(screen_of(look, hand))

    # Sessions, models and trainings

    def action_sessions(self) -> None:
        """Sessions saved before; one that is chosen takes the place of this one."""
        self.set_focus(self.query_one("#prompt"))
        self._talk.choose_session(self._player, lambda: self._edit(None))

    def action_choose_model(self) -> None:
        """The runs; one that is chosen is played with."""
        open_runs(self, self._play_run)

    def _play_run(self, loaded: "LoadedModel") -> None:
        from lotr_tui.session.player import Player

        self._follows = False
        self._run = loaded.path
        self._corpus = loaded.config.data.corpus
        self._play_with(Player.of(loaded), f"now playing: {loaded.name}")
        if self._is_open and not self.lotr.is_training:
            self._curve.read(loaded.path)

    def _chosen(self, loaded: "LoadedModel | None") -> None:
        if loaded is not None:
            self._play_run(loaded)

    def action_train(self) -> None:
        """Ask what to train; while a training goes on, show its dashboard."""
        if self.lotr.is_training and self.lotr.training is not None:
            from lotr_tui.screens.dashboard.screen import TrainScreen

            self.app.push_screen(TrainScreen(self.lotr.training, self.lotr.steer), self._chosen)
            return
        from lotr_tui.screens.dialogs.new_training import NewTraining

        self.app.push_screen(NewTraining(self._corpus), self._asked)

    def _asked(self, config: "Config | None") -> None:
        if config is not None:
            self.begin_training(config)

    def begin_training(self, config: "Config") -> None:
        """Train, and play with the model as it learns."""
        self._follows = True
        self._corpus = config.data.corpus
        self.lotr.start_training(config)
        self._note(f"training {config.preset}; each evaluation's model takes over here: prompt it as it learns")

    def on_training_changed(self, message: TrainingChanged) -> None:
        """The training went on: its figures, its curve, and the model as it stands."""
        from engine.events import Finished
        from lotr_tui.session.player import Player

        if message.view.evaluations and self._is_open:
            self._curve.show(message.view)
        self._show_status()
        if message.view.failure:
            self._note(f"training failed: {message.view.failure}")
        player = Player.learning(message.view, message.events, self._runs_dir) if self._follows else None
        if player is not None:
            ended = any(isinstance(event, Finished) for event in message.events)
            self._play_with(player, f"training ended; now playing its best: {player.description}" if ended else "")

    def _play_with(self, player: "Player", note: str) -> None:
        if note:
            self._note(note)
        if not self._is_open:
            self.run_worker(self._open(player), group="open")
            return
        self._player = player
        self.query_one("#prompt", Prompt).vocabulary = player.model.vocabulary
        self._show_status()
        self._show_next_words()

    # What is shown

    def _note(self, text: str) -> None:
        if self._is_open:
            self._talk.note(text)
        else:
            self.notify(text, markup=False)

    def _show_pane(self, pane: str) -> None:
        super()._show_pane(pane)
        self.call_after_refresh(self._show_next_words)

    def _show_status(self) -> None:
        self.query_one("#status", SessionStatus).tell(self._player if self._is_open else None, self.lotr.training)

    def _show_curve_of_model(self) -> None:
        """The curve of the training that goes on, or of the one that made this model."""
        if self.lotr.training is not None:
            self._curve.show(self.lotr.training)
        elif self._run is not None:
            self._curve.read(self._run)

    @property
    def _curve(self) -> "RunCurve":
        return cast("RunCurve", self.query_one("#training"))
