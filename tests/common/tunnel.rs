//! A way out of a network namespace, to one address of this machine's loopback: over a Unix socket, which knows no network.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use tempfile::TempDir;

use super::again::{again, listener};
use super::local;
use super::namespace::Namespace;
use super::process::Process;
use super::proxy::SilentProxy;

pub struct Tunnel {
    /// Inside of the namespace.
    pub address: SocketAddr,
    pub proxy: SilentProxy,
    _inside: Process,
    _directory: TempDir,
}

impl Tunnel {
    /// `port`: inside of the namespace. The test's own program is run there, and has to have [`relay`] as an ignored test
    /// of this name.
    pub fn start(namespace: &Namespace, upstream: SocketAddr, port: u16) -> Tunnel {
        let proxy = SilentProxy::start(upstream);
        let directory = tempfile::tempdir().expect("a temporary folder can be made");
        let path = directory.path().join("way-out");
        let listener = UnixListener::bind(&path).expect("the folder is ours");
        let outside = proxy.address;
        thread::spawn(move || {
            for inside in listener.incoming() {
                let (Ok(inside), Ok(outside)) = (inside, TcpStream::connect(outside)) else { return };
                join(inside, outside);
            }
        });
        let relay = format!("RELAY={port} {}", path.display());
        let inside = again("relay", &relay, "relay", directory.path(), namespace);
        Tunnel { address: local(port), proxy, _inside: inside, _directory: directory }
    }
}

impl Drop for Tunnel {
    /// Wakes the accepting thread, which then finds nobody outside.
    fn drop(&mut self) {
        let _ = fs::remove_file(self._directory.path().join("way-out"));
    }
}

/// What runs inside.
pub fn relay() {
    let task = std::env::var("RELAY").expect("a port and a path");
    let (port, path) = task.split_once(' ').expect("a port and a path");
    for inside in listener(local(port.parse().expect("a port"))).incoming() {
        let (Ok(inside), Ok(outside)) = (inside, UnixStream::connect(path)) else { continue };
        join(outside, inside);
    }
}

/// Copies both ways, on threads of their own, until either side ends.
fn join(one: UnixStream, other: TcpStream) {
    let (Ok(one_again), Ok(other_again)) = (one.try_clone(), other.try_clone()) else { return };
    thread::spawn(move || {
        copy(&one, &other);
        let _ = other.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        copy(&other_again, &one_again);
        let _ = one_again.shutdown(Shutdown::Write);
    });
}

fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}
