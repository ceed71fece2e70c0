"""Hostile files made by hand, and a home with one valid file of each kind, whose files they replace."""

import json
import os
import shutil
import socket
import struct
from collections.abc import Callable
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import NamedTuple

from engine.config import Config
from engine.events import Evaluated
from engine.generation.settings import SamplerSettings
from engine.runs.directory import COMMANDS_FILE, INITIAL_FILE, MODEL_FILE
from engine.training.job import prepare_job
from engine.training.search import Budget, Search, make_plan, open_study, propose
from lotr_tui.learn.progress import ProgressStore
from lotr_tui.session.session_file import Session
from lotr_tui.session.settings import PromptHistory, SettingsStore
from tests.faults.mutations import ESCAPES
from tests.support.files import sentences, write_csv, write_sparse_file
from tests.support.sessions import add_reply, saved_reply, saved_token

RUN, SEARCH = "r", "search"


class HostileFile(NamedTuple):
    name: str
    create: Callable[[Path], object]


def file_with(name, content):
    """Return the recipe for a regular file; a function gives a content that takes long to make."""
    return HostileFile(name, lambda path: path.write_bytes(content() if callable(content) else content))


def _link_to(target):
    return HostileFile(f"a link to {target}", lambda path: path.symlink_to(target))


def _create_socket(path):
    with socket.socket(socket.AF_UNIX) as server, chdir(path.parent):  # the path of a socket has 108 bytes at most
        server.bind(path.name)


FOR_ANY_READER = (
    HostileFile("nothing", lambda path: None),
    HostileFile("a pipe", os.mkfifo),
    HostileFile("a socket", _create_socket),
    HostileFile("a folder", Path.mkdir),
    HostileFile("a link to itself", lambda path: path.symlink_to(path.name)),
    *map(_link_to, ("nowhere", "/dev/zero", "/dev/tty", "/", "/etc/passwd")),
    HostileFile("50 GB of zeros", write_sparse_file),
    HostileFile("50 GB after a brace", partial(write_sparse_file, start=b"{\n")),
    HostileFile("50 GB after the start of a list", partial(write_sparse_file, start=b'["<unk>", "<eos>",\n')),
    file_with("an empty file", b""),
    file_with("every byte value", bytes(range(256)) * 300),
    file_with("20 MB of line ends", lambda: b"\n" * 20_000_000),
    file_with("20 MB of brackets", lambda: b"[" * 20_000_000),
    file_with("30 MB of empty lists", lambda: b"[" + b"[]," * 10_000_000 + b"[]]"),
    file_with("a string of 60 MB", lambda: b'"' + b"x" * 60_000_000 + b'"'),
    file_with("10 million empty objects, one per line", lambda: b"{}\n" * 10_000_000),
)


PROGRESS_FILES = (
    file_with("progress in a newer format", b'{"version": 2, "chapters": {}}'),
    file_with("progress with names of escape sequences", json.dumps({"version": 1, "done": [ESCAPES]}).encode()),
    file_with("30,000 chapters", json.dumps({"version": 1, "done": ["a"] * 30_000}).encode()),
)


# Safetensors files


def _safetensors(header, data=b"", length=None):
    """Return the content of a safetensors file; `length` is the length of the header that the file claims."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _trainer_state(text):
    return _safetensors({"__metadata__": {"config": "{}", "trainer_state": text}})


def _tensor(shape, num_bytes):
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, num_bytes]}


_FLOAT = json.dumps(_tensor([1], 4)).encode()
_LARGE_TENSOR = _safetensors({"embedding.weight": _tensor([20_000, 100_000], 8_000_000_000)})
TENSORS = (
    *(file_with(f"a header of {size}", _safetensors({}, length=size)) for size in (2**40, 2**63, 2**64 - 1, 10**8)),
    HostileFile(
        "90 MB header", partial(write_sparse_file, size=95_000_000, start=_safetensors(b"{", length=90 * 10**6))
    ),
    HostileFile("8 GB tensor, all in the file", partial(write_sparse_file, size=8_000_000_200, start=_LARGE_TENSOR)),
    file_with("a tensor of terabytes", _safetensors({"embedding.weight": _tensor([2**40, 300], 2**42 * 300)})),
    file_with("a shape beyond 64 bits", _safetensors({"embedding.weight": _tensor([2**33, 2**33], 0)})),
    file_with("a negative shape", _safetensors({"embedding.weight": _tensor([-1, -4], 16)}, b"\0" * 16)),
    file_with("a deeply nested header", _safetensors(b'{"a":' * 100_000)),
    file_with("100,000 tensors", lambda: _safetensors({f"t{n}": _tensor([0], 0) for n in range(100_000)})),
    file_with("a repeated tensor name", _safetensors(b'{"a":%s,"a":%s}' % (_FLOAT, _FLOAT), b"\0" * 4)),
    file_with("a tensor name of escape sequences", _safetensors({ESCAPES: _tensor([1], 4)}, b"\0" * 4)),
    file_with("a long tensor name", _safetensors({"x" * 1_000_000: _tensor([1], 4)}, b"\0" * 4)),
    file_with("a deeply nested trainer state", _trainer_state("[" * 100_000)),
    file_with("a number as trainer state", _safetensors({"__metadata__": {"trainer_state": 5}})),
    file_with("a trainer state with infinity", _trainer_state('{"progress": {"step": Infinity, "seconds": NaN}}')),
    file_with("a number of 400 digits", _trainer_state('{"progress": {"step": 1, "seconds": ' + "9" * 400 + "}}")),
)


# Texts


def _vocabulary(*words):
    return json.dumps(["<unk>", "<eos>", *words]).encode()


VOCABULARIES = (
    file_with("2 million words", lambda: _vocabulary(*(f"w{n}" for n in range(2_000_000)))),
    file_with("a word of 20 MB", lambda: _vocabulary("a" * 20_000_000)),
    file_with("words of control characters", _vocabulary("\x1b[2J", "\x9b", "\u202eabc")),
    file_with("a repeated word", _vocabulary("a", "a")),
    file_with("numbers in place of words", _vocabulary(1, 2, 3)),
)
METRICS = (
    file_with("1.5 million rows without fields", lambda: b'{"event":"evaluated"}\n' * 1_500_000),
    file_with("rows with nested lists", lambda: b'{"event":"evaluated","a":[%s[]]}\n' % (b"[]," * 300_000) * 40),
    file_with(
        "a row with thousands of fields", b'{"event":"evaluated",%s}' % b",".join(b'"%d":1' % n for n in range(9999))
    ),
)
_LINE = "a line long enough to be kept here"
CORPORA = (
    file_with("a header of many columns", b"dialog" + b",a" * 400_000 + b"\n" + b"x" + b",1" * 400_000 + b"\n"),
    file_with("a quotation mark without an end", lambda: b'char,dialog\nSAM,"' + b"well now, what is this\n" * 10**6),
    file_with("a megabyte of escapes", b'"char" "dialog"\n"1" "SAM" "\\"no ' + b'\\"' * 450_000 + b'"\n'),
    file_with("commas of a spreadsheet and an open quote", b"char;dialog,,\n" + b'SAM;well,"now, what,,\n' * 400_000),
    file_with("speakers of escape sequences", f"char,dialog\n{f'{ESCAPES[:12]},{_LINE}{chr(10)}' * 30}".encode()),
    file_with("lines with reversed direction", f"char,dialog\n\u202eSAM,\u2066{_LINE}\u202e\n".encode() * 30),
    file_with(
        "JSON with 100,000 keys a line", lambda: b"{%s}\n" % b",".join(b'"%d":1' % n for n in range(99_999)) * 30
    ),
    file_with("JSON nested deeply", b'{"text":' * 100_000 + b"\n"),
    file_with(
        "JSON with escapes", b'{"text":"a\\u001b[2J\\u202e line","who":"\\u001b]0;SAM\\u0007","movie":{}}\n' * 30
    ),
    file_with("a screenplay of brackets", lambda: b"\nSAM\nhere is a line\n\nSAM\n" + b"([{" * 300_000 + b"\n"),
    file_with("a comment without an end", lambda: b"\nSAM\nhere is a line\n\nSAM\nanother\n\n/*" + b"\n/*" * 10**6),
    file_with("a million names, no speech", lambda: b"INT. A\n\n" + b"SAM\nyes\n\n" * 9 + b"SAM\n\n" * 10**6),
    file_with("a line of a megabyte", b"char,dialog\nSAM," + b"word " * 190_000 + b"\n"),
    file_with("no word twice", lambda: b"dialog\n" + b"".join(b"word%x another%x\n" % (n, n) for n in range(300_000))),
)

TEXT_FILES = {
    "texts/comma.csv": b'char,dialog\nSAM,the road goes on\nBILBO,"well, now: ""yes""\nand no"\n',
    "texts/semicolon.csv": b"\xef\xbb\xbfid;dialog;char\r\n1;what is this?;SAM\r\n2;a road;\r\n",
    "texts/tab.csv": "char\tdialog\nSAM\tThéoden… said K\n".encode(),
    "texts/latin1.csv": 'dialog\n"il était là, déjà"\nit\x92s a road\n'.encode("latin-1"),
    "texts/escapes.csv": b'"char","dialog"\n"SAM","He said \\"no\\""\n"ROSA","a road; \\\\"\n',
    "texts/r.csv": b'"character" "dialogue"\n"1" "SAM" "the road \\"goes\\" on"\n"2" "BEN" "a road"\n',
    "texts/json-lines.csv": b'{"n": 1, "who": "SAM", "line": "the road"}\n\n{"who": null, "line": "on"}\n',
    "texts/play.fountain": b"Title: A\n\nINT. B\n\n"
    + b"SAM (V.O.) ^\n(low)\nthe *road* [[x]]\n\n@Ben\nis it the road?\n\n/* a\n*/\nCUT TO:\n\n" * 6,
    "texts/plain.txt": "\ufeffThéoden said… <unk>\r\nno\u2028yes\u0085\x0bİK\n\nthe road.\nonce\nmore\n".encode(),
    "texts/prompt": (
        "the road\r\n\u2028is \x1b[31mred\x1b]0;title\x07 \u202e\u200d漢字 İK <eos> [b]x[/b]\t" + 40 * " the road"
    ).encode(),
    "texts/overrides": b"epochs=3\nlr=1e-2\ntie_weights=false\nmode=stream\nsample_prompt=a = b\noptimizer=sgd",
    "texts/run-name": RUN.encode(),
}


def small_config(home):
    sizes = {"embedding_size": 8, "hidden_size": 8, "epochs": 2, "batch_size": 8, "threads": 1}
    saving = {"averaging": "ema", "checkpoint_seconds": 0.001}
    return Config("tiny").with_values(corpus=str(home / "corpus.csv"), min_count=1, **sizes, **saving)


def make_home(home):
    """Fill `home`, which must be the value of `LOTR_TUI_HOME`. The run in it is stopped in its second epoch."""
    (home / "texts").mkdir()
    for name, content in TEXT_FILES.items():
        (home / name).write_bytes(content)
    write_csv(home / "corpus.csv", sentences(120))
    (home / "corpus.txt").write_text("\n".join(sentences(120)))
    config = small_config(home)
    epochs = [0.0]
    for event in prepare_job(config, RUN).events(lambda: epochs[-1] >= 1):
        if isinstance(event, Evaluated):
            epochs.append(event.epoch)
    run_dir = home / "runs" / RUN
    shutil.copy(run_dir / MODEL_FILE, run_dir / INITIAL_FILE)
    commands = ({"kind": "pause", "value": ""}, {"kind": "lr", "value": "0.5"})
    (run_dir / COMMANDS_FILE).write_bytes(b"".join(json.dumps(command).encode() + b"\n" for command in commands))
    store = SettingsStore()
    store.change(pace=5.0)
    store.save()
    progress = ProgressStore()
    progress.add(done="tokens", last="counting")
    progress.save()
    history = PromptHistory()
    for text in ("the miller", "seven lanterns"):
        history.add(text)
    session = Session(model=RUN)
    tokens = [saved_token("green"), saved_token("barrels", 6)]
    for reply_id, parent_id, offset in ((0, None, 0), (1, 0, 2)):
        add_reply(
            session,
            saved_reply(
                reply_id, parent_id, offset, prompt="the miller", tokens=tokens, model=RUN, settings=SamplerSettings()
            ),
        )
    session.close()
    plan = make_plan(config, ["lr=0.01..0.1"])
    search = Search.create(SEARCH, None, plan)
    for _ in range(2):
        propose(open_study(search.path, plan, 0), plan, Budget(num_trials=2), SEARCH)
    search.close()
