"""Scenes of a corpus: where they end, and that they respect the blocks of the split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import DataConfig
from engine.data.build import read_corpus
from engine.data.dataset import load_dataset
from engine.data.scenes import SceneDivider, SceneRules


def number_scenes_naively(sections, max_lines, block_lines):
    """Return for each line if it starts a scene, line by line."""
    starts, length = [], 0
    for index, section in enumerate(sections):
        is_other = index == 0 or section != sections[index - 1]
        if is_other or length == max_lines or (block_lines and index % block_lines == 0):
            length = 0
        starts.append(length == 0)
        length += 1
    return starts


@given(
    steps=st.lists(st.sampled_from([0, 0, 0, 0, 1]), max_size=80),
    max_lines=st.integers(1, 12),
    block_lines=st.none() | st.integers(1, 12),
    cuts=st.lists(st.integers(0, 80), max_size=4),
)
def test_scenes_end_at_sections_blocks_and_after_their_maximum_length(steps, max_lines, block_lines, cuts):
    sections = np.cumsum(steps, dtype=np.int64)
    divider = SceneDivider(SceneRules(max_lines=max_lines, block_lines=block_lines))
    starts = [divider.find_starts(part) for part in np.split(sections, sorted(cuts))]
    expected = number_scenes_naively(sections.tolist(), max_lines, block_lines)
    assert np.concatenate(starts).tolist() == expected


ROWS = "dialog,movie,act\nabc,One,1\nabc,One ,1\nabc,Two,1\nabc,Two,2\nabc,One,2\n"
LONG = "dialog\n" + "abc\n" * 45


@pytest.mark.parametrize(
    ("content", "values", "expected"),
    [
        (ROWS, {}, [0, 0, 1, 1, 2]),
        (ROWS, {"scene_column": "act"}, [0, 0, 0, 1, 1]),
        (ROWS, {"scene_column": ""}, [0] * 5),
        (ROWS, {"scene_lines": 1}, [0, 1, 2, 3, 4]),
        ("dialog,movie\n" + "abc,One\n" * 3 + "abc,Two\n" * 5, {"scene_lines": 2}, [0, 0, 1, 2, 2, 3, 3, 4]),
        ("dialog,movie\nabc,One\n,Two\nabc,One\n", {}, [0, 1]),  # a change on a line that is left out
        ('dialog,char\nabc,A\n"",A\nabc,A\n', {}, [0, 0]),
        (LONG, {"scene_lines": 30, "split": "scenes"}, [0] * 20 + [1] * 20 + [2] * 5),  # blocks are held out
        ("abc\nabc\n\n  \nabc\n\nabc\nabc\n", {"corpus_format": "text"}, [0, 0, 1, 2, 2]),
    ],
)
def test_scenes_of_a_table_or_text(tmp_path, content, values, expected):
    path = tmp_path / "a.csv"
    path.write_text(content)
    corpus = read_corpus(DataConfig(**{"corpus": str(path), "min_characters": 0, **values}))
    assert corpus.lines.scene_ids.tolist() == expected


def test_every_file_starts_a_scene(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("abc abc\nabc abc\n")
    paths = [str(tmp_path / name) for name in ("a", "b", "c")]
    config = DataConfig(
        paths[0], "text", valid_corpus=paths[1], test_corpus=paths[2], min_characters=0, min_count=1, split="scenes"
    )
    splits = load_dataset(config).splits
    assert [part.scene_ids.tolist() for part in (splits.train, splits.valid, splits.test)] == [[0, 0], [1, 1], [2, 2]]
