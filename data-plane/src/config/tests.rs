//! Tests of `config.rs`.

use super::*;

fn load(args: &[&str]) -> Result<(Config, Log), ConfigError> {
    Config::load(["gateway-data-plane", "--state-dir=/tmp/s"].iter().chain(args))
}

fn standalone(args: &[&str]) -> Result<Config, ConfigError> {
    let mut all = vec!["--manifests=/m"];
    all.extend(args);
    load(&all).map(|(config, _)| config)
}

/// Every setting: flag, environment variable, name in the file.
const NAMES: [(&str, &str, &str); 22] = [
    ("--control-plane", "GATEWAY_CONTROL_PLANE", "controlPlane"),
    ("--manifests", "GATEWAY_MANIFESTS", "manifests"),
    ("--node", "GATEWAY_NODE", "node"),
    ("--group", "GATEWAY_GROUP", "group"),
    ("--label", "GATEWAY_LABEL", "labels"),
    ("--zone", "GATEWAY_ZONE", "zone"),
    ("--admin-listen", "GATEWAY_ADMIN_LISTEN", "adminListen"),
    ("--state-dir", "GATEWAY_STATE_DIR", "stateDir"),
    ("--snapshot-key-file", "GATEWAY_SNAPSHOT_KEY_FILE", "snapshotKeyFile"),
    ("--bootstrap-snapshot", "GATEWAY_BOOTSTRAP_SNAPSHOT", "bootstrapSnapshot"),
    ("--workers", "GATEWAY_WORKERS", "workers"),
    ("--drain-delay", "GATEWAY_DRAIN_DELAY", "drainDelay"),
    ("--drain-timeout", "GATEWAY_DRAIN_TIMEOUT", "drainTimeout"),
    ("--access-log", "GATEWAY_ACCESS_LOG", "accessLog"),
    ("--phase-timing", "GATEWAY_PHASE_TIMING", "phaseTiming"),
    ("--join-token-file", "GATEWAY_JOIN_TOKEN_FILE", "joinTokenFile"),
    ("--tls-cert", "GATEWAY_TLS_CERT", "tlsCert"),
    ("--tls-key", "GATEWAY_TLS_KEY", "tlsKey"),
    ("--tls-ca", "GATEWAY_TLS_CA", "tlsCa"),
    ("--log-level", "GATEWAY_LOG_LEVEL", "logLevel"),
    ("--log-format", "GATEWAY_LOG_FORMAT", "logFormat"),
    ("--insecure", "GATEWAY_INSECURE", "insecure"),
];

#[test]
fn every_setting_has_a_flag_and_its_effect() {
    let (config, log) = load(&[
        "--control-plane=http://127.0.0.1:9001,https://cp.example.com",
        "--node=edge-1",
        "--group=edge",
        "--label=a=1",
        "--label=b=x=y",
        "--zone=z1",
        "--admin-listen=127.0.0.1:1",
        "--snapshot-key-file=/k",
        "--bootstrap-snapshot=/b",
        "--workers=3",
        "--drain-delay=1s",
        "--drain-timeout=1m30s",
        "--access-log=/var/log/requests",
        "--phase-timing",
        "--tls-ca=/ca",
        "--log-level=debug",
        "--log-format=json",
    ])
    .expect("all valid");
    let Source::ControlPlane(urls) = &config.source else { panic!("{:?}", config.source) };
    let shown: Vec<_> = urls.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["http://127.0.0.1:9001", "https://cp.example.com"]);
    assert_eq!(
        (config.node.as_deref(), config.group.as_str(), config.zone.as_str()),
        (Some("edge-1"), "edge", "z1")
    );
    assert_eq!(config.labels, BTreeMap::from([("a".into(), "1".into()), ("b".into(), "x=y".into())]));
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:1");
    assert_eq!(config.state_dir, Path::new("/tmp/s"));
    assert_eq!(config.snapshot_key_file.as_deref(), Some(Path::new("/k")));
    assert_eq!(config.bootstrap_snapshot, Some(BootstrapSnapshot::File("/b".into())));
    assert_eq!(config.workers.map(NonZeroUsize::get), Some(3));
    assert_eq!((config.drain_delay.as_secs(), config.drain_timeout.as_secs()), (1, 90));
    assert_eq!(config.access_log, AccessLog::File("/var/log/requests".into()));
    assert_eq!(config.tls_ca.as_deref(), Some(Path::new("/ca")));
    assert!(config.phase_timing && !standalone(&["--phase-timing=false"]).expect("valid").phase_timing);
    assert_eq!(log, Log { level: LogLevel::Debug, format: LogFormat::Json });
    assert_eq!(standalone(&["--access-log=stdout"]).expect("valid").access_log, AccessLog::Stdout);
    assert_eq!(standalone(&["--access-log=off"]).expect("valid").access_log, AccessLog::Off);
}

#[test]
fn defaults_are_those_of_the_contract() {
    let (config, log) = load(&["--manifests=/m"]).expect("defaults");
    assert_eq!(config.source, Source::Manifests("/m".into()));
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:9002");
    assert_eq!((config.group.as_str(), config.zone.as_str(), config.node), ("default", "", None));
    assert_eq!((config.drain_delay.as_secs(), config.drain_timeout.as_secs()), (0, 30));
    assert!(!config.phase_timing);
    assert_eq!((config.access_log, config.workers, config.insecure), (AccessLog::Off, None, false));
    assert_eq!(log, Log { level: LogLevel::Info, format: LogFormat::Text });
}

#[test]
fn a_flag_beats_the_file_and_the_file_beats_the_default() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("settings.yaml");
    let text = "controlPlane: [http://localhost:9001]\nnode: n\ngroup: g\nlabels: {a: b}\nzone: z\nadminListen: 127.0.0.1:7\n\
                snapshotKeyFile: /k\nbootstrapSnapshot: /b\nworkers: 2\ndrainDelay: 1s\ndrainTimeout: 2s\naccessLog: stdout\nphaseTiming: true\ntlsCa: /ca\n\
                logLevel: warn\nlogFormat: json\ninsecure: true\n";
    std::fs::write(&path, text).expect("written");
    let file = format!("--config={}", path.display());
    let (config, log) = load(&[&file, "--zone=flag"]).expect("valid");
    assert!(matches!(&config.source, Source::ControlPlane(urls) if urls.len() == 1));
    assert_eq!(
        (config.node.as_deref(), config.group.as_str(), config.zone.as_str()),
        (Some("n"), "g", "flag")
    );
    assert_eq!((config.labels.get("a").map(String::as_str), config.admin_listen.port()), (Some("b"), 7));
    assert_eq!((config.snapshot_key_file, config.tls_ca), (Some("/k".into()), Some("/ca".into())));
    assert_eq!(config.bootstrap_snapshot, Some(BootstrapSnapshot::File("/b".into())));
    assert_eq!((config.workers.map(NonZeroUsize::get), config.drain_delay.as_secs()), (Some(2), 1));
    assert_eq!(
        (config.drain_timeout.as_secs(), config.access_log, config.insecure),
        (2, AccessLog::Stdout, true)
    );
    assert!(config.phase_timing);
    assert_eq!(log, Log { level: LogLevel::Warn, format: LogFormat::Json });
    std::fs::write(&path, "manifests: /m\nstateDir: /kept/here\n").expect("written");
    let (config, _) = Config::load(["gateway-data-plane", &file]).expect("valid");
    assert_eq!((config.source, config.state_dir), (Source::Manifests("/m".into()), "/kept/here".into()));
}

#[test]
fn a_wrong_file_is_refused_by_name_and_place() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("settings.yaml");
    for (text, words) in [
        ("adminListen: nowhere\n", "line 1"),
        ("adminPort: 1\n", "adminPort"),
        ("workers: 0\n", "1 to 1024"),
        ("drainDelay: 5\n", "5"),
        ("phaseTiming: maybe\n", "line 1"),
        ("node: a b\n", "1 to 128"),
        (&format!("group: {}\n", "g".repeat(129)), "1 to 128"),
        ("controlPlane: [ftp://x]\n", "http://host:port"),
    ] {
        std::fs::write(&path, text).expect("written");
        let error = load(&[&format!("--config={}", path.display())]).expect_err(text).to_string();
        assert!(error.contains(words) && error.contains("settings.yaml"), "{error}");
    }
    assert!(matches!(load(&["--config=/nowhere/x.yaml"]), Err(ConfigError::File { .. })));
}

#[test]
fn a_bad_value_of_a_flag_is_a_usage_error() {
    for flag in [
        "--control-plane=127.0.0.1:9001",
        "--control-plane=http://h:1/path",
        "--node=a b",
        "--group=",
        "--label=novalue",
        "--zone=ä",
        "--admin-listen=localhost",
        "--workers=0",
        "--workers=many",
        "--drain-delay=5",
        "--drain-timeout=-1s",
        "--access-log=",
        "--phase-timing=maybe",
        "--log-level=loud",
        "--log-format=xml",
        "--insecure=perhaps",
        "--no-such-flag",
    ] {
        assert!(matches!(load(&[flag]), Err(ConfigError::Usage(_))), "{flag}");
    }
}

#[test]
fn exactly_one_source_is_taken() {
    assert!(matches!(load(&[]), Err(ConfigError::Source)));
    let both = ["--manifests=/m", "--control-plane=http://127.0.0.1:1"];
    assert!(matches!(load(&both), Err(ConfigError::Source)));
}

#[test]
fn a_setting_of_the_stream_is_refused_without_one() {
    for flag in ["--tls-ca=/ca", "--snapshot-key-file=/k", "--bootstrap-snapshot=/b"] {
        let error = standalone(&[flag]).expect_err("no effect");
        assert!(matches!(&error, ConfigError::OnlyStreamed(name) if flag.starts_with(name)), "{error}");
    }
}

#[test]
fn nothing_is_open_off_loopback_unless_it_is_said_aloud() {
    let admin = "--admin-listen=0.0.0.0:9002";
    assert!(matches!(standalone(&[admin]), Err(ConfigError::OpenAdmin(_))));
    assert!(standalone(&[admin, "--insecure"]).expect("said aloud").insecure);
    for url in ["http://cp.example.com:9001", "http://10.0.0.1:9001", "http://[2001:db8::1]:9001"] {
        let stream = format!("--control-plane={url}");
        assert!(matches!(load(&[&stream]), Err(ConfigError::OpenStream(_))), "{url}");
        assert!(load(&[&stream, "--insecure"]).is_ok(), "{url}");
    }
    for url in
        ["https://cp.example.com:9001", "http://localhost:9001", "http://[::1]:9001", "http://127.0.0.2:9001"]
    {
        assert!(load(&[&format!("--control-plane={url}")]).is_ok(), "{url}");
    }
}

#[test]
fn a_bootstrap_snapshot_comes_with_its_key_from_a_file_or_over_tls() {
    let stream = "--control-plane=http://127.0.0.1:9001";
    let with_key = |from: &str| load(&[stream, "--snapshot-key-file=/k", from]).map(|(config, _)| config);
    assert!(matches!(load(&[stream, "--bootstrap-snapshot=/b"]), Err(ConfigError::NoSnapshotKey)));
    for open in ["http://example.com/b", "http://10.0.0.1:1/b"] {
        let error = with_key(&format!("--bootstrap-snapshot={open}?signature=x")).expect_err("in the clear");
        assert!(matches!(error, ConfigError::OpenSnapshot(_)), "{error}");
        assert!(error.to_string().contains(open) && !error.to_string().contains("signature"), "{error}");
    }
    let insecure = load(&[stream, "--snapshot-key-file=/k", "--bootstrap-snapshot=http://a/b", "--insecure"]);
    assert!(insecure.is_ok());
    for closed in ["https://example.com/b?x=y", "http://127.0.0.1:1/b"] {
        let config = with_key(&format!("--bootstrap-snapshot={closed}")).expect("protected");
        assert!(matches!(config.bootstrap_snapshot, Some(BootstrapSnapshot::Url(uri)) if uri == closed));
    }
    for wrong in ["", "ftp://example.com/b", "https://ann:secret@example.com/b", "https://"] {
        let error = with_key(&format!("--bootstrap-snapshot={wrong}")).expect_err(wrong);
        assert!(matches!(error, ConfigError::Usage(_)), "{wrong}: {error}");
    }
}

#[test]
fn help_shows_all_three_names_of_each_setting() {
    let Err(ConfigError::Usage(help)) = load(&["--help"]) else { panic!("help is an early leave") };
    // As wide as the terminal is: a name may stand on the next line.
    let help = help.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    for (flag, variable, file) in NAMES {
        assert!(help.contains(flag), "{flag} is missing in\n{help}");
        assert!(help.contains(&format!("[env: {variable}]")), "{variable} is missing in\n{help}");
        assert!(help.contains(&format!("[file: {file}")), "{file} is missing in\n{help}");
    }
}

#[test]
fn the_state_directory_follows_systemd_then_xdg_then_home() {
    let with = |set: &'static [(&'static str, &'static str)]| {
        default_state_dir(move |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    };
    let dir = |text: &str| Some(PathBuf::from(text));
    assert_eq!(with(&[("STATE_DIRECTORY", "/var/lib/g:/x"), ("HOME", "/h")]), dir("/var/lib/g"));
    assert_eq!(with(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")]), dir("/s/gateway/gateway-data-plane"));
    assert_eq!(with(&[("HOME", "/h")]), dir("/h/.local/state/gateway/gateway-data-plane"));
    assert_eq!(with(&[]), None);
}

#[test]
fn a_data_plane_shows_one_certificate_and_only_over_tls() {
    let streamed = |args: &[&str]| {
        let mut all = vec!["--control-plane=https://cp.example.com"];
        all.extend(args);
        load(&all).map(|(config, _)| config)
    };
    let joined = streamed(&["--join-token-file=/t"]).expect("valid");
    assert_eq!(joined.join_token_file.as_deref(), Some(Path::new("/t")));
    let own = streamed(&["--tls-cert=/c", "--tls-key=/k"]).expect("valid");
    assert_eq!(own.tls, Some(("/c".into(), "/k".into())));
    for half in ["--tls-cert=/c", "--tls-key=/k"] {
        assert!(matches!(streamed(&[half]), Err(ConfigError::HalfKeyPair)));
    }
    let both = streamed(&["--join-token-file=/t", "--tls-cert=/c", "--tls-key=/k"]);
    assert!(matches!(both, Err(ConfigError::TwoIdentities)));
    for shown in [&["--join-token-file=/t"][..], &["--tls-cert=/c", "--tls-key=/k"]] {
        let clear = [&["--control-plane=https://cp.example.com,http://127.0.0.1:1"], shown].concat();
        let error = load(&clear).expect_err("clear text").to_string();
        assert!(error.contains("http://127.0.0.1:1") && error.contains(&shown[0][..10]), "{error}");
        assert!(matches!(standalone(shown), Err(ConfigError::OnlyStreamed(_))));
    }
}
