"""The session screen: prompt, conversation, next-token probabilities and sampling controls."""

import asyncio
import os
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Label, Rule, TextArea

from engine.errors import LotrError, describe_error
from lotr_tui.app_state import ModelFetchChanged, TrainingChanged
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.formatting import token_noun
from lotr_tui.learn.chapters import find_chapter
from lotr_tui.learn.progress import progress_file
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.session import keys
from lotr_tui.screens.session.model_slot import ModelSlot
from lotr_tui.screens.session.roles import RoleLabels
from lotr_tui.screens.session.training import TrainingFollower
from lotr_tui.session.history import PromptHistory
from lotr_tui.session.model_loading import UPDATE_INTERVAL, ModelLoader
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import FooterKey, KeyFooter
from lotr_tui.widgets.prompt import PLACEHOLDER, Completion, PromptInput, PromptMenu
from lotr_tui.widgets.sampler_panel import SamplerPanel
from lotr_tui.widgets.screen_lines import HelpLine, PaneTabs, StatusBar, find_help_line

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from lotr_tui.screens.session.conversation_view import ConversationView, InspectedToken
    from lotr_tui.screens.session.side import SidePane
    from lotr_tui.session.session_model import SessionModel

TWO_LINE_CONTROLS_WIDTH = 72  # least width at which the controls take two lines
MODEL_FREE_ACTIONS = ("slot.choose", "training.open", "learn", "stop", "interrupt", "redraw")  # that need no model
PAUSE = 0.02  # seconds between two steps of showing the panes, in which keys are handled
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
        self.view: ConversationView  # once `is_ready`, like the side, and the model and the sampler in the slot
        self.side: SidePane
        self.slot = ModelSlot(self, self.set_session_model, self.show_status, self.show_roles, pace)
        self.training = TrainingFollower(self, self.set_session_model, self.slot.load, self._note, self.show_training)
        self.is_ready = False
        self._initial = session_model, load_session_model
        self._runs_dir = runs_dir
        self._open_started = False  # True from the moment the panes are being created
        self._history = PromptHistory()
        self._num_prompts = len(self._history.entries)  # of this user, which the hints follow
        self._knows_class = bool(self._history.entries) or os.path.lexists(progress_file())
        self._panes = {"transcript": "conversation", "next": "next word"}  # of a narrow terminal, with their names
        self._shown_keys: object = None  # state and words of the footer
        self._pending: PromptInput.Submitted | None = None
        self._told_how_to_quit = False

    # Opening

    def compose(self) -> ComposeResult:
        width = self.app.size.width  # Textual sets its class after the first paint, and restyles everything
        self.add_class(max(item for item in self.app.HORIZONTAL_BREAKPOINTS or () if item[0] <= width)[1])
        menu = PromptMenu()
        yield StatusBar(id="status")
        yield PaneTabs(self._panes, id="panes")
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
            self.call_after_refresh(self.slot.ask_to_fetch, at_start=True)

    async def _open_in_background(self) -> None:
        """Load the model and the modules of its panes in a thread; the prompt accepts keys meanwhile."""
        load, loading = self._initial[1], self.query_one("#loading", Label)
        assert load is not None
        describe = load.describe if isinstance(load, ModelLoader) else lambda: "loading the model"

        def load_with_panes() -> "SessionModel":
            from lotr_tui.screens.session import side  # noqa: F401 - as slow as the model

            return load()

        timer = self.set_interval(UPDATE_INTERVAL, lambda: loading.update(f"{describe()} …"))
        model = None
        try:
            model = await run_in_thread(load_with_panes)
        except Exception as error:  # the user can still choose a run or train a model
            problem = describe_error(error)
        finally:
            timer.stop()
        if self._open_started or is_closed(self):  # a run may have been chosen meanwhile
            return
        if model is not None:
            await self._show_panes(model)
            return
        body = self.query_one("#body")
        hint = "Press ctrl+o to use one of your runs, ctrl+t to train a model."
        await body.remove_children()
        await body.mount(Label(f"No model: {problem}\n\n{hint}", id="no-model", markup=False))

    async def _show_panes(self, session_model: "SessionModel", pause: float = PAUSE) -> None:
        """Create the panes and controls for a model. If several models arrive at once, the last one is shown."""
        from lotr_tui.screens.session.conversation_view import ConversationView
        from lotr_tui.screens.session.side import SidePane

        self.slot.session_model = session_model
        if self._open_started:
            return
        self._open_started = True
        self.slot.sampler = SamplerPanel(self.slot.settings.sampler, id="sampler")
        self.view = ConversationView(self.slot, self._conversation_changed, self._inspection_changed)
        self.side = SidePane(self.view, self.prompt.update_suggestion)
        body, controls = self.query_one("#body"), self.query_one("#controls")
        panes = (self.view, self.side, self.slot.sampler)
        for pane in panes:  # created and then shown one after the other, so that keys are handled in between
            pane.styles.display = "none"
            await (controls if pane is self.slot.sampler else body).mount(pane)
            await asyncio.sleep(pause)
        self.is_ready = True
        self._adapt_to(self.slot.session_model)
        self.show_training()
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

    def set_session_model(self, session_model: "SessionModel", message: str = "") -> None:
        """Replace the model, and note a message about it."""
        self._note(message)
        if not self.is_ready:
            self.run_worker(self._show_panes(session_model), group="open")
            return
        old = self.slot.session_model
        self.side.preview.cancel()
        is_alike = (old.reply_modes, bool(old.cast)) == (session_model.reply_modes, bool(session_model.cast))
        self._adapt_to(session_model, keeps_mode=is_alike)
        if session_model.settings_name != old.settings_name:
            self.slot.sampler.apply(self.slot.settings.sampler)

    def _adapt_to(self, model: "SessionModel", *, keeps_mode: bool = False) -> None:
        self.slot.put(model, keeps_mode=keeps_mode)
        self.training.corpus = model.corpus or self.training.corpus
        self.slot.sampler.set_token_noun(token_noun(model.model.tokenizer))
        self.view.adapt_to_model()
        self.show_status()
        self.show_roles()
        self.refresh_bindings()

    def on_model_fetch_changed(self, message: ModelFetchChanged) -> None:
        has_begun = self.is_ready and self.view.conversation.current_reply is not None
        self._note(self.slot.follow_fetch(message, has_begun=has_begun))
        self.show_status()

    def on_training_changed(self, message: TrainingChanged) -> None:
        self.training.follow(message)

    def on_unmount(self) -> None:
        self.training.stop()

    def show_training(self) -> None:
        """Show the training that the session speaks of; one that has no figures yet does not keep those of another."""
        self.show_status()
        view = self.training.view
        if not self.is_ready:
            if self.training.offer is not None:
                self.training.talk()
            return
        if view is not None and (view.evaluations or view.is_active):
            self.side.chart.show(view)
        if view is not None and view.evaluations:
            self.side.add_class("-training")
            self._panes["training"] = "training"
            self.query_one(PaneTabs).refresh()
        self.update_keys()

    def _note(self, text: str) -> None:
        if text and self.is_ready:
            self.view.add_note(text)
        elif text:
            self.notify(text, markup=False)

    # Status, footer, help line and panes

    def show_status(self) -> None:
        """Show the model on the left; on the right progress of loading, or else of the training."""
        left = Content.styled("lotr-tui", "bold $accent")
        if self.is_ready:
            model = self.slot.session_model
            left = Content.assemble(left, "  ", (model.name, "bold"), (f" · {model.description}", MUTED))
        right = Content.styled(self.slot.activity or self.training.status(), "$accent")
        self.query_one("#status", StatusBar).show(left, right)

    def show_roles(self) -> None:
        """Show the roles and the reply mode around the prompt, and the preview that follows from them."""
        model, mode, roles = self.slot.session_model, self.slot.reply_mode, self.slot.roles
        self.query_one(RoleLabels).show(model, roles, mode, self.slot.settings.best_of)
        self.view.conversation.pace = self.slot.pace
        self.side.set_class(mode == "conversation" and bool(model.cast), "-conversation")
        self.prompt.placeholder = "say something; / lists commands" if mode == "conversation" else PLACEHOLDER
        self.side.show_who()
        self.view.update_preview_unit()
        self.show_preview()
        self.update_keys()

    def _compute_state(self) -> keys.SessionState:
        """Return the state that decides which keys matter."""
        if not self.is_ready:
            return "start"
        conversation = self.view.conversation
        around = () if self.focused is None else self.focused.ancestors_with_self
        if conversation.active_reply is not None:
            return "writing"
        if self.view.inspected is not None:
            return "words"
        if self.slot.sampler in around:
            return "controls"
        if self.view.search_bar in around:
            return "search"
        if not isinstance(self.focused, PromptInput):
            return "panes"
        return "start" if conversation.current_reply is None else "idle"

    def _words(self) -> dict[str, str]:
        return self.slot.footer_words() if self.is_ready else {"noun": "word", "more": "more"}

    def _footer_keys(self) -> Sequence[FooterKey]:
        state, words = self._shown_keys = self._compute_state(), self._words()
        return [key._replace(description=key.description.format_map(words)) for key in keys.FOOTER_KEYS[state]]

    def get_help_line(self) -> str:
        """Return the offer of a training, the help for the state, or the next thing to try."""
        state, pane = self._compute_state(), self.query_one("#panes", PaneTabs).pane
        if state in keys.STATE_HELP:
            return keys.STATE_HELP[state].format_map(self._words())
        if self.training.offer is not None:
            return self.training.offer[0]
        if not self.is_ready or state == "writing":
            return ""
        if self.has_class("-narrow") and pane != "transcript":
            return find_help_line(self.query_one(f"#{pane}"), below=self)
        model = self.slot.session_model
        if self.view.conversation.current_reply is None:
            return model.introduction(self.slot.roles.speaker) if self._knows_class else CLASS_HINT
        return keys.find_hint(model, self._num_prompts)

    def update_keys(self) -> None:
        if self.is_ready:
            modes = ["edit" if self.view.edited_reply else "", "reply" if self.slot.reply_mode == "reply" else ""]
            self.query_one("#prompt-mark", Label).update(" ".join(filter(None, [*modes, "❯"])))
        if (self._compute_state(), self._words()) != self._shown_keys:
            self.query_one(KeyFooter).refresh()
        self.query_one(HelpLine).update_text()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return None for an action that waits for the model, and False where it has no effect."""
        if not self.is_ready:
            name = parameters[0] if action == "call" else action
            return True if name in MODEL_FREE_ACTIONS else None
        model = self.slot.session_model
        if parameters == ("slot.toggle_unit",):
            return model.model.tokenizer.is_open
        return parameters[:1] != ("side.ask_roles",) or bool(model.cast) or model.chat is not None

    def action_pane(self, offset: int) -> None:
        """Go to the next pane; a narrow terminal shows it."""
        panes = ["prompt", *(self._panes if self.has_class("-narrow") else ["transcript"]), "temperature"]
        focused = () if self.focused is None else [node.id for node in self.focused.ancestors_with_self]
        at = next((index for index, pane in enumerate(panes) if pane in focused), 0)
        pane = panes[(at + offset) % len(panes)]
        if pane in self._panes:
            self.action_show_pane(pane)
        if pane == "transcript":
            self.view.transcript.put_cursor()
        else:
            self.set_focus(self.query_one(f"#{pane}"))
        self.update_keys()

    def action_show_pane(self, pane: str) -> None:
        self.query_one("#panes", PaneTabs).pane = pane
        for name in self._panes:
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
            if not event.value.strip() and self.training.offer and not (self.is_ready and self.view.edited_reply):
                self.training.talk()
            else:
                self.submit_prompt(event)
            return
        try:
            command, argument = keys.parse_command(event.value)
            keys.check_usable(command.name, self.slot.session_model if self.is_ready else None)
            if argument:
                is_control = command.name in keys.SETTINGS  # /temperature 0.9 is short for /set temperature 0.9
                attrgetter(command.method)(self)(f"{command.name} {argument}" if is_control else argument)
            self._clear_submitted(event)  # before the action, which may read or fill the prompt
            if not argument:
                await self.app.run_action(command.action, self)
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)

    def submit_prompt(self, event: PromptInput.Submitted) -> None:
        """Send a prompt, or keep it until the model is loaded."""
        self._pending = None if self.is_ready else event
        if not self.is_ready:
            return
        if self.view.submit(event.value.removeprefix("/")):  # of a text that begins with //
            self._num_prompts += 1
            self.view.edited_reply = None
            self._clear_submitted(event)
            self.update_keys()

    def _clear_submitted(self, event: PromptInput.Submitted) -> None:
        """Remove a submitted text from the prompt, and keep later keys."""
        typed_since = event.prompt_input.value.removeprefix(event.value)
        event.prompt_input.clear()
        if typed_since:
            event.prompt_input.value = typed_since

    @property
    def _draft(self) -> str:
        """Prompt that is being typed; empty while a command is typed."""
        return "" if keys.is_command(self.prompt.value) else self.prompt.value.removeprefix("/")

    def _complete(self, text: str) -> Completion:
        if keys.is_command(text):
            cast = self.slot.session_model.cast if self.is_ready else ()
            known = cast, self._runs_dir, self.state.settings.current.recent_models
            return keys.complete_command(text, lambda command: keys.argument_choices(command, *known))
        return Completion(self.side.preview.complete(self.slot.session_model, text) if self.is_ready else "")

    # What can come next

    @on(TextArea.Changed, "#prompt")
    def _draft_changed(self) -> None:
        # While a reply is being written the bars follow its words instead.
        if self.is_ready and self.view.conversation.active_reply is None:
            self.show_preview()

    def show_preview(self) -> None:
        if self.is_ready:
            self.side.show_next(self._draft)

    def on_sampler_panel_changed(self) -> None:
        """Remember the settings, and show what can come next with them."""
        self.slot.change_settings(sampler=self.slot.sampler.settings)
        self.side.preview.update(self.slot.sampler.settings)

    def _conversation_changed(self, ended: bool) -> None:
        self.update_keys()
        self.side.follow_reply(self._draft, ended=ended)

    def _inspection_changed(self, inspected: "InspectedToken | None") -> None:
        """Show the token under the cursor instead of the bars."""
        self.set_class(inspected is not None, "-inspecting")
        if inspected is not None:
            self.side.inspector.show(inspected)
        self.update_keys()

    def action_call(self, method: str, *arguments: Any) -> None:
        """Call a method of one of the objects of the session, such as `view.again`."""
        try:
            attrgetter(method)(self)(*arguments)
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)

    def action_stop(self) -> None:
        """Clear a command, stop the reply, leave the search, the words or an edit, or go to the conversation."""
        if keys.is_command(self.prompt.value):
            self.prompt.clear()
        elif not self.is_ready:
            return
        elif self.view.conversation.active_reply is not None:
            self.view.conversation.stop()
        elif self.view.search_bar.close() or not isinstance(self.focused, PromptInput):
            self.set_focus(self.prompt)
        elif not self.prompt.value:
            self.view.transcript.put_cursor()
        elif self.view.edited_reply is not None:
            self.view.edited_reply = None
            self.prompt.clear()
            self.update_keys()

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

    def action_edit(self) -> None:
        """Put the prompt of the reply into the prompt input."""
        if (reply := self.view.target_reply) is not None:
            self.view.edited_reply = reply
            self.prompt.value = reply.prompt or ""
            self.set_focus(self.prompt)

    def save_again(self) -> str:
        return self.view.conversation.save_again() if self.is_ready else ""

    def action_learn(self, chapter: str = "") -> None:
        """Open a chapter of the class on the model of this session, or the first one whose task is not done."""
        from lotr_tui.learn.material import Material
        from lotr_tui.screens.learn.screen import ChapterScreen

        model = self.slot.session_model if self.is_ready else None
        self._knows_class = True
        self.app.push_screen(
            ChapterScreen(lambda: Material.from_session(model), find_chapter(chapter) if chapter else None),
            lambda _: self.query_one(HelpLine).update_text(),
        )

    def action_inspect(self, inspector: str) -> None:
        """Open an inspector on the typed prompt, or on the reply under the cursor or the latest one."""
        from lotr_tui.screens.session.inspectors import create_inspector_screen

        name = keys.find_name(inspector, keys.INSPECTORS)
        self.app.push_screen(create_inspector_screen(name, self.view, self._draft, self.side.answerer))
