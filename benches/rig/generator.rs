//! The load: trains of queries from several sockets, and the count of what comes back.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signpost::net::udp::{self, Batch, Wait};
use signpost::table::Random;
use socket2::SockAddr;

use super::questions::{Addresses, Mix, TAG_MASK, check, write_train};
use super::trains;

/// Queries that one system call sends: as many as the server receives with one.
const TRAIN: usize = 32;
/// Between two looks at a gentle load's last answers.
const PAUSE: Duration = Duration::from_millis(1);
/// An answer that is not there by then will not come. The server may have to wait that long for a core of a busy machine.
const LOST_AFTER: Duration = Duration::from_secs(3);
/// A saturated lane that has waited this long asks on, so that one lost answer does not end its part of the load.
const STALLED: Duration = Duration::from_millis(100);
/// Octets.
const RECEIVE_BUFFER: u32 = 4 << 20;

/// Set by a signal: whoever runs long looks at it.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

pub fn interrupted() -> io::Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err(io::Error::other("interrupted")) } else { Ok(()) }
}

#[derive(Debug, Clone, Copy)]
pub enum Load {
    /// A train as soon as a lane's last one is answered.
    Saturated,
    /// Trains at fixed times, whatever comes back. Queries a second.
    Rate(f64),
    /// The same, asleep between trains: the core is free for others, and latencies say nothing.
    Gentle(f64),
}

#[derive(Debug, Clone, Copy)]
pub enum Expect {
    /// Right ones.
    Answers(Addresses),
    /// Any datagram of this length.
    Octets(usize),
}

#[derive(Debug, Default)]
pub struct Tally {
    pub answers: u64,
    pub octets: u64,
    pub lost: u64,
    /// How many answers were wrong, and what the first one was.
    pub wrong: u64,
    pub complaint: Option<String>,
    pub elapsed: Duration,
    /// Nanoseconds from the moment at which the query was to be sent, whenever it really was, to its answer.
    pub latencies: Vec<u32>,
}

pub struct Generator {
    lanes: Vec<Lane>,
    random: Random,
    train: Vec<u8>,
}

struct Lane {
    socket: udp::Socket,
    batch: Batch,
    /// Those that are not wholly answered, and answered ones behind such. They have consecutive tags.
    trains: VecDeque<Train>,
    first_tag: u16,
}

struct Train {
    due: Instant,
    unanswered: u64,
}

impl Generator {
    /// With this many sockets, each with a port of its own.
    pub fn new(lanes: usize) -> io::Result<Generator> {
        let lane = |_| {
            let (_, mut sockets) = udp::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1, RECEIVE_BUFFER)?;
            let socket = sockets.pop().ok_or(io::ErrorKind::NotFound)?;
            let batch = Batch::of(&socket);
            Ok(Lane { socket, batch, trains: VecDeque::new(), first_tag: 0 })
        };
        let lanes = (0..lanes).map(lane).collect::<io::Result<_>>()?;
        Ok(Generator { lanes, random: Random::new(1), train: Vec::new() })
    }

    /// Asks for `time`, then waits for what is still on its way.
    pub fn run(
        &mut self,
        server: SocketAddr,
        mix: Mix,
        load: Load,
        time: Duration,
        expect: Expect,
    ) -> io::Result<Tally> {
        let target = SockAddr::from(server);
        let mut tally = Tally::default();
        let start = Instant::now();
        let end = start + time;
        let mut turn = 0;
        let mut due = start;
        loop {
            for lane in &mut self.lanes {
                lane.receive(server, expect, &mut tally)?;
            }
            let now = Instant::now();
            if now >= end && self.lanes.iter().all(|lane| lane.trains.is_empty()) {
                tally.elapsed = end - start;
                return Ok(tally);
            }
            for lane in &mut self.lanes {
                lane.give_up(now, &mut tally);
            }
            interrupted()?;
            if now >= end {
                if matches!(load, Load::Gentle(_)) {
                    thread::sleep(PAUSE);
                }
                continue;
            }
            match load {
                Load::Saturated => {
                    for lane in self.lanes.iter_mut().filter(|lane| lane.is_idle(now)) {
                        lane.send(&target, mix, Instant::now(), &mut self.train, &mut self.random)?;
                    }
                }
                Load::Rate(rate) | Load::Gentle(rate) if now >= due => {
                    self.lanes[turn].send(&target, mix, due, &mut self.train, &mut self.random)?;
                    turn = (turn + 1) % self.lanes.len();
                    // This loop never waits for the server. What a busy machine has kept it from sending is not made up
                    // for by a burst.
                    due = (due + Duration::from_secs_f64(TRAIN as f64 / rate)).max(now - Duration::from_millis(1));
                }
                Load::Rate(_) => {}
                Load::Gentle(_) => thread::sleep(due - now),
            }
        }
    }
}

impl Lane {
    fn send(
        &mut self,
        target: &SockAddr,
        mix: Mix,
        due: Instant,
        train: &mut Vec<u8>,
        random: &mut Random,
    ) -> io::Result<()> {
        let tag = self.first_tag.wrapping_add(self.trains.len() as u16) & TAG_MASK;
        write_train(mix, TRAIN, tag, train, random);
        trains::send(&self.socket, target, train, TRAIN)?;
        self.trains.push_back(Train { due, unanswered: TRAIN as u64 });
        Ok(())
    }

    fn is_idle(&self, now: Instant) -> bool {
        let idle = |last: &Train| last.unanswered == 0 || now.saturating_duration_since(last.due) > STALLED;
        self.trains.back().is_none_or(idle)
    }

    /// Takes what is there.
    fn receive(&mut self, server: SocketAddr, expect: Expect, tally: &mut Tally) -> io::Result<()> {
        if self.trains.is_empty() {
            return Ok(());
        }
        match self.batch.receive(&self.socket, Wait::No) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let now = Instant::now();
        for place in 0..self.batch.received() {
            let Some(answer) = self.batch.query(place) else { continue };
            let datagram = &answer.buffer[..answer.length];
            let &[high, low, ..] = datagram else { continue };
            let tag = u16::from_be_bytes([high, low]).wrapping_sub(self.first_tag) & TAG_MASK;
            // Another server's, or of a train that was given up as lost.
            let Some(train) = self.trains.get_mut(usize::from(tag)) else { continue };
            if answer.source != server || train.unanswered == 0 {
                continue;
            }
            let right = match expect {
                Expect::Answers(addresses) => check(datagram, addresses, tally.answers),
                Expect::Octets(length) if answer.length == length => Ok(()),
                Expect::Octets(length) => Err(format!("{} octets, not {length}", answer.length)),
            };
            if let Err(complaint) = right {
                tally.wrong += 1;
                tally.complaint.get_or_insert(complaint);
            }
            tally.answers += 1;
            tally.octets += answer.length as u64;
            train.unanswered -= 1;
            let latency = now.saturating_duration_since(train.due).as_nanos();
            tally.latencies.push(u32::try_from(latency).unwrap_or(u32::MAX));
        }
        while self.trains.front().is_some_and(|train| train.unanswered == 0) {
            self.pop();
        }
        Ok(())
    }

    fn give_up(&mut self, now: Instant, tally: &mut Tally) {
        while let Some(train) = self.trains.front() {
            if now.saturating_duration_since(train.due) <= LOST_AFTER {
                return;
            }
            tally.lost += train.unanswered;
            self.pop();
        }
    }

    fn pop(&mut self) {
        self.trains.pop_front();
        self.first_tag = self.first_tag.wrapping_add(1) & TAG_MASK;
    }
}
