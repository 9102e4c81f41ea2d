//! Which clusters are registered, on disk: an instance that starts while the API with the Secrets is down goes on with the
//! snapshots of those clusters. There are no credentials in it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::config::{Config, MAX_CLUSTERS, Registration};
use crate::model::{Label, Region};
use crate::source::registrations::Registrations;

/// No cluster's snapshot is called so.
const FILE: &str = "clusters.registered";
const FORMAT: u32 = 1;
/// Octets of as many clusters as there can be, with the longest names.
const MOST: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Kept {
    format: u32,
    clusters: Vec<KeptCluster>,
}

#[derive(Serialize, Deserialize)]
struct KeptCluster {
    name: Label,
    region: Option<String>,
}

fn file(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

/// Whoever was registered when an earlier process last looked is, until this one has looked.
pub fn begin(config: &mut Config, registrations: &Registrations) {
    if config.cluster_secrets.is_none() {
        return;
    }
    let known = config.state.as_deref().map(|directory| {
        read(directory).unwrap_or_else(|error| {
            warn!("{}: {error}; it is not used", file(directory).display());
            BTreeMap::new()
        })
    });
    registrations.expect(known.unwrap_or_default());
    registrations.fill(config);
}

/// For the next process.
pub fn keep(config: &Config, registrations: &Registrations) {
    let (Some(directory), Some(_)) = (&config.state, &config.cluster_secrets) else { return };
    let Some(registered) = registrations.to_remember() else { return };
    if let Err(error) = write(directory, registered) {
        warn!("{}: cannot be written ({error}): the one before stays", file(directory).display());
    }
}

fn read(directory: &Path) -> io::Result<BTreeMap<Label, Registration>> {
    let mut text = Vec::new();
    match File::open(file(directory)) {
        Ok(file) => file.take(MOST).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let Kept { format, clusters } = serde_json::from_slice(&text)?;
    if format != FORMAT {
        return Err(io::Error::other(format!("it has the format {format} of another version of Signpost")));
    }
    let known = |KeptCluster { name, region }| {
        let region = region.map(|region| Region(region.into()));
        (name, Registration { credentials: None, region })
    };
    Ok(clusters.into_iter().take(MAX_CLUSTERS).map(known).collect())
}

fn write(directory: &Path, registered: BTreeMap<Label, Registration>) -> io::Result<()> {
    let clusters = registered.into_iter().map(|(name, Registration { region, .. })| {
        let region = region.map(|region| region.0.to_string());
        KeptCluster { name, region }
    });
    let text = serde_json::to_vec(&Kept { format: FORMAT, clusters: clusters.collect() })?;
    fs::create_dir_all(directory)?;
    let temporary = directory.join(format!(".{FILE}.{}.draft", std::process::id()));
    let mut draft = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let written = draft.write_all(&text).and_then(|()| draft.sync_all());
    let renamed = written.and_then(|()| fs::rename(&temporary, file(directory)));
    if renamed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Credentials;

    #[test]
    fn names_come_back_and_credentials_do_not() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap(), BTreeMap::new());
        let label = |text| Label::parse(text).unwrap();
        let registration = |region: Option<&str>, credentials| Registration {
            credentials,
            region: region.map(|region| Region(region.into())),
        };
        let secret = || Some(Credentials::new("very secret"));
        let known =
            [(label("oslo"), registration(Some("north"), secret())), (label("rome"), registration(None, secret()))];
        write(directory.path(), known.into()).unwrap();
        let text = fs::read_to_string(file(directory.path())).unwrap();
        assert!(!text.contains("secret"), "{text}");
        let back = [(label("oslo"), registration(Some("north"), None)), (label("rome"), registration(None, None))];
        assert_eq!(read(directory.path()).unwrap(), back.into());
        for broken in ["", "{", r#"{"format": 2, "clusters": []}"#, r#"{"format": 1, "clusters": [{"name": "A B"}]}"#] {
            fs::write(file(directory.path()), broken).unwrap();
            assert!(read(directory.path()).is_err(), "{broken}");
        }
    }
}
