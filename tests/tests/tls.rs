//! TLS on both servers of the control plane, with the real programs on each side.

use gateway_tests::certs::Certs;
use gateway_tests::process::{Process, free_port, program};
use gateway_tests::wait;
use tempfile::TempDir;

#[tokio::test]
async fn the_admin_api_and_the_stream_speak_tls_and_only_to_who_trusts_them() -> anyhow::Result<()> {
    let (certs, directory) = (Certs::new()?, TempDir::new()?);
    let (admin, stream) = (free_port()?, free_port()?);
    let state = |name: &str| format!("--state-dir={}", directory.path().join(name).display());
    let control_plane = program("gateway-control-plane")?;
    let arguments = [
        format!("--admin-listen=127.0.0.1:{admin}"),
        format!("--stream-listen=127.0.0.1:{stream}"),
        state("cp"),
        format!("--tls-cert={}", certs.certificate().display()),
        format!("--tls-key={}", certs.key().display()),
    ];
    let _control_plane = Process::start("control plane", &control_plane.to_string_lossy(), &arguments, &[])?;
    let token =
        wait::until("the first token", || tokio::fs::read_to_string(directory.path().join("cp/admin-token")))
            .await?;

    let ca = certs.ca().display().to_string();
    let data_plane = |node: &str, trust: bool| {
        let mut arguments = vec![
            format!("--control-plane=https://127.0.0.1:{stream}"),
            format!("--node={node}"),
            state(node),
            "--admin-listen=127.0.0.1:0".to_owned(),
        ];
        if trust {
            arguments.push(format!("--tls-ca={ca}"));
        }
        let path = program("gateway-data-plane")?;
        Process::start(node, &path.to_string_lossy(), &arguments, &[])
    };
    let _trusting = data_plane("trusting", true)?;
    let mut wary = data_plane("wary", false)?;

    let nodes = |trust: bool| {
        let (ca, token) = (ca.clone(), token.trim().to_owned());
        let home = directory.path().to_owned();
        async move {
            let mut command = tokio::process::Command::new(program("gatewayctl")?);
            command.args(["nodes", "--server", &format!("https://localhost:{admin}"), "--token", &token]);
            if trust {
                command.args(["--ca-file", &ca]);
            }
            let output = command.env("HOME", &home).env("XDG_CONFIG_HOME", &home).output().await?;
            anyhow::Ok((
                output.status.success(),
                String::from_utf8(output.stdout)?,
                String::from_utf8(output.stderr)?,
            ))
        }
    };
    wait::until("the trusting data plane to connect", || async {
        match nodes(true).await {
            Ok((true, text, _)) if text.contains("trusting") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let (_, listed, _) = nodes(true).await?;
    assert!(!listed.contains("wary"), "{listed}");
    wary.line("why it does not connect", |line| line.contains("certificate").then_some(())).await?;
    let (success, _, error) = nodes(false).await?;
    assert!(!success && error.contains("--ca-file"), "{error}");
    Ok(())
}
