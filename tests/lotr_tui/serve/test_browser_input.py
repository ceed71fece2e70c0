"""What a browser may send: malformed messages, floods of keys, pastes, and sizes of the terminal."""

import asyncio
import json
import time

import pytest

pytest.importorskip("textual_serve", reason="needs textual-serve; pip install 'lotr-tui[serve]'")

from hypothesis import given, settings
from hypothesis import strategies as st

from lotr_tui.serve.browser_input import (
    BURST_KEYS,
    KEYS_PER_SECOND,
    MAX_PASTE_BYTES,
    MAX_WIDTH,
    BrowserMessage,
    InputLimiter,
    parse_message,
)
from tests.support.serving import connect, echo_command, read_until, run_server

SCALARS = st.none() | st.booleans() | st.integers() | st.text()


@settings(max_examples=50)
@given(st.recursive(SCALARS, lambda each: st.lists(each) | st.dictionaries(st.text(), each), max_leaves=5))
def test_any_json_is_a_valid_message_or_none(value):
    message = parse_message(json.dumps(value))
    assert message is None or message.kind in ("stdin", "resize", "ping", "focus", "blur")


def test_keys_above_the_rate_are_dropped_until_time_has_passed():
    now = 0.0
    limiter = InputLimiter(lambda: now)
    accepted = sum(limiter.refusal("k") is None for _ in range(5000))
    assert accepted == BURST_KEYS
    assert "keys dropped" in (limiter.refusal("k") or "")
    assert limiter.refusal("\x1b[<35;10;10M") == ""  # a lost movement of the mouse needs no message
    now = 1.0
    assert sum(limiter.refusal("k") is None for _ in range(5000)) == KEYS_PER_SECOND


def test_every_key_of_a_message_counts_and_an_escape_sequence_once():
    limiter = InputLimiter(lambda: 0.0)
    assert limiter.refusal("k" * 500) is None
    assert limiter.refusal("\x1b[A" * 100) is None
    assert limiter.refusal("k") is not None
    hidden = InputLimiter(lambda: 0.0)
    assert hidden.refusal("\x1b[200~" + "k" * 700) is not None  # a paste that does not end is keys


def test_a_paste_counts_once_and_has_a_maximum_length():
    limiter = InputLimiter(lambda: 0.0)
    assert limiter.refusal(f"\x1b[200~{'p' * 100_000}\x1b[201~") is None
    assert limiter.refusal("k" * int(BURST_KEYS - 1)) is None
    assert "a paste has at most" in (InputLimiter().refusal(f"\x1b[200~{'p' * MAX_PASTE_BYTES}\x1b[201~") or "")


def test_malformed_messages_are_none_and_sizes_are_bounded():
    for data in ("", "[", "[[[" * 100_000, '["stdin"]', '["stdin", 7]', '["resize", 7]', '{"stdin": ""}'):
        assert parse_message(data) is None
    size = parse_message('["resize", {"width": 1e99, "height": -5}]')
    assert size == BrowserMessage("resize", size=(MAX_WIDTH, 1))
    huge = parse_message('["resize", {"width": 99999999, "height": "x"}]')
    assert huge == BrowserMessage("resize", size=(MAX_WIDTH, 24))


async def test_a_flood_reaches_no_app_and_another_browser_stays_responsive(tmp_path):
    async with run_server(echo_command(tmp_path / "record")) as (client, guard, _):
        flooding = await connect(client, guard)
        calm = await connect(client, guard)
        await read_until(calm, "size")
        await flooding.send_json(["stdin", "k" * 250_000])

        async def flood():
            for _ in range(400):
                await flooding.send_json(["stdin", "k" * 50])
                await asyncio.sleep(0)

        flood_task = asyncio.create_task(flood())
        slowest = 0.0
        for _ in range(10):
            started = time.perf_counter()
            await calm.send_json(["stdin", "a"])
            await read_until(calm, "got 1;")
            slowest = max(slowest, time.perf_counter() - started)
        assert slowest < 1.0
        output = await read_until(flooding, "dropped 250,000 bytes of keys at once")
        await flood_task
        assert "got 250000" not in output
        await flooding.close()
        await calm.close()


async def test_messages_of_another_kind_are_dropped_with_a_notice(tmp_path):
    async with run_server(echo_command(tmp_path / "record")) as (client, guard, _):
        websocket = await connect(client, guard)
        await websocket.send_str("no json")
        await websocket.send_bytes(b"\xff")
        await websocket.send_json(["stdin", "\ud800"])  # a lone surrogate, which has no UTF-8 encoding
        await websocket.send_json(["resize", {"width": 120, "height": 40}])
        output = await read_until(websocket, "resize")
        assert "input dropped" in output
        assert "got 1;" in output
        assert '"width": 120' in output
        await websocket.send_json(["ping", "1" * 100])
        assert "1" * 32 + '"' in await read_until(websocket, "pong")
        await websocket.close()
