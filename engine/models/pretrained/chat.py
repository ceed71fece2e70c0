"""Conversations in the form that a model by others was trained on: its chat template, a program in Jinja2."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NoReturn, cast

from engine.data import speakers
from engine.data.tokenizers import check_unicode
from engine.errors import InvalidInputError, describe_error
from engine.runtime.sandbox import Sandbox

if TYPE_CHECKING:  # this module imports tokenizers, which a session with a model of words does not need
    from jinja2 import Template

    from engine.models.pretrained.tokenizer import PretrainedTokenizer

MAX_TEMPLATE_CHARACTERS = 100_000  # of a template by others, and of the text that it adds to the messages
# Tries the tokenizers of models by others, and runs their chat templates.
SANDBOX = Sandbox("engine.models.pretrained.base", "jinja2.ext", "jinja2.sandbox", max_cpu_seconds=5)
_MARK = "MESSAGE0X"
_CAST_START, _CAST_END = "{%- set cast = ", " -%}"


@dataclass(frozen=True)
class ChatMessage:
    role: Literal["system", "user", "assistant"]
    text: str


class ChatTemplate:
    """The form in which a model was trained on conversations, with a space in special tokens that messages contain."""

    def __init__(self, template: "JinjaTemplate", tokenizer: "PretrainedTokenizer") -> None:
        self.template, self._tokenizer = template, tokenizer

    @cached_property
    def problem(self) -> str:
        """Reason why no conversation can be written, as far as that is known; "" for a trusted template."""
        try:
            if not self.template.is_trusted:
                self.encode([ChatMessage("user", "x")])
        except InvalidInputError as error:
            return str(error)
        return ""

    def encode(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """Return the token ids of `messages`, from the start of the text to the start of the assistant's next reply."""
        for message in messages:
            check_unicode(message.text)
        if not self.accepts_system:
            prompts = [message.text for message in messages if message.role == "system" and message.text.strip()]
            messages = [message for message in messages if message.role != "system"]
            users = [index for index, message in enumerate(messages) if message.role == "user"]
            for first in users[:1]:
                messages[first] = replace(messages[first], text="\n\n".join([*prompts, messages[first].text]))
        cuts = self._tokenizer.special_cuts
        plain = [replace(message, text=cuts.sub(" ", message.text)) for message in messages]
        return tuple(self._tokenizer.encode_with_special_tokens(self._render(*plain)).tolist())

    def _render(self, *messages: ChatMessage) -> str:
        try:
            return self.template([{"role": message.role, "content": message.text} for message in messages])
        except Exception as error:  # a template is a program, which can raise anything
            reason = describe_error(error)
            raise InvalidInputError(f"the model's chat template cannot write this conversation: {reason}") from error

    @cached_property
    def accepts_system(self) -> bool:
        # Without system messages in the template, the system prompt starts the first user message.
        try:
            return _MARK in self._render(ChatMessage("system", _MARK), ChatMessage("user", "x"))
        except InvalidInputError:
            return False

    @cached_property
    def default_system_prompt(self) -> str:
        """System prompt that the template inserts if the messages have none; "" if it inserts none."""
        if not self.accepts_system:
            return ""
        before, after = self._render(ChatMessage("system", _MARK), ChatMessage("user", "x")).split(_MARK, 1)
        plain = self._render(ChatMessage("user", "x"))
        inserted = plain[len(before) : len(plain) - len(after)]
        return inserted.strip() if plain == before + inserted + after else ""


@dataclass(frozen=True)
class JinjaTemplate:
    """A chat template in Jinja2. It is compiled when it is first called, which may fail."""

    source: str
    variables: dict[str, str | None]  # texts of special tokens by the names that templates use, such as "bos_token"
    is_trusted: bool = False  # it may run in this process; others run in one with limits on time and memory

    @cached_property
    def _compiled(self) -> "Template":
        from jinja2.ext import loopcontrols  # with its imports, Jinja2 takes 60 ms
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def raise_exception(message: str) -> NoReturn:
            raise InvalidInputError(message)

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = lambda value, **form: json.dumps(value, **{"ensure_ascii": False, **form})
        environment.globals["raise_exception"] = raise_exception
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        # A tag around the text of replies, which marks it for training, has no effect here.
        source = re.sub(r"({%-?) *generation\b", r"\1 if true", self.source)
        return environment.from_string(re.sub(r"({%-?) *endgeneration\b", r"\1 endif", source))

    def __call__(self, messages: list[dict[str, str]]) -> str:
        if not self.is_trusted:
            return cast(str, SANDBOX.call(render_template, self.source, self.variables, messages))
        options = {"tools": None, "documents": None, "add_generation_prompt": True}
        text = self._compiled.render(messages=messages, **options, **self.variables)
        num_added = len(text) - sum(len(message["content"]) for message in messages)
        if max(len(self.source), num_added) > MAX_TEMPLATE_CHARACTERS:
            raise InvalidInputError(f"it has, or writes, more than {MAX_TEMPLATE_CHARACTERS:,} characters")
        return text


def render_template(source: str, variables: dict[str, str | None], messages: list[dict[str, str]]) -> str:
    return JinjaTemplate(source, variables, is_trusted=True)(messages)  # call this in a sandbox


def script_chat_template(cast: Sequence[str]) -> str:
    """Return a chat template for an exported model of scripts, which writes one message a line and lists the cast.

    A system message that is a name says who answers, and the field `name` of a message who says it.
    """
    user, first = speakers.display_name(speakers.STRANGER), speakers.first_to_answer(cast)
    answering = json.dumps(speakers.display_name(first), ensure_ascii=False)
    return (
        f"{_CAST_START}{speakers.cast_to_json(cast)}{_CAST_END}"
        f"{{%- set script = namespace(answering={answering}) -%}}"
        "{{- bos_token -}}"
        "{%- for message in messages -%}"
        "{%- set text = message['content'] | replace('\\n', ' ') | trim -%}"
        "{%- if message['role'] != 'system' -%}"
        f"{{{{- message['name'] or (script.answering if message['role'] == 'assistant' else '{user}') -}}}}"
        "{{- ': ' + text + '\\n' -}}"
        f"{{%- elif text and text | length <= {speakers.MAX_NAME_CHARACTERS} -%}}"
        "{%- set script.answering = text -%}"
        "{%- endif -%}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- script.answering + ':' -}}{%- endif -%}"
    )


def find_script_cast(chat: ChatTemplate | None, name: str) -> tuple[str, ...]:
    """Return the cast that `script_chat_template` wrote for the model `name`; () for others, a RunError if damaged."""
    source = "" if chat is None else chat.template.source
    if not source.startswith(_CAST_START):
        return ()
    cast = source.removeprefix(_CAST_START).partition(_CAST_END)[0]
    return speakers.cast_from_json(cast, f"{name}: the chat template")
