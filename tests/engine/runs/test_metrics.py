"""Metrics that grow, or are torn, damaged, truncated, replaced or hostile, are read like by a simple parser."""

import json
import os
import resource
from contextlib import closing

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.events import Evaluated, Resume, Sampled, Step, Warned, event_to_dict
from engine.runs.metrics import MAX_LINE_BYTES, RecordFollower, read_current_rows, read_rows
from engine.storage.json_lines import JsonLinesAppender


def parse_naively(content):
    """Return the rows of a file, parsed with the standard library."""
    rows = []
    for line in content.split(b"\n")[:-1]:
        try:
            row = json.loads(line.decode(), parse_constant=lambda constant: 1 / 0)
        except (ValueError, ZeroDivisionError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("event"), str):
            rows.append(row)
    return rows


def read_to_end(follower):
    rows, is_new = [], False
    while True:
        batch = follower.read_batch(0)
        is_new = is_new or batch.is_new_record
        rows = batch.rows if batch.is_new_record else rows + batch.rows
        if follower.at_end:
            return rows, is_new


def step_numbers(rows):
    return [row["step"] for row in rows]


def step_line(number):
    return json.dumps({"event": "step", "step": number, "epoch": number / 10}).encode() + b"\n"


def step_lines(*numbers):
    return b"".join(map(step_line, numbers))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


@pytest.fixture(scope="module")
def shared_path(tmp_path_factory):
    return tmp_path_factory.mktemp("record") / "metrics.jsonl"


LINES = st.one_of(
    st.integers(0, 99).map(step_line),
    st.integers(0, 99).map(lambda number: json.dumps({"event": "resume", "step": number}).encode() + b"\n"),
    st.integers(0, 9).map(lambda number: json.dumps({"event": "evaluated", "step": number}).encode() + b"\n"),
    st.integers(16, 40).map(lambda length: step_line(7)[:length] + b"\n"),  # torn, and ended by the next writer
    st.sampled_from([b"\n", b"\r\n", b"{}\n", b"[1]\n", b'{"event": 3}\n', b'{"event": "x", "a": NaN}\n', b"\xff\n"]),
    st.binary(max_size=20),
    st.text(max_size=20).map(lambda text: json.dumps({"event": text, "a": text}, ensure_ascii=False).encode() + b"\n"),
)


@settings(max_examples=40)
@given(st.lists(LINES, max_size=30), st.lists(st.integers(0, 400), max_size=8))
def test_rows_are_returned_once_and_in_order_however_the_file_grows(shared_path, lines, cuts):
    shared_path.unlink(missing_ok=True)
    content = b"".join(lines)
    follower, rows = RecordFollower(shared_path), []
    ends = sorted(min(cut, len(content)) for cut in cuts)
    for begin, end in zip([0, *ends], [*ends, len(content)], strict=True):
        with shared_path.open("ab") as file:
            file.write(content[begin:end])
        new, is_new = read_to_end(follower)
        assert not is_new
        rows += new
        assert rows == parse_naively(content[:end])
    assert list(read_rows(shared_path)) == parse_naively(content)


@settings(max_examples=40)
@given(st.lists(LINES, max_size=30))
def test_subsampling_drops_only_steps_before_steps(shared_path, lines):
    shared_path.write_bytes(b"".join(lines))
    rows, subsampled = parse_naively(b"".join(lines)), list(read_rows(shared_path, subsample=True))
    assert [row for row in subsampled if row["event"] != "step"] == [row for row in rows if row["event"] != "step"]
    assert subsampled[-1:] == rows[-1:]
    remaining = iter(rows)
    assert all(row in remaining for row in subsampled)  # in the same order


NUMBERS, TEXTS = st.floats(0, 1e6), st.text(max_size=12)
EVENTS = st.one_of(
    st.builds(Step, st.integers(0, 99), *[NUMBERS | st.just(float("nan"))] * 7),
    st.builds(Evaluated, st.integers(0, 99), NUMBERS, NUMBERS, st.booleans(), NUMBERS),
    st.builds(Sampled, st.integers(0, 99), NUMBERS, TEXTS, TEXTS, st.integers(0, 2**62), NUMBERS),
    st.builds(Warned, TEXTS),
)
REPEATED_STEP = Step(10, 1.03125, 0.96875, 0.0, 100.0, 100.0, 0.0, 100000.359375)


def append_rows(path, rows):
    with closing(JsonLinesAppender(path)) as appender:
        for row in rows:
            appender.append(row)


@settings(max_examples=40)
@example([Warned("00")], 36, 0)  # only the line end is lost
@example([REPEATED_STEP, REPEATED_STEP], 372, 50)
@given(st.lists(EVENTS, max_size=8), st.integers(0, 10**6), st.integers(0, 50))
def test_a_resumed_training_appends_after_metrics_torn_at_any_byte(shared_path, events, tear, resume_step):
    shared_path.unlink(missing_ok=True)
    rows = [event_to_dict(event) for event in events]
    append_rows(shared_path, rows)
    lines = shared_path.read_bytes().split(b"\n")
    os.truncate(shared_path, tear % (shared_path.stat().st_size + 1))
    torn = shared_path.read_bytes().split(b"\n")
    complete = rows[: len(torn) - 1]
    assert list(read_rows(shared_path)) == complete
    if torn[-1] and torn[-1] == lines[len(complete)]:
        complete.append(rows[len(complete)])  # only the line end was lost
    resume = event_to_dict(Resume(resume_step))
    append_rows(shared_path, [resume])
    assert list(read_rows(shared_path)) == [*complete, resume]
    before = [row for row in read_rows(shared_path, subsample=True) if row != resume]
    assert before[-1:] == complete[-1:]
    current = [row for row in complete if not row.get("step", -1) >= resume_step]
    assert read_current_rows(shared_path) == [*current, resume]


@pytest.mark.parametrize("how", ["cut", "emptied", "replaced", "rewritten in place", "deleted and back"])
def test_a_replaced_file_is_detected_and_read_from_its_start(path, how):
    path.write_bytes(step_lines(*range(50)))
    follower = RecordFollower(path)
    assert len(read_to_end(follower)[0]) == 50
    assert read_to_end(follower) == ([], False)
    new = step_lines(*range(100, 200 if how == "rewritten in place" else 103))
    if how == "replaced":
        path.with_name("other").write_bytes(new)
        path.with_name("other").replace(path)
    elif how == "emptied":
        os.truncate(path, 0)
        assert read_to_end(follower) == ([], True)
        path.write_bytes(new)
    elif how == "deleted and back":
        path.unlink()
        assert read_to_end(follower) == ([], False)
        assert follower.problem == "No such file or directory"
        path.write_bytes(new)
    else:
        path.write_bytes(new)
    rows, is_new = read_to_end(follower)
    assert is_new == (how != "emptied")  # reported once
    assert step_numbers(rows[:3]) == [100, 101, 102]
    assert not follower.problem


def test_a_torn_line_that_the_next_writer_removes_is_no_new_file(path):
    path.write_bytes(step_line(1) + step_line(2)[:20])
    follower = RecordFollower(path)
    assert step_numbers(read_to_end(follower)[0]) == [1]
    path.write_bytes(step_lines(1))
    assert read_to_end(follower) == ([], False)
    path.write_bytes(step_lines(1, 3) + step_line(4)[:20])
    rows, is_new = read_to_end(follower)
    assert (step_numbers(rows), is_new) == ([3], False)
    path.write_bytes(step_lines(1, 3, 500, 600))  # written between two reads
    rows, is_new = read_to_end(follower)
    assert (step_numbers(rows), is_new) == ([500, 600], False)


def test_a_huge_file_is_read_in_batches(path):
    path.write_bytes(step_lines(*range(20_000)))
    follower = RecordFollower(path)
    first = follower.read_batch(0).rows
    assert 0 < len(first) < 20_000
    assert 0 < follower.fraction_read < 1
    assert not follower.at_end
    assert step_numbers(first + read_to_end(follower)[0]) == list(range(20_000))
    assert follower.fraction_read == 1


def test_a_line_of_100_megabytes_takes_no_memory(path):
    with path.open("wb") as file:
        file.write(step_line(1) + b'{"event": "')
        file.seek(100_000_000, os.SEEK_CUR)  # a hole, which takes no space on the disk
        file.write(b'x"}')
    memory_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    follower = RecordFollower(path)
    assert step_numbers(read_to_end(follower)[0]) == [1]
    with path.open("ab") as file:
        file.write(b"\n" + step_line(2))
    assert step_numbers(read_to_end(follower)[0]) == [2]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_before < 30_000  # kB
    row = {"event": "warned", "message": "x" * (MAX_LINE_BYTES - 100)}
    path.write_text(json.dumps(row) + "\n")
    assert list(read_rows(path)) == [row]


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 200_000,
        b'{"event": "step", "step": ' + b"9" * 5000 + b"}",
        b'{"event": "step", "step": NaN}',
        b"not json",
        b"\x00" * 50,
        b'{"event": "\\ud800"}',
        b'{"event": "evaluated", "a": {}}\n\n\nnothing',  # as many lines have no object as objects are nested
        json.dumps({"event": "evaluated"} | {str(n): 1 for n in range(64)}).encode(),
    ],
    ids=range(8),
)
def test_hostile_lines_are_skipped(path, line):
    path.write_bytes(step_line(1) + line + b"\n" + step_line(2))
    assert step_numbers(read_rows(path)) == [1, 2]


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_an_unreadable_file_has_a_problem_and_no_rows(path, kind):
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    follower = RecordFollower(path)
    assert read_to_end(follower) == ([], False)
    assert follower.problem
    assert list(read_rows(path)) == []
