"""Small dialogue models with random weights, and conversations with them."""

from engine.config import ModelConfig
from engine.data.scripts import Turn, encode_speaker, encode_turn
from engine.generation.generate import generate, prefill
from engine.generation.turns import begin_turn
from engine.models.dialogue import DialogueModel, SpokenLine, TurnModel
from engine.models.numpy_lstm import NumpyLSTM
from lotr_tui.session.cast import Roles
from lotr_tui.session.session_model import SessionModel
from tests.support.conversations import SETTINGS, finish_reply, request
from tests.support.models import random_weights
from tests.support.open_models import bpe_tokenizer
from tests.support.sampling import said_text_of

CAST = ("GANDALF", "FRODO", "GOLLUM", "STRANGER", "SOMEONE")
ANSWERING = ("GANDALF", "FRODO", "GOLLUM")  # speakers that the model chooses from when a stranger has spoken
SCENES = (
    ("GANDALF", "FRODO", "GANDALF", "GOLLUM", "FRODO"),
    ("STRANGER", "GANDALF", "STRANGER", "GANDALF"),
    ("GOLLUM", "FRODO", "GOLLUM", "SOMEONE", "FRODO", "GANDALF"),
)  # speakers of the scenes from which the models learn who speaks after whom


def dialogue_model(cast=CAST, end_bias=-1.0, scale=0.6):
    """Return a dialogue model with random weights; a higher bias of the line ends makes its lines shorter.

    Words are likelier than bytes, so that its lines can be read again as the same tokens.
    """
    tokenizer = bpe_tokenizer()
    config = ModelConfig(embedding_size=12, hidden_size=12)
    weights = random_weights(config, tokenizer, scale=scale)
    weights["output.bias"][[text == " " or text[0] != " " for text in tokenizer.tokens]] -= 20
    weights["output.bias"][tokenizer.line_end_ids] = end_bias
    return with_cast(NumpyLSTM(config, tokenizer, weights), cast)


def with_cast(model, cast=CAST):
    """Return a language model as a dialogue model, which has learned from `SCENES` who speaks next."""
    scenes = [[SpokenLine(cast.index(name), "") for name in scene if name in cast] for scene in SCENES]
    return DialogueModel(model, cast, TurnModel.fit(cast, scenes))


def dialogue_session_model(cast=CAST, end_bias=-1.0):
    return SessionModel("scenes", "a small dialogue model", dialogue_model(cast, end_bias), predicts_eos=False)


def say(conversation, session_model, text, answering="GANDALF", *, speaking_as="", previous=None, seed=1, best_of=1):
    roles = Roles(speaking_as, answering)
    conversation.say(text, request(SETTINGS, seed, session_model, "conversation", previous, roles, best_of))
    return finish_reply(conversation)


def text_of(reply):
    return "".join(token.piece for token in reply.tokens)


def ids_before(reply):
    """Return the ids of the lines before a reply, written out from the tree."""
    tokenizer, previous = reply.session_model.model.tokenizer, reply.turn.previous_reply
    ids = [] if previous is None else [*ids_before(previous), *encode_speaker(tokenizer, previous.speaker)]
    if previous is not None:
        ids += [*(token.id for token in previous.tokens), *tokenizer.encode("\n").tolist()]
    if reply.prompt:
        ids += encode_turn(tokenizer, Turn(reply.speaking_as or "STRANGER", reply.prompt))
    return ids


def generated_text(reply):
    """Return the text that the engine generates as the reply, from the lines before it."""
    model = reply.session_model.model
    ids = ids_before(reply)
    line = begin_turn(model, prefill(model, ids), reply.speaker, reply.settings, reply.seed, ids)
    return said_text_of(generate(line))
