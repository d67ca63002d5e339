"""Recipes and their published variants."""

import ast
import json
from pathlib import Path

import pytest
import torch

from tests.models import model_of
from textdiffusion import recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.errors import UserError
from textdiffusion.core.registry import from_dict, to_dict
from textdiffusion.data.prepare import prepare
from textdiffusion.training.optimizers import lr_scale


def _parameters(config, vocab):
    with torch.device("meta"):
        return sum(p.numel() for p in model_of(config, vocab).parameters())


@pytest.mark.parametrize("name", ["mdlm", "sedd"])
def test_masked_recipes_as_published_have_the_released_models_parameters(name):
    """169,627,218 in both files, whose head has a row of 768 weights and a bias for the mask; ours has none."""
    assert _parameters(recipes.get(name)("as_published"), 50_257) == 169_627_218 - 769


def test_block_diffusion_as_published_is_the_network_of_mdlm():
    """As in the released files, which add two buffers."""
    sizes = [_parameters(recipes.get(name)("as_published"), 50_257) for name in ("block_diffusion", "mdlm")]
    assert sizes[0] == sizes[1]


def test_autoregressive_as_published_is_the_network_of_mdlm_without_noise_levels():
    """What modulates: 6 vectors a block and 2 at the end, each from 128 numbers, and the map from levels to these."""
    blocks, width, told = 12, 768, 128
    modulation = (6 * blocks + 2) * width * (told + 1) + (256 * told + told) + (told * told + told)
    found, mdlm = (_parameters(recipes.get(name)("as_published"), 50_257) for name in ("autoregressive", "mdlm"))
    assert mdlm - found == modulation


def test_cdcd_as_published_scales_to_the_papers_size():
    """The paper states 1.3 billion for 24 blocks of 2048 (section 5)."""
    config = apply_overrides(recipes.get("cdcd")("as_published"), ["backbone.width=2048", "backbone.depth=24"])
    assert _parameters(config, 32_000) == pytest.approx(1.3e9, rel=0.05)


def test_simple_diffusion_lm_as_published_has_the_originals_size():
    """27.7 million with 400 pieces; its second head, to states, is not here, and its FiLM modulates no last norm."""
    assert _parameters(recipes.get("simple_diffusion_lm")("as_published"), 400) == pytest.approx(27.7e6, rel=0.005)


def test_mini_cdcd_as_published_loses_three_percent_of_its_rate_in_a_hundred_steps():
    training = recipes.get("mini_cdcd")("as_published").training
    at = [lr_scale(training, step, step / training.steps) for step in (1999, 2000, 2100, 39_900)]
    assert at[:2] == [1.0, 1.0]
    assert at[2:] == pytest.approx([0.97, 0.97**379])


def test_mini_cdcd_as_published_is_as_large_as_the_notebooks():
    """139.96 million, in blocks of another shape."""
    assert _parameters(recipes.get("mini_cdcd")("as_published"), 30_522) == pytest.approx(139.96e6, rel=0.03)


def test_udlm_as_published_is_the_network_of_mdlm_on_its_own_tokens():
    """Released at about 139 million for the 30,522 tokens of BERT; every token has two rows of 768 and a bias."""
    config = recipes.get("udlm")("as_published")
    assert _parameters(config, 30_522) == 169_627_218 - (50_258 - 30_522) * 1537
    assert _parameters(config, 30_522) == pytest.approx(139e6, rel=0.01)


def test_analog_bits_as_published_has_a_bit_for_each_of_eight_and_a_network_of_its_documented_size():
    """The public code reaches 434.8 million because its channels multiply at every level (by 1, 2 and 8 in all)."""
    config = recipes.get("analog_bits")("as_published")
    assert model_of(apply_overrides(config, ["backbone.width=32", "backbone.depth=3"]), 256).codec.dim == 8
    assert _parameters(config, 256) == pytest.approx(92.3e6, rel=0.002)


def test_plaid_as_published_has_the_papers_sizes():
    """28 million without embeddings in the ablations (16 blocks of 384); a billion for 24 of 2048."""
    config = recipes.get("plaid")("as_published")
    assert _parameters(config, 32_000) - 32_000 * (16 + 385) == pytest.approx(28e6, rel=0.06)
    assert _parameters(apply_overrides(config, ["backbone.width=2048", "backbone.depth=24"]), 32_000) == pytest.approx(
        1.3e9, rel=0.05
    )


def test_ssd_lm_as_published_is_of_the_papers_size():
    """0.4 billion (RoBERTa-large). The table of corners is no parameter; this one is built for fewer tokens."""
    config, vocab = recipes.get("ssd_lm")("as_published"), 1000
    assert _parameters(config, vocab) - vocab**2 + 49_265 * 2 * 1024 == pytest.approx(0.4e9, rel=0.06)


def test_diffusion_lm_as_published_has_the_papers_size():
    """80 million, BERT-base without its words (section 5.2)."""
    config = recipes.get("diffusion_lm")("as_published")
    assert _parameters(config, 821) == pytest.approx(80e6, rel=0.08)


def test_minimal_text_diffusion_as_published_has_the_repositorys_parameters():
    """86.9 million at 165 words, counted in the repository's model."""
    assert _parameters(recipes.get("minimal_text_diffusion")("as_published"), 165) == pytest.approx(86.9e6, rel=0.01)


def test_no_other_file_knows_a_recipes_name():
    """What is published names its own kinds of networks, in `published`."""
    package = Path(recipes.__file__).parents[1]
    files = [f for f in package.rglob("*.py") if f.parent.name not in ("recipes", "published")]
    assert len(files) > 100
    for file in files:
        texts = {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}
        assert not texts & set(recipes.names()), file


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_explains_itself(name):
    text = recipes.get(name).__doc__
    assert text
    assert "textdiffusion train" in text


@pytest.mark.parametrize(
    ("recipe", "setting", "message"),
    [
        (
            "mdlm",
            "objective.kind=next_token",
            "objective.kind=next_token works with process.kind=autoregressive_order, not with absorbing",
        ),
        (
            "mdlm",
            "process.kind=gaussian",
            "process.kind=gaussian works with codec.kind=bits, embeddings or simplex, not with tokens",
        ),
        ("mdlm", "denoiser.time=true", "denoiser.time has no effect"),
        ("udlm", "denoiser.ngram_size=1", r"TokenDenoiserConfig.ngram_size is 1; it must be in \[2, 4\]"),
        (
            "mdlm",
            "process.schedule=log_linear process.time_input=sigma",
            "process.time_input=sigma has no effect without denoiser.time",
        ),
        (
            "sedd",
            "process.time_input=sigma denoiser.time=false backbone.modulation=none",
            "process.time_input=sigma has no effect without denoiser.time",
        ),
        ("mdlm", "backbone.norm_bias=true", "backbone.norm_bias has no effect without backbone.norm_weight"),
        ("mdlm", "process.time_input=sigma", "infinite at t = 1 of schedule=linear; use log_linear"),
        ("autoregressive", "sampler.steps=-1", "Autoregressive.steps is -1; it must be at least 0"),
        ("udlm", "sampler.steps=0", "Ancestral.steps is 0; it must be at least 1"),
        (
            "cdcd",
            "process.schedule=cosine",
            "time_density.kind=gumbel works with process.schedule.kind=log_sigma, not with cosine: it is a curve",
        ),
        (
            "cdcd",
            "time_density.kind=loss_second_moment",
            "time_density.kind=loss_second_moment works with objective.kind=diffusion_lm, not with score_interpolation",
        ),
        ("cdcd", "codec.norm=none", "init_std is 0.001, the unit of noise where codec.norm=none: .* codec.init_std=1"),
        (
            "cdcd",
            "backbone.modulation=none",
            "embedding_denoiser needs the noise level, .*; set backbone.modulation=film",
        ),
        (
            "ssd_lm",
            "backbone.kind=transformer",
            "simplex_denoiser needs the noise level, .*; set backbone.modulation=film",
        ),
        (
            "diffusion_lm",
            "denoiser.output_head.kind=x0_logits",
            "objective.kind=diffusion_lm works with denoiser.output_head.kind=x0_regression, not with x0_logits",
        ),
        ("autoregressive", "time_density.low=0.5", "density has no effect on NextToken"),
        ("cdcd", "process.schedule.sigma_min=1e-7", "LogSigma.sigma_min is 1e-07; it must be at least 1e-06"),
        ("difformer", "objective.ce_weight=1e-7", "objective.ce_weight is 1e-07; it must be at least 1e-06"),
        ("cdcd", "process.schedule.sigma_min=30", "LogSigma.sigma_max is 20; it must be at least 30.03"),
        (
            "cdcd",
            "denoiser.output_head.kind=bit_logits",
            "denoiser.output_head.kind=bit_logits works with codec.kind=bits, not with embeddings",
        ),
        ("difformer", "sampler.time_offset=-1", "DDIM.time_offset is -1; it must be at least 0"),
        ("mini_cdcd", "process.schedule.s=0.1", r"process.schedule \(LogSigma\) has no 's'"),
        (
            "ssd_lm",
            "codec.kind=embeddings",
            "denoiser.kind=simplex_denoiser works with codec.kind=simplex, not with embeddings",
        ),
        (
            "ssd_lm",
            "sampler.projection.top_p=0.9",
            r"sampler.projection \(NoProjection\) has no 'top_p': it has no settings",
        ),
        ("difformer", "sampler.eta=2", r"DDIM.eta is 2; it must be in \[0, 1\]"),
        (
            "difformer",
            "process.schedule.sigma_scale=4",
            r"process.schedule \(LogSigma\) has no 'sigma_scale'",
        ),
        ("simple_diffusion_lm", "sampler.eta=1", "sampler.eta=1 has no effect with renoise"),
        (
            "cdcd",
            "objective.kind=squared_error",
            "all learned embeddings equal; set codec.learned=false or objective.kind=mse_with_cross_entropy",
        ),
        (
            "cdcd",
            "objective.kind=gaussian_likelihood",
            "objective.kind is 'gaussian_likelihood'; did you mean gaussian_elbo?",
        ),
        ("cdcd", "likelihood.kind=score_interpolation", "did you mean score_entropy_likelihood?"),
        (
            "diffusion_lm",
            "objective.rounding_weight=0",
            "objective.rounding_weight is 0; it must be at least 1e-06, as rounding",
        ),
        (
            "analog_bits",
            "denoiser.output_head.kind=x0_regression",
            "denoiser.output_head.bias has no effect on SquaredError; set it to false",
        ),
        (
            "cdcd",
            "process.schedule=learned_log_sigma",
            "process.schedule.kind=learned_log_sigma works with objective.kind=gaussian_elbo, not with score_interp",
        ),
        (
            "plaid",
            "time_density.kind=cauchy",
            "objective.kind=gaussian_elbo works with time_density.kind=min_variance or uniform, not with cauchy",
        ),
        (
            "plaid",
            "process.schedule=log_sigma time_density.kind=gumbel",
            "objective.kind=gaussian_elbo works with time_density.kind=min_variance or uniform, not with gumbel",
        ),
        (
            "cdcd",
            "time_density.kind=min_variance",
            "time_density.kind=min_variance works with objective.kind=gaussian_elbo, not with score_interpolation",
        ),
        (
            "mdlm",
            "time_density.kind=time_warp",
            "time_density.kind=time_warp works with process.kind=gaussian, not with absorbing",
        ),
        ("difformer", "codec.dim=2", "Embeddings.dim is 2; it must be at least 3"),
        (
            "udlm",
            "backbone.modulation=none",
            "token_denoiser needs the noise level, which backbone.modulation=none ignores",
        ),
        ("udlm", "process.kind=absorbing", "token_denoiser works with process.kind=uniform, not with absorbing"),
        (
            "udlm",
            "objective.kind=masked_elbo",
            "objective.kind=masked_elbo works with process.kind=absorbing, block_absorbing or dual_absorbing, not with",
        ),
        ("d3pm", "objective.cross_entropy=-1", "DiscreteELBO.cross_entropy is -1; it must be at least 0"),
        (
            "autoregressive",
            "sampler.kind=ancestral",
            "Ancestral cannot act on AutoregressiveProcess: it needs TokenProcess",
        ),
        (
            "mdlm",
            "process.kind=block_absorbing",
            "mask_denoiser works with process.kind=absorbing, dual_absorbing or wave, not with block_absorbing",
        ),
        (
            "block_diffusion",
            "sampler.kind=ancestral",
            "Ancestral cannot act on BlockProcess: it needs TokenProcess",
        ),
        ("block_diffusion", "sampler.steps=3 text.length=50", "sampler.steps is 3; a window's 4 blocks take at least"),
        ("block_diffusion", "process.block_size=0", "BlockAbsorbing.block_size is 0; it must be at least 1"),
        ("block_diffusion", "time_density.low=1", r"Uniform.low is 1; it must be in \[0, 0.99\]"),
        ("mdlm", "backbone.width=200", "backbone.width is 200"),
        ("autoregressive", "backbone.modulation=adaln", "modulation"),
    ],
)
def test_parts_that_do_not_fit_are_refused_in_a_sentence(recipe, setting, message):
    with pytest.raises(UserError, match=message):
        model_of(apply_overrides(recipes.get(recipe)(), setting.split()), 11)


def test_vectors_that_do_not_move_may_begin_small():
    model_of(
        apply_overrides(recipes.get("cdcd")(), ["codec.norm=none", "codec.init_std=0.05", "codec.learned=false"]), 11
    )


@pytest.mark.parametrize("name", recipes.names())
def test_every_variant_survives_its_json(name):
    for variant in recipes.variants(name):
        config = recipes.get(name)(variant)
        assert from_dict(type(config), to_dict(config)) == config


def test_mini_cdcd_as_published_reads_a_story_a_window_and_masks_its_padding(data, tmp_path):
    paragraphs = (data / "corpora/tinystories_1k.txt").read_text(encoding="utf-8").split("\n\n")[:60]
    file = tmp_path / "stories.jsonl"
    file.write_text("".join(json.dumps({"text": paragraph}) + "\n" for paragraph in paragraphs))
    vocab = data / "tokenizers/bert/vocab.txt"
    text = apply_overrides(
        recipes.get("mini_cdcd")("as_published"), [f"text.data={file}", f"text.tokenizer_path={vocab}"]
    ).text
    corpus = prepare(text, tmp_path / "cache")
    batch = corpus.train.windows(range(len(corpus.train)))
    assert corpus.tokenizer.vocab_size == 30_522
    assert batch.tokens.shape == (54, 64)
    assert batch.valid_mask is not None
    assert bool(batch.valid_mask[:, 0].all())
    assert not bool(batch.valid_mask.all())
    long, short = int(batch.valid_mask.sum(1).argmax()), int(batch.valid_mask.sum(1).argmin())
    said = corpus.tokenizer.decode(batch.tokens[short][batch.valid_mask[short]].numpy())
    assert said.replace(" ", "") == paragraphs[short].lower().replace(" ", "")
    assert int(batch.valid_mask[long].sum()) == 64
