//! Fields that tell an upstream who asks, under the names that Kong made known. Only the gateway may say them: what a
//! client sends under such a name is dropped, in the head and in trailers.

/// `namespace/name` of the consumer.
pub(crate) const CONSUMER_ID: &str = "x-consumer-id";
/// Its name.
pub(crate) const CONSUMER_USERNAME: &str = "x-consumer-username";
/// Its groups, `a, b`.
pub(crate) const CONSUMER_GROUPS: &str = "x-consumer-groups";
/// `namespace/name` of what convinced.
pub(crate) const CREDENTIAL: &str = "x-credential-identifier";
/// How everything said about a consumer begins, also what Kong says and we do not.
const CONSUMER: &str = "x-consumer-";

/// Whether an upstream may take a field of this name for one of them. Those that read fields as variables (CGI, RFC
/// 3875 §4.1.18, and what came after it) cannot tell `-` from `_`, some not from `.` or any other sign.
pub fn speaks_of_identity(name: &[u8]) -> bool {
    let begins = |with: &str| {
        name.len() >= with.len()
            && name.iter().zip(with.as_bytes()).all(|(byte, with)| match byte {
                byte if byte.is_ascii_alphanumeric() => byte.to_ascii_lowercase() == *with,
                _ => *with == b'-',
            })
    };
    // Most names end here.
    matches!(name.first(), Some(b'x' | b'X'))
        && (begins(CONSUMER) || (name.len() == CREDENTIAL.len() && begins(CREDENTIAL)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_speaks_of_identity_in_whatever_signs_it_is_written() {
        for name in [
            CONSUMER_ID,
            "X-Consumer-ID",
            "x_consumer_id",
            "X.Consumer~Groups",
            "x-consumer-custom-id",
            "x-consumer-",
            "X-Credential_Identifier",
            "x.credential.identifier",
        ] {
            assert!(speaks_of_identity(name.as_bytes()), "{name}");
        }
        for name in [
            "",
            "x",
            "x-consumers",
            "x-consumer",
            "y-consumer-id",
            "x-credential-identifiers",
            "x1consumer-id",
        ] {
            assert!(!speaks_of_identity(name.as_bytes()), "{name}");
        }
    }
}
