"""The chapter on attention without a model that may or may not be installed."""

from unittest.mock import patch

from lotr_tui.learn import compared_models
from tests.support.learn import open_chapter


async def open_attention_chapter(pilot):
    """Open the chapter, and wait until all models that come with the program have a score."""
    with patch.object(compared_models, "find_installed_model", lambda: None):
        return await open_chapter(pilot, "attention")
