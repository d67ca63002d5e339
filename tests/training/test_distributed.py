"""Several processes as one."""

import multiprocessing
import os

import torch
import torch.distributed as dist

from textdiffusion.training.distributed import process_group


def _twice(rank, port, sums):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    for _ in range(2):
        sums.put(float(process_group().sum(torch.tensor([rank + 1.0]))))


def test_processes_of_one_torchrun_can_train_twice():
    """A second process group at the addresses of the first would never come about."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as torchrun's agent has it
    context = multiprocessing.get_context("fork")
    sums = context.Queue()
    ranks = [context.Process(target=_twice, args=(rank, store.port, sums), daemon=True) for rank in range(2)]
    for rank in ranks:
        rank.start()
    assert [sums.get(timeout=60) for _ in range(4)] == [3.0] * 4
    for rank in ranks:
        rank.join(timeout=60)
        assert rank.exitcode == 0
