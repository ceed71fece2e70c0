"""`lotr-tui serve` in a process, and a Chromium that shows it: typing, reading the terminal, and timing of frames."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from importlib.util import find_spec

from tests.support.terminal import TIMEOUT_SECONDS, TerminalError

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


def missing_for_browser():
    """Return what a browser needs and this machine does not have, or None."""
    for package in ("textual_serve", "playwright"):
        if find_spec(package) is None:
            return f"no {package.replace('_', '-')}; pip install {package.replace('_', '-')}"
    return None if find_chromium() else "no Chromium; install chromium or google-chrome"


def find_chromium():
    return next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)


class ServeProcess:
    """A running `lotr-tui serve` on a free port."""

    def __init__(self, home, *arguments, environment=None):
        """Start the server with `home` as `LOTR_TUI_HOME`, and wait for its URL, which has the token."""
        inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "TEXTUAL_DRIVER")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lotr_tui", "serve", "--port", "0", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=inherited | {"LOTR_TUI_HOME": str(home)} | (environment or {}),
        )
        self._lines = []
        self._reader = threading.Thread(
            target=lambda: self._lines.extend(line.rstrip("\n") for line in self._process.stdout), daemon=True
        )
        self._reader.start()
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not self._lines and self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        self.url = self._lines[0] if self._lines else ""
        if not self.url.startswith("http://"):
            raise TerminalError(f"lotr-tui serve has not started: {self.output()}")

    @property
    def pid(self):
        return self._process.pid

    def app_pids(self):
        """Return the process ids of the apps that the server has started and that run."""
        import psutil

        return [child.pid for child in psutil.Process(self.pid).children() if child.status() != psutil.STATUS_ZOMBIE]

    def wait_for_apps(self, count, timeout=TIMEOUT_SECONDS):
        """Wait until `count` apps run, and return their process ids."""
        deadline = time.monotonic() + timeout
        while len(pids := self.app_pids()) != count:
            if time.monotonic() > deadline:
                raise TerminalError(f"{len(pids)} apps run in place of {count}")
            time.sleep(0.05)
        return pids

    def stop(self, number=signal.SIGTERM):
        """Send a signal, and return the exit code and the lines that the server has printed."""
        self._process.send_signal(number)
        try:
            self._process.wait(TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            raise TerminalError(f"lotr-tui serve has not ended after {number.name}") from error
        self._reader.join(TIMEOUT_SECONDS)
        return self._process.returncode, self.output()

    def output(self):
        return "\n".join(self._lines)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self.stop()


class BrowserTab:
    """A page of Playwright that shows the terminal of an app."""

    def __init__(self, page):
        self.page = page
        page.add_init_script(_HOOKS.replace("TIMEOUT", str(1000 * TIMEOUT_SECONDS)))

    def open(self, url, ready_text=""):
        """Open a URL, and wait until the terminal shows `ready_text`."""
        self.page.goto(url)
        self.wait_for(ready_text)

    def screen(self):
        """Return the rows of the terminal, as xterm.js has read them."""
        return self.page.evaluate("() => window.lotrScreen()")

    def wait_for(self, text, timeout=TIMEOUT_SECONDS):
        """Wait until the terminal shows `text`, and return the screen."""
        deadline = time.monotonic() + timeout
        while text not in (screen := self.screen()) or not screen.strip():
            if time.monotonic() > deadline:
                raise TerminalError(f"the browser does not show {text!r} but:\n{screen}")
            time.sleep(0.05)
        return screen

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
        """Return the seconds between the last key and the frame after the one that shows its text."""
        return self.page.evaluate("() => window.lotrLatency") / 1000


@contextmanager
def run_chromium():
    """Run a headless Chromium that is installed on this machine."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


def open_tab(browser, url, ready_text, size=(1280, 720)):
    """Open a URL in a separate browser window, without the cookies of others, and wait for `ready_text`."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    tab = BrowserTab(context.new_page())
    tab.open(url, ready_text)
    return tab
