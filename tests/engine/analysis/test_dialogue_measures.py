"""Measures of dialogue models and the posterior over the cast against probabilities of whole texts."""

import math
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis import speaker_posterior
from engine.analysis.bits_per_character import EncodedText, convert_text, spelling_bits
from engine.analysis.dialogue_measures import (
    ContextReader,
    bits_by_context,
    next_line_accuracy,
    next_speaker_accuracy,
)
from engine.analysis.speaker_evaluation import evaluate_by_speaker
from engine.analysis.speaker_posterior import MODEL_WEIGHT, MODEL_WEIGHT_WITH_TEXT, SpeakerPosterior
from engine.analysis.written_speakers import guess_written_speaker, read_script
from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS_ID
from engine.data.tokenizers.characters import CharacterTokenizer
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import CorpusError, InvalidInputError
from engine.generation.prompt import prefill
from engine.generation.turns import Turn, encode_turns, next_speaker_probs, read_turns
from engine.models.base import score_sequence
from engine.models.dialogue import DialogueModel
from engine.models.ngram import KneserNey
from engine.training.speaker_text import fit_speaker_text
from tests.support.models import ParallelReader, TokenByTokenModel, random_lstm
from tests.support.open_models import bpe_tokenizer, character_tokenizer, open_model
from tests.support.random_dialogues import (
    CAST,
    KNESER_NEY,
    LSTM,
    SPEAKER_IDS,
    TOKENIZER,
    TRAIN_SCENES,
    TURN_MODEL,
    encode_scenes,
    random_scenes,
)

MODEL = DialogueModel(KNESER_NEY, TURN_MODEL)
SCENES = [[Turn(CAST[line.speaker], line.text) for line in scene] for scene in random_scenes(8, seed=5)]


def text_bits(model, context, turn):
    """Return the bits of a turn after a context, from the scores of the whole text."""
    before = encode_turns(TOKENIZER, context)
    ids = np.array([*before, *encode_turns(TOKENIZER, [turn])], np.int32)
    return float(-score_sequence(model, ids)[len(before) + 1 :].sum() / np.log(2))


@pytest.mark.parametrize("model", [MODEL, DialogueModel(LSTM)], ids=["kneser-ney", "lstm"])
def test_bits_after_the_true_context_and_none_are_those_of_the_text(model):
    columns = bits_by_context(ContextReader(model, SCENES))
    turns = [(scene[:position], turn) for scene in SCENES for position, turn in enumerate(scene)]
    assert columns["true"] == pytest.approx([text_bits(model, *each) for each in turns], abs=1e-3)
    assert columns["none"] == pytest.approx([text_bits(model, (), turn) for _, turn in turns], abs=1e-3)
    assert columns["characters"].tolist() == [len(turn.text) + 1 for _, turn in turns]
    is_first = np.array([not context for context, _ in turns])
    assert np.array_equal(columns["random"][is_first], columns["none"][is_first])
    assert not np.allclose(columns["random"][~is_first], columns["true"][~is_first])


def test_speakers_who_always_alternate_are_always_predicted():
    lines = [[Turn(CAST[position % 2], "w2") for position in range(6)] for _ in range(5)]
    ids = np.array([id for scene in lines for id in (*encode_turns(TOKENIZER, scene), EOS_ID)], np.int32)
    reader = ContextReader(DialogueModel(KneserNey(ids, TOKENIZER)), lines)
    assert next_speaker_accuracy(reader, CAST[:2]) == 1.0
    assert next_speaker_accuracy(reader, CAST[1:2]) == 1.0


@pytest.mark.parametrize("speakers_shown", [True, False])
def test_a_model_of_the_held_out_scenes_finds_their_next_lines(speakers_shown):
    """After four words that occur only here, the next line is nearly certain; shuffled contexts are of no use."""
    words = TOKENIZER.tokens[2:8]
    scenes = [
        [Turn(CAST[i % 3], f"{words[i]} {words[j]}"), Turn(CAST[j % 3], f"{words[j]} {words[i]}")]
        for i, j in permutations(range(6), 2)
    ]
    ids = np.array([id for scene in scenes * 4 for id in (*encode_turns(TOKENIZER, scene), EOS_ID)], np.int32)
    model = DialogueModel(KneserNey(ids, TOKENIZER, order=6))
    ranks = next_line_accuracy(ContextReader(model, scenes), speakers_shown=speakers_shown, num_candidates=5)
    assert ranks.num_places == 30
    assert ranks.by_gain > 0.8
    unrelated = DialogueModel(KneserNey(encode_scenes(random_scenes(60)), TOKENIZER, order=1))
    guesses = next_line_accuracy(ContextReader(unrelated, scenes), speakers_shown=speakers_shown, num_candidates=5)
    assert guesses.by_likelihood < 0.5


SCRIPT_CAST = ("FRODO", "SAM", "GOLLUM", "SOMEONE")
SCRIPT_SCENES = (
    (("FRODO", "the road goes on"), ("SAM", "supper is here"), ("FRODO", "the lamp xyzzy"), ("BILBO", "the road")),
    (("GOLLUM", "supper"), ("SAM", "the lamp")),
)
SCRIPT = "\n".join("".join(f"{name}: {text}\n" for name, text in scene) for scene in SCRIPT_SCENES)
SCRIPT_WORDS = WordTokenizer(("<unk>", "<eos>", "the", "road", "goes", "on", "supper", "is", "here", "lamp"))


@pytest.mark.parametrize("tokenizer", [SCRIPT_WORDS, bpe_tokenizer()], ids=["words", "bpe"])
def test_scores_are_those_of_each_line(tokenizer):
    tokenizer = tokenizer.with_cast(SCRIPT_CAST)
    model = DialogueModel(random_lstm(ModelConfig(embedding_size=6, hidden_size=6), tokenizer))
    state = prefill(model, [])
    nats, bits, tokens, texts, turn_nats, hits = Counter(), Counter(), Counter(), {}, [], []
    for number, scene in enumerate(SCRIPT_SCENES):
        if number:
            state = prefill(model, [EOS_ID], state)
        for name, text in scene:
            member = name if name in SCRIPT_CAST else "SOMEONE"
            speaker_probs = np.exp(state.log_probs[tokenizer.num_text_tokens :].astype(np.float64))
            turn_nats.append(-math.log(speaker_probs[SCRIPT_CAST.index(member)] / speaker_probs.sum()))
            hits.append(SCRIPT_CAST[int(speaker_probs.argmax())] == member)
            state = prefill(model, [tokenizer.speaker_id(member)], state)
            unknown = [span.text for span in tokenizer.unknown_spans(text)]
            bits[member] += float(spelling_bits(tokenizer, unknown).sum())
            texts.setdefault(member, []).append(text)
            for id in (*tokenizer.encode(text).tolist(), EOS_ID):
                nats[member] -= float(state.log_probs[id])
                tokens[member] += 1
                state = prefill(model, [id], state)
    evaluation = evaluate_by_speaker(model, EncodedText(convert_text(SCRIPT, "original"), tokenizer, "dialogue"))
    assert {scores.speaker: scores.tokens for scores in evaluation.speakers} == tokens
    assert [scores.tokens for scores in evaluation.speakers] == sorted(tokens.values(), reverse=True)
    for scores in evaluation.speakers:
        name, lines = scores.speaker, texts[scores.speaker]
        assert scores.lines == len(lines)
        assert scores.characters == sum(len(line) + 1 for line in lines)
        assert scores.perplexity == pytest.approx(math.exp(nats[name] / tokens[name]), rel=1e-5)
        total_bits = nats[name] / math.log(2) + bits[name]
        assert scores.bits_per_character == pytest.approx(total_bits / scores.characters, rel=1e-5)
    assert evaluation.next_speaker.turns == len(turn_nats) == 6
    assert evaluation.next_speaker.bits_per_turn == pytest.approx(np.mean(turn_nats) / math.log(2), rel=1e-5)
    assert evaluation.next_speaker.accuracy == np.mean(hits)
    with pytest.raises(CorpusError, match="no line to score"):
        evaluate_by_speaker(model, EncodedText("\n", tokenizer, "dialogue"))


# --- the posterior over the cast ---


TEXT_MODEL = fit_speaker_text(len(CAST), TRAIN_SCENES)
MODELS = [DialogueModel(LSTM, TURN_MODEL), DialogueModel(KNESER_NEY, TURN_MODEL, load_text_model=lambda: TEXT_MODEL)]
WEIGHTS = (MODEL_WEIGHT, MODEL_WEIGHT_WITH_TEXT)
CONTEXT = (Turn("FRODO", "w1 w2"), Turn("GOLLUM", "w3 w5"))
WORDS = st.lists(st.sampled_from(["w0", "w1", "w2", "w3", "w4", "w5", "unknown"]), max_size=6)
by_model = pytest.mark.parametrize("model", MODELS, ids=["lstm", "kneser-ney and text"])


def brute_force(model, context, text, *, expect_context=True, is_complete=False):
    """Return the posterior by scoring the whole dialogue once for each speaker."""
    before = encode_turns(TOKENIZER, context)
    prior = dict.fromkeys(CAST, 1.0)
    if expect_context:
        prior = {speaker.name: speaker.prob for speaker in next_speaker_probs(model, prefill(model, before))}
    ids = [*TOKENIZER.encode(text).tolist(), *([EOS_ID] if is_complete else [])]
    weight = WEIGHTS[MODELS.index(model)]
    joint = np.array(
        [
            np.log(prior[name])
            + weight * score_sequence(model, np.array([*before, speaker, *ids], np.int32))[len(before) + 1 :].sum()
            for name, speaker in zip(CAST, SPEAKER_IDS, strict=True)
        ]
    )
    if model is MODELS[1]:
        joint += TEXT_MODEL.scores(text)
    joint = np.exp(joint - max(joint))
    return joint / joint.sum()


@by_model
@pytest.mark.parametrize("expect_context", [True, False])
@settings(max_examples=8, deadline=None)
@given(words=WORDS, is_complete=st.booleans())
def test_posteriors_follow_from_bayes_rule(model, expect_context, words, is_complete):
    posterior = SpeakerPosterior(model, read_turns(model, CONTEXT), expect_context=expect_context)
    guess = posterior.update("  ".join(words), is_complete=is_complete)
    assert guess.prior == pytest.approx(brute_force(model, CONTEXT, "", expect_context=expect_context), rel=1e-4)
    assert [evidence.word for evidence in guess.words] == words
    for number, evidence in enumerate(guess.words, start=1):
        is_ended = is_complete and number == len(words)
        expected = brute_force(
            model, CONTEXT, " ".join(words[:number]), expect_context=expect_context, is_complete=is_ended
        )
        assert evidence.posterior == pytest.approx(expected, rel=1e-3)
    assert guess.posterior.tolist() == (guess.words[-1].posterior if words else guess.prior).tolist()


class CountingModel(DialogueModel):
    num_batches = 0

    def advance_batch(self, states, tokens):
        self.num_batches += 1
        return super().advance_batch(states, tokens)


def test_one_more_word_costs_one_batch_and_the_states_of_a_long_text_are_bounded(monkeypatch):
    monkeypatch.setattr(speaker_posterior, "MAX_STEPS", 4)
    model = CountingModel(LSTM, TURN_MODEL)
    posterior = SpeakerPosterior(model)
    words = ["w1", "w2", "w3", "w4", "w5"] * 4

    def num_batches(words):
        before = model.num_batches
        text = " ".join(words)
        assert posterior.update(text).posterior == pytest.approx(brute_force(MODELS[0], (), text), rel=1e-3)
        return model.num_batches - before

    num_batches(words)
    assert num_batches([*words, "w1"]) == 1
    assert num_batches([*words, "w1"]) == num_batches(words) == 0
    assert num_batches([*words, "w0", "w0"]) == 2
    assert num_batches([*words[:10], "w0", *words[11:]]) == 20  # the states before the edited word are not kept


@by_model
def test_gains_and_explanations_are_changes_of_the_log_odds(model):
    guess = SpeakerPosterior(model, read_turns(model, CONTEXT)).update("w5 w1 w3")
    leader = int(guess.posterior.argmax())
    before = guess.prior
    for evidence in guess.words:
        odds = [probs[leader] / (1 - probs[leader]) for probs in (before, evidence.posterior)]
        assert evidence.gain == pytest.approx(np.log(odds[1] / odds[0]), rel=1e-6)
        before = evidence.posterior
    odds = [np.log(row[1] / row[2]) for row in (guess.prior, *(evidence.posterior for evidence in guess.words))]
    explanation = dict(guess.explain("SAM", "GOLLUM"))
    assert explanation == pytest.approx(dict(zip(["w5", "w1", "w3"], np.diff(odds), strict=True)))
    ranking = guess.ranking()
    assert (ranking[0].name, ranking[0].id) == (CAST[leader], SPEAKER_IDS[leader])
    assert [speaker.prob for speaker in ranking] == sorted(guess.posterior.tolist(), reverse=True)


def test_tokens_inside_a_word_belong_to_the_word():
    tokenizer = CharacterTokenizer("abc .").with_cast(CAST)
    model = DialogueModel(random_lstm(ModelConfig(embedding_size=5, hidden_size=5), tokenizer))
    guess = SpeakerPosterior(model, model_weight=1.0).update("ab ca. b")
    assert [evidence.word for evidence in guess.words] == ["ab", "ca.", "b"]
    for evidence, text in zip(guess.words, ("ab", "ab ca.", "ab ca. b"), strict=True):
        scores = [
            score_sequence(model, np.array([id, *tokenizer.encode(text)], np.int32)).sum()
            for id in range(tokenizer.num_text_tokens, len(tokenizer))
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


def test_a_script_names_its_speakers_as_it_or_the_cast_writes_them():
    script = "Mr. Frodo: the road\nSAM: a friend\n  of mine\n\nMR. FRODO: Note: this\n"
    turns, cast = read_script(script, None, "the context")
    assert cast == ("Mr. Frodo", "SAM")
    assert turns == [Turn("Mr. Frodo", "the road"), Turn("SAM", "a friend of mine"), Turn("Mr. Frodo", "Note: this")]
    turns, cast = read_script("FRODO: the road\nPIPPIN: it is long\n", ["Frodo", " Sam  Gamgee"], "the context")
    assert cast == ("Frodo", "Sam Gamgee")
    assert turns == [Turn("Frodo", "the road"), Turn("PIPPIN", "it is long")]


@pytest.mark.parametrize(
    ("script", "names", "message"),
    [
        ("It was a dark night.\n", ["A", "B"], "the context names no speakers"),
        ("", ["A", " "], "--cast: '' is not a name"),
        ("", ["Sam", "Frodo", "SAM"], "--cast names SAM twice"),
        ("", ["Sam"], "the number of speakers of --cast Sam is 1"),
        ("Sam: Hello\n", None, "the number of speakers of the context is 1"),
    ],
)
def test_scripts_and_casts_without_speakers_to_choose_from_are_refused(script, names, message):
    with pytest.raises(InvalidInputError, match=message):
        read_script(script, names, "the context")
