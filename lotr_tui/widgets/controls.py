"""How the next word is drawn: the controls between the transcript and the prompt."""

from typing import Any

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Label

from engine.sampling import SamplerSettings
from lotr_tui.settings import Way
from lotr_tui.widgets.number_field import NumberField
from lotr_tui.widgets.temperature_slider import TemperatureSlider


class WayLabel(Label):
    """Whether the model goes on behind the prompt or answers it; a click changes that."""

    class Toggled(Message):
        """It was clicked."""

    def on_click(self) -> None:
        """Tell the screen."""
        self.post_message(self.Toggled())


class Controls(Horizontal):
    """Temperature, top-k, top-p, seed and words; and the way to play."""

    DEFAULT_CSS = """
    Controls { height: 1; padding: 0 1; }
    Controls #way { margin-left: 2; color: $foreground 60%; }
    """

    def compose(self) -> ComposeResult:
        """A slider, and fields."""
        yield TemperatureSlider(0.8, id="temperature")
        yield NumberField("top-k", "", id="top_k", width=4, placeholder="all")
        yield NumberField("top-p", "", id="top_p", width=4, placeholder="1", decimal=True)
        yield NumberField("seed", "", id="seed", width=8, placeholder="drawn")
        yield NumberField("words", "30", id="max_tokens", width=4, placeholder="30")
        yield WayLabel("continue", id="way", markup=False)

    def settings(self) -> SamplerSettings:
        """What they say.

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

    def seed(self) -> int | None:
        """The seed that was fixed, if one was."""
        return self.query_one("#seed", NumberField).whole()

    def heat(self, steps: int) -> None:
        """Move the slider."""
        self.query_one("#temperature", TemperatureSlider).action_move(steps)

    def show_way(self, way: Way) -> None:
        """Show which way is played."""
        self.query_one("#way", WayLabel).update(way)
