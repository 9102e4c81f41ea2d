//! `signpost explain` and the admin server's `/explain`.

use std::collections::BTreeSet;
use std::fs;

use super::server::{DEADLINE, Demo, EXTERNAL, INTERNAL, SERVICE, Server};
use super::startup::run;
use crate::common::{same, wait_for};

/// Exit code, output and errors.
fn explain(server: &Server, words: &[&str]) -> (Option<i32>, String, String) {
    let config = server.demo.config().display().to_string();
    let output = run(server.demo.path(), &[], &[&["explain", "--config", &config], words].concat());
    let text = |octets| String::from_utf8(octets).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_running_server_explains_itself() {
    let server = Server::demo();
    // What dig shows is what is explained.
    let (code, text, errors) = explain(&server, &[SERVICE]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
    assert!(text.contains("view       external (the listener is for everybody)"), "{text}");
    let answered: BTreeSet<&str> = text.split_whitespace().filter_map(|word| word.strip_suffix('*')).collect();
    assert_eq!(answered, BTreeSet::from_iter(EXTERNAL.into_iter().chain([""])), "{text}");

    let (code, text, _) = explain(&server, &[SERVICE, "--cluster", "cluster-1", "--output", "json"]);
    assert_eq!(code, Some(0), "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["view"], "internal to cluster-1");
    let candidates = json["service"]["candidates"].as_array().expect("a list");
    let seen: Vec<(u64, &str)> = candidates
        .iter()
        .map(|c| (c["band"].as_u64().expect("a number"), c["answered"][0].as_str().expect("an address")))
        .collect();
    assert_eq!(seen, [(1, INTERNAL[0]), (2, INTERNAL[1]), (3, INTERNAL[2])]);
    let reasons: Vec<&str> = candidates.iter().filter_map(|c| c["reason"].as_str()).collect();
    assert_eq!(reasons, ["band 1: own cluster", "band 2: same region", "band 3: another region"]);

    // Without a server the same can be said from what is on disk.
    let (_, offline, _) = explain(&server, &[SERVICE, "--cluster", "cluster-1", "--output", "json", "--offline"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&offline).expect("JSON"), json);
    assert_eq!(explain(&server, &["nowhere.example"]).0, Some(0));

    for (words, complaint) in [
        (&["a..b"][..], "is not a name"),
        (&[SERVICE, "--type", "AAAAA"], "is not a type"),
        (&[SERVICE, "--cluster", "mars"], "there is no cluster \"mars\""),
        (&[SERVICE, "--cluster", "cluster-2"], "no listener gives the internal view of \"cluster-2\""),
    ] {
        for offline in [&[][..], &["--offline"]] {
            let (code, text, errors) = explain(&server, &[words, offline].concat());
            assert_eq!((code, text.as_str()), (Some(1), ""), "{words:?}");
            assert!(errors.starts_with("signpost: ") && errors.contains(complaint), "{words:?}: {errors}");
        }
    }
    for path in ["/explain", "/explain?name=a&client=b", "/explain?name=a&subnet=1.2.3.4/99"] {
        let (status, body) = server.admin(path).expect("admin answers");
        assert_eq!(status, "400", "{path}: {body}");
    }

    let Server { process, demo, ports } = server;
    process.terminate(DEADLINE);
    let config = demo.config().display().to_string();
    let output = run(demo.path(), &[], &["explain", "--config", &config, SERVICE]);
    let errors = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains(&format!("127.0.0.1:{}", ports.admin)) && errors.contains("--offline"), "{errors}");
}

/// Who told a load, whether it still counts, and what comes of it in the end.
#[test]
fn loads_are_explained_with_their_tellers() {
    let demo = Demo::new();
    let load = |name: &str, spec: &str| {
        format!("apiVersion: signpost.dev/v1alpha1\nkind: {name}\nmetadata: {{name: cluster}}\nspec: {spec}\n")
    };
    let own = load("ServiceLoad", "{load: 1, validForSeconds: 3600}");
    let own = own.replace("{name: cluster}", "{name: my-service, namespace: my-namespace}");
    let elsewhere = own.replace("my-service", "another");
    let write = |cluster, text: &str| fs::write(demo.manifest(cluster, "load.yaml"), text).expect("the folder is ours");
    write(1, &format!("{own}---\n{elsewhere}"));
    write(3, &load("ClusterLoad", "{load: 0.5}"));
    let path = demo.manifest(2, "my-service.yaml");
    let manifest = fs::read_to_string(&path).expect("the demo is there");
    let annotated = manifest.replacen("metadata:", "metadata:\n  annotations: {signpost.dev/load: '0.8'}", 1);
    fs::write(&path, annotated).expect("the folder is ours");
    let server = Server::start(demo, &[]);
    let words = [SERVICE, "--cluster", "cluster-1", "--output", "json"];
    let json = |more: &[&str]| {
        let (_, text, errors) = explain(&server, &[&words, more].concat());
        serde_json::from_str::<serde_json::Value>(&text).map_err(|error| format!("{error}: {text}{errors}"))
    };
    let told = |json: &serde_json::Value| -> Vec<(String, f64, String, bool)> {
        let loads = json["service"]["loads"].as_array().into_iter().flatten();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let expires =
            |load: &serde_json::Value| load["expiresSeconds"].as_f64().is_some_and(|s| s > 3_500.0 && s <= 3_600.0);
        loads
            .map(|load| {
                (text(&load["cluster"]), load["load"].as_f64().unwrap_or(f64::NAN), text(&load["by"]), expires(load))
            })
            .collect()
    };
    let wanted = [
        ("cluster-1".to_owned(), 1.0, "ServiceLoad my-namespace/my-service".to_owned(), true),
        ("cluster-2".to_owned(), 0.8, "annotation of my-namespace/my-service".to_owned(), false),
        ("cluster-3".to_owned(), 0.5, "ClusterLoad".to_owned(), false),
    ];
    wait_for("all loads", DEADLINE, || same(told(&json(&[])?), wanted.to_vec()));
    let offline = json(&["--offline"]).expect("an explanation");
    assert_eq!(told(&offline), wanted);
    // As if it had been so for long: the own cluster is behind, the next one sheds two of five answers.
    let candidates = offline["service"]["candidates"].as_array().expect("candidates");
    let seen: Vec<_> =
        candidates.iter().map(|c| (c["cluster"].as_str(), c["shed"].as_u64(), c["overloaded"].as_bool())).collect();
    assert_eq!(
        seen,
        [
            (Some("cluster-2"), Some(40), Some(false)),
            (Some("cluster-3"), Some(0), Some(false)),
            (Some("cluster-1"), Some(100), Some(true)),
        ]
    );
    let (_, table, _) = explain(&server, &[SERVICE, "--cluster", "cluster-1"]);
    assert!(
        table.contains("load       1 of cluster-1, by ServiceLoad my-namespace/my-service, for another 59 min"),
        "{table}"
    );
    assert!(table.contains("load       0.8 of cluster-2, by annotation of my-namespace/my-service\n"), "{table}");
}
