"""Groups about training: speed, time to a quality, dashboard, trackers, processes, and growth with the data."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from engine.models.pretrained.names import SMOLLM2, is_base_stored
from engine.presets import PRESETS
from tests.bench.measuring import Figure, Skip, all_cores, alternate, call, compare, run
from tests.support.files import TORCHRUN
from tests.support.terminal import SESSION_COMMAND, Terminal


def _corpus(options):
    return {"corpus": str(options.csv.resolve())} if options.csv else {}


def _csv(options):
    return ["--csv", options.csv.resolve()] if options.csv else []


def measure_train(options, precisions=("fp32", "bf16"), num_steps=18, num_epochs=2):
    """Training speed on the notebook's model, beside the notebook's loop and the matrix products alone."""
    cores = all_cores()

    def notebook():
        result, _ = call("loops", "train_notebook", _corpus(options), num_epochs, threads=cores)
        return result["tokens"] / result["seconds"][-1]

    for precision in precisions:
        if precision == "bf16" and not any(
            flag in Path("/proc/cpuinfo").read_text() for flag in ("avx512_bf16", "amx")
        ):
            raise Skip("this CPU has no bf16 instructions")
        values = _corpus(options) | {"precision": precision, "eval_every_epochs": 1000}
        shares = []

        def ours(values=values, precision=precision, shares=shares):
            result, _ = call("loops", "train_steps", "notebook", values, 3, num_steps, threads=cores)
            shares.append(result["flops"] / call("loops", "multiply_layer", precision, threads=cores)[0])
            return result["tokens_per_second"]

        name = f"training, 2 layers of 512, {precision}"
        speeds = alternate(options.repeat, ours, notebook)
        yield from compare(name, "the notebook's loop, fp32", "tokens/s", *speeds)
        yield Figure(f"{name}, share of the matrix products", "", tuple(shares))


def measure_adapter(options):
    """Training speed of an adapter of SmolLM2 on one core, in CPU time, beside PEFT and transformers."""
    training = PRESETS["lora"].training
    num_tokens = training.batch_size * training.bptt
    if not is_base_stored(SMOLLM2) or not importlib.util.find_spec("peft"):
        raise Skip("it needs `lotr-tui fetch smollm2` and peft")
    values = _corpus(options) | {"mode": "dialogue"}

    def ours():
        return num_tokens / call("loops", "train_steps", "lora", values, 1, 2)[0]["cpu_seconds"]

    def peft():
        return num_tokens / call("loops", "train_peft", 1, 2)[0]

    speeds = alternate(min(options.repeat, 3), ours, peft)
    yield from compare("training of an adapter", "PEFT and transformers", "tokens/s", *speeds)


def measure_quality(options):
    """Time of `train` until better than Kneser-Ney, beside 50 epochs of the notebook."""

    def ours():
        started, kneser_ney = time.perf_counter(), 0.0
        with tempfile.TemporaryDirectory() as folder:
            train = ["train", "--preset", "tiny", "--mode", "stream", "--no-tui", "--json"]
            command = [*SESSION_COMMAND, *train, *_csv(options)]
            with subprocess.Popen([*map(str, command), "--runs-dir", folder], stdout=subprocess.PIPE) as process:
                for event in map(json.loads, process.stdout):
                    kneser_ney = event.get("kneser_ney_perplexity") or kneser_ney
                    if event.get("valid_perplexity", float("inf")) < kneser_ney:
                        process.kill()
                        return time.perf_counter() - started
        raise RuntimeError("`tiny` ended above the perplexity of Kneser-Ney")

    def notebook():
        result, usage = call("loops", "train_notebook", _corpus(options), 3, threads=all_cores())
        return usage.seconds + 47 * sorted(result["seconds"])[1]

    seconds = alternate(options.repeat, ours, notebook)
    yield from compare("train until better than Kneser-Ney", "50 notebook epochs", "s", *seconds)


def command_speed(*options, launcher=(sys.executable, "-m"), in_terminal=False, **environment):
    """Train by the command line, and return the tokens per second that the record of the run gives."""
    from engine.events import Failed, Finished, Started, Step
    from engine.runs.directory import RecordFollower

    with tempfile.TemporaryDirectory() as home, ExitStack() as stack:
        command = [*launcher, "lotr_tui", "train", "--run", "measured", *map(str, options)]
        if in_terminal:
            terminal = stack.enter_context(Terminal(command, 160, 45, home).spawn())
        else:
            variables = os.environ | {"LOTR_TUI_HOME": home} | environment
            process = subprocess.Popen([*command, "--no-tui"], env=variables, stdout=subprocess.DEVNULL)
        follower, events = RecordFollower(Path(home, "runs", "measured", "metrics.jsonl")), []
        while not events or not isinstance(events[-1], (Finished, Failed)):
            if in_terminal:
                terminal.read_until_quiet(0.3, 0.3)
            elif process.poll() is not None and process.returncode:
                raise RuntimeError(f"the training ended with exit code {process.returncode}")
            else:
                time.sleep(0.3)
            events += follower.read(0.1)
        if not in_terminal:
            with suppress(subprocess.TimeoutExpired):  # the training waits for its trackers, of which one may hang
                process.wait(15)
            process.kill()
            process.wait()
    steps = [event for event in events if isinstance(event, Step)]
    started = next(event for event in events if isinstance(event, Started))
    return started.train_tokens * (steps[-1].epoch - steps[0].epoch) / (steps[-1].seconds - steps[0].seconds)


def measure_dashboard(options, epochs=3):
    """Training speed with the dashboard, beside `--no-tui`."""
    tiny = ("--preset", "tiny", "--epochs", epochs, *_csv(options))
    speeds = alternate(options.repeat, lambda: command_speed(*tiny, in_terminal=True), lambda: command_speed(*tiny))
    yield from compare("training with the dashboard", "--no-tui", "tokens/s", *speeds)


def measure_trackers(options, epochs=12, names=None):
    """Training speed with each tracker, and with one that hangs, relative to none."""
    from lotr_tui.trackers.libraries import TRACKER_NAMES

    names = [name for name in TRACKER_NAMES if importlib.util.find_spec(name) and (names is None or name in names)]
    tiny = ("--preset", "tiny", "--epochs", epochs, *_csv(options))
    with tempfile.TemporaryDirectory() as folder:
        local = {"WANDB_MODE": "offline"}
        Path(folder, "wandb.py").write_text("import time\ntime.sleep(1e6)\n")
        hanging = {"PYTHONPATH": os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))}
        functions = [lambda: command_speed(*tiny)]
        functions += [lambda name=name: command_speed(*tiny, "--log", name, **local) for name in names]
        functions.append(lambda: command_speed(*tiny, "--log", "wandb", **hanging))
        baseline, *speeds = alternate(options.repeat, *functions)
    yield Figure("training without a tracker", "tokens/s", tuple(baseline))
    for name, rates in zip([*names, "a tracker whose import never ends"], speeds, strict=True):
        ratios = tuple(rate / reference for rate, reference in zip(rates, baseline, strict=True))
        yield Figure(f"training with {name}, relative to none", "", ratios)


def measure_scale_out(options, epochs=3):
    """Training speed of two processes by torchrun, beside one process with two threads."""
    settings = f"precision=fp32 device=cpu validation_metric=perplexity eval_every_epochs={epochs} checkpoint_seconds=0"
    sets = [f"--set={setting}" for setting in settings.split()]
    notebook = ["--preset", "notebook", "--epochs", epochs, *sets, *_csv(options)]

    def train(launcher, num_threads):
        return command_speed(*notebook, "--threads", num_threads, launcher=launcher)

    speeds = alternate(options.repeat, lambda: train(TORCHRUN, 1), lambda: train([sys.executable, "-m"], 2))
    yield from compare("training with 2 processes", "one process, 2 threads", "tokens/s", *speeds)


def measure_growth(options, megabytes=(1.1, 11, 110), vocabularies=(1_000, 10_000, 50_000)):
    """Time and memory by the size of the text and of the vocabulary, with one thread."""
    rounds = range(options.repeat)
    with tempfile.TemporaryDirectory() as home:
        text = Path(home, "text.txt")
        for size in megabytes:
            call("loops", "write_text", str(text), int(size * 1e6))
            usages = [run([*SESSION_COMMAND, "data", "info", text, "--json"], home) for _ in rounds]
            counts = json.loads(usages[0].output)
            name = f"{size:g} MB, {counts['num_tokens']:,} words, {counts['num_distinct_tokens']:,} distinct:"
            yield Figure(f"{name} data info", "s", tuple(usage.cpu_seconds for usage in usages))
            yield _peak(f"{name} data info", usages)
            seconds = [call("loops", "index_words", str(text))[0] for _ in rounds]
            both = ([each[key] for each in seconds] for key in ("ours", "notebook"))
            yield from compare(f"{name} indexing", "the notebook", "s", *both)
        sampled = {"softmax_samples": 2000, "label_smoothing": 0.0}
        settings = {"min_count": 100, "max_eval_tokens": 2000, "threads": 1} | sampled
        train = [*SESSION_COMMAND, "train", "--no-tui", "--json", "--preset", "tiny", "--text", text]
        train += [f"--set={key}={value}" for key, value in settings.items()]
        usages = [run(train, home, stop_at='"step"') for _ in rounds]
        yield Figure(f"{name} train, to the first step", "s", tuple(usage.cpu_seconds for usage in usages))
        yield _peak(f"{name} train, to the first step", usages)
        for vocabulary in vocabularies:
            call("loops", "write_text", str(text), 2_000_000, vocabulary)
            for values in ({"label_smoothing": 0.0}, sampled)[: 1 + (vocabulary > 2000)]:
                values = values | {"corpus": str(text), "corpus_format": "text", "min_count": 1}
                runs = [call("loops", "train_steps", "tiny", values, 1, 5, "cpu", 2048) for _ in rounds]
                classes = "2,000 samples" if "softmax_samples" in values else "all words"
                name = f"vocabulary of {vocabulary:,}, {classes}:"
                yield Figure(f"{name} step", "ms", tuple(1000 * result["cpu_seconds"] for result, _ in runs))
                yield _peak(name, [usage for _, usage in runs])
                if "softmax_samples" not in values:
                    rates = tuple(result["scored_per_second"] for result, _ in runs)
                    yield Figure(f"{name} exact scoring", "words/s", rates)


def measure_byte_pairs(options, megabytes=110):
    """Time and memory to learn 8,000 byte pairs of 110 MB, and to encode with them."""
    with tempfile.TemporaryDirectory() as home:
        text = Path(home, "text.txt")
        call("loops", "write_text", str(text), int(megabytes * 1e6))
        runs = [call("loops", "learn_byte_pairs", str(text), 8_000) for _ in range(options.repeat)]
    for what in ("learn", "encode"):
        yield Figure(f"{what}, 8,000 byte pairs, {megabytes} MB", "s", tuple(run[what] for run, _ in runs))
    yield _peak("byte pairs", [usage for _, usage in runs])


def _peak(name, usages):
    return Figure(f"{name} peak memory", "MB", tuple(usage.megabytes for usage in usages))
