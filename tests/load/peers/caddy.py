"""Caddy, from PyPI."""

from . import CORS_ORIGIN, Peer


class Caddy(Peer):
    name = "caddy"
    about = "routes are `handle` blocks, tried in order"
    version_flag = "version"

    def left_out(self, variant):
        return "it tries its routes one after the other" if variant.routes > 10_000 else None

    def command(self, setup):
        return [setup.bin / "caddy", "run", "--config", setup.directory / "Caddyfile", "--adapter", "caddyfile"]

    def files(self, setup):
        variant = setup.variant
        scheme = "https" if variant.tls else "http"
        tls = f"tls {setup.certificates}/cert.pem {setup.certificates}/key.pem {{\n protocols tls1.3\n }}"
        log = f"log {{\n output file {setup.access_log}\n }}"
        routes = [f"handle /r{number}/* {{\n import origin\n }}" for number in range(variant.routes)]
        lines = [
            tls if variant.tls else "",
            log if variant.logs else "",
            POLICIES if variant.policies else "",
            *(routes or ["import origin"]),
        ]
        return {
            "Caddyfile": f"""
{{
    admin off
    auto_https off
    persist_config off
    storage file_system {setup.directory}/storage
    log {{
        level ERROR
    }}
    servers {{
        protocols h1 h2
        timeouts {{
            idle 600s
        }}
    }}
}}
(origin) {{
    reverse_proxy {setup.origin} {{
        {UPSTREAM_FIELDS if variant.policies else ""}
        transport http {{
            keepalive_idle_conns 1024
            keepalive_idle_conns_per_host 512
            compression off
        }}
    }}
}}
{scheme}://127.0.0.1:{setup.port}, {scheme}://localhost:{setup.port} {{
    bind 127.0.0.1
    {chr(10).join(line for line in lines if line)}
}}
"""
        }


UPSTREAM_FIELDS = "header_up -X-Client-Version\n header_up X-Gateway benchmark"

POLICIES = f"""
@stranger {{
    not remote_ip 127.0.0.0/8 10.0.0.0/8
}}
@denied remote_ip 10.66.0.0/16
respond @stranger 403
respond @denied 403
request_body {{
    max_size 1MiB
}}
@preflight {{
    method OPTIONS
    header Origin {CORS_ORIGIN}
    header Access-Control-Request-Method *
}}
@cors header Origin {CORS_ORIGIN}
header @cors Access-Control-Allow-Origin {CORS_ORIGIN}
header @cors Access-Control-Allow-Credentials true
header @cors Access-Control-Expose-Headers x-request-id
header @cors +Vary Origin
header @preflight Access-Control-Allow-Methods "GET, POST"
header X-Content-Type-Options nosniff
header Strict-Transport-Security max-age=31536000
header -Server
respond @preflight 204
"""
