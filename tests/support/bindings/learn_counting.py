"""Rows for the keys of the chapters on counts and on sampling."""

from textual.pilot import Pilot

from lotr_tui.screens.learn.figures.counting.figure import CountingFigure
from lotr_tui.screens.learn.figures.sampling.figure import SamplingFigure
from tests.support.bindings.expectations import moves
from tests.support.bindings.observations import of
from tests.support.bindings.rows import Row, Stage
from tests.support.learn import open_chapter


async def counting(pilot: Pilot[None]) -> None:
    await open_chapter(pilot, "counting")


async def sampling(pilot: Pilot[None]) -> None:
    await open_chapter(pilot, "sampling")


LEARN_COUNTING: dict[str, Stage] = {
    "chapter on counts": Stage(
        counting,
        [
            Row("learn-counting.lower", of(CountingFigure, "order"), moves(-1)),
            Row("learn-counting.higher", of(CountingFigure, "order"), moves(1)),
            Row("learn-counting.seed", of(CountingFigure, "seed"), moves(5)),
        ],
    ),
    "chapter on sampling": Stage(sampling, [Row("learn-sampling.seed", of(SamplingFigure, "seed"), moves(1))]),
}
