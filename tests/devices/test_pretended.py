"""The pretended device finds what it is there to find."""

import pytest
import torch

from .pretended import DEVICE, MixedDevices, on_device, pretended_device


def test_tensors_of_two_devices_do_not_meet():
    with pretended_device():
        there, here = torch.ones(3, device=DEVICE), torch.ones(3)
        with pytest.raises(MixedDevices, match="shapes"):
            there + here
        with pytest.raises(MixedDevices, match="numpy"):
            there.numpy()
        assert (there + torch.tensor(2.0)).device == DEVICE  # a number
        assert (there + here.to(DEVICE)).cpu().tolist() == [2.0, 2.0, 2.0]


def test_every_wait_of_the_host_is_counted():
    with pretended_device() as syncs:
        x = torch.arange(4.0, device=DEVICE)
        float(x.sum())
        bool((x > 2).any())
        x[x > 1]
        x[torch.tensor(1, device=DEVICE)]
        x.tolist()
        x.cpu()
        assert syncs == {"item": 3, "nonzero": 1, "tolist": 1, "copy to the host": 1}


def test_a_module_computes_as_on_the_cpu():
    torch.manual_seed(0)
    module, x = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.GELU(), torch.nn.LayerNorm(4)), torch.randn(2, 3)
    expected = module(x).square().sum()
    expected.backward()
    gradients = [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]
    with pretended_device() as syncs:
        module.zero_grad()
        on_device(module)
        loss = module(x.to(DEVICE)).square().sum()
        loss.backward()
        assert not syncs
        assert loss.device == DEVICE
        assert float(loss.detach()) == float(expected.detach())
        found = [parameter.grad.cpu() for parameter in module.parameters() if parameter.grad is not None]
        assert len(found) == len(gradients) == 4
        for one, other in zip(found, gradients, strict=True):
            torch.testing.assert_close(one, other)
