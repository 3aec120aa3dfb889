"""Changes under load, ours only: the routes come from a control plane, requests at a fixed rate, and the tail latency
while changes arrive is held against that of the same minutes without any."""

import http.client
import json
import threading
import time
from pathlib import Path

from peers.gateway import Gateway, resource, resources

from . import process
from .cell import Cell, Failed

LOAD_WITHIN_S = 180  # 100,000 routes: stored, streamed, compiled


class Streamed(Gateway):
    """Our data plane on a control plane's stream."""

    def __init__(self, program, stream):
        super().__init__(program)
        self.stream = stream

    def files(self, setup):
        return {}

    def command(self, setup):
        command = [self.program, "--control-plane", f"http://{self.stream}", "--admin-listen", "127.0.0.1:0"]
        return command + ["--state-dir", setup.directory / "state", "--workers", setup.workers]


class Churn(Cell):
    """An origin, a control plane that holds the routes, and a data plane."""

    ready_within = LOAD_WITHIN_S

    def __init__(self, bench, gateway, variant, control_plane):
        stream = f"127.0.0.1:{self._free_port()}"
        super().__init__(bench, Streamed(gateway.program, stream), variant)
        self.control_plane, self.stream = control_plane, stream

    def _before_proxy(self, setup):
        self.setup, self.admin = setup, f"127.0.0.1:{self._free_port()}"
        state = setup.directory / "control-plane"
        command = [self.control_plane, "--admin-listen", self.admin, "--stream-listen", self.stream]
        with open(setup.directory / "control-plane.said", "w") as said:
            # It stands for another machine: what it does for a change must not hold up origin and load, whose core it
            # shares here.
            plane = self._child(
                [*command, "--state-dir", state],
                self.load_cores,
                priority=process.BACKGROUND,
                stdout=said,
                stderr=said,
            )
        deadline = time.monotonic() + 30
        while not (state / "admin-token").exists():
            if plane.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"no control plane: {Path(said.name).read_text()[-600:]}")
            time.sleep(0.05)
        self.token = (state / "admin-token").read_text().strip()
        self._call("POST", "/v1/apply", {"resources": list(resources(setup))})

    def _call(self, method, path, body, connection=None):
        connection = connection or http.client.HTTPConnection(self.admin, timeout=LOAD_WITHIN_S)
        fields = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        connection.request(method, path, json.dumps(body), fields)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise Failed(f"{method} {path}: {answer.status} {text[:400].decode(errors='replace')}")
        return json.loads(text)

    def _applied(self):
        """The revision that the data plane was last known to serve."""
        return max(plane["appliedRevision"] for plane in self._call("GET", "/v1/data-planes", None)["items"])

    def changes(self, stop, made):
        """Changes one route after the other, at the variant's pace, until told to stop."""
        connection = http.client.HTTPConnection(self.admin, timeout=30)
        began = time.monotonic()
        while not stop.wait(max(0.0, began + made["count"] / self.variant.changes - time.monotonic())):
            number = made["count"] * 7919 % self.variant.routes
            spec = {
                "hosts": [f"h{number % self.variant.hosts}.bench.test"],
                "matches": [{"path": {"prefix": f"/r{number}"}}],
                "forward": {"backends": [{"upstream": "origin"}]},
                "timeouts": {"request": f"{20 + made['count'] % 7}s"},
            }
            try:
                route = resource("Route", f"r{number}", spec)
                made["revision"] = self._call("PUT", f"/v1/routes/r{number}", route, connection)["revision"]
            except (Failed, OSError, http.client.HTTPException) as error:
                made["error"] = str(error)
                return
            made["count"] += 1

    def measure(self, rate):
        """The fixed rate without changes, then with them."""
        seconds = self.bench.paced_seconds
        self.drive(seconds, self.bench.warmup, rate)  # every page and every route's counters are there after this
        quiet = self.drive(seconds, rate=rate)
        stop, made = threading.Event(), {"count": 0, "revision": 0, "error": None}
        changer = threading.Thread(target=self.changes, args=(stop, made))
        changer.start()
        try:
            moved = self.drive(seconds, rate=rate)
        finally:
            stop.set()
            changer.join()
        if made["error"]:
            raise Failed(f"a change was refused: {made['error']}")
        # Both planes kept up, or it was not what it says.
        pace, there = made["count"] / moved["seconds"], self._applied()
        if pace < 0.9 * self.variant.changes or there < made["revision"] - self.variant.changes / 2:
            behind = f"the data plane had applied revision {there} of {made['revision']}"
            raise Failed(f"{pace:.1f} changes a second were made, {behind}")
        found = {f"quiet{name.upper()}": quiet[name] for name in ("p50", "p99", "p999", "max")}
        found |= {name: moved[name] for name in ("p50", "p99", "p999", "max")}
        return found | {
            "changesPerSecond": pace,
            "cpuPerChange": (moved["cpu"].total - quiet["cpu"].total) / max(1, made["count"]),
            "loadedBytes": process.memory_bytes(self.proxy.pid),
            "others": moved["others"],
            "errors": quiet["errors"] + moved["errors"],
        }
