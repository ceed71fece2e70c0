"""The session screen: prompt, conversation, next-token probabilities and sampling controls."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textual import events, on
from textual.actions import parse
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Label, Rule, TextArea

from engine.data.speakers import SOMEONE, STRANGER, display_name
from engine.errors import InvalidInputError, LotrError, describe_error, printable, suggest_nearest
from engine.models.pretrained.names import SMOLLM2, is_base_stored
from lotr_tui.app_state import ModelFetchChanged, TrainingChanged
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.formatting import format_duration, token_noun
from lotr_tui.learn.chapters import CHAPTERS, find_chapter
from lotr_tui.learn.progress import progress_file
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.runs.open_run import choose_run
from lotr_tui.screens.session import keys
from lotr_tui.screens.session.inspectors import InspectionContext, Inspector, create_inspector_screen
from lotr_tui.screens.session.model_slot import ModelSlot
from lotr_tui.screens.session.roles import ANYONE, STRANGER_WORDS, RoleLabels, parse_best_of, parse_scene
from lotr_tui.session.cast import A_STRANGER, Roles, describe_unknown_name, read_name
from lotr_tui.session.history import PromptHistory
from lotr_tui.session.model_loading import UPDATE_INTERVAL, ModelLoader, add_recent_model, known_model_names
from lotr_tui.session.settings import (
    EXAMPLE_SYSTEM_PROMPT,
    REPLY_MODE_NOTE,
    ModelSettings,
    PreviewUnit,
    ReplyMode,
    check_system_prompt,
)
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import FooterKey, KeyFooter
from lotr_tui.widgets.prompt import PLACEHOLDER, Completion, PromptInput, PromptMenu
from lotr_tui.widgets.sampler_panel import SAMPLER_PRESETS
from lotr_tui.widgets.screen_lines import HelpLine, PaneTabs, StatusBar, find_help_line

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from engine.config import Config
    from engine.generation.generate import NextTokenProbs
    from engine.generation.settings import SamplerSettings
    from engine.generation.turns import SpeakerProb
    from engine.runs.loading import LoadedModel
    from lotr_tui.learn.material import Material
    from lotr_tui.monitor.training_view import TrainingView
    from lotr_tui.screens.dialogs.new_training import NewTraining
    from lotr_tui.screens.dialogs.sessions import SessionChoice
    from lotr_tui.screens.session.conversation_view import ConversationView
    from lotr_tui.screens.session.preview import Preview
    from lotr_tui.screens.session.side import SidePane, WhoAnswersBars
    from lotr_tui.screens.session.token_inspector import TokenInspector
    from lotr_tui.session.read_text import NextTokenContext
    from lotr_tui.session.reply import Reply
    from lotr_tui.session.session_model import SessionModel
    from lotr_tui.widgets.sampler_panel import SamplerPanel

PANES = {"transcript": "conversation", "next": "next word", "training": "training"}
"""Panes of a narrow terminal by id, with their names."""
TWO_LINE_CONTROLS_WIDTH = 72  # least width at which the controls take two lines
MODEL_FREE_ACTIONS = ("choose_model", "train", "learn", "stop", "interrupt", "redraw")  # that need no model
PAUSE = 0.02  # seconds between two parts of the work when a model arrives, in which a key is shown
PREVIEW_INTERVAL = 0.2  # least seconds between two updates of the bars while words are written
BEST_OF_CHOICES = (0, 1, 8, 16)  # that a click steps through; 0 is automatic
SAMPLER_SETTINGS = {"top-k": "top_k", "top-p": "top_p", "min-p": "min_p", "length": "max_tokens", "seed": "seed"}
CLASS_HINT = "New to language models? /learn opens a short class"


class SessionScreen(AppScreen[None]):
    """Screen to prompt a model and to see why it picked each word. A prompt that comes before the model waits for it.

    Status, prompt and keys are painted first; the panes are created with the model.
    """

    AUTO_FOCUS = "#prompt"
    BINDINGS: ClassVar[list[BindingType]] = keys.SESSION_BINDINGS

    def __init__(
        self,
        session_model: "SessionModel | None",
        runs_dir: Path | None,
        pace: float,
        *,
        load_session_model: "Callable[[], SessionModel] | None" = None,
    ) -> None:
        """Show a session with `session_model`, or without one with what `load_session_model` loads in a thread.

        Words appear at a pace in words per second; 0 is no limit.
        """
        super().__init__()
        self.session_model: SessionModel  # once `is_ready`, like the next four
        self.view: ConversationView
        self.side: SidePane
        self.sampler: SamplerPanel
        self.preview: Preview
        self.slot = ModelSlot(self, self.use_model, self.show_status)
        self.is_ready = False
        self.reply_mode: ReplyMode = "continue"
        self._initial = session_model, load_session_model
        self._runs_dir, self._pace = runs_dir, pace
        self._open_started = False  # True from the moment the panes are being created
        self._history = PromptHistory()
        self._num_prompts = len(self._history.entries)  # of this user, which the hints follow
        self._hint = ""
        self._knows_class = bool(self._history.entries) or os.path.lexists(progress_file())
        self._shown_keys: object = None  # state and words of the footer
        self._corpus = ""  # of the model, offered for the next training
        self._requested_training: NewTraining | None = None  # that was started from the dialog last
        self._offer: tuple[str, SessionModel] | None = None  # model of the training, and a line about it
        self._edited_reply: Reply | None = None
        self._pending: PromptInput.Submitted | None = None
        self._speaker_probs: Sequence[SpeakerProb] = ()  # of who answers the draft
        self._slow_unit: PreviewUnit = "token"  # for a slow model, whose words would take seconds to find
        self._preview_updated_at = 0.0
        self._told_how_to_quit = False
        self._explained_models: set[str] = set()  # names of those whose limits in reply mode are noted

    # Opening

    def compose(self) -> ComposeResult:
        width = self.app.size.width  # Textual sets its class after the first paint, and restyles everything
        self.add_class(max(item for item in self.app.HORIZONTAL_BREAKPOINTS or () if item[0] <= width)[1])
        menu = PromptMenu()
        yield StatusBar(id="status")
        yield PaneTabs(PANES, id="panes")
        yield Rule(line_style="solid", id="top-rule")
        yield Horizontal(Label(id="loading", markup=False), id="body")
        yield Rule(line_style="solid")
        yield Horizontal(id="controls")
        yield RoleLabels(id="roles")
        yield menu
        with Horizontal(id="prompt-line"):
            yield Label("❯", id="prompt-mark")
            yield PromptInput(history=self._history, menu=menu, id="prompt")
        yield HelpLine()
        yield KeyFooter(self._footer_keys)

    async def on_mount(self) -> None:
        self.prompt.completer = self._complete
        self.show_status()
        session_model, loader = self._initial
        if session_model is not None:
            await self._show_panes(session_model, pause=0)
            return
        # The height that the controls will have, so that nothing moves when they appear.
        self.query_one("#controls").styles.height = 2 if self.app.size.width >= TWO_LINE_CONTROLS_WIDTH else 1
        self.call_after_refresh(lambda: self.run_worker(self._open_in_background(), group="open"))
        if isinstance(loader, ModelLoader) and not loader.names:
            self.call_after_refresh(self.slot.ask_at_first_start)

    def on_unmount(self) -> None:
        if self.is_ready:
            self.preview.cancel()

    async def _open_in_background(self) -> None:
        """Load the model and the modules of its panes in a thread; the prompt accepts keys meanwhile."""
        _, loader = self._initial
        assert loader is not None

        def load() -> "SessionModel":
            from lotr_tui.screens.session import conversation_view, side  # noqa: F401 - as slow as the model
            from lotr_tui.widgets import sampler_panel  # noqa: F401

            return loader()

        label = self.query_one("#loading", Label)
        describe = loader.describe if isinstance(loader, ModelLoader) else lambda: "loading the model"
        timer = self.set_interval(UPDATE_INTERVAL, lambda: label.update(f"{describe()} …"))
        problem = ""
        try:
            session_model = await run_in_thread(load)
        except Exception as error:  # the user can still choose a run or train a model
            problem = describe_error(error)
        timer.stop()
        if self._open_started or is_closed(self):  # a run may have been chosen meanwhile
            return
        if not problem:
            await self._show_panes(session_model)
            return
        hint = "Press ctrl+o to use one of your runs, ctrl+t to train a model."
        body = self.query_one("#body")
        await body.remove_children()
        await body.mount(Label(f"No model: {problem}\n\n{hint}", id="no-model", markup=False))

    async def _show_panes(self, session_model: "SessionModel", pause: float = PAUSE) -> None:
        """Create the panes and controls for a model. If several models arrive at once, the last one is shown."""
        from lotr_tui.screens.session.conversation_view import ConversationView
        from lotr_tui.screens.session.preview import Preview
        from lotr_tui.screens.session.side import MIN_ROWS, SidePane
        from lotr_tui.session.next_tokens import MAX_CANDIDATES
        from lotr_tui.widgets.sampler_panel import SamplerPanel

        self.session_model = session_model
        if self._open_started:
            return
        self._open_started = True
        self.view = ConversationView(session_model.welcome_text(), self._pace, self._draw_settings, id="conversation")
        self.side = SidePane(id="side")
        self.sampler = SamplerPanel(self.model_settings.sampler, id="sampler")
        self.preview = Preview(
            self,
            self._show_candidates,
            MAX_CANDIDATES,
            MIN_ROWS,
            lambda: self.prompt.update_suggestion(),
            self.view.reader,
        )
        body, controls = self.query_one("#body"), self.query_one("#controls")
        panes = (self.view, self.side, self.sampler)
        for pane in panes:  # created and then shown one after the other, so that keys are handled in between
            pane.styles.display = "none"
            await (controls if pane is self.sampler else body).mount(pane)
            await asyncio.sleep(pause)
        self.is_ready = True
        self.refresh_bindings()
        self.reply_mode = self.session_model.reply_mode_at_start(self.state.settings.current.reply_mode)
        self._adapt_to_model()
        self.call_after_refresh(self.show_preview)
        if self.state.training_view is not None:
            self.show_training(self.state.training_view)
        if self._pending is not None:
            self.submit_prompt(self._pending)
        for pane in reversed(panes):
            await asyncio.sleep(pause)
            if pane is self.view:
                await body.remove_children(Label)
            pane.styles.display = None
        controls.styles.height = None

    @property
    def prompt(self) -> PromptInput:
        return self.query_one("#prompt", PromptInput)

    # The model

    @property
    def model_settings(self) -> ModelSettings:
        """Settings by which the model answers: the user's, or else its defaults."""
        models = self.state.settings.current.models
        return models.get(self.session_model.settings_name) or self.session_model.default_settings

    def change_model_settings(self, **changes: Any) -> None:
        """Change some settings of the model, here and in later sessions; out of range raises an InvalidInputError."""
        changed = replace(self.model_settings, **changes)
        if changed != self.model_settings:
            self.state.update_settings(models={self.session_model.settings_name: changed})

    def use_model(self, session_model: "SessionModel") -> None:
        """Use another model from the next line on, and say so."""
        self.set_session_model(session_model, f"now using {session_model.name}")

    def set_session_model(self, session_model: "SessionModel", message: str = "") -> None:
        """Replace the model, and note a message about it."""
        self._note(message)
        if not self.is_ready:
            self.run_worker(self._show_panes(session_model), group="open")
            return
        old, self.session_model = self.session_model, session_model
        self.preview.cancel()
        self._slow_unit = "token"
        if (old.reply_modes, old.knows_speakers) != (session_model.reply_modes, session_model.knows_speakers):
            self.reply_mode = session_model.reply_mode_at_start(self.state.settings.current.reply_mode)
        if session_model.settings_name != old.settings_name:
            self.sampler.apply(self.model_settings.sampler)
        self._adapt_to_model()

    def _adapt_to_model(self) -> None:
        model = self.session_model
        if model.source:
            recent = self.state.settings.current.recent_models
            self.state.update_settings(recent_models=add_recent_model(model.source, recent))
        self._corpus = model.corpus or self._corpus
        self.sampler.set_token_noun(token_noun(model.model.tokenizer))
        self.view.set_names(model.cast, "" if model.chat is None else model.label)
        self.view.set_welcome(model.welcome_text())
        self.view.set_preview_unit(self.preview_unit)
        self.show_status()
        self.show_roles()
        self.refresh_bindings()

    def action_choose_model(self) -> None:
        choose_run(self, self.slot.load)

    def on_model_fetch_changed(self, message: ModelFetchChanged) -> None:
        """Show how much of SmolLM2 is there, and use it once it is complete, unless a conversation has begun."""
        self.show_status()
        if message.has_ended and message.fetch.failure:
            self._note(f"SmolLM2 was not fetched: {message.fetch.failure}; /model smollm2 tries again")
        elif message.has_ended and is_base_stored(SMOLLM2):
            if self.is_ready and self.view.conversation.current_reply is not None:
                self._note("SmolLM2 is there: /model bundled talks to it")
            else:
                self.slot.load("bundled")

    def _note(self, text: str) -> None:
        if text and self.is_ready:
            self.view.add_note(text)
        elif text:
            self.notify(text, markup=False)

    def show_status(self) -> None:
        """Show the model on the left, and on the right what is loaded, or else the training of this process."""
        left = Content.styled("lotr-tui", "bold $accent")
        if self.is_ready:
            model = self.session_model
            left = Content.assemble(left, "  ", (model.name, "bold"), (f" · {model.description}", MUTED))
        view, text = self.state.training_view, self.slot.activity
        if not text and view is not None and view.is_active:
            text = f"training: {view.activity}"
            if view.started and view.evaluations:
                valid = view.unit.format(view.evaluations[-1].valid_perplexity)
                valid += "" if view.unit.is_perplexity else f" {view.unit.title}"
                eta = f" · {format_duration(view.steps.last.eta_seconds)} left" if view.steps.last else ""
                text = f"training epoch {view.epoch:.1f}/{view.epochs} · {valid}{eta}"
        self.query_one("#status", StatusBar).show(left, Content.styled(text, "$accent"))

    # Training

    def action_train(self) -> None:
        """Show the dashboard of the running training, or ask for a new one."""
        view = self.state.training_view
        if self.state.is_training and view is not None:
            from lotr_tui.screens.dashboard.screen import DashboardScreen

            self.app.push_screen(DashboardScreen(view, self.state.send_command), self._use_run)
            return
        from engine.config import BUNDLED, DataConfig
        from engine.data.corpus import names_speakers
        from engine.runtime.process import require_package
        from lotr_tui.screens.dialogs.new_training import NewTrainingDialog

        try:
            require_package("torch")  # before the user fills in the dialog
        except InvalidInputError as error:
            self.notify(str(error), severity="error", markup=False, timeout=10)
            return

        def start(training: "NewTraining | None") -> None:
            if training is not None:
                self._requested_training = training
                self.start_training(training.config, training.run_name)

        could_not_start = view is not None and bool(view.failure) and view.started is None
        previous = self._requested_training if could_not_start else None

        async def ask() -> None:
            corpus = self._corpus or BUNDLED
            format: Literal["csv", "text"] = "text" if corpus.endswith(".txt") else "csv"
            has_speakers = await run_in_thread(names_speakers, DataConfig(corpus=corpus, corpus_format=format))
            dialog = NewTrainingDialog(corpus, self._runs_dir, previous, has_speakers=has_speakers)
            if self.is_current:
                self.app.push_screen(dialog, start)

        self.run_worker(ask(), exclusive=True, group="train")

    def _use_run(self, loaded: "LoadedModel | None") -> None:
        """Use the model that was chosen on the dashboard."""
        from lotr_tui.session.session_model import SessionModel

        if loaded is not None:
            self.use_model(SessionModel.from_loaded(loaded))

    def start_training(self, config: "Config", run_name: str | None = None) -> None:
        """Start a training beside the conversation, which keeps its model."""
        self._corpus = config.data.corpus
        self.state.start_training(config, run_name)
        self._note(f"training {run_name or config.preset}; ctrl+t watches it")

    def on_training_changed(self, message: TrainingChanged) -> None:
        """Show the state of the training, and offer its latest model."""
        from lotr_tui.session.session_model import SessionModel

        view = message.view
        self.show_status()
        if view.failure:
            self._note(f"training failed: {view.failure}")
        session_model = SessionModel.from_training(view, message.events, self._runs_dir)
        if session_model is not None:
            what = f"{session_model.name} is trained" if view.finished else f"epoch {view.epoch:.0f}"
            self._offer = f"{what}: talk to it · enter", session_model
            if not self.is_ready:
                self.action_talk()
        if self.is_ready:
            self.show_training(view)
            self.update_keys()

    def show_training(self, view: "TrainingView") -> None:
        if view.evaluations:
            self.side.chart.show(view)
            self.side.add_class("-training")

    def action_talk(self) -> None:
        """Talk to the latest model of the training."""
        if self._offer is None:
            self.notify("No training of this session has a model yet; ctrl+t starts one.")
        else:
            (_, session_model), self._offer = self._offer, None
            self.set_session_model(session_model, f"now talking to {session_model.name}: {session_model.description}")
            self.update_keys()

    # Footer, help line and panes

    def _footer_keys(self) -> Sequence[FooterKey]:
        state, words = self._shown_keys = self._compute_state(), self._footer_words()
        return [key._replace(description=key.description.format_map(words)) for key in keys.FOOTER_KEYS[state]]

    def _footer_words(self) -> dict[str, str]:
        noun = token_noun(self.session_model.model.tokenizer) if self.is_ready else "word"
        is_conversation = self.is_ready and self.reply_mode == "conversation" and bool(self.session_model.cast)
        return {"noun": noun, "more": "go on" if is_conversation else "more"}

    def _compute_state(self) -> keys.SessionState:
        """Return the state that decides which keys matter."""
        if not self.is_ready:
            return "start"
        conversation, focused = self.view.conversation, self.focused
        if conversation.active_reply is not None:
            return "writing"
        if self.view.inspected is not None:
            return "words"
        if focused is not None and self.sampler in focused.ancestors:
            return "controls"
        if focused is not None and self.view.search_bar in focused.ancestors:
            return "search"
        if not isinstance(focused, PromptInput):
            return "panes"
        return "start" if conversation.current_reply is None else "idle"

    def get_help_line(self) -> str:
        """Return the offer of a training, the help for the state, or the next thing to try."""
        state = self._compute_state()
        if state == "words":
            return f"← → choose a {self._footer_words()['noun']}; 1-8 replace it and go on; esc back"
        if state == "search":
            return "↑ and enter: the earlier match; ↓: the later; esc closes"
        if self._offer is not None:
            return self._offer[0]
        pane = self.query_one("#panes", PaneTabs).pane
        if self.is_ready and self.has_class("-narrow") and pane != "transcript":
            return find_help_line(self.query_one(f"#{pane}"), below=self)
        if self.is_ready and self.view.conversation.current_reply is None:
            return self.session_model.introduction() if self._knows_class else CLASS_HINT
        return self._hint

    def update_keys(self) -> None:
        """Show the keys and the help of a new state."""
        if (self._compute_state(), self._footer_words()) != self._shown_keys:
            self.query_one(KeyFooter).refresh()
        self.query_one(HelpLine).update_text()

    def on_enter(self, event: events.Enter) -> None:
        self.query_one(HelpLine).point_at(event.node)

    def on_leave(self, event: events.Leave) -> None:
        self.query_one(HelpLine).leave(event.node)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return None for an action that waits for the model, and False where it has no effect."""
        if not self.is_ready:
            return True if action in MODEL_FREE_ACTIONS else None
        if action == "toggle_units":
            return self.session_model.model.tokenizer.is_open
        if action == "choose_cast":
            return self.session_model.knows_speakers or self.session_model.chat is not None
        return True

    def action_pane(self, offset: int) -> None:
        """Go to the next pane; a narrow terminal shows it."""
        panes = ["prompt", "transcript"]
        if self.has_class("-narrow"):
            panes += ["next", *(["training"] if self.side.has_class("-training") else [])]
        panes.append("temperature")
        focused = () if self.focused is None else [node.id for node in self.focused.ancestors_with_self]
        at = next((index for index, pane in enumerate(panes) if pane in focused), 0)
        pane = panes[(at + offset) % len(panes)]
        if pane in PANES:
            self.action_show_pane(pane)
        if pane == "transcript":
            self.view.transcript.put_cursor()
        else:
            self.set_focus(self.query_one(f"#{pane}"))
        self.update_keys()

    def action_show_pane(self, pane: str) -> None:
        self.query_one("#panes", PaneTabs).pane = pane
        for name in PANES:
            self.set_class(name == pane, f"-pane-{name}")
        self.query_one(HelpLine).update_text()
        self.call_after_refresh(self.show_preview)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Remove the cursor when another part gets the focus."""
        if self.is_ready:
            if event.widget is not self.view.transcript:
                self.view.leave_words()
            self.update_keys()

    def on_paste(self, event: events.Paste) -> None:
        """Paste into the prompt what no input has taken."""
        self.set_focus(self.prompt)
        self.prompt.replace(event.text, *self.prompt.selection, maintain_selection_offset=False)

    # Prompt

    async def on_prompt_input_submitted(self, event: PromptInput.Submitted) -> None:
        if not keys.is_command(event.value):
            if not event.value.strip() and self._offer is not None and self._edited_reply is None:
                self.action_talk()
            else:
                self.submit_prompt(event)
            return
        try:
            command, argument = keys.parse_command(event.value)
            if argument:
                self._run_command(command.name, argument)
                self._clear_submitted(event)
                return
            action = command.action.removeprefix("app.")
            node = self if action == command.action else self.app
            _, name, parameters = parse(action)
            if not node.check_action(name, parameters):
                raise self._unavailable(command.name)
            self._clear_submitted(event)  # before the action, which may read or fill the prompt
            await self.app.run_action(action, node)
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)

    def submit_prompt(self, event: PromptInput.Submitted) -> None:
        """Send a prompt, or keep it until the model is loaded."""
        self._pending = None if self.is_ready else event
        if not self.is_ready:
            return
        text, model, previous = event.value, self.session_model, self._previous_reply()
        text = text[1:] if text.startswith("//") else text
        conversation, roles, best_of = self.view.conversation, self.roles, self.model_settings.best_of
        replaced = None if previous is None or previous.next_turn is None else previous.next_turn.selected_reply
        if self.reply_mode != "conversation" or not model.knows_speakers:
            has_begun = self.view.start(
                lambda settings, seed: conversation.submit_prompt(
                    model, text, self.reply_mode, settings, seed, previous, roles
                ),
                replaced,
            )
            if has_begun and self.reply_mode == "reply":
                self._explain_reply_mode()
        elif text.strip() or self._edited_reply is not None:
            has_begun = self.view.start(
                lambda settings, seed: conversation.say(model, text, roles, settings, seed, previous, best_of), replaced
            )
        else:
            has_begun = self._go_on(1, self._next_cast())
        if has_begun:
            self._preview_updated_at = time.monotonic()  # the first word is painted before the bars are computed
            self._num_prompts += 1
            self._set_edited_reply(None)
            self._clear_submitted(event)

    def _clear_submitted(self, event: PromptInput.Submitted) -> None:
        """Remove a submitted text from the prompt, and keep what was typed since."""
        typed_since = event.prompt_input.value.removeprefix(event.value)
        event.prompt_input.clear()
        if typed_since:
            event.prompt_input.value = typed_since

    @property
    def _draft(self) -> str:
        """Prompt that is being typed; empty while a command is typed."""
        text = self.prompt.value
        return "" if keys.is_command(text) else text[1:] if text.startswith("//") else text

    def _previous_reply(self) -> "Reply | None":
        """Return the reply that the next prompt answers, or None at the start of a text."""
        conversation, edited = self.view.conversation, self._edited_reply
        previous = conversation.current_reply if edited is None else edited.turn.previous_reply
        if previous is None or previous not in conversation:
            return None  # the reply may belong to a session that was full
        return previous if self.reply_mode != "continue" and previous.reply_mode == self.reply_mode else None

    def _draw_settings(self) -> "tuple[SamplerSettings, int]":
        """Return the settings and the seed of the next reply."""
        return self.sampler.settings, self.sampler.draw_seed()

    def action_edit(self) -> None:
        """Put the prompt of the reply into the prompt input."""
        if (reply := self.view.target_reply) is not None:
            self._set_edited_reply(reply)
            self.prompt.value = reply.prompt or ""
            self.set_focus(self.prompt)

    def _set_edited_reply(self, reply: "Reply | None") -> None:
        self._edited_reply = reply
        words = ["edit" if reply else "", "reply" if self.reply_mode == "reply" else "", "❯"]
        self.query_one("#prompt-mark", Label).update(" ".join(filter(None, words)))

    def action_stop(self) -> None:
        """Clear a command, stop the reply, leave the search, the words or an edit, or go to the conversation."""
        if keys.is_command(self.prompt.value):
            self.prompt.clear()
        elif self.is_ready and self.view.conversation.active_reply is not None:
            self.view.conversation.stop()
        elif self.is_ready:
            was_open = self.view.search_bar.close()
            if not was_open and isinstance(self.focused, PromptInput) and not self.prompt.value:
                self.view.transcript.put_cursor()
                return
            if not was_open and self._edited_reply is not None and isinstance(self.focused, PromptInput):
                self._set_edited_reply(None)
                self.prompt.clear()
            self.set_focus(self.prompt)

    def action_interrupt(self) -> None:
        """Stop the reply. The first time that there is none, say how to quit, which ctrl+c never does."""
        if self.is_ready and self.view.conversation.active_reply is not None:
            self.view.conversation.stop()
        elif not self._told_how_to_quit:
            self._told_how_to_quit = True
            self.notify("ctrl+q quits", timeout=3)

    def action_enter(self) -> None:
        if self.view.inspected is not None:
            self.view.branch()
        else:
            self.set_focus(self.prompt)

    def action_redraw(self) -> None:
        self.app.refresh(layout=True)

    # Conversation

    def on_conversation_view_reply_started(self) -> None:
        """Leave a slow model to the reply."""
        if self.session_model.is_slow:
            self.preview.cancel()

    def on_conversation_view_changed(self, event: "ConversationView.Changed") -> None:
        """Update the keys, and the bars less often than the words arrive."""
        if event.ended:
            hints = keys.HINTS[
                "conversation" if self.session_model.cast else "chat" if self.session_model.chat else "plain"
            ]
            self._hint = hints[self._num_prompts - 1] if 0 < self._num_prompts <= len(hints) else ""
        self.update_keys()
        if self._edited_reply is not None and self._edited_reply not in self.view.conversation:
            self._set_edited_reply(None)  # another session was opened
        if event.ended or time.monotonic() - self._preview_updated_at >= PREVIEW_INTERVAL:
            self.show_preview()

    def on_conversation_view_inspection_changed(self, event: "ConversationView.InspectionChanged") -> None:
        """Show the token under the cursor instead of the bars."""
        self.set_class(event.inspected is not None, "-inspecting")
        if event.inspected is not None:
            self.side.inspector.show(event.inspected)
        self.update_keys()

    def on_token_inspector_alternative_selected(self, event: "TokenInspector.AlternativeSelected") -> None:
        self.view.branch(event.number)

    def action_call(self, method: str, *arguments: Any) -> None:
        """Call a method of one of the objects of the session, such as `view.again`."""
        attrgetter(method)(self)(*arguments)

    def action_words(self) -> None:
        if not self.view.transcript.put_cursor():
            self.set_focus(self.prompt)
            self.notify("There is no reply yet; type a prompt first.")

    def action_vertical(self, offset: int) -> None:
        if self._compute_state() == "search":
            self.view.search_bar.step_match(offset)
        else:
            self.view.transcript.step_reply(offset)

    def action_scroll_page(self, pages: int) -> None:
        transcript = self.view.transcript
        (transcript.scroll_page_up if pages < 0 else transcript.scroll_page_down)(animate=False)

    def action_again(self) -> None:
        self.view.again(self.roles.speaker)

    def action_go_on(self, num_turns: int = 1) -> None:
        """Add turns of the conversation, or in the other modes continue the reply."""
        if self.session_model.knows_speakers and (self.reply_mode == "conversation" or num_turns > 1):
            self._go_on(num_turns, self._next_cast() if num_turns == 1 else None)
        else:
            self.view.continue_reply()

    def _go_on(self, num_turns: int, cast: Sequence[str] | None) -> bool:
        """Add turns without the user, by speakers of `cast` (None: by the whole cast), in conversation mode."""
        self.set_reply_mode("conversation")
        go_on, previous = self.view.conversation.go_on, self._previous_reply()
        replaced = None if previous is None or previous.next_turn is None else previous.next_turn.selected_reply
        best_of, model = self.model_settings.best_of, self.session_model
        return self.view.start(
            lambda settings, seed: go_on(model, cast, num_turns, settings, seed, previous, best_of), replaced
        )

    def _next_cast(self) -> tuple[str, ...] | None:
        """Return who can speak in the next turn: who is chosen to answer, or else the whole cast (None)."""
        return (self.roles.speaker,) if self.roles.speaker else None

    def action_choose_session(self) -> None:
        """List the saved sessions, and open the chosen one in place of this one."""
        from lotr_tui.screens.dialogs.sessions import SessionsScreen  # with the exporters, only if opened

        def chosen(choice: "SessionChoice | None") -> None:
            if choice == "new":
                self.view.begin_session()
            elif choice is not None:
                self.view.open_session(choice, self.session_model)

        self.set_focus(self.prompt)
        self.app.push_screen(SessionsScreen(self.view.conversation), chosen)

    def action_export_session(self) -> None:
        """Ask for a path, and export this session there."""
        from lotr_tui.screens.dialogs.sessions import ask_to_export_session

        try:
            ask_to_export_session(self, self._session_file(), "md", lambda text: self.notify(text, markup=False))
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)

    def _session_file(self) -> Path:
        """Return the file of this session; raise InvalidInputError if there is none yet."""
        from lotr_tui.session.session_file import session_path

        if not self.view.conversation.name:
            raise InvalidInputError("this session has no reply yet that could be exported")
        return session_path(self.view.conversation.name)

    async def _export_to(self, session_file: Path, path: str) -> None:
        """Export the session to a typed path that does not exist yet."""
        from lotr_tui.session.export import check_session_target, export_session
        from lotr_tui.session.session_file import load_session

        try:
            target = await run_in_thread(check_session_target, path)
            if target.missing_folder is not None:
                raise InvalidInputError(f"the folder {target.missing_folder} does not exist; choose another one")
            await run_in_thread(export_session, await run_in_thread(load_session, session_file), target.path)
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)
        else:
            self.notify(f"Exported to {printable(str(target.path))}", markup=False)

    def save_again(self) -> str:
        return self.view.conversation.save_again() if self.is_ready else ""

    # Preview and controls

    @property
    def preview_unit(self) -> PreviewUnit:
        """Unit of what can come next: the saved one, or for a slow model tokens until the user asks for words."""
        return self._slow_unit if self.session_model.is_slow else self.state.settings.current.preview_unit

    def action_toggle_units(self) -> None:
        """Show the tokens that can come next, or whole words again."""
        unit: PreviewUnit = "word" if self.preview_unit == "token" else "token"
        if self.session_model.is_slow:
            self._slow_unit = unit
        else:
            self.state.update_settings(preview_unit=unit)
        self.view.set_preview_unit(unit)
        self.show_preview()

    @on(TextArea.Changed, "#prompt")
    def _draft_changed(self) -> None:
        # While a reply is being written the bars follow its words instead.
        if self.is_ready and self.view.conversation.active_reply is None:
            self.show_preview()

    def show_preview(self) -> None:
        """Show what can come next after the typed prompt, or after the latest reply if nothing is typed."""
        if not self.is_ready:
            return
        from lotr_tui.session.next_tokens import find_context

        self._preview_updated_at = time.monotonic()
        conversation, text = self.view.conversation, None
        with suppress(LotrError):  # a prompt that cannot be read is reported when it is sent
            text = find_context(
                self.session_model, conversation, self._draft, self.reply_mode, self._previous_reply(), self.roles
            )
        if text is None:
            self.preview.cancel()
            self.side.next.clear()
        else:
            is_idle = conversation.active_reply is None
            self.preview.request(text, self.sampler.settings, self.preview_unit, self._draft, may_read=is_idle)

    def _show_candidates(
        self, context: "NextTokenContext", settings: "SamplerSettings", probs: "NextTokenProbs"
    ) -> None:
        from lotr_tui.session.session_model import reads_line_ends

        if context.speakers and context.speakers is not self._speaker_probs:
            self._speaker_probs = context.speakers
            self.side.who.show(context.speakers, self.session_model.cast, self.roles.speaker)
        is_answer = context.is_chat and context.is_first_token
        speaker = self.session_model.label if is_answer else display_name(context.speaker)
        last_text, ends_text = context.last_text(probs.candidate_unit), reads_line_ends(context.model)
        self.side.next.show(probs, last_text, settings.describe(only_filters=True), speaker, ends_text=ends_text)

    def on_sampler_panel_changed(self) -> None:
        """Remember the settings, and show what can come next with them."""
        self.change_model_settings(sampler=self.sampler.settings)
        self.preview.update(self.sampler.settings, self.preview_unit)

    def action_options(self) -> None:
        """Ask for all sampling controls but the temperature."""
        from lotr_tui.screens.dialogs.questions import SamplerDialog

        self.app.push_screen(SamplerDialog(self.sampler.texts(), self.sampler.set_texts))

    # Roles

    @property
    def roles(self) -> Roles:
        """Saved roles of the user and of the model."""
        settings = self.model_settings
        return Roles(settings.speaking_as, settings.answering, self.state.settings.current.system_prompt)

    def set_roles(self, roles: Roles) -> None:
        """Use other roles from the next line on."""
        self.change_model_settings(answering=roles.speaker, speaking_as=roles.speaking_as)
        self.show_roles()

    def show_roles(self) -> None:
        """Show the roles and the reply mode around the prompt, and what they change in the preview."""
        model, roles, best_of = self.session_model, self.roles, self.model_settings.best_of
        is_conversation = self.reply_mode == "conversation"
        is_chat = is_conversation and model.chat is not None
        if is_chat and model.chat is not None and not roles.system_prompt:
            roles = roles._replace(system_prompt=model.chat.default_system_prompt)
        self.query_one(RoleLabels).show(model.cast, roles, self.reply_mode, best_of, is_chat=is_chat)
        self.view.best_of = best_of
        self.side.set_class(is_conversation and model.knows_speakers, "-conversation")
        if self._speaker_probs:
            self.side.who.show(self._speaker_probs, model.cast, roles.speaker)
        self.prompt.placeholder = "say something; / lists commands" if is_conversation else PLACEHOLDER
        self._set_edited_reply(self._edited_reply)
        self.show_preview()
        self.update_keys()

    def action_choose_cast(self, column: Literal["answering", "speaking-as"] = "answering") -> None:
        """Ask who answers and who the user is, or what tells a chat model who it is."""
        from lotr_tui.screens.dialogs.questions import CastDialog, SystemPromptDialog

        cast, chat = self.session_model.cast, self.session_model.chat
        if chat is not None:
            current = self.state.settings.current.system_prompt
            self.app.push_screen(SystemPromptDialog(current, chat.default_system_prompt), self._set_system_prompt)
            return

        def use(choice: Roles | None) -> None:
            if choice is not None:
                self.set_roles(choice)

        people = [name for name in cast if name not in (STRANGER, SOMEONE)]
        probs = {speaker.name: speaker.prob for speaker in self._speaker_probs}
        self.app.push_screen(CastDialog(cast, [*people, SOMEONE], people, self.roles, probs, column), use)

    def _set_system_prompt(self, text: str | None) -> None:
        """Use a system prompt from the next line on; None keeps the current one."""
        if text is not None:
            self.state.update_settings(system_prompt=text)
            self.show_roles()

    def on_who_answers_bars_speaker_selected(self, event: "WhoAnswersBars.SpeakerSelected") -> None:
        self.set_roles(self.roles._replace(speaker=event.name))

    def action_next_mode(self) -> None:
        modes = self.session_model.reply_modes
        self.set_reply_mode(modes[(modes.index(self.reply_mode) + 1) % len(modes)])

    def set_reply_mode(self, mode: ReplyMode) -> None:
        """Continue the prompt or answer it, in a conversation if the model knows speakers."""
        if mode == self.reply_mode:
            return
        modes = self.session_model.reply_modes
        if mode not in modes:
            raise InvalidInputError(f"{self.session_model.name} has no mode {mode!r}; use {' or '.join(modes)}")
        self.reply_mode = mode
        # The first mode of a model without speakers must not keep the next session from being a conversation.
        self.state.update_settings(reply_mode="conversation" if mode == modes[0] else mode)
        self.show_roles()
        if mode == "reply":
            self._explain_reply_mode()

    def _explain_reply_mode(self) -> None:
        """Add a note about what to expect of a model in reply mode, once for each model."""
        model = self.session_model
        if model.name in self._explained_models or (model.predicts_eos and model.answers_depend_on_prompt):
            return
        self._explained_models.add(model.name)
        if model.is_by_others:
            self._note(f"Reply mode: {model.chat_problem}; it continues your text after a line break.")
        elif model.predicts_eos:
            self._note(f"Reply mode: {REPLY_MODE_NOTE}.")
        else:
            self._note(f"Reply mode: {model.name} was trained without line ends, so it rarely answers, or stops.")

    def action_next_best_of(self) -> None:
        number = self.model_settings.best_of
        self._set_best_of(next((choice for choice in BEST_OF_CHOICES if choice > number), BEST_OF_CHOICES[0]))

    def _set_best_of(self, number: int) -> None:
        self.change_model_settings(best_of=number)
        self.show_roles()

    # Commands with an argument

    def _complete(self, text: str) -> Completion:
        if keys.is_command(text):
            return keys.complete_command(text, self._argument_choices)
        return Completion(self.preview.complete(self.session_model, text) if self.is_ready else "")

    def _argument_choices(self, command: str) -> Sequence[str] | Mapping[str, str]:
        """Return the values that complete the argument of a command."""
        match command:
            case "as" | "to" | "scene":
                others = {"to": ANYONE[:1], "as": (A_STRANGER,)}.get(command, ())
                cast = self.session_model.cast if self.is_ready else ()
                return [*(display_name(name) for name in cast if name not in (STRANGER, SOMEONE)), *others]
            case "system":
                return (EXAMPLE_SYSTEM_PROMPT,)
            case "learn":
                return [chapter.name for chapter in CHAPTERS]
            case "inspect":
                return keys.INSPECTORS
            case "preset":
                return {name: preset.describe() for name, preset in SAMPLER_PRESETS.items()}
            case "set":
                return keys.SETTINGS
            case "model":
                from engine.runs.directory import bundled_runs, find_run_dirs
                from engine.storage.files import default_runs_dir

                names = [printable(path.name) for path in find_run_dirs(self._runs_dir or default_runs_dir())]
                known = known_model_names(self.state.settings.current.recent_models)
                return [*sorted(names), *bundled_runs().values(), *known]
        return ()

    def _run_command(self, name: str, argument: str) -> None:
        if name == "model":
            self.slot.load(argument)
            return
        if name == "learn":
            self.action_learn(find_chapter(argument))
            return
        model = self.session_model if self.is_ready else None
        if model is None or (name in keys.CAST_COMMANDS and not model.cast) or (name == "system" and not model.chat):
            raise self._unavailable(name)
        match name:
            case "as":
                self.set_roles(self.roles._replace(speaking_as=self._read_role(argument, STRANGER_WORDS)))
            case "to":
                self.set_roles(self.roles._replace(speaker=self._read_role(argument, ANYONE)))
            case "scene":
                self._go_on(*parse_scene(argument, model.cast))
            case "system":
                check_system_prompt(argument)
                self._set_system_prompt(argument)
            case "export":
                self.run_worker(self._export_to(self._session_file(), argument), group="export")
            case "inspect":
                self.action_inspect(_nearest(argument, keys.INSPECTORS))  # type: ignore[arg-type]
            case "preset":
                self.sampler.apply_preset(argument)
            case "temperature":
                self.sampler.set_texts({"temperature": argument})
            case "penalty":
                self.sampler.set_texts({"repetition_penalty": argument})
            case "set":
                self._set(*argument.partition(" ")[::2])

    def _set(self, name: str, value: str) -> None:
        name, value = _nearest(name, keys.SETTINGS), value.strip()
        if not value:
            raise InvalidInputError(f"type /set {name} VALUE: {keys.SETTINGS[name]}")
        match name:
            case "answers":
                self._set_best_of(parse_best_of(value))
            case "mode":
                self.set_reply_mode(value)  # type: ignore[arg-type]
            case "pace":
                with suppress(ValueError):
                    self.state.update_settings(pace=float(value))
                    self._pace = self.view.conversation.pace = float(value)
                    return
                raise InvalidInputError(f"{value!r} is not a number")
            case _:
                self.sampler.set_texts({SAMPLER_SETTINGS[name]: value})

    def _read_role(self, argument: str, nobody: Sequence[str]) -> str:
        """Return the speaker that an argument names, in the cast or not, or "" for one of the words for `nobody`."""
        cast = self.session_model.cast
        name = "" if argument.casefold() in nobody else read_name(argument, cast)
        if note := describe_unknown_name(name, cast):
            self.notify(note, markup=False)
        return name

    def _unavailable(self, command: str) -> InvalidInputError:
        """Return the error for a command that cannot be used now."""
        if not self.is_ready:
            return InvalidInputError(f"/{command} needs a model, and none is loaded yet")
        if command == "system":
            return InvalidInputError("/system needs a model with a chat template, such as an instruct model from hf:")
        return InvalidInputError(
            f"/{command} needs a model that knows speakers: /model bundled, or train one with --mode dialogue"
        )

    # Other screens

    def action_learn(self, chapter: int | None = None) -> None:
        """Open a chapter of the class on the model of this session, or the first one whose task is not done."""
        from lotr_tui.screens.learn.screen import ChapterScreen

        session_model = self.session_model if self.is_ready else None

        def make_material() -> "Material":
            from lotr_tui.learn.material import Material

            return Material.from_session(session_model)

        self._knows_class = True
        self.app.push_screen(ChapterScreen(make_material, chapter), lambda _: self.query_one(HelpLine).update_text())

    def action_inspect(self, inspector: Inspector) -> None:
        """Open an inspector on the typed prompt, or on the reply under the cursor or the latest one."""
        from lotr_tui.session.columns import PromptContext
        from lotr_tui.session.read_text import to_prompt_line

        reply, prompt, roles = self.view.target_reply, self._draft, self.roles
        settings, seed = self.sampler.settings, self.sampler.seed
        if not roles.speaker and self.reply_mode == "conversation" and self._speaker_probs:
            roles = roles._replace(speaker=self._speaker_probs[0].name)
        prompt_context = PromptContext(self.reply_mode, self._previous_reply(), roles)
        if reply is not None and not prompt:
            roles = Roles(reply.speaking_as, reply.speaker, reply.system_prompt)
            prompt = reply.prompt or ""
            prompt_context = PromptContext(reply.reply_mode, reply.turn.previous_reply, roles)
            if seed is None and reply.starts_turn:
                seed = reply.seed
        text_model = self.session_model if reply is None else reply.session_model
        if text_model.knows_speakers and self.session_model.knows_speakers:
            text_model = self.session_model  # a conversation is the same text for all models that know speakers
        text = to_prompt_line(prompt) if reply is None else reply.full_text()
        context = InspectionContext(
            self.session_model, prompt, prompt_context, settings, seed, text, text_model, self._runs_dir, self._pace
        )
        self.app.push_screen(create_inspector_screen(inspector, context))


def _nearest(name: str, known: Mapping[str, str]) -> str:
    """Return a known name, or raise an InvalidInputError with the nearest one."""
    if name.lower() not in known:
        raise InvalidInputError(f"{name[:40]!r} is unknown{suggest_nearest(name, known)} Use {', '.join(known)}.")
    return name.lower()
