"""Checks of simulated machines: what is found, and what to do."""

import io
import json
import subprocess
import sys

import pytest

from engine.errors import install_command
from lotr_tui.doctor import checks
from tests.support.commands import run_here

VERSIONS = {"lotr-tui": "0.1.0", "textual": "8.2.8", "numpy": "2.4.0", "torch": "2.8.0", "optuna": "4.2"}
TORCH = {"version": "2.8.0", "seconds": 2.0, "built_for_cuda": None, "cuda": "", "mps": False, "threads": 8}
VARIABLES = (
    "TERM TERM_PROGRAM COLORTERM NO_COLOR FORCE_COLOR LC_ALL LC_CTYPE LANG TMUX STY CI ZELLIJ SSH_CONNECTION "
    "VTE_VERSION OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS"
)
TERMINAL = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "en_GB.UTF-8"}


@pytest.fixture
def machine(monkeypatch):
    """Return a function that simulates a Linux machine: its variables, versions, and the answers of its programs.

    An answer belongs to the programs whose command has its name; a tuple is a failure, with its exit code and errors.
    """

    def simulate(variables=TERMINAL, versions=VERSIONS, **answers):
        answers = {"torch": json.dumps(TORCH)} | answers

        def run(command, **options):
            for name, answer in answers.items():
                if name in " ".join(command).replace("-", "_"):
                    code, output = answer if isinstance(answer, tuple) else (0, answer)
                    return subprocess.CompletedProcess(command, code, "" if code else output, output)
            raise FileNotFoundError(2, "No such file")

        for name in VARIABLES.split():
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        checks.probe_torch.cache_clear()
        monkeypatch.setattr(checks, "find_version", versions.get)
        monkeypatch.setattr(checks, "describe_engine_problem", lambda: "")
        monkeypatch.setattr(checks.subprocess, "run", run)
        monkeypatch.setattr(checks.shutil, "which", lambda name: name.replace("-", "_") in answers or None)

    yield simulate
    checks.probe_torch.cache_clear()


EXTRAS = {"optuna>=4.2": "search", "wandb>=0.1": "wandb", "ruff": "dev"}
CRASHED = (-11, "")
IMPORT_ERROR = (1, "Traceback\nImportError: libcudnn.so.9: no such file\n")
GPU = "NVIDIA H100, 81559 MiB, 550.54\n"


class TestMachine:
    @pytest.mark.parametrize(
        ("check", "variables", "state", "text"),
        [
            (checks.check_terminal, TERMINAL | {"SSH_CONNECTION": "1", "TMUX": "x"}, "ok", ", in tmux, over SSH"),
            (checks.check_terminal, {"TERM": "dumb"}, "warning", "dumb"),
            (checks.check_terminal, {"TERM": "xterm", "CI": "1"}, "warning", "CI=1"),
            (checks.check_colors, {"TERM": "xterm", "COLORTERM": "truecolor"}, "ok", "true colour"),
            (checks.check_colors, {"TERM": "xterm", "NO_COLOR": "1"}, "ok", "none, NO_COLOR=1"),
            (checks.check_colors, {"TERM": "xterm-256color"}, "warning", "256 colours"),
            (checks.check_colors, {"TERM": "screen"}, "warning", "16 colours"),
            (checks.check_colors, {"TERM": "screen", "TMUX": "/tmp/1"}, "warning", "16 colours by TERM=screen"),
            (checks.check_encoding, TERMINAL, "ok", "UTF-8 (LANG=en_GB.UTF-8)"),
            (checks.check_encoding, {"LANG": "C"}, "warning", "LANG=C"),
            (checks.check_clipboard, {"TERM": "xterm-256color", "VTE_VERSION": "7600"}, "warning", "ignores"),
            (checks.check_clipboard, {"TERM": "screen", "TMUX": "x"}, "warning", "set-clipboard off"),
            (checks.check_clipboard, TERMINAL, "ok", "OSC 52"),
            (checks.check_processor, {"OMP_NUM_THREADS": "1"}, "ok", ", OMP_NUM_THREADS=1"),
        ],
    )
    def test_each_state_of_a_terminal_is_found(self, machine, monkeypatch, check, variables, state, text):
        machine(variables, set_clipboard="off")
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8"))
        finding = check()
        assert (finding.state, text in finding.summary) == (state, True), finding

    def test_an_encoding_without_accents_is_a_problem(self, machine, monkeypatch):
        machine({"LANG": "C"})
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "latin-1"))
        assert checks.check_encoding().state == "problem"

    def test_versions_and_extras(self, machine, monkeypatch):
        machine()
        assert checks.check_versions().summary.startswith("lotr-tui 0.1.0, Python 3.")
        requirements = ["torch>=2.8", *(f"{name}; extra == '{extra}'" for name, extra in EXTRAS.items())]
        monkeypatch.setattr(checks.metadata, "requires", lambda name: requirements)
        extras = checks.check_extras().summary
        assert extras == f"installed: search; not installed: wandb (`{install_command('wandb')}`)"
        monkeypatch.setattr(checks, "describe_engine_problem", lambda: "/other/engine is imported; unset PYTHONPATH")
        assert checks.check_versions().state == "problem"
        assert checks.check_versions().advice == "unset PYTHONPATH"

    @pytest.mark.parametrize("answer", [CRASHED, IMPORT_ERROR])
    def test_a_broken_torch_is_a_problem(self, machine, answer):
        machine(torch=answer)
        finding = checks.check_torch()
        assert finding.state == "problem"
        assert finding.summary.startswith("not usable: ")
        assert answer[1].strip().rpartition("\n")[2] in finding.summary
        assert checks.check_gpu().state == "ok"

    @pytest.mark.parametrize(
        ("torch", "smi", "state", "text"),
        [
            ({}, None, "ok", "none found"),
            ({}, GPU, "warning", "without CUDA"),
            ({"built_for_cuda": "12.8"}, GPU, "warning", "cannot use it"),
            ({"built_for_cuda": "12.8", "cuda": "NVIDIA H100"}, GPU, "ok", "NVIDIA H100, 81559 MiB, 550.54;"),
            ({"mps": True}, None, "ok", "MPS"),
            ({}, (9, "no devices"), "warning", "does not answer"),
        ],
    )
    def test_a_gpu_that_torch_cannot_use_is_a_warning(self, machine, torch, smi, state, text):
        machine(torch=json.dumps(TORCH | torch), **({} if smi is None else {"nvidia_smi": smi}))
        gpu = checks.check_gpu()
        assert (gpu.state, text in gpu.summary) == (state, True), gpu.summary

    def test_without_torch_playing_works(self, machine):
        machine(versions=VERSIONS | {"torch": None}, torch=CRASHED)
        assert checks.check_torch().state == "warning"
        assert checks.check_gpu().summary == "none found; training uses the processor"


class TestFolder:
    def test_a_good_folder_is_left_as_it_was_and_the_name_of_the_user_is_not_shown(self, home, monkeypatch):
        home.mkdir()
        monkeypatch.setenv("HOME", str(home.parent))
        finding = checks.check_folder()
        assert finding.state in ("ok", "warning")
        assert finding.summary.startswith("~/home: can be written, locks work, ")
        assert str(home.parent) not in finding.summary
        assert list(home.iterdir()) == []

    def test_a_folder_that_does_not_exist_is_not_created_and_a_file_is_a_problem(self, home):
        assert "can be created" in checks.check_folder().summary
        assert not home.exists()
        home.write_text("")
        assert checks.check_folder().state == "problem"


def test_a_check_that_fails_is_a_problem_and_the_others_run():
    def check_nothing():
        raise ValueError("broken\x1b[31m")

    findings = list(checks.run_checks([check_nothing, checks.check_processor]))
    assert [finding.state for finding in findings] == ["problem", "ok"]
    assert "\x1b" not in findings[0].summary


def test_the_report_of_a_bad_machine_fits_80_columns_and_24_rows(machine, home):
    home.write_text("")
    variables = {"TERM": "screen", "TMUX": "x", "SSH_CONNECTION": "y", "LANG": "C", "OMP_NUM_THREADS": "1"}
    machine(variables, torch=IMPORT_ERROR, nvidia_smi=CRASHED, set_clipboard="off")
    done = run_here(["doctor"], COLUMNS="80")
    assert done.returncode == 1
    assert "problem folder" in done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) <= 24, lines
    assert max(map(len, lines)) <= 80


@pytest.mark.slow
def test_json_has_all_findings_and_no_secrets(command):
    done = command("doctor", "--json", HF_TOKEN="hf_secret", COLUMNS="80")
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["ok"] else 1)
    assert {"versions", "terminal", "torch", "folder"} <= {finding["name"] for finding in report["findings"]}
    assert "hf_secret" not in done.stdout
