"""Rows for the keys of the chapter on attention."""

from dataclasses import replace

from textual.pilot import Pilot

from lotr_tui.screens.learn.figures.attention.figure import AttentionFigure
from lotr_tui.screens.learn.figures.attention.head_rows import HeadRows
from lotr_tui.screens.learn.figures.attention.model_list import ModelList
from lotr_tui.screens.learn.figures.attention.models_view import ModelsView
from tests.support.bindings.expectations import becomes, decreases, increases, moves
from tests.support.bindings.observations import of
from tests.support.bindings.rows import LIST, Row, Stage, cursor_rows
from tests.support.learn_attention import open_attention_chapter


async def heads(pilot: Pilot[None]) -> None:
    await open_attention_chapter(pilot)
    pilot.app.screen.query_one(HeadRows).focus()


async def models(pilot: Pilot[None]) -> None:
    await heads(pilot)
    await pilot.press("f8")


async def large_model(pilot: Pilot[None]) -> None:
    """Show the models, and after them one that the student has to ask for."""
    await models(pilot)
    data = pilot.app.screen.query_one(AttentionFigure).data
    assert data is not None
    data.comparison.models += (replace(data.comparison.models[0], name="large", is_on_request=True),)
    pilot.app.screen.query_one(ModelsView).continue_line("the ring")


def _requested_models(app: object) -> frozenset[int]:
    figure: AttentionFigure = app.screen.query_one(AttentionFigure)  # type: ignore[attr-defined]
    assert figure.data is not None
    return figure.data.comparison.requested


def _shows_models(app: object) -> bool:
    figure: AttentionFigure = app.screen.query_one(AttentionFigure)  # type: ignore[attr-defined]
    return figure.has_class("-models")


LEARN_ATTENTION: dict[str, Stage] = {
    "heads": Stage(
        heads,
        [
            Row("learn-attention.first", of(HeadRows, "position"), becomes(1)),
            Row("learn-attention.right", of(HeadRows, "position"), moves(1)),
            Row("learn-attention.left", of(HeadRows, "position"), moves(-1)),
            Row("learn-attention.last", of(HeadRows, "position"), increases),
            Row("learn-attention.down", of(HeadRows, "head"), moves(1)),
            Row("learn-attention.up", of(HeadRows, "head"), moves(-1)),
            Row("learn-attention.layer-down", of(HeadRows, "head"), increases),
            Row("learn-attention.layer-up", of(HeadRows, "head"), decreases),
            Row("learn-attention.view", _shows_models, becomes(True)),
        ],
    ),
    "compared models": Stage(
        models,
        [*cursor_rows("learn-models", of(ModelList, "cursor"), LIST)],
    ),
    "large model": Stage(
        large_model, [Row("learn-models.load", _requested_models, becomes(frozenset({5})), first_keys=("end",))]
    ),
}
