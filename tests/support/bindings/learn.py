"""Keys of the chapters of the class."""

from dataclasses import replace
from functools import cache
from unittest.mock import patch

from lotr_tui.learn import compared_models
from lotr_tui.learn.material import Material
from lotr_tui.learn.progress import ProgressStore
from tests.support.bindings import (
    LIST,
    Row,
    Stage,
    becomes,
    changes,
    decreases,
    increases,
    keys,
    moves,
    of,
    of_screen,
    opens,
)
from tests.support.learn import chapter_screen, open_chapter
from tests.support.learn_scenes.training import live_training
from tests.support.pilot import until

LAST_CUTOFF = 49
"""Index of the highest cut-off of the first chapter."""


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


async def contents(pilot):
    """Show the contents of the class, whose first task is done."""
    store = ProgressStore()
    store.add(done="tokens")
    store.save()
    await open_chapter(pilot, "tokens", material)
    await pilot.press("f6")


async def heads(pilot):
    with patch.object(compared_models, "MAX_LINES", 3):
        await open_chapter(pilot, "attention", material)
    pilot.app.screen.query_one("HeadRows").focus()


async def words(pilot):
    """Open the chapter with a line of several rows of words, and focus them."""
    screen = await open_chapter(pilot, "perplexity", material)
    screen.query_one("Input").value = "where is the ring " * 10
    await pilot.pause()
    await until(pilot, lambda: chapter_screen(pilot).is_idle)
    screen.query_one("WordBits").focus()
    screen.query_one("WordBits").move_cursor(0)


def add_large_model(app):
    comparison = app.screen.query_one("AttentionFigure").data.comparison
    comparison.models += (replace(comparison.models[0], name="large", is_on_request=True),)
    app.screen.query_one("ModelsView").continue_line("the ring")


def requested_models(app):
    return app.screen.query_one("AttentionFigure").data.comparison.requested


slider, head, position = of("Slider", "index"), of("HeadRows", "head"), of("HeadRows", "position")
CHAPTER = Stage(
    chapter("tokens"),
    [
        *keys("learn", of_screen("index"), next=becomes(1), previous=becomes(0)),
        *keys("learn", hint_is_shown, hint=becomes(True)),
        *opens("learn", source=("SourceScreen", "learn-source.close")),
        *opens("learn", contents=("ContentsDialog", "learn-contents.close")),
    ],
)
SMALL_CHAPTER = Stage(chapter("tokens"), keys("learn", figure_is_visible, part=becomes(True)), size=(60, 20))
SLIDER = Stage(
    chapter("tokens", "Slider"),
    keys("slider", slider, higher=moves(1), lower=moves(-1), highest=becomes(LAST_CUTOFF), lowest=becomes(0)),
)
CONTENTS = Stage(contents, [*opens("learn-contents", reset="ConfirmDialog")])
HEADS = Stage(
    heads,
    [
        *keys("learn-attention", position, first=becomes(1), right=moves(1), left=moves(-1), last=increases),
        *keys("learn-attention", head, down=moves(1), up=moves(-1), layer_down=increases, layer_up=decreases),
        *keys(
            "learn-attention",
            lambda app: app.screen.query_one("AttentionFigure").has_class("-models"),
            view=becomes(True),
        ),
        *keys("learn-models", of("ModelList", "cursor"), **LIST),
        Row("learn-models.load", requested_models, becomes(frozenset({5})), ("end",), add_large_model),
    ],
)
WORDS = Stage(
    words,
    [
        *keys(
            "learn-perplexity", of("WordBits", "cursor"), right=moves(1), left=moves(-1), down=increases, up=decreases
        ),
        *keys("learn-perplexity", of("WordBits", "cursor"), last=becomes(39), first=becomes(0)),
    ],
)
COUNTING = Stage(
    chapter("counting"),
    [
        *keys("learn-counting", of("CountingFigure", "order"), lower=moves(-1), higher=moves(1)),
        *keys("learn-counting", of("CountingFigure", "seed"), seed=moves(5)),
    ],
)
SAMPLING = Stage(chapter("sampling"), keys("learn-sampling", of("SamplingFigure", "seed"), seed=moves(1)))
MEMORY = Stage(
    chapter("memory"),
    [
        *keys("learn-memory", of("MemoryFigure", "is_reset"), reset=becomes(True)),
        *keys("learn-memory", slider, next_unit=moves(1), previous_unit=moves(-1)),
        Row("learn-memory.liveliest", of("MemoryFigure", "unit"), changes, ("up",)),
    ],
)
CHOICE = Stage(
    chapter("memory", "ChoiceBar"), keys("choice-bar", of("ChoiceBar", "index"), next=moves(1), previous=moves(-1))
)
TRAINING = Stage(live_training, keys("learn-live", of("OverfittingFigure", "is_training"), train=becomes(True)))

LEARN_APPS = {
    "first chapter": [CHAPTER, SLIDER, CONTENTS, SMALL_CHAPTER],
    "chapters on counts, sampling, memory and perplexity": [COUNTING, SAMPLING, MEMORY, CHOICE, WORDS],
    "chapter on attention": [HEADS],
    "chapter on overfitting": [TRAINING],
}
