"""Checks of simulated machines: what is found, and what to do."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lotr_tui.cli.doctor_report import print_findings
from lotr_tui.doctor.checks import CHECKS, run_checks
from lotr_tui.doctor.copying import check_clipboard
from lotr_tui.doctor.environment import Environment, ProgramOutput
from lotr_tui.doctor.extras import check_extras
from lotr_tui.doctor.folders import check_home
from lotr_tui.doctor.machine import check_processor, check_torch_and_gpu
from lotr_tui.doctor.terminal import check_colors, check_encoding, check_terminal
from lotr_tui.doctor.versions import check_versions
from tests.support.commands import run_here

VERSIONS = {"lotr-tui": "0.1.0", "textual": "8.2.8", "numpy": "2.4.0", "torch": "2.8.0", "optuna": "4.2"}
NUMPY = {"name": "scipy-openblas", "version": "0.3.31"}
TORCH = {
    "version": "2.8.0", "seconds": 2.0, "built_for_cuda": None, "cuda": [], "mps": False, "threads": 8, "mkl": True,
}  # fmt: skip


class Programs:
    """Programs of a simulated machine: the first answer whose key is in the command is the output."""

    def __init__(self, **answers):
        self.answers = {"import json, numpy": json.dumps(NUMPY), "import torch": json.dumps(TORCH)} | answers

    def run(self, command):
        for key, answer in self.answers.items():
            if key in " ".join(command):
                return ProgramOutput(0, answer, "") if isinstance(answer, str) else answer
        return None


def simulate(programs=None, versions=VERSIONS, **changes):
    """Return a Linux machine with a terminal in true colour, with some parts of it replaced."""
    programs = programs or Programs()
    environment = Environment(
        variables={"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "en_GB.UTF-8"},
        system="linux",
        machine="Linux 6.1 x86_64",
        python="3.12.1",
        streams=(True, True, True),
        size=(120, 35),
        encoding="utf-8",
        cores=(8, 8),
        user_home=Path("/home/frodo"),
        find_program=lambda name: f"/usr/bin/{name}" if any(name in key for key in programs.answers) else None,
        run=programs.run,
        find_version=versions.get,
        requirements=(
            "torch>=2.8",
            "optuna>=4.2; extra == 'search'",
            "wandb>=0.1; extra == 'wandb'",
            "ruff; extra == 'dev'",
        ),
    )
    return replace(environment, **changes)


CRASHED = ProgramOutput(-11, "", "")
IMPORT_ERROR = ProgramOutput(1, "", "Traceback\nImportError: libcudnn.so.9: no such file\n")
GPU = "NVIDIA H100, 81559 MiB, 550.54\n"


@pytest.mark.parametrize(
    ("check", "changes", "state", "text"),
    [
        (
            check_terminal,
            {"variables": {"TERM": "xterm-kitty", "TERM_PROGRAM": "kitty", "SSH_TTY": "/dev/pts/1"}},
            "ok",
            "xterm-kitty, kitty, 120x35, over SSH, kitty keyboard protocol",
        ),
        (check_terminal, {"variables": {"TERM": "dumb"}}, "warning", ""),
        (check_terminal, {"size": (39, 24)}, "warning", ""),
        (check_colors, {"variables": {"TERM": "xterm", "COLORTERM": "truecolor"}}, "ok", "true colour"),
        (check_colors, {"variables": {"TERM": "xterm", "NO_COLOR": "1"}}, "ok", "none, as NO_COLOR asks"),
        (check_colors, {"variables": {"TERM": "xterm-256color"}}, "warning", "256 colours"),
        (check_encoding, {}, "ok", "UTF-8 (LANG=en_GB.UTF-8)"),
        (check_encoding, {"encoding": "latin-1", "variables": {"LANG": "C"}}, "problem", ""),
        (check_clipboard, {"variables": {"TERM": "xterm-256color", "VTE_VERSION": "7600"}}, "warning", ""),
        (
            check_processor,
            {"cores": (8, 2), "variables": {"OMP_NUM_THREADS": "1"}},
            "ok",
            "8 cores, 2 usable here, OMP_NUM_THREADS=1",
        ),
        (check_torch_and_gpu, {"versions": VERSIONS | {"torch": None}}, "warning", "training does not"),
        (
            check_versions,
            {"versions": {"lotr-tui": "0.1.0"}},
            "ok",
            "lotr-tui 0.1.0, Python 3.12.1, textual not installed, Linux 6.1 x86_64",
        ),
        (check_versions, {"engine_problem": "/other/engine is imported; unset PYTHONPATH"}, "problem", "is imported"),
        (check_versions, {"system": "win32"}, "problem", ""),
        (check_extras, {}, "ok", "installed: search; not installed: wandb (`pip install 'lotr-tui[wandb]'`)"),
    ],
)
def test_each_state_of_a_machine_is_found(check, changes, state, text):
    finding = check(simulate(**changes))[0]
    assert (finding.state, text in finding.summary) == (state, True), finding


@pytest.mark.parametrize("answer", [CRASHED, IMPORT_ERROR, ProgramOutput(-1, "", "no answer within 60 s")])
def test_a_broken_torch_is_a_problem(answer):
    torch, _ = check_torch_and_gpu(simulate(Programs(**{"import torch": answer})))
    assert torch.state == "problem"
    assert torch.summary.startswith("not usable: ")
    assert answer.errors.strip().rpartition("\n")[2] in torch.summary


@pytest.mark.parametrize(
    ("torch", "smi", "state", "text"),
    [
        ({}, None, "ok", "none found"),
        ({}, GPU, "warning", "without CUDA"),
        ({"built_for_cuda": "12.8"}, GPU, "warning", "cannot use it"),
        ({"built_for_cuda": "12.8", "cuda": ["NVIDIA H100"]}, GPU, "ok", "NVIDIA H100 (81559 MiB), driver 550.54;"),
        ({"mps": True}, None, "ok", "MPS"),
        ({}, ProgramOutput(9, "", "no devices"), "warning", "does not answer"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_a_warning(torch, smi, state, text):
    answers = {"import torch": json.dumps(TORCH | torch)} | ({} if smi is None else {"nvidia-smi": smi})
    gpu = check_torch_and_gpu(simulate(Programs(**answers)))[1]
    assert (gpu.state, text in gpu.summary) == (state, True), gpu.summary


class TestFolder:
    def test_a_good_folder_is_left_as_it_was_and_the_name_of_the_user_is_not_shown(self, home):
        home.mkdir()
        finding = check_home(simulate(user_home=home.parent))[0]
        assert finding.state in ("ok", "warning")
        assert finding.summary.startswith("~/home: ")
        assert "can be written" in finding.summary
        assert "locks work" in finding.summary
        assert str(home.parent) not in finding.summary
        assert list(home.iterdir()) == []

    def test_a_folder_that_does_not_exist_is_not_created_and_a_file_is_a_problem(self, home):
        assert "can be created" in check_home(simulate())[0].summary
        assert not home.exists()
        home.write_text("")
        assert check_home(simulate())[0].state == "problem"


def test_a_check_that_fails_is_a_problem_and_the_others_run():
    def check_nothing(environment):
        raise ValueError("broken\x1b[31m")

    findings = list(run_checks(simulate(), (check_nothing, check_colors)))
    assert [finding.state for finding in findings] == ["problem", "ok"]
    assert "\x1b" not in findings[0].summary


def test_the_report_of_a_bad_machine_fits_80_columns_and_24_rows(home, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    home.mkdir()
    programs = Programs(**{"import torch": IMPORT_ERROR, "nvidia-smi": CRASHED, "set-clipboard": "off"})
    variables = {"TERM": "screen", "TMUX": "x", "SSH_TTY": "y", "LANG": "C", "OMP_NUM_THREADS": "1"}
    print_findings(list(run_checks(simulate(programs, variables=variables, size=(30, 10)), CHECKS)))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24, lines
    assert max(map(len, lines)) <= 80


@pytest.mark.slow
def test_json_has_all_findings_and_no_secrets(command):
    done = command("doctor", "--json", HF_TOKEN="hf_secret", COLUMNS="80")
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["ok"] else 1)
    assert {"versions", "terminal", "torch", "folder"} <= {finding["name"] for finding in report["findings"]}
    assert "hf_secret" not in done.stdout


def test_a_problem_is_exit_code_1(home):
    home.write_text("")
    done = run_here(["doctor"])
    assert done.returncode == 1
    assert "problem folder" in done.stdout
