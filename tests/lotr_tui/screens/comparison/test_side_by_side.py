"""Tests of the side-by-side screen: columns that differ by model, and how their models are loaded."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from engine.analysis.perplexity import evaluate
from engine.config import Config
from engine.data.dataset import Dataset, load_dataset
from engine.data.tokenizers.base import EOS, UNK
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import CorpusError, RunError
from engine.generation.generate import TokenEvent, generate
from engine.generation.prompt import encode_prompt
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from engine.models.ngram import KneserNey
from engine.models.numpy_lstm import NumpyLSTM
from engine.runs.combine import CombinationOptions, ModelCombiner
from engine.runs.loading import load_model
from lotr_tui.app import LotrApp
from lotr_tui.screens.comparison import side_by_side
from lotr_tui.screens.comparison.columns import DIFFERENCE_MARK, GenerationColumns
from lotr_tui.screens.comparison.model_dialog import ModelChoiceDialog
from lotr_tui.screens.comparison.side_by_side import SideBySideScreen
from lotr_tui.session.baselines import ModelChoice, load_model_choice
from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import MakeHost
from tests.support.app import make_decoder
from tests.support.columns import SIZES, column_lines, columns_text, generated_words, note_text, until_columns_ended
from tests.support.files import sentences, write_csv, write_run
from tests.support.models import random_lstm
from tests.support.pilot import set_field, text_of, until

PROMPT = "the tower"


class Loader:
    """Replacement for `load_model_choice` that waits for `released` and returns small models."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.choices: list[ModelChoice] = []
        self.failure: Exception | None = None

    def __call__(self, choice: ModelChoice, runs_dir: Path | None) -> SessionModel:
        self.choices.append(choice)
        self.released.wait(10)
        if self.failure:
            raise self.failure
        return SessionModel(choice.name, f"valid {60 + len(self.choices)}.0", make_decoder(len(self.choices)))


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loader]:
    loader = Loader()
    monkeypatch.setattr(side_by_side, "load_model_choice", loader)
    yield loader
    loader.released.set()


async def open_screen(
    pilot: Pilot[None], prompt: str = PROMPT, run: Path | None = Path("runs/mine")
) -> SideBySideScreen:
    session_model = SessionModel("mine", "valid 74.9", make_decoder(), run=run)
    app = pilot.app
    assert isinstance(app, LotrApp)
    screen = SideBySideScreen(session_model, app.runs_dir, prompt, SamplerSettings(top_k=20), 3, 0)
    await app.push_screen(screen)
    await pilot.pause()
    return screen


def expected_words(model: LanguageModel, prompt: str = PROMPT, seed: int = 3, temperature: float = 0.8) -> list[str]:
    ids = encode_prompt(prompt, model.tokenizer).ids
    events = generate(model, ids, SamplerSettings(temperature=temperature, top_k=20), seed)
    return [event.text for event in events if isinstance(event, TokenEvent)]


@SIZES
async def test_a_kneser_ney_column_is_added_once_it_is_counted(
    make_host: MakeHost, loader: Loader, size: tuple[int, int]
) -> None:
    async with make_host().run_test(size=size) as pilot:
        screen = await open_screen(pilot)
        await until(pilot, lambda: screen.slots[0].output.done_event)
        await pilot.pause()
        assert "counting the n-grams" in " ".join(columns_text(screen).split())
        assert screen.slots[1].output.is_empty
        loader.released.set()
        await until_columns_ended(pilot, screen)
        assert loader.choices == [ModelChoice("kneser-ney", "runs/mine")]
        assert [generated_words(slot.output) for slot in screen.slots] == [
            expected_words(make_decoder(0)),
            expected_words(make_decoder(1)),
        ]
        assert column_lines(screen)[0].split() == ["mine", "Kneser-Ney"]
        assert column_lines(screen)[1].split() == ["valid", "74.9", "valid", "61.0"]
        assert DIFFERENCE_MARK in columns_text(screen)
        assert "first column" in note_text(screen)
        status = text_of(screen.query_one("#status"))
        assert "side by side: continuations" in status
        assert size[0] == 60 or "temperature 0.80 → top-k" in status


@SIZES
async def test_every_key_acts_as_described(make_host: MakeHost, loader: Loader, size: tuple[int, int]) -> None:
    loader.released.set()
    async with make_host().run_test(size=size) as pilot:
        screen = await open_screen(pilot, prompt="")
        assert screen.prompt_and_seed is None
        await pilot.press(*"lamp", "enter")
        await until_columns_ended(pilot, screen)
        await pilot.press("f6")
        assert screen.selected_index == 1
        await pilot.press("f5")
        assert screen.selected_index == 0

        await pilot.press("f8")
        await until_columns_ended(pilot, screen)
        assert {slot.temperature for slot in screen.slots} == {0.85}
        assert generated_words(screen.slots[0].output) == expected_words(make_decoder(), "lamp", temperature=0.85)
        await pilot.press("f7")
        assert {slot.temperature for slot in screen.slots} == {0.8}

        await pilot.press("f3")
        assert isinstance(pilot.app.screen, ModelChoiceDialog)
        await pilot.press("escape")
        assert len(screen.slots) == 2
        await pilot.press("f3", "down", "enter")
        assert loader.choices[-1] == ModelChoice("mixture", "runs/mine")
        await until_columns_ended(pilot, screen)
        assert generated_words(screen.slots[2].output) == expected_words(make_decoder(2), "lamp")
        assert "mine + Kneser-Ney" in columns_text(screen)
        assert screen.selected_index == 2
        await pilot.press("f3")
        assert pilot.app.screen is screen
        assert "the maximum; f4 removes one" in note_text(screen)

        await pilot.press("ctrl+r")
        assert screen.prompt_and_seed is not None
        assert screen.prompt_and_seed[1] != 3
        await until_columns_ended(pilot, screen)
        assert generated_words(screen.slots[2].output) == expected_words(
            make_decoder(2), "lamp", screen.prompt_and_seed[1]
        )

        await pilot.press("f4", "f4")
        assert [slot.output.title for slot in screen.slots] == ["mine"]
        await pilot.press("f4")
        assert "one column must stay" in note_text(screen)

        set_field(pilot.app, "max_tokens", "400")  # type: ignore[arg-type]
        set_field(pilot.app, "temperature", "1.5")  # type: ignore[arg-type]
        await pilot.press("enter")
        await until_columns_ended(pilot, screen)
        screen.query_one(GenerationColumns).focus()
        end = column_lines(screen)
        await pilot.press("pageup")
        scrolled = column_lines(screen)
        await pilot.press("pagedown")
        assert column_lines(screen) == end
        assert scrolled != end or len(generated_words(screen.slots[0].output)) < 40
        await pilot.press("escape")
        assert screen not in pilot.app.screen_stack


async def test_the_dialog_lists_the_baseline_the_mixture_and_the_runs(
    make_host: MakeHost, loader: Loader, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "runs" / "other")
    rows = [
        {"event": "evaluated", "step": 1, "epoch": 1, "valid_perplexity": 70.5},
        {"event": "checkpointed", "step": 1, "file": "model.safetensors"},
    ]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    loader.released.set()
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_screen(pilot)
        await pilot.press("f3")
        options = pilot.app.screen.query_one(OptionList)
        texts = [str(options.get_option_at_index(i).prompt) for i in range(options.option_count)]
        assert [text.split()[0] for text in texts] == ["Kneser-Ney,", "mine", "bundled", "base", "other"]
        assert "valid   70.5" in texts[-1]
        await pilot.press("end", "enter")
        await until(pilot, lambda: loader.choices[-1] == ModelChoice("run", str(run)))
        await until_columns_ended(pilot, screen)
        assert screen.slots[2].output.title == "other"


async def test_a_model_without_a_run_has_no_baseline_column(make_host: MakeHost, loader: Loader) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_screen(pilot, run=None)
        await until_columns_ended(pilot, screen)
        assert loader.choices == []
        assert generated_words(screen.slots[0].output) == expected_words(make_decoder())


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (RunError("run 'x' is neither here\nnor there"), "Kneser-Ney: run 'x' is neither here nor there"),
        (MemoryError("no [room]"), "Kneser-Ney: MemoryError: no [room]"),
    ],
)
async def test_a_model_that_cannot_be_loaded_is_reported_on_one_line(
    make_host: MakeHost, loader: Loader, failure: Exception, message: str
) -> None:
    loader.failure = failure
    loader.released.set()
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_screen(pilot)
        await until(pilot, lambda: len(screen.slots) == 1)
        await until_columns_ended(pilot, screen)
        assert note_text(screen) == message
        assert generated_words(screen.slots[0].output) == expected_words(make_decoder())


async def test_a_column_can_be_removed_while_its_model_loads(make_host: MakeHost, loader: Loader) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_screen(pilot)
        await until(pilot, lambda: screen.slots[0].output.done_event)
        await pilot.press("f6", "f4")
        assert len(screen.slots) == 1
        loader.released.set()
        await until(pilot, lambda: not screen.is_loading)
        assert len(screen.slots) == 1
        loader.released.clear()
        await pilot.press("f3", "enter")
        await pilot.pause()
        await pilot.press("escape")
        assert screen not in pilot.app.screen_stack


async def test_each_model_reads_the_prompt_with_its_own_vocabulary(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_model = KneserNey(np.array([2, 3, 4, 1, 2, 4, 1]), WordTokenizer((UNK, EOS, "the", "road", "goes")))
    monkeypatch.setattr(
        side_by_side, "load_model_choice", lambda choice, runs_dir: SessionModel("few words", "", other_model)
    )
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_screen(pilot, prompt="the tower")
        await until(pilot, lambda: "few words" in note_text(screen))
        await until_columns_ended(pilot, screen)
        assert note_text(screen) == "not every model knows: tower (few words)"
        assert generated_words(screen.slots[1].output) == expected_words(other_model)
        screen.query_one("#prompt", Input).value = "tower"
        await pilot.press("enter")
        await until_columns_ended(pilot, screen)
        assert "knows none of the prompt's words: tower" in screen.slots[1].output.failure
        assert "the model knows none" in columns_text(screen)
        assert "same" not in columns_text(screen)
        assert generated_words(screen.slots[0].output) == expected_words(make_decoder(), "tower")


async def test_a_model_that_cannot_read_the_prompt_keeps_its_column(make_host: MakeHost, loader: Loader) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_screen(pilot, prompt="xylophone")
        assert "counting" in columns_text(screen)
        loader.released.set()
        await until(pilot, lambda: screen.slots[1].model)
        await until(pilot, lambda: "counting" not in columns_text(screen))
        assert "valid 61.0" in columns_text(screen)
        assert "knows none of the prompt's words: xylophone" in note_text(screen)


async def test_a_failing_model_is_reported_in_its_column(make_host: MakeHost, loader: Loader) -> None:
    class Broken:
        tokenizer = make_decoder().tokenizer

        def start(self) -> None:
            return None

        def advance(self, state: None, token: int) -> tuple[np.ndarray, None]:
            raise RuntimeError("out of [order]")

    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_screen(pilot, prompt="", run=None)
        screen.slots[0].model = Broken()
        screen.query_one("#prompt", Input).value = PROMPT
        await pilot.press("enter")
        await until_columns_ended(pilot, screen)
        assert "failed: RuntimeError: out of [order]" in columns_text(screen)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    corpus = write_csv(tmp_path_factory.mktemp("corpus") / "small.csv", sentences(120))
    return load_dataset(Config("tiny").with_values(corpus=str(corpus)).data)


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the disk with random weights and the word frequencies of the corpus as output bias."""
    folder = tmp_path_factory.mktemp("runs") / "small-run"
    config = Config("tiny").with_values(corpus=dataset.corpus.source, embedding_size=6, hidden_size=6)
    weights = dict(random_lstm(config.model, dataset.tokenizer, scale=0.4).weights)
    weights["output.bias"] = np.log(np.bincount(dataset.train, minlength=len(dataset.tokenizer)) + 1).astype("f4")
    folder.mkdir()
    (folder / "config.json").write_text(config.to_json())
    (folder / "vocabulary.json").write_text(dataset.tokenizer.to_json())
    (folder / "model.safetensors").write_bytes(save(weights))
    return folder


def test_each_kind_of_choice_loads_its_model_with_its_perplexity(run: Path, dataset: Dataset) -> None:
    network = load_model_choice(ModelChoice("run", str(run)), None)
    assert isinstance(network.model, NumpyLSTM)
    assert network.name == "small-run"
    baseline = load_model_choice(ModelChoice("kneser-ney", str(run)), None)
    assert isinstance(baseline.model, KneserNey)
    expected = KneserNey(dataset.train, dataset.tokenizer)
    assert baseline.description == f"5-gram counts · valid {evaluate(expected, dataset.valid).perplexity:.1f}"
    mixture = load_model_choice(ModelChoice("mixture", str(run)), None)
    combined = ModelCombiner([load_model(run)]).combine(CombinationOptions(mixture=True))
    perplexity = evaluate(combined.model, dataset.valid).perplexity
    assert mixture.description == f"{combined.describe()} · valid {perplexity:.1f}"
    assert perplexity < evaluate(network.model, dataset.valid).perplexity
    assert mixture.run == baseline.run == network.run == run


def test_a_missing_corpus_is_an_error_that_names_the_file(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    config = Config.from_json((run / "config.json").read_text(), "config")
    changed = replace(config, data=replace(config.data, corpus=str(tmp_path / "away.csv")))
    (moved / "config.json").write_text(changed.to_json())
    for name in ("vocabulary.json", "model.safetensors"):
        (moved / name).write_bytes((run / name).read_bytes())
    assert load_model_choice(ModelChoice("run", str(moved)), None).name == "moved"
    with pytest.raises(CorpusError, match=r"away\.csv"):
        load_model_choice(ModelChoice("kneser-ney", str(moved)), None)
