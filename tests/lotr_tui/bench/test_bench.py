"""The benchmark's own sums and its terminal: that it counts and times what happens, never how fast that is."""

import json
import os
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.memorization import TrainingIndex
from engine.config import ModelConfig
from engine.data.vocabulary import tokenize
from engine.errors import UnusableInput
from engine.runs.store import load
from lotr_tui.bench import measure
from lotr_tui.bench.figures import (
    Figure,
    Skipped,
    median,
    nearest_rank,
    paired,
    percentile,
    percentile_95,
    words_per_second,
)
from lotr_tui.bench.interface.idle import cpu_seconds
from lotr_tui.bench.interface.keys import TEXT, keystrokes, type_keys
from lotr_tui.bench.interface.slider import write_random_run
from lotr_tui.bench.interface.transcript import write_session
from lotr_tui.bench.playing.branch import branch_seconds
from lotr_tui.bench.playing.generation import (
    Speeds,
    bytes_a_word,
    endless,
    figures_of,
    in_turn,
    measure_ours,
    random_decoder,
    read_all,
    together,
)
from lotr_tui.bench.playing.memorization import half_known, memorised, read_whole
from lotr_tui.bench.playing.notebook_generation import PlainModel
from lotr_tui.bench.terminal import BenchError, Terminal, shown
from lotr_tui.bench.training import growth
from lotr_tui.bench.training.distributed import Trained, furthest_apart, train
from lotr_tui.cli.reports import print_bench
from lotr_tui.session.session_file import load_session

ECHO = """
import os, sys, tty
tty.setraw(0)
text = ""
os.write(1, b"\\x1b[1mready\\x1b[0m")
while key := os.read(0, 1).decode():
    text = text[:-1] if key == "\\x7f" else text + key
    os.write(1, b"\\x1b[2K\\x1b[1;1H")
    os.write(1, b"\\x1b[31m" + text.encode() + b"\\x1b[0m ")
    if text.endswith("!"):
        break
"""
"""Writes its line anew at each key, in two pieces; ends after an exclamation mark."""


@pytest.fixture
def echo(tmp_path: Path) -> Terminal:
    return Terminal([sys.executable, "-c", ECHO], 40, 5, tmp_path)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.floats(0.01, 1))
def test_a_percentile_is_the_least_value_that_the_share_does_not_exceed(values: list[float], share: float) -> None:
    ordered = sorted(values)
    value = nearest_rank(ordered, share)
    assert value in values
    assert sum(v <= value for v in values) >= share * len(values)
    assert sum(v < value for v in values) < share * len(values)


def test_figures_are_in_the_units_they_name() -> None:
    figure = percentile_95("key", [n / 1000 for n in range(100, 0, -1)], 15)
    assert (figure.name, figure.unit) == ("key, p95 of 100", "ms")
    assert figure.value == pytest.approx(95)
    assert figure.runs == tuple(sorted(figure.runs))
    assert figure.within is False
    assert percentile(99, "key", [0.001] * 199 + [7]).value == pytest.approx(1)
    assert median("m", "s", [3, 1, 2], 2) == Figure("m", "s", 2, (3, 1, 2), 2)
    assert median("m", "s", [3, 1, 2], 2).within is True
    assert median("m", "s", [1]).within is None
    assert median("m", "", [1], least=2).within is False
    assert median("m", "", [2], least=2).within is True
    assert Figure("m", "", 3, (3,), limit=2, least=1).within is False


def test_pairs_are_measured_in_turn_and_the_first_of_them_is_not_counted() -> None:
    order: list[str] = []

    def timed(name: str, values: list[float]) -> float:
        order.append(name)
        return values.pop(0)

    ours, other = [99.0, 2.0, 9.0, 4.0], [99.0, 1.0, 3.0, 4.0]
    figures = list(paired("a", "s", lambda: timed("a", ours), lambda: timed("b", other), "b", 3, 5, 2))
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert [figure.value for figure in figures] == [4, 3, 2]  # the ratios are 2, 3 and 1
    assert [figure.limit for figure in figures] == [5, None, 2]
    (*_, ratio) = paired("a", "s", lambda: 6.0, lambda: 2.0, "b", 1, ratio_least=4)
    assert (ratio.least, ratio.within) == (4, False)


def test_keys_type_a_text_and_delete_it_and_each_changes_what_is_shown() -> None:
    text = before = ""
    for key, shows in islice(keystrokes("a bc"), 50):
        deleted = text[-1:] if key == b"\x7f" else ""
        text = text[:-1] if deleted else text + key.decode()
        assert shows == text + " "
        assert deleted == " " or shows not in before  # what stood there would not be taken for it
        before = shows
    assert max(len(shows) for _, shows in islice(keystrokes(TEXT), 200)) == len(TEXT) + 1


def test_a_key_is_timed_to_the_bytes_that_show_it(echo: Terminal) -> None:
    with echo.opened() as terminal:
        assert terminal.until("ready") == len(b"\x1b[1mready\x1b[0m")
        begun = time.perf_counter()
        latencies = type_keys(terminal, 8)
        assert len(latencies) == 8
        assert all(0 < seconds < time.perf_counter() - begun for seconds in latencies)
        assert terminal.press(b"x") > 0  # the first bytes, whatever they are
        terminal.settle(0.1, 1)
        assert terminal.read(0.01) == b""


def test_a_program_that_ends_or_never_shows_a_text_is_named(echo: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    with echo.opened() as terminal:
        terminal.until("ready")
        with pytest.raises(BenchError, match="ended before it was measured"):
            terminal.press(b"!", "nothing of the kind")
    monkeypatch.setattr("lotr_tui.bench.terminal.LIMIT_SECONDS", 0.1)
    with echo.opened() as terminal:
        with pytest.raises(BenchError, match="did not show 'never'"):
            terminal.until("never")
        with pytest.raises(BenchError, match="did not show 'nor this'"):
            terminal.press(b"a", "nor this")


def test_keys_reach_a_program_that_waits_for_its_output_to_be_read(tmp_path: Path) -> None:
    program = """
import os, sys, tty
tty.setraw(0)
os.write(1, b"ready")
sys.stdout.write("words " * 50_000)
sys.stdout.flush()
taken = 0
while taken < 20_000:
    taken += len(os.read(0, 1000))
os.write(1, b"took %d" % taken)
"""
    with Terminal([sys.executable, "-c", program], 80, 24, tmp_path).opened() as terminal:
        terminal.until("ready")
        terminal.write(b"k" * 20_000)
        written = terminal.until("took 20000")
    assert written > 290_000


def test_ctrl_s_holds_up_no_program(tmp_path: Path) -> None:
    program = "input(); print('go' + 'es on')"
    with Terminal([sys.executable, "-c", program], 80, 24, tmp_path).opened() as terminal:
        terminal.write(b"\x13\r")
        terminal.until("goes on")


def test_text_is_read_without_colours_and_moves() -> None:
    assert shown(b"\x1b[2;5H\x1b[38;2;1;2;3mtempera\x1b[0mture 0.85\x1b[?25l ") == "temperature 0.85 "
    assert shown("─ é".encode()[:-1]) == "─ �"  # a character may be cut in two


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")
def test_the_processors_time_is_that_of_the_process() -> None:
    times = os.times()
    measured = cpu_seconds(os.getpid())
    assert measured is not None
    assert measured >= times.user + times.system - 0.02  # it counts in hundredths
    assert cpu_seconds(2**30) is None


def test_a_session_of_many_replies_can_be_opened(tmp_path: Path) -> None:
    write_session(tmp_path, 7)
    (path,) = tmp_path.iterdir()
    session = load_session(path)
    assert len(session.nodes) == 7
    assert len({node.text for node in session.nodes}) == 7
    assert all(node.prompt and len(node.words) == 60 for node in session.nodes)


def test_a_random_run_is_of_the_defaults_size_and_can_be_played(tmp_path: Path) -> None:
    model = load(write_random_run(tmp_path / "random", 700)).decoder
    assert (model.config.hidden_size, len(model.vocabulary)) == (300, 700)
    assert all(word in model.vocabulary for word in ("aaa", "aab", "aac"))
    log_probs, _ = model.advance(model.start(), 2)
    assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-4)


def test_branches_are_made_behind_the_last_of_the_words(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lotr_tui.bench.playing.branch.never_end", lambda: None)  # or it would hold for all other tests
    monkeypatch.setattr("lotr_tui.bench.playing.branch.TIMES", 3)
    seconds = branch_seconds(4)
    assert len(seconds) == 3
    assert all(value > 0 for value in seconds)
    (path,) = (home / "sessions").iterdir()
    said, *branches = load_session(path).nodes
    assert [(node.parent, node.at, len(node.words)) for node in branches] == [(said.id, len(said.words) - 1, 2)] * 3


def test_half_of_what_is_looked_up_stands_in_the_training_text(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    path = tmp_path / "text.txt"
    path.write_text("\n".join(" ".join(f"w{n}" for n in chance.integers(400, size=12)) for _ in range(300)))
    dataset = read_whole(path)
    assert sum(len(line) for line in dataset.train_lines) == 3600
    reply = half_known(dataset, 96, 0)
    assert len(reply) == 96
    found = TrainingIndex.of(dataset).find(reply)
    assert 48 <= found.known.sum() <= 60
    index, looked = list(memorised(2, path))
    assert isinstance(index, Figure)
    assert isinstance(looked, Figure)
    assert (index.unit, looked.unit) == ("s", "ms")
    assert "3,600 words" in index.name
    assert len(index.runs) == len(looked.runs) == 2


def test_speeds_are_compared_within_their_run() -> None:
    runs = [
        Speeds(
            plain=n * 100,
            bundled=n * 7000,
            large=n * 1700,
            products=n * 2000,
            int8=n * 2500,
            in_turn=n * 1600,
            together=n * 8000,
            bundled_in_turn=n * 7000,
            bundled_together=n * 21000,
        )
        for n in (1, 2, 9)
    ]
    figures = list(figures_of(runs))
    assert all(isinstance(figure, Figure) for figure in figures)
    shares = [figure for figure in figures if isinstance(figure, Figure) and figure.unit == ""]
    assert [figure.value for figure in shares] == pytest.approx([70, 17, 0.85, 25, 5, 3])
    assert [figure.within for figure in shares] == [True, False, True, True, True, False]
    assert [figure.value for figure in figures if isinstance(figure, Figure) and figure.unit][:2] == [200, 14000]
    assert f"{4000 * (3 * 2048 + 879) * 512 * 4 / 1e9:.0f} GB/s" in " ".join(figure.name for figure in figures)
    without = [figure for figure in figures_of([replace(run, int8=0) for run in runs]) if isinstance(figure, Skipped)]
    assert "lotr-tui[int8]" in without[0].why


def test_words_are_counted_however_they_are_written() -> None:
    for pauses in (False, True):
        small = endless(random_decoder(ModelConfig(embedding_size=8, hidden_size=8, pauses=pauses), 20))
        assert in_turn(small, (2, 3), 5, 70) == together(small, (2, 3), 5, 70) == 350  # none of them has ended
    calls: list[int] = []

    def way() -> int:
        calls.append(1)
        return 7

    assert words_per_second(way, 0) > 0
    assert len(calls) >= 2  # the first is not counted
    assert read_all([np.ones((3, 2), np.float32)], 5) == 5
    assert bytes_a_word() == (3 * 2048 + 879) * 512 * 4


def test_every_way_to_write_words_is_measured() -> None:
    speeds = measure_ours(0)
    assert Speeds(plain=1, **speeds).bundled == speeds["bundled"]
    assert all(value > 0 for name, value in speeds.items() if name != "int8")
    assert PlainModel().sample(5) == 5


def test_without_penn_treebank_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LOTR_TUI_SHARED", raising=False)
    (skipped,) = measure(1, ["memorised"])
    assert isinstance(skipped, Skipped)
    print_bench(1, ["memorised"], as_json=False)
    assert "--ptb FILE" in capsys.readouterr().out
    print_bench(1, ["memorised"], as_json=True)
    assert json.loads(capsys.readouterr().out) == asdict(skipped)
    with pytest.raises(UnusableInput, match="is no file"):
        list(measure(1, ["memorised"], Path("nowhere.txt")))


def test_a_figure_is_printed_beside_its_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = [Figure("kept", "ms", 3, (2, 3, 4), 5), Figure("missed", "ms", 6, (6,), 5), Figure("bare", "ms", 1, (1,))]
    figures.append(Figure("fast", "", 3, (3,), least=2))
    monkeypatch.setattr("lotr_tui.bench.measure", lambda *_: iter(figures))
    print_bench(1, [], as_json=False)
    kept, missed, bare, fast = capsys.readouterr().out.splitlines()
    assert "3 ms" in kept
    assert "(2 to 4)" in kept
    assert "✓ at most 5" in kept
    assert "✗ at most 5" in missed
    assert "at most" not in bare
    assert "✓ at least 2" in fast
    print_bench(1, [], as_json=True)
    assert [json.loads(line)["limit"] for line in capsys.readouterr().out.splitlines()] == [5, 5, None, None]


def test_an_unknown_group_is_refused_and_the_nearest_named(command) -> None:
    result = command("bench", "--only", "slyder")
    assert result.returncode == 2
    assert "slider" in result.stderr
    assert "transcript" in result.stderr


def test_the_help_names_every_group(command) -> None:
    from lotr_tui.bench import _groups

    text = " ".join(command("bench", "--help").stdout.replace("│", " ").split())
    assert all(name in text for name in _groups(None, None))


def test_two_processes_are_measured_update_by_update() -> None:
    small = {"hidden_size": 8, "embedding_size": 8, "batch_size": 256, "epochs": 1, "evaluate_every": 1}
    trained = train(2, 1, **small)
    assert len(trained.losses) == 3  # 36,000 words in 256 columns, 50 of each at a time
    assert trained.tokens_per_second > 0
    other = Trained(1.0, (trained.losses[0], trained.losses[1] + 0.5, trained.losses[2] - 0.25))
    assert furthest_apart(other, trained) == pytest.approx(0.5)


# --- growth ---------------------------------------------------------------------------------------------------


def test_a_generated_text_has_the_words_asked_for_or_more_the_longer_it_is(tmp_path: Path) -> None:
    different = []
    for size, words in ((60_000, 300), (60_000, 0), (1_200_000, 0)):
        path = tmp_path / "text.txt"
        growth.write_text(path, size, words)
        assert size <= path.stat().st_size < size + 1_200_000
        cut = [word for line in path.read_text().splitlines() for word in tokenize(line)]
        different.append(len(set(cut)))
        most = Counter(cut).most_common(1)[0][1] / len(cut)
        assert 0.05 < most < 0.25, "the most frequent word is as frequent as `the`"
    assert different[0] == 300
    assert 1_000 < different[1] < different[2]


def test_a_command_is_measured_by_its_own_memory_and_ended_at_a_line(tmp_path: Path) -> None:
    large = "import time; held = bytearray(200_000_000); print('now', flush=True); time.sleep({})"
    seconds, memory, output = growth.measured([sys.executable, "-c", large.format(0)], tmp_path)
    assert (output, memory > 200) == ("now\n", True)
    assert seconds > 0
    _, memory, output = growth.measured([sys.executable, "-c", large.format(100)], tmp_path, until="now")
    assert (output, memory > 200) == ("now\n", True)
    with pytest.raises(BenchError, match="failed with exit code 3"):
        growth.measured([sys.executable, "-c", "raise SystemExit(3)"], tmp_path)
