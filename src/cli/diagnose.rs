//! `signpost diagnose`: is all that an instance needs there? Each line is something that was looked at, and what to do about it.

mod stub;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

use super::EXIT_PROBLEM;
use super::explain::ask;
use crate::app::Loaded;
use crate::config::{Cluster, Config, Schema, Source};
use crate::model::{View, ViewRule};
use crate::source::kube::examine::{Finding, Verdict, examine};
use crate::source::kube::secrets::look as look_at_secrets;
use crate::source::manifests;
use crate::source::registration::{LABEL, Unfit};
use crate::status::{State, Status};
use crate::wire::rtype;
use crate::zonefile::ZoneData;

/// Octets of a status.
const MOST: u64 = 16 << 20;
/// For one question over one transport.
const PATIENCE: Duration = Duration::from_secs(2);
const PORT: u16 = 53;

/// Prints as it goes: some of it takes its time.
struct Report {
    counts: [usize; 3],
}

impl Report {
    fn put(&mut self, subject: &str, finding: &Finding) {
        let (place, word) = match finding.verdict {
            Verdict::Passed => (0, "passed"),
            Verdict::Warned => (1, "WARNED"),
            Verdict::Failed => (2, "FAILED"),
        };
        self.counts[place] += 1;
        // Whoever reads it may have gone.
        let _ = writeln!(io::stdout(), "{word}  {subject}: {}", finding.text);
    }
}

pub use stub::parse as parse_stub;

/// `stubs`: the DNS of clusters, which is to forward the zones.
pub fn run(path: &Path, stubs: &[SocketAddr]) -> ExitCode {
    let mut report = Report { counts: [0; 3] };
    let shown = path.display().to_string();
    match Loaded::load(path) {
        Err(error) => report.put(&shown, &Finding::failed(error.to_string())),
        Ok(mut loaded) => {
            report.put(&shown, &Finding::passed("configuration and zone files are in order"));
            if let Some(problem) = loaded.places.broken() {
                report.put("location", &Finding::warned(problem.to_string()));
            }
            look(&loaded, &mut report);
            for (server, zone) in stubs.iter().flat_map(|server| loaded.zones.iter().map(move |zone| (server, zone))) {
                report.put(&format!("stub {server}, zone {}", zone.apex), &stub::forwards(*server, zone));
            }
        }
    }
    let [passed, warned, failed] = report.counts;
    let _ = writeln!(io::stdout(), "{passed} passed, {warned} warned, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_PROBLEM) }
}

fn look(loaded: &Loaded, report: &mut Report) {
    let Loaded { config, zones, .. } = loaded;
    let mut config = (**config).clone();
    for warning in zones.iter().flat_map(|zone| &zone.warnings) {
        report.put("zone file", &Finding::warned(warning.to_string()));
    }
    report.put("state", &state(&config));
    registered(&mut config, report);
    let config = &config;
    for cluster in &config.clusters {
        of_cluster(cluster, config)
            .iter()
            .for_each(|finding| report.put(&format!("cluster {}", cluster.name), finding));
    }
    let status =
        ask(config, "/status", MOST, "").and_then(|text| serde_json::from_str(&text).map_err(|e| e.to_string()));
    match status {
        Ok(status) => {
            of_server(&status).iter().for_each(|finding| report.put("server", finding));
            listeners(config, report);
        }
        Err(error) => {
            report.put("server", &Finding::warned(format!("none runs with this configuration here: {error}")))
        }
    }
    for (zone, data) in config.zones.iter().zip(zones.iter()).filter(|(zone, _)| zone.schema != Schema::Mcs) {
        name_servers(data).iter().for_each(|finding| report.put(&format!("zone {}", zone.name), finding));
        report.put(&format!("zone {}", zone.name), &delegation(config, data));
    }
}

/// Can what was heard outlast this process?
fn state(config: &Config) -> Finding {
    let Some(directory) = &config.state else {
        return Finding::warned(
            "`state` is not configured: an instance that starts while an API server is down knows nothing of its cluster",
        );
    };
    let probe = directory.join(".signpost-diagnose");
    let tried = std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(&probe, b""))
        .and_then(|()| std::fs::remove_file(&probe));
    match tried {
        Ok(()) => Finding::passed(format!("{} can be written to", directory.display())),
        Err(error) => Finding::failed(format!(
            "{} cannot be written to ({error}): make it, and give it to the user that signpost runs as",
            directory.display()
        )),
    }
}

fn of_cluster(cluster: &Cluster, config: &Config) -> Vec<Finding> {
    match &cluster.source {
        Source::Manifests { directory } => {
            let read = manifests::read(directory, cluster, &config.limits);
            let count = read.problems.len();
            let mut findings =
                vec![Finding::passed(format!("{} Services in {}", read.services.len(), directory.display()))];
            if count > 0 {
                findings
                    .push(Finding::warned(format!("{count} problems in its manifests: `signpost check` shows them")));
            }
            findings
        }
        Source::Kubeconfig { .. } | Source::InCluster | Source::Registered(_) => match runtime() {
            Ok(runtime) => runtime.block_on(examine(cluster)),
            Err(finding) => vec![finding],
        },
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Finding> {
    let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
    made.map_err(|error| Finding::failed(format!("no runtime: {error}")))
}

/// Are the Secrets there, and of use? With them, their clusters are looked at like all others.
fn registered(config: &mut Config, report: &mut Report) {
    let Some(secrets) = config.cluster_secrets.clone() else { return };
    let found = match runtime() {
        Ok(runtime) => runtime.block_on(look_at_secrets(&secrets)),
        Err(finding) => return report.put("clusterSecrets", &finding),
    };
    let found = match found {
        Ok(found) => found,
        Err(failure) => {
            let text = format!(
                "the Secrets in {} cannot be listed ({failure}): who is registered stays as it was; the API server, its \
                 credentials, and the rights in config/rbac/registration",
                secrets.namespace
            );
            return report.put("clusterSecrets", &Finding::failed(text));
        }
    };
    let text = format!("{} Secrets with the label {LABEL} in {}", found.len(), secrets.namespace);
    report.put("clusterSecrets", &Finding::passed(text));
    let mut registered = BTreeMap::new();
    for (name, read) in found {
        match read {
            Ok((name, registration)) => drop(registered.insert(name, registration)),
            Err(problem) => report.put(&format!("Secret {name}"), &Finding::failed(problem.to_string())),
        }
    }
    for (name, why) in config.register(&registered) {
        report.put(&format!("Secret {name}"), &Finding::failed(Unfit::from(why).to_string()));
    }
}

fn of_server(status: &Status) -> Vec<Finding> {
    let mut findings = vec![match status.not_ready.as_slice() {
        [] => Finding::passed(format!("it runs (version {}), and is ready", status.version)),
        reasons => {
            Finding::warned(format!("it runs (version {}), and is not ready: {}", status.version, reasons.join(", ")))
        }
    }];
    for cluster in &status.clusters {
        match cluster.state {
            State::Synced => {}
            State::Stale => findings.push(Finding::warned(format!("it answers for {} from a snapshot", cluster.name))),
            State::NotSynced => findings.push(Finding::failed(format!("it has never heard {}", cluster.name))),
        }
        if cluster.silent {
            findings
                .push(Finding::warned(format!("{} says nothing any more, and is behind others as near", cluster.name)));
        }
        if cluster.held_deletions > 0 {
            findings
                .push(Finding::warned(format!("{} deletions in {} are held", cluster.held_deletions, cluster.name)));
        }
    }
    if let Some(health) = status.health.as_ref().filter(|h| h.isolated || h.frozen || h.own_vote == Some(false)) {
        findings.push(Finding::warned(format!("health by {health}")));
    }
    findings
}

/// Does each answer, for each zone, over both transports?
fn listeners(config: &Config, report: &mut Report) {
    for listener in &config.listeners {
        let address = reachable(listener.address);
        let internal = matches!(listener.audience.view, ViewRule::Fixed(View::Internal(_)));
        for zone in &config.zones {
            // Clients outside of all clusters have no business there, and by source we are one.
            if zone.schema == Schema::Mcs && !internal {
                continue;
            }
            let (subject, name) = (format!("listener {}", listener.address), zone.name.to_string());
            report.put(&subject, &serves(&name, "UDP", over_udp(address, &name, RecordType::SOA)));
            report.put(&subject, &serves(&name, "TCP", over_tcp(address, &name, RecordType::SOA)));
        }
    }
}

fn serves(zone: &str, transport: &str, asked: io::Result<Message>) -> Finding {
    match asked.map(|message| (message.metadata.response_code, message.metadata.authoritative)) {
        Ok((ResponseCode::NoError, true)) => Finding::passed(format!("answers for {zone} over {transport}")),
        Ok((code, _)) => Finding::failed(format!("says {code} for {zone} over {transport}")),
        Err(error) => {
            Finding::failed(format!("does not answer over {transport} ({error}): a firewall, or another process"))
        }
    }
}

/// From this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Every name server of the zone with an address in it has the same SOA record.
fn name_servers(zone: &ZoneData) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(servers) = zone.set(&zone.apex, rtype::NS) else { return findings };
    for host in servers.rdatas.iter().filter_map(|rdata| crate::names::Name::from_wire(rdata).ok()) {
        let rdatas = |rtype| zone.set(&host, rtype).into_iter().flat_map(|set| &set.rdatas);
        let v4 = rdatas(rtype::A).filter_map(|rdata| Some(IpAddr::from(<[u8; 4]>::try_from(&rdata[..]).ok()?)));
        let v6 = rdatas(rtype::AAAA).filter_map(|rdata| Some(IpAddr::from(<[u8; 16]>::try_from(&rdata[..]).ok()?)));
        for address in v4.chain(v6) {
            let at = SocketAddr::new(address, PORT);
            findings.push(match over_udp(at, &zone.apex.to_string(), RecordType::SOA).map(|message| serial(&message)) {
                Ok(Some(serial)) if serial == zone.soa.serial => Finding::passed(format!("{host} at {address} has the serial {serial}")),
                Ok(Some(serial)) => Finding::warned(format!(
                    "{host} at {address} has the serial {serial}, and the zone file here {}: give all instances the same file",
                    zone.soa.serial
                )),
                Ok(None) => Finding::warned(format!("{host} at {address} does not answer for the zone")),
                Err(error) => Finding::warned(format!("{host} at {address} does not answer ({error}): resolvers will ask it")),
            });
        }
    }
    findings
}

fn serial(message: &Message) -> Option<u32> {
    message.answers.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(soa.serial),
        _ => None,
    })
}

/// Do resolvers find the zone, and the name servers that it names itself?
fn delegation(config: &Config, zone: &ZoneData) -> Finding {
    let Some(resolver) = config.resolvers.first().copied().or_else(system_resolver) else {
        return Finding::warned("the system has no resolver, which could be asked for the delegation");
    };
    let own: BTreeSet<String> = zone
        .set(&zone.apex, rtype::NS)
        .into_iter()
        .flat_map(|set| &set.rdatas)
        .filter_map(|rdata| Some(crate::names::Name::from_wire(rdata).ok()?.to_string()))
        .collect();
    match over_udp(resolver, &zone.apex.to_string(), RecordType::NS) {
        Err(error) => Finding::warned(format!(
            "the resolver {resolver} does not answer ({error}): the delegation was not looked at"
        )),
        Ok(message) => {
            let found: BTreeSet<String> = message
                .answers
                .iter()
                .filter_map(|record| match &record.data {
                    RData::NS(host) => Some(host.0.to_string().to_lowercase()),
                    _ => None,
                })
                .collect();
            let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
            if found == own {
                Finding::passed(format!("{resolver} finds its name servers {}", list(&own)))
            } else if found.is_empty() {
                Finding::warned(format!(
                    "{resolver} finds no name servers ({}): the parent zone does not delegate it, or the stub is not set up",
                    message.metadata.response_code
                ))
            } else {
                Finding::warned(format!(
                    "{resolver} finds {}, and the zone file says {}: make the NS records at the parent the same",
                    list(&found),
                    list(&own)
                ))
            }
        }
    }
}

/// The first one.
fn system_resolver() -> Option<SocketAddr> {
    let (config, _) = hickory_resolver::system_conf::read_system_conf().ok()?;
    config.name_servers().first().map(|server| SocketAddr::new(server.ip, PORT))
}

fn query(name: &str, rtype: RecordType) -> io::Result<Vec<u8>> {
    let name = Name::from_ascii(name).map_err(io::Error::other)?;
    let mut message = Message::new(std::process::id() as u16, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, rtype));
    message.to_vec().map_err(io::Error::other)
}

fn over_udp(server: SocketAddr, name: &str, rtype: RecordType) -> io::Result<Message> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let query = query(name, rtype)?;
    let mut answer = vec![0; 4096];
    // A datagram may get lost.
    for _ in 0..2 {
        socket.send(&query)?;
        match socket.recv(&mut answer) {
            Ok(length) if answer[..2] == query[..2] => {
                return Message::from_vec(&answer[..length]).map_err(io::Error::other);
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
}

fn over_tcp(server: SocketAddr, name: &str, rtype: RecordType) -> io::Result<Message> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let query = query(name, rtype)?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?.to_be_bytes();
    stream.write_all(&[&length[..], &query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Message::from_vec(&answer).map_err(io::Error::other)
}
