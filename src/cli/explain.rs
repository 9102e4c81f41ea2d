//! `signpost explain`: asks the running server, or makes the answer itself from what stands on disk.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use crate::app::{Offline, whereabouts};
use crate::config::Config;
use crate::explain::{Asked, Explanation, explain};

/// To connect to the server, and for its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Octets of an explanation: a service of 1,024 clusters has some hundred thousand.
const MAX_ANSWER: u64 = 16 << 20;

/// The explanation, or one sentence that says what is wrong.
pub fn run(path: &Path, asked: Asked, offline: bool) -> Result<Explanation, String> {
    if offline {
        return from_disk(path, asked);
    }
    let body = ask(&load(path)?, &request_path(&asked), MAX_ANSWER, OFFLINE)?;
    serde_json::from_str(&body).map_err(|error| format!("the server gives no explanation: {error}"))
}

/// What can be done without a server.
pub(super) const OFFLINE: &str = ", or use --offline";

pub(super) fn load(path: &Path) -> Result<Config, String> {
    Config::load(path).map_err(|errors| errors.to_string())
}

/// Of the server that runs with that configuration, over its admin address. `or_else`: what else can be done than to start it.
pub(super) fn ask(config: &Config, target: &str, most: u64, or_else: &str) -> Result<String, String> {
    let off = || format!("the configuration switches the admin address off: switch it on{or_else}");
    let address = config.admin.ok_or_else(off)?;
    let answer = get(address, target, most).map_err(|error| {
        format!("the server's admin address {address} does not answer ({error}): start it{or_else}")
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(format!("{address} does not speak HTTP"))?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(body.trim().to_owned()),
    }
}

fn request_path(asked: &Asked) -> String {
    let Asked { name, rtype, client, cluster, subnet } = asked;
    format!("/explain?name={}&type={}{}", encoded(name), encoded(rtype), who(*client, cluster.as_ref(), *subnet))
}

/// Who asks, as the rest of a request's target.
pub(super) fn who(client: Option<IpAddr>, cluster: Option<&String>, subnet: Option<IpNet>) -> String {
    let fields = [
        ("client", client.map(|client| client.to_string())),
        ("cluster", cluster.cloned()),
        ("subnet", subnet.map(|subnet| subnet.to_string())),
    ];
    let field = |(key, value): (&str, Option<String>)| value.map(|value| format!("&{key}={}", encoded(&value)));
    fields.into_iter().filter_map(field).collect()
}

/// RFC 3986 section 2.1.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for octet in text.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(octet)),
            _ => write!(encoded, "%{octet:02X}").expect("a String takes all"),
        }
    }
    encoded
}

fn get(address: SocketAddr, path: &str, most: u64) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(most).read_to_end(&mut answer)?;
    String::from_utf8(answer).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn from_disk(path: &Path, asked: Asked) -> Result<Explanation, String> {
    let Offline { config, federation, reader, .. } = Offline::read(path).map_err(|error| error.to_string())?;
    let seed = getrandom::u64().map_err(|error| error.to_string())?;
    let explained = explain(&config, &reader, asked, seed, &whereabouts());
    let mut explanation = explained.map_err(|error| error.to_string())?;
    if let Some(service) = &mut explanation.service
        && let Some(key) = service.key()
    {
        service.learn(federation.known(&key));
    }
    Ok(explanation)
}
