//! UDP workers and TCP connections of the listeners.
//!
//! [`bind`] takes a listener's sockets, [`Bound::serve`] starts its threads and tasks, [`Serving`] joins them.

pub mod connections;
pub mod hand_over;
pub mod tcp;
pub mod udp;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use socket2::{Domain, Socket, Type};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::answer::Transport;
use crate::config::{Limits, Listener};
use crate::metrics::Metrics;
use crate::model::Audience;
use crate::net::connections::Connections;
use crate::net::hand_over::{Inherited, Role};
use crate::net::tcp::{Desks, StreamTiming};
use crate::query_log::QueryLog;
use crate::table::Reader;

/// Connections that the kernel has accepted and we have not: those that come within about 10 ms at 100,000 a second.
/// The kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 1024;
/// With port 0, UDP chooses the port, and TCP may not get the same one.
const PORT_ATTEMPTS: usize = 16;

/// The sockets of one listener, bound and not yet served.
pub struct Bound {
    listener: Listener,
    udp: Vec<udp::Socket>,
    tcp: std::net::TcpListener,
    timing: StreamTiming,
    query_log: Option<Arc<QueryLog>>,
}

/// A listener at work.
pub struct Serving {
    address: SocketAddr,
    tasks: JoinSet<Ended>,
    /// Of the workers, and of TCP.
    udp: Vec<Arc<udp::Socket>>,
    tcp: Option<std::net::TcpListener>,
    /// Others have the sockets, too: they are left as they are.
    handed_over: Arc<AtomicBool>,
}

/// A thread or task of a listener that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// "udp 127.0.0.1:8053 worker 0", "tcp 127.0.0.1:8053"
    pub name: String,
    /// Why, if not because it was told to.
    pub error: Option<String>,
}

/// An address that could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct BindError {
    pub address: SocketAddr,
    pub transport: Transport,
    /// The configuration's key path, as `listeners[0]` or `admin`.
    pub key: String,
    pub source: io::Error,
}

impl BindError {
    fn sentence(&self) -> String {
        let BindError { address, transport, key, source } = self;
        let transport = match transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        match source.raw_os_error() {
            Some(libc::EADDRINUSE) => {
                format!("another process listens on {address}/{transport}; stop it or change {key}")
            }
            Some(libc::EACCES | libc::EPERM) if address.port() < 1024 => format!(
                "no permission to listen on {address}/{transport}: a port below 1024 needs CAP_NET_BIND_SERVICE; grant it \
                 or give {key} a port from 1024 on"
            ),
            Some(libc::EADDRNOTAVAIL) => {
                format!("no network interface has the address {}; add it to one or change {key}", address.ip())
            }
            Some(libc::EAFNOSUPPORT) => {
                let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
                format!("this host has no {family}, which {address} needs; switch it on or change {key}")
            }
            Some(libc::EMFILE | libc::ENFILE) => format!(
                "no file descriptor is left to listen on {address}/{transport} ({key}); raise the limit (ulimit -n)"
            ),
            _ => format!("cannot listen on {address}/{transport} ({key}): {source}"),
        }
    }
}

/// Takes the UDP and TCP sockets of a listener. `key` is its path in the configuration, for the error.
pub fn bind(listener: &Listener, limits: &Limits, key: &str) -> Result<Bound, BindError> {
    let mut attempts = if listener.address.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        match bind_once(listener, limits, key) {
            Err(error) if attempts > 0 && error.source.kind() == io::ErrorKind::AddrInUse => {}
            other => return other,
        }
    }
}

/// As [`bind`], with the sockets that an earlier process had for it.
pub fn bind_or_adopt(
    listener: &Listener,
    limits: &Limits,
    key: &str,
    inherited: &mut Inherited,
) -> Result<Bound, BindError> {
    let address = listener.address;
    let (udp, tcp) = (inherited.take(Role::Udp, address), inherited.take(Role::Tcp, address).pop());
    let Some(tcp) = tcp.filter(|_| !udp.is_empty()) else { return bind(listener, limits, key) };
    let failed = |source| BindError { address, transport: Transport::Udp, key: key.to_owned(), source };
    let (_, udp) = udp::adopt(udp, address, limits.udp_workers, limits.udp_receive_buffer).map_err(failed)?;
    let timing = StreamTiming::new(listener.audience.view, limits);
    Ok(Bound { listener: *listener, udp, tcp: tcp.into(), timing, query_log: None })
}

fn bind_once(listener: &Listener, limits: &Limits, key: &str) -> Result<Bound, BindError> {
    let failed = |address, transport| move |source| BindError { address, transport, key: key.to_owned(), source };
    let (address, udp) = udp::bind(listener.address, limits.udp_workers, limits.udp_receive_buffer)
        .map_err(failed(listener.address, Transport::Udp))?;
    let tcp = bind_tcp(address).map_err(failed(address, Transport::Tcp))?;
    let timing = StreamTiming::new(listener.audience.view, limits);
    Ok(Bound { listener: Listener { address, ..*listener }, udp, tcp, timing, query_log: None })
}

fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restart must not wait for the last process's connections to leave TIME-WAIT. For TCP, Linux still refuses a
    // second listening socket.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Bound {
    /// With the port that was chosen if the configured one is 0.
    pub fn address(&self) -> SocketAddr {
        self.listener.address
    }

    /// Replaces the time-outs of TCP.
    pub fn with_timing(mut self, timing: StreamTiming) -> Bound {
        self.timing = timing;
        self
    }

    /// Logs some of its queries.
    pub fn with_query_log(mut self, log: Arc<QueryLog>) -> Bound {
        self.query_log = Some(log);
        self
    }

    /// Starts answering, until `stop`. Within a tokio runtime. What cannot be started has [`Ended`] at once.
    pub fn serve(
        self,
        reader: Reader,
        connections: Connections,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Serving {
        let Bound { listener, udp, tcp, timing, query_log } = self;
        let Listener { address, audience } = listener;
        let mut tasks = JoinSet::new();
        let mut sockets = Vec::with_capacity(udp.len());
        let handed_over = Arc::new(AtomicBool::new(false));
        let cores = udp::allowed_cores();
        // With fewer cores than workers, the scheduler shares them out better than fixed places do.
        let pinned = udp.len() <= cores.len();
        for (number, socket) in udp.into_iter().enumerate() {
            let start = WorkerStart {
                name: format!("udp {address} worker {number}"),
                socket,
                audience,
                reader: reader.clone(),
                metrics: Arc::clone(&metrics),
                query_log: query_log.clone(),
                core: cores.get(number).copied().filter(|_| pinned),
            };
            sockets.extend(start.spawn(&mut tasks, stop.clone(), handed_over.clone()));
        }
        let to_hand_over = tcp.try_clone().ok();
        let name = format!("tcp {address}");
        let service = random_seed().map(|seed| {
            let desks = Desks::new(reader, seed, query_log);
            tcp::Service { audience, timing, connections, metrics, desks }
        });
        tasks.spawn(async move {
            let error = serve_tcp(tcp, service, stop).await.err();
            Ended { name, error: error.map(|e| e.to_string()) }
        });
        Serving { address, tasks, udp: sockets, tcp: to_hand_over, handed_over }
    }
}

async fn serve_tcp(
    listener: std::net::TcpListener,
    service: io::Result<tcp::Service>,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tcp::serve(listener, service?, stop).await;
    Ok(())
}

/// The operating system's randomness, once for each thread that answers.
fn random_seed() -> io::Result<u64> {
    getrandom::u64().map_err(|error| io::Error::other(format!("no random seed: {error}")))
}

struct WorkerStart {
    name: String,
    socket: udp::Socket,
    audience: Audience,
    reader: Reader,
    metrics: Arc<Metrics>,
    query_log: Option<Arc<QueryLog>>,
    core: Option<usize>,
}

impl WorkerStart {
    /// Starts the thread and a task that ends with it.
    fn spawn(
        self,
        tasks: &mut JoinSet<Ended>,
        stop: CancellationToken,
        handed_over: Arc<AtomicBool>,
    ) -> Option<Arc<udp::Socket>> {
        let name = self.name.clone();
        match self.start_thread() {
            Ok((thread, ended, stopper)) => {
                let socket = stopper.socket();
                tasks.spawn(watch(name, thread, ended, stopper, stop, handed_over));
                Some(socket)
            }
            Err(error) => {
                tasks.spawn(async move { Ended { name, error: Some(error.to_string()) } });
                None
            }
        }
    }

    fn start_thread(self) -> io::Result<(thread::JoinHandle<()>, oneshot::Receiver<io::Result<()>>, udp::Stopper)> {
        let seed = random_seed()?;
        let (mut worker, stopper) =
            udp::Worker::new(self.socket, self.audience, self.reader, seed, self.metrics.udp_worker());
        if let Some(log) = self.query_log {
            worker = worker.with_sampler(log.sampler(random_seed()?));
        }
        let (sender, ended) = oneshot::channel();
        let core = self.core;
        let thread = thread::Builder::new().name("udp".into()).spawn(move || {
            if let Some(core) = core {
                udp::pin_to(core);
            }
            // The receiver is gone only if the runtime is, and then nobody is left to tell.
            let _ = sender.send(worker.run());
        })?;
        Ok((thread, ended, stopper))
    }
}

/// Stops the worker at `stop`, or when this task is aborted, and tells how it ended.
async fn watch(
    name: String,
    thread: thread::JoinHandle<()>,
    mut ended: oneshot::Receiver<io::Result<()>>,
    stopper: udp::Stopper,
    stop: CancellationToken,
    handed_over: Arc<AtomicBool>,
) -> Ended {
    let result = tokio::select! {
        biased;
        result = &mut ended => result,
        () = stop.cancelled() => {
            if handed_over.load(Ordering::Relaxed) { stopper.leave() } else { stopper.stop() }
            ended.await
        }
    };
    let error = match result {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("it panicked; please report this".to_owned()),
    };
    // The thread has said its last word, so this does not keep the runtime waiting.
    let joined = thread.join();
    Ended { name, error: error.or_else(|| joined.err().map(|_| "it panicked; please report this".to_owned())) }
}

impl Serving {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The sockets, for another process; `None`: one of them is not there.
    pub fn sockets(&self) -> Option<impl Iterator<Item = (Role, SocketAddr, BorrowedFd<'_>)>> {
        let tcp = self.tcp.as_ref()?;
        let udp = self.udp.iter().map(|socket| (Role::Udp, self.address, socket.as_fd()));
        Some(udp.chain([(Role::Tcp, self.address, tcp.as_fd())]))
    }

    /// Another process has them: at the stop they are left as they are.
    pub fn hand_over(&self) {
        self.handed_over.store(true, Ordering::Relaxed);
    }

    /// The next thread or task that ends, which before the stop is one that should not have. `None`: all have.
    pub async fn ended(&mut self) -> Option<Ended> {
        let joined = self.tasks.join_next().await?;
        Some(joined.unwrap_or_else(|error| Ended {
            name: format!("listener {}", self.address),
            error: Some(error.to_string()),
        }))
    }

    /// Waits for all of them, after the stop; returns those that ended with an error.
    pub async fn join(mut self) -> Vec<Ended> {
        // Nobody new is let in.
        self.tcp = None;
        let mut failed = Vec::new();
        while let Some(ended) = self.ended().await {
            if ended.error.is_some() {
                failed.push(ended);
            }
        }
        failed
    }
}

#[cfg(test)]
mod tests;
