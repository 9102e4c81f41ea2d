//! An API server of which the test decides every octet: a small honest one that lists and watches what it was given,
//! and faults that are put before single requests. It remembers every state that it had, so that a test
//! can ask whether what was published was ever true.
#![allow(dead_code, reason = "each test file is a crate of its own and uses its own part of this")]

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use signpost::index::Kind;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ask {
    Uid,
    List(Kind),
    Watch(Kind),
    Nodes,
}

/// What one request gets instead of the truth.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A status with these header lines (each ended by CRLF) and body.
    Status(u16, &'static str, String),
    /// 200 with this body.
    Body(String),
    /// The honest answer, changed as text.
    Changed(fn(String) -> String),
    /// The honest answer's first part, with the length of all of it, and then the end of the connection.
    CutByLength(f64),
    /// The same in chunks, without the last chunk.
    CutInChunks(f64),
    /// The same without any length: the end of the connection is the end of the body.
    CutByClose(f64),
    /// The honest answer, an octet at a time.
    Drip(Duration),
    /// No answer, and the connection stays open.
    Silence,
    /// A watch that says these lines and ends in order.
    Lines(Vec<String>),
    /// A watch that says these lines and then nothing more.
    LinesThenSilence(Vec<String>),
    /// A watch that says these lines and is cut off.
    LinesThenCut(Vec<String>),
}

/// How long a watch lives: the test's wish, not the client's.
const WATCH: Duration = Duration::from_millis(300);

type Objects = BTreeMap<(String, String), Value>;

struct State {
    uid: String,
    version: u64,
    objects: HashMap<Kind, Objects>,
    /// Every state that a kind had.
    history: HashMap<Kind, Vec<Objects>>,
    events: Vec<(u64, Kind, &'static str, Value)>,
    /// Watches from before this version are refused with 410.
    compacted: u64,
    faults: HashMap<Ask, VecDeque<Fault>>,
    requests: Vec<(Ask, String)>,
    /// Whether only what is in a namespace may be listed.
    namespaced_only: bool,
    /// The kinds that it has.
    installed: HashSet<Kind>,
    /// The labels of each.
    nodes: Vec<Value>,
}

#[derive(Clone)]
pub struct ScriptedApi {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
    frozen: Arc<watch::Sender<bool>>,
    up: Arc<watch::Sender<bool>>,
}

impl ScriptedApi {
    pub async fn start() -> ScriptedApi {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let empty = || Kind::ALL.map(|kind| (kind, Objects::new()));
        let state = State {
            uid: "uid-1".to_owned(),
            version: 1000,
            objects: HashMap::from(empty()),
            history: empty().map(|(kind, objects)| (kind, vec![objects])).into(),
            events: Vec::new(),
            compacted: 0,
            faults: HashMap::new(),
            requests: Vec::new(),
            namespaced_only: false,
            installed: Kind::CORE.into(),
            nodes: Vec::new(),
        };
        let api = ScriptedApi {
            address,
            state: Arc::new(Mutex::new(state)),
            changed: Arc::new(watch::channel(0).0),
            frozen: Arc::new(watch::channel(false).0),
            up: Arc::new(watch::channel(true).0),
        };
        // Ends with the runtime of the test.
        tokio::spawn(api.clone().serve(listener));
        api
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A kubeconfig for it.
    pub fn kubeconfig(&self, token: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: k, cluster: {{server: 'http://{}'}}}}]\n\
             users: [{{name: u, user: {{token: '{token}'}}}}]\n\
             contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n",
            self.address
        )
    }

    pub fn fault(&self, ask: Ask, fault: Fault) {
        self.state().faults.entry(ask).or_default().push_back(fault);
    }

    /// Creates or replaces.
    pub fn put(&self, kind: Kind, mut object: Value) -> u64 {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let before = state.objects.get_mut(&kind).unwrap().insert(key(&object), object.clone());
        let event = if before.is_some() { "MODIFIED" } else { "ADDED" };
        self.changed(state, kind, event, object)
    }

    pub fn delete(&self, kind: Kind, namespace: &str, name: &str) -> u64 {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let key = (namespace.to_owned(), name.to_owned());
        let mut object = state.objects.get_mut(&kind).unwrap().remove(&key).unwrap();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        self.changed(state, kind, "DELETED", object)
    }

    fn changed(&self, mut state: MutexGuard<'_, State>, kind: Kind, event: &'static str, object: Value) -> u64 {
        let version = state.version;
        state.events.push((version, kind, event, object));
        let now = state.objects[&kind].clone();
        state.history.get_mut(&kind).unwrap().push(now);
        drop(state);
        self.changed.send_replace(version);
        version
    }

    /// Nobody can watch from before now.
    pub fn compact(&self) {
        let mut state = self.state();
        state.version += 1;
        state.compacted = state.version;
    }

    /// As after the restore of a backup: this is the version now, and these are the only objects.
    pub fn restore(&self, version: u64, kind: Kind, objects: Vec<Value>) {
        let mut state = self.state();
        let objects: Objects = objects.into_iter().map(|object| (key(&object), object)).collect();
        state.version = version;
        state.events.clear();
        state.history.get_mut(&kind).unwrap().push(objects.clone());
        state.objects.insert(kind, objects);
    }

    pub fn set_uid(&self, uid: &str) {
        self.state().uid = uid.to_owned();
    }

    pub fn allow_namespaced_only(&self) {
        self.state().namespaced_only = true;
    }

    /// As with a custom resource's definition; without it, 404.
    pub fn install(&self, kind: Kind, installed: bool) {
        let installs = &mut self.state().installed;
        let _ = if installed { installs.insert(kind) } else { installs.remove(&kind) };
    }

    /// A node for each region and zone.
    pub fn set_nodes(&self, places: &[(&str, &str)]) {
        let labels = |(region, zone): &(&str, &str)| json!({"topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": zone});
        self.state().nodes = places.iter().map(labels).collect();
    }

    /// Like SIGSTOP: connections are taken by the kernel, and nobody speaks.
    pub fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    /// Like SIGKILL, and a new start on the same port.
    pub fn set_up(&self, up: bool) {
        self.up.send_replace(up);
    }

    pub fn history(&self, kind: Kind) -> Vec<BTreeMap<(String, String), Value>> {
        self.state().history[&kind].clone()
    }

    pub fn current(&self, kind: Kind) -> BTreeMap<(String, String), Value> {
        self.state().objects[&kind].clone()
    }

    pub fn requests(&self) -> Vec<(Ask, String)> {
        self.state().requests.clone()
    }

    pub fn count(&self, ask: Ask) -> usize {
        self.state().requests.iter().filter(|(asked, _)| *asked == ask).count()
    }

    async fn serve(self, first: TcpListener) {
        let mut listener = Some(first);
        let mut connections = JoinSet::new();
        let mut up = self.up.subscribe();
        loop {
            if !*up.borrow_and_update() {
                listener = None;
                connections.abort_all();
                up.changed().await.unwrap();
                continue;
            }
            let taken = match &listener {
                Some(listener) => listener,
                None => listener.insert(TcpListener::bind(self.address).await.unwrap()),
            };
            tokio::select! {
                _ = up.changed() => {}
                accepted = taken.accept() => {
                    let (stream, _) = accepted.unwrap();
                    // The client may go at any time; that ends the connection and nothing else.
                    connections.spawn(Connection { api: self.clone(), stream }.serve());
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }
}

fn key(object: &Value) -> (String, String) {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

struct Connection {
    api: ScriptedApi,
    stream: TcpStream,
}

impl Connection {
    async fn serve(mut self) -> std::io::Result<()> {
        while let Some(target) = self.request().await? {
            let (ask, namespace) = ask(&target);
            let fault = {
                let mut state = self.api.state();
                state.requests.push((ask, target.clone()));
                state.faults.get_mut(&ask).and_then(VecDeque::pop_front)
            };
            let go_on = match fault {
                Some(fault) => self.fail(fault, ask, &target, namespace.as_deref()).await?,
                None => self.answer(ask, &target, namespace.as_deref()).await?,
            };
            if !go_on {
                break;
            }
        }
        Ok(())
    }

    /// The target of the next request; it must carry the token.
    async fn request(&mut self) -> std::io::Result<Option<String>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match self.stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return Ok(None),
            }
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.to_ascii_lowercase().contains("accept: application/json"), "{head}");
        let authorized = head.contains("Bearer good");
        let target = head.split(' ').nth(1).unwrap().to_owned();
        if !authorized {
            self.status(401, "", &status(401, "Unauthorized")).await?;
            return Box::pin(self.request()).await;
        }
        Ok(Some(target))
    }

    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut frozen = self.api.frozen.subscribe();
        frozen.wait_for(|frozen| !frozen).await.unwrap();
        self.stream.write_all(bytes).await
    }

    async fn status(&mut self, code: u16, headers: &str, body: &str) -> std::io::Result<()> {
        let answer = format!("HTTP/1.1 {code} X\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len());
        self.write(answer.as_bytes()).await
    }

    /// Returns whether the connection is good for another request.
    async fn answer(&mut self, ask: Ask, target: &str, namespace: Option<&str>) -> std::io::Result<bool> {
        match ask {
            Ask::Uid | Ask::Nodes | Ask::List(_) => match self.body(ask, target, namespace) {
                Ok(body) => self.status(200, "", &body).await?,
                Err(code) => self.status(code, "", &status(code, "as scripted")).await?,
            },
            Ask::Watch(kind) => return self.watch(kind, target, namespace).await,
        }
        Ok(true)
    }

    fn body(&self, ask: Ask, target: &str, namespace: Option<&str>) -> Result<String, u16> {
        let state = self.api.state();
        let kind = match ask {
            Ask::Uid if state.namespaced_only => return Err(403),
            Ask::Uid => return Ok(json!({"metadata": {"name": "kube-system", "uid": state.uid}}).to_string()),
            Ask::Nodes => {
                let items: Vec<Value> =
                    state.nodes.iter().map(|labels| json!({"metadata": {"labels": labels}})).collect();
                let from: usize = parameter(target, "continue").map_or(0, |token| token.parse().unwrap());
                let mut metadata = json!({"resourceVersion": "1"});
                // One at a time, so that there are pages.
                if from + 1 < items.len() {
                    metadata["continue"] = json!((from + 1).to_string());
                }
                let (kind, group) = ("PartialObjectMetadataList", "meta.k8s.io/v1");
                let items = items.get(from..(from + 1).min(items.len()));
                return Ok(json!({"kind": kind, "apiVersion": group, "metadata": metadata, "items": items}).to_string());
            }
            Ask::List(kind) | Ask::Watch(kind) => kind,
        };
        if state.namespaced_only && namespace.is_none() {
            return Err(403);
        }
        // The older version alone, so that both ways are gone.
        if !state.installed.contains(&kind) || target.contains("/v1beta1/") {
            return Err(404);
        }
        assert_eq!(parameter(target, "resourceVersion"), None, "a consistent list");
        let limit = parameter(target, "limit").map_or(usize::MAX, |limit| limit.parse().unwrap());
        // A token names the version and the first object that is still to come.
        let (version, from) = match parameter(target, "continue") {
            None => (state.version, 0),
            Some(token) => {
                let (version, from) = token.split_once('-').unwrap();
                (version.parse().unwrap(), from.parse().unwrap())
            }
        };
        if version < state.compacted {
            return Err(410);
        }
        let objects = state.objects[&kind].values();
        let all: Vec<&Value> =
            objects.filter(|object| namespace.is_none_or(|n| object["metadata"]["namespace"] == n)).collect();
        let page: Vec<&Value> = all.iter().copied().skip(from).take(limit).collect();
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if from + page.len() < all.len() {
            metadata["continue"] = json!(format!("{version}-{}", from + page.len()));
        }
        let (name, group) = match kind {
            Kind::Service => ("ServiceList", "v1"),
            Kind::EndpointSlice => ("EndpointSliceList", "discovery.k8s.io/v1"),
            Kind::ServiceExport => ("ServiceExportList", "multicluster.x-k8s.io/v1alpha1"),
            Kind::ServiceImport => ("ServiceImportList", "multicluster.x-k8s.io/v1alpha1"),
            Kind::ServiceLoad => ("ServiceLoadList", "signpost.dev/v1alpha1"),
            Kind::ClusterLoad => ("ClusterLoadList", "signpost.dev/v1alpha1"),
            Kind::Lease => ("LeaseList", "coordination.k8s.io/v1"),
            Kind::HealthReport | Kind::Directive => ("ConfigMapList", "v1"),
        };
        Ok(format!(
            "{{\"kind\":\"{name}\",\"apiVersion\":\"{group}\",\"metadata\":{metadata},\"items\":{}}}",
            serde_json::to_string(&page).unwrap()
        ))
    }

    async fn watch(&mut self, kind: Kind, target: &str, namespace: Option<&str>) -> std::io::Result<bool> {
        assert_eq!(parameter(target, "allowWatchBookmarks").as_deref(), Some("true"));
        assert!(parameter(target, "timeoutSeconds").is_some());
        let mut seen: u64 = parameter(target, "resourceVersion").unwrap().parse().unwrap();
        let mut changed = self.api.changed.subscribe();
        let compacted = self.api.state().compacted;
        if seen < compacted {
            self.status(410, "", &status(410, "too old resource version")).await?;
            return Ok(true);
        }
        self.write(CHUNKED.as_bytes()).await?;
        let end = tokio::time::sleep(WATCH);
        tokio::pin!(end);
        loop {
            let (told, news): (u64, Vec<(u64, String)>) = {
                let state = self.api.state();
                changed.borrow_and_update();
                let events = state.events.iter().filter(|(version, of, _, object)| {
                    *version > seen && *of == kind && namespace.is_none_or(|n| object["metadata"]["namespace"] == n)
                });
                (state.version, events.map(|(version, _, event, object)| (*version, line(event, object))).collect())
            };
            for (version, line) in news {
                self.write(chunk(&line).as_bytes()).await?;
                seen = version;
            }
            let mut peek = [0];
            tokio::select! {
                _ = changed.changed() => {}
                () = &mut end => {
                    // Not the version now: its event may not have been told.
                    self.write(format!("{}0\r\n\r\n", chunk(&bookmark(told))).as_bytes()).await?;
                    return Ok(true);
                }
                // The client has gone.
                _ = self.stream.peek(&mut peek) => return Ok(false),
            }
        }
    }

    async fn fail(&mut self, fault: Fault, ask: Ask, target: &str, namespace: Option<&str>) -> std::io::Result<bool> {
        let honest = |this: &Self| this.body(ask, target, namespace).unwrap();
        let part = |body: &str, share: f64| body[..(body.len() as f64 * share) as usize].to_owned();
        let (lines, end) = match fault {
            Fault::Status(code, headers, body) => {
                self.status(code, headers, &body).await?;
                return Ok(true);
            }
            Fault::Body(body) => {
                self.status(200, "", &body).await?;
                return Ok(true);
            }
            Fault::Changed(change) => {
                let body = change(honest(self));
                self.status(200, "", &body).await?;
                return Ok(true);
            }
            Fault::CutByLength(share) => {
                let body = honest(self);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                self.write((head + &part(&body, share)).as_bytes()).await?;
                return Ok(false);
            }
            Fault::CutInChunks(share) => {
                let body = part(&honest(self), share);
                // An empty chunk would be the last one.
                let chunks = if body.is_empty() { String::new() } else { chunk(&body) };
                self.write((CHUNKED.to_owned() + &chunks).as_bytes()).await?;
                return Ok(false);
            }
            Fault::CutByClose(share) => {
                let body = part(&honest(self), share);
                self.write(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}").as_bytes()).await?;
                return Ok(false);
            }
            Fault::Drip(pause) => {
                let body = honest(self);
                self.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes()).await?;
                for byte in body.bytes() {
                    self.write(&[byte]).await?;
                    tokio::time::sleep(pause).await;
                }
                return Ok(true);
            }
            Fault::Silence => return self.until_gone().await,
            Fault::Lines(lines) => (lines, Some("0\r\n\r\n")),
            Fault::LinesThenSilence(lines) => (lines, None),
            Fault::LinesThenCut(lines) => (lines, Some("ffff\r\n{\"type\"")),
        };
        let mut all = CHUNKED.to_owned();
        lines.iter().for_each(|line| all.push_str(&chunk(line)));
        all.push_str(end.unwrap_or_default());
        self.write(all.as_bytes()).await?;
        if end.is_none() { self.until_gone().await } else { Ok(end == Some("0\r\n\r\n")) }
    }

    async fn until_gone(&mut self) -> std::io::Result<bool> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await?;
        Ok(false)
    }
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// One watch event.
pub fn line(event: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": event, "object": object}))
}

pub fn bookmark(version: u64) -> String {
    line("BOOKMARK", &json!({"kind": "Service", "metadata": {"resourceVersion": version.to_string()}}))
}

/// The body of a refusal.
pub fn status(code: u16, message: &str) -> String {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}).to_string()
}

fn parameter(target: &str, name: &str) -> Option<String> {
    let query = target.split_once('?')?.1;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
}

fn ask(target: &str) -> (Ask, Option<String>) {
    let path = target.split('?').next().unwrap();
    if path == "/api/v1/namespaces/kube-system" {
        return (Ask::Uid, None);
    }
    if path == "/api/v1/nodes" {
        return (Ask::Nodes, None);
    }
    let (group, plural) = path.rsplit_once('/').unwrap();
    let new = "/apis/multicluster.x-k8s.io/v1beta1";
    let mcs = if group.starts_with(new) { new } else { "/apis/multicluster.x-k8s.io/v1alpha1" };
    let (kind, root) = match plural {
        "services" => (Kind::Service, "/api/v1"),
        "endpointslices" => (Kind::EndpointSlice, "/apis/discovery.k8s.io/v1"),
        "serviceexports" => (Kind::ServiceExport, mcs),
        "serviceimports" => (Kind::ServiceImport, mcs),
        "serviceloads" => (Kind::ServiceLoad, "/apis/signpost.dev/v1alpha1"),
        "clusterloads" => (Kind::ClusterLoad, "/apis/signpost.dev/v1alpha1"),
        "leases" => (Kind::Lease, "/apis/coordination.k8s.io/v1"),
        "configmaps" => (Kind::HealthReport, "/api/v1"),
        other => panic!("nobody should ask for {other}: {target}"),
    };
    if kind.is_vote() {
        assert_eq!(parameter(target, "labelSelector").as_deref(), Some("signpost.dev%2Fhealth"));
    }
    if kind == Kind::EndpointSlice {
        assert_eq!(parameter(target, "labelSelector").as_deref(), Some("kubernetes.io%2Fservice-name"));
    }
    let namespace = match group.strip_prefix(root).unwrap() {
        "" => None,
        rest => Some(rest.strip_prefix("/namespaces/").unwrap().to_owned()),
    };
    let watches = parameter(target, "watch").as_deref() == Some("true");
    (if watches { Ask::Watch(kind) } else { Ask::List(kind) }, namespace)
}
