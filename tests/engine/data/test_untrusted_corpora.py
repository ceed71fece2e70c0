"""Corpora and cache entries from untrusted sources are bounded, and refused or rebuilt when they are damaged."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.config import DataConfig
from engine.data import preparation
from engine.data.corpus import read_csv
from engine.data.dataset import load_dataset
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import CorpusError, RunError
from engine.storage.files import cache_dir
from tests.support.datasets import dataset_content
from tests.support.files import write_sparse_file


@pytest.mark.parametrize(("columns", "refused"), [(999, False), (1000, True), (60_000, True)])
def test_a_table_of_too_many_columns_is_refused(tmp_path: Path, columns: int, refused: bool) -> None:
    path = tmp_path / "a.csv"
    path.write_text("dialog" + ",a" * columns + "\na line that is long enough for it" + ",1" * columns + "\n")
    if refused:
        with pytest.raises(CorpusError, match="has a header of over 100,000 characters or 1,000 columns"):
            read_csv(path, "dialog", "char", 20)
    else:
        assert read_csv(path, "dialog", "char", 20).num_rows == 1


def test_a_table_with_an_endless_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"dialog,{'a' * 100_000},{'b,' * 10_000}\na line that is long enough for it\n")
    with pytest.raises(CorpusError, match="has a header of over 100,000 characters"):
        read_csv(path, "dialog", "char", 20)


@pytest.mark.parametrize("header", ['char,"dialog\n"', '"char\n",dialog,a', 'a,"dialog\nof all"'])
def test_a_table_whose_header_has_several_lines_is_refused(tmp_path: Path, header: str) -> None:
    """The first line alone would name another column, or none."""
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\nSAM,a line that is long enough for it\n")
    with pytest.raises(CorpusError, match=r"a quote in its header ends on another line|has no column 'dialog'"):
        read_csv(path, "dialog", "char", 20)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_corpus_with_an_invalid_path_is_refused(name: str) -> None:
    with pytest.raises(CorpusError, match="does not exist"):
        load_dataset(DataConfig(corpus=name))


def test_a_vocabulary_of_millions_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.data.tokenizers.words.json.loads", lambda text: pytest.fail("parsed"))
    with pytest.raises(RunError, match="more than 1,000,000"):
        WordTokenizer.from_json("[" + "[]," * 2_000_001 + "[]]", "a file")


# Cache entries

Damage = Callable[[Path], object]


def edit_metadata(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Return a function that changes the metadata of a cache entry."""

    def damage(folder: Path) -> None:
        path = folder / "metadata.json"
        metadata = json.loads(path.read_text())
        change(metadata)
        path.write_text(json.dumps(metadata))

    return damage


def set_element(name: str, dtype: Any, value: int, index: int = -1) -> Damage:
    """Return a function that changes one element of an array of a cache entry."""

    def damage(folder: Path) -> None:
        array = np.fromfile(folder / name, dtype)
        array[index] = value
        array.tofile(folder / name)

    return damage


DAMAGES: dict[str, Damage] = {
    "deep nesting": lambda folder: (folder / "metadata.json").write_text("[" * 100_000),
    "a list": lambda folder: (folder / "metadata.json").write_text("[]"),
    "gigabytes": lambda folder: write_sparse_file(folder / "metadata.json"),
    "file sizes in a list": edit_metadata(lambda metadata: metadata.update(file_sizes=[])),
    "no split ends": edit_metadata(lambda metadata: metadata.update(split_ends=[])),
    "infinite split ends": edit_metadata(lambda metadata: metadata.update(split_ends=[float("inf"), 1])),
    "split ends outside": edit_metadata(lambda metadata: metadata.update(split_ends=[10, 10**9])),
    "no vocabulary": lambda folder: (folder / "vocabulary.json").write_text('["\\u001b"]'),
    "speakers": edit_metadata(lambda metadata: metadata.update(speaker_names=[1, 2, 3, 4])),
    "split sizes": edit_metadata(lambda metadata: metadata.update(split_sizes=[0, 0, 0])),
    "statistics": edit_metadata(lambda metadata: metadata["stats"].update(num_tokens="many")),
    "longest line": edit_metadata(lambda metadata: metadata["stats"].update(longest_line_index=10**6)),
    "number of rows": edit_metadata(lambda metadata: metadata.update(num_rows="\x1b")),
    "line index": set_element("split_indices", np.int32, 10**6),
    "line index of a training line": set_element("train_line_indices", np.int32, -5),
    "line offset": set_element("train_line_offsets", np.int64, -(2**40)),
    "punctuation": set_element("punctuation", np.uint8, 200),
    "text offset": set_element("offsets", np.int64, 2**40, 5),
    "speaker": set_element("speaker_ids", np.int32, 99),
    "scene": set_element("scene_ids", np.int32, 99),
    "scene before the first": set_element("scene_ids", np.int32, -1, 0),
    "marks": edit_metadata(lambda metadata: metadata.update(marks=["VOICE OVER"])),
}
DAMAGES_OF_DIALOGUES: dict[str, Damage] = {
    "no cast": edit_metadata(lambda metadata: metadata.update(cast=[])),
    "one speaker": edit_metadata(lambda metadata: metadata.update(cast=["SOMEONE"])),
    "cast without someone": edit_metadata(lambda metadata: metadata["cast"].pop()),
    "speaker twice": edit_metadata(lambda metadata: metadata["cast"].__setitem__(0, metadata["cast"][1])),
    "speaker with a control character": edit_metadata(lambda metadata: metadata["cast"].__setitem__(0, "\x1b[2J")),
    "scene offset": set_element("train_scene_offsets", np.int64, 3, 1),
    "last scene offset": set_element("train_scene_offsets", np.int64, 2**40),
    "first scene offset": set_element("train_scene_offsets", np.int64, 1, 0),
    "no scenes": lambda folder: (folder / "train_scene_offsets").write_bytes(b""),
}


@pytest.fixture
def cached_config(small_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    """Configuration of a corpus that is cached although it is small."""
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(preparation, "CACHE_THRESHOLD_BYTES", 1)
    return DataConfig(corpus=str(small_csv))


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_cache_entry_is_rebuilt(cached_config: DataConfig, kind: str) -> None:
    before = dataset_content(load_dataset(cached_config))
    (folder,) = cache_dir().iterdir()
    intact = {path.name: path.read_bytes() for path in folder.iterdir()}
    DAMAGES[kind](folder)
    assert dataset_content(load_dataset(cached_config)) == before
    (folder,) = cache_dir().iterdir()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == intact


@pytest.mark.parametrize("kind", DAMAGES_OF_DIALOGUES)
def test_a_damaged_cache_entry_of_a_dialogue_is_rebuilt(cached_config: DataConfig, kind: str) -> None:
    config = replace(cached_config, mode="dialogue")
    before = dataset_content(load_dataset(config))
    (folder,) = cache_dir().iterdir()
    intact = {path.name: path.read_bytes() for path in folder.iterdir()}
    DAMAGES_OF_DIALOGUES[kind](folder)
    assert dataset_content(load_dataset(config)) == before
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == intact


@pytest.mark.parametrize("name", ["metadata.json", "vocabulary.json"])
def test_a_cache_entry_with_millions_of_values_is_not_parsed(
    cached_config: DataConfig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = dataset_content(load_dataset(cached_config))
    (folder,) = cache_dir().iterdir()
    (folder / name).write_bytes(b"[" + b"[]," * 4_000_001 + b"[]]")
    parsed: list[int] = []
    decode_json, loads = preparation.decode_json, json.loads
    monkeypatch.setattr(
        preparation, "decode_json", lambda type_, text: parsed.append(len(text)) or decode_json(type_, text)
    )
    monkeypatch.setattr(json, "loads", lambda text: parsed.append(len(text)) or loads(text))
    assert dataset_content(load_dataset(cached_config)) == before
    assert max(parsed, default=0) < 1_000_000


def test_invalid_utf8_in_a_cached_text_becomes_a_replacement_character(cached_config: DataConfig) -> None:
    load_dataset(cached_config)
    (folder,) = cache_dir().iterdir()
    set_element("text", np.uint8, 0xFF, 7)(folder)
    assert "\N{REPLACEMENT CHARACTER}" in load_dataset(cached_config).corpus.lines[0].text
