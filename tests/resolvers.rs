//! Two of the three uses: as the zone that a cluster's resolver forwards, and as a delegated zone on the Internet.
//! (The third, dig by hand, is the demo's.) What the documentation says is to be written where is read from there and used as it stands.

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
use serde_json::Value;
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

/// The first block under a heading of a document, from the first fence after a word on.
fn recipe(document: &str, heading: &str, after: &str) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).expect("it is there");
    let section =
        text.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("{document} has no {heading}")).1;
    let section = section.split("\n## ").next().expect("there is a first part");
    let (_, rest) = section.split_once(after).unwrap_or_else(|| panic!("{document}, {heading}: no {after}"));
    let (_, fenced) = rest.split_once("\n```").unwrap_or_else(|| panic!("{document}, {heading}: no block"));
    let (_, block) = fenced.split_once('\n').expect("the fence is a line");
    block.split("```").next().expect("there is a first part").to_owned()
}

const STUB: &str = "Point the DNS inside a cluster at it";
/// The address in the recipes.
const STUB_ADDRESS: &str = "10.20.0.53";

/// Signpost at the recipes' address, and a node of the cluster with a network of its own, from which that is reached.
struct Site {
    // In the order in which they end.
    signpost: Signpost,
    node: Namespace,
    hub: Namespace,
    _folder: TempDir,
}

impl Site {
    fn start() -> Site {
        let (folder, mut setup) = world();
        setup.name_servers = vec![("ns1".to_string(), STUB_ADDRESS.to_string())];
        let hub = Namespace::new();
        hub.run(&format!("ip address add {STUB_ADDRESS}/32 dev lo"));
        let node = hub.leaf(7);
        let at = |address: &str, port| SocketAddr::new(address.parse().unwrap(), port);
        let ports =
            Ports { external: at("127.0.9.11", 53), internal: at(STUB_ADDRESS, 53), admin: at("127.0.9.11", 8055) };
        let signpost = Signpost::spawn(&setup, ports, Some(&hub));
        let dig = Dig::inside(&node, ports.internal);
        wait_for("an answer on the node", START, || {
            signpost.check().unwrap_or_else(|ended| panic!("{ended}"));
            same(dig.address_set(&full("my-service"), "A")?, addresses(&internal()))
        });
        Site { signpost, node, hub, _folder: folder }
    }

    /// What the node's own clients get from a resolver at this address of it.
    fn resolves(self, kind: &Kind<'_>, address: &str) {
        let resolver = Server::start_in(&self.node, kind, address);
        resolves(&Dig::inside(&self.node, resolver.address), &internal());
        resolver.check().expect("it still runs");
        drop(resolver);
        self.signpost.stop();
    }
}

#[test]
fn coredns_as_the_readme_has_it() {
    let text = recipe("README.md", STUB, "CoreDNS (");
    Site::start().resolves(&Kind::Corefile { text: &text }, "127.0.0.1");
}

#[test]
fn unbound_as_the_readme_has_it() {
    let text = recipe("README.md", STUB, "unbound:");
    Site::start().resolves(&Kind::Unbound { text: &text }, "127.0.0.1");
}

#[test]
fn node_local_dns_cache_as_the_documentation_has_it() {
    let site = Site::start();
    // node-cache makes an interface for these.
    let local = ["169.254.20.10", "10.96.0.10"];
    for address in local {
        site.node.run(&format!("ip address add {address}/32 dev lo"));
    }
    // Beside a block for all the rest, on the same addresses, as that of the add-on is; nobody is at its upstream here.
    let rest = format!(".:53 {{\n    errors\n    bind {}\n    forward . 127.0.9.99\n}}\n", local.join(" "));
    let text = recipe("docs/stub.md", "NodeLocal DNSCache", "") + &rest;
    let over_tcp = || {
        let metrics = site.signpost.get_inside(&site.hub, "/metrics")?;
        let line = |line: &&str| line.starts_with("signpost_queries_total") && line.contains("transport=\"tcp\"");
        let counts = metrics.lines().filter(line).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok::<f64, String>(counts.sum())
    };
    let resolver = Server::start_in(&site.node, &Kind::Corefile { text: &text }, local[0]);
    for address in local {
        resolves(&Dig::inside(&site.node, SocketAddr::new(address.parse().unwrap(), 53)), &internal());
    }
    resolver.check().expect("it still runs");
    assert!(over_tcp().expect("metrics") > 0.0, "force_tcp");
    drop(resolver);
    site.signpost.stop();
}

#[test]
fn kube_dns_with_stub_domains_as_the_documentation_has_it() {
    let map: Value = serde_saphyr::from_str(&recipe("docs/stub.md", "kube-dns", "")).expect("YAML");
    assert_eq!((&map["kind"], &map["metadata"]["name"]), (&"ConfigMap".into(), &"kube-dns".into()));
    let domains = map["data"]["stubDomains"].as_str().expect("stubDomains");
    let domains: Value = serde_json::from_str(domains).expect("kube-dns reads it as JSON");
    // What the Deployment of kube-dns gives to dnsmasq, with the domain cluster.local.
    let mut arguments = [
        "-k",
        "--cache-size=1000",
        "--no-negcache",
        "--dns-loop-detect",
        "--log-facility=-",
        "--server=/cluster.local/127.0.0.1#10053",
        "--server=/in-addr.arpa/127.0.0.1#10053",
        "--server=/ip6.arpa/127.0.0.1#10053",
    ]
    .map(String::from)
    .to_vec();
    // What its dnsmasq-nanny adds.
    for (domain, servers) in domains.as_object().expect("domains") {
        for server in servers.as_array().expect("servers") {
            let server = server.as_str().expect("an address").replace(':', "#");
            arguments.extend(["--server".to_owned(), format!("/{domain}/{server}")]);
        }
    }
    assert!(arguments.contains(&format!("/{ZONE}/{STUB_ADDRESS}")), "{arguments:?}");
    // Its container has no configuration of its own; here there is one user, and nobody to ask for all other names.
    arguments
        .extend(["--conf-file=/dev/null", "--pid-file=", "--user=root", "--group=", "--no-resolv"].map(String::from));
    Site::start().resolves(&Kind::Dnsmasq { arguments: &arguments }, "127.0.0.1");
}

#[test]
fn a_delegation_as_the_readme_has_it() {
    let records = recipe("README.md", "Delegate a zone to it", "");
    let glue: Vec<(String, String)> = records
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, "A", address] = words[..] else { return None };
            Some((name.split('.').next()?.to_owned(), address.to_owned()))
        })
        .collect();
    assert_eq!(glue.len(), 2, "{records}");
    let (_folder, mut setup) = world();
    setup.name_servers = glue.clone();
    let namespace = Namespace::new();
    let instances: Vec<Signpost> = glue
        .iter()
        .map(|(_, address)| {
            namespace.run(&format!("ip address add {address}/32 dev lo"));
            let at = |port| SocketAddr::new(address.parse().unwrap(), port);
            Signpost::spawn(&setup, Ports { external: at(53), internal: at(8054), admin: at(8055) }, Some(&namespace))
        })
        .collect();
    for instance in &instances {
        let dig = Dig::inside(&namespace, instance.ports.external);
        wait_for("an authoritative answer", START, || {
            instance.check().unwrap_or_else(|ended| panic!("{ended}"));
            same(dig.ask(ZONE, "SOA")?.status, "NOERROR".to_owned())
        });
    }
    let delegation = Delegation::with(&namespace, &records);
    resolves(&Dig::inside(&namespace, delegation.resolver.address), &INGRESS);
    instances.into_iter().for_each(Signpost::stop);
}
