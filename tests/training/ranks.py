"""Several processes that train together, with the environment that torchrun gives them."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import torch
import torch.distributed as dist

_CONTEXT = multiprocessing.get_context("forkserver")  # backward passes do not run in forks of processes that ran some
_CONTEXT.set_forkserver_preload(["tests.training.runs"])


def _run(function: Callable[..., Any], rank: int, size: int, port: int, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    function(*arguments)


class Ranks:
    """`size` processes that run a function, and the store where they meet."""

    def __init__(self, size: int, function: Callable[..., Any], *arguments: Any) -> None:
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as torchrun's agent has it
        self.processes: list[BaseProcess] = []
        for rank in range(size):
            context = (function, rank, size, self.store.port, arguments)
            self.processes.append(_CONTEXT.Process(target=_run, args=context, daemon=True))
            self.processes[-1].start()

    def finish(self) -> None:
        """Waits for processes that must succeed."""
        for process in self.processes:
            process.join(timeout=120)
            assert process.exitcode == 0

    def kill(self, rank: int) -> None:
        """Kills one process and then, as torchrun does, the others."""
        self.processes[rank].kill()
        for process in self.processes:
            process.terminate()
            process.join(timeout=1)
            process.kill()
            process.join(timeout=60)
