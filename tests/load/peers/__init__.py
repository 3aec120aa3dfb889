"""The proxies that are compared: one file each says how it is configured, started, and named.

All get the same job: one origin on loopback with keep-alive, HTTP/1.1 to it, timeouts out of the way, access log off
(but in `logs`), buffers at their defaults. What the `policies` variant asks of each, as closely as it can:

- only 127.0.0.0/8 and 10.0.0.0/8 may connect, 10.66.0.0/16 may not;
- CORS for https://app.example.com: preflight answered, credentials, x-request-id exposed, `Vary: Origin`;
- body at most 1 MiB, head 16 KiB, target 4 KiB;
- the request loses x-client-version and gets `x-gateway: benchmark`; the response loses Server and gets
  x-content-type-options and strict-transport-security.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

CORS_ORIGIN = "https://app.example.com"


@dataclass(frozen=True)
class Setup:
    """What a configuration is made from."""

    variant: object
    port: int
    origin: str  # host:port
    workers: int
    directory: Path
    certificates: Path  # cert.pem, key.pem, both.pem
    bin: Path

    @property
    def listen(self):
        return f"127.0.0.1:{self.port}"

    @property
    def access_log(self):
        return self.directory / "access.log"

    def hosts(self):
        """(host or None for any, its routes' numbers): what gateway-load asks for."""
        routes, hosts = self.variant.routes, self.variant.hosts
        if not hosts:
            return [(None, range(routes))]
        return [(f"h{host}.bench.test", range(host, routes, hosts)) for host in range(hosts)]


class Peer:
    """A proxy; `name` is also that of its program in the cache."""

    name = ""
    about = ""  # what is worth knowing about its configuration
    version_flag = "--version"
    version_pattern = r"\d+\.\d+[\w.+-]*"

    def left_out(self, variant):
        """Why it does not take part in a variant, if it does not."""
        return None

    def files(self, setup):
        """Configuration files, name to text."""
        raise NotImplementedError

    def command(self, setup):
        raise NotImplementedError

    def version(self, bin):
        done = subprocess.run([bin / self.name, self.version_flag], capture_output=True, text=True, check=False)
        found = re.search(self.version_pattern, done.stdout + done.stderr)
        return found.group(0) if found else "unknown"


def every():
    """All peers, by name; ours is not among them."""
    from . import caddy, envoy, haproxy, nginx, pingora, traefik

    peers = [nginx.Nginx(), haproxy.Haproxy(), pingora.Pingora(), envoy.Envoy(), traefik.Traefik(), caddy.Caddy()]
    return {peer.name: peer for peer in peers}
