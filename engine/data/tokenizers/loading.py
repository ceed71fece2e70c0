"""Reading the tokenizer and the cast of a run from their files."""

from engine.config import TokenizerName
from engine.data.tokenizers.base import Tokenizer, is_open_vocabulary
from engine.data.tokenizers.bytes import CharacterTokenizer
from engine.data.tokenizers.words import WordTokenizer

VOCABULARY_FILE, TOKENIZER_FILE = "vocabulary.json", "tokenizer.json"


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
