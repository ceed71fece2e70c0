"""Scenes of the chapters without a live training."""

from lotr_tui.learn.progress import ProgressStore
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
    await _open(pilot, "tokens", "e", *" Zorblax?", "tab", *["right"] * 5)


async def learn_tokens_figure(pilot):
    await _open(pilot, "tokens", "tab")


async def learn_contents(pilot):
    store = ProgressStore()
    for name in ("tokens", "perplexity"):
        store.add(done=name)
    store.save()
    await _open(pilot, "tokens", "g", "down")


async def learn_source(pilot):
    await _open(pilot, "tokens", "v")


async def learn_counting(pilot):
    """A word of the line, some of whose contexts were seen, and an unknown word before it."""
    await _open(pilot, "counting", "e", *" Zorblax", *["ctrl+left"] * 2, "ctrl+r")


async def learn_counting_trigram(pilot):
    """The figure of a lower order, where the figure replaces the text."""
    await _open(pilot, "counting", "tab", "tab", "down", "down")


async def learn_sampling(pilot):
    screen = await open_chapter(pilot, "sampling")
    for id, steps in (("temperature", 10), ("top-k", 12)):
        screen.query_one(f"#{id}", Slider).index -= steps
    await until(pilot, lambda: screen.is_idle)
    await pilot.pause(0.1)


async def learn_perplexity(pilot):
    """A typed line with an unknown word, and the bits of the 5-gram model."""
    screen = await _open(pilot, "perplexity", "e", "end", *" I do not know, Zorblax.", "ctrl+left", "ctrl+left")
    screen.query_one(Slider).index = 1
    await pilot.pause(0.1)


async def learn_memory(pilot):
    """The state is reset before the last word of a question, and the predictions disagree."""
    await _open(pilot, "memory", "x", "e", "ctrl+u", *"What did you", "ctrl+left")


async def learn_attention(pilot):
    """A typed line, and another head than the first one."""
    await _open(pilot, "attention", "e", *" lamp", *["down"] * 2, "ctrl+left")


async def learn_attention_models(pilot):
    """The compared models, with the pre-trained one selected."""
    screen = await open_chapter(pilot, "attention")
    if not screen.query_one("#figure-place").region:
        await pilot.press("tab", "tab")
    await pilot.press("tab", "tab", "end")
    await pilot.pause(0.1)
