"""A training as one generator of events, from its start or from where it was left."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from engine.config import Config
from engine.dataset import Dataset
from engine.device import choose_device, use_threads
from engine.evaluation import evaluate
from engine.events import Finished, Preparing, Resume, Started, TrainingEvent
from engine.ngram import MOST_TOKENS, KneserNey, Unigram
from engine.snapshot import Saved
from engine.steering import Steering
from engine.training_loop import Loop


def train(
    config: Config,
    dataset: Dataset,
    run: str,
    cancelled: Callable[[], bool],
    steering: Steering | None = None,
    saved: Saved | None = None,
    *,
    again: bool = False,
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

    Raises:
        RunError: `saved` is damaged, or of another training.
        ConfigError: the device asked for is not there.
        TrainingError: the loss is no longer a number.
    """
    started = time.perf_counter()
    options = config.training
    use_threads(options)
    device = choose_device(options)
    if options.evaluate_tokens:
        dataset = replace(dataset, valid=dataset.valid[: options.evaluate_tokens])
    countable = len(dataset.train) <= MOST_TOKENS
    left_out = "" if countable else f"; no 5-grams, for the text has over {MOST_TOKENS:,} words"
    yield Preparing(f"counting words and 5-grams, the lines to beat{left_out}")
    unigram = evaluate(Unigram(dataset.train, dataset.vocabulary), dataset.valid).perplexity
    kneser_ney = math.nan
    if countable:
        kneser_ney = evaluate(KneserNey(dataset.train, dataset.vocabulary), dataset.valid).perplexity
    if saved is not None:
        saved.check(config)
        started -= saved.seconds
    loop = Loop(config, dataset, device, started, steering)
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
    if saved is not None:
        saved.restore(loop)
    if saved is not None or again:
        yield Resume(loop.step + 1 if saved is not None else 0)
    reason = yield from loop.run(cancelled)
    assert loop.best is not None
    yield Finished(
        reason=reason,
        run=run,
        epochs=loop.epoch,
        valid_perplexity=loop.best_perplexity,
        # The test split is looked at once, when the training is complete.
        test_perplexity=math.nan if reason in ("stopped", "detached") else evaluate(loop.best, dataset.test).perplexity,
        seconds=time.perf_counter() - started,
        model=loop.best,
        notebook_perplexity=loop.claimed,
    )
