"""Parameter groups, Muon, the learning rate, the average and the choice of device and dtype."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from textdiffusion.config.build import build_model
from textdiffusion.config.training import Training
from textdiffusion.core.devices import choose_device, choose_dtype
from textdiffusion.core.errors import UserError
from textdiffusion.storage.weights import load_weights, save_tensors, tensors_of
from textdiffusion.training.distributed import SingleProcess
from textdiffusion.training.muon import Muon, orthogonalize
from textdiffusion.training.optimizers import EMA, Optimizers, decay_at, lr_scale

from .tiny import tiny


def model_of(recipe: str, tmp_path, **training) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = tiny(recipe, tmp_path, **training)
        model: Any = build_model(config, 11)
        model.config = config
        return model


def test_every_parameter_is_in_one_group_with_the_right_settings(tmp_path):
    model = model_of("cdcd", tmp_path, weight_decay=0.1, density_lr=0.02, lr=0.001, optimizer="muon", muon_lr=0.005)
    optimizers = Optimizers(model, model.config.training)
    seen = {}
    for optimizer in optimizers.optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                assert parameter not in seen
                seen[parameter] = (type(optimizer).__name__, group["lr"], group["weight_decay"])
    names = {name: seen[p] for name, p in model.named_parameters()}
    assert len(seen) == len(names)
    assert names["time_density.fit"] == ("AdamW", 0.02, 0.0)
    assert names["codec.weight"] == ("AdamW", 0.001, 0.0)
    assert names["denoiser.decode_input.tokens"] == ("AdamW", 0.001, 0.0)
    assert all(seen[p][2] == 0.0 for p in model.denoiser.backbone.parameters() if p.ndim == 4)  # of `reach`
    assert names["denoiser.output_head.head.weight"] == ("AdamW", 0.001, 0.1)
    assert names["denoiser.output_head.head.bias"] == ("AdamW", 0.001, 0.0)
    assert names["denoiser.backbone.blocks.0.qkv.weight"] == ("Muon", 0.005, 0.1)
    assert names["denoiser.backbone.blocks.0.modulate.weight"] == ("AdamW", 0.001, 0.1)
    assert names["denoiser.backbone.time.mlp.0.weight"] == ("AdamW", 0.001, 0.1)


def test_embeddings_and_all_that_is_learned_of_the_noise_have_rates_of_their_own(tmp_path):
    model = model_of("plaid", tmp_path, density_lr=0.02, codec_lr=0.03, lr=0.001)
    optimizers = Optimizers(model, model.config.training)
    groups = [group for optimizer in optimizers.optimizers for group in optimizer.param_groups]
    rates = {parameter: group["lr"] for group in groups for parameter in group["params"]}
    names = {name: rates[p] for name, p in model.named_parameters()}
    assert names["codec.weight"] == 0.03
    assert names["time_density.fit"] == names["process.schedule.ends"] == 0.02
    assert names["denoiser.input.weight"] == 0.001


def test_the_densitys_gradient_does_not_shrink_the_networks(tmp_path):
    model = model_of("cdcd", tmp_path, grad_clip=1.0)
    optimizers = Optimizers(model, model.config.training)
    for p in optimizers.network:
        p.grad = torch.zeros_like(p)
    gradient = torch.zeros_like(optimizers.network[0])
    gradient[0, 0] = 0.5
    optimizers.network[0].grad = gradient
    model.time_density.fit.grad = torch.full((3,), 1e6)
    assert float(optimizers.step(0.0)) == pytest.approx(0.5)
    assert float(gradient[0, 0]) == pytest.approx(0.5)


@pytest.mark.parametrize(("clip", "norm"), [(1.0, 1.0), (0.0, 5.0), (6.0, 5.0)])
def test_a_gradient_above_the_clip_is_cut_to_it(clip, norm, tmp_path):
    model = model_of("cdcd", tmp_path, grad_clip=clip)
    optimizers = Optimizers(model, model.config.training)
    gradients = [torch.zeros_like(p) for p in optimizers.network]
    gradients[0].view(-1)[0], gradients[1].view(-1)[0] = 3.0, 4.0
    for p, gradient in zip(optimizers.network, gradients, strict=True):
        p.grad = gradient
    model.time_density.fit.grad = noise = torch.tensor([0.0, 5.0, 0.0])
    assert float(optimizers.step(0.0)) == pytest.approx(5.0)
    assert float(gradients[0].norm()) == pytest.approx(0.6 * norm)
    assert float(gradients[1].norm()) == pytest.approx(0.8 * norm)
    assert float(noise.norm()) == pytest.approx(norm)


def test_a_gradient_of_the_density_that_is_no_number_is_left_out(tmp_path):
    """In AdamW's averages it would stay, and the density never move again."""
    model = model_of("cdcd", tmp_path)
    optimizers = Optimizers(model, model.config.training)
    for bad in (math.inf, math.nan):
        model.time_density.fit.grad = torch.tensor([bad, 1.0, 1.0])
        model.codec.weight.grad = torch.ones_like(model.codec.weight)
        before = model.codec.weight.detach().clone()
        optimizers.step(1.0)
        assert not torch.equal(model.codec.weight, before)
    before = model.time_density.fit.detach().clone()
    model.time_density.fit.grad = torch.ones(3)
    optimizers.step(1.0)
    assert bool((model.time_density.fit < before).all())


def test_orthogonalised_keeps_the_directions_and_evens_the_lengths():
    matrices = torch.randn(3, 20, 32, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    for ours in (orthogonalize(matrices), orthogonalize(matrices.mT).mT):
        values = torch.linalg.svdvals(ours)
        assert float(values.min()) > 0.6
        assert float(values.max()) < 1.3
        assert torch.linalg.svdvals(ours - u @ v).max() < 0.4


def test_muon_matches_adamws_size_and_takes_stacked_matrices_apart():
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(96, 64, generator=generator)
    gradient[:32] *= 1000.0
    whole, parts = nn.Parameter(torch.zeros(96, 64)), [nn.Parameter(torch.zeros(32, 64)) for _ in range(3)]
    whole.grad = gradient.clone()
    for part, piece in zip(parts, gradient.chunk(3), strict=True):
        part.grad = piece.clone()
    Muon([(whole, 3)], lr=1.0).step()
    Muon([(part, 1) for part in parts], lr=1.0).step()
    assert torch.allclose(whole, torch.cat(list(parts)), atol=1e-6)
    assert whole.detach().square().mean().sqrt().item() == pytest.approx(0.2, rel=0.2)


def test_muon_is_momentum_with_nesterovs_look_ahead():
    first, second = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    parameter = nn.Parameter(torch.ones(8, 8))
    optimizer = Muon([(parameter, 1)], lr=0.1, weight_decay=0.5)
    expected, moment = torch.ones(8, 8), torch.zeros(8, 8)
    for gradient in (first, second):
        parameter.grad = gradient
        optimizer.step()
        moment = 0.95 * moment + 0.05 * gradient
        direction = orthogonalize((0.05 * gradient + 0.95 * moment)[None])[0] * 0.2 * math.sqrt(8)
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * direction
    assert torch.allclose(parameter, expected, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_optimizer_state_survives_being_saved(optimizer, tmp_path):
    models = [model_of("cdcd", tmp_path, optimizer=optimizer) for _ in range(2)]
    one, other = (Optimizers(model, model.config.training) for model in models)

    def step(model, optimizers, seed):
        generator = torch.Generator().manual_seed(seed)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimizers.step(1.0)

    step(models[0], one, 1)
    save_tensors(tensors_of(models[0]), tmp_path / "model")
    load_weights(models[1], tmp_path / "model")
    other.load({name: tensor.clone() for name, tensor in one.tensors().items()})
    step(models[0], one, 2)
    step(models[1], other, 2)
    saved = tensors_of(models[1])
    assert all(torch.equal(tensor, saved[name]) for name, tensor in tensors_of(models[0]).items())


@given(st.integers(1, 400), st.integers(0, 500), st.sampled_from(["linear", "cosine", "constant"]))
def test_the_rate_warms_up_and_ends_at_zero(steps, warmup, decay):
    training = Training(steps=steps, warmup=warmup, decay=decay)
    rates = [lr_scale(training, step, step / steps) for step in range(steps)]
    assert all(0 < r <= 1 for r in rates)
    warm = min(warmup, steps // 20)
    assert rates[: warm + 1] == sorted(rates[: warm + 1])
    assert rates[warm:] == sorted(rates[warm:], reverse=True)
    assert rates[warm] == pytest.approx(1.0)
    if decay == "linear":
        assert rates[-1] == pytest.approx(1 / (steps - warm))
        assert lr_scale(training, steps // 2, 1.0) == 0.0


@given(st.integers(40, 400), st.floats(0.01, 1.0), st.sampled_from(["linear", "cosine", "exponential"]))
def test_decay_ends_at_its_floor(steps, floor, decay):
    training = Training(steps=steps, warmup=0, decay=decay, min_lr_ratio=floor)
    rates = [lr_scale(training, step, step / steps) for step in range(steps + 1)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 1.0
    assert rates[-1] == pytest.approx(floor)
    if decay == "exponential":
        assert [b / a for a, b in pairwise(rates)] == pytest.approx([floor ** (1 / steps)] * steps)


def test_a_rate_that_falls_with_the_root_of_the_step():
    training = Training(steps=8000, warmup=100, decay="inverse_sqrt")
    rates = [lr_scale(training, step, step / 8000) for step in range(8000)]
    assert max(rates) == rates[99] == 1.0
    assert rates[399] == pytest.approx(0.5)
    assert rates[6399] == pytest.approx(0.125)


def test_a_rate_for_muon_without_muon_is_refused():
    with pytest.raises(UserError, match=r"training\.muon_lr has no effect with training\.optimizer=adamw"):
        Training(muon_lr=0.02)
    assert Training(muon_lr=0.02, optimizer="muon").muon_lr == 0.02


def test_a_floor_without_effect_is_refused():
    with pytest.raises(UserError, match=r"training\.min_lr_ratio has no effect with training\.decay=constant"):
        Training(decay="constant", min_lr_ratio=0.1)
    with pytest.raises(UserError, match=r"exponential never reaches 0; set training\.min_lr_ratio"):
        Training(decay="exponential")


@pytest.mark.parametrize("decay", ["linear", "cosine", "constant"])
def test_a_slow_run_under_a_time_limit_warms_up_within_a_twentieth_of_it(decay):
    slow = Training(steps=10**9, warmup=100, decay=decay)
    counted = Training(steps=50, warmup=100, decay=decay)
    rates = [lr_scale(slow, step, step / 50) for step in range(50)]
    assert rates[1:] == [lr_scale(counted, step, step / 50) for step in range(1, 50)]
    assert 0 < rates[0] < rates[1] == 1.0
    fast = [lr_scale(slow, step, step / 2000) for step in range(2000)]
    assert fast[49] == pytest.approx(0.5)
    assert fast[100] == 1.0


def test_the_average_follows_parameters_and_buffers(tmp_path):
    model = model_of("cdcd", tmp_path)
    average = EMA(model, 0.9999)
    start = {name: tensor.clone() for name, tensor in tensors_of(model).items()}
    expected = dict(start)
    for step in range(3):
        for tensor in tensors_of(model).values():
            tensor.add_(1)
        average.update(step)
        decay = (1 + step) / (10 + step)
        expected = {k: decay * v + (1 - decay) * (start[k] + step + 1) for k, v in expected.items()}
    averaged = tensors_of(average.model)
    assert "time_density.averaged" in averaged
    assert int(averaged["step"]) == 3  # whole numbers are copied
    assert all(torch.allclose(averaged[k], v, atol=1e-5) for k, v in expected.items() if k != "step")
    assert decay_at(0.9999, 10**6) == 0.9999
    assert decay_at(0.9999, 0) == 0.1


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path):
    model = model_of("mdlm", tmp_path)
    tensors = tensors_of(model)
    save_tensors({k: v for k, v in tensors.items() if k != "denoiser.head.bias"}, tmp_path / "fewer")
    with pytest.raises(UserError, match=r"it lacks denoiser\.head\.bias"):
        load_weights(model, tmp_path / "fewer")
    save_tensors({**tensors, "denoiser.head.bias": torch.zeros(3)}, tmp_path / "shorter")
    with pytest.raises(UserError, match=r"denoiser\.head\.bias has shape \[3\] instead of \[11\]"):
        load_weights(model, tmp_path / "shorter")
    (tmp_path / "cut").write_bytes((tmp_path / "fewer").read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        load_weights(model, tmp_path / "cut")


def test_device_and_dtype(monkeypatch):
    with pytest.raises(UserError, match="can be auto, cpu, cuda or mps"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="'cuda', but PyTorch finds none on this machine"):
            choose_device("cuda")
    cpu = torch.device("cpu")
    assert choose_device("cpu") == cpu
    assert choose_dtype("bfloat16", cpu)[0] is torch.bfloat16
    for amx, avx512, expected in [(1, 1, torch.bfloat16), (0, 1, torch.bfloat16), (0, 0, torch.float32)]:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: bool(amx))
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx512=avx512: bool(avx512))
        assert choose_dtype("auto", cpu)[0] is expected


def test_every_process_has_a_gpu_of_its_own_and_makes_it_the_current_one(monkeypatch):
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    world = SingleProcess()
    world.local_rank = 1
    assert world.device("cpu") == torch.device("cpu")
    assert chosen == []
    assert world.device("auto") == torch.device("cuda", 1)
    assert chosen == [torch.device("cuda", 1)]
    world.local_rank = 2
    with pytest.raises(UserError, match=r"Process 2 of this machine has no GPU of its own: the machine has 2"):
        world.device("cuda")
