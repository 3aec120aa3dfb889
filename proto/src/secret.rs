//! Secrets: the fields that are sealed at rest and never shown. The protos mark them with the standard option
//! `debug_redact`; [`Resource::secrets_mut`] leads to them, and a test holds the two together.
//!
//! Invariant: a secret is a string, and never part of what `Debug` prints.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::kind::Resource;
use crate::wire;

/// What stands for a secret wherever an object is shown; on input: keep the value that is stored.
pub const MASK: &str = "***";

/// How the text begins that a store keeps in the place of a secret, and that is never one itself.
pub const SEALED: &str = "sealed:";

impl Resource {
    /// Every secret that may be in it, with its field path (`spec.key`), set or not.
    pub fn secrets_mut(&mut self) -> Vec<(String, &mut String)> {
        match self {
            Resource::Certificate(it) => {
                let spec = it.spec.as_mut();
                spec.map(|spec| ("spec.key".to_owned(), &mut spec.key)).into_iter().collect()
            }
            Resource::TokenIssuer(it) => {
                let spec = it.spec.as_mut();
                spec.map(|spec| ("spec.secret".to_owned(), &mut spec.secret)).into_iter().collect()
            }
            Resource::Credential(it) => {
                let key = it.spec.as_mut().and_then(|spec| spec.api_key.as_mut());
                key.map(|key| ("spec.apiKey.key".to_owned(), &mut key.key)).into_iter().collect()
            }
            Resource::Listener(_)
            | Resource::Route(_)
            | Resource::Upstream(_)
            | Resource::Policy(_)
            | Resource::Consumer(_)
            | Resource::DiscoverySource(_) => Vec::new(),
        }
    }

    /// As it is shown: [`MASK`] in the place of every secret that is set.
    #[must_use]
    pub fn masked(mut self) -> Self {
        for (_, text) in self.secrets_mut().into_iter().filter(|(_, text)| !text.is_empty()) {
            MASK.clone_into(text);
        }
        self
    }
}

/// The values of an object's secrets, by field path, beside an object that holds something else in their place.
/// Cheap to clone, wiped when the last clone is dropped, never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(Option<Arc<BTreeMap<String, Zeroizing<String>>>>);

impl Secrets {
    /// From field paths and values.
    pub fn new(values: impl IntoIterator<Item = (String, Zeroizing<String>)>) -> Self {
        let values: BTreeMap<_, _> = values.into_iter().collect();
        Secrets((!values.is_empty()).then(|| Arc::new(values)))
    }

    /// None.
    pub const fn none() -> Self {
        Secrets(None)
    }

    /// There are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The value of a field.
    pub fn get(&self, field: &str) -> Option<&str> {
        self.0.as_ref()?.get(field).map(|value| value.as_str())
    }

    /// Field paths and values, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|values| values.iter().map(|(field, value)| (field.as_str(), value.as_str())))
    }

    /// Puts the values into the object's fields.
    pub fn fill(&self, resource: &mut Resource) {
        if self.is_empty() {
            return;
        }
        for (field, text) in resource.secrets_mut() {
            if let Some(value) = self.get(&field) {
                value.clone_into(text);
            }
        }
    }
}

impl From<Vec<wire::SecretValue>> for Secrets {
    fn from(values: Vec<wire::SecretValue>) -> Self {
        Secrets::new(values.into_iter().map(|it| (it.field, Zeroizing::new(it.value))))
    }
}

impl From<&Secrets> for Vec<wire::SecretValue> {
    fn from(secrets: &Secrets) -> Self {
        let value = |(field, value): (&str, &str)| wire::SecretValue {
            field: field.to_owned(),
            value: value.to_owned(),
        };
        secrets.iter().map(value).collect()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(field, _)| (field, MASK))).finish()
    }
}

impl fmt::Debug for wire::SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretValue").field("field", &self.field).field("value", &MASK).finish()
    }
}

impl fmt::Debug for wire::EnrollRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wire::EnrollRequest { token: _, node, group, request } = self;
        f.debug_struct("EnrollRequest")
            .field("token", &MASK)
            .field("node", node)
            .field("group", group)
            .field("request", &request.len())
            .finish()
    }
}

/// A text that others may see, such as an error that quotes what somebody wrote: private keys in PEM, API keys and tokens
/// become [`MASK`], wherever they were put.
pub fn without_keys(text: &str) -> Cow<'_, str> {
    let told = without_private_keys(text);
    let tokens = tokens(&told);
    if tokens.is_empty() {
        return told;
    }
    let mut masked = String::with_capacity(told.len());
    let mut from = 0;
    for token in tokens {
        masked.push_str(&told[from..token.start]);
        masked.push_str(MASK);
        from = token.end;
    }
    masked.push_str(&told[from..]);
    Cow::Owned(masked)
}

/// Where API keys, join tokens and admin tokens of this gateway stand in a text, whole or mistyped: `gw`, a letter, `_`,
/// and so many letters and digits that they are worth something.
pub fn tokens(text: &str) -> Vec<Range<usize>> {
    const WORTH: usize = 30;
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].find("gw").map(|at| from + at) {
        from = at + 2;
        let bytes = &text.as_bytes()[at..];
        if !(matches!(bytes.get(2), Some(b'a'..=b'z')) && bytes.get(3) == Some(&b'_')) {
            continue;
        }
        let digits = bytes[4..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        if digits >= WORTH {
            from = at + 4 + digits;
            found.push(at..from);
        }
    }
    found
}

fn without_private_keys(text: &str) -> Cow<'_, str> {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "-----END ";
    const KEY: &str = "PRIVATE KEY-----";
    let mut told = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find(BEGIN) {
        let (before, block) = rest.split_at(begin);
        told.push_str(before);
        let label = &block[BEGIN.len()..];
        let is_key = label.find("-----").is_some_and(|end| label[..end + 5].ends_with(KEY));
        if is_key {
            told.push_str(MASK);
            // One without an end hides all that follows.
            let end = block.find(END).and_then(|end| block[end..].find(KEY).map(|key| end + key + KEY.len()));
            rest = &block[end.unwrap_or(block.len())..];
        } else {
            told.push_str(BEGIN);
            rest = label;
        }
    }
    if rest.len() == text.len() {
        return Cow::Borrowed(text);
    }
    told.push_str(rest);
    Cow::Owned(told)
}

impl fmt::Debug for wire::TokenIssuerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wire::TokenIssuerSpec {
            issuer,
            audiences,
            algorithms,
            jwks,
            secret: _,
            leeway,
            consumer_claim,
            jwks_uri,
        } = self;
        f.debug_struct("TokenIssuerSpec")
            .field("issuer", issuer)
            .field("audiences", audiences)
            .field("algorithms", algorithms)
            .field("jwks", jwks)
            .field("secret", &MASK)
            .field("leeway", leeway)
            .field("consumer_claim", consumer_claim)
            .field("jwks_uri", jwks_uri)
            .finish()
    }
}

impl fmt::Debug for wire::ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wire::ApiKey { sha256, key: _, retiring_sha256, retiring_until } = self;
        f.debug_struct("ApiKey")
            .field("sha256", sha256)
            .field("key", &MASK)
            .field("retiring_sha256", retiring_sha256)
            .field("retiring_until", retiring_until)
            .finish()
    }
}

impl fmt::Debug for wire::CertificateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateSpec").field("cert", &self.cert).field("key", &MASK).finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::credential::KEY_LEN;
    use prost_reflect::{DescriptorPool, Kind as Type, MessageDescriptor};

    use super::*;
    use crate::kind::Kind;

    /// The paths of the fields that a message marks as secret; repeated ones would need an arm of their own here.
    fn marked(message: &MessageDescriptor, path: &str, depth: usize, out: &mut Vec<String>) {
        for field in message.fields() {
            let path = format!("{path}{}", field.json_name());
            let options = field.options();
            let redact = options.get_field_by_name("debug_redact").and_then(|it| it.as_bool());
            if redact == Some(true) {
                assert_eq!(field.kind(), Type::String, "{path}");
                out.push(path);
            } else if let Type::Message(inner) = field.kind()
                && depth < 8
            {
                marked(&inner, &format!("{path}."), depth + 1, out);
            }
        }
    }

    #[test]
    fn every_field_that_a_proto_marks_is_led_to_and_no_other() {
        let pool = DescriptorPool::decode(crate::DESCRIPTORS).expect("built in");
        for kind in Kind::ALL {
            let message = pool.get_message_by_name(&format!("gateway.v1.{kind}")).expect("described");
            let mut expected = Vec::new();
            marked(&message, "", 0, &mut expected);
            let spec = match kind {
                Kind::Credential => serde_json::json!({ "apiKey": {} }),
                _ => serde_json::json!({}),
            };
            let json = serde_json::json!({ "spec": spec });
            let mut resource = Resource::deserialize(*kind, json).expect("an empty spec");
            let found: Vec<String> = resource.secrets_mut().into_iter().map(|(path, _)| path).collect();
            assert_eq!(found, expected, "{kind}");
        }
    }

    #[test]
    fn private_keys_are_cut_out_of_texts_and_certificates_are_not() {
        let key = "-----BEGIN EC PRIVATE KEY-----\nabc\n-----END EC PRIVATE KEY-----";
        let cert = "-----BEGIN CERTIFICATE-----\ndef\n-----END CERTIFICATE-----";
        for (text, told) in [
            ("no key", "no key".to_owned()),
            (
                &format!("invalid type: string \"{key}\", expected u32"),
                "invalid type: string \"***\", expected u32".to_owned(),
            ),
            (&format!("{cert}\n{key}\n{cert}{key}"), format!("{cert}\n***\n{cert}***")),
            ("x -----BEGIN PRIVATE KEY-----\\nabc", "x ***".to_owned()),
            ("-----BEGIN PRIVATE KEY-----\\nabc\\n-----END CERTIFICATE-----", "***".to_owned()),
            ("-----BEGIN ", "-----BEGIN ".to_owned()),
        ] {
            assert_eq!(without_keys(text), told);
        }
    }

    #[test]
    fn keys_and_tokens_are_cut_out_of_texts_whole_or_mistyped() {
        let key = crate::credential::key(&"x".repeat(crate::credential::RANDOM_LEN));
        let told = without_keys(&format!("{key}: invalid reference {key:?}, gw_x gwk_ gwk_short gwgwk_y"))
            .into_owned();
        assert_eq!(told, "***: invalid reference \"***\", gw_x gwk_ gwk_short gwgwk_y");
        for text in [
            &key[..KEY_LEN - 1],
            &key.replace("gwk_", "gwj_"),
            &key.replace("gwk_", "gwa_"),
            &format!("{key}9"),
        ] {
            assert_eq!(without_keys(text), MASK, "{text}");
        }
        assert!(matches!(without_keys("nothing of the gwkind"), Cow::Borrowed(_)));
    }

    #[test]
    fn values_are_put_in_place_of_what_stands_there_and_are_not_printed() {
        let spec = wire::CertificateSpec { cert: "PUBLIC".into(), key: "reference".into() };
        let object = Resource::from(wire::Certificate { spec: Some(spec), ..Default::default() });
        let secrets = Secrets::new([("spec.key".to_owned(), Zeroizing::new("PRIVATE".to_owned()))]);
        let mut filled = object.clone();
        secrets.fill(&mut filled);
        assert_eq!(*filled.secrets_mut()[0].1, "PRIVATE");
        let mut same = object.clone();
        Secrets::none().fill(&mut same);
        assert_eq!(same, object);
        assert_eq!(*object.masked().secrets_mut()[0].1, MASK);
        let sent = Vec::<wire::SecretValue>::from(&secrets);
        for printed in [format!("{secrets:?}"), format!("{sent:?}"), format!("{filled:?}")] {
            assert!(!printed.contains("PRIVATE"), "{printed}");
        }
        assert_eq!(Secrets::from(sent), secrets);
    }

    #[test]
    fn a_secret_is_not_printed() {
        let spec = wire::CertificateSpec { cert: "PUBLIC".into(), key: "PRIVATE".into() };
        let printed =
            format!("{:?}", Resource::from(wire::Certificate { spec: Some(spec), ..Default::default() }));
        assert!(printed.contains("PUBLIC") && !printed.contains("PRIVATE"), "{printed}");
        let enroll = wire::EnrollRequest { token: "PRIVATE".into(), ..Default::default() };
        assert!(!format!("{enroll:?}").contains("PRIVATE"));
    }
}
