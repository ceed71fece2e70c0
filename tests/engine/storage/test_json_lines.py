"""Appended records are whole lines, whatever happened to the file before and however full the disk is."""

import json
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from engine.storage.json_lines import JsonLinesAppender
from tests.support.file_limits import no_file_longer_than
from tests.support.files import write_sparse_file


def read_records(path: Path) -> list[object]:
    """Return the records of all lines that end in a newline."""
    content = path.read_bytes()
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


@given(torn=st.integers(0, 40), exclusive=st.booleans(), more=st.lists(st.text(), min_size=1, max_size=3))
def test_a_file_torn_at_any_byte_keeps_its_whole_lines(
    tmp_path_factory, torn: int, exclusive: bool, more: list[str]
) -> None:
    path = tmp_path_factory.mktemp("torn") / "rows.jsonl"
    whole = b"".join(json.dumps({"row": row}).encode() + b"\n" for row in range(4))[: 40 - torn]
    path.write_bytes(whole)
    before = whole[: whole.rfind(b"\n") + 1]
    appender = JsonLinesAppender(path, exclusive=exclusive)
    for text in more:
        appender.append({"text": text})
    appender.close()
    after = path.read_bytes()
    if exclusive:
        assert after.startswith(before)
        complete = [line for line in whole.splitlines() if line.endswith(b"}")]
        assert read_records(path) == [json.loads(line) for line in complete] + [{"text": text} for text in more]
    else:
        assert after.startswith(whole)
        assert [json.loads(line) for line in after.splitlines()[-len(more) :]] == [{"text": text} for text in more]


def test_a_long_torn_line_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"row": 1}\n' + b"x" * 200_000)
    JsonLinesAppender(path).close()
    assert path.read_bytes() == b'{"row": 1}\n'


def test_a_complete_record_without_its_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'"first"\n"second"')
    appender = JsonLinesAppender(path)
    appender.append("third")
    appender.close()
    assert read_records(path) == ["first", "second", "third"]


def test_a_torn_line_of_gigabytes_is_ended_without_a_search_for_its_start(tmp_path: Path) -> None:
    path = write_sparse_file(tmp_path / "rows.jsonl")
    size = path.stat().st_size
    JsonLinesAppender(path).close()
    assert path.stat().st_size == size + 1


def test_records_wait_while_the_disk_is_full_and_no_part_of_a_line_stays(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    appender = JsonLinesAppender(path)
    appender.append("first")
    with no_file_longer_than(path.stat().st_size + 3):
        appender.append("second")
        assert "cannot write" in appender.problem
        assert read_records(path) == ["first"]
        assert path.read_bytes().endswith(b"\n")
    appender.append("third")
    assert not appender.problem
    appender.close()
    assert read_records(path) == ["first", "second", "third"]


def test_records_beyond_the_buffer_are_lost_while_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    appender = JsonLinesAppender(path, max_buffered_bytes=20)
    with no_file_longer_than(0):
        for row in range(10):
            appender.append({"row": row})
    appender.close()
    assert read_records(path) == [{"row": 0}]


def test_a_deleted_file_is_reported(tmp_path: Path) -> None:
    appender = JsonLinesAppender(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").unlink()
    appender.append(1)
    assert "was deleted" in appender.problem
    appender.close()


def test_a_record_is_complete_although_the_system_writes_three_bytes_at_a_time(tmp_path: Path, monkeypatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, content: write(fd, bytes(content)[:3]))
    appender = JsonLinesAppender(tmp_path / "rows.jsonl")
    appender.append("a whole line")
    appender.close()
    assert (tmp_path / "rows.jsonl").read_text() == '"a whole line"\n'
