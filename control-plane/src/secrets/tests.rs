//! Tests of `secrets.rs`.

use gateway_proto::kind::Kind;
use gateway_proto::wire;

use super::*;

fn id(name: &str, revision: u64) -> SecretId {
    SecretId { key: Key::new(Kind::Certificate, "shop", name), field: "spec.key".into(), revision }
}

#[test]
fn a_sealed_value_opens_where_it_was_sealed_and_nowhere_else() {
    let (vault, _) = Vault::create(&MasterKey::generate().into());
    let record = vault.seal(id("a", 7), "the value");
    assert_eq!(*vault.open(&record).expect("its own"), "the value");
    for part in [&record.data_key, &record.value] {
        assert!(!part.windows(9).any(|window| window == b"the value"));
    }
    let again = vault.seal(id("a", 7), "the value");
    assert!(again.value != record.value && again.data_key != record.data_key, "nothing tells equal values");

    let flipped = |mut bytes: Vec<u8>| {
        bytes[20] ^= 1;
        bytes
    };
    let other = vault.seal(id("a", 7), "another value");
    for broken in [
        SecretRecord { id: id("b", 7), ..record.clone() },
        SecretRecord { id: id("a", 8), ..record.clone() },
        SecretRecord { id: SecretId { field: "spec.cert".into(), ..id("a", 7) }, ..record.clone() },
        SecretRecord { data_key: other.data_key, ..record.clone() },
        SecretRecord { value: other.value, ..record.clone() },
        SecretRecord { value: flipped(record.value.clone()), ..record.clone() },
        SecretRecord { data_key: flipped(record.data_key.clone()), ..record.clone() },
        SecretRecord { value: Vec::new(), ..record.clone() },
        SecretRecord { master: [0; 8], ..record },
    ] {
        let error = vault.open(&broken).expect_err("refused").to_string();
        assert!(error.contains("cannot be opened") && !error.contains("value\""), "{error}");
    }
}

#[test]
fn a_store_is_unlocked_with_the_key_it_was_made_with_only() {
    let [key, other] = [(); 2].map(|()| MasterKeys::from(MasterKey::generate()));
    let (vault, record) = Vault::create(&key);
    let again = Vault::unlock(&key, &record).expect("the same key");
    let place = id("a", 1);
    assert_eq!(vault.tag(&place.key, &place.field, "x"), again.tag(&place.key, &place.field, "x"));
    assert_eq!(*again.open(&vault.seal(place, "x")).expect("sealed with it"), "x");
    assert!(Vault::unlock(&other, &record).is_none());
    let forged = MasterRecord { id: other.first().id(), ..record };
    assert!(Vault::unlock(&other, &forged).is_none(), "the id alone does not do");
}

#[test]
fn a_tag_tells_values_fields_and_objects_apart_and_is_another_in_each_store() {
    let (vault, _) = Vault::create(&MasterKey::generate().into());
    let (a, b) = (id("a", 1).key, id("b", 1).key);
    let tag = vault.tag(&a, "spec.key", "x");
    assert_eq!(tag, vault.tag(&a, "spec.key", "x"));
    let elsewhere = Vault::create(&MasterKey::generate().into()).0.tag(&a, "spec.key", "x");
    for other in [
        vault.tag(&a, "spec.key", "y"),
        vault.tag(&a, "spec.ke", "yx"),
        vault.tag(&b, "spec.key", "x"),
        elsewhere,
    ] {
        assert_ne!(tag, other);
    }
}

#[test]
fn a_reference_is_written_and_read_back_and_nothing_else_is_one() {
    let reference = Reference { revision: 12, tag: Tag([0xab; 32]) };
    let text = reference.to_string();
    assert_eq!(text, format!("sealed:12:{}", "ab".repeat(32)));
    assert_eq!(text.parse(), Ok(reference));
    for none in ["", "***", "sealed:", "sealed:1:", "sealed:x:00", &text[1..], &format!("{text}0")] {
        assert_eq!(none.parse::<Reference>(), Err(NoReference), "{none}");
    }
}

#[test]
fn an_object_in_the_store_holds_references_only() {
    let with = |key: &str| {
        let spec = wire::CertificateSpec { cert: "c".into(), key: key.into() };
        let metadata = wire::Metadata { name: "a".into(), namespace: "shop".into(), ..Default::default() };
        Resource::from(wire::Certificate { metadata: Some(metadata), spec: Some(spec), ..Default::default() })
    };
    let reference = Reference { revision: 3, tag: Tag([1; 32]) };
    assert_eq!(references(&mut with(&reference.to_string())).expect("sound"), [id("a", 3)]);
    assert_eq!(references(&mut with("")).expect("not set"), []);
    let error = references(&mut with("hunter2")).expect_err("in the clear").to_string();
    assert!(error.contains("spec.key") && !error.contains("hunter2"), "{error}");
}
