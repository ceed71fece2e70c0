"""Conversations in the form that a model by others was trained on: its chat template."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ChatRole = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class ChatMessage:
    """One message of a conversation."""

    role: ChatRole
    text: str


class ChatTemplate:
    """The form of a conversation: how messages become the token ids that the model was trained on."""

    default_system_prompt: str = ""
    """System prompt that the template inserts if the messages have none; "" if it inserts none."""

    def encode(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """Return the token ids of `messages`, from the start of the text to the start of the assistant's next reply.

        Raises:
            InvalidInputError: If the template cannot be applied to these messages.
        """
        raise NotImplementedError
