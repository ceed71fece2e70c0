"""Who says what: the scores of each speaker's lines and the posterior over the cast, against whole texts."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis import speakers
from engine.analysis.speakers import SpeakerPosterior, evaluate_by_speaker, guess_written_speaker
from engine.config import ModelConfig
from engine.data.dataset import load_dataset
from engine.data.scripts import Turn, encode_speaker, encode_turns
from engine.data.tokenizers import EOS_ID, CharacterTokenizer
from engine.errors import CorpusError
from engine.generation.generate import DecoderState, prefill
from engine.generation.turns import next_speaker_probs, read_turns
from engine.models.base import score_sequence
from engine.models.dialogue import DialogueModel, DialogueState, EvidencePowers, SpeakerTextModel, TurnState
from engine.runs.directory import read_config
from engine.runs.loading import read_dialogue_parts
from engine.storage.files import assets_dir
from engine.training.job import spoken_scenes
from tests.support.models import ParallelReader, TokenByTokenModel, random_lstm
from tests.support.open_models import bpe_tokenizer, character_tokenizer, open_model
from tests.support.random_dialogues import (
    CAST,
    KNESER_NEY,
    LSTM,
    TOKENIZER,
    TRAIN_SCENES,
    TREES,
    TURN_MODEL,
    encode_scenes,
    random_scenes,
    spoken,
)

HEADS = [encode_speaker(TOKENIZER, name) for name in CAST]


@pytest.mark.parametrize("inner", [LSTM, KNESER_NEY], ids=["lstm", "kneser-ney"])
def test_scores_are_those_of_each_line(inner):
    model = DialogueModel(inner, CAST, TURN_MODEL)
    scenes = [*random_scenes(5, seed=5), [Turn("ELROND", "oak elm"), Turn("SAM", "fir")]]
    ids, log_probs = encode_scenes(scenes), score_sequence(inner, encode_scenes(scenes))
    nats, tokens, texts, turn_nats, hits, position = Counter(), Counter(), {}, [], [], 0
    for scene in scenes:
        turns = TurnState()
        position += bool(position)  # an empty line
        for turn in scene:
            line = spoken([[turn if turn.speaker in CAST else Turn("SOMEONE", turn.text)]])[0][0]
            turn_nats.append(-TURN_MODEL.log_probs(turns)[line.speaker])
            hits.append(int(TURN_MODEL.log_probs(turns).argmax()) == line.speaker)
            turns = turns.after(line, CAST)
            said = TOKENIZER.encode(f" {turn.text}\n")
            position += len(TOKENIZER.encode(f"{turn.speaker.title()}:"))
            assert ids[position : position + len(said)].tolist() == said.tolist()
            nats[turn.speaker] -= log_probs[position : position + len(said)].sum()
            tokens[turn.speaker] += len(said)
            texts.setdefault(turn.speaker, []).append(turn.text)
            position += len(said)
    evaluation = evaluate_by_speaker(model, scenes)
    assert {scores.speaker: scores.tokens for scores in evaluation.speakers} == tokens
    assert [scores.tokens for scores in evaluation.speakers] == sorted(tokens.values(), reverse=True)
    for scores in evaluation.speakers:
        name, lines = scores.speaker, texts[scores.speaker]
        assert scores.lines == len(lines)
        assert scores.characters == sum(len(line) + 1 for line in lines)
        assert scores.perplexity == pytest.approx(math.exp(nats[name] / tokens[name]), rel=1e-4)
        bits = nats[name] / math.log(2) / scores.characters
        assert scores.bits_per_character == pytest.approx(bits, rel=1e-4)
    assert evaluation.next_speaker.turns == len(turn_nats)
    assert evaluation.next_speaker.bits_per_turn == pytest.approx(np.mean(turn_nats) / math.log(2))
    assert evaluation.next_speaker.accuracy == np.mean(hits)
    with pytest.raises(CorpusError, match="no line to score"):
        evaluate_by_speaker(model, [])


POWERS = (EvidencePowers(0.7, 1.2), EvidencePowers(0.9, 0.6))
TEXT_MODEL = replace(SpeakerTextModel.fit(len(CAST), spoken(TRAIN_SCENES)), powers=POWERS)
MODELS = [DialogueModel(LSTM, CAST, TURN_MODEL), DialogueModel(KNESER_NEY, CAST, TURN_MODEL, lambda: TEXT_MODEL)]
CONTEXT = (Turn("FRODO", "oak elm"), Turn("GOLLUM", "fir yew"))
WORDS = st.lists(st.sampled_from([*TREES, "unknown"]), max_size=6)
by_model = pytest.mark.parametrize("model", MODELS, ids=["lstm", "kneser-ney and text"])


def brute_force(model, context, text, *, is_complete=False, by_language_model=False):
    before = encode_turns(TOKENIZER, context)
    counts = Counter(line.speaker for scene in spoken(TRAIN_SCENES) for line in scene)
    prior = np.array([counts[index] + 1.0 for index in range(len(CAST))])
    if context:
        probs = {speaker.name: speaker.prob for speaker in next_speaker_probs(model, prefill(model, before))}
        prior = np.array([probs[name] for name in CAST])
    if model is MODELS[1] and not by_language_model:
        powers = POWERS[bool(context)]
        joint = powers.prior * np.log(prior) + powers.text * (TEXT_MODEL.scores(text) if text else 0)
    else:
        words = f" {text}" if text else ""
        ids = TOKENIZER.encode(f"{words}\n" if is_complete else words).tolist()
        starts = [[*before, *head] for head in HEADS]
        scores = [score_sequence(model, np.array([*start, *ids], np.int32))[len(start) :].sum() for start in starts]
        joint = np.log(prior) + scores
    joint = np.exp(joint - max(joint))
    return joint / joint.sum()


@by_model
@pytest.mark.parametrize("context", [CONTEXT, ()], ids=["scene", "unknown scene"])
@settings(max_examples=8, deadline=None)
@given(words=WORDS, is_complete=st.booleans(), by_lm=st.booleans())
def test_posteriors_follow_from_bayes_rule(model, context, words, is_complete, by_lm):
    state = read_turns(model, context) if context else None
    posterior = SpeakerPosterior(model, state, by_language_model=by_lm)
    guess = posterior.update("  ".join(words), is_complete=is_complete)
    assert guess.prior == pytest.approx(brute_force(model, context, "", by_language_model=by_lm), rel=1e-4)
    assert [evidence.word for evidence in guess.words] == words
    for number, evidence in enumerate(guess.words, start=1):
        is_ended = is_complete and number == len(words)
        text = " ".join(words[:number])
        expected = brute_force(model, context, text, is_complete=is_ended, by_language_model=by_lm)
        assert evidence.posterior == pytest.approx(expected, rel=5e-3)  # <eos> ends a line too
    assert guess.posterior.tolist() == (guess.words[-1].posterior if words else guess.prior).tolist()


@pytest.mark.parametrize("is_known_scene", [False, True])
def test_probabilities_of_the_included_model_come_true_on_held_out_lines(is_known_scene):
    folder = assets_dir() / "model"
    model = read_dialogue_parts(folder)(LSTM)
    test = load_dataset(read_config(folder).with_values(tokenizer="characters").data).splits.test
    confidences, hits = [], []
    for scene in spoken_scenes(test, model.cast):
        turns = TurnState()
        for line in scene:
            context = DecoderState(None, DialogueState(None, turns)) if is_known_scene else None
            probs = SpeakerPosterior(model, context).update(line.text, is_complete=True).posterior
            confidences.append(max(probs))
            hits.append(probs.argmax() == line.speaker)
            turns = turns.after(line, model.cast)
    error = 0.0  # the expected calibration error, with ten bins of equal width (Guo et al. 2017)
    for start in range(10):
        bin = [i for i, confidence in enumerate(confidences) if start <= 10 * confidence < start + 1 + (start == 9)]
        error += abs(sum(confidences[i] for i in bin) - sum(hits[i] for i in bin)) / len(hits)
    assert len(hits) == 680
    assert error < 0.05
    assert np.mean(hits) > (0.7 if is_known_scene else 0.36)


class CountingModel(DialogueModel):
    num_batches = 0

    def advance_batch(self, states, tokens):
        self.num_batches += 1
        return super().advance_batch(states, tokens)


def test_one_more_word_costs_one_batch_and_the_states_of_a_long_text_are_bounded(monkeypatch):
    monkeypatch.setattr(speakers, "MAX_STEPS", 4)
    model = CountingModel(LSTM, CAST, TURN_MODEL)
    posterior = SpeakerPosterior(model)
    words = ["oak", "elm", "fir", "ash", "yew"] * 4

    def num_batches(words):
        before = model.num_batches
        text = " ".join(words)
        assert posterior.update(text).posterior == pytest.approx(brute_force(MODELS[0], (), text), rel=1e-3)
        return model.num_batches - before

    num_batches(words)
    assert num_batches([*words, "oak"]) == 1
    assert num_batches([*words, "oak"]) == num_batches(words) == 0
    assert num_batches([*words, "bay", "bay"]) == 2
    assert num_batches([*words[:10], "bay", *words[11:]]) == 20  # the states before the edited word are not kept


@by_model
def test_gains_are_changes_of_the_log_odds(model):
    guess = SpeakerPosterior(model, read_turns(model, CONTEXT)).update("yew oak fir")
    leader = int(guess.posterior.argmax())
    before = guess.prior
    for evidence in guess.words:
        odds = [probs[leader] / (1 - probs[leader]) for probs in (before, evidence.posterior)]
        assert evidence.gain == pytest.approx(np.log(odds[1] / odds[0]), rel=1e-6)
        before = evidence.posterior
    ranking = guess.ranking()
    assert ranking[0].name == CAST[leader]
    assert [speaker.prob for speaker in ranking] == sorted(guess.posterior.tolist(), reverse=True)


def test_tokens_inside_a_word_belong_to_the_word():
    tokenizer = CharacterTokenizer([])
    model = DialogueModel(random_lstm(ModelConfig(embedding_size=5, hidden_size=5), tokenizer), CAST)
    guess = SpeakerPosterior(model).update("ab ca. b")
    assert [evidence.word for evidence in guess.words] == ["ab", "ca.", "b"]
    for evidence, text in zip(guess.words, ("ab", "ab ca.", "ab ca. b"), strict=True):
        scores = [
            score_sequence(model, np.array([*head, *tokenizer.encode(f" {text}")], np.int32))[len(head) :].sum()
            for head in (encode_speaker(tokenizer, name) for name in CAST)
        ]
        assert np.log(evidence.posterior) - np.log(evidence.posterior[0]) == pytest.approx(
            np.array(scores) - scores[0], abs=1e-3
        )


WRITTEN_CAST = ("GANDALF", "Bilbo", "the wizard")
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
@pytest.mark.parametrize(("turns", "reader"), [([], TokenByTokenModel), (TURNS, ParallelReader)])
def test_the_posterior_is_the_prior_times_the_probability_of_the_line(tokenizer, eos_per_line, turns, reader):
    model = reader(open_model(tokenizer, seed=3))
    text = "Where  is my pony, “friend of \n mine”?"
    guess = guess_written_speaker(model, WRITTEN_CAST, turns, text, eos_per_line=eos_per_line)

    def encode(line):
        return [*tokenizer.encode(line).tolist(), EOS_ID] if eos_per_line else tokenizer.encode(f"{line}\n").tolist()

    before = [id for turn in turns for id in encode(f"{turn.speaker}: {turn.text}")]
    scores = []
    for name in WRITTEN_CAST:
        label = tokenizer.encode(f"{name}:").tolist()
        line = encode(f"{name}: Where is my pony, “friend of mine”?")
        assert line[: len(label)] == label
        scores.append(log_prob_after(model, [*before, *label], line[len(label) :]))
    prior = np.array([2, 3, 1]) / 6 if turns else np.full(3, 1 / 3)
    expected = prior * np.exp(np.array(scores) - max(scores))
    assert guess.posterior == pytest.approx(expected / expected.sum(), rel=1e-4)
    assert guess.prior == pytest.approx(prior)
    assert [word.word for word in guess.words] == text.split()
    assert guess.ranking()[0].name == WRITTEN_CAST[int(np.argmax(expected))]
