"""The session in a real Chromium: typing, the mouse, sizes, tabs that close, floods of keys, and access."""

import re

import pytest

from engine.events import Step
from engine.runs.directory import METRICS_FILE, MODEL_FILE, drop_superseded, lock_owner, read_events, summarize_run
from tests.support.browser import ServeProcess, missing_for_browser, open_tab, run_chromium
from tests.support.commands import wait_until
from tests.support.terminal import MODEL_READY_TEXT

MISSING = missing_for_browser()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=f"browser tests skipped: {MISSING}")]

SECOND_PAGE = """async url => new Promise(resolve => {
  const socket = new WebSocket(url);
  socket.onopen = () => resolve("open");
  socket.onerror = () => resolve("refused");
})"""


TYPE = """texts => texts.forEach(([text, times, start]) =>
  document.querySelector(".xterm-helper-textarea").dispatchEvent(
    new InputEvent("input", {inputType: "insertText", data: text.repeat(times).slice(start)})))"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(home):
    with ServeProcess(home) as process:
        yield process


@pytest.fixture(scope="module")
def browser():
    with run_chromium() as chromium:
        yield chromium


def test_a_prompt_is_answered_the_slider_is_dragged_and_the_window_resized(server, browser):
    tab = open_tab(browser, server.url, MODEL_READY_TEXT)
    assert "token" not in tab.page.url
    tab.page.keyboard.type("Where is Frodo?")
    tab.wait_for("❯ Where is Frodo?")
    tab.page.keyboard.press("Enter")
    tab.wait_for("‹ 1/8 ›")  # the answers of a finished reply

    value = re.search(r"┤ (\d\.\d\d)", tab.screen())
    assert value is not None
    row = next(line for line in tab.screen().splitlines() if "temperature ├" in line)
    handle, left_end = row.index("●") - row.index("temperature"), len("temperature ├")
    tab.page.mouse.move(*tab.cell_position("temperature ├", handle))
    tab.page.mouse.down()
    tab.page.mouse.move(*tab.cell_position("temperature ├", left_end + 2), steps=5)
    tab.page.mouse.up()
    wait_until(lambda: float(re.search(r"┤ (\d\.\d\d)", tab.screen())[1]) < float(value[1]) - 0.2)

    columns = len(tab.screen().splitlines()[0])
    tab.page.set_viewport_size({"width": 800, "height": 600})
    wait_until(lambda: len(tab.screen().splitlines()[0]) < columns)
    tab.wait_for("f1 help")
    canvas = tab.page.evaluate("() => document.querySelector('canvas.xterm-text-layer').width")
    assert 700 < canvas <= 800


def test_input_that_is_too_long_or_no_text_does_not_end_the_session(server, browser):
    tab = open_tab(browser, server.url, MODEL_READY_TEXT)
    tab.page.evaluate(TYPE, [["x", 600_000, 0], ["😀", 1, 1], ["Sam", 1, 0]])  # a half of the face is no text
    tab.wait_for("❯ \N{REPLACEMENT CHARACTER}Sam")


def test_a_closed_tab_does_not_end_the_training_of_its_session(server, browser, home, small_csv):
    tab = open_tab(browser, server.url, MODEL_READY_TEXT)
    tab.page.keyboard.press("Control+t")
    tab.wait_for("Train a model in the background")
    settings = "hidden_size=8 embedding_size=8 batch_size=10 bptt=20"
    for label, text in (("Corpus", str(small_csv)), ("Run name", "web"), ("Epochs", "40"), ("Settings", settings)):
        tab.page.mouse.click(*tab.cell_position(label, 14))
        tab.page.keyboard.type(text)
        tab.wait_for(text[-12:])
    tab.page.keyboard.press("Enter")
    run = home / "runs" / "web"
    wait_until((run / MODEL_FILE).exists)
    tab.page.close()
    size = (run / METRICS_FILE).stat().st_size
    assert lock_owner(run)
    wait_until(lambda: (run / METRICS_FILE).stat().st_size > size)  # the training goes on without a browser
    wait_until(lambda: not lock_owner(run))
    assert summarize_run(run).state == "finished"
    steps = [event.step for event in drop_superseded(read_events(run / METRICS_FILE)) if isinstance(event, Step)]
    assert steps == sorted(set(steps))


def test_pages_of_other_sites_get_nothing_and_the_end_of_the_server_is_shown(home, browser):
    with ServeProcess(home) as server:
        tab = open_tab(browser, server.url, MODEL_READY_TEXT)
        foreign = tab.page.context.new_page()  # with the cookie of the server
        foreign.goto("data:text/html,<p>another site")
        address = server.url.split("?")[0]
        assert foreign.evaluate(SECOND_PAGE, address.replace("http", "ws") + "ws") == "refused"
        code, output = server.stop()
        assert code == 143
        assert "browser 1 has closed the session" in output
        wait_until(lambda: "The server has ended." in tab.page.locator("#notice").inner_text())
