"""Records stay whole, whatever happened to the file before and however full the disk is."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.storage.files import JsonLinesAppender
from tests.support.files import no_file_longer_than, write_sparse_file


def read_records(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@settings(max_examples=60)
@given(torn=st.integers(0, 40), more=st.lists(st.text(), min_size=1, max_size=3))
def test_a_file_torn_at_any_byte_keeps_its_whole_lines(tmp_path_factory, torn, more):
    path = tmp_path_factory.mktemp("torn") / "rows.jsonl"
    content = b"".join(json.dumps({"row": row}).encode() + b"\n" for row in range(4))[: 40 - torn]
    path.write_bytes(content)
    appender = JsonLinesAppender(path)
    for text in more:
        appender.append({"text": text})
    appender.close()
    whole = [json.loads(line) for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
    assert read_records(path) == whole + [{"text": text} for text in more]


def test_records_wait_while_the_disk_is_full_and_no_part_of_a_line_stays(tmp_path):
    path = tmp_path / "rows.jsonl"
    appender = JsonLinesAppender(path)
    appender.append("first")
    with no_file_longer_than(path.stat().st_size + 3):
        appender.append("second")
        assert "cannot write" in appender.problem
        assert path.read_bytes() == b'"first"\n'
    appender.append("third")
    assert not appender.problem
    appender.close()
    assert read_records(path) == ["first", "second", "third"]


def test_a_long_torn_line_is_removed_and_one_of_gigabytes_ended_without_a_search_for_its_start(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"row": 1}\n' + b"x" * 200_000)
    JsonLinesAppender(path).close()
    assert path.read_bytes() == b'{"row": 1}\n'
    size = write_sparse_file(path).stat().st_size
    JsonLinesAppender(path).close()
    assert path.stat().st_size == size + 1


def test_a_deleted_file_is_reported(tmp_path):
    appender = JsonLinesAppender(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").unlink()
    appender.append(1)
    assert "was deleted" in appender.problem
    appender.close()


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_only_a_regular_file_is_opened(tmp_path, kind):
    path = tmp_path / "rows.jsonl"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("other.txt")
    with pytest.raises(OSError, match=r"not a regular file|symbolic links|rows\.jsonl"):
        JsonLinesAppender(path)
    assert not (tmp_path / "other.txt").exists()
