"""What of the session needs no model, and so is painted first; the model is opened behind it."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Label, Rule

from engine.errors import reason_of
from lotr_tui.background_task import aside
from lotr_tui.messages import PaneChosen
from lotr_tui.screens.session.status import SessionStatus
from lotr_tui.session.history import History
from lotr_tui.textual_fixes.screen import Steady
from lotr_tui.widgets.keys_footer import KeysFooter
from lotr_tui.widgets.pane_tabs import PANES, PaneTabs
from lotr_tui.widgets.prompt import Prompt

if TYPE_CHECKING:  # with numpy, which the first paint does without
    from lotr_tui.app import LotrApp
    from lotr_tui.session.player import Player

ROOMY = 72
"""Columns from which on the controls take two lines."""
WITHOUT_MODEL = ("choose_model", "train")
"""Actions that need no model: they lead to one."""


class SessionFrame(Steady, Screen[None]):
    """Status, a prompt to type into, keys, and room for the panes and controls that come with a model."""

    AUTO_FOCUS = "#prompt"

    def __init__(self, player: "Player | None", opening: "Callable[[], Player] | None") -> None:
        """Show `player`; where there is none yet, what `opening` makes in a thread."""
        super().__init__()
        self._player: Player
        """There once the frame `_is_open`."""
        self._is_open = False
        self._comes = False
        """Whether it opens, or is open."""
        self._given = player
        self._opening = opening

    @property
    def lotr(self) -> "LotrApp":
        """The app, with its own type."""
        return cast("LotrApp", self.app)

    def compose(self) -> ComposeResult:
        """Status, room for the panes, room for the controls, prompt, keys."""
        yield SessionStatus(id="status")
        yield PaneTabs(id="panes")
        yield Rule(line_style="solid")
        yield Horizontal(id="body")
        yield Rule(line_style="solid")
        yield Horizontal(id="controls")
        with Horizontal(id="prompt-line"):
            yield Label("❯", id="prompt-mark")
            yield Prompt(prompts=History(), id="prompt")
        yield KeysFooter()

    async def on_mount(self) -> None:
        """Show the model, or open it once the frame is painted."""
        self.query_one("#status", SessionStatus).tell(None, None)
        if self._given is not None:
            await self._open(self._given)
        else:
            # As high as the controls will be, so that nothing moves when they come.
            self.query_one("#controls").styles.height = 2 if self.app.size.width >= ROOMY else 1
            self.call_after_refresh(lambda: self.run_worker(self._open_behind(), group="open"))

    async def _open_behind(self) -> None:
        """Open the model in a thread, with all that shows it: the prompt can be typed into meanwhile."""

        def opening() -> "Player":
            import lotr_tui.screens.session.panes  # noqa: F401 - takes about as long as the model

            assert self._opening is not None
            return self._opening()

        try:
            player = await aside(opening)
        except Exception as error:  # whatever it is, a run can be chosen or a model trained
            if not self._comes:
                text = f"There is no model: {reason_of(error)}\n\nctrl+o opens one of your runs, ctrl+t trains a model."
                await self.query_one("#body").mount(Label(text, id="no-model", markup=False))
        else:
            if not self._comes:  # else a run was chosen meanwhile
                await self._open(player)

    async def _open(self, player: "Player") -> None:
        """Show a model: the panes and the controls come; once, of several models that come together for the last."""
        self._player = player
        if self._comes:
            return
        self._comes = True
        panes, below = self._parts()
        body, controls = self.query_one("#body"), self.query_one("#controls")
        with self.app.batch_update():
            await body.remove_children()
            await body.mount(*panes)
            await controls.mount(*below)
            controls.styles.height = None
        self._is_open = True
        self.query_one("#prompt", Prompt).vocabulary = self._player.model.vocabulary
        self.refresh_bindings()
        self._opened()

    def _parts(self) -> tuple[Sequence[Widget], Sequence[Widget]]:
        """The panes that show `_player`, and the controls."""
        raise NotImplementedError

    def _opened(self) -> None:
        """The panes and controls are there."""
        raise NotImplementedError

    # What can be done

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """On a wide terminal all panes are seen, so there is no next one; without a model there is little to do."""
        if not self._is_open and action not in WITHOUT_MODEL:
            return None
        return action != "next_pane" or self.has_class("-narrow")

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
