//! The program: where its settings come from, how it logs, how it ends.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway-control-plane"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// What it says when it does not start.
fn complaint(command: &mut Command) -> String {
    let output = command.output().expect("runs");
    assert!(!output.status.success());
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn every_setting_is_read_from_its_variable() {
    for (variable, value) in [
        ("GATEWAY_ADMIN_LISTEN", "nowhere-1"),
        ("GATEWAY_STREAM_LISTEN", "nowhere-2"),
        ("GATEWAY_LOG_LEVEL", "loud"),
        ("GATEWAY_LOG_FORMAT", "xml"),
        ("GATEWAY_INSECURE", "perhaps"),
        ("GATEWAY_CONFIG", "/nowhere/settings.yaml"),
    ] {
        let said = complaint(program().args(["--state-dir", "/nowhere"]).env(variable, value));
        assert!(said.contains(value), "{variable}: {said}");
    }
    let dir = tempfile::tempdir().expect("a folder");
    for (variable, value) in [
        ("GATEWAY_DATABASE_URL", "mysql://x"),
        ("GATEWAY_TLS_CERT", "/nowhere/cert.pem"),
        ("GATEWAY_MASTER_KEY_FILE", "/nowhere/master-key"),
        ("GATEWAY_ADMIN_TOKEN_FILE", "/nowhere/token"),
    ] {
        let mut command = program();
        command.args(["--admin-listen=127.0.0.1:0", "--stream-listen=127.0.0.1:0"]);
        command
            .env("GATEWAY_STATE_DIR", dir.path())
            .env("GATEWAY_TLS_KEY", "/nowhere/key.pem")
            .env(variable, value);
        if variable != "GATEWAY_TLS_CERT" {
            command.env_remove("GATEWAY_TLS_KEY");
        }
        let said = complaint(&mut command);
        assert!(said.contains(value) || said.contains("--database-url"), "{variable}: {said}");
    }
    assert!(dir.path().join("lock").exists(), "the state directory was the one of the variable");
}

#[test]
fn a_flag_beats_the_variable_and_the_variable_beats_the_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("settings.yaml");
    std::fs::write(&file, "adminListen: 10.0.0.3:3\nstateDir: /nowhere\n").expect("written");
    let with_file = || {
        let mut command = program();
        command.arg("--config").arg(&file);
        command
    };
    assert!(complaint(&mut with_file()).contains("10.0.0.3:3"));
    assert!(complaint(with_file().env("GATEWAY_ADMIN_LISTEN", "10.0.0.2:2")).contains("10.0.0.2:2"));
    let flag =
        complaint(with_file().env("GATEWAY_ADMIN_LISTEN", "10.0.0.2:2").arg("--admin-listen=10.0.0.1:1"));
    assert!(flag.contains("10.0.0.1:1"), "{flag}");
}

#[test]
fn unknown_variables_are_ignored_and_it_ends_well_on_sigterm() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut child = program()
        .args([
            "--admin-listen=127.0.0.1:0",
            "--stream-listen=127.0.0.1:0",
            "--log-format=json",
            "--state-dir",
        ])
        .arg(dir.path())
        .env("GATEWAY_SERVICE_HOST", "10.0.0.1")
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut said = Vec::new();
    for line in lines {
        let line: serde_json::Value =
            serde_json::from_str(&line.expect("text")).expect("a JSON object a line");
        let message = line["fields"]["message"].as_str().unwrap_or_default().to_owned();
        if message.contains("without credentials") {
            let ended = Command::new("kill").arg(child.id().to_string()).status().expect("runs");
            assert!(ended.success());
        }
        said.push(line);
    }
    assert!(child.wait().expect("ends").success());
    let find = |words: &str| {
        said.iter().find(|line| line["fields"]["message"].as_str().is_some_and(|it| it.contains(words)))
    };
    for words in ["admin API listens", "stream listens"] {
        let address = find(words).expect(words)["fields"]["address"].as_str().expect("text").to_owned();
        assert!(address.starts_with("127.0.0.1:") && !address.ends_with(":0"), "{address}");
    }
    let token =
        find("admin token").expect("it says where")["fields"]["path"].as_str().expect("text").to_owned();
    assert!(std::fs::read_to_string(token).expect("the token").starts_with("gwa_"));
}

#[test]
fn the_log_level_bounds_what_is_said() {
    let dir = tempfile::tempdir().expect("a folder");
    let child = program()
        .args([
            "--admin-listen=127.0.0.1:0",
            "--stream-listen=127.0.0.1:0",
            "--log-level=error",
            "--state-dir",
        ])
        .arg(dir.path())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    // By then it would have said where it listens, were it not for the level.
    while !dir.path().join("admin-token").exists() {
        std::thread::yield_now();
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().expect("runs").success());
    let output = child.wait_with_output().expect("ends");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn what_it_cannot_start_with_is_one_line_and_a_pipe_gets_no_colours() {
    let said = complaint(program().args(["--state-dir=/nowhere", "--config=/nowhere/x.yaml"]));
    assert!(said.starts_with("error: cannot read the settings file /nowhere/x.yaml"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = program();
    command.args(["--admin-token-file=/nowhere/token", "--state-dir"]).arg(dir.path());
    let said = complaint(command.env("RUST_BACKTRACE", "1"));
    let last = said.lines().last().expect("a line");
    assert!(last.starts_with("error: cannot read --admin-token-file /nowhere/token"), "{said}");
    assert_eq!(last.matches("No such file").count(), 1, "{said}");
    assert!(said.contains("made the store") && !said.contains('\u{1b}'), "{said}");
}
