//! The program: where its settings come from, and how it ends when it cannot start.

use std::path::Path;
use std::process::{Command, Output};

/// Starts the program on manifests that are wrong, so that it ends by itself and names the file it read.
fn start(dir: &Path, variables: &[(&str, &str)], flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway-data-plane"));
    command.env_clear().envs(variables.iter().copied()).args(flags);
    command.arg(format!("--state-dir={}", dir.join("state").display())).arg("--admin-listen=127.0.0.1:0");
    command.output().expect("it runs")
}

fn wrong(dir: &Path, name: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, "kind: Gizmo\n").expect("written");
    path.display().to_string()
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let [file, variable, flag] =
        ["file.yaml", "variable.yaml", "flag.yaml"].map(|name| wrong(dir.path(), name));
    let settings = dir.path().join("settings.yaml");
    std::fs::write(&settings, format!("manifests: {file}\n")).expect("written");
    let config = format!("--config={}", settings.display());
    let by_flag = format!("--manifests={flag}");
    let in_environment = [("GATEWAY_MANIFESTS", variable.as_str()), ("GATEWAY_UNKNOWN", "is ignored")];
    for (variables, flags, expected) in [
        (&[][..], vec![config.as_str()], &file),
        (&in_environment[..], vec![config.as_str()], &variable),
        (&in_environment[..], vec![config.as_str(), by_flag.as_str()], &flag),
    ] {
        let output = start(dir.path(), variables, &flags);
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(text.contains(&format!("{expected}:1:7")), "{expected} in {text}");
    }
}

#[test]
fn the_log_is_text_or_json_and_as_chatty_as_asked() {
    let dir = tempfile::tempdir().expect("a folder");
    let manifests = format!("--manifests={}", wrong(dir.path(), "gateway.yaml"));
    let lines = |flags: &[&str]| {
        let output = start(dir.path(), &[], &[&[manifests.as_str()], flags].concat());
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(lines(&[]).iter().any(|line| line.contains(" INFO ") && line.contains("admin port listening")));
    assert!(!lines(&["--log-level=error"]).iter().any(|line| line.contains(" INFO ")));
    for line in lines(&["--log-format=json"]) {
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert!(line["fields"]["message"].is_string(), "{line}");
    }
}

#[test]
fn a_bad_value_is_a_usage_error_wherever_it_comes_from() {
    let dir = tempfile::tempdir().expect("a folder");
    for (variables, flags) in
        [(&[("GATEWAY_WORKERS", "none")][..], vec![]), (&[][..], vec!["--workers=none"])]
    {
        let output = start(dir.path(), variables, &flags);
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.code() == Some(2) && text.contains("1 to 1024"), "{text}");
    }
}
