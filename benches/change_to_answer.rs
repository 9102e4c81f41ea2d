//! How long after a cluster's API has acknowledged a change the first answer shows it.
//!
//! A real API server (`make testbed`), one Signpost, and a client that asks without a pause. Each change gives a Service
//! another load balancer's address. `cargo bench --bench change_to_answer`; after `--`: `--quick` for 20 changes,
//! and without a test bed only a note that nothing was measured.

#[path = "../tests/common/mod.rs"]
mod common;

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use common::cluster::{self, Cluster, Controllers, User};
use common::signpost::{MemberSource, Setup, Signpost, ZONE};
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

const CHANGES: u32 = 300;
const QUICK: u32 = 20;
/// Neither changes by the second nor by the tick: each comes at another moment of whatever has a period.
const PAUSE: Duration = Duration::from_micros(13_700);
/// A change that does not show by then never will.
const DEADLINE: Duration = Duration::from_secs(30);
/// An answer that is lost is asked for again.
const PATIENCE: Duration = Duration::from_millis(100);

const SERVICE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: changes}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: changes}
spec:
  type: LoadBalancer
  allocateLoadBalancerNodePorts: false
  ports: [{name: client, port: 2379}]
";

fn main() -> ExitCode {
    let outcome = options().and_then(|quick| match cluster::needs() {
        Err(missing) if quick => {
            println!("change_to_answer: not measured: {missing}");
            Ok(())
        }
        needs => needs.map_err(Into::into).and_then(|()| bench(if quick { QUICK } else { CHANGES })),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("change_to_answer: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether `--quick` was said.
fn options() -> Result<bool, Box<dyn Error>> {
    let mut quick = false;
    for word in std::env::args().skip(1) {
        match word.as_str() {
            // cargo says so to every benchmark.
            "--bench" => {}
            "--quick" => quick = true,
            other => return Err(format!("{other} is no option; there is --quick").into()),
        }
    }
    Ok(quick)
}

fn bench(changes: u32) -> Result<(), Box<dyn Error>> {
    let cluster = Cluster::start_with("cluster-1", Controllers::None);
    cluster.apply(SERVICE);
    let signpost = Signpost::start(&Setup::new(vec![MemberSource::Kubeconfig(cluster.kubeconfig())]));
    let mut resolver = Resolver::new(signpost.ports.external)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = runtime.block_on(client(&cluster))?;

    let mut times = Vec::new();
    for change in 0..changes {
        let [.., high, low] = change.to_be_bytes();
        let address = Ipv4Addr::new(104, 197, high, low);
        runtime.block_on(set_ingress(&client, address))?;
        let acknowledged = Instant::now();
        resolver.wait_for(address)?;
        times.push(acknowledged.elapsed());
        thread::sleep(PAUSE);
    }
    signpost.stop();

    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1000.0;
    println!("{changes} changes in a real API server, from its acknowledgement to the first right answer:");
    println!("{:>9} {:>9} {:>9} {:>9}", "p50 ms", "p90 ms", "p99 ms", "max ms");
    println!("{:9.2} {:9.2} {:9.2} {:9.2}", at(0.5), at(0.9), at(0.99), at(1.0));
    Ok(())
}

async fn client(cluster: &Cluster) -> Result<Client, Box<dyn Error>> {
    let file = Kubeconfig::read_from(cluster.kubeconfig_of(User::Admin))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Returns with the acknowledgement. One connection serves all: kubectl would need 100 ms for a new one each.
async fn set_ingress(client: &Client, address: Ipv4Addr) -> Result<(), Box<dyn Error>> {
    let patch = format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{address}"}}]}}}}}}"#);
    let request = http::Request::patch("/api/v1/namespaces/changes/services/cart/status")
        .header("content-type", "application/merge-patch+json")
        .body(patch.into_bytes())?;
    client.request_text(request).await?;
    Ok(())
}

struct Resolver {
    socket: UdpSocket,
    query: Vec<u8>,
    id: u16,
}

impl Resolver {
    fn new(server: SocketAddr) -> io::Result<Resolver> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut query = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in format!("cart.changes.{ZONE}").split('.') {
            query.push(label.len() as u8);
            query.extend_from_slice(label.as_bytes());
        }
        query.extend_from_slice(&[0, 0, 1, 0, 1]);
        Ok(Resolver { socket, query, id: 0 })
    }

    /// Asks again and again until this is the answer.
    fn wait_for(&mut self, address: Ipv4Addr) -> io::Result<()> {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            if self.ask()? == Some(address) {
                return Ok(());
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("{address} is not answered {DEADLINE:?} after the change")))
    }

    fn ask(&mut self) -> io::Result<Option<Ipv4Addr>> {
        self.id = self.id.wrapping_add(1);
        self.query[..2].copy_from_slice(&self.id.to_be_bytes());
        self.socket.send(&self.query)?;
        let mut buffer = [0; 512];
        let answer = match self.socket.recv(&mut buffer) {
            Ok(length) => &buffer[..length],
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // Behind the question: one A record, whose last four octets are the address.
        let expected = self.query.len() + 16;
        let is_ours = answer.len() == expected && answer[..2] == self.query[..2] && answer[3] == 0 && answer[7] == 1;
        Ok(is_ours.then(|| {
            Ipv4Addr::new(answer[expected - 4], answer[expected - 3], answer[expected - 2], answer[expected - 1])
        }))
    }
}
