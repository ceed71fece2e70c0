"""Models by others of which one file is mutated, in folders that are read here and by transformers.

    python -m tests.faults.hostile_models --mutations 1000

Tokenizers also get patterns that take long or fail for some texts.

A command that plays such a model ends with 0, or with 2 and one printable line. It takes little time and memory, and
libraries print nothing. Commands run in forks, since a process that has imported the libraries is ready at once.
"""

import json
import os
import random
import signal
import sys
import tempfile
import traceback
from pathlib import Path

# Imported here so that no fork has to import them.
import transformers.models.auto.modeling_auto  # noqa: F401
import typer

import lotr_tui.cli.generate
import lotr_tui.cli.main  # noqa: F401
from tests.faults.hostile_files import FINDINGS_DIR, limit_and_redirect, report, run_main
from tests.faults.mutations import Mutator
from tests.support.pretrained import FATAL_WORD, SLOW_WORD, save_model

FAMILIES = ("llama", "gpt2")
COMMANDS_PER_FORK = 200
MAX_CPU_SECONDS, MAX_SECONDS, MAX_FORK_SECONDS = 20, 200, 2000
MAX_MEGABYTES = 100  # maximum memory of a command in a process that has imported the libraries; the weights take 0.2 MB
TEXT = "Where is the Ring?"
COMMANDS = (
    ["generate", TEXT, "--max-tokens", "4", "--seed", "1", "--json", "--run", "MODEL"],
    ["generate", TEXT, "--max-tokens", "4", "--seed", "1", "--json", "--reply", "--run", "MODEL"],
    ["eval", "MODEL", "--text", "TEXT", "--json"],
)

PATTERNS = (r"(\w+\w+)*!$|\s+", r"(?:a|aa|a\w)+!", r"a*b", r"(?:\w*\s?)*!")  # slow for some texts, or for long ones
HOSTILE_TEXTS = (FATAL_WORD, f"{SLOW_WORD} " * 200, "a" * 20_000)


class HostileModels:
    """Trials with mutated files of valid folders. Each yields a line about its problem, or ""."""

    def __init__(self, folder, seed):
        self._folder, self._seed = folder, seed
        self._models = [folder / family for family in FAMILIES]
        (folder / "text").write_text(TEXT)
        self._run_fork(self._save_models)
        self._contents = {path: path.read_bytes() for model in self._models for path in sorted(model.iterdir())}
        self._mutator = Mutator(self._contents.values())

    def play(self, num_mutations, pattern):
        """Mutate each file whose path matches a pattern `num_mutations` times, and play the model."""
        for path, content in self._contents.items():
            done = 0 if path.match(pattern) else num_mutations
            while done < num_mutations:
                last = min(done + COMMANDS_PER_FORK, num_mutations)
                problem = self._run_fork(self._play_some, path, range(done, last))
                num_played = len((self._folder / "played").read_bytes())
                yield from [""] * num_played
                done += num_played
                if problem:
                    FINDINGS_DIR.mkdir(exist_ok=True)
                    finding = FINDINGS_DIR / f"{path.parent.name}-{self._seed}-{done}-{path.name}"
                    finding.write_bytes(path.read_bytes())
                    yield f"{finding}: {problem}"
                    done += 1
            path.write_bytes(content)

    def play_patterns(self, num_patterns):
        """Give a tokenizer each of the first patterns, and let it read each text that may take long."""
        path = self._models[0] / "tokenizer.json"
        for pattern in PATTERNS[:num_patterns]:
            split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
            path.write_text(json.dumps(json.loads(self._contents[path]) | {"pre_tokenizer": split}))
            for text in HOSTILE_TEXTS:
                problem = self._run_fork(self._run_command, path.parent, ["generate", text, *COMMANDS[0][2:]])
                yield f"{pattern} with {text[:30]}…: {problem}" if problem else ""
        path.write_bytes(self._contents[path])

    def _save_models(self):
        for model in self._models:
            save_model(model, model.name)

    def _play_some(self, path, indices):
        with (self._folder / "played").open("wb", buffering=0) as played:
            path.write_bytes(self._contents[path])
            for model in self._models:  # imports what the libraries import later
                for command in COMMANDS:
                    self._run_command(model, command, is_valid=True)
            for index in indices:
                rng = random.Random(f"{self._seed} {path.parent.name} {path.name} {index}")
                path.write_bytes(self._mutator.mutate(self._contents[path], rng))
                self._run_command(path.parent, rng.choice(COMMANDS))
                played.write(b".")

    def _run_command(self, model, command, *, is_valid=False):
        signal.setitimer(signal.ITIMER_PROF, MAX_CPU_SECONDS)
        signal.alarm(MAX_SECONDS)
        Path("/proc/self/clear_refs").write_text("5")  # forgets the largest size so far
        megabytes = _peak_megabytes()
        files = [self._folder / "stdout", self._folder / "stderr"]
        starts = [file.stat().st_size for file in files]
        names = {"MODEL": f"hf:{model}", "TEXT": str(self._folder / "text")}
        code = run_main(self._folder, ["lotr-tui", *(names.get(part, part) for part in command)])
        stdout, stderr = (file.read_bytes()[start:].decode() for file, start in zip(files, starts, strict=True))
        assert code == 0 or (code == 2 and not is_valid), f"{command} ends with {code}: {stderr}"
        assert not code or stderr.count("\n") == 1, f"{command} has an error of several lines: {stderr}"
        assert all(line.isprintable() for line in stderr.split("\n")), f"{command} prints {stderr!r}"
        if code == 0:
            json.loads(stdout)
        megabytes = _peak_megabytes() - megabytes
        assert is_valid or megabytes < MAX_MEGABYTES, f"{command} takes {megabytes:.0f} MB"

    def _run_fork(self, function, *arguments):
        """Run a function in a fork, and return its error or ""."""
        (self._folder / "played").write_bytes(b"")
        child = os.fork()
        if child == 0:
            exit_fork, os._exit = os._exit, sys.exit  # commands end a process that has threads
            try:
                limit_and_redirect(self._folder / "stdout", self._folder / "stderr", MAX_FORK_SECONDS)
                function(*arguments)
                exit_fork(0)
            except BaseException:
                (self._folder / "traceback").write_text(traceback.format_exc())
            finally:
                exit_fork(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code in (-signal.SIGPROF, -signal.SIGALRM):
            return f"takes over {MAX_CPU_SECONDS} s"
        return "" if code == 0 else (self._folder / "traceback").read_text() if code == 1 else f"ends with {code}"


def _peak_megabytes():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1000


def main(mutations: int = 1000, files: str = "*", seed: int = 0, patterns: int = len(PATTERNS)):
    with tempfile.TemporaryDirectory() as folder:
        models = HostileModels(Path(folder), seed)
        num_problems = report("mutated models", models.play(mutations, files))
        num_problems += report("slow tokenizers", models.play_patterns(patterns))
    sys.exit(bool(num_problems))


if __name__ == "__main__":
    typer.run(main)
