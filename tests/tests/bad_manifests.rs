//! A bad manifest of every class gets a clear error with its position, exit code 3, and changes nothing.

use std::fmt::Write as _;
use std::path::PathBuf;

use gateway_tests::full_profile;
use gateway_tests::stack::Stack;

const GOOD: &str = "apiVersion: gateway/v1
kind: Listener
metadata: { name: public }
spec: { address: 127.0.0.1, port: 0 }
";

/// Name, manifest, and what the error must say.
const SMALL: &[(&str, &str, &[&str])] = &[
    (
        "syntax",
        "apiVersion: gateway/v1\nkind: Route\nmetadata: { name: a\nspec: {}\n",
        &["syntax.yaml:", ":4"],
    ),
    (
        "unknown-field",
        "apiVersion: gateway/v1\nkind: Route\nmetadata: { name: a }\nspec:\n  priorty: 3\n  respond: {}\n",
        &["unknown-field.yaml:5:3", "priorty", "priority"],
    ),
    (
        "wrong-type",
        "apiVersion: gateway/v1\nkind: Route\nmetadata: { name: a }\nspec:\n  priority: high\n  respond: {}\n",
        &["wrong-type.yaml:5:13"],
    ),
    (
        "bad-enum",
        "apiVersion: gateway/v1\nkind: Listener\nmetadata: { name: a }\nspec:\n  port: 0\n  protocol: spdy\n",
        &["bad-enum.yaml:6:13", "spdy", "http"],
    ),
    (
        "bad-upstream-protocol",
        "apiVersion: gateway/v1\nkind: Upstream\nmetadata: { name: a }\nspec:\n  targets: [{ address: 'a:1' }]\n  protocol: auto\n",
        &["bad-upstream-protocol.yaml:6:13", "auto", "http1", "http2"],
    ),
    (
        "unknown-kind",
        "apiVersion: gateway/v1\nkind: Rout\nmetadata: { name: a }\n",
        &["unknown-kind.yaml:2", "Rout", "Route"],
    ),
    (
        "dangling",
        "apiVersion: gateway/v1\nkind: Route\nmetadata: { name: a }\nspec:\n  forward:\n    backends:\n    - { upstream: nowhere }\n",
        &["dangling.yaml:7", "nowhere"],
    ),
    (
        "duplicate",
        "apiVersion: gateway/v1\nkind: Route\nmetadata: { name: a }\nspec: { respond: {} }\n---\napiVersion: gateway/v1\nkind: Route\nmetadata: { name: a }\nspec: { respond: {} }\n",
        &["duplicate.yaml:", "Route default/a"],
    ),
    (
        "regex",
        "apiVersion: gateway/v1\nkind: Route\nmetadata: { name: a }\nspec:\n  matches:\n  - path: { regex: '/a(' }\n  respond: {}\n",
        &["regex.yaml:6", "regular expression"],
    ),
    (
        "duration",
        "apiVersion: gateway/v1\nkind: Route\nmetadata: { name: a }\nspec:\n  timeouts: { request: 5 parsecs }\n  respond: {}\n",
        &["duration.yaml:5", "5 parsecs"],
    ),
    (
        "cidr",
        "apiVersion: gateway/v1\nkind: Route\nmetadata: { name: a }\nspec:\n  matches:\n  - sources: [10.0.0.0/99]\n  respond: {}\n",
        &["cidr.yaml:6", "10.0.0.0/99"],
    ),
    (
        "host",
        "apiVersion: gateway/v1\nkind: Route\nmetadata: { name: a }\nspec:\n  hosts: ['exa mple.com']\n  respond: {}\n",
        &["host.yaml:5", "exa mple.com"],
    ),
    (
        "two-listeners-on-one-port",
        "apiVersion: gateway/v1\nkind: Listener\nmetadata: { name: a }\nspec: { port: 8080 }\n---\napiVersion: gateway/v1\nkind: Listener\nmetadata: { name: b }\nspec: { port: 8080 }\n",
        &["two-listeners-on-one-port.yaml:", "8080", "default/a"],
    ),
];

/// The manifests that are bad by their size or bytes: name, content, what the error must say.
fn large() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    let two_megabytes = format!("{GOOD}# {}\n", "x".repeat(2 << 20));
    let deep = format!(
        "apiVersion: gateway/v1\nkind: Route\nmetadata: {{ name: a }}\nspec: {}\n",
        "[".repeat(20_000)
    );
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{before}]").expect("a string");
    }
    let bomb = format!("apiVersion: gateway/v1\nkind: Route\nmetadata: {{ name: a }}\n{bomb}");
    let mut invalid = GOOD.as_bytes().to_vec();
    invalid.extend_from_slice(b"# \xff\xfe\n");
    let many = "---\napiVersion: gateway/v1\nkind: Route\nmetadata: { name: a }\nspec: { respond: {} }\n"
        .repeat(300_000);
    let huge = format!("{GOOD}---\n").repeat(if full_profile() { 3_200_000 } else { 2_900_000 });
    vec![
        ("2-mb-document", two_megabytes.into_bytes(), &["2-mb-document.yaml:", "1 MiB"]),
        ("deep-nesting", deep.into_bytes(), &["deep-nesting.yaml:4"]),
        ("alias-bomb", bomb.into_bytes(), &["alias-bomb.yaml:"]),
        ("invalid-utf8", invalid, &["invalid-utf8.yaml:5", "UTF-8"]),
        ("300000-documents", many.into_bytes(), &["300000-documents.yaml", "250000"]),
        ("300-mb", huge.into_bytes(), &["300-mb.yaml", "256 MiB"]),
    ]
}

async fn refused(stack: &Stack, name: &str, manifest: &[u8], expected: &[&str]) -> anyhow::Result<()> {
    let file: PathBuf = stack.directory().join(format!("{name}.yaml"));
    tokio::fs::write(&file, manifest).await?;
    for command in ["validate", "apply"] {
        let output = stack.gatewayctl(&[command, "-f", &file.to_string_lossy()]).await?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{name}: {command}: {text}");
        for part in expected {
            assert!(text.contains(part), "{name}: {command}: no {part:?} in: {text}");
        }
        assert!(text.len() < 100_000, "{name}: {command}: {} bytes of error text", text.len());
    }
    tokio::fs::remove_file(&file).await?;
    Ok(())
}

#[tokio::test]
async fn every_class_of_bad_manifest_is_refused_with_its_position_and_changes_nothing() -> anyhow::Result<()>
{
    let stack = Stack::new().start().await?;
    tokio::fs::write(stack.directory().join("good.yaml"), GOOD).await?;
    let good = stack.gatewayctl(&["apply", "-f", "good.yaml"]).await?;
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let before = stack.admin().get("/v1/listeners").await?;

    for (name, manifest, expected) in SMALL {
        refused(&stack, name, manifest.as_bytes(), expected).await?;
    }
    for (name, manifest, expected) in large() {
        refused(&stack, name, &manifest, expected).await?;
    }

    let after = stack.admin().get("/v1/listeners").await?;
    assert_eq!(before, after);
    assert_eq!(stack.admin().get("/v1/routes").await?["items"], serde_json::json!([]));
    Ok(())
}

#[tokio::test]
async fn a_violation_that_only_the_server_can_see_is_underlined_in_the_users_file() -> anyhow::Result<()> {
    let stack = Stack::new().start().await?;
    tokio::fs::write(stack.directory().join("first.yaml"), GOOD.replace("port: 0", "port: 18080")).await?;
    assert!(stack.gatewayctl(&["apply", "-f", "first.yaml"]).await?.status.success());
    // Valid by itself: only the server knows that another listener has the port.
    let second = GOOD.replace("public", "second").replace("port: 0", "port: 18080");
    tokio::fs::write(stack.directory().join("second.yaml"), second).await?;
    let output = stack.gatewayctl(&["apply", "-f", "second.yaml"]).await?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(
        text.contains("second.yaml:4") && text.contains("18080") && text.contains("default/public"),
        "{text}"
    );
    assert!(text.contains("^^^"), "{text}");
    Ok(())
}
