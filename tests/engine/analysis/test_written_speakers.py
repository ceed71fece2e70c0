"""Speakers whose names are written before their lines, for models that know none."""

import numpy as np
import pytest

from engine.analysis.written_speakers import guess_written_speaker, read_script
from engine.data.tokenizers.base import EOS_ID
from engine.errors import InvalidInputError
from engine.generation.turns import Turn
from tests.support.models import ParallelReader
from tests.support.open_models import bpe_tokenizer, character_tokenizer, open_model

CAST = ("GANDALF", "Bilbo", "the wizard")
TURNS = [Turn("Bilbo", "Where is the Ring?"), Turn("GANDALF", "Safe."), Turn("Bilbo", "Oh.")]


def log_prob_after(model, before, ids):
    """Return the log-probability of `ids` after `before`, token by token."""
    log_probs, state = model.advance(model.start(), EOS_ID)
    total = 0.0
    for index, id in enumerate([*before, *ids]):
        total += float(log_probs[id]) if index >= len(before) else 0.0
        log_probs, state = model.advance(state, id)
    return total


@pytest.mark.parametrize("tokenizer", [bpe_tokenizer(), character_tokenizer()], ids=lambda each: each.name)
@pytest.mark.parametrize("eos_per_line", [True, False])
@pytest.mark.parametrize("turns", [[], TURNS])
def test_the_posterior_is_the_prior_times_the_probability_of_the_line(tokenizer, eos_per_line, turns):
    model = open_model(tokenizer, seed=3)
    text = "Where  is my pony, “friend of \n mine”?"
    guess = guess_written_speaker(model, CAST, turns, text, eos_per_line=eos_per_line)

    def encode(line):
        return [*tokenizer.encode(line).tolist(), EOS_ID] if eos_per_line else tokenizer.encode(f"{line}\n").tolist()

    before = [id for turn in turns for id in encode(f"{turn.speaker}: {turn.text}")]
    scores = []
    for name in CAST:
        label = tokenizer.encode(f"{name}:").tolist()
        line = encode(f"{name}: Where is my pony, “friend of mine”?")
        assert line[: len(label)] == label
        scores.append(log_prob_after(model, [*before, *label], line[len(label) :]))
    prior = np.array([2, 3, 1]) / 6 if turns else np.full(3, 1 / 3)
    expected = prior * np.exp(np.array(scores) - max(scores))
    assert guess.posterior == pytest.approx(expected / expected.sum(), rel=1e-4)
    assert guess.prior == pytest.approx(prior)
    assert [word.word for word in guess.words] == text.split()
    assert guess.ranking()[0].name == CAST[int(np.argmax(expected))]


def test_the_evidence_of_a_word_is_the_log_probability_of_its_tokens():
    model, tokenizer = open_model(bpe_tokenizer(), seed=3), bpe_tokenizer()
    guess = guess_written_speaker(model, CAST, [], "Where is the Ring?", eos_per_line=True)
    for index, name in enumerate(CAST):
        label, first = tokenizer.encode(f"{name}:").tolist(), tokenizer.encode(" Where").tolist()
        assert guess.words[0].evidence[index] == pytest.approx(log_prob_after(model, label, first), abs=1e-3)
        line = [*tokenizer.encode(" Where is the Ring?").tolist(), EOS_ID]
        total = sum(word.evidence[index] for word in guess.words)
        assert total == pytest.approx(log_prob_after(model, label, line), abs=1e-3)


def test_reading_many_tokens_at_once_changes_nothing():
    model = open_model(character_tokenizer(), seed=2)
    text = "We walked all night with our pony. " * 5
    arguments = (CAST, TURNS, text)
    one_by_one = guess_written_speaker(model, *arguments, eos_per_line=False)
    parallel = ParallelReader(model)
    at_once = guess_written_speaker(parallel, *arguments, eos_per_line=False)
    assert 0 < parallel.num_passes < len(text)  # each token is a character
    for expected, word in zip(one_by_one.words, at_once.words, strict=True):
        assert word.evidence == pytest.approx(expected.evidence, abs=1e-3)


def test_a_script_names_its_speakers_as_they_are_written():
    script = "Mr. Frodo: the road\nSAM: a friend\n  of mine\n\nMR. FRODO: Note: this\n"
    turns, cast = read_script(script, None, "the context")
    assert cast == ("Mr. Frodo", "SAM")
    assert turns == [Turn("Mr. Frodo", "the road"), Turn("SAM", "a friend of mine"), Turn("Mr. Frodo", "Note: this")]


def test_a_name_of_the_cast_is_found_in_any_case_and_others_stay():
    turns, cast = read_script("FRODO: the road\nPIPPIN: it is long\n", ["Frodo", " Sam  Gamgee"], "the context")
    assert cast == ("Frodo", "Sam Gamgee")
    assert turns == [Turn("Frodo", "the road"), Turn("PIPPIN", "it is long")]


def test_a_script_without_names_is_refused():
    with pytest.raises(InvalidInputError, match="the context names no speakers"):
        read_script("It was a dark night.\n", ["A", "B"], "the context")
