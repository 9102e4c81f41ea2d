//! A hostile cluster cannot change one octet of the answers for names that it may not export, whatever it says; and of what it
//! may export, nothing is told that nobody should be sent to.

mod support;

use std::net::IpAddr;

use hickory_proto::op::Message;
use hickory_proto::rr::{RData, Record};
use proptest::prelude::*;
use proptest::test_runner::Config as Cases;
use serde_json::{Value, json};
use signpost::app::new_index;
use signpost::config::{Cluster, Config, Export, IngressRanges, Namespaces};
use signpost::index::{Index, Kind, Update};
use signpost::model::{ClusterId, Moment, View};
use signpost::source::convert::{self, Converted};
use signpost::source::slim;
use support::ask::Ask;
use support::*;

/// The only namespace that the hostile cluster may export.
const OWN: &str = "evil";
const EVIL: ClusterId = ClusterId(2);
/// Most objects of a kind that it may have.
const LIMIT: u32 = 500;

const STATICS: &str = "www A 192.0.2.80\n_dmarc TXT policy\nstatic.shop A 192.0.2.81\n*.wild A 192.0.2.82\n";

fn config() -> Config {
    let exporting = |name: &str, region: &str, namespaces: Namespaces| Cluster {
        namespaces,
        export: Export::All,
        ingress: IngressRanges { everywhere: vec!["10.77.0.0/16".parse().unwrap()], ..IngressRanges::default() },
        ..cluster(name, region)
    };
    let only = Namespaces::Only(vec![label(OWN)]);
    let clusters = vec![
        exporting("good-1", "r1", Namespaces::All),
        exporting("good-2", "r2", Namespaces::All),
        exporting("evil", "r1", only),
    ];
    let mut config = support::config(clusters);
    config.limits.objects_per_cluster = LIMIT;
    config
}

/// What the honest clusters have.
fn honest(cluster: usize) -> Vec<(Kind, Value)> {
    let service = |name: &str, spec: Value, ingress: &str| {
        let metadata = json!({"name": name, "namespace": "shop"});
        let status = json!({"loadBalancer": {"ingress": [{"ip": ingress}]}});
        (Kind::Service, json!({"metadata": metadata, "spec": spec, "status": status}))
    };
    let ports =
        json!([{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let balanced = json!({"type": "LoadBalancer", "clusterIP": format!("10.{cluster}.0.1"), "ports": ports});
    let inner = json!({"type": "ClusterIP", "clusterIP": format!("10.{cluster}.0.2"), "ports": [{"port": 80}]});
    let headless = json!({"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"name": "sql", "port": 5432}]});
    let slice = json!({
        "metadata": {"name": "db-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [format!("10.{cluster}.1.1")], "hostname": "db-0", "conditions": {"ready": true}}],
        "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
    });
    vec![
        service("web", balanced, &format!("104.0.{cluster}.1")),
        service("inner", inner, "104.0.9.9"),
        service("db", headless, "104.0.9.9"),
        (Kind::EndpointSlice, slice),
    ]
}

struct Federation {
    world: World,
    index: Index,
    config: Config,
    refused: usize,
}

impl Federation {
    /// The honest clusters; the third one was heard and has nothing.
    fn new() -> Federation {
        let config = config();
        let world = World::new(config.clone(), &format!("{ZONE_FILE}{STATICS}")).synced();
        let mut federation = Federation { world, index: new_index(&config), config, refused: 0 };
        for id in 0..3 {
            for kind in [Kind::Service, Kind::EndpointSlice] {
                federation.apply(ClusterId(id), Update::Reset { kind, objects: vec![], keep: vec![] });
            }
        }
        for cluster in 0..2 {
            for (kind, object) in honest(usize::from(cluster)) {
                assert!(federation.say(ClusterId(cluster), kind, object.to_string().as_bytes()), "{object}");
            }
        }
        federation
    }

    fn apply(&mut self, cluster: ClusterId, update: Update) {
        let changes = self.index.apply(cluster, update, Moment::default());
        self.refused += usize::from(changes.refused.is_some());
        for key in changes.services {
            self.world.publisher.publish(&key, self.index.service(&key).as_ref());
        }
    }

    /// An object as an API server sends it, by the way that both kinds of sources go. False: it comes to nothing.
    fn say(&mut self, id: ClusterId, kind: Kind, json: &[u8]) -> bool {
        let cluster = self.config.cluster(id);
        let converted = match kind {
            Kind::Service => slim::from_json(json).map(|raw| convert::service(raw, cluster)),
            Kind::EndpointSlice => slim::from_json(json).map(|raw| convert::slice(raw, cluster)),
            Kind::ServiceExport => slim::from_json(json).map(|raw| convert::service_export(raw, cluster)),
            Kind::ServiceImport => slim::from_json(json).map(|raw| convert::service_import(raw, cluster)),
            Kind::ServiceLoad => slim::from_json(json).map(|raw| convert::service_load(raw, cluster)),
            Kind::ClusterLoad => slim::from_json(json).map(|raw| convert::cluster_load(raw, cluster)),
            Kind::Lease => slim::from_json(json).map(|raw| convert::heartbeat(raw, cluster)),
            Kind::HealthReport => slim::from_json(json).map(|raw| convert::health_report(raw, cluster)),
            Kind::Directive => slim::from_json(json).map(|raw| convert::directive(raw, cluster)),
        };
        match converted.unwrap_or_else(|error| convert::undecodable(*error, cluster)) {
            Converted::Object { object, .. } => self.apply(id, Update::Apply(object)),
            Converted::NotExported(key) | Converted::Ignored(key) => self.apply(id, Update::Delete(kind, key)),
            Converted::Malformed { .. } => return false,
        }
        true
    }

    fn answer(&mut self, view: View, ask: &Ask) -> Vec<u8> {
        self.world.exchange(view, ask.transport, &ask.to_vec()).expect("an answer").0
    }
}

/// Names of others, and of nobody.
fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "@",
        "shop",
        "web.shop",
        "inner.shop",
        "db.shop",
        "none.shop",
        "none.nowhere",
        "nowhere",
        "www",
        "_dmarc",
        "ns1",
        "static.shop",
        "a.wild",
        "b.a.wild",
        "wild",
        "kube-system",
        "kubernetes.default",
        "cluster-1.web.shop",
        "_http._tcp.web.shop",
        "_dns._udp.web.shop",
        "_sql._tcp.db.shop",
        "_evil._tcp.web.shop",
        "_tcp.web.shop",
        "db-0.good-1.db.shop",
        "db-0.good-2.db.shop",
        "db-0.evil.db.shop",
        "evil-pod.good-1.db.shop",
    ]
    .map(str::to_owned)
    .into();
    for service in ["web.shop", "inner.shop", "db.shop"] {
        names.extend(["good-1", "good-2", "evil"].map(|cluster| format!("{cluster}.{service}")));
    }
    names
}

fn asks() -> Vec<Ask> {
    let types = [1, 28, 33, 16, 2, 6, 5, 255];
    let mut asks = Vec::new();
    for name in names() {
        let name = if name == "@" { ZONE.to_owned() } else { format!("{name}.{ZONE}") };
        for rtype in types {
            asks.push(Ask::new(&name, rtype).edns(1232));
            asks.push(Ask::new(&name, rtype).tcp());
        }
    }
    asks
}

fn views() -> [View; 4] {
    [View::External, View::Internal(ClusterId(0)), View::Internal(ClusterId(1)), View::Internal(EVIL)]
}

/// Both were asked the same before, so that what is by chance is the same too.
fn same_answers(calm: &mut Federation, harmed: &mut Federation) -> Result<(), String> {
    for ask in asks() {
        for view in views() {
            let (before, after) = (calm.answer(view, &ask), harmed.answer(view, &ask));
            if before != after {
                let text = |octets: &[u8]| Message::from_vec(octets).map(|m| m.to_string()).unwrap_or_default();
                return Err(format!("{ask:?} as {view:?}:\n{}\n\n{}", text(&before), text(&after)));
            }
        }
    }
    Ok(())
}

/// What it may say is told by the rules: never an address that leads nowhere, and special-purpose ones only where declared.
fn own_answers(federation: &mut Federation, names: &[String]) -> Result<(), String> {
    for name in names {
        for prefix in ["", "evil.", "_http._tcp.", "pod.evil."] {
            let wire = format!("{prefix}{name}.{OWN}.{ZONE}");
            for (view, rtype) in views().into_iter().flat_map(|view| [1, 28, 33].map(|rtype| (view, rtype))) {
                let ask = Ask::new(&wire, rtype).tcp();
                if wire.split('.').any(|label| label.len() > 63) || wire.len() > 250 {
                    continue;
                }
                let octets = federation.answer(view, &ask);
                let message = Message::from_vec(&octets).map_err(|error| format!("{wire}: {error}"))?;
                for record in message.answers.iter().chain(&message.additionals) {
                    check(view, record).map_err(|complaint| format!("{wire} as {view:?}: {complaint}"))?;
                }
            }
        }
    }
    Ok(())
}

fn check(view: View, record: &Record) -> Result<(), String> {
    let address = match &record.data {
        RData::A(a) => IpAddr::V4(a.0),
        RData::AAAA(a) => IpAddr::V6(a.0),
        _ => return Ok(()),
    };
    let never = match address {
        IpAddr::V4(a) => {
            a.is_unspecified() || a.is_loopback() || a.is_link_local() || a.is_multicast() || a.is_broadcast()
        }
        IpAddr::V6(a) => {
            let link_local = a.segments()[0] & 0xFFC0 == 0xFE80;
            a.is_unspecified() || a.is_loopback() || a.is_multicast() || link_local || a.to_ipv4_mapped().is_some()
        }
    };
    let declared = "10.77.0.0/16".parse::<ipnet::IpNet>().expect("a CIDR").contains(&address);
    let special = signpost::location::is_special_purpose(address) && !declared;
    // Its own clients may have its own clusterIPs and pods.
    if never || special && view != View::Internal(EVIL) { Err(format!("is told {address}")) } else { Ok(()) }
}

const ADDRESSES: [&str; 24] = [
    "127.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.1",
    "169.254.169.254",
    "10.0.0.1",
    "10.0.1.1",
    "10.1.0.1",
    "10.77.0.9",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "240.0.0.1",
    "104.0.0.1",
    "8.8.8.8",
    "::",
    "::1",
    "fe80::1",
    "ff02::1",
    "fd00::1",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
];
const NAMESPACES: [&str; 12] =
    [OWN, "shop", "default", "kube-system", "EVIL", "evil.shop", "", "ns1", "www", "wild", "shop\u{0}", "evil\n"];
const NAMES: [&str; 20] = [
    "web",
    "db",
    "inner",
    "good-1",
    "evil",
    "_http",
    "_tcp",
    "*",
    "web.shop",
    "WEB",
    "a\u{0}b",
    "..",
    "-",
    "",
    "xn--web",
    "static",
    "ns1",
    "a b",
    "\u{2603}",
    "web\\.shop",
];

fn object(kind: Kind, namespace: &str, name: &str, address: &str, odd: usize) -> Value {
    let long = "x".repeat(300);
    let cluster_ip = if odd == 2 { "None" } else { address };
    let types = ["LoadBalancer", "ClusterIP", "ExternalName", "loadbalancer"];
    let name = if odd == 7 { long.as_str() } else { name };
    match kind {
        Kind::Service => {
            let entries = if odd == 1 { 10_000 } else { 2 };
            let ingress: Vec<Value> =
                (0..entries).map(|_| json!({"ip": address, "hostname": "web.shop.example.com"})).collect();
            json!({
                "metadata": {
                    "name": name, "namespace": namespace, "uid": "1", "resourceVersion": "1",
                    "labels": {"kubernetes.io/service-name": "web"},
                    "annotations": {
                        "signpost.dev/export": "true", "signpost.dev/weight": "65535", "signpost.dev/ttl": "1",
                        "signpost.dev/load": "NaN", "signpost.dev/address": address, "signpost.dev/zone": "example.com",
                    },
                },
                "spec": {
                    "type": types[odd % 4],
                    "clusterIP": cluster_ip,
                    "clusterIPs": [cluster_ip],
                    "externalName": "web.shop.example.com",
                    "externalIPs": [address],
                    "ports": [{"name": if odd == 3 { "_http" } else { "http" }, "port": if odd == 4 { 0 } else { 80 }}],
                },
                "status": {"loadBalancer": {"ingress": if odd == 5 { json!("all") } else { json!(ingress) }}},
            })
        }
        Kind::ServiceExport => json!({
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": "0000-00-00T00:00:00Z"},
        }),
        Kind::ServiceImport => json!({
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"type": "ClusterSetIP", "ips": [address], "ports": [{"name": "http", "port": odd}]},
        }),
        Kind::ServiceLoad | Kind::ClusterLoad => json!({
            "metadata": {"name": if odd == 1 { "cluster" } else { name }, "namespace": namespace},
            "spec": {"load": if odd == 2 { json!("NaN") } else { json!(1) }, "validForSeconds": odd},
        }),
        Kind::Lease => json!({
            "metadata": {
                "name": name, "namespace": namespace,
                "annotations": {
                    "signpost.dev/incarnation": if odd == 1 { "x" } else { "0000000000000001" },
                    "signpost.dev/beat": "ffffffffffffffff", "signpost.dev/generations": "1,".repeat(odd),
                },
            },
        }),
        Kind::HealthReport => json!({
            "metadata": {"name": format!("{name}.{odd}"), "namespace": namespace},
            "data": {"report.json": json!({
                "version": odd, "incarnation": "0000000000000001", "electorate": "0000000000000001",
                "down": {"c0": [format!("{address}:80")]},
            }).to_string()},
        }),
        Kind::Directive => json!({
            "metadata": {"name": name, "namespace": namespace},
            "data": {"action": "force-down", "service": "shop/web", "until": if odd == 1 { "never" } else { "9999-01-01T00:00:00Z" }},
        }),
        Kind::EndpointSlice => json!({
            "metadata": {
                "name": format!("{name}-1"), "namespace": namespace,
                "labels": {"kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "evil"},
            },
            "addressType": if address.contains(':') { "IPv6" } else { "IPv4" },
            "endpoints": [
                {"addresses": [address], "hostname": if odd == 3 { "db-0" } else { "pod" }, "conditions": {"ready": true}},
                {"addresses": [address], "targetRef": {"kind": "Pod", "name": "db-0", "namespace": "shop"}},
            ],
            "ports": [{"name": "http", "port": if odd == 4 { 70_000 } else { 80 }, "protocol": "TCP"}],
        }),
    }
}

/// All that it can say and that names depend on.
const KINDS: [Kind; 4] = [Kind::Service, Kind::EndpointSlice, Kind::ServiceExport, Kind::ServiceImport];

#[test]
fn whatever_it_says_others_names_stay_as_they_are() {
    let (mut calm, mut harmed) = (Federation::new(), Federation::new());
    let mut said = 0;
    for kind in KINDS {
        for (n, namespace) in NAMESPACES.iter().enumerate() {
            for (m, name) in NAMES.iter().enumerate() {
                for odd in 0..8 {
                    let address = ADDRESSES[(n + 3 * m + 5 * odd) % ADDRESSES.len()];
                    let object = object(kind, namespace, name, address, odd).to_string();
                    harmed.say(EVIL, kind, object.as_bytes());
                    // Cut off, and with another octet.
                    harmed.say(EVIL, kind, &object.as_bytes()[..object.len() / 2]);
                    said += 1;
                }
                // What is good in itself comes last, so that it stays.
                harmed.say(EVIL, kind, object(kind, namespace, name, "8.8.8.8", 0).to_string().as_bytes());
            }
        }
    }
    assert!(said > 3_000);
    same_answers(&mut calm, &mut harmed).unwrap_or_else(|difference| panic!("{difference}"));
    own_answers(&mut harmed, &NAMES.map(str::to_owned)).unwrap_or_else(|complaint| panic!("{complaint}"));

    // What is no object at all.
    for text in ["", "null", "[]", "{}", "{\"metadata\": null}", "{\"metadata\": {\"name\": 5}}", "\u{0}", "{\"a\":"] {
        for kind in KINDS {
            harmed.say(EVIL, kind, text.as_bytes());
        }
    }
    same_answers(&mut calm, &mut harmed).unwrap_or_else(|difference| panic!("{difference}"));

    // That all of it is deleted, what others have too; and a list of nothing.
    for kind in KINDS {
        for (namespace, name) in NAMESPACES.iter().flat_map(|namespace| NAMES.map(|name| (*namespace, name))) {
            let key = signpost::index::ObjectKey { namespace: namespace.into(), name: name.into() };
            harmed.apply(EVIL, Update::Delete(kind, key));
        }
        harmed.apply(EVIL, Update::Reset { kind, objects: vec![], keep: vec![] });
    }
    same_answers(&mut calm, &mut harmed).unwrap_or_else(|difference| panic!("{difference}"));
}

/// More objects than it may have are refused, and counted; those that are there can still change.
#[test]
fn it_has_no_more_room_than_it_is_given() {
    let (mut calm, mut harmed) = (Federation::new(), Federation::new());
    for n in 0..2 * LIMIT {
        let name = format!("svc-{n}");
        assert!(harmed.say(
            EVIL,
            Kind::Service,
            object(Kind::Service, OWN, &name, "104.9.9.9", 0).to_string().as_bytes()
        ));
    }
    assert_eq!(harmed.refused, LIMIT as usize);
    assert_eq!(harmed.index.counts(EVIL).0, LIMIT as usize);
    let changed = object(Kind::Service, OWN, "svc-1", "104.9.9.8", 0).to_string();
    assert!(harmed.say(EVIL, Kind::Service, changed.as_bytes()));
    assert_eq!(harmed.refused, LIMIT as usize);
    same_answers(&mut calm, &mut harmed).unwrap_or_else(|difference| panic!("{difference}"));
    let message = harmed.world.ask(View::External, &format!("svc-1.{OWN}.{ZONE}"), hickory_proto::rr::RecordType::A);
    assert_eq!(message.answers.len(), 1);
}

/// JSON of any shape in the fields that are read.
fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        prop::sample::select(&ADDRESSES[..]).prop_map(Value::from),
        prop::sample::select(&NAMES[..]).prop_map(Value::from),
        prop::collection::vec(prop::sample::select(&ADDRESSES[..]).prop_map(Value::from), 0..4).prop_map(Value::from),
    ]
}

proptest! {
    #![proptest_config(Cases { cases: 12, ..Cases::default() })]

    #[test]
    fn nor_by_chance(
        objects in prop::collection::vec(
            (any::<bool>(), 0..NAMESPACES.len(), 0..NAMES.len(), 0..ADDRESSES.len(), 0..8usize, 0..14usize, values()),
            1..60,
        ),
    ) {
        let (mut calm, mut harmed) = (Federation::new(), Federation::new());
        for (is_service, namespace, name, address, odd, field, value) in objects {
            let kind = if is_service { Kind::Service } else { Kind::EndpointSlice };
            let mut object = object(kind, NAMESPACES[namespace], NAMES[name], ADDRESSES[address], odd);
            const FIELDS: [&str; 14] = [
                "/metadata/name", "/metadata/namespace", "/metadata/labels", "/metadata/annotations", "/spec/type",
                "/spec/clusterIP", "/spec/clusterIPs", "/spec/ports", "/status/loadBalancer/ingress", "/addressType",
                "/endpoints", "/endpoints/0/addresses", "/endpoints/0/hostname", "/ports",
            ];
            if let Some(place) = object.pointer_mut(FIELDS[field]) {
                *place = value;
            }
            harmed.say(EVIL, kind, object.to_string().as_bytes());
        }
        if let Err(difference) = same_answers(&mut calm, &mut harmed) {
            prop_assert!(false, "{}", difference);
        }
        if let Err(complaint) = own_answers(&mut harmed, &NAMES.map(str::to_owned)) {
            prop_assert!(false, "{}", complaint);
        }
    }
}
