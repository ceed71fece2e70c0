"""Dialog for a new training: preset, corpus, name of the run and settings."""

from pathlib import Path

import pytest
from textual.widgets import Input, OptionList

from engine.data.corpus import names_speakers
from engine.models.pretrained.names import BASE_FILE, SMOLLM2, base_folder
from engine.presets import PRESETS
from lotr_tui.screens.dialogs.new_training import OFFERED_PRESETS, NewTraining, NewTrainingDialog
from lotr_tui.screens.session.screen import SessionScreen
from tests.support.lists import open_dialog, problem
from tests.support.open_models import bpe_tokenizer
from tests.support.pilot import text_of, until
from tests.support.training import write_initial_run


async def show(pilot, runs_dir, **options):
    results = []
    await pilot.app.push_screen(NewTrainingDialog("", runs_dir, **options), results.append)
    await pilot.pause()
    return results


def field(pilot, name):
    return pilot.app.screen.query_one(f"#{name}", Input)


def highlighted(pilot):
    presets = pilot.app.screen.query_one("#answers", OptionList)
    return str(presets.get_option_at_index(presets.highlighted).prompt).split()[0]


async def submit(pilot, condition, **values):
    """Fill fields, and press enter until a condition is true."""
    for name, value in values.items():
        field(pilot, name).value = value
    await pilot.press("enter")
    await until(pilot, condition)


async def test_all_fields_are_part_of_the_training(make_host, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.txt").write_text("the lamp was lit\n")
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, tmp_path)
        assert field(pilot, "epochs").placeholder == "7"  # of the highlighted preset
        await submit(pilot, lambda: results == [NewTraining(PRESETS["tiny"], None)])

        results = await show(pilot, tmp_path)
        names = list(OFFERED_PRESETS)
        await pilot.press(*["down"] * (names.index("notebook") - names.index("tiny")), "tab")
        settings = "lr=0.5 sample_prompt='the lamp'"
        await pilot.press(*"own.txt", "tab", *"mine", "tab", *"3", "tab", *settings)
        values = {"corpus": "own.txt", "corpus_format": "text", "epochs": 3, "lr": 0.5, "sample_prompt": "the lamp"}
        await submit(pilot, lambda: results == [NewTraining(PRESETS["notebook"].with_values(**values), "mine")])


async def test_fine_tuning_starts_from_the_run_that_the_settings_name(make_host, tmp_path):
    write_initial_run(tmp_path / "pieces", bpe_tokenizer(), embedding_size=12, hidden_size=20)
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, tmp_path)
        await pilot.press("down", "down")
        await submit(pilot, lambda: "run 'nothing' is neither in" in problem(pilot), settings="init=nothing")
        await submit(pilot, lambda: results, settings="init=pieces lr=0.5")
        config = results[0].config
        assert (config.preset, config.training.init, config.training.lr) == ("finetune", "pieces", 0.5)
        assert (config.data.tokenizer, config.model.embedding_size, config.model.hidden_size) == ("bpe", 12, 20)


async def test_errors_are_shown_and_nothing_is_lost(make_host, tmp_path):
    (tmp_path / "taken").mkdir()
    async with make_host().run_test(size=(60, 20)) as pilot:
        results = await show(pilot, tmp_path)
        for name, value, message in [
            ("corpus", "/nowhere/x.csv", "/nowhere/x.csv is not a file; fix the path or clear it"),
            ("corpus", "x" * 5000, "xxx is not a file"),
            ("corpus", "a\0b", "a\N{REPLACEMENT CHARACTER}b is not a file"), ("corpus", "/dev/null", "is not a file"),
            ("run", "a/b", "run name 'a/b'"), ("run", "taken", "exists already; choose another name"),
            ("epochs", "many", "epochs=many is not a whole number from 1 to 100000"),
            ("settings", "epoch=3", "unknown setting 'epoch'; did you mean epochs?"),
            ("settings", "sample_prompt='the", "a quotation mark is not closed"),
            ("settings", "softmax_samples=5", "softmax_samples and label_smoothing cannot be combined"),
            ("settings", "epochs=4", "set twice"),
        ]:  # fmt: skip
            epochs = "3" if message == "set twice" else ""
            texts = {"corpus": "", "run": "", "epochs": epochs, "settings": "seed=7", name: value}
            await submit(pilot, lambda: message in problem(pilot), **texts)  # noqa: B023
            assert field(pilot, name).value == value
            field(pilot, name).value = ""
            await until(pilot, lambda: not problem(pilot))
        assert not results


async def test_columns_that_are_not_clear_are_chosen_from_their_first_rows(make_host, tmp_path):
    corpus = tmp_path / "a.csv"
    corpus.write_text("n;person;words\n1;LUKE;Never.\n2;BEN;Use it.\n")
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, tmp_path)

        def options():
            rows = pilot.app.screen.query_one("#answers", OptionList).options
            return [str(row.prompt) for row in rows]

        texts = {"corpus": str(corpus), "settings": "mode=dialogue"}
        await submit(pilot, lambda: "words: Never. · Use it." in options(), **texts)
        assert "text" in text_of(pilot.app.screen.query_one(".dialog-title"))
        await pilot.press("w")
        await until(pilot, lambda: "speaker" in text_of(pilot.app.screen.query_one(".dialog-title")))
        assert options()[:2] == ["n: 1 · 2", "person: LUKE · BEN"]
        await pilot.press("down", "enter")
        await until(pilot, lambda: results)
        data = results[0].config.data
        assert (data.text_column, data.speaker_column) == ("words", "person")
        assert results[0].fields["settings"] == "mode=dialogue text_column=words speaker_column=person"


async def test_settings_are_completed_and_explained(make_host, tmp_path):
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, tmp_path)

        def explanation():
            return text_of(pilot.app.screen.query_one(".dialog-text"))

        settings = field(pilot, "settings")
        settings.focus()
        for typed, completed in (("lr=1 opt", "lr=1 optimizer="), ("s", "lr=1 optimizer=sgd")):
            await pilot.press(*typed, "tab")
            await until(pilot, lambda: settings.value == completed)  # noqa: B023
            await until(pilot, lambda: "optimizer (adamw or adam or sgd): optimizer of the main" in explanation())
        await pilot.press("space", *"lr")
        await until(pilot, lambda: f"lr ({PRESETS['tiny'].training.lr}): peak learning rate" in explanation())


async def test_training_that_cannot_be_prepared_is_asked_for_again_with_the_same_texts(opened, tmp_path):
    """An error in the corpus is found after the dialog is closed, since reading the corpus takes a while."""
    corpus = tmp_path / "own.csv"
    corpus.write_text("dialog\nshort\n")
    texts = {"corpus": str(corpus), "run": "mine", "settings": "seed=7"}
    async with opened((80, 24)) as (pilot, app):
        await open_dialog(pilot, "ctrl+t", NewTrainingDialog)
        await pilot.press("up")
        await submit(pilot, lambda: app.state.training_view is not None and app.state.training_view.failure, **texts)
        await until(pilot, lambda: not app.state.is_training)
        assert isinstance(app.screen, SessionScreen)
        await open_dialog(pilot, "ctrl+t", NewTrainingDialog)
        await until(pilot, lambda: app.screen.query("#settings"))
        assert {each.id: each.value for each in app.screen.query(Input)} == {**texts, "epochs": ""}
        assert highlighted(pilot) == "default"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("play.txt", "ROMEO:\nBut soft!\n\nJULIET:\nAy me!\n", True), ("story.txt", "A line.\nAnother one.\n", False),
        ("script.csv", "Text,char\nx,y\n", True), ("lines.csv", "A line.\nAnother one.\n", False),
        ("a\0b", None, False),
    ],
)  # fmt: skip
def test_speakers_are_found_in_a_corpus(tmp_path, name, text, expected):
    if text is not None:
        (tmp_path / name).write_text(text)
    assert names_speakers(str(tmp_path / name)) == bool(expected)


async def test_a_conversation_comes_first_and_is_suggested_where_smollm2_is_there(make_host, tmp_path):
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, tmp_path, has_speakers=True)
        assert highlighted(pilot) == "tiny"
        await pilot.press("home")
        assert highlighted(pilot) == "lora"
        base_folder(SMOLLM2).mkdir(parents=True)
        (base_folder(SMOLLM2) / BASE_FILE).touch()
        await show(pilot, tmp_path, has_speakers=True)
        await submit(pilot, lambda: "smollm2 is damaged" in problem(pilot))
