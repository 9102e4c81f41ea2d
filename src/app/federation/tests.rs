//! What is shown of the federation, and who is woken by it.

use std::pin::pin;

use super::*;
use crate::index::{Object, ObjectKey, Update};
use crate::model::Label;
use crate::source::convert::{self, Converted};
use crate::source::slim;
use crate::table::NoteKind;

fn config(clusters: &[&str]) -> Arc<Config> {
    Arc::new(Config::of(clusters.iter().map(|name| Cluster::named(name)).collect()))
}

fn federation(clusters: &[&str]) -> (Federation, Arc<Seen>) {
    let (started, seen) = (Instant::now(), Arc::new(Seen::default()));
    let (publisher, _) = Publisher::new(config(clusters), &[], 0);
    let members = (0..).zip(clusters).map(|(id, _)| Member::new(ClusterId(id), started)).collect();
    (Federation::new(started, publisher, members, seen.clone(), nobody(), 1), seen)
}

fn service(name: &str) -> Object {
    let text = format!(
        r#"{{"metadata": {{"name": "{name}", "namespace": "ns"}},
            "spec": {{"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
                      "ports": [{{"port": 80, "protocol": "TCP"}}]}}}}"#
    );
    match convert::service(slim::from_json(text.as_bytes()).unwrap(), &Cluster::named("any")) {
        Converted::Object { object, .. } => object,
        _ => panic!("{text}"),
    }
}

fn list(kind: Kind, names: impl Iterator<Item = String>) -> Update {
    Update::Reset { kind, objects: names.map(|name| service(&name)).collect(), keep: Vec::new() }
}

impl Federation {
    /// What `run` does with one batch.
    async fn enter(&mut self, cluster: u16, update: Update) {
        let now = self.now();
        let changes = self.index.apply(ClusterId(cluster), update, now);
        self.publish(vec![changes]).await;
        self.ask_for_lists();
    }

    /// The same, until nothing is left to do.
    async fn batch(&mut self, cluster: u16, update: Update) {
        self.enter(cluster, update).await;
        while !self.backlog.is_empty() {
            self.publish(Vec::new()).await;
        }
    }
}

fn held(seen: &Seen) -> Vec<Vec<(&'static str, u64)>> {
    seen.lock().clusters.iter().map(|cluster| cluster.held.clone()).collect()
}

fn names(n: usize) -> impl Iterator<Item = String> {
    (0..n).map(|i| format!("s{i}"))
}

#[tokio::test]
async fn only_a_cluster_that_has_synced_wakes_who_waits_for_it() {
    let (mut federation, seen) = federation(&["a", "b"]);
    assert_eq!(seen.missing(), ["a", "b"]);
    let quiet = [list(Kind::Service, names(30)), Update::Apply(service("late"))];
    let mut synced = pin!(seen.synced.notified());
    synced.as_mut().enable();
    for update in quiet.clone() {
        federation.batch(0, update).await;
        assert!(!synced.as_mut().enable(), "nothing has synced");
    }
    federation.batch(0, list(Kind::EndpointSlice, names(0))).await;
    assert!(synced.as_mut().enable(), "a has synced");
    assert_eq!(seen.missing(), ["b"]);

    let mut synced = pin!(seen.synced.notified());
    synced.as_mut().enable();
    // Another list of a cluster that has synced, and half of one that has not.
    federation.batch(0, quiet[0].clone()).await;
    federation.batch(1, quiet[0].clone()).await;
    assert!(!synced.as_mut().enable(), "b is not there yet");
    federation.batch(1, list(Kind::EndpointSlice, names(0))).await;
    assert!(synced.as_mut().enable(), "b has synced");
    assert!(seen.missing().is_empty());
}

#[tokio::test]
async fn clusters_sync_one_after_the_other_when_their_services_are_compiled() {
    let (mut federation, seen) = federation(&["a", "b", "c"]);
    let (turns, none) = (list(Kind::Service, names(2 * PUBLISH_TURN + 10)), list(Kind::EndpointSlice, names(0)));
    for cluster in 0..3 {
        let services = if cluster < 2 { turns.clone() } else { list(Kind::Service, names(PUBLISH_TURN)) };
        federation.batch(cluster, services).await;
    }
    // One turn for the first; then, of the second, what was compiled in that turn is to be compiled once more.
    federation.enter(0, none.clone()).await;
    assert_eq!(seen.missing(), ["a", "b", "c"]);
    federation.enter(1, none.clone()).await;
    assert_eq!(seen.missing(), ["a", "b", "c"]);
    // What is done in one turn need not wait for the others.
    federation.enter(2, none).await;
    assert_eq!(seen.missing(), ["b"], "and the last ten of the first");
    federation.publish(Vec::new()).await;
    assert!(seen.missing().is_empty());
    assert!(federation.backlog.is_empty());
}

#[tokio::test]
async fn a_cluster_that_says_nothing_any_more_is_silent_until_it_is_heard() {
    let watched = |name: &str| Cluster {
        source: Source::Kubeconfig { file: "kubeconfig".into(), context: None },
        ..Cluster::named(name)
    };
    let of = |names: [&str; 3]| {
        let files = Source::Manifests { directory: "files".into() };
        let cluster = |name: &str| match name {
            "files" => Cluster { source: files.clone(), ..Cluster::named(name) },
            _ => watched(name),
        };
        Arc::new(Config::of(names.map(cluster).into()))
    };
    let started = Instant::now().checked_sub(2 * silence::SILENT_AFTER).expect("the machine is up for two minutes");
    let seen = Arc::new(Seen::default());
    let (publisher, _) = Publisher::new(of(["a", "files", "b"]), &[], 0);
    let members = (0..3).map(|id| Member::new(ClusterId(id), started)).collect();
    let mut federation = Federation::new(started, publisher, members, seen.clone(), nobody(), 1);
    let silent = |seen: &Seen| seen.lock().clusters.iter().map(|cluster| cluster.silent).collect::<Vec<_>>();
    let look = |federation: &mut Federation| {
        federation.silence.look_at_once();
        federation.look_for_silence();
        silent(&seen)
    };
    assert_eq!(look(&mut federation), [false; 3], "nothing is known of any");
    for cluster in 0..3 {
        for kind in Kind::CORE {
            federation.batch(cluster, list(kind, names(0))).await;
        }
    }
    let before = Moment(federation.now().0 - silence::SILENT_AFTER);
    federation.members[0].status.heard(before);
    federation.members[2].status.heard(Moment(before.0 + Duration::from_secs(30)));
    assert_eq!(look(&mut federation), [true, false, false], "files are not watched");
    // In another order, and before anybody looks.
    reconfigure(&mut federation, of(["b", "a", "files"]));
    assert_eq!(silent(&seen), [false, true, false]);
    assert_eq!(look(&mut federation), [false, true, false]);
    federation.members[1].status.heard(federation.now());
    assert_eq!(look(&mut federation), [false; 3]);
}

#[tokio::test]
async fn held_deletions_are_shown_where_they_are_and_while_they_are() {
    let (mut federation, seen) = federation(&["a", "b"]);
    for cluster in [0, 1] {
        federation.batch(cluster, list(Kind::Service, names(30))).await;
        federation.batch(cluster, list(Kind::EndpointSlice, names(0))).await;
    }
    assert_eq!(held(&seen), [vec![], vec![]]);
    federation.batch(1, list(Kind::Service, names(5))).await;
    assert_eq!(held(&seen), [vec![], vec![("service", 25)]]);
    let back = ObjectKey { namespace: "ns".into(), name: "s4".into() };
    federation.batch(1, Update::Delete(Kind::Service, back)).await;
    assert_eq!(held(&seen), [vec![], vec![("service", 26)]]);

    // The same clusters in another order.
    reconfigure(&mut federation, config(&["b", "a"]));
    assert_eq!(held(&seen), [vec![("service", 26)], vec![]]);
    assert!(seen.missing().is_empty());
    reconfigure(&mut federation, config(&["a", "b", "c"]));
    assert_eq!(held(&seen), [vec![], vec![("service", 26)], vec![]]);
    assert_eq!(seen.missing(), ["c"]);

    federation.batch(1, list(Kind::Service, names(30))).await;
    assert_eq!(held(&seen), [vec![], vec![], vec![]], "all are there again");
}

#[test]
fn notes_are_counted_as_they_come_and_go() {
    let note = |n: u8| match n % 3 {
        0 => Note::TooMany { left_out: n.into() },
        1 => Note::UndeclaredAddress { cluster: ClusterId(0), address: [10, 0, 0, n].into() },
        _ => Note::UndeclaredAddress { cluster: ClusterId(1), address: [10, 0, 1, n].into() },
    };
    let key = |n: u8| {
        let name = Label::parse(&format!("s{n}")).unwrap();
        ServiceKey { namespace: Label::parse("ns").unwrap(), name }
    };
    let (mut notes, mut told) = (Notes::default(), BTreeMap::<ServiceKey, Vec<Note>>::new());
    for step in 0..200_u8 {
        // Every service gets more notes, fewer, others and none.
        let said: Vec<Note> = (0..step.wrapping_mul(7) % 4).map(|i| note(i.wrapping_add(step / 16))).collect();
        let before = told.insert(key(step % 5), said.clone()).unwrap_or_default();
        let new: Vec<Note> = said.iter().filter(|note| !before.contains(note)).cloned().collect();
        assert_eq!(notes.set(&key(step % 5), said), new, "step {step}");
        let count = |kind: NoteKind| told.values().flatten().filter(|note| note.kind() == kind).count() as u64;
        assert_eq!(notes.counts(), NoteKind::ALL.map(|kind| (kind.label(), count(kind))), "step {step}");
    }
    assert!(notes.counts().iter().any(|(_, n)| *n > 0));
    for n in 0..5 {
        notes.set(&key(n), Vec::new());
    }
    assert!(notes.counts().iter().all(|(_, n)| *n == 0));
}

fn reconfigure(federation: &mut Federation, config: Arc<Config>) {
    let atlas = Atlas::new(&config, Vec::new(), Vec::new());
    federation.reconfigure(config, &[], atlas, nobody());
}

/// No name leads anywhere.
fn nobody() -> Ask {
    Arc::new(|_| Box::pin(async { Err("nobody is asked".to_owned()) }))
}
