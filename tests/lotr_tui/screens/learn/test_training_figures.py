"""The chapters with a live training: their numbers, tasks and controls, and leaving them while they train."""

import re
import tempfile
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
import pytest

from engine.analysis.evaluation import evaluate
from engine.analysis.speakers import SpeakerPosterior
from engine.config import DataConfig
from engine.data.dataset import load_dataset
from engine.data.scripts import utterance_text
from engine.generation.settings import SamplerSettings
from engine.models.base import score_sequence
from engine.models.dialogue import DialogueModel, SpeakerTextModel
from engine.models.ngram import KneserNey, Unigram
from engine.presets import PRESETS
from engine.runs.directory import list_runs
from engine.runs.loading import base_files
from engine.training import TrainingInput
from engine.training.job import fit_dialogue_parts, spoken_scenes
from lotr_tui.formatting import displayable
from lotr_tui.learn import live_training
from lotr_tui.learn.chapters import find_chapter
from lotr_tui.learn.live_training import (
    QUESTIONS,
    STRENGTHS,
    TEMPORARY_PREFIX,
    Character,
    load_overfitting_run,
    train_perplexity,
)  # fmt: skip
from lotr_tui.learn.material import Material, bundled_data_config
from lotr_tui.learn.progress import ProgressStore
from lotr_tui.screens.learn.figures import training
from lotr_tui.screens.learn.figures.training import FIRST_RATE, LEARNING_RATES, CurveChart, LiveTrainingFigure
from lotr_tui.screens.learn.screen import ChapterScreen
from tests.support.app import make_decoder
from tests.support.files import run_to_end, write_corpus
from tests.support.learn import chapter_screen, open_chapter, shown, until_chapter, until_done
from tests.support.live_training import live_events, live_job
from tests.support.pilot import lines_of, until
from tests.support.pretrained import save_model
from tests.support.random_dialogues import write_distinct_dialogues

GOOD = [2247.0, 295.0, 208.0, 170.0, 146.0, 135.0, 127.0, 120.0, 114.5, 111.0, 108.2]
SLOW = [2247.0, *[2000.0] * 8]
FAST = [2247.0, 1e9, 1e9, 1e9]
DATA = bundled_data_config()


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def figure_of(pilot):
    return chapter_screen(pilot).query_one(LiveTrainingFigure)


def chart(pilot):
    return lines_of(figure_of(pilot).query_one(CurveChart))


def gaps(pilot):
    return [line.split() for line in shown(pilot, "gaps").splitlines()[1:]]


async def train(pilot, use_job, valid, *, models=False):
    """Start a training with the evaluations `valid`, and wait until all are shown."""
    job = use_job(live_job(live_events(valid, models=models)))
    await pilot.press("enter")
    await until(pilot, lambda: len(figure_of(pilot).training.view.evaluations) == len(valid))
    return job


async def stop(pilot):
    await pilot.press("enter")
    await until(pilot, lambda: not figure_of(pilot).is_training, 30)


async def test_curves_and_samples_are_those_of_the_events_and_the_slider_sets_the_rate(make_host, use_job):
    async with make_host().run_test(size=(120, 45)) as pilot:
        screen = await open_chapter(pilot, "training")
        dataset = load_dataset(DATA)
        counts = {"unigram": Unigram(dataset.train, dataset.tokenizer)}
        counts["5-gram"] = KneserNey(dataset.train, dataset.tokenizer, 5)
        for name, model in counts.items():
            assert f"{name} {evaluate(model, dataset.valid).perplexity:.1f}" in chart(pilot)
        await pilot.press("right", "right")
        job = await train(pilot, use_job, GOOD[:4], models=True)
        assert "epoch 0.75 of 5 · held-out perplexity 170.0" in shown(pilot, "train-line")
        # Both texts are scored in the same way, so that their curves can be compared.
        train_score = train_perplexity(make_decoder(3), job.dataset)
        for text in ("held-out 170.0", f"train {train_score:.1f}", "unigram 285.8", "5-gram 110.2"):
            assert text in chart(pilot)
        samples = shown(pilot, "samples").strip("\n").splitlines()
        assert samples == [f"{number / 4:6.2f}   bilbo baggins is a friend of mine {number}" for number in range(4)]
        await pilot.resize_terminal(80, 24)
        await pilot.press("left")
        assert screen.query_one(CurveChart).size.height >= 6

        await until(pilot, lambda: [command.kind for command in job.commands] == ["lr"] * 2)
        rates = LEARNING_RATES[FIRST_RATE + 2], LEARNING_RATES[FIRST_RATE + 1]
        highest = figure_of(pilot).training.config.training.lr
        assert [float(command.value) * highest for command in job.commands] == pytest.approx(rates)


async def test_task_is_done_by_trainings_that_are_too_slow_too_fast_and_good(hosted, use_job):
    async with hosted((80, 24)) as (pilot, app):
        screen = await open_chapter(pilot, "training")
        for part, (valid, result) in enumerate(
            (
                ([2247.0, 180.0, 131.0], "best 131.0, falling: above the 5-gram model"),
                ([2247.0, 131.0, 133.0], "best 131.0: above the 5-gram model"),
                (SLOW, "too slow: still above the unigram model"),
                (FAST, "too fast: the loss has jumped"),
                (GOOD, "best 108.2: below the 5-gram model"),
            )
        ):
            await train(pilot, use_job, valid)
            await until(pilot, lambda part=part: screen.finished_parts == {*range(part - 1)})
            await stop(pilot)
            assert shown(pilot, "train-line") == f"▶ enter trains again · stopped · {result}"
        await until_done(pilot)
        app.state.is_training = True  # the session trains too
        await train(pilot, use_job, GOOD[:2])
        assert figure_of(pilot).training.config.training.threads == 0
        assert "both are slower" in shown(pilot, "figure-message")
        await stop(pilot)
        use_job(live_job([], OSError(28, "No space left on device")))
        await pilot.press("enter")
        await until(pilot, lambda: "No space left" in shown(pilot, "train-line"))


async def test_own_training_is_shown_beside_the_prepared_run_and_the_task_is_done(make_host, use_job):
    prepared = run_to_end(load_overfitting_run(DATA, load_dataset(DATA), lambda: False))[0]
    better, worse = prepared.best - 0.1, prepared.best + 0.1
    async with make_host().run_test(size=(120, 35)) as pilot:
        screen = await open_chapter(pilot, "overfitting")
        train_score, valid = prepared.train[-1], prepared.valid[-1]
        figures = [f"{value:.1f}" for value in (train_score, valid, valid - train_score, prepared.best)]
        assert gaps(pilot) == [["without", *figures, "0.0", "0.0", "no"], ["yours", *["-"] * 7]]
        assert f"without held-out {valid:.1f}" in chart(pilot)
        assert f"without train {train_score:.1f}" in chart(pilot)

        job = await train(pilot, use_job, [2247.0, 150.0, worse], models=True)
        train_score = train_perplexity(make_decoder(2), job.dataset)
        assert gaps(pilot)[1][1:5] == [f"{value:.1f}" for value in (train_score, worse, worse - train_score, worse)]
        assert f"yours held-out {worse:.1f}" in chart(pilot)
        assert f"yours train {train_score:.1f}" in chart(pilot)
        await stop(pilot)
        assert not screen.is_done
        line = shown(pilot, "train-line")
        assert line == f"▶ enter trains again · stopped · best {worse:.1f}: no better than without"
        await pilot.press(*["right"] * 3, "tab", "right", "tab", "right")
        # The result stays, beside the settings that it was trained with.
        assert shown(pilot, "train-line") == line
        assert gaps(pilot)[1][5:] == ["0.0", "0.0", "no"]
        await train(pilot, use_job, [2247.0, 150.0, better], models=True)
        await until_done(pilot)
        model = figure_of(pilot).training.config.model
        assert (model.input_dropout, model.output_dropout) == (0.3, 0.3)
        assert (model.weight_drop, model.tie_weights) == (0.1, True)
        assert gaps(pilot)[1][5:] == ["0.3", "0.1", "yes"]
        await pilot.click("#train-line")
        await until(pilot, lambda: not figure_of(pilot).is_training)


@pytest.mark.parametrize("leave", ["n", "escape"])
async def test_leaving_stops_the_training_and_keeps_the_progress(hosted, use_job, temporary, leave):
    async with hosted((80, 24)) as (pilot, app):
        await open_chapter(pilot, "training")
        job = await train(pilot, use_job, GOOD)
        assert list(temporary.glob(f"{TEMPORARY_PREFIX}*"))
        await pilot.press(leave)
        if leave == "escape":
            await until(pilot, lambda: not figure_of(pilot).is_training)
            assert "▶ enter trains again · stopped" in shown(pilot, "train-line")
            await pilot.press("escape")
            assert not isinstance(app.screen, ChapterScreen)
        await until(pilot, lambda: job.stopped.is_set() or app.return_code is not None)
    assert job.stopped.wait(1)
    assert not list(temporary.glob(f"{TEMPORARY_PREFIX}*"))
    assert ProgressStore().current.last in ("training", "overfitting")


async def test_text_that_is_too_short_is_refused_in_one_line(make_host, tmp_path):
    short = write_corpus(tmp_path / "short.csv", 100)
    async with make_host().run_test(size=(120, 35)) as pilot:
        await pilot.app.push_screen(ChapterScreen(lambda: Material(short), find_chapter("training")))
        screen = chapter_screen(pilot)
        await until(pilot, lambda: screen.query("#figure-message") and "a training" in shown(pilot, "figure-message"))


# Fine-tuning


@pytest.fixture
def character(tmp_path, monkeypatch):
    """Let the chapter fine-tune a tiny pre-trained model, and return who is learned."""
    pytest.importorskip("transformers")
    from engine.models.pretrained.folders import read_base

    save_model(tmp_path / "tiny", "llama")
    base = read_base(f"hf:{tmp_path / 'tiny'}").for_scripts()
    corpus = write_distinct_dialogues(tmp_path / "dialogues.csv", 80)
    data = DataConfig(str(corpus), tokenizer="pretrained", mode="dialogue", split="scenes", min_speaker_lines=5)
    dataset = load_dataset(data, base.tokenizer)
    text_model = SpeakerTextModel.fit(len(dataset.cast), spoken_scenes(dataset.splits.train, dataset.cast))
    with_cast = partial(DialogueModel, cast=dataset.cast, load_text_model=lambda: text_model)
    config = replace(PRESETS["lora"], data=data, model=replace(base.config, lora_rank=4)).with_values(
        init=base.name, batch_size=4, bptt=32, score_test=False, device="cpu", precision="fp32", threads=1
    )
    files = base_files(base, config.model)
    files |= fit_dialogue_parts(dataset.splits.train, dataset.splits.valid, dataset.cast)
    learned = Character(config, TrainingInput(dataset, base=base), with_cast, files)

    def load():
        yield "reading …"
        return learned

    monkeypatch.setattr(live_training, "load_character", load)
    monkeypatch.setattr(live_training, "ANSWER_SETTINGS", SamplerSettings(temperature=0.7, max_tokens=6))
    return learned


async def test_answers_at_each_strength_are_judged_the_best_does_the_task_and_p_takes_it_into_a_session(
    make_host, character, monkeypatch, tmp_path
):
    monkeypatch.setattr(training, "MIN_LIKENESS", 1.1)
    played = []
    async with make_host(runs_dir=tmp_path / "runs").run_test(size=(120, 45)) as pilot:
        index = find_chapter("fine-tuning")
        await pilot.app.push_screen(ChapterScreen(Material, index), played.append)
        screen = await until_chapter(pilot, index)
        await pilot.press("right", "tab", "right", "enter")
        figure = figure_of(pilot)
        await until(pilot, lambda: len(figure.training.answers) == len(STRENGTHS) and not figure.is_training, 60)
        config, answers = figure.training.config.training, figure.training.answers
        assert (config.lr, config.epochs, config.eval_every_epochs) == (0.001, 2, 2)
        assert "hardly Gollum" in shown(pilot, "train-line")
        network = figure.training.view.evaluations[-1].model
        as_it_came = character.with_cast(network.with_strengths({"adapter": 0.0}))
        bits, length = 0.0, 0
        for question, text in zip(QUESTIONS, answers[6].texts, strict=True):
            texts = f"Stranger: {question}\n", "Gollum:", utterance_text(text)
            *head, said = (as_it_came.tokenizer.encode(part).tolist() for part in texts)
            scores = score_sequence(as_it_came, np.array([*chain(*head), *said], np.int32))
            bits, length = bits - scores[-len(said) :].sum() / np.log(2), length + len(texts[-1]) - 1
        assert answers[6].bits_per_character == pytest.approx(bits / length, rel=0.05)
        index, guesses = character.source.dataset.cast.index("GOLLUM"), SpeakerPosterior(as_it_came)
        likeness = [guesses.update(text, is_complete=True).posterior[index] for text in answers[6].texts]
        assert answers[6].likeness == pytest.approx(np.mean(likeness))
        rows = shown(pilot, "answers").splitlines()[1:8]
        assert [row.split()[0].strip("▸") for row in rows[:4]] == ["0.00", "0.25", "0.50", "0.75"]
        texts = "".join(shown(pilot, "answers").split())
        assert all("".join(displayable(text).split()) in texts for text in answers[4].texts)  # there is room for all
        assert re.search(r"learning rate .* 0\.001 ", shown(pilot, "rate") + " ")
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: shown(pilot, "answers").split()[:4] == ["strength", "0.00", "0.25", "0.50"])
        assert re.search(r"learning rate .* 0\.001 ", shown(pilot, "rate") + " ")
        assert all(text in shown(pilot, "answers") for text in ("▸1.00", "1.50", QUESTIONS[-1]))
        await pilot.resize_terminal(120, 45)
        monkeypatch.setattr(training, "MIN_LIKENESS", 0.0)
        monkeypatch.setattr(training, "MAX_RISE", -1.0)
        await pilot.press("tab", "end")
        assert "broken language" in shown(pilot, "train-line")
        assert not screen.is_done
        monkeypatch.setattr(training, "MAX_RISE", 100.0)
        await pilot.press("left")
        await until_done(pilot)
        await pilot.press("p")
        await until(pilot, lambda: played)
        assert set(played[0].strengths.values()) == {1.25}
        ids = np.arange(3, 20, dtype=np.int32)
        scores = [score_sequence(network.with_strengths({"adapter": each}), ids) for each in (0.0, 1.25)]
        errors = [np.abs(score_sequence(played[0].model, ids) - each).mean() for each in scores]
        assert errors[1] < 0.05  # which 8 bits cost
        assert errors[1] < errors[0] / 5
        (run,) = list_runs(tmp_path / "runs")
        assert (run.state, run.valid_perplexity) == ("finished", figure.training.view.evaluations[-1].valid_perplexity)
        assert played[0].run == run.path
        assert figure.training.save(tmp_path / "runs").run == run.path  # it is kept once


async def test_without_smollm2_the_chapter_says_how_to_fetch_it(make_host):
    async with make_host().run_test(size=(120, 45)) as pilot:
        await pilot.app.push_screen(ChapterScreen(Material, find_chapter("fine-tuning")))
        await until(pilot, lambda: pilot.app.screen.query("#figure-message"))
        await until(pilot, lambda: "`lotr-tui fetch smollm2`" in shown(pilot, "figure-message"))
