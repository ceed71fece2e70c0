"""Parsers of the terminal interface to fuzz: metrics as shown, sessions, settings, prompts, and wrapped texts."""

import io
import json
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from unicodedata import category

from rich.cells import cell_len

from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.config import Config
from engine.data.tokenizers.base import EOS, UNK
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import printable
from engine.events import (
    Checkpointed,
    CommandApplied,
    Diagnosed,
    Evaluated,
    Failed,
    Finished,
    Preparing,
    Resume,
    Sampled,
    Started,
    Step,
    TrainingEvent,
    Warned,
    event_to_dict,
)
from engine.generation.prompt import encode_prompt
from engine.generation.settings import SamplerSettings
from engine.runs.directory import CONFIG_FILE, METRICS_FILE, SAMPLES_FILE
from engine.runs.metrics import RecordFollower, read_current_rows, read_rows
from engine.runs.summary import summarize_run
from lotr_tui.cli.status import print_status, read_status, status_to_dict
from lotr_tui.clipboard import osc52_sequence
from lotr_tui.monitor.run_list import read_validation_curve
from lotr_tui.screens.text.layout import Page, break_lines, sanitize_text
from lotr_tui.screens.text.text_input import MAX_TEXT_CHARACTERS, marks_to_newlines, newlines_to_marks
from lotr_tui.session.conversation.entries import Exchange
from lotr_tui.session.conversation.wrapping import wrap
from lotr_tui.session.export import to_json, to_markdown, to_svg
from lotr_tui.session.history import PromptHistory
from lotr_tui.session.saved_session import SavedReply, SavedSession, SavedToken, encode_session, parse_session
from lotr_tui.session.session_file import list_sessions
from lotr_tui.session.settings import Settings
from lotr_tui.widgets.prompt.text import sanitize_prompt
from tests.faults.parsers import Parser, write_file
from tests.support.sessions import saved_reply

VOCABULARY = WordTokenizer((UNK, EOS, "the", "road", "is"))
WIDTHS = (1, 7, 40)


# Metrics and samples


def _parse_metrics(content: bytes, folder: Path) -> None:
    _parse_rows(content, folder, METRICS_FILE)


def _parse_samples(content: bytes, folder: Path) -> None:
    _parse_rows(content, folder, SAMPLES_FILE)


def _parse_rows(content: bytes, folder: Path, name: str) -> None:
    """Read a file of a run at once, in two parts and without most steps, and format everything that is shown of it."""
    run_dir = folder / "run"
    run_dir.mkdir(exist_ok=True)
    for other in (METRICS_FILE, SAMPLES_FILE):
        (run_dir / other).unlink(missing_ok=True)
    write_file(run_dir / CONFIG_FILE, Config().to_json().encode())
    path = write_file(run_dir / name, content)
    rows = list(read_rows(path))
    follower = RecordFollower(write_file(path, content[: len(content) // 2]))
    first_rows = follower.read_batch(9).rows
    with path.open("ab") as file:
        file.write(content[len(content) // 2 :])
    assert first_rows + follower.read_batch(9).rows == rows
    subsampled = list(read_rows(path, subsample=True))
    assert [row for row in subsampled if row["event"] != "step"] == [row for row in rows if row["event"] != "step"]
    assert subsampled[-1:] == rows[-1:]
    assert len(read_current_rows(path)) <= len(rows)
    output = io.StringIO()
    with redirect_stdout(output):
        print_status(run_dir, as_json=False)
    assert all(line.isprintable() for line in output.getvalue().split("\n"))
    status = read_status(run_dir)
    assert "NaN" not in json.dumps(status_to_dict(status), allow_nan=False)
    assert all(line.text.isprintable() for line in status.view.log)
    assert (status.view.lr_scale, status.view.prompt, status.view.is_resumable, status.view.is_active) is not None
    read_validation_curve(summarize_run(run_dir))


# Files that a session leaves for the next one


def _parse_session(content: bytes, folder: Path) -> None:
    write_file(folder / "s.jsonl", content)
    for summary in list_sessions(folder):
        assert all(text.isprintable() for text in (summary.model, summary.first_prompt, summary.error))
    session = parse_session("s", content)
    assert parse_session("s", encode_session(session)) == session
    for reply in session.replies:
        assert reply.parent_id is None or reply.parent_id in session.replies_by_id
    assert all(line.isprintable() for line in to_markdown(session).split("\n"))
    assert all(line.isprintable() for line in to_svg(session).split("\n"))
    json.loads(to_json(session), parse_constant=_refuse_constant)


def _parse_settings(content: bytes, folder: Path) -> None:
    try:
        text = content.decode()
    except UnicodeDecodeError:  # reported by the caller of `from_json`
        return
    settings = Settings.from_json(text)
    assert Settings.from_json(settings.to_json()) == settings
    assert settings.sampler.describe().isprintable()
    json.loads(settings.to_json(), parse_constant=_refuse_constant)


def _parse_history(content: bytes, folder: Path) -> None:
    path = write_file(folder / "history.jsonl", content)
    history = PromptHistory(path, max_entries=5)
    assert len(history.entries) <= 5
    assert all(text.strip() for text in history.entries)
    history.add("more")
    entries = PromptHistory(path, max_entries=5).entries  # fewer if many damaged lines precede them
    assert entries == history.entries[-len(entries) :]
    assert entries[-1] == "more"


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


# Texts for the terminal


def _wrap_prompt(content: bytes, folder: Path) -> None:
    """Sanitize, encode and wrap a text that was typed, pasted or recalled."""
    typed = content.decode(errors="surrogateescape")
    text, num_removed = sanitize_prompt(typed)
    assert num_removed >= 0
    assert sanitize_prompt(text)[0].rstrip("\n") == text.rstrip("\n")
    assert all(c.isprintable() or c in "\n\u200c\u200d" or category(c) == "Zs" for c in text)
    prompt = encode_prompt(text, VOCABULARY)
    assert VOCABULARY.encode(text).tolist() == [*prompt.ids]
    exchange = Exchange(text, prompt.unknown_tokens, 0, SamplerSettings().describe())
    for block in exchange.blocks():
        for width in WIDTHS:
            lines = [block.text[start:end] for start, end in wrap(block.text, width)]
            assert "".join(lines).replace(" ", "") == block.text.replace(" ", "").replace("\n", "")
            assert all(cell_len(line) <= width or len(line) == 1 for line in lines), (lines, width)
    assert osc52_sequence(typed, {"TMUX": "1"}).isascii()


def _wrap_page(content: bytes, folder: Path) -> None:
    """Sanitize and wrap a text as the lens does."""
    typed = content.decode(errors="surrogateescape")
    text = sanitize_text(typed)
    assert all(line.isprintable() for line in text.split("\n"))
    assert VOCABULARY.split(text) == VOCABULARY.split(typed)
    line = newlines_to_marks(typed)
    assert line.isprintable()
    assert len(line) <= MAX_TEXT_CHARACTERS
    tokens = VOCABULARY.split(marks_to_newlines(line))
    typed_tokens = VOCABULARY.split(marks_to_newlines(typed))
    assert tokens == typed_tokens[len(typed_tokens) - len(tokens) :]  # a long text loses its beginning
    page = Page.from_tokens(tokenize_with_offsets(text, VOCABULARY, eos_per_line=True))
    for width in WIDTHS:
        starts, ends = break_lines(page, width)
        spans = list(zip(starts.tolist(), ends.tolist(), strict=True))
        assert all(start <= end for start, end in spans)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        shown = "".join(page.text[start:end] for start, end in spans)
        assert shown.replace(" ", "") == page.text.replace(" ", "").replace("\n", "")
    assert printable(printable(typed)) == printable(typed)
    assert printable(typed).isprintable()


# Seeds


def _json_lines(*events: TrainingEvent) -> bytes:
    return b"".join(json.dumps(event_to_dict(event)).encode() + b"\n" for event in events)


def _steps(first: int, end: int) -> list[Step]:
    return [Step(number, number / 9, 99.5, 0.01, 1.5, 9000.0, number / 7, 60.0) for number in range(first, end)]


def _reply(reply_id: int, parent_id: int | None, parent_offset: int, prompt: str | None) -> SavedReply:
    tokens = (SavedToken(5, "green", -1.0, 0.4, 1, 2.0), SavedToken(6, "barrels", None, 0.1, 3, 1.5))
    return saved_reply(
        reply_id,
        parent_id,
        parent_offset,
        prompt,
        reply_mode="reply",
        tokens=tokens,
        reason="eos",
        unknown_tokens=("xyzzy",),
        name="b",
    )


_SESSION = SavedSession(
    name="s",
    model="bundled",
    started=1.7e9,
    replies=(_reply(0, None, 0, "the *road*"), _reply(1, 0, 1, None)),
    current_id=1,
)
_STARTED = Started("r", "tiny", 9999, 5, 100, 10, 40, "cpu", "0" * 64, 151.0, 94.0)

TERMINAL_PARSERS = {
    "metrics": Parser(
        _parse_metrics,
        (
            _json_lines(Preparing("reading"), _STARTED, *_steps(1, 5), Evaluated(5, 0.5, 99.0, True, 1.5)),
            _json_lines(
                _STARTED, *_steps(1, 9), Checkpointed(8, "model.safetensors"), Checkpointed(8, "resume.safetensors"),
                Resume(4), *_steps(4, 6), CommandApplied(5, 0.5, "lr", "0.5"), CommandApplied(5, 0.5, "pause", ""),
                Warned("a disk is full"), Diagnosed(5, 0.5, "idle_gpu", "idle", "--device cpu"),
                Finished("done", "r", 1.0, 88.0, 87.0, 9.5),
            ),
            _json_lines(_STARTED, Failed("it broke", "Traceback"), CommandApplied(5, 0.5, "prompt", "the road")),
        ),
    ),
    "samples": Parser(_parse_samples, (_json_lines(Sampled(5, 0.5, "the road", "is long", 0, 0.7), Resume(4)),)),
    "session": Parser(_parse_session, (encode_session(_SESSION),)),
    "settings": Parser(
        _parse_settings,
        (
            Settings(keymap={"session.stop": "ctrl+l,f5"}).to_json().encode(),
            Settings(
                theme="nord",
                sampler=SamplerSettings(1.2, 0.0, 5, 0.9, 0.1, 40),
                pace=5.0,
                reply_mode="reply",
            ).to_json().encode(),
        ),
    ),
    "history": Parser(_parse_history, (b'"the road"\n"is\\nlong"\n', b'"a"\n"a"\n"\\u001b[0m"\n"b"\n"c"\n"d"\n"e"\n')),
    "prompt": Parser(
        _wrap_prompt,
        (
            b"the road is long",
            "the road\r\n\u2028is \x1b[31mred\x1b]0;title\x07 \u202e\u200d漢字 İK <eos> [b]x[/b]\t".encode(),
        ),
    ),
    "page": Parser(
        _wrap_page,
        (
            b"The road. <eos> Is it long?  yes \n\n  the end",
            "‹the› road…\r\n\u2028is \x1b[31mred\x9b漢字漢字 é\u0301 <unk> ¶".encode(),
        ),
    ),
}  # fmt: skip
