//! Three real clusters: what changes in them shows in dig, and what breaks does not.

mod common;

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use common::cluster::{Cluster, workload};
use common::dig::{Dig, addresses};
use common::proxy::SilentProxy;
use common::shared::{Shared, Turn};
use common::signpost::{MemberSource, Setup, Signpost, ZONE};
use common::{same, stays, try_wait_for, wait_for};

/// From a change in a cluster that is well to the answer: milliseconds, but pods and slices take their time before.
const SHOWS: Duration = Duration::from_secs(30);
/// From a cluster's return to the answer that shows what changed meanwhile.
const RETURNS: Duration = Duration::from_secs(60);
/// Longer than the 35 s in which a silent watch is given up, so that its end is seen too.
const SILENCE: Duration = Duration::from_secs(45);

/// The load balancer of each cluster: globally routable, as special-purpose addresses (RFC 6890) need ingressCidrs.
const INGRESS: [&str; 3] = ["104.197.117.10", "104.197.74.77", "104.197.38.157"];

static FEDERATION: Shared<Vec<Cluster>> = Shared::new(|| Cluster::start_all(&["cluster-1", "cluster-2", "cluster-3"]));

/// The clusters, all of them well; each test uses a namespace of its own.
fn federation() -> Turn<Vec<Cluster>> {
    let clusters = FEDERATION.turn();
    clusters.iter().for_each(Cluster::repair);
    clusters
}

fn direct(cluster: &Cluster) -> MemberSource {
    MemberSource::Kubeconfig(cluster.kubeconfig())
}

/// A service with one ready pod and its load balancer's address.
fn publish(cluster: &Cluster, namespace: &str, service: &str, ingress: &str) {
    cluster.apply(&workload(namespace, service, 1));
    cluster.set_ingress(namespace, service, &[ingress]);
    // Kubernetes' own controllers have to make it; that they do is not what is tested here.
    let ready = || same(cluster.ready_endpoints(namespace, service)?.len(), 1);
    if try_wait_for(SHOWS, ready).is_err() {
        cluster.start_controllers();
        wait_for("a ready endpoint", 3 * SHOWS, ready);
    }
}

/// Waits until exactly these addresses are answered.
fn shows(dig: &Dig<'_>, name: &str, want: &[&str], deadline: Duration) {
    wait_for(name, deadline, || answers(dig, name, want));
}

/// Exactly these addresses, in any order; the complaint is the whole answer.
fn answers(dig: &Dig<'_>, name: &str, want: &[&str]) -> Result<(), String> {
    let reply = dig.ask(name, "A")?;
    let mut got = reply.addresses();
    got.sort_unstable();
    if reply.status == "NOERROR" && got == addresses(want) {
        Ok(())
    } else {
        Err(format!("want {want:?}, got {reply:?}"))
    }
}

fn status(dig: &Dig<'_>, name: &str) -> Result<(String, Vec<u16>), String> {
    dig.ask(name, "A").map(|reply| (reply.status, reply.extended_errors))
}

fn code(status: &str, extended_errors: &[u16]) -> (String, Vec<u16>) {
    (status.to_string(), extended_errors.to_vec())
}

#[test]
fn what_changes_in_a_cluster_shows() {
    let clusters = federation();
    let signpost = Signpost::start(&Setup::new(clusters.iter().map(direct).collect()));
    let (external, internal) = (Dig::at(signpost.ports.external), Dig::at(signpost.ports.internal));
    let name = format!("cart.changes.{ZONE}");
    assert_eq!(status(&external, &name), Ok(code("NXDOMAIN", &[])));

    clusters[0].apply(&workload("changes", "cart", 1));
    wait_for("a load balancer without an address: no data", SHOWS, || {
        same(status(&external, &name)?, code("NOERROR", &[]))
    });
    clusters[0].set_ingress("changes", "cart", &[INGRESS[0]]);
    shows(&external, &name, &INGRESS[..1], SHOWS);
    publish(&clusters[1], "changes", "cart", INGRESS[1]);
    shows(&external, &name, &INGRESS[..2], SHOWS);
    publish(&clusters[2], "changes", "cart", INGRESS[2]);
    shows(&external, &name, &INGRESS, SHOWS);

    let own = clusters[0].kubectl(&["-n", "changes", "get", "service", "cart", "-o", "jsonpath={.spec.clusterIP}"]);
    let ordered: Vec<IpAddr> = [&own, INGRESS[1], INGRESS[2]].map(|a| a.parse().unwrap()).to_vec();
    wait_for("the own clusterIP, then by distance", SHOWS, || same(internal.addresses(&name, "A")?, ordered.clone()));

    clusters[1].scale("changes", "cart", 0);
    shows(&external, &name, &[INGRESS[0], INGRESS[2]], SHOWS);
    clusters[0].scale("changes", "cart", 0);
    shows(&external, &name, &[INGRESS[2]], SHOWS);
    shows(&internal, &name, &[INGRESS[2]], SHOWS);
    clusters[1].scale("changes", "cart", 2);
    shows(&external, &name, &INGRESS[1..], SHOWS);
    clusters[0].scale("changes", "cart", 1);
    shows(&external, &name, &INGRESS, SHOWS);
    wait_for("the same order again", SHOWS, || same(internal.addresses(&name, "A")?, ordered.clone()));

    clusters[2].set_ingress("changes", "cart", &["104.197.38.158"]);
    shows(&external, &name, &[INGRESS[0], INGRESS[1], "104.197.38.158"], SHOWS);
    clusters[2].kubectl(&["-n", "changes", "delete", "service", "cart"]);
    shows(&external, &name, &INGRESS[..2], SHOWS);
    for cluster in &clusters[..2] {
        cluster.kubectl(&["-n", "changes", "delete", "service", "cart"]);
    }
    wait_for("a service that is deleted everywhere", SHOWS, || same(status(&external, &name)?, code("NXDOMAIN", &[])));
    signpost.stop();
}

#[test]
fn clusters_that_die_freeze_or_fall_silent_change_nothing() {
    let clusters = federation();
    let [dead, frozen, hidden] = [0, 1, 2].map(|i| &clusters[i]);
    let proxy = SilentProxy::start(hidden.address);
    let through = MemberSource::Kubeconfig(hidden.kubeconfig_through(proxy.address));
    for (cluster, ingress) in clusters.iter().zip(INGRESS) {
        publish(cluster, "faults", "cart", ingress);
    }
    let signpost = Signpost::start(&Setup::new(vec![direct(dead), direct(frozen), through]));
    let dig = Dig::at(signpost.ports.external);
    let named = |service: &str| format!("{service}.faults.{ZONE}");
    let cart = named("cart");
    shows(&dig, &cart, &INGRESS, SHOWS);

    // What is left goes on showing its changes, while fewer and fewer are left.
    dead.kill();
    publish(frozen, "faults", "after-one", INGRESS[1]);
    shows(&dig, &named("after-one"), &[INGRESS[1]], SHOWS);
    frozen.pause();
    publish(hidden, "faults", "after-two", INGRESS[2]);
    shows(&dig, &named("after-two"), &[INGRESS[2]], SHOWS);
    proxy.go_silent();
    publish(hidden, "faults", "meanwhile", INGRESS[2]);
    hidden.set_ingress("faults", "cart", &["104.197.38.158"]);

    stays("the last good answer", SILENCE, || answers(&dig, &cart, &INGRESS));
    assert_eq!(status(&dig, &named("meanwhile")), Ok(code("NXDOMAIN", &[])), "nothing passed the silent proxy");
    // One line for each kind and outage, not one for each try; and each names its cluster.
    let log = signpost.log();
    let told = log.lines().filter(|line| line.contains("cluster-1") && line.contains("WARN")).count();
    assert!((1..=2).contains(&told) && !log.contains("client error"), "{told} lines of cluster-1:\n{log}");

    proxy.forward();
    shows(&dig, &named("meanwhile"), &[INGRESS[2]], RETURNS);
    shows(&dig, &cart, &[INGRESS[0], INGRESS[1], "104.197.38.158"], RETURNS);
    frozen.resume();
    frozen.set_ingress("faults", "cart", &["104.197.74.78"]);
    shows(&dig, &cart, &[INGRESS[0], "104.197.74.78", "104.197.38.158"], RETURNS);
    dead.restart();
    dead.set_ingress("faults", "cart", &["104.197.117.11"]);
    shows(&dig, &cart, &["104.197.117.11", "104.197.74.78", "104.197.38.158"], RETURNS);
    signpost.stop();
}

#[test]
fn started_without_one_cluster_only_its_names_fail() {
    let clusters = federation();
    for (cluster, ingress) in clusters.iter().zip(INGRESS) {
        publish(cluster, "partial", "everywhere", ingress);
    }
    publish(&clusters[0], "elsewhere", "safe", INGRESS[0]);
    publish(&clusters[2], "partial", "only-missing", INGRESS[2]);
    clusters[2].kill();

    let mut setup = Setup::new(clusters.iter().map(direct).collect());
    setup.sync_wait = Duration::from_secs(3);
    setup.clusters[2].namespaces = vec!["partial".to_string()];
    let signpost = Signpost::start(&setup);
    let dig = Dig::at(signpost.ports.external);
    let ask = |name: &str| status(&dig, &format!("{name}{ZONE}")).expect("it is ready, so it answers");

    shows(&dig, &format!("everywhere.partial.{ZONE}"), &INGRESS[..2], SHOWS);
    shows(&dig, &format!("safe.elsewhere.{ZONE}"), &INGRESS[..1], SHOWS);
    for could_be_there in ["only-missing.partial.", "no-service.partial.", "_client._tcp.no-service.partial."] {
        assert_eq!(ask(could_be_there), code("SERVFAIL", &[14]), "{could_be_there}");
    }
    for (cannot_be_there, want) in [
        ("no-service.elsewhere.", "NXDOMAIN"),
        ("no-service.no-namespace.", "NXDOMAIN"),
        ("partial.", "NOERROR"),
        ("ns1.", "NOERROR"),
        ("", "NOERROR"),
    ] {
        assert_eq!(ask(cannot_be_there), code(want, &[]), "{cannot_be_there:?}");
    }

    clusters[2].restart();
    shows(&dig, &format!("only-missing.partial.{ZONE}"), &INGRESS[2..], RETURNS);
    shows(&dig, &format!("everywhere.partial.{ZONE}"), &INGRESS, RETURNS);
    assert_eq!(ask("no-service.partial."), code("NXDOMAIN", &[]));
    signpost.stop();
}

#[test]
fn the_rights_of_the_readme_are_enough_and_no_more() {
    let clusters = federation();
    let cluster = &clusters[0];
    cluster.apply(include_str!("../config/rbac.yaml"));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let kubeconfig = folder.path().join("signpost.kubeconfig");
    // The token is made by a controller, a moment later.
    let file = kubeconfig.to_str().expect("the folder's name is UTF-8");
    wait_for("a token", SHOWS, || cluster.script("config/make-kubeconfig.sh", &[cluster.name.as_str(), file]));
    let mode = fs::metadata(&kubeconfig).expect("the script wrote it").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "a token is nobody else's to read");

    publish(cluster, "rights", "cart", INGRESS[0]);
    let signpost = Signpost::start(&Setup::new(vec![MemberSource::Kubeconfig(kubeconfig)]));
    let dig = Dig::at(signpost.ports.external);
    let name = format!("cart.rights.{ZONE}");
    shows(&dig, &name, &INGRESS[..1], SHOWS);
    // By the watches, not by another list: that would be an hour away.
    cluster.set_ingress("rights", "cart", &[INGRESS[1]]);
    shows(&dig, &name, &INGRESS[1..2], SHOWS);
    publish(cluster, "rights", "basket", INGRESS[2]);
    cluster.scale("rights", "basket", 0);
    shows(&dig, &format!("basket.rights.{ZONE}"), &INGRESS[2..], SHOWS);
    let log = signpost.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "nothing is missing, so nothing is complained of:\n{log}");
    signpost.stop();

    let may = |verb: &str, what: &str, namespace: &str| {
        let account = "--as=system:serviceaccount:signpost:signpost";
        // Its exit code is 1 with "no".
        let said = cluster.try_kubectl(&["auth", "can-i", verb, what, "-n", namespace, account]);
        said.is_ok_and(|said| said.trim() == "yes")
    };
    assert!(may("list", "services", "rights") && may("watch", "endpointslices.discovery.k8s.io", "rights"));
    for (verb, what) in [("list", "secrets"), ("list", "pods"), ("get", "services"), ("list", "namespaces")] {
        assert!(!may(verb, what, "rights"), "{verb} {what}");
    }
}
