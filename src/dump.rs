//! All that a zone answers with, in one view and from one place, as a zone file (RFC 1035 section 5): for another server, or to be looked
//! at. What it says of services is asked of the responder itself, so that it is what clients get.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::stream::{self, Stream, StreamExt};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::{Config, Schema};
use crate::explain::{self, Answered, Asker, ExplainError};
use crate::model::{Federated, Label, ServiceKey};
use crate::names::Name;
use crate::table::Reader;
use crate::wire::rtype;
use crate::zonefile::{RrSet, ZoneData};

/// Holds a name in being that has no records: a private type (RFC 6895 section 3.1) without data.
const PLACEHOLDER: &str = "TYPE65280 \\# 0";
/// Seconds; nobody asks for it.
const PLACEHOLDER_TTL: u32 = 60;
/// How the last line begins: without it, something is missing.
pub const END: &str = "; end: ";

/// What is to be dumped, and as who sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    pub zone: String,
    /// The cluster whose internal view it is; without it the external one.
    pub cluster: Option<String>,
    /// Where the client is.
    pub client: Option<IpAddr>,
    /// The client subnet (RFC 7871) that comes with queries.
    pub subnet: Option<IpNet>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DumpError {
    #[error("there is no zone {zone:?}; there are {known}")]
    Zone { zone: String, known: String },
    #[error("{0}")]
    Asked(ExplainError),
}

/// All services by their keys.
pub type List = Pin<Box<dyn Future<Output = Vec<ServiceKey>> + Send>>;
/// What is known of some services.
pub type Fetch = Pin<Box<dyn Future<Output = Vec<Federated>> + Send>>;

/// Who knows all services.
pub struct Directory {
    pub list: Box<dyn Fn() -> List + Send + Sync>,
    pub fetch: Box<dyn Fn(Vec<ServiceKey>) -> Fetch + Send + Sync>,
}

/// Services that are fetched at once.
const PIECE: usize = 256;

/// Dumps the zones of a running server.
pub struct Dumper {
    /// With its zones: one is understood by the other.
    config: ArcSwap<(Arc<Config>, Arc<Vec<ZoneData>>)>,
    reader: Reader,
    directory: Directory,
}

impl Dumper {
    pub fn new(config: Arc<Config>, zones: Arc<Vec<ZoneData>>, reader: Reader, directory: Directory) -> Arc<Dumper> {
        Arc::new(Dumper { config: ArcSwap::from_pointee((config, zones)), reader, directory })
    }

    /// To be called when the table is that of another configuration.
    pub fn set_config(&self, config: Arc<Config>, zones: Arc<Vec<ZoneData>>) {
        self.config.store(Arc::new((config, zones)));
    }

    /// The zone file, piece by piece: services are looked at as it is read.
    pub fn dump(self: Arc<Dumper>, wanted: &Wanted) -> Result<impl Stream<Item = String> + use<>, DumpError> {
        let (config, zones) = &**self.config.load();
        let (dump, head) = Dump::begin(config, self.reader.clone(), zones, wanted)?;
        let rest = stream::unfold((Some(dump), None), move |(dump, keys)| {
            let dumper = self.clone();
            async move {
                let mut dump: Dump = dump?;
                let Directory { list, fetch } = &dumper.directory;
                let mut keys = match keys {
                    Some(keys) => keys,
                    None if dump.has_services() => list().await.into_iter(),
                    None => Vec::new().into_iter(),
                };
                let piece: Vec<ServiceKey> = keys.by_ref().take(PIECE).collect();
                if piece.is_empty() {
                    return Some((dump.end(), (None, None)));
                }
                let text = dump.services(&fetch(piece).await);
                Some((text, (Some(dump), Some(keys))))
            }
        });
        Ok(stream::iter([head]).chain(rest))
    }
}

/// A zone that is being dumped: begin, services in the order of their keys, end.
pub struct Dump {
    asker: Asker,
    /// With a final dot; of services. `None`: it has none.
    suffix: Option<String>,
    /// Owners of static data, which wins.
    statics: BTreeSet<String>,
    /// The namespace that it is at, and whether something of it is answered.
    namespace: Option<(Label, bool)>,
    names: u64,
}

impl Dump {
    /// With the head and all static data. `zones`: in the order of `config.zones`.
    pub fn begin(
        config: &Arc<Config>,
        reader: Reader,
        zones: &[ZoneData],
        wanted: &Wanted,
    ) -> Result<(Dump, String), DumpError> {
        let asked = wanted.zone.strip_suffix('.').unwrap_or(&wanted.zone).to_ascii_lowercase();
        let is_it = |zone: &ZoneData| zone.apex.to_string().trim_end_matches('.') == asked;
        let Some(at) = zones.iter().position(is_it) else {
            let known = config.zones.iter().map(|zone| zone.name.to_string()).collect::<Vec<_>>().join(", ");
            return Err(DumpError::Zone { zone: wanted.zone.clone(), known });
        };
        let data = &zones[at];
        let as_who = explain::Asked {
            name: data.apex.to_string(),
            rtype: "SOA".to_owned(),
            client: wanted.client,
            cluster: wanted.cluster.clone(),
            subnet: wanted.subnet,
        };
        let asker = Asker::new(config, reader, &as_who).map_err(DumpError::Asked)?;
        let view = wanted.cluster.as_ref().map_or("external".to_owned(), |cluster| format!("internal to {cluster}"));
        let from = [wanted.client.map(|client| client.to_string()), wanted.subnet.map(|subnet| subnet.to_string())];
        let from: Vec<String> = from.into_iter().flatten().collect();
        let from = if from.is_empty() { String::new() } else { format!(", as seen from {}", from.join(" and ")) };
        let mut out = format!("; {}, view {view}{from}\n", data.apex);
        let mut owners: Vec<(&Name, &RrSet)> =
            data.sets.iter().flat_map(|(owner, sets)| sets.iter().map(move |set| (owner, set))).collect();
        // Some servers want it to be the first one.
        owners.sort_by_key(|(owner, set)| (**owner != data.apex, set.rtype != rtype::SOA));
        for (owner, set) in owners {
            put_set(&mut out, owner, set);
        }
        let suffix = match config.zones[at].schema {
            Schema::Mcs => Some(format!("svc.{}", data.apex)),
            Schema::Federation => Some(data.apex.to_string()),
            Schema::Static => None,
        };
        let statics: BTreeSet<String> = data.sets.keys().map(ToString::to_string).collect();
        let names = statics.len() as u64;
        let mut dump = Dump { asker, suffix, statics, namespace: None, names };
        if config.zones[at].schema == Schema::Mcs {
            dump.put(&mut out, &format!("dns-version.{}", data.apex), &["TXT"]);
        }
        Ok((dump, out))
    }

    pub fn has_services(&self) -> bool {
        self.suffix.is_some()
    }

    /// Of these services, in order; `found`: what is known of them.
    pub fn services(&mut self, found: &[Federated]) -> String {
        let mut out = String::new();
        let Some(suffix) = self.suffix.clone() else { return out };
        for service in found {
            let ServiceKey { namespace, name } = &service.key;
            if self.namespace.as_ref().is_none_or(|(at, _)| at != namespace) {
                self.end_namespace(&mut out);
                self.namespace = Some((namespace.clone(), false));
            }
            let owner = format!("{name}.{namespace}.{suffix}");
            self.service(&mut out, &owner, service);
        }
        out
    }

    /// What is left, and the last line.
    pub fn end(mut self) -> String {
        let mut out = String::new();
        self.end_namespace(&mut out);
        let _ = writeln!(out, "{END}{} names", self.names);
        out
    }

    /// A namespace is there with every service in it, of those too that this view does not see.
    fn end_namespace(&mut self, out: &mut String) {
        if let (Some((namespace, false)), Some(suffix)) = (self.namespace.take(), &self.suffix) {
            let owner = format!("{namespace}.{suffix}");
            if !self.statics.contains(&owner) && self.asker.ask(&owner, "A").is_ok_and(|answered| answered.is_there()) {
                self.hold(out, &owner);
            }
        }
    }

    fn service(&mut self, out: &mut String, owner: &str, service: &Federated) {
        let is_static = self.statics.contains(owner);
        if !is_static && self.put(out, owner, &["A", "AAAA", "SRV"]).is_none() {
            return;
        }
        if let Some((_, answered)) = &mut self.namespace {
            *answered = true;
        }
        let shares = service
            .shares
            .iter()
            .flat_map(|share| share.ports.iter().chain(share.pods.iter().flat_map(|pod| &pod.ports)));
        let imports = service.imports.iter().flat_map(|(_, import)| &import.ports);
        let ports = shares
            .chain(imports)
            .filter_map(|port| Some(format!("_{}.{}.{owner}", port.name.as_ref()?, port.protocol.label())));
        let mut hosts = BTreeSet::new();
        for port in ports.collect::<BTreeSet<String>>() {
            hosts.extend(self.put(out, &port, &["SRV"]).unwrap_or_default());
        }
        for share in &service.shares {
            let cluster = &self.asker.config().cluster(share.cluster).name;
            hosts.extend(share.pods.iter().map(|pod| format!("{}.{cluster}.{owner}", pod.hostname)));
            hosts.insert(format!("{cluster}.{owner}"));
        }
        hosts.remove(owner);
        for host in hosts.iter().filter(|host| host.ends_with(owner)) {
            self.put(out, host, &["A", "AAAA"]);
        }
    }

    fn hold(&mut self, out: &mut String, owner: &str) {
        self.names += 1;
        let _ = writeln!(out, "{owner} {PLACEHOLDER_TTL} IN {PLACEHOLDER}");
    }

    /// Gives the hosts that the records name; `None`: the name is not there.
    fn put(&mut self, out: &mut String, owner: &str, types: &[&str]) -> Option<BTreeSet<String>> {
        let (mut hosts, mut is_there, mut aliased, before) = (BTreeSet::new(), false, false, out.len());
        for rtype in types {
            match self.asker.ask(owner, rtype) {
                Ok(answered) => {
                    // One stands beside nothing else, and what the name stands for may be another cluster by now.
                    aliased |= answered.records.iter().any(|record| record.owner == owner && record.is_alias);
                    if aliased && out.len() > before {
                        break;
                    }
                    for record in answered.records.iter().filter(|record| record.owner == owner) {
                        let _ = writeln!(out, "{}", record.text);
                        hosts.extend(record.target.clone());
                    }
                    is_there |= answered.is_there();
                    if answered.rcode == "SERVFAIL" {
                        let _ =
                            writeln!(out, "; {owner} {rtype}: SERVFAIL, a cluster that may hold it was not heard yet");
                    }
                }
                Err(error) => drop(writeln!(out, "; {owner} {rtype}: {error}")),
            }
        }
        if out.len() > before {
            self.names += 1;
        } else if is_there {
            self.hold(out, owner);
        }
        is_there.then_some(hosts)
    }
}

impl Answered {
    /// The zone has the name.
    fn is_there(&self) -> bool {
        self.rcode == "NOERROR" && self.authoritative
    }
}

fn put_set(out: &mut String, owner: &Name, set: &RrSet) {
    for rdata in &set.rdatas {
        let data = match set.rtype {
            rtype::TXT => strings(rdata),
            rtype => explain::rdata(rtype, rdata).unwrap_or_else(|| generic(rtype, rdata)),
        };
        let _ = writeln!(out, "{owner} {} IN {data}", set.ttl);
    }
}

/// Character-strings (RFC 1035 section 3.3), with what is no printable ASCII escaped.
fn strings(mut rdata: &[u8]) -> String {
    let mut out = "TXT".to_owned();
    while let Some((length, rest)) = rdata.split_first() {
        let (text, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        out.push_str(" \"");
        for octet in text {
            let _ = match octet {
                b'"' | b'\\' => write!(out, "\\{}", char::from(*octet)),
                b' '..=b'~' => write!(out, "{}", char::from(*octet)),
                _ => write!(out, "\\{octet:03}"),
            };
        }
        out.push('"');
        rdata = rest;
    }
    out
}

/// RFC 3597 section 5.
fn generic(rtype: u16, rdata: &[u8]) -> String {
    let mut out = format!("TYPE{rtype} \\# {}", rdata.len());
    if !rdata.is_empty() {
        out.push(' ');
    }
    for octet in rdata {
        let _ = write!(out, "{octet:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_that_no_type_is_known_of() {
        assert_eq!(generic(65_300, &[1, 0xAB]), "TYPE65300 \\# 2 01ab");
        assert_eq!(generic(65_300, &[]), "TYPE65300 \\# 0");
        assert_eq!(strings(b"\x03a\"b\x00\x02\\\xE4"), r#"TXT "a\"b" "" "\\\228""#);
    }
}
