"""Recording of a training: rows and weights are complete after every event, also after a resume and on a full disk."""

import errno
import math
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from engine.errors import LotrError, RunError
from engine.events import (
    Checkpointed,
    Evaluated,
    Failed,
    Finished,
    Resume,
    Sampled,
    Snapshot,
    Step,
    Warned,
    event_from_dict,
)
from engine.models.ngram import Unigram
from engine.runs import directory
from engine.runs.loading import load_model
from engine.runs.locked_run import create_run, record_events, reopen_run
from engine.storage import files
from engine.storage.tensor_file import serialize_weights
from tests.support.runs import CONFIG, VOCABULARY, make_decoder, make_events, make_step, read_strict_rows, record_run

CHECKPOINT = serialize_weights({"weight": np.zeros(3, np.float32)})


def raise_disk_full(*_, **__):
    """Replace a system call such as `os.write` on a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def run(tmp_path):
    return create_run(CONFIG, VOCABULARY, "r", tmp_path)


def has_weights_of(path, seed):
    weights = load_model(path).decoder.weights
    return all(np.array_equal(weights[name], value) for name, value in make_decoder(seed).weights.items())


def files_written(events):
    return [(event.step, event.file) for event in events if isinstance(event, Checkpointed)]


def test_a_recorded_run_is_loaded_unchanged(tmp_path):
    path = record_run(tmp_path / "deep" / "runs", "first", make_events())
    loaded = load_model(path)
    assert (loaded.name, loaded.path, loaded.config) == ("first", path, CONFIG)
    assert loaded.decoder.tokenizer == VOCABULARY
    assert (loaded.valid_perplexity, loaded.started.kneser_ney_perplexity) == (90.0, 94.0)
    assert loaded.started.corpus_sha256 == "ab" * 32
    assert has_weights_of(path, 1)


def test_rows_and_weights_are_written_before_their_event_is_yielded(run):
    """A viewer in another terminal sees everything that the screen shows."""
    recorded, best, num_rows = [], None, 0
    for event in record_events(run, iter(make_events())):
        recorded.append(event)
        num_rows += not isinstance(event, Sampled)
        written = len((run.path / directory.METRICS_FILE).read_text().splitlines())
        assert num_rows <= written <= num_rows + 1  # the row of a checkpoint may be written already
        if isinstance(event, Evaluated) and event.is_best:
            best = event.model
        if best is not None:
            weights = load_file(run.path / directory.MODEL_FILE)
            assert all(np.array_equal(weights[name], best.weights[name]) for name in best.weights)
    assert [event for event in recorded if not isinstance(event, Checkpointed)] == make_events()
    before = [recorded[i - 1] for i, event in enumerate(recorded) if isinstance(event, Checkpointed)]
    assert before == [make_events()[2], make_events()[6]]
    assert files_written(recorded) == [(0, directory.MODEL_FILE), (9, directory.MODEL_FILE)]


def test_every_event_is_recorded_as_a_row_without_nan(tmp_path):
    path = record_run(tmp_path, "r", make_events("stopped"))
    metrics, samples = read_strict_rows(path / directory.METRICS_FILE), read_strict_rows(path / directory.SAMPLES_FILE)
    start = ["preparing", "started", "evaluated", "checkpointed"]
    expected = [*start, "step", "step", "evaluated", "checkpointed", "evaluated", "finished"]
    assert [row["event"] for row in metrics] == expected
    assert [event_from_dict(row) for row in samples] == [e for e in make_events() if isinstance(e, Sampled)]
    read = [event_from_dict(row) for row in metrics if row["event"] not in ("checkpointed", "step", "finished")]
    assert read == [event for event in make_events() if not isinstance(event, (Sampled, Step, Finished))]
    assert (metrics[4]["gradient_norm"], metrics[4]["eta_seconds"], metrics[-1]["test_perplexity"]) == (None,) * 3
    assert directory.summarize_run(path).test_perplexity is None


def test_a_model_without_weights_is_not_saved(run):
    events = [Evaluated(9, 1.0, 50.0, True, 1.0, Unigram(np.array([2, 3, 4], np.int32), VOCABULARY))]
    assert list(record_events(run, iter(events))) == events
    assert not (run.path / directory.MODEL_FILE).exists()


@pytest.mark.parametrize("finish", ["done", "stopped"])
def test_the_latest_checkpoint_replaces_the_initial_weights_and_is_kept_until_the_training_is_done(run, finish):
    (run.path / directory.INITIAL_FILE).touch()
    contents = []
    snapshots = [Snapshot(18 + n, f"{n}".encode()) for n in range(3)]
    for event in record_events(run, iter([*make_events(None), *snapshots, make_events(finish)[-1]])):
        assert not isinstance(event, Snapshot)
        if isinstance(event, Checkpointed) and event.file == directory.RESUME_FILE:
            contents.append((event.step, (run.path / directory.RESUME_FILE).read_bytes()))
    assert contents == [(18, b"0"), (19, b"1"), (20, b"2")]
    assert len(list(run.path.glob("resume*"))) == (finish == "stopped")
    assert not (run.path / directory.INITIAL_FILE).exists()


def step(number, train=100.0):
    return Step(number, number / 10, train, 0.01, 1.0, 1000.0, float(number), 9.0)


def test_superseded_rows_are_left_out_after_a_resume(tmp_path):
    path = record_run(tmp_path, "r", [step(1), step(2), step(3, 70.0), Finished("stopped", "r", 1.0, 9.0, 9.0, 1.0)])
    list(record_events(reopen_run(path), iter([Resume(3), step(3, 80.0), Sampled(3, 0.3, "a", "b", 0, 0.7), step(4)])))
    events = directory.drop_superseded(directory.read_events(path / directory.METRICS_FILE))
    assert [(event.step, getattr(event, "train_perplexity", None)) for event in events] == [
        (1, 100.0), (2, 100.0), (3, None), (3, 80.0), (4, 100.0),
    ]  # fmt: skip
    assert len(list(directory.read_events(path / directory.METRICS_FILE))) == 7  # nothing is removed from the file
    assert list(map(type, directory.read_events(path / directory.SAMPLES_FILE))) == [Resume, Sampled]
    assert directory.summarize_run(path).state == "crashed"


def evaluated(number):
    return Evaluated(number, number / 10, 100.0 - number, True, 1.0, make_decoder(number))


def test_a_resumed_training_does_not_take_back_the_saved_model(run):
    list(record_events(run, iter([evaluated(1), Snapshot(2, CHECKPOINT), evaluated(3)])))
    events = record_events(reopen_run(run.path), iter([Resume(3), make_step(4)]))
    next(events)
    assert directory.summarize_run(run.path).valid_perplexity == load_model(run.path).valid_perplexity == 97.0
    list(events)


def test_an_exception_is_recorded_with_its_traceback_and_raised(run):
    def broken():
        yield from make_events(None)
        raise ZeroDivisionError("broken\n  there: \x1b]0;title\x07\x9b2J\u202e")

    recorded = []
    with pytest.raises(ZeroDivisionError, match="broken"):
        recorded.extend(record_events(run, broken()))
    assert len(recorded) == len(make_events(None)) + 2  # all earlier events, and two checkpoints
    last = event_from_dict(read_strict_rows(run.path / directory.METRICS_FILE)[-1])
    assert isinstance(last, Failed)
    assert last.message.startswith("ZeroDivisionError: broken")
    assert "\n    raise ZeroDivisionError(" in last.details
    assert directory.summarize_run(run.path).state == "failed"
    assert directory.summarize_run(run.path).valid_perplexity == load_model(run.path).valid_perplexity == 90.0


def test_a_consumer_that_stops_early_releases_the_lock(run):
    events = record_events(run, iter(make_events()))
    next(events)
    assert directory.lock_owner(run.path)
    events.close()
    assert not directory.lock_owner(run.path)


class Disk:
    """Simulated disk; if it is full, whole files cannot be written, nor rows that contain `refused`."""

    def __init__(self, monkeypatch):
        self.full, self.refused, self._write = False, None, os.write
        monkeypatch.setattr(os, "fsync", lambda file: raise_disk_full() if self.full else None)
        monkeypatch.setattr(os, "write", self.write)

    def write(self, file, content):
        is_refused = self.refused is not None and self.refused in bytes(content)
        return raise_disk_full() if is_refused else self._write(file, content)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def test_on_a_full_disk_training_continues_and_data_is_written_later(run, disk):
    def events():
        yield step(1)
        disk.full, disk.refused = True, b""
        yield step(2)
        yield evaluated(3)
        yield Snapshot(3, b"three")
        yield step(4)
        assert not (run.path / directory.MODEL_FILE).exists()
        disk.full, disk.refused = False, None
        yield step(5)
        yield Snapshot(5, b"five")

    recorded = list(record_events(run, events()))
    warned = [event.message for event in recorded if isinstance(event, Warned)]
    assert all("No space left on device" in message and str(run.path) in message for message in warned)
    assert 1 <= len(warned) <= 3
    rows = list(directory.read_events(run.path / directory.METRICS_FILE))
    assert [event.step for event in rows if isinstance(event, Step)] == [1, 2, 4, 5]
    written = [(3, directory.MODEL_FILE), (5, directory.RESUME_FILE)]
    assert files_written(recorded) == files_written(rows) == written
    assert (run.path / directory.RESUME_FILE).read_bytes() == b"five"
    assert has_weights_of(run.path, 3)


def test_a_checkpoint_is_not_written_before_the_model_that_a_resume_reads_with_it(run, monkeypatch):
    write = files.write_atomically

    def refuse_models(path, content):
        if path.name == directory.MODEL_FILE:
            raise RunError("no space for a model")
        write(path, content)

    def events():
        yield Snapshot(1, b"one")
        monkeypatch.setattr(files, "write_atomically", refuse_models)
        yield evaluated(2)
        yield Snapshot(3, b"three")
        assert (run.path / directory.RESUME_FILE).read_bytes() == b"one"
        monkeypatch.undo()
        yield step(4)
        yield Snapshot(5, b"five")

    written = [(1, directory.RESUME_FILE), (2, directory.MODEL_FILE), (5, directory.RESUME_FILE)]
    assert files_written(record_events(run, events())) == written


def test_a_summary_has_the_perplexity_of_the_saved_model(run, disk):
    def events():
        yield evaluated(1)
        disk.full = True
        yield evaluated(3)
        yield make_step(4)
        disk.full = False
        yield Snapshot(5, b"five")
        disk.full = True
        yield evaluated(6)
        yield Finished("done", "r", 1.0, 94.0, 96.0, 5.0)

    seen = []

    def observe():
        for event in record_events(run, events()):
            if isinstance(event, (Evaluated, Checkpointed)):
                seen.append((event.step, directory.summarize_run(run.path).valid_perplexity))

    with pytest.raises(LotrError, match="not saved"):
        observe()
    assert seen == [(1, 99.0), (1, 99.0), (3, 99.0), (3, 97.0), (5, 97.0), (6, 97.0)]
    assert load_model(run.path).valid_perplexity == directory.summarize_run(run.path).valid_perplexity == 97.0
    assert has_weights_of(run.path, 3)


@pytest.mark.parametrize("refused", [None, b'"failed"'])
def test_a_training_without_its_model_is_not_finished_and_can_be_resumed(run, disk, refused):
    """The row of the end would fit on the disk, and the row of the failure perhaps would not."""

    def events():
        yield Snapshot(2, CHECKPOINT)
        disk.full, disk.refused = True, refused
        yield evaluated(3)
        yield Finished("done", "r", 1.0, 97.0, 96.0, 5.0)

    recorded = []
    with pytest.raises(LotrError, match=r"No space left on device.*the end of the training is not saved") as failure:
        recorded.extend(record_events(run, events()))
    assert failure.value.exit_code == 1
    assert isinstance(recorded[-1], Evaluated)  # nobody is told that the training is done
    assert directory.summarize_run(run.path).state != "finished"
    assert (run.path / directory.RESUME_FILE).read_bytes() == CHECKPOINT
    reopen_run(run.path).lock.close()


@pytest.mark.parametrize("deleted", ["r", "r/metrics.jsonl"])
def test_a_run_that_is_deleted_during_training_is_reported_and_not_saved(tmp_path, run, deleted):
    def events():
        yield evaluated(1)
        path = tmp_path / deleted
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield make_step(2)
        yield make_step(3)
        yield Finished("done", "r", 1.0, 99.0, math.nan, 5.0)

    seen = []
    with pytest.raises(LotrError, match=r"metrics\.jsonl was deleted; the end of the training is not saved"):
        seen.extend(record_events(run, events()))
    (message,) = [event.message for event in seen if isinstance(event, Warned)]
    assert "metrics.jsonl was deleted; the training continues" in message
    assert sum(isinstance(event, Step) for event in seen) == 2  # the training continued
    assert (tmp_path / "r").exists() == (deleted != "r")
