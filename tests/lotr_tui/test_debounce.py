"""Tests of calls that wait for a pause."""

from textual.app import App

from lotr_tui.background_task import Debounce
from tests.support.pilot import until


async def test_call_is_made_once_after_the_last_request() -> None:
    calls: list[int] = []
    async with App[None]().run_test() as pilot:
        debounce = Debounce(pilot.app.screen, 0.05, lambda: calls.append(1))
        debounce.request()
        debounce.request()
        assert debounce.is_waiting
        await until(pilot, lambda: bool(calls))
        assert not debounce.is_waiting
        await pilot.pause(0.1)
    assert calls == [1]


async def test_cancelled_call_is_not_made() -> None:
    calls: list[int] = []
    async with App[None]().run_test() as pilot:
        debounce = Debounce(pilot.app.screen, 0.02, lambda: calls.append(1))
        debounce.request()
        debounce.cancel()
        assert not debounce.is_waiting
        await pilot.pause(0.1)
    assert not calls
