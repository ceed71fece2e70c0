"""`generate --scene --cast A,B --turns N`: scenes as a script and as JSON, also where they are interrupted."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from engine.generation.settings import SamplerSettings
from engine.generation.turns import Turn, TurnEnd, TurnStart, encode_turns, generate_scene, read_turns
from lotr_tui.cli.dialogue.options import SceneOptions
from lotr_tui.cli.dialogue.scenes import generate_scenes_on_console
from lotr_tui.session.session_model import SessionModel
from tests.support.commands import json_output
from tests.support.files import KNOWN_WORDS

SCENE = ("generate", "--scene", "--cast", "frodo,King of the Dead", "--turns", "6", "--seed", "4")


def scene_of(model, given=(), seed=4, cast=("FRODO", "KING OF THE DEAD"), num_turns=6):
    """Return the events of a scene that begins with the turns `given`."""
    state, history = read_turns(model, given), encode_turns(model.tokenizer, given)
    return list(generate_scene(model, cast, num_turns, SamplerSettings(), seed, state, history=history))


def script_of(model, **options):
    """Return the lines of a scene as a script."""
    turns = [event.turn for event in scene_of(model, **options) if isinstance(event, TurnEnd)]
    return [f"{turn.speaker}: {turn.text}" for turn in turns]


def test_a_scene_is_a_script_on_stdout(command, run, model):
    done = command(*SCENE, "--run", run)
    assert done.returncode == 0
    assert done.stdout.splitlines() == script_of(model)
    assert re.fullmatch(r"seed 4 · temperature 0\.80 · [\d,]+ words/s · 6 turns\n", done.stderr)


def test_the_prompt_is_the_first_line(command, run, model):
    for prompt, given in (
        ("SAM: the   road", [Turn("SAM", "the road")]),
        ("the road", [Turn("SOMEONE", "the road")]),
        ("gollum: the road\nSam: the river", [Turn("GOLLUM", "the road"), Turn("SAM", "the river")]),
    ):
        lines = command(*SCENE, prompt, "--run", run).stdout.splitlines()
        assert lines[: len(given)] == [f"{turn.speaker}: {turn.text}" for turn in given]
        assert lines[len(given) :] == script_of(model, given=given)


def test_everybody_takes_part_without_a_cast(command, run, model):
    done = command("generate", "--scene", "--seed", "4", "--run", run)
    assert done.stdout.splitlines() == script_of(model, cast=None, num_turns=8)


def test_json_describes_every_turn(command, run, model):
    record = json_output(command(*SCENE, "SAM: the road", "--run", run, "--json"))
    given = [Turn("SAM", "the road")]
    events = scene_of(model, given=given)
    starts = [event for event in events if isinstance(event, TurnStart)]
    ends = [event for event in events if isinstance(event, TurnEnd)]
    assert record["given"] == [{"speaker": "SAM", "text": "the road"}]
    assert (record["seed"], record["run"], record["reason"]) == (4, "scenes", "length")
    assert [(turn["speaker"], turn["text"], turn["reason"]) for turn in record["turns"]] == [
        (end.turn.speaker, end.turn.text, end.done.reason) for end in ends
    ]
    for turn, start in zip(record["turns"], starts, strict=True):
        assert turn["probability"] == pytest.approx(start.prob, abs=1e-6)
        assert turn["seed"] == start.seed
        assert set(turn["speakers"]) == {speaker.name for speaker in start.candidates}
        assert sum(turn["speakers"].values()) == pytest.approx(1)
        assert turn["speakers"][turn["speaker"]] == turn["probability"]
        assert turn["logprob"] < 0
    lines = command(*SCENE, "SAM: the road", "--run", run, "--jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [{"scene": 0, **turn} for turn in record["turns"]]


def test_several_scenes_have_consecutive_seeds(command, run, model):
    arguments = ("generate", "--scene", "--turns", "2", "--seed", "4", "--count", "2", "--run", run)
    expected = [script_of(model, seed=seed, cast=None, num_turns=2) for seed in (4, 5)]
    assert command(*arguments).stdout.splitlines() == [*expected[0], "", *expected[1]]
    records = [json.loads(line) for line in command(*arguments, "--json").stdout.splitlines()]
    assert [record["seed"] for record in records] == [4, 5]


def start_long_scene(run, home, folder, environment, *options):
    """Start a scene that goes on for minutes, in a process of its own."""
    long_scene = ("generate", "--scene", "--turns", "10000", "--max-tokens", "1000", "--run", str(run))
    return subprocess.Popen(
        [sys.executable, "-m", "lotr_tui", *long_scene, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment(home),
    )


@pytest.mark.parametrize("option", ["--temperature=1", "--jsonl"])
def test_ctrl_c_keeps_what_was_written(run, home, tmp_path, environment, option):
    with start_long_scene(run, home, tmp_path, environment, option) as process:
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        # Not `communicate`, which would lose what `readline` has read ahead.
        rest, errors = process.stdout.read(), process.stderr.read()
        process.wait(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    shown = "".join(lines) + rest
    assert shown.endswith("\n")
    if option == "--jsonl":
        turns = [json.loads(line) for line in shown.splitlines()]
        assert [turn["turn"] for turn in turns] == list(range(len(turns)))
        assert "cancelled" not in [turn["reason"] for turn in turns[:-1]]
    else:
        words = set("".join(line.partition(": ")[2] + " " for line in shown.splitlines()).split())
        assert words <= set(KNOWN_WORDS)


def test_an_interrupted_scene_has_its_turns_so_far_in_json(model, monkeypatch, capsys):
    def interrupted_scene(*arguments, **options):
        starts = 0
        for event in generate_scene(*arguments, **options):
            yield event
            starts += isinstance(event, TurnStart)
            if starts == 2:  # ctrl+c at the start of the second turn
                os.kill(os.getpid(), signal.SIGINT)
                starts = 3

    monkeypatch.setattr("lotr_tui.cli.dialogue.scenes.generate_scene", interrupted_scene)
    session_model = SessionModel("scenes", "", model)
    with pytest.raises(KeyboardInterrupt):
        generate_scenes_on_console(
            session_model, None, SceneOptions(num_turns=6), SamplerSettings(), [4, 5], as_json=True, jsonl=False
        )
    (record,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    complete = [event.turn.text for event in scene_of(model, cast=None) if isinstance(event, TurnEnd)]
    assert [turn["reason"] == "cancelled" for turn in record["turns"]] == [False, True]
    assert record["reason"] == "cancelled"
    assert record["turns"][0]["text"] == complete[0]
    assert complete[1].startswith(record["turns"][1]["text"])
    assert record["turns"][1]["tokens"] == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_closed_stdout_ends_a_scene_quietly(run, home, tmp_path, environment):
    with start_long_scene(run, home, tmp_path, environment) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(timeout=60) == 0
    assert errors == ""
