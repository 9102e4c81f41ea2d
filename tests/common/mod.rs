//! What the tests run beside Signpost: real clusters, real name servers and resolvers, a proxy that goes silent, dig.
//! Every process has its own ports, folder and deadline, and dies with the test, also when the test panics.
#![allow(dead_code, reason = "each test file is a crate of its own and uses its own part of this")]

pub mod again;
pub mod cluster;
pub mod dig;
pub mod namespace;
pub mod process;
pub mod proxy;
pub mod resolvers;
pub mod shared;
pub mod signpost;
pub mod tunnel;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often a condition that is waited for is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Looks until `check` gives a value, and panics with its last complaint after `deadline`.
pub fn wait_for<T>(what: &str, deadline: Duration, check: impl FnMut() -> Result<T, String>) -> T {
    try_wait_for(deadline, check).unwrap_or_else(|last| panic!("after {deadline:?} still not: {what}; last: {last}"))
}

pub fn try_wait_for<T>(deadline: Duration, mut check: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let end = Instant::now() + deadline;
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(last) if Instant::now() >= end => return Err(last),
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// Checks a condition over and over for a time in which it must not become false.
pub fn stays(what: &str, time: Duration, mut check: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if let Err(now) = check() {
            panic!("no longer: {what}; now: {now}");
        }
        thread::sleep(POLL);
    }
}

/// For `wait_for` and `stays`: the two must be equal.
pub fn same<T: PartialEq + std::fmt::Debug>(got: T, want: T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("got {got:?}, want {want:?}")) }
}

/// A port of 127.0.0.1 that is free for UDP and TCP now, and that this process was not given before. Somebody else may take it
/// before it is used: whoever starts a program on one tries again with another.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    (0..100)
        .find_map(|_| {
            let tcp = TcpListener::bind("127.0.0.1:0").ok()?;
            let port = tcp.local_addr().ok()?.port();
            UdpSocket::bind(("127.0.0.1", port)).ok()?;
            GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port).then_some(port)
        })
        .expect("one of 100 ephemeral ports is free for both UDP and TCP")
}

pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
