"""`generate` on stdout: text as it is sampled, or JSON, with a summary on stderr."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain

from engine.data.scripts import encode_speaker, encode_turns
from engine.data.tokenizers.base import EOS_ID, Tokenizer
from engine.errors import printable
from engine.generation.generate import Done, IndexedEvent, TokenEvent, generate_batch
from engine.generation.prompt import DecoderState, EncodedPrompt, list_shortened, prefill, prefill_prompt
from engine.generation.sampling import TextInProgress
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from lotr_tui import STARTED
from lotr_tui.cli.console import print_json
from lotr_tui.cli.dialogue.script import parse_script
from lotr_tui.formatting import describe_finish_reason, displayable, token_noun
from lotr_tui.session.conversation.chat import chat_ids
from lotr_tui.session.model_abilities import ContextModel, chat_start
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import REPLY_MODE_NOTE

MAX_LISTED_WORDS = 20
"""Maximum number of unknown words that a message lists; JSON has all of them."""
MAX_BATCH_SIZE = 16
"""Texts generated together; larger batches are hardly faster."""


@dataclass(frozen=True)
class TextPrinter:
    """Printer of generated texts: as text with a summary on stderr, or as JSON."""

    session_model: SessionModel
    prompt: EncodedPrompt
    settings: SamplerSettings
    as_json: bool
    """True to print one JSON object per text."""
    jsonl: bool
    """True to print one JSON object per token, and one at the end of each text."""
    is_line: bool = False
    """True if a text is a whole line, without the space before its first word."""

    def print_text(
        self,
        events: Iterator[TokenEvent | Done],
        details: Callable[[], Mapping[str, object]] = dict,
        label: Callable[[], str] = str,
    ) -> None:
        """Print one text while its events come.

        The JSON object of a whole text, or of its end, also contains `details`. The summary begins with `label`. Both
        are asked for at the end of the text.
        """
        if self.jsonl:
            for event in events:
                if isinstance(event, TokenEvent):
                    print_json({"event": "token", **token_record(event)})
                else:
                    print_json({"event": "done", **asdict(event), **details()})
        elif self.as_json:
            self._print_record(events, details)
        else:
            self._print_plain(events, label)

    def _print_record(self, events: Iterator[TokenEvent | Done], details: Callable[[], Mapping[str, object]]) -> None:
        lead = " " if self.is_line or not self.session_model.model.tokenizer.is_open else ""
        pieces: list[str] = []
        tokens: list[dict[str, object]] = []
        first_token_seconds: float | None = None
        for event in events:
            if isinstance(event, TokenEvent):
                if first_token_seconds is None:
                    first_token_seconds = time.perf_counter() - STARTED
                pieces.append(event.piece)
                tokens.append(token_record(event))
                continue
            result = {
                "prompt": self.prompt.text,
                "text": "".join(pieces).removeprefix(lead),
                **details(),
                "tokens": tokens,
                "unknown": self.prompt.unknown_tokens,
                "seed": event.seed,
                **asdict(self.settings),
                "run": self.session_model.source or self.session_model.name,
                "reason": event.reason,
                "tokens_per_second": event.tokens_per_second,
                "first_token_seconds": first_token_seconds,
            }
            print_json(result)

    def _print_plain(self, events: Iterator[TokenEvent | Done], label: Callable[[], str]) -> None:
        noun = token_noun(self.session_model.model.tokenizer)
        for event in events:
            if isinstance(event, TokenEvent):
                text = event.piece.removeprefix(" ") if event.index == 0 else event.piece
                print_piece(text)
                continue
            print(flush=True)
            parts = [*filter(None, [label()]), f"seed {event.seed}", self.settings.describe()]
            parts += [f"{event.tokens_per_second:,.0f} {noun}s/s", describe_finish_reason(event, noun)]
            print(" · ".join(parts), file=sys.stderr)


def token_record(event: TokenEvent) -> dict[str, object]:
    """Return the figures of a token as the fields of its JSON object."""
    return {
        "index": event.index,
        "id": event.id,
        "text": event.text,
        "logprob": event.logprob,
        "sampling_prob": event.sampling_prob,
        "rank": event.rank,
        "entropy": event.entropy,
        "num_kept": event.num_kept,
        "top_tokens": event.top_tokens,
        "seconds": event.seconds,
        "piece": event.piece,
    }


def generate_on_console(
    session_model: SessionModel,
    prompt: EncodedPrompt,
    settings: SamplerSettings,
    seeds: Sequence[int],
    *,
    reply: bool,
    system_prompt: str = "",
    as_json: bool,
    jsonl: bool,
) -> None:
    """Print one continuation of `prompt`, or with `reply` one answer to it, for each seed.

    A model with a chat template answers by it, and any other model with a line after the prompt.

    Args:
        session_model: Model that writes the texts.
        prompt: Text to continue or to answer.
        settings: Sampler settings.
        seeds: Seed of each text.
        reply: True to answer the prompt.
        system_prompt: Text that tells a model with a chat template who it is; empty for the one of the template.
        as_json: True to print one JSON object per text.
        jsonl: True to print one JSON object per token. Without it and `as_json`, remarks go to stderr.
    """
    model = session_model.model
    report_unknown_text(prompt, model.tokenizer)
    printer = TextPrinter(session_model, prompt, settings, as_json, jsonl)
    if reply and session_model.chat is not None:
        ids = tuple(chat_ids(model, prompt.text, None, system_prompt))
        _print_texts(printer, ids, prefill(model, ids, chat_start(model)), seeds)
        return
    if reply and not (as_json or jsonl):
        if session_model.is_by_others:
            print(f"note: {session_model.chat_problem}; it continues the text on the next line", file=sys.stderr)
        elif not session_model.predicts_eos:
            print("note: this model was trained without line ends, so it rarely answers, or stops", file=sys.stderr)
        elif not session_model.answers_depend_on_prompt:
            print(f"note: {REPLY_MODE_NOTE}", file=sys.stderr)
    ids = _context_ids(session_model, prompt)
    if reply:
        ids += tuple(model.tokenizer.encode("\n").tolist()) if model.tokenizer.reads_line_ends else (EOS_ID,)
    _print_texts(printer, ids, prefill_prompt(model, ids), seeds)


def _print_texts(printer: TextPrinter, ids: tuple[int, ...], state: DecoderState, seeds: Sequence[int]) -> None:
    """Print a text for each seed, which continues `ids` from `state`, and say so if the context becomes full."""
    model = printer.session_model.model
    for events in generate_texts(model, state, ids, printer.settings, seeds):
        printer.print_text(_note_full_context(events, model, len(ids)))


def _note_full_context(
    events: Iterator[TokenEvent | Done], model: LanguageModel, num_read: int
) -> Iterator[TokenEvent | Done]:
    """Yield the events of a text, and then say on stderr if it was longer than the context of a model by others."""
    num_tokens = num_read + 1  # the token that starts a text
    for event in events:
        yield event
        num_tokens += isinstance(event, TokenEvent)
    if isinstance(model, ContextModel) and num_tokens > model.context_size:
        size = f"{model.context_size:,} tokens"
        print(f"note: the context of {size} was full, so the model forgot the beginning of the text", file=sys.stderr)


def report_unknown_text(prompt: EncodedPrompt, tokenizer: Tokenizer) -> None:
    """Print on stderr which parts of a prompt the model does not know, if there are any."""
    skipped = [text for text in prompt.unknown_tokens if not tokenizer.spans(text)]
    rare = [text for text in prompt.unknown_tokens if text not in skipped]
    if rare:
        words = list_shortened(rare, MAX_LISTED_WORDS)
        print(printable(f"not in the vocabulary, read as rare words: {words}"), file=sys.stderr)
    if skipped:
        reason = "the model reads only words of a to z, digits and apostrophes"
        print(printable(f"skipped, because {reason}: {list_shortened(skipped, MAX_LISTED_WORDS)}"), file=sys.stderr)


def print_piece(text: str) -> None:
    """Print a part of a generated text on stdout, at once; a terminal gets no control characters."""
    print(displayable(text) if sys.stdout.isatty() else text, end="", flush=True)


def _context_ids(session_model: SessionModel, prompt: EncodedPrompt) -> tuple[int, ...]:
    """Return the token ids that the model reads before the text.

    An open vocabulary has line feeds, and a model that was trained with `<eos>` after each line reads them as `<eos>`.
    The line feed at the end of a file does not belong to the prompt. A model with a cast reads the lines of a script,
    of which the last is continued.
    """
    tokenizer = session_model.model.tokenizer
    if session_model.cast:
        *before, last = parse_script(prompt.text, session_model.cast)
        head, text = encode_speaker(tokenizer, last.speaker), tokenizer.encode(f" {last.text}").tolist()
        return (*encode_turns(tokenizer, before), *head, *text)
    if not tokenizer.is_open:
        return prompt.ids
    text = prompt.text.rstrip("\r\n")
    if not session_model.predicts_eos:
        return tuple(tokenizer.encode(text).tolist())
    lines = [[EOS_ID, *ids.tolist()] for ids in tokenizer.encode_lines(text.splitlines())]
    return tuple(chain.from_iterable(lines))[1:]


def generate_texts(
    model: LanguageModel,
    state: DecoderState,
    ids: tuple[int, ...],
    settings: SamplerSettings,
    seeds: Sequence[int],
    noise_context: tuple[int, ...] = (),
) -> Iterator[Iterator[TokenEvent | Done]]:
    """Yield the events of the text of each seed, which continues `ids` from `state`. Several texts share batches.

    `noise_context` are the ids of the lines before, if the text is a line of a conversation.
    """
    for start in range(0, len(seeds), MAX_BATCH_SIZE):
        batch = seeds[start : start + MAX_BATCH_SIZE]
        texts = [TextInProgress(model, ids, settings, seed, state, noise_context=noise_context) for seed in batch]
        steps, pending = generate_batch(texts), [deque[TokenEvent | Done]() for _ in texts]
        yield from (_events_of(index, steps, pending) for index in range(len(texts)))


def _events_of(
    index: int, steps: Iterator[list[IndexedEvent]], pending: list[deque[TokenEvent | Done]]
) -> Iterator[TokenEvent | Done]:
    """Yield the events of a text of a batch; events of other texts stay in `pending`."""
    event: TokenEvent | Done | None = None
    while not isinstance(event, Done):
        while not pending[index]:
            for other, following in next(steps):
                pending[other].append(following)
        event = pending[index].popleft()
        yield event
