"""Tokenizers of Hugging Face: byte-level byte-pair encoding, and the conversion of all others to `tokenizer.json`."""

import json
import sys
from collections.abc import Iterable, Sequence

import numpy as np
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as HuggingFaceTokenizer

from engine.data.tokenizers import (
    BYTE_CHARACTERS,
    EOS,
    EOS_ID,
    UNK,
    WORD_PATTERN,
    ByteTokenizer,
    CharacterTokenizer,
    TokenIds,
    Tokenizer,
    WordTokenizer,
    check_unicode,
)
from engine.errors import RunError

CHUNK_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}{1,64}| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]{1,64}|\s+(?!\S)|\s+"
"""Parts of a text that tokens never cross, as in GPT-2; the limits keep a text without spaces fast."""
PRE_TOKENIZER = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Split(Regex(CHUNK_PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
)
MAX_LEARNED_TOKEN_LENGTH = 24  # characters, so that rows of dashes do not take up the vocabulary


class BPETokenizer(ByteTokenizer):
    """Byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019)."""

    name = "bpe"

    def __init__(self, merges: Sequence[tuple[str, str]]) -> None:
        """Create a tokenizer of the bytes and the results of `merges`, which are written as in Hugging Face's files."""
        self.merges = tuple(merges)
        names = dict.fromkeys(sorted(BYTE_CHARACTERS))
        for left, right in merges:
            if left not in names or right not in names or left + right in names:
                raise ValueError(f"impossible merge of {left!r} and {right!r}")
            names[left + right] = None
        super().__init__([bytes(map(BYTE_CHARACTERS.__getitem__, name)) for name in names])
        ordered = [*names]
        ordered.insert(EOS_ID, EOS)
        vocabulary = {name: id for id, name in enumerate(ordered)}
        self._backend = HuggingFaceTokenizer(models.BPE(vocab=vocabulary, merges=list(self.merges)))
        self._backend.pre_tokenizer = PRE_TOKENIZER

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int) -> "BPETokenizer":
        """Learn the merges of `texts`, fewer if they have fewer pairs that occur twice."""
        backend = HuggingFaceTokenizer(models.BPE())
        backend.pre_tokenizer = PRE_TOKENIZER
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size - 1,  # without <eos>
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            max_token_length=MAX_LEARNED_TOKEN_LENGTH,
            min_frequency=2,
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return cls([(left, right) for left, right in json.loads(backend.to_str())["model"]["merges"]])

    def encode(self, text: str) -> TokenIds:
        if not text.isascii():
            check_unicode(text)
        return np.array(self._backend.encode(text).ids, np.int32)

    def encode_lines(self, lines: Sequence[str]) -> list[TokenIds]:
        for line in lines:
            check_unicode(line)
        return [np.array(encoding.ids, np.int32) for encoding in self._backend.encode_batch_fast(list(lines))]

    def to_json(self) -> str:
        return self._backend.to_str()

    @classmethod
    def from_json(cls, text: str, source: str) -> "BPETokenizer":
        """Parse the output of `to_json`, which was read from the file `source`; damage raises a RunError."""
        try:
            content = json.loads(text)
            tokenizer = cls([(left, right) for left, right in content["model"]["merges"]])
            content["vocabulary"] = content["model"].get("vocab")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise RunError(f"{source} is not a tokenizer of byte pairs ({error}); the run is damaged") from error
        expected = json.loads(tokenizer._backend.to_str())
        expected["vocabulary"] = expected["model"]["vocab"]
        for key in ("version", "normalizer", "pre_tokenizer", "vocabulary"):
            if content.get(key) != expected[key]:
                raise RunError(f"{source} is damaged, or of another program: its {key} differs; train a new run")
        return tokenizer


def to_hugging_face(tokenizer: Tokenizer) -> HuggingFaceTokenizer:
    """Return a Hugging Face tokenizer with the same ids as `tokenizer`, which puts `<eos>` before a text.

    It reads "<eos>" in a text as ordinary text only with `encode_special_tokens` set, which `tokenizer.json` does not
    store; `split_special_tokens` is its name in transformers.
    """
    if isinstance(tokenizer, BPETokenizer):
        backend = HuggingFaceTokenizer.from_str(tokenizer.to_json())
        backend.decoder = decoders.ByteLevel()
    elif isinstance(tokenizer, CharacterTokenizer):  # byte pairs without a merge
        names = [chr(byte) if byte < 128 else f"<0x{byte:02X}>" for byte in range(256)]
        names = [*names[:EOS_ID], EOS, *names[EOS_ID:], *tokenizer.characters]
        vocabulary = {name: id for id, name in enumerate(names)}
        backend = HuggingFaceTokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
        backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    else:
        assert isinstance(tokenizer, WordTokenizer), "all other tokenizers have a closed vocabulary of words"
        backend = HuggingFaceTokenizer(models.WordLevel(tokenizer.token_to_id, unk_token=UNK))
        pattern = WORD_PATTERN.pattern
        if tokenizer.name == "words":
            backend.normalizer = normalizers.Lowercase()
        else:  # the printable characters of Python's version of Unicode but the space, as ranges
            is_printable = [chr(code).isprintable() and code != ord(" ") for code in range(sys.maxunicode + 1)]
            edges = np.flatnonzero(np.diff(is_printable, prepend=False, append=False)).reshape(-1, 2)
            pattern = "[" + "".join(rf"\x{{{start:x}}}-\x{{{end - 1:x}}}" for start, end in edges.tolist()) + "]+"
        # Removes all but the words. Without a decoder, they are joined by spaces.
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    backend.add_special_tokens([AddedToken(EOS, normalized=False, special=True)])
    backend.post_processor = processors.TemplateProcessing(single=f"{EOS} $A", special_tokens=[(EOS, EOS_ID)])
    backend.encode_special_tokens = True
    return backend
