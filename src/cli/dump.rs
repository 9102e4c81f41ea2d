//! `signpost dump`: a zone as a zone file, of the running server, or of what stands on disk.

use std::path::Path;

use super::explain::{OFFLINE, ask, encoded, load, who};
use crate::app::Offline;
use crate::dump::{Dump, END, Wanted};

/// Octets of a zone file: a million services have some 500.
const MAX_ZONE: u64 = 1 << 30;

/// The zone file, or one sentence that says what is wrong.
pub fn run(path: &Path, wanted: &Wanted, offline: bool) -> Result<String, String> {
    if offline {
        return from_disk(path, wanted);
    }
    let Wanted { zone, cluster, client, subnet } = wanted;
    let target = format!("/dump?zone={}{}", encoded(zone), who(*client, cluster.as_ref(), *subnet));
    let text = ask(&load(path)?, &target, MAX_ZONE, OFFLINE)?;
    let last = text.lines().next_back().unwrap_or_default();
    if last.starts_with(END) { Ok(text) } else { Err("the server did not give all of the zone in time".to_owned()) }
}

fn from_disk(path: &Path, wanted: &Wanted) -> Result<String, String> {
    let Offline { config, zones, federation, reader } = Offline::read(path).map_err(|error| error.to_string())?;
    let (mut dump, mut text) = Dump::begin(&config, reader, &zones, wanted).map_err(|error| error.to_string())?;
    if dump.has_services() {
        text += &dump.services(&federation.services());
    }
    Ok(text + &dump.end())
}
