"""What many tests need: corpora, a run to load, and the command line as people call it."""

import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from safetensors.numpy import save

from engine.config import Config
from engine.data.vocabulary import Vocabulary
from engine.models.numpy_lstm import weight_shapes

# How long an example takes says something of the machine alone. Where CI looks on, the examples are always the same;
# to find new ones is what every other run is for, and `tests.faults.fuzz`.
settings.register_profile(
    "ours", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("ours")

CHECKOUT = Path(__file__).resolve().parent.parent
TAME = ("LOTR_TUI_DEBUG", "LOTR_TUI_HOME", "PYTHONIOENCODING", "FORCE_COLOR")
KNOWN_WORDS = ("bilbo", "baggins", "is", "the", "road", "river", "and", "a", "friend", "of", "mine", "old")


def sentences(number, seed=7):
    """So many utterances of a few words each, repeatable, with words frequent enough for a vocabulary."""
    chance = random.Random(seed)
    who = ["the miller", "our neighbour", "my old friend", "the ferryman", "a stranger"]
    does = ["carries", "forgets", "watches", "counts", "paints", "sells"]
    what = ["the green barrels", "a bag of apples", "seven lanterns", "the north gate", "his wet boots"]
    when = ["before sunrise", "all winter long", "in the evening", "when nobody looks"]
    return [" ".join(chance.choice(part) for part in (who, does, what, when)) for _ in range(number)]


def write_csv(path, texts, encoding="utf-8", separator=",", columns=("char", "dialog")):
    """A CSV of a speaker and a text a row."""
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(columns)
        writer.writerows((f"SPEAKER{i % 3}", text) for i, text in enumerate(texts))
    return path


def write_run(folder, seed=0):
    """A whole run with random weights: nothing was trained, but everything can be loaded and played."""
    config = Config("tiny").with_values(embedding_size=8, hidden_size=8)
    vocabulary = Vocabulary(("<unk>", "<eos>", *KNOWN_WORDS))
    chance = np.random.default_rng(seed)
    shapes = weight_shapes(config.model, len(vocabulary))
    weights = {name: chance.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    (folder / "vocabulary.json").write_text(vocabulary.to_json())
    (folder / "model.safetensors").write_bytes(save(weights))
    return folder


def pytest_sessionfinish():
    """Have a worker of xdist, which is killed if it does not end in time, write before that which lines it has run."""
    coverage = sys.modules.get("coverage")
    measuring = coverage and coverage.Coverage.current()
    if measuring:
        measuring.save()


@pytest.fixture(scope="session")
def lotr_csv():
    """The real dialogues, which are not part of the repository."""
    shared = os.environ.get("LOTR_TUI_SHARED") or CHECKOUT.parent / "shared"
    path = Path(shared) / "data" / "lotr_scripts.csv"
    if not path.is_file():
        pytest.skip("needs ../shared/data/lotr_scripts.csv beside the checkout, or LOTR_TUI_SHARED")
    return path


@pytest.fixture
def small_csv(tmp_path):
    """A corpus big enough to train on: 120 lines of the columns `char` and `dialog`."""
    return write_csv(tmp_path / "small.csv", sentences(120))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home of runs; the folder itself does not exist yet."""
    path = tmp_path / "home"
    monkeypatch.setenv("LOTR_TUI_HOME", str(path))
    return path


@pytest.fixture
def untrained_run(tmp_path):
    """A run outside the runs folder, with random weights; knows "bilbo baggins is the road ..."."""
    return write_run(tmp_path / "untrained")


@pytest.fixture(scope="session")
def environment():
    """Makes the environment of a process of ours, without the settings of whoever runs the tests."""

    def make(home, **more):
        clean = {name: value for name, value in os.environ.items() if name not in TAME}
        return {**clean, "LOTR_TUI_HOME": str(home), "COLUMNS": "120", "NO_COLOR": "1", **more}

    return make


@pytest.fixture(scope="session")
def server():
    """The process that the commands are forked from."""
    script = Path(__file__).parent / "support" / "command_server.py"
    with subprocess.Popen(
        [sys.executable, "-P", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def command(server, home, tmp_path, environment):
    """Runs `lotr-tui` with the arguments in a process of its own, in a folder that is not the checkout."""
    files = tmp_path / ".command"
    files.mkdir()

    def run(*arguments, stdin=b"", **more):
        paths = {name: files / name for name in ("stdin", "stdout", "stderr")}
        paths["stdin"].write_bytes(stdin)
        arguments = [str(argument) for argument in arguments]
        order = {
            "arguments": arguments,
            "environment": environment(home, **more),
            "folder": str(tmp_path),
            **{name: str(path) for name, path in paths.items()},
        }
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, paths["stdout"].read_text(), paths["stderr"].read_text())

    return run
