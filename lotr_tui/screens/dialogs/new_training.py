"""Dialog that configures a new training."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from textual import on
from textual.content import Content
from textual.suggester import Suggester
from textual.widgets import Input, OptionList, Static

from engine.config import BUNDLED, SETTINGS, Config
from engine.errors import ColumnError, ConfigError
from engine.models.pretrained.names import SMOLLM2, is_base_stored
from engine.presets import PRESETS
from engine.runs.directory import MAX_RUN_NAME_LENGTH, check_run_name
from engine.storage.files import default_runs_dir
from lotr_tui.background_task import run_in_thread
from lotr_tui.screens.dialogs.dialog import Dialog, Field
from lotr_tui.screens.dialogs.paths import MAX_PATH_LENGTH, PathSuggester

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


@dataclass(frozen=True)
class NewTraining:
    """Training that the user has asked for."""

    config: Config
    run_name: str | None  # None for one made of the preset and the time
    fields: Mapping[str, str] = field(default_factory=dict, compare=False)  # to ask again if it cannot be prepared


class SettingsSuggester(Suggester):
    """Completion of the last word of settings such as `lr=0.01 epochs=20`: a name, or one of a few values."""

    async def get_suggestion(self, value: str) -> str | None:
        head, space, word = value.rpartition(" ")
        name, equals, _ = word.partition("=")
        choices = (
            [f"{name}={choice}" for choice in _setting_choices(name)] if equals else [f"{each}=" for each in SETTINGS]
        )
        if not word or word in choices:
            return None
        return next((head + space + each for each in choices if each.startswith(word.casefold())), None)


def _setting_choices(name: str) -> Sequence[str]:
    value_type = SETTINGS[name].type if name in SETTINGS else None
    return ("true", "false") if value_type is bool else tuple(map(str, get_args(value_type)))


class NewTrainingDialog(Dialog[NewTraining]):
    """Dialog that asks for a preset and changes to it, dismissed with the training, or with None if cancelled."""

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
        self._presets = sorted(OFFERED_PRESETS, key=lambda name: name != CONVERSATION or not has_speakers)
        preset = CONVERSATION if has_speakers and is_base_stored(SMOLLM2) else SUGGESTED_PRESET
        texts: Mapping[str, str] = {"corpus": "" if corpus == BUNDLED else corpus}
        if previous is not None:
            texts, preset = previous.fields, previous.config.preset
        self._runs_dir = runs_dir or default_runs_dir()
        super().__init__(
            "Train a model in the background",
            text=" ",  # about the setting that is typed
            answers=[(f"{name:9} {PRESET_DESCRIPTIONS[name]}", None) for name in self._presets],
            highlighted=self._presets.index(preset),
            fields=[
                Field(
                    "corpus",
                    texts.get("corpus", ""),
                    "the bundled dialogues, or a table, text or script",
                    "Corpus",
                    MAX_PATH_LENGTH,
                    PathSuggester(),
                ),
                Field("run", texts.get("run", ""), "", "Run name", MAX_RUN_NAME_LENGTH),
                Field("epochs", texts.get("epochs", ""), "", "Epochs", 20),
                Field(
                    "settings",
                    texts.get("settings", ""),
                    "such as lr=0.005 seed=3",
                    "Settings",
                    1000,
                    SettingsSuggester(use_cache=False),
                ),
            ],
            verb="train",
        )

    @property
    def _preset(self) -> Config:
        """Highlighted preset; a conversation is trained in script form."""
        preset = PRESETS[self._presets[self.query_one("#answers", OptionList).highlighted or 0]]
        return preset.with_values(mode="dialogue") if preset.preset == CONVERSATION else preset

    @on(OptionList.OptionHighlighted)
    def _show_preset(self) -> None:
        """Show the values that empty fields stand for."""
        self.query_one("#run", Input).placeholder = f"{self._preset.preset} and the time"
        self.query_one("#epochs", Input).placeholder = str(self._preset.training.epochs)

    @on(Input.Changed, "#settings")
    def _explain_setting(self, event: Input.Changed) -> None:
        setting, text = event.value.rpartition(" ")[2].partition("=")[0], Content(" ")
        if setting in SETTINGS:
            section, _, meta = SETTINGS[setting]
            choices = " or ".join(_setting_choices(setting)) or getattr(getattr(self._preset, section), setting)
            text = Content.assemble((setting, "bold"), f" ({choices}): {meta.description}")
        self.query_one(".dialog-text", Static).update(text)

    async def use(self, texts: Mapping[str, str]) -> None:
        """Close the dialog with the training that the texts describe."""
        stripped = {name: text.strip() for name, text in texts.items()}
        try:
            self.dismiss(await run_in_thread(_read_fields, self._preset, stripped, self._runs_dir))
        except ColumnError as error:
            name = await self.app.push_screen_wait(Dialog[str](error.question, answers=error.answers))
            if name is not None:
                settings = self.query_one("#settings", Input)
                settings.value += f" {error.setting}={shlex.quote(name)}"
                self.action_submit()


def _read_fields(preset: Config, texts: Mapping[str, str], runs_dir: Path) -> NewTraining:
    """Return the training that the texts of the fields describe, or raise an InvalidInputError."""
    from engine.data.corpus import check_columns, detect_format  # imports numpy
    from engine.training.job import configure

    corpus, run_name, epochs = texts["corpus"], texts["run"], texts["epochs"]
    if corpus and not os.path.isfile(os.path.expanduser(corpus)):  # noqa: PTH111, PTH113  # never raises
        raise ConfigError(f"{corpus[:200]} is not a file; fix the path or clear it")
    if run_name:
        check_run_name(run_name)
        if (runs_dir / run_name).exists():
            raise ConfigError(f"run {run_name!r} exists already; choose another name")
    try:
        settings = shlex.split(texts["settings"])
    except ValueError as error:
        raise ConfigError("a quotation mark is not closed; add the second one") from error
    for setting in settings:
        if "=" not in setting:
            raise ConfigError(f"{setting!r} has no value; write name=value, such as seed=3")
        if epochs and setting.startswith("epochs="):
            raise ConfigError("epochs are set twice; clear one of them")

    def apply_fields(config: Config) -> Config:
        if corpus:
            config = config.with_values(corpus=corpus, corpus_format=detect_format(corpus))
        return config.with_values(*([f"epochs={epochs}"] if epochs else []), *settings)

    config = configure(preset, apply_fields, runs_dir)
    check_columns(config.data)
    return NewTraining(config, run_name or None, texts)
