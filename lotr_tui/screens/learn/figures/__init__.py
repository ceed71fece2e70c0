"""Figures of the chapters, one module or package for each. A module is imported when its chapter is opened."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from lotr_tui.learn.material import Material
    from lotr_tui.screens.learn.figure import ChapterFigure

FIGURES = {
    "tokens": "tokens:TokensFigure",
    "perplexity": "perplexity.figure:PerplexityFigure",
    "memory": "memory.figure:MemoryFigure",
    "counting": "counting.figure:CountingFigure",
    "training": "training:TrainingFigure",
    "overfitting": "overfitting:OverfittingFigure",
    "sampling": "sampling.figure:SamplingFigure",
    "attention": "attention.figure:AttentionFigure",
}
"""Module and class of the figure of each chapter."""


def import_figure(chapter: str) -> "Callable[[Material], ChapterFigure[Any]]":
    """Import the module of a figure, and return the function that creates the figure."""
    module, _, name = FIGURES[chapter].partition(":")
    return cast("Callable[[Material], ChapterFigure[Any]]", getattr(import_module(f"{__name__}.{module}"), name))
