//! A Service object with its slices joined in: readiness, and the pods of a headless one.

use std::collections::BTreeMap;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

use super::packed::{Addresses, Endpoints, Entry, Hostnames, Ports, StoredEndpoint};
use crate::model::check::Check;
use crate::model::{
    ClusterAddress, ClusterId, Endpoint, Exposure, Label, Moment, Pod, Port, Service, ServiceKey, Share, Slice, Wishes,
};

/// What a cluster holds under one service's name, read from its entry.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Joined<'a> {
    /// `None`: only slices came yet, or their Service is not exported.
    pub service: Option<Stored<'a>>,
    /// Ordered by object name.
    pub slices: Vec<StoredSlice<'a>>,
}

/// A Service object without its key.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(super) struct Stored<'a> {
    pub exposure: Exposure,
    pub is_headless: bool,
    /// None, where it is headless.
    pub cluster_addresses: Addresses<'a>,
    pub ingress: Addresses<'a>,
    pub hostnames: Hostnames<'a>,
    /// The object has no ingress any more; `ingress` and `hostnames` are what it had last, and go at this moment.
    pub ingress_until: Option<Moment>,
    pub ports: Ports<'a>,
    pub has_selector: bool,
    pub slice_wait: SliceWait,
    pub exported: bool,
    pub sticky: bool,
    pub proxied: bool,
    pub wishes: Wishes,
    /// As it is written; empty: there is none.
    pub check: &'a str,
}

/// Where a share stands that should have slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SliceWait {
    /// It has slices, needs none (no selector), or the cluster's slices were not listed yet.
    /// Exits: with a selector and no slice → `Until` if it was ready, else `Over`.
    NotNeeded,
    /// Ready, for its controller may not have come to it yet.
    /// Exits: a slice comes or the selector goes → `NotNeeded`; the moment → `Over`.
    Until(Moment),
    /// Not ready. Exits: a slice comes or the selector goes → `NotNeeded`.
    Over,
}

/// An EndpointSlice object without its namespace and service.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(super) struct StoredSlice<'a> {
    pub name: &'a str,
    pub endpoints: Endpoints<'a>,
    pub ports: Ports<'a>,
}

impl Stored<'_> {
    /// The object that it was written from.
    pub fn to_service(&self, key: &ServiceKey) -> Service {
        let ports: Vec<Port> = self.ports.iter().collect();
        Service {
            key: key.clone(),
            exposure: self.exposure,
            cluster_address: match self.is_headless {
                true => ClusterAddress::Headless,
                false => ClusterAddress::Virtual(self.cluster_addresses.iter().collect()),
            },
            ingress: self.ingress.iter().collect(),
            hostnames: self.hostnames.iter().map(Arc::from).collect(),
            has_selector: self.has_selector,
            exported: self.exported,
            sticky: self.sticky,
            proxied: self.proxied,
            wishes: self.wishes,
            check: read_check(self.check, &ports),
            ports,
        }
    }

    /// `endpoints`: of each of its slices. `sliceless_ready`: a Service without slice is ready in this cluster, whatever its
    /// selector.
    ///
    /// Two slices may hold the same address while a controller moves an endpoint between them, and the two events come
    /// one after the other. The endpoint is then ready if either copy says that it is ready and serving: a
    /// wrong "ready" ends with the second event, a wrong "not ready" would take the cluster out of answers. The two
    /// conditions are taken from one copy; mixed from both they could make an endpoint that neither calls alive.
    pub fn ready<'a>(&self, endpoints: impl Iterator<Item = Endpoints<'a>>, sliceless_ready: bool) -> bool {
        let mut endpoints = endpoints.peekable();
        if endpoints.peek().is_some() {
            return endpoints.flat_map(Endpoints::iter).any(|e| e.ready && e.serving);
        }
        let no_wait_over = match self.slice_wait {
            SliceWait::NotNeeded | SliceWait::Until(_) => true,
            SliceWait::Over => false,
        };
        !self.has_selector || sliceless_ready || no_wait_over
    }

    /// Whether the object, as just heard, is the one that is stored.
    pub fn is_from(&self, object: &Stored<'_>) -> bool {
        let ingress_same = match self.ingress_until {
            Some(_) => object.ingress.is_empty() && object.hostnames.is_empty(),
            None => object.ingress == self.ingress && object.hostnames == self.hostnames,
        };
        ingress_same
            && self.exposure == object.exposure
            && self.is_headless == object.is_headless
            && self.cluster_addresses == object.cluster_addresses
            && self.ports == object.ports
            && self.has_selector == object.has_selector
            && self.exported == object.exported
            && self.sticky == object.sticky
            && self.proxied == object.proxied
            && self.wishes == object.wishes
            && self.check == object.check
    }
}

impl StoredSlice<'_> {
    /// The object that it was written from.
    pub fn to_slice(&self, key: &ServiceKey) -> Slice {
        let endpoint = |stored: StoredEndpoint<'_>| Endpoint {
            addresses: stored.addresses.iter().collect(),
            hostname: stored.hostname.map(Label::again),
            ready: stored.ready,
            serving: stored.serving,
        };
        Slice {
            namespace: key.namespace.clone(),
            name: self.name.into(),
            service: key.name.clone(),
            endpoints: self.endpoints.iter().map(endpoint).collect(),
            ports: self.ports.iter().collect(),
        }
    }
}

/// It was written from one, with these ports.
fn read_check(text: &str, ports: &[Port]) -> Option<Arc<Check>> {
    let check = Some(text).filter(|text| !text.is_empty())?;
    Check::parse(check, ports).ok().map(Arc::new)
}

impl Joined<'_> {
    /// See [`Stored::ready`]; without a Service there is nothing to be ready.
    pub fn ready(&self, sliceless_ready: bool) -> bool {
        let endpoints = self.slices.iter().map(|slice| slice.endpoints);
        self.service.as_ref().is_some_and(|service| service.ready(endpoints, sliceless_ready))
    }

    pub fn is_headless(&self) -> bool {
        self.service.as_ref().is_some_and(|service| service.is_headless)
    }

    /// It has a selector, for which a controller makes slices, and none is there.
    pub fn lacks_slices(&self) -> bool {
        self.slices.is_empty() && self.service.as_ref().is_some_and(|service| service.has_selector)
    }

    /// Where the slice of this name is, or belongs.
    pub fn position(&self, slice: &str) -> Result<usize, usize> {
        self.slices.binary_search_by(|known| known.name.cmp(slice))
    }

    pub fn is_empty(&self) -> bool {
        self.service.is_none() && self.slices.is_empty()
    }
}

/// A service's shares, of one service after the other: their vectors are used again.
#[derive(Default)]
pub(super) struct Shares {
    pub all: Vec<Share>,
    spare: Vec<Share>,
}

impl Shares {
    /// Nothing is left of the service before.
    pub fn clear(&mut self) {
        self.spare.append(&mut self.all);
    }

    /// The share that an entry stands for; none, if it holds no Service.
    /// `offered`: see [`Share::offered`].
    pub fn push(&mut self, cluster: ClusterId, entry: &Entry, sliceless_ready: bool, offered: Option<u64>) {
        let Some(service) = entry.service() else { return };
        let mut share = self.spare.pop().unwrap_or_else(|| Share {
            cluster,
            exposure: Exposure::ClusterOnly,
            cluster_address: ClusterAddress::Headless,
            ingress: Vec::new(),
            hostnames: Vec::new(),
            most_ttl: None,
            ports: Vec::new(),
            ready: false,
            pods: Vec::new(),
            exported: true,
            offered: None,
            sticky: false,
            proxied: false,
            wishes: Wishes::default(),
            check: None,
        });
        share.cluster = cluster;
        share.exposure = service.exposure;
        share.cluster_address = match mem::replace(&mut share.cluster_address, ClusterAddress::Headless) {
            _ if service.is_headless => ClusterAddress::Headless,
            ClusterAddress::Virtual(mut addresses) => {
                addresses.clear();
                addresses.extend(service.cluster_addresses.iter());
                ClusterAddress::Virtual(addresses)
            }
            ClusterAddress::Headless => ClusterAddress::Virtual(service.cluster_addresses.iter().collect()),
        };
        share.ingress.clear();
        share.ingress.extend(service.ingress.iter());
        share.hostnames.clear();
        share.hostnames.extend(service.hostnames.iter().map(Arc::from));
        share.ports.clear();
        share.ports.extend(service.ports.iter());
        share.ready = service.ready(entry.endpoints(), sliceless_ready);
        share.exported = service.exported;
        share.offered = offered;
        share.sticky = service.sticky;
        share.proxied = service.proxied;
        share.wishes = service.wishes;
        share.check = read_check(service.check, &share.ports);
        share.pods.clear();
        if service.is_headless {
            share.pods = pods(&entry.slices().collect::<Vec<_>>());
        }
        self.all.push(share);
    }
}

/// A ready address of a headless service, joined over the slices that hold it.
#[derive(Default)]
struct Address<'a> {
    hostname: Option<&'a [u8]>,
    ports: Vec<Ports<'a>>,
}

/// The ready endpoints by hostname. An address in two slices is one endpoint, with the ports of both (slices made by
/// hand may hold one port each) and one hostname: the first given, in the order of slice names. A hostname with several
/// addresses is one pod: a dual-stack pod has a slice per family.
fn pods(slices: &[StoredSlice<'_>]) -> Vec<Pod> {
    let mut addresses: BTreeMap<IpAddr, Address<'_>> = BTreeMap::new();
    for slice in slices {
        for endpoint in slice.endpoints.iter().filter(|e| e.ready) {
            for address in endpoint.addresses.iter() {
                let joined = addresses.entry(address).or_default();
                joined.hostname = joined.hostname.or(endpoint.hostname);
                joined.ports.push(slice.ports);
            }
        }
    }
    let mut pods: BTreeMap<Label, Pod> = BTreeMap::new();
    for (address, joined) in addresses {
        let hostname = joined.hostname.map_or_else(|| dashed(address), Label::again);
        let pod = pods.entry(hostname.clone()).or_insert_with(|| Pod { hostname, addresses: vec![], ports: vec![] });
        // In order and each once, as the map is.
        pod.addresses.push(address);
        pod.ports.extend(joined.ports.into_iter().flat_map(Ports::iter));
    }
    let finish = |mut pod: Pod| {
        pod.ports.sort();
        pod.ports.dedup();
        pod
    };
    pods.into_values().map(finish).collect()
}

/// `10.0.0.1` → `10-0-0-1`, `fd00::1` → `fd00--1`. A label has no hyphen at its ends: `::1` → `0--1`, `fd00::` →
/// `fd00--0`, which are other spellings of the same addresses and so collide with no other one.
fn dashed(address: IpAddr) -> Label {
    let mut text = address.to_string().replace(['.', ':'], "-");
    if text.starts_with('-') {
        text.insert(0, '0');
    }
    if text.ends_with('-') {
        text.push('0');
    }
    Label::parse(&text).expect("at most 45 hexadecimal digits and inner hyphens")
}

#[cfg(test)]
mod tests {
    use super::super::packed::Written;
    use super::super::tests::slice;
    use super::*;

    fn pods_of(slices: &[&str]) -> Vec<String> {
        let written: Vec<Written> = slices.iter().map(|text| Written::slice(&slice(text))).collect();
        let slices: Vec<StoredSlice<'_>> = written.iter().map(Written::as_slice).collect();
        let show = |pod: Pod| {
            let ports: Vec<u16> = pod.ports.iter().map(|port| port.number.get()).collect();
            format!("{} {:?} {ports:?}", pod.hostname, pod.addresses)
        };
        pods(&slices).into_iter().map(show).collect()
    }

    #[test]
    fn pods_join_over_slices() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("none", &["s a"], &[]),
            ("ready alone counts", &["s a 10.0.0.1!ready 10.0.0.2!serving 10.0.0.3!"], &["10-0-0-2 [10.0.0.2] []"]),
            (
                "ordered by hostname, addresses sorted",
                &["s a 10.0.0.3@b 10.0.0.2@a 10.0.0.1@b port=80"],
                &["a [10.0.0.2] [80]", "b [10.0.0.1, 10.0.0.3] [80]"],
            ),
            (
                "dual stack with hostname",
                &["s a 10.0.0.1@web-0 port=80", "t a fd00::1@web-0 port=80"],
                &["web-0 [10.0.0.1, fd00::1] [80]"],
            ),
            (
                "dual stack without",
                &["s a 10.0.0.1 port=80", "t a fd00::1 port=80"],
                &["10-0-0-1 [10.0.0.1] [80]", "fd00--1 [fd00::1] [80]"],
            ),
            (
                "several addresses without hostname",
                &["s a 10.0.0.2,10.0.0.1"],
                &["10-0-0-1 [10.0.0.1] []", "10-0-0-2 [10.0.0.2] []"],
            ),
            (
                "a copy is one endpoint with the ports of both slices",
                &["s a 10.0.0.1@x port=81 port=80", "t a 10.0.0.1@x port=80 port=79"],
                &["x [10.0.0.1] [79, 80, 81]"],
            ),
            ("a copy is ready if either is", &["s a 10.0.0.1@x!", "t a 10.0.0.1@x"], &["x [10.0.0.1] []"]),
            ("the first hostname given", &["s a 10.0.0.1", "t a 10.0.0.1@x", "u a 10.0.0.1@y"], &["x [10.0.0.1] []"]),
        ];
        for (name, slices, expected) in cases {
            assert_eq!(pods_of(slices), *expected, "{name}");
        }
    }

    #[test]
    fn addresses_with_dashes() {
        let cases = [
            ("10.0.0.1", "10-0-0-1"),
            ("fd00::1", "fd00--1"),
            ("::1", "0--1"),
            ("fd00::", "fd00--0"),
            ("::", "0--0"),
            ("::ffff:10.0.0.1", "0--ffff-10-0-0-1"),
            ("2001:db8:1111:2222:3333:4444:5555:6666", "2001-db8-1111-2222-3333-4444-5555-6666"),
        ];
        for (address, expected) in cases {
            assert_eq!(dashed(address.parse().unwrap()).as_str(), expected);
        }
    }
}
