"""The training loop: one generator of events."""

import contextlib
import math
import random
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from engine.averaging import WeightAverage, gets_no_better
from engine.config import Config, TrainingConfig
from engine.dataset import Dataset, columns_of, join_lines, join_pauses
from engine.decoder import Decoder
from engine.device import choose_device, choose_dtype, use_threads
from engine.errors import TrainingError
from engine.evaluation import evaluate
from engine.events import Evaluated, Finished, Preparing, Reason, Sampled, Started, Step, TrainingEvent
from engine.lm import LanguageModel
from engine.network import Network, States
from engine.ngram import KneserNey, Unigram
from engine.notebook import notebook_perplexity
from engine.objective import Objective
from engine.pauses import PauseIds
from engine.sampling import SamplerSettings, TokenEvent, stream
from engine.schedule import scheduled_lr, window_length
from engine.spelling import spelling_of
from engine.vocabulary import Ids

REPORT_SECONDS = 0.25
"""Between two `Step` events; reading the losses makes a GPU wait, so it is not done every update."""
SAMPLE_TOKENS = 25


def train(config: Config, dataset: Dataset, run: str, cancelled: Callable[[], bool]) -> Iterator[TrainingEvent]:
    """Train on `dataset`, telling everything as events; the last one is `Finished`.

    The best weights by validation are those of `Finished`, whose test perplexity is read once.

    Raises:
        ConfigError: the device asked for is not there.
        TrainingError: the loss is no longer a number.
    """
    started = time.perf_counter()
    options = config.training
    use_threads(options)
    device = choose_device(options)
    yield Preparing("counting words and 5-grams, the lines to beat")
    unigram = evaluate(Unigram(dataset.train, dataset.vocabulary), dataset.valid).perplexity
    kneser_ney = evaluate(KneserNey(dataset.train, dataset.vocabulary), dataset.valid).perplexity
    loop = _Loop(config, dataset, device, started)
    yield Started(
        run=run,
        preset=config.preset,
        parameters=sum(parameter.numel() for parameter in loop.network.parameters()),
        vocabulary=len(dataset.vocabulary),
        train_tokens=len(dataset.train),
        valid_tokens=len(dataset.valid),
        epochs=options.epochs + options.fine_tune_epochs,
        device=str(device),
        corpus_sha256=dataset.corpus.sha256,
        unigram_perplexity=unigram,
        kneser_ney_perplexity=kneser_ney,
    )
    reason = yield from loop.run(cancelled)
    assert loop.best is not None
    yield Finished(
        reason=reason,
        run=run,
        epochs=loop.epoch,
        valid_perplexity=loop.best_perplexity,
        # The test split is looked at once, when the training is complete.
        test_perplexity=math.nan if reason == "stopped" else evaluate(loop.best, dataset.test).perplexity,
        seconds=time.perf_counter() - started,
        model=loop.best,
        notebook_perplexity=loop.claimed,
    )


@dataclass
class _Report:
    """What happened since the last `Step`; tensors are only read when it is made."""

    loss: Tensor | None = None
    gradient_norm: Tensor | None = None
    updates: int = 0
    tokens: int = 0
    began: float = field(default_factory=time.perf_counter)

    def add(self, loss: Tensor, gradient_norm: Tensor, tokens: int) -> None:
        loss = loss.detach() * tokens
        self.loss = loss if self.loss is None else self.loss + loss
        self.gradient_norm = gradient_norm if self.gradient_norm is None else self.gradient_norm + gradient_norm
        self.updates += 1
        self.tokens += tokens


class _Loop:
    """The state of one training: network, optimizer, schedule, and the best so far."""

    def __init__(self, config: Config, dataset: Dataset, device: torch.device, started: float) -> None:
        self.options = config.training
        self.dataset = dataset
        self.device = device
        self.started = started
        self.chance = random.Random(self.options.seed)
        self.masks = torch.Generator(device).manual_seed(self.options.seed)
        spelling = spelling_of(dataset.vocabulary) if config.model.spelling else None
        start = torch.Generator().manual_seed(self.options.seed)
        network = Network(config.model, len(dataset.vocabulary), start, spelling)
        if config.model.unigram_bias:
            network.start_from_unigram(dataset.train)
        self.network = network.to(device)
        self.average = WeightAverage(self.network, self.options.average) if self.options.averaging == "ema" else None
        self.optimizer = _optimizer(self.network, self.options)
        self.dtype = choose_dtype(self.options, device)
        self.objective = Objective(config.training, dataset.train, len(dataset.vocabulary), device)
        self.step = 0
        self.epoch = 0.0
        self.plateau_factor = 1.0
        self.fine_tuning = False
        self.history: list[float] = []
        """Validation perplexities so far, those before the first update or fine-tuning left out."""
        self.best: Decoder | None = None
        self.best_perplexity = math.inf
        self.claimed = math.nan
        """What the notebook's formula says, where the training is told so."""
        self.evaluations_since_best = 0
        self.impatient = False

    def run(self, cancelled: Callable[[], bool]) -> Generator[TrainingEvent, None, Reason]:
        """All epochs, then fine-tuning; returns why they ended."""
        options = self.options
        yield from self._evaluate()
        yield from self._train_epochs(options.epochs, cancelled)
        if options.fine_tune_epochs and not cancelled():
            self._start_fine_tuning()
            yield from self._train_epochs(options.fine_tune_epochs, cancelled)
        if cancelled():
            return "stopped"
        return "patience" if self.impatient else "done"

    def _train_epochs(self, number: int, cancelled: Callable[[], bool]) -> Iterator[TrainingEvent]:
        """So many epochs more, or fewer where patience ends."""
        first = math.ceil(self.epoch)
        for epoch in range(first, first + number):
            yield from self._train_epoch(epoch, cancelled, last_epoch=epoch + 1 == first + number)
            if cancelled() or self.impatient:
                return

    def _start_fine_tuning(self) -> None:
        """Go on from the best weights by averaged SGD (section 5), whatever the optimizer was so far."""
        assert self.best is not None
        self.network.load(self.best.weights)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), self.options.fine_tune_lr, weight_decay=self.options.weight_decay
        )
        self.average = WeightAverage(self.network)
        self.history, self.fine_tuning = [], True
        self.evaluations_since_best, self.impatient = 0, False

    def _lr(self, progress: float) -> float:
        """The rate for a whole window, when `progress` of the epochs before fine-tuning is done."""
        if self.fine_tuning:
            return self.options.fine_tune_lr
        return scheduled_lr(self.options, progress, self.plateau_factor)

    def _train_epoch(self, epoch: int, cancelled: Callable[[], bool], *, last_epoch: bool) -> Iterator[TrainingEvent]:
        options = self.options
        text, text_pauses = self._epoch_text()
        columns = torch.from_numpy(columns_of(text, options.batch_size)).to(self.device)
        pauses = None
        if text_pauses is not None:
            pauses = torch.from_numpy(columns_of(text_pauses, options.batch_size)).to(self.device)
        states = self.network.start(options.batch_size)
        report, position, last = _Report(), 0, len(columns) - 1
        while position < last and not cancelled() and not self.impatient:
            length = min(window_length(options, self.chance), last - position)
            lr = self._lr((epoch + position / last) / options.epochs)
            if options.variable_window:
                lr *= length / options.window
            inputs = columns[position : position + length]
            targets = columns[position + 1 : position + 1 + length]
            its_pauses = None if pauses is None else pauses[position : position + length]
            loss, gradient_norm, states = self._update(inputs, targets, its_pauses, states, lr)
            position += length
            self.step += 1
            self.epoch = epoch + position / last
            report.add(loss, gradient_norm, targets.numel())
            due = self._evaluation_is_due(epoch, epoch_done=position >= last, last_epoch=last_epoch)
            now = time.perf_counter()
            if now - report.began >= REPORT_SECONDS or position >= last or due:
                yield self._report(report, lr, now)
                report = _Report()
            if due and not cancelled():
                yield from self._evaluate()

    def _evaluation_is_due(self, epoch: int, *, epoch_done: bool, last_epoch: bool) -> bool:
        options = self.options
        if epoch_done and last_epoch:
            return True
        if options.evaluate_updates:
            return self.step % options.evaluate_updates == 0
        return epoch_done and (epoch + 1) % options.evaluate_every == 0

    def _epoch_text(self) -> tuple[Ids, PauseIds | None]:
        """The training text `[time]`, its lines in a new order if so configured, and its pauses if they are learned."""
        data = self.dataset
        order, first = list(range(len(data.train_lines))), 0
        if self.options.shuffle_lines:
            self.chance.shuffle(order)
            # Columns start elsewhere every epoch, so that no word is always the one left out or without context.
            first = self.chance.randrange(len(data.train))
        text = np.roll(join_lines([data.train_lines[i] for i in order], data.mode), first)
        if not self.network.config.pauses:
            return text, None
        return text, np.roll(join_pauses([data.train_pauses[i] for i in order], data.mode), first)

    def _update(
        self, inputs: Tensor, targets: Tensor, pauses: Tensor | None, states: States, lr: float
    ) -> tuple[Tensor, Tensor, States]:
        """One window forward and back, one step of the optimizer. `inputs`, `targets`, `pauses`: `[time, batch]`."""
        options = self.options
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        states = [(hidden.detach(), cell.detach()) for hidden, cell in states]
        mixed = (
            torch.autocast(self.device.type, self.dtype) if self.dtype != torch.float32 else contextlib.nullcontext()
        )
        with mixed:
            words = self.objective.words_to_compare(targets, self.masks)
            logits, states, raw, dropped = self.network(inputs, states, self.masks, words, pauses)
        loss, objective = self.objective(logits, targets, words, raw, dropped)
        if self.network.pauses is not None and pauses is not None:
            objective = objective + self.network.pauses.loss(dropped, pauses)
        self.optimizer.zero_grad(set_to_none=True)
        objective.backward()  # type: ignore[no-untyped-call]
        gradient_norm = nn.utils.clip_grad_norm_(self.network.parameters(), options.clip or math.inf)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network)
        return loss, gradient_norm.detach(), states

    def _report(self, report: _Report, lr: float, now: float) -> Step:
        assert report.loss is not None
        assert report.gradient_norm is not None
        loss = float(report.loss) / report.tokens
        self._check_finite(loss)
        seconds = now - self.started
        return Step(
            step=self.step,
            epoch=self.epoch,
            train_perplexity=math.exp(min(loss, 700)),
            lr=lr,
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
        perplexity = evaluate(network, self.dataset.valid).perplexity
        self._check_finite(perplexity)
        told = perplexity
        if options.validation == "notebook":
            told = self.claimed = notebook_perplexity(network, self.dataset.valid, options.batch_size, options.window)
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
        yield Evaluated(self.step, self.epoch, perplexity, is_best, seconds, model, self.claimed)
        yield self._sample(model)

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
        words = [word for word in model.vocabulary.tokenize(options.sample_prompt) if word in model.vocabulary]
        settings = SamplerSettings(temperature=options.sample_temperature, max_tokens=SAMPLE_TOKENS)
        events = stream(model, model.vocabulary.encode(words).tolist(), settings, options.sample_seed)
        text = " ".join(event.text for event in events if isinstance(event, TokenEvent))
        return Sampled(self.step, self.epoch, " ".join(words), text, options.sample_seed, options.sample_temperature)


def _optimizer(network: Network, options: TrainingConfig) -> torch.optim.Optimizer:
    if options.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), options.lr, weight_decay=options.weight_decay)
    named = list(network.named_parameters())
    biases = [parameter for name, parameter in named if "bias" in name]
    others = [parameter for name, parameter in named if "bias" not in name]
    groups = [
        {"params": others, "weight_decay": options.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=options.lr, betas=(0.9, options.beta2))
