"""The steps of `tests/gpu.sh`. `python -m tests.support.gpu.steps NAME FOLDER DEVICE SECONDS` runs one of them.

A step returns lines for the table, which go to FOLDER/NAME.result; an exception is a failure.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.gpu import networks, programs, trainings
from tests.support.gpu.options import StepOptions

DRY_SECONDS = 80.0
"""Time limit without a GPU of a step that otherwise takes what is left."""
DRY_FACTOR = 2.0
"""Factor on the other time limits without a GPU: such machines are slower, and often busy."""


@dataclass(frozen=True)
class Step:
    """A check or measurement."""

    name: str
    run: Callable[[StepOptions], list[str]]
    seconds: float = 0.0
    """Time limit; 0 for `fraction` of the time that is left."""
    fraction: float = 0.0

    def limit(self, remaining: float, device: str) -> float:
        """Return the time limit in seconds; `remaining` seconds are left for this and all later steps."""
        if device == "cpu":
            return DRY_FACTOR * self.seconds or DRY_SECONDS
        return self.seconds or self.fraction * remaining


STEPS = [
    Step("environment", networks.describe_environment, 30),
    Step("cudnn", networks.check_cudnn, 40),
    Step("bf16", networks.check_bf16, 40),
    Step("decoder", networks.check_decoder, 25),
    Step("cuda-graphs", networks.measure_cuda_graph, 30),
    Step("resume", trainings.check_exact_resume, 50),
    Step("nccl", trainings.check_nccl, 45),
    Step("detach", programs.check_detach, 60),
    Step("dashboard", programs.check_dashboard, 50),
    Step("bench", programs.run_bench, 90),
    Step("penn-treebank", trainings.train_penn_treebank, fraction=0.6),
    Step("base", trainings.pretrain_base, fraction=1.0),
]


def main(name: str, folder: Path, device: str, seconds: float) -> None:
    """Run the step called `name`, and write its result."""
    step = next(step for step in STEPS if step.name == name)
    lines = step.run(StepOptions(folder, device, seconds))
    (folder / f"{name}.result").write_text("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
