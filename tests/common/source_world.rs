//! A kube source that runs against a scripted API server, and what its updates come to.
#![allow(dead_code, reason = "each test file is a crate of its own and uses its own part of this")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use signpost::config::{self, Export, IngressRanges, Namespaces, Source};
use signpost::index::{Object, ObjectKey, Update};
use signpost::model::{ClusterId, Label};
use signpost::source::convert::{self, Converted};
use signpost::source::kube::{self, Identities, Timing};
use signpost::source::places::Discovered;
use signpost::source::status::{ErrorReason, Status};
use signpost::source::{Feed, Message, Number, slim};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::scripted_api::{Kind, ScriptedApi};

pub const SERVICE: Kind = Kind::Service;
pub const SLICE: Kind = Kind::EndpointSlice;
/// On a busy machine; nothing here takes more than some seconds.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Times that make tests fast, in the same order of size as the real ones.
pub fn timing() -> Timing {
    let mut timing = Timing {
        small: Duration::from_secs(2),
        read: Duration::from_secs(3),
        watch: Duration::from_secs(1),
        watch_spacing: Duration::from_millis(20),
        relist_again: Duration::from_millis(50),
        missing: Duration::from_millis(100),
        places: Duration::from_millis(200),
        ..Timing::default()
    };
    timing.pace.first = Duration::from_millis(20);
    timing.pace.cap = Duration::from_millis(200);
    timing
}

pub fn cluster(name: &str, file: &tempfile::NamedTempFile) -> config::Cluster {
    config::Cluster {
        name: Label::parse(name).unwrap(),
        source: Source::Kubeconfig { file: file.path().to_owned(), context: None },
        region: None,
        availability_zones: Vec::new(),
        placed_by_nodes: false,
        network: None,
        client_cidrs: Vec::new(),
        ingress: IngressRanges::default(),
        export: Export::LoadBalancer,
        namespaces: Namespaces::All,
        weight: config::DEFAULT_WEIGHT,
        voter: None,
        directives: None,
        mcs: false,
    }
}

pub fn limits() -> config::Limits {
    config::Limits {
        udp_workers: 1,
        udp_receive_buffer: 0,
        tcp_connections: 0,
        tcp_connections_per_client: 0,
        tcp_idle: Duration::ZERO,
        tcp_idle_internal: Duration::ZERO,
        sync_wait: Duration::ZERO,
        lame_duck: Duration::ZERO,
        manifest_size: 0,
        manifest_files: 0,
        objects_per_cluster: 20,
        endpoints_per_service: 1000,
    }
}

pub fn kubeconfig(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// A Service of type LoadBalancer.
pub fn service(name: &str, ip: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
                 "selector": {"a": "b"}, "ports": [{"port": 80, "protocol": "TCP"}]},
        "status": {"loadBalancer": {"ingress": [{"ip": ip}]}}
    })
}

pub fn slice(name: &str, ip: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}],
        "ports": [{"port": 8080, "protocol": "TCP", "name": ""}]
    })
}

pub fn versioned(mut object: Value, version: u64) -> Value {
    object["metadata"]["resourceVersion"] = json!(version.to_string());
    object
}

pub type Known = BTreeMap<ObjectKey, Object>;

/// What the API's objects come to, after the conversion that has its own tests.
pub fn converted<'a>(config: &config::Cluster, kind: Kind, objects: impl Iterator<Item = &'a Value>) -> Known {
    objects
        .filter_map(|object| {
            let raw = object.to_string();
            let converted = match kind {
                SERVICE => slim::from_json(raw.as_bytes()).map(|raw| convert::service(raw, config)),
                SLICE => slim::from_json(raw.as_bytes()).map(|raw| convert::slice(raw, config)),
                Kind::ServiceExport => slim::from_json(raw.as_bytes()).map(|raw| convert::service_export(raw, config)),
                Kind::ServiceImport => slim::from_json(raw.as_bytes()).map(|raw| convert::service_import(raw, config)),
                Kind::ServiceLoad => slim::from_json(raw.as_bytes()).map(|raw| convert::service_load(raw, config)),
                Kind::ClusterLoad => slim::from_json(raw.as_bytes()).map(|raw| convert::cluster_load(raw, config)),
                Kind::Lease => slim::from_json(raw.as_bytes()).map(|raw| convert::heartbeat(raw, config)),
                Kind::HealthReport => slim::from_json(raw.as_bytes()).map(|raw| convert::health_report(raw, config)),
                Kind::Directive => slim::from_json(raw.as_bytes()).map(|raw| convert::directive(raw, config)),
            };
            match converted {
                Ok(Converted::Object { object, .. }) => Some((object.key(), object)),
                _ => None,
            }
        })
        .collect()
}

/// A source that runs, and what its updates come to.
pub struct World {
    pub api: ScriptedApi,
    pub config: Arc<config::Cluster>,
    pub status: Arc<Status>,
    pub relist: Arc<Notify>,
    pub discovered: Arc<Discovered>,
    pub stop: CancellationToken,
    pub updates: mpsc::Receiver<Message>,
    /// `None` until the first list of the kind.
    pub known: BTreeMap<Kind, Known>,
    pub resets: BTreeMap<Kind, usize>,
    /// Off in the tests where an object is malformed: then the last good state of it is from another time.
    pub check_history: bool,
    pub task: JoinHandle<()>,
    _file: tempfile::NamedTempFile,
}

impl World {
    pub async fn start(api: &ScriptedApi) -> World {
        World::start_with(api, timing(), Arc::default(), |_| {}).await
    }

    pub async fn start_with(
        api: &ScriptedApi,
        timing: Timing,
        identities: Arc<Identities>,
        change: fn(&mut config::Cluster),
    ) -> World {
        let file = kubeconfig(&api.kubeconfig("good"));
        World::start_from(api, timing, identities, change, file, "c1", 0).await
    }

    pub async fn start_from(
        api: &ScriptedApi,
        timing: Timing,
        identities: Arc<Identities>,
        change: fn(&mut config::Cluster),
        file: tempfile::NamedTempFile,
        name: &str,
        id: u16,
    ) -> World {
        let mut config = cluster(name, &file);
        change(&mut config);
        let config = Arc::new(config);
        let prepared = kube::prepare_with(&config, timing).await.unwrap();
        // Small, so that the source has to wait for the publisher now and then.
        let (sender, updates) = mpsc::channel(2);
        let (status, relist, stop) =
            (Arc::new(Status::new(Instant::now())), Arc::new(Notify::new()), CancellationToken::new());
        let discovered = Arc::<Discovered>::default();
        let feed = Feed {
            cluster: Number::new(ClusterId(id)),
            config: Arc::clone(&config),
            updates: sender,
            status: Arc::clone(&status),
            relist: Arc::clone(&relist),
            discovered: Arc::clone(&discovered),
            stop: stop.clone(),
            limits: Arc::new(limits()),
        };
        World {
            api: api.clone(),
            config,
            status,
            relist,
            discovered,
            stop,
            updates,
            known: BTreeMap::new(),
            resets: BTreeMap::new(),
            check_history: true,
            task: tokio::spawn(kube::run(prepared, feed, identities)),
            _file: file,
        }
    }

    /// Takes updates until `good`. Fails after [`PATIENCE`], or when something was published that never was.
    pub async fn until(&mut self, what: &str, good: impl Fn(&World) -> bool) {
        let end = tokio::time::Instant::now() + PATIENCE;
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while !good(self) {
            tokio::select! {
                message = self.updates.recv() => {
                    let (_, update) = message.unwrap_or_else(|| panic!("the source ended while waiting for {what}"));
                    self.apply(update);
                }
                _ = tick.tick() => {}
                () = tokio::time::sleep_until(end) => {
                    let errors: Vec<_> = ErrorReason::ALL.iter().map(|&r| (r, self.status.errors(r))).filter(|e| e.1 > 0).collect();
                    panic!("not within {PATIENCE:?}: {what}\nknown {:#?}\nerrors {errors:?}\nrequests {:#?}", self.known, self.api.requests())
                }
            }
        }
    }

    pub fn apply(&mut self, update: Update) {
        let kind = match update {
            Update::Apply(object) => {
                let kind = object.kind();
                self.known.get_mut(&kind).expect("a list comes first").insert(object.key(), object);
                kind
            }
            Update::Delete(kind, key) => {
                self.known.get_mut(&kind).expect("a list comes first").remove(&key);
                kind
            }
            Update::Reset { kind, objects, keep } => {
                let mut before = self.known.remove(&kind).unwrap_or_default();
                before.retain(|key, _| keep.contains(key));
                before.extend(objects.into_iter().map(|object| (object.key(), object)));
                self.known.insert(kind, before);
                *self.resets.entry(kind).or_default() += 1;
                kind
            }
        };
        if self.check_history {
            let states = self.api.history(kind);
            let states: Vec<Known> = states.iter().map(|state| converted(&self.config, kind, state.values())).collect();
            // Namespaces that are watched one by one have no order among each other.
            let parts = match &self.config.namespaces {
                Namespaces::All => vec![None],
                Namespaces::Only(list) => list.iter().map(Some).collect(),
            };
            for part in parts {
                let of = |known: &Known| -> Known {
                    let inside = known.iter().filter(|(key, _)| part.is_none_or(|n| n.as_str() == &*key.namespace));
                    inside.map(|(key, object)| (key.clone(), object.clone())).collect()
                };
                let now = of(&self.known[&kind]);
                assert!(states.iter().any(|state| of(state) == now), "never true of {kind:?}: {now:#?}");
            }
        }
    }

    pub async fn until_current(&mut self) {
        self.until("what the API has", World::is_current).await;
    }

    pub fn is_current(&self) -> bool {
        Kind::CORE.iter().all(|kind| {
            let state = self.api.current(*kind);
            self.known.get(kind) == Some(&converted(&self.config, *kind, state.values()))
        })
    }

    pub fn synced(&self) -> bool {
        Kind::CORE.iter().all(|kind| self.known.contains_key(kind))
    }

    /// The load balancer's address of a service.
    pub fn ip(&self, name: &str) -> Option<String> {
        self.known.get(&SERVICE)?.values().find_map(|object| match object {
            Object::Service(s) if s.key.name.as_str() == name => Some(s.ingress[0].to_string()),
            _ => None,
        })
    }

    pub async fn stop(self) {
        self.stop.cancel();
        drop(self.updates);
        tokio::time::timeout(PATIENCE, self.task).await.expect("stops when told").unwrap();
    }
}

/// An API with two Services and a slice.
pub async fn api() -> ScriptedApi {
    let api = ScriptedApi::start().await;
    api.put(SERVICE, service("web", "192.0.2.1"));
    api.put(SERVICE, service("mail", "192.0.2.2"));
    api.put(SLICE, slice("web-1", "10.1.0.1"));
    api
}

pub async fn synced() -> (ScriptedApi, World) {
    let api = api().await;
    let mut world = World::start(&api).await;
    world.until_current().await;
    (api, world)
}
