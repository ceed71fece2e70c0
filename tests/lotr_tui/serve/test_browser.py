"""The session in a real Chromium: typing, the mouse, sizes, tabs that close, floods of keys, and access."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.runs.directory import METRICS_FILE, MODEL_FILE, is_locked
from engine.runs.metrics import read_current_rows
from engine.runs.summary import summarize_run
from tests.support.browser import (
    ServeProcess,
    missing_for_browser,
    open_tab,
    run_chromium,
)
from tests.support.terminal import MODEL_READY_TEXT

MISSING = missing_for_browser()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"browser tests skipped: {MISSING}")

SECOND_PAGE = """async url => new Promise(resolve => {
  const socket = new WebSocket(url);
  socket.onopen = () => resolve("open");
  socket.onerror = () => resolve("refused");
})"""


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[ServeProcess]:
    with ServeProcess(home) as process:
        yield process


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with run_chromium() as browser:
        yield browser


@pytest.fixture
def browser(chromium: Any, server: ServeProcess) -> Iterator[Any]:
    """Browser whose tabs are closed after the test."""
    yield chromium
    for context in chromium.contexts:
        context.close()
    server.wait_for_apps(0, 20)


def test_a_prompt_is_answered_the_slider_is_dragged_and_the_window_resized(server: ServeProcess, browser: Any) -> None:
    tab = open_tab(browser, server.url, MODEL_READY_TEXT)
    assert "token" not in tab.page.url
    tab.page.keyboard.type("Where is Frodo?")
    tab.wait_for("❯ Where is Frodo?")
    tab.page.keyboard.press("Enter")
    tab.wait_for(" · T 0.70")  # the figures of a finished reply

    value = re.search(r"┤ (\d\.\d\d)", tab.screen())
    assert value is not None
    row = next(line for line in tab.screen().splitlines() if "temperature ├" in line)
    handle, left_end = row.index("●") - row.index("temperature"), len("temperature ├")
    tab.page.mouse.move(*tab.cell_position("temperature ├", handle))
    tab.page.mouse.down()
    tab.page.mouse.move(*tab.cell_position("temperature ├", left_end + 2), steps=5)
    tab.page.mouse.up()
    wait_for(lambda: float(re.search(r"┤ (\d\.\d\d)", tab.screen())[1]) < float(value[1]) - 0.2)

    columns = len(tab.screen().splitlines()[0])
    tab.page.set_viewport_size({"width": 800, "height": 600})
    wait_for(lambda: len(tab.screen().splitlines()[0]) < columns)
    tab.wait_for("f1 help")
    canvas = tab.page.evaluate("() => document.querySelector('canvas.xterm-text-layer').width")
    assert 700 < canvas <= 800


def test_a_closed_tab_does_not_end_the_training_of_its_session(
    server: ServeProcess, browser: Any, home: Path, small_csv: Path
) -> None:
    tab = open_tab(browser, server.url, MODEL_READY_TEXT)
    tab.page.keyboard.press("Control+t")
    tab.wait_for("Train a model in the background")
    settings = "hidden_size=8 embedding_size=8 batch_size=10 bptt=20"
    for label, text in (("Corpus", str(small_csv)), ("Run name", "web"), ("Epochs", "120"), ("Settings", settings)):
        tab.page.mouse.click(*tab.cell_position(label, 14))
        tab.page.keyboard.type(text)
        tab.wait_for(text[-12:])
    tab.page.keyboard.press("Enter")
    run = home / "runs" / "web"
    wait_for((run / MODEL_FILE).exists)
    tab.page.close()
    server.wait_for_apps(1)  # a tab takes time to close, and the training's process stays
    size = (run / METRICS_FILE).stat().st_size
    assert is_locked(run)
    wait_for(lambda: (run / METRICS_FILE).stat().st_size > size)  # the training goes on without a browser
    wait_for(lambda: not is_locked(run), 120)
    assert summarize_run(run).state == "finished"
    steps = [row["step"] for row in read_current_rows(run / METRICS_FILE) if row["event"] == "step"]
    assert steps == sorted(set(steps))


def test_a_megabyte_of_keys_harms_neither_its_app_nor_another_browser(server: ServeProcess, browser: Any) -> None:
    flooded = open_tab(browser, server.url, MODEL_READY_TEXT)
    calm = open_tab(browser, server.url, MODEL_READY_TEXT)
    flooded.page.evaluate("""() => {
        for (let sent = 0; sent < 1000; sent++) { window.lotrTerminal.input("k".repeat(1000)); }
        window.lotrTerminal.input("k".repeat(1000000));
    }""")
    calm.press_and_expect("i", "❯ i ")
    assert calm.latency() < 5
    flooded.wait_for("keys dropped")
    pids = server.app_pids()
    assert len(pids) == 2
    flooded.page.keyboard.press("Control+u")
    wait_for(lambda: "kk" not in flooded.screen())


def test_pages_without_the_token_and_of_other_sites_get_nothing(server: ServeProcess, browser: Any) -> None:
    address, token = server.url.split("?")
    for url in (address, f"{address}?{token}x"):
        page = browser.new_context().new_page()
        response = page.goto(url)
        assert response.status == 403
        assert page.locator("body").inner_text().startswith("403 forbidden: ")
    own = browser.new_context()
    page = own.new_page()
    page.goto(server.url)
    foreign = own.new_page()  # with the cookie of the server
    foreign.goto("data:text/html,<p>another site")
    assert foreign.evaluate(SECOND_PAGE, address.replace("http", "ws") + "ws") == "refused"


def test_the_server_ends_with_a_message_in_every_page(home: Path, browser: Any) -> None:
    with ServeProcess(home) as server:
        tab = open_tab(browser, server.url, MODEL_READY_TEXT)
        pids = server.app_pids()
        code, output = server.stop()
        assert code == 143
        assert "browser 1 has closed the session" in output
        wait_for(lambda: "The server has ended." in tab.page.locator("#notice").inner_text())
        assert len(pids) == 1
