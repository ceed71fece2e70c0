"""A record that grows, is torn, damaged, cut, replaced or hostile, read as a naive reader would read it whole."""

import errno
import json
import os
import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.runs.metrics import LONGEST_LINE, Follower, current_rows, read_rows


def naive(content: bytes) -> list[dict[str, Any]]:
    """The rows of a record, slowly."""
    rows = []
    for line in content.split(b"\n")[:-1]:
        try:
            row = json.loads(line.decode(), parse_constant=lambda constant: 1 / 0)
        except (ValueError, ZeroDivisionError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("event"), str):
            rows.append(row)
    return rows


def to_the_end(follower: Follower, seconds: float = 0) -> tuple[list[dict[str, Any]], bool]:
    rows, again = [], False
    while True:
        piece = follower.more(seconds)
        again = again or piece.again
        rows = piece.rows if piece.again else rows + piece.rows
        if follower.at_end:
            return rows, again


def step(number: int) -> bytes:
    return json.dumps({"event": "step", "step": number, "epoch": number / 10}).encode() + b"\n"


LINES = st.one_of(
    st.integers(0, 99).map(step),
    st.integers(0, 99).map(lambda number: json.dumps({"event": "resume", "step": number}).encode() + b"\n"),
    st.integers(0, 9).map(lambda number: json.dumps({"event": "evaluated", "step": number}).encode() + b"\n"),
    st.integers(16, 40).map(lambda length: step(7)[:length] + b"\n"),  # torn, and the line ended by the next writer
    st.sampled_from([b"\n", b"\r\n", b"{}\n", b"[1]\n", b'{"event": 3}\n', b'{"event": "x", "a": NaN}\n', b"\xff\n"]),
    st.binary(max_size=20),
    st.text(max_size=20).map(
        lambda text: json.dumps({"event": text, "note": text}, ensure_ascii=False).encode() + b"\n"
    ),
)


@given(st.lists(LINES, max_size=30), st.lists(st.integers(0, 400), max_size=8))
def test_in_whatever_pieces_it_grows_its_rows_come_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], cuts: list[int]
) -> None:
    path, whole = tmp_path_factory.mktemp("record") / "metrics.jsonl", b"".join(lines)
    follower, rows = Follower(path), []
    ends = sorted(min(cut, len(whole)) for cut in cuts)
    for begin, end in zip([0, *ends], [*ends, len(whole)], strict=True):
        with path.open("ab") as file:
            file.write(whole[begin:end])
        new, again = to_the_end(follower)
        assert not again
        rows += new
        assert rows == naive(whole[:end])
    assert list(read_rows(path)) == naive(whole)


@given(st.lists(LINES, max_size=30))
def test_an_outline_leaves_out_reports_before_reports_alone(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("record") / "metrics.jsonl"
    path.write_bytes(b"".join(lines))
    whole = naive(path.read_bytes())
    outline = list(read_rows(path, outline=True))
    assert [row for row in outline if row["event"] != "step"] == [row for row in whole if row["event"] != "step"]
    assert outline[-1:] == whole[-1:]
    kept = iter(whole)
    assert all(row in kept for row in outline)  # in their order


def test_an_outline_is_short(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"event": "started"}\n' + b"".join(map(step, range(20_000))) + b'{"event": "finished"}\n')
    rows = current_rows(path, outline=True)
    assert len(rows) < 20
    assert rows[-2]["step"] == 19_999


@pytest.mark.parametrize("torn", [step(7)[:17], step(7)[:-2], b'{"event": "step", "step": [7]}'])
def test_an_outline_has_the_report_before_a_torn_one(tmp_path: Path, torn: bytes) -> None:
    """Whoever goes on with the training of one that was killed while it wrote ends the line."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(map(step, range(3))) + torn + b"\n" + torn + b"\n" + b'{"event": "resume", "step": 3}\n')
    assert [row["step"] for row in read_rows(path, outline=True)] == [2, 3]


@pytest.mark.parametrize("how", ["cut", "emptied", "replaced", "rewritten in place", "deleted and back"])
def test_another_file_is_noticed_and_read_from_its_start(tmp_path: Path, how: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(map(step, range(50))))
    follower = Follower(path)
    assert len(to_the_end(follower)[0]) == 50
    assert to_the_end(follower) == ([], False)
    new = b"".join(map(step, range(100, 103)))
    if how == "replaced":
        (tmp_path / "other").write_bytes(new)
        (tmp_path / "other").replace(path)
    elif how == "emptied":
        os.truncate(path, 0)
        assert to_the_end(follower) == ([], True)
        path.write_bytes(new)
        rows, again = to_the_end(follower)
        assert ([row["step"] for row in rows], again) == ([100, 101, 102], False)  # said once
        return
    elif how == "deleted and back":
        path.unlink()
        assert to_the_end(follower) == ([], False)
        assert follower.problem == "No such file or directory"
        path.write_bytes(new)
    else:
        path.write_bytes(new if how == "cut" else b"".join(map(step, range(100, 200))))  # as long as before, or longer
    rows, again = to_the_end(follower)
    assert again
    assert [row["step"] for row in rows[:3]] == [100, 101, 102]
    assert not follower.problem


def test_a_huge_file_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(map(step, range(20_000))))
    follower = Follower(path)
    first = follower.more(0).rows
    assert 0 < len(first) < 20_000
    assert 0 < follower.share < 1
    assert not follower.at_end
    rest = to_the_end(follower)[0]
    assert [row["step"] for row in first + rest] == list(range(20_000))
    assert follower.share == 1


def test_a_line_of_100_megabytes_takes_no_room(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with path.open("wb") as file:
        file.write(step(1) + b'{"event": "')
        file.seek(100_000_000, os.SEEK_CUR)  # a hole: it takes no room on the disk either
        file.write(b'x"}')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    follower = Follower(path)
    assert [row["step"] for row in to_the_end(follower)[0]] == [1]
    with path.open("ab") as file:
        file.write(b"\n" + step(2))
    assert [row["step"] for row in to_the_end(follower)[0]] == [2]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # kB


def test_a_line_as_long_as_may_be(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    row = {"event": "warned", "message": "x" * (LONGEST_LINE - 100)}
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
def test_hostile_lines_are_passed_over(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(step(1) + line + b"\n" + step(2))
    assert [row["step"] for row in read_rows(path)] == [1, 2]


def test_after_a_disk_that_fails_for_a_while_every_row_came_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(step(1))
    follower = Follower(path)
    found = follower.more(1).rows
    path.write_bytes(step(1) + step(2))

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as failing:
        failing.setattr("engine.runs.metrics.os.read", fail)
        assert follower.more(1).rows == []
    assert (follower.problem, follower.at_end) == ("Input/output error", True)
    found += follower.more(1).rows
    assert follower.problem == ""
    assert [row["step"] for row in found] == [1, 2]


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "closed"])
def test_what_cannot_be_read_is_said_and_has_no_rows(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "metrics.jsonl"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "closed":
        path.write_bytes(step(1))
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("nothing is closed to root")
    follower = Follower(path)
    assert to_the_end(follower) == ([], False)
    assert follower.problem
    assert list(read_rows(path)) == []
