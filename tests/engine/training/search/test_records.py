"""The folder of a search: records that survive damage, and names that are taken."""

import pytest

from engine.errors import RunError
from engine.training.search.plan import SearchPlan
from engine.training.search.records import SEARCH_FILE, TRAINING_FILE, TRIALS_FILE, SearchFolder, TrialRecord
from engine.training.search.space import parse_space
from tests.support.file_limits import no_file_longer_than
from tests.support.files import write_run
from tests.support.training import make_config

PLAN = SearchPlan(make_config(), parse_space(["lr=0.01..0.1", "optimizer=adamw,sgd"])[1], (1234, 0), "ab" * 32)


def record(number, lr=0.02):
    settings = {"lr": lr, "optimizer": "sgd"}
    runs = [f"s-{number:03}-split1234", f"s-{number:03}-split0"]
    return TrialRecord(number, "complete", settings, runs, [9.5, 9.5], [(0.25, 11.25), (2.0, 9.5)], 3.5)


def test_an_opened_search_has_the_plan_and_the_records(tmp_path):
    folder = SearchFolder.create("s", tmp_path, PLAN)
    assert folder.run_names(7) == ["s-007-split1234", "s-007-split0"]
    folder.write(record(0))
    folder.write(record(1, 0.03))
    folder.write(record(0, 0.04))  # the latest one counts
    folder.close()
    opened = SearchFolder.open("s", tmp_path)
    assert opened.plan == PLAN
    assert (opened.records, opened.num_damaged) == ({0: record(0, 0.04), 1: record(1, 0.03)}, 0)
    with pytest.raises(RunError, match="another process runs the search"):
        SearchFolder.open("s", tmp_path)


def test_damaged_lines_lose_their_trials_only(tmp_path):
    folder = SearchFolder.create("s", tmp_path, PLAN)
    for number in range(3):
        folder.write(record(number))
    folder.close()
    file = tmp_path / "s" / TRIALS_FILE
    lines = file.read_bytes().splitlines(keepends=True)
    foreign = lines[1].replace(b"0.02", b"0.7")  # outside of the range
    file.write_bytes(lines[0] + b"\0{\n" + foreign + lines[2][:-20])
    opened = SearchFolder.open("s", tmp_path)
    assert (list(opened.records), opened.num_damaged) == ([0], 3)
    opened.write(record(5))
    opened.close()
    assert list(SearchFolder.open("s", tmp_path).records) == [0, 5]


def test_a_full_disk_keeps_the_records_until_there_is_room(tmp_path):
    folder = SearchFolder.create("s", tmp_path, PLAN)
    folder.write(record(0))
    with no_file_longer_than((tmp_path / "s" / TRIALS_FILE).stat().st_size + 10):
        assert "File too large" in folder.write(record(1))
    assert folder.write(record(2)) == ""
    folder.close()
    assert list(SearchFolder.open("s", tmp_path).records) == [0, 1, 2]


@pytest.mark.parametrize(
    ("file", "content"),
    [(SEARCH_FILE, "{"), (SEARCH_FILE, '{"space": ["lr=1"], "split_seeds": [1], "corpus_sha256": ""}'),
     (TRAINING_FILE, "[]"), (TRAINING_FILE, None)],
)  # fmt: skip
def test_a_damaged_search_is_refused_in_one_line(tmp_path, file, content):
    SearchFolder.create("s", tmp_path, PLAN).close()
    path = tmp_path / "s" / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(RunError, match="search 's' in"):
        SearchFolder.open("s", tmp_path)


def test_taken_and_unknown_names_are_refused(tmp_path):
    SearchFolder.create("lantern", tmp_path, PLAN).close()
    with pytest.raises(RunError, match="continue it with --resume"):
        SearchFolder.create("lantern", tmp_path, PLAN)
    write_run(tmp_path / "barrel-003")
    with pytest.raises(RunError, match="has a run"):
        SearchFolder.create("barrel", tmp_path, PLAN)
    with pytest.raises(RunError, match="did you mean lantern"):
        SearchFolder.open("lanterm", tmp_path)
