//! What a caller with namespaces is not told when his change is judged: which objects of other namespaces stand in
//! its way, or are overshadowed by it. That something does, he is told.

use gateway_proto::admin::FieldError;
use gateway_proto::kind::Kind;

use super::Api;
use super::access::Caller;
use super::problem::ApiError;
use crate::admission::{Intent, Outcome, Refusal, Request};

impl Api {
    /// Makes a change, and leaves out of the answer what is not the caller's business.
    ///
    /// # Errors
    /// As `Admission::submit`.
    pub(super) async fn submit(
        &self,
        caller: &Caller,
        request: Request,
        intent: Intent,
    ) -> Result<Outcome, ApiError> {
        let told = self.admission.submit(request, intent).await;
        if caller.sees_all() {
            return Ok(told?);
        }
        match told {
            Ok(mut outcome) => {
                let own = |warning: &FieldError| {
                    warning.object.as_ref().is_none_or(|object| caller.sees(&object.namespace))
                };
                outcome.warnings.retain(own);
                redact(&mut outcome.warnings, caller);
                Ok(outcome)
            }
            Err(Refusal::Invalid(mut errors)) => {
                redact(&mut errors, caller);
                Err(Refusal::Invalid(errors).into())
            }
            Err(Refusal::InUse(mut errors)) => {
                redact(&mut errors, caller);
                Err(Refusal::InUse(errors).into())
            }
            Err(other) => Err(other.into()),
        }
    }
}

fn redact(errors: &mut [FieldError], caller: &Caller) {
    for error in errors {
        let foreign = error.object.take_if(|object| !caller.sees(&object.namespace));
        if let Some(object) = foreign {
            error.field.clear();
            error.message = format!("another namespace's {} would not be valid any more", object.kind);
        } else {
            error.message = without(&error.message, |namespace| caller.sees(namespace));
        }
    }
}

/// A message in which `Route shop/users` is `another namespace's Route` unless that namespace is seen.
fn without(message: &str, sees: impl Fn(&str) -> bool) -> String {
    let mut words: Vec<&str> = message.split(' ').collect();
    let mut told: Vec<String> = Vec::with_capacity(words.len());
    while !words.is_empty() {
        let named = match *words.as_slice() {
            [kind, name, ..] => foreign(kind, name, &sees),
            _ => None,
        };
        let taken = if named.is_some() { 2 } else { 1 };
        told.push(named.unwrap_or_else(|| words[0].to_owned()));
        words.drain(..taken);
    }
    told.join(" ")
}

fn foreign(kind: &str, name: &str, sees: impl Fn(&str) -> bool) -> Option<String> {
    let kind: Kind = kind.parse().ok()?;
    let (namespace, rest) = name.split_once('/')?;
    // What follows the name stays: a comma, a colon.
    let end =
        rest.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter));
    (!sees(namespace)).then(|| format!("another namespace's {kind}{end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_namespaces_that_are_not_seen_are_left_out_of_messages() {
        for (message, expected) in [
            (
                "Upstream shop/a is in use by Route shop/x, Route other/y; change or delete them",
                "Upstream shop/a is in use by Route shop/x, another namespace's Route; change or delete them",
            ),
            (
                "0.0.0.0:80 overlaps with Listener other/public on 0.0.0.0:80, and",
                "0.0.0.0:80 overlaps with another namespace's Listener on 0.0.0.0:80, and",
            ),
            ("no Route matches /a/b", "no Route matches /a/b"),
            ("there is no Listener other/x", "there is no another namespace's Listener"),
            ("", ""),
        ] {
            assert_eq!(without(message, |namespace| namespace.is_empty() || namespace == "shop"), expected);
        }
    }
}
