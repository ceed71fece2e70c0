"""Sampler presets and the widget that selects one."""

from collections.abc import Mapping
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from engine.generation.settings import SamplerSettings
from lotr_tui.session.settings import PRETRAINED_SAMPLER

SAMPLER_PRESETS: Mapping[str, SamplerSettings] = {
    "greedy": SamplerSettings(temperature=0.0),
    "careful": SamplerSettings(temperature=0.5, min_p=0.1),
    "conversation": PRETRAINED_SAMPLER,
    "chat": SamplerSettings(temperature=0.7, min_p=0.05),
    "balanced": SamplerSettings(temperature=0.8, top_p=0.9),
    "wild": SamplerSettings(temperature=1.3, min_p=0.02),
    **{f"notebook {t}": SamplerSettings(temperature=t) for t in (0.5, 0.7, 0.75, 0.8, 1.0)},
}
"""Sampler settings by preset name; the notebook only has a temperature. A preset does not change the maximum length."""
CUSTOM_PRESET = "custom"
"""Name shown for settings that match no preset."""


class PresetPicker(Widget, can_focus=True):
    """Name of the preset in use; arrow keys, space, a click or the mouse wheel ask for another preset."""

    DEFAULT_CSS = """
    PresetPicker { width: 17; height: 1; }
    PresetPicker:focus { background: $panel; text-style: bold; }
    """
    HELP_LINE = "A preset sets temperature and filters; ← → choose another"
    BINDING_GROUP_TITLE = "Sampling preset"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,up", "step(-1)", "previous", id="preset.previous", show=False, tooltip="The previous preset"),
        Binding("right,down,space", "step(1)", "next", id="preset.next", show=False, tooltip="The next preset"),
    ]

    preset_name: reactive[str] = reactive(CUSTOM_PRESET)

    class StepRequested(Message):
        """Request for the preset that is `offset` places further in the list."""

        def __init__(self, offset: int) -> None:
            super().__init__()
            self.offset = offset

    def render(self) -> Content:
        """Return the name between arrows, such as `‹ balanced ›`."""
        return Content.assemble(("‹ ", "$accent"), self.preset_name, (" ›", "$accent"))

    def action_step(self, offset: int) -> None:
        """Post `StepRequested`."""
        self.post_message(self.StepRequested(offset))

    def on_click(self, event: events.Click) -> None:
        """Ask for the previous preset if the left arrow was clicked, otherwise for the next one."""
        self.action_step(-1 if event.x < 2 else 1)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Ask for the previous preset."""
        event.stop()
        self.action_step(-1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Ask for the next preset."""
        event.stop()
        self.action_step(1)
