"""How words are drawn: all controls of the sampler, and the chain that they make."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Input, Static

from engine.errors import UnusableInput
from engine.generation.settings import SamplerSettings, check_seed
from lotr_tui.messages import TemperatureChanged
from lotr_tui.theme import MUTED
from lotr_tui.widgets.number_field import NumberField
from lotr_tui.widgets.temperature_slider import TemperatureSlider

PRESETS: Mapping[str, SamplerSettings] = {
    "greedy": SamplerSettings(temperature=0.0),
    "careful": SamplerSettings(temperature=0.5, min_p=0.1),
    "balanced": SamplerSettings(temperature=0.8, top_p=0.9),
    "wild": SamplerSettings(temperature=1.3, min_p=0.02),
    **{f"notebook {t}": SamplerSettings(temperature=t) for t in (0.5, 0.7, 0.75, 0.8, 1.0)},
}
"""Ways of drawing by name; those of the notebook have its temperatures alone. The number of words stays as it is."""
OWN = "own"
"""Settings that no preset has."""
NARROW, WIDE = 70, 98
"""Columns from which on the chain is always seen, and from which on everything is."""


@dataclass(frozen=True)
class _Number:
    """A control for a field of the settings."""

    label: str
    width: int
    decimal: bool = False

    @property
    def read(self) -> Callable[[NumberField], float | None]:
        return NumberField.number if self.decimal else NumberField.whole


_NUMBERS = {
    "top_k": _Number("top-k", 5),
    "top_p": _Number("top-p", 5, decimal=True),
    "min_p": _Number("min-p", 5, decimal=True),
    "repetition_penalty": _Number("penalty", 4, decimal=True),
    "max_tokens": _Number("words", 4),
}
_DEFAULTS = {field.name: field.default for field in fields(SamplerSettings)}
_WORDS_OF_DEFAULTS = {"top_k": "all", "max_tokens": "30"}


class PresetPicker(Widget, can_focus=True):
    """The preset in effect; arrow keys, enter, a click or the wheel go to the next one."""

    DEFAULT_CSS = """
    PresetPicker { width: 17; height: 1; }
    PresetPicker:focus { background: $panel; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,up", "turn(-1)", "preset before", id="preset.before", show=False, tooltip="The preset before"),
        Binding("right,down,enter,space", "turn(1)", "next preset", id="preset.next", show=False, tooltip="The next"),
    ]

    name_shown: reactive[str] = reactive(OWN)

    class Turned(Message):
        """Another preset is asked for, so many further."""

        def __init__(self, steps: int) -> None:
            super().__init__()
            self.steps = steps

    def render(self) -> Content:
        """`‹ balanced ›`."""
        return Content.assemble(("‹ ", "$accent"), self.name_shown, (" ›", "$accent"))

    def action_turn(self, steps: int) -> None:
        """Ask for another."""
        self.post_message(self.Turned(steps))

    def on_click(self, event: events.Click) -> None:
        """On the left arrow the one before, else the next."""
        self.action_turn(-1 if event.x < 2 else 1)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """The wheel turns too."""
        event.stop()
        self.action_turn(-1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The wheel turns too."""
        event.stop()
        self.action_turn(1)


class SamplerPanel(Vertical):
    """All controls: temperature, seed, words, then the filters, the preset and the chain written out.

    By its width it is one line (temperature, seed, words), two (the preset and the chain too), or has everything
    on two lines; `action_all` shows everything at any width. What was typed wrong stays, marked.
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
    SamplerPanel.-wide #filters { display: block; width: auto; }
    """

    class Changed(Message):
        """A control was moved: `settings` may say something else, or that something is wrong."""

    def __init__(self, settings: SamplerSettings = SamplerSettings(), *, id: str | None = None) -> None:  # noqa: B008
        super().__init__(id=id)
        self._slider = TemperatureSlider(settings.temperature, id="temperature")
        self._numbers = {
            name: NumberField(
                number.label,
                _text(name, settings),
                id=name,
                width=number.width,
                placeholder=_WORDS_OF_DEFAULTS.get(name, f"{_DEFAULTS[name]:g}"),
                decimal=number.decimal,
            )
            for name, number in _NUMBERS.items()
        }
        self._seed = NumberField("seed", "", id="seed", width=13, placeholder="drawn", digits=19)
        self._last_seed: int | None = None
        self._told = self._state()

    def compose(self) -> ComposeResult:
        """Rows of controls; which of them are seen depends on the room."""
        with Horizontal(id="main"):
            yield self._slider
            yield self._seed
            yield self._numbers["max_tokens"]
        with Vertical(id="second"):
            with Horizontal(id="filters"):
                for name, field in self._numbers.items():
                    if name != "max_tokens":
                        yield field
            with Horizontal(id="summary"):
                yield PresetPicker(id="preset")
                yield Static(id="chain", markup=False)

    def on_mount(self) -> None:
        """Write out the chain."""
        self._show()

    def on_resize(self, event: events.Resize) -> None:
        """Show what there is room for."""
        self.set_class(event.size.width < NARROW, "-narrow")
        self.set_class(event.size.width >= WIDE, "-wide")

    # What the controls say

    def settings(self) -> SamplerSettings:
        """What the controls say.

        Raises:
            UnusableInput: a value is out of range; one line says which.
        """
        values: dict[str, Any] = {name: value for name in _NUMBERS if (value := self._value(name)) is not None}
        return SamplerSettings(temperature=self._slider.value, **values)

    def seed(self) -> int | None:
        """The seed that is fixed; None: one is to be drawn.

        Raises:
            UnusableInput: it is out of range.
        """
        seed = self._seed.whole()
        if seed is not None:
            check_seed(seed)
        return seed

    def show_seed(self, seed: int) -> None:
        """Say which seed is in use, where one was drawn."""
        self._last_seed = seed
        self._seed.placeholder = f"drawn {seed}"

    def apply(self, settings: SamplerSettings) -> None:
        """Set all controls; told as one change."""
        self._slider.value = settings.temperature
        for name, field in self._numbers.items():
            field.text = _text(name, settings)
        self._tell()

    @property
    def preset(self) -> str:
        """The name of the preset in effect, or "own"."""
        try:
            settings = self.settings()
        except UnusableInput:
            return OWN
        same = (name for name, it in PRESETS.items() if replace(it, max_tokens=settings.max_tokens) == settings)
        return next(same, OWN)

    # Actions

    def action_all(self) -> None:
        """Show all controls and go to the first of those that were hidden, or show few again."""
        self.toggle_class("-all")
        if self.has_class("-all"):
            self.call_after_refresh(self._numbers["top_k"].query_one(Input).focus)

    def action_preset(self, steps: int) -> None:
        """Another preset; from settings of one's own the first, or the last."""
        names = list(PRESETS)
        at = names.index(self.preset) + steps if self.preset in names else min(0, steps)
        words = self._value("max_tokens")
        preset = PRESETS[names[at % len(names)]]
        try:
            self.apply(preset if words is None else replace(preset, max_tokens=int(words)))
        except UnusableInput:  # what was typed wrong for the words stays
            typed = self._numbers["max_tokens"].text
            self.apply(preset)
            self._numbers["max_tokens"].text = typed

    def action_hold_seed(self) -> None:
        """Fix the seed that was drawn last; where one is fixed, draw again."""
        self._seed.text = "" if self._seed.text else "" if self._last_seed is None else str(self._last_seed)

    @on(PresetPicker.Turned)
    def _turned(self, event: PresetPicker.Turned) -> None:
        event.stop()
        self.action_preset(event.steps)

    @on(Input.Submitted, "#seed Input")
    def _seed_entered(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_hold_seed()

    @on(TemperatureChanged)
    @on(Input.Changed)
    def _control_moved(self, event: Message) -> None:
        event.stop()
        self._tell()

    # Inside

    def _value(self, name: str) -> float | None:
        return _NUMBERS[name].read(self._numbers[name])

    def _state(self) -> tuple[object, ...]:
        return self._slider.value, self._seed.text, *(field.text for field in self._numbers.values())

    def _tell(self) -> None:
        """Once for each change, however many controls it moved."""
        state = self._state()
        if state != self._told:
            self._told = state
            self._show()
            self.post_message(self.Changed())

    def _show(self) -> None:
        """The chain and the preset; or what is wrong, and where."""
        problems = []
        for name, field in self._numbers.items():
            value = self._value(name)
            given: dict[str, Any] = {} if value is None else {name: value}
            problem = _problem(partial(SamplerSettings, **given))
            field.mark(problem)
            problems.append(problem)
        problem = _problem(self.seed)
        self._seed.mark(problem)
        wrong = next(filter(None, [*problems, problem]), "")
        line = Content.styled(f"✗ {wrong}", "$text-error") if wrong else Content.styled(self.settings().chain(), MUTED)
        self.query_one("#chain", Static).update(line, layout=False)
        self.query_one(PresetPicker).name_shown = self.preset


def _problem(check: Callable[[], object]) -> str:
    """What is wrong, "" if nothing is."""
    try:
        check()
    except UnusableInput as error:
        return str(error)
    return ""


def _text(name: str, settings: SamplerSettings) -> str:
    """What stands in a field; nothing where the placeholder says it."""
    value = getattr(settings, name)
    if value == _DEFAULTS[name]:
        return ""
    short = f"{value:g}"
    return short if float(short) == value else str(value)
