//! The member clusters, and the CIDRs in which they can contradict each other.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ipnet::IpNet;

use super::{Resolver, shortened};
use crate::config::error::{Fault, Place};
use crate::config::raw::{At, RawCluster, RawClusterSecrets, RawExport, RawKubeconfig, place};
use crate::config::special::{declarable, routable};
use crate::config::{
    Cluster, ClusterSecrets, DEFAULT_WEIGHT, Export, IngressRanges, MAX_AVAILABILITY_ZONES, MAX_CIDRS, MAX_NAMESPACES,
    Namespaces, Source,
};
use crate::model::{AvailabilityZone, Label, Network, Region};

/// One of a list, and where it stands.
pub(super) struct Cidr {
    pub(super) cidr: IpNet,
    key: String,
    place: Option<Place>,
}

impl From<RawExport> for Export {
    fn from(raw: RawExport) -> Export {
        match raw {
            RawExport::LoadBalancer => Export::LoadBalancer,
            RawExport::Annotated => Export::Annotated,
            RawExport::ServiceExport => Export::ServiceExport,
            RawExport::All => Export::All,
            RawExport::None => Export::Nothing,
        }
    }
}

impl Resolver<'_> {
    /// `votes`: the namespace in which voters say what they see; `None`: nobody votes. `directives`: that in which operators do.
    pub(super) fn clusters(
        &mut self,
        raw: Vec<At<RawCluster>>,
        votes: Option<&Label>,
        directives: Option<&Label>,
    ) -> Vec<Cluster> {
        let mut names = HashMap::new();
        let mut sources = HashMap::new();
        let mut client_cidrs = Vec::new();
        let mut clusters = Vec::with_capacity(raw.len());
        for (i, raw) in raw.into_iter().enumerate() {
            let key = format!("clusters[{i}]");
            let name = &raw.value.name;
            let first = *names.entry(name.value.clone()).or_insert(i);
            if first != i {
                let fault = Fault::DuplicateCluster { name: shortened(&name.value), first };
                self.fault(name, format!("{key}.name"), fault);
            }
            let source = self.source(&raw, &key);
            if let Some(source) = &source {
                let first = *sources.entry(source.clone()).or_insert(i);
                if first != i {
                    self.fault(&raw, &key, Fault::DuplicateSource { first });
                }
            }
            let cluster = self.cluster(raw.value, &key, source, votes, &mut client_cidrs);
            clusters.extend(cluster.map(|cluster| Cluster { directives: directives.cloned(), ..cluster }));
        }
        self.overlapping_clients(client_cidrs);
        clusters
    }

    fn cluster(
        &mut self,
        raw: RawCluster,
        key: &str,
        source: Option<Source>,
        votes: Option<&Label>,
        client_cidrs: &mut Vec<Cidr>,
    ) -> Option<Cluster> {
        let name = self.label(&raw.name, &format!("{key}.name"));
        let region = self.topology(raw.region, &format!("{key}.region")).map(Region);
        let network = self.topology(raw.network, &format!("{key}.network")).map(Network);

        let zones_key = format!("{key}.availabilityZones");
        let zones = self.list(raw.availability_zones, &zones_key, "availability zones", MAX_AVAILABILITY_ZONES);
        let zones = self.distinct(zones, &zones_key);
        let availability_zones: Vec<_> =
            zones.into_iter().filter_map(|(key, zone)| self.topology(Some(zone), &key).map(AvailabilityZone)).collect();

        let own = self.cidrs(raw.client_cidrs, &format!("{key}.clientCidrs"), some_clients);
        let ingress = self.ingress([raw.ingress_cidrs, raw.inside_ingress_cidrs, raw.global_ingress_cidrs], key);
        let source = source?;
        // Manifests are read without nodes, and nobody can write there.
        let has_nodes = !matches!(source, Source::Manifests { .. });
        if let Some(raw) = raw.voter.as_ref().filter(|raw| raw.value && !has_nodes) {
            self.fault(raw, format!("{key}.voter"), Fault::VoterWithoutApi);
        }
        let export = raw.export.map_or(Export::LoadBalancer, |export| export.value.into());
        let is_witness = export == Export::Nothing;
        let is_voter = raw.voter.as_ref().map_or(has_nodes, |raw| raw.value);
        let cluster = Cluster {
            name: name?,
            source,
            placed_by_nodes: has_nodes && !is_witness && region.is_none() && availability_zones.is_empty(),
            region,
            availability_zones,
            network,
            client_cidrs: own.iter().map(|own| own.cidr).collect(),
            ingress,
            export,
            namespaces: self.namespaces(raw.namespaces, &format!("{key}.namespaces")),
            weight: self.weight(raw.weight, &format!("{key}.weight")),
            voter: votes.filter(|_| is_voter).cloned(),
            directives: None,
            mcs: false,
        };
        client_cidrs.extend(own);
        Some(cluster)
    }

    fn source(&mut self, raw: &At<RawCluster>, key: &str) -> Option<Source> {
        let RawCluster { manifests, kubeconfig, in_cluster, .. } = &raw.value;
        let in_cluster = in_cluster.as_ref().is_some_and(|given| given.value);
        match (manifests, kubeconfig, in_cluster) {
            (Some(manifests), None, false) => {
                let directory = self.directory(manifests, &format!("{key}.manifests"), "the manifests' directory");
                Some(Source::Manifests { directory })
            }
            (None, Some(kubeconfig), false) => Some(self.kubeconfig(kubeconfig, key)),
            (None, None, true) => Some(Source::InCluster),
            (manifests, kubeconfig, in_cluster) => {
                let given = [
                    (manifests.is_some(), "manifests"),
                    (kubeconfig.is_some(), "kubeconfig"),
                    (in_cluster, "inCluster"),
                ];
                let given = given.iter().filter(|(given, _)| *given).map(|(_, name)| *name).collect();
                self.fault(raw, key, Fault::Sources(given));
                None
            }
        }
    }

    fn kubeconfig(&mut self, raw: &At<RawKubeconfig>, key: &str) -> Source {
        let file = self.file(&raw.value.file, &format!("{key}.kubeconfig.file"), "the kubeconfig");
        Source::Kubeconfig { file, context: raw.value.context.as_ref().map(|context| context.value.clone()) }
    }

    fn weight(&mut self, raw: Option<At<u64>>, key: &str) -> u16 {
        self.number(raw, key, 0..=65_535, "(only ratios count)", DEFAULT_WEIGHT)
    }

    /// Who may be registered at run time. `directives`, `mcs`: as for the clusters.
    pub(super) fn cluster_secrets(
        &mut self,
        raw: At<RawClusterSecrets>,
        directives: Option<Label>,
        mcs: bool,
    ) -> Option<ClusterSecrets> {
        const KEY: &str = "clusterSecrets";
        let at = |word: &str| format!("{KEY}.{word}");
        let in_cluster = raw.value.in_cluster.as_ref().is_some_and(|given| given.value);
        let source = match (&raw.value.kubeconfig, in_cluster) {
            (Some(kubeconfig), false) => Some(self.kubeconfig(kubeconfig, KEY)),
            (None, true) => Some(Source::InCluster),
            (None, false) => {
                self.fault(&raw, KEY, Fault::SecretsSources(Vec::new()));
                None
            }
            (Some(_), true) => {
                self.fault(&raw, KEY, Fault::SecretsSources(vec!["kubeconfig", "inCluster"]));
                None
            }
        };
        let RawClusterSecrets { namespace, local_servers, export, namespaces, weight, .. } = raw.value;
        let ranges = [raw.value.ingress_cidrs, raw.value.inside_ingress_cidrs, raw.value.global_ingress_cidrs];
        let namespace = self.label(&namespace, &at("namespace"));
        if let Some(export) = export.as_ref().filter(|export| matches!(export.value, RawExport::None)) {
            self.fault(export, at("export"), Fault::RegisteredWitness);
        }
        let ingress = self.ingress(ranges, KEY);
        let (namespaces, weight) = (self.namespaces(namespaces, &at("namespaces")), self.weight(weight, &at("weight")));
        Some(ClusterSecrets {
            source: source?,
            namespace: namespace?,
            local_servers: local_servers.is_some_and(|allowed| allowed.value),
            export: export.map_or(Export::LoadBalancer, |export| export.value.into()),
            namespaces,
            ingress,
            weight,
            directives,
            mcs,
            listed: false,
        })
    }

    /// `ingressCidrs`, `insideIngressCidrs`, `globalIngressCidrs` of the object at `key`.
    fn ingress(&mut self, raw: [Option<At<Vec<At<String>>>>; 3], key: &str) -> IngressRanges {
        let [everywhere, inside, global] = raw;
        let everywhere = self.cidrs(everywhere, &format!("{key}.ingressCidrs"), declarable);
        let inside = self.cidrs(inside, &format!("{key}.insideIngressCidrs"), declarable);
        for other in &everywhere {
            if let Some(inside) = inside.iter().find(|inside| inside.cidr == other.cidr) {
                let fault = Fault::Overlap { cidr: inside.cidr, other: other.cidr, key: other.key.clone() };
                self.fault_at(inside.place, &inside.key, fault);
            }
        }
        let global = global.map(|list| self.cidrs(Some(list), &format!("{key}.globalIngressCidrs"), routable));
        let bare = |list: Vec<Cidr>| list.into_iter().map(|item| item.cidr).collect();
        IngressRanges { everywhere: bare(everywhere), inside: bare(inside), global: global.map(bare) }
    }

    fn namespaces(&mut self, raw: Option<At<Vec<At<String>>>>, key: &str) -> Namespaces {
        let Some(raw) = raw else { return Namespaces::All };
        if raw.value.is_empty() {
            self.fault(&raw, key, Fault::NoNamespaces);
        }
        let list = self.list(Some(raw), key, "namespaces", MAX_NAMESPACES);
        let list = self.distinct(list, key);
        let mut labels: Vec<_> = list.into_iter().filter_map(|(key, namespace)| self.label(&namespace, &key)).collect();
        labels.sort();
        Namespaces::Only(labels)
    }

    /// A region or the like: what a node's topology label can say, so that both can be compared.
    pub(super) fn topology(&mut self, raw: Option<At<String>>, key: &str) -> Option<Arc<str>> {
        let raw = raw?;
        if is_topology(&raw.value) {
            return Some(raw.value.into());
        }
        self.fault(&raw, key, Fault::Topology(shortened(&raw.value)));
        None
    }

    /// The items with their keys; each text once.
    pub(super) fn distinct(&mut self, list: Vec<At<String>>, key: &str) -> Vec<(String, At<String>)> {
        let mut seen = HashSet::new();
        let mut distinct = Vec::with_capacity(list.len());
        for (i, item) in list.into_iter().enumerate() {
            let key = format!("{key}[{i}]");
            if seen.insert(item.value.clone()) {
                distinct.push((key, item));
            } else {
                self.fault(&item, key, Fault::Repeated { text: shortened(&item.value) });
            }
        }
        distinct
    }

    /// The CIDRs that are well formed and pass `check`.
    pub(super) fn cidrs(
        &mut self,
        raw: Option<At<Vec<At<String>>>>,
        key: &str,
        check: fn(IpNet) -> Result<(), Fault>,
    ) -> Vec<Cidr> {
        let list = self.list(raw, key, "CIDRs", MAX_CIDRS);
        let list = self.distinct(list, key);
        let mut cidrs = Vec::with_capacity(list.len());
        for (key, raw) in list {
            match cidr(&raw.value).and_then(|cidr| check(cidr).map(|()| cidr)) {
                Ok(cidr) => cidrs.push(Cidr { cidr, key, place: place(raw.referenced) }),
                Err(fault) => self.fault(&raw, key, fault),
            }
        }
        cidrs
    }

    /// Two CIDRs are nested or disjoint, so that in the order of their networks (the wider one first) each has to be compared
    /// with only the last one that was not inside another.
    fn overlapping_clients(&mut self, cidrs: Vec<Cidr>) {
        let mut sorted: Vec<(usize, &Cidr)> = cidrs.iter().enumerate().collect();
        sorted.sort_by_key(|(_, client)| (client.cidr.network(), client.cidr.prefix_len()));
        let mut outer: Option<(usize, &Cidr)> = None;
        for (i, client) in sorted {
            match outer {
                Some((first, wide)) if wide.cidr.contains(&client.cidr) => {
                    // The one that stands later in the file is the one to change.
                    let (early, late) = if first < i { (wide, client) } else { (client, wide) };
                    let fault = Fault::Overlap { cidr: late.cidr, other: early.cidr, key: early.key.clone() };
                    self.fault_at(late.place, &late.key, fault);
                }
                _ => outer = Some((i, client)),
            }
        }
    }
}

/// Whether a node's topology label can say it.
pub fn is_topology(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
}

pub(super) fn cidr(text: &str) -> Result<IpNet, Fault> {
    let cidr: IpNet = text.parse().map_err(|_| Fault::Cidr(shortened(text)))?;
    let network = cidr.trunc();
    if cidr != network {
        return Err(Fault::HostBits { cidr, network });
    }
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.network().to_ipv4_mapped().is_some() => {
            Err(Fault::Mapped(shortened(text)))
        }
        _ => Ok(network),
    }
}

/// `clientCidrs` tell insiders from the rest of the world, which a range without a prefix can't.
fn some_clients(cidr: IpNet) -> Result<(), Fault> {
    if cidr.prefix_len() == 0 { Err(Fault::EveryClient(cidr)) } else { Ok(()) }
}
