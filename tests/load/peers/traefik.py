"""Traefik, from PyPI. Its configuration files are YAML, of which JSON is a part."""

import json

from . import CORS_ORIGIN, Peer


class Traefik(Peer):
    name = "traefik"
    about = "a body is bounded only by its buffering middleware, which would hold it back: left out of `policies`"
    version_flag = "version"
    version_pattern = r"(?<=Version:)\s*\S+"

    def left_out(self, variant):
        return "it tries its routers one after the other" if variant.routes > 10_000 else None

    def version(self, bin):
        return super().version(bin).strip()

    def command(self, setup):
        # GOMAXPROCS follows the cores the process may use.
        return [setup.bin / "traefik", f"--configFile={setup.directory}/traefik.yaml"]

    def files(self, setup):
        variant = setup.variant
        timeouts = {"respondingTimeouts": {"idleTimeout": "600s"}}
        static = {
            "entryPoints": {"web": {"address": setup.listen, "transport": timeouts}},
            "providers": {"file": {"filename": f"{setup.directory}/routes.yaml", "watch": False}},
            "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
            "log": {"level": "ERROR"},
        }
        if variant.logs:
            static["accessLog"] = {"filePath": str(setup.access_log), "bufferingSize": 100}
        return {"traefik.yaml": json.dumps(static), "routes.yaml": json.dumps(dynamic(setup))}


def dynamic(setup):
    variant = setup.variant
    prefixes = [f"/r{number}/" for number in range(variant.routes)] or ["/"]
    router = {"service": "origin", "entryPoints": ["web"]}
    router |= {"tls": {}} if variant.tls else {}
    router |= {"middlewares": ["clients", "fields"]} if variant.policies else {}
    config = {
        "http": {
            "routers": {
                f"r{number}": router | {"rule": f"PathPrefix(`{prefix}`)"} for number, prefix in enumerate(prefixes)
            },
            "services": {
                "origin": {
                    "loadBalancer": {"servers": [{"url": f"http://{setup.origin}"}], "serversTransport": "pool"}
                }
            },
            "serversTransports": {"pool": {"maxIdleConnsPerHost": 512}},
        }
    }
    if variant.policies:
        config["http"]["middlewares"] = POLICIES
    if variant.tls:
        files = {"certFile": f"{setup.certificates}/cert.pem", "keyFile": f"{setup.certificates}/key.pem"}
        config["tls"] = {"certificates": [files], "options": {"default": {"minVersion": "VersionTLS13"}}}
    return config


POLICIES = {
    "clients": {"ipAllowList": {"sourceRange": ["127.0.0.0/8", "10.0.0.0/8"]}},  # it has no deny list
    "fields": {
        "headers": {
            "accessControlAllowOriginList": [CORS_ORIGIN],
            "accessControlAllowMethods": ["GET", "POST"],
            "accessControlAllowCredentials": True,
            "accessControlExposeHeaders": ["x-request-id"],
            "addVaryHeader": True,
            "customRequestHeaders": {"X-Client-Version": "", "X-Gateway": "benchmark"},
            "customResponseHeaders": {
                "Server": "",
                "X-Content-Type-Options": "nosniff",
                "Strict-Transport-Security": "max-age=31536000",
            },
        }
    },
}
