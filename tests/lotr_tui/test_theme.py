"""Colours of the themes."""

import pytest
from textual.content import Content
from textual.widgets import Static

from lotr_tui.theme import MUTED
from tests.support.pilot import MakeApp


@pytest.mark.parametrize("theme", ["shire", "shire-light", "textual-dark", "nord", "solarized-light", "ansi-dark"])
async def test_secondary_text_is_weaker_than_text(make_host: MakeApp, theme: str) -> None:
    app = make_host()
    async with app.run_test() as pilot:
        app.theme = theme
        await app.screen.mount(text := Static(Content.assemble("text ", ("secondary", MUTED))))
        await pilot.pause()
        plain, muted = [segment.style for segment in text.render_line(0) if segment.text.strip()]
        assert plain is not None
        assert muted is not None
        assert plain.color != muted.color or muted.dim
