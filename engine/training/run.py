"""A training as a generator of events, in each of its processes, and an estimate of the time that it takes."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

from engine.analysis.bits_per_character import count_validation_characters
from engine.analysis.perplexity import evaluate
from engine.config import Config
from engine.control import CommandQueue
from engine.data.dataset import Dataset, load_dataset
from engine.events import Finished, Preparing, Resume, Started, TrainingEvent, Warned
from engine.models.ngram import MAX_KNESER_NEY_TOKENS, KneserNey, Unigram
from engine.runs.adapter_files import needs_base, read_run_base
from engine.runs.directory import read_config_and_tokenizer
from engine.runs.loading import read_initial_weights
from engine.runtime.distributed import SINGLE_PROCESS, DistributedContext, distributed_context
from engine.runtime.process import disable_heap_trimming
from engine.training.device import choose_device, set_num_threads
from engine.training.initial_run import TrainingInput, load_training_input
from engine.training.state import ResumeCheckpoint, load_latest_checkpoint
from engine.training.trainer import Trainer

MEASURED_LAYERS = (1, 3)  # of the Transformers that are measured in place of a deeper one
MEASURED_COLUMNS = 2
MEASURED_STEPS = 3
FORWARD_FRACTION = 1 / 3  # time of a token in a validation, which needs no gradients, as a fraction of that in training


def train_run(
    config: Config, dataset: Dataset, run_dir: Path, commands: CommandQueue, *, is_resume: bool = False
) -> Iterator[TrainingEvent]:
    """Train the run in `run_dir` as the main process, and yield the events of `train`, which lists the errors.

    In a distributed training, this function waits for the worker ranks, which call `train_as_worker_rank`.
    """
    checkpoint, warning = load_latest_checkpoint(run_dir) if is_resume else (None, "")
    if warning:
        yield Warned(warning)
    with distributed_context() as context:
        context.broadcast_object(lambda: (str(run_dir), str(checkpoint.path) if checkpoint else "", is_resume))
        source = _read_input(config, dataset, run_dir, checkpoint)
        yield from train(config, source, run_dir.name, commands, checkpoint, is_resume=is_resume, distributed=context)


def train_as_worker_rank(context: DistributedContext) -> None:
    """Train the run that the main process broadcasts, from the same checkpoint or initial weights."""
    name, checkpoint_path, is_resume = context.broadcast_object(lambda: ("", "", False))
    config, tokenizer = read_config_and_tokenizer(Path(name))
    checkpoint = ResumeCheckpoint(Path(checkpoint_path)) if checkpoint_path else None
    source = _read_input(config, load_dataset(config.data, tokenizer), Path(name), checkpoint)
    for _ in train(config, source, checkpoint=checkpoint, is_resume=is_resume, distributed=context):
        pass


def _read_input(config: Config, dataset: Dataset, run_dir: Path, checkpoint: ResumeCheckpoint | None) -> TrainingInput:
    initial_weights = None if checkpoint else read_initial_weights(run_dir, config, dataset.tokenizer)
    base = read_run_base(run_dir, config.data.mode) if needs_base(config) else None
    return TrainingInput(dataset, initial_weights, base)


def train(
    config: Config,
    source: TrainingInput,
    run_name: str = "",
    commands: CommandQueue | None = None,
    checkpoint: ResumeCheckpoint | None = None,
    *,
    is_resume: bool = False,
    distributed: DistributedContext = SINGLE_PROCESS,
) -> Iterator[TrainingEvent]:
    """Train a model, and yield every event; the last one is `Finished`, with the best model on the validation split.

    The test split is scored once, at the end, unless the training is stopped or `score_test` is false. Training starts
    from `checkpoint`, or else as `source` says, even if the run was started before (`is_resume`). All processes of a
    `distributed` training compute the same; only the main one yields the events of reports, validation and checkpoints.

    Raises:
        RunError: If the checkpoint is damaged, or belongs to another configuration.
        ConfigError: If the configured device does not exist.
        TrainingError: If the loss is not a finite number, or another process has ended.
    """
    start_time = time.perf_counter()
    options = config.training
    set_num_threads(options, distributed.process)
    disable_heap_trimming()
    device = choose_device(options, distributed.process)
    if options.max_eval_tokens:
        part = replace(source.dataset, valid=source.dataset.valid[: options.max_eval_tokens])
        source = source._replace(dataset=part)
    dataset = source.dataset
    if checkpoint is not None:
        checkpoint.check_config(config)
    is_long = len(dataset.train) > MAX_KNESER_NEY_TOKENS  # then its 5-grams do not fit into memory
    long_text = f"unigram baseline; no 5-grams beyond {MAX_KNESER_NEY_TOKENS:,} tokens"
    yield Preparing(f"computing the {long_text if is_long else 'unigram and 5-gram baselines'}")
    is_scored = dataset.scored_mask(dataset.valid)

    def baselines() -> list[float]:
        models = (Unigram,) if is_long else (Unigram, KneserNey)
        fitted = (model(dataset.train, dataset.tokenizer) for model in models)
        return [evaluate(model, dataset.valid, is_scored).perplexity for model in fitted]

    unigram, *kneser_ney = distributed.broadcast_object(baselines)
    # A part of the split, as `max_eval_tokens` leaves it, is not a whole number of lines.
    characters, untokenized_bits = (0, 0.0) if options.max_eval_tokens else count_validation_characters(dataset)
    trainer = Trainer(config, source, device, distributed, start_time)
    state = trainer.state
    yield Started(
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
    if is_resume or checkpoint is not None:
        yield Resume(0 if checkpoint is None else state.progress.step + 1)
    reason = yield from trainer.fit(commands or CommandQueue())
    assert state.best_weights is not None
    state.network.load_weights(state.best_weights)
    ended_early = reason in ("stopped", "detached", "pruned")
    initial, best = state.progress.initial_perplexity, state.progress.best_perplexity
    if options.init and not ended_early and best >= initial and distributed.process.is_main_process:
        yield Warned(
            f"fine-tuning has not improved validation perplexity, which was {initial:.1f} before it; the run keeps the "
            "weights it started from; use a lower learning rate, such as "
            f"--set lr={options.lr / 3:.2g}, or more dropout"
        )
    test_perplexity = math.nan
    if options.score_test and not ended_early:
        test_perplexity = distributed.broadcast_object(
            lambda: evaluate(state.network, dataset.test, dataset.scored_mask(dataset.test)).perplexity
        )
    yield Finished(
        reason=reason,
        run=run_name,
        epochs=state.progress.epoch,
        valid_perplexity=best,
        test_perplexity=test_perplexity,
        seconds=state.seconds,
        model=state.network.to_decoder(dataset.tokenizer, state.best_weights),
        notebook_perplexity=state.progress.notebook_perplexity,
    )


def estimate_training_seconds(
    config: Config, runs_dir: Path | None = None, cancelled: Callable[[], bool] = lambda: False
) -> float:
    """Return about how many seconds all epochs of a training take, validations included; NaN if that is cancelled.

    A few steps are measured in this process, while other programs may be busy. Further layers of a deep Transformer
    take as long as those that are measured, and the time of a token hardly depends on the columns.
    """
    source = load_training_input(config, runs_dir)._replace(initial_weights=None)
    set_num_threads(config.training)
    device = choose_device(config.training)

    def time_steps(config: Config) -> float:
        """Return the median time of a token in the first steps after the first one, which allocates memory."""
        if cancelled():
            return math.nan
        trainer = Trainer(config, source, device)
        times = []
        for _ in range(1 + MEASURED_STEPS):
            if cancelled():
                return math.nan
            started_at = time.perf_counter()
            result = trainer.train_step()
            result.loss.item()  # waits for the device
            times.append((time.perf_counter() - started_at) / result.num_tokens)
        return median(times[1:])

    layers, (few, more) = config.model.num_layers, MEASURED_LAYERS
    if config.model.architecture != "transformer" or layers <= more:
        seconds_per_token = time_steps(config)
    else:
        config = config.with_values(batch_size=min(config.training.batch_size, MEASURED_COLUMNS))
        shallow, deeper = (
            time_steps(config.with_values(num_layers=few)),
            time_steps(config.with_values(num_layers=more)),
        )
        seconds_per_token = shallow + (deeper - shallow) * (layers - few) / (more - few)
    epochs = config.training.epochs + config.training.fine_tune_epochs
    validations = epochs / config.training.eval_every_epochs
    tokens = epochs * len(source.dataset.train) + FORWARD_FRACTION * validations * len(source.dataset.valid)
    return tokens * seconds_per_token
