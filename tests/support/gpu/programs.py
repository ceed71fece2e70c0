"""Steps that use the program as people do: a detached training, the dashboard, and the benchmark."""

import json
import re
import subprocess
import time
from typing import Any

from lotr_tui.bench.processes import module_command

from tests.support.gpu.options import StepOptions
from tests.support.terminal import SESSION_COMMAND, Terminal, set_options

WIDTH, HEIGHT = 160, 45
WATCH_SECONDS = 12.0
"""Time during which the dashboard is watched."""


def check_detach(options: StepOptions) -> list[str]:
    """Start a training in the background, stop it, resume it to its end, and generate with the result."""
    settings = ["--preset", "tiny", "--epochs", "40", "--device", options.device]
    settings += set_options(options.corpus_values())
    _run("train", *settings, "--run", "detached", "--detach")
    try:
        while not (status := _status())["step"]:
            time.sleep(0.2)
    finally:
        _run("stop", "detached")
    while (stopped := _status())["state"] in ("training", "running"):
        time.sleep(0.2)
    _run("train", "--resume", "detached", "--no-tui")
    finished = _status()
    assert finished["step"] > stopped["step"] >= status["step"], (status, stopped, finished)
    text = _run("generate", "the", "--run", "detached", "--seed", "0").strip()
    ends = [f"step {status['step']} ({status['state']})" for status in (stopped, finished)]
    return [f"stopped at {ends[0]}, resumed to {ends[1]}", f"generated: {text[:80]}"]


def check_dashboard(options: StepOptions) -> list[str]:
    """Watch the real dashboard in a terminal during a training, and read the tiles of the machine from it."""
    import pyte

    screen = pyte.Screen(WIDTH, HEIGHT)
    stream = pyte.ByteStream(screen)
    settings = ["--preset", "tiny", "--epochs", "500", "--device", options.device, "--run", "watched"]
    settings += set_options(options.corpus_values())
    highest_use = 0
    with Terminal([*SESSION_COMMAND, "train", *settings], WIDTH, HEIGHT, options.folder / "home").spawn() as terminal:
        watched_from: float | None = None
        while watched_from is None or time.monotonic() < watched_from + WATCH_SECONDS:
            stream.feed(terminal.read(0.2))
            text = "\n".join(line.rstrip() for line in screen.display)
            if watched_from is None and re.search(r"tokens/s +\d", text):
                watched_from = time.monotonic()
            if found := re.search(r"GPU 0 +use +(\d+)%", text):
                highest_use = max(highest_use, int(found[1]))
    print(text)  # the log of this step is the picture of the dashboard
    tiles = [line.strip() for line in text.splitlines() if re.search(r"^ *(GPU \d|memory|lr) ", line)]
    assert re.search(r"memory +\d", text), "the dashboard has no tile for the memory"
    if options.is_gpu:
        assert re.search(r"GPU 0 ", text), "the dashboard shows no GPU"
        assert highest_use > 0, "the dashboard shows a GPU that is never in use"
    return tiles or ["no tiles"]


def run_bench(options: StepOptions) -> list[str]:
    """Return the measurements of `lotr-tui bench --only gpu`."""
    lines = _run("bench", "--only", "gpu", "--repeat", "1").splitlines()
    assert len(lines) > 1 or not options.is_gpu, lines
    return [re.sub(r" +", " ", line.strip()) for line in lines]


def _status() -> dict[str, Any]:
    status: dict[str, Any] = json.loads(_run("status", "detached", "--json"))
    return status


def _run(*arguments: str) -> str:
    """Run a command of the program, log its output, and return what it prints on stdout."""
    process = subprocess.run(module_command("lotr_tui", *arguments), stdout=subprocess.PIPE, text=True)
    print(f"$ lotr-tui {' '.join(arguments)}\n{process.stdout}", flush=True)
    assert process.returncode == 0, f"lotr-tui {arguments[0]} ended with exit code {process.returncode}"
    return process.stdout
