//! HTTP for operators and kubelets: `/` (a page), `/metrics`, `/livez`, `/readyz`, `/explain`, `/dump`, `/status`, `/services`, `/changes`.

mod page;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::dump::{Dumper, Wanted};
use crate::explain::{Asked, Explainer};
use crate::metrics::Metrics;
use crate::overview::{self, Overview, Recent, Since};
use crate::status::{Ask, Status};

/// Whether this instance should get queries, and why not.
pub struct Readiness(Mutex<ReadinessState>);

struct ReadinessState {
    stopping: bool,
    reasons: Vec<String>,
}

impl Readiness {
    /// Not ready until [`set`](Self::set) says so.
    pub fn new() -> Arc<Readiness> {
        Arc::new(Readiness(Mutex::new(ReadinessState { stopping: false, reasons: vec!["starting".to_owned()] })))
    }

    /// One line for each reason, as `cluster-2: not synced`; none is ready.
    pub fn set(&self, reasons: Vec<String>) {
        self.lock().reasons = reasons;
    }

    /// Not ready, whatever is [`set`](Self::set) afterwards.
    pub fn stop(&self) {
        self.lock().stopping = true;
    }

    /// Empty when ready.
    pub fn reasons(&self) -> Vec<String> {
        let state = self.lock();
        if state.stopping { vec!["stopping".to_owned()] } else { state.reasons.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, ReadinessState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Octets of one request; ours have a few hundred.
const MAX_REQUEST: usize = 16 * 1024;
/// From accept to close: one request and its answer.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// A newer connection ends the oldest, so that slow clients cannot keep a kubelet out.
const MAX_CONNECTIONS: usize = 64;
/// Connections have this long to end after the stop.
const STOP_TIME: Duration = Duration::from_secs(1);
/// After a failed accept, which mostly is a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The limits of the admin server's connections.
#[derive(Debug, Clone, Copy)]
pub struct AdminLimits {
    pub request: usize,
    pub time: Duration,
    pub connections: usize,
}

impl Default for AdminLimits {
    fn default() -> Self {
        AdminLimits { request: MAX_REQUEST, time: CONNECTION_TIME, connections: MAX_CONNECTIONS }
    }
}

/// Serves until `stop`, then ends when its connections have.
pub async fn serve(
    listener: TcpListener,
    shows: Shows,
    limits: AdminLimits,
    stop: CancellationToken,
) -> io::Result<()> {
    let ends = CancellationToken::new();
    let listener = Limited { inner: listener, limits, ends: ends.clone(), open: VecDeque::new() };
    let router = router(shows);
    let server = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let server = server.into_future();
    tokio::pin!(server);
    tokio::select! {
        result = &mut server => return result,
        () = async { stop.cancelled().await; sleep(STOP_TIME).await } => ends.cancel(),
    }
    server.await
}

/// All that is shown.
#[derive(Clone)]
pub struct Shows {
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    pub explainer: Arc<Explainer>,
    pub dumper: Arc<Dumper>,
    pub status: Arc<Ask>,
    pub overview: Arc<Overview>,
    pub recent: Arc<Recent>,
}

fn router(shows: Shows) -> Router {
    Router::new()
        .route("/", get(page::show))
        .route("/metrics", get(show_metrics))
        .route("/livez", get(|| async { plain(StatusCode::OK, "ok\n".to_owned()) }))
        .route("/readyz", get(show_readiness))
        .route("/explain", get(show_explanation))
        .route("/dump", get(show_dump))
        .route("/status", get(show_status))
        .route("/services", get(show_services))
        .route("/changes", get(show_changes))
        .fallback(|| async {
            plain(
                StatusCode::NOT_FOUND,
                "not found: try /, /metrics, /livez, /readyz, /status, /services, /changes, /explain?name=NAME or \
                 /dump?zone=ZONE\n"
                    .to_owned(),
            )
        })
        .layer(axum::middleware::map_response(|response: Response| async {
            // One request a connection: a keep-alive one would be cut by the time limit in the midst of a scrape.
            ([(header::CONNECTION, "close")], response)
        }))
        .with_state(shows)
}

async fn show_metrics(State(shared): State<Shows>) -> Response {
    match shared.metrics.text() {
        Ok(text) => typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")),
    }
}

async fn show_readiness(State(shared): State<Shows>) -> Response {
    let reasons = shared.readiness.reasons();
    if reasons.is_empty() {
        return plain(StatusCode::OK, "ok\n".to_owned());
    }
    plain(StatusCode::SERVICE_UNAVAILABLE, reasons.iter().map(|reason| format!("{reason}\n")).collect())
}

/// Why a name is answered as it is, in JSON: `name`, `type`, and `client`, `cluster` and `subnet` of who asks.
async fn show_explanation(State(shared): State<Shows>, asked: Result<Query<Asked>, QueryRejection>) -> Response {
    let asked = match asked {
        Ok(Query(asked)) => asked,
        Err(rejection) => return plain(StatusCode::BAD_REQUEST, format!("{}\n", rejection.body_text())),
    };
    match shared.explainer.explain(asked).await {
        Ok(explanation) => json(&explanation),
        Err(error) => plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

/// How the server is doing, in JSON.
async fn show_status(State(shared): State<Shows>) -> Response {
    json(&Status { not_ready: shared.readiness.reasons(), ..(shared.status)().await })
}

/// Some of all services, in JSON: `search`, `only`, `cluster`, `offset` and `limit`.
async fn show_services(
    State(shared): State<Shows>,
    wanted: Result<Query<overview::Wanted>, QueryRejection>,
) -> Response {
    let wanted = match wanted {
        Ok(Query(wanted)) => wanted,
        Err(rejection) => return plain(StatusCode::BAD_REQUEST, format!("{}\n", rejection.body_text())),
    };
    match shared.overview.find(&wanted).await {
        Ok(services) => json(&services),
        Err(error) => plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

/// What changed lately, in JSON: `after` a number.
async fn show_changes(State(shared): State<Shows>, since: Result<Query<Since>, QueryRejection>) -> Response {
    match since {
        Ok(Query(since)) => json(&shared.recent.since(since)),
        Err(rejection) => plain(StatusCode::BAD_REQUEST, format!("{}\n", rejection.body_text())),
    }
}

fn json<T: serde::Serialize>(shown: &T) -> Response {
    match serde_json::to_string_pretty(shown) {
        Ok(text) => typed(StatusCode::OK, "application/json", text + "\n"),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("it cannot be written as JSON: {error}\n")),
    }
}

/// A zone as a zone file: `zone`, and `client`, `cluster` and `subnet` of who sees it so. It ends with a line that says so.
async fn show_dump(State(shared): State<Shows>, wanted: Result<Query<Wanted>, QueryRejection>) -> Response {
    let wanted = match wanted {
        Ok(Query(wanted)) => wanted,
        Err(rejection) => return plain(StatusCode::BAD_REQUEST, format!("{}\n", rejection.body_text())),
    };
    let dumped = match shared.dumper.dump(&wanted) {
        Ok(dumped) => dumped,
        Err(error) => return plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let body = Body::from_stream(dumped.map(Ok::<String, io::Error>));
    ([(header::CONTENT_TYPE, "text/dns")], body).into_response()
}

fn plain(status: StatusCode, body: String) -> Response {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let headers: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, content_type)];
    (status, headers, body).into_response()
}

/// Accepts connections that end by themselves.
struct Limited {
    inner: TcpListener,
    limits: AdminLimits,
    /// Ends all.
    ends: CancellationToken,
    /// Oldest first; a dead `Weak` is a connection that has ended.
    open: VecDeque<(Weak<()>, CancellationToken)>,
}

impl axum::serve::Listener for Limited {
    type Io = LimitedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (LimitedStream, SocketAddr) {
        loop {
            match self.inner.accept().await {
                Ok((stream, peer)) => return (self.limit(stream), peer),
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

impl Limited {
    fn limit(&mut self, stream: TcpStream) -> LimitedStream {
        self.open.retain(|(alive, _)| alive.strong_count() > 0);
        while self.open.len() >= self.limits.connections.max(1)
            && let Some((_, oldest)) = self.open.pop_front()
        {
            oldest.cancel();
        }
        let end = self.ends.child_token();
        let alive = Arc::new(());
        self.open.push_back((Arc::downgrade(&alive), end.clone()));
        LimitedStream {
            inner: stream,
            deadline: Box::pin(sleep(self.limits.time)),
            ended: Box::pin(end.cancelled_owned()),
            request_left: self.limits.request,
            _alive: alive,
        }
    }
}

/// A connection that fails when its time is over, when it is ended, or when its request is too long.
struct LimitedStream {
    inner: TcpStream,
    deadline: Pin<Box<Sleep>>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    request_left: usize,
    _alive: Arc<()>,
}

impl LimitedStream {
    /// Ready when the connection has to end; otherwise the task will be woken then.
    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        }
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

impl AsyncRead for LimitedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.poll_limits(cx) {
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        match self.request_left.checked_sub(buffer.filled().len() - before) {
            Some(left) => {
                self.request_left = left;
                Poll::Ready(Ok(()))
            }
            None => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        }
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.poll_limits(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.inner).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::config::Config;
    use crate::dump::Directory;
    use crate::explain::Known;
    use crate::table::Publisher;

    /// Far above what any of this takes, also on a loaded machine.
    const DEADLINE: Duration = Duration::from_secs(30);

    struct Server {
        address: SocketAddr,
        readiness: Arc<Readiness>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<io::Result<()>>,
    }

    async fn start(limits: AdminLimits) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (readiness, stop) = (Readiness::new(), CancellationToken::new());
        let config = Arc::new(Config::of(Vec::new()));
        let reader = Publisher::new(config.clone(), &[], 0).1;
        let nobody = Directory {
            list: Box::new(|| Box::pin(async { vec![] })),
            fetch: Box::new(|_| Box::pin(async { vec![] })),
        };
        let nothing =
            Overview { list: Box::new(|| Box::pin(async { vec![] })), look: Box::new(|_| Box::pin(async { vec![] })) };
        let shows = Shows {
            metrics: Metrics::new(),
            readiness: Arc::clone(&readiness),
            explainer: Explainer::new(
                config.clone(),
                reader.clone(),
                Box::new(|_| Box::pin(async { Known::default() })),
                Arc::new(|_, _| None),
            ),
            dumper: Dumper::new(config, Arc::default(), reader, nobody),
            status: Arc::new(Box::new(|| Box::pin(async { Status::default() }))),
            overview: Arc::new(nothing),
            recent: Arc::default(),
        };
        let serving = serve(listener, shows, limits, stop.clone());
        let task = tokio::spawn(serving);
        Server { address, readiness, stop, task }
    }

    /// All that the server sends until it closes.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut all = Vec::new();
        // A reset after the answer is a close, too.
        let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut all)).await.expect("the server closes");
        String::from_utf8(all).unwrap()
    }

    async fn request(server: &Server, text: &str) -> String {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        rest(&mut stream).await
    }

    async fn get(server: &Server, path: &str) -> (u16, String) {
        let answer = request(server, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"));
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    #[tokio::test]
    async fn paths_and_methods() {
        let server = start(AdminLimits::default()).await;
        assert_eq!(get(&server, "/livez").await, (200, "ok\n".to_owned()));
        let (status, metrics) = get(&server, "/metrics").await;
        assert_eq!(status, 200);
        assert!(metrics.contains("\nsignpost_tcp_connections 0\n"), "{metrics}");
        assert_eq!(get(&server, "/nothing").await.0, 404);
        assert!(
            request(&server, "POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await.contains(" 405 ")
        );
        assert!(request(&server, "rubbish\r\n\r\n").await.contains(" 400 "));
    }

    #[tokio::test]
    async fn readiness_gives_its_reasons() {
        let server = start(AdminLimits::default()).await;
        assert_eq!(get(&server, "/readyz").await, (503, "starting\n".to_owned()));
        server.readiness.set(vec!["cluster-1: not synced".into(), "cluster-2: not synced".into()]);
        assert_eq!(get(&server, "/readyz").await, (503, "cluster-1: not synced\ncluster-2: not synced\n".to_owned()));
        server.readiness.set(Vec::new());
        assert_eq!(get(&server, "/readyz").await, (200, "ok\n".to_owned()));
        server.readiness.stop();
        server.readiness.set(Vec::new());
        assert_eq!(get(&server, "/readyz").await, (503, "stopping\n".to_owned()));
    }

    #[tokio::test]
    async fn a_slow_client_is_cut_off() {
        let server = start(AdminLimits { time: Duration::from_millis(50), ..AdminLimits::default() }).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHo").await.unwrap();
        assert_eq!(rest(&mut stream).await, "");
    }

    #[tokio::test]
    async fn a_long_request_is_cut_off() {
        let server = start(AdminLimits { request: 1000, ..AdminLimits::default() }).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!("GET /livez HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(2000));
        stream.write_all(head.as_bytes()).await.unwrap();
        assert!(!rest(&mut stream).await.contains(" 200 "));
    }

    #[tokio::test]
    async fn slow_clients_do_not_keep_others_out() {
        let limits = AdminLimits { connections: 2, time: Duration::from_secs(3600), ..AdminLimits::default() };
        let server = start(limits).await;
        let mut slow = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(b"GET ").await.unwrap();
            slow.push(stream);
        }
        assert_eq!(get(&server, "/livez").await.0, 200);
        assert_eq!(rest(&mut slow[0]).await, "", "the oldest was ended before its time");
    }

    #[tokio::test]
    async fn the_stop_does_not_wait_for_slow_clients() {
        let limits = AdminLimits { time: Duration::from_secs(3600), ..AdminLimits::default() };
        let server = start(limits).await;
        let mut slow = TcpStream::connect(server.address).await.unwrap();
        slow.write_all(b"GET ").await.unwrap();
        // The server has the slow one when it answers a later one.
        assert_eq!(get(&server, "/livez").await.0, 200);
        server.stop.cancel();
        tokio::time::timeout(DEADLINE, server.task).await.expect("serve ends").unwrap().unwrap();
    }
}
