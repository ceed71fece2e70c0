"""Which of the processes of a training this one is, as `torchrun` says in the environment."""

import os
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A process among those of its training; most trainings have only one."""

    rank: int = 0
    size: int = 1
    """How many processes there are."""
    local_rank: int = 0
    """Among those of this machine."""
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that decides, tells and writes."""
        return self.rank == 0


ONLY = Place()
"""That of a process without others."""


def torchrun(processes: int) -> list[str]:
    """What starts so many processes of a module; for one process, Python alone."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    # After the two dashes nothing is taken for an option of torchrun's own.
    return [sys.executable, *launcher, "-m", "--"] if processes > 1 else [sys.executable, "-m"]


def place() -> Place:
    """That of this process; without `torchrun` it is alone."""
    numbers = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")]
    return Place(*map(int, numbers)) if all(number.isdecimal() for number in numbers) else ONLY
