//! Which origins `cors` allows: exact, any subdomain, by expression, or all of them. An origin is compared as the
//! browser serialises it (<https://html.spec.whatwg.org/#ascii-serialisation-of-an-origin>): scheme, host in lower
//! case, port unless it is the scheme's own, nothing after.

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::wire;
use regex::Regex;

use crate::value;
use crate::violations::Violations;

/// A checked list of origins.
#[derive(Debug)]
pub(super) enum Origins {
    Any,
    These { exact: Box<[Box<str>]>, subdomains: Box<[Subdomains]>, regex: Option<Regex> },
}

/// `https://*.example.com:8443`: one or more labels, never the apex.
#[derive(Debug)]
pub(super) struct Subdomains {
    /// `https://`
    scheme: Box<str>,
    /// `.example.com:8443`
    suffix: Box<str>,
}

enum Pattern {
    Exact(Box<str>),
    Subdomains(Subdomains),
}

impl Origins {
    pub(super) fn compile(spec: &wire::Cors, at: &FieldPath<'_>, out: &mut Violations) -> Option<Self> {
        if spec.origins.is_empty() && spec.origin_regex.is_empty() {
            out.push(at, ViolationCode::Required, "name origins or an originRegex");
            return None;
        }
        let regex = match &*spec.origin_regex {
            "" => None,
            pattern => Some(out.ok(&at.field("originRegex"), value::whole_regex(pattern))?),
        };
        if spec.origins.iter().any(|origin| origin == "*") {
            if spec.origins.len() > 1 || regex.is_some() {
                let message = "* allows every origin, drop the others";
                out.push(&at.field("origins"), ViolationCode::Conflict, message);
                return None;
            }
            return Some(Origins::Any);
        }
        let (mut exact, mut subdomains, mut sound) = (Vec::new(), Vec::new(), true);
        let list = at.field("origins");
        for (index, text) in spec.origins.iter().enumerate() {
            match out.ok(&list.index(index), pattern(text)) {
                Some(Pattern::Exact(origin)) => exact.push(origin),
                Some(Pattern::Subdomains(of)) => subdomains.push(of),
                None => sound = false,
            }
        }
        sound.then(|| Origins::These { exact: exact.into(), subdomains: subdomains.into(), regex })
    }

    /// Every origin is allowed, so that the answer is the same for all.
    pub(super) const fn are_any(&self) -> bool {
        matches!(self, Origins::Any)
    }

    pub(super) fn allow(&self, origin: &[u8]) -> bool {
        let Origins::These { exact, subdomains, regex } = self else { return true };
        exact.iter().any(|allowed| allowed.as_bytes() == origin)
            || subdomains.iter().any(|of| of.contain(origin))
            || regex
                .as_ref()
                .is_some_and(|regex| std::str::from_utf8(origin).is_ok_and(|text| regex.is_match(text)))
    }
}

impl Subdomains {
    fn contain(&self, origin: &[u8]) -> bool {
        let labels = origin
            .strip_prefix(self.scheme.as_bytes())
            .and_then(|rest| rest.strip_suffix(self.suffix.as_bytes()))
            .unwrap_or_default();
        !labels.is_empty() && labels.split(|&byte| byte == b'.').all(is_label)
    }
}

/// A host name's label, in lower case as browsers send it; underscores occur in practice.
fn is_label(label: &[u8]) -> bool {
    !label.is_empty()
        && label.iter().all(|&b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

fn pattern(text: &str) -> Result<Pattern, String> {
    let form = || {
        format!(
            "invalid origin {text:?}, expected for example https://app.example.com or https://*.example.com, or *"
        )
    };
    let lower = text.to_ascii_lowercase();
    let (scheme, host) = lower.split_once("://").ok_or_else(form)?;
    let sound_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    // An IPv6 address has colons inside its brackets.
    let colon = host.rfind(':').filter(|&at| !host[at..].contains(']'));
    let (name, port) = host.split_at(colon.unwrap_or(host.len()));
    let port = match (port, scheme) {
        ("", _) | (":80", "http") | (":443", "https") => "",
        _ if port[1..].parse::<u16>().is_ok_and(|number| number != 0) && !port.starts_with(":+") => port,
        _ => return Err(form()),
    };
    let below = name.strip_prefix("*.");
    let ipv6 = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let sound_name = match ipv6 {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => below.unwrap_or(name).split('.').all(|label| is_label(label.as_bytes())),
    };
    if !sound_scheme || !sound_name {
        return Err(form());
    }
    Ok(match below {
        Some(apex) => Pattern::Subdomains(Subdomains {
            scheme: format!("{scheme}://").into(),
            suffix: format!(".{apex}{port}").into(),
        }),
        None => Pattern::Exact(format!("{scheme}://{name}{port}").into()),
    })
}

#[cfg(test)]
mod tests {
    use gateway_proto::kind::{Key, Kind};

    use super::*;

    fn compiled(origins: &[&str], regex: &str) -> Result<Origins, Vec<String>> {
        let spec = wire::Cors {
            origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
            origin_regex: regex.to_owned(),
            ..Default::default()
        };
        let mut out = Violations::of(Key::new(Kind::Policy, "default", "x"));
        let origins = Origins::compile(&spec, &FieldPath::root(), &mut out);
        let faults: Vec<String> = out.into_vec().iter().map(|fault| fault.field.clone()).collect();
        origins.filter(|_| faults.is_empty()).ok_or(faults)
    }

    #[test]
    fn origins_are_allowed_as_browsers_write_them() {
        for (origins, regex, origin, expected) in [
            (&["https://a.example"][..], "", "https://a.example", true),
            (&["https://A.Example:443"], "", "https://a.example", true),
            (&["http://a.example:8080"], "", "http://a.example:8080", true),
            (&["https://a.example"], "", "http://a.example", false),
            (&["https://a.example"], "", "https://a.example.evil", false),
            (&["https://*.example.com"], "", "https://a.example.com", true),
            (&["https://*.example.com"], "", "https://a.b.example.com", true),
            (&["https://*.example.com"], "", "https://example.com", false),
            (&["https://*.example.com"], "", "https://.example.com", false),
            (&["https://*.example.com"], "", "https://evil/.example.com", false),
            (&["https://*.example.com"], "", "https://evilexample.com", false),
            (&["https://*.example.com:8443"], "", "https://a.example.com:8443", true),
            (&["https://*.example.com:8443"], "", "https://a.example.com", false),
            (&["capacitor://localhost"], "", "capacitor://localhost", true),
            (&["http://[::1]:3000"], "", "http://[::1]:3000", true),
            (&[], "https://[a-z]+\\.example", "https://ab.example", true),
            (&[], "https://[a-z]+\\.example", "https://ab.example.evil", false),
            (&[], "https://[a-z]+\\.example", "xhttps://ab.example", false),
            (&["https://x.example"], "https://y\\.example", "https://y.example", true),
            (&["*"], "", "null", true),
        ] {
            let allowed = compiled(origins, regex).expect("valid").allow(origin.as_bytes());
            assert_eq!(allowed, expected, "{origins:?} {regex} {origin}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        for bad in [
            "example.com",
            "https://",
            "https://a.example/",
            "https://a.example/path",
            "https://a.example:0",
            "https://a.example:x",
            "https://a.example:+80",
            "https://*",
            "https://*.",
            "https://a.*.example",
            "https://a..example",
            "https://user@a.example",
            "null",
            "",
            "1x://a.example",
        ] {
            assert_eq!(compiled(&[bad], "").err(), Some(vec!["origins[0]".to_owned()]), "{bad}");
        }
        assert_eq!(compiled(&[], "").err(), Some(vec![String::new()]));
        assert_eq!(compiled(&[], "(").err(), Some(vec!["originRegex".to_owned()]));
        assert_eq!(compiled(&["*", "https://a.example"], "").err(), Some(vec!["origins".to_owned()]));
    }
}
