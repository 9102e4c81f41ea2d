//! Worlds, questions and whole answers, as data in `cases/*.yaml`: each case through both sources (a directory of
//! manifests, and the lists of an API server: in their shape alone, and from a real one) and both transports.

#[path = "../benches/support/bulk.rs"]
#[allow(dead_code, reason = "of the benchmarks' bulk only what puts objects into etcd is used")]
mod bulk;
mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulk::Etcd;
use common::cluster::{Cluster, Controllers, built};
use common::wait_for;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::BinDecodable;
use serde::Deserialize;
use signpost::answer::{Client, Reply, Responder, Transport};
use signpost::app::{Loaded, new_index, whereabouts};
use signpost::config::{self, Config, Source};
use signpost::explain::{self, explain};
use signpost::health::Health;
use signpost::index::{Index, Kind, Object, Update};
use signpost::load::{Loads, Origin, Rules, Subject};
use signpost::model::{ClusterId, Moment, View, ViewRule};
use signpost::source::convert::{self, Converted};
use signpost::source::places::Discovered;
use signpost::source::status::{ErrorReason, Status};
use signpost::source::{Feed, Number, kinds, kube, manifests, slim};
use signpost::table::{Outlook, Publisher, Reader};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// How often each question is asked: equal candidates come in random order, and what is expected must hold each time.
const ASKED: usize = 8;
/// Least number of cases: a file that is no longer found must not pass.
const LEAST: usize = 150;

/// A file in `cases/`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    worlds: Vec<World>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct World {
    world: String,
    #[serde(default = "federation")]
    schema: String,
    /// Keys of the zone example.com beside its name, schema and file, in YAML's flow style.
    #[serde(default)]
    zone: String,
    /// What stands under `location` in the configuration, in YAML's flow style.
    #[serde(default)]
    location: String,
    /// Records added to its zone file.
    #[serde(default)]
    records: String,
    /// Zones beside it, which are static: their zone files.
    #[serde(default)]
    other_zones: BTreeMap<String, String>,
    clusters: Vec<Member>,
    cases: Vec<Case>,
    /// Addresses that a quorum, or somebody, cannot reach.
    #[serde(default)]
    down: Vec<IpAddr>,
    #[serde(default)]
    suspect: Vec<IpAddr>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    name: String,
    /// Keys of the cluster beside its name and source, in YAML's flow style.
    #[serde(default)]
    config: String,
    #[serde(default)]
    manifests: String,
    /// It was not heard yet.
    #[serde(default)]
    missing: bool,
    /// It was heard, and says nothing any more.
    #[serde(default)]
    silent: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Case {
    case: String,
    /// Name without the zone (`@` is the zone, a final dot makes it absolute), and type.
    ask: String,
    /// `external`, a cluster's name, or the client's address on a listener that goes by it.
    #[serde(default = "external")]
    view: String,
    /// The client's address, where the listener fixes the view.
    #[serde(default = "localhost")]
    from: IpAddr,
    /// Client subnet that comes with the query.
    #[serde(default)]
    subnet: Option<String>,
    /// For how many bits of it the answer holds; 0 if nothing is said.
    #[serde(default)]
    scope: u8,
    #[serde(default = "no_error")]
    rcode: String,
    /// Records as `owner ttl type data`, `--` between bands. Inside a band any order is right.
    #[serde(default)]
    answer: String,
    #[serde(default)]
    authority: String,
    #[serde(default)]
    additional: String,
    /// Code of the extended error.
    #[serde(default)]
    error: Option<u16>,
    /// Not AA=1: delegations, and what is not answered.
    #[serde(default)]
    not_authoritative: bool,
    /// Over UDP it is TC=1 and empty.
    #[serde(default)]
    truncated: bool,
}

fn federation() -> String {
    "federation".to_owned()
}

fn external() -> String {
    "external".to_owned()
}

fn localhost() -> IpAddr {
    [127, 0, 0, 1].into()
}

fn no_error() -> String {
    "NOERROR".to_owned()
}

/// Above the 30 s for which a Service without slices is taken for ready.
const SETTLED: Duration = Duration::from_secs(31);
/// Before a load of the worlds expires that is to count, and after one that is not.
const SETTLED_LOAD: Duration = Duration::from_secs(120);

const ZONE: &str = "example.com";

const ZONE_FILE: &str = "\
$TTL 3600
@ SOA ns1 hostmaster 1 7200 900 1209600 300
@ NS ns1
ns1 A 192.0.2.1
";

/// Where a cluster's objects are read from.
#[derive(Clone, Copy)]
enum From<'a> {
    Manifests,
    /// In the shape of an API server's lists.
    Api,
    Server(&'a Server),
}

struct Running {
    config: Arc<Config>,
    reader: Reader,
    responder: Responder,
    _publisher: Publisher,
}

impl World {
    /// Writes it down as an operator would, and reads it as the program does.
    fn load(&self, directory: &Path) -> Loaded {
        let write = |name: &str, text: &str| fs::write(directory.join(name), text).expect("the folder is ours");
        write("example.com.zone", &format!("{ZONE_FILE}{}", self.records));
        let mut config =
            format!("zones:\n- {{name: {ZONE}, schema: {}, file: example.com.zone, {}}}\n", self.schema, self.zone);
        for (name, text) in &self.other_zones {
            write(&format!("{name}.zone"), text);
            writeln!(config, "- {{name: {name}, schema: static, file: {name}.zone}}").expect("a String takes all");
        }
        config += "listeners:\n- {addresses: ['127.0.0.1:1']}\n";
        if self.clusters.iter().any(|member| member.config.contains("clientCidrs")) {
            config += "- {addresses: ['127.0.0.1:2'], view: bySource}\n";
        }
        for (n, member) in self.clusters.iter().enumerate() {
            writeln!(config, "- {{addresses: ['127.0.0.1:{}'], view: {{internal: {}}}}}", n + 3, member.name)
                .expect("a String takes all");
        }
        config += "admin: off\nclusters:\n";
        for member in &self.clusters {
            fs::create_dir(directory.join(&member.name)).expect("the folder is ours");
            if !member.manifests.is_empty() {
                write(&format!("{}/all.yaml", member.name), &member.manifests);
            }
            writeln!(config, "- {{name: {0}, manifests: {0}, {1}}}", member.name, member.config)
                .expect("a String takes all");
        }
        writeln!(config, "location: {{{}}}", self.location).expect("a String takes all");
        write("signpost.yaml", &config);
        Loaded::load(&directory.join("signpost.yaml")).unwrap_or_else(|e| panic!("{}: {e}\n{config}", self.world))
    }

    fn run(&self, loaded: &Loaded, from: From<'_>) -> Running {
        let config = &loaded.config;
        let (atlas, places) = signpost::app::read_places(config);
        assert!(places.problems.is_empty(), "{}: {:?}", self.world, places.problems);
        let (mut index, mut loads) = (new_index(config), Loads::new(Rules::new(Duration::from_secs(1))));
        for (id, member) in (0..).map(ClusterId).zip(&self.clusters).filter(|(_, member)| !member.missing) {
            let objects = match from {
                From::Manifests => self.read_manifests(config, id),
                From::Api => read_api(config, id, &member.manifests),
                From::Server(server) => server.read(config, id, &member.manifests),
            };
            fill(&mut index, &mut loads, id, objects);
        }
        // Services that wait for their slices have waited: what is expected here is what stays.
        index.tick(Moment(SETTLED));
        let (mut publisher, reader) = Publisher::new(config.clone(), &loaded.zones, 1);
        publisher.set_atlas(atlas);
        for key in index.keys() {
            for share in index.service(&key).into_iter().flat_map(|service| service.shares) {
                let subject = Subject::Service(share.cluster, key.clone());
                loads.tell(&subject, share.wishes.load, Origin::Annotation, Moment::default());
            }
        }
        // What load does is done when it has been the same for long.
        while let Some(next) = loads.next_deadline().filter(|next| *next < Moment(SETTLED_LOAD)) {
            loads.tick(next);
        }
        for key in index.keys() {
            let of = |cluster| loads.of(&Subject::Service(cluster, key.clone()));
            publisher.publish_with(
                &key,
                index.service(&key).as_ref(),
                &Outlook { shedding: &of, health: &|_, address| self.health(address) },
            );
        }
        for (id, _) in config.numbered() {
            publisher.set_shedding(id, loads.of(&Subject::Cluster(id)));
            publisher.set_silent(id, self.clusters[id.index()].silent);
        }
        for (id, _) in (0..).map(ClusterId).zip(&self.clusters).filter(|(_, member)| !member.missing) {
            publisher.set_synced(id);
        }
        Running { config: config.clone(), reader, responder: Responder::new(7), _publisher: publisher }
    }

    fn health(&self, address: IpAddr) -> Health {
        match () {
            () if self.down.contains(&address) => Health::Down,
            () if self.suspect.contains(&address) => Health::Suspect,
            () => Health::Fine,
        }
    }

    fn read_manifests(&self, config: &Config, id: ClusterId) -> Vec<Object> {
        let cluster = config.cluster(id);
        let Source::Manifests { directory } = &cluster.source else { panic!("a world has only manifests") };
        let reading = manifests::read(directory, cluster, &config.limits);
        assert!(reading.problems.is_empty(), "{}: {:?}", self.world, reading.problems);
        reading.by_kind().into_values().flatten().collect()
    }
}

fn fill(index: &mut Index, loads: &mut Loads, id: ClusterId, objects: Vec<Object>) {
    for object in &objects {
        let Object::Load(report) = object else { continue };
        let subject = report.service.clone().map_or(Subject::Cluster(id), |key| Subject::Service(id, key));
        loads.tell(&subject, report.load, Origin::Object { until: Moment(report.valid) }, Moment::default());
    }
    for kind in Kind::ALL {
        let objects = objects.iter().filter(|object| object.kind() == kind).cloned().collect();
        index.apply(id, Update::Reset { kind, objects, keep: Vec::new() }, Moment::default());
    }
}

/// As JSON.
fn documents(manifests: &str) -> Vec<serde_json::Value> {
    // YAML 1.2 booleans only, or the namespace `n` would be false.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_multiple_with_options(manifests, options).expect("YAML")
}

/// The same objects as the items of an API server's lists: JSON, without apiVersion and kind.
fn read_api(config: &Config, id: ClusterId, manifests: &str) -> Vec<Object> {
    let cluster = config.cluster(id);
    let mut objects = Vec::new();
    for mut document in documents(manifests) {
        let object = document.as_object_mut().expect("an object");
        object.remove("apiVersion");
        let kind = object.remove("kind").expect("a kind");
        let json = serde_json::to_vec(&document).expect("JSON");
        let converted = match kind.as_str() {
            Some("Service") => slim::from_json(&json).map(|raw| convert::service(raw, cluster)),
            Some("EndpointSlice") => slim::from_json(&json).map(|raw| convert::slice(raw, cluster)),
            Some("ServiceExport") => slim::from_json(&json).map(|raw| convert::service_export(raw, cluster)),
            Some("ServiceLoad") => slim::from_json(&json).map(|raw| convert::service_load(raw, cluster)),
            Some("ClusterLoad") => slim::from_json(&json).map(|raw| convert::cluster_load(raw, cluster)),
            Some("ServiceImport") => slim::from_json(&json).map(|raw| convert::service_import(raw, cluster)),
            _ => panic!("{kind} in a world"),
        };
        match converted.unwrap_or_else(|error| panic!("{error:?}")) {
            Converted::Object { object, left_out } => {
                assert!(left_out.is_empty(), "{left_out:?}");
                objects.push(object);
            }
            Converted::NotExported(_) | Converted::Ignored(_) => {}
            Converted::Malformed { key, problem } => panic!("{key:?}: {problem}"),
        }
    }
    objects
}

/// One real API server, which is one cluster of a world after the other.
struct Server {
    cluster: Cluster,
    runtime: tokio::runtime::Runtime,
}

/// For what takes milliseconds, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

impl Server {
    fn start() -> Server {
        let cluster = Cluster::start_with("cases", Controllers::None);
        for directory in [Path::new(env!("CARGO_MANIFEST_DIR")).join("config/crds"), built().join("mcs-crds")] {
            cluster.kubectl(&["apply", "-f", directory.to_str().expect("UTF-8")]);
        }
        // An API server needs a moment for kinds that are new to it.
        for kind in ["serviceloads", "clusterloads", "serviceexports", "serviceimports"] {
            wait_for(kind, PATIENCE, || cluster.try_kubectl(&["get", kind, "--all-namespaces"]).map(drop));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Server { cluster, runtime }
    }

    /// Where the API server keeps objects of that kind in etcd: as JSON, which it reads as well as its own encoding, it
    /// takes them as they are, with addresses that it would not give.
    fn folder(kind: &str) -> &'static str {
        match kind {
            "Service" => "/registry/services/specs",
            "EndpointSlice" => "/registry/endpointslices",
            "ServiceExport" => "/registry/multicluster.x-k8s.io/serviceexports",
            "ServiceImport" => "/registry/multicluster.x-k8s.io/serviceimports",
            "ServiceLoad" => "/registry/signpost.dev/serviceloads",
            "ClusterLoad" => "/registry/signpost.dev/clusterloads",
            _ => panic!("{kind} in a world"),
        }
    }

    /// The manifests' objects, as the daemon's source for clusters lists them.
    fn read(&self, config: &Config, id: ClusterId, manifests: &str) -> Vec<Object> {
        let entries: Vec<bulk::Entry> = documents(manifests)
            .into_iter()
            .map(|document| {
                let text = |of: &serde_json::Value, key: &str| of[key].as_str().map(|text| format!("/{text}"));
                let metadata = &document["metadata"];
                let folder = Server::folder(document["kind"].as_str().expect("a kind"));
                let namespace = text(metadata, "namespace").unwrap_or_default();
                (format!("{folder}{namespace}{}", text(metadata, "name").expect("a name")), document.to_string())
            })
            .collect();
        let file = self.cluster.kubeconfig();
        let source = Source::Kubeconfig { file, context: None };
        let cluster = Arc::new(config::Cluster { source, ..config.cluster(id).clone() });
        self.runtime.block_on(async {
            let etcd = Etcd::of(&self.cluster).expect("etcd runs");
            etcd.put(&entries).await.expect("etcd takes them");
            let objects = tokio::time::timeout(PATIENCE, listed(cluster, config)).await.expect("it lists them");
            etcd.delete(&entries).await.expect("etcd deletes them");
            objects
        })
    }
}

/// What the source says at first.
async fn listed(cluster: Arc<config::Cluster>, config: &Config) -> Vec<Object> {
    let (sender, mut updates) = mpsc::channel(1);
    let (status, stop) = (Arc::new(Status::new(Instant::now())), CancellationToken::new());
    let mut missing = kinds(&cluster);
    let prepared = kube::prepare(&cluster).await.unwrap_or_else(|error| panic!("{error}"));
    let feed = Feed {
        cluster: Number::new(ClusterId(0)),
        config: cluster,
        updates: sender,
        status: Arc::clone(&status),
        relist: Arc::new(Notify::new()),
        discovered: Arc::new(Discovered::default()),
        stop: stop.clone(),
        limits: Arc::new(config.limits.clone()),
    };
    let source = tokio::spawn(kube::run(prepared, feed, Arc::default()));
    let mut objects = Vec::new();
    while !missing.is_empty() {
        match updates.recv().await.expect("the source runs").1 {
            Update::Reset { kind, objects: listed, .. } => {
                missing.retain(|missing| *missing != kind);
                objects.extend(listed);
            }
            other => panic!("{other:?} before all lists"),
        }
    }
    stop.cancel();
    source.await.expect("it ends");
    assert!(ErrorReason::ALL.iter().all(|reason| status.errors(*reason) == 0));
    // The API server's own Service and its slice are in no world.
    objects.retain(|object| match object {
        Object::Service(service) => service.key.name.as_str() != "kubernetes",
        Object::Slice(slice) => slice.service.as_str() != "kubernetes",
        _ => true,
    });
    objects
}

impl Case {
    fn query(&self) -> Vec<u8> {
        let (name, rtype) = self.ask.split_once(' ').expect("a name and a type");
        let name = match name {
            "@" => format!("{ZONE}."),
            absolute if absolute.ends_with('.') => absolute.to_owned(),
            relative => format!("{relative}.{ZONE}."),
        };
        let rtype = match rtype.strip_prefix("TYPE") {
            Some(number) => RecordType::from(number.parse::<u16>().expect("a number (RFC 3597)")),
            None => rtype.parse().expect("a type"),
        };
        let mut message = Message::new(1, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).expect("a name"), rtype));
        let mut opt = Edns::new();
        opt.set_max_payload(1232);
        if let Some(subnet) = &self.subnet {
            opt.options_mut().insert(EdnsOption::Subnet(subnet.parse().expect("a subnet")));
        }
        message.edns = Some(opt);
        message.to_vec().expect("a query")
    }

    /// The same for an explanation.
    fn asked(&self, config: &Config) -> Option<explain::Asked> {
        let (name, rtype) = self.ask.split_once(' ').expect("a name and a type");
        let name = match name {
            "@" => format!("{ZONE}."),
            absolute if absolute.ends_with('.') => absolute.to_owned(),
            relative => format!("{relative}.{ZONE}."),
        };
        let named = config.clusters.iter().any(|cluster| cluster.name.as_str() == self.view);
        // A listener that goes by address is explained where there is no other one.
        if self.view != "external" && !named {
            return None;
        }
        Some(explain::Asked {
            name,
            rtype: rtype.to_owned(),
            client: Some(self.from),
            cluster: named.then(|| self.view.clone()),
            subnet: self.subnet.as_ref().map(|subnet| subnet.parse().expect("a subnet")),
        })
    }

    fn client(&self, config: &Config, transport: Transport) -> Client {
        let named = config.clusters.iter().position(|cluster| cluster.name.as_str() == self.view);
        let (address, view) = match (self.view.as_str(), named) {
            ("external", _) => (self.from, ViewRule::Fixed(View::External)),
            (_, Some(n)) => (self.from, ViewRule::Fixed(View::Internal(ClusterId(n as u16)))),
            (address, None) => (address.parse().expect("a view or an address"), ViewRule::BySource),
        };
        Client { address, audience: view.into(), transport, keepalive: 100 }
    }

    fn wanted(&self, client: Client) -> Seen {
        let transport = client.transport;
        let lines = |text: &str| text.lines().map(normal).filter(|line| !line.is_empty()).collect::<Vec<_>>();
        let cut = self.truncated && transport == Transport::Udp;
        let sorted = |text: &str| if cut { Vec::new() } else { sort(lines(text)) };
        let bands = lines(&self.answer);
        let bands = bands.split(|line| line == "--").map(|band| sort(band.to_vec())).filter(|band| !band.is_empty());
        Seen {
            rcode: self.rcode.clone(),
            authoritative: !self.not_authoritative,
            truncated: cut,
            error: self.error,
            scope: self.subnet.as_ref().filter(|_| client.audience.client_subnet).map(|_| self.scope),
            answer: if cut { Vec::new() } else { bands.collect() },
            authority: sorted(&self.authority),
            additional: sorted(&self.additional),
        }
    }
}

fn normal(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn sort(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

/// A whole answer, in the form in which cases are written.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    rcode: String,
    authoritative: bool,
    truncated: bool,
    error: Option<u16>,
    /// Of a client subnet that is given back.
    scope: Option<u8>,
    /// By bands: those of the expected answer, as far as the sizes go.
    answer: Vec<Vec<String>>,
    authority: Vec<String>,
    additional: Vec<String>,
}

impl Seen {
    fn new(message: &Message, wanted: &Seen) -> Seen {
        let mut rest = message.answers.iter().map(text).collect::<Vec<_>>();
        let mut answer = Vec::new();
        for band in &wanted.answer {
            let tail = rest.split_off(band.len().min(rest.len()));
            answer.push(sort(std::mem::replace(&mut rest, tail)));
        }
        answer.push(sort(rest));
        answer.retain(|band| !band.is_empty());
        let error = message.edns.as_ref().and_then(|opt| match opt.option(EdnsCode::Unknown(15)) {
            Some(EdnsOption::Unknown(_, data)) => Some(u16::from_be_bytes([data[0], data[1]])),
            _ => None,
        });
        let scope = message.edns.as_ref().and_then(|opt| match opt.option(EdnsCode::Subnet) {
            Some(EdnsOption::Subnet(subnet)) => Some(subnet.scope_prefix()),
            _ => None,
        });
        Seen {
            rcode: rcode(message.metadata.response_code).to_owned(),
            authoritative: message.metadata.authoritative,
            truncated: message.metadata.truncation,
            error,
            scope,
            answer,
            authority: sort(message.authorities.iter().map(text).collect()),
            additional: sort(message.additionals.iter().map(text).collect()),
        }
    }

    fn lines(&self) -> Vec<String> {
        let Seen { rcode, authoritative, truncated, error, scope, .. } = self;
        let mut lines = vec![format!("{rcode} aa={authoritative} tc={truncated} error={error:?} scope={scope:?}")];
        for band in &self.answer {
            lines.push("answer band:".to_owned());
            lines.extend(band.iter().cloned());
        }
        for (title, list) in [("authority:", &self.authority), ("additional:", &self.additional)] {
            lines.push(title.to_owned());
            lines.extend(list.iter().cloned());
        }
        lines
    }
}

fn rcode(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::NotImp => "NOTIMP",
        _ => "another",
    }
}

/// A record relative to the zone, as cases have it.
fn text(record: &Record) -> String {
    let data = match &record.data {
        RData::TXT(text) => format!("\"{text}\""),
        // hickory-proto does not know DNAME's data.
        RData::Unknown { code, rdata } if u16::from(*code) == 39 => {
            Name::from_bytes(&rdata.anything).expect("a name").to_string()
        }
        other => other.to_string(),
    };
    let words = format!("{} {} {} {data}", record.name, record.ttl, record.record_type());
    words.split(' ').map(short).collect::<Vec<_>>().join(" ")
}

fn short(word: &str) -> String {
    match word.strip_suffix(&format!("{ZONE}.")) {
        Some("") => "@".to_owned(),
        Some(relative) => relative.strip_suffix('.').unwrap_or(word).to_owned(),
        None => word.to_owned(),
    }
}

/// Lines of which only one side has them are marked.
fn difference(wanted: &Seen, got: &Seen) -> String {
    let (wanted, got) = (wanted.lines(), got.lines());
    let mut text = String::new();
    let only = |mark: char, list: &[String], other: &[String], text: &mut String| {
        for line in list {
            let mark = if other.contains(line) { ' ' } else { mark };
            writeln!(text, "    {mark} {line}").expect("a String takes all");
        }
    };
    text.push_str("  want:\n");
    only('-', &wanted, &got, &mut text);
    text.push_str("  got:\n");
    only('+', &got, &wanted, &mut text);
    text
}

/// The explanation of a case says what its answer says, and its words agree with one another.
fn check_explanation(case: &Case, running: &Running) -> Result<(), String> {
    let Some(asked) = case.asked(&running.config) else { return Ok(()) };
    let explained =
        explain(&running.config, &running.reader, asked, 7, &whereabouts()).map_err(|error| format!("  {error}\n"))?;
    let client = case.client(&running.config, Transport::Tcp);
    let wanted = case.wanted(client);
    let words = |record: &String| {
        let words: Vec<&str> = record.split_whitespace().filter(|word| *word != "IN").collect();
        words.iter().map(|word| short(word)).collect::<Vec<_>>().join(" ")
    };
    let mut complaints = String::new();
    let mut complain = |text: String| writeln!(complaints, "  explained: {text}").expect("a String takes all");
    if explained.answer.rcode != wanted.rcode {
        complain(format!("{}, not {}", explained.answer.rcode, wanted.rcode));
    }
    let answers = sort(explained.answer.answers.iter().map(words).collect());
    // hickory-proto shows what it does not know in another form.
    let known = !answers.iter().any(|line| line.contains("DNAME"));
    if known && answers != sort(wanted.answer.concat()) {
        complain(format!("{answers:?}, not {:?}", wanted.answer));
    }
    if let Some(place) = &explained.place
        && wanted.answer.iter().flatten().any(|line| !line.starts_with("ns1"))
        && wanted.scope.unwrap_or(0) > 0
        && place.scope != wanted.scope
    {
        complain(format!("scope {:?}, not {:?}", place.scope, wanted.scope));
    }
    let own_name = |service: &str| case.ask.split(' ').next() == Some(service);
    for service in explained.service.iter().filter(|service| own_name(&service.name)) {
        // Bands are the case's bands: an address in one of them is explained by a candidate of that band.
        let is_static = service.candidates.iter().all(|c| c.reason.contains("zone file"));
        for (n, band) in wanted.answer.iter().enumerate().filter(|_| case.ask.ends_with(" A") && !is_static) {
            for record in band {
                let data = record.rsplit(' ').next().expect("data");
                if record.contains(" CNAME ") {
                    let told = |c: &explain::Share| c.answered_aliases.iter().any(|name| name == data);
                    if !service.candidates.iter().any(|c| told(c) && c.band.is_some_and(|band| band <= n + 1)) {
                        complain(format!("{data} by {:?}", service.candidates));
                    }
                    continue;
                }
                let address: IpAddr = data.parse().expect("an address");
                let holders: Vec<_> = service.candidates.iter().filter(|c| c.addresses.contains(&address)).collect();
                if !holders.iter().any(|c| c.answered.contains(&address) && c.band.is_some_and(|band| band <= n + 1)) {
                    complain(format!("{address} of band {} by {holders:?}", n + 1));
                }
            }
        }
        for candidate in &service.candidates {
            let left_out = candidate.reason.starts_with("left out");
            if left_out != candidate.band.is_none()
                || left_out && !candidate.answered.is_empty() && holders(service, candidate)
            {
                complain(format!("{candidate:?}"));
            }
        }
    }
    if complaints.is_empty() { Ok(()) } else { Err(format!("{complaints}{explained}")) }
}

/// Nobody else gives what is answered of it.
fn holders(service: &explain::Service, candidate: &explain::Share) -> bool {
    let others = || service.candidates.iter().filter(|other| other.cluster != candidate.cluster);
    candidate.answered.iter().any(|address| !others().any(|other| other.addresses.contains(address)))
}

fn check(case: &Case, running: &mut Running, transport: Transport) -> Result<(), String> {
    let query = case.query();
    let client = case.client(&running.config, transport);
    let wanted = case.wanted(client);
    for _ in 0..ASKED {
        let mut buffer = vec![0; 65_535];
        buffer[..query.len()].copy_from_slice(&query);
        let reply = running.reader.with(|table| running.responder.answer(table, client, &mut buffer, query.len()));
        let Reply::Send { length, .. } = reply else { return Err("  nothing is sent\n".to_owned()) };
        let message = Message::from_vec(&buffer[..usize::from(length)]).map_err(|error| format!("  {error}\n"))?;
        let got = Seen::new(&message, &wanted);
        if got != wanted {
            return Err(difference(&wanted, &got));
        }
    }
    Ok(())
}

#[test]
fn cases() {
    run_all(&[("manifests", From::Manifests), ("API", From::Api)]);
}

#[test]
fn cases_through_a_real_api_server() {
    run_all(&[("API server", From::Server(&Server::start()))]);
}

fn run_all(sources: &[(&str, From<'_>)]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> =
        fs::read_dir(&directory).expect("the cases are there").map(|e| e.expect("it can be listed").path()).collect();
    files.sort();
    let (mut count, mut failures) = (0, String::new());
    for file in files {
        let text = fs::read_to_string(&file).expect("a case file can be read");
        let parsed: File = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let file = file.file_name().expect("a file has a name").to_string_lossy().into_owned();
        for world in &parsed.worlds {
            let folder = tempfile::tempdir().expect("a temporary folder can be made");
            let loaded = world.load(folder.path());
            for (source, from) in sources {
                let mut running = world.run(&loaded, *from);
                for case in &world.cases {
                    if let Err(complaints) = check_explanation(case, &running) {
                        writeln!(
                            failures,
                            "{file}: {}: {} ({} as {}):\n{complaints}",
                            world.world, case.case, case.ask, case.view
                        )
                        .expect("a String takes all");
                    }
                }
                for (case, transport) in
                    world.cases.iter().flat_map(|case| [Transport::Udp, Transport::Tcp].map(|t| (case, t)))
                {
                    if let Err(difference) = check(case, &mut running, transport) {
                        writeln!(
                            failures,
                            "{file}: {}: {} ({} as {}, {source}, {transport:?}):\n{difference}",
                            world.world, case.case, case.ask, case.view
                        )
                        .expect("a String takes all");
                    }
                }
            }
            count += world.cases.len();
        }
    }
    println!("{count} cases");
    assert!(failures.is_empty(), "\n{failures}");
    assert!(count >= LEAST, "only {count} cases were found");
}
