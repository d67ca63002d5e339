"""The studio: a static page that shows how text comes about, and the files that it saves."""

# Annotations are evaluated: FastAPI reads them.
import tempfile
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..views.frames import Cell, Frame, State
from ..views.gif import write_gif
from ..views.html import page
from .errors import APIError
from .limits import Limits, check_chars, check_range
from .service import Service

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self' http://localhost:* http://127.0.0.1:*",  # notebooks
    )
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
FORMATS = {"html": "text/html; charset=utf-8", "gif": "image/gif"}
MAX_FRAMES, MAX_CELLS = 60, 1 << 16  # of a recording: those of a GIF, and the positions of all its frames

STATES = {
    "masked": State.UNDECIDED,
    "decided": State.DECIDED,
    "changed": State.CHANGED,
    "given": State.GIVEN,
}


@dataclass(kw_only=True)
class RecordedFrame:
    """A step of a recording; its tokens are [text, confidence, state] as in the events of `/v1/stream`."""

    step: int
    total: int
    t: float
    calls: float
    tokens: list[tuple[str, float, str]]


@dataclass(kw_only=True)
class RecordBody:
    """`POST /v1/record`: the frames of one text, to be saved as a page (html) or an animation (gif)."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    format: str
    title: str
    frames: list[RecordedFrame]
    facts: dict[str, str | int | float] = field(default_factory=dict)


def add_studio(app: Any, service: Service, documented: dict[str, Any]) -> None:
    """Adds the page at `/`, its files, and `/v1/record`."""
    from fastapi.responses import Response

    folder = files("textdiffusion.serve").joinpath("studio")
    parts = {each.name: each.read_bytes() for each in folder.iterdir() if Path(each.name).suffix in TYPES}
    index = folder.joinpath("index.html").read_bytes()

    @app.get("/", include_in_schema=False)
    async def studio() -> Any:
        return Response(index, headers=HEADERS, media_type="text/html; charset=utf-8")

    @app.get("/studio/{name}", include_in_schema=False)
    async def part(name: str) -> Any:
        if name not in parts:
            raise APIError("There is no such file.", 404)
        return Response(parts[name], headers=HEADERS, media_type=TYPES[Path(name).suffix])

    @app.post("/v1/record", **documented, summary="Save the steps of a text as a page or an animation")
    async def record(body: RecordBody) -> Any:
        check_record(body, service.limits)
        async with service.place() as place:
            content = await place.measure(partial(recorded, body))
        return Response(content, media_type=FORMATS[body.format])


def check_record(body: RecordBody, limits: Limits) -> None:
    """Refuses what cannot be drawn, or would take too long."""
    if body.format not in FORMATS:
        raise APIError(f"format can be {' or '.join(FORMATS)}.", param="format")
    if not 1 <= len(body.frames) <= MAX_FRAMES:
        raise APIError(f"There are {len(body.frames)} frames; a recording has from 1 to {MAX_FRAMES}.", param="frames")
    if sum(len(frame.tokens) for frame in body.frames) > MAX_CELLS:
        raise APIError(f"The frames have more than {MAX_CELLS:,} tokens in all.", param="frames")
    check_chars("title", body.title, limits.text_chars)
    for frame in body.frames:
        check_range("total", frame.total, 0, limits.steps)
        check_range("step", frame.step, 0, frame.total)
        check_range("t", frame.t, 0, 1)
        check_range("calls", frame.calls, 0, 1e9)
        if not all(0.0 <= confidence <= 1.0 for _, confidence, _ in frame.tokens):
            raise APIError("The confidence of a token is from 0 to 1.", param="frames")
        check_chars("frames", "".join(text for text, _, _ in frame.tokens), limits.text_chars)
        if not {state for _, _, state in frame.tokens} <= STATES.keys():
            raise APIError(f"The state of a token can be {', '.join(STATES)}.", param="frames")


def recorded(body: RecordBody) -> bytes:
    """The file."""
    frames = [
        Frame(
            each.step,
            each.total,
            each.t,
            each.calls,
            (tuple(Cell(text, confidence, STATES[state]) for text, confidence, state in each.tokens),),
        )
        for each in body.frames
    ]
    if body.format == "html":
        return page(frames, body.title, body.facts).encode("utf-8", "replace")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.gif"
        write_gif(frames, path)
        return path.read_bytes()
