"""Rank of this process in a distributed training, and settings that precede the import of PyTorch."""

import os
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class ProcessInfo:
    """Rank of a process and number of processes, as `torchrun` counts them: in all and, if local, on this machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def is_main_process(self) -> bool:
        """True for the process that makes decisions, reports and writes files."""
        return self.rank == 0


SINGLE_PROCESS_INFO = ProcessInfo()


def launch_command(num_processes: int) -> list[str]:
    """Return a command prefix that runs a module in `num_processes` processes; append the module and its arguments."""
    if num_processes == 1:
        return [sys.executable, "-m"]
    # The dashes keep torchrun from parsing the module's options.
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes), "-m", "--"]
    return [sys.executable, "-m", *torchrun]


def get_process_info() -> ProcessInfo:
    """Return the rank of this process from the environment variables of `torchrun`; without them, a single process."""
    numbers = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")]
    return ProcessInfo(*map(int, numbers)) if all(number.isdecimal() for number in numbers) else SINGLE_PROCESS_INFO


def silence_descriptors() -> None:
    """Drop what libraries write to descriptors 1 and 2, unless Python's standard streams use these descriptors."""
    streams = {stream.fileno() for stream in (sys.__stdout__, sys.__stderr__) if stream is not None}
    if streams.isdisjoint((1, 2)):
        null_device = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_device, 1)
        os.dup2(null_device, 2)
        os.close(null_device)


def limit_openmp_spinning() -> None:
    """Make OpenMP threads sleep sooner while they wait for each other. Call this function before importing PyTorch.

    By default OpenMP threads wait by spinning, which delays other processes and in turn the training: beside one busy
    process, training took 4 times as long, and 2 times with this limit.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
