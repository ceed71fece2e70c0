"""Fixtures of the class."""

import pytest

from lotr_tui.screens.learn import figures
from tests.support.learn_figure import SliderFigure


@pytest.fixture
def slider_figure(monkeypatch: pytest.MonkeyPatch) -> type[SliderFigure]:
    """Use `SliderFigure` in all chapters."""
    monkeypatch.setattr(figures, "import_figure", lambda chapter: SliderFigure)
    return SliderFigure
