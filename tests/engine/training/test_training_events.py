"""Order and content of the events of a training; the same seed gives the same bits."""

import math
from itertools import pairwise

import pytest

from engine.analysis.bits_per_character import text_bits_per_character
from engine.analysis.perplexity import evaluate
from engine.data.dataset import load_dataset
from engine.events import Evaluated, Finished, Preparing, Sampled, Started, Step
from engine.generation.generate import TokenEvent, generate
from engine.generation.settings import SamplerSettings
from engine.models.ngram import KneserNey, Unigram
from engine.models.numpy_lstm import NumpyLSTM
from tests.support.training import events_of, make_config, run_training, weights_equal, weights_of


def test_events_come_in_order(default_events):
    kinds = [type(event) for event in default_events if not isinstance(event, Step)]
    assert kinds == [Preparing, Started, *[Evaluated, Sampled] * 4, Finished]
    indices = [i for i, event in enumerate(default_events) if isinstance(event, Evaluated)]
    for before, after in pairwise(indices):
        assert any(isinstance(event, Step) for event in default_events[before:after])
    assert not any(isinstance(event, Step) for event in default_events[: indices[0]])


def test_started_describes_the_training_and_the_baselines(default_events, dataset):
    (started,) = events_of(Started, default_events)
    assert (started.run, started.preset, started.epochs, started.device) == ("a-run", "test", 3, "cpu")
    assert started.vocabulary_size == len(dataset.tokenizer)
    assert (started.train_tokens, started.valid_tokens) == (len(dataset.train), len(dataset.valid))
    assert started.parameters == sum(
        value.size for value in weights_of(events_of(Finished, default_events)[0]).values()
    )
    assert started.corpus_sha256 == dataset.corpus.sha256
    unigram, kneser_ney = (model(dataset.train, dataset.tokenizer) for model in (Unigram, KneserNey))
    assert started.unigram_perplexity == evaluate(unigram, dataset.valid).perplexity
    assert started.kneser_ney_perplexity == evaluate(kneser_ney, dataset.valid).perplexity


def test_started_tells_the_bits_per_character_of_every_validation(default_events, dataset):
    (started,) = events_of(Started, default_events)
    finished = events_of(Finished, default_events)[0]
    assert isinstance(finished.model, NumpyLSTM)
    text = "".join(f"{line.text}\n" for line in dataset.splits.valid)
    expected = text_bits_per_character(finished.model, text, dataset.mode)
    assert started.bits_per_character(finished.valid_perplexity) == pytest.approx(expected, rel=1e-4)


def test_steps_and_seconds_increase(default_events):
    steps = events_of(Step, default_events)
    assert [step.step for step in steps] == sorted({step.step for step in steps})
    assert [step.epoch for step in steps] == sorted({step.epoch for step in steps})
    assert all(step.tokens_per_second > 0 and step.gradient_norm > 0 for step in steps)
    assert steps[-1].epoch == pytest.approx(3)
    assert steps[-1].eta_seconds == pytest.approx(0)
    seconds = [event.seconds for event in default_events if isinstance(event, (Step, Evaluated, Finished))]
    assert seconds == sorted(seconds)
    assert [event.epoch for event in events_of(Evaluated, default_events)] == [0, 1, 2, 3]


def test_perplexity_decreases(default_events):
    perplexities = [event.valid_perplexity for event in events_of(Evaluated, default_events)]
    assert perplexities[-1] < 0.6 * perplexities[0]
    steps = events_of(Step, default_events)
    assert steps[-1].train_perplexity < steps[0].train_perplexity
    # Before the first step, the model knows only the token frequencies.
    assert perplexities[0] == pytest.approx(events_of(Started, default_events)[0].unigram_perplexity, rel=0.1)


def test_evaluated_perplexity_is_that_of_the_model_in_the_event(default_events, dataset):
    for event in events_of(Evaluated, default_events):
        assert evaluate(event.model, dataset.valid).perplexity == pytest.approx(event.valid_perplexity, rel=1e-4)


def test_finished_has_the_best_model_and_its_perplexities(dataset):
    """The learning rate is so high that the last model is not the best one."""
    events = run_training(dataset, lr=0.3, schedule="constant", epochs=6, clip=0.0)
    evaluated, (finished,) = events_of(Evaluated, events), events_of(Finished, events)
    perplexities = [event.valid_perplexity for event in evaluated]
    best = evaluated[perplexities.index(min(perplexities))]
    assert best is not evaluated[-1], "this test needs a training whose last model is not its best"
    assert finished.valid_perplexity == best.valid_perplexity == min(perplexities)
    assert weights_equal(weights_of(finished), weights_of(best))
    assert finished.test_perplexity == pytest.approx(evaluate(best.model, dataset.test).perplexity)
    expected = [value < min([math.inf, *perplexities[:i]]) for i, value in enumerate(perplexities)]
    assert [event.is_best for event in evaluated] == expected
    assert (finished.reason, finished.epochs) == ("done", 6)


def test_samples_continue_the_configured_prompt_with_the_configured_seed(dataset):
    events = run_training(
        dataset, epochs=1, sample_seed=9, sample_temperature=0.5, sample_prompt="The old XYZZY hobbit"
    )
    for sampled, evaluated in zip(events_of(Sampled, events), events_of(Evaluated, events), strict=True):
        assert (sampled.prompt, sampled.seed, sampled.temperature) == ("the old hobbit", 9, 0.5)
        assert (sampled.step, sampled.epoch) == (evaluated.step, evaluated.epoch)
        ids = dataset.tokenizer.encode("the old hobbit").tolist()
        settings = SamplerSettings(temperature=0.5, max_tokens=25)
        again = generate(evaluated.model, ids, settings, 9)
        assert sampled.text == " ".join(event.text for event in again if isinstance(event, TokenEvent))
        assert sampled.text


def test_a_sample_prompt_without_a_known_word_does_not_stop_a_training(dataset):
    events = run_training(dataset, epochs=1, sample_prompt="xyzzy plugh")
    assert all(sampled.prompt == "" and sampled.text for sampled in events_of(Sampled, events))
    assert events_of(Finished, events)


def test_a_sample_of_an_open_vocabulary_starts_with_another_word(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text(
        "\n".join(["the older wizards walk home", "the oldest hobbit is awake", "the oldish mill has burnt"] * 30)
    )
    config = make_config(corpus=str(path), corpus_format="text", tokenizer="characters")
    events = run_training(load_dataset(config.data), epochs=1, sample_prompt="the old", sample_temperature=0.0)
    for sampled, evaluated in zip(events_of(Sampled, events), events_of(Evaluated, events), strict=True):
        model = evaluated.model
        assert model is not None
        assert sampled.prompt == "the old"
        ids = model.tokenizer.encode("the old ").tolist()
        greedy = generate(model, ids, SamplerSettings(temperature=0.0, max_tokens=25), 0)
        assert sampled.text == "".join(event.piece for event in greedy if isinstance(event, TokenEvent)).lstrip(" ")


def test_eval_every_epochs(dataset):
    events = run_training(dataset, epochs=5, eval_every_epochs=2)
    assert [event.epoch for event in events_of(Evaluated, events)] == [0, 2, 4, 5]


def test_same_seed_gives_the_same_bits(default_events, dataset):
    again = run_training(dataset)
    for first, second in zip(events_of(Evaluated, default_events), events_of(Evaluated, again), strict=True):
        assert first.valid_perplexity == second.valid_perplexity
        assert weights_equal(weights_of(first), weights_of(second))
    assert [sampled.text for sampled in events_of(Sampled, default_events)] == [
        sampled.text for sampled in events_of(Sampled, again)
    ]
    assert events_of(Finished, default_events)[0].test_perplexity == events_of(Finished, again)[0].test_perplexity


def test_another_seed_gives_another_training(default_events, dataset):
    other = run_training(dataset, seed=1)
    for first, second in zip(events_of(Evaluated, default_events), events_of(Evaluated, other), strict=True):
        assert not weights_equal(weights_of(first), weights_of(second))
        assert first.valid_perplexity != second.valid_perplexity
