"""Frame of the session: everything that is painted before the model is loaded."""

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Label, Rule

from engine.errors import describe_error
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.formatting import token_noun
from lotr_tui.learn.progress import progress_file
from lotr_tui.messages import PaneSelected
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.prompt_screen import PromptScreen
from lotr_tui.screens.session.first_steps import FirstSteps
from lotr_tui.screens.session.footer import FOOTER_KEYS, HELP_LINES, SessionState
from lotr_tui.screens.session.role_labels import RoleLabels
from lotr_tui.screens.session.status import SessionStatus
from lotr_tui.session.history import PromptHistory
from lotr_tui.session.model_loading import UPDATE_INTERVAL, ModelLoader
from lotr_tui.widgets.help_line import HelpLine, find_help_line
from lotr_tui.widgets.key_footer import FooterKey, KeyFooter
from lotr_tui.widgets.pane_tabs import PaneTabs
from lotr_tui.widgets.prompt.prompt_input import PromptInput

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from lotr_tui.screens.session.panes import SessionPanes
    from lotr_tui.session.session_model import SessionModel

SESSION_PANES = {"transcript": "conversation", "next": "next word", "training": "training"}
"""Panes of a narrow terminal by id, with their names."""
TWO_LINE_CONTROLS_WIDTH = 72
"""Minimum width in cells at which the controls take two lines."""
MODEL_FREE_ACTIONS = ("choose_model", "switch_model", "fetch_model", "train", "learn", "stop")
"""Actions that work without a model."""
PAUSE = 0.02
"""Seconds between two parts of the work when a model arrives, in which a key is shown."""
CLASS_HINT = "New to language models? /learn opens a short class"
"""Help line for a user who has neither sent a prompt nor opened the class."""


class BaseSessionScreen(AppScreen[None], PromptScreen):
    """Status, prompt and keys, with room for the panes and controls that are created with the model."""

    AUTO_FOCUS = "#prompt"

    def __init__(
        self, session_model: "SessionModel | None", load_session_model: "Callable[[], SessionModel] | None"
    ) -> None:
        """Show `session_model`, or without one the result of `load_session_model`, loaded after the first paint."""
        super().__init__()
        self.session_model: SessionModel
        """Model of the session, once `is_ready`."""
        self._panes: SessionPanes
        """Panes and controls, once `is_ready`."""
        self.is_ready = False
        """True once the model and its panes are shown."""
        self._open_started = False
        """True from the moment the panes are being created."""
        self._history = PromptHistory()
        self._first_steps = FirstSteps(len(self._history.entries))
        self._knows_class = bool(self._history.entries) or os.path.lexists(progress_file())
        """False for a new user until the class was opened, so that the help line mentions the class."""
        self._shown_keys: tuple[SessionState, dict[str, str]] | None = None
        self._initial_session_model = session_model
        self._load_session_model = load_session_model

    def compose(self) -> ComposeResult:
        """Compose the frame."""
        width = self.app.size.width  # Textual sets its class after the first paint, and restyles everything
        self.add_class(max(item for item in self.app.HORIZONTAL_BREAKPOINTS or () if item[0] <= width)[1])
        yield SessionStatus(id="status")
        yield PaneTabs(SESSION_PANES, id="panes")
        yield Rule(line_style="solid", id="top-rule")
        yield Horizontal(Label(id="loading", markup=False), id="body")
        yield Rule(line_style="solid")
        yield Horizontal(id="controls")
        yield RoleLabels(id="roles")
        with Horizontal(id="prompt-line"):
            yield Label("❯", id="prompt-mark")
            yield PromptInput(history=self._history, id="prompt")
        yield HelpLine()
        yield KeyFooter(self._footer_keys)

    async def on_mount(self) -> None:
        """Show the model, or load it after the first paint."""
        self.query_one("#status", SessionStatus).update_status(None, None)
        if self._initial_session_model is not None:
            await self._show_session_model(self._initial_session_model, pause=0)
        else:
            # The height that the controls will have, so that nothing moves when they appear.
            self.query_one("#controls").styles.height = 2 if self.app.size.width >= TWO_LINE_CONTROLS_WIDTH else 1
            self.call_after_refresh(lambda: self.run_worker(self._open_in_background(), group="open"))
            self.call_after_refresh(self._ask_at_first_start)

    async def _open_in_background(self) -> None:
        """Load the model and the modules of its panes in a thread; the prompt accepts keys meanwhile."""

        def load() -> "SessionModel":
            import lotr_tui.screens.session.panes  # noqa: F401 - takes about as long as the model

            assert self._load_session_model is not None
            return self._load_session_model()

        stop_showing = self._show_progress()
        try:
            session_model = await run_in_thread(load)
        except Exception as error:  # the user can still choose a run or train a model
            stop_showing()
            if not self._open_started and not is_closed(self):
                hint = "Press ctrl+o to use one of your runs, ctrl+t to train a model."
                text = f"No model: {describe_error(error)}\n\n{hint}"
                body = self.query_one("#body")
                await body.remove_children()
                await body.mount(Label(text, id="no-model", markup=False))
        else:
            stop_showing()
            if not self._open_started and not is_closed(self):  # a run may have been chosen meanwhile
                await self._show_session_model(session_model)

    def _show_progress(self) -> Callable[[], None]:
        """Show in the body what is loaded, unless it is there at once. Return a function that ends the updates."""
        loader = self._load_session_model
        if not isinstance(loader, ModelLoader) or is_closed(self):
            return lambda: None
        label = self.query_one("#loading", Label)
        return self.set_interval(UPDATE_INTERVAL, lambda: label.update(f"{loader.describe()} …")).stop

    async def _show_session_model(self, session_model: "SessionModel", pause: float = PAUSE) -> None:
        """Create the panes and controls of a model. If several models arrive at once, the last one is shown."""
        self.session_model = session_model
        if self._open_started:
            return
        self._open_started = True
        self._panes = self._create_panes()
        body, controls = self.query_one("#body"), self.query_one("#controls")
        panes = (self._panes.conversation, self._panes.side, self._panes.sampler)
        for pane in panes:  # created and then shown one after the other, so that keys are handled in between
            pane.styles.display = "none"
            await (controls if pane is self._panes.sampler else body).mount(pane)
            await asyncio.sleep(pause)
        self.is_ready = True
        self._adapt_prompt()
        self.refresh_bindings()
        self._after_open()
        for pane in reversed(panes):
            await asyncio.sleep(pause)
            if pane is self._panes.conversation:
                await body.remove_children(Label)
            pane.styles.display = None
        controls.styles.height = None

    def _adapt_prompt(self) -> None:
        """Mark the words that the model does not know, and name its tokens."""
        tokenizer = self.session_model.model.tokenizer
        self._prompt.tokenizer = tokenizer
        self._panes.sampler.set_token_noun(token_noun(tokenizer))

    def _ask_at_first_start(self) -> None:
        """Ask for the model to use, the first time that the program is started."""
        raise NotImplementedError

    def _create_panes(self) -> "SessionPanes":
        """Create the panes and controls of the model."""
        raise NotImplementedError

    def _after_open(self) -> None:
        """React to the panes being there."""
        raise NotImplementedError

    # Footer and help line

    def _footer_keys(self) -> Sequence[FooterKey]:
        state, words = self._shown_keys = self._compute_state(), self._footer_words()
        return [key._replace(description=key.description.format_map(words)) for key in FOOTER_KEYS[state]]

    def _footer_words(self) -> dict[str, str]:
        """Return the words for the fields in the descriptions of the keys: see `FOOTER_KEYS`."""
        return {"noun": self._token_noun(), "more": "more", "mode": "reply", "cast": "cast"}

    def _token_noun(self) -> str:
        return token_noun(self.session_model.model.tokenizer) if self.is_ready else "word"

    def _compute_state(self) -> SessionState:
        """Return the state that decides which keys matter."""
        if not self.is_ready:
            return "start"
        conversation = self._panes.conversation.conversation
        if conversation.active_reply is not None:
            return "writing"
        if self.has_class("-inspecting"):
            return "words"
        focused = () if self.focused is None else self.focused.ancestors_with_self
        if self._panes.sampler in focused:
            return "controls"
        if any(node.id == "search" for node in focused):
            return "search"
        return "start" if conversation.current_reply is None else "idle"

    def get_help_line(self) -> str:
        """Return the help for the state, or else the next thing to try, or before a reply what the user talks to."""
        if help_line := HELP_LINES.get(self._compute_state()):
            return help_line.format(noun=self._token_noun())
        is_empty = self.is_ready and self._panes.conversation.conversation.current_reply is None
        pane = self.query_one("#panes", PaneTabs).pane
        if self.is_ready and self.has_class("-narrow") and pane != "transcript":
            return find_help_line(self.query_one(f"#{pane}"), below=self)
        if is_empty:
            return self.session_model.introduction() if self._knows_class else CLASS_HINT
        return self._first_steps.hint(is_narrow=self.has_class("-narrow"))

    def _update_keys(self) -> None:
        """Show the keys and the help of a new state."""
        if (self._compute_state(), self._footer_words()) != self._shown_keys:
            self.query_one(KeyFooter).refresh()
        self.query_one(HelpLine).update_text()

    def on_enter(self, event: events.Enter) -> None:
        """Show the help of the part under the pointer."""
        self.query_one(HelpLine).point_at(event.node)

    def on_leave(self, event: events.Leave) -> None:
        """Show the help of the focused part again."""
        self.query_one(HelpLine).leave(event.node)

    # Panes

    @property
    def _has_training(self) -> bool:
        """False for a model by others, whose training is not known, unless another model is trained now."""
        return self.app.is_training or not (self.is_ready and self.session_model.is_by_others)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return None for an action that waits for the model, and False for the next pane on a wide terminal."""
        if not self.is_ready and action not in MODEL_FREE_ACTIONS:
            return None
        return action != "next_pane" or self.has_class("-narrow")

    def action_next_pane(self) -> None:
        """Show the next pane, except that of the training if there is none."""
        panes = [pane for pane in SESSION_PANES if pane != "training" or self._has_training]
        pane = self.query_one("#panes", PaneTabs).pane
        self._show_pane(panes[(panes.index(pane) + 1) % len(panes) if pane in panes else 0])

    def on_pane_selected(self, message: PaneSelected) -> None:
        """Show the clicked pane."""
        self._show_pane(message.pane)

    def _show_pane(self, pane: str) -> None:
        self.query_one("#panes", PaneTabs).pane = pane
        for name in SESSION_PANES:
            self.set_class(name == pane, f"-pane-{name}")
        self.query_one(HelpLine).update_text()
