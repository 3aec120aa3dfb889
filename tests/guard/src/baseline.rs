//! The counts that are held: a line each, `"name" = instructions`.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};

/// How far a count may be off, in percent.
const TOLERANCE: u64 = 5;

const HEAD: &str = "# User instructions of one pass, counted under callgrind in the dist profile: tests/guard/run.\n\
    # Written by `tests/guard/run --write`; the commit says what made a count go up.\n";

/// The counts in the file.
#[derive(Debug)]
pub(crate) struct Baseline(Vec<(String, u64)>);

impl Baseline {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let line = |line: &str| {
            let (name, count) = line.split_once('=')?;
            Some((name.trim().trim_matches('"').to_owned(), count.trim().parse().ok()?))
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let counts = lines.map(|text| line(text).with_context(|| format!("{}: {text:?}", path.display())));
        Ok(Baseline(counts.collect::<anyhow::Result<_>>()?))
    }

    /// Without the count of this name, which is not asked for.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.0.retain(|(held, _)| held != name);
        self
    }

    /// Writes the file.
    pub(crate) fn write(path: &Path, counts: &[(String, u64)]) -> anyhow::Result<()> {
        let mut text = HEAD.to_owned();
        for (name, count) in counts {
            writeln!(text, "\"{name}\" = {count}")?;
            say(&format!("{name:<24} {count:>9}"));
        }
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Holds counts against the file's. Both must have the same names: a count that is not held guards nothing.
    pub(crate) fn check(&self, counts: &[(String, u64)]) -> anyhow::Result<()> {
        if let Some((gone, _)) = self.0.iter().find(|(held, _)| counts.iter().all(|(name, _)| name != held)) {
            bail!(
                "tests/guard/baseline.toml holds {gone}, which is not counted any more: run tests/guard/run --write"
            );
        }
        let mut slower = Vec::new();
        let mut stale = Vec::new();
        for (name, count) in counts {
            let Some((_, held)) = self.0.iter().find(|(held, _)| held == name) else {
                bail!("tests/guard/baseline.toml has no count for {name}: run tests/guard/run --write");
            };
            let change = 100.0 * (*count as f64 / *held as f64 - 1.0);
            say(&format!("{name:<24} {count:>9}  baseline {held:>9}  {change:+.1} %"));
            if count * 100 > held * (100 + TOLERANCE) {
                slower.push(format!("{name} {change:+.1} %"));
            } else if count * 100 < held * (100 - TOLERANCE) {
                stale.push(name.as_str());
            }
        }
        if !stale.is_empty() {
            say(&format!("lower the baseline with tests/guard/run --write: {}", stale.join(", ")));
        }
        if !slower.is_empty() {
            bail!(
                "more than {TOLERANCE} % more instructions than tests/guard/baseline.toml: {}",
                slower.join(", ")
            );
        }
        Ok(())
    }
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn say(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(list: &[(&str, u64)]) -> Vec<(String, u64)> {
        list.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
    }

    #[test]
    fn five_percent_more_fails_and_less_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("baseline.toml");
        Baseline::write(&path, &counts(&[("find/1", 200), ("request/plain", 10_000)])).expect("written");
        let baseline = Baseline::read(&path).expect("read");
        for (count, fits) in [(10_000, true), (10_500, true), (10_501, false), (1, true)] {
            let result = baseline.check(&counts(&[("find/1", 200), ("request/plain", count)]));
            assert_eq!(result.is_ok(), fits, "{count}");
        }
        let slower = counts(&[("find/1", 400), ("request/plain", 10_000)]);
        let error = baseline.check(&slower).expect_err("twice as many");
        assert!(error.to_string().contains("find/1 +100.0 %"), "{error}");
    }

    #[test]
    fn a_count_without_a_line_and_a_line_without_a_count_fail() {
        let baseline = Baseline(counts(&[("find/1", 200)]));
        let error = baseline.check(&counts(&[("find/1", 200), ("find/2", 1)])).expect_err("not held");
        assert!(error.to_string().contains("no count for find/2"), "{error}");
        let error = baseline.check(&[]).expect_err("not counted");
        assert!(error.to_string().contains("holds find/1"), "{error}");
        baseline.without("find/1").check(&[]).expect("not asked for");
    }

    #[test]
    fn a_line_that_is_no_count_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("baseline.toml");
        std::fs::write(&path, "# counts\n\"find/1\" = many\n").expect("written");
        let error = Baseline::read(&path).expect_err("no number");
        assert!(format!("{error:#}").contains("find/1"), "{error:#}");
    }
}
