"""Dialog that configures a new training."""

import math
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.events import Click, DescendantFocus
from textual.screen import ModalScreen
from textual.widgets import Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from engine.config import BUNDLED, Config, describe_settings
from engine.errors import ConfigError, InvalidInputError
from engine.models.pretrained.names import SMOLLM2, is_base_stored
from engine.presets import PRESETS, get_preset
from engine.runs.directory import MAX_RUN_NAME_LENGTH, check_run_name
from engine.runtime.worker import Cancellation
from engine.storage.files import default_runs_dir
from lotr_tui.background_task import Debounce, is_closed, run_in_thread
from lotr_tui.formatting import format_age
from lotr_tui.screens.dialogs.completing_input import (
    CompletingInput,
    PathInput,
    SettingsInput,
    format_completions,
    setting_choices,
)
from lotr_tui.screens.dialogs.keys_line import KeysLine
from lotr_tui.session.training_text import measure_training_seconds
from lotr_tui.textual_fixes.app import TextualFixesScreen
from lotr_tui.textual_fixes.widgets import RobustOptionList
from lotr_tui.widgets.line_input import LineInput

PRESET_DESCRIPTIONS = {
    "tiny": "a small model in a few seconds",
    "lora": "a conversation: SmolLM2 speaks like the cast",
    "default": "an LSTM from scratch, best for this size",
    "base": "pre-training on books, in hours",
    "finetune": "from the bundled pre-trained LSTM, in minutes",
    "dialogue": "characters who answer, from the same LSTM",
    "gpt-tiny": "a small Transformer with attention, in minutes",
    "gpt": "a Transformer for books, in hours",
    "notebook": "the classroom notebook's model, with its bug",
    "paper": "the paper's 24 million weights; needs a GPU",
    "ptb": "for a corpus of a million words, in hours",
}
CONVERSATION = "lora"
"""Preset that needs SmolLM2, and a corpus with speakers; it comes first for one."""
OFFERED_PRESETS = tuple(name for name, preset in PRESETS.items() if not preset.training.teacher_columns)
"""Presets in the list: all that need no teachers, for which the dialog has no field."""
SUGGESTED_PRESET = "tiny"
"""Preset that is highlighted first if no conversation can be trained, because it trains fastest."""
ESTIMATED_PRESETS = (CONVERSATION, "default")
"""Presets whose training time on this machine is shown."""
ESTIMATE_DELAY = 1.0
"""Seconds without a change of the corpus after which the times are estimated again."""
FIELDS = {"corpus": "Corpus", "run": "Run name", "epochs": "Epochs", "settings": "Settings"}
"""Labels of the fields by id."""
HINTS = {
    "preset": "A preset sets everything; the fields change it. Times are measured on this machine as it is now.",
    "corpus": "A .csv or .txt file; empty: the bundled dialogues.",
    "run": "A name for the run folder; empty: named after the preset and the time.",
    "epochs": "Passes over the training text; empty: those of the preset.",
    "settings": "Further settings, such as lr=0.005 seed=3.",
}
"""Help for each field, shown while it has the focus."""
MAX_PATH_IN_ERROR = 200
"""Characters of a path that an error message shows."""


@dataclass(frozen=True)
class NewTraining:
    """Training that the user has asked for."""

    config: Config
    run_name: str | None
    """Name of the run; None for one made of the preset and the time."""
    fields: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Texts of the fields by id, to ask again if the training cannot be prepared."""


class _FieldError(Exception):
    """Error in a field of the dialog."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class PresetList(RobustOptionList):
    """List of the presets, in which a click highlights a preset without starting the training."""

    async def _on_click(self, event: Click) -> None:
        await super()._on_click(event)
        event.prevent_default()
        index = event.style.meta.get("option")
        if index is not None and index < self.option_count:
            self.highlighted = index


class NewTrainingDialog(TextualFixesScreen, ModalScreen[NewTraining | None]):
    """Dialog that asks for a preset and changes to it, dismissed with the training, or with None if cancelled."""

    CSS = """
    NewTrainingDialog {
        .field { height: 1; }
        .field Label { width: 10; }
        .field Input { width: 1fr; }
        .problem { color: $text-error; height: auto; padding-left: 10; display: none; }
        #hint { color: $muted; text-style: $muted-style; height: 2; margin-top: 1; text-overflow: ellipsis; }
        &.-short .dialog, &.-low .dialog { padding: 0 2; }
        &.-short .dialog-title, &.-short #preset, &.-short .dialog-keys, &.-short #hint { margin: 0; }
        &.-low .dialog-title, &.-low #preset, &.-low .dialog-keys, &.-low #hint { margin: 0; }
        &.-low #preset { max-height: 7; }
    }
    """
    VERTICAL_BREAKPOINTS = [(0, "-low"), (22, "-short"), (26, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel", id="new-training.cancel", tooltip="Close without training")
    ]

    def __init__(
        self,
        corpus: str,
        runs_dir: Path | None = None,
        previous: NewTraining | None = None,
        *,
        has_speakers: bool = False,
    ) -> None:
        """Suggest a corpus (a path, or "bundled" or "" for the bundled dialogues), or all fields of another training.

        The run will be created in `runs_dir`; None is the default directory. If the corpus has speakers, a conversation
        is offered first.
        """
        super().__init__()
        others = [name for name in OFFERED_PRESETS if name != CONVERSATION]
        self._presets = [CONVERSATION, *others] if has_speakers else OFFERED_PRESETS
        suggested_preset = CONVERSATION if has_speakers and is_base_stored(SMOLLM2) else SUGGESTED_PRESET
        self._seconds: dict[str, float] = {}
        """Time of a training with a preset on the corpus, where it is known."""
        self._measured = ""
        """Preset whose time is being measured, if any."""
        self._cancellation = Cancellation()
        """Stops the measurement of these times."""
        self._estimate = Debounce(self, ESTIMATE_DELAY, self._estimate_times)
        suggested = {"corpus": "" if corpus == BUNDLED else corpus}
        self._suggested: Mapping[str, str] = suggested if previous is None else previous.fields
        self._suggested_preset = suggested_preset if previous is None else previous.config.preset
        self._runs_dir = runs_dir or default_runs_dir()

    def compose(self) -> ComposeResult:
        """Create the list of presets, the fields with lines for their errors, a line of help and the line of keys."""
        with VerticalScroll(classes="dialog", can_focus=False):
            yield Label("Train a model in the background", classes="dialog-title")
            yield PresetList(
                *(Option(self._format_preset(name), id=name) for name in self._presets),
                id="preset",
                markup=False,
            )
            inputs = (
                PathInput(placeholder="the bundled dialogues", id="corpus", compact=True),
                LineInput(id="run", compact=True, max_length=MAX_RUN_NAME_LENGTH),
                LineInput(id="epochs", compact=True, max_length=20),
                SettingsInput(placeholder="name=value …", id="settings", compact=True),
            )
            for line_input in inputs:
                name = str(line_input.id)
                line_input.value = self._suggested.get(name, "")
                with Horizontal(classes="field"):
                    yield Label(FIELDS[name])
                    yield line_input
                yield Static("", id=f"{name}-problem", classes="problem", markup=False)
            yield Static("", id="hint", markup=False)
            yield KeysLine(("enter", "train", "submit"), ("tab", "next", ""), ("esc", "cancel", "dismiss(None)"))

    def on_mount(self) -> None:
        """Highlight the suggested preset."""
        presets = self.query_one("#preset", OptionList)
        presets.highlighted = presets.get_option_index(self._suggested_preset)
        presets.focus()
        self._estimate_times()

    def on_unmount(self) -> None:
        """Stop the measurement."""
        self._cancellation.set()
        self._estimate.cancel()

    # Help

    @property
    def _preset(self) -> Config:
        presets = self.query_one("#preset", OptionList)
        return _get_preset(presets.get_option_at_index(presets.highlighted or 0).id or SUGGESTED_PRESET)

    @on(OptionList.OptionHighlighted)
    @on(Input.Changed, "#epochs")
    def _show_preset(self) -> None:
        """Mark the preset, which is not highlighted without the focus, and show the values of the empty fields."""
        presets = self.query_one("#preset", OptionList)
        for name in self._presets:
            presets.replace_option_prompt(name, self._format_preset(name, is_chosen=name == self._preset.preset))
        self.query_one("#run", Input).placeholder = f"{self._preset.preset} and the time"
        self.query_one("#epochs", Input).placeholder = str(self._preset.training.epochs)

    def _format_preset(self, name: str, *, is_chosen: bool = False) -> str:
        time = "…" if name == self._measured else ""
        if name in self._seconds:
            epochs = self.query_one("#epochs", Input).value.strip()
            factor = int(epochs) / _get_preset(name).training.epochs if epochs.isdecimal() else 1.0
            time = format_age(self._seconds[name] * factor)
        return f"{'●' if is_chosen else ' '} {name:8} {time:>6} {PRESET_DESCRIPTIONS[name]}"

    @on(Input.Changed, "#corpus")
    def _forget_times(self) -> None:
        """Measure the times again once the corpus is typed."""
        if self._seconds or self._estimate.is_waiting:
            self._seconds.clear()
            self._show_preset()
        self._estimate.request()

    @work(exclusive=True, group="estimate")
    async def _estimate_times(self) -> None:
        """Show how long trainings with some presets take on the corpus, as soon as that is measured."""
        self._cancellation.set()
        self._cancellation = cancellation = Cancellation()
        texts = {**dict.fromkeys(FIELDS, ""), "corpus": self.query_one("#corpus", Input).value.strip()}
        for name in ESTIMATED_PRESETS:
            self._measured = name
            self._show_preset()
            with suppress(Exception):  # missing values are reported when the training is started
                training = await run_in_thread(_read_fields, _get_preset(name), texts, self._runs_dir)
                seconds = await run_in_thread(measure_training_seconds, training.config, self._runs_dir, cancellation)
                if math.isfinite(seconds):
                    self._seconds[name] = seconds
            if is_closed(self):
                return
        self._measured = ""
        self._show_preset()

    @on(DescendantFocus)
    @on(CompletingInput.CompletionsChanged)
    def _show_hint(self) -> None:
        """Explain the field with the focus: its completions, the setting that is typed, or the field itself."""
        focused = self.focused
        hint = Content(HINTS.get(focused.id or "", "") if focused is not None else "")
        if isinstance(focused, SettingsInput) and (name := focused.setting):
            _, description = describe_settings()[name]
            section, _ = describe_settings()[name]
            value = getattr(getattr(self._preset, section), name)
            choices = " or ".join(setting_choices(name))
            hint = Content.assemble((name, "bold"), f" ({choices or value}): {description}")
        elif isinstance(focused, CompletingInput) and len(focused.completions) > 1:
            hint = format_completions(focused)
        self.query_one("#hint", Static).update(hint)

    # Submission

    @on(OptionList.OptionSelected)
    @on(Input.Submitted)
    def action_submit(self) -> None:
        """Close the dialog with the training, or show an error at its field."""
        self._submit()

    @work(exclusive=True, group="submit")
    async def _submit(self) -> None:
        texts = {name: self.query_one(f"#{name}", Input).value.strip() for name in FIELDS}
        for name in FIELDS:
            self._show_problem(name, "")
        try:
            training = await run_in_thread(_read_fields, self._preset, texts, self._runs_dir)
        except _FieldError as error:
            self._show_problem(error.name, str(error))
            self.query_one(f"#{error.name}", Input).focus()
        else:
            self.dismiss(training)

    @on(Input.Changed)
    def _clear_problem(self, event: Input.Changed) -> None:
        self._show_problem(event.input.id or "", "")

    def _show_problem(self, name: str, text: str) -> None:
        problem = self.query_one(f"#{name}-problem", Static)
        problem.update(text)
        problem.display = bool(text)


def _get_preset(name: str) -> Config:
    """Return a preset; a conversation is trained in script form."""
    preset = get_preset(name)
    return preset.with_values(mode="dialogue") if name == CONVERSATION else preset


def _read_fields(preset: Config, texts: Mapping[str, str], runs_dir: Path) -> NewTraining:
    """Return the training that the texts of the fields describe, or raise a _FieldError."""
    from engine.training.initial_run import configure  # imports numpy

    name = "corpus"

    def apply_fields(config: Config) -> Config:
        """Return `config` with the values of the fields; `name` is the field that is being read."""
        nonlocal name
        name = "corpus"
        if corpus := texts["corpus"]:
            config = config.with_values(corpus=corpus, corpus_format="text" if corpus.endswith(".txt") else "csv")
            _check_corpus(corpus)
        name = "run"
        if run_name := texts["run"]:
            check_run_name(run_name)
            if (runs_dir / run_name).exists():
                raise ConfigError(f"run {run_name!r} exists already; choose another name")
        name = "epochs"
        if epochs := texts["epochs"]:
            config = config.with_overrides([f"epochs={epochs}"])
        name = "settings"
        return config.with_overrides(_split_settings(texts["settings"], is_epochs_set=bool(epochs)))

    try:
        config = configure(preset, apply_fields, runs_dir)
    except InvalidInputError as error:
        raise _FieldError(name, str(error)) from error
    return NewTraining(config, texts["run"] or None, texts)


def _check_corpus(path: str) -> None:
    shown = path[:MAX_PATH_IN_ERROR]
    try:
        expanded = Path(path).expanduser()
        if expanded.is_dir():
            raise ConfigError(f"{shown} is a folder; add the name of a file in it")
        if expanded.exists() and not expanded.is_file():
            raise ConfigError(f"{shown} is not a regular file; fix the path or clear it")
        if expanded.is_file():
            return
    except (OSError, ValueError, RuntimeError):  # a path that is too long, has a null byte, or names an unknown user
        pass
    raise ConfigError(f"file not found: {shown}; fix the path or clear it")


def _split_settings(text: str, *, is_epochs_set: bool) -> list[str]:
    """Return the settings of a line, of which a value with spaces is quoted."""
    try:
        settings = shlex.split(text)
    except ValueError as error:
        raise ConfigError("a quotation mark is not closed; add the second one") from error
    for setting in settings:
        if "=" not in setting:
            raise ConfigError(f"{setting!r} has no value; write name=value, such as seed=3")
        if is_epochs_set and setting.startswith("epochs="):
            raise ConfigError("epochs are set twice; clear one of them")
    return settings
