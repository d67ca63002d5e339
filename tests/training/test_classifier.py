"""Classifiers of a run's noisy texts: trained, kept, refused where they do not belong, and used to steer."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from textdiffusion import TextDiffusion
from textdiffusion.cli import main
from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.data.labels import read_labelled
from textdiffusion.guidance.classifier import Classifier
from textdiffusion.guidance.trained_classifier import TrainedClassifier, load, run_fingerprint
from textdiffusion.training.classifier import (
    ClassifierConfig,
    _RowSampler,
    encode_texts,
    most_frequent,
    train_classifier,
)

MakeRun = Callable[..., Path]
WORDS = ("text.tokenizer=words", "text.layout=lines", "text.length=8", "text.model_padding=true")
EXAMPLES = [
    (f"The {a} {b} is {c}.", a) for a in ("red", "green") for b in ("pear", "fig") for c in ("old", "sweet")
] * 50


@pytest.mark.parametrize("recipe", ["mdlm", "cdcd", "udlm"])
def test_labels_are_read_from_clean_and_noisy_texts_and_steer(recipe: str, tiny_run: MakeRun, tmp_path: Path):
    run = TextDiffusion.from_pretrained(tiny_run(recipe, *WORDS), device="cpu")
    settings = ClassifierConfig(width=32, depth=1, steps=40, batch_size=32, lr=1e-2)
    made, right = train_classifier(run, EXAMPLES, settings)
    assert right["0"] == (1.0, 1.0)
    assert right["0.25"].accuracy > 0.7  # of 40 texts; a mask hides the word of one in four
    assert made.labels == ("green", "red")
    for t, most in ((0.5, 0.75), (1.0, 0.85)):  # doubtful where noise hides the word: never taught so, it costs 1 to 8
        assert _nats(made, run, t) < most
    made.save(tmp_path, {"run": run_fingerprint(run)})
    again = load(tmp_path, run)
    for name, tensor in made.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], tensor)
    shares = []
    for weight in (-4.0, 4.0):
        guide = Classifier(str(tmp_path), "red", weight, "state")
        *_, last = run.stream(num=40, steps=4, guides=[guide])
        said = again.network(run.model.codec.encode(last.tokens), torch.zeros(40), Batch(last.tokens))
        shares.append(float(said[:, 1].exp().mean()))
    assert shares[0] < shares[1] - 0.1
    for guide in (f"classifier:path={tmp_path},label=red", f"energy:path={tmp_path},label=red"):
        if recipe == "cdcd" or "energy" not in guide:
            assert run.generate(num=2, steps=2, guides=[guide])
    other = TextDiffusion.from_pretrained(tiny_run("mdlm", *WORDS, "process.schedule=cosine"), device="cpu")
    with pytest.raises(UserError, match="for a run with another process"):
        other.generate(guides=[Classifier(str(tmp_path), "red")])
    with pytest.raises(UserError, match="no label 'blue'; it can be green, red"):
        run.generate(guides=[Classifier(str(tmp_path), "blue")])


def test_rare_labels_count_as_much_as_frequent_ones_on_request(tiny_run: MakeRun):
    rows, targets = torch.tensor([0, 1, 3, 4]), torch.tensor([1, 0, 0, 0, 0])
    uniforms = (torch.arange(60) + 0.5) / 60
    assert _RowSampler(rows, targets, balanced=False)(uniforms).bincount().tolist() == [15, 15, 0, 15, 15]
    assert _RowSampler(rows, targets, balanced=True)(uniforms).bincount().tolist() == [30, 10, 0, 10, 10]
    run = TextDiffusion.from_pretrained(tiny_run("mdlm", *WORDS), device="cpu")
    examples = [("The red fig is old.", "red"), ("The green fig is sweet.", "green")]
    rare = [examples[i % 20 == 0] for i in range(400)]
    settings = ClassifierConfig(width=32, depth=1, steps=8, batch_size=32)
    _, blind = train_classifier(run, rare, settings)
    assert blind["0"].accuracy > 0.85  # it answers "red" to every text
    assert blind["0"].balanced == 0.5
    _, seeing = train_classifier(run, rare, replace(settings, balanced=True, steps=40, lr=1e-2))
    assert seeing["0"] == (1.0, 1.0)


def _nats(made: TrainedClassifier, run: TextDiffusion, t: float) -> float:
    """What the labels of 200 noisy texts cost; a guess costs ln 2 = 0.69."""
    ids, _ = encode_texts([text for text, _ in EXAMPLES[:200]], run.tokenizer, run.config.text)
    noisy = run.model.process.add_noise(run.model.codec.encode(ids), torch.full((200,), t), rng=Rng.of(0, 200))
    said = made.network(noisy, torch.full((200,), t), Batch(ids))
    return -float(said[torch.arange(200), [made.labels.index(label) for _, label in EXAMPLES[:200]]].mean())


@pytest.mark.parametrize("recipe", ["autoregressive", "block_diffusion"])
def test_runs_that_no_classifier_can_guide_get_none(recipe: str, tiny_run: MakeRun):
    run = TextDiffusion.from_pretrained(tiny_run(recipe, *WORDS), device="cpu")
    with pytest.raises(UserError, match="No classifier can guide this run"):
        train_classifier(run, EXAMPLES, ClassifierConfig(steps=1))


def test_a_folder_without_a_classifier_is_refused(tiny_run: MakeRun, tmp_path: Path):
    run = TextDiffusion.from_pretrained(tiny_run("mdlm", *WORDS), device="cpu")
    with pytest.raises(UserError, match="is not a classifier"):
        run.generate(guides=[Classifier(str(tmp_path), "red")])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tsv", "one two\n", "Record 1 of .* has an empty text or label"),
        ("a.tsv", "one\tx\n\ttwo\n", "Record 2 of .* has an empty text or label"),
        ("a.tsv", "one\tx\ntwo\tx\n", "has 1 label;"),
        ("a.jsonl", '{"text": "a"}\n', "Record 1 of .* has an empty text or label"),
        ("a.csv", "text,kind\na,b\n", "no field 'label'; its fields are: text, kind"),
        ("a.csv", '"te"xt,label\na,b\n', "has no field 'text'"),
        ("a.tsv", "one\ttwo\tx\n", "line 1: more values than columns"),
        ("a.jsonl", '{"text": "text", "label": "label"}\n', "has 1 label;"),
        ("none.tsv", None, "cannot be read"),
    ],
)
def test_files_that_are_not_labelled_texts_are_refused(name: str, content: str | None, said: str, tmp_path: Path):
    if content:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        read_labelled(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "a\u2028b\t1\n\nc\t2\n"),
        ("a.txt", "text\tlabel\na\u2028b\t1\nc\t2"),
        ("a.CSV", "label,text\n1,a\u2028b\n2,c\n"),
        ("a.jsonl", '{"text": "a\u2028b", "label": "1"}\n{"text": "c", "label": 2}\n'),
    ],
)
def test_labelled_texts_of_every_kind_of_file(name: str, content: str, tmp_path: Path):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_labelled(tmp_path / name) == [("a\u2028b", "1"), ("c", "2")]


@pytest.fixture
def classifier(tiny_run: MakeRun, tmp_path: Path) -> tuple[TextDiffusion, Path]:
    """A run and the folder of its classifier."""
    run = TextDiffusion.from_pretrained(tiny_run("mdlm", *WORDS), device="cpu")
    made, _ = train_classifier(run, EXAMPLES, ClassifierConfig(width=16, depth=1, steps=1, batch_size=2))
    made.save(tmp_path / "made", {"run": run_fingerprint(run)})
    return run, tmp_path / "made"


def test_a_classifier_is_saved_only_in_a_folder_of_its_own(classifier: tuple[TextDiffusion, Path], tmp_path: Path):
    run, folder = classifier
    other = run.save_pretrained(tmp_path / "run")
    made = load(folder, run)
    for taken in (other, folder):
        before = {path.name: path.read_bytes() for path in taken.iterdir()}
        with pytest.raises(UserError, match="is not empty; choose another folder for the classifier"):
            made.save(taken, {"run": run_fingerprint(run)})
        assert {path.name: path.read_bytes() for path in taken.iterdir()} == before


@pytest.mark.parametrize(
    "change",
    [
        {"run": None},
        {"labels": []},
        {"labels": ["green"]},
        {"labels": [1, 2]},
        {"labels": ["red", "green"]},  # the other way round
        {"width": 10**9},
        {"width": 0},
        {"depth": 10**9},
        {"depth": "1"},
        {"kind": "run"},
    ],
)
def test_a_damaged_classifier_is_refused_in_a_sentence(change: dict, classifier: tuple[TextDiffusion, Path]):
    run, folder = classifier
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError):
        load(folder, run)


def test_the_base_rate_is_that_of_the_most_frequent_label():
    assert most_frequent([("a", "x")] * 599 + [("b", "y")]) == ("x", 599 / 600)


def test_too_few_texts_to_hold_any_out_are_said(tiny_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "texts.tsv").write_text("The red fig is old.\tred\nThe green fig is old.\tgreen\n")
    words = ["train-classifier", str(tiny_run("mdlm", *WORDS)), "--data", str(tmp_path / "texts.tsv")]
    main([*words, "--out", str(tmp_path / "made"), "--steps", "1", "--width", "16", "--depth", "1"])
    assert "The accuracy is unknown: 2 texts are too few to hold any out" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*words, "--out", str(tiny_run("mdlm", *WORDS))])
    assert "is not empty" in capsys.readouterr().err
