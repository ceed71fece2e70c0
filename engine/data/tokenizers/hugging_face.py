"""Conversion of tokenizers to Hugging Face's format, for programs that read `tokenizer.json`."""

import sys

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as HuggingFaceTokenizer

from engine.data.tokenizers.base import EOS, EOS_ID, UNK, Tokenizer
from engine.data.tokenizers.bpe import BPETokenizer
from engine.data.tokenizers.characters import CharacterTokenizer
from engine.data.tokenizers.words import WORD_PATTERN, WordTokenizer


def to_hugging_face(tokenizer: Tokenizer) -> HuggingFaceTokenizer:
    """Return a Hugging Face tokenizer with the same ids as `tokenizer`, which puts `<eos>` before a text.

    Like `Tokenizer.encode`, the result reads a text that contains "<eos>" as ordinary text only with
    `encode_special_tokens` set, which `tokenizer.json` does not store; `split_special_tokens` is its name in
    transformers.
    """
    if isinstance(tokenizer, BPETokenizer):
        backend = HuggingFaceTokenizer.from_str(tokenizer.to_json())
        backend.decoder = decoders.ByteLevel()
    elif isinstance(tokenizer, CharacterTokenizer):
        backend = _convert_characters(tokenizer)
    else:
        assert isinstance(tokenizer, WordTokenizer), "all other tokenizers have a closed vocabulary of words"
        backend = _convert_words(tokenizer)
    backend.add_special_tokens([AddedToken(EOS, normalized=False, special=True)])
    backend.post_processor = processors.TemplateProcessing(single=f"{EOS} $A", special_tokens=[(EOS, EOS_ID)])
    backend.encode_special_tokens = True
    return backend


def _convert_characters(tokenizer: CharacterTokenizer) -> HuggingFaceTokenizer:
    """Convert a tokenizer of characters: byte pairs without a merge, and bytes for characters that are no tokens."""
    names = [chr(byte) if byte < 128 else f"<0x{byte:02X}>" for byte in range(256)]
    names = [*names[:EOS_ID], EOS, *names[EOS_ID:], *tokenizer.characters]
    model = models.BPE(vocab={name: id for id, name in enumerate(names)}, merges=[], byte_fallback=True)
    backend = HuggingFaceTokenizer(model)
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return backend


def _convert_words(tokenizer: WordTokenizer) -> HuggingFaceTokenizer:
    """Convert a closed vocabulary: a table of words, and the pattern of a word."""
    vocabulary = {token: id for id, token in enumerate(tokenizer.tokens)}
    backend = HuggingFaceTokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    if tokenizer.name == "words":
        backend.normalizer = normalizers.Lowercase()
        pattern = WORD_PATTERN.pattern
    else:
        pattern = f"[{_printable_ranges()}]+"
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)  # removes all but the words
    return backend  # without a decoder, words are joined by spaces


def _printable_ranges() -> str:
    """Return the printable characters of Python's version of Unicode but the space, as ranges of an expression."""
    is_printable = [chr(code).isprintable() and code != ord(" ") for code in range(sys.maxunicode + 1)]
    starts = [code for code in range(1, len(is_printable)) if is_printable[code] and not is_printable[code - 1]]
    ends = [code for code in range(1, len(is_printable)) if is_printable[code - 1] and not is_printable[code]]
    return "".join(rf"\x{{{start:x}}}-\x{{{end - 1:x}}}" for start, end in zip(starts, ends, strict=True))
