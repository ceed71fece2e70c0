"""A training as a generator of events, in the main process and in the worker ranks of a distributed training."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from engine.analysis.bits_per_character import count_validation_characters
from engine.analysis.perplexity import evaluate
from engine.config import Config
from engine.control import CommandQueue
from engine.data.arrays import Float32Array
from engine.data.dataset import Dataset, load_dataset
from engine.events import Finished, Preparing, Resume, Started, TrainingEvent, Warned
from engine.models.ngram import MAX_KNESER_NEY_TOKENS, KneserNey, Unigram
from engine.models.pretrained.base import Base
from engine.runs.adapter_files import needs_base, read_run_base
from engine.runs.directory import read_config_and_tokenizer
from engine.runs.loading import read_initial_weights
from engine.runtime.allocator import disable_heap_trimming
from engine.runtime.distributed import SINGLE_PROCESS, DistributedContext, distributed_context
from engine.training.checkpoint import ResumeCheckpoint, load_latest_checkpoint
from engine.training.device import choose_device, set_num_threads
from engine.training.trainer import Trainer


def train_run(
    config: Config,
    dataset: Dataset,
    run_dir: Path,
    cancelled: Callable[[], bool],
    command_queue: CommandQueue,
    *,
    is_resume: bool = False,
) -> Iterator[TrainingEvent]:
    """Train the run in `run_dir` as the main process, and yield the events of `train`.

    In a distributed training, this function waits for the worker ranks, which call `train_as_worker_rank`.

    Raises:
        RunError: If a checkpoint is damaged.
        TrainingError: If the training diverges, or another process has ended.
    """
    checkpoint, warning = load_latest_checkpoint(run_dir) if is_resume else (None, "")
    if warning:
        yield Warned(warning)
    with distributed_context() as context:
        checkpoint_path = str(checkpoint.path) if checkpoint else ""
        context.broadcast_object(lambda: (str(run_dir), checkpoint_path, is_resume))
        start = partial(train, is_resume=is_resume, distributed=context)
        initial_weights = None if checkpoint else read_initial_weights(run_dir, config, dataset.tokenizer)
        base = read_run_base(run_dir, config.data.mode) if needs_base(config) else None
        yield from start(config, dataset, run_dir.name, cancelled, command_queue, checkpoint, initial_weights, base)


def train_as_worker_rank(context: DistributedContext) -> None:
    """Train the run that the main process broadcasts, from the same checkpoint or initial weights."""
    run_name, checkpoint_path, is_resume = context.broadcast_object(lambda: ("", "", False))
    run_dir = Path(run_name)
    config, tokenizer = read_config_and_tokenizer(run_dir)
    checkpoint = ResumeCheckpoint(Path(checkpoint_path)) if checkpoint_path else None
    initial_weights = None if checkpoint else read_initial_weights(run_dir, config, tokenizer)
    base = read_run_base(run_dir, config.data.mode) if needs_base(config) else None
    dataset = load_dataset(config.data, tokenizer)
    start = partial(train, is_resume=is_resume, distributed=context)
    for _ in start(config, dataset, "", lambda: False, None, checkpoint, initial_weights, base):
        pass


def train(
    config: Config,
    dataset: Dataset,
    run_name: str,
    cancelled: Callable[[], bool],
    command_queue: CommandQueue | None = None,
    checkpoint: ResumeCheckpoint | None = None,
    initial_weights: Mapping[str, Float32Array] | None = None,
    base: Base | None = None,
    *,
    is_resume: bool = False,
    distributed: DistributedContext = SINGLE_PROCESS,
) -> Iterator[TrainingEvent]:
    """Train a model on `dataset`, and yield every event; the last one is `Finished`.

    The model in `Finished` is the one with the best validation perplexity. The test split is scored once, at the
    end, unless the training is stopped or `score_test` is false.

    All processes of a `distributed` training compute the same; only the main process yields the events of reports,
    validation and checkpoints.

    `cancelled` is called between steps; once it returns True, the training saves and stops. Without a `checkpoint`,
    training starts with `initial_weights`, or else with random weights or the pre-trained model `base`, even if the run
    was started before (`is_resume`).

    Raises:
        RunError: If the checkpoint is damaged, or belongs to another configuration.
        ConfigError: If the configured device does not exist.
        TrainingError: If the loss is not a finite number.
    """
    start_time = time.perf_counter()
    options = config.training
    set_num_threads(options, distributed.process)
    disable_heap_trimming()
    device = choose_device(options, distributed.process)
    if options.max_eval_tokens:
        dataset = replace(dataset, valid=dataset.valid[: options.max_eval_tokens])
    if checkpoint is not None:
        checkpoint.check_config(config)
    is_long = len(dataset.train) > MAX_KNESER_NEY_TOKENS  # then its 5-grams do not fit into memory
    long_text = f"unigram baseline; no 5-grams beyond {MAX_KNESER_NEY_TOKENS:,} tokens"
    yield Preparing(f"computing the {long_text if is_long else 'unigram and 5-gram baselines'}")
    unigram, kneser_ney = distributed.broadcast_object(lambda: _baseline_perplexities(dataset, not is_long))
    # A part of the split, as `max_eval_tokens` leaves it, is not a whole number of lines.
    characters, untokenized_bits = (0, 0.0) if options.max_eval_tokens else count_validation_characters(dataset)
    trainer = Trainer(config, dataset, device, start_time, distributed, initial_weights, base)
    state = trainer.state
    yield Started(
        run=run_name,
        preset=config.preset,
        parameters=sum(parameter.numel() for parameter in state.network.parameters()),
        vocabulary_size=len(dataset.tokenizer),
        train_tokens=len(dataset.train),
        valid_tokens=int(dataset.scored_mask(dataset.valid).sum()),
        epochs=options.epochs + options.fine_tune_epochs,
        device=str(device),
        corpus_sha256=dataset.corpus.sha256,
        unigram_perplexity=unigram,
        kneser_ney_perplexity=kneser_ney,
        world_size=distributed.process.world_size,
        valid_characters=characters,
        valid_untokenized_bits=untokenized_bits,
        base="" if base is None else base.name,
    )
    if checkpoint is not None:
        checkpoint.restore(state)
    if is_resume or checkpoint is not None:
        yield Resume(0 if checkpoint is None else state.progress.step + 1)
    reason = yield from trainer.fit(cancelled, command_queue or CommandQueue())
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
    yield Finished(
        reason=reason,
        run=run_name,
        epochs=state.progress.epoch,
        valid_perplexity=state.progress.best_perplexity,
        test_perplexity=math.nan
        if ended_early or not options.score_test
        else distributed.broadcast_object(
            lambda: evaluate(state.network, dataset.test, dataset.scored_mask(dataset.test)).perplexity
        ),
        seconds=state.seconds,
        model=state.network.to_decoder(dataset.tokenizer, state.best_weights),
        notebook_perplexity=state.progress.notebook_perplexity,
    )


def _baseline_perplexities(dataset: Dataset, with_kneser_ney: bool) -> tuple[float, float]:
    """Return the validation perplexities of a unigram and a 5-gram Kneser-Ney model; NaN for one not computed."""
    models = (Unigram, KneserNey) if with_kneser_ney else (Unigram,)
    is_scored = dataset.scored_mask(dataset.valid)
    perplexities = [
        evaluate(model(dataset.train, dataset.tokenizer), dataset.valid, is_scored).perplexity for model in models
    ]
    return perplexities[0], perplexities[1] if with_kneser_ney else math.nan
