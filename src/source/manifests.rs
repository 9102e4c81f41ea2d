//! A directory of manifests as a cluster: what `kubectl get -o yaml` prints, and what people write by hand.
//!
//! The files `*.yaml`, `*.yml` and `*.json` of the directory itself are read, in the order of their names; as with `kubectl apply -f`,
//! directories below are not. Hidden files are not either, which leaves out what editors put beside a file and the
//! `..data` of a mounted ConfigMap; symbolic links are followed, which such a mount consists of.

use std::collections::{BTreeMap, BTreeSet, HashMap, hash_map};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde_json::Value;

use self::document::{Broken, Document, Syntax};
use super::convert::{self, Converted, Fault, Problem};
use super::slim;
use super::stamp::Stamp;
use crate::config::{Cluster, Limits};
use crate::index::{Kind, Object, ObjectKey};
use crate::model::{Service, Slice};

mod document;
mod follow;

pub use self::follow::{Memory, run};

/// Most problems of one reading that are told one by one: a directory of rubbish must not fill memory and log.
pub const MAX_PROBLEMS: usize = 1_000;

/// How often a reading is begun anew because a file went away under it. After that the file counts as unreadable.
const CALM_ATTEMPTS: usize = 3;

/// The namespace of an object that names none, as for kubectl.
const DEFAULT_NAMESPACE: &str = "default";

/// What a directory holds.
#[derive(Debug, Default)]
pub struct Reading {
    pub services: Vec<Service>,
    pub slices: Vec<Slice>,
    /// What is of another kind.
    pub others: Vec<Object>,
    /// The first [`MAX_PROBLEMS`], in the order of files and documents.
    pub problems: Vec<Trouble>,
    /// How many more there are.
    pub more_problems: u64,
    /// The directory could be listed. If not, nothing is known: this is not an empty directory.
    pub listed: bool,
    /// No file went away between the listing and its own turn. If one did, either it alone was deleted, or the
    /// directory is going: only another listing tells, and guessing would take every object out or keep one too many.
    calm: bool,
    files: BTreeMap<OsString, Said>,
    digest: u64,
}

impl Reading {
    pub fn by_kind(self) -> BTreeMap<Kind, Vec<Object>> {
        let services = self.services.into_iter().map(Object::Service);
        let slices = self.slices.into_iter().map(Object::Slice);
        let mut kinds: BTreeMap<Kind, Vec<Object>> = BTreeMap::new();
        for object in services.chain(slices).chain(self.others) {
            kinds.entry(object.kind()).or_default().push(object);
        }
        kinds
    }
}

/// What a file says, by identity.
#[derive(Debug, Default)]
struct Said {
    good: BTreeSet<(Kind, ObjectKey)>,
    malformed: BTreeSet<(Kind, ObjectKey)>,
    /// Something in it cannot be understood, not even whom it is about.
    broken: bool,
}

/// A problem and its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trouble {
    /// The file, or the directory.
    pub file: PathBuf,
    /// Counted from 1.
    pub document: Option<u32>,
    pub object: Option<(Kind, ObjectKey)>,
    pub problem: Problem,
    /// Counted from 1; of the field, or at least of the document.
    pub line: Option<u64>,
}

/// Reads a directory. Whatever is wrong with it is in [`Reading::problems`].
pub fn read(directory: &Path, cluster: &Cluster, limits: &Limits) -> Reading {
    for _ in 0..CALM_ATTEMPTS {
        let reading = read_once(directory, cluster, limits);
        if reading.calm {
            return reading;
        }
    }
    read_once(directory, cluster, limits)
}

fn read_once(directory: &Path, cluster: &Cluster, limits: &Limits) -> Reading {
    let reading = Reading { calm: true, ..Reading::default() };
    let mut reader = Reader { directory, cluster, limits, reading, counts: Default::default(), seen: HashMap::new() };
    match list(directory, limits) {
        Ok(listing) => reader.directory(&listing),
        Err(error) => {
            let problem = Problem::unreadable(&error);
            reader.trouble(Trouble { file: directory.into(), document: None, object: None, problem, line: None });
        }
    }
    reader.reading
}

/// Of files that had been the same for a while: what each was, and what that came to.
type Digests = HashMap<OsString, (Stamp, u64)>;

/// What changes when [`read`] could come to something else; `None` when the directory cannot be listed. Files that are as `known`
/// says are not read again; `now` is what files' times are compared with.
fn digest(directory: &Path, limits: &Limits, known: &mut Digests, now: SystemTime) -> Option<u64> {
    let listing = list(directory, limits).ok()?;
    let mut hasher = DefaultHasher::new();
    let before = std::mem::take(known);
    for name in &listing.names {
        let digest = digest_file(&directory.join(name), limits, before.get(name), now);
        let (digest, stamp) = digest.unwrap_or_else(|problem| (digest_contents(&Err(problem)), None));
        known.extend(stamp.map(|stamp| (name.clone(), (stamp, digest))));
        (name, digest).hash(&mut hasher);
    }
    listing.too_many.hash(&mut hasher);
    Some(hasher.finish())
}

/// With what to know it by the next time, unless it may change without that changing.
fn digest_file(
    path: &Path,
    limits: &Limits,
    known: Option<&(Stamp, u64)>,
    now: SystemTime,
) -> Result<(u64, Option<Stamp>), Problem> {
    // Opened first: a network file system asks its server then whether what it knows of the file still holds.
    let file = open(path)?;
    let stamp = Stamp::from(&file.metadata().map_err(|error| Problem::unreadable(&error))?);
    if let Some((_, digest)) = known.filter(|(known, _)| *known == stamp) {
        return Ok((*digest, Some(stamp)));
    }
    Ok((digest_contents(&contents(file, limits)), stamp.is_settled(now).then_some(stamp)))
}

fn digest_contents(contents: &Result<Vec<u8>, Problem>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match contents {
        Ok(bytes) => bytes.hash(&mut hasher),
        Err(problem) => problem.to_string().hash(&mut hasher),
    }
    hasher.finish()
}

struct Listing {
    names: BTreeSet<OsString>,
    too_many: bool,
}

fn list(directory: &Path, limits: &Limits) -> io::Result<Listing> {
    let most = limits.manifest_files as usize;
    let mut listing = Listing { names: BTreeSet::new(), too_many: false };
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        if syntax(&name).is_none() {
            continue;
        }
        // A link that leads nowhere stays in, so that it is told.
        if std::fs::metadata(directory.join(&name)).is_ok_and(|meta| !meta.is_file()) {
            continue;
        }
        listing.names.insert(name);
        if listing.names.len() > most {
            listing.names.pop_last();
            listing.too_many = true;
        }
    }
    Ok(listing)
}

/// `None`: not a manifest, by its name.
fn syntax(name: &OsStr) -> Option<Syntax> {
    if matches!(name.as_encoded_bytes().first(), None | Some(b'.' | b'#')) {
        return None;
    }
    match Path::new(name).extension()?.to_str()? {
        "yaml" | "yml" => Some(Syntax::Yaml),
        "json" => Some(Syntax::Json),
        _ => None,
    }
}

fn open(path: &Path) -> Result<File, Problem> {
    File::open(path).map_err(|error| Problem::unreadable(&error))
}

fn contents(file: File, limits: &Limits) -> Result<Vec<u8>, Problem> {
    let limit = limits.manifest_size;
    let mut bytes = Vec::new();
    // One octet more than the limit tells a file that is too long, also one that grows while it is read.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| Problem::unreadable(&error))?;
    if bytes.len() as u64 > limit { Err(Problem::Limit { limit, of: "octets" }) } else { Ok(bytes) }
}

struct Reader<'a> {
    directory: &'a Path,
    cluster: &'a Cluster,
    limits: &'a Limits,
    reading: Reading,
    /// By kind.
    counts: [u64; Kind::ALL.len()],
    /// Where each object was first seen.
    seen: HashMap<(Kind, ObjectKey), Place>,
}

/// The file and the number of the document.
#[derive(Debug, Clone)]
struct Place {
    name: OsString,
    document: u32,
}

/// What a document's `apiVersion` and `kind` mean here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Object(Kind),
    /// Of objects that name their kinds, or of one kind that they need not name.
    List(Option<Kind>),
    /// Some other object of a cluster, as real directories of manifests have them.
    Other,
    /// Nothing that Kubernetes has under this group: most likely a slip of the pen in one of the kinds above.
    Nonsense,
}

impl Reader<'_> {
    fn directory(&mut self, listing: &Listing) {
        let mut hasher = DefaultHasher::new();
        for name in &listing.names {
            let path = self.directory.join(name);
            let contents = open(&path).and_then(|file| contents(file, self.limits));
            // A link that leads nowhere is still there.
            if contents.is_err() && path.symlink_metadata().is_err() {
                self.reading.calm = false;
            }
            (name, digest_contents(&contents)).hash(&mut hasher);
            self.file(name, contents);
        }
        listing.too_many.hash(&mut hasher);
        if listing.too_many {
            let problem = Problem::Limit { limit: self.limits.manifest_files.into(), of: "manifest files" };
            self.trouble(Trouble { file: self.directory.into(), document: None, object: None, problem, line: None });
        }
        self.reading.listed = true;
        self.reading.digest = hasher.finish();
    }

    fn file(&mut self, name: &OsStr, contents: Result<Vec<u8>, Problem>) {
        self.reading.files.insert(name.to_owned(), Said::default());
        let text = contents.and_then(|bytes| {
            // An editor, or a full disk, empties a file before it writes it. Who wants the objects gone deletes the file.
            if bytes.iter().all(u8::is_ascii_whitespace) {
                return Err(Problem::syntax("the file is empty (to withdraw its objects, delete it)"));
            }
            String::from_utf8(bytes).map_err(|error| Problem::syntax(&error.utf8_error().to_string()))
        });
        let text = match text {
            Ok(text) => text,
            Err(problem) => {
                self.said(name).broken = true;
                let file = self.directory.join(name);
                return self.trouble(Trouble { file, document: None, object: None, problem, line: None });
            }
        };
        let syntax = syntax(name).expect("the listing has only names with a syntax");
        for document in document::split(&text, syntax) {
            self.document(name, &document);
        }
    }

    fn document(&mut self, name: &OsStr, document: &Document<'_>) {
        let mut place = DocumentReader {
            place: Place { name: name.to_owned(), document: document.number },
            troubles: Vec::new(),
            reader: self,
        };
        match document.parse() {
            Ok(value) => place.top(value),
            Err(Broken { line, problem }) => {
                place.reader.said(name).broken = true;
                place.trouble(None, problem, line);
            }
        }
        let mut troubles = place.troubles;
        let paths: Vec<String> =
            troubles.iter().filter_map(|trouble| Some(trouble.problem.path()?.to_owned())).collect();
        let lines = if paths.is_empty() { BTreeMap::new() } else { document.lines(&paths) };
        for trouble in &mut troubles {
            let of_field = || lines.get(trouble.problem.path()?).copied();
            trouble.line = trouble.line.or_else(of_field).or(Some(document.line));
        }
        troubles.into_iter().for_each(|trouble| self.trouble(trouble));
    }

    fn said(&mut self, name: &OsStr) -> &mut Said {
        self.reading.files.get_mut(name).expect("every file has its entry before it is read")
    }

    fn trouble(&mut self, trouble: Trouble) {
        if self.reading.problems.len() < MAX_PROBLEMS {
            self.reading.problems.push(trouble);
        } else {
            self.reading.more_problems += 1;
        }
    }
}

/// One document on its way.
struct DocumentReader<'r, 'a> {
    reader: &'r mut Reader<'a>,
    place: Place,
    troubles: Vec<Trouble>,
}

impl DocumentReader<'_, '_> {
    fn top(&mut self, mut value: Value) {
        if value.is_null() {
            return;
        }
        match self.sort(&value, None, "") {
            Some(Sort::List(of)) => match value.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => {
                    for (i, item) in items.into_iter().enumerate() {
                        self.object(item, of, &format!("items[{i}]"));
                    }
                }
                // The API prints [] for an empty list. Null, or nothing, is a list that got lost.
                Some(Value::Null) | None => self.nonsense(Problem::field("items", "null", Fault::EmptyList)),
                Some(other) => self.nonsense(Problem::wrong_type("items", &expected("a list", &other))),
            },
            Some(_) => self.object(value, None, ""),
            None => {}
        }
    }

    /// One object, which stands at `at` in its document.
    fn object(&mut self, mut value: Value, of: Option<Kind>, at: &str) {
        let kind = match self.sort(&value, of, at) {
            Some(Sort::Object(kind)) => kind,
            Some(sort @ (Sort::List(_) | Sort::Other | Sort::Nonsense)) => {
                let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
                let problem = Problem::unknown_kind(text("apiVersion"), text("kind"));
                return match sort {
                    Sort::Nonsense => self.nonsense(problem),
                    _ => self.trouble(None, problem, None),
                };
            }
            None => return,
        };
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
            && kind != Kind::ClusterLoad
        {
            let namespace = metadata.entry("namespace").or_insert(Value::Null);
            if namespace.is_null() || namespace == "" {
                *namespace = DEFAULT_NAMESPACE.into();
            }
        }
        let cluster = self.reader.cluster;
        let converted = match kind {
            Kind::Service => convert_value(&value, cluster, convert::service),
            Kind::EndpointSlice => convert_value(&value, cluster, convert::slice),
            Kind::ServiceExport => convert_value(&value, cluster, convert::service_export),
            Kind::ServiceImport => convert_value(&value, cluster, convert::service_import),
            Kind::ServiceLoad => convert_value(&value, cluster, convert::service_load),
            Kind::ClusterLoad => convert_value(&value, cluster, convert::cluster_load),
            // Nobody writes what it sees into a directory.
            Kind::Directive => convert_value(&value, cluster, convert::directive),
            Kind::Lease | Kind::HealthReport => return,
        };
        self.converted(kind, converted, at);
    }

    fn converted(&mut self, kind: Kind, converted: Converted, at: &str) {
        match converted {
            Converted::Object { object, left_out } => {
                let key = object.key();
                if !self.first(kind, &key) {
                    return;
                }
                let limit = u64::from(self.reader.limits.objects_per_cluster);
                let count = &mut self.reader.counts[kind as usize];
                *count += 1;
                if *count > limit {
                    return self.trouble(Some((kind, key)), Problem::Limit { limit, of: "objects before it" }, None);
                }
                let reading = &mut self.reader.reading;
                match object {
                    Object::Service(service) => reading.services.push(service),
                    Object::Slice(slice) => reading.slices.push(slice),
                    other => reading.others.push(other),
                }
                let name = self.place.name.clone();
                self.reader.said(&name).good.insert((kind, key.clone()));
                for problem in left_out {
                    self.trouble(Some((kind, key.clone())), problem.within(at), None);
                }
            }
            Converted::NotExported(key) | Converted::Ignored(key) => {
                self.first(kind, &key);
            }
            Converted::Malformed { key: Some(key), problem } => {
                self.trouble(Some((kind, key.clone())), problem.within(at), None);
                if self.first(kind, &key) {
                    let name = self.place.name.clone();
                    self.reader.said(&name).malformed.insert((kind, key));
                }
            }
            Converted::Malformed { key: None, problem } => self.nonsense(problem.within(at)),
        }
    }

    /// Whether this is the first word on an object. The first in the order of files is used, malformed or not, so that an
    /// error in one file never brings up what another one says about the same object.
    fn first(&mut self, kind: Kind, key: &ObjectKey) -> bool {
        match self.reader.seen.entry((kind, key.clone())) {
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(self.place.clone());
                true
            }
            hash_map::Entry::Occupied(first) => {
                let first = first.get();
                let place = format!("{}, document {}", first.name.display(), first.document);
                self.trouble(Some((kind, key.clone())), Problem::Duplicate { first: place }, None);
                false
            }
        }
    }

    /// `None`: told, and nothing can be done with it.
    fn sort(&mut self, value: &Value, of: Option<Kind>, at: &str) -> Option<Sort> {
        if !value.is_object() {
            let at = if at.is_empty() { "the document" } else { at };
            self.nonsense(Problem::wrong_type(at, &expected("a Kubernetes object", value)));
            return None;
        }
        // The items of a ServiceList, as the API itself writes it, do not say what they are.
        if let (Some(kind), None, None) = (of, value.get("apiVersion"), value.get("kind")) {
            return Some(Sort::Object(kind));
        }
        let mut text = |field: &str| match value.get(field) {
            Some(Value::String(text)) => Some(text.as_str()),
            other => {
                let what = expected("a text", other.unwrap_or(&Value::Null));
                self.nonsense(Problem::wrong_type(field, &what).within(at));
                None
            }
        };
        let (api_version, kind) = (text("apiVersion")?, text("kind")?);
        let labels = value.pointer("/metadata/labels").and_then(Value::as_object);
        if (api_version, kind) == ("v1", "ConfigMap")
            && labels.is_some_and(|labels| labels.contains_key(slim::DIRECTIVE))
        {
            return Some(Sort::Object(Kind::Directive));
        }
        Some(sort(api_version, kind))
    }

    /// A problem of something whose identity is not known.
    fn nonsense(&mut self, problem: Problem) {
        let name = self.place.name.clone();
        self.reader.said(&name).broken = true;
        self.trouble(None, problem, None);
    }

    fn trouble(&mut self, object: Option<(Kind, ObjectKey)>, problem: Problem, line: Option<u64>) {
        // The reader counts what is beyond this; what it will not keep, it need not be given in full.
        if self.troubles.len() < MAX_PROBLEMS {
            let file = self.reader.directory.join(&self.place.name);
            self.troubles.push(Trouble { file, document: Some(self.place.document), object, problem, line });
        } else {
            self.reader.reading.more_problems += 1;
        }
    }
}

fn convert_value<T: DeserializeOwned>(
    value: &Value,
    cluster: &Cluster,
    convert: fn(T, &Cluster) -> Converted,
) -> Converted {
    match slim::from_value(value) {
        Ok(raw) => convert(raw, cluster),
        Err(error) => convert::undecodable(*error, cluster),
    }
}

fn sort(api_version: &str, kind: &str) -> Sort {
    /// The kinds of `v1` beside Service.
    const CORE: [&str; 16] = [
        "Binding",
        "ComponentStatus",
        "ConfigMap",
        "Endpoints",
        "Event",
        "LimitRange",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "Pod",
        "PodTemplate",
        "ReplicationController",
        "ResourceQuota",
        "Secret",
        "ServiceAccount",
    ];
    const MCS_GROUP: &str = "multicluster.x-k8s.io/v1beta1";
    const MCS_ALPHA_GROUP: &str = "multicluster.x-k8s.io/v1alpha1";
    const LOAD_GROUP: &str = "signpost.dev/v1alpha1";
    match (api_version, kind) {
        ("v1", "Service") => Sort::Object(Kind::Service),
        ("discovery.k8s.io/v1", "EndpointSlice") => Sort::Object(Kind::EndpointSlice),
        (MCS_GROUP | MCS_ALPHA_GROUP, "ServiceExport") => Sort::Object(Kind::ServiceExport),
        (MCS_GROUP | MCS_ALPHA_GROUP, "ServiceImport") => Sort::Object(Kind::ServiceImport),
        (MCS_GROUP | MCS_ALPHA_GROUP, "ServiceExportList") => Sort::List(Some(Kind::ServiceExport)),
        (MCS_GROUP | MCS_ALPHA_GROUP, "ServiceImportList") => Sort::List(Some(Kind::ServiceImport)),
        (LOAD_GROUP, "ServiceLoad") => Sort::Object(Kind::ServiceLoad),
        (LOAD_GROUP, "ClusterLoad") => Sort::Object(Kind::ClusterLoad),
        (LOAD_GROUP, "ServiceLoadList") => Sort::List(Some(Kind::ServiceLoad)),
        (LOAD_GROUP, "ClusterLoadList") => Sort::List(Some(Kind::ClusterLoad)),
        ("v1", "List") => Sort::List(None),
        ("v1", "ServiceList") => Sort::List(Some(Kind::Service)),
        ("discovery.k8s.io/v1", "EndpointSliceList") => Sort::List(Some(Kind::EndpointSlice)),
        ("v1", kind) if CORE.contains(&kind) => Sort::Other,
        // Service and EndpointSlice under another group's name, too: Knative has a Service of its own, and
        // `discovery.k8s.io/v1beta1` is gone since Kubernetes 1.25.
        ("v1" | "discovery.k8s.io/v1" | MCS_GROUP | MCS_ALPHA_GROUP | LOAD_GROUP, _) => Sort::Nonsense,
        _ => Sort::Other,
    }
}

fn expected(what: &str, found: &Value) -> String {
    let found = match found {
        Value::Null => "null or nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    };
    format!("expected {what}, found {found}")
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(document) = self.document {
            write!(f, ", document {document}")?;
        }
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some((kind, key)) = &self.object {
            write!(f, ": {} {key}", kind.name())?;
        }
        write!(f, ": {}", self.problem)
    }
}

#[cfg(test)]
mod tests;
