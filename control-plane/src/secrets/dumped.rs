//! Sealed values on their way through a backup: `sealed:REVISION:MASTER:DATA KEY:VALUE` in the place of the secret,
//! the record of the store as it is. Only the master key opens it, and only in the place that it was dumped from.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use gateway_proto::admin::FieldError;
use gateway_proto::field::ViolationCode;
use gateway_proto::kind::{Key, Resource};
use gateway_proto::secret::SEALED;

use super::{Vault, master, references};
use crate::store::{SecretId, SecretRecord, Store, StoreError};

/// A sealed value as a dump has it.
fn dumped(record: &SecretRecord) -> String {
    let (data_key, value) = (STANDARD_NO_PAD.encode(&record.data_key), STANDARD_NO_PAD.encode(&record.value));
    format!("{SEALED}{}:{}:{data_key}:{value}", record.id.revision, master::hex(&record.master))
}

/// What a dump has in the place of a secret; `None`: it is no sealed value.
fn read(key: &Key, field: &str, text: &str) -> Option<SecretRecord> {
    let mut parts = text.strip_prefix(SEALED)?.split(':');
    let (revision, master) = (parts.next()?.parse().ok()?, parts.next()?);
    let master = u64::from_str_radix(master, 16).ok().filter(|_| master.len() == 16)?.to_be_bytes();
    let mut bytes = || STANDARD_NO_PAD.decode(parts.next()?).ok();
    let (data_key, value) = (bytes()?, bytes()?);
    let id = SecretId { key: key.clone(), field: field.to_owned(), revision };
    parts.next().is_none().then_some(SecretRecord { id, master, data_key, value })
}

/// Puts sealed values in the place of the references of stored objects.
///
/// # Errors
/// When one is not there; when the store does not answer.
pub async fn dump(store: &dyn Store, objects: &mut [Resource]) -> Result<(), StoreError> {
    let broken = |error: super::SecretError| StoreError::Broken(error.to_string());
    let mut wanted = Vec::new();
    for object in &mut *objects {
        wanted.extend(references(object).map_err(broken)?);
    }
    let found = store.secrets(wanted).await?;
    let found: std::collections::HashMap<_, _> = found.iter().map(|it| (&it.id, it)).collect();
    for object in objects {
        let ids = references(object).map_err(broken)?;
        let set = object.secrets_mut().into_iter().filter(|(_, text)| !text.is_empty());
        for ((_, text), id) in set.zip(ids) {
            let record = found.get(&id);
            let record = record.ok_or_else(|| broken(super::damaged(&id, "it is not there")))?;
            *text = dumped(record);
        }
    }
    Ok(())
}

impl Vault {
    /// Puts the values in the place of sealed ones; other texts stay.
    ///
    /// # Errors
    /// Every one that does not open, and why.
    pub fn open_dumped(&self, object: &mut Resource) -> Result<(), Vec<FieldError>> {
        let key = object.key();
        let mut faults = Vec::new();
        for (field, text) in object.secrets_mut() {
            if !text.starts_with(SEALED) {
                continue;
            }
            match self.opened(&key, &field, text) {
                Ok(value) => *text = value,
                Err(message) => {
                    let (object, code) = (Some(key.clone()), ViolationCode::Invalid);
                    faults.push(FieldError { object, index: None, field, code, message });
                }
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    fn opened(&self, key: &Key, field: &str, text: &str) -> Result<String, String> {
        let record = read(key, field, text).ok_or("is no sealed value of a dump, it was cut or changed")?;
        if !self.wraps.iter().any(|(id, _)| *id == record.master) {
            return Err(format!(
                "is sealed with master key {}, which this control plane was not given: put that key in a line below its own in --master-key-file, and restart it",
                master::hex(&record.master)
            ));
        }
        let value = self.open(&record);
        let value = value.map_err(|_| "does not open: it was changed, or dumped from another object")?;
        Ok(value.as_str().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::kind::Kind;
    use gateway_proto::wire;

    use super::super::{MasterKey, MasterKeys};
    use super::*;

    fn certificate(name: &str, key: &str) -> Resource {
        let metadata = Some(wire::Metadata {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            ..Default::default()
        });
        let spec = Some(wire::CertificateSpec { key: key.to_owned(), ..Default::default() });
        wire::Certificate { metadata, spec, ..Default::default() }.into()
    }

    fn fault(vault: &Vault, name: &str, key: &str) -> String {
        let faults = vault.open_dumped(&mut certificate(name, key)).expect_err("refused");
        assert_eq!((faults.len(), &*faults[0].field), (1, "spec.key"));
        faults[0].message.clone()
    }

    #[test]
    fn a_sealed_value_opens_with_its_master_key_in_its_place_and_nowhere_else() {
        let (vault, _) = Vault::create(&MasterKeys::from(MasterKey::generate()));
        let key = Key::new(Kind::Certificate, "default", "site");
        let text = dumped(&vault.seal(SecretId { key, field: "spec.key".into(), revision: 7 }, "PRIVATE"));
        assert!(text.starts_with("sealed:7:") && !text.contains("PRIVATE"));
        let mut object = certificate("site", &text);
        vault.open_dumped(&mut object).expect("opens");
        assert_eq!(object, certificate("site", "PRIVATE"));

        assert!(fault(&vault, "other", &text).contains("another object"));
        assert!(fault(&vault, "site", &text.replacen(":7:", ":8:", 1)).contains("changed"));
        let cut = &text[..text.len() - 9];
        assert!(fault(&vault, "site", cut).contains("changed"));
        for wrong in ["sealed:", "sealed:7:zz:AA:AA", "sealed:7:0000000000000000:AA", &format!("{text}:AA")] {
            assert!(fault(&vault, "site", wrong).contains("no sealed value"), "{wrong}");
        }
        let (stranger, _) = Vault::create(&MasterKeys::from(MasterKey::generate()));
        let said = fault(&stranger, "site", &text);
        assert!(
            said.contains(&master::hex(&vault.first().0)) && said.contains("--master-key-file"),
            "{said}"
        );
    }
}
