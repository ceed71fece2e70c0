"""Everything that may be wrong with the files of a run: refused by name, or done without."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from engine.errors import ConfigError, RunError
from engine.runs import store
from tests.support.runs import VOCABULARY, training, write


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_cut_off_model_is_refused(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path, "r", training())
    content = (path / store.MODEL).read_bytes()
    (path / store.MODEL).write_bytes(content[:keep])
    with pytest.raises(RunError, match=store.MODEL):
        store.load(path)


def test_noise_and_impossible_headers_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training())
    header = b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,9999]}}'
    for content in (
        np.random.default_rng(0).bytes(5000),
        b"\xff" * 8,
        (2**62).to_bytes(8, "little") + b"{}",
        len(header).to_bytes(8, "little") + header,
        b"just text",
    ):
        (path / store.MODEL).write_bytes(content)
        with pytest.raises(RunError, match=store.MODEL):
            store.load(path)


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training())
    save_file({"transformer.wte.weight": np.zeros((5, 6), np.float32)}, path / store.MODEL)
    with pytest.raises(RunError, match="lacks"):
        store.load(path)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F64", "I32"])
def test_a_model_of_another_type_of_number_is_refused(tmp_path: Path, dtype: str) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    kind = {"F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64, "I32": torch.int32}[dtype]
    path = write(tmp_path, "r", training())
    tensors = {name: torch.from_numpy(value).to(kind) for name, value in load_file(path / store.MODEL).items()}
    save_torch(tensors, path / store.MODEL)
    with pytest.raises(RunError, match=r"model\.safetensors"):
        store.load(path)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training())
    tensors = load_file(path / store.MODEL)
    tensors["output.bias"][2] = math.nan
    save_file(tensors, path / store.MODEL)
    with pytest.raises(RunError, match=r"output\.bias"):
        store.load(path)


def test_a_vocabulary_of_another_size_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training())
    (path / store.VOCABULARY).write_text(json.dumps([*VOCABULARY.words, "more"]))
    with pytest.raises(RunError, match=r"embedding\.weight"):
        store.load(path)


@pytest.mark.parametrize("name", [store.CONFIG, store.VOCABULARY, store.MODEL])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, "r", training())
    (path / name).unlink()
    with pytest.raises(RunError, match=name):
        store.load(path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"preset": 3}', "[" * 100_000, "\udcff", '{"preset": "x", "data": []}']
)
@pytest.mark.parametrize("name", [store.CONFIG, store.VOCABULARY])
def test_damaged_json_is_named(tmp_path: Path, name: str, content: str) -> None:
    path = write(tmp_path, "r", training())
    (path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises((RunError, ConfigError), match=name):
        store.load(path)


@pytest.mark.parametrize("words", [["<unk>", "<eos>"], ["a", "b", "c"], ["<unk>", "<eos>", "a", "a", "b"]])
def test_lists_that_are_no_vocabulary(tmp_path: Path, words: list[str]) -> None:
    path = write(tmp_path, "r", training())
    (path / store.VOCABULARY).write_text(json.dumps(words))
    with pytest.raises(RunError, match=store.VOCABULARY):
        store.load(path)


@pytest.mark.parametrize("word", ["\x1b[31m", "two words", "<b>", "[red]", "", 3, None])
def test_words_that_are_no_words_never_reach_a_terminal(tmp_path: Path, word: Any) -> None:
    path = write(tmp_path, "r", training())
    (path / store.VOCABULARY).write_text(json.dumps(["<unk>", "<eos>", "bilbo", "is", word]))
    with pytest.raises(RunError, match="no words"):
        store.load(path)


def test_a_run_without_metrics_still_plays(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training())
    (path / store.METRICS).unlink()
    loaded = store.load(path)
    assert loaded.valid_perplexity is None
    assert loaded.kneser_ney_perplexity is None
    assert loaded.corpus_sha256 == ""
