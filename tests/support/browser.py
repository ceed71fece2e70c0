"""`lotr-tui serve` in a process, and a Chromium that shows it: typing, reading the terminal, and timing of frames."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec

from tests.support.terminal import TIMEOUT_SECONDS, TerminalError, answer_first_question

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
CHROMIUM_OPTIONS += ["--disable-background-networking", "--disable-component-update"]
_HOOKS = """
// textual.js keeps its terminal in a private variable; the setter gets it when textual.js stores it in a property.
Object.defineProperty(Object.prototype, "terminal", {
  configurable: true,
  get() { return undefined; },
  set(value) {
    Object.defineProperty(this, "terminal", { value, writable: true, configurable: true, enumerable: true });
    if (value && value.buffer && value.onRender) { window.lotrTerminal = value; }
  },
});
window.lotrRow = (row) => {
  const line = window.lotrTerminal.buffer.active.getLine(row);
  return line ? line.translateToString(false, 0, window.lotrTerminal.cols) : "";  // a row keeps its greatest length
};
window.lotrScreen = () => {
  const rows = window.lotrTerminal ? window.lotrTerminal.rows : 0;
  return Array.from({ length: rows }, (_, row) => window.lotrRow(row)).join("\\n");
};
// Milliseconds from the next keydown event until the first animation frame after the one in which xterm.js has drawn a
// row with the text.
window.lotrExpect = (text) => {
  window.lotrLatency = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`the terminal does not show ${JSON.stringify(text)}`)), TIMEOUT);
    let pressed = null;
    window.addEventListener("keydown", (event) => { pressed = event.timeStamp; }, { capture: true, once: true });
    const listener = window.lotrTerminal.onRender(({ start, end }) => {
      if (pressed === null) { return; }
      for (let row = start; row <= end; row++) {
        if (window.lotrRow(row).includes(text)) {
          listener.dispose();
          requestAnimationFrame(() => resolve(performance.now() - pressed));
          return;
        }
      }
    });
  });
};
"""


CHROMIUM = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


def missing_for_browser():
    """Return what a browser needs and this machine does not have, or None."""
    for package in ("textual_serve", "playwright"):
        if find_spec(package) is None:
            return f"no {package.replace('_', '-')}; pip install {package.replace('_', '-')}"
    return None if CHROMIUM else "no Chromium; install chromium or google-chrome"


class ServeProcess:
    def __init__(self, home, *arguments):
        """Start the server with `home` as `LOTR_TUI_HOME`, and wait for the line with its URL and the token."""
        inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "TEXTUAL_DRIVER")}
        command = [sys.executable, "-m", "lotr_tui", "serve", "--port", "0", *arguments]
        answer_first_question(home)
        environment, pipe = inherited | {"LOTR_TUI_HOME": str(home)}, subprocess.PIPE
        self._process = subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment)
        self.url = self._process.stdout.readline().rstrip("\n")
        if "http://" not in self.url:
            raise TerminalError(f"lotr-tui serve has not started: {self.url} {self.stop()}")

    @property
    def pid(self):
        return self._process.pid

    def app_pids(self):
        import psutil

        return [child.pid for child in psutil.Process(self.pid).children() if child.status() != psutil.STATUS_ZOMBIE]

    def stop(self, number=signal.SIGTERM):
        """Send a signal, and return the exit code and what the server has printed since its URL."""
        self._process.send_signal(number)
        return self._process.wait(TIMEOUT_SECONDS), self._process.stdout.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self.stop()


class BrowserTab:
    def __init__(self, page):
        self.page = page
        page.add_init_script(_HOOKS.replace("TIMEOUT", str(1000 * TIMEOUT_SECONDS)))

    def screen(self):
        return self.page.evaluate("() => window.lotrScreen()")

    def wait_for(self, text):
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while text not in (screen := self.screen()) or not screen.strip():
            if time.monotonic() > deadline:
                raise TerminalError(f"the browser does not show {text!r} but:\n{screen}")
            time.sleep(0.05)

    def cell_position(self, text, column=0):
        """Return the middle of a cell in pixels: the one `column` cells after the start of `text` on the screen."""
        rows = self.screen().splitlines()
        row, start = next((row, line.index(text)) for row, line in enumerate(rows) if text in line)
        box = self.page.locator(".xterm-screen").bounding_box()
        width, height = box["width"] / len(rows[0]), box["height"] / len(rows)
        return box["x"] + (start + column + 0.5) * width, box["y"] + (row + 0.5) * height

    def press_and_expect(self, key, text):
        """Press a key of Playwright's names; `latency` then tells when `text` is drawn."""
        self.page.evaluate("text => { window.lotrExpect(text); }", text)
        self.page.keyboard.press(key)

    def latency(self):
        return self.page.evaluate("() => window.lotrLatency") / 1000


@contextmanager
def run_chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)


def open_tab(browser, url, ready_text):
    """Open a URL in a separate browser window, without the cookies of others, and wait for `ready_text`."""
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    tab = BrowserTab(context.new_page())
    tab.page.goto(url)
    tab.wait_for(ready_text)
    return tab
