//! Load balancers that have a name and no address, as some clouds give them. The resolver is another instance, which has them in
//! a static zone.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::Signal;

use super::server::{DEADLINE, Demo, EXTERNAL, SERVICE, Server};
use crate::common::dig::addresses;
use crate::common::{local, wait_for};

const ZONE: &str = "\
$TTL 7
@ SOA ns1 hostmaster 1 7200 900 1209600 300
@ NS ns1
ns1 A 192.0.2.1
";

/// Serves the zone `elb.test`.
fn cloud(records: &str) -> Server {
    let demo = Demo::new();
    fs::write(demo.path().join("zones/elb.test.zone"), format!("{ZONE}{records}")).expect("the folder is ours");
    let zone = "zones:\n  - {name: elb.test, schema: static, file: ../zones/elb.test.zone}";
    demo.edit_config("zones:", zone);
    Server::start(demo, &[])
}

/// The demo, which asks there.
fn demo_of(cloud: &Server) -> Demo {
    let demo = Demo::new();
    let resolvers = format!("resolvers: [\"{}\"]\n", local(cloud.ports.external));
    demo.write_config(&format!("{}{resolvers}", demo.read_config()));
    demo
}

#[test]
fn clients_are_told_the_names_where_the_zone_says_so() {
    let cloud = cloud("lb A 104.197.74.78\n");
    let demo = demo_of(&cloud);
    demo.edit_config("    ttl: 180\n", "    ttl: 180\n    hostnames: cname\n    externalMode: ordered\n");
    for (number, address) in (1..).zip(EXTERNAL) {
        let path = demo.manifest(number, "my-service.yaml");
        let manifest = fs::read_to_string(&path).expect("the demo is there");
        let ingress = if number == 2 { "- hostname: LB.elb.test.\n    - hostname: lb-2.elb.test\n" } else { "" };
        let text = manifest.replace(&format!("- ip: {address}\n"), ingress).replace("      ipMode: VIP\n", "");
        let text = if ingress.is_empty() { text.replace("ingress:", "ingress: []") } else { text };
        fs::write(&path, text).expect("the folder is ours");
    }
    let server = Server::start(demo, &[]);
    let dig = server.external();
    let mut told = BTreeSet::new();
    wait_for("both names", DEADLINE, || {
        let reply = dig.ask(SERVICE, "A")?;
        let [record] = &reply.answer[..] else { return Err(format!("{reply:?}")) };
        let words: Vec<&str> = record.split_whitespace().collect();
        assert_eq!(words[1..4], ["180", "IN", "CNAME"], "{record}");
        told.insert(words[4].to_owned());
        let both = ["lb-2.elb.test.", "lb.elb.test."].map(str::to_owned).into();
        if told == both { Ok(()) } else { Err(format!("{told:?}")) }
    });
}

#[test]
fn names_are_answered_with_addresses() {
    let cloud = cloud("lb CNAME lb-1\nlb-1 A 104.197.74.78\nlb-1 A 104.197.74.79\ninside A 10.1.2.3\n");
    let demo = demo_of(&cloud);
    let path = demo.manifest(2, "my-service.yaml");
    let manifest = fs::read_to_string(&path).expect("the demo is there");
    let named = |entries: &str| {
        let text = manifest.replace(&format!("- ip: {}\n", EXTERNAL[1]), entries);
        let text = text.replace("      ipMode: VIP\n", "");
        assert!(!text.contains(EXTERNAL[1]), "{text}");
        fs::write(&path, text).expect("the folder is ours");
    };
    named("- hostname: LB.elb.test.\n");
    let server = Server::start(demo, &[]);
    let expect = |list: &[&str]| {
        let mut expected = addresses(list);
        expected.sort_unstable();
        wait_for(&format!("{list:?}"), DEADLINE, || {
            let seen = server.external().address_set(SERVICE, "A")?;
            if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    };
    let [one, _, three] = EXTERNAL;
    expect(&[one, "104.197.74.78", "104.197.74.79", three]);
    // The addresses may change after 7 s.
    let reply = server.external().ask(SERVICE, "A").expect("an answer");
    assert!(reply.answer.iter().all(|record| record.contains(" 7 IN ") || record.contains("\t7\tIN")), "{reply:?}");

    // They do.
    let zone = cloud.demo.path().join("zones/elb.test.zone");
    fs::write(&zone, format!("{ZONE}lb A 104.197.74.80\n")).expect("the folder is ours");
    cloud.process.signal(Signal::HUP);
    expect(&[one, "104.197.74.80", three]);
    // A name that is gone, a resolver that is away: the last address stays.
    fs::write(&zone, ZONE).expect("the folder is ours");
    cloud.process.signal(Signal::HUP);
    wait_for("a warning", DEADLINE, || server.log_has(&["lb.elb.test", "cannot be resolved", "last addresses stay"]));
    expect(&[one, "104.197.74.80", three]);
    wait_for("counted", DEADLINE, || match server.metric("signpost_hostnames_unresolved") {
        1.0 => Ok(()),
        count => Err(format!("{count}")),
    });

    // What a name leads to is published by the same rules as an address; with one beside it both are.
    fs::write(&zone, format!("{ZONE}inside A 10.1.2.3\nmixed A 104.197.74.81\n")).expect("the folder is ours");
    cloud.process.signal(Signal::HUP);
    named("- hostname: inside.elb.test\n    - hostname: mixed.elb.test\n    - ip: 104.197.74.90\n");
    expect(&[one, "104.197.74.90", "104.197.74.81", three]);
    wait_for("a warning", DEADLINE, || server.log_has(&["10.1.2.3", "special-purpose"]));
    // Names of ours would lead to ourselves.
    named(&format!("- hostname: {SERVICE}\n    - ip: 104.197.74.90\n"));
    expect(&[one, "104.197.74.90", three]);
    wait_for("a warning", DEADLINE, || server.log_has(&[SERVICE, "zone of our own"]));
}
