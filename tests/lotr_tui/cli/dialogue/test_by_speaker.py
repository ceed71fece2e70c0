"""`lotr-tui eval RUN --by-speaker`: what each speaker says, and who speaks next."""

import re

import pytest

from tests.support.commands import json_output
from tests.support.dialogue_runs import WORDS


def test_a_split_is_scored_by_speaker(distinct):
    record = json_output(distinct("eval", "distinct", "--by-speaker", "--json"))
    assert (record["run"], record["split"], record["mode"]) == ("distinct", "valid", "dialogue")
    speakers = {scores["speaker"]: scores for scores in record["speakers"]}
    assert set(speakers) == set(WORDS)
    assert sum(scores["lines"] for scores in speakers.values()) == record["next_speaker"]["turns"] == 40
    assert all(scores["tokens"] == 8 * scores["lines"] for scores in speakers.values())  # seven words and <eos>
    # Nobody says more than nine different words, and speakers alternate in a fixed order.
    assert all(1 < scores["perplexity"] < 14 for scores in speakers.values())
    assert record["next_speaker"]["accuracy"] > 0.9
    assert record["next_speaker"]["bits_per_turn"] < 1


def test_the_table_has_a_row_for_each_speaker(distinct):
    record = json_output(distinct("eval", "distinct", "--by-speaker", "--split", "test", "--json"))
    done = distinct("eval", "distinct", "--by-speaker", "--split", "test")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["speaker", "perplexity", "bits/char", "tokens", "lines"]
    for line, scores in zip(lines[1:], record["speakers"], strict=False):
        figures = (f"{scores['perplexity']:.2f}", f"{scores['bits_per_character']:.3f}")
        assert line.split() == [scores["speaker"], *figures, str(scores["tokens"]), str(scores["lines"])]
    assert re.search(r"\nwho speaks next: \d\.\d\d bits per turn, top-1 accuracy \d+ % of 40 turns\n", done.stdout)


def test_a_script_is_scored(distinct, command, run):
    script = b"SAM: supper now\nGOLLUM: nasty\n\nSAM: supper here\n"
    record = json_output(distinct("eval", "distinct", "--by-speaker", "--text", "-", "--json", stdin=script))
    counts = {scores["speaker"]: (scores["lines"], scores["tokens"]) for scores in record["speakers"]}
    assert counts == {"SAM": (2, 6), "GOLLUM": (1, 2)}
    characters = {scores["speaker"]: scores["characters"] for scores in record["speakers"]}
    assert characters == {"SAM": len("supper now\nsupper here\n"), "GOLLUM": len("nasty\n")}
    assert record["next_speaker"]["turns"] == 3
    cached = distinct("eval", "distinct", "--by-speaker", "--text", "-", "--cache", "--json", stdin=script)
    assert json_output(cached)["next_speaker"] == pytest.approx(record["next_speaker"], abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--normalized"], "--normalized and --by-speaker cannot be combined"),
        (["--baselines"], "--baselines and --by-speaker cannot be combined"),
        (["--jsonl"], "--jsonl and --by-speaker cannot be combined"),
        (["scenes"], "--by-speaker is for one model, but several RUNs are compared"),
    ],
)
def test_other_reports_are_refused(refused, run, arguments, message):
    assert message in refused("eval", run, "--by-speaker", *arguments)


def test_a_run_without_speakers_is_refused(refused, untrained_run):
    line = refused("eval", untrained_run, "--by-speaker", "--text", "-", stdin=b"the road")
    assert "--by-speaker needs a model that knows speakers, and untrained does not" in line
    assert "train one: lotr-tui train --mode dialogue" in line
