"""Keys in the footer of the session, for each of its states; all other keys are in the help and the palette."""

from collections.abc import Mapping
from typing import Literal

from lotr_tui.widgets.key_footer import FooterKey

SessionState = Literal["start", "idle", "writing", "words", "search", "controls"]
"""start: nothing is written yet; idle: after a reply; writing: a reply is being written; words: the cursor is on a
word; search and controls: the search bar or a sampling control has the focus."""

_TABLES: Mapping[SessionState, str] = {
    "start": """
        prompt.send
        session.pane
        session.cast              | {cast}
        session.runs
        session.train
        session.sessions
        session.reply-mode        | {mode}
        session.lower-temperature | temp          | f7/8
        session.lens
        session.ladder
        session.compare
        session.controls
    """,
    "idle": """
        session.inspect-words     | words
        session.pane
        session.regenerate        | again
        session.continue          | {more}
        session.cast              | {cast}
        session.lower-temperature | temp          | f7/8
        session.reply-mode        | {mode}
        session.sessions
        session.train
        session.runs
        session.edit
        session.ladder
        session.lens
        session.memorization
        session.find
        session.compare
        session.activations
    """,
    "writing": """
        session.stop              | stop
        session.pace              | pace
        session.pane
        session.lower-temperature | temp          | f7/8
        session.inspect-words     | words
    """,
    "words": """
        transcript.left           | {noun}
        session.stop              | back
        conversation.branch-1     | pick          | 1-8
        conversation.next-alternative | mark
        conversation.branch       | pick marked
        transcript.up             | reply
        conversation.previous-branch | other branch
        session.regenerate        | again
        session.continue          | {more}
        conversation.compare
        conversation.name
        conversation.parent-branch
    """,
    "search": """
        session.stop              | close
    """,
    "controls": """
        temperature.down          | change        | ←→
        preset.previous           | preset        | ←→
        session.stop              | prompt
        session.controls          | all controls
        session.preset            | next preset
        session.hold-seed
    """,
}


def _parse_keys(table: str) -> tuple[FooterKey, ...]:
    """Return the keys of a table with one key per line: binding id, description and displayed key."""
    return tuple(FooterKey(*(field.strip() for field in line.split("|"))) for line in table.strip().splitlines())


FOOTER_KEYS: Mapping[SessionState, tuple[FooterKey, ...]] = {
    state: _parse_keys(table) for state, table in _TABLES.items()
}
"""Keys of each state, the most important first; the footer shows as many as fit. `{noun}` is the noun for a token,
`{more}` what keeps going, `{cast}` what decides who answers, and `{mode}` the other reply mode."""

HELP_LINES: Mapping[SessionState, str] = {
    "words": "← → choose a {noun}; 1-8 replace it and go on; esc back",
    "search": "↑ and enter: the earlier match; ↓: the later; esc closes",
}
"""Help for the states that have one, if the focused widget has none; `{noun}` is the noun for a token."""
