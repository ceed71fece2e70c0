"""Training from another run or from teachers: settings, weights, predictions, resume, refusals, rates of layers."""

import shutil

import numpy as np
import pytest
import torch

from engine.analysis.evaluation import evaluate
from engine.config import BASE
from engine.data.tokenizers import EOS_ID, CharacterTokenizer, WordTokenizer
from engine.errors import ConfigError, InvalidInputError, RunError
from engine.events import Evaluated, Snapshot, Warned
from engine.models.torch_ops import layer_groups
from engine.runs.directory import EPOCHS_DIR, INITIAL_FILE
from engine.runs.loading import load_model, read_config_and_tokenizer
from engine.training.job import (
    DEFAULT_PATIENCE,
    canonical_config,
    configure,
    map_to_vocabulary,
    prepare_job,
    resume_job,
)
from engine.training.teachers import load_teachers
from tests.support import training
from tests.support.files import sentences, write_csv
from tests.support.models import random_lstm, random_weights
from tests.support.networks import TRANSFORMER
from tests.support.open_models import bpe_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = WordTokenizer(("<unk>", "<eos>", "the", "miller", "dragon", "seven", "lanterns"))
CHARACTERS = CharacterTokenizer("é’")
PRESET = training.make_config(epochs=1, batch_size=8, bptt=25, keep_epoch_checkpoints=False)


@pytest.fixture
def runs_dir(tmp_path):
    """Return a folder with the runs `words`, `letters` and `pieces`, which have other sizes than `PRESET`."""
    runs_dir = tmp_path / "runs"
    sizes = {"embedding_size": 10, "hidden_size": 14, "num_layers": 2}
    training.write_initial_run(runs_dir / "words", WORDS, **sizes, punctuation=True)
    training.write_initial_run(runs_dir / "letters", CHARACTERS, **sizes)
    training.write_initial_run(runs_dir / "pieces", bpe_tokenizer(), **sizes, tie_weights=False)
    return runs_dir


@pytest.fixture
def corpus(tmp_path):
    return write_csv(tmp_path / "corpus.csv", sentences(40))


def options(corpus, **values):
    return lambda config: config.with_values(corpus=str(corpus), **values)


def prepare(runs_dir, corpus, init, **values):
    config = configure(PRESET, options(corpus, init=init, **values), runs_dir)
    return prepare_job(config, "new", runs_dir)


def test_architecture_and_tokenizer_come_from_the_run_and_the_rest_from_the_preset(runs_dir):
    config = configure(PRESET, options("x", init="pieces", lr=0.5), runs_dir)
    inherited = {"embedding_size": 10, "hidden_size": 14, "num_layers": 2, "tie_weights": False, "tokenizer": "bpe"}
    rest = {"init": "pieces", "lr": 0.5, "patience": DEFAULT_PATIENCE, "corpus": "x"}
    assert config == PRESET.with_values(**inherited, **rest)
    for preset, option, expected in [(0, {}, 4), (2, {}, 2), (0, {"patience": 0}, 0)]:
        config = configure(PRESET.with_values(patience=preset), options("x", init="words", **option), runs_dir)
        assert config.training.patience == expected
    assert configure(PRESET, options("x"), runs_dir).training.patience == 0


@pytest.mark.parametrize(
    ("init", "values", "message"),
    [
        ("pieces", {"hidden_size": 16}, r"hidden_size=16 cannot .* run 'pieces'; use --set hidden_size=14, or omit"),
        ("letters", {"tokenizer": "words", "tie_weights": False},
         "tokenizer=words, tie_weights=false cannot start from the weights of run 'letters'; "
         "use --tokenizer characters --set tie_weights=true, or omit these settings"),
        ("words", {"num_layers": 1, "punctuation": False}, "use --set num_layers=2 --set punctuation=true"),
    ],
)  # fmt: skip
def test_other_settings_than_those_of_the_run_are_refused(runs_dir, corpus, init, values, message):
    with pytest.raises(ConfigError, match=message):
        prepare(runs_dir, corpus, init, **values)
    assert not (runs_dir / "new").exists()


@pytest.mark.parametrize(("init", "tokenizer"), [("letters", CHARACTERS), ("pieces", bpe_tokenizer())])
def test_an_open_vocabulary_starts_with_the_scores_of_the_initial_model(runs_dir, corpus, init, tokenizer):
    job = prepare(runs_dir, corpus, init)
    initial = load_model(runs_dir / init).decoder
    assert job.dataset.tokenizer == tokenizer
    assert read_config_and_tokenizer(job.run.path)[1] == tokenizer
    first = training.events_of(Evaluated, list(job.events(lambda: False)))[0]
    assert first.step == 0
    assert training.weights_equal(training.weights_of(first), dict(initial.weights))
    assert first.valid_perplexity == pytest.approx(evaluate(initial, job.dataset.valid).perplexity, rel=1e-4)


def test_words_get_the_vocabulary_of_the_corpus_and_mapped_weights(runs_dir, corpus):
    job = prepare(runs_dir, corpus, "words", subword_embeddings=True)
    tokenizer = job.dataset.tokenizer
    assert "barrels" in tokenizer.tokens
    assert "dragon" not in tokenizer.tokens
    first = training.events_of(Evaluated, list(job.events(lambda: False)))[0]
    initial = load_model(runs_dir / "words").decoder
    assert training.weights_equal(training.weights_of(first), map_to_vocabulary(initial.weights, WORDS, tokenizer))
    row = tokenizer.token_to_id["miller"]
    assert np.array_equal(training.weights_of(first)["embedding.weight"][row], initial.weights["embedding.weight"][3])


def test_the_weights_of_an_epoch_are_a_start_and_the_name_of_the_run_stays_valid(runs_dir, corpus, monkeypatch):
    (runs_dir / "letters" / "epochs").mkdir(exist_ok=True)
    shutil.copy(runs_dir / "letters" / "model.safetensors", runs_dir / "letters" / EPOCHS_DIR / "2.safetensors")
    assert prepare(runs_dir, corpus, "letters@2").config.training.init == "letters@2"
    with pytest.raises(RunError, match="did not keep epoch 3"):
        prepare(runs_dir, corpus, "letters@3")
    for name in ("words", "pieces", "new"):
        shutil.rmtree(runs_dir / name)
    assert prepare(runs_dir, corpus, "latest").config.training.init == "letters"
    monkeypatch.chdir(runs_dir.parent)
    other = prepare_job(configure(PRESET, options(corpus, init="runs/letters")), "other", runs_dir.parent / "elsewhere")
    assert other.config.training.init == str(runs_dir / "letters")


def results(events):
    return [(event.step, event.valid_perplexity) for event in training.events_of(Evaluated, events)]


@pytest.mark.parametrize(("init", "steps_before"), [("words", -1), ("pieces", 0), ("words", 5)])
def test_resume_needs_no_initial_run(runs_dir, corpus, init, steps_before):
    """Before the first step there is no checkpoint, as after a detach; the file of the initial weights remains."""
    settings = {"epochs": 2, "layer_lr_decay": 2.0, "unfreeze_epochs": 1, "ema_decay": 0.9}
    whole = list(prepare(runs_dir, corpus, init, **settings).events(lambda: False))
    assert not (runs_dir / "new" / INITIAL_FILE).exists(), "a complete training needs no initial weights"
    shutil.rmtree(runs_dir / "new")
    job, first = prepare(runs_dir, corpus, init, **settings), []
    if steps_before < 0:
        job.run.lock.close()
    else:
        first += job.events(lambda: bool(first) and getattr(first[-1], "step", 0) >= steps_before)
    shutil.rmtree(runs_dir / init)
    resumed = list(resume_job("new", runs_dir).events(lambda: False))
    assert results(first) + results(resumed) == results(whole)
    assert training.weights_equal(training.weights_of(resumed[-1]), training.weights_of(whole[-1]))


@pytest.mark.parametrize(("lr", "is_reported"), [(1.0, True), (0.03, False)])
def test_a_fine_tuning_that_never_gets_better_is_reported_at_the_end(dataset, lr, is_reported):
    weights = training.weights_of(training.run_training(dataset, epochs=2)[-1])
    values = {"averaging": "none", "init": BASE, "lr": lr, "schedule": "constant", "epochs": 3, "patience": 2}
    events = training.train_with(training.make_config(**values), dataset, weights)
    before, best = training.events_of(Evaluated, events)[0].valid_perplexity, events[-1].valid_perplexity
    assert (best == before) == is_reported
    messages = [event.message for event in training.events_of(Warned, events)]
    assert len(messages) == is_reported
    start = f"fine-tuning has not improved validation perplexity, which was {before:.1f} before it; the run "
    assert all(message.startswith(start) for message in messages)


THREE_LAYERS = {**training.NO_DROPOUT, "num_layers": 3, "tie_weights": False}
ONE_STEP = {"optimizer": "sgd", "lr": 0.5, "schedule": "constant", "clip": 0.0, "variable_bptt": False}


def names(dataset, **values):
    return [set(group) for group in layer_groups(training.make_trainer(dataset, **values).state.network)]


def test_each_lower_layer_moves_by_the_learning_rate_divided_once_more(dataset):
    """One step from the same weights with and without the decay: the gradients are equal, the rates are not."""
    plain, decayed = (
        training.take_step(training.make_trainer(dataset, **THREE_LAYERS, **ONE_STEP, layer_lr_decay=decay))
        for decay in (1.0, 2.6)
    )
    depths = {"output.weight": 0, "output.bias": 0, "embedding.weight": 4}
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    depths |= {f"layers.{layer}.{kind}_l0": 3 - layer for layer in range(3) for kind in kinds}
    assert depths.keys() == plain.before.keys()
    for name, depth in depths.items():
        change, slower = plain.after[name] - plain.before[name], decayed.after[name] - decayed.before[name]
        assert np.abs(change).max() > 0
        assert slower == pytest.approx(change / 2.6**depth, rel=1e-3, abs=1e-7), name
    assert plain.lr == decayed.lr == 0.5  # the reported rate is that of the top


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_one_more_group_moves_after_every_unfreeze_epochs(dataset, optimizer):
    """Weight decay does not move a frozen group either."""
    values = {"lr": 0.01, "weight_decay": 0.1, "bptt": 10_000, "variable_bptt": False, "schedule": "constant"}
    trainer = training.make_trainer(dataset, **THREE_LAYERS, **values, optimizer=optimizer, unfreeze_epochs=2)
    groups = names(dataset, **THREE_LAYERS)
    for epoch in range(9):  # each of one step
        step = training.take_step(trainer)
        moved = {name for name in step.before if not np.array_equal(step.before[name], step.after[name])}
        assert moved == set().union(*groups[: 1 + epoch // 2]) == step.gradients.keys()


OLD = WordTokenizer(("<unk>", "<eos>", "ring", "road"))
NEW = WordTokenizer(("<unk>", "<eos>", "road", "hobbit", "ring"))


def test_known_words_keep_their_rows_and_a_new_word_gets_the_mean():
    """Worked by hand: the mean of 1, 3, 5, 7 is 4, and that of 10, 20, 30, 60 is 30."""
    weights = {
        "embedding.weight": np.array([[1, 10], [3, 20], [5, 30], [7, 60]], np.float32),
        "output.weight": np.array([[1], [3], [5], [7]], np.float32),
        "output.bias": np.array([0, 2, 4, 6], np.float32),
        "punctuation_softmax.bias": np.array([[0, 1, 2, 3], [8, 8, 8, 0]], np.float32),
        "layers.0.weight_hh_l0": np.array([[1, 2, 3, 4]], np.float32),
    }
    mapped = map_to_vocabulary(weights, OLD, NEW)
    assert {name: value.tolist() for name, value in mapped.items()} == {
        "embedding.weight": [[1, 10], [3, 20], [7, 60], [4, 30], [5, 30]],
        "output.weight": [[1], [3], [7], [4], [5]],
        "output.bias": [0, 2, 6, 3, 4],
        "punctuation_softmax.bias": [[0, 1, 3, 1.5, 2], [8, 8, 0, 6, 8]],
        "layers.0.weight_hh_l0": [[1, 2, 3, 4]],
    }
    assert {value.dtype for value in mapped.values()} == {np.dtype(np.float32)}
    assert map_to_vocabulary(weights, OLD, WordTokenizer(OLD.tokens)) == weights


def write_teacher(path, tokenizer, seed=0, **values):
    weights = random_weights(training.make_config(**values).model, tokenizer, seed)
    training.write_initial_run(path, tokenizer, weights, **values)
    return str(path)


TEACHER = {"num_layers": 2, "mogrifier_rounds": 2}


@pytest.fixture
def teachers(tmp_path, dataset):
    """Write two teachers, and return their setting, and a function from inputs to the mean of their predictions."""
    names = [write_teacher(tmp_path / f"teacher-{seed}", dataset.tokenizer, seed, **TEACHER) for seed in range(2)]

    def predict(inputs):
        config, rows = training.make_config(**TEACHER).model, []
        decoders = [random_lstm(config, dataset.tokenizer, seed, scale=0.3) for seed in range(2)]
        states = [decoder.start() for decoder in decoders]
        for token in inputs:
            outputs = [decoder.advance(state, token) for decoder, state in zip(decoders, states, strict=True)]
            states = [state for _, state in outputs]
            rows.append(np.mean([np.exp(log_probs) for log_probs, _ in outputs], axis=0))
        return rows

    return ",".join(names), predict


def test_predictions_are_the_mean_of_what_the_models_predict_after_the_text_so_far(dataset, teachers):
    names, predict = teachers
    state = training.make_trainer(dataset, teachers=names, **TEACHER).state
    windows = [state.windows.next_window() for _ in range(3)]
    lessons = [state.teachers.teach(window, state.dropout_generator)[1] for window in windows]
    predicted = torch.cat([targets.tokens for targets in lessons])[:, 1]
    inputs = torch.cat([window.inputs for window in windows])[:, 1].tolist()
    np.testing.assert_allclose(predicted, predict(inputs), atol=1e-6)


def test_written_text_has_the_mean_of_what_each_teacher_predicts_after_it(dataset, teachers):
    names, predict = teachers
    values = {"teacher_columns": 3, "batch_size": 4, **TEACHER}
    state = training.make_trainer(dataset, teachers=names, **values).state
    lessons = [state.teachers.teach(state.windows.next_window(), state.dropout_generator) for _ in range(2)]
    inputs = torch.cat([window.inputs for window, _ in lessons])[:, 5].tolist()
    targets = torch.cat([window.targets for window, _ in lessons])[:, 5].tolist()
    assert inputs == [EOS_ID, *targets[:-1]]
    predicted = torch.cat([each.tokens for _, each in lessons])[:, 5]
    np.testing.assert_allclose(predicted, predict(inputs), atol=1e-5)


@pytest.mark.parametrize("values", [{}, {"teacher_columns": 4}])
def test_student_that_equals_its_only_teacher_has_nothing_to_learn(tmp_path, dataset, values):
    name = write_teacher(tmp_path / "teacher", dataset.tokenizer, punctuation=True)
    values = {"teachers": name, "teacher_weight": 1.0, "ar": 0.0, "tar": 0.0, "punctuation": True, **values}
    weights = random_weights(training.make_config(punctuation=True).model, dataset.tokenizer)
    trainer = training.make_trainer(dataset, weights, **values, **training.NO_DROPOUT)
    assert float(trainer.train_step().gradient_norm) < 1e-6


def test_resume_with_teachers_is_bit_exact(tmp_path, dataset):
    values = {"punctuation": True, "bptt": 24}
    names = [write_teacher(tmp_path / f"teacher-{seed}", dataset.tokenizer, seed, **values) for seed in range(2)]
    values |= {"teachers": ",".join(names), "teacher_columns": 3, "epochs": 1}
    config = training.make_config(**values, **training.REPORT_EACH_STEP)
    whole = training.train_with(config, dataset)
    checkpoint = training.write_checkpoint(whole, whole.index(training.events_of(Snapshot, whole)[5]), tmp_path)
    resumed = training.train_with(config, dataset, checkpoint=checkpoint, is_resume=True)
    assert training.weights_equal(training.weights_of(resumed[-1]), training.weights_of(whole[-1]))


@pytest.mark.parametrize(
    ("teacher", "student", "message"),
    [
        ({"tokenizer": "whitespace"}, {}, "has the tokenizer whitespace, and the student words"),
        ({"punctuation": True}, {}, "was trained with punctuation=true"),
        ({"word": "zorblax"}, {}, "another vocabulary than the student"),
        (TRANSFORMER, {"teacher_columns": 2}, "teacher_columns=0"),  # a transformer writes no text
    ],
    ids=["tokenizer", "punctuation", "vocabulary", "transformer"],
)
def test_teacher_that_does_not_fit_is_refused(tmp_path, dataset, teacher, student, message):
    values = dict(teacher)
    tokens = (*dataset.tokenizer.tokens, *([values.pop("word")] if "word" in values else []))
    training.write_initial_run(tmp_path / "teacher", WordTokenizer(tokens, values.pop("tokenizer", "words")), **values)
    with pytest.raises(ConfigError, match=message):
        load_teachers(training.make_config(teachers=str(tmp_path / "teacher"), **student), dataset)


def test_missing_and_repeated_teachers_and_the_student_itself_are_refused_and_others_recorded(tmp_path, dataset):
    name = write_teacher(tmp_path / "teacher", dataset.tokenizer)
    with pytest.raises(InvalidInputError, match="no-such"):
        canonical_config(training.make_config(teachers="no-such"), tmp_path)
    with pytest.raises(ConfigError, match="given twice"):
        canonical_config(training.make_config(teachers=f"teacher,{name}"), tmp_path)
    data = {"corpus": dataset.corpus.source, "corpus_format": "text", "teachers": "teacher"}
    with pytest.raises(ConfigError, match="starts with all that it could learn"):
        prepare_job(training.make_config(init="teacher", **data), "student", tmp_path)
    with pytest.raises(InvalidInputError, match="choose another --run name"):
        prepare_job(training.make_config(**data), "teacher", tmp_path)
    assert prepare_job(training.make_config(**data), "student", tmp_path).config.training.teachers == name
