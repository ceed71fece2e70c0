"""`generate` on stdout: text as it is sampled, or JSON, with a summary on stderr."""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain

from engine.data.tokenizers.base import EOS_ID
from engine.errors import printable
from engine.generation.batch import GenerationRequest, demultiplex, generate_batch
from engine.generation.generate import Done, TokenEvent, generate
from engine.generation.prompt import EncodedPrompt, list_shortened, prefill_prompt
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from lotr_tui import STARTED
from lotr_tui.cli.console import print_json
from lotr_tui.formatting import describe_finish_reason, displayable, token_noun
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import REPLY_MODE_NOTE

MAX_LISTED_WORDS = 20
"""Maximum number of unknown words that a message lists; JSON has all of them."""
MAX_BATCH_SIZE = 16
"""Texts generated together; larger batches are hardly faster."""


def generate_on_console(
    session_model: SessionModel,
    prompt: EncodedPrompt,
    settings: SamplerSettings,
    seeds: Sequence[int],
    *,
    reply: bool,
    as_json: bool,
    jsonl: bool,
) -> None:
    """Print one continuation of `prompt`, or with `reply` one answer to it as a whole line, for each seed.

    `as_json` prints one JSON object per text, `jsonl` one per word. Unknown words are reported on stderr.
    """
    if prompt.unknown_tokens:
        spans = session_model.model.tokenizer.spans
        skipped = [text for text in prompt.unknown_tokens if not spans(text)]
        rare = [text for text in prompt.unknown_tokens if text not in skipped]
        if rare:
            print(
                printable(f"not in the vocabulary, read as rare words: {list_shortened(rare, MAX_LISTED_WORDS)}"),
                file=sys.stderr,
            )
        if skipped:
            reason = "the model reads only words of a to z, digits and apostrophes"
            print(printable(f"skipped, because {reason}: {list_shortened(skipped, MAX_LISTED_WORDS)}"), file=sys.stderr)
    if reply and not (as_json or jsonl):
        if not session_model.predicts_eos:
            print("note: this model was trained without line ends, so it rarely answers, or stops", file=sys.stderr)
        elif not session_model.answers_depend_on_prompt:
            print(f"note: {REPLY_MODE_NOTE}", file=sys.stderr)
    ids = (*_context_ids(session_model, prompt), *([EOS_ID] if reply else []))
    for start in range(0, len(seeds), MAX_BATCH_SIZE):
        for events in _generate_texts(session_model.model, ids, settings, seeds[start : start + MAX_BATCH_SIZE]):
            if jsonl:
                for event in events:
                    kind = "token" if isinstance(event, TokenEvent) else "done"
                    print_json({"event": kind, **asdict(event)})
            elif as_json:
                _print_json(events, prompt, settings, session_model)
            else:
                _print_text(events, settings, token_noun(session_model.model.tokenizer))


def _context_ids(session_model: SessionModel, prompt: EncodedPrompt) -> tuple[int, ...]:
    """Return the token ids that the model reads before the text.

    An open vocabulary has line feeds, and a model that was trained with `<eos>` after each line reads them as `<eos>`.
    The line feed at the end of a file does not belong to the prompt.
    """
    tokenizer = session_model.model.tokenizer
    if not tokenizer.is_open:
        return prompt.ids
    text = prompt.text.rstrip("\r\n")
    if not session_model.predicts_eos:
        return tuple(tokenizer.encode(text).tolist())
    lines = [[EOS_ID, *ids.tolist()] for ids in tokenizer.encode_lines(text.splitlines())]
    return tuple(chain.from_iterable(lines))[1:]


def _generate_texts(
    model: LanguageModel, ids: tuple[int, ...], settings: SamplerSettings, seeds: Sequence[int]
) -> list[Iterator[TokenEvent | Done]]:
    """Return the events of the text of each seed."""
    if len(seeds) == 1:
        return [generate(model, ids, settings, seeds[0])]
    state = prefill_prompt(model, ids)
    requests = [GenerationRequest(state, ids, settings, seed) for seed in seeds]
    return demultiplex(generate_batch(model, requests), len(seeds))


def _print_json(
    events: Iterator[TokenEvent | Done], prompt: EncodedPrompt, settings: SamplerSettings, session_model: SessionModel
) -> None:
    is_open = session_model.model.tokenizer.is_open
    tokens: list[TokenEvent] = []
    first_token_seconds: float | None = None
    for event in events:
        if isinstance(event, TokenEvent):
            if first_token_seconds is None:
                first_token_seconds = time.perf_counter() - STARTED
            tokens.append(event)
            continue
        result = {
            "prompt": prompt.text,
            "text": "".join([token.piece for token in tokens]).removeprefix("" if is_open else " "),
            "tokens": [asdict(token) for token in tokens],
            "unknown": prompt.unknown_tokens,
            "seed": event.seed,
            **asdict(settings),
            "run": session_model.name,
            "reason": event.reason,
            "tokens_per_second": event.tokens_per_second,
            "first_token_seconds": first_token_seconds,
        }
        print_json(result)


def _print_text(events: Iterator[TokenEvent | Done], settings: SamplerSettings, noun: str) -> None:
    for event in events:
        if isinstance(event, TokenEvent):
            text = event.piece.removeprefix(" ") if event.index == 0 else event.piece
            print(displayable(text) if sys.stdout.isatty() else text, end="", flush=True)
            continue
        print(flush=True)
        speed = f"{event.tokens_per_second:,.0f} {noun}s/s"
        summary = f"seed {event.seed} · {settings.describe()} · {speed} · {describe_finish_reason(event, noun)}"
        print(summary, file=sys.stderr)
