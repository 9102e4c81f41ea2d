//! A small federation, and questions and answers written as people write them.

use signpost::config::Config;
use signpost::model::{ClusterAddress, ClusterId, Exposure, Pod, Share, View};

use super::ask::{Ask, type_number};
use super::{World, ZONE, ZONE_FILE, addresses, cluster, config, key, label, load_balancer, port};

pub const EXTERNAL: View = View::External;
pub const C0: View = View::Internal(ClusterId(0));
pub const C1: View = View::Internal(ClusterId(1));

/// The SOA of `ZONE_FILE` as negative answers carry it.
pub fn soa(ttl: u32) -> String {
    format!("authority example.com. {ttl} SOA ns1.example.com. hostmaster.example.com. 1 7200 900 1209600 30")
}

/// Expected texts name the SOA by what it says: `@nodata` (30 s) and `@negative` (5 s).
pub fn expected(text: &str) -> String {
    let lines = text.trim().lines().map(|line| match line.trim() {
        "@nodata" => soa(30),
        "@negative" => soa(5),
        other => other.replace('@', "example.com."),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// `name TYPE`; the name is relative to example.com unless it ends in a dot.
pub fn question(text: &str) -> Ask {
    let (name, rtype) = text.split_once(' ').expect("a name and a type");
    let name = match name {
        "@" => ZONE.to_owned(),
        name if name.ends_with('.') => name.to_owned(),
        name => format!("{name}.{ZONE}"),
    };
    Ask::new(&name, type_number(rtype))
}

pub fn cluster_only(cluster: u16, address: &str) -> Share {
    Share { exposure: Exposure::ClusterOnly, ingress: vec![], ..load_balancer(cluster, address, &[]) }
}

pub fn headless(cluster: u16, pods: &[(&str, &[&str])]) -> Share {
    let pods: Vec<Pod> = pods
        .iter()
        .map(|(hostname, list)| Pod {
            hostname: label(hostname),
            addresses: addresses(list),
            ports: vec![port("client", 2379)],
        })
        .collect();
    Share {
        exposure: Exposure::ClusterOnly,
        cluster_address: ClusterAddress::Headless,
        ports: vec![port("client", 2379)],
        ready: !pods.is_empty(),
        pods,
        ..load_balancer(cluster, "10.0.0.1", &[])
    }
}

pub fn clusters() -> Config {
    config(vec![cluster("c0", "r0"), cluster("c1", "r0"), cluster("c2", "r1")])
}

/// `svc.ns` in two clusters, `own.private` in one, `db.ns` headless.
pub fn world(statics: &str) -> World {
    let mut world = World::new(clusters(), &format!("{ZONE_FILE}{statics}")).synced();
    world.publish(
        key("ns", "svc"),
        vec![load_balancer(0, "10.0.0.1", &["104.0.0.1"]), load_balancer(1, "10.1.0.1", &["104.0.1.1"])],
    );
    world.publish(key("private", "own"), vec![cluster_only(1, "10.1.0.2")]);
    world.publish(key("ns", "db"), vec![headless(0, &[("db-0", &["10.10.0.1"]), ("db-1", &["10.10.0.2"])])]);
    world
}

/// 255 octets in wire form.
pub fn longest_name() -> String {
    let label = "x".repeat(63);
    format!("{label}.{label}.{label}.{}.{ZONE}", "x".repeat(49))
}
