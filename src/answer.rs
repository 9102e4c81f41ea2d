//! What to say to a query: RFC 1034 section 4.3.2, RFC 2308, RFC 8020. One function for every transport.

use std::net::IpAddr;

use crate::model::ViewRule;

/// Who asks, and over what.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    pub address: IpAddr,
    /// The rule of the listening socket.
    pub view: ViewRule,
    pub transport: Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    Udp,
    Tcp,
}
