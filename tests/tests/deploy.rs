//! What is in `deploy/` against the programs: a flag, variable, port, probe or selector that does not exist fails here,
//! and not when somebody rolls it out. The full profile builds the image and runs the programs in it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context as _, ensure};
use gateway_tests::client::{Admin, Http};
use gateway_tests::process::{Process, free_port, program};
use gateway_tests::stack::Stack;
use gateway_tests::{full_profile, wait};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

const KUBERNETES: [&str; 4] =
    ["namespace.yaml", "control-plane.yaml", "data-plane.yaml", "network-policy.yaml"];
/// Largest image.
const MAX_IMAGE: u64 = 50_000_000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

fn read(path: &str) -> anyhow::Result<Vec<Value>> {
    let text = std::fs::read_to_string(root().join("deploy").join(path)).with_context(|| path.to_owned())?;
    serde_saphyr::from_multiple(&text).with_context(|| path.to_owned())
}

fn kubernetes() -> anyhow::Result<Vec<Value>> {
    let all = KUBERNETES.iter().map(|name| read(&format!("kubernetes/{name}")));
    Ok(all.collect::<anyhow::Result<Vec<_>>>()?.concat())
}

/// A container: what is started, with which arguments and variables.
#[derive(Clone, Debug)]
struct Container {
    program: String,
    arguments: Vec<String>,
    variables: Vec<String>,
    /// As it is written.
    spec: Value,
    /// The pod it is in (Kubernetes).
    pod: Value,
}

fn words(value: &Value) -> impl Iterator<Item = String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned)
}

/// Containers of our programs, from the compose file and from Kubernetes.
fn containers() -> anyhow::Result<Vec<Container>> {
    let mut found = Vec::new();
    let compose = read("compose.yaml")?.remove(0);
    for service in compose["services"].as_object().context("services")?.values() {
        let mut command = words(&service["command"]);
        let Some(program) = command.next() else { continue };
        let arguments = command.collect();
        let variables = service["environment"].as_object().into_iter().flat_map(|all| all.keys().cloned());
        let variables = variables.collect();
        found.push(Container { program, arguments, variables, spec: service.clone(), pod: Value::Null });
    }
    for object in kubernetes()?.iter().filter(|object| object["kind"] == "Deployment") {
        let pod = &object["spec"]["template"];
        for spec in pod["spec"]["containers"].as_array().context("containers")? {
            let variables = spec["env"].as_array().into_iter().flatten();
            found.push(Container {
                program: words(&spec["command"]).next().context("a command")?,
                arguments: words(&spec["args"]).collect(),
                variables: variables.filter_map(|it| it["name"].as_str()).map(str::to_owned).collect(),
                spec: spec.clone(),
                pod: pod.clone(),
            });
        }
    }
    Ok(found)
}

impl Container {
    fn flag(&self, name: &str) -> Option<&str> {
        self.arguments.iter().find_map(|it| it.strip_prefix(name)?.strip_prefix('='))
    }

    /// The port that a flag listens on.
    fn port(&self, flag: &str) -> Option<u64> {
        self.flag(flag)?.rsplit(':').next()?.parse().ok()
    }

    async fn run(&self, arguments: &[String]) -> anyhow::Result<String> {
        let mut command = Command::new(program(&self.program)?);
        command.args(arguments).kill_on_drop(true);
        for name in &self.variables {
            command.env(name, "value");
        }
        let output = wait::within("its end", command.output()).await??;
        Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }
}

#[tokio::test]
async fn every_container_is_started_with_what_its_program_takes() -> anyhow::Result<()> {
    let containers = containers()?;
    assert_eq!(containers.len(), 6, "four of the compose file, two of Kubernetes");
    for container in containers {
        if container.program == "gatewayctl" {
            let nowhere = ["--server=http://127.0.0.1:1", "--file=/nowhere/token"].map(str::to_owned);
            let own = container.arguments.iter().filter(|it| !it.starts_with("--file="));
            let said = container.run(&own.cloned().chain(nowhere).collect::<Vec<_>>()).await?;
            assert!(said.contains("cannot write the join token to /nowhere/token"), "{container:?}: {said}");
            continue;
        }
        // Flags and variables are read, in full, before the file that is not there.
        let missing = "--config=/nowhere/settings.yaml".to_owned();
        let arguments: Vec<String> = container.arguments.iter().cloned().chain([missing]).collect();
        let said = container.run(&arguments).await?;
        assert!(said.contains("cannot read the settings file"), "{container:?}: {said}");
        let help = container.run(&["--help".to_owned()]).await?;
        for name in &container.variables {
            assert!(help.contains(&format!("[env: {name}]")), "{} does not read {name}", container.program);
        }
    }
    Ok(())
}

#[test]
fn probes_ports_and_times_fit_what_the_programs_are_told() -> anyhow::Result<()> {
    for container in containers()?.iter().filter(|it| it.pod != Value::Null) {
        let named = container.spec["ports"].as_array().context("ports")?;
        let port = |name: &Value| named.iter().find(|it| it["name"] == *name)?["containerPort"].as_u64();
        let admin = container.port("--admin-listen").context("an admin port")?;
        let scheme = if container.flag("--tls-cert").is_some() { json!("HTTPS") } else { Value::Null };
        for (probe, path) in
            [("startupProbe", "/livez"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")]
        {
            let get = &container.spec[probe]["httpGet"];
            assert_eq!((&get["path"], &get["scheme"]), (&json!(path), &scheme), "{probe}");
            assert_eq!(port(&get["port"]), Some(admin), "{probe} asks the admin port");
        }
        if let Some(stream) = container.port("--stream-listen") {
            assert_eq!(port(&json!("stream")), Some(stream));
        }
        let seconds =
            |flag| container.flag(flag).and_then(|it| it.strip_suffix('s')?.parse::<u64>().ok()).unwrap_or(0);
        let leaves = seconds("--drain-delay") + seconds("--drain-timeout");
        let grace = container.pod["spec"]["terminationGracePeriodSeconds"].as_u64();
        assert!(grace > Some(leaves), "{grace:?} s are too short for {leaves} s of draining");
        assert_eq!(container.spec["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(container.pod["spec"]["securityContext"]["runAsNonRoot"], true);
        assert!(words(&container.spec["securityContext"]["capabilities"]["drop"]).eq(["ALL".to_owned()]));
        mounts_exist(container);
    }
    Ok(())
}

/// Every file that a flag names lies below a mount, and every mount has its volume.
fn mounts_exist(container: &Container) {
    let mounts = container.spec["volumeMounts"].as_array().into_iter().flatten();
    let mounts: Vec<(&str, &str)> =
        mounts.filter_map(|it| Some((it["name"].as_str()?, it["mountPath"].as_str()?))).collect();
    let files = container.arguments.iter().filter_map(|it| it.split_once('=')).map(|(_, value)| value);
    for file in files.filter(|value| value.starts_with('/')) {
        assert!(
            mounts.iter().any(|(_, path)| file.starts_with(&format!("{path}/"))),
            "{file} is not mounted"
        );
    }
    let volumes: Vec<&Value> =
        container.pod["spec"]["volumes"].as_array().into_iter().flatten().map(|it| &it["name"]).collect();
    for (name, _) in mounts {
        assert!(volumes.contains(&&json!(name)), "there is no volume {name}");
    }
}

#[test]
fn every_selector_finds_its_pods_and_every_reference_its_object() -> anyhow::Result<()> {
    let objects = kubernetes()?;
    let pods: Vec<&Value> = objects.iter().filter(|it| it["kind"] == "Deployment").collect();
    let finds = |selector: &Value| {
        let wanted = selector.as_object().expect("labels");
        let labels = |pod: &Value| pod["spec"]["template"]["metadata"]["labels"].clone();
        pods.iter().find(|pod| wanted.iter().all(|(name, value)| labels(pod)[name] == *value)).copied()
    };
    let mut checked = BTreeMap::<&str, usize>::new();
    for object in &objects {
        let (kind, spec) = (object["kind"].as_str().context("a kind")?, &object["spec"]);
        match kind {
            "Deployment" | "PodDisruptionBudget" => {
                let selector = &spec["selector"]["matchLabels"];
                assert_eq!(
                    finds(selector).map(|pod| &pod["metadata"]["name"]),
                    Some(&object["metadata"]["name"])
                );
            }
            "Service" => {
                let pod = finds(&spec["selector"]).context("a service without pods")?;
                let ports = &pod["spec"]["template"]["spec"]["containers"][0]["ports"];
                let names: Vec<&Value> =
                    ports.as_array().into_iter().flatten().map(|it| &it["name"]).collect();
                let targets = spec["ports"].as_array().context("ports")?.iter().map(|it| &it["targetPort"]);
                targets
                    .for_each(|target| assert!(names.contains(&target), "{target} is no port of the pods"));
            }
            "NetworkPolicy" if spec["podSelector"] != json!({}) => {
                assert!(finds(&spec["podSelector"]["matchLabels"]).is_some(), "{object}");
            }
            "HorizontalPodAutoscaler" => {
                let scaled = &spec["scaleTargetRef"]["name"];
                assert!(pods.iter().any(|pod| pod["metadata"]["name"] == *scaled));
            }
            _ => continue,
        }
        *checked.entry(kind).or_default() += 1;
    }
    assert_eq!(checked.len(), 5, "{checked:?}");
    let kustomization = read("kubernetes/kustomization.yaml")?.remove(0);
    assert!(words(&kustomization["resources"]).eq(KUBERNETES.map(str::to_owned)));
    Ok(())
}

async fn answers(address: SocketAddr, path: &str, expected: u16) -> anyhow::Result<()> {
    let http = Http::default();
    wait::until(&format!("{path} to answer {expected}"), || async {
        match http.get(address, "any", path).await {
            Ok(answer) if answer.status() == expected => Ok(()),
            Ok(answer) => Err(answer.status().to_string()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
}

/// As in Kubernetes, but on loopback and in clear text, with folders of the test.
#[tokio::test]
async fn probes_are_answered_and_say_when_a_data_plane_leaves() -> anyhow::Result<()> {
    let stack = Stack::new().planes(0).start().await?;
    let http = Http::default();
    for path in ["/livez", "/readyz"] {
        let address = stack.server().trim_start_matches("http://").parse()?;
        assert_eq!(http.get(address, "any", path).await?.status(), 200, "{path} of the control plane");
    }
    let container =
        containers()?.into_iter().rfind(|it| it.program == "gateway-data-plane").context("one")?;
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let changed = |argument: &String| match argument.split_once('=').map_or(&**argument, |(name, _)| name) {
        "--admin-listen" => Some(format!("--admin-listen={admin}")),
        "--control-plane" => Some(format!("--control-plane=http://{}", stack.stream_address())),
        "--state-dir" => Some(format!("--state-dir={}", stack.data_plane_state(0).display())),
        "--tls-ca" | "--join-token-file" => None,
        _ => Some(argument.clone()),
    };
    let arguments: Vec<String> = container.arguments.iter().filter_map(changed).collect();
    let program = program("gateway-data-plane")?;
    let mut plane = Process::start("data plane", &program.to_string_lossy(), &arguments, &[])?;
    answers(admin, "/readyz", 200).await?;
    plane.signal(nix::sys::signal::Signal::SIGTERM)?;
    // It serves on, so that whoever looks at the probe has time to see it.
    answers(admin, "/readyz", 503).await?;
    answers(admin, "/livez", 200).await?;
    plane.kill().await
}

/// What Compose starts, without its containers: secrets as the script makes them, a store of the test's, other ports.
#[tokio::test]
async fn compose_joins_its_data_planes_by_a_token_and_takes_nobody_else() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (secrets, token) = (folder.path().join("secrets"), folder.path().join("token"));
    make_secrets(folder.path()).await?;
    let [admin, stream, health] = [free_port()?, free_port()?, free_port()?];
    let containers = containers()?;
    let of = |name: &str| containers.iter().find(|it| it.program == name && it.pod.is_null()).context("one");
    let changed = |argument: &String| {
        let argument = argument.replace("/run/secrets", &secrets.to_string_lossy());
        match argument.split_once('=').map_or(&*argument, |(name, _)| name) {
            "--admin-listen" if argument.ends_with(":9000") => format!("--admin-listen=0.0.0.0:{admin}"),
            "--admin-listen" => format!("--admin-listen=0.0.0.0:{health}"),
            "--stream-listen" => format!("--stream-listen=0.0.0.0:{stream}"),
            "--control-plane" => format!("--control-plane=https://localhost:{stream}"),
            "--join-token-file" => format!("--join-token-file={}", token.display()),
            "--file" => format!("--file={}", token.display()),
            _ => argument,
        }
    };
    let start = async |name: &str, state: &str| {
        let container = of(name)?;
        let state = format!("--state-dir={}", folder.path().join(state).display());
        let arguments: Vec<String> = container.arguments.iter().map(changed).chain([state]).collect();
        Process::start(name, &program(name)?.to_string_lossy(), &arguments, &[])
    };
    let mut control = start("gateway-control-plane", "control").await?;
    control.line("the stream", |line| line.contains("certificates_needed\":true").then_some(())).await?;

    let ctl = async |arguments: &[String]| {
        let mut command = Command::new(program("gatewayctl")?);
        command.args(arguments).env_clear().env("GATEWAY_SERVER", format!("https://localhost:{admin}"));
        command.env("GATEWAY_CA_FILE", secrets.join("tls.crt"));
        command.env("GATEWAY_TOKEN", std::fs::read_to_string(secrets.join("admin-token"))?.trim());
        succeeded(command.output().await?)
    };
    let create: Vec<String> = of("gatewayctl")?.arguments.iter().map(changed).collect();
    ctl(&create).await?;
    let made = std::fs::read_to_string(&token)?;
    assert_eq!(std::fs::metadata(&token)?.permissions().mode() & 0o777, 0o600);
    let again = ctl(&create).await?;
    assert!(
        again.contains("holds a join token already") && made == std::fs::read_to_string(&token)?,
        "{again}"
    );

    let mut plane = start("gateway-data-plane", "data").await?;
    plane.line("the stream", |line| line.contains("connected to the control plane").then_some(())).await?;
    let nodes: Value = serde_json::from_str(&ctl(&["nodes", "-o", "json"].map(str::to_owned)).await?)?;
    assert!(nodes["items"][0]["certificate"]["ca"].as_str().is_some_and(|ca| ca.len() == 64), "{nodes}");
    assert!(plane.terminate().await?.success(), "{}", plane.tail());
    assert!(control.terminate().await?.success(), "{}", control.tail());
    Ok(())
}

/// Runs `make-secrets` twice: what is there stays, and is for nobody else.
async fn make_secrets(folder: &Path) -> anyhow::Result<()> {
    let script = folder.join("make-secrets");
    std::fs::copy(root().join("deploy/make-secrets"), &script)?;
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).with_context(|| name.to_owned());
    let names = ["master-key", "admin-token", "postgres-password", "tls.crt", "tls.key"];
    let names = names.map(|name| format!("secrets/{name}"));
    let mut made = Vec::new();
    for _ in 0..2 {
        succeeded(Command::new(&script).output().await?)?;
        let now = names.iter().map(|name| read(name)).collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(made.is_empty() || made == now, "what was there was made again");
        made = now;
    }
    let mode = |name: &str| anyhow::Ok(std::fs::metadata(folder.join(name))?.permissions().mode() & 0o777);
    assert_eq!((mode("secrets")?, mode(".env")?), (0o700, 0o600));
    let variables = format!("POSTGRES_PASSWORD={}\nADMIN_TOKEN={}\n", made[2].trim(), made[1].trim());
    assert_eq!(read(".env")?, variables);
    let compose = std::fs::read_to_string(root().join("deploy/compose.yaml"))?;
    for (at, _) in compose.match_indices("${") {
        let name = compose[at + 2..].split([':', '}']).next().unwrap_or_default();
        assert!(variables.contains(&format!("{name}=")), "{name} is nowhere set");
    }
    Ok(())
}

fn succeeded(output: Output) -> anyhow::Result<String> {
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{:?}: {said}", output.status.code());
    Ok(said)
}

/// Kept between runs.
fn cache(name: &str) -> PathBuf {
    root().join("target/deploy").join(name)
}

#[tokio::test]
async fn kubernetes_takes_the_files_by_its_own_schemas() -> anyhow::Result<()> {
    if !full_profile() {
        return Ok(());
    }
    let folder = cache("kubernetes-validate");
    if !folder.exists() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
        succeeded(pip.arg(&folder).arg("kubernetes-validate==1.37.0").output().await?)?;
    }
    let files = KUBERNETES.map(|name| root().join("deploy/kubernetes").join(name));
    let mut validate = Command::new("python3");
    validate.args(["-m", "kubernetes_validate", "--strict"]).args(files).env("PYTHONPATH", &folder);
    let said = succeeded(validate.output().await?)?;
    assert_eq!(said.matches(" passed for resource ").count(), kubernetes()?.len(), "{said}");
    Ok(())
}

/// An image in a store of the test's own.
struct Image {
    store: TempDir,
    /// Its files, where programs can be started in them.
    mounted: PathBuf,
}

impl Image {
    async fn build() -> anyhow::Result<Self> {
        let packages = ["gateway-control-plane", "gateway-data-plane", "gatewayctl"];
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--profile", "dist", "--locked"]).current_dir(root());
        succeeded(cargo.args(packages.iter().flat_map(|name| ["-p", name])).output().await?)?;
        let store = tempfile::tempdir()?;
        let files = store.path().join("files");
        let mut lay_out = Command::new(root().join("deploy/image-root"));
        succeeded(lay_out.arg(root().join("target/dist")).arg(&files).output().await?)?;
        let mut image = Image { store, mounted: PathBuf::new() };
        let context = format!("--build-context=root={}", files.display());
        let dockerfile = root().join("deploy/Dockerfile");
        let dockerfile = dockerfile.to_string_lossy();
        let deploy = root().join("deploy");
        image
            .buildah(&[
                "bud",
                "--quiet",
                "--isolation=chroot",
                &context,
                "-f",
                &dockerfile,
                "-t",
                "gateway",
                &deploy.to_string_lossy(),
            ])
            .await?;
        let container = image.buildah(&["from", "--pull-never", "localhost/gateway"]).await?;
        image.mounted = image.buildah(&["mount", &container]).await?.into();
        Ok(image)
    }

    /// What it says on standard output.
    async fn buildah(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut buildah = Command::new("buildah");
        buildah.arg("--storage-driver=vfs");
        buildah.arg("--root").arg(self.store.path().join("storage"));
        buildah.arg("--runroot").arg(self.store.path().join("run"));
        let output = buildah.args(arguments).kill_on_drop(true).output().await.context("buildah")?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        succeeded(output).with_context(|| arguments.join(" "))?;
        Ok(text)
    }

    /// A program in the image: its own root, read-only but for the state, as the image's user without any privilege.
    /// (No runtime of containers starts on a machine whose cgroups are half of the old kind; this is what it would do.)
    fn start(&self, name: &str, arguments: &[String]) -> anyhow::Result<Process> {
        let script = "set -e; mount --bind $0 $0; mount -o remount,bind,ro $0; \
            mount -t tmpfs -o mode=0700,uid=65532,gid=65532 state $0/var/lib/gateway; cd $0; \
            exec setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid --pdeathsig KILL \
            chroot --userspec=65532:65532 --groups= $0 /usr/local/bin/\"$@\"";
        let mounted = self.mounted.to_string_lossy().into_owned();
        let words = ["--mount", "sh", "-c", script, &mounted, name].map(str::to_owned);
        let arguments: Vec<String> = words.into_iter().chain(arguments.iter().cloned()).collect();
        Process::start(name, "unshare", &arguments, &[("STATE_DIRECTORY", "/var/lib/gateway")])
    }
}

#[tokio::test]
async fn the_image_is_small_and_its_programs_serve_on_a_read_only_root() -> anyhow::Result<()> {
    if !full_profile() {
        return Ok(());
    }
    let image = Image::build().await?;
    let size: u64 = succeeded(Command::new("du").args(["-sb"]).arg(&image.mounted).output().await?)?
        .split_whitespace()
        .next()
        .context("a size")?
        .parse()?;
    println!("image: {size} bytes");
    assert!(size < MAX_IMAGE, "{size} bytes");
    let user =
        image.buildah(&["inspect", "--type=image", "--format={{.OCIv1.Config.User}}", "gateway"]).await?;
    assert_eq!(user, "65532:65532");

    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (admin, stream, listener) = (address(free_port()?), address(free_port()?), address(free_port()?));
    let token = "0123456789abcdef".repeat(4);
    // The only file that is not the image's: as a mounted secret would be.
    std::fs::write(image.mounted.join("etc/admin-token"), &token)?;
    let mut control_plane = image.start(
        "gateway-control-plane",
        &[
            format!("--admin-listen={admin}"),
            format!("--stream-listen={stream}"),
            "--admin-token-file=/etc/admin-token".to_owned(),
        ],
    )?;
    control_plane.line("the stream", |line| line.contains("stream listens").then_some(())).await?;
    let mut data_plane = image.start(
        "gateway-data-plane",
        &[format!("--control-plane=http://{stream}"), "--admin-listen=127.0.0.1:0".to_owned()],
    )?;
    let objects = [
        json!({"apiVersion": "gateway/v1", "kind": "Listener", "metadata": {"name": "public"},
               "spec": {"address": listener.ip(), "port": listener.port()}}),
        json!({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"name": "r"},
               "spec": {"respond": {"body": "from the image"}}}),
    ];
    Admin::new(admin, token.as_str()).apply(&objects).await?;
    let http = Http::default();
    wait::until("the data plane in the image to serve", || async {
        match http.get(listener, "any", "/").await {
            Ok(answer) if answer.body() == "from the image" => Ok(()),
            Ok(answer) => Err(format!("{answer:?}")),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
    .with_context(|| data_plane.tail())?;
    let mut client = image.start("gatewayctl", &["--version".to_owned()])?;
    client.line("its version", |line| line.starts_with("gatewayctl ").then_some(())).await?;
    assert!(data_plane.terminate().await?.success(), "{}", data_plane.tail());
    assert!(control_plane.terminate().await?.success(), "{}", control_plane.tail());
    Ok(())
}
