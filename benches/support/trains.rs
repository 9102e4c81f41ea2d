//! Queries of one length, many in one system call.

use std::io;

use signpost::net::udp::Socket;
use socket2::{MsgHdr, SockAddr, SockRef};

/// SOL_UDP and UDP_SEGMENT of udp(7): the kernel cuts what is sent into datagrams of one size.
const SEGMENT: (i32, i32) = (17, 103);

/// `train` is `count` datagrams of one length, one behind the other.
pub fn send(socket: &Socket, target: &SockAddr, train: &[u8], count: usize) -> io::Result<()> {
    let control = segment_control((train.len() / count) as u16);
    let buffers = [io::IoSlice::new(train)];
    let message = MsgHdr::new().with_addr(target).with_buffers(&buffers);
    let message = if count > 1 { message.with_control(&control) } else { message };
    SockRef::from(socket).sendmsg(&message, 0)?;
    Ok(())
}

/// One control message as cmsg(3) lays it out on 64-bit Linux: length, level, type, data, padding.
fn segment_control(length: u16) -> [u8; 24] {
    let mut control = [0; 24];
    control[..8].copy_from_slice(&18_u64.to_ne_bytes());
    control[8..12].copy_from_slice(&SEGMENT.0.to_ne_bytes());
    control[12..16].copy_from_slice(&SEGMENT.1.to_ne_bytes());
    control[16..18].copy_from_slice(&length.to_ne_bytes());
    control
}
