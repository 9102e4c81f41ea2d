//! The answer path does not allocate: every allocation of the reading thread is counted.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use signpost::answer::{Client, Rcode, Reply, Responder, Transport};
use signpost::model::{ClusterId, Federated, View, ViewRule};
use signpost::table::Reader;
use support::ask::Ask;
use support::small::{headless, question};
use support::*;

/// Rounds of the publisher beside which the reader is watched.
const PUBLISHED: u32 = 500;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged. The counter is a constant-initialised thread-local
// without a destructor, so that counting neither allocates nor fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
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
    let mut config = config((0..20).map(|i| cluster(&format!("c{i}"), "r")).collect());
    config.zones[0].families = signpost::config::Families::Any;
    config.clusters[19].namespaces = signpost::config::Namespaces::Only(vec![label("late")]);
    let statics = "www CNAME svc.ns\nold DNAME ns\n*.w TXT wild\nsub NS ns.sub\nns.sub A 192.0.2.7\n";
    let mut world = World::new(config, &format!("{ZONE_FILE}{statics}"));
    for i in 0..19 {
        world.publisher.set_synced(ClusterId(i));
    }
    let wide = (0..19).map(|c| load_balancer(c, "10.0.0.1", &[&format!("104.0.{c}.1"), &format!("2600::{c}")]));
    world.publish(key("ns", "wide"), wide.collect());
    world.publish(key("ns", "svc"), shares(0));
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
        ("_client._tcp.svc.ns SRV", Rcode::NoError),
        ("db-1.c0.db.ns A", Rcode::NoError),
        ("www A", Rcode::NoError),
        ("svc.old A", Rcode::NoError),
        ("x.w TXT", Rcode::NoError),
        ("x.sub A", Rcode::NoError),
        ("@ ANY", Rcode::NoError),
        ("svc.ns TXT", Rcode::NoData),
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
                    let client = Client { address, view: ViewRule::Fixed(view), transport: *transport, keepalive: 100 };
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
                let service = Federated { key: key("ns", "svc"), shares: shares(n) };
                publisher.publish(&service.key, Some(&service));
                let service = Federated { key: key("churn", &format!("s{}", n / 2)), shares: shares(n) };
                publisher.publish(&service.key, (n % 2 == 0).then_some(&service));
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
