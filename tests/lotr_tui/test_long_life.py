"""What is done again and again for hours leaves nothing behind in memory."""

import gc
from collections import Counter
from collections.abc import Callable

from textual.widget import Widget

from lotr_tui.app import LotrApp
from lotr_tui.widgets.keys_footer import KeysFooter
from tests.lotr_tui.test_play_screen import until


def widgets() -> Counter[str]:
    """How many of each class there are in memory, seen or not."""
    gc.collect()
    return Counter(type(item).__name__ for item in gc.get_objects() if issubclass(type(item), Widget))


async def test_moving_the_focus_leaves_nothing(make_app: Callable[..., LotrApp]) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: app.screen.query_one(KeysFooter).shown_keys())

        async def there_and_back() -> None:
            await pilot.press("f4", "tab", "tab", "escape")
            await pilot.pause()

        await there_and_back()
        before = widgets()
        for _ in range(5):
            await there_and_back()
        assert widgets() == before
