"""Models side by side: what each would say alone, how they come to be there, and what goes wrong."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from engine.analysis.perplexity import evaluate
from engine.config import Config
from engine.data.dataset import Dataset, prepare
from engine.data.vocabulary import EOS, UNK, Vocabulary
from engine.errors import CorpusError, RunError
from engine.generation.generate import TokenEvent, encode_prompt, stream
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from engine.models.ngram import KneserNey
from engine.models.numpy_lstm import Decoder, weight_shapes
from engine.runs.combine import Combination, Combiner
from engine.runs.store import load
from lotr_tui.app import LotrApp
from lotr_tui.screens.comparison import side_by_side
from lotr_tui.screens.comparison.columns import MARK, Columns
from lotr_tui.screens.comparison.side_by_side import Choice, ChooseColumn, SideBySideScreen, load_choice
from lotr_tui.session.player import Player
from tests.conftest import sentences, write_csv, write_run
from tests.lotr_tui.conftest import Host, make_decoder
from tests.lotr_tui.screens.comparison.test_ladder import SIZES, ended, lines, note, shown, words_in
from tests.lotr_tui.screens.session.test_session_screen import set_field, text_of, until

MakeApp = Callable[..., Host]
PROMPT = "the tower"


class Loader:
    """Stands in for `load_choice`: models of these tests, each held back until `released`."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.asked: list[Choice] = []
        self.failure: Exception | None = None

    def __call__(self, choice: Choice, runs_dir: Path | None) -> Player:
        self.asked.append(choice)
        self.released.wait(10)
        if self.failure:
            raise self.failure
        return Player(choice.name, f"valid {60 + len(self.asked)}.0", make_decoder(len(self.asked)))


@pytest.fixture
def make_app(make_host: MakeApp) -> MakeApp:
    """These models need no session behind them."""
    return make_host


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loader]:
    loader = Loader()
    monkeypatch.setattr(side_by_side, "load_choice", loader)
    yield loader
    loader.released.set()


async def open_screen(
    pilot: Pilot[None], prompt: str = PROMPT, run: Path | None = Path("runs/mine")
) -> SideBySideScreen:
    player = Player("mine", "valid 74.9", make_decoder(), run=run)
    app = pilot.app
    assert isinstance(app, LotrApp)
    screen = SideBySideScreen(player, app.runs_dir, prompt, SamplerSettings(top_k=20), 3, 0)
    await app.push_screen(screen)
    await pilot.pause()
    return screen


def alone(model: LanguageModel, prompt: str = PROMPT, seed: int = 3, temperature: float = 0.8) -> list[str]:
    ids = encode_prompt(prompt, model.vocabulary).ids
    events = stream(model, ids, SamplerSettings(temperature=temperature, top_k=20), seed)
    return [event.text for event in events if isinstance(event, TokenEvent)]


@SIZES
async def test_kneser_ney_comes_beside_the_model_once_it_is_counted(
    make_app: MakeApp, loader: Loader, size: tuple[int, int]
) -> None:
    async with make_app().run_test(size=size) as pilot:
        screen = await open_screen(pilot)
        await until(pilot, lambda: screen.slots[0].text.done)
        await pilot.pause()
        assert "counting the n-grams" in " ".join(shown(screen).split())
        assert screen.slots[1].text.blank
        loader.released.set()
        await ended(pilot, screen)
        assert loader.asked == [Choice("kneser-ney", "runs/mine")]
        assert [words_in(slot.text) for slot in screen.slots] == [alone(make_decoder(0)), alone(make_decoder(1))]
        assert lines(screen)[0].split() == ["mine", "Kneser-Ney"]
        assert lines(screen)[1].split() == ["valid", "74.9", "valid", "61.0"]
        assert MARK in shown(screen)
        assert "first column" in note(screen)
        assert "temperature 0.80 → top-k" in text_of(screen.query_one("#status"))


@SIZES
async def test_every_key_of_the_table(make_app: MakeApp, loader: Loader, size: tuple[int, int]) -> None:
    loader.released.set()
    async with make_app().run_test(size=size) as pilot:
        screen = await open_screen(pilot, prompt="")
        assert screen.asked is None
        await pilot.press(*"lamp", "enter")
        await ended(pilot, screen)
        await pilot.press("f6")
        assert screen.chosen == 1
        await pilot.press("f5")
        assert screen.chosen == 0

        await pilot.press("f8")
        await ended(pilot, screen)
        assert {slot.temperature for slot in screen.slots} == {0.85}
        assert words_in(screen.slots[0].text) == alone(make_decoder(), "lamp", temperature=0.85)
        await pilot.press("f7")
        assert {slot.temperature for slot in screen.slots} == {0.8}

        await pilot.press("f3")
        assert isinstance(pilot.app.screen, ChooseColumn)
        await pilot.press("escape")
        assert len(screen.slots) == 2
        await pilot.press("f3", "down", "enter")
        assert loader.asked[-1] == Choice("mixture", "runs/mine")
        await ended(pilot, screen)
        assert words_in(screen.slots[2].text) == alone(make_decoder(2), "lamp")
        assert "mine + Kneser-Ney" in shown(screen)
        assert screen.chosen == 2
        await pilot.press("f3")
        assert pilot.app.screen is screen
        assert "as many as can be read" in note(screen)

        await pilot.press("ctrl+r")
        assert screen.asked is not None
        assert screen.asked[1] != 3
        await ended(pilot, screen)
        assert words_in(screen.slots[2].text) == alone(make_decoder(2), "lamp", screen.asked[1])

        await pilot.press("f4", "f4")
        assert [slot.text.title for slot in screen.slots] == ["mine"]
        await pilot.press("f4")
        assert "one column stays" in note(screen)

        set_field(pilot.app, "max_tokens", "400")  # type: ignore[arg-type]
        set_field(pilot.app, "temperature", "1.5")  # type: ignore[arg-type]
        await pilot.press("enter")
        await ended(pilot, screen)
        screen.query_one(Columns).focus()
        end = lines(screen)
        await pilot.press("pageup")
        up = lines(screen)
        await pilot.press("pagedown")
        assert lines(screen) == end
        assert up != end or len(words_in(screen.slots[0].text)) < 40
        await pilot.press("escape")
        assert screen not in pilot.app.screen_stack


async def test_the_list_has_the_runs_and_what_can_be_made(make_app: MakeApp, loader: Loader, tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "other")
    (run / "metrics.jsonl").write_text(json.dumps({"event": "evaluated", "epoch": 1, "valid_perplexity": 70.5}) + "\n")
    loader.released.set()
    async with make_app().run_test(size=(80, 24)) as pilot:
        screen = await open_screen(pilot)
        await pilot.press("f3")
        options = pilot.app.screen.query_one(OptionList)
        texts = [str(options.get_option_at_index(i).prompt) for i in range(options.option_count)]
        assert [text.split()[0] for text in texts] == ["Kneser-Ney,", "mine", "bundled", "other"]
        assert "valid   70.5" in texts[-1]
        await pilot.press("end", "enter")
        await until(pilot, lambda: loader.asked[-1] == Choice("run", str(run)))
        await ended(pilot, screen)
        assert screen.slots[2].text.title == "other"


async def test_a_player_without_a_run_stands_alone_at_first(make_app: MakeApp, loader: Loader) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        screen = await open_screen(pilot, run=None)
        await ended(pilot, screen)
        assert loader.asked == []
        assert words_in(screen.slots[0].text) == alone(make_decoder())


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (RunError("run 'x' is neither here\nnor there"), "Kneser-Ney: run 'x' is neither here nor there"),
        (MemoryError("no [room]"), "Kneser-Ney: MemoryError: no [room]"),
    ],
)
async def test_what_cannot_be_loaded_is_said_in_one_line(
    make_app: MakeApp, loader: Loader, failure: Exception, said: str
) -> None:
    loader.failure = failure
    loader.released.set()
    async with make_app().run_test(size=(80, 24)) as pilot:
        screen = await open_screen(pilot)
        await until(pilot, lambda: len(screen.slots) == 1)
        await ended(pilot, screen)
        assert note(screen) == said
        assert words_in(screen.slots[0].text) == alone(make_decoder())


async def test_a_column_taken_away_or_left_while_it_loads(make_app: MakeApp, loader: Loader) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        screen = await open_screen(pilot)
        await until(pilot, lambda: screen.slots[0].text.done)
        await pilot.press("f6", "f4")
        assert len(screen.slots) == 1
        loader.released.set()
        await until(pilot, lambda: not screen.poll())
        assert len(screen.slots) == 1
        loader.released.clear()
        await pilot.press("f3", "enter")
        await pilot.pause()
        await pilot.press("escape")
        assert screen not in pilot.app.screen_stack


async def test_models_of_other_words_read_the_prompt_in_their_own_way(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = KneserNey(np.array([2, 3, 4, 1, 2, 4, 1]), Vocabulary((UNK, EOS, "the", "road", "goes")))
    monkeypatch.setattr(side_by_side, "load_choice", lambda choice, runs_dir: Player("few words", "", others))
    async with make_app().run_test(size=(80, 24)) as pilot:
        screen = await open_screen(pilot, prompt="the tower")
        await until(pilot, lambda: "few words" in note(screen))
        await ended(pilot, screen)
        assert note(screen) == "not in every vocabulary, read as <unk>: tower (few words)"
        assert words_in(screen.slots[1].text) == alone(others)
        screen.query_one("#prompt", Input).value = "tower"
        await pilot.press("enter")
        await ended(pilot, screen)
        assert "knows none of the prompt's words: tower" in screen.slots[1].text.failure
        assert "the model knows none" in shown(screen)
        assert "same" not in shown(screen)
        assert words_in(screen.slots[0].text) == alone(make_decoder(), "tower")


async def test_a_model_that_cannot_read_the_prompt_is_there_all_the_same(make_app: MakeApp, loader: Loader) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        screen = await open_screen(pilot, prompt="xylophone")
        assert "counting" in shown(screen)
        loader.released.set()
        await until(pilot, lambda: screen.slots[1].model)
        await until(pilot, lambda: "counting" not in shown(screen))
        assert "valid 61.0" in shown(screen)
        assert "knows none of the prompt's words: xylophone" in note(screen)


async def test_a_model_that_breaks_is_told_and_the_screen_goes_on(make_app: MakeApp, loader: Loader) -> None:
    class Broken:
        vocabulary = make_decoder().vocabulary

        def start(self) -> None:
            return None

        def advance(self, state: None, token: int) -> tuple[np.ndarray, None]:
            raise RuntimeError("out of [order]")

    async with make_app().run_test(size=(80, 24)) as pilot:
        screen = await open_screen(pilot, prompt="", run=None)
        screen.slots[0].model = Broken()
        screen.query_one("#prompt", Input).value = PROMPT
        await pilot.press("enter")
        await ended(pilot, screen)
        assert "broken off: RuntimeError: out of [order]" in shown(screen)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    corpus = write_csv(tmp_path_factory.mktemp("corpus") / "small.csv", sentences(120))
    return prepare(Config("tiny").with_values(corpus=str(corpus)).data)


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of that corpus on the disk, which knows how frequent its words are."""
    folder = tmp_path_factory.mktemp("runs") / "small-run"
    config = Config("tiny").with_values(corpus=dataset.corpus.source, embedding_size=6, hidden_size=6)
    chance = np.random.default_rng(0)
    shapes = weight_shapes(config.model, len(dataset.vocabulary))
    weights = {name: chance.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    weights["output.bias"] = np.log(np.bincount(dataset.train, minlength=len(dataset.vocabulary)) + 1).astype("f4")
    folder.mkdir()
    (folder / "config.json").write_text(config.to_json())
    (folder / "vocabulary.json").write_text(dataset.vocabulary.to_json())
    (folder / "model.safetensors").write_bytes(save(weights))
    return folder


def test_a_choice_loads_what_it_says_with_its_perplexity(run: Path, dataset: Dataset) -> None:
    player = load_choice(Choice("run", str(run)), None)
    assert isinstance(player.model, Decoder)
    assert player.name == "small-run"
    counted = load_choice(Choice("kneser-ney", str(run)), None)
    assert isinstance(counted.model, KneserNey)
    by_hand = KneserNey(dataset.train, dataset.vocabulary)
    assert counted.description == f"5-gram counts · valid {evaluate(by_hand, dataset.valid).perplexity:.1f}"
    mixed = load_choice(Choice("mixture", str(run)), None)
    combined = Combiner([load(run)]).combine(Combination(mixture=True))
    perplexity = evaluate(combined.model, dataset.valid).perplexity
    assert mixed.description == f"{combined.describe()} · valid {perplexity:.1f}"
    assert perplexity < evaluate(player.model, dataset.valid).perplexity
    assert mixed.run == counted.run == player.run == run


def test_a_corpus_that_is_gone_is_an_error_to_act_on(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    config = Config.from_json((run / "config.json").read_text(), "config")
    away = replace(config, data=replace(config.data, corpus=str(tmp_path / "away.csv")))
    (moved / "config.json").write_text(away.to_json())
    for name in ("vocabulary.json", "model.safetensors"):
        (moved / name).write_bytes((run / name).read_bytes())
    assert load_choice(Choice("run", str(moved)), None).name == "moved"
    with pytest.raises(CorpusError, match=r"away\.csv"):
        load_choice(Choice("kneser-ney", str(moved)), None)
