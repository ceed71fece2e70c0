"""Commands in new processes, outside the checkout."""

import json
import math
import platform
import re
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from engine.presets import get_preset
from lotr_tui.cli import options as cli_options
from tests.support.commands import json_output, run_process
from tests.support.files import KNOWN_WORDS, sentences, write_csv

TRAIN_TINY = [sys.executable, "-m", "lotr_tui", "train", "--preset", "tiny", "--threads", "1"]
TRAIN_TINY += ["--set", "embedding_size=8", "--set", "epochs=1"]
ALL_TERMINALS = {"stdin": True, "stdout": True, "stderr": True}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, environment):
    """Train the run `mine` once for this module; return its home, its corpus, the printed events and stderr."""
    folder = tmp_path_factory.mktemp("trained")
    corpus = write_csv(folder / "small.csv", sentences(120))
    command = [*TRAIN_TINY, "--csv", "small.csv", "--json", "--run", "mine"]
    done = run_process(command, folder, environment(folder / "home"))
    return {"home": folder / "home", "corpus": corpus, "events": done.stdout.splitlines(), "stderr": done.stderr}


@pytest.fixture
def mine(trained, command):
    """Return a function that runs a command in the home of the run `mine`."""

    def run(*arguments, **options):
        return command(*arguments, LOTR_TUI_HOME=str(trained["home"]), **options)

    return run


class TestSurface:
    def test_help_lists_the_commands(self, command):
        done = command("--help")
        assert done.returncode == 0
        assert all(name in done.stdout for name in ("train", "generate", "eval", "runs", "data", "locate"))
        assert done.stderr == ""

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            (
                "train",
                "--preset --csv --text --text-column --speaker-column --mode --split-seed --seed --epochs --device "
                "--threads --precision --set --run --runs-dir --no-tui --json",
            ),
            (
                "generate",
                "--run --temperature --top-k --top-p --min-p --repetition-penalty --seed --max-tokens --count "
                "--reply --as --to --best-of --scene --cast --turns --json --jsonl",
            ),
            ("eval", "--split --text --baselines --by-speaker --json --jsonl"),
            ("who", "--run --runs-dir --context --json"),
        ],
    )
    def test_help_lists_the_options(self, command, name, options):
        shown = command(name, "--help", COLUMNS="200").stdout
        assert [option for option in options.split() if not re.search(rf"{option}\b", shown)] == []

    def test_version_names_the_package_first_and_then_what_matters(self, command):
        lines = command("--version").stdout.splitlines()
        assert lines[0] == f"lotr-tui {version('lotr-tui')}"
        assert lines[1] == f"Python {platform.python_version()}"
        assert lines[2:5] == [f"{name} {version(name)}" for name in ("textual", "numpy", "torch")]
        assert lines[5].startswith(f"platform {platform.system()} ")

    def test_locate_prints_paths_without_creating_them(self, command, home):
        shown = dict(line.split(maxsplit=1) for line in command("locate").stdout.splitlines())
        assert shown["home"] == str(home)
        assert shown["runs"] == str(home / "runs")
        assert shown["settings"] == str(home / "settings.json")
        assert shown["history"] == str(home / "history.jsonl")
        assert shown["sessions"] == str(home / "sessions")
        assert shown["progress"] == str(home / "learn.json")
        assert not home.exists()

    def test_list_settings_prints_the_values(self, command):
        done = command("train", "--preset", "tiny", "--set", "lr=0.5", "--list-settings")
        assert done.returncode == 0
        assert "lr=0.5 " in done.stdout
        assert f"embedding_size={get_preset('tiny').model.embedding_size} " in done.stdout


class TestTrain:
    def test_json_prints_one_event_per_line_and_the_result_last(self, trained):
        events = [json.loads(line) for line in trained["events"]]
        assert all("event" in event for event in events)
        names = [event["event"] for event in events]
        assert {"started", "step", "evaluated", "sampled", "checkpointed"} <= set(names)
        last = events[-1]
        assert last["event"] == "finished"
        assert last["run"] == str(trained["home"] / "runs" / "mine")
        assert last["seconds"] > 0
        valid = [event["valid_perplexity"] for event in events if event["event"] == "evaluated"]
        assert last["valid_perplexity"] == min(valid)
        assert last["test_perplexity"] > 1
        assert trained["stderr"] == ""

    def test_the_run_directory_is_complete(self, trained):
        names = {path.name for path in (trained["home"] / "runs" / "mine").iterdir()}
        expected = {"config.json", "vocabulary.json", "model.safetensors", "metrics.jsonl", "samples.jsonl", "log.txt"}
        assert expected | {"epochs", "lock"} == names

    def test_sigint_stops_a_training_with_plain_lines_and_saves_it(self, home, tmp_path, environment):
        (tmp_path / "small.txt").write_text("\n".join(sentences(120)))
        process = subprocess.Popen(
            [
                *TRAIN_TINY,
                "--text",
                "small.txt",
                "--mode",
                "stream",
                "--set",
                "epochs=100000",
                "--no-tui",
                "--run",
                "long",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment(home),
        )
        shown = ""
        with process:
            for line in process.stdout:
                shown += line
                if re.match(r"epoch +1\.0", line):
                    process.send_signal(signal.SIGINT)
                    break
            rest, errors = process.communicate(timeout=60)
        shown += rest
        assert process.returncode == 130
        assert errors == ""
        assert "\x1b" not in shown
        assert re.search(r"baselines \(validation perplexity\): unigram \d+\.\d, Kneser-Ney \d+\.\d", shown)
        result, hint = shown.splitlines()[-2:]
        assert re.match(r"stopped after .*: valid perplexity \d+\.\d\b", result)
        assert hint == "resume it: lotr-tui train --resume long"
        assert "nan" not in shown
        config = json.loads((home / "runs" / "long" / "config.json").read_text())
        assert (config["data"]["mode"], config["data"]["corpus_format"]) == ("stream", "text")
        assert (home / "runs" / "long" / "model.safetensors").stat().st_size > 0


class TestGenerate:
    def test_only_the_text_is_on_stdout(self, command, untrained_run):
        done = command("generate", "Bilbo Baggins is", "--run", untrained_run, "--seed", "3")
        assert done.returncode == 0
        assert done.stdout.endswith("\n")
        assert 1 <= len(done.stdout.split()) <= 30
        assert set(done.stdout.split()) <= set(KNOWN_WORDS)
        assert done.stderr.startswith("seed 3 · temperature 0.80")

    def test_bundled_model_is_found_from_any_folder(self, command):
        done = command("generate", "Bilbo Baggins is", "--seed", "0")
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(r"[ -~]*[a-z][ -~]*\n", done.stdout)

    def test_json_describes_the_text(self, command, untrained_run):
        row = json_output(command("generate", "the road", "--run", untrained_run, "--seed", "1", "--json"))
        assert row["prompt"] == "the road"
        assert row["seed"] == 1
        assert row["temperature"] == 0.8
        assert row["run"] == "untrained"
        assert row["reason"] in ("eos", "length")
        assert row["tokens_per_second"] > 0
        assert row["first_token_seconds"] > 0
        assert row["text"] == " ".join(token["text"] for token in row["tokens"])
        assert [token["index"] for token in row["tokens"]] == list(range(len(row["tokens"])))

    def test_jsonl_prints_one_object_per_word(self, command, untrained_run):
        done = command("generate", "the road", "--run", untrained_run, "--seed", "1", "--jsonl")
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        expected = json_output(command("generate", "the road", "--run", untrained_run, "--seed", "1", "--json"))
        assert [row["event"] for row in rows] == ["token"] * (len(rows) - 1) + ["done"]
        assert " ".join(row["text"] for row in rows[:-1]) == expected["text"]

    def test_same_seed_gives_the_same_text(self, command, untrained_run):
        texts = [
            command("generate", "the road", "--run", untrained_run, "--seed", seed, "--temperature", "1.5").stdout
            for seed in ("1", "1", "2")
        ]
        assert texts[0] == texts[1] != texts[2]

    def test_random_seed_is_printed_and_reproduces_the_text(self, command, untrained_run):
        first = json_output(command("generate", "the road", "--run", untrained_run, "--json"))
        again = json_output(command("generate", "the road", "--run", untrained_run, "--json", "--seed", first["seed"]))
        assert again["text"] == first["text"]

    def test_temperature_zero_gives_the_same_text_for_every_seed(self, command, untrained_run):
        texts = {
            command("generate", "the road", "--run", untrained_run, "--temperature", "0", "--seed", seed).stdout
            for seed in ("1", "2")
        }
        assert len(texts) == 1

    def test_count_uses_consecutive_seeds(self, command, untrained_run):
        options = ("generate", "the road", "--run", untrained_run, "--json")
        done = command(*options, "--seed", "5", "--count", "3")
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [row["seed"] for row in rows] == [5, 6, 7]
        assert rows[2]["text"] == json_output(command(*options, "--seed", "7"))["text"]

    @pytest.mark.parametrize("max_tokens", [1, 4])
    def test_max_tokens_limits_the_text(self, command, untrained_run, max_tokens):
        done = command("generate", "the road", "--run", untrained_run, "--seed", "0", "--max-tokens", max_tokens)
        assert 1 <= len(done.stdout.split()) <= max_tokens

    def test_unknown_words_are_listed_on_stderr(self, command, untrained_run):
        done = command("generate", "Gandalf and Bilbo", "--run", untrained_run, "--seed", "0")
        assert done.returncode == 0
        assert "gandalf" in done.stderr.splitlines()[0]
        assert "bilbo" not in done.stderr

    @pytest.mark.parametrize("stdin", [b"the road\n", b"\xff\xfe the \x80 road"])
    def test_dash_reads_standard_input(self, command, untrained_run, stdin):
        piped = command("generate", "-", "--run", untrained_run, "--seed", "0", stdin=stdin, PYTHONIOENCODING="utf-8")
        expected = command("generate", "the road", "--run", untrained_run, "--seed", "0")
        assert piped.returncode == 0, piped.stderr
        assert piped.stdout == expected.stdout

    def test_reply_starts_a_new_line(self, command, untrained_run):
        options = ("generate", "the road", "--run", untrained_run, "--json", "--seed", "0")
        plain, reply = json_output(command(*options)), json_output(command(*options, "--reply"))
        assert plain["tokens"][0]["top_tokens"] != reply["tokens"][0]["top_tokens"]

    def test_closed_stdout_ends_generation_quietly(self, untrained_run, home, tmp_path, environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "lotr_tui", "generate", "the road", "--run", str(untrained_run), "--count", "5000"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=environment(home),
        )
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read().decode()
        process.stderr.close()
        assert process.wait(timeout=60) == 0
        assert all(line.startswith("seed ") for line in errors.splitlines())


class TestEval:
    def test_json_agrees_with_the_training_events(self, mine, trained):
        finished = json.loads(trained["events"][-1])
        started = next(e for e in map(json.loads, trained["events"]) if e["event"] == "started")
        row = json_output(mine("eval", "mine", "--baselines", "--json"))
        assert (row["run"], row["split"], row["mode"]) == ("mine", "valid", "line")
        assert row["tokens"] == started["valid_tokens"]
        assert row["perplexity"] == pytest.approx(finished["valid_perplexity"], rel=1e-3)
        assert row["bits_per_token"] == pytest.approx(math.log2(row["perplexity"]))
        assert 0 <= row["unk_rate"] < 1
        assert row["baselines"]["unigram"] == pytest.approx(started["unigram_perplexity"])
        assert row["baselines"]["kneser_ney_5"] == pytest.approx(started["kneser_ney_perplexity"])

    def test_split_option_scores_the_test_split(self, mine, trained):
        row = json_output(mine("eval", "mine", "--split", "test", "--json"))
        assert row["perplexity"] == pytest.approx(json.loads(trained["events"][-1])["test_perplexity"], rel=1e-3)
        assert "baselines" not in row

    def test_jsonl_prints_one_object_per_token(self, mine):
        rows = [json.loads(line) for line in mine("eval", "mine", "--jsonl").stdout.splitlines()]
        row = json_output(mine("eval", "mine", "--json"))
        assert len(rows) == row["tokens"]
        assert set(rows[0]) == {"id", "text", "logprob"}
        assert rows[-1]["text"] == "<eos>"
        mean = sum(token["logprob"] for token in rows) / len(rows)
        assert math.exp(-mean) == pytest.approx(row["perplexity"])

    def test_text_is_read_from_a_file_or_standard_input(self, mine, tmp_path):
        text = "the miller sells seven lanterns\nzzz\n\n"
        (tmp_path / "own.txt").write_text(text)
        from_file = json_output(mine("eval", "mine", "--text", "own.txt", "--json"))
        piped = json_output(mine("eval", "mine", "--text", "-", "--json", stdin=text.encode() + b"\xff"))
        assert from_file["tokens"] == piped["tokens"] == 5 + 1 + 1 + 1
        assert from_file["unk_rate"] == 1 / 8
        assert from_file["perplexity"] == piped["perplexity"]

    def test_table_lists_run_and_baselines(self, mine):
        done = mine("eval", "mine", "--baselines")
        assert done.returncode == 0
        assert all(
            text in done.stdout
            for text in ("mine", "unigram", "Kneser-Ney 5", "bits/char", "valid, line mode", "rare words")
        )

    def test_changed_corpus_is_refused(self, trained, command, home):
        shutil.copytree(trained["home"], home)
        config = home / "runs" / "mine" / "config.json"
        values = json.loads(config.read_text())
        changed = write_csv(home / "changed.csv", sentences(120, seed=8))
        config.write_text(json.dumps({**values, "data": {**values["data"], "corpus": str(changed)}}))
        done = command("eval", "mine")
        assert done.returncode == 2
        assert "changed.csv has changed since run mine was trained" in done.stderr
        assert command("eval", "mine", "--text", "-", stdin=b"the miller").returncode == 0


class TestRuns:
    def test_list_shows_state_and_perplexity(self, mine, trained):
        finished = json.loads(trained["events"][-1])
        rows = json_output(mine("runs", "--json"))
        assert [(row["name"], row["state"], row["preset"]) for row in rows] == [("mine", "finished", "tiny")]
        assert rows[0]["valid_perplexity"] == finished["valid_perplexity"]
        shown = mine("runs").stdout
        assert re.search(r"mine +finished +tiny +lstm +line +1\.0 ", shown)
        assert "\x1b" not in shown

    @pytest.mark.parametrize("name", ["mine", "latest", "path"])
    def test_show_finds_a_run_by_name_and_path(self, mine, trained, name):
        path = str(trained["home"] / "runs" / "mine")
        row = json_output(mine("runs", "show", path if name == "path" else name))
        assert row["path"] == path
        assert row["config"]["model"]["embedding_size"] == 8
        assert [evaluation[1] for evaluation in row["evaluations"]] == [0.0, 1.0]

    def test_saved_epoch_is_selected_by_name(self, mine, trained):
        events = [json.loads(line) for line in trained["events"]]
        valid = next(e["valid_perplexity"] for e in events if e["event"] == "evaluated" and e["epoch"] == 1)
        shown = json_output(mine("runs", "show", "mine"))
        assert shown["saved_epochs"] == [{"epoch": 1, "valid_perplexity": valid}]
        row = json_output(mine("eval", "mine@1", "--json"))
        assert row["run"] == "mine@1"
        assert row["perplexity"] == pytest.approx(valid, rel=1e-3)
        generated = json_output(mine("generate", "the miller", "--run", "mine@1", "--seed", "0", "--json"))
        assert generated["run"] == "mine@1"
        for command in (("generate", "the miller", "--run"), ("eval",)):
            done = mine(*command, "mine@2")
            assert (done.returncode, done.stdout) == (2, "")
            assert "run 'mine' did not keep epoch 2; it kept 1, and the best model" in done.stderr
            done = mine(*command, "bundled@1")
            assert (done.returncode, done.stdout) == (2, "")
            assert "run 'bundled' kept no epochs" in done.stderr

    def test_epoch_cannot_be_created_or_removed_as_a_run(self, mine, trained):
        assert mine("runs", "rm", "mine@1", "--yes").returncode == 2
        assert (trained["home"] / "runs" / "mine" / "epochs" / "1.safetensors").is_file()
        done = mine("train", "--csv", trained["corpus"], "--run", "mine@2")
        assert done.returncode == 2
        assert "'mine@2' is not allowed" in done.stderr

    def test_list_without_runs_is_empty(self, command):
        done = command("runs")
        assert (done.returncode, done.stdout) == (0, "")
        assert "no runs yet" in done.stderr
        assert json_output(command("runs", "--json")) == []

    def test_list_skips_files_that_are_not_runs(self, command, home):
        (home / "runs" / "junk").mkdir(parents=True)
        (home / "runs" / "damaged").mkdir()
        (home / "runs" / "damaged" / "config.json").write_text("{")
        (home / "runs" / "file").write_text("x")
        assert json_output(command("runs", "--json")) == []

    def test_rm_asks_for_confirmation(self, command, home, untrained_run):
        (home / "runs").mkdir(parents=True)
        shutil.move(untrained_run, home / "runs" / "old")
        assert command("runs", "rm", "old", stdin=b"n\n").returncode != 0
        unanswered = command("runs", "rm", "old")
        assert unanswered.returncode == 2
        assert unanswered.stderr.splitlines()[-1] == "lotr-tui: runs rm old needs a confirmation; give --yes"
        assert (home / "runs" / "old" / "model.safetensors").is_file()
        assert command("runs", "rm", "old", stdin=b"y\n").returncode == 0
        assert not (home / "runs" / "old").exists()

    def test_rm_with_yes_does_not_ask(self, command, home, untrained_run):
        (home / "runs").mkdir(parents=True)
        shutil.move(untrained_run, home / "runs" / "old")
        assert command("runs", "rm", "old", "--yes").returncode == 0
        assert list((home / "runs").iterdir()) == []

    def test_bundled_model_cannot_be_removed(self, command):
        done = command("runs", "rm", "bundled", "--yes")
        assert done.returncode == 2
        assert "bundled" in done.stderr


class TestData:
    def test_info_counts_the_real_dialogues(self, command, lotr_csv):
        row = json_output(command("data", "info", lotr_csv, "--json"))
        assert (row["num_rows"], row["num_lines"], row["num_tokens"], row["vocabulary_size"]) == (
            2390,
            1644,
            23_615,
            879,
        )
        assert [row["splits"][name]["num_tokens"] for name in ("train", "valid", "test")] == [19_021, 2_226, 2_368]
        assert (row["encoding"], row["separator"], row["split_seed"]) == ("UTF-8", "comma", 1234)

    def test_info_table_shows_the_counts(self, command, lotr_csv):
        shown = command("data", "info", lotr_csv).stdout
        for text in ("2,390", "1,644", "23,615", "879", "the 1,138", "142 words"):
            assert text in shown
        assert re.search(r"Gandalf +168 +3,311 +Gandalf 24, Pippin 10", shown)
        assert re.search(r"valid +164 +2,226 +18\.2 %", shown)

    def test_info_shows_encoding_and_separator(self, command, tmp_path):
        texts = [f"{text}, she said – “oh”" for text in sentences(60)]
        write_csv(tmp_path / "a.csv", texts, encoding="cp1252", separator=";", columns=("who", "what"))
        row = json_output(
            command("data", "info", "a.csv", "--text-column", "what", "--speaker-column", "who", "--json")
        )
        assert (row["encoding"], row["separator"], row["num_lines"]) == ("Windows-1252", "semicolon", 60)
        assert len(row["speaker_line_counts"]) == 3

    def test_info_reads_plain_text(self, command, tmp_path):
        (tmp_path / "a.txt").write_text("\n".join(sentences(60)))
        (tmp_path / "a.dat").write_text("\n".join(sentences(60)))
        row = json_output(command("data", "info", "a.txt", "--json"))
        assert (row["separator"], row["num_lines"]) == ("none", 60)
        assert json_output(command("data", "info", "a.dat", "--plain", "--json"))["num_tokens"] == row["num_tokens"]

    def test_naming_a_column_means_csv_whatever_the_file_name(self, command, tmp_path):
        write_csv(tmp_path / "a.txt", sentences(60), columns=("who", "what"))
        for columns in (("--text-column", "what", "--speaker-column", "who"), ("--text-column", "what")):
            row = json_output(command("data", "info", "a.txt", *columns, "--json"))
            assert (row["separator"], row["num_lines"]) == ("comma", 60)
            assert bool(row["speaker_line_counts"]) == ("who" in columns)

    @pytest.mark.parametrize("arguments", [("data", "info", "a.txt", "--plain"), ("train", "--text", "a.txt")])
    def test_plain_text_has_no_columns_to_name(self, command, arguments):
        result = command(*arguments, "--text-column", "what")
        assert result.returncode == 2
        assert "reads lines without columns" in result.stderr

    def test_info_prints_no_control_characters_of_the_corpus(self, command, tmp_path):
        texts = sentences(60)
        texts[0] = " ".join(texts) + " \x1b[2J and a title"
        write_csv(tmp_path / "a.csv", texts, columns=("\x1b[31mwho", "dialog"))
        shown = command("data", "info", "a.csv", "--speaker-column", "\x1b[31mwho").stdout
        assert "60 longer" in shown
        assert "\x1b" not in shown

    @pytest.mark.parametrize(
        ("module_source", "exit_code", "message"),
        [
            ("raise ImportError('none')", 2, "pip install 'lotr-tui[kaggle]'"),
            ("def dataset_download(name): raise OSError('no\\nroute')", 1, "could not be downloaded: no route"),
            ("def dataset_download(name): return '.'", 1, "does not contain lotr_scripts.csv any more"),
        ],
    )
    def test_fetch_reports_a_failure_in_one_line(self, command, tmp_path, module_source, exit_code, message):
        (tmp_path / "kagglehub.py").write_text(module_source)
        done = command("data", "fetch", PYTHONPATH=str(tmp_path))
        assert done.returncode == exit_code
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert message in done.stderr

    def test_fetch_prints_the_path_of_the_file(self, command, tmp_path):
        folder = tmp_path / "cache"
        folder.mkdir()
        (folder / "lotr_scripts.csv").write_text("x")
        (tmp_path / "kagglehub.py").write_text(
            "def dataset_download(name):\n"
            "    assert name == 'paultimothymooney/lord-of-the-rings-data'\n"
            f"    return {str(folder)!r}\n"
        )
        done = command("data", "fetch", PYTHONPATH=str(tmp_path))
        assert done.stdout.strip() == str(folder / "lotr_scripts.csv")


@pytest.mark.parametrize(
    ("terminals", "variables", "expected"),
    [
        (ALL_TERMINALS, {"TERM": "xterm-256color"}, True),
        (ALL_TERMINALS, {"TERM": "xterm-256color", "CI": "true"}, False),
        (ALL_TERMINALS, {"TERM": "xterm-256color", "CI": "0"}, True),
        (ALL_TERMINALS, {"TERM": "dumb"}, False),
        (ALL_TERMINALS, {}, False),
        *(({**ALL_TERMINALS, name: False}, {"TERM": "xterm-256color"}, False) for name in ALL_TERMINALS),
    ],
)
def test_screen_is_drawn_only_in_an_interactive_terminal(terminals, variables, expected, monkeypatch):
    for name in ("TERM", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    streams = {name: SimpleNamespace(isatty=lambda isatty=isatty: isatty) for name, isatty in terminals.items()}
    monkeypatch.setattr(cli_options, "sys", SimpleNamespace(**streams))
    assert cli_options.has_terminal() == expected
