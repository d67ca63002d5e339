"""The application: routes, errors, and what guards them."""

# Annotations are evaluated: FastAPI reads them.
from typing import Any

from ..core.errors import UserError
from . import openai_routes, own_routes
from .errors import APIError
from .guards import Guards
from .service import Service
from .studio import add_studio
from .worker import as_api_error

API_VERSION = "1"
DESCRIPTION = """Text diffusion models: completions in OpenAI's shape, templates with gaps, scores, and every denoising
step as it happens."""


def create_app(service: Service, *, host: str = "127.0.0.1", api_key: str = "", quiet: bool = False) -> Any:
    """The ASGI application of a service that listens on `host`. Raises UserError without the extra `serve`."""
    try:
        from fastapi import FastAPI, Request
        from fastapi.exceptions import RequestValidationError
        from fastapi.responses import JSONResponse, Response
        from starlette.exceptions import HTTPException
    except ImportError:
        raise UserError("The server needs FastAPI: pip install 'textdiffusion[serve]'.") from None
    app = FastAPI(title="textdiffusion", version=API_VERSION, description=DESCRIPTION, redoc_url=None, docs_url=None)
    error = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    statuses = {
        400: "Refused",
        401: "No key",
        403: "Unknown host",
        404: "No such model",
        408: "Too late",
        413: "Too large",
        429: "Busy",
    }
    documented: dict[str, Any] = {
        "responses": {
            200: {"content": {"application/json": {}, "text/event-stream": {}}, "description": "The answer"},
            **{status: {**error, "description": what} for status, what in statuses.items()},
            500: {**error, "description": "A fault of the server"},
            503: {**error, "description": "Too little memory"},
        },
        "response_model": None,
    }

    def refused(problem: APIError) -> Any:
        return JSONResponse(problem.body, problem.status, problem.headers)

    @app.exception_handler(APIError)
    async def api_error(request: Request, problem: APIError) -> Any:
        return refused(problem)

    @app.exception_handler(UserError)
    async def user_error(request: Request, problem: UserError) -> Any:
        return refused(APIError(str(problem)))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, problem: RequestValidationError) -> Any:
        return refused(_invalid(problem.errors()))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, problem: HTTPException) -> Any:
        message = {
            400: "The body is not valid JSON.",  # the only reason for which FastAPI raises it
            404: "There is no such route.",
            405: "This route does not take this method.",
        }
        answer = APIError(message.get(problem.status_code, str(problem.detail)), problem.status_code)
        return JSONResponse(answer.body, answer.status, dict(problem.headers or {}))

    @app.exception_handler(Exception)
    async def fault(request: Request, problem: Exception) -> Any:
        return refused(as_api_error(problem))

    @app.get("/health", summary="The server is alive")
    async def health() -> Any:
        return {"status": "ok"}

    @app.get("/ready", responses={503: {"description": "The server is stopping"}}, summary="The server takes requests")
    async def ready() -> Any:
        runs = {name: "loaded" if entry.run else "unloaded" for name, entry in service.shelf.entries.items()}
        body = {"status": "ready" if service.is_ready else "stopping", "models": runs}
        return JSONResponse(body, 200 if service.is_ready else 503)

    @app.get("/metrics", summary="Figures for Prometheus", response_class=Response)
    async def metrics() -> Any:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    openai_routes.add_routes(app, service, documented)
    own_routes.add_routes(app, service, documented)
    add_studio(app, service, documented)
    _describe_errors(app)
    return Guards(app, service, host, api_key, quiet)


def _invalid(problems: Any) -> APIError:
    """A sentence about the first thing that is wrong with a body. Values are not repeated: they may be anything."""
    first = problems[0]
    place = ".".join(str(each) for each in first["loc"] if each != "body")[:200]
    if first["type"] == "json_invalid":
        return APIError("The body is not valid JSON.", code="invalid_json")
    message = str(first["msg"])[:200]
    where = f"{place}: " if place else "The body: "
    param = place.partition(".")[0] or None
    return APIError(f"{where}{message[0].lower()}{message[1:]}.", param=param, code="invalid_body")


def _describe_errors(app: Any) -> None:
    """Adds the shape of errors to the OpenAPI description."""
    describe = app.openapi

    def openapi() -> Any:
        schema = describe()
        text = {"type": ["string", "null"]}
        fields = {"message": {"type": "string"}, "type": {"type": "string"}, "param": text, "code": text}
        schema.setdefault("components", {}).setdefault("schemas", {})["Error"] = {
            "type": "object",
            "required": ["error"],
            "properties": {"error": {"type": "object", "required": ["message", "type"], "properties": fields}},
        }
        for path in schema["paths"].values():
            for operation in path.values():
                operation.get("responses", {}).pop("422", None)
        return schema

    app.openapi = openapi
