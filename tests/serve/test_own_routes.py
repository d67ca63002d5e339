"""Every denoising step, templates, tokens to write again, and scores."""

from pathlib import Path

from textdiffusion import TextDiffusion

from .conftest import Server


def test_a_stream_has_every_step_and_what_reproduces_it(server: Server, packaged_models: Path):
    body = {"model": "shakespeare", "template": "The [MASK:6] pear", "steps": 3, "seed": 5, "alternatives": 2}
    events = server.events(body)
    assert [name for name, _ in events] == ["step"] * 4 + ["done"]
    assert [step["step"] for _, step in events[:-1]] == [0, 1, 2, 3]
    first, last, done = events[0][1]["rows"][0], events[3][1]["rows"][0], events[4][1]
    assert first["text"] == "The " + "▒" * 6 + " pear"
    assert {token["state"] for token in first["tokens"]} == {"given", "masked"}
    assert last["text"] == done["text"] == done["texts"][0]
    run = TextDiffusion.from_pretrained(packaged_models / "shakespeare", device="cpu")
    assert done["texts"] == run.infill("The [MASK:6] pear", steps=3, seed=5)
    for token in last["tokens"]:
        probs = [prob for _, prob, _ in token["alternatives"]]
        assert len(probs) == 2
        assert probs == sorted(probs, reverse=True)
    again = server.events(done["request"] | {"every": 2})
    assert [event[1].get("step") for event in again] == [0, 2, 3, None]
    assert again[-1][1]["texts"] == done["texts"]


def test_chosen_tokens_are_written_again(server: Server):
    done = server.events({"model": "shakespeare", "length": 12, "seed": 1})
    tokens = [token["id"] for token in done[-2][1]["rows"][0]["tokens"]]
    body = {"model": "shakespeare", "tokens": [*tokens[:11], None], "remask": [3, 4], "seed": 2}
    events = server.events(body)
    before, after = events[0][1]["rows"][0]["tokens"], events[-2][1]["rows"][0]["tokens"]
    assert [i for i, token in enumerate(before) if token["state"] == "masked"] == [3, 4, 11]
    assert [token["id"] for i, token in enumerate(after) if i not in (3, 4, 11)] == [*tokens[:3], *tokens[5:11]]
    assert server.post("/v1/stream", body | {"remask": [12]})[1]["error"]["param"] == "remask"
    assert server.post("/v1/stream", body | {"tokens": [1], "remask": []})[0] == 400


def test_a_source_is_not_part_of_the_text(server: Server, packaged_models: Path):
    body = {"model": "restaurants", "source": "name[Mill]", "label": "English", "prompt": "The ", "seed": 3}
    events = server.events(body)
    row, done = events[-2][1]["rows"][0], events[-1][1]
    assert row["start"] == len("name[Mill]") + 1
    assert row["text"] == done["text"]
    assert done["text"].startswith("The ")
    answer = server.post("/v1/completions", body)[1]
    run = TextDiffusion.from_pretrained(packaged_models / "restaurants", device="cpu")
    expected = run.generate(prompt="The ", source="name[Mill]", label="English", seed=3)
    assert [choice["text"] for choice in answer["choices"]] == expected


def test_questions_are_answered(server: Server):
    question = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
    status, answer = server.post("/v1/infill", {"model": "sudoku", "template": question, "num": 2, "steps": 4})
    assert status == 200
    assert [len(each) for each in answer["answers"]] == [81, 81]
    assert isinstance(answer["seed"], int)  # drawn by the server, and reported


def test_scores_are_those_of_the_run(server: Server, packaged_models: Path):
    status, answer = server.post("/v1/score", {"model": "shakespeare", "texts": ["The pear."], "draws": 2})
    run = TextDiffusion.from_pretrained(packaged_models / "shakespeare", device="cpu")
    (expected,) = run.score(["The pear."], draws=2)
    assert status == 200
    assert answer["scores"][0]["bits"] == expected.bits
    with_bits = server.events({"model": "shakespeare", "template": "The [MASK:2] pear.", "steps": 2, "bits": True})
    assert with_bits[-1][1]["bits_per_character"][0]["bits"] > 0


def test_bad_requests_are_refused_with_a_sentence(server: Server):
    for path, body, words in (
        ("/v1/stream", {"model": "shakespeare", "temprature": 1}, "temprature"),
        ("/v1/stream", {"model": "shakespeare", "template": "a", "prompt": "b"}, "exclude"),
        ("/v1/stream", {"model": "shakespeare", "template": "no gap"}, "no gap"),
        ("/v1/stream", {"model": "shakespeare", "remask": [1]}, "needs tokens"),
        ("/v1/stream", {"model": "shakespeare", "num": 64, "alternatives": 10, "length": 999}, "too many"),
        ("/v1/stream", {"model": "shakespeare", "sampler": "unmasking:block_size=10000000000"}, "31 bits"),
        ("/v1/stream", {"model": "shakespeare", "guides": [{"kind": "word", "text": "a" * 3000}]}, "at most 500"),
        ("/v1/infill", {"model": "shakespeare", "template": "[MASK:100000]"}, "100,000 tokens"),
        ("/v1/infill", {"model": "shakespeare"}, "template"),
        ("/v1/infill", {"model": "sudoku", "template": "123"}, "81"),
        ("/v1/score", {"model": "shakespeare", "texts": []}, "0 entries"),
        ("/v1/score", {"model": "shakespeare", "texts": [""]}, "empty"),
        ("/v1/score", {"model": "shakespeare", "texts": ["a\ud800"]}, "surrogate"),
        ("/v1/score", b"[" * 100_000, "JSON"),
        ("/v1/score", b'{"model": "\xff"}', "JSON"),
        ("/v1/score", b"", "body"),
        ("/v1/completions", {"model": "shakespeare", "seed": 10**400}, "seed"),
        ("/v1/completions", b'{"model": "shakespeare", "temperature": NaN}', "temperature"),
        ("/v1/completions", {"model": "shakespeare", "sampler": {"kind": "unmasking", "order": 5}}, "order"),
    ):
        status, answer = server.post(path, body)
        assert status == 400, (path, body, answer)
        assert set(answer["error"]) == {"message", "type", "param", "code"}
        assert words.lower() in answer["error"]["message"].lower(), answer
    assert server.get("/v1/nothing")[0] == 404
    assert server.get("/v1/completions")[0] == 405
