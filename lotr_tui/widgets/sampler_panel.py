"""Controls for the sampler settings, with a summary of the resulting sampler chain."""

from collections.abc import Callable
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any, NamedTuple

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from engine.errors import InvalidInputError, suggest_nearest
from engine.generation.settings import SamplerSettings, check_seed, random_seed
from lotr_tui.messages import TemperatureChanged
from lotr_tui.theme import MUTED
from lotr_tui.widgets.number_field import NumberField
from lotr_tui.widgets.preset_picker import CUSTOM_PRESET, SAMPLER_PRESETS, PresetPicker
from lotr_tui.widgets.temperature_slider import TemperatureSlider

NARROW_WIDTH = 70  # columns from which the preset and the summary are always visible
WIDE_WIDTH = 98  # columns from which all controls are always visible


class _Control(NamedTuple):
    label: str
    width: int
    help_line: str
    is_decimal: bool = False


_CONTROLS = {
    "top_k": _Control("top-k", 5, "Only this many of the most likely words; empty: all"),
    "top_p": _Control("top-p", 5, "Only the most likely words with this total probability", is_decimal=True),
    "min_p": _Control("min-p", 5, "Only words at least this fraction as likely as the first", is_decimal=True),
    "repetition_penalty": _Control("penalty", 4, "Above 1, words that were used become less likely", is_decimal=True),
    "max_tokens": _Control("words", 4, "Maximum number of words of a reply"),
}
_DEFAULTS = {field.name: field.default for field in fields(SamplerSettings)}
_PLACEHOLDERS = {"top_k": "all", "max_tokens": "30"}
_chain_of = attrgetter("repetition_penalty", "temperature", "top_k", "top_p", "min_p")
_PRESET_NAMES = {_chain_of(preset): name for name, preset in SAMPLER_PRESETS.items()}


class SamplerPanel(Vertical):
    """Controls for all sampler settings and the seed, the preset picker, and a summary of the sampler chain.

    The first line (temperature, seed, maximum length) is always visible. A wider panel also shows the preset and the
    summary, and the other controls while one of them is set; `toggle_all` shows everything at any width. Invalid input
    stays in its field, marked as an error.
    """

    DEFAULT_CSS = """
    SamplerPanel { height: auto; }
    SamplerPanel Horizontal { height: 1; }
    SamplerPanel #main TemperatureSlider { min-width: 20; }
    SamplerPanel #second { height: auto; layout: vertical; }
    SamplerPanel #filters { display: none; width: 1fr; }
    SamplerPanel #filters NumberField { margin-left: 0; margin-right: 2; }
    SamplerPanel #summary { width: 1fr; }
    SamplerPanel #chain { width: 1fr; text-wrap: nowrap; text-overflow: ellipsis; }
    SamplerPanel.-narrow #summary { display: none; }
    SamplerPanel.-all #filters, SamplerPanel.-all #summary { display: block; }
    SamplerPanel.-wide #second { layout: horizontal; height: 1; }
    SamplerPanel.-wide #filters { width: auto; }
    SamplerPanel.-wide #filters NumberField { margin-left: 2; margin-right: 0; }
    SamplerPanel.-wide.-filtered #filters { display: block; }
    """

    class Changed(Message):
        """Change of at least one control. `SamplerPanel.settings` returns the new values or raises an error."""

    def __init__(self, settings: SamplerSettings = SamplerSettings(), *, id: str | None = None) -> None:  # noqa: B008
        super().__init__(id=id)
        self._slider = TemperatureSlider(settings.temperature, id="temperature")
        self._fields = {
            name: NumberField(
                control.label,
                _field_text(name, settings),
                id=name,
                width=control.width,
                placeholder=_PLACEHOLDERS.get(name, f"{_DEFAULTS[name]:g}"),
                decimal=control.is_decimal,
                help_line=control.help_line,
            )
            for name, control in _CONTROLS.items()
        }
        help_line = "The same seed gives the same reply; empty: a new seed"
        self._seed_field = NumberField(
            "seed", "", id="seed", width=13, placeholder="random", max_digits=19, help_line=help_line
        )
        self._last_seed: int | None = None  # a random one
        self._last_values = self._values()

    def compose(self) -> ComposeResult:
        self._fit(self.app.size.width)  # before the controls are there, which would change their styles with it
        filters = [field for name, field in self._fields.items() if name != "max_tokens"]
        self.set_class(any(field.text for field in filters), "-filtered")
        with Horizontal(id="main"):
            yield self._slider
            yield self._seed_field
            yield self._fields["max_tokens"]
        with Vertical(id="second"):
            with Horizontal(id="summary"):
                yield PresetPicker(id="preset")
                yield Static(id="chain", markup=False)
            with Horizontal(id="filters"):
                yield from filters

    def on_mount(self) -> None:
        self._show_values()

    def on_resize(self, event: events.Resize) -> None:
        self._fit(event.size.width)

    def _fit(self, width: int) -> None:
        self.set_class(width < NARROW_WIDTH, "-narrow")
        self.set_class(width >= WIDE_WIDTH, "-wide")

    def set_token_noun(self, noun: str) -> None:
        """Name the maximum length after what the interface calls a token of the model."""
        self._fields["max_tokens"].set_label(f"{noun}s")

    # Values of the controls

    def settings(self) -> SamplerSettings:
        """Return the settings of the controls; a value out of range raises an InvalidInputError."""
        numbers = {name: number for name in _CONTROLS if (number := self._number(name)) is not None}
        return SamplerSettings(temperature=self._slider.value, **numbers)

    def seed(self) -> int | None:
        """Return the fixed seed, or None for a random one; a seed out of range raises an InvalidInputError."""
        seed = self._seed_field.parse_int()
        if seed is not None:
            check_seed(seed)
        return seed

    def draw_seed(self) -> int:
        """Return the fixed seed, or a random one, which the seed field then shows."""
        seed = self.seed()
        if seed is None:
            seed = self._last_seed = random_seed()
            self._seed_field.placeholder = f"random {seed}"
        return seed

    def set_value(self, name: str, text: str) -> None:
        """Set a field of `SamplerSettings`; a text that is no number in its range raises an InvalidInputError."""
        is_decimal = name == "temperature" or _CONTROLS[name].is_decimal
        value: Any = _parse_number(text, float if is_decimal else int)
        self.apply(replace(self.settings(), **{name: value}))

    def set_seed(self, text: str) -> None:
        """Fix a typed seed or the `last` random one, or return to `random` seeds."""
        if text == "last" and self._last_seed is not None:
            text = str(self._last_seed)
        if text != "random":
            check_seed(_parse_number(text, int))
        self._seed_field.text = "" if text == "random" else str(int(text))

    def apply(self, settings: SamplerSettings) -> None:
        """Set all controls and post one `Changed` message."""
        self._slider.value = settings.temperature
        for name, field in self._fields.items():
            field.text = _field_text(name, settings)
        self._post_if_changed()

    @property
    def preset(self) -> str:
        """Name of the preset in use, or `CUSTOM_PRESET`."""
        try:
            return _PRESET_NAMES.get(_chain_of(self.settings()), CUSTOM_PRESET)
        except InvalidInputError:
            return CUSTOM_PRESET

    def apply_preset(self, name: str) -> None:
        """Set all controls but the maximum length; a name that is unknown raises an InvalidInputError."""
        if name not in SAMPLER_PRESETS:
            names = ", ".join(SAMPLER_PRESETS)
            nearest = suggest_nearest(name, SAMPLER_PRESETS)
            raise InvalidInputError(f"there is no preset {name!r}{nearest} The presets are {names}")
        text = self._fields["max_tokens"].text  # stays as typed, even if it is invalid
        self.apply(SAMPLER_PRESETS[name])
        self._fields["max_tokens"].text = text

    # Actions

    def toggle_all(self) -> None:
        """Show all controls and focus the first one that was hidden, or hide them again."""
        self.toggle_class("-all")
        if self.has_class("-all"):
            self.call_after_refresh(self._fields["top_k"].query_one(Input).focus)

    def step_temperature(self, steps: int) -> None:
        """Raise or lower the temperature by a number of steps of 0.05."""
        self._slider.action_step(steps)

    @on(PresetPicker.StepRequested)
    def _step_preset(self, event: PresetPicker.StepRequested) -> None:
        """Apply the preset some places further; from custom settings, the first or the last preset."""
        event.stop()
        names, preset = list(SAMPLER_PRESETS), self.preset
        index = names.index(preset) + event.offset if preset in names else min(0, event.offset)
        self.apply_preset(names[index % len(names)])

    @on(TemperatureChanged)
    @on(Input.Changed)
    def _control_changed(self, event: Message) -> None:
        event.stop()
        self._post_if_changed()

    def _number(self, name: str) -> Any:
        field = self._fields[name]
        return field.parse_float() if _CONTROLS[name].is_decimal else field.parse_int()

    def _values(self) -> tuple[object, ...]:
        return self._slider.value, self._seed_field.text, *(field.text for field in self._fields.values())

    def _post_if_changed(self) -> None:
        """Post one `Changed` message for a change, even if the change moved several controls."""
        values = self._values()
        if values != self._last_values:
            if values[1:] == self._last_values[1:] and not self.query(".-invalid"):
                self._show_chain("")  # a key that moves the temperature checks no field again
            else:
                self._show_values()
            self._last_values = values
            self.post_message(self.Changed())

    def _show_values(self) -> None:
        """Mark the fields with errors, and show the sampler chain, or the first error."""
        is_filtered = any(field.text for name, field in self._fields.items() if name != "max_tokens")
        self.set_class(is_filtered, "-filtered")
        first = ""
        for name, field in [*self._fields.items(), ("seed", self._seed_field)]:
            error = ""
            try:
                if name == "seed":
                    self.seed()
                elif (number := self._number(name)) is not None:
                    SamplerSettings(**{name: number})
            except InvalidInputError as problem:
                error = str(problem)
            field.set_error(error)
            first = first or error
        self._show_chain(first)

    def _show_chain(self, error: str) -> None:
        chain = (
            Content.styled(f"✗ {error}", "$text-error") if error else Content.styled(self.settings().describe(), MUTED)
        )
        self.query_one("#chain", Static).update(chain, layout=False)
        self.query_one(PresetPicker).preset_name = self.preset


def _parse_number(text: str, number_type: Callable[[str], Any]) -> Any:
    try:
        return number_type(text)
    except ValueError as error:
        kind = "a whole number" if number_type is int else "a number"
        raise InvalidInputError(f"{text!r} is not {kind}") from error


def _field_text(name: str, settings: SamplerSettings) -> str:
    """Return the text of the field for a setting; "" for the default, which the placeholder shows."""
    value = getattr(settings, name)
    if value == _DEFAULTS[name]:
        return ""
    text = f"{value:g}"
    return text if float(text) == value else str(value)
