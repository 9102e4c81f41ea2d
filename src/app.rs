//! The daemon's life: start order, reload, stop order. Every task is joined here, and the first one that ends without
//! being told to stops the process with its name.

mod federation;
mod keeper;
mod offline;
mod places;
mod prober;
mod registered;
mod successor;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admin::{self, AdminLimits, Readiness, Shows};
use crate::answer::Transport;
use crate::config::{Cluster, ClusterSecrets, Config, ConfigErrors, Limits, Listener, Source};
use crate::dump::Dumper;
use crate::explain::Explainer;
use crate::metrics::{Metrics, Reload};
use crate::model::{ClusterId, Label, View, ViewRule};
use crate::net::connections::Connections;
use crate::net::hand_over::{Inherited, Role};
use crate::net::{self, BindError, Bound, Ended, Serving};
use crate::query_log::QueryLog;
use crate::source::kube::secrets;
use crate::source::manifests::Memory;
use crate::source::places::Discovered;
use crate::source::registration::Unfit;
use crate::source::registrations::Registrations;
use crate::source::{self, Feed, Message};
use crate::table::{Atlas, Publisher, Reader};
use crate::zonefile::{self, ZoneData, ZoneFileError};

use federation::{Ask, Gauges};
pub use federation::{Federation, Member, Seen, UPDATE_QUEUE, new_index, resolver};
use keeper::{Keeping, restore};
pub use offline::Offline;
pub use places::{PlacesProblem, Reading as PlacesReading, finder as whereabouts, read as read_places};
use successor::{Predecessor, Program, Successor};

/// Where the addresses stand in the configuration.
const LISTENERS: &str = "listeners";
/// A change of that kind is followed by a rest of so many times as long: a table of a million services takes its time.
const AMEND_REST: u32 = 10;
/// How long sources, connections and workers may take to end once told to. Docker and Kubernetes kill after 10 and 30 s.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Explanations that wait for what is known of addresses; more wait for their turn.
const INQUIRIES: usize = 16;
/// From the first thing that is found of clusters, or registered, to the use of all that came meanwhile.
const QUIET: Duration = Duration::from_secs(1);
/// From a try that a broken file with places was in the way of, or credentials, to the next.
const AMEND_AGAIN: Duration = Duration::from_secs(60);

/// Why the process cannot start, or had to stop. Each is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("{0}")]
    Config(ConfigErrors),
    #[error("{0}")]
    ZoneFile(ZoneFileError),
    #[error("{0}")]
    Delegation(String),
    #[error("{0}")]
    Places(PlacesProblem),
    #[error("{0}")]
    Source(source::kube::SourceError),
    #[error("{0}")]
    Bind(BindError),
    #[error("no random numbers from the operating system: {0}")]
    Random(getrandom::Error),
    #[error("cannot start a thread for the query log: {0}")]
    QueryLog(std::io::Error),
    #[error("cannot start the runtime: {0}")]
    Runtime(std::io::Error),
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    #[error("the sockets of the process before cannot be taken over from the standard input: {0}")]
    TakeOver(std::io::Error),
    #[error("{task} ended unexpectedly; the process stops so that its supervisor can start it anew")]
    TaskEnded { task: String },
}

/// A configuration with everything that it names on disk.
pub struct Loaded {
    pub config: Arc<Config>,
    /// In the order of `config.zones`.
    pub zones: Arc<Vec<ZoneData>>,
    /// What is known of where clients are. A broken file is no reason not to start.
    pub atlas: Atlas,
    pub places: PlacesReading,
}

impl Loaded {
    pub fn load(path: &Path) -> Result<Loaded, AppError> {
        Loaded::load_with(path, |_| {})
    }

    /// `amend`: with what is known beside the file.
    fn load_with(path: &Path, amend: impl FnOnce(&mut Config)) -> Result<Loaded, AppError> {
        let mut config = Config::load(path).map_err(AppError::Config)?;
        amend(&mut config);
        let zones: Result<Vec<ZoneData>, ZoneFileError> =
            config.zones.iter().map(|zone| zonefile::load(&zone.file, &zone.name)).collect();
        let zones = zones.map_err(AppError::ZoneFile)?;
        if let Some(problem) = zonefile::check_delegations(&zones, &[]).first() {
            return Err(AppError::Delegation(problem.to_string()));
        }
        let (atlas, places) = read_places(&config);
        Ok(Loaded { config: Arc::new(config), zones: Arc::new(zones), atlas, places })
    }

    fn warn(&self) {
        for warning in self.zones.iter().flat_map(|zone| &zone.warnings) {
            warn!("{warning}");
        }
        self.places.warn();
    }
}

/// Runs until SIGTERM or SIGINT, or until another process has taken over (SIGUSR2). `take_over`: this is that other process.
pub fn serve(path: PathBuf, take_over: bool) -> Result<(), AppError> {
    let program = Program::this().ok();
    let before = if take_over { Some(Predecessor::take_over().map_err(AppError::TakeOver)?) } else { None };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(AppError::Runtime)?;
    let ended = runtime.block_on(async {
        // First of all, so that a SIGTERM during the start is not lost.
        let mut signals = Signals::new().map_err(AppError::Signals)?;
        let mut daemon = tokio::select! {
            daemon = Daemon::start(path, program, before) => daemon?,
            () = signals.end.received() => return Ok(()),
        };
        let ended = daemon.run(&mut signals).await;
        if ended.is_ok() {
            daemon.say_farewell(&mut signals).await;
        }
        daemon.stop().await;
        ended
    });
    // A credential plugin that hangs must not keep the process.
    runtime.shutdown_timeout(STOP_PATIENCE);
    ended
}

struct Signals {
    end: End,
    hangup: Signal,
    replace: Signal,
}

/// SIGTERM and SIGINT.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        let end = End { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        Ok(Signals { end, hangup: signal(SignalKind::hangup())?, replace: signal(SignalKind::user_defined2())? })
    }
}

impl End {
    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

struct Daemon {
    path: PathBuf,
    started: Instant,
    config: Arc<Config>,
    reader: Reader,
    seen: Arc<Seen>,
    sources: Sources,
    publishing: Publishing,
    keeping: Keeping,
    places: Following,
    /// Where clusters are by their nodes, which ones are registered, and when to use that: what is found soon after one another is
    /// one change.
    discovered: Arc<Discovered>,
    registrations: Arc<Registrations>,
    amend_at: Option<Instant>,
    /// Not before that: whoever writes such Secrets all the time must not keep this busy.
    amend_from: Instant,
    /// Whoever follows the Secrets by which clusters are registered.
    registering: Option<Following>,
    /// In the order of `config.zones`.
    zones: Arc<Vec<ZoneData>>,
    shows: Shows,
    query_log: Arc<QueryLog>,
    connections: Connections,
    serving: HashMap<Listener, Working>,
    admin: Option<Admin>,
    /// Taken over: whoever had it goes on until this one is ready.
    admin_waits: Option<std::net::TcpListener>,
    /// Of the process before this one, for listeners that are not served yet.
    inherited: Inherited,
    predecessor: Option<Predecessor>,
    /// `None`: it is not known, and nothing can take over.
    program: Option<Program>,
    successor: Option<Successor>,
    /// The process that serves now instead of this one.
    heir: Option<u32>,
    /// Until when clusters are waited for before sockets are bound; `None` once they are.
    waiting: Option<Instant>,
}

/// A listener at work, and what ends it.
struct Working {
    stop: CancellationToken,
    serving: Serving,
}

impl Working {
    async fn stop(self) {
        self.stop.cancel();
        match tokio::time::timeout(STOP_PATIENCE, self.serving.join()).await {
            Ok(failed) => failed.iter().for_each(|ended| warn!("{}", ended_text(ended))),
            Err(_) => warn!("a listener did not end in time"),
        }
    }
}

fn ended_text(ended: &Ended) -> String {
    match &ended.error {
        Some(error) => format!("{} ({error})", ended.name),
        None => ended.name.clone(),
    }
}

struct Admin {
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
    address: SocketAddr,
    /// For a successor.
    socket: Option<OwnedFd>,
}

/// Whoever looks after the files with places, or after the Secrets by which clusters are registered.
struct Following {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Following {
    fn start<F: Future<Output = ()> + Send + 'static>(follow: impl FnOnce(CancellationToken) -> F) -> Following {
        let stop = CancellationToken::new();
        let task = tokio::spawn(follow(stop.clone()));
        Following { stop, task }
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        // It ends at once: what it reads goes on aside and is forgotten.
        let _ = (&mut self.task).await;
    }
}

impl Daemon {
    async fn start(
        path: PathBuf,
        program: Option<Program>,
        before: Option<(Predecessor, Inherited)>,
    ) -> Result<Daemon, AppError> {
        let (predecessor, mut inherited) = before.map(|(one, sockets)| (Some(one), sockets)).unwrap_or_default();
        let started = Instant::now();
        let registrations = Arc::new(Registrations::new(started));
        let loaded = Loaded::load_with(&path, |config| registered::begin(config, &registrations))?;
        loaded.warn();
        let Loaded { config, zones, atlas, places } = loaded;
        let prepared = prepare(&config, |_| true).await?;
        let secrets = prepare_secrets(&config, None).await?;
        // A port that is taken is said at once, not after the clusters were waited for.
        for listener in config.listeners.iter().filter(|listener| !inherited.has(Role::Udp, listener.address)) {
            drop(net::bind(listener, &config.limits, LISTENERS).map_err(AppError::Bind)?);
        }
        let metrics = Metrics::new();
        let query_log = QueryLog::new(metrics.clone());
        query_log.set(config.query_log).map_err(AppError::QueryLog)?;
        let seen = Arc::new(Seen::default());
        metrics.set_federation(Box::new(Gauges(seen.clone(), registrations.clone())));
        let connections = Connections::new(config.limits.tcp_connections, config.limits.tcp_connections_per_client);
        let seed = getrandom::u64().map_err(AppError::Random)?;
        let (mut publisher, reader) = Publisher::new(config.clone(), &zones, seed);
        publisher.set_atlas(atlas);
        let labels = metrics.clone();
        publisher.label_zones(move |zone| labels.zone_label(zone));
        let (inquiries, inquired) = mpsc::channel(INQUIRIES);
        let explainer =
            Explainer::new(config.clone(), reader.clone(), federation::inquire(inquiries.clone()), whereabouts());
        let directory = federation::directory(inquiries.clone());
        let dumper = Dumper::new(config.clone(), zones.clone(), reader.clone(), directory);
        let status = Arc::new(federation::status(inquiries.clone()));
        let shows = Shows {
            metrics: metrics.clone(),
            readiness: Readiness::new(),
            explainer,
            dumper,
            status,
            overview: Arc::new(federation::overview(inquiries.clone())),
            recent: Arc::default(),
        };
        let failed = |address| {
            move |source| {
                let (transport, key) = (Transport::Tcp, "admin.address".to_owned());
                AppError::Bind(BindError { address, transport, key, source })
            }
        };
        let admin_before = config.admin.and_then(|address| inherited.take(Role::Admin, address).pop());
        let (admin, admin_waits) = match (config.admin, admin_before) {
            (Some(_), Some(socket)) => (None, Some(std::net::TcpListener::from(socket))),
            (Some(address), None) => {
                let listener = std::net::TcpListener::bind(address).map_err(failed(address))?;
                listener.set_nonblocking(true).map_err(failed(address))?;
                (Some(listener), None)
            }
            (None, _) => (None, None),
        };
        let follower = places::Follower::new(config.clone(), places, publisher.cartographer(), metrics.clone());
        let members = config.numbered().map(|(id, _)| Member::new(id, started)).collect();
        let ask = federation::resolver(&config);
        let mut keeping = Keeping::new(inquiries);
        let mut federation = Federation::new(started, publisher, members, seen.clone(), ask, seed)
            .with_inquiries(inquired)
            .with_recent(shows.recent.clone())
            .with_unsaved(keeping.unsaved.clone());
        restore(&config, &mut federation, |_| true).await;
        let (updates, queue) = mpsc::channel(UPDATE_QUEUE);
        let discovered = Arc::<Discovered>::default();
        let mut sources = Sources::new(updates, discovered.clone());
        sources.start(prepared, &config, federation.members());
        let waiting = Some(Instant::now() + config.limits.sync_wait);
        keeping.start(&config);
        let registering = secrets.map(|secrets| register(secrets, &registrations));
        let mut daemon = Daemon {
            path,
            started,
            config,
            reader,
            seen,
            sources,
            publishing: Publishing::start(federation, queue),
            keeping,
            places: Following::start(|stop| follower.run(stop)),
            discovered,
            registrations,
            amend_at: None,
            amend_from: started,
            registering,
            zones,
            shows,
            query_log,
            connections,
            serving: HashMap::new(),
            admin: None,
            admin_waits,
            inherited,
            predecessor,
            program,
            successor: None,
            heir: None,
            waiting,
        };
        if let Some(listener) = admin {
            daemon.serve_admin(listener)?;
        }
        Ok(daemon)
    }

    fn serve_admin(&mut self, listener: std::net::TcpListener) -> Result<(), AppError> {
        let failed = |source| AppError::TaskEnded { task: format!("admin ({source})") };
        let (address, socket) = (listener.local_addr().map_err(failed)?, listener.try_clone().ok().map(OwnedFd::from));
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        info!(%address, "admin");
        let (stop, limits) = (CancellationToken::new(), AdminLimits::default());
        let task = tokio::spawn(admin::serve(listener, self.shows.clone(), limits, stop.clone()));
        self.admin = Some(Admin { stop, task, address, socket });
        Ok(())
    }

    /// Until told to stop (`Ok`), or until something ends by itself.
    async fn run(&mut self, signals: &mut Signals) -> Result<(), AppError> {
        loop {
            // Registered before the look at what is missing, so that no change falls between.
            let seen = self.seen.clone();
            let synced = seen.synced.notified();
            if self.waiting.is_some() {
                let missing = self.missing();
                if missing.is_empty() || self.waiting.is_some_and(|until| until <= Instant::now()) {
                    self.open()?;
                } else {
                    self.shows.readiness.set(missing.iter().map(|name| format!("{name}: not synced")).collect());
                }
            }
            let waiting = self.waiting;
            let replacing = self.successor.is_some();
            let successor = async {
                match &mut self.successor {
                    Some(successor) => successor.serves().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = signals.end.received() => return Ok(()),
                _ = signals.replace.recv() => self.replace(),
                serves = successor => match serves {
                    Ok(()) => {
                        self.heir = self.successor.take().and_then(|successor| successor.id());
                        return Ok(());
                    }
                    Err(problem) => {
                        error!("no other process takes over, and this one goes on: {problem}");
                        if let Some(mut successor) = self.successor.take() {
                            successor.stop();
                        }
                    }
                },
                // While another process starts, the sockets are that one's, too; it reads the configuration by itself.
                _ = signals.hangup.recv(), if !replacing => {
                    let loaded = tokio::select! {
                        loaded = self.prepare_reload() => loaded,
                        () = signals.end.received() => return Ok(()),
                    };
                    self.reload(loaded).await?;
                }
                () = reached(waiting) => {}
                () = self.discovered.changed.notified() => {
                    self.amend_at.get_or_insert(Instant::now() + QUIET);
                }
                () = self.registrations.changed.notified() => {
                    // Before anybody is answered, there is nobody to be spared.
                    let quiet = if waiting.is_some() { Duration::ZERO } else { QUIET };
                    let at = Instant::now() + quiet;
                    self.amend_at = Some(self.amend_at.map_or(at, |earlier| earlier.min(at)));
                }
                () = reached(self.amend_at.map(|at| at.max(self.amend_from))) => {
                    self.amend_at = None;
                    let begun = Instant::now();
                    self.amend().await?;
                    self.amend_from = Instant::now() + begun.elapsed() * AMEND_REST;
                }
                () = synced, if waiting.is_some() => {}
                task = ended(&mut self.sources, &mut self.publishing, [Some(&mut self.places), self.registering.as_mut()], &mut self.serving, &mut self.admin) => {
                    return Err(AppError::TaskEnded { task });
                }
                () = self.keeping.ended() => {
                    return Err(AppError::TaskEnded { task: "the keeper of snapshots".to_owned() });
                }
            }
        }
    }

    /// Starts the process that is to take over. It is another program, if that was replaced on disk.
    fn replace(&mut self) {
        let started = match &self.program {
            _ if self.successor.is_some() => Err("one has been started, and does not serve yet".to_owned()),
            _ if self.waiting.is_some() => Err("this one does not serve yet".to_owned()),
            _ if std::process::id() == 1 => Err("a container ends with its first process".to_owned()),
            None => Err("the program's place on disk is not known".to_owned()),
            Some(program) => {
                let listeners = self.serving.values().filter_map(|working| working.serving.sockets()).flatten();
                let admin = self
                    .admin
                    .iter()
                    .filter_map(|admin| Some((Role::Admin, admin.address, admin.socket.as_ref()?.as_fd())));
                let wait = self.config.limits.sync_wait;
                Successor::start(program, wait, listeners.chain(admin)).map_err(|error| error.to_string())
            }
        };
        match started {
            Ok(successor) => {
                info!(process = successor.id(), "another process is to take over");
                self.successor = Some(successor);
            }
            Err(problem) => error!("no other process takes over, and this one goes on: {problem}"),
        }
    }

    /// Whoever sends queries here is to notice that it ends, before it does. A second signal ends it at once.
    async fn say_farewell(&mut self, signals: &mut Signals) {
        if let Some(mut successor) = self.successor.take() {
            successor.stop();
        }
        let patience = self.config.limits.lame_duck;
        if self.heir.is_some() || self.waiting.is_some() || patience.is_zero() {
            return;
        }
        self.shows.readiness.stop();
        info!(seconds = patience.as_secs(), "not ready any more; queries are answered until the end");
        tokio::select! {
            () = tokio::time::sleep(patience) => {}
            () = signals.end.received() => {}
        }
    }

    /// Binds and serves: from here on the answers are worth having.
    fn open(&mut self) -> Result<(), AppError> {
        let missing = self.missing();
        if !missing.is_empty() {
            warn!(clusters = missing.join(", "), "not synced in time: what only they could hold is SERVFAIL");
        }
        // First all that can fail: what stops a worker would end its socket for the process before this one, too.
        let mut all = Vec::with_capacity(self.config.listeners.len());
        for listener in &self.config.listeners {
            let bound = net::bind_or_adopt(listener, &self.config.limits, LISTENERS, &mut self.inherited);
            all.push((*listener, bound.map_err(AppError::Bind)?));
        }
        // What nobody listens on any more.
        self.inherited = Inherited::default();
        if let Some(listener) = self.admin_waits.take() {
            self.serve_admin(listener)?;
        }
        for (listener, bound) in all {
            self.serve(listener, bound);
        }
        self.waiting = None;
        self.shows.readiness.set(Vec::new());
        info!(after_ms = self.started.elapsed().as_millis() as u64, "ready");
        match self.predecessor.take() {
            // It tells the supervisor, which listens to the main process alone.
            Some(predecessor) => {
                if let Err(error) = predecessor.serves() {
                    warn!("the process before this one has gone by itself ({error})");
                }
            }
            None => tell_supervisor(&[NotifyState::Ready]),
        }
        Ok(())
    }

    fn serve(&mut self, listener: Listener, bound: Bound) {
        info!(address = %bound.address(), view = %view_text(listener.audience.view, &self.config), "serving");
        let stop = CancellationToken::new();
        let bound = bound.with_query_log(self.query_log.clone());
        let serving =
            bound.serve(self.reader.clone(), self.connections.clone(), self.shows.metrics.clone(), stop.clone());
        self.serving.insert(listener, Working { stop, serving });
    }

    /// A configuration in error changes nothing. `Err`: a socket was lost on the way to the new one.
    async fn reload(&mut self, prepared: Result<Reloading, AppError>) -> Result<(), AppError> {
        // Of the type notify-reload, a unit is told both; of the type notify it passes over them.
        tell_supervisor(
            &[NotifyState::Reloading].into_iter().chain(NotifyState::monotonic_usec_now()).collect::<Vec<_>>(),
        );
        match prepared {
            Ok(reloading) => {
                reloading.loaded.warn();
                self.apply(reloading).await?;
                self.shows.metrics.reloaded(Reload::Applied);
                info!("configuration reloaded");
            }
            Err(problem) => {
                self.shows.metrics.reloaded(Reload::Rejected);
                error!("the configuration stays as it was: {problem}");
            }
        }
        tell_supervisor(&[NotifyState::Ready]);
        Ok(())
    }

    /// Of what not everything was heard yet that answers depend on.
    fn missing(&self) -> Vec<String> {
        let unlisted = self.config.cluster_secrets.as_ref().is_some_and(|secrets| !secrets.listed);
        self.seen.missing().into_iter().chain(unlisted.then(|| "clusterSecrets".to_owned())).collect()
    }

    /// Puts the registered clusters in, and all where their nodes are. No other cluster notices it, and no listener.
    async fn amend(&mut self) -> Result<(), AppError> {
        let mut config = (*self.config).clone();
        amend(&mut config, &self.discovered, &self.registrations);
        if config == *self.config {
            return Ok(());
        }
        let sources = match prepare(&config, |name| !self.keeps_source(&config, name)).await {
            Ok(sources) => sources,
            Err(problem) => {
                warn!("what is registered changes later: {problem}");
                self.amend_at = Some(Instant::now() + AMEND_AGAIN);
                return Ok(());
            }
        };
        let config = Arc::new(config);
        let (atlas, mut places) = {
            let config = config.clone();
            let read = tokio::task::spawn_blocking(move || read_places(&config));
            read.await.map_err(|_| AppError::TaskEnded { task: "reading places".to_owned() })?
        };
        // What the files said before is worth more than the places of the clusters.
        if let Some(problem) = places.broken() {
            warn!("what is known of clusters is used later: {problem}");
            self.amend_at = Some(Instant::now() + AMEND_AGAIN);
            return Ok(());
        }
        let ask = federation::resolver(&config);
        let loaded = Loaded { config, zones: self.zones.clone(), atlas, places };
        self.apply(Reloading { loaded, sources, secrets: None, bound: Vec::new(), ask }).await
    }

    /// Everything about a new configuration that can fail.
    async fn prepare_reload(&self) -> Result<Reloading, AppError> {
        let mut loaded = Loaded::load_with(&self.path, |config| amend(config, &self.discovered, &self.registrations))?;
        // What the files said before is worth more than nothing.
        if let Some(problem) = loaded.places.broken() {
            return Err(AppError::Places(problem));
        }
        let sources = prepare(&loaded.config, |name| !self.keeps_source(&loaded.config, name)).await?;
        let secrets = prepare_secrets(&loaded.config, self.config.cluster_secrets.as_ref()).await?;
        // Ports of ours are free once their listeners have stopped; of others it is known only by trying.
        let ports: Vec<u16> = self.serving.keys().map(|listener| listener.address.port()).collect();
        let mut bound = Vec::new();
        for listener in loaded.config.listeners.iter().filter(|l| !ports.contains(&l.address.port())) {
            let socket = net::bind(listener, &loaded.config.limits, LISTENERS).map_err(AppError::Bind)?;
            if self.waiting.is_none() {
                bound.push((*listener, socket));
            }
        }
        let ask = federation::resolver(&loaded.config);
        Ok(Reloading { loaded, sources, secrets, bound, ask })
    }

    /// Whether the source of the cluster of that name can go on as it is: the same place and rules. Its number may be another one.
    fn keeps_source(&self, config: &Config, name: &Label) -> bool {
        let same_limits = source_limits(&config.limits) == source_limits(&self.config.limits);
        let (old, new) = (self.config.named(name), config.named(name));
        same_limits && old.zip(new).is_some_and(|((_, old), (_, new))| federation::same_source(old, new))
    }

    /// Whether a listener can go on as it is: the same address, and a view of the same cluster at the same position.
    fn keeps_listener(&self, config: &Config, listener: &Listener) -> bool {
        let name = |config: &Config| match listener.audience.view {
            ViewRule::Fixed(View::Internal(id)) => config.clusters.get(id.index()).map(|cluster| cluster.name.clone()),
            ViewRule::Fixed(View::External) | ViewRule::BySource => None,
        };
        config.listeners.contains(listener)
            && name(config) == name(&self.config)
            && socket_limits(&config.limits) == socket_limits(&self.config.limits)
    }

    async fn apply(&mut self, reloading: Reloading) -> Result<(), AppError> {
        let Reloading { loaded, sources, secrets, bound, ask } = reloading;
        let Loaded { config, zones, atlas, places } = loaded;
        if config.admin != self.config.admin {
            warn!("a new admin address is used from the next start on");
        }
        if connection_limits(&config.limits) != connection_limits(&self.config.limits) {
            warn!("new limits of TCP connections are used from the next start on");
        }
        // Before the views change: a listener must not answer with those of another cluster.
        let gone: Vec<Listener> = self.serving.keys().filter(|l| !self.keeps_listener(&config, l)).copied().collect();
        let stopping = gone.iter().filter_map(|listener| self.serving.remove(listener)).map(Working::stop);
        futures::future::join_all(stopping).await;

        let changed: Vec<Label> =
            self.sources.names().filter(|name| !self.keeps_source(&config, name)).cloned().collect();
        self.sources.stop(&changed).await?;
        self.keeping.abandon().await;
        let gone = self.config.clusters.iter().filter(|old| old.is_registered() && config.named(&old.name).is_none());
        self.keeping.forget(&config, gone.map(|old| &old.name));
        registered::keep(&config, &self.registrations);
        let (mut federation, queue) = self.publishing.end().await?;
        // An atlas is for one configuration's clusters.
        self.places.stop().await;
        let cartographer = federation.reconfigure(config.clone(), &zones, atlas, ask);
        let listed = |config: &Config| config.cluster_secrets.as_ref().is_some_and(|secrets| secrets.listed);
        if listed(&config) && self.config.cluster_secrets.is_some() && !listed(&self.config) {
            // Of the first list are those that an earlier process had heard, too.
            let is_new = |cluster: &Cluster| self.config.named(&cluster.name).is_none();
            restore(&config, &mut federation, is_new).await;
        }
        self.shows.explainer.set_config(config.clone());
        self.shows.dumper.set_config(config.clone(), zones.clone());
        let follower = places::Follower::new(config.clone(), places, cartographer, self.shows.metrics.clone());
        self.places = Following::start(|stop| follower.run(stop));
        self.sources.start(sources, &config, federation.members());
        self.publishing = Publishing::start(federation, queue);
        self.keeping.start(&config);
        self.register_by(secrets, &config).await;
        self.config = config.clone();
        self.zones = zones;
        if let Err(error) = self.query_log.set(config.query_log) {
            warn!(%error, "no thread can be started for the query log: it stays as it was");
        }
        for (listener, socket) in bound {
            self.serve(listener, socket);
        }
        if self.waiting.is_none() {
            let missing = config.listeners.iter().filter(|l| !self.serving.contains_key(l));
            for listener in missing.copied().collect::<Vec<_>>() {
                let socket = net::bind(&listener, &config.limits, LISTENERS).map_err(AppError::Bind)?;
                self.serve(listener, socket);
            }
        }
        Ok(())
    }

    /// Follows other Secrets than before, or none, if `config` says so.
    async fn register_by(&mut self, secrets: Option<secrets::Prepared>, config: &Config) {
        if secrets.is_none() && config.cluster_secrets.is_some() {
            return;
        }
        if let Some(mut before) = self.registering.take() {
            before.stop().await;
        }
        match secrets {
            Some(secrets) => self.registering = Some(register(secrets, &self.registrations)),
            None => self.registrations.clear(),
        }
    }

    /// Not ready first, so that nobody new is sent here; then the sockets, with what they hold answered; then the rest.
    async fn stop(mut self) {
        match self.heir {
            // Of two on one admin address, both are ready until the end.
            Some(process) => {
                self.serving.values().for_each(|working| working.serving.hand_over());
                tell_supervisor(&[NotifyState::MainPid(process)]);
                info!(process, "another process has taken over; stopping");
            }
            None => {
                self.shows.readiness.stop();
                tell_supervisor(&[NotifyState::Stopping]);
                info!("stopping");
            }
        }
        futures::future::join_all(self.serving.drain().map(|(_, working)| working.stop())).await;
        let all: Vec<Label> = self.sources.names().cloned().collect();
        if tokio::time::timeout(STOP_PATIENCE, self.sources.stop(&all)).await.is_err() {
            warn!("a source did not end in time");
        }
        if self.heir.is_some() {
            // What the other one writes is newer.
            self.keeping.abandon().await;
        } else if tokio::time::timeout(STOP_PATIENCE, self.keeping.finish()).await.is_err() {
            warn!("what was heard last could not be written in time");
        }
        if tokio::time::timeout(STOP_PATIENCE, self.publishing.end()).await.is_err() {
            warn!("the publisher did not end in time");
        }
        self.places.stop().await;
        if let Some(mut registering) = self.registering.take() {
            registering.stop().await;
        }
        if let Some(admin) = self.admin.take() {
            admin.stop.cancel();
            if tokio::time::timeout(STOP_PATIENCE, admin.task).await.is_err() {
                warn!("admin did not end in time");
            }
        }
        info!("stopped");
    }
}

/// Says it to systemd, or to whoever else asked for it.
fn tell_supervisor(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!("the supervisor behind NOTIFY_SOCKET cannot be told: {error}");
    }
}

/// A configuration that is in order, with what was made for it.
struct Reloading {
    loaded: Loaded,
    sources: Vec<(ClusterId, Prepared)>,
    /// If others are to be followed.
    secrets: Option<secrets::Prepared>,
    bound: Vec<(Listener, Bound)>,
    ask: Ask,
}

/// The limits that a socket is made with.
fn socket_limits(limits: &Limits) -> (u16, u32, Duration, Duration) {
    (limits.udp_workers, limits.udp_receive_buffer, limits.tcp_idle, limits.tcp_idle_internal)
}

/// The limits of all sockets together.
fn connection_limits(limits: &Limits) -> (u32, u32) {
    (limits.tcp_connections, limits.tcp_connections_per_client)
}

/// The limits that a source is started with.
fn source_limits(limits: &Limits) -> (u64, u32, u32) {
    (limits.manifest_size, limits.manifest_files, limits.objects_per_cluster)
}

/// Waits for that moment; without one, for ever.
async fn reached(moment: Option<Instant>) {
    match moment {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The name of the first task that ends.
async fn ended(
    sources: &mut Sources,
    publishing: &mut Publishing,
    following: [Option<&mut Following>; 2],
    serving: &mut HashMap<Listener, Working>,
    admin: &mut Option<Admin>,
) -> String {
    let sockets = async {
        if serving.is_empty() {
            return std::future::pending().await;
        }
        let all = serving.values_mut().map(|working| Box::pin(working.serving.ended()));
        match futures::future::select_all(all).await.0 {
            Some(ended) => ended_text(&ended),
            None => "a listener".to_owned(),
        }
    };
    let admin = async {
        match admin {
            Some(admin) => match (&mut admin.task).await {
                Ok(Err(error)) => format!("admin ({error})"),
                Ok(Ok(())) | Err(_) => "admin".to_owned(),
            },
            None => std::future::pending().await,
        }
    };
    let [places, registering] = following;
    let followers = async {
        tokio::select! {
            () = ended_following(places) => "places".to_owned(),
            () = ended_following(registering) => "whoever follows the Secrets of clusterSecrets".to_owned(),
        }
    };
    tokio::select! {
        name = sources.ended() => name,
        _ = &mut publishing.task => "the publisher".to_owned(),
        name = followers => name,
        name = sockets => name,
        name = admin => name,
    }
}

async fn ended_following(following: Option<&mut Following>) {
    match following {
        Some(following) => drop((&mut following.task).await),
        None => std::future::pending().await,
    }
}

fn view_text(rule: ViewRule, config: &Config) -> String {
    match rule {
        ViewRule::Fixed(View::External) => "external".to_owned(),
        ViewRule::Fixed(View::Internal(id)) => format!("internal to {}", config.cluster(id).name),
        ViewRule::BySource => "by source address".to_owned(),
    }
}

/// The task that writes.
struct Publishing {
    stop: CancellationToken,
    task: JoinHandle<(Federation, mpsc::Receiver<Message>)>,
}

impl Publishing {
    fn start(federation: Federation, queue: mpsc::Receiver<Message>) -> Publishing {
        let stop = CancellationToken::new();
        let task = tokio::spawn(federation.run(queue, stop.clone()));
        Publishing { stop, task }
    }

    /// Ends it and hands back what is known, with everything that was told so far in it.
    async fn end(&mut self) -> Result<(Federation, mpsc::Receiver<Message>), AppError> {
        self.stop.cancel();
        (&mut self.task).await.map_err(|_| AppError::TaskEnded { task: "the publisher".to_owned() })
    }
}

/// A source that is ready to start.
enum Prepared {
    Manifests(PathBuf),
    Kube(Box<source::kube::Prepared>),
    /// It is registered, and its Secret was not read yet.
    Nothing,
}

/// `None`: the configuration has none, or the same ones as before.
async fn prepare_secrets(
    config: &Config,
    before: Option<&ClusterSecrets>,
) -> Result<Option<secrets::Prepared>, AppError> {
    match &config.cluster_secrets {
        Some(now) if before.is_none_or(|before| !before.same_place(now)) => {
            secrets::prepare(now).await.map(Some).map_err(AppError::Source)
        }
        _ => Ok(None),
    }
}

fn register(secrets: secrets::Prepared, registrations: &Arc<Registrations>) -> Following {
    Following::start(|stop| secrets::follow(secrets, registrations.clone(), stop))
}

/// What is known beside the configuration file.
fn amend(config: &mut Config, discovered: &Discovered, registrations: &Registrations) {
    for (name, why) in registrations.fill(config) {
        warn!(secret = %name, reason = Unfit::from(why).reason(), "{}; it registers nothing", Unfit::from(why));
    }
    discovered.fill(&mut config.clusters);
}

/// Prepares the sources of those clusters that `wanted` picks.
async fn prepare(config: &Config, wanted: impl Fn(&Label) -> bool) -> Result<Vec<(ClusterId, Prepared)>, AppError> {
    let mut prepared = Vec::new();
    for (id, cluster) in config.numbered().filter(|(_, cluster)| wanted(&cluster.name)) {
        let source = match &cluster.source {
            Source::Manifests { directory } => Prepared::Manifests(directory.clone()),
            Source::Registered(None) => Prepared::Nothing,
            Source::Kubeconfig { .. } | Source::InCluster | Source::Registered(Some(_)) => {
                Prepared::Kube(Box::new(source::kube::prepare(cluster).await.map_err(AppError::Source)?))
            }
        };
        prepared.push((id, source));
    }
    Ok(prepared)
}

/// The sources at work, one for each cluster. A reload leaves those alone that it does not concern.
struct Sources {
    tasks: JoinSet<Label>,
    stops: BTreeMap<Label, CancellationToken>,
    updates: mpsc::Sender<Message>,
    identities: Arc<source::kube::Identities>,
    discovered: Arc<Discovered>,
    /// What manifests said, by cluster and directory.
    memories: HashMap<(Label, PathBuf), Memory>,
}

impl Sources {
    fn new(updates: mpsc::Sender<Message>, discovered: Arc<Discovered>) -> Sources {
        Sources {
            tasks: JoinSet::new(),
            stops: BTreeMap::new(),
            updates,
            identities: Arc::default(),
            discovered,
            memories: HashMap::new(),
        }
    }

    fn names(&self) -> impl Iterator<Item = &Label> {
        self.stops.keys()
    }

    fn start(&mut self, prepared: Vec<(ClusterId, Prepared)>, config: &Arc<Config>, members: &[Member]) {
        let runs = |(name, directory): &(Label, PathBuf)| {
            config
                .clusters
                .iter()
                .any(|c| c.name == *name && c.source == Source::Manifests { directory: directory.clone() })
        };
        self.memories.retain(|place, _| runs(place));
        for (id, source) in prepared {
            let stop = CancellationToken::new();
            let cluster = config.cluster(id).clone();
            let name = cluster.name.clone();
            self.stops.insert(name.clone(), stop.clone());
            let feed = Feed {
                cluster: members[id.index()].number.clone(),
                config: Arc::new(cluster),
                updates: self.updates.clone(),
                status: members[id.index()].status.clone(),
                relist: members[id.index()].relist.clone(),
                discovered: self.discovered.clone(),
                stop,
                limits: Arc::new(config.limits.clone()),
            };
            match source {
                Prepared::Manifests(directory) => {
                    let place = (feed.config.name.clone(), directory.clone());
                    let memory = self.memories.entry(place).or_default().clone();
                    self.tasks.spawn(async move {
                        source::manifests::run(directory, feed, memory).await;
                        name
                    });
                }
                Prepared::Nothing => {
                    self.tasks.spawn(async move {
                        feed.stop.cancelled().await;
                        name
                    });
                }
                Prepared::Kube(prepared) => {
                    let identities = self.identities.clone();
                    self.tasks.spawn(async move {
                        source::kube::run(*prepared, feed, identities).await;
                        name
                    });
                }
            }
        }
    }

    /// Ends these sources and waits for them.
    async fn stop(&mut self, names: &[Label]) -> Result<(), AppError> {
        for name in names {
            if let Some(stop) = self.stops.get(name) {
                stop.cancel();
            }
        }
        while names.iter().any(|name| self.stops.contains_key(name)) {
            match self.tasks.join_next().await {
                Some(Ok(name)) if names.contains(&name) => drop(self.stops.remove(&name)),
                Some(joined) => return Err(AppError::TaskEnded { task: source_name(joined) }),
                None => break,
            }
        }
        Ok(())
    }

    async fn ended(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(joined) => source_name(joined),
            // Only static zones.
            None => std::future::pending().await,
        }
    }
}

fn source_name(joined: Result<Label, JoinError>) -> String {
    match joined {
        Ok(name) => format!("the source of {name}"),
        Err(panic) => format!("a source ({panic})"),
    }
}
