use serde_json::{Value, json};

use super::*;
use crate::config::Namespaces;
use crate::source::status::Reason;

fn cluster(export: Export, namespaces: &[&str]) -> Cluster {
    let namespaces = match namespaces {
        [] => Namespaces::All,
        some => Namespaces::Only(some.iter().map(|text| Label::parse(text).unwrap()).collect()),
    };
    Cluster { export, namespaces, ..Cluster::named("one") }
}

/// `base` with `patch` laid over it (RFC 7396).
fn patched(base: &str, patch: &str) -> Value {
    fn merge(base: &mut Value, patch: Value) {
        match (base, patch) {
            (Value::Object(base), Value::Object(patch)) => {
                for (key, value) in patch {
                    match value {
                        // An explicit null is wanted here as a value: written as `~drop` it removes.
                        Value::String(text) if text == "~drop" => drop(base.remove(&key)),
                        value => merge(base.entry(key).or_insert(Value::Null), value),
                    }
                }
            }
            (base, patch) => *base = patch,
        }
    }
    let parse = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap();
    let mut value = parse(base);
    merge(&mut value, parse(patch));
    value
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  uid: 00000000-0000-0000-0000-000000000001
  resourceVersion: '12'
  annotations: {other: 1}
  managedFields: [{manager: kubectl, fieldsV1: {'f:spec': {}}}]
spec:
  type: LoadBalancer
  clusterIP: 10.0.0.1
  clusterIPs: [10.0.0.1, 'fd00::1']
  selector: {app: web}
  externalIPs: [192.0.2.1]
  ports:
  - {name: http, port: 80, targetPort: web, nodePort: 30080}
  - {name: dns, port: 53, protocol: UDP}
status:
  loadBalancer:
    ingress: [{ip: 198.51.100.7}, {ip: '2001:db8::7'}]
";

const SLICE: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-x7k2p
  namespace: shop
  labels: {kubernetes.io/service-name: web, endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io, other: 1}
addressType: IPv4
endpoints:
- addresses: [10.1.0.5]
  conditions: {ready: true, serving: true, terminating: false}
  hostname: web-0
  nodeName: node-1
  targetRef: {kind: Pod, name: web-0, namespace: shop}
ports:
- {name: http, port: 8080, protocol: TCP}
";

fn convert_service(patch: &str, cluster: &Cluster) -> Converted {
    let value = patched(SERVICE, patch);
    let by_value = match slim::from_value::<slim::Service>(&value) {
        Ok(raw) => service(raw, cluster),
        Err(error) => undecodable(*error, cluster),
    };
    let by_json = match slim::from_json::<slim::Service>(value.to_string().as_bytes()) {
        Ok(raw) => service(raw, cluster),
        Err(error) => undecodable(*error, cluster),
    };
    assert_eq!(by_value, by_json, "both sources say the same");
    by_value
}

fn convert_slice(patch: &str, cluster: &Cluster) -> Converted {
    let value = patched(SLICE, patch);
    let by_value = match slim::from_value::<slim::EndpointSlice>(&value) {
        Ok(raw) => slice(raw, cluster),
        Err(error) => undecodable(*error, cluster),
    };
    let by_json = match slim::from_json::<slim::EndpointSlice>(value.to_string().as_bytes()) {
        Ok(raw) => slice(raw, cluster),
        Err(error) => undecodable(*error, cluster),
    };
    assert_eq!(by_value, by_json, "both sources say the same");
    by_value
}

fn good_service(patch: &str, cluster: &Cluster) -> (Service, Vec<Problem>) {
    match convert_service(patch, cluster) {
        Converted::Object { object: Object::Service(service), left_out } => (service, left_out),
        other => panic!("{patch}: {other:?}"),
    }
}

fn good_slice(patch: &str) -> Slice {
    match convert_slice(patch, &cluster(Export::All, &[])) {
        Converted::Object { object: Object::Slice(slice), .. } => slice,
        other => panic!("{patch}: {other:?}"),
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey { namespace: "shop".into(), name: name.into() }
}

fn port(name: &str, protocol: Protocol, number: u16) -> Port {
    let name = (!name.is_empty()).then(|| Label::parse(name).unwrap());
    Port { name, protocol, number: NonZeroU16::new(number).unwrap() }
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_service() {
    let (service, left_out) = good_service("{}", &cluster(Export::LoadBalancer, &[]));
    assert_eq!(left_out, []);
    assert_eq!(
        service,
        Service {
            key: ServiceKey { namespace: Label::parse("shop").unwrap(), name: Label::parse("web").unwrap() },
            exposure: Exposure::LoadBalancer,
            cluster_address: ClusterAddress::Virtual(addresses(&["10.0.0.1", "fd00::1"])),
            ingress: addresses(&["198.51.100.7", "2001:db8::7"]),
            ports: vec![port("http", Protocol::Tcp, 80), port("dns", Protocol::Udp, 53)],
            has_selector: true,
            exported: true,
            sticky: false,
            proxied: false,
            wishes: Wishes::default(),
            check: None,
            hostnames: vec![],
        }
    );
}

#[test]
fn what_is_exported() {
    let annotated = "metadata: {annotations: {signpost.dev/export: 'true'}}";
    let deleted = "metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}";
    let cases: &[(&str, Export, &[&str], bool)] = &[
        ("{}", Export::LoadBalancer, &[], true),
        ("{}", Export::All, &[], true),
        ("{}", Export::Annotated, &[], false),
        (annotated, Export::Annotated, &[], true),
        ("metadata: {annotations: {signpost.dev/export: 'yes'}}", Export::Annotated, &[], false),
        ("metadata: {annotations: null}", Export::Annotated, &[], false),
        ("spec: {type: ClusterIP}", Export::LoadBalancer, &[], false),
        ("spec: {type: NodePort}", Export::All, &[], true),
        ("spec: {type: ~drop}", Export::All, &[], true),
        ("spec: {type: ~drop}", Export::LoadBalancer, &[], false),
        ("spec: {type: ExternalName}", Export::All, &[], false),
        ("{}", Export::All, &["shop"], true),
        ("{}", Export::All, &["a", "z"], false),
        (deleted, Export::All, &[], false),
        ("metadata: {deletionTimestamp: null}", Export::All, &[], true),
        // What is not exported may be as wrong as it likes.
        ("spec: {type: ClusterIP, ports: [{port: 0}]}", Export::LoadBalancer, &[], false),
        ("spec: {ports: 5}", Export::All, &["other"], false),
    ];
    for &(patch, export, namespaces, exported) in cases {
        match convert_service(patch, &cluster(export, namespaces)) {
            Converted::Object { .. } => assert!(exported, "{patch} {export:?} {namespaces:?}"),
            Converted::NotExported(k) => {
                assert!(!exported, "{patch} {export:?} {namespaces:?}");
                assert_eq!(k, key("web"));
            }
            other => panic!("{patch}: {other:?}"),
        }
    }
}

#[test]
fn parts_of_a_service() {
    let all = cluster(Export::All, &[]);
    let (headless, _) = good_service("spec: {clusterIP: None, clusterIPs: [None], ports: null}", &all);
    assert_eq!(headless.cluster_address, ClusterAddress::Headless);
    assert_eq!(headless.ports, []);
    let (fallback, _) = good_service("spec: {clusterIPs: null}", &all);
    assert_eq!(fallback.cluster_address, ClusterAddress::Virtual(addresses(&["10.0.0.1"])));
    let (none_yet, _) = good_service("spec: {clusterIPs: ~drop, clusterIP: ''}", &all);
    assert_eq!(none_yet.cluster_address, ClusterAddress::Virtual(Vec::new()));
    let (unnamed, _) = good_service("spec: {ports: [{port: 80}]}", &all);
    assert_eq!(unnamed.ports, [port("", Protocol::Tcp, 80)]);
    let (unnamed, _) = good_service("spec: {ports: [{name: null, protocol: null, port: 80}]}", &all);
    assert_eq!(unnamed.ports, [port("", Protocol::Tcp, 80)]);
    let (portless, _) = good_service("spec: {ports: ~drop}", &all);
    assert_eq!(portless.ports, []);
    for (selector, has) in [("~drop", false), ("null", false), ("{}", false), ("{a: b}", true)] {
        let base = patched(SERVICE, "spec: {selector: ~drop}").to_string();
        let value = patched(&base, &format!("spec: {{selector: {selector}}}"));
        let raw: slim::Service = slim::from_value(&value).unwrap();
        assert_eq!(raw.spec.has_selector, has, "{selector}");
    }
    for ingress in ["{}", "{ingress: null}", "{ingress: []}", "null"] {
        let (service, left_out) = good_service(&format!("status: {{loadBalancer: {ingress}}}"), &all);
        // RFC 7396 lays {} over what is there.
        assert_eq!(service.ingress.is_empty(), ingress != "{}", "{ingress}");
        assert_eq!(left_out, []);
    }
    let (former, _) = good_service("spec: {type: ClusterIP}", &all);
    assert_eq!((former.exposure, former.ingress), (Exposure::ClusterOnly, Vec::new()));
}

#[test]
fn ingress_entries_stand_for_themselves() {
    let ingress = "[{hostname: lb.example.com}, {ip: 198.51.100.9, ipMode: VIP}, {ip: 127.0.0.1}, {ip: 0.0.0.0}, \
         {ip: 224.0.0.1}, {ip: 255.255.255.255}, {ip: 169.254.1.1}, {ip: 'fe80::1'}, {ip: '::'}, {ip: 'ff02::1'}, \
         {ip: 10.0.0.9}, {ip: '::ffff:198.51.100.9'}, {ip: 198.51.100.10, hostname: lb.example.com}, {}]";
    let patch = format!("status: {{loadBalancer: {{ingress: {ingress}}}}}");
    let (service, left_out) = good_service(&patch, &cluster(Export::All, &[]));
    assert_eq!(service.ingress, addresses(&["198.51.100.9", "10.0.0.9", "198.51.100.10"]));
    assert_eq!(service.hostnames, ["lb.example.com".into()]);
    let reasons: Vec<Reason> = left_out.iter().map(Problem::reason).collect();
    assert_eq!(reasons, [Reason::IngressAddress; 8]);
    assert_eq!(left_out[0].path(), Some("status.loadBalancer.ingress[2].ip"));
}

#[test]
fn load_balancers_with_names() {
    let named = |names: &[&str]| {
        let entries: Vec<String> = names.iter().map(|name| format!("{{hostname: '{name}'}}")).collect();
        let patch = format!("status: {{loadBalancer: {{ingress: [{}]}}}}", entries.join(", "));
        let (service, left_out) = good_service(&patch, &cluster(Export::All, &[]));
        assert!(service.ingress.is_empty());
        let names: Vec<String> = service.hostnames.iter().map(ToString::to_string).collect();
        (names, left_out)
    };
    let (names, left_out) = named(&["A-1.ELB.example.com.", "a-1.elb.example.com", "b.example.com", "xn--a.example"]);
    assert_eq!(names, ["a-1.elb.example.com", "b.example.com", "xn--a.example"]);
    assert_eq!(left_out, []);
    let long = format!("{}.example", "x".repeat(64));
    let longer = format!("{}example", "abcdefgh.".repeat(30));
    for bad in ["a..b", "a b", "-a.example", "10.0.0.1", "a.1", "a_b.example", ".", "ä.example", &long, &longer] {
        let (names, left_out) = named(&[bad]);
        assert!(names.is_empty(), "{bad}");
        assert_eq!(left_out.iter().map(Problem::reason).collect::<Vec<_>>(), [Reason::IngressHostname], "{bad}");
        assert_eq!(left_out[0].path(), Some("status.loadBalancer.ingress[0].hostname"));
    }
    let many: Vec<String> = (0..100).map(|n| format!("n{n}.example")).collect();
    let (names, left_out) = named(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((names.len(), left_out.len()), (MAX_HOSTNAMES, 100 - MAX_HOSTNAMES));
    // What is told to be reached elsewhere is not asked for.
    let patch = "{metadata: {annotations: {signpost.dev/address: 203.0.113.5}}, \
         status: {loadBalancer: {ingress: [{hostname: lb.example.com}]}}}";
    assert_eq!(good_service(patch, &cluster(Export::All, &[])).0.hostnames, []);
}

#[test]
fn annotations_ask_for_what_they_can() {
    let asked = |annotations: &str| {
        let patch = format!("metadata: {{annotations: {{{annotations}}}}}");
        good_service(&patch, &cluster(Export::All, &[]))
    };
    let (service, left_out) = asked(
        "signpost.dev/weight: '0', signpost.dev/ttl: '86400', signpost.dev/load: ' 0.835', \
         signpost.dev/address: '203.0.113.5, 2001:db8::5,203.0.113.5', signpost.dev/export: 'true', other.dev/weight: x",
    );
    let load = Some(Load::new(0.835).unwrap());
    assert_eq!(service.wishes, Wishes { weight: Some(0), ttl: Some(86_400), load });
    assert_eq!(service.ingress, addresses(&["203.0.113.5", "2001:db8::5"]));
    assert_eq!(left_out, []);
    let (service, left_out) = asked("signpost.dev/probe: 'http path=/healthz port=http interval=10s'");
    let check = service.check.map(|check| check.to_string());
    assert_eq!(check.as_deref(), Some("http path=/healthz status=200-299 port=80 interval=10000ms"));
    assert_eq!(left_out, []);

    let usual = asked("{}".trim_matches(['{', '}'])).0;
    for (name, values) in [
        ("weight", &["65536", "-1", "1.5", "", "heavy", "0x10", "1e3"][..]),
        ("ttl", &["4", "86401", "30s", "-5", "NaN"]),
        ("load", &["7", "-0.1", "1.01", "NaN", "inf", "80%", ""]),
        (
            "address",
            &["", "example.com", "1.2.3.4,", "1.2.3.4 1.2.3.5", "127.0.0.1", "0.0.0.0", "fe80::1", "224.0.0.1"],
        ),
        ("wieght", &["100"]),
        // Not one of its ports; a path without its slash; and what nobody can be made to do.
        ("probe", &["", "tcp port=22", "http path=healthz", "http host=169.254.169.254", "icmp", "http://192.0.2.1/"]),
        ("", &["x"]),
    ] {
        for value in values {
            let (service, left_out) = asked(&format!("signpost.dev/{name}: '{value}'"));
            assert_eq!(service, usual, "{name}: {value}");
            let [problem] = &left_out[..] else { panic!("{name}: {value}: {left_out:?}") };
            assert_eq!(problem.reason(), Reason::Annotation);
            assert_eq!(problem.path(), Some(&*format!("metadata.annotations[signpost.dev/{name}]")));
        }
    }
    for annotation in ["signpost.dev/address: 203.0.113.5", "signpost.dev/probe: tcp"] {
        let patch = format!("{{metadata: {{annotations: {{{annotation}}}}}, spec: {{type: ClusterIP}}}}");
        let (_, left_out) = good_service(&patch, &cluster(Export::All, &[]));
        assert_eq!(left_out.iter().map(Problem::reason).collect::<Vec<_>>(), [Reason::Annotation], "{annotation}");
    }
}

#[test]
fn malformed_services() {
    let cases: &[(&str, Reason, &str)] = &[
        ("metadata: {name: Web}", Reason::Name, "metadata.name"),
        ("metadata: {name: a.b}", Reason::Name, "metadata.name"),
        ("metadata: {name: ''}", Reason::Name, "metadata.name"),
        ("metadata: {name: 5}", Reason::Type, "metadata.name"),
        ("metadata: {namespace: a_b}", Reason::Name, "metadata.namespace"),
        (
            "metadata: {annotations: {signpost.dev/export: true}}",
            Reason::Type,
            "metadata.annotations[signpost.dev/export]",
        ),
        ("metadata: 5", Reason::Type, "metadata"),
        ("spec: {type: Loadbalancer}", Reason::Word, "spec.type"),
        ("spec: {ports: null}", Reason::List, "spec.ports"),
        ("spec: {ports: 80}", Reason::Type, "spec.ports"),
        ("spec: {ports: [null]}", Reason::Type, "spec.ports[0]"),
        ("spec: {ports: [{port: 0}]}", Reason::Port, "spec.ports[0].port"),
        ("spec: {ports: [{name: a}]}", Reason::Port, "spec.ports[0].port"),
        ("spec: {ports: [{port: 70000}]}", Reason::Port, "spec.ports[0].port"),
        ("spec: {ports: [{port: -1}]}", Reason::Port, "spec.ports[0].port"),
        ("spec: {ports: [{port: 80.5}]}", Reason::Type, "spec.ports[0].port"),
        ("spec: {ports: [{port: http}]}", Reason::Type, "spec.ports[0].port"),
        ("spec: {ports: [{name: a, port: 1}, {port: 2}]}", Reason::Port, "spec.ports[1].name"),
        ("spec: {ports: [{name: a, port: 1}, {name: a, port: 2}]}", Reason::Port, "spec.ports[1].name"),
        ("spec: {ports: [{name: A, port: 1}]}", Reason::Name, "spec.ports[0].name"),
        ("spec: {ports: [{protocol: tcp, port: 1}]}", Reason::Word, "spec.ports[0].protocol"),
        ("spec: {clusterIPs: [10.0.0.256]}", Reason::Address, "spec.clusterIPs[0]"),
        ("spec: {clusterIPs: null, clusterIP: rubbish}", Reason::Address, "spec.clusterIP"),
        ("spec: {clusterIPs: [10.0.0.1, 127.0.0.1]}", Reason::Address, "spec.clusterIPs[1]"),
        ("spec: {clusterIPs: [10.0.0.1, 10.0.0.2, 10.0.0.3]}", Reason::Limit, "spec.clusterIPs"),
        ("spec: {selector: 5}", Reason::Type, "spec.selector"),
        ("status: {loadBalancer: {ingress: [{ip: 999.1.1.1}]}}", Reason::Address, "status.loadBalancer.ingress[0].ip"),
        (
            "status: {loadBalancer: {ingress: [{ip: 'fe80::1%eth0'}]}}",
            Reason::Address,
            "status.loadBalancer.ingress[0].ip",
        ),
        ("status: {loadBalancer: {ingress: 198.51.100.7}}", Reason::Type, "status.loadBalancer.ingress"),
    ];
    for &(patch, reason, path) in cases {
        match convert_service(patch, &cluster(Export::All, &[])) {
            Converted::Malformed { key: k, problem } => {
                assert_eq!((problem.reason(), problem.path()), (reason, Some(path)), "{patch}: {problem}");
                assert_eq!(
                    k.is_some(),
                    !patch.contains("name: ''") && !patch.contains("name: 5") && !patch.contains("metadata: 5"),
                    "{patch}"
                );
            }
            other => panic!("{patch}: {other:?}"),
        }
    }
}

#[test]
fn a_slice() {
    assert_eq!(
        good_slice("{}"),
        Slice {
            namespace: Label::parse("shop").unwrap(),
            name: "web-x7k2p".into(),
            service: Label::parse("web").unwrap(),
            endpoints: vec![Endpoint {
                addresses: addresses(&["10.1.0.5"]),
                hostname: Some(Label::parse("web-0").unwrap()),
                ready: true,
                serving: true,
            }],
            ports: vec![port("http", Protocol::Tcp, 8080)],
        }
    );
    let empty = good_slice("{endpoints: null, ports: null}");
    assert_eq!((empty.endpoints, empty.ports), (vec![], vec![]));
    let ports =
        good_slice("ports: [{name: '', port: 1}, {name: every, port: null}, {name: u, protocol: UDP, port: 2}]").ports;
    assert_eq!(ports, [port("", Protocol::Tcp, 1), port("u", Protocol::Udp, 2)]);
    assert_eq!(good_slice("ports: [{name: null, protocol: null, port: 1}]").ports, [port("", Protocol::Tcp, 1)]);
    let six = good_slice("{addressType: IPv6, endpoints: [{addresses: ['fd00::5']}]}");
    assert_eq!(six.endpoints[0].addresses, addresses(&["fd00::5"]));
}

#[test]
fn conditions() {
    let cases = [
        ("{}", true, true),
        ("null", true, true),
        ("{ready: null, serving: null}", true, true),
        ("{ready: false}", false, false),
        ("{ready: false, serving: true, terminating: true}", false, true),
        ("{ready: true, serving: false}", true, false),
    ];
    for (conditions, ready, serving) in cases {
        let slice = good_slice(&format!("endpoints: [{{addresses: [10.1.0.5], conditions: {conditions}}}]"));
        assert_eq!((slice.endpoints[0].ready, slice.endpoints[0].serving), (ready, serving), "{conditions}");
    }
}

#[test]
fn slices_of_others_are_ignored() {
    let managed = |by: &str| format!("metadata: {{labels: {{endpointslice.kubernetes.io/managed-by: {by}}}}}");
    for manager in
        ["endpointslicemirroring-controller.k8s.io", "staff", "my-operator.example.com", "~drop", "null", "''"]
    {
        good_slice(&managed(manager));
    }
    let mut ignored: Vec<String> = IMPORTERS.map(managed).into();
    ignored.push("metadata: {labels: {multicluster.kubernetes.io/source-cluster: two}}".to_owned());
    ignored.push("metadata: {labels: {multicluster.kubernetes.io/anything: 5}}".to_owned());
    ignored.push("metadata: {labels: {kubernetes.io/service-name: ~drop}}".to_owned());
    ignored.push("metadata: {labels: null}".to_owned());
    ignored.push("{addressType: FQDN, endpoints: [{addresses: [a.example.com]}]}".to_owned());
    for patch in ignored {
        let converted = convert_slice(&patch, &cluster(Export::All, &[]));
        assert_eq!(converted, Converted::Ignored(key("web-x7k2p")), "{patch}");
    }
    let elsewhere = convert_slice("{}", &cluster(Export::All, &["other"]));
    assert_eq!(elsewhere, Converted::NotExported(key("web-x7k2p")));
    let deleted = convert_slice("metadata: {deletionTimestamp: x}", &cluster(Export::All, &[]));
    assert_eq!(deleted, Converted::NotExported(key("web-x7k2p")));
}

#[test]
fn malformed_slices() {
    let cases: &[(&str, Reason, &str)] = &[
        ("metadata: {name: 'a b'}", Reason::Name, "metadata.name"),
        ("metadata: {name: a..b}", Reason::Name, "metadata.name"),
        (
            "metadata: {labels: {kubernetes.io/service-name: A}}",
            Reason::Name,
            "metadata.labels[kubernetes.io/service-name]",
        ),
        (
            "metadata: {labels: {kubernetes.io/service-name: 5}}",
            Reason::Type,
            "metadata.labels[kubernetes.io/service-name]",
        ),
        ("addressType: IP", Reason::Word, "addressType"),
        ("addressType: null", Reason::Word, "addressType"),
        ("addressType: IPv6", Reason::Address, "endpoints[0].addresses[0]"),
        ("endpoints: {}", Reason::Type, "endpoints"),
        ("endpoints: [{addresses: null}]", Reason::List, "endpoints[0].addresses"),
        ("endpoints: [{addresses: []}]", Reason::List, "endpoints[0].addresses"),
        ("endpoints: [{}]", Reason::List, "endpoints[0].addresses"),
        ("endpoints: [{addresses: [10.1.0.5, x]}]", Reason::Address, "endpoints[0].addresses[1]"),
        ("endpoints: [{addresses: ['fd00::5']}]", Reason::Address, "endpoints[0].addresses[0]"),
        ("endpoints: [{addresses: [127.0.0.1]}]", Reason::Address, "endpoints[0].addresses[0]"),
        ("endpoints: [{addresses: [10.1.0.5], hostname: A_B}]", Reason::Name, "endpoints[0].hostname"),
        (
            "endpoints: [{addresses: [10.1.0.5], conditions: {ready: 'yes'}}]",
            Reason::Type,
            "endpoints[0].conditions.ready",
        ),
        ("ports: [{name: a, port: 70000}]", Reason::Port, "ports[0].port"),
        ("ports: [{name: a, protocol: QUIC, port: 1}]", Reason::Word, "ports[0].protocol"),
        ("ports: [{name: a, port: 1}, {name: a, port: 2}]", Reason::Port, "ports[1].name"),
    ];
    for &(patch, reason, path) in cases {
        match convert_slice(patch, &cluster(Export::All, &[])) {
            Converted::Malformed { key: Some(_), problem } => {
                assert_eq!((problem.reason(), problem.path()), (reason, Some(path)), "{patch}: {problem}");
            }
            other => panic!("{patch}: {other:?}"),
        }
    }
}

#[test]
fn a_client_may_be_bound_to_what_it_was_sent_to() {
    for (affinity, sticky) in [("ClientIP", true), ("None", false), ("null", false), ("clientip", false)] {
        let patch = format!("spec: {{sessionAffinity: {affinity}}}");
        match convert_service(&patch, &cluster(Export::All, &[])) {
            Converted::Object { object: Object::Service(service), .. } => {
                assert_eq!(service.sticky, sticky, "{affinity}")
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn loads() {
    let report = |text: &str, cluster: &Cluster| {
        let raw = serde_saphyr::from_str::<Value>(text).unwrap().to_string();
        let is_of_service = text.contains("namespace");
        match slim::from_json::<slim::LoadObject>(raw.as_bytes()) {
            Ok(raw) if is_of_service => service_load(raw, cluster),
            Ok(raw) => cluster_load(raw, cluster),
            Err(error) => undecodable(*error, cluster),
        }
    };
    let all = cluster(Export::All, &[]);
    let good: &[(&str, u16, u64)] = &[
        ("{load: 0.75}", 7_500, 60),
        ("{load: 1, validForSeconds: 5}", 10_000, 5),
        ("{load: '0.5', validForSeconds: 3600, measuredAt: '2026-01-01T00:00:00Z'}", 5_000, 3_600),
        ("{load: 0, extra: {}}", 0, 60),
    ];
    let mut stamps = BTreeSet::new();
    for (spec, load, seconds) in good {
        for meta in ["{name: web, namespace: shop}", "{name: cluster}"] {
            let text = format!("metadata: {meta}\nspec: {spec}");
            let Converted::Object { object: Object::Load(got), left_out } = report(&text, &all) else {
                panic!("{text}")
            };
            assert_eq!(left_out, [], "{text}");
            assert_eq!(got.load.map(Load::ten_thousandths), Some(*load), "{text}");
            assert_eq!(got.valid, Duration::from_secs(*seconds), "{text}");
            assert_eq!(got.service.map(|key| key.to_string()), meta.contains("web").then(|| "shop/web".to_owned()));
            stamps.insert(got.stamp);
        }
    }
    assert_eq!(stamps.len(), good.len(), "each is another report");
    // The load is unknown, whatever it was before.
    let bad = [
        ("{load: 7}", "spec.load: \"7\" is not a number from 0 to 1"),
        ("{load: NaN}", "spec.load: \"NaN\" is not a number"),
        ("{load: -0.1}", "spec.load: \"-0.1\" is not a number"),
        ("{}", "spec.load: \"null\" is not"),
        ("{load: 0.9, validForSeconds: 0}", "spec.validForSeconds: \"0\" is not a whole number of seconds from 5"),
        ("{load: 0.9, validForSeconds: 3601}", "spec.validForSeconds: \"3601\" is not"),
    ];
    for (spec, sentence) in bad {
        let text = format!("metadata: {{name: web, namespace: shop}}\nspec: {spec}");
        let Converted::Object { object: Object::Load(got), left_out } = report(&text, &all) else { panic!("{text}") };
        assert_eq!(got.load, None, "{text}");
        assert!(left_out.iter().all(|problem| problem.reason() == Reason::Load), "{left_out:?}");
        assert!(left_out[0].to_string().starts_with(sentence), "{left_out:?}");
    }
    let malformed = [
        ("metadata: {name: web, namespace: shop}\nspec: {load: [1]}", Reason::Type),
        ("metadata: {name: web.x, namespace: shop}\nspec: {load: 1}", Reason::Name),
        ("metadata: {name: other}\nspec: {load: 1}", Reason::Name),
    ];
    for (text, reason) in malformed {
        let Converted::Malformed { key: Some(_), problem } = report(text, &all) else { panic!("{text}") };
        assert_eq!(problem.reason(), reason, "{text}: {problem}");
    }
    let elsewhere =
        report("metadata: {name: web, namespace: shop}\nspec: {load: 1}", &cluster(Export::All, &["other"]));
    assert!(matches!(elsewhere, Converted::NotExported(_)));
    let leaving = report("metadata: {name: cluster, deletionTimestamp: now}\nspec: {load: 1}", &all);
    assert!(matches!(leaving, Converted::NotExported(_)));
}

/// What a value becomes by its place alone can be far too much; each limit is one entry below its error.
#[test]
fn limits() {
    let list = |count: usize, entry: &dyn Fn(usize) -> Value| Value::Array((0..count).map(entry).collect());
    let ip = |i: usize| json!({"ip": format!("198.51.{}.{}", i / 250, i % 250 + 1)});
    let endpoint = |_| json!({"addresses": ["10.1.0.5"]});
    let address = |_| json!("10.1.0.5");
    for (over, good) in [(0, true), (1, false)] {
        let all = cluster(Export::All, &[]);
        let ingress = json!({"status": {"loadBalancer": {"ingress": list(MAX_INGRESS + over, &ip)}}});
        assert_eq!(matches!(convert_service(&ingress.to_string(), &all), Converted::Object { .. }), good);
        let endpoints = json!({"endpoints": list(MAX_ENDPOINTS + over, &endpoint)});
        assert_eq!(matches!(convert_slice(&endpoints.to_string(), &all), Converted::Object { .. }), good);
        let addresses = json!({"endpoints": [{"addresses": list(MAX_ADDRESSES + over, &address)}]});
        assert_eq!(matches!(convert_slice(&addresses.to_string(), &all), Converted::Object { .. }), good);
    }
}

#[test]
fn broken_json_is_told_without_an_identity() {
    let error = slim::from_json::<slim::Service>(br#"{"metadata": {"name": "web", "#).unwrap_err();
    assert_eq!((error.key, error.problem.reason()), (None, Reason::Syntax));
    let error = slim::from_json::<slim::Service>(
        br#"{"spec": [[5]], "metadata": {"x": {"name": 1}, "name": "web", "namespace": "shop"}}"#,
    );
    let error = error.unwrap_err();
    assert_eq!((error.key, error.problem.reason()), (Some(key("web")), Reason::Type));
}
