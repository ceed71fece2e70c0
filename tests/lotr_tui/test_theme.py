"""Colours of the themes."""

import pytest
from textual.color import Color
from textual.content import Content
from textual.widgets import Static

from lotr_tui.session.conversation.speaker_labels import SPEAKER_STYLES
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


def luminance(color: Color) -> float:
    """Return the relative luminance of a colour, as WCAG 2 defines it."""
    channels = [
        channel / 12.92 if channel <= 0.03928 else ((channel + 0.055) / 1.055) ** 2.4 for channel in color.normalized
    ]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]


async def test_names_of_speakers_are_readable_on_the_background_of_every_theme(make_host: MakeApp) -> None:
    app = make_host()
    async with app.run_test() as pilot:
        for theme in app.available_themes:
            app.theme = theme
            await pilot.pause()
            variables = app.theme_variables
            assert all(style in variables for style in SPEAKER_STYLES), theme
            if variables["background"].startswith("ansi"):  # the terminal's colours
                continue
            background = luminance(Color.parse(variables["background"]))
            for style in SPEAKER_STYLES:
                weaker, stronger = sorted((background, luminance(Color.parse(variables[style]))))
                assert (stronger + 0.05) / (weaker + 0.05) >= 4.5, f"{style} in {theme}"
