"""Validation during training: perplexity, the best model, early stopping, and a text sample."""

import math
from collections.abc import Iterator

import torch
from torch import nn

from engine.analysis.notebook_evaluation import printed_perplexity, window_starts
from engine.analysis.perplexity import evaluate
from engine.data.dataset import Dataset, batchify
from engine.data.script_form import Turn, parse_line, speaker_head, turn_text
from engine.data.speakers import STRANGER, first_to_answer
from engine.data.tokenizers.base import TokenIds, Tokenizer
from engine.events import Evaluated, Sampled, TrainingEvent
from engine.generation.generate import Done, generate
from engine.generation.settings import SamplerSettings
from engine.generation.turns import generate_turn, read_turns
from engine.models.base import LanguageModel
from engine.models.network import Network
from engine.training.averaging import WeightAverage, nonmonotone_trigger
from engine.training.reporting import check_finite
from engine.training.state import TrainerState

MAX_SAMPLE_TOKENS, MAX_LINE_TOKENS = 25, 60
"""Maximum length of a sample, and of one that is an answer, which ends with its line."""


def validate(state: TrainerState, dataset: Dataset) -> Iterator[TrainingEvent]:
    """Score the validation split, check the perplexity, update the state, and yield `Evaluated` and `Sampled`.

    Every process of a distributed training must call this function; only the main process scores and yields.
    """
    options, progress, distributed = state.config.training, state.progress, state.distributed
    network = state.evaluated_network
    perplexity, notebook = distributed.broadcast_object(lambda: _score(network, dataset, state))
    follows_notebook = options.validation_metric == "notebook"
    if follows_notebook:
        progress.notebook_perplexity = notebook
    weights = network.export_weights()
    model = network.to_decoder(dataset.tokenizer, weights)
    # The notebook's formula returns a constant, so the notebook always saves the latest weights.
    is_best = perplexity < progress.best_perplexity or follows_notebook
    if is_best:
        state.best_weights, progress.best_perplexity, progress.evaluations_since_best = weights, perplexity, 0
    else:
        progress.evaluations_since_best += 1
    if not progress.step:
        progress.initial_perplexity = perplexity
    else:
        _on_validation(state, notebook if follows_notebook else perplexity)
    progress.evaluation_due = False
    seconds = state.seconds
    if distributed.process.is_main_process:
        yield Evaluated(
            step=progress.step,
            epoch=progress.epoch,
            valid_perplexity=perplexity,
            is_best=is_best,
            seconds=seconds,
            model=model,
            adapter=None if network.base is None else weights,
            notebook_perplexity=progress.notebook_perplexity,
        )
        yield _sample(model, state, dataset)


def _score(network: Network, dataset: Dataset, state: TrainerState) -> tuple[float, float]:
    """Return the perplexity, and the notebook's value of it (NaN unless the training follows that value)."""
    options, ids = state.config.training, dataset.valid
    perplexity = evaluate(network, ids, dataset.scored_mask(ids)).perplexity
    check_finite(perplexity, state)
    if options.validation_metric != "notebook":
        return perplexity, math.nan
    return perplexity, notebook_perplexity(network, ids, options.batch_size, options.bptt)


def _on_validation(state: TrainerState, perplexity: float) -> None:
    """Lower the plateau factor, start the average of NT-ASGD, or stop early, as configured."""
    options, progress = state.config.training, state.progress
    if perplexity >= min(progress.valid_perplexities, default=math.inf):
        progress.plateau_factor *= 0.5
    triggered = nonmonotone_trigger(progress.valid_perplexities, perplexity, options.nonmonotone_interval)
    progress.valid_perplexities.append(perplexity)
    out_of_patience = 0 < options.patience <= progress.evaluations_since_best
    if out_of_patience or (progress.fine_tuning and triggered):
        progress.early_stopped = True
    if triggered and state.weight_average is None and options.averaging == "nt_asgd":
        state.weight_average = WeightAverage(state.network)


def _sample(model: LanguageModel, state: TrainerState, dataset: Dataset) -> Sampled:
    """Continue the sample prompt, always with the same seed, so that samples of one training can be compared.

    In dialogue mode, the prompt is a line that somebody else answers.
    """
    options, prompt = state.config.training, state.progress.sample_prompt
    max_tokens = MAX_LINE_TOKENS if dataset.mode == "dialogue" else MAX_SAMPLE_TOKENS
    settings = SamplerSettings(temperature=options.sample_temperature, max_tokens=max_tokens)
    if dataset.mode == "dialogue":
        said = parse_line(prompt) or Turn(STRANGER, prompt)
        speaker = next(name for name in (first_to_answer(dataset.cast), *dataset.cast) if name != said.speaker)
        prompt = f"{turn_text(said)}{speaker_head(speaker)}"
        turn = generate_turn(model, read_turns(model, [said]), speaker, settings, options.sample_seed)
        pieces = [event[0].piece for event in turn if not isinstance(event, Done)]
    else:
        ids = _sample_prompt_ids(prompt, model.tokenizer)
        prompt = model.tokenizer.decode(ids).rstrip(" ")
        text = generate(model, ids, settings, options.sample_seed)
        pieces = [event.piece for event in text if not isinstance(event, Done)]
    return Sampled(
        step=state.progress.step,
        epoch=state.progress.epoch,
        prompt=prompt,
        text="".join(pieces).lstrip(" "),
        seed=options.sample_seed,
        temperature=options.sample_temperature,
    )


def _sample_prompt_ids(text: str, tokenizer: Tokenizer) -> list[int]:
    """Return the tokens of a sample prompt, without unknown words."""
    if tokenizer.is_open and text.strip(" "):
        text = f"{text.rstrip(' ')} "  # the sample starts with another word, as one of a closed vocabulary does
    return [id for id in tokenizer.encode(text).tolist() if id != tokenizer.unk_id]


@torch.no_grad()
def notebook_perplexity(network: Network, ids: TokenIds, batch_size: int, bptt: int) -> float:
    """Return the perplexity of `ids` by the notebook's formula, which has a bug.

    The notebook cuts `ids` into `batch_size` columns, trims the columns to whole windows of `bptt` time steps, and
    divides by the trimmed width. Columns shorter than a window are trimmed to a single token: nothing is predicted,
    the sum is 0, and exp(0) is a perplexity of 1.000.
    """
    columns = torch.from_numpy(batchify(ids, batch_size)).to(network.device)
    mean_nlls = _window_losses(network, columns, batch_size, bptt)
    return printed_perplexity(mean_nlls, len(columns), bptt)


def _window_losses(network: Network, columns: torch.Tensor, batch_size: int, bptt: int) -> Iterator[float]:
    """Yield the mean loss of each window of `columns` `[time, batch]`, with the state carried between them."""
    state = network.initial_state(batch_size)
    for begin in window_starts(len(columns), bptt):
        logits, state, _, _ = network(columns[begin : begin + bptt].long(), state)
        targets = columns[begin + 1 : begin + 1 + bptt].long()
        yield float(nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten()))
