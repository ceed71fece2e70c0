"""What a training tells, in which order and with which figures; and that one seed gives the same bits."""

from itertools import pairwise

import pytest

from engine.analysis.perplexity import evaluate
from engine.data.dataset import Dataset
from engine.events import Evaluated, Finished, Preparing, Sampled, Started, Step, TrainingEvent
from engine.generation.generate import TokenEvent, stream
from engine.generation.settings import SamplerSettings
from engine.models.ngram import KneserNey, Unigram
from tests.support.training import of, run, same, weights_of

# --- events ---------------------------------------------------------------------------------------------------


def test_the_order_of_events(usual: list[TrainingEvent]) -> None:
    kinds = [type(event) for event in usual if not isinstance(event, Step)]
    assert kinds == [Preparing, Started, *[Evaluated, Sampled] * 4, Finished]
    places = [i for i, event in enumerate(usual) if isinstance(event, Evaluated)]
    for before, after in pairwise(places):
        assert any(isinstance(event, Step) for event in usual[before:after])
    assert not any(isinstance(event, Step) for event in usual[: places[0]])


def test_started_tells_what_is_trained_and_the_lines_to_beat(usual: list[TrainingEvent], dataset: Dataset) -> None:
    (started,) = of(Started, usual)
    assert (started.run, started.preset, started.epochs, started.device) == ("a-run", "test", 3, "cpu")
    assert started.vocabulary == len(dataset.vocabulary)
    assert (started.train_tokens, started.valid_tokens) == (len(dataset.train), len(dataset.valid))
    assert started.parameters == sum(value.size for value in weights_of(of(Finished, usual)[0]).values())
    assert started.corpus_sha256 == dataset.corpus.sha256
    unigram, kneser_ney = (model(dataset.train, dataset.vocabulary) for model in (Unigram, KneserNey))
    assert started.unigram_perplexity == evaluate(unigram, dataset.valid).perplexity
    assert started.kneser_ney_perplexity == evaluate(kneser_ney, dataset.valid).perplexity


def test_progress_is_told_in_order(usual: list[TrainingEvent]) -> None:
    steps = of(Step, usual)
    assert [step.step for step in steps] == sorted({step.step for step in steps})
    assert [step.epoch for step in steps] == sorted({step.epoch for step in steps})
    assert all(step.tokens_per_second > 0 and step.gradient_norm > 0 for step in steps)
    assert steps[-1].epoch == pytest.approx(3)
    assert steps[-1].eta_seconds == pytest.approx(0)
    seconds = [event.seconds for event in usual if isinstance(event, (Step, Evaluated, Finished))]
    assert seconds == sorted(seconds)
    assert [event.epoch for event in of(Evaluated, usual)] == [0, 1, 2, 3]


def test_perplexity_falls(usual: list[TrainingEvent]) -> None:
    perplexities = [event.valid_perplexity for event in of(Evaluated, usual)]
    assert perplexities[-1] < 0.6 * perplexities[0]
    steps = of(Step, usual)
    assert steps[-1].train_perplexity < steps[0].train_perplexity
    # Before the first update it knows the frequencies of words and no more.
    assert perplexities[0] == pytest.approx(of(Started, usual)[0].unigram_perplexity, rel=0.1)


def test_evaluations_are_those_of_the_model_they_carry(usual: list[TrainingEvent], dataset: Dataset) -> None:
    for event in of(Evaluated, usual):
        assert evaluate(event.model, dataset.valid).perplexity == pytest.approx(event.valid_perplexity, rel=1e-4)


def test_finished_has_the_best_model_and_its_figures(dataset: Dataset) -> None:
    """A rate so high that the best is not the last."""
    events = run(dataset, lr=0.3, schedule="constant", epochs=6, clip=0.0)
    evaluated, (finished,) = of(Evaluated, events), of(Finished, events)
    perplexities = [event.valid_perplexity for event in evaluated]
    best = evaluated[perplexities.index(min(perplexities))]
    assert best is not evaluated[-1], "this test needs a training whose last model is not its best"
    assert finished.valid_perplexity == best.valid_perplexity == min(perplexities)
    assert same(weights_of(finished), weights_of(best))
    assert finished.test_perplexity == pytest.approx(evaluate(best.model, dataset.test).perplexity)
    lowest = [min(perplexities[: i + 1]) for i in range(len(perplexities))]
    expected = [i == 0 or low < lowest[i - 1] for i, low in enumerate(lowest)]
    assert [event.best for event in evaluated] == expected
    assert (finished.reason, finished.epochs) == ("done", 6)


def test_the_fixed_prompt_is_continued_with_the_fixed_seed(dataset: Dataset) -> None:
    events = run(dataset, epochs=1, sample_seed=9, sample_temperature=0.5, sample_prompt="The old XYZZY hobbit")
    for sampled, evaluated in zip(of(Sampled, events), of(Evaluated, events), strict=True):
        assert (sampled.prompt, sampled.seed, sampled.temperature) == ("the old hobbit", 9, 0.5)
        assert (sampled.step, sampled.epoch) == (evaluated.step, evaluated.epoch)
        ids = dataset.vocabulary.encode(["the", "old", "hobbit"]).tolist()
        settings = SamplerSettings(temperature=0.5, max_tokens=25)
        again = stream(evaluated.model, ids, settings, 9)
        assert sampled.text == " ".join(event.text for event in again if isinstance(event, TokenEvent))
        assert sampled.text


def test_a_sample_prompt_without_a_known_word_does_not_stop_a_training(dataset: Dataset) -> None:
    events = run(dataset, epochs=1, sample_prompt="xyzzy plugh")
    assert all(sampled.prompt == "" and sampled.text for sampled in of(Sampled, events))
    assert of(Finished, events)


def test_evaluate_every(dataset: Dataset) -> None:
    events = run(dataset, epochs=5, evaluate_every=2)
    assert [event.epoch for event in of(Evaluated, events)] == [0, 2, 4, 5]


# --- determinism ----------------------------------------------------------------------------------------------


def test_one_seed_the_same_bits(usual: list[TrainingEvent], dataset: Dataset) -> None:
    again = run(dataset)
    for first, second in zip(of(Evaluated, usual), of(Evaluated, again), strict=True):
        assert first.valid_perplexity == second.valid_perplexity
        assert same(weights_of(first), weights_of(second))
    assert [sampled.text for sampled in of(Sampled, usual)] == [sampled.text for sampled in of(Sampled, again)]
    assert of(Finished, usual)[0].test_perplexity == of(Finished, again)[0].test_perplexity


def test_another_seed_is_another_training(usual: list[TrainingEvent], dataset: Dataset) -> None:
    other = run(dataset, seed=1)
    for first, second in zip(of(Evaluated, usual), of(Evaluated, other), strict=True):
        assert not same(weights_of(first), weights_of(second))
        assert first.valid_perplexity != second.valid_perplexity
