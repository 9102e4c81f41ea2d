//! The kube source against an API server whose every octet the test decides. Whatever happens, what the source says is at
//! each moment a state that the API really had.

#[path = "common/scripted_api.rs"]
mod scripted_api;
#[path = "common/source_world.rs"]
mod source_world;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use scripted_api::{Ask, Fault, Kind, ScriptedApi, bookmark, line, status};
use serde_json::json;
use signpost::config::{self, Namespaces, Source};
use signpost::model::Label;
use signpost::source::kube::{self, Identities, Timing};
use signpost::source::status::{ErrorReason, Reason};
use source_world::*;

#[tokio::test]
async fn lists_then_follows() {
    let (api, mut world) = synced().await;
    api.put(SERVICE, service("web", "192.0.2.9"));
    api.put(SLICE, slice("web-2", "10.1.0.2"));
    world.until_current().await;
    assert_eq!(world.ip("web").unwrap(), "192.0.2.9");
    api.delete(SERVICE, "ns", "web");
    api.delete(SLICE, "ns", "web-1");
    world.until_current().await;
    // Through the ends of watches, of which each has its bookmark.
    let watches = api.count(Ask::Watch(SERVICE));
    world.until("three more watches", |w| w.api.count(Ask::Watch(SERVICE)) > watches + 3).await;
    api.put(SERVICE, service("late", "192.0.2.7"));
    world.until_current().await;
    assert_eq!(api.count(Ask::List(SERVICE)), 1, "bookmarks make new lists unnecessary");
    assert!(ErrorReason::ALL.iter().all(|&reason| world.status.errors(reason) == 0));
    assert!(world.status.last_heard().is_some() && world.status.watch_restarts() >= 3);
    world.stop().await;
}

#[tokio::test]
async fn a_service_that_is_no_longer_exported_is_gone() {
    let (api, mut world) = synced().await;
    let mut inner = service("web", "192.0.2.1");
    inner["spec"]["type"] = json!("ClusterIP");
    api.put(SERVICE, inner);
    world.until("web is gone", |w| w.ip("web").is_none()).await;
    api.put(SERVICE, service("web", "192.0.2.1"));
    world.until("web is back", |w| w.ip("web").is_some()).await;
}

/// Before the first list: the fault delays it, and nothing is published for it. After it: what was heard last stays.
async fn a_list_that_fails(fault: Fault, reason: ErrorReason) {
    let api = api().await;
    for _ in 0..2 {
        api.fault(Ask::List(SERVICE), fault.clone());
    }
    let mut world = World::start(&api).await;
    world.until("both faults", |w| w.status.errors(reason) >= 2).await;
    world.until_current().await;
    assert_eq!(world.status.errors(reason), 2, "{fault:?}");

    api.fault(Ask::List(SERVICE), fault.clone());
    world.relist.notify_one();
    world.until("the fault of a relist", |w| w.status.errors(reason) >= 3).await;
    assert!(world.is_current(), "what was heard stays: {fault:?}");
    // The watch goes on, and so does the next list.
    api.put(SERVICE, service("web", "192.0.2.8"));
    world.until_current().await;
    world.until("the list after the fault", |w| w.resets[&SERVICE] >= 2).await;
    assert!(world.is_current());
    world.stop().await;
}

#[tokio::test]
async fn lists_that_are_refused() {
    for (code, headers, reason) in [
        (401, "", ErrorReason::Unauthorized),
        (403, "", ErrorReason::Forbidden),
        (404, "", ErrorReason::NotFound),
        (410, "", ErrorReason::Gone),
        (429, "", ErrorReason::Throttled),
        (500, "", ErrorReason::Server),
        (503, "", ErrorReason::Server),
        (302, "Location: /elsewhere\r\n", ErrorReason::Status),
        (204, "", ErrorReason::Status),
    ] {
        let body = if code == 204 { String::new() } else { status(code, "no") };
        a_list_that_fails(Fault::Status(code, headers, body), reason).await;
    }
}

#[tokio::test]
async fn lists_that_are_cut_off() {
    for share in [0.0, 0.5, 0.99] {
        a_list_that_fails(Fault::CutByLength(share), ErrorReason::Connect).await;
        a_list_that_fails(Fault::CutInChunks(share), ErrorReason::Connect).await;
        // HTTP cannot tell this end from a good one, but the text can.
        a_list_that_fails(Fault::CutByClose(share), ErrorReason::Protocol).await;
    }
}

#[tokio::test]
async fn lists_that_are_none() {
    for body in [
        "",
        "<html>It works!</html>",
        "{}",
        r#"{"kind":"Status","apiVersion":"v1","status":"Success"}"#,
        r#"{"kind":"ServiceList","apiVersion":"v1","items":[]}"#,
        r#"{"kind":"ServiceList","apiVersion":"v1","metadata":{},"items":[]}"#,
        r#"{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"5000"},"items":[{"metadata":}]}"#,
        r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"5000"},"items":[]}"#,
        r#"{"kind":"ServiceList","apiVersion":"v2","metadata":{"resourceVersion":"5000"},"items":[]}"#,
    ] {
        a_list_that_fails(Fault::Body(body.to_owned()), ErrorReason::Protocol).await;
    }
    a_list_that_fails(
        Fault::Changed(|body| body.replacen("ServiceList", "EndpointSliceList", 1)),
        ErrorReason::Protocol,
    )
    .await;
}

#[tokio::test]
async fn a_list_that_never_comes_and_one_that_never_ends() {
    let slow = Duration::from_millis(20);
    let mut timing = timing();
    timing.read = Duration::from_millis(700);
    timing.list = Duration::from_millis(900);
    for fault in [Fault::Silence, Fault::Drip(slow)] {
        let api = api().await;
        api.fault(Ask::List(SERVICE), fault);
        let mut world = World::start_with(&api, timing, Arc::default(), |_| {}).await;
        world.until("the time-out", |w| w.status.errors(ErrorReason::Timeout) >= 1).await;
        world.until_current().await;
    }
}

#[tokio::test]
async fn an_empty_list_is_empty() {
    let (api, mut world) = synced().await;
    api.fault(Ask::Watch(SERVICE), Fault::Silence);
    api.delete(SERVICE, "ns", "web");
    api.delete(SERVICE, "ns", "mail");
    world.relist.notify_one();
    world.until("nothing", |w| w.known[&SERVICE].is_empty()).await;
    assert!(!world.known[&SLICE].is_empty());

    let api = ScriptedApi::start().await;
    let mut world = World::start(&api).await;
    world.until("an empty cluster is synced", World::synced).await;
}

#[tokio::test]
async fn pages_are_one_list() {
    let api = ScriptedApi::start().await;
    for i in 0..7 {
        api.put(SERVICE, service(&format!("s{i}"), "192.0.2.1"));
    }
    let timing = Timing { page: 3, ..timing() };
    let mut world = World::start_with(&api, timing, Arc::default(), |_| {}).await;
    world.until_current().await;
    assert_eq!((api.count(Ask::List(SERVICE)), world.resets[&SERVICE]), (3, 1));
    world.stop().await;

    // The token expires: the list begins anew, and in one piece.
    api.fault(Ask::List(SERVICE), Fault::Changed(|body| body.replacen("\"continue\":\"1", "\"continue\":\"0", 1)));
    api.compact();
    let before = api.count(Ask::List(SERVICE));
    let mut world = World::start_with(&api, timing, Arc::default(), |_| {}).await;
    world.until_current().await;
    assert_eq!(world.status.errors(ErrorReason::Gone), 1);
    assert_eq!(world.resets[&SERVICE], 1);
    let asked: Vec<_> = api.requests().into_iter().filter(|r| r.0 == Ask::List(SERVICE)).skip(before).collect();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(!asked[2].1.contains("limit"), "{asked:?}");
    world.stop().await;

    // Pages of different versions are no consistent list, and a token that leads nowhere ends.
    api.fault(
        Ask::List(SERVICE),
        Fault::Changed(|body| body.replacen("\"resourceVersion\":\"", "\"resourceVersion\":\"9", 1)),
    );
    let mut world = World::start_with(&api, timing, Arc::default(), |_| {}).await;
    world.until_current().await;
    assert_eq!(world.status.errors(ErrorReason::Protocol), 1);
}

#[tokio::test]
async fn watches_that_fail_and_are_resumed() {
    let new = || line("ADDED", &versioned(service("new", "192.0.2.50"), 1010));
    for (fault, reason) in [
        (Fault::Status(401, "", status(401, "no")), ErrorReason::Unauthorized),
        (Fault::Status(403, "", status(403, "no")), ErrorReason::Forbidden),
        (Fault::Status(429, "", status(429, "no")), ErrorReason::Throttled),
        (Fault::Status(500, "", status(500, "no")), ErrorReason::Server),
        (Fault::Status(503, "", "<html>".to_owned()), ErrorReason::Server),
        (Fault::Silence, ErrorReason::Timeout),
        (Fault::LinesThenCut(vec![bookmark(1003)]), ErrorReason::Connect),
        (Fault::LinesThenSilence(vec![bookmark(1003)]), ErrorReason::Timeout),
    ] {
        let (api, mut world) = synced().await;
        api.fault(Ask::Watch(SERVICE), fault.clone());
        world.until("the fault", |w| w.status.errors(reason) >= 1).await;
        api.put(SERVICE, service("web", "192.0.2.44"));
        world.until_current().await;
        assert_eq!(world.resets[&SERVICE], 1, "resumed without a list after {fault:?}");
        world.stop().await;
    }
    // What came before the cut is used, and once.
    let (api, mut world) = synced().await;
    api.fault(Ask::Watch(SERVICE), Fault::LinesThenCut(vec![new()]));
    world.check_history = false;
    world.until("the event", |w| w.ip("new").is_some()).await;
    world.until("the next watch", |w| w.api.requests().iter().any(|r| r.1.contains("resourceVersion=1010"))).await;
}

#[tokio::test]
async fn watches_that_only_a_list_can_mend() {
    let gone = || line("ERROR", &serde_json::from_str(&status(410, "too old")).unwrap());
    let broken = || line("ERROR", &serde_json::from_str(&status(500, "etcd")).unwrap());
    for (fault, reason) in [
        (Fault::Status(410, "", status(410, "too old")), ErrorReason::Gone),
        (Fault::Status(404, "", status(404, "no such thing")), ErrorReason::NotFound),
        (Fault::Status(400, "", status(400, "bad version")), ErrorReason::Status),
        (Fault::Lines(vec![gone()]), ErrorReason::Gone),
        (Fault::Lines(vec![bookmark(1003), gone()]), ErrorReason::Gone),
        (Fault::Lines(vec![broken()]), ErrorReason::Server),
        (Fault::Lines(vec![]), ErrorReason::Silent),
        (Fault::LinesThenCut(vec![]), ErrorReason::Connect),
        (Fault::LinesThenSilence(vec![]), ErrorReason::Timeout),
        (Fault::Lines(vec!["junk\n".to_owned()]), ErrorReason::Protocol),
        (Fault::Lines(vec![line("ADDED", &service("unversioned", "192.0.2.3"))]), ErrorReason::Protocol),
        (Fault::Lines(vec![line("DELETED", &json!({"metadata": {"resourceVersion": "1005"}}))]), ErrorReason::Protocol),
        (Fault::Lines(vec![line("ADDED", &versioned(service("old", "192.0.2.3"), 5))]), ErrorReason::TimeTravel),
        (Fault::Lines(vec![bookmark(7)]), ErrorReason::TimeTravel),
    ] {
        let (api, mut world) = synced().await;
        api.fault(Ask::Watch(SERVICE), fault.clone());
        world.until("the fault", |w| w.status.errors(reason) >= 1).await;
        world.until("a list", |w| w.resets[&SERVICE] == 2).await;
        assert_eq!(world.resets[&SLICE], 1, "the other kind goes on: {fault:?}");
        api.put(SERVICE, service("web", "192.0.2.44"));
        world.until_current().await;
        world.stop().await;
    }
}

#[tokio::test]
async fn events_in_crumbs() {
    let (api, mut world) = synced().await;
    let text = line("ADDED", &versioned(service("new", "192.0.2.50"), 1010)) + &bookmark(1011);
    let crumbs = text.as_bytes().chunks(7).map(|crumb| String::from_utf8(crumb.to_vec()).unwrap()).collect();
    world.check_history = false;
    api.fault(Ask::Watch(SERVICE), Fault::Lines(crumbs));
    world.until("the event", |w| w.ip("new").is_some()).await;
    world.until("the bookmark", |w| w.api.requests().iter().any(|r| r.1.contains("resourceVersion=1011"))).await;
}

#[tokio::test]
async fn a_compacted_version_is_listed_anew() {
    let log = Log::default();
    let sink = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || sink.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (api, mut world) = synced().await;
    api.compact();
    api.set_up(false);
    api.put(SERVICE, service("web", "192.0.2.77"));
    api.delete(SERVICE, "ns", "mail");
    api.compact();
    api.set_up(true);
    world.until_current().await;
    world.until("a list for a 410", |w| w.resets[&SERVICE] >= 2).await;
    // That is told, and no reason to worry.
    let log = log.text();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("reason=\"gone\"")).collect();
    assert!(!told.is_empty() && told.iter().all(|line| line.contains(" INFO ")), "{log}");
}

/// What the source logs in the test's thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_server_that_dies_and_returns() {
    let (api, mut world) = synced().await;
    api.set_up(false);
    world.until("the loss", |w| w.status.errors(ErrorReason::Connect) >= 4).await;
    assert!(world.is_current(), "what was heard stays");
    api.put(SERVICE, service("web", "192.0.2.77"));
    api.delete(SERVICE, "ns", "mail");
    api.set_up(true);
    world.until_current().await;
}

#[tokio::test]
async fn a_server_that_is_down_at_the_start() {
    let api = api().await;
    api.set_up(false);
    let mut world = World::start(&api).await;
    world.until("some tries", |w| w.status.errors(ErrorReason::Connect) >= 3).await;
    assert!(world.known.is_empty());
    api.set_up(true);
    world.until_current().await;
}

#[tokio::test]
async fn a_server_that_is_stopped_is_found_and_followed_again() {
    let (api, mut world) = synced().await;
    api.freeze(true);
    let begun = Instant::now();
    world.until("the silence", |w| w.status.errors(ErrorReason::Timeout) >= 1).await;
    assert!(begun.elapsed() < PATIENCE / 2, "within the time of a watch");
    assert!(world.is_current(), "what was heard stays");
    api.put(SERVICE, service("web", "192.0.2.77"));
    api.delete(SERVICE, "ns", "mail");
    api.freeze(false);
    world.until_current().await;
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let api = api().await;
    api.fault(Ask::List(SERVICE), Fault::Status(429, "Retry-After: 1\r\n", status(429, "slow down")));
    let begun = Instant::now();
    let mut world = World::start(&api).await;
    world.until_current().await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(api.count(Ask::List(SERVICE)), 2, "no try before that");
}

#[tokio::test]
async fn an_older_list_is_not_used_until_it_is_a_restore() {
    let (api, mut world) = synced().await;
    // A replica that lags, twice.
    for _ in 0..2 {
        api.fault(
            Ask::List(SERVICE),
            Fault::Body(
                r#"{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"999"},"items":[]}"#.into(),
            ),
        );
    }
    world.relist.notify_one();
    world.until("two old lists", |w| w.status.errors(ErrorReason::TimeTravel) >= 2).await;
    world.until("a good list", |w| w.resets[&SERVICE] >= 2).await;
    assert!(world.is_current());

    // A backup.
    api.restore(500, SERVICE, vec![versioned(service("web", "192.0.2.33"), 400)]);
    world.relist.notify_one();
    world.until_current().await;
    assert_eq!(world.ip("web").unwrap(), "192.0.2.33");
    assert!(world.status.errors(ErrorReason::TimeTravel) >= 4);
    api.put(SERVICE, service("web", "192.0.2.34"));
    world.until_current().await;
}

#[tokio::test]
async fn a_name_that_comes_to_mean_another_cluster_keeps_its_data() {
    let (api, mut world) = synced().await;
    let before = world.known.clone();
    api.set_uid("uid-2");
    api.put(SERVICE, service("web", "203.0.113.66"));
    api.put(SERVICE, service("foreign", "203.0.113.67"));
    // The watch that is open belongs to whom it was opened with; cut it.
    api.set_up(false);
    api.set_up(true);
    world.until("the stranger", |w| w.status.errors(ErrorReason::Identity) >= 3).await;
    world.check_history = false;
    world.relist.notify_one();
    let lists = world.status.errors(ErrorReason::Identity);
    world.until("more tries", |w| w.status.errors(ErrorReason::Identity) >= lists + 3).await;
    assert!(world.resets.values().all(|&resets| resets == 1), "nothing of the stranger's is used");
    assert_eq!(world.known[&SLICE], before[&SLICE]);
    world.stop().await;
    // A new start acknowledges it.
    let mut world = World::start(&api).await;
    world.until_current().await;
    assert!(world.ip("foreign").is_some());
}

#[tokio::test]
async fn two_names_for_one_cluster() {
    let api = api().await;
    let identities = Arc::<Identities>::default();
    let mut first = World::start_with(&api, timing(), Arc::clone(&identities), |_| {}).await;
    first.until_current().await;
    let file = kubeconfig(&api.kubeconfig("good"));
    let mut second = World::start_from(&api, timing(), identities, |_| {}, file, "c2", 1).await;
    second.until("the refusal", |w| w.status.errors(ErrorReason::Identity) >= 3).await;
    assert!(second.known.is_empty());
    first.stop().await;
    second.until_current().await;
}

#[tokio::test]
async fn without_the_right_to_know_who_it_is() {
    let api = api().await;
    for _ in 0..50 {
        api.fault(Ask::Uid, Fault::Status(403, "", status(403, "no")));
    }
    let mut world = World::start(&api).await;
    world.until_current().await;
    assert!(world.status.errors(ErrorReason::Forbidden) >= 1);
    assert_eq!(world.resets[&SERVICE], 1);
}

#[tokio::test]
async fn namespaces_one_by_one() {
    let api = api().await;
    let mut other = service("other", "192.0.2.60");
    other["metadata"]["namespace"] = json!("two");
    api.put(SERVICE, other.clone());
    other["metadata"]["namespace"] = json!("hidden");
    api.put(SERVICE, other.clone());
    api.allow_namespaced_only();
    let change = |config: &mut config::Cluster| {
        config.namespaces = Namespaces::Only(["ns", "two"].map(|n| Label::parse(n).unwrap()).to_vec());
    };
    // While one of the namespaces fails, nothing is said of the kind.
    api.fault(Ask::List(SERVICE), Fault::CutByLength(0.0));
    let mut world = World::start_with(&api, timing(), Arc::default(), change).await;
    world.until_current().await;
    assert_eq!((world.known[&SERVICE].len(), world.resets[&SERVICE]), (3, 1));
    // Both are watched.
    other["metadata"]["namespace"] = json!("two");
    other["status"]["loadBalancer"]["ingress"][0]["ip"] = json!("192.0.2.61");
    api.put(SERVICE, other);
    api.put(SERVICE, service("web", "192.0.2.62"));
    world.until_current().await;
    assert_eq!(world.ip("other").unwrap(), "192.0.2.61");
}

#[tokio::test]
async fn more_namespaces_than_are_listed_one_by_one() {
    let api = api().await;
    let mut hidden = service("hidden", "192.0.2.60");
    hidden["metadata"]["namespace"] = json!("hidden");
    api.put(SERVICE, hidden);
    let change = |config: &mut config::Cluster| {
        let mut names: Vec<_> = (0..16).map(|i| Label::parse(&format!("n{i:02}")).unwrap()).collect();
        names.push(Label::parse("ns").unwrap());
        config.namespaces = Namespaces::Only(names);
    };
    let mut world = World::start_with(&api, timing(), Arc::default(), change).await;
    world.until_current().await;
    assert_eq!((world.known[&SERVICE].len(), api.count(Ask::List(SERVICE))), (2, 1));
}

#[tokio::test]
async fn a_malformed_object_costs_itself_only() {
    let api = api().await;
    let mut bad = service("bad", "192.0.2.3");
    bad["spec"]["ports"] = json!("eighty");
    api.put(SERVICE, bad.clone());
    let mut world = World::start(&api).await;
    world.check_history = false;
    world.until("the good ones", |w| w.ip("web").is_some() && w.ip("mail").is_some()).await;
    assert!(world.ip("bad").is_none());
    assert_eq!(world.status.skips(Reason::Type), 1);

    // Repaired, and broken again: the last good state stays, through an event and through a list.
    api.put(SERVICE, service("bad", "192.0.2.3"));
    world.until("repaired", |w| w.ip("bad").is_some()).await;
    bad["metadata"]["annotations"] = json!({"changed": "yes"});
    api.put(SERVICE, bad);
    world.until("broken", |w| w.status.skips(Reason::Type) >= 2).await;
    world.relist.notify_one();
    world.until("listed", |w| w.resets[&SERVICE] >= 2).await;
    assert_eq!(world.ip("bad").unwrap(), "192.0.2.3");
    api.delete(SERVICE, "ns", "bad");
    world.until("gone", |w| w.ip("bad").is_none()).await;
    assert!(world.ip("web").is_some());
    assert_eq!(ErrorReason::ALL.iter().map(|&r| world.status.errors(r)).sum::<u64>(), 0);
}

#[tokio::test]
async fn more_objects_than_the_limit_are_no_list() {
    let api = ScriptedApi::start().await;
    for i in 0..21 {
        api.put(SERVICE, service(&format!("s{i}"), "192.0.2.1"));
    }
    let mut world = World::start(&api).await;
    world.until("the limit", |w| w.status.errors(ErrorReason::Limit) >= 2).await;
    assert!(!world.known.contains_key(&SERVICE));
    api.delete(SERVICE, "ns", "s20");
    world.until("one fewer", World::is_current).await;
}

#[tokio::test]
async fn the_list_comes_again_by_itself() {
    let api = api().await;
    let timing = Timing { relist: Duration::from_millis(200), ..timing() };
    let mut world = World::start_with(&api, timing, Arc::default(), |_| {}).await;
    world.until("three lists", |w| w.resets.get(&SERVICE) >= Some(&3)).await;
    assert!(world.status.relists() >= 2 && world.is_current());
}

#[tokio::test]
async fn credentials_are_read_again() {
    let api = api().await;
    let file = kubeconfig(&api.kubeconfig("expired"));
    let path = file.path().to_owned();
    let mut world = World::start_from(&api, timing(), Arc::default(), |_| {}, file, "c1", 0).await;
    world.until("the refusal", |w| w.status.errors(ErrorReason::Unauthorized) >= 2).await;
    assert!(world.known.is_empty());
    // Half written: the old ones stay in use.
    std::fs::write(&path, "clusters: [").unwrap();
    let errors = world.status.errors(ErrorReason::Unauthorized);
    world.until("more refusals", |w| w.status.errors(ErrorReason::Unauthorized) >= errors + 2).await;
    std::fs::write(&path, api.kubeconfig("good")).unwrap();
    world.until_current().await;
}

#[tokio::test]
async fn a_busy_publisher_is_waited_for() {
    let (api, mut world) = synced().await;
    for i in 0..200 {
        api.put(SERVICE, service("web", &format!("192.0.2.{}", i % 250 + 1)));
    }
    // Nobody takes updates for longer than a watch may last.
    tokio::time::sleep(timing().read + Duration::from_millis(500)).await;
    api.put(SERVICE, service("web", "192.0.2.254"));
    world.until_current().await;
    assert_eq!(world.resets[&SERVICE], 1);
    world.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_kubeconfig_is_one_sentence() {
    let api = api().await;
    let good = api.kubeconfig("secret-token");
    let plugin = good.replace(
        "token: 'secret-token'",
        "exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/false, interactiveMode: Never}",
    );
    for (text, context, parts) in [
        ("users: [{name: u, user: {token: 'secret-token'}}]\nclusters: [", None, vec!["is no kubeconfig", "line 2"]),
        ("just a text", None, vec!["is no kubeconfig"]),
        ("", None, vec!["no current-context"]),
        (&good, Some("nope"), vec!["no context \"nope\"", "it has: c"]),
        (&good.replace("users: [{name: u", "users: [{name: v"), None, vec!["context \"c\"", "has no user \"u\""]),
        (&good.replace("cluster: k", "cluster: l"), None, vec!["context \"c\"", "cluster"]),
        (
            &good.replace("server:", "certificate-authority: /nowhere/ca.crt, server:"),
            None,
            vec!["context \"c\"", "/nowhere/ca.crt"],
        ),
        (
            &good.replace("server:", "certificate-authority-data: '!', server:"),
            None,
            vec!["context \"c\"", "certificate"],
        ),
        (
            &good.replace("token:", "client-certificate: /nowhere/client.crt, token:"),
            None,
            vec!["context \"c\"", "client"],
        ),
        (
            &good.replace("token: 'secret-token'", "tokenFile: /nowhere/token"),
            None,
            vec!["context \"c\"", "/nowhere/token"],
        ),
        (&good.replace("server:", "proxy-url: 'gopher://x', server:"), None, vec!["context \"c\"", "gopher"]),
    ] {
        let file = kubeconfig(text);
        let mut config = cluster("c1", &file);
        config.source = Source::Kubeconfig { file: file.path().to_owned(), context: context.map(str::to_owned) };
        let Err(error) = kube::prepare(&config).await else { panic!("{text}") };
        let error = error.to_string();
        let path = file.path().display().to_string();
        for part in parts.into_iter().chain(["cluster c1", &path]) {
            assert!(error.contains(part), "{part:?} is missing in: {error}");
        }
        assert!(!error.contains('\n') && !error.contains("secret"), "{error}");
    }

    let file = kubeconfig("");
    let mut config = cluster("c1", &file);
    config.source = Source::Kubeconfig { file: "/nowhere/kubeconfig".into(), context: None };
    let Err(error) = kube::prepare(&config).await else { panic!() };
    assert!(error.to_string().contains("/nowhere/kubeconfig: cannot be read (No such file"), "{error}");

    // What a plugin cannot tell now it may tell later.
    assert!(kube::prepare(&cluster("c1", &kubeconfig(&plugin))).await.is_ok());
    config.source = Source::Manifests { directory: "/nowhere".into() };
    assert!(kube::prepare(&config).await.is_err());
}

#[tokio::test]
async fn a_plugin_that_fails_is_asked_again() {
    let api = api().await;
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    let command = format!(
        "exec: {{apiVersion: client.authentication.k8s.io/v1, command: /bin/cat, args: ['{}'], interactiveMode: Never}}",
        token.display()
    );
    let file = kubeconfig(&api.kubeconfig("good").replace("token: 'good'", &command));
    let mut world = World::start_from(&api, timing(), Arc::default(), |_| {}, file, "c1", 0).await;
    world.until("the failure", |w| w.status.errors(ErrorReason::Credentials) >= 2).await;
    std::fs::write(
        &token,
        r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"good"}}"#,
    )
    .unwrap();
    world.until_current().await;
}

#[tokio::test]
async fn a_kind_that_is_not_there_yet() {
    let api = api().await;
    let mut world = World::start(&api).await;
    world.until("synced without it", World::synced).await;
    world.until("it is missed", |w| w.status.is_missing(Kind::ServiceLoad)).await;
    let asked = api.count(Ask::List(Kind::ServiceLoad));
    world.until("it is looked for again", |w| w.api.count(Ask::List(Kind::ServiceLoad)) > asked + 2).await;
    assert!(ErrorReason::ALL.iter().all(|&reason| world.status.errors(reason) == 0), "that is no error");
    assert_eq!(world.resets[&Kind::ServiceLoad], 1, "said once");

    let load = |part: f64| json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": {"load": part}});
    api.put(Kind::ServiceLoad, load(0.9));
    api.install(Kind::ServiceLoad, true);
    let current = |w: &World, count: usize| w.known.get(&Kind::ServiceLoad).is_some_and(|known| known.len() == count);
    world.until("its objects", |w| current(w, 1)).await;
    assert!(!world.status.is_missing(Kind::ServiceLoad) && world.status.is_missing(Kind::ClusterLoad));
    api.put(Kind::ServiceLoad, json!({"metadata": {"name": "other", "namespace": "ns"}, "spec": {"load": 7}}));
    world.until("a bad one, which is watched too", |w| current(w, 2)).await;
    assert_eq!(world.status.skips(Reason::Load), 1);

    // Once it was there, its absence is the API's fault and not an empty list.
    api.install(Kind::ServiceLoad, false);
    world.relist.notify_one();
    world.until("the failure", |w| w.status.errors(ErrorReason::NotFound) > 2).await;
    assert!(current(&world, 2) && !world.status.is_missing(Kind::ServiceLoad));
    api.install(Kind::ServiceLoad, true);
    api.delete(Kind::ServiceLoad, "ns", "other");
    world.until("back again", |w| current(w, 1)).await;
    world.stop().await;
}

#[tokio::test]
async fn loads_that_may_not_be_read_are_not_needed() {
    let api = api().await;
    for _ in 0..3 {
        for kind in [Kind::ServiceLoad, Kind::ClusterLoad] {
            api.fault(Ask::List(kind), Fault::Status(403, "", status(403, "no right")));
        }
    }
    let mut world = World::start(&api).await;
    world.until("synced", World::synced).await;
    world.until("asked again", |w| w.api.count(Ask::List(Kind::ClusterLoad)) > 4).await;
    assert!(world.status.is_missing(Kind::ClusterLoad));
    assert_eq!(world.status.errors(ErrorReason::Forbidden), 0);
    world.stop().await;
}

/// With a zone of the schema `mcs`, or what its exports are asked for by.
#[tokio::test]
async fn the_kinds_of_the_mcs_api() {
    let api = api().await;
    let mut world = World::start_with(&api, timing(), Arc::default(), |cluster| cluster.mcs = true).await;
    for kind in [Kind::ServiceExport, Kind::ServiceImport] {
        world.until("none, so that it need not be waited for", |w| w.resets.get(&kind) == Some(&1)).await;
        world.until("missed", |w| w.status.is_missing(kind)).await;
        assert!(world.known[&kind].is_empty());
    }
    let named = |name: &str| json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"ips": ["10.1.2.3"]}});
    for kind in [Kind::ServiceExport, Kind::ServiceImport] {
        api.put(kind, named("web"));
        // An API server that has the older version of the group alone.
        api.install(kind, true);
        world.until("listed", |w| w.known[&kind].len() == 1).await;
        api.put(kind, named("other"));
        world.until("watched", |w| w.known[&kind].len() == 2).await;
        api.delete(kind, "ns", "web");
        world.until("and gone", |w| w.known[&kind].len() == 1).await;
        assert!(!world.status.is_missing(kind));
    }
    let mut leaving = named("other");
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    api.put(Kind::ServiceExport, leaving);
    world.until("what is being deleted is gone", |w| w.known[&Kind::ServiceExport].is_empty()).await;
    assert!(ErrorReason::ALL.iter().all(|&reason| world.status.errors(reason) == 0), "none of this is a failure");
    world.stop().await;
}

/// The right to read what the configuration asks for is needed.
#[tokio::test]
async fn exports_that_may_not_be_read_are_a_failure() {
    let api = api().await;
    api.install(Kind::ServiceExport, true);
    for _ in 0..3 {
        api.fault(Ask::List(Kind::ServiceExport), Fault::Status(403, "", status(403, "no right")));
    }
    let change = |cluster: &mut config::Cluster| cluster.export = config::Export::ServiceExport;
    let mut world = World::start_with(&api, timing(), Arc::default(), change).await;
    world.until("told", |w| w.status.errors(ErrorReason::Forbidden) == 3).await;
    assert!(!world.known.contains_key(&Kind::ServiceExport) && !world.status.is_missing(Kind::ServiceExport));
    world.until("listed when it may be", |w| w.known.contains_key(&Kind::ServiceExport)).await;
    assert_eq!(api.count(Ask::List(Kind::ServiceImport)), 0, "nobody needs these without a zone for them");
    world.stop().await;
}

#[tokio::test]
async fn a_cluster_is_where_its_nodes_are() {
    let api = api().await;
    api.fault(Ask::Nodes, Fault::Status(403, "", status(403, "no right")));
    api.set_nodes(&[("r1", "a"), ("r2", "c"), ("r1", "b")]);
    let unplaced = |cluster: &mut config::Cluster| cluster.placed_by_nodes = true;
    let mut world = World::start_with(&api, timing(), Arc::default(), unplaced).await;
    let placed = |world: &World| {
        let mut clusters = [(*world.config).clone()];
        world.discovered.fill(&mut clusters);
        let [cluster] = &clusters;
        let zones = cluster.availability_zones.iter().map(|zone| zone.0.to_string()).collect::<Vec<_>>();
        (cluster.region.as_ref().map(|region| region.0.to_string()), zones)
    };
    let at = |region: &str, zones: &[&str]| (Some(region.to_owned()), zones.iter().map(ToString::to_string).collect());
    world.until("placed, after a refusal", |w| placed(w) == at("r1", &["a", "b", "c"])).await;
    api.set_nodes(&[("r2", "c")]);
    world.until("moved", |w| placed(w) == at("r2", &["c"])).await;
    api.fault(Ask::Nodes, Fault::Body("{}".to_owned()));
    let asked = api.count(Ask::Nodes);
    world.until("asked again", |w| w.api.count(Ask::Nodes) > asked + 2).await;
    assert_eq!(placed(&world), at("r2", &["c"]), "what fails changes nothing");
    world.until("and it syncs", World::synced).await;
    world.stop().await;
    let mut world = World::start(&api).await;
    let asked = api.count(Ask::Nodes);
    world.until("synced", World::synced).await;
    assert_eq!(api.count(Ask::Nodes), asked, "not asked where the configuration says it");
}
