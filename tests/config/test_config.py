"""Configurations survive the disk, and refuse what they do not know."""

import dataclasses
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from textdiffusion import parts, recipes
from textdiffusion.config import overrides
from textdiffusion.config.config import Config, Training, dumps, from_dict, loads, to_dict
from textdiffusion.core.errors import UserError
from textdiffusion.parts import Part
from textdiffusion.recipes import UnknownVariant
from textdiffusion.training.run import train


def _variants():
    for name in recipes.names():
        with pytest.raises(UnknownVariant) as caught:
            recipes.get(name)("no such variant")
        for variant in caught.value.variants:
            yield pytest.param(recipes.get(name)(variant), id=f"{name}, {variant}")


@pytest.mark.parametrize("config", list(_variants()))
def test_every_recipe_survives_the_round_trip(config):
    assert loads(dumps(config)) == config
    assert from_dict(Config, to_dict(config)) == config
    assert json.loads(dumps(config))["process"]["kind"] == type(config.process).__name__
    assert dumps(loads(dumps(config))) == dumps(config)


def test_every_part_survives_the_round_trip():
    for kind in Part.choices().values():
        if dataclasses.is_dataclass(kind):
            asked = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING]  # by some guides
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
        ("trunk.size", 1, ["config.trunk has no size", "width", "depth"]),
        ("trunk.kinds", {}, ["config.trunk has no kinds"]),
        ("training.step", 1, ["config.training has no step", "batch_size"]),
        ("process.kind", "Absorb", ["config.process.kind is 'Absorb'", "Absorbing", "Gaussian"]),
        ("process.kind", "Tokens", ["config.process.kind is 'Tokens'"]),
        ("process.kind", None, ["config.process.kind is None"]),
        ("process.kind", ["Absorbing"], ["config.process.kind is ['Absorbing']"]),
        ("process.schedule", "quadratic", ["'quadratic'", "linear", "cosine"]),
        ("process.schedule", 3, ["config.process.schedule is 3"]),
        ("backbone.width", "wide", ["config.trunk.width is 'wide'", "int"]),
        ("backbone.width", 1.5, ["config.trunk.width is 1.5", "int"]),
        ("backbone.width", True, ["config.trunk.width is True", "int"]),
        ("backbone.qk_norm", 1, ["config.trunk.qk_norm is 1", "bool"]),
        ("backbone.dropout", "0.1", ["config.trunk.dropout is '0.1'", "float"]),
        ("trunk", 3, ["config.trunk is 3", "object"]),
        ("training", None, ["config.training is None"]),
        ("training.steps", 0, ["training.steps is 0", "at least 1"]),
        ("training.ema", 1.0, ["training.ema is 1.0"]),
        ("training.beta2", 1.0, ["training.beta2 is 1.0", "[0, 1)"]),
        ("training.lr", -1.0, ["training.lr is -1.0", "at least 0"]),
        ("training.muon_lr", float("nan"), ["training.muon_lr is nan"]),
        ("training.lr", float("inf"), ["training.lr is inf", "at least 0"]),
        ("training.num_samples", -1, ["training.num_samples is -1"]),
        ("sampler.greedy_below", float("nan"), ["Ordered.greedy is nan", "[0, 1]"]),
        ("sampler.kind", "Word", ["config.sampler.kind is 'Word'", "Ancestral"]),
        ("sampler.kind", "GaussianSteps", ["config.sampler.kind is 'GaussianSteps'", "OneStep"]),
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
        ("mdlm", ["sampler.kind=GaussianSteps"], "sampler.kind is 'GaussianSteps'"),
        ("mdlm", ["sampler.kind=word"], "sampler.kind is 'Word'"),
        ("mdlm", ["denoiser.kind=TokensPart"], "denoiser.kind is 'TokensPart'"),
        ("mdlm", ["training.kind=x"], "has no 'kind'"),
        ("cdcd", ["codec.kind=Embedings", "codec.dim=8"], "codec.kind is 'Embedings'; did you mean Embeddings"),
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
        ("autoregressive", ["sampler.steps=64"], "takes one for each of the 128 tokens"),
        ("mdlm", ["sampler.kind=first_hitting", "sampler.steps=8"], "takes one for each of the 128 tokens"),
        ("mdlm", ["sampler.kind=first_hitting", "sampler.steps=200"], None),
        ("cdcd", ["sampler.grid=tuned"], "for sampling from a run"),
        (
            "block_diffusion",
            ["text.layout=lines", "text.mask=prefix", "text.condition_dropout=0.1"],
            "no use with BlockTokens",
        ),
    ],
)
def test_what_no_run_should_begin_with_is_refused_then_and_read_where_one_has_it(recipe, settings, said, tmp_path):
    config = overrides.apply_overrides(recipes.get(recipe)(), settings)
    assert loads(dumps(config)) == config
    text = replace(config.text, data=str(tmp_path / "none.txt"))
    with pytest.raises(UserError, match=said or "none.txt"):
        train(replace(config, text=text), tmp_path / "run", cache=tmp_path)
    assert not (tmp_path / "run/config.json").exists()


def test_a_part_with_a_subclass_stays_a_choice():
    class Mine(parts.Ancestral):
        pass

    try:
        assert {"Ancestral", "Mine"} <= parts.SamplerPart.choices().keys()
    finally:
        del parts.Part.kinds["Mine"]


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
    with pytest.raises(UserError, match="schema 999; this version reads 1"):
        loads(json.dumps({**_data(), "schema": 999}))


def test_training_settings_are_checked():
    with pytest.raises(UserError, match="multiple of accumulate"):
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


def test_settings_are_read_without_torch():
    code = (
        "import sys, textdiffusion, textdiffusion.config.config, textdiffusion.recipes as r;"
        "[r.get(n)() for n in r.names()];"
        "from textdiffusion.config.config import dumps, loads; loads(dumps(r.get('mdlm')()));"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
