//! What is measured: Signpost as its users run it, and the echo floor, each a process of its own.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use signpost::metrics::{Metrics, UdpCounters};
use signpost::net::udp::{self, Batch, Handler, Worker};
use tempfile::TempDir;

use super::common::process::{Process, Run};
use super::common::signpost::{START, http_get};
use super::common::{free_port, local, wait_for};
use super::questions::{CLUSTERS, SERVICES, ZONE, ingress, namespace, service};

/// Objects in one manifest file.
const PER_FILE: u32 = 500;
/// Octets of both servers' receive buffers.
const RECEIVE_BUFFER: u32 = 4 << 20;
/// The argument that makes this program the echo server.
pub const ECHO: &str = "--echo";

/// A server and the folder that it works in.
pub struct Server {
    process: Process,
    pub address: SocketAddr,
    _directory: TempDir,
}

impl Server {
    /// `signpost serve` with one UDP worker and the whole world in manifests, once it is ready.
    pub fn signpost() -> Server {
        let directory = tempfile::tempdir().expect("a temporary folder can be made");
        let (address, admin) = (local(free_port()), local(free_port()));
        let config = write_world(directory.path(), address, admin).expect("the folder is ours");
        let process = Process::start(Run {
            name: "signpost",
            program: Path::new(env!("CARGO_BIN_EXE_signpost")),
            arguments: vec!["serve".into(), "--config".into(), config.display().to_string()],
            directory: directory.path(),
            namespace: None,
        });
        wait_for("signpost is ready", START, || {
            process.check().unwrap_or_else(|ended| panic!("{ended}"));
            let answer = http_get(admin, "/readyz").map_err(|error| error.to_string())?;
            if answer.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(answer) }
        });
        Server { process, address, _directory: directory }
    }

    /// This program again, as an echo server whose answers have `length` octets.
    pub fn echo(length: usize) -> Server {
        let directory = tempfile::tempdir().expect("a temporary folder can be made");
        let address = local(free_port());
        let program = std::env::current_exe().expect("this program has a file");
        let process = Process::start(Run {
            name: "echo",
            program: &program,
            arguments: vec![ECHO.into(), address.to_string(), length.to_string()],
            directory: directory.path(),
            namespace: None,
        });
        let client = UdpSocket::bind(local(0)).expect("there is a free port");
        client.set_read_timeout(Some(Duration::from_millis(50))).expect("it is no zero");
        wait_for("the echo server answers", START, || {
            process.check().unwrap_or_else(|ended| panic!("{ended}"));
            client.send_to(&[0; 12], address).map_err(|error| error.to_string())?;
            client.recv(&mut [0; 2048]).map_err(|error| error.to_string())
        });
        Server { process, address, _directory: directory }
    }

    /// Time on a core since the start, of all threads, user and system.
    pub fn cpu(&self) -> io::Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split(' ').next().and_then(|field| field.parse::<u64>().ok());
            nanoseconds += first.ok_or(io::ErrorKind::InvalidData)?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }
}

/// The floor: the loop of the UDP workers, with nothing in it but a flipped bit.
pub fn serve_echo(address: &str, length: &str) -> io::Result<()> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    let address = address.parse().map_err(|_| invalid(address))?;
    let length = length.parse().map_err(|_| invalid(length))?;
    let (_, mut sockets) = udp::bind(address, 1, RECEIVE_BUFFER)?;
    let socket = sockets.pop().ok_or(io::ErrorKind::NotFound)?;
    let (worker, _stopper) = Worker::with_handler(socket, Echo { length, counters: Metrics::new().udp_worker() });
    worker.run()
}

struct Echo {
    length: usize,
    counters: UdpCounters,
}

impl Handler for Echo {
    fn handle(&mut self, batch: &mut Batch) {
        for place in 0..batch.received() {
            let Some(query) = batch.query(place) else { continue };
            query.buffer[2] |= 0x80;
            batch.reply(place, self.length);
        }
    }

    fn counters(&mut self) -> &mut UdpCounters {
        &mut self.counters
    }
}

/// Zone, manifests and configuration; returns the configuration's path.
fn write_world(directory: &Path, address: SocketAddr, admin: SocketAddr) -> io::Result<PathBuf> {
    fs::write(
        directory.join("zone"),
        format!("$ORIGIN {ZONE}.\n$TTL 3600\n@ SOA ns1 hostmaster 1 3600 600 86400 180\n@ NS ns1\nns1 A 127.0.0.1\n"),
    )?;
    let mut config = format!(
        "zones: [{{name: {ZONE}, file: zone, ttl: 180}}]
listeners: [{{addresses: ['{address}'], view: external}}]
admin: {{address: '{admin}'}}
limits: {{udpWorkers: 1, udpReceiveBuffer: {RECEIVE_BUFFER}}}
clusters:
"
    );
    for cluster in 0..CLUSTERS {
        writeln!(config, "- {{name: cluster-{cluster}, manifests: cluster-{cluster}}}").expect("a String grows");
        let manifests = directory.join(format!("cluster-{cluster}"));
        fs::create_dir(&manifests)?;
        for first in (0..SERVICES).step_by(PER_FILE as usize) {
            let mut text = String::new();
            (first..SERVICES.min(first + PER_FILE)).for_each(|number| write_service(&mut text, cluster, number));
            fs::write(manifests.join(format!("services-{first:05}.yaml")), text)?;
        }
    }
    let path = directory.join("signpost.yaml");
    fs::write(&path, config)?;
    Ok(path)
}

/// Without a selector and without slices, it counts as ready.
fn write_service(out: &mut String, cluster: u32, number: u32) {
    let [.., high, low] = number.to_be_bytes();
    write!(
        out,
        "---
apiVersion: v1
kind: Service
metadata: {{name: {}, namespace: {}}}
spec:
  type: LoadBalancer
  clusterIP: 10.96.{high}.{low}
  ports: [{{name: client, port: 2379, protocol: TCP}}, {{name: peer, port: 2380, protocol: TCP}}]
status: {{loadBalancer: {{ingress: [{{ip: {}}}]}}}}
",
        service(number),
        namespace(number),
        ingress(cluster, number),
    )
    .expect("a String grows");
}
