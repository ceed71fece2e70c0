"""What is shown again and again for hours leaves nothing behind in memory."""

import gc
from collections.abc import Callable

from textual.widgets._footer import FooterKey

from lotr_tui.app import LotrApp
from lotr_tui.widgets.keys_footer import KeysFooter
from tests.lotr_tui.test_play_screen import until


async def test_keys_that_are_shown_no_more_are_not_kept(make_app: Callable[..., LotrApp]) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        footer = app.screen.query_one(KeysFooter)
        await until(pilot, lambda: footer.query(FooterKey))
        shown = len(footer.query(FooterKey))
        for _ in range(5):
            footer.refresh(recompose=True)
            await pilot.pause()
        gc.collect()
        kept = [item for item in gc.get_objects() if isinstance(item, FooterKey)]
        assert len(kept) <= 3 * shown  # those left out for want of room are made, too
