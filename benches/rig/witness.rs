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
/// Option number and value as the mixes have them, the same for every query.
const COOKIE: &str = "10:0123456789abcdef";
const SUBNET: &str = "8:00011800c63364";

pub struct Seen {
    pub sent: u64,
    pub answered: u64,
    pub lost: u64,
    /// Those of the answers, with their shares.
    pub rcodes: String,
    /// Of a mean answer.
    pub octets: usize,
    pub rate: f64,
    pub nanoseconds: f64,
}

/// Writes what dnsperf asks.
pub fn write_queries(mix: Mix, file: &Path) -> io::Result<()> {
    fs::write(file, lines(mix, NAMES, &mut Random::new(3)))
}

/// For `time`, to the second.
pub fn ask(server: &Server, mix: Mix, queries: &Path, rate: u32, time: Duration) -> io::Result<Seen> {
    let mut command = Command::new("dnsperf");
    let (ip, port) = (server.address.ip().to_string(), server.address.port().to_string());
    let (rate, time) = (rate.to_string(), time.as_secs().max(1).to_string());
    command.args(["-s", &ip, "-p", &port, "-Q", &rate, "-l", &time, "-c", "8", "-T", "1", "-q", "256", "-t", "1"]);
    command.arg("-d").arg(queries).stdin(Stdio::null());
    match mix {
        Mix::Edns => command.arg("-e"),
        Mix::Cookie => command.args(["-e", "-E", COOKIE]),
        Mix::Subnet | Mix::MixedSubnet => command.args(["-e", "-E", SUBNET]),
        Mix::A | Mix::NxDomain | Mix::Srv | Mix::Mixed | Mix::Case => &mut command,
    };
    let before = server.cpu()?;
    let output = command.output()?;
    let spent = server.cpu()?.saturating_sub(before);
    let text = String::from_utf8_lossy(&output.stdout);
    let line = |name: &str| {
        let rest = text.lines().find_map(|line| Some(line.trim().strip_prefix(name)?.trim()));
        rest.ok_or_else(|| {
            io::Error::other(format!("dnsperf says no {name} {text}{}", String::from_utf8_lossy(&output.stderr)))
        })
    };
    let number = |word: Option<&str>| word.and_then(|word| word.parse::<f64>().ok()).ok_or(io::ErrorKind::InvalidData);
    let field = |name: &str| Ok::<f64, io::Error>(number(line(name)?.split_whitespace().next())?);
    let answered = field("Queries completed:")?;
    Ok(Seen {
        sent: field("Queries sent:")? as u64,
        answered: answered as u64,
        lost: field("Queries lost:")? as u64,
        rcodes: rcodes(line("Response codes:")?),
        // "request 68, response 139"
        octets: number(line("Average packet size:")?.split_whitespace().last())? as usize,
        rate: field("Queries per second:")?,
        nanoseconds: spent.as_nanos() as f64 / answered.max(1.0),
    })
}

/// "NOERROR 90 %, NXDOMAIN 10 %" of "NOERROR 180000 (90.00%), NXDOMAIN 20000 (10.00%)".
fn rcodes(text: &str) -> String {
    let each = text.split(", ").filter_map(|part| {
        let mut words = part.split_whitespace();
        let (name, _count, share) = (words.next()?, words.next()?, words.next()?);
        let share: f64 = share.trim_matches(|c| "(%)".contains(c)).parse().ok()?;
        Some(format!("{name} {share:.0} %"))
    });
    each.collect::<Vec<_>>().join(", ")
}
