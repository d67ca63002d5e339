"""The files of a run belong together: what is damaged, swapped or made to harm is refused in a sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from textdiffusion import TextDiffusion
from textdiffusion.core.errors import UserError
from textdiffusion.samplers.time_grids import FILE, save_grid
from textdiffusion.storage.checkpoint import Checkpoints, TrainingState
from textdiffusion.storage.weights import tensors_of

MakeRun = Callable[..., Path]


def load(folder: Path) -> TextDiffusion:
    return TextDiffusion.from_pretrained(folder, device="cpu")


@pytest.fixture
def run(tiny_run: MakeRun, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run("mdlm"), tmp_path / "run"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_another_runs_tokenizer_of_equal_size_is_noticed(run: Path):
    saved = json.loads((run / "tokenizer.json").read_text())
    saved["characters"][-1] = "ø"
    (run / "tokenizer.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"model\.safetensors belong to another tokenizer than the tokenizer\.json"):
        load(run)


def test_another_runs_weights_of_the_same_shape_are_noticed(run: Path, tiny_run: MakeRun):
    shutil.copy(tiny_run("mdlm", "training.seed=1") / "model.safetensors", run)
    with pytest.raises(UserError, match=r"training\.seed was 1 in training and is now 0"):
        load(run)


def test_a_configuration_that_was_edited_is_noticed(run: Path):
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"mlp_ratio": 2', '"mlp_ratio": 4'))
    with pytest.raises(UserError, match=r"backbone\.mlp_ratio was 2 in training and is now 4"):
        load(run)


def test_a_run_of_an_earlier_version_loads_and_knows_no_text(run: Path):
    expected = load(run)
    save_file(load_file(run / "model.safetensors"), run / "model.safetensors")  # without metadata
    again = load(run)
    assert expected.text_sha256.keys() == {"train", "valid", "test"}
    assert again.text_sha256 == {}
    assert again.generate(seed=1) == expected.generate(seed=1)


def test_a_hostile_size_is_refused_before_it_is_allocated(run: Path):
    save_file(load_file(run / "model.safetensors"), run / "model.safetensors")
    config = json.loads((run / "config.json").read_text())
    for name, size in (("width", 1 << 30), ("depth", 10**9), ("mlp_ratio", 10**8)):
        (run / "config.json").write_text(json.dumps(config | {"backbone": config["backbone"] | {name: size}}))
        with pytest.raises(UserError, match=r"larger network|must be|needs at least"):
            load(run)
    denoiser = config["denoiser"] | {"ngram_rows": 1 << 40, "ngram_dim": 1 << 20}
    (run / "config.json").write_text(json.dumps(config | {"denoiser": denoiser}))
    with pytest.raises(UserError):
        load(run)


def test_numbers_that_overflow_in_the_network_are_noticed_in_sampling_and_scoring(run: Path):
    tensors = load_file(run / "model.safetensors")
    tensors = {name: t.fill_(3e38) if t.is_floating_point() else t for name, t in tensors.items()}
    save_file(tensors, run / "model.safetensors")
    model = load(run)
    with pytest.raises(UserError, match=r"computed numbers that are NaN or infinite: the weights .*model\.safetensors"):
        model.generate()
    with pytest.raises(UserError, match="NaN or infinite"):
        model.score(["The red pear is old."])


def test_nothing_is_loaded_from_pipes_folders_or_devices(run: Path):
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (run / name).rename(run / "kept")
        (run / name).symlink_to("/dev/zero")
        with pytest.raises(UserError, match=rf"{name}|not a run folder"):
            load(run)
        (run / name).unlink()
        (run / "kept").rename(run / name)
    load(run)


def test_a_tuned_grid_that_was_edited_is_noticed(run: Path):
    save_grid(torch.linspace(0, 1, 5), run / FILE)
    load(run)
    edit(run / FILE, t=[0, 0.5, 1])
    with pytest.raises(UserError, match=r"grid\.json is damaged or was edited"):
        load(run)


def test_saving_over_another_run_is_refused(run: Path, tiny_run: MakeRun):
    model = load(tiny_run("mdlm", "training.seed=1"))
    before = (run / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"holds another run; choose another folder, or set overwrite=True"):
        model.save_pretrained(run)
    assert (run / "model.safetensors").read_bytes() == before
    assert load(model.save_pretrained(run, overwrite=True)).config.training.seed == 1
    model.save_pretrained(run)  # its own
    (run / "checkpoints").mkdir()
    with pytest.raises(UserError, match="holds another run"):
        model.save_pretrained(run)


def test_raw_weights_come_from_the_latest_checkpoint(tiny_run: MakeRun, tmp_path: Path):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    folder = model.save_pretrained(tmp_path / "run")
    with pytest.raises(UserError, match="no checkpoint"):
        TextDiffusion.from_pretrained(folder, weights="raw")
    other = TextDiffusion.from_pretrained(tiny_run("mdlm", "training.seed=1"), device="cpu")
    for number in ("step-000000010", "step-000000009"):
        source = other if number.endswith("10") else model
        tensors = {"model.safetensors": tensors_of(source.model)}
        Checkpoints(folder / "checkpoints", keep=3).save(TrainingState(step=int(number[5:])), tensors)
    raw = TextDiffusion.from_pretrained(folder, weights="raw", device="cpu")
    assert raw.weights == "raw"
    assert raw.generate(length=16) == other.generate(length=16)
