//! The status page in a real browser, driven by `tests/page/drive.mjs`: the server with 5,000 services in three clusters, in a network of
//! the test's own.

mod common;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::again::{self, listen};
use common::namespace::Namespace;
use common::process::command_in;
use common::signpost::{MemberSource, Ports, START, Setup, Signpost};
use common::{try_wait_for, wait_for};

/// Of the names `service-N`; each is in all clusters.
const PLAIN: usize = 5_000;
/// The name, the region, and what is behind the load balancer.
const CLUSTERS: [(&str, &str, bool); 3] =
    [("virginia", "us-east-1", true), ("ireland", "eu-west-1", true), ("tokyo", "ap-northeast-1", false)];
const PORT: u16 = 8080;
const SECTIONS: &str = "\
health: {quorum: local, interval: 1s, timeout: 1s, fall: 2, rise: 2}
location:
  regions: [{name: new-york, latitude: 40.71, longitude: -74.01}]
  places: [{region: new-york, cidrs: [192.0.2.0/24]}]
";
/// For all that the browser does: 5 minutes on two busy cores.
const DRIVE: Duration = Duration::from_secs(1_200);
const NAMESPACES: [&str; 6] = ["billing", "checkout", "search", "shop", "support", "warehouse"];

/// What listens; started by the test as a program of its own.
#[test]
#[ignore = "a backend of the other test"]
fn backend() {
    again::backend();
}

/// A Service of the n-th cluster, from 1; annotations as in a flow of YAML.
fn service(cluster: usize, namespace: &str, name: &str, inside: &str, outside: &str, annotations: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {namespace}, annotations: {{{annotations}}}}}, spec: \
         {{type: LoadBalancer, clusterIP: 10.{cluster}.{inside}, ports: [{{name: http, port: {PORT}}}]}}, status: {{loadBalancer: \
         {{ingress: [{{ip: 104.{outside}}}]}}}}}}\n"
    )
}

/// All of it but one service is never probed.
fn manifests(cluster: usize) -> String {
    const UNPROBED: &str = "signpost.dev/probe: none";
    let mut text = String::new();
    for n in 0..PLAIN {
        let (namespace, name, last) = (NAMESPACES[n % NAMESPACES.len()], format!("service-{n}"), n % 250 + 1);
        let (inside, outside) = (format!("{}.{last}", n / 250 + 1), format!("{}.{}.{last}", 16 + cluster, n / 250));
        text += &service(cluster, namespace, &name, &inside, &outside, UNPROBED);
    }
    let load = if cluster == 1 { "signpost.dev/load: '0.82'" } else { "" };
    text += &service(cluster, "shop", "cart", "0.1", &format!("16.{cluster}.1"), load);
    let load = if cluster == 2 { ", signpost.dev/load: '0.93'" } else { "" };
    text += &service(cluster, "shop", "loaded", "0.2", &format!("16.{cluster}.2"), &format!("{UNPROBED}{load}"));
    text += &service(cluster, "shop", "unready", "0.3", &format!("16.{cluster}.3"), UNPROBED);
    writeln!(
        text,
        "---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: unready-1, namespace: shop, labels: \
         {{kubernetes.io/service-name: unready}}}}, addressType: IPv4, endpoints: [{{addresses: [10.{cluster}.200.1], conditions: \
         {{ready: false}}}}], ports: [{{name: http, port: {PORT}}}]}}"
    )
    .expect("a String takes everything");
    if cluster == 1 {
        text += &service(cluster, "shop", "only-here", "0.4", "16.1.4", UNPROBED);
    }
    text
}

/// The folder with what drives the browser; filled from npm when its lock file changed.
fn modules() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (source, folder) = (root.join("tests/page"), root.join("target/page"));
    let lock = fs::read(source.join("package-lock.json")).expect("the lock file is there");
    let stamp = folder.join("installed-package-lock.json");
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return folder;
    }
    fs::create_dir_all(&folder).expect("target can be written");
    for file in ["package.json", "package-lock.json"] {
        fs::copy(source.join(file), folder.join(file)).expect("target can be written");
    }
    let words = ["ci", "--no-audit", "--no-fund", "--ignore-scripts"];
    let status = Command::new("npm").args(words).current_dir(&folder).status().expect("npm can be run (package npm)");
    assert!(status.success(), "npm {}: {status}", words.join(" "));
    fs::write(stamp, lock).expect("target can be written");
    folder
}

#[test]
fn the_page_in_a_browser() {
    let modules = modules();
    let namespace = Namespace::new();
    let directory = tempfile::tempdir().expect("a temporary folder");
    let folder = |name: &str| directory.path().join(name);
    let mut backends = Vec::new();
    let mut sources = Vec::new();
    for (number, (name, _, is_there)) in (1..).zip(CLUSTERS) {
        fs::create_dir(folder(name)).expect("the folder is ours");
        fs::write(folder(name).join("all.yaml"), manifests(number)).expect("the folder is ours");
        sources.push(MemberSource::Manifests(folder(name)));
        let address = format!("104.16.{number}.1");
        namespace.run(&format!("ip address add {address}/32 dev lo"));
        if is_there {
            let name = format!("backend-{number}");
            backends.push(listen(&namespace, directory.path(), &name, &format!("{address}:{PORT}")));
        }
    }
    let mut setup = Setup::new(sources);
    for (member, (name, region, _)) in setup.clusters.iter_mut().zip(CLUSTERS) {
        (member.name, member.region, member.availability_zone) =
            (name.to_owned(), region.to_owned(), format!("{region}a"));
    }
    setup.sections = SECTIONS.to_owned();
    let ports = Ports::inside();
    let signpost = Signpost::spawn(&setup, ports, Some(&namespace));
    wait_for("a server that is ready", START, || match signpost.get_inside(&namespace, "/readyz")? {
        ready if ready == "ok\n" => Ok(()),
        reasons => Err(reasons),
    });

    let given = serde_json::json!({
        "url": format!("http://{}/", ports.admin),
        "modules": modules,
        "chromium": "/usr/bin/chromium",
        "signpost": env!("CARGO_BIN_EXE_signpost"),
        "config": signpost.config(),
        "server": signpost.id(),
        "manifests": folder("virginia"),
        "plain": PLAIN,
        "pictures": std::env::var("PAGE_PICTURES").ok(),
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/drive.mjs");
    let mut drive = command_in(Some(&namespace), Path::new("node"), &[script.display().to_string(), given.to_string()]);
    // The browser writes into its home.
    drive.env("HOME", directory.path());
    // Through a file, so that it stands with the test's own words.
    let said = folder("said");
    let log = File::create(&said).expect("the folder is ours");
    drive.stdout(log.try_clone().expect("it is open")).stderr(log);
    let mut child = drive.spawn().expect("node can be run (package nodejs)");
    let mut ended = || child.try_wait().expect("the child is ours to wait for").ok_or_else(|| "it runs".to_owned());
    let status = try_wait_for(DRIVE, &mut ended);
    println!("{}", fs::read_to_string(&said).unwrap_or_else(|error| error.to_string()));
    let status = status.unwrap_or_else(|_| panic!("tests/page/drive.mjs runs after {DRIVE:?}"));
    assert!(status.success(), "tests/page/drive.mjs: {status}; what it said is above");
}
