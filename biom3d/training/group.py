"""The processes that share one training: which part of a batch each computes, and sums over all of them.

Every process draws the same random numbers and takes its samples of each batch. The loss is that of the whole batch:
the few sums it is made of are added up over the processes, so a split batch gives the same loss and, added up by
DistributedDataParallel, the same gradient as one process, also where the parts are not of one size.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch import distributed as dist

from biom3d.errors import Biom3dError, ConfigError

DISCONNECTED = ("Connection", "connection", "Timed out", "NCCL", "gloo")


class LostProcess(Biom3dError):  # noqa: N818 - says what happened
    """Another process of the training has ended; that one knows why."""


@dataclass(frozen=True)
class Group:
    """This process (`rank`, 0 is the first) among the `size` of a training; `local` counts on its machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes what the training leaves, and tells of it."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return which of `count` samples are for this process; the parts differ by one sample at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, equal in all, with the gradient of this process's own part."""
        if self.size == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return values - values.detach() + total if values.requires_grad else total

    def same(self, number: int) -> int:
        """Return the number that the first process gives."""
        if self.size == 1:
            return number
        return int(self.sum(torch.tensor(number if self.is_first else 0, device=_device_of_group())))


ALONE = Group()


def group_from(environment: Mapping[str, str]) -> Group:
    """Return the place that torchrun, or anything that speaks as it does, gives to this process."""
    if int(environment.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    try:
        return Group(*(int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    except KeyError as error:
        raise ConfigError(
            f"WORLD_SIZE is {environment['WORLD_SIZE']}, but {error.args[0]} is not set; start with `torchrun "
            "--nproc_per_node N -m biom3d.train` or `train --processes N`, or unset WORLD_SIZE"
        ) from None


def device_of(group: Group, device: torch.device) -> torch.device:
    """Return the device of this process, where one alone would use `device`; ConfigError where there are too few."""
    if group.size == 1 or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise ConfigError(f"several processes share CUDA GPUs or the CPU, not {device.type}; train with one")
    if group.local >= torch.cuda.device_count():
        raise ConfigError(
            f"{torch.cuda.device_count()} GPU(s) for {group.local + 1} processes or more; ask for as many processes "
            "as GPUs (--processes, or CUDA_VISIBLE_DEVICES)"
        )
    device = torch.device("cuda", group.local)
    torch.cuda.set_device(device)
    return device


@contextlib.contextmanager
def joined(group: Group, device: torch.device, meeting: Path | None = None) -> Iterator[None]:
    """Connect this process with the others; `meeting` is a file they share, without it torchrun's variables tell.

    Raises:
        LostProcess: another one has ended.
    """
    if group.size == 1:
        yield
        return
    backend, bound = ("nccl", device) if device.type == "cuda" else ("gloo", None)
    try:
        if meeting is None:
            dist.init_process_group(backend, device_id=bound)
        else:
            store = dist.FileStore(str(meeting), group.size)
            dist.init_process_group(backend, store=store, rank=group.rank, world_size=group.size, device_id=bound)
        yield
    except RuntimeError as error:  # gloo and NCCL tell by the text only
        if isinstance(error, dist.DistError) or any(word in str(error) for word in DISCONNECTED):
            raise LostProcess(f"process {group.rank + 1} of {group.size}: another one has ended") from error
        raise
    dist.destroy_process_group()


def distribute(network: nn.Module, group: Group, device: torch.device) -> nn.Module:
    """Return `network` such that its backward pass adds up the gradients of all processes.

    Parameters without a gradient must not require one: each process would wait for it.
    """
    if group.size == 1:
        return network
    return nn.parallel.DistributedDataParallel(
        network, device_ids=[device] if device.type == "cuda" else None, gradient_as_bucket_view=True
    )


def _device_of_group() -> torch.device:
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
