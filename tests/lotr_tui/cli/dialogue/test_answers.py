"""`generate --as NAME --to NAME --best-of N`: answers to a line."""

import json
import math

import pytest

from engine.generation.best_of import NUM_SCORED_TOKENS
from engine.generation.generate import Done
from engine.generation.prompt import prefill
from engine.generation.settings import SamplerSettings
from engine.generation.turns import (
    Turn,
    begin_turn,
    encode_turn,
    encode_turns,
    generate_turn,
    next_speaker_probs,
    read_turns,
)
from tests.support.commands import json_output
from tests.support.files import KNOWN_WORDS


def answer(model, turns, speaker, seed):
    """Return the answer that a model gives to turns."""
    history = encode_turns(model.tokenizer, turns)
    events = generate_turn(model, read_turns(model, turns), speaker, SamplerSettings(), seed, history=history)
    return "".join(event[0].piece for event in events if not isinstance(event, Done)).strip()


def test_only_the_answer_is_on_stdout(command, run):
    done = command("generate", "the road", "--as", "Frodo", "--to", "sam", "--run", run, "--seed", "3")
    assert done.returncode == 0
    assert set(done.stdout.split()) <= set(KNOWN_WORDS)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.startswith("FRODO · seed 3 · temperature 0.80")


@pytest.mark.parametrize(
    ("prompt", "arguments", "turns"),
    [
        ("the road", ["--to", "SAM"], [Turn("SAM", "the road")]),
        ("the road", [], [Turn("SOMEONE", "the road")]),
        ("the   road\nand a friend\n", [], [Turn("SOMEONE", "the road and a friend")]),
        ("gollum: the road\n\nSam: a friend", [], [Turn("GOLLUM", "the road"), Turn("SAM", "a friend")]),
        ("GOLLUM: the road", ["--to", "SAM"], [Turn("GOLLUM", "the road")]),
        ("BARLIMAN: the road", ["--to", "SAM"], [Turn("SOMEONE", "the road")]),
        ("the king: the road", ["--to", "SAM"], [Turn("SAM", "the king: the road")]),
        ("king of the dead (V.O.): the road", [], [Turn("KING OF THE DEAD", "the road")]),
    ],
)
def test_the_speaker_answers_the_lines_of_the_prompt(command, run, model, prompt, arguments, turns):
    options = ("--as", "FRODO", *arguments, "--run", run, "--seed", "5")
    record = json_output(command("generate", prompt, *options, "--json"))
    assert record["text"] == answer(model, turns, "FRODO", 5)
    assert record["prompt"] == prompt
    assert record["speaker"] == "FRODO"
    assert (record["score"], record["candidates"]) == (None, [])
    piped = json_output(command("generate", "-", *options, "--json", stdin=prompt.encode()))
    assert piped["text"] == record["text"]


def test_without_a_prompt_the_speaker_opens_and_standard_input_is_not_read(command, run, model):
    arguments = ("generate", "--as", "GOLLUM", "--run", run, "--seed", "5", "--json")
    record = json_output(command(*arguments, stdin=b"the road"))
    assert record["text"] == answer(model, [], "GOLLUM", 5)
    assert (record["prompt"], record["to"]) == ("", None)


def test_the_likeliest_speaker_answers_where_nobody_is_named(command, run, model):
    probs = {item.name: item.prob for item in next_speaker_probs(model, read_turns(model, [Turn("SAM", "the road")]))}
    expected = max(("FRODO", "GOLLUM", "KING OF THE DEAD"), key=lambda name: probs[name])
    for option in (["--to", "SAM"], ["--to", "SAM", "--reply"], ["--to", "SAM", "--best-of", "2"]):
        record = json_output(command("generate", "the road", *option, "--run", run, "--json"))
        assert record["speaker"] == expected
        assert record["probability"] == pytest.approx(probs[expected])
    done = command("generate", "SAM: the road", "--reply", "--run", run)
    assert done.stderr.startswith(f"{expected} answers, the likeliest speaker (")


def test_the_best_of_several_answers_is_the_one_that_the_prompt_makes_most_likely(command, run, model):
    arguments = ("generate", "the road", "--as", "FRODO", "--to", "SAM", "--run", run, "--seed", "7")
    record = json_output(command(*arguments, "--best-of", "5", "--json"))
    candidates = record["candidates"]
    assert sorted(candidate["seed"] for candidate in candidates) == [7, 8, 9, 10, 11]
    turns = [Turn("SAM", "the road")]
    for candidate in candidates:
        assert candidate["text"] == answer(model, turns, "FRODO", candidate["seed"])
        # Word by word, instead of the engine's batches.
        ids = (*model.tokenizer.encode(candidate["text"]).tolist(), *([1] if candidate["reason"] == "eos" else []))
        ids = ids[:NUM_SCORED_TOKENS]
        log_probs = []
        for context in (read_turns(model, turns), prefill(model, [])):
            state, total = begin_turn(model, context, "FRODO"), 0.0
            for id in ids:
                total += float(state.log_probs[id])
                state = prefill(model, [id], state)
            log_probs.append(total)
        assert candidate["log_prob"] == pytest.approx(log_probs[0], abs=1e-3)
        assert candidate["log_prob_alone"] == pytest.approx(log_probs[1], abs=1e-3)
        assert candidate["score"] == pytest.approx(log_probs[0] - log_probs[1] + 0.3 * len(ids), abs=1e-3)
        assert not candidate["is_repetition"]
    scores = [candidate["score"] for candidate in candidates]
    assert scores == sorted(scores, reverse=True)
    best = candidates[0]
    assert (record["text"], record["score"], record["seed"]) == (best["text"], best["score"], best["seed"])


def test_several_best_answers_have_seeds_of_their_own(command, run):
    arguments = ("generate", "the road", "--as", "FRODO", "--run", run, "--seed", "7", "--best-of", "3", "--json")
    done = command(*arguments, "--count", "2")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    seeds = [sorted(candidate["seed"] for candidate in record["candidates"]) for record in records]
    assert seeds == [[7, 8, 9], [10, 11, 12]]


def test_a_first_line_to_somebody_is_the_one_that_makes_the_answer_of_this_listener_likely(command, run, model):
    arguments = ("generate", "--as", "FRODO", "--to", "GOLLUM", "--run", run, "--seed", "7", "--best-of", "4")
    record = json_output(command(*arguments, "--json"))
    scores = [candidate["score"] for candidate in record["candidates"]]
    assert scores == sorted(scores, reverse=True)
    for candidate in record["candidates"]:
        state = prefill(model, encode_turn(model.tokenizer, Turn("FRODO", candidate["text"])))
        (prob,) = [item.prob for item in next_speaker_probs(model, state) if item.name == "GOLLUM"]
        assert candidate["score"] == pytest.approx(math.log(prob), abs=1e-4)
    without_number = json_output(command(*arguments[:-2], "--json"))
    assert len(without_number["candidates"]) > 1


def test_jsonl_ends_with_the_speaker(command, run):
    arguments = ("generate", "the road", "--as", "FRODO", "--run", run, "--seed", "7", "--best-of", "2")
    rows = [json.loads(line) for line in command(*arguments, "--jsonl").stdout.splitlines()]
    assert [row["event"] for row in rows] == ["token"] * (len(rows) - 1) + ["done"]
    text = "".join(row["piece"] for row in rows[:-1]).strip()
    assert text == json_output(command(*arguments, "--json"))["text"]
    assert rows[-1]["speaker"] == "FRODO"
    assert len(rows[-1]["candidates"]) == 2


def test_a_prompt_alone_is_continued_under_its_name(command, run, model):
    def continuation(speaker):
        state = read_turns(model, [])
        ids = encode_turn(model.tokenizer, Turn(speaker, "the road"))[:-1]
        return prefill(model, ids, state).log_probs

    for prompt, speaker in (("the road", "SOMEONE"), ("SAM: the road", "SAM")):
        record = json_output(command("generate", prompt, "--run", run, "--seed", "7", "--json"))
        assert "speaker" not in record
        first = record["tokens"][0]
        assert first["logprob"] == pytest.approx(float(continuation(speaker)[first["id"]]), abs=1e-4)
