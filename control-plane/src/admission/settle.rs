//! An object on its way into the store: what is given as a secret becomes a reference and a sealed value, and `***`
//! the reference that is stored. Pure, so that a dry run answers as a write does.

use gateway_proto::admin::FieldError;
use gateway_proto::field::ViolationCode;
use gateway_proto::kind::{Key, Resource};
use gateway_proto::secret::{MASK, SEALED, Secrets};
use zeroize::Zeroizing;

use crate::secrets::{Reference, Vault};
use crate::state::State;
use crate::store::{Precondition, SecretId, Write};

/// An object to be written.
#[derive(Clone, Debug)]
pub struct Document(Form);

#[derive(Clone, Debug)]
enum Form {
    Settled(Settled),
    /// With secrets in the clear or masked: what becomes of them depends on what is stored.
    Open(Key, Resource),
    /// A credential: the store keeps them apart, and nothing of it is sealed.
    Apart(Key, Resource),
}

/// An object as it will be stored, encoded and hashed once.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    /// With references in the place of secrets.
    pub(super) resource: Resource,
    pub(super) write: Write,
    /// What is behind the references.
    pub(super) secrets: Secrets,
}

impl Settled {
    fn new(resource: Resource, secrets: Secrets) -> Self {
        Settled { write: Write::put(resource.clone(), Precondition::Any), resource, secrets }
    }
}

impl Document {
    /// From a canonical resource as somebody wrote it.
    pub fn new(mut resource: Resource) -> Self {
        if matches!(resource, Resource::Credential(_)) {
            return Document(Form::Apart(resource.key(), resource));
        }
        let has_secrets = resource.secrets_mut().iter().any(|(_, text)| !text.is_empty());
        Document(match has_secrets {
            true => Form::Open(resource.key(), resource),
            false => Form::Settled(Settled::new(resource, Secrets::default())),
        })
    }

    /// From a resource as it is stored, and the values it refers to.
    pub fn stored(resource: Resource, secrets: Secrets) -> Self {
        Document(Form::Settled(Settled::new(resource, secrets)))
    }

    /// With the values in the place of those that a dump has sealed.
    ///
    /// # Errors
    /// Those that do not open.
    pub(super) fn opened(&self, vault: &Vault) -> Result<Self, Vec<FieldError>> {
        match &self.0 {
            Form::Settled(_) | Form::Apart(..) => Ok(self.clone()),
            Form::Open(key, resource) => {
                let mut resource = resource.clone();
                vault.open_dumped(&mut resource)?;
                Ok(Document(Form::Open(key.clone(), resource)))
            }
        }
    }

    /// The object's name.
    pub const fn key(&self) -> &Key {
        match &self.0 {
            Form::Settled(settled) => settled.write.key(),
            Form::Open(key, _) | Form::Apart(key, _) => key,
        }
    }

    /// What it says, secrets aside.
    pub(super) const fn resource(&self) -> &Resource {
        match &self.0 {
            Form::Settled(settled) => &settled.resource,
            Form::Open(_, resource) | Form::Apart(_, resource) => resource,
        }
    }

    /// As it will be stored, if it is stored on that state; `None`: it is kept apart from configuration.
    pub(super) fn settle(&self, state: &State, vault: &Vault) -> Result<Option<Settled>, FieldError> {
        match &self.0 {
            Form::Settled(settled) => Ok(Some(settled.clone())),
            Form::Open(key, resource) => seal(key, resource.clone(), state, vault).map(Some),
            Form::Apart(..) => Ok(None),
        }
    }
}

fn seal(key: &Key, mut resource: Resource, state: &State, vault: &Vault) -> Result<Settled, FieldError> {
    let mut held = state.engine.resource(key);
    let held: Vec<_> = held.as_mut().map(Resource::secrets_mut).unwrap_or_default();
    let held = |field: &str| {
        let (_, text) = held.iter().find(|(path, _)| path == field)?;
        text.parse::<Reference>().ok()
    };
    let mut values = Vec::new();
    let mut records = Vec::new();
    for (field, text) in resource.secrets_mut() {
        if text.is_empty() {
            continue;
        }
        if text.starts_with(SEALED) {
            return Err(sealed(key, &field));
        }
        let (reference, value) = if text == MASK {
            let value = state.engine.secrets(key).get(&field);
            let (reference, value) = held(&field).zip(value).ok_or_else(|| nothing_stored(key, &field))?;
            (reference, Zeroizing::new(value.to_owned()))
        } else {
            let value = Zeroizing::new(std::mem::take(text));
            let tag = vault.tag(key, &field, &value);
            let reference = held(&field).filter(|held| held.tag == tag).unwrap_or_else(|| {
                let revision = state.head.revision + 1;
                records
                    .push(vault.seal(SecretId { key: key.clone(), field: field.clone(), revision }, &value));
                Reference { revision, tag }
            });
            (reference, value)
        };
        *text = reference.to_string();
        values.push((field, value));
    }
    let settled = Settled::new(resource, Secrets::new(values));
    Ok(Settled { write: settled.write.with_secrets(records), ..settled })
}

fn nothing_stored(key: &Key, field: &str) -> FieldError {
    let message = format!("{MASK} keeps the value that is stored, and none is: give the value itself");
    fault(key, field, ViolationCode::Required, message)
}

fn sealed(key: &Key, field: &str) -> FieldError {
    let message =
        "is the sealed value of a dump, which only `gatewayctl restore` opens: give the value itself";
    fault(key, field, ViolationCode::Invalid, message.to_owned())
}

fn fault(key: &Key, field: &str, code: ViolationCode, message: String) -> FieldError {
    FieldError { object: Some(key.clone()), index: None, field: field.to_owned(), code, message }
}
