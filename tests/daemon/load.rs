//! Load that a cluster tells, by an annotation or by objects.

use std::fs;

use super::server::{DEADLINE, Demo, EXTERNAL, INTERNAL, SERVICE, Server};
use crate::common::dig::addresses;
use crate::common::wait_for;

/// A tenth of the answers at first: of so many, one at least with a chance of one to a billion.
const ASKED: usize = 200;

/// Whether the own cluster is not always first, inside it.
fn others_go_first(server: &Server) -> Result<bool, String> {
    let own = addresses(&INTERNAL[..1])[0];
    for _ in 0..ASKED {
        let seen = server.internal().addresses(SERVICE, "A")?;
        if seen.len() != INTERNAL.len() {
            return Err(format!("{seen:?}"));
        }
        if seen[0] != own {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn a_full_cluster_sends_some_of_its_clients_elsewhere() {
    let server = Server::start(Demo::new(), &[]);
    assert_eq!(others_go_first(&server), Ok(false));
    let path = server.demo.manifest(1, "my-service.yaml");
    let manifest = fs::read_to_string(&path).expect("the demo is there");
    let annotated = |load: &str| {
        let text =
            manifest.replacen("metadata:", &format!("metadata:\n  annotations: {{signpost.dev/load: '{load}'}}"), 1);
        assert_ne!(text, manifest);
        fs::write(&path, text).expect("the folder is ours");
    };
    // What is no load is told, and changes nothing.
    annotated("7");
    wait_for("a warning", DEADLINE, || server.log_has(&["signpost.dev/load", "\"7\"", "not a number from 0 to 1"]));
    assert_eq!(others_go_first(&server), Ok(false));
    annotated("1.0");
    wait_for("others", DEADLINE, || match others_go_first(&server) {
        Ok(true) => Ok(()),
        Ok(false) => Err("the own cluster is always first".to_owned()),
        Err(error) => Err(error),
    });
    assert_eq!(server.metric("signpost_shares_shedding"), 1.0);
    assert_eq!(server.metric("signpost_shares_overloaded"), 0.0);
    // Nobody outside is sent anywhere else than before: there all are one band.
    let mut seen = server.external().address_set(SERVICE, "A").expect("an answer");
    seen.sort_unstable();
    let mut all = addresses(&EXTERNAL);
    all.sort_unstable();
    assert_eq!(seen, all);
}

#[test]
fn objects_say_it_until_they_expire() {
    let server = Server::start(Demo::new(), &[]);
    let path = server.demo.manifest(1, "load.yaml");
    let say = |text: &str| fs::write(&path, text).expect("the folder is ours");
    let service = |spec: &str| {
        let (name, namespace) = ("my-service", "my-namespace");
        format!(
            "apiVersion: signpost.dev/v1alpha1\nkind: ServiceLoad\n\
             metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
        )
    };
    say(&service("{load: 7}"));
    wait_for("a warning", DEADLINE, || {
        server.log_has(&[
            "load.yaml",
            "line 4",
            "ServiceLoad my-namespace/my-service",
            "spec.load: \"7\" is not a number",
        ])
    });
    assert_eq!(others_go_first(&server), Ok(false));
    say(&service("{load: 1, validForSeconds: 5}"));
    let shedding = |want: f64| match server.metric("signpost_shares_shedding") {
        got if got == want => Ok(()),
        got => Err(format!("{got} shares shed something")),
    };
    wait_for("its first step", DEADLINE, || shedding(1.0));
    assert_eq!(others_go_first(&server), Ok(true));
    let all = "apiVersion: signpost.dev/v1alpha1\nkind: ClusterLoad\nmetadata: {name: cluster}\nspec: {load: 0.9}\n";
    say(&format!("{}---\n{all}", service("{load: 0.1}")));
    wait_for("the cluster as a whole", DEADLINE, || shedding(2.0));
}
