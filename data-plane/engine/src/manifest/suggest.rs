//! "Did you mean": the closest of a few names, by edits.

/// The closest allowed name, if it is close enough to be a slip.
pub(super) fn closest<'a>(given: &str, allowed: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A long text is no slip, and the table below is quadratic.
    if given.len() > 64 {
        return None;
    }
    let lower = given.to_lowercase().replace(['_', '-'], "");
    allowed
        .into_iter()
        .map(|name| (distance(&lower, &name.to_lowercase().replace(['_', '-'], "")), name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, name)| *distance <= (name.chars().count() / 3).max(1))
        .map(|(_, name)| name)
}

/// Edits (insert, delete, replace, swap of neighbours) from one text to the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replace = last[j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut best = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let names = ["listeners", "hosts", "policyRefs", "match", "http"];
        for (given, expected) in [
            ("listener", Some("listeners")),
            ("hsots", Some("hosts")),
            ("policy_refs", Some("policyRefs")),
            ("PolicyRefs", Some("policyRefs")),
            ("htpp", Some("http")),
            ("backend", None),
            ("", None),
        ] {
            assert_eq!(closest(given, names), expected, "{given}");
        }
        assert_eq!(closest(&"x".repeat(10_000), names), None);
    }
}
