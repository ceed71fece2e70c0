"""Diagnoses of a training: eight functions that each find one kind of problem in its history, with a remedy.

A false alarm is worse than a miss: the thresholds, see `assets/docs/diagnostics.md`, are above what the presets show.
"""

import math
import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from engine import events
from engine.config import Config, TrainingConfig
from engine.runs.directory import METRICS_FILE, drop_superseded, read_events, run_word

# Lowest and highest learning rate with which the models of this program learn from random weights.
USUAL_LR = {"adamw": (0.001, 0.02), "adam": (0.001, 0.02), "sgd": (1.0, 50.0)}
GOOD_LR = {"adamw": 0.003, "adam": 0.003, "sgd": 10.0}
NUM_REPORTS = 20  # of a step, for a level of losses and norms; about five seconds
DISK_INTERVAL, GPU_INTERVAL = 10.0, 1.0  # seconds between two readings; checkpoints are 30 seconds apart by default
NUM_GPU_READINGS = 120  # a validation or a checkpoint is a small part of two minutes


class Finding(NamedTuple):
    message: str
    remedy: str


class Evaluation(NamedTuple):
    step: int
    epoch: float
    perplexity: float
    train_perplexity: float  # since the evaluation before; NaN if unknown


@dataclass
class History:
    """Figures of a training for the diagnoses, and the kinds of problems that were reported."""

    config: Config
    run_dir: Path
    reported: set[str] = field(default_factory=set)
    device: str = ""
    step: int = 0
    epoch: float = 0.0
    unigram_perplexity: float = math.nan
    steps: deque[events.Step] = field(default_factory=lambda: deque(maxlen=2 * NUM_REPORTS + 2))
    early_norms: list[float] = field(default_factory=list)
    lr: float = 0.0
    max_lr: float = 0.0
    evaluations: list[Evaluation] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  # of the reports since the last evaluation
    train_tokens: int = 0
    checkpoint_bytes: int = 0
    gpu_utilizations: list[float] = field(default_factory=list)
    disk_read_at: float = -math.inf  # on the clock `time.monotonic`, as the next
    gpu_read_at: float = -math.inf

    def observe(self, event: events.TrainingEvent) -> list[events.Diagnosed]:
        """Add an event of the training, and return the problems that it shows, once per training and kind."""
        options = self.config.training
        match event:
            case events.Started():
                self.device, self.train_tokens = event.device, event.train_tokens
                self.unigram_perplexity = event.unigram_perplexity
                # Network, two moments of Adam, moving average: a guess until the first checkpoint.
                copies = 1 + 2 * (options.optimizer != "sgd") + (options.averaging == "ema")
                self.checkpoint_bytes = 4 * event.parameters * copies
            case events.Resume():  # its training continues after the recorded events, except steps
                recorded = drop_superseded([*read_events(self.run_dir / METRICS_FILE, subsample=True), event])
                for earlier in recorded:
                    if isinstance(earlier, events.Evaluated):
                        self.observe(earlier)
                self.reported = {earlier.kind for earlier in recorded if isinstance(earlier, events.Diagnosed)}
            case events.Step() if event.train_perplexity >= 1 and not math.isnan(event.gradient_norm):
                self.step, self.epoch = event.step, event.epoch
                self.lr, self.max_lr = event.lr, max(self.max_lr, event.lr)
                self.losses.append(math.log(event.train_perplexity))
                self.steps.append(event)
                if len(self.early_norms) < NUM_REPORTS:
                    self.early_norms.append(event.gradient_norm)
            case events.Evaluated() if math.isfinite(event.valid_perplexity):
                self.step, self.epoch = event.step, event.epoch
                train = math.exp(mean(self.losses)) if self.losses else math.nan
                self.evaluations.append(Evaluation(self.step, self.epoch, event.valid_perplexity, train))
                self.losses = []
            case events.Snapshot():
                self.checkpoint_bytes = len(event.content)
            case _:
                return []
        diagnoses = []
        for kind, (types, find) in DIAGNOSES.items():
            if isinstance(event, types) and (finding := find(self)) and kind not in self.reported:
                self.reported.add(kind)
                diagnoses.append(events.Diagnosed(self.step, self.epoch, kind, *finding))
        return diagnoses


def _lower_lr(options: TrainingConfig) -> str:
    is_unusual = options.lr > USUAL_LR[options.optimizer][1]
    return f"--set lr={GOOD_LR[options.optimizer] if is_unusual else options.lr / 3:.2g}"


def _weaker_decay(options: TrainingConfig) -> str:
    is_strong = options.lr * options.weight_decay > 0.01  # of a weight in each step; the presets stay below 0.003
    return f"--set weight_decay={0.001 / options.lr:.2g}" if is_strong else ""


def _format(perplexity: float) -> str:
    return f"{perplexity:.1f}" if perplexity < 10_000 else f"{perplexity:.4g}"


def rising_validation(history: History) -> Finding | None:
    """Find that the latest evaluation is the worst since a best one that is long enough ago."""
    options, evaluations = history.config.training, [each for each in history.evaluations if each.step]
    best = min(evaluations, key=lambda each: each.perplexity, default=None)
    if best is None or options.patience:  # with patience, a training stops by itself
        return None
    latest, worse = evaluations[-1], evaluations[evaluations.index(best) + 1 :]
    # Up to three are noise, as with a constant rate on a short text; then averaging is due to start.
    min_worse = 4 + (options.nonmonotone_interval if options.averaging == "nt_asgd" else 0)
    # Generalization loss (Prechelt 1998, GL); the end of a healthy training rises by up to 2 %.
    limit = max([1.05 * best.perplexity, *(each.perplexity for each in worse)])
    if len(worse) < min_worse or latest.perplexity < limit:
        return None
    reason, change = "training perplexity rises too: the learning rate is high", f" {_lower_lr(options)}"
    if not latest.train_perplexity > best.train_perplexity:
        reason, change = "the model overfits", ""
        if history.config.model.output_dropout <= 0.3:
            change = " --set input_dropout=0.5 --set output_dropout=0.5"
    is_over = latest.epoch >= options.epochs + options.fine_tune_epochs
    now = "the best model is kept" if is_over else f"lotr-tui stop {run_word(history.run_dir)} keeps the best model"
    return Finding(
        f"validation perplexity rose from its best, {_format(best.perplexity)} at epoch {best.epoch:.1f}, to "
        f"{_format(latest.perplexity)} in {len(worse)} evaluations; {reason}",
        f"{now}; next time --set patience=4{change}",
    )


def loss_spike(history: History) -> Finding | None:
    """Find that two reports (one may be an unusual window) are far above the median of those before."""
    losses = [math.log(step.train_perplexity) for step in history.steps]
    before, latest = losses[:-2], losses[-2:]
    if len(before) < NUM_REPORTS:  # at the start, the loss falls too fast for a level
        return None
    level = median(before)
    deviation = 1.4826 * median(abs(loss - level) for loss in before)  # of a normal distribution
    # Twice the perplexity, and noise of small batches excluded.
    if min(latest) <= level + max(math.log(2), 6 * deviation):
        return None
    step, clip = history.steps[-1], "" if history.config.training.clip else "--set clip=1, or "
    return Finding(
        f"training perplexity jumped from about {_format(math.exp(level))} to {_format(step.train_perplexity)} at step "
        f"{step.step:,}",
        f"if it does not fall back soon, train again with {clip}{_lower_lr(history.config.training)}",
    )


def forgetting(history: History) -> Finding | None:
    """Find that fine-tuning destroys what the initial model has learned; a later rise is for `rising_validation`."""
    options = history.config.training
    if not options.init or len(history.evaluations) < 2 or history.evaluations[0].step:
        return None
    first, *others = history.evaluations
    rises = [each.perplexity / first.perplexity for each in others]
    is_worse = len(rises) >= 2 and min(rises) >= 1 and min(rises[-2:]) >= 1.02  # a large corpus rises by 0.3 % at first
    if rises[-1] < 1.1 and not is_worse:
        return None
    lowest, highest = USUAL_LR[options.optimizer]
    lr = lowest if options.lr > highest else options.lr / (10 if rises[-1] >= 1.5 else 3)
    return Finding(
        f"fine-tuning destroys what was learned: validation perplexity was {_format(first.perplexity)} before it and "
        f"is {_format(others[-1].perplexity)} at epoch {others[-1].epoch:.1f}",
        f"stop, and train again with --set lr={lr:.2g}",
    )


def vanishing_gradients(history: History) -> Finding | None:
    """Find that the norm of all gradients has been tiny for long, although there is something left to learn."""
    options, num_layers = history.config.training, history.config.model.num_layers
    latest, level = list(history.steps)[-NUM_REPORTS:], median(history.early_norms)
    # A healthy norm changes by a factor of 0.5 to 4; numbers of 32 bits around 1 are rounded to 1e-7.
    limit = max(1e-7, 1e-3 * level)
    # Below a perplexity of 2, small gradients are natural: the text is nearly known by heart.
    has_vanished = all(step.gradient_norm < limit and step.train_perplexity > 2 for step in latest)
    if not has_vanished or len(latest) < NUM_REPORTS:
        return None
    remedy = _lower_lr(options)
    if decay := _weaker_decay(options):  # the weights have decayed to zero, and with them the gradients
        remedy = decay
    elif options.optimizer == "sgd":
        remedy = f"--set optimizer=adamw --set lr={GOOD_LR['adamw']}"
    elif num_layers > 1:
        remedy = f"--set num_layers={num_layers // 2} {remedy}"
    return Finding(
        f"the gradients have vanished, so the model no longer learns: their norm is {latest[-1].gradient_norm:.1e}, "
        f"after about {level:.1e} at the start",
        f"train again with {remedy}",
    )


def exploding_gradients(history: History) -> Finding | None:
    """Find that nearly all recent gradients were clipped to less than a twentieth; the presets stay below 4."""
    clip, norms = history.config.training.clip, [step.gradient_norm for step in history.steps][-40:]
    if not clip or norms[-1] <= 20 * clip or sum(norm > 20 * clip for norm in norms) < 36:
        return None
    message = f"the gradients explode: nearly every step is clipped, now from {norms[-1]:.3g} to {clip:g}"
    return Finding(message, f"train again with {_lower_lr(history.config.training)}")


def unigram_model(history: History) -> Finding | None:
    """Find that an evaluation after an epoch is as bad as the unigram model, and not getting better."""
    options, latest, unigram = history.config.training, history.evaluations[-1], history.unigram_perplexity
    # A short text has too few steps per epoch to learn much; at a tenth of the learning rate, the model learns no more.
    min_steps = 1 if history.lr <= 0.1 * history.max_lr else 100
    earlier = [
        each.perplexity
        for each in history.evaluations
        if latest.epoch - each.epoch >= 1 and latest.step - each.step >= min_steps
    ]
    if (
        not earlier
        or not latest.perplexity >= 0.95 * unigram
        or latest.train_perplexity < 0.7 * unigram  # the model uses the context, and rather overfits
        or min(each.perplexity for each in history.evaluations) <= 0.97 * min(earlier)  # it still learns
        or history.max_lr < 0.25 * options.lr  # the warm-up has hardly begun
    ):
        return None
    model, (lowest, highest) = history.config.model, USUAL_LR[options.optimizer]
    if options.validation_metric == "notebook" and options.schedule == "plateau":
        change = "--set validation_metric=perplexity; the notebook's metric halves the learning rate after every epoch"
    elif decay := _weaker_decay(options):
        change = decay
    elif not lowest <= options.lr <= highest:
        problem = "low" if options.lr < lowest else "high"
        change = f"--set lr={GOOD_LR[options.optimizer]:.2g}; lr={options.lr:.2g} is {problem}"
    elif options.optimizer == "adam" and options.weight_decay > 1e-4:  # Loshchilov and Hutter 2019, section 2
        change = "--set optimizer=adamw; the weight decay of adam keeps weights with small gradients at zero"
    elif names := [name for name in ("input_dropout", "output_dropout") if getattr(model, name) > 0.7]:
        change = " ".join(f"--set {name}=0.4" for name in names)
    elif latest.step < 500:
        change = f"--epochs {3 * options.epochs}, since {latest.step:,} steps are few"
    else:
        change = f"{_lower_lr(options)}, and check that the order of words in the text has a meaning"
    return Finding(
        f"after {latest.epoch:.1f} epochs the model knows no more than token frequencies: validation perplexity "
        f"{_format(latest.perplexity)}, a unigram model has {_format(unigram)}",
        f"stop, and train again with {change}",
    )


def disk_space(history: History) -> Finding | None:
    """Find that there is no room for the next checkpoint, which is written beside the old one and then replaces it."""
    if time.monotonic() < history.disk_read_at + DISK_INTERVAL:
        return None
    history.disk_read_at = time.monotonic()
    try:
        free = shutil.disk_usage(history.run_dir).free
    except OSError:  # the folder was deleted, or its file system reports no space
        return None
    needed = 1.1 * history.checkpoint_bytes  # the metrics and the model grow too
    if free >= 2 * needed:  # not at every change
        history.reported.discard("disk_space")
    if free >= needed:
        return None
    return Finding(
        f"no space for the next checkpoint: it needs {needed / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB "
        "are free where the run is kept",
        "delete files there, such as runs you do not need (lotr-tui runs rm RUN); the training continues",
    )


def idle_gpu(history: History) -> Finding | None:
    """Find that the GPU computes less than half of some minutes of training."""
    # "cuda" is the name of AMD's GPUs too.
    if not history.device.startswith("cuda") or time.monotonic() < history.gpu_read_at + GPU_INTERVAL:
        return None
    history.gpu_read_at = time.monotonic()
    import torch  # the training has imported it

    try:
        history.gpu_utilizations.append(torch.cuda.utilization(torch.device(history.device)) / 100)
    except Exception:  # a missing package, driver, permission or feature, which raise different errors
        history.gpu_read_at = math.inf
    if len(history.gpu_utilizations) < NUM_GPU_READINGS:
        return None
    utilization, options = mean(history.gpu_utilizations), history.config.training
    history.gpu_utilizations.clear()
    if utilization >= 0.5:
        return None
    batch_size = options.batch_size * (2 if utilization >= 0.25 else 4)
    remedy = f"train again with --set batch_size={batch_size}, or with --device cpu if the model is tiny"
    if history.train_tokens < batch_size * options.bptt * 10:  # an epoch of ten steps learns little
        remedy = "train again with --device cpu, which is about as fast for a model and text of this size"
    return Finding(f"the GPU was idle {1 - utilization:.0%} of the last two minutes: the model is small", remedy)


# The events after which each kind of problem is looked for, and the function that finds it.
DIAGNOSES: dict[events.DiagnosisKind, tuple[type | tuple[type, ...], Callable[[History], Finding | None]]] = {
    "rising_validation": (events.Evaluated, rising_validation),
    "loss_spike": (events.Step, loss_spike),
    "forgetting": (events.Evaluated, forgetting),
    "vanishing_gradients": (events.Step, vanishing_gradients),
    "exploding_gradients": (events.Step, exploding_gradients),
    "unigram_model": (events.Evaluated, unigram_model),
    "disk_space": ((events.Started, events.Step, events.Evaluated), disk_space),
    "idle_gpu": (events.Step, idle_gpu),
}
