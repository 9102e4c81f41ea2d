//! The Helm chart: accepted by a real API server, the same as the Kustomize bases, refused with a reason where its values are wrong. And
//! both, judged by a linter.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::cluster::{Cluster, User, built};
use common::{same, wait_for};
use serde_json::{Value, json};

/// From an object to what controllers make of it, on a machine that does other things too.
const SHOWS: Duration = Duration::from_secs(90);
const MODES: [&str; 2] = ["stub", "public"];
/// What a chart adds to the labels of what it makes.
const CHART_LABELS: [&str; 4] =
    ["helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/instance", "app.kubernetes.io/version"];

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A program of the test bed, with its input; what it prints, or what it says is wrong.
fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let own = built().join(program);
    // `make testbed` builds no kubectl where the machine has one.
    let program = if own.is_file() { own } else { PathBuf::from(program) };
    let mut child = Command::new(&program)
        .args(arguments)
        .current_dir(at(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; run `make testbed`", program.display()));
    let mut stdin = child.stdin.take().expect("it is piped");
    // One that does not read all of it fails, and says why.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it was started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stdout) + &text(&output.stderr)) }
}

/// The chart with the example's values, and others.
fn try_chart(mode: &str, more: &[&str]) -> Result<String, String> {
    let mode = format!("mode={mode}");
    let fixed =
        ["template", "a-release", "config/helm/signpost", "--values", "config/helm/example.yaml", "--set", &mode];
    run("helm", &[&fixed, more].concat(), "")
}

fn chart(mode: &str) -> String {
    let more = ["--namespace", "signpost", "--set", "namespace.create=true"];
    try_chart(mode, &more).unwrap_or_else(|said| panic!("helm template, {mode}: {said}"))
}

fn bases(mode: &str) -> String {
    run("kubectl", &["kustomize", &format!("config/deploy/{mode}")], "")
        .unwrap_or_else(|said| panic!("kubectl kustomize, {mode}: {said}"))
}

fn documents(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    all.into_iter().filter(|document| !document.is_null()).collect()
}

/// Objects by kind and name, without what must differ: the chart's labels, and how a change of the configuration rolls the Pods, which
/// is a hash in the ConfigMap's name with Kustomize, and an annotation of the Pods with Helm.
fn comparable(text: &str) -> BTreeMap<(String, String), Value> {
    let mut objects = documents(text);
    let hashed = |name: &str| match name.rsplit_once('-') {
        Some((front, hash)) if name.starts_with("signpost-config-") && hash.len() == 10 => front.to_owned(),
        _ => name.to_owned(),
    };
    for object in &mut objects {
        let metadata = object["metadata"].as_object_mut().expect("every object has some");
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.retain(|name, _| !CHART_LABELS.contains(&name.as_str()));
            if labels.is_empty() {
                metadata.remove("labels");
            }
        }
        let name = hashed(object["metadata"]["name"].as_str().expect("every object has a name"));
        object["metadata"]["name"] = name.into();
        if object["kind"] == "ConfigMap" {
            let config = object["data"]["signpost.yaml"].as_str().expect("the configuration");
            object["data"]["signpost.yaml"] = serde_saphyr::from_str(config).expect("YAML");
            for (name, text) in object["data"].as_object_mut().expect("files") {
                if let (true, Some(zone)) = (name.ends_with(".zone"), text.as_str()) {
                    *text = zone.lines().filter(|line| !line.starts_with("; The static")).collect::<Vec<_>>().into();
                }
            }
        }
        if object["kind"] == "Deployment" {
            let template = &mut object["spec"]["template"];
            template["metadata"]["annotations"].as_object_mut().expect("annotations").remove("checksum/config");
            let config = template.pointer_mut("/spec/volumes/0/configMap/name").expect("the first volume");
            *config = hashed(config.as_str().expect("a name")).into();
        }
    }
    let named = objects.into_iter().map(|object| {
        let word = |value: &Value| value.as_str().expect("a word").to_owned();
        ((word(&object["kind"]), word(&object["metadata"]["name"])), object)
    });
    named.collect()
}

/// Rights included: what `tests/deployment.rs` finds out about them is so for both.
#[test]
fn the_chart_and_the_bases_do_not_drift() {
    for mode in MODES {
        let (chart, bases) = (comparable(&chart(mode)), comparable(&bases(mode)));
        let names = |objects: &BTreeMap<(String, String), Value>| objects.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&chart), names(&bases), "{mode}");
        assert!(chart.len() > 12, "{mode}: {:?}", names(&chart));
        for (name, object) in &chart {
            assert_eq!(object, &bases[name], "{mode}: {name:?}; left: the chart, right: config/deploy");
        }
    }
    let deployment = |mode| comparable(&chart(mode)).into_iter().find(|((kind, _), _)| kind == "Deployment");
    assert_ne!(deployment("stub"), deployment("public"), "the comparison tells objects apart");
}

#[test]
fn helm_finds_nothing_wrong_with_it() {
    for mode in MODES {
        let words = ["lint", "--strict", "config/helm/signpost", "--values", "config/helm/example.yaml", "--set"];
        let said = run("helm", &[&words[..], &[&format!("mode={mode}")]].concat(), "").expect("it is content");
        assert!(said.contains("0 chart(s) failed") && !said.contains("[WARNING]"), "{said}");
    }
    let chart: Value =
        serde_saphyr::from_str(&fs::read_to_string(at("config/helm/signpost/Chart.yaml")).expect("it is there"))
            .expect("YAML");
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    for mode in MODES {
        let file = fs::read_to_string(at(&format!("config/deploy/{mode}/kustomization.yaml"))).expect("it is there");
        assert!(file.contains(&format!("newTag: {}\n", env!("CARGO_PKG_VERSION"))), "{mode}: {file}");
    }
}

#[test]
fn bad_values_are_refused_with_a_reason() {
    for (set, reason) in [
        ("mode=both", "'/mode': value must be one of 'stub', 'public'"),
        ("replica=3", "additional properties 'replica' not allowed"),
        ("replicas=0", "'/replicas': minimum: got 0, want 1"),
        ("replicas=two", "'/replicas': got string, want integer"),
        ("image.tag=a tag", "'/image/tag': 'a tag' does not match pattern"),
        ("image.tag=latest", "image.tag: latest may be another program tomorrow; give a version"),
        ("service.clusterIP=ten", "'/service/clusterIP': 'ten' does not match pattern"),
        ("stateSize=much", "'/stateSize': 'much' does not match pattern"),
        ("podDisruptionBudget.maxUnavailable=0", "'/podDisruptionBudget/maxUnavailable'"),
        ("config.zone=a", "'/config': additional properties 'zone' not allowed"),
        ("config.zones=null", "'/config'"),
        ("config.clusters[0].name=Cluster", "'/config/clusters/0/name': 'Cluster' does not match pattern"),
        ("config.zones[0].file=other.zone", "config.zones[0].file: \"other.zone\" is not a key of `files`"),
        ("config.clusters[0].inCluster=false", "with mode stub, one has `inCluster: true`, whose view is served"),
        ("files.signpost\\.yaml=a", "files: signpost.yaml is made of `config`; give it there"),
    ] {
        let said = try_chart("stub", &["--set", set]).expect_err(set);
        assert!(said.contains(reason), "{set}: {said}");
    }
    let said = run("helm", &["template", "a-release", "config/helm/signpost"], "").expect_err("it has no zone");
    assert!(said.contains("'/config/zones': minItems: got 0, want 1"), "{said}");
}

/// The schema knows the sections that Signpost knows, so that a misspelt one does not come as far as a Pod.
#[test]
fn the_schema_has_the_sections_of_the_configuration() {
    let schema = fs::read_to_string(at("config/helm/signpost/values.schema.json")).expect("it is there");
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let known = schema.pointer("/properties/config/properties").and_then(Value::as_object).expect("sections");
    let reference = fs::read_to_string(at("config/reference.yaml")).expect("it is there");
    let reference: Value = serde_saphyr::from_str(&reference).expect("YAML");
    let keys = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(known), keys(reference.as_object().expect("sections")));
}

#[test]
fn what_the_values_say_is_what_is_deployed() {
    let config = |mode: &str, more: &[&str]| -> Value {
        let text = try_chart(mode, more).unwrap_or_else(|said| panic!("{more:?}: {said}"));
        let all = documents(&text);
        let map = all.iter().find(|object| object["kind"] == "ConfigMap").expect("a ConfigMap");
        serde_saphyr::from_str(map["data"]["signpost.yaml"].as_str().expect("text")).expect("YAML")
    };
    // What votes are written in is the namespace that its rights are in.
    assert_eq!(config("stub", &["--namespace", "dns"])["health"]["namespace"], "dns");
    assert_eq!(config("stub", &["--namespace", "signpost"])["health"], json!({"quorum": "majority"}));
    // What is given is taken as it is.
    let given = config(
        "stub",
        &["--set", "config.health=null,config.limits.lameDuck=9s,config.limits.objectsPerCluster=2000000"],
    );
    assert!(given["health"].is_null(), "{given}");
    assert_eq!(given["limits"], json!({"lameDuck": "9s", "objectsPerCluster": 2_000_000}));
    let given = config("stub", &["--set", "config.zones[0].internalMode=all,config.listeners[0].view=external"]);
    assert_eq!(given["zones"][0]["internalMode"], "all");
    assert_eq!(given["listeners"], json!([{"view": "external"}]));
    // A file that changes makes other Pods, as another configuration does; a label of the Service does not.
    let template = |more: &[&str]| -> Value {
        let all = documents(&try_chart("stub", more).unwrap_or_else(|said| panic!("{more:?}: {said}")));
        all.into_iter().find(|object| object["kind"] == "Deployment").expect("one")["spec"]["template"].take()
    };
    let plain = template(&[]);
    assert_ne!(template(&["--set", "files.places=10.0.0.0/8 here"]), plain);
    assert_ne!(template(&["--set", "config.limits.lameDuck=9s"]), plain);
    assert_eq!(template(&["--set", "service.annotations.a=b"]), plain);
    // For a second release beside one that has them.
    let kinds = |more: &[&str]| -> BTreeSet<String> {
        let all = documents(&try_chart("public", more).unwrap_or_else(|said| panic!("{more:?}: {said}")));
        all.iter().filter_map(|object| object["kind"].as_str().map(str::to_owned)).collect()
    };
    let without = ["ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service"].map(str::to_owned);
    assert_eq!(kinds(&["--set", "rbac.create=false"]), BTreeSet::from(without));
}

#[test]
fn a_real_api_server_takes_it_and_makes_pods_of_it() {
    let cluster = Cluster::start("charted");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let both: Vec<String> = MODES
        .map(|mode| {
            let file = folder.path().join(mode);
            fs::write(&file, chart(mode)).expect("the folder is ours");
            file.display().to_string()
        })
        .to_vec();
    for file in &both {
        // The API server reads each field itself, and refuses what it does not know.
        cluster.kubectl(&["apply", "--server-side", "--validate=strict", "--force-conflicts", "--filename", file]);
    }
    let pods = |mode: &str| {
        let selector = format!("app.kubernetes.io/name=signpost,app.kubernetes.io/component={mode}");
        let words = ["-n", "signpost", "get", "pods", "--selector", &selector, "-o", "name"];
        cluster.kubectl(&words).lines().count()
    };
    let label = "jsonpath={.metadata.labels.pod-security\\.kubernetes\\.io/enforce}";
    assert_eq!(cluster.kubectl(&["get", "namespace", "signpost", "-o", label]), "restricted");
    for mode in MODES {
        wait_for("its Pods", SHOWS, || same(pods(mode), 2));
    }
    let policy = "jsonpath={.spec.externalTrafficPolicy}";
    assert_eq!(cluster.kubectl(&["-n", "signpost", "get", "service", "signpost-public", "-o", policy]), "Local");
}

/// As helm itself does it, and as the README says: releases, a change that rolls, and nothing left after it.
#[test]
fn helm_installs_upgrades_and_removes_it() {
    let cluster = Cluster::start("released");
    // The test bed has one of that name, with rights of its own, which no release would take over.
    cluster.kubectl(&["delete", "namespace", "signpost"]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let search = std::env::join_paths(
        [built()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let shell = |script: &str| {
        let output = Command::new("sh")
            .args(["-euc", script])
            .current_dir(at(""))
            .env("KUBECONFIG", cluster.kubeconfig_of(User::Admin))
            .env("PATH", search.as_ref().expect("folders"))
            .env("HOME", folder.path())
            .output()
            .expect("sh can be run");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {said}");
    };
    let readme = fs::read_to_string(at("README.md")).expect("it is there");
    let install = readme.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let install: Vec<&str> = install.filter(|block| block.contains("helm install")).collect();
    assert_eq!(install.len(), 1, "one block of the README");
    shell(install[0]);
    let example = "config/helm/signpost --namespace signpost --values config/helm/example.yaml";
    shell(&format!("helm install outside {example} --set mode=public,rbac.create=false"));
    let generation = || {
        let words = ["-n", "signpost", "get", "deployment", "signpost", "-o", "jsonpath={.metadata.generation}"];
        cluster.kubectl(&words)
    };
    let first = generation();
    shell(&format!("helm upgrade signpost {example}"));
    assert_eq!(generation(), first, "nothing changed");
    shell(&format!("helm upgrade signpost {example} --set config.limits.lameDuck=6s"));
    assert_ne!(generation(), first, "the Pods roll");
    shell("helm uninstall --namespace signpost outside signpost");
    let kinds =
        "deployments,services,roles,rolebindings,serviceaccounts,configmaps,poddisruptionbudgets,networkpolicies";
    let left = cluster.kubectl(&["-n", "signpost", "get", kinds, "-o", "name"]);
    // Every namespace has that one.
    let left: Vec<&str> = left.lines().filter(|line| !line.ends_with("/kube-root-ca.crt")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// What the linter has to say and is left as it is, by its check, and why.
const EXCEPTIONS: [(&str, &str, &str); 3] = [
    // A CPU limit throttles a burst of queries, with which latency goes; a request is there.
    ("Deployment", "container-resources", "CPU limit is not set"),
    // A tag that is a version is the same image for ever, and a name server must be able to start while the registry is away.
    ("Deployment", "container-image-pull-policy", "ImagePullPolicy is not set to Always"),
    // It connects to API servers and load balancers, which are anywhere.
    ("Deployment", "pod-networkpolicy", "The pod does not have a matching egress NetworkPolicy"),
];

/// All that kube-score finds, by kind, check and sentence.
fn findings(manifests: &str) -> BTreeSet<(String, String, String)> {
    let words = [
        "score",
        "--output-format=json",
        "--kubernetes-version=v1.33",
        "--enable-optional-test=container-seccomp-profile",
    ];
    let printed = match run("kube-score", &[&words[..], &["-"]].concat(), manifests) {
        // It fails if it finds something, and prints the same.
        Ok(printed) | Err(printed) => printed,
    };
    let report: Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
    let mut found = BTreeSet::new();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let objects = report.as_array().expect("a list of objects");
    assert!(!objects.is_empty(), "it looked at something");
    for object in objects {
        for check in object["checks"].as_array().expect("a list of checks") {
            // 10 is good; what is skipped is not for this object.
            if check["skipped"] == true || check["grade"] == 10 {
                continue;
            }
            let comments = check["comments"].as_array().cloned().unwrap_or_default();
            for comment in comments {
                found.insert((
                    word(&object["type_meta"]["kind"]),
                    word(&check["check"]["id"]),
                    word(&comment["summary"]),
                ));
            }
        }
    }
    found
}

#[test]
fn a_linter_has_nothing_to_say_but_what_is_named() {
    let exceptions: BTreeSet<_> =
        EXCEPTIONS.iter().map(|&(kind, check, said)| (kind.to_owned(), check.to_owned(), said.to_owned())).collect();
    for mode in MODES {
        // Both ways: an exception that is none any more goes.
        assert_eq!(findings(&bases(mode)), exceptions, "config/deploy/{mode}");
        assert_eq!(findings(&chart(mode)), exceptions, "config/helm/signpost, {mode}");
    }
}

/// The linter and the list of exceptions would not be worth much if less hardening went unnoticed.
#[test]
fn the_linter_catches_what_is_softened() {
    let whole = documents(&chart("public"));
    let plain = findings(&chart("public"));
    let pod = "/spec/template/spec";
    let container = &*format!("{pod}/containers/0");
    let (of_pod, of_container) = (&*format!("{pod}/securityContext"), &*format!("{container}/securityContext"));
    // Null: it goes.
    for (kind, parent, key, soft) in [
        ("Deployment", of_container, "readOnlyRootFilesystem", Value::Null),
        ("Deployment", of_container, "privileged", json!(true)),
        ("Deployment", of_pod, "seccompProfile", Value::Null),
        ("Deployment", of_pod, "runAsUser", Value::Null),
        ("Deployment", of_pod, "runAsGroup", json!(0)),
        ("Deployment", container, "resources", Value::Null),
        ("Deployment", container, "readinessProbe", Value::Null),
        ("Deployment", container, "image", json!("signpost:latest")),
        ("Deployment", pod, "affinity", Value::Null),
        ("Deployment", "/spec", "replicas", json!(1)),
        ("PodDisruptionBudget", "/spec", "maxUnavailable", Value::Null),
        ("PodDisruptionBudget", "/spec", "selector", Value::Null),
        ("Service", "/spec", "type", json!("NodePort")),
    ] {
        let mut objects = whole.clone();
        let object = objects.iter_mut().find(|object| object["kind"] == kind).expect("it is there");
        let parent_object = object.pointer_mut(parent).and_then(Value::as_object_mut).expect(parent);
        let before = parent_object.insert(key.to_owned(), soft.clone());
        assert_ne!(before.unwrap_or_default(), soft, "{kind} has {parent}/{key}");
        // JSON is YAML.
        let text: Vec<String> = objects.iter().map(Value::to_string).collect();
        let found = findings(&text.join("\n---\n"));
        assert!(!found.is_subset(&plain), "{kind}, {parent}/{key} {soft}: {found:?}");
    }
}
