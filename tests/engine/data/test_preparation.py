"""The on-disk cache of large corpora: equal to a dataset in memory, reused, and rebuilt when it is damaged."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from engine.config import DataConfig
from engine.data import arrays, file_scan, lines, preparation
from engine.data.dataset import load_dataset
from engine.errors import CorpusError
from engine.storage.files import cache_dir
from tests.support.datasets import dataset_content
from tests.support.file_limits import no_file_longer_than
from tests.support.files import write_sparse_file

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def small_limits(monkeypatch):
    """Lower all limits, so that a small corpus is cached on disk and processed in many chunks."""
    monkeypatch.setattr(preparation, "CACHE_THRESHOLD_BYTES", 1)
    monkeypatch.setattr(arrays, "CHUNK_SIZE", 50)
    monkeypatch.setattr(arrays, "MAX_IN_MEMORY_BYTES", 64)
    monkeypatch.setattr(lines, "BLOCK_BYTES", 200)
    monkeypatch.setattr(file_scan, "BLOCK_BYTES", 200)


@pytest.fixture
def corpus(small_limits, small_csv):
    return small_csv


def cache_entries():
    folder = cache_dir()
    return sorted(folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("tokenizer", ["words", "characters"])
@pytest.mark.parametrize("mode", ["line", "stream", "dialogue"])
def test_a_cached_dataset_equals_one_in_memory_and_is_reused(small_csv, mode, tokenizer, request):
    config = DataConfig(str(small_csv), mode=mode, tokenizer=tokenizer, scene_lines=7)
    in_memory = dataset_content(load_dataset(config))
    assert cache_entries() == []
    request.getfixturevalue("small_limits")
    assert dataset_content(load_dataset(config)) == in_memory
    (entry,) = cache_entries()
    inode = entry.stat().st_ino
    assert dataset_content(load_dataset(config)) == in_memory
    assert [each.stat().st_ino for each in cache_entries()] == [inode]


@pytest.mark.parametrize("tokenizer", ["words", "characters"])
def test_another_cast_has_its_own_cache_entry(corpus, tokenizer):
    config = DataConfig(str(corpus), mode="dialogue", tokenizer=tokenizer)
    chosen = load_dataset(config).tokenizer
    for cast in (("SPEAKER1", "SOMEONE"), ("SPEAKER0", "SOMEONE"), (*chosen.cast[::-1][1:], "SOMEONE")):
        earlier = chosen.with_cast(cast)
        for _ in range(2):
            assert load_dataset(config, earlier).tokenizer == earlier
    assert load_dataset(config).tokenizer == chosen
    assert len(cache_entries()) == 4


def test_a_change_that_keeps_size_and_modification_time_is_noticed(corpus):
    before, times = load_dataset(DataConfig(str(corpus))), corpus.stat()
    word = before.corpus.lines[0].text.split()[0]
    corpus.write_bytes(corpus.read_bytes().replace(word.encode(), word[::-1].encode(), 1))
    os.utime(corpus, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (corpus.stat().st_size, corpus.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert load_dataset(DataConfig(str(corpus))).corpus.lines[0].text.split()[0] == word[::-1]


def test_a_changed_file_or_setting_has_its_own_cache_entry(corpus):
    config = DataConfig(str(corpus))
    before = load_dataset(config)
    assert len(load_dataset(replace(config, min_count=40)).tokenizer) < len(before.tokenizer)
    corpus.write_bytes(corpus.read_bytes() + b'SAM,"And this is one line more than there was, my friend"\n')
    assert len(load_dataset(config).corpus.lines) == len(before.corpus.lines) + 1
    assert len(cache_entries()) == 3


def test_only_the_most_recently_used_entries_are_kept(corpus, tmp_path):
    for seed in range(6):
        load_dataset(DataConfig(str(corpus), split_seed=seed))
        newest_first = sorted(cache_entries(), key=lambda folder: -folder.stat().st_mtime_ns)
        for age, folder in enumerate(newest_first):
            os.utime(folder, (1_000_000 - age, 1_000_000 - age))
    assert len(cache_entries()) == preparation.MAX_CACHE_ENTRIES
    for name in ("an entry that another process deletes", ".temporary"):
        (cache_dir() / name).symlink_to(tmp_path / "missing")
    load_dataset(DataConfig(str(corpus), split_seed=6))


def test_an_unwritable_or_full_disk_is_reported_and_leaves_no_entry(corpus, home):
    with no_file_longer_than(200), pytest.raises(CorpusError, match=r"cannot be cached in .*File too large"):
        load_dataset(DataConfig(str(corpus)))
    assert not cache_entries()
    cache_dir().rmdir()
    home.rmdir()
    home.write_text("a file where the folder should be")
    with pytest.raises(CorpusError, match=r"cannot be cached in .*LOTR_TUI_HOME"):
        load_dataset(DataConfig(str(corpus)))


@pytest.mark.usefixtures("small_limits")
def test_an_unusable_corpus_leaves_no_entry(tmp_path):
    path = tmp_path / "few.txt"
    path.write_text("only one line of some length\n")
    with pytest.raises(CorpusError, match="cannot be split"):
        load_dataset(DataConfig(str(path), corpus_format="text"))
    assert cache_entries() == []


def set_element(name, dtype, value, index=-1):
    """Return a function that changes one element of an array of a cache entry."""

    def damage(folder):
        array = np.fromfile(folder / name, dtype)
        array[index] = value
        array.tofile(folder / name)

    return damage


def set_metadata(key, value):
    """Return a function that changes one value of the metadata of a cache entry."""

    def damage(folder):
        metadata = json.loads((folder / "metadata.json").read_text())
        (metadata["stats"] if key in metadata["stats"] else metadata)[key] = value
        (folder / "metadata.json").write_text(json.dumps(metadata))

    return damage


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


DAMAGED_METADATA = {
    "file_sizes": [[]],
    "split_ends": [[], [float("inf"), 1], [10, 10**9]],
    "speaker_names": [[1, 2, 3, 4]],
    "split_sizes": [[0, 0, 0]],
    "num_tokens": ["many"],
    "longest_line_index": [10**6],
    "num_rows": ["\x1b"],
    "marks": [["VOICE OVER"]],
    "cast": [[], ["SOMEONE"], ["SPEAKER0"], ["SPEAKER0", "SPEAKER0", "SOMEONE"], ["\x1b[2J", "SPEAKER0", "SOMEONE"]],
}
DAMAGES = {
    **{f"{key} {value}": set_metadata(key, value) for key, values in DAMAGED_METADATA.items() for value in values},
    "truncated": lambda folder: os.truncate(folder / "punctuation", 5),
    "missing file": lambda folder: (folder / "text").unlink(),
    "no JSON": write("metadata.json", b"{"),
    "deep nesting": write("metadata.json", b"[" * 100_000),
    "a list": write("metadata.json", b"[]"),
    "gigabytes": lambda folder: write_sparse_file(folder / "metadata.json"),
    "no vocabulary": write("vocabulary.json", b'["\\u001b"]'),
    "millions of values": write("metadata.json", b"[" + b"[]," * 4_000_001 + b"[]]"),
    "millions of words": write("vocabulary.json", b"[" + b"[]," * 4_000_001 + b"[]]"),
    "id": set_element("ids", np.int32, 1_000_000, 3),
    "line index": set_element("split_indices", np.int32, 10**6),
    "line index of a training line": set_element("train_line_indices", np.int32, -5),
    "line offset": set_element("train_line_offsets", np.int64, -(2**40)),
    "punctuation": set_element("punctuation", np.uint8, 200),
    "text offset": set_element("offsets", np.int64, 2**40, 5),
    "speaker": set_element("speaker_ids", np.int32, 99),
    "scene": set_element("scene_ids", np.int32, 99),
    "scene before the first": set_element("scene_ids", np.int32, -1, 0),
    "scene offset": set_element("train_scene_offsets", np.int64, 3, 1),
    "last scene offset": set_element("train_scene_offsets", np.int64, 2**40),
    "first scene offset": set_element("train_scene_offsets", np.int64, 1, 0),
    "no scenes": write("train_scene_offsets", b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_entry_is_rebuilt(corpus, damage):
    config = DataConfig(str(corpus), mode="dialogue")
    before = dataset_content(load_dataset(config))
    (folder,) = cache_entries()
    intact = {path.name: path.read_bytes() for path in folder.iterdir()}
    DAMAGES[damage](folder)
    assert dataset_content(load_dataset(config)) == before
    assert cache_entries() == [folder]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == intact


def test_invalid_utf8_in_a_cached_text_becomes_a_replacement_character(corpus):
    load_dataset(DataConfig(str(corpus)))
    (folder,) = cache_entries()
    set_element("text", np.uint8, 0xFF, 7)(folder)
    assert "\N{REPLACEMENT CHARACTER}" in load_dataset(DataConfig(str(corpus))).corpus.lines[0].text


def test_an_entry_is_synced_to_disk_before_it_gets_its_name(corpus, monkeypatch):
    """After a power cut, files without sync have the right size but no content."""
    synced = set()

    def record(file):
        if all(entry.name.startswith(".") for entry in cache_entries()):
            synced.add(os.fstat(file).st_ino)

    monkeypatch.setattr(os, "fsync", record)
    load_dataset(DataConfig(str(corpus)))
    (folder,) = cache_entries()
    assert {path.stat().st_ino for path in (folder, *folder.iterdir())} <= synced
