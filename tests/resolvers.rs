//! Two of the three uses: as the zone that a cluster's resolver forwards, and as a delegated zone on the Internet.
//! (The third, dig by hand, is the demo's.)

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use common::dig::{Dig, addresses};
use common::namespace::Namespace;
use common::resolvers::{DELEGATED, Delegation, Kind, Server};
use common::signpost::{MemberSource, Ports, START, Setup, Signpost, ZONE};
use common::{same, stays, wait_for};
use tempfile::TempDir;

/// Longest time until a resolver answers, on a loaded machine.
const ANSWERS: Duration = Duration::from_secs(30);

const CLUSTER_IP: &str = "10.0.153.185";
/// Ingress addresses of the 2015 example, by cluster.
const INGRESS: [&str; 3] = ["104.197.117.10", "104.197.74.77", "104.197.38.157"];

/// The 2015 example as manifests, twice: one service stays out of every cache until a test wants it.
fn world() -> (TempDir, Setup) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let sources = INGRESS.iter().enumerate().map(|(index, ingress)| {
        let directory = folder.path().join(format!("cluster-{}", index + 1));
        fs::create_dir(&directory).expect("the folder is ours");
        let cluster_ip = [CLUSTER_IP, "10.0.40.1", "10.0.40.2"][index];
        for name in ["my-service", "other-service"] {
            write_service(&directory, name, cluster_ip, ingress);
        }
        MemberSource::Manifests(directory)
    });
    let setup = Setup::new(sources.collect());
    (folder, setup)
}

fn write_service(directory: &Path, name: &str, cluster_ip: &str, ingress: &str) {
    let text = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: my-namespace}}
spec:
  type: LoadBalancer
  clusterIP: {cluster_ip}
  clusterIPs: [{cluster_ip}]
  selector: {{app: {name}}}
  ports: [{{name: client, protocol: TCP, port: 2379}}, {{name: peer, protocol: TCP, port: 2380}}]
status: {{loadBalancer: {{ingress: [{{ip: {ingress}}}]}}}}
"
    );
    fs::write(directory.join(format!("{name}.yaml")), text).expect("the folder is ours");
}

fn full(name: &str) -> String {
    format!("{name}.my-namespace.{ZONE}")
}

/// What any resolver must make of the zone, whatever the view.
fn resolves(dig: &Dig<'_>, want: &[&str]) {
    let name = full("my-service");
    wait_for("the service's addresses", ANSWERS, || same(dig.address_set(&name, "A")?, addresses(want)));

    let services = dig.ask(&full("_client._tcp.my-service"), "SRV").expect("a resolver that answered A");
    let mut targets: Vec<String> =
        services.data().iter().filter_map(|d| Some(d.split_once(" 2379 ")?.1.to_string())).collect();
    targets.sort_unstable();
    let all: Vec<String> = (1..=3).map(|c| format!("{}.", full(&format!("cluster-{c}.my-service")))).collect();
    assert_eq!(targets, all, "{services:?}");

    let nodata = dig.ask(&name, "AAAA").expect("a resolver that answered A");
    assert_eq!((nodata.status.as_str(), nodata.answer.len()), ("NOERROR", 0), "{nodata:?}");
    assert!(nodata.authority.iter().any(|r| r.contains(" IN SOA ")), "{nodata:?}");
    let wrong = dig.ask(&full("no-service"), "A").expect("a resolver that answered A");
    assert_eq!((wrong.status.as_str(), wrong.answer.len()), ("NXDOMAIN", 0), "{wrong:?}");
    // An empty non-terminal: a resolver that minimises names must not stop there.
    let between = dig.ask(&format!("my-namespace.{ZONE}"), "A").expect("a resolver that answered A");
    assert_eq!((between.status.as_str(), between.answer.len()), ("NOERROR", 0), "{between:?}");
}

/// Seen from inside cluster-1.
fn internal() -> [&'static str; 3] {
    [CLUSTER_IP, INGRESS[1], INGRESS[2]]
}

#[test]
fn unbound_with_the_zone_as_stub() {
    let (_folder, setup) = world();
    let signpost = Signpost::start(&setup);
    let resolver = Server::start(&Kind::UnboundStub { zone: ZONE, servers: &[signpost.ports.internal] });
    resolves(&Dig::at(resolver.address), &internal());
    signpost.stop();
}

#[test]
fn coredns_with_the_zone_forwarded() {
    let (_folder, setup) = world();
    let signpost = Signpost::start(&setup);
    let resolver = Server::start(&Kind::CoreDns { zone: ZONE, server: signpost.ports.internal });
    let dig = Dig::at(resolver.address);
    resolves(&dig, &internal());
    // `forward` alone keeps the order, so the own cluster comes first, each time.
    let want: Vec<std::net::IpAddr> = internal().map(|a| a.parse().unwrap()).to_vec();
    stays("own clusterIP first, then by distance", Duration::from_secs(1), || {
        same(dig.addresses(&full("my-service"), "A")?, want.clone())
    });
    signpost.stop();
}

#[test]
fn a_delegated_zone_on_two_instances() {
    let (_folder, mut setup) = world();
    let names = ["ns1", "ns2"].into_iter().zip(DELEGATED);
    setup.name_servers = names.map(|(name, address)| (name.to_string(), address.to_string())).collect();
    let namespace = Namespace::new();
    let [first, second] = DELEGATED.map(|address| {
        let at = |port| SocketAddr::new(address.parse().unwrap(), port);
        let ports = Ports { external: at(53), internal: at(8054), admin: at(8055) };
        Signpost::spawn(&setup, ports, Some(&namespace))
    });
    for instance in [&first, &second] {
        let dig = Dig::inside(&namespace, instance.ports.external);
        wait_for("an authoritative answer", START, || {
            instance.check().unwrap_or_else(|ended| panic!("{ended}"));
            let reply = dig.ask(ZONE, "SOA")?;
            same((reply.status.as_str(), reply.flags.contains(&"aa".to_string())), ("NOERROR", true))
        });
    }
    let delegation = Delegation::start(&namespace);
    let resolver = Dig::inside(&namespace, delegation.resolver.address);
    resolves(&resolver, &INGRESS);

    // One instance is enough: the name that is asked now is in no cache.
    first.stop();
    wait_for("answers from the other instance", ANSWERS, || {
        same(resolver.address_set(&full("other-service"), "A")?, addresses(&INGRESS))
    });
    second.stop();
}
