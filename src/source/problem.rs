//! What can be wrong with an object or a file: facts, and one sentence made from them.

use std::fmt;

use super::status::Reason;
use crate::index::CLUSTER_LOAD;
use crate::model::check::CheckError;

/// Longest piece of foreign text in a message, in characters: a hostile object must not fill the log.
const MAX_QUOTE: usize = 80;
/// Longest message of a parser, in characters.
const MAX_WHAT: usize = 300;

/// What is wrong, without where: the caller knows the file, or the cluster and the object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Problem {
    #[error("{path}: {value:?} {fault}")]
    Field { path: String, value: String, fault: Fault },
    /// A field of the wrong type, in the decoder's words.
    #[error("{path}: {what}")]
    Type { path: String, what: String },
    #[error("cannot be parsed: {what}")]
    Syntax { what: String },
    #[error("kind {kind:?} of {api_version:?} is not used here")]
    UnknownKind { api_version: String, kind: String },
    /// `first` is the place that is used.
    #[error("is already in {first}, which is used")]
    Duplicate { first: String },
    #[error("cannot be read: {what}")]
    Unreadable { what: String },
    #[error("has more than {limit} {of}")]
    Limit { limit: u64, of: &'static str },
}

/// What is wrong with a field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    NotALabel,
    NotASubdomain,
    NotAPort,
    NotAnAddress,
    NotIpv4,
    NotIpv6,
    /// Unspecified, loopback, link-local, multicast or broadcast.
    Unusable,
    NotAServiceType,
    NotAProtocol,
    NotAnAddressType,
    /// Two ports of one object with one name.
    DuplicatePort,
    /// A port without a name beside others.
    UnnamedPort,
    /// A list that may not be null or empty.
    EmptyList,
    TooMany {
        limit: usize,
    },
    /// A load balancer's entry with no address and a host name that is none. Left out; the object is used.
    IngressHostname,
    /// More host names than this. Left out; the object is used.
    TooManyHostnames(usize),
    /// A load balancer's address that is [`Fault::Unusable`]. Left out; the object is used.
    IngressUnusable,
    // Annotations, which are left out; the object is used.
    NotAWeight,
    NotATtl,
    NotALoad,
    NotAddresses,
    /// Addresses for a Service that only its own cluster sees.
    NotExposed,
    UnknownAnnotation,
    NotACheck(CheckError),
    // Of a directive, of which nothing is done.
    NotAnAction,
    NotAService,
    NotOfAService,
    NotATime,
    NotAShift,
    NoBeginning,
    EndsBefore,
    UnknownKey,
    // Of a load, which is then unknown.
    NotAMeasuredLoad,
    NotAValidity,
    /// A ClusterLoad of another name.
    NotTheClusterLoad,
    // Of what a voter says, which then abstains.
    NotOurVersion,
    NotHex,
    NotAnEndpoint,
    Repeated,
    NotAReportName,
    NotGenerations,
}

impl Problem {
    pub fn field(path: impl Into<String>, value: impl fmt::Display, fault: Fault) -> Problem {
        Problem::Field { path: path.into(), value: clip(&value.to_string(), MAX_QUOTE), fault }
    }

    pub fn wrong_type(path: impl Into<String>, what: &str) -> Problem {
        Problem::Type { path: path.into(), what: clip(what, MAX_WHAT) }
    }

    pub fn syntax(what: &str) -> Problem {
        Problem::Syntax { what: clip(what, MAX_WHAT) }
    }

    pub fn unknown_kind(api_version: &str, kind: &str) -> Problem {
        Problem::UnknownKind { api_version: clip(api_version, MAX_QUOTE), kind: clip(kind, MAX_QUOTE) }
    }

    pub fn unreadable(error: &std::io::Error) -> Problem {
        Problem::Unreadable { what: clip(&error.to_string(), MAX_WHAT) }
    }

    /// The same problem of an object that stands at `at` in something larger.
    pub fn within(mut self, at: &str) -> Problem {
        if let (false, Problem::Field { path, .. } | Problem::Type { path, .. }) = (at.is_empty(), &mut self) {
            *path = if path.is_empty() { at.to_owned() } else { format!("{at}.{path}") };
        }
        self
    }

    /// The counter that it is counted by.
    pub fn reason(&self) -> Reason {
        match self {
            Problem::Field { fault, .. } => fault.reason(),
            Problem::Type { .. } => Reason::Type,
            Problem::Syntax { .. } => Reason::Syntax,
            Problem::UnknownKind { .. } => Reason::UnknownKind,
            Problem::Duplicate { .. } => Reason::Duplicate,
            Problem::Unreadable { .. } => Reason::Unreadable,
            Problem::Limit { .. } => Reason::Limit,
        }
    }

    /// Where in the object it is, like `spec.ports[0].port`.
    pub fn path(&self) -> Option<&str> {
        match self {
            Problem::Field { path, .. } | Problem::Type { path, .. } => Some(path),
            Problem::Syntax { .. }
            | Problem::UnknownKind { .. }
            | Problem::Duplicate { .. }
            | Problem::Unreadable { .. }
            | Problem::Limit { .. } => None,
        }
    }
}

impl Fault {
    fn reason(self) -> Reason {
        match self {
            Fault::NotALabel | Fault::NotASubdomain => Reason::Name,
            Fault::NotAPort | Fault::DuplicatePort | Fault::UnnamedPort => Reason::Port,
            Fault::NotAnAddress | Fault::NotIpv4 | Fault::NotIpv6 | Fault::Unusable => Reason::Address,
            Fault::NotAServiceType | Fault::NotAProtocol | Fault::NotAnAddressType => Reason::Word,
            Fault::EmptyList => Reason::List,
            Fault::TooMany { .. } => Reason::Limit,
            Fault::IngressHostname | Fault::TooManyHostnames(_) => Reason::IngressHostname,
            Fault::IngressUnusable => Reason::IngressAddress,
            Fault::NotAWeight
            | Fault::NotATtl
            | Fault::NotALoad
            | Fault::NotAddresses
            | Fault::NotExposed
            | Fault::UnknownAnnotation
            | Fault::NotACheck(_) => Reason::Annotation,
            Fault::NotAMeasuredLoad | Fault::NotAValidity => Reason::Load,
            Fault::NotTheClusterLoad | Fault::NotAReportName => Reason::Name,
            Fault::NotAnAction
            | Fault::NotAService
            | Fault::NotOfAService
            | Fault::NotATime
            | Fault::NotAShift
            | Fault::NoBeginning
            | Fault::EndsBefore
            | Fault::UnknownKey => Reason::Directive,
            Fault::NotOurVersion => Reason::Version,
            Fault::NotHex | Fault::NotAnEndpoint | Fault::Repeated | Fault::NotGenerations => Reason::Vote,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NotALabel => {
                f.write_str("is not a DNS label (1 to 63 lower-case letters, digits and inner hyphens)")
            }
            Fault::NotASubdomain => f.write_str("is not a DNS subdomain name"),
            Fault::NotAPort => f.write_str("is not a port number (1 to 65535)"),
            Fault::NotAnAddress => f.write_str("is not an IP address"),
            Fault::NotIpv4 => f.write_str("is not an IPv4 address, which addressType promises"),
            Fault::NotIpv6 => f.write_str("is not an IPv6 address, which addressType promises"),
            Fault::Unusable => {
                f.write_str("cannot be reached (unspecified, loopback, link-local, multicast or broadcast)")
            }
            Fault::NotAServiceType => f.write_str("is not ClusterIP, NodePort, LoadBalancer or ExternalName"),
            Fault::NotAProtocol => f.write_str("is not TCP, UDP or SCTP"),
            Fault::NotAnAddressType => f.write_str("is not IPv4, IPv6 or FQDN"),
            Fault::DuplicatePort => f.write_str("is the name of two ports"),
            Fault::UnnamedPort => f.write_str("is no name, and only a single port may have none"),
            Fault::EmptyList => f.write_str("where a list with at least one entry is expected"),
            Fault::TooMany { limit } => write!(f, "entries are more than the {limit} that are possible"),
            Fault::IngressHostname => f.write_str("is no host name that can be asked for: entry left out"),
            Fault::TooManyHostnames(limit) => write!(f, "is one more than {limit} host names: entry left out"),
            Fault::NotAWeight => f.write_str("is not a whole number from 0 to 65535: annotation left out"),
            Fault::NotATtl => f.write_str("is not a whole number of seconds from 5 to 86400: annotation left out"),
            Fault::NotALoad => f.write_str("is not a number from 0 to 1: annotation left out"),
            Fault::NotAddresses => f.write_str(
                "is not a list of usable IP addresses with commas between them, at most 100: annotation left out",
            ),
            Fault::NotExposed => f.write_str("is of no use to a Service that is not of type LoadBalancer: left out"),
            Fault::NotAnAction => f.write_str("is not drain, force-up, force-down or release"),
            Fault::NotAService => f.write_str("is not NAMESPACE/SERVICE"),
            Fault::NotOfAService => f.write_str("is there, and a release is of a cluster"),
            Fault::NotATime => f.write_str("is not a time as in 2026-01-31T18:00:00Z"),
            Fault::NotAShift => f.write_str("is not a time from 1s to 24h over which a drain shifts, as in 30m"),
            Fault::NoBeginning => f.write_str("needs `from` beside it"),
            Fault::EndsBefore => f.write_str("is not after `from`"),
            Fault::UnknownKey => f.write_str("is not a key of a directive"),
            Fault::NotACheck(error) => write!(f, "{error}: annotation left out"),
            Fault::UnknownAnnotation => f.write_str("is an annotation that means nothing: left out"),
            Fault::NotAMeasuredLoad => f.write_str("is not a number from 0 to 1: the load counts as unknown"),
            Fault::NotAValidity => {
                f.write_str("is not a whole number of seconds from 5 to 3600: the load counts as unknown")
            }
            Fault::NotTheClusterLoad => {
                write!(f, "is not {CLUSTER_LOAD:?}, the only name that a ClusterLoad may have")
            }
            Fault::NotOurVersion => f.write_str("is not the version that is understood here"),
            Fault::NotHex => f.write_str("is not a number of 16 hexadecimal digits"),
            Fault::NotAnEndpoint => f.write_str("is not an address or a host name with a port"),
            Fault::Repeated => f.write_str("is there twice"),
            Fault::NotAReportName => f.write_str("is not a replica's name with the number of a shard (0 to 31)"),
            Fault::NotGenerations => f.write_str("is not a list of 1 to 32 generations with commas between them"),
            Fault::IngressUnusable => {
                f.write_str("is unspecified, loopback, link-local, multicast or broadcast: entry left out")
            }
        }
    }
}

fn clip(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences() {
        let port = Problem::field("spec.ports[0].port", 70000, Fault::NotAPort);
        assert_eq!(port.to_string(), r#"spec.ports[0].port: "70000" is not a port number (1 to 65535)"#);
        assert_eq!(port.reason(), Reason::Port);
        let long = Problem::field("metadata.name", "ä".repeat(1000), Fault::NotALabel);
        assert!(long.to_string().len() < 300, "{long}");
        assert!(!Problem::field("metadata.name", "a\nb", Fault::NotALabel).to_string().contains('\n'));
    }
}
