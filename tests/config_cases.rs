//! Configurations and what is said about them: `tests/config_cases.txt`, the shipped files, and the limits.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use signpost::config::{
    ClusterSecrets, Config, Database, Export, Families, Hostnames, Identity, IngressRanges, Limits, Location, Mode,
    Namespaces, Places, Schema, Service, Source, Zone,
};
use signpost::location::Coordinates;
use signpost::model::{AvailabilityZone, ClusterId, Label, Region, ServiceKey, View, ViewRule};

/// A directory with what the cases name: a zone file, manifests, a kubeconfig.
struct World(tempfile::TempDir);

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for directory in ["m1", "m2", "m3"] {
            fs::create_dir(dir.path().join(directory)).expect("a new directory");
        }
        for file in ["z.zone", "kubeconfig", "x.places", "x.mmdb"] {
            fs::write(dir.path().join(file), "").expect("a new file");
        }
        World(dir)
    }

    /// `ok`, or the problems, with `DIR` for the directory.
    fn load(&self, octets: &[u8]) -> String {
        let path = self.0.path().join("c.yaml");
        fs::write(&path, octets).expect("a new file");
        match Config::load(&path) {
            Ok(_) => "ok".to_owned(),
            Err(errors) => {
                let directory = self.0.path().to_str().expect("a UTF-8 path");
                let shown = errors.to_string();
                shown.replace(&format!("{directory}/c.yaml:"), "").replace(directory, "DIR")
            }
        }
    }

    fn config(&self, text: &str) -> Config {
        let path = self.0.path().join("c.yaml");
        fs::write(&path, text).expect("a new file");
        Config::load(&path).unwrap_or_else(|errors| panic!("{errors}"))
    }
}

const ZONES: &str = "zones: [{name: a.example, file: z.zone}]";
const CLUSTERS: &str = "clusters: [{name: c1, manifests: m1}, {name: c2, manifests: m2}]";
const LISTENERS: &str = "listeners: [{addresses: [\"127.0.0.1:53\"]}]";

fn expand(text: &str) -> String {
    text.replace("@zones", ZONES).replace("@clusters", CLUSTERS).replace("@listeners", LISTENERS)
}

/// Every case whose outcome is not the expected one is shown as it would have to be written.
#[test]
fn cases() {
    let world = World::new();
    let text = include_str!("config_cases.txt");
    let (_, cases) = text.split_once("=== ").expect("cases");
    let mut wrong = String::new();
    let mut count = 0;
    for case in cases.split("\n=== ") {
        let (name, rest) = case.split_once('\n').expect("a name");
        let (yaml, expected) = rest.split_once("=>\n").expect("an expectation");
        let got = world.load(expand(yaml).as_bytes());
        if got != expected.trim_end() {
            write!(wrong, "\n=== {name}\n{yaml}=>\n{got}\n").expect("a string takes everything");
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count > 60, "only {count} cases were found");
}

#[test]
fn octets_that_are_no_text() {
    let world = World::new();
    assert_eq!(world.load(b"zones: []\nadmin: \xc3\xa9\xff\n"), "2:9: this is not UTF-8");
    let mut large = expand("@zones\n@clusters\n@listeners\n").into_bytes();
    large.resize(1 << 20, b'#');
    assert_eq!(world.load(&large), "ok");
    large.push(b'#');
    assert_eq!(world.load(&large), " is larger than 1048576 octets, which no configuration needs");
}

proptest::proptest! {
    /// Whatever is done to the demo, the outcome is a configuration or one line for each problem.
    #[test]
    fn damaged_files(at in 0.0..1.0f64, cut in 0usize..40, put in "[-:,&*!|>'\"\\[\\]{}#%@ \t\n~a0ä\u{0}]{0,6}") {
        let world = World::new();
        let text = fs::read_to_string(shipped("demo.yaml")).expect("config/demo.yaml");
        let mut octets = text.into_bytes();
        let start = (octets.len() as f64 * at) as usize;
        let end = (start + cut).min(octets.len());
        octets.splice(start..end, put.into_bytes());
        let shown = world.load(&octets);
        proptest::prop_assert!(!shown.is_empty() && !shown.contains(|c: char| c.is_control() && c != '\n'), "{}", shown);
        proptest::prop_assert!(shown.lines().all(|line| line == "ok" || line.contains(' ')), "{}", shown);
    }
}

#[test]
fn a_file_that_is_not_there() {
    let world = World::new();
    for (path, expected) in [("none.yaml", "No such file or directory"), ("m1", "Is a directory")] {
        let path = world.0.path().join(path);
        let errors = Config::load(&path).expect_err("there is no such file").to_string();
        assert!(errors.starts_with(&format!("{}: cannot be read: {expected}", path.display())), "{errors}");
    }
}

#[test]
fn limits_on_lists() {
    let world = World::new();
    let list = |n: usize, item: &dyn Fn(usize) -> String| (0..n).map(item).collect::<Vec<_>>().join(", ");
    let zones =
        |n| format!("zones: [{}]\n@clusters\n@listeners\n", list(n, &|i| format!("{{name: z{i}, file: z.zone}}")));
    assert_eq!(world.load(expand(&zones(256)).as_bytes()), "ok");
    assert_eq!(world.load(expand(&zones(257)).as_bytes()), "1:8: zones: 257 zones are too many: the limit is 256");

    // Each cluster has its own source, and each listener gives the view of another one.
    let clusters = |n: usize, views: usize| {
        let clusters = list(n, &|i| format!("{{name: c{i}, kubeconfig: {{file: kubeconfig, context: x{i}}}}}"));
        let listeners =
            list(views, &|i| format!("{{addresses: [\"127.0.0.1:{}\"], view: {{internal: c{i}}}}}", 1000 + i));
        expand(&format!("@zones\nclusters: [{clusters}]\nlisteners: [{listeners}]\n"))
    };
    assert_eq!(world.config(&clusters(1024, 254)).views().len(), 255);
    let many = world.load(clusters(1024, 255).as_bytes());
    assert_eq!(many, "3:12: listeners: 256 views in use are too many: the limit is 255");
    let many = world.load(clusters(1025, 1).as_bytes());
    assert_eq!(many, "2:11: clusters: 1025 clusters are too many: the limit is 1024");
    let many = world.load(clusters(600, 513).as_bytes());
    assert!(many.contains("listeners: 513 addresses of listeners are too many: the limit is 512"), "{many}");

    let cidrs = |n| {
        let cidrs = list(n, &|i| format!("10.0.{i}.0/24").replace("0.256.", "1.0."));
        expand(&format!("@zones\nclusters: [{{name: c1, manifests: m1, clientCidrs: [{cidrs}]}}]\n@listeners\n"))
    };
    assert_eq!(world.load(cidrs(256).as_bytes()), "ok");
    let many = world.load(cidrs(257).as_bytes());
    assert_eq!(many, "2:51: clusters[0].clientCidrs: 257 CIDRs are too many: the limit is 256");
}

#[test]
fn at_most_a_hundred_problems_are_shown() {
    let world = World::new();
    let addresses = vec!["x"; 150].join(", ");
    let shown =
        world.load(expand(&format!("@zones\n@clusters\nlisteners: [{{addresses: [{addresses}]}}]\n")).as_bytes());
    assert_eq!(shown.lines().count(), 101);
    assert_eq!(shown.lines().last(), Some(" and 50 more problems"));
}

#[test]
fn everything_written_arrives() {
    let world = World::new();
    let config = world.config(
        "zones:
  - {name: A.Example., schema: static, file: z.zone, ttl: 60, negativeTtl: 7, maxAnswers: 3, families: any,
    externalMode: single, internalMode: nearest, spare: 2}
  - name: b.example
    file: z.zone
    services:
      - {name: s, namespace: n, ttl: 9, maxAnswers: 2, externalMode: ordered, spare: 3, internalMode: nearest, hostnames: cname, addresses: [107.194.17.44, \"2600::1\"]}
      - {name: t, namespace: n}
clusters:
  - name: c1
    manifests: m1
    region: r1
    availabilityZones: [r1-a, r1-b]
    network: flat
    clientCidrs: [10.1.0.0/16, \"fd00:1::/32\"]
    ingressCidrs: [192.168.7.0/24]
    insideIngressCidrs: [192.168.8.0/24, \"fd00:8::/32\"]
    globalIngressCidrs: [104.16.0.0/13]
    export: annotated
    namespaces: [shop, app]
    weight: 7
  - {name: c2, kubeconfig: {file: kubeconfig, context: two}, export: all}
  - {name: c3, inCluster: true, clientCidrs: [10.3.0.0/16]}
clusterSecrets: {namespace: regs, kubeconfig: {file: kubeconfig}, localServers: true, export: all, namespaces: [shop, app],
  ingressCidrs: [10.9.0.0/16], insideIngressCidrs: [10.8.0.0/16], globalIngressCidrs: [], weight: 9}
directives: {namespace: ops}
listeners:
  - {addresses: [\"0.0.0.0:53\", \"[::]:53\"], view: bySource}
  - {addresses: [\"127.0.0.1:5300\"], view: {internal: c2}}
  - {addresses: [\"127.0.0.1:5301\"], clientSubnet: false}
location:
  regions: [{name: lab, latitude: 1.5, longitude: -2}]
  distances: [{between: [r1, lab], kilometers: 7}]
  places: [{region: lab, availabilityZone: lab-a, cidrs: [192.0.2.0/24]}, {file: x.places}]
  databases: [{file: x.mmdb, autonomousSystems: {\"64500\": r1}, countries: {US: lab}, continents: {EU: r1}}]
resolvers: [\"192.0.2.53:5353\"]
explainTo: [192.0.2.0/28, \"2001:db8::/64\"]
admin: off
identity: {version: '1', server: ns1}
limits: {udpWorkers: 3, udpReceiveBuffer: 65536, tcpConnections: 20, tcpIdle: 1500ms, tcpIdleInternal: 2m, syncWait: 0s,
  manifestSize: 2048, manifestFiles: 5, objectsPerCluster: 9, endpointsPerService: 8}
",
    );
    let dir = world.0.path();
    let zone = &config.zones[0];
    assert_eq!(zone.name.to_string(), "a.example.");
    assert_eq!((zone.schema, zone.families), (Schema::Static, Families::Any));
    assert_eq!((zone.ttl, zone.negative_ttl, zone.max_answers), (60, 7, 3));
    assert_eq!((zone.external_mode, zone.internal_mode), (Mode::Single, Mode::Nearest { spare: 2 }));
    assert_eq!(zone.file, dir.join("z.zone"));
    let services = &config.zones[1].services;
    let key = |name: &str| ServiceKey { namespace: Label::parse("n").unwrap(), name: Label::parse(name).unwrap() };
    let expected = Service {
        ttl: Some(9),
        max_answers: 2,
        external_mode: Mode::Ordered,
        internal_mode: Mode::Nearest { spare: 3 },
        hostnames: Hostnames::Cname,
        addresses: ["107.194.17.44", "2600::1"].map(|address| address.parse().unwrap()).into(),
    };
    assert_eq!(services[&key("s")], expected);
    let (external_mode, internal_mode) = (Mode::Nearest { spare: 0 }, Mode::Ordered);
    let usual = Service {
        ttl: None,
        max_answers: 8,
        external_mode,
        internal_mode,
        hostnames: Hostnames::Addresses,
        addresses: vec![],
    };
    assert_eq!(services[&key("t")], usual);
    assert_eq!(services.len(), 2);

    let [c1, c2, c3] = &config.clusters[..] else { panic!("three clusters") };
    assert_eq!(c1.source, Source::Manifests { directory: dir.join("m1") });
    assert_eq!(c1.region, Some(Region("r1".into())));
    assert_eq!(c1.availability_zones, ["r1-a", "r1-b"].map(|zone| AvailabilityZone(zone.into())));
    assert_eq!(c1.network.as_ref().map(|network| &*network.0), Some("flat"));
    assert_eq!(c1.client_cidrs, ["10.1.0.0/16", "fd00:1::/32"].map(|cidr| cidr.parse().unwrap()));
    let cidr = |text: &str| text.parse().unwrap();
    let ranges = IngressRanges {
        everywhere: vec![cidr("192.168.7.0/24")],
        inside: vec![cidr("192.168.8.0/24"), cidr("fd00:8::/32")],
        global: Some(vec![cidr("104.16.0.0/13")]),
    };
    assert_eq!(c1.ingress, ranges);
    assert_eq!(c2.ingress, IngressRanges::default());
    assert!(c1.namespaces.allow("shop") && c1.namespaces.allow("app") && !c1.namespaces.allow("kube-system"));
    assert_eq!(c2.source, Source::Kubeconfig { file: dir.join("kubeconfig"), context: Some("two".to_owned()) });
    assert_eq!(c3.source, Source::InCluster);
    assert_eq!([c1.export, c2.export, c3.export], [Export::Annotated, Export::All, Export::LoadBalancer]);
    assert_eq!(c3.namespaces, Namespaces::All);
    assert_eq!([c1.weight, c2.weight], [7, 100]);

    let label = |text: &str| Label::parse(text).unwrap();
    let expected = ClusterSecrets {
        source: Source::Kubeconfig { file: dir.join("kubeconfig"), context: None },
        namespace: label("regs"),
        local_servers: true,
        export: Export::All,
        namespaces: Namespaces::Only(vec![label("app"), label("shop")]),
        ingress: IngressRanges {
            everywhere: vec![cidr("10.9.0.0/16")],
            inside: vec![cidr("10.8.0.0/16")],
            global: Some(vec![]),
        },
        weight: 9,
        directives: Some(label("ops")),
        mcs: false,
        listed: false,
    };
    assert_eq!(config.cluster_secrets, Some(expected));

    let region = |name: &str| Region(name.into());
    let expected = Location {
        regions: [(region("lab"), Coordinates::new(1.5, -2.0).unwrap())].into(),
        distances: [((region("lab"), region("r1")), 7)].into(),
        places: vec![
            Places::Inline {
                region: region("lab"),
                availability_zone: Some(AvailabilityZone("lab-a".into())),
                cidrs: vec!["192.0.2.0/24".parse().unwrap()],
            },
            Places::File(dir.join("x.places")),
        ],
        databases: vec![Database {
            file: dir.join("x.mmdb"),
            autonomous_systems: [(64_500, region("r1"))].into(),
            countries: [("US".to_owned(), region("lab"))].into(),
            continents: [("EU".to_owned(), region("r1"))].into(),
        }],
    };
    assert_eq!(config.location, expected);
    let cidrs = ["192.0.2.0/28", "2001:db8::/64"].map(|cidr| cidr.parse().unwrap());
    assert_eq!(config.explain_to, cidrs);
    assert_eq!(config.resolvers, ["192.0.2.53:5353".parse().unwrap()]);

    let subnets: Vec<bool> = config.listeners.iter().map(|l| l.audience.client_subnet).collect();
    assert_eq!(subnets, [true, true, false, false]);
    let listeners: Vec<_> = config.listeners.iter().map(|l| (l.address.to_string(), l.audience.view)).collect();
    let internal = ViewRule::Fixed(View::Internal(ClusterId(1)));
    let outside = ViewRule::Fixed(View::External);
    let expected = [
        ("0.0.0.0:53", ViewRule::BySource),
        ("[::]:53", ViewRule::BySource),
        ("127.0.0.1:5300", internal),
        ("127.0.0.1:5301", outside),
    ];
    assert_eq!(listeners, expected.map(|(address, view)| (address.to_owned(), view)));
    // By source: clusters 0 and 2 have client CIDRs; fixed: cluster 1.
    let views = [0, 1, 2].map(|id| View::Internal(ClusterId(id)));
    assert_eq!(config.views(), [&[View::External], &views[..]].concat());
    assert_eq!(config.admin, None);
    assert_eq!(config.identity, Identity { version: Some("1".to_owned()), server: Some("ns1".to_owned()) });
    let limits = Limits {
        udp_workers: 3,
        udp_receive_buffer: 65_536,
        tcp_connections: 20,
        // The default is more than there can be at all.
        tcp_connections_per_client: 20,
        tcp_idle: Duration::from_millis(1500),
        tcp_idle_internal: Duration::from_secs(120),
        sync_wait: Duration::ZERO,
        lame_duck: Duration::ZERO,
        manifest_size: 2048,
        manifest_files: 5,
        objects_per_cluster: 9,
        endpoints_per_service: 8,
    };
    assert_eq!(config.limits, limits);
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

fn load(path: &Path) -> Config {
    Config::load(path).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_reference_shows_the_defaults() {
    let reference = load(&shipped("reference.yaml"));
    // The same with nothing but what is needed. Its paths are written out, so that they are the same too.
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
    let minimal = |health: &str| {
        World::new().config(&format!(
            "
{health}
zones: [{{name: my-federation.my-domain.com, file: \"{config}/../zones/my-federation.my-domain.com.zone\"}}]
clusters:
  - {{name: cluster-1, manifests: \"{config}/demo/cluster-1\"}}
  - {{name: cluster-2, kubeconfig: {{file: \"{config}/example.kubeconfig\"}}}}
listeners: [{{addresses: [\"127.0.0.1:8053\", \"[::1]:8053\"]}}]
"
        ))
    };
    let (probing, unprobed) = (minimal("health: {quorum: majority}\nqueryLog: {}"), minimal(""));
    assert_eq!(unprobed.query_log, None);
    let registering = minimal(&format!(
        "health: {{quorum: majority}}\nclusterSecrets: {{namespace: signpost-clusters, kubeconfig: {{file: \"{config}/example.kubeconfig\"}}}}"
    ));
    assert_eq!((unprobed.health.as_ref(), &reference.health), (None, &probing.health));
    assert_eq!(unprobed.voters(), []);
    let minimal = probing;
    // Nothing is known of places if nothing is said.
    let Config { path, location, zones, health, cluster_secrets, .. } = reference.clone();
    assert_eq!(minimal.location, Location::default());
    let [(key, service)] = &zones[0].services.iter().collect::<Vec<_>>()[..] else { panic!("one service") };
    assert_eq!(key.to_string(), "my-namespace/my-service");
    let Zone { max_answers, external_mode, internal_mode, .. } = minimal.zones[0];
    let usual = Service {
        ttl: None,
        max_answers,
        external_mode,
        internal_mode,
        hostnames: Hostnames::Addresses,
        addresses: vec![],
    };
    assert_eq!(**service, usual);
    let mut reference = reference;
    reference.zones[0].services.clear();
    assert_eq!((minimal.cluster_secrets.as_ref(), &registering.cluster_secrets), (None, &cluster_secrets));
    assert_eq!(reference, Config { path, location, health, cluster_secrets, ..minimal });
}

/// The parser itself tells which keys it knows: an unknown one is refused with the list of the others.
#[test]
fn the_reference_shows_every_key() {
    let text = fs::read_to_string(shipped("reference.yaml")).expect("config/reference.yaml");
    let reference: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
    let world = World::new();
    let places = [
        ("", "_: 1\n"),
        ("/zones/0", "zones: [{_: 1}]\n"),
        ("/zones/0/services/0", "zones: [{services: [{_: 1}]}]\n"),
        ("/clusters/0", "clusters: [{_: 1}]\n"),
        ("/clusters/1/kubeconfig", "clusters: [{kubeconfig: {_: 1}}]\n"),
        ("/listeners/0", "listeners: [{_: 1}]\n"),
        ("/admin", "admin: {_: 1}\n"),
        ("/identity", "identity: {_: 1}\n"),
        ("/limits", "limits: {_: 1}\n"),
        ("/location", "location: {_: 1}\n"),
        ("/health", "health: {_: 1}\n"),
        ("/directives", "directives: {_: 1}\n"),
        ("/state", "state: {_: 1}\n"),
        ("/queryLog", "queryLog: {_: 1}\n"),
        ("/clusterSecrets", "clusterSecrets: {_: 1}\n"),
        ("/location/regions/0", "location: {regions: [{_: 1}]}\n"),
        ("/location/distances/0", "location: {distances: [{_: 1}]}\n"),
        ("/location/databases/0", "location: {databases: [{_: 1}]}\n"),
    ];
    let mut count = 0;
    for (place, yaml) in places {
        let refused = world.load(yaml.as_bytes());
        let (_, known) = refused.split_once("expected").unwrap_or_else(|| panic!("{place}: {refused}"));
        let shown = reference.pointer(place).and_then(|shown| shown.as_object()).expect("keys");
        for key in known.split('`').skip(1).step_by(2) {
            assert!(shown.contains_key(key), "config/reference.yaml does not show {place}/{key}");
            count += 1;
        }
    }
    assert_eq!(count, 106, "a key came or went, or is in a place that is not among `places`");
}

#[test]
fn the_demo_is_the_2015_example() {
    let demo = load(&shipped("demo.yaml"));
    assert_eq!(demo.zones.len(), 1);
    assert_eq!((demo.zones[0].name.to_string().as_str(), demo.zones[0].ttl), ("my-federation.my-domain.com.", 180));
    let listeners: Vec<_> = demo.listeners.iter().map(|l| (l.address.to_string(), l.audience.view)).collect();
    let (external, internal) = (View::External, View::Internal(ClusterId(0)));
    let expected = [
        ("127.0.0.1:8053", external),
        ("[::1]:8053", external),
        ("127.0.0.1:8054", internal),
        ("[::1]:8054", internal),
    ];
    assert_eq!(listeners, expected.map(|(address, view)| (address.to_owned(), ViewRule::Fixed(view))));
    assert_eq!(demo.views(), [external, internal]);
    assert_eq!(demo.admin, Some("127.0.0.1:8055".parse().unwrap()));

    let text = fs::read_to_string(&demo.zones[0].file).expect("the zone file");
    let origin = hickory_proto::rr::Name::from_ascii("my-federation.my-domain.com.").unwrap();
    let parser = hickory_proto::serialize::txt::Parser::new(text, None, Some(origin.clone()));
    let (parsed_origin, sets) = parser.parse().expect("a zone file");
    assert_eq!(parsed_origin, origin);
    let sets: Vec<_> = sets.values().map(|set| (set.name().to_string(), set.record_type().to_string())).collect();
    for (name, kind) in
        [("", "SOA"), ("", "NS"), ("", "TXT"), ("ns1.", "A"), ("ns1.", "AAAA"), ("ns2.", "A"), ("ns2.", "AAAA")]
    {
        assert!(sets.contains(&(format!("{name}{origin}"), kind.to_owned())), "{name} {kind}: {sets:?}");
    }

    let [c1, c2, c3] = &demo.clusters[..] else { panic!("three clusters") };
    assert!(c1.region == c2.region && c1.availability_zones != c2.availability_zones && c1.region != c3.region);
    for (cluster, addresses) in
        [(c1, &["10.0.153.185", "104.197.117.10"][..]), (c2, &["104.197.74.77"]), (c3, &["104.197.38.157"])]
    {
        let Source::Manifests { directory } = &cluster.source else { panic!("manifests") };
        let service = fs::read_to_string(directory.join("my-service.yaml")).expect("the Service");
        for address in addresses {
            assert!(service.contains(&format!(" {address}\n")), "{}: {address}", cluster.name);
        }
    }
}
