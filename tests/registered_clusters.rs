//! Clusters that are registered by Secrets, on real API servers: they come and go while queries are answered.

mod common;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::cluster::{Cluster, Controllers, User};
use common::dig::{Dig, addresses};
use common::signpost::{MemberSource, Setup, Signpost, ZONE, http_get, metric};
use common::{free_port, same, stays, wait_for};
use serde_json::json;

/// From a change to the answers that show it, on a machine that does other things too.
const SHOWS: Duration = Duration::from_secs(90);
const NAMESPACE: &str = "signpost-clusters";

/// The load balancers of all clusters, globally routable.
const HOME: &str = "104.197.117.10";
const OSLO: &str = "104.197.74.77";
const ROME: &str = "104.197.38.157";

/// A Service with one ready endpoint and its load balancer's address. There are no controllers.
fn publish(cluster: &Cluster, name: &str, ingress: &str) {
    cluster.apply(&format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{name: shop}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{type: LoadBalancer, allocateLoadBalancerNodePorts: false, ports: [{{name: web, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [10.1.0.1], conditions: {{ready: true}}}}]
ports: [{{name: web, port: 80, protocol: TCP}}]
"
    ));
    cluster.set_ingress("shop", name, &[ingress]);
}

/// Writes a Secret as `kubectl apply` would.
fn register(home: &Cluster, name: &str, kubeconfig: &str) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"signpost.dev/cluster": ""}},
        "stringData": {"kubeconfig": kubeconfig},
    });
    home.apply(&secret.to_string());
}

fn unregister(home: &Cluster, name: &str) {
    home.kubectl(&["-n", NAMESPACE, "delete", "secret", name]);
}

fn named(service: &str) -> String {
    format!("{service}.shop.{ZONE}")
}

fn answers(signpost: &Signpost, service: &str, want: &[&str]) -> Result<(), String> {
    let reply = Dig::at(signpost.ports.external).ask(&named(service), "A")?;
    let mut got = reply.addresses();
    got.sort_unstable();
    let status = if want.is_empty() { "NXDOMAIN" } else { "NOERROR" };
    match reply.status == status && got == addresses(want) {
        true => Ok(()),
        false => Err(format!("want {want:?}, got {reply:?}")),
    }
}

#[track_caller]
fn shows(signpost: &Signpost, service: &str, want: &[&str]) {
    wait_for(&format!("{service} at {want:?}"), SHOWS, || answers(signpost, service, want));
}

#[track_caller]
fn measures(signpost: &Signpost, name: &str, want: f64) {
    wait_for(&format!("{name} {want}"), SHOWS, || {
        let metrics = http_get(signpost.ports.admin, "/metrics").map_err(|error| error.to_string())?;
        same(metric(&metrics, name), Some(want))
    });
}

/// All that was logged, not the end of it alone.
fn log(signpost: &Signpost) -> String {
    fs::read_to_string(signpost.log_file()).expect("the log")
}

/// How often the Services of a cluster were listed from nothing.
fn lists(signpost: &Signpost, cluster: &str) -> usize {
    let is_list = |line: &&str| line.contains("listed") && line.contains("services") && line.contains(cluster);
    log(signpost).lines().filter(is_list).count()
}

fn setup(home: &Cluster, state: &Path) -> Setup {
    let kubeconfig = home.kubeconfig();
    Setup {
        sync_wait: Duration::from_secs(10),
        sections: format!(
            "clusterSecrets: {{namespace: {NAMESPACE}, kubeconfig: {{file: '{}'}}, localServers: true, namespaces: [shop]}}\n\
             state: {{directory: '{}'}}\n\
             directives: {{namespace: signpost}}\n",
            kubeconfig.display(),
            state.display()
        ),
        ..Setup::new(vec![MemberSource::Kubeconfig(kubeconfig)])
    }
}

#[test]
fn clusters_come_and_go_while_queries_are_answered() {
    let start = |name| thread::spawn(move || Cluster::start_with(name, Controllers::None));
    let [home, oslo, rome] =
        ["home", "oslo", "rome"].map(start).map(|started| started.join().expect("the reason is in the panic above"));
    for (cluster, ingress) in [(&home, HOME), (&oslo, OSLO), (&rome, ROME)] {
        publish(cluster, "cart", ingress);
        publish(cluster, &format!("only-{}", cluster.name), ingress);
    }
    home.kubectl(&["apply", "-k", concat!(env!("CARGO_MANIFEST_DIR"), "/config/rbac/registration")]);
    let role = ["create", "rolebinding", "reader", "--role=signpost-registration", "--user=reader"];
    home.kubectl(&[&["-n", NAMESPACE][..], &role].concat());
    let state = tempfile::tempdir().expect("a temporary folder");
    let signpost = Signpost::start(&setup(&home, state.path()));
    shows(&signpost, "cart", &[HOME]);
    shows(&signpost, "only-rome", &[]);

    // One comes, and another one whose name stands before it: its number is another one now, and it goes on.
    let file = state.path().join("rome.kubeconfig");
    fs::write(&file, rome.kubeconfig_text(User::Reader)).expect("it is ours");
    let from = format!("--from-file=kubeconfig={}", file.display());
    home.kubectl(&["-n", NAMESPACE, "create", "secret", "generic", "rome", &from]);
    home.kubectl(&["-n", NAMESPACE, "label", "secret", "rome", "signpost.dev/cluster="]);
    fs::remove_file(&file).expect("it is ours");
    shows(&signpost, "cart", &[HOME, ROME]);
    shows(&signpost, "only-rome", &[ROME]);
    let listed = lists(&signpost, "rome");
    register(&home, "oslo", &oslo.kubeconfig_text(User::Reader));
    shows(&signpost, "cart", &[HOME, OSLO, ROME]);
    measures(&signpost, "signpost_registered_clusters", 2.0);
    measures(&signpost, "signpost_cluster_synced{cluster=\"oslo\"}", 1.0);
    publish(&rome, "late", ROME);
    shows(&signpost, "late", &[ROME]);
    publish(&home, "late", HOME);
    shows(&signpost, "late", &[HOME, ROME]);
    assert_eq!((lists(&signpost, "cluster-1"), lists(&signpost, "rome")), (1, listed), "nobody began anew");
    // What is inside of a cluster stays there: its own address for its own clients, and for nobody else.
    let cluster_ip = |cluster: &Cluster| {
        cluster.kubectl(&["-n", "shop", "get", "service", "cart", "-o", "jsonpath={.spec.clusterIP}"])
    };
    let inside = Dig::at(signpost.ports.internal).ask(&named("cart"), "A").expect("an answer").addresses();
    assert_eq!(inside[0], cluster_ip(&home).parse::<std::net::IpAddr>().expect("an address"));
    let mut others = inside[1..].to_vec();
    others.sort_unstable();
    assert_eq!(others, addresses(&[OSLO, ROME]));

    // Bad ones beside them change nothing, and are told.
    let good = oslo.kubeconfig_text(User::Reader);
    register(&home, "evil", &good.replace(r#"{"token":"reader-token"}"#, r#"{"exec":{"command":"/bin/sh"}}"#));
    register(&home, "cluster-1", &good);
    register(&home, "plain", &good.replace("https://", "http://"));
    register(&home, "same", &good);
    let unlabelled = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "other", "namespace": NAMESPACE},
        "stringData": {"kubeconfig": good},
    });
    home.apply(&unlabelled.to_string());
    let silent = good.replace(&oslo.address.to_string(), &format!("127.0.0.1:{}", free_port()));
    register(&home, "dead", &silent);
    for (reason, count) in [("forbidden", 1.0), ("name", 1.0), ("server", 1.0), ("object", 0.0)] {
        measures(&signpost, &format!("signpost_cluster_secrets_refused{{reason=\"{reason}\"}}"), count);
    }
    // One of them cannot be reached, and one is a cluster that is there already: they are registered, and have nothing.
    measures(&signpost, "signpost_registered_clusters", 4.0);
    measures(&signpost, "signpost_cluster_synced{cluster=\"dead\"}", 0.0);
    shows(&signpost, "cart", &[HOME, OSLO, ROME]);
    // What there is not is not made doubtful by them.
    shows(&signpost, "nothing", &[]);
    let said = log(&signpost);
    for what in ["secret=\"evil\"", "data.kubeconfig: users[0].user.exec is not allowed here", "secret=cluster-1"] {
        assert!(said.contains(what), "{what}: {said}");
    }
    let (_, diagnosed) = signpost.run(&["diagnose"]);
    for what in [
        "FAILED  Secret evil: data.kubeconfig: users[0].user.exec is not allowed here",
        "FAILED  Secret cluster-1: a cluster of the configuration has this name",
        "passed  clusterSecrets: 7 Secrets with the label signpost.dev/cluster in signpost-clusters",
        "passed  cluster rome: its API server answers",
        "FAILED  cluster dead: its API server does not answer",
    ] {
        assert!(diagnosed.contains(what), "{what}: {diagnosed}");
    }
    for name in ["evil", "cluster-1", "plain", "same", "dead"] {
        unregister(&home, name);
    }
    measures(&signpost, "signpost_registered_clusters", 2.0);
    signpost.reload();
    answers(&signpost, "cart", &[HOME, OSLO, ROME]).expect("a reload keeps them");

    // Operators can say something of it, with rights of their own.
    let refused = signpost.command(&["drain", "oslo"]).expect_err("there are no credentials");
    assert!(refused.contains("a registered one needs --kubeconfig"), "{refused}");
    let admin = oslo.kubeconfig_of(User::Admin).display().to_string();
    signpost.command(&["drain", "oslo", "--kubeconfig", &admin]).expect("it is drained");
    shows(&signpost, "cart", &[HOME, ROME]);
    signpost.command(&["undrain", "oslo", "--kubeconfig", &admin]).expect("it is not any more");
    shows(&signpost, "cart", &[HOME, OSLO, ROME]);

    // Other credentials, and the old ones are worth nothing any more: no answer is without the cluster meanwhile.
    let rotated = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !rotated.load(Ordering::Relaxed) {
                answers(&signpost, "cart", &[HOME, OSLO, ROME])?;
            }
            Ok::<_, String>(())
        });
        register(&home, "oslo", &oslo.kubeconfig_text(User::Voter));
        wait_for("the source's second start", SHOWS, || same(lists(&signpost, "oslo"), 2));
        let voters = r#"{"subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "voter"}]}"#;
        oslo.kubectl(&["patch", "clusterrolebinding", "reader", "--type=merge", "-p", voters]);
        publish(&oslo, "rotated", OSLO);
        shows(&signpost, "rotated", &[OSLO]);
        rotated.store(true, Ordering::Relaxed);
        watch.join().expect("no panic").expect("all are answered");
    });
    assert_eq!((lists(&signpost, "cluster-1"), lists(&signpost, "rome")), (1, listed), "nobody else began anew");

    // A Secret that goes bad leaves what it said before.
    register(&home, "oslo", "no: kubeconfig");
    measures(&signpost, "signpost_cluster_secrets_refused{reason=\"kubeconfig\"}", 1.0);
    shows(&signpost, "cart", &[HOME, OSLO, ROME]);
    register(&home, "oslo", &oslo.kubeconfig_text(User::Voter));
    measures(&signpost, "signpost_cluster_secrets_refused{reason=\"kubeconfig\"}", 0.0);

    // Whoever holds the Secrets goes: what is registered stays, and is followed.
    home.kill();
    publish(&rome, "meanwhile", ROME);
    shows(&signpost, "meanwhile", &[ROME]);
    stays("all of them", Duration::from_secs(3), || answers(&signpost, "cart", &[HOME, OSLO, ROME]));
    signpost.stop();
    // One that starts meanwhile has what the one before had written: no credentials among it.
    let signpost = Signpost::start(&setup(&home, state.path()));
    shows(&signpost, "cart", &[HOME, OSLO, ROME]);
    shows(&signpost, "only-oslo", &[OSLO]);
    let nothing = Dig::at(signpost.ports.external).ask(&named("nothing"), "A").expect("an answer");
    assert_eq!(nothing.status, "SERVFAIL", "there may be a cluster that has it, of which nobody knows");
    for entry in fs::read_dir(state.path()).expect("it is there") {
        let entry = entry.expect("it can be read").path();
        let kept = fs::read(&entry).expect("it can be read");
        let holds = |secret: &str| kept.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!holds("-token") && !holds("certificate-authority"), "{}", entry.display());
    }
    home.restart();
    measures(&signpost, "signpost_cluster_stale{cluster=\"oslo\"}", 0.0);
    publish(&oslo, "after", OSLO);
    shows(&signpost, "after", &[OSLO]);
    shows(&signpost, "nothing", &[]);

    // By a label that is taken away, and by a Secret that is.
    home.kubectl(&["-n", NAMESPACE, "label", "secret", "oslo", "signpost.dev/cluster-"]);
    shows(&signpost, "cart", &[HOME, ROME]);
    shows(&signpost, "only-oslo", &[]);
    unregister(&home, "rome");
    shows(&signpost, "cart", &[HOME]);
    shows(&signpost, "only-rome", &[]);
    measures(&signpost, "signpost_registered_clusters", 0.0);
    wait_for("their snapshots to be gone", SHOWS, || {
        let left = ["oslo", "rome"].map(|name| state.path().join(format!("{name}.snapshot")).exists());
        same(left, [false, false])
    });
    let said = log(&signpost);
    for secret in ["reader-token", "voter-token", "BEGIN CERTIFICATE"] {
        assert!(!said.contains(secret), "{secret} in the log");
    }
    signpost.stop();
}
