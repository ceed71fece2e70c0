"""Ladder screen: one model, one prompt and one seed, a column for each temperature."""

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from textual.binding import BindingType
from textual.widget import Widget
from textual.widgets import Input, Label

from engine.data.speakers import display_name
from engine.errors import InvalidInputError
from engine.models.base import LanguageModel
from lotr_tui.background_task import is_closed
from lotr_tui.screens.comparison import temperatures
from lotr_tui.screens.comparison.columns import CompareWith
from lotr_tui.screens.comparison.screen import GenerationColumnsScreen
from lotr_tui.screens.comparison.speakers import FINDING_SPEAKER, rank_speakers_in_thread
from lotr_tui.session.cast import read_name
from lotr_tui.session.columns import ColumnOutput, ColumnSlot
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.line_input import LineInput

WIDE_TEMPERATURES = (0.3, 0.6, 0.9, 1.2, 1.5)
"""Temperatures that the ladder starts with, from cautious to wild."""
NOTEBOOK_TEMPERATURES = (0.5, 0.7, 0.75, 0.8, 1.0)
"""Temperatures of the classroom notebook; their texts are often the same."""
MAX_COLUMNS = 12


class LadderScreen(GenerationColumnsScreen):
    """Texts that share the sampling noise of one seed and differ only by temperature."""

    HEADING: ClassVar[str] = "ladder"
    HELP_LINE = "One seed, several temperatures: low is safe, high is wild"
    MIN_COLUMN_WIDTH: ClassVar[int] = 14  # "4.21 bits/word" fits, and five columns fit into 80 cells
    COMPARE_WITH: ClassVar[CompareWith] = "left"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "ladder",
        """
        preset | f2 | next_preset | preset | The temperatures of the notebook, or again 0.3 to 1.5
        """,
        show=True,
    )

    def make_first_slots(self) -> list[ColumnSlot]:
        """Return a column for each of the first temperatures."""
        self._speaker = self.prompt_context.roles.speaker
        return [self._make_slot(temperature) for temperature in WIDE_TEMPERATURES]

    def compose_controls(self) -> Iterable[Widget]:
        """Yield the input for the temperatures."""
        yield Label("temps")
        text = temperatures.format_temperatures(WIDE_TEMPERATURES)
        yield LineInput(text, id="temperatures", restrict=r"[0-9., ]*", compact=True)
        if self.session_model.knows_speakers:
            yield Label("to" if self.prompt_context.is_answer else "as", id="role")
            yield LineInput(display_name(self._speaker), id="speaker", placeholder="a name", compact=True)

    def load_initial_columns(self) -> None:
        """Find out who is likely to say the text, unless that is chosen."""
        if self.session_model.knows_speakers and not self._speaker:
            self.run_worker(self._find_speaker(), group="loading")

    async def _find_speaker(self) -> None:
        """Let the likeliest speaker say the text of all columns."""
        ranking = await rank_speakers_in_thread(self, self._prompt)
        if is_closed(self) or self._speaker or not ranking:
            return
        self._set_speaker(ranking[0].name)
        self.show_slots()
        self.generate_empty_columns()

    def _set_speaker(self, name: str) -> None:
        """Let a speaker say the text of all columns."""
        self._speaker = name
        self._set_input_value("#speaker", display_name(name))
        for slot in self.slots:
            slot.speaker, slot.model = name, self.session_model.model
            slot.output.placeholder = ""

    def title_parts(self) -> tuple[str, str]:
        """Return the name of the model, and its description with the sampler settings except for the temperature."""
        stages = [stage for stage in self.settings.describe().split(" → ") if "temperature" not in stage]
        return self.session_model.name, " · ".join(filter(None, [self.session_model.description, *stages]))

    def apply_controls(self) -> None:
        """Show a column for each typed temperature, said by the typed speaker.

        Raises:
            InvalidInputError: If a temperature is invalid, there are too many, or the speaker is no name.
        """
        if self.session_model.knows_speakers and (name := self.query_one("#speaker", Input).value.strip()):
            self._set_speaker(read_name(name, self.session_model.cast))
        self._set_temperatures(self._parse_temperatures_input(), self.selected_index)

    def action_next_preset(self) -> None:
        """Switch between the notebook's temperatures and the wide range that the ladder starts with."""
        shown = tuple(slot.temperature for slot in self.slots)
        self._set_temperatures(WIDE_TEMPERATURES if shown == NOTEBOOK_TEMPERATURES else NOTEBOOK_TEMPERATURES, 0)
        self.show_note()
        self.generate_empty_columns()

    def action_add_column(self) -> None:
        """Add a column between the selected and the next one, or one with a higher temperature at the end."""

        def add(values: list[float], index: int) -> int:
            if len(values) == MAX_COLUMNS:
                raise InvalidInputError(f"there are {MAX_COLUMNS} columns, the maximum; f4 removes one")
            is_last = index == len(values) - 1
            new = min(2.0, values[index] + 0.1) if is_last else (values[index] + values[index + 1]) / 2
            values.insert(index + 1, round(new, 3))
            return index + 1

        self._change_columns(add)

    def action_remove_column(self) -> None:
        """Remove the selected column, unless it is the last one."""

        def remove(values: list[float], index: int) -> int:
            if len(values) == 1:
                raise InvalidInputError("one column must stay; f3 adds another")
            del values[index]
            return index

        self._change_columns(remove)

    def action_adjust_temperature(self, steps: int) -> None:
        """Change the temperature of the selected column by a number of steps."""

        def adjust(values: list[float], index: int) -> int:
            values[index] = temperatures.step_temperature(values[index], steps)
            return index

        self._change_columns(adjust)

    def _change_columns(self, change: Callable[[list[float], int], int]) -> None:
        """Change the columns, and generate the new ones with the prompt and seed of the others.

        `change` modifies a list of temperatures, given the selected index, and returns the new index.
        """

        def apply() -> None:
            values = self._parse_temperatures_input()
            self._set_temperatures(values, change(values, min(self.selected_index, len(values) - 1)))

        if self.try_or_show_error(apply):
            self.generate_empty_columns()

    def _parse_temperatures_input(self) -> list[float]:
        return temperatures.parse_temperatures(self.query_one("#temperatures", Input).value, MAX_COLUMNS)

    def _set_temperatures(self, values: Sequence[float], selected_index: int) -> None:
        """Show a column for each temperature; columns that exist already keep their text."""
        unused, self.slots = self.slots, []
        for temperature in values:
            slot = next((slot for slot in unused if slot.temperature == temperature), None)
            if slot is not None:
                unused.remove(slot)
            self.slots.append(slot or self._make_slot(temperature))
        self.query_one("#temperatures", Input).value = temperatures.format_temperatures(values)
        self.show_slots(selected_index)

    def _make_slot(self, temperature: float) -> ColumnSlot:
        output = ColumnOutput(f"temp {temperatures.format_temperature(temperature)}")
        model: LanguageModel | None = self.session_model.model
        if self.session_model.knows_speakers and not self._speaker:
            model, output.placeholder = None, FINDING_SPEAKER
        return ColumnSlot(output, model, temperature, self._speaker)
