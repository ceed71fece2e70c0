"""Rows for the keys of the chapters with a live training."""

from lotr_tui.screens.learn.figures.overfitting import OverfittingFigure
from tests.support.bindings.expectations import becomes
from tests.support.bindings.observations import of
from tests.support.bindings.rows import Row, Stage
from tests.support.learn_scenes.training import live_training

LEARN_TRAINING: dict[str, Stage] = {
    "live training": Stage(
        live_training, [Row("learn-live.train", of(OverfittingFigure, "is_training"), becomes(True))]
    ),
}
