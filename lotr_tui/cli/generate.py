"""`lotr-tui generate`: texts that continue or answer a prompt, and scenes."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from engine.config import LSTM
from engine.data.scripts import encode_speaker, encode_turns
from engine.data.speakers import STRANGER
from engine.data.tokenizers.base import EOS_ID, Tokenizer
from engine.errors import InvalidInputError, printable
from engine.generation.best_of import MAX_ANSWERS, Answer, stream_answers
from engine.generation.generate import Done, TokenEvent, generate_batch
from engine.generation.prompt import (
    DecoderState,
    EncodedPrompt,
    encode_prompt,
    list_shortened,
    prefill,
    prefill_prompt,
)
from engine.generation.sampling import TextInProgress
from engine.generation.settings import SamplerSettings, check_seed, random_seed
from engine.generation.turns import MAX_HISTORY_TOKENS, begin_turn, next_speaker_probs, read_turns
from engine.models.base import LanguageModel
from engine.models.dialogue import DialogueModel
from engine.models.pretrained.chat import ChatMessage
from engine.models.pretrained.names import is_pretrained_name, parse_pretrained_name
from engine.runs.loading import load_model_by_name
from lotr_tui import STARTED
from lotr_tui.cli import options
from lotr_tui.cli.console import print_json, print_piece, read_text
from lotr_tui.cli.parser import add_command, argument, flag, make_group, number, option
from lotr_tui.cli.scripts import check_has_cast, parse_script, read_prompt, write_scene
from lotr_tui.formatting import describe_finish_reason, format_percent, token_noun
from lotr_tui.session.conversation.cast import answering_cast, describe_unknown_name, read_name
from lotr_tui.session.model_abilities import chat_start, default_num_answers, find_chat_template
from lotr_tui.session.settings import REPLY_MODE_NOTE, default_model_settings

SAMPLING = "Sampling, by default as in a new session with the model"
DIALOGUE = "Dialogue"
MAX_PROMPT_BYTES = 100_000  # of standard input; a large model reads it in a minute or two
MAX_TURNS, DEFAULT_TURNS = 10_000, 8
MAX_LISTED_WORDS = 20  # unknown words that a message lists; JSON has all of them
MAX_BATCH_SIZE = 16  # texts generated together; larger batches are hardly faster
BEST_OF_HELP = (
    "Draw N answers and print the one that the prompt makes most likely, compared with no prompt. Default: 8, with a "
    "large model 4."
)
Events = Iterator[TokenEvent | Done]
commands = make_group()


@add_command(
    commands,
    "generate",
    'lotr-tui generate "Where is Frodo"',
    'lotr-tui generate "The lamp" --count 3 --temperature 1.2',
    "cat prompt.txt | lotr-tui generate --json",
    'lotr-tui generate "Where is the Ring?" --as FRODO --to GANDALF --best-of 8',
    "lotr-tui generate --scene --cast FRODO,SAM,GOLLUM --turns 8",
    'lotr-tui generate "Who are you?" --run gguf:smollm2.gguf --reply',
)
def generate(
    *,
    prompt: Annotated[
        str | None, argument("PROMPT", "Text to continue; - or nothing: read it from standard input.")
    ] = None,
    run: options.RunsOption = None,
    runs_dir: options.RunsDirOption = None,
    combination: options.Combination,
    precision: options.PrecisionOption = "auto",
    temperature: Annotated[
        float | None, number("--temperature", float, "From 0 (always the likeliest word) to 2.", SAMPLING)
    ] = None,
    top_k: Annotated[
        int | None, number("--top-k", int, "Sample from the N likeliest words; 0: from all.", SAMPLING)
    ] = None,
    top_p: Annotated[
        float | None,
        number("--top-p", float, "Sample from the likeliest words up to this total probability.", SAMPLING),
    ] = None,
    min_p: Annotated[
        float | None,
        number("--min-p", float, "Sample from words at least this probable, relative to the likeliest.", SAMPLING),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        number("--repetition-penalty", float, "Above 1: words already used become less likely.", SAMPLING),
    ] = None,
    seed: Annotated[
        int | None, number("--seed", int, "Random seed. Default: a new one, which is printed.", SAMPLING)
    ] = None,
    max_tokens: Annotated[
        int | None, number("--max-tokens", int, "Maximum words per text, or tokens.", SAMPLING)
    ] = None,
    count: Annotated[int, number("--count", int, "Number of texts, with consecutive seeds.", None, 1)] = 1,
    reply: Annotated[
        bool,
        flag(
            "--reply",
            "Answer the prompt instead of continuing it; a model by others uses its chat template if it has one.",
        ),
    ] = False,
    system: Annotated[
        str | None, option("--system", "PROMPT", "System prompt for the chat template. Default: its own one.")
    ] = None,
    speaking_as: Annotated[
        str | None, option("--as", "NAME", "Speaker who says the prompt. Default: a stranger.", DIALOGUE)
    ] = None,
    speaker: Annotated[
        str | None, option("--to", "NAME", "Speaker who answers. Default: the likeliest one.", DIALOGUE)
    ] = None,
    best_of: Annotated[int | None, number("--best-of", int, BEST_OF_HELP, DIALOGUE, 1, MAX_ANSWERS)] = None,
    scene: Annotated[
        bool, flag("--scene", "Write a scene, one line a turn, which starts with the prompt if there is one.", DIALOGUE)
    ] = False,
    cast: Annotated[
        str | None, option("--cast", "A,B,...", "Speakers of the scene. Default: everybody.", DIALOGUE)
    ] = None,
    turns: Annotated[
        int | None,
        number("--turns", int, f"Turns of the scene. Default: {DEFAULT_TURNS}.", DIALOGUE, 1, MAX_TURNS),
    ] = None,
    as_json: Annotated[bool, flag("--json", "Print one JSON object per text.")] = False,
    jsonl: options.JsonLinesOption = False,
) -> None:
    """Continue or answer a prompt, or write a scene. The text goes to stdout, everything else to stderr."""
    options.check_output_format(as_json, jsonl)
    chosen = {
        "repetition_penalty": repetition_penalty,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "max_tokens": max_tokens,
    }
    given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    SamplerSettings(**given)  # raises before the model is loaded
    first_seed = random_seed() if seed is None else seed
    check_seed(first_seed)
    check_seed(first_seed + count - 1)
    answer_options = {"--as": speaking_as, "--to": speaker, "--best-of": best_of, "--reply": reply or None}
    of_answer = next((name for name, value in answer_options.items() if value is not None), "")
    if scene and of_answer:
        raise InvalidInputError(f"{of_answer} belongs to an answer, not to a scene; leave out {of_answer} or --scene")
    for name, value in (("--cast", cast), ("--turns", turns)):
        if value is not None and not scene:
            raise InvalidInputError(f"{name} has no effect without --scene; give both")
    if system is not None and not reply:
        raise InvalidInputError("--system belongs to an answer by a chat template; add --reply, or leave out --system")
    is_conversation = scene or of_answer not in ("", "--reply")
    text = None
    if prompt is not None or not is_conversation:  # a speaker opens a conversation or a scene without a prompt
        text = read_text(prompt, "PROMPT", 'lotr-tui generate "Where is Frodo"', MAX_PROMPT_BYTES)
    name, model, mode = _load(run or [], runs_dir, combination, precision)
    if not run and name == LSTM:
        print("note: this is the small LSTM; `lotr-tui fetch smollm2` brings a model that understands", file=sys.stderr)
    chat, is_pretrained = find_chat_template(model), model.tokenizer.name == "pretrained"
    defaults = default_model_settings(is_pretrained=is_pretrained, is_chat=chat is not None)
    request = Request(
        name,
        model,
        replace(defaults.sampler, **given),
        range(first_seed, first_seed + count),
        predicts_eos=mode == "line",
        as_json=as_json,
        jsonl=jsonl,
    )
    if text is not None and not model.tokenizer.is_open:  # what is not UTF-8 is reported like other unknown symbols
        text = text.encode(errors="surrogateescape").decode(errors="replace")
    if scene:
        write_scene(request, text, cast, turns or DEFAULT_TURNS)
    elif is_conversation or (reply and isinstance(model, DialogueModel)):
        answer(request, text, of_answer, speaking_as, speaker, best_of)
    else:
        continue_text(request, text or "", reply=reply, system=system or "")


def _load(
    names: Sequence[str], runs_dir: Path | None, combination: options.Combination, precision: str
) -> tuple[str, LanguageModel, str]:
    """Return the name of the models together, the model to play with, and the mode of its training text."""
    combined = combination.parse()
    pretrained = next(filter(is_pretrained_name, names), None)
    if pretrained is not None and (len(names) > 1 or combined is not None):
        raise InvalidInputError(
            f"{pretrained} is a model by others and cannot be combined; leave out other runs, --mixture, --cache and "
            "--dynamic"
        )
    loaded = [load_model_by_name(name, runs_dir, precision) for name in names or (None,)]
    if combined is None and len(loaded) == 1:
        return loaded[0].name, loaded[0].model, loaded[0].config.data.mode
    from engine.runs.combine import CombinationOptions, ModelCombiner  # most calls do not need them

    model = ModelCombiner(loaded).combine_to_play(combined or CombinationOptions()).model
    return "+".join(each.name for each in loaded), model, loaded[0].config.data.mode


@dataclass(frozen=True)
class Request:
    """Texts to generate, and the form in which they are printed."""

    name: str
    model: LanguageModel
    settings: SamplerSettings
    seeds: Sequence[int]
    predicts_eos: bool = True
    """True if the training text has `<eos>` after every line, so that the model can answer without a cast, and stop."""
    as_json: bool = False
    """True to print one JSON object per text."""
    jsonl: bool = False
    """True to print one JSON object per token, and one at the end of each text."""


@dataclass(frozen=True)
class Facts:
    """What is printed about a text beside its tokens."""

    prompt: EncodedPrompt
    label: Callable[[], str] = str
    """Beginning of the summary; called, like `details`, at the end of the text."""
    details: Callable[[], Mapping[str, object]] = field(default=dict)
    """More fields of the JSON object of a text."""
    is_line: bool = False
    """True if a text is a whole line, without the space before its first word."""


def print_text(request: Request, events: Events, facts: Facts) -> None:
    """Print one text while its events come: as text with a summary on stderr, or as JSON."""
    tokenizer = request.model.tokenizer
    lead = " " if facts.is_line or not tokenizer.is_open else ""
    pieces: list[str] = []
    tokens: list[dict[str, object]] = []
    first_token_seconds: float | None = None
    for event in events:
        if isinstance(event, TokenEvent):
            first_token_seconds = first_token_seconds or time.perf_counter() - STARTED
            if request.jsonl:
                print_json({"event": "token", **token_record(event)})
            elif request.as_json:
                pieces.append(event.piece)
                tokens.append(token_record(event))
            else:
                print_piece(event.piece.removeprefix(" ") if event.index == 0 else event.piece)
        elif request.jsonl:
            print_json({"event": "done", **asdict(event), **facts.details()})
        elif request.as_json:
            print_json(
                {
                    "prompt": facts.prompt.text,
                    "text": "".join(pieces).removeprefix(lead),
                    **facts.details(),
                    "tokens": tokens,
                    "unknown": facts.prompt.unknown_tokens,
                    "seed": event.seed,
                    **asdict(request.settings),
                    "run": request.name,
                    "reason": event.reason,
                    "tokens_per_second": event.tokens_per_second,
                    "first_token_seconds": first_token_seconds,
                }
            )
        else:
            print(flush=True)
            noun = token_noun(tokenizer)
            parts = [facts.label(), f"seed {event.seed}", request.settings.describe()]
            parts += [f"{event.tokens_per_second:,.0f} {noun}s/s", describe_finish_reason(event, noun)]
            print(" · ".join(filter(None, parts)), file=sys.stderr)


def token_record(event: TokenEvent) -> dict[str, object]:
    """Return the figures of a token as the fields of its JSON object."""
    names = ("index", "id", "text", "logprob", "sampling_prob", "rank", "entropy", "num_kept", "top_tokens", "seconds")
    return {name: getattr(event, name) for name in (*names, "piece")}


def generate_texts(
    request: Request, state: DecoderState, ids: Sequence[int], context: Sequence[int] = ()
) -> Iterator[Events]:
    """Yield the events of the text of each seed, which continues `ids` from `state`. Several texts share batches.

    `context` are the ids of the lines before, if the text is a line of a conversation.
    """
    for start in range(0, len(request.seeds), MAX_BATCH_SIZE):
        batch = request.seeds[start : start + MAX_BATCH_SIZE]
        yield from _stream_batch(
            [TextInProgress(request.model, ids, request.settings, seed, state, noise_context=context) for seed in batch]
        )


def _stream_batch(texts: Sequence[TextInProgress]) -> Iterator[Events]:
    """Yield the events of each text; those of later texts wait until they are asked for."""
    steps, pending = generate_batch(texts), [deque[TokenEvent | Done]() for _ in texts]

    def events_of(index: int) -> Events:
        event: TokenEvent | Done | None = None
        while not isinstance(event, Done):
            while not pending[index]:
                for other, following in next(steps):
                    pending[other].append(following)
            event = pending[index].popleft()
            yield event

    yield from map(events_of, range(len(texts)))


def continue_text(request: Request, text: str, *, reply: bool = False, system: str = "") -> None:
    """Print one continuation of a prompt, or with `reply` one answer to it, for each seed.

    A model with a chat template answers by it, and any other model with a line after the prompt.
    """
    model, chat = request.model, find_chat_template(request.model)
    problem = (
        getattr(getattr(model, "chat", None), "problem", "") or f"{_short_name(request.name)} has no chat template"
    )
    if system and chat is None:
        raise InvalidInputError(f"--system needs a chat template: {problem}; leave it out")
    prompt = encode_prompt(text, model.tokenizer)
    report_unknown_text(prompt, model.tokenizer)
    if reply and chat is not None:
        messages = [ChatMessage("system", system.strip()), ChatMessage("user", text.strip())]
        ids = [*chat.encode([message for message in messages if message.text])]
        state = prefill(model, ids, chat_start(model))
    else:
        ids = _context_ids(request, prompt)
        if reply:
            ids += model.tokenizer.encode("\n").tolist() if model.tokenizer.reads_line_ends else [EOS_ID]
            if not (request.as_json or request.jsonl):
                note = REPLY_MODE_NOTE
                if is_pretrained_name(request.name):
                    note = f"{problem}; it continues the text on the next line"
                elif not request.predicts_eos:
                    note = "this model was trained without line ends, so it rarely answers, or stops"
                print(f"note: {note}", file=sys.stderr)
        state = prefill_prompt(model, ids)
    for events in generate_texts(request, state, ids):
        print_text(request, _note_full_context(events, model, len(ids)), Facts(prompt))


def _short_name(name: str) -> str:
    return printable(parse_pretrained_name(name).short_name) if is_pretrained_name(name) else name


def _context_ids(request: Request, prompt: EncodedPrompt) -> list[int]:
    """Return the token ids that the model reads before the text.

    An open vocabulary has line feeds, and a model that was trained with `<eos>` after each line reads them as `<eos>`.
    The line feed at the end of a file does not belong to the prompt. A model with a cast reads the lines of a script,
    of which the last is continued.
    """
    tokenizer = request.model.tokenizer
    if isinstance(request.model, DialogueModel):
        *before, last = parse_script(prompt.text, request.model.cast)
        head, text = encode_speaker(tokenizer, last.speaker), tokenizer.encode(f" {last.text}").tolist()
        return [*encode_turns(tokenizer, before), *head, *text]
    if not tokenizer.is_open:
        return list(prompt.ids)
    text = prompt.text.rstrip("\r\n")
    if not request.predicts_eos:
        return [*tokenizer.encode(text).tolist()]
    return list(chain.from_iterable([EOS_ID, *ids.tolist()] for ids in tokenizer.encode_lines(text.splitlines())))[1:]


def _note_full_context(events: Events, model: LanguageModel, num_read: int) -> Events:
    """Yield the events of a text, and then say on stderr if it was longer than the context of a model by others."""
    num_tokens, context_size = num_read + 1, getattr(model, "context_size", None)  # with the token that starts a text
    for event in events:
        yield event
        num_tokens += isinstance(event, TokenEvent)
    if context_size and num_tokens > context_size:
        size = f"{context_size:,} tokens"
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


def answer(
    request: Request,
    text: str | None,
    option_name: str,
    speaking_as: str | None,
    speaker: str | None,
    best_of: int | None,
) -> None:
    """Print an answer to the prompt for each seed, or the best of several, which have the seeds of a text each.

    Without a prompt, it is the first line of a conversation. Names are as they were typed: None is a stranger for who
    says the prompt, and the likeliest for who answers. `option_name` is the option that needs a model with a cast.
    """
    model = check_has_cast(request.model, request.name, option_name)
    listener, name = (None if typed is None else read_name(typed, model.cast) for typed in (speaking_as, speaker))
    if name is not None and name == listener:
        raise InvalidInputError(f"--as and --to are both {name}; name two speakers")
    turns, prompt = read_prompt(text, model, listener or STRANGER)
    num_answers = best_of or default_num_answers(model)
    if turns:
        listener = listener or turns[-1].speaker
    elif (best_of or 1) > 1:
        raise InvalidInputError(f"--best-of {best_of} compares answers to a PROMPT; give one")
    else:
        num_answers = 1
    state = read_turns(model, turns)
    likeliest = next_speaker_probs(model, state)
    if name is None:
        names = answering_cast(model.cast, listener or "", turns[-1].text if turns else "")
        name = next(each.name for each in likeliest if each.name in names)
    share = next((each.prob for each in likeliest if each.name == name), None)
    history = encode_turns(model.tokenizer, turns)[-MAX_HISTORY_TOKENS:]
    if not (request.as_json or request.jsonl):
        if speaker is None and share is not None:
            print(f"{name} answers, the likeliest speaker ({format_percent(share)})", file=sys.stderr)
        for each in (listener, name):
            if each != STRANGER and (note := describe_unknown_name(each or "", model.cast)):
                print(f"note: {note}", file=sys.stderr)
    candidates: list[Answer] = []

    def best_answer(seed: int) -> Events:
        line = begin_turn(model, state, name, request.settings, seed, history)
        for event in stream_answers(line, num_answers):
            if isinstance(event, TokenEvent):
                yield event
            elif isinstance(event, list):
                candidates[:] = event
                yield event[0].done

    def label() -> str:
        return f"{name} · best of {num_answers}, score {candidates[0].score:+.2f}" if candidates else name

    def details() -> dict[str, object]:
        fields = ("text", "score", "log_prob", "log_prob_alone", "is_repetition")
        return {
            "speaker": name,
            "speaking_as": listener,
            "probability": share,
            "score": candidates[0].score if candidates else None,
            "candidates": [
                {field: getattr(each, field) for field in fields} | {"seed": each.done.seed, "reason": each.done.reason}
                for each in candidates
            ],
        }

    if num_answers == 1:
        head = encode_speaker(model.tokenizer, name)
        texts = generate_texts(request, prefill(model, head, state), (*history, *head), history)
    else:
        texts = (best_answer(request.seeds[0] + index * num_answers) for index in range(len(request.seeds)))
    for events in texts:
        print_text(request, events, Facts(prompt, label, details, is_line=True))
