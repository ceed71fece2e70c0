"""A training as a generator of events: `Trainer.fit` is the loop, and `Trainer.train_step` is one optimizer step."""

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from engine import events
from engine.analysis import evaluation
from engine.config import Config
from engine.control import CommandQueue
from engine.data import scripts, speakers
from engine.data.dataset import Dataset, batchify, load_dataset
from engine.data.tokenizers import TokenIds
from engine.errors import RunError, TrainingError
from engine.generation.generate import TextInProgress, TokenEvent, generate
from engine.generation.settings import SamplerSettings
from engine.generation.turns import begin_turn, read_turns
from engine.models import ngram, torch_ops
from engine.models.base import LanguageModel, score_sequence
from engine.runs import directory, loading
from engine.runtime.distributed import SINGLE_PROCESS, DistributedContext, distributed_context
from engine.runtime.process import return_freed_memory
from engine.storage.tensor_file import TensorFile
from engine.training import TrainingInput, optim
from engine.training.state import ResumeCheckpoint, TrainerState, plan_memory, prepare_device

REPORT_INTERVAL = 0.25  # seconds; reading a loss makes a GPU wait, so losses are not read at every step
PAUSE_POLL_INTERVAL = 0.1  # seconds
STOP_REASONS: dict[str, events.StopReason] = {"stop": "stopped", "detach": "detached", "prune": "pruned"}  # by command
MAX_SAMPLE_TOKENS, MAX_LINE_TOKENS = 25, 60  # the latter of an answer, which ends with its line


class StepResult(NamedTuple):
    loss: Tensor  # mean negative log-probability of the window's targets, a scalar on the training device
    gradient_norm: Tensor  # of all gradients before clipping, a scalar on the training device
    num_tokens: int  # targets in the window, over all processes
    lr: float


class Trainer:
    """A network in training; everything that changes is in `state`."""

    def __init__(
        self,
        config: Config,
        source: TrainingInput,
        device: torch.device,
        distributed: DistributedContext = SINGLE_PROCESS,
        start_time: float | None = None,
    ) -> None:
        self.options, self.distributed = config.training, distributed
        self.state = TrainerState(config, source, device, distributed, start_time)
        tokens, size = source.dataset.train, len(source.dataset.tokenizer)
        self.objective = optim.Objective(config.training, tokens, size, device, self.state.dtype, distributed)

    def fit(self, commands: CommandQueue) -> Generator[events.TrainingEvent, None, events.StopReason]:
        """Train all epochs, then fine-tune, starting from the current state. Return the reason for the end."""
        state, progress = self.state, self.state.progress
        self._results: list[StepResult] = []  # since the last report
        self._reported_at = self._saved_at = time.perf_counter()
        if state.best_weights is None:  # a training that is stopped early still has a model
            yield from validate(state)
        while True:
            stop_reason: events.StopReason | None = yield from self._apply_commands(commands)
            if stop_reason is not None:
                if stop_reason != "pruned":
                    yield from self._save(after_validation=False)
                return stop_reason
            if progress.evaluation_due:
                yield from validate(state)
            elif progress.epoch_index < progress.end_epoch and not progress.early_stopped:
                self._results.append(self.train_step())
                is_due = state.windows.epoch is None or progress.evaluation_due
                if is_due or time.perf_counter() - self._reported_at >= REPORT_INTERVAL:
                    yield from self._report()
            elif self.options.fine_tune_epochs and not progress.fine_tuning:
                state.start_fine_tuning()
                yield from self._save(after_validation=False)  # later models replace the one it starts from
            else:
                return "patience" if progress.early_stopped else "done"

    def train_step(self) -> StepResult:
        """Train on the next BPTT window: forward, loss, backward, clip, step."""
        state, options, progress = self.state, self.options, self.state.progress
        window, is_distributed = state.windows.next_window(), self.distributed.process.world_size > 1
        if window.start == 0:
            state.recurrent_state = state.network.initial_state(state.num_columns)
        lr = options.fine_tune_lr
        if not progress.fine_tuning:
            done = (progress.epoch_index + window.start) / options.epochs
            lr = optim.scheduled_lr(options, done, progress.plateau_factor)
        lr *= progress.lr_scale
        if options.variable_bptt:
            lr *= len(window.inputs) / options.bptt
        for group in state.optimizer.param_groups:
            group["lr"] = lr * group["lr_factor"]
        # Back-propagation is truncated at the start of the window.
        recurrent_state = [(hidden.detach(), cell.detach()) for hidden, cell in state.recurrent_state]
        shard, sampled_classes, soft_targets = window, None, None
        if options.softmax_samples:
            sampled_classes = self.objective.sample_classes(window.targets, state.dropout_generator)
        if is_distributed:
            shard = window.shard(self.distributed)
        if state.teachers is not None:
            shard, soft_targets = state.teachers.teach(shard, state.dropout_generator)
        loss, objective, state.recurrent_state = self.objective(
            state.network, shard, recurrent_state, state.dropout_generator, sampled_classes, soft_targets
        )
        state.optimizer.zero_grad(set_to_none=True)
        objective.backward()  # type: ignore[no-untyped-call]
        if options.unfreeze_epochs:  # gradual unfreezing (Howard and Ruder 2018, section 3.3)
            for group in torch_ops.layer_groups(state.network)[1 + progress.epoch_index // options.unfreeze_epochs :]:
                for parameter in group.values():
                    parameter.grad = None
        loss = loss.detach()
        if is_distributed:
            gradients = [each.grad for each in state.network.parameters() if each.grad is not None]
            self.distributed.average([loss, *gradients])
        gradient_norm = nn.utils.clip_grad_norm_(state.network.parameters(), options.clip or math.inf)
        state.optimizer.step()
        if state.weight_average is not None:
            state.weight_average.update(state.network)
        progress.step += 1
        progress.epoch = progress.epoch_index + window.end
        epoch_done = window.end == 1
        progress.epoch_index += epoch_done
        is_due = epoch_done and progress.epoch_index % options.eval_every_epochs == 0
        if options.eval_every_steps:
            is_due = progress.step % options.eval_every_steps == 0
        progress.evaluation_due = is_due or (epoch_done and progress.epoch_index == progress.end_epoch)
        return StepResult(loss, gradient_norm.detach(), window.targets.numel(), lr)

    def _report(self) -> Iterator[events.Step]:
        if not self._results:
            return
        results, duration = self._results, time.perf_counter() - self._reported_at
        self._results, self._reported_at = [], time.perf_counter()
        if self.distributed.process.rank != 0:
            return
        progress, seconds = self.state.progress, self._reported_at - self.state.start_time
        losses, gradient_norms, tokens, lrs = zip(*results, strict=True)
        num_tokens = sum(tokens)
        loss = float(sum(loss * number for loss, number in zip(losses, tokens, strict=True))) / num_tokens
        if not math.isfinite(loss):
            raise divergence_error(loss, self.state)
        epochs_left = self.options.epochs + self.options.fine_tune_epochs - progress.epoch
        yield events.Step(
            step=progress.step,
            epoch=progress.epoch,
            train_perplexity=math.exp(min(loss, 700)),
            lr=lrs[-1],
            gradient_norm=float(sum(gradient_norms)) / len(gradient_norms),
            tokens_per_second=num_tokens / duration,
            seconds=seconds,
            eta_seconds=seconds * epochs_left / progress.epoch,
        )

    def _apply_commands(
        self, commands: CommandQueue
    ) -> Generator[events.TrainingEvent, None, events.StopReason | None]:
        """Apply commands, wait while paused, and save a checkpoint that is due; return the reason to stop, or None."""
        state, progress, interval = self.state, self.state.progress, self.options.checkpoint_seconds
        paused_at: float | None = None
        while True:
            pending, cancelled, since_save = self.distributed.broadcast_object(
                lambda: (
                    [(command.kind, command.value) for command in commands.drain()],
                    commands.cancelled(),
                    time.perf_counter() - self._saved_at,
                )
            )
            for kind, value in pending:
                yield events.CommandApplied(progress.step, progress.epoch, kind, value)
                if kind in STOP_REASONS:
                    return STOP_REASONS[kind]
                match kind:
                    case "pause" if paused_at is None:
                        paused_at = time.perf_counter()
                    case "resume" if paused_at is not None:
                        pause, paused_at = time.perf_counter() - paused_at, None
                        state.start_time += pause
                        self._reported_at += pause
                    case "prompt":
                        progress.sample_prompt = value
                    case "lr":
                        progress.lr_scale = float(value)
                if kind != "resume":
                    yield from self._save()
            if cancelled:
                return "stopped"
            if paused_at is None:
                if not pending and 0 < interval <= since_save:  # commands save a checkpoint themselves
                    yield from self._save()
                return None
            commands.wait(PAUSE_POLL_INTERVAL)

    def _save(self, *, after_validation: bool = True) -> Iterator[events.TrainingEvent]:
        """Save a checkpoint, by default after a validation that is due, so that a resume does not repeat it."""
        if after_validation and self.state.progress.evaluation_due:
            yield from validate(self.state)
        yield from self._report()
        if (content := self.state.serialize()) is not None:
            yield events.Snapshot(self.state.progress.step, content)
        self._saved_at = time.perf_counter()


def validate(state: TrainerState) -> Iterator[events.TrainingEvent]:
    """Score the validation split, and change what depends on it; every process calls it, and the main one yields."""
    options, progress, dataset = state.config.training, state.progress, state.dataset
    network = state.network if state.weight_average is None else state.weight_average.network
    follows_notebook = options.validation_metric == "notebook"

    def score() -> tuple[float, float, list[list[float]]]:
        valid, notebook = dataset.valid, math.nan
        log_probs, is_scored = score_sequence(network, valid), dataset.scored_mask(valid)
        if follows_notebook:
            notebook = notebook_perplexity(network, valid, options.batch_size, options.bptt)
        perplexity = evaluation.summarize_log_probs(log_probs[is_scored], valid[is_scored]).perplexity
        words = (np.add.reduceat(log_probs[: edges[-1]], edges[:-1]) for *_, edges in state.held_out_lines)
        return perplexity, notebook, [each.round(3).tolist() for each in words]

    perplexity, progress.notebook_perplexity, line_log_probs = state.distributed.broadcast_object(score)
    if not math.isfinite(perplexity):
        raise divergence_error(perplexity, state)
    weights = network.export_weights()
    if state.config.model.lora_rank:  # rounded as in the file of an adapter
        weights = {name: weight.astype("float16").astype("float32") for name, weight in weights.items()}
    # The notebook's formula returns a constant, so the notebook always saves the latest weights.
    is_best = perplexity < progress.best_perplexity or follows_notebook
    progress.evaluations_since_best += 1
    if is_best:
        state.best_weights = weights
        progress.best_perplexity = perplexity
        progress.best_step = progress.step
        progress.evaluations_since_best = 0
    if not progress.step:
        progress.initial_perplexity = perplexity
    else:
        followed = progress.notebook_perplexity if follows_notebook else perplexity
        if followed >= min(progress.valid_perplexities, default=math.inf):
            progress.plateau_factor *= 0.5
        triggered = optim.nonmonotone_trigger(progress.valid_perplexities, followed, options.nonmonotone_interval)
        progress.valid_perplexities.append(followed)
        out_of_patience = 0 < options.patience <= progress.evaluations_since_best
        if out_of_patience or (progress.fine_tuning and triggered):
            progress.early_stopped = True
        if triggered and state.weight_average is None and options.averaging == "nt_asgd":
            state.weight_average = optim.WeightAverage(state.network)
    progress.evaluation_due = False
    if state.distributed.process.rank == 0:
        model = network.to_decoder(dataset.tokenizer, weights)
        yield events.Evaluated(
            step=progress.step,
            epoch=progress.epoch,
            valid_perplexity=perplexity,
            is_best=is_best,
            seconds=time.perf_counter() - state.start_time,
            model=model,
            adapter=None if network.base is None else weights,
            notebook_perplexity=progress.notebook_perplexity,
        )
        yield _sample(model, state)
        if line_log_probs:
            lines = () if progress.step else tuple((line.speaker, line.words) for line in state.held_out_lines)
            yield events.LinesScored(progress.step, progress.epoch, tuple(map(tuple, line_log_probs)), lines)


def divergence_error(loss: float, state: TrainerState) -> TrainingError:
    """Return the error of a loss that is not finite; it names a likely cause, a remedy and the best model."""
    options = state.config.training
    cause, remedy = "the learning rate is too high", f"--set lr={options.lr / 3:.2g}"
    if not options.clip:
        cause, remedy = "gradients are not clipped", f"--set clip=1 or {remedy}"
    elif state.dtype != torch.float32:
        cause, remedy = f"the learning rate is too high or {state.dtype} too coarse", f"{remedy} or --precision fp32"
    best = f"; the best model (perplexity {state.progress.best_perplexity:.1f}) is saved" if state.best_weights else ""
    step = state.progress.step
    return TrainingError(f"the loss is {loss} at step {step}, likely because {cause}; try {remedy}{best}")


def _sample(model: LanguageModel, state: TrainerState) -> events.Sampled:
    """Continue the sample prompt, in dialogue mode by an answer, always with the same seed for a comparison."""
    options, prompt, cast = state.config.training, state.progress.sample_prompt, state.dataset.cast
    is_dialogue = state.dataset.mode == "dialogue"
    max_tokens = MAX_LINE_TOKENS if is_dialogue else MAX_SAMPLE_TOKENS
    settings = SamplerSettings(temperature=options.sample_temperature, max_tokens=max_tokens)
    if is_dialogue:
        said = scripts.parse_line(prompt) or scripts.Turn(speakers.STRANGER, prompt)
        speaker = next(name for name in (speakers.first_to_answer(cast), *cast) if name != said.speaker)
        prompt = f"{scripts.turn_text(said)}{speakers.display_name(speaker)}:"
        text = begin_turn(model, read_turns(model, [said]), speaker, settings, options.sample_seed)
    else:
        tokenizer = model.tokenizer
        if tokenizer.is_open and prompt.strip(" "):
            prompt = f"{prompt.rstrip(' ')} "  # the sample starts with another word, as one of a closed vocabulary does
        ids = [id for id in tokenizer.encode(prompt).tolist() if id != tokenizer.unk_id]
        prompt = tokenizer.decode(ids).rstrip(" ")
        text = TextInProgress(model, ids, settings, options.sample_seed)
    pieces = [event.piece for event in generate(text) if isinstance(event, TokenEvent)]
    step, epoch, written = state.progress.step, state.progress.epoch, "".join(pieces).lstrip(" ")
    return events.Sampled(step, epoch, prompt, written, options.sample_seed, options.sample_temperature)


@torch.no_grad()
def notebook_perplexity(network: optim.Network, ids: TokenIds, batch_size: int, bptt: int) -> float:
    """Return the perplexity of `ids` by the formula of the notebook, see `printed_perplexity`."""
    columns = torch.from_numpy(batchify(ids, batch_size)).to(next(network.parameters()).device).long()
    state, losses = network.initial_state(batch_size), []
    for begin in evaluation.window_starts(len(columns), bptt):
        logits, state, _, _ = network(columns[begin : begin + bptt], state)
        targets = columns[begin + 1 : begin + 1 + bptt]
        losses.append(float(nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())))
    return evaluation.printed_perplexity(losses, len(columns), bptt)


def train(
    config: Config,
    source: TrainingInput,
    run_name: str = "",
    commands: CommandQueue | None = None,
    checkpoint: ResumeCheckpoint | None = None,
    *,
    is_resume: bool = False,
    distributed: DistributedContext = SINGLE_PROCESS,
) -> Iterator[events.TrainingEvent]:
    """Train from `checkpoint`, or else from `source`, and yield every event; the last one is `Finished`.

    A damaged model beside the checkpoint is replaced by the best one of the checkpoint.
    Only the main process of a `distributed` training yields reports, validations and checkpoints. A loss that is not
    finite, or the end of another process, raises a TrainingError.
    """
    start_time = time.perf_counter()
    options, dataset = config.training, source.dataset
    device = prepare_device(options)
    if options.max_eval_tokens:
        dataset = replace(dataset, valid=dataset.valid[: options.max_eval_tokens])
        source = source._replace(dataset=dataset)
    if checkpoint is not None:
        checkpoint.check_config(config)
    is_long = len(dataset.train) > ngram.MAX_KNESER_NEY_TOKENS  # then its 5-grams do not fit into memory
    long_text = f"unigram baseline; no 5-grams beyond {ngram.MAX_KNESER_NEY_TOKENS:,} tokens"
    yield events.Preparing(f"computing the {long_text if is_long else 'unigram and 5-gram baselines'}")
    is_scored = dataset.scored_mask(dataset.valid)
    unigram, *kneser_ney = distributed.broadcast_object(
        lambda: [
            evaluation.evaluate(baseline(dataset.train, dataset.tokenizer), dataset.valid, is_scored).perplexity
            for baseline in ((ngram.Unigram,) if is_long else (ngram.Unigram, ngram.KneserNey))
        ]
    )
    # A part of the split, as `max_eval_tokens` leaves it, is not a whole number of lines.
    has_whole_split = not options.max_eval_tokens
    characters, untokenized_bits = evaluation.count_validation_characters(dataset) if has_whole_split else (0, 0.0)
    if memory := plan_memory(config, source, device)[1]:
        yield events.Preparing(memory)
    trainer = Trainer(config, source, device, distributed, start_time)
    state = trainer.state
    yield events.Started(
        run=run_name,
        preset=config.preset,
        parameters=sum(parameter.numel() for parameter in state.network.parameters()),
        vocabulary_size=len(dataset.tokenizer),
        train_tokens=len(dataset.train),
        valid_tokens=int(is_scored.sum()),
        epochs=options.epochs + options.fine_tune_epochs,
        device=str(device),
        corpus_sha256=dataset.corpus.sha256,
        unigram_perplexity=unigram,
        kneser_ney_perplexity=kneser_ney[0] if kneser_ney else math.nan,
        world_size=distributed.process.world_size,
        valid_characters=characters,
        valid_untokenized_bits=untokenized_bits,
        base="" if source.base is None else source.base.name,
    )
    if checkpoint is not None:
        checkpoint.restore(state)
        yield events.Resume(state.progress.step + 1)
        yield from _restore_model(state, checkpoint.path.parent)
    elif is_resume:
        yield events.Resume(0)
    reason = yield from trainer.fit(commands or CommandQueue())
    assert state.best_weights is not None
    state.network.load_weights(state.best_weights)
    ended_early = reason in STOP_REASONS.values()
    initial, best = state.progress.initial_perplexity, state.progress.best_perplexity
    if options.init and not ended_early and best >= initial and distributed.process.rank == 0:
        yield events.Warned(
            f"fine-tuning has not improved validation perplexity, which was {initial:.1f} before it; the run keeps the "
            "weights it started from; use a lower learning rate, such as "
            f"--set lr={options.lr / 3:.2g}, or more dropout"
        )
    test_perplexity = math.nan
    if options.score_test and not ended_early:
        test_perplexity = distributed.broadcast_object(
            lambda: evaluation.evaluate(state.network, dataset.test, dataset.scored_mask(dataset.test)).perplexity
        )
    yield events.Finished(
        reason=reason,
        run=run_name,
        epochs=state.progress.epoch,
        valid_perplexity=best,
        test_perplexity=test_perplexity,
        seconds=time.perf_counter() - state.start_time,
        model=state.network.to_decoder(dataset.tokenizer, state.best_weights),
        notebook_perplexity=state.progress.notebook_perplexity,
    )


def _restore_model(state: TrainerState, run_dir: Path) -> Iterator[events.TrainingEvent]:
    assert state.best_weights is not None
    file = directory.ADAPTER_FILE if state.config.model.lora_rank else directory.MODEL_FILE
    try:
        TensorFile(run_dir / file).check_bytes()
    except (OSError, RunError):
        yield events.Warned(f"{run_dir / file} is missing or damaged, and is written again from the checkpoint")
        content = loading.serialize_best(run_dir, state.config.model, state.best_weights)
        yield events.Snapshot(state.progress.best_step, content, file)


def train_run(
    config: Config, dataset: Dataset, run_dir: Path, commands: CommandQueue, is_resume: bool
) -> Iterator[events.TrainingEvent]:
    """Train the run in `run_dir` as the main process, while the worker ranks call `train_as_worker_rank`."""
    has_checkpoint = is_resume and (run_dir / directory.RESUME_FILE).exists()
    checkpoint = ResumeCheckpoint(run_dir / directory.RESUME_FILE) if has_checkpoint else None
    with distributed_context() as context:
        context.broadcast_object(lambda: (str(run_dir), str(checkpoint.path) if checkpoint else "", is_resume))
        source = _read_source(config, dataset, run_dir, checkpoint)
        try:
            yield from train(
                config, source, run_dir.name, commands, checkpoint, is_resume=is_resume, distributed=context
            )
        finally:
            return_freed_memory()


def train_as_worker_rank(context: DistributedContext) -> None:
    """Train the run that the main process broadcasts, from the same checkpoint or initial weights."""
    name, checkpoint_path, is_resume = context.broadcast_object(lambda: ("", "", False))
    config, tokenizer = loading.read_config_and_tokenizer(run_dir := Path(name))
    checkpoint = ResumeCheckpoint(Path(checkpoint_path)) if checkpoint_path else None
    source = _read_source(config, load_dataset(config.data, tokenizer), run_dir, checkpoint)
    for _ in train(config, source, checkpoint=checkpoint, is_resume=is_resume, distributed=context):
        pass


def _read_source(config: Config, dataset: Dataset, run_dir: Path, checkpoint: ResumeCheckpoint | None) -> TrainingInput:
    weights = None if checkpoint else loading.read_initial_weights(run_dir, config, dataset.tokenizer)
    base = loading.read_run_base(run_dir, config.data.mode) if directory.needs_base(config) else None
    return TrainingInput(dataset, weights, base)
