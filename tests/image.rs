//! The image: what is in it and what it says of itself, and the program in nothing but its root file system. No registry is asked.
//!
//! A release build takes ten minutes, so the program here is linked from what the tests are built of anyway: `tests/static_program.rs`,
//! which is `src/main.rs`. SIGNPOST_STATIC=FILE is taken instead where it is set, such as target/image/signpost of `make static`.

mod common;

use std::env;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::cluster::{Cluster, User};
use common::dig::{Dig, addresses};
use common::process::{Process, Run};
use common::resolvers::{Kind, Server};
use common::signpost::{ZONE, http_get};
use common::{free_port, local, same, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

const ANSWERS: Duration = Duration::from_secs(60);
/// As in config/deploy.
const USER: u32 = 65532;
/// An address of loopback that nothing else here uses, for a name server on port 53.
const RESOLVER: &str = "127.53.7.11";

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The program without libraries.
fn program() -> PathBuf {
    if let Some(given) = env::var_os("SIGNPOST_STATIC") {
        return fs::canonicalize(&given)
            .unwrap_or_else(|error| panic!("SIGNPOST_STATIC, {}: {error}", given.display()));
    }
    let target = Path::new(env!("CARGO_BIN_EXE_signpost")).ancestors().nth(2).expect("target/debug/signpost");
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["rustc", "--locked", "--quiet", "--test", "static_program"]);
    command.args(["--message-format=json", "--target-dir"]).arg(target);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command.args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"]);
    // What cargo tells a test of its package would make it build again what looks at that.
    for (name, _) in env::vars_os() {
        let told = |name: &str| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"]
                .iter()
                .any(|start| name.starts_with(start))
        };
        if name.to_str().is_some_and(told) {
            command.env_remove(&name);
        }
    }
    let said = run(&mut command);
    let artifacts = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let made = artifacts.filter(|message| message["target"]["name"] == "static_program");
    let program = made.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back();
    program.unwrap_or_else(|| panic!("cargo says nothing of a program: {said}"))
}

/// An image that was built, in a storage of its own.
struct Image {
    config: Value,
    /// Its root file system.
    root: PathBuf,
    _storage: TempDir,
}

impl Image {
    fn build(program: &Path) -> Image {
        // What `make image` gives to the builder: the directory, of which the program alone counts.
        let storage = tempfile::tempdir().expect("a temporary folder");
        let context = storage.path().join("context");
        fs::create_dir_all(context.join("target/image")).expect("the folder is ours");
        for file in ["Dockerfile", ".dockerignore"] {
            fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(file), context.join(file)).expect("it is there");
        }
        fs::copy(program, context.join("target/image/signpost")).expect("it can be copied");
        let buildah = |words: &[&str]| {
            let mut command = Command::new("buildah");
            command.arg("--root").arg(storage.path().join("images")).arg("--runroot").arg(storage.path().join("run"));
            run(command.args(["--storage-driver", "vfs"]).args(words))
        };
        let name = "localhost/signpost:test";
        buildah(&["build", "--target", "ready", "--tag", name, context.to_str().expect("UTF-8")]);
        let config: Value =
            serde_json::from_str(&buildah(&["inspect", "--type", "image", name])).expect("buildah writes JSON");
        let container = buildah(&["from", name]);
        let root = PathBuf::from(buildah(&["mount", container.trim()]).trim());
        Image { config: config["OCIv1"]["config"].clone(), root, _storage: storage }
    }
}

/// All files below a folder.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("it can be read") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

#[test]
fn the_program_serves_from_an_image_that_holds_nothing_else() {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    assert!(
        is_root,
        "this test makes an image and a root file system, and listens on port 53: run it as root, as .ci/run does"
    );
    let image = Image::build(&program());

    // What it says of itself is what config/deploy relies on.
    assert_eq!(image.config["User"], format!("{USER}:{USER}"));
    assert_eq!(image.config["Entrypoint"], json!(["/signpost"]));
    assert_eq!(image.config["ExposedPorts"], json!({"8053/tcp": {}, "8053/udp": {}, "8055/tcp": {}}));
    let labels = &image.config["Labels"];
    assert_eq!(labels["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(labels["org.opencontainers.image.licenses"], env!("CARGO_PKG_LICENSE"));
    assert_eq!(labels["org.opencontainers.image.description"], env!("CARGO_PKG_DESCRIPTION"));
    assert_eq!(files(&image.root), [image.root.join("signpost")], "nothing else is in it");
    let mode = fs::metadata(image.root.join("signpost")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o755);

    // A cluster that is known by name, and a load balancer that has nothing but a name. Both names are in a name server that
    // /etc/resolv.conf leads to; the first is asked for by the C library, the second by Signpost's own resolver.
    let cluster = Cluster::start("imaged");
    cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: default}\nspec: {type: LoadBalancer, ports: [{port: 80}]}\n",
    );
    let ingress = r#"{"status":{"loadBalancer":{"ingress":[{"hostname":"lb.my-cloud.com"}]}}}"#;
    cluster.kubectl(&["patch", "service", "cart", "--subresource=status", "--type=merge", "-p", ingress]);
    let names = ". 60 SOA ns. host. 1 3600 600 86400 60\n. 60 NS ns.\nns. 60 A 127.0.0.1\n\
                 kubernetes.default.svc. 60 A 127.0.0.1\nlb.my-cloud.com. 60 A 104.16.1.1\n";
    let _resolver = Server::start_at(&Kind::Nsd { zone: ".", text: names }, RESOLVER);

    // What a Pod has beside the image: mounts, and the resolv.conf that the kubelet writes.
    let world = tempfile::tempdir().expect("a temporary folder");
    let root = world.path().join("root");
    let state = root.join("var/lib/signpost");
    for folder in ["etc/signpost", "var/lib/signpost", "dev"] {
        fs::create_dir_all(root.join(folder)).expect("the folder is ours");
    }
    fs::copy(image.root.join("signpost"), root.join("signpost")).expect("it can be copied");
    // Devices that the OCI runtime specification gives to every container.
    for device in ["null", "random", "urandom"] {
        fs::write(root.join("dev").join(device), "").expect("the folder is ours");
    }
    fs::write(root.join("etc/resolv.conf"), format!("nameserver {RESOLVER}\n")).expect("the folder is ours");
    let kubeconfig = fs::read_to_string(cluster.kubeconfig_of(User::Reader)).expect("it is there");
    let authority = kubeconfig.split("certificate-authority: '").nth(1).and_then(|rest| rest.split('\'').next());
    fs::copy(authority.expect("a file"), root.join("etc/signpost/authority.crt")).expect("it can be copied");
    let kubeconfig = kubeconfig
        .replace(&cluster.address.to_string(), &format!("kubernetes.default.svc:{}", cluster.address.port()))
        .replace(authority.expect("a file"), "/etc/signpost/authority.crt");
    assert!(kubeconfig.contains("https://kubernetes.default.svc:"), "{kubeconfig}");
    let zone = format!("$ORIGIN {ZONE}.\n@ 60 SOA ns1 host 1 3600 600 86400 60\n@ 60 NS ns1\nns1 60 A 127.0.0.1\n");
    let (port, admin) = (free_port(), free_port());
    let config = format!(
        "zones: [{{name: {ZONE}, file: federation.zone}}]\n\
         clusters: [{{name: imaged, region: here, kubeconfig: {{file: /etc/signpost/kubeconfig}}}}]\n\
         listeners: [{{addresses: ['127.0.0.1:{port}'], view: external}}]\nadmin: {{address: '127.0.0.1:{admin}'}}\n\
         state: {{directory: /var/lib/signpost/state}}\n"
    );
    for (name, text) in [("kubeconfig", &kubeconfig), ("federation.zone", &zone), ("signpost.yaml", &config)] {
        let file = root.join("etc/signpost").join(name);
        fs::write(&file, text).expect("the folder is ours");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("it is ours");
    }
    for folder in
        [root.as_path(), &root.join("etc"), &root.join("etc/signpost"), &root.join("var"), &root.join("var/lib")]
    {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    chown(&state, Some(USER), Some(USER)).expect("we are root");
    // Read-only but for the one mount, and no way back to more.
    let script = "mount --make-rprivate / && mount --bind \"$1\" \"$1\" && \
                  for d in null random urandom; do mount --bind /dev/$d \"$1/dev/$d\"; done && \
                  mount --bind \"$1/var/lib/signpost\" \"$1/var/lib/signpost\" && \
                  mount -o remount,bind,ro \"$1\" && exec setpriv --no-new-privs chroot --userspec=\"$2:$2\" --groups= \"$1\" \
                  /signpost serve --config /etc/signpost/signpost.yaml";
    let (folder, user) = (root.display().to_string(), USER.to_string());
    let words = ["--mount", "setpriv", "--pdeathsig", "KILL", "sh", "-c", script, "sh", &folder, &user];
    let process = Process::start(Run {
        name: "image",
        program: Path::new("unshare"),
        arguments: words.map(String::from).to_vec(),
        directory: world.path(),
        namespace: None,
    });

    let dig = Dig::at(local(port));
    wait_for("an answer that took both names", ANSWERS, || {
        process.check().unwrap_or_else(|ended| panic!("{ended}"));
        same(dig.address_set(&format!("cart.default.{ZONE}"), "A")?, addresses(&["104.16.1.1"]))
            .map_err(|error| format!("{error}; {}", process.log()))
    });
    let tcp = dig.clone().with("+tcp").address_set(&format!("cart.default.{ZONE}"), "A").expect("an answer");
    assert_eq!(tcp, addresses(&["104.16.1.1"]));
    let ready = http_get(local(admin), "/readyz").expect("it listens");
    assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");

    // As whom, and in what.
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {status}"));
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    let four = [USER.to_string(), USER.to_string(), USER.to_string(), USER.to_string()].join(" ");
    assert_eq!((field("Name:"), field("Uid:"), field("Gid:")), ("signpost".to_owned(), four.clone(), four));
    assert_eq!((field("CapEff:"), field("NoNewPrivs:")), ("0000000000000000".to_owned(), "1".to_owned()));
    let maps = fs::read_to_string(format!("/proc/{}/maps", process.id())).expect("it runs");
    assert!(maps.contains("/signpost\n") && !maps.contains(".so"), "it has no library: {maps}");
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", process.id())).expect("it runs");
    let options = |at: &str| {
        mounts.lines().find(|line| line.split(' ').nth(1) == Some(at)).and_then(|line| line.split(' ').nth(3))
    };
    assert!(options("/").is_some_and(|options| options.starts_with("ro")), "{mounts}");
    wait_for("a snapshot in the one place that can be written", ANSWERS, || match files(&state).as_slice() {
        [] => Err(process.log()),
        some => same(some.iter().any(|file| file.ends_with("state/imaged.snapshot")), true),
    });

    let ended = process.terminate(Duration::from_secs(20));
    assert!(ended.success(), "{ended}: {}", process.log());
}
