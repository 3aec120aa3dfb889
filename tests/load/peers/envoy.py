"""Envoy, from PyPI. Its configuration is YAML, of which JSON is a part."""

import json

from . import CORS_ORIGIN, Peer

TYPE = "type.googleapis.com/envoy."


class Envoy(Peer):
    name = "envoy"
    about = "a body is bounded only by its buffer filter, which would hold it back: left out of `policies`"
    version_pattern = r"\d+\.\d+\.\d+"

    def command(self, setup):
        config = setup.directory / "envoy.json"
        options = ["--concurrency", setup.workers, "--disable-hot-restart", "-l", "error"]
        return [setup.bin / "envoy", "-c", config, *options]

    def files(self, setup):
        resources = {"listeners": [listener(setup)], "clusters": [cluster(setup)]}
        return {"envoy.json": json.dumps({"static_resources": resources})}


def address(text):
    host, port = text.rsplit(":", 1)
    return {"socket_address": {"address": host, "port_value": int(port)}}


def cluster(setup):
    limits = {"max_connections": 20_000, "max_pending_requests": 20_000, "max_requests": 20_000}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address(setup.origin)}}]}
    return {
        "name": "origin",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": "origin", "endpoints": [endpoint]},
    }


def listener(setup):
    manager = {
        "@type": TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "AUTO",
        "common_http_protocol_options": {"idle_timeout": "600s"},
        "http_filters": filters(setup.variant),
        "route_config": {"name": "routes", "virtual_hosts": list(virtual_hosts(setup))},
    }
    if setup.variant.logs:
        file = {"@type": TYPE + "extensions.access_loggers.file.v3.FileAccessLog", "path": str(setup.access_log)}
        manager["access_log"] = [{"name": "file", "typed_config": file}]
    if setup.variant.policies:
        manager["max_request_headers_kb"] = 16
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    if setup.variant.tls:
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls(setup)}
    return {"name": "benchmark", "address": address(setup.listen), "filter_chains": [chain]}


def tls(setup):
    files = {
        "certificate_chain": {"filename": str(setup.certificates / "cert.pem")},
        "private_key": {"filename": str(setup.certificates / "key.pem")},
    }
    return {
        "@type": TYPE + "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [files],
        },
    }


def virtual_hosts(setup):
    target = {"cluster": "origin", "timeout": "0s"}
    for host, numbers in setup.hosts():
        prefixes = [f"/r{number}/" for number in numbers] or ["/"]
        routes = [{"match": {"prefix": prefix}, "route": target} for prefix in prefixes]
        found = {"name": host or "any", "domains": [host or "*"], "routes": routes}
        yield found | (POLICIES if setup.variant.policies else {})


def filters(variant):
    router = filter_("router", "router.v3.Router", {})
    if not variant.policies:
        return [router]
    denied = {"remote_ip": cidr("10.66.0.0", 16)}
    allowed = {"or_ids": {"ids": [{"remote_ip": cidr("127.0.0.0", 8)}, {"remote_ip": cidr("10.0.0.0", 8)}]}}
    principal = {"and_ids": {"ids": [allowed, {"not_id": denied}]}}
    rules = {"action": "ALLOW", "policies": {"clients": {"permissions": [{"any": True}], "principals": [principal]}}}
    return [filter_("rbac", "rbac.v3.RBAC", {"rules": rules}), filter_("cors", "cors.v3.Cors", {}), router]


def filter_(name, kind, config):
    config = {"@type": f"{TYPE}extensions.filters.http.{kind}"} | config
    return {"name": f"envoy.filters.http.{name}", "typed_config": config}


def cidr(prefix, length):
    return {"address_prefix": prefix, "prefix_len": length}


def set_header(name, value):
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


POLICIES = {
    "request_headers_to_add": [set_header("x-gateway", "benchmark")],
    "request_headers_to_remove": ["x-client-version"],
    "response_headers_to_add": [
        set_header("x-content-type-options", "nosniff"),
        set_header("strict-transport-security", "max-age=31536000"),
    ],
    "response_headers_to_remove": ["server"],
    "typed_per_filter_config": {
        "envoy.filters.http.cors": {
            "@type": TYPE + "extensions.filters.http.cors.v3.CorsPolicy",
            "allow_origin_string_match": [{"exact": CORS_ORIGIN}],
            "allow_methods": "GET, POST",
            "expose_headers": "x-request-id",
            "allow_credentials": True,
        }
    },
}
