"""The studio in a real browser, against a real server with tiny runs."""

import shutil
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from textdiffusion import TextDiffusion
from textdiffusion.cli import main
from textdiffusion.core.errors import UserError

from .conftest import Server, StartServer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
TOKEN = ".text [role=button]:not([hidden])"
FRAME = {"step": 0, "total": 1, "t": 1, "calls": 0, "tokens": [["a", 1, "given"]]}
HOSTILE = "<img src=x onerror=alert(1)><script>alert(1)</script>"

# The rules of accessibility that a script can check without a library; axe-core finds no others broken.
RULES = """() => {
  const shown = [...document.querySelectorAll('button, input, select, textarea, summary, [role=button], a')].filter(
    (each) => each.checkVisibility());
  const name = (each) => each.getAttribute('aria-label') || each.labels?.[0]?.textContent || each.textContent;
  const ids = [...document.querySelectorAll('[id]')].map((each) => each.id);
  const levels = [...document.querySelectorAll('h1, h2, h3')].map((each) => Number(each.tagName[1]));
  return {
    unnamed: shown.filter((each) => !name(each).trim()).map((each) => each.outerHTML),
    twice: ids.filter((id, i) => ids.indexOf(id) !== i),
    skipped: levels.filter((level, i) => level - (levels[i - 1] ?? 0) > 1),
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    language: document.documentElement.lang,
  };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """The studio after its first text. No test may leave an error in the console, or ask another host for anything."""
    context = browser.new_context(accept_downloads=True, reduced_motion="reduce")  # the result at once
    page, problems = context.new_page(), []
    refused = "status of 400"  # the browser itself notes what the server refuses, as tests want it to
    page.on("console", lambda each: each.type == "error" and refused not in each.text and problems.append(each.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda request: request.url.startswith((server.url, "blob:", "data:")) or problems.append(request.url),
    )
    page.goto(server.url)
    finish(page)
    yield page
    context.close()
    assert problems == []


def finish(page: Any) -> None:
    """Waits for the text."""
    page.wait_for_selector("#copy:not([disabled])")
    assert page.inner_text("#problem") == ""


def write(page: Any, text: str | None = None) -> str:
    """Sends the form, with a text, and returns what is shown at the end."""
    if text is not None:
        page.fill("#text", text)
    page.click("#go")
    finish(page)
    return page.inner_text(".text")


def test_the_first_visit_shows_an_example_and_what_it_is(page: Any):
    assert page.locator(TOKEN).count() > 0
    assert page.inner_text("#run option:checked") == "shakespeare"
    assert "starts from noise" in page.inner_text("#how-noise")
    assert "step" in page.inner_text(".status")
    assert page.locator("#token li").count() >= 5  # what else the model considered at its least sure token
    assert page.locator("#token li.chosen").count() == 1


def test_a_template_is_filled_watched_and_saved(page: Any):
    template = "The [MASK:5] pear is [MASK:4]."
    text = write(page, template)
    assert (text[:4], text[9:18], text[-1], len(text)) == ("The ", " pear is ", ".", 23)
    page.click("#first")
    assert page.locator(f"{TOKEN}.hole").count() == 9
    page.click("#forward")
    assert 0 < page.locator(f"{TOKEN}.hole").count() < 9
    page.select_option("#speed", "3")
    page.click("#play")
    page.click("#play")  # a pause
    assert page.inner_text("#play") == "Play"
    page.evaluate("document.querySelector('#last').click()")
    assert page.inner_text(".text") == text
    for kind, begins in (("gif", b"GIF8"), ("html", b"<!doctype html>")):
        with page.expect_download() as download:
            page.click(f"#save-{kind}")
        with open(download.value.path(), "rb") as file:
            assert file.read(15).lower().startswith(begins.lower())
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#link")
    page.wait_for_selector("#said:has-text('Link copied')")
    link = page.evaluate("navigator.clipboard.readText()")
    other = page.context.new_page()
    other.goto(link)
    finish(other)
    assert (other.inner_text(".text"), other.input_value("#text")) == (text, template)
    assert other.locator("#history button").first.text_content() == text.strip()


def test_marked_tokens_are_written_again_and_pinned_ones_stay(page: Any):
    before = write(page, "The [MASK:12].")
    tokens = page.locator(TOKEN)
    tokens.nth(6).click()
    tokens.nth(9).click()
    assert page.inner_text("#again") == "Write 2 marked tokens again"
    page.click("#again")
    finish(page)
    after = page.inner_text(".text")
    assert len(after) == len(before)
    assert all(a == b for i, (a, b) in enumerate(zip(after, before, strict=True)) if i not in (6, 9))
    tokens.nth(5).click(modifiers=["Shift"])
    tokens.nth(7).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("p")
    assert page.locator(".pinned[role=button]").count() == 2
    page.click("#rest")
    finish(page)
    rest = page.inner_text(".text")
    assert (rest[:4], rest[5], rest[8], rest[-1]) == (after[:4], after[5], after[8], ".")
    assert sum(a != b for a, b in zip(rest, after, strict=True)) > 3


def test_two_samplers_are_compared_on_one_seed(page: Any):
    page.click("#compare-box summary")
    page.check("#compare")
    page.select_option("#sampler-b", "ancestral")
    page.fill("#steps-b", "3")
    write(page, "The [MASK:6].")
    titles = page.locator(".lane h2").all_inner_texts()
    assert titles == ["shakespeare", "shakespeare, ancestral, 3 steps"]
    assert "step 3 of 3" in page.locator(".lane .status").nth(1).inner_text()


def test_a_draft_is_revised(page: Any):
    page.click("text=Revise >> nth=0")
    draft = "The red pear is old."
    page.fill("#strength", "20")
    text = write(page, draft)
    assert len(text) == len(draft)
    assert sum(a != b for a, b in zip(text, draft, strict=True)) <= 4
    page.check("#suspect")
    page.fill("#strength", "0")
    assert write(page) == draft


def test_settings_and_guides_are_those_of_the_run(page: Any):
    page.click("#settings summary")
    assert page.locator("#label").is_hidden()
    page.select_option("#guide", "regex")
    page.click("#add-guide")
    page.fill("#guides input[data-name=pattern]", "The [a-d]{6}")
    assert set(write(page, "The [MASK:6]")[4:]) <= set("abcd")
    page.fill("#guides input[data-name=pattern]", "([")
    page.click("#go")
    page.wait_for_selector("#problem:not(:empty)")
    assert page.evaluate("document.querySelector('#temperature').value") == "70"  # the run says nothing
    page.select_option("#run", "restaurants")
    assert page.locator("#label option").all_inner_texts() == ["any", "English", "Italian"]
    assert page.locator(".guide").count() == 0


def test_a_sudoku_is_a_grid(page: Any):
    page.select_option("#run", "sudoku")
    write(page)
    assert page.locator(".text.grid [role=button]").count() >= 81
    assert page.inner_text(f"{TOKEN} >> nth=0") == "5"


def test_what_is_typed_is_text(page: Any):
    text = write(page, f"{HOSTILE}[MASK:2]")
    assert text.startswith(HOSTILE)
    assert page.locator("#lanes img, #lanes script, #history img").count() == 0


def test_it_is_accessible_on_a_phone_and_on_a_desk(page: Any):
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        found = page.evaluate(RULES)
        assert found == {"unnamed": [], "twice": [], "skipped": [], "wide": 0, "language": "en"}
    page.focus("body")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the text"


def test_damaged_links_and_histories_do_no_harm(page: Any, server: Server):
    page.evaluate("localStorage.setItem('textdiffusion history', '[1, {}, {\"requests\": [{}]}]')")
    page.goto(f"{server.url}/?#bm9uc2Vuc2U")
    finish(page)
    assert page.locator("#history li").count() == 1
    link = page.evaluate("""() => btoa(JSON.stringify([{path: 'v1/stream', body: {model: 'sudoku', guides: 1}}]))""")
    page.goto(f"{server.url}/?a#{link}")
    page.wait_for_selector("#problem:not(:empty)")
    page.click("#go")
    finish(page)


def test_the_page_may_load_nothing_from_elsewhere(server: Server):
    with urllib.request.urlopen(server.url) as response:
        policy = response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert b"http" not in response.read()
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert server.get("/studio/studio.py")[0] == 404
    assert server.get("/studio/..%2fapp.py")[0] == 404


def test_every_kind_of_noise_is_revised(browser: Any, start_server: StartServer, tiny_run: Any):
    recipes = ("udlm", "cdcd", "autoregressive", "block_diffusion")
    letters = ("text.tokenizer=characters", "text.layout=stream", "text.model_padding=false")
    folders = [tiny_run(recipe, *letters) for recipe in recipes]
    server = start_server(folders)
    page = browser.new_page(reduced_motion="reduce")
    page.goto(server.url)
    finish(page)
    explanations = set()
    for folder in folders:
        page.select_option("#run", folder.name)
        explained = page.inner_text("#what") + page.text_content("#how-noise")
        explanations.add(explained)
        page.click(".tabs >> text=Revise")
        page.fill("#keep", "red")
        page.evaluate("document.querySelector('#settings').open = true")
        page.fill("#steps", "" if "autoregressive" in explained else "8")
        text = write(page, "The red pear is old.")
        assert page.locator(f"{TOKEN}.hole").count() == 0
        assert (len(text), text[4:7]) == (20, "red")
        assert page.locator("#token li").count() > 0
    assert len(explanations) == len(recipes)
    page.close()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": "exe"}, "html or gif"),
        ({"frames": []}, "0 frames"),
        ({"frames": [FRAME | {"t": float("nan")}]}, "t is nan"),
        ({"frames": [FRAME | {"step": 2}]}, "step is 2"),
        ({"frames": [FRAME | {"tokens": [["a", float("inf"), "given"]]}]}, "confidence"),
        ({"frames": [FRAME | {"tokens": [["a", 1, "gone"]]}]}, "state of a token"),
        ({"frames": [FRAME] * 61}, "61 frames"),
    ],
)
def test_recordings_that_cannot_be_drawn_are_refused(server: Server, change: dict[str, Any], told: str):
    status, answer = server.post("/v1/record", {"format": "html", "title": "", "frames": [FRAME]} | change)
    assert status == 400
    assert told in answer["error"]["message"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"strength": 2}, "strength is 2"),
        ({"select": "all"}, "random or suspect"),
        ({"keep": ["plum"]}, "not in the draft"),
        ({"text": ""}, "empty"),
        ({"text": "x" * 30_000}, "at most"),
        ({"steps": 10**6}, "steps"),
    ],
)
def test_revisions_that_cannot_be_made_are_refused(server: Server, change: dict[str, Any], told: str):
    status, answer = server.post("/v1/revise", {"model": "shakespeare", "text": "The pear"} | change)
    assert status == 400
    assert told in answer["error"]["message"]


def test_the_command_says_where_it_is_and_opens_the_browser(monkeypatch: pytest.MonkeyPatch, capsys: Any):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("textdiffusion.serve.server.serve", lambda runs, *, started, **options: started("http://here"))
    main(["studio"])
    main(["studio", "sudoku", "--no-browser"])
    assert capsys.readouterr().out == "The studio is at http://here; Ctrl-C ends it.\n" * 2
    assert opened == ["http://here"]
    with pytest.raises(SystemExit):
        main(["studio", "--port", "70000"])


def test_a_run_in_python_opens_the_studio(tiny_run: Any):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    studio = model.studio()
    with urllib.request.urlopen(studio.url) as response:
        assert b"textdiffusion studio" in response.read()
    assert f'src="{studio.url}"' in studio._repr_html_()
    studio.stop()
    assert "stopped" in repr(studio)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(studio.url)


def test_a_studio_that_does_not_start_is_said(tiny_run: Any, monkeypatch: pytest.MonkeyPatch):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    monkeypatch.setattr("sys.executable", shutil.which("false"))
    with pytest.raises(UserError, match="did not start"):
        model.studio()
