//! How entries are kept: each is one piece of octets, which is read when it is asked for and written anew when it changes.
//!
//! A million services in three clusters are three million entries. As structures of vectors, most of each would be
//! pointers, capacities and what the allocator adds to every piece.
//!
//! ```text
//! entry    = length of the key (1 octet), key, run(service or nothing), run(slice)...
//! key      = namespace, 0, name, 0
//! service  = flags, [moment], [moment], [wishes], [run(run(hostname)...)], run(address...), run(address...), run(port...)
//! wishes   = flags (three of them: not exported by rule, sticky, proxied), [weight], [ttl], [load], [run(check)]
//! slice    = run(name), run(endpoint...), run(port...)
//! endpoint = flags, [run(hostname)], run(address...)
//! address  = 4 or 6, its octets
//! port     = length of the name and protocol (1 octet), number, name
//! run(x)   = length of x (7 bits an octet, the low ones first), x
//! ```
//!
//! Keys sort as [`ServiceKey`]s do: no label holds an octet 0.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::hint;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::time::Duration;

use foldhash::quality::FixedState;

use super::share::{Joined, SliceWait, Stored, StoredSlice};
use crate::model::{
    ClusterAddress, Endpoint, Exposure, Label, Load, Moment, Port, Protocol, Service, ServiceKey, Slice, Wishes,
};

/// The entries of a cluster.
#[derive(Debug)]
pub(super) struct Entries(HashSet<Entry, FixedState>);

impl Entries {
    pub fn new(seed: u64) -> Entries {
        Entries(HashSet::with_hasher(FixedState::with_seed(seed)))
    }

    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.0.get(key.octets())
    }

    /// What is there, or nothing to begin with.
    pub fn read(&self, key: &Key) -> Joined<'_> {
        self.get(key).map(Entry::read).unwrap_or_default()
    }

    /// `entry` comes from [`Entry::write`]; `None` where nothing is left.
    pub fn put(&mut self, key: &Key, entry: Option<Entry>) {
        match entry {
            Some(entry) => drop(self.0.replace(entry)),
            None => drop(self.0.take(key.octets())),
        }
    }

    /// Looks for entries that will be asked for. Each is a cache miss or more; memory answers several at a time.
    pub fn warm(&self, keys: &[Key]) {
        for key in keys {
            hint::black_box(self.get(key));
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn reserve(&mut self, more: usize) {
        self.0.reserve(more);
    }

    /// In no order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }
}

/// A [`ServiceKey`] as it is looked up.
pub(super) struct Key {
    octets: [u8; 2 * (MAX_LABEL + 1)],
    length: usize,
}

const MAX_LABEL: usize = 63;

impl Key {
    pub fn of(key: &ServiceKey) -> Key {
        Key::of_labels(&key.namespace, &key.name)
    }

    pub fn of_labels(namespace: &Label, name: &Label) -> Key {
        Key::from_octets(namespace.as_bytes(), name.as_bytes()).expect("labels have at most 63 octets")
    }

    /// `None`: too long for labels. What is no label for another reason is the key of no entry.
    pub fn from_octets(namespace: &[u8], name: &[u8]) -> Option<Key> {
        if namespace.len() > MAX_LABEL || name.len() > MAX_LABEL {
            return None;
        }
        let mut octets = [0; 2 * (MAX_LABEL + 1)];
        octets[..namespace.len()].copy_from_slice(namespace);
        let at = namespace.len() + 1;
        octets[at..at + name.len()].copy_from_slice(name);
        Some(Key { octets, length: at + name.len() + 1 })
    }

    fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }
}

/// What a cluster holds under one service's name.
#[derive(Debug)]
pub(super) struct Entry(Box<[u8]>);

impl Borrow<[u8]> for Entry {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl Entry {
    /// `None`: there is nothing to keep.
    /// `out` is where it is put together, since what is kept has no room to spare.
    pub fn write(key: &Key, joined: &Joined<'_>, out: &mut Vec<u8>) -> Option<Entry> {
        if joined.is_empty() {
            return None;
        }
        out.clear();
        out.push(key.length as u8);
        out.extend_from_slice(key.octets());
        run(out, |out| {
            if let Some(service) = &joined.service {
                write_stored(out, service);
            }
        });
        for slice in &joined.slices {
            run(out, |out| write_slice(out, slice));
        }
        Some(Entry(out.as_slice().into()))
    }

    pub fn read(&self) -> Joined<'_> {
        Joined { service: self.service(), slices: self.slices().collect() }
    }

    pub fn service(&self) -> Option<Stored<'_>> {
        let service = self.content().run();
        (!service.is_empty()).then(|| read_stored(service))
    }

    pub fn slices(&self) -> impl Iterator<Item = StoredSlice<'_>> {
        items(self.after_service(), |octets| read_slice(octets.run()))
    }

    /// Those of each slice: without the rest of the slice, which readiness does not depend on.
    pub fn endpoints(&self) -> impl Iterator<Item = Endpoints<'_>> {
        items(self.after_service(), |octets| {
            let mut slice = Octets(octets.run());
            slice.run();
            Endpoints(slice.run())
        })
    }

    fn after_service(&self) -> &[u8] {
        let mut content = self.content();
        content.run();
        content.0
    }

    pub fn has_service(&self) -> bool {
        !self.content().run().is_empty()
    }

    /// Namespace and name.
    pub fn labels(&self) -> (&[u8], &[u8]) {
        let key = self.key();
        let end = key.iter().position(|octet| *octet == 0).expect("a key has two labels");
        (&key[..end], &key[end + 1..key.len() - 1])
    }

    pub fn service_key(&self) -> ServiceKey {
        let (namespace, name) = self.labels();
        ServiceKey { namespace: Label::again(namespace), name: Label::again(name) }
    }

    pub fn key(&self) -> &[u8] {
        &self.0[1..1 + usize::from(self.0[0])]
    }

    /// The beginning of the key, which sorts as keys do. A million keys lie in a million places: comparing what is at
    /// hand takes a tenth of the time. Most keys are not longer.
    fn head(&self) -> Head {
        let key = self.key();
        let mut head = [0; 32];
        let length = key.len().min(head.len());
        head[..length].copy_from_slice(&key[..length]);
        let (halves, _) = head.as_chunks::<16>();
        [u128::from_be_bytes(halves[0]), u128::from_be_bytes(halves[1])]
    }

    fn content(&self) -> Octets<'_> {
        Octets(&self.0[1 + usize::from(self.0[0])..])
    }
}

/// The keys of those entries of one cluster that hold a Service, in order. `expected`: about how many they are.
pub(super) fn service_keys<'a>(entries: impl Iterator<Item = &'a Entry>, expected: usize) -> Vec<ServiceKey> {
    let with_service = entries.filter(|entry| entry.has_service());
    // Room at once: growing would leave its steps behind, and of a million services they are large.
    let mut entries: Vec<(Head, &Entry)> = Vec::with_capacity(expected);
    entries.extend(with_service.map(|entry| (entry.head(), entry)));
    entries.sort_unstable_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.key().cmp(other.key())));
    entries.into_iter().map(|(head, entry)| key_of_head(head).unwrap_or_else(|| entry.service_key())).collect()
}

type Head = [u128; 2];

/// `None`: the key is longer than its head, for the end of its second label is not in it.
fn key_of_head(head: Head) -> Option<ServiceKey> {
    let octets = head.map(u128::to_be_bytes);
    let mut labels = octets.as_flattened().split(|octet| *octet == 0);
    let (namespace, name, _) = (labels.next()?, labels.next()?, labels.next()?);
    Some(ServiceKey { namespace: Label::again(namespace), name: Label::again(name) })
}

fn text(octets: &[u8]) -> &str {
    std::str::from_utf8(octets).expect("it was text when it was written")
}

/// An object in the form in which entries are kept, to be compared with what is there.
pub(super) struct Written(Vec<u8>);

impl Written {
    pub fn service(service: &Service) -> Written {
        let mut out = Vec::with_capacity(128);
        let Service {
            key: _,
            exposure,
            cluster_address,
            ingress,
            hostnames,
            ports,
            has_selector,
            exported,
            sticky,
            proxied,
            wishes,
            check,
        } = service;
        let check = check.as_ref().map(ToString::to_string).unwrap_or_default();
        let (exported, sticky, proxied) = (*exported, *sticky, *proxied);
        let rare = Rare { wishes: *wishes, exported, sticky, proxied, check: &check };
        let cluster_addresses = match cluster_address {
            ClusterAddress::Virtual(addresses) => &addresses[..],
            ClusterAddress::Headless => &[],
        };
        out.push(flags(&[
            (LOAD_BALANCER, *exposure == Exposure::LoadBalancer),
            (HEADLESS, *cluster_address == ClusterAddress::Headless),
            (SELECTOR, *has_selector),
            (WISHES, rare != Rare::NONE),
            (HOSTNAMES, !hostnames.is_empty()),
        ]));
        rare.write(&mut out);
        if !hostnames.is_empty() {
            let name = |out: &mut Vec<u8>, name: &str| run(out, |out| out.extend_from_slice(name.as_bytes()));
            run(&mut out, |out| hostnames.iter().for_each(|hostname| name(out, hostname)));
        }
        run(&mut out, |out| cluster_addresses.iter().for_each(|address| write_address(out, *address)));
        run(&mut out, |out| ingress.iter().for_each(|address| write_address(out, *address)));
        run(&mut out, |out| ports.iter().for_each(|port| write_port(out, port)));
        Written(out)
    }

    /// Without its namespace and its service.
    pub fn slice(slice: &Slice) -> Written {
        let mut out = Vec::with_capacity(128);
        run(&mut out, |out| out.extend_from_slice(slice.name.as_bytes()));
        run(&mut out, |out| slice.endpoints.iter().for_each(|endpoint| write_endpoint(out, endpoint)));
        run(&mut out, |out| slice.ports.iter().for_each(|port| write_port(out, port)));
        Written(out)
    }

    /// A Service that has waited for nothing yet.
    pub fn as_service(&self) -> Stored<'_> {
        read_stored(&self.0)
    }

    pub fn as_slice(&self) -> StoredSlice<'_> {
        read_slice(&self.0)
    }
}

const LOAD_BALANCER: u8 = 1;
const HEADLESS: u8 = 1 << 1;
const SELECTOR: u8 = 1 << 2;
const INGRESS_UNTIL: u8 = 1 << 3;
const WAITS: u8 = 1 << 4;
const WAIT_OVER: u8 = 1 << 5;
const WISHES: u8 = 1 << 6;
const HOSTNAMES: u8 = 1 << 7;

const WEIGHT: u8 = 1;
const TTL: u8 = 1 << 1;
const LOAD: u8 = 1 << 2;
/// Not exported, unless a ServiceExport says so.
const HIDDEN: u8 = 1 << 3;
const STICKY: u8 = 1 << 4;
const PROXIED: u8 = 1 << 5;
const CHECK: u8 = 1 << 6;

const READY: u8 = 1;
const SERVING: u8 = 1 << 1;
const HOSTNAME: u8 = 1 << 2;

fn flags(set: &[(u8, bool)]) -> u8 {
    set.iter().filter(|(_, on)| *on).fold(0, |flags, (flag, _)| flags | flag)
}

fn write_stored(out: &mut Vec<u8>, service: &Stored<'_>) {
    let Stored {
        exposure,
        is_headless,
        has_selector,
        cluster_addresses,
        ingress,
        hostnames,
        ports,
        exported,
        sticky,
        proxied,
        wishes,
        check,
        ..
    } = service;
    let (exported, sticky, proxied) = (*exported, *sticky, *proxied);
    let rare = Rare { wishes: *wishes, exported, sticky, proxied, check };
    let until = match service.slice_wait {
        SliceWait::Until(at) => Some(at),
        SliceWait::NotNeeded | SliceWait::Over => None,
    };
    out.push(flags(&[
        (LOAD_BALANCER, *exposure == Exposure::LoadBalancer),
        (HEADLESS, *is_headless),
        (SELECTOR, *has_selector),
        (INGRESS_UNTIL, service.ingress_until.is_some()),
        (WAITS, until.is_some()),
        (WAIT_OVER, service.slice_wait == SliceWait::Over),
        (WISHES, rare != Rare::NONE),
        (HOSTNAMES, !hostnames.is_empty()),
    ]));
    for moment in [service.ingress_until, until].into_iter().flatten() {
        out.extend_from_slice(&moment.0.as_secs().to_le_bytes());
        out.extend_from_slice(&moment.0.subsec_nanos().to_le_bytes());
    }
    rare.write(out);
    if !hostnames.is_empty() {
        run(out, |out| out.extend_from_slice(hostnames.0));
    }
    for list in [cluster_addresses.0, ingress.0, ports.0] {
        run(out, |out| out.extend_from_slice(list));
    }
}

/// What most services have not.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Rare<'a> {
    wishes: Wishes,
    exported: bool,
    sticky: bool,
    proxied: bool,
    /// Empty: there is none.
    check: &'a str,
}

impl<'a> Rare<'a> {
    const NONE: Rare<'static> = Rare {
        wishes: Wishes { weight: None, ttl: None, load: None },
        exported: true,
        sticky: false,
        proxied: false,
        check: "",
    };

    /// Nothing, if there is none of it.
    fn write(&self, out: &mut Vec<u8>) {
        let Wishes { weight, ttl, load } = self.wishes;
        let flags = flags(&[
            (WEIGHT, weight.is_some()),
            (TTL, ttl.is_some()),
            (LOAD, load.is_some()),
            (HIDDEN, !self.exported),
            (STICKY, self.sticky),
            (PROXIED, self.proxied),
            (CHECK, !self.check.is_empty()),
        ]);
        if flags == 0 {
            return;
        }
        out.push(flags);
        out.extend(weight.iter().flat_map(|weight| weight.to_le_bytes()));
        out.extend(ttl.iter().flat_map(|ttl| ttl.to_le_bytes()));
        out.extend(load.iter().flat_map(|load| load.ten_thousandths().to_le_bytes()));
        if !self.check.is_empty() {
            run(out, |out| out.extend_from_slice(self.check.as_bytes()));
        }
    }

    fn read(octets: &mut Octets<'a>) -> Rare<'a> {
        let flags = octets.octet();
        let has = |flag: u8| flags & flag != 0;
        let wishes = Wishes {
            weight: has(WEIGHT).then(|| u16::from_le_bytes(octets.array())),
            ttl: has(TTL).then(|| u32::from_le_bytes(octets.array())),
            load: has(LOAD).then(|| Load::again(u16::from_le_bytes(octets.array()))),
        };
        let check = if has(CHECK) { text(octets.run()) } else { "" };
        Rare { wishes, exported: !has(HIDDEN), sticky: has(STICKY), proxied: has(PROXIED), check }
    }
}

fn read_stored(octets: &[u8]) -> Stored<'_> {
    let mut octets = Octets(octets);
    let flags = octets.octet();
    let has = |flag: u8| flags & flag != 0;
    let ingress_until = has(INGRESS_UNTIL).then(|| octets.moment());
    let slice_wait = match (has(WAITS), has(WAIT_OVER)) {
        (true, _) => SliceWait::Until(octets.moment()),
        (false, true) => SliceWait::Over,
        (false, false) => SliceWait::NotNeeded,
    };
    let Rare { wishes, exported, sticky, proxied, check } =
        if has(WISHES) { Rare::read(&mut octets) } else { Rare::NONE };
    let hostnames = Hostnames(if has(HOSTNAMES) { octets.run() } else { &[] });
    Stored {
        exposure: if has(LOAD_BALANCER) { Exposure::LoadBalancer } else { Exposure::ClusterOnly },
        is_headless: has(HEADLESS),
        cluster_addresses: Addresses(octets.run()),
        ingress: Addresses(octets.run()),
        hostnames,
        ingress_until,
        ports: Ports(octets.run()),
        has_selector: has(SELECTOR),
        slice_wait,
        exported,
        sticky,
        proxied,
        wishes,
        check,
    }
}

fn write_slice(out: &mut Vec<u8>, slice: &StoredSlice<'_>) {
    for part in [slice.name.as_bytes(), slice.endpoints.0, slice.ports.0] {
        run(out, |out| out.extend_from_slice(part));
    }
}

fn read_slice(octets: &[u8]) -> StoredSlice<'_> {
    let mut octets = Octets(octets);
    StoredSlice { name: text(octets.run()), endpoints: Endpoints(octets.run()), ports: Ports(octets.run()) }
}

fn write_endpoint(out: &mut Vec<u8>, endpoint: &Endpoint) {
    let Endpoint { addresses, hostname, ready, serving } = endpoint;
    out.push(flags(&[(READY, *ready), (SERVING, *serving), (HOSTNAME, hostname.is_some())]));
    if let Some(hostname) = hostname {
        run(out, |out| out.extend_from_slice(hostname.as_bytes()));
    }
    run(out, |out| addresses.iter().for_each(|address| write_address(out, *address)));
}

fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            out.push(4);
            out.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            out.push(6);
            out.extend_from_slice(&address.octets());
        }
    }
}

/// A label has at most 63 octets, which is six bits: the protocol has room above them.
fn write_port(out: &mut Vec<u8>, port: &Port) {
    let name = port.name.as_ref().map_or(&[][..], Label::as_bytes);
    out.push(name.len() as u8 | (port.protocol as u8) << 6);
    out.extend_from_slice(&port.number.get().to_be_bytes());
    out.extend_from_slice(name);
}

/// A list of addresses in an entry, in its object's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Addresses<'a>(&'a [u8]);

impl<'a> Addresses<'a> {
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(self) -> impl Iterator<Item = IpAddr> + use<'a> {
        items(self.0, |octets| match octets.octet() {
            4 => Ipv4Addr::from(octets.array::<4>()).into(),
            _ => Ipv6Addr::from(octets.array::<16>()).into(),
        })
    }
}

/// A list of names of load balancers in an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Hostnames<'a>(&'a [u8]);

impl<'a> Hostnames<'a> {
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        items(self.0, |octets| text(octets.run()))
    }
}

/// A list of ports in an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports<'a>(&'a [u8]);

impl<'a> Ports<'a> {
    pub fn iter(self) -> impl Iterator<Item = Port> + use<'a> {
        items(self.0, |octets| {
            let first = octets.octet();
            let number = u16::from_be_bytes(octets.array());
            let name = octets.take(usize::from(first & 0x3F));
            Port {
                name: (!name.is_empty()).then(|| Label::again(name)),
                protocol: Protocol::ALL[usize::from(first >> 6)],
                number: NonZeroU16::new(number).expect("it was a port when it was written"),
            }
        })
    }
}

/// The endpoints of a slice in an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Endpoints<'a>(&'a [u8]);

/// [`Endpoint`] in an entry.
pub(super) struct StoredEndpoint<'a> {
    pub addresses: Addresses<'a>,
    pub hostname: Option<&'a [u8]>,
    pub ready: bool,
    pub serving: bool,
}

impl<'a> Endpoints<'a> {
    /// There are not more than so many: each takes flags, a length, and an IPv4 address at least.
    pub fn most(self) -> usize {
        self.0.len() / 7
    }

    pub fn iter(self) -> impl Iterator<Item = StoredEndpoint<'a>> {
        items(self.0, |octets| {
            let flags = octets.octet();
            let has = |flag: u8| flags & flag != 0;
            let hostname = has(HOSTNAME).then(|| octets.run());
            let addresses = Addresses(octets.run());
            StoredEndpoint { addresses, hostname, ready: has(READY), serving: has(SERVING) }
        })
    }
}

fn items<'a, T>(octets: &'a [u8], read: impl Fn(&mut Octets<'a>) -> T) -> impl Iterator<Item = T> {
    let mut octets = Octets(octets);
    std::iter::from_fn(move || (!octets.is_empty()).then(|| read(&mut octets)))
}

/// What is still to be read. Nothing but what this module wrote is read here.
struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().expect("as long as was asked for")
    }

    fn octet(&mut self) -> u8 {
        let [octet] = self.array();
        octet
    }

    fn moment(&mut self) -> Moment {
        let seconds = u64::from_le_bytes(self.array());
        Moment(Duration::new(seconds, u32::from_le_bytes(self.array())))
    }

    fn run(&mut self) -> &'a [u8] {
        let (mut length, mut shift) = (0, 0);
        loop {
            let octet = self.octet();
            length |= usize::from(octet & 0x7F) << shift;
            shift += 7;
            if octet & 0x80 == 0 {
                return self.take(length);
            }
        }
    }
}

/// Writes what `write` writes, with its length before it.
fn run(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(0);
    write(out);
    let mut length = out.len() - at - 1;
    let mut end = at;
    // Nearly every run is shorter than 128 octets; a longer one moves up.
    while length >= 0x80 {
        out[end] = length as u8 | 0x80;
        length >>= 7;
        end += 1;
        out.insert(end, 0);
    }
    out[end] = length as u8;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::{at, key, service, slice};
    use super::*;
    use crate::model::check::Check;

    fn check(text: &str) -> Option<Arc<Check>> {
        Some(Arc::new(Check::parse(text, &service("a port=80").ports).unwrap()))
    }

    /// Writes an entry and reads it again.
    fn assert_kept(joined: &Joined<'_>) {
        let entry = Entry::write(&Key::of(&key("a")), joined, &mut vec![1, 2, 3]).expect("it is not empty");
        assert_eq!(entry.labels(), (&b"ns"[..], &b"a"[..]));
        assert_eq!(entry.has_service(), joined.service.is_some());
        assert_eq!(entry.read(), *joined);
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let services = [
            service("a"),
            service("a lb=1.1.1.1,2600::1 port=80"),
            service("a lb headless noselector"),
            service("a lb=1.1.1.1 weight=0 ttl=86400 load=0.75"),
            service("a port=80 ttl=5"),
            service("a lb=1.1.1.1 host=a.example,b.example load=0.5"),
            Service { exported: false, ..service("a port=80") },
            Service { exported: false, ..service("a load=0.5") },
            Service { sticky: true, ..service("a port=80") },
            Service { proxied: true, ..service("a port=80") },
            Service { check: check("https path=/healthz port=80"), ..service("a port=80 load=0.5") },
            Service { check: check("none"), sticky: true, ..service("a") },
            Service { sticky: true, exported: false, ..service("a weight=7") },
            Service { cluster_address: ClusterAddress::Virtual(vec![]), ..service("a") },
        ];
        let waits = [SliceWait::NotNeeded, SliceWait::Until(at(7)), SliceWait::Over];
        let many = (0..1_000).map(|i| format!(" 10.1.{}.{}@h{i}", i / 256, i % 256)).collect::<String>();
        let slices =
            ["s a", "s a 10.1.0.1!ready 10.1.0.2,10.1.0.3!serving port=80 port=443", "s a fd00::1,fd00::2@web-0"];
        let slices = slices.iter().map(|text| slice(text)).chain([slice(&format!("long{}", &format!(" a{many}")))]);
        let slices: Vec<Written> = slices.map(|slice| Written::slice(&slice)).collect();
        for written in services.iter().map(Written::service) {
            for slice_wait in waits {
                for ingress_until in [None, Some(Moment(Duration::new(u64::MAX, 999_999_999)))] {
                    for count in 0..=slices.len() {
                        let service = Stored { slice_wait, ingress_until, ..written.as_service() };
                        let slices = || slices[..count].iter().map(Written::as_slice).collect();
                        assert_kept(&Joined { service: Some(service), slices: slices() });
                        if count > 0 {
                            assert_kept(&Joined { service: None, slices: slices() });
                        }
                    }
                }
            }
        }
        assert!(Entry::write(&Key::of(&key("a")), &Joined::default(), &mut vec![]).is_none());
    }

    #[test]
    fn objects_are_read_as_they_were_written() {
        let ports: Vec<Port> =
            [("", Protocol::Tcp, 1), ("http", Protocol::Udp, 443), (&"x".repeat(63), Protocol::Sctp, 65_535)]
                .into_iter()
                .map(|(name, protocol, number)| Port {
                    name: (!name.is_empty()).then(|| Label::again(name.as_bytes())),
                    protocol,
                    number: number.try_into().unwrap(),
                })
                .collect();
        let object = Service { ports: ports.clone(), ..service("a lb=1.1.1.1,2600::1") };
        let written = Written::service(&object);
        let stored = written.as_service();
        assert_eq!(stored.ports.iter().collect::<Vec<_>>(), ports);
        assert_eq!(stored.wishes, Wishes::default());
        assert!(stored.hostnames.is_empty());
        let named = Written::service(&service("a host=a.example,b.b.example"));
        assert_eq!(named.as_service().hostnames.iter().collect::<Vec<_>>(), ["a.example", "b.b.example"]);
        for text in ["a weight=7", "a ttl=300", "a load=1", "a weight=0 ttl=5 load=0"] {
            let object = service(text);
            assert_eq!(Written::service(&object).as_service().wishes, object.wishes, "{text}");
            assert_ne!(object.wishes, Wishes::default(), "{text}");
        }
        assert_eq!(stored.ingress.iter().collect::<Vec<_>>(), object.ingress);
        assert_eq!(ClusterAddress::Virtual(stored.cluster_addresses.iter().collect()), object.cluster_address);

        let object = slice("s a 10.1.0.1,10.1.0.2@web!ready fd00::1!serving 10.1.0.3! port=80");
        let written = Written::slice(&object);
        let endpoints: Vec<Endpoint> = written
            .as_slice()
            .endpoints
            .iter()
            .map(|endpoint| Endpoint {
                addresses: endpoint.addresses.iter().collect(),
                hostname: endpoint.hostname.map(Label::again),
                ready: endpoint.ready,
                serving: endpoint.serving,
            })
            .collect();
        assert_eq!(endpoints, object.endpoints);
    }

    #[test]
    fn runs_of_any_length() {
        for length in [0, 1, 127, 128, 129, 16_383, 16_384, 3_000_000] {
            let mut out = b"before".to_vec();
            run(&mut out, |out| out.resize(out.len() + length, 7));
            out.extend_from_slice(b"after");
            let mut octets = Octets(&out);
            assert_eq!(octets.take(6), b"before");
            assert!(octets.run() == vec![7; length], "{length}");
            assert_eq!(octets.0, b"after");
        }
    }

    #[test]
    fn keys_sort_as_services_do() {
        let long = |n: u8| format!("a-namespace-that-is-long/{}", char::from(n));
        let exact = |n: usize| format!("a/{}", "x".repeat(n));
        let others = [28, 29, 30, 63].map(exact);
        let keys = ["a/b", "a/b-c", "a/bc", "a-b/a", "ab/a", "b/a", &long(b'c'), &long(b'a'), &long(b'b')];
        let keys: Vec<ServiceKey> = keys.into_iter().chain(others.iter().map(String::as_str)).map(key).collect();
        let written = Written::service(&service("a"));
        let entry = |key: &ServiceKey| {
            let joined = Joined { service: Some(written.as_service()), slices: vec![] };
            Entry::write(&Key::of(key), &joined, &mut vec![]).unwrap()
        };
        let entries: Vec<Entry> = keys.iter().map(entry).collect();
        let mut sorted = keys.to_vec();
        sorted.sort();
        assert_eq!(service_keys(entries.iter(), 1), sorted);
    }
}
