//! The other name servers, each in its best settings for authoritative answers over UDP from one core: one thread, no
//! log of queries, no rate limiting, the smallest answers that it lets itself be told to give.
//! What a server has no setting for, or a low limit, as Knot, PowerDNS and gdnsd for the receive buffer, `buffers` sets.

use std::env;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::places::{Place, places};
use super::questions::{Addresses, CLUSTERS, SERVICES, ZONE, ingress, service};
use super::servers::{Recipe, Server, version};
use super::world::{self, RECEIVE_BUFFER};
use crate::common::cluster;

/// Where the programs of `make testbed` are, if not in target/testbed.
const TESTBED: &str = "SIGNPOST_TESTBED";

/// Where Debian has servers, which is not on an ordinary user's PATH.
const SBIN: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

struct Peer {
    name: &'static str,
    program: &'static str,
    /// Debian's, or what else brings it.
    package: &'static str,
    tell_version: &'static str,
    /// Of the folder that has the zone file `zone`: writes the rest, returns the arguments.
    prepare: fn(&Path, SocketAddr) -> io::Result<Vec<String>>,
}

const PEERS: [Peer; 6] = [
    Peer { name: "gdnsd", program: "gdnsd", package: "package gdnsd", tell_version: "-?", prepare: gdnsd },
    Peer { name: "nsd", program: "nsd", package: "package nsd", tell_version: "-v", prepare: nsd },
    Peer { name: "knot", program: "knotd", package: "package knot", tell_version: "--version", prepare: knot },
    Peer { name: "bind", program: "named", package: "package bind9", tell_version: "-v", prepare: bind },
    Peer {
        name: "pdns",
        program: "pdns_server",
        package: "packages pdns-server and pdns-backend-bind",
        tell_version: "--version",
        prepare: pdns,
    },
    Peer { name: "coredns", program: "coredns", package: "make testbed", tell_version: "-version", prepare: coredns },
];

/// Of a folder with the zone file `zone`, for one that is to know that many places.
type PrepareByPlace = fn(&Path, SocketAddr, u32) -> io::Result<Vec<String>>;

/// Those that can answer by place. The others answer as they do without places.
const BY_PLACE: [(&str, PrepareByPlace); 1] = [("gdnsd", gdnsd_by_place)];

pub fn names() -> impl Iterator<Item = &'static str> {
    PEERS.iter().map(|peer| peer.name)
}

/// Starts the server of that name. `places`: prefixes whose place it is to know, if it can.
pub fn start(name: &str, zone_file: &str, places: u32, core: usize) -> Result<Server, String> {
    let peer = PEERS.iter().find(|peer| peer.name == name).ok_or_else(|| format!("{name} is no server"))?;
    let folders = SBIN.map(PathBuf::from).into_iter().chain([testbed()]);
    let program = folders.map(|folder| folder.join(peer.program)).find(|path| path.is_file());
    let program = program.ok_or_else(|| format!("{} is not there ({})", peer.program, peer.package))?;
    let version = version(&program, &[peer.tell_version]);
    let by_place = BY_PLACE.iter().find(|(name, _)| places > 0 && *name == peer.name);
    let addresses = if by_place.is_some() { Addresses::Nearest } else { Addresses::All };
    let prepare = |directory: &Path, address| {
        fs::write(directory.join("zone"), zone_file)?;
        match by_place {
            Some((_, prepare)) => prepare(directory, address, places),
            None => (peer.prepare)(directory, address),
        }
    };
    // It reads how many cores it may use from the environment only.
    let go = |directory: &Path, address| {
        let arguments = vec!["GOMAXPROCS=1".to_owned(), program.display().to_string()];
        Ok([arguments, prepare(directory, address)?].concat())
    };
    let recipe = if peer.name == "coredns" {
        Recipe { name: peer.name, version, program: Path::new("env"), addresses, prepare: &go }
    } else {
        Recipe { name: peer.name, version, program: &program, addresses, prepare: &prepare }
    };
    Server::start(recipe, &[core])
}

fn testbed() -> PathBuf {
    env::var_os(TESTBED).map_or_else(cluster::built, PathBuf::from)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn gdnsd(directory: &Path, address: SocketAddr) -> io::Result<Vec<String>> {
    gdnsd_with("", directory, address)
}

/// Its plugin geoip answers for the services: each cluster is a datacenter, each service a resource. There may be 2²⁴ resources.
///
/// An answer has the addresses of the first datacenter that is up, and no other's: one, where Signpost gives all three in the
/// order of distance. If each datacenter had all three, answers would be as long, but without any order, since gdnsd rotates
/// what it takes from a datacenter. SRV records are static, and load plays no part.
fn gdnsd_by_place(directory: &Path, address: SocketAddr, count: u32) -> io::Result<Vec<String>> {
    let clusters =
        |order: &[u32]| order.iter().map(|cluster| format!("cluster-{cluster}")).collect::<Vec<_>>().join(", ");
    let net = |place: Place| format!("{} => [{}]\n", place.prefix, clusters(&place.order));
    let resource = |number| {
        let datacenter = |cluster| format!("cluster-{cluster} => {}", ingress(cluster, number));
        let datacenters = (0..CLUSTERS).map(datacenter).collect::<Vec<_>>().join(", ");
        format!("{} => {{ dcmap => {{ {datacenters} }} }}\n", service(number))
    };
    fs::write(directory.join("zone"), world::zone_file_by_place())?;
    fs::write(directory.join("nets"), places(count).map(net).collect::<String>())?;
    fs::write(directory.join("resources"), (0..SERVICES).map(resource).collect::<String>())?;
    let all = clusters(&(0..CLUSTERS).collect::<Vec<_>>());
    let plugin = format!(
        "plugins => {{ geoip => {{
  maps => {{ clients => {{ datacenters => [{all}], nets => \"{}\" }} }}
  map => clients
  resources => $include{{resources}}
}} }}
",
        directory.join("nets").display()
    );
    gdnsd_with(&plugin, directory, address)
}

/// `plugins`: what is added to its configuration.
fn gdnsd_with(plugins: &str, directory: &Path, address: SocketAddr) -> io::Result<Vec<String>> {
    let folder = directory.display();
    fs::create_dir(directory.join("zones"))?;
    fs::rename(directory.join("zone"), directory.join("zones").join(ZONE))?;
    // The buffers are the largest that it accepts.
    fs::write(
        directory.join("config"),
        format!(
            "options => {{
  listen => \"{address}\"
  udp_threads => 1
  tcp_threads => 1
  udp_rcvbuf => 1048576
  udp_sndbuf => 1048576
  run_dir => \"{folder}/run\"
  state_dir => \"{folder}/state\"
}}
{plugins}"
        ),
    )?;
    Ok(words(&format!("-c {folder} start")))
}

fn nsd(directory: &Path, address: SocketAddr) -> io::Result<Vec<String>> {
    let (ip, port, folder) = (address.ip(), address.port(), directory.display());
    fs::write(
        directory.join("nsd.conf"),
        format!(
            "server:
  ip-address: {ip}@{port}
  server-count: 1
  receive-buffer-size: {RECEIVE_BUFFER}
  send-buffer-size: 1048576
  minimal-responses: yes
  round-robin: no
  rrl-ratelimit: 0
  rrl-whitelist-ratelimit: 0
  verbosity: 0
  username: \"\"
  zonesdir: {folder}
  database: \"\"
  pidfile: {folder}/nsd.pid
  xfrdfile: {folder}/xfrd
  xfrdir: {folder}
  zonelistfile: {folder}/zones
  cookie-secret-file: {folder}/cookies
remote-control:
  control-enable: no
zone:
  name: {ZONE}
  zonefile: zone
"
        ),
    )?;
    Ok(words("-d -c nsd.conf"))
}

fn knot(directory: &Path, address: SocketAddr) -> io::Result<Vec<String>> {
    let (ip, port, folder) = (address.ip(), address.port(), directory.display());
    fs::write(
        directory.join("knot.conf"),
        format!(
            "server:
  rundir: {folder}
  listen: {ip}@{port}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
log:
- target: stderr
  any: warning
database:
  storage: {folder}
zone:
- domain: {ZONE}
  storage: {folder}
  file: zone
  zonefile-sync: -1
  journal-content: none
"
        ),
    )?;
    Ok(words("-c knot.conf"))
}

fn bind(directory: &Path, address: SocketAddr) -> io::Result<Vec<String>> {
    let (ip, port, folder) = (address.ip(), address.port(), directory.display());
    fs::write(
        directory.join("named.conf"),
        format!(
            "options {{
  directory \"{folder}\";
  pid-file none;
  lock-file none;
  session-keyfile \"{folder}/session.key\";
  managed-keys-directory \"{folder}\";
  listen-on port {port} {{ {ip}; }};
  listen-on-v6 {{ none; }};
  udp-receive-buffer {RECEIVE_BUFFER};
  recursion no;
  dnssec-validation no;
  minimal-responses yes;
  querylog no;
  notify no;
  zone-statistics none;
  rrset-order {{ order none; }};
}};
controls {{ }};
zone \"{ZONE}\" {{ type primary; file \"zone\"; }};
"
        ),
    )?;
    Ok(words("-g -n 1 -c named.conf"))
}

fn pdns(directory: &Path, address: SocketAddr) -> io::Result<Vec<String>> {
    let (ip, port, folder) = (address.ip(), address.port(), directory.display());
    fs::write(directory.join("named.conf"), format!("zone \"{ZONE}\" {{ type master; file \"{folder}/zone\"; }};\n"))?;
    // The last line: it would ask the Internet whether its version is safe.
    fs::write(
        directory.join("pdns.conf"),
        format!(
            "launch=bind
bind-config={folder}/named.conf
local-address={ip}
local-port={port}
socket-dir={folder}
daemon=no
guardian=no
receiver-threads=1
distributor-threads=1
cache-ttl=3600
query-cache-ttl=3600
negquery-cache-ttl=3600
disable-syslog=yes
loglevel=3
log-dns-queries=no
log-dns-details=no
webserver=no
security-poll-suffix=
"
        ),
    )?;
    Ok(words(&format!("--config-dir={folder}")))
}

fn coredns(directory: &Path, address: SocketAddr) -> io::Result<Vec<String>> {
    let (ip, port) = (address.ip(), address.port());
    // One socket for the one core that it has.
    fs::write(
        directory.join("Corefile"),
        format!(
            "{ZONE}:{port} {{
  bind {ip}
  multisocket 1
  minimal
  file zone {{
    reload 0
  }}
}}
"
        ),
    )?;
    Ok(words("-conf Corefile"))
}
