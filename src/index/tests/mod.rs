//! Scenarios: at a second, something is said; these services change, and the whole index then reads like this.

use std::time::Duration;

use super::*;
use crate::model::{ClusterAddress, Endpoint, Exposure, Label, Load, Port, Protocol, Wishes};

mod exports;
mod losses;
mod property;
mod rules;

pub(super) const C0: ClusterId = ClusterId(0);
pub(super) const C1: ClusterId = ClusterId(1);

pub(super) fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
}

pub(super) fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

/// All objects of the tests live in the namespace `ns`, unless they say otherwise.
pub(super) fn key(name: &str) -> ServiceKey {
    let (namespace, name) = name.split_once('/').unwrap_or(("ns", name));
    ServiceKey { namespace: label(namespace), name: label(name) }
}

/// `name` and then words: `lb` or `lb=1.1.1.1,2.2.2.2`, `headless`, `noselector`, `port=N`, `weight=N`,
/// `ttl=N`, `load=N`, `host=NAME`.
pub(super) fn service(text: &str) -> Service {
    let mut words = text.split_whitespace();
    let mut service = Service {
        key: key(words.next().unwrap()),
        exposure: Exposure::ClusterOnly,
        cluster_address: ClusterAddress::Virtual(vec!["10.0.0.1".parse().unwrap()]),
        ingress: vec![],
        hostnames: vec![],
        ports: vec![],
        has_selector: true,
        exported: true,
        sticky: false,
        proxied: false,
        wishes: Wishes::default(),
        check: None,
    };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("lb", "") => service.exposure = Exposure::LoadBalancer,
            ("lb", addresses) => {
                service.exposure = Exposure::LoadBalancer;
                service.ingress = addresses.split(',').map(|a| a.parse().unwrap()).collect();
            }
            ("host", names) => {
                service.exposure = Exposure::LoadBalancer;
                service.hostnames = names.split(',').map(Into::into).collect();
            }
            ("headless", _) => service.cluster_address = ClusterAddress::Headless,
            ("noselector", _) => service.has_selector = false,
            ("weight", weight) => service.wishes.weight = Some(weight.parse().unwrap()),
            ("ttl", ttl) => service.wishes.ttl = Some(ttl.parse().unwrap()),
            ("load", load) => service.wishes.load = Some(Load::parse(load).unwrap()),
            ("port", number) => service.ports = vec![port(number.parse().unwrap())],
            _ => panic!("{word:?} says nothing about a service"),
        }
    }
    service
}

pub(super) fn port(number: u16) -> Port {
    Port { name: None, protocol: Protocol::Tcp, number: number.try_into().unwrap() }
}

/// `name service` and then endpoints: `address[,address][@hostname][!]`, where `!` is "not ready, not serving", `!ready`
/// and `!serving` one of them; `port=N`.
pub(super) fn slice(text: &str) -> Slice {
    let mut words = text.split(' ');
    let name = words.next().unwrap();
    let owner = key(words.next().unwrap());
    let mut slice =
        Slice { namespace: owner.namespace, name: name.into(), service: owner.name, endpoints: vec![], ports: vec![] };
    for word in words {
        if let Some(number) = word.strip_prefix("port=") {
            slice.ports.push(port(number.parse().unwrap()));
            continue;
        }
        let (word, not) = word.split_once('!').map_or((word, None), |(word, not)| (word, Some(not)));
        let (addresses, hostname) = word.split_once('@').map_or((word, None), |(a, h)| (a, Some(h)));
        slice.endpoints.push(Endpoint {
            addresses: addresses.split(',').map(|a| a.parse().unwrap()).collect(),
            hostname: hostname.map(label),
            ready: not.is_none_or(|not| not == "serving"),
            serving: not.is_none_or(|not| not == "ready"),
        });
    }
    slice
}

pub(super) fn object_key(name: &str) -> ObjectKey {
    let (namespace, name) = name.split_once('/').unwrap_or(("ns", name));
    ObjectKey { namespace: namespace.into(), name: name.into() }
}

/// What is said, in words: `service ...` and `slice ...` apply; `no service NAME`, `no slice NAME` delete;
/// `services: A; B; keep C` and `slices: ...` list; `tick` lets time pass.
fn update(text: &str) -> Option<Update> {
    let list = |kind: Kind, text: &str| {
        let (mut objects, mut keep) = (vec![], vec![]);
        for item in text.split(';').map(str::trim).filter(|item| !item.is_empty()) {
            match (item.strip_prefix("keep "), kind) {
                (Some(kept), _) => keep.push(object_key(kept)),
                (None, Kind::Service) => objects.push(Object::Service(service(item))),
                (None, Kind::EndpointSlice) => objects.push(Object::Slice(slice(item))),
                (None, other) => unreachable!("no {} here", other.name()),
            }
        }
        Update::Reset { kind, objects, keep }
    };
    Some(if text == "tick" {
        return None;
    } else if let Some(text) = text.strip_prefix("service ") {
        Update::Apply(Object::Service(service(text)))
    } else if let Some(text) = text.strip_prefix("slice ") {
        Update::Apply(Object::Slice(slice(text)))
    } else if let Some(name) = text.strip_prefix("no service ") {
        Update::Delete(Kind::Service, object_key(name))
    } else if let Some(name) = text.strip_prefix("no slice ") {
        Update::Delete(Kind::EndpointSlice, object_key(name))
    } else if let Some(text) = text.strip_prefix("services:") {
        list(Kind::Service, text)
    } else if let Some(text) = text.strip_prefix("slices:") {
        list(Kind::EndpointSlice, text)
    } else {
        panic!("{text:?} says nothing")
    })
}

/// `a ready 1.1.1.1 :80 | b unready`: every service of the first cluster with ingress, ports and pods.
fn show(index: &Index) -> String {
    let mut all = vec![];
    for key in index.keys() {
        let federated = index.service(&key).expect("a key has a service");
        for share in federated.shares {
            let mut text = if key.namespace.as_str() == "ns" { key.name.to_string() } else { key.to_string() };
            if share.cluster != C0 {
                text += &format!("@{}", share.cluster.0);
            }
            text += if share.ready { " ready" } else { " unready" };
            share.ingress.iter().for_each(|address| text += &format!(" {address}"));
            share.ports.iter().for_each(|port| text += &format!(" :{}", port.number));
            share.pods.iter().for_each(|pod| text += &format!(" {}={:?}", pod.hostname, pod.addresses));
            all.push(text);
        }
    }
    all.join(" | ")
}

/// A step: second, what is said, the services that change, the index after it, the next deadline's second.
type Step = (u64, &'static str, &'static str, &'static str, Option<u64>);

/// Plays steps to a synced, empty cluster and the index that holds it.
fn play(name: &str, policy: SlicePolicy, steps: &[Step]) {
    let mut index = Index::new(vec![policy]);
    for list in ["services:", "slices:"] {
        index.apply(C0, update(list).unwrap(), at(0));
    }
    play_on(name, &mut index, steps);
}

fn play_on(name: &str, index: &mut Index, steps: &[Step]) {
    for (number, (second, said, changed, shown, deadline)) in steps.iter().enumerate() {
        let changes = match update(said) {
            Some(update) => index.apply(C0, update, at(*second)),
            None => index.tick(at(*second)),
        };
        let names: Vec<&str> = changes.services.iter().map(|key| key.name.as_str()).collect();
        let step = format!("{name}, step {number}: {second} s, {said:?}");
        assert_eq!(names.join(" "), *changed, "changes, {step}");
        assert_eq!(show(index), *shown, "{step}");
        assert_eq!(index.next_deadline(), deadline.map(at), "deadline, {step}");
    }
}
