"""The stream's benchmark: a thousand data planes on one control plane, at 1,000 and at 100,000 routes, measured from
outside: bytes at the sockets, CPU time and memory from /proc, times by the clock that all processes share."""

import argparse
import http.server
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from . import machine, process, sync_report
from .planes import ControlPlane, DataPlane, Failed, Fleet, forget_peak, free_port, memory

ROOT = Path(__file__).resolve().parents[3]
# Routes that are changed in turn; all of one size, so that every change costs the same bytes.
PROBES = 100
# After the last of a step: what is written down a little later (nodes, at most four times a second) belongs to it.
SETTLE_S = 1.0
# A message of gRPC on HTTP/2, and its TLS record: 5 + 9 bytes, and 22.
FRAMING = {False: 14, True: 36}


def arguments(argv):
    parser = argparse.ArgumentParser(
        prog="tests/load/sync",
        description="Benchmark of the stream: commit to served, bytes, CPU, memory, restarts, full transfers and "
        "stalled data planes, against the targets of the design. tests/load/README.md says what is measured how.",
    )
    add = parser.add_argument
    add("--routes", default="1000,100000", help="sizes, comma separated (default: %(default)s)")
    add("--clients", type=int, default=1000, help="light data planes in one process (default: %(default)s)")
    add("--changes", type=int, default=200, help="changes of one route, one after the other (default: %(default)s)")
    add("--pause", type=float, default=0.05, help="seconds between a change held by all and the next (%(default)s)")
    add("--at-once", type=int, default=50, help="data planes that ask for everything at once (default: %(default)s)")
    add("--stalled", type=int, default=100, help="data planes that stop reading (default: %(default)s)")
    add("--clear", action="store_true", help="without TLS")
    add("--out", metavar="NAME", help="also write NAME.md and NAME.json")
    for name in ("control-plane", "data-plane", "load"):
        add(f"--{name}", metavar="PROGRAM", help=f"a gateway-{name} that is already built, instead of building one")
    parsed = parser.parse_args(argv)
    try:
        parsed.routes = [int(text) for text in parsed.routes.split(",") if text]
    except ValueError:
        parser.error("--routes takes numbers")
    if not parsed.routes or min([parsed.clients, parsed.changes, parsed.at_once, parsed.stalled, *parsed.routes]) < 1:
        parser.error("--routes, --clients, --changes, --at-once and --stalled must be at least 1")
    return parsed


def build(options):
    """The programs as they are shipped."""
    named = {f"gateway-{name}": getattr(options, name.replace("-", "_")) for name in ("control-plane", "data-plane", "load")}
    load = "gateway-load"
    if missing := [name for name, program in named.items() if not program and name != load]:
        subprocess.run([ROOT / "deploy/build", *missing], check=True)
    if not named[load]:
        subprocess.run(["cargo", "build", "--profile", "dist", "--locked", "-p", load], cwd=ROOT, check=True)
    built = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    folder = {name: built / ("dist" if name == load else "shipped") for name in named}
    return {name: Path(program or folder[name] / name).resolve() for name, program in named.items()}


def main(argv=None):
    options = arguments(argv)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))  # through the context managers: they end the children
    programs = build(options)
    results = {
        "machine": machine.describe(),
        "commit": machine.commit(ROOT),
        "settings": {name: getattr(options, name) for name in ("clients", "changes", "at_once", "stalled", "clear")},
        "sizes": {},
    }
    failed = 0
    for routes in options.routes:
        with Size(options, programs, routes) as size:
            try:
                size.measure()
            except Failed as failure:
                failed = 1
                size.found["failure"] = str(failure)
                print(f"{routes} routes: {failure}", file=sys.stderr, flush=True)
            results["sizes"][routes] = size.found
        results["rows"] = sync_report.rows(results)
        if options.out:  # after each size: a run that is cut short has not been for nothing
            Path(f"{options.out}.json").write_text(json.dumps(results, indent=1) + "\n")
            Path(f"{options.out}.md").write_text(sync_report.markdown(results))
    sys.stdout.write(sync_report.markdown(results))
    return failed


class Size:
    """Everything at one number of routes; a context manager that ends what was started."""

    def __init__(self, options, programs, routes):
        self.options, self.programs, self.routes, self.found = options, programs, routes, {}

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="gateway-sync-")
        directory, tls = Path(self.directory.name), None
        if not self.options.clear:
            subprocess.run([self.programs["gateway-load"], "certificate", "--directory", directory], check=True)
            tls = directory
        self.plane = ControlPlane(self.programs["gateway-control-plane"], directory, tls)
        self.serving = f"127.0.0.1:{free_port()}"
        self.real = DataPlane(self.programs["gateway-data-plane"], directory, self.plane, "real", self.serving)
        self.fleets = []
        return self

    def __exit__(self, *_):
        for fleet in self.fleets:
            fleet.stop()
        self.real.stop()
        self.plane.stop()
        self.directory.cleanup()

    def measure(self):
        steps = [self.fill, self.full_sync, self.connect, self.change, self.endpoints, self.restart, self.at_once, self.stall, self.from_disk]
        for step in steps:
            began, busy = time.monotonic(), process.machine_us()
            own = self._own_us()
            step()
            seconds = time.monotonic() - began
            others = process.machine_us() - busy - (self._own_us() - own)
            share = max(0.0, others) / 1e6 / seconds / len(os.sched_getaffinity(0))
            self.found.setdefault("seconds", {})[step.__name__] = round(seconds, 2)
            self.found.setdefault("others", {})[step.__name__] = round(share, 3)
            print(f"{self.routes} routes: {step.__name__} took {seconds:.1f} s", file=sys.stderr, flush=True)

    def _own_us(self):
        """CPU time of all that this benchmark runs, also of what has ended."""
        ended = os.times()
        return process.cpu(os.getpid()).total + (ended.children_user + ended.children_system) * 1e6

    def fleet(self, *words):
        fleet = Fleet(self.programs["gateway-load"], self.plane, *words)
        self.fleets.append(fleet)
        return fleet

    def fill(self):
        """Everything that is stored; and what it costs in memory, after a restart: what was read in is gone then."""
        self.plane.start()
        self.plane.ready()
        empty, _ = memory(self.plane.child.pid)
        self.plane.call("POST", "/v1/apply", {"resources": list(self.resources())})
        self.plane.stop()
        began = self.plane.start()
        self.found["startSeconds"] = (self.plane.ready() - began) / 1e9
        self.resident, peak = memory(self.plane.child.pid)
        self.found |= {"emptyBytes": empty, "residentBytes": self.resident, "startPeakBytes": peak}
        self.found["bytesPerRoute"] = (self.resident - empty) / self.routes

    def resources(self):
        yield _resource("Listener", "public", {"address": "127.0.0.1", "port": int(self.serving.split(":")[1])})
        yield _resource("Upstream", "origin", {"targets": [{"address": "127.0.0.1:9"}]})
        yield _resource("DiscoverySource", "files", {"file": {"path": "services.json"}})
        yield _resource("Upstream", "found", {"discovery": {"source": "files", "service": "found"}})
        spec = {"hosts": ["probe.test"], "matches": [{"path": {"exact": "/found"}}]}
        yield _resource("Route", "found", spec | {"forward": {"backends": [{"upstream": "found"}]}})
        for number in range(min(PROBES, self.routes)):
            yield self.probe(number, 0)
        for number in range(PROBES, self.routes):
            host = f"h{number // 10}.bench.test"
            spec = {"hosts": [host], "matches": [{"path": {"prefix": f"/r{number}"}}]}
            yield _resource("Route", f"r{number}", spec | {"forward": {"backends": [{"upstream": "origin"}]}})

    def probe(self, number, round):
        spec = {"hosts": ["probe.test"], "matches": [{"path": {"exact": f"/p{number:03}"}}]}
        return _resource("Route", f"p{number:03}", spec | {"respond": {"body": f"{round:08}"}})

    def full_sync(self):
        """To one real data plane that has nothing, and, the control plane's share of that, to a light one."""
        began = self.real.start()
        self.real.ready()
        self.found["fullSyncSeconds"] = (self.real.serves("/p000", b"00000000") - began) / 1e9
        light = self.fleet(1, "first")
        answer = light.ask("open")
        self.found["fullSyncLightSeconds"] = (answer["heldLast"] - light.began) / 1e9
        self.found["snapshotBytes"] = answer["objectBytes"]
        light.stop()

    def connect(self):
        """The fleet comes. It does not take everything first: that is measured for itself, and takes its turns."""
        before, _ = memory(self.plane.child.pid)
        self.light = self.fleet(self.options.clients, "light", "--adopt")
        self.light.ask("open")
        time.sleep(SETTLE_S)
        self.found["bytesPerDataPlane"] = (memory(self.plane.child.pid)[0] - before) / self.options.clients

    def change(self):
        """One route after the other, each when all hold the one before."""
        connection, stop = self.plane.connection(), threading.Event()
        before, busy = self.light.ask("forget"), process.cpu(self.plane.child.pid).total
        divergences, began = self.plane.metric("gateway_stream_divergences_total"), time.monotonic()
        sent, answered, applies = [], [], []
        for change in range(self.options.changes):
            number = change % min(PROBES, self.routes)
            path, body = f"/p{number:03}", f"{change + 1:08}"
            served = _Served(self.real, path, body.encode(), stop)
            at = time.monotonic_ns()
            made = self.plane.call("PUT", f"/v1/routes/p{number:03}", self.probe(number, change + 1), connection)
            done = time.monotonic_ns()
            answer = self.light.ask(f"hold {made['revision']}")
            last = max(answer["heldLast"], served.at())
            sent.append((last - at) / 1e6)
            answered.append((last - done) / 1e6)
            applies.append(self.real.metric("gateway_config_last_apply_seconds") * 1e3)
            time.sleep(self.options.pause)
        time.sleep(SETTLE_S)
        after, count = self.light.ask("status"), self.options.changes * self.options.clients
        framing = FRAMING[bool(self.plane.tls)]
        beats = after["heartbeatBytes"] + framing * after["heartbeats"]
        self.found["change"] = {
            "seconds": time.monotonic() - began,
            "fromSent": _quantiles(sent),
            "fromAnswer": _quantiles(answered),
            "applyMs": _quantiles(applies),
            "cpuUs": (process.cpu(self.plane.child.pid).total - busy) / count,
            "receivedBytes": (after["received"] - before["received"] - beats) / count,
            "sentBytes": (after["sent"] - before["sent"]) / count,
            "objectBytes": after["objectBytes"] / count,
            "transactions": after["chunks"] / count,
            "diverged": after["diverged"] + self.plane.metric("gateway_stream_divergences_total") - divergences,
            "ends": after["ends"],
        }

    def endpoints(self):
        """A service moves from one address to another and back: from the write of its file until all data planes have
        it, the real one serves by it, each when all hold the one before. What flaps faster is waited out."""
        origins = [_Origin(name) for name in (b"one", b"two")]
        stop, took = threading.Event(), []
        for change in range(min(self.options.changes, 100)):
            origin = origins[change % 2]
            served = _Served(self.real, "/found", origin.name, stop)
            at = time.monotonic_ns()
            self.plane.discover({"found": [{"address": origin.address}]})
            answer = self.light.ask(f"endpoints {origin.address}")
            took.append((max(answer["endpointsLast"], served.at()) - at) / 1e6)
            time.sleep(self.options.pause)
        for origin in origins:
            origin.stop()
        # The first is not a change: nothing was known.
        self.found["endpointsMs"] = _quantiles(took[1:] or took)

    def restart(self):
        """The control plane is killed and started again; everybody comes back."""
        steady, _ = memory(self.plane.child.pid)
        self.light.ask("forget")
        self.plane.kill()
        began = self.plane.start()
        ready = self.plane.ready()
        answer = self.light.ask("open")
        last = answer["welcomedLast"]
        _, peak = memory(self.plane.child.pid)
        self.found["restart"] = {
            "seconds": (last - began) / 1e9,
            "readySeconds": (ready - began) / 1e9,
            "resumedSeconds": (last - ready) / 1e9,
            "resourceBytes": answer["objectBytes"],
            "modes": answer["modes"],
            "peakRatio": peak / steady,
        }

    def at_once(self):
        time.sleep(SETTLE_S)
        pid = self.plane.child.pid
        before, _ = memory(pid)
        forget_peak(pid)
        fleet = self.fleet(self.options.at_once, "full")
        answer = fleet.ask("open")
        self.found["atOnce"] = {
            "seconds": (answer["heldLast"] - fleet.began) / 1e9,
            "growthBytes": memory(pid)[1] - before,
        }
        fleet.stop()

    def stall(self):
        time.sleep(SETTLE_S)
        pid = self.plane.child.pid
        before, _ = memory(pid)
        forget_peak(pid)
        fleet = self.fleet(self.options.stalled, "stalled", "--stall")
        fleet.all_open()
        time.sleep(SETTLE_S * 3)
        self.found["stalledBytes"] = memory(pid)[1] - before
        fleet.stop()

    def from_disk(self):
        """A data plane that starts while there is no control plane."""
        number = (self.options.changes - 1) % min(PROBES, self.routes)
        self.plane.stop()
        self.real.stop()
        began = self.real.start()
        ready = self.real.ready()
        served = self.real.serves(f"/p{number:03}", f"{self.options.changes:08}".encode())
        self.found["fromDiskSeconds"] = (max(ready, served) - began) / 1e9


class _Origin:
    """Answers every request with its name."""

    def __init__(self, name):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.send_response(200)
                self.send_header("content-length", str(len(name)))
                self.end_headers()
                self.wfile.write(name)

            def log_message(self, *_):
                pass

        self.name, self.server = name, http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class _Served(threading.Thread):
    """Asks a real data plane until it serves something."""

    def __init__(self, plane, *what):
        super().__init__(daemon=True)
        self.plane, self.what, self.result = plane, what, None
        self.start()

    def run(self):
        try:
            self.result = self.plane.serves(*self.what)
        except Failed as failure:
            self.result = failure

    def at(self):
        self.join()
        if isinstance(self.result, Failed):
            raise self.result
        return self.result


def _resource(kind, name, spec):
    return {"apiVersion": "gateway/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _quantiles(values):
    ordered = sorted(values)
    at = lambda share: ordered[min(len(ordered) - 1, int(share * len(ordered)))]  # noqa: E731
    return {"p50": at(0.5), "p99": at(0.99), "max": ordered[-1]}
