//! A TCP proxy that can go silent: what a firewall that lost its state does to a watch.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

pub struct SilentProxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    mode: Mode,
    /// Both sides of every connection, to be shut when the proxy goes.
    streams: Vec<TcpStream>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forwarding,
    /// Connections are accepted and stay open; not a byte, and not an end, passes.
    Silent,
    Stopped,
}

impl SilentProxy {
    pub fn start(upstream: SocketAddr) -> SilentProxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Mutex::new(State { mode: Mode::Forwarding, streams: Vec::new() });
        let shared = Arc::new(Shared { upstream, state, changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept(&listener));
        SilentProxy { address, shared }
    }

    pub fn go_silent(&self) {
        self.shared.set(Mode::Silent);
    }

    /// Forwards again, what was held back included.
    pub fn forward(&self) {
        self.shared.set(Mode::Forwarding);
    }
}

impl Drop for SilentProxy {
    fn drop(&mut self) {
        self.shared.set(Mode::Stopped);
        for stream in self.shared.lock().streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the accepting thread, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, mode: Mode) {
        self.lock().mode = mode;
        self.changed.notify_all();
    }

    /// Waits while the proxy is silent; whether it forwards after that.
    fn forwards(&self) -> bool {
        let state = self.changed.wait_while(self.lock(), |state| state.mode == Mode::Silent);
        state.unwrap_or_else(PoisonError::into_inner).mode == Mode::Forwarding
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.lock().mode == Mode::Stopped {
                return;
            }
            let Ok(client) = client else { continue };
            let shared = Arc::clone(&self);
            thread::spawn(move || shared.serve(client));
        }
    }

    /// A client that goes away early is no trouble of ours: every error just ends its connection.
    fn serve(self: Arc<Self>, client: TcpStream) -> Option<()> {
        if !self.forwards() {
            return None;
        }
        let server = TcpStream::connect(self.upstream).ok()?;
        let (from_server, to_client) = (server.try_clone().ok()?, client.try_clone().ok()?);
        {
            let mut state = self.lock();
            if state.mode == Mode::Stopped {
                return None;
            }
            state.streams.extend([client.try_clone().ok()?, server.try_clone().ok()?]);
        }
        let back = Arc::clone(&self);
        thread::spawn(move || back.copy(from_server, to_client));
        self.copy(client, server);
        Some(())
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16 * 1024];
        loop {
            let read = from.read(&mut buffer).unwrap_or(0);
            if !self.forwards() {
                return;
            }
            if read == 0 || to.write_all(&buffer[..read]).is_err() {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
        }
    }
}
