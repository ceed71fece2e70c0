"""Tokenizer of a model by others, as a tokenizer of the house."""

from engine.data.tokenizers.base import TokenIds
from engine.data.tokenizers.bytes import ByteTokenizer


class PretrainedTokenizer(ByteTokenizer):
    """Tokenizer of a model by others. Ids are the model's, except that id 1 and the id of its end token are swapped."""

    name = "pretrained"
    reads_line_ends = True

    def _encode(self, text: str) -> TokenIds:
        raise NotImplementedError

    def to_json(self) -> str:
        """Return the tokenizer in Hugging Face's format."""
        raise NotImplementedError
