//! Reason: the closed vocabulary of everything the proxy itself answers instead of an upstream. The slug is the
//! problem's `type`, the metric's `reason` label and the log's field, so it is bounded and never renamed.
//! Bodies are `application/problem+json` (RFC 9457); nothing internal goes in but the detail a caller chose for
//! the client's eyes.

/// Why a request was not passed on or its response not passed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The request is malformed.
    BadRequest,
    /// Who asks is not known.
    Unauthorized,
    /// A policy refuses this client.
    Forbidden,
    /// No route matches.
    NoRoute,
    /// Routes match but for the method; answered with `Allow`.
    MethodNotAllowed,
    /// The client was too slow in sending its request.
    ClientTimeout,
    /// The request body is larger than allowed.
    BodyTooLarge,
    /// The request target is longer than allowed.
    UriTooLong,
    /// An expectation other than `100-continue`.
    ExpectationFailed,
    /// The request head is larger than allowed.
    HeadTooLarge,
    /// A fault of our own, contained to this request.
    InternalError,
    /// A method, transfer coding or feature that we do not do.
    NotImplemented,
    /// No connection to the upstream.
    UpstreamConnectFailed,
    /// The upstream closed or reset the connection before its response was complete.
    UpstreamReset,
    /// The upstream answered with something that is not HTTP.
    UpstreamProtocol,
    /// The upstream has no target that could be asked.
    NoHealthyTarget,
    /// A bound of the proxy on work in progress is reached.
    Overloaded,
    /// No complete configuration is active yet, or the proxy is going away.
    NotReady,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// An HTTP version that we do not speak.
    VersionNotSupported,
    /// The client went away, or did not take its response in time. Nobody is sent the status that this has by custom.
    ClientClosed,
}

impl Reason {
    /// Every reason, for tables of metric cells and for documentation. [`Reason::index`] is its place here.
    pub const ALL: [Reason; 21] = [
        Reason::BadRequest,
        Reason::Unauthorized,
        Reason::Forbidden,
        Reason::NoRoute,
        Reason::MethodNotAllowed,
        Reason::ClientTimeout,
        Reason::BodyTooLarge,
        Reason::UriTooLong,
        Reason::ExpectationFailed,
        Reason::HeadTooLarge,
        Reason::InternalError,
        Reason::NotImplemented,
        Reason::UpstreamConnectFailed,
        Reason::UpstreamReset,
        Reason::UpstreamProtocol,
        Reason::NoHealthyTarget,
        Reason::Overloaded,
        Reason::NotReady,
        Reason::UpstreamTimeout,
        Reason::VersionNotSupported,
        Reason::ClientClosed,
    ];

    /// A small dense number, from 0.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Status code, slug and title, in one place.
    const fn facts(self) -> (u16, &'static str, &'static str) {
        match self {
            Reason::BadRequest => (400, "bad_request", "malformed request"),
            Reason::Unauthorized => (401, "unauthorized", "who asks is not known"),
            Reason::Forbidden => (403, "forbidden", "not allowed"),
            Reason::NoRoute => (404, "no_route", "no route matches this request"),
            Reason::MethodNotAllowed => (405, "method_not_allowed", "no route takes this method here"),
            Reason::ClientTimeout => (408, "client_timeout", "the request did not arrive in time"),
            Reason::BodyTooLarge => (413, "body_too_large", "request body too large"),
            Reason::UriTooLong => (414, "uri_too_long", "request target too long"),
            Reason::ExpectationFailed => (417, "expectation_failed", "expectation cannot be met"),
            Reason::HeadTooLarge => (431, "head_too_large", "request head too large"),
            Reason::InternalError => (500, "internal_error", "the gateway failed on this request"),
            Reason::NotImplemented => (501, "not_implemented", "not implemented"),
            Reason::UpstreamConnectFailed => {
                (502, "upstream_connect_failed", "the upstream cannot be reached")
            }
            Reason::UpstreamReset => (502, "upstream_reset", "the upstream broke off"),
            Reason::UpstreamProtocol => (502, "upstream_protocol", "the upstream's answer is not valid HTTP"),
            Reason::NoHealthyTarget => (503, "no_healthy_target", "no target is available"),
            Reason::Overloaded => (503, "overloaded", "the gateway is at its limits"),
            Reason::NotReady => (503, "not_ready", "the gateway is not ready"),
            Reason::UpstreamTimeout => (504, "upstream_timeout", "the upstream did not answer in time"),
            Reason::VersionNotSupported => (505, "version_not_supported", "HTTP version not supported"),
            Reason::ClientClosed => (499, "client_closed", "the client closed the connection"),
        }
    }

    /// The response's status code.
    pub const fn status(self) -> u16 {
        self.facts().0
    }

    /// The name that metrics, logs and clients know it by.
    pub const fn slug(self) -> &'static str {
        self.facts().1
    }

    /// One line for people.
    pub const fn title(self) -> &'static str {
        self.facts().2
    }

    /// Appends the problem body `{type,title,status,detail,requestId}`; an empty detail is left out. Nothing is
    /// allocated beyond the buffer's growth.
    pub fn write_problem(self, detail: &str, request_id: &str, out: &mut Vec<u8>) {
        let (status, slug, title) = self.facts();
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(slug.as_bytes());
        out.extend_from_slice(b"\",\"title\":\"");
        out.extend_from_slice(title.as_bytes());
        out.extend_from_slice(b"\",\"status\":");
        out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
        if !detail.is_empty() {
            out.extend_from_slice(b",\"detail\":");
            write_json_string(detail, out);
        }
        out.extend_from_slice(b",\"requestId\":");
        write_json_string(request_id, out);
        out.push(b'}');
    }
}

/// `Content-Type` of [`Reason::write_problem`].
pub const PROBLEM_JSON: &[u8] = b"application/problem+json";

fn write_json_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..=0x1f => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_place_and_a_slug_of_its_own() {
        let mut slugs: Vec<&str> = Vec::new();
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), place);
            assert!((400..600).contains(&reason.status()), "{reason:?}");
            assert!(reason.slug().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{reason:?}");
            assert!(!slugs.contains(&reason.slug()), "{reason:?}");
            slugs.push(reason.slug());
        }
    }

    #[test]
    fn a_problem_is_json_whatever_the_detail_holds() {
        let mut body = Vec::new();
        Reason::NoRoute.write_problem("say \"no\"\\\n\u{1}\u{e9}", "id-1", &mut body);
        let problem: serde_json::Value = serde_json::from_slice(&body).expect("valid JSON");
        let expected = serde_json::json!({
            "type": "no_route", "title": "no route matches this request", "status": 404,
            "detail": "say \"no\"\\\n\u{1}\u{e9}", "requestId": "id-1",
        });
        assert_eq!(problem, expected);
    }

    #[test]
    fn an_empty_detail_is_left_out() {
        let mut body = Vec::new();
        Reason::Overloaded.write_problem("", "r", &mut body);
        let expected =
            r#"{"type":"overloaded","title":"the gateway is at its limits","status":503,"requestId":"r"}"#;
        assert_eq!(String::from_utf8_lossy(&body), expected);
    }
}
