//! A start while API servers are down, with what an earlier process kept: the program as it is run, and API servers of which the test
//! decides whether they are there.

mod common;
#[path = "common/scripted_api.rs"]
mod scripted_api;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::dig::Dig;
use common::signpost::{MemberSource, Setup, Signpost, ZONE, http_get, metric};
use common::{same, wait_for};
use scripted_api::{Ask, Kind, ScriptedApi};
use serde_json::{Value, json};
use signpost::model::Label;
use signpost::snapshot::{self, Draft};
use tempfile::TempDir;

/// From a change to the answers that show it, on a machine that does other things too.
const SHOWS: Duration = Duration::from_secs(30);
const CLUSTERS: [usize; 3] = [1, 2, 3];

/// Three clusters, and what is kept of them.
struct World {
    runtime: tokio::runtime::Runtime,
    apis: Vec<ScriptedApi>,
    directory: TempDir,
    through: Vec<String>,
}

fn service(name: &str, address: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "n"},
        "spec": {"type": "LoadBalancer", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "protocol": "TCP"}]},
        "status": {"loadBalancer": {"ingress": [{"ip": address}]}}
    })
}

fn address(cluster: usize, last: u8) -> String {
    format!("104.16.{cluster}.{last}")
}

impl World {
    fn new() -> World {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let directory = tempfile::tempdir().expect("a temporary folder");
        let apis: Vec<ScriptedApi> = CLUSTERS.iter().map(|_| runtime.block_on(ScriptedApi::start())).collect();
        for (cluster, api) in CLUSTERS.into_iter().zip(&apis) {
            api.set_uid(&format!("uid-{cluster}"));
            fs::write(directory.path().join(format!("{cluster}.kubeconfig")), api.kubeconfig("good")).expect("ours");
        }
        let world = World { runtime, apis, directory, through: vec![] };
        world.change(1);
        world
    }

    /// In each cluster `only-C`, and `shop` with the others.
    fn change(&self, last: u8) {
        for (cluster, api) in CLUSTERS.into_iter().zip(&self.apis) {
            for name in ["shop", &format!("only-{cluster}")] {
                api.put(Kind::Service, service(name, &address(cluster, last)));
            }
        }
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn snapshot(&self, cluster: usize) -> PathBuf {
        self.state().join(format!("cluster-{cluster}.snapshot"))
    }

    fn setup(&self, sections: &str) -> Setup {
        let source = |cluster| MemberSource::Kubeconfig(self.directory.path().join(format!("{cluster}.kubeconfig")));
        let mut setup = Setup::new(CLUSTERS.map(source).into());
        setup.sync_wait = Duration::from_secs(2);
        setup.sections = format!("state: {{directory: '{}'}}\n{sections}", self.state().display());
        setup.through = self.through.clone();
        setup
    }

    fn start(&self) -> Signpost {
        Signpost::start(&self.setup(""))
    }

    fn set_up(&self, clusters: &[usize]) {
        for (cluster, api) in CLUSTERS.into_iter().zip(&self.apis) {
            api.set_up(clusters.contains(&cluster));
        }
        // Its task takes note of it; a connection that is refused says that it did.
        for (cluster, api) in CLUSTERS.into_iter().zip(&self.apis) {
            let is_up = || std::net::TcpStream::connect(api.address).is_ok();
            wait_for("APIs that are there, and others", SHOWS, || same(is_up(), clusters.contains(&cluster)));
        }
    }

    /// Starts with all of them up, and ends in order.
    fn keep(&self) {
        self.set_up(&CLUSTERS);
        self.start().stop();
        CLUSTERS.iter().for_each(|cluster| assert!(self.snapshot(*cluster).is_file(), "{:?}", self.snapshot(*cluster)));
    }
}

fn answer(signpost: &Signpost, name: &str) -> Result<(String, Vec<String>), String> {
    let reply = Dig::at(signpost.ports.external).ask(&format!("{name}.n.{ZONE}"), "A")?;
    Ok((reply.status.clone(), reply.data()))
}

fn expect(signpost: &Signpost, name: &str, status: &str, addresses: &[String]) {
    let want = (status.to_owned(), addresses.to_vec());
    wait_for(&format!("{name} at {addresses:?}"), SHOWS, || same(answer(signpost, name)?, want.clone()));
}

fn metrics(signpost: &Signpost) -> String {
    http_get(signpost.ports.admin, "/metrics").expect("metrics")
}

fn is_stale(signpost: &Signpost, cluster: usize) -> Option<bool> {
    metric(&metrics(signpost), &format!("signpost_cluster_stale{{cluster=\"cluster-{cluster}\"}}"))
        .map(|stale| stale == 1.0)
}

/// What is done to the snapshots before a start, and what of the log tells of it; nothing: they are used.
struct Kept {
    spoil: fn(&World, usize),
    says: Option<&'static str>,
}

/// `kept` × {all APIs up, one down, all down}. Clusters have changed since their snapshots were written.
fn starts(kept: &Kept) {
    for down in [&[][..], &[2], &CLUSTERS] {
        let world = World::new();
        world.keep();
        world.change(9);
        CLUSTERS.iter().for_each(|cluster| (kept.spoil)(&world, *cluster));
        let up: Vec<usize> = CLUSTERS.into_iter().filter(|cluster| !down.contains(cluster)).collect();
        world.set_up(&up);
        let signpost = world.start();
        let log = signpost.log();
        assert_eq!(kept.says.map(|says| log.contains(says)), kept.says.map(|_| true), "{log}");
        let has_any = kept.says.is_none() && CLUSTERS.iter().all(|cluster| world.snapshot(*cluster).is_file());
        let mut all = Vec::new();
        for cluster in CLUSTERS {
            let only = format!("only-{cluster}");
            match (up.contains(&cluster), has_any) {
                (true, _) => {
                    expect(&signpost, &only, "NOERROR", &[address(cluster, 9)]);
                    all.push(address(cluster, 9));
                }
                (false, true) => {
                    expect(&signpost, &only, "NOERROR", &[address(cluster, 1)]);
                    all.push(address(cluster, 1));
                }
                // Nobody knows what it holds.
                (false, false) => expect(&signpost, &only, "SERVFAIL", &[]),
            }
            let stale = !up.contains(&cluster) && has_any;
            wait_for("what is stale", SHOWS, || same(is_stale(&signpost, cluster), Some(stale)));
            let error = match (up.contains(&cluster), has_any) {
                (true, _) => None,
                (false, true) => Some(3),
                (false, false) => Some(14),
            };
            let reply = Dig::at(signpost.ports.external).ask(&format!("{only}.n.{ZONE}"), "A").expect("an answer");
            assert_eq!(reply.extended_errors, Vec::from_iter(error), "{only}");
        }
        let status = if all.is_empty() { "SERVFAIL" } else { "NOERROR" };
        expect(&signpost, "shop", status, &all);
        if has_any && !down.is_empty() {
            let path = format!("/explain?name=only-2.n.{ZONE}&format=text");
            let explained = http_get(signpost.ports.admin, &path).expect("an explanation");
            assert!(explained.contains("\"snapshot\""), "{explained}");
            let words = ["explain", &format!("only-2.n.{ZONE}")];
            let table = signpost.command(&words).expect("an explanation");
            assert!(table.contains("stale      cluster-2 was not heard since the start"), "{table}");
        }
        let status = signpost.command(&["status"]).expect("a status");
        for cluster in CLUSTERS {
            let state = match (up.contains(&cluster), has_any) {
                (true, _) => "synced",
                (false, true) => "stale, of 20",
                (false, false) => "not synced",
            };
            let line = status.lines().find(|line| line.starts_with(&format!("cluster-{cluster} "))).expect("a line");
            assert_eq!(line.split_once(' ').map(|(_, rest)| rest.trim().starts_with(state)), Some(true), "{status}");
        }
        // They come back.
        world.set_up(&CLUSTERS);
        for cluster in CLUSTERS {
            expect(&signpost, &format!("only-{cluster}"), "NOERROR", &[address(cluster, 9)]);
            wait_for("all is heard", SHOWS, || same(is_stale(&signpost, cluster), Some(false)));
        }
        signpost.stop();
        for cluster in CLUSTERS {
            let name = Label::parse(&format!("cluster-{cluster}")).expect("a label");
            snapshot::read(&world.state(), &name).expect("it is whole").expect("it is there");
        }
    }
}

#[test]
fn without_snapshots() {
    starts(&Kept {
        spoil: |world, cluster| fs::remove_file(world.snapshot(cluster)).expect("it is there"),
        says: None,
    });
}

#[test]
fn with_good_snapshots() {
    starts(&Kept { spoil: |_, _| {}, says: None });
}

/// Age is no reason.
#[test]
fn with_old_snapshots() {
    let spoil = |world: &World, cluster: usize| {
        let name = Label::parse(&format!("cluster-{cluster}")).expect("a label");
        let text = fs::read_to_string(world.snapshot(cluster)).expect("it is text");
        let mut head = snapshot::read(&world.state(), &name).expect("it is whole").expect("it is there").head;
        head.written = "2021-01-01T00:00:00Z".parse().expect("a time");
        let mut draft = Draft::begin(&world.state(), &head).expect("it can be written");
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[1..lines.len() - 1] {
            draft.append(format!("{line}\n").as_bytes()).expect("it can be written");
        }
        draft.finish().expect("it can be written");
    };
    starts(&Kept { spoil, says: None });
}

#[test]
fn with_corrupt_snapshots() {
    let spoil = |world: &World, cluster: usize| {
        let mut octets = fs::read(world.snapshot(cluster)).expect("it is there");
        let middle = octets.len() / 2;
        octets[middle] ^= 1;
        fs::write(world.snapshot(cluster), octets).expect("it can be written");
    };
    starts(&Kept {
        spoil,
        says: Some("cluster-2.snapshot: is damaged: its checksum is another one; it is not used, and it is "),
    });
}

#[test]
fn with_snapshots_of_a_future_version() {
    let spoil = |world: &World, cluster: usize| {
        let text = "{\"head\":{\"format\":2,\"written\":[1,2]}}\n{\"services\":\"otherwise\"}\n";
        fs::write(world.snapshot(cluster), text).expect("it can be written");
    };
    let says = "has the format 2 of another version of Signpost (this one reads 1); it is not used, and it is ";
    starts(&Kept { spoil, says: Some(says) });
}

/// What cannot be used is kept for whoever wants to know why.
#[test]
fn what_cannot_be_used_is_put_aside() {
    let world = World::new();
    world.keep();
    fs::write(world.snapshot(1), "my notes\n").expect("it can be written");
    world.start().stop();
    let aside = world.state().join("cluster-1.snapshot.unusable");
    assert_eq!(fs::read_to_string(aside).expect("it is there"), "my notes\n");
    assert!(world.snapshot(1).is_file());
}

/// A cluster may say no more than it may say now, and nothing for another one.
#[test]
fn rules_hold_for_snapshots_too() {
    let world = World::new();
    world.keep();
    world.set_up(&[]);
    fs::copy(world.snapshot(1), world.snapshot(2)).expect("it can be copied");
    let mut setup = world.setup("");
    setup.clusters[2].namespaces = vec!["other".to_owned()];
    let signpost = Signpost::start(&setup);
    expect(&signpost, "only-1", "NOERROR", &[address(1, 1)]);
    expect(&signpost, "shop", "NOERROR", &[address(1, 1)]);
    let log = signpost.log();
    for says in [
        "cluster-2.snapshot: is of the cluster cluster-1",
        "cluster-3.snapshot: holds what the cluster may not say any more",
    ] {
        assert!(log.contains(says), "{log}");
    }
    signpost.stop();
}

/// The name leads to another cluster, or to an old state of the same one: what was heard before the restart counts.
#[test]
fn identity_and_time_outlast_a_restart() {
    let world = World::new();
    world.keep();
    world.set_up(&[]);
    world.apis[0].set_uid("uid-other");
    // As an old backup: the first lists are doubted.
    world.apis[1].restore(1, Kind::Service, vec![]);
    world.change(9);
    world.set_up(&CLUSTERS);
    let signpost = world.start();
    expect(&signpost, "only-3", "NOERROR", &[address(3, 9)]);
    let log = || signpost.log();
    let said = |words: &str| if log().contains(words) { Ok(()) } else { Err(log()) };
    wait_for("a word on the other cluster", SHOWS, || {
        said("this is another cluster now (UID uid-other, before uid-1)")
    });
    wait_for("a word on the time", SHOWS, || said("came after version"));
    expect(&signpost, "only-1", "NOERROR", &[address(1, 1)]);
    // Three lists in a row are taken for a backup that somebody wanted.
    expect(&signpost, "only-2", "NOERROR", &[address(2, 9)]);
    signpost.stop();
    // To say that it is meant: without the snapshot.
    fs::remove_file(world.snapshot(1)).expect("it is there");
    let signpost = world.start();
    expect(&signpost, "only-1", "NOERROR", &[address(1, 9)]);
    signpost.stop();
}

/// SIGKILL while snapshots are written, at any moment of it: there is always a whole one, and it is used.
#[test]
fn killed_while_it_writes() {
    let world = World::new();
    for (cluster, api) in CLUSTERS.into_iter().zip(&world.apis) {
        let all = (0..3_000).map(|number| service(&format!("s{number}"), &address(cluster, 7)));
        api.restore(5_000, Kind::Service, all.collect());
    }
    world.keep();
    let drafts = || {
        let files = fs::read_dir(world.state()).expect("it is there").flatten();
        files.filter(|file| file.file_name().to_string_lossy().ends_with(".draft")).count()
    };
    for _ in 0..6 {
        let (before, signpost) = (drafts(), world.start());
        // The first lists are followed by the first snapshots. Without a pause: they do not take long.
        let end = Instant::now() + SHOWS;
        while drafts() == before && Instant::now() < end {
            std::hint::spin_loop();
        }
        signpost.kill();
        for cluster in CLUSTERS {
            let name = Label::parse(&format!("cluster-{cluster}")).expect("a label");
            let kept = snapshot::read(&world.state(), &name).expect("it is whole").expect("it is there");
            assert_eq!(kept.objects.len(), 3_000);
        }
    }
    assert!(drafts() > 0, "it was killed while it wrote");
    world.set_up(&[]);
    let signpost = world.start();
    expect(&signpost, "s2999", "NOERROR", &CLUSTERS.map(|cluster| address(cluster, 7)));
    signpost.stop();
}

/// A disk without room: what was there stays, somebody is told once, and answers go on.
#[test]
fn a_full_disk() {
    let mut world = World::new();
    world.keep();
    let (state, good) = (world.state(), fs::read(world.snapshot(1)).expect("it is there"));
    // Room for what is there, and for no more; what is in there is looked at from inside.
    let script = format!(
        "mkdir -p {0}.copy && cp {0}/*.snapshot {0}.copy && mount -t tmpfs -o size=16k none {0} && cp {0}.copy/cluster-1.snapshot {0} \
         && (cat /dev/zero > {0}/filler; true) 2>/dev/null && exec \"$0\" \"$@\"",
        state.display()
    );
    world.through = ["unshare", "--map-root-user", "--mount", "sh", "-c", &script].map(String::from).into();
    let signpost = world.start();
    let failed = || metric(&metrics(&signpost), "signpost_snapshots_total{result=\"failed\"}").unwrap_or_default();
    wait_for("a snapshot that cannot be written", SHOWS, || if failed() >= 3.0 { Ok(()) } else { Err(signpost.log()) });
    expect(&signpost, "only-2", "NOERROR", &[address(2, 1)]);
    let log = signpost.log();
    assert!(log.contains("its snapshot cannot be written to") && log.contains("No space left on device"), "{log}");
    let inside = fs::read(format!("/proc/{}/root{}", signpost.id(), world.snapshot(1).display()));
    assert!(inside.expect("what was there is there") == good, "the one before stays");
    signpost.stop();
}

/// With few file descriptors it answers, or says what it lacks.
#[test]
fn few_file_descriptors() {
    let mut world = World::new();
    world.through = ["sh", "-c", "ulimit -n 64; exec \"$0\" \"$@\""].map(String::from).into();
    world.keep();
    let signpost = world.start();
    CLUSTERS
        .iter()
        .for_each(|cluster| expect(&signpost, &format!("only-{cluster}"), "NOERROR", &[address(*cluster, 1)]));
    // More connections than it may have are no end of it.
    let many: Vec<_> = (0..200).filter_map(|_| std::net::TcpStream::connect(signpost.ports.external).ok()).collect();
    expect(&signpost, "only-1", "NOERROR", &[address(1, 1)]);
    drop(many);
    world.change(9);
    wait_for("it is heard", SHOWS, || same(answer(&signpost, "only-1")?, ("NOERROR".to_owned(), vec![address(1, 9)])));
    signpost.stop();
    world.set_up(&[]);
    let signpost = world.start();
    expect(&signpost, "only-1", "NOERROR", &[address(1, 9)]);
    signpost.stop();
    assert!(world.apis[0].count(Ask::Uid) > 0);
    drop(world.runtime);
}

/// A place that cannot be written to is said, and is no reason not to answer.
#[test]
fn nowhere_to_write() {
    let world = World::new();
    let mut setup = world.setup("");
    setup.sections = "state: {directory: /proc/signpost}\n".to_owned();
    let signpost = Signpost::start(&setup);
    expect(&signpost, "only-1", "NOERROR", &[address(1, 1)]);
    let log = || signpost.log();
    let words = "its snapshot cannot be written to /proc/signpost";
    wait_for("a word", SHOWS, || if log().contains(words) { Ok(()) } else { Err(log()) });
    signpost.stop();
    setup.sections = format!("state: {{directory: '{}'}}\n", world.directory.path().join("1.kubeconfig").display());
    assert!(Path::new(&world.directory.path().join("1.kubeconfig")).is_file());
    let signpost = Signpost::spawn(&setup, common::signpost::Ports::inside(), None);
    let log = || signpost.log();
    wait_for("an error", SHOWS, || match log() {
        log if log.contains("state.directory: the state's directory") && log.contains("is not a directory") => Ok(()),
        log => Err(log),
    });
}
