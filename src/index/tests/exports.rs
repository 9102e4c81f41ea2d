//! ServiceExports and ServiceImports beside the services.

use super::*;
use crate::model::{ServiceExport, ServiceImport};

fn policy(by_export: bool) -> Policy {
    Policy { by_export, exports: true, imports: true, ..SlicePolicy::Optional.into() }
}

fn export(name: &str, since: u64) -> Object {
    Object::Export(ServiceExport { key: key(name), since })
}

fn import(name: &str, address: &str) -> Object {
    let addresses = vec![address.parse().unwrap()];
    Object::Import(ServiceImport { key: key(name), addresses, ports: vec![] })
}

fn list(kind: Kind, objects: Vec<Object>) -> Update {
    Update::Reset { kind, objects, keep: vec![] }
}

/// Exported by rule, and since when by a ServiceExport, of each share of `name`; and how many import it.
fn seen(index: &Index, name: &str) -> (Vec<(bool, Option<u64>)>, usize) {
    let service = index.service(&key(name));
    let shares = service.iter().flat_map(|service| &service.shares).map(|share| (share.exported, share.offered));
    (shares.collect(), service.as_ref().map_or(0, |service| service.imports.len()))
}

#[test]
fn a_cluster_is_synced_when_its_exports_are() {
    let mut index = Index::new(vec![policy(false)]);
    let lists = [Kind::Service, Kind::EndpointSlice, Kind::ServiceExport, Kind::ServiceImport];
    index.apply(C0, Update::Apply(Object::Service(service("a"))), at(0));
    for (n, kind) in lists.into_iter().enumerate() {
        let objects = if kind == Kind::Service { vec![Object::Service(service("a"))] } else { vec![] };
        let changes = index.apply(C0, list(kind, objects), at(1));
        assert_eq!(changes.synced, (n == 3).then_some(C0), "{kind:?}");
    }
    assert_eq!(seen(&index, "a"), (vec![(true, None)], 0));
}

#[test]
fn exports_and_imports_change_what_they_name() {
    let mut index = Index::new(vec![policy(true), policy(false)]);
    for cluster in [C0, C1] {
        let hidden = Service { exported: false, ..service("a") };
        index.apply(cluster, list(Kind::Service, vec![Object::Service(hidden)]), at(0));
        for kind in [Kind::EndpointSlice, Kind::ServiceExport, Kind::ServiceImport] {
            index.apply(cluster, list(kind, vec![]), at(0));
        }
    }
    assert_eq!(seen(&index, "a"), (vec![(false, None); 2], 0));
    for cluster in [C0, C1] {
        let changes = index.apply(cluster, Update::Apply(export("a", 7)), at(1));
        assert_eq!(changes.services, [key("a")]);
        assert_eq!(index.apply(cluster, Update::Apply(export("a", 7)), at(1)), Changes::default(), "said before");
    }
    // Where ServiceExports are the rule they export it.
    assert_eq!(seen(&index, "a"), (vec![(true, Some(7)), (false, Some(7))], 0));
    assert_eq!(index.apply(C1, Update::Apply(import("a", "10.0.0.9")), at(2)).services, [key("a")]);
    assert_eq!(index.apply(C1, Update::Apply(import("b", "10.0.0.8")), at(2)).services, [key("b")]);
    assert_eq!((seen(&index, "a").1, seen(&index, "b")), (1, (vec![], 1)));
    assert_eq!(index.keys(), [key("a"), key("b")], "what is only imported is there too");
    assert_eq!(index.apply(C1, Update::Apply(import("a", "10.0.0.7")), at(3)).services, [key("a")]);
    let gone = |kind, name: &str| Update::Delete(kind, object_key(name));
    assert_eq!(index.apply(C0, gone(Kind::ServiceExport, "a"), at(4)).services, [key("a")]);
    assert_eq!(index.apply(C1, list(Kind::ServiceImport, vec![import("b", "10.0.0.8")]), at(4)).services, [key("a")]);
    assert_eq!(index.apply(C1, gone(Kind::ServiceImport, "nobody"), at(4)), Changes::default());
    assert_eq!(seen(&index, "a"), (vec![(false, None), (false, Some(7))], 0));
}

#[test]
fn most_exports_do_not_go_at_once() {
    let mut index = Index::new(vec![policy(true)]);
    let all = || (0..20).map(|n| export(&format!("s{n}"), 1)).collect::<Vec<_>>();
    let services = (0..20).map(|n| Object::Service(service(&format!("s{n}")))).collect();
    index.apply(C0, list(Kind::Service, services), at(0));
    index.apply(C0, list(Kind::EndpointSlice, vec![]), at(0));
    index.apply(C0, list(Kind::ServiceImport, vec![]), at(0));
    index.apply(C0, list(Kind::ServiceExport, all()), at(0));
    assert_eq!(index.apply(C0, list(Kind::ServiceExport, vec![]), at(10)).services, []);
    let held = |count, from| vec![Held { cluster: C0, kind: Kind::ServiceExport, count, release_from: at(from) }];
    assert_eq!(index.held(), held(20, 40));
    // Those that are back are not lost; the rest goes with a list that says it again.
    assert_eq!(index.apply(C0, list(Kind::ServiceExport, all()[..5].to_vec()), at(20)).services, []);
    assert_eq!(index.held(), held(15, 40));
    assert_eq!(index.apply(C0, list(Kind::ServiceExport, all()[..5].to_vec()), at(40)).services.len(), 15);
    assert_eq!((seen(&index, "s1").0[0].1, seen(&index, "s7").0[0].1), (Some(1), None));
    assert_eq!(index.held(), []);
}

#[test]
fn a_new_configuration_asks_for_more_without_losing_what_is_there() {
    let mut old = Index::new(vec![SlicePolicy::Optional]);
    old.apply(C0, list(Kind::Service, vec![Object::Service(service("a"))]), at(0));
    old.apply(C0, list(Kind::EndpointSlice, vec![]), at(0));
    let mut new = Index::new(vec![policy(false)]);
    new.adopt(C0, &mut old, C0);
    assert!(new.is_synced(C0));
    assert_eq!(seen(&new, "a"), (vec![(true, None)], 0));
    new.apply(C0, list(Kind::ServiceExport, vec![export("a", 3)]), at(1));
    assert_eq!(seen(&new, "a"), (vec![(true, Some(3))], 0));
}
