//! References between objects: `name` is in the same namespace, `namespace/name` anywhere (not for upstreams,
//! certificates and token issuers).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::kind::{Key, Kind};

use super::object::{Checked, Name, Object};
use crate::engine::State;
use crate::identity::IssuerSlot;
use crate::policy::joins::Joined;
use crate::upstream::UpstreamSlot;
use crate::value;
use crate::violations::Violations;

/// Resolves the references of one object and remembers them.
pub(crate) struct References<'s> {
    state: &'s State,
    namespace: &'s str,
    found: RefCell<Vec<Arc<Name>>>,
    /// The policies of its list, in order.
    policies: Vec<Arc<Object>>,
    asks_for_keys: Cell<bool>,
}

impl<'s> References<'s> {
    /// Of an object in this namespace.
    pub(crate) fn of(state: &'s State, namespace: &'s str) -> Self {
        References {
            state,
            namespace,
            found: RefCell::default(),
            policies: Vec::new(),
            asks_for_keys: Cell::default(),
        }
    }

    /// Where the object is.
    pub(crate) const fn namespace(&self) -> &'s str {
        self.namespace
    }

    /// Notes that a policy of the object asks for keys.
    pub(crate) fn ask_for_keys(&self) {
        self.asks_for_keys.set(true);
    }

    /// Whether one does.
    pub(super) fn asks_for_keys(&self) -> bool {
        self.asks_for_keys.get()
    }

    /// The object that a text refers to; `None` after a violation.
    pub(crate) fn resolve(
        &self,
        kind: Kind,
        text: &str,
        at: &FieldPath<'_>,
        out: &mut Violations,
    ) -> Option<Arc<Object>> {
        let key = out.ok(at, self.key(kind, text))?;
        let found = self.find(&key);
        if found.is_none() {
            out.push(at, ViolationCode::DanglingReference, missing(&key));
        }
        found
    }

    /// The upstream of a name in the same namespace, or why there is none.
    pub(crate) fn upstream(&self, text: &str) -> Result<UpstreamSlot, String> {
        let key = self.key(Kind::Upstream, text)?;
        match self.find(&key).as_deref() {
            Some(Object { checked: Checked::Upstream(upstream), .. }) => Ok(upstream.slot),
            _ => Err(missing(&key)),
        }
    }

    /// The token issuer of a name in the same namespace; `None` after a violation.
    pub(crate) fn issuer(&self, text: &str, at: &FieldPath<'_>, out: &mut Violations) -> Option<IssuerSlot> {
        match &self.resolve(Kind::TokenIssuer, text, at, out)?.checked {
            Checked::TokenIssuer(slot, _) => Some(*slot),
            _ => None,
        }
    }

    fn find(&self, key: &Key) -> Option<Arc<Object>> {
        let object = self.state.object(key)?;
        let mut found = self.found.borrow_mut();
        if !found.iter().any(|name| name.key == *key) {
            found.push(Arc::clone(&object.name));
        }
        Some(Arc::clone(object))
    }

    /// The key that a text stands for.
    fn key(&self, kind: Kind, text: &str) -> Result<Key, String> {
        let (namespace, name) = text.split_once('/').unwrap_or((self.namespace, text));
        if matches!(kind, Kind::Upstream | Kind::Certificate | Kind::TokenIssuer) && text.contains('/') {
            return Err(format!(
                "invalid reference {text:?}, {} are referred to within their own namespace",
                kind.plural()
            ));
        }
        value::name(namespace)
            .and_then(|()| value::name(name))
            .map_err(|_| format!("invalid reference {text:?}, expected the name of a {kind}"))?;
        Ok(Key::new(kind, namespace, name))
    }

    /// What a list of policies says.
    pub(super) fn joined(&self, policies: &[Arc<Object>]) -> Option<&'s Joined> {
        self.state.joins.look(&self.state.seed, policies).map(|joined| &**joined)
    }

    /// Remembers the policies of its list.
    pub(super) fn refer(&mut self, policies: Vec<Arc<Object>>) {
        self.policies = policies;
    }

    /// All that were found, each once, and the policies of its list.
    pub(super) fn into_parts(self) -> (Box<[Arc<Name>]>, Vec<Arc<Object>>) {
        (self.found.into_inner().into(), self.policies)
    }
}

impl fmt::Debug for References<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("References").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

fn missing(key: &Key) -> String {
    format!("there is no {key}")
}
