"""Fixtures of the class."""

import pytest

from lotr_tui.screens.learn import screen
from tests.support.learn import SliderFigure


@pytest.fixture
def slider_figure(monkeypatch):
    monkeypatch.setattr(screen, "import_figure", lambda chapter: SliderFigure)
