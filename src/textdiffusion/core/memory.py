"""How much memory is free, and the refusal of what needs more, before anything is allocated.

A request that does not fit would otherwise end the process, or make the machine swap.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from .errors import UserError

GIB = 1 << 30
_CGROUP = Path("/sys/fs/cgroup")


def check_memory(num_bytes: int | float, purpose: str, remedy: str, device: torch.device | None = None) -> None:
    """Raises UserError where `purpose` needs more memory than is free, with both figures and what to change.

    `num_bytes` is a lower bound, so that nothing that fits is refused.
    """
    free = _free_on_gpu(device) if device is not None and device.type == "cuda" else available_bytes()
    if free is not None and num_bytes > free:
        where = " on the GPU" if device is not None and device.type == "cuda" else ""
        raise UserError(
            f"{purpose} needs at least {size(num_bytes)} of memory, but {size(free)} are free{where}; {remedy}."
        )


def size(num_bytes: int | float) -> str:
    """A number of bytes to read: `93 GiB`."""
    gib = num_bytes / GIB
    if gib >= 1e6:
        return f"{gib:.1e} GiB"
    return f"{gib:,.0f} GiB" if gib >= 10 else f"{gib:.1f} GiB" if gib >= 0.1 else f"{num_bytes / (1 << 20):.0f} MiB"


def available_bytes() -> int | None:
    """Bytes that this process can still allocate: of the machine, its control group and its own limit (None: unknown).

    Memory that the system holds only to cache files counts as free.
    """
    limits = [limit for limit in (_of_machine(), _of_group(), _of_process()) if limit is not None]
    return max(0, min(limits)) if limits else None


def _of_machine() -> int | None:
    if (known := _field(Path("/proc/meminfo"), "MemAvailable:")) is not None:
        return known * 1024
    try:  # the whole memory, where the system does not say what is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _of_group() -> int | None:
    """What the control group of a container or a job leaves."""
    limit, used = _number(_CGROUP / "memory.max"), _number(_CGROUP / "memory.current")
    if limit is None or used is None:
        return None
    return limit - used + (_field(_CGROUP / "memory.stat", "inactive_file") or 0)


def _of_process() -> int | None:
    """What the limit of the address space (`ulimit -v`) leaves."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return limit
    return limit - pages * os.sysconf("SC_PAGE_SIZE")


def _number(path: Path) -> int | None:
    """The number in a file of the system (None: there is no such file, or it says "max")."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _field(path: Path, name: str) -> int | None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith(name)), None)
    except (OSError, ValueError):
        return None


def _free_on_gpu(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + cached
