//! What bad input gets: one warning that names file and object, one counter by reason, the last good state kept,
//! everything else untouched.

use std::fs;

use super::server::{DEADLINE, EXTERNAL, SERVICE, Server, ZONE, service};
use crate::common::dig::addresses;
use crate::common::{same, wait_for};

pub struct Bad {
    pub what: &'static str,
    pub text: String,
    /// The counter's label.
    pub reason: &'static str,
    /// What the warning names beside the file.
    pub named: &'static [&'static str],
}

const GOOD: &str = "104.198.7.7";

fn bad(what: &'static str, reason: &'static str, named: &'static [&'static str], text: String) -> Bad {
    Bad { what, text, reason, named }
}

/// Each holds `victim` in `my-namespace`, in error.
pub fn all() -> Vec<Bad> {
    let good = || service("victim", "my-namespace", GOOD);
    let named: &[&str] = &["document 1", "Service my-namespace/victim"];
    let slice: &[&str] = &["document 2", "EndpointSlice my-namespace/victim-1"];
    vec![
        bad("broken YAML", "syntax", &["document 1"], good().replace("spec: {", "spec: {{[")),
        bad("an empty file", "syntax", &["empty"], String::new()),
        bad("port 0", "port", named, good().replacen("port: 80,", "port: 0,", 1)),
        bad("port 70000", "port", named, good().replacen("port: 80,", "port: 70000,", 1)),
        bad("an impossible ingress", "address", named, good().replace(GOOD, "999.1.1.1")),
        bad(
            "no ports",
            "list",
            named,
            good().replacen("ports: [{name: http, port: 80, protocol: TCP}]", "ports: null", 1),
        ),
        bad(
            "a text for a list",
            "type",
            named,
            good().replacen("ports: [{name: http, port: 80, protocol: TCP}]", "ports: x", 1),
        ),
        bad("an unknown type", "word", named, good().replace("type: LoadBalancer", "type: Balancer")),
        bad("an unknown protocol", "word", named, good().replacen("protocol: TCP", "protocol: QUIC", 1)),
        bad("a name that is no label", "name", &["document 1"], good().replacen("name: victim,", "name: Vic_tim,", 1)),
        bad(
            "a kind that Kubernetes has not",
            "unknown_kind",
            &["Servise"],
            good().replacen("kind: Service", "kind: Servise", 1),
        ),
        bad("an address of another family", "address", slice, good().replace("10.244.77.1", "2001:db8::1")),
        bad("a null list of objects", "list", &["items"], "apiVersion: v1\nkind: List\nitems: null\n".to_owned()),
    ]
}

#[test]
fn each_is_told_counted_and_harmless() {
    let server = Server::demo();
    let file = server.demo.manifest(2, "victim.yaml");
    let victim = format!("victim.my-namespace.{ZONE}");
    let shown = |name: &str, want: &[&str]| {
        wait_for(&format!("{name} is {want:?}"), DEADLINE, || {
            same(server.external().address_set(name, "A")?, addresses(want))
        });
    };
    for Bad { what, text, reason, named } in all() {
        fs::write(&file, service("victim", "my-namespace", GOOD)).expect("the folder is ours");
        shown(&victim, &[GOOD]);
        let good = service("victim", "my-namespace", GOOD);
        assert_ne!(text, good, "{what}: this case breaks nothing");
        let skipped = || -> Vec<(String, f64)> {
            let all = server.metrics().into_iter();
            all.filter(|(name, _)| name.starts_with("signpost_objects_skipped_total")).collect()
        };
        let mut want = skipped();
        let counter = format!(r#"signpost_objects_skipped_total{{cluster="cluster-2",reason="{reason}"}}"#);
        let place = want.iter_mut().find(|(name, _)| *name == counter);
        place.unwrap_or_else(|| panic!("{what}: no counter {counter}")).1 += 1.0;
        let lines = server.log().len();
        // Renamed into place, so that no half of it is ever read.
        let beside = server.demo.manifest(2, ".victim");
        fs::write(&beside, &text).expect("the folder is ours");
        fs::rename(&beside, &file).expect("the folder is ours");
        wait_for(&format!("{what} is counted once, by its reason alone"), DEADLINE, || same(skipped(), want.clone()));
        // The warning is written after it is counted.
        let log = wait_for("the warning", DEADLINE, || {
            let log = server.log().split_off(lines);
            let warned = log.iter().any(|line| line.contains("WARN"));
            if warned { Ok(log) } else { Err(format!("{log:?}")) }
        });
        let warnings: Vec<&String> = log.iter().filter(|line| !line.contains("INFO")).collect();
        assert_eq!(warnings.len(), 1, "{what}: {warnings:?}");
        for word in named.iter().chain(&["WARN", "cluster-2", "victim.yaml"]) {
            assert!(warnings[0].contains(word), "{what}: {word:?} is not in {}", warnings[0]);
        }
        if reason == "name" {
            // By another name it is another object, and this one is in no file any more.
            shown_gone(&server, &victim);
        } else {
            let kept = server.external().address_set(&victim, "A");
            assert_eq!(kept, Ok(addresses(&[GOOD])), "{what}: the last good state stays");
        }
        assert_eq!(server.external().address_set(SERVICE, "A"), Ok(addresses(&EXTERNAL)), "{what}");
    }
    // Whoever wants it gone deletes the file, also while it is broken.
    fs::remove_file(&file).expect("the folder is ours");
    shown_gone(&server, &victim);
    assert!(server.process.terminate(DEADLINE).success());
}

fn shown_gone(server: &Server, name: &str) {
    wait_for("gone", DEADLINE, || same(server.external().ask(name, "A")?.status, "NXDOMAIN".to_owned()));
}

/// Objects that a real directory has and that are none of ours are told once and change nothing.
#[test]
fn other_kinds() {
    let server = Server::demo();
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: my-namespace}\n";
    let both = format!("{text}---\n{}", service("beside", "my-namespace", GOOD));
    fs::write(server.demo.manifest(2, "deployment.yaml"), both).expect("the folder is ours");
    let name = format!("beside.my-namespace.{ZONE}");
    wait_for("the Service beside it", DEADLINE, || {
        same(server.external().address_set(&name, "A")?, addresses(&[GOOD]))
    });
    let counter = r#"signpost_objects_skipped_total{cluster="cluster-2",reason="unknown_kind"}"#;
    assert_eq!(server.metric(counter), 1.0);
    server.log_has(&["WARN", "deployment.yaml", "document 1", "Deployment"]).expect("it is told");
}
