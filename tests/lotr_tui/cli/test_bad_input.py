"""Bad input is refused with exit code 2 and one line that names it (see the fixture `refused`)."""

import json
import os
import pickle
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.support.files import sentences, write_csv, write_run
from tests.support.open_models import bpe_tokenizer, write_open_run

LINE = "a sentence long enough to be kept"


# Content of the file, and a part of the error.
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
        "no word occurs 3 times",
    ),
    "another script": (
        ("char,dialog\n" + "SAM,Вы видели моего пони сегодня утром\n" * 30).encode(),
        "not a to z (such as 'Вы')",
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
    @pytest.mark.parametrize(
        ("option", "kind"), [*(("--csv", kind) for kind in CORPORA), *(("--text", kind) for kind in TEXTS)]
    )
    def test_training_on_an_invalid_corpus_is_refused(self, refused, tmp_path, option, kind):
        content, message = CORPORA[kind]
        path = tmp_path / ("corpus.csv" if option == "--csv" else "corpus.txt")
        path.write_bytes(content)
        line = refused("train", option, path.name)
        path.unlink()
        assert path.name in line or kind == "too small to split"
        assert message in line

    @pytest.mark.parametrize("kind", ["empty", "no dialog column", "binary", "too small to split"])
    def test_data_info_of_an_invalid_csv_is_refused(self, refused, tmp_path, kind):
        content, message = CORPORA[kind]
        (tmp_path / "corpus.csv").write_bytes(content)
        assert message in refused("data", "info", "corpus.csv")

    @pytest.mark.parametrize("option", ["--csv", "--text"])
    def test_missing_file_is_refused(self, refused, option):
        assert "none.csv does not exist" in refused("train", option, "none.csv")

    @pytest.mark.parametrize("option", ["--csv", "--text"])
    def test_folder_as_corpus_is_refused(self, refused, tmp_path, option):
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
    def test_home_of_an_unknown_user_does_not_exist(self, refused, tmp_path, arguments):
        (tmp_path / "a").write_text(f"{LINE}\n" * 30)
        assert "~nobody-there/x does not exist; check the path" in refused(*arguments)

    @pytest.mark.parametrize("arguments", [("train", "--csv", "loop"), ("data", "info", "loop")])
    def test_symlink_to_itself_does_not_exist(self, refused, tmp_path, arguments):
        (tmp_path / "loop").symlink_to("loop")
        assert "loop does not exist; check the path" in refused(*arguments)

    def test_file_name_that_is_too_long_is_refused(self, refused):
        assert "cannot be read" in refused("train", "--csv", "x" * 300)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
    def test_unreadable_file_is_refused(self, refused, small_csv):
        small_csv.chmod(0)
        assert "small.csv cannot be read" in refused("train", "--csv", small_csv)

    def test_csv_and_text_exclude_each_other(self, refused, small_csv):
        assert "--csv and --text" in refused("train", "--csv", small_csv, "--text", small_csv)

    def test_corpus_too_small_for_one_batch_is_refused(self, refused, tmp_path):
        write_csv(tmp_path / "a.csv", sentences(12))
        line = refused("train", "--preset", "notebook", "--csv", "a.csv")
        assert "batch_size=64 is too large" in line


class TestStandardInput:
    @pytest.mark.parametrize(
        ("arguments", "stdin", "message"),
        [
            (["generate", "-"], b"The old \0 wizard", "standard input contains NUL bytes, so it is not text"),
            (["tokenize", "-"], b"The old \0 wizard", "standard input contains NUL bytes, so it is not text"),
            (["eval", "--text", "-"], b"The old \0 wizard", "standard input contains NUL bytes, so it is not text"),
            (["generate", "-"], b"a" * 10_000_000, "standard input has over 100,000 bytes; use a part of it"),
            (["tokenize", "-"], b"a" * 10_000_000, "standard input has over 1,000,000 bytes; use a part of it"),
            (["eval", "--text", "-"], b"a" * 10_000_000, "a line of over 1,000,000 characters; put one utterance on a"),
        ],
    )
    def test_what_is_no_text_or_too_long_is_refused(self, refused, arguments, stdin, message):
        assert message in refused(*arguments, stdin=stdin)

    @pytest.mark.parametrize("arguments", [["generate", "--run"], ["tokenize", "--run"], ["eval", "--text", "-"]])
    def test_open_vocabularies_read_no_bytes_that_are_not_utf8(self, refused, tmp_path, arguments):
        run = write_open_run(tmp_path / "run", bpe_tokenizer())
        line = refused(*arguments, run, stdin=b"The \xff wizard")
        assert "character 5 is a lone surrogate (U+DCFF), read from the byte 0xFF; remove it" in line

    def test_words_report_the_bytes_that_they_skip(self, command, untrained_run):
        for process in (
            command("generate", "-", "--run", untrained_run, stdin=b"the \xff road"),
            command("generate", "the \udcff road", "--run", untrained_run),
        ):
            assert process.returncode == 0
            assert process.stderr.startswith("skipped, because the model reads only words of a to z")

    def test_an_endless_word_is_quoted_in_part(self, refused, untrained_run):
        line = refused("generate", "-", "--run", untrained_run, stdin=b"qz" * 40_000)
        assert line.endswith(f"knows none of the prompt's words: {'qz' * 20}…; use other words")


class TestTrainingOptions:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--preset", "defualt"], "unknown preset 'defualt'; did you mean default?"),
            (["--preset", "zzz"], "unknown preset 'zzz'. The presets: default, "),
            (["--preset", ""], "unknown preset ''"),
            (["--set", "bach_size=3"], "unknown setting 'bach_size'; did you mean batch_size?"),
            (["--set", "batch_size"], "'batch_size' is not of the form key=value"),
            (["--set", "batch_size=many"], "batch_size=many is not a whole number"),
            (["--set", "batch_size=0"], "batch_size=0 is not a whole number from 1 to 65536"),
            (["--set", "batch_size=60000"], "batch_size=60000 is too large"),
            (["--set", "lr=nan"], "lr=nan is not a number from 1e-09 to 1000"),
            (["--set", "lr=inf"], "lr=inf is not a number"),
            (["--set", "sample_temperature=nan"], "sample_temperature=nan is not a number"),
            (["--set", "sample_temperature=-1"], "sample_temperature=-1 is not a number from 0 to 2"),
            (["--set", "input_dropout=1"], "input_dropout=1 is not a number from 0 to 0.99"),
            (["--set", "min_characters=10000"], "none of the"),
            (["--epochs", "0"], "epochs=0 is not a whole number from 1"),
            (["--epochs", "ten"], "--epochs"),
            (["--seed", "-1"], "seed=-1 is not a whole number from 0"),
            (["--split-seed", "-1"], "split_seed=-1 is not a whole number from 0"),
            (
                ["--mode", "lines"],
                "--mode lines is not one of line, stream, dialogue; did you mean line?",
            ),
            (["--device", "tpu"], "--device tpu is not one of auto, cpu, cuda, mps"),
            (["--precision", "fp16"], "--precision fp16 is not one of auto, fp32, bf16"),
            (["--threads", "-1"], "threads=-1 is not a whole number from 0"),
            (["--run", "../up"], "run name '../up' is not allowed"),
            (["--run", ""], "run name '' is not allowed"),
            (["--colour", "red"], "--colour"),
            (["extra"], "extra"),
        ],
    )
    def test_invalid_option_is_refused(self, refused, arguments, message):
        assert message in refused("train", *arguments)

    def test_batch_size_too_large_for_the_corpus_is_refused(self, refused, small_csv):
        line = refused("train", "--csv", small_csv, "--set", "batch_size=5000")
        assert re.search(r"batch_size=5000 is too large: \d+ training tokens", line)

    def test_run_name_that_exists_is_refused(self, refused, home, small_csv):
        write_run(home / "runs" / "mine")
        assert "run 'mine' exists" in refused("train", "--csv", small_csv, "--run", "mine")

    @pytest.mark.parametrize("folder", ["small.csv", "small.csv/runs"])
    def test_runs_directory_that_cannot_be_created_is_refused(self, refused, small_csv, folder):
        before = small_csv.read_bytes()
        line = refused("train", "--csv", small_csv, "--runs-dir", folder)
        assert f"runs folder {folder} cannot be written" in line
        assert small_csv.read_bytes() == before

    def test_home_that_is_a_file_is_refused(self, refused, small_csv):
        assert "cannot be written" in refused("train", "--csv", small_csv, LOTR_TUI_HOME=str(small_csv))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
    def test_unwritable_runs_directory_is_refused(self, refused, small_csv, tmp_path):
        (tmp_path / "read_only").mkdir(mode=0o555)
        line = refused("train", "--csv", small_csv, "--runs-dir", "read_only")
        assert "runs folder read_only cannot be written" in line
        assert list((tmp_path / "read_only").iterdir()) == []


class TestPlaying:
    @pytest.mark.parametrize(
        ("option", "value", "message"),
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
    def test_invalid_sampling_option_is_refused(self, refused, untrained_run, option, value, message):
        assert message in refused("generate", "the road", "--run", untrained_run, f"--{option}={value}")

    @pytest.mark.parametrize("prompt", ["", "   ", "...", "\x1b[2J", "—"])
    def test_prompt_without_words_is_refused(self, refused, untrained_run, prompt):
        line = refused("generate", prompt, "--run", untrained_run)
        assert "has no word" in line or "knows none" in line
        assert "\x1b" not in line

    def test_empty_standard_input_is_refused(self, refused, untrained_run):
        assert "has no word" in refused("generate", "-", "--run", untrained_run, stdin=b"\n")

    def test_prompt_of_unknown_words_is_refused(self, refused, untrained_run):
        line = refused("generate", "Xyzzy plugh?", "--run", untrained_run)
        assert "none of the prompt's words: xyzzy, plugh" in line

    @pytest.mark.parametrize("name", ["generate", "eval", "show", "rm"])
    def test_unknown_run_suggests_the_nearest(self, refused, home, name):
        write_run(home / "runs" / "shire-1")
        arguments = {"generate": ["generate", "the", "--run"], "eval": ["eval"]}.get(name, ["runs", name])
        line = refused(*arguments, "shire-2")
        assert "run 'shire-2' is neither in" in line
        assert "did you mean shire-1?" in line

    def test_latest_without_runs_is_refused(self, refused):
        assert "there is no run in" in refused("generate", "the", "--run", "latest")

    def test_session_without_a_terminal_is_refused(self, refused):
        assert "needs a terminal; use `lotr-tui generate" in refused()


def with_file(name, change):
    def damage(run):
        path = run / name
        path.write_bytes(change(path.read_bytes()))

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
    "truncated weights": (with_file("model.safetensors", lambda old: old[:-7]), "model.safetensors"),
    "empty weights": (with_file("model.safetensors", lambda old: b""), "model.safetensors"),
    "an invalid header": (with_file("model.safetensors", lambda old: b"\xff" * 8 + old[8:]), "model.safetensors"),
    "random bytes": (with_file("model.safetensors", lambda old: bytes(range(7, 207)) * 9), "model.safetensors"),
    "text": (with_file("model.safetensors", lambda old: b"hello\n"), "model.safetensors"),
    "a pickle": (with_file("model.safetensors", lambda old: pickle.dumps({"a": 1})), "a pickle, which can run code"),
    "a zip of pickles": (with_file("model.safetensors", lambda old: b"PK\x03\x04" + old), "a pickle"),
    "no weights": (lambda run: (run / "model.safetensors").unlink(), "model.safetensors is missing"),
    "a missing tensor": (
        with_tensors(lambda tensors: {n: tensor for n, tensor in tensors.items() if n != "output.bias"}),
        "lacks output.bias",
    ),
    "an unknown tensor": (
        with_tensors(lambda tensors: {**tensors, "more": tensors["output.bias"]}),
        "unknown tensors more",
    ),
    "another dtype": (
        with_tensors(lambda tensors: {n: tensor.astype(np.float64) for n, tensor in tensors.items()}),
        "is float64",
    ),
    "not a number": (with_tensors(not_finite), "output.bias holds values that are not finite"),
    "another size": (with_config(embedding_size=16), "not float32"),
    "more layers": (with_config(num_layers=2), "lacks layers.1."),
    "a setting out of range": (with_config(num_layers=0), "num_layers=0 is not a whole number from 1"),
    "an unknown setting": (with_config(wings=2), "config.json"),
    "a truncated configuration": (
        with_file("config.json", lambda old: old[:50]),
        "config.json is not a valid configuration: not valid JSON",
    ),
    "a configuration that is not an object": (
        with_file("config.json", lambda old: b"[1]"),
        "config.json is not a valid configuration",
    ),
    "a truncated vocabulary": (with_file("vocabulary.json", lambda old: old[:50]), "vocabulary.json is not JSON"),
    "a vocabulary that is not text": (with_file("vocabulary.json", lambda old: b"\xff\xfe"), "vocabulary.json"),
    "another vocabulary": (with_file("vocabulary.json", lambda old: b'["<unk>", "<eos>", "the"]'), "embedding.weight"),
    "a vocabulary of control characters": (
        with_file("vocabulary.json", lambda old: b'["<unk>", "<eos>", "\\u001b[2J"]'),
        "vocabulary.json contains entries that are not words",
    ),
    "no vocabulary": (lambda run: (run / "vocabulary.json").unlink(), "vocabulary.json is missing"),
}


class TestModels:
    @pytest.mark.parametrize("kind", MODELS)
    def test_damaged_run_is_refused(self, refused, untrained_run, kind):
        damage, message = MODELS[kind]
        damage(untrained_run)
        assert message in refused("generate", "the road", "--run", untrained_run)

    def test_undamaged_run_is_accepted(self, command, untrained_run):
        assert command("generate", "the road", "--run", untrained_run).returncode == 0

    def test_pickles_are_never_loaded(self, refused, untrained_run, tmp_path):
        class Trap:
            def __reduce__(self):
                return (os.mkdir, (str(tmp_path / "executed"),))

        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            pickled = pickle.dumps(Trap(), protocol=protocol)
            (untrained_run / "model.safetensors").write_bytes(pickled)
            refused("generate", "the road", "--run", untrained_run)
            (tmp_path / "model.pt").write_bytes(pickled)
            refused("generate", "the road", "--run", "model.pt")
        assert not (tmp_path / "executed").exists()

    @pytest.mark.parametrize(("content", "message"), [(pickle.dumps([1]), "a pickle"), (b"hello", "a run is a folder")])
    def test_file_as_run_is_refused(self, refused, tmp_path, content, message):
        (tmp_path / "model.pt").write_bytes(content)
        assert message in refused("generate", "the road", "--run", "model.pt")

    def test_folder_without_a_run_is_refused(self, refused, tmp_path):
        (tmp_path / "empty").mkdir()
        assert "empty is a folder without config.json" in refused("generate", "the road", "--run", tmp_path / "empty")


class TestEvaluation:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("--split dev", "--split dev is not one of valid, test, train"),
            ("--text none.txt", "none.txt does not exist"),
            ("--text -", "--text - has no word"),
            ("--text spaces.txt", "spaces.txt is empty; use a file with text"),
        ],
    )
    def test_invalid_option_is_refused(self, refused, tmp_path, arguments, message):
        (tmp_path / "spaces.txt").write_text("   \n")
        assert message in refused("eval", *arguments.split())

    def test_missing_corpus_is_refused(self, refused, untrained_run):
        config = json.loads((untrained_run / "config.json").read_text())
        config["data"]["corpus"] = "/nowhere/gone.csv"
        (untrained_run / "config.json").write_text(json.dumps(config))
        assert "/nowhere/gone.csv does not exist" in refused("eval", untrained_run)

    def test_vocabulary_of_another_corpus_is_refused(self, refused, untrained_run):
        assert "has changed since run untrained was trained" in refused("eval", untrained_run)


class TestRemoving:
    def test_bundled_model_cannot_be_removed(self, refused):
        assert "bundled model" in refused("runs", "rm", "bundled", "--yes")

    def test_folder_without_a_run_is_not_removed(self, refused, tmp_path, untrained_run):
        shutil.copytree(untrained_run, tmp_path / "precious")
        (tmp_path / "precious" / "config.json").unlink()
        refused("runs", "rm", tmp_path / "precious", "--yes")
        assert (tmp_path / "precious" / "model.safetensors").is_file()
