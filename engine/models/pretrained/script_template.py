"""Chat template of exported models of scripts. It lists their cast, so that they are played as in lotr-tui."""

import json
from collections.abc import Sequence

from engine.data.speakers import (
    MAX_NAME_CHARACTERS,
    STRANGER,
    cast_from_json,
    cast_to_json,
    display_name,
    first_to_answer,
)
from engine.models.pretrained.chat import ChatTemplate

_CAST_START, _CAST_END = "{%- set cast = ", " -%}"


def script_chat_template(cast: Sequence[str]) -> str:
    """Return a chat template in Jinja2 that writes a conversation as a script, one message a line.

    A stranger says the messages of a user, and `first_to_answer` the others. A system message that is a name says who
    answers instead, and the field `name` of a message who says it.
    """
    user, answering = display_name(STRANGER), json.dumps(display_name(first_to_answer(cast)), ensure_ascii=False)
    return (
        f"{_CAST_START}{cast_to_json(cast)}{_CAST_END}"
        f"{{%- set script = namespace(answering={answering}) -%}}"
        "{{- bos_token -}}"
        "{%- for message in messages -%}"
        "{%- set text = message['content'] | replace('\\n', ' ') | trim -%}"
        "{%- if message['role'] != 'system' -%}"
        f"{{{{- message['name'] or (script.answering if message['role'] == 'assistant' else '{user}') -}}}}"
        "{{- ': ' + text + '\\n' -}}"
        f"{{%- elif text and text | length <= {MAX_NAME_CHARACTERS} -%}}"
        "{%- set script.answering = text -%}"
        "{%- endif -%}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- script.answering + ':' -}}{%- endif -%}"
    )


def find_script_cast(chat: ChatTemplate | None, name: str) -> tuple[str, ...]:
    """Return the cast that `script_chat_template` has written into the template of the model `name`; () for others.

    Raises:
        RunError: If it is damaged.
    """
    source = "" if chat is None else chat.template.source
    if not source.startswith(_CAST_START):
        return ()
    return cast_from_json(source.removeprefix(_CAST_START).partition(_CAST_END)[0], f"{name}: the chat template")
