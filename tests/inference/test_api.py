"""The public face: what comes out of a run, and what a user is told."""

import re
import subprocess
import sys
import types
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import textdiffusion
from textdiffusion import TextDiffusion, recipes
from textdiffusion.core.devices import choose_dtype
from textdiffusion.core.errors import UserError
from textdiffusion.guidance.constraints import Regex, Without
from textdiffusion.samplers.ddim import DDIM

MakeRun = Callable[..., Path]
RECIPES = recipes.names()
ENDED = ("text.layout=lines", "text.model_padding=true")
LETTERS = ("text.tokenizer=characters", "text.layout=stream", "text.model_padding=false")


@pytest.fixture(params=RECIPES)
def model(request: pytest.FixtureRequest, tiny_run: MakeRun) -> TextDiffusion:
    return TextDiffusion.from_pretrained(tiny_run(request.param, *LETTERS), device="cpu")


def test_the_names_are_there_without_torch():
    code = "import sys, textdiffusion; assert 'torch' not in sys.modules; print(dir(textdiffusion))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(name in out for name in textdiffusion.__all__)
    assert all(getattr(textdiffusion, name) for name in textdiffusion.__all__)
    with pytest.raises(AttributeError, match="nothing_such"):
        textdiffusion.nothing_such  # noqa: B018


def test_the_first_texts_do_not_depend_on_how_many(model: TextDiffusion):
    assert model.generate(num=2, seed=3) == model.generate(num=5, seed=3)[:2]
    ends = [deque(model.stream(num=2, seed=seed), maxlen=1).pop().state for seed in (3, 4)]
    assert not torch.equal(*ends)  # the texts of a hardly trained model can be alike


def test_texts_have_the_length_asked_for(model: TextDiffusion):
    assert [len(text) for text in model.generate(num=2, length=11)] == [11, 11]
    assert [len(text) for text in model.generate()] == [32]


def test_many_texts_are_written_in_parts(model: TextDiffusion, monkeypatch: pytest.MonkeyPatch):
    whole = model.generate(num=5, length=8)
    monkeypatch.setattr("textdiffusion.inference.run._MAX_ROWS", 2)
    assert model.generate(num=5, length=8) == whole


def test_the_stream_ends_in_the_texts(model: TextDiffusion):
    steps = list(model.stream(num=2, length=8, seed=1))
    assert [step.index for step in steps] == list(range(steps[-1].total + 1))
    assert model.decode(steps[-1]) == model.generate(num=2, length=8, seed=1)


def test_gradients_are_off_inside_and_as_they_were_outside(model: TextDiffusion):
    for step in model.stream(length=4):
        assert torch.is_grad_enabled()
        assert not step.state.requires_grad


@pytest.mark.parametrize("settings_", [LETTERS, (*LETTERS[:2], *ENDED)], ids=["stream", "lines"])
@pytest.mark.parametrize("recipe", RECIPES)
@settings(max_examples=6)
@given(data=st.data())
def test_given_text_is_preserved_exactly(data: st.DataObject, tiny_run: MakeRun, recipe: str, settings_: tuple):
    """Also where the run has end and padding tokens, which would cut the text short if a gap held them."""
    model = TextDiffusion.from_pretrained(tiny_run(recipe, *settings_), device="cpu")
    given_ = data.draw(st.lists(st.text("The redfigp.", max_size=5), min_size=2, max_size=4))
    counts = data.draw(st.lists(st.integers(1, 4), min_size=3, max_size=3))
    template = given_[0] + "".join(f"[MASK:{n}]{text}" for n, text in zip(counts, given_[1:], strict=False))
    steps = None if recipe in ("autoregressive", "dual") else 3
    for written in model.infill(template, num=2, seed=data.draw(st.integers(0, 2**40)), steps=steps):
        place = len(given_[0])
        assert written[:place] == given_[0]
        for count, text in zip(counts, given_[1:], strict=False):
            assert written[place + count : place + count + len(text)] == text
            place += count + len(text)
        assert len(written) == place


UNICODE = "The ripe pear is äöü ßé — 梨は赤い \U0001f350 \u202e!\t[MASK]\\\n"


@pytest.mark.parametrize("tokenizer", ["characters", "bytes", "bpe"])
@settings(max_examples=8)
@given(data=st.data())
def test_given_text_of_any_letters_is_preserved_exactly(
    data: st.DataObject, tiny_run: MakeRun, tokenizer: str, tmp_path_factory: pytest.TempPathFactory
):
    corpus = tmp_path_factory.getbasetemp() / "letters.txt"
    if not corpus.exists():
        corpus.write_text(UNICODE * 200, encoding="utf-8")
    size = ("text.vocab_size=300",) if tokenizer == "bpe" else ()
    run = tiny_run("mdlm", f"text.data={corpus}", f"text.tokenizer={tokenizer}", *size)
    model = TextDiffusion.from_pretrained(run, device="cpu")
    letters = st.text(UNICODE if tokenizer == "characters" else st.characters(codec="utf-8"), max_size=6)
    texts = data.draw(st.lists(letters, min_size=2, max_size=4))
    counts = data.draw(st.lists(st.integers(1, 3), min_size=len(texts) - 1, max_size=len(texts) - 1))
    gaps = [f"[MASK:{count}]" for count in counts]
    escaped = [text.replace("[MASK", r"\[MASK") for text in texts]
    if any(text.endswith("\\") for text in texts):
        return  # a backslash before a gap escapes it
    template = escaped[0] + "".join(gap + text for gap, text in zip(gaps, escaped[1:], strict=True))
    for written in model.infill(template, num=2, steps=2, seed=data.draw(st.integers(0, 99))):
        assert re.fullmatch(".+".join(map(re.escape, texts)), written, re.DOTALL)


def test_lengths_of_gaps_are_proposed(tiny_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    # Random weights are sure of nonsense; tests/exact has the law.
    monkeypatch.setattr(
        "textdiffusion.inference.lengths.given_nats",
        lambda model, batch, pad_id, source_length: torch.zeros(len(batch.tokens)),
    )
    model = TextDiffusion.from_pretrained(tiny_run("mdlm", *ENDED), device="cpu")
    template = "The [MASK] pear [MASK] is [MASK:2]."
    texts = model.infill(template, num=4, steps=2)
    assert all(re.fullmatch("The .+ pear .+ is ..[.]", text, re.DOTALL) for text in texts)
    assert len({len(text) for text in texts}) > 1
    assert model.infill(template, num=2, steps=2) == texts[:2]
    assert all(text.startswith("The pe") for text in model.infill("The pe[MASK]", num=2, steps=2))
    with pytest.raises(UserError, match="no room for its gaps in the run's 32 tokens"):
        model.infill("The [MASK] pear is riper and sweeter.")
    for recipe, *changes in (
        ("cdcd", "text.mask=none", *ENDED),
        ("udlm", *ENDED),
        ("autoregressive", *ENDED),
        ("mdlm",),
    ):
        other = TextDiffusion.from_pretrained(tiny_run(recipe, *changes), device="cpu")
        with pytest.raises(UserError, match=r"cannot choose the length of a gap, so .* needs one"):
            other.infill("The [MASK] pear.")


def test_several_templates_are_filled_each_as_alone(tiny_run: MakeRun):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    both = model.infill(["The [MASK:3]", "[MASK:2] is [MASK:4]."], num=2)
    assert both == model.infill("The [MASK:3]", num=2) + model.infill("[MASK:2] is [MASK:4].", num=2)


def test_what_infilling_can_do_is_said(tiny_run: MakeRun):
    def note(recipe: str, *changes: str) -> str:
        return TextDiffusion.from_pretrained(tiny_run(recipe, *changes), device="cpu").infill_warning or ""

    assert note("mdlm") == ""
    assert "ignores the text after" in note("autoregressive")
    assert "without conditioning masks" in note("cdcd", "text.mask=none")
    assert note("cdcd", "text.mask=mixed") == ""


def test_noising_again_is_for_runs_trained_without_masks(tiny_run: MakeRun):
    cdcd = TextDiffusion.from_pretrained(tiny_run("cdcd", "text.mask=none"), device="cpu")
    batch, again = cdcd.infill_batch("The [MASK:3].", 2), ["repaint:n_resample=2,jump_length=2"]
    plain, jumped = (deque(cdcd.stream(batch=batch, guides=guides), maxlen=1).pop() for guides in ([], again))
    assert not torch.equal(plain.state, jumped.state)
    for guides in (again, [*again, "without:text=e"]):
        for step in cdcd.stream(batch=batch, guides=guides):
            assert torch.equal(step.tokens[batch.condition_mask], batch.tokens[batch.condition_mask])
        assert step.nfe == 6 + 2 * (1 + 2 * 4)  # the first jump has but one step to go back
    with pytest.raises(UserError, match="trained without conditioning masks"):
        cdcd.generate(guides=again)
    with pytest.raises(UserError, match="it needs GaussianProcess or TokenNoiseProcess"):
        TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu").infill("The [MASK:3].", guides=again)


def test_temperature_sharpens(tiny_run: MakeRun):
    """Near zero it leaves the most probable token, whatever the seed."""
    model = TextDiffusion.from_pretrained(tiny_run("autoregressive"), device="cpu")
    cold = {model.generate(length=12, temperature=1e-4, seed=seed)[0] for seed in range(3)}
    assert len(cold) == 1
    assert len({model.generate(length=12, seed=seed)[0] for seed in range(3)}) == 3


def test_guides_by_name_or_as_objects(tiny_run: MakeRun):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm", *LETTERS), device="cpu")
    plain = model.generate(num=8, length=3)
    by_name = model.generate(num=8, length=3, guides=["regex:pattern=[^eu]*", "without:text=l"])
    assert "u" in "".join(plain)
    assert not any(re.search(r"[eu]|\bl\b", text) for text in by_name)
    assert by_name == model.generate(num=8, length=3, guides=[Regex("[^eu]*"), Without("l")])
    filled = model.infill("The [MASK:20].", num=2, guides=["without:text=e"])
    assert all(text.startswith("The ") and not re.search(r"\be\b", text) for text in filled)


@pytest.mark.parametrize("recipe", ["mdlm", "cdcd"])
def test_words_stand_in_texts_of_the_likeliest_tokens_too(recipe: str, tiny_run: MakeRun):
    model = TextDiffusion.from_pretrained(tiny_run(recipe, *LETTERS), device="cpu")
    texts = model.generate(num=3, length=14, top_k=1, guides=["word:text=fig"])
    assert all("fig" in text for text in texts)


def test_remasking_in_a_loop_to_the_end_leaves_no_mask(tiny_run: MakeRun):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm", *LETTERS), device="cpu")
    assert len(model.generate(length=14, steps=8, sampler="remdm:rule=loop:t_off=0")[0]) == 14


@pytest.mark.parametrize(
    ("guide", "said"),
    [
        ("withot:text=e", "no guide 'withot'; did you mean without"),
        ("without", "needs text; write it as without:text=..."),
        ("without:txt=e", "no 'txt'"),
        ("word:pear", "write it as word:text=pear"),
        ("word=pear", "Write word:text=pear (guide 'word=pear' has no ':')."),
    ],
)
def test_guides_that_are_none_are_refused(guide: str, said: str, tiny_run: MakeRun):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm", *LETTERS), device="cpu")
    with pytest.raises(UserError, match=re.escape(said)):
        model.generate(guides=[guide])


def test_samplers_by_name_with_settings_or_as_objects(tiny_run: MakeRun):
    model = TextDiffusion.from_pretrained(tiny_run("cdcd"), device="cpu")
    assert "ddim" in model.samplers()
    by_name = model.generate(sampler="ddim:eta=1,steps=3", length=8)
    assert by_name == model.generate(sampler=DDIM(steps=3, eta=1.0), length=8)
    assert [s.total for s in model.stream(sampler="dpm_solver", length=8)][-1] == 6  # the run's own settings stay
    assert [s.total for s in model.stream(sampler="dpm_solver", steps=2, length=8)][-1] == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"num": 0}, "at least 1"),
        ({"length": 0}, "at least 1"),
        ({"steps": 0}, "at least 1"),
        ({"temperature": -1.0}, "above 0"),
        ({"top_k": -1}, "top_k is -1; it must be at least 1"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0"),
        ({"temperature": float("nan")}, "above 0"),
        (
            {"sampler": "ddim"},
            "DDIM cannot act on AbsorbingProcess: it needs GaussianProcess. "
            "This run can use ancestral, euler, first_hitting",
        ),
        ({"sampler": "ancestrl"}, "did you mean ancestral"),
        ({"sampler": "ancestral:eta=1"}, "no 'eta'"),
    ],
)
def test_what_a_run_cannot_do_is_refused_at_once(tiny_run: MakeRun, arguments: dict, says: str):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    with pytest.raises(UserError, match=says):
        model.generate(**arguments)
    with pytest.raises(UserError, match=says):
        list(model.stream(**arguments))


def test_scores(model: TextDiffusion):
    texts = ["The red pear is old.", "The green plum is sweet. "]
    # Networks of random weights can have bounds of hundreds of bits, and their errors are in proportion.
    target = max(0.1, *(0.85 * score.monte_carlo_error for score in model.score(texts, draws=4)))
    scores = model.score(texts, target_error=target)
    assert [score.characters for score in scores] == [len(text) for text in texts]
    for score, again in zip(scores, model.score(texts, target_error=target), strict=True):
        assert score == again
        assert score.exact == (score.monte_carlo_error == 0.0)
        assert score.monte_carlo_error < target
        assert score.bits > 0


def test_features_are_computed_in_the_dtype_asked_for(model: TextDiffusion):
    assert model.folder
    text = ["The red pear is old. The pear is"]
    exact, found = model.score(text, draws=2)[0], {}
    for dtype in ("float32", "bfloat16", "auto"):
        other = TextDiffusion.from_pretrained(model.folder, device="cpu", dtype=dtype)
        found[dtype] = other.score(text, draws=2)[0]
        assert other.generate(length=8)
    assert found["float32"] == exact
    assert found["bfloat16"].protocol["dtype"] == "bfloat16"
    # Eight bits of mantissa: an untrained regression pays hundreds of bits, and they are rounded like any other number.
    assert 0 < abs(found["bfloat16"].bits - exact.bits) < max(0.1, 0.01 * exact.bits)
    assert found["auto"] in (exact, found["bfloat16"])  # as the processor is
    with pytest.raises(UserError, match="dtype is 'half'; it can be auto, float32, bfloat16"):
        choose_dtype("half", model.device)


def test_loading_leaves_the_random_numbers_of_others_alone(tiny_run: MakeRun):
    run = tiny_run("cdcd")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    TextDiffusion.from_pretrained(run, device="cpu")
    assert torch.equal(torch.rand(3), expected)


def test_scores_refuse_what_has_none(tiny_run: MakeRun):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    for texts, says in (([""], "empty"), ("text", "list")):
        with pytest.raises(UserError, match=says):
            model.score(texts)
    with pytest.raises(UserError, match="draws is 1; an error needs at least 2"):
        model.score(["text"], draws=1)


def test_saved_and_loaded_it_is_the_same(model: TextDiffusion, tmp_path: Path):
    folder = model.save_pretrained(tmp_path / "a/b")
    again = TextDiffusion.from_pretrained(folder, device="cpu")
    assert again.config == model.config
    assert again.generate(num=2) == model.generate(num=2)
    names = {"config.json", "tokenizer.json", "model.safetensors", "README.md"}
    assert {path.name for path in folder.iterdir()} == names


def test_what_is_no_run_is_refused(tiny_run: MakeRun, tmp_path: Path):
    with pytest.raises(UserError, match="No folder"):
        TextDiffusion.from_pretrained(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"config\.json is missing"):
        TextDiffusion.from_pretrained(tmp_path)
    folder = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu").save_pretrained(tmp_path / "run")
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=name.replace(".", r"\.")):
            TextDiffusion.from_pretrained(folder)
        (folder / name).write_bytes(whole)
    TextDiffusion.from_pretrained(folder)


def test_the_card_says_what_the_run_is(tiny_run: MakeRun, tmp_path: Path):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    folder = model.save_pretrained(tmp_path / "run")
    assert "not measured" in (folder / "README.md").read_text()
    fields = '"bits": 2.5, "error": 0.01, "raw_bits": 2.6, "raw_error": 0.02, "windows": 64'
    (folder / "metrics.jsonl").write_text(f'{{"event": "validated", "step": 70, {fields}}}\n{{"event": "cut sho')
    card = TextDiffusion.from_pretrained(folder, device="cpu").card("me/pears")
    for part in ("mdlm", "2.500 +- 0.010", "| 70 steps", "Unmasking, steps: 6", 'from_pretrained("me/pears")'):
        assert part in card
    assert card.startswith("---\n")


class FakeHub(types.ModuleType):
    """As much of huggingface_hub as is used."""

    def __init__(self, stored: Path) -> None:
        super().__init__("huggingface_hub")
        self.stored, self.created, self.files = stored, {}, {}
        hub = self

        class HfApi:
            def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> str:
                if repo_id == "not/allowed":
                    raise PermissionError("401: log in\nmore")
                hub.created[repo_id] = private
                return f"https://hub/{repo_id}"

            def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
                hub.files[repo_id] = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}

        self.HfApi = HfApi

    def snapshot_download(self, repo_id: str, *, allow_patterns: list[str]) -> str:
        if repo_id not in self.files:
            raise FileNotFoundError("404")
        folder = self.stored / repo_id.replace("/", "-")
        folder.mkdir()
        for name in set(allow_patterns) & set(self.files[repo_id]):
            (folder / name).write_bytes(self.files[repo_id][name])
        return str(folder)


def test_to_the_hub_and_back(tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hub = FakeHub(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    assert model.push_to_hub("me/pears", private=True) == "https://hub/me/pears"
    assert hub.created == {"me/pears": True}
    assert b"# pears" in hub.files["me/pears"]["README.md"]
    assert TextDiffusion.from_pretrained("me/pears", device="cpu").generate() == model.generate()
    with pytest.raises(UserError, match=r"refused not/allowed: 401: log in$"):
        model.push_to_hub("not/allowed")
    with pytest.raises(UserError, match=r"No folder .*, and the hub could not provide it: 404"):
        TextDiffusion.from_pretrained("me/nothing")


def test_the_hub_needs_its_extra(tiny_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'textdiffusion\[hf\]'"):
        TextDiffusion.from_pretrained("me/pears")
    with pytest.raises(UserError, match=r"pip install 'textdiffusion\[hf\]'"):
        TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu").push_to_hub("me/pears")
