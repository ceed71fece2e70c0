"""Conversations in the form that a model by others was trained on: its chat template."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast

from engine.data.tokenizers.bytes import check_unicode
from engine.errors import InvalidInputError, describe_error
from engine.runtime.sandbox import Sandbox

if TYPE_CHECKING:  # this module imports tokenizers, which a session with a model of words does not need
    from jinja2 import Template, nodes
    from jinja2.parser import Parser

    from engine.models.pretrained.tokenizer import PretrainedTokenizer

ChatRole = Literal["system", "user", "assistant"]

MAX_TEMPLATE_CHARACTERS = 100_000
"""Maximum length of a template by others, and of the text that it adds to the messages."""
SANDBOX = Sandbox("engine.models.pretrained.special_tokens", "jinja2.ext", "jinja2.sandbox", max_cpu_seconds=5)
"""Process in which the tokenizers of models by others are tried, and their chat templates run."""


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

    def __init__(self, template: "JinjaTemplate", tokenizer: "PretrainedTokenizer") -> None:
        """Use a template, which may be unable to write any conversation; it is not run before it is needed."""
        self.template = template
        self.problem = ""
        """Reason why no conversation can be written, as far as that is known."""
        self._tokenizer = tokenizer
        texts = sorted(tokenizer.special_texts.values(), key=len, reverse=True)
        self._special_pattern = re.compile("|".join(map(re.escape, texts)) or r"(?!)")
        self._special_ids = {text: id for id, text in tokenizer.special_texts.items()}

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
            return self.template([{"role": message.role, "content": message.text} for message in messages])
        except Exception as error:  # a template is a program, which can raise anything
            reason = describe_error(error)
            raise InvalidInputError(f"the model's chat template cannot write this conversation: {reason}") from error

    @cached_property
    def _strips_messages(self) -> bool:
        return " x " not in self._render([ChatMessage("user", " x ")])

    @cached_property
    def accepts_system(self) -> bool:
        """False if the template has no system messages; the system prompt then starts the first user message."""
        (mark,) = _new_marks([ChatMessage("system", "")])
        try:
            return mark in self._render([ChatMessage("system", mark), ChatMessage("user", "x")])
        except InvalidInputError:
            return False

    @cached_property
    def default_system_prompt(self) -> str:
        """System prompt that the template inserts if the messages have none; "" if it inserts none."""
        if not self.accepts_system:
            return ""
        plain = self._render([ChatMessage("user", "x")])
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


@dataclass(frozen=True)
class JinjaTemplate:
    """A chat template in Jinja2. It is compiled when it is first called, which may fail."""

    source: str
    variables: dict[str, str | None]
    """Texts of the special tokens by the names that templates use, such as "bos_token"."""
    is_trusted: bool = False
    """True for a template that may run in this process; others run in one with limits on time and memory."""

    @cached_property
    def _compiled(self) -> "Template":
        from jinja2.ext import Extension, loopcontrols  # with its imports, Jinja2 takes 60 ms
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        class GenerationTag(Extension):
            """Tag around the text of a reply, which marks it for training."""

            tags = {"generation"}  # noqa: RUF012 - as Jinja2 declares it

            def parse(self, parser: "Parser") -> "list[nodes.Node]":
                next(parser.stream)
                return parser.parse_statements(("name:endgeneration",), drop_needle=True)

        extensions = [loopcontrols, GenerationTag]
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        return environment.from_string(self.source)

    def __call__(self, messages: list[dict[str, str]]) -> str:
        """Return the text of a conversation, given messages with the keys "role" and "content".

        Raises:
            SandboxLimitError: If a template that is not trusted takes too much time or memory.
            Exception: If the template fails, in any way.
        """
        if not self.is_trusted:
            return cast(str, SANDBOX.call(render_template, self.source, self.variables, messages))
        options = {"tools": None, "documents": None, "add_generation_prompt": True}
        return self._compiled.render(messages=messages, **options, **self.variables)


def render_template(source: str, variables: dict[str, str | None], messages: list[dict[str, str]]) -> str:
    """Return the text of a conversation in a template, which runs in this process.

    Raises:
        InvalidInputError: If the template is too long, or writes too much beside the messages.
        Exception: If the template fails, in any way.
    """
    text = JinjaTemplate(source, variables, is_trusted=True)(messages)
    if max(len(source), len(text) - sum(len(message["content"]) for message in messages)) > MAX_TEMPLATE_CHARACTERS:
        raise InvalidInputError(f"it has, or writes, more than {MAX_TEMPLATE_CHARACTERS:,} characters")
    return text


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise_exception(message: str) -> NoReturn:
    raise InvalidInputError(message)
