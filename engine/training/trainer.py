"""The training loop: update after update, validation, what is asked of it meanwhile."""

import array
import math
import random
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.analysis.perplexity import evaluate
from engine.config import Config
from engine.control import Command, Steering, What
from engine.data.arrays import in_order
from engine.data.dataset import Dataset, columns_of
from engine.data.punctuation import PauseIds
from engine.data.vocabulary import Ids
from engine.errors import TrainingError
from engine.events import Evaluated, Reason, Sampled, Snapshot, Steered, Step, TrainingEvent
from engine.generation.generate import TokenEvent, stream
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from engine.models.lstm import Network, States
from engine.models.numpy_lstm import Decoder
from engine.models.subword_embeddings import spelling_of
from engine.runtime.distributed import ALONE, World
from engine.training.averaging import WeightAverage, gets_no_better
from engine.training.checkpoint import pack
from engine.training.device import choose_dtype
from engine.training.loss import Lesson, Objective
from engine.training.notebook import notebook_perplexity
from engine.training.optim import fine_tuning_optimizer, optimizer_of
from engine.training.schedule import scheduled_lr, window_length

REPORT_SECONDS = 0.25
"""Between two `Step` events; reading the losses makes a GPU wait, so it is not done every update."""
SAMPLE_TOKENS = 25


@dataclass
class _Report:
    """What happened since the last `Step`; tensors are only read when it is made."""

    loss: Tensor | None = None
    gradient_norm: Tensor | None = None
    updates: int = 0
    tokens: int = 0
    lr: float = 0.0
    """Of the latest."""
    began: float = field(default_factory=time.perf_counter)

    def add(self, loss: Tensor, gradient_norm: Tensor, tokens: int, lr: float) -> None:
        loss = loss.detach() * tokens
        self.loss = loss if self.loss is None else self.loss + loss
        self.gradient_norm = gradient_norm if self.gradient_norm is None else self.gradient_norm + gradient_norm
        self.updates += 1
        self.tokens += tokens
        self.lr = lr


@dataclass(frozen=True)
class EpochText:
    """The text of an epoch, cut into columns."""

    columns: Tensor
    """`[time, batch]`."""
    pauses: Tensor | None
    """What stands after each word `[time, batch]`."""
    chance: tuple[Any, ...]
    """State of the generator that its order was drawn from, before that."""


class Loop:
    """The state of one training: network, optimizer, schedule, place in the text, and the best so far."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        device: torch.device,
        started: float,
        steering: Steering | None = None,
        world: World = ALONE,
    ) -> None:
        self.config = config
        self.options = config.training
        self.dataset = dataset
        self.device = device
        self.started = started
        """When it began, on the clock `time.perf_counter`; pauses and the time between two processes left out."""
        self.steering = steering or Steering()
        self.world = world
        self.chance = random.Random(self.options.seed)
        self.masks = torch.Generator(device).manual_seed(self.options.seed)
        spelling = spelling_of(dataset.vocabulary) if config.model.spelling else None
        start = torch.Generator().manual_seed(self.options.seed)
        network = Network(config.model, len(dataset.vocabulary), start, spelling)
        if config.model.unigram_bias:
            network.start_from_unigram(dataset.train)
        self.network = network.to(device)
        self.average = WeightAverage(self.network, self.options.average) if self.options.averaging == "ema" else None
        self.optimizer = optimizer_of(self.network, self.options)
        self.dtype = choose_dtype(config, device)
        self.objective = Objective(config.training, dataset.train, len(dataset.vocabulary), device)
        self.lesson = world.together(Lesson(self.network, self.objective, self.dtype, world))
        self.step = 0
        self.epoch = 0.0
        """Epochs done, with fraction."""
        self.epoch_number = 0
        """Of the epoch that goes on or comes next, counted from 0."""
        self.last_epoch = self.options.epochs
        """Where the epochs of this phase end: those planned, or fine-tuning's."""
        self.text: EpochText | None = None
        """What this epoch reads; None between two epochs."""
        self.position = 0
        """Steps of it that are read."""
        self.states: States = []
        """Hidden and cell states after them, of this process's columns."""
        self.evaluation_due = True
        self.plateau_factor = 1.0
        self.lr_share = 1.0
        """Of the scheduled rate, as asked for meanwhile."""
        self.sample_prompt = self.options.sample_prompt
        self.fine_tuning = False
        self.history: list[float] = []
        """Validation perplexities so far, those before the first update or fine-tuning left out."""
        self.best: Decoder | None = None
        self.best_perplexity = math.inf
        self.claimed = math.nan
        """What the notebook's formula says, where the training is told so."""
        self.evaluations_since_best = 0
        self.impatient = False
        self._report = _Report()
        self._saved = time.perf_counter()

    def run(self, cancelled: Callable[[], bool]) -> Generator[TrainingEvent, None, Reason]:
        """All epochs, then fine-tuning, from wherever it is; returns why they ended."""
        if self.best is None:  # there is none before the first validation, and whoever stops wants one
            yield from self._evaluate()
        while True:
            ends: Reason | None = yield from self._steer(cancelled)
            if ends is not None:
                yield from self._save()
                return ends
            if self.evaluation_due:
                yield from self._evaluate()
            elif self.epoch_number < self.last_epoch and not self.impatient:
                yield from self.read_window()
            elif self.options.fine_tune_epochs and not self.fine_tuning:
                self._start_fine_tuning()
            else:
                return "patience" if self.impatient else "done"

    def _start_fine_tuning(self) -> None:
        """Go on from the best weights by averaged SGD (section 5), whatever the optimizer was so far."""
        assert self.best is not None
        self.network.load(self.best.weights)
        self.use_sgd()
        self.average = WeightAverage(self.network)
        self.history, self.fine_tuning = [], True
        self.evaluations_since_best, self.impatient = 0, False
        self.epoch_number, self.text = math.ceil(self.epoch), None
        self.last_epoch = self.epoch_number + self.options.fine_tune_epochs

    def use_sgd(self) -> None:
        """The optimizer of fine-tuning."""
        self.optimizer = fine_tuning_optimizer(self.network, self.options)

    # What is asked of it

    def _steer(self, cancelled: Callable[[], bool]) -> Generator[TrainingEvent, None, Reason | None]:
        """Obey what was asked since the last window; returns why to end, if that was asked for."""
        paused: float | None = None
        while True:
            asked, cancel, save = self.world.share(lambda: self._asked(cancelled))
            for command in (Command(what, value) for what, value in asked):
                yield Steered(self.step, self.epoch, command.what, command.value)
                if command.what in ("stop", "detach"):
                    return "stopped" if command.what == "stop" else "detached"
                if command.what == "pause" and paused is None:
                    paused = time.perf_counter()
                elif command.what == "go_on" and paused is not None:
                    self._forget_time_since(paused)
                    paused = None
                self._obey(command)
                if command.what != "go_on":
                    yield from self._save_and_go_on()
            if cancel:
                return "stopped"
            if paused is None:
                if save:
                    yield from self._save_and_go_on()
                return None
            self.steering.wait(0.1)

    def _asked(self, cancelled: Callable[[], bool]) -> tuple[list[tuple[What, str]], bool, bool]:
        """The commands that came; whether it is cancelled; whether it is time to save, if they do not save anyway."""
        commands = [(command.what, command.value) for command in self.steering.take()]
        often = self.options.checkpoint_seconds
        return commands, cancelled(), bool(often and not commands and self._seconds_unsaved() >= often)

    def _obey(self, command: Command) -> None:
        if command.what == "prompt":
            self.sample_prompt = command.value
        elif command.what == "lr":
            self.lr_share = command.share

    def _forget_time_since(self, paused: float) -> None:
        """A pause is no training time."""
        self.started += time.perf_counter() - paused
        self._report = _Report()

    def _seconds_unsaved(self) -> float:
        return time.perf_counter() - self._saved

    def _save_and_go_on(self) -> Iterator[TrainingEvent]:
        """Save with the validation that is due, or whoever resumes from here does and tells it a second time."""
        if self.evaluation_due:
            yield from self._evaluate()
        yield from self._save()

    def _save(self) -> Iterator[TrainingEvent]:
        """All that is needed to go on exactly from here."""
        states = [(self.world.whole(hidden), self.world.whole(cell)) for hidden, cell in self.states]
        if self.world.place.first:
            if self._report.updates:
                yield self._step()
            yield Snapshot(self.step, pack(self, states))
        self._saved = time.perf_counter()

    # Training

    def _lr(self, progress: float) -> float:
        """The rate for a whole window, when `progress` of the epochs before fine-tuning is done."""
        if self.fine_tuning:
            return self.options.fine_tune_lr * self.lr_share
        return scheduled_lr(self.options, progress, self.plateau_factor) * self.lr_share

    def begin_epoch(self) -> None:
        """Draw the order of the text; its columns, and states of zeros."""
        options = self.options
        chance = self.chance.getstate()
        text, text_pauses = self._epoch_text()
        columns = torch.from_numpy(columns_of(text, options.batch_size)).to(self.device)
        pauses = None
        if text_pauses is not None:
            pauses = torch.from_numpy(columns_of(text_pauses, options.batch_size)).to(self.device)
        self.text = EpochText(columns, pauses, chance)
        self.states = self.network.start(options.batch_size // self.world.place.size)
        self.position = 0

    def read_window(self) -> Iterator[TrainingEvent]:
        """One window, one update; a report now and then."""
        options = self.options
        if self.text is None:
            self.begin_epoch()
        assert self.text is not None
        columns, pauses, position = self.text.columns, self.text.pauses, self.position
        last = len(columns) - 1
        length = min(window_length(options, self.chance), last - position)
        lr = self._lr((self.epoch_number + position / last) / options.epochs)
        if options.variable_window:
            lr *= length / options.window
        inputs = columns[position : position + length].long()
        targets = columns[position + 1 : position + 1 + length].long()
        its_pauses = None if pauses is None else pauses[position : position + length].long()
        loss, gradient_norm, self.states = self._update(inputs, targets, its_pauses, self.states, lr)
        self.position += length
        self.step += 1
        self.epoch = self.epoch_number + self.position / last
        epoch_done = self.position >= last
        if epoch_done:
            self.epoch_number, self.text = self.epoch_number + 1, None
        self._report.add(loss, gradient_norm, targets.numel(), lr)
        self.evaluation_due = self._evaluation_is_due(epoch_done=epoch_done)
        told = epoch_done or self.evaluation_due or time.perf_counter() - self._report.began >= REPORT_SECONDS
        if told and self.world.place.first:
            yield self._step()

    def _evaluation_is_due(self, *, epoch_done: bool) -> bool:
        """Whether validation comes before the next window."""
        options = self.options
        if epoch_done and self.epoch_number == self.last_epoch:
            return True
        if options.evaluate_updates:
            return self.step % options.evaluate_updates == 0
        return epoch_done and self.epoch_number % options.evaluate_every == 0

    def _epoch_text(self) -> tuple[Ids, PauseIds | None]:
        """The training text `[time]`, its lines in a new order if so configured, and its pauses if they are learned."""
        data = self.dataset
        pauses = data.train_pauses if self.network.config.pauses else None
        if not self.options.shuffle_lines:
            return data.train, pauses
        shuffled = array.array("i", range(len(data.train_lines)))  # a list would take nine times the memory
        self.chance.shuffle(shuffled)
        # Columns start elsewhere every epoch, so that no word is always the one left out or without context.
        first = self.chance.randrange(len(data.train))
        order, bounds = np.array(shuffled), data.train_lines.bounds
        text = in_order(data.train, bounds, order, first)
        return text, None if pauses is None else in_order(pauses, bounds, order, first)

    def _update(
        self, inputs: Tensor, targets: Tensor, pauses: Tensor | None, states: States, lr: float
    ) -> tuple[Tensor, Tensor, States]:
        """One window `[time, batch]` forward and back, one step; `states` are those of this process's columns."""
        options = self.options
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        states = [(hidden.detach(), cell.detach()) for hidden, cell in states]
        words = self.objective.words_to_compare(targets, self.masks)
        inputs, targets = self.world.columns(inputs), self.world.columns(targets)
        pauses = None if pauses is None else self.world.columns(pauses)
        loss, objective, states = self.lesson(inputs, targets, pauses, words, states, self.masks)
        self.optimizer.zero_grad(set_to_none=True)
        objective.backward()
        loss = self.world.mean(loss)
        gradient_norm = nn.utils.clip_grad_norm_(self.network.parameters(), options.clip or math.inf)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network)
        return loss, gradient_norm.detach(), states

    def _step(self) -> Step:
        """What happened since the last one."""
        report, now, self._report = self._report, time.perf_counter(), _Report()
        assert report.loss is not None
        assert report.gradient_norm is not None
        loss = float(report.loss) / report.tokens
        self._check_finite(loss)
        seconds = now - self.started
        return Step(
            step=self.step,
            epoch=self.epoch,
            train_perplexity=math.exp(min(loss, 700)),
            lr=report.lr,
            gradient_norm=float(report.gradient_norm) / report.updates,
            tokens_per_second=report.tokens / (now - report.began),
            seconds=seconds,
            eta_seconds=seconds * (self.options.epochs + self.options.fine_tune_epochs - self.epoch) / self.epoch,
        )

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            options = self.options
            kept = f"; the best model, of perplexity {self.best_perplexity:.1f}, is kept" if self.best else ""
            cause, remedy = "the rate is too high", f"--set lr={options.lr / 3:.2g}"
            if not options.clip:
                cause, remedy = "gradients are not clipped", f"--set clip=1 or {remedy}"
            elif self.dtype != torch.float32:
                cause, remedy = f"the rate is too high or {self.dtype} too coarse", f"{remedy} or --precision fp32"
            raise TrainingError(f"the loss is {loss} at update {self.step}, likely because {cause}; try {remedy}{kept}")

    def _evaluate(self) -> Iterator[TrainingEvent]:
        """Validation, the best kept, what waits for validation told, and the fixed prompt continued."""
        options = self.options
        network = self.network if self.average is None else self.average.network
        perplexity, claimed = self.world.share(lambda: self._validate(network))
        told = perplexity
        if options.validation == "notebook":
            told = self.claimed = claimed
        model = network.decoder(self.dataset.vocabulary)
        # The notebook's perplexity is always the same, and so the notebook keeps the latest weights.
        is_best = perplexity < self.best_perplexity or options.validation == "notebook"
        if is_best:
            self.best, self.best_perplexity, self.evaluations_since_best = model, perplexity, 0
        else:
            self.evaluations_since_best += 1
        if self.step:
            self._heed(told)
        seconds = time.perf_counter() - self.started
        self.evaluation_due = False
        if self.world.place.first:
            yield Evaluated(self.step, self.epoch, perplexity, is_best, seconds, model, self.claimed)
            yield self._sample(model)

    def _validate(self, network: Network) -> tuple[float, float]:
        """The perplexity of validation, and what the notebook would call it; NaN where nobody follows that."""
        options = self.options
        perplexity = evaluate(network, self.dataset.valid).perplexity
        self._check_finite(perplexity)
        if options.validation != "notebook":
            return perplexity, math.nan
        return perplexity, notebook_perplexity(network, self.dataset.valid, options.batch_size, options.window)

    def _heed(self, told: float) -> None:
        """What the validation just `told` sets off: a lower rate, the average of NT-ASGD, the end."""
        options = self.options
        if told >= min(self.history, default=math.inf):
            self.plateau_factor *= 0.5
        no_better = gets_no_better(self.history, told, options.nonmonotone)
        self.history.append(told)
        if (options.patience and self.evaluations_since_best >= options.patience) or (self.fine_tuning and no_better):
            self.impatient = True
        if no_better and self.average is None and options.averaging == "nt_asgd":
            self.average = WeightAverage(self.network)

    def _sample(self, model: LanguageModel) -> Sampled:
        options = self.options
        words = [word for word in model.vocabulary.tokenize(self.sample_prompt) if word in model.vocabulary]
        settings = SamplerSettings(temperature=options.sample_temperature, max_tokens=SAMPLE_TOKENS)
        events = stream(model, model.vocabulary.encode(words).tolist(), settings, options.sample_seed)
        text = " ".join(event.text for event in events if isinstance(event, TokenEvent))
        return Sampled(self.step, self.epoch, " ".join(words), text, options.sample_seed, options.sample_temperature)
