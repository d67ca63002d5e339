"""`textdiffusion serve`"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve runs over HTTP: OpenAI's routes, templates, scores, and every denoising step."""

    run: Annotated[tuple[str, ...], Positional, arg(metavar="RUN [RUN ...]")]
    """Run folders, names from `textdiffusion models`, or repository ids on the hub. Requests use the folder's name."""
    host: str = "127.0.0.1"
    """Listen on this address; 0.0.0.0 is all of them, which needs a key."""
    port: int = 8000
    """Listen on this port (0: any that is free)."""
    api_key: str = ""
    """Only answer requests with this key. TEXTDIFFUSION_API_KEY is better: all users see commands."""
    requests: int = 64
    """Requests that may wait or run at once; more are refused with status 429 and a time to try again."""
    deadline: float = 120.0
    """Seconds that a request may take."""
    memory: float = 4.0
    """GiB for the weights of all loaded runs; those not used lately make room."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Run on this device."""
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    """Compute features in this precision; auto is bfloat16 where the device has units for it."""
    quiet: bool = False
    """Log faults only, no requests."""

    def execute(self) -> None:
        key = self.api_key or os.environ.get("TEXTDIFFUSION_API_KEY", "")
        if not key and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise UserError(
                f"--host is {self.host}, which others can reach; give an --api-key, or TEXTDIFFUSION_API_KEY."
            )
        if not 0 <= self.port <= 65535:
            raise UserError(f"--port is {self.port}; it must be from 0 to 65535.")
        if self.requests < 1 or not 0 < self.deadline <= 86400 or not 0 < self.memory < 1e6:
            raise UserError("--requests, --deadline and --memory must be above 0, and the deadline at most a day.")
        from ..core.memory import GIB
        from ..serve.limits import Limits
        from ..serve.server import serve

        limits = Limits(requests=self.requests, deadline=self.deadline, memory_bytes=int(self.memory * GIB))
        serve(
            self.run,
            host=self.host,
            port=self.port,
            api_key=key,
            limits=limits,
            device=self.device,
            dtype=self.dtype,
            quiet=self.quiet,
        )
