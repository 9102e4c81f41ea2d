//! Large federations out of nothing: the same in every run, object by object, by arithmetic on numbers.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use signpost::index::{Kind, Object, Update};
use signpost::model::{ClusterAddress, Endpoint, Exposure, Label, Port, Protocol, Service, ServiceKey, Slice, Wishes};
use signpost::table::Random;

/// Services of one namespace: a team's.
const PER_NAMESPACE: u32 = 100;
/// Applications, each with many services.
const APPLICATIONS: [&str; 8] = ["orders", "cart", "payments", "search", "users", "billing", "catalog", "gateway"];
/// Name, port of the Service, port of its pods. A federation has few shapes, each many times.
const SHAPES: [&[(&str, u16, u16)]; 4] = [
    &[("http", 80, 8080)],
    &[("grpc", 9000, 9000), ("metrics", 9090, 9090)],
    &[("https", 443, 8443), ("http", 80, 8080)],
    &[("client", 2379, 2379), ("peer", 2380, 2380)],
];
/// As Kubernetes draws the ends of generated names.
const SUFFIX: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Services × clusters × endpoints: each service is a LoadBalancer in every cluster, with one slice there.
#[derive(Debug, Clone, Copy)]
pub struct World {
    pub services: u32,
    pub clusters: u16,
    pub endpoints: u8,
}

impl World {
    pub fn namespace(self, number: u32) -> String {
        format!("team-{}", number / PER_NAMESPACE)
    }

    pub fn name(self, number: u32) -> String {
        let application = APPLICATIONS[(number / 7) as usize % APPLICATIONS.len()];
        format!("{application}-{}", number % PER_NAMESPACE)
    }

    /// Every object has labels of its own, as those have that come out of a source.
    pub fn key(self, number: u32) -> ServiceKey {
        ServiceKey { namespace: label(&self.namespace(number)), name: label(&self.name(number)) }
    }

    /// The load balancer's address, which belongs to no special-purpose block.
    pub fn ingress(self, cluster: u16, number: u32) -> Ipv4Addr {
        let [_, a, b, c] = number.to_be_bytes();
        Ipv4Addr::new(50 + cluster as u8, a, b, c)
    }

    pub fn service(self, cluster: u16, number: u32) -> Service {
        let [_, a, b, c] = number.to_be_bytes();
        Service {
            key: self.key(number),
            exposure: Exposure::LoadBalancer,
            cluster_address: ClusterAddress::Virtual(vec![IpAddr::from([10, a, b, c])]),
            ingress: vec![self.ingress(cluster, number).into()],
            ports: ports(number, |(_, port, _)| port),
            has_selector: true,
            exported: true,
            sticky: false,
            proxied: false,
            wishes: Wishes::default(),
            check: None,
            hostnames: vec![],
        }
    }

    /// `ready`: of the endpoints, whatever their number. `generation` gives other pods.
    pub fn slice(self, cluster: u16, number: u32, ready: bool, generation: u32) -> Slice {
        let mut random = Random::new(u64::from(number) << 16 | u64::from(cluster));
        let suffix: String = (0..5).map(|_| char::from(SUFFIX[random.below(SUFFIX.len() as u32) as usize])).collect();
        let mut random = Random::new(random.draw() ^ u64::from(generation));
        let endpoint = |_| {
            let [a, b, c, _] = (random.draw() as u32).to_be_bytes();
            Endpoint { addresses: vec![IpAddr::from([10, a | 128, b, c])], hostname: None, ready, serving: ready }
        };
        let key = self.key(number);
        Slice {
            namespace: key.namespace,
            name: format!("{}-{suffix}", key.name).into(),
            service: key.name,
            endpoints: (0..self.endpoints).map(endpoint).collect(),
            ports: ports(number, |(_, _, target)| target),
        }
    }

    /// What a source says after its first list of a kind, or after a relist: in the order of names, as an API server lists.
    pub fn list(self, cluster: u16, kind: Kind, numbers: impl Iterator<Item = u32>) -> Update {
        let object = |number| match kind {
            Kind::Service => Object::Service(self.service(cluster, number)),
            Kind::EndpointSlice => Object::Slice(self.slice(cluster, number, true, 0)),
            other => unreachable!("no {} in this world", other.name()),
        };
        let mut numbers: Vec<u32> = numbers.collect();
        numbers.sort_by_cached_key(|number| (self.namespace(*number), self.name(*number)));
        Update::Reset { kind, objects: numbers.into_iter().map(object).collect(), keep: Vec::new() }
    }
}

fn label(text: &str) -> Label {
    Label::parse(text).expect("letters, digits and inner hyphens")
}

fn ports(number: u32, of: impl Fn((&str, u16, u16)) -> u16) -> Vec<Port> {
    let port = |&(name, port, target): &(&str, u16, u16)| Port {
        name: Some(label(name)),
        protocol: Protocol::Tcp,
        number: NonZeroU16::new(of((name, port, target))).expect("no shape has a port 0"),
    };
    SHAPES[number as usize % SHAPES.len()].iter().map(port).collect()
}
