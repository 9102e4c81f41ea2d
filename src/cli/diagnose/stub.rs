//! Does the DNS inside a cluster forward our zones to an instance?

use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::{PORT, over_udp, serial};
use crate::source::kube::examine::Finding;
use crate::zonefile::ZoneData;

/// `ADDRESS` or `ADDRESS:PORT` (in brackets, if it is IPv6).
pub fn parse(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse::<SocketAddr>();
    with_port
        .or_else(|_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, PORT)))
        .map_err(|_| "is not the address of a DNS server, as in 10.96.0.10, 10.96.0.10:53 or [fd00::a]:53".to_owned())
}

pub fn forwards(server: SocketAddr, zone: &ZoneData) -> Finding {
    let own = zone.soa.serial;
    let message = match over_udp(server, &zone.apex.to_string(), RecordType::SOA) {
        Ok(message) => message,
        Err(error) => {
            return Finding::failed(format!(
                "does not answer ({error}): is it the cluster's DNS, and reached from here?"
            ));
        }
    };
    match (message.metadata.response_code, serial(&message)) {
        (ResponseCode::NoError, Some(found)) if found == own => Finding::passed(format!("forwards it: serial {own}")),
        (ResponseCode::NoError, Some(found)) => Finding::warned(format!(
            "has the serial {found} for it, and the zone file here {own}: a cache has an old one, or the stub leads elsewhere"
        )),
        (ResponseCode::ServFail, _) => Finding::failed(
            "says SERVFAIL: it forwards it to something that does not answer; look at the address in its stub, and at network policies"
                .to_owned(),
        ),
        (code, _) => Finding::failed(format!(
            "says {code} and has no SOA record of it: it is not forwarded; see \"Point the DNS inside a cluster at it\" in the README"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_stub_is() {
        for (text, expected) in [
            ("10.96.0.10", "10.96.0.10:53"),
            ("10.96.0.10:54", "10.96.0.10:54"),
            ("fd00::a", "[fd00::a]:53"),
            ("[fd00::a]:5", "[fd00::a]:5"),
        ] {
            assert_eq!(parse(text).map(|server| server.to_string()), Ok(expected.to_owned()));
        }
        for text in ["", "kube-dns", "10.96.0.10:", "10.96.0.10:70000", "fd00::a:53:x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
