//! What clients get: the instance's own index and table, asked as clients ask.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name as QueryName, RecordType};

use crate::answer::{Client, Reply, Responder, Transport};
use crate::config::{Cluster, Config, Families, Hostnames, Mode, Schema, Zone};
use crate::health::Board;
use crate::index::{Index, Kind, Object, SlicePolicy, Update};
use crate::model::votes::{Endpoint, Host};
use crate::model::{
    ClusterAddress, ClusterId, Exposure, Label, Moment, Port, Protocol, Service, ServiceKey, Share, View, ViewRule,
    Wishes,
};
use crate::names::Name;
use crate::table::{Outlook, Publisher, Reader};
use crate::zonefile;

const ZONE: &str = "z.example";

pub struct Answers {
    names: Vec<Label>,
    index: Index,
    publisher: Publisher,
    reader: Reader,
    responder: Responder,
    question: Vec<u8>,
    key: ServiceKey,
}

fn label(text: &str) -> Label {
    Label::parse(text).expect("a label")
}

impl Answers {
    /// A service that is ready in all of these clusters, with so many addresses in each.
    pub fn new(names: &[Label], addresses: usize) -> Answers {
        let name = Name::parse(ZONE).expect("a name");
        let text = "@ 3600 SOA ns hostmaster 1 3600 600 86400 180\n@ 3600 NS ns\nns 3600 A 192.0.2.1\n";
        let zone = zonefile::parse(text, &name, Path::new("zone")).expect("a zone");
        let mut config = Config::of(names.iter().map(|name| Cluster::named(name.as_str())).collect());
        config.zones.push(Zone {
            name,
            schema: Schema::Federation,
            file: PathBuf::new(),
            ttl: 30,
            negative_ttl: 5,
            max_answers: 255,
            external_mode: Mode::Ordered,
            internal_mode: Mode::Ordered,
            families: Families::Common,
            hostnames: Hostnames::Addresses,
            services: Default::default(),
        });
        let (mut publisher, reader) = Publisher::new(Arc::new(config), &[zone], 1);
        let mut index = Index::new(vec![SlicePolicy::Optional; names.len()]);
        let key = ServiceKey { namespace: label("n"), name: label("web") };
        for cluster in 0..names.len() {
            let service = Service {
                key: key.clone(),
                exposure: Exposure::LoadBalancer,
                cluster_address: ClusterAddress::Virtual(vec![]),
                ingress: (0..addresses).map(|n| Ipv4Addr::new(104, 16, cluster as u8, n as u8).into()).collect(),
                hostnames: vec![],
                ports: vec![Port { name: None, protocol: Protocol::Tcp, number: 80.try_into().expect("a port") }],
                has_selector: false,
                exported: true,
                sticky: false,
                proxied: false,
                wishes: Wishes::default(),
                check: None,
            };
            let id = ClusterId(cluster as u16);
            for (kind, objects) in [(Kind::Service, vec![Object::Service(service)]), (Kind::EndpointSlice, Vec::new())]
            {
                index.apply(id, Update::Reset { kind, objects, keep: vec![] }, Moment::default());
            }
            publisher.set_synced(id);
        }
        let mut message = Message::new(1, MessageType::Query, OpCode::Query);
        let question = QueryName::from_ascii(format!("web.n.{ZONE}.")).expect("a name");
        message.add_query(Query::query(question, RecordType::A));
        let question = message.to_vec().expect("a query");
        Answers { names: names.to_vec(), index, publisher, reader, responder: Responder::new(1), question, key }
    }

    /// What a client outside is answered with now.
    pub fn answer(&mut self, board: &Board) -> BTreeSet<IpAddr> {
        let endpoint = |share: &Share, address| Endpoint {
            cluster: self.names[share.cluster.index()].clone(),
            host: Host::Address(address),
            port: share.ports[0].number,
            service: None,
        };
        let health = |share: &Share, address: IpAddr| board.health(&endpoint(share, address));
        let service = self.index.service(&self.key);
        let outlook = Outlook { health: &health, ..Outlook::FAIR };
        self.publisher.publish_with(&self.key, service.as_ref(), &outlook);
        let client = Client {
            address: Ipv4Addr::new(192, 0, 2, 9).into(),
            audience: ViewRule::Fixed(View::External).into(),
            transport: Transport::Tcp,
            keepalive: 0,
        };
        let mut buffer = vec![0; 4096];
        buffer[..self.question.len()].copy_from_slice(&self.question);
        let Answers { reader, responder, question, .. } = self;
        let reply = reader.with(|table| responder.answer(table, client, &mut buffer, question.len()));
        let Reply::Send { length, .. } = reply else { return BTreeSet::new() };
        let message = Message::from_vec(&buffer[..usize::from(length)]).expect("an answer");
        message.answers.iter().filter_map(|record| record.data.ip_addr()).collect()
    }
}
