//! From what is streamed or kept on disk to a change. What this version cannot read in full is refused, not guessed
//! at: an object whose bytes do not come back the same has a field that we do not know.

use gateway_engine::compile::Change;
use gateway_proto::digest::ItemHash;
use gateway_proto::field::ViolationCode;
use gateway_proto::kind::{Key, Kind, Resource};
use gateway_proto::wire;

use crate::apply::Reject;

/// Objects to set and objects to remove.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) changes: Vec<Change>,
    /// What cannot be taken.
    pub(super) unreadable: Vec<Reject>,
}

pub(super) fn decode(upserts: Vec<wire::Upsert>, tombstones: Vec<wire::ObjectRef>) -> Decoded {
    let mut decoded = Decoded::default();
    for upsert in upserts {
        match read(&upsert) {
            Ok(resource) => decoded.changes.push(Change::Sealed(resource, upsert.secrets.into())),
            Err(reject) => decoded.unreadable.push(*reject),
        }
    }
    // An object of a kind that we do not know was never taken: nothing to remove.
    let keys = tombstones.iter().filter_map(|object| Key::try_from(object).ok());
    decoded.changes.extend(keys.map(Change::Delete));
    decoded
}

fn read(upsert: &wire::Upsert) -> Result<Resource, Box<Reject>> {
    let Some(kind) = Kind::from_name(&upsert.kind) else {
        let object = wire::ObjectRef { kind: upsert.kind.clone(), ..Default::default() };
        let message = format!("this version does not know the kind {:?}: update the data plane", upsert.kind);
        return Err(Box::new(reject(object, None, message)));
    };
    let resource = Resource::decode(kind, &upsert.body).map_err(|error| {
        let object = wire::ObjectRef { kind: upsert.kind.clone(), ..Default::default() };
        Box::new(reject(object, None, format!("the object cannot be read: {error}")))
    })?;
    if resource.encode() == upsert.body {
        return Ok(resource);
    }
    let key = resource.key();
    let hash = ItemHash::of(&key, &upsert.body);
    let message = "it has a field that this version does not know: update the data plane".to_owned();
    Err(Box::new(reject((&key).into(), Some(hash), message)))
}

fn reject(object: wire::ObjectRef, hash: Option<ItemHash>, message: String) -> Reject {
    Reject { object, hash, field: String::new(), code: ViolationCode::Unknown, message }
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
        let tombstone =
            wire::ObjectRef { kind: "Route".into(), namespace: "default".into(), name: "r".into() };
        let foreign = wire::ObjectRef { kind: "Gizmo".into(), ..tombstone.clone() };
        let decoded = decode(
            vec![
                upsert("Upstream", known.encode()),
                upsert("Upstream", newer.clone()),
                upsert("Gizmo", ""),
                upsert("Route", &b"\xff\xff"[..]),
            ],
            vec![tombstone, foreign],
        );
        let keys: Vec<_> = decoded.changes.iter().map(|change| change.key().to_string()).collect();
        assert_eq!(keys, ["Upstream default/u", "Route default/r"]);
        let refused: Vec<_> =
            decoded.unreadable.iter().map(|it| (it.object.kind.as_str(), it.hash)).collect();
        let hash = ItemHash::of(&known.key(), &newer);
        assert_eq!(refused, [("Upstream", Some(hash)), ("Gizmo", None), ("Route", None)]);
        assert!(decoded.unreadable.iter().all(|it| it.code == ViolationCode::Unknown));
    }
}
