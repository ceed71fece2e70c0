"""Side by side: columns that differ by model or speaker, and how their models are loaded."""

import threading

import numpy as np
import pytest
from textual.widgets import Input, OptionList, Static

from engine.analysis.evaluation import evaluate
from engine.config import Config
from engine.data.dataset import load_dataset
from engine.data.scripts import Turn, encode_turns
from engine.data.tokenizers import EOS, UNK, WordTokenizer
from engine.generation.generate import Done, TextInProgress, TokenEvent, encode_prompt, generate
from engine.generation.settings import SamplerSettings
from engine.generation.turns import begin_turn, next_speaker_probs, read_turns
from engine.models.dialogue import DialogueModel
from engine.models.ngram import KneserNey
from engine.runs.loading import load_model
from lotr_tui.screens.inspect import columns_screen, comparison
from lotr_tui.screens.inspect.columns import DIFFERENCE_MARK
from lotr_tui.screens.inspect.comparison import WIDE_TEMPERATURES, LadderScreen, ModelChoiceDialog, SideBySideScreen
from lotr_tui.session.cast import Roles
from lotr_tui.session.comparison import Column, ModelChoice, load_model_choice
from lotr_tui.session.conversation import Conversation
from lotr_tui.session.read_text import PromptContext
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.screen_lines import HelpLine
from tests.support import dialogues
from tests.support.app import make_decoder
from tests.support.columns import column_lines, columns_text, generated_words, note_text, until_columns_ended
from tests.support.files import sentences, write_csv, write_run
from tests.support.open_models import RecitingModel, bpe_tokenizer, character_tokenizer
from tests.support.pilot import text_of, until
from tests.support.sampling import make_token_event, said_text_of
from tests.support.slow_models import REFUSED_TEXT, FakeSlowModel, slow_session_model

PROMPT = "the tower"


class Loader:
    """Substitute for `load_model_choice` that waits for `released` and returns small models."""

    def __init__(self):
        self.released = threading.Event()
        self.choices = []
        self.models = {}

    def __call__(self, choice, runs_dir):
        self.choices.append(choice)
        self.released.wait(10)
        number = len(self.choices)
        return SessionModel(choice.name, f"valid {60 + number}.0", self.models.get(choice.kind) or make_decoder(number))


@pytest.fixture
def loader(monkeypatch):
    loader = Loader()
    monkeypatch.setattr(comparison, "load_model_choice", loader)
    yield loader
    loader.released.set()


async def open_screen(pilot, prompt=PROMPT, run=None, model=None):
    session_model = SessionModel("mine", "valid 74.9", model or make_decoder(), run=run)
    screen = SideBySideScreen(session_model, prompt, SamplerSettings(top_k=20), 3, 0)
    await pilot.app.push_screen(screen)
    await pilot.pause()
    return screen


def expected_words(model, prompt=PROMPT, seed=3):
    ids = encode_prompt(prompt, model.tokenizer).ids
    events = generate(TextInProgress(model, ids, SamplerSettings(temperature=0.8, top_k=20), seed))
    return [event.text for event in events if isinstance(event, TokenEvent)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    corpus = write_csv(tmp_path_factory.mktemp("corpus") / "small.csv", sentences(120))
    return load_dataset(Config("tiny").with_values(corpus=str(corpus)).data)


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    config = Config("tiny").with_values(corpus=dataset.corpus.source, embedding_size=6, hidden_size=6)
    return write_run(tmp_path_factory.mktemp("runs") / "small-run", config, dataset.tokenizer)


async def test_kneser_ney_of_the_run_comes_first_and_a_key_adds_another_model(make_host, run, dataset):
    async with make_host().run_test(size=(80, 24)) as pilot:
        model, counts = load_model(run).decoder, KneserNey(dataset.train, dataset.tokenizer)
        screen = await open_screen(pilot, "the miller", run, model)
        await until(pilot, lambda: len(screen.slots) == 2 and not screen.is_loading)
        await until_columns_ended(pilot, screen)
        words = [expected_words(each, "the miller") for each in (model, counts)]
        assert [generated_words(slot) for slot in screen.slots] == words
        assert column_lines(screen)[0].split() == ["mine", "Kneser-Ney"]
        assert DIFFERENCE_MARK in columns_text(screen)
        assert "temperature 0.80 → top-k" in text_of(screen.query_one("#status"))
        await pilot.press("a", "enter")
        await until(pilot, lambda: len(screen.slots) == 3 and not screen.is_loading)
        await until_columns_ended(pilot, screen)
        assert generated_words(screen.slots[2]) == words[1]
        await pilot.press("a")
        assert pilot.app.screen is screen
        assert "the maximum; x removes one" in note_text(screen)
        await pilot.press("r")
        await until_columns_ended(pilot, screen)
        seed = screen.prompt_and_seed[1]
        assert seed != 3
        assert generated_words(screen.slots[1]) == expected_words(counts, "the miller", seed)


async def test_a_column_can_be_removed_while_its_model_loads_and_a_failure_is_one_line(make_host, loader, tmp_path):
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_screen(pilot, run=tmp_path / "mine")
        await until(pilot, lambda: screen.slots[0].done_event)
        await pilot.pause()
        assert "counting the n-grams" in " ".join(columns_text(screen).split())
        await pilot.press("right", "x")
        loader.released.set()
        await until(pilot, lambda: not screen.is_loading)
        assert len(screen.slots) == 1

        def fail(choice, runs_dir):
            raise MemoryError("no\n[room]")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lotr_tui.screens.inspect.comparison.load_model_choice", fail)
            await pilot.press("a", "enter")
            await until(pilot, lambda: "MemoryError" in note_text(screen))
        assert note_text(screen) == "Kneser-Ney: MemoryError: no [room]"
        assert len(screen.slots) == 1


async def test_each_model_reads_the_prompt_with_its_own_vocabulary(make_host):

    few = KneserNey(np.array([2, 3, 4, 1, 2, 4, 1]), WordTokenizer((UNK, EOS, "the", "road", "goes")))
    async with make_host().run_test(size=(120, 24)) as pilot:
        screen = await open_screen(pilot, "")
        screen.slots.append(Column("few words", few, 0.8))
        screen.show_slots()
        for prompt in ("the tower", "tower"):
            screen.query_one("#prompt", Input).value = prompt
            await pilot.press("enter")
            await until_columns_ended(pilot, screen)
            assert generated_words(screen.slots[0]) == expected_words(make_decoder(), prompt)
            if prompt == "the tower":
                assert generated_words(screen.slots[1]) == expected_words(few)
            else:
                assert "knows none of the prompt's words: tower" in screen.slots[1].failure


async def test_a_model_that_fails_does_not_end_the_columns_of_other_models(make_host):
    class Broken:
        tokenizer = make_decoder().tokenizer

        def start(self):
            return None

        def advance(self, state, token):
            raise RuntimeError("out of [order]")

    counts = KneserNey(make_decoder().tokenizer.encode("the tower of the lamp").repeat(2), make_decoder().tokenizer, 3)
    async with make_host().run_test(size=(120, 24)) as pilot:
        screen = await open_screen(pilot, "")
        for name, model in (("broken", Broken()), ("counts", counts)):
            screen.slots.append(Column(name, model, 0.8))
        screen.query_one("#prompt", Input).value = PROMPT
        await pilot.press("enter")
        await until_columns_ended(pilot, screen)
        assert "failed: RuntimeError: out of [order]" in columns_text(screen)
        first, _, third = (generated_words(slot) for slot in screen.slots)
        assert (first, third) == (expected_words(make_decoder()), expected_words(counts))


async def test_a_fast_column_does_not_wait_for_a_slow_one_and_models_are_added_by_name(make_host, loader, tmp_path):
    model = FakeSlowModel()
    loader.released.set()
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF")
    context = PromptContext("conversation", None, Roles(system_prompt="You are Gandalf."))
    app = make_host()
    app.state.settings.change(recent_models=("hf:owner/used-last",))
    async with app.run_test(size=(120, 35)) as pilot:
        model.hold()
        screen = SideBySideScreen(slow_session_model(model), "bilbo is", SamplerSettings(max_tokens=20), 7, 0, context)
        await app.push_screen(screen)
        await until(pilot, lambda: len(screen.slots) == 2 and screen.slots[1].done_event)
        assert loader.choices == [ModelChoice("run", "lstm")]
        assert screen.slots[0].is_empty
        await pilot.press("right")
        assert screen.selected_index == 1
        model.release()
        await until_columns_ended(pilot, screen)
        assert screen.slots[0].token_events
        assert [message.text for message in model.chat.encoded[-1]] == ["You are Gandalf.", "bilbo is"]

        await pilot.press("a")
        dialog = app.screen
        assert isinstance(dialog, ModelChoiceDialog)
        assert str(dialog.query_one(OptionList).options[-1].prompt) == "hf:owner/used-last"
        await pilot.press(*"gguf:/missing", "enter")
        assert "there is no such file" in text_of(dialog.query_one("#problem", Static))
        dialog.query_one(Input).value = f"gguf:{file}"
        await pilot.press("enter")
        await until(pilot, lambda: len(loader.choices) == 2)
        assert loader.choices[-1] == ModelChoice("run", f"gguf:{file}")
        assert screen.slots[-1].title == "small"

        screen.query_one("#prompt", Input).value = REFUSED_TEXT
        await pilot.press("enter")
        await until_columns_ended(pilot, screen)
        assert "chat template cannot write" in screen.slots[0].failure
    assert threading.main_thread().name not in model.threads


def test_each_kind_of_choice_loads_its_model_with_its_perplexity(run, dataset):
    network = load_model_choice(ModelChoice("run", str(run)), None)
    assert network.name == "small-run"
    baseline = load_model_choice(ModelChoice("kneser-ney", str(run)), None)
    expected = KneserNey(dataset.train, dataset.tokenizer)
    assert baseline.description == f"5-gram counts · valid {evaluate(expected, dataset.valid).perplexity:.1f}"
    assert baseline.run == network.run == run


# Models with different tokenizers: whole words are shown and compared

LINES = ("The wizard said: “Where is the Ring?”", "The wizard said: “Where is Éowyn?”")


def output(*pieces, noun="token", reason=None):
    column = Column("")
    column.noun = noun
    column.events = [make_token_event(index=i, piece=piece) for i, piece in enumerate(pieces)]
    if reason is not None:
        column.events.append(Done(reason, 0, len(pieces), 1.0))
    return column


@pytest.mark.parametrize(
    ("column", "other", "expected"),
    [
        (output(" a", " wiz"), output(" a", " wiz", "ard", "."), ["a"]),  # it may still become "wizard."
        (output(" a", " wiz", "ard"), output(" a", " wiz", reason="eos"), ["a", "wizard"]),
        (output(" a", " wiz"), output(" a", " king"), ["a", "wiz"]),
        (output(" a", " wiz", reason="length"), output(" a", " wiz", "ard", " of"), ["a"]),
        (output(" a", " wiz", noun="word"), output(" a", " wizard", noun="word"), ["a", "wiz"]),
    ],
)
def test_word_that_is_not_complete_differs_only_from_words_that_it_cannot_become(column, other, expected):
    assert column.words_to_compare(other) == expected


def test_words_are_shown_with_the_end_of_the_prompt_and_marks_for_line_ends():
    column = output("ard", ",", " said", "\n", "\x1b", "He")
    column.continued_prompt = "The old wiz"
    assert column.shown_words == ["wizard,", "said", "¶", "�He"]
    assert output(" of", " old").shown_words == ["of", "old"]


async def test_words_of_models_with_different_tokenizers_are_compared(make_host):
    models = [RecitingModel(bpe_tokenizer(), LINES[0]), RecitingModel(character_tokenizer(), LINES[1])]
    async with make_host().run_test(size=(200, 50)) as pilot:
        session_model = SessionModel("bpe", "", models[0])
        screen = SideBySideScreen(session_model, "", SamplerSettings(max_tokens=60), 3, 0)
        await pilot.app.push_screen(screen)
        screen.slots.append(Column("characters", models[1], 0.8))
        screen.query_one("#prompt").value = "The wiz"
        await pilot.press("enter")
        await until_columns_ended(pilot, screen)
        shown = [" ".join(slot.shown_words) for slot in screen.slots]
        assert shown == [line.removeprefix("The ") for line in LINES]
        for text in ("≠ at word 5 · 43 % differ", f"{DIFFERENCE_MARK}Éowyn?”", "end of line"):
            assert text in columns_text(screen)


# Columns of a model that knows speakers: the same line, answered by one or several of them

TWELVE_TOKENS = SamplerSettings(max_tokens=12)
LINE = "where is frodo"


@pytest.fixture
def conversation(home):
    conversation = Conversation(0)
    yield conversation
    conversation.close()


async def open_columns(pilot, screen_type, session_model, roles=Roles(), previous=None, prompt=LINE):  # noqa: B008
    context = PromptContext("conversation", previous, roles)
    screen = screen_type(session_model, prompt, TWELVE_TOKENS, 3, 0, context)
    await pilot.app.push_screen(screen)
    await until(pilot, lambda: all(slot.model is not None for slot in screen.slots) and screen.prompt_and_seed)
    await until(pilot, lambda: screen_type is LadderScreen or len(screen.slots) > 1)
    await until_columns_ended(pilot, screen)
    return screen


def texts(screen):
    return ["".join(token.piece for token in slot.token_events) for slot in screen.slots]


def answer(model, turns, speaker, temperature=0.8):
    settings = SamplerSettings(max_tokens=12, temperature=temperature)
    history = encode_turns(model.tokenizer, turns)
    return said_text_of(generate(begin_turn(model, read_turns(model, turns), speaker, settings, 3, history)))


def likeliest(model, turns):
    return [each.name for each in next_speaker_probs(model, read_turns(model, turns), dialogues.ANSWERING)]


async def test_three_likely_speakers_answer_the_same_line(hosted):
    session_model = dialogues.dialogue_session_model()
    async with hosted((80, 24), session_model=session_model) as (pilot, _):
        screen = await open_columns(pilot, SideBySideScreen, session_model)
        turns = [Turn("STRANGER", LINE)]
        names = likeliest(session_model.model, turns)
        assert [slot.speaker for slot in screen.slots] == names
        assert texts(screen) == [answer(session_model.model, turns, name) for name in names]
        assert column_lines(screen)[0].split()[0] == names[0].capitalize()
        assert "% likely to answer" in column_lines(screen)[1]
        assert "a adds a speaker or another model" in text_of(screen.query_one(HelpLine))


async def test_the_chosen_speaker_comes_first_and_earlier_turns_count(hosted, conversation, monkeypatch):
    session_model, together = dialogues.dialogue_session_model(), []
    generate_columns = columns_screen.comparison.generate_columns

    def record(columns, *arguments, **options):
        together.append(len(columns))
        return generate_columns(columns, *arguments, **options)

    monkeypatch.setattr(columns_screen.comparison, "generate_columns", record)
    model = session_model.model
    previous = dialogues.say(conversation, session_model, "bilbo is a friend", "GANDALF")
    async with hosted((120, 40), session_model=session_model) as (pilot, _):
        screen = await open_columns(pilot, SideBySideScreen, session_model, Roles("FRODO", "GOLLUM"), previous)
        await until(pilot, lambda: len(screen.slots) == 2)
        await until_columns_ended(pilot, screen)
        earlier = [Turn("STRANGER", "bilbo is a friend"), Turn("GANDALF", dialogues.text_of(previous))]
        assert [slot.speaker for slot in screen.slots] == ["GOLLUM", "GANDALF"]
        assert together == [2]  # a model in 8 bits writes other words alone
        turns = [*earlier, Turn("FRODO", LINE)]
        assert texts(screen) == [answer(model, turns, slot.speaker) for slot in screen.slots]
        assert text_of(screen.query_one("#prompt-mark")) == "Frodo ❯"

        screen = await open_columns(pilot, LadderScreen, session_model, previous=previous, prompt="")
        [speaker] = {slot.speaker for slot in screen.slots}  # an empty prompt is the next turn
        assert speaker == next(name for name in likeliest(model, earlier) if name != "GANDALF")
        assert texts(screen) == [answer(model, earlier, speaker, slot.temperature) for slot in screen.slots]


async def test_the_ladder_answers_as_the_chosen_the_typed_or_the_likeliest_speaker(hosted, monkeypatch):
    session_model = dialogues.dialogue_session_model()
    model, turns = session_model.model, [Turn("STRANGER", LINE)]
    async with hosted((80, 24), session_model=session_model) as (pilot, _):
        screen = await open_columns(pilot, LadderScreen, session_model)
        name = likeliest(model, turns)[0]
        assert screen.query_one("#speaker", Input).value == name.capitalize()
        assert texts(screen)[0] == answer(model, turns, name, WIDE_TEMPERATURES[0])

        monkeypatch.delattr(columns_screen, "read_next_token")  # a chosen speaker needs no ranking
        screen = await open_columns(pilot, LadderScreen, session_model, Roles("", "GOLLUM"))
        assert "Cannot rank" not in note_text(screen)
        assert texts(screen) == [answer(model, turns, "GOLLUM", value) for value in WIDE_TEMPERATURES]
        field = screen.query_one("#speaker", Input)
        assert field.value == "Gollum"
        field.value = " frodo "
        await pilot.press("enter")
        await until(pilot, lambda: screen.slots[0].speaker == "FRODO")
        await until_columns_ended(pilot, screen)
        assert texts(screen) == [answer(model, turns, "FRODO", value) for value in WIDE_TEMPERATURES]
        field.value = "..."
        await pilot.press("enter")
        await until(pilot, lambda: "is not a name" in note_text(screen))


async def test_speakers_and_other_models_are_added_changed_and_removed_by_name(hosted, loader):
    session_model = dialogues.dialogue_session_model()
    tokenizer = session_model.model.tokenizer
    counts = KneserNey(tokenizer.encode("we walked all night").repeat(2), tokenizer, 3)
    loader.models["kneser-ney"] = DialogueModel(counts, session_model.cast)
    loader.released.set()
    async with hosted((160, 40), session_model=session_model) as (pilot, app):
        screen = await open_columns(pilot, SideBySideScreen, session_model, Roles("", "FRODO"))
        await until(pilot, lambda: len(screen.slots) == 3)

        async def choose(key, typed):
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, ModelChoiceDialog))
            await pilot.press(*typed, "enter")
            await until(pilot, lambda: app.screen is screen and not screen.is_loading)
            await until_columns_ended(pilot, screen)

        await choose("a", "stran")
        assert screen.slots[3].speaker == "STRANGER"
        assert texts(screen)[3] == answer(session_model.model, [Turn("STRANGER", LINE)], "STRANGER")
        assert screen.selected_index == 3
        await pilot.press("x")
        assert len(screen.slots) == 3

        await choose("a", "kneser")
        counted = screen.slots[3]
        assert counted.description == "Frodo answers · valid 61.0"
        assert "\n" not in texts(screen)[3] != ""
        counted.description = "Frodo answers · SmolLM2 + adapter · 1.41 bits/character, pre-trained on other text"
        screen.show_slots(3)
        described = [line.rstrip().rsplit("  ", 1)[-1] for line in column_lines(screen)[1:5]]
        assert described == ["Frodo answers", "SmolLM2 + adapter", "1.41 bits/character", "pre-trained on other text"]
