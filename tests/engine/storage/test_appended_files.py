"""Records and log lines stay whole, whatever happened to the file before and however full the disk is."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.storage.json_lines import MAX_LOG_BYTES, JsonLinesAppender
from tests.support.files import no_file_longer_than, write_sparse_file


def read_records(path):
    content = path.read_bytes()
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


class TestRecords:
    @settings(max_examples=60)
    @given(torn=st.integers(0, 40), exclusive=st.booleans(), more=st.lists(st.text(), min_size=1, max_size=3))
    def test_a_file_torn_at_any_byte_keeps_its_whole_lines(self, tmp_path_factory, torn, exclusive, more):
        path = tmp_path_factory.mktemp("torn") / "rows.jsonl"
        whole = b"".join(json.dumps({"row": row}).encode() + b"\n" for row in range(4))[: 40 - torn]
        path.write_bytes(whole)
        appender = JsonLinesAppender(path, exclusive=exclusive)
        for text in more:
            appender.append({"text": text})
        appender.close()
        after = path.read_bytes()
        if exclusive:
            assert after.startswith(whole[: whole.rfind(b"\n") + 1])
            complete = [json.loads(line) for line in whole.splitlines() if line.endswith(b"}")]
            assert read_records(path) == complete + [{"text": text} for text in more]
        else:
            assert after.startswith(whole)
            assert [json.loads(line) for line in after.splitlines()[-len(more) :]] == [{"text": text} for text in more]

    def test_records_wait_while_the_disk_is_full_and_no_part_of_a_line_stays(self, tmp_path):
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

    def test_a_long_torn_line_is_removed_and_one_of_gigabytes_ended_without_a_search_for_its_start(self, tmp_path):
        path = tmp_path / "rows.jsonl"
        path.write_bytes(b'{"row": 1}\n' + b"x" * 200_000)
        JsonLinesAppender(path).close()
        assert path.read_bytes() == b'{"row": 1}\n'
        size = write_sparse_file(path).stat().st_size
        JsonLinesAppender(path).close()
        assert path.stat().st_size == size + 1

    def test_a_deleted_file_is_reported(self, tmp_path):
        appender = JsonLinesAppender(tmp_path / "rows.jsonl")
        (tmp_path / "rows.jsonl").unlink()
        appender.append(1)
        assert "was deleted" in appender.problem
        appender.close()


class TestLog:
    def test_a_long_log_has_two_bounded_files_without_a_gap(self, tmp_path):
        log = JsonLinesAppender(tmp_path / "log.txt", exclusive=False, max_bytes=MAX_LOG_BYTES)
        for number in range(6000):
            log.append_text(f"{number:05d} {'x' * 1000}")
        lines = [line for name in ("log.1.txt", "log.txt") for line in (tmp_path / name).read_text().splitlines()]
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2 * MAX_LOG_BYTES + 2000
        assert [int(line[:5]) for line in lines] == list(range(6000 - len(lines), 6000))

    def test_lines_wait_while_the_disk_is_full(self, tmp_path):
        path = tmp_path / "log.txt"
        path.write_text("tor")  # by a program that ended while it wrote
        log = JsonLinesAppender(path, exclusive=False, max_bytes=20)
        log.append_text("first")
        with no_file_longer_than(13):
            log.append_text("second")
            log.append_text("third")
        assert path.read_text() == "tor\nfirst\nsec"
        (tmp_path / "log.1.txt").mkdir()  # in the way of the rotation
        log.append_text("fourth")
        assert path.read_text() == "tor\nfirst\nsecond\nthird\nfourth\n"

    @pytest.mark.parametrize("kind", ["pipe", "link"])
    def test_only_a_regular_file_is_opened(self, tmp_path, kind):
        path = tmp_path / "log.txt"
        os.mkfifo(path) if kind == "pipe" else path.symlink_to("other.txt")
        with pytest.raises(OSError, match=r"not a regular file|symbolic links|log\.txt"):
            JsonLinesAppender(path)
        assert not (tmp_path / "other.txt").exists()
