"""Curves of other programs become runs whose numbers are those of the log."""

import math

import pytest

from engine.runs.directory import summarize_run
from lotr_tui.monitor.run_list import read_compared_run
from tests.support.app import training_events
from tests.support.commands import refusal
from tests.support.runs import record_run

pytest.importorskip("tensorboard")
pytestmark = pytest.mark.slow


def write_log(folder, curves):
    """Write scalars by tag, each a mapping from steps to values, as another program would."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    for tag, values in curves.items():
        for step, value in values.items():
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            writer.add_event(Event(wall_time=1_700_000_000 + step, step=step, summary=summary))
    writer.close()
    return folder


HUGGING_FACE = {
    "train/loss": {10: 5.0, 20: 4.0}, "train/learning_rate": {10: 1e-3, 20: 5e-4}, "eval/runtime": {20: 3.0},
    "train/grad_norm": {10: 1.0, 20: 2.0}, "train/epoch": {10: 0.5, 20: 1.0},
    "eval/loss": {10: math.log(200), 20: math.log(100)},
}  # fmt: skip


def test_losses_become_perplexities_with_epochs(home, tmp_path, command):
    write_log(tmp_path / "theirs", HUGGING_FACE)
    done = command("runs", "import", "--tensorboard", "theirs")
    assert (done.returncode, done.stdout) == (0, "theirs: eval/loss, best perplexity 100.0\n"), done.stderr
    summary = summarize_run(home / "runs" / "theirs")
    assert (summary.state, summary.preset, summary.epochs) == ("imported", "TensorBoard", 1.0)
    assert summary.test_perplexity is None
    assert summary.valid_perplexity == pytest.approx(100)
    assert summary.started_at == 1_700_000_010
    curve = read_compared_run(summary.path).curve
    assert list(curve[0]) == [0.5, 1.0]
    assert list(curve[1]) == pytest.approx([200, 100])
    for arguments in (("generate", "a", "--run", "theirs"), ("eval", "theirs"), ("train", "--resume", "theirs")):
        assert "was imported: it has curves, but neither a" in refusal(command(*arguments))


def test_our_own_log_comes_back_with_the_same_numbers(home, tmp_path, command):
    run_dir = record_run(home / "runs", "ours", training_events())
    assert command("runs", "export", "ours", "--tensorboard", "logs").returncode == 0
    assert command("runs", "import", "--tensorboard", "logs", "--run", "again").returncode == 0
    ours, again = (read_compared_run(home / "runs" / name).curve for name in (run_dir.name, "again"))
    assert list(again[0]) == list(ours[0])
    assert list(again[1]) == pytest.approx(list(ours[1]))


@pytest.mark.parametrize(
    ("options", "epochs", "perplexities"),
    [
        ((), [1, 2, 3], [50, 40, 30]),
        (("--tag", "loss"), [1, 2, 3], [math.exp(3), math.exp(2), math.exp(1)]),
    ],
)
def test_options_say_what_the_log_leaves_open(home, tmp_path, command, options, epochs, perplexities):
    write_log(tmp_path / "log", {"loss": {10: 3, 20: 2, 40: 1}, "val_ppl": {10: 50, 20: 40, 40: 30}})
    done = command("runs", "import", "--tensorboard", "log", *options)
    assert done.returncode == 0, done.stderr
    assert "no curve called epoch" in done.stdout
    curve = read_compared_run(home / "runs" / "log").curve
    assert list(curve[0]) == epochs
    assert list(curve[1]) == pytest.approx(perplexities, rel=1e-5)


def test_what_is_no_log_is_refused_in_one_line(home, tmp_path, refused):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "events.out.tfevents.1").write_bytes(b"no event file" * 100)
    (tmp_path / "words.txt").write_text("text")
    write_log(tmp_path / "other", {"reward": {1: 1.0}, "test/loss": {1: 1.0}})
    assert "has no event files of TensorBoard" in refused("runs", "import", "--tensorboard", "empty")
    assert "is not a folder" in refused("runs", "import", "--tensorboard", "words.txt")
    assert "is not a folder" in refused("runs", "import", "--tensorboard", "missing")
    assert "damaged" in refused("runs", "import", "--tensorboard", "damaged")
    assert "choose one with --tag: reward, test/loss" in refused("runs", "import", "--tensorboard", "other")
    assert "has no curve 'x'" in refused("runs", "import", "--tensorboard", "other", "--tag", "x")
