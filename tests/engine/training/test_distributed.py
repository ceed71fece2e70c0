"""Several processes train as one would: the same losses, whatever is drawn at random; and go on with the same bits."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config, preset
from engine.data.dataset import Dataset, prepare
from engine.runtime import distributed
from engine.runtime.distributed import ALONE, Lost, join
from engine.runtime.process import Place
from tests.support.distributed_worker import Told, tell

CHECKOUT = Path(__file__).resolve().parents[3]
MANNERS: dict[str, dict[str, Any]] = {
    "the default preset": {"lr": 0.03, "average": 0.9},
    "some words of the softmax, two layers, a mask each step": {
        "softmax_samples": 10,
        "layers": 2,
        "locked": False,
        "dropout_between": 0.3,
        "spelling": False,
        "evaluate_updates": 7,
    },
    "AR and TAR, windows of any length, an average from a trigger on, fine-tuning": {
        "ar": 2.0,
        "tar": 1.0,
        "variable_window": True,
        "pauses": False,
        "optimizer": "sgd",
        "lr": 1.0,
        "schedule": "plateau",
        "averaging": "nt_asgd",
        "nonmonotone": 1,
        "evaluate_updates": 3,
        "fine_tune_epochs": 1,
        "fine_tune_lr": 0.5,
    },
}


def configuration(dataset: Dataset, manner: str) -> Config:
    """The default preset, small, and what the manner changes."""
    small = {"embedding_size": 16, "hidden_size": 16, "epochs": 2, "batch_size": 4, "window": 12, "threads": 1}
    corpus = {"corpus": dataset.corpus.source, "corpus_format": "text", "device": "cpu", "precision": "fp32"}
    return preset("default").with_values(**small, **corpus, **MANNERS[manner])


class Alone:
    """Stands in for `Several`, which would wait for the others."""

    left = 0

    def __init__(self, place: Place) -> None:
        self.place = place

    def leave(self) -> None:
        Alone.left += 1


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("[gloo] Connection closed by peer [127.0.0.1]:4242", Lost),
        ("[gloo] Read error: Connection reset by peer", Lost),
        ("mat1 and mat2 shapes cannot be multiplied", RuntimeError),
    ],
)
def test_only_what_gloo_says_of_another_process_is_told_as_its_end(
    monkeypatch: pytest.MonkeyPatch, said: str, kind: type[Exception]
) -> None:
    monkeypatch.setattr(distributed, "place", lambda: Place(1, 2, 1, 2))
    monkeypatch.setattr(distributed, "Several", Alone)
    before = Alone.left
    with pytest.raises(Exception, match="has ended" if kind is Lost else said) as raised, join():
        raise RuntimeError(said)
    assert type(raised.value) is kind
    assert Alone.left == before + 1


@pytest.fixture(scope="module")
def folder(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes told."""
    folder = tmp_path_factory.mktemp("several")
    texts = [configuration(dataset, manner).to_json() for manner in MANNERS]
    (folder / "configurations.json").write_text(json.dumps(texts))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "tests.support.distributed_worker", str(folder)],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder


def told(folder: Path, manner: str) -> dict[str, Told]:
    results: list[dict[str, Told]] = json.loads((folder / "told.json").read_text())
    return results[list(MANNERS).index(manner)]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("manner", MANNERS)
def test_the_same_losses_as_one_process(dataset: Dataset, folder: Path, manner: str) -> None:
    config = configuration(dataset, manner)
    alone, several = tell(config, prepare(config.data), ALONE), told(folder, manner)["whole"]
    assert len(alone["steps"]) == len(several["steps"]) > 10
    for ours, theirs in zip(alone["steps"], several["steps"], strict=True):
        assert ours[0] == theirs[0]
        assert math.log(ours[1]) == pytest.approx(math.log(theirs[1]), abs=1e-4)
        assert ours[2] == pytest.approx(theirs[2], rel=1e-3), "the norm of the gradient"
        assert ours[3] == theirs[3], "the learning rate"
    for ours, theirs in zip(alone["evaluated"], several["evaluated"], strict=True):
        assert (ours[0], ours[2]) == (theirs[0], theirs[2])
        assert math.log(ours[1]) == pytest.approx(math.log(theirs[1]), abs=1e-4)
    assert math.log(alone["test"]) == pytest.approx(math.log(several["test"]), abs=1e-4)
    assert alone["bits"] != several["bits"], "the sums of two halves are rounded otherwise"


@pytest.mark.parametrize("manner", MANNERS)
def test_interrupted_they_go_on_with_the_same_bits(folder: Path, manner: str) -> None:
    results = told(folder, manner)
    whole, first, rest = results["whole"], results["first"], results["rest"]
    assert 0 < len(first["steps"]) < len(whole["steps"])
    assert first["steps"] + rest["steps"] == whole["steps"]
    assert first["evaluated"] + rest["evaluated"] == whole["evaluated"]
    assert rest["bits"] == whole["bits"]
    assert rest["test"] == whole["test"]


def test_only_the_first_process_tells(folder: Path) -> None:
    assert json.loads((folder / "heard-1.json").read_text()) == [0] * len(MANNERS)
