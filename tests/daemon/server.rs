//! A running `signpost serve` on a copy of the demo, which the test may change.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use tempfile::TempDir;

use crate::common::dig::Dig;
use crate::common::process::{Process, Run};
use crate::common::signpost::http_get;
use crate::common::{free_port, local, try_wait_for, wait_for};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_signpost");
pub const ZONE: &str = "my-federation.my-domain.com";
pub const SERVICE: &str = "my-service.my-namespace.my-federation.my-domain.com";
pub const EXTERNAL: [&str; 3] = ["104.197.117.10", "104.197.74.77", "104.197.38.157"];
pub const INTERNAL: [&str; 3] = ["10.0.153.185", "104.197.74.77", "104.197.38.157"];

/// For everything that is waited for: far above what any of it takes, also on a loaded machine.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Starts tried, each with other ports: somebody may take one between our look and its use.
const ATTEMPTS: usize = 5;

/// The demo's files in a folder of the test's own, laid out as in the repository.
pub struct Demo {
    directory: TempDir,
    /// Its configuration's name.
    config: &'static str,
}

impl Demo {
    pub fn new() -> Demo {
        Demo::of("demo.yaml", &["config/demo/cluster-1", "config/demo/cluster-2", "config/demo/cluster-3"])
    }

    /// `config/clusterset.yaml`: its external port is inside berlin, the internal one inside oregon.
    pub fn clusterset() -> Demo {
        Demo::of("clusterset.yaml", &["config/clusterset/berlin", "config/clusterset/oregon"])
    }

    fn of(config: &'static str, manifests: &[&str]) -> Demo {
        let directory = tempfile::tempdir().expect("a temporary folder can be made");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for folder in ["config", "zones"].iter().chain(manifests) {
            fs::create_dir_all(directory.path().join(folder)).expect("the folder is ours");
            for entry in fs::read_dir(root.join(folder)).expect("the repository has the demo") {
                let from = entry.expect("the repository can be listed").path();
                if from.is_file() {
                    let name = from.file_name().expect("a file has a name");
                    fs::copy(&from, directory.path().join(folder).join(name)).expect("the folder is ours");
                }
            }
        }
        Demo { directory, config }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn config(&self) -> PathBuf {
        self.path().join("config").join(self.config)
    }

    pub fn manifest(&self, cluster: usize, file: &str) -> PathBuf {
        self.path().join(format!("config/demo/cluster-{cluster}/{file}"))
    }

    pub fn read_config(&self) -> String {
        fs::read_to_string(self.config()).expect("the configuration is there")
    }

    pub fn write_config(&self, text: &str) {
        fs::write(self.config(), text).expect("the folder is ours");
    }

    /// Replaces a piece of the configuration that must be there.
    pub fn edit_config(&self, from: &str, to: &str) {
        let text = self.read_config();
        assert!(text.contains(from), "{from:?} is not in\n{text}");
        self.write_config(&text.replace(from, to));
    }
}

/// Where a server listens: external and internal to cluster-1, both also on `[::1]`, and admin.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub external: u16,
    pub internal: u16,
    pub admin: u16,
}

impl Ports {
    pub fn free() -> Ports {
        Ports { external: free_port(), internal: free_port(), admin: free_port() }
    }

    /// The demo's configuration on these ports.
    pub fn set(&self, config: &str) -> String {
        [(8053, self.external), (8054, self.internal), (8055, self.admin)]
            .iter()
            .fold(config.to_owned(), |text, (from, to)| text.replace(&format!(":{from}\""), &format!(":{to}\"")))
    }
}

pub struct Server {
    pub process: Process,
    pub ports: Ports,
    pub demo: Demo,
}

impl Server {
    /// The demo, ready.
    pub fn demo() -> Server {
        Server::start(Demo::new(), &[])
    }

    pub fn start(demo: Demo, arguments: &[&str]) -> Server {
        Server::start_under(&[], demo, arguments)
    }

    /// Run by another program, whose words come before it.
    pub fn start_under(before: &[&str], demo: Demo, arguments: &[&str]) -> Server {
        let server = Server::spawn_under(before, demo, arguments);
        wait_for("ready", DEADLINE, || server.readyz_is("200", "ok"));
        server
    }

    /// Running, with its admin port open.
    pub fn spawn(demo: Demo, arguments: &[&str]) -> Server {
        Server::spawn_under(&[], demo, arguments)
    }

    fn spawn_under(before: &[&str], demo: Demo, arguments: &[&str]) -> Server {
        let template = demo.read_config();
        for attempt in 0..ATTEMPTS {
            let ports = Ports::free();
            demo.write_config(&ports.set(&template));
            let name = format!("signpost-{attempt}");
            let config = demo.config().display().to_string();
            let words = [before, &[PROGRAM, "serve", "--config", &config], arguments].concat();
            let run = Run {
                name: &name,
                program: Path::new(words[0]),
                arguments: words[1..].iter().map(ToString::to_string).collect(),
                directory: demo.path(),
                namespace: None,
            };
            let process = Process::start(run);
            let up = try_wait_for(DEADLINE, || match process.check() {
                Err(ended) => Ok(Err(ended)),
                Ok(()) => http_get(local(ports.admin), "/livez").map(|_| Ok(())).map_err(|e| e.to_string()),
            });
            match up {
                Ok(Ok(())) => return Server { process, ports, demo },
                Ok(Err(ended)) if ended.contains("another process listens on") => {}
                Ok(Err(error)) | Err(error) => panic!("signpost is not up: {error}\n{}", process.log()),
            }
        }
        panic!("signpost found none of its ports free in {ATTEMPTS} attempts");
    }

    pub fn external(&self) -> Dig<'static> {
        Dig::at(local(self.ports.external))
    }

    pub fn internal(&self) -> Dig<'static> {
        Dig::at(local(self.ports.internal))
    }

    pub fn admin(&self, path: &str) -> Result<(String, String), String> {
        let answer = http_get(local(self.ports.admin), path).map_err(|e| e.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no head")?;
        Ok((head.split(' ').nth(1).unwrap_or_default().to_owned(), body.to_owned()))
    }

    pub fn readyz_is(&self, status: &str, body: &str) -> Result<(), String> {
        self.process.check()?;
        let got = self.admin("/readyz")?;
        if got.0 == status && got.1.trim() == body { Ok(()) } else { Err(format!("{got:?}")) }
    }

    /// Every sample of /metrics by its name with labels.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let (status, text) = self.admin("/metrics").expect("admin answers");
        assert_eq!(status, "200", "{text}");
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("a sample: {line}"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("a value: {line}")))
        };
        text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(sample).collect()
    }

    pub fn metric(&self, name: &str) -> f64 {
        self.metrics().get(name).copied().unwrap_or(0.0)
    }

    /// All that it has logged.
    pub fn log(&self) -> Vec<String> {
        let all = fs::read_to_string(self.process.log_file()).expect("the log is there");
        all.lines().map(ToOwned::to_owned).collect()
    }

    pub fn log_has(&self, words: &[&str]) -> Result<(), String> {
        let log = self.log();
        match log.iter().filter(|line| words.iter().all(|word| line.contains(word))).count() {
            1 => Ok(()),
            n => Err(format!("{n} lines with {words:?} in\n{}", log.join("\n"))),
        }
    }
}

/// A query over UDP without EDNS and its answer; `None` after ten seconds.
pub fn ask(server: SocketAddr, name: &str, rtype: RecordType) -> Option<Message> {
    ask_within(server, name, rtype, Duration::from_secs(10))
}

/// The same with another patience.
pub fn ask_within(server: SocketAddr, name: &str, rtype: RecordType, patience: Duration) -> Option<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("an ephemeral port");
    socket.set_read_timeout(Some(patience)).expect("not zero");
    socket.send_to(&query(1, name, rtype), server).ok()?;
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).ok()?;
    Some(Message::from_vec(&buffer[..length]).expect("an answer that parses"))
}

pub fn query(id: u16, name: &str, rtype: RecordType) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).expect("a name"), rtype));
    message.to_vec().expect("a query")
}

/// The addresses of an answer, sorted.
pub fn addresses(message: &Message) -> Vec<String> {
    let mut all: Vec<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
    all.sort();
    all
}

/// A LoadBalancer Service as YAML.
pub fn service(name: &str, namespace: &str, ingress: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{type: LoadBalancer, clusterIP: 10.0.77.1, ports: [{{name: http, port: 80, protocol: TCP}}], selector: {{a: b}}}}
status: {{loadBalancer: {{ingress: [{{ip: {ingress}}}]}}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [10.244.77.1], conditions: {{ready: true}}}}]
ports: [{{name: http, port: 80, protocol: TCP}}]
"
    )
}
