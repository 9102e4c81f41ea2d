//! Three real clusters: what changes in them shows in dig, and what breaks does not.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use common::cluster::{Cluster, User, built, workload};
use common::dig::{Dig, addresses};
use common::proxy::SilentProxy;
use common::shared::{Shared, Turn};
use common::signpost::{MemberSource, Setup, Signpost, ZONE, http_get, metric};
use common::{same, stays, try_wait_for, wait_for};

/// From a change in a cluster that is well to the answer: milliseconds, but pods and slices take their time before.
const SHOWS: Duration = Duration::from_secs(30);
/// From a cluster's return to the answer that shows what changed meanwhile.
const RETURNS: Duration = Duration::from_secs(60);
/// Longer than the 35 s in which a silent watch is given up, so that its end is seen too, and than the 60 s after which a cluster
/// counts as silent.
const SILENCE: Duration = Duration::from_secs(65);

/// The load balancer of each cluster: globally routable, as special-purpose addresses (RFC 6890) need ingressCidrs.
const INGRESS: [&str; 3] = ["104.197.117.10", "104.197.74.77", "104.197.38.157"];

static FEDERATION: Shared<Vec<Cluster>> = Shared::new(|| Cluster::start_all(&["cluster-1", "cluster-2", "cluster-3"]));

/// From the installation of a kind that was missing to the first answer that shows its objects.
const FOUND: Duration = Duration::from_secs(90);

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

/// From a command in any cluster to the answers of all instances (HEALTH.md says nothing of it; people wait for it). What a loaded
/// machine takes is printed.
const STEERED: Duration = Duration::from_secs(20);

#[test]
fn what_operators_say_holds_at_all_instances() {
    let clusters = federation();
    for (cluster, ingress) in clusters.iter().zip(INGRESS) {
        publish(cluster, "steered", "cart", ingress);
    }
    let setup = || Setup {
        sections: "directives: {namespace: signpost}\n".to_owned(),
        ..Setup::new(clusters.iter().map(direct).collect())
    };
    let mut instances = [Signpost::start(&setup()), Signpost::start(&setup()), Signpost::start(&setup())];
    let name = format!("cart.steered.{ZONE}");
    let all = |instances: &[Signpost], what: &str, want: &[&str]| {
        let begun = std::time::Instant::now();
        for instance in instances {
            shows(&Dig::at(instance.ports.external), &name, want, STEERED);
        }
        println!("{what}: at all instances after {:?}", begun.elapsed());
    };
    all(&instances, "as it is", &INGRESS);
    // An operator with the role that config/rbac/rbac.yaml has for them, and no other.
    let binding =
        ["-n", "signpost", "create", "rolebinding", "operators", "--role=signpost-operator", "--user=stranger"];
    for cluster in clusters.iter() {
        cluster.apply(include_str!("../config/rbac/rbac.yaml"));
        cluster.kubectl(&binding);
    }
    let say = |instances: &[Signpost], words: &[&str]| {
        let number =
            words[1].strip_prefix("cluster-").and_then(|rest| rest[..1].parse::<usize>().ok()).expect("a cluster");
        let kubeconfig = clusters[number - 1].kubeconfig_of(User::Stranger).display().to_string();
        let words = [words, &["--kubeconfig", &kubeconfig]].concat();
        instances[0].command(&words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    };
    let said = say(&instances, &["drain", "cluster-2/steered/cart", "--until", "1h", "--reason", "a new rack"]);
    assert!(said.contains("drain from 2") && said.contains("signpost undrain cluster-2/steered/cart`"), "{said}");
    all(&instances, "drained", &[INGRESS[0], INGRESS[2]]);
    // It survives a restart, and another one takes its place.
    let old = std::mem::replace(&mut instances[1], Signpost::start(&setup()));
    old.stop();
    all(&instances, "after a restart", &[INGRESS[0], INGRESS[2]]);
    say(&instances, &["force-up", "cluster-2/steered/cart"]);
    all(&instances, "forced up instead", &INGRESS);
    say(&instances, &["force-down", "cluster-1"]);
    all(&instances, "forced down", &INGRESS[1..]);
    say(&instances, &["undrain", "cluster-1"]);
    say(&instances, &["undrain", "cluster-2/steered/cart"]);
    all(&instances, "as it was", &INGRESS);
    // By the clock: it ends by itself.
    say(&instances, &["drain", "cluster-3", "--until", "8s"]);
    all(&instances, "drained for 8 s", &INGRESS[..2]);
    all(&instances, "over", &INGRESS);
    // Step by step: from all answers to none.
    let begun = std::time::Instant::now();
    say(&instances, &["drain", "cluster-3/steered/cart", "--over", "10s"]);
    all(&instances, "shifted", &INGRESS[..2]);
    assert!(begun.elapsed() > Duration::from_secs(9), "it took its time: {:?}", begun.elapsed());
    say(&instances, &["undrain", "cluster-3/steered/cart"]);
    // The breaker of the instances in a cluster is released, and every instance shows it.
    say(&instances, &["release", "cluster-1", "--until", "1h"]);
    let released = "signpost_directives{action=\"release\",cluster=\"cluster-1\",phase=\"active\"}";
    for instance in &instances {
        wait_for("released", STEERED, || {
            let metrics = http_get(instance.ports.admin, "/metrics").map_err(|error| error.to_string())?;
            same(metric(&metrics, released), Some(1.0))
        });
    }
    say(&instances, &["undrain", "cluster-1", "--release"]);
    all(&instances, "as it was", &INGRESS);
    let stranger = clusters[0].kubeconfig_of(User::Stranger).display().to_string();
    let refused =
        instances[0].command(&["undrain", "cluster-1", "--kubeconfig", &stranger]).expect_err("nothing is there");
    assert!(refused.contains("no directive to take back"), "{refused}");
    for cluster in clusters.iter() {
        cluster.kubectl(&["-n", "signpost", "delete", "rolebinding", "operators"]);
    }
    // The rights of the configuration are those of whoever only reads.
    let refused = instances[0].command(&["drain", "cluster-1"]).expect_err("it may not");
    assert!(refused.contains("403") && refused.contains("signpost-operator"), "{refused}");
    // By hand, and misspelt: it is told, and nothing is done.
    let wrong = "apiVersion: v1
kind: ConfigMap
metadata: {name: directive, namespace: signpost, labels: {signpost.dev/directive: ''}}
data: {action: drian}
";
    clusters[0].apply(wrong);
    wait_for("a warning", SHOWS, || match instances[0].log() {
        log if log.contains("data.action: \"drian\" is not drain, force-up, force-down or release") => Ok(()),
        log => Err(log),
    });
    all(&instances, "in spite of it", &INGRESS);
    clusters[0].kubectl(&["-n", "signpost", "delete", "configmap", "directive"]);
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
    let of_first = || log.lines().filter(|line| line.contains("cluster-1") && line.contains("WARN"));
    let (silent, told): (Vec<&str>, Vec<&str>) = of_first().partition(|line| line.contains("says nothing any more"));
    assert_eq!(silent.len(), 1, "{log}");
    let told = told.len();
    assert!((1..=2).contains(&told) && !log.contains("client error"), "{told} lines of cluster-1:\n{log}");

    let silent = |wanted: [f64; 3]| {
        wait_for("which clusters are silent", RETURNS, || {
            let metrics = http_get(signpost.ports.admin, "/metrics").map_err(|error| error.to_string())?;
            let of = |n: usize| metric(&metrics, &format!("signpost_cluster_silent{{cluster=\"cluster-{}\"}}", n + 1));
            same([0, 1, 2].map(of), wanted.map(Some))
        });
    };
    silent([1.0; 3]);
    proxy.forward();
    shows(&dig, &named("meanwhile"), &[INGRESS[2]], RETURNS);
    shows(&dig, &cart, &[INGRESS[0], INGRESS[1], "104.197.38.158"], RETURNS);
    // What is heard comes before what is not, and all of it stays in the answer.
    silent([1.0, 1.0, 0.0]);
    for _ in 0..10 {
        let first = dig.ask(&cart, "A").map(|reply| reply.addresses().first().copied());
        assert_eq!(first, Ok(Some(addresses(&["104.197.38.158"])[0])));
    }
    let explained = signpost.command(&["explain", &cart]).expect("an explanation");
    assert!(explained.contains("ago; silent, so that others as near come first"), "{explained}");
    assert!(explained.contains("says nothing any more, so behind those of its band that are heard"), "{explained}");
    let shown = signpost.command(&["status"]).expect("a status");
    let line = shown.lines().find(|line| line.starts_with("cluster-2 ")).expect("a line");
    assert!(line.contains("synced, silent"), "{shown}");
    frozen.resume();
    silent([1.0, 0.0, 0.0]);
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
    cluster.apply(include_str!("../config/rbac/rbac.yaml"));
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
    // Loads that nobody can publish yet are no reason to complain.
    cluster.apply(include_str!("../config/crds/serviceloads.yaml"));
    cluster.apply(include_str!("../config/crds/clusterloads.yaml"));
    let log = signpost.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "nothing is missing, so nothing is complained of:\n{log}");
    signpost.stop();

    // For a moment the API server refuses to list a new kind, and that is complained of.
    for kind in ["serviceloads", "clusterloads"] {
        let watch = format!("/apis/signpost.dev/v1alpha1/{kind}?watch=true&timeoutSeconds=1&resourceVersion=0");
        wait_for("a new kind's storage", SHOWS, || cluster.try_kubectl(&["get", "--raw", &watch]));
    }

    // An instance that votes is one of another account, and of the two only that may write, in its namespace alone.
    let voter = folder.path().join("voter.kubeconfig");
    let file = voter.to_str().expect("the folder's name is UTF-8");
    let arguments = [cluster.name.as_str(), file, "signpost-voter"];
    wait_for("a token", SHOWS, || cluster.script("config/make-kubeconfig.sh", &arguments));
    let mut setup = Setup::new(vec![MemberSource::Kubeconfig(voter)]);
    setup.sections =
        "health: {quorum: majority, cluster: cluster-1, replica: one, allowSingleVoter: true}\n".to_owned();
    let signpost = Signpost::start(&setup);
    wait_for("its own word, read back", SHOWS, || {
        let metrics = http_get(signpost.ports.admin, "/metrics").map_err(|e| e.to_string())?;
        if metrics.contains("\nsignpost_health_own_vote 1\n") { Ok(()) } else { Err(metrics) }
    });
    let log = signpost.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "nothing is missing, so nothing is complained of:\n{log}");
    signpost.stop();

    let may_as = |account: &str, verb: &str, what: &str, namespace: &str| {
        let account = format!("--as=system:serviceaccount:signpost:{account}");
        // Its exit code is 1 with "no".
        let said = cluster.try_kubectl(&["auth", "can-i", verb, what, "-n", namespace, &account]);
        said.is_ok_and(|said| said.trim() == "yes")
    };
    let may = |verb: &str, what: &str, namespace: &str| may_as("signpost", verb, what, namespace);
    for what in ["configmaps", "leases.coordination.k8s.io"] {
        assert!(may("list", what, "signpost") && may_as("signpost-voter", "create", what, "signpost"));
        assert!(!may("create", what, "signpost") && !may("patch", what, "signpost") && !may("list", what, "rights"));
        assert!(
            !may_as("signpost-voter", "create", what, "rights")
                && !may_as("signpost-voter", "delete", what, "signpost")
        );
    }
    assert!(may("list", "services", "rights") && may("watch", "endpointslices.discovery.k8s.io", "rights"));
    assert!(may("list", "serviceloads.signpost.dev", "rights") && may("watch", "clusterloads.signpost.dev", "rights"));
    for (verb, what) in [("list", "secrets"), ("list", "pods"), ("get", "services"), ("list", "namespaces")] {
        assert!(!may(verb, what, "rights"), "{verb} {what}");
    }
}

#[test]
fn load_is_published_by_objects() {
    let clusters = federation();
    let cluster = &clusters[0];
    let kinds = ["config/crds/serviceloads.yaml", "config/crds/clusterloads.yaml"];
    let crds = [include_str!("../config/crds/serviceloads.yaml"), include_str!("../config/crds/clusterloads.yaml")];
    for crd in kinds {
        // Of another test; there may be none.
        let _ = cluster.try_kubectl(&["delete", "--ignore-not-found", "-f", crd]);
    }
    publish(cluster, "load", "cart", INGRESS[0]);
    publish(&clusters[1], "load", "cart", INGRESS[1]);
    let setup = Setup::new(vec![direct(cluster), direct(&clusters[1])]);
    let signpost = Signpost::start(&setup);
    let metric = |line: &str| {
        let page = http_get(signpost.ports.admin, "/metrics").map_err(|error| error.to_string())?;
        if page.lines().any(|found| found == line) { Ok(()) } else { Err(format!("{line} is not in {page}")) }
    };
    let missing = |n: u8| metric(&format!("signpost_kind_missing{{cluster=\"cluster-1\",kind=\"serviceload\"}} {n}"));
    wait_for("the kind is missing", SHOWS, || missing(1));
    for crd in crds {
        cluster.apply(crd);
    }
    let load = |part: &str| {
        format!(
            "apiVersion: signpost.dev/v1alpha1\nkind: ServiceLoad\nmetadata: {{name: cart, namespace: load}}\n\
             spec: {{load: {part}, validForSeconds: 600}}\n"
        )
    };
    wait_for("the kind is there", SHOWS, || cluster.try_kubectl(&["get", "serviceloads", "-A"]).map(drop));
    cluster.apply(&load("0.95"));
    wait_for("the kind is found", FOUND, || missing(0));
    wait_for("it sheds", SHOWS, || metric("signpost_shares_shedding 1"));
    let shown = cluster.kubectl(&["get", "svcload", "-n", "load"]);
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "LOAD", "VALID", "MEASURED", "AGE"], "{shown}");
    assert_eq!(lines[1][..3], ["cart", "0.95", "600"], "{shown}");

    // By the watch.
    let all = "apiVersion: signpost.dev/v1alpha1\nkind: ClusterLoad\nmetadata: {name: cluster}\nspec: {load: 0.9}\n";
    cluster.apply(all);
    wait_for("the cluster sheds too", FOUND, || metric("signpost_shares_shedding 2"));
    for (bad, field) in [(load("7"), "spec.load"), (load("0.5").replace("600", "1"), "validForSeconds")] {
        let refused = cluster.try_apply(&bad).expect_err("the schema forbids it");
        assert!(refused.contains(field), "{refused}");
    }
    let refused = cluster.try_apply(&all.replace("cluster}", "other}")).expect_err("there is one");
    assert!(refused.contains("the only ClusterLoad is named cluster"), "{refused}");
    the_recipe(cluster);
    // A quiet API server sometimes ends a watch without a bookmark; that is not what is asked here.
    let log = signpost.log();
    let warned = log.lines().find(|line| line.contains("WARN") && !line.contains("silent"));
    assert_eq!(warned, None, "{log}");
    signpost.stop();
    // What is said of this cluster's load is nothing for the tests that come after.
    for crd in kinds {
        cluster.kubectl(&["delete", "-f", crd]);
    }
}

/// `config/publish-load.sh`, from a HorizontalPodAutoscaler and from Prometheus.
fn the_recipe(cluster: &Cluster) {
    cluster.apply(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: cart, namespace: load}\nspec:\n\
         \x20 scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: cart}\n\
         \x20 maxReplicas: 10\n\
         \x20 metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]\n",
    );
    let publish = |rest: &[&str]| {
        let arguments = [&[cluster.name.as_str(), "load", "cart"], rest].concat();
        cluster.script("config/publish-load.sh", &arguments)
    };
    let load = || cluster.kubectl(&["get", "serviceload", "cart", "-n", "load", "-o", "jsonpath={.spec.load}"]);
    let refused = publish(&["hpa"]).expect_err("nothing was measured yet");
    assert!(refused.contains("hpa load/cart has no utilization yet; nothing is published"), "{refused}");
    let measured = |utilization: u32| {
        let current = format!("{{\"averageUtilization\":{utilization},\"averageValue\":\"1\"}}");
        let status = format!(
            "{{\"status\":{{\"currentReplicas\":6,\"desiredReplicas\":6,\"conditions\":[],\"currentMetrics\":\
             [{{\"type\":\"Resource\",\"resource\":{{\"name\":\"cpu\",\"current\":{current}}}}}]}}}}"
        );
        let patch = ["patch", "hpa", "cart", "-n", "load", "--subresource=status", "--type=merge", "-p", &status];
        cluster.kubectl(&patch);
    };
    // 6 of 10 pods at 40 of 80 percent.
    for (utilization, expected) in [(40, "0.3"), (200, "1")] {
        measured(utilization);
        publish(&["hpa"]).expect("it is measured");
        assert_eq!(load(), expected);
    }
    for (body, expected) in [
        (
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1435.7,"0.425"]}]}}"#,
            Some("0.425"),
        ),
        (
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1435,"1.7"]}]}}"#,
            Some("1"),
        ),
        (r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#, None),
        (r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1435,"NaN"]}]}}"#, None),
    ] {
        let server = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
        let url = format!("http://{}", server.local_addr().expect("it is bound"));
        let prometheus = thread::spawn(move || {
            let (mut stream, _) = server.accept().expect("the script asks");
            let mut head = [0; 4096];
            let length = stream.read(&mut head).expect("a request");
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).expect("the script reads it");
            String::from_utf8_lossy(&head[..length]).into_owned()
        });
        let said = publish(&["prometheus", &url, "max(rate(x[1m])) / 100"]);
        let asked = prometheus.join().expect("it answers");
        assert!(asked.starts_with("GET /api/v1/query?query=max%28rate%28x%5b1m%5d%29%29"), "{asked}");
        match expected {
            Some(expected) => {
                said.expect(body);
                assert_eq!(load(), expected, "{body}");
            }
            None => assert!(said.expect_err(body).contains("no single number"), "{body}"),
        }
    }
    let measured = cluster.kubectl(&["get", "serviceload", "cart", "-n", "load", "-o", "jsonpath={.spec.measuredAt}"]);
    assert!(measured.ends_with('Z'), "{measured}");
}

/// With the CRDs of the module sigs.k8s.io/mcs-api, which come when all is running.
#[test]
fn service_exports_and_imports_of_the_mcs_api() {
    let clusters = federation();
    let crds = ["serviceexports", "serviceimports"].map(|plural| {
        let path = built().join(format!("mcs-crds/multicluster.x-k8s.io_{plural}.yaml"));
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}: run `make testbed`", path.display()))
    });
    for (cluster, ingress) in clusters[..2].iter().zip(INGRESS) {
        publish(cluster, "mcs", "cart", ingress);
    }
    let setup = Setup { mcs: true, ..Setup::new(clusters[..2].iter().map(direct).collect()) };
    let signpost = Signpost::start(&setup);
    let (external, internal) = (Dig::at(signpost.ports.external), Dig::at(signpost.ports.internal));
    // What the 2015 design asks for goes on meanwhile.
    shows(&external, &format!("cart.mcs.{ZONE}"), &INGRESS[..2], SHOWS);
    let name = "cart.mcs.svc.clusterset.local";
    assert_eq!(status(&internal, name), Ok(code("NXDOMAIN", &[])));
    let page = || http_get(signpost.ports.admin, "/metrics").expect("the admin address answers");
    let missing = |n: u8| {
        let line = |kind| format!("signpost_kind_missing{{cluster=\"cluster-1\",kind=\"{kind}\"}} {n}");
        let page = page();
        let found = ["serviceexport", "serviceimport"].map(line).iter().all(|line| page.contains(line.as_str()));
        if found { Ok(()) } else { Err(page) }
    };
    wait_for("both kinds are missing", SHOWS, || missing(1));
    let warnings = |of: &str| signpost.log().lines().filter(|l| l.contains("WARN") && l.contains(of)).count();
    let warned = || same([warnings("serviceexports"), warnings("serviceimports")], [2, 2]);
    wait_for("a warning for each cluster and kind", SHOWS, warned);

    for cluster in &clusters[..2] {
        crds.iter().for_each(|crd| cluster.apply(crd));
    }
    // One in each version, of which each cluster has both.
    for (cluster, version) in clusters.iter().zip(["v1alpha1", "v1beta1"]) {
        let export = format!(
            "apiVersion: multicluster.x-k8s.io/{version}\nkind: ServiceExport\nmetadata: {{name: cart, namespace: mcs}}\n"
        );
        wait_for("the kind is there", SHOWS, || cluster.try_apply(&export));
    }
    let own = clusters[0].kubectl(&["-n", "mcs", "get", "service", "cart", "-o", "jsonpath={.spec.clusterIP}"]);
    let ordered: Vec<IpAddr> = [&own, INGRESS[1]].map(|a| a.parse().unwrap()).to_vec();
    wait_for("both exports", FOUND, || same(internal.addresses(name, "A")?, ordered.clone()));
    // The answers need the exports alone.
    wait_for("both kinds", FOUND, || missing(0));
    assert_eq!(status(&external, name), Ok(code("REFUSED", &[18])));
    let data = |name: &str, kind: &str| internal.ask(name, kind).map(|reply| reply.data());
    assert_eq!(data("dns-version.clusterset.local", "TXT"), Ok(vec!["\"1.0.0\"".to_owned()]));
    assert_eq!(data(&format!("_client._tcp.{name}"), "SRV"), Ok(vec![format!("0 100 2379 {name}.")]));
    assert_eq!(status(&internal, &format!("cluster-1.{name}")), Ok(code("NXDOMAIN", &[])));

    let import = "apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceImport\n\
                  metadata: {name: cart, namespace: mcs}\n\
                  spec: {type: ClusterSetIP, ips: [10.200.0.7], ports: [{name: client, port: 2379, protocol: TCP}]}\n";
    clusters[0].apply(import);
    shows(&internal, name, &["10.200.0.7"], SHOWS);
    clusters[0].kubectl(&["-n", "mcs", "delete", "serviceimport", "cart"]);
    shows(&internal, name, &[&own, INGRESS[1]], SHOWS);
    for cluster in &clusters[..2] {
        cluster.kubectl(&["-n", "mcs", "delete", "serviceexport", "cart"]);
    }
    wait_for("nothing is exported", SHOWS, || same(status(&internal, name)?, code("NXDOMAIN", &[])));
    shows(&external, &format!("cart.mcs.{ZONE}"), &INGRESS[..2], SHOWS);
    for (cluster, kind) in clusters[..2].iter().flat_map(|c| ["serviceexports", "serviceimports"].map(|kind| (c, kind)))
    {
        // Other tests, and other runs of this one, begin without them.
        cluster.kubectl(&["delete", "crd", &format!("{kind}.multicluster.x-k8s.io")]);
    }
    signpost.stop();
}

#[test]
fn clusters_are_where_their_nodes_are() {
    let clusters = federation();
    for (cluster, ingress) in clusters.iter().zip(INGRESS) {
        publish(cluster, "nodes", "cart", ingress);
    }
    let label = |cluster: &Cluster, region: &str, zone: &str| {
        let labels = [format!("topology.kubernetes.io/region={region}"), format!("topology.kubernetes.io/zone={zone}")];
        cluster.kubectl(&["label", "--overwrite", "nodes", "--all", &labels[0], &labels[1]]);
    };
    for (cluster, region) in clusters.iter().zip(["us-east-1", "ap-northeast-1", "us-east-1"]) {
        label(cluster, region, "a");
    }
    let mut setup = Setup::new(clusters.iter().map(direct).collect());
    for member in &mut setup.clusters {
        member.region = String::new();
    }
    let signpost = Signpost::start(&setup);
    let internal = Dig::at(signpost.ports.internal);
    let name = format!("cart.nodes.{ZONE}");
    let own = clusters[0].kubectl(&["-n", "nodes", "get", "service", "cart", "-o", "jsonpath={.spec.clusterIP}"]);
    let ordered: Vec<IpAddr> = [&own, INGRESS[2], INGRESS[1]].map(|a| a.parse().unwrap()).to_vec();
    // Often enough that chance alone would not do it.
    wait_for("the same region first", SHOWS, || {
        (0..20).try_for_each(|_| same(internal.addresses(&name, "A")?, ordered.clone()))
    });
    let log = signpost.log();
    assert!(log.contains("placed by its nodes") && log.contains("ap-northeast-1"), "{log}");
    let page = http_get(signpost.ports.admin, "/metrics").expect("the admin address answers");
    assert!(page.contains("signpost_reload_total{result=\"applied\"} 0"), "nobody asked for a reload: {page}");
    signpost.stop();
}
