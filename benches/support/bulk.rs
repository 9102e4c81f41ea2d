//! Many Services and EndpointSlices in a real cluster. An API server takes some 250 objects a second; so they are put
//! into etcd as JSON, which it reads as well as its own encoding.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use futures::future::try_join_all;
use kube::Client;
use kube::config::Config;

use crate::common::cluster::Cluster;

/// Services of one namespace.
const PER_NAMESPACE: u32 = 100;
/// Objects in one transaction: etcd allows 128 operations.
const PER_TRANSACTION: usize = 100;
/// Transactions at once.
const WRITERS: usize = 4;
/// Services in one manifest file.
const PER_FILE: u32 = 500;
/// Each has addresses of its own in the ranges below.
pub const MOST: u32 = 1 << 19;
/// Of each slice.
const ENDPOINTS: u8 = 3;
const CREATED: &str = "2026-01-01T00:00:00Z";

/// What is where in etcd.
pub type Entry = (String, String);

/// All names are equally long.
pub fn name(number: u32) -> String {
    format!("svc-{number:06}")
}

pub fn namespace(number: u32) -> String {
    format!("ns-{:04}", number / PER_NAMESPACE)
}

pub fn slice_name(number: u32) -> String {
    format!("{}-x7k2p", name(number))
}

/// Of the load balancer at first: globally routable, one for each service.
pub fn ingress(number: u32) -> Ipv4Addr {
    address(50, number)
}

/// Of the same service in the cluster of [`write_manifests`].
pub fn other_ingress(number: u32) -> Ipv4Addr {
    address(52, number)
}

pub fn address(first: u8, number: u32) -> Ipv4Addr {
    let [_, a, b, c] = number.to_be_bytes();
    Ipv4Addr::new(first, a, b, c)
}

/// In 10.96.0.0/12, behind those that the API server gives to its own.
pub fn cluster_ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 1, 0)) + number)
}

/// A query for A at the service's name.
pub fn write_query(id: u16, number: u32, zone: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in [name(number).as_str(), &namespace(number)].into_iter().chain(zone.split('.')) {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.extend_from_slice(&[0, 0, 1, 0, 1]);
}

/// Puts them all there while the API server runs, which takes note of them as of any change. One that finds 100,000 at its
/// start is not ready within the minute that it gives itself to check their addresses.
pub fn load(cluster: &Cluster, services: u32) -> Result<(), Box<dyn Error>> {
    assert!(services <= MOST, "there are no addresses for more");
    let namespaces: Vec<u32> = (0..services).step_by(PER_NAMESPACE as usize).collect();
    let numbers: Vec<u32> = (0..services).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // In the order in which Kubernetes makes them: a Service that has no address yet would be repaired.
        put_all(cluster, &namespaces, &namespace_entry).await?;
        put_all(cluster, &numbers, &address_entry).await?;
        put_all(cluster, &numbers, &|number| service_entry(number, ingress(number))).await?;
        put_all(cluster, &numbers, &|number| slice_entry(number, true)).await
    })
}

async fn put_all(cluster: &Cluster, numbers: &[u32], entry: &dyn Fn(u32) -> Entry) -> Result<(), Box<dyn Error>> {
    let writer = |which: usize| async move {
        let etcd = Etcd::of(cluster)?;
        for some in numbers.chunks(PER_TRANSACTION).skip(which).step_by(WRITERS) {
            etcd.put(&some.iter().map(|number| entry(*number)).collect::<Vec<_>>()).await?;
        }
        Ok::<_, Box<dyn Error>>(())
    };
    try_join_all((0..WRITERS).map(writer)).await?;
    Ok(())
}

/// A connection to a cluster's store, by its JSON gateway.
pub struct Etcd(Client);

impl Etcd {
    /// Within a runtime.
    pub fn of(cluster: &Cluster) -> Result<Etcd, Box<dyn Error>> {
        let url = format!("http://{}", cluster.etcd_address()).parse()?;
        Ok(Etcd(Client::try_from(Config::new(url))?))
    }

    /// In one transaction.
    pub async fn put(&self, entries: &[Entry]) -> Result<(), Box<dyn Error>> {
        let put = |(key, value): &Entry| {
            let (key, value) = (base64(key.as_bytes()), base64(value.as_bytes()));
            format!(r#"{{"requestPut":{{"key":"{key}","value":"{value}"}}}}"#)
        };
        self.transact(entries.iter().map(put).collect()).await
    }

    /// In one transaction. Of the entries the keys count.
    pub async fn delete(&self, entries: &[Entry]) -> Result<(), Box<dyn Error>> {
        let delete = |(key, _): &Entry| format!(r#"{{"requestDeleteRange":{{"key":"{}"}}}}"#, base64(key.as_bytes()));
        self.transact(entries.iter().map(delete).collect()).await
    }

    async fn transact(&self, operations: Vec<String>) -> Result<(), Box<dyn Error>> {
        let body = format!(r#"{{"success":[{}]}}"#, operations.join(","));
        let request = http::Request::post("/v3/kv/txn").body(body.into_bytes())?;
        let answer = self.0.request_text(request).await?;
        if answer.contains(r#""succeeded":true"#) { Ok(()) } else { Err(format!("etcd says {answer}").into()) }
    }
}

/// RFC 4648 section 4.
fn base64(octets: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(octets.len().div_ceil(3) * 4);
    for group in octets.chunks(3) {
        let bits = group.iter().fold(0, |bits, octet| bits << 8 | u32::from(*octet)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let sextet = (bits >> (18 - 6 * place)) as usize & 63;
            text.push(if place <= group.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    text
}

fn namespace_entry(number: u32) -> Entry {
    let namespace = namespace(number);
    let value = format!(
        r#"{{"kind":"Namespace","apiVersion":"v1","metadata":{{"name":"{namespace}","uid":"00000000-0000-4000-8002-{number:012}","creationTimestamp":"{CREATED}","labels":{{"kubernetes.io/metadata.name":"{namespace}"}}}},"spec":{{"finalizers":["kubernetes"]}},"status":{{"phase":"Active"}}}}"#
    );
    (format!("/registry/namespaces/{namespace}"), value)
}

/// With what kubectl and a cloud's controller leave in `managedFields`.
pub fn service_entry(number: u32, ingress: Ipv4Addr) -> Entry {
    let (name, namespace, ip) = (name(number), namespace(number), cluster_ip(number));
    let value = format!(
        r#"{{"kind":"Service","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"{namespace}","uid":"00000000-0000-4000-8000-{number:012}","creationTimestamp":"{CREATED}","labels":{{"app":"{name}"}},"managedFields":[{{"manager":"kubectl","operation":"Apply","apiVersion":"v1","time":"{CREATED}","fieldsType":"FieldsV1","fieldsV1":{{"f:metadata":{{"f:labels":{{"f:app":{{}}}}}},"f:spec":{{"f:allocateLoadBalancerNodePorts":{{}},"f:ports":{{"k:{{\"port\":2379,\"protocol\":\"TCP\"}}":{{".":{{}},"f:name":{{}},"f:port":{{}}}}}},"f:selector":{{}},"f:type":{{}}}}}}}},{{"manager":"cloud-controller-manager","operation":"Update","apiVersion":"v1","time":"{CREATED}","fieldsType":"FieldsV1","fieldsV1":{{"f:status":{{"f:loadBalancer":{{"f:ingress":{{}}}}}}}},"subresource":"status"}}]}},"spec":{{"ports":[{{"name":"client","protocol":"TCP","port":2379,"targetPort":2379}}],"selector":{{"app":"{name}"}},"clusterIP":"{ip}","clusterIPs":["{ip}"],"type":"LoadBalancer","sessionAffinity":"None","externalTrafficPolicy":"Cluster","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","allocateLoadBalancerNodePorts":false,"internalTrafficPolicy":"Cluster"}},"status":{{"loadBalancer":{{"ingress":[{{"ip":"{ingress}","ipMode":"VIP"}}]}}}}}}"#
    );
    (format!("/registry/services/specs/{namespace}/{name}"), value)
}

pub fn slice_entry(number: u32, ready: bool) -> Entry {
    let (name, namespace, slice) = (name(number), namespace(number), slice_name(number));
    let endpoints = endpoints(number, ready);
    let value = format!(
        r#"{{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{{"name":"{slice}","generateName":"{name}-","namespace":"{namespace}","uid":"00000000-0000-4000-8001-{number:012}","generation":1,"creationTimestamp":"{CREATED}","labels":{{"app":"{name}","endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io","kubernetes.io/service-name":"{name}"}},"ownerReferences":[{{"apiVersion":"v1","kind":"Service","name":"{name}","uid":"00000000-0000-4000-8000-{number:012}","controller":true,"blockOwnerDeletion":true}}],"managedFields":[{{"manager":"kube-controller-manager","operation":"Update","apiVersion":"discovery.k8s.io/v1","time":"{CREATED}","fieldsType":"FieldsV1","fieldsV1":{{"f:addressType":{{}},"f:endpoints":{{}},"f:metadata":{{"f:generateName":{{}},"f:labels":{{".":{{}},"f:app":{{}},"f:endpointslice.kubernetes.io/managed-by":{{}},"f:kubernetes.io/service-name":{{}}}},"f:ownerReferences":{{".":{{}},"k:{{\"uid\":\"00000000-0000-4000-8000-{number:012}\"}}":{{}}}}}},"f:ports":{{}}}}}}]}},"addressType":"IPv4","endpoints":{endpoints},"ports":[{{"name":"client","protocol":"TCP","port":2379}}]}}"#
    );
    (format!("/registry/endpointslices/{namespace}/{slice}"), value)
}

/// A slice's endpoints as JSON.
pub fn endpoints(number: u32, ready: bool) -> String {
    let endpoint = |place: u8| {
        let ip =
            Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + number * u32::from(ENDPOINTS) + u32::from(place));
        let (name, namespace) = (name(number), namespace(number));
        format!(
            r#"{{"addresses":["{ip}"],"conditions":{{"ready":{ready},"serving":{ready},"terminating":false}},"targetRef":{{"kind":"Pod","namespace":"{namespace}","name":"{name}-6d5f8c7b9-q{place}wx2","uid":"00000000-0000-4000-900{place}-{number:012}"}},"nodeName":"node-{}","zone":"zone-{place}"}}"#,
            number % 1000
        )
    };
    let all: Vec<String> = (0..ENDPOINTS).map(endpoint).collect();
    format!("[{}]", all.join(","))
}

/// That the cluster IP is taken: without it, the API server would set about to repair that.
fn address_entry(number: u32) -> Entry {
    let (name, namespace, ip) = (name(number), namespace(number), cluster_ip(number));
    let value = format!(
        r#"{{"kind":"IPAddress","apiVersion":"networking.k8s.io/v1","metadata":{{"name":"{ip}","uid":"00000000-0000-4000-8003-{number:012}","creationTimestamp":"{CREATED}","labels":{{"ipaddress.kubernetes.io/ip-family":"IPv4","ipaddress.kubernetes.io/managed-by":"ipallocator.k8s.io"}}}},"spec":{{"parentRef":{{"resource":"services","namespace":"{namespace}","name":"{name}"}}}}}}"#
    );
    (format!("/registry/ipaddresses/{ip}"), value)
}

/// The same services in another cluster, which counts as ready whatever comes.
pub fn write_manifests(directory: &Path, services: u32) -> std::io::Result<()> {
    for first in (0..services).step_by(PER_FILE as usize) {
        let mut text = String::new();
        for number in first..services.min(first + PER_FILE) {
            write!(
                text,
                "---
apiVersion: v1
kind: Service
metadata: {{name: {}, namespace: {}}}
spec:
  type: LoadBalancer
  clusterIP: {}
  ports: [{{name: client, port: 2379, protocol: TCP}}]
status: {{loadBalancer: {{ingress: [{{ip: {}}}]}}}}
",
                name(number),
                namespace(number),
                cluster_ip(number),
                other_ingress(number),
            )
            .expect("a String grows");
        }
        fs::write(directory.join(format!("services-{first:06}.yaml")), text)?;
    }
    Ok(())
}
