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


@pytest.mark.usefixtures("small_limits")
def test_a_script_and_its_marks_are_cached(tmp_path):
    path = tmp_path / "script.txt"
    path.write_text("SAM: the old mill\nFRODO (V.O.): the old road\nSAM: more\nOF IT: all\n\n" * 50)
    config = DataConfig(str(path), "text", mode="dialogue", min_characters=-1, split="scenes")
    built = load_dataset(config)
    assert dataset_content(load_dataset(config)) == dataset_content(built)
    assert dict(built.corpus.marks) == {"VOICE OVER": 50}
    assert built.tokenizer.cast == ("SAM", "FRODO", "OF IT", "SOMEONE")


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


@pytest.mark.usefixtures("small_limits")
def test_a_corpus_of_three_files_is_cached(tmp_path):
    paths = [tmp_path / name for name in ("train", "valid", "test")]
    for number, path in enumerate(paths):
        path.write_text("".join(f"mr. N said <unk> {number} , éh\n" for _ in range(9 + number)))
    names = dict(zip(("corpus", "valid_corpus", "test_corpus"), map(str, paths), strict=True))
    config = DataConfig(**names, corpus_format="text", tokenizer="whitespace", min_characters=0, min_count=1)
    built, loaded = load_dataset(config), load_dataset(config)
    assert dataset_content(built) == dataset_content(loaded)
    assert (len(built.splits.train), len(built.splits.valid), len(built.splits.test)) == (9, 10, 11)


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


def edit_metadata(change):
    """Return a function that changes the metadata of a cache entry."""

    def damage(folder):
        path = folder / "metadata.json"
        metadata = json.loads(path.read_text())
        change(metadata)
        path.write_text(json.dumps(metadata))

    return damage


def set_element(name, dtype, value, index=-1):
    """Return a function that changes one element of an array of a cache entry."""

    def damage(folder):
        array = np.fromfile(folder / name, dtype)
        array[index] = value
        array.tofile(folder / name)

    return damage


DAMAGES = {
    "truncated": lambda folder: os.truncate(folder / "punctuation", 5),
    "missing file": lambda folder: (folder / "text").unlink(),
    "no JSON": lambda folder: (folder / "metadata.json").write_text("{"),
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
    "id": set_element("ids", np.int32, 1_000_000, 3),
    "line index": set_element("split_indices", np.int32, 10**6),
    "line index of a training line": set_element("train_line_indices", np.int32, -5),
    "line offset": set_element("train_line_offsets", np.int64, -(2**40)),
    "punctuation": set_element("punctuation", np.uint8, 200),
    "text offset": set_element("offsets", np.int64, 2**40, 5),
    "speaker": set_element("speaker_ids", np.int32, 99),
    "scene": set_element("scene_ids", np.int32, 99),
    "scene before the first": set_element("scene_ids", np.int32, -1, 0),
    "marks": edit_metadata(lambda metadata: metadata.update(marks=["VOICE OVER"])),
    "no cast": edit_metadata(lambda metadata: metadata.update(cast=[])),
    "one speaker": edit_metadata(lambda metadata: metadata.update(cast=["SOMEONE"])),
    "cast without someone": edit_metadata(lambda metadata: metadata["cast"].pop()),
    "speaker twice": edit_metadata(lambda metadata: metadata["cast"].__setitem__(0, metadata["cast"][1])),
    "speaker with a control character": edit_metadata(lambda metadata: metadata["cast"].__setitem__(0, "\x1b[2J")),
    "scene offset": set_element("train_scene_offsets", np.int64, 3, 1),
    "last scene offset": set_element("train_scene_offsets", np.int64, 2**40),
    "first scene offset": set_element("train_scene_offsets", np.int64, 1, 0),
    "no scenes": lambda folder: (folder / "train_scene_offsets").write_bytes(b""),
    "millions of values": lambda folder: (folder / "metadata.json").write_bytes(b"[" + b"[]," * 4_000_001 + b"[]]"),
    "millions of words": lambda folder: (folder / "vocabulary.json").write_bytes(b"[" + b"[]," * 4_000_001 + b"[]]"),
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
