"""What to train on, and how long."""

from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from engine.config import BUNDLED, PRESETS, Config, preset
from engine.errors import ConfigError
from lotr_tui.textual_fixes.line_box import LineBox
from lotr_tui.textual_fixes.rows import Rows
from lotr_tui.textual_fixes.screen import Steady

DESCRIPTIONS = {
    "tiny": "a first look, in seconds",
    "default": "the best for a corpus of this size, in some minutes",
    "notebook": "the classroom notebook's large model, and its mistake",
    "paper": "the paper's 24 million weights; wants a GPU",
    "ptb": "for a text of a million words, in about an hour",
}


class NewTraining(Steady, ModalScreen[Config | None]):
    """Asks for preset and corpus; dismissed with the configuration, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel", id="new-training.cancel"),
    ]

    def __init__(self, corpus: str) -> None:
        """Offer `corpus`, a path or "bundled"; "" is the bundled one too."""
        super().__init__()
        self._corpus = "" if corpus == BUNDLED else corpus

    def compose(self) -> ComposeResult:
        """Presets, the path of a corpus, a button."""
        with Vertical(classes="dialog"):
            yield Label("Train a model while you play", classes="dialog-title")
            yield Rows(
                *(Option(f"{name:9} {DESCRIPTIONS.get(name, '')}", id=name) for name in PRESETS),
                id="preset",
                markup=False,
            )
            yield Label("Corpus: a CSV or .txt; empty: the bundled dialogues")
            yield LineBox(self._corpus, placeholder="the bundled dialogues", id="corpus", compact=True)
            yield Static("", id="problem", markup=False)
            yield Static("enter trains   tab moves   esc cancels", classes="dialog-keys", markup=False)

    def on_mount(self) -> None:
        """The tiny preset first: something to see at once."""
        options = self.query_one("#preset", OptionList)
        options.highlighted = options.get_option_index("tiny")
        options.focus()

    @on(OptionList.OptionSelected)
    @on(Input.Submitted)
    def _train(self) -> None:
        options = self.query_one("#preset", OptionList)
        name = options.get_option_at_index(options.highlighted or 0).id
        corpus = self.query_one("#corpus", Input).value.strip()
        try:
            config = preset(name or "tiny")
            if corpus:
                config = config.with_values(corpus=corpus, corpus_format="text" if corpus.endswith(".txt") else "csv")
            if corpus and not _is_file(corpus):
                raise ConfigError(f"{corpus[:200]} is no file; mend the path, or empty it")
        except ConfigError as error:
            self.query_one("#problem", Static).update(str(error))
            return
        self.dismiss(config)


def _is_file(path: str) -> bool:
    try:
        return Path(path).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, ~ of someone who is not there
        return False
