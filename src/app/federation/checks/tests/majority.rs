//! A majority decides: what the rules on health promise, each under its name.

use super::*;
use crate::config::Majority;
use crate::health::{Silence, electorate};
use crate::index::{Kind, Object, ObjectKey};
use crate::model::votes::{Heartbeat, Pulse, Report, Said, Sheet};
use crate::source::kube::Saying;

/// An instance in one of the clusters, as the others know it: what it writes.
struct Writer {
    cluster: u16,
    replica: &'static str,
    pulse: Pulse,
    electorate: u64,
    said: Vec<Said>,
}

impl Writer {
    fn heartbeat(&self) -> Object {
        Object::Heartbeat(Heartbeat { replica: self.replica.into(), content: Some(self.pulse.clone()) })
    }

    fn report(&self) -> Object {
        let Pulse { incarnation, ref generations, .. } = self.pulse;
        let sheet = Sheet {
            incarnation,
            generation: generations[0],
            electorate: self.electorate,
            votes: self.said.clone().into(),
        };
        Object::Report(Report { replica: self.replica.into(), shard: 0, content: Some(sheet) })
    }
}

/// An instance in the first cluster, or in none, and voters that it hears.
struct Federation {
    world: World,
    writers: Vec<Writer>,
    /// What it says itself.
    said: mpsc::UnboundedReceiver<Saying>,
    changed: BTreeSet<String>,
}

fn name(cluster: u16) -> Label {
    Label::parse(&char::from(b'a' + cluster as u8).to_string()).unwrap()
}

fn endpoint(cluster: u16, host_port: &str) -> Endpoint {
    Endpoint::parse(name(cluster), host_port).unwrap()
}

impl Federation {
    /// `members` clusters, the first ones of which vote; of each voter one replica, `r`, that is heard at 0 s. Each has a
    /// service of its own with four addresses, and one address of the service `web`.
    fn new(members: u16, voters: u16, own: Option<u16>, alone: bool) -> Federation {
        let cluster = |n: u16| Cluster {
            voter: (n < voters).then(|| Label::parse("signpost").unwrap()),
            ..Cluster::named(name(n).as_str())
        };
        let config = Config::of((0..members).map(cluster).collect());
        let majority = Majority {
            own: own.map(ClusterId),
            namespace: Label::parse("signpost").unwrap(),
            replica: Some("r".to_owned()),
            alone,
        };
        let electorate = electorate(&config.voters());
        let rules = Rules { quorum: config::Quorum::Majority(majority), ..RULES };
        let (voice, said) = match Voice::silent(&config, &rules, electorate) {
            Some((voice, said)) => (Some(voice), said),
            None => (None, mpsc::unbounded_channel().1),
        };
        let mut world = World::of(config, &rules, voice);
        for cluster in 0..members {
            let more: Vec<String> = (2..6).map(|n| format!("104.16.{cluster}.{n}")).collect();
            let more = share(cluster, &more.iter().map(String::as_str).collect::<Vec<_>>());
            world.need(&format!("more-{cluster}"), &[more]);
        }
        let web: Vec<Share> = (0..members).map(|cluster| share(cluster, &[&format!("104.16.{cluster}.1")])).collect();
        world.need("web", &web);
        let writer = |cluster| Writer {
            cluster,
            replica: "r",
            pulse: Pulse { incarnation: 1, beat: 0, generations: vec![1] },
            electorate,
            said: Vec::new(),
        };
        let writers = (0..voters).map(writer).collect();
        let mut federation = Federation { world, writers, said, changed: BTreeSet::new() };
        federation.beat_all(0);
        federation.beat_all(0);
        federation
    }

    fn hear(&mut self, cluster: u16, object: Object, second: u64) {
        self.update(cluster, Update::Apply(object), second);
    }

    fn update(&mut self, cluster: u16, update: Update, second: u64) {
        let changed = self.world.checks.hear(ClusterId(cluster), update, at(second));
        self.changed.extend(changed.iter().map(|key| key.name.to_string()));
    }

    /// This replica shows that it is there.
    fn beat(&mut self, writer: usize, second: u64) {
        let writer = &mut self.writers[writer];
        writer.pulse.beat += 1;
        let (cluster, report, beat) = (writer.cluster, writer.report(), writer.heartbeat());
        self.hear(cluster, report, second);
        self.hear(cluster, beat, second);
    }

    fn beat_all(&mut self, second: u64) {
        (0..self.writers.len()).for_each(|writer| self.beat(writer, second));
    }

    /// This replica says something of an endpoint; `None`: nothing any more.
    fn say(&mut self, writer: usize, endpoint: &Endpoint, up: Option<bool>, second: u64) {
        let Writer { said, pulse, .. } = &mut self.writers[writer];
        said.retain(|said| said.endpoint != *endpoint);
        said.extend(up.map(|up| Said { endpoint: endpoint.clone(), up }));
        said.sort();
        pulse.generations[0] += 1;
        self.beat(writer, second);
    }

    /// They all say the same of the address of `web` in a cluster.
    fn all_say(&mut self, writers: &[usize], cluster: u16, up: bool, second: u64) {
        let endpoint = endpoint(cluster, &format!("104.16.{cluster}.1:80"));
        writers.iter().for_each(|writer| self.say(*writer, &endpoint, Some(up), second));
    }

    fn web(&self, cluster: u16) -> Health {
        self.world.health(cluster, &format!("104.16.{cluster}.1"))
    }

    fn tick(&mut self, second: u64) {
        let changed = self.world.checks.tick(at(second));
        self.changed.extend(changed.iter().map(|key| key.name.to_string()));
    }

    /// The seconds from one to another, with heartbeats of these.
    fn pass(&mut self, seconds: std::ops::Range<u64>, writers: &[usize]) {
        for second in seconds {
            if second % 5 == 0 {
                writers.iter().for_each(|writer| self.beat(*writer, second));
            }
            self.tick(second);
        }
    }

    /// What this instance said since it was asked last.
    fn told(&mut self) -> Vec<(Endpoint, Option<bool>)> {
        let said = std::iter::from_fn(|| self.said.try_recv().ok());
        let vote = |saying| match saying {
            Saying::Vote(endpoint, up) => Some((endpoint, up)),
            Saying::Again => None,
        };
        said.filter_map(vote).collect()
    }

    fn silence(&self, cluster: usize) -> Vec<Silence> {
        let (voters, _) = self.world.checks.votes().unwrap();
        let label = |silence: &Silence| voters[cluster].silent.iter().any(|(l, n)| *l == silence.label() && *n > 0);
        Silence::ALL.into_iter().filter(label).collect()
    }

    fn counting(&self, cluster: usize) -> u64 {
        self.world.checks.votes().unwrap().0[cluster].counting
    }
}

#[tokio::test]
async fn removal_needs_the_quorum_and_order_does_not() {
    for (voters, needed) in [(2, 2), (3, 2), (4, 3), (5, 3), (7, 4)] {
        let mut federation = Federation::new(voters, voters, None, false);
        for writer in 0..usize::from(voters) {
            assert_eq!(
                federation.web(0),
                match writer {
                    0 => Health::Fine,
                    n if n < needed => Health::Suspect,
                    _ => Health::Down,
                },
                "{writer} of {voters}"
            );
            federation.changed.clear();
            federation.all_say(&[writer], 0, false, 1);
            let changes = [1, needed].contains(&(writer + 1));
            assert_eq!(federation.changed.contains("web"), changes, "{} of {voters}", writer + 1);
        }
        assert_eq!(federation.web(1), Health::Fine);
    }
}

#[tokio::test]
async fn two_clusters_change_the_order_only_and_a_witness_lets_them_remove() {
    let mut two = Federation::new(2, 2, None, false);
    // The owner abstains on its own.
    two.all_say(&[0], 1, false, 1);
    assert_eq!(two.web(1), Health::Suspect);
    let mut with_witness = Federation::new(3, 3, None, false);
    // What the third one has would be lost too, if it had anything; it is there to vote.
    with_witness.world.need("web", &[share(0, &["104.16.0.1"]), share(1, &["104.16.1.1"])]);
    with_witness.world.need("more-2", &[]);
    with_witness.all_say(&[0, 2], 1, false, 1);
    assert_eq!(with_witness.web(1), Health::Down);
}

#[tokio::test]
async fn a_single_voter_decides_only_where_it_is_told_to() {
    for (alone, health) in [(false, Health::Suspect), (true, Health::Down)] {
        let mut federation = Federation::new(3, 1, None, alone);
        federation.all_say(&[0], 1, false, 1);
        assert_eq!(federation.web(1), health);
    }
}

#[tokio::test]
async fn a_tie_changes_nothing() {
    let mut federation = Federation::new(4, 4, None, false);
    federation.all_say(&[0, 1], 3, false, 1);
    federation.all_say(&[2, 3], 3, true, 1);
    assert_eq!(federation.web(3), Health::Suspect);
    federation.all_say(&[2], 3, false, 2);
    assert_eq!(federation.web(3), Health::Down);
    // 2 of 4 are fewer than 3, and somebody says Up.
    federation.all_say(&[2], 3, true, 3);
    federation.pass(3..13, &[0, 1, 2, 3]);
    assert_eq!(federation.web(3), Health::Down, "not yet for ten seconds");
    federation.tick(13);
    assert_eq!(federation.web(3), Health::Suspect);
}

#[tokio::test]
async fn the_owner_abstains_unless_its_load_balancer_is_a_proxy() {
    let mut federation = Federation::new(3, 3, Some(0), false);
    federation.told();
    for cluster in [0, 1] {
        federation.world.hear(&format!("104.16.{cluster}.1"), Vote::Down, 1);
    }
    let down = |cluster| (endpoint(cluster, &format!("104.16.{cluster}.1:80")), Some(false));
    assert_eq!(federation.told(), [down(1)]);
    assert_eq!((federation.web(0), federation.web(1)), (Health::Fine, Health::Suspect));
    let own = Share { proxied: true, ..share(0, &["104.16.0.1"]) };
    federation.world.need("web", &[own, share(1, &["104.16.1.1"]), share(2, &["104.16.2.1"])]);
    federation.world.hear("104.16.0.1", Vote::Down, 2);
    assert_eq!(federation.told(), [down(0)]);
}

#[tokio::test]
async fn the_own_word_counts_only_as_it_is_read_back() {
    let mut federation = Federation::new(3, 3, Some(0), false);
    federation.told();
    federation.world.hear("104.16.1.1", Vote::Down, 1);
    assert_eq!(federation.told(), [(endpoint(1, "104.16.1.1:80"), Some(false))]);
    federation.all_say(&[2], 1, false, 1);
    assert_eq!(federation.web(1), Health::Suspect, "one vote was read");
    federation.all_say(&[0], 1, false, 2);
    assert_eq!(federation.web(1), Health::Down);
    // What it does not see any more it says no more.
    federation.world.need("web", &[share(0, &["104.16.0.1"])]);
    assert_eq!(federation.told(), [(endpoint(1, "104.16.1.1:80"), None)]);
}

#[tokio::test]
async fn private_addresses_count_once_this_instance_reached_them() {
    let mut federation = Federation::new(3, 3, Some(0), false);
    federation.world.config.clusters[1].ingress.everywhere = vec!["10.0.0.0/8".parse().unwrap()];
    federation.world.need("private", &[share(1, &["10.1.0.1"])]);
    federation.told();
    federation.world.hear("10.1.0.1", Vote::Down, 1);
    assert_eq!((federation.told(), federation.world.health(1, "10.1.0.1")), (vec![], Health::Fine));
    federation.world.hear("10.1.0.1", Vote::Up, 2);
    federation.world.hear("10.1.0.1", Vote::Down, 3);
    let said = |up| (endpoint(1, "10.1.0.1:80"), Some(up));
    assert_eq!(federation.told(), [said(true), said(false)]);
}

#[tokio::test]
async fn an_address_in_the_range_of_another_cluster_is_not_probed() {
    let mut federation = Federation::new(3, 3, Some(0), false);
    federation.world.config.clusters[1].ingress.global = Some(vec!["104.17.0.0/16".parse().unwrap()]);
    federation.world.orders();
    federation.world.need("mine", &[share(1, &["104.17.0.1"])]);
    federation.world.need("not-mine", &[share(2, &["104.17.0.2"])]);
    let [begun, _] = federation.world.orders();
    assert_eq!(begun, BTreeSet::from([probe("104.17.0.1")]));
    assert_eq!(federation.world.checks.sample().refused, 1);
}

#[tokio::test]
async fn a_name_has_one_vote_whatever_it_leads_to() {
    let mut federation = Federation::new(3, 3, Some(0), false);
    let named = |share: &Share, address: IpAddr| {
        let behind = !share.hostnames.is_empty() && address.to_string().starts_with("104.18.");
        behind.then(|| share.hostnames[0].clone())
    };
    let behind = |addresses: &[&str]| Share { hostnames: vec!["lb.example.com".into()], ..share(1, addresses) };
    let found = ["104.18.0.1", "104.18.0.2", "104.18.0.3", "104.18.0.4"];
    let clusters = federation.world.config.clusters.clone();
    federation.world.orders();
    federation.told();
    federation.world.checks.need(&key("named"), &[behind(&found)], &clusters, &named);
    let [begun, _] = federation.world.orders();
    assert_eq!(begun.len(), 3, "at most three of its addresses are tried");
    // Up if one connects.
    federation.world.hear("104.18.0.1", Vote::Down, 1);
    federation.world.hear("104.18.0.2", Vote::Down, 1);
    federation.world.hear("104.18.0.3", Vote::Up, 1);
    let said = |up| (endpoint(1, "lb.example.com:80"), Some(up));
    assert_eq!(federation.told(), [said(true)]);
    federation.world.hear("104.18.0.3", Vote::Down, 2);
    assert_eq!(federation.told(), [said(false)]);
    // Others found other addresses behind the name.
    for writer in [0, 2] {
        federation.say(writer, &endpoint(1, "lb.example.com:80"), Some(false), 3);
    }
    let health = |federation: &Federation, address: &str| {
        federation.world.checks.of(&key("web"), &behind(&found), address.parse().unwrap(), &named)
    };
    assert!(found.iter().all(|address| health(&federation, address) == Health::Down));
    // It leads elsewhere now, and is still the same load balancer.
    federation.world.checks.need(&key("named"), &[behind(&["104.18.0.9"])], &clusters, &named);
    let [begun, ended] = federation.world.orders();
    assert_eq!((begun, ended.len()), (BTreeSet::from([probe("104.18.0.9")]), 3));
    assert_eq!(health(&federation, "104.18.0.9"), Health::Down);
    assert_eq!(federation.told(), [(endpoint(1, "lb.example.com:80"), None)]);
}

#[tokio::test]
async fn more_replicas_have_the_same_vote() {
    let mut federation = Federation::new(3, 3, None, false);
    let replica = |replica, cluster, federation: &Federation| Writer {
        cluster,
        replica,
        pulse: Pulse { incarnation: 9, beat: 0, generations: vec![1] },
        electorate: federation.writers[0].electorate,
        said: Vec::new(),
    };
    for name in ["s", "t"] {
        let writer = replica(name, 0, &federation);
        federation.writers.push(writer);
    }
    federation.beat_all(1);
    federation.beat_all(1);
    assert_eq!(federation.counting(0), 3);
    // All three of one cluster: one vote.
    federation.all_say(&[0, 3, 4], 1, false, 2);
    assert_eq!(federation.web(1), Health::Suspect);
    federation.all_say(&[2], 1, false, 3);
    assert_eq!(federation.web(1), Health::Down);
    // Half of those that say something is not more than half of them.
    federation.say(4, &endpoint(1, "104.16.1.1:80"), None, 4);
    federation.all_say(&[3], 1, true, 4);
    federation.pass(4..15, &[0, 1, 2, 3, 4]);
    assert_eq!(federation.web(1), Health::Suspect);
}

#[tokio::test]
async fn at_most_eight_replicas_of_a_cluster_count() {
    let mut federation = Federation::new(3, 3, None, false);
    const NAMES: [&str; 10] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"];
    for replica in NAMES {
        federation.writers.push(Writer {
            cluster: 0,
            replica,
            pulse: Pulse { incarnation: 9, beat: 0, generations: vec![1] },
            electorate: federation.writers[0].electorate,
            said: Vec::new(),
        });
    }
    federation.beat_all(1);
    federation.beat_all(1);
    assert_eq!((federation.counting(0), federation.silence(0)), (8, vec![Silence::Spare]));
    // When one is silent, the next one by name counts.
    let others: Vec<usize> = (0..federation.writers.len()).filter(|n| *n != 4).collect();
    federation.pass(2..30, &others);
    assert_eq!((federation.counting(0), federation.silence(0)), (8, vec![Silence::Stale, Silence::Spare]));
}

#[tokio::test]
async fn a_voter_counts_while_its_heartbeat_changes() {
    let mut federation = Federation::new(3, 3, None, false);
    federation.all_say(&[0, 2], 1, false, 0);
    assert_eq!(federation.web(1), Health::Down);
    // Read again and again, but never another one.
    let stuck = federation.writers[2].heartbeat();
    for second in 1..20 {
        federation.hear(2, stuck.clone(), second);
        federation.beat(0, second);
        federation.beat(1, second);
        federation.tick(second);
        assert_eq!(federation.counting(2), 1, "{second}");
    }
    assert_eq!(federation.world.checks.next_deadline(), Some(at(20)));
    federation.tick(20);
    assert_eq!((federation.counting(2), federation.silence(2)), (0, vec![Silence::Stale]));
    assert_eq!(federation.web(1), Health::Down, "what is Down stays so while nobody says that it is Up");
    // The first one after a silence may have been written long ago, by somebody who is dead since.
    federation.beat(2, 25);
    assert_eq!(federation.counting(2), 0);
    federation.beat(2, 30);
    assert_eq!(federation.counting(2), 1);
}

#[tokio::test]
async fn after_a_start_a_heartbeat_has_to_be_seen_to_change() {
    let mut federation = Federation::new(3, 3, None, false);
    let electorate = federation.writers[0].electorate;
    let mut late = Writer {
        cluster: 0,
        replica: "s",
        pulse: Pulse { incarnation: 5, beat: 100, generations: vec![1] },
        electorate,
        said: Vec::new(),
    };
    federation.hear(0, late.report(), 1);
    federation.hear(0, late.heartbeat(), 1);
    assert_eq!((federation.counting(0), federation.silence(0)), (1, vec![Silence::New]));
    late.pulse.beat += 1;
    federation.hear(0, late.heartbeat(), 2);
    assert_eq!(federation.counting(0), 2);
}

#[tokio::test]
async fn too_few_are_heard_and_what_is_down_is_unknown_after_five_minutes() {
    let mut federation = Federation::new(3, 3, None, false);
    federation.all_say(&[0, 2], 1, false, 0);
    federation.pass(1..320, &[0]);
    assert_eq!(federation.counting(1) + federation.counting(2), 0);
    assert_eq!(federation.web(1), Health::Down);
    federation.pass(320..321, &[0]);
    assert_eq!(federation.web(1), Health::Suspect, "one still says so");
    federation.all_say(&[0], 2, false, 321);
    assert_eq!(federation.web(2), Health::Suspect);
}

#[tokio::test]
async fn losing_an_api_removes_nothing() {
    let mut federation = Federation::new(3, 3, None, false);
    federation.all_say(&[0], 1, false, 0);
    for kind in [Kind::Lease, Kind::HealthReport] {
        federation.update(2, Update::Reset { kind, objects: vec![], keep: vec![] }, 1);
    }
    assert_eq!((federation.counting(2), federation.web(1)), (0, Health::Suspect));
    federation.pass(1..60, &[0, 1]);
    assert!((0..3).all(|cluster| federation.web(cluster) != Health::Down));
}

#[tokio::test]
async fn heartbeat_and_report_must_fit() {
    let mut federation = Federation::new(3, 3, None, false);
    federation.all_say(&[0, 2], 1, false, 0);
    assert_eq!(federation.web(1), Health::Down);
    // The heartbeat names a report that was not read yet: what was said before stands for five seconds.
    federation.writers[2].pulse.generations[0] += 1;
    federation.writers[2].said.clear();
    federation.writers[2].pulse.beat += 1;
    let beat = federation.writers[2].heartbeat();
    federation.hear(2, beat, 1);
    assert_eq!((federation.counting(2), federation.world.checks.next_deadline()), (1, Some(at(6))));
    federation.tick(6);
    assert_eq!((federation.counting(2), federation.silence(2)), (0, vec![Silence::Apart]));
    let report = federation.writers[2].report();
    federation.hear(2, report, 7);
    assert_eq!(federation.counting(2), 1);
    // One of before comes from a server that lags.
    let generation = federation.writers[2].pulse.generations[0];
    federation.writers[2].pulse.generations[0] = generation - 1;
    let old = federation.writers[2].report();
    federation.writers[2].pulse.generations[0] = generation;
    federation.hear(2, old, 8);
    federation.beat(2, 9);
    assert_eq!((federation.counting(2), federation.silence(2)), (1, vec![]));
}

#[tokio::test]
async fn reports_that_are_no_good_are_an_abstention() {
    type Spoil = fn(&mut Federation);
    let spoils: [(&str, Spoil, Silence); 4] = [
        ("not understood", |f| f.hear(2, report_of(f, |_| None), 1), Silence::Apart),
        (
            "of another electorate",
            |f| f.hear(2, report_of(f, |sheet| Some(Sheet { electorate: 1, ..sheet })), 1),
            Silence::Electorate,
        ),
        (
            "of another incarnation",
            |f| f.hear(2, report_of(f, |sheet| Some(Sheet { incarnation: 7, ..sheet })), 1),
            Silence::Apart,
        ),
        (
            "a heartbeat that is not understood",
            |f| f.hear(2, Object::Heartbeat(Heartbeat { replica: "r".into(), content: None }), 1),
            Silence::New,
        ),
    ];
    fn report_of(federation: &Federation, change: fn(Sheet) -> Option<Sheet>) -> Object {
        let Object::Report(report) = federation.writers[2].report() else { panic!("a report") };
        Object::Report(Report { content: report.content.and_then(change), ..report })
    }
    for (what, spoil, silence) in spoils {
        let mut federation = Federation::new(3, 3, None, false);
        federation.all_say(&[0], 1, false, 0);
        spoil(&mut federation);
        federation.pass(2..8, &[0, 1]);
        assert_eq!(federation.silence(2), [silence], "{what}");
        assert_eq!((federation.counting(2), federation.web(1)), (0, Health::Suspect), "{what}");
        // When it is well again, it counts again.
        federation.beat(2, 9);
        federation.beat(2, 9);
        assert_eq!(federation.counting(2), 1, "{what}");
    }
}

#[tokio::test]
async fn whoever_is_no_voter_is_not_heard() {
    let mut federation = Federation::new(4, 3, None, false);
    let electorate = federation.writers[0].electorate;
    let pulse = Pulse { incarnation: 1, beat: 0, generations: vec![1] };
    federation.writers.push(Writer { cluster: 3, replica: "r", pulse, electorate, said: Vec::new() });
    federation.beat(3, 1);
    federation.all_say(&[0, 3], 1, false, 1);
    assert_eq!(federation.web(1), Health::Suspect);
    assert!(federation.world.checks.votes().unwrap().1.refused > 0);
}

#[tokio::test]
async fn a_cluster_may_write_what_it_likes_and_has_one_vote() {
    let mut federation = Federation::new(3, 3, None, false);
    let before = federation.world.checks.votes().unwrap().0;
    // A hundred replicas with thirty-two shards each, which say that everything is Down, and clusters that nobody has.
    let electorate = federation.writers[0].electorate;
    for round in 0..2 {
        for n in 0..100 {
            let replica: Arc<str> = format!("evil-{n}").into();
            let down: Vec<Said> = (0..5)
                .flat_map(|cluster| (1..6).map(move |n| endpoint(cluster, &format!("104.16.{cluster}.{n}:80"))))
                .map(|endpoint| Said { endpoint, up: false })
                .collect();
            for shard in 0..40 {
                let sheet = Sheet { incarnation: 1, generation: 1, electorate, votes: down.clone().into() };
                let report = Report { replica: replica.clone(), shard, content: Some(sheet) };
                federation.hear(2, Object::Report(report), 1);
            }
            let content = Some(Pulse { incarnation: 1, beat: round, generations: vec![1; 32] });
            federation.hear(2, Object::Heartbeat(Heartbeat { replica: replica.clone(), content }), 1);
        }
    }
    for cluster in 0..3 {
        for n in 1..6 {
            let health = federation.world.health(cluster, &format!("104.16.{cluster}.{n}"));
            assert_eq!(health, Health::Suspect, "order only");
        }
    }
    let after = federation.world.checks.votes().unwrap().0;
    assert_eq!(before[..2], after[..2]);
    assert!(after[2].counting == 8 && after[2].silent.iter().map(|(_, n)| n).sum::<u64>() <= 32);
    assert!(federation.world.checks.sample().strangers > 0);
    // All of it goes, and nothing of it is left.
    let gone = |kind| Update::Reset { kind, objects: vec![], keep: vec![] };
    federation.update(2, gone(Kind::Lease), 2);
    federation.update(2, gone(Kind::HealthReport), 2);
    assert!((0..3).all(|cluster| federation.web(cluster) == Health::Fine));
    assert_eq!(federation.silence(2), []);
}

#[tokio::test]
async fn what_is_deleted_one_by_one_is_gone() {
    let mut federation = Federation::new(3, 3, None, false);
    federation.all_say(&[0, 2], 1, false, 0);
    let key = |name: &str| ObjectKey { namespace: "signpost".into(), name: name.into() };
    federation.update(2, Update::Delete(Kind::HealthReport, key("r.0")), 1);
    assert_eq!(federation.counting(2), 1, "what it said before stands for a while");
    federation.tick(6);
    assert_eq!(federation.silence(2), [Silence::Apart]);
    federation.update(2, Update::Delete(Kind::Lease, key("r")), 7);
    assert_eq!((federation.counting(2), federation.silence(2)), (0, vec![]));
}

#[tokio::test]
async fn what_is_lost_at_once_is_kept() {
    let mut federation = Federation::new(3, 3, None, false);
    for cluster in [1, 2] {
        for n in 1..6 {
            let endpoint = endpoint(cluster, &format!("104.16.{cluster}.{n}:80"));
            (0..3).for_each(|writer| federation.say(writer, &endpoint, Some(false), 1));
        }
    }
    let down = |federation: &Federation, cluster: u16| {
        (1..6).filter(|n| federation.world.health(cluster, &format!("104.16.{cluster}.{n}")) == Health::Down).count()
    };
    assert_eq!((down(&federation, 1), down(&federation, 2)), (5, 2), "the second cluster is not lost");
    assert!(federation.world.checks.sample().frozen);
    federation.pass(2..602, &[0, 1, 2]);
    assert_eq!((down(&federation, 1), down(&federation, 2)), (5, 5), "ten minutes later it is believed");
}

#[tokio::test]
async fn whoever_is_cut_off_abstains_on_all_others() {
    let mut federation = Federation::new(3, 3, Some(0), false);
    for cluster in [1, 2] {
        for n in 1..6 {
            federation.world.hear(&format!("104.16.{cluster}.{n}"), Vote::Up, 1);
        }
    }
    assert_eq!(federation.told().len(), 10);
    for cluster in [1, 2] {
        for n in 1..4 {
            federation.world.hear(&format!("104.16.{cluster}.{n}"), Vote::Down, 2);
        }
    }
    let mut last: BTreeMap<Endpoint, Option<bool>> = BTreeMap::new();
    last.extend(federation.told());
    assert!(federation.world.checks.sample().isolated);
    assert_eq!((last.len(), last.values().all(Option::is_none)), (10, true), "{last:?}");
}

#[tokio::test]
async fn other_voters_by_another_configuration() {
    let mut federation = Federation::new(3, 3, None, false);
    federation.all_say(&[0, 2], 1, false, 0);
    assert_eq!(federation.web(1), Health::Down);
    let mut config = federation.world.config.clone();
    config.clusters.push(Cluster { voter: Some(Label::parse("signpost").unwrap()), ..Cluster::named("d") });
    let majority = |own| Majority { own, namespace: Label::parse("signpost").unwrap(), replica: None, alone: false };
    let rules = |own| Rules { quorum: config::Quorum::Majority(majority(own)), ..RULES };
    let web: Vec<Share> = (0..3).map(|cluster| share(cluster, &[&format!("104.16.{cluster}.1")])).collect();
    // The others do not know of the new one yet: they abstain, and what is Down stays so for a while.
    let World { checks, .. } = federation.world;
    let mut checks = checks.reconfigured(&config, &rules(None), 1, at(1));
    checks.need(&key("web"), &web, &config.clusters, &nameless);
    checks.forget_unused(at(1));
    let silent = |checks: &Checks| checks.votes().unwrap().0.iter().map(|voter| voter.counting).sum::<u64>();
    assert_eq!(silent(&checks), 0);
    let health = |checks: &Checks| checks.of(&key("web"), &web[1], web[1].ingress[0], &nameless);
    assert_eq!(health(&checks), Health::Down);
    // With the voters of before, all of them are heard at once.
    let config = federation.world.config;
    let mut checks = checks.reconfigured(&config, &rules(None), 1, at(2));
    checks.need(&key("web"), &web, &config.clusters, &nameless);
    checks.forget_unused(at(2));
    assert_eq!((silent(&checks), health(&checks)), (3, Health::Down));
}

#[tokio::test]
async fn what_is_read_of_this_instance_and_is_not_its_word_is_written_once_more() {
    let mut federation = Federation::new(3, 3, Some(0), false);
    let key = ObjectKey { namespace: "signpost".into(), name: "r.0".into() };
    let again = |federation: &mut Federation| {
        std::iter::from_fn(|| federation.said.try_recv().ok()).filter(|saying| *saying == Saying::Again).count()
    };
    federation.update(0, Update::Delete(Kind::HealthReport, key), 1);
    assert_eq!(again(&mut federation), 0, "it may be on its way");
    federation.tick(6);
    assert_eq!((again(&mut federation), federation.silence(0)), (1, vec![Silence::Apart]));
    federation.pass(7..16, &[1, 2]);
    assert_eq!(again(&mut federation), 0, "not all the time");
    federation.pass(16..21, &[1, 2]);
    assert_eq!(again(&mut federation), 1);
    federation.beat(0, 21);
    federation.pass(21..40, &[0, 1, 2]);
    assert_eq!((again(&mut federation), federation.counting(0)), (0, 1));
}
