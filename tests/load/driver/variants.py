"""The jobs that every proxy gets, and what issue 3 asks of us in each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One job: what the load asks for and what the proxy must be configured to do."""

    name: str
    about: str
    connections: int = 64
    streams: int = 1  # requests at once on a connection; more than one means HTTP/2
    tls: bool = False
    routes: int = 0  # route i: prefix /r{i} on host h{i % hosts}.bench.test, on any host when hosts is 0
    hosts: int = 0
    post: int = 0  # request body bytes
    body: int = 1024  # response body bytes
    reconnect: bool = False  # a connection for each request
    logs: bool = False  # access log on, to a file
    policies: bool = False  # see peers/__init__.py
    changes: int = 0  # changes a second while the load runs (ours only; churn.py)
    grows: bool = False  # memory over a long run is what is measured
    hold: int = 0  # idle connections whose memory is measured, instead of load
    # targets of issue 3; None: none is set
    ratio: float | None = None  # CPU per request, best peer to us
    syscalls: float | None = None  # ours, per request
    idle_mb: float | None = None  # our memory before any load
    loaded_mb: float | None = None  # and under load
    bytes_per_connection: int | None = None
    rise_mb: float | None = None  # how much our memory may rise in a long run
    moved_us: float | None = None  # how much p99.9 may move while changes arrive

    @property
    def http2(self):
        return self.streams > 1

    @property
    def path(self):
        return "/r1/items/42" if self.routes else "/"

    @property
    def host(self):
        return f"h{1 % self.hosts}.bench.test" if self.hosts else "localhost"


VARIANTS = {
    variant.name: variant
    for variant in [
        Variant("plain", "GET, 1 KiB response, keep-alive, 64 connections", ratio=1.25, syscalls=4.1, idle_mb=12),
        Variant("routes1k", "the same over 1,000 routes", routes=1000, ratio=1.25, loaded_mb=16),
        Variant("routes100k", "the same over 100,000 routes on 10,000 hosts", routes=100_000, hosts=10_000),
        Variant("tls", "plain over TLS 1.3 (P-256, X25519, AES-128-GCM)", tls=True, ratio=1.2),
        Variant(
            "handshake",
            "a TLS connection with a full handshake for each request",
            connections=32,
            tls=True,
            reconnect=True,
            ratio=1.2,
        ),
        Variant("h2", "HTTP/2 over TLS, 16 connections × 8 streams", connections=16, streams=8, tls=True, ratio=1.1),
        Variant("post64k", "POST of 64 KiB, 1 KiB response", connections=32, post=65_536, ratio=1.8, syscalls=6.1),
        Variant("get1m", "GET, 1 MiB response", connections=16, body=1 << 20),
        Variant("newconn", "a connection for each request", connections=32, reconnect=True, ratio=1.05, syscalls=10),
        Variant("logs", "plain with the access log on, to a file", logs=True, ratio=1.0),
        Variant("policies", "plain with ipFilter, CORS, requestLimits, header edits", policies=True, ratio=1.0),
        Variant("idle", "5,000 idle keep-alive connections", hold=5000, bytes_per_connection=2048),
        Variant(
            "churn",
            "20 changes a second at 100,000 routes, ours only",
            routes=100_000,
            hosts=10_000,
            changes=20,
            moved_us=1000,
        ),
        Variant(
            "growth",
            "memory over a run of --minutes at a fixed rate, 1,000 routes, a connection for each request",
            connections=32,
            routes=1000,
            reconnect=True,
            grows=True,
            rise_mb=0.5,
        ),
        Variant("idletls", "5,000 idle TLS connections", hold=5000, tls=True, bytes_per_connection=15 * 1024),
    ]
}
