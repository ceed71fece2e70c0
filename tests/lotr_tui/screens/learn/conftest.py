"""Fixtures of the class."""

import tempfile

import pytest

from lotr_tui.screens.learn import screen
from tests.support.learn import SliderFigure


@pytest.fixture
def slider_figure(monkeypatch):
    monkeypatch.setattr(screen, "import_figure", lambda chapter: SliderFigure)
    return SliderFigure


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path
