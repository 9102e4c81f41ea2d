//! Random federations, and what a view must be told of them: an oracle that shares no code with the table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;
use signpost::config::{self, Cluster, Config, Families, Hostnames, IngressRanges, Mode};
use signpost::location::is_special_purpose;
use signpost::model::{
    AvailabilityZone, ClusterAddress, ClusterId, Exposure, Network, Pod, Port, Protocol, Region, ServiceKey, Share,
    View, Wishes,
};

use super::{ZONE, cluster, config, key, label, load_balancer};

pub const SERVICES: [(&str, &str); 4] = [("n0", "s0"), ("n0", "s1"), ("n1", "s0"), ("n2", "s2")];
pub const PORTS: [&str; 3] = ["", "client", "dns"];
pub const HOSTS: [&str; 3] = ["pod-a", "pod-b", "10-0-0-1"];
/// Names of the zone file that stand below services and namespaces, in half of the worlds.
pub const STATICS: &str = "x.s0.n0 TXT below\ny.z.n9 TXT deep\n";
const STATIC_NAMES: [&str; 6] = ["x.s0.n0", "s0.n0", "n0", "y.z.n9", "z.n9", "n9"];

#[derive(Debug, Clone)]
pub struct Federation {
    pub clusters: Vec<Cluster>,
    pub services: BTreeMap<ServiceKey, Vec<Share>>,
    pub families: Families,
    pub max_answers: u8,
    /// Of both views.
    pub mode: Mode,
    pub statics: bool,
    /// What the configuration says of some services.
    pub special: BTreeMap<ServiceKey, config::Service>,
}

impl Federation {
    pub fn config(&self) -> Config {
        let mut config = config(self.clusters.clone());
        config.zones[0].families = self.families;
        config.zones[0].max_answers = self.max_answers;
        config.zones[0].external_mode = self.mode;
        config.zones[0].internal_mode = self.mode;
        config.zones[0].services = self.special.clone().into_iter().collect();
        config
    }

    pub fn zone_file(&self) -> String {
        format!("{}{}", super::ZONE_FILE, if self.statics { STATICS } else { "" })
    }

    /// How many addresses of a service are answered, of which `best` are in the best band.
    fn limit(&self, special: Option<&config::Service>, view: View, best: usize, pods: bool) -> usize {
        let max_answers = special.map_or(self.max_answers, |special| special.max_answers);
        let mode = match (special, view) {
            (None, _) => self.mode,
            (Some(special), View::External) => special.external_mode,
            (Some(special), View::Internal(_)) => special.internal_mode,
        };
        let most = if pods { usize::MAX } else { usize::from(max_answers) };
        match mode {
            Mode::Ordered => most,
            Mode::Nearest { spare } => (best + usize::from(spare)).min(most),
            Mode::Single => {
                if pods {
                    best
                } else {
                    1
                }
            }
        }
    }

    pub fn views(&self) -> Vec<View> {
        let internal = (0..self.clusters.len()).map(|i| View::Internal(ClusterId(i as u16)));
        std::iter::once(View::External).chain(internal).collect()
    }
}

pub fn federations() -> impl Strategy<Value = Federation> {
    (2usize..=5).prop_flat_map(|n| {
        let clusters: Vec<_> = (0..n).map(clusters).collect();
        let services = prop::collection::btree_map(0..SERVICES.len(), any::<()>(), 1..=SERVICES.len()).prop_flat_map(
            move |keys| keys.into_keys().map(|s| shares(s, n).prop_map(move |list| (s, list))).collect::<Vec<_>>(),
        );
        let families = prop_oneof![3 => Just(Families::Common), 1 => Just(Families::Any)];
        let max_answers = prop_oneof![Just(8u8), Just(2), Just(1)];
        let special = prop::collection::vec(prop::option::weighted(0.3, special()), SERVICES.len());
        (clusters, services, families, max_answers, modes(), any::<bool>(), special).prop_map(
            |(clusters, services, families, max_answers, mode, statics, special)| Federation {
                clusters,
                services: services.into_iter().map(|(s, list)| (service_key(s), list)).collect(),
                families,
                max_answers,
                mode,
                statics,
                special: (0..).zip(special).filter_map(|(s, special)| Some((service_key(s), special?))).collect(),
            },
        )
    })
}

fn special() -> impl Strategy<Value = config::Service> {
    let ttl = prop::option::of(prop_oneof![Just(7), Just(30), Just(90)]);
    let addresses = prop::collection::vec(0u8..3, 0..3);
    (ttl, 1u8..5, modes(), modes(), addresses).prop_map(
        |(ttl, max_answers, external_mode, internal_mode, addresses)| {
            // In a range of their own; the last one is IPv6.
            let address = |n: u8| match n {
                2 => IpAddr::from([0x2600, 98, 0, 0, 0, 0, 0, 1]),
                n => IpAddr::from([104, 98, 0, n]),
            };
            let mut addresses: Vec<IpAddr> = addresses.into_iter().map(address).collect();
            addresses.sort();
            addresses.dedup();
            config::Service {
                ttl,
                max_answers,
                external_mode,
                internal_mode,
                hostnames: Hostnames::Addresses,
                addresses,
            }
        },
    )
}

fn wishes() -> impl Strategy<Value = Wishes> {
    let weight = prop_oneof![4 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(3))];
    let ttl = prop_oneof![4 => Just(None), 1 => Just(Some(5)), 1 => Just(Some(60))];
    (weight, ttl).prop_map(|(weight, ttl)| Wishes { weight, ttl, load: None })
}

fn modes() -> impl Strategy<Value = Mode> {
    prop_oneof![3 => Just(Mode::Ordered), 2 => (0u8..4).prop_map(|spare| Mode::Nearest { spare }), 1 => Just(Mode::Single)]
}

/// Load balancers with one address in each of up to 20 clusters, all alike; now and then one is not.
pub fn plain_federations() -> impl Strategy<Value = Federation> {
    prop_oneof![2usize..=5, 15usize..=20].prop_flat_map(|n| {
        let clusters: Vec<_> = (0..n).map(clusters).collect();
        let odd = prop::option::weighted(0.3, (0..SERVICES.len(), 0..n, any::<bool>()));
        let absent = prop::collection::vec(prop::collection::vec(prop::bool::weighted(0.2), n), SERVICES.len());
        (clusters, odd, absent, prop_oneof![Just(8u8), Just(2), Just(255)], modes(), any::<bool>()).prop_map(
            |(clusters, odd, absent, max_answers, mode, statics)| {
                let share = |s: usize, c: usize| {
                    let mut share =
                        load_balancer(c as u16, &format!("10.{}.{s}.1", 100 + c), &[&format!("104.1.{s}.{c}")]);
                    match odd {
                        Some((service, cluster, true)) if (s, c) == (service, cluster) => share.ready = false,
                        Some((service, cluster, false)) if (s, c) == (service, cluster) => {
                            share.ingress.push(IpAddr::from([104, 2, s as u8, c as u8]));
                        }
                        _ => {}
                    }
                    share
                };
                let shares = |s: usize| (0..absent[s].len()).filter(|&c| !absent[s][c]).map(|c| share(s, c)).collect();
                let services = (0..SERVICES.len()).map(|s| (service_key(s), shares(s)));
                let services = services.filter(|(_, shares): &(_, Vec<Share>)| !shares.is_empty()).collect();
                let families = Families::Common;
                Federation { clusters, services, families, max_answers, mode, statics, special: BTreeMap::new() }
            },
        )
    })
}

pub fn service_key(s: usize) -> ServiceKey {
    let (namespace, name) = SERVICES[s];
    key(namespace, name)
}

fn clusters(i: usize) -> impl Strategy<Value = Cluster> {
    let maybe = || prop::option::of(0u8..2);
    let weight = prop_oneof![4 => Just(100), 1 => Just(0), 1 => Just(7)];
    // A range is told to nobody, inside of clusters, or to everybody.
    let told = || 0u8..3;
    let global = prop_oneof![3 => Just(None), 1 => Just(Some(vec![])), 1 => Just(Some(vec![104, 2600]))];
    let parts = (maybe(), 0u8..4, maybe(), told(), told(), global, weight);
    parts.prop_map(move |(region, azs, network, own, shared, global, weight)| {
        let mut cluster = cluster(&format!("c{i}"), "");
        cluster.region = region.map(|r| Region(format!("r{r}").into()));
        let az = |bit: u8| (azs >> bit & 1 == 1).then(|| AvailabilityZone(format!("az{bit}").into()));
        cluster.availability_zones = (0..2).filter_map(az).collect();
        cluster.weight = weight;
        cluster.network = network.map(|n| Network(format!("net{n}").into()));
        let cidrs = [(own, format!("192.168.{i}.0/24")), (shared, "192.168.99.0/24".to_owned())];
        let told = |to: u8| {
            let cidrs = cidrs.iter().filter(move |(told, _)| *told == to);
            cidrs.map(|(_, cidr)| cidr.parse().expect("a CIDR")).collect()
        };
        let global: Option<Vec<u16>> = global;
        let global = global.map(|list| {
            let own = |kind| if kind == 104 { format!("104.{i}.0.0/16") } else { format!("2600:{i:x}::/32") };
            list.into_iter().map(|kind| own(kind).parse().expect("a CIDR")).collect()
        });
        cluster.ingress = IngressRanges { inside: told(1), everywhere: told(2), global };
        cluster
    })
}

/// The shares of service `s`, at most one for each of `n` clusters.
pub fn shares(s: usize, n: usize) -> impl Strategy<Value = Vec<Share>> {
    let list: Vec<_> = (0..n).map(|c| prop::option::weighted(0.7, share(s, c))).collect();
    list.prop_map(|list| list.into_iter().flatten().collect())
}

fn ports() -> impl Strategy<Value = Vec<Port>> {
    prop::collection::btree_map((0..PORTS.len(), 0u8..3), 1u16..5, 0..4).prop_map(|ports| {
        let port = |((name, protocol), number): ((usize, u8), u16)| Port {
            name: (!PORTS[name].is_empty()).then(|| label(PORTS[name])),
            protocol: [Protocol::Tcp, Protocol::Udp, Protocol::Sctp][usize::from(protocol)],
            number: number.try_into().expect("not 0"),
        };
        ports.into_iter().map(port).collect()
    })
}

/// Every address tells where it comes from, by its second number.
fn share(s: usize, c: usize) -> impl Strategy<Value = Share> {
    let pods = prop::collection::vec((0..HOSTS.len(), 1u8..4, ports()), 0..4);
    let ingress = prop::collection::vec(0u8..8, 0..4);
    (0u8..4, any::<bool>(), 1u8..4, ingress, any::<bool>(), pods, ports(), wishes()).prop_map(
        move |(kind, load_balancer, families, ingress, ready, pods, ports, wishes)| {
            let (s8, c8) = (s as u8, c as u8);
            let both = |families: u8, v4: Ipv4Addr, v6: Ipv6Addr| -> Vec<IpAddr> {
                let v4 = (families & 1 == 1).then_some(IpAddr::V4(v4));
                v4.into_iter().chain((families & 2 == 2).then_some(IpAddr::V6(v6))).collect()
            };
            let v6 = |head: u16, i: u8| Ipv6Addr::new(head, c as u16, 0, 0, 0, 0, s as u16, u16::from(i));
            let ingress = ingress.into_iter().enumerate().map(|(i, kind)| {
                let i = i as u8;
                match kind {
                    0 | 1 => Ipv4Addr::new(104, c8, s8, i).into(),
                    2 => v6(0x2600, i).into(),
                    // Its own range, declared or not; the one that several have; another cluster's.
                    3 => Ipv4Addr::new(192, 168, c8, s8 * 8 + i).into(),
                    4 => Ipv4Addr::new(192, 168, 99, s8).into(),
                    5 => Ipv4Addr::new(192, 168, (c8 + 1) % 5, 200).into(),
                    // Public, and the same in several clusters.
                    6 => Ipv4Addr::new(104, 99, s8, i % 2).into(),
                    _ => v6(0xfd30, i).into(),
                }
            });
            let headless = kind == 0;
            let mut pods: Vec<Pod> = pods
                .into_iter()
                .enumerate()
                .map(|(i, (host, families, ports))| Pod {
                    hostname: label(HOSTS[host]),
                    addresses: both(families, Ipv4Addr::new(10, 200 + c8, s8, i as u8), v6(0xfd20, i as u8)),
                    ports,
                })
                .collect();
            pods.sort_by(|a, b| (&a.hostname, &a.addresses).cmp(&(&b.hostname, &b.addresses)));
            Share {
                cluster: ClusterId(c as u16),
                exposure: if load_balancer { Exposure::LoadBalancer } else { Exposure::ClusterOnly },
                cluster_address: match headless {
                    true => ClusterAddress::Headless,
                    false => ClusterAddress::Virtual(both(families, Ipv4Addr::new(10, 100 + c8, s8, 1), v6(0xfd10, 1))),
                },
                ingress: if load_balancer { ingress.collect() } else { vec![] },
                ports,
                ready,
                pods: if headless { pods } else { vec![] },
                wishes,
                hostnames: vec![],
                most_ttl: None,
                exported: true,
                offered: None,
                // Which one is first is not by chance then; what is there, and in which band, is the same.
                sticky: s == 1,
                proxied: false,
                check: None,
            }
        },
    )
}

/// Whether this address may be told to this view at all, by where it comes from.
pub fn may_see(view: View, address: IpAddr, clusters: &[Cluster]) -> bool {
    let inside = |c: usize| view == View::Internal(ClusterId(c as u16));
    let network = |c: usize| match view {
        View::External => false,
        View::Internal(own) => {
            inside(c) || clusters[c].network.is_some() && clusters[own.index()].network == clusters[c].network
        }
    };
    match address {
        IpAddr::V4(a) => match a.octets() {
            // The configuration's, for services that are special.
            [104, 98, ..] => true,
            [10, c, ..] if c >= 200 => network(usize::from(c) - 200),
            [10, c, ..] => inside(usize::from(c) - 100),
            _ => clusters.iter().any(|cluster| is_told(cluster, view, address)),
        },
        IpAddr::V6(a) => match a.segments() {
            [0x2600, 98, ..] => true,
            [0xfd10, c, ..] => inside(usize::from(c)),
            [0xfd20, c, ..] => network(usize::from(c)),
            _ => clusters.iter().any(|cluster| is_told(cluster, view, address)),
        },
    }
}

/// Whether the cluster may tell the view an address of its load balancers. Its ranges are not nested in one another.
fn is_told(cluster: &Cluster, view: View, address: IpAddr) -> bool {
    let is_in = |ranges: &[IpNet]| ranges.iter().any(|range| range.contains(&address));
    let IngressRanges { everywhere, inside, global } = &cluster.ingress;
    match is_special_purpose(address) {
        true => is_in(everywhere) || view != View::External && is_in(inside),
        false => global.as_ref().is_none_or(|ranges| is_in(ranges)),
    }
}

/// A cluster's share as a view sees it.
struct Seen<'a> {
    cluster: &'a str,
    tier: u8,
    ready: bool,
    weight: u16,
    addresses: Vec<IpAddr>,
    ports: &'a [Port],
    pods: &'a [Pod],
}

/// What stands at one name: a type's data, by band.
#[derive(Debug, Default, Clone)]
pub struct Expected {
    /// Type → data → band.
    pub sets: BTreeMap<u16, BTreeMap<String, usize>>,
    /// Type → how many records are answered.
    pub limits: BTreeMap<u16, usize>,
    /// NODATA for as long as NXDOMAIN: there will be something soon.
    pub pending: bool,
    /// Of the records; 0: not looked at.
    pub ttl: u32,
}

/// Every name that exists for a view, with what stands there; names relative to the zone.
pub fn oracle(federation: &Federation, view: View) -> BTreeMap<String, Expected> {
    let mut names = BTreeMap::new();
    for (key, shares) in &federation.services {
        let special = federation.special.get(key);
        let instead = special.map_or(&[][..], |special| &special.addresses);
        let look = |share| look(share, instead, view, &federation.clusters);
        let seen: Vec<Seen<'_>> = shares.iter().filter_map(look).collect();
        if !seen.is_empty() {
            names.entry(key.namespace.to_string()).or_default();
            let wish = shares.iter().filter_map(|share| share.wishes.ttl).min();
            let ttl = special.and_then(|special| special.ttl).or(wish).unwrap_or(30);
            let limit = |best, pods| federation.limit(special, view, best, pods);
            let name = format!("{}.{}", key.name, key.namespace);
            service(&mut names, &name, &seen, federation.families, ttl, &limit);
        }
    }
    if federation.statics {
        for name in STATIC_NAMES {
            names.entry(name.to_owned()).or_default();
        }
        for (name, text) in [("x.s0.n0", "below"), ("y.z.n9", "deep")] {
            let set = BTreeMap::from([(text.to_owned(), 0)]);
            names.insert(name.to_owned(), Expected { sets: BTreeMap::from([(16, set)]), ..Expected::default() });
        }
    }
    names
}

fn look<'a>(share: &'a Share, instead: &[IpAddr], view: View, clusters: &'a [Cluster]) -> Option<Seen<'a>> {
    let there = &clusters[share.cluster.index()];
    let (own, tier, network) = match view {
        View::External => (false, 3, false),
        View::Internal(id) => {
            let here = &clusters[id.index()];
            let azs: BTreeSet<_> = here.availability_zones.iter().collect();
            let tier = match () {
                () if id == share.cluster => 0,
                () if here.region.is_none() || here.region != there.region => 3,
                () if there.availability_zones.iter().any(|az| azs.contains(az)) => 1,
                () => 2,
            };
            (id == share.cluster, tier, here.network.is_some() && here.network == there.network)
        }
    };
    let headless = share.cluster_address == ClusterAddress::Headless;
    let pods = if headless && (own || network) { &share.pods[..] } else { &[] };
    let mut addresses: Vec<IpAddr> = match &share.cluster_address {
        ClusterAddress::Virtual(addresses) if own => addresses.clone(),
        ClusterAddress::Headless if own || network => pods.iter().flat_map(|pod| pod.addresses.clone()).collect(),
        _ if !instead.is_empty() => instead.to_vec(),
        _ if share.exposure == Exposure::ClusterOnly => return None,
        _ => share.ingress.iter().copied().filter(|address| is_told(there, view, *address)).collect(),
    };
    addresses.sort();
    addresses.dedup();
    let (ready, ports) = (share.ready || !pods.is_empty(), &share.ports[..]);
    let weight = share.wishes.weight.unwrap_or(there.weight);
    Some(Seen { cluster: there.name.as_str(), tier, ready, weight, addresses, ports, pods })
}

fn service(
    names: &mut BTreeMap<String, Expected>,
    name: &str,
    seen: &[Seen<'_>],
    families: Families,
    ttl: u32,
    limit: &dyn Fn(usize, bool) -> usize,
) {
    let has = |s: &Seen<'_>, v4: bool| s.addresses.iter().any(|a| a.is_ipv4() == v4);
    let with_address: Vec<&Seen<'_>> = seen.iter().filter(|s| !s.addresses.is_empty()).collect();
    let common = [true, false].map(|v4| !with_address.is_empty() && with_address.iter().all(|s| has(s, v4)));
    let any = [true, false].map(|v4| with_address.iter().any(|s| has(s, v4)));
    let answered = match families {
        Families::Common if common != [false; 2] => common,
        Families::Common | Families::Any => any,
    };
    // The ready ones, or all; and all, too, if none of those has what is asked for. Of these the ones that are not drained, or
    // all.
    let chosen = |wanted: &dyn Fn(&Seen<'_>) -> bool| -> Vec<&Seen<'_>> {
        let mut list = with_address.clone();
        for is in [|s: &Seen<'_>| s.ready, |s: &Seen<'_>| s.weight > 0] {
            if list.iter().any(|s| is(s) && wanted(s)) {
                list.retain(|s| is(s));
            }
        }
        list
    };
    let mut here = Expected::default();
    for (i, (v4, rtype)) in [(true, 1), (false, 28)].into_iter().enumerate() {
        let list = chosen(&|s| has(s, v4));
        let bands = bands(&list);
        if answered[i] {
            let set: &mut BTreeMap<String, usize> = here.sets.entry(rtype).or_default();
            for s in &list {
                for address in s.addresses.iter().filter(|a| a.is_ipv4() == v4) {
                    let band = set.entry(address.to_string()).or_insert(usize::MAX);
                    *band = bands[&s.tier].min(*band);
                }
            }
            let best = set.values().filter(|band| Some(*band) == set.values().min()).count();
            here.limits.insert(rtype, limit(best, list.iter().any(|s| !s.pods.is_empty())));
        }
    }
    let srv = |wanted: &dyn Fn(&Port) -> bool| -> BTreeMap<String, usize> {
        let list = chosen(&|s| port_list(s).iter().any(|p| wanted(p)));
        let bands = bands(&list);
        let mut set = BTreeMap::new();
        for s in list {
            let record = |host: &str, port: &Port| {
                let (priority, weight) = (10 * bands[&s.tier], s.weight.max(1));
                format!("{priority} {weight} {} {host}{}.{name}.{ZONE}.", port.number, s.cluster)
            };
            if s.pods.is_empty() {
                set.extend(s.ports.iter().filter(|p| wanted(p)).map(|p| (record("", p), bands[&s.tier])));
            }
            for pod in s.pods {
                let host = format!("{}.", pod.hostname);
                set.extend(pod.ports.iter().filter(|p| wanted(p)).map(|p| (record(&host, p), bands[&s.tier])));
            }
        }
        set
    };
    let mut put = |sub: String, mut expected: Expected, pending: bool| {
        expected.sets.retain(|_, set| !set.is_empty());
        expected.pending = pending && expected.sets.is_empty();
        expected.ttl = ttl;
        names.insert(if sub.is_empty() { name.to_owned() } else { format!("{sub}.{name}") }, expected);
    };
    here.sets.insert(33, srv(&|_| true));
    put(String::new(), here, true);
    for port in seen.iter().flat_map(port_list) {
        let Some(port_name) = &port.name else { continue };
        let set = srv(&|p| p.name == port.name && p.protocol == port.protocol);
        put(port.protocol.label().to_owned(), Expected::default(), false);
        let expected = Expected { sets: BTreeMap::from([(33, set)]), ..Expected::default() };
        put(format!("_{port_name}.{}", port.protocol.label()), expected, true);
    }
    for s in seen {
        let sets = by_family(&s.addresses);
        let limit = |set: &BTreeMap<String, usize>| limit(set.len(), !s.pods.is_empty());
        let limits = sets.iter().map(|(&rtype, set)| (rtype, limit(set))).collect();
        put(s.cluster.to_owned(), Expected { sets, limits, ..Expected::default() }, true);
        for pod in s.pods {
            let same = s.pods.iter().filter(|other| other.hostname == pod.hostname);
            let addresses: Vec<IpAddr> = same.flat_map(|pod| pod.addresses.clone()).collect();
            let expected = Expected { sets: by_family(&addresses), ..Expected::default() };
            put(format!("{}.{}", pod.hostname, s.cluster), expected, false);
        }
    }
}

fn port_list<'a>(s: &Seen<'a>) -> Vec<&'a Port> {
    if s.pods.is_empty() { s.ports.iter().collect() } else { s.pods.iter().flat_map(|pod| &pod.ports).collect() }
}

fn bands(list: &[&Seen<'_>]) -> BTreeMap<u8, usize> {
    let tiers: BTreeSet<u8> = list.iter().map(|s| s.tier).collect();
    tiers.into_iter().enumerate().map(|(rank, tier)| (tier, rank)).collect()
}

fn by_family(addresses: &[IpAddr]) -> BTreeMap<u16, BTreeMap<String, usize>> {
    let mut sets: BTreeMap<u16, BTreeMap<String, usize>> = BTreeMap::new();
    for address in addresses {
        sets.entry(if address.is_ipv4() { 1 } else { 28 }).or_default().insert(address.to_string(), 0);
    }
    sets
}

/// Every name worth asking for, whether it exists or not, relative to the zone.
pub fn names(clusters: usize) -> Vec<String> {
    let mut names: Vec<String> =
        ["n0", "n1", "n2", "n9", "nowhere", "s9.n0", "a.b.c.d.e", "z.n9", "y.z.n9", "q.y.z.n9", "_tcp.n0", "*", "*.n0"]
            .map(str::to_owned)
            .into();
    for (namespace, name) in SERVICES {
        let service = format!("{name}.{namespace}");
        for sub in
            ["nobody", "x", "_tcp", "_udp", "_sctp", "_", "_tcp._tcp", "nobody._client._tcp", "_client", "client._tcp"]
        {
            names.push(format!("{sub}.{service}"));
        }
        for port in ["client", "dns", "other"] {
            names.extend(["_tcp", "_udp", "_sctp"].map(|protocol| format!("_{port}.{protocol}.{service}")));
        }
        for c in 0..=clusters {
            names.push(format!("c{c}.{service}"));
            names.extend(HOSTS.map(|host| format!("{host}.c{c}.{service}")));
            names.push(format!("q.pod-a.c{c}.{service}"));
        }
        names.push(service);
    }
    names
}
