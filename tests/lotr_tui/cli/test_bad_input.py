"""Every bad input: exit code 2, one line that names the thing, nothing on stdout, nothing in the runs folder."""

import json
import os
import pickle
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.conftest import sentences, write_csv, write_run

LINE = "a sentence long enough to be kept"


@pytest.fixture
def refused(command, home):
    """Runs a command that must be refused; returns the line it says."""

    def run(*arguments, **options):
        before = sorted((home / "runs").rglob("*"))
        done = command(*arguments, **options)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        lines = done.stderr.splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("lotr-tui: ")
        assert "Traceback" not in lines[0]
        assert len(lines[0]) < 1_000
        assert sorted((home / "runs").rglob("*")) == before
        return lines[0]

    return run


# What is in the file, and what the line must say of it.
CORPORA = {
    "empty": (b"", "is empty"),
    "white space": (b" \n\r\n\t\n", "is empty"),
    "byte order mark only": (b"\xef\xbb\xbf", "is empty"),
    "header only": (b"char,dialog\n", "no rows"),
    "no dialog column": (f"who,what\nSAM,{LINE}\n".encode(), "no column 'dialog'; its columns: who, what"),
    "no header": (b"SAM,Well then; let us see what there is to see\n", "no column 'dialog'; its columns: SAM"),
    "every line too short": (b"char,dialog\n" + b"SAM,Too short.\n" * 30, "none of the 30 lines is longer than 20"),
    "too small to split": (f"char,dialog\nSAM,{LINE}\n".encode(), "1 usable lines cannot be split"),
    "words too rare": (
        b"dialog\n" + b"".join(b"w%dx w%dy w%dz w%da w%db\n" % ((i,) * 5) for i in range(10, 30)),
        "no word is seen 3 times",
    ),
    "no words to validate on": (
        b"dialog\n" + f"{LINE}\n".encode() * 4 + b"... ... ... ... ... ...\n" * 4,
        "has no word",
    ),
    "nul bytes": (f"char,dialog\nSAM,{LINE}\0\n".encode(), "NUL bytes"),
    "a 50 MB line": (b"char,dialog\nSAM," + b"word " * 10_000_000, "has a line of over 1,000,000 bytes"),
    "binary": (bytes(range(1, 256)) * 40, "binary file"),
    "a compressed file": (b"\x1f\x8b\x08" + bytes(range(256)) * 9, "not text"),
    "unreadable encoding": (b"char,dialog\nSAM,\x81\x8d\x8f\x90\x9d and so on, and so on\n", "is not UTF-8"),
    "utf-16": (f"char,dialog\nSAM,{LINE}\n".encode("utf-16"), "UTF-16"),
    "commas without quotes": (b"char,dialog\nSAM,Well, now, let us see what there is\n", "is not a regular CSV"),
    "a quote never closed": (f'char,dialog\nSAM,"{LINE}\n'.encode(), "is not a regular CSV"),
}
TEXTS = ["empty", "white space", "nul bytes", "a 50 MB line", "binary", "unreadable encoding", "utf-16"]


class TestCorpus:
    @pytest.mark.parametrize("kind", CORPORA)
    def test_csv(self, refused, tmp_path, kind):
        content, said = CORPORA[kind]
        path = tmp_path / "corpus.csv"
        path.write_bytes(content)
        line = refused("train", "--csv", "corpus.csv")
        path.unlink()
        assert "corpus.csv" in line or kind == "too small to split"
        assert said in line

    @pytest.mark.parametrize("kind", TEXTS)
    def test_text(self, refused, tmp_path, kind):
        content, said = CORPORA[kind]
        path = tmp_path / "corpus.txt"
        path.write_bytes(content)
        line = refused("train", "--text", "corpus.txt")
        path.unlink()
        assert "corpus.txt" in line
        assert said in line

    @pytest.mark.parametrize("kind", ["empty", "no dialog column", "binary", "too small to split"])
    def test_data_info(self, refused, tmp_path, kind):
        content, said = CORPORA[kind]
        (tmp_path / "corpus.csv").write_bytes(content)
        assert said in refused("data", "info", "corpus.csv")

    @pytest.mark.parametrize("option", ["--csv", "--text"])
    def test_missing_file(self, refused, option):
        assert "none.csv does not exist" in refused("train", option, "none.csv")

    @pytest.mark.parametrize("option", ["--csv", "--text"])
    def test_folder(self, refused, tmp_path, option):
        assert "is a folder" in refused("train", option, tmp_path)

    @pytest.mark.parametrize(
        "arguments",
        [
            ("train", "--csv", "~nobody-there/x"),
            ("train", "--text", "~nobody-there/x"),
            ("train", "--set", "corpus=~nobody-there/x"),
            ("train", "--text", "a", "--valid", "~nobody-there/x", "--test", "b"),
            ("data", "info", "~nobody-there/x"),
        ],
    )
    def test_the_home_of_nobody(self, refused, tmp_path, arguments):
        (tmp_path / "a").write_text(f"{LINE}\n" * 30)
        assert "~nobody-there/x does not exist; check the path" in refused(*arguments)

    @pytest.mark.parametrize("arguments", [("train", "--csv", "loop"), ("data", "info", "loop")])
    def test_a_link_to_itself(self, refused, tmp_path, arguments):
        (tmp_path / "loop").symlink_to("loop")
        assert "loop does not exist; check the path" in refused(*arguments)

    def test_name_too_long(self, refused):
        assert "cannot be read" in refused("train", "--csv", "x" * 300)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_unreadable_file(self, refused, small_csv):
        small_csv.chmod(0)
        assert "small.csv cannot be read" in refused("train", "--csv", small_csv)

    def test_both_kinds(self, refused, small_csv):
        assert "--csv and --text" in refused("train", "--csv", small_csv, "--text", small_csv)

    def test_too_small_to_fill_one_batch(self, refused, tmp_path):
        write_csv(tmp_path / "a.csv", sentences(12))
        line = refused("train", "--preset", "notebook", "--csv", "a.csv")
        assert "batch_size=64 is too large" in line


class TestTrainingOptions:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--preset", "defualt"], "unknown preset 'defualt'; did you mean default?"),
            (["--preset", "zzz"], "unknown preset 'zzz'. The presets: default, "),
            (["--preset", ""], "unknown preset ''"),
            (["--set", "bach_size=3"], "unknown setting 'bach_size'; did you mean batch_size?"),
            (["--set", "batch_size"], "'batch_size' is not of the form key=value"),
            (["--set", "batch_size=many"], "batch_size=many is not a whole number"),
            (["--set", "batch_size=0"], "batch_size=0 is out of range"),
            (["--set", "batch_size=60000"], "batch_size=60000 is too large"),
            (["--set", "lr=nan"], "lr=nan is out of range"),
            (["--set", "lr=inf"], "lr=inf is out of range"),
            (["--set", "sample_temperature=nan"], "sample_temperature=nan is out of range"),
            (["--set", "sample_temperature=-1"], "sample_temperature=-1.0 is out of range"),
            (["--set", "dropout_input=1"], "dropout_input=1.0 is out of range"),
            (["--set", "min_characters=10000"], "none of the"),
            (["--epochs", "0"], "epochs=0 is out of range"),
            (["--epochs", "ten"], "--epochs"),
            (["--seed", "-1"], "seed=-1 is out of range"),
            (["--split-seed", "-1"], "split_seed=-1 is out of range"),
            (["--mode", "lines"], "mode=lines is none of line, stream; did you mean line?"),
            (["--device", "tpu"], "device=tpu is none of auto, cpu, cuda, mps"),
            (["--precision", "fp16"], "precision=fp16 is none of auto, fp32, bf16"),
            (["--threads", "-1"], "threads=-1 is out of range"),
            (["--run", "../up"], "run name '../up' is no folder name"),
            (["--run", ""], "run name '' is no folder name"),
            (["--colour", "red"], "--colour"),
            (["extra"], "extra"),
        ],
    )
    def test_refused(self, refused, arguments, said):
        assert said in refused("train", *arguments)

    def test_the_same_in_a_corpus_of_ones_own(self, refused, small_csv):
        line = refused("train", "--csv", small_csv, "--set", "batch_size=5000")
        assert re.search(r"batch_size=5000 is too large: \d+ training tokens", line)

    def test_a_name_that_is_taken(self, refused, home, small_csv):
        write_run(home / "runs" / "mine")
        assert "run 'mine' exists" in refused("train", "--csv", small_csv, "--run", "mine")

    @pytest.mark.parametrize("folder", ["small.csv", "small.csv/runs"])
    def test_a_runs_directory_that_cannot_be(self, refused, small_csv, folder):
        before = small_csv.read_bytes()
        line = refused("train", "--csv", small_csv, "--runs-dir", folder)
        assert f"runs folder {folder} cannot be written" in line
        assert small_csv.read_bytes() == before

    def test_a_home_that_is_a_file(self, refused, small_csv):
        assert "cannot be written" in refused("train", "--csv", small_csv, LOTR_TUI_HOME=str(small_csv))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_an_unwritable_runs_directory(self, refused, small_csv, tmp_path):
        (tmp_path / "locked").mkdir(mode=0o555)
        line = refused("train", "--csv", small_csv, "--runs-dir", "locked")
        assert "runs folder locked cannot be written" in line
        assert list((tmp_path / "locked").iterdir()) == []


class TestPlaying:
    @pytest.mark.parametrize(
        ("option", "value", "said"),
        [
            ("temperature", "nan", "temperature nan is out of range"),
            ("temperature", "-0.5", "temperature -0.5 is out of range"),
            ("temperature", "2.01", "temperature 2.01 is out of range"),
            ("temperature", "inf", "temperature inf is out of range"),
            ("temperature", "hot", "--temperature"),
            ("top-p", "0", "top-p 0.0 is out of range"),
            ("top-p", "-0.1", "top-p -0.1 is out of range"),
            ("top-p", "1.01", "top-p 1.01 is out of range"),
            ("top-p", "nan", "top-p nan is out of range"),
            ("top-k", "-1", "top-k -1 is out of range"),
            ("top-k", "1.5", "--top-k"),
            ("min-p", "-0.1", "min-p -0.1 is out of range"),
            ("min-p", "nan", "min-p nan is out of range"),
            ("repetition-penalty", "0", "repetition-penalty 0.0 is out of range"),
            ("repetition-penalty", "nan", "repetition-penalty nan is out of range"),
            ("max-tokens", "0", "max-tokens 0 is out of range"),
            ("seed", "-1", "seed -1 is out of range"),
            ("seed", str(2**63), f"seed {2**63} is out of range"),
            ("count", "0", "--count"),
        ],
    )
    def test_sampling(self, refused, untrained_run, option, value, said):
        assert said in refused("generate", "the road", "--run", untrained_run, f"--{option}={value}")

    @pytest.mark.parametrize("prompt", ["", "   ", "...", "\x1b[2J", "—"])
    def test_a_prompt_without_words(self, refused, untrained_run, prompt):
        line = refused("generate", prompt, "--run", untrained_run)
        assert "has no word" in line or "knows none" in line
        assert "\x1b" not in line

    def test_an_empty_standard_input(self, refused, untrained_run):
        assert "has no word" in refused("generate", "-", "--run", untrained_run, stdin=b"\n")

    def test_a_prompt_wholly_outside_the_vocabulary(self, refused, untrained_run):
        line = refused("generate", "Xyzzy plugh?", "--run", untrained_run)
        assert "none of the prompt's words: xyzzy, plugh" in line

    @pytest.mark.parametrize("name", ["generate", "eval", "show", "rm"])
    def test_a_run_that_does_not_exist(self, refused, home, name):
        write_run(home / "runs" / "shire-1")
        words = {"generate": ["generate", "the", "--run"], "eval": ["eval"]}.get(name, ["runs", name])
        assert "run 'shire-2' is neither in" in (line := refused(*words, "shire-2"))
        assert "did you mean shire-1?" in line

    def test_no_run_is_the_latest(self, refused):
        assert "there is no run in" in refused("generate", "the", "--run", "latest")

    def test_a_session_without_a_terminal(self, refused):
        assert "needs a terminal; use `lotr-tui generate" in refused()


def damaged(name, how):
    def damage(run):
        path = run / name
        path.write_bytes(how(path.read_bytes()))

    return damage


def with_tensors(change):
    def damage(run):
        tensors = load_file(run / "model.safetensors")
        save_file(change(tensors), run / "model.safetensors")

    return damage


def with_config(**values):
    def damage(run):
        config = json.loads((run / "config.json").read_text())
        config["model"].update(values)
        (run / "config.json").write_text(json.dumps(config))

    return damage


def not_finite(tensors):
    tensors["output.bias"][1] = np.nan
    return tensors


MODELS = {
    "truncated weights": (damaged("model.safetensors", lambda old: old[:-7]), "model.safetensors"),
    "empty weights": (damaged("model.safetensors", lambda old: b""), "model.safetensors"),
    "a header that lies": (damaged("model.safetensors", lambda old: b"\xff" * 8 + old[8:]), "model.safetensors"),
    "random bytes": (damaged("model.safetensors", lambda old: bytes(range(7, 207)) * 9), "model.safetensors"),
    "text": (damaged("model.safetensors", lambda old: b"hello\n"), "model.safetensors"),
    "a pickle": (damaged("model.safetensors", lambda old: pickle.dumps({"a": 1})), "a pickle, which can run code"),
    "a zip of pickles": (damaged("model.safetensors", lambda old: b"PK\x03\x04" + old), "a pickle"),
    "no weights": (lambda run: (run / "model.safetensors").unlink(), "model.safetensors is missing"),
    "a tensor missing": (
        with_tensors(lambda t: {n: a for n, a in t.items() if n != "output.bias"}),
        "lacks output.bias",
    ),
    "a tensor too many": (with_tensors(lambda t: {**t, "more": t["output.bias"]}), "unknown more"),
    "another type": (with_tensors(lambda t: {n: a.astype(np.float16) for n, a in t.items()}), "not float32"),
    "not a number": (with_tensors(not_finite), "output.bias holds values that are not finite"),
    "another size": (with_config(embedding_size=16), "not float32"),
    "more layers": (with_config(layers=2), "lacks layers.1."),
    "a setting out of range": (with_config(layers=0), "layers=0 is out of range"),
    "an unknown setting": (with_config(wings=2), "config.json"),
    "a torn configuration": (damaged("config.json", lambda old: old[:50]), "config.json is not JSON"),
    "a configuration of other things": (damaged("config.json", lambda old: b"[1]"), "config.json is no configuration"),
    "a torn vocabulary": (damaged("vocabulary.json", lambda old: old[:50]), "vocabulary.json is not JSON"),
    "a vocabulary that is not text": (damaged("vocabulary.json", lambda old: b"\xff\xfe"), "vocabulary.json"),
    "another vocabulary": (damaged("vocabulary.json", lambda old: b'["<unk>", "<eos>", "the"]'), "embedding.weight"),
    "a vocabulary of control characters": (
        damaged("vocabulary.json", lambda old: b'["<unk>", "<eos>", "\\u001b[2J"]'),
        "vocabulary.json holds entries that are no words",
    ),
    "no vocabulary": (lambda run: (run / "vocabulary.json").unlink(), "vocabulary.json is missing"),
}


class TestModels:
    @pytest.mark.parametrize("kind", MODELS)
    def test_damaged_or_foreign(self, refused, untrained_run, kind):
        damage, said = MODELS[kind]
        damage(untrained_run)
        assert said in refused("generate", "the road", "--run", untrained_run)

    def test_the_undamaged_one_is_fine(self, command, untrained_run):
        assert command("generate", "the road", "--run", untrained_run).returncode == 0

    def test_no_pickle_is_ever_loaded(self, refused, untrained_run, tmp_path):
        class Trap:
            def __reduce__(self):
                return (os.mkdir, (str(tmp_path / "sprung"),))

        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            bait = pickle.dumps(Trap(), protocol=protocol)
            (untrained_run / "model.safetensors").write_bytes(bait)
            refused("generate", "the road", "--run", untrained_run)
            (tmp_path / "model.pt").write_bytes(bait)
            refused("generate", "the road", "--run", "model.pt")
        assert not (tmp_path / "sprung").exists()

    @pytest.mark.parametrize(("content", "said"), [(pickle.dumps([1]), "a pickle"), (b"hello", "a run is a folder")])
    def test_a_file_offered_as_a_run(self, refused, tmp_path, content, said):
        (tmp_path / "model.pt").write_bytes(content)
        assert said in refused("generate", "the road", "--run", "model.pt")

    def test_a_folder_that_is_no_run(self, refused, tmp_path):
        (tmp_path / "empty").mkdir()
        assert "empty is a folder without config.json" in refused("generate", "the road", "--run", tmp_path / "empty")


class TestEvaluation:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--split", "dev"], "split 'dev' is none of train, valid, test"),
            (["--text", "none.txt"], "none.txt does not exist"),
            (["--text", "-"], "--text - has no word"),
            (["--text", "dots.txt"], "dots.txt has no word"),
        ],
    )
    def test_refused(self, refused, tmp_path, arguments, said):
        (tmp_path / "dots.txt").write_text("... ...\n")
        assert said in refused("eval", *arguments)

    def test_a_corpus_that_is_gone(self, refused, untrained_run):
        with_data = json.loads((untrained_run / "config.json").read_text())
        with_data["data"]["corpus"] = "/nowhere/gone.csv"
        (untrained_run / "config.json").write_text(json.dumps(with_data))
        assert "/nowhere/gone.csv does not exist" in refused("eval", untrained_run)

    def test_a_vocabulary_of_another_corpus(self, refused, untrained_run):
        assert "has changed since run untrained was trained" in refused("eval", untrained_run)


class TestRemoving:
    def test_the_bundled_model(self, refused):
        assert "bundled model" in refused("runs", "rm", "bundled", "--yes")

    def test_a_folder_that_is_no_run(self, refused, tmp_path, untrained_run):
        shutil.copytree(untrained_run, tmp_path / "precious")
        (tmp_path / "precious" / "config.json").unlink()
        refused("runs", "rm", tmp_path / "precious", "--yes")
        assert (tmp_path / "precious" / "model.safetensors").is_file()
