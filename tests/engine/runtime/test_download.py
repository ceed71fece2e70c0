"""Downloads that break off, are continued, or are refused."""

import errno
import ssl
import time
from http.client import HTTPResponse

import pytest

from engine.errors import InvalidInputError, LotrError
from engine.runtime.download import download
from tests.support.tales import serve_books

CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def waits(monkeypatch):
    """The seconds of waiting, which the tests leave out."""
    seconds = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def server(waits, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve_books({"/file": CONTENT}) as state:
        yield state


@pytest.mark.parametrize("continues", [True, False])
def test_a_download_that_breaks_off_is_continued_where_the_server_can(continues, server, tmp_path):
    server.continues, server.break_after = continues, [400_000]
    sizes = []
    download(f"{server.url}/file", tmp_path / "file", 2_000_000, lambda done, total: sizes.append((done, total)))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert {total for _, total in sizes} == {len(CONTENT)}
    done = [done for done, _ in sizes]
    assert done[-1] == len(CONTENT)
    assert (done == sorted(done)) == continues


def test_a_later_call_continues_what_one_that_was_stopped_has_left(server, tmp_path):
    server.continues = True

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(f"{server.url}/file", tmp_path / "file", 2_000_000, stop)
    left = (tmp_path / "file").stat().st_size
    assert 0 < left < len(CONTENT)
    sizes = []
    download(f"{server.url}/file", tmp_path / "file", 2_000_000, lambda done, total: sizes.append(done))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert sizes[0] > left
    (tmp_path / "file").write_bytes(CONTENT * 2)  # not the start of the server's file
    download(f"{server.url}/file", tmp_path / "file", 2_000_000)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_lost_network_is_tried_again_and_a_full_disk_is_not(server, tmp_path, monkeypatch):
    server.continues, read = True, HTTPResponse.read
    failures = [OSError(errno.ENETUNREACH, "no network"), ssl.SSLEOFError(8, "end of file"), None]

    def read_or_fail(response, *arguments):
        if failures and (failure := failures.pop(0)):
            raise failure
        return read(response, *arguments)

    monkeypatch.setattr(HTTPResponse, "read", read_or_fail)
    download(f"{server.url}/file", tmp_path / "file", 2_000_000)
    assert (tmp_path / "file").read_bytes() == CONTENT
    failures[:] = [OSError(errno.ENOSPC, "disk full")]
    for name, message in (("other", "disk full"), ("missing/file", "No such file")):
        with pytest.raises(OSError, match=message):
            download(f"{server.url}/file", tmp_path / name, 2_000_000)


def test_what_is_too_long_or_not_there_is_refused(server, tmp_path):
    with pytest.raises(InvalidInputError, match="is longer than 1,000,000 bytes"):
        download(f"{server.url}/file", tmp_path / "file", 1_000_000)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidInputError, match="/other: the server answered 404"):
        download(f"{server.url}/other", tmp_path / "file", 1_000_000)


def test_a_busy_server_is_asked_again_after_longer_and_longer_pauses(server, waits, tmp_path):
    server.statuses, server.break_after = [503, 429, 200], [0, 0, 500]
    download(f"{server.url}/file", tmp_path / "file", 2_000_000)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [wait for wait in waits if wait] == [1.0, 2.0, 4.0]
    for status, message, num_requests in ((503, "in 4 attempts: the server answered 503", 4), (403, "answered 403", 1)):
        server.statuses, server.requests[:] = [status] * 10, []
        with pytest.raises(LotrError, match=message):
            download(f"{server.url}/file", tmp_path / "file", 2_000_000)
        assert len(server.requests) == num_requests
    with serve_books({}) as stopped:
        pass
    with pytest.raises(LotrError, match=r"in 4 attempts: .*Connection refused; check the network"):
        download(f"{stopped.url}/file", tmp_path / "file", 2_000_000)
