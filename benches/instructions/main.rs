//! Instructions in user space for one query, by kind, as callgrind counts them: the same on every run of the same binary,
//! whatever else the machine does. Against `benches/instructions/budget.txt`; more than 3 % over fails.
//!
//! ```sh
//! cargo bench --bench instructions              # compare
//! cargo bench --bench instructions -- --write   # write what is counted now into the budget
//! cargo bench --bench instructions -- --quick   # compare; without valgrind, only note that nothing was counted
//! ```
//!
//! Counted is what a UDP worker does between receive and send: reading, prefetching and answering in batches of 32, and
//! the copy of the query into its slot, which in the server is the kernel's work (about 20 instructions). Two runs of
//! different length are subtracted, so that start and world do not count.

#[path = "../../tests/support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, ExitCode, Output};

use signpost::answer::{Client, Rcode, Reply, Responder, Transport};
use signpost::config::Mode;
use signpost::load::Shedding;
use signpost::location::Spot;
use signpost::model::{ClusterId, Federated, Region, View, ViewRule};
use signpost::table::{Atlas, Outlook};
use support::ask::Ask;
use support::small::question;
use support::{World, cluster, config, key, load_balancer};

const BUDGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/budget.txt");
/// More than this over the budget fails.
const TOLERANCE: f64 = 1.03;
const BATCH: usize = 32;
const SERVICES: usize = 1_000;
/// Batches of the short and of the long run.
const RUNS: [usize; 2] = [10, 330];

const PLACED: &str = "a-subnet-placed-loaded";
const REGIONS: [&str; 3] = ["us-east-1", "eu-west-1", "ap-northeast-1"];

/// Name, what is asked of service `n`, the view, and what must come.
type Kind = (&'static str, fn(usize) -> Ask, View, Rcode);

const KINDS: &[Kind] = &[
    ("a", |n| question(&format!("s{n}.ns A")), View::External, Rcode::NoError),
    ("a-internal", |n| question(&format!("s{n}.ns A")), View::Internal(ClusterId(1)), Rcode::NoError),
    ("a-mixed-case", |n| question(&format!("S{n}.nS A")), View::External, Rcode::NoError),
    (
        "a-edns-cookie",
        |n| question(&format!("s{n}.ns A")).edns(1232).option(10, &[7; 8]),
        View::External,
        Rcode::NoError,
    ),
    // One of its clusters sheds half of its answers, from a band with others and from one of its own.
    ("a-loaded", |n| question(&format!("l{n}.ns A")), View::External, Rcode::NoError),
    ("a-loaded-internal", |n| question(&format!("l{n}.ns A")), View::Internal(ClusterId(0)), Rcode::NoError),
    // One of its clusters is not ready: the way of all services that are not like most.
    ("a-general", |n| question(&format!("g{n}.ns A")), View::External, Rcode::NoError),
    // A client subnet, of one of the three regions that these services' clusters are in; one of them sheds half of its answers.
    (PLACED, |n| question(&format!("p{n}.ns A")).edns(1232).option(8, &subnet(n)), View::External, Rcode::NoError),
    ("srv", |n| question(&format!("_client._tcp.s{n}.ns SRV")), View::External, Rcode::NoError),
    ("nodata", |n| question(&format!("s{n}.ns TXT")), View::External, Rcode::NoData),
    ("nxdomain", |n| question(&format!("no{n}.ns A")), View::External, Rcode::NxDomain),
    ("truncated", |_| question("wide.ns SRV"), View::External, Rcode::NoError),
];

/// 198.51.`n`.0/24, in a client-subnet option (RFC 7871).
fn subnet(n: usize) -> [u8; 7] {
    [0, 1, 24, 0, 198, 51, n as u8]
}

/// `placed`: the clusters and the clients are in three regions, and the farthest cluster is answered with, too.
fn world(placed: bool) -> World {
    let region = |n: usize| if placed { REGIONS[n % REGIONS.len()] } else { "r" };
    let clusters = (0..12).map(|n| cluster(&format!("cluster-{n}"), region(n))).collect();
    let mut config = config(clusters);
    if placed {
        config.zones[0].external_mode = Mode::Ordered;
    }
    let mut world = World::new(config, support::ZONE_FILE).synced();
    if placed {
        // Neighbours are in different regions, in no order.
        let spot = |n: usize| Spot { region: Some(Region(region(n * n % 7).into())), ..Spot::default() };
        let place = |n: usize| (format!("198.51.{n}.0/24").parse().expect("a prefix"), spot(n));
        world.publisher.set_atlas(Atlas::new(&world.config, (0..256).map(place).collect(), Vec::new()));
    }
    for n in 0..SERVICES {
        let ingress = |c: u16| format!("104.{c}.{}.{}", n / 250, n % 250 + 1);
        let mut shares: Vec<_> = (0..3).map(|c| load_balancer(c, "10.0.0.1", &[&ingress(c)])).collect();
        world.publish(key("ns", &format!("s{n}")), shares.clone());
        let loaded = Federated { key: key("ns", &format!("l{n}")), shares: shares.clone(), imports: vec![] };
        let shedding = |cluster: ClusterId| Shedding { share: if cluster.0 == 0 { 128 } else { 0 }, overloaded: false };
        let outlook = Outlook { shedding: &shedding, ..Outlook::FAIR };
        world.publisher.publish_with(&loaded.key, Some(&loaded), &outlook);
        let placed = Federated { key: key("ns", &format!("p{n}")), ..loaded };
        world.publisher.publish_with(&placed.key, Some(&placed), &outlook);
        shares[2].ready = false;
        world.publish(key("ns", &format!("g{n}")), shares);
    }
    let wide = (0..12).map(|c| load_balancer(c, "10.0.0.1", &[&format!("104.200.{c}.1")])).collect();
    world.publish(key("ns", "wide"), wide);
    world
}

/// Answers this many batches of one kind.
fn child(kind: &Kind, batches: usize) {
    let &(name, ask, view, expected) = kind;
    let World { reader, .. } = world(name == PLACED);
    let mut responder = Responder::for_batches(1, BATCH);
    let queries: Vec<Vec<u8>> = (0..SERVICES).map(|n| ask(n).to_vec()).collect();
    let mut slots = vec![[0u8; 2048]; BATCH];
    let client = Client {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        audience: ViewRule::Fixed(view).into(),
        transport: Transport::Udp,
        keepalive: 0,
    };
    let mut queries = queries.iter().cycle();
    for _ in 0..batches {
        reader.with(|table| {
            for (place, slot) in slots.iter_mut().enumerate() {
                let query = queries.next().expect("cycles");
                slot[..query.len()].copy_from_slice(query);
                responder.read(place, table, client, &slot[..query.len()]);
            }
            for place in 0..BATCH {
                responder.prefetch(place, table);
            }
            for (place, slot) in slots.iter_mut().enumerate() {
                match responder.answer_read(place, table, slot) {
                    Reply::Send { outcome, .. } => {
                        assert_eq!(outcome.rcode, expected, "{name}");
                        assert_eq!(outcome.truncated, name == "truncated", "{name}");
                    }
                    Reply::Drop(cause) => panic!("{name}: {cause:?}"),
                }
            }
        });
    }
}

fn valgrind(arguments: &[&str]) -> Result<Output, String> {
    let output = Command::new("valgrind").args(arguments).output();
    output.map_err(|error| format!("valgrind: {error} (Debian: apt-get install valgrind)"))
}

/// Instructions of a run under callgrind.
fn count(name: &str, batches: usize) -> Result<u64, String> {
    let me = std::env::current_exe().map_err(|error| error.to_string())?.display().to_string();
    let batches = batches.to_string();
    let output = valgrind(&["--tool=callgrind", "--callgrind-out-file=/dev/null", &me, "--child", name, &batches])?;
    let log = String::from_utf8_lossy(&output.stderr);
    let total = log.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    match total {
        Some(total) if output.status.success() => Ok(total),
        _ => Err(format!("valgrind of {name} failed: {log}")),
    }
}

fn per_query(name: &str) -> Result<f64, String> {
    let [short, long] = RUNS.map(|batches| count(name, batches));
    let (short, long) = (short?, long?);
    Ok((long - short) as f64 / ((RUNS[1] - RUNS[0]) * BATCH) as f64)
}

fn budget() -> Result<Vec<(String, f64)>, String> {
    let text = std::fs::read_to_string(BUDGET).map_err(|error| format!("{BUDGET}: {error}"))?;
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let entry = |line: &str| {
        let (name, number) = line.split_once(char::is_whitespace)?;
        Some((name.to_owned(), number.trim().parse().ok()?))
    };
    lines.map(|line| entry(line).ok_or_else(|| format!("{BUDGET}: {line:?} is not `name number`"))).collect()
}

fn compare(write: bool) -> Result<bool, String> {
    let budget = if write { Vec::new() } else { budget()? };
    let mut good = true;
    let mut file = String::from(
        "# Instructions in user space for one query, by callgrind; `cargo bench --bench instructions -- --write` writes this.\n",
    );
    println!("{:<22} {:>12} {:>8}", "kind", "instructions", "budget");
    for (name, ..) in KINDS {
        let now = per_query(name)?;
        let _ = writeln!(file, "{name} {now:.0}");
        if write {
            println!("{name:<22} {now:>12.0}");
            continue;
        }
        let (_, allowed) =
            budget.iter().find(|(known, _)| known == name).ok_or_else(|| format!("{BUDGET}: {name} is missing"))?;
        let verdict = match now {
            now if now > allowed * TOLERANCE => {
                good = false;
                "over"
            }
            now if now * TOLERANCE < *allowed => "less: write it down",
            _ => "",
        };
        println!("{name:<22} {now:>12.0} {allowed:>8.0} {verdict}");
    }
    if write {
        std::fs::write(Path::new(BUDGET), file).map_err(|error| format!("{BUDGET}: {error}"))?;
    }
    Ok(good)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, batches] = &arguments[..]
        && flag == "--child"
    {
        let kind = KINDS.iter().find(|kind| kind.0 == name).expect("a name from KINDS");
        child(kind, batches.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    // cargo says --bench to every benchmark.
    let known = ["--bench", "--quick", "--write"];
    if let Some(other) = arguments.iter().find(|argument| !known.contains(&argument.as_str())) {
        eprintln!("instructions: {other} is no option; there are --quick and --write");
        return ExitCode::FAILURE;
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if let Err(missing) = valgrind(&["--version"])
        && has("--quick")
    {
        println!("instructions: not counted: {missing}");
        return ExitCode::SUCCESS;
    }
    match compare(has("--write")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("a kind of query takes more than {:.0} % over its budget", (TOLERANCE - 1.0) * 100.0);
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
