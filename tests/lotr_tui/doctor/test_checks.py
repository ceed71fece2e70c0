"""Checks of simulated machines: what is found, and what to do."""

import json
import os
from importlib.metadata import version
from pathlib import Path

import pytest

from lotr_tui.cli.doctor_report import print_findings
from lotr_tui.doctor.checks import CHECKS, run_checks
from lotr_tui.doctor.copying import check_clipboard
from lotr_tui.doctor.environment import ProgramOutput, this_environment
from lotr_tui.doctor.extras import check_extras
from lotr_tui.doctor.folders import check_home, find_file_system
from lotr_tui.doctor.machine import check_numpy, check_processor, check_torch_and_gpu
from lotr_tui.doctor.terminal import check_colors, check_encoding, check_terminal
from lotr_tui.doctor.versions import check_versions
from tests.support.doctor import TORCH, VERSIONS, Programs, simulate

CRASHED = ProgramOutput(-11, "", "")
IMPORT_ERROR = ProgramOutput(1, "", "Traceback\nImportError: libcudnn.so.9: no such file\n")
GPU = "NVIDIA H100, 81559 MiB, 550.54\n"


def summary(check, environment):
    """Return the state and the summary of the first finding of a check."""
    finding = check(environment)[0]
    return finding.state, finding.summary


def test_another_package_named_engine_is_a_problem_with_a_remedy():
    problem = "/other/engine is imported as engine instead of /site/engine; unset PYTHONPATH"
    (finding,) = check_versions(simulate(engine_problem=problem))
    assert finding.state == "problem"
    assert finding.summary.endswith("; /other/engine is imported as engine instead of /site/engine")
    assert finding.advice == "unset PYTHONPATH"


class TestTerminal:
    def test_a_good_terminal_is_described(self):
        variables = {"TERM": "xterm-kitty", "TERM_PROGRAM": "kitty", "SSH_TTY": "/dev/pts/1"}
        expected = "xterm-kitty, kitty, 120x35, over SSH, kitty keyboard protocol"
        assert summary(check_terminal, simulate(variables=variables)) == ("ok", expected)

    def test_a_multiplexer_hides_the_keyboard_protocol(self):
        variables = {"TERM": "xterm-kitty", "TMUX": "/tmp/tmux,1,0"}
        assert summary(check_terminal, simulate(variables=variables)) == ("ok", "xterm-kitty, 120x35, in tmux")

    @pytest.mark.parametrize("term", ["", "dumb"])
    def test_a_terminal_without_screens_is_a_warning(self, term):
        assert check_terminal(simulate(variables={"TERM": term}))[0].state == "warning"

    def test_a_small_window_is_a_warning(self):
        assert check_terminal(simulate(size=(39, 24)))[0].state == "warning"
        assert check_terminal(simulate(size=(40, 12)))[0].state == "ok"

    def test_a_pipe_is_named(self):
        assert "not a terminal: stdout" in check_terminal(simulate(streams=(True, False, True)))[0].summary

    @pytest.mark.parametrize(
        ("variables", "expected"),
        [
            ({"TERM": "xterm", "COLORTERM": "truecolor"}, ("ok", "true colour (COLORTERM=truecolor)")),
            ({"TERM": "xterm", "COLORTERM": "truecolor", "NO_COLOR": "1"}, ("ok", "none, as NO_COLOR asks")),
            ({"TERM": "xterm-256color"}, ("warning", "256 colours")),
            ({"TERM": "screen"}, ("warning", "16 colours")),
            ({"TERM": "dumb"}, ("warning", "none")),
        ],
    )
    def test_colors_are_those_that_the_screens_use(self, variables, expected):
        state, text = summary(check_colors, simulate(variables=variables))
        assert (state, text.startswith(expected[1])) == (expected[0], True)

    def test_an_encoding_without_letters_is_a_problem(self):
        assert check_encoding(simulate(encoding="latin-1", variables={"LANG": "C"}))[0].state == "problem"
        assert check_encoding(simulate(variables={"LANG": "C"}))[0].state == "warning"
        assert summary(check_encoding, simulate()) == ("ok", "UTF-8 (LANG=en_GB.UTF-8)")


class TestClipboard:
    @pytest.mark.parametrize(
        ("set_clipboard", "passthrough", "state"),
        [("external", "off", "warning"), ("on", "off", "ok"), ("off", "on", "ok"), ("off", "all", "ok")],
    )
    def test_tmux_has_to_accept_or_pass_on_the_sequence(self, set_clipboard, passthrough, state):
        programs = Programs(**{"set-clipboard": set_clipboard, "allow-passthrough": passthrough})
        environment = simulate(programs, variables={"TERM": "tmux-256color", "TMUX": "/tmp/tmux,1,0"})
        assert check_clipboard(environment)[0].state == state

    def test_a_tmux_that_does_not_answer_is_a_warning(self):
        assert check_clipboard(simulate(variables={"TERM": "tmux", "TMUX": "x"}))[0].state == "warning"

    @pytest.mark.parametrize(
        ("variables", "state"),
        [
            ({"TERM": "linux"}, "warning"),
            ({"TERM": "xterm-256color", "VTE_VERSION": "7600"}, "warning"),
            ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, "warning"),
            ({"TERM": "screen", "STY": "1.x"}, "ok"),
            ({"TERM": "xterm-256color"}, "ok"),
        ],
    )
    def test_terminals_that_ignore_the_sequence_are_known(self, variables, state):
        assert check_clipboard(simulate(variables=variables))[0].state == state


class TestMachine:
    def test_cores_and_limits_of_threads(self):
        environment = simulate(cores=(8, 2), variables={"OMP_NUM_THREADS": "1"})
        assert summary(check_processor, environment) == ("ok", "8 cores, 2 usable here, OMP_NUM_THREADS=1")

    def test_slow_matrix_products_of_numpy_are_a_warning(self):
        assert check_numpy(simulate())[0].state == "ok"
        slow = Programs(**{"import json, numpy": json.dumps({"name": "blas", "version": "3.9"})})
        assert check_numpy(simulate(slow))[0].state == "warning"

    def test_a_missing_torch_is_a_warning_since_playing_works(self):
        torch, gpu = check_torch_and_gpu(simulate(versions=VERSIONS | {"torch": None}))
        assert (torch.state, gpu.state) == ("warning", "ok")
        assert "training does not" in torch.summary

    @pytest.mark.parametrize("answer", [CRASHED, IMPORT_ERROR, ProgramOutput(-1, "", "no answer within 60 s")])
    def test_a_broken_torch_is_a_problem(self, answer):
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
    def test_a_gpu_that_torch_cannot_use_is_a_warning(self, torch, smi, state, text):
        answers = {"import torch": json.dumps(TORCH | torch)} | ({} if smi is None else {"nvidia-smi": smi})
        gpu = check_torch_and_gpu(simulate(Programs(**answers)))[1]
        assert (gpu.state, text in gpu.summary) == (state, True), gpu.summary

    def test_real_torch_and_numpy_answer(self):
        torch, _ = check_torch_and_gpu(this_environment())
        assert torch.state == "ok"
        assert torch.summary.startswith(f"{version('torch')}, imported in ")
        assert check_numpy(this_environment())[0].summary.startswith(f"{version('numpy')}, matrix products by ")


class TestFolder:
    def test_a_good_folder_is_left_as_it_was(self, home):
        home.mkdir()
        state, text = summary(check_home, simulate())
        assert (state, "can be written" in text, "locks work" in text) in {("ok", True, True), ("warning", True, True)}
        assert list(home.iterdir()) == []

    def test_a_folder_that_does_not_exist_is_not_created(self, home):
        assert "can be created" in check_home(simulate())[0].summary
        assert not home.exists()

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_that_cannot_be_written_is_a_problem(self, home):
        home.mkdir(mode=0o500)
        assert check_home(simulate())[0].state == "problem"

    def test_a_file_in_place_of_the_folder_is_a_problem(self, home):
        home.write_text("")
        assert check_home(simulate())[0].state == "problem"

    def test_the_name_of_the_user_is_not_shown(self, home):
        home.mkdir()
        text = check_home(simulate(user_home=home.parent))[0].summary
        assert text.startswith("~/home: ")
        assert str(home.parent) not in text

    def test_a_network_file_system_is_a_warning(self, home, monkeypatch):
        home.mkdir()
        monkeypatch.setattr("lotr_tui.doctor.folders.find_file_system", lambda path: "nfs4")
        assert check_home(simulate())[0].state == "warning"

    def test_locks_that_two_processes_can_hold_are_a_problem(self, home, monkeypatch):
        home.mkdir()
        monkeypatch.setattr("fcntl.flock", lambda *_: None)
        assert "no file locks" in check_home(simulate())[0].summary

    def test_the_file_system_is_found(self):
        if not Path("/proc/self").exists():
            pytest.skip("needs /proc")
        assert find_file_system(Path("/proc/self")) == "proc"


class TestInstallation:
    def test_versions_of_packages_that_are_missing(self):
        expected = "lotr-tui 0.1.0, Python 3.12.1, textual not installed, Linux 6.1 x86_64"
        assert summary(check_versions, simulate(versions={"lotr-tui": "0.1.0"})) == ("ok", expected)
        assert check_versions(simulate(versions={}))[0].state == "warning"

    def test_windows_is_a_problem(self):
        assert check_versions(simulate(system="win32"))[0].state == "problem"

    def test_extras_that_are_installed_and_not(self):
        expected = "installed: search; not installed: wandb (`pip install 'lotr-tui[wandb]'`)"
        assert summary(check_extras, simulate()) == ("ok", expected)


def test_a_check_that_fails_is_a_problem_and_the_others_run():
    def check_nothing(environment):
        raise ValueError("broken\x1b[31m")

    findings = list(run_checks(simulate(), (check_nothing, check_colors)))
    assert [finding.state for finding in findings] == ["problem", "ok"]
    assert "\x1b" not in findings[0].summary


def test_the_report_of_a_bad_machine_fits_80_columns_and_24_rows(home, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("lotr_tui.doctor.folders.find_file_system", lambda path: "nfs4")
    home.mkdir()
    programs = Programs(**{"import torch": IMPORT_ERROR, "nvidia-smi": CRASHED, "set-clipboard": "off"})
    variables = {"TERM": "screen", "TMUX": "x", "SSH_TTY": "y", "LANG": "C", "OMP_NUM_THREADS": "1"}
    print_findings(list(run_checks(simulate(programs, variables=variables, size=(30, 10)), CHECKS)))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24, lines
    assert max(map(len, lines)) <= 80


class TestCommand:
    def test_json_has_all_findings_and_no_secrets(self, command):
        done = command("doctor", "--json", HF_TOKEN="hf_secret", COLUMNS="80")
        report = json.loads(done.stdout)
        assert done.returncode == (0 if report["ok"] else 1)
        assert {"versions", "terminal", "torch", "folder"} <= {finding["name"] for finding in report["findings"]}
        assert "hf_secret" not in done.stdout

    def test_a_problem_is_exit_code_1(self, command, home):
        home.write_text("")
        done = command("doctor")
        assert done.returncode == 1
        assert "problem folder" in done.stdout
