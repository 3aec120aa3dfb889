//! Every fault of a certificate has its place and says what to do; none quotes the key.

use gateway_proto::kind::{Key, Kind};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

use super::*;

/// A self-signed certificate for some names, and its key.
pub(crate) fn pair(names: &[&str]) -> wire::CertificateSpec {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let cert = CertificateParams::new(names).and_then(|params| params.self_signed(&key)).expect("signed");
    wire::CertificateSpec { cert: cert.pem(), key: key.serialize_pem() }
}

fn checked(spec: &wire::CertificateSpec) -> Result<Certificate, Vec<String>> {
    let mut out = Violations::of(Key::new(Kind::Certificate, "default", "c"));
    let root = FieldPath::root();
    let certificate = check("default/c".into(), spec, &root.field("spec"), &mut out);
    let found: Vec<String> = out
        .into_vec()
        .into_iter()
        .map(|it| format!("{} {}: {}", it.field, it.code.as_str(), it.message))
        .collect();
    if found.is_empty() { Ok(certificate.expect("sound")) } else { Err(found) }
}

#[test]
fn a_pair_that_fits_is_ready_to_sign_for_its_names() {
    let mut spec = pair(&["API.example.com", "*.example.org"]);
    spec.cert.push_str(&pair(&["issuer.example"]).cert);
    let certificate = checked(&spec).expect("sound");
    assert_eq!(
        certificate.dns_names.iter().map(|name| &**name).collect::<Vec<_>>(),
        ["api.example.com", "*.example.org"]
    );
    assert_eq!(certificate.key.cert.len(), 2);
    assert!(certificate.signs(&[SignatureScheme::ECDSA_NISTP256_SHA256]));
    assert!(!certificate.signs(&[SignatureScheme::RSA_PSS_SHA256]));
}

#[test]
fn every_fault_is_named_with_its_place() {
    let (one, two) = (pair(&["a.example"]), pair(&["b.example"]));
    let with = |cert: &str, key: &str| wire::CertificateSpec { cert: cert.into(), key: key.into() };
    let cut = one.cert.replace("-----END CERTIFICATE-----", "");
    let garbled = one.cert.replace("MII", "M!I");
    let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let not_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let encrypted = one.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let swapped = format!("{}{}", two.cert, one.cert);
    let long = "x".repeat(MAX_PEM_BYTES + 1);
    for (spec, expected) in [
        (
            with("", " "),
            vec![
                "spec.cert required: give the certificate chain as PEM text",
                "spec.key required: give the private key as PEM text",
            ],
        ),
        (
            with("hello", &one.key),
            vec!["spec.cert invalid: there is no certificate in it, expected -----BEGIN CERTIFICATE-----"],
        ),
        (with(&cut, &one.key), vec!["spec.cert invalid: invalid PEM: a section has no END line"]),
        (with(&garbled, &one.key), vec!["spec.cert invalid: invalid PEM: a section is not base64"]),
        (
            with(not_der, &one.key),
            vec![
                "spec.cert invalid: the first certificate is no X.509 version 3 certificate (TrailingData(SignedData))",
            ],
        ),
        (
            with(&one.cert.repeat(17), &one.key),
            vec!["spec.cert out_of_range: 17 certificates are too many, at most 16 are allowed"],
        ),
        (
            with(&long, &one.key),
            vec!["spec.cert out_of_range: 131073 bytes are too long, at most 131072 are allowed"],
        ),
        (
            with(&one.cert, &one.cert),
            vec!["spec.key invalid: there is no private key in it, expected a PEM block PRIVATE KEY"],
        ),
        (
            with(&one.cert, "***"),
            vec![
                "spec.key invalid: *** stands for the key that a control plane keeps, which is not known here: give the key itself",
            ],
        ),
        (
            with(&one.cert, &encrypted),
            vec![
                "spec.key invalid: the private key is encrypted, decrypt it first: openssl pkey -in KEY -out DECRYPTED",
            ],
        ),
        (
            with(&one.cert, &two.key),
            vec!["spec.key conflict: this is not the key of the first certificate in cert"],
        ),
        (
            with(&swapped, &one.key),
            vec![
                "spec.key conflict: this is the key of certificate 2 of the chain, put that certificate first",
            ],
        ),
    ] {
        assert_eq!(checked(&spec).expect_err("faulty"), expected);
    }
    let found = checked(&with(&one.cert, not_key)).expect_err("faulty");
    assert!(found[0].starts_with("spec.key invalid: this key cannot be used: "), "{found:?}");
    assert!(found[0].ends_with("expected RSA (2048 to 8192 bits), ECDSA or Ed25519"), "{found:?}");
}

#[test]
fn what_is_printed_of_a_certificate_has_no_key_in_it() {
    let spec = pair(&["a.example"]);
    let secret = spec.key.lines().nth(1).expect("base64").to_owned();
    let printed = format!("{:?}", checked(&spec).expect("sound"));
    assert!(!printed.contains(&secret));
}
