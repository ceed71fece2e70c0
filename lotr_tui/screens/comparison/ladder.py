"""The ladder: one prompt, one seed, one model, a temperature a column."""

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from textual.widget import Widget
from textual.widgets import Input, Label

from engine.errors import UnusableInput
from engine.generation.settings import SamplerSettings
from lotr_tui.screens.comparison.columns import Against, ColumnText
from lotr_tui.screens.comparison.screen import ColumnsScreen, shown_temperature, step_temperature
from lotr_tui.session.column_writers import Slot
from lotr_tui.session.player import Player
from lotr_tui.textual_fixes.line_box import LineBox

NOTEBOOK = (0.5, 0.7, 0.75, 0.8, 1.0)
"""The temperatures of the classroom notebook."""
MOST = 12


class LadderScreen(ColumnsScreen):
    """All columns share the noise of one seed over the whole vocabulary: they differ by temperature alone."""

    NAME: ClassVar[str] = "ladder"
    NARROWEST: ClassVar[int] = 14  # "4.21 bits/word", and five of them in 80 cells
    AGAINST: ClassVar[Against] = "left"  # rung by rung

    def __init__(self, player: Player, prompt: str, settings: SamplerSettings, seed: int | None, pace: float) -> None:
        """Play with `player`; all of `settings` but the temperature holds for every column."""
        super().__init__(prompt, settings, seed, pace)
        self._player = player
        self.slots = [self._slot(temperature) for temperature in NOTEBOOK]

    def fields(self) -> Iterable[Widget]:
        """The temperatures, to be typed."""
        yield Label("T")
        yield LineBox(_typed(NOTEBOOK), id="temperatures", restrict=r"[0-9., ]*", compact=True)

    def title_parts(self) -> tuple[str, str]:
        """The model, and the chain but for the temperature."""
        about = [self._player.description] if self._player.description else []
        stages = self.settings.chain().split(" → ")
        about += [stage for stage in stages if "temperature" not in stage]
        return self._player.name, " · ".join(about)

    def apply_fields(self) -> None:
        """Columns of the temperatures that were typed.

        Raises:
            UnusableInput: one is no temperature, or there are too many.
        """
        self._set(self._temperatures(), self.chosen)

    def action_add(self) -> None:
        """A column half-way to the next one; behind the last, a little hotter."""

        def add() -> None:
            temperatures = self._temperatures()
            if len(temperatures) == MOST:
                raise UnusableInput(f"{MOST} columns are as many as can be read; f4 takes one away")
            at = min(self.chosen, len(temperatures) - 1)
            here = temperatures[at]
            new = min(2.0, here + 0.1) if at == len(temperatures) - 1 else (here + temperatures[at + 1]) / 2
            self._set([*temperatures[: at + 1], round(new, 3), *temperatures[at + 1 :]], at + 1)

        self._change(add)

    def action_remove(self) -> None:
        """Take the chosen column away; one stays."""

        def remove() -> None:
            temperatures = self._temperatures()
            if len(temperatures) == 1:
                raise UnusableInput("one column stays; f3 adds another")
            at = min(self.chosen, len(temperatures) - 1)
            self._set([*temperatures[:at], *temperatures[at + 1 :]], at)

        self._change(remove)

    def action_heat(self, steps: int) -> None:
        """Make the chosen column hotter or cooler."""

        def heat() -> None:
            temperatures = self._temperatures()
            at = min(self.chosen, len(temperatures) - 1)
            temperatures[at] = step_temperature(temperatures[at], steps)
            self._set(temperatures, at)

        self._change(heat)

    def _change(self, change: Callable[[], None]) -> None:
        """Change the columns; what is new among them is written at once, from the same prompt and seed."""
        if self.try_to(change):
            self.start_blank()

    def _temperatures(self) -> list[float]:
        return parse_temperatures(self.query_one("#temperatures", Input).value)

    def _set(self, temperatures: Sequence[float], chosen: int) -> None:
        """Have these columns; those that were there before keep their text."""
        old = list(self.slots)
        self.slots = []
        for temperature in temperatures:
            kept = next((slot for slot in old if slot.temperature == temperature), None)
            if kept is not None:
                old.remove(kept)
            self.slots.append(kept or self._slot(temperature))
        self.query_one("#temperatures", Input).value = _typed(temperatures)
        self.show_slots(chosen)

    def _slot(self, temperature: float) -> Slot:
        return Slot(ColumnText(shown_temperature(temperature)), self._player.model, temperature)


def parse_temperatures(text: str) -> list[float]:
    """The temperatures in `text`, separated by spaces or commas.

    Raises:
        UnusableInput: there is none, there are too many, or one is no number in range.
    """
    temperatures = []
    for part in text.replace(",", " ").split():
        try:
            temperature = float(part)
        except ValueError:
            raise UnusableInput(f"temperature {part!r} is no number; write them like 0.5 0.8 1") from None
        SamplerSettings(temperature=temperature)  # refuses what is out of range
        temperatures.append(round(temperature, 4))
    if not temperatures:
        raise UnusableInput("there is no temperature; write some, like 0.5 0.8 1")
    if len(temperatures) > MOST:
        raise UnusableInput(f"{len(temperatures)} temperatures are too many; write at most {MOST}")
    return temperatures


def _typed(temperatures: Sequence[float]) -> str:
    return " ".join(shown_temperature(temperature) for temperature in temperatures)
