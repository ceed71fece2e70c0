"""A training by several processes, as `torchrun` starts them: each reads its own columns of every batch.

The first of them decides, tells and writes; the others do as it says. What is computed is what one process would
compute: all draw the masks of the whole batch, and `DistributedDataParallel` averages their gradients.
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
from engine.runtime.process import ONLY, Place, place

LONGEST_WAIT = timedelta(days=1)
"""The first process may evaluate or write for long; one that ends is noticed at once."""
MESSAGE_BYTES = 256
"""Of what the first process says; what is longer takes a second message."""
LOST = ("Connection closed", "Connection reset", "Broken pipe")
"""In what gloo says when another process has ended."""

T = TypeVar("T")


class Lost(TrainingError):
    """Another process of the training has ended."""


class World:
    """The processes of a training, as one of them sees them: here it is alone."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def share(self, make: Callable[[], T]) -> T:
        """What the first process makes, which can be said in JSON, given to all. No other one makes it."""
        return make()

    def columns(self, whole: Tensor) -> Tensor:
        """This process's columns of `[time, batch, ...]`."""
        return whole

    def whole(self, columns: Tensor) -> Tensor:
        """The columns of all processes side by side. Only the first gets them; the others get their own back."""
        return columns

    def together(self, lesson: nn.Module) -> nn.Module:
        """What gives the loss, objective and more of `lesson`, and makes gradients the means over all processes."""
        return lesson

    def mean(self, loss: Tensor) -> Tensor:
        """The mean over all processes of that loss, once the objective was propagated back."""
        return loss


ALONE = World(ONLY)


class Several(World):
    """More than one process. They talk by gloo; gradients on GPUs are averaged by NCCL."""

    def __init__(self, place: Place) -> None:
        """Wait until all of them are there."""
        super().__init__(place)
        distributed.init_process_group("gloo", timeout=LONGEST_WAIT)
        # A group of its own, because its threads end with it: those of a group that gradients went through stay, and
        # one that still holds a tensor of Python's when the interpreter ends aborts the process (pytorch #179291).
        self._talk: distributed.ProcessGroup | None = distributed.new_group(timeout=LONGEST_WAIT, backend="gloo")

    def leave(self) -> None:
        """Part from the others."""
        distributed.destroy_process_group(self._talk)
        self._talk = None
        distributed.destroy_process_group()

    def share(self, make: Callable[[], T]) -> T:
        """See `World`: in one message, or two if it is long."""
        said = json.dumps(make()).encode() if self.place.first else b""
        begin = (len(said).to_bytes(8, "little") + said)[:MESSAGE_BYTES].ljust(MESSAGE_BYTES)
        begin = self._say(begin)
        length = int.from_bytes(begin[:8], "little")
        whole = begin[8 : 8 + length] if length <= MESSAGE_BYTES - 8 else self._say(said.ljust(length))
        return cast("T", json.loads(whole))

    def _say(self, message: bytes) -> bytes:
        """What the first process says; the others give something of the same length."""
        heard = torch.frombuffer(bytearray(message), dtype=torch.uint8)
        distributed.broadcast(heard, 0, group=self._talk)
        return heard.numpy().tobytes()

    def columns(self, whole: Tensor) -> Tensor:
        """See `World`: those of the first process are the first columns, and so on."""
        return whole.chunk(self.place.size, dim=1)[self.place.rank]

    def whole(self, columns: Tensor) -> Tensor:
        """See `World`."""
        own = columns.detach().cpu().contiguous()
        parts = [torch.empty_like(own) for _ in range(self.place.size)] if self.place.first else None
        distributed.gather(own, parts, 0, group=self._talk)
        return torch.cat(parts, dim=1) if parts is not None else own

    def together(self, lesson: nn.Module) -> nn.Module:
        """See `World`."""
        device = next(lesson.parameters()).device
        sending = _WithItsLoss(lesson, device)
        self._told = sending.told
        nccl = device.type == "cuda" and distributed.is_nccl_available()
        with warnings.catch_warnings():
            # A new PyTorch has another name for broadcast_buffers, which older ones do not know.
            warnings.simplefilter("ignore", FutureWarning)
            module = nn.parallel.DistributedDataParallel(
                sending,
                process_group=distributed.new_group(backend="nccl") if nccl else None,
                init_sync=False,  # all begin with the same seed, or from the same file
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )
        # After its first backward pass it puts gradients that come one after the other side by side. This is that
        # pass: where a gradient lies decides how its sum is rounded, and a resume must round as the updates before.
        module().backward()
        module.zero_grad(set_to_none=True)
        return module

    def mean(self, loss: Tensor) -> Tensor:
        """See `World`."""
        assert self._told.grad is not None
        mean = self._told.grad.clone()
        self._told.grad = None
        return mean


class _WithItsLoss(nn.Module):
    """The loss as the gradient of a parameter that is zero: so its mean comes with those of the others, for nothing."""

    def __init__(self, lesson: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.lesson = lesson
        self.told = nn.Parameter(torch.zeros((), device=device))

    def forward(self, *window: Any) -> Any:
        if not window:
            return torch.stack([parameter.sum() for parameter in self.parameters()]).sum()
        loss, objective, *more = self.lesson(*window)
        return loss, objective + self.told * loss.detach(), *more


@contextmanager
def join() -> Iterator[World]:
    """The processes that `torchrun` started, once all are there, until the end of the block.

    Raises:
        Lost: another one of them has ended meanwhile.
    """
    here = place()
    if here.size == 1:
        yield ALONE
        return
    world = Several(here)
    try:
        yield world
    except RuntimeError as error:
        if any(sign in str(error) for sign in LOST):
            raise Lost("another process of this training has ended; what it said tells why") from error
        raise
    finally:
        world.leave()
