//! The program under test, run as its users run it.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use tempfile::TempDir;

use super::namespace::Namespace;
use super::process::{Process, Run};
use super::{free_port, local, try_wait_for, wait_for};

/// Longest time from start to readiness with clusters that answer.
pub const START: Duration = Duration::from_secs(60);
/// Longest time from SIGTERM to the end.
const STOP: Duration = Duration::from_secs(20);
/// Starts tried, each with other ports.
const ATTEMPTS: usize = 5;

const MCS_ZONE: &str = "$TTL 3600\n@ SOA ns hostmaster 1 3600 600 86400 180\n@ NS ns\nns A 127.0.0.1\n";

/// The name of the configuration file.
const CONFIG: &str = "signpost.yaml";

pub const ZONE: &str = "my-federation.my-domain.com";

/// A running `signpost serve`.
pub struct Signpost {
    process: Process,
    pub ports: Ports,
    directory: TempDir,
}

/// Where it listens.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub external: SocketAddr,
    /// Internal to the first cluster.
    pub internal: SocketAddr,
    pub admin: SocketAddr,
}

impl Ports {
    /// Of a program in a network namespace of its own, where all are free.
    pub fn inside() -> Ports {
        Ports { external: local(5301), internal: local(5302), admin: local(5303) }
    }
}

/// A configuration with one federation zone, as the operator writes it.
pub struct Setup {
    pub clusters: Vec<Member>,
    pub sync_wait: Duration,
    pub lame_duck: Duration,
    /// The zone's name servers with their addresses, for NS and glue.
    pub name_servers: Vec<(String, String)>,
    /// Other records of the zone file.
    pub records: String,
    /// The zone clusterset.local beside it.
    pub mcs: bool,
    /// Other sections of the configuration, in YAML.
    pub sections: String,
    /// A program with arguments that runs the one behind them; none: it is run as it is.
    pub through: Vec<String>,
}

pub struct Member {
    pub name: String,
    pub source: MemberSource,
    /// Empty: its nodes say where it is.
    pub region: String,
    pub availability_zone: String,
    /// The namespaces that it may export; none: all.
    pub namespaces: Vec<String>,
    /// Which Services it exports.
    pub export: &'static str,
}

pub enum MemberSource {
    Kubeconfig(PathBuf),
    Manifests(PathBuf),
}

impl Setup {
    /// Cluster-1 and cluster-2 are in one region, as in the 2015 example.
    pub fn new(sources: Vec<MemberSource>) -> Setup {
        const PLACES: [(&str, &str); 3] = [("us-east", "us-east-a"), ("us-east", "us-east-b"), ("asia", "asia-a")];
        let member = |(number, (source, place)): (usize, (MemberSource, (&str, &str)))| Member {
            name: format!("cluster-{}", number + 1),
            source,
            region: place.0.to_string(),
            availability_zone: place.1.to_string(),
            namespaces: Vec::new(),
            export: "loadBalancer",
        };
        let clusters = sources.into_iter().zip(PLACES).enumerate().map(member).collect();
        let name_servers = vec![("ns1".to_string(), "127.0.0.1".to_string())];
        Setup {
            clusters,
            sync_wait: Duration::from_secs(30),
            lame_duck: Duration::ZERO,
            name_servers,
            records: String::new(),
            mcs: false,
            sections: String::new(),
            through: vec![],
        }
    }

    pub fn zone_file(&self) -> String {
        let mut text = format!("$ORIGIN {ZONE}.\n$TTL 3600\n@ SOA ns1 hostmaster 1 3600 600 86400 180\n");
        for (name, address) in &self.name_servers {
            writeln!(text, "@ NS {name}\n{name} A {address}").expect("a String takes everything");
        }
        text + &self.records
    }

    fn config(&self, ports: Ports, zone_file: &Path) -> String {
        let mut text = format!(
            "zones:
- name: {ZONE}
  schema: federation
  file: {}
  ttl: 180
{}listeners:
- {{addresses: ['{}'], view: external}}
- {{addresses: ['{}'], view: {{internal: {}}}}}
admin: {{address: '{}'}}
limits: {{syncWait: {}s, lameDuck: {}s}}
clusters:
",
            zone_file.display(),
            if self.mcs { "- {name: clusterset.local, schema: mcs, file: mcs.zone}\n" } else { "" },
            ports.external,
            ports.internal,
            self.clusters[0].name,
            ports.admin,
            self.sync_wait.as_secs(),
            self.lame_duck.as_secs(),
        );
        for member in &self.clusters {
            let source = match &member.source {
                MemberSource::Kubeconfig(file) => format!("kubeconfig: {{file: '{}'}}", file.display()),
                MemberSource::Manifests(directory) => format!("manifests: '{}'", directory.display()),
            };
            let namespaces = match member.namespaces.as_slice() {
                [] => String::new(),
                some => format!(", namespaces: [{}]", some.join(", ")),
            };
            let place = match member.region.as_str() {
                "" => String::new(),
                region => format!(", region: {region}, availabilityZones: [{}]", member.availability_zone),
            };
            let (name, export) = (&member.name, member.export);
            writeln!(text, "- {{name: {name}, {source}{place}{namespaces}, export: {export}}}")
                .expect("a String takes everything");
        }
        text + &self.sections
    }
}

impl Signpost {
    /// Runs it on free ports of 127.0.0.1 and waits until /readyz says so.
    pub fn start(setup: &Setup) -> Signpost {
        for _ in 0..ATTEMPTS {
            let [external, internal, admin] = [(); 3].map(|()| local(free_port()));
            let signpost = Signpost::spawn(setup, Ports { external, internal, admin }, None);
            match try_wait_for(START, || signpost.ready()) {
                Ok(Ok(())) => return signpost,
                // Somebody else took a port between our look and its use.
                Ok(Err(ended)) if ended.contains("another process listens on") => {}
                Ok(Err(error)) | Err(error) => panic!("signpost is not ready: {error}\n{}", signpost.process.log()),
            }
        }
        panic!("signpost found none of its ports free in {ATTEMPTS} attempts");
    }

    /// Runs it on these very addresses and returns at once.
    pub fn spawn(setup: &Setup, ports: Ports, namespace: Option<&Namespace>) -> Signpost {
        let directory = tempfile::tempdir().expect("a temporary folder can be made");
        let zone_file = directory.path().join("federation.zone");
        let config = directory.path().join(CONFIG);
        fs::write(&zone_file, setup.zone_file()).expect("the folder is ours");
        fs::write(directory.path().join("mcs.zone"), MCS_ZONE).expect("the folder is ours");
        fs::write(&config, setup.config(ports, &zone_file)).expect("the folder is ours");
        let own =
            [env!("CARGO_BIN_EXE_signpost"), "serve", "--config", &config.display().to_string()].map(String::from);
        let mut words = setup.through.iter().cloned().chain(own);
        let process = Process::start(Run {
            name: "signpost",
            program: Path::new(&words.next().expect("our own")),
            arguments: words.collect(),
            directory: directory.path(),
            namespace,
        });
        Signpost { process, ports, directory }
    }

    pub fn config(&self) -> PathBuf {
        self.directory.path().join(CONFIG)
    }

    /// What one of the program's commands says about this configuration, if it is content, or what it complains about.
    pub fn command(&self, words: &[&str]) -> Result<String, String> {
        let Output { status, stdout, stderr } = self.output(words);
        let text = |octets: Vec<u8>| String::from_utf8_lossy(&octets).into_owned();
        if status.success() { Ok(text(stdout)) } else { Err(text(stderr)) }
    }

    /// The same for one that says what is wrong where others say what is right.
    pub fn run(&self, words: &[&str]) -> (ExitStatus, String) {
        let Output { status, stdout, .. } = self.output(words);
        (status, String::from_utf8_lossy(&stdout).into_owned())
    }

    fn output(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_signpost"));
        command.args(words).arg("--config").arg(self.config()).output().expect("the program can be run")
    }

    /// SIGHUP, and waits until it has read the configuration once more.
    pub fn reload(&self) {
        let reloads = || self.log().matches("configuration reloaded").count();
        let before = reloads();
        self.process.signal(rustix::process::Signal::HUP);
        wait_for("a reload", START, || match reloads() {
            now if now > before => Ok(()),
            _ => self.check().and(Err(self.log())),
        });
    }

    /// SIGTERM, to which the only right end is exit code 0.
    pub fn stop(self) {
        let status = self.process.terminate(STOP);
        assert!(status.success(), "signpost ended with {status} after SIGTERM:\n{}", self.process.log());
    }

    /// SIGKILL.
    pub fn kill(self) {
        self.process.kill();
    }

    pub fn check(&self) -> Result<(), String> {
        self.process.check()
    }

    /// What the admin address gives, asked where the program runs.
    pub fn get_inside(&self, namespace: &Namespace, path: &str) -> Result<String, String> {
        self.check()?;
        let url = format!("http://{}{path}", self.ports.admin);
        let words = [namespace.enter(), vec!["curl".into(), "--silent".into(), url]].concat();
        let output = Command::new(&words[0]).args(&words[1..]).output().map_err(|e| e.to_string())?;
        String::from_utf8(output.stdout).map_err(|e| e.to_string())
    }

    /// Of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where all that it logs is.
    pub fn log_file(&self) -> &Path {
        self.process.log_file()
    }

    /// The end of what it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// An end that cannot be waited away comes out as a value.
    fn ready(&self) -> Result<Result<(), String>, String> {
        if let Err(ended) = self.process.check() {
            return Ok(Err(ended));
        }
        let answer = http_get(self.ports.admin, "/readyz").map_err(|e| e.to_string())?;
        if answer.starts_with("HTTP/1.1 200 ") { Ok(Ok(())) } else { Err(answer) }
    }
}

impl Drop for Signpost {
    /// A failed test shows what the program had to say.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("signpost's log ends with:\n{}", self.process.log());
        }
    }
}

/// A metric's value by its name with all its labels.
pub fn metric(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The whole answer, status line and headers included.
pub fn http_get(server: SocketAddr, path: &str) -> std::io::Result<String> {
    let patience = Some(Duration::from_secs(5));
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(patience)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
