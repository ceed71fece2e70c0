"""Resume from a checkpoint is bit-exact; control commands; damaged checkpoints; the space that a run takes."""

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from engine.config import Config
from engine.control import CommandQueue, ControlCommand
from engine.errors import RunError
from engine.events import (
    Checkpointed,
    CommandApplied,
    Evaluated,
    Finished,
    Resume,
    Sampled,
    Snapshot,
    Started,
    Step,
    Warned,
)
from engine.models.pretrained.names import BASE_FILE
from engine.presets import PRESETS
from engine.runs.directory import METRICS_FILE, MODEL_FILE, RESUME_FILE, drop_superseded, read_events
from engine.storage.tensor_file import seal
from engine.training import TrainingInput
from engine.training.job import prepare_job, resume_job
from engine.training.state import ResumeCheckpoint, pack_floats, unpack_floats
from engine.training.trainer import train
from tests.support import training
from tests.support.files import sentences, write_csv
from tests.support.networks import TRANSFORMER, random_base

SETTINGS = {
    "adamw, moving average, variable BPTT": {"ema_decay": 0.9},
    "bfloat16 layers, subword embeddings, punctuation": {
        "precision": "bf16",
        "mogrifier_rounds": 2,
        "mogrifier_rank": 3,
        "num_layers": 2,
        "subword_embeddings": True,
        "punctuation": True,
        "variable_bptt": False,
    },
    "nt-asgd, plateau, fine-tuning": {
        "optimizer": "sgd", "lr": 1.0, "averaging": "nt_asgd", "nonmonotone_interval": 1, "eval_every_steps": 3,
        "epochs": 1, "fine_tune_epochs": 2, "fine_tune_lr": 0.5, "schedule": "plateau",
    },
    "sampled softmax, patience": {"softmax_samples": 10, "patience": 2, "eval_every_steps": 5, "lr": 0.2},
    "discriminative rates, gradual unfreezing, slanted triangular": {
        "num_layers": 2, "tie_weights": False, "layer_lr_decay": 2.6, "unfreeze_epochs": 1,
        "schedule": "slanted_triangular", "weight_decay": 0.1,
    },
    "a transformer, fine-tuning": {
        **TRANSFORMER, "variable_bptt": False, "variational_dropout": False, "bptt": 12, "batch_size": 8, "epochs": 1,
        "fine_tune_epochs": 1,
    },
    "an adapter": {
        **TRANSFORMER, "variable_bptt": False, "lora_rank": 3, "bptt": 12, "batch_size": 8, "ema_decay": 0.9,
        "precision": "bf16",
    },
}  # fmt: skip


def run(config, dataset, checkpoint=None):
    source = TrainingInput(dataset, base=random_base(config.model, dataset.tokenizer))
    return list(train(config, source, "a-run", checkpoint=checkpoint))


def results(events):
    kept = []
    for event in events:
        if isinstance(event, Evaluated):
            kept.append((event.step, event.valid_perplexity, event.is_best))
        elif isinstance(event, Step):
            kept.append((event.step, event.train_perplexity, event.gradient_norm, event.lr))
        elif isinstance(event, (Sampled, CommandApplied)):
            kept.append(event)
    return kept


@pytest.mark.parametrize("settings", SETTINGS)
def test_resume_from_any_step_is_bit_exact(dataset, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("engine.training.optim.MANY_TOKENS", 1)
    config = training.make_config(**({"epochs": 2, "bptt": 24} | training.REPORT_EACH_STEP | SETTINGS[settings]))
    (tmp_path / BASE_FILE).write_text('{"name": "base", "sha256": "0"}')  # named by an adapter that is written again
    whole = run(config, dataset)
    snapshots = [index for index, event in enumerate(whole) if isinstance(event, Snapshot)]
    for index in snapshots[1 :: len(snapshots) // 3]:
        saved = training.write_checkpoint(whole, index, tmp_path)
        resumed = run(config, dataset, saved)
        assert training.events_of(Resume, resumed)[0].step == whole[index].step + 1
        assert results(resumed) == results(whole[index:])
        assert training.weights_equal(training.weights_of(resumed[-1]), training.weights_of(whole[-1]))
        assert resumed[-1].test_perplexity == whole[-1].test_perplexity
        assert resumed[-1].seconds >= saved.progress.seconds >= whole[index].step * 1e-6  # the clock goes on


def test_fine_tuning_begins_with_a_checkpoint_since_later_models_replace_the_one_it_starts_from(dataset, tmp_path):
    settings = SETTINGS["nt-asgd, plateau, fine-tuning"] | {"nonmonotone_interval": 30, "fine_tune_lr": 10, "clip": 1.0}
    config = training.make_config(bptt=24, checkpoint_seconds=0, **settings)
    whole = run(config, dataset)
    (index,) = [index for index, event in enumerate(whole) if isinstance(event, Snapshot)]
    assert any(event.is_best for event in training.events_of(Evaluated, whole[index:]))
    resumed = run(config, dataset, training.write_checkpoint(whole, index, tmp_path))
    assert results(resumed) == results(whole[index:])
    assert training.weights_equal(training.weights_of(resumed[-1]), training.weights_of(whole[-1]))


SHORT = {"epochs": 1, "bptt": 24, "eval_every_steps": 1, "variable_bptt": False}


def train_with_commands(dataset, commands):
    """Train, and send each command after the step that is its key."""
    queue, events = CommandQueue(), []
    for event in train(training.make_config(**SHORT), TrainingInput(dataset), "a-run", queue):
        if isinstance(event, Step) and event.step in commands:
            queue.send(commands[event.step])
        events.append(event)
    return events


def test_commands_take_effect_are_saved_and_survive_a_resume(dataset, tmp_path):
    commands = {
        3: ControlCommand("checkpoint"),
        5: ControlCommand("lr", "0.5"),
        6: ControlCommand("prompt", "the road"),
    }
    plain, whole = train_with_commands(dataset, {}), train_with_commands(dataset, commands)
    applied = [(event.step, event.kind, event.value) for event in training.events_of(CommandApplied, whole)]
    assert applied == [(step, command.kind, command.value) for step, command in commands.items()]
    assert [event.step for event in training.events_of(Snapshot, whole)] == [3, 5, 6]
    for scheduled, step in zip(training.events_of(Step, plain), training.events_of(Step, whole), strict=True):
        assert step.lr == scheduled.lr * (1 if step.step <= 5 else 0.5)
        assert (step.train_perplexity == scheduled.train_perplexity) == (step.step <= 6)
    assert all((event.prompt == "the road") == (event.step >= 6) for event in training.events_of(Sampled, whole))

    first = train_with_commands(dataset, commands | {9: ControlCommand("detach")})
    assert first[-1].reason == "detached"
    saved = training.write_checkpoint(first, first.index(training.events_of(Snapshot, first)[-1]), tmp_path)
    second = run(training.make_config(**SHORT), dataset, saved)
    detach = training.events_of(CommandApplied, first)[-1]
    assert [each for each in results(first) if each != detach] + results(second) == results(whole)
    assert training.weights_equal(training.weights_of(second[-1]), training.weights_of(whole[-1]))


class ResumingQueue(CommandQueue):
    """Queue that is sent "resume" while a paused training waits for the third time, unless that cancels it."""

    waits = 0

    def wait(self, seconds):
        self.waits += 1
        if self.waits == 3:
            self.send(ControlCommand("resume"))


def test_a_pause_waits_and_saves_but_does_not_change_the_training(dataset):
    queue, events = ResumingQueue(), []
    for event in train(training.make_config(**SHORT), TrainingInput(dataset), "r", queue):
        if isinstance(event, Step) and event.step == 4:
            queue.send(ControlCommand("pause"))
        events.append(event)
    assert queue.waits == 3
    assert [event.kind for event in training.events_of(CommandApplied, events)] == ["pause", "resume"]
    assert [event.step for event in training.events_of(Snapshot, events)] == [4]
    assert training.weights_equal(
        training.weights_of(events[-1]), training.weights_of(train_with_commands(dataset, {})[-1])
    )


def test_a_checkpoint_is_saved_every_checkpoint_seconds(dataset):
    often = run(training.make_config(epochs=1, bptt=24, **training.REPORT_EACH_STEP), dataset)
    assert {event.step for event in training.events_of(Snapshot, often)} == set(
        range(training.events_of(Step, often)[-1].step + 1)
    )
    never = run(training.make_config(epochs=1, bptt=24, checkpoint_seconds=0), dataset)
    assert not training.events_of(Snapshot, never)
    assert training.weights_equal(training.weights_of(often[-1]), training.weights_of(never[-1]))


@pytest.fixture(scope="module")
def trained(dataset):
    return run(training.make_config(epochs=1, bptt=24, **training.REPORT_EACH_STEP), dataset)


@pytest.fixture
def checkpoint_path(trained, tmp_path):
    return training.write_checkpoint(trained, trained.index(training.events_of(Snapshot, trained)[3]), tmp_path).path


def restore(path, dataset):
    config = training.make_config(epochs=1, bptt=24, **training.REPORT_EACH_STEP)
    checkpoint = ResumeCheckpoint(path)
    checkpoint.check_config(config)
    checkpoint.restore(training.make_trainer(dataset, epochs=1, bptt=24).state)


def test_another_configuration_is_refused_with_the_first_difference(dataset, checkpoint_path):
    restore(checkpoint_path, dataset)
    with pytest.raises(RunError, match=r"saved with lr=0\.03, but the configuration has lr=0\.01"):
        ResumeCheckpoint(checkpoint_path).check_config(training.make_config(epochs=1, bptt=24, lr=0.01))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[-1000] ^= 4
    path.write_bytes(content)


def changed(tensors=None, progress=None, windows=None, without=(), config=None, shape=None):
    """Return a function that changes tensors (None: removed) and JSON values of a checkpoint, or its configuration."""

    def write(path):
        stored = load_file(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        values = json.loads(metadata["trainer_state"])
        for name, change in (tensors or {}).items():
            stored[name] = change(stored.get(name))
        stored = {name: tensor for name, tensor in stored.items() if tensor is not None}
        values["progress"].update(progress or {})
        values["windows"].update(windows or {})
        values["packed_shapes"] |= {} if shape is None else {PACKED: shape}
        for part, *name in without:
            (values[part] if name else values).pop(*(name or [part]))
        metadata |= {"trainer_state": json.dumps(values), "config": config or metadata["config"]}
        path.write_bytes(seal(save(stored, metadata)))

    return write


PACKED = "network.layers.0.weight_hh_l0"  # a tensor that is large enough to be packed


def removed(tensor):
    return None


def shortened(tensor):
    return tensor[..., :1].clone()


@pytest.mark.parametrize(
    "damage",
    [
        truncate, flip_bit, lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
        lambda path: (path.unlink(), os.mkfifo(path)), lambda path: os.truncate(path, 50_000_000_000),
        *(changed(without=[part]) for part in (("progress",), ("windows", "rng_state"), ("progress", "step"))),
        *(changed(config=text) for text in ('{"training": 3}', "[")),
        *(changed(progress={"step": value}) for value in ("7", math.inf)), changed(progress={"unknown": 1}),
        changed(progress={"seconds": 10**400}), changed(progress={"lr_scale": math.nan}),
        changed(progress={"sample_prompt": "\ud800"}), changed(windows={"rng_state": [3, [1, 2], None]}),
        *(changed(windows={"position": value}) for value in (10**9, -1)),
        *(changed({name: removed}) for name in ("network.output.bias", "dropout_generator", "optimizer.0.exp_avg")),
        *(changed({name: shortened}) for name in (PACKED, "network.output.bias", "lstm_state.0.cell")),
        changed({PACKED: lambda packed: packed.clone().index_fill_(0, torch.tensor([-9, -8, -7]), 7)}),
        changed({PACKED: lambda packed: packed.float()}),
        *(changed(shape=shape) for shape in ([64, -16], [64, 17], [16, 64], [2**40, 2**40], [0], ["64", 16], 7)),
        changed({"optimizer.x.step": lambda _: torch.zeros(())}),
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_is_refused(dataset, checkpoint_path, damage):
    damage(checkpoint_path)
    with pytest.raises(RunError, match=r"resume\.safetensors is damaged"):
        restore(checkpoint_path, dataset)


def test_a_checkpoint_larger_than_any_state_is_not_loaded(dataset, checkpoint_path, monkeypatch):
    changed({"more": lambda _: torch.zeros(300_000)})(checkpoint_path)
    monkeypatch.setattr("engine.training.state.MAX_OTHER_BYTES", 1_000_000)
    monkeypatch.setattr("engine.training.state.safe_open", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(RunError, match=r"resume\.safetensors is damaged"):
        restore(checkpoint_path, dataset)


def test_a_missing_checkpoint_is_named_in_the_error(tmp_path):
    with pytest.raises(RunError, match="is missing; the run cannot be resumed"):
        ResumeCheckpoint(tmp_path / "resume.safetensors")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder with the run `whole`, and `stopped`, which was saved after each step and stopped early."""
    runs = tmp_path_factory.mktemp("runs")
    corpus = write_csv(runs.parent / "small.csv", sentences(120))
    values = {"embedding_size": 8, "hidden_size": 8, "epochs": 2, "batch_size": 10, "bptt": 20, "threads": 1}
    values |= {**training.REPORT_EACH_STEP, "eval_every_steps": 3, "corpus": str(corpus)}
    for name in ("whole", "stopped"):
        job = prepare_job(Config("tiny").with_values(**values), name, runs)
        for event in job.events(lambda: False):
            if name == "stopped" and isinstance(event, Evaluated) and event.step >= 6:
                job.command_queue.send(ControlCommand("stop"))
    return runs


@pytest.fixture
def stopped_run(runs, tmp_path):
    return Path(shutil.copytree(runs / "stopped", tmp_path / "stopped"))


def resume(path):
    return list(resume_job(path.name, path.parent).events(lambda: False))


def evaluations(path):
    events = training.events_of(Evaluated, drop_superseded(read_events(path / METRICS_FILE)))
    return [(event.step, event.valid_perplexity) for event in events]


def test_resume_of_a_stopped_run_is_bit_exact(runs, stopped_run):
    assert isinstance(resume(stopped_run)[-1], Finished)
    assert (stopped_run / MODEL_FILE).read_bytes() == (runs / "whole" / MODEL_FILE).read_bytes()
    assert evaluations(stopped_run) == evaluations(runs / "whole")
    assert not list(stopped_run.glob("resume*"))


@pytest.mark.parametrize("damage", [truncate, flip_bit, Path.unlink])
def test_a_run_without_its_model_is_resumed_bit_exactly_with_a_warning_and_has_it_again(runs, stopped_run, damage):
    before = (stopped_run / MODEL_FILE).read_bytes()
    damage(stopped_run / MODEL_FILE)
    job, events = resume_job(stopped_run.name, stopped_run.parent), []
    for event in job.events(lambda: False):
        if isinstance(event, Checkpointed) and not training.events_of(Checkpointed, events):
            restored = (stopped_run / MODEL_FILE).read_bytes()
        events.append(event)
    (warned,) = training.events_of(Warned, events)
    assert MODEL_FILE in warned.message
    assert restored == before
    assert (stopped_run / MODEL_FILE).read_bytes() == (runs / "whole" / MODEL_FILE).read_bytes()
    assert evaluations(stopped_run) == evaluations(runs / "whole")


@pytest.mark.parametrize("damage", [truncate, flip_bit, Path.unlink])
def test_a_run_without_its_checkpoint_keeps_its_model_until_a_restart(runs, stopped_run, damage):
    damage(stopped_run / RESUME_FILE)
    before = {path.name: path.read_bytes() for path in stopped_run.glob("*.*")}
    with pytest.raises(RunError, match=rf"{RESUME_FILE} is (damaged|missing).*--restart.*--init stopped") as refused:
        resume(stopped_run)
    assert refused.value.exit_code == 2
    assert {path.name: path.read_bytes() for path in stopped_run.glob("*.*")} == before
    job = resume_job(stopped_run.name, stopped_run.parent, restart=True)
    assert (stopped_run / MODEL_FILE).read_bytes() == before[MODEL_FILE]
    list(job.events(lambda: False))
    assert (stopped_run / MODEL_FILE).read_bytes() == (runs / "whole" / MODEL_FILE).read_bytes()
    assert evaluations(stopped_run) == evaluations(runs / "whole")


def test_packed_numbers_keep_every_bit():
    bits = np.random.default_rng(0).integers(0, 2**32, (64, 33), np.uint32)
    bits[0, :6] = 0, 0x80000000, 1, 0x7F800000, 0xFFC00001, 0x7FFFFFFF  # zeros, the least number, infinity, NaNs
    for numbers in (bits.view(np.float32), np.full((3, 1), -0.1, np.float32)):
        packed = pack_floats(torch.from_numpy(numbers))
        assert unpack_floats(packed, numbers.shape).numpy().tobytes() == numbers.tobytes()


def test_a_run_takes_little_more_space_than_its_state_and_then_than_its_model(tmp_path):
    """A checkpoint has the weights, two moments, the average and the best weights, a sixth smaller than as numbers."""
    corpus = write_csv(tmp_path / "small.csv", sentences(300))
    values = {"embedding_size": 96, "hidden_size": 96, "epochs": 5, "threads": 1, "corpus": str(corpus)}
    job = prepare_job(PRESETS["default"].with_values(**values, **training.REPORT_EACH_STEP), "sized", tmp_path / "runs")
    largest = 0
    for event in job.events(lambda: False):
        if isinstance(event, Started):
            state_bytes = 5 * 4 * event.parameters
        largest = max(largest, sum(path.stat().st_size for path in job.run.path.rglob("*.safetensors")))
    model_bytes = (job.run.path / MODEL_FILE).stat().st_size
    assert 0.8 * state_bytes < largest - model_bytes < 0.9 * state_bytes + 0.6 * model_bytes
    after = {path.name: path.stat().st_size / model_bytes for path in job.run.path.rglob("*.safetensors")}
    assert set(after) == {MODEL_FILE, "1.safetensors", "4.safetensors"}
    assert sum(after.values()) < 1.6
