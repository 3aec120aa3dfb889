"""Our own data plane, alone on manifests, everything on that is on by default."""

import json

from . import CORS_ORIGIN, Peer


class Gateway(Peer):
    name = "ours"

    def __init__(self, program):
        self.program = program

    def files(self, setup):
        # A folder of its own: every change beside a manifest makes the data plane read it again.
        return {"manifests/gateway.yaml": "\n---\n".join(json.dumps(resource) for resource in resources(setup))}

    def command(self, setup):
        manifests = setup.directory / "manifests/gateway.yaml"
        command = [self.program, "--manifests", manifests, "--admin-listen", "127.0.0.1:0"]
        command += ["--state-dir", setup.directory / "state", "--workers", setup.workers]
        return command + (["--access-log", setup.access_log] if setup.variant.logs else [])

    def version(self, bin):
        return "this commit"


def resources(setup):
    """The manifests; JSON is YAML too."""
    variant = setup.variant
    listener = {"address": "127.0.0.1", "port": setup.port, "http": {"idleTimeout": "10m"}}
    if variant.tls:
        listener |= {"protocol": "https", "tls": {"certificates": ["benchmark"]}}
        pem = {part: (setup.certificates / f"{part}.pem").read_text() for part in ("cert", "key")}
        yield resource("Certificate", "benchmark", pem)
    if variant.policies:
        listener["policies"] = POLICIES
    yield resource("Listener", "benchmark", listener)
    yield resource("Upstream", "origin", {"targets": [{"address": setup.origin}], "timeouts": {"idle": "10m"}})
    forward = {"backends": [{"upstream": "origin"}]}
    if not variant.routes:
        yield resource("Route", "all", {"forward": forward})
    for host, routes in setup.hosts():
        for number in routes:
            spec = {"matches": [{"path": {"prefix": f"/r{number}"}}], "forward": forward}
            yield resource("Route", f"r{number}", spec | ({"hosts": [host]} if host else {}))


CORS = {"origins": [CORS_ORIGIN], "methods": ["GET", "POST"], "exposeHeaders": ["x-request-id"], "credentials": True}
POLICIES = [
    {"ipFilter": {"allow": ["127.0.0.0/8", "10.0.0.0/8"], "deny": ["10.66.0.0/16"]}},
    {"cors": CORS},
    {"requestLimits": {"maxBodyBytes": 1 << 20, "maxHeaderBytes": 16 << 10, "maxUriBytes": 4 << 10}},
    {"requestHeaders": {"remove": ["x-client-version"], "set": {"x-gateway": "benchmark"}}},
    {
        "responseHeaders": {
            "remove": ["server"],
            "set": {"x-content-type-options": "nosniff", "strict-transport-security": "max-age=31536000"},
        }
    },
]


def resource(kind, name, spec):
    return {"apiVersion": "gateway/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
