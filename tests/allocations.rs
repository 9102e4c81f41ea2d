//! The answer path does not allocate: every allocation of the thread that answers is counted.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signpost::answer::{Client, Rcode, Reply, Responder, Transport};
use signpost::config::Places;
use signpost::health::Health;
use signpost::load::Shedding;
use signpost::metrics::Metrics;
use signpost::model::{ClusterId, Federated, Region, Share, View, ViewRule};
use signpost::net::udp;
use signpost::table::{Outlook, Reader};
use support::ask::Ask;
use support::small::{headless, question};
use support::*;

/// Rounds of the publisher beside which the reader is watched.
const PUBLISHED: u32 = 500;
/// Rounds of all queries that the worker loop answers, in each view.
const ROUNDS: usize = 100;
/// Queries that are sent before their answers are read: batches of several, and few enough that none is lost.
const IN_FLIGHT: usize = 16;
/// For one answer; far above what it takes, also on a loaded machine.
const ANSWER: Duration = Duration::from_secs(30);

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Whether this thread is a worker that another thread watches.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// Of all watched threads: a worker's loop is its thread's whole life, and can be asked nothing.
static WATCHED_ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator unchanged. The counters are an atomic and constant-initialised
// thread-locals without destructors, so that counting neither allocates nor fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        if WATCHED.get() {
            WATCHED_ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn world() -> World {
    let mut config = config((0..20).map(|i| cluster(&format!("c{i}"), &format!("r{}", i % 3))).collect());
    let place = |region: &str, cidrs: &[&str]| Places::Inline {
        region: Region(region.into()),
        availability_zone: None,
        cidrs: cidrs.iter().map(|cidr| cidr.parse().expect("a CIDR")).collect(),
    };
    config.location.places = vec![place("r1", &["127.0.0.0/8"]), place("r2", &["203.0.113.0/24", "2001:db8::/48"])];
    config.zones[0].families = signpost::config::Families::Any;
    config.explain_to = vec!["127.0.0.0/8".parse().expect("a CIDR")];
    config.clusters[19].namespaces = signpost::config::Namespaces::Only(vec![label("late")]);
    let statics = "www CNAME svc.ns\nold DNAME ns\n*.w TXT wild\nsub NS ns.sub\nns.sub A 192.0.2.7\n";
    let mut world = World::new(config, &format!("{ZONE_FILE}{statics}"));
    for i in 0..19 {
        world.publisher.set_synced(ClusterId(i));
    }
    let wide = (0..19).map(|c| load_balancer(c, "10.0.0.1", &[&format!("104.0.{c}.1"), &format!("2600::{c}")]));
    world.publish(key("ns", "wide"), wide.collect());
    world.publish(key("ns", "svc"), shares(0));
    // Of the short way, where places and load have a say.
    let plain = |c: u16| load_balancer(c, "10.0.0.1", &[&format!("104.2.{c}.1")]);
    for (name, shed) in [("plain", 0), ("busy", 128)] {
        let service = Federated { key: key("ns", name), shares: (0..3).map(plain).collect(), imports: vec![] };
        let shedding =
            |cluster: ClusterId| Shedding { share: if cluster.0 == 2 { shed } else { 0 }, overloaded: false };
        let outlook = Outlook { shedding: &shedding, ..Outlook::FAIR };
        world.publisher.publish_with(&service.key, Some(&service), &outlook);
    }
    world.publish(key("ns", "db"), vec![headless(0, &[("db-0", &["10.9.0.1"]), ("db-1", &["10.9.0.2"])])]);
    world
}

fn shares(n: u8) -> Vec<signpost::model::Share> {
    let ingress = |c: u16| [format!("104.1.{c}.{n}"), format!("2600::{c}:{n}")];
    (0..3).map(|c| load_balancer(c, "10.0.0.1", &ingress(c).each_ref().map(String::as_str))).collect()
}

/// Every kind of answer, and its outcome.
fn asks() -> Vec<(Ask, Rcode)> {
    let cases = [
        ("svc.ns A", Rcode::NoError),
        ("svc.ns AAAA", Rcode::NoError),
        ("wide.ns A", Rcode::NoError),
        ("svc.ns SRV", Rcode::NoError),
        ("plain.ns A", Rcode::NoError),
        ("busy.ns A", Rcode::NoError),
        ("_client._tcp.plain.ns SRV", Rcode::NoError),
        ("_client._tcp.busy.ns SRV", Rcode::NoError),
        ("_client._tcp.svc.ns SRV", Rcode::NoError),
        ("db-1.c0.db.ns A", Rcode::NoError),
        ("www A", Rcode::NoError),
        ("svc.old A", Rcode::NoError),
        ("x.w TXT", Rcode::NoError),
        ("x.sub A", Rcode::NoError),
        ("@ ANY", Rcode::NoError),
        ("svc.ns TXT", Rcode::NoData),
        ("_explain.wide.ns TXT", Rcode::NoError),
        ("ns A", Rcode::NoData),
        ("nothing.ns A", Rcode::NxDomain),
        ("a.b.c.d.e.f.g A", Rcode::NxDomain),
        ("x.late A", Rcode::ServFail),
        ("www.example.net. A", Rcode::Refused),
        ("svc.ns NXNAME", Rcode::FormErr),
        ("svc.ns MAILA", Rcode::NotImp),
    ];
    let mut asks = Vec::new();
    for (text, rcode) in cases {
        let ask = question(text);
        asks.push((ask.clone(), rcode));
        asks.push((ask.clone().edns(1232).option(3, &[]), rcode));
        // Client subnets (RFC 7871), which count in the external view.
        asks.push((ask.clone().edns(1232).option(8, &[0, 1, 24, 0, 203, 0, 113]), rcode));
        asks.push((ask.clone().edns(1232).option(8, &[0, 2, 48, 0, 0x20, 0x01, 0x0d, 0xb8, 0, 0]), rcode));
        asks.push((ask.clone().tcp(), rcode));
        asks.push((ask.edns(4096).option(11, &[]).tcp(), rcode));
    }
    asks.push((Ask { qclass: 3, ..Ask::new("version.bind", 16) }, Rcode::NoError));
    asks.push((Ask { opcode: 5, ..question("@ SOA") }, Rcode::NotImp));
    asks.push((question("svc.ns A").edns(1232).option(8, &[9]), Rcode::FormErr));
    asks
}

/// A worker of `net`, as far as answers go.
struct Worker {
    reader: Reader,
    responder: Responder,
    buffer: Vec<u8>,
    queries: Vec<(Vec<u8>, Transport, Rcode)>,
}

impl Worker {
    /// Answers all queries in one batch for each view; returns how many answers there were.
    fn round(&mut self) -> u32 {
        let mut answers = 0;
        for view in [View::External, View::Internal(ClusterId(0))] {
            let Worker { reader, responder, buffer, queries } = self;
            reader.with(|table| {
                for (query, transport, rcode) in queries {
                    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
                    let client = Client {
                        address,
                        audience: ViewRule::Fixed(view).into(),
                        transport: *transport,
                        keepalive: 100,
                    };
                    buffer[..query.len()].copy_from_slice(query);
                    match responder.answer(table, client, buffer, query.len()) {
                        // The headless service is there for its own cluster only.
                        Reply::Send { outcome, .. } if outcome.rcode == *rcode || view == View::External => {
                            answers += 1
                        }
                        other => panic!("{other:?} to {query:?}"),
                    }
                }
            });
        }
        answers
    }
}

#[test]
fn answers_allocate_nothing() {
    let World { mut publisher, reader, responder, .. } = world();
    let queries = asks().into_iter().map(|(ask, rcode)| (ask.to_vec(), ask.transport, rcode)).collect();
    let mut worker = Worker { reader, responder, buffer: vec![0; 65_535], queries };
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(worker.round())));
    assert!(ALLOCATIONS.get() > before, "allocations are counted");

    let before = ALLOCATIONS.get();
    let answers: u32 = (0..200).map(|_| worker.round()).sum();
    assert_eq!(ALLOCATIONS.get() - before, 0, "allocations in {answers} answers");

    // The same while another thread publishes, so that entries are replaced under the reader's eyes.
    let (stop, published) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (0..=u8::MAX).cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
                let service = Federated { key: key("ns", "svc"), shares: shares(n), imports: vec![] };
                // Verdicts come and go, too.
                let health = |share: &Share, _| match (share.cluster.0, n % 3) {
                    (0, 1) => Health::Down,
                    (1, 2) => Health::Suspect,
                    _ => Health::Fine,
                };
                publisher.publish_with(&service.key, Some(&service), &Outlook { health: &health, ..Outlook::FAIR });
                let service =
                    Federated { key: key("churn", &format!("s{}", n / 2)), shares: shares(n), imports: vec![] };
                publisher.publish(&service.key, (n % 2 == 0).then_some(&service));
                // So do loads of clusters, and silent ones.
                let shedding = Shedding { share: if n % 3 == 0 { 100 } else { 0 }, overloaded: n % 5 == 0 };
                publisher.set_shedding(ClusterId(0), shedding);
                publisher.set_silent(ClusterId(1), n % 2 == 0);
                published.fetch_add(1, Ordering::Relaxed);
            }
        });
        let deadline = Instant::now() + Duration::from_secs(120);
        let before = ALLOCATIONS.get();
        let mut answers = 0;
        while published.load(Ordering::Relaxed) < PUBLISHED && Instant::now() < deadline {
            answers += worker.round();
        }
        let allocations = ALLOCATIONS.get() - before;
        stop.store(true, Ordering::Relaxed);
        assert!(published.load(Ordering::Relaxed) >= PUBLISHED, "the writer comes to run");
        assert_eq!(allocations, 0, "allocations in {answers} answers beside a publisher");
    });
}

/// Sends the queries some at a time and reads an answer for each.
fn exchange(client: &UdpSocket, queries: &[(Vec<u8>, Rcode)]) -> usize {
    let mut buffer = [0; 2048];
    for some in queries.chunks(IN_FLIGHT) {
        for (n, (query, _)) in some.iter().enumerate() {
            let query = [&(n as u16).to_be_bytes()[..], &query[2..]].concat();
            client.send(&query).unwrap();
        }
        for answered in 0..some.len() {
            let length = client.recv(&mut buffer).unwrap_or_else(|e| panic!("after {answered} of {}: {e}", some.len()));
            let (query, rcode) = &some[usize::from(u16::from_be_bytes([buffer[0], buffer[1]]))];
            assert!(length >= 12 && buffer[2] & 0x80 != 0, "an answer to {query:?}");
            // NODATA is NOERROR without an answer.
            let answers = u16::from_be_bytes([buffer[6], buffer[7]]);
            let got = match (buffer[3] & 0x0f, answers) {
                (0, 0) => Rcode::NoData,
                (0, _) => Rcode::NoError,
                (1, _) => Rcode::FormErr,
                (2, _) => Rcode::ServFail,
                (3, _) => Rcode::NxDomain,
                (4, _) => Rcode::NotImp,
                (5, _) => Rcode::Refused,
                (other, _) => panic!("RCODE {other} to {query:?}"),
            };
            // Referrals have no answer either, and headless services and what does not fit depend on the view.
            assert!(got == *rcode || *rcode == Rcode::NoError, "{got:?} and not {rcode:?} to {query:?}");
        }
    }
    queries.len()
}

/// The loop of `net`, with its system calls and counters, on a socket of its own.
#[test]
fn a_udp_worker_allocates_nothing() {
    let World { publisher: _publisher, reader, .. } = world();
    let queries: Vec<(Vec<u8>, Rcode)> = asks()
        .into_iter()
        .filter(|(ask, _)| ask.transport == Transport::Udp)
        .map(|(ask, rcode)| (ask.to_vec(), rcode))
        .collect();
    let metrics = Metrics::new();
    for view in [View::External, View::Internal(ClusterId(0))] {
        let (address, mut sockets) = udp::bind("127.0.0.1:0".parse().unwrap(), 1, 1 << 20).unwrap();
        let socket = sockets.remove(0);
        let counters = metrics.udp_worker();
        let (worker, stopper) = udp::Worker::new(socket, ViewRule::Fixed(view).into(), reader.clone(), 1, counters);
        let before = WATCHED_ALLOCATIONS.load(Ordering::Relaxed);
        let thread = thread::spawn(move || {
            WATCHED.set(true);
            worker.run()
        });
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(address).unwrap();
        client.set_read_timeout(Some(ANSWER)).unwrap();
        exchange(&client, &queries);
        let warm = WATCHED_ALLOCATIONS.load(Ordering::Relaxed);
        assert!(warm > before, "the worker's start allocates its buffers, and that is counted");

        let answers: usize = (0..ROUNDS).map(|_| exchange(&client, &queries)).sum();
        let allocations = WATCHED_ALLOCATIONS.load(Ordering::Relaxed) - warm;
        assert_eq!(allocations, 0, "allocations in {answers} answers, {view:?}");
        println!("{answers} answers, {view:?}");
        stopper.stop();
        thread.join().unwrap().unwrap();
    }
}
