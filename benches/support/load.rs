//! Queries at a fixed rate from one socket, for a server that shares its cores with others: what a server on a core of its
//! own can take is measured by the rig.

use std::collections::VecDeque;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signpost::net::udp::{self, Batch, Wait};
use socket2::SockAddr;

use crate::trains;

/// An answer that is not there by then is lost.
const LOST_AFTER: Duration = Duration::from_secs(2);
/// Octets.
const RECEIVE_BUFFER: u32 = 4 << 20;
/// Queries on their way when the server is saturated.
const WINDOW: usize = 256;

/// What is asked, and what a right answer is.
pub trait Questions {
    /// Appends the next query. Those of one train are equally long.
    fn write(&mut self, id: u16, train: &mut Vec<u8>);
    fn check(&mut self, answer: &[u8]) -> Result<(), String>;
}

#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Queries a second; `None`: as many as are answered.
    pub rate: Option<f64>,
    /// Queries that are sent at one time, by one system call.
    pub train: usize,
    pub time: Duration,
    /// Gives the core away while nothing is due, at the price of up to 0.1 ms of accuracy. Else it spins.
    pub rests: bool,
}

#[derive(Debug, Default)]
pub struct Tally {
    pub sent: u64,
    pub answered: u64,
    pub lost: u64,
    /// How many answers were wrong, and what the first one was.
    pub wrong: u64,
    pub complaint: Option<String>,
    /// How long queries were sent.
    pub elapsed: Duration,
    /// From the moment at which a query was to be sent, whenever it really was, to its answer. Sorted.
    pub latencies: Vec<Duration>,
    /// From the moment at which a train was to be sent to the moment at which it was. Sorted.
    pub lateness: Vec<Duration>,
}

impl Tally {
    /// Answers a second.
    #[allow(dead_code, reason = "not every benchmark looks at it")]
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }
}

/// Asks until `stop` or the end of the plan, then waits for what is still on its way.
pub fn run(server: SocketAddr, plan: Plan, questions: &mut dyn Questions, stop: &AtomicBool) -> io::Result<Tally> {
    let (_, mut sockets) = udp::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1, RECEIVE_BUFFER)?;
    let socket = sockets.pop().ok_or(io::ErrorKind::NotFound)?;
    let mut batch = Batch::of(&socket);
    let target = SockAddr::from(server);
    let mut train = Vec::new();
    let mut tally = Tally::default();
    let mut flight = Flight::default();
    let start = Instant::now();
    let mut due = start;
    let mut end = start + plan.time;
    loop {
        receive(&socket, &mut batch, server, questions, &mut flight, &mut tally)?;
        let now = Instant::now();
        tally.lost += flight.give_up(now);
        if stop.load(Ordering::Relaxed) {
            end = end.min(now);
        }
        if now >= end {
            if flight.count == 0 {
                tally.elapsed = end - start;
                tally.latencies.sort_unstable();
                tally.lateness.sort_unstable();
                return Ok(tally);
            }
            rest(plan, Duration::from_millis(1));
            continue;
        }
        let is_due = match plan.rate {
            Some(_) => now >= due,
            None => flight.count + plan.train <= WINDOW,
        };
        if !is_due {
            rest(plan, due.saturating_duration_since(now));
            continue;
        }
        let intended = if plan.rate.is_some() { due } else { now };
        let first = flight.launch(intended, plan.train);
        train.clear();
        (0..plan.train).for_each(|place| questions.write(first.wrapping_add(place as u16), &mut train));
        trains::send(&socket, &target, &train, plan.train)?;
        tally.sent += plan.train as u64;
        if let Some(rate) = plan.rate {
            tally.lateness.push(now - due);
            // An open loop: what could not be sent in time is made up for, and its answers count as late.
            due += Duration::from_secs_f64(plan.train as f64 / rate);
        }
    }
}

/// Runs what asks beside `during`, whose end it is told. An error if an answer was wrong.
#[allow(dead_code, reason = "not every benchmark does so")]
pub fn beside<T>(
    ask: impl FnOnce(&AtomicBool) -> io::Result<Tally> + Send,
    during: impl FnOnce() -> T,
) -> Result<(T, Tally), Box<dyn Error>> {
    let done = AtomicBool::new(false);
    let (result, tally) = thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&done));
        let result = during();
        done.store(true, Ordering::Relaxed);
        (result, asking.join().expect("the reason is in the panic above"))
    });
    let tally = tally?;
    match tally.complaint {
        Some(first) => Err(format!("{} wrong answers; the first: {first}", tally.wrong).into()),
        None => Ok((result, tally)),
    }
}

fn rest(plan: Plan, at_most: Duration) {
    if plan.rests && !at_most.is_zero() {
        thread::sleep(at_most.min(Duration::from_millis(1)));
    }
}

/// Takes all that is there.
fn receive(
    socket: &udp::Socket,
    batch: &mut Batch,
    server: SocketAddr,
    questions: &mut dyn Questions,
    flight: &mut Flight,
    tally: &mut Tally,
) -> io::Result<()> {
    loop {
        match batch.receive(socket, Wait::No) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let now = Instant::now();
        for place in 0..batch.received() {
            let Some(answer) = batch.query(place) else { continue };
            let datagram = &answer.buffer[..answer.length];
            let &[high, low, ..] = datagram else { continue };
            if answer.source != server {
                continue;
            }
            let Some(due) = flight.land(u16::from_be_bytes([high, low])) else { continue };
            tally.answered += 1;
            tally.latencies.push(now.saturating_duration_since(due));
            if let Err(complaint) = questions.check(datagram) {
                tally.wrong += 1;
                tally.complaint.get_or_insert(complaint);
            }
        }
    }
}

/// The queries without answer, by their ids, which are given out in turn.
#[derive(Default)]
struct Flight {
    /// When each was due; `None`: answered. The oldest is not.
    queries: VecDeque<Option<Instant>>,
    first: u16,
    count: usize,
}

impl Flight {
    /// Returns the first id. There are never more than half of the ids: whoever waits longest is given up as lost.
    fn launch(&mut self, due: Instant, train: usize) -> u16 {
        let id = self.first.wrapping_add(self.queries.len() as u16);
        self.queries.extend((0..train).map(|_| Some(due)));
        self.count += train;
        id
    }

    fn land(&mut self, id: u16) -> Option<Instant> {
        let due = self.queries.get_mut(usize::from(id.wrapping_sub(self.first)))?.take()?;
        self.count -= 1;
        self.trim();
        Some(due)
    }

    /// How many are lost.
    fn give_up(&mut self, now: Instant) -> u64 {
        let mut lost = 0;
        while let Some(Some(due)) = self.queries.front() {
            let many = self.queries.len() > usize::from(u16::MAX / 2);
            if !many && now.saturating_duration_since(*due) < LOST_AFTER {
                break;
            }
            lost += 1;
            self.count -= 1;
            self.queries[0] = None;
            self.trim();
        }
        lost
    }

    fn trim(&mut self) {
        while let Some(None) = self.queries.front() {
            self.queries.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }
}
