"""Keys of the attention screen."""

from typing import Any

from textual.pilot import Pilot

from lotr_tui.screens.attention.attended_list import AttendedList
from lotr_tui.screens.attention.head_along_text import HeadAlongText
from lotr_tui.screens.attention.layer_predictions import LayerPredictions
from lotr_tui.screens.attention.strips import AttentionStrips
from lotr_tui.screens.text.view import TokenTextView
from tests.support.app import VOCABULARY
from tests.support.attention import attention_session_model, open_attention
from tests.support.bindings.expectations import becomes, changes, decreases, increases, moves
from tests.support.bindings.observations import focused, of, of_screen, screen_name
from tests.support.bindings.rows import LIST, LONG_TEXT, Row, Stage, cursor_rows, with_focus


async def attention(pilot: Pilot[None]) -> None:
    await open_attention(pilot, attention_session_model(VOCABULARY, num_layers=24), LONG_TEXT)


def _num_named(app: Any) -> int:
    """Return the number of columns with names."""
    return len(app.screen.query_one(AttentionStrips).columns().names)


ATTENTION: dict[str, Stage] = {
    "attention": Stage(
        attention,
        [
            Row("attention.previous", of(TokenTextView, "cursor"), moves(-1)),
            Row("attention.next", of(TokenTextView, "cursor"), moves(1)),
            Row("attention-strips.first", of(AttentionStrips, "position"), becomes(0)),
            Row("attention-strips.right", of(AttentionStrips, "position"), moves(1)),
            Row("attention-strips.left", of(AttentionStrips, "position"), moves(-1)),
            Row("attention-strips.page-down", of(AttentionStrips, "position"), increases),
            Row("attention-strips.page-up", of(AttentionStrips, "position"), decreases),
            Row("attention-strips.last", of(AttentionStrips, "position"), increases),
            Row("attention-strips.up", of(AttentionStrips, "row"), moves(-1)),
            Row("attention-strips.down", of(AttentionStrips, "row"), moves(1)),
            Row("attention-strips.largest", of(AttentionStrips, "position"), changes),
            Row("attention-strips.zoom", _num_named, increases),
            Row("attention.layer", of_screen("layer_index"), becomes(0)),
            Row("attention.previous-layer", of_screen("layer_index"), becomes(23)),
            Row("attention.pin", lambda app: app.screen.pinned_head is None, becomes(False)),  # type: ignore[attr-defined]
            Row("attention.start", of_screen("is_without_start"), becomes(True)),
            Row("attention.other", focused, becomes("AttendedList")),
            Row("attention.edit", focused, becomes("LineInput")),
            Row("attention.close", screen_name, becomes("SessionScreen")),
        ],
    ),
    "strongest attention": Stage(
        with_focus(attention, AttendedList, "f5"),
        [*cursor_rows("attended-list", of(AttendedList, "cursor_line"), {"first": becomes(0), **LIST})],
    ),
    "head along the text": Stage(
        with_focus(attention, HeadAlongText, "f5", "f5"),
        [*cursor_rows("head-along-text", of(HeadAlongText, "cursor"), {"first": decreases, **LIST})],
    ),
    "logit lens": Stage(
        with_focus(attention, LayerPredictions, "f5", "f5", "f5"),
        [*cursor_rows("layer-predictions", of(LayerPredictions, "cursor"), {"first": becomes(0), **LIST})],
    ),
}
