//! Some of all queries with their answers, in the log. Whoever answers only copies octets into a queue that takes no lock and never
//! waits; a thread writes what it finds there, as many a second as it may. What is too much is counted and not written.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use hickory_proto::op::Message;
use tracing::info;

use crate::answer::{Outcome, Transport};
use crate::config::QueryLog as Rules;
use crate::metrics::{LabelSet, Logged, Metrics};

/// Samples that wait to be written.
const WAITING: usize = 512;
/// Octets of an answer that are kept: more than its header and question.
const KEPT: usize = 512;
/// From one look into the queue to the next.
const PAUSE: Duration = Duration::from_millis(100);

/// What waits to be written.
struct Sample {
    source: SocketAddr,
    transport: Transport,
    outcome: Outcome,
    /// Of the answer, all of it.
    length: usize,
    octets: [u8; KEPT],
}

/// One for the process.
pub struct QueryLog {
    metrics: Arc<Metrics>,
    /// 0: nothing is logged.
    one_in: AtomicU32,
    per_second: AtomicU32,
    queue: OnceLock<ArrayQueue<Sample>>,
    /// Whether a thread writes.
    writing: Mutex<bool>,
}

/// A worker's own: which queries are logged.
pub struct Sampler {
    log: Arc<QueryLog>,
    /// Queries up to the next one that is.
    left: u32,
    random: u64,
}

impl QueryLog {
    pub fn new(metrics: Arc<Metrics>) -> Arc<QueryLog> {
        Arc::new(QueryLog {
            metrics,
            one_in: AtomicU32::new(0),
            per_second: AtomicU32::new(0),
            queue: OnceLock::new(),
            writing: Mutex::new(false),
        })
    }

    /// From now on; `None`: nothing.
    pub fn set(self: &Arc<Self>, rules: Option<Rules>) -> std::io::Result<()> {
        let Some(Rules { one_in, per_second }) = rules else {
            self.one_in.store(0, Relaxed);
            return Ok(());
        };
        self.queue.get_or_init(|| ArrayQueue::new(WAITING));
        self.per_second.store(per_second, Relaxed);
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !*writing {
            let log = Arc::downgrade(self);
            thread::Builder::new().name("query-log".into()).spawn(move || write(&log))?;
            *writing = true;
        }
        self.one_in.store(one_in, Relaxed);
        Ok(())
    }

    /// `seed`: workers count from different numbers on.
    pub fn sampler(self: &Arc<Self>, seed: u64) -> Sampler {
        Sampler { log: self.clone(), left: 0, random: seed | 1 }
    }

    /// For this second, `left` may be written. Gives how many were.
    fn drain(&self, left: u32) -> u32 {
        let Some(queue) = self.queue.get() else { return 0 };
        let mut written = 0;
        while let Some(sample) = queue.pop() {
            if written >= left {
                self.metrics.query_logged(Logged::Lost);
                continue;
            }
            sample.write();
            self.metrics.query_logged(Logged::Written);
            written += 1;
        }
        written
    }
}

/// Until the log is gone.
fn write(log: &Weak<QueryLog>) {
    let ticks = (Duration::from_secs(1).as_millis() / PAUSE.as_millis()) as u32;
    let (mut tick, mut written) = (0, 0);
    loop {
        thread::sleep(PAUSE);
        let Some(log) = log.upgrade() else { return };
        if tick == ticks {
            (tick, written) = (0, 0);
        }
        tick += 1;
        written += log.drain(log.per_second.load(Relaxed).saturating_sub(written));
    }
}

impl Sampler {
    /// To be asked once for queries that come together: whether [`is_due`](Sampler::is_due) is to be asked for each of them.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.log.one_in.load(Relaxed) != 0
    }

    /// For each query: whether it is one of those that are logged. On average one in `one_in`, and not each so many-th: a client that
    /// asks in turns is seen like all others.
    pub fn is_due(&mut self) -> bool {
        if self.left > 0 {
            self.left -= 1;
            return false;
        }
        let one_in = u64::from(self.log.one_in.load(Relaxed).max(1));
        // xorshift64.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.left = (self.random % (2 * one_in - 1)) as u32;
        true
    }

    /// Logs an answer. Never waits: if there are too many of them, it is lost.
    pub fn take(&self, source: SocketAddr, transport: Transport, outcome: Outcome, answer: &[u8]) {
        let Some(queue) = self.log.queue.get() else { return };
        let mut octets = [0; KEPT];
        let kept = answer.len().min(KEPT);
        octets[..kept].copy_from_slice(&answer[..kept]);
        if queue.push(Sample { source, transport, outcome, length: answer.len(), octets }).is_err() {
            self.log.metrics.query_logged(Logged::Lost);
        }
    }
}

impl Sample {
    fn write(&self) {
        let kept = &self.octets[..self.length.min(KEPT)];
        let (name, rtype) = question(kept);
        // Of an answer that was cut here, only the question is known.
        let message = Message::from_vec(kept).ok();
        let answers = message.map(|message| {
            message.answers.iter().map(|record| format!("{} {}", record.record_type(), record.data)).collect::<Vec<_>>()
        });
        info!(
            target: "signpost::query",
            client = %self.source,
            transport = self.transport.label(),
            view = self.outcome.view.label(),
            %name,
            r#type = %rtype,
            rcode = self.outcome.rcode.label(),
            truncated = self.outcome.truncated,
            length = self.length,
            answers = answers.map(|answers| answers.join(", ")),
            "query"
        );
    }
}

/// Name and type of a message's question, as text; empty where there is none.
fn question(message: &[u8]) -> (String, String) {
    use hickory_proto::op::{Header, Query};
    use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
    let mut decoder = BinDecoder::new(message);
    let read = Header::read(&mut decoder).and_then(|_| Query::read(&mut decoder));
    match read {
        Ok(query) if message.get(4..6) != Some(&[0, 0]) => (query.name().to_string(), query.query_type().to_string()),
        _ => Default::default(),
    }
}
