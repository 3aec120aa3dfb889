"""Pingora, as the small program in pingora/ (a proxy is what one writes with it)."""

from . import Peer


class Pingora(Peer):
    name = "pingora"
    about = "a program of ours on Pingora's defaults with OpenSSL; routes by two hash maps, its log is buffered"

    def files(self, setup):
        return {}

    def command(self, setup):
        variant = setup.variant
        settings = {
            "listen": setup.listen,
            "upstream": setup.origin,
            "threads": setup.workers,
            "directory": setup.directory,
            "routes": variant.routes,
            "hosts": variant.hosts,
            "log": setup.access_log if variant.logs else "",
            "policies": "yes" if variant.policies else "",
            "cert": setup.certificates / "cert.pem" if variant.tls else "",
            "key": setup.certificates / "key.pem" if variant.tls else "",
        }
        return [setup.bin / "pingora", *(f"{name}={value}" for name, value in settings.items())]

    def version(self, bin):
        return (bin / "pingora.version").read_text().strip()
