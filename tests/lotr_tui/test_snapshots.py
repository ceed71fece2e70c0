"""How the screens look, dark, light and without colour.

`pytest --snapshot-update` after a change that was looked at.
"""

from collections.abc import Callable

import pytest

from lotr_tui.app import LotrApp
from tests.support import scenes
from tests.support.scenes import Scene

Look = tuple[str, tuple[int, int]]
COLOURLESS = "colourless"

SMALL: list[Look] = [("shire", (80, 24)), (COLOURLESS, (60, 20))]
"""For a question over another screen."""
NARROW: list[Look] = [("shire", (60, 20)), ("shire-light", (80, 24))]
"""For what is elsewhere on a wide terminal."""
ALL: list[Look] = [("shire", (160, 45)), ("shire-light", (80, 24)), (COLOURLESS, (60, 20))]
"""Each size and each palette once: what a screen is made of takes its colours from the theme alone."""

TABLE: list[tuple[Scene, list[Look]]] = [
    (scenes.session, [*ALL, *SMALL[:1], *NARROW[:1], ("ansi-light", (100, 30))]),
    (scenes.next_word, NARROW),
    (scenes.training, NARROW),
    (scenes.walk, ALL),
    (scenes.branches, ALL),
    (scenes.search, SMALL),
    (scenes.controls, ALL),
    (scenes.reply_mode, SMALL),
    (scenes.ladder, ALL),
    (scenes.two_models, ALL),
    (scenes.lens_of_text, ALL),
    (scenes.lens_sentences, NARROW),
    (scenes.memorised_text, ALL),
    (scenes.inside, ALL),
    (scenes.inside_found, ALL),
    (scenes.sessions, ALL),
    (scenes.help_keys, ALL),
    (scenes.palette, SMALL),
    (scenes.ask_name, SMALL),
    (scenes.ask_path, SMALL),
    (scenes.confirm, SMALL),
    (scenes.new_training, SMALL),
    (scenes.choose_column, SMALL),
]


@pytest.mark.parametrize(
    ("scene", "theme", "size"),
    [
        pytest.param(scene, theme, size, id=f"{scene.__name__}-{theme}-{size[0]}x{size[1]}")
        for scene, looks in TABLE
        for theme, size in looks
    ],
)
def test_looks(
    snap_compare: Callable[..., bool],
    make_app: Callable[..., LotrApp],
    monkeypatch: pytest.MonkeyPatch,
    scene: Scene,
    theme: str,
    size: tuple[int, int],
) -> None:
    scenes.make_fixed(monkeypatch)
    if theme == COLOURLESS:
        monkeypatch.setenv("NO_COLOR", "1")
        theme = "ansi-dark"
    assert snap_compare(make_app(theme=theme), terminal_size=size, run_before=scene)
