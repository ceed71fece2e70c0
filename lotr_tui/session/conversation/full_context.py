"""Note about a conversation whose beginning has left the context of the model."""

from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.model_abilities import has_slid


def describe_full_context(reply: Reply) -> str:
    """Return a line that says that the model forgets the beginning of the text; empty while it does not."""
    state, size = reply.decoder_states[-1] if reply.decoder_states else None, reply.session_model.context_size
    if state is None or size is None or not has_slid(reply.session_model.model, state):
        return ""
    return f"The context of {size:,} tokens is full; the model now forgets the oldest half."
