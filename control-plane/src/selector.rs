//! Label selectors as in `?labels=` and `-l`: comma-separated conditions that must all hold.
//! `team=x` (also `==`), `team!=x` (also when absent), `team` (present), `!team` (absent).

use std::collections::BTreeMap;
use std::str::FromStr;

/// Most conditions of a selector.
const MAX_CONDITIONS: usize = 32;

/// Conditions on labels; the empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<(String, Test)>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Is(String),
    IsNot(String),
    Present,
    Absent,
}

impl Selector {
    /// Matches everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether labels meet every condition.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|(label, test)| match (test, labels.get(label)) {
            (Test::Is(wanted), found) => found == Some(wanted),
            (Test::IsNot(unwanted), found) => found != Some(unwanted),
            (Test::Present, found) => found.is_some(),
            (Test::Absent, found) => found.is_none(),
        })
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Selector::default());
        }
        let conditions = text.split(',').map(condition).collect::<Result<Vec<_>, _>>()?;
        if conditions.len() > MAX_CONDITIONS {
            return Err(format!("a selector has at most {MAX_CONDITIONS} conditions"));
        }
        Ok(Selector(conditions))
    }
}

fn condition(text: &str) -> Result<(String, Test), String> {
    let text = text.trim();
    let (label, test) = if let Some((label, value)) = text.split_once("!=") {
        (label, Test::IsNot(value.trim().to_owned()))
    } else if let Some((label, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (label, Test::Is(value.trim().to_owned()))
    } else if let Some(label) = text.strip_prefix('!') {
        (label, Test::Absent)
    } else {
        (text, Test::Present)
    };
    let label = label.trim();
    if label.is_empty() || label.contains(['=', '!', ' ']) {
        return Err(format!("invalid label condition {text:?}, expected team=x, team!=x, team or !team"));
    }
    Ok((label.to_owned(), test))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_selects_what_it_says() {
        let labels: BTreeMap<_, _> =
            [("team", "x"), ("env", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        for (text, expected) in [
            ("", true),
            ("team=x", true),
            ("team==x", true),
            ("team=y", false),
            ("team!=y", true),
            ("team!=x", false),
            ("tier!=x", true),
            ("team", true),
            ("tier", false),
            ("!tier", true),
            ("!team", false),
            ("env=", true),
            ("team=x, !tier", true),
            ("team=x,tier", false),
        ] {
            assert_eq!(text.parse::<Selector>().expect(text).matches(&labels), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_forms_there_are() {
        let many = vec!["a"; 33].join(",");
        for text in ["=x", ",", "a,,b", "a b", "!", "!=x", many.as_str()] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }
}
