//! What instances tell one another of what they can reach, in objects that each writes in its own cluster.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use super::{Label, ServiceKey, is_host_name};

/// Where a load balancer is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    Address(IpAddr),
    /// It has no address of its own; everybody may find other ones behind its name. Lower case, no final dot.
    Name(Arc<str>),
}

/// A way into a cluster, as it is judged: the services that share it share its verdict.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Whose services are behind it.
    pub cluster: Label,
    pub host: Host,
    /// TCP.
    pub port: NonZeroU16,
    /// The only one that is judged by it, as it has a check of its own; `None`: all that are there, by whether it can be connected to.
    pub service: Option<ServiceKey>,
}

/// Why a text is no [`Endpoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an address or a host name with a port, with or without a service")]
pub struct EndpointError;

impl Endpoint {
    /// Without its cluster: `192.0.2.1:80`, or `192.0.2.1:80 namespace/name` of one service.
    pub fn text(&self) -> String {
        match &self.service {
            None => self.way().to_string(),
            Some(service) => format!("{} {service}", self.way()),
        }
    }

    pub fn way(&self) -> HostPort {
        HostPort { host: self.host.clone(), port: self.port }
    }

    /// What [`text`](Endpoint::text) wrote.
    pub fn parse(cluster: Label, text: &str) -> Result<Endpoint, EndpointError> {
        let (way, service) = match text.split_once(' ') {
            None => (text, None),
            Some((way, service)) => (way, Some(service.parse().map_err(|_| EndpointError)?)),
        };
        let HostPort { host, port } = way.parse().map_err(|_| EndpointError)?;
        Ok(Endpoint { cluster, host, port, service })
    }
}

/// Host and port, as in `192.0.2.1:80`, `[2001:db8::1]:80`, `lb.example.com:80`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    pub host: Host,
    pub port: NonZeroU16,
}

/// Why a text is no [`HostPort`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an address or a host name with a port")]
pub struct HostPortError;

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(address) => SocketAddr::new(*address, self.port.get()).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<HostPort, HostPortError> {
        let (host, port) = text.rsplit_once(':').ok_or(HostPortError)?;
        let port = port.parse().map_err(|_| HostPortError)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let v6 = rest.strip_suffix(']').ok_or(HostPortError)?;
                Host::Address(IpAddr::V6(v6.parse().map_err(|_| HostPortError)?))
            }
            None if is_host_name(host) => Host::Name(host.into()),
            None => Host::Address(IpAddr::V4(host.parse().map_err(|_| HostPortError)?)),
        };
        Ok(HostPort { host, port })
    }
}

/// A replica of a voter is there: the Lease that it renews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The object's name.
    pub replica: Arc<str>,
    /// `None`: it was not understood.
    pub content: Option<Pulse>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// Another one with each start.
    pub incarnation: u64,
    /// Counts heartbeats.
    pub beat: u64,
    /// Of each shard of its report.
    pub generations: Vec<u64>,
}

/// One shard of what a replica says of endpoints: a ConfigMap named by replica and shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub replica: Arc<str>,
    pub shard: u8,
    /// `None`: it was not understood.
    pub content: Option<Sheet>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sheet {
    pub incarnation: u64,
    /// Counts what was written.
    pub generation: u64,
    /// A hash of who votes.
    pub electorate: u64,
    /// In order, each endpoint once; of the others it says nothing.
    pub votes: Arc<[Said]>,
}

/// What a replica says of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    pub endpoint: Endpoint,
    pub up: bool,
}

impl Report {
    /// Most shards of one report.
    pub const SHARDS: usize = 32;

    /// The name of the object.
    pub fn name(replica: &str, shard: u8) -> String {
        format!("{replica}.{shard}")
    }

    /// What [`name`](Report::name) was made of; `None`: it is no report's name.
    pub fn parse_name(name: &str) -> Option<(&str, u8)> {
        let (replica, shard) = name.rsplit_once('.')?;
        let number: u8 = shard.parse().ok()?;
        let as_written = number.to_string() == shard && usize::from(number) < Report::SHARDS;
        (as_written && !replica.is_empty()).then_some((replica, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for text in ["192.0.2.1:80", "[2001:db8::1]:443", "lb-1.example.com:65535", "localhost:1"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "192.0.2.1",
            "192.0.2.1:0",
            "192.0.2.1:65536",
            "192.0.2:80",
            "2001:db8::1:80",
            "[192.0.2.1]:80",
            "[2001:db8::1:80",
            "LB.example.com:80",
            "lb..example.com:80",
            ".:80",
            ":80",
            "a b:80",
            &format!("{}:80", "a.".repeat(127) + "a"),
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_of_reports() {
        assert_eq!(Report::parse_name(&Report::name("signpost-0.x", 31)), Some(("signpost-0.x", 31)));
        for name in ["a", "a.", ".0", "a.32", "a.256", "a.01", "a.+1", "a.-1"] {
            assert_eq!(Report::parse_name(name), None, "{name}");
        }
    }
}
