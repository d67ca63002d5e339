"""What Prometheus reads at `/metrics`."""

from __future__ import annotations


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        self.responses = Counter(
            "textdiffusion_responses", "Answers by route and status", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "textdiffusion_request_seconds",
            "Seconds from a request to the end of its answer",
            ["route"],
            registry=self.registry,
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
        )
        self.tokens = Counter("textdiffusion_tokens", "Tokens written", ["model"], registry=self.registry)
        self.refused = Counter("textdiffusion_refused", "Requests refused with 429", registry=self.registry)
        self.requests_now = Gauge("textdiffusion_requests_now", "Requests that wait or run", registry=self.registry)

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)
