"""Files of weights say what they belong to, and what is damaged or of another shape is refused before it is used."""

import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from textdiffusion.core.errors import UserError
from textdiffusion.storage.weights import (
    check_outline,
    load_tensors,
    load_weights,
    read_header,
    save_tensors,
    tensors_of,
)


class Net(nn.Module):
    def __init__(self, depth: int = 1) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(3, 2) for _ in range(depth))
        self.register_buffer("step", torch.tensor(7))


IDENTITY = {"tokenizer": "ab", "config": {"recipe": "mdlm"}}


def saved(path: Path, identity: dict | None = IDENTITY, **changed: Tensor) -> dict[str, Tensor]:
    tensors = {**tensors_of(Net()), **changed}
    save_tensors(tensors, path, identity)
    return tensors


def test_weights_and_identity_come_back(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    odd = {"half": torch.ones(2, 3).bfloat16(), "bits": torch.tensor([True, False]), "none": torch.zeros(0, 4)}
    tensors = saved(path, **odd, view=torch.arange(6.0).view(2, 3).T)
    again = load_tensors(path)
    assert again.keys() == tensors.keys()
    for loaded in (again, load_file(path)):
        for name, tensor in tensors.items():
            assert torch.equal(loaded[name], tensor)
            assert loaded[name].dtype == tensor.dtype
    header = read_header(path)
    assert header.identity == IDENTITY
    assert header.tensors["blocks.0.weight"] == ((2, 3), "F32")
    first = path.read_bytes()
    save_tensors(dict(reversed(tensors.items())), path, dict(reversed(IDENTITY.items())))
    assert path.read_bytes() == first


def test_weights_have_the_permissions_of_any_new_file(tmp_path: Path):
    previous = os.umask(0o022)
    try:
        saved(tmp_path / "model.safetensors")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o644


def test_one_flipped_bit_is_noticed(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    saved(path)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged: the checksum of its weights is wrong"):
        load_weights(Net(), path)


def test_weights_of_earlier_versions_load(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    tensors = tensors_of(Net())
    save_file(tensors, path)
    net = Net()
    load_weights(net, path)
    assert torch.equal(tensors_of(net)["blocks.0.weight"], tensors["blocks.0.weight"])
    assert read_header(path).identity == {}
    save_file({**tensors, "blocks.0.bias": tensors["blocks.0.bias"].double()}, path)
    load_weights(net, path)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"blocks.0.bias": torch.tensor([1.0, torch.nan])}, "blocks.0.bias has numbers that are NaN or infinite"),
        ({"blocks.0.bias": torch.tensor([1.0, 1e300], dtype=torch.float64)}, "NaN or infinite"),
        ({"blocks.0.bias": torch.tensor([1, 2])}, "blocks.0.bias has numbers of type I64 instead of F32"),
        ({"blocks.0.bias": torch.tensor([True, False])}, "BOOL instead of F32"),
        ({"step": torch.tensor(7.0)}, "step has numbers of type F32 instead of I64"),
        ({"blocks.0.bias": torch.zeros(3)}, r"shape \[3\] instead of \[2\]"),
        ({"more": torch.zeros(3)}, "which has no more"),
    ],
)
def test_weights_that_cannot_be_right_are_refused(changed: dict[str, Tensor], problem: str, tmp_path: Path):
    for identity in (None, IDENTITY):
        path = tmp_path / "model.safetensors"
        saved(path, identity, **changed)
        with pytest.raises(UserError, match=problem):
            load_weights(Net(), path)


def test_metadata_that_is_damaged_is_refused(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    for text in ("", "null", "{}", '{"sha256": 1, "identity": {}}', '{"sha256": "ab", "identity": null}', "[" * 10_000):
        save_file(tensors_of(Net()), path, metadata={"textdiffusion": text})
        with pytest.raises(UserError, match=r"model\.safetensors"):
            load_weights(Net(), path)


def test_a_network_that_does_not_fit_is_refused_before_it_is_allocated(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    saved(path)
    state = torch.get_rng_state()
    check_outline(Net, read_header(path))
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(UserError, match="far larger network"):
        check_outline(lambda: Net(10**9), read_header(path))
    with pytest.raises(UserError, match="far larger network"):
        check_outline(lambda: nn.Linear(10**9, 10**9), read_header(path))
    with pytest.raises(UserError, match="does not fit this model"):
        check_outline(lambda: Net(2), read_header(path))
