//! Who holds a TCP connection: the limits over all listeners, and which one makes room for another.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The open TCP connections of the process. Clones are the same table.
#[derive(Clone)]
pub struct Connections(Arc<Shared>);

struct Shared {
    limit: usize,
    per_client: u32,
    start: Instant,
    state: Mutex<State>,
    crowded: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    next: u64,
    open: HashMap<u64, Arc<Entry>>,
    clients: HashMap<ClientKey, u32>,
}

struct Entry {
    client: ClientKey,
    /// Microseconds since [`Shared::start`], of the last exchange that was completed.
    last_active: AtomicU64,
    evicted: CancellationToken,
}

/// What the limit per client counts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientKey {
    /// On internal listeners: each resolver is one address.
    Address(IpAddr),
    /// On external listeners: a /24 or a /56, since whoever has one address there usually has them all.
    Prefix4([u8; 3]),
    Prefix6([u8; 7]),
}

impl ClientKey {
    pub fn prefix(address: IpAddr) -> ClientKey {
        match address {
            IpAddr::V4(a) => {
                let [x, y, z, _] = a.octets();
                ClientKey::Prefix4([x, y, z])
            }
            IpAddr::V6(a) => {
                let o = a.octets();
                ClientKey::Prefix6([o[0], o[1], o[2], o[3], o[4], o[5], o[6]])
            }
        }
    }
}

/// A place in the table, given back when dropped.
pub struct Ticket {
    shared: Arc<Shared>,
    id: u64,
    entry: Arc<Entry>,
    crowded: watch::Receiver<bool>,
}

impl Connections {
    /// `limit` over all listeners, `per_client` for each [`ClientKey`]. At least one of each.
    pub fn new(limit: u32, per_client: u32) -> Connections {
        Connections(Arc::new(Shared {
            limit: usize::try_from(limit).unwrap_or(usize::MAX).max(1),
            per_client: per_client.max(1),
            start: Instant::now(),
            state: Mutex::default(),
            crowded: watch::Sender::new(false),
        }))
    }

    /// `None`: the client has as many as it may have. A full table makes room by evicting the longest idle.
    pub fn admit(&self, client: ClientKey) -> Option<Ticket> {
        let mut state = self.0.lock();
        if state.clients.get(&client).is_some_and(|held| *held >= self.0.per_client) {
            return None;
        }
        while state.open.len() >= self.0.limit {
            state.evict_longest_idle();
        }
        let entry =
            Arc::new(Entry { client, last_active: AtomicU64::new(self.0.now()), evicted: CancellationToken::new() });
        let id = state.next;
        state.next += 1;
        state.open.insert(id, Arc::clone(&entry));
        *state.clients.entry(client).or_default() += 1;
        self.0.update_crowded(state.open.len());
        drop(state);
        Some(Ticket { shared: Arc::clone(&self.0), id, entry, crowded: self.0.crowded.subscribe() })
    }

    /// Frees a file descriptor when the process has run out of them.
    pub fn evict_longest_idle(&self) {
        self.0.lock().evict_longest_idle();
    }

    /// Connections that have a place.
    pub fn open(&self) -> usize {
        self.0.lock().open.len()
    }
}

impl Shared {
    /// The lock is held for the pace of connections, never for that of queries.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Crowded above 80 %, until below 70 %: at one threshold, a single client that comes and goes would
    /// wake every waiting connection each time.
    fn update_crowded(&self, open: usize) {
        self.crowded.send_if_modified(|crowded| {
            let now = if *crowded { open * 10 >= self.limit * 7 } else { open * 10 > self.limit * 8 };
            std::mem::replace(crowded, now) != now
        });
    }
}

impl State {
    /// A scan: about 1 µs at the default limit of 1,024, and only while the table is full.
    fn evict_longest_idle(&mut self) {
        let oldest = self.open.iter().min_by_key(|(id, entry)| (entry.last_active.load(Relaxed), **id));
        if let Some(id) = oldest.map(|(id, _)| *id) {
            let entry = self.remove(id).expect("the id was read from the map under the same lock");
            entry.evicted.cancel();
        }
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Entry>> {
        let entry = self.open.remove(&id)?;
        if let Some(held) = self.clients.get_mut(&entry.client) {
            *held -= 1;
            if *held == 0 {
                self.clients.remove(&entry.client);
            }
        }
        Some(entry)
    }
}

impl Ticket {
    /// An exchange was completed. Bytes that complete nothing do not count, so that who trickles is idle.
    pub fn touch(&self) {
        self.entry.last_active.store(self.shared.now(), Relaxed);
    }

    /// How long an idle connection may stay, by how full the table is.
    pub fn idle_limit(&mut self, calm: Duration, crowded: Duration) -> Duration {
        if *self.crowded.borrow_and_update() { calm.min(crowded) } else { calm }
    }

    /// Two futures for one `select!`: the connection has to make room for another, and
    /// [`idle_limit`](Self::idle_limit) has changed.
    pub fn signals(&mut self) -> (impl Future<Output = ()> + '_, impl Future<Output = ()> + '_) {
        let (entry, crowded) = (&self.entry, &mut self.crowded);
        (entry.evicted.cancelled(), async move {
            // The sender lives in `shared`, so this is never the error of a dropped sender.
            let _ = crowded.changed().await;
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        // Already gone if evicted.
        state.remove(self.id);
        self.shared.update_crowded(state.open.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(last: u8) -> ClientKey {
        ClientKey::Address(IpAddr::from([192, 0, 2, last]))
    }

    fn is_evicted(ticket: &Ticket) -> bool {
        ticket.entry.evicted.is_cancelled()
    }

    #[test]
    fn prefixes() {
        let p = |a: &str| ClientKey::prefix(a.parse().unwrap());
        assert_eq!(p("192.0.2.1"), p("192.0.2.255"));
        assert_ne!(p("192.0.2.1"), p("192.0.3.1"));
        assert_eq!(p("2001:db8:0:1::1"), p("2001:db8:0:ff::1"));
        assert_ne!(p("2001:db8:0:1::1"), p("2001:db8:0:100::1"));
    }

    #[test]
    fn a_full_table_evicts_the_longest_idle() {
        let table = Connections::new(3, 10);
        let mut tickets = Vec::new();
        for n in 0..3 {
            tickets.push(table.admit(key(n)).unwrap());
            let now = table.0.now();
            while table.0.now() == now {}
        }
        tickets[0].touch();
        let fourth = table.admit(key(3)).unwrap();
        assert_eq!(tickets.iter().map(is_evicted).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(table.open(), 3);
        // The evicted one's end must not free a second place.
        drop(tickets.remove(1));
        assert_eq!(table.open(), 3);
        drop((tickets, fourth));
        assert_eq!(table.open(), 0);
        assert!(table.0.lock().clients.is_empty());
    }

    #[test]
    fn a_client_has_its_share() {
        let table = Connections::new(100, 2);
        let first = table.admit(key(1)).unwrap();
        let _second = table.admit(key(1)).unwrap();
        assert!(table.admit(key(1)).is_none());
        let _other = table.admit(key(2)).unwrap();
        drop(first);
        assert!(table.admit(key(1)).is_some());
    }

    #[test]
    fn crowded_above_eighty_percent_and_until_below_seventy() {
        let table = Connections::new(10, 100);
        let (calm, crowded) = (Duration::from_secs(10), Duration::from_secs(1));
        let mut tickets: Vec<_> = (0..8).map(|_| table.admit(key(0)).unwrap()).collect();
        assert_eq!(tickets[0].idle_limit(calm, crowded), calm);
        tickets.push(table.admit(key(0)).unwrap());
        assert_eq!(tickets[0].idle_limit(calm, crowded), crowded);
        tickets.truncate(7);
        assert_eq!(tickets[0].idle_limit(calm, crowded), crowded);
        tickets.truncate(6);
        assert_eq!(tickets[0].idle_limit(calm, crowded), calm);
    }
}
