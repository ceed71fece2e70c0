"""The session screen: prompt, conversation, next-token probabilities and sampling controls."""

import asyncio
import os
from collections.abc import Sequence
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

from textual import app, binding, containers, events, on
from textual.content import Content
from textual.widgets import Label, Rule, TextArea

from engine.errors import LotrError
from lotr_tui.app_state import ModelFetchChanged, TrainingChanged
from lotr_tui.background_task import run_in_thread
from lotr_tui.formatting import are_named, describe_strengths, token_noun
from lotr_tui.learn import chapters, progress
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.session import keys, model_slot
from lotr_tui.screens.session.training import TrainingFollower
from lotr_tui.session.model_loading import ModelLoader
from lotr_tui.session.settings import PromptHistory
from lotr_tui.theme import MUTED
from lotr_tui.widgets import prompt, screen_lines, slider
from lotr_tui.widgets.keys import FooterKey, KeyFooter
from lotr_tui.widgets.screen_lines import HelpLine, PaneTabs

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from lotr_tui.screens.session.conversation_view import ConversationView
    from lotr_tui.screens.session.side import SidePane
    from lotr_tui.session.reply import Reply
    from lotr_tui.session.session_model import SessionModel

TWO_LINE_CONTROLS_WIDTH = 72  # least width at which the controls take two lines
MODEL_FREE_ACTIONS = ("slot.choose", "training.open", "learn", "stop", "interrupt", "redraw")  # that need no model
PAUSE = 0.02  # seconds between the creation of two panes
LETTERS_PLACEHOLDER = "letters are keys of the conversation; escape or other text goes back to the prompt"
SEARCH_PLACEHOLDER = "typing goes into find; escape goes back to the prompt"
CLASS_HINT = "New to language models? /learn opens a short class"


class SessionScreen(AppScreen[None]):
    """Screen to prompt a model and to see why it picked each word. A prompt that comes before the model waits for it.

    Status, prompt and keys are painted first; the panes are created with the model.
    """

    AUTO_FOCUS = "#prompt"
    BINDINGS: ClassVar[list[binding.BindingType]] = keys.SESSION_BINDINGS

    def __init__(self, model: "SessionModel | ModelLoader", pace: float) -> None:
        """Show a session with a model, or with the one that is loaded, at a pace in words per second; 0 is no limit."""
        super().__init__()
        self.view: ConversationView  # once `is_ready`, like the side, and the model and the sampler in the slot
        self.side: SidePane
        self.slot = model_slot.ModelSlot(self, self.set_session_model, self.show_status, self.show_roles, pace)
        self.training = TrainingFollower(self, self.set_session_model, self.slot.load, self._note, self.show_training)
        self.is_ready = False
        self._initial = model
        self._open_started = False  # True from the moment the panes are being created
        self._history = PromptHistory()
        self._num_prompts = len(self._history.entries)  # of this user, which the hints follow
        self._knows_class = bool(self._history.entries) or os.path.lexists(progress.progress_file())
        self._panes = {"transcript": "conversation", "next": "next word"}  # of a narrow terminal, with their names
        self._shown_state = ""  # by the footer
        self._waiting: list[str] = []  # texts that were sent before the model is loaded

    # Opening

    def compose(self) -> app.ComposeResult:
        width = self.app.size.width  # Textual sets its class after the first paint, and restyles everything
        breakpoint = max(item for item in self.app.HORIZONTAL_BREAKPOINTS or () if item[0] <= width)
        self.add_class(breakpoint[1], "-opening")
        menu = prompt.PromptMenu()
        yield screen_lines.StatusBar(id="status")
        yield PaneTabs(self._panes, id="panes")
        yield Rule(line_style="solid", id="top-rule")
        yield containers.Horizontal(Label(id="loading", markup=False), id="body")
        yield Rule(line_style="solid")
        yield containers.Horizontal(id="controls")
        yield model_slot.RoleLabels(id="roles")
        yield menu
        with containers.Horizontal(id="prompt-line"):
            yield Label("❯", id="prompt-mark")
            yield prompt.PromptInput(history=self._history, menu=menu, id="prompt")
        yield HelpLine()
        yield KeyFooter(self._footer_keys)

    async def on_mount(self) -> None:
        self.prompt = self.query_one("#prompt", prompt.PromptInput)
        self.prompt.completer = self._complete
        self.show_status()
        if not isinstance(self._initial, ModelLoader):
            await self._show_panes(self._initial, pause=0)
            return
        # The height that the controls will have, so that nothing moves when they appear.
        height = 2 if self.app.size.width >= TWO_LINE_CONTROLS_WIDTH else 1
        self.query_one("#controls").styles.height = height + bool(self._initial.adapters)
        load = self.slot.load_with(self._initial)
        self.call_after_refresh(self.run_worker, load, exclusive=True, group="load")
        if not self._initial.names:
            self.call_after_refresh(self.slot.ask_to_fetch, at_start=True)

    async def _show_panes(self, session_model: "SessionModel", pause: float = PAUSE) -> None:
        """Create the panes and controls for a model. If several models arrive at once, the last one is shown."""
        self._initial, slot = session_model, self.slot
        if self._open_started:
            return
        self._open_started = True
        await run_in_thread(import_module, "lotr_tui.screens.session.side")  # meanwhile the prompt accepts keys
        from lotr_tui.screens.session.conversation_view import ConversationView
        from lotr_tui.screens.session.side import SidePane

        slot.put(session_model)
        slot.sampler = slider.SamplerPanel(slot.settings.sampler, id="sampler")
        self.view = ConversationView(slot, self._follow_reply, self._inspect)
        self.side = SidePane(self.view, self.prompt.update_suggestion)
        body, controls = self.query_one("#body"), self.query_one("#controls")
        for parent, pane in ((body, self.view), (body, self.side), (controls, slot.sampler)):
            await parent.mount(pane)
            await asyncio.sleep(pause)  # keys are handled in between
        self.is_ready = True
        self.set_session_model(self._initial)
        self.show_training()
        for text in self._waiting:
            self.submit_prompt(text)
        await self.query_one("#loading").remove()
        self.remove_class("-opening")
        controls.styles.height = None

    # The model

    def set_session_model(self, session_model: "SessionModel | None", message: str = "") -> None:
        """Replace the model, and note a message about it, or (None) show why another one could not be loaded."""
        if session_model is None and self.is_ready:
            self.notify(message, severity="error", markup=False, timeout=10)
        elif session_model is None:
            hint = "Press ctrl+o to use one of your runs, ctrl+t to train a model."
            self.query_one("#loading", Label).update("\n\n❯ ".join([f"No model: {message}\n\n{hint}", *self._waiting]))
        elif not self.is_ready:
            self.workers.cancel_group(self, "load")  # a model that is still being loaded is not wanted any more
            self.run_worker(self._show_panes(session_model), group="open")
        else:
            before = self.slot.settings
            self.side.preview.cancel()
            self.slot.put(session_model)
            self._note(f"{message}{self.slot.describe_changes(before)}" if message else "")
            self._note(session_model.warning)
            self.training.corpus = session_model.corpus or self.training.corpus
            self.slot.sampler.noun = token_noun(session_model.model.tokenizer)
            self.slot.sampler.apply(self.slot.settings.sampler)
            self.slot.sampler.set_strengths(self.slot.session_model.strengths)
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
        """Show the training that the session speaks of, also one without figures, in place of another one."""
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
        left, name = Content.styled("lotr-tui", "bold $accent"), ""
        if self.is_ready:
            model, name = self.slot.session_model, self.slot.session_model.name
            about = describe_strengths(model.strengths) if are_named(model.strengths) else model.description
            left = Content.assemble(left, "  ", (name, "bold"), (f" · {about}", MUTED))
        elif (loader := self.slot.loader) is not None:
            lines = "\n\n❯ ".join([f"{loader.describe()} …", *self._waiting])
            self.query_one("#loading", Label).update(Content.styled(lines, MUTED))
        right = Content.styled((self.slot.activity if self.is_ready else "") or self.training.status(name), "$accent")
        self.query_one("#status", screen_lines.StatusBar).show(left, right)

    def show_roles(self) -> None:
        """Show the roles and the reply mode around the prompt, and what can come next with them."""
        mode, model = self.slot.reply_mode, self.slot.session_model
        self.query_one(model_slot.RoleLabels).show(self.slot)
        self.view.conversation.pace = self.slot.pace
        self.view.adapt_to_model()
        self.side.set_class(mode == "conversation" and bool(model.cast), "-conversation")
        self.side.show_who()
        if (reply := self.side.next.reply) is not None:
            self.side.inspect(reply, self.side.next.index)  # words or tokens as its alternatives
        self.show_preview()
        self.update_keys()

    @property
    def _footer_state(self) -> keys.SessionState:
        around = () if self.focused is None else self.focused.ancestors_with_self
        if not self.is_ready:
            return "start"
        if self.view.conversation.active_reply is not None:
            return "writing"
        is_on_word = self.side.next.reply is not None
        if self.focused is self.view.transcript:
            return "words" if is_on_word else "letters"
        if is_on_word:
            return "clicked"
        if self.slot.sampler in around:
            return "controls"
        if self.view.search_bar in around:
            return "search"
        if self.focused is not self.prompt:
            return "panes"
        return "start" if self.view.conversation.current_reply is None else "idle"

    def _footer_keys(self) -> Sequence[FooterKey]:
        self._shown_state = self._footer_state
        return keys.FOOTER_KEYS[self._shown_state]

    def get_help_line(self) -> str:
        state = self._footer_state
        if state in keys.STATE_HELP:
            return keys.STATE_HELP[state]
        if self.training.offer is not None:
            return self.training.offer[0]
        if not self.is_ready or state == "writing":
            return ""
        pane = self.query_one("#panes", PaneTabs).pane
        if self.has_class("-narrow") and pane != "transcript":
            return screen_lines.find_help_line(self.query_one(f"#{pane}"), below=self)
        model = self.slot.session_model
        if self.view.conversation.current_reply is None and not self._knows_class:
            return CLASS_HINT
        return keys.find_hint(model, self._num_prompts)

    def update_keys(self) -> None:
        if self.is_ready:
            is_edit = self.view.edited_reply is not None
            modes = ["edit"] * is_edit + ["reply"] * (self.slot.reply_mode == "reply")
            self.query_one("#prompt-mark", Label).update(" ".join([*modes, "❯"]))
            self.prompt.typing_hint = prompt.TYPING_HINT + " again; esc ends the edit" * is_edit
            self.prompt.placeholder = self._placeholder
        if self._footer_state != self._shown_state:
            self.query_one(KeyFooter).refresh()
        self.query_one(HelpLine).update_text()

    @property
    def _placeholder(self) -> str:
        if self.focused is self.view.transcript:
            return LETTERS_PLACEHOLDER
        if self.view.search_bar.has_focus_within:
            return SEARCH_PLACEHOLDER
        return "say something; / lists commands" if self.slot.reply_mode == "conversation" else prompt.PLACEHOLDER

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return None for an action that waits for the model, and False where it has no effect."""
        name = parameters[0] if action == "call" else action
        if not self.is_ready:
            return True if name in MODEL_FREE_ACTIONS else None
        model = self.slot.session_model
        if name == "slot.sampler.step_strength" or (name == "inspect" and parameters[0] in ("tuning", "strengths")):
            return bool(model.strengths)
        if name == "slot.toggle_unit":
            return model.model.tokenizer.is_open
        if name == "side.branch":
            return self.side.next.reply is not None
        return name != "slot.choose_roles" or bool(model.cast) or model.chat is not None

    def action_pane(self, offset: int) -> None:
        """Move the focus among the prompt, with the conversation, the panes of a narrow terminal, and the sliders."""
        beside = [pane for pane in self._panes if pane != "transcript"] if self.has_class("-narrow") else []
        panes = ["prompt", *beside, "temperature"]
        panes += [slider.id or "" for slider in self.slot.sampler.strength_sliders]
        focused = [] if self.focused is None else [node.id for node in self.focused.ancestors_with_self]
        if "prompt" in focused:  # beside which another pane may be shown
            focused = [self.query_one("#panes", PaneTabs).pane]
        at = next((index for index, pane in enumerate(panes) if pane in focused), 0)
        pane = panes[(at + offset) % len(panes)]
        shown = "transcript" if pane == "prompt" else pane
        if shown in self._panes:
            self.action_show_pane(shown)
        self.set_focus(self.query_one(f"#{pane}"))
        self.update_keys()

    def action_show_pane(self, pane: str) -> None:
        self.query_one("#panes", PaneTabs).pane = pane
        for name in self._panes:
            self.set_class(name == pane, f"-pane-{name}")
        self.query_one(HelpLine).update_text()
        self.call_after_refresh(self.show_preview)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        if self.is_ready:
            if event.widget is not self.view.transcript:
                self.view.leave_words()
            self.update_keys()

    def before_key(self, event: events.Key) -> None:
        """Type into the prompt, unless a field has the focus, or the conversation and the character is a key there."""
        focused = self.focused
        if (
            not self.is_mounted
            or not event.is_printable
            or (focused is not None and focused.check_consume_key(event.key, event.character))
        ):
            return
        is_key = self.is_ready and focused is self.view.transcript and event.key in self.active_bindings
        if not is_key:
            self.set_focus(self.prompt)

    def on_paste(self, event: events.Paste) -> None:  # that no input has taken
        self.set_focus(self.prompt)
        self.prompt.replace(event.text, *self.prompt.selection, maintain_selection_offset=False)

    # Prompt

    async def on_prompt_input_submitted(self, event: prompt.PromptInput.Submitted) -> None:
        if not keys.is_command(event.value):
            if not event.value.strip() and self.training.offer and not (self.is_ready and self.view.edited_reply):
                self.training.talk()
            else:
                self.submit_prompt(event.value)
            return
        try:
            command, argument = keys.parse_command(event.value, self.slot.session_model if self.is_ready else None)
            if argument:
                attrgetter(command.method)(self)(argument)
            else:
                await self.app.run_action(command.action, self)
        except LotrError as error:
            self.notify(f"{error}\n↑ brings the command back", severity="warning", markup=False)

    def submit_prompt(self, text: str) -> None:
        """Send a prompt, or keep it until the model is loaded; a refused one is put back, unless more was typed."""
        if not self.is_ready:
            self._waiting.append(text)
            self.show_status()
        elif self.view.submit(text.removeprefix("/")):  # of a text that begins with //
            self._num_prompts += 1
            self.view.edited_reply = None
            if self.has_class("-pane-training"):  # which would hide the reply
                self.action_show_pane("transcript")
            self.update_keys()
        elif not self.prompt.value:
            self.prompt.value = text

    @property
    def _draft(self) -> str:
        """Prompt that is being typed; empty while a command is typed."""
        return "" if keys.is_command(self.prompt.value) else self.prompt.value.removeprefix("/")

    def _complete(self, text: str) -> prompt.Completion:
        if keys.is_command(text):
            model = self.slot.session_model if self.is_ready else None
            return keys.complete_command(text, model, self.state.runs_dir, self.state.settings.current.recent_models)
        if not self.is_ready:
            return prompt.Completion()
        try:
            return prompt.Completion(self.side.preview.complete(self.slot.session_model, text))
        except LotrError as error:  # the tokenizer of a model by others fails
            return prompt.Completion(hint=str(error))

    # What can come next

    @on(TextArea.Changed, "#prompt")
    def _draft_changed(self) -> None:
        if self.is_ready and self.side.next.reply is not None and self.focused is self.prompt:
            self.view.leave_words()  # a word that was clicked
        # While a reply is being written the bars follow its words instead.
        if self.is_ready and self.view.conversation.active_reply is None:
            self.show_preview()

    def show_preview(self) -> None:
        if self.is_ready:
            self.side.show_next(self._draft)

    def on_sampler_panel_changed(self) -> None:
        slot, strengths = self.slot, self.slot.sampler.strengths
        slot.change_settings(sampler=slot.sampler.settings)
        if strengths != slot.session_model.strengths:
            slot.change_settings(strengths=strengths)
            slot.session_model = slot.session_model.with_strengths(strengths)
        self.show_preview()
        self.show_status()

    def _follow_reply(self, ended: bool) -> None:
        self.update_keys()
        self.side.follow_reply(self._draft, ended=ended)

    def _inspect(self, reply: "Reply | None", index: int) -> None:
        self.set_class(reply is not None, "-inspecting")
        self.side.inspect(reply, index)
        self.update_keys()

    # Actions

    def action_call(self, method: str, *arguments: Any) -> None:
        """Call a method of one of the objects of the session, such as `view.again`."""
        try:
            attrgetter(method)(self)(*arguments)
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)

    def key_alt_up(self) -> None:
        """Say why a key for the strength, which is no binding then, does nothing."""
        if self.is_ready and (problem := keys.find_problem("strength", self.slot.session_model)):
            self.notify(problem, markup=False)

    key_alt_down = key_alt_up

    def action_stop(self) -> None:
        """Clear a command, stop the reply, leave the search, an edit or the words, or go back to the prompt."""
        if keys.is_command(self.prompt.value):
            self.prompt.clear()
            self.set_focus(self.prompt)
        elif not self.is_ready:
            return
        elif self.view.conversation.active_reply is not None:
            self.view.conversation.stop()
        elif self.view.search_bar.close():
            self.set_focus(self.prompt)
        elif self.view.edited_reply is not None:
            self.view.edited_reply = None
            self.prompt.clear()
            self.set_focus(self.prompt)
            self.update_keys()
        elif self.side.next.reply is not None or self.focused is not self.prompt:
            self.view.leave_words()
            self.set_focus(self.prompt)
        else:
            self.action_show_pane("transcript")

    def action_interrupt(self) -> None:
        """Stop the reply, or say how to quit, which ctrl+c never does."""
        if self.is_ready and self.view.conversation.active_reply is not None:
            self.view.conversation.stop()
        else:
            self.notify("ctrl+q quits", timeout=3)

    def action_enter(self) -> None:
        if self.side.next.reply is not None:
            self.side.branch()
        else:
            self.set_focus(self.prompt)

    def action_redraw(self) -> None:
        self.app.refresh(layout=True)

    def action_edit(self) -> None:
        if (reply := self.view.target_reply) is not None and not reply.prompt:
            self.notify("This reply has no prompt that could be edited; r draws another answer.")
        elif reply is not None:
            self.view.edited_reply, self.prompt.value = reply, reply.prompt or ""
            self.set_focus(self.prompt)

    def save_again(self) -> str:
        return self.view.conversation.session.save_again() if self.is_ready else ""

    def action_learn(self, chapter: str = "") -> None:
        """Open a chapter of the class on the model of this session, or the first one whose task is not done."""
        from lotr_tui.learn.material import Material
        from lotr_tui.screens.learn.screen import ChapterScreen

        model = self.slot.session_model if self.is_ready else None
        self._knows_class = True

        def close(trained: "SessionModel | None") -> None:
            self.query_one(HelpLine).update_text()
            if trained is not None:
                self.set_session_model(trained, f"now using {trained.name}")

        index = chapters.find_chapter(chapter) if chapter else None
        self.app.push_screen(ChapterScreen(lambda: Material.from_session(model), index), close)

    def action_inspect(self, inspector: str) -> None:
        name = keys.find_name(inspector, keys.INSPECTORS)
        self.app.push_screen(self.view.create_inspector(name, self._draft))
