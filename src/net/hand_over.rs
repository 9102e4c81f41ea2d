//! Listening sockets handed from one process to the next over a Unix socket (`SCM_RIGHTS`). Both then have the very same sockets: what
//! was received and not read yet is read by either, and nothing is lost when the first one goes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, send, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

/// What is read at once; a letter has about a hundred octets.
const LETTER: usize = 1024;

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    Udp,
    Tcp,
    Admin,
}

/// A message between the two processes. One with `Socket` carries that socket.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Letter {
    Socket {
        role: Role,
        address: SocketAddr,
    },
    /// There are no more of them.
    End,
    /// From the new process: it serves.
    Ready,
}

/// Sockets that were handed over and are not in use yet. Those that nobody takes are closed with it.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(Role, SocketAddr, OwnedFd)>);

impl Inherited {
    pub fn add(&mut self, role: Role, address: SocketAddr, socket: OwnedFd) {
        self.0.push((role, address, socket));
    }

    pub fn has(&self, role: Role, address: SocketAddr) -> bool {
        self.0.iter().any(|(of, at, _)| (*of, *at) == (role, address))
    }

    /// All that are for this.
    pub fn take(&mut self, role: Role, address: SocketAddr) -> Vec<OwnedFd> {
        let (taken, left) =
            std::mem::take(&mut self.0).into_iter().partition(|(of, at, _)| (*of, *at) == (role, address));
        self.0 = left;
        taken.into_iter().map(|(_, _, socket)| socket).collect()
    }
}

/// One end of the line between the two.
#[derive(Debug)]
pub struct Line(OwnedFd);

impl From<OwnedFd> for Line {
    fn from(end: OwnedFd) -> Line {
        Line(end)
    }
}

impl From<Line> for OwnedFd {
    fn from(line: Line) -> OwnedFd {
        line.0
    }
}

impl Line {
    /// Both ends. A message is received whole.
    pub fn pair() -> io::Result<(Line, Line)> {
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Line(one), Line(other)))
    }

    pub fn hand_over<'s>(&self, sockets: impl Iterator<Item = (Role, SocketAddr, BorrowedFd<'s>)>) -> io::Result<()> {
        for (role, address, socket) in sockets {
            self.send(&Letter::Socket { role, address }, Some(socket))?;
        }
        self.send(&Letter::End, None)
    }

    /// Waits for all of them.
    pub fn take_over(&self) -> io::Result<Inherited> {
        let mut inherited = Inherited::default();
        loop {
            match self.receive()? {
                (Letter::Socket { role, address }, Some(socket)) => inherited.add(role, address, socket),
                (Letter::End, None) => return Ok(inherited),
                (letter, _) => return Err(unexpected(&format!("{letter:?}"))),
            }
        }
    }

    pub fn say_ready(&self) -> io::Result<()> {
        self.send(&Letter::Ready, None)
    }

    /// Waits for the other one to say so. An error: it has gone.
    pub fn await_ready(&self) -> io::Result<()> {
        match self.receive()? {
            (Letter::Ready, _) => Ok(()),
            (letter, _) => Err(unexpected(&format!("{letter:?}"))),
        }
    }

    fn send(&self, letter: &Letter, socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let text = serde_json::to_vec(letter)?;
        let sockets: Vec<BorrowedFd<'_>> = socket.into_iter().collect();
        if sockets.is_empty() {
            send(&self.0, &text, SendFlags::NOSIGNAL)?;
            return Ok(());
        }
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(unexpected("no room for a socket"));
        }
        sendmsg(&self.0, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn receive(&self) -> io::Result<(Letter, Option<OwnedFd>)> {
        let mut text = [0; LETTER];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut text)];
        let received = loop {
            match recvmsg(self.0.as_fd(), &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        let sockets = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
            _ => None,
        });
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let letter = serde_json::from_slice(&text[..received.bytes])
            .map_err(|_| unexpected(&String::from_utf8_lossy(&text[..received.bytes])))?;
        Ok((letter, sockets))
    }
}

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("this is no hand-over of sockets: {what}"))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn what_was_received_before_is_read_after() {
        let (old, new) = Line::pair().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let other: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"early", address).unwrap();
        let both = [(Role::Udp, address, socket.as_fd()), (Role::Tcp, other, socket.as_fd())];
        old.hand_over(both.into_iter()).unwrap();
        drop(socket);
        let mut inherited = new.take_over().unwrap();
        assert!(inherited.has(Role::Udp, address) && !inherited.has(Role::Admin, address));
        let mut taken = inherited.take(Role::Udp, address);
        assert!(!inherited.has(Role::Udp, address) && inherited.has(Role::Tcp, other));
        let socket = UdpSocket::from(taken.pop().unwrap());
        assert!(taken.is_empty());
        client.send_to(b"late", address).unwrap();
        let mut buffer = [0; 9];
        for expected in [&b"early"[..], b"late"] {
            let (length, _) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected);
        }
        new.say_ready().unwrap();
        old.await_ready().unwrap();
        drop(new);
        assert_eq!(old.await_ready().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(old.say_ready().is_err(), "and no signal");
    }

    #[test]
    fn something_else_is_no_line() {
        let (one, other) = Line::pair().unwrap();
        send(&one.0, b"GET / HTTP/1.1", SendFlags::empty()).unwrap();
        let error = other.take_over().unwrap_err().to_string();
        assert_eq!(error, "this is no hand-over of sockets: GET / HTTP/1.1");
        one.say_ready().unwrap();
        assert!(other.take_over().is_err());
    }
}
