"""Dialog that configures a new training."""

from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from engine.config import BUNDLED, Config
from engine.errors import ConfigError
from engine.presets import PRESETS, get_preset
from lotr_tui.textual_fixes.option_list import RobustOptionList
from lotr_tui.textual_fixes.screen import TextualFixesScreen
from lotr_tui.widgets.line_input import LineInput

PRESET_DESCRIPTIONS = {
    "tiny": "a small model in a few seconds",
    "default": "the best for a corpus of this size, in minutes",
    "notebook": "the classroom notebook's large model, with its bug",
    "paper": "the paper's 24 million weights; needs a GPU",
    "ptb": "for a corpus of a million words, in about an hour",
}
MAX_PATH_IN_ERROR = 200
"""Characters of a path that an error message shows."""


class NewTrainingDialog(TextualFixesScreen, ModalScreen[Config | None]):
    """Dialog that asks for a preset and a corpus, dismissed with the configuration, or with None if cancelled."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "cancel", id="new-training.cancel")]

    def __init__(self, corpus: str) -> None:
        """Suggest a corpus: a path, or "bundled" or "" for the bundled dialogues."""
        super().__init__()
        self._corpus = "" if corpus == BUNDLED else corpus

    def compose(self) -> ComposeResult:
        """Create the list of presets, the input for the corpus, a line for an error and the line of keys."""
        with Vertical(classes="dialog"):
            yield Label("Train a model in the background", classes="dialog-title")
            yield RobustOptionList(
                *(Option(f"{name:9} {PRESET_DESCRIPTIONS.get(name, '')}", id=name) for name in PRESETS),
                id="preset",
                markup=False,
            )
            yield Label("Corpus: path of a .csv or .txt file")
            yield LineInput(self._corpus, placeholder="the bundled dialogues", id="corpus", compact=True)
            yield Static("", id="problem", markup=False)
            yield Static("enter train   tab next field   esc cancel", classes="dialog-keys", markup=False)

    def on_mount(self) -> None:
        """Highlight the tiny preset, which trains fastest."""
        options = self.query_one("#preset", OptionList)
        options.highlighted = options.get_option_index("tiny")
        options.focus()

    @on(OptionList.OptionSelected)
    @on(Input.Submitted)
    def _submit(self) -> None:
        options = self.query_one("#preset", OptionList)
        preset = options.get_option_at_index(options.highlighted or 0).id
        corpus = self.query_one("#corpus", Input).value.strip()
        try:
            config = get_preset(preset or "tiny")
            if corpus:
                config = config.with_values(corpus=corpus, corpus_format="text" if corpus.endswith(".txt") else "csv")
            if corpus and not _is_file(corpus):
                raise ConfigError(f"file not found: {corpus[:MAX_PATH_IN_ERROR]}; fix the path or clear it")
        except ConfigError as error:
            self.query_one("#problem", Static).update(str(error))
            return
        self.dismiss(config)


def _is_file(path: str) -> bool:
    try:
        return Path(path).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # a path that is too long, has a null byte, or names an unknown user
        return False
