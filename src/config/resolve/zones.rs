//! The zones, and what is different for some of their services.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Resolver, shortened};
use crate::config::error::Fault;
use crate::config::raw::{At, RawFamilies, RawHostnames, RawMode, RawSchema, RawService, RawZone, place};
use crate::config::special::publishable;
use crate::config::{Families, Hostnames, MAX_SERVICE_ADDRESSES, MAX_SERVICES, MAX_ZONES, Mode, Schema, Service, Zone};
use crate::model::{Label, ServiceKey};
use crate::names::{Name, NameError};

const DEFAULT_TTL: u32 = 30;
const DEFAULT_NEGATIVE_TTL: u32 = 5;
/// Eight AAAA records fit into 512 octets whatever the name is.
const DEFAULT_MAX_ANSWERS: u8 = 8;
const DEFAULT_SPARE: u8 = 0;
/// Of those that stand in front of the name of a zone of the schema `mcs`.
const LONGEST_MCS_LABEL: &[u8] = b"dns-version";

/// What holds for the services of a zone of which nothing else is said.
struct Usual {
    /// To clients outside, and inside.
    modes: [RawMode; 2],
    spare: u8,
    max_answers: u8,
    hostnames: Hostnames,
    schema: Schema,
}

impl RawMode {
    fn with_spare(self, spare: u8) -> Mode {
        match self {
            RawMode::Ordered => Mode::Ordered,
            RawMode::Nearest => Mode::Nearest { spare },
            RawMode::Single => Mode::Single,
        }
    }
}

impl Resolver<'_> {
    pub(super) fn zones(&mut self, raw: Option<At<Vec<RawZone>>>, no_clusters: bool) -> Vec<Zone> {
        let place = raw.as_ref().and_then(|list| place(list.referenced));
        let raw = self.list(raw, "zones", "zones", MAX_ZONES);
        if raw.is_empty() {
            self.fault_at(place, "zones", Fault::NoZones);
        }
        let mut seen = HashMap::new();
        let mut zones = Vec::with_capacity(raw.len());
        for (i, raw) in raw.into_iter().enumerate() {
            let key = format!("zones[{i}]");
            let name_key = format!("{key}.name");
            let name = self.zone_name(&raw.name, &name_key);
            if let Some(name) = &name {
                let first = *seen.entry(name.clone()).or_insert(i);
                if first != i {
                    self.fault(&raw.name, name_key, Fault::DuplicateZone { name: name.to_string(), first });
                }
            }
            zones.extend(self.zone(raw, &key, name, no_clusters));
        }
        // The table has two of each of these.
        let count = zones.len() + zones.iter().filter(|zone| zone.schema == Schema::Mcs).count();
        if count > MAX_ZONES {
            self.fault_at(
                place,
                "zones",
                Fault::too_many("zones, with those of the schema mcs twice", count, MAX_ZONES),
            );
        }
        zones
    }

    fn zone(&mut self, raw: RawZone, key: &str, name: Option<Name>, no_clusters: bool) -> Option<Zone> {
        let schema = match raw.schema.unwrap_or(RawSchema::Federation) {
            RawSchema::Federation => Schema::Federation,
            RawSchema::Mcs => Schema::Mcs,
            RawSchema::Static => Schema::Static,
        };
        if schema.has_services() && no_clusters {
            self.fault(&raw.name, format!("{key}.schema"), Fault::NoClusters);
        }
        let file = self.file(&raw.file, &format!("{key}.file"), "the zone file");
        let ttl = self.number(raw.ttl, &format!("{key}.ttl"), 5..=86_400, "s", DEFAULT_TTL);
        // RFC 2308 section 5: a negative answer is kept for one to three hours at most.
        let negative_key = format!("{key}.negativeTtl");
        let negative_ttl = self.number(raw.negative_ttl, &negative_key, 1..=10_800, "s", DEFAULT_NEGATIVE_TTL);
        let max_key = format!("{key}.maxAnswers");
        let max_answers = self.number(raw.max_answers, &max_key, 1..=255, "addresses", DEFAULT_MAX_ANSWERS);
        let usual = [raw.external_mode.unwrap_or(RawMode::Nearest), raw.internal_mode.unwrap_or(RawMode::Ordered)];
        let spare = self.spare(raw.spare, &usual, &format!("{key}.spare"), DEFAULT_SPARE);
        let [external_mode, internal_mode] = usual.map(|mode| mode.with_spare(spare));
        // The MCS DNS specification wants a record for each ready endpoint, whatever family the others have.
        let default = if schema == Schema::Mcs { RawFamilies::Any } else { RawFamilies::Common };
        let families = match raw.families.unwrap_or(default) {
            RawFamilies::Common => Families::Common,
            RawFamilies::Any => Families::Any,
        };
        let hostnames = self.hostnames(raw.hostnames, schema, &format!("{key}.hostnames"), Hostnames::Addresses);
        let usual = Usual { modes: usual, spare, max_answers, hostnames, schema };
        let services_key = format!("{key}.services");
        if let Some(services) = raw.services.as_ref().filter(|_| schema == Schema::Static) {
            self.fault(services, &services_key, Fault::ServicesOfStatic);
        }
        let services = self.services(raw.services, &services_key, &usual);
        let name = name?;
        if schema == Schema::Mcs && name.child(LONGEST_MCS_LABEL).is_err() {
            let fault = Fault::ZoneName { name: shortened(&raw.name.value), error: NameError::LongName };
            self.fault(&raw.name, format!("{key}.name"), fault);
            return None;
        }
        Some(Zone {
            name,
            schema,
            file,
            ttl,
            negative_ttl,
            max_answers,
            external_mode,
            internal_mode,
            families,
            hostnames,
            services,
        })
    }

    /// Aliases need names that are nothing else.
    fn hostnames(&mut self, raw: Option<At<RawHostnames>>, schema: Schema, key: &str, default: Hostnames) -> Hostnames {
        match raw {
            None => default,
            Some(At { value: RawHostnames::Addresses, .. }) => Hostnames::Addresses,
            Some(raw) => {
                if schema != Schema::Federation {
                    self.fault(&raw, key, Fault::AliasesInSchema);
                }
                Hostnames::Cname
            }
        }
    }

    /// It belongs to those of `modes` that are nearest.
    fn spare(&mut self, raw: Option<At<u64>>, modes: &[RawMode], key: &str, default: u8) -> u8 {
        if let Some(spare) = &raw
            && !modes.contains(&RawMode::Nearest)
        {
            self.fault(spare, key, Fault::SpareOfNone);
        }
        self.number(raw, key, 0..=255, "addresses", default)
    }

    /// What is not said of a service is as in its zone.
    fn services(&mut self, raw: Option<At<Vec<RawService>>>, key: &str, usual: &Usual) -> HashMap<ServiceKey, Service> {
        let list = self.list(raw, key, "services", MAX_SERVICES);
        let mut services = HashMap::with_capacity(list.len());
        let mut seen = HashMap::new();
        for (i, raw) in list.into_iter().enumerate() {
            let key = format!("{key}[{i}]");
            let name = self.label(&raw.name, &format!("{key}.name"));
            let namespace = self.label(&raw.namespace, &format!("{key}.namespace"));
            let [external, internal] = usual.modes;
            let modes = [raw.external_mode.unwrap_or(external), raw.internal_mode.unwrap_or(internal)];
            let spare = self.spare(raw.spare, &modes, &format!("{key}.spare"), usual.spare);
            let [external_mode, internal_mode] = modes.map(|mode| mode.with_spare(spare));
            let service = Service {
                ttl: raw.ttl.map(|ttl| self.number(Some(ttl), &format!("{key}.ttl"), 5..=86_400, "s", DEFAULT_TTL)),
                max_answers: self.number(
                    raw.max_answers,
                    &format!("{key}.maxAnswers"),
                    1..=255,
                    "addresses",
                    usual.max_answers,
                ),
                external_mode,
                internal_mode,
                hostnames: self.hostnames(raw.hostnames, usual.schema, &format!("{key}.hostnames"), usual.hostnames),
                addresses: self.addresses(raw.addresses, &format!("{key}.addresses")),
            };
            let Some((name, namespace)) = name.zip(namespace) else { continue };
            let service_key = ServiceKey { namespace, name };
            if let Some(first) = seen.insert(service_key.clone(), i) {
                let fault = Fault::DuplicateService { service: service_key.to_string(), first };
                self.fault(&raw.name, &key, fault);
            }
            services.insert(service_key, service);
        }
        services
    }

    fn addresses(&mut self, raw: Option<At<Vec<At<String>>>>, key: &str) -> Vec<IpAddr> {
        let list = self.list(raw, key, "addresses", MAX_SERVICE_ADDRESSES);
        let mut addresses = Vec::with_capacity(list.len());
        for (key, raw) in self.distinct(list, key) {
            match raw.value.parse().map_err(|_| Fault::IpAddress(shortened(&raw.value))).and_then(publishable) {
                Ok(address) => addresses.push(address),
                Err(fault) => self.fault(&raw, key, fault),
            }
        }
        addresses
    }

    fn zone_name(&mut self, raw: &At<String>, key: &str) -> Option<Name> {
        let text = raw.value.to_ascii_lowercase();
        let ldh = text.strip_suffix('.').unwrap_or(&text).split('.').all(|label| Label::parse(label).is_ok());
        let fault = match Name::parse(&text) {
            Ok(name) if ldh => return Some(name),
            Ok(_) => Fault::ZoneLabels(shortened(&raw.value)),
            Err(error) => Fault::ZoneName { name: shortened(&raw.value), error },
        };
        self.fault(raw, key, fault);
        None
    }
}
