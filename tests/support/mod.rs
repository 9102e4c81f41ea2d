//! A federation without sockets: a configuration, what its clusters say, and questions to the real answer function.

#![allow(dead_code, reason = "every test file is a crate of its own and uses its part of this")]

pub mod ask;
pub mod federations;
pub mod small;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use signpost::answer::{Client, Outcome, Reply, Responder, Transport};
use signpost::config::{
    Cluster, Config, DEFAULT_WEIGHT, Export, Families, Hostnames, Identity, IngressRanges, Limits, Listener, Mode,
    Namespaces, Schema, Source, Zone,
};
use signpost::model::{
    ClusterAddress, ClusterId, Exposure, Federated, Label, Port, Protocol, Region, ServiceKey, Share, View, ViewRule,
};
use signpost::table::{Publisher, Reader};
use signpost::zonefile;

/// For how long this thread was on a core: on a machine that does other things too, the clock says more about those.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

pub const ZONE: &str = "example.com";

pub const ZONE_FILE: &str = "\
$TTL 3600
@ SOA ns1 hostmaster 1 7200 900 1209600 300
@ NS ns1
@ NS ns2
ns1 A 192.0.2.1
ns2 AAAA 2001:db8::2
";

pub fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

pub fn key(namespace: &str, name: &str) -> ServiceKey {
    ServiceKey { namespace: label(namespace), name: label(name) }
}

pub fn port(name: &str, number: u16) -> Port {
    let name = (!name.is_empty()).then(|| label(name));
    Port { name, protocol: Protocol::Tcp, number: number.try_into().unwrap() }
}

pub fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|a| a.parse().unwrap()).collect()
}

pub fn load_balancer(cluster: u16, cluster_ip: &str, ingress: &[&str]) -> Share {
    Share {
        cluster: ClusterId(cluster),
        exposure: Exposure::LoadBalancer,
        cluster_address: ClusterAddress::Virtual(addresses(&[cluster_ip])),
        ingress: addresses(ingress),
        ports: vec![port("client", 2379), port("peer", 2380)],
        ready: true,
        pods: vec![],
        exported: true,
        offered: None,
        sticky: false,
        proxied: false,
        wishes: signpost::model::Wishes::default(),
        check: None,
        hostnames: vec![],
        most_ttl: None,
    }
}

pub fn cluster(name: &str, region: &str) -> Cluster {
    Cluster {
        name: label(name),
        source: Source::Manifests { directory: PathBuf::new() },
        region: Some(Region(region.into())),
        availability_zones: vec![],
        placed_by_nodes: false,
        network: None,
        client_cidrs: vec![],
        ingress: IngressRanges::default(),
        export: Export::All,
        namespaces: Namespaces::All,
        weight: DEFAULT_WEIGHT,
        voter: None,
        directives: None,
        mcs: false,
    }
}

pub fn zone(name: &str) -> Zone {
    Zone {
        name: signpost::names::Name::parse(name).unwrap(),
        schema: Schema::Federation,
        file: PathBuf::new(),
        ttl: 30,
        negative_ttl: 5,
        max_answers: 8,
        external_mode: Mode::Nearest { spare: 0 },
        internal_mode: Mode::Ordered,
        families: Families::Common,
        hostnames: Hostnames::Addresses,
        services: HashMap::new(),
    }
}

/// External, and internal to every cluster.
pub fn config(clusters: Vec<Cluster>) -> Config {
    let views = std::iter::once(View::External).chain((0..clusters.len()).map(|i| View::Internal(ClusterId(i as u16))));
    let listener = |view| Listener { address: "127.0.0.1:0".parse().unwrap(), audience: ViewRule::Fixed(view).into() };
    Config {
        path: PathBuf::new(),
        zones: vec![zone(ZONE)],
        listeners: views.map(listener).collect(),
        clusters,
        admin: None,
        identity: Identity { version: Some("v".into()), server: Some("s1".into()) },
        location: signpost::config::Location::default(),
        resolvers: vec![],
        health: None,
        state: None,
        query_log: None,
        cluster_secrets: None,
        explain_to: vec![],
        limits: Limits {
            udp_workers: 1,
            udp_receive_buffer: 0,
            tcp_connections: 1,
            tcp_connections_per_client: 1,
            tcp_idle: Duration::from_secs(1),
            tcp_idle_internal: Duration::from_secs(1),
            sync_wait: Duration::from_secs(1),
            lame_duck: Duration::ZERO,
            manifest_size: 1 << 20,
            manifest_files: 100,
            objects_per_cluster: 1000,
            endpoints_per_service: 100_000,
        },
    }
}

pub struct World {
    pub config: Arc<Config>,
    pub publisher: Publisher,
    pub reader: Reader,
    pub responder: Responder,
    /// The same without its short way: both must say the same.
    pub long_way: Responder,
}

impl World {
    pub fn new(config: Config, zone_file: &str) -> World {
        let zones: Vec<_> = config
            .zones
            .iter()
            .map(|zone| zonefile::parse(zone_file, &zone.name, "test.zone".as_ref()).unwrap())
            .collect();
        let config = Arc::new(config);
        let (publisher, reader) = Publisher::new(config.clone(), &zones, 1);
        World::over(config, publisher, reader)
    }

    pub fn over(config: Arc<Config>, publisher: Publisher, reader: Reader) -> World {
        let (responder, long_way) = (Responder::new(1), Responder::new(1).by_the_long_way());
        World { config, publisher, reader, responder, long_way }
    }

    /// All clusters are heard in full.
    pub fn synced(mut self) -> World {
        for i in 0..self.config.clusters.len() {
            self.publisher.set_synced(ClusterId(i as u16));
        }
        self
    }

    pub fn publish(&mut self, key: ServiceKey, shares: Vec<Share>) {
        let service = Federated { key, shares, imports: vec![] };
        self.publisher.publish(&service.key, Some(&service));
    }

    /// The answer's octets to a query's; `None` when nothing is sent.
    pub fn exchange(&mut self, view: View, transport: Transport, query: &[u8]) -> Option<(Vec<u8>, Outcome)> {
        self.exchange_with("127.0.0.1".parse().unwrap(), view, transport, query)
    }

    /// The same with the client at `address`.
    pub fn exchange_with(
        &mut self,
        address: IpAddr,
        view: View,
        transport: Transport,
        query: &[u8],
    ) -> Option<(Vec<u8>, Outcome)> {
        let client = Client { address, audience: ViewRule::Fixed(view).into(), transport, keepalive: 100 };
        let [answer, the_long_way] = [&mut self.responder, &mut self.long_way].map(|responder| {
            let mut buffer = vec![0; 65_535];
            buffer[..query.len()].copy_from_slice(query);
            match self.reader.with(|table| responder.answer(table, client, &mut buffer, query.len())) {
                Reply::Send { length, outcome } => {
                    buffer.truncate(usize::from(length));
                    Some((buffer, outcome))
                }
                Reply::Drop(_) => None,
            }
        });
        assert_eq!(answer, the_long_way, "the short way and the long way of {query:?}");
        answer
    }

    pub fn ask(&mut self, view: View, name: &str, rtype: RecordType) -> Message {
        let (answer, _) = self.exchange(view, Transport::Udp, &query(name, rtype, true)).expect("an answer");
        Message::from_vec(&answer).expect("an answer that parses")
    }
}

pub fn query(name: &str, rtype: RecordType, edns: bool) -> Vec<u8> {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), rtype));
    if edns {
        let mut opt = Edns::new();
        opt.set_max_payload(1232);
        message.edns = Some(opt);
    }
    message.to_vec().unwrap()
}

/// The records of a section as `dig +noall` prints them, without owner.
pub fn texts(records: &[hickory_proto::rr::Record]) -> Vec<String> {
    records.iter().map(|r| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), r.data)).collect()
}
