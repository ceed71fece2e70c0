"""Generation of a reply: the context that the model reads, and the thread that produces the tokens."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from engine.data.scripts import Turn, encode_speaker, encode_turn
from engine.data.speakers import SOMEONE, STRANGER
from engine.data.tokenizers.base import EOS_ID, Tokenizer
from engine.generation.best_of import Answer, AnswerChosen
from engine.generation.complete_words import end_word
from engine.generation.generate import Done, TokenEvent, force_token, generate
from engine.generation.prompt import DecoderState, prefill, prefill_prompt
from engine.generation.sampling import TextInProgress
from engine.generation.turns import MAX_HISTORY_TOKENS, SpeakerProb
from engine.models.base import LanguageModel
from engine.runtime.worker import Cancellation, GeneratorThread, throttle
from lotr_tui.session.conversation.cast import NO_ROLES, Roles
from lotr_tui.session.conversation.chat import chat_ids
from lotr_tui.session.conversation.encoding import encode_lines, encode_said
from lotr_tui.session.conversation.reply_tree import Reply, spoken_lines
from lotr_tui.session.model_abilities import answers_by_template, chat_start, find_cast, has_log_probs
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import ReplyMode

JOINERS = "\u200c\u200d"
"""Zero-width joiners, which are not printable but part of Persian words and of some emoji."""


class RankedAnswers(NamedTuple):
    """Answers that were drawn for a turn, the best first, whose tokens came before."""

    answers: Sequence[Answer]


GenerationEvent = SpeakerProb | AnswerChosen | RankedAnswers | DecoderState | TokenEvent | Done
"""Event of a reply: the speaker that the model chooses, the state before the first token, the choice among several
answers, each token, all answers that were drawn, and the end."""


class ReplyContext(NamedTuple):
    """Text before the first token of a reply."""

    state: DecoderState | None
    """Cached decoder state of the beginning of the text; None if nothing of the text is cached."""
    unread_ids: list[int]
    """Token ids that the model still has to read, after `state`."""
    ids: list[int]
    """Token ids of the whole text."""


def to_prompt_line(text: str, tokenizer: Tokenizer | None = None, reply_mode: ReplyMode = "continue") -> str:
    """Return a typed text as one line of printable characters, in which a tokenizer finds the same tokens.

    If a model with an open vocabulary continues the text, a space at its end stays: it says that the last word is
    complete.
    """
    line = "".join(character if character.isprintable() or character in JOINERS else " " for character in text)
    is_word_complete = tokenizer is not None and tokenizer.is_open and reply_mode == "continue" and line[-1:] == " "
    return " ".join(line.split()) + (" " if is_word_complete and not line.isspace() else "")


def context_ids(
    model: LanguageModel, prompt: str, reply_mode: ReplyMode, previous_reply: Reply | None, roles: Roles = NO_ROLES
) -> list[int]:
    """Return the token ids that a model reads before a reply to `prompt`: the text of `previous_reply` and the prompt.

    `previous_reply` may be of a model with another vocabulary; its text is then tokenized again. In a closed
    vocabulary, a reply that was stopped before its first word adds no second `<eos>`. A model with a cast reads a
    script, which ends with the name of the speaker of `roles`, unless the model is to choose one in a conversation.
    """
    tokenizer = model.tokenizer
    if find_cast(model):
        return _script_ids(model, prompt, reply_mode, previous_reply, roles)
    line = f"{prompt}\n" if prompt and reply_mode != "continue" else prompt
    if previous_reply is None:
        return encode_lines(tokenizer, line)
    if previous_reply.session_model.model.tokenizer != tokenizer:
        return encode_said(model, spoken_lines(previous_reply)) + encode_lines(tokenizer, line)
    previous_ids = previous_reply.token_ids()
    if tokenizer.reads_line_ends:
        return [*previous_ids, *tokenizer.encode(f"\n{line}").tolist()]
    if previous_ids and (tokenizer.is_open or previous_ids[-1] != EOS_ID):
        previous_ids.append(EOS_ID)
    return previous_ids + encode_lines(tokenizer, line)


def _script_ids(
    model: LanguageModel, prompt: str, reply_mode: ReplyMode, previous_reply: Reply | None, roles: Roles
) -> list[int]:
    """Return the `context_ids` of a model with a cast. A turn without an answer counts as the prompt alone."""
    tokenizer = model.tokenizer
    if reply_mode == "continue":
        return [*encode_speaker(tokenizer, roles.speaker or SOMEONE), *tokenizer.encode(f" {prompt}").tolist()]
    if previous_reply is None:
        ids = []
    elif previous_reply.session_model.model.tokenizer != tokenizer:
        ids = encode_said(model, [line for line in spoken_lines(previous_reply) if line.text])
    elif previous_reply.tokens or previous_reply.reply_mode == "continue":
        ids = [*previous_reply.token_ids(), *tokenizer.encode("\n").tolist()]
    else:
        ids = [*previous_reply.context_ids_before_speaker]
    if prompt:
        ids += encode_turn(tokenizer, Turn(roles.speaking_as or STRANGER, prompt))
    return [*ids, *encode_speaker(tokenizer, roles.speaker)] if roles.speaker else ids


def prepare_context(
    session_model: SessionModel,
    prompt: str,
    reply_mode: ReplyMode,
    previous_reply: Reply | None,
    roles: Roles = NO_ROLES,
) -> ReplyContext:
    """Return the context of a reply to `prompt`; unless the prompt is continued, `previous_reply` comes first.

    Raises:
        InvalidInputError: If the chat template of the model does not accept the messages.
    """
    if reply_mode == "continue":
        previous_reply = None
    model = session_model.model
    if is_chat := answers_by_template(model, reply_mode):
        ids = chat_ids(model, prompt, previous_reply, roles.system_prompt)
    else:
        ids = context_ids(model, prompt, reply_mode, previous_reply, roles)
    state, num_read = nearest_state(previous_reply, model, ids, is_chat=is_chat)
    return ReplyContext(state, ids[num_read:], ids)


def nearest_state(
    reply: Reply | None, model: LanguageModel, ids: Sequence[int], *, is_chat: bool = False
) -> tuple[DecoderState | None, int]:
    """Return the latest cached state of `model` in the text of `reply` that has read a beginning of `ids`.

    A text by a chat template (`is_chat`) agrees only with another one. The state after all of `ids` has its
    log-probabilities.

    Returns:
        The state and the number of ids that it has read. If there is none, the number is 0, and the state None or
        that before a chat.
    """
    while reply is not None and reply.session_model.model is model and not reply.read_only_reason:
        read_ids = [*reply.context_ids, *(token.id for token in reply.tokens)]
        num_shared = count_shared(read_ids, ids) if reply.is_chat == is_chat else -1
        for index in reversed(range(min(len(reply.decoder_states), len(reply.tokens) + 1))):
            num_read = len(reply.context_ids) + index
            state = reply.decoder_states[index]
            if state is not None and num_read <= num_shared and (num_read < len(ids) or has_log_probs(state)):
                return state, num_read
        reply = reply.turn.previous_reply
    return (chat_start(model) if is_chat else None), 0


def count_shared(ids: Sequence[int], other_ids: Sequence[int]) -> int:
    """Return the number of ids that two texts begin with in common."""
    pairs = zip(ids, other_ids, strict=False)
    return next((index for index, (id, other) in enumerate(pairs) if id != other), min(len(ids), len(other_ids)))


def start_generation(
    reply: Reply,
    state: DecoderState | None,
    unread_ids: Sequence[int],
    forced_ids: Sequence[int],
    pace: float,
    *,
    ends_word: bool = False,
) -> GeneratorThread[GenerationEvent]:
    """Generate the tokens of a reply in a thread, `pace` tokens per second (0: as fast as the model).

    The reply has only its shared tokens. The model reads `unread_ids` after the cached `state` (None: from the
    beginning of the text). The first tokens are `forced_ids`, and with `ends_word` the next token starts another word.
    """
    model, settings, seed = reply.session_model.model, reply.settings, reply.seed
    is_dialogue = reply.reply_mode == "conversation"
    history = reply.token_ids()[-MAX_HISTORY_TOKENS if is_dialogue else 0 :]
    lines_before = reply.context_ids_before_speaker[-MAX_HISTORY_TOKENS:] if reply.speaker and is_dialogue else ()
    starts_line = reply.starts_line(len(reply.tokens))
    noise_context = lines_before if starts_line and not forced_ids else ()
    read_context = prefill if reply.tokens or is_dialogue else prefill_prompt

    def source(cancellation: Cancellation) -> Iterator[GenerationEvent]:
        current = read_context(model, unread_ids, state)
        yield current
        text = TextInProgress(
            model, history, settings, seed, current, is_first_token=starts_line, noise_context=noise_context
        )
        for id in forced_ids:
            yield force_token(text, id)
        if ends_word:
            end_word(text)
        yield from throttle(generate(text, cancellation), pace, cancellation)

    return GeneratorThread("generation", source).start()
