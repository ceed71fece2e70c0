"""`lotr-tui generate`: texts that continue or answer a prompt, and scenes."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Annotated, Any

from engine.config import LSTM
from engine.data.scripts import encode_speaker, encode_turns
from engine.data.speakers import STRANGER
from engine.data.tokenizers.base import EOS_ID
from engine.errors import InvalidInputError, printable
from engine.generation import prompt as prompts
from engine.generation.best_of import MAX_ANSWERS, Answer, stream_answers
from engine.generation.generate import Done, TokenEvent, generate_batch
from engine.generation.generate import generate as generate_one
from engine.generation.prompt import EncodedPrompt, prefill
from engine.generation.sampling import TextInProgress
from engine.generation.settings import SamplerSettings, check_seed, random_seed
from engine.generation.turns import MAX_HISTORY_TOKENS, begin_turn, next_speaker_probs, read_turns
from engine.models.dialogue import DialogueModel
from engine.models.pretrained.chat import ChatMessage
from engine.models.pretrained.names import is_pretrained_name, parse_pretrained_name
from engine.runs.loading import load_model_by_name
from lotr_tui import STARTED
from lotr_tui.cli import options
from lotr_tui.cli.console import print_json, print_piece, read_text, report_unknown_text
from lotr_tui.cli.parser import add_command, argument, flag, make_group, number, option
from lotr_tui.cli.scripts import Request, check_has_cast, parse_script, read_prompt, write_scene
from lotr_tui.formatting import describe_finish_reason, format_percent, token_noun
from lotr_tui.session.cast import answering_cast, describe_unknown_name, read_name
from lotr_tui.session.session_model import chat_start, default_num_answers, find_chat_template
from lotr_tui.session.settings import REPLY_MODE_NOTE, default_model_settings

SAMPLING, DIALOGUE = "Sampling, by default as in a new session with the model", "Dialogue"
MAX_PROMPT_BYTES = 100_000  # of standard input; a large model reads it in a minute or two
MAX_TURNS = 10_000
MAX_BATCH_SIZE = 16  # texts generated together; larger batches are hardly faster
FIGURES = ("index", "id", "text", "logprob", "sampling_prob", "rank", "entropy", "num_kept", "top_tokens", "seconds")
PENALTY_HELP = "Above 1: words already used become less likely."
CHAT_HELP = "Answer the prompt; a model by others uses its chat template if it has one."
BEST_OF_HELP = "Draw N answers, print the one that the prompt makes most likely. Default: 8, with a large model 4."
Events = Iterator[TokenEvent | Done]
commands = make_group()


@dataclass(frozen=True)
class SamplingOptions:
    """Sampler settings that have options. None is the setting of a new session."""

    temperature: Annotated[float | None, number("--temperature", float, "0 (the likeliest) to 2.", SAMPLING)] = None
    top_k: Annotated[int | None, number("--top-k", int, "Sample from the N likeliest words; 0: all.", SAMPLING)] = None
    top_p: Annotated[float | None, number("--top-p", float, "Words of this total probability.", SAMPLING)] = None
    min_p: Annotated[float | None, number("--min-p", float, "Words of this relative probability.", SAMPLING)] = None
    repetition_penalty: Annotated[float | None, number("--repetition-penalty", float, PENALTY_HELP, SAMPLING)] = None
    max_tokens: Annotated[int | None, number("--max-tokens", int, "Words, or tokens, per text.", SAMPLING)] = None


@add_command(commands, "generate", 'lotr-tui generate "Where is the Ring?" --as FRODO --to GANDALF')
def generate(
    *,
    prompt: Annotated[str | None, argument("PROMPT", "Text to continue; - or nothing: standard input.")] = None,
    run: options.RunsOption = None,
    runs_dir: options.RunsDirOption = None,
    combination: options.Combination,
    precision: options.PrecisionOption = "auto",
    sampling: SamplingOptions,
    seed: Annotated[int | None, number("--seed", int, "Default: a new one, which is printed.", SAMPLING)] = None,
    count: Annotated[int, number("--count", int, "Number of texts, with consecutive seeds.", None, 1)] = 1,
    reply: Annotated[bool, flag("--reply", CHAT_HELP)] = False,
    system: Annotated[str | None, option("--system", "PROMPT", "System prompt of the chat template.")] = None,
    as_: Annotated[str | None, option("--as", "NAME", "Who says the prompt. Default: a stranger.", DIALOGUE)] = None,
    to: Annotated[str | None, option("--to", "NAME", "Who answers. Default: the likeliest speaker.", DIALOGUE)] = None,
    best_of: Annotated[int | None, number("--best-of", int, BEST_OF_HELP, DIALOGUE, 1, MAX_ANSWERS)] = None,
    scene: Annotated[bool, flag("--scene", "Write a scene, which may start with the prompt.", DIALOGUE)] = False,
    cast: Annotated[str | None, option("--cast", "A,B,...", "Of the scene. Default: everybody.", DIALOGUE)] = None,
    turns: Annotated[int | None, number("--turns", int, "Of the scene. Default: 8.", DIALOGUE, 1, MAX_TURNS)] = None,
    as_json: Annotated[bool, flag("--json", "Print one JSON object per text.")] = False,
    jsonl: options.JsonLinesOption = False,
) -> None:
    """Continue or answer a prompt, or write a scene. The text goes to stdout, everything else to stderr."""
    options.check_output_format(as_json, jsonl)
    given: dict[str, Any] = {name: value for name, value in vars(sampling).items() if value is not None}
    SamplerSettings(**given)  # raises before the model is loaded
    first_seed = random_seed() if seed is None else seed
    check_seed(first_seed)
    check_seed(first_seed + count - 1)
    of_answer = {"--as": as_, "--to": to, "--best-of": best_of, "--reply": reply or None}
    use = next((name for name, value in of_answer.items() if value is not None), "")
    if scene and use:
        raise InvalidInputError(f"{use} belongs to an answer, not to a scene; leave out {use} or --scene")
    for name, value in (("--cast", cast), ("--turns", turns)):
        if value is not None and not scene:
            raise InvalidInputError(f"{name} has no effect without --scene; give both")
    if system is not None and not reply:
        raise InvalidInputError("--system belongs to an answer by a chat template; add --reply, or leave out --system")
    is_conversation = scene or use not in ("", "--reply")
    text = None
    if prompt is not None or not is_conversation:  # a speaker opens a conversation or a scene without a prompt
        text = read_text(prompt, "PROMPT", 'lotr-tui generate "Where is Frodo"', MAX_PROMPT_BYTES)

    combined = combination.parse()
    if (combined or len(run or []) > 1) and (pretrained := next(filter(is_pretrained_name, run or []), None)):
        remedy = "leave out other runs, --mixture and --cache"
        raise InvalidInputError(f"{pretrained} is a model by others and cannot be combined; {remedy}")
    loaded = [load_model_by_name(name, runs_dir, precision) for name in run or (None,)]
    if not run and loaded[0].name == LSTM:
        print("note: this is the small LSTM; `lotr-tui fetch smollm2` brings a model that understands", file=sys.stderr)
    model = loaded[0].model
    if combined or len(loaded) > 1:
        from engine.runs.combine import CombinationOptions, ModelCombiner  # most calls do not need them

        model = ModelCombiner(loaded).combine_to_play(combined or CombinationOptions()).model
    is_pretrained, is_chat = model.tokenizer.name == "pretrained", find_chat_template(model) is not None
    defaults = default_model_settings(is_pretrained=is_pretrained, is_chat=is_chat).sampler
    request = Request(
        "+".join(each.name for each in loaded),
        model,
        replace(defaults, **given),
        range(first_seed, first_seed + count),
        predicts_eos=loaded[0].config.data.mode == "line",
        as_json=as_json,
        jsonl=jsonl,
    )
    if text is not None and not model.tokenizer.is_open:  # what is not UTF-8 is reported like other unknown symbols
        text = text.encode(errors="surrogateescape").decode(errors="replace")
    if scene:
        write_scene(request, text, cast, turns or 8)
    elif is_conversation or (reply and isinstance(model, DialogueModel)):
        answer(request, text, use, as_, to, best_of)
    else:
        continue_text(request, text or "", reply=reply, system=system or "")


def print_text(
    request: Request,
    events: Events,
    prompt: EncodedPrompt,
    label: Callable[[], str] = str,
    details: Callable[[], Mapping[str, object]] = dict,
    *,
    is_line: bool = False,
) -> int:
    """Print one text while its events come, as text with a summary on stderr or as JSON; return its number of tokens.

    At the end of the text, `label` is called for the beginning of the summary, and `details` for more fields of the
    JSON object. With `is_line`, a text is a whole line, without the space before its first word.
    """
    tokenizer = request.model.tokenizer
    tokens: list[dict[str, Any]] = []
    first_token_seconds: float | None = None
    for event in events:
        if isinstance(event, TokenEvent):
            first_token_seconds = first_token_seconds or time.perf_counter() - STARTED
            if not (request.as_json or request.jsonl):
                print_piece(event.piece.removeprefix(" ") if event.index == 0 else event.piece)
                continue
            tokens.append({name: getattr(event, name) for name in (*FIGURES, "piece")})
            if request.jsonl:
                print_json({"event": "token", **tokens.pop()})
        elif request.jsonl:
            print_json({"event": "done", **asdict(event), **details()})
        elif request.as_json:
            text = "".join(token["piece"] for token in tokens)
            print_json(
                {
                    "prompt": prompt.text,
                    "text": text.removeprefix(" " if is_line or not tokenizer.is_open else ""),
                    **details(),
                    "tokens": tokens,
                    "unknown": prompt.unknown_tokens,
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
            parts = [label(), f"seed {event.seed}", request.settings.describe()]
            parts += [f"{event.tokens_per_second:,.0f} {noun}s/s", describe_finish_reason(event, noun)]
            print(" · ".join(filter(None, parts)), file=sys.stderr)
        num_tokens = event.tokens if isinstance(event, Done) else 0
    return num_tokens


def generate_texts(
    request: Request, state: prompts.DecoderState, ids: Sequence[int], context: Sequence[int] = ()
) -> Iterator[Events]:
    """Yield the events of the text of each seed, which continues `ids` from `state`. Several texts share batches.

    `context` are the ids of the lines before, if the text is a line of a conversation.
    """
    for start in range(0, len(request.seeds), MAX_BATCH_SIZE):
        seeds = request.seeds[start : start + MAX_BATCH_SIZE]
        texts = [
            TextInProgress(request.model, ids, request.settings, seed, state, noise_context=context) for seed in seeds
        ]
        if len(texts) == 1:  # its tokens are printed as they come
            yield generate_one(texts[0])
            continue
        events: list[list[TokenEvent | Done]] = [[] for _ in texts]
        for index, event in chain.from_iterable(generate_batch(texts)):
            events[index].append(event)
        yield from map(iter, events)


def continue_text(request: Request, text: str, *, reply: bool = False, system: str = "") -> None:
    """Print one continuation of a prompt, or with `reply` one answer to it, for each seed.

    A model with a chat template answers by it, and any other model with a line after the prompt.
    """
    model, tokenizer, chat = request.model, request.model.tokenizer, find_chat_template(request.model)
    name, is_by_others = request.name, is_pretrained_name(request.name)
    short_name = printable(parse_pretrained_name(name).short_name) if is_by_others else name
    problem = getattr(getattr(model, "chat", None), "problem", "") or f"{short_name} has no chat template"
    if system and chat is None:
        raise InvalidInputError(f"--system needs a chat template: {problem}; leave it out")
    prompt = prompts.encode_prompt(text, tokenizer)
    report_unknown_text(prompt, tokenizer)
    if reply and chat is not None:
        messages = [ChatMessage("system", system.strip()), ChatMessage("user", text.strip())]
        ids = [*chat.encode([message for message in messages if message.text])]
        state = prefill(model, ids, chat_start(model))
    else:
        ids = _context_ids(request, prompt)
        if reply:
            ids += tokenizer.encode("\n").tolist() if tokenizer.reads_line_ends else [EOS_ID]
            note = REPLY_MODE_NOTE
            if is_by_others:
                note = f"{problem}; it continues the text on the next line"
            elif not request.predicts_eos:
                note = "this model was trained without line ends, so it rarely answers, or stops"
            if not (request.as_json or request.jsonl):
                print(f"note: {note}", file=sys.stderr)
        state = prompts.prefill_prompt(model, ids)
    context_size = getattr(model, "context_size", math.inf)
    for events in generate_texts(request, state, ids):
        num_tokens = len(ids) + 1 + print_text(request, events, prompt)  # with the token that starts a text
        if num_tokens > context_size:
            note = f"the context of {context_size:,} tokens was full, so the model forgot the beginning of the text"
            print(f"note: {note}", file=sys.stderr)


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


def answer(
    request: Request, text: str | None, use: str, speaking_as: str | None, to: str | None, best_of: int | None
) -> None:
    """Print an answer to the prompt for each seed, or the best of several, which have consecutive seeds.

    Without a prompt, it is the first line of a conversation. Names are as they were typed: None is a stranger for who
    says the prompt, and the likeliest for who answers. `use` is the option that needs a model with a cast.
    """
    model = check_has_cast(request.model, request.name, use)
    listener, name = (None if typed is None else read_name(typed, model.cast) for typed in (speaking_as, to))
    if name is not None and name == listener:
        raise InvalidInputError(f"--as and --to are both {name}; name two speakers")
    turns, prompt = read_prompt(text, model, listener or STRANGER)
    if not turns and (best_of or 1) > 1:
        raise InvalidInputError(f"--best-of {best_of} compares answers to a PROMPT; give one")
    num_answers = best_of or default_num_answers(model) if turns else 1
    listener = listener or (turns[-1].speaker if turns else None)
    state = read_turns(model, turns)
    likeliest = next_speaker_probs(model, state)
    if name is None:
        names = answering_cast(model.cast, listener or "", turns[-1].text if turns else "")
        name = next(each.name for each in likeliest if each.name in names)
    share = next((each.prob for each in likeliest if each.name == name), None)
    history = encode_turns(model.tokenizer, turns)[-MAX_HISTORY_TOKENS:]
    if not (request.as_json or request.jsonl):
        if to is None and share is not None:
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
        rows = [
            {**{field: getattr(each, field) for field in fields}, "seed": each.done.seed, "reason": each.done.reason}
            for each in candidates
        ]
        facts = {"speaker": name, "speaking_as": listener, "probability": share}
        return {**facts, "score": candidates[0].score if candidates else None, "candidates": rows}

    if num_answers == 1:
        head = encode_speaker(model.tokenizer, name)
        texts = generate_texts(request, prefill(model, head, state), (*history, *head), history)
    else:
        texts = (best_answer(request.seeds[0] + index * num_answers) for index in range(len(request.seeds)))
    for events in texts:
        print_text(request, events, prompt, label, details, is_line=True)
