"""Keys of the chapters of the class."""

from functools import cache
from unittest.mock import patch

from lotr_tui.learn import compared_models
from lotr_tui.learn.material import Material
from tests.support.bindings import Row, Stage, focused, keys, moves, of, of_screen, opens
from tests.support.learn import open_chapter
from tests.support.learn_scenes import ended_training, live_training

material = cache(Material)  # not of the other tests, since it compares fewer lines


def chapter(name, focus=None):
    """Return a function that opens a chapter, and may focus a widget."""

    async def set_up(pilot):
        with patch.object(compared_models, "MAX_LINES", 3):
            await open_chapter(pilot, name, material)
        if name == "attention":
            pilot.app.screen.query_one("HeatStrips").row = 5
        if focus is not None:
            pilot.app.screen.query_one(focus).focus()

    return set_up


slider, head = of("Slider", "index"), of("HeatStrips", "row")
CHAPTER = [
    *keys("learn", of_screen("index"), next=1, previous=0),
    *keys("learn", lambda app: "Hint" in str(app.screen.query_one("#sentences").render()), hint=True),
    *opens("learn", code=("SourceScreen", "learn-source.close")),
    *opens("learn", contents=("Dialog", "dialog.cancel")),
    *keys("learn", focused, edit="TextInput", pane="Slider", pane_back="TextInput"),
]
SMALL_CHAPTER = keys("learn", lambda app: bool(app.screen.query_one("#figure-place").region), pane=True)
MEMORY = [
    *keys("learn-memory", of("MemoryFigure", "is_reset"), reset=True),
    Row("learn-memory.find", slider, "changes", ("up",)),
]
HEADS = keys("learn-attention", head, layer_below="decreases", layer_above="increases")
LEARN_APPS = {
    "first chapter": [
        Stage(chapter("tokens"), CHAPTER),
        Stage(
            chapter("tokens", "Slider"), keys("slider", slider, higher=moves(1), lower=moves(-1), highest=49, lowest=0)
        ),
        Stage(chapter("tokens"), SMALL_CHAPTER, size=(60, 20)),
    ],
    "chapters on counts, sampling and memory": [
        Stage(chapter("counting"), keys("learn-samples", of("CountingFigure", "seed"), again=moves(5))),
        Stage(chapter("sampling"), keys("learn-samples", of("SamplingFigure", "seed"), again=moves(1))),
        Stage(chapter("memory"), MEMORY),
    ],
    "chapter on attention": [
        Stage(chapter("attention", "HeatStrips"), HEADS),
        Stage(chapter("attention", "Input"), keys("learn-figure", head, up=moves(-1), down=moves(1))),
    ],
    "chapter on overfitting": [
        Stage(live_training, keys("learn-live", of("OverfittingFigure", "is_training"), train=True, stop=False)),
        Stage(ended_training, opens("learn-live", play="SessionScreen")),
    ],
}
