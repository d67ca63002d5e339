"""The commands, as a user calls them."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from textdiffusion import TextDiffusion, recipes
from textdiffusion.cli.output import print_texts
from textdiffusion.cli.train import UNLIMITED, Train
from textdiffusion.core.errors import UserError
from textdiffusion.diffusion.table_codecs import Bits, Embeddings
from textdiffusion.inference.selection import best_of, fluency, mbr
from textdiffusion.networks.transformer import TransformerConfig

MakeRun = Callable[..., Path]


def test_sample_prints_the_texts_and_json_the_same_bytes_each_time(textdiffusion, tiny_run: MakeRun):
    run = tiny_run("mdlm", "text.layout=lines", "text.model_padding=true")
    plain = textdiffusion("sample", run, "--num", 3, "--seed", 5)
    first, again = (textdiffusion("sample", run, "--num", 3, "--seed", 5, "--json") for _ in range(2))
    assert first == again
    assert (plain.code, plain.err) == (0, "")
    told = json.loads(first.out)
    assert plain.out == "".join(text + "\n" for text in told["texts"])
    assert (told["num"], told["steps"], told["sampler"], told["length"]) == (3, 6, "unmasking", 32)
    assert not any("seconds" in key or "time" in key for key in told)


def test_texts_of_several_lines_have_headings(textdiffusion, tiny_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "textdiffusion.inference.api.TextDiffusion.decode", lambda self, step, batch: ["a\nb", "[red]c"]
    )
    assert textdiffusion("sample", tiny_run("mdlm")).out == "--- 1\na\nb\n--- 2\n[red]c\n"


def test_many_texts_are_written_in_parts(textdiffusion, tiny_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    from textdiffusion import TextDiffusion

    rows: list[int] = []
    stream = TextDiffusion.stream

    def counted(self, *, batch, **options):
        rows.append(len(batch.tokens))
        return stream(self, batch=batch, **options)

    monkeypatch.setattr(TextDiffusion, "stream", counted)
    sample = ("sample", tiny_run("mdlm"), "--num", 5, "--json")
    whole = textdiffusion(*sample)
    monkeypatch.setattr("textdiffusion.inference.run._MAX_ROWS", 2)
    assert textdiffusion(*sample) == whole
    textdiffusion("sample", tiny_run("mdlm"), "--num", 5, "--watch")
    assert rows == [5, 2, 2, 1, 5]  # what is watched is shown at once


def test_watching_degrades_to_lines(textdiffusion, tiny_run: MakeRun):
    done = textdiffusion("sample", tiny_run("mdlm"), "--num", 1, "--watch")
    assert "\x1b" not in done.out
    assert done.out.startswith("[step 0/6, noise 100%] ░░░")
    assert "[step 6/6, noise 0%" in done.out


def test_pages_and_animations(textdiffusion, tiny_run: MakeRun, tmp_path: Path):
    pytest.importorskip("PIL")
    page, gif = tmp_path / "a.html", tmp_path / "a.gif"
    done = textdiffusion("sample", tiny_run("cdcd"), "--num", 2, "--html", page, "--gif", gif)
    assert done.code == 0
    assert "Saved" not in done.out  # that goes to standard error
    assert gif.read_bytes().startswith(b"GIF8")
    assert done.out.splitlines()[-1][:10] in page.read_text()


def test_infill_keeps_the_text_and_says_what_the_run_can_do(textdiffusion, tiny_run: MakeRun):
    done = textdiffusion("infill", tiny_run("mdlm"), "The [MASK:3] pear is [MASK:4].", "--num", 3)
    assert done.err == ""
    told = textdiffusion("infill", tiny_run("mdlm"), "The [MASK:3] pear is [MASK:4].", "--num", 3, "--json")
    for text in json.loads(told.out)["texts"]:
        assert re.fullmatch(r"The .{3} pear is .{4}\.", text, re.DOTALL)
        assert text in done.out
    assert "from left to right" in textdiffusion("infill", tiny_run("autoregressive"), "The [MASK:3]").err
    assert "expect worse" in textdiffusion("infill", tiny_run("mdlm"), "The [MASK:40]", "--num", 1, "--steps", 1).err
    refused = textdiffusion("infill", tiny_run("mdlm"), "The [MASK:x]")
    assert (refused.code, refused.out) == (2, "")


def test_revise_shows_and_saves_what_it_does(textdiffusion, tiny_run: MakeRun, tmp_path: Path):
    draft = ("revise", tiny_run("mdlm"), "The red pear is old.", "--num", 2)
    told = json.loads(textdiffusion(*draft, "--strength", 0.5, "--keep", "pear", "--json").out)
    assert all(len(text) == 20 and "pear" in text for text in told["texts"])
    assert (told["text"], told["strength"], told["select"], told["keep"]) == (draft[2], 0.5, "random", ["pear"])
    assert textdiffusion(*draft, "--strength", 0).out.count("The red pear is old.") == 2
    page = tmp_path / "revised.html"
    watched = textdiffusion(*draft, "--select", "suspect", "--watch", "--html", page)
    assert "[step 0/" in watched.out
    assert page.exists()
    assert "must be between 0" in textdiffusion(*draft, "--strength", 2).err
    assert "from left to right" in textdiffusion("revise", tiny_run("autoregressive"), *draft[2:]).err


def test_texts_are_piped_as_they_are(capsys: pytest.CaptureFixture[str]):
    print_texts(["a\tb", "[red]"], [1.0, 2.0])
    assert capsys.readouterr().out == "1.000\ta\tb\n2.000\t[red]\n"


def test_candidates_are_chosen_from(textdiffusion, tiny_run: MakeRun):
    run = tiny_run("autoregressive")
    few = ("--length", 6, "--json")
    drawn = json.loads(textdiffusion("sample", run, "--num", 6, *few).out)["texts"]
    model = TextDiffusion.from_pretrained(run)
    told = json.loads(textdiffusion("sample", run, "--num", 2, "--best-of", 3, *few).out)
    assert told["texts"] == [best_of(group, fluency(model)) for group in (drawn[:3], drawn[3:])]
    assert (told["num"], told["best_of"]) == (2, 3)
    ranked = json.loads(textdiffusion("sample", run, "--num", 2, "--best-of", 3, "--rank", *few).out)
    bits = [-score for score in fluency(model)(ranked["texts"])]
    assert ranked["bits_per_character"] == pytest.approx(sorted(bits), abs=1e-4)
    assert sorted(ranked["texts"]) == sorted(told["texts"])
    assert ranked["calls"] == 6
    ranked = json.loads(textdiffusion("sample", run, "--num", 6, "--rank", "--distinct", *few).out)
    assert sorted(ranked["texts"]) == sorted({*drawn})
    assert ranked["bits_per_character"] == pytest.approx([-s for s in fluency(model)(ranked["texts"])], abs=1e-4)
    assert ranked["bits_per_character"] == sorted(ranked["bits_per_character"])
    agreed = json.loads(textdiffusion("sample", run, "--num", 2, "--mbr", 3, *few).out)["texts"]
    assert agreed == [mbr(group) for group in (drawn[:3], drawn[3:])]
    once = textdiffusion("infill", run, "The [MASK:1]", "--num", 30, "--distinct", "--json")
    texts = json.loads(once.out)["texts"]
    assert len(texts) == len(set(texts)) < 30
    assert "were duplicates" in once.err
    assert "exclude each other" in textdiffusion("sample", run, "--mbr", 2, "--best-of", 2).err


def test_noise_needs_no_model(textdiffusion, tiny_run: MakeRun):
    done = textdiffusion("noise", "Shall I compare thee", "--t", 0, 0.5, 1)
    lines = done.out.splitlines()
    assert lines[0] == "t = 0     Shall I compare thee"
    assert 0 < lines[1].count("░") < 20
    assert lines[2] == "t = 1     " + 20 * "░"
    hidden = [[c == "░" for c in line] for line in lines]
    for above, below in pairwise(hidden):  # what is noise stays noise
        assert all(a <= b for a, b in zip(above, below, strict=True))
    gaussian = textdiffusion("noise", "The red pear", "--t", 0, 1, "--run", tiny_run("cdcd"), "--json")
    clean, noise = json.loads(gaussian.out)
    assert clean["text"] == "The red pear"
    assert noise["text"] != clean["text"]


@pytest.mark.parametrize("recipe", recipes.names())
def test_the_noise_of_every_recipe(textdiffusion, tiny_run: MakeRun, recipe: str):
    done = textdiffusion("noise", "The red pear", "--t", 0, 0.5, 1, "--run", tiny_run(recipe), "--json")
    assert done.code == 0, done.err
    clean, half, noise = (line["text"] for line in json.loads(done.out))
    assert clean == "The red pear"
    assert noise not in (clean, half)
    if recipe == "autoregressive":
        assert (half, noise) == ("The re" + 6 * "░", 12 * "░")


@pytest.mark.parametrize("recipe", ["mini_cdcd", "mdlm"])
def test_plot_draws_a_run(textdiffusion, tiny_run: MakeRun, tmp_path: Path, recipe: str):
    pytest.importorskip("matplotlib", reason="matplotlib (extra `plot`) is not installed")
    picture = tmp_path / "curve.svg"
    done = textdiffusion("plot", tiny_run(recipe), "--out", picture, "--levels", 6, "--windows", 2, "--json")
    assert done.code == 0, done.err
    assert "<svg" in picture.read_text()
    points = json.loads(done.out)
    assert [point["noise"] for point in points] == sorted(point["noise"] for point in points)
    assert all((point["fitted"] is None) == (recipe == "mdlm") for point in points)
    assert "--levels must be at least 2" in textdiffusion("plot", tiny_run(recipe), "--levels", 1).err


def test_plot_says_before_any_work_that_matplotlib_is_missing(textdiffusion, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install 'textdiffusion[plot]'" in textdiffusion("plot", "no/such/run").err


def test_recipes_and_their_variants(textdiffusion):
    told = json.loads(textdiffusion("recipes", "--json").out)
    assert [entry["name"] for entry in told] == recipes.names()
    table = textdiffusion("recipes").out
    for entry in told:
        assert entry["what"]
        assert "default" in entry["variants"]
        assert entry["what"] in table
        for variant in entry["variants"]:
            recipes.get(entry["name"])(variant)


def test_a_recipe_is_described_in_whole(textdiffusion):
    told = textdiffusion("recipes", "sedd").out
    assert told.startswith(textdiffusion("recipes", "sedd", "--json").out.split('"what": "')[1].split('"')[0])
    assert "`as_published` is the paper's small OpenWebText model" in told
    assert "Variants: default, uniform, as_published" in told
    assert "There is no recipe 'sed'; did you mean sedd?" in textdiffusion("recipes", "sed").err
    assert "There is no recipe 'x'; there are adapted, analog_bits," in textdiffusion("recipes", "x").err


def test_tune_writes_a_grid_that_sampling_uses(textdiffusion, tiny_run: MakeRun, tmp_path: Path):
    run = shutil.copytree(tiny_run("cdcd"), tmp_path / "run")
    tuned = ("sample", run, "--num", 1, "--steps", 3, "--sampler", "heun:grid=tuned")
    assert "measure one with `textdiffusion tune RUN`" in textdiffusion(*tuned).err
    assert "half of the steps" in textdiffusion("tune", run, "--levels", 6, "--windows", 2).err
    times = json.loads((run / "grid.json").read_text())["t"]
    assert (times[0], times[-1]) == (0.0, 1.0)
    assert times == sorted(times)
    assert textdiffusion(*tuned).code == 0
    saved = TextDiffusion.from_pretrained(run, device="cpu").save_pretrained(tmp_path / "saved")
    assert (saved / "grid.json").read_text() == (run / "grid.json").read_text()
    assert "Gaussian processes" in textdiffusion("tune", tiny_run("mdlm"), "--levels", 6).err


def test_samplers_of_a_run(textdiffusion, tiny_run: MakeRun):
    told = json.loads(textdiffusion("samplers", tiny_run("cdcd"), "--json").out)
    own = [(s["name"], s["intended"]) for s in told if not s["in_masks"]]
    assert own == [("ddim", False), ("dpm_solver", True), ("heun", False)]
    assert "unmasking" in [s["name"] for s in told if s["in_masks"]]
    assert told[1]["settings"]["steps"] == 6
    assert "dpm_solver *" in textdiffusion("samplers", tiny_run("cdcd")).out


def test_doctor(textdiffusion, tiny_run: MakeRun, tmp_path: Path):
    done = textdiffusion("doctor", tiny_run("mdlm"))
    assert done.code == 0
    for name in ("python", "torch", "device", "compiler", "extra hf", "checkpoint", "text"):
        assert f"ok  {name}" in done.out
    assert "matches its checksum" in done.out
    broken = textdiffusion("doctor", tmp_path)
    assert broken.code == 2
    assert "!!  run" in broken.out


def test_doctor_finds_damaged_text(textdiffusion, tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEXTDIFFUSION_CACHE", str(tmp_path))
    run = tiny_run("mdlm")
    assert textdiffusion("doctor", run).code == 0
    shard = next(tmp_path.glob("*/train.tokens"))
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    found = textdiffusion("doctor", run)
    assert found.code == 0
    assert "It is prepared again" in found.out + found.err
    assert "ok  text" in found.out
    assert shard.read_bytes() != bytes(raw)


def command(*settings: str, **options) -> Train:
    return Train(recipe="cdcd", data="x.txt", out="run", set=(settings,), **options)


def test_train_options_become_the_configuration():
    config = command(
        "model.width=64",
        "training.lr=1e-4",
        steps=7,
        batch_size=8,
        length=16,
        tokenizer="bytes",
        layout="lines",
    ).config()
    assert (config.backbone.width, config.training.lr, config.training.steps) == (64, 1e-4, 7)
    assert (config.training.batch_size, config.text.length, config.text.data) == (8, 16, "x.txt")
    assert (config.text.tokenizer, config.text.layout, config.text.model_padding) == ("bytes", "lines", True)
    assert command().config().backbone == recipes.get("cdcd")().backbone
    assert command(tokenizer="some/tokenizer.json").config().text.tokenizer_path == "some/tokenizer.json"


def test_packed_examples_have_no_model_of_their_padding():
    for layout in ("lines", "documents"):
        packed = command("text.packing=true", layout=layout).config().text
        assert (packed.layout, packed.packing, packed.model_padding) == (layout, True, False)
        assert command(layout=layout).config().text.model_padding
        assert not command("text.model_padding=false", layout=layout).config().text.model_padding
    assert not command(layout="stream").config().text.model_padding
    with pytest.raises(UserError, match="exclude each other"):
        command("text.packing=true", "text.model_padding=true", layout="lines").config()


@pytest.mark.parametrize("recipe", recipes.names())
def test_every_recipe_takes_every_tokenizer_and_layout(recipe):
    """Settings of the recipe's own tokenizer or layout give way, which the person who asks for another did not set."""
    for variant in recipes.variants(recipe):
        for tokenizer in ("characters", "bytes", "words", "bpe", "wordpiece", "sentencepiece", "mine.json"):
            text = Train(recipe=recipe, variant=variant, data="my.txt", out="run", tokenizer=tokenizer).config().text
            assert text.tokenizer == (tokenizer if tokenizer != "mine.json" else "file")
            assert text.subword_sampling == 0.0 or tokenizer == "sentencepiece"
        for layout in ("stream", "lines", "documents"):
            text = Train(recipe=recipe, variant=variant, data="my.txt", out="run", layout=layout).config().text
            assert text.layout == layout
        task = Train(recipe=recipe, variant=variant, data="sudoku:easy:100:0", out="run").config().text
        assert (task.mask, task.packing, task.subword_sampling) == ("question", False, 0.0)


def test_a_published_recipe_takes_a_text_and_tokenizer_of_ones_own():
    config = command(variant="as_published", tokenizer="bytes").config()
    assert (config.text.field, config.text.tokenizer_path, config.text.vocab_size) == ("", "", 0)
    records = Train(recipe="mdlm", variant="as_published", data="mine.jsonl", out="run").config()
    assert (records.text.field, records.text.tokenizer) == ("text", "file")


def test_time_alone_decides_where_it_alone_is_given():
    assert command(max_minutes=5.0).config().training.steps == UNLIMITED
    assert command(max_minutes=5.0, steps=9).config().training.steps == 9
    assert command("training.steps=3", max_minutes=5.0).config().training.steps == 3


def test_sizes():
    tiny, small, base = (command(size=size).config() for size in ("tiny", "small", "base"))
    assert [(c.backbone.width, c.backbone.depth) for c in (tiny, small, base)] == [(128, 4), (384, 6), (768, 12)]
    assert tiny.training.lr * 128 == pytest.approx(small.training.lr * 384)
    assert command("backbone.depth=2", size="small").config().backbone.depth == 2  # --set comes last


def test_settings_of_every_type():
    config = command(
        "codec.dim=16",
        "text.tokenizer=characters",
        "text.model_padding=false",
        "training.steps=1e3",
        "text.data=7",
        "process.schedule=karras",
        "time_density.kind=cauchy",
        "backbone.dropout=0",
    ).config()
    assert isinstance(config.codec, Embeddings)
    assert config.codec.dim == 16
    assert config.text.model_padding is False
    assert config.training.steps == 1000
    assert config.text.data == "7"
    assert isinstance(config.backbone, TransformerConfig)
    assert config.backbone.dropout == 0.0
    assert command("codec.dim=16", "codec.kind=embeddings").config().codec == Embeddings()  # from its defaults
    assert command("codec.kind=bits", "codec.code=gray").config().codec == Bits(code="gray")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("training.steps=many", "must be a whole number"),
        ("text.packing=yes", "true or false"),
        (
            "process.schedule=steep",
            "it can be cosine, discrete_betas, karras, learned_log_sigma, linear_beta, linear_sigma, log_sigma, sqrt.",
        ),
        ("codec.kind=nothing", "embeddings"),
        ("training=3", "group of settings"),
        ("backbone=3", "There is no backbone '3'; it can be bert, language_model, transformer, unet."),
        ("backbone.width.more=3", "single value"),
        ("training.stpes=3", "did you mean training.steps"),
    ],
)
def test_settings_that_do_not_fit(textdiffusion, setting: str, says: str):
    done = textdiffusion("train", "cdcd", "--data", "x", "--out", "y", "--set", setting)
    assert (done.code, done.out) == (2, "")
    assert says in done.err


SMALL = ("backbone.width=64", "backbone.depth=1", "text.length=32", "training.eval_windows=2", "sampler.steps=2")


def test_from_a_text_to_samples(textdiffusion, tiny_run: MakeRun, tmp_path: Path):
    """train, continue, fine-tune, sample, evaluate: the whole path."""
    from textdiffusion import TextDiffusion

    data = TextDiffusion.from_pretrained(tiny_run("mdlm")).config.text.data
    train = ("train", "mdlm", "--data", data, "--batch-size", 4, "--device", "cpu", "--set", *SMALL)
    done = textdiffusion(*train, "--out", tmp_path / "a", "--steps", 2)
    assert done.code == 0, done.err
    assert "textdiffusion sample" in done.out
    again = textdiffusion(*train, "--out", tmp_path / "a", "--steps", 2, "--resume", "never")
    assert again.code == 2
    assert textdiffusion(*train, "--out", tmp_path / "b", "--steps", 1, "--init", tmp_path / "a").code == 0
    assert textdiffusion("sample", tmp_path / "b", "--weights", "raw").code == 0
    assert textdiffusion("evaluate", tmp_path / "a", "--draws", 2).code == 0
    assert "is complete" in textdiffusion("doctor", tmp_path / "a").out


def small_demo(tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *settings: str) -> tuple:
    """The command and its options, with these settings of what it trains."""
    from textdiffusion.cli.demo import Demo
    from textdiffusion.config.overrides import apply_overrides

    config = Demo._config
    monkeypatch.setattr(Demo, "_config", lambda self: apply_overrides(config(self), settings))
    data = TextDiffusion.from_pretrained(tiny_run("mdlm")).config.text.data
    return ("demo", "--train", "--data", data, "--out", tmp_path / "run", "--minutes", 0.01)


def test_the_demo(textdiffusion, tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    demo = small_demo(tiny_run, tmp_path, monkeypatch, *SMALL, "text.tokenizer=characters", "text.layout=stream")
    for _ in range(2):  # the second time the run is there and only shown
        done = textdiffusion(*demo)
        assert done.code == 0, done.err
        for part in ("1. Training mdlm", "noise 100%", "--- 3", "Kneser-Ney 7-gram", "still ahead", "sample"):
            assert part in done.out


def test_the_demo_of_another_recipe(textdiffusion, tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Left to right takes a step a token, so there are few of them."""
    monkeypatch.setattr("textdiffusion.cli.demo.WATCHED_LENGTH", 32)
    demo = small_demo(tiny_run, tmp_path, monkeypatch, *SMALL[:-1], "training.num_samples=0")
    done = textdiffusion(*demo, "--recipe", "autoregressive")
    assert done.code == 0, done.err
    assert "1. Training autoregressive" in done.out
    assert "this model" in done.out
    assert "upper bound" not in done.out
    assert "textdiffusion train autoregressive" in done.out
