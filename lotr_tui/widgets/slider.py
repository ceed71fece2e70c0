"""Sliders, moved by keys, a click or a drag, and the sampling controls of the session with the temperature."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count
from operator import attrgetter
from typing import Any, ClassVar

from textual import app, containers, events, message, on, reactive, widget, widgets
from textual.binding import BindingType
from textual.content import Content

from engine.errors import InvalidInputError, printable, suggest_nearest
from engine.generation.settings import MAX_SEED, SamplerSettings, check_seed, random_seed
from lotr_tui.formatting import are_named, describe_scale, truncate
from lotr_tui.session.settings import MAX_STRENGTH, PRETRAINED_SAMPLER
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import binding_table

MIN_TRACK_WIDTH = 5
MAX_TEMPERATURE = 2.0
LONG_LABEL_WIDTH = 40  # columns of a slider from which its label is not abbreviated
NARROW_WIDTH = 70  # columns from which the preset and the summary are visible
SAMPLER_PRESETS: Mapping[str, SamplerSettings] = {
    "greedy": SamplerSettings(temperature=0.0),
    "careful": SamplerSettings(temperature=0.5, min_p=0.1),
    "conversation": PRETRAINED_SAMPLER,
    "chat": SamplerSettings(temperature=0.7, min_p=0.05),
    "balanced": SamplerSettings(temperature=0.8, top_p=0.9),
    "wild": SamplerSettings(temperature=1.3, min_p=0.02),
    **{f"notebook {t}": SamplerSettings(temperature=t) for t in (0.5, 0.7, 0.75, 0.8, 1.0)},
}
CUSTOM_PRESET = "custom"  # name of settings that match no preset
_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(SamplerSettings)}
_chain_of = attrgetter("repetition_penalty", "temperature", "top_k", "top_p", "min_p")
_PRESET_NAMES = {_chain_of(preset): name for name, preset in SAMPLER_PRESETS.items()}


class Slider(widget.Widget, can_focus=True):
    """`label ├────●────┤ value` over a list of values, given by their texts. Posts `Changed` for another value."""

    DEFAULT_CSS = """
    Slider { height: 1; width: 1fr; min-width: 20; max-width: 60; }
    Slider:focus { background: $panel; }
    """
    BINDING_GROUP_TITLE = "Slider"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "slider",
        """
        lower   | left,down | step(-1)   | lower   | The value to the left
        higher  | right,up  | step(1)    | higher  | The value to the right
        lowest  | home      | move_to(0) | lowest  | The value at the left end
        highest | end       | move_to(1) | highest | The value at the right end
        """,
    )
    STEP: ClassVar[int] = 1  # by which a key moves the index

    index: reactive.reactive[int] = reactive.reactive(0)

    @dataclass
    class Changed(message.Message):
        """Posted when another value was chosen."""

        slider: "Slider"

        @property
        def control(self) -> "Slider":
            return self.slider

    def __init__(self, label: str, texts: Sequence[str], index: int = 0, *, help_line: str = "", id: str) -> None:
        super().__init__(id=id)
        self.label, self._texts, self.HELP_LINE = label, tuple(texts), help_line
        self._is_dragging = False
        self.set_reactive(Slider.index, index)

    def set_values(self, texts: Sequence[str], index: int = 0) -> None:
        self._texts = tuple(texts)
        self.set_reactive(Slider.index, index)
        self.refresh()

    def _track(self) -> tuple[int, int]:
        start = len(self.label) + 2
        return start, max(MIN_TRACK_WIDTH, self.size.width - start - max(map(len, self._texts)) - 2)

    def render(self) -> Content:
        _, width = self._track()
        knob = round(self.index / max(1, len(self._texts) - 1) * (width - 1))
        return Content.assemble(
            (f"{self.label} ├", MUTED),
            ("─" * knob, "$accent"),
            ("●", "bold $accent"),
            ("─" * (width - 1 - knob), MUTED),
            ("┤ ", MUTED),
            (self._texts[self.index].rjust(max(map(len, self._texts))), "bold" if self.has_focus else ""),
        )

    def validate_index(self, index: int) -> int:
        return max(0, min(index, len(self._texts) - 1))

    def watch_index(self) -> None:
        self.post_message(self.Changed(self))

    def action_step(self, steps: int) -> None:
        self.index = (round(self.index / self.STEP) + steps) * self.STEP

    def action_move_to(self, fraction: float) -> None:
        self.index = round(fraction * (len(self._texts) - 1))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        self._is_dragging = True
        self.capture_mouse()
        self.on_mouse_move(event)

    def on_mouse_move(self, event: events.MouseEvent) -> None:
        if self._is_dragging:
            start, width = self._track()
            self.action_move_to((event.x - start) / (width - 1))

    def on_mouse_up(self) -> None:
        self._is_dragging = False
        self.release_mouse()


class NumberSlider(Slider):
    """Number from 0 to a maximum, which keys move in steps of 0.05, and the mouse in steps of 0.01."""

    STEP = 5

    def __init__(
        self, label: str, value: float, maximum: float, help_line: str, *, short_label: str = "", id: str
    ) -> None:
        texts = [f"{hundredths / 100:.2f}" for hundredths in range(round(maximum * 100) + 1)]
        super().__init__(label, texts, round(value * 100), help_line=help_line, id=id)
        self._names = label, short_label or label

    @property
    def value(self) -> float:
        return self.index / 100

    @value.setter
    def value(self, value: float) -> None:
        self.index = round(value * 100)

    def on_resize(self, event: events.Resize) -> None:
        name = self._names[event.size.width < LONG_LABEL_WIDTH]
        self.label = truncate(name, event.size.width - MIN_TRACK_WIDTH - len(" ├┤ 0.00"))
        self.refresh()


class TemperatureSlider(NumberSlider):
    BINDING_GROUP_TITLE = "Temperature"

    def __init__(self, value: float) -> None:
        help_line = "Low: safe words, high: surprising ones; ← → set it"
        super().__init__("temperature", value, MAX_TEMPERATURE, help_line, short_label="temp", id="temperature")


class StrengthSlider(NumberSlider):
    """Strength of a change of the model, such as an adapter."""

    BINDING_GROUP_TITLE = "Strength"

    def __init__(self, change: str, label: str, value: float, *, id: str) -> None:
        zero, one = describe_scale(change)
        super().__init__(label, value, MAX_STRENGTH, f"0: {zero}, 1: {one}; ← → set it", id=id)
        self.change = change


class SamplerPanel(containers.Vertical):
    """Sliders of the temperature and of the strength of the model, seed and length, and below them the sampler chain.

    Several strengths are in a row of their own.
    """

    DEFAULT_CSS = """
    SamplerPanel { height: auto; }
    SamplerPanel Horizontal { height: 1; }
    SamplerPanel #strengths { height: auto; }
    SamplerPanel StrengthSlider { margin-left: 3; }
    SamplerPanel #strengths StrengthSlider { margin: 0 2 0 0; }
    SamplerPanel #run { width: auto; padding-left: 2; }  /* a margin would not be painted when it moves */
    SamplerPanel #chain { width: 1fr; height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    SamplerPanel.-narrow #chain { display: none; }
    """

    class Changed(message.Message):
        """Posted when `settings` or `strengths` have changed."""

    def __init__(self, settings: SamplerSettings = SamplerSettings(), *, id: str | None = None) -> None:  # noqa: B008
        super().__init__(id=id)
        self.settings = settings
        self.seed: int | None = None  # None draws one for each reply
        self.preset = CUSTOM_PRESET
        self._last_seed: int | None = None  # a random one
        self.noun, self._run = "word", ""  # what the model generates
        self.slider = TemperatureSlider(settings.temperature)
        self.strength_sliders: list[StrengthSlider] = []  # one for each change of the model
        self._ids = count()

    def compose(self) -> app.ComposeResult:
        with containers.Horizontal():
            yield self.slider
            yield widgets.Static(id="run", markup=False)
        yield containers.Horizontal(id="strengths")
        yield widgets.Static(id="chain", markup=False)

    def on_mount(self) -> None:
        self._show()

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width < NARROW_WIDTH, "-narrow")
        self._show()

    @property
    def strengths(self) -> dict[str, float]:
        return {slider.change: slider.value for slider in self.strength_sliders}

    def set_strengths(self, strengths: Mapping[str, float]) -> None:
        """Show a slider for the strength of each change of a model."""
        if list(strengths) == list(self.strengths):
            for slider in self.strength_sliders:
                slider.value = strengths[slider.change]
            return
        for slider in self.strength_sliders:
            slider.remove()
        labels = {name: printable(name) if are_named(strengths) else "strength" for name in strengths}
        new = [StrengthSlider(name, labels[name], x, id=f"strength-{next(self._ids)}") for name, x in strengths.items()]
        self.strength_sliders = new
        if len(new) > 1:
            self.query_one("#strengths").mount(*new)
        else:
            self.mount(*new, before="#run")
        self._show()

    def step_strength(self, steps: int) -> None:
        """Move the slider that has the focus, or else the first one."""
        focused = [slider for slider in self.strength_sliders if slider.has_focus]
        [*focused, *self.strength_sliders][0].action_step(steps)

    def draw_seed(self, used: Collection[int] = ()) -> int:
        """Return the fixed seed, or the next one that is not `used`, or else a random one."""
        if self.seed is not None:
            return next(seed for seed in count(self.seed) if seed not in used) % (MAX_SEED + 1)
        self._last_seed = random_seed()
        return self._last_seed

    def texts(self) -> dict[str, str]:
        """Return the controls by name as `set_texts` reads them, except for the temperature; "" is the default."""
        names = ("top_k", "top_p", "min_p", "repetition_penalty", "max_tokens")
        values = {name: getattr(self.settings, name) for name in names}
        texts = {name: "" if value == _DEFAULTS[name] else str(value) for name, value in values.items()}
        return {"seed": "" if self.seed is None else str(self.seed), **texts}

    def set_texts(self, texts: Mapping[str, str]) -> None:
        """Set fields of `SamplerSettings` or `seed` (also `last`, `random`); an InvalidInputError changes nothing."""
        values: dict[str, Any] = {}
        for name, typed in texts.items():
            text, default = typed.strip(), _DEFAULTS.get(name)
            if name == "seed" and text == "last" and self._last_seed is not None:
                text = str(self._last_seed)
            if not text or (name, text) == ("seed", "random"):
                values[name] = default
                continue
            try:
                values[name] = float(text) if isinstance(default, float) else int(text)
            except ValueError as error:
                kind = "a number" if isinstance(default, float) else "a whole number"
                raise InvalidInputError(f"{text!r} is not {kind}") from error
        seed = values.pop("seed", self.seed)
        if seed is not None:
            check_seed(seed)
        settings = replace(self.settings, **values)
        self.seed = seed
        self.apply(settings)

    def apply(self, settings: SamplerSettings) -> None:
        self.slider.value = settings.temperature
        settings = replace(settings, temperature=self.slider.value)
        is_changed, self.settings = settings != self.settings, settings
        self._show()
        if is_changed:
            self.post_message(self.Changed())

    def apply_preset(self, name: str) -> None:
        if name not in SAMPLER_PRESETS:
            names = ", ".join(SAMPLER_PRESETS)
            nearest = suggest_nearest(name, SAMPLER_PRESETS)
            raise InvalidInputError(f"there is no preset {name!r}{nearest} The presets are {names}")
        self.apply(replace(SAMPLER_PRESETS[name], max_tokens=self.settings.max_tokens))

    @on(Slider.Changed)
    def _follow_slider(self, event: Slider.Changed) -> None:
        event.stop()
        if event.slider is not self.slider:
            self.post_message(self.Changed())
        elif self.slider.value != self.settings.temperature:
            self.apply(replace(self.settings, temperature=self.slider.value))

    def _show(self) -> None:
        self.preset = _PRESET_NAMES.get(_chain_of(self.settings), CUSTOM_PRESET)
        if self.is_mounted:
            run = "random seed" if self.seed is None else f"seed {self.seed}"
            if len(self.strengths) != 1 or not self.has_class("-narrow"):
                run += f"   {self.settings.max_tokens} {self.noun}s"
            if run != self._run:  # the update lays the panel out, which a key that moves the temperature need not do
                self._run = run
                self.query_one("#run", widgets.Static).update(Content.styled(run, MUTED))
            chain = Content.assemble((self.preset, "$accent"), (f"   {self.settings.describe()}", MUTED))
            self.query_one("#chain", widgets.Static).update(chain, layout=False)
