"""What Typer answers to a shell: values of options and arguments, also with hostile names."""

import subprocess
import sys

import pytest

from engine.runs.directory import resolve_run
from lotr_tui.cli.main import run_command
from tests.support.files import CHECKOUT

REQUEST = {"_LOTR_TUI_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args", "COLUMNS": "999"}


@pytest.fixture
def complete(home, monkeypatch, capsys):
    """Return a function that lists what can be typed at the end of `lotr-tui LINE`."""
    for name, value in REQUEST.items():
        monkeypatch.setenv(name, value)

    def complete(line):
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"lotr-tui {line}")
        with pytest.raises(SystemExit) as exit:
            run_command()
        assert exit.value.code == 0
        return [row.partition("\t")[0] for row in capsys.readouterr().out.splitlines() if row]

    return complete


def write_runs(folder, *names):
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")


def test_commands_options_and_values(complete):
    assert complete("run") == ["runs"]
    assert set(complete("runs ")) >= {"show", "rm", "rename", "export"}
    assert complete("train --tok") == ["--tokenizer"]
    assert "--set" in complete("train --seed 1 --set lr=1 --")
    assert complete("train --preset noteb") == ["notebook"]
    assert complete("train --device c") == complete("train --device=c") == ["cpu", "cuda"]
    assert complete("train --set sched") == ["schedule="]
    assert complete("train --set optimizer=ad") == ["optimizer=adamw", "optimizer=adam"]
    assert complete("train --log w") == ["wandb"]
    assert complete("--theme shire-") == ["shire-light"]
    assert complete("learn perp") == ["perplexity"]
    assert complete("completion f") == ["fish"]
    assert complete("generate --as gand") == ["gandalf"]
    assert complete("who x --cast SAM,FRO") == ["SAM,FRODO"]
    assert complete("generate --run base --as G") == complete("train --csv ") == complete("train --set x=") == []


@pytest.mark.parametrize("command", ["train", "generate", "eval", "search", "serve", "runs export"])
def test_every_option_is_on_a_line_of_its_own(complete, command):
    assert all(row.startswith("--") for row in complete(f"{command} --"))


def test_runs_of_the_folder_that_is_typed(complete, home, tmp_path):
    write_runs(home / "runs", "second", "first")
    (home / "runs" / "no-run").mkdir()
    write_runs(tmp_path / "my runs", "elsewhere")
    bundled = ["latest", "bundled", "lstm", "base", "smollm2"]
    assert complete("attach ") == [*bundled, "first", "second", "hf:", "gguf:"]
    assert complete(f"attach --runs-dir '{tmp_path}/my runs' e") == ["elsewhere"]


@pytest.mark.parametrize("name", ["a b", "it's", "new\nline", "esc\x1b[31m", "tab\there", "ünï", "$(reboot)"])
def test_a_hostile_name_is_printable_and_still_names_the_run(complete, home, name):
    write_runs(home / "runs", name)
    (row,) = [row for row in complete("attach ")[5:] if not row.endswith(":")]
    assert row.isprintable()
    assert resolve_run(row) == home / "runs" / name


def test_a_key_press_loads_neither_torch_nor_screens_and_writes_nothing(home, environment):
    code = """
import sys
from lotr_tui.__main__ import main
try:
    main()
finally:
    print([name for name in ("torch", "textual", "pandas", "transformers", "optuna") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env=environment(home, PYTHONPATH=str(CHECKOUT), _TYPER_COMPLETE_ARGS="lotr-tui attach la", **REQUEST),
        timeout=60,
        check=False,
    )
    assert done.stdout == "latest\n[]\n", done.stderr
    assert not home.exists()
