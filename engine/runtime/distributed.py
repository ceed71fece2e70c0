"""Data-parallel training by several processes, as `torchrun` starts them. Each process trains on its own columns.

The main process makes decisions, reports and writes files. The result is the same as with one process, up to rounding:
every process draws the dropout masks of the whole batch, and `DistributedDataParallel` averages the gradients.
"""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn

from engine.errors import TrainingError
from engine.runtime.process import ProcessInfo, get_process_info

TIMEOUT = timedelta(days=1)  # the main process may evaluate or write for long; a lost peer is noticed at once
PEER_LOST_MESSAGES = ("Connection closed", "Connection reset", "Broken pipe")

T = TypeVar("T")


class PeerLostError(TrainingError):
    """Error raised when another process of the training has ended."""


class DistributedContext:
    """The processes of a training as seen by one of them; with a single process, most methods return their argument."""

    def __init__(self, process: ProcessInfo) -> None:
        self.process = process
        self._is_single = process.world_size == 1
        self._control_group: distributed.ProcessGroup | None = None
        if not self._is_single:
            distributed.init_process_group("gloo", timeout=TIMEOUT)
            # A separate group: threads of a group used for gradients outlive it, and a tensor that one of them still
            # holds when the interpreter exits aborts the process (pytorch #179291).
            self._control_group = distributed.new_group(timeout=TIMEOUT, backend="gloo")

    def broadcast_object(self, factory: Callable[[], T]) -> T:
        """Return the JSON-serializable result of `factory`, which only the main process calls, in all processes."""
        if self._is_single:
            return factory()
        content = json.dumps(factory()).encode() if self.process.is_main_process else b""
        size = torch.tensor(len(content))
        distributed.broadcast(size, 0, group=self._control_group)
        buffer = torch.frombuffer(bytearray(content.ljust(int(size))), dtype=torch.uint8)
        distributed.broadcast(buffer, 0, group=self._control_group)
        return cast("T", json.loads(buffer.numpy().tobytes()))

    def shard_batch(self, batch: Tensor) -> Tensor:
        """Return this process's columns of a tensor `[time, batch, ...]`."""
        return batch if self._is_single else batch.chunk(self.process.world_size, dim=1)[self.process.rank]

    def gather_batch(self, shard: Tensor) -> Tensor:
        """Return the columns of all processes in the main process, and `shard` in all others, on the CPU."""
        if self._is_single:
            return shard
        own, shards = shard.detach().cpu().contiguous(), None
        if self.process.is_main_process:
            shards = [torch.empty_like(own) for _ in range(self.process.world_size)]
        distributed.gather(own, shards, 0, group=self._control_group)
        return own if shards is None else torch.cat(shards, dim=1)

    def wrap_ddp(self, loss_module: nn.Module) -> nn.Module:
        """Wrap a module that returns (loss, objective, ...), so that gradients are averaged over all processes."""
        if self._is_single:
            return loss_module
        device = next(loss_module.parameters()).device
        averaging_module = _LossAveragingModule(loss_module, device)
        self._loss_parameter = averaging_module.loss_parameter
        use_nccl = device.type == "cuda" and distributed.is_nccl_available()
        with warnings.catch_warnings():
            # Newer PyTorch deprecates the name broadcast_buffers; older PyTorch does not know the new name.
            warnings.simplefilter("ignore", FutureWarning)
            ddp = nn.parallel.DistributedDataParallel(
                averaging_module,
                process_group=distributed.new_group(backend="nccl") if use_nccl else None,
                init_sync=False,  # all processes start from the same seed or the same file
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )
        # DDP rearranges its gradient buckets after the first backward pass, and the arrangement decides how sums are
        # rounded. Doing that pass now makes a resumed training round like an uninterrupted one.
        ddp().backward()
        ddp.zero_grad(set_to_none=True)
        return ddp

    def average_loss(self, loss: Tensor) -> Tensor:
        """Return the mean of `loss` over all processes; call this method after the backward pass."""
        if self._is_single:
            return loss
        assert self._loss_parameter.grad is not None
        mean = self._loss_parameter.grad.clone()
        self._loss_parameter.grad = None
        return mean

    def close(self) -> None:
        if not self._is_single:
            distributed.destroy_process_group(self._control_group)
            self._control_group = None
            distributed.destroy_process_group()


class _LossAveragingModule(nn.Module):
    # The loss is the gradient of an extra parameter, so that DDP averages it with the gradients.
    def __init__(self, loss_module: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.loss_module = loss_module
        self.loss_parameter = nn.Parameter(torch.zeros((), device=device))

    def forward(self, *args: Any) -> Any:
        if not args:  # a sum that depends on every parameter
            return torch.stack([parameter.sum() for parameter in self.parameters()]).sum()
        loss, objective, *rest = self.loss_module(*args)
        return loss, objective + self.loss_parameter * loss.detach(), *rest


SINGLE_PROCESS = DistributedContext(ProcessInfo())


@contextmanager
def distributed_context() -> Iterator[DistributedContext]:
    """Connect the processes that `torchrun` started during the block; the end of one raises a PeerLostError."""
    context = DistributedContext(get_process_info())
    try:
        yield context
    except RuntimeError as error:
        if any(message in str(error) for message in PEER_LOST_MESSAGES):
            raise PeerLostError("another process of this training has ended; see its error message") from error
        raise
    finally:
        context.close()
