"""Settings of networks: which can be chosen, what each builds, and what is refused before anything is built."""

import inspect

import pytest

from textdiffusion import recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.errors import UserError
from textdiffusion.networks.backbone import BackboneConfig
from textdiffusion.networks.bert import BertConfig
from textdiffusion.networks.denoiser import DenoiserConfig
from textdiffusion.networks.output_heads import OutputHeadConfig

CHOICES = {
    BackboneConfig: ["bert", "language_model", "transformer", "unet"],
    DenoiserConfig: [
        "block_denoiser",
        "dual_denoiser",
        "embedding_denoiser",
        "lm_block_denoiser",
        "lm_denoiser",
        "mask_denoiser",
        "next_token_denoiser",
        "score_denoiser",
        "simplex_denoiser",
        "token_denoiser",
    ],
    OutputHeadConfig: ["bit_logits", "x0_logits", "x0_regression"],
}


@pytest.mark.parametrize("base", CHOICES, ids=lambda base: base.__name__)
def test_settings_stand_above_the_module_that_they_build(base):
    choices = base.choices()
    assert list(choices) == CHOICES[base]  # no abstract class is among them
    for settings in choices.values():
        assert settings.module is not None
        assert settings.module.__module__ == settings.__module__
        assert inspect.getsourcelines(settings)[1] < inspect.getsourcelines(settings.module)[1]


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        (
            "mdlm",
            "process.kind=uniform",
            r"denoiser\.kind=mask_denoiser works with process\.kind=absorbing, dual_absorbing or wave, not",
        ),
        ("udlm", "process.kind=absorbing", "token_denoiser works with process.kind=uniform, not with absorbing"),
        (
            "mdlm",
            "denoiser.kind=score_denoiser codec.kind=embeddings process.kind=gaussian",
            "process.kind=absorbing, dual_absorbing or uniform, not",
        ),
        ("mdlm", "denoiser.kind=simplex_denoiser", "simplex_denoiser works with codec.kind=simplex, not with tokens"),
        (
            "mdlm",
            "denoiser.kind=embedding_denoiser",
            "works with codec.kind=bits, embeddings or simplex, not",
        ),
        ("cdcd", "denoiser.output_head.kind=bit_logits", r"output_head\.kind=bit_logits works with codec\.kind=bits"),
        ("block_diffusion", "backbone.kind=unet", "block_denoiser works with backbone.kind=transformer, not with unet"),
        ("block_diffusion", "backbone.conv_radius=2", r"conv_radius is 2, but block_denoiser .*; set it to 0"),
        ("autoregressive", "backbone.modulation=film", "modulation is film, but next_token_denoiser has no time input"),
        ("mdlm", "denoiser.time=true", r"denoiser\.time has no effect with backbone\.modulation=none"),
        ("udlm", "backbone.modulation=none", r"denoiser\.kind=token_denoiser needs the noise level"),
        (
            "mdlm",
            "process.schedule=log_linear process.time_input=sigma",
            r"process\.time_input=sigma has no effect without denoiser\.time",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_configuration(recipe, settings, message):
    with pytest.raises(UserError, match=message):
        apply_overrides(recipes.get(recipe)(), settings.split())


def test_an_encoder_takes_the_noise_level_without_a_setting_for_it():
    backbone = apply_overrides(recipes.get("diffusion_lm")(), ["backbone.kind=bert"]).backbone
    assert isinstance(backbone, BertConfig)
    assert backbone.modulation == "added"
