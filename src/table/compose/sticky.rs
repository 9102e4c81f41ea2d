//! The order of a service with `sessionAffinity: ClientIP`: in each band a client gets the same one again, from every instance,
//! for as long as the addresses are there. Highest random weight (rendezvous hashing): what comes or goes moves nobody else.

use std::net::IpAddr;

use super::{Item, MAX_WEIGHED};
use crate::table::{Random, Record};

/// What a client's order of a service goes by. Of its address the part that a client subnet has at most (/24, /56): resolvers
/// tell no more, and one network is one client.
pub fn client_number(client: IpAddr, service: Record<'_>) -> u64 {
    let network = match client.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits() >> 8),
        IpAddr::V6(address) => (address.to_bits() >> 72) as u64 | 1 << 63,
    };
    mix(network, service.name())
}

/// The same on every machine.
fn mix(start: u64, octets: &[u8]) -> u64 {
    octets.iter().fold(Random::new(start).draw(), |number, octet| Random::new(number ^ u64::from(*octet)).draw())
}

/// The lowest one comes first for this client, by the weights.
pub(super) fn key(client: u64, what: &[u8], weight: u16) -> f64 {
    // Evenly between 0 and 1, and not 0: the logarithm of it is exponentially distributed.
    let chance = ((mix(client, what) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -chance.ln() / f64::from(weight.max(1))
}

/// Makes each run one in which `client` comes to its items in that order. One that is too long stays as it is.
pub(super) fn arrange(items: &mut [Item], octets: &[u8], size: usize, client: u64) {
    let mut run = 0;
    // Each item is a run of its own then, of which nothing is drawn.
    for list in items.chunk_by_mut(|one, other| one.run == other.run) {
        if list.len() <= MAX_WEIGHED {
            let key = |item: &Item| key(client, &octets[item.at as usize..][..size], item.weight);
            list.sort_unstable_by(|one, other| key(one).total_cmp(&key(other)));
            for item in list {
                item.run = run;
                run += 1;
            }
        } else {
            list.iter_mut().for_each(|item| item.run = run);
            run += 1;
        }
    }
}
