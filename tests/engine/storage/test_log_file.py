"""The log of a run has a bound."""

from pathlib import Path

import pytest

from engine.events import Warned
from engine.runs import store, writer
from engine.storage import log_file
from tests.support.runs import CONFIG, VOCABULARY, training


def test_a_training_that_goes_on_for_ever_has_a_log_of_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "MOST_BYTES", 10_000)
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    told = [Warned(f"it was the {number}th time {'x' * 50}") for number in range(1000)]
    for _ in writer.record(run, iter([*training(None), *told, training()[-1]])):
        pass
    before, latest = ((run.path / name).read_text().splitlines() for name in ("log.1.txt", store.LOG))
    assert sum(path.stat().st_size for path in run.path.glob("log*")) < 21_000
    lines = [line for line in [*before, *latest] if "th time" in line]
    assert [int(line.split("the ")[1].split("th")[0]) for line in lines] == list(range(1000 - len(lines), 1000))


def test_a_folder_that_cannot_be_written_any_more_has_the_log_go_on(tmp_path: Path) -> None:
    log = log_file.LogFile(tmp_path / "log.txt")
    (tmp_path / "log.txt").unlink()
    log.write("one\n")
    log.close()
