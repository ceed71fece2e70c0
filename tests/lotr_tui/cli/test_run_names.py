"""Runs whose folders have unusual names, and runs that cannot be read."""

import json
import unicodedata

import pytest

from tests.support.commands import json_output
from tests.support.files import write_run

NAMES = ["my run", "été", unicodedata.normalize("NFD", "café"), "_", ".hidden", "x@4", "-dash", "bad\udcff"]


class TestNames:
    @pytest.mark.parametrize("name", NAMES)
    def test_every_listed_run_is_found_by_its_name(self, command, home, name):
        run = write_run(home / "runs" / name)
        shown = command("runs").stdout.splitlines()[1].partition("  ")[0]
        for given in {name, shown, unicodedata.normalize("NFC", shown), unicodedata.normalize("NFD", shown)}:
            assert json_output(command("runs", "show", "--", given))["saved_epochs"] == []
        assert command("generate", "the road", f"--run={shown}").returncode == 0
        assert command("eval", "--text", "-", "--", shown, stdin=b"the road\n").returncode == 0
        assert "is not being trained" in command("stop", "--", shown).stderr
        assert "attach needs a terminal" in command("attach", "--", shown).stderr
        assert "resume" in command("status", "--", shown).stdout
        assert "has changed since the run was started" in command("train", f"--resume={shown}").stderr
        assert command("runs", "export", "--csv", "out", "--", shown).returncode == 0
        done = command("runs", "rm", "--yes", "--", shown)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"deleted run {shown}: ")
        assert not run.exists()

    def test_suggested_command_can_be_copied_to_a_shell(self, command, home):
        write_run(home / "runs" / "my run")
        assert "lotr-tui --run 'my run'\n" in command("status", "my run").stdout

    def test_suggested_command_finds_a_run_outside_the_default_folder(self, command, tmp_path):
        run = write_run(tmp_path / "elsewhere" / "r")
        assert f"lotr-tui --run {run}\n" in command("status", "r", "--runs-dir", tmp_path / "elsewhere").stdout

    def test_runs_that_look_alike_are_not_confused(self, command, home):
        for name in ("bad\udcff", "bad\udcfe"):
            write_run(home / "runs" / name)
        done = command("runs", "rm", "--yes", "bad\ufffd")
        assert done.returncode == 2
        assert "2 runs in" in done.stderr
        assert command("runs", "rm", "--yes", "bad\udcfe").returncode == 0
        assert command("runs", "rm", "--yes", "bad\ufffd").returncode == 0

    def test_rm_of_the_latest_run_says_which_one_it_deleted(self, command, home):
        run = write_run(home / "runs" / "mine")
        assert command("runs", "rm", "latest", "--yes").stdout == f"deleted run mine: {run}\n"

    @pytest.mark.parametrize("name", ["_", ".hidden", "été", "my run", "-x", "x" * 101])
    def test_message_about_a_new_name_states_the_rule(self, refused, small_csv, name):
        line = refused("train", "--csv", small_csv, f"--run={name}")
        assert (
            "is not allowed; start with a letter or digit, and use letters (a to z), digits, '.', '_' and '-'" in line
        )

    def test_run_that_cannot_be_read_is_mentioned(self, command, home):
        write_run(home / "runs" / "good")
        (write_run(home / "runs" / "broken") / "config.json").write_text("{}")
        done = command("runs")
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["run", "good"]
        assert done.stderr == "run broken cannot be read; see `lotr-tui runs show broken`\n"


class TestDamagedConfiguration:
    @pytest.mark.parametrize(
        ("section", "key", "value", "message"),
        [
            ("training", "batch_size", "many", "batch_size=many is not a whole number from 1 to 65536"),
            ("training", "lr", [1], "lr=[1] is not a number from"),
            ("data", "mode", "lines", "mode=lines is not one of line, stream"),
            ("data", "corpus", 3, "corpus=3 is not text"),
            ("model", "hidden_size", 10**400, "hidden_size=1000"),
        ],
    )
    def test_error_names_file_key_and_value(self, refused, untrained_run, section, key, value, message):
        file = untrained_run / "config.json"
        config = json.loads(file.read_text())
        config[section][key] = value
        file.write_text(json.dumps(config))
        line = refused("runs", "show", untrained_run)
        assert str(file) in line
        assert message in line

    def test_missing_corpus_is_traced_to_the_configuration(self, refused, untrained_run):
        file = untrained_run / "config.json"
        config = json.loads(file.read_text())
        config["data"]["corpus"] = "/nowhere/gone.csv"
        file.write_text(json.dumps(config))
        line = refused("eval", untrained_run)
        assert f"run 'untrained', which {file} names, cannot be used: /nowhere/gone.csv does not exist" in line
