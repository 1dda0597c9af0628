"""The world: the processes that work on one thing together, each of which knows its rank r and how many there are.

    rows(n) of r: its share of n rows, in order,    g = 1/n sum_r sum_(i in rows of r) grad loss_i

What a sample is depends on its number alone, so that any world does what one process would do. A launcher such as
torchrun starts the processes, and says by RANK, WORLD_SIZE and LOCAL_RANK who they are. A world of one has nobody to
talk to. Words travel as JSON; all of what is here but ranks and rows is said by every process, in the same order.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import PellucidError

PATIENCE = timedelta(hours=2)  # how long the others wait, say while the first draws its samples


@dataclass(frozen=True)
class World:
    """This process among `size` of them; rank 0 leads."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes what is written once."""
        return self.rank == 0

    def rows(self, n: int) -> slice:
        """Its share of n rows: as even as can be, the first ones have one more."""
        most, more = divmod(n, self.size)
        start = self.rank * most + min(self.rank, more)
        return slice(start, start + most + (self.rank < more))

    def heard(self, words: Any) -> list[Any]:
        """What each process has to say, by rank: plain data."""
        if self.size == 1:
            return [words]
        data = torch.frombuffer(bytearray(json.dumps(words).encode()), dtype=torch.uint8)
        lengths = [torch.zeros((), dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor(len(data)))
        room = torch.zeros(self.size, int(max(lengths)), dtype=torch.uint8)
        room[self.rank, : len(data)] = data
        dist.all_gather(list(room.unbind()), room[self.rank].clone())
        return [json.loads(bytes(row[:length].tolist())) for row, length in zip(room, lengths, strict=True)]

    def told(self, words: Any) -> Any:
        """What rank 0 has to say."""
        return self.heard(words if self.leads else None)[0]

    def any(self, flag: bool) -> bool:
        """Whether it is so for any of them."""
        if self.size == 1:
            return flag
        flags = torch.tensor(float(flag))
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)

    def joined(self, own: Tensor, n: int) -> Tensor:
        """[n] numbers, on the CPU, of which this process has its rows."""
        if self.size == 1:
            return own
        lengths = [len(range(n)[World(rank, self.size).rows(n)]) for rank in range(self.size)]
        rows = [torch.zeros(lengths[0], dtype=own.dtype) for _ in lengths]  # the first have most
        dist.all_gather(rows, torch.nn.functional.pad(own.cpu(), (0, lengths[0] - len(own))))
        return torch.cat([row[:length] for row, length in zip(rows, lengths, strict=True)])

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """What fails for one process inside, as a mistake or on the disk, fails for all at the end."""
        fault: PellucidError | OSError | None = None
        try:
            yield
        except (PellucidError, OSError) as error:
            fault = error
        faults = self.heard(fault and _described(fault)) if self.size > 1 else []
        if fault:
            raise fault
        for said in faults:
            if said:
                raise _fault(said)


def _described(fault: PellucidError | OSError) -> list[Any]:
    if isinstance(fault, PellucidError):
        return [str(fault)]
    return [fault.errno, fault.strerror or str(fault), fault.filename and str(fault.filename)]


def _fault(said: list[Any]) -> PellucidError | OSError:
    return PellucidError(*said) if len(said) == 1 else OSError(*said)


ALONE = World()


@contextmanager
def entered(given: Mapping[str, str] = os.environ) -> Iterator[World]:
    """The world that a launcher has set up around this process; without one, it is alone."""
    size = given.get("WORLD_SIZE", "1")
    if size == "1" or "RANK" not in given:
        yield ALONE
        return
    if absent := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in given]:
        lost = f"WORLD_SIZE is {size}, and {absent[0]} does not say where the processes meet"
        raise PellucidError(f"{lost}; start them by torchrun, or unset WORLD_SIZE.")
    if local(given) < torch.cuda.device_count():
        torch.cuda.set_device(local(given))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def local(given: Mapping[str, str] = os.environ) -> int:
    """The number of this process on its machine, which is that of its graphics card; 0 where it is alone."""
    return int(given.get("LOCAL_RANK", 0))


def is_shared(tensor: Tensor) -> bool:
    """Whether each process holds a part of it."""
    return hasattr(tensor, "device_mesh")


def held(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: all of it, or where it is shared the rows that are its own."""
    own: Tensor = tensor.to_local() if is_shared(tensor) else tensor  # type: ignore[attr-defined]
    return own


def whole(tensor: Tensor) -> Tensor:
    """A tensor with the rows of all processes."""
    rows: Tensor = tensor.full_tensor() if is_shared(tensor) else tensor  # type: ignore[attr-defined]
    return rows


def placed(tensor: Tensor, like: Any) -> Tensor:
    """A whole tensor as `like` is held: where that is shared, each process takes its own rows."""
    if not is_shared(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
