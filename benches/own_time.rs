//! What an answer takes in user space: the time between receive and send, in batches.
//!
//! `cargo bench --bench own_time`; after `--`: `--quick` for few batches. The data and the questions are those of `peers`: 10,000 services
//! in 3 clusters; where place plays a part, 500,000 prefixes of which each client's is one; where load does, one cluster sheds half
//! of its answers. It is a UDP worker's own code that works, and the kernel does for it what it does for a worker. Before each batch, 2 MiB
//! of other memory are read: what they and the kernel leave in the caches of ours is little. Each figure is a tenth percentile of what batches
//! take, in which the machine's other work has the least part, and beside it their median.

#[path = "rig/places.rs"]
#[allow(dead_code, reason = "each benchmark uses its own part of this")]
mod places;
#[path = "rig/questions.rs"]
#[allow(dead_code, reason = "each benchmark uses its own part of this")]
mod questions;
#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use signpost::config::Mode;
use signpost::load::Shedding;
use signpost::location::Spot;
use signpost::metrics::Metrics;
use signpost::model::{Audience, ClusterId, Federated, Region, View, ViewRule};
use signpost::net::udp::{self, Answers, Batch, Handler, Wait};
use signpost::table::{Atlas, Outlook, Random};
use signpost::wire::MAX_UDP;

use questions::{CLUSTERS, Mix, SERVICES, ZONE};
use support::{World, cluster, config, key, load_balancer, zone};

/// As many as a worker receives at once.
const BATCH: usize = 32;
const RECEIVE_BUFFER: u32 = 1 << 20;
const PLACES: u32 = 500_000;
/// Of the answers, as [`Shedding`] counts them.
const HALF: u8 = 128;
/// Batches that are measured.
const BATCHES: usize = 16_000;
const QUICK: usize = 1_200;
/// For one datagram, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// Octets that are read before each batch: more than most second-level caches have.
const OTHER: usize = 2 << 20;

/// What answers go by.
#[derive(Clone, Copy)]
struct Play {
    name: &'static str,
    places: bool,
    load: bool,
}

const PLAYS: [Play; 3] = [
    Play { name: "plain", places: false, load: false },
    Play { name: "places", places: true, load: false },
    Play { name: "places, load", places: true, load: true },
];
const MIXES: [Mix; 6] = [Mix::A, Mix::Subnet, Mix::Srv, Mix::NxDomain, Mix::Mixed, Mix::MixedSubnet];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let batches = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => BATCHES,
        ["--quick"] => QUICK,
        ["--help"] => {
            println!("own_time: --quick for {QUICK} batches instead of {BATCHES}, or nothing");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("own_time: --quick, or nothing");
            return ExitCode::FAILURE;
        }
    };
    println!("{:<14} {:<10} {:>9} {:>9}", "in play", "mix", "ns/query", "median");
    for play in PLAYS {
        let world = world(play);
        for mix in MIXES {
            let [tenth, median] = measure(&world, mix, batches);
            println!("{:<14} {:<10} {tenth:>9.0} {median:>9.0}", play.name, mix.name());
        }
    }
    ExitCode::SUCCESS
}

fn world(play: Play) -> World {
    let clusters = (0..CLUSTERS).map(|n| cluster(&format!("cluster-{n}"), places::REGIONS[n as usize])).collect();
    let mut config = config(clusters);
    config.zones[0] = signpost::config::Zone { external_mode: Mode::Ordered, ttl: 180, ..zone(ZONE) };
    let mut world =
        World::new(config, "@ SOA ns1 hostmaster 1 3600 600 86400 180\n@ NS ns1\nns1 A 127.0.0.1\n").synced();
    if play.places {
        let spot = |region: &str| Spot { region: Some(Region(region.into())), ..Spot::default() };
        let layer = places::places(PLACES).map(|place| (place.prefix.parse().expect("a prefix"), spot(place.region)));
        world.publisher.set_atlas(Atlas::new(&world.config, layer.collect(), Vec::new()));
    }
    let shed = |cluster: ClusterId| Shedding {
        share: if play.load && cluster == ClusterId(0) { HALF } else { 0 },
        overloaded: false,
    };
    let outlook = Outlook { shedding: &shed, ..Outlook::FAIR };
    for number in 0..SERVICES {
        let [.., high, low] = number.to_be_bytes();
        let own = Ipv4Addr::new(10, 96, high, low).to_string();
        let share = |n: u32| load_balancer(n as u16, &own, &[&questions::ingress(n, number).to_string()]);
        let key = key(&questions::namespace(number), &questions::service(number));
        let service = Federated { key, shares: (0..CLUSTERS).map(share).collect(), imports: vec![] };
        world.publisher.publish_with(&service.key, Some(&service), &outlook);
    }
    world
}

/// Nanoseconds for a query: the tenth percentile of the batches, and their median.
fn measure(world: &World, mix: Mix, batches: usize) -> [f64; 2] {
    let mut random = Random::new(11);
    let (address, mut sockets) = udp::bind((Ipv4Addr::LOCALHOST, 0).into(), 1, RECEIVE_BUFFER).expect("a socket");
    let socket = sockets.remove(0);
    let client = client(address).expect("a socket");
    let audience = Audience { client_subnet: true, ..ViewRule::Fixed(View::External).into() };
    let mut answers = Answers::new(audience, world.reader.clone(), 3, Metrics::new().udp_worker());
    let mut batch = Batch::of(&socket);
    let mut train = Vec::new();
    let other = vec![1u8; OTHER];
    let mut times: Vec<f64> = Vec::with_capacity(batches);
    while times.len() < batches {
        questions::write_train(mix, BATCH, 0, &mut train, &mut random);
        black_box(other.iter().step_by(64).map(|octet| u64::from(*octet)).sum::<u64>());
        for query in train.chunks(train.len() / BATCH) {
            client.send(query).expect("loopback");
        }
        batch.receive(&socket, Wait::ForOne).expect("loopback");
        let received = batch.received();
        let began = Instant::now();
        answers.handle(&mut batch);
        let time = began.elapsed();
        batch.send(&socket, answers.counters());
        for _ in 0..received {
            let length = client.recv(&mut [0; MAX_UDP]).expect("loopback");
            assert!(length > train.len() / BATCH, "as long as its question");
        }
        if received == BATCH {
            times.push(time.as_nanos() as f64 / BATCH as f64);
        }
    }
    times.sort_by(f64::total_cmp);
    [times[times.len() / 10], times[times.len() / 2]]
}

/// Asks a server at `address`.
fn client(address: SocketAddr) -> io::Result<UdpSocket> {
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    client.connect(address)?;
    client.set_read_timeout(Some(PATIENCE))?;
    Ok(client)
}
