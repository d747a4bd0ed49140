"""What Prometheus reads of a service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one process; an app has its own, so that two may live side by side."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route")
        self.requests = Counter(
            "enclap_requests", "Requests that were answered", (*labels, "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "enclap_request_seconds", "Time to answer", labels, buckets=SECONDS, registry=self.registry
        )
        self.in_progress = Gauge(
            "enclap_requests_in_progress", "Requests that are received, waiting or answered", registry=self.registry
        )
        self.queue = Gauge("enclap_queue_depth", "Requests that wait for a model", ("queue",), registry=self.registry)
        self.batch = Histogram(
            "enclap_batch_size", "Requests that a model answered together", ("queue",), buckets=SIZES,
            registry=self.registry,
        )  # fmt: skip

    def exposition(self) -> bytes:
        """Return all values in Prometheus's text format."""
        return generate_latest(self.registry)
