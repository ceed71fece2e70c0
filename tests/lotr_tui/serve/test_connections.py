"""Connections without the token: how many there may be, for how long, and what malformed ones make the server print."""

import http.client
import socket
from unittest.mock import Mock

import pytest

pytest.importorskip("textual_serve", reason="needs textual-serve; pip install 'lotr-tui[serve]'")

from lotr_tui.serve.access import ACCESS_TIMEOUT, MAX_PER_ADDRESS, MAX_STRANGERS, Strangers
from tests.support.browser import ServeProcess


class Connection:
    """Substitute for a transport."""

    def __init__(self):
        self.is_open = True

    def is_closing(self):
        return not self.is_open

    def abort(self):
        self.is_open = False


@pytest.fixture
def clock():
    return Mock(return_value=0.0)


@pytest.fixture
def open_connections(clock):
    """Return a function that opens connections of an address, one after the other, and returns them."""
    strangers = Strangers(clock)

    def open_some(number, address):
        connections = [Connection() for _ in range(number)]
        for connection in connections:
            strangers.add(connection, address)
        return connections

    open_some.strangers = strangers
    return open_some


def num_open(connections):
    return sum(connection.is_open for connection in connections)


def test_a_further_connection_of_an_address_takes_the_place_of_its_oldest(open_connections):
    (owner,) = open_connections(1, "192.0.2.1")
    many = open_connections(MAX_PER_ADDRESS + 5, "192.0.2.2")
    assert [connection.is_open for connection in many] == [False] * 5 + [True] * MAX_PER_ADDRESS
    assert owner.is_open


def test_when_all_places_are_taken_the_address_with_the_most_connections_loses_one(open_connections):
    (owner,) = open_connections(1, "192.0.2.1")
    others = [
        connection
        for address in range(2 * MAX_STRANGERS // MAX_PER_ADDRESS)
        for connection in open_connections(MAX_PER_ADDRESS, f"198.51.100.{address}")
    ]
    assert num_open([owner, *others]) == MAX_STRANGERS
    assert owner.is_open


def test_a_connection_without_the_token_ends_in_time_and_one_with_it_is_not_counted(open_connections, clock):
    strangers = open_connections.strangers
    admitted, slow = open_connections(2, "192.0.2.1")
    strangers.admit(admitted)
    clock.return_value = ACCESS_TIMEOUT - 1
    (later,) = open_connections(1, "192.0.2.1")
    clock.return_value = ACCESS_TIMEOUT
    strangers.expire()
    assert [connection.is_open for connection in (admitted, slow, later)] == [True, False, True]
    open_connections(2 * MAX_STRANGERS, "192.0.2.1")
    assert admitted.is_open


MALFORMED = (
    b"GET\r\n\r\n",
    b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    b"\x16\x03\x01\x1b[2J\r\n\r\n",
    b"GET http://[::1 HTTP/1.1\r\n\r\n",
)


def test_the_page_opens_during_a_flood_of_connections_and_errors_are_one_line_a_second(tmp_path):
    with ServeProcess(tmp_path) as server:
        port, path = int(server.url.split(":")[2].split("/")[0]), "/" + server.url.split("/")[3]
        flood = [socket.create_connection(("127.0.0.1", port)) for _ in range(2 * MAX_PER_ADDRESS)]
        for number, connection in enumerate(flood):
            connection.sendall(MALFORMED[number % 8] if number % 8 < len(MALFORMED) else b"GET / HTTP/1.1\r\nHost: a")
        owner = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        owner.request("GET", path)
        assert owner.getresponse().status == 200
        _, output = server.stop()
        for connection in flood:
            connection.close()
    errors = [line for line in output.splitlines() if "400" in line]
    assert 1 <= len(errors) <= 3
    assert all(line.startswith("error: ") and line.isprintable() for line in errors)
    assert "Traceback" not in output
    assert "  File" not in output
