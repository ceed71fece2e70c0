"""Common parts of the exports of Transformers to other programs: the run, its vocabulary, and who answers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.data.speakers import display_name, first_to_answer
from engine.data.tokenizers.base import EOS, EOS_ID, Tokenizer
from engine.errors import RunError
from engine.models.pretrained.base import vocabulary_rows
from engine.runs.directory import read_config
from engine.runs.loading import LoadedModel, LoadedRun, load_model


@dataclass(frozen=True)
class ExportedVocabulary:
    """Vocabulary of an export. Ids are of the pre-trained model, or else of `Tokenizer.encode`."""

    tokenizer_json: str
    """Content of `tokenizer.json`."""
    start_id: int
    start_text: str
    """Token that starts a text."""
    end_ids: tuple[int, ...]
    end_text: str
    """Tokens that end a text, and the name of the first one."""
    special_ids: tuple[int, ...]
    line_end_ids: tuple[int, ...]
    """Tokens with a line feed, the line feed itself first; a line of a script ends with one of them."""
    rows: npt.NDArray[np.intp]
    """Row of each token in the weights."""


def load_transformer(run_dir: Path, option: str, program: str) -> LoadedRun:
    """Load the best model of a run in single precision; an adapter is merged into its base.

    Args:
        run_dir: The run.
        option: Option of the command line that exports it, for errors.
        program: Program that the export is for, for errors.

    Raises:
        RunError: If the run is damaged or not a Transformer.
        ConfigError: If the configuration is damaged.
    """
    architecture = read_config(run_dir).model.architecture
    if architecture != "transformer":
        raise RunError(
            f"run {run_dir.name!r} has architecture={architecture}, which {program} does not have; "
            f"{option} exports runs with architecture=transformer, such as those of `lotr-tui train --preset gpt-tiny`"
        )
    return load_model(run_dir, int8_adapted=False)


def export_vocabulary(tokenizer: Tokenizer) -> ExportedVocabulary:
    """Return the vocabulary of a model as other programs read it."""
    from engine.data.tokenizers.hugging_face import to_hugging_face
    from engine.models.pretrained.tokenizer import PretrainedTokenizer

    line_ends: list[int] = []
    if tokenizer.is_open:  # some put a space before a text
        line_ends = [*tokenizer.encode("\n").tolist()[-1:], *tokenizer.line_end_ids.tolist()]
    if isinstance(tokenizer, PretrainedTokenizer):
        specials, texts = tokenizer.specials, tokenizer.special_texts
        content, rows = tokenizer.to_json(), vocabulary_rows(tokenizer)
        start_id, end_ids, special_ids = specials.start_id, specials.end_ids, specials.special_ids
        start_text, end_text = texts[start_id], texts[specials.end_id]
        line_ends = [tokenizer.swap_id(id) for id in line_ends]
    else:
        content, rows = to_hugging_face(tokenizer).to_str(pretty=True), np.arange(len(tokenizer))
        start_id, end_ids, special_ids, start_text, end_text = EOS_ID, (EOS_ID,), (EOS_ID,), EOS, EOS
    line_end_ids = tuple(id for id in dict.fromkeys(line_ends) if id not in end_ids)
    return ExportedVocabulary(content, start_id, start_text, end_ids, end_text, special_ids, line_end_ids, rows)


def answering_name(loaded: LoadedModel) -> str | None:
    """Return who answers in a conversation until someone is named, as displayed; None without a cast."""
    return display_name(first_to_answer(loaded.cast)) if loaded.cast else None
