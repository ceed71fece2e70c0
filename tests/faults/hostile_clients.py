"""Clients that attack `lotr-tui serve`: bodies that grow, endless texts, many fields, and streams that nobody reads.

    python -m tests.faults.hostile_clients --rounds 20

While they run, somebody with the token is answered soon; the server takes little memory and prints no traceback. All
clients of a round run at once, in an order that depends on the seed. The test suite runs a short form.
"""

import http.client
import json
import random
import socket
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

import psutil
import typer

from tests.faults.hostile_files import report
from tests.support.browser import ServeProcess

MAX_SECONDS = 3.0  # until an answer about the models during an attack; without limits it took 13 on a quiet machine
MAX_TEXT_SECONDS = 60.0  # until a text of two tokens, which waits for other texts
MAX_MEGABYTES = 300  # beside the memory of the server before the attacks
MODEL = "lstm"
GZIP_WBITS = 31  # of zlib, for the form of gzip


class Server:
    """A server of the API or, without it, of the session in a browser, and what a client can do to it."""

    def __init__(self, home, *, is_api):
        self.is_api = is_api
        self.process = ServeProcess(home, *(("--api", "--run", MODEL) if is_api else ()))
        line = self.process.url
        self._address = ("127.0.0.1", int(line.split(":")[2].split("/")[0]))
        self._token = line.rpartition("=")[2]
        self._num_bytes = psutil.Process(self.process.pid).memory_info().rss

    def ask(self, method, path, body=None, *, headers=(), has_token=True, timeout=120.0):
        """Return the status of the answer."""
        connection = http.client.HTTPConnection(*self._address, timeout=timeout)
        given = {"Authorization": f"Bearer {self._token}"} if has_token else {}
        try:
            connection.request(method, path, body, given | dict(headers))
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def complete(self, prompt, **fields):
        body = json.dumps({"model": MODEL, "prompt": prompt, **fields})
        return self.ask("POST", "/v1/completions", body)

    def open_stream(self, seconds):
        """Ask for a long stream, and read nothing of it."""
        prompts = ["Where is the Ring?"] * 128
        fields = {"model": MODEL, "prompt": prompts, "logprobs": 20, "stream": True, "max_tokens": 500}
        body = json.dumps(fields).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self._token}\r\n"
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(self._address)
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            time.sleep(seconds)

    def find_problem(self):
        """Return what a person with the token notices of the attack; "" if all is well."""
        started_at = time.monotonic()
        status = self.ask("GET", "/v1/models" if self.is_api else "/")
        seconds = time.monotonic() - started_at
        if status != 200 or seconds > MAX_SECONDS:
            return f"status {status} after {seconds:.1f} s"
        if self.is_api:
            status = self.complete("Where is", max_tokens=2)
            seconds = time.monotonic() - started_at
            if status != 200 or seconds > MAX_TEXT_SECONDS:
                return f"a text has status {status} after {seconds:.1f} s"
        megabytes = (psutil.Process(self.process.pid).memory_info().rss - self._num_bytes) / 1e6
        return f"the server has grown by {megabytes:.0f} MB" if megabytes > MAX_MEGABYTES else ""


def compressed_bomb():
    """Return a megabyte that becomes a gigabyte: each full flush begins again, so its blocks are equal."""
    compressor = zlib.compressobj(9, wbits=GZIP_WBITS)
    first = compressor.compress(bytes(10_000_000)) + compressor.flush(zlib.Z_FULL_FLUSH)
    block = compressor.compress(bytes(10_000_000)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return first + 99 * block


def attacks(server, seconds):
    """Return the clients of a round: functions that return whether their answer, if they wait for one, is right."""
    bomb = compressed_bomb()
    compressed = {"Content-Encoding": "gzip"}
    strangers = [
        lambda: server.ask("POST", "/v1/completions", bomb, headers=compressed, has_token=False) in (401, 403)
    ] * 10
    if not server.is_api:
        return strangers
    unknown = {f"unknown{number}": 1 for number in range(40_000)}
    question = {"role": "user", "content": "Where is the Ring?"}
    chat = json.dumps({"model": MODEL, "messages": [question] * 10_000, "max_tokens": 2})
    return [
        *strangers,
        *[lambda: server.complete("7" * 1_000_000) == 400] * 8,
        lambda: server.ask("POST", "/v1/completions", bomb, headers=compressed) == 400,
        lambda: server.complete("x", **unknown) == 400,
        lambda: server.complete("x", **{"x" * 1_000_000: 1}, max_tokens=1) == 200,
        lambda: server.ask("POST", "/v1/chat/completions", chat) == 200,
        lambda: server.open_stream(seconds) is None,
    ]


def attack(server, rng, seconds):
    """Let all clients of a round attack at once, and yield a line about each problem, or ""."""
    clients = attacks(server, seconds)
    rng.shuffle(clients)
    problems = []

    def run(client):
        try:
            problems.append("" if client() else "an attack has another answer")
        except OSError as error:
            problems.append(f"an attack has no answer: {error}")

    threads = [threading.Thread(target=run, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        yield server.find_problem()
    yield from problems


def main(rounds: int = 20, seconds: float = 15.0, seed: int = 0):
    num_problems = 0
    for is_api in (True, False):
        with tempfile.TemporaryDirectory() as home:
            server = Server(Path(home), is_api=is_api)
            rng = random.Random(seed)
            name = "clients of the API" if is_api else "clients of the browser's server"
            num_problems += report(name, (line for _ in range(rounds) for line in attack(server, rng, seconds)))
            _, output = server.process.stop()
            num_problems += report(f"output for {name}", [output if "Traceback" in output else ""])
    sys.exit(bool(num_problems))


if __name__ == "__main__":
    typer.run(main)
