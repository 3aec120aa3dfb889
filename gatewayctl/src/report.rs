//! What went wrong, how it reads and which exit code says it. Every message ends in what to do next.

use std::fmt;

use gateway_engine::manifest::{ManifestError, ManifestErrors};

use crate::output::counted;

/// Exit codes, as documented in `gatewayctl --help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It could not be done: no server, no permission, no such object.
    Runtime = 1,
    /// There is a difference, and `--exit-code` asks to be told.
    Difference = 2,
    /// Manifests or objects are wrong.
    Invalid = 3,
    /// Somebody else was first, or others need what would go.
    Conflict = 4,
    /// Stored, but not every data plane has applied it.
    NotApplied = 5,
    /// The command line makes no sense.
    Usage = 64,
}

/// Why a command did not do what it was told.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What is wrong in manifests.
    pub(crate) findings: Vec<ManifestError>,
    /// How many more findings there are.
    pub(crate) more: usize,
    /// In one sentence; empty when the findings say it all.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) help: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failure { exit, findings: Vec::new(), more: 0, message: message.into(), help: None }
    }

    /// It could not be done.
    pub(crate) fn runtime(message: impl Into<String>) -> Self {
        Failure::new(Exit::Runtime, message)
    }

    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Manifests that cannot be read (1) or are wrong (3).
    pub(crate) fn manifests(errors: ManifestErrors) -> Self {
        let exit = if errors.is_unreadable() { Exit::Runtime } else { Exit::Invalid };
        Failure { exit, findings: errors.errors, more: errors.more, message: String::new(), help: None }
    }

    /// The exit code alone: what there is to say was said already.
    pub(crate) fn silent(exit: Exit) -> Self {
        Failure::new(exit, "")
    }

    /// Standard output is gone: nothing to say when the reader just left (`| head`).
    pub(crate) fn closed(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::silent(Exit::Runtime),
            _ => Failure::runtime(format!("cannot write: {error}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        for finding in &self.findings {
            write!(f, "{gap}{finding}")?;
            gap = "\n\n";
        }
        if self.more > 0 {
            write!(f, "{gap}and {}", counted(self.more, "more error"))?;
            gap = "\n\n";
        }
        if !self.message.is_empty() {
            write!(f, "{gap}error: {}", self.message)?;
            if let Some(help) = &self.help {
                write!(f, "\n  = help: {help}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_as_findings_then_summary_then_remedy() {
        let errors = gateway_engine::manifest::parse(
            "a.yaml",
            b"apiVersion: gateway/v1\nkind: Rout\n",
            &gateway_engine::manifest::Resolver::literal(),
        );
        let mut failure = Failure::manifests(errors.expect_err("it is wrong"));
        assert_eq!(failure.exit, Exit::Invalid);
        failure.message = "nothing was changed".to_owned();
        let failure = failure.help("mend it");
        insta::assert_snapshot!(failure, @r#"
        error: unknown kind "Rout"
         --> a.yaml:2:7
          |
        2 | kind: Rout
          |       ^^^^
          = help: did you mean Route? expected one of Listener, Route, Upstream, Policy, Certificate, Consumer, TokenIssuer, Credential, DiscoverySource

        error: nothing was changed
          = help: mend it
        "#);
    }

    #[test]
    fn a_reader_that_left_is_told_nothing() {
        let closed = Failure::closed(&std::io::ErrorKind::BrokenPipe.into());
        assert_eq!(closed.to_string(), "");
    }
}
