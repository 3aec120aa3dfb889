//! The kinds, in one list. Adding a kind is a message in `gateway/v1`, and a line here; if it holds secrets, also an
//! arm in [`crate::secret`].

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::digest::ItemHash;
use crate::wire;

/// One line per kind: type name and the plural of its REST collection.
macro_rules! kinds {
    ($($kind:ident $plural:literal),+ $(,)?) => {
        /// What an object is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
        pub enum Kind { $(#[doc = concat!("`", stringify!($kind), "`.")] $kind),+ }

        impl Kind {
            /// Every kind, in the order that lists show them.
            pub const ALL: &'static [Kind] = &[$(Kind::$kind),+];

            /// `Route`: as written in a manifest's `kind`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Kind::$kind => stringify!($kind)),+ }
            }

            /// `routes`: as written in a REST path.
            pub const fn plural(self) -> &'static str {
                match self { $(Kind::$kind => $plural),+ }
            }
        }

        /// An authored object of any kind, in its wire form.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Resource { $(#[doc = concat!("A `", stringify!($kind), "`.")] $kind(wire::$kind)),+ }

        impl Resource {
            /// Its kind.
            pub const fn kind(&self) -> Kind {
                match self { $(Resource::$kind(_) => Kind::$kind),+ }
            }

            /// Its metadata, if it has any.
            pub const fn metadata(&self) -> Option<&wire::Metadata> {
                match self { $(Resource::$kind(it) => it.metadata.as_ref()),+ }
            }

            /// Its metadata, made when missing.
            pub fn metadata_mut(&mut self) -> &mut wire::Metadata {
                match self { $(Resource::$kind(it) => it.metadata.get_or_insert_default()),+ }
            }

            /// Reads the canonical encoding back.
            ///
            /// # Errors
            /// When the bytes are no message of that kind.
            pub fn decode(kind: Kind, body: &[u8]) -> Result<Self, prost::DecodeError> {
                Ok(match kind { $(Kind::$kind => Resource::$kind(wire::$kind::decode(body)?)),+ })
            }

            /// Reads the kind's JSON or YAML form from any serde format.
            ///
            /// # Errors
            /// Those of the format: unknown field, wrong type, bad enum value.
            pub fn deserialize<'de, D: serde::Deserializer<'de>>(kind: Kind, from: D) -> Result<Self, D::Error> {
                Ok(match kind { $(Kind::$kind => Resource::$kind(wire::$kind::deserialize(from)?)),+ })
            }

            fn message_to_vec(&self) -> Vec<u8> {
                match self { $(Resource::$kind(it) => it.encode_to_vec()),+ }
            }

            fn stamp(&mut self) {
                match self { $(Resource::$kind(it) => {
                    it.api_version = crate::API_VERSION.to_owned();
                    it.kind = stringify!($kind).to_owned();
                }),+ }
            }
        }

        impl Serialize for Resource {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                match self { $(Resource::$kind(it) => it.serialize(to)),+ }
            }
        }

        $(impl From<wire::$kind> for Resource {
            fn from(it: wire::$kind) -> Self { Resource::$kind(it) }
        })+
    };
}

kinds! {
    Listener "listeners",
    Route "routes",
    Upstream "upstreams",
    Policy "policies",
    Certificate "certificates",
    Consumer "consumers",
    TokenIssuer "tokenissuers",
    Credential "credentials",
    DiscoverySource "discoverysources",
}

impl Kind {
    /// By the name in a manifest (`Route`).
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }

    /// By the name of its REST collection (`routes`).
    pub fn from_plural(plural: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.plural() == plural)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Kind::from_name(text).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// A name that is no kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind {0:?}, expected one of {kinds}", kinds = Kind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownKind(pub String);

/// Names one object: kind, namespace, name. Shown as `Route default/users`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Key {
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub namespace: String,
    /// What it is called.
    pub name: String,
}

impl Key {
    /// A key from its parts.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Key { kind, namespace: namespace.into(), name: name.into() }
    }

    /// `namespace/name`: how it is called on the wire, in metrics and in status.
    pub fn qualified(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

impl From<&Key> for wire::ObjectRef {
    fn from(key: &Key) -> Self {
        wire::ObjectRef {
            kind: key.kind.as_str().to_owned(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        }
    }
}

impl TryFrom<&wire::ObjectRef> for Key {
    type Error = UnknownKind;

    fn try_from(object: &wire::ObjectRef) -> Result<Self, Self::Error> {
        Ok(Key::new(object.kind.parse()?, object.namespace.clone(), object.name.clone()))
    }
}

impl Resource {
    /// Its key; an unset namespace is `default`.
    pub fn key(&self) -> Key {
        let (namespace, name) = match self.metadata() {
            Some(metadata) => (metadata.namespace.as_str(), metadata.name.as_str()),
            None => ("", ""),
        };
        let namespace = if namespace.is_empty() { crate::DEFAULT_NAMESPACE } else { namespace };
        Key::new(self.kind(), namespace, name)
    }

    /// The form that is stored, hashed and streamed: namespace, apiVersion and kind filled in, output-only
    /// metadata gone. Content is equal exactly if these bytes are.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        self.stamp();
        let metadata = self.metadata_mut();
        if metadata.namespace.is_empty() {
            crate::DEFAULT_NAMESPACE.clone_into(&mut metadata.namespace);
        }
        metadata.generation = 0;
        metadata.revision = 0;
        metadata.created_at.clear();
        metadata.updated_at.clear();
        self
    }

    /// The canonical encoding: fields in tag order, maps sorted. Call it on a [`Resource::canonical`] form.
    pub fn encode(&self) -> Bytes {
        self.message_to_vec().into()
    }

    /// Content hash of the canonical form.
    pub fn hash(&self) -> ItemHash {
        ItemHash::of(&self.key(), &self.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_form_fills_defaults_and_drops_output_only_fields() {
        let route = wire::Route {
            metadata: Some(wire::Metadata {
                name: "users".into(),
                generation: 3,
                revision: 9,
                created_at: "2026-01-01T00:00:00Z".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let resource = Resource::from(route).canonical();
        let metadata = resource.metadata().expect("canonical fills it");
        assert_eq!((metadata.namespace.as_str(), metadata.generation, metadata.revision), ("default", 0, 0));
        assert_eq!(resource.key().to_string(), "Route default/users");
        let decoded = Resource::decode(Kind::Route, &resource.encode()).expect("its own encoding");
        assert_eq!(decoded, resource);
        assert_eq!(decoded.hash(), resource.hash());
    }
}
