//! How long Signpost takes from its start to the first complete answer, with many Services in a real API server, beside a
//! client that reads the same lists and throws them away; and what it has in memory then, beside CoreDNS.
//!
//! `cargo bench --bench list_from_api`; `-- --help` lists the options. It needs the programs of `make testbed`.

#[path = "support/bulk.rs"]
#[allow(dead_code, reason = "each benchmark uses its own part of this")]
mod bulk;
#[path = "../tests/common/mod.rs"]
mod common;
#[path = "support/options.rs"]
mod options;
#[path = "support/usage.rs"]
#[allow(dead_code, reason = "each benchmark uses its own part of this")]
mod usage;

use std::error::Error;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::Message;
use hickory_proto::rr::{RData, Record};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use signpost::source::kube::Timing;
use tempfile::TempDir;

use common::cluster::{self, Cluster, Controllers, User, built};
use common::process::{Process, Run};
use common::signpost::{MemberSource, Ports, Setup, Signpost, ZONE};
use common::{free_port, local};

const SERVICES: u32 = 100_000;
const QUICK: u32 = 5_000;
const ROUNDS: usize = 3;
/// Between two questions whether the server is there yet: what the times are exact to.
const LOOK: Duration = Duration::from_millis(2);
/// For one answer.
const PATIENCE: Duration = Duration::from_millis(100);
/// An API server needs some 30 s for 100,000 Services and their slices.
const DEADLINE: Duration = Duration::from_secs(300);
/// From the first answer to the look at the memory. Go gives back what a start has taken in the course of minutes.
const SETTLE: Duration = Duration::from_secs(5);
const SETTLE_GO: Duration = Duration::from_secs(60);
/// Names that a complete answer is asked for at, all over the list.
const SAMPLE: u32 = 1_000;
/// CoreDNS's zone.
const CLUSTER_ZONE: &str = "cluster.local";

const HELP: &str = "\
  --quick        5000 services, one round, and less patience
  --services N   each with an EndpointSlice of three endpoints; 100000, at most 524288
  --rounds N     reading and throwing away, then Signpost; 3
  --no-coredns   Signpost alone";

struct Options {
    services: u32,
    rounds: usize,
    quick: bool,
    coredns: bool,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options { services: SERVICES, rounds: ROUNDS, quick: false, coredns: true };
        while let Some(word) = words.next() {
            let mut number = |most| options::number(&word, words.next(), 1, most);
            match word.as_str() {
                // cargo says so to every benchmark.
                "--bench" => {}
                "--quick" => (options.services, options.rounds, options.quick) = (QUICK, 1, true),
                "--services" => options.services = number(bulk::MOST)?,
                "--rounds" => options.rounds = number(1_000)? as usize,
                "--no-coredns" => options.coredns = false,
                other => return Err(format!("{other} is no option; there are:\n{HELP}")),
            }
        }
        Ok(options)
    }

    fn settle(&self, time: Duration) -> Duration {
        if self.quick { time / 10 } else { time }
    }
}

fn main() -> ExitCode {
    let outcome =
        Options::read(std::env::args().skip(1)).map_err(Into::into).and_then(|options| match cluster::needs() {
            Err(missing) if options.quick => {
                println!("list_from_api: not measured: {missing}");
                Ok(())
            }
            needs => needs.map_err(Into::into).and_then(|()| bench(&options)),
        });
    options::finish("list_from_api", outcome)
}

fn bench(options: &Options) -> Result<(), Box<dyn Error>> {
    println!("{}", usage::machine());
    // Says what to do if the test bed is not built.
    let cluster = Cluster::start_with("cluster-1", Controllers::None);
    let start = Instant::now();
    bulk::load(&cluster, options.services)?;
    println!(
        "{} Services, each with an EndpointSlice, are in etcd after {:.1} s; etcd and the API server share the cores with \
         whoever lists.",
        options.services,
        start.elapsed().as_secs_f64(),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // The first reader of all may find the API server still at its own start.
    runtime.block_on(read_and_discard(&cluster))?;

    println!("{:>5} {:>12} {:>9} {:>11} {:>7}", "round", "discarded MB", "client s", "signpost s", "ratio");
    let (mut ratios, mut steady, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let start = Instant::now();
        let read = runtime.block_on(read_and_discard(&cluster))?;
        let client = start.elapsed();
        // One more is the API server's own.
        if read.pages != (options.services + 1).div_ceil(Timing::default().page) {
            return Err(format!("{} Services came in {} pages", options.services, read.pages).into());
        }
        let (own, memory) = start_signpost(&cluster, options)?;
        let ratio = own.as_secs_f64() / client.as_secs_f64();
        println!(
            "{round:5} {:12.1} {:9.2} {:11.2} {ratio:7.2}",
            read.octets as f64 / 1e6,
            client.as_secs_f64(),
            own.as_secs_f64(),
        );
        ratios.push(ratio);
        steady.push(memory.now);
        peaks.push(memory.peak);
    }
    let mebi = |octets: u64| octets as f64 / f64::from(1 << 20);
    let (ratio, steady, peak) = (median(&mut ratios), median(&mut steady), median(&mut peaks));
    println!("start to first complete answer / reading and discarding: {ratio:.2} (median; target 1.2 at most)");
    println!(
        "resident memory of Signpost: {:.1} MiB {:?} after that answer, {:.1} MiB at most: {:.2} times (target 2 at most)",
        mebi(steady),
        options.settle(SETTLE),
        mebi(peak),
        peak as f64 / steady as f64,
    );
    if options.coredns {
        match start_coredns(&cluster, options)? {
            Err(why) => println!("Without CoreDNS: {why}"),
            Ok((time, memory)) => println!(
                "CoreDNS kubernetes: first complete answer after {:.1} s; {:.1} MiB {:?} later, {:.1} MiB at most. \
                 Signpost / CoreDNS: {:.3} (target 0.1 at most)",
                time.as_secs_f64(),
                mebi(memory.now),
                options.settle(SETTLE_GO),
                mebi(memory.peak),
                steady as f64 / memory.now as f64,
            ),
        }
    }
    Ok(())
}

fn median<T: PartialOrd + Copy>(values: &mut [T]) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("no figure is NaN"));
    values[values.len() / 2]
}

/// What came, and is gone.
struct Discarded {
    octets: u64,
    /// Of Services.
    pages: u32,
}

/// A client that has just been started lists what Signpost lists, in the same pages and both kinds at once.
async fn read_and_discard(cluster: &Cluster) -> Result<Discarded, Box<dyn Error>> {
    let file = Kubeconfig::read_from(cluster.kubeconfig_of(User::Reader))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    let slices = "/apis/discovery.k8s.io/v1/endpointslices?labelSelector=kubernetes.io%2Fservice-name";
    let (services, slices) =
        futures::future::try_join(pages(&client, "/api/v1/services?"), pages(&client, slices)).await?;
    Ok(Discarded { octets: services.octets + slices.octets, pages: services.pages })
}

async fn pages(client: &Client, path: &str) -> Result<Discarded, Box<dyn Error>> {
    /// The list's metadata come before its objects.
    const HEAD: usize = 4096;
    let limit = Timing::default().page;
    let mut all = Discarded { octets: 0, pages: 0 };
    let mut from = String::new();
    loop {
        let request = http::Request::get(format!("{path}&limit={limit}{from}"))
            .header(http::header::ACCEPT, "application/json")
            .body(Body::empty())?;
        let response = client.send(request).await?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("{path}: {}", response.status()).into());
        }
        let mut body = response.into_body();
        let mut head = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            all.octets += data.len() as u64;
            let missing = HEAD.saturating_sub(head.len());
            head.extend_from_slice(&data[..data.len().min(missing)]);
        }
        let head = String::from_utf8_lossy(&head);
        let metadata = head.split(r#""items":"#).next().unwrap_or_default();
        let token = metadata.split_once(r#""continue":""#).and_then(|(_, rest)| rest.split('"').next());
        all.pages += 1;
        match token.filter(|token| !token.is_empty()) {
            None => return Ok(all),
            // Else it has only what base64 has for URLs.
            Some(token) => from = format!("&continue={}", token.replace('=', "%3D")),
        }
    }
}

/// From the start to the first complete answer, and the memory after that.
fn start_signpost(cluster: &Cluster, options: &Options) -> Result<(Duration, usage::Memory), Box<dyn Error>> {
    let mut setup = Setup::new(vec![MemberSource::Kubeconfig(cluster.kubeconfig())]);
    // Nothing is answered before everything is there.
    setup.sync_wait = DEADLINE;
    let [external, internal, admin] = [(); 3].map(|()| local(free_port()));
    let start = Instant::now();
    let signpost = Signpost::spawn(&setup, Ports { external, internal, admin }, None);
    let time = first_answer(external, ZONE, options.services, bulk::ingress, start, &|| signpost.check(), true)?;
    thread::sleep(options.settle(SETTLE));
    let memory = usage::memory(signpost.id())?;
    signpost.stop();
    Ok((time, memory))
}

/// Waits until the service that is listed last is answered with its address, and those all over the list too; these must be
/// so at once, unless the server is known to answer before it has everything.
fn first_answer(
    server: SocketAddr,
    zone: &str,
    services: u32,
    address: fn(u32) -> Ipv4Addr,
    start: Instant,
    alive: &dyn Fn() -> Result<(), String>,
    complete_at_once: bool,
) -> Result<Duration, Box<dyn Error>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut id = 0_u16;
    let mut is_right = |number: u32| {
        id = id.wrapping_add(1);
        ask(&socket, id, zone, number).is_ok_and(|addresses| addresses == [address(number)])
    };
    let step = (services / SAMPLE).max(1) as usize;
    loop {
        if is_right(services - 1) {
            let time = start.elapsed();
            match (0..services).step_by(step).find(|number| !is_right(*number)) {
                None => return Ok(time),
                Some(number) if complete_at_once => {
                    return Err(format!("{} was not there with the first answer", bulk::name(number)).into());
                }
                Some(_) => {}
            }
        }
        alive()?;
        if start.elapsed() > DEADLINE {
            return Err(format!("no complete answer within {DEADLINE:?}").into());
        }
        thread::sleep(LOOK);
    }
}

fn ask(socket: &UdpSocket, id: u16, zone: &str, number: u32) -> io::Result<Vec<Ipv4Addr>> {
    let mut query = Vec::new();
    bulk::write_query(id, number, zone, &mut query);
    socket.send(&query)?;
    let mut buffer = [0; 512];
    loop {
        let length = socket.recv(&mut buffer)?;
        // Another one is the answer to a question that was given up.
        if length >= 2 && buffer[..2] == query[..2] {
            let answer = Message::from_vec(&buffer[..length]).map_err(io::Error::other)?;
            let address = |record: &Record| match record.data {
                RData::A(address) => Some(address.0),
                _ => None,
            };
            return Ok(answer.answers.iter().filter_map(address).collect());
        }
    }
}

/// The same for CoreDNS with its plugin `kubernetes`; inside, why there is none.
fn start_coredns(
    cluster: &Cluster,
    options: &Options,
) -> Result<Result<(Duration, usage::Memory), String>, Box<dyn Error>> {
    let program = built().join("coredns");
    if !program.is_file() {
        return Ok(Err("it is not in target/testbed; `make testbed` builds it".into()));
    }
    let plugins = Command::new(&program).arg("-plugins").output()?;
    if !String::from_utf8_lossy(&plugins.stdout).lines().any(|line| line.trim() == "kubernetes") {
        return Ok(Err("the one in target/testbed was built without the plugin kubernetes".into()));
    }
    let directory = tempfile::tempdir()?;
    let address = local(free_port());
    let start = Instant::now();
    let coredns = spawn_coredns(&program, &directory, address, cluster)?;
    let zone = format!("svc.{CLUSTER_ZONE}");
    let time = first_answer(address, &zone, options.services, bulk::cluster_ip, start, &|| coredns.check(), false)?;
    thread::sleep(options.settle(SETTLE_GO));
    Ok(Ok((time, usage::memory(coredns.id())?)))
}

fn spawn_coredns(program: &Path, directory: &TempDir, address: SocketAddr, cluster: &Cluster) -> io::Result<Process> {
    // As admin: it watches namespaces too.
    let kubeconfig = cluster.kubeconfig_of(User::Admin);
    fs::write(
        directory.path().join("Corefile"),
        format!(
            "{CLUSTER_ZONE}:{} {{\n  bind {}\n  kubernetes {CLUSTER_ZONE} {{\n    kubeconfig {}\n  }}\n}}\n",
            address.port(),
            address.ip(),
            kubeconfig.display(),
        ),
    )?;
    Ok(Process::start(Run {
        name: "coredns",
        program,
        arguments: vec!["-conf".into(), "Corefile".into()],
        directory: directory.path(),
        namespace: None,
    }))
}
