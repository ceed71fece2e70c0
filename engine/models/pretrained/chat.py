"""Conversations in the form that a model by others was trained on: its chat template."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from engine.data.tokenizers.bytes import check_unicode
from engine.errors import InvalidInputError, describe_error

if TYPE_CHECKING:  # this module imports tokenizers, which a session with a model of words does not need
    from engine.models.pretrained.tokenizer import PretrainedTokenizer

ChatRole = Literal["system", "user", "assistant"]

RenderTemplate = Callable[[list[dict[str, str]]], str]
"""Function from messages, with the keys "role" and "content", to the text of the conversation."""


@dataclass(frozen=True)
class ChatMessage:
    """One message of a conversation."""

    role: ChatRole
    text: str


class ChatTemplate:
    """The form of a conversation: how messages become the token ids that the model was trained on.

    Special tokens are read only where the template writes them. In the text of a message they are plain characters, so
    that no message can end its turn or pretend to be another role.
    """

    def __init__(self, render: RenderTemplate, tokenizer: "PretrainedTokenizer") -> None:
        """Find out what the template does with system messages.

        Raises:
            InvalidInputError: If the template cannot render a message of a user.
        """
        self._render_template = render
        self._tokenizer = tokenizer
        texts = sorted(tokenizer.special_texts.values(), key=len, reverse=True)
        self._special_pattern = re.compile("|".join(map(re.escape, texts)) or r"(?!)")
        self._special_ids = {text: id for id, text in tokenizer.special_texts.items()}
        plain = self._render([ChatMessage("user", "x")])
        self._strips_messages = " x " not in self._render([ChatMessage("user", " x ")])
        self.accepts_system = self._accepts_system()
        """False if the template has no system messages; the system prompt then starts the first user message."""
        self.default_system_prompt = self._find_default_system_prompt(plain)
        """System prompt that the template inserts if the messages have none; "" if it inserts none."""

    def encode(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """Return the token ids of `messages`, from the start of the text to the start of the assistant's next reply.

        Raises:
            InvalidInputError: If the template cannot be applied to these messages.
        """
        for message in messages:
            check_unicode(message.text)
        if not self.accepts_system:
            messages = fold_system_prompt(messages)
        if self._strips_messages:
            messages = [replace(message, text=message.text.strip()) for message in messages]
        marks = _new_marks(messages)
        marked = self._render([replace(m, text=mark) for m, mark in zip(messages, marks, strict=True)])
        if any(marked.count(mark) != 1 for mark in marks):
            # The template repeats, drops or changes a message: render the texts themselves, without special tokens.
            return self._encode_all(self._render([replace(m, text=self._break_specials(m.text)) for m in messages]))
        parts = re.split("|".join(marks), marked) if marks else [marked]
        texts = [*(message.text for message in messages), ""]
        conversation = "".join(part + text for part, text in zip(parts, texts, strict=True))
        num_specials = sum(len(self._special_pattern.findall(part)) for part in parts)
        if len(self._special_pattern.findall(conversation)) == num_specials:
            return self._encode_all(conversation)
        return self._encode_parts(parts, texts)

    def _encode_all(self, conversation: str) -> tuple[int, ...]:
        """Encode a conversation whose messages contain no special tokens, exactly as transformers does."""
        return tuple(self._tokenizer.encode_with_special_tokens(conversation).tolist())

    def _encode_parts(self, parts: Sequence[str], texts: Sequence[str]) -> tuple[int, ...]:
        """Encode the text of a template, `parts`, in which special tokens are read, and `texts` after each part."""
        ids: list[int] = []
        plain = ""
        for part, text in zip(parts, texts, strict=True):
            start = 0
            for match in self._special_pattern.finditer(part):
                ids += self._tokenizer.encode(plain + part[start : match.start()]).tolist()
                ids.append(self._tokenizer.swap_id(self._special_ids[match[0]]))
                plain, start = "", match.end()
            plain += part[start:] + text
        return (*ids, *self._tokenizer.encode(plain).tolist())

    def _break_specials(self, text: str) -> str:
        """Return `text` with a space inside each special token, which is plain text then."""
        while match := self._special_pattern.search(text):
            middle = match.start() + max(1, len(match[0]) // 2)
            text = f"{text[:middle]} {text[middle:]}"
        return text

    def _render(self, messages: Sequence[ChatMessage]) -> str:
        try:
            return self._render_template([{"role": message.role, "content": message.text} for message in messages])
        except Exception as error:  # a template is a program, which can raise anything
            reason = describe_error(error)
            raise InvalidInputError(f"the model's chat template cannot write this conversation: {reason}") from error

    def _accepts_system(self) -> bool:
        (mark,) = _new_marks([ChatMessage("system", "")])
        try:
            return mark in self._render([ChatMessage("system", mark), ChatMessage("user", "x")])
        except InvalidInputError:
            return False

    def _find_default_system_prompt(self, plain: str) -> str:
        """Return what the template writes in the place of a system message, given the rendering of a user's alone."""
        if not self.accepts_system:
            return ""
        (mark,) = _new_marks([ChatMessage("system", "")])
        before, after = self._render([ChatMessage("system", mark), ChatMessage("user", "x")]).split(mark, 1)
        if not plain.startswith(before) or not plain.endswith(after) or len(plain) <= len(before) + len(after):
            return ""
        return plain[len(before) : len(plain) - len(after)].strip()


def fold_system_prompt(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return `messages` with the text of system messages at the start of the user's message after them."""
    folded: list[ChatMessage] = []
    prompts: list[str] = []
    for message in messages:
        if message.role == "system":
            if message.text.strip():
                prompts.append(message.text)
        elif message.role == "user" and prompts:
            folded.append(replace(message, text="\n\n".join([*prompts, message.text])))
            prompts = []
        else:
            folded.append(message)
    return folded


def _new_marks(messages: Sequence[ChatMessage]) -> list[str]:
    """Return one text per message that no template changes, that no message contains, and that are all distinct."""
    number = 0
    while any(f"MESSAGE{number}X" in message.text for message in messages):
        number += 1
    return [f"MESSAGE{number}X{index}X" for index, _ in enumerate(messages)]


def new_chat_template(hf_tokenizer: Any, tokenizer: "PretrainedTokenizer") -> ChatTemplate | None:
    """Return the chat template of a tokenizer of transformers; None if it has none, or one that cannot be rendered."""
    if not getattr(hf_tokenizer, "chat_template", None):
        return None

    def render(messages: list[dict[str, str]]) -> str:
        text: str = hf_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text

    try:
        return ChatTemplate(render, tokenizer)
    except InvalidInputError:
        return None
