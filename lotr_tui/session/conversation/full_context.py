"""Note about a conversation whose beginning has left the context of the model."""

from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.model_abilities import ContextModel, split_dialogue


def describe_full_context(reply: Reply) -> str:
    """Return a line that says that the model forgets the beginning of the text; empty while it does not."""
    state = reply.decoder_states[-1] if reply.decoder_states else None
    if state is None:
        return ""
    model, model_state = split_dialogue(reply.session_model.model, state.model_state)
    if not isinstance(model, ContextModel) or not model.has_slid(model_state):
        return ""
    return f"The context of {model.context_size:,} tokens is full; the model now forgets the oldest half."
