"""HAProxy, from Debian. Routes are a map file, which is how it is used with many."""

from . import CORS_ORIGIN, Peer


class Haproxy(Peer):
    name = "haproxy"
    about = "routes by a map file; it logs to its standard output, which is a file"
    version_flag = "-v"

    def command(self, setup):
        return [setup.bin / "haproxy", "-db", "-f", setup.directory / "haproxy.cfg"]

    def files(self, setup):
        variant, directory = setup.variant, setup.directory
        tls = f" ssl crt {setup.certificates}/both.pem alpn h2,http/1.1" if variant.tls else ""
        if variant.routes:
            # A host's routes begin with its name; without hosts the path alone decides.
            key = "base" if variant.hosts else "path"
            backend = f"use_backend %[{key},map_beg({directory}/routes.map,none)]\n    default_backend none"
        else:
            backend = "default_backend origin"
        config = f"""
global
    nbthread {setup.workers}
    maxconn 9900
    {"log stdout format raw local0 info" if variant.logs else ""}
    ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
    mode http
    timeout client 600s
    timeout server 600s
    timeout connect 5s
    timeout http-keep-alive 600s
    http-reuse always
    {"log global" if variant.logs else ""}
    {"option httplog" if variant.logs else ""}
frontend benchmark
    bind {setup.listen}{tls}
    {POLICIES if variant.policies else ""}
    {backend}
backend origin
    server origin {setup.origin} maxconn 10000
backend none
    http-request return status 404
"""
        routes = "".join(
            f"{host or ''}/r{number}/ origin\n" for host, numbers in setup.hosts() for number in numbers
        )
        return {"haproxy.cfg": config} | ({"routes.map": routes} if variant.routes else {})


PREFLIGHT = f'hdr access-control-allow-origin {CORS_ORIGIN} hdr access-control-allow-methods "GET, POST"'

# The head is bounded by the buffer's default size of 16 KiB.
POLICIES = f"""
    http-request deny deny_status 403 if {{ src 10.66.0.0/16 }}
    http-request deny deny_status 403 unless {{ src 127.0.0.0/8 10.0.0.0/8 }}
    http-request deny deny_status 413 if {{ req.body_size gt 1048576 }}
    http-request deny deny_status 414 if {{ url_len gt 4096 }}
    acl cors req.hdr(origin) -m str {CORS_ORIGIN}
    acl preflight req.hdr(access-control-request-method) -m found
    http-request return status 204 {PREFLIGHT} if cors METH_OPTIONS preflight
    http-request set-var(txn.origin) req.hdr(origin) if cors
    http-request del-header x-client-version
    http-request set-header x-gateway benchmark
    http-response del-header server
    http-response set-header x-content-type-options nosniff
    http-response set-header strict-transport-security max-age=31536000
    http-response set-header access-control-allow-origin %[var(txn.origin)] if {{ var(txn.origin) -m found }}
    http-response set-header access-control-allow-credentials true if {{ var(txn.origin) -m found }}
    http-response set-header access-control-expose-headers x-request-id if {{ var(txn.origin) -m found }}
    http-response add-header vary origin if {{ var(txn.origin) -m found }}
"""
