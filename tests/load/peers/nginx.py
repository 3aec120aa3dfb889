"""nginx, from Debian."""

from . import CORS_ORIGIN, Peer


class Nginx(Peer):
    name = "nginx"
    about = "request bodies are streamed (proxy_request_buffering off); the access log is buffered (64k)"
    version_flag = "-v"

    def left_out(self, variant):
        if variant.routes > 10_000:
            return "its configuration is a tree of locations; 100,000 of them take minutes and gigabytes"
        return None

    def command(self, setup):
        return [setup.bin / "nginx", "-p", setup.directory, "-c", setup.directory / "nginx.conf"]

    def files(self, setup):
        variant, directory = setup.variant, setup.directory
        listen = setup.listen + (" ssl" if variant.tls else "") + (" reuseport" if setup.workers > 1 else "")
        locations = [f"location /r{number}/ {{ proxy_pass http://origin; }}" for number in range(variant.routes)]
        lines = [
            f"listen {listen};",
            "http2 on;" if variant.http2 else "",
            TLS.format(cert=setup.certificates / "cert.pem", key=setup.certificates / "key.pem") if variant.tls else "",
            POLICIES if variant.policies else "",
            *(locations or ["location / { proxy_pass http://origin; }"]),
        ]
        log = f"{setup.access_log} combined buffer=64k" if variant.logs else "off"
        temporary = " ".join(
            f"{kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return {
            "nginx.conf": f"""
user root;
worker_processes {setup.workers};
daemon off;
pid {directory}/pid;
error_log stderr crit;
worker_rlimit_nofile 20000;
events {{ worker_connections 15000; }}
http {{
    access_log {log};
    {temporary}
    keepalive_timeout 600s; keepalive_requests 100000000;
    tcp_nodelay on; server_tokens off;
    upstream origin {{ server {setup.origin}; keepalive 512; keepalive_requests 100000000; keepalive_timeout 600s; }}
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
    proxy_request_buffering off;
    map $http_origin $allowed_origin {{ default ""; "{CORS_ORIGIN}" $http_origin; }}
    map "$request_method:$http_access_control_request_method:$allowed_origin" $preflight {{
        default 0; "~^OPTIONS:.+:.+$" 1;
    }}
    map $preflight $preflight_methods {{ default ""; 1 "GET, POST"; }}
    server {{
        {chr(10).join(line for line in lines if line)}
    }}
}}
"""
        }


TLS = "ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;"

# The response's Server field is nginx's own: only a third-party module removes it.
POLICIES = """
deny 10.66.0.0/16; allow 127.0.0.0/8; allow 10.0.0.0/8; deny all;
client_max_body_size 1m; large_client_header_buffers 4 4k;
proxy_set_header X-Gateway benchmark; proxy_set_header X-Client-Version "";
add_header X-Content-Type-Options nosniff always;
add_header Strict-Transport-Security max-age=31536000 always;
add_header Access-Control-Allow-Origin $allowed_origin always;
add_header Access-Control-Allow-Credentials true always;
add_header Access-Control-Expose-Headers x-request-id always;
add_header Vary Origin always;
add_header Access-Control-Allow-Methods $preflight_methods always;
if ($preflight) { return 204; }
"""
