"""Tokenizers of models by others as their files describe them: special tokens, and where a text starts and ends."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as HuggingFaceTokenizer

from engine.errors import InvalidInputError, describe_error
from engine.models.pretrained.chat import ChatMessage, ChatTemplate, JinjaTemplate
from engine.models.pretrained.tokenizer import PretrainedTokenizer, SpecialTokens
from engine.runtime.sandbox import SandboxLimitError

# Of texts and replies in well-known models.
END_TOKENS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "</s>")
TEXT_START_TOKEN = "<|endoftext|>"
CLOSED_VOCABULARIES = ("WordLevel", "WordPiece")  # they lose the spaces or the unknown words of a text
TRIED_TEXTS = ("", " ", "Where is the Ring?\nIt's safe, for 12 days. \u65e5\u672c \U0001f600", "a" * 1000, "a b " * 500)
_MARK = "MESSAGE0X"
# As vocabularies write them; the second in byte-level ones.
_LINE_FEEDS = ("\n", "\N{LATIN CAPITAL LETTER C WITH DOT ABOVE}", "<0x0A>")


@dataclass(frozen=True)
class TokenizerFiles:
    """Facts about a tokenizer from the files of a model. Ids are the model's."""

    backend_json: str  # content of `tokenizer.json`
    bos_id: int | None = None
    eos_id: int | None = None
    first_id: int | None = None  # token that the tokenizer puts before a text
    template: JinjaTemplate | None = None  # it may fail for any conversation

    @cached_property
    def _content(self) -> Any:
        return json.loads(self.backend_json)

    @property
    def num_tokens(self) -> int:
        vocabulary = self._content["model"]["vocab"]
        ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        return 1 + max([*ids, *(token["id"] for token in self._content.get("added_tokens") or [])], default=-1)

    def make_tokenizer(self, name: str, model_end_ids: Sequence[int], size: int) -> PretrainedTokenizer:
        """Return a tokenizer with `size` tokens; an InvalidInputError if it cannot spell every text or end one."""
        if (kind := self._content["model"].get("type")) in CLOSED_VOCABULARIES:
            raise InvalidInputError(
                f"{name} has a {kind} tokenizer, which cannot spell every text; play the run that it was exported "
                "from, or a model of byte pairs"
            )
        specials = self._find_special_tokens(name, model_end_ids, size)
        try:
            return PretrainedTokenizer(self.backend_json, size, specials)
        except Exception as error:  # the library raises `Exception` itself
            raise InvalidInputError(f"{name} has a damaged tokenizer: {describe_error(error)[:200]}") from error

    def make_chat_template(self, tokenizer: PretrainedTokenizer) -> ChatTemplate | None:
        if self.template is None:
            return None
        chat = ChatTemplate(self.template, tokenizer)
        try:
            chat.encode([ChatMessage("user", "x")])
        except InvalidInputError as error:
            chat.problem = str(error)
        return chat

    def _find_special_tokens(self, name: str, model_end_ids: Sequence[int], size: int) -> SpecialTokens:
        added = [token for token in self._content.get("added_tokens") or [] if token["id"] < size]
        ids_of_text = {token["content"]: token["id"] for token in added}
        special_ids = {token["id"] for token in added if token["special"]}
        messages = (("user", "x"), ("assistant", _MARK), ("user", "y"))
        conversation = ""
        try:
            if self.template is not None:
                conversation = self.template([{"role": role, "content": text} for role, text in messages])
        except Exception as error:  # a template is a program, which can raise anything
            if isinstance(error, SandboxLimitError):
                raise InvalidInputError(f"{name} has a chat template that cannot be used: {error}") from error
        after_reply = conversation.partition(_MARK)[2].lstrip()
        turn_end = max((text for text in ids_of_text if after_reply.startswith(text)), key=len, default=None)
        # Tokens with a line feed, which end the replies of models of scripts, are text.
        vocabulary = self._content["model"]["vocab"]
        items = vocabulary.items() if isinstance(vocabulary, dict) else ()
        line_ends = {id for token, id in items if id in model_end_ids and any(mark in token for mark in _LINE_FEEDS)}
        candidates = [
            ids_of_text.get(turn_end),
            self.eos_id,
            *(id for id in model_end_ids if id not in line_ends),
            *map(ids_of_text.get, END_TOKENS),
        ]
        end_ids = tuple(dict.fromkeys(id for id in candidates if id is not None and 0 <= id < size))
        if not end_ids:
            raise InvalidInputError(f"{name} has no token that ends a text (eos_token), so it cannot be played")
        special_ids.update(end_ids)
        # Chat models often name the start of a message as bos, which starts no text and is not put before one.
        start_id = self.first_id if self.first_id in {*special_ids, self.bos_id} else None
        start_text = next((text for text, id in ids_of_text.items() if id == start_id), None)
        starts_messages = start_text is not None and conversation.count(start_text) > 1
        if TEXT_START_TOKEN in ids_of_text and (start_id is None or starts_messages):
            start_id = ids_of_text[TEXT_START_TOKEN]
        elif start_id is None:
            start_id = self.bos_id
        if start_id is None or start_id >= size:
            start_id = end_ids[0]
        return SpecialTokens(start_id, end_ids[0], end_ids, tuple(sorted(special_ids | {start_id})))


def try_tokenizer(path: str, name: str, texts: dict[str, str | None], end_ids: Sequence[int]) -> dict[str, int | None]:
    """Return the ids of the tokens `texts` in a `tokenizer.json`, and as "first" of that before a text.

    Call this in a sandbox: it encodes some texts, and the library may crash.
    """
    content = Path(path).read_text("utf-8")
    backend = HuggingFaceTokenizer.from_str(content)
    ids = {key: None if text is None else backend.token_to_id(text) for key, text in texts.items()}
    first = backend.encode("a").ids
    files = TokenizerFiles(content, ids.get("bos_token"), ids.get("eos_token"), first[0] if first else None)
    tokenizer = files.make_tokenizer(name, end_ids, files.num_tokens)
    for text, encoded in zip(TRIED_TEXTS, tokenizer.encode_lines(TRIED_TEXTS), strict=True):
        tokenizer.decode(encoded)
        tokenizer.end_offsets(text, encoded)
        tokenizer.encode_with_special_tokens(text)
    return {**ids, "first": files.first_id}
