"""The keys of a conversation: what can be done with a reply, while the cursor is on its words."""

from textual.binding import Binding, BindingType

CONVERSATION_KEYS: list[BindingType] = [
    Binding("enter", "take_marked", "branch", id="conversation.take", tooltip="Branch to the marked alternative"),
    *(
        Binding(str(n), f"take({n})", show=False, id=f"conversation.take_{n}", tooltip=f"Branch to alternative {n}")
        for n in range(1, 9)
    ),
    Binding("j", "mark(1)", "mark", key_display="j/k", id="conversation.mark", tooltip="The next alternative"),
    Binding("k", "mark(-1)", show=False, id="conversation.mark_back", tooltip="The alternative before"),
    Binding(
        "left_square_bracket",
        "version(-1)",
        "other",
        key_display="[ ]",
        id="conversation.before",
        tooltip="The branch before",
    ),
    Binding("right_square_bracket", "version(1)", show=False, id="conversation.after", tooltip="The next branch"),
    Binding("u", "parent", "parent", id="conversation.parent", tooltip="The branch that this one left"),
    Binding("c", "compare", "compare", id="conversation.compare", tooltip="All branches, from where they differ"),
    Binding("n", "name", "name", id="conversation.name", tooltip="Give the branch a name"),
    Binding("y", "copy", "copy", show=False, id="conversation.copy", tooltip="Send the reply to the clipboard"),
]
