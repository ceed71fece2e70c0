"""Dialog that configures a new training."""

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from textual import on
from textual.content import Content
from textual.events import Click, DescendantFocus
from textual.suggester import Suggester
from textual.widgets import Input, OptionList, Static

from engine.config import BUNDLED, SETTINGS, Config
from engine.errors import ConfigError, InvalidInputError
from engine.models.pretrained.names import SMOLLM2, is_base_stored
from engine.presets import PRESETS
from engine.runs.directory import MAX_RUN_NAME_LENGTH, check_run_name
from engine.storage.files import default_runs_dir
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.screens.dialogs.dialog import Dialog, Field
from lotr_tui.screens.dialogs.paths import MAX_PATH_LENGTH, PathSuggester
from lotr_tui.textual_fixes.app import RobustOptionList

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
CONVERSATION = "lora"  # needs SmolLM2, and a corpus with speakers; it comes first for one
OFFERED_PRESETS = tuple(name for name, preset in PRESETS.items() if not preset.training.teacher_columns)
"""Presets in the list: all that need no teachers, for which the dialog has no field."""
SUGGESTED_PRESET = "tiny"  # which trains fastest, if no conversation can be trained
FIELDS = {"corpus": "Corpus", "run": "Run name", "epochs": "Epochs", "settings": "Settings"}  # labels by id
HINTS = {
    "answers": "A preset sets everything; the fields change it.",
    "corpus": "A .csv or .txt file; empty: the bundled dialogues.",
    "run": "A name for the run folder; empty: named after the preset and the time.",
    "epochs": "Passes over the training text; empty: those of the preset.",
    "settings": "Further settings, such as lr=0.005 seed=3.",
}


@dataclass(frozen=True)
class NewTraining:
    """Training that the user has asked for."""

    config: Config
    run_name: str | None  # None for one made of the preset and the time
    fields: Mapping[str, str] = field(default_factory=dict, compare=False)  # to ask again if it cannot be prepared


class _FieldError(InvalidInputError):
    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class SettingsSuggester(Suggester):
    """Completion of the last word of settings such as `lr=0.01 epochs=20`: a name, or one of a few values."""

    async def get_suggestion(self, value: str) -> str | None:
        head, space, word = value.rpartition(" ")
        name, equals, _ = word.partition("=")
        choices = [f"{setting}=" for setting in SETTINGS]
        if equals:
            choices = [f"{name}={choice}" for choice in _setting_choices(name)]
        if not word or word in choices:
            return None
        return next((head + space + each for each in choices if each.startswith(word.casefold())), None)


def _setting_choices(name: str) -> Sequence[str]:
    if name not in SETTINGS:
        return ()
    value_type = SETTINGS[name].type
    return ("true", "false") if value_type is bool else tuple(map(str, get_args(value_type)))


class PresetList(RobustOptionList):
    """List of the presets, in which a click highlights a preset without starting the training."""

    async def _on_click(self, event: Click) -> None:
        await super()._on_click(event)
        event.prevent_default()
        index = event.style.meta.get("option")
        if index is not None and index < self.option_count:
            self.highlighted = index


class NewTrainingDialog(Dialog[NewTraining]):
    """Dialog that asks for a preset and changes to it, dismissed with the training, or with None if cancelled."""

    CSS = """
    NewTrainingDialog {
        .field Label { width: 10; }
        .dialog-text { height: 2; margin-top: 1; text-overflow: ellipsis; }
        &.-short .dialog, &.-low .dialog { padding: 0 2; }
        &.-short .dialog-title, &.-short #answers, &.-short .dialog-keys, &.-short .dialog-text { margin: 0; }
        &.-low .dialog-title, &.-low #answers, &.-low .dialog-keys, &.-low .dialog-text { margin: 0; }
        &.-low #answers { max-height: 7; }
    }
    """
    LIST = PresetList
    VERTICAL_BREAKPOINTS = [(0, "-low"), (22, "-short"), (26, "-tall")]  # noqa: RUF012

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
        others = [name for name in OFFERED_PRESETS if name != CONVERSATION]
        self._presets = [CONVERSATION, *others] if has_speakers else list(OFFERED_PRESETS)
        preset = CONVERSATION if has_speakers and is_base_stored(SMOLLM2) else SUGGESTED_PRESET
        texts: Mapping[str, str] = {"corpus": "" if corpus == BUNDLED else corpus}
        if previous is not None:
            texts, preset = previous.fields, previous.config.preset
        self._runs_dir = runs_dir or default_runs_dir()
        fields: dict[str, tuple[str, int, Suggester | None]] = {
            "corpus": ("the bundled dialogues", MAX_PATH_LENGTH, PathSuggester()),
            "run": ("", MAX_RUN_NAME_LENGTH, None),
            "epochs": ("", 20, None),
            "settings": ("name=value …", 1000, SettingsSuggester(use_cache=False)),
        }
        super().__init__(
            "Train a model in the background",
            text=" ",  # the hint
            answers=[(f"  {name:9} {PRESET_DESCRIPTIONS[name]}", None) for name in self._presets],
            highlighted=self._presets.index(preset),
            fields=[
                Field(name, texts.get(name, ""), placeholder, FIELDS[name], max_length, suggester)
                for name, (placeholder, max_length, suggester) in fields.items()
            ],
            verb="train",
        )

    def on_mount(self) -> None:
        self.query_one("#answers").focus()

    @property
    def _preset(self) -> Config:
        """Highlighted preset; a conversation is trained in script form."""
        preset = PRESETS[self._presets[self.query_one("#answers", OptionList).highlighted or 0]]
        return preset.with_values(mode="dialogue") if preset.preset == CONVERSATION else preset

    @on(OptionList.OptionHighlighted)
    def _show_preset(self) -> None:
        """Mark the preset, which is not highlighted without the focus, and show the values of the empty fields."""
        presets = self.query_one("#answers", OptionList)
        for index, name in enumerate(self._presets):
            mark = "●" if name == self._preset.preset else " "
            presets.replace_option_prompt_at_index(index, f"{mark} {name:9} {PRESET_DESCRIPTIONS[name]}")
        self.query_one("#run", Input).placeholder = f"{self._preset.preset} and the time"
        self.query_one("#epochs", Input).placeholder = str(self._preset.training.epochs)

    @on(DescendantFocus)
    @on(Input.Changed)
    def _show_hint(self) -> None:
        """Explain the field with the focus, or the setting that is typed there."""
        focused = self.focused
        name = str(focused.id) if focused is not None else ""
        hint = Content(HINTS.get(name, ""))
        if isinstance(focused, Input) and name == "settings":
            setting = focused.value.rpartition(" ")[2].partition("=")[0]
            if setting in SETTINGS:
                section, _, meta = SETTINGS[setting]
                value = getattr(getattr(self._preset, section), setting)
                choices = " or ".join(_setting_choices(setting))
                hint = Content.assemble((setting, "bold"), f" ({choices or value}): {meta.description}")
        self.query_one(".dialog-text", Static).update(hint)

    @on(Input.Changed)
    def _clear_problem(self) -> None:
        self.show_problem("")

    def choose(self, index: int) -> None:
        """Train with the preset."""
        self.action_submit()

    async def use(self, texts: Mapping[str, str]) -> None:
        """Close the dialog with the training, or show an error and focus its field."""
        texts = {name: text.strip() for name, text in texts.items()}
        try:
            self.dismiss(await run_in_thread(_read_fields, self._preset, texts, self._runs_dir))
        except _FieldError as error:
            if not is_closed(self):
                self.query_one(f"#{error.name}", Input).focus()
                self.show_problem(str(error))


def _read_fields(preset: Config, texts: Mapping[str, str], runs_dir: Path) -> NewTraining:
    """Return the training that the texts of the fields describe, or raise a _FieldError."""
    from engine.training.job import configure  # imports numpy

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
            config = config.with_values(f"epochs={epochs}")
        name = "settings"
        try:
            settings = shlex.split(texts["settings"])
        except ValueError as error:
            raise ConfigError("a quotation mark is not closed; add the second one") from error
        for setting in settings:
            if "=" not in setting:
                raise ConfigError(f"{setting!r} has no value; write name=value, such as seed=3")
            if epochs and setting.startswith("epochs="):
                raise ConfigError("epochs are set twice; clear one of them")
        return config.with_values(*settings)

    try:
        config = configure(preset, apply_fields, runs_dir)
    except InvalidInputError as error:
        raise _FieldError(name, str(error)) from error
    return NewTraining(config, texts["run"] or None, texts)


def _check_corpus(path: str) -> None:
    shown, problem = path[:200], "file not found: {}; fix the path or clear it"
    # A path may be too long, have a null byte, or name an unknown user.
    with suppress(OSError, ValueError, RuntimeError):
        expanded = Path(path).expanduser()
        if expanded.is_file():
            return
        if expanded.is_dir():
            problem = "{} is a folder; add the name of a file in it"
        elif expanded.exists():
            problem = "{} is not a regular file; fix the path or clear it"
    raise ConfigError(problem.format(shown))
