//! A cluster whose API cannot be reached: what only it could hold is SERVFAIL, everything else is served.

use std::fs;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::server::{self, DEADLINE, Demo, EXTERNAL, SERVICE, Server, ZONE, ask_within};
use crate::common::dig::{Reply, addresses};
use crate::common::{free_port, local, wait_for};

/// limits.syncWait where the configuration does not say another one.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// Long enough for an answer on loopback, and short enough that the first one is noticed at once.
const SOON: Duration = Duration::from_millis(50);

/// A demo with one more cluster, behind an API on a port where nobody listens.
fn demo(settings: &str, sync_wait: &str) -> Demo {
    let demo = with_default_wait(settings);
    let limits = format!("{}\nlimits: {{syncWait: {sync_wait}}}\n", demo.read_config());
    demo.write_config(&limits);
    demo
}

fn with_default_wait(settings: &str) -> Demo {
    let demo = Demo::new();
    let kubeconfig = demo.path().join("config/cluster-4.kubeconfig");
    let text = format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{}'}}}}]
users: [{{name: u, user: {{token: t}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
",
        free_port()
    );
    fs::write(&kubeconfig, text).expect("the folder is ours");
    let member = format!("  - name: cluster-4\n    kubeconfig: {{file: cluster-4.kubeconfig}}\n{settings}\nlisteners:");
    demo.edit_config("\nlisteners:", &member);
    demo
}

fn ask(server: &Server, name: &str) -> Reply {
    server.external().ask(name, "A").unwrap_or_else(|error| panic!("{error}"))
}

fn outcome(reply: &Reply) -> (&str, &[u16], usize) {
    (reply.status.as_str(), &reply.extended_errors, reply.authority.len())
}

#[test]
fn unknown_names_are_servfail() {
    let server = Server::start(demo("", "1s"), &[]);
    assert_eq!(server.external().address_set(SERVICE, "A"), Ok(addresses(&EXTERNAL)));
    assert_eq!(server.internal().addresses(SERVICE, "A").map(|a| a.len()), Ok(3));
    let unknown = ["x.my-namespace", "x.other", "a.b.x.other", "_http._tcp.x.my-namespace"];
    for name in unknown.map(|name| format!("{name}.{ZONE}")) {
        assert_eq!(outcome(&ask(&server, &name)), ("SERVFAIL", &[14][..], 0), "{name}");
    }
    for name in ["other", "my-namespace"].map(|name| format!("{name}.{ZONE}")) {
        assert_eq!(outcome(&ask(&server, &name)), ("NOERROR", &[][..], 1), "{name}");
    }
    server.log_has(&["WARN", "not synced in time", "cluster-4"]).expect("it is said once who is missing");
    assert_eq!(server.metric(r#"signpost_cluster_synced{cluster="cluster-4"}"#), 0.0);
    wait_for("the failure is counted", DEADLINE, || {
        match server.metric(r#"signpost_source_errors_total{cluster="cluster-4",reason="connect"}"#) {
            n if n >= 1.0 => Ok(()),
            n => Err(n.to_string()),
        }
    });
}

#[test]
fn only_where_the_missing_cluster_may_export() {
    let server = Server::start(demo("    namespaces: [other]", "1s"), &[]);
    assert_eq!(outcome(&ask(&server, &format!("x.other.{ZONE}"))), ("SERVFAIL", &[14][..], 0));
    assert_eq!(outcome(&ask(&server, &format!("x.my-namespace.{ZONE}"))), ("NXDOMAIN", &[][..], 1));
    assert_eq!(outcome(&ask(&server, &format!("x.third.{ZONE}"))), ("NXDOMAIN", &[][..], 1));
}

#[test]
fn readiness_names_who_is_waited_for() {
    // Longer than this test can take: it ends the server while it waits.
    let server = Server::spawn(demo("", "10m"), &[]);
    wait_for("the others have synced", DEADLINE, || server.readyz_is("503", "cluster-4: not synced"));
    let patience = Duration::from_millis(200);
    let answer = ask_within(local(server.ports.external), SERVICE, RecordType::A, patience);
    assert!(answer.is_none(), "nothing is answered before that");
    assert!(server.process.terminate(DEADLINE).success());
}

/// Resolvers remember what they are told: before the time has passed, that is nothing, and from then on only the truth.
#[test]
fn the_default_time_passes_before_anything_is_said() {
    let since = Instant::now();
    let server = Server::spawn(with_default_wait("    namespaces: [other]"), &[]);
    wait_for("the others have synced", DEADLINE, || server.readyz_is("503", "cluster-4: not synced"));
    let missing = format!("x.other.{ZONE}");
    let (external, internal) = (local(server.ports.external), local(server.ports.internal));
    let mut silent = 0;
    let first = loop {
        let answer = ask_within(external, SERVICE, RecordType::A, SOON);
        let failure = ask_within(internal, &missing, RecordType::A, SOON);
        let at = since.elapsed();
        assert!(at < DEFAULT_WAIT + DEADLINE, "nothing is answered after {at:?}: {:?}", server.log());
        if let Some(answer) = &answer {
            let mut want = EXTERNAL.map(str::to_owned).to_vec();
            want.sort();
            assert_eq!(server::addresses(answer), want);
        }
        if let Some(failure) = &failure {
            assert_eq!(failure.metadata.response_code, ResponseCode::ServFail);
        }
        // The two are asked one after the other, and the sockets may be bound between.
        if answer.is_some() || failure.is_some() {
            break at;
        }
        let waits = server.readyz_is("503", "cluster-4: not synced");
        assert!(waits.is_ok() || since.elapsed() >= DEFAULT_WAIT, "{waits:?}");
        silent += 1;
    };
    println!("the first answer after {} ms, {silent} times nothing before it", first.as_millis());
    assert!(first >= DEFAULT_WAIT, "answered after {first:?}");
    assert!(silent > 100, "asked only {silent} times before that");
    wait_for("ready", DEADLINE, || server.readyz_is("200", "ok"));
    server.log_has(&["WARN", "not synced in time", "cluster-4"]).expect("it is said once who is missing");

    assert_eq!(server.external().address_set(SERVICE, "A"), Ok(addresses(&EXTERNAL)));
    assert_eq!(outcome(&ask(&server, &missing)), ("SERVFAIL", &[14][..], 0));
    let others = ["x.my-namespace", "x.third", "y.x.my-namespace"];
    for name in others.map(|name| format!("{name}.{ZONE}")) {
        assert_eq!(outcome(&ask(&server, &name)), ("NXDOMAIN", &[][..], 1), "{name}");
    }
    for name in [ZONE.to_owned(), format!("my-namespace.{ZONE}"), format!("other.{ZONE}")] {
        assert_eq!(outcome(&ask(&server, &name)), ("NOERROR", &[][..], 1), "{name}");
    }
    let log = server.log();
    let at = |word: &str| log.iter().position(|line| line.contains(word)).unwrap_or_else(|| panic!("{word}: {log:?}"));
    assert!(at("not synced in time") < at("ready"), "{log:?}");
}
