//! DNS over UDP: plain threads that receive, answer in place and send, a batch at a time.
//!
//! Besides `table/map.rs` and `table/arena.rs` the only file with `unsafe`: the two system calls that move batches, the socket options that
//! `socket2` lacks, and the pinning of threads. That they are together is why it is longer than others.

use std::hint::cold_path;
use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libc::{c_int, c_uint, c_void, iovec, mmsghdr, sockaddr_in, sockaddr_in6, socklen_t};
use socket2::{Domain, Protocol, Type};

use crate::answer::{Client, Reply, Responder, Transport};
use crate::metrics::{DatagramDrop, UdpCounters};
use crate::model::Audience;
use crate::query_log::Sampler;
use crate::table::Reader;

/// Datagrams for each system call. Beyond 32 the calls' share of a query's cost no longer falls measurably.
const BATCH: usize = 32;
const _: () = assert!(BATCH <= u32::BITS as usize, "a bit for each place");
/// Octets of a receive slot: any query is far shorter, and any UDP answer is at most 1,232.
const SLOT: usize = 2048;
/// Octets of answers on their way. With the default (208 KiB), answers that wait for a neighbour's link address, which
/// anybody on the link can cause, would take all of it.
const SEND_BUFFER: u32 = 1 << 20;
/// A batch this full says that more is on its way.
const BUSY: usize = 4;
/// Non-blocking attempts before a sleep when busy. A failed attempt costs about a tenth of falling asleep and being
/// woken, so that this many cost at most what they may save.
const SPINS: usize = 8;
/// At the stop, what is in the socket's buffer is answered, up to 8,192 datagrams.
const BATCHES_AT_STOP: usize = 256;
/// How long answers take is measured of one batch in so many: two looks at the clock cost as much as a query of a batch.
const TIMED_ONE_IN: u32 = 64;
/// A worker that waits looks up so often whether it is to go, if it can not be woken up: see [`Stopper::leave`].
const LOOK_UP: Duration = Duration::from_millis(500);
/// The kernel is short of memory; the pause keeps the worker from taking a whole core meanwhile.
const ERROR_PAUSE: Duration = Duration::from_millis(1);

/// A bound socket of one worker.
pub struct Socket {
    inner: socket2::Socket,
    /// Bound to 0.0.0.0 or ::, so that each answer has to name the address that was asked.
    wildcard: bool,
}

/// Binds one socket for each worker, all to the same address. With port 0 the first one chooses for all.
pub fn bind(address: SocketAddr, workers: u16, receive_buffer: u32) -> io::Result<(SocketAddr, Vec<Socket>)> {
    let first = Socket::new(address, receive_buffer)?;
    // SO_REUSEPORT comes after this bind: with it, the sockets of another process of this user would let us in, and the
    // two would share the queries in silence. The kernel puts the first socket into the group when the second joins.
    first.inner.bind(&address.into())?;
    first.inner.set_reuse_port(true)?;
    let bound = first.inner.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        let next = Socket::new(address, receive_buffer)?;
        next.inner.set_reuse_port(true)?;
        next.inner.bind(&bound.into())?;
        sockets.push(next);
    }
    Ok((bound, sockets))
}

/// As [`bind`], with the sockets that an earlier process had at that very address, all of which are used: what they hold would be lost.
pub fn adopt(
    inherited: Vec<OwnedFd>,
    address: SocketAddr,
    workers: u16,
    receive_buffer: u32,
) -> io::Result<(SocketAddr, Vec<Socket>)> {
    let wildcard = address.ip().is_unspecified();
    let mut sockets: Vec<Socket> =
        inherited.into_iter().map(|socket| Socket { inner: socket.into(), wildcard }).collect();
    while sockets.len() < usize::from(workers) {
        let next = Socket::new(address, receive_buffer)?;
        next.inner.set_reuse_port(true)?;
        next.inner.bind(&address.into())?;
        sockets.push(next);
    }
    Ok((address, sockets))
}

impl Socket {
    fn new(address: SocketAddr, receive_buffer: u32) -> io::Result<Socket> {
        let inner = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        let socket = Socket { inner, wildcard: address.ip().is_unspecified() };
        // OMIT: datagrams are neither limited by a forged path MTU nor fragmented below the link's own (RFC 9715).
        match address {
            SocketAddr::V4(_) => {
                socket.set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)?;
                if socket.wildcard {
                    socket.set(libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
                }
            }
            SocketAddr::V6(_) => {
                socket.inner.set_only_v6(true)?;
                socket.set(libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_OMIT)?;
                if socket.wildcard {
                    socket.set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
                }
            }
        }
        // FORCE goes beyond net.core.rmem_max and needs CAP_NET_ADMIN; without it, as much as that limit allows.
        let octets = c_int::try_from(receive_buffer).unwrap_or(c_int::MAX);
        if socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, octets).is_err() {
            socket.set(libc::SOL_SOCKET, libc::SO_RCVBUF, octets)?;
        }
        socket.inner.set_send_buffer_size(SEND_BUFFER as usize)?;
        socket.inner.set_read_timeout(Some(LOOK_UP))?;
        Ok(socket)
    }

    fn set(&self, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
        // SAFETY: the pointer and length describe `value`, which outlives the call; the descriptor is open.
        let result = unsafe {
            libc::setsockopt(
                self.inner.as_raw_fd(),
                level,
                name,
                ptr::from_ref(&value).cast::<c_void>(),
                size_of::<c_int>() as socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// Ends a worker, also when dropped.
pub struct Stopper {
    socket: Arc<Socket>,
    stopping: Arc<AtomicBool>,
    /// It goes, and its socket stays: another process has it, too.
    left: AtomicBool,
}

impl Stopper {
    /// Wakes the worker from its receive call without any cost before: on Linux, shutdown(2) of an unconnected UDP
    /// socket fails with ENOTCONN, yet wakes whoever waits for it. What was received can still be read.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        if !self.left.load(Ordering::Relaxed) {
            let _ = self.socket.inner.shutdown(std::net::Shutdown::Read);
        }
    }

    /// Ends the worker within half a second. What [`stop`](Stopper::stop) does is done to the socket, whoever else has it.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
        self.stopping.store(true, Ordering::Release);
    }

    pub fn socket(&self) -> Arc<Socket> {
        Arc::clone(&self.socket)
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a worker does with what it receives. A type parameter and no trait object, so that a benchmark can run this very
/// loop without the answering and call the rest of the cost ours.
pub trait Handler {
    /// Looks at the [`received`](Batch::received) datagrams and queues answers, which are sent when this returns.
    fn handle(&mut self, batch: &mut Batch);
    /// Where the loop's own failures are counted.
    fn counters(&mut self) -> &mut UdpCounters;
}

/// Answers from the table.
pub struct Answers {
    audience: Audience,
    reader: Reader,
    responder: Responder,
    counters: UdpCounters,
    /// `None`: none of its queries is logged.
    sampler: Option<Sampler>,
}

/// One thread's work: handles what one socket receives.
pub struct Worker<H = Answers> {
    socket: Arc<Socket>,
    stopping: Arc<AtomicBool>,
    handler: H,
    /// Batches up to the next one that is timed.
    untimed: u32,
}

impl Worker {
    pub fn new(
        socket: Socket,
        audience: Audience,
        reader: Reader,
        seed: u64,
        counters: UdpCounters,
    ) -> (Worker, Stopper) {
        Worker::with_handler(socket, Answers::new(audience, reader, seed, counters))
    }

    /// Logs some of its queries.
    pub fn with_sampler(mut self, sampler: Sampler) -> Worker {
        self.handler.sampler = Some(sampler);
        self
    }
}

impl<H: Handler> Worker<H> {
    pub fn with_handler(socket: Socket, handler: H) -> (Worker<H>, Stopper) {
        let socket = Arc::new(socket);
        let stopping = Arc::new(AtomicBool::new(false));
        let (left, to_stop) = (AtomicBool::new(false), Arc::clone(&stopping));
        let stopper = Stopper { socket: Arc::clone(&socket), stopping: to_stop, left };
        (Worker { socket, stopping, handler, untimed: 0 }, stopper)
    }

    /// Works until the [`Stopper`] says so; then answers what has arrived. An error is one that no later call can
    /// recover from. Neither allocates nor locks, and makes no system call but receive and send.
    pub fn run(mut self) -> io::Result<()> {
        let mut batch = Batch::of(&self.socket);
        while !self.stopping.load(Ordering::Acquire) {
            match self.receive(&mut batch) {
                Ok(()) => self.handle(&mut batch),
                Err(error) => self.survive(error)?,
            }
        }
        for _ in 0..BATCHES_AT_STOP {
            match batch.receive(&self.socket, Wait::No) {
                Ok(()) => self.handle(&mut batch),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => self.survive(error)?,
            }
        }
        Ok(())
    }

    fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        if batch.received >= BUSY {
            for _ in 0..SPINS {
                match batch.receive(&self.socket, Wait::No) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => return other,
                }
            }
        }
        batch.receive(&self.socket, Wait::ForOne)
    }

    /// Decides whether a failed receive call ends the worker.
    fn survive(&mut self, error: io::Error) -> io::Result<()> {
        match error.raw_os_error() {
            // These say that this program is wrong; the next call would fail alike.
            Some(libc::EBADF | libc::EFAULT | libc::EINVAL | libc::ENOTSOCK) => Err(error),
            Some(libc::EINTR | libc::EAGAIN) => Ok(()),
            // An earlier answer's ICMP error, or a lack of memory.
            _ => {
                self.handler.counters().receive_error();
                thread::sleep(ERROR_PAUSE);
                Ok(())
            }
        }
    }

    fn handle(&mut self, batch: &mut Batch) {
        let began = (self.untimed == 0).then(Instant::now);
        self.untimed = self.untimed.checked_sub(1).unwrap_or(TIMED_ONE_IN - 1);
        self.handler.handle(batch);
        let answers = batch.queued;
        batch.send(&self.socket, self.handler.counters());
        if let Some(began) = began {
            self.handler.counters().took(answers as u64, began.elapsed());
        }
    }
}

impl Answers {
    pub fn new(audience: Audience, reader: Reader, seed: u64, counters: UdpCounters) -> Answers {
        let responder = Responder::for_batches(seed, BATCH);
        Answers { audience, reader, responder, counters, sampler: None }
    }
}

impl Handler for Answers {
    fn handle(&mut self, batch: &mut Batch) {
        let Answers { audience, reader, responder, counters, sampler } = self;
        let is_logged = sampler.as_ref().is_some_and(Sampler::is_on);
        // Left before the send: a reader must not hold up the publisher while it waits for the kernel.
        reader.with(|table| {
            // A bit for each place.
            let mut admitted = 0_u32;
            let received = batch.received;
            for place in 0..received {
                let from = |address| Client { address, audience: *audience, transport: Transport::Udp, keepalive: 0 };
                let message = match batch.admitted(place) {
                    Some((address, message)) => {
                        responder.set_client(place, from(address.into()));
                        message
                    }
                    None => match batch.admitted_any(place) {
                        Some(Ok((address, message))) => {
                            responder.set_client(place, from(address));
                            message
                        }
                        Some(Err(cause)) => {
                            counters.datagram_dropped(cause);
                            continue;
                        }
                        None => continue,
                    },
                };
                responder.read_message(place, table, message);
                admitted |= 1 << place;
            }
            for place in ones(admitted) {
                responder.prefetch(place, table);
            }
            for place in ones(admitted) {
                match responder.answer_read(place, table, batch.buffer(place)) {
                    Reply::Send { length, outcome } => {
                        let length = usize::from(length);
                        counters.answered(outcome, responder.zone_label(place));
                        if is_logged
                            && let Some(sampler) = sampler
                            && sampler.is_due()
                            && let Some(query) = batch.query(place)
                        {
                            cold_path();
                            sampler.take(query.source, Transport::Udp, outcome, &query.buffer[..length]);
                        }
                        batch.reply(place, length);
                    }
                    Reply::Drop(cause) => {
                        cold_path();
                        counters.dropped(cause);
                    }
                }
            }
        });
    }

    fn counters(&mut self) -> &mut UdpCounters {
        &mut self.counters
    }
}

/// The positions of the ones, from the lowest on.
#[inline(always)]
fn ones(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let first = (set != 0).then(|| set.trailing_zeros() as usize);
        set &= set.wrapping_sub(1);
        first
    })
}

/// How [`Batch::receive`] waits for the first datagram. It never waits for a second.
#[derive(Clone, Copy)]
pub enum Wait {
    No,
    ForOne,
}

/// A received datagram.
pub struct Query<'a> {
    pub source: SocketAddr,
    to_group: bool,
    truncated: bool,
    /// Octets of `buffer` that were received.
    pub length: usize,
    /// The whole slot: an answer is written over the datagram.
    pub buffer: &'a mut [u8],
}

impl Query<'_> {
    /// The source address, if an answer to it can do no harm.
    fn admit(&self) -> Result<IpAddr, DatagramDrop> {
        let source = self.source.ip();
        let group = match source {
            IpAddr::V4(a) => a.is_broadcast() || a.is_multicast(),
            IpAddr::V6(a) => a.is_multicast(),
        };
        if self.source.port() == 0 {
            Err(DatagramDrop::SourcePort)
        } else if group || source.is_unspecified() {
            Err(DatagramDrop::SourceAddress)
        } else if self.to_group {
            Err(DatagramDrop::DestinationAddress)
        } else if self.truncated {
            Err(DatagramDrop::Oversized)
        } else {
            Ok(source)
        }
    }
}

/// Buffers and headers of one batch. The headers point into the same allocation, which never moves.
///
/// Invariant: all pointers in `Storage` come from `storage` and stay within it; `received <= BATCH`; `queued <= BATCH`.
pub struct Batch {
    storage: NonNull<Storage>,
    control: bool,
    /// Entries that the last receive call filled.
    received: usize,
    /// Answers that wait for the send call.
    queued: usize,
}

struct Storage {
    slots: [Slot; BATCH],
    addresses: [Address; BATCH],
    controls: [Control; BATCH],
    receive_vectors: [iovec; BATCH],
    send_vectors: [iovec; BATCH],
    receive: [mmsghdr; BATCH],
    send: [mmsghdr; BATCH],
}

/// One cache line longer than what is received: slots at a distance of 2,048 would put their first lines, which
/// are all that most queries touch, into the same few sets of the first-level cache.
#[repr(C, align(64))]
struct Slot {
    octets: [u8; SLOT],
    spread: [u8; 64],
}

#[repr(C)]
#[derive(Clone, Copy)]
union Address {
    v4: sockaddr_in,
    v6: sockaddr_in6,
}

/// Room for one IP_PKTINFO (28 octets) or IPV6_PKTINFO (36) control message, aligned as cmsghdr(3) wants it.
type Control = [u64; 8];

impl Batch {
    /// For the datagrams of this socket, and of no other.
    pub fn of(socket: &Socket) -> Batch {
        Batch::new(socket.wildcard)
    }

    /// Datagrams that the last receive call brought.
    pub fn received(&self) -> usize {
        self.received
    }

    fn new(control: bool) -> Batch {
        // SAFETY: zero octets are a valid value of every field: integers, unions of integers, null raw pointers.
        let mut storage = unsafe { Box::<Storage>::new_zeroed().assume_init() };
        // Touch the pages now, not at the first queries.
        storage.slots.iter_mut().for_each(|slot| slot.octets.fill(0));
        let batch = Batch { storage: NonNull::from(Box::leak(storage)), control, received: 0, queued: 0 };
        let s = batch.storage.as_ptr();
        for place in 0..BATCH {
            // SAFETY: `s` is a live allocation that nothing else refers to, and `place` is within the arrays. The
            // stored pointers derive from `s`, so they stay valid until `drop`.
            unsafe {
                let octets = (&raw mut (*s).slots[place].octets).cast::<c_void>();
                (*s).receive_vectors[place] = iovec { iov_base: octets, iov_len: SLOT };
                (*s).send_vectors[place] = iovec { iov_base: octets, iov_len: 0 };
                let header = &raw mut (*s).receive[place].msg_hdr;
                (*header).msg_name = (&raw mut (*s).addresses[place]).cast();
                (*header).msg_iov = &raw mut (*s).receive_vectors[place];
                (*header).msg_iovlen = 1;
                if control {
                    (*header).msg_control = (&raw mut (*s).controls[place]).cast();
                }
            }
        }
        batch.arm(BATCH);
        batch
    }

    /// Restores what the kernel overwrote in the first `count` receive headers.
    fn arm(&self, count: usize) {
        let s = self.storage.as_ptr();
        for place in 0..count {
            // SAFETY: as in `new`; no reference into the storage is alive, since those are bound to `&mut self`.
            unsafe {
                let header = &raw mut (*s).receive[place].msg_hdr;
                (*header).msg_namelen = size_of::<Address>() as socklen_t;
                if self.control {
                    (*header).msg_controllen = size_of::<Control>() as _;
                }
            }
        }
    }

    /// Receives what is there, or waits for one datagram, as `wait` says.
    pub fn receive(&mut self, socket: &Socket, wait: Wait) -> io::Result<()> {
        self.arm(self.received);
        let flags = match wait {
            Wait::No => libc::MSG_DONTWAIT,
            Wait::ForOne => libc::MSG_WAITFORONE,
        };
        // SAFETY: the first `BATCH` headers describe buffers, addresses and control buffers that live in `storage`;
        // no reference into it is alive.
        let count = unsafe {
            libc::recvmmsg(
                socket.inner.as_raw_fd(),
                (&raw mut (*self.storage.as_ptr()).receive).cast(),
                BATCH as c_uint,
                flags as _,
                ptr::null_mut(),
            )
        };
        match usize::try_from(count) {
            Ok(count) => {
                self.received = count.min(BATCH);
                Ok(())
            }
            Err(_) => {
                self.received = 0;
                Err(io::Error::last_os_error())
            }
        }
    }

    /// The whole slot at `place < received`.
    fn buffer(&mut self, place: usize) -> &mut [u8] {
        assert!(place < self.received, "only received datagrams are looked at");
        // SAFETY: `place` is within the array, all of which is initialised. The returned slice borrows one slot for as long
        // as `self` is borrowed.
        unsafe { &mut (*self.storage.as_ptr()).slots[place].octets }
    }

    /// The datagram at `place < received`; `None` is what a receive call returns instead of one when the socket was shut
    /// down.
    // Called, it would give what it found by memory, in pieces.
    #[inline(always)]
    pub fn query(&mut self, place: usize) -> Option<Query<'_>> {
        assert!(place < self.received, "only received datagrams are looked at");
        let s = self.storage.as_ptr();
        // SAFETY: `place` is within the arrays, and the kernel wrote this entry. The returned slice borrows one slot for
        // as long as `self` is borrowed.
        unsafe {
            let header = &raw const (*s).receive[place].msg_hdr;
            let source = self.source(place, (*header).msg_namelen)?;
            Some(Query {
                source,
                to_group: self.control && !self.pin_local_address(place),
                truncated: (*header).msg_flags & libc::MSG_TRUNC != 0,
                length: ((*s).receive[place].msg_len as usize).min(SLOT),
                buffer: &mut (*s).slots[place].octets,
            })
        }
    }

    /// Who sent the datagram at `place < received`, and what. `None`: that is for [`admitted_any`](Batch::admitted_any) to say;
    /// most are of IPv4, and nothing is the matter with them.
    #[inline(always)]
    fn admitted(&self, place: usize) -> Option<(Ipv4Addr, &[u8])> {
        assert!(place < self.received, "only received datagrams are looked at");
        let s = self.storage.as_ptr();
        // SAFETY: `place` is within the arrays, and the kernel wrote this entry; as in `source`, the address may be read as
        // either member. The slot is borrowed for as long as `self` is.
        let (message, source, octets) =
            unsafe { ((*s).receive[place], (*s).addresses[place].v4, &(*s).slots[place].octets) };
        let is_v4 = message.msg_hdr.msg_namelen as usize >= size_of::<sockaddr_in>()
            && c_int::from(source.sin_family) == libc::AF_INET;
        let address = u32::from_be(source.sin_addr.s_addr);
        // Below those are the addresses of groups.
        let is_plain = matches!(address, 1..0xE000_0000) && source.sin_port != 0;
        let is_whole = message.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
        (is_v4 && is_plain && is_whole && (!self.control || self.pin_local_address(place)))
            .then(|| (Ipv4Addr::from(address), &octets[..(message.msg_len as usize).min(SLOT)]))
    }

    /// The same for whatever was received, or why there is to be no answer; `None` as [`query`](Batch::query).
    #[inline(never)]
    fn admitted_any(&mut self, place: usize) -> Option<Result<(IpAddr, &[u8]), DatagramDrop>> {
        let query = self.query(place)?;
        Some(query.admit().map(|address| (address, &query.buffer[..query.length])))
    }

    #[inline(always)]
    fn source(&self, place: usize, length: socklen_t) -> Option<SocketAddr> {
        let length = length as usize;
        let s = self.storage.as_ptr();
        // SAFETY: both members begin with the family and are plain integers, for which any octets are valid; the union is
        // initialised (zeroed in `new`), and is read as the family and length say.
        unsafe {
            let address = &raw const (*s).addresses[place];
            let family = c_int::from((*address).v4.sin_family);
            if length >= size_of::<sockaddr_in>() && family == libc::AF_INET {
                let v4 = (*address).v4;
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            } else if length >= size_of::<sockaddr_in6>() && family == libc::AF_INET6 {
                let v6 = (*address).v6;
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
            } else {
                None
            }
        }
    }

    /// On a wildcard socket: prepares the received control message for the answer, which then leaves from the address that
    /// was asked. False if that was no unicast address of this host.
    // Not inlined, so that sockets of one address do not go around it.
    #[inline(never)]
    fn pin_local_address(&self, place: usize) -> bool {
        let s = self.storage.as_ptr();
        // SAFETY: `msg_control` and `msg_controllen` describe what the kernel wrote into `controls[place]`; CMSG_FIRSTHDR
        // is null if that is shorter than a header. The payload is read and written only where the level, type and length
        // say that it is the structure; `Control` is aligned for it.
        unsafe {
            let header = &raw const (*s).receive[place].msg_hdr;
            let message = libc::CMSG_FIRSTHDR(header);
            if message.is_null() {
                return false;
            }
            let (level, kind, length) = ((*message).cmsg_level, (*message).cmsg_type, (*message).cmsg_len as usize);
            let payload = libc::CMSG_DATA(message);
            let v4 = libc::CMSG_LEN(size_of::<libc::in_pktinfo>() as c_uint) as usize;
            let v6 = libc::CMSG_LEN(size_of::<libc::in6_pktinfo>() as c_uint) as usize;
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) if length >= v4 => {
                    let info = payload.cast::<libc::in_pktinfo>();
                    // The route back is the routing table's choice, not that of the interface it came in by.
                    (*info).ipi_ifindex = 0;
                    // They differ if and only if the datagram was sent to a broadcast or multicast address.
                    (*info).ipi_spec_dst.s_addr == (*info).ipi_addr.s_addr
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if length >= v6 => {
                    let info = payload.cast::<libc::in6_pktinfo>();
                    let local = Ipv6Addr::from((*info).ipi6_addr.s6_addr);
                    // A link-local address means nothing without its link.
                    if !local.is_unicast_link_local() {
                        (*info).ipi6_ifindex = 0;
                    }
                    !local.is_multicast()
                }
                _ => false,
            }
        }
    }

    /// Queues `length` octets of the slot at `place < received` as the answer to the datagram that was in it.
    pub fn reply(&mut self, place: usize, length: usize) {
        assert!(place < self.received && self.queued < BATCH && length <= SLOT, "an answer lies in its query's slot");
        let s = self.storage.as_ptr();
        // SAFETY: `place` and `queued` are within the arrays; the pointers derive from `s`; no reference is alive.
        unsafe {
            (*s).send_vectors[place].iov_len = length;
            let from = &raw const (*s).receive[place].msg_hdr;
            let to = &raw mut (*s).send[self.queued].msg_hdr;
            (*to).msg_name = (*from).msg_name;
            (*to).msg_namelen = (*from).msg_namelen;
            (*to).msg_iov = &raw mut (*s).send_vectors[place];
            (*to).msg_iovlen = 1;
            if self.control {
                (*to).msg_control = (*from).msg_control;
                (*to).msg_controllen = (*from).msg_controllen;
            }
        }
        self.queued += 1;
    }

    /// Sends what is queued. It does not wait: answers that the kernel cannot take now are lost, as datagrams may be, rather
    /// than that one slow neighbour delays everybody. The kernel stops at the first message that fails; that one is
    /// counted and skipped.
    pub fn send(&mut self, socket: &Socket, counters: &mut UdpCounters) {
        let mut sent = 0;
        while sent < self.queued {
            // SAFETY: entries `sent..queued` were filled by `reply` and point into `storage`; no reference is alive.
            let count = unsafe {
                libc::sendmmsg(
                    socket.inner.as_raw_fd(),
                    (&raw mut (*self.storage.as_ptr()).send).cast::<mmsghdr>().add(sent),
                    (self.queued - sent) as c_uint,
                    libc::MSG_DONTWAIT as _,
                )
            };
            match usize::try_from(count) {
                Ok(count @ 1..) => sent += count,
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => {
                    counters.send_error();
                    sent += 1;
                }
            }
        }
        self.queued = 0;
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // SAFETY: `storage` came from `Box::leak` in `new`, and is given back once.
        drop(unsafe { Box::from_raw(self.storage.as_ptr()) });
    }
}

/// The cores that this process may run on.
pub fn allowed_cores() -> Vec<usize> {
    // SAFETY: zero octets are a valid, empty set; the call writes at most the given size; CPU_ISSET reads within it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return Vec::new();
        }
        (0..libc::CPU_SETSIZE as usize).filter(|core| libc::CPU_ISSET(*core, &set)).collect()
    }
}

/// Keeps the calling thread on one core, so that its table, buffers and counters stay in that core's caches. A kernel or
/// sandbox that refuses costs speed only.
pub fn pin_to(core: usize) {
    if core >= libc::CPU_SETSIZE as usize {
        return;
    }
    // SAFETY: `core` is within the set; the call reads the given size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use std::net::UdpSocket;

    const DEADLINE: Duration = Duration::from_secs(30);
    const ANY_PORT: &str = "127.0.0.1:0";

    fn bind_some(workers: u16) -> (SocketAddr, Vec<Socket>) {
        bind(ANY_PORT.parse().unwrap(), workers, 1 << 20).unwrap()
    }

    fn has_datagram(socket: &Socket) -> bool {
        Batch::new(false).receive(socket, Wait::No).is_ok()
    }

    /// Sends from `client` until one batch has it all: a loaded kernel may deliver in parts.
    fn receive_whole(batch: &mut Batch, socket: &Socket, to: SocketAddr, client: &UdpSocket, datagrams: &[Vec<u8>]) {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            for datagram in datagrams {
                client.send_to(datagram, to).unwrap();
            }
            batch.receive(socket, Wait::ForOne).unwrap();
            let mut seen = batch.received;
            if seen == datagrams.len() {
                return;
            }
            while seen < datagrams.len() {
                batch.receive(socket, Wait::ForOne).unwrap();
                seen += batch.received;
            }
        }
        panic!("never {} datagrams at once", datagrams.len());
    }

    #[test]
    fn the_first_socket_joins_the_group_that_it_was_bound_before() {
        let (address, sockets) = bind_some(2);
        // 64 flows: the chance that one of two sockets gets none is 2^-63.
        for _ in 0..64 {
            UdpSocket::bind(ANY_PORT).unwrap().send_to(b"x", address).unwrap();
        }
        let deadline = Instant::now() + DEADLINE;
        for socket in &sockets {
            while !has_datagram(socket) {
                assert!(Instant::now() < deadline, "one socket gets nothing");
                thread::yield_now();
            }
        }
    }

    #[test]
    fn a_foreign_socket_that_shares_its_port_is_noticed() {
        let foreign = socket2::Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        foreign.set_reuse_port(true).unwrap();
        foreign.bind(&ANY_PORT.parse::<SocketAddr>().unwrap().into()).unwrap();
        let address = foreign.local_addr().unwrap().as_socket().unwrap();
        let error = bind(address, 2, 1 << 20).err().expect("the port is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn sources_that_cannot_or_must_not_be_answered() {
        let admit = |source: &str, to_group, truncated| {
            let source = source.parse().unwrap();
            Query { source, to_group, truncated, length: 0, buffer: &mut [] }.admit()
        };
        assert_eq!(admit("192.0.2.1:53", false, false), Ok("192.0.2.1".parse().unwrap()));
        assert_eq!(admit("[2001:db8::1]:53", false, false), Ok("2001:db8::1".parse().unwrap()));
        assert_eq!(admit("192.0.2.1:0", false, false), Err(DatagramDrop::SourcePort));
        for group in ["0.0.0.0:1", "255.255.255.255:1", "224.0.0.1:1", "[::]:1", "[ff02::1]:1"] {
            assert_eq!(admit(group, false, false), Err(DatagramDrop::SourceAddress), "{group}");
        }
        assert_eq!(admit("192.0.2.1:53", true, false), Err(DatagramDrop::DestinationAddress));
        assert_eq!(admit("192.0.2.1:53", false, true), Err(DatagramDrop::Oversized));
    }

    #[test]
    fn most_are_admitted_at_once_and_as_all_are() {
        let (address, sockets) = bind_some(1);
        let client = UdpSocket::bind(ANY_PORT).unwrap();
        let mut batch = Batch::new(false);
        receive_whole(&mut batch, &sockets[0], address, &client, &[vec![7; 40]]);
        let mut at_once = 0;
        for source in [
            "0.0.0.0",
            "0.0.0.1",
            "127.0.0.1",
            "223.255.255.255",
            "224.0.0.0",
            "239.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            let source: Ipv4Addr = source.parse().unwrap();
            for (port, truncated, control) in
                [(0, false, false), (1, false, false), (256, true, false), (9, false, true)]
            {
                // SAFETY: no reference into the storage is alive.
                unsafe {
                    let s = batch.storage.as_ptr();
                    (*s).addresses[0].v4.sin_addr.s_addr = u32::from(source).to_be();
                    (*s).addresses[0].v4.sin_port = u16::to_be(port);
                    (*s).receive[0].msg_hdr.msg_flags = if truncated { libc::MSG_TRUNC } else { 0 };
                }
                batch.control = control;
                if let Some((address, message)) = batch.admitted(0) {
                    assert!(!control);
                    assert_eq!((address, message), (source, &[7; 40][..]));
                    assert_eq!(batch.admitted_any(0), Some(Ok((source.into(), &[7; 40][..]))), "{source}:{port}");
                    at_once += 1;
                }
            }
        }
        assert_eq!(at_once, 3);
    }

    #[test]
    fn a_message_that_fails_is_skipped_and_counted() {
        let (address, sockets) = bind_some(1);
        let client = UdpSocket::bind(ANY_PORT).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut batch = Batch::new(false);
        receive_whole(&mut batch, &sockets[0], address, &client, &[vec![0], vec![1], vec![2], vec![3]]);
        for place in [0, 1, 3] {
            assert_eq!(batch.query(place).unwrap().buffer[0] as usize, place);
            batch.reply(place, 1);
        }
        // Port 0 is EINVAL.
        // SAFETY: no reference into the storage is alive.
        unsafe { (*batch.storage.as_ptr()).addresses[1].v4.sin_port = 0 };
        let metrics = Metrics::new();
        batch.send(&sockets[0], &mut metrics.udp_worker());
        let mut octet = [0];
        for expected in [0, 3] {
            assert_eq!(client.recv(&mut octet).unwrap(), 1);
            assert_eq!(octet[0], expected);
        }
        assert!(metrics.text().unwrap().contains("\nsignpost_udp_send_errors_total 1\n"));
    }

    #[test]
    fn a_batch_is_used_again_after_any_mix() {
        let (address, sockets) = bind_some(1);
        let client = UdpSocket::bind(ANY_PORT).unwrap();
        let mut batch = Batch::new(false);
        for round in [3_usize, BATCH, 1, 2] {
            let datagrams: Vec<_> = (0..round).map(|n| vec![7; n * 100]).collect();
            receive_whole(&mut batch, &sockets[0], address, &client, &datagrams);
            for n in 0..round {
                let query = batch.query(n).unwrap();
                assert_eq!(query.source, client.local_addr().unwrap());
                assert_eq!((query.length, query.truncated), ((n * 100).min(SLOT), n * 100 > SLOT));
            }
        }
        let empty = batch.receive(&sockets[0], Wait::No).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_shut_down_socket_yields_no_datagram() {
        let (_, mut sockets) = bind_some(1);
        let metrics = Metrics::new();
        let reader = crate::net::tests::empty_table();
        let (worker, stopper) =
            Worker::new(sockets.remove(0), crate::model::ViewRule::BySource.into(), reader, 0, metrics.udp_worker());
        let waiting = thread::spawn(move || {
            let mut batch = Batch::new(false);
            let received = batch.receive(&worker.socket, Wait::ForOne);
            (received.is_ok(), batch.received, (0..batch.received).all(|n| batch.query(n).is_none()))
        });
        stopper.stop();
        let (returned, received, nothing) = waiting.join().unwrap();
        assert!(returned && nothing, "{received}");
    }

    #[test]
    fn a_thread_is_pinned_to_a_core_it_may_use() {
        let core = *allowed_cores().last().expect("this thread runs somewhere");
        thread::spawn(move || {
            pin_to(core);
            assert_eq!(allowed_cores(), [core]);
        })
        .join()
        .unwrap();
    }
}
