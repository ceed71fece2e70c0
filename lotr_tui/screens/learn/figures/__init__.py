"""Figures of the chapters. A module is imported when a chapter of it is opened."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from lotr_tui.learn.material import Material
    from lotr_tui.screens.learn.figure import ChapterFigure

FIGURES = {
    "tokens": "tokens:TokensFigure",
    "counting": "counting:CountingFigure",
    "perplexity": "perplexity:PerplexityFigure",
    "memory": "memory:MemoryFigure",
    "training": "training:TrainingFigure",
    "overfitting": "training:OverfittingFigure",
    "sampling": "sampling:SamplingFigure",
    "attention": "attention:AttentionFigure",
}


def import_figure(chapter: str) -> "Callable[[Material], ChapterFigure[Any]]":
    """Import the module of a figure, and return the function that creates the figure."""
    module, _, name = FIGURES[chapter].partition(":")
    return cast("Callable[[Material], ChapterFigure[Any]]", getattr(import_module(f"{__name__}.{module}"), name))
