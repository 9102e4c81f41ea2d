//! The short way: plain queries for a service's own name, and for SRV those of its ports, in a zone whose static data cannot
//! stand there, so that nothing but the service's entry decides. Most queries of most clients are of this kind.
//!
//! It says, octet for octet, what the long way says, and leaves to that whatever it cannot be sure of. The tests ask both.
//!
//! Most of what A's way calls is inlined by order (`inline(always)`): left to itself, the compiler decided otherwise with each change of code
//! that has nothing to do with it, at 38 to 88 instructions a query.

use super::Rcode;
use crate::table::{Random, Record, Snapshot, Vantage, Zone};
use crate::wire::{self, Edns, HEADER, MAX_UDP, MIN_UDP, Query, Request, Subnet, class, pointer_to, rtype};

/// OPT without options; the last octet is that of its length that these change.
const OPT: usize = 11;
/// Labels of a service in front of its zone's, and of a port in front of these.
const SERVICE_LABELS: usize = 2;
const PORT_LABELS: usize = 2;

/// Whether a query is of this kind. `zone` is the closest above its name.
#[inline]
pub(super) fn is_short(request: &Request, query: &Query, zone: &Zone) -> bool {
    // What EDNS adds is an OPT record with a client subnet at most.
    let edns = request.edns.is_none_or(|edns| edns.version == 0 && !edns.nsid);
    let labels = match query.qtype {
        // These are no data (RFC 6895 section 3.1), or are found by another name.
        rtype::OPT | rtype::DS | rtype::NXNAME.. => return false,
        rtype::SRV => PORT_LABELS,
        _ => 0,
    };
    // It is below the zone, whose labels it has.
    let relative = query.label_count().wrapping_sub(zone.label_count());
    let name = zone.has_service_names_alone() && relative == SERVICE_LABELS + labels;
    name && query.qclass == class::IN && request.opcode == 0 && edns
}

/// What is asked, with its place in the table.
#[derive(Clone, Copy)]
pub(super) struct Short<'a> {
    pub query: &'a Query,
    pub edns: Option<&'a Edns>,
    /// What it says of a client's subnet counts.
    pub subnet_counts: bool,
    pub zone: &'a Zone,
    pub vantage: Vantage<'a>,
}

/// What stands behind the question but for OPT.
struct Written {
    octets: usize,
    rcode: Rcode,
    /// Records by section.
    counts: [u16; 3],
}

impl Short<'_> {
    /// Writes the answer over the query, which [`is_short`] and came by UDP; returns its length. `None`: the long way is to
    /// decide, whatever stands behind the question now.
    ///
    /// `record`: what the table has under the name. `all_heard`: what it does not have, no cluster can have.
    #[inline(always)]
    pub fn answer(
        self,
        table: &Snapshot<'_>,
        record: Option<Record<'_>>,
        all_heard: bool,
        buffer: &mut [u8],
        random: &mut Random,
    ) -> Option<(usize, Rcode)> {
        let Short { query, edns, zone, vantage, .. } = self;
        let subnet = edns.and_then(|edns| edns.subnet.as_ref()).filter(|_| self.subnet_counts);
        let option = subnet.map_or(0, Subnet::octet_count);
        let opt = edns.map_or(0, |_| OPT + option);
        let most = edns.map_or(MIN_UDP, |edns| usize::from(edns.payload).clamp(MIN_UDP, MAX_UDP));
        let most = most.min(buffer.len()) - opt;
        let room = buffer.get_mut(query.end..most)?;
        let Written { octets, rcode, counts } = match record {
            Some(record) if !record.is_uniform() => return None,
            Some(record) => match query.qtype {
                rtype::A | rtype::SRV => {
                    // Before anything is drawn: the long way would draw it again.
                    let port = if query.qtype == rtype::A { None } else { Some(port(query, record)?) };
                    let sight = table.sight(record, zone, vantage);
                    let (octets, counts) = sight.write_uniform(port, query, room, random)?;
                    Written { octets, rcode: Rcode::NoError, counts }
                }
                _ => negative(query, zone, Rcode::NoData, zone.nodata_ttl(), room)?,
            },
            None if all_heard && !zone.has_wildcards() => {
                negative(query, zone, Rcode::NxDomain, zone.nxdomain_ttl(), room)?
            }
            None => return None,
        };
        let end = query.end + octets;
        let [answers, authority, additional] = counts;
        if let Some(edns) = edns {
            let [high, low] = (MAX_UDP as u16).to_be_bytes();
            let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
            // Options are far shorter than 256 octets.
            let head: [u8; OPT] = [0, 0, rtype::OPT as u8, high, low, 0, 0, dnssec_ok, 0, 0, option as u8];
            let (fixed, options) = buffer[end..end + opt].split_at_mut(OPT);
            fixed.copy_from_slice(&head);
            if let Some(subnet) = subnet {
                subnet.write(options, if answers > 0 { vantage.scope() } else { 0 });
            }
        }
        let header = &mut buffer[..HEADER];
        // As `Writer::finish` does, with AA.
        header[2] = 0x84 | header[2] & 0x79;
        header[3] = if rcode == Rcode::NxDomain { wire::Rcode::NxDomain as u8 } else { 0 };
        header[6..8].copy_from_slice(&answers.to_be_bytes());
        header[8..10].copy_from_slice(&authority.to_be_bytes());
        header[10..].copy_from_slice(&(additional + u16::from(edns.is_some())).to_be_bytes());
        Some((end + opt, rcode))
    }
}

// Functions, not inlined, so that A's way has the registers for itself. They take no `Short`: it would have to be put into memory
// for every answer.

/// That of which the question's name is, if it is of one.
#[inline(never)]
fn port(query: &Query, record: Record<'_>) -> Option<u16> {
    let [port, protocol] = query.first_labels();
    record.uniform_port(port, protocol)
}

/// RFC 2308.
#[inline(never)]
fn negative(query: &Query, zone: &Zone, rcode: Rcode, ttl: u32, room: &mut [u8]) -> Option<Written> {
    let soa = zone.soa();
    let zone = pointer_to(HEADER + query.suffix_at(zone.label_count()));
    soa.write(room.get_mut(..soa.octet_count())?, zone, ttl);
    Some(Written { octets: soa.octet_count(), rcode, counts: [0, 1, 0] })
}
