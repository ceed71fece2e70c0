"""Validation during training: perplexity, the best model, early stopping, and a text sample."""

import math
from collections.abc import Iterator

import torch
from torch import nn

from engine.analysis.notebook import printed_perplexity, window_starts
from engine.analysis.perplexity import evaluate
from engine.data.dataset import batchify
from engine.data.scripts import Turn, parse_line, speaker_head, turn_text
from engine.data.speakers import STRANGER, first_to_answer
from engine.data.tokenizers.base import TokenIds
from engine.errors import TrainingError
from engine.events import Evaluated, Sampled, TrainingEvent
from engine.generation.generate import TokenEvent, generate
from engine.generation.sampling import TextInProgress
from engine.generation.settings import SamplerSettings
from engine.generation.turns import begin_turn, read_turns
from engine.models.base import LanguageModel
from engine.models.network import Network
from engine.training.optim import WeightAverage, nonmonotone_trigger
from engine.training.state import TrainerState

MAX_SAMPLE_TOKENS, MAX_LINE_TOKENS = 25, 60  # the latter of an answer, which ends with its line


def validate(state: TrainerState) -> Iterator[TrainingEvent]:
    """Score the validation split, update the state, and yield `Evaluated` and `Sampled`.

    The plateau factor falls, the average of NT-ASGD starts, or the training ends early, as configured. Every process of
    a distributed training must call this function; only the main process scores and yields.
    """
    options, progress, dataset = state.config.training, state.progress, state.dataset
    network, follows_notebook = state.evaluated_network, options.validation_metric == "notebook"

    def score() -> tuple[float, float]:
        perplexity = evaluate(network, dataset.valid, dataset.scored_mask(dataset.valid)).perplexity
        check_finite(perplexity, state)
        if not follows_notebook:
            return perplexity, math.nan
        return perplexity, notebook_perplexity(network, dataset.valid, options.batch_size, options.bptt)

    perplexity, progress.notebook_perplexity = state.distributed.broadcast_object(score)
    weights = network.export_weights()
    # The notebook's formula returns a constant, so the notebook always saves the latest weights.
    is_best = perplexity < progress.best_perplexity or follows_notebook
    progress.evaluations_since_best += 1
    if is_best:
        state.best_weights, progress.best_perplexity, progress.evaluations_since_best = weights, perplexity, 0
    if not progress.step:
        progress.initial_perplexity = perplexity
    else:
        followed = progress.notebook_perplexity if follows_notebook else perplexity
        if followed >= min(progress.valid_perplexities, default=math.inf):
            progress.plateau_factor *= 0.5
        triggered = nonmonotone_trigger(progress.valid_perplexities, followed, options.nonmonotone_interval)
        progress.valid_perplexities.append(followed)
        out_of_patience = 0 < options.patience <= progress.evaluations_since_best
        if out_of_patience or (progress.fine_tuning and triggered):
            progress.early_stopped = True
        if triggered and state.weight_average is None and options.averaging == "nt_asgd":
            state.weight_average = WeightAverage(state.network)
    progress.evaluation_due = False
    if state.distributed.process.is_main_process:
        model = network.to_decoder(dataset.tokenizer, weights)
        yield Evaluated(
            step=progress.step,
            epoch=progress.epoch,
            valid_perplexity=perplexity,
            is_best=is_best,
            seconds=state.seconds,
            model=model,
            adapter=None if network.base is None else weights,
            notebook_perplexity=progress.notebook_perplexity,
        )
        yield _sample(model, state)


def check_finite(loss: float, state: TrainerState) -> None:
    """Raise a TrainingError unless a loss is finite. The message names a likely cause, a remedy and the best model."""
    if math.isfinite(loss):
        return
    options = state.config.training
    cause, remedy = "the learning rate is too high", f"--set lr={options.lr / 3:.2g}"
    if not options.clip:
        cause, remedy = "gradients are not clipped", f"--set clip=1 or {remedy}"
    elif state.dtype != torch.float32:
        cause, remedy = f"the learning rate is too high or {state.dtype} too coarse", f"{remedy} or --precision fp32"
    best = f"; the best model (perplexity {state.progress.best_perplexity:.1f}) is saved" if state.best_weights else ""
    raise TrainingError(f"the loss is {loss} at step {state.progress.step}, likely because {cause}; try {remedy}{best}")


def _sample(model: LanguageModel, state: TrainerState) -> Sampled:
    """Continue the sample prompt, in dialogue mode by an answer, always with the same seed for a comparison."""
    options, prompt, cast = state.config.training, state.progress.sample_prompt, state.dataset.cast
    is_dialogue = state.dataset.mode == "dialogue"
    max_tokens = MAX_LINE_TOKENS if is_dialogue else MAX_SAMPLE_TOKENS
    settings = SamplerSettings(temperature=options.sample_temperature, max_tokens=max_tokens)
    if is_dialogue:
        said = parse_line(prompt) or Turn(STRANGER, prompt)
        speaker = next(name for name in (first_to_answer(cast), *cast) if name != said.speaker)
        prompt = f"{turn_text(said)}{speaker_head(speaker)}"
        text = begin_turn(model, read_turns(model, [said]), speaker, settings, options.sample_seed)
    else:
        tokenizer = model.tokenizer
        if tokenizer.is_open and prompt.strip(" "):
            prompt = f"{prompt.rstrip(' ')} "  # the sample starts with another word, as one of a closed vocabulary does
        ids = [id for id in tokenizer.encode(prompt).tolist() if id != tokenizer.unk_id]
        prompt = tokenizer.decode(ids).rstrip(" ")
        text = TextInProgress(model, ids, settings, options.sample_seed)
    pieces = [event.piece for event in generate(text) if isinstance(event, TokenEvent)]
    progress, written = state.progress, "".join(pieces).lstrip(" ")
    return Sampled(progress.step, progress.epoch, prompt, written, options.sample_seed, options.sample_temperature)


@torch.no_grad()
def notebook_perplexity(network: Network, ids: TokenIds, batch_size: int, bptt: int) -> float:
    """Return the perplexity of `ids` by the formula of the notebook, see `engine.analysis.notebook`."""
    columns = torch.from_numpy(batchify(ids, batch_size)).to(network.device).long()
    state, losses = network.initial_state(batch_size), []
    for begin in window_starts(len(columns), bptt):
        logits, state, _, _ = network(columns[begin : begin + bptt], state)
        targets = columns[begin + 1 : begin + 1 + bptt]
        losses.append(float(nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())))
    return printed_perplexity(losses, len(columns), bptt)
