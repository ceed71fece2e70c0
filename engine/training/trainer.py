"""Training loop: optimizer steps, validation, and control commands between steps."""

import math
from collections.abc import Callable, Generator, Iterator, Mapping

import torch
from torch import nn

from engine.config import Config
from engine.control import CommandQueue
from engine.data.arrays import Float32Array
from engine.data.dataset import Dataset
from engine.events import Snapshot, StopReason, TrainingEvent
from engine.models.pretrained.base import Base
from engine.runtime.distributed import SINGLE_PROCESS, DistributedContext
from engine.training.batches import Window
from engine.training.checkpoint import serialize_checkpoint
from engine.training.commands import CommandHandler
from engine.training.device import choose_dtype
from engine.training.finetune import start_fine_tuning
from engine.training.loss import LossModule, Objective
from engine.training.optim import scheduled_lr, set_lr
from engine.training.reporting import StepReporter, StepResult
from engine.training.state import TrainerState
from engine.training.transfer.layer_groups import discard_frozen_gradients
from engine.training.validation import validate


class Trainer:
    """Trainer of a language model. Everything that changes during training is in `state`."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        device: torch.device,
        start_time: float | None = None,
        distributed: DistributedContext = SINGLE_PROCESS,
        initial_weights: Mapping[str, Float32Array] | None = None,
        base: Base | None = None,
    ) -> None:
        """Build the network, the optimizer and the loss. Training time counts from `start_time`; None for now.

        The network starts with `initial_weights`, or else with random weights or the pre-trained model `base`.
        """
        self.config = config
        self.options = config.training
        self.dataset = dataset
        self.distributed = distributed
        self.state = TrainerState(config, dataset, device, distributed, start_time, initial_weights, base)
        self.objective = Objective(config.training, dataset.train, len(dataset.tokenizer), device)
        loss_module = LossModule(self.state.network, self.objective, choose_dtype(config, device), distributed)
        self.loss_module = distributed.wrap_ddp(loss_module)

    def fit(
        self, cancelled: Callable[[], bool], command_queue: CommandQueue
    ) -> Generator[TrainingEvent, None, StopReason]:
        """Train all epochs, then fine-tune, starting from the current state. Return the reason for the end."""
        state, options = self.state, self.options
        reporter = StepReporter(state)
        commands = CommandHandler(state, command_queue, cancelled, lambda: self._validate_and_save(reporter))
        if state.best_weights is None:  # a training that is stopped early still has a model
            yield from validate(state, self.dataset)
        while True:
            stop_reason: StopReason | None = yield from commands.apply_pending()
            progress = state.progress
            if stop_reason is not None:
                if stop_reason != "pruned":
                    yield from self._save(reporter)
                return stop_reason
            if progress.evaluation_due:
                yield from validate(state, self.dataset)
            elif progress.epoch_index < progress.end_epoch and not progress.early_stopped:
                reporter.add(self.train_step())
                if self.distributed.process.is_main_process and self._is_report_due(reporter):
                    yield reporter.report()
            elif options.fine_tune_epochs and not progress.fine_tuning:
                start_fine_tuning(state)
            else:
                return "patience" if progress.early_stopped else "done"

    def train_step(self) -> StepResult:
        """Train on the next BPTT window: forward, loss, backward, clip, step."""
        state = self.state
        window = state.windows.next_window()
        if window.start == 0:
            state.recurrent_state = state.initial_recurrent_state()
        lr = self._learning_rate(window)
        set_lr(state.optimizer, lr)
        # Back-propagation is truncated at the start of the window.
        recurrent_state = [(hidden.detach(), cell.detach()) for hidden, cell in state.recurrent_state]
        sampled_classes = self.objective.sample_softmax_classes(window.targets, state.dropout_generator)
        shard, soft_targets = window.shard(self.distributed), None
        if state.teachers is not None:
            shard, soft_targets = state.teachers.teach(shard, state.dropout_generator)
        loss, objective, state.recurrent_state = self.loss_module(
            shard.inputs,
            shard.targets,
            shard.target_weights,
            shard.punctuation,
            sampled_classes,
            recurrent_state,
            state.dropout_generator,
            soft_targets,
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

    def _is_report_due(self, reporter: StepReporter) -> bool:
        """Return True at the end of an epoch, before a validation, and after the report interval."""
        return not self.state.windows.is_mid_epoch or self.state.progress.evaluation_due or reporter.is_due

    def _validate_and_save(self, reporter: StepReporter) -> Iterator[TrainingEvent]:
        """Save a checkpoint after the validation that is due, so that a resume does not repeat the validation."""
        if self.state.progress.evaluation_due:
            yield from validate(self.state, self.dataset)
        yield from self._save(reporter)

    def _save(self, reporter: StepReporter) -> Iterator[TrainingEvent]:
        """Yield the checkpoint of the current state, after a report of the steps before it."""
        is_main_process = self.distributed.process.is_main_process
        if is_main_process and reporter.num_steps:
            yield reporter.report()
        state_dict = self.state.state_dict()
        if is_main_process:
            yield Snapshot(self.state.progress.step, serialize_checkpoint(state_dict, self.config))
