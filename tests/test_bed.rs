//! The test bed itself, without Signpost: a failure here is no failure of Signpost's.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use common::cluster::{Cluster, User, workload};
use common::dig::{Dig, addresses};
use common::namespace::Namespace;
use common::process::{Process, Run};
use common::proxy::SilentProxy;
use common::resolvers::{DELEGATED, Delegation, Kind, Server};
use common::signpost::ZONE;
use common::{same, wait_for};

/// For what a cluster does by itself in well under a second when the machine is idle.
const SETTLES: Duration = Duration::from_secs(60);

#[test]
fn a_cluster_has_real_endpoint_slices_and_survives_its_api_server() {
    let cluster = Cluster::start("alpha");
    cluster.apply(&workload("shop", "cart", 2));
    let ready = |want: usize| {
        wait_for("ready endpoints", SETTLES, || same(cluster.ready_endpoints("shop", "cart")?.len(), want));
    };
    ready(2);
    cluster.scale("shop", "cart", 0);
    ready(0);
    cluster.scale("shop", "cart", 1);
    ready(1);

    cluster.set_ingress("shop", "cart", &["192.0.2.1", "2001:db8::1"]);
    let ingress = ["-n", "shop", "get", "service", "cart", "-o", "jsonpath={.status.loadBalancer.ingress[*].ip}"];
    assert_eq!(cluster.kubectl(&ingress), "192.0.2.1 2001:db8::1");

    let reads = |user| cluster.kubectl_as(user, &["get", "services", "--all-namespaces"]).is_ok();
    assert!(reads(User::Reader) && !reads(User::Stranger));

    cluster.pause();
    cluster.try_kubectl(&["get", "--raw=/readyz", "--request-timeout=1s"]).expect_err("it is stopped");
    cluster.resume();
    wait_for("an answer after SIGCONT", SETTLES, || cluster.try_kubectl(&["get", "--raw=/readyz"]));

    cluster.kill();
    cluster.try_kubectl(&["get", "--raw=/readyz"]).expect_err("it is dead");
    cluster.restart();
    assert_eq!(cluster.kubectl(&ingress), "192.0.2.1 2001:db8::1");
    // The controllers have found it again too.
    cluster.scale("shop", "cart", 3);
    ready(3);
}

#[test]
fn a_silent_proxy_holds_everything_back_and_loses_nothing() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = SilentProxy::start(upstream.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = upstream.accept().unwrap();
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() {
            stream.write_all(&byte).unwrap();
        }
    });
    let mut client = TcpStream::connect(proxy.address).unwrap();
    let mut byte = [0];
    client.write_all(b"a").unwrap();
    client.read_exact(&mut byte).unwrap();

    proxy.go_silent();
    client.write_all(b"b").unwrap();
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    client.read_exact(&mut byte).expect_err("nothing passes, and the connection stays open");
    client.set_read_timeout(Some(SETTLES)).unwrap();
    proxy.forward();
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"b");

    drop(proxy);
    assert_eq!(client.read(&mut byte).unwrap_or(0), 0, "connections end with the proxy");
}

/// The federation's zone as a plain name server would have it.
fn stand_in() -> String {
    format!(
        "$ORIGIN {ZONE}.\n$TTL 180\n@ SOA ns1 host 1 3600 600 86400 5\n@ NS ns1\n@ NS ns2\nns1 A {}\nns2 A {}\n\
         s.n A 192.0.2.1\ns.n A 192.0.2.2\nt.n A 192.0.2.3\n",
        DELEGATED[0], DELEGATED[1]
    )
}

fn resolves(dig: &Dig<'_>) {
    let name = format!("s.n.{ZONE}");
    wait_for("both addresses", SETTLES, || same(dig.address_set(&name, "A")?, addresses(&["192.0.2.1", "192.0.2.2"])));
    assert_eq!(dig.ask(&format!("x.n.{ZONE}"), "A").unwrap().status, "NXDOMAIN");
}

#[test]
fn resolvers_ask_the_server_that_the_zone_is_stubbed_to() {
    let text = stand_in();
    let server = Server::start(&Kind::Nsd { zone: ZONE, text: &text });
    for kind in [
        Kind::UnboundStub { zone: ZONE, servers: &[server.address] },
        Kind::CoreDns { zone: ZONE, server: server.address },
    ] {
        resolves(&Dig::at(Server::start(&kind).address));
    }
}

#[test]
fn a_resolver_finds_the_delegated_servers_from_the_root() {
    let text = stand_in();
    let namespace = Namespace::new();
    let start = |address: &str| Server::start_in(&namespace, &Kind::Knot { zone: ZONE, text: &text }, address);
    let [one, two] = DELEGATED.map(start);
    let delegation = Delegation::start(&namespace);
    let dig = Dig::inside(&namespace, delegation.resolver.address);
    resolves(&dig);
    drop(one);
    // In no cache yet, so somebody has to be asked, and only the second server is left.
    let other = format!("t.n.{ZONE}");
    wait_for("the other server's address", SETTLES, || same(dig.address_set(&other, "A")?, addresses(&["192.0.2.3"])));
    two.check().expect("it was not touched");
}

#[test]
fn a_process_and_what_it_started_end_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(Run {
        name: "parent",
        program: std::path::Path::new("sh"),
        arguments: ["-c", "sleep 1000 & echo $! >child; wait"].map(String::from).to_vec(),
        directory: directory.path(),
        namespace: None,
    });
    let child = wait_for("the child's number", SETTLES, || {
        let text = std::fs::read_to_string(directory.path().join("child")).map_err(|e| e.to_string())?;
        text.trim().parse::<u32>().map_err(|e| e.to_string())
    });
    drop(process);
    wait_for("the child's end", SETTLES, || {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        // Z: dead, and nobody has looked at it yet.
        if stat.is_empty() || stat.contains(") Z ") { Ok(()) } else { Err(stat) }
    });
}
