//! From what is streamed or kept on disk to a change. What this version cannot read in full is refused, not guessed
//! at: an object whose bytes do not come back the same has a field that we do not know.

use gateway_engine::compile::Change;
use gateway_proto::digest::ItemHash;
use gateway_proto::field::ViolationCode;
use gateway_proto::kind::{Key, Kind, Resource};
use gateway_proto::wire;
use prost::Message as _;

use crate::apply::Reject;

/// Objects to set and objects to remove.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) changes: Vec<Change>,
    /// What cannot be taken.
    pub(crate) unreadable: Vec<Reject>,
    /// Objects to remove of kinds that this version does not know.
    pub(crate) gone: Vec<wire::ObjectRef>,
}

/// What all kinds have in common.
#[derive(Clone, PartialEq, prost::Message)]
struct Envelope {
    #[prost(message, tag = "3")]
    metadata: Option<wire::Metadata>,
}

pub(crate) fn decode(upserts: Vec<wire::Upsert>, tombstones: Vec<wire::ObjectRef>) -> Decoded {
    let mut decoded = Decoded::default();
    for upsert in upserts {
        match read(&upsert) {
            Ok(resource) => decoded.changes.push(Change::Sealed(resource, upsert.secrets.into())),
            Err(reject) => decoded.unreadable.push(*reject),
        }
    }
    for object in tombstones {
        match Key::try_from(&object) {
            Ok(key) => decoded.changes.push(Change::Delete(key)),
            Err(_) => decoded.gone.push(object),
        }
    }
    decoded
}

fn read(upsert: &wire::Upsert) -> Result<Resource, Box<Reject>> {
    let Some(kind) = Kind::from_name(&upsert.kind) else {
        let message = format!("this version does not know the kind {:?}: update the data plane", upsert.kind);
        return Err(Box::new(unread(upsert, message)));
    };
    let resource = Resource::decode(kind, &upsert.body)
        .map_err(|error| Box::new(unread(upsert, format!("the object cannot be read: {error}"))))?;
    if resource.encode() == upsert.body {
        return Ok(resource);
    }
    let key = resource.key();
    let hash = ItemHash::of(&key, &upsert.body);
    let message = "it has a field that this version does not know: update the data plane".to_owned();
    Err(Box::new(reject((&key).into(), hash, message)))
}

/// An object of a later version's kind, or one whose bytes make no sense. It has a name and a hash like any other, which
/// the other end must hear to reckon what is held: the name is taken even if what follows it cannot be read.
fn unread(upsert: &wire::Upsert, message: String) -> Reject {
    let mut envelope = Envelope::default();
    let _rest = envelope.merge(upsert.body.clone());
    let wire::Metadata { namespace, name, .. } = envelope.metadata.unwrap_or_default();
    let hash = ItemHash::of_named([&upsert.kind, &namespace, &name], &upsert.body);
    reject(wire::ObjectRef { kind: upsert.kind.clone(), namespace, name }, hash, message)
}

fn reject(object: wire::ObjectRef, hash: ItemHash, message: String) -> Reject {
    let hash = Some(hash);
    Reject { object, hash, held: None, field: String::new(), code: ViolationCode::Unknown, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upsert(kind: &str, body: impl Into<bytes::Bytes>) -> wire::Upsert {
        wire::Upsert { kind: kind.into(), body: body.into(), ..Default::default() }
    }

    #[test]
    fn what_this_version_does_not_know_is_refused_and_the_rest_taken() {
        let metadata = Some(wire::Metadata { name: "u".into(), ..Default::default() });
        let known = Resource::from(wire::Upstream { metadata, ..Default::default() }).canonical();
        // Field 100, a varint: from a newer version.
        let newer = [known.encode().as_ref(), &[0xa0, 0x06, 0x01]].concat();
        // The last field ends too early.
        let broken = [known.encode().as_ref(), &[0x22, 0x05, 0x01]].concat();
        let tombstone =
            wire::ObjectRef { kind: "Route".into(), namespace: "default".into(), name: "r".into() };
        let foreign = wire::ObjectRef { kind: "Gizmo".into(), ..tombstone.clone() };
        let decoded = decode(
            vec![
                upsert("Upstream", known.encode()),
                upsert("Upstream", newer.clone()),
                upsert("Gizmo", known.encode()),
                upsert("Upstream", broken.clone()),
            ],
            vec![tombstone, foreign],
        );
        let keys: Vec<_> = decoded.changes.iter().map(|change| change.key().to_string()).collect();
        assert_eq!(keys, ["Upstream default/u", "Route default/r"]);
        let refused: Vec<_> =
            decoded.unreadable.iter().map(|it| (it.object.kind.as_str(), it.hash)).collect();
        let hash = ItemHash::of(&known.key(), &newer);
        let broken = ItemHash::of(&known.key(), &broken);
        let gizmo = ItemHash::of_named(["Gizmo", "default", "u"], &known.encode());
        assert_eq!(refused, [("Upstream", Some(hash)), ("Gizmo", Some(gizmo)), ("Upstream", Some(broken))]);
        assert!(decoded.unreadable.iter().all(|it| it.object.name == "u"));
        assert_eq!(decoded.gone.iter().map(|it| &*it.kind).collect::<Vec<_>>(), ["Gizmo"]);
        assert!(decoded.unreadable.iter().all(|it| it.code == ViolationCode::Unknown));
    }
}
