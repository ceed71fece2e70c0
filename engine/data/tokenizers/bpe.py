"""Byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019), computed by Hugging Face's tokenizers."""

import json
from collections.abc import Iterable, Sequence

import numpy as np
from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as HuggingFaceTokenizer

from engine.data.tokenizers.base import EOS, EOS_ID, TokenIds
from engine.data.tokenizers.bytes import ByteTokenizer, check_unicode
from engine.errors import RunError

CHUNK_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}{1,64}| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]{1,64}|\s+(?!\S)|\s+"
"""Parts of a text that tokens never cross, as in GPT-2; the limits keep a text without spaces fast."""
MAX_LEARNED_TOKEN_LENGTH = 24
"""Maximum characters of a token that training adds, so that rows of dashes do not take up the vocabulary."""


class BPETokenizer(ByteTokenizer):
    """A tokenizer that merges frequent neighbours, from single bytes up to whole words with the space before them."""

    name = "bpe"

    def __init__(self, merges: Sequence[tuple[str, str]]) -> None:
        """Create a tokenizer whose tokens are the bytes, then the results of `merges`, in the order they were learned.

        Merges are written as in Hugging Face's files, with one printable character for each byte. An impossible one
        raises a ValueError.
        """
        self.merges = tuple(merges)
        tokens = dict.fromkeys(_BYTE_CHARACTERS)
        for left, right in merges:
            if left not in tokens or right not in tokens or left + right in tokens:
                raise ValueError(f"impossible merge of {left!r} and {right!r}")
            tokens[left + right] = None
        names = list(tokens)
        super().__init__([bytes(map(_CHARACTER_BYTES.__getitem__, name)) for name in names])
        names.insert(EOS_ID, EOS)
        vocabulary = {name: id for id, name in enumerate(names)}
        self._backend = _new_backend(models.BPE(vocab=vocabulary, merges=list(self.merges)))

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int) -> "BPETokenizer":
        """Learn the merges of `texts`. The vocabulary is smaller than `vocabulary_size` if the text has fewer pairs."""
        backend = _new_backend(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size - 1,  # without <eos>
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            max_token_length=MAX_LEARNED_TOKEN_LENGTH,
            min_frequency=2,
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return cls([(left, right) for left, right in json.loads(backend.to_str())["model"]["merges"]])

    def _encode(self, text: str) -> TokenIds:
        return np.array(self._backend.encode(text).ids, np.int32)

    def encode_lines(self, lines: Sequence[str]) -> list[TokenIds]:
        """Return the token ids of each of several texts, encoded in parallel."""
        for line in lines:
            check_unicode(line)
        return [np.array(encoding.ids, np.int32) for encoding in self._backend.encode_batch_fast(list(lines))]

    def to_json(self) -> str:
        """Return the tokenizer in Hugging Face's format, as `tokenizer.json`."""
        return self._backend.to_str()

    @classmethod
    def from_json(cls, text: str, source: str) -> "BPETokenizer":
        """Parse the output of `to_json`, which was read from the file `source`; damage raises a RunError."""
        try:
            content = json.loads(text)
            tokenizer = cls([(left, right) for left, right in content["model"]["merges"]])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise RunError(f"{source} is not a tokenizer of byte pairs ({error}); the run is damaged") from error
        expected = json.loads(tokenizer.to_json())
        if content["model"].get("vocab") != expected["model"]["vocab"]:
            raise RunError(f"{source} has a vocabulary that does not follow from its merges; the run is damaged")
        for key in ("version", "normalizer", "pre_tokenizer"):
            if content.get(key) != expected[key]:
                raise RunError(f"{source} is of another version or program: its {key} differs; train a new run")
        return tokenizer


def _new_backend(model: models.BPE) -> HuggingFaceTokenizer:
    backend = HuggingFaceTokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CHUNK_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return backend


def _byte_characters() -> dict[str, int]:
    """Return the byte that each printable character stands for in Hugging Face's files, as in GPT-2."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


_CHARACTER_BYTES = _byte_characters()
_BYTE_CHARACTERS = sorted(_CHARACTER_BYTES)
