//! SRV records and the addresses beside them (RFC 2782). Those of most services are written by the short way (`uniform.rs`).
//!
//! What writes one target is always inlined: left to the compiler, an answer of many takes a hundredth more.

use super::super::ready::fixed;
use super::super::record::{Host, PortEntry, address_size, flag};
use super::super::{FIXED, MAX_EXTRA, MAX_SET};
use super::{Found, Kind, Scratch, Seen, Set, Sight, in_band};
use crate::model::Protocol;
use crate::names::copy;
use crate::ranking::{Asked, Choice};
use crate::wire::response::Section;
use crate::wire::{Writer, pointer_to, rtype};

/// Which ports SRV records are asked for, by places in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PortsAt {
    All,
    /// `port` and all like it. In the list at `list`, where there is one, it is the only one of its name.
    Named {
        port: u32,
        list: Option<u32>,
    },
}

/// The same, read.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    All,
    Named { port: PortEntry<'a>, list: Option<u32> },
}

impl Wanted<'_> {
    fn is(&self, port: &PortEntry<'_>) -> bool {
        match self {
            Wanted::All => !port.repeats_number(),
            Wanted::Named { port: wanted, .. } => port.is_named_like(wanted) && !port.repeats(),
        }
    }

    fn places(&self) -> PortsAt {
        match self {
            Wanted::All => PortsAt::All,
            Wanted::Named { port, list } => PortsAt::Named { port: port.at as u32, list: *list },
        }
    }
}

/// Octets of an SRV record in front of its target.
pub(super) const SRV_HEAD: usize = FIXED + 6;

/// One SRV record.
struct Target<'a, 's> {
    seen: &'s Seen,
    name: Prefix<'a>,
    numbers: Numbers,
}

/// Priority, weight and port.
pub(super) type Numbers = [u16; 3];

/// The labels of a target in front of `S.N.Z`.
#[derive(Clone, Copy)]
pub(super) struct Prefix<'a> {
    host: Option<Host<'a>>,
    /// In wire form. Empty: the target is the service's own name.
    cluster: &'a [u8],
    /// The whole target, which is a name of somebody else.
    alias: Option<&'a [u8]>,
}

impl<'a> Prefix<'a> {
    /// `label`: in wire form.
    #[inline(always)]
    pub(super) fn of_cluster(label: &'a [u8]) -> Prefix<'a> {
        Prefix { host: None, cluster: label, alias: None }
    }

    /// Octets.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.host.map_or(0, |host| 1 + host.label().len()) + self.cluster.len()
    }

    /// Returns what is left.
    #[inline(always)]
    pub(super) fn put<'o>(&self, out: &'o mut [u8]) -> &'o mut [u8] {
        let out = match self.host {
            Some(host) => put_label(out, host.label()),
            None => out,
        };
        let (target, rest) = out.split_at_mut(self.cluster.len());
        copy(self.cluster, target);
        rest
    }

    /// Writes a record whose owner is this name, with a pointer behind the labels. Returns what is left.
    #[inline(always)]
    pub(super) fn put_address<'o>(&self, out: &'o mut [u8], fixed: &[u8; FIXED], address: &[u8]) -> &'o mut [u8] {
        let (block, rest) = self.put(out).split_at_mut(FIXED + address.len());
        block[..FIXED].copy_from_slice(fixed);
        block[FIXED..].copy_from_slice(address);
        rest
    }
}

/// What an SRV record of that size has in front of its target. `fixed`: what it begins with, but for its length. Returns the target's room.
#[inline(always)]
pub(super) fn put_srv_head<'o>(record: &'o mut [u8], fixed: &[u8; FIXED], numbers: Numbers) -> &'o mut [u8] {
    let (head, target) = record.split_at_mut(SRV_HEAD);
    head[..10].copy_from_slice(&fixed[..10]);
    let [priority, weight, port] = numbers;
    let said = [(6 + target.len()) as u16, priority, weight, port];
    head[10..].copy_from_slice(said.map(u16::to_be_bytes).as_flattened());
    target
}

#[inline(always)]
fn put_label<'o>(out: &'o mut [u8], label: &[u8]) -> &'o mut [u8] {
    let (length, rest) = out.split_first_mut().expect("there is room for the labels");
    *length = label.len() as u8;
    let (target, rest) = rest.split_at_mut(label.len());
    target.copy_from_slice(label);
    rest
}

impl<'a> Sight<'a> {
    pub(super) fn find_named_port(
        &self,
        label: &[u8],
        protocol: Protocol,
        qtype: u16,
        any: bool,
        scratch: &Scratch,
    ) -> Found {
        let Some(name) = label.strip_prefix(b"_").filter(|name| !name.is_empty()) else { return Found::Missing };
        let named = |port: &PortEntry<'_>| port.name == name && port.protocol() == protocol;
        let Some((list, port)) = self.find_port(named, scratch) else { return Found::Missing };
        let list = list.has_distinct_names().then(|| list.at());
        match self.find_targets(Wanted::Named { port, list }, scratch) {
            Some(set) if qtype == rtype::SRV || any => Found::Set(set),
            targets => Found::NoData { pending: targets.is_none() },
        }
    }

    pub(super) fn find_targets(&self, wanted: Wanted<'_>, scratch: &Scratch) -> Option<Set> {
        let has = |seen: &Seen| match wanted {
            Wanted::Named { list: Some(list), .. } if seen.pods.is_none() && seen.ports == list => true,
            _ => self.port_lists(seen).any(|(_, list)| list.into_iter().any(|port| wanted.is(&port))),
        };
        let choice = Choice::among(&scratch.seen, Asked::Targets, has);
        let mut any = false;
        self.targets(wanted, choice, scratch, |_| {
            any = true;
            false
        });
        any.then(|| Set(Kind::Targets { ports: wanted.places(), choice }))
    }

    pub(super) fn wanted(&self, ports: PortsAt) -> Wanted<'a> {
        match ports {
            PortsAt::All => Wanted::All,
            PortsAt::Named { port, list } => Wanted::Named { port: self.record.port(port as usize), list },
        }
    }

    /// Calls `each` for the SRV records of the chosen candidates for those ports, the best first, until it says false.
    fn targets(
        &self,
        wanted: Wanted<'_>,
        choice: Choice,
        scratch: &Scratch,
        mut each: impl FnMut(&Target<'a, '_>) -> bool,
    ) {
        let mut priority = 0;
        let mut told = false;
        for band in scratch.summary.bands() {
            let mut next = priority;
            // A step is told inside of the band.
            for step in 0..=scratch.last_step {
                for seen in in_band(&scratch.seen, band, choice) {
                    if scratch.last_step > 0 && seen.step() != step {
                        continue;
                    }
                    next = priority + 10;
                    // A name that is too long for a cluster is too long for its hosts.
                    if seen.has(flag::LONG) {
                        continue;
                    }
                    // Of services that are no sets of pods there is one name, and all candidates have the same ports.
                    let cluster = match (self.perspective.mcs, seen.pods) {
                        (true, None) if told => continue,
                        (true, None) => &[],
                        _ => self.cluster_label(seen.cluster),
                    };
                    told = true;
                    let mut tell = |host, port: &PortEntry<'_>| {
                        let numbers = [priority + u16::from(step), seen.weight.max(1), port.number];
                        let mut tell = |alias| each(&Target { seen, name: Prefix { host, cluster, alias }, numbers });
                        match seen.aliases {
                            None => tell(None),
                            // A target is no alias (RFC 2782).
                            Some(end) => self.record.aliases(end).all(|alias| tell(Some(alias))),
                        }
                    };
                    let go_on = match (seen.pods, &wanted) {
                        (None, Wanted::Named { port, list: Some(list) }) if seen.ports == *list => tell(None, port),
                        (None, _) => {
                            let ports = self.record.ports(seen.ports).into_iter();
                            ports.filter(|port| wanted.is(port)).all(|port| tell(None, &port))
                        }
                        (Some(at), _) => {
                            let hosts = self.record.pods(at.get()).hosts().filter(|host| !host.has(flag::LONG));
                            let ports = |host: Host<'a>| host.ports().into_iter().map(move |port| (host, port));
                            let mut ports = hosts.flat_map(ports).filter(|(_, port)| wanted.is(port));
                            ports.all(|(host, port)| tell(Some(host), &port))
                        }
                    };
                    if !go_on {
                        return;
                    }
                }
            }
            priority = next;
        }
    }

    pub(super) fn write_targets(
        &self,
        wanted: Wanted<'_>,
        choice: Choice,
        writer: &mut Writer<'_>,
        owner: usize,
        scratch: &Scratch,
    ) -> bool {
        let fixed = fixed(pointer_to(owner), rtype::SRV, self.ttl_of(choice), 0);
        let (mut length, mut fits) = (0, true);
        // What is the same in all of them is looked up once.
        let bare = self.target_size(&Prefix::of_cluster(&[]));
        self.targets(wanted, choice, scratch, |target| {
            let size = match target.name.alias {
                None => bare + target.name.len(),
                Some(_) => self.target_size(&target.name),
            };
            length += size;
            if length > MAX_SET {
                return false;
            }
            match writer.reserve_records(Section::Answer, size, 1) {
                Some(record) => self.put_target(record, &fixed, &target.name, target.numbers),
                None => fits = false,
            }
            fits
        });
        fits
    }

    /// Octets of an SRV record.
    #[inline(always)]
    fn target_size(&self, name: &Prefix<'_>) -> usize {
        match name.alias {
            None => SRV_HEAD + name.len() + self.record.name().len() + self.perspective.apex.len(),
            Some(alias) => SRV_HEAD + alias.len(),
        }
    }

    /// Fills an SRV record of [that size](Sight::target_size). `fixed`: what it begins with, but for its length.
    #[inline(always)]
    fn put_target(&self, record: &mut [u8], fixed: &[u8; FIXED], name: &Prefix<'_>, numbers: Numbers) {
        let target = put_srv_head(record, fixed, numbers);
        // A target is not compressed (RFC 2782).
        if let Some(alias) = name.alias {
            return target.copy_from_slice(alias);
        }
        let own = self.record.name();
        let (service, zone) = name.put(target).split_at_mut(own.len());
        copy(own, service);
        copy(self.perspective.apex, zone);
    }

    /// The addresses of an SRV set's targets, set by set while there is room (RFC 2782); what does not fit is left out.
    /// Only behind a question whose name has `S.N.Z` at `service` of the message.
    pub fn write_extra(&self, set: Set, writer: &mut Writer<'_>, service: usize, scratch: &Scratch) {
        let Kind::Targets { ports, choice } = set.0 else { return };
        let wanted = self.wanted(ports);
        let name = pointer_to(service);
        let ttl = self.ttl_of(choice);
        let octets = self.record.octets();
        // The targets of one host or cluster come one after the other.
        let mut before = None;
        self.targets(wanted, choice, scratch, |target| {
            // The addresses of the service's own name are an answer of its own, with its own order and limit.
            if target.name.cluster.is_empty() || target.name.alias.is_some() {
                return true;
            }
            let here = (target.seen.cluster, target.name.host.map(|host| host.at));
            if before.replace(here) == Some(here) {
                return true;
            }
            let (addresses, is_static) = match target.name.host {
                Some(host) => (host.addresses(), host.has(flag::STATIC)),
                None => (target.seen.addresses, target.seen.has(flag::STATIC)),
            };
            if is_static {
                return true;
            }
            for v4 in [true, false] {
                let (size, rtype) = (address_size(v4), if v4 { rtype::A } else { rtype::AAAA });
                let span = addresses.of(v4);
                let count = (span.count as usize).min(MAX_EXTRA);
                if count == 0 || target.seen.is_worse(v4) {
                    continue;
                }
                let length = count * (target.name.len() + FIXED + size);
                let Some(mut out) = writer.reserve_records(Section::Additional, length, count as u16) else {
                    return false;
                };
                let fixed = fixed(name, rtype, ttl, size as u16);
                for at in span.addresses(v4).take(count) {
                    out = target.name.put_address(out, &fixed, &octets[at as usize..][..size]);
                }
            }
            true
        });
    }
}
