//! DNS over TCP (RFC 7766): frames of two length octets and a message, answered in order.
//!
//! A connection is one task that reads, answers all whole messages, writes, and reads again. While answers are
//! unsent it does not read, so a peer that never reads its answers stops itself.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::answer::{Client, Reply, Responder, Transport};
use crate::config::Limits;
use crate::metrics::{Closing, Metrics};
use crate::model::{Audience, View, ViewRule};
use crate::net::connections::{ClientKey, Connections, Ticket};
use crate::query_log::{QueryLog, Sampler};
use crate::table::Reader;

/// The time-outs of one listener's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamTiming {
    /// From the opening of the connection to the end of its first message.
    pub first_message: Duration,
    /// From a message's first octet to its last.
    pub message: Duration,
    /// Between two messages.
    pub idle: Duration,
    /// The same, when more than 80 % of the connections are in use.
    pub idle_crowded: Duration,
    /// Until the kernel has taken up to [`UNSENT`] octets of answers and one more.
    pub write: Duration,
    /// The same, once the process is stopping.
    pub stop: Duration,
}

impl StreamTiming {
    pub fn new(view: ViewRule, limits: &Limits) -> StreamTiming {
        StreamTiming {
            first_message: Duration::from_secs(2),
            message: Duration::from_millis(500),
            idle: if is_internal(view) { limits.tcp_idle_internal } else { limits.tcp_idle },
            idle_crowded: Duration::from_secs(1),
            write: Duration::from_secs(10),
            stop: Duration::from_secs(1),
        }
    }
}

/// What one TCP listener serves with.
pub struct Service {
    pub audience: Audience,
    pub timing: StreamTiming,
    pub connections: Connections,
    pub metrics: Arc<Metrics>,
    pub desks: Desks,
}

/// A frame's length field.
const PREFIX: usize = 2;
const MAX_MESSAGE: usize = u16::MAX as usize;
/// No more messages are answered while this many octets wait to be sent: the most that one connection holds is this
/// and one answer.
const UNSENT: usize = 64 * 1024;
/// A first read; holds any ordinary query. A connection's buffers shrink to this while it waits.
const SMALL_BUFFER: usize = 512;
/// Descriptors run out for all listeners at once; ten attempts a second find one that was freed soon enough.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// At the stop, connections that wait in the backlog are served too, up to this many.
const BACKLOG_AT_STOP: usize = 128;
/// At the stop, what has arrived is taken in. The runtime learns of it from its next poll of the kernel, so that takes a
/// moment.
const READ_AT_STOP: Duration = Duration::from_millis(50);
/// For the peer to close after our FIN: a round trip around the world.
const GOODBYE: Duration = Duration::from_millis(250);

fn is_internal(view: ViewRule) -> bool {
    match view {
        ViewRule::Fixed(View::Internal(_)) => true,
        // By source, anybody may connect: the stricter limits hold.
        ViewRule::Fixed(View::External) | ViewRule::BySource => false,
    }
}

/// Accepts until `stop`, then ends when its connections have.
pub async fn serve(listener: TcpListener, service: Service, stop: CancellationToken) {
    let service = Arc::new(service);
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = tasks.join_next() => report_panic(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => open(&mut tasks, &service, stream, peer, &stop),
                Err(error) => {
                    service.metrics.streams().accept_error();
                    if !concerns_one_connection(&error) {
                        service.connections.evict_longest_idle();
                        tokio::select! { () = sleep(ACCEPT_PAUSE) => {}, () = stop.cancelled() => {} }
                    }
                }
            },
        }
    }
    let last_call = Instant::now() + READ_AT_STOP;
    for _ in 0..BACKLOG_AT_STOP {
        tokio::select! {
            biased;
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => open(&mut tasks, &service, stream, peer, &stop),
                Err(_) => break,
            },
            () = sleep_until(last_call) => break,
        }
    }
    drop(listener);
    while let Some(ended) = tasks.join_next().await {
        report_panic(ended);
    }
}

/// accept(2) also returns errors of the connection that it was about to return; the next one may be well.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable, PermissionDenied,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | PermissionDenied
    )
}

/// A defect in one connection ends that connection only; its place is given back while unwinding.
fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a TCP connection's task failed; please report this");
    }
}

fn open(
    tasks: &mut JoinSet<()>,
    service: &Arc<Service>,
    stream: TcpStream,
    peer: SocketAddr,
    stop: &CancellationToken,
) {
    let key =
        if is_internal(service.audience.view) { ClientKey::Address(peer.ip()) } else { ClientKey::prefix(peer.ip()) };
    let Some(ticket) = service.connections.admit(key) else {
        service.metrics.streams().turned_away();
        return;
    };
    // Answers are written in whole batches; waiting for more (Nagle) would only delay them. Not fatal when it fails.
    let _ = stream.set_nodelay(true);
    let (service, stop) = (Arc::clone(service), stop.clone());
    let counted = Counted { service: Arc::clone(&service), closing: Closing::Broken };
    counted.service.metrics.streams().opened();
    let keepalive = u16::try_from(service.timing.idle.as_millis() / 100).unwrap_or(u16::MAX);
    tasks.spawn(async move {
        let mut counted = counted;
        let connection = Connection {
            stream,
            ticket,
            client: Client { address: peer.ip(), audience: service.audience, transport: Transport::Tcp, keepalive },
            service,
            stop,
            input: Vec::new(),
            output: Vec::new(),
            peer,
            answered: 0,
            began: Instant::now(),
        };
        counted.closing = connection.run().await;
    });
}

/// Counts a connection out, whatever way its task ends.
struct Counted {
    service: Arc<Service>,
    closing: Closing,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.service.metrics.streams().closed(self.closing);
    }
}

struct Connection {
    stream: TcpStream,
    ticket: Ticket,
    client: Client,
    service: Arc<Service>,
    stop: CancellationToken,
    /// Begins at a frame's first octet. Grows with what has arrived, never by what a length field promises.
    input: Vec<u8>,
    output: Vec<u8>,
    peer: SocketAddr,
    /// Answers in `output`, and since when they are made.
    answered: u64,
    began: Instant,
}

/// What a connection waits for.
#[derive(Clone, Copy)]
enum Phase {
    /// Exits: the first message is whole → `Between` or `Within`; `first_message` passes → closed.
    First { opened: Instant },
    /// Exits: an octet comes → `Within`; `idle` passes → closed.
    Between,
    /// Exits: the message is whole → `Between` or `Within` the next; `message` passes → closed.
    Within { begun: Instant },
}

/// What ended a wait.
enum Event {
    Read,
    Stop,
    Close(Closing),
}

impl Connection {
    async fn run(mut self) -> Closing {
        let mut phase = Phase::First { opened: Instant::now() };
        let mut stopping = false;
        loop {
            let answered = match self.answer_whole_messages() {
                Answered::Some => true,
                Answered::None => false,
                Answered::NoQuery => {
                    // The answers to what came before it are owed.
                    return self.finish(Closing::NoQuery).await;
                }
            };
            if answered {
                if let Err(closing) = self.write().await {
                    return closing;
                }
                self.ticket.touch();
                if self.has_whole_message() {
                    continue;
                }
            }
            if stopping {
                return self.finish(Closing::Stop).await;
            }
            phase = match phase {
                Phase::First { .. } | Phase::Within { .. } if !answered => phase,
                _ if self.input.is_empty() => Phase::Between,
                _ => Phase::Within { begun: Instant::now() },
            };
            match self.wait(phase).await {
                Event::Read => {}
                Event::Stop => {
                    stopping = true;
                    self.read_what_is_there().await;
                }
                Event::Close(closing) => return closing,
            }
        }
    }

    fn has_whole_message(&self) -> bool {
        first_message(&self.input).is_some()
    }

    /// Moves the answers to all whole messages of `input` to `output`, up to [`UNSENT`] octets. No await in here: a
    /// snapshot of the table is never held across one.
    fn answer_whole_messages(&mut self) -> Answered {
        if !self.has_whole_message() {
            return Answered::None;
        }
        let (input, output, client) = (&self.input, &mut self.output, self.client);
        let streams = self.service.metrics.streams();
        let peer = self.peer;
        let (mut read, mut answered) = (0, 0);
        self.began = Instant::now();
        let whole = self.service.desks.with(|desk| {
            while let Some(message) = first_message(&input[read..]) {
                read += PREFIX + message.len();
                desk.buffer[..message.len()].copy_from_slice(message);
                let Desk { reader, responder, buffer, sampler } = &mut *desk;
                match reader.with(|table| responder.answer(table, client, &mut buffer[..], message.len())) {
                    Reply::Send { length, outcome } => {
                        let (prefix, length) = (length.to_be_bytes(), usize::from(length));
                        streams.answered(outcome, responder.zone_label(0));
                        answered += 1;
                        if let Some(sampler) = sampler.as_mut().filter(|sampler| sampler.is_on())
                            && sampler.is_due()
                        {
                            sampler.take(peer, Transport::Tcp, outcome, &buffer[..length]);
                        }
                        output.extend_from_slice(&prefix);
                        output.extend_from_slice(&buffer[..length]);
                    }
                    Reply::Drop(cause) => {
                        streams.dropped(cause);
                        return Answered::NoQuery;
                    }
                }
                if output.len() >= UNSENT {
                    break;
                }
            }
            Answered::Some
        });
        self.input.drain(..read);
        self.answered = answered;
        whole
    }

    /// Writes all of `output`, within its time-out.
    async fn write(&mut self) -> Result<(), Closing> {
        let timing = self.service.timing;
        let deadline = sleep(timing.write);
        let (evicted, _) = self.ticket.signals();
        let stopped = async {
            self.stop.cancelled().await;
            sleep(timing.stop).await;
        };
        tokio::select! {
            biased;
            () = evicted => return Err(Closing::Evicted),
            written = self.stream.write_all(&self.output) => written.map_err(|_| Closing::Broken)?,
            () = deadline => return Err(Closing::Unread),
            () = stopped => return Err(Closing::Stop),
        }
        let answered = std::mem::take(&mut self.answered);
        if answered > 0 {
            self.service.metrics.streams().took(answered, self.began.elapsed());
        }
        self.output.clear();
        self.output.shrink_to(SMALL_BUFFER);
        Ok(())
    }

    async fn wait(&mut self, phase: Phase) -> Event {
        let timing = self.service.timing;
        let since = Instant::now();
        if self.input.is_empty() {
            self.input.shrink_to(SMALL_BUFFER);
        }
        if self.input.len() == self.input.capacity() {
            // Doubles, so that a whole message costs a few copies and a slow one no more than twice what it sent.
            self.input.reserve(self.input.len().max(SMALL_BUFFER));
        }
        loop {
            let idle = self.ticket.idle_limit(timing.idle, timing.idle_crowded);
            let (deadline, late) = match phase {
                Phase::First { opened } => (opened + timing.first_message, Closing::FirstMessage),
                Phase::Between => (since + idle, Closing::Idle),
                Phase::Within { begun } => (begun + timing.message, Closing::Message),
            };
            let (evicted, idle_limit_changed) = self.ticket.signals();
            tokio::select! {
                biased;
                () = evicted => return Event::Close(Closing::Evicted),
                // Before the read: a peer that never pauses must not hold up the stop.
                () = self.stop.cancelled() => return Event::Stop,
                read = self.stream.read_buf(&mut self.input) => return match read {
                    Ok(0) if self.input.is_empty() => Event::Close(Closing::Peer),
                    Ok(0) | Err(_) => Event::Close(Closing::Broken),
                    Ok(_) => Event::Read,
                },
                () = idle_limit_changed => {}
                () = sleep_until(deadline) => return Event::Close(late),
            }
        }
    }

    /// At the stop: queries that have arrived are answered, up to one buffer of them.
    async fn read_what_is_there(&mut self) {
        let readable = timeout(READ_AT_STOP, self.stream.readable()).await;
        while readable.is_ok() && self.input.len() < PREFIX + MAX_MESSAGE {
            self.input.reserve(SMALL_BUFFER);
            match self.stream.try_read_buf(&mut self.input) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
    }

    /// Sends what is owed and says goodbye.
    async fn finish(mut self, closing: Closing) -> Closing {
        if !self.output.is_empty()
            && let Err(other) = self.write().await
        {
            return other;
        }
        // A close with unread octets resets the connection and destroys answers that are on their way; after a FIN
        // the peer closes first, if it is not hostile, and the wait for that is short.
        if self.stream.shutdown().await.is_ok() {
            let goodbye = async {
                let mut rest = [0; SMALL_BUFFER];
                while matches!(self.stream.read(&mut rest).await, Ok(1..)) {}
            };
            let (evicted, _) = self.ticket.signals();
            tokio::select! {
                biased;
                () = evicted => {}
                _ = timeout(GOODBYE, goodbye) => {}
            }
        }
        closing
    }
}

enum Answered {
    None,
    Some,
    /// A frame that is no query: the peer does not speak DNS, and to wait for it to begin is no use.
    NoQuery,
}

/// The message of the first frame, if all of it is there.
fn first_message(input: &[u8]) -> Option<&[u8]> {
    let (prefix, rest) = input.split_first_chunk::<PREFIX>()?;
    rest.get(..usize::from(u16::from_be_bytes(*prefix)))
}

/// What it takes to answer one message. There are as many as threads that answer at the same time, which is fewer than
/// connections: an idle one holds no 64 KiB buffer.
pub struct Desks {
    state: Mutex<DesksState>,
}

struct DesksState {
    reader: Reader,
    seed: u64,
    query_log: Option<Arc<QueryLog>>,
    free: Vec<Desk>,
}

struct Desk {
    reader: Reader,
    responder: Responder,
    buffer: Box<[u8; MAX_MESSAGE]>,
    sampler: Option<Sampler>,
}

impl Desks {
    /// `query_log`: where some of the queries are logged.
    pub fn new(reader: Reader, seed: u64, query_log: Option<Arc<QueryLog>>) -> Desks {
        Desks { state: Mutex::new(DesksState { reader, seed, query_log, free: Vec::new() }) }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Desk) -> T) -> T {
        let mut desk = self.take();
        let result = work(&mut desk);
        self.lock().free.push(desk);
        result
    }

    fn take(&self) -> Desk {
        let mut state = self.lock();
        if let Some(desk) = state.free.pop() {
            return desk;
        }
        // The odd constant of splitmix64: the seeds of all desks differ.
        state.seed = state.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Desk {
            reader: state.reader.clone(),
            responder: Responder::new(state.seed),
            buffer: vec![0; MAX_MESSAGE].try_into().expect("the vector has just this length"),
            sampler: state.query_log.as_ref().map(|log| log.sampler(state.seed)),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, DesksState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
