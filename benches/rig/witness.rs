//! A second opinion from a generator that is not ours: dnsperf.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use signpost::table::Random;

use super::questions::{Mix, lines};
use super::servers::Server;

/// Names in its file, which it begins anew at the end.
const NAMES: usize = 200_000;
/// For each server.
const TIME: Duration = Duration::from_secs(4);
/// Option number and value as the mixes have them, the same for every query.
const COOKIE: &str = "10:0123456789abcdef";
const SUBNET: &str = "8:00011800c63364";

pub struct Seen {
    pub sent: u64,
    pub answered: u64,
    pub lost: u64,
    pub rate: f64,
    pub nanoseconds: f64,
}

/// Writes what dnsperf asks.
pub fn write_queries(mix: Mix, file: &Path) -> io::Result<()> {
    fs::write(file, lines(mix, NAMES, &mut Random::new(3)))
}

pub fn ask(server: &Server, mix: Mix, queries: &Path, rate: u32) -> io::Result<Seen> {
    let mut command = Command::new("dnsperf");
    let (ip, port) = (server.address.ip().to_string(), server.address.port().to_string());
    let (rate, time) = (rate.to_string(), TIME.as_secs().to_string());
    command.args(["-s", &ip, "-p", &port, "-Q", &rate, "-l", &time, "-c", "8", "-T", "1", "-q", "256", "-t", "1"]);
    command.arg("-d").arg(queries).stdin(Stdio::null());
    match mix {
        Mix::Edns => command.arg("-e"),
        Mix::Cookie => command.args(["-e", "-E", COOKIE]),
        Mix::Subnet => command.args(["-e", "-E", SUBNET]),
        Mix::A | Mix::NxDomain | Mix::Srv | Mix::Mixed | Mix::Case => &mut command,
    };
    let before = server.cpu()?;
    let output = command.output()?;
    let spent = server.cpu()?.saturating_sub(before);
    let text = String::from_utf8_lossy(&output.stdout);
    let field = |name: &str| -> io::Result<f64> {
        let value =
            text.lines().find_map(|line| line.trim().strip_prefix(name)?.split_whitespace().next()?.parse().ok());
        value.ok_or_else(|| {
            io::Error::other(format!("dnsperf says no {name} {text}{}", String::from_utf8_lossy(&output.stderr)))
        })
    };
    let answered = field("Queries completed:")?;
    Ok(Seen {
        sent: field("Queries sent:")? as u64,
        answered: answered as u64,
        lost: field("Queries lost:")? as u64,
        rate: field("Queries per second:")?,
        nanoseconds: spent.as_nanos() as f64 / answered.max(1.0),
    })
}
