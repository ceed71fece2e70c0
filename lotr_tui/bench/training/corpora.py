"""Corpora of the comparisons of models: the tales as one text, and the dialogues split into text files."""

from pathlib import Path

from engine.analysis.bits_per_character import written_text
from engine.config import Config, DataConfig
from engine.data.dataset import load_dataset
from engine.data.tales.books import BOOKS
from engine.data.tales.corpus import check_source_folder, write_tales
from engine.storage.files import write_atomically

SPLITS = ("train", "valid", "test")


def prepare_tales(source: Path, runs_dir: Path) -> Path:
    """Return the text file of the tales: `source`, or the books in the folder `source`, cleaned and joined.

    Raises:
        InvalidInputError: If a book is missing or damaged.
    """
    if source.is_file():
        return source
    output = runs_dir / "tales.txt"
    if not output.exists():
        check_source_folder(source, BOOKS)
        runs_dir.mkdir(parents=True, exist_ok=True)
        write_tales(source, output, BOOKS, lambda book: None)
    return output


def prepare_dialogues(csv: Path, runs_dir: Path) -> dict[str, Path]:
    """Write the splits of the dialogues by scenes as text files, one line an utterance, and return their paths.

    All tokenizers then read the same lines.

    Raises:
        InvalidInputError: If the file cannot be read.
    """
    paths = {split: runs_dir / f"{split}.txt" for split in SPLITS}
    if not all(path.exists() for path in paths.values()):
        data = DataConfig(corpus=str(csv), tokenizer="characters", split="scenes", min_characters=1)
        dataset = load_dataset(data)
        runs_dir.mkdir(parents=True, exist_ok=True)
        for split, path in paths.items():
            write_atomically(path, written_text(dataset, split).encode())
    return paths


def with_text(config: Config, path: Path) -> Config:
    """Return a configuration for a plain text."""
    return config.with_values(corpus=str(path), corpus_format="text")


def with_splits(config: Config, paths: dict[str, Path]) -> Config:
    """Return a configuration for texts that are split already."""
    return with_text(config, paths["train"]).with_values(
        valid_corpus=str(paths["valid"]), test_corpus=str(paths["test"]), split="lines", min_characters=1
    )
