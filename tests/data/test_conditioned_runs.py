"""Runs that are told a label or a source, from Python and from the terminal."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from textdiffusion import TextDiffusion
from textdiffusion.cli import main
from textdiffusion.core.errors import UserError
from textdiffusion.evaluation.harness import HarnessAdapter

Make = Callable[..., TextDiffusion]
GUIDE = ["cfg:weight=3"]


@pytest.fixture(scope="module")
def make(tiny_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Make:
    data = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    rows = [(kind, f"a {fruit}", f"The {kind} {fruit}.") for kind in ("red", "green") for fruit in ("fig", "pear")]
    data.write_text("kind,what,text\n" + "".join(",".join(row) + "\n" for row in rows * 30))
    shared = [f"text.data={data}", "text.field=text", "text.layout=documents", "text.model_padding=true"]

    def model(recipe: str, *settings: str) -> TextDiffusion:
        return TextDiffusion.from_pretrained(tiny_run(recipe, *shared, *settings))

    return model


LABEL = ["text.label=kind", "text.labels=red,green", "text.condition_dropout=0.1"]
SOURCE = ["text.source=what", "text.condition_dropout=0.1"]


@pytest.mark.parametrize("recipe", ["mdlm", "udlm", "cdcd", "ssd_lm", "autoregressive"])
def test_labels_steer_every_family(recipe: str, make: Make):
    model = make(recipe, *LABEL)

    def said(label: str | None, *guides: str) -> list[list]:
        *_, last = model.stream(batch=model.empty_batch(2, 4, label=label), steps=4, seed=1, guides=guides)
        return [last.state.tolist(), last.confidence.tolist()]

    red, none = said("red"), said(None)
    assert red != none
    assert said("red", "cfg:weight=1") == red
    assert said("red", "cfg:weight=0") == none
    assert said("red", *GUIDE) not in (red, none)


@pytest.mark.parametrize("recipe", ["mdlm", "cdcd", "block_diffusion"])
def test_texts_answer_to_sources(recipe: str, make: Make):
    model = make(recipe, *(SOURCE[:1] if recipe == "block_diffusion" else SOURCE))
    both = model.generate(1, length=8, source=["a fig", "a pear"])
    assert both == [*model.generate(1, length=8, source="a fig"), *model.generate(1, length=8, source="a pear")]
    batch = model.empty_batch(1, source="a fig")
    assert batch.tokens.shape[1] == 32
    *_, last = model.stream(batch=batch)
    assert model.tokenizer.decode(last.tokens[0].tolist()) == "a fig"
    assert not model.decode(last, batch)[0].startswith("a fig")
    assert "pear" in model.generate(1, length=12, source="a fig", guides=["word:text=pear"])[0]  # in the text itself
    filled = model.infill("The [MASK:3] fig.", source="a fig")[0]
    assert filled.startswith("The ")
    assert filled.endswith(" fig.")
    assert len(filled) == 12
    if recipe == "block_diffusion":
        with pytest.raises(UserError, match="ClassifierFree cannot act on BlockProcess"):
            model.generate(source="a fig", guides=GUIDE)
    else:
        *_, guided = model.stream(batch=batch, guides=GUIDE)
        assert not (guided.confidence.equal(last.confidence) and guided.state.equal(last.state))
    one, other = (model.score(["The red fig."], source=source, draws=2)[0] for source in ("a fig", "aa"))
    assert one.bits != other.bits
    assert one.characters == 12
    asked = HarnessAdapter(model, draws=2).log_likelihood(
        "The red fig.", "a fig"
    )  # the harness's context is the source
    assert asked == pytest.approx(-one.total * math.log(2), rel=1e-6)
    assert one.protocol["conditions_sha256"] != other.protocol["conditions_sha256"]


def test_a_source_may_be_left_out_where_training_hid_some(make: Make):
    model = make("mdlm", *SOURCE)
    assert model.generate(2, length=8) == model.generate(2, length=8, source="")
    assert model.infill("The [MASK:3] fig.") == model.infill("The [MASK:3] fig.", source="")


def test_masks_hide_a_prompt_without_training_for_it(tiny_run: Callable[..., Path]):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"))
    plain = model.infill("The red [MASK:8]")
    assert model.infill("The red [MASK:8]", guides=GUIDE) != plain
    unguided, other = (
        model.infill(f"{start} [MASK:8]", guides=["cfg:weight=0"])[0] for start in ("The red", "is is e")
    )
    assert unguided[-8:] == other[-8:]  # neither prompt is seen
    with pytest.raises(UserError, match="needs a condition"):
        model.generate(guides=GUIDE)


def test_what_a_run_does_not_take_is_refused(make: Make, tiny_run: Callable[..., Path]):
    plain, told, answering = (
        TextDiffusion.from_pretrained(tiny_run("mdlm")),
        make("mdlm", *LABEL),
        make("mdlm", *SOURCE[:1]),
    )
    strict = make("mdlm", *LABEL[:2])
    for call, message in [
        (lambda: plain.generate(label="red"), "This run has no labels. Train one with text.label"),
        (lambda: plain.generate(source="x"), "takes no source; it was trained on text alone"),
        (lambda: told.generate(source="a fig"), r"takes no source; it takes a label \(red, green\)"),
        (lambda: told.generate(label="blue"), "no label 'blue'; the labels are red, green"),
        (lambda: strict.generate(), "needs a label .*: red, green"),
        (lambda: strict.generate(label="red", guides=GUIDE), "train with text.condition_dropout=0.1"),
        (lambda: answering.generate(), "needs a source"),
        (lambda: answering.infill("The [MASK].", label="red"), "needs a source"),
        (lambda: answering.generate(source="a fig" * 9), "leaves no room for text in a window of 32"),
        (lambda: answering.score(["The fig."]), "needs a source"),
        (lambda: make("block_diffusion", *LABEL), "takes no label"),
    ]:
        with pytest.raises(UserError, match=message):
            call()


def test_label_and_source_at_the_terminal(make: Make, capsys: pytest.CaptureFixture[str]):
    told, answering = make("mdlm", *LABEL), make("mdlm", *SOURCE)
    main(["sample", str(told.folder), "--label", "red", "--guide", "cfg:weight=2", "--length", "4", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["label"] == "red"
    assert found["texts"] == told.generate(4, length=4, label="red", guides=["cfg:weight=2"])
    main(["infill", str(answering.folder), "The [MASK:3] fig.", "--source", "a fig", "--json"])
    assert json.loads(capsys.readouterr().out)["texts"] == answering.infill("The [MASK:3] fig.", 4, source="a fig")
