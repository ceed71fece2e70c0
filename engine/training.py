"""The training loop: one generator of events."""

import contextlib
import math
import random
import time
from collections.abc import Callable, Generator, Iterator
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from engine.config import Config, TrainingConfig
from engine.dataset import Dataset, join_lines
from engine.device import choose_device, choose_dtype, use_threads
from engine.errors import TrainingError
from engine.evaluation import evaluate
from engine.events import Evaluated, Finished, Preparing, Reason, Sampled, Started, Step, TrainingEvent
from engine.lm import LanguageModel
from engine.network import Network, States
from engine.ngram import KneserNey, Unigram
from engine.sampling import SamplerSettings, TokenEvent, stream
from engine.vocabulary import Ids, tokenize

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
        epochs=options.epochs,
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
    )


def columns_of(ids: Ids, batch: int) -> Tensor:
    """Cut a text into `batch` columns read side by side, `[time, batch]`; what does not fill a row is left out."""
    rows = len(ids) // batch
    return torch.from_numpy(ids[: rows * batch].astype(np.int64)).view(batch, rows).t().contiguous()


def window_length(options: TrainingConfig, chance: random.Random) -> int:
    """The next BPTT window: fixed, or drawn around the full one and now and then around half of it (4.1)."""
    if not options.variable_window:
        return options.window
    base = options.window if chance.random() < 0.95 else options.window / 2
    return max(5, int(chance.gauss(base, 5)))


def scheduled_lr(options: TrainingConfig, progress: float, plateau_factor: float) -> float:
    """The learning rate when `progress` (0 to 1) of the training is done."""
    if options.schedule == "plateau":
        return options.lr * plateau_factor
    if options.schedule == "constant":
        return options.lr
    if progress < options.warmup:
        return options.lr * (0.04 + 0.96 * progress / options.warmup)
    after = (progress - options.warmup) / max(1e-9, 1 - options.warmup)
    return options.lr * max(1e-4, 0.5 * (1 + math.cos(math.pi * min(1.0, after))))


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
        network = Network(config.model, len(dataset.vocabulary), torch.Generator().manual_seed(self.options.seed))
        if config.model.unigram_bias:
            network.start_from_unigram(dataset.train)
        self.network = network.to(device)
        self.averaged = deepcopy(self.network) if self.options.average else None
        self.optimizer = _optimizer(self.network, self.options)
        self.dtype = choose_dtype(self.options, device)
        frequencies = np.bincount(dataset.train, minlength=len(dataset.vocabulary)) / len(dataset.train)
        self.frequencies = torch.from_numpy(frequencies.astype(np.float32)).to(device)
        self.step = 0
        self.epoch = 0.0
        self.plateau_factor = 1.0
        self.best: LanguageModel | None = None
        self.best_perplexity = math.inf
        self.evaluations_since_best = 0

    def run(self, cancelled: Callable[[], bool]) -> Generator[TrainingEvent, None, Reason]:
        """All epochs; returns why they ended."""
        options = self.options
        yield from self._evaluate()
        for epoch in range(options.epochs):
            yield from self._train_epoch(epoch, cancelled)
            if cancelled():
                return "stopped"
            self.epoch = float(epoch + 1)
            if (epoch + 1) % options.evaluate_every == 0 or epoch + 1 == options.epochs:
                yield from self._evaluate()
                if options.patience and self.evaluations_since_best >= options.patience:
                    return "patience"
        return "done"

    def _train_epoch(self, epoch: int, cancelled: Callable[[], bool]) -> Iterator[TrainingEvent]:
        options = self.options
        columns = columns_of(self._epoch_text(), options.batch_size).to(self.device)
        states = self.network.start(options.batch_size)
        report, position, last = _Report(), 0, len(columns) - 1
        while position < last and not cancelled():
            length = min(window_length(options, self.chance), last - position)
            progress = (epoch + position / last) / options.epochs
            lr = scheduled_lr(options, progress, self.plateau_factor)
            if options.variable_window:
                lr *= length / options.window
            inputs = columns[position : position + length]
            targets = columns[position + 1 : position + 1 + length]
            loss, gradient_norm, states = self._update(inputs, targets, states, lr)
            position += length
            self.step += 1
            self.epoch = epoch + position / last
            report.add(loss, gradient_norm, targets.numel())
            now = time.perf_counter()
            if now - report.began >= REPORT_SECONDS or position >= last:
                yield self._report(report, lr, now)
                report = _Report()

    def _epoch_text(self) -> Ids:
        """The training text `[time]`, its lines in a new order if so configured."""
        if not self.options.shuffle_lines:
            return self.dataset.train
        lines = list(self.dataset.train_lines)
        self.chance.shuffle(lines)
        text = join_lines(lines, self.dataset.mode)
        # Columns start elsewhere every epoch, so that no word is always the one left out or without context.
        return np.roll(text, self.chance.randrange(len(text)))

    def _update(self, inputs: Tensor, targets: Tensor, states: States, lr: float) -> tuple[Tensor, Tensor, States]:
        """One window forward and back, one step of the optimizer. `inputs`, `targets`: `[time, batch]`."""
        options = self.options
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        states = [(hidden.detach(), cell.detach()) for hidden, cell in states]
        mixed = (
            torch.autocast(self.device.type, self.dtype) if self.dtype != torch.float32 else contextlib.nullcontext()
        )
        with mixed:
            logits, states, raw, dropped = self.network(inputs, states, self.masks)
        log_probs = torch.log_softmax(logits.float(), dim=-1).flatten(0, 1)
        loss = nn.functional.nll_loss(log_probs, targets.flatten())
        objective = loss
        if options.smoothing:
            spread = -(log_probs @ self.frequencies).mean()
            objective = (1 - options.smoothing) * loss + options.smoothing * spread
        if options.ar:
            objective = objective + options.ar * dropped.float().pow(2).mean()
        if options.tar and len(raw) > 1:
            objective = objective + options.tar * (raw[1:] - raw[:-1]).float().pow(2).mean()
        self.optimizer.zero_grad(set_to_none=True)
        objective.backward()  # type: ignore[no-untyped-call]
        gradient_norm = nn.utils.clip_grad_norm_(self.network.parameters(), options.clip or math.inf)
        self.optimizer.step()
        if self.averaged is not None:
            # A running mean at first, so that the random start is soon forgotten.
            decay = min(options.average, self.step / (self.step + 10))
            with torch.no_grad():
                for mean, parameter in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
                    mean.lerp_(parameter, 1 - decay)
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
            eta_seconds=seconds * (self.options.epochs - self.epoch) / self.epoch,
        )

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at update {self.step}; try a lower rate, --set lr={self.options.lr / 3:.2g}"
            )

    def _evaluate(self) -> Iterator[TrainingEvent]:
        """Validation, the best kept, the plateau schedule told, and the fixed prompt continued."""
        network = self.network if self.averaged is None else self.averaged
        perplexity = evaluate(network, self.dataset.valid).perplexity
        self._check_finite(perplexity)
        model = network.decoder(self.dataset.vocabulary)
        is_best = perplexity < self.best_perplexity
        if is_best:
            self.best, self.best_perplexity, self.evaluations_since_best = model, perplexity, 0
        else:
            self.evaluations_since_best += 1
            self.plateau_factor *= 0.5
        seconds = time.perf_counter() - self.started
        yield Evaluated(self.step, self.epoch, perplexity, is_best, seconds, model)
        yield self._sample(model)

    def _sample(self, model: LanguageModel) -> Sampled:
        options = self.options
        words = [word for word in tokenize(options.sample_prompt) if word in model.vocabulary]
        settings = SamplerSettings(temperature=options.sample_temperature, max_tokens=SAMPLE_TOKENS)
        events = stream(model, model.vocabulary.encode(words).tolist(), settings, options.sample_seed)
        text = " ".join(event.text for event in events if isinstance(event, TokenEvent))
        return Sampled(self.step, self.epoch, " ".join(words), text, options.sample_seed, options.sample_temperature)


def _optimizer(network: Network, options: TrainingConfig) -> torch.optim.Optimizer:
    parameters = list(network.parameters())
    groups = [
        {
            "params": [parameter for parameter in parameters if parameter.dim() > 1],
            "weight_decay": options.weight_decay,
        },
        {"params": [parameter for parameter in parameters if parameter.dim() == 1], "weight_decay": 0.0},
    ]
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.lr)
    kind = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=options.lr, betas=(0.9, options.beta2))
