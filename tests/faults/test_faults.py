"""Short forms of the commands in this folder."""

import signal
import subprocess
import sys
import time

import pytest

from engine.runs.directory import RESUME_FILE
from tests.faults.interruptions import TIMEOUT, InterruptedTrainings
from tests.faults.readers import READERS
from tests.support.files import CHECKOUT

NUM_READERS = len(READERS)


def run_command(name, *options):
    command = [sys.executable, "-m", f"tests.faults.{name}", "--seed", "3", *options]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def hostile_files():
    done = run_command(
        "hostile_files", "--made", str(NUM_READERS), "--mutated", str(3 * NUM_READERS), "--directories", "1"
    )
    assert not done.stderr
    return done.stdout


def test_hostile_files_are_refused_in_one_line_by_every_reader(hostile_files):
    assert f"files made by hand: {NUM_READERS} trials, 0 problems" in hostile_files, hostile_files


def test_mutated_files_are_read_or_refused_by_every_parser(hostile_files):
    assert f"valid files: {NUM_READERS} trials, 0 problems" in hostile_files, hostile_files
    assert f"mutated files: {3 * NUM_READERS} trials, 0 problems" in hostile_files, hostile_files


def test_commands_on_damaged_runs_end_in_one_line_and_change_nothing_else(hostile_files):
    assert "damaged directories: 5 trials, 0 problems" in hostile_files, hostile_files


@pytest.mark.slow
def test_mutated_models_by_others_are_played_or_refused_in_one_line():
    pytest.importorskip("transformers")
    done = run_command("hostile_models", "--mutations", "4", "--files", "llama/config.json", "--patterns", "1")
    assert "mutated models: 4 trials, 0 problems" in done.stdout, done.stdout + done.stderr
    assert "slow tokenizers: 3 trials, 0 problems" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_a_server_answers_during_attacks_of_its_clients():
    pytest.importorskip("textual_serve")
    done = run_command("hostile_clients", "--rounds", "1", "--seconds", "2")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    return InterruptedTrainings(tmp_path_factory.mktemp("home"), seed=1538)


def test_resume_is_bit_exact_after_sigkill(trainings):
    process = trainings.start("killed")
    while not (trainings.run_dir("killed") / RESUME_FILE).exists():
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert trainings.start("killed", resume=True).wait(TIMEOUT) == 0, trainings.output("killed")
    trainings.check_no_event_is_lost("killed")
    trainings.check_equals_reference("killed")


@pytest.mark.slow
def test_resume_is_bit_exact_after_kills_at_random_moments(trainings):
    trainings.kill("killed-often")


@pytest.mark.slow
def test_a_run_with_a_damaged_file_is_resumed_bit_exact_or_refused_with_its_model_unchanged(trainings):
    outcomes = dict(outcome.split(": ", 1) for outcome in trainings.damage("damaged", ["changed"]))
    assert outcomes["model.safetensors changed"] == outcomes["samples.jsonl changed"] == "same bits"
    assert outcomes["resume.safetensors changed"].startswith("refused")


@pytest.mark.slow
def test_training_goes_on_bit_exact_without_its_terminal(trainings):
    trainings.close_terminal("closed")
