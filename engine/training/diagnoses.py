"""Diagnoses of a training: eight functions that each find one kind of problem in its history, with a remedy.

A false alarm is worse than a miss: the thresholds are above everything that healthy trainings of the presets show.
"""

import contextlib
import math
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from engine import events
from engine.config import Config, TrainingConfig
from engine.events import Diagnosed, DiagnosisKind, TrainingEvent
from engine.runs.directory import METRICS_FILE, run_word
from engine.runs.metrics import drop_superseded_rows, read_rows

# Lowest and highest learning rate with which the models of this program learn from random weights.
USUAL_LR = {"adamw": (0.001, 0.02), "adam": (0.001, 0.02), "sgd": (1.0, 50.0)}
GOOD_LR = {"adamw": 0.003, "adam": 0.003, "sgd": 10.0}
MAX_DECAY_PER_STEP, GOOD_DECAY_PER_STEP = 0.01, 0.001  # fraction of a weight; the presets stay below 0.003
MIN_WORSE_EVALUATIONS = 4  # without a new best; up to three are noise, as with a constant rate on a short text
MIN_VALIDATION_RISE = 1.05  # generalization loss (Prechelt 1998, GL); the end of a healthy training rises by up to 2 %
LOW_DROPOUT, MORE_DROPOUT = 0.3, 0.5  # below, more is worth a try; the presets for the dialogues use 0.3 to 0.65
SPIKE_WINDOW = 40  # reports in the running median; about ten seconds
MIN_REPORTS = 20  # before them no spike is possible: at the start, the loss falls too fast for a level
MIN_LOSS_RISE = math.log(2)  # the perplexity doubles; the last window of an epoch can be a single, hard time step
MAX_DEVIATIONS = 6.0  # standard deviations that are still noise, for losses that vary much, as with small batches
MAD_TO_DEVIATION = 1.4826  # standard deviation of a normal distribution, divided by its median absolute deviation
MIN_HIGH_REPORTS = 2  # in a row; a single one may consist of one unusual window
MIN_RISE_AT_ONCE = 1.1  # perplexity, divided by the perplexity of the initial model, that is reported at once
MIN_RISE, MIN_RISES = 1.02, 2  # the same if the first evaluations are all worse; a large corpus rises by 0.3 % at first
MUCH_WORSE = 1.5  # the same, from which the learning rate is far too high
NUM_EARLY_REPORTS = 20  # their median is the early level of the norm
VANISHED_FRACTION = 1e-3  # of the early level; over a healthy training, the norm changes by a factor of 0.5 to 4
VANISHED_NORM = 1e-7  # whatever the early level was: about the rounding error of 32-bit numbers around 1
NUM_VANISHED_REPORTS = 20  # in a row; about five seconds
MEMORIZED_PERPLEXITY = 2.0  # below, small gradients are natural: the text is nearly known by heart
EXPLODED_RATIO = 20.0  # norm, divided by the clipping limit, that is far too large; the presets have ratios up to 4
EXPLODED_WINDOW, MIN_EXPLODED = 40, 36  # latest reports, and how many of them are "nearly all"
UNIGRAM_FRACTION = 0.95  # of the unigram perplexity; a model that uses the context is below it after an epoch
OVERFITTED_FRACTION = 0.7  # the same for training perplexity: the model uses the context, and rather overfits
MIN_IMPROVEMENT = 0.97  # best perplexity, divided by the best one an epoch earlier, of a model that still learns
MIN_EPOCHS, MIN_STEPS = 1.0, 100  # between the two; a short text has too few steps per epoch to learn much
ENDED_LR = 0.1  # fraction of the highest learning rate so far at which the model learns no more: any step is enough
MIN_WARM_UP = 0.25  # fraction of the peak learning rate; before, the warm-up has hardly begun
MAX_ADAM_DECAY = 1e-4  # Adam divides weight decay by the size of gradients (Loshchilov and Hutter 2019, section 2)
MUCH_DROPOUT, GOOD_DROPOUT = 0.7, 0.4  # above, a small model hardly learns
FEW_STEPS, MORE_EPOCHS = 500, 3  # the learning rate of a healthy model may fall before it gets beyond frequencies
NUM_READINGS = 120  # averaged, one per second: a validation or a checkpoint is a small part of them
MIN_UTILIZATION = 0.5
DISK_MARGIN = 1.1  # space that a checkpoint needs, divided by its size: the metrics and the model grow too
RECOVERED_CHECKPOINTS = 2  # that must fit before the problem may be reported again: not at every change
DISK_INTERVAL, GPU_INTERVAL = 10.0, 1.0  # seconds between two readings; checkpoints are 30 seconds apart by default


class GpuReading(NamedTuple):
    utilization: float  # fraction of the last second in which the GPU computed


class DiskReading(NamedTuple):
    free_bytes: int  # where the run is kept


class Finding(NamedTuple):
    message: str
    remedy: str


class Evaluation(NamedTuple):
    step: int
    epoch: float
    perplexity: float
    train_perplexity: float  # since the evaluation before; NaN if unknown


class History:
    """Facts about a training that the diagnoses need, and the kinds of problems that were reported."""

    def __init__(self, config: Config, run: str) -> None:
        """Start before the first event; `run` is the name or path of the run, as it is typed after a command."""
        self.config, self.options, self.run = config, config.training, run
        self.reported: set[str] = set()
        self.step, self.epoch = 0, 0.0
        self.unigram_perplexity = math.nan
        self.train_tokens = 0
        self.steps: deque[events.Step] = deque(maxlen=SPIKE_WINDOW + MIN_HIGH_REPORTS)
        self.early_norms: list[float] = []
        self.lr = self.max_lr = 0.0
        self.evaluations: list[Evaluation] = []
        self.is_training = False  # and not paused
        self.gpu_readings: list[float] = []
        self.checkpoint_bytes = self.free_bytes = 0
        self._losses: list[float] = []  # of the reports since the last evaluation

    def observe(self, observation: TrainingEvent | GpuReading | DiskReading) -> list[Diagnosed]:
        """Return the problems that an event, or a reading of the machine, shows and that were not reported before."""
        match observation:
            case events.Started():
                self.unigram_perplexity = observation.unigram_perplexity
                self.train_tokens = observation.train_tokens
                # Network, best model, two moments of Adam, moving average: a guess until the first checkpoint.
                copies = 2 + 2 * (self.options.optimizer != "sgd") + (self.options.averaging == "ema")
                self.checkpoint_bytes = 4 * observation.parameters * copies
            case events.Step() if observation.train_perplexity >= 1 and not math.isnan(observation.gradient_norm):
                self.step, self.epoch, self.is_training = observation.step, observation.epoch, True
                self.lr, self.max_lr = observation.lr, max(self.max_lr, observation.lr)
                self._losses.append(math.log(observation.train_perplexity))
                self.steps.append(observation)
                if len(self.early_norms) < NUM_EARLY_REPORTS:
                    self.early_norms.append(observation.gradient_norm)
            case events.Evaluated() if math.isfinite(observation.valid_perplexity):
                self.step, self.epoch = observation.step, observation.epoch
                train = math.exp(mean(self._losses)) if self._losses else math.nan
                self.evaluations.append(Evaluation(self.step, self.epoch, observation.valid_perplexity, train))
                self._losses = []
            case events.CommandApplied(kind="pause"):
                self.is_training = False
            case events.Snapshot():
                self.checkpoint_bytes = len(observation.content)
            case GpuReading() if self.is_training:
                self.gpu_readings.append(observation.utilization)
            case DiskReading():
                self.free_bytes = observation.free_bytes
            case _:
                return []
        diagnoses = []
        for kind, (type_, find) in DIAGNOSES.items():
            if isinstance(observation, type_) and (finding := find(self)) and kind not in self.reported:
                self.reported.add(kind)
                diagnoses.append(Diagnosed(self.step, self.epoch, kind, *finding))
        return diagnoses

    def restore(self, run_dir: Path, resume_step: int) -> None:
        """Continue after the recorded events before a step, except steps, without reporting their problems again."""
        reported: set[str] = set()
        rows = [*read_rows(run_dir / METRICS_FILE, subsample=True), {"event": "resume", "step": resume_step}]
        for row in drop_superseded_rows(rows):
            event = events.event_from_dict(row) if row["event"] != "step" else None
            if isinstance(event, Diagnosed):
                reported.add(event.kind)
            elif isinstance(event, (events.Started, events.Evaluated)):
                self.observe(event)
        self.reported = reported


def _lower_lr(options: TrainingConfig) -> str:
    is_unusual = options.lr > USUAL_LR[options.optimizer][1]
    return f"--set lr={GOOD_LR[options.optimizer] if is_unusual else options.lr / 3:.2g}"


def _weaker_decay(options: TrainingConfig) -> str:
    """Return the setting with a lower weight decay if it removes weights faster than they learn; otherwise ""."""
    is_strong = options.lr * options.weight_decay > MAX_DECAY_PER_STEP
    return f"--set weight_decay={GOOD_DECAY_PER_STEP / options.lr:.2g}" if is_strong else ""


def _format(perplexity: float) -> str:
    return f"{perplexity:.1f}" if perplexity < 10_000 else f"{perplexity:.4g}"


def rising_validation(history: History) -> Finding | None:
    """Find that the latest evaluation is the worst since a best one that is long enough ago.

    A training with `patience` stops by itself. The weights before the first step are not counted as a best evaluation,
    because `forgetting` and `unigram_model` compare with them.
    """
    options, evaluations = history.options, [each for each in history.evaluations if each.step]
    best = min(evaluations, key=lambda each: each.perplexity, default=None)
    if best is None or options.patience:
        return None
    worse = evaluations[evaluations.index(best) + 1 :]
    delay = options.nonmonotone_interval if options.averaging == "nt_asgd" else 0  # averaging is then due to start
    if len(worse) < MIN_WORSE_EVALUATIONS + delay:
        return None
    latest = worse[-1]
    if latest.perplexity < max(MIN_VALIDATION_RISE * best.perplexity, *(each.perplexity for each in worse)):
        return None
    reason, change = "training perplexity rises too: the learning rate is high", f" {_lower_lr(options)}"
    if not latest.train_perplexity > best.train_perplexity:
        is_low = history.config.model.output_dropout <= LOW_DROPOUT
        reason = "the model overfits"
        change = f" --set input_dropout={MORE_DROPOUT} --set output_dropout={MORE_DROPOUT}" if is_low else ""
    is_over = latest.epoch >= options.epochs + options.fine_tune_epochs
    now = "the best model is kept" if is_over else f"lotr-tui stop {history.run} keeps the best model"
    return Finding(
        f"validation perplexity rose from its best, {_format(best.perplexity)} at epoch {best.epoch:.1f}, to "
        f"{_format(latest.perplexity)} in {len(worse)} evaluations; {reason}",
        f"{now}; next time --set patience={MIN_WORSE_EVALUATIONS}{change}",
    )


def loss_spike(history: History) -> Finding | None:
    """Find that the latest reports are far above the running median of those before."""
    losses = [math.log(step.train_perplexity) for step in history.steps]
    before, latest = losses[:-MIN_HIGH_REPORTS], losses[-MIN_HIGH_REPORTS:]
    if len(before) < MIN_REPORTS:
        return None
    level = median(before)
    deviation = MAD_TO_DEVIATION * median(abs(loss - level) for loss in before)
    if not min(latest) > level + max(MIN_LOSS_RISE, MAX_DEVIATIONS * deviation):
        return None
    step, clip = history.steps[-1], "" if history.options.clip else "--set clip=1, or "
    return Finding(
        f"training perplexity jumped from about {_format(math.exp(level))} to {_format(step.train_perplexity)} at step "
        f"{step.step:,}",
        f"if it does not fall back soon, train again with {clip}{_lower_lr(history.options)}",
    )


def forgetting(history: History) -> Finding | None:
    """Find that fine-tuning destroys what the initial model has learned.

    Once an evaluation is better than the initial model, a small rise is for `rising_validation`.
    """
    options = history.options
    if not options.init or len(history.evaluations) < 2 or history.evaluations[0].step:
        return None
    first, *others = history.evaluations
    rises = [each.perplexity / first.perplexity for each in others]
    is_worse = min(rises) >= 1 and min(rises[-MIN_RISES:]) >= MIN_RISE and len(rises) >= MIN_RISES
    if rises[-1] < MIN_RISE_AT_ONCE and not is_worse:
        return None
    lowest, highest = USUAL_LR[options.optimizer]
    lr = lowest if options.lr > highest else options.lr / (10 if rises[-1] >= MUCH_WORSE else 3)
    return Finding(
        f"fine-tuning destroys what was learned: validation perplexity was {_format(first.perplexity)} before it and "
        f"is {_format(others[-1].perplexity)} at epoch {others[-1].epoch:.1f}",
        f"stop, and train again with --set lr={lr:.2g}",
    )


def vanishing_gradients(history: History) -> Finding | None:
    """Find that the norm of all gradients has been tiny for long, although there is something left to learn."""
    options, num_layers = history.options, history.config.model.num_layers
    latest, level = list(history.steps)[-NUM_VANISHED_REPORTS:], median(history.early_norms)
    limit = max(VANISHED_NORM, VANISHED_FRACTION * level)
    has_vanished = all(s.gradient_norm < limit and s.train_perplexity > MEMORIZED_PERPLEXITY for s in latest)
    if not has_vanished or len(latest) < NUM_VANISHED_REPORTS:
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
    """Find that nearly all recent gradients were clipped to a small fraction."""
    clip, norms = history.options.clip, [step.gradient_norm for step in history.steps][-EXPLODED_WINDOW:]
    exploded = [norm for norm in norms if norm > EXPLODED_RATIO * clip]
    if not clip or len(exploded) < MIN_EXPLODED or norms[-1] != exploded[-1]:
        return None
    message = f"the gradients explode: nearly every step is clipped, now from {norms[-1]:.3g} to {clip:g}"
    return Finding(message, f"train again with {_lower_lr(history.options)}")


def unigram_model(history: History) -> Finding | None:
    """Find that an evaluation after an epoch is as bad as the unigram model, and not getting better."""
    options, latest, unigram = history.options, history.evaluations[-1], history.unigram_perplexity
    min_steps = 1 if history.lr <= ENDED_LR * history.max_lr else MIN_STEPS
    earlier = [
        each.perplexity
        for each in history.evaluations
        if latest.epoch - each.epoch >= MIN_EPOCHS and latest.step - each.step >= min_steps
    ]
    if (
        not earlier
        or not latest.perplexity >= UNIGRAM_FRACTION * unigram
        or latest.train_perplexity < OVERFITTED_FRACTION * unigram
        or min(each.perplexity for each in history.evaluations) <= MIN_IMPROVEMENT * min(earlier)
        or history.max_lr < MIN_WARM_UP * options.lr
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
    elif options.optimizer == "adam" and options.weight_decay > MAX_ADAM_DECAY:
        change = "--set optimizer=adamw; the weight decay of adam keeps weights with small gradients at zero"
    elif names := [name for name in ("input_dropout", "output_dropout") if getattr(model, name) > MUCH_DROPOUT]:
        change = " ".join(f"--set {name}={GOOD_DROPOUT}" for name in names)
    elif latest.step < FEW_STEPS:
        change = f"--epochs {MORE_EPOCHS * options.epochs}, since {latest.step:,} steps are few"
    else:
        change = f"{_lower_lr(options)}, and check that the order of words in the text has a meaning"
    return Finding(
        f"after {latest.epoch:.1f} epochs the model knows no more than token frequencies: validation perplexity "
        f"{_format(latest.perplexity)}, a unigram model has {_format(unigram)}",
        f"stop, and train again with {change}",
    )


def idle_gpu(history: History) -> Finding | None:
    """Find that the GPU computes less than half of some minutes."""
    if len(history.gpu_readings) < NUM_READINGS:
        return None
    utilization, options = mean(history.gpu_readings), history.options
    history.gpu_readings.clear()
    if utilization >= MIN_UTILIZATION:
        return None
    batch_size = options.batch_size * (2 if utilization >= MIN_UTILIZATION / 2 else 4)
    remedy = f"--set batch_size={batch_size}, or with --device cpu if the model is tiny"
    if history.train_tokens < batch_size * options.bptt * 10:  # an epoch of ten steps learns little
        remedy = "--device cpu, which is about as fast for a model and text of this size"
    message = f"the GPU was idle {1 - utilization:.0%} of the last {NUM_READINGS // 60} minutes: the model is small"
    return Finding(message, f"train again with {remedy}")


def disk_space(history: History) -> Finding | None:
    """Find that there is no room for the next checkpoint, which is written beside the old one and then replaces it."""
    needed = DISK_MARGIN * history.checkpoint_bytes
    if history.free_bytes >= RECOVERED_CHECKPOINTS * needed:
        history.reported.discard("disk_space")
    if history.free_bytes >= needed:
        return None
    return Finding(
        f"no space for the next checkpoint: it needs {needed / 1e6:,.1f} MB, and {history.free_bytes / 1e6:,.1f} MB "
        "are free where the run is kept",
        "delete files there, such as runs you do not need (lotr-tui runs rm RUN); the training continues",
    )


# The observation after which each kind of problem is looked for, and the function that finds it.
DIAGNOSES: dict[DiagnosisKind, tuple[type, Callable[[History], Finding | None]]] = {
    "rising_validation": (events.Evaluated, rising_validation),
    "loss_spike": (events.Step, loss_spike),
    "forgetting": (events.Evaluated, forgetting),
    "vanishing_gradients": (events.Step, vanishing_gradients),
    "exploding_gradients": (events.Step, exploding_gradients),
    "unigram_model": (events.Evaluated, unigram_model),
    "idle_gpu": (GpuReading, idle_gpu),
    "disk_space": (DiskReading, disk_space),
}


def diagnose(training: Iterator[TrainingEvent], config: Config, run_dir: Path) -> Iterator[TrainingEvent]:
    """Yield the events of `training`, and after each of them the problems that it shows, once per training and kind.

    After a resume, the rows of `run_dir` hold earlier evaluations and reported problems. The main process of a
    distributed training calls this function; the others report nothing.
    """
    history = History(config, run_word(run_dir))
    started: events.Started | None = None
    disk_read_at = gpu_read_at = -math.inf
    for event in training:
        if isinstance(event, events.Started):
            started = event
        elif isinstance(event, events.Resume):
            history = History(config, run_word(run_dir))
            history.restore(run_dir, event.step)
            if started is not None:  # its row may be unwritten, as on a full disk
                history.observe(started)
        yield event
        yield from history.observe(event)
        now = time.monotonic()
        if not isinstance(event, (events.Started, events.Step, events.Evaluated)):
            continue
        if now - disk_read_at >= DISK_INTERVAL:
            disk_read_at = now
            with contextlib.suppress(OSError):  # the folder was deleted, or its file system reports no space
                yield from history.observe(DiskReading(shutil.disk_usage(run_dir).free))
        # "cuda" is the name of AMD's GPUs too.
        if now - gpu_read_at >= GPU_INTERVAL and started is not None and started.device.startswith("cuda"):
            utilization = read_gpu_utilization(started.device)
            gpu_read_at = now if utilization is not None else math.inf
            yield from [] if utilization is None else history.observe(GpuReading(utilization))


def read_gpu_utilization(device: str) -> float | None:
    """Return the fraction of the last second in which a GPU computed; None without the extra `gpu`, or on a MIG slice.

    PyTorch finds the GPU in the list of NVIDIA's library, and waits for no computation.
    """
    import torch

    try:
        return torch.cuda.utilization(torch.device(device)) / 100
    except Exception:  # a missing package, driver, permission or feature raises different errors
        return None
