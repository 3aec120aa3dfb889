"""One cell of the table: one proxy, one variant, one round. Starts an origin and the proxy, drives load, measures."""

import json
import os
import select
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from peers import CORS_ORIGIN, Setup

from . import process, syscalls

ANSWER_WITHIN_S = 60


class Failed(Exception):
    """The proxy cannot do this variant; the message says what it said."""


@dataclass(frozen=True)
class Bench:
    """What is the same for all cells."""

    load: Path  # the gateway-load program
    bin: Path  # where the peers' programs are
    certificates: Path
    control_plane: Path | None  # for changes under load
    pinned: bool
    warmup: float
    minutes: float  # of a long run
    seconds: float
    paced_seconds: float
    syscalls: str | None  # how to count them

    def cores(self):
        """For the proxy, and for origin and load."""
        cores = sorted(os.sched_getaffinity(0))
        if not self.pinned:
            return set(cores), set(cores)
        return {cores[0]}, set(cores[1:2]) or {cores[0]}

    def workers(self):
        return 1 if self.pinned else len(os.sched_getaffinity(0))


class Cell:
    """A running proxy with its origin; a context manager that ends both."""

    ready_within = 60  # seconds
    # Below the range of outgoing connections; never the same one twice, and others where two drivers run.
    ports = iter(range(18_080 + os.getpid() % 8_000, 32_000))

    def __init__(self, bench, peer, variant):
        self.bench, self.peer, self.variant = bench, peer, variant
        self.children = []

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix=f"gateway-load-{self.peer.name}-")
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for child in reversed(self.children):
            process.stop(child)
        self.directory.cleanup()

    def _start(self):
        directory = Path(self.directory.name)
        directory.chmod(0o755)
        proxy_cores, self.load_cores = self.bench.cores()
        origin = [self.bench.load, "origin", "--body", self.variant.body]
        listening = json.loads(self._child(origin, self.load_cores, stdout=subprocess.PIPE).stdout.readline())
        self.counts = _address(listening["counts"])
        self.port = self._free_port()
        setup = Setup(
            variant=self.variant,
            port=self.port,
            origin=listening["address"],
            workers=self.bench.workers(),
            directory=directory,
            certificates=self.bench.certificates,
            bin=self.bench.bin,
        )
        self._before_proxy(setup)
        for name, text in self.peer.files(setup).items():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text(text)
        self.said = directory / "said"
        with open(self.said, "w") as said, open(directory / "stdout", "w") as out:
            environment = {"HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}
            command = self.peer.command(setup)
            self.proxy = self._child(command, proxy_cores, environment=environment, stdout=out, stderr=said)
        self._wait_until_ready()

    def _before_proxy(self, setup):
        """For what must run before the proxy does."""

    def _child(self, command, cores, **more):
        child = process.start(command, cores, **more)
        self.children.append(child)
        return child

    @classmethod
    def _free_port(cls):
        for port in cls.ports:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
        raise Failed("no free port is left")

    def _wait_until_ready(self):
        deadline = time.monotonic() + self.ready_within
        answer = b"nothing"
        while time.monotonic() < deadline:
            if self.proxy.poll() is not None:
                raise Failed(f"it ended at once: {self._tail()}")
            try:
                answer = self._ask("GET").split(b"\r\n", 1)[0]
                if b" 200" in answer:
                    return self._check_policies() if self.variant.policies else None
            except OSError as error:
                answer = str(error).encode()
            time.sleep(0.05)
        answer = answer.decode(errors="replace")
        raise Failed(f"not ready within {self.ready_within} s ({answer}): {self._tail()}")

    def _tail(self):
        text = self.said.read_text(errors="replace") + (self.said.parent / "stdout").read_text(errors="replace")[-600:]
        return " ".join(text.split())[-600:]

    def _check_policies(self):
        """A proxy that answers without doing what was asked of it would win unfairly."""
        fields = f"origin: {CORS_ORIGIN}\r\naccess-control-request-method: POST\r\n"
        signs = {"GET": b"x-content-type-options: nosniff", "OPTIONS": b"access-control-allow-methods: "}
        for method, expected in signs.items():
            head = self._ask(method, fields).lower()
            if expected not in head or f"access-control-allow-origin: {CORS_ORIGIN}".encode() not in head:
                raise Failed(f"its policies do not show in the answer to {method}: {head.decode(errors='replace')}")

    def _ask(self, method, fields=""):
        """The head of the answer to one request."""
        with socket.create_connection(("127.0.0.1", self.port), 2) as stream:
            if self.variant.tls:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                stream = context.wrap_socket(stream, server_hostname="localhost")
            stream.settimeout(2)
            line = f"{method} {self.variant.path} HTTP/1.1\r\nhost: {self.variant.host}\r\n"
            stream.sendall(f"{line}{fields}connection: close\r\n\r\n".encode())
            answer = b""
            while b"\r\n\r\n" not in answer and (piece := stream.recv(16_384)):
                answer += piece
            return answer.split(b"\r\n\r\n", 1)[0]

    # -- load

    def _generator(self, more):
        variant = self.variant
        command = [self.bench.load, "generate", "--target", f"127.0.0.1:{self.port}", "--expect", variant.body]
        if variant.http2:
            command += ["--protocol", "http2", "--streams", variant.streams]
        for flag in ("tls", "reconnect"):
            command += [f"--{flag}"] if getattr(variant, flag) else []
        for option in ("routes", "hosts", "post"):
            command += [f"--{option}", getattr(variant, option)] if getattr(variant, option) else []
        if variant.policies:
            command += ["--header", "origin: https://app.example.com"]
        # Unbuffered, so that `select` sees every line.
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
        return self._child(command + more, self.load_cores, **streams)

    def drive(self, seconds, warmup=0.0, rate=None):
        """One run of load: its report, with the proxy's CPU time from the end of the warm-up to the end."""
        more = ["--connections", self.variant.connections, "--seconds", seconds, "--warmup", warmup]
        child = self._generator(more + (["--rate", rate] if rate else []))
        try:
            _line(child, warmup + ANSWER_WITHIN_S)
            before, counts, others = process.cpu(self.proxy.pid), self._counts(), _others_us()
            loaded = []
            sampler = threading.Timer(seconds / 2, lambda: loaded.append(process.memory_bytes(self.proxy.pid)))
            sampler.start()
            report = _line(child, seconds + ANSWER_WITHIN_S)
            used, others = process.cpu(self.proxy.pid).since(before), _others_us() - others
            sampler.cancel()
            sampler.join()
            after = self._counts()
        finally:
            process.stop(child)
        if not report["requests"]:
            raise Failed(f"no good answer: {report['failures']}")
        origin = {key: after[key] - counts[key] for key in after}
        others = max(0.0, others / (report["seconds"] * 1e6 * os.cpu_count()))
        loaded = loaded or [process.memory_bytes(self.proxy.pid)]  # a short run may end before the sampler's turn
        return report | {"cpu": used, "loaded": loaded[0], "origin": origin, "others": others}

    def _counts(self):
        with socket.create_connection(self.counts, 2) as stream:
            return json.loads(stream.makefile().readline())

    # -- measurements

    def capacity(self):
        """Requests a second at saturation, roughly: what the fixed rate is chosen by."""
        return self.drive(seconds=1.0, warmup=0.5)["perSecond"]

    def measure(self, rate, count_syscalls):
        """Saturation, then the fixed rate; figures per request."""
        idle = process.memory_bytes(self.proxy.pid)
        full = self.drive(self.bench.seconds, self.bench.warmup)
        requests = full["requests"]
        result = {
            "perSecond": full["perSecond"],
            "cpu": full["cpu"].total / requests,
            "user": full["cpu"].user / requests,
            "system": full["cpu"].system / requests,
            "busy": full["cpu"].total / (full["seconds"] * 1e6 * self.bench.workers()),
            "idleBytes": idle,
            "loadedBytes": full["loaded"],
            "reuse": 1 - full["origin"]["connections"] / max(1, full["origin"]["requests"]),
            "errors": full["errors"],
            "failures": full["failures"],
            "closedBetween": full["closedBetween"],
            "others": full["others"],
        }
        if rate:
            paced = self.drive(self.bench.paced_seconds, min(1.0, self.bench.warmup), rate)
            result |= {name: paced[name] for name in ("p50", "p90", "p99", "p999", "max")}
            result["unsent"] = paced["unsent"] / (rate * self.bench.paced_seconds)
            result["cpuPaced"] = paced["cpu"].total / paced["requests"]
            result["errors"] += paced["errors"]
            result["failures"] = {kind: count + paced["failures"][kind] for kind, count in full["failures"].items()}
        if count_syscalls and self.bench.syscalls:
            directory, reports = Path(self.directory.name), []
            calls = syscalls.count(
                self.bench.syscalls, self.proxy.pid, directory, lambda: reports.append(self.drive(2.0))
            )
            if calls:
                result["syscalls"] = calls / reports[0]["requests"]
        return result

    def grow(self, rate):
        """Memory over a long run, looked at a hundred and twenty times."""
        seconds, samples, over = self.bench.minutes * 60, [], threading.Event()

        def sample():
            began = time.monotonic()
            while not over.wait(seconds / 120):
                samples.append((time.monotonic() - began, process.memory_bytes(self.proxy.pid)))

        idle, sampler = process.memory_bytes(self.proxy.pid), threading.Thread(target=sample)
        sampler.start()
        try:
            report = self.drive(seconds, rate=rate)
        finally:
            over.set()
            sampler.join()
        return {
            "memory": samples,
            "idleBytes": idle,
            "loadedBytes": samples[-1][1],
            "perSecond": report["perSecond"],
            "unsent": report["unsent"] / (rate * seconds),
            "others": report["others"],
            "errors": report["errors"],
        }

    def hold(self):
        """Memory per idle connection, each of which has served one request."""
        self.drive(seconds=0.5)
        before = process.memory_bytes(self.proxy.pid)
        child = self._generator(["--connections", self.variant.hold, "--seconds", 50, "--hold"])
        try:
            _line(child, ANSWER_WITHIN_S)
            report = _line(child, ANSWER_WITHIN_S)
            time.sleep(2)  # what a proxy gives back after a moment is not charged
            after = process.memory_bytes(self.proxy.pid)
        finally:
            child.stdin.close()
            process.stop(child)
        held = report["held"]
        if held < self.variant.hold * 0.99:
            raise Failed(f"only {held} of {self.variant.hold} connections stayed open: {report['failures']}")
        return {
            "bytesPerConnection": (after - before) / held,
            "loadedBytes": after,
            "idleBytes": before,
            "errors": report["errors"],
        }


def _others_us():
    """CPU time of everybody but this benchmark."""
    return process.machine_us() - process.cpu(os.getpid()).total


def _address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def _line(child, within):
    """The next line of JSON that the generator says."""
    if not select.select([child.stdout], [], [], within)[0]:
        raise Failed(f"the load generator said nothing for {within:.0f} s")
    line = child.stdout.readline()
    if not line:
        raise Failed("the load generator ended early")
    return json.loads(line)
