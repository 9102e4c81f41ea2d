//! How a report on endpoints is written down, and read again.
//!
//! ```json
//! {"version":1,"incarnation":"0f3c...","electorate":"91ab...","generation":7,
//!  "up":{"berlin":["192.0.2.1:80","192.0.2.1:80 shop/cart"]},"down":{"oregon":["[2001:db8::1]:443","lb.example.com:80"]}}
//! ```
//!
//! Up and down by the cluster whose endpoints they are. It is read by everybody in the federation, of other versions too: keys may
//! be added, and whatever changes the meaning of one has another version.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::problem::{Fault, Problem};
use crate::model::Label;
use crate::model::votes::{Endpoint, Said, Sheet};

/// The key in a ConfigMap.
pub const KEY: &str = "report.json";
/// What is written, and the only thing that is understood.
const VERSION: u32 = 1;
/// Octets of a report.
pub const MOST_OCTETS: usize = 256 << 10;

#[derive(Serialize, Deserialize)]
struct Written<'a> {
    version: u32,
    #[serde(default)]
    incarnation: String,
    #[serde(default)]
    electorate: String,
    #[serde(default)]
    generation: u64,
    #[serde(default, borrow)]
    up: BTreeMap<&'a str, Vec<String>>,
    #[serde(default, borrow)]
    down: BTreeMap<&'a str, Vec<String>>,
}

pub fn write(sheet: &Sheet) -> String {
    let mut written = Written {
        version: VERSION,
        incarnation: hex(sheet.incarnation),
        electorate: hex(sheet.electorate),
        generation: sheet.generation,
        up: BTreeMap::new(),
        down: BTreeMap::new(),
    };
    for Said { endpoint, up } in sheet.votes.iter() {
        let side = if *up { &mut written.up } else { &mut written.down };
        side.entry(endpoint.cluster.as_str()).or_default().push(endpoint.text());
    }
    serde_json::to_string(&written).expect("numbers and texts can be written")
}

/// What is wrong with it is wrong with all of it: half a report is another one.
pub fn read(text: &str) -> Result<Sheet, Problem> {
    if text.len() > MOST_OCTETS {
        return Err(Problem::Limit { limit: MOST_OCTETS as u64, of: "octets" });
    }
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let syntax = |error: serde_json::Error| Problem::syntax(&error.to_string());
    let Version { version } = serde_json::from_str(text).map_err(syntax)?;
    if version != VERSION {
        return Err(Problem::field("version", version, Fault::NotOurVersion));
    }
    let written: Written<'_> = serde_json::from_str(text).map_err(syntax)?;
    let mut votes = Vec::new();
    for (up, side) in [(true, &written.up), (false, &written.down)] {
        let path = if up { "up" } else { "down" };
        for (cluster, endpoints) in side {
            let cluster = Label::parse(cluster).map_err(|_| Problem::field(path, cluster, Fault::NotALabel))?;
            for (n, text) in endpoints.iter().enumerate() {
                let endpoint = Endpoint::parse(cluster.clone(), text)
                    .map_err(|_| Problem::field(format!("{path}.{cluster}[{n}]"), text, Fault::NotAnEndpoint))?;
                votes.push(Said { endpoint, up });
            }
        }
    }
    votes.sort();
    if let Some(pair) = votes.windows(2).find(|pair| pair[0].endpoint == pair[1].endpoint) {
        return Err(Problem::field("up, down", pair[0].endpoint.text(), Fault::Repeated));
    }
    Ok(Sheet {
        incarnation: number("incarnation", &written.incarnation)?,
        electorate: number("electorate", &written.electorate)?,
        generation: written.generation,
        votes: Arc::from(votes),
    })
}

pub fn hex(number: u64) -> String {
    format!("{number:016x}")
}

/// What [`hex`] wrote.
pub fn number(path: &str, text: &str) -> Result<u64, Problem> {
    let number = u64::from_str_radix(text, 16).ok().filter(|number| hex(*number) == text);
    number.ok_or_else(|| Problem::field(path, text, Fault::NotHex))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(cluster: &str, host_port: &str, up: bool) -> Said {
        Said { endpoint: Endpoint::parse(Label::parse(cluster).unwrap(), host_port).unwrap(), up }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut votes = vec![
            said("a", "192.0.2.1:80", true),
            said("a", "192.0.2.1:81", false),
            said("b", "[2001:db8::1]:80", false),
            said("b", "lb.example.com:443", true),
            said("b", "lb.example.com:443 shop/cart", false),
        ];
        votes.sort();
        let sheet = Sheet { incarnation: 1, electorate: u64::MAX, generation: 7, votes: votes.into() };
        assert_eq!(read(&write(&sheet)), Ok(sheet));
        let empty = Sheet::default();
        assert_eq!(read(&write(&empty)), Ok(empty));
    }

    #[test]
    fn what_is_wrong_with_reports() {
        let good = r#"{"version":1,"incarnation":"000000000000000a","electorate":"00000000000000ff","generation":3,"later":[]}"#;
        assert_eq!(read(good).unwrap().electorate, 255, "what is added later is no problem");
        let with = |key: &str, value: &str| {
            let mut all: serde_json::Value = serde_json::from_str(good).unwrap();
            all[key] = serde_json::from_str(value).unwrap();
            all.to_string()
        };
        for (text, words) in [
            (good[..60].to_owned(), "cannot be parsed: EOF"),
            (String::new(), "cannot be parsed: EOF"),
            (format!("{good}x"), "trailing characters"),
            (with("version", "2"), "version: \"2\" is not the version"),
            (with("generation", "-1"), "cannot be parsed"),
            (with("incarnation", "\"A\""), "incarnation: \"A\" is not"),
            (with("electorate", "\"+000000000000001\""), "electorate"),
            (with("up", "{\"B\":[]}"), "up: \"B\" is not a DNS label"),
            (with("up", "{\"b\":[\"192.0.2.1\"]}"), "up.b[0]: \"192.0.2.1\" is not an address"),
            (with("down", "{\"b\":[\"a:1\",\"a:0\"]}"), "down.b[1]"),
            (with("down", "{\"b\":[\"a:1 shop\"]}"), "down.b[0]"),
            (with("down", "{\"b\":[\"a:1 shop/cart \"]}"), "down.b[0]"),
            (with("down", "{\"b\":[\"a:1\",\"a:1\"]}"), "\"a:1\" is there twice"),
            (format!("{good}{}", " ".repeat(MOST_OCTETS)), "more than 262144 octets"),
        ] {
            let problem = read(&text).unwrap_err().to_string();
            assert!(problem.contains(words), "{problem}");
        }
        let both = with("up", "{\"b\":[\"a:1\"]}").replace("\"later\":[]", "\"down\":{\"b\":[\"a:1\"]}");
        assert!(read(&both).unwrap_err().to_string().contains("is there twice"));
    }
}
