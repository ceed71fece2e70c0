"""Files of a dialogue run besides the network: what a played model has, copies of them, and damage in one line."""

import json
import re

import pytest

from engine.data.speakers import CAST_FILE
from engine.errors import InvalidInputError, RunError
from engine.models.dialogue import DialogueModel
from engine.runs.directory import DIALOGUE_FILE, WHO_FILE
from engine.runs.loading import load_model
from tests.support.random_dialogues import RUN_CAST, write_dialogue_run


@pytest.fixture
def run(tmp_path):
    return write_dialogue_run(tmp_path / "run")


def test_a_played_model_has_all_parts(run):
    loaded = load_model(run)
    model = loaded.model
    assert isinstance(model, DialogueModel)
    assert model.cast == RUN_CAST
    assert model.model is loaded.decoder
    assert model.turn_model is not None
    assert model.text_model is not None


def changed(name, value):
    """Return a function that replaces a value, given by its dotted path, in the JSON of a file."""

    def apply(content):
        record = json.loads(content)
        *path, last = name.split(".")
        target = record
        for key in path:
            target = target[key]
        target[last] = value
        return json.dumps(record).encode()

    return apply


DAMAGE = {
    (CAST_FILE, "empty"): lambda content: b"",
    (CAST_FILE, "another version"): changed("version", 7),
    (CAST_FILE, "a name twice"): changed("cast", ["SAM", "SAM", "A", "B", "SOMEONE"]),
    (CAST_FILE, "a control character"): changed("cast", ["SAM\x1b[31m", "B", "C", "D", "SOMEONE"]),
    (CAST_FILE, "other speakers than the turn model's"): changed("cast", ["SAM", "SOMEONE"]),
    (DIALOGUE_FILE, "deep"): lambda content: b"[" * 100_000,
    (DIALOGUE_FILE, "an unknown field"): changed("colour", "red"),
    (DIALOGUE_FILE, "a turn model of other speakers"): changed("cast", ["A", "B", "C", "D", "E"]),
    (DIALOGUE_FILE, "a negative count"): changed("lines", [3, 4, 5, -1, 2]),
    (DIALOGUE_FILE, "a speaker below the cast"): changed("successions", [[-9, 0, 1]]),
}


@pytest.mark.parametrize(("file", "damage"), DAMAGE, ids=[" ".join(key) for key in DAMAGE])
def test_damaged_files_are_refused_in_one_line(run, file, damage):
    content = (run / file).read_bytes()
    (run / file).write_bytes(DAMAGE[file, damage](content))
    with pytest.raises(InvalidInputError) as caught:
        _ = load_model(run).model
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 500


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"words": 1}', b"\x00" * 50, b'"prior": 99'])
def test_a_damaged_model_of_who_speaks_is_refused_when_it_is_used(run, damage):
    if damage.startswith(b'"prior"'):  # a power beyond all that are fitted
        damage = re.sub(rb'"prior":[\d.]+', damage, (run / WHO_FILE).read_bytes())
    (run / WHO_FILE).write_bytes(damage)
    model = load_model(run).model
    with pytest.raises(RunError, match=r"who\.json is damaged: .*; train a new run$"):
        _ = model.text_model


@pytest.mark.parametrize("file", [CAST_FILE, DIALOGUE_FILE])
def test_a_missing_file_is_named(run, file):
    (run / file).unlink()
    with pytest.raises(RunError, match=rf"{file} is missing; the run is not complete$"):
        load_model(run)
