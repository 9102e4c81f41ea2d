//! The same receive buffer for every server, whether or not it has a setting for it: a server with a smaller one would lose
//! queries where another one would answer late.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::{SockRef, Type};

/// Sets the receive buffers of the UDP sockets at `address` that these processes have; returns the octets of the smallest
/// one, as it is then. Needs the right to trace them, which a parent has (ptrace(2), pidfd_getfd(2)).
pub fn set(processes: &[u32], address: SocketAddr, octets: u32) -> io::Result<usize> {
    let mut smallest = None;
    for &process in processes {
        for socket in udp_sockets(process, address)? {
            // Without CAP_NET_ADMIN, as much as net.core.rmem_max allows.
            if set_socket_recv_buffer_size_force(&socket, octets as usize).is_err() {
                SockRef::from(&socket).set_recv_buffer_size(octets as usize)?;
            }
            // Half of it is for the kernel's own use (socket(7)).
            let now = SockRef::from(&socket).recv_buffer_size()? / 2;
            smallest = Some(smallest.map_or(now, |least: usize| least.min(now)));
        }
    }
    smallest.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no process has a UDP socket at {address}")))
}

/// Ours of theirs: what is set on one is set on the other.
fn udp_sockets(process: u32, address: SocketAddr) -> io::Result<Vec<OwnedFd>> {
    let id = i32::try_from(process).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let handle = pidfd_open(id, PidfdFlags::empty())?;
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        let entry = entry?;
        // One that was closed meanwhile.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let number: Option<RawFd> = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(number) = number.filter(|_| target.to_string_lossy().starts_with("socket:")) else { continue };
        let socket = pidfd_getfd(&handle, number, PidfdGetfdFlags::empty())?;
        if is_udp_at(&socket, address) {
            found.push(socket);
        }
    }
    Ok(found)
}

fn is_udp_at(socket: &OwnedFd, address: SocketAddr) -> bool {
    let socket = SockRef::from(socket);
    let bound = socket.local_addr().ok().and_then(|local| local.as_socket());
    bound == Some(address) && socket.r#type().is_ok_and(|kind| kind == Type::DGRAM)
}
