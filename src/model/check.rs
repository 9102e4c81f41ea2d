//! How the external addresses of a service are probed, where its cluster asks for something else than a connection to its first port.
//!
//! One line of text says it, in an annotation, in the index and to people:
//!
//! ```text
//! https path=/healthz host=shop.example.com status=200-299 port=8443 interval=10s timeout=1s fall=3 rise=2
//! ```

use std::fmt;
use std::num::{NonZeroU8, NonZeroU16};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::{Port, Protocol, is_host_name, parse_duration};

/// From one probe to the next one.
pub const INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
/// Of what a cluster may ask for. A probe that may wait for long takes the place of others.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(10);
/// Octets of a path, or of a gRPC service's name.
const MOST_OCTETS: usize = 1_024;
/// RFC 9110 section 15.3: the request succeeded. A redirect is nobody's answer.
const SUCCESSFUL: (u16, u16) = (200, 299);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Check {
    pub how: How,
    /// TCP, one of the Service's; `None`: its first.
    pub port: Option<NonZeroU16>,
    // `None`: as for all others.
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub fall: Option<NonZeroU8>,
    pub rise: Option<NonZeroU8>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum How {
    /// It is not probed, and nobody votes on it.
    Nothing,
    /// A connection is opened.
    Connect,
    Ask(Ask),
}

/// A question, and what answer is good.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ask {
    /// Whatever the certificate says, as the kubelet does it.
    pub tls: bool,
    /// In the request, and to TLS (RFC 6066 section 3); `None`: the address.
    pub host: Option<Arc<str>>,
    pub question: Question,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// `GET`, answered with a status from the first to the last of these.
    Http { path: Arc<str>, status: (u16, u16) },
    /// `grpc.health.v1.Health/Check`, answered with `SERVING`. Without a name it is the whole server's health.
    Grpc { service: Arc<str> },
}

/// Why a text is no [`Check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum CheckError {
    #[error("does not begin with tcp, http, https, grpc, grpcs or none")]
    How,
    #[error("has a word that is no setting of such a probe")]
    Setting,
    #[error("has a setting twice")]
    Twice,
    #[error("has a port that is no TCP port of the Service")]
    Port,
    #[error("has a path that does not begin with / or has other octets than a URL's, or more than 1024 of them")]
    Path,
    #[error("has a host that is no host name")]
    Host,
    #[error("has a status that is neither a number from 100 to 599 nor a range of them, as in 200-399")]
    Status,
    #[error("has a service that has other octets than a gRPC service's name, or more than 1024 of them")]
    Service,
    #[error("has an interval that is not from 1s to 300s")]
    Interval,
    #[error("has a timeout that is not from 100ms to 10s, or is longer than its interval")]
    Timeout,
    #[error("has a fall or rise that is not from 1 to 100")]
    Times,
}

impl Check {
    /// `ports`: of the Service. A port may be given by its name.
    pub fn parse(text: &str, ports: &[Port]) -> Result<Check, CheckError> {
        let mut words = text.split_ascii_whitespace();
        let http = || Question::Http { path: "/".into(), status: SUCCESSFUL };
        let grpc = || Question::Grpc { service: "".into() };
        let ask = |tls, question| How::Ask(Ask { tls, host: None, question });
        let how = match words.next() {
            Some("none") => How::Nothing,
            Some("tcp") => How::Connect,
            Some("http") => ask(false, http()),
            Some("https") => ask(true, http()),
            Some("grpc") => ask(false, grpc()),
            Some("grpcs") => ask(true, grpc()),
            _ => return Err(CheckError::How),
        };
        let mut check = Check { how, port: None, interval: None, timeout: None, fall: None, rise: None };
        let mut seen = Vec::new();
        for word in words {
            let (key, value) = word.split_once('=').ok_or(CheckError::Setting)?;
            if seen.contains(&key) {
                return Err(CheckError::Twice);
            }
            seen.push(key);
            check.set(key, value, ports)?;
        }
        match (check.timeout, check.interval) {
            (Some(timeout), Some(interval)) if timeout > interval => Err(CheckError::Timeout),
            _ => Ok(check),
        }
    }

    fn set(&mut self, key: &str, value: &str, ports: &[Port]) -> Result<(), CheckError> {
        match (key, &mut self.how) {
            (_, How::Nothing) => return Err(CheckError::Setting),
            ("port", _) => self.port = Some(port(value, ports).ok_or(CheckError::Port)?),
            ("interval", _) => self.interval = Some(within(value, INTERVALS).ok_or(CheckError::Interval)?),
            ("timeout", _) => self.timeout = Some(within(value, TIMEOUTS).ok_or(CheckError::Timeout)?),
            ("fall", _) => self.fall = Some(times(value).ok_or(CheckError::Times)?),
            ("rise", _) => self.rise = Some(times(value).ok_or(CheckError::Times)?),
            ("host", How::Ask(ask)) => {
                let name = value.to_ascii_lowercase();
                ask.host = Some(Some(name).filter(|name| is_host_name(name)).ok_or(CheckError::Host)?.into());
            }
            ("path", How::Ask(Ask { question: Question::Http { path, .. }, .. })) => {
                *path = Some(value).filter(|path| is_path(path)).ok_or(CheckError::Path)?.into();
            }
            ("status", How::Ask(Ask { question: Question::Http { status, .. }, .. })) => {
                *status = statuses(value).ok_or(CheckError::Status)?;
            }
            ("service", How::Ask(Ask { question: Question::Grpc { service }, .. })) => {
                *service = Some(value).filter(|name| is_grpc_service(name)).ok_or(CheckError::Service)?.into();
            }
            _ => return Err(CheckError::Setting),
        }
        Ok(())
    }
}

fn port(text: &str, ports: &[Port]) -> Option<NonZeroU16> {
    let number = text.parse().ok();
    let is_meant = |port: &&Port| match number {
        Some(number) => port.number == number,
        None => port.name.as_ref().is_some_and(|name| name.as_str() == text),
    };
    ports.iter().filter(|port| port.protocol == Protocol::Tcp).find(is_meant).map(|port| port.number)
}

fn within(text: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
    parse_duration(text).filter(|duration| range.contains(duration))
}

fn times(text: &str) -> Option<NonZeroU8> {
    text.parse().ok().filter(|times: &NonZeroU8| times.get() <= 100)
}

/// As it stands in a request: RFC 3986 sections 3.3 and 3.4, the characters of a path and a query.
fn is_path(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&b);
    text.starts_with('/') && text.len() <= MOST_OCTETS && text.bytes().all(allowed)
}

fn is_grpc_service(text: &str) -> bool {
    text.len() <= MOST_OCTETS && text.bytes().all(|b| b.is_ascii_graphic())
}

fn statuses(text: &str) -> Option<(u16, u16)> {
    let status = |text: &str| text.parse().ok().filter(|status| (100..=599).contains(status));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (status(first)?, status(last)?);
    (first <= last).then_some((first, last))
}

/// As [`Check::parse`] reads it.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut host = None;
        match &self.how {
            How::Nothing => f.write_str("none")?,
            How::Connect => f.write_str("tcp")?,
            How::Ask(Ask { tls, host: named, question }) => {
                host = named.as_ref();
                let secure = if *tls { "s" } else { "" };
                match question {
                    Question::Http { path, status: (first, last) } => {
                        write!(f, "http{secure} path={path} status={first}")?;
                        if first != last {
                            write!(f, "-{last}")?;
                        }
                    }
                    Question::Grpc { service } => {
                        write!(f, "grpc{secure}")?;
                        if !service.is_empty() {
                            write!(f, " service={service}")?;
                        }
                    }
                }
            }
        }
        if let Some(host) = host {
            write!(f, " host={host}")?;
        }
        if let Some(port) = self.port {
            write!(f, " port={port}")?;
        }
        for (key, duration) in [("interval", self.interval), ("timeout", self.timeout)] {
            if let Some(duration) = duration {
                write!(f, " {key}={}ms", duration.as_millis())?;
            }
        }
        for (key, times) in [("fall", self.fall), ("rise", self.rise)] {
            if let Some(times) = times {
                write!(f, " {key}={times}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Label;

    fn ports() -> Vec<Port> {
        [("dns", Protocol::Udp, 53), ("http", Protocol::Tcp, 80), ("admin", Protocol::Tcp, 8443)]
            .map(|(name, protocol, number)| Port {
                name: Label::parse(name).ok(),
                protocol,
                number: NonZeroU16::new(number).unwrap(),
            })
            .to_vec()
    }

    #[test]
    fn what_is_asked_for() {
        for (text, canonical) in [
            ("none", "none"),
            ("tcp", "tcp"),
            (" tcp  port=admin fall=1\n", "tcp port=8443 fall=1"),
            ("http", "http path=/ status=200-299"),
            ("https host=Shop.Example.com port=80", "https path=/ status=200-299 host=shop.example.com port=80"),
            ("http path=/a?b=c%20d status=204", "http path=/a?b=c%20d status=204"),
            ("http status=200-399 path=/", "http path=/ status=200-399"),
            ("grpc", "grpc"),
            (
                "grpcs service=shop.v1.Cart timeout=1s interval=10s rise=100",
                "grpcs service=shop.v1.Cart interval=10000ms timeout=1000ms rise=100",
            ),
        ] {
            let check = Check::parse(text, &ports()).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(check.to_string(), canonical);
            assert_eq!(Check::parse(canonical, &ports()), Ok(check), "what is written is read again");
        }
    }

    #[test]
    fn what_cannot_be_asked_for() {
        let long = format!("http path=/{}", "a".repeat(MOST_OCTETS));
        for (text, error) in [
            ("", CheckError::How),
            ("HTTP", CheckError::How),
            ("path=/", CheckError::How),
            ("none fall=1", CheckError::Setting),
            ("tcp path=/", CheckError::Setting),
            ("grpc path=/", CheckError::Setting),
            ("http service=a", CheckError::Setting),
            ("http paths=/", CheckError::Setting),
            ("http /", CheckError::Setting),
            ("http path=/ path=/", CheckError::Twice),
            ("tcp port=53", CheckError::Port),
            ("tcp port=dns", CheckError::Port),
            ("tcp port=22", CheckError::Port),
            ("tcp port=0", CheckError::Port),
            ("http path=healthz", CheckError::Path),
            ("http path=/ä", CheckError::Path),
            ("http path=/\"", CheckError::Path),
            (&long, CheckError::Path),
            ("http host=169.254.169.254", CheckError::Host),
            ("http host=a_b", CheckError::Host),
            ("http status=99", CheckError::Status),
            ("http status=300-200", CheckError::Status),
            ("http status=2xx", CheckError::Status),
            ("grpc service=\u{1}", CheckError::Service),
            ("tcp interval=999ms", CheckError::Interval),
            ("tcp interval=6m", CheckError::Interval),
            ("tcp interval=5", CheckError::Interval),
            ("tcp timeout=11s", CheckError::Timeout),
            ("tcp timeout=2s interval=1s", CheckError::Timeout),
            ("tcp fall=0", CheckError::Times),
            ("tcp rise=101", CheckError::Times),
        ] {
            assert_eq!(Check::parse(text, &ports()), Err(error), "{text}");
        }
    }
}
