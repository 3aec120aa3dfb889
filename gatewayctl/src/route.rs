//! `route test`: which route a request would take, who lost and why, and which policies would run.

use std::fmt::Write as _;

use gateway_proto::admin::{ExplainRequest, ExplainResponse, Explanation};
use http::{Method, Uri};

use crate::cli::{Plain, RouteTestArgs};
use crate::client::Client;
use crate::output::Output;
use crate::report::{Exit, Failure};

/// Runs it.
pub(crate) async fn run(args: &RouteTestArgs, client: &Client, output: &Output) -> Result<(), Failure> {
    let request = request(args)?;
    let body = serde_json::to_vec(&request).map_err(|error| Failure::runtime(error.to_string()))?;
    let answer: ExplainResponse = client.call(Method::POST, "/v1/explain", &[], Some(body)).await?;
    match args.output {
        Plain::Json => {
            let text =
                serde_json::to_string_pretty(&answer).map_err(|error| Failure::runtime(error.to_string()))?;
            output.line(text)
        }
        Plain::Text => output.text(&text(&answer)),
    }
}

fn request(args: &RouteTestArgs) -> Result<ExplainRequest, Failure> {
    let usage =
        |message: String| Failure::new(Exit::Usage, message).help("write http://host/path?query, or /path");
    let mut host = String::new();
    let mut path = args.url.clone();
    if !args.url.starts_with('/') {
        let uri: Uri =
            args.url.parse().map_err(|error| usage(format!("{:?} is no URL: {error}", args.url)))?;
        let authority = uri.authority().filter(|_| uri.scheme().is_some());
        host = authority.ok_or_else(|| usage(format!("{:?} is no URL", args.url)))?.to_string();
        path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    }
    if let Some((_, value)) = args.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")) {
        host.clone_from(value);
    }
    Ok(ExplainRequest {
        listener: args.listener.clone(),
        method: args.method.clone(),
        host,
        path,
        headers: args.headers.clone(),
        source: args.source.map(|source| source.to_string()),
    })
}

fn text(answer: &ExplainResponse) -> String {
    let mut text = String::new();
    for explanation in &answer.listeners {
        explain(explanation, &mut text);
    }
    if answer.listeners.is_empty() {
        text.push_str("there is no listener\n");
    }
    let _ = writeln!(text, "(revision {})", answer.revision);
    text
}

fn explain(explanation: &Explanation, text: &mut String) {
    let _ = writeln!(text, "listener {}", explanation.listener);
    if let Some(path) = &explanation.normalized_path {
        let _ = writeln!(text, "  path    {path}");
    }
    match (&explanation.winner, explanation.status) {
        (Some(winner), _) => {
            let _ = writeln!(
                text,
                "  route   {} (match {}): {}",
                winner.route, winner.match_index, winner.reason
            );
        }
        (None, status) => {
            let status = status.map_or_else(String::new, |status| format!(": the gateway answers {status}"));
            let _ = writeln!(text, "  route   none{status}");
        }
    }
    if !explanation.allow.is_empty() {
        let _ = writeln!(text, "  allow   {}", explanation.allow.join(", "));
    }
    if let Some(action) = &explanation.action {
        let _ = writeln!(text, "  action  {action}");
    }
    for policy in &explanation.policies {
        let _ = writeln!(text, "  policy  {} from {}", policy.policy, policy.from);
    }
    for loser in &explanation.losers {
        let _ = writeln!(text, "  lost    {} (match {}): {}", loser.route, loser.match_index, loser.reason);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use gateway_proto::admin::{AppliedPolicy, Candidate};

    use super::*;
    use crate::cli::{Cli, Command, RouteCommand};

    fn asked(arguments: &[&str]) -> Result<ExplainRequest, Failure> {
        let cli =
            Cli::try_parse_from([&["gatewayctl", "route", "test"], arguments].concat()).expect("it parses");
        let Command::Route(RouteCommand::Test(args)) = cli.command else { panic!("route test") };
        request(&args)
    }

    #[test]
    fn urls_and_paths_become_a_request() {
        let request =
            asked(&["GET", "http://API.example:8080/a/b?c=d", "-H", "X-A: 1", "--source", "10.0.0.1"])
                .expect("a URL");
        assert_eq!((request.host.as_str(), request.path.as_str()), ("API.example:8080", "/a/b?c=d"));
        assert_eq!(request.headers, [("X-A".to_owned(), "1".to_owned())]);
        assert_eq!(request.source.as_deref(), Some("10.0.0.1"));
        let request = asked(&["GET", "/x", "-H", "Host: a.example"]).expect("a path");
        assert_eq!((request.host.as_str(), request.path.as_str()), ("a.example", "/x"));
        assert_eq!(asked(&["GET", "http://a.example"]).expect("a URL").path, "/");
        for bad in ["a.example", "://", "http:///x"] {
            assert_eq!(asked(&["GET", bad]).expect_err(bad).exit, Exit::Usage);
        }
    }

    #[test]
    fn a_decision_reads_top_down() {
        let candidate = |route: &str, reason: &str| Candidate {
            route: route.into(),
            match_index: 0,
            reason: reason.into(),
        };
        let none = Explanation {
            listener: "default/other".into(),
            normalized_path: None,
            winner: None,
            status: Some(405),
            allow: vec!["GET".into(), "HEAD".into()],
            losers: vec![],
            policies: vec![],
            action: None,
        };
        let found = Explanation {
            listener: "default/public".into(),
            normalized_path: Some("/a".into()),
            winner: Some(candidate("default/users", "longest prefix /a")),
            status: None,
            allow: vec![],
            losers: vec![candidate("default/rest", "no path condition is less specific")],
            policies: vec![AppliedPolicy { policy: "cors".into(), from: "Listener default/public".into() }],
            action: Some("forward to default/blue (100%)".into()),
        };
        insta::assert_snapshot!(text(&ExplainResponse { revision: 7, listeners: vec![found, none] }), @r"
        listener default/public
          path    /a
          route   default/users (match 0): longest prefix /a
          action  forward to default/blue (100%)
          policy  cors from Listener default/public
          lost    default/rest (match 0): no path condition is less specific
        listener default/other
          route   none: the gateway answers 405
          allow   GET, HEAD
        (revision 7)
        ");
    }
}
