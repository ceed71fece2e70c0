"""`lotr-tui who`: which speaker would say a text, and which words gave the speaker away."""

import math
import re

import pytest

from engine.analysis.speaker_posterior import SpeakerPosterior
from engine.generation.turns import Turn, next_speaker_probs, read_turns
from tests.support.commands import json_output
from tests.support.dialogue_runs import CAST


@pytest.mark.parametrize(
    ("text", "speaker", "giveaway"),
    [
        ("the nasty one", "GOLLUM", "nasty"),
        ("now supper here", "SAM", "supper"),
        ("it the shadow", "FRODO", "shadow"),
    ],
)
def test_the_speaker_of_a_word_is_found_and_the_word_named(distinct, text, speaker, giveaway):
    done = distinct("who", text, "--run", "distinct")
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].startswith(f"{speaker} ")
    assert f'"{giveaway}" gave {speaker} away: odds × ' in done.stdout
    record = json_output(distinct("who", text, "--run", "distinct", "--json"))
    assert record["speaker"] == speaker
    assert max(record["words"], key=lambda word: word["log_odds_gain"])["word"] == giveaway


def test_json_is_the_posterior_after_the_context(command, run, model):
    (run.parent / "scene.txt").write_text("frodo: the road\nSam: a friend of\n\nmine\n")
    record = json_output(command("who", "The road  is", "--run", run, "--context", "scene.txt", "--json"))
    turns = [Turn("FRODO", "the road"), Turn("SAM", "a friend of mine")]
    assert record["context"] == [{"speaker": turn.speaker, "text": turn.text} for turn in turns]
    context = read_turns(model, turns)
    guess = SpeakerPosterior(model, context).update("The road is", is_complete=True)
    assert [item["speaker"] for item in record["speakers"]] == [item.name for item in guess.ranking()]
    assert [item["probability"] for item in record["speakers"]] == pytest.approx(
        sorted(guess.posterior.tolist(), reverse=True), abs=1e-5
    )
    assert [word["word"] for word in record["words"]] == ["The", "road", "is"]
    assert [word["log_odds_gain"] for word in record["words"]] == pytest.approx(
        [word.gain for word in guess.words], abs=1e-4
    )
    # Prior and evidence explain the probabilities.
    prior = {item.name: item.prob for item in next_speaker_probs(model, context)}
    joint = {name: prior[name] * math.exp(sum(word["evidence"][name] for word in record["words"])) for name in CAST}
    for item in record["speakers"]:
        assert item["prior"] == pytest.approx(prior[item["speaker"]], abs=1e-5)
        assert item["probability"] == pytest.approx(joint[item["speaker"]] / sum(joint.values()), abs=1e-5)
        assert record["words"][-1]["probabilities"][item["speaker"]] == item["probability"]


def test_the_report_fits_80_columns_without_colour(command, run):
    text = "the road " * 30 + "antidisestablishmentarianism" * 3
    done = command("who", text, "--run", run)
    assert done.returncode == 0
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert "\x1b" not in done.stdout
    assert "24 of 61 words: those with the strongest evidence" in done.stdout
    assert "not in the vocabulary, read as rare words: antidis" in done.stderr
    figures = [int(match) for match in re.findall(r" (\d+) % +[\d.]+ %\n", done.stdout)]
    assert figures == sorted(figures, reverse=True)


def test_standard_input_is_read(command, run):
    arguments = ("--run", run, "--json")
    piped = json_output(command("who", *arguments, stdin=b"the road\n"))
    expected = json_output(command("who", "the road", *arguments))
    assert piped["speakers"] == expected["speakers"]
    assert json_output(command("who", "-", *arguments, stdin=b"the road"))["words"] == expected["words"]


def test_control_characters_and_markup_do_not_reach_the_terminal(command, run):
    (run.parent / "scene.txt").write_text("FRODO: [bold]the\x1b[2J road[/bold] \u202e\n")
    done = command("who", "[red]the[/red] \x1b[2Jroad \u202eof", "--run", run, "--context", "scene.txt")
    assert done.returncode == 0
    assert "[red]the[/red]" in done.stdout
    assert "[bold]the" in done.stdout
    for output in (done.stdout, done.stderr):
        assert "\x1b" not in output
        assert "\u202e" not in output
