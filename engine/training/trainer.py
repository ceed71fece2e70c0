"""The training loop: optimizer steps, reports, validation, and control commands between steps."""

import math
import time
from collections.abc import Generator, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from engine.config import Config
from engine.control import CommandKind, CommandQueue
from engine.events import CommandApplied, Snapshot, Step, StopReason, TrainingEvent
from engine.runtime.distributed import SINGLE_PROCESS, DistributedContext
from engine.training.batches import Window
from engine.training.initial_run import TrainingInput
from engine.training.loss import LossModule, Objective
from engine.training.optim import discard_frozen_gradients, scheduled_lr
from engine.training.state import TrainerState, serialize_checkpoint
from engine.training.validation import check_finite, validate

REPORT_INTERVAL = 0.25  # seconds; reading a loss makes a GPU wait, so losses are not read at every step
PAUSE_POLL_INTERVAL = 0.1  # seconds


class StepResult(NamedTuple):
    loss: Tensor  # mean negative log-probability of the window's targets, a scalar on the training device
    gradient_norm: Tensor  # of all gradients before clipping, a scalar on the training device
    num_tokens: int  # targets in the window, over all processes
    lr: float


class Trainer:
    """Trainer of a language model. Everything that changes during training is in `state`."""

    def __init__(
        self,
        config: Config,
        source: TrainingInput,
        device: torch.device,
        distributed: DistributedContext = SINGLE_PROCESS,
        start_time: float | None = None,
    ) -> None:
        """Build the network, the optimizer and the loss. Training time counts from `start_time`, or from now."""
        self.config = config
        self.options = config.training
        self.distributed = distributed
        self.state = TrainerState(config, source, device, distributed, start_time)
        dataset = source.dataset
        self.objective = Objective(config.training, dataset.train, len(dataset.tokenizer), device)
        loss_module = LossModule(self.state.network, self.objective, self.state.dtype, distributed)
        self.loss_module = distributed.wrap_ddp(loss_module)

    def fit(self, commands: CommandQueue) -> Generator[TrainingEvent, None, StopReason]:
        """Train all epochs, then fine-tune, starting from the current state. Return the reason for the end."""
        state, progress = self.state, self.state.progress
        self._start_report()
        self._saved_at = time.perf_counter()
        if state.best_weights is None:  # a training that is stopped early still has a model
            yield from validate(state)
        while True:
            stop_reason: StopReason | None = yield from self._apply_commands(commands)
            if stop_reason is not None:
                if stop_reason != "pruned":
                    yield from self._save()
                return stop_reason
            if progress.evaluation_due:
                yield from validate(state)
            elif progress.epoch_index < progress.end_epoch and not progress.early_stopped:
                self._results.append(self.train_step())
                is_due = not state.windows.is_mid_epoch or progress.evaluation_due
                if is_due or state.seconds - self._report_start >= REPORT_INTERVAL:
                    yield from self._report()
            elif self.options.fine_tune_epochs and not progress.fine_tuning:
                state.start_fine_tuning()
            else:
                return "patience" if progress.early_stopped else "done"

    def train_step(self) -> StepResult:
        """Train on the next BPTT window: forward, loss, backward, clip, step."""
        state = self.state
        window = state.windows.next_window()
        if window.start == 0:
            state.recurrent_state = state.initial_recurrent_state()
        lr = self._learning_rate(window)
        for group in state.optimizer.param_groups:
            group["lr"] = lr * group["lr_factor"]
        # Back-propagation is truncated at the start of the window.
        recurrent_state = [(hidden.detach(), cell.detach()) for hidden, cell in state.recurrent_state]
        sampled_classes = self.objective.sample_softmax_classes(window.targets, state.dropout_generator)
        shard, soft_targets = window.shard(self.distributed), None
        if state.teachers is not None:
            shard, soft_targets = state.teachers.teach(shard, state.dropout_generator)
        loss, objective, state.recurrent_state = self.loss_module(
            shard, sampled_classes, recurrent_state, state.dropout_generator, soft_targets
        )
        state.optimizer.zero_grad(set_to_none=True)
        objective.backward()
        discard_frozen_gradients(state.network, self.options, state.progress.epoch_index)
        loss = self.distributed.average_loss(loss.detach())
        gradient_norm = nn.utils.clip_grad_norm_(state.network.parameters(), self.options.clip or math.inf)
        state.optimizer.step()
        if state.weight_average is not None:
            state.weight_average.update(state.network)
        state.finish_step(window)
        return StepResult(loss, gradient_norm.detach(), window.targets.numel(), lr)

    def _learning_rate(self, window: Window) -> float:
        """Return the learning rate for `window`, which is scaled by the window's length if lengths vary."""
        options, progress = self.options, self.state.progress
        if progress.fine_tuning:
            lr = options.fine_tune_lr
        else:
            epoch = progress.epoch_index + window.start
            lr = scheduled_lr(options, epoch / options.epochs, progress.plateau_factor)
        lr *= progress.lr_scale
        return lr * (len(window.inputs) / options.bptt) if options.variable_bptt else lr

    def _start_report(self) -> None:
        self._results: list[StepResult] = []  # since the last report
        self._report_start = self.state.seconds

    def _report(self) -> Iterator[Step]:
        """Yield the averages over the steps since the last report, if there are any, and check the loss."""
        results, start = self._results, self._report_start
        if not results:
            return
        self._start_report()
        if not self.distributed.process.is_main_process:
            return
        state, progress = self.state, self.state.progress
        losses, gradient_norms, tokens, lrs = zip(*results, strict=True)
        num_tokens = sum(tokens)
        loss = float(sum(loss * number for loss, number in zip(losses, tokens, strict=True))) / num_tokens
        check_finite(loss, state)
        seconds = self._report_start
        epochs_left = self.options.epochs + self.options.fine_tune_epochs - progress.epoch
        yield Step(
            step=progress.step,
            epoch=progress.epoch,
            train_perplexity=math.exp(min(loss, 700)),
            lr=lrs[-1],
            gradient_norm=float(sum(gradient_norms)) / len(gradient_norms),
            tokens_per_second=num_tokens / (seconds - start),
            seconds=seconds,
            eta_seconds=seconds * epochs_left / progress.epoch,
        )

    def _apply_commands(self, commands: CommandQueue) -> Generator[TrainingEvent, None, StopReason | None]:
        """Apply pending commands, and save a checkpoint if one is due; a paused training waits for further commands.

        Returns:
            The reason to stop, or None to continue.
        """
        state, progress = self.state, self.state.progress
        interval = self.options.checkpoint_seconds
        paused_at: float | None = None

        def poll() -> tuple[list[tuple[CommandKind, str]], bool, bool]:
            pending = [(command.kind, command.value) for command in commands.drain()]
            # Commands save a checkpoint themselves.
            save_due = interval > 0 and not pending and time.perf_counter() - self._saved_at >= interval
            return pending, commands.cancelled(), save_due

        while True:
            pending, cancelled, save_due = self.distributed.broadcast_object(poll)
            for kind, value in pending:
                yield CommandApplied(progress.step, progress.epoch, kind, value)
                match kind:
                    case "stop":
                        return "stopped"
                    case "detach":
                        return "detached"
                    case "prune":
                        return "pruned"
                    case "pause" if paused_at is None:
                        paused_at = time.perf_counter()
                    case "resume" if paused_at is not None:
                        state.start_time += time.perf_counter() - paused_at
                        paused_at = None
                    case "prompt":
                        progress.sample_prompt = value
                    case "lr":
                        progress.lr_scale = float(value)
                if kind != "resume":
                    yield from self._validate_and_save()
            if cancelled:
                return "stopped"
            if paused_at is None:
                if save_due:
                    yield from self._validate_and_save()
                return None
            commands.wait(PAUSE_POLL_INTERVAL)

    def _validate_and_save(self) -> Iterator[TrainingEvent]:
        """Save a checkpoint after the validation that is due, so that a resume does not repeat the validation."""
        if self.state.progress.evaluation_due:
            yield from validate(self.state)
        yield from self._save()
        self._saved_at = time.perf_counter()

    def _save(self) -> Iterator[TrainingEvent]:
        """Yield the checkpoint of the current state, after a report of the steps before it."""
        yield from self._report()
        if (content := serialize_checkpoint(self.state)) is not None:
            yield Snapshot(self.state.progress.step, content)
