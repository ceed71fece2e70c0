"""Metrics that grow, or are torn, damaged, truncated, replaced or hostile, are read like by a simple parser."""

import errno
import json
import os
import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.runs.metrics import MAX_LINE_BYTES, RecordFollower, read_current_rows, read_rows


def parse_naively(content: bytes) -> list[dict[str, Any]]:
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


def read_to_end(follower: RecordFollower, seconds: float = 0) -> tuple[list[dict[str, Any]], bool]:
    rows, is_new = [], False
    while True:
        batch = follower.read_batch(seconds)
        is_new = is_new or batch.is_new_record
        rows = batch.rows if batch.is_new_record else rows + batch.rows
        if follower.at_end:
            return rows, is_new


def step_line(number: int) -> bytes:
    return json.dumps({"event": "step", "step": number, "epoch": number / 10}).encode() + b"\n"


LINES = st.one_of(
    st.integers(0, 99).map(step_line),
    st.integers(0, 99).map(lambda number: json.dumps({"event": "resume", "step": number}).encode() + b"\n"),
    st.integers(0, 9).map(lambda number: json.dumps({"event": "evaluated", "step": number}).encode() + b"\n"),
    st.integers(16, 40).map(lambda length: step_line(7)[:length] + b"\n"),  # torn, and ended by the next writer
    st.sampled_from([b"\n", b"\r\n", b"{}\n", b"[1]\n", b'{"event": 3}\n', b'{"event": "x", "a": NaN}\n', b"\xff\n"]),
    st.binary(max_size=20),
    st.text(max_size=20).map(
        lambda text: json.dumps({"event": text, "note": text}, ensure_ascii=False).encode() + b"\n"
    ),
)


@given(st.lists(LINES, max_size=30), st.lists(st.integers(0, 400), max_size=8))
def test_rows_are_returned_once_and_in_order_however_the_file_grows(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], cuts: list[int]
) -> None:
    path, content = tmp_path_factory.mktemp("record") / "metrics.jsonl", b"".join(lines)
    follower, rows = RecordFollower(path), []
    ends = sorted(min(cut, len(content)) for cut in cuts)
    for begin, end in zip([0, *ends], [*ends, len(content)], strict=True):
        with path.open("ab") as file:
            file.write(content[begin:end])
        new, is_new = read_to_end(follower)
        assert not is_new
        rows += new
        assert rows == parse_naively(content[:end])
    assert list(read_rows(path)) == parse_naively(content)


@given(st.lists(LINES, max_size=30))
def test_subsampling_drops_only_steps_before_steps(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("record") / "metrics.jsonl"
    path.write_bytes(b"".join(lines))
    rows = parse_naively(path.read_bytes())
    subsampled = list(read_rows(path, subsample=True))
    assert [row for row in subsampled if row["event"] != "step"] == [row for row in rows if row["event"] != "step"]
    assert subsampled[-1:] == rows[-1:]
    remaining = iter(rows)
    assert all(row in remaining for row in subsampled)  # in the same order


def test_subsampled_rows_are_few(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"event": "started"}\n' + b"".join(map(step_line, range(20_000))) + b'{"event": "finished"}\n')
    rows = read_current_rows(path, subsample=True)
    assert len(rows) < 20
    assert rows[-2]["step"] == 19_999


@pytest.mark.parametrize("torn", [step_line(7)[:17], step_line(7)[:-2], b'{"event": "step", "step": [7]}'])
def test_subsampling_keeps_the_step_before_a_torn_step(tmp_path: Path, torn: bytes) -> None:
    """An earlier version ended a torn line instead of removing it."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        b"".join(map(step_line, range(3))) + torn + b"\n" + torn + b"\n" + b'{"event": "resume", "step": 3}\n'
    )
    assert [row["step"] for row in read_rows(path, subsample=True)] == [2, 3]


@pytest.mark.parametrize("how", ["cut", "emptied", "replaced", "rewritten in place", "deleted and back"])
def test_a_replaced_file_is_detected_and_read_from_its_start(tmp_path: Path, how: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(map(step_line, range(50))))
    follower = RecordFollower(path)
    assert len(read_to_end(follower)[0]) == 50
    assert read_to_end(follower) == ([], False)
    new = b"".join(map(step_line, range(100, 103)))
    if how == "replaced":
        (tmp_path / "other").write_bytes(new)
        (tmp_path / "other").replace(path)
    elif how == "emptied":
        os.truncate(path, 0)
        assert read_to_end(follower) == ([], True)
        path.write_bytes(new)
        rows, is_new = read_to_end(follower)
        assert ([row["step"] for row in rows], is_new) == ([100, 101, 102], False)  # reported once
        return
    elif how == "deleted and back":
        path.unlink()
        assert read_to_end(follower) == ([], False)
        assert follower.problem == "No such file or directory"
        path.write_bytes(new)
    else:
        path.write_bytes(
            new if how == "cut" else b"".join(map(step_line, range(100, 200)))
        )  # as long as before or longer
    rows, is_new = read_to_end(follower)
    assert is_new
    assert [row["step"] for row in rows[:3]] == [100, 101, 102]
    assert not follower.problem


def test_a_huge_file_is_read_in_batches(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(map(step_line, range(20_000))))
    follower = RecordFollower(path)
    first = follower.read_batch(0).rows
    assert 0 < len(first) < 20_000
    assert 0 < follower.fraction_read < 1
    assert not follower.at_end
    remaining = read_to_end(follower)[0]
    assert [row["step"] for row in first + remaining] == list(range(20_000))
    assert follower.fraction_read == 1


def test_a_line_of_100_megabytes_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with path.open("wb") as file:
        file.write(step_line(1) + b'{"event": "')
        file.seek(100_000_000, os.SEEK_CUR)  # a hole, which takes no space on the disk
        file.write(b'x"}')
    memory_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    follower = RecordFollower(path)
    assert [row["step"] for row in read_to_end(follower)[0]] == [1]
    with path.open("ab") as file:
        file.write(b"\n" + step_line(2))
    assert [row["step"] for row in read_to_end(follower)[0]] == [2]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_before < 30_000  # kB


def test_a_line_of_the_maximum_length_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    row = {"event": "warned", "message": "x" * (MAX_LINE_BYTES - 100)}
    path.write_text(json.dumps(row) + "\n")
    assert list(read_rows(path)) == [row]


HOSTILE = [
    b"[" * 100_000,
    b'{"event": "step", "step": ' + b"[" * 100_000,
    b'{"event": "step", "step": ' + b"9" * 5000 + b"}",
    b'{"event": "step", "step": 1e999}',
    b'{"event": "step", "step": NaN}',
    b'{"event": ["step"]}',
    b"null",
    b"\x00" * 50,
    b'{"event": "\\ud800"}',
]


@pytest.mark.parametrize("line", HOSTILE, ids=lambda line: line[:30].decode(errors="replace"))
def test_hostile_lines_are_skipped(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(step_line(1) + line + b"\n" + step_line(2))
    assert [row["step"] for row in read_rows(path)] == [1, 2]


def test_rows_are_returned_once_after_a_temporary_disk_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(step_line(1))
    follower = RecordFollower(path)
    rows = follower.read_batch(1).rows
    path.write_bytes(step_line(1) + step_line(2))

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as failing:
        failing.setattr("engine.runs.metrics.os.read", fail)
        assert follower.read_batch(1).rows == []
    assert (follower.problem, follower.at_end) == ("Input/output error", True)
    rows += follower.read_batch(1).rows
    assert follower.problem == ""
    assert [row["step"] for row in rows] == [1, 2]


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "closed"])
def test_an_unreadable_file_has_a_problem_and_no_rows(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "metrics.jsonl"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "closed":
        path.write_bytes(step_line(1))
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("nothing is closed to root")
    follower = RecordFollower(path)
    assert read_to_end(follower) == ([], False)
    assert follower.problem
    assert list(read_rows(path)) == []


def test_a_torn_line_that_the_next_writer_removes_is_no_new_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(step_line(1) + step_line(2)[:20])
    follower = RecordFollower(path)
    assert [row["step"] for row in read_to_end(follower)[0]] == [1]
    os.truncate(path, len(step_line(1)))
    assert read_to_end(follower) == ([], False)
    with path.open("ab") as file:
        file.write(step_line(3))
    rows, is_new = read_to_end(follower)
    assert ([row["step"] for row in rows], is_new) == ([3], False)
    path.write_bytes(step_line(1) + step_line(3) + step_line(4)[:20])
    assert read_to_end(follower) == ([], False)
    path.write_bytes(step_line(1) + step_line(3) + step_line(500) + step_line(600))  # written between two reads
    rows, is_new = read_to_end(follower)
    assert ([row["step"] for row in rows], is_new) == ([500, 600], False)
