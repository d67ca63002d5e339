"""Configurations survive the disk, and refuse what they do not know."""

import dataclasses
import gc
import importlib
import json
import sys
from dataclasses import replace

import pytest

from textdiffusion import recipes
from textdiffusion.config import discovery, overrides
from textdiffusion.config.config import Config, dumps, loads
from textdiffusion.config.training import Training
from textdiffusion.core.errors import UserError
from textdiffusion.core.registry import Part, from_dict, to_dict
from textdiffusion.diffusion.process import ProcessConfig
from textdiffusion.guidance.base import GuideConfig
from textdiffusion.objectives.base import Objective
from textdiffusion.samplers.ancestral import Ancestral
from textdiffusion.samplers.base import Sampler
from textdiffusion.training.run import train


def _variants():
    for name in recipes.names():
        with pytest.raises(UserError, match=", ".join(recipes.variants(name))):
            recipes.get(name)("no such variant")
        for variant in recipes.variants(name):
            yield pytest.param(recipes.get(name)(variant), id=f"{name}, {variant}")


@pytest.mark.parametrize("config", list(_variants()))
def test_every_recipe_survives_the_round_trip(config):
    assert loads(dumps(config)) == config
    assert from_dict(Config, to_dict(config)) == config
    assert json.loads(dumps(config))["process"]["kind"] == config.process.kind
    assert dumps(loads(dumps(config))) == dumps(config)


def test_every_part_survives_the_round_trip():
    for kind in Part.choices().values():
        if dataclasses.is_dataclass(kind):
            asked = [  # by some guides
                f.name
                for f in dataclasses.fields(kind)
                if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
            ]
            part = kind(**dict.fromkeys(asked, "some"))
            assert from_dict(kind, to_dict(part)) == part


def _data():
    return to_dict(recipes.get("mdlm")())


def _changed(path, value):
    data = _data()
    *outer, last = path.split(".")
    inner = data
    for key in outer:
        inner = inner[key]
    inner[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("colour", 1, ["config has no colour", "recipe", "sampler"]),
        ("backbone.size", 1, ["config.backbone has no size", "width", "depth"]),
        ("backbone.kinds", {}, ["config.backbone has no kinds"]),
        ("training.step", 1, ["config.training has no step", "batch_size"]),
        ("process.kind", "Absorb", ["config.process.kind is 'Absorb'", "absorbing", "gaussian"]),
        ("process.kind", "tokens", ["config.process.kind is 'tokens'"]),
        ("process.kind", None, ["config.process.kind is None"]),
        ("process.kind", ["absorbing"], ["config.process.kind is ['absorbing']"]),
        ("process.schedule.kind", "quadratic", ["'quadratic'", "linear", "cosine"]),
        ("process.schedule", 3, ["config.process.schedule is 3"]),
        ("backbone.width", "wide", ["config.backbone.width is 'wide'", "whole number"]),
        ("backbone.width", 1.5, ["config.backbone.width is 1.5", "whole number"]),
        ("backbone.width", True, ["config.backbone.width is True", "whole number"]),
        ("backbone.qk_norm", 1, ["config.backbone.qk_norm is 1", "true or false"]),
        ("backbone.dropout", "0.1", ["config.backbone.dropout is '0.1'", "a number"]),
        ("backbone", 3, ["config.backbone is 3", "object"]),
        ("training", None, ["config.training is None"]),
        ("training.steps", 0, ["training.steps is 0", "at least 1"]),
        ("training.ema", 1.0, ["training.ema is 1.0"]),
        ("training.beta2", 1.0, ["training.beta2 is 1.0", "[0, 1)"]),
        ("training.lr", -1.0, ["training.lr is -1.0", "at least 0"]),
        ("training.muon_lr", float("nan"), ["training.muon_lr is nan"]),
        ("training.lr", float("inf"), ["training.lr is inf", "at least 0"]),
        ("training.num_samples", -1, ["training.num_samples is -1"]),
        ("sampler.greedy_below", float("nan"), ["Unmasking.greedy_below is nan", "[0, 1]"]),
        ("sampler.kind", "word", ["config.sampler.kind is 'word'", "ancestral"]),
        ("sampler.kind", "gaussian_steps", ["config.sampler.kind is 'gaussian_steps'", "ddim"]),
        ("text.mask", "some", ["mask", "'some'", "prefix"]),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(path, value, words):
    with pytest.raises(UserError) as caught:
        from_dict(Config, _changed(path, value))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "settings", "said"),
    [
        ("mdlm", ["sampler.kind=gaussian_steps"], "sampler.kind is 'gaussian_steps'"),
        ("mdlm", ["sampler.kind=word"], "sampler.kind is 'word'"),
        ("mdlm", ["denoiser.kind=denoiser_part"], "denoiser.kind is 'denoiser_part'"),
        ("mdlm", ["training.kind=x"], "has no 'kind'"),
        ("cdcd", ["codec.kind=embedings", "codec.dim=8"], "codec.kind is 'embedings'; did you mean embeddings"),
        (
            "mdlm",
            ["training=3"],
            r"group of settings; set one of them, such as [\w., ]*batch_size, training.grad_accumulation\.",
        ),
    ],
)
def test_what_cannot_be_set_is_refused(recipe, settings, said):
    with pytest.raises(UserError, match=said):
        overrides.apply_overrides(recipes.get(recipe)(), settings)


@pytest.mark.parametrize(
    ("recipe", "settings", "said"),
    [
        ("autoregressive", ["sampler.steps=64"], "takes one step for each of the 128 "),
        ("mdlm", ["sampler.kind=first_hitting", "sampler.steps=8"], "takes one step for each of the 128 "),
        ("mdlm", ["sampler.kind=first_hitting", "sampler.steps=200"], None),
        ("cdcd", ["sampler.grid=tuned"], "for sampling from a run"),
        (
            "block_diffusion",
            ["text.layout=lines", "text.mask=prefix", "text.condition_dropout=0.1"],
            "no use in block diffusion",
        ),
    ],
)
def test_what_no_run_should_begin_with_is_refused_then_and_read_where_one_has_it(recipe, settings, said, tmp_path):
    config = overrides.apply_overrides(recipes.get(recipe)(), settings)
    assert loads(dumps(config)) == config
    layout = "stream" if config.text.layout == "auto" else config.text.layout
    text = replace(config.text, data=str(tmp_path / "none.txt"), tokenizer="characters", layout=layout, length=128)
    with pytest.raises(UserError, match=said or "none.txt"):
        train(replace(config, text=text), tmp_path / "run", cache=tmp_path)
    assert not (tmp_path / "run/config.json").exists()


def test_a_part_with_a_subclass_stays_a_choice():
    @dataclasses.dataclass(frozen=True)
    class Mine(Ancestral):
        pass

    assert {"ancestral": Ancestral, "mine": Mine}.items() <= Sampler.choices().items()
    del Mine
    gc.collect()  # a class is part of cycles
    assert "mine" not in Sampler.choices()


def test_an_absent_part_is_named():
    data = _data()
    del data["process"]
    with pytest.raises(UserError, match="process"):
        from_dict(Config, data)


def test_whole_numbers_are_read_as_floats_where_floats_are_meant():
    assert from_dict(Config, _changed("training.lr", 1)).training.lr == 1.0
    assert isinstance(from_dict(Config, _changed("training.lr", 1)).training.lr, float)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "{}", '{"schema": 0}', '{"schema": 999}'])
def test_files_that_are_no_configuration_are_refused(text):
    with pytest.raises(UserError, match=r"run/config\.json"):
        loads(text, "run/config.json")


def test_another_schema_is_named():
    with pytest.raises(UserError, match="schema 999; this version of textdiffusion reads schema 2"):
        loads(json.dumps({**_data(), "schema": 999}))


def test_a_run_of_the_first_schema_names_the_version_that_reads_it():
    with pytest.raises(UserError) as caught:
        loads(json.dumps({**_data(), "schema": 1}), "run/config.json")
    assert str(caught.value) == (
        "run/config.json was written by textdiffusion 0.1; read it with that version: "
        "pip install 'textdiffusion==0.1.*'."
    )


def test_training_settings_are_checked():
    with pytest.raises(UserError, match=r"multiple of training\.grad_accumulation"):
        Training(batch_size=10, grad_accumulation=3)
    with pytest.raises(UserError, match=r"training\.batch_size is 0"):
        Training(batch_size=0)
    with pytest.raises(UserError, match=r"training\.eval_windows is 0"):
        Training(eval_windows=0)


def test_unknown_recipes_and_variants_name_what_there_is():
    with pytest.raises(UserError, match=r"no recipe 'mdml'.*mdlm"):
        recipes.get("mdml")
    with pytest.raises(UserError, match=r"mdlm has no variant 'x'.*default"):
        recipes.get("mdlm")("x")


PARTS = {
    "diffusion": ProcessConfig,
    "objectives": Objective,
    "samplers": Sampler,
    "guidance": GuideConfig,
}


@pytest.mark.parametrize(("package", "base"), PARTS.items())
def test_a_part_in_a_file_of_its_own_is_found(package, base, tmp_path, monkeypatch):
    """A new file in the package is enough: no other file names it."""
    (tmp_path / "newcomer.py").write_text(
        "from dataclasses import dataclass\n"
        f"from {base.__module__} import {base.__name__}\n"
        "@dataclass(frozen=True)\n"
        f"class Newcomer({base.__name__}):\n"
        "    bind = __call__ = lambda *_, **__: None\n"
    )
    module = importlib.import_module(f"textdiffusion.{package}")
    monkeypatch.setattr(module, "__path__", [*module.__path__, str(tmp_path)])
    discovery.import_parts()
    try:
        assert "newcomer" in base.choices()
    finally:
        del sys.modules[f"textdiffusion.{package}.newcomer"]
        vars(module).pop("newcomer")
        gc.collect()
