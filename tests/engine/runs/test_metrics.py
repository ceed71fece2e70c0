"""Metrics that grow, or are torn, damaged, truncated, replaced or hostile, are read like by a simple parser."""

import json
import os
import resource
from contextlib import closing

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.errors import RunError
from engine.events import Evaluated, Finished, Resume, Sampled, Step, Warned, event_from_dict, event_to_dict
from engine.runs import directory
from engine.runs.directory import MAX_LINE_BYTES, RecordFollower, drop_superseded, read_events
from engine.storage.files import JsonLinesAppender


def parse_naively(content):
    """Return the events of a file, parsed with the standard library."""
    events = []
    for line in content.split(b"\n")[:-1]:
        try:
            row = json.loads(line.decode(), parse_constant=lambda constant: 1 / 0)
        except (ValueError, ZeroDivisionError, RecursionError):
            continue
        event = event_from_dict(row) if isinstance(row, dict) else None
        events += [] if event is None else [event]
    return events


def read_to_end(follower):
    events, is_new = [], False
    while True:
        batch = follower.read(0)
        is_new = is_new or follower.is_replaced
        events = batch if follower.is_replaced else events + batch
        if follower.at_end:
            return events, is_new


def step_numbers(events):
    return [event.step for event in events]


def line_of(event):
    return json.dumps(event_to_dict(event)).encode() + b"\n"


def step_line(number):
    return line_of(Step(number, number / 10, 90.0, 0.1, 1.0, 2.0, 3.0, 4.0))


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
    st.integers(0, 99).map(lambda number: line_of(Resume(number))),
    st.integers(0, 9).map(lambda number: line_of(Evaluated(number, 0.1, 90.0, True, 1.0))),
    st.integers(16, 90).map(lambda length: step_line(7)[:length] + b"\n"),  # torn, and ended by the next writer
    st.sampled_from([b"\n", b"\r\n", b"{}\n", b"[1]\n", b'{"event": 3}\n', b'{"event": "x", "a": NaN}\n', b"\xff\n"]),
    st.binary(max_size=20),
    st.text(max_size=20).map(lambda text: json.dumps({"event": text, "a": text}, ensure_ascii=False).encode() + b"\n"),
)


@settings(max_examples=40)
@given(st.lists(LINES, max_size=30), st.lists(st.integers(0, 4000), max_size=8))
def test_events_are_returned_once_and_in_order_however_the_file_grows(shared_path, lines, cuts):
    shared_path.unlink(missing_ok=True)
    content = b"".join(lines)
    follower, events = RecordFollower(shared_path), []
    ends = sorted(min(cut, len(content)) for cut in cuts)
    for begin, end in zip([0, *ends], [*ends, len(content)], strict=True):
        with shared_path.open("ab") as file:
            file.write(content[begin:end])
        new, is_new = read_to_end(follower)
        assert not is_new
        events += new
        assert events == parse_naively(content[:end])
    assert list(read_events(shared_path)) == parse_naively(content)


@settings(max_examples=40)
@given(st.lists(LINES, max_size=30))
def test_subsampling_drops_only_steps_before_steps(shared_path, lines):
    shared_path.write_bytes(b"".join(lines))
    events, subsampled = parse_naively(b"".join(lines)), list(read_events(shared_path, subsample=True))
    assert [event for event in subsampled if not isinstance(event, Step)] == [
        event for event in events if not isinstance(event, Step)
    ]
    assert subsampled[-1:] == events[-1:]
    remaining = iter(events)
    assert all(event in remaining for event in subsampled)  # in the same order


NUMBERS, TEXTS = st.floats(0, 1e6), st.text(max_size=12)
EVENTS = st.one_of(
    st.builds(Step, st.integers(0, 99), *[NUMBERS] * 7),
    st.builds(Evaluated, st.integers(0, 99), NUMBERS, NUMBERS, st.booleans(), NUMBERS),
    st.builds(Sampled, st.integers(0, 99), NUMBERS, TEXTS, TEXTS, st.integers(0, 2**62), NUMBERS),
    st.builds(Warned, TEXTS),
)
REPEATED_STEP = Step(10, 1.03125, 0.96875, 0.0, 100.0, 100.0, 0.0, 100000.359375)


def append_to(path, events):
    with closing(JsonLinesAppender(path)) as appender:
        for event in events:
            appender.append(event_to_dict(event))


@settings(max_examples=40)
@example([Warned("00")], 36, 0)  # only the line end is lost
@example([REPEATED_STEP, REPEATED_STEP], 372, 50)
@given(st.lists(EVENTS, max_size=8), st.integers(0, 10**6), st.integers(0, 50))
def test_a_resumed_training_appends_after_metrics_torn_at_any_byte(shared_path, events, tear, resume_step):
    shared_path.unlink(missing_ok=True)
    append_to(shared_path, events)
    events = list(read_events(shared_path))  # NaN in place of unknown numbers, and valid texts
    os.truncate(shared_path, tear % (shared_path.stat().st_size + 1))
    complete = events[: shared_path.read_bytes().count(b"\n")]
    assert list(read_events(shared_path)) == complete
    append_to(shared_path, [Resume(resume_step)])
    assert list(read_events(shared_path)) == [*complete, Resume(resume_step)]
    before = [event for event in read_events(shared_path, subsample=True) if event != Resume(resume_step)]
    assert before[-1:] == complete[-1:]
    current = [event for event in complete if not getattr(event, "step", -1) >= resume_step]
    assert drop_superseded(read_events(shared_path)) == [*current, Resume(resume_step)]


def test_a_file_of_which_a_part_is_not_read_is_refused(path, monkeypatch):
    path.write_bytes(line_of(Resume(1)) * 10_000)
    assert len(list(read_events(path))) == 10_000
    monkeypatch.setattr(directory, "MAX_OTHER_LINES", 100)
    with pytest.raises(RunError, match=r"metrics.jsonl cannot be read: larger than any file that lotr-tui writes"):
        list(read_events(path))


def test_a_number_that_is_not_finite_is_nan_and_an_end_is_superseded_by_a_resume(path):
    nan = float("nan")
    finished = Finished("stopped", "r", 1.0, 9.0, nan, 1.0)
    append_to(path, [Step(1, 0.1, nan, 0.1, 1.0, 1.0, 1.0, nan), finished, Resume(2)])
    step, resume = drop_superseded(read_events(path))
    assert (repr(step.train_perplexity), step.lr, resume) == ("nan", 0.1, Resume(2))


@pytest.mark.parametrize("how", ["cut", "emptied", "replaced", "deleted and back"])
def test_a_replaced_file_is_detected_and_read_from_its_start(path, how):
    path.write_bytes(step_lines(*range(50)))
    follower = RecordFollower(path)
    assert len(read_to_end(follower)[0]) == 50
    assert read_to_end(follower) == ([], False)
    new = step_lines(*range(100, 103))
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
    events, is_new = read_to_end(follower)
    assert is_new == (how != "emptied")  # reported once
    assert step_numbers(events[:3]) == [100, 101, 102]
    assert not follower.problem


def test_a_torn_line_that_the_next_writer_removes_is_no_new_file(path):
    path.write_bytes(step_line(1) + step_line(2)[:20])
    follower = RecordFollower(path)
    assert step_numbers(read_to_end(follower)[0]) == [1]
    path.write_bytes(step_lines(1))
    assert read_to_end(follower) == ([], False)
    path.write_bytes(step_lines(1, 3) + step_line(4)[:20])
    events, is_new = read_to_end(follower)
    assert (step_numbers(events), is_new) == ([3], False)
    path.write_bytes(step_lines(1, 3, 500, 600))  # written between two reads
    events, is_new = read_to_end(follower)
    assert (step_numbers(events), is_new) == ([500, 600], False)


def test_a_huge_file_is_read_in_batches(path):
    path.write_bytes(step_lines(*range(20_000)))
    follower = RecordFollower(path)
    first = follower.read(0)
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
        file.write(step_line(2)[:-1] + b"\n" + step_line(3))
    assert step_numbers(read_to_end(follower)[0]) == [3]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_before < 30_000  # kB
    path.write_bytes(line_of(Warned("x" * (MAX_LINE_BYTES - 100))))
    assert len(list(read_events(path))) == 1


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 200_000, b'{"event": "step", "step": ' + b"9" * 5000 + b"}", b"not json", b"\x00" * 50,
        *(step_line(5).replace(b"90.0", value)[:-1] for value in (b"NaN", b"1e999", b'"90"')),
        b'{"event": "\\ud800"}', b'{"event": "warned", "message": "a", "b": {}}\n\n\nnothing',
    ],
    ids=range(9),
)  # fmt: skip
def test_hostile_lines_are_skipped(path, line):
    path.write_bytes(step_line(1) + line + b"\n" + step_line(2))
    assert step_numbers(read_events(path)) == [1, 2]


def test_a_file_of_millions_of_other_lines_is_not_read(path):
    path.write_bytes(step_line(1) + b"{}\n" * 1_000_000 + step_line(2))
    follower = RecordFollower(path)
    assert step_numbers(read_to_end(follower)[0]) == [1]
    assert follower.problem


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_an_unreadable_file_has_a_problem_and_no_events(path, kind):
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    follower = RecordFollower(path)
    assert read_to_end(follower) == ([], False)
    assert follower.problem
    assert list(read_events(path)) == []
