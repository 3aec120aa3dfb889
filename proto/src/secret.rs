//! Secrets: the fields that are sealed at rest and never shown. The protos mark them with the standard option
//! `debug_redact`; [`Resource::secrets_mut`] leads to them, and a test holds the two together.
//!
//! Invariant: a secret is a string, and never part of what `Debug` prints.

use std::fmt;

use crate::kind::Resource;
use crate::wire;

/// What stands for a secret wherever an object is shown; on input: keep the value that is stored.
pub const MASK: &str = "***";

impl Resource {
    /// Every secret that may be in it, with its field path (`spec.key`), set or not.
    pub fn secrets_mut(&mut self) -> Vec<(String, &mut String)> {
        match self {
            Resource::Certificate(it) => {
                let spec = it.spec.as_mut();
                spec.map(|spec| ("spec.key".to_owned(), &mut spec.key)).into_iter().collect()
            }
            Resource::Listener(_) | Resource::Route(_) | Resource::Upstream(_) | Resource::Policy(_) => {
                Vec::new()
            }
        }
    }
}

impl fmt::Debug for wire::CertificateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateSpec").field("cert", &self.cert).field("key", &MASK).finish()
    }
}

#[cfg(test)]
mod tests {
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
            let json = serde_json::json!({ "spec": {} });
            let mut resource = Resource::deserialize(*kind, json).expect("an empty spec");
            let found: Vec<String> = resource.secrets_mut().into_iter().map(|(path, _)| path).collect();
            assert_eq!(found, expected, "{kind}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let spec = wire::CertificateSpec { cert: "PUBLIC".into(), key: "PRIVATE".into() };
        let printed =
            format!("{:?}", Resource::from(wire::Certificate { spec: Some(spec), ..Default::default() }));
        assert!(printed.contains("PUBLIC") && !printed.contains("PRIVATE"), "{printed}");
    }
}
