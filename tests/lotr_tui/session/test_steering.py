"""What `/steer` and `--steer` name: a speaker of the training text, or two files of lines, and a strength."""

import numpy as np
import pytest

from engine.errors import LotrError
from engine.models.base import score_sequence
from lotr_tui.session.read_text import NextTokenContext
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.steering import NO_EFFECT, Steering
from tests.support.dialogues import with_cast
from tests.support.networks import random_transformer
from tests.support.open_models import bpe_tokenizer, open_model

NETWORK = random_transformer(bpe_tokenizer(), num_layers=3)
PLAIN = SessionModel("plain", "", with_cast(NETWORK), source="hf:plain")  # which takes the bundled dialogues
IDS = np.array(NETWORK.tokenizer.encode("Where is Frodo?"), np.int32)


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_speaker_steers_at_a_strength_until_another_one_does_or_it_is_off():
    text = NextTokenContext(PLAIN.model, IDS.tolist())
    search = Steering("gollum:0.5", PLAIN, text)
    gollum = search()
    assert gollum.strengths == {"steer Gollum": 0.5}
    assert search.describe_briefly() == "steering to gollum: 100 %"
    assert search.effect.startswith("steer Gollum · strength 1 moves layer 2 of 3, the best of those tried, by 16 % of")
    assert search.effect.partition("next word: ")[2].count("%") == 6
    assert NO_EFFECT in search.effect  # of random weights
    again = Steering("GOLLUM:1.5", gollum, text)
    assert (again().strengths, again().vector, again.effect) == ({"steer Gollum": 1.5}, gollum.vector, "")
    sam = Steering("Sam", gollum)()
    assert sam.strengths == {"steer Sam": 1}
    scores = [score_sequence(each.model.model, IDS) for each in (PLAIN, gollum, sam)]
    assert abs(scores[1] - scores[0]).max() > 0.01 < abs(scores[2] - scores[1]).max()
    assert (score_sequence(gollum.with_strengths({"steer Gollum": 0}).model.model, IDS) == scores[0]).all()
    assert Steering("off", sam)() is PLAIN


def test_two_files_steer_to_the_lines_of_the_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "good.txt", *["What a fine day!"] * 9, "")
    write(tmp_path / "bad.txt", *["All is lost."] * 9)
    vectors = []
    for argument in ("good.txt bad.txt", f"{tmp_path}/good.txt, bad.txt:1.5"):
        steered = Steering(argument, PLAIN)()
        ((name, strength),) = steered.strengths.items()
        vectors.append((name, strength))
    assert vectors == [("steer good.txt", 1), ("steer good.txt", 1.5)]


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("golum", "speaker 'golum' is not in the cast of this model; did you mean GOLLUM?"),
        ("a.txt,b.txt:nan", "strength 'nan' is out of range"),
        ("Gollum:2", "strength '2' is out of range; use 0 (not steered) to 1.5; 1 is the usual strength"),
        ("Sauron", "speaker 'Sauron' is not in the cast of this model; use one of"),
        ("off", "the model is not steered"),
        ("none.txt good.txt", "none.txt does not exist"),
        ("empty.txt good.txt", "empty.txt is empty"),
        ("few.txt good.txt", "1 lines are too few for a vector; use 8 or more of each kind"),
        ("good.txt binary.txt", "binary.txt is UTF-16 or a binary file"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path, monkeypatch, argument, problem):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "good.txt", *["What a fine day!"] * 9)
    write(tmp_path / "few.txt", "What a fine day!")
    write(tmp_path / "empty.txt")
    (tmp_path / "binary.txt").write_bytes(bytes(99))
    with pytest.raises(LotrError) as error:
        Steering(argument, PLAIN)()
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_without_layers_is_refused():
    lstm = SessionModel("lstm", "", with_cast(open_model(bpe_tokenizer())), source="hf:lstm")
    with pytest.raises(LotrError, match="only a Transformer of two layers or more can be steered"):
        Steering("Gollum", lstm)()
