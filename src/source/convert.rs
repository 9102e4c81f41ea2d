//! A slim object → the model's object, or why not. Kubernetes' words end in here.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::FixedState;

use super::{directive, report, slim};
use crate::config::{Cluster, Export};
use crate::index::{CLUSTER_LOAD, Object, ObjectKey};
use crate::model::check::Check;
use crate::model::votes::{Heartbeat, Pulse, Report};
use crate::model::{
    ClusterAddress, Endpoint, Exposure, Label, Load, LoadReport, Port, Protocol, Service, ServiceExport, ServiceImport,
    ServiceKey, Slice, Wishes, is_host_name,
};

pub use super::problem::{Fault, Problem};

/// Most entries of `ingress`. Clouds give 1 to 3, large load balancers some dozens; answers are cut at 8 addresses.
pub const MAX_INGRESS: usize = 100;
/// Most of these that have a host name and no address: each is asked for again and again.
pub const MAX_HOSTNAMES: usize = 8;
/// Most `clusterIPs`: the API server allows one per family.
pub const MAX_CLUSTER_IPS: usize = 2;
/// Most ports, of a Service or of a slice: the API server's own limit for slices.
pub const MAX_PORTS: usize = 20_000;
/// Most endpoints of a slice: the API server's own limit.
pub const MAX_ENDPOINTS: usize = 1_000;
/// Most addresses of an endpoint: the API server's own limit.
pub const MAX_ADDRESSES: usize = 100;
/// Seconds that a cluster may ask for.
const TTLS: RangeInclusive<u32> = 5..=86_400;
/// RFC 1123 as Kubernetes applies it: longest name of an object.
const MAX_SUBDOMAIN: usize = 253;

/// What an object comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Converted {
    Object {
        object: Object,
        /// Parts that were left out; each is counted and told, and the rest is used.
        left_out: Vec<Problem>,
    },
    /// Not federated (any more), by the rules of the configuration or because it is being deleted: like a deletion.
    NotExported(ObjectKey),
    /// Of a sort that says nothing about this cluster: like a deletion.
    Ignored(ObjectKey),
    /// Its last good state stays.
    Malformed { key: Option<ObjectKey>, problem: Problem },
}

pub fn service(raw: slim::Service, cluster: &Cluster) -> Converted {
    let key = raw.metadata.key();
    if !cluster.namespaces.allow(&raw.metadata.namespace) || raw.metadata.deleting {
        return Converted::NotExported(key);
    }
    let exported = match exposure(&raw, cluster) {
        // A ServiceExport may come, or be there, for any of them.
        Ok(Some((exposure, exported))) if exported || cluster.reads_exports() => (exposure, exported),
        Ok(_) => return Converted::NotExported(key),
        Err(problem) => return Converted::malformed(key, problem),
    };
    let mut left_out = Vec::new();
    match exported_service(raw, exported, &mut left_out) {
        Ok(service) => Converted::Object { object: Object::Service(service), left_out },
        Err(problem) => Converted::malformed(key, problem),
    }
}

pub fn slice(raw: slim::EndpointSlice, cluster: &Cluster) -> Converted {
    let key = raw.metadata.key();
    if !cluster.namespaces.allow(&raw.metadata.namespace) || raw.metadata.deleting {
        return Converted::NotExported(key);
    }
    let labels = &raw.metadata.labels;
    if labels.multicluster || is_importer(labels.managed_by.as_deref()) || raw.address_type == "FQDN" {
        return Converted::Ignored(key);
    }
    let Some(service) = labels.service_name.as_deref().filter(|name| !name.is_empty()) else {
        return Converted::Ignored(key);
    };
    match joined_slice(&raw, service) {
        Ok(slice) => Converted::Object { object: Object::Slice(slice), left_out: Vec::new() },
        Err(problem) => Converted::malformed(key, problem),
    }
}

/// Of the MCS API. The Service has its name; its spec says nothing that is answered with.
pub fn service_export(raw: slim::ServiceExport, cluster: &Cluster) -> Converted {
    let key = raw.metadata.key();
    if !cluster.namespaces.allow(&raw.metadata.namespace) || raw.metadata.deleting {
        return Converted::NotExported(key);
    }
    match service_key(&raw.metadata) {
        Ok(key) => {
            let since = raw.metadata.created.unwrap_or(ServiceExport::UNDATED);
            Converted::Object { object: Object::Export(ServiceExport { key, since }), left_out: Vec::new() }
        }
        Err(problem) => Converted::malformed(key, problem),
    }
}

/// Of the MCS API: what the cluster's own clients reach the service at.
pub fn service_import(raw: slim::ServiceImport, _: &Cluster) -> Converted {
    let key = raw.metadata.key();
    if raw.metadata.deleting {
        return Converted::NotExported(key);
    }
    let import = service_key(&raw.metadata).and_then(|key| {
        at_most("spec.ips", raw.spec.ips.len(), MAX_CLUSTER_IPS)?;
        let ips = raw.spec.ips.iter().enumerate();
        let addresses = ips.map(|(i, ip)| usable_at(|| format!("spec.ips[{i}]"), ip)).collect::<Result<_, _>>()?;
        let ports = service_ports(&raw.spec.ports, &ClusterAddress::Headless)?;
        Ok(ServiceImport { key, addresses, ports })
    });
    match import {
        Ok(import) => Converted::Object { object: Object::Import(import), left_out: Vec::new() },
        Err(problem) => Converted::malformed(key, problem),
    }
}

fn service_key(meta: &slim::Meta) -> Result<ServiceKey, Problem> {
    let namespace = label("metadata.namespace", &meta.namespace)?;
    Ok(ServiceKey { namespace, name: label("metadata.name", &meta.name)? })
}

/// Seconds for which a load may hold, and does where it does not say.
const VALIDITIES: RangeInclusive<i64> = 5..=3_600;
const VALIDITY: i64 = 60;

/// Of the service with the object's own name.
pub fn service_load(raw: slim::LoadObject, cluster: &Cluster) -> Converted {
    let key = raw.metadata.key();
    if !cluster.namespaces.allow(&raw.metadata.namespace) || raw.metadata.deleting {
        return Converted::NotExported(key);
    }
    match service_key(&raw.metadata) {
        Ok(service) => report(&raw, Some(service)),
        Err(problem) => Converted::malformed(key, problem),
    }
}

pub fn cluster_load(raw: slim::LoadObject, _: &Cluster) -> Converted {
    let key = raw.metadata.key();
    if raw.metadata.deleting {
        return Converted::NotExported(key);
    }
    if raw.metadata.name != CLUSTER_LOAD {
        let problem = Problem::field("metadata.name", &raw.metadata.name, Fault::NotTheClusterLoad);
        return Converted::Malformed { key: Some(key), problem };
    }
    report(&raw, None)
}

/// Whatever is wrong with it, the load that was told before is over.
fn report(raw: &slim::LoadObject, service: Option<ServiceKey>) -> Converted {
    let mut left_out = Vec::new();
    let text = raw.spec.load.as_ref().map_or("null", |amount| &amount.0);
    let mut load = Load::parse(text).ok();
    if load.is_none() {
        left_out.push(Problem::field("spec.load", text, Fault::NotAMeasuredLoad));
    }
    let seconds = raw.spec.valid_for_seconds.unwrap_or(VALIDITY);
    if !VALIDITIES.contains(&seconds) {
        left_out.push(Problem::field("spec.validForSeconds", seconds, Fault::NotAValidity));
        load = None;
    }
    let valid = Duration::from_secs(seconds.clamp(*VALIDITIES.start(), *VALIDITIES.end()).unsigned_abs());
    // The generation counts every change of the spec; a file has none, and its contents have to do.
    let said = (&raw.metadata.uid, raw.metadata.generation, text, seconds, &raw.spec.measured_at);
    let stamp = FixedState::default().hash_one(said);
    Converted::Object { object: Object::Load(LoadReport { service, load, valid, stamp }), left_out }
}

/// Whatever is wrong with it, its replica does not speak any more.
pub fn heartbeat(raw: slim::Lease, _: &Cluster) -> Converted {
    if raw.metadata.deleting {
        return Converted::NotExported(raw.metadata.key());
    }
    let (content, left_out) = understood(pulse(&raw.metadata.annotations));
    let replica = raw.metadata.name.as_str().into();
    Converted::Object { object: Object::Heartbeat(Heartbeat { replica, content }), left_out }
}

/// What a voter says, or why it says nothing.
fn understood<T>(read: Result<T, Problem>) -> (Option<T>, Vec<Problem>) {
    match read {
        Ok(content) => (Some(content), Vec::new()),
        Err(problem) => (None, vec![problem]),
    }
}

fn pulse(annotations: &slim::Annotations) -> Result<Pulse, Problem> {
    let text = |name: &str| annotations.ours.get(name).map_or("", String::as_str);
    let path = |name: &str| format!("metadata.annotations[signpost.dev/{name}]");
    let incarnation = report::number(&path("incarnation"), text("incarnation"))?;
    let beat = report::number(&path("beat"), text("beat"))?;
    let written = text("generations");
    let wrong = || Problem::field(path("generations"), written, Fault::NotGenerations);
    let generations: Result<Vec<u64>, _> = written.split(',').map(str::parse).collect();
    let generations = generations.ok().filter(|list| list.len() <= Report::SHARDS).ok_or_else(wrong)?;
    Ok(Pulse { incarnation, beat, generations })
}

/// Whatever is wrong with it, its replica does not speak any more.
pub fn health_report(raw: slim::ConfigMap, _: &Cluster) -> Converted {
    let key = raw.metadata.key();
    if raw.metadata.deleting {
        return Converted::NotExported(key);
    }
    let Some((replica, shard)) = Report::parse_name(&raw.metadata.name) else {
        let problem = Problem::field("metadata.name", &raw.metadata.name, Fault::NotAReportName);
        return Converted::Malformed { key: Some(key), problem };
    };
    let read = report::read(&raw.data.report);
    let (content, left_out) = understood(read.map_err(|problem| problem.within(&format!("data[{}]", report::KEY))));
    Converted::Object { object: Object::Report(Report { replica: replica.into(), shard, content }), left_out }
}

/// Whatever is wrong with it, nothing of it is done: what was understood of it before stays.
pub fn directive(raw: slim::DirectiveMap, _: &Cluster) -> Converted {
    let key = raw.metadata.key();
    if raw.metadata.deleting {
        return Converted::NotExported(key);
    }
    match directive::read(&raw.data) {
        Ok(directive) => Converted::Object { object: Object::Directive(key, directive), left_out: Vec::new() },
        Err(problem) => Converted::malformed(key, problem),
    }
}

/// An object that could not even be decoded. Where its namespace is known not to be exported, nobody needs to know.
pub fn undecodable(error: slim::Undecodable, cluster: &Cluster) -> Converted {
    match error.key {
        Some(key) if !cluster.namespaces.allow(&key.namespace) => Converted::NotExported(key),
        key => Converted::Malformed { key, problem: error.problem },
    }
}

impl Converted {
    fn malformed(key: ObjectKey, problem: Problem) -> Converted {
        let named = !key.name.is_empty() && !key.namespace.is_empty();
        Converted::Malformed { key: named.then_some(key), problem }
    }
}

/// Managers that write the endpoints of *other* clusters into this one's slices, some of them under a local Service's
/// own name: such a slice would keep a cluster that has lost all its pods in the answers. Everybody else's slices are used, because
/// what kube-proxy sends traffic to is every slice with `kubernetes.io/service-name`, whoever manages it: Kubernetes'
/// own controllers (`endpointslice-controller.k8s.io`, `endpointslicemirroring-controller.k8s.io`), a person with
/// kubectl, for whose slices of a Service without a selector Kubernetes recommends a manager's name of their choice ("staff"), or an
/// operator. A list of the good ones would take those for not ready.
///
/// Importers that go by Service names of their own making (GKE's `gke-mcs-*`, for one) can stay out of this list: what they import
/// joins no exported Service. The MCS API's labels are looked at beside it.
const IMPORTERS: [&str; 4] = [
    // Cilium Cluster Mesh, for global services
    "endpointslice-mesh-controller.cilium.io",
    // Karmada, MultiClusterService
    "endpointslice-dispatch-controller.karmada.io",
    // Liqo, reflection between virtual and real clusters
    "endpointslice.reflection.liqo.io",
    // Submariner; before its release 0.13 without labels of the MCS API
    "lighthouse-agent.submariner.io",
];

fn is_importer(manager: Option<&str>) -> bool {
    manager.is_some_and(|manager| IMPORTERS.contains(&manager))
}

/// With whether the cluster's rule exports it. `None`: of a type that is never exported.
fn exposure(raw: &slim::Service, cluster: &Cluster) -> Result<Option<(Exposure, bool)>, Problem> {
    let exposure = match raw.spec.kind.as_str() {
        "LoadBalancer" => Exposure::LoadBalancer,
        "" | "ClusterIP" | "NodePort" => Exposure::ClusterOnly,
        "ExternalName" => return Ok(None),
        other => return Err(Problem::field("spec.type", other, Fault::NotAServiceType)),
    };
    let exported = match cluster.export {
        Export::LoadBalancer => exposure == Exposure::LoadBalancer,
        Export::Annotated => raw.metadata.annotations.export.as_deref() == Some("true"),
        Export::ServiceExport | Export::Nothing => false,
        Export::All => true,
    };
    Ok(Some((exposure, exported)))
}

fn exported_service(
    raw: slim::Service,
    (exposure, exported): (Exposure, bool),
    left_out: &mut Vec<Problem>,
) -> Result<Service, Problem> {
    let key = service_key(&raw.metadata)?;
    let cluster_address = cluster_address(&raw.spec)?;
    let ports = service_ports(&raw.spec.ports, &cluster_address)?;
    let Asked { wishes, addresses, check } = asked(&raw.metadata.annotations, exposure, &ports, left_out);
    // An address that is left over from a time as LoadBalancer is nobody's any more.
    let Reached { ingress, hostnames, proxied } = match exposure {
        Exposure::LoadBalancer if !addresses.is_empty() => Reached { ingress: addresses, ..Reached::default() },
        Exposure::LoadBalancer => ingress(&raw.status.load_balancer.ingress, left_out)?,
        Exposure::ClusterOnly => Reached::default(),
    };
    let (has_selector, sticky) = (raw.spec.has_selector, raw.spec.session_affinity == "ClientIP");
    Ok(Service {
        key,
        exposure,
        cluster_address,
        ingress,
        hostnames,
        ports,
        has_selector,
        exported,
        sticky,
        proxied,
        wishes,
        check: check.map(Arc::new),
    })
}

/// What annotations ask for.
struct Asked {
    wishes: Wishes,
    /// Instead of the load balancer's.
    addresses: Vec<IpAddr>,
    check: Option<Check>,
}

/// An annotation that is of no use costs itself only.
fn asked(annotations: &slim::Annotations, exposure: Exposure, ports: &[Port], left_out: &mut Vec<Problem>) -> Asked {
    let mut asked = Asked { wishes: Wishes::default(), addresses: Vec::new(), check: None };
    for (name, value) in &annotations.ours {
        let wishes = &mut asked.wishes;
        let fault = match name.as_str() {
            "weight" => store(&mut wishes.weight, value.parse().ok(), Fault::NotAWeight),
            "ttl" => {
                let ttl = value.parse().ok().filter(|ttl| TTLS.contains(ttl));
                store(&mut wishes.ttl, ttl, Fault::NotATtl)
            }
            "load" => store(&mut wishes.load, Load::parse(value).ok(), Fault::NotALoad),
            "address" | "probe" if exposure == Exposure::ClusterOnly => Some(Fault::NotExposed),
            "address" => match override_addresses(value) {
                Some(addresses) => {
                    asked.addresses = addresses;
                    None
                }
                None => Some(Fault::NotAddresses),
            },
            "probe" => match Check::parse(value, ports) {
                Ok(check) => {
                    asked.check = Some(check);
                    None
                }
                Err(error) => Some(Fault::NotACheck(error)),
            },
            _ => Some(Fault::UnknownAnnotation),
        };
        let path = || format!("metadata.annotations[{}{name}]", slim::ANNOTATIONS);
        left_out.extend(fault.map(|fault| Problem::field(path(), value, fault)));
    }
    asked
}

fn store<T>(place: &mut Option<T>, value: Option<T>, fault: Fault) -> Option<Fault> {
    *place = value;
    if place.is_none() { Some(fault) } else { None }
}

fn override_addresses(text: &str) -> Option<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for word in text.split(',') {
        let address = word.trim().parse::<IpAddr>().ok()?.to_canonical();
        if is_unusable(address) || addresses.len() == MAX_INGRESS {
            return None;
        }
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Some(addresses)
}

fn cluster_address(spec: &slim::ServiceSpec) -> Result<ClusterAddress, Problem> {
    if spec.cluster_ip == "None" || spec.cluster_ips.first().is_some_and(|ip| ip == "None") {
        return Ok(ClusterAddress::Headless);
    }
    at_most("spec.clusterIPs", spec.cluster_ips.len(), MAX_CLUSTER_IPS)?;
    let mut addresses = Vec::with_capacity(spec.cluster_ips.len());
    if spec.cluster_ips.is_empty() && !spec.cluster_ip.is_empty() {
        addresses.push(usable("spec.clusterIP", &spec.cluster_ip)?);
    }
    for (i, ip) in spec.cluster_ips.iter().enumerate() {
        addresses.push(usable_at(|| format!("spec.clusterIPs[{i}]"), ip)?);
    }
    Ok(ClusterAddress::Virtual(addresses))
}

/// Where a load balancer is reached.
#[derive(Default)]
struct Reached {
    ingress: Vec<IpAddr>,
    hostnames: Vec<Arc<str>>,
    /// See [`Service::proxied`].
    proxied: bool,
}

/// The entries in their order. An entry that is of no use costs itself only: the load balancer is
/// the cloud's, and its other addresses work.
fn ingress(entries: &[slim::Ingress], left_out: &mut Vec<Problem>) -> Result<Reached, Problem> {
    const PATH: &str = "status.loadBalancer.ingress";
    at_most(PATH, entries.len(), MAX_INGRESS)?;
    let mut addresses = Vec::with_capacity(entries.len());
    let mut hostnames = Vec::new();
    for (i, entry) in entries.iter().enumerate() {
        if !entry.ip.is_empty() {
            let address = address(|| format!("{PATH}[{i}].ip"), &entry.ip)?;
            if is_unusable(address) {
                left_out.push(Problem::field(format!("{PATH}[{i}].ip"), address, Fault::IngressUnusable));
            } else if !addresses.contains(&address) {
                addresses.push(address);
            }
        } else if !entry.hostname.is_empty() {
            let path = || format!("{PATH}[{i}].hostname");
            match hostname(&entry.hostname) {
                Some(name) if hostnames.contains(&name) => {}
                Some(name) if hostnames.len() < MAX_HOSTNAMES => hostnames.push(name),
                Some(_) => {
                    left_out.push(Problem::field(path(), &entry.hostname, Fault::TooManyHostnames(MAX_HOSTNAMES)));
                }
                None => left_out.push(Problem::field(path(), &entry.hostname, Fault::IngressHostname)),
            }
        }
    }
    let proxied = !entries.is_empty() && entries.iter().all(|entry| entry.ip_mode == "Proxy");
    Ok(Reached { ingress: addresses, hostnames, proxied })
}

/// As it is asked for.
fn hostname(text: &str) -> Option<Arc<str>> {
    let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    is_host_name(&text).then(|| text.into())
}

fn service_ports(list: &slim::List<slim::ServicePort>, cluster_address: &ClusterAddress) -> Result<Vec<Port>, Problem> {
    let raw = match list {
        slim::List::Items(items) => items.as_slice(),
        // A Service without ports is refused by the API server unless it is headless. Who leaves them out of a
        // manifest wants addresses only, and gets them; `ports: null` is a template that lost its list, which
        // would silently take the SRV records away.
        slim::List::Absent => &[],
        slim::List::Null => match cluster_address {
            ClusterAddress::Headless => &[],
            ClusterAddress::Virtual(_) => return Err(Problem::field("spec.ports", "null", Fault::EmptyList)),
        },
    };
    at_most("spec.ports", raw.len(), MAX_PORTS)?;
    let mut seen = Names::default();
    let mut ports = Vec::with_capacity(raw.len());
    for (i, port) in raw.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{i}].{name}");
        let number = port_number(|| field("port"), port.port)?;
        let protocol = protocol(|| field("protocol"), &port.protocol)?;
        let name = port_name(|| field("name"), &port.name)?;
        if name.is_none() && raw.len() > 1 {
            return Err(Problem::field(field("name"), &port.name, Fault::UnnamedPort));
        }
        seen.insert(|| field("name"), &port.name)?;
        ports.push(Port { name, protocol, number });
    }
    Ok(ports)
}

fn joined_slice(raw: &slim::EndpointSlice, service: &str) -> Result<Slice, Problem> {
    let namespace = label("metadata.namespace", &raw.metadata.namespace)?;
    subdomain("metadata.name", &raw.metadata.name)?;
    let service = label("metadata.labels[kubernetes.io/service-name]", service)?;
    let wrong_family = match raw.address_type.as_str() {
        "IPv4" => Fault::NotIpv4,
        "IPv6" => Fault::NotIpv6,
        other => return Err(Problem::field("addressType", other, Fault::NotAnAddressType)),
    };
    at_most("endpoints", raw.endpoints.len(), MAX_ENDPOINTS)?;
    let mut endpoints = Vec::with_capacity(raw.endpoints.len());
    for (i, endpoint) in raw.endpoints.iter().enumerate() {
        endpoints.push(self::endpoint(i, endpoint, wrong_family)?);
    }
    let ports = slice_ports(&raw.ports)?;
    Ok(Slice { namespace, name: raw.metadata.name.as_str().into(), service, endpoints, ports })
}

fn endpoint(i: usize, raw: &slim::Endpoint, wrong_family: Fault) -> Result<Endpoint, Problem> {
    if raw.addresses.is_empty() {
        return Err(Problem::field(format!("endpoints[{i}].addresses"), "[]", Fault::EmptyList));
    }
    at_most(&format!("endpoints[{i}].addresses"), raw.addresses.len(), MAX_ADDRESSES)?;
    let mut addresses = Vec::with_capacity(raw.addresses.len());
    for (j, text) in raw.addresses.iter().enumerate() {
        let path = || format!("endpoints[{i}].addresses[{j}]");
        let address = usable_at(path, text)?;
        if address.is_ipv4() != (wrong_family == Fault::NotIpv4) {
            return Err(Problem::field(path(), text, wrong_family));
        }
        addresses.push(address);
    }
    let hostname = match raw.hostname.as_str() {
        "" => None,
        text => Some(label_at(|| format!("endpoints[{i}].hostname"), text)?),
    };
    let ready = raw.conditions.ready.unwrap_or(true);
    Ok(Endpoint { addresses, hostname, ready, serving: raw.conditions.serving.unwrap_or(ready) })
}

fn slice_ports(raw: &[slim::EndpointPort]) -> Result<Vec<Port>, Problem> {
    at_most("ports", raw.len(), MAX_PORTS)?;
    let mut seen = Names::default();
    let mut ports = Vec::with_capacity(raw.len());
    for (i, port) in raw.iter().enumerate() {
        let protocol = protocol(|| format!("ports[{i}].protocol"), &port.protocol)?;
        let name = port_name(|| format!("ports[{i}].name"), &port.name)?;
        seen.insert(|| format!("ports[{i}].name"), &port.name)?;
        // Without a number it stands for every port, which no SRV record can say.
        if let Some(number) = port.port {
            let number = port_number(|| format!("ports[{i}].port"), number)?;
            ports.push(Port { name, protocol, number });
        }
    }
    Ok(ports)
}

/// The port names of one object, each of which Kubernetes allows once.
#[derive(Default)]
struct Names<'a>(BTreeSet<&'a str>);

impl<'a> Names<'a> {
    fn insert(&mut self, path: impl FnOnce() -> String, name: &'a str) -> Result<(), Problem> {
        if self.0.insert(name) { Ok(()) } else { Err(Problem::field(path(), name, Fault::DuplicatePort)) }
    }
}

fn port_number(path: impl FnOnce() -> String, number: i64) -> Result<NonZeroU16, Problem> {
    u16::try_from(number).ok().and_then(NonZeroU16::new).ok_or_else(|| Problem::field(path(), number, Fault::NotAPort))
}

fn port_name(path: impl FnOnce() -> String, text: &str) -> Result<Option<Label>, Problem> {
    if text.is_empty() { Ok(None) } else { label_at(path, text).map(Some) }
}

fn protocol(path: impl FnOnce() -> String, text: &str) -> Result<Protocol, Problem> {
    match text {
        "" | "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        "SCTP" => Ok(Protocol::Sctp),
        other => Err(Problem::field(path(), other, Fault::NotAProtocol)),
    }
}

fn label(path: &str, text: &str) -> Result<Label, Problem> {
    label_at(|| path.to_owned(), text)
}

fn label_at(path: impl FnOnce() -> String, text: &str) -> Result<Label, Problem> {
    Label::parse(text).map_err(|_| Problem::field(path(), text, Fault::NotALabel))
}

/// As the API server checks it: RFC 1123 without the limit on each label.
fn subdomain(path: &str, text: &str) -> Result<(), Problem> {
    let part = |part: &str| {
        let bytes = part.as_bytes();
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        !bytes.is_empty() && bytes[0] != b'-' && bytes[bytes.len() - 1] != b'-' && bytes.iter().all(inner)
    };
    if text.len() <= MAX_SUBDOMAIN && text.split('.').all(part) {
        Ok(())
    } else {
        Err(Problem::field(path, text, Fault::NotASubdomain))
    }
}

/// An IPv4 address mapped into IPv6 is the IPv4 address, as it is to Kubernetes.
fn address(path: impl FnOnce() -> String, text: &str) -> Result<IpAddr, Problem> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_canonical()),
        Err(_) => Err(Problem::field(path(), text, Fault::NotAnAddress)),
    }
}

fn usable(path: &str, text: &str) -> Result<IpAddr, Problem> {
    usable_at(|| path.to_owned(), text)
}

fn usable_at(path: impl Fn() -> String, text: &str) -> Result<IpAddr, Problem> {
    let address = address(&path, text)?;
    if is_unusable(address) { Err(Problem::field(path(), text, Fault::Unusable)) } else { Ok(address) }
}

/// Addresses that mean something else on every machine, so that no answer may hold them. The API server refuses them
/// for endpoints too. (Special-purpose and global addresses are told apart by the origin rule, in ranking.)
fn is_unusable(address: IpAddr) -> bool {
    let common = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    common
        || match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        }
}

fn at_most(path: &str, count: usize, limit: usize) -> Result<(), Problem> {
    if count <= limit { Ok(()) } else { Err(Problem::field(path, count, Fault::TooMany { limit })) }
}

#[cfg(test)]
mod tests;
