"""Conversations by the chat template of a model by others: the messages, and their token ids."""

from engine.models.base import LanguageModel
from engine.models.pretrained.chat import ChatMessage
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.model_abilities import find_chat_template


def chat_messages(prompt: str, previous_reply: Reply | None, system_prompt: str = "") -> list[ChatMessage]:
    """Return the messages before an answer: the system prompt, the turns up to `previous_reply`, and the prompt.

    Args:
        prompt: The user's line; empty if the user says nothing.
        previous_reply: Reply of the turn before, by any model; None at the start of a conversation.
        system_prompt: Text that tells the model who it is; empty for the one of the template.
    """
    turns = []
    reply = previous_reply
    while reply is not None:
        turns.append(reply)
        reply = reply.turn.previous_reply
    messages: list[ChatMessage] = [ChatMessage("system", system_prompt)] if system_prompt else []
    for turn in reversed(turns):
        is_continuation = turn.reply_mode == "continue"
        _add_message(messages, ChatMessage("user", "" if is_continuation else turn.prompt))
        _add_message(messages, ChatMessage("assistant", (turn.prompt if is_continuation else "") + turn.reply_text()))
    _add_message(messages, ChatMessage("user", prompt))
    return messages


def _add_message(messages: list[ChatMessage], message: ChatMessage) -> None:
    """Append a message unless it is empty. Two of one role become one, because templates want them to alternate."""
    text = message.text.strip()
    if not text:
        return
    if messages and messages[-1].role == message.role:
        messages[-1] = ChatMessage(message.role, f"{messages[-1].text}\n{text}")
    else:
        messages.append(ChatMessage(message.role, text))


def chat_ids(model: LanguageModel, prompt: str, previous_reply: Reply | None, system_prompt: str = "") -> list[int]:
    """Return the token ids that a model with a chat template reads before an answer; see `chat_messages`.

    Raises:
        InvalidInputError: If the template does not accept the messages.
    """
    template = find_chat_template(model)
    assert template is not None, "the model has a chat template"
    return list(template.encode(chat_messages(prompt, previous_reply, system_prompt)))
