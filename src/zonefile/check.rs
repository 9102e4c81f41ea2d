//! What must hold between the records of a zone, and between zones.

use std::collections::{BTreeMap, HashMap};

use super::rdata::{self, type_name};
use super::{Doubt, Reason, RrSet, Sets, Soa, Warnings, ZoneData};
use crate::names::Name;

/// Where the SOA's numbers stand, counted from its end: its two names come first (RFC 1035 section 3.3.13).
pub(super) const SOA_SERIAL: usize = 20;
pub(super) const SOA_MINIMUM: usize = 4;

/// The number that begins `from_end` octets before the end of a SOA's data.
pub(super) fn soa_number(data: &[u8], from_end: usize) -> u32 {
    let at = data.len() - from_end;
    let octets = data[at..at + 4].try_into().expect("SOA data ends in five numbers of four octets");
    u32::from_be_bytes(octets)
}

/// Checks what was gathered from a file, and makes the zone of it. The warnings' file is still to be filled in.
pub(super) fn zone(apex: &Name, sets: Sets, mut warnings: Warnings) -> Result<ZoneData, (Option<u32>, Reason)> {
    let at_apex = |rtype| sets.get(apex).and_then(|types| types.get(&rtype));
    let soa = at_apex(rdata::SOA).ok_or_else(|| (None, Reason::NoSoa { zone: apex.clone() }))?;
    let soa_data = soa.rdatas.first().expect("a gathered set has a record").clone();
    let soa = Soa {
        ttl: soa.ttl,
        minimum: soa_number(&soa_data, SOA_MINIMUM),
        serial: soa_number(&soa_data, SOA_SERIAL),
        rdata: soa_data,
    };
    aliases(&sets)?;
    if at_apex(rdata::NS).is_none() {
        return Err((None, Reason::NoNs { zone: apex.clone() }));
    }
    for (owner, types) in &sets {
        for (&rtype, set) in types.iter().filter(|(_, set)| set.mixed_ttl) {
            let doubt = Doubt::MixedTtl { owner: owner.clone(), rtype: type_name(rtype), ttl: set.ttl };
            warnings.push(set.line, doubt);
        }
    }
    cuts(apex, &sets, &mut warnings);
    name_servers(apex, &sets, &mut warnings);
    let sets = sets.into_iter().map(|(owner, types)| {
        let sets = types.into_iter().map(|(rtype, set)| RrSet {
            rtype,
            ttl: set.ttl,
            rdatas: set.rdatas.into_iter().collect(),
        });
        (owner, sets.collect())
    });
    Ok(ZoneData { apex: apex.clone(), soa, sets: sets.collect(), warnings: warnings.into_list() })
}

/// RFC 1034 section 3.6.2: a CNAME stands alone.
fn aliases(sets: &Sets) -> Result<(), (Option<u32>, Reason)> {
    for (owner, types) in sets {
        let Some(cname) = types.get(&rdata::CNAME) else { continue };
        if let Some((&other, set)) = types.iter().find(|(rtype, _)| **rtype != rdata::CNAME) {
            let line = cname.line.max(set.line);
            return Err((Some(line), Reason::CnameAndOther { owner: owner.clone(), other: type_name(other) }));
        }
    }
    Ok(())
}

/// Warns of data that a delegation or a DNAME hides. Glue is meant to be there.
fn cuts(apex: &Name, sets: &Sets, warnings: &mut Warnings) {
    for (owner, types) in sets {
        let delegated = owner != apex && types.contains_key(&rdata::NS);
        if !delegated && let Some(ds) = types.get(&rdata::DS) {
            warnings.push(ds.line, Doubt::DsWithoutNs { owner: owner.clone() });
        }
        let above = hidden_by(apex, sets, owner);
        for (&rtype, set) in types {
            let cut = match &above {
                Some((cut, dname)) => (*dname || !matches!(rtype, rdata::A | rdata::AAAA)).then_some(cut),
                None => {
                    (delegated && !matches!(rtype, rdata::NS | rdata::DS | rdata::A | rdata::AAAA)).then_some(owner)
                }
            };
            if let Some(cut) = cut {
                let doubt = Doubt::Occluded { owner: owner.clone(), rtype: type_name(rtype), cut: cut.clone() };
                warnings.push(set.line, doubt);
            }
        }
    }
}

/// The highest delegation or DNAME strictly above `owner`, and whether it is a DNAME.
fn hidden_by(apex: &Name, sets: &Sets, owner: &Name) -> Option<(Name, bool)> {
    let mut found = None;
    let mut above = owner.clone();
    while above != *apex {
        above = above.parent().expect("every owner is below the apex");
        let Some(types) = sets.get(&above) else { continue };
        if above != *apex && types.contains_key(&rdata::NS) {
            found = Some((above.clone(), false));
        } else if types.contains_key(&rdata::DNAME) {
            found = Some((above.clone(), true));
        }
    }
    found
}

/// Warns of name servers inside the zone that nobody could find the address of.
fn name_servers(apex: &Name, sets: &Sets, warnings: &mut Warnings) {
    for (owner, types) in sets {
        let Some(ns) = types.get(&rdata::NS) else { continue };
        for target in &ns.rdatas {
            let target = Name::from_wire(target).expect("NS data is a name");
            if !target.is_at_or_below(apex) {
                continue;
            }
            let there = sets.get(&target);
            let has = |rtype| there.is_some_and(|types| types.contains_key(&rtype));
            if has(rdata::CNAME) {
                warnings.push(ns.line, Doubt::NsIsAlias { owner: owner.clone(), target });
                continue;
            }
            // A server inside another child zone than its own may get its address there.
            let cut = match hidden_by(apex, sets, &target) {
                Some((cut, _)) => Some(cut),
                None => (target != *apex && has(rdata::NS)).then(|| target.clone()),
            };
            let foreign = cut.is_some_and(|cut| cut != *owner);
            if !has(rdata::A) && !has(rdata::AAAA) && !foreign {
                warnings.push(ns.line, Doubt::NoAddress { owner: owner.clone(), target });
            }
        }
    }
}

/// What is wrong between two zones of one configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error(
        "the zone {child} is inside the zone {parent}, whose file doesn't delegate it; add NS records for {child} there"
    )]
    NotDelegated { parent: Name, child: Name },
}

/// A zone inside another must be delegated by the file of the closest one around it: by NS records at its apex, or
/// at a name between the two (then by a zone in between, which is served elsewhere). `broken` are zones whose files
/// cannot be read: what they delegate is not known, but they must be delegated themselves.
pub fn check_delegations(zones: &[ZoneData], broken: &[Name]) -> Vec<Problem> {
    let by_apex: HashMap<&Name, &ZoneData> = zones.iter().map(|zone| (&zone.apex, zone)).collect();
    let mut problems = BTreeMap::new();
    for child in zones.iter().map(|zone| &zone.apex).chain(broken) {
        let mut at = child.clone();
        let mut delegated = false;
        let mut between = vec![at.clone()];
        while let Some(above) = at.parent() {
            if broken.contains(&above) {
                break;
            }
            if let Some(parent) = by_apex.get(&above) {
                delegated |= between.iter().any(|name| parent.is_delegation(name));
                if !delegated {
                    let problem = Problem::NotDelegated { parent: above, child: child.clone() };
                    problems.insert(child.clone(), problem);
                }
                break;
            }
            between.push(above.clone());
            at = above;
        }
    }
    problems.into_values().collect()
}
