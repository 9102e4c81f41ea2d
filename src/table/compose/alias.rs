//! Services whose load balancers have host names, where the zone says that clients are told the names.
//!
//! An alias stands beside no other data (RFC 1034 section 3.6.2), so that the service's own name stands for one candidate at a
//! time: the first one in the order that all would have. It is an alias if that is one, and has the addresses of that candidate if not.

use std::net::IpAddr;

use super::super::FIXED;
use super::super::ready::fixed;
use super::{Draws, Found, Kind, Owner, Scratch, Seen, Set, Sight, addresses, client_number, draw, in_band, sticky};
use crate::ranking::{Asked, Band, Choice};
use crate::table::Random;
use crate::wire::response::Section;
use crate::wire::{Writer, pointer_to, rtype};

/// What decides where several would do.
pub struct Chance<'r> {
    pub random: &'r mut Random,
    /// For whom it is asked: services with affinity go by that.
    pub origin: IpAddr,
}

impl Sight<'_> {
    /// What the service's own name has, where a candidate has aliases.
    pub(super) fn find_one(&self, qtype: u16, any: bool, scratch: &mut Scratch, chance: &mut Chance<'_>) -> Found {
        let choice = Choice::among(&scratch.seen, Asked::Targets, |_| true);
        let Some(at) = self.first(choice, scratch, chance) else { return self.find_service(qtype, any, scratch) };
        let seen = &scratch.seen[usize::from(at)];
        if seen.aliases.is_some() {
            return Found::Set(Set(Kind::Alias { at, choice: Some(choice) }));
        }
        match addresses(seen.addresses, Owner::Best(at), qtype, any) {
            Found::NoData { .. } if qtype == rtype::SRV => self.find_service(qtype, any, scratch),
            found => found,
        }
    }

    /// The position of the candidate that comes first.
    fn first(&self, choice: Choice, scratch: &mut Scratch, chance: &mut Chance<'_>) -> Option<u16> {
        scratch.exchange_bands(chance.random, |seen| choice.takes(&seen.standing));
        let is_in = |band: &Band| in_band(&scratch.seen, *band, choice).next().is_some();
        let band = scratch.summary.bands().find(is_in)?;
        let step = in_band(&scratch.seen, band, choice).map(Seen::step).min()?;
        let found = || in_band(&scratch.seen, band, choice).filter(|seen| seen.step() == step);
        let drawn = if self.is_sticky() {
            let client = client_number(chance.origin, self.record);
            let key = |seen: &Seen| sticky::key(client, self.cluster_name(seen.cluster), seen.weight);
            found().min_by(|one, other| key(one).total_cmp(&key(other)))
        } else {
            let drawn = draw(found().map(|seen| seen.weight), &mut Draws::new(chance.random));
            found().nth(drawn)
        };
        let cluster = drawn?.cluster;
        scratch.seen.iter().position(|seen| seen.cluster == cluster).map(|at| at as u16)
    }

    pub(super) fn write_alias(
        &self,
        seen: &Seen,
        ttl: u32,
        writer: &mut Writer<'_>,
        owner: usize,
        random: &mut Random,
    ) -> bool {
        let Some(end) = seen.aliases else { return true };
        let names = self.record.aliases(end);
        let count = names.clone().count() as u32;
        let drawn = if count > 1 { random.below(count) } else { 0 };
        let Some(name) = { names }.nth(drawn as usize) else { return true };
        let Some(record) = writer.reserve_records(Section::Answer, FIXED + name.len(), 1) else { return false };
        record[..FIXED].copy_from_slice(&fixed(pointer_to(owner), rtype::CNAME, ttl, name.len() as u16));
        record[FIXED..].copy_from_slice(name);
        true
    }
}
