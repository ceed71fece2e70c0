"""A training that was interrupted anywhere and gone on with has the bits of one that never was."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.control import Command, Steering
from engine.data.dataset import Dataset
from engine.errors import RunError
from engine.events import Evaluated, Finished, Resume, Sampled, Snapshot, Steered, Step, TrainingEvent
from engine.training.checkpoint import Saved
from engine.training.run import train
from tests.support.training import config_of, of, same, weights_of

MANNERS: dict[str, dict[str, Any]] = {
    "adamw, average, variable windows": {"average": 0.9},
    "spelling and pauses": {"spelling": True, "pauses": True, "variable_window": False},
    "nt-asgd and fine-tuning": {
        "optimizer": "sgd",
        "lr": 1.0,
        "averaging": "nt_asgd",
        "nonmonotone": 1,
        "evaluate_updates": 3,
        "fine_tune_epochs": 2,
        "fine_tune_lr": 0.5,
        "schedule": "plateau",
    },
    "two layers, some words of the softmax, patience": {
        "layers": 2,
        "softmax_samples": 10,
        "patience": 2,
        "evaluate_updates": 5,
        "lr": 0.2,
    },
    "bfloat16, its layers written out, pauses": {"precision": "bf16", "layers": 2, "pauses": True},
}


class Interrupted:
    """Says stop once a training has done so many updates."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.done = 0

    def __call__(self) -> bool:
        return self.done >= self.step

    def watch(self, events: Any) -> list[TrainingEvent]:
        seen = []
        for event in events:
            self.done = max(self.done, getattr(event, "step", 0))
            seen.append(event)
        return seen


def saved_at(events: list[TrainingEvent], path: Path) -> Saved:
    path.write_bytes(of(Snapshot, events)[-1].content)
    return Saved(path)


def told(events: list[TrainingEvent]) -> list[TrainingEvent]:
    """What a training says that does not depend on the clock."""
    return [
        (event.step, event.valid_perplexity, event.best) if isinstance(event, Evaluated) else event  # type: ignore[misc]
        for event in events
        if isinstance(event, (Evaluated, Sampled))
    ]


@pytest.fixture
def every_update_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.trainer.REPORT_SECONDS", 0.0)


@pytest.mark.usefixtures("every_update_is_told")
@pytest.mark.parametrize("manner", MANNERS)
def test_interrupted_anywhere_it_ends_with_the_same_bits(
    dataset: Dataset,
    manner: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.models.lstm.WORTH_IT_FROM", 1)
    config = config_of(epochs=2, **MANNERS[manner])
    whole = list(train(config, dataset, "a-run", lambda: False))
    last = of(Step, whole)[-1].step
    for step in range(0, last, max(1, last // 5)):
        stop = Interrupted(step)
        first = stop.watch(train(config, dataset, "a-run", stop))
        assert first[-1].reason == "stopped"  # type: ignore[union-attr]
        second = list(train(config, dataset, "a-run", lambda: False, saved=saved_at(first, tmp_path / "resume")))
        assert of(Resume, second)[0].step == of(Snapshot, first)[-1].step + 1
        assert told(first) + told(second) == told(whole)
        assert same(weights_of(second[-1]), weights_of(whole[-1]))
        assert second[-1].test_perplexity == whole[-1].test_perplexity  # type: ignore[union-attr]


@pytest.mark.usefixtures("every_update_is_told")
@pytest.mark.parametrize("averaging", ["none", "ema"])
def test_interrupted_while_it_is_fine_tuned_it_ends_with_the_same_bits(
    dataset: Dataset,
    averaging: str,
    tmp_path: Path,
) -> None:
    """The optimizer and the average are then others than those the training began with."""
    values = {"averaging": averaging, "average": 0.9, "weight_decay": 0.01}
    config = config_of(epochs=1, fine_tune_epochs=2, fine_tune_lr=0.5, nonmonotone=50, **values)
    whole = list(train(config, dataset, "a-run", lambda: False))
    begin, _, last = (event.step for event in of(Evaluated, whole)[1:])
    for step in (begin + 1, last - 1):
        stop = Interrupted(step)
        first = stop.watch(train(config, dataset, "a-run", stop))
        saved = saved_at(first, tmp_path / "resume")
        assert (saved.step, saved.rest["fine_tuning"]) == (step, True)
        second = list(train(config, dataset, "a-run", lambda: False, saved=saved))
        assert told(first) + told(second) == told(whole)
        assert same(weights_of(second[-1]), weights_of(whole[-1]))


@pytest.mark.usefixtures("every_update_is_told")
def test_interrupted_again_and_again(dataset: Dataset, tmp_path: Path) -> None:
    config = config_of(epochs=2, average=0.9)
    whole = list(train(config, dataset, "a-run", lambda: False))
    heard: list[TrainingEvent] = []
    saved = None
    for step in range(3, of(Step, whole)[-1].step, 7):
        stop = Interrupted(step)
        part = stop.watch(train(config, dataset, "a-run", stop, saved=saved))
        saved = saved_at(part, tmp_path / "resume")
        heard += part
    heard += list(train(config, dataset, "a-run", lambda: False, saved=saved))
    assert told(heard) == told(whole)
    assert same(weights_of(heard[-1]), weights_of(whole[-1]))
    steps = [event.step for event in of(Step, heard)]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("asks", [{"checkpoint_seconds": 1e-9}, {"evaluate_updates": 3}])
def test_what_was_told_after_it_was_saved_is_not_told_again(
    dataset: Dataset,
    asks: dict[str, Any],
) -> None:
    """Killed at its end and resumed from any of its snapshots, each update is validated once."""
    steering = Steering()
    events: list[TrainingEvent] = []
    for event in train(config_of(epochs=2, **asks), dataset, "a-run", lambda: False, steering):
        if isinstance(event, Step):
            steering.send(Command("checkpoint"))
        events.append(event)
    saved = [place for place, event in enumerate(events) if isinstance(event, Snapshot)]
    assert saved
    for place in saved:
        step = events[place].step  # type: ignore[union-attr]
        assert all(event.step > step for event in of(Evaluated, events[place:]))


def test_time_goes_on_where_it_was(dataset: Dataset, tmp_path: Path) -> None:
    config = config_of(epochs=2)
    stop = Interrupted(20)
    first = stop.watch(train(config, dataset, "a-run", stop))
    saved = saved_at(first, tmp_path / "resume")
    second = list(train(config, dataset, "a-run", lambda: False, saved=saved))
    assert of(Step, second)[0].seconds >= saved.seconds >= of(Step, first)[-1].seconds
    assert of(Finished, second)[0].seconds >= saved.seconds


def steered(dataset: Dataset, when: dict[int, Command], **values: Any) -> list[TrainingEvent]:
    """A training that is asked for something after so many updates."""
    steering = Steering()
    events = []
    for event in train(config_of(epochs=2, **values), dataset, "a-run", lambda: False, steering):
        if isinstance(event, Step) and event.step in when:
            steering.send(when[event.step])
        events.append(event)
    return events


@pytest.mark.usefixtures("every_update_is_told")
def test_what_is_asked_is_done_and_told(dataset: Dataset) -> None:
    plain = steered(dataset, {}, variable_window=False)
    events = steered(
        dataset,
        {5: Command("checkpoint"), 10: Command("lr", "0.5"), 12: Command("prompt", "the road")},
        variable_window=False,
    )
    done = of(Steered, events)
    assert [(event.step, event.what, event.value) for event in done] == [
        (5, "checkpoint", ""),
        (10, "lr", "0.5"),
        (12, "prompt", "the road"),
    ]
    assert [event.step for event in of(Snapshot, events)] == [5, 10, 12]
    rates, usual = ({event.step: event.lr for event in of(Step, each)} for each in (events, plain))
    assert all(rates[step] == usual[step] * (1 if step <= 10 else 0.5) for step in usual)
    prompts = {event.step: event.prompt for event in of(Sampled, events)}
    assert all((prompts[step] == "the road") == (step > 12) for step in prompts)
    assert not same(weights_of(events[-1]), weights_of(plain[-1]))


@pytest.mark.usefixtures("every_update_is_told")
def test_what_was_asked_is_still_so_after_a_resume(dataset: Dataset, tmp_path: Path) -> None:
    when = {5: Command("lr", "0.25"), 6: Command("prompt", "the road")}
    whole = steered(dataset, when)
    first = steered(dataset, when | {9: Command("detach")})
    assert first[-1].reason == "detached"  # type: ignore[union-attr]
    second = list(
        train(config_of(epochs=2), dataset, "a-run", lambda: False, saved=saved_at(first, tmp_path / "resume"))
    )
    assert same(weights_of(second[-1]), weights_of(whole[-1]))
    assert told(first) + told(second) == told(whole)


@pytest.mark.usefixtures("every_update_is_told")
def test_a_pause_waits_saves_and_changes_nothing(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    steering, waited = Steering(), []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            steering.send(Command("go_on"))

    monkeypatch.setattr(steering, "wait", wait)
    events = []
    for event in train(config_of(epochs=2), dataset, "a-run", lambda: False, steering):
        if isinstance(event, Step) and event.step == 4:
            steering.send(Command("pause"))
        events.append(event)
    assert len(waited) == 3
    assert [event.what for event in of(Steered, events)] == ["pause", "go_on"]
    assert [event.step for event in of(Snapshot, events)] == [4]
    assert same(weights_of(events[-1]), weights_of(steered(dataset, {})[-1]))


def test_a_paused_training_can_be_stopped(dataset: Dataset) -> None:
    steering = Steering()
    steering.send(Command("pause"))
    stop = Interrupted(10**9)
    events = []
    for event in train(config_of(), dataset, "a-run", stop, steering):
        events.append(event)
        if isinstance(event, Snapshot):
            stop.step = 0
    assert events[-1].reason == "stopped"  # type: ignore[union-attr]


def test_it_is_saved_every_so_many_seconds(dataset: Dataset) -> None:
    often = list(train(config_of(epochs=1, checkpoint_seconds=1e-9), dataset, "a-run", lambda: False))
    assert {event.step for event in of(Snapshot, often)} == set(range(of(Step, often)[-1].step + 1))
    assert not of(Snapshot, list(train(config_of(epochs=1, checkpoint_seconds=0), dataset, "a-run", lambda: False)))


@pytest.fixture
def a_file(dataset: Dataset, tmp_path: Path, every_update_is_told: None) -> Path:
    """Saved in the middle of an epoch."""
    stop = Interrupted(3)
    path = tmp_path / "resume.safetensors"
    path.write_bytes(of(Snapshot, stop.watch(train(config_of(), dataset, "a-run", stop)))[-1].content)
    return path


def test_another_configuration_is_refused_and_the_difference_named(dataset: Dataset, a_file: Path) -> None:
    with pytest.raises(RunError, match=r"saved with lr=0\.03 but the configuration says lr=0\.01"):
        list(train(config_of(lr=0.01), dataset, "a-run", lambda: False, saved=Saved(a_file)))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def changed(change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        tensors, rest = load_file(path), Saved(path).rest
        change(tensors, rest)
        save_file(tensors, path, metadata={"rest": json.dumps(rest)})

    return write


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        noise,
        changed(lambda tensors, rest: rest.pop("chance")),
        changed(lambda tensors, rest: rest.update(step="7")),
        changed(lambda tensors, rest: rest.update(fine_tuning="no")),
        changed(lambda tensors, rest: rest.update(chance=[3, [1, 2], None])),
        changed(lambda tensors, rest: rest.update(config=[])),
        changed(lambda tensors, rest: tensors.pop("network.output.bias")),
        changed(
            lambda tensors, rest: tensors.update({"network.output.bias": tensors["network.output.bias"][:3].clone()})
        ),
        changed(lambda tensors, rest: tensors.update({"masks": tensors["masks"][:7].clone()})),
        changed(lambda tensors, rest: tensors.pop("best.output.bias")),
        changed(lambda tensors, rest: rest.update(step=float("inf"))),
        changed(lambda tensors, rest: rest.update(seconds=float("nan"))),
        changed(lambda tensors, rest: rest.update(seconds=10**400)),
        changed(lambda tensors, rest: rest.update(epoch=float("inf"))),
        changed(lambda tensors, rest: rest.update(position=10**9)),
        changed(lambda tensors, rest: rest.update(position=-1)),
        changed(lambda tensors, rest: rest.update(averaged_updates=float("inf"))),
        changed(lambda tensors, rest: rest.update(lr_share=float("nan"))),
        changed(lambda tensors, rest: rest.update(history=["a"])),
        changed(lambda tensors, rest: rest.update(sample_prompt="\ud800")),
        changed(lambda tensors, rest: rest.update(chance=["a"])),
        changed(lambda tensors, rest: tensors.update({"states.0.cell": tensors["states.0.cell"][:, :1].clone()})),
        changed(lambda tensors, rest: tensors.update({"optimizer.0.step": torch.zeros(3)})),
        changed(lambda tensors, rest: tensors.update({"optimizer.0.exp_avg": torch.zeros(3)})),
        changed(lambda tensors, rest: tensors.pop("optimizer.0.exp_avg")),
        changed(lambda tensors, rest: tensors.update({"optimizer.x.step": torch.zeros(())})),
        os.mkfifo,
        lambda path: os.truncate(path, 50_000_000_000),
    ],
)
def test_a_damaged_file_is_refused(dataset: Dataset, a_file: Path, damage: Callable[[Path], None]) -> None:
    if damage is os.mkfifo:
        a_file.unlink()  # type: ignore[unreachable]
    damage(a_file)
    with pytest.raises(RunError, match=r"resume\.safetensors is damaged"):
        list(train(config_of(), dataset, "a-run", lambda: False, saved=Saved(a_file)))


def test_what_is_larger_than_all_that_a_training_has_is_not_loaded(
    dataset: Dataset,
    a_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed(lambda tensors, rest: tensors.update({"more": torch.zeros(300_000)}))(a_file)
    monkeypatch.setattr("engine.training.checkpoint.safe_open", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(RunError, match=r"resume\.safetensors is damaged"):
        list(train(config_of(), dataset, "a-run", lambda: False, saved=Saved(a_file)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is missing; the run cannot be resumed"):
        Saved(tmp_path / "resume.safetensors")
