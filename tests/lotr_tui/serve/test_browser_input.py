"""What a browser may send: malformed messages, floods of keys, pastes, and sizes of the terminal."""

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


@pytest.mark.parametrize(
    ("texts", "refusal"),
    [
        (["k" * 500, "\x1b[A" * 100, "k"], "keys dropped"),  # an escape sequence counts once
        (["\x1b[200~" + "k" * 700], "keys"),  # a paste that does not end is keys
        ([f"\x1b[200~{'p' * 100_000}\x1b[201~", "k" * (int(BURST_KEYS) - 1), "k"], "keys dropped"),
        ([f"\x1b[200~{'p' * MAX_PASTE_BYTES}\x1b[201~"], "a paste has at most"),
    ],
    ids=["escape sequences", "open paste", "paste and keys", "long paste"],
)
def test_every_key_counts_and_a_paste_once_up_to_its_maximum(texts, refusal):
    limiter = InputLimiter(lambda: 0.0)
    *accepted, last = [limiter.refusal(text) for text in texts]
    assert set(accepted) <= {None}
    assert refusal in last


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
        for num_keys in (250_000, *[50] * 400):
            await flooding.send_json(["stdin", "k" * num_keys])
        started = time.perf_counter()
        await calm.send_json(["stdin", "a"])
        await read_until(calm, "got 1;")
        assert time.perf_counter() - started < 1
        output = await read_until(flooding, "dropped 250,000 bytes of keys at once")
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
