"""Key bindings of the conversation while the cursor is on its words."""

from dataclasses import replace

from textual.binding import Binding, BindingType

from lotr_tui.widgets.bindings import binding_table

_TABLE = """
branch               | enter                | branch_highlighted | branch  | Branch to the highlighted alternative
branch-1             | 1                    | branch(1)          |         | Branch to alternative 1
branch-2             | 2                    | branch(2)          |         | Branch to alternative 2
branch-3             | 3                    | branch(3)          |         | Branch to alternative 3
branch-4             | 4                    | branch(4)          |         | Branch to alternative 4
branch-5             | 5                    | branch(5)          |         | Branch to alternative 5
branch-6             | 6                    | branch(6)          |         | Branch to alternative 6
branch-7             | 7                    | branch(7)          |         | Branch to alternative 7
branch-8             | 8                    | branch(8)          |         | Branch to alternative 8
next-alternative     | j                    | step_highlight(1)  | mark    | Highlight the next alternative | j/k
previous-alternative | k                    | step_highlight(-1) |         | Highlight the previous alternative
previous-branch      | left_square_bracket  | step_branch(-1)    | other   | The previous branch | [ ]
next-branch          | right_square_bracket | step_branch(1)     |         | The next branch
parent-branch        | u                    | parent_branch      | parent  | The branch that this one starts from
compare              | c                    | toggle_comparison  | compare | All branches, from where they differ
name                 | n                    | rename_branch      | name    | Name the branch
copy                 | y                    | copy_reply         | copy    | Copy the prompt and its reply
"""
_HIDDEN_KEYS = {*"12345678", "k", "right_square_bracket", "y"}
"""Keys that only the palette and the help show."""
CONVERSATION_BINDINGS: list[BindingType] = [
    replace(binding, show=binding.key not in _HIDDEN_KEYS)
    for binding in binding_table("conversation", _TABLE)
    if isinstance(binding, Binding)
]
