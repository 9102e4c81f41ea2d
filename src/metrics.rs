//! Counters of the transports and samples of the clusters, in Prometheus text on every scrape.
//!
//! Nothing is registered while queries are answered: a UDP worker counts in memory that it alone writes, and
//! [`Metrics::text`] sums. Received queries = `signpost_queries_total` + `signpost_queries_dropped_total`.

mod histogram;

use std::hint::cold_path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::answer::{DropCause, Outcome, Rcode, Transport, ViewClass};
pub use histogram::Histogram;

/// All that is counted in this process.
pub struct Metrics {
    udp: Mutex<UdpTotals>,
    streams: StreamCounters,
    reloads: Counts<RELOADS>,
    places: Mutex<PlacesSample>,
    places_reloads: Counts<RELOADS>,
    federation: Mutex<Option<Box<dyn FederationGauges>>>,
    /// The names of the zones with labels, from 1 on.
    zones: Mutex<Vec<String>>,
    query_log: Counts<LOGGED>,
}

/// The writing side of one UDP worker: the only writer of its counters, hence neither `Clone` nor `Sync`-shared.
pub struct UdpCounters {
    metrics: Arc<Metrics>,
    own: Arc<Counters>,
}

/// The counters of all TCP connections, shared by their tasks.
#[derive(Default)]
pub struct StreamCounters {
    shared: Counters,
    open: AtomicU64,
    closed: Counts<CLOSINGS>,
    accept_errors: AtomicU64,
}

/// Why a datagram was dropped before it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramDrop {
    /// Source port 0 cannot be answered.
    SourcePort,
    /// From an unspecified, broadcast or multicast address.
    SourceAddress,
    /// To a broadcast or multicast address: an answer would amplify.
    DestinationAddress,
    /// Longer than a receive slot, so that its end is lost.
    Oversized,
}

/// Why a TCP connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// The peer closed it between two messages.
    Peer,
    /// The peer reset it, closed it within a message, or the network failed.
    Broken,
    /// No whole message came in time after the connection was opened.
    FirstMessage,
    /// A message was begun and not completed in time.
    Message,
    Idle,
    /// The peer does not read its answers.
    Unread,
    /// A frame that is no query.
    NoQuery,
    /// Closed in favour of a new connection, as the one idle longest.
    Evicted,
    /// Not opened: the client has as many connections as it may have.
    ClientLimit,
    Stop,
}

/// What became of a query that was to be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logged {
    Written,
    /// There were too many.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    Applied,
    /// The new configuration is in error; the old one stays.
    Rejected,
}

/// What the application knows of the federation, asked for on every scrape.
pub trait FederationGauges: Send + Sync {
    /// Names that the table can answer.
    fn names(&self) -> u64;
    /// Updates of clusters that wait to be taken.
    fn waiting(&self) -> u64;
    /// How long updates took, from when they were taken to when all that they change is answered with.
    fn changes(&self) -> Arc<Histogram>;
    /// Parts of services that are not answered with as they are, by reason.
    fn notes(&self) -> Vec<(&'static str, u64)>;
    fn loads(&self) -> LoadSample;
    /// What operators say now.
    fn directives(&self) -> Vec<DirectiveSample>;
    /// `None`: none are kept.
    fn snapshots(&self) -> Option<SnapshotSample>;
    /// `None`: no clusters can be registered.
    fn secrets(&self) -> Option<SecretsSample>;
    /// `None`: nothing is probed.
    fn health(&self) -> Option<HealthSample>;
    /// `None`: this instance decides alone, or nothing is probed.
    fn votes(&self) -> Option<(Vec<VoterSample>, WritesSample)>;
    /// One for each configured cluster.
    fn clusters(&self) -> Vec<ClusterSample>;
}

/// A cluster that votes on what is Down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoterSample {
    pub cluster: String,
    /// Replicas whose word counts.
    pub counting: u64,
    /// When a heartbeat was last seen to change.
    pub heard: Option<Duration>,
    /// How many of the others do not count for which reason.
    pub silent: Vec<(&'static str, u64)>,
}

/// How this instance's own word gets to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WritesSample {
    /// It was read back, and counts.
    pub counts: bool,
    /// So far.
    pub leases: u64,
    pub reports: u64,
    pub failed: u64,
    /// Objects of voters of which no notice is taken.
    pub refused: u64,
}

/// The Secrets by which clusters are registered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretsSample {
    pub registered: u64,
    /// By reason, all of them.
    pub refused: Vec<(&'static str, u64)>,
    /// Deletions held back by the mass-loss rule.
    pub held: u64,
    pub last_heard: Option<Duration>,
    pub errors: Vec<(&'static str, u64)>,
}

/// What is kept of clusters on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotSample {
    pub written: u64,
    pub failed: u64,
    /// By cluster: when the last one was written, in seconds since 1970.
    pub last: Vec<(String, i64)>,
}

/// How many directives of one kind there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectiveSample {
    pub cluster: String,
    pub action: &'static str,
    pub phase: &'static str,
    pub count: u64,
}

/// What is known of the external addresses that are probed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HealthSample {
    /// Endpoints: clusters' addresses with their ports.
    pub up: u64,
    pub unknown: u64,
    pub suspect: u64,
    pub down: u64,
    /// This instance sees so much failing that it trusts itself no more.
    pub isolated: bool,
    /// So much was Down at once that nothing is removed.
    pub frozen: bool,
    /// Addresses that are never probed.
    pub refused: u64,
    /// What this instance says of them, in so many cases.
    pub votes: Vec<(&'static str, u64)>,
    /// How often they became what, so far.
    pub transitions: Vec<(&'static str, u64)>,
    /// Votes so far on endpoints that no cluster has.
    pub strangers: u64,
    /// Probes so far; of those that failed, by why.
    pub good: u64,
    pub failed: Vec<(&'static str, u64)>,
    /// Of all good ones together.
    pub latency: Duration,
    /// From one probe of an endpoint to the next one.
    pub interval: Duration,
}

/// Shares of services, one for each cluster, and names of load balancers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadSample {
    pub shedding: u64,
    pub overloaded: u64,
    pub unresolved: u64,
}

/// The state of one cluster's source. Reasons and kinds are `'static`: label values come from the program, never
/// from a cluster.
#[derive(Debug, Clone, Default)]
pub struct ClusterSample {
    /// The configured name.
    pub cluster: String,
    pub synced: bool,
    /// It is answered for as its snapshot has it.
    pub restored: bool,
    /// Its API says nothing any more, and what others have comes first.
    pub silent: bool,
    /// Time since the last event or bookmark; `None` before the first.
    pub last_heard: Option<Duration>,
    pub source_errors: Vec<(&'static str, u64)>,
    pub objects_skipped: Vec<(&'static str, u64)>,
    /// Deletions held back by the mass-loss rule, by kind.
    pub held_deletions: Vec<(&'static str, u64)>,
    /// For each kind, whether the cluster's API does not have it.
    pub missing: Vec<(&'static str, bool)>,
}

/// What is known of where clients are.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlacesSample {
    pub prefixes: u64,
    /// Different orders of the clusters.
    pub orders: u64,
    pub octets: u64,
    /// Lines and prefixes that are not used.
    pub left_out: u64,
    pub broken_files: u64,
}

/// A closed set of label values, each with its place in an array of counters.
pub trait LabelSet: Copy {
    const LABELS: &'static [&'static str];
    fn place(self) -> usize;

    fn label(self) -> &'static str {
        Self::LABELS[self.place()]
    }
}

/// The `match` in here has no catch-all: a new variant does not compile until it has a label.
macro_rules! label_set {
    ($set:ident { $($variant:ident = $label:literal),+ $(,)? }) => {
        impl LabelSet for $set {
            const LABELS: &'static [&'static str] = &[$($label),+];
            fn place(self) -> usize {
                enum Place { $($variant),+ }
                match self { $($set::$variant => Place::$variant as usize),+ }
            }
        }
    };
}

label_set!(Rcode {
    NoError = "NOERROR",
    NoData = "NODATA",
    NxDomain = "NXDOMAIN",
    Refused = "REFUSED",
    FormErr = "FORMERR",
    NotImp = "NOTIMP",
    ServFail = "SERVFAIL",
    BadVers = "BADVERS",
    YxDomain = "YXDOMAIN",
});
label_set!(ViewClass { External = "external", Internal = "internal" });
label_set!(Transport { Udp = "udp", Tcp = "tcp" });
label_set!(DropCause { Short = "short", Response = "response" });
label_set!(DatagramDrop {
    SourcePort = "source_port",
    SourceAddress = "source_address",
    DestinationAddress = "destination_address",
    Oversized = "oversized",
});
label_set!(Closing {
    Peer = "peer",
    Broken = "broken",
    FirstMessage = "first_message_timeout",
    Message = "message_timeout",
    Idle = "idle",
    Unread = "unread",
    NoQuery = "no_query",
    Evicted = "evicted",
    ClientLimit = "client_limit",
    Stop = "stop",
});
label_set!(Reload { Applied = "applied", Rejected = "rejected" });
label_set!(Logged { Written = "written", Lost = "lost" });

const RCODES: usize = Rcode::LABELS.len();
const VIEWS: usize = ViewClass::LABELS.len();
const DROPS: usize = DropCause::LABELS.len();
const DATAGRAM_DROPS: usize = DatagramDrop::LABELS.len();
const CLOSINGS: usize = Closing::LABELS.len();
const RELOADS: usize = Reload::LABELS.len();
const LOGGED: usize = Logged::LABELS.len();

/// Labels of zones, so that a counter has its place whatever zones come and go. 0 is no zone, the last one all that came too late for one
/// of their own.
const ZONES: usize = 16;
const NO_ZONE: &str = "none";
const OTHER_ZONES: &str = "other";

/// One counter for each member of a label set.
struct Counts<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Counts<N> {
    fn default() -> Self {
        Counts([const { AtomicU64::new(0) }; N])
    }
}

impl<const N: usize> Counts<N> {
    fn at(&self, member: impl LabelSet) -> &AtomicU64 {
        &self.0[member.place()]
    }

    fn add(&self, other: &Counts<N>) {
        for (sum, more) in self.0.iter().zip(&other.0) {
            sum.fetch_add(more.load(Relaxed), Relaxed);
        }
    }
}

/// Aligned to two cache lines (the hardware prefetches lines in pairs), so that no two workers share one.
#[derive(Default)]
#[repr(align(128))]
struct Counters {
    answered: [[Counts<RCODES>; ZONES]; VIEWS],
    latency: Histogram,
    truncated: Counts<VIEWS>,
    failed_open: Counts<VIEWS>,
    dropped: Counts<DROPS>,
    datagrams_dropped: Counts<DATAGRAM_DROPS>,
    send_errors: AtomicU64,
    receive_errors: AtomicU64,
}

impl Counters {
    fn add(&self, other: &Counters) {
        for (sum, more) in self.answered.iter().flatten().zip(other.answered.iter().flatten()) {
            sum.add(more);
        }
        self.latency.add_all(&other.latency);
        self.truncated.add(&other.truncated);
        self.failed_open.add(&other.failed_open);
        self.dropped.add(&other.dropped);
        self.datagrams_dropped.add(&other.datagrams_dropped);
        self.send_errors.fetch_add(other.send_errors.load(Relaxed), Relaxed);
        self.receive_errors.fetch_add(other.receive_errors.load(Relaxed), Relaxed);
    }
}

#[derive(Default)]
struct UdpTotals {
    workers: Vec<Arc<Counters>>,
    /// The sums of workers that have ended: a counter never runs backwards when a reload removes a listener.
    ended: Counters,
}

/// Adds without an atomic read-modify-write, which is sound as there is one writer.
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
}

impl UdpCounters {
    /// `zone`: [its label](Metrics::zone_label).
    pub fn answered(&mut self, outcome: Outcome, zone: u8) {
        bump(self.own.answered[outcome.view.place()][usize::from(zone) % ZONES].at(outcome.rcode));
        if outcome.truncated | outcome.fails_open {
            cold_path();
            if outcome.truncated {
                bump(self.own.truncated.at(outcome.view));
            }
            if outcome.fails_open {
                bump(self.own.failed_open.at(outcome.view));
            }
        }
    }

    /// So many answers took so long, from when they were received to when they were sent.
    pub fn took(&mut self, answers: u64, time: Duration) {
        self.own.latency.add(answers, time);
    }

    pub fn dropped(&mut self, cause: DropCause) {
        bump(self.own.dropped.at(cause));
    }

    pub fn datagram_dropped(&mut self, cause: DatagramDrop) {
        bump(self.own.datagrams_dropped.at(cause));
    }

    pub fn send_error(&mut self) {
        bump(&self.own.send_errors);
    }

    pub fn receive_error(&mut self) {
        bump(&self.own.receive_errors);
    }
}

impl Drop for UdpCounters {
    fn drop(&mut self) {
        let mut totals = lock(&self.metrics.udp);
        totals.workers.retain(|worker| !Arc::ptr_eq(worker, &self.own));
        totals.ended.add(&self.own);
    }
}

impl StreamCounters {
    /// As [`UdpCounters::answered`].
    pub fn answered(&self, outcome: Outcome, zone: u8) {
        let counts = &self.shared.answered[outcome.view.place()][usize::from(zone) % ZONES];
        counts.at(outcome.rcode).fetch_add(1, Relaxed);
        if outcome.truncated {
            self.shared.truncated.at(outcome.view).fetch_add(1, Relaxed);
        }
        if outcome.fails_open {
            self.shared.failed_open.at(outcome.view).fetch_add(1, Relaxed);
        }
    }

    /// As [`UdpCounters::took`].
    pub fn took(&self, answers: u64, time: Duration) {
        self.shared.latency.add(answers, time);
    }

    pub fn dropped(&self, cause: DropCause) {
        self.shared.dropped.at(cause).fetch_add(1, Relaxed);
    }

    pub fn opened(&self) {
        self.open.fetch_add(1, Relaxed);
    }

    /// Ends a connection that was [`opened`](Self::opened).
    pub fn closed(&self, cause: Closing) {
        self.open.fetch_sub(1, Relaxed);
        self.closed.at(cause).fetch_add(1, Relaxed);
    }

    pub fn turned_away(&self) {
        self.closed.at(Closing::ClientLimit).fetch_add(1, Relaxed);
    }

    pub fn accept_error(&self) {
        self.accept_errors.fetch_add(1, Relaxed);
    }

    /// How many connections ended so.
    pub fn closed_by(&self, cause: Closing) -> u64 {
        self.closed.at(cause).load(Relaxed)
    }

    /// Connections that are open now.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }
}

impl Metrics {
    pub fn new() -> Arc<Metrics> {
        Arc::new(Metrics {
            udp: Mutex::default(),
            streams: StreamCounters::default(),
            reloads: Counts::default(),
            places: Mutex::default(),
            places_reloads: Counts::default(),
            federation: Mutex::new(None),
            zones: Mutex::default(),
            query_log: Counts::default(),
        })
    }

    /// The counters of one more UDP worker, for as long as it runs.
    pub fn udp_worker(self: &Arc<Self>) -> UdpCounters {
        let own = Arc::new(Counters::default());
        lock(&self.udp).workers.push(Arc::clone(&own));
        UdpCounters { metrics: Arc::clone(self), own }
    }

    pub fn streams(&self) -> &StreamCounters {
        &self.streams
    }

    /// The label of a zone, the same one for as long as the process runs.
    pub fn zone_label(&self, name: &str) -> u8 {
        let mut zones = lock(&self.zones);
        let found = zones.iter().position(|zone| zone == name);
        let place = found.unwrap_or_else(|| {
            if zones.len() + 2 < ZONES {
                zones.push(name.to_owned());
                zones.len() - 1
            } else {
                ZONES - 2
            }
        });
        place as u8 + 1
    }

    pub fn query_logged(&self, result: Logged) {
        self.query_log.at(result).fetch_add(1, Relaxed);
    }

    pub fn reloaded(&self, result: Reload) {
        self.reloads.at(result).fetch_add(1, Relaxed);
    }

    /// The files that say where clients are were read again.
    pub fn places_reloaded(&self, result: Reload) {
        self.places_reloads.at(result).fetch_add(1, Relaxed);
    }

    pub fn set_places(&self, places: PlacesSample) {
        *lock(&self.places) = places;
    }

    /// Where the gauges of names and clusters come from; replaces the former source, as a reload does.
    pub fn set_federation(&self, gauges: Box<dyn FederationGauges>) {
        *lock(&self.federation) = Some(gauges);
    }

    /// The text exposition of this moment (version 0.0.4).
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let page = Page(Registry::new());
        let udp = Counters::default();
        {
            let totals = lock(&self.udp);
            udp.add(&totals.ended);
            for worker in &totals.workers {
                udp.add(worker);
            }
        }
        self.put_queries(&page, &udp)?;
        self.put_streams(&page)?;
        page.counters(
            "signpost_reload_total",
            "Reloads of the configuration.",
            "result",
            [labelled::<Reload, _>(&self.reloads)],
        )?;
        self.put_places(&page)?;
        let build =
            IntGaugeVec::new(Opts::new("signpost_build_info", "Always 1; the labels tell the build."), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        page.0.register(Box::new(build))?;
        if let Some(federation) = lock(&self.federation).as_deref() {
            put_federation(&page, federation)?;
        }
        TextEncoder::new().encode_to_string(&page.0.gather())
    }

    fn put_queries(&self, page: &Page, udp: &Counters) -> Result<(), prometheus::Error> {
        let zones = lock(&self.zones).clone();
        let queries = IntCounterVec::new(
            Opts::new("signpost_queries_total", "Queries answered."),
            &["transport", "view", "zone", "rcode"],
        )?;
        let truncated = IntCounterVec::new(
            Opts::new("signpost_answers_truncated_total", "Answers with TC=1."),
            &["transport", "view"],
        )?;
        let failed_open = IntCounterVec::new(
            Opts::new(
                "signpost_answers_failed_open_total",
                "Answers with addresses that are Down, for want of others.",
            ),
            &["transport", "view"],
        )?;
        for (transport, counters) in Transport::LABELS.iter().zip([udp, &self.streams.shared]) {
            for (place, view) in ViewClass::LABELS.iter().enumerate() {
                for (label, counts) in counters.answered[place].iter().enumerate() {
                    let zone = match label {
                        0 => NO_ZONE,
                        label if label == ZONES - 1 => OTHER_ZONES,
                        label => zones.get(label - 1).map_or(OTHER_ZONES, String::as_str),
                    };
                    let is_used = label <= zones.len();
                    for (rcode, count) in labelled::<Rcode, _>(counts) {
                        if is_used || count > 0 {
                            queries.with_label_values(&[transport, view, zone, rcode]).inc_by(count);
                        }
                    }
                }
                truncated.with_label_values(&[transport, view]).inc_by(counters.truncated.0[place].load(Relaxed));
                let count = counters.failed_open.0[place].load(Relaxed);
                failed_open.with_label_values(&[transport, view]).inc_by(count);
            }
        }
        page.0.register(Box::new(queries))?;
        page.0.register(Box::new(truncated))?;
        page.0.register(Box::new(failed_open))?;
        let latency = [("udp", &udp.latency), ("tcp", &self.streams.shared.latency)];
        page.0.register(Box::new(histogram::Family::new(
            "signpost_answer_seconds",
            "From when a query was received to when its answer was sent; over UDP of one batch in 64.",
            Some("transport"),
            &latency,
        )?))?;
        page.counters(
            "signpost_query_log_total",
            "Queries that were to be logged.",
            "result",
            [labelled::<Logged, _>(&self.query_log)],
        )?;
        page.counters(
            "signpost_queries_dropped_total",
            "Queries that got no answer.",
            "cause",
            [
                labelled::<DropCause, _>(&udp.dropped),
                labelled::<DropCause, _>(&self.streams.shared.dropped),
                labelled::<DatagramDrop, _>(&udp.datagrams_dropped),
            ],
        )?;
        page.counter(
            "signpost_udp_send_errors_total",
            "Answers that the kernel did not take.",
            udp.send_errors.load(Relaxed),
        )?;
        page.counter("signpost_udp_receive_errors_total", "Failed receive calls.", udp.receive_errors.load(Relaxed))
    }

    fn put_places(&self, page: &Page) -> Result<(), prometheus::Error> {
        let PlacesSample { prefixes, orders, octets, left_out, broken_files } = *lock(&self.places);
        for (name, help, value) in [
            ("signpost_places_prefixes", "Prefixes of which it is known where they are.", prefixes),
            ("signpost_places_orders", "Different orders of the clusters, by where clients are.", orders),
            ("signpost_places_bytes", "Memory that prefixes and orders take.", octets),
            ("signpost_places_left_out", "Lines and prefixes of places that are not used.", left_out),
            ("signpost_places_broken_files", "Files with places that could not be read.", broken_files),
        ] {
            page.gauge(name, help, value)?;
        }
        page.counters(
            "signpost_places_reload_total",
            "Files with places that changed and were read again.",
            "result",
            [labelled::<Reload, _>(&self.places_reloads)],
        )
    }

    fn put_streams(&self, page: &Page) -> Result<(), prometheus::Error> {
        let open = IntGauge::new("signpost_tcp_connections", "Open TCP connections.")?;
        open.set(i64::try_from(self.streams.open()).unwrap_or(i64::MAX));
        page.0.register(Box::new(open))?;
        let closed = labelled::<Closing, _>(&self.streams.closed);
        page.counters("signpost_tcp_closed_total", "TCP connections that ended.", "cause", [closed])?;
        page.counter(
            "signpost_tcp_accept_errors_total",
            "Failed accept calls.",
            self.streams.accept_errors.load(Relaxed),
        )
    }
}

fn put_health(page: &Page, health: HealthSample) -> Result<(), prometheus::Error> {
    let endpoints = IntGaugeVec::new(
        Opts::new(
            "signpost_health_endpoints",
            "External addresses of clusters that are probed, by what is known of them.",
        ),
        &["health"],
    )?;
    let HealthSample {
        up,
        unknown,
        suspect,
        down,
        isolated,
        frozen,
        refused,
        votes,
        transitions,
        strangers,
        good,
        failed,
        latency,
        interval,
    } = health;
    page.gauge(
        "signpost_probe_refused",
        "Addresses of clusters that are never probed, and served as they are.",
        refused,
    )?;
    page.counter(
        "signpost_health_votes_on_nothing_total",
        "Votes that changed on endpoints that no cluster has here.",
        strangers,
    )?;
    for (label, count) in [("up", up), ("unknown", unknown), ("suspect", suspect), ("down", down)] {
        endpoints.with_label_values(&[label]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    page.0.register(Box::new(endpoints))?;
    let help = "Changes of what is known of external addresses, by what they became.";
    page.counters("signpost_health_transitions_total", help, "to", [transitions])?;
    let said = IntGaugeVec::new(
        Opts::new("signpost_health_votes", "External addresses, by what this instance says of them."),
        &["vote"],
    )?;
    for (vote, count) in votes {
        said.with_label_values(&[vote]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    page.0.register(Box::new(said))?;
    // A failed one by why it failed.
    let probes = std::iter::once(("good", good)).chain(failed).collect();
    page.counters("signpost_probes_total", "Probes that came to an end.", "result", [probes])?;
    for (name, help, on) in [
        ("signpost_health_isolated", "1 while this instance abstains: it may be cut off itself.", isolated),
        ("signpost_health_frozen", "1 while nothing is removed: too much was Down at once.", frozen),
    ] {
        page.gauge(name, help, on.into())?;
    }
    for (name, help, value) in [
        ("signpost_probe_good_seconds_total", "Seconds that all good probes took together.", latency),
        ("signpost_probe_interval_seconds", "Seconds from one probe of an endpoint to the next one.", interval),
    ] {
        let gauge = prometheus::Gauge::new(name, help)?;
        gauge.set(value.as_secs_f64());
        page.0.register(Box::new(gauge))?;
    }
    Ok(())
}

fn put_votes(page: &Page, voters: Vec<VoterSample>, writes: WritesSample) -> Result<(), prometheus::Error> {
    let counting = IntGaugeVec::new(
        Opts::new("signpost_health_voter_replicas", "Instances of a voting cluster whose word counts here."),
        &["cluster"],
    )?;
    let heard = GaugeVec::new(
        Opts::new("signpost_health_voter_heard_seconds", "Seconds since a heartbeat of the voter was seen to change."),
        &["cluster"],
    )?;
    let silent = IntGaugeVec::new(
        Opts::new("signpost_health_voter_silent", "Instances of a voting cluster whose word does not count here."),
        &["cluster", "reason"],
    )?;
    for VoterSample { cluster, counting: count, heard: age, silent: reasons } in voters {
        counting.with_label_values(&[&cluster]).set(i64::try_from(count).unwrap_or(i64::MAX));
        if let Some(age) = age {
            heard.with_label_values(&[&cluster]).set(age.as_secs_f64());
        }
        for (reason, count) in reasons {
            silent.with_label_values(&[cluster.as_str(), reason]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
    page.0.register(Box::new(counting))?;
    page.0.register(Box::new(heard))?;
    page.0.register(Box::new(silent))?;
    let WritesSample { counts, leases, reports, failed, refused } = writes;
    page.gauge(
        "signpost_health_own_vote",
        "1 while this instance's own word was read back, and counts.",
        counts.into(),
    )?;
    let written = vec![("lease", leases), ("report", reports)];
    let help = "What this instance wrote into its own cluster.";
    page.counters("signpost_health_writes_total", help, "object", [written])?;
    page.counter("signpost_health_write_errors_total", "Writes into the own cluster that failed.", failed)?;
    page.counter(
        "signpost_health_objects_refused_total",
        "Leases and reports of clusters that are no voters, or have too many of them.",
        refused,
    )
}

fn put_secrets(page: &Page, secrets: SecretsSample) -> Result<(), prometheus::Error> {
    let SecretsSample { registered, refused, held, last_heard, errors } = secrets;
    page.gauge("signpost_registered_clusters", "Clusters that are registered by Secrets.", registered)?;
    let gauge = IntGaugeVec::new(
        Opts::new("signpost_cluster_secrets_refused", "Secrets that are to register a cluster and are not used."),
        &["reason"],
    )?;
    for (reason, count) in refused {
        gauge.with_label_values(&[reason]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    page.0.register(Box::new(gauge))?;
    let help = "Deletions of such Secrets that are not believed yet.";
    page.gauge("signpost_cluster_secrets_held_deletions", help, held)?;
    if let Some(heard) = last_heard {
        let help = "Seconds since the API with these Secrets was heard.";
        let gauge = prometheus::Gauge::new("signpost_cluster_secrets_last_heard_seconds", help)?;
        gauge.set(heard.as_secs_f64());
        page.0.register(Box::new(gauge))?;
    }
    let help = "Failed lists and watches of these Secrets.";
    page.counters("signpost_cluster_secrets_errors_total", help, "reason", [errors])
}

fn put_federation(page: &Page, federation: &dyn FederationGauges) -> Result<(), prometheus::Error> {
    let names = IntGauge::new("signpost_names", "Names in the table.")?;
    names.set(i64::try_from(federation.names()).unwrap_or(i64::MAX));
    page.gauge("signpost_updates_waiting", "Updates of clusters that wait to be taken.", federation.waiting())?;
    page.0.register(Box::new(histogram::Family::new(
        "signpost_change_seconds",
        "From when an update of a cluster was taken to when all that it changes is answered with.",
        None,
        &[("", &federation.changes())],
    )?))?;
    let notes = IntGaugeVec::new(
        Opts::new("signpost_names_left_out", "Names and addresses of services that are not answered with."),
        &["reason"],
    )?;
    for (reason, count) in federation.notes() {
        notes.with_label_values(&[reason]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    page.0.register(Box::new(notes))?;
    let LoadSample { shedding, overloaded, unresolved } = federation.loads();
    for (name, help, value) in [
        ("signpost_shares_shedding", "Clusters' shares of services whose load sends clients elsewhere.", shedding),
        ("signpost_shares_overloaded", "Those of them that stand behind all others.", overloaded),
        ("signpost_hostnames_unresolved", "Names of load balancers that cannot be resolved now.", unresolved),
    ] {
        page.gauge(name, help, value)?;
    }
    if let Some(health) = federation.health() {
        put_health(page, health)?;
    }
    if let Some((voters, writes)) = federation.votes() {
        put_votes(page, voters, writes)?;
    }
    let directives = IntGaugeVec::new(
        Opts::new("signpost_directives", "What operators say of a cluster or of services of it."),
        &["cluster", "action", "phase"],
    )?;
    for DirectiveSample { cluster, action, phase, count } in federation.directives() {
        let gauge = directives.with_label_values(&[&*cluster, action, phase]);
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    page.0.register(Box::new(directives))?;
    if let Some(secrets) = federation.secrets() {
        put_secrets(page, secrets)?;
    }
    if let Some(SnapshotSample { written, failed, last }) = federation.snapshots() {
        let snapshots =
            IntCounterVec::new(Opts::new("signpost_snapshots_total", "Snapshots of clusters on disk."), &["result"])?;
        snapshots.with_label_values(&["written"]).inc_by(written);
        snapshots.with_label_values(&["failed"]).inc_by(failed);
        let name = "signpost_snapshot_written_timestamp_seconds";
        let times =
            IntGaugeVec::new(Opts::new(name, "When the last snapshot of a cluster was written."), &["cluster"])?;
        for (cluster, at) in last {
            times.with_label_values(&[&*cluster]).set(at);
        }
        page.0.register(Box::new(snapshots))?;
        page.0.register(Box::new(times))?;
    }
    let restored = IntGaugeVec::new(
        Opts::new("signpost_cluster_stale", "1 while a cluster is answered for as its snapshot has it."),
        &["cluster"],
    )?;
    let silent = IntGaugeVec::new(
        Opts::new(
            "signpost_cluster_silent",
            "1 while a cluster that was heard says nothing: others as near come first.",
        ),
        &["cluster"],
    )?;
    let synced = IntGaugeVec::new(Opts::new("signpost_cluster_synced", "1 once all kinds were listed."), &["cluster"])?;
    let heard = GaugeVec::new(
        Opts::new("signpost_cluster_last_heard_seconds", "Seconds since the last event or bookmark."),
        &["cluster"],
    )?;
    let errors = IntCounterVec::new(
        Opts::new("signpost_source_errors_total", "Failed lists and watches, and unreadable files."),
        &["cluster", "reason"],
    )?;
    let skipped = IntCounterVec::new(
        Opts::new("signpost_objects_skipped_total", "Objects that could not be understood."),
        &["cluster", "reason"],
    )?;
    let held = IntGaugeVec::new(
        Opts::new("signpost_held_deletions", "Deletions held back because too many came at once."),
        &["cluster", "kind"],
    )?;
    let missing = IntGaugeVec::new(
        Opts::new("signpost_kind_missing", "Whether the cluster's API has no such kind, or does not show it to us."),
        &["cluster", "kind"],
    )?;
    for sample in federation.clusters() {
        let cluster = sample.cluster.as_str();
        synced.with_label_values(&[cluster]).set(i64::from(sample.synced));
        restored.with_label_values(&[cluster]).set(i64::from(sample.restored));
        silent.with_label_values(&[cluster]).set(i64::from(sample.silent));
        if let Some(age) = sample.last_heard {
            heard.with_label_values(&[cluster]).set(age.as_secs_f64());
        }
        for (reason, count) in sample.source_errors {
            errors.with_label_values(&[cluster, reason]).inc_by(count);
        }
        for (reason, count) in sample.objects_skipped {
            skipped.with_label_values(&[cluster, reason]).inc_by(count);
        }
        for (kind, count) in sample.held_deletions {
            held.with_label_values(&[cluster, kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        for (kind, is_missing) in sample.missing {
            missing.with_label_values(&[cluster, kind]).set(is_missing.into());
        }
    }
    page.0.register(Box::new(names))?;
    page.0.register(Box::new(synced))?;
    page.0.register(Box::new(restored))?;
    page.0.register(Box::new(silent))?;
    page.0.register(Box::new(heard))?;
    page.0.register(Box::new(errors))?;
    page.0.register(Box::new(skipped))?;
    page.0.register(Box::new(held))?;
    page.0.register(Box::new(missing))
}

/// The metrics of one scrape.
struct Page(Registry);

impl Page {
    fn counter(&self, name: &str, help: &str, value: u64) -> Result<(), prometheus::Error> {
        let counter = IntCounter::new(name, help)?;
        counter.inc_by(value);
        self.0.register(Box::new(counter))
    }

    fn gauge(&self, name: &str, help: &str, value: u64) -> Result<(), prometheus::Error> {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        self.0.register(Box::new(gauge))
    }

    /// A counter with one label; members that occur in several sets are summed.
    fn counters<const N: usize>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        sets: [Vec<(&'static str, u64)>; N],
    ) -> Result<(), prometheus::Error> {
        let counter = IntCounterVec::new(Opts::new(name, help), &[label])?;
        for (value, count) in sets.into_iter().flatten() {
            counter.with_label_values(&[value]).inc_by(count);
        }
        self.0.register(Box::new(counter))
    }
}

fn labelled<L: LabelSet, const N: usize>(counts: &Counts<N>) -> Vec<(&'static str, u64)> {
    L::LABELS.iter().zip(&counts.0).map(|(label, count)| (*label, count.load(Relaxed))).collect()
}

/// A panic elsewhere must not take the metrics with it: every value behind these locks is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(rcode: Rcode, view: ViewClass, truncated: bool) -> Outcome {
        Outcome { rcode, view, truncated, fails_open: truncated }
    }

    #[track_caller]
    fn assert_line(text: &str, line: &str) {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
    }

    #[test]
    fn workers_and_streams_are_summed() {
        let metrics = Metrics::new();
        let (mut a, mut b) = (metrics.udp_worker(), metrics.udp_worker());
        a.answered(outcome(Rcode::NoError, ViewClass::External, false), 0);
        b.answered(outcome(Rcode::NoError, ViewClass::External, true), 0);
        b.answered(outcome(Rcode::NxDomain, ViewClass::Internal, false), 0);
        a.dropped(DropCause::Response);
        metrics.streams().dropped(DropCause::Response);
        b.datagram_dropped(DatagramDrop::Oversized);
        b.send_error();
        metrics.streams().answered(outcome(Rcode::Refused, ViewClass::External, false), 0);
        let text = metrics.text().unwrap();
        assert_line(&text, r#"signpost_queries_total{rcode="NOERROR",transport="udp",view="external",zone="none"} 2"#);
        assert_line(&text, r#"signpost_queries_total{rcode="NXDOMAIN",transport="udp",view="internal",zone="none"} 1"#);
        assert_line(&text, r#"signpost_queries_total{rcode="REFUSED",transport="tcp",view="external",zone="none"} 1"#);
        assert_line(&text, r#"signpost_queries_total{rcode="SERVFAIL",transport="tcp",view="internal",zone="none"} 0"#);
        assert_line(&text, r#"signpost_answers_truncated_total{transport="udp",view="external"} 1"#);
        assert_line(&text, r#"signpost_answers_failed_open_total{transport="udp",view="external"} 1"#);
        assert_line(&text, r#"signpost_queries_dropped_total{cause="response"} 2"#);
        assert_line(&text, r#"signpost_queries_dropped_total{cause="oversized"} 1"#);
        assert_line(&text, "signpost_udp_send_errors_total 1");
        assert_line(&text, concat!(r#"signpost_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#));
    }

    #[test]
    fn answers_are_counted_by_zone_whatever_zones_come_and_go() {
        let metrics = Metrics::new();
        let mut worker = metrics.udp_worker();
        let labels: Vec<u8> = (0..20).map(|n| metrics.zone_label(&format!("z{n}."))).collect();
        assert_eq!((labels[0], labels[13], labels[14], labels[19]), (1, 14, 15, 15));
        assert_eq!(metrics.zone_label("z13."), 14, "it keeps its label");
        for &zone in &labels {
            worker.answered(outcome(Rcode::NoError, ViewClass::External, false), zone);
        }
        worker.took(3, Duration::from_micros(5));
        metrics.streams().took(1, Duration::from_secs(9));
        metrics.query_logged(Logged::Lost);
        let text = metrics.text().unwrap();
        let line = |zone: &str, count| {
            format!(
                r#"signpost_queries_total{{rcode="NOERROR",transport="udp",view="external",zone="{zone}"}} {count}"#
            )
        };
        for (zone, count) in [("none", 0), ("z0.", 1), ("z13.", 1), ("other", 6)] {
            assert_line(&text, &line(zone, count));
        }
        assert_line(&text, r#"signpost_answer_seconds_bucket{transport="udp",le="0.000004"} 0"#);
        assert_line(&text, r#"signpost_answer_seconds_bucket{transport="udp",le="0.000008"} 3"#);
        assert_line(&text, r#"signpost_answer_seconds_count{transport="tcp"} 1"#);
        assert_line(&text, r#"signpost_answer_seconds_sum{transport="tcp"} 9"#);
        assert_line(&text, r#"signpost_query_log_total{result="lost"} 1"#);
    }

    #[test]
    fn a_worker_that_ends_leaves_its_sums() {
        let metrics = Metrics::new();
        let mut worker = metrics.udp_worker();
        worker.answered(outcome(Rcode::NoData, ViewClass::External, false), 0);
        let line = r#"signpost_queries_total{rcode="NODATA",transport="udp",view="external",zone="none"} 1"#;
        assert_line(&metrics.text().unwrap(), line);
        drop(worker);
        assert_line(&metrics.text().unwrap(), line);
        assert!(lock(&metrics.udp).workers.is_empty());
    }

    #[test]
    fn connections_are_counted_in_and_out() {
        let metrics = Metrics::new();
        metrics.streams().opened();
        metrics.streams().opened();
        metrics.streams().closed(Closing::Evicted);
        metrics.streams().turned_away();
        metrics.reloaded(Reload::Rejected);
        let text = metrics.text().unwrap();
        assert_line(&text, "signpost_tcp_connections 1");
        assert_line(&text, r#"signpost_tcp_closed_total{cause="evicted"} 1"#);
        assert_line(&text, r#"signpost_tcp_closed_total{cause="client_limit"} 1"#);
        assert_line(&text, r#"signpost_reload_total{result="rejected"} 1"#);
        assert_line(&text, r#"signpost_reload_total{result="applied"} 0"#);
    }

    struct Two;

    impl FederationGauges for Two {
        fn notes(&self) -> Vec<(&'static str, u64)> {
            vec![("long_name", 3)]
        }

        fn loads(&self) -> LoadSample {
            LoadSample { shedding: 3, overloaded: 2, unresolved: 1 }
        }

        fn snapshots(&self) -> Option<SnapshotSample> {
            Some(SnapshotSample { written: 5, failed: 1, last: vec![("cluster-1".into(), 1_700_000_000)] })
        }

        fn secrets(&self) -> Option<SecretsSample> {
            Some(SecretsSample {
                registered: 2,
                refused: vec![("forbidden", 1)],
                held: 11,
                last_heard: Some(Duration::from_millis(2500)),
                errors: vec![("connect", 4)],
            })
        }

        fn directives(&self) -> Vec<DirectiveSample> {
            vec![DirectiveSample { cluster: "cluster-1".to_owned(), action: "drain", phase: "active", count: 2 }]
        }

        fn votes(&self) -> Option<(Vec<VoterSample>, WritesSample)> {
            let voter = VoterSample {
                cluster: "east".to_owned(),
                counting: 2,
                heard: Some(Duration::from_secs(3)),
                silent: vec![("stale", 1)],
            };
            Some((vec![voter], WritesSample { counts: true, leases: 7, ..WritesSample::default() }))
        }

        fn health(&self) -> Option<HealthSample> {
            Some(HealthSample {
                down: 4,
                votes: vec![("down", 5)],
                transitions: vec![("down", 6)],
                failed: vec![("late", 9)],
                frozen: true,
                interval: Duration::from_secs(5),
                ..Default::default()
            })
        }

        fn names(&self) -> u64 {
            7
        }

        fn waiting(&self) -> u64 {
            8
        }

        fn changes(&self) -> Arc<Histogram> {
            let changes = Histogram::default();
            changes.add(2, Duration::from_micros(3));
            Arc::new(changes)
        }

        fn clusters(&self) -> Vec<ClusterSample> {
            vec![
                ClusterSample {
                    cluster: "cluster-1".into(),
                    synced: true,
                    restored: true,
                    silent: true,
                    last_heard: Some(Duration::from_millis(1500)),
                    source_errors: vec![("forbidden", 3)],
                    objects_skipped: vec![("port", 2)],
                    held_deletions: vec![("Service", 12)],
                    missing: vec![("serviceload", true), ("clusterload", false)],
                },
                ClusterSample { cluster: "cluster-2".into(), ..ClusterSample::default() },
            ]
        }
    }

    #[test]
    fn clusters_are_asked_on_scrape() {
        let metrics = Metrics::new();
        assert!(!metrics.text().unwrap().contains("signpost_names"));
        metrics.set_federation(Box::new(Two));
        let text = metrics.text().unwrap();
        assert_line(&text, "signpost_names 7");
        assert_line(&text, "signpost_updates_waiting 8");
        assert_line(&text, r#"signpost_change_seconds_bucket{le="0.000002"} 0"#);
        assert_line(&text, r#"signpost_change_seconds_bucket{le="0.000004"} 2"#);
        assert_line(&text, r#"signpost_change_seconds_bucket{le="+Inf"} 2"#);
        assert_line(&text, "signpost_change_seconds_count 2");
        assert_line(&text, "signpost_change_seconds_sum 0.000006");
        assert_line(&text, r#"signpost_health_endpoints{health="down"} 4"#);
        assert_line(&text, r#"signpost_probes_total{result="late"} 9"#);
        assert_line(&text, r#"signpost_directives{action="drain",cluster="cluster-1",phase="active"} 2"#);
        assert_line(&text, r#"signpost_health_votes{vote="down"} 5"#);
        assert_line(&text, r#"signpost_health_transitions_total{to="down"} 6"#);
        assert_line(&text, "signpost_health_isolated 0");
        assert_line(&text, "signpost_health_frozen 1");
        assert_line(&text, "signpost_probe_interval_seconds 5");
        assert_line(&text, r#"signpost_cluster_synced{cluster="cluster-1"} 1"#);
        assert_line(&text, r#"signpost_cluster_synced{cluster="cluster-2"} 0"#);
        assert_line(&text, r#"signpost_cluster_stale{cluster="cluster-1"} 1"#);
        assert_line(&text, r#"signpost_cluster_stale{cluster="cluster-2"} 0"#);
        assert_line(&text, r#"signpost_cluster_silent{cluster="cluster-1"} 1"#);
        assert_line(&text, r#"signpost_cluster_silent{cluster="cluster-2"} 0"#);
        assert_line(&text, "signpost_registered_clusters 2");
        assert_line(&text, r#"signpost_cluster_secrets_refused{reason="forbidden"} 1"#);
        assert_line(&text, "signpost_cluster_secrets_held_deletions 11");
        assert_line(&text, "signpost_cluster_secrets_last_heard_seconds 2.5");
        assert_line(&text, r#"signpost_cluster_secrets_errors_total{reason="connect"} 4"#);
        assert_line(&text, r#"signpost_snapshots_total{result="failed"} 1"#);
        assert_line(&text, r#"signpost_snapshot_written_timestamp_seconds{cluster="cluster-1"} 1700000000"#);
        assert_line(&text, r#"signpost_cluster_last_heard_seconds{cluster="cluster-1"} 1.5"#);
        assert!(!text.contains(r#"signpost_cluster_last_heard_seconds{cluster="cluster-2"}"#));
        assert_line(&text, r#"signpost_source_errors_total{cluster="cluster-1",reason="forbidden"} 3"#);
        assert_line(&text, r#"signpost_objects_skipped_total{cluster="cluster-1",reason="port"} 2"#);
        assert_line(&text, r#"signpost_held_deletions{cluster="cluster-1",kind="Service"} 12"#);
        assert_line(&text, r#"signpost_kind_missing{cluster="cluster-1",kind="serviceload"} 1"#);
        assert_line(&text, r#"signpost_kind_missing{cluster="cluster-1",kind="clusterload"} 0"#);
    }

    #[test]
    fn labels_are_in_the_order_of_their_places() {
        assert_eq!(Rcode::LABELS[Rcode::YxDomain.place()], "YXDOMAIN");
        assert_eq!(Closing::LABELS[Closing::Stop.place()], "stop");
        // `put_queries` zips the transports in this order.
        assert_eq!((Transport::Udp.place(), Transport::Tcp.place()), (0, 1));
    }
}
