//! The way to one API server: credentials, one client, and requests whose failures are told apart.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::kube::client::{AuthError, Body, ClientBuilder};
use ::kube::config::{Config, InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::{Instant, timeout, timeout_at};

use super::Timing;
use super::list::ListError;
use super::plugin;
use super::watch::EventError;
use crate::config;
use crate::source::status::ErrorReason;

/// The namespace whose UID is the cluster's identity.
const IDENTITY: &str = "/api/v1/namespaces/kube-system";

/// Most octets of an error's body, or of the namespace, that are read.
const MAX_SMALL_BODY: usize = 256 << 10;
/// Most characters of a foreign text in a log line.
const MAX_MESSAGE: usize = 200;

/// Why a cluster's credentials cannot be used at all. Each is one sentence that says where to look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("cluster {cluster}: kubeconfig {}: {problem}", file.display())]
    Kubeconfig { cluster: String, file: PathBuf, problem: String },
    #[error("cluster {cluster}: kubeconfig {} has no context {context:?} (it has: {known})", file.display())]
    NoContext { cluster: String, file: PathBuf, context: String, known: String },
    #[error(
        "cluster {cluster}: kubeconfig {} has no current-context; name one with the key context",
        file.display()
    )]
    NoCurrentContext { cluster: String, file: PathBuf },
    #[error("cluster {cluster}: kubeconfig {}, context {context:?}: {problem}", file.display())]
    Context { cluster: String, file: PathBuf, context: String, problem: String },
    #[error("cluster {cluster}: not in a pod with a service account: {problem}")]
    InCluster { cluster: String, problem: String },
    /// What is wrong with it is not told: its text is a secret.
    #[error("cluster {cluster}: the kubeconfig in its Secret cannot be used")]
    Registered { cluster: String },
    #[error("cluster {cluster}: its Secret was not read yet")]
    NotReadYet { cluster: String },
    #[error("cluster {cluster} is read from manifests and has no API")]
    NoApi { cluster: String },
}

/// How a request failed. Whatever it is, nothing was heard, and what was heard before stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("credentials: {0}")]
    Credentials(String),
    #[error("no connection: {0}")]
    Connect(String),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("{what}: nothing came in time")]
    Timeout { what: &'static str },
    #[error("the answer was cut off: {0}")]
    Cut(String),
    #[error("status {}", .0)]
    Status(Refusal),
    #[error("{0}")]
    List(#[from] ListError),
    #[error("{0}")]
    Event(#[from] EventError),
    #[error("expected {expected}, got {got:?}")]
    Unexpected { expected: &'static str, got: String },
    #[error("the watch ended with neither an event nor a bookmark")]
    Silent,
    #[error("version {got} came after version {seen}")]
    TimeTravel { seen: String, got: String },
    #[error(
        "this is another cluster now (UID {got}, before {known}); its data is not used until its entry in the configuration changes, or until a restart without a snapshot of it"
    )]
    OtherCluster { known: String, got: String },
    #[error("this is the same cluster as {other} (UID {uid})")]
    SameCluster { other: String, uid: String },
    #[error("more than {limit} objects")]
    TooMany { limit: u32 },
}

/// An answer that is not 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: u16,
    pub message: String,
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl Failure {
    pub fn reason(&self) -> ErrorReason {
        match self {
            Failure::Credentials(_) => ErrorReason::Credentials,
            Failure::Connect(_) | Failure::Cut(_) => ErrorReason::Connect,
            Failure::Tls(_) => ErrorReason::Tls,
            Failure::Timeout { .. } => ErrorReason::Timeout,
            Failure::Status(refusal) => match refusal.code {
                401 => ErrorReason::Unauthorized,
                403 => ErrorReason::Forbidden,
                404 => ErrorReason::NotFound,
                410 => ErrorReason::Gone,
                429 => ErrorReason::Throttled,
                500..=599 => ErrorReason::Server,
                _ => ErrorReason::Status,
            },
            Failure::List(_) | Failure::Event(_) | Failure::Unexpected { .. } => ErrorReason::Protocol,
            Failure::Silent => ErrorReason::Silent,
            Failure::TimeTravel { .. } => ErrorReason::TimeTravel,
            Failure::OtherCluster { .. } | Failure::SameCluster { .. } => ErrorReason::Identity,
            Failure::TooMany { .. } => ErrorReason::Limit,
        }
    }

    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Failure::Status(refusal) => refusal.retry_after,
            _ => None,
        }
    }

    /// Whether new connections, or credentials read anew, may help.
    fn renewal(&self) -> Renewal {
        match self {
            Failure::Credentials(_) | Failure::Tls(_) => Renewal::Credentials,
            Failure::Status(refusal) if refusal.code == 401 => Renewal::Credentials,
            Failure::Connect(_) | Failure::Timeout { .. } => Renewal::Connections,
            _ => Renewal::Needless,
        }
    }

    pub fn is_gone(&self) -> bool {
        matches!(self, Failure::Status(refusal) if refusal.code == 410)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Renewal {
    Needless,
    Connections,
    Credentials,
}

/// What stands for a client until the source has started.
const NOT_ASKED: &str = "the credential plugin has not been asked yet";

/// One cluster's API server.
pub struct Api {
    cluster: String,
    source: config::Source,
    timing: Timing,
    /// A client is being built. The command of an `auth-provider` cannot be stopped, so there is never more than one.
    building: Arc<AtomicBool>,
    /// Held while a new client is being made, so that the others who want one wait for the same.
    renewing: tokio::sync::Mutex<()>,
    current: Mutex<Current>,
}

struct Current {
    /// Counts clients, so that of many sessions that fail at once only the first makes a new one.
    generation: u64,
    client: Result<::kube::Client, Failure>,
    /// A credential plugin was asked.
    plugin: bool,
    /// When the plugin's credential is to be asked for again; `None`: when it is refused.
    renew_at: Option<Instant>,
}

impl Api {
    /// Reads the credentials and makes a client; no request is made and no plugin is run, which could take its time.
    /// Everything that is in files has to be right.
    pub async fn prepare(cluster: &config::Cluster, timing: Timing) -> Result<Api, SourceError> {
        Api::prepare_from(cluster.name.as_str(), &cluster.source, timing).await
    }

    /// The same for any API. `name`: as messages have it.
    pub async fn prepare_from(name: &str, source: &config::Source, timing: Timing) -> Result<Api, SourceError> {
        let name = name.to_owned();
        let building = Arc::new(AtomicBool::new(false));
        let (config, _) = read(&name, source).await?;
        let current = if has_plugin(&config) {
            let client = Err(Failure::Credentials(NOT_ASKED.to_owned()));
            Current { generation: 0, client, plugin: true, renew_at: None }
        } else {
            connect(&name, source, timing, &building).await?
        };
        let current = Mutex::new(current);
        Ok(Api {
            cluster: name,
            source: source.clone(),
            timing,
            building,
            renewing: tokio::sync::Mutex::default(),
            current,
        })
    }

    /// Asks the credential plugin, if there is one and it was not asked yet.
    pub async fn begin(&self) {
        let (generation, client) = self.client();
        if let (0, Err(failure @ Failure::Credentials(_))) = (generation, client) {
            self.renew(0, &failure).await;
        }
    }

    /// Ready to be asked, with the usual times.
    pub async fn begun(cluster: &config::Cluster) -> Result<Api, Failure> {
        let made = Api::prepare(cluster, Timing::default()).await;
        let made = made.map_err(|error| Failure::Credentials(error.to_string()))?;
        made.begin().await;
        Ok(made)
    }

    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    fn client(&self) -> (u64, Result<::kube::Client, Failure>) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        (current.generation, current.client.clone())
    }

    /// The generation to hand to [`Api::renew`] when a request made from now on fails.
    pub fn generation(&self) -> u64 {
        self.client().0
    }

    /// Reads the credentials again and leaves all connections behind, where `failure` says that it may help: a
    /// certificate may have been renewed, and a connection of a server that has gone silent would only cost another
    /// time-out. For new connections alone no plugin is run.
    pub async fn renew(&self, failed: u64, failure: &Failure) {
        let _renewing = self.renewing.lock().await;
        let plugin = {
            let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            if current.generation != failed {
                return;
            }
            current.plugin
        };
        match failure.renewal() {
            Renewal::Needless => return,
            Renewal::Connections if plugin => return,
            Renewal::Connections | Renewal::Credentials => {}
        }
        let made = match connect(&self.cluster, &self.source, self.timing, &self.building).await {
            Ok(made) => made,
            // A file that is being replaced, or was broken after the start: the client at hand may still do.
            Err(error) => {
                tracing::warn!(cluster = self.cluster, "credentials are not read again: {error}");
                return;
            }
        };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Current { generation: failed + 1, ..made };
    }

    /// The client, with a credential that has not run out.
    async fn fresh_client(&self) -> Result<::kube::Client, Failure> {
        let ended = {
            let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            current.renew_at.filter(|&at| at <= Instant::now()).map(|_| current.generation)
        };
        if let Some(generation) = ended {
            self.renew(generation, &Failure::Credentials("run out".to_owned())).await;
        }
        self.client().1
    }

    /// What time it is there, by the head of an answer, whatever that says; `None`: it does not say.
    pub async fn date(&self, patience: Duration) -> Result<Option<Timestamp>, Failure> {
        let what = "an answer";
        let client = self.fresh_client().await?;
        let request = http::Request::get(IDENTITY).header(http::header::ACCEPT, "application/json").body(Body::empty());
        let request = request.map_err(|e| Failure::Unexpected { expected: "a path", got: e.to_string() })?;
        let response = match timeout(patience, client.send(request)).await {
            Err(_) => return Err(Failure::Timeout { what }),
            Ok(Err(error)) => return Err(failure_of(&error, what)),
            Ok(Ok(response)) => response,
        };
        if response.status() == http::StatusCode::UNAUTHORIZED {
            return Err(Failure::Status(refusal(401, None, b"")));
        }
        let date = response.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
        Ok(date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).map(|date| date.timestamp()))
    }

    /// Asks for `path`, and waits at most `patience` for the head of the answer, which must be a 200.
    pub async fn get(&self, path: &str, what: &'static str, patience: Duration) -> Result<Chunks, Failure> {
        self.get_as(path, "application/json", what, patience).await
    }

    /// The same in another form.
    pub async fn get_as(
        &self,
        path: &str,
        accept: &'static str,
        what: &'static str,
        patience: Duration,
    ) -> Result<Chunks, Failure> {
        let request = http::Request::get(path).header(http::header::ACCEPT, accept).body(Body::empty());
        self.answered(request, |status| status == http::StatusCode::OK, what, patience).await
    }

    /// The body of an answer with a status that is `good`.
    async fn answered(
        &self,
        request: http::Result<http::Request<Body>>,
        good: fn(http::StatusCode) -> bool,
        what: &'static str,
        patience: Duration,
    ) -> Result<Chunks, Failure> {
        let client = self.fresh_client().await?;
        let request = request.map_err(|e| Failure::Unexpected { expected: "a path", got: e.to_string() })?;
        let response = match timeout(patience, client.send(request)).await {
            Err(_) => return Err(Failure::Timeout { what }),
            Ok(Err(error)) => return Err(failure_of(&error, what)),
            Ok(Ok(response)) => response,
        };
        let (head, body) = response.into_parts();
        let chunks = Chunks { body, what };
        if good(head.status) {
            return Ok(chunks);
        }
        // The code alone says enough; the body may only make the message better.
        let body = chunks.small(Instant::now() + self.timing.small).await.unwrap_or_default();
        Err(Failure::Status(refusal(head.status.as_u16(), retry_after(&head.headers), &body)))
    }

    /// Sends `body`, and waits at most `patience` for the head of the answer.
    pub async fn send(&self, verb: Verb, path: &str, body: Vec<u8>, patience: Duration) -> Result<(), Failure> {
        let (method, kind) = match verb {
            Verb::Create => (http::Method::POST, "application/json"),
            Verb::Merge => (http::Method::PATCH, "application/merge-patch+json"),
            Verb::Delete => (http::Method::DELETE, "application/json"),
        };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, kind)
            // The answer is the whole object; its name is enough.
            .header(http::header::ACCEPT, "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
            .body(Body::from(body));
        let answer = self.answered(request, |status| status.is_success(), "what was written", patience).await?;
        // To its end, so that the connection can be used again.
        let _ = answer.small(Instant::now() + self.timing.small).await;
        Ok(())
    }

    /// Writes an object, whether it is there or not: `merge` into what is there, else `new`.
    pub async fn put(
        &self,
        collection: &str,
        name: &str,
        merge: &[u8],
        new: &[u8],
        patience: Duration,
    ) -> Result<(), Failure> {
        match self.send(Verb::Merge, &format!("{collection}/{name}"), merge.to_vec(), patience).await {
            Err(Failure::Status(refusal)) if refusal.code == 404 => {
                self.send(Verb::Create, collection, new.to_vec(), patience).await
            }
            other => other,
        }
    }

    /// The UID of the namespace kube-system, which is the cluster's identity.
    pub async fn uid(&self) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct Namespace {
            metadata: Meta,
        }
        #[derive(Deserialize)]
        struct Meta {
            name: String,
            uid: String,
        }
        const WHAT: &str = "the namespace kube-system";
        let deadline = Instant::now() + self.timing.small;
        let chunks = self.get(IDENTITY, WHAT, self.timing.small).await?;
        let body = chunks.small(deadline).await?;
        match serde_json::from_slice::<Namespace>(&body) {
            Ok(Namespace { metadata }) if metadata.name == "kube-system" && !metadata.uid.is_empty() => {
                Ok(shorten(&metadata.uid))
            }
            _ => Err(Failure::Unexpected { expected: WHAT, got: shorten(&String::from_utf8_lossy(&body)) }),
        }
    }
}

/// How something is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It must not be there yet.
    Create,
    /// It must be there (RFC 7396).
    Merge,
    /// The same; there is no body.
    Delete,
}

/// The body of an answer, as it comes.
pub struct Chunks {
    body: Body,
    what: &'static str,
}

impl Chunks {
    /// The next octets, or `None` at the end that the server meant.
    pub async fn next(&mut self, deadline: Instant) -> Result<Option<impl Deref<Target = [u8]> + use<>>, Failure> {
        loop {
            match timeout_at(deadline, self.body.frame()).await {
                Err(_) => return Err(Failure::Timeout { what: self.what }),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => {
                    return Err(match failure_of(&error, self.what) {
                        Failure::Connect(text) => Failure::Cut(text),
                        other => other,
                    });
                }
                // Trailers tell nothing.
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    async fn small(mut self, deadline: Instant) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        while let Some(chunk) = self.next(deadline).await? {
            if all.len() + chunk.len() > MAX_SMALL_BODY {
                return Err(Failure::Unexpected { expected: self.what, got: "a very long answer".to_owned() });
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }
}

/// `text` as the value of a query parameter (RFC 3986: all but the unreserved characters are escaped).
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// What a `Status` object says; a proxy's page says only its code.
pub fn refusal(code: u16, retry_after: Option<Duration>, body: &[u8]) -> Refusal {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        message: String,
        code: u16,
        details: Option<Details>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Details {
        retry_after_seconds: u64,
    }
    let status: Status = serde_json::from_slice(body).unwrap_or_default();
    let seconds = status.details.unwrap_or_default().retry_after_seconds;
    let said = (seconds > 0).then(|| Duration::from_secs(seconds));
    let message = if status.message.is_empty() { String::from_utf8_lossy(body) } else { status.message.into() };
    Refusal {
        code: if code == 0 { status.code } else { code },
        message: shorten(message.trim()),
        retry_after: retry_after.or(said),
    }
}

/// Only the form in seconds: API servers send no dates.
fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Foreign text for a log line: one line, and not all of it.
pub fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect()
}

fn failure_of(error: &::kube::Error, what: &'static str) -> Failure {
    // The innermost cause says what happened; what is around it only says that a request failed.
    let mut text = error.to_string();
    let mut tls = false;
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            match io.kind() {
                io::ErrorKind::TimedOut => return Failure::Timeout { what },
                // Sockets do not judge data: this is the TLS layer's.
                io::ErrorKind::InvalidData => tls = true,
                _ => {}
            }
        }
        source = cause.source();
    }
    match error {
        ::kube::Error::Auth(error) => Failure::Credentials(plugin_problem(error)),
        _ if tls => Failure::Tls(shorten(&text)),
        _ => Failure::Connect(shorten(&text)),
    }
}

/// Without what a plugin printed, which may hold a token.
fn plugin_problem(error: &AuthError) -> String {
    match error {
        AuthError::AuthExecRun { cmd, out } => shorten(&format!("{cmd} ended with {}", out.status)),
        AuthError::AuthExecParse(_) => "the plugin printed no ExecCredential".to_owned(),
        other => shorten(&other.to_string()),
    }
}

/// Makes the first client. `Err` needs the operator; a plugin that failed may be better the next time.
async fn connect(
    cluster: &str,
    source: &config::Source,
    timing: Timing,
    building: &Arc<AtomicBool>,
) -> Result<Current, SourceError> {
    let (mut config, complain) = read(cluster, source).await?;
    let plugin = has_plugin(&config);
    let made = |client, renew_at| Ok(Current { generation: 0, client, plugin, renew_at });
    let late = |text: String| made(Err(Failure::Credentials(text)), None);
    let mut renew_at = None;
    if plugin::is_asked(&config.auth_info) {
        match plugin::ask(&mut config.auth_info, timing.plugin).await {
            Ok(at) => renew_at = at,
            Err(problem) => return late(problem),
        }
    }
    config.connect_timeout = Some(timing.small);
    config.write_timeout = Some(timing.small);
    config.read_timeout = Some(timing.read);
    // Or a pooled connection would be charged with the time that it was idle.
    config.reset_reader_on_write = true;
    // There is one back-off, and it is ours.
    config.default_retry = false;
    if building.swap(true, Ordering::AcqRel) {
        return late("the credential plugin of an earlier try still runs".to_owned());
    }
    // An auth-provider's command may take its time: on a thread of its own, and not for ever.
    let done = Arc::clone(building);
    let built = tokio::task::spawn_blocking(move || {
        let built = ClientBuilder::try_from(config).map(ClientBuilder::build);
        done.store(false, Ordering::Release);
        built
    });
    match timeout(timing.plugin, built).await {
        Err(_) => late("the credential plugin does not end".to_owned()),
        Ok(Err(joined)) => {
            building.store(false, Ordering::Release);
            late(shorten(&joined.to_string()))
        }
        Ok(Ok(Ok(client))) => made(Ok(client), renew_at),
        Ok(Ok(Err(::kube::Error::Auth(error)))) if is_plugins(&error) => late(plugin_problem(&error)),
        Ok(Ok(Err(error))) => Err(complain(shorten(&error.to_string()))),
    }
}

/// Whether it is a running plugin's failure, and not a file's.
fn is_plugins(error: &AuthError) -> bool {
    matches!(
        error,
        AuthError::AuthExecStart(_)
            | AuthError::AuthExecRun { .. }
            | AuthError::AuthExecParse(_)
            | AuthError::AuthExec(_)
            | AuthError::ExecPluginFailed
    )
}

/// A configuration, and how to say what is wrong with it later.
type Read = (Config, Box<dyn Fn(String) -> SourceError + Send>);

async fn read(cluster: &str, source: &config::Source) -> Result<Read, SourceError> {
    match source {
        config::Source::Kubeconfig { file, context } => read_kubeconfig(cluster, file, context.as_deref()).await,
        config::Source::InCluster => in_cluster(cluster),
        config::Source::Registered(Some(credentials)) => registered(cluster, credentials).await,
        config::Source::Registered(None) => Err(SourceError::NotReadYet { cluster: cluster.to_owned() }),
        config::Source::Manifests { .. } => Err(SourceError::NoApi { cluster: cluster.to_owned() }),
    }
}

fn has_plugin(config: &Config) -> bool {
    config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some()
}

async fn read_kubeconfig(cluster: &str, file: &Path, context: Option<&str>) -> Result<Read, SourceError> {
    let (cluster, file) = (cluster.to_owned(), file.to_owned());
    let kubeconfig = Kubeconfig::read_from(&file).map_err(|error| {
        let problem = match &error {
            KubeconfigError::ReadConfig(io, _) => format!("cannot be read ({io}): is the path right?"),
            // The parser shows the lines around the place, and tokens are in them.
            KubeconfigError::Parse(yaml) => match yaml.location() {
                Some(at) => format!("is no kubeconfig: see line {}, column {}", at.line(), at.column()),
                None => "is no kubeconfig".to_owned(),
            },
            other => shorten(&other.to_string()),
        };
        SourceError::Kubeconfig { cluster: cluster.clone(), file: file.clone(), problem }
    })?;
    let Some(context) = context.map(str::to_owned).or_else(|| kubeconfig.current_context.clone()) else {
        return Err(SourceError::NoCurrentContext { cluster, file });
    };
    let Some(found) = kubeconfig.contexts.iter().find(|named| named.name == context) else {
        let known: Vec<&str> = kubeconfig.contexts.iter().map(|named| named.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { shorten(&known.join(", ")) };
        return Err(SourceError::NoContext { cluster, file, context, known });
    };
    let found = found.context.clone().unwrap_or_default();
    let complain = {
        let context = context.clone();
        move |problem: String| SourceError::Context {
            cluster: cluster.clone(),
            file: file.clone(),
            context: context.clone(),
            problem,
        }
    };
    // kube would go on as nobody, and the API's "401" would not say why.
    if let Some(user) = found.user.filter(|user| !user.is_empty())
        && !kubeconfig.auth_infos.iter().any(|named| named.name == user)
    {
        return Err(complain(format!("has no user {user:?}")));
    }
    let proxy = kubeconfig
        .clusters
        .iter()
        .find(|named| named.name == found.cluster)
        .and_then(|named| named.cluster.as_ref()?.proxy_url.clone())
        .filter(|url| !url.is_empty());
    let options = KubeConfigOptions { context: Some(context), ..KubeConfigOptions::default() };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| complain(shorten(&error.to_string())))?;
    // Only the file's own proxy counts: kube compares NO_PROXY with the proxy's name instead of the server's, so
    // the environment's HTTPS_PROXY would catch clusters that it is not meant for.
    config.proxy_url = match proxy {
        None => None,
        // Not the URL itself: there may be a password in it.
        Some(url) => Some(url.parse().map_err(|_| complain("proxy-url is no URL".to_owned()))?),
    };
    Ok((config, Box::new(complain)))
}

/// Without files, plugins and a proxy: `registration` has left nothing of the kind in it.
async fn registered(cluster: &str, credentials: &config::Credentials) -> Result<Read, SourceError> {
    let cluster = cluster.to_owned();
    let complain = move |_: String| SourceError::Registered { cluster: cluster.clone() };
    let kubeconfig =
        Kubeconfig::from_yaml(credentials.kubeconfig()).map_err(|error| complain(shorten(&error.to_string())))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| complain(shorten(&error.to_string())))?;
    // Not that of the environment, as above.
    config.proxy_url = None;
    Ok((config, Box::new(complain)))
}

fn in_cluster(cluster: &str) -> Result<Read, SourceError> {
    let cluster = cluster.to_owned();
    let complain = move |problem| SourceError::InCluster { cluster: cluster.clone(), problem };
    let config = Config::incluster().map_err(|error: InClusterError| complain(shorten(&error.to_string())))?;
    Ok((config, Box::new(complain)))
}
