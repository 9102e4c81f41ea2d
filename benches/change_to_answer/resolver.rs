//! Asks for the addresses of services.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::addresses;
use crate::bulk;
use crate::common::signpost::ZONE;

/// An answer that is lost is asked for again.
const PATIENCE: Duration = Duration::from_millis(20);

pub struct Resolver {
    socket: UdpSocket,
    next_id: u16,
}

impl Resolver {
    pub fn new(server: SocketAddr) -> io::Result<Resolver> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Resolver { socket, next_id: 0 })
    }

    /// Of the service with this number. `None`: no answer came in time, or one that is not NOERROR.
    pub fn ask(&mut self, number: u32) -> io::Result<Option<Vec<Ipv4Addr>>> {
        Ok(self.ask_all(&[number])?.pop().flatten())
    }

    /// The same of several, asked at once, so that one lost answer does not keep the others waiting.
    pub fn ask_all(&mut self, numbers: &[u32]) -> io::Result<Vec<Option<Vec<Ipv4Addr>>>> {
        let first = self.next_id;
        self.next_id = first.wrapping_add(numbers.len() as u16);
        let mut queries = Vec::with_capacity(numbers.len());
        for (place, &number) in numbers.iter().enumerate() {
            let mut query = Vec::new();
            bulk::write_query(first.wrapping_add(place as u16), number, ZONE, &mut query);
            self.socket.send(&query)?;
            queries.push(query);
        }
        let mut answers = vec![None; numbers.len()];
        let (mut missing, asked, mut buffer) = (numbers.len(), Instant::now(), [0; 512]);
        while missing > 0 && asked.elapsed() < PATIENCE {
            let length = match self.socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
                Err(error) => return Err(error),
            };
            let place = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]).wrapping_sub(first));
            // What is not one of these is the answer to an earlier question that was given up.
            if let Some(query) = queries.get(place).filter(|_| length >= 12) {
                answers[place] = addresses::of(query, &buffer[..length]).map(Iterator::collect);
                missing -= 1;
            }
        }
        Ok(answers)
    }
}
