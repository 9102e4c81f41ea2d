use std::net::IpAddr;
use std::sync::Arc;

use super::*;
use crate::model::{ClusterAddress, Endpoint, Exposure, Load, Port, Protocol, Wishes, directive::Action};

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn key(text: &str) -> ServiceKey {
    text.parse().unwrap()
}

fn port(name: Option<&str>, protocol: Protocol, number: u16) -> Port {
    Port { name: name.map(label), protocol, number: number.try_into().unwrap() }
}

fn head(cluster: &str) -> Head {
    let versions = [((Kind::Service, None), "17"), ((Kind::EndpointSlice, Some(label("n"))), "18")];
    let past =
        Past { uid: Some("u-1".to_owned()), versions: versions.map(|(of, version)| (of, version.to_owned())).into() };
    Head::new(&Cluster::named(cluster), "2026-11-29T05:00:00Z".parse().unwrap(), past)
}

/// A service with all that it can have, one with nothing, slices, and one of each other kind.
fn everything() -> (Vec<Kept>, ServiceExport, ServiceImport, ObjectKey, Directive) {
    let ports = vec![port(Some("http"), Protocol::Tcp, 80), port(None, Protocol::Sctp, 65_535)];
    let full = Service {
        key: key("n/full"),
        exposure: Exposure::LoadBalancer,
        cluster_address: ClusterAddress::Virtual(vec![address("10.0.0.1"), address("fd00::1")]),
        ingress: vec![address("192.0.2.1"), address("2001:db8::1")],
        hostnames: vec!["lb.example".into()],
        has_selector: true,
        exported: true,
        sticky: true,
        proxied: true,
        wishes: Wishes { weight: Some(7), ttl: Some(60), load: Load::new(0.75).ok() },
        check: Some(Arc::new(Check::parse("https path=/healthz port=http", &ports).unwrap())),
        ports: ports.clone(),
    };
    let empty = Service {
        key: key("n/empty"),
        exposure: Exposure::ClusterOnly,
        cluster_address: ClusterAddress::Headless,
        ingress: vec![],
        hostnames: vec![],
        has_selector: true,
        exported: false,
        sticky: false,
        proxied: false,
        wishes: Wishes::default(),
        check: None,
        ports: vec![],
    };
    let endpoint = |addresses: &[&str], hostname: Option<&str>, ready| Endpoint {
        addresses: addresses.iter().map(|text| address(text)).collect(),
        hostname: hostname.map(label),
        ready,
        serving: !ready,
    };
    let slice = |name: &str, endpoints| Slice {
        namespace: label("n"),
        name: name.into(),
        service: label("full"),
        endpoints,
        ports: ports.clone(),
    };
    let slices = vec![
        slice(
            "full-abc.d",
            vec![endpoint(&["10.1.0.1", "10.1.0.2"], Some("web-0"), true), endpoint(&["fd00::2"], None, false)],
        ),
        slice("other", vec![]),
    ];
    let kept = vec![
        Kept { service: Some(full), overdue: false, slices },
        Kept { service: Some(empty), overdue: true, slices: vec![] },
        Kept { service: None, overdue: false, slices: vec![slice("orphan", vec![])] },
    ];
    let import = ServiceImport { key: key("n/full"), addresses: vec![address("10.9.0.1")], ports };
    let directive = Directive {
        service: Some(key("n/full")),
        action: Action::Drain { over: Duration::from_secs(600) },
        from: None,
        until: Some("2026-11-30T00:00:00Z".parse().unwrap()),
        reason: "a \"new\" rack\n".into(),
    };
    let name = ObjectKey { namespace: "signpost".into(), name: "drain-x".into() };
    (kept, ServiceExport { key: key("n/full"), since: 20_261_129_050_000 }, import, name, directive)
}

fn write(directory: &Path) -> Snapshot {
    let head = head("c");
    let mut draft = Draft::begin(directory, &head).unwrap();
    let (kept, export, import, name, directive) = everything();
    let mut lines = Vec::new();
    put_export(&mut lines, export.clone());
    put_import(&mut lines, import.clone());
    put_directive(&mut lines, name.clone(), directive.clone());
    draft.append(&lines).unwrap();
    let mut objects = vec![Object::Export(export), Object::Import(import), Object::Directive(name, directive)];
    for kept in kept {
        let mut lines = Vec::new();
        put_service(&mut lines, kept.clone());
        draft.append(&lines).unwrap();
        objects.extend(kept.service.map(Object::Service));
        objects.extend(kept.slices.into_iter().map(Object::Slice));
    }
    assert!(read(directory, &label("c")).unwrap().is_none(), "nobody sees it before it is finished");
    draft.finish().unwrap();
    Snapshot { head, objects, overdue: vec![key("n/empty")] }
}

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_snapshot_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let written = write(directory.path());
    assert_eq!(files(directory.path()), ["c.snapshot"]);
    let read = read(directory.path(), &label("c")).unwrap().expect("a snapshot");
    assert_eq!(read, written);
    assert_eq!(read.head.past().versions.len(), 2);
    assert_eq!(Head::new(&Cluster::named("c"), read.head.written, read.head.past()), read.head);
}

/// A file of this format that an earlier version wrote: what it holds must be understood for as long as the format has this number.
#[test]
fn the_format_is_what_it_was() {
    let text = include_bytes!("format-1.snapshot");
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(read_from(&text[..], &label("c")).expect("it is read"), write(directory.path()));
}

#[test]
fn whatever_is_damaged_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path());
    let good = fs::read(file(directory.path(), &label("c"))).unwrap();
    for length in 0..good.len() {
        assert!(read_from(&good[..length], &label("c")).is_err(), "cut to {length} octets");
    }
    for at in 0..good.len() {
        for flip in [1, 0x20, 0xFF] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            let read = read_from(&bad[..], &label("c"));
            assert!(read.is_err(), "octet {at} of {}: {:?}", good.len(), String::from_utf8_lossy(&bad));
        }
    }
}

fn sealed(lines: &[&str]) -> Vec<u8> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut digest = Context::new(&SHA256);
    digest.update(text.as_bytes());
    let end = End { lines: lines.len() as u64, sha256: hex(&digest) };
    let mut octets = text.into_bytes();
    line(&mut octets, &Line { end: Some(end), ..Line::default() });
    octets
}

#[test]
fn each_problem_has_its_words() {
    let first = |format: u32, cluster: &str| {
        let mut out = Vec::new();
        line(&mut out, &Line { head: Some(Head { format, ..head(cluster) }), ..Line::default() });
        String::from_utf8(out).unwrap().trim().to_owned()
    };
    let good = first(FORMAT, "c");
    let cases: [(&[&str], &str); 7] = [
        (&["something else"], "is no snapshot"),
        (&["{}"], "is no snapshot"),
        (
            &[r#"{"head":{"format":2,"services":{}}}"#],
            "has the format 2 of another version of Signpost (this one reads 1)",
        ),
        (&[&first(0, "c")], "has the format 0 of another version of Signpost (this one reads 1)"),
        (&[&first(FORMAT, "d")], "is of the cluster d"),
        (&[r#"{"head":{"format":1,"cluster":"C"}}"#], "line 1: \"C\" is not a DNS label"),
        (&[&good, r#"{"service":{"key":"n"}}"#], "line 2: \"n\" is not NAMESPACE/SERVICE"),
    ];
    for (lines, words) in cases {
        let problem = read_from(&sealed(lines)[..], &label("c")).unwrap_err().to_string();
        assert!(problem.starts_with(words), "{problem:?} is not {words:?}");
    }
    let newer = sealed(&[&good.replacen('{', "{\"mood\":1,", 1), r#"{"lease":{"name":"x"}}"#]);
    let read = read_from(&newer[..], &label("c")).expect("what is not known is passed over");
    assert_eq!(read.objects, []);
}

#[test]
fn what_was_there_before_stays_until_the_next_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let before = write(directory.path());
    let read = || read(directory.path(), &label("c")).unwrap();
    let mut draft = Draft::begin(directory.path(), &head("c")).unwrap();
    draft.append(b"{\"slice\":").unwrap();
    assert_eq!(read().as_ref(), Some(&before));
    drop(draft);
    assert_eq!((read().as_ref(), files(directory.path()).len()), (Some(&before), 1));
    // As after SIGKILL: it belongs to a process that perhaps still lives, until it is too old for that.
    std::mem::forget(Draft::begin(directory.path(), &head("c")).unwrap());
    let now = SystemTime::now();
    clean(directory.path(), now + Duration::from_secs(60));
    assert_eq!(files(directory.path()).len(), 2);
    clean(directory.path(), now + 2 * ABANDONED);
    assert_eq!((read().as_ref(), files(directory.path())), (Some(&before), vec!["c.snapshot".to_owned()]));
    assert!(put_aside(directory.path(), &label("c")).unwrap().ends_with("c.snapshot.unusable"));
    assert_eq!(read(), None);
}

#[test]
fn rules_that_fit() {
    let only = |names: &[&str]| Namespaces::Only(names.iter().map(|name| label(name)).collect());
    let rules = |export, namespaces| Rules { manifests: false, export, namespaces };
    let (all, balanced) = (rules(Export::All, Namespaces::All), rules(Export::LoadBalancer, Namespaces::All));
    assert!(all.fit(&all) && balanced.fit(&all) && balanced.fit(&balanced));
    assert!(!all.fit(&balanced));
    assert!(!all.fit(&Rules { manifests: true, ..all.clone() }));
    assert!(!all.fit(&rules(Export::All, only(&["a"]))));
    assert!(rules(Export::All, only(&["a"])).fit(&rules(Export::All, only(&["a", "b"]))));
    assert!(!rules(Export::All, only(&["a", "b"])).fit(&rules(Export::All, only(&["a"]))));
}
