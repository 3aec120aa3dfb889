"""The processes of the stream's benchmark: a control plane, real data planes, and fleets of light ones."""

import http.client
import json
import select
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

from . import process

WITHIN_S = 120  # for anything: 100,000 routes are stored, streamed and compiled in less


class Failed(Exception):
    """A part of the system did not do what it must; the message says what it said."""


def free_port(taken=iter(range(18_080, 32_000))):
    """Below the range of outgoing connections; never the same one twice."""
    for port in taken:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Failed("no free port")


def memory(pid):
    """Resident bytes now, and the most there were since `forget_peak`."""
    found = {}
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in ("VmRSS", "VmHWM"):
                found[name] = int(rest.split()[0]) * 1024
    return found["VmRSS"], found["VmHWM"]


def forget_peak(pid):
    with open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")


class Plane:
    """A child with an admin port."""

    name = "plane"

    def __init__(self, directory, environment=None):
        self.directory, self.child, self.environment = Path(directory), None, environment
        self.admin, self.context = f"127.0.0.1:{free_port()}", None

    def start(self):
        """Starts it; when, in nanoseconds of the monotonic clock."""
        began = time.monotonic_ns()
        with open(self.directory / f"{self.name}.said", "a") as said:
            self.child = process.start(self.command(), environment=self.environment, stdout=said, stderr=said)
        return began

    def stop(self):
        if self.child:
            process.stop(self.child)
        self.child = None

    def kill(self):
        self.child.kill()
        self.child.wait()
        self.child = None

    def connection(self, timeout=WITHIN_S):
        host, port = self.admin.split(":")
        if self.context:
            return http.client.HTTPSConnection("localhost", int(port), timeout=timeout, context=self.context)
        return http.client.HTTPConnection(host, int(port), timeout=timeout)

    def ready(self):
        """Waits until it says so; when."""
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                connection = self.connection(5)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    return time.monotonic_ns()
            except (OSError, http.client.HTTPException):
                pass
            if self.child.poll() is not None or time.monotonic() > deadline:
                said = (self.directory / f"{self.name}.said").read_text()
                raise Failed(f"{self.name} is not ready: {said[-800:]}")
            time.sleep(0.005)

    def metric(self, name):
        """One value of its /metrics, summed over labels."""
        connection = self.connection(30)
        connection.request("GET", "/metrics", headers=self.fields())
        lines = connection.getresponse().read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def fields(self):
        return {}


class ControlPlane(Plane):
    name = "control-plane"

    def __init__(self, program, directory, tls):
        super().__init__(directory)
        self.program, self.tls, self.stream = program, tls, f"127.0.0.1:{free_port()}"
        (self.directory / "discovery").mkdir(exist_ok=True)
        if tls:
            self.context = ssl.create_default_context(cafile=tls / "cert.pem")

    def command(self):
        command = [self.program, "--admin-listen", self.admin, "--stream-listen", self.stream, "--log-level", "warn"]
        command += ["--state-dir", self.directory / "control-plane", "--discovery-file-dir", self.directory / "discovery"]
        return command + (["--tls-cert", self.tls / "cert.pem", "--tls-key", self.tls / "key.pem"] if self.tls else [])

    def discover(self, services):
        """Writes the file of its discovery source."""
        file = self.directory / "discovery/services.json"
        file.parent.mkdir(exist_ok=True)
        file.with_suffix(".new").write_text(json.dumps({"services": services}))
        file.with_suffix(".new").rename(file)

    def fields(self):
        token = (self.directory / "control-plane/admin-token").read_text().strip()
        return {"authorization": f"Bearer {token}", "content-type": "application/json"}

    def call(self, method, path, body, connection=None):
        connection = connection or self.connection()
        connection.request(method, path, json.dumps(body), self.fields())
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise Failed(f"{method} {path}: {answer.status} {text[:400].decode(errors='replace')}")
        return json.loads(text) if text else None


class DataPlane(Plane):
    """A real one; `serving` is where its listener is."""

    def __init__(self, program, directory, control_plane, node, serving):
        super().__init__(directory)
        self.program, self.control_plane, self.name, self.serving = program, control_plane, node, serving

    def command(self):
        tls, stream = self.control_plane.tls, self.control_plane.stream
        command = [self.program, "--node", self.name, "--admin-listen", self.admin, "--workers", 1]
        command += ["--state-dir", self.directory / self.name, "--log-level", "warn"]
        if not tls:
            return [*command, "--control-plane", f"http://{stream}"]
        port = stream.rsplit(":", 1)[1]
        return [*command, "--control-plane", f"https://localhost:{port}", "--tls-ca", tls / "cert.pem"]

    def serves(self, path, body, stop=None):
        """Waits until a request gets that body; when."""
        host, port = self.serving.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline and not (stop and stop.is_set()):
            try:
                connection.request("GET", path, headers={"host": "probe.test"})
                if connection.getresponse().read() == body:
                    return time.monotonic_ns()
            except (OSError, http.client.HTTPException):
                connection.close()
            time.sleep(0.002)
        raise Failed(f"{self.name} does not serve {path} as {body}")


class Fleet:
    """Light data planes in one process (tests/load/src/fleet.rs)."""

    def __init__(self, program, control_plane, clients, prefix, *flags):
        command = [program, "fleet", "--target", control_plane.stream, "--clients", clients, "--prefix", prefix]
        command += ["--ca", control_plane.tls / "cert.pem"] if control_plane.tls else []
        command += flags
        self.began = time.monotonic_ns()
        self.child = process.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.lock = threading.Lock()

    def ask(self, words):
        """One line there, one line back."""
        with self.lock:
            self.child.stdin.write(f"{words}\n".encode())
            self.child.stdin.flush()
            if not select.select([self.child.stdout], [], [], WITHIN_S)[0]:
                raise Failed(f"the fleet does not answer {words!r}")
            line = self.child.stdout.readline()
        if not line:
            raise Failed(f"the fleet ended at {words!r}")
        return json.loads(line)

    def all_open(self):
        """Waits until every stream is open, whatever is on it."""
        deadline = time.monotonic() + WITHIN_S
        while (found := self.ask("status"))["open"] < found["clients"]:
            if time.monotonic() > deadline:
                raise Failed(f"{found['open']} of {found['clients']} streams are open: {found['ends']}")
            time.sleep(0.05)
        return found

    def stop(self):
        process.stop(self.child)
