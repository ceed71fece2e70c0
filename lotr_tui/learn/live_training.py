"""Short trainings that a chapter runs while the student watches, and the prepared one without regularization."""

import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from engine.analysis.evaluation import evaluate
from engine.analysis.speakers import SpeakerPosterior, evaluate_by_speaker
from engine.config import BUNDLED, Config, DataConfig, ModelConfig, TrainingConfig
from engine.control import CommandQueue, ControlCommand
from engine.data.dataset import Dataset, load_dataset
from engine.data.scripts import SCENE_END, Turn, encode_turns
from engine.data.speakers import CAST_FILE, STRANGER
from engine.errors import CorpusError, InvalidInputError, RunError
from engine.events import Evaluated, Preparing, TrainingEvent
from engine.generation.generate import TokenEvent, generate_batch
from engine.generation.settings import SamplerSettings
from engine.generation.turns import begin_turn, read_turns
from engine.models.base import LanguageModel
from engine.models.dialogue import DialogueModel
from engine.models.pretrained.names import SMOLLM2
from engine.presets import PRESETS
from engine.runs.directory import DIALOGUE_FILE, WHO_FILE, read_config, read_text, resolve_run
from engine.runs.loading import base_files, load_model, read_dialogue_parts
from engine.runs.locked_run import create_run, record_events
from engine.storage.files import decode, parse_json, read_limited, write_atomically
from engine.training import TrainingInput
from lotr_tui.learn.material import Cancelled, Loading, class_models_dir, follow_training
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.session.session_model import SessionModel

TEMPORARY_PREFIX, RUN_NAME = "lotr-tui-class-", "live"
MAX_TRAIN_TOKENS, MAX_VALID_TOKENS = 120_000, 14_000  # a live training ends within half a minute
# Pieces of the training text that `train_perplexity` scores. A step reads the same place of 20 rows, so the pieces lie
# at different places of their rows: otherwise, they would all have been read just now, or all long ago.
NUM_PIECES, PIECE_LENGTH = 7, 600
MIN_TRAIN_TOKENS, MAX_EPOCHS = 2000, 60
OVERFITTING_FILE, MAX_FILE_BYTES = "overfitting.json", 1_000_000
CHARACTER, NUM_LINES, NUM_VALID_TOKENS = "GOLLUM", 60, 300  # who is learned, from this many lines
QUESTIONS = (
    "Where are you going?", "What have you got in your pocket?", "Are you hungry?", "Who are you?",
    "What do you want?", "Is it far?", "Do you like fish?", "Why do you hide?",
)  # fmt: skip
ANSWER_SETTINGS, STRENGTHS = SamplerSettings(temperature=0.7, max_tokens=40), tuple(each / 4 for each in range(7))
# A perplexity this many times the lowest one before is a jump; other text alone may make it 1.6 times as high.
JUMP_RATIO = 3.0
SLOW_FRACTION = 0.4  # a network that predicts worse than word frequencies after this part of the training is too slow


def live_config(
    data: DataConfig, num_train_tokens: int, *, epochs: int, evaluations_per_epoch: int, model: ModelConfig, lr: float
) -> Config:
    """Return the configuration of a live training with a constant learning rate.

    `epochs` and `evaluations_per_epoch` are for a text of `MAX_TRAIN_TOKENS`; a shorter one is read more often, so that
    there are as many steps. One thread trains: two are hardly faster for a network of this size, and much slower where
    another program needs the second.
    """
    training = TrainingConfig(
        batch_size=20, bptt=25, shuffle_lines=False, schedule="constant", lr=lr, weight_decay=0.01, averaging="none",
        max_eval_tokens=MAX_VALID_TOKENS, checkpoint_seconds=0.0, keep_epoch_checkpoints=False, device="cpu",
        precision="fp32", threads=1,
    )  # fmt: skip
    steps, most_steps = (
        max(1, math.ceil((num_tokens // training.batch_size - 1) / training.bptt))
        for num_tokens in (num_train_tokens, MAX_TRAIN_TOKENS)
    )
    repeats = max(1, round(most_steps / steps))
    training = replace(
        training,
        epochs=min(epochs * repeats, MAX_EPOCHS),
        eval_every_steps=math.ceil(steps * repeats / evaluations_per_epoch),
    )
    return Config("class-live", data, model, training)


def limit_dataset(dataset: Dataset) -> Dataset:
    """Return the part of a corpus that a live training uses."""
    if len(dataset.train) < MIN_TRAIN_TOKENS:
        raise CorpusError(
            f"the training text has {len(dataset.train):,} words, and a training that shows something needs "
            f"{MIN_TRAIN_TOKENS:,}; use a longer text, or `lotr-tui learn` without one"
        )
    return replace(dataset, train=dataset.train[:MAX_TRAIN_TOKENS], valid=dataset.valid[:MAX_VALID_TOKENS])


def train_perplexity(model: LanguageModel, dataset: Dataset) -> float:
    """Return the perplexity of a model on evenly spaced pieces of the training text, without dropout."""
    starts = [number * len(dataset.train) // NUM_PIECES for number in range(NUM_PIECES)]
    length = min(PIECE_LENGTH, len(dataset.train) // NUM_PIECES)
    return evaluate(model, np.concatenate([dataset.train[start : start + length] for start in starts])).perplexity


class Answers(NamedTuple):
    """Answers of the character at a strength of an adapter."""

    texts: tuple[str, ...]  # to each of `QUESTIONS`
    likeness: float  # mean probability that the character says them, by the text model of the bundled run
    bits_per_character: float  # by the base as it came


class Character(NamedTuple):
    """Lines of a character to fine-tune SmolLM2 on, and what makes a dialogue model of it."""

    config: Config
    source: TrainingInput
    with_cast: Callable[[LanguageModel], DialogueModel]
    files: Mapping[str, bytes]  # of a run that keeps the adapter, by name

    def train(self, config: Config, answers: list[Answers], cancelled: Cancelled) -> Iterator[TrainingEvent]:
        """Fine-tune the base, then add the answers at each of `STRENGTHS`."""
        from engine.training.trainer import train  # imports torch

        model: LanguageModel | None = None
        for event in train(config, self.source, commands=CommandQueue(cancelled=cancelled)):
            yield event
            model = event.model if isinstance(event, Evaluated) else model
        for strength in STRENGTHS:
            if model is not None and not cancelled():
                answers.append(self.answer(self.with_cast(model), strength))
                yield Preparing("reading the answers")

    def answer(self, model: DialogueModel, strength: float) -> Answers:
        """Let the character answer, always with the same seeds, and judge the answers."""
        as_it_came, model = (model.with_strengths(dict.fromkeys(model.strengths, each)) for each in (0.0, strength))
        questions, texts = [Turn(STRANGER, question) for question in QUESTIONS], [""] * len(QUESTIONS)
        states = (read_turns(model, [question]) for question in questions)
        lines = [begin_turn(model, each, CHARACTER, ANSWER_SETTINGS, seed) for seed, each in enumerate(states)]
        for index, event in chain(*generate_batch(lines)):
            texts[index] += event.piece if isinstance(event, TokenEvent) else ""
        scenes = [[question, Turn(CHARACTER, text)] for question, text in zip(questions, texts, strict=True)]
        scores = [each for scene in scenes for each in evaluate_by_speaker(as_it_came, [scene]).speakers]
        own = [(each.bits_per_character, each.characters) for each in scores if each.speaker == CHARACTER]
        guesses, index = SpeakerPosterior(as_it_came), model.cast.index(CHARACTER)
        likeness = np.mean([guesses.update(text, is_complete=True).posterior[index] for text in texts])
        return Answers(tuple(texts), float(likeness), sum(map(math.prod, own)) / sum(length for _, length in own))


def load_character() -> Loading[Character]:
    """Read SmolLM2 and the dialogues; without SmolLM2, the InvalidInputError says how to fetch it."""
    from engine.models.pretrained.folders import read_base  # loads Hugging Face's tokenizers

    yield "reading SmolLM2 and the bundled dialogues …"
    base, run = read_base(SMOLLM2).for_scripts(), resolve_run(BUNDLED)
    tokenizer, dataset = base.tokenizer, load_dataset(read_config(run).data, base.tokenizer)
    scenes = (pair for scene in dataset.splits.train.scenes() for pair in pairwise(scene))
    chosen = islice((pair for pair in scenes if pair[1].speaker == CHARACTER), NUM_LINES)
    ids = [id for pair in chosen for id in (*encode_turns(tokenizer, pair), *tokenizer.encode(SCENE_END))]
    text = np.array(ids, np.int32)
    model = replace(base.config, lora_rank=16, lora_dropout=0.0)
    config = replace(PRESETS["lora"], data=read_config(run).data, model=model).with_values(
        schedule="constant", batch_size=4, bptt=64, score_test=False, checkpoint_seconds=0.0,
        max_eval_tokens=NUM_VALID_TOKENS,
    )  # fmt: skip
    parts = {name: read_text(run / name).encode() for name in (CAST_FILE, DIALOGUE_FILE, WHO_FILE)}
    source = TrainingInput(replace(dataset, train=text, cast=(CHARACTER,)), base=base)
    return Character(config, source, read_dialogue_parts(run), base_files(base, model) | parts)


@dataclass
class LiveTraining:
    """Training of a chapter in a temporary folder, which goes when it ends; a thread runs `events`."""

    config: Config
    character: Character | None = None  # who is learned; None for a corpus
    answers: list[Answers] = field(default_factory=list)  # of the character at the first of `STRENGTHS`
    view: TrainingView = field(default_factory=TrainingView)  # of the events that the reader has applied
    train_scores: dict[int, float] = field(default_factory=dict)  # training text's perplexity by step of an evaluation
    has_ended: threading.Event = field(default_factory=threading.Event)
    run: Path | None = None  # that keeps the model; None until it is saved
    _lr_scale: float = 0.0  # 0 until it is set
    _commands: CommandQueue | None = None  # None until the training is prepared

    def events(self, cancelled: Cancelled) -> Iterator[TrainingEvent]:
        from engine.training.job import prepare_job  # imports torch

        yield Preparing("reading the corpus")
        try:
            if self.character is not None:
                yield from self.character.train(self.config, self.answers, cancelled)
                return
            with TemporaryDirectory(prefix=TEMPORARY_PREFIX, ignore_cleanup_errors=True) as folder:
                job = prepare_job(self.config, RUN_NAME, Path(folder))
                if len(job.dataset.train) > MAX_TRAIN_TOKENS:
                    job.dataset = limit_dataset(job.dataset)
                self._commands = job.command_queue
                if self._lr_scale:
                    self._commands.send(ControlCommand("lr", f"{self._lr_scale:g}"))
                for event in job.events(cancelled):
                    if isinstance(event, Evaluated) and event.model is not None:
                        self.train_scores[event.step] = train_perplexity(event.model, job.dataset)
                    yield event
        finally:
            self.has_ended.set()

    @property
    def has_model(self) -> bool:
        """True once the training has ended after an evaluation that followed a step."""
        return self.view.finished is not None and any(event.step for event in self.view.evaluations)

    def save(self, runs_dir: Path | None) -> SessionModel:
        """Keep the latest model of an ended training as a run, unless that is done, and return it for a session."""
        self.run = self.run or self._write_run(runs_dir)
        return SessionModel.from_loaded(load_model(self.run))

    def _write_run(self, runs_dir: Path | None) -> Path:
        started = self.view.started
        *earlier, latest = self.view.evaluations
        finished = self.view.finished
        assert started is not None
        assert latest.model is not None
        assert finished is not None
        files = None if self.character is None else self.character.files
        name = time.strftime("learn-%Y%m%d-%H%M%S")
        run = create_run(self.config, latest.model.tokenizer, name, runs_dir, contents=files)
        finished = replace(finished, reason="done", valid_perplexity=latest.valid_perplexity)
        recorded: list[TrainingEvent] = [started, *earlier, replace(latest, is_best=True), finished]
        deque(record_events(run, iter(recorded)), maxlen=0)
        return run.path

    def scale_lr(self, scale: float) -> None:
        """Set the learning rate as a fraction of the one of the configuration, now or once the training is prepared."""
        if scale != self._lr_scale:
            self._lr_scale = scale
            if self._commands is not None:
                self._commands.send(ControlCommand("lr", f"{scale:g}"))


class Verdict(NamedTuple):
    """Verdict on a training so far."""

    is_too_slow: bool = False  # worse than the unigram model after `SLOW_FRACTION` of the training, without a jump
    has_jumped: bool = False
    beats_ngram: bool = False  # an evaluation was better than the 5-gram model


def judge(view: TrainingView) -> Verdict:
    started, evaluations = view.started, view.evaluations
    if started is None or not evaluations:
        return Verdict()
    perplexities = view.steps.column("train_perplexity")
    # Before the first step, the training text is as hard as the validation text.
    before = np.concatenate([[evaluations[0].valid_perplexity], perplexities])[:-1]
    has_jumped = bool((~(perplexities <= JUMP_RATIO * np.fmin.accumulate(before))).any())
    has_jumped |= view.failure.startswith("the loss is")
    last, is_too_slow = view.steps.last, False
    late = [event for event in evaluations if event.epoch >= SLOW_FRACTION * started.epochs]
    if late and last is not None and not has_jumped:
        best = min(event.valid_perplexity for event in evaluations if event.epoch <= late[0].epoch)
        # A network that has learned a short text by heart is not slow, although it predicts other text badly.
        is_too_slow = min(best, last.train_perplexity) > started.unigram_perplexity
    beats_ngram = any(event.valid_perplexity < started.kneser_ney_perplexity for event in evaluations)
    return Verdict(is_too_slow, has_jumped, beats_ngram)


@dataclass(frozen=True)
class Regularization:
    dropout: float = 0.0  # of the inputs and of the outputs
    weight_drop: float = 0.0
    tie_weights: bool = False


@dataclass(frozen=True)
class RunCurves:
    """Perplexities of a training at its evaluations, after the one before the first step, without dropout."""

    epochs: tuple[float, ...] = ()
    train: tuple[float, ...] = ()  # on a part of the training text
    valid: tuple[float, ...] = ()  # on the held-out text

    @property
    def best(self) -> float:
        return min(self.valid)

    @classmethod
    def from_evaluations(cls, evaluations: Sequence[Evaluated], train_scores: Mapping[int, float]) -> "RunCurves":
        shown = [event for event in evaluations if event.step and event.step in train_scores]
        rows = [(event.epoch, train_scores[event.step], event.valid_perplexity) for event in shown]
        return cls(*map(tuple, zip(*rows, strict=True)))


def overfitting_config(data: DataConfig, num_train_tokens: int, setting: Regularization) -> Config:
    model = ModelConfig(
        embedding_size=128, hidden_size=128, embedding_dropout=0.0, input_dropout=setting.dropout,
        output_dropout=setting.dropout, weight_drop=setting.weight_drop, tie_weights=setting.tie_weights,
        subword_embeddings=False, unigram_bias=False,
    )  # fmt: skip
    return live_config(data, num_train_tokens, epochs=6, evaluations_per_epoch=3, model=model, lr=0.01)


def load_overfitting_run(data: DataConfig, dataset: Dataset, cancelled: Cancelled) -> Loading[RunCurves]:
    """Read the run without regularization for a corpus, which is trained first if that was not done before.

    Raises an InvalidInputError if the corpus is too small, and a RunError if the training is cancelled or not stored.
    """
    path = class_models_dir(data, dataset.corpus.sha256) / OVERFITTING_FILE
    config = overfitting_config(data, len(limit_dataset(dataset).train), Regularization())
    written_config = json.loads(config.to_json())
    try:
        record = parse_json(read_limited(path, MAX_FILE_BYTES).decode())
        if isinstance(record, dict) and record.pop("config", None) == written_config:
            return decode(RunCurves, record)
    except (OSError, ValueError, InvalidInputError):
        pass  # missing, or damaged: it is trained again
    training = LiveTraining(config)
    evaluations = yield from follow_training(training.events, config, "a network without regularization", cancelled)
    curves = RunCurves.from_evaluations(evaluations, training.train_scores)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, f"{json.dumps({'config': written_config, **asdict(curves)})}\n".encode())
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; free some space") from error
    return curves
