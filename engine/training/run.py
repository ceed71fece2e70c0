"""A training as one generator of events, from its start or from where it was left."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from engine.analysis.perplexity import evaluate
from engine.config import Config
from engine.control import Steering
from engine.data.dataset import Dataset
from engine.events import Finished, Preparing, Resume, Started, TrainingEvent
from engine.models.ngram import MOST_TOKENS, KneserNey, Unigram
from engine.runtime.allocator import keep_freed_memory
from engine.runtime.distributed import ALONE, World
from engine.training.checkpoint import Saved
from engine.training.device import choose_device, use_threads
from engine.training.trainer import Loop


def train(
    config: Config,
    dataset: Dataset,
    run: str,
    cancelled: Callable[[], bool],
    steering: Steering | None = None,
    saved: Saved | None = None,
    *,
    again: bool = False,
    world: World = ALONE,
) -> Iterator[TrainingEvent]:
    """Train on `dataset`, telling everything as events; the last one is `Finished`.

    The best weights by validation are those of `Finished`, whose test perplexity is read once.

    Args:
        config: every setting.
        dataset: what `prepare(config.data)` gave.
        run: what the run is called.
        cancelled: asked often; once true, the training saves and ends.
        steering: what else is asked of it meanwhile.
        saved: goes on from there, as if it had never been left.
        again: a run that was left before anything was saved begins anew.
        world: the processes that train together. Each does the same; only the first gets to hear of validation,
            samples, reports and what is to be saved.

    Raises:
        RunError: `saved` is damaged, or of another training.
        ConfigError: the device asked for is not there.
        TrainingError: the loss is no longer a number.
    """
    started = time.perf_counter()
    options = config.training
    use_threads(options, world.place)
    keep_freed_memory()
    device = choose_device(options, world.place)
    if options.evaluate_tokens:
        dataset = replace(dataset, valid=dataset.valid[: options.evaluate_tokens])
    left_out = "" if _countable(dataset) else f"; no 5-grams, for the text has over {MOST_TOKENS:,} words"
    yield Preparing(f"counting words and 5-grams, the lines to beat{left_out}")
    unigram, kneser_ney = world.share(lambda: _to_beat(dataset))
    if saved is not None:
        saved.check(config)
        started -= saved.seconds
    loop = Loop(config, dataset, device, started, steering, world)
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
        processes=world.place.size,
    )
    if saved is not None:
        saved.restore(loop)
    if saved is not None or again:
        yield Resume(loop.step + 1 if saved is not None else 0)
    reason = yield from loop.run(cancelled)
    best = loop.best
    assert best is not None
    ended_early = reason in ("stopped", "detached")
    yield Finished(
        reason=reason,
        run=run,
        epochs=loop.epoch,
        valid_perplexity=loop.best_perplexity,
        # The test split is looked at once, when the training is complete.
        test_perplexity=math.nan if ended_early else world.share(lambda: evaluate(best, dataset.test).perplexity),
        seconds=time.perf_counter() - started,
        model=best,
        notebook_perplexity=loop.claimed,
    )


def _countable(dataset: Dataset) -> bool:
    """Whether its 5-grams take an amount of memory that can be spared."""
    return len(dataset.train) <= MOST_TOKENS


def _to_beat(dataset: Dataset) -> tuple[float, float]:
    """The validation perplexities of a unigram and a Kneser-Ney model; NaN for what is not counted."""
    unigram = evaluate(Unigram(dataset.train, dataset.vocabulary), dataset.valid).perplexity
    if not _countable(dataset):
        return unigram, math.nan
    return unigram, evaluate(KneserNey(dataset.train, dataset.vocabulary), dataset.valid).perplexity
