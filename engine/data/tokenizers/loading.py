"""Reading the tokenizer and the cast of a run from their files."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from msgspec import Meta

from engine.data.speakers import MAX_NAME_CHARACTERS
from engine.data.tokenizers.base import Tokenizer, TokenizerName, is_open_vocabulary
from engine.data.tokenizers.characters import CharacterTokenizer
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import InvalidInputError, RunError
from engine.storage.schema import decode_json

VOCABULARY_FILE, TOKENIZER_FILE, CAST_FILE = "vocabulary.json", "tokenizer.json", "cast.json"
MAX_CAST_SIZE = 10_000

_Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARACTERS)]


@dataclass(frozen=True)
class _CastFile:
    version: Literal[1]
    cast: Annotated[list[_Name], Meta(min_length=1, max_length=MAX_CAST_SIZE)]


def tokenizer_file_name(name: TokenizerName) -> str:
    """Return the name of the file in which a run keeps its tokenizer: a list of words, or an open vocabulary."""
    return TOKENIZER_FILE if is_open_vocabulary(name) else VOCABULARY_FILE


def tokenizer_from_json(text: str, source: str, name: TokenizerName) -> Tokenizer:
    """Parse the output of `Tokenizer.to_json`, which was read from the file `source`; damage raises a RunError."""
    assert name != "pretrained", "a model by others is no run"
    if name == "bpe":
        # Imported here: it loads Hugging Face's tokenizers, which models of words do not need.
        from engine.data.tokenizers.bpe import BPETokenizer

        return BPETokenizer.from_json(text, source)
    if name == "characters":
        return CharacterTokenizer.from_json(text, source)
    return WordTokenizer.from_json(text, source, name)


def cast_to_json(cast: Sequence[str]) -> str:
    """Return a cast as the content of its file in a run directory."""
    return json.dumps(asdict(_CastFile(1, list(cast))), ensure_ascii=False)


def cast_from_json(text: str, source: str) -> tuple[str, ...]:
    """Return the cast that `cast_to_json` wrote to the file `source`; damage raises a RunError."""
    try:
        cast = decode_json(_CastFile, text).cast
    except InvalidInputError as error:
        raise RunError(f"{source} is not the cast of a run: {str(error).removesuffix('.')}; train a new run") from error
    if len(set(cast)) != len(cast) or not all(name.isprintable() and name == " ".join(name.split()) for name in cast):
        raise RunError(f"{source} lists a speaker twice, or one whose name cannot be shown; the run is damaged")
    return tuple(cast)
