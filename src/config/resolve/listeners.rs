//! Where is listened, and which views that gives.

use std::net::{IpAddr, SocketAddr};

use super::{DEFAULT_ADMIN, RawAdmin, Resolver, shortened};
use crate::config::error::{Fault, Place, Words};
use crate::config::raw::{At, RawListener, RawView, place};
use crate::config::{Listener, MAX_ADDRESSES};
use crate::model::{Audience, ClusterId, View, ViewRule};

/// An address that is listened on, and where that is written.
pub(super) struct Bound {
    address: SocketAddr,
    key: String,
}

impl Resolver<'_> {
    /// `names` are the clusters as written, by position; `client_cidrs` tells whether any of them has some.
    pub(super) fn listeners(
        &mut self,
        raw: Option<At<Vec<RawListener>>>,
        names: &[String],
        client_cidrs: bool,
    ) -> (Vec<Listener>, Vec<Bound>) {
        let list_place = raw.as_ref().and_then(|list| place(list.referenced));
        let raw = raw.map(|list| list.value).unwrap_or_default();
        if raw.is_empty() {
            self.fault_at(list_place, "listeners", Fault::NoListeners);
        }
        let count = raw.iter().map(|listener| listener.addresses.value.len()).sum();
        if count > MAX_ADDRESSES {
            let fault = Fault::too_many("addresses of listeners", count, MAX_ADDRESSES);
            self.fault_at(list_place, "listeners", fault);
            return (Vec::new(), Vec::new());
        }
        let mut listeners = Vec::with_capacity(count);
        let mut bound: Vec<Bound> = Vec::with_capacity(count);
        for (i, raw) in raw.into_iter().enumerate() {
            let view = self.view(raw.view, &format!("listeners[{i}].view"), names, client_cidrs);
            let audience = self.audience(view, raw.client_subnet, &format!("listeners[{i}].clientSubnet"));
            if raw.addresses.value.is_empty() {
                self.fault(&raw.addresses, format!("listeners[{i}].addresses"), Fault::NoAddresses);
            }
            for (j, raw) in raw.addresses.value.into_iter().enumerate() {
                let key = format!("listeners[{i}].addresses[{j}]");
                let Some(address) = self.address(&raw, &key) else { continue };
                if let Some(fault) = overlap(address, &bound, Wildcards::OneFamily) {
                    self.fault(&raw, &key, fault);
                }
                bound.push(Bound { address, key });
                listeners.extend(audience.map(|audience| Listener { address, audience }));
            }
        }
        (listeners, bound)
    }

    fn audience(&mut self, view: Option<ViewRule>, subnet: Option<At<bool>>, key: &str) -> Option<Audience> {
        let default = Audience::from(view?);
        let Some(subnet) = subnet else { return Some(default) };
        if subnet.value && !default.client_subnet {
            self.fault(&subnet, key, Fault::SubnetInside);
        }
        Some(Audience { client_subnet: subnet.value, ..default })
    }

    fn view(&mut self, raw: Option<At<RawView>>, key: &str, names: &[String], client_cidrs: bool) -> Option<ViewRule> {
        // What everybody may see is the safe default.
        let Some(raw) = raw else { return Some(ViewRule::Fixed(View::External)) };
        match &raw.value {
            RawView::External => Some(ViewRule::Fixed(View::External)),
            RawView::BySource if client_cidrs => Some(ViewRule::BySource),
            RawView::BySource => {
                self.fault(&raw, key, Fault::NoClientCidrs);
                None
            }
            RawView::Internal(name) => {
                let id = (0..).zip(names).find(|(_, known)| **known == name.value).map(|(id, _)| ClusterId(id));
                if id.is_none() {
                    let known = Words::new(&name.value, names);
                    let fault = Fault::UnknownCluster { name: shortened(&name.value), known };
                    self.fault(name, format!("{key}.internal"), fault);
                }
                id.map(|id| ViewRule::Fixed(View::Internal(id)))
            }
        }
    }

    pub(super) fn resolvers(&mut self, raw: Option<At<Vec<At<String>>>>) -> Vec<SocketAddr> {
        let list = self.list(raw, "resolvers", "resolvers", crate::config::MAX_RESOLVERS);
        let list = self.distinct(list, "resolvers");
        list.iter().filter_map(|(key, raw)| self.address(raw, key)).collect()
    }

    pub(super) fn admin(&mut self, raw: Option<RawAdmin>, bound: &[Bound]) -> Option<SocketAddr> {
        const KEY: &str = "admin.address";
        let (address, place): (SocketAddr, Option<Place>) = match raw {
            Some(RawAdmin::Off) => return None,
            Some(RawAdmin::At(raw)) => (self.address(&raw, KEY)?, place(raw.referenced)),
            None => (DEFAULT_ADMIN, None),
        };
        if let Some(fault) = overlap(address, bound, Wildcards::BothFamilies) {
            self.fault_at(place, KEY, fault);
        }
        Some(address)
    }

    fn address(&mut self, raw: &At<String>, key: &str) -> Option<SocketAddr> {
        let fault = match raw.value.parse::<SocketAddr>() {
            Err(_) => Fault::Address(shortened(&raw.value)),
            Ok(address) if address.port() == 0 => Fault::PortZero(address),
            Ok(address) => match address.ip() {
                IpAddr::V4(ip) if ip.is_multicast() || ip.is_broadcast() => Fault::NotUnicast(address),
                IpAddr::V6(ip) if ip.is_multicast() => Fault::NotUnicast(address),
                IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => Fault::Mapped(shortened(&raw.value)),
                IpAddr::V4(_) | IpAddr::V6(_) => return Some(address),
            },
        };
        self.fault(raw, key, fault);
        None
    }
}

/// What `[::]` holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wildcards {
    /// Listeners are IPV6_V6ONLY: both wildcards on one port are how all addresses are served.
    OneFamily,
    /// The admin listener takes what the system gives it, and that is IPv4 too on most.
    BothFamilies,
}

fn overlap(address: SocketAddr, bound: &[Bound], wildcards: Wildcards) -> Option<Fault> {
    let same = |other: &&Bound| {
        let (a, b) = (address.ip(), other.address.ip());
        let wild = a.is_unspecified() || b.is_unspecified();
        let families = a.is_ipv4() == b.is_ipv4()
            || (wildcards == Wildcards::BothFamilies && address.is_ipv6() && address.ip().is_unspecified());
        address.port() == other.address.port() && (a == b || (wild && families))
    };
    let other = bound.iter().find(same)?;
    Some(Fault::AddressOverlap { address, other: other.address, key: other.key.clone() })
}
