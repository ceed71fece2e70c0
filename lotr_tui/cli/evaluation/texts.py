"""Texts to evaluate: a split of a run's data, a file or standard input."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.analysis.bits_per_character import EncodedText, TextForm, convert_text, native_form, written_text
from engine.data.corpus import Lines, check_line_lengths, read_whole_text
from engine.data.dataset import Dataset
from engine.data.scripts import detect_style, read_scenes, script_text
from engine.errors import CorpusError
from engine.runs.combine import ModelCombiner
from lotr_tui.cli.standard_input import read_standard_input

SplitName = Literal["valid", "test", "train"]
FORM_DESCRIPTIONS: dict[TextForm, str] = {
    "original": "the original text",
    "whitespace": "the text with single spaces",
    "words": "the lower-case words",
}


@dataclass(frozen=True)
class TextSource:
    """Choice of the text to score."""

    split: SplitName
    """Split of the runs' data to score, if there is no other text."""
    path: str | None
    """Path of the file that the user named, "-" for standard input; None for the split."""
    content: str = ""
    """Content of the file."""

    @property
    def name(self) -> str:
        """Name of the split, or path of the file."""
        return self.split if self.path is None else self.path

    @property
    def names_speakers(self) -> bool:
        """True if the lines of the file name their speakers."""
        return detect_style(self.content.splitlines()) is not None

    def lines(self, dataset: Dataset) -> Lines:
        """Return the lines of the split."""
        splits = dataset.splits
        return {"valid": splits.valid, "test": splits.test, "train": splits.train}[self.split]

    def original(self, combiner: ModelCombiner) -> str:
        """Return the text as written; a split comes from the data of the first run of `combiner`.

        Another text for a run in dialogue mode becomes a script in the form that the run reads.

        Raises:
            CorpusError: If the data of the run cannot be read or has changed.
        """
        mode = combiner.runs[0].config.data.mode
        if self.path is None:
            return written_text(self.lines(combiner.dataset), mode)
        return script_text(read_scenes(self.content)) if mode == "dialogue" else self.content

    def convert(self, combiner: ModelCombiner, form: TextForm) -> str:
        """Return the text in a form, as the first run of `combiner` has it; without words, raise a CorpusError."""
        text = convert_text(self.original(combiner), form, combiner.runs[0].config.data.mode)
        if not text.strip():
            label = f"split {self.split}" if self.path is None else f"--text {self.path}"
            raise CorpusError(f"{label} has no words to score; use a longer text")
        return text

    def encode(self, combiner: ModelCombiner, *, only_words: bool) -> tuple[EncodedText, TextForm]:
        """Encode the text in the form that the runs read, or as lower-case words only.

        Returns:
            The encoded text, and its form, which is "original" if nothing had to be changed.
        """
        tokenizer = combiner.runs[0].decoder.tokenizer
        form: TextForm = "words" if only_words else native_form(tokenizer)
        text = self.convert(combiner, form)
        if text == convert_text(self.original(combiner), "original"):
            form = "original"
        return EncodedText(text, tokenizer, combiner.runs[0].config.data.mode), form


def read_source(split: SplitName, path: str | None) -> TextSource:
    """Read the file `path`, or standard input for "-"; None chooses the split.

    Raises:
        CorpusError: If the file cannot be read.
    """
    if path is None:
        return TextSource(split, None)
    if path == "-":
        content = read_standard_input().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        check_line_lengths(content.split("\n"), "standard input")
    else:
        content = read_whole_text(Path(path))
    return TextSource(split, path, content)
