"""Loading of the figures of all chapters."""

from collections.abc import Generator
from typing import Any

import pytest

from engine.runtime.worker import Cancellation
from lotr_tui.learn import compared_models
from lotr_tui.screens.learn.figures import FIGURES, import_figure
from tests.support.learn import open_chapter
from tests.support.pilot import MakeApp


@pytest.mark.parametrize("chapter", FIGURES)
async def test_chapter_loads_its_data_once(make_host: MakeApp, monkeypatch: pytest.MonkeyPatch, chapter: str) -> None:
    monkeypatch.setattr(compared_models, "find_installed_model", lambda: None)
    figure: Any = import_figure(chapter)
    load = figure.load
    loadings: list[Cancellation] = []

    def counted(self: object, cancelled: Cancellation) -> Generator[str, None, object]:
        loadings.append(cancelled)
        return (yield from load(self, cancelled))

    monkeypatch.setattr(figure, "load", counted)
    async with make_host().run_test(size=(80, 24)) as pilot:
        await open_chapter(pilot, chapter)
        assert len(loadings) == 1
