//! `signpost explain`: asks the running server, or makes the answer itself from what stands on disk.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::check;
use crate::app::Loaded;
use crate::config::{Config, Source};
use crate::explain::{Asked, Explanation, explain};
use crate::model::ClusterId;
use crate::source;
use crate::table::Publisher;

/// To connect to the server, and for its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Octets of an explanation: a service of 1,024 clusters has some hundred thousand.
const MAX_ANSWER: u64 = 16 << 20;

/// The explanation, or one sentence that says what is wrong.
pub fn run(path: &Path, asked: Asked, offline: bool) -> Result<Explanation, String> {
    if offline {
        return from_disk(path, asked);
    }
    let config = Config::load(path).map_err(|errors| errors.to_string())?;
    let address = config.admin.ok_or("the configuration switches the admin address off: use --offline")?;
    let answer = get(address, &request_path(&asked)).map_err(|error| {
        format!("the server's admin address {address} does not answer ({error}): start it, or use --offline")
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(format!("{address} does not speak HTTP"))?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(body.trim().to_owned());
    }
    serde_json::from_str(body).map_err(|error| format!("{address} gives no explanation: {error}"))
}

fn request_path(asked: &Asked) -> String {
    let Asked { name, rtype, client, cluster, subnet } = asked;
    let mut path = format!("/explain?name={}&type={}", encoded(name), encoded(rtype));
    let fields = [
        ("client", client.map(|client| client.to_string())),
        ("cluster", cluster.clone()),
        ("subnet", subnet.map(|subnet| subnet.to_string())),
    ];
    for (key, value) in fields {
        if let Some(value) = value {
            path += &format!("&{key}={}", encoded(&value));
        }
    }
    path
}

/// RFC 3986 section 2.1.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for octet in text.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(octet)),
            _ => write!(encoded, "%{octet:02X}").expect("a String takes all"),
        }
    }
    encoded
}

fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    String::from_utf8(answer).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Clusters behind an API server are as if they had nothing.
fn from_disk(path: &Path, asked: Asked) -> Result<Explanation, String> {
    let Loaded { config, zones, atlas, .. } = Loaded::load(path).map_err(|error| error.to_string())?;
    let mut index = crate::app::new_index(&config);
    for (id, cluster) in config.numbered() {
        if let Source::Manifests { directory } = &cluster.source {
            check::fill(&mut index, id, source::manifests::read(directory, cluster, &config.limits));
        }
    }
    let (mut publisher, reader) = Publisher::new(config.clone(), &zones, 0);
    publisher.set_atlas(atlas);
    for key in index.keys() {
        publisher.publish(&key, index.service(&key).as_ref());
    }
    (0..config.clusters.len()).for_each(|id| publisher.set_synced(ClusterId(id as u16)));
    let seed = getrandom::u64().map_err(|error| error.to_string())?;
    explain(&config, &reader, asked, seed).map_err(|error| error.to_string())
}
