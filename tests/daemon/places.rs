//! Files that say where clients are, and what becomes of them while the server runs.

use std::fs;
use std::net::IpAddr;

use ipnet::IpNet;
use rustix::process::Signal;

use super::server::{DEADLINE, Demo, EXTERNAL, SERVICE, Server};
use super::startup::run;
use crate::common::dig::addresses;
use crate::common::wait_for;
use crate::mmdb;

/// A client in Iowa, and one in Belgium: the first two clusters are there, and the third is here.
const IOWA: &str = "192.0.2.0/24";
const BELGIUM: &str = "198.51.100.0/24";

fn database(iowa: &str, belgium: &str) -> Vec<u8> {
    let values = [mmdb::city(41.3, -95.9, "US", "NA"), mmdb::city(50.5, 3.8, "BE", "EU")];
    let networks: Vec<(IpNet, usize)> =
        [(iowa, 0), (belgium, 1)].iter().map(|(net, value)| (net.parse().expect("a prefix"), *value)).collect();
    mmdb::write(&values, &networks)
}

fn demo() -> Demo {
    let demo = Demo::new();
    fs::write(demo.path().join("config/cities.mmdb"), database(IOWA, BELGIUM)).expect("the folder is ours");
    fs::write(demo.path().join("config/offices"), "# none yet\n").expect("the folder is ours");
    let location = "location: {places: [{file: offices}], databases: [{file: cities.mmdb}]}\n";
    demo.write_config(&format!("{}{location}", demo.read_config()));
    demo
}

fn american() -> Vec<IpAddr> {
    let mut all = addresses(&EXTERNAL[..2]);
    all.sort_unstable();
    all
}

/// Until a client in `subnet` gets these and no others.
fn wait(server: &Server, subnet: &str, expected: &[IpAddr]) {
    wait_for(subnet, DEADLINE, || {
        let seen = server.external().with(&format!("+subnet={subnet}")).address_set(SERVICE, "A")?;
        if seen == expected { Ok(()) } else { Err(format!("{seen:?}, not {expected:?}")) }
    });
}

#[test]
fn files_are_read_again_and_a_broken_one_changes_nothing() {
    let server = Server::start(demo(), &[]);
    let european = addresses(&EXTERNAL[2..]);
    let write = |name: &str, octets: &[u8]| {
        fs::write(server.demo.path().join("config").join(name), octets).expect("the folder is ours");
    };
    let reloads = |result: &str| server.metric(&format!("signpost_places_reload_total{{result=\"{result}\"}}"));
    let wait_reloads =
        |result: &str, count: f64| {
            wait_for(result, DEADLINE, || {
                if reloads(result) == count { Ok(()) } else { Err(format!("{}", reloads(result))) }
            });
        };
    wait(&server, IOWA, &american());
    wait(&server, BELGIUM, &european);

    // What the operator says goes before the database. A line that is wrong costs itself alone.
    write("offices", format!("{IOWA} europe-west1\n{BELGIUM} the-moon\n192.0.2.1/8 europe-west1\n").as_bytes());
    wait(&server, IOWA, &european);
    wait(&server, BELGIUM, &european);
    wait_reloads("applied", 1.0);
    assert_eq!(server.metric("signpost_places_left_out"), 2.0);
    server.log_has(&["offices:2", "the-moon", "the line is left out"]).unwrap();
    server.log_has(&["offices:3", "192.0.2.1/8", "bits set"]).unwrap();

    // A database that is cut off while it is written: what was known stays, all of it.
    let whole = database(BELGIUM, IOWA);
    write("cities.mmdb", &whole[..whole.len() / 2]);
    wait_reloads("rejected", 1.0);
    server.log_has(&["cities.mmdb", "damaged"]).unwrap();
    wait(&server, IOWA, &european);
    wait(&server, BELGIUM, &european);
    // A reload of the configuration would have nothing better.
    server.process.signal(Signal::HUP);
    wait_for("rejected", DEADLINE, || match server.metric("signpost_reload_total{result=\"rejected\"}") {
        1.0 => Ok(()),
        count => Err(format!("{count}")),
    });
    wait(&server, BELGIUM, &european);

    write("cities.mmdb", &whole);
    wait_reloads("applied", 2.0);
    write("offices", b"");
    wait(&server, IOWA, &european);
    wait(&server, BELGIUM, &american());

    // A new configuration takes the files with it.
    server.demo.edit_config("ttl: 180", "ttl: 60");
    server.process.signal(Signal::HUP);
    wait_for("applied", DEADLINE, || match server.metric("signpost_reload_total{result=\"applied\"}") {
        1.0 => Ok(()),
        count => Err(format!("{count}")),
    });
    wait(&server, BELGIUM, &american());
    write("offices", format!("{BELGIUM} europe-west1\n").as_bytes());
    wait(&server, BELGIUM, &european);
    assert_eq!(server.process.terminate(DEADLINE).code(), Some(0));
}

#[test]
fn a_broken_file_is_no_reason_not_to_start_and_check_tells_it() {
    let demo = demo();
    fs::write(demo.path().join("config/cities.mmdb"), "this is no database").expect("the folder is ours");
    fs::write(demo.path().join("config/offices"), format!("{BELGIUM} europe-west1\n10.0.0.0\n")).expect("it is ours");
    let output = run(demo.path(), &[], &["check", "--config", "config/demo.yaml"]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(1), "{text}");
    for words in [&["problem: ", "config/cities.mmdb: ", "no MaxMind DB"][..], &["problem: ", "config/offices:2: "]] {
        let told = text.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(told, "{words:?} in {text}");
    }

    let server = Server::start(demo, &[]);
    wait(&server, BELGIUM, &addresses(&EXTERNAL[2..]));
    assert_eq!(server.metric("signpost_places_broken_files"), 1.0);
    fs::write(server.demo.path().join("config/cities.mmdb"), database(IOWA, BELGIUM)).expect("the folder is ours");
    wait(&server, IOWA, &american());
}

#[test]
fn an_explanation_names_the_prefix_and_who_says_it() {
    let demo = demo();
    let location = "location: {regions: [{name: lab, latitude: 1.5, longitude: -2}], \
                    places: [{region: lab, cidrs: [203.0.113.0/25]}, {file: offices}], databases: [{file: cities.mmdb}]}\n";
    let config = demo.read_config();
    demo.write_config(&format!("{}{location}", config.split("location:").next().expect("the start")));
    let offices = "203.0.113.0/24 europe-west1\n203.0.113.0/26 europe-west1\n198.51.100.77/32 us-central1\n";
    fs::write(demo.path().join("config/offices"), offices).expect("the folder is ours");
    let server = Server::start(demo, &[]);
    let file = |name: &str| server.demo.path().join("config").join(name).display().to_string();
    let (config, offices, cities) = (file("demo.yaml"), file("offices"), file("cities.mmdb"));
    let matched = |subnet: &str, offline: bool| {
        let mut words = vec!["explain", "--config", &config, SERVICE, "--output", "json", "--subnet", subnet];
        words.extend(offline.then_some("--offline"));
        let output = run(server.demo.path(), &[], &words);
        let text = String::from_utf8(output.stdout).expect("text");
        let made: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        made["place"]["matched"].clone()
    };
    let said = |prefix: &str, region: serde_json::Value, by: &str, at: [f64; 2]| {
        let mut said = serde_json::json!({"prefix": prefix, "region": region, "latitude": at[0], "longitude": at[1]});
        said["by"] = by.into();
        said
    };
    for offline in [false, true] {
        // The longest one of what the operator says, wherever it stands.
        let seen = matched("203.0.113.64/26", offline);
        assert_eq!(seen, said("203.0.113.0/25", "lab".into(), "location.places", [1.5, -2.0]));
        for (subnet, prefix) in [("203.0.113.0/26", "203.0.113.0/26"), ("203.0.113.128/25", "203.0.113.0/24")] {
            let seen = matched(subnet, offline);
            assert_eq!((seen["prefix"].as_str(), seen["by"].as_str()), (Some(prefix), Some(&*offices)), "{seen}");
            assert_eq!(seen["region"], "europe-west1");
        }
        // A database knows coordinates.
        let seen = matched(IOWA, offline);
        assert_eq!(seen, said(IOWA, serde_json::Value::Null, &cities, [41.3, -95.9]));
        for unknown in ["2001:db8::/48", "10.0.0.0/8"] {
            assert!(matched(unknown, offline).is_null(), "{unknown}");
        }
    }
    // It is remembered for as long as the files are the same.
    fs::write(server.demo.path().join("config/offices"), "203.0.113.0/24 lab\n").expect("the folder is ours");
    let seen = matched("203.0.113.0/26", false);
    assert_eq!((seen["prefix"].as_str(), seen["by"].as_str()), (Some("203.0.113.0/25"), Some("location.places")));
}
