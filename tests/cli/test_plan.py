"""`textdiffusion plan`"""

import json

import pytest


def test_a_plan_says_what_fits(textdiffusion):
    small = ("mdlm", "--size", "tiny", "--length", 64, "--vocab-size", 100)
    plan = json.loads(textdiffusion("plan", *small, "--gpus", 2, "--json").out)
    assert plan["state"]["parameters"] == plan["state"]["trainable"]
    assert [layout["name"] for layout in plan["layouts"]] == ["one GPU", "ddp", "fsdp"]
    assert all(layout["fits"] for layout in plan["layouts"])
    shown = textdiffusion("plan", *small, "--gpus", 2).out
    assert "torchrun --nproc-per-node 2" in shown
    assert "training.parallel=ddp" in shown
    assert "Nothing fits" in textdiffusion("plan", *small, "--memory", 0.001).out


@pytest.mark.parametrize(("option", "value"), [("--gpus", 0), ("--memory", -1)])
def test_a_plan_needs_gpus(textdiffusion, option, value):
    done = textdiffusion("plan", "mdlm", option, value)
    assert done.code == 2
    assert option in done.err
