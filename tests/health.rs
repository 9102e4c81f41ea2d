//! Addresses that cannot be reached: the program as its users run it, with real connections in a network of the test's own.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use common::again::{self, listen};
use common::dig::{Dig, third_octets};
use common::namespace::Namespace;
use common::process::Process;
use common::signpost::{MemberSource, Ports, START, Setup, Signpost, ZONE, metric};
use common::{same, stays, wait_for};

const PORT: u16 = 8080;
/// Of services that are always there.
const OTHERS: [u16; 2] = [9090, 9091];
/// With probes every second, and two failures or successes to be sure.
const GONE: Duration = Duration::from_secs(20);
const BACK: Duration = Duration::from_secs(30);

fn address(cluster: usize) -> String {
    format!("104.16.{cluster}.1")
}

/// What listens; started by the tests as a program of its own.
#[test]
#[ignore = "a backend of the other tests"]
fn backend() {
    again::backend();
}

/// What answers HTTP with the status in a file that is named by who is asked for; started by the tests as a program of its own.
#[test]
#[ignore = "a backend of the other tests"]
fn http_backend() {
    let setting = std::env::var("HTTP_BACKEND").expect("an address and a folder");
    let (address, directory) = setting.split_once('@').expect("an address and a folder");
    for stream in again::listener(address.parse().expect("an address")).incoming().flatten() {
        let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
        let host = lines.find_map(|line| line.strip_prefix("host: ").map(str::to_owned)).unwrap_or_default();
        let name = host.split(':').next().unwrap_or_default();
        let status = fs::read_to_string(Path::new(directory).join(name)).unwrap_or_else(|_| "404 Not Found".to_owned());
        // Whoever asked may be gone.
        let _ = (&stream).write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
    }
}

fn service(name: &str, cluster: usize, port: u16) -> String {
    service_with(name, cluster, port, "")
}

/// `probe`: what the annotation asks for.
fn service_with(name: &str, cluster: usize, port: u16, probe: &str) -> String {
    let annotations = if probe.is_empty() { String::new() } else { format!("signpost.dev/probe: {probe}") };
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: n, annotations: {{{annotations}}}}}, spec: {{type: LoadBalancer, clusterIP: \
         10.{cluster}.0.1, ports: [{{name: udp, protocol: UDP, port: 53}}, {{name: http, port: {port}}}]}}, status: \
         {{loadBalancer: {{ingress: [{{ip: {}}}]}}}}}}\n",
        address(cluster)
    )
}

struct World {
    namespace: Namespace,
    directory: tempfile::TempDir,
    signpost: Signpost,
    backends: [Option<Process>; 3],
    /// What listens for the services that are always there, if there are any.
    _others: Vec<Process>,
}

impl World {
    /// Three clusters with one service, and a backend for each; in each of them others that are always there, on these ports.
    fn new(sections: &str, others: &[u16]) -> World {
        let namespace = Namespace::new();
        let directory = tempfile::tempdir().expect("a temporary folder");
        let source = |cluster: usize| {
            let manifests = directory.path().join(format!("cluster-{cluster}"));
            fs::create_dir(&manifests).expect("the folder is ours");
            let mut text = service("web", cluster, PORT);
            others.iter().for_each(|port| text += &format!("---\n{}", service(&format!("on-{port}"), cluster, *port)));
            fs::write(manifests.join("all.yaml"), text).expect("the folder is ours");
            MemberSource::Manifests(manifests)
        };
        let mut setup = Setup::new([1, 2, 3].map(source).into());
        setup.sections = sections.to_owned();
        for cluster in 1..=3 {
            namespace.run(&format!("ip address add {}/32 dev lo", address(cluster)));
        }
        let listen =
            |port: &u16| listen(&namespace, directory.path(), &format!("other-{port}"), &format!("0.0.0.0:{port}"));
        let _others = others.iter().map(listen).collect();
        let ports = Ports::inside();
        let signpost = Signpost::spawn(&setup, ports, Some(&namespace));
        let mut world = World { namespace, directory, signpost, backends: [None, None, None], _others };
        (1..=3).for_each(|cluster| world.start(cluster));
        world
    }

    fn start(&mut self, cluster: usize) {
        let (name, address) = (format!("backend-{cluster}"), format!("{}:{PORT}", address(cluster)));
        self.backends[cluster - 1] = Some(listen(&self.namespace, self.directory.path(), &name, &address));
    }

    fn kill(&mut self, cluster: usize) {
        self.backends[cluster - 1].take().expect("it runs").kill();
    }

    fn dig(&self, server: SocketAddr, name: &str) -> Result<Vec<IpAddr>, String> {
        Dig::inside(&self.namespace, server).addresses(&format!("{name}.{ZONE}"), "A")
    }

    /// Which clusters the answer to a client outside has.
    fn answered(&self) -> Result<BTreeSet<u8>, String> {
        Ok(third_octets(&self.dig(self.signpost.ports.external, "web.n")?))
    }

    fn expect(&self, what: &str, deadline: Duration, clusters: &[u8]) {
        let expected: BTreeSet<u8> = clusters.iter().copied().collect();
        wait_for(what, deadline, || self.answered().and_then(|answered| same(answered, expected.clone())));
    }

    fn says(&self, what: &str) {
        wait_for(what, GONE, || match self.signpost.log() {
            log if log.contains(what) => Ok(()),
            log => self.signpost.check().and(Err(log)),
        });
    }
}

#[test]
fn what_cannot_be_reached_is_left_out_until_it_is_back() {
    let mut world = World::new("health: {quorum: local, interval: 1s, timeout: 1s, fall: 2, rise: 2}\n", &[]);
    world.expect("all that are there", START, &[1, 2, 3]);
    // Long enough for votes; nothing goes.
    stays("nothing is removed", Duration::from_secs(4), || same(world.answered()?, BTreeSet::from([1, 2, 3])));
    world.kill(2);
    world.expect("without the second cluster", GONE, &[1, 3]);
    let internal = world.signpost.ports.internal;
    let own: Vec<IpAddr> = ["10.1.0.1", &address(3)].map(|a| a.parse().expect("an address")).into();
    assert_eq!(world.dig(internal, "web.n"), Ok(own), "the own clusterIP is not asked for");
    let pin: IpAddr = address(2).parse().expect("an address");
    assert_eq!(world.dig(internal, "cluster-2.web.n"), Ok(vec![pin]), "a pin is a pin");

    // Verdicts outlive a new configuration.
    world.signpost.reload();
    stays("it is still left out", Duration::from_secs(3), || same(world.answered()?, BTreeSet::from([1, 3])));

    // If half of most clusters fail, it is likelier that this instance is cut off.
    world.kill(3);
    world.says("this instance abstains");
    stays("nothing more is removed", Duration::from_secs(4), || same(world.answered()?, BTreeSet::from([1, 3])));
    world.start(3);
    world.says("this instance votes again");
    world.start(2);
    world.expect("all are back", BACK, &[1, 2, 3]);
}

#[test]
fn services_behind_one_address_are_asked_each_for_itself() {
    const HTTP: u16 = 8081;
    let world = World::new("health: {quorum: local, interval: 1s, timeout: 1s, fall: 2, rise: 2}\n", &[]);
    let status = |cluster: usize, name: &str| world.directory.path().join(format!("{name}-{cluster}.example.com"));
    let set = |cluster, name: &str, text: &str| fs::write(status(cluster, name), text).expect("the folder is ours");
    let mut backends = Vec::new();
    for cluster in 1..=3 {
        let setting = format!("HTTP_BACKEND={}:{HTTP}@{}", address(cluster), world.directory.path().display());
        let name = format!("http-{cluster}");
        backends.push(again::again("http_backend", &setting, &name, world.directory.path(), &world.namespace));
        let of = |name: &str| {
            set(cluster, name, "200 OK");
            service_with(name, cluster, HTTP, &format!("http path=/live host={name}-{cluster}.example.com"))
        };
        let text = format!("{}---\n{}", of("shop"), of("cart"));
        let manifests = world.directory.path().join(format!("cluster-{cluster}"));
        fs::write(manifests.join("more.yaml"), text).expect("the folder is ours");
    }
    let answered = |name: &str| world.dig(world.signpost.ports.external, name).map(|all| third_octets(&all));
    let expect = |what: &str, deadline, name: &'static str, clusters: &[u8]| {
        let expected: BTreeSet<u8> = clusters.iter().copied().collect();
        wait_for(what, deadline, || answered(name).and_then(|answered| same(answered, expected.clone())));
    };
    expect("all that are there", START, "shop.n", &[1, 2, 3]);
    let voted = || {
        let explained = world.signpost.get_inside(&world.namespace, &format!("/explain?name=shop.n.{ZONE}"))?;
        let up = explained.matches("\"vote\": \"up\"").count();
        if up == 3 { Ok(explained) } else { Err(explained) }
    };
    let explained = wait_for("all are asked", GONE, voted);
    assert!(explained.contains("http path=/live status=200-299 host=shop-2.example.com"), "{explained}");
    set(2, "shop", "503 Service Unavailable");
    expect("without the second", GONE, "shop.n", &[1, 3]);
    stays("of the other service nothing is removed", Duration::from_secs(3), || {
        same(answered("cart.n")?, BTreeSet::from([1, 2, 3]))
    });
    let metrics = world.signpost.get_inside(&world.namespace, "/metrics").expect("metrics");
    assert!(metric(&metrics, "signpost_probes_total{result=\"status\"}").is_some_and(|n| n >= 2.0), "{metrics}");
    set(2, "shop", "200 OK");
    expect("it is back", BACK, "shop.n", &[1, 2, 3]);
}

#[test]
fn nobody_asked_for_probes() {
    let mut world = World::new("", &[]);
    world.expect("all that are there", START, &[1, 2, 3]);
    (1..=3).for_each(|cluster| world.kill(cluster));
    stays("readiness alone decides", Duration::from_secs(5), || same(world.answered()?, BTreeSet::from([1, 2, 3])));
}

#[test]
fn if_nothing_can_be_reached_all_is_answered_for_a_short_time() {
    let mut world = World::new("health: {quorum: local, interval: 1s, timeout: 1s, fall: 2, rise: 2}\n", &OTHERS);
    world.expect("all that are there", START, &[1, 2, 3]);
    let external = world.signpost.ports.external;
    let ttl = |world: &World| -> Result<Vec<String>, String> {
        Ok(Dig::inside(&world.namespace, external).ask(&format!("web.n.{ZONE}"), "A")?.ttls())
    };
    assert_eq!(ttl(&world), Ok(vec!["180".to_owned(); 3]));
    (1..=3).for_each(|cluster| world.kill(cluster));
    // One after the other goes, until there is none left to be answered with instead.
    wait_for("all three, for five seconds", GONE, || same(ttl(&world)?, vec!["5".to_owned(); 3]));
    let metrics = world.signpost.get_inside(&world.namespace, "/metrics").expect("metrics");
    let value = |name: &str| metric(&metrics, name);
    assert_eq!(value("signpost_health_endpoints{health=\"down\"}"), Some(3.0), "{metrics}");
    let open = value("signpost_answers_failed_open_total{transport=\"udp\",view=\"external\"}");
    assert!(open.is_some_and(|count| count >= 1.0), "{metrics}");
    assert_eq!(value("signpost_health_isolated"), Some(0.0));
    assert!(value("signpost_probes_total{result=\"unreachable\"}").is_some_and(|count| count >= 6.0), "{metrics}");
    world.start(1);
    world.expect("the one that is back", BACK, &[1]);
}
