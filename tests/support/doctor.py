"""Simulated machines for the checks of `lotr-tui doctor`."""

import json
from dataclasses import replace
from pathlib import Path

from lotr_tui.doctor.environment import Environment, ProgramOutput

VERSIONS = {"lotr-tui": "0.1.0", "textual": "8.2.8", "numpy": "2.4.0", "torch": "2.8.0", "optuna": "4.2"}
NUMPY = {"name": "scipy-openblas", "version": "0.3.31"}
TORCH = {
    "version": "2.8.0",
    "seconds": 2.0,
    "built_for_cuda": None,
    "cuda": [],
    "mps": False,
    "threads": 8,
    "mkl": True,
}


class Programs:
    """Programs of a simulated machine: the first answer whose key is in the command is the output."""

    def __init__(self, **answers):
        self.answers = {"import json, numpy": json.dumps(NUMPY), "import torch": json.dumps(TORCH)} | answers

    def run(self, command):
        for key, answer in self.answers.items():
            if key in " ".join(command):
                return ProgramOutput(0, answer, "") if isinstance(answer, str) else answer
        return None


def simulate(programs=None, versions=VERSIONS, **changes):
    """Return a Linux machine with a terminal in true colour, with some parts of it replaced."""
    programs = programs or Programs()
    environment = Environment(
        variables={"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "en_GB.UTF-8"},
        system="linux",
        machine="Linux 6.1 x86_64",
        python="3.12.1",
        streams=(True, True, True),
        size=(120, 35),
        encoding="utf-8",
        cores=(8, 8),
        user_home=Path("/home/frodo"),
        find_program=lambda name: f"/usr/bin/{name}" if any(name in key for key in programs.answers) else None,
        run=programs.run,
        find_version=versions.get,
        requirements=(
            "torch>=2.8",
            "optuna>=4.2; extra == 'search'",
            "wandb>=0.1; extra == 'wandb'",
            "ruff; extra == 'dev'",
        ),
    )
    return replace(environment, **changes)
