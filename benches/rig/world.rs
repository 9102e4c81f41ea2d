//! The data: manifests and configuration for Signpost, a zone file with the same names for all others.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::places::{self, REGIONS};
use super::questions::{CLUSTERS, PORT, SERVICES, ZONE, in_cluster, ingress, namespace, service};

/// Objects in one manifest file.
const PER_FILE: u32 = 500;
/// Octets of a server's receive buffer, for all servers that let themselves be told.
pub const RECEIVE_BUFFER: u32 = 4 << 20;
/// Of `_peer._tcp`, which nobody asks for.
const PEER_PORT: u16 = 2380;

fn apex() -> String {
    format!("$ORIGIN {ZONE}.\n$TTL 3600\n@ SOA ns1 hostmaster 1 3600 600 86400 180\n@ NS ns1\nns1 A 127.0.0.1\n")
}

/// What Signpost makes of the manifests, as a zone file (RFC 1035).
pub fn zone_file() -> String {
    zone(|name, number| (0..CLUSTERS).map(|cluster| format!("{name} A {}\n", ingress(cluster, number))).collect())
}

/// The same for gdnsd, whose plugin geoip has a resource for each service and answers for the services' own names.
pub fn zone_file_by_place() -> String {
    zone(|name, number| format!("{name} DYNA geoip!{}\n", service(number)))
}

/// `addresses`: of a service in all clusters, by its name in the zone and its number.
fn zone(addresses: impl Fn(&str, u32) -> String) -> String {
    let mut text = apex();
    text.push_str("$TTL 180\n");
    for number in 0..SERVICES {
        let name = format!("{}.{}", service(number), namespace(number));
        text += &addresses(&name, number);
        for cluster in 0..CLUSTERS {
            let (target, address) = (in_cluster(cluster, number), ingress(cluster, number));
            write!(
                text,
                "{target} A {address}\n_client._tcp.{name} SRV 0 100 {PORT} {target}\n\
                 _peer._tcp.{name} SRV 0 100 {PEER_PORT} {target}\n"
            )
            .expect("a String grows");
        }
    }
    text
}

/// Zone, manifests and configuration; returns the configuration's path.
pub fn write_signpost(
    directory: &Path,
    address: SocketAddr,
    admin: SocketAddr,
    workers: usize,
    places: u32,
    load: bool,
) -> io::Result<PathBuf> {
    fs::write(directory.join("zone"), apex())?;
    let location = if places == 0 { "{}" } else { "{places: [{file: places}]}" };
    if places > 0 {
        let line = |place: places::Place| format!("{} {}\n", place.prefix, place.region);
        fs::write(directory.join("places"), places::places(places).map(line).collect::<String>())?;
    }
    // With all bands, answers are as long as without places.
    let mut config = format!(
        "zones: [{{name: {ZONE}, file: zone, ttl: 180, externalMode: ordered}}]
location: {location}
listeners: [{{addresses: ['{address}'], view: external}}]
admin: {{address: '{admin}'}}
limits: {{udpWorkers: {workers}, udpReceiveBuffer: {RECEIVE_BUFFER}}}
clusters:
"
    );
    for cluster in 0..CLUSTERS {
        let region = REGIONS[cluster as usize];
        writeln!(config, "- {{name: cluster-{cluster}, manifests: cluster-{cluster}, region: {region}}}")
            .expect("a String grows");
        let manifests = directory.join(format!("cluster-{cluster}"));
        fs::create_dir(&manifests)?;
        for first in (0..SERVICES).step_by(PER_FILE as usize) {
            let mut text = String::new();
            let load = load && cluster == 0;
            (first..SERVICES.min(first + PER_FILE)).for_each(|number| write_service(&mut text, cluster, number, load));
            fs::write(manifests.join(format!("services-{first:05}.yaml")), text)?;
        }
    }
    let path = directory.join("signpost.yaml");
    fs::write(&path, config)?;
    Ok(path)
}

/// Without a selector and without slices, it counts as ready.
fn write_service(out: &mut String, cluster: u32, number: u32, load: bool) {
    let [.., high, low] = number.to_be_bytes();
    write!(
        out,
        "---
apiVersion: v1
kind: Service
metadata: {{name: {}, namespace: {}{}}}
spec:
  type: LoadBalancer
  clusterIP: 10.96.{high}.{low}
  ports: [{{name: client, port: {PORT}, protocol: TCP}}, {{name: peer, port: {PEER_PORT}, protocol: TCP}}]
status: {{loadBalancer: {{ingress: [{{ip: {}}}]}}}}
",
        service(number),
        namespace(number),
        if load { ", annotations: {signpost.dev/load: '0.9'}" } else { "" },
        ingress(cluster, number),
    )
    .expect("a String grows");
}
