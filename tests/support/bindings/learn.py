"""Keys of the chapters of the class."""

from functools import cache
from unittest.mock import patch

from lotr_tui.learn import compared_models
from lotr_tui.learn.material import Material
from tests.support.bindings import (
    Row,
    Stage,
    becomes,
    changes,
    decreases,
    focused,
    increases,
    keys,
    moves,
    of,
    of_screen,
    opens,
)
from tests.support.learn import open_chapter
from tests.support.learn_scenes.training import live_training

LAST_CUTOFF = 49  # index of the highest cut-off of the first chapter


@cache
def material():
    """Return the bundled dialogues and models, which all chapters share."""
    return Material()


def hint_is_shown(app):
    return "Hint" in str(app.screen.query_one("#sentences").render())


def figure_is_visible(app):
    return bool(app.screen.query_one("#figure-place").region)


def chapter(name, focus=None, *first_keys):
    """Return a function that opens a chapter, focuses a widget, and presses keys."""

    async def set_up(pilot):
        await open_chapter(pilot, name, material)
        if focus is not None:
            pilot.app.screen.query_one(focus).focus()
        await pilot.press(*first_keys)

    return set_up


async def heads(pilot):
    with patch.object(compared_models, "MAX_LINES", 3):
        await open_chapter(pilot, "attention", material)
    pilot.app.screen.query_one("HeatStrips").row = 5
    pilot.app.screen.query_one("HeatStrips").focus()


async def typed_heads(pilot):
    await heads(pilot)
    pilot.app.screen.query_one("Input").focus()


async def models(pilot):
    await heads(pilot)
    pilot.app.screen.query_one("OptionList").focus()


def text_cursor(app):
    return app.screen.query_one("Input").cursor_position


slider, head = of("Slider", "index"), of("AttentionFigure", "head")
CHAPTER = Stage(
    chapter("tokens"),
    [
        *keys("learn", of_screen("index"), next=becomes(1), previous=becomes(0)),
        *keys("learn", hint_is_shown, hint=becomes(True)),
        *opens("learn", code=("SourceScreen", "learn-source.close")),
        *opens("learn", contents=("ContentsDialog", "dialog.cancel")),
        *keys("learn", focused, edit=becomes("TextInput"), pane=becomes("Slider"), pane_back=becomes("TextInput")),
    ],
)
SMALL_CHAPTER = Stage(chapter("tokens"), keys("learn", figure_is_visible, pane=becomes(True)), size=(60, 20))
SLIDER = Stage(
    chapter("tokens", "Slider"),
    keys("slider", slider, higher=moves(1), lower=moves(-1), highest=becomes(LAST_CUTOFF), lowest=becomes(0)),
)
HEADS = Stage(
    heads,
    [
        *keys("learn-attention", head, layer_below=decreases, layer_above=increases),
    ],
)
TYPED_HEADS = Stage(typed_heads, keys("learn-attention", head, up=moves(-1), down=moves(1)))
MODELS = Stage(models, keys("learn-figure", text_cursor, word_before=decreases, word_after=increases))
COUNTING = Stage(
    chapter("counting"),
    [
        *keys("learn-counting", of("CountingFigure", "order"), lower=moves(-1), higher=moves(1)),
        *keys("learn-samples", of("CountingFigure", "seed"), again=moves(5)),
    ],
)
SAMPLING = Stage(chapter("sampling"), keys("learn-samples", of("SamplingFigure", "seed"), again=moves(1)))
MEMORY = Stage(
    chapter("memory"),
    [
        *keys("learn-memory", of("MemoryFigure", "is_reset"), reset=becomes(True)),
        *keys("learn-memory", slider, next_unit=moves(1), previous_unit=moves(-1)),
        Row("learn-memory.find", of("MemoryFigure", "unit"), changes, ("up",)),
    ],
)
TRAINING = Stage(live_training, keys("learn-live", of("OverfittingFigure", "is_training"), train=becomes(True)))

LEARN_APPS = {
    "first chapter": [CHAPTER, SLIDER, SMALL_CHAPTER],
    "chapters on counts, sampling and memory": [COUNTING, SAMPLING, MEMORY],
    "chapter on attention": [HEADS, TYPED_HEADS, MODELS],
    "chapter on overfitting": [TRAINING],
}
