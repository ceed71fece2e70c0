"""Inspectors of a network: strips of one layer at a time, and a unit or head that stays pinned along the text."""

from typing import Any, ClassVar

from textual import on
from textual.binding import BindingType

from lotr_tui.background_task import BackgroundTask
from lotr_tui.formatting import token_noun
from lotr_tui.screens.inspect.heat_strip import HeatStrips
from lotr_tui.screens.inspect.page import Page
from lotr_tui.screens.inspect.row_list import RowList
from lotr_tui.screens.inspect.text_screen import ResultT, TextScreen
from lotr_tui.screens.inspect.text_view import TextView
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.keys import binding_table


class LayerScreen(TextScreen[ResultT]):
    AUTO_FOCUS = "#strips"
    BUSY_MESSAGE = "reading the text …"
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        *binding_table(
            "layers",
            """
            layer | right_square_bracket | step_layer(1) | layer | The next layer | [ ]
            pin   | space                | toggle_pin    | pin   | Keep showing this line of the strips along the text
            """,
            show=True,
        ),
        *binding_table("layers", "previous | left_square_bracket | step_layer(-1) | previous layer | The layer before"),
    ]
    side_task: BackgroundTask[Any]
    """Task beside the analysis of the text."""

    def __init__(self, session_model: SessionModel, text: str = "") -> None:
        super().__init__(session_model, text)
        self._noun = token_noun(session_model.model.tokenizer)
        self.layer_index = 0
        self.num_layers = 0
        """Layers of the network; 0 while they are unknown."""
        self.pinned: Any = None
        """Unit or head that stays shown along the text, if any."""
        self._is_first_result = True

    def find_selected(self) -> Any:
        """Return the unit or head under the cursor of the strips."""
        raise NotImplementedError

    def update_view(self) -> None:
        raise NotImplementedError

    @property
    def is_idle(self) -> bool:
        return super().is_idle and not self.side_task.is_running

    def on_unmount(self) -> None:
        super().on_unmount()
        self.side_task.cancel()

    def show_page(self, page: Page, cursor: int | None) -> None:
        self.query_one(TextView).show(page, len(page.tokens) - 1 if cursor is None else cursor)
        self.update_view()

    def show_message(self, message: str) -> None:
        self.query_one(HeatStrips).show_message(message)

    @on(TextView.CursorMoved)
    @on(HeatStrips.CursorMoved)
    def _follow_cursor(self) -> None:
        self.update_view()

    @on(RowList.Selected, "#along")
    def _move_to_token(self, message: RowList.Selected) -> None:
        self.query_one(TextView).move_cursor(message.index)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide the layer keys if there is only one layer."""
        return action != "step_layer" or self.num_layers != 1

    def action_step_layer(self, offset: int) -> None:
        if self.num_layers:
            self.layer_index = (self.layer_index + offset) % self.num_layers
            self.update_view()

    def action_toggle_pin(self) -> None:
        if self.num_layers:
            self.pinned = self.find_selected() if self.pinned is None else None
            self.update_view()
