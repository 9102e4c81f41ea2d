//! What was last heard of a cluster, on disk, for a start while its API is down.
//!
//! One file for each cluster, `CLUSTER.snapshot`, so that a bad one costs its own cluster only. A line is a JSON object:
//!
//! ```text
//! {"head":{"format":1,"cluster":"cluster-1","written":"2026-11-29T05:00:00Z",...}}
//! {"service":{...}}                                  what the index keeps, and no verdict
//! {"slice":{...}}
//! {"export":{...}}
//! {"import":{...}}
//! {"directive":{...},"key":{...}}
//! {"end":{"lines":5,"sha256":"..."}}                 of all lines before it
//! ```
//!
//! A reader passes over keys that it does not know, so that versions of Signpost can be changed in both directions; what would be
//! misunderstood has another `format`. A file is written beside the old one and then renamed: there is always a whole one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::config::{Cluster, Export, Namespaces, Source};
use crate::index::{Kept, Kind, Object, ObjectKey};
use crate::model::check::Check;
use crate::model::directive::Directive;
use crate::model::{Label, Service, ServiceExport, ServiceImport, ServiceKey, Slice};
use crate::source::status::Past;

/// Of what this version writes; it reads no other.
pub const FORMAT: u32 = 1;
/// A draft that is older belongs to nobody any more.
const ABANDONED: Duration = Duration::from_secs(3_600);

/// Of whom a snapshot is, and how it was understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    pub format: u32,
    pub cluster: Label,
    pub written: Timestamp,
    pub rules: Rules,
    /// Of its namespace kube-system.
    uid: Option<String>,
    /// How far each kind was heard, in each namespace that was asked for.
    versions: Vec<Version>,
}

/// What the cluster was allowed to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rules {
    pub manifests: bool,
    pub export: Export,
    pub namespaces: Namespaces,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    kind: String,
    namespace: Option<Label>,
    resource_version: String,
}

/// A whole snapshot, as it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub head: Head,
    pub objects: Vec<Object>,
    /// Services that are not ready, since the slices did not come that they wait for.
    pub overdue: Vec<ServiceKey>,
}

/// Why a file is not used. Each goes behind "FILE: ".
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("is no snapshot")]
    NoSnapshot,
    #[error("has the format {0} of another version of Signpost (this one reads {FORMAT})")]
    Format(u32),
    #[error("is of the cluster {0}")]
    OfAnother(Label),
    #[error("line {line}: {what}")]
    Line { line: u64, what: String },
    #[error("ends too early: it was not written to its end")]
    Cut,
    #[error("is damaged: its checksum is another one")]
    Damaged,
}

/// All that a line can say. What is not known is passed over.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<Head>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Service>,
    /// How the service is to be probed.
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<String>,
    /// The service's slices are.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    overdue: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    slice: Option<Slice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    export: Option<ServiceExport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    import: Option<ServiceImport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    directive: Option<Directive>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<ObjectKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<End>,
}

#[derive(Debug, Serialize, Deserialize)]
struct End {
    lines: u64,
    sha256: String,
}

/// The beginning of every first line, whatever its format.
#[derive(Deserialize)]
struct AnyHead {
    head: AnyFormat,
}

#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

impl Head {
    pub fn new(cluster: &Cluster, written: Timestamp, past: Past) -> Head {
        let version = |((kind, namespace), resource_version): ((Kind, _), _)| Version {
            kind: kind.label().to_owned(),
            namespace,
            resource_version,
        };
        Head {
            format: FORMAT,
            cluster: cluster.name.clone(),
            written,
            rules: Rules::of(cluster),
            uid: past.uid,
            versions: past.versions.into_iter().map(version).collect(),
        }
    }

    /// What is remembered of its API. A kind that is not known here is none of ours.
    pub fn past(&self) -> Past {
        let version = |Version { kind, namespace, resource_version }: &Version| {
            let kind = Kind::ALL.into_iter().find(|known| known.label() == kind)?;
            Some(((kind, namespace.clone()), resource_version.clone()))
        };
        Past { uid: self.uid.clone(), versions: self.versions.iter().filter_map(version).collect() }
    }
}

impl Rules {
    pub fn of(cluster: &Cluster) -> Rules {
        Rules {
            manifests: matches!(cluster.source, Source::Manifests { .. }),
            export: cluster.export,
            namespaces: cluster.namespaces.clone(),
        }
    }

    /// Whether everything that was said under these rules may be said under the `new` ones, too.
    pub fn fit(&self, new: &Rules) -> bool {
        let namespaces = match (&new.namespaces, &self.namespaces) {
            (Namespaces::All, _) => true,
            (Namespaces::Only(_), Namespaces::All) => false,
            (new @ Namespaces::Only(_), Namespaces::Only(old)) => old.iter().all(|name| new.allow(name.as_str())),
        };
        let export = new.export == self.export || new.export == Export::All;
        export && namespaces && new.manifests == self.manifests
    }
}

fn line(out: &mut Vec<u8>, line: &Line) {
    serde_json::to_writer(&mut *out, line).expect("a line is plain data, and memory takes all of it");
    out.push(b'\n');
}

/// Lines for a service and its slices.
pub fn put_service(out: &mut Vec<u8>, kept: Kept) {
    let Kept { service, overdue, slices } = kept;
    if let Some(service) = service {
        let check = service.check.as_ref().map(ToString::to_string);
        line(out, &Line { service: Some(service), check, overdue, ..Line::default() });
    }
    slices.into_iter().for_each(|slice| line(out, &Line { slice: Some(slice), ..Line::default() }));
}

pub fn put_export(out: &mut Vec<u8>, export: ServiceExport) {
    line(out, &Line { export: Some(export), ..Line::default() });
}

pub fn put_import(out: &mut Vec<u8>, import: ServiceImport) {
    line(out, &Line { import: Some(import), ..Line::default() });
}

pub fn put_directive(out: &mut Vec<u8>, key: ObjectKey, directive: Directive) {
    line(out, &Line { directive: Some(directive), key: Some(key), ..Line::default() });
}

/// Where a cluster's snapshot is.
pub fn file(directory: &Path, cluster: &Label) -> PathBuf {
    directory.join(format!("{cluster}.snapshot"))
}

/// A snapshot that is being written. Nobody sees it before it is finished; dropped before that, it is gone.
pub struct Draft {
    file: BufWriter<File>,
    digest: Context,
    lines: u64,
    temporary: PathBuf,
    path: PathBuf,
}

impl Draft {
    pub fn begin(directory: &Path, head: &Head) -> io::Result<Draft> {
        fs::create_dir_all(directory)?;
        // Processes that write for the same cluster do not write the same file.
        let temporary = directory.join(format!(".{}.{}.draft", head.cluster, std::process::id()));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        let path = self::file(directory, &head.cluster);
        let (file, digest) = (BufWriter::new(file), Context::new(&SHA256));
        let mut draft = Draft { file, digest, lines: 0, temporary, path };
        let mut first = Vec::new();
        line(&mut first, &Line { head: Some(head.clone()), ..Line::default() });
        draft.append(&first)?;
        Ok(draft)
    }

    /// Whole lines.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.digest.update(lines);
        self.lines += lines.iter().filter(|octet| **octet == b'\n').count() as u64;
        self.file.write_all(lines)
    }

    /// From here on it is the cluster's snapshot, also after a loss of power.
    pub fn finish(mut self) -> io::Result<()> {
        let mut last = Vec::new();
        let end = End { lines: self.lines, sha256: hex(&self.digest) };
        line(&mut last, &Line { end: Some(end), ..Line::default() });
        self.file.write_all(&last)?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After it was renamed there is none.
        let _ = fs::remove_file(&self.temporary);
    }
}

fn hex(digest: &Context) -> String {
    digest.clone().finish().as_ref().iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The cluster's snapshot; `None`: there is none.
pub fn read(directory: &Path, cluster: &Label) -> Result<Option<Snapshot>, Unusable> {
    let file = match File::open(file(directory, cluster)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Unusable::Unreadable(error)),
    };
    read_from(BufReader::new(file), cluster).map(Some)
}

fn read_from(mut file: impl BufRead, cluster: &Label) -> Result<Snapshot, Unusable> {
    let mut octets = Vec::new();
    let mut next = |octets: &mut Vec<u8>| {
        octets.clear();
        let length = file.read_until(b'\n', octets).map_err(Unusable::Unreadable)?;
        Ok(length > 0 && octets.ends_with(b"\n"))
    };
    next(&mut octets)?;
    let AnyHead { head: AnyFormat { format } } = serde_json::from_slice(&octets).map_err(|_| Unusable::NoSnapshot)?;
    if format != FORMAT {
        return Err(Unusable::Format(format));
    }
    let wrong = |line, error: serde_json::Error| Unusable::Line { line, what: error.to_string() };
    let first: Line = serde_json::from_slice(&octets).map_err(|error| wrong(1, error))?;
    let head = first.head.ok_or(Unusable::NoSnapshot)?;
    if head.cluster != *cluster {
        return Err(Unusable::OfAnother(head.cluster));
    }
    let mut snapshot = Snapshot { head, objects: Vec::new(), overdue: Vec::new() };
    let mut digest = Context::new(&SHA256);
    let mut lines = 0;
    // What is damaged may well be no JSON any more; that it is damaged says more.
    let mut spoilt = None;
    loop {
        digest.update(&octets);
        lines += 1;
        if !next(&mut octets)? {
            return Err(Unusable::Cut);
        }
        match serde_json::from_slice::<Line>(&octets) {
            Ok(Line { end: Some(end), .. }) => {
                let same = end.lines == lines && end.sha256 == hex(&digest);
                return match (same, spoilt) {
                    (false, _) => Err(Unusable::Damaged),
                    (true, Some(error)) => Err(error),
                    (true, None) => Ok(snapshot),
                };
            }
            Ok(line) => snapshot.take(line),
            Err(error) => spoilt = spoilt.or(Some(wrong(lines + 1, error))),
        }
    }
}

impl Snapshot {
    fn take(&mut self, line: Line) {
        let Line { service, check, overdue, slice, export, import, directive, key, head: _, end: _ } = line;
        if let Some(mut service) = service {
            // It was written from one, with these ports.
            let check = check.and_then(|text| Check::parse(&text, &service.ports).ok());
            service.check = check.map(std::sync::Arc::new);
            self.overdue.extend(overdue.then(|| service.key.clone()));
            self.objects.push(Object::Service(service));
        }
        self.objects.extend(slice.map(Object::Slice));
        self.objects.extend(export.map(Object::Export));
        self.objects.extend(import.map(Object::Import));
        self.objects.extend(directive.zip(key).map(|(directive, key)| Object::Directive(key, directive)));
    }
}

/// Puts a file that cannot be used aside, where nothing is written over it. Where it is now.
pub fn put_aside(directory: &Path, cluster: &Label) -> io::Result<PathBuf> {
    let aside = directory.join(format!("{cluster}.snapshot.unusable"));
    fs::rename(file(directory, cluster), &aside)?;
    Ok(aside)
}

/// Removes the drafts of processes that were killed while they wrote. Another process may be at work here, whose are young.
pub fn clean(directory: &Path, now: SystemTime) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_draft = name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(".draft"));
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|at| now.duration_since(at).ok());
        if is_draft && age.is_some_and(|age| age >= ABANDONED) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests;
