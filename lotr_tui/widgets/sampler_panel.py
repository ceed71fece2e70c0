"""Controls for the sampler settings, with a summary of the resulting sampler chain."""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from engine.errors import InvalidInputError
from engine.generation.settings import SamplerSettings, check_seed
from lotr_tui.messages import TemperatureChanged
from lotr_tui.theme import MUTED
from lotr_tui.widgets.number_field import NumberField
from lotr_tui.widgets.preset_picker import CUSTOM_PRESET, SAMPLER_PRESETS, PresetPicker
from lotr_tui.widgets.temperature_slider import TemperatureSlider

NumberT = TypeVar("NumberT", int, float)

NARROW_WIDTH = 70
"""Width in columns from which the preset and the summary are always visible."""
WIDE_WIDTH = 98
"""Width in columns from which all controls are always visible."""


class _NumericControl(NamedTuple):
    """Label, width in columns, help and number type of the field for a setting."""

    label: str
    width: int
    help_line: str
    is_decimal: bool = False


_NUMERIC_CONTROLS = {
    "top_k": _NumericControl("top-k", 5, "Only this many of the most likely words; empty: all"),
    "top_p": _NumericControl("top-p", 5, "Only the most likely words with this total probability", is_decimal=True),
    "min_p": _NumericControl("min-p", 5, "Only words at least this fraction as likely as the first", is_decimal=True),
    "repetition_penalty": _NumericControl(
        "penalty", 4, "Above 1, words that were used become less likely", is_decimal=True
    ),
    "max_tokens": _NumericControl("words", 4, "Maximum number of words of a reply"),
}
_SEED_HELP = "The same seed gives the same reply; empty: a new seed"
_DEFAULTS = {field.name: field.default for field in fields(SamplerSettings)}
_PLACEHOLDERS = {"top_k": "all", "max_tokens": "30"}


class SamplerPanel(Vertical):
    """Controls for all sampler settings and the seed, the preset picker, and a summary of the sampler chain.

    The first line (temperature, seed, maximum length) is always visible. A wider panel also shows the preset and the
    summary, and the other controls while one of them is set; `action_toggle_all` shows everything at any width. Invalid
    input stays in its field, marked as an error.
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
        self._number_fields = {
            name: NumberField(
                control.label,
                _field_text(name, settings),
                id=name,
                width=control.width,
                placeholder=_PLACEHOLDERS.get(name, f"{_DEFAULTS[name]:g}"),
                decimal=control.is_decimal,
                help_line=control.help_line,
            )
            for name, control in _NUMERIC_CONTROLS.items()
        }
        self._seed_field = NumberField(
            "seed", "", id="seed", width=13, placeholder="random", max_digits=19, help_line=_SEED_HELP
        )
        self._last_random_seed: int | None = None
        self._last_values = self._values()

    def compose(self) -> ComposeResult:
        """Create the rows of controls."""
        self._fit(self.app.size.width)  # before the controls are there, which would change their styles with it
        self.set_class(self._is_filtered, "-filtered")
        with Horizontal(id="main"):
            yield self._slider
            yield self._seed_field
            yield self._number_fields["max_tokens"]
        with Vertical(id="second"):
            with Horizontal(id="summary"):
                yield PresetPicker(id="preset")
                yield Static(id="chain", markup=False)
            with Horizontal(id="filters"):
                yield from self._filter_fields()

    @property
    def _is_filtered(self) -> bool:
        return any(field.text for field in self._filter_fields())

    def _filter_fields(self) -> list[NumberField]:
        return [field for name, field in self._number_fields.items() if name != "max_tokens"]

    def on_mount(self) -> None:
        """Show the summary."""
        self._update_summary()

    def on_resize(self, event: events.Resize) -> None:
        """Show the controls that fit."""
        self._fit(event.size.width)

    def _fit(self, width: int) -> None:
        self.set_class(width < NARROW_WIDTH, "-narrow")
        self.set_class(width >= WIDE_WIDTH, "-wide")

    def set_token_noun(self, noun: str) -> None:
        """Name the maximum length after what the interface calls a token of the model."""
        self._number_fields["max_tokens"].set_label(f"{noun}s")

    # Values of the controls

    def settings(self) -> SamplerSettings:
        """Return the settings of the controls.

        Raises:
            InvalidInputError: If a value is out of range.
        """
        values: dict[str, Any] = {name: value for name in _NUMERIC_CONTROLS if (value := self._value(name)) is not None}
        return SamplerSettings(temperature=self._slider.value, **values)

    def seed(self) -> int | None:
        """Return the fixed seed, or None for a random seed.

        Raises:
            InvalidInputError: If the seed is out of range.
        """
        seed = self._seed_field.parse_int()
        if seed is not None:
            check_seed(seed)
        return seed

    def set_value(self, name: str, text: str) -> None:
        """Set a setting to a typed number.

        Raises:
            InvalidInputError: If the text is no number, or the number is out of range.
        """
        is_decimal = name == "temperature" or _NUMERIC_CONTROLS[name].is_decimal
        value: Any = _parse_number(text, float if is_decimal else int)
        self.apply(replace(self.settings(), **{name: value}))

    def set_seed(self, text: str) -> None:
        """Fix a typed seed.

        Raises:
            InvalidInputError: If the text is no seed.
        """
        seed = _parse_number(text, int)
        check_seed(seed)
        self._seed_field.text = str(seed)

    def show_random_seed(self, seed: int) -> None:
        """Show the random seed in use as the placeholder of the seed field."""
        self._last_random_seed = seed
        self._seed_field.placeholder = f"random {seed}"

    def apply(self, settings: SamplerSettings) -> None:
        """Set all controls and post one `Changed` message."""
        self._slider.value = settings.temperature
        for name, field in self._number_fields.items():
            field.text = _field_text(name, settings)
        self._post_if_changed()

    @property
    def preset(self) -> str:
        """Name of the preset in use, or `CUSTOM_PRESET`."""
        try:
            settings = self.settings()
        except InvalidInputError:
            return CUSTOM_PRESET
        presets = {replace(preset, max_tokens=settings.max_tokens): name for name, preset in SAMPLER_PRESETS.items()}
        return presets.get(settings, CUSTOM_PRESET)

    # Actions

    def action_toggle_all(self) -> None:
        """Show all controls and focus the first one that was hidden, or hide them again."""
        self.toggle_class("-all")
        if self.has_class("-all"):
            self.call_after_refresh(self._number_fields["top_k"].query_one(Input).focus)

    def action_step_temperature(self, steps: int) -> None:
        """Raise or lower the temperature by a number of steps of 0.05."""
        self._slider.action_step(steps)

    def action_step_preset(self, offset: int) -> None:
        """Apply the preset `offset` places further; from custom settings, the first or the last preset."""
        names = list(SAMPLER_PRESETS)
        index = names.index(self.preset) + offset if self.preset in names else min(0, offset)
        preset = SAMPLER_PRESETS[names[index % len(names)]]
        max_tokens = self._value("max_tokens")
        try:
            self.apply(preset if max_tokens is None else replace(preset, max_tokens=int(max_tokens)))
        except InvalidInputError:  # the maximum length is invalid, and stays as typed
            text = self._number_fields["max_tokens"].text
            self.apply(preset)
            self._number_fields["max_tokens"].text = text

    def action_toggle_fixed_seed(self) -> None:
        """Fix the last random seed; if a seed is fixed, return to random seeds."""
        if self._seed_field.text or self._last_random_seed is None:
            self._seed_field.text = ""
        else:
            self._seed_field.text = str(self._last_random_seed)

    @on(PresetPicker.StepRequested)
    def _preset_step_requested(self, event: PresetPicker.StepRequested) -> None:
        event.stop()
        self.action_step_preset(event.offset)

    @on(TemperatureChanged)
    @on(Input.Changed)
    def _control_changed(self, event: Message) -> None:
        event.stop()
        self._post_if_changed()

    def _value(self, name: str) -> float | None:
        field = self._number_fields[name]
        return field.parse_float() if _NUMERIC_CONTROLS[name].is_decimal else field.parse_int()

    def _values(self) -> tuple[object, ...]:
        return self._slider.value, self._seed_field.text, *(field.text for field in self._number_fields.values())

    def _post_if_changed(self) -> None:
        """Post one `Changed` message for a change, even if the change moved several controls."""
        values = self._values()
        if values != self._last_values:
            self._last_values = values
            self._update_summary()
            self.post_message(self.Changed())

    def _update_summary(self) -> None:
        """Show the preset and the sampler chain, or the first error; mark the fields with errors."""
        self.set_class(self._is_filtered, "-filtered")
        errors = []
        for name, field in self._number_fields.items():
            value = self._value(name)
            values: dict[str, Any] = {} if value is None else {name: value}
            errors.append(_validation_error(partial(SamplerSettings, **values)))
            field.set_error(errors[-1])
        errors.append(_validation_error(self.seed))
        self._seed_field.set_error(errors[-1])
        if error := next(filter(None, errors), ""):
            summary = Content.styled(f"✗ {error}", "$text-error")
        else:
            summary = Content.styled(self.settings().describe(), MUTED)
        self.query_one("#chain", Static).update(summary, layout=False)
        self.query_one(PresetPicker).preset_name = self.preset


def _parse_number(text: str, number_type: Callable[[str], NumberT]) -> NumberT:
    try:
        return number_type(text)
    except ValueError as error:
        kind = "a whole number" if number_type is int else "a number"
        raise InvalidInputError(f"{text!r} is not {kind}") from error


def _validation_error(check: Callable[[], object]) -> str:
    """Return the error that `check` raises as text, or "" if there is none."""
    try:
        check()
    except InvalidInputError as error:
        return str(error)
    return ""


def _field_text(name: str, settings: SamplerSettings) -> str:
    """Return the text of the field for a setting; "" for the default, which the placeholder shows."""
    value = getattr(settings, name)
    if value == _DEFAULTS[name]:
        return ""
    text = f"{value:g}"
    return text if float(text) == value else str(value)
