"""What is fuzzed of the terminal: records as they are shown, sessions, settings, prompts, and text that is set out."""

import json
import math
from itertools import pairwise
from pathlib import Path
from unicodedata import category

from rich.cells import cell_len

from engine.analysis.token_scores import split
from engine.config import Config
from engine.data.vocabulary import EOS, UNK, Vocabulary
from engine.errors import printable
from engine.events import (
    Checkpointed,
    Evaluated,
    Failed,
    Finished,
    Preparing,
    Resume,
    Sampled,
    Started,
    Steered,
    Step,
    TrainingEvent,
    Warned,
    to_record,
)
from engine.generation.generate import encode_prompt
from engine.generation.settings import SamplerSettings
from engine.runs.metrics import Follower, current_rows, read_rows
from engine.runs.store import CONFIG, METRICS, SAMPLES, summarize
from lotr_tui.cli.status import _facts, read_status
from lotr_tui.cli.status import to_json as status_json
from lotr_tui.clipboard import sequences
from lotr_tui.monitor.run_list import read_curve
from lotr_tui.screens.text.layout import Page, break_lines
from lotr_tui.screens.text.layout import clean as clean_page
from lotr_tui.screens.text.text_input import MOST_CHARACTERS, one_line, with_line_ends
from lotr_tui.session.entries import Exchange, wrap
from lotr_tui.session.export import to_json, to_markdown, to_svg
from lotr_tui.session.history import History
from lotr_tui.session.saved_session import Node, SavedSession, Word, header_line, node_line, read_session
from lotr_tui.session.session_file import saved_sessions
from lotr_tui.session.settings import Settings
from lotr_tui.widgets.prompt import clean as clean_prompt
from tests.faults.parsers import Parser, put

VOCABULARY = Vocabulary((UNK, EOS, "the", "road", "is"))
WIDTHS = (1, 7, 40)


# Records


def _metrics(content: bytes, folder: Path) -> None:
    _record(content, folder, METRICS)


def _samples(content: bytes, folder: Path) -> None:
    _record(content, folder, SAMPLES)


def _record(content: bytes, folder: Path, name: str) -> None:
    """A file of a run's record: whole, in pieces, without most reports, and all that is shown of it."""
    run = folder / "run"
    run.mkdir(exist_ok=True)
    for file in (METRICS, SAMPLES):
        (run / file).unlink(missing_ok=True)
    put(run / CONFIG, Config().to_json().encode())
    path = put(run / name, content)
    rows = list(read_rows(path))
    follower = Follower(put(path, content[: len(content) // 2]))
    first = follower.more(9).rows
    with path.open("ab") as file:
        file.write(content[len(content) // 2 :])
    assert first + follower.more(9).rows == rows
    outline = list(read_rows(path, outline=True))
    assert [row for row in outline if row["event"] != "step"] == [row for row in rows if row["event"] != "step"]
    assert outline[-1:] == rows[-1:]
    assert len(current_rows(path)) <= len(rows)
    status = read_status(run)
    for name, value in _facts(status):
        assert name, value
        assert printable(value).isprintable()
    assert "NaN" not in json.dumps(status_json(status), allow_nan=False)
    assert all(line.text.isprintable() for line in status.view.log)
    assert (status.view.lr_share, status.view.prompt, status.view.left, status.view.active) is not None
    read_curve(summarize(run))


# What is kept for the next session


def _session(content: bytes, folder: Path) -> None:
    put(folder / "s.jsonl", content)
    for summary in saved_sessions(folder):
        assert all(text.isprintable() for text in (summary.model, summary.first_prompt, summary.problem))
    session = read_session("s", content)
    again = header_line(session) + b"".join(map(node_line, session.nodes)) + header_line(session)
    assert str(read_session("s", again)) == str(session)  # as texts, for NaN is not NaN
    for node in session.nodes:
        assert session.line(node.id)[-1] is node
    assert all(line.isprintable() for line in to_markdown(session).split("\n"))
    assert all(line.isprintable() for line in to_svg(session).split("\n"))
    json.loads(to_json(session), parse_constant=_no_constant)


def _settings(content: bytes, folder: Path) -> None:
    try:
        text = content.decode()
    except UnicodeDecodeError:  # which whoever reads the file says
        return
    settings = Settings.from_json(text)
    assert Settings.from_json(settings.to_json()) == settings
    assert settings.sampler.chain().isprintable()
    json.loads(settings.to_json(), parse_constant=_no_constant)


def _history(content: bytes, folder: Path) -> None:
    path = put(folder / "history.jsonl", content)
    history = History(path, most=5)
    assert len(history.entries) <= 5
    assert all(text.strip() for text in history.entries)
    history.add("more")
    again = History(path, most=5).entries  # of very many damaged lines the oldest are not looked at
    assert again == history.entries[-len(again) :]
    assert again[-1] == "more"


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


# Text on its way to the terminal


def _prompt(content: bytes, folder: Path) -> None:
    """What is typed, pasted or recalled."""
    typed = content.decode(errors="surrogateescape")
    text, removed = clean_prompt(typed)
    assert removed >= 0
    assert clean_prompt(text)[0].rstrip("\n") == text.rstrip("\n")
    assert all(c.isprintable() or c in "\n\u200c\u200d" or category(c) == "Zs" for c in text)
    prompt = encode_prompt(text, VOCABULARY)
    assert VOCABULARY.encode(VOCABULARY.tokenize(text)).tolist() == [*prompt.ids]
    exchange = Exchange(text, prompt.unknown, 0, SamplerSettings().chain())
    for block in exchange.blocks():
        for width in WIDTHS:
            lines = [block.plain[start:end] for start, end in wrap(block.plain, width)]
            assert "".join(lines).replace(" ", "") == block.plain.replace(" ", "").replace("\n", "")
            assert all(cell_len(line) <= width or len(line) == 1 for line in lines), (lines, width)
    assert sequences(typed, {"TMUX": "1"}).isascii()


def _page(content: bytes, folder: Path) -> None:
    """A text as the lens sets it out."""
    typed = content.decode(errors="surrogateescape")
    text = clean_page(typed)
    assert all(line.isprintable() for line in text.split("\n"))
    assert VOCABULARY.tokenize(text) == VOCABULARY.tokenize(typed)
    line = one_line(typed)
    assert line.isprintable()
    assert len(line) <= MOST_CHARACTERS
    words = VOCABULARY.tokenize(with_line_ends(line))
    assert words == VOCABULARY.tokenize(with_line_ends(typed))[: len(words)]
    page = Page.of(split(text, VOCABULARY, line_ends=True))
    for width in WIDTHS:
        starts, ends = break_lines(page, width)
        places = list(zip(starts.tolist(), ends.tolist(), strict=True))
        assert all(start <= end for start, end in places)
        assert all(end <= start for (_, end), (start, _) in pairwise(places))
        shown = "".join(page.text[start:end] for start, end in places)
        assert shown.replace(" ", "") == page.text.replace(" ", "").replace("\n", "")
    assert printable(printable(typed)) == printable(typed)
    assert printable(typed).isprintable()


def _lines(*events: TrainingEvent) -> bytes:
    return b"".join(json.dumps(to_record(event)).encode() + b"\n" for event in events)


def _steps(first: int, last: int) -> tuple[Step, ...]:
    return tuple(Step(step, step / 9, 99.5, 0.01, 1.5, 9000.0, step / 7, 60.0) for step in range(first, last))


def _node(number: int, parent: int | None, at: int, prompt: str | None) -> Node:
    words = (Word(5, "green", -1.0, 0.4, 1, 2.0), Word(6, "barrels", math.nan, 0.1, 3, 1.5))
    return Node(number, parent, at, prompt, "reply", words, 7, SamplerSettings(), "eos", 900.0, "r", ("xyzzy",), "b")


_SESSION = SavedSession("s", "bundled", 1.7e9, (_node(0, None, 0, "the *road*"), _node(1, 0, 1, None)), 1)
_STARTED = Started("r", "tiny", 9999, 5, 100, 10, 40, "cpu", "0" * 64, 151.0, 94.0)

TERMINAL_PARSERS = {
    "metrics": Parser(
        _metrics,
        (
            _lines(Preparing("reading"), _STARTED, *_steps(1, 5), Evaluated(5, 0.5, 99.0, True, 1.5)),
            _lines(
                _STARTED, *_steps(1, 9), Checkpointed(8, "model.safetensors"), Checkpointed(8, "resume.safetensors"),
                Resume(4), *_steps(4, 6), Steered(5, 0.5, "lr", "0.5"), Steered(5, 0.5, "pause", ""),
                Warned("a disk is full"), Finished("done", "r", 1.0, 88.0, 87.0, 9.5),
            ),
            _lines(_STARTED, Failed("it broke", "Traceback"), Steered(5, 0.5, "prompt", "the road")),
        ),
    ),
    "samples": Parser(_samples, (_lines(Sampled(5, 0.5, "the road", "is long", 0, 0.7), Resume(4)),)),
    "session": Parser(_session, (header_line(_SESSION) + b"".join(map(node_line, _SESSION.nodes)),)),
    "settings": Parser(
        _settings,
        (
            Settings(keymap={"play.stop": "ctrl+l,f5"}).to_json().encode(),
            Settings("nord", SamplerSettings(1.2, 0.0, 5, 0.9, 0.1, 40), 5.0, "reply").to_json().encode(),
        ),
    ),
    "history": Parser(_history, (b'"the road"\n"is\\nlong"\n', b'"a"\n"a"\n"\\u001b[0m"\n"b"\n"c"\n"d"\n"e"\n')),
    "prompt": Parser(
        _prompt,
        (
            b"the road is long",
            "the road\r\n\u2028is \x1b[31mred\x1b]0;title\x07 \u202e\u200d漢字 İK <eos> [b]x[/b]\t".encode(),
        ),
    ),
    "page": Parser(
        _page,
        (
            b"The road. <eos> Is it long?  yes \n\n  the end",
            "‹the› road…\r\n\u2028is \x1b[31mred\x9b漢字漢字 é\u0301 <unk> ¶".encode(),
        ),
    ),
}  # fmt: skip
