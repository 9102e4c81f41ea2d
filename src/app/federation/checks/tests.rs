use std::num::NonZeroU8;

use super::*;
use crate::config::IngressRanges;
use crate::health::Failures;
use crate::model::check::Check;
use crate::model::{ClusterAddress, Label, Port, Wishes};

mod majority;

const RULES: Rules = Rules {
    interval: Duration::from_secs(5),
    timeout: Duration::from_secs(2),
    failures: Failures { fall: NonZeroU8::new(3).unwrap(), rise: NonZeroU8::new(2).unwrap() },
    quorum: config::Quorum::Local,
};

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
}

fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: Label::parse("ns").unwrap(), name: Label::parse(name).unwrap() }
}

fn probe(address: &str) -> Probe {
    Probe { address: address.parse().unwrap(), port: NonZeroU16::new(80).unwrap(), check: None }
}

fn share(cluster: u16, addresses: &[&str]) -> Share {
    let port = |protocol, number| Port { name: None, protocol, number: NonZeroU16::new(number).unwrap() };
    Share {
        cluster: ClusterId(cluster),
        exposure: Exposure::LoadBalancer,
        cluster_address: ClusterAddress::Virtual(vec![]),
        ingress: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        hostnames: vec![],
        most_ttl: None,
        ports: vec![port(Protocol::Udp, 53), port(Protocol::Tcp, 80), port(Protocol::Tcp, 443)],
        ready: true,
        pods: vec![],
        exported: true,
        offered: None,
        sticky: false,
        proxied: false,
        wishes: Wishes::default(),
        check: None,
    }
}

/// Checks without a prober: its orders are seen, and what it says is said by the test.
struct World {
    config: Config,
    checks: Checks,
    orders: mpsc::UnboundedReceiver<Order>,
}

fn world(clusters: &[&str]) -> World {
    let ingress = IngressRanges { everywhere: vec!["10.0.0.0/8".parse().unwrap()], ..IngressRanges::default() };
    let cluster = |name: &&str| Cluster { ingress: ingress.clone(), ..Cluster::named(name) };
    World::of(Config::of(clusters.iter().map(cluster).collect()), &RULES, None)
}

/// No name leads to any address.
fn nameless(_: &Share, _: IpAddr) -> Option<Arc<str>> {
    None
}

impl World {
    fn of(config: Config, rules: &Rules, voice: Option<Voice>) -> World {
        let (orders, taken) = mpsc::unbounded_channel();
        let (_, heard) = mpsc::unbounded_channel();
        let link = Link { orders, heard, counts: Arc::default(), task: None };
        World { checks: Checks::new(&config, rules, link, voice), config, orders: taken }
    }

    fn need(&mut self, name: &str, shares: &[Share]) {
        self.checks.need(&key(name), shares, &self.config.clusters, &nameless);
    }

    /// What was begun, and what was ended.
    fn orders(&mut self) -> [BTreeSet<Probe>; 2] {
        let mut orders = [BTreeSet::new(), BTreeSet::new()];
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Begin(probe) => orders[0].insert(probe),
                Order::End(probe) => orders[1].insert(probe),
                Order::Rules(_) => true,
            };
        }
        orders
    }

    fn hear(&mut self, address: &str, vote: Vote, second: u64) -> Vec<String> {
        let heard = Heard { probe: probe(address), vote, failing: vote == Vote::Down };
        self.checks.take(heard, at(second)).iter().map(|key| key.name.to_string()).collect()
    }

    fn health(&self, cluster: u16, address: &str) -> Health {
        self.checks.of(&key("web"), &share(cluster, &[address]), address.parse().unwrap(), &nameless)
    }
}

/// One service in each of three clusters, and four more addresses in each, so that one address is few.
fn three() -> World {
    let mut world = world(&["a", "b", "c"]);
    for cluster in 0..3 {
        let more: Vec<String> = (2..6).map(|n| format!("104.16.{cluster}.{n}")).collect();
        world.need(&format!("more-{cluster}"), &[share(cluster, &more.iter().map(String::as_str).collect::<Vec<_>>())]);
    }
    let web: Vec<Share> = (0..3).map(|cluster| share(cluster, &[&format!("104.16.{cluster}.1")])).collect();
    world.need("web", &web);
    world
}

#[tokio::test]
async fn a_service_with_a_check_of_its_own_is_judged_alone() {
    let mut world = three();
    let check = |text: &str| {
        let ports = share(0, &[]).ports;
        Some(Arc::new(Check::parse(text, &ports).unwrap()))
    };
    let asked = |text: &str| Share { check: check(text), ..share(1, &["104.16.1.1"]) };
    let of = |text: &str| {
        let check = check(text);
        let port = check.as_ref().and_then(|check| check.port);
        Probe { check, port: port.unwrap_or(probe("104.16.1.1").port), ..probe("104.16.1.1") }
    };
    world.orders();
    world.need("shop", &[asked("http path=/shop")]);
    world.need("cart", &[asked("http path=/cart port=443")]);
    assert_eq!(world.orders()[0], BTreeSet::from([of("http path=/shop"), of("http path=/cart port=443")]));
    world.need("cart", &[asked("http path=/shop")]);
    assert_eq!(
        world.orders(),
        [BTreeSet::new(), BTreeSet::from([of("http path=/cart port=443")])],
        "the same question"
    );
    world.need("bread", &[asked("none")]);
    assert_eq!(world.orders(), [BTreeSet::new(), BTreeSet::new()]);
    world.need("cart", &[asked("http path=/cart")]);

    let health = |world: &World, name: &str, share: &Share| {
        world.checks.of(&key(name), share, "104.16.1.1".parse().unwrap(), &nameless)
    };
    let heard = |world: &mut World, probe: Probe, vote: Vote, second: u64| {
        let heard = Heard { probe, vote, failing: vote == Vote::Down };
        world.checks.take(heard, at(second)).iter().map(|key| key.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(heard(&mut world, of("http path=/shop"), Vote::Down, 1), ["shop"]);
    assert_eq!(health(&world, "shop", &asked("http path=/shop")), Health::Down);
    for (name, share) in
        [("cart", asked("http path=/cart")), ("web", share(1, &["104.16.1.1"])), ("bread", asked("none"))]
    {
        assert_eq!(health(&world, name, &share), Health::Fine, "{name}");
    }
    let [judged] = &world.checks.judged(&key("shop"), at(2))[..] else { panic!("one endpoint") };
    assert_eq!((&*judged.endpoint, &*judged.probe), ("104.16.1.1:80", "http path=/shop status=200-299"));
    // Another question does not make it Up, and nobody knows the answer yet.
    world.need("shop", &[asked("http path=/shops")]);
    assert_eq!(health(&world, "shop", &asked("http path=/shops")), Health::Down);
    // Whoever asks for nothing any more is judged as all others are.
    world.need("shop", &[share(1, &["104.16.1.1"])]);
    assert_eq!(health(&world, "shop", &share(1, &["104.16.1.1"])), Health::Fine);
    assert_eq!(world.orders()[1], BTreeSet::from([of("http path=/shop"), of("http path=/shops")]));
}

#[tokio::test]
async fn what_services_have_is_probed_and_nothing_else() {
    let mut world = world(&["a", "b"]);
    let set = |list: &[&str]| list.iter().map(|address| probe(address)).collect::<BTreeSet<_>>();
    let hidden = Share { exported: false, ..share(0, &["104.16.0.9"]) };
    let inside = Share { exposure: Exposure::ClusterOnly, ..share(0, &["104.16.0.8"]) };
    let no_tcp = Share { ports: share(0, &[]).ports[..1].to_vec(), ..share(0, &["104.16.0.7"]) };
    world.need("a", &[share(0, &["104.16.0.1", "127.0.0.1", "169.254.169.254", "192.168.0.1", "10.0.0.1"])]);
    for (n, share) in [hidden, inside, no_tcp].into_iter().enumerate() {
        world.need(&format!("b{n}"), &[share]);
    }
    // Of private ones those that the configuration declares.
    assert_eq!(world.orders(), [set(&["104.16.0.1", "10.0.0.1"]), set(&[])]);
    world.need("c", &[share(1, &["104.16.0.1"])]);
    world.need("d", &[share(0, &["104.16.0.1"])]);
    assert_eq!(world.orders(), [set(&[]), set(&[])], "distinct addresses and ports only");
    world.need("a", &[share(0, &["10.0.0.2"])]);
    assert_eq!(world.orders(), [set(&["10.0.0.2"]), set(&["10.0.0.1"])]);
    world.need("d", &[]);
    assert_eq!(world.orders(), [set(&[]), set(&[])], "another cluster still has it");
    world.need("c", &[]);
    assert_eq!(world.orders(), [set(&[]), set(&["104.16.0.1"])]);
    world.need("a", &[]);
    assert_eq!(world.checks.board.sums(), Sums::default());
    assert!(world.checks.board.endpoints().next().is_none() && world.checks.users.is_empty());
    assert!(world.checks.services.is_empty());
    assert_eq!(world.hear("10.0.0.2", Vote::Down, 1), [""; 0], "what comes too late");
}

#[tokio::test]
async fn a_verdict_is_of_all_services_that_share_the_address() {
    let mut world = three();
    world.need("other", &[share(1, &["104.16.1.1"])]);
    assert_eq!(world.hear("104.16.1.1", Vote::Up, 0), [""; 0]);
    assert_eq!(world.hear("104.16.1.1", Vote::Down, 1), ["other", "web"]);
    assert_eq!((world.health(1, "104.16.1.1"), world.health(0, "104.16.0.1")), (Health::Down, Health::Fine));
    assert_eq!(world.checks.board.sums(), Sums { up: 0, unknown: 14, suspect: 0, down: 1 });
    // It is back after ten seconds.
    assert_eq!(world.hear("104.16.1.1", Vote::Up, 20), [""; 0]);
    assert_eq!(world.checks.next_deadline(), Some(at(30)));
    assert_eq!(world.checks.tick(at(30)).len(), 2);
    assert_eq!((world.health(1, "104.16.1.1"), world.checks.next_deadline()), (Health::Fine, None));
}

#[tokio::test]
async fn a_private_address_counts_once_it_was_reached() {
    let mut world = three();
    world.need("private", &[share(0, &["10.0.0.1"])]);
    assert_eq!(world.hear("10.0.0.1", Vote::Down, 0), [""; 0], "it may be none of ours to reach");
    assert_eq!(world.health(0, "10.0.0.1"), Health::Fine);
    assert_eq!(world.hear("10.0.0.1", Vote::Up, 10), [""; 0]);
    assert_eq!(world.hear("10.0.0.1", Vote::Down, 20), ["private"]);
    assert_eq!(world.health(0, "10.0.0.1"), Health::Down);
}

#[tokio::test]
async fn who_is_cut_off_removes_nothing() {
    let mut world = three();
    // First failures come before anybody is Down.
    for n in [1, 2, 3] {
        for cluster in [0, 1] {
            let heard = Heard { probe: probe(&format!("104.16.{cluster}.{n}")), vote: Vote::Abstain, failing: true };
            assert_eq!(world.checks.take(heard, at(0)), []);
        }
    }
    assert!(world.checks.sample().isolated);
    world.hear("104.16.0.1", Vote::Down, 10);
    assert_eq!(world.health(0, "104.16.0.1"), Health::Suspect);
    // Two rounds after it is over, what is still failing goes.
    for n in [1, 2, 3] {
        world.hear(&format!("104.16.1.{n}"), Vote::Up, 20);
    }
    assert_eq!(world.health(0, "104.16.0.1"), Health::Suspect);
    assert_eq!(world.checks.next_deadline(), Some(at(30)));
    world.checks.tick(at(30));
    assert_eq!((world.health(0, "104.16.0.1"), world.checks.sample().isolated), (Health::Down, false));
}

#[tokio::test]
async fn what_goes_one_after_the_other_is_stopped_too() {
    let mut world = three();
    let down = |world: &mut World, cluster: u16, n: u16, second: u64| {
        // Each is seen alone, so that nobody is taken for cut off.
        let heard = Heard { probe: probe(&format!("104.16.{cluster}.{n}")), vote: Vote::Down, failing: false };
        world.checks.take(heard, at(second));
        world.health(cluster, &format!("104.16.{cluster}.{n}"))
    };
    for n in 1..=3 {
        assert_eq!(down(&mut world, 0, n, 0), Health::Down, "one of three clusters may go");
    }
    assert_eq!([1, 2].map(|n| down(&mut world, 1, n, 10)), [Health::Down; 2]);
    assert_eq!(down(&mut world, 1, 3, 20), Health::Suspect, "a second one within a minute may not");
    let sample = world.checks.sample();
    assert!(sample.frozen);
    assert_eq!(sample.votes, [("up", 0), ("down", 6), ("abstain", 9)]);
    assert_eq!(sample.transitions, [("fine", 0), ("suspect", 1), ("down", 5)]);
    assert_eq!(down(&mut world, 2, 1, 100), Health::Suspect);
    let mut released = world.checks.board.clone();
    assert_eq!(released.release(true, at(110)).changed.len(), 2, "an operator knows better");
    assert!(!released.is_frozen());
    assert_eq!(released.release(true, at(111)), Effects::default(), "once is enough");
    assert_eq!(released.release(false, at(112)).changed.len(), 0, "what is gone is gone");
    assert_eq!(world.checks.next_deadline(), Some(at(620)));
    world.checks.tick(at(620));
    assert_eq!((world.health(1, "104.16.1.3"), world.health(2, "104.16.2.1")), (Health::Down, Health::Down));
    assert!(!world.checks.sample().frozen);
}

#[tokio::test]
async fn verdicts_outlive_another_configuration() {
    let mut world = three();
    world.hear("104.16.1.1", Vote::Down, 0);
    world.orders();
    // The first cluster is gone, and the others have other numbers.
    let config = Config::of(world.config.clusters[1..].to_vec());
    world.checks = world.checks.reconfigured(&config, &RULES, 1, at(0));
    world.config = config;
    world.need("web", &[share(0, &["104.16.1.1"]), share(1, &["104.16.2.1"])]);
    world.checks.forget_unused(at(0));
    let [begun, ended] = world.orders();
    assert_eq!((begun.len(), ended.len()), (0, 13), "the prober goes on with what is still there");
    assert_eq!((world.health(0, "104.16.1.1"), world.health(1, "104.16.2.1")), (Health::Down, Health::Fine));
    assert_eq!(world.checks.board.sums(), Sums { up: 0, unknown: 1, suspect: 0, down: 1 });
    assert_eq!(world.checks.board.down().0, [(1, 1), (1, 0)]);
}
