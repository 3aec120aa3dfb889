//! Tests of `config.rs`.

use super::*;

fn load(args: &[&str]) -> Result<(Config, Log), ConfigError> {
    Config::load(["gateway-control-plane", "--state-dir=/tmp/s"].iter().chain(args))
}

#[test]
fn every_setting_has_a_flag_and_its_effect() {
    let (config, log) = load(&[
        "--admin-listen=127.0.0.1:1",
        "--stream-listen=[::1]:2",
        "--database-url=sqlite:///x.db",
        "--master-key-file=/m",
        "--admin-token-file=/t",
        "--tls-cert=/c",
        "--tls-key=/k",
        "--tls-client-ca=/ca",
        "--node-certificate-ttl=90m",
        "--history-revisions=50",
        "--history-age=24h",
        "--forget-nodes-after=2h",
        "--max-credentials=7",
        "--log-level=debug",
        "--log-format=json",
    ])
    .expect("all valid");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:1");
    assert_eq!(config.stream_listen.to_string(), "[::1]:2");
    assert_eq!(config.database_url.as_deref(), Some("sqlite:///x.db"));
    assert_eq!(config.state_dir, Path::new("/tmp/s"));
    assert_eq!(config.master_key_file.as_deref(), Some(Path::new("/m")));
    assert_eq!(config.admin_token_file.as_deref(), Some(Path::new("/t")));
    assert_eq!(config.tls, Some(TlsFiles { cert: "/c".into(), key: "/k".into() }));
    assert_eq!(config.tls_client_ca.as_deref(), Some(Path::new("/ca")));
    assert_eq!(config.node_certificate_ttl, Duration::from_secs(5_400));
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let history = Retention { revisions: 50, age: Some(hours(24)) };
    assert_eq!(config.chores, Chores { history, forget_nodes: hours(2) });
    assert_eq!(config.max_credentials, 7);
    assert_eq!(log, Log { level: LogLevel::Debug, format: LogFormat::Json });
}

#[test]
fn a_life_of_certificates_that_is_too_short_or_too_long_is_refused() {
    for text in ["1s", "0s", "2161h", "-1h", "day", ""] {
        let error = load(&[&format!("--node-certificate-ttl={text}")]).expect_err(text).to_string();
        assert!(error.contains("expected 2s to 2160h"), "{error}");
    }
    let (config, _) = load(&[]).expect("defaults");
    assert_eq!(config.node_certificate_ttl, Duration::from_secs(86_400));
}

#[test]
fn defaults_are_those_of_the_contract() {
    let (config, log) = load(&[]).expect("defaults");
    assert_eq!((config.admin_listen, config.stream_listen), (DEFAULT_ADMIN, DEFAULT_STREAM));
    assert_eq!(log, Log { level: LogLevel::Info, format: LogFormat::Text });
    assert!(config.tls.is_none() && config.database_url.is_none() && !config.insecure);
    assert_eq!((config.chores, config.max_credentials), (DEFAULT_CHORES, 2_000_000));
    let (config, _) = load(&["--history-age=0s"]).expect("of any age");
    assert_eq!(config.chores.history.age, None);
}

#[test]
fn a_flag_beats_the_file_and_the_file_beats_the_default() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("settings.yaml");
    std::fs::write(&path, "adminListen: 127.0.0.1:7\nstreamListen: 127.0.0.1:8\nlogFormat: json\n")
        .expect("written");
    let file = format!("--config={}", path.display());
    let (config, log) = load(&[&file, "--admin-listen=127.0.0.1:9"]).expect("valid");
    assert_eq!((config.admin_listen.port(), config.stream_listen.port()), (9, 8));
    assert_eq!(log.format, LogFormat::Json);
}

#[test]
fn a_wrong_file_is_refused_by_name_and_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("settings.yaml");
    for (text, words) in [
        ("adminListen: nowhere\n", "line 1"),
        ("adminPort: 1\n", "adminPort"),
        ("historyRevisions: 3\n", "10 to 10000000"),
        ("historyAge: long\n", "invalid duration"),
        ("maxCredentials: 50000001\n", "at most 50000000 credentials"),
    ] {
        std::fs::write(&path, text).expect("written");
        let error = load(&[&format!("--config={}", path.display())]).expect_err(text).to_string();
        assert!(error.contains(words) && error.contains("settings.yaml"), "{error}");
    }
    assert!(matches!(load(&["--config=/nowhere/x.yaml"]), Err(ConfigError::File { .. })));
    let endless = load(&["--config=/dev/zero"]).expect_err("never ends").to_string();
    assert!(endless.contains("over 1048576 bytes"), "{endless}");
}

#[test]
fn a_bad_value_of_a_flag_is_a_usage_error() {
    for flag in [
        "--admin-listen=localhost",
        "--stream-listen=1",
        "--log-level=loud",
        "--log-format=xml",
        "--insecure=perhaps",
        "--history-revisions=9",
        "--history-revisions=10000001",
        "--history-revisions=many",
        "--history-age=90d",
        "--forget-nodes-after=soon",
        "--max-credentials=many",
        "--max-credentials=50000001",
        "--no-such-flag",
    ] {
        assert!(matches!(load(&[flag]), Err(ConfigError::Usage(_))), "{flag}");
    }
    assert!(matches!(load(&["--tls-cert=/c"]), Err(ConfigError::HalfKeyPair)));
    assert!(matches!(load(&["--forget-nodes-after=59s"]), Err(ConfigError::Forgetful(_))));
}

#[test]
fn nothing_unprotected_listens_off_loopback_unless_it_is_said_aloud() {
    let open = "--admin-listen=0.0.0.0:9000";
    assert!(matches!(load(&[open]), Err(ConfigError::OpenAdmin(_))));
    assert!(load(&[open, "--tls-cert=/c", "--tls-key=/k"]).is_ok());
    assert!(load(&[open, "--insecure"]).expect("said aloud").0.insecure);
    assert!(load(&["--stream-listen=10.0.0.1:9001"]).is_ok(), "it takes nobody without a certificate there");
}

#[test]
fn help_shows_all_three_names_of_each_setting() {
    let Err(ConfigError::Usage(help)) = load(&["--help"]) else { panic!("help is an early leave") };
    let help = help.to_string();
    for (flag, variable, file) in [
        ("--admin-listen", "GATEWAY_ADMIN_LISTEN", "adminListen"),
        ("--stream-listen", "GATEWAY_STREAM_LISTEN", "streamListen"),
        ("--database-url", "GATEWAY_DATABASE_URL", "databaseUrl"),
        ("--state-dir", "GATEWAY_STATE_DIR", "stateDir"),
        ("--master-key-file", "GATEWAY_MASTER_KEY_FILE", "masterKeyFile"),
        ("--admin-token-file", "GATEWAY_ADMIN_TOKEN_FILE", "adminTokenFile"),
        ("--tls-cert", "GATEWAY_TLS_CERT", "tlsCert"),
        ("--tls-key", "GATEWAY_TLS_KEY", "tlsKey"),
        ("--tls-client-ca", "GATEWAY_TLS_CLIENT_CA", "tlsClientCa"),
        ("--node-certificate-ttl", "GATEWAY_NODE_CERTIFICATE_TTL", "nodeCertificateTtl"),
        ("--history-revisions", "GATEWAY_HISTORY_REVISIONS", "historyRevisions"),
        ("--history-age", "GATEWAY_HISTORY_AGE", "historyAge"),
        ("--forget-nodes-after", "GATEWAY_FORGET_NODES_AFTER", "forgetNodesAfter"),
        ("--max-credentials", "GATEWAY_MAX_CREDENTIALS", "maxCredentials"),
        ("--log-level", "GATEWAY_LOG_LEVEL", "logLevel"),
        ("--log-format", "GATEWAY_LOG_FORMAT", "logFormat"),
        ("--insecure", "GATEWAY_INSECURE", "insecure"),
    ] {
        for name in [flag, variable, file] {
            assert!(help.contains(name), "{name} is missing in\n{help}");
        }
    }
}

#[test]
fn to_migrate_both_stores_are_named_and_nothing_else() {
    let command = |args: &[&str]| Command::load(["gateway-control-plane"].iter().chain(args));
    let Ok(Command::Migrate(migrate)) = command(&["migrate", "--from=sqlite:///a", "--to=postgres://b"])
    else {
        panic!("it is to migrate")
    };
    assert_eq!((&*migrate.from, &*migrate.to), ("sqlite:///a", "postgres://b"));
    for wrong in [
        &["migrate", "--from=sqlite:///a"][..],
        &["migrate", "--to=postgres://b"],
        &["migrate", "--from=a", "--to=b", "--log-level=info"],
        &["--log-level=info", "migrate", "--from=a", "--to=b"],
    ] {
        assert!(matches!(command(wrong), Err(ConfigError::Usage(_))), "{wrong:?}");
    }
    assert!(matches!(command(&["--state-dir=/tmp/s"]), Ok(Command::Serve(..))));
}

#[test]
fn the_state_directory_follows_systemd_then_xdg_then_home() {
    let with = |set: &'static [(&'static str, &'static str)]| {
        default_state_dir(move |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    };
    let dir = |text: &str| Some(PathBuf::from(text));
    assert_eq!(with(&[("STATE_DIRECTORY", "/var/lib/g:/x"), ("HOME", "/h")]), dir("/var/lib/g"));
    assert_eq!(with(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")]), dir("/s/gateway/gateway-control-plane"));
    assert_eq!(with(&[("HOME", "/h")]), dir("/h/.local/state/gateway/gateway-control-plane"));
    assert_eq!(with(&[]), None);
}
