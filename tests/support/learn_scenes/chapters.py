"""Scenes of the chapters without a live training."""

from lotr_tui.learn.progress import ProgressStore
from lotr_tui.screens.learn.figures.perplexity.word_bits import WordBits
from lotr_tui.widgets.slider import Slider
from tests.support.learn import open_chapter
from tests.support.pilot import until


async def _open(pilot, name, *keys):
    screen = await open_chapter(pilot, name)
    await pilot.press(*keys)
    await until(pilot, lambda: screen.is_idle)
    await pilot.pause(0.1)
    return screen


async def learn_tokens(pilot):
    """A line that has unknown words, and the cut-off raised."""
    await _open(pilot, "tokens", *" Zorblax?", "tab", *["right"] * 5)


async def learn_tokens_figure(pilot):
    await _open(pilot, "tokens", "f5")


async def learn_contents(pilot):
    store = ProgressStore()
    for name in ("tokens", "perplexity"):
        store.add(done=name)
    store.save()
    await _open(pilot, "tokens", "f6", "down")


async def learn_source(pilot):
    await _open(pilot, "tokens", "f4")


async def learn_counting(pilot):
    """A word of the line, some of whose contexts were seen, and an unknown word before it."""
    await _open(pilot, "counting", *" Zorblax", *["ctrl+left"] * 2, "f8")


async def learn_counting_trigram(pilot):
    """The figure of a lower order, where the figure replaces the text."""
    await _open(pilot, "counting", "f5", "down", "down")


async def learn_sampling(pilot):
    screen = await open_chapter(pilot, "sampling")
    for id, steps in (("temperature", 10), ("top-k", 12)):
        slider = screen.query_one(f"#{id}", Slider)
        slider.index -= steps - 1
        await pilot.press("tab", "left")
    await until(pilot, lambda: screen.is_idle)
    await pilot.pause(0.1)


async def learn_perplexity(pilot):
    """A typed line with an unknown word, the cursor on a certain word, and a window that scores words."""
    screen = await open_chapter(pilot, "perplexity")
    if not screen.query_one("#figure-place").region:
        await pilot.press("f5")
    await pilot.press("end", *" I do not know, Zorblax.")
    await until(pilot, lambda: screen.is_idle)
    screen.query_one(Slider).index = 29
    words = screen.query_one(WordBits)
    words.focus()
    words.move_cursor(2)
    await pilot.pause(0.1)


async def learn_memory(pilot):
    """The state is reset before the last word of a question, and the predictions disagree."""
    await _open(pilot, "memory", "f5", "f8", "ctrl+u", *"What did you", "ctrl+left")


async def learn_attention(pilot):
    """A typed line, and a head that looks more than half at one earlier word."""
    screen = await open_chapter(pilot, "attention")
    await pilot.press("f5", *" lamp", "tab", *["down"] * 4, "left")
    await until(pilot, lambda: screen.is_idle)
    await pilot.pause(0.1)


async def learn_attention_models(pilot):
    """The compared models, with the pre-trained one selected."""
    screen = await open_chapter(pilot, "attention")
    await pilot.press("f5", "f8", "end")
    if not screen.query_one("#figure").has_class("-models"):  # the list is visible all the time
        await pilot.press("tab", "tab", "end")
    await pilot.pause(0.1)
