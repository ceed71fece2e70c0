"""Data-parallel training by several processes, as `torchrun` starts them; the first one decides and writes files."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from engine.errors import TrainingError
from engine.runtime.process import ProcessInfo, get_process_info

TIMEOUT = timedelta(days=1)  # the main process may evaluate or write for long; a lost peer is noticed at once
PEER_LOST_MESSAGES = ("Connection closed", "Connection reset", "Broken pipe")


@dataclass(frozen=True)
class DistributedContext:
    """The processes of a training as seen by one of them."""

    process: ProcessInfo
    control_group: distributed.ProcessGroup | None = None  # None for a single process

    def broadcast_object(self, factory: Callable[[], Any]) -> Any:
        """Return the JSON-serializable result of `factory`, which only the main process calls, in all processes."""
        if self.control_group is None:
            return factory()
        content = json.dumps(factory()).encode() if self.process.rank == 0 else b""
        size = torch.tensor(len(content))
        distributed.broadcast(size, 0, group=self.control_group)
        buffer = torch.frombuffer(bytearray(content.ljust(int(size))), dtype=torch.uint8)
        distributed.broadcast(buffer, 0, group=self.control_group)
        return json.loads(buffer.numpy().tobytes())

    def shard_batch(self, batch: Tensor) -> Tensor:
        """Return the columns of this process in a tensor `[time, batch, ...]`."""
        return batch.chunk(self.process.world_size, dim=1)[self.process.rank]

    def gather_batch(self, shard: Tensor) -> Tensor:
        """Return the columns of all processes, on the CPU; a single process returns `shard` itself."""
        if self.control_group is None:
            return shard
        own = shard.detach().cpu().contiguous()
        shards = [torch.empty_like(own) for _ in range(self.process.world_size)]
        distributed.all_gather(shards, own, group=self.control_group)
        return torch.cat(shards, dim=1)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors, such as gradients, by their means over all processes."""
        vector = parameters_to_vector(tensors) / self.process.world_size
        distributed.all_reduce(vector)
        vector_to_parameters(vector, tensors)


SINGLE_PROCESS = DistributedContext(ProcessInfo())


@contextmanager
def distributed_context() -> Iterator[DistributedContext]:
    """Connect the processes that `torchrun` started during the block; the end of one raises a TrainingError."""
    if (process := get_process_info()).world_size == 1:
        yield SINGLE_PROCESS
        return
    has_nccl = torch.cuda.is_available() and distributed.is_nccl_available()
    distributed.init_process_group("cpu:gloo,cuda:nccl" if has_nccl else "gloo", timeout=TIMEOUT)
    try:
        # A separate group: threads of a group used for gradients outlive it, and a tensor that one of them still holds
        # when the interpreter exits aborts the process (pytorch #179291).
        yield DistributedContext(process, distributed.new_group(timeout=TIMEOUT, backend="gloo"))
    except RuntimeError as error:
        if any(message in str(error) for message in PEER_LOST_MESSAGES):
            raise TrainingError("another process of this training has ended; see its error message") from error
        raise
    finally:
        distributed.destroy_process_group()  # all groups
