//! Many changes a second, of many services, while queries are asked. API server, etcd, both clients and Signpost share the
//! machine's cores, so the rate that was reached and who took the cores belong to the result.

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use kube::Client;
use signpost::table::Random;
use tokio::task::JoinSet;

use crate::arrivals;
use crate::bulk::{self, Etcd};
use crate::common::cluster::{Cluster, Controllers};
use crate::common::signpost::{MemberSource, Setup, Signpost, ZONE};
use crate::load::{self, Plan, Questions, Tally};
use crate::resolver::Resolver;
use crate::usage::{self, percentile};
use crate::{Options, client, patch};

/// Changes on their way to the API server at once, each on a connection of its own.
const CONNECTIONS: usize = 16;
/// Changes a second whose answer is watched.
const SAMPLED: u32 = 250;
/// Between two looks at what is watched: what the figures are exact to.
const LOOK: Duration = Duration::from_micros(100);
/// A change that does not show by then never will.
const DEADLINE: Duration = Duration::from_secs(30);
/// Queries in one system call, so that the load itself takes less of the cores.
const TRAIN: usize = 16;
/// For which the worker is saturated to learn what it can take.
const SATURATED: Duration = Duration::from_secs(2);

/// What is changed, and by which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Another load balancer's address, through the API.
    Service,
    /// The same, put into etcd: the API server only passes it on. The acknowledgement is etcd's.
    Etcd,
    /// All endpoints lose or regain their readiness, through the API.
    Slice,
}

impl Kind {
    /// Slices come last: a cluster whose endpoints are not ready is not answered with.
    const ALL: [Kind; 3] = [Kind::Service, Kind::Etcd, Kind::Slice];

    fn part(self) -> &'static str {
        match self {
            Kind::Service => "service",
            Kind::Etcd => "etcd",
            Kind::Slice => "slice",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Kind::Service => "Services' status, through the API",
            Kind::Etcd => "Services' status, put into etcd",
            Kind::Slice => "EndpointSlices, through the API",
        }
    }

    /// Where the API has what is changed.
    fn path(self) -> &'static str {
        match self {
            Kind::Service | Kind::Etcd => "/api/v1/services",
            Kind::Slice => "/apis/discovery.k8s.io/v1/endpointslices",
        }
    }
}

/// A change that is watched.
#[derive(Debug, Clone, Copy)]
struct Sample {
    service: u32,
    address: Ipv4Addr,
    /// Whether the address is to come or to go.
    comes: bool,
    acknowledged: Instant,
}

pub fn bench(options: &Options) -> Result<(), Box<dyn Error>> {
    let cluster = Cluster::start_with("cluster-1", Controllers::None);
    bulk::load(&cluster, options.services)?;
    // The same services elsewhere, so that one that is not ready has another to give way to.
    let elsewhere = tempfile::tempdir()?;
    bulk::write_manifests(elsewhere.path(), options.services)?;
    let sources =
        vec![MemberSource::Kubeconfig(cluster.kubeconfig()), MemberSource::Manifests(elsewhere.path().to_owned())];
    let signpost = Signpost::start(&Setup::new(sources));
    let server = signpost.ports.external;

    let mut questions = Asked::new(options.services);
    let plan = Plan { rate: None, train: TRAIN, time: SATURATED, rests: false };
    let most = load::run(server, plan, &mut questions, &AtomicBool::new(false))?.rate();
    let rate = f64::from(options.load) / 100.0 * most;
    println!(
        "{} changes/s tried for {} s at {} services in 2 clusters, over {CONNECTIONS} connections; beside them {rate:.0} \
         queries/s, {} % of what one worker answered of a load that kept it busy.\n\
         API server, etcd, both clients and Signpost share the cores. From the acknowledgement to the first answer that \
         shows the change, looked at every {} µs:",
        options.rate,
        options.time.as_secs(),
        options.services,
        options.load,
        LOOK.as_micros(),
    );
    println!(
        "{:34} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8}   cores taken by: signpost, API server, etcd, clients   queries/s, \
         lost, p99 ms",
        "changes of", "reached/s", "watched", "p50 ms", "p90 ms", "p99 ms", "max ms",
    );
    for kind in Kind::ALL.into_iter().filter(|kind| options.has(kind.part())) {
        let outcome = run(kind, options, &cluster, &signpost, &mut questions, rate)?;
        let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|share| percentile(&outcome.times, share));
        println!(
            "{:34} {:9.0} {:8} {p50:8.2} {p90:8.2} {p99:8.2} {max:8.2}   {}   {:.0}, {}, {:.2}",
            kind.text(),
            outcome.reached,
            outcome.times.len(),
            outcome.cores,
            outcome.tally.rate(),
            outcome.tally.lost,
            percentile(&outcome.tally.latencies, 0.99),
        );
        let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|share| percentile(&outcome.arrivals, share));
        println!(
            "{:44} {:8} {p50:8.2} {p90:8.2} {p99:8.2} {max:8.2}",
            "  the same in a watch that only reads",
            outcome.arrivals.len(),
        );
        if outcome.tally.wrong > 0 {
            let (wrong, first) = (outcome.tally.wrong, outcome.tally.complaint.unwrap_or_default());
            return Err(format!("{wrong} wrong answers; the first: {first}").into());
        }
    }
    signpost.stop();
    Ok(())
}

struct Outcome {
    /// Changes a second.
    reached: f64,
    /// Who took the cores while they were made.
    cores: String,
    /// From the acknowledgement to the answer. Sorted.
    times: Vec<Duration>,
    /// From the acknowledgement to the event, of the same changes; 0 where the event came first. Sorted.
    arrivals: Vec<Duration>,
    tally: Tally,
}

fn run(
    kind: Kind,
    options: &Options,
    cluster: &Cluster,
    signpost: &Signpost,
    questions: &mut Asked,
    queries: f64,
) -> Result<Outcome, Box<dyn Error>> {
    let server = signpost.ports.external;
    let done = AtomicBool::new(false);
    // It ends with the changes.
    let plan = Plan { rate: Some(queries), train: TRAIN, time: options.time + DEADLINE, rests: true };
    thread::scope(|scope| {
        let load = scope.spawn(|| match options.load {
            0 => Ok(Tally { elapsed: options.time, ..Tally::default() }),
            _ => load::run(server, plan, questions, &done),
        });
        let (ready, begun) = mpsc::channel();
        let events = scope.spawn(|| {
            let ready = ready;
            arrivals::watch(cluster, kind.path(), &ready, &done)
        });
        // Or it has failed, which its end tells.
        let _ = begun.recv();
        let (samples, queue) = mpsc::channel();
        let watching = scope.spawn(move || watch(server, &queue));
        let before = Cores::now(signpost, cluster);
        let reached = change(kind, options, cluster, samples);
        let after = Cores::now(signpost, cluster);
        let seen = watching.join().expect("the reason is in the panic above");
        done.store(true, Ordering::Relaxed);
        let tally = load.join().expect("the reason is in the panic above");
        let events = events.join().expect("the reason is in the panic above");
        let (reached, seen, events) = (reached?, seen?, events?);
        let arrival = |sample: &Sample| {
            let event = events.get(&(sample.service, sample.address, sample.comes))?;
            Some(event.saturating_duration_since(sample.acknowledged))
        };
        let mut arrivals: Vec<Duration> = seen.iter().filter_map(|(sample, _)| arrival(sample)).collect();
        arrivals.sort_unstable();
        let mut times: Vec<Duration> = seen.into_iter().map(|(_, time)| time).collect();
        times.sort_unstable();
        Ok(Outcome { reached, cores: after?.since(&before?), times, arrivals, tally: tally? })
    })
}

/// Makes the changes, each when it is due or as soon as a connection is free; returns how many a second there were.
fn change(
    kind: Kind,
    options: &Options,
    cluster: &Cluster,
    samples: mpsc::Sender<Sample>,
) -> Result<f64, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push((client(cluster).await?, Etcd::of(cluster)?));
        }
        let next = Arc::new(AtomicU32::new(0));
        let start = Instant::now();
        let (rate, services, end) = (options.rate, options.services, start + options.time);
        let mut tasks = JoinSet::new();
        for (api, etcd) in connections {
            let (next, samples) = (next.clone(), samples.clone());
            tasks.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let due = start + Duration::from_secs_f64(f64::from(number) / f64::from(rate));
                    if due.max(Instant::now()) >= end {
                        return Ok::<_, String>(());
                    }
                    tokio::time::sleep_until(due.into()).await;
                    let (service, round) = (number % services, number / services);
                    let (address, comes) = match kind {
                        // No two changes give the same address.
                        Kind::Service => (bulk::address(104, number), true),
                        Kind::Etcd => (bulk::address(105, number), true),
                        Kind::Slice => (Ipv4Addr::UNSPECIFIED, round % 2 == 1),
                    };
                    make(kind, &api, &etcd, service, address, comes).await.map_err(|error| error.to_string())?;
                    let sample = Sample { service, address, comes, acknowledged: Instant::now() };
                    if number.is_multiple_of((rate / SAMPLED).max(1)) {
                        // Whoever watches has failed and says so.
                        let _ = samples.send(sample);
                    }
                }
            });
        }
        drop(samples);
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        // Each connection took one number that was not made.
        let made = next.load(Ordering::Relaxed).saturating_sub(CONNECTIONS as u32);
        Ok(f64::from(made) / start.elapsed().as_secs_f64())
    })
}

/// Returns with the acknowledgement.
async fn make(
    kind: Kind,
    api: &Client,
    etcd: &Etcd,
    service: u32,
    address: Ipv4Addr,
    ready: bool,
) -> Result<(), Box<dyn Error>> {
    let namespace = bulk::namespace(service);
    match kind {
        Kind::Service => {
            let path = format!("/api/v1/namespaces/{namespace}/services/{}/status", bulk::name(service));
            let ingress = format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{address}"}}]}}}}}}"#);
            patch(api, &path, ingress).await
        }
        Kind::Etcd => etcd.put(&[bulk::service_entry(service, address)]).await,
        Kind::Slice => {
            let slice = bulk::slice_name(service);
            let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{slice}");
            patch(api, &path, format!(r#"{{"endpoints":{}}}"#, bulk::endpoints(service, ready))).await
        }
    }
}

/// Looks at each change until it shows; returns after how long.
fn watch(server: SocketAddr, queue: &mpsc::Receiver<Sample>) -> io::Result<Vec<(Sample, Duration)>> {
    let mut resolver = Resolver::new(server)?;
    let mut open: Vec<Sample> = Vec::new();
    let mut times = Vec::new();
    loop {
        if open.is_empty() {
            match queue.recv() {
                Ok(sample) => open.push(sample),
                Err(mpsc::RecvError) => break,
            }
        }
        open.extend(queue.try_iter());
        let mut still = Vec::with_capacity(open.len());
        let services: Vec<u32> = open.iter().map(|sample| sample.service).collect();
        let answers = resolver.ask_all(&services)?;
        for (sample, addresses) in open.into_iter().zip(answers) {
            if addresses.is_some_and(|addresses| shows(&sample, &addresses)) {
                times.push((sample, sample.acknowledged.elapsed()));
            } else if sample.acknowledged.elapsed() < DEADLINE {
                still.push(sample);
            } else {
                let Sample { service, address, comes, .. } = sample;
                let what =
                    format!("service {service}, {address}, comes: {comes}: not seen {DEADLINE:?} after the change");
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
        }
        open = still;
        thread::sleep(LOOK);
    }
    Ok(times)
}

fn shows(sample: &Sample, addresses: &[Ipv4Addr]) -> bool {
    let other = bulk::other_ingress(sample.service);
    if sample.address.is_unspecified() {
        // Of a slice: the cluster is answered with, whatever its address is, or it is not.
        addresses.contains(&other) && addresses.len() == 1 + usize::from(sample.comes)
    } else {
        // A later change of the same service shows that this one was there.
        let newer =
            |address: &Ipv4Addr| *address >= sample.address && address.octets()[0] == sample.address.octets()[0];
        addresses.iter().any(newer)
    }
}

/// Queries for A of services drawn by chance.
struct Asked {
    /// One after the other, equally long.
    queries: Vec<u8>,
    length: usize,
    services: u32,
    random: Random,
}

impl Asked {
    fn new(services: u32) -> Asked {
        let mut queries = Vec::new();
        (0..services).for_each(|number| bulk::write_query(0, number, ZONE, &mut queries));
        Asked { length: queries.len() / services as usize, queries, services, random: Random::new(1) }
    }
}

impl Questions for Asked {
    fn write(&mut self, id: u16, train: &mut Vec<u8>) {
        let from = self.random.below(self.services) as usize * self.length;
        train.extend_from_slice(&id.to_be_bytes());
        train.extend_from_slice(&self.queries[from + 2..from + self.length]);
    }

    /// QR and AA, NOERROR, one address of each cluster or of one.
    fn check(&mut self, answer: &[u8]) -> Result<(), String> {
        match answer {
            [_, _, 0x84, 0, _, _, 0, 1 | 2, ..] => Ok(()),
            _ => Err(format!("{:x?}", &answer[..answer.len().min(12)])),
        }
    }
}

/// Time on the cores, by who took it.
struct Cores {
    at: Instant,
    signpost: Duration,
    api: Duration,
    etcd: Duration,
    own: Duration,
}

impl Cores {
    fn now(signpost: &Signpost, cluster: &Cluster) -> io::Result<Cores> {
        let [api, etcd] = cluster.processes();
        Ok(Cores {
            at: Instant::now(),
            signpost: usage::cpu(signpost.id())?,
            api: usage::cpu(api)?,
            etcd: usage::cpu(etcd)?,
            own: usage::cpu(std::process::id())?,
        })
    }

    /// As text, in cores.
    fn since(&self, before: &Cores) -> String {
        let time = (self.at - before.at).as_secs_f64();
        let share = |now: Duration, before: Duration| now.saturating_sub(before).as_secs_f64() / time;
        format!(
            "{:.2}, {:.2}, {:.2}, {:.2}",
            share(self.signpost, before.signpost),
            share(self.api, before.api),
            share(self.etcd, before.etcd),
            share(self.own, before.own),
        )
    }
}
