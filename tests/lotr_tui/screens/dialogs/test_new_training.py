"""Dialog for a new training: preset, corpus, name of the run and settings."""

from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from engine.presets import PRESETS
from lotr_tui.screens.dialogs.completing_input import CompletingInput
from lotr_tui.screens.dialogs.new_training import (
    FIELDS,
    OFFERED_PRESETS,
    PRESET_DESCRIPTIONS,
    NewTraining,
    NewTrainingDialog,
)
from lotr_tui.screens.session.screen import SessionScreen
from tests.support.app import FakeJob, training_events
from tests.support.initial_runs import write_initial_run
from tests.support.open_models import bpe_tokenizer
from tests.support.pilot import MakeApp, text_of, until

MAX_PATH = 200


async def show(pilot: Pilot[None], runs_dir: Path, corpus: str = "") -> list[NewTraining | None]:
    results: list[NewTraining | None] = []
    await pilot.app.push_screen(NewTrainingDialog(corpus, runs_dir), results.append)
    await pilot.pause()
    return results


def fill(pilot: Pilot[None], **values: str) -> None:
    for field, value in values.items():
        pilot.app.screen.query_one(f"#{field}", Input).value = value


def problem(pilot: Pilot[None], field: str) -> str:
    problem = pilot.app.screen.query_one(f"#{field}-problem")
    return text_of(problem) if problem.display else ""


def hint(pilot: Pilot[None]) -> str:
    return text_of(pilot.app.screen.query_one("#hint"))


async def test_enter_starts_the_highlighted_preset(make_host: MakeApp, tmp_path: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, tmp_path)
        await pilot.press("enter")
        await until(pilot, lambda: results)
        assert results == [NewTraining(PRESETS["tiny"], None)]


async def test_all_fields_are_part_of_the_training(
    make_host: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    corpus = Path("own.txt")
    corpus.write_text("the lamp was lit\n")
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, tmp_path)
        names = list(OFFERED_PRESETS)
        downs = ["down"] * (names.index("notebook") - names.index("tiny"))
        await pilot.press(*downs, "tab", *str(corpus), "tab", *"mine", "tab", *"3", "tab", *"lr=0.5 seed=7", "enter")
        await until(pilot, lambda: results)
        config = PRESETS["notebook"].with_values(corpus=str(corpus), corpus_format="text", epochs=3, lr=0.5, seed=7)
        assert results == [NewTraining(config, "mine")]


async def test_fine_tuning_starts_from_the_run_that_the_settings_name(make_host: MakeApp, tmp_path: Path) -> None:
    write_initial_run(tmp_path / "pieces", bpe_tokenizer(), embedding_size=12, hidden_size=20)
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, tmp_path)
        await pilot.press("down", "down")
        fill(pilot, settings="init=nothing")
        await pilot.press("enter")
        await until(pilot, lambda: "run 'nothing' is neither in" in problem(pilot, "settings"))
        fill(pilot, settings="init=pieces lr=0.5")
        await pilot.press("enter")
        await until(pilot, lambda: results)
        assert results[0] is not None
        config = results[0].config
        assert (config.preset, config.training.init, config.training.lr) == ("finetune", "pieces", 0.5)
        assert (config.data.tokenizer, config.model.embedding_size, config.model.hidden_size) == ("bpe", 12, 20)


async def test_value_with_spaces_is_quoted(make_host: MakeApp, tmp_path: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, tmp_path)
        fill(pilot, settings="sample_prompt='the lamp' tie_weights=no")
        await pilot.press("enter")
        await until(pilot, lambda: results)
        assert results[0] is not None
        assert results[0].config == PRESETS["tiny"].with_values(sample_prompt="the lamp", tie_weights=False)


@pytest.mark.parametrize("corpus", ["/nowhere/x.csv", "x" * 5000, "~nobody-of-this-name/x.csv", "[red]x", "a\0b"])
async def test_missing_corpus_is_reported_at_its_field(make_host: MakeApp, tmp_path: Path, corpus: str) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, tmp_path, corpus)
        await pilot.press("enter")
        await until(pilot, lambda: problem(pilot, "corpus"))
        shown = corpus[:MAX_PATH].replace("\0", "\N{REPLACEMENT CHARACTER}")
        assert f"file not found: {shown}; fix the path or clear it" in problem(pilot, "corpus")
        assert not results


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("corpus", "/dev", "is a folder; add the name of a file in it"),
        ("corpus", "/dev/null", "is not a regular file"),
        ("run", "a/b", "run name 'a/b'"),
        ("run", "taken", "exists already; choose another name"),
        ("epochs", "many", "epochs=many is not a whole number from 1 to 100000"),
        ("epochs", "0", "epochs=0 is not a whole number from 1 to 100000"),
        ("settings", "epoch=3", "unknown setting 'epoch'; did you mean epochs?"),
        ("settings", "optimizer=adan", "did you mean adam?"),
        ("settings", "lr", "'lr' has no value; write name=value"),
        ("settings", "sample_prompt='the", "a quotation mark is not closed"),
        ("settings", "softmax_samples=5", "softmax_samples and label_smoothing cannot be combined"),
    ],
)
async def test_error_is_shown_at_its_field_and_nothing_is_lost(
    make_host: MakeApp, tmp_path: Path, field: str, value: str, message: str
) -> None:
    (tmp_path / "taken").mkdir()
    async with make_host().run_test(size=(60, 20)) as pilot:
        results = await show(pilot, tmp_path)
        fill(pilot, settings="seed=7")
        fill(pilot, **{field: value})
        await pilot.press("enter")
        await until(pilot, lambda: message in problem(pilot, field))
        assert [other for other in FIELDS if problem(pilot, other)] == [field]
        assert pilot.app.focused is pilot.app.screen.query_one(f"#{field}")
        assert pilot.app.screen.query_one(f"#{field}", Input).value == value
        assert not results
        fill(pilot, **{field: ""})
        await pilot.pause()
        assert not problem(pilot, field)


async def test_epochs_that_are_set_twice_are_refused(make_host: MakeApp, tmp_path: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, tmp_path)
        fill(pilot, epochs="3", settings="epochs=4")
        await pilot.press("enter")
        await until(pilot, lambda: "set twice" in problem(pilot, "settings"))


async def test_settings_are_completed_and_explained(make_host: MakeApp, tmp_path: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, tmp_path)
        settings = pilot.app.screen.query_one("#settings", CompletingInput)
        settings.focus()
        await pilot.press(*"lr=1 opt")
        await until(pilot, lambda: settings._suggestion == "lr=1 optimizer=")
        assert "optimizer (adamw or adam or sgd): optimizer of the main training" in hint(pilot)
        await pilot.press("tab")
        await until(pilot, lambda: settings.value == "lr=1 optimizer=")
        await pilot.press("s")
        await until(pilot, lambda: settings._suggestion == "lr=1 optimizer=sgd")
        await pilot.press("tab")
        await until(pilot, lambda: settings.value == "lr=1 optimizer=sgd")
        await pilot.press("space", *"lr")
        await until(pilot, lambda: f"lr ({PRESETS['tiny'].training.lr}): peak learning rate" in hint(pilot))


async def test_corpus_is_completed(make_host: MakeApp, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lines.csv").touch()
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, tmp_path)
        corpus = pilot.app.screen.query_one("#corpus", CompletingInput)
        corpus.focus()
        corpus.value = f"{tmp_path}/da"
        await pilot.press("end", "tab")
        await until(pilot, lambda: corpus.value == f"{tmp_path}/data/")
        await pilot.press("tab")
        await until(pilot, lambda: corpus.value == f"{tmp_path}/data/lines.csv")
        await pilot.press("tab")
        await until(pilot, lambda: pilot.app.focused is pilot.app.screen.query_one("#run"))


async def test_empty_fields_show_the_values_of_the_preset(make_host: MakeApp, tmp_path: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, tmp_path)
        epochs = pilot.app.screen.query_one("#epochs", Input)
        assert epochs.placeholder == "7"
        await pilot.press("up")
        await until(pilot, lambda: epochs.placeholder == str(PRESETS["default"].training.epochs))


async def test_mouse_highlights_a_preset_and_starts_with_the_last_line(make_host: MakeApp, tmp_path: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, tmp_path)
        await pilot.click("#preset", offset=(3, 0))
        presets = pilot.app.screen.query_one("#preset", OptionList)
        await until(pilot, lambda: presets.highlighted == 0)
        assert not results
        await pilot.click("KeysLine", offset=(2, 0))
        await until(pilot, lambda: results)
        assert results == [NewTraining(PRESETS["default"], None)]


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 35)])
async def test_every_part_fits_on_the_screen(make_host: MakeApp, tmp_path: Path, size: tuple[int, int]) -> None:
    async with make_host().run_test(size=size) as pilot:
        await show(pilot, tmp_path)
        fill(pilot, corpus="/nowhere")
        await pilot.press("enter")
        await until(pilot, lambda: problem(pilot, "corpus"))
        dialog = pilot.app.screen.query_one(".dialog")
        for selector in ("#preset", "#corpus", "#run", "#epochs", "#settings", "#hint", "KeysLine"):
            part = pilot.app.screen.query_one(selector)
            assert dialog.region.contains_region(part.region), selector
        assert pilot.app.screen.region.contains_region(dialog.region)


async def test_run_gets_the_chosen_name(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []

    def prepare(config: object, run_name: str | None = None, **_: object) -> FakeJob:
        names.append(run_name)
        return FakeJob(training_events()).release(5)

    monkeypatch.setattr("engine.training.job.prepare_job", prepare)
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, NewTrainingDialog))
        await pilot.pause()
        fill(pilot, run="mine")
        await pilot.press("enter")
        await until(pilot, lambda: names)
        assert isinstance(app.screen, SessionScreen)
        assert names == ["mine"]


async def test_training_that_cannot_be_prepared_is_asked_for_again_with_the_same_texts(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An error in the corpus is found after the dialog is closed, since reading the corpus takes a while."""
    corpus = tmp_path / "own.csv"
    corpus.write_text("nonsense\n")
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, NewTrainingDialog))
        await pilot.pause()
        await pilot.press("up")
        fill(pilot, corpus=str(corpus), run="mine", settings="seed=7")
        await pilot.press("enter")
        await until(pilot, lambda: app.training_view is not None and app.training_view.failure)
        await until(pilot, lambda: not app.is_training)
        await pilot.press("ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, NewTrainingDialog))
        await pilot.pause()
        texts = {name: app.screen.query_one(f"#{name}", Input).value for name in FIELDS}
        assert texts == {"corpus": str(corpus), "run": "mine", "epochs": "", "settings": "seed=7"}
        presets = app.screen.query_one("#preset", OptionList)
        assert presets.get_option_at_index(presets.highlighted or 0).id == "default"


def test_every_preset_is_described() -> None:
    assert set(PRESET_DESCRIPTIONS) == set(PRESETS) - {"student"}
