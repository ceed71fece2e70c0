"""Choice of benchmark groups, and the output of `lotr-tui bench`."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from engine.errors import InvalidInputError
from lotr_tui.bench.groups import benchmark_groups, run_groups
from lotr_tui.bench.measurement import Measurement, SkippedMeasurement
from lotr_tui.cli.reports import print_bench


def test_missing_penn_treebank_is_a_skipped_measurement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LOTR_TUI_SHARED", raising=False)
    (skipped,) = run_groups(1, ["memorization"])
    assert isinstance(skipped, SkippedMeasurement)
    print_bench(1, ["memorization"], as_json=False)
    assert "--ptb FILE" in capsys.readouterr().out
    print_bench(1, ["memorization"], as_json=True)
    assert json.loads(capsys.readouterr().out) == asdict(skipped)
    with pytest.raises(InvalidInputError, match=r"nowhere\.txt does not exist"):
        list(run_groups(1, ["memorization"], Path("nowhere.txt")))


def test_missing_pyte_is_an_error_with_the_command_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidInputError, match=r"pip install 'lotr-tui\[dev\]'"):
        list(run_groups(1, ["memorization"]))


def test_measurements_are_printed_with_their_limits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measurements = [
        Measurement("within", "ms", 3, (2, 3, 4), 5),
        Measurement("above", "ms", 6, (6,), 5),
        Measurement("unlimited", "ms", 1, (1,)),
        Measurement("fast", "", 3, (3,), lower_limit=2),
    ]
    monkeypatch.setattr("lotr_tui.bench.groups.run_groups", lambda *_: iter(measurements))
    print_bench(1, [], as_json=False)
    within, above, unlimited, fast = capsys.readouterr().out.splitlines()
    assert "3 ms" in within
    assert "(2 to 4)" in within
    assert "✓ at most 5" in within
    assert "✗ at most 5" in above
    assert "at most" not in unlimited
    assert "✓ at least 2" in fast
    print_bench(1, [], as_json=True)
    limits = [json.loads(line)["upper_limit"] for line in capsys.readouterr().out.splitlines()]
    assert limits == [5, 5, None, None]


def test_unknown_group_suggests_the_nearest_and_lists_all(command) -> None:
    process = command("bench", "--only", "slyder")
    assert process.returncode == 2
    assert "did you mean slider?" in process.stderr
    assert "transcript" in process.stderr


def test_help_names_every_group(command) -> None:
    text = " ".join(command("bench", "--help").stdout.replace("│", " ").split())
    assert all(name in text for name in benchmark_groups())
