"""Dialog for a new training: preset, corpus, name of the run and settings."""

from pathlib import Path

from textual.widgets import Input, OptionList

from engine.config import DataConfig
from engine.data.corpus import names_speakers
from engine.models.pretrained.names import BASE_FILE, SMOLLM2, base_folder
from engine.presets import PRESETS
from lotr_tui.screens.dialogs.dialog import FieldInput
from lotr_tui.screens.dialogs.new_training import OFFERED_PRESETS, NewTraining, NewTrainingDialog
from lotr_tui.screens.session.screen import SessionScreen
from tests.support.open_models import bpe_tokenizer
from tests.support.pilot import text_of, until
from tests.support.training import write_initial_run


async def show(pilot, runs_dir, corpus=""):
    results = []
    await pilot.app.push_screen(NewTrainingDialog(corpus, runs_dir), results.append)
    await pilot.pause()
    return results


def fill(pilot, **values):
    for field, value in values.items():
        pilot.app.screen.query_one(f"#{field}", Input).value = value


def problem(pilot):
    return text_of(pilot.app.screen.query_one("#problem"))


def hint(pilot):
    return text_of(pilot.app.screen.query_one(".dialog-text"))


async def test_all_fields_are_part_of_the_training(make_host, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus = Path("own.txt")
    corpus.write_text("the lamp was lit\n")
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, tmp_path)
        epochs = pilot.app.screen.query_one("#epochs", Input)
        assert epochs.placeholder == "7"  # of the highlighted preset
        await pilot.press("enter")
        await until(pilot, lambda: results)
        assert results == [NewTraining(PRESETS["tiny"], None)]

        results = await show(pilot, tmp_path)
        names = list(OFFERED_PRESETS)
        await pilot.press(*["down"] * (names.index("notebook") - names.index("tiny")), "tab")
        settings = "lr=0.5 sample_prompt='the lamp'"
        await pilot.press(*str(corpus), "tab", *"mine", "tab", *"3", "tab", *settings, "enter")
        await until(pilot, lambda: results)
        values = {"corpus": str(corpus), "corpus_format": "text", "epochs": 3, "lr": 0.5, "sample_prompt": "the lamp"}
        assert results == [NewTraining(PRESETS["notebook"].with_values(**values), "mine")]


async def test_fine_tuning_starts_from_the_run_that_the_settings_name(make_host, tmp_path):
    write_initial_run(tmp_path / "pieces", bpe_tokenizer(), embedding_size=12, hidden_size=20)
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await show(pilot, tmp_path)
        await pilot.press("down", "down")
        fill(pilot, settings="init=nothing")
        await pilot.press("enter")
        await until(pilot, lambda: "run 'nothing' is neither in" in problem(pilot))
        fill(pilot, settings="init=pieces lr=0.5")
        await pilot.press("enter")
        await until(pilot, lambda: results)
        config = results[0].config
        assert (config.preset, config.training.init, config.training.lr) == ("finetune", "pieces", 0.5)
        assert (config.data.tokenizer, config.model.embedding_size, config.model.hidden_size) == ("bpe", 12, 20)


async def test_errors_are_shown_and_nothing_is_lost(make_host, tmp_path):
    (tmp_path / "taken").mkdir()
    async with make_host().run_test(size=(60, 20)) as pilot:
        results = await show(pilot, tmp_path)
        for field, value, message in [
            ("corpus", "/nowhere/x.csv", "/nowhere/x.csv is not a file; fix the path or clear it"),
            ("corpus", "x" * 5000, "xxx is not a file"),
            ("corpus", "a\0b", "a\N{REPLACEMENT CHARACTER}b is not a file"),
            ("corpus", "/dev/null", "is not a file"),
            ("run", "a/b", "run name 'a/b'"),
            ("run", "taken", "exists already; choose another name"),
            ("epochs", "many", "epochs=many is not a whole number from 1 to 100000"),
            ("settings", "epoch=3", "unknown setting 'epoch'; did you mean epochs?"),
            ("settings", "sample_prompt='the", "a quotation mark is not closed"),
            ("settings", "softmax_samples=5", "softmax_samples and label_smoothing cannot be combined"),
        ]:
            fill(pilot, **{"settings": "seed=7", field: value})
            await pilot.press("enter")
            await until(pilot, lambda: message in problem(pilot))  # noqa: B023
            assert pilot.app.screen.query_one(f"#{field}", Input).value in (value, value[:4096])
            fill(pilot, **{field: ""})
            await pilot.pause()
            assert not problem(pilot)
        fill(pilot, epochs="3", settings="epochs=4")
        await pilot.press("enter")
        await until(pilot, lambda: "set twice" in problem(pilot))
        assert not results


async def test_settings_and_corpus_are_completed(make_host, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lines.csv").touch()
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, tmp_path)
        settings = pilot.app.screen.query_one("#settings", FieldInput)
        settings.focus()
        for typed, completed in (("lr=1 opt", "lr=1 optimizer="), ("s", "lr=1 optimizer=sgd")):
            await pilot.press(*typed)
            await pilot.press("tab")
            await until(pilot, lambda: settings.value == completed)  # noqa: B023
            await until(pilot, lambda: "optimizer (adamw or adam or sgd): optimizer of the main" in hint(pilot))
        await pilot.press("space", *"lr")
        await until(pilot, lambda: f"lr ({PRESETS['tiny'].training.lr}): peak learning rate" in hint(pilot))
        corpus = pilot.app.screen.query_one("#corpus", FieldInput)
        corpus.focus()
        corpus.value = f"{tmp_path}/da"
        await pilot.press("end")
        for completed in ("data/", "data/lines.csv"):
            await pilot.press("tab")
            await until(pilot, lambda: corpus.value == f"{tmp_path}/{completed}")  # noqa: B023
        await pilot.press("tab")
        await until(pilot, lambda: pilot.app.focused is pilot.app.screen.query_one("#run"))


async def test_training_that_cannot_be_prepared_is_asked_for_again_with_the_same_texts(make_app, tmp_path):
    """An error in the corpus is found after the dialog is closed, since reading the corpus takes a while."""
    corpus = tmp_path / "own.csv"
    corpus.write_text("nonsense\n")
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        for is_again in (False, True):
            await pilot.press("ctrl+t")
            await until(pilot, lambda: isinstance(app.screen, NewTrainingDialog))
            await pilot.pause()
            if is_again:
                break
            await pilot.press("up")
            fill(pilot, corpus=str(corpus), run="mine", settings="seed=7")
            await pilot.press("enter")
            await until(pilot, lambda: app.state.training_view is not None and app.state.training_view.failure)
            await until(pilot, lambda: not app.state.is_training)
            assert isinstance(app.screen, SessionScreen)
        texts = {field.id: field.value for field in app.screen.query(Input)}
        assert texts == {"corpus": str(corpus), "run": "mine", "epochs": "", "settings": "seed=7"}
        presets = app.screen.query_one("#answers", OptionList)
        assert str(presets.get_option_at_index(presets.highlighted).prompt).startswith("default")


async def test_a_corpus_with_speakers_is_offered_a_conversation_first(make_app, tmp_path):
    corpus = tmp_path / "play.txt"
    corpus.write_text("ROMEO:\nBut soft!\n\nJULIET:\nAy me!\n")
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await pilot.press("ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, NewTrainingDialog))
        presets = app.screen.query_one("#answers", OptionList)
        assert str(presets.get_option_at_index(presets.highlighted).prompt).startswith("tiny")
        assert "lora" in str(presets.get_option_at_index(0).prompt)  # tiny is suggested: SmolLM2 is not there
        await pilot.press("escape")
    assert names_speakers(DataConfig(corpus=str(corpus), corpus_format="text"))
    for text in ("a,char\nx,y\n", "A line.\nAnother one.\n"):
        corpus.write_text(text)
        assert names_speakers(DataConfig(corpus=str(corpus))) == ("char" in text)
    assert not names_speakers(DataConfig(corpus=str(corpus), corpus_format="text"))
    assert not names_speakers(DataConfig(corpus="/no/such\0file"))


async def test_the_conversation_is_suggested_where_smollm2_is_there(make_host, tmp_path):
    base_folder(SMOLLM2).mkdir(parents=True)
    (base_folder(SMOLLM2) / BASE_FILE).touch()
    async with make_host().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(NewTrainingDialog("", tmp_path, has_speakers=True))
        await pilot.press("enter")
        await until(pilot, lambda: "smollm2 is damaged" in problem(pilot))
