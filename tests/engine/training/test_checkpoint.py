"""Resume from a checkpoint is bit-exact; control commands; damaged checkpoints."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from engine.control import CommandQueue, ControlCommand
from engine.data.dataset import Dataset
from engine.errors import RunError
from engine.events import CommandApplied, Evaluated, Finished, Resume, Sampled, Snapshot, Step, TrainingEvent
from engine.training.checkpoint import ResumeCheckpoint
from engine.training.run import train
from tests.support.training import events_of, make_config, weights_equal, weights_of
from tests.support.transformer import TRANSFORMER

SETTINGS: dict[str, dict[str, Any]] = {
    "adamw, moving average, variable BPTT": {"ema_decay": 0.9},
    "subword embeddings and punctuation": {"subword_embeddings": True, "punctuation": True, "variable_bptt": False},
    "nt-asgd and fine-tuning": {
        "optimizer": "sgd",
        "lr": 1.0,
        "averaging": "nt_asgd",
        "nonmonotone_interval": 1,
        "eval_every_steps": 3,
        "fine_tune_epochs": 2,
        "fine_tune_lr": 0.5,
        "schedule": "plateau",
    },
    "two layers, sampled softmax, patience": {
        "num_layers": 2,
        "softmax_samples": 10,
        "patience": 2,
        "eval_every_steps": 5,
        "lr": 0.2,
    },
    "discriminative rates, gradual unfreezing, slanted triangular": {
        "num_layers": 2,
        "tie_weights": False,
        "layer_lr_decay": 2.6,
        "unfreeze_epochs": 1,
        "schedule": "slanted_triangular",
        "ema_decay": 0.9,
        "weight_decay": 0.1,
    },
    "gradual unfreezing of SGD": {
        "optimizer": "sgd",
        "lr": 0.5,
        "layer_lr_decay": 1.5,
        "unfreeze_epochs": 1,
        "fine_tune_epochs": 1,
        "fine_tune_lr": 0.5,
    },
    "bfloat16 layers, punctuation": {"precision": "bf16", "num_layers": 2, "punctuation": True},
    "a transformer": {**TRANSFORMER, "variable_bptt": False, "variational_dropout": False, "ema_decay": 0.9},
    "a transformer in bfloat16, fine-tuning": {
        **TRANSFORMER,
        "variable_bptt": False,
        "precision": "bf16",
        "softmax_samples": 10,
        "fine_tune_epochs": 1,
    },
}


class StopAfter:
    """Cancellation that becomes true after a number of optimizer steps."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.steps_done = 0

    def __call__(self) -> bool:
        return self.steps_done >= self.step

    def watch(self, events: Any) -> list[TrainingEvent]:
        watched = []
        for event in events:
            self.steps_done = max(self.steps_done, getattr(event, "step", 0))
            watched.append(event)
        return watched


def write_last_snapshot(events: list[TrainingEvent], path: Path) -> ResumeCheckpoint:
    path.write_bytes(events_of(Snapshot, events)[-1].content)
    return ResumeCheckpoint(path)


def results(events: list[TrainingEvent]) -> list[Any]:
    """Return the content of the events that does not depend on the clock."""
    return [
        (event.step, event.valid_perplexity, event.is_best) if isinstance(event, Evaluated) else event
        for event in events
        if isinstance(event, (Evaluated, Sampled))
    ]


@pytest.fixture
def every_step_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.reporting.REPORT_INTERVAL", 0.0)


@pytest.mark.usefixtures("every_step_is_reported")
@pytest.mark.parametrize("settings", SETTINGS)
def test_resume_from_any_step_is_bit_exact(
    dataset: Dataset,
    settings: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.models.lstm.MIN_HIDDEN_SIZE", 1)
    config = make_config(epochs=2, **SETTINGS[settings])
    whole = list(train(config, dataset, "a-run", lambda: False))
    last = events_of(Step, whole)[-1].step
    for step in range(0, last, max(1, last // 5)):
        stop = StopAfter(step)
        first = stop.watch(train(config, dataset, "a-run", stop))
        assert first[-1].reason == "stopped"  # type: ignore[union-attr]
        second = list(
            train(config, dataset, "a-run", lambda: False, checkpoint=write_last_snapshot(first, tmp_path / "resume"))
        )
        assert events_of(Resume, second)[0].step == events_of(Snapshot, first)[-1].step + 1
        assert results(first) + results(second) == results(whole)
        assert weights_equal(weights_of(second[-1]), weights_of(whole[-1]))
        assert second[-1].test_perplexity == whole[-1].test_perplexity  # type: ignore[union-attr]


@pytest.mark.usefixtures("every_step_is_reported")
@pytest.mark.parametrize("averaging", ["none", "ema"])
def test_resume_during_fine_tuning_is_bit_exact(
    dataset: Dataset,
    averaging: str,
    tmp_path: Path,
) -> None:
    """Fine-tuning replaces the optimizer and the weight average of the initial state."""
    values = {"averaging": averaging, "ema_decay": 0.9, "weight_decay": 0.01}
    config = make_config(epochs=1, fine_tune_epochs=2, fine_tune_lr=0.5, nonmonotone_interval=50, **values)
    whole = list(train(config, dataset, "a-run", lambda: False))
    begin, _, last = (event.step for event in events_of(Evaluated, whole)[1:])
    for step in (begin + 1, last - 1):
        stop = StopAfter(step)
        first = stop.watch(train(config, dataset, "a-run", stop))
        saved = write_last_snapshot(first, tmp_path / "resume")
        assert (saved.progress.step, saved.progress.fine_tuning) == (step, True)
        second = list(train(config, dataset, "a-run", lambda: False, checkpoint=saved))
        assert results(first) + results(second) == results(whole)
        assert weights_equal(weights_of(second[-1]), weights_of(whole[-1]))


@pytest.mark.usefixtures("every_step_is_reported")
def test_many_resumes_in_a_row_are_bit_exact(dataset: Dataset, tmp_path: Path) -> None:
    config = make_config(epochs=2, ema_decay=0.9)
    whole = list(train(config, dataset, "a-run", lambda: False))
    events: list[TrainingEvent] = []
    saved = None
    for step in range(3, events_of(Step, whole)[-1].step, 7):
        stop = StopAfter(step)
        part = stop.watch(train(config, dataset, "a-run", stop, checkpoint=saved))
        saved = write_last_snapshot(part, tmp_path / "resume")
        events += part
    events += list(train(config, dataset, "a-run", lambda: False, checkpoint=saved))
    assert results(events) == results(whole)
    assert weights_equal(weights_of(events[-1]), weights_of(whole[-1]))
    steps = [event.step for event in events_of(Step, events)]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("values", [{"checkpoint_seconds": 1e-9}, {"eval_every_steps": 3}])
def test_a_checkpoint_contains_the_validation_that_was_due(
    dataset: Dataset,
    values: dict[str, Any],
) -> None:
    """A resume from any snapshot does not repeat the validation of its step."""
    command_queue = CommandQueue()
    events: list[TrainingEvent] = []
    for event in train(make_config(epochs=2, **values), dataset, "a-run", lambda: False, command_queue):
        if isinstance(event, Step):
            command_queue.send(ControlCommand("checkpoint"))
        events.append(event)
    snapshots = [(index, event) for index, event in enumerate(events) if isinstance(event, Snapshot)]
    assert snapshots
    for index, snapshot in snapshots:
        assert all(event.step > snapshot.step for event in events_of(Evaluated, events[index:]))


def test_training_time_continues_after_a_resume(dataset: Dataset, tmp_path: Path) -> None:
    config = make_config(epochs=2)
    stop = StopAfter(20)
    first = stop.watch(train(config, dataset, "a-run", stop))
    saved = write_last_snapshot(first, tmp_path / "resume")
    second = list(train(config, dataset, "a-run", lambda: False, checkpoint=saved))
    assert events_of(Step, second)[0].seconds >= saved.progress.seconds >= events_of(Step, first)[-1].seconds
    assert events_of(Finished, second)[0].seconds >= saved.progress.seconds


def train_with_commands(dataset: Dataset, commands: dict[int, ControlCommand], **values: Any) -> list[TrainingEvent]:
    """Train, and send each command after the step that is its key."""
    command_queue = CommandQueue()
    events = []
    for event in train(make_config(epochs=2, **values), dataset, "a-run", lambda: False, command_queue):
        if isinstance(event, Step) and event.step in commands:
            command_queue.send(commands[event.step])
        events.append(event)
    return events


@pytest.mark.usefixtures("every_step_is_reported")
def test_commands_are_applied_and_reported(dataset: Dataset) -> None:
    plain = train_with_commands(dataset, {}, variable_bptt=False)
    events = train_with_commands(
        dataset,
        {5: ControlCommand("checkpoint"), 10: ControlCommand("lr", "0.5"), 12: ControlCommand("prompt", "the road")},
        variable_bptt=False,
    )
    assert [(event.step, event.kind, event.value) for event in events_of(CommandApplied, events)] == [
        (5, "checkpoint", ""),
        (10, "lr", "0.5"),
        (12, "prompt", "the road"),
    ]
    assert [event.step for event in events_of(Snapshot, events)] == [5, 10, 12]
    rates, scheduled = ({event.step: event.lr for event in events_of(Step, each)} for each in (events, plain))
    assert all(rates[step] == scheduled[step] * (1 if step <= 10 else 0.5) for step in scheduled)
    prompts = {event.step: event.prompt for event in events_of(Sampled, events)}
    assert all((prompts[step] == "the road") == (step > 12) for step in prompts)
    assert not weights_equal(weights_of(events[-1]), weights_of(plain[-1]))


@pytest.mark.usefixtures("every_step_is_reported")
def test_command_effects_survive_a_resume(dataset: Dataset, tmp_path: Path) -> None:
    commands = {5: ControlCommand("lr", "0.25"), 6: ControlCommand("prompt", "the road")}
    whole = train_with_commands(dataset, commands)
    first = train_with_commands(dataset, commands | {9: ControlCommand("detach")})
    assert first[-1].reason == "detached"  # type: ignore[union-attr]
    second = list(
        train(
            make_config(epochs=2),
            dataset,
            "a-run",
            lambda: False,
            checkpoint=write_last_snapshot(first, tmp_path / "resume"),
        )
    )
    assert weights_equal(weights_of(second[-1]), weights_of(whole[-1]))
    assert results(first) + results(second) == results(whole)


@pytest.mark.usefixtures("every_step_is_reported")
def test_a_pause_waits_and_saves_but_does_not_change_the_training(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    command_queue, waited = CommandQueue(), []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            command_queue.send(ControlCommand("resume"))

    monkeypatch.setattr(command_queue, "wait", wait)
    events = []
    for event in train(make_config(epochs=2), dataset, "a-run", lambda: False, command_queue):
        if isinstance(event, Step) and event.step == 4:
            command_queue.send(ControlCommand("pause"))
        events.append(event)
    assert len(waited) == 3
    assert [event.kind for event in events_of(CommandApplied, events)] == ["pause", "resume"]
    assert [event.step for event in events_of(Snapshot, events)] == [4]
    assert weights_equal(weights_of(events[-1]), weights_of(train_with_commands(dataset, {})[-1]))


def test_a_paused_training_can_be_cancelled(dataset: Dataset) -> None:
    command_queue = CommandQueue()
    command_queue.send(ControlCommand("pause"))
    stop = StopAfter(10**9)
    events = []
    for event in train(make_config(), dataset, "a-run", stop, command_queue):
        events.append(event)
        if isinstance(event, Snapshot):
            stop.step = 0
    assert events[-1].reason == "stopped"  # type: ignore[union-attr]


def test_a_checkpoint_is_saved_every_checkpoint_seconds(dataset: Dataset) -> None:
    often = list(train(make_config(epochs=1, checkpoint_seconds=1e-9), dataset, "a-run", lambda: False))
    assert {event.step for event in events_of(Snapshot, often)} == set(range(events_of(Step, often)[-1].step + 1))
    assert not events_of(
        Snapshot, list(train(make_config(epochs=1, checkpoint_seconds=0), dataset, "a-run", lambda: False))
    )


@pytest.fixture
def checkpoint_path(dataset: Dataset, tmp_path: Path, every_step_is_reported: None) -> Path:
    """Return the path of a checkpoint from the middle of an epoch."""
    stop = StopAfter(3)
    path = tmp_path / "resume.safetensors"
    path.write_bytes(events_of(Snapshot, stop.watch(train(make_config(), dataset, "a-run", stop)))[-1].content)
    return path


def test_another_configuration_is_refused_with_the_first_difference(dataset: Dataset, checkpoint_path: Path) -> None:
    with pytest.raises(RunError, match=r"saved with lr=0\.03, but the configuration has lr=0\.01"):
        list(train(make_config(lr=0.01), dataset, "a-run", lambda: False, checkpoint=ResumeCheckpoint(checkpoint_path)))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def overwrite_with_noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def changed(
    change: Callable[[dict[str, Any], dict[str, Any]], object], config: str | None = None
) -> Callable[[Path], None]:
    """Return a function that changes the tensors and the JSON values of a checkpoint, or its configuration."""

    def write(path: Path) -> None:
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        values = json.loads(metadata["trainer_state"])
        change(tensors, values)
        metadata |= {"trainer_state": json.dumps(values), "config": config or metadata["config"]}
        save_file(tensors, path, metadata)

    return write


def changed_progress(**values: Any) -> Callable[[Path], None]:
    return changed(lambda tensors, state: state["progress"].update(values))


def changed_windows(**values: Any) -> Callable[[Path], None]:
    return changed(lambda tensors, state: state["windows"].update(values))


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        overwrite_with_noise,
        changed(lambda tensors, state: state.pop("progress")),
        changed(lambda tensors, state: state.pop("windows")),
        changed(lambda tensors, state: state["windows"].pop("rng_state")),
        changed(lambda tensors, state: state["progress"].pop("step")),
        changed(lambda tensors, state: state["progress"].update(unknown=1)),
        changed(lambda tensors, state: state.update(averaged_updates=float("inf"))),
        changed(lambda tensors, state: state.clear(), config="[]"),
        changed(lambda tensors, state: None, config="[]"),
        changed(lambda tensors, state: None, config='{"training": 3}'),
        changed(lambda tensors, state: None, config="["),
        changed_progress(step="7"),
        changed_progress(step=float("inf")),
        changed_progress(fine_tuning="no"),
        changed_progress(seconds=float("nan")),
        changed_progress(seconds=10**400),
        changed_progress(epoch=float("inf")),
        changed_progress(lr_scale=float("nan")),
        changed_progress(valid_perplexities=["a"]),
        changed_progress(sample_prompt="\ud800"),
        changed_windows(rng_state=[3, [1, 2], None]),
        changed_windows(rng_state=["a"]),
        changed_windows(epoch_rng_state=["a"]),
        changed_windows(position=10**9),
        changed_windows(position=-1),
        changed(lambda tensors, state: tensors.pop("network.output.bias")),
        changed(
            lambda tensors, state: tensors.update({"network.output.bias": tensors["network.output.bias"][:3].clone()})
        ),
        changed(lambda tensors, state: tensors.update(dropout_generator=tensors["dropout_generator"][:7].clone())),
        changed(lambda tensors, state: tensors.pop("dropout_generator")),
        changed(lambda tensors, state: tensors.pop("best_model.output.bias")),
        changed(
            lambda tensors, state: tensors.update({"lstm_state.0.cell": tensors["lstm_state.0.cell"][:, :1].clone()})
        ),
        changed(lambda tensors, state: tensors.update({"optimizer.0.step": torch.zeros(3)})),
        changed(lambda tensors, state: tensors.update({"optimizer.0.exp_avg": torch.zeros(3)})),
        changed(lambda tensors, state: tensors.pop("optimizer.0.exp_avg")),
        changed(lambda tensors, state: tensors.update({"optimizer.x.step": torch.zeros(())})),
        os.mkfifo,
        lambda path: os.truncate(path, 50_000_000_000),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    dataset: Dataset, checkpoint_path: Path, damage: Callable[[Path], None]
) -> None:
    if damage is os.mkfifo:
        checkpoint_path.unlink()  # type: ignore[unreachable]
    damage(checkpoint_path)
    with pytest.raises(RunError, match=r"resume\.safetensors is damaged"):
        list(train(make_config(), dataset, "a-run", lambda: False, checkpoint=ResumeCheckpoint(checkpoint_path)))


def test_a_checkpoint_larger_than_any_state_is_not_loaded(
    dataset: Dataset,
    checkpoint_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed(lambda tensors, state: tensors.update({"more": torch.zeros(300_000)}))(checkpoint_path)
    monkeypatch.setattr("engine.training.checkpoint.safe_open", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(RunError, match=r"resume\.safetensors is damaged"):
        list(train(make_config(), dataset, "a-run", lambda: False, checkpoint=ResumeCheckpoint(checkpoint_path)))


def test_a_missing_checkpoint_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is missing; the run cannot be resumed"):
        ResumeCheckpoint(tmp_path / "resume.safetensors")
