//! What is shipped to deploy it with: accepted by a real API server, no more rights than needed, and hardened.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::cluster::Cluster;
use common::dig::Dig;
use common::signpost::{MemberSource, Setup, Signpost, ZONE, http_get};
use common::{same, wait_for};
use serde_json::Value;

/// From an object to what controllers make of it, on a machine that does other things too.
const SHOWS: Duration = Duration::from_secs(90);
const KINDS: [&str; 2] = ["stub", "public"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn place(kind: &str) -> String {
    root().join("config/deploy").join(kind).display().to_string()
}

/// All objects that a directory comes to.
fn rendered(cluster: &Cluster, kind: &str) -> Vec<Value> {
    let text = cluster.kubectl(&["create", "--dry-run=client", "-o", "json", "-k", &place(kind)]);
    let documents = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    documents.map(|document| document.expect("JSON")).collect()
}

fn of_kind<'o>(objects: &'o [Value], kind: &str) -> &'o Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let first = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "one {kind}");
    first
}

#[test]
fn a_real_api_server_takes_it_and_makes_pods_of_it() {
    let cluster = Cluster::start("deployed");
    for kind in KINDS {
        cluster.kubectl(&["apply", "-k", &place(kind)]);
    }
    let pods = |kind: &str| {
        let selector = format!("app.kubernetes.io/name=signpost,app.kubernetes.io/component={kind}");
        let words = ["-n", "signpost", "get", "pods", "--selector", &selector, "-o", "json"];
        let list: Value = serde_json::from_str(&cluster.kubectl(&words)).expect("JSON");
        list["items"].as_array().expect("a list").clone()
    };
    // The namespace enforces the profile `restricted`: what is less hardened than that becomes no Pod.
    let label = "jsonpath={.metadata.labels.pod-security\\.kubernetes\\.io/enforce}";
    assert_eq!(cluster.kubectl(&["get", "namespace", "signpost", "-o", label]), "restricted");
    for kind in KINDS {
        wait_for("its Pods", SHOWS, || same(pods(kind).len(), 2));
    }
    let soft = "apiVersion: v1\nkind: Pod\nmetadata: {name: soft, namespace: signpost}\nspec: {containers: [{name: a, image: a}]}\n";
    let refused = cluster.try_apply(soft).expect_err("it is less than restricted");
    assert!(refused.contains("violates PodSecurity \"restricted:latest\""), "{refused}");
    // Twice is once, and each kind has its own.
    for kind in KINDS {
        cluster.kubectl(&["apply", "-k", &place(kind)]);
        // It fails if anything differs.
        assert_eq!(cluster.kubectl(&["diff", "-k", &place(kind)]), "");
        let objects = rendered(&cluster, kind);
        let budget = of_kind(&objects, "PodDisruptionBudget");
        let selector = &budget["spec"]["selector"]["matchLabels"];
        for (object, labels) in [
            (of_kind(&objects, "Deployment"), "/spec/selector/matchLabels"),
            (of_kind(&objects, "NetworkPolicy"), "/spec/podSelector/matchLabels"),
            (of_kind(&objects, "Service"), "/spec/selector"),
        ] {
            assert_eq!(object.pointer(labels), Some(selector), "{}", object["kind"]);
        }
    }
    // Of the other clusters, as the README has it.
    let file = format!("--from-file=tokyo={}", cluster.kubeconfig().display());
    cluster.kubectl(&["--namespace", "signpost", "create", "secret", "generic", "signpost-kubeconfigs", &file]);
    let service = cluster.kubectl(&["-n", "signpost", "get", "service", "signpost-public", "-o", "json"]);
    let service: Value = serde_json::from_str(&service).expect("JSON");
    assert_eq!(service["spec"]["externalTrafficPolicy"], "Local");
    assert_eq!(service["spec"]["ports"].as_array().map(Vec::len), Some(2), "UDP and TCP");
}

/// `kubectl auth can-i --list`, without what any account may: resources or paths, names, verbs.
fn rights(cluster: &Cluster, account: &str, namespace: &str) -> BTreeSet<String> {
    let all = |account: &str| -> BTreeSet<String> {
        let account = format!("--as=system:serviceaccount:signpost:{account}");
        let list = cluster.kubectl(&["auth", "can-i", "--list", "--no-headers", "-n", namespace, &account]);
        list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    &all(account) - &all("of-which-nothing-is-said")
}

#[test]
fn its_rights_are_what_it_needs_and_nothing_more() {
    let cluster = Cluster::start("rights");
    cluster.kubectl(&["apply", "-k", &place("stub")]);
    let reads = [
        "clusterloads.signpost.dev [] [] [list watch]",
        "endpointslices.discovery.k8s.io [] [] [list watch]",
        "namespaces [] [kube-system] [get]",
        "nodes [] [] [list]",
        "serviceexports.multicluster.x-k8s.io [] [] [list watch]",
        "serviceimports.multicluster.x-k8s.io [] [] [list watch]",
        "serviceloads.signpost.dev [] [] [list watch]",
        "services [] [] [list watch]",
    ];
    let own = ["configmaps [] [] [list watch]", "leases.coordination.k8s.io [] [] [list watch]"];
    let voter =
        ["configmaps [] [] [create patch list watch]", "leases.coordination.k8s.io [] [] [create patch list watch]"];
    let set = |lists: &[&[&str]]| lists.concat().into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    for account in ["signpost", "signpost-voter"] {
        assert_eq!(rights(&cluster, account, "default"), set(&[&reads]), "{account}");
    }
    let sorted = |rights: BTreeSet<String>| {
        rights
            .into_iter()
            .map(|line| line.replace("list watch create patch", "create patch list watch"))
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(sorted(rights(&cluster, "signpost", "signpost")), set(&[&reads, &own]));
    assert_eq!(sorted(rights(&cluster, "signpost-voter", "signpost")), set(&[&reads, &voter]));
    // Of Secrets, only those that register clusters may be read, and only where somebody wants that.
    cluster.kubectl(&["apply", "-k", root().join("config/rbac/registration").to_str().expect("UTF-8")]);
    for account in ["signpost", "signpost-voter"] {
        let registered = rights(&cluster, account, "signpost-clusters");
        assert_eq!(registered, set(&[&reads, &["secrets [] [] [list watch]"]]), "{account}");
        assert_eq!(rights(&cluster, account, "default"), set(&[&reads]), "{account}");
    }
    assert_eq!(sorted(rights(&cluster, "signpost", "signpost")), set(&[&reads, &own]));

    // With these, and with the configuration that is shipped, everything works.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let kubeconfig = folder.path().join("voter.kubeconfig");
    let arguments = [cluster.name.as_str(), kubeconfig.to_str().expect("UTF-8"), "signpost-voter"];
    wait_for("a token", SHOWS, || cluster.script("config/make-kubeconfig.sh", &arguments));
    cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: default}\nspec: {type: LoadBalancer, ports: [{port: 80}]}\n",
    );
    cluster.set_ingress("default", "cart", &["104.16.1.1"]);
    let mut setup = Setup::new(vec![MemberSource::Kubeconfig(kubeconfig)]);
    // Its nodes say where it is.
    setup.clusters[0].region = String::new();
    setup.sections = format!(
        "health: {{quorum: majority, cluster: cluster-1, replica: one, allowSingleVoter: true}}\nstate: {{directory: '{}'}}\n",
        folder.path().join("state").display()
    );
    let signpost = Signpost::start(&setup);
    let dig = Dig::at(signpost.ports.external);
    wait_for("an answer", SHOWS, || {
        same(dig.addresses(&format!("cart.default.{ZONE}"), "A")?, vec![[104, 16, 1, 1].into()])
    });
    wait_for("its own word, read back", SHOWS, || {
        let metrics = http_get(signpost.ports.admin, "/metrics").map_err(|error| error.to_string())?;
        if metrics.contains("\nsignpost_health_own_vote 1\n") { Ok(()) } else { Err(metrics) }
    });
    let (status, said) = signpost.run(&["diagnose"]);
    assert!(status.success() && !said.contains("FAILED  cluster") && !said.contains("WARNED  cluster"), "{said}");
    assert!(said.contains("passed  cluster cluster-1: leases may be listed in signpost"), "{said}");
    let log = signpost.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "nothing is missing, so nothing is complained of:\n{log}");
    signpost.stop();
}

/// The configurations that are shipped are ones, and their paths and ports are those of the Pods.
#[test]
fn the_configuration_is_that_of_the_pods() {
    for kind in KINDS {
        let config = root().join("config/deploy").join(kind).join("instances/signpost.yaml");
        let checked = Command::new(env!("CARGO_BIN_EXE_signpost"))
            .args(["check", "--config"])
            .arg(&config)
            .output()
            .expect("the program can be run");
        // That is the one thing which is wrong with it here.
        let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
        let problems: Vec<&str> = said.lines().filter(|line| line.starts_with("problem: ")).collect();
        assert!(problems.len() == 1 && problems[0].contains("cluster-1: not in a pod"), "{kind}: {said}");
        let config: Value = serde_saphyr::from_str(&fs::read_to_string(&config).expect("it is there")).expect("YAML");
        let base = root().join("config/deploy/base/deployment.yaml");
        let deployment: Value = serde_saphyr::from_str(&fs::read_to_string(base).expect("it is there")).expect("YAML");
        let pod = &deployment["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let ports: BTreeMap<&str, u64> = container["ports"]
            .as_array()
            .expect("ports")
            .iter()
            .map(|port| (port["name"].as_str().expect("a name"), port["containerPort"].as_u64().expect("a number")))
            .collect();
        let listens = format!("0.0.0.0:{}", ports["dns-udp"]);
        assert_eq!(config["listeners"][0]["addresses"][0], listens.as_str());
        assert_eq!(ports["dns-udp"], ports["dns-tcp"]);
        assert_eq!(config["admin"]["address"], format!("0.0.0.0:{}", ports["admin"]).as_str());
        let mounts: Vec<&str> = container["volumeMounts"]
            .as_array()
            .expect("mounts")
            .iter()
            .filter_map(|mount| mount["mountPath"].as_str())
            .collect();
        let state = config["state"]["directory"].as_str().expect("a path");
        assert!(mounts.iter().any(|mount| state.starts_with(mount)), "{state} is in {mounts:?}");
        let (grace, duck) = (pod["terminationGracePeriodSeconds"].as_u64(), config["limits"]["lameDuck"].as_str());
        let duck: u64 =
            duck.and_then(|text| text.strip_suffix('s')).and_then(|text| text.parse().ok()).expect("seconds");
        assert!(grace.is_some_and(|grace| grace >= duck + 15), "there is time for the rest: {grace:?}");
    }
}

/// systemd's own judgement, in tenths: 0 is all of it, 100 nothing.
#[test]
fn the_unit_is_hardened() {
    let unit = root().join("config/systemd/signpost.service");
    let judged = Command::new("systemd-analyze")
        .args(["security", "--offline=yes", "--no-pager", "--threshold=20"])
        .arg(&unit)
        .output()
        .expect("systemd-analyze can be run");
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
    // What it does not understand, it says.
    let verified = Command::new("systemd-analyze").arg("verify").arg(&unit).output().expect("it can be run");
    let said = String::from_utf8_lossy(&verified.stderr);
    let problems: Vec<&str> =
        said.lines().filter(|line| !line.contains("/usr/local/bin/signpost is not executable")).collect();
    assert!(problems.is_empty(), "{problems:?}");
}
