//! The real dig.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::namespace::Namespace;
use super::process::command_in;

/// How often its own query may come back to dig before that is a failure.
const OWN_QUERIES: usize = 3;

/// A server to ask.
#[derive(Clone)]
pub struct Dig<'a> {
    server: SocketAddr,
    options: Vec<String>,
    namespace: Option<&'a Namespace>,
}

/// What dig printed, taken apart. Records have single spaces between their fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    pub status: String,
    pub flags: Vec<String>,
    /// Codes of extended errors (RFC 8914).
    pub extended_errors: Vec<u16>,
    pub answer: Vec<String>,
    pub authority: Vec<String>,
    pub additional: Vec<String>,
}

/// Of IPv4 addresses, by which tests tell clusters apart; 0 for others.
pub fn third_octets(addresses: &[IpAddr]) -> BTreeSet<u8> {
    let third = |address: &IpAddr| match address {
        IpAddr::V4(a) => a.octets()[2],
        IpAddr::V6(_) => 0,
    };
    addresses.iter().map(third).collect()
}

impl<'a> Dig<'a> {
    pub fn at(server: SocketAddr) -> Dig<'a> {
        // One try: a lost answer is to be seen, not to be papered over. 5 s bear a machine that is busy.
        let options = ["+tries=1", "+time=5", "+nocookie"].map(String::from).to_vec();
        Dig { server, options, namespace: None }
    }

    pub fn inside(namespace: &'a Namespace, server: SocketAddr) -> Dig<'a> {
        Dig { namespace: Some(namespace), ..Dig::at(server) }
    }

    /// One more option of dig's, such as `+tcp`.
    pub fn with(mut self, option: &str) -> Dig<'a> {
        self.options.push(option.to_string());
        self
    }

    pub fn ask(&self, name: &str, kind: &str) -> Result<Reply, String> {
        // dig lets its socket share a port (SO_REUSEPORT), as a server's do. Once in some ten thousand questions over loopback it is
        // given the server's own port, and reads its own query as the answer: a message that is none, without records.
        for _ in 0..OWN_QUERIES {
            let reply = self.ask_once(name, kind)?;
            if reply.flags.iter().any(|flag| flag == "qr") {
                return Ok(reply);
            }
        }
        Err(format!("{name} {kind}: {OWN_QUERIES} times in a row something that is no answer"))
    }

    fn ask_once(&self, name: &str, kind: &str) -> Result<Reply, String> {
        let mut words = vec![format!("@{}", self.server.ip()), "-p".to_string(), self.server.port().to_string()];
        words.extend(self.options.iter().cloned());
        words.extend(["-q", name, "-t", kind].map(String::from));
        let output = command_in(self.namespace, Path::new("dig"), &words)
            // An ordinary user's ~/.digrc would change the output.
            .env("HOME", "/nonexistent")
            .output()
            .map_err(|e| format!("dig cannot be run (package bind9-dnsutils): {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Reply::parse(&text).ok_or_else(|| format!("dig {}: {}", words.join(" "), text.trim()))
    }

    /// The addresses in the order of the answer.
    pub fn addresses(&self, name: &str, kind: &str) -> Result<Vec<IpAddr>, String> {
        let reply = self.ask(name, kind)?;
        if reply.status == "NOERROR" { Ok(reply.addresses()) } else { Err(format!("{name} {kind}: {reply:?}")) }
    }

    /// The addresses, sorted: for answers that are sets.
    pub fn address_set(&self, name: &str, kind: &str) -> Result<Vec<IpAddr>, String> {
        let mut addresses = self.addresses(name, kind)?;
        addresses.sort_unstable();
        Ok(addresses)
    }
}

impl Reply {
    /// Of the answer's records.
    pub fn ttls(&self) -> Vec<String> {
        self.answer.iter().filter_map(|record| Some(record.split(' ').nth(1)?.to_owned())).collect()
    }

    /// `None` when dig got no answer.
    pub fn parse(text: &str) -> Option<Reply> {
        let mut reply = Reply::default();
        let mut section: Option<fn(&mut Reply) -> &mut Vec<String>> = None;
        for line in text.lines() {
            if let Some(header) = line.strip_prefix(";; ->>HEADER<<- ") {
                reply.status = between(header, "status: ", ",")?.to_string();
            } else if let Some(flags) = line.strip_prefix(";; flags:") {
                reply.flags = flags.split(';').next()?.split_whitespace().map(String::from).collect();
            } else if let Some(error) = line.strip_prefix("; EDE: ") {
                let digits = error.split(|c: char| !c.is_ascii_digit()).next()?;
                reply.extended_errors.push(digits.parse().ok()?);
            } else if let Some(title) = line.strip_prefix(";; ").and_then(|l| l.strip_suffix(" SECTION:")) {
                section = match title {
                    "ANSWER" => Some(|r| &mut r.answer),
                    "AUTHORITY" => Some(|r| &mut r.authority),
                    "ADDITIONAL" => Some(|r| &mut r.additional),
                    _ => None,
                };
            } else if line.is_empty() {
                section = None;
            } else if let (Some(records), false) = (section, line.starts_with(';')) {
                records(&mut reply).push(line.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
        (!reply.status.is_empty()).then_some(reply)
    }

    /// Data of the A and AAAA records in the answer.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.answer.iter().filter_map(|r| r.rsplit(' ').next()?.parse().ok()).collect()
    }

    /// Data of the answer's records: what stands after owner, TTL, class and type.
    pub fn data(&self) -> Vec<String> {
        let mut data: Vec<String> =
            self.answer.iter().filter_map(|r| Some(r.splitn(5, ' ').nth(4)?.to_string())).collect();
        data.sort_unstable();
        data
    }
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    text.split_once(start)?.1.split(end).next()
}

/// Addresses as `Dig::address_set` gives them.
pub fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = texts.iter().map(|t| t.parse().expect("written as an address")).collect();
    addresses.sort_unstable();
    addresses
}
