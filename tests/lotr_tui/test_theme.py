"""Colours of the themes."""

from textual.color import Color
from textual.content import Content
from textual.widgets import Static

from lotr_tui.session.cast import SPEAKER_STYLES
from lotr_tui.theme import MUTED


def luminance(color):
    """Return the relative luminance of a colour, as WCAG 2 defines it."""
    red, green, blue = (
        each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in color.normalized
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


async def test_secondary_text_is_weaker_and_names_of_speakers_are_readable_in_every_theme(make_host):
    app = make_host()
    async with app.run_test() as pilot:
        await app.screen.mount(text := Static(Content.assemble("text ", ("secondary", MUTED))))
        for theme in app.available_themes:
            app.theme = theme
            await pilot.pause()
            plain, muted = [segment.style for segment in text.render_line(0) if segment.text.strip()]
            assert plain.color != muted.color or muted.dim, theme
            variables = app.theme_variables
            if variables["background"].startswith("ansi"):  # the terminal's colours
                continue
            background = luminance(Color.parse(variables["background"]))
            for style in SPEAKER_STYLES:
                weaker, stronger = sorted((background, luminance(Color.parse(variables[style]))))
                assert (stronger + 0.05) / (weaker + 0.05) >= 4.5, f"{style} in {theme}"
