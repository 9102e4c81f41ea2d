//! Why an answer is as it is: the view and what gave it, the client's place, each candidate with its rank and the reason
//! for it, and the very answer. For people, and for programs as JSON.

mod text;

pub use text::{age, columns};

use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Question};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{Name as QueryName, RData, Record, RecordType};
use hickory_proto::serialize::binary::BinDecodable;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::answer::{Client, Reply, Responder, Transport};
use crate::config::Config;
use crate::model::{Audience, ClusterId, Label, ServiceKey, View, ViewRule};
use crate::ranking::Tier;
use crate::table::{Candidate, Origin, Reader, ServiceSight};
use crate::wire;

/// A question, and who asks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// With or without the final dot.
    pub name: String,
    /// As in `A` or `TYPE65`.
    #[serde(rename = "type", default = "address")]
    pub rtype: String,
    /// The address that the query comes from.
    pub client: Option<IpAddr>,
    /// The cluster whose internal view is asked; without it the external one.
    pub cluster: Option<String>,
    /// The client subnet (RFC 7871) that comes with the query.
    pub subnet: Option<IpNet>,
}

fn address() -> String {
    "A".to_owned()
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    #[error("{0:?} is not a name: {1}")]
    Name(String, String),
    #[error("{0:?} is not a type, as in A, AAAA, SRV or TYPE65")]
    Type(String),
    #[error("there is no cluster {0:?}")]
    Cluster(String),
    #[error("no listener gives the internal view of {0:?}: add one with `view: {{internal: {0}}}`")]
    NoView(String),
    #[error("the answer cannot be read: {0}")]
    Answer(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    pub asked: Asked,
    /// `external`, or `internal to CLUSTER`.
    pub view: String,
    /// What gave the view.
    pub view_by: String,
    pub place: Option<Place>,
    /// `None`: the name is in no zone.
    pub zone: Option<String>,
    pub service: Option<Service>,
    pub answer: Answer,
}

/// Where the client is taken to be. Only for the external view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// `the client subnet`, or `the client's address`.
    pub by: String,
    pub address: IpAddr,
    /// What holds the address, and who says so.
    pub matched: Option<Matched>,
    /// All clusters are the same from there.
    pub is_unknown: bool,
    /// SCOPE PREFIX-LENGTH of answers that go by place.
    pub scope: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Matched {
    pub prefix: IpNet,
    pub region: Option<String>,
    /// A key of the configuration, or a file.
    pub by: String,
    /// Degrees north and east, where it is known where that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latitude: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longitude: Option<f64>,
}

/// What says where a client is; `None`: nothing does. It may read files.
pub type Whereabouts = Arc<dyn Fn(&Arc<Config>, IpAddr) -> Option<Matched> + Send + Sync>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// `SERVICE.NAMESPACE`
    pub name: String,
    pub ttl: u32,
    /// Which families are answered at its own name.
    pub families: Vec<String>,
    /// The best first.
    pub candidates: Vec<Share>,
    /// Its external addresses, where they are probed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<Judged>,
    /// What operators say of it, or of clusters that have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directives: Vec<Directed>,
    /// What clusters that have it say of its load, or of theirs, as far as it counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<Told>,
    /// Of the clusters that have it, those that are watched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freshness: Vec<Freshness>,
}

/// How fresh it is what is known of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Freshness {
    pub cluster: String,
    /// Since its API said something; `None`: not since the start.
    pub heard_seconds: Option<f64>,
    /// That is so long ago that others as near come first.
    pub silent: bool,
    /// Not heard in full since the start: it is answered for as its snapshot of then has it. RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

/// A load that counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    pub cluster: String,
    /// Part of its capacity.
    pub load: f64,
    /// `annotation of NAMESPACE/SERVICE`, `ServiceLoad NAMESPACE/SERVICE`, or `ClusterLoad`, which is of all that is in the cluster.
    pub by: String,
    /// Until it expires, if it is not told again; `None`: it holds until it is changed.
    pub expires_seconds: Option<f64>,
}

/// A directive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Directed {
    pub cluster: String,
    /// `NAMESPACE/SERVICE`; `None`: of all that is in the cluster.
    pub service: Option<String>,
    /// `drain`, `force-up` or `force-down`.
    pub action: String,
    /// `scheduled`, `shifting`, `active` or `over`.
    pub phase: String,
    /// RFC 3339.
    pub from: Option<String>,
    pub until: Option<String>,
    pub reason: String,
}

/// What is known of a service beside what its answers are made from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Known {
    pub health: Vec<Judged>,
    pub directives: Vec<Directed>,
    pub loads: Vec<Told>,
    pub freshness: Vec<Freshness>,
}

/// An external address of a cluster, as it is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Judged {
    pub cluster: String,
    /// `ADDRESS:PORT`, or `NAME:PORT` of a load balancer that has a name.
    pub endpoint: String,
    /// As in the annotation `signpost.dev/probe`.
    pub probe: String,
    /// `up`, `unknown`, `suspect` or `down`.
    pub health: String,
    /// Of all voters, in their order.
    pub votes: Vec<Voted>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Voted {
    /// `None`: this instance, which decides alone.
    pub cluster: Option<String>,
    /// `up`, `down` or `abstains`.
    pub vote: String,
    /// Since its heartbeat was last seen to change.
    pub heard_seconds: Option<f64>,
}

/// Asks for the endpoints of a service.
pub type Inquire = Box<dyn Fn(ServiceKey) -> Pin<Box<dyn Future<Output = Known> + Send>> + Send + Sync>;
/// For an answer to that; an explanation without it is better than none.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    pub cluster: String,
    /// From 1; `None`: it is not answered with.
    pub band: Option<usize>,
    pub tier: String,
    /// Kilometres from the place or the cluster, where both regions are known.
    pub distance: Option<u32>,
    pub ready: bool,
    pub weight: u16,
    /// Of the answers, how many put the next band first, in percent.
    pub shed: u8,
    pub overloaded: bool,
    pub addresses: Vec<IpAddr>,
    /// Those of them that are in this very answer.
    pub answered: Vec<IpAddr>,
    /// Names that clients are sent to instead of the addresses, as CNAME and as targets of SRV.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Those of them that are in this very answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answered_aliases: Vec<String>,
    pub reason: String,
}

impl Service {
    pub fn key(&self) -> Option<ServiceKey> {
        let (name, namespace) = self.name.split_once('.')?;
        Some(ServiceKey { name: Label::parse(name).ok()?, namespace: Label::parse(namespace).ok()? })
    }

    /// Takes in what is known of it, but for clusters that do not have it.
    pub fn learn(&mut self, known: Known) {
        let Known { health, directives, mut loads, mut freshness } = known;
        let has_it = |cluster: &str| self.candidates.iter().any(|share| share.cluster == cluster);
        loads.retain(|of| has_it(&of.cluster));
        freshness.retain(|of| has_it(&of.cluster));
        (self.health, self.directives, self.loads, self.freshness) = (health, directives, loads, freshness);
    }
}

impl Share {
    /// Each thing that it gives, the names where clients are told these, and whether it is in this very answer.
    pub fn given(&self) -> Vec<(String, bool)> {
        if self.aliases.is_empty() {
            return self.addresses.iter().map(|a| (a.to_string(), self.answered.contains(a))).collect();
        }
        self.aliases.iter().map(|name| (name.clone(), self.answered_aliases.contains(name))).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub rcode: String,
    pub authoritative: bool,
    pub truncated: bool,
    /// As zone files have them.
    pub answers: Vec<String>,
    pub authority: Vec<String>,
    pub additional: Vec<String>,
}

/// Explains what a running server would answer.
pub struct Explainer {
    config: ArcSwap<Config>,
    reader: Reader,
    /// Who knows how external addresses are judged.
    inquire: Inquire,
    whereabouts: Whereabouts,
}

impl Explainer {
    pub fn new(config: Arc<Config>, reader: Reader, inquire: Inquire, whereabouts: Whereabouts) -> Arc<Explainer> {
        Arc::new(Explainer { config: ArcSwap::from(config), reader, inquire, whereabouts })
    }

    /// To be called when the table is that of another configuration.
    pub fn set_config(&self, config: Arc<Config>) {
        self.config.store(config);
    }

    pub async fn explain(&self, asked: Asked) -> Result<Explanation, ExplainError> {
        let seed = getrandom::u64().map_err(|error| ExplainError::Answer(error.to_string()))?;
        let (config, reader, whereabouts) = (self.config.load_full(), self.reader.clone(), self.whereabouts.clone());
        let explained = tokio::task::spawn_blocking(move || explain(&config, &reader, asked, seed, &whereabouts));
        let mut explanation = explained.await.map_err(|error| ExplainError::Answer(error.to_string()))??;
        if let Some(service) = &mut explanation.service
            && let Some(key) = service.key()
        {
            let inquiry = (self.inquire)(key);
            service.learn(tokio::time::timeout(PATIENCE, inquiry).await.unwrap_or_default());
        }
        Ok(explanation)
    }
}

/// Asks the table as clients do, one question after the other.
pub struct Asker {
    config: Arc<Config>,
    reader: Reader,
    client: Client,
    as_who: Asked,
    responder: Responder,
    buffer: Vec<u8>,
}

/// An answer, in parts.
pub struct Answered {
    pub rcode: String,
    pub authoritative: bool,
    /// Of the answer section.
    pub records: Vec<AnsweredRecord>,
}

pub struct AnsweredRecord {
    /// With a final dot.
    pub owner: String,
    /// As zone files have it.
    pub text: String,
    /// Of SRV.
    pub target: Option<String>,
    /// CNAME.
    pub is_alias: bool,
}

impl Asker {
    /// `as_who`: its client, cluster and subnet ask.
    pub fn new(config: &Arc<Config>, reader: Reader, as_who: &Asked) -> Result<Asker, ExplainError> {
        let client = client(config, as_who, own(config, as_who)?);
        let seed = getrandom::u64().map_err(|error| ExplainError::Answer(error.to_string()))?;
        let (responder, buffer) = (Responder::new(seed), vec![0; wire::MAX_STREAM]);
        Ok(Asker { config: config.clone(), reader, client, as_who: as_who.clone(), responder, buffer })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn ask(&mut self, name: &str, rtype: &str) -> Result<Answered, ExplainError> {
        let asked = Asked { name: name.to_owned(), rtype: rtype.to_owned(), ..self.as_who.clone() };
        let octets = query(&asked)?;
        let Asker { reader, client, responder, buffer, .. } = self;
        let reply = reader.with(|table| {
            buffer[..octets.len()].copy_from_slice(&octets);
            responder.answer(table, *client, buffer, octets.len())
        });
        let Reply::Send { length, .. } = reply else { return Err(ExplainError::Answer("nothing is sent".to_owned())) };
        let message = Message::from_vec(&buffer[..usize::from(length)])
            .map_err(|error| ExplainError::Answer(error.to_string()))?;
        let record = |record: &Record| AnsweredRecord {
            owner: record.name.to_string(),
            text: text(record),
            target: match &record.data {
                RData::SRV(srv) => Some(srv.target.to_string()),
                _ => None,
            },
            is_alias: matches!(record.data, RData::CNAME(_)),
        };
        Ok(Answered {
            rcode: rcode(&message),
            authoritative: message.metadata.authoritative,
            records: message.answers.iter().map(record).collect(),
        })
    }
}

/// Type and data in the form of zone files, for types of which that is the same everywhere. `rdata`: without compression.
pub fn rdata(rtype: u16, rdata: &[u8]) -> Option<String> {
    let rtype = RecordType::from(rtype);
    let known = [
        RecordType::A,
        RecordType::AAAA,
        RecordType::NS,
        RecordType::CNAME,
        RecordType::PTR,
        RecordType::SOA,
        RecordType::MX,
        RecordType::SRV,
    ];
    if !known.contains(&rtype) {
        return None;
    }
    let length = u16::try_from(rdata.len()).ok()?;
    // A record of the root, class IN.
    let mut octets = vec![0];
    octets.extend(u16::from(rtype).to_be_bytes());
    octets.extend([0, 1, 0, 0, 0, 0]);
    octets.extend(length.to_be_bytes());
    octets.extend(rdata);
    let record = Record::from_bytes(&octets).ok()?;
    Some(format!("{rtype} {}", record.data))
}

/// The cluster that it is asked from inside of.
fn own(config: &Config, asked: &Asked) -> Result<Option<ClusterId>, ExplainError> {
    let Some(name) = &asked.cluster else { return Ok(None) };
    let found = config.numbered().find(|(_, cluster)| cluster.name.as_str() == name);
    let id = found.map(|(id, _)| id).ok_or_else(|| ExplainError::Cluster(name.clone()))?;
    match config.views().contains(&View::Internal(id)) {
        true => Ok(Some(id)),
        false => Err(ExplainError::NoView(config.cluster(id).name.to_string())),
    }
}

/// `seed`: what is by chance in the answer, is by this. It may read files.
pub fn explain(
    config: &Arc<Config>,
    reader: &Reader,
    asked: Asked,
    seed: u64,
    whereabouts: &Whereabouts,
) -> Result<Explanation, ExplainError> {
    let own = own(config, &asked)?;
    let octets = query(&asked)?;
    let client = client(config, &asked, own);
    let mut responder = Responder::new(seed);
    let mut buffer = vec![0; wire::MAX_STREAM];
    let explained = reader.with(|table| {
        buffer[..octets.len()].copy_from_slice(&octets);
        let reply = responder.answer(table, client, &mut buffer, octets.len());
        let mut query = wire::Query::new();
        let mut request = wire::Request::default();
        let is_query = wire::parse(&octets, &mut query, &mut request);
        let subnet = is_query.ok().and_then(|()| request.edns?.subnet?.address());
        let view = table.view(client.audience.view, &client.address, subnet.is_some());
        let elsewhere = subnet.as_ref().filter(|_| client.audience.client_subnet);
        let vantage = table.vantage(view, Origin::new(elsewhere.unwrap_or(&client.address), elsewhere.is_some()));
        let zone = table.zone(&query).map(|index| table.zone_at(index));
        let service = zone.and_then(|zone| table.explain(&query, zone, vantage));
        let is_unknown = vantage.reach().windows(2).all(|pair| pair[0].tier == pair[1].tier);
        let subnet = subnet.filter(|_| client.audience.client_subnet);
        (reply, view, subnet, vantage.scope(), is_unknown, zone.map(|zone| zone.name().to_string()), service)
    });
    let (reply, view, subnet, scope, is_unknown, zone, service) = explained;
    let Reply::Send { length, .. } = reply else { return Err(ExplainError::Answer("nothing is sent".to_owned())) };
    let message =
        Message::from_vec(&buffer[..usize::from(length)]).map_err(|error| ExplainError::Answer(error.to_string()))?;
    let place = (view == View::External).then(|| {
        let address = subnet.unwrap_or(client.address).to_canonical();
        Place {
            by: if subnet.is_some() { "the client subnet" } else { "the client's address" }.to_owned(),
            address,
            matched: whereabouts(config, address),
            is_unknown,
            scope: subnet.map(|_| scope),
        }
    });
    let answer = answer(&message);
    let here = match view {
        View::Internal(id) => config.clusters.get(id.index()).and_then(|cluster| cluster.region.clone()).map(|r| r.0),
        View::External => place.as_ref().and_then(|place| place.matched.as_ref()?.region.as_deref().map(Arc::from)),
    };
    let from = From { here: here.as_deref(), is_unknown: is_unknown && view == View::External };
    let service = service.map(|sight| shares(config, sight, from, &asked, &message));
    let (view, view_by) = view_words(config, &asked, client, view);
    Ok(Explanation { asked, view, view_by, place, zone, service, answer })
}

fn query(asked: &Asked) -> Result<Vec<u8>, ExplainError> {
    let name_error = |error: String| ExplainError::Name(asked.name.clone(), error);
    let mut name = QueryName::from_ascii(&asked.name).map_err(|error| name_error(error.to_string()))?;
    name.set_fqdn(true);
    let upper = asked.rtype.to_ascii_uppercase();
    let number = upper.strip_prefix("TYPE").and_then(|number| number.parse::<u16>().ok()).map(RecordType::from);
    let rtype = number.or_else(|| RecordType::from_str(&upper).ok());
    let rtype = rtype.ok_or_else(|| ExplainError::Type(asked.rtype.clone()))?;
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.add_query(Question::query(name, rtype));
    let mut opt = Edns::new();
    opt.set_max_payload(wire::MAX_UDP as u16);
    if let Some(subnet) = asked.subnet {
        let text = subnet.trunc().to_string();
        let subnet = text.parse().map_err(|_| name_error(format!("the subnet {text} cannot be sent")))?;
        opt.options_mut().insert(EdnsOption::Subnet(subnet));
    }
    message.edns = Some(opt);
    message.to_vec().map_err(|error| name_error(error.to_string()))
}

/// By a listener as the configuration has it: the one with that view, or for an address the one that goes by it.
fn client(config: &Config, asked: &Asked, own: Option<ClusterId>) -> Client {
    let fixed = |view| config.listeners.iter().map(|l| l.audience).find(|a| a.view == ViewRule::Fixed(view));
    let by_source = || config.listeners.iter().map(|l| l.audience).find(|a| a.view == ViewRule::BySource);
    let audience = match own {
        Some(id) => Audience::from(ViewRule::Fixed(View::Internal(id))),
        None => {
            let external = fixed(View::External).or_else(by_source);
            external.unwrap_or_else(|| ViewRule::Fixed(View::External).into())
        }
    };
    let address = asked.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    Client { address, audience, transport: Transport::Tcp, keepalive: 0 }
}

fn view_words(config: &Config, asked: &Asked, client: Client, view: View) -> (String, String) {
    let words = match view {
        View::External => "external".to_owned(),
        View::Internal(id) => {
            let name = config.clusters.get(id.index()).map(|cluster| cluster.name.to_string());
            format!("internal to {}", name.unwrap_or_default())
        }
    };
    let by = match (client.audience.view, view) {
        (ViewRule::Fixed(_), View::Internal(_)) => "the listener is that cluster's".to_owned(),
        (ViewRule::Fixed(_), View::External) => "the listener is for everybody".to_owned(),
        (ViewRule::BySource, View::Internal(_)) => format!("{} is in its clientCidrs", client.address),
        (ViewRule::BySource, View::External) if asked.subnet.is_some() => "the query speaks for others".to_owned(),
        (ViewRule::BySource, View::External) => format!("{} is in no cluster's clientCidrs", client.address),
    };
    (words, by)
}

/// As zone files have it.
fn text(record: &Record) -> String {
    match &record.data {
        // Of several strings, what is between them is not seen.
        RData::TXT(text) => {
            format!("{} {} {} TXT \"{text}\"", record.name, record.ttl, record.dns_class)
        }
        _ => record.to_string(),
    }
}

fn answer(message: &Message) -> Answer {
    let texts = |records: &[Record]| records.iter().map(text).collect();
    Answer {
        rcode: rcode(message),
        authoritative: message.metadata.authoritative,
        truncated: message.metadata.truncation,
        answers: texts(&message.answers),
        authority: texts(&message.authorities),
        additional: texts(&message.additionals),
    }
}

fn rcode(message: &Message) -> String {
    let code = message.metadata.response_code;
    match u16::from(code) {
        0 => "NOERROR".to_owned(),
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        3 => "NXDOMAIN".to_owned(),
        5 => "REFUSED".to_owned(),
        _ => code.to_string(),
    }
}

/// Where it is looked at from.
#[derive(Clone, Copy)]
struct From<'a> {
    /// A region.
    here: Option<&'a str>,
    /// All clusters are the same from there.
    is_unknown: bool,
}

fn shares(config: &Config, mut sight: ServiceSight, from: From<'_>, asked: &Asked, message: &Message) -> Service {
    let From { here, is_unknown } = from;
    let in_answer: Vec<IpAddr> = message.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
    let names = |record: &Record| match &record.data {
        RData::CNAME(name) => Some(name.to_string()),
        RData::SRV(srv) => Some(srv.target.to_string()),
        _ => None,
    };
    let named: Vec<String> = message.answers.iter().filter_map(names).collect();
    let one_at_a_time =
        sight.candidates.iter().any(|c| c.sight.as_ref().is_some_and(|sight| !sight.aliases.is_empty()));
    // The bands that are in use, in order.
    let is_static = sight.is_static;
    let is_taken =
        |candidate: &Candidate| !is_static && candidate.sight.as_ref().is_some_and(|s| s.taken.contains(&true));
    let mut bands: Vec<_> =
        sight.candidates.iter().filter(|c| is_taken(c)).filter_map(|c| Some(c.sight.as_ref()?.band)).collect();
    bands.sort();
    bands.dedup();
    let others = Others {
        ready: sight.candidates.iter().any(|c| is_taken(c) && c.ready),
        undrained: sight.candidates.iter().any(|c| is_taken(c) && c.weight > 0),
        reachable: sight
            .candidates
            .iter()
            .any(|c| is_taken(c) && c.sight.as_ref().is_some_and(|s| s.down.contains(&false))),
        imported: sight.candidates.iter().any(|c| c.import && c.sight.is_some()),
    };
    // Of a question for the service's own name: pins and ports are not cut.
    let is_own =
        asked.name.to_ascii_lowercase().starts_with(&format!("{}.", sight.name)) && !message.answers.is_empty();
    let asked_family = match asked.rtype.to_ascii_uppercase().as_str() {
        "A" if is_own => Some(true),
        "AAAA" if is_own => Some(false),
        _ => None,
    };
    // As they come in a band.
    sight.candidates.sort_by_key(|candidate| {
        let sight = candidate.sight.as_ref();
        (sight.is_some_and(|s| s.silent), sight.is_some_and(|s| s.suspect), candidate.name.clone())
    });
    let mut candidates: Vec<Share> = sight
        .candidates
        .into_iter()
        .map(|candidate| {
            let there = config.clusters.iter().find(|cluster| cluster.name.as_str() == candidate.name);
            let there = there.and_then(|cluster| cluster.region.as_ref()).map(|region| &*region.0);
            let band = candidate.sight.as_ref().filter(|_| is_taken(&candidate)).map(|s| s.band);
            let band = band.map(|band| bands.partition_point(|other| *other < band) + 1);
            let addresses = candidate.sight.as_ref().map(|s| s.addresses.clone()).unwrap_or_default();
            let tier = match tier(candidate.tier) {
                None if is_unknown => "as near as all",
                None if here.is_some() && here == there => "same region",
                None => "another region",
                Some(tier) => tier,
            };
            let answered: Vec<IpAddr> = in_answer.iter().copied().filter(|a| addresses.contains(a)).collect();
            let mut reason = reason(&candidate, band, tier, others);
            if is_static {
                reason = "left out: the zone file has records of its own at this name".to_owned();
            }
            let has_family = addresses.iter().any(|address| asked_family == Some(address.is_ipv4()));
            let aliases = candidate.sight.as_ref().map(|sight| sight.aliases.clone()).unwrap_or_default();
            let answered_aliases: Vec<String> = aliases.iter().filter(|name| named.contains(name)).cloned().collect();
            if band.is_some() && !aliases.is_empty() {
                reason += "; clients are told the name of its load balancer";
            }
            if band.is_some() && asked_family.is_some() && one_at_a_time {
                if answered.is_empty() && answered_aliases.is_empty() {
                    reason += "; beside an alias one cluster is answered with at a time, and now it is another";
                }
            } else if band.is_some() && has_family && answered.is_empty() {
                reason += "; the mode and maxAnswers give nearer ones only";
            }
            Share {
                reason,
                band,
                tier: tier.to_owned(),
                distance: here.zip(there).and_then(|(here, there)| distance(config, here, there)),
                ready: candidate.ready,
                weight: match (candidate.weight, &candidate.sight) {
                    // Where they are answered with, they are equals, which is no weight to be shown.
                    (0, _) | (_, None) => candidate.weight,
                    (_, Some(sight)) => sight.weight,
                },
                shed: (u32::from(candidate.shedding.share) * 100 / 255) as u8,
                overloaded: candidate.shedding.overloaded,
                answered,
                addresses,
                aliases,
                answered_aliases,
                cluster: candidate.name,
            }
        })
        .collect();
    candidates.sort_by_key(|share| (share.band.is_none(), share.band));
    let families = ["IPv4", "IPv6"].iter().zip(sight.families).filter(|(_, has)| *has);
    let families = families.map(|(name, _)| (*name).to_owned()).collect();
    Service {
        health: Vec::new(),
        directives: Vec::new(),
        loads: Vec::new(),
        freshness: Vec::new(),
        name: sight.name,
        ttl: sight.ttl,
        families,
        candidates,
    }
}

/// What there is among those that are answered with.
#[derive(Clone, Copy)]
struct Others {
    ready: bool,
    undrained: bool,
    /// A ServiceImport.
    imported: bool,
    /// With an address that is not Down.
    reachable: bool,
}

/// Why it stands where it stands.
fn reason(candidate: &Candidate, band: Option<usize>, tier: &str, others: Others) -> String {
    let Some(sight) = &candidate.sight else {
        if candidate.import {
            return "left out: a ServiceImport is for its own cluster's clients".to_owned();
        }
        if others.imported {
            return "left out: this cluster's clients have its ServiceImport".to_owned();
        }
        return "left out: only its own clients see it, as it is not of type LoadBalancer".to_owned();
    };
    let gives_nothing = sight.addresses.is_empty() && sight.aliases.is_empty();
    let Some(band) = band else {
        return match () {
            () if gives_nothing && candidate.headless => "left out: no ready pod".to_owned(),
            () if gives_nothing => "left out: it has no address yet".to_owned(),
            () if !candidate.ready && others.ready => "left out: no ready endpoint, and others have some".to_owned(),
            () if sight.down.contains(&true) && others.reachable => {
                "left out: Down, its addresses cannot be reached from outside, and others can".to_owned()
            }
            () if candidate.weight == 0 && others.undrained => "left out: drained, and others are not".to_owned(),
            () => "left out: others have the family that is asked for".to_owned(),
        };
    };
    let mut words = vec![format!("band {band}: {tier}")];
    if candidate.import {
        words.push("the addresses of its ServiceImport".to_owned());
    }
    if sight.band.is_overloaded() {
        words.push("behind, for it is overloaded".to_owned());
    } else if candidate.shedding.overloaded {
        words.push("overloaded, as all are".to_owned());
    } else if candidate.shedding.share > 0 {
        words.push(format!("sheds {} % of its answers", u32::from(candidate.shedding.share) * 100 / 255));
    }
    if !candidate.ready {
        words.push("not ready, as none is".to_owned());
    }
    if candidate.weight == 0 {
        words.push("drained, as all are".to_owned());
    }
    for (family, _) in ["IPv4", "IPv6"].iter().zip(sight.down).filter(|(_, down)| *down) {
        words.push(format!("Down at its {family} addresses, and answered with where no other has any"));
    }
    if sight.suspect {
        words.push("suspected to be Down, so behind the others of its band".to_owned());
    }
    if sight.silent {
        words.push("its cluster's API says nothing any more, so behind those of its band that are heard".to_owned());
    }
    words.join("; ")
}

/// `None`: the tier is by distance.
fn tier(tier: Tier) -> Option<&'static str> {
    match tier {
        Tier::OWN_CLUSTER => Some("own cluster"),
        Tier::SAME_AVAILABILITY_ZONE => Some("same availability zone"),
        Tier::SAME_REGION => Some("same region"),
        _ => None,
    }
}

/// Kilometres between two regions.
fn distance(config: &Config, here: &str, there: &str) -> Option<u32> {
    let location = &config.location;
    let region = |name: &str| crate::model::Region(name.into());
    let pair = if here < there { (region(here), region(there)) } else { (region(there), region(here)) };
    let at = |name: &str| location.coordinates(&region(name));
    let said = location.distances.get(&pair).copied();
    said.or_else(|| Some(at(here)?.kilometers_to(at(there)?)))
}
