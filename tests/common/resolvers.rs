//! Real resolvers and name servers around the zone: unbound, CoreDNS, nsd, knot.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::cluster::built;
use super::dig::Dig;
use super::namespace::Namespace;
use super::process::{Process, Run};
use super::{free_port, local, try_wait_for};

/// Longest start of any of them, on a loaded machine.
const START: Duration = Duration::from_secs(30);
/// Starts tried, each with another port.
const ATTEMPTS: usize = 5;

/// A program that answers DNS at `address`.
pub struct Server {
    process: Process,
    pub address: SocketAddr,
    _directory: TempDir,
}

/// What is served, and from what.
pub enum Kind<'a> {
    /// unbound that asks the servers for the zone and nobody for anything else.
    UnboundStub { zone: &'a str, servers: &'a [SocketAddr] },
    /// unbound that iterates from these root servers.
    UnboundRoot { hints: &'a str },
    /// CoreDNS as it is inside a cluster: `forward` of the zone.
    CoreDns { zone: &'a str, server: SocketAddr },
    /// nsd with one zone; "." is the root.
    Nsd { zone: &'a str, text: &'a str },
    /// knot with one zone.
    Knot { zone: &'a str, text: &'a str },
    /// unbound with this beside what every one here has.
    Unbound { text: &'a str },
    /// CoreDNS with this Corefile as it is.
    Corefile { text: &'a str },
    /// dnsmasq with these arguments as they are.
    Dnsmasq { arguments: &'a [String] },
}

impl Server {
    /// On a free port of 127.0.0.1.
    pub fn start(kind: &Kind<'_>) -> Server {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            match Server::try_start(kind, local(free_port()), None) {
                Ok(server) => return server,
                Err(error) => last = error,
            }
        }
        panic!("no start in {ATTEMPTS} attempts; the last: {last}");
    }

    /// On port 53 of an address of the namespace.
    pub fn start_in(namespace: &Namespace, kind: &Kind<'_>, address: &str) -> Server {
        let address: IpAddr = address.parse().expect("written as an address");
        Server::try_start(kind, SocketAddr::new(address, 53), Some(namespace)).unwrap_or_else(|e| panic!("{e}"))
    }

    /// On port 53 of an address of loopback, which takes root.
    pub fn start_at(kind: &Kind<'_>, address: &str) -> Server {
        let address: IpAddr = address.parse().expect("written as an address");
        Server::try_start(kind, SocketAddr::new(address, 53), None).unwrap_or_else(|e| panic!("{e}"))
    }

    fn try_start(kind: &Kind<'_>, address: SocketAddr, namespace: Option<&Namespace>) -> Result<Server, String> {
        let directory = tempfile::tempdir().expect("a temporary folder can be made");
        let (program, arguments) = kind.write(directory.path(), address);
        let name = program.file_name().and_then(|n| n.to_str()).expect("the names are ours").to_string();
        let process =
            Process::start(Run { name: &name, program: &program, arguments, directory: directory.path(), namespace });
        let dig = namespace.map_or_else(|| Dig::at(address), |n| Dig::inside(n, address)).with("+time=1");
        // Any answer shows that it listens; what it has to say is the test's business.
        let listens = || match process.check() {
            Err(ended) => Ok(Err(ended)),
            Ok(()) => dig.ask("version.invalid", "TXT").map(|_| Ok(())),
        };
        try_wait_for(START, listens).map_err(|e| format!("{name}: {e}; its log: {}", process.log()))??;
        Ok(Server { process, address, _directory: directory })
    }

    pub fn check(&self) -> Result<(), String> {
        self.process.check()
    }
}

impl Kind<'_> {
    /// Writes the configuration; what is to be run with it.
    fn write(&self, directory: &Path, address: SocketAddr) -> (PathBuf, Vec<String>) {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        let (ip, port) = (address.ip(), address.port());
        let put = |file: &str, text: &str| fs::write(directory.join(file), text).expect("the folder is ours");
        let folder = directory.display();
        match self {
            Kind::UnboundStub { zone, servers } => {
                let list: String = servers.iter().map(|s| format!("  stub-addr: {}@{}\n", s.ip(), s.port())).collect();
                // Otherwise the zone's NS records would lead to port 53 of their addresses.
                let stub = format!("stub-zone:\n  name: {zone}\n  stub-prime: no\n{list}");
                put("unbound.conf", &format!("{}{stub}", unbound(address, directory)));
                (sbin("unbound"), words(&["-d", "-c", "unbound.conf"]))
            }
            Kind::UnboundRoot { hints } => {
                put("root.hints", hints);
                put("unbound.conf", &format!("{}  root-hints: root.hints\n", unbound(address, directory)));
                (sbin("unbound"), words(&["-d", "-c", "unbound.conf"]))
            }
            Kind::CoreDns { zone, server } => {
                put("Corefile", &format!("{zone}:{port} {{\n  bind {ip}\n  errors\n  forward . {server}\n}}\n"));
                (coredns(), words(&["-conf", "Corefile"]))
            }
            Kind::Nsd { zone, text } => {
                put("zone", text);
                put(
                    "nsd.conf",
                    &format!(
                        "server:\n  ip-address: {ip}@{port}\n  server-count: 1\n  username: \"\"\n  zonesdir: {folder}\n  \
                         database: \"\"\n  pidfile: {folder}/nsd.pid\n  xfrdfile: {folder}/xfrd\n  xfrdir: {folder}\n  \
                         zonelistfile: {folder}/zones\n  cookie-secret-file: {folder}/cookies\n\
                         remote-control:\n  control-enable: no\nzone:\n  name: {zone}\n  zonefile: zone\n"
                    ),
                );
                (sbin("nsd"), words(&["-d", "-c", "nsd.conf"]))
            }
            Kind::Knot { zone, text } => {
                put("zone", text);
                put(
                    "knot.conf",
                    &format!(
                        "server:\n  rundir: {folder}\n  listen: {ip}@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  \
                         background-workers: 1\nlog:\n- target: stderr\n  any: info\n\
                         database:\n  storage: {folder}\nzone:\n- domain: {zone}\n  storage: {folder}\n  file: zone\n"
                    ),
                );
                (sbin("knotd"), words(&["-c", "knot.conf"]))
            }
            Kind::Unbound { text } => {
                put("unbound.conf", &format!("{}{text}", unbound(address, directory)));
                (sbin("unbound"), words(&["-d", "-c", "unbound.conf"]))
            }
            Kind::Corefile { text } => {
                put("Corefile", text);
                (coredns(), words(&["-conf", "Corefile"]))
            }
            Kind::Dnsmasq { arguments } => (sbin("dnsmasq"), arguments.to_vec()),
        }
    }
}

fn coredns() -> PathBuf {
    let program = built().join("coredns");
    assert!(program.is_file(), "coredns is not in target/testbed: run `make testbed`");
    program
}

/// Both stub and root: in the foreground, as whoever runs the test, asking loopback, believing nothing about DNSSEC.
pub fn unbound(address: SocketAddr, directory: &Path) -> String {
    let (ip, port, folder) = (address.ip(), address.port(), directory.display());
    format!(
        "server:\n  interface: {ip}@{port}\n  directory: {folder}\n  username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  \
         use-syslog: no\n  num-threads: 1\n  do-not-query-localhost: no\n  access-control: 127.0.0.0/8 allow\n  \
         module-config: \"iterator\"\n  qname-minimisation: yes\n"
    )
}

/// Debian has the servers in /usr/sbin, which is not on an ordinary user's PATH.
pub fn sbin(program: &str) -> PathBuf {
    ["/usr/sbin", "/usr/local/sbin"]
        .map(|folder| Path::new(folder).join(program))
        .into_iter()
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{program} is not in /usr/sbin: install the packages of tests/apt-packages.txt"))
}

/// A delegation on the test's own Internet: root (nsd) → my-domain.com (knot) → the zone's two servers; and a resolver
/// (unbound) that knows the root only. Fields end in this order.
pub struct Delegation {
    pub resolver: Server,
    _parent: Server,
    _root: Server,
}

/// Addresses of the two servers that the parent delegates the zone to, on port 53.
pub const DELEGATED: [&str; 2] = ["127.0.9.11", "127.0.9.12"];

impl Delegation {
    pub fn start(namespace: &Namespace) -> Delegation {
        let [one, two] = DELEGATED;
        Delegation::with(
            namespace,
            &format!(
                "my-federation NS ns1.my-federation\nmy-federation NS ns2.my-federation\n\
                 ns1.my-federation A {one}\nns2.my-federation A {two}\n"
            ),
        )
    }

    /// With these records in the parent zone.
    pub fn with(namespace: &Namespace, records: &str) -> Delegation {
        let root = "$TTL 3600\n. SOA root-ns. host. 1 3600 600 86400 60\n. NS root-ns.\nroot-ns. A 127.0.9.1\n\
                    my-domain.com. NS ns.my-domain.com.\nns.my-domain.com. A 127.0.9.2\n";
        let parent = format!(
            "$ORIGIN my-domain.com.\n$TTL 3600\n@ SOA ns host 1 3600 600 86400 60\n@ NS ns\nns A 127.0.9.2\n{records}"
        );
        let hints = ". 3600 IN NS root-ns.\nroot-ns. 3600 IN A 127.0.9.1\n";
        let root = Server::start_in(namespace, &Kind::Nsd { zone: ".", text: root }, "127.0.9.1");
        let parent = Server::start_in(namespace, &Kind::Knot { zone: "my-domain.com", text: &parent }, "127.0.9.2");
        let resolver = Server::start_in(namespace, &Kind::UnboundRoot { hints }, "127.0.9.53");
        Delegation { resolver, _parent: parent, _root: root }
    }
}
