//! Which candidates a client gets for a service, and in which order. Pure: the same arguments, the same ranking.
//!
//! Two questions are kept apart: the band decides membership and SRV priority; inside a band the order is a weighted
//! random one, drawn anew for each answer.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::config::{Cluster, Families};
use crate::location::is_special_purpose;
use crate::model::{ClusterAddress, ClusterId, Exposure, Federated, Pod, Share, View};

/// The weight of a cluster that says nothing of it. Only ratios count.
pub const DEFAULT_WEIGHT: u16 = 100;

/// How near a candidate is to the client; the order of the variants is the order of the bands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    OwnCluster,
    SameAvailabilityZone,
    SameRegion,
    /// Also every candidate of a client whose place is unknown.
    Rest,
}

/// A cluster's share as one view sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    pub share: &'a Share,
    pub tier: Tier,
    pub weight: u16,
    /// What may be published to this view, in the order of preference.
    pub addresses: Vec<IpAddr>,
    /// The pods behind the addresses, where the share is headless and this view may see them.
    pub pods: &'a [Pod],
}

impl Candidate<'_> {
    pub fn cluster(&self) -> ClusterId {
        self.share.cluster
    }

    /// An own cluster's pods are listed by their own readiness; everything else by the share's.
    fn is_ready(&self) -> bool {
        if self.pods.is_empty() { self.share.ready } else { true }
    }
}

/// A service as one view sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranking<'a> {
    /// Every share that exists for the view, ready or not, with or without an address; ordered by cluster.
    pub visible: Vec<Candidate<'a>>,
    /// Indices into `visible` of those to answer with, the best band first; see [`Ranking::bands_with`].
    pub bands: Vec<Vec<usize>>,
    pub ipv4: bool,
    pub ipv6: bool,
    /// Addresses that no view may see: special-purpose, and not among the cluster's ingress CIDRs.
    pub undeclared: Vec<(ClusterId, IpAddr)>,
}

impl Ranking<'_> {
    /// The bands for a family or a port that not every candidate has: if none of the chosen ones has it, all with an
    /// address are candidates. What is NODATA must not change with readiness.
    pub fn bands_with(&self, has: impl Fn(&Candidate<'_>) -> bool) -> Cow<'_, [Vec<usize>]> {
        if self.bands.iter().flatten().any(|&i| has(&self.visible[i])) {
            return Cow::Borrowed(&self.bands);
        }
        let all = (0..self.visible.len()).filter(|&i| !self.visible[i].addresses.is_empty());
        Cow::Owned(bands(&self.visible, all.collect()))
    }
}

fn bands(visible: &[Candidate<'_>], mut chosen: Vec<usize>) -> Vec<Vec<usize>> {
    chosen.sort_by_key(|&i| (visible[i].tier, i));
    chosen.chunk_by(|&a, &b| visible[a].tier == visible[b].tier).map(<[usize]>::to_vec).collect()
}

/// `None`: the service does not exist for this view.
pub fn rank<'a>(service: &'a Federated, view: View, clusters: &[Cluster], families: Families) -> Option<Ranking<'a>> {
    let mut undeclared = Vec::new();
    let visible: Vec<Candidate<'a>> =
        service.shares.iter().filter_map(|share| candidate(share, view, clusters, &mut undeclared)).collect();
    if visible.is_empty() {
        return None;
    }
    let with_address = || (0..visible.len()).filter(|&i| !visible[i].addresses.is_empty());
    // Readiness is no vote: without a ready endpoint a cluster is no candidate, unless that would leave none.
    let any_ready = with_address().any(|i| visible[i].is_ready());
    let bands = bands(&visible, with_address().filter(|&i| visible[i].is_ready() || !any_ready).collect());

    // By all exporting clusters, not by the ready ones: what is NODATA must not change with readiness. A cluster without
    // any address (a load balancer that has none yet, a headless service without a ready pod) says nothing of families.
    let has = |i: usize, v4: bool| visible[i].addresses.iter().any(|a| a.is_ipv4() == v4);
    let everywhere = |v4: bool| with_address().all(|i| has(i, v4));
    let anywhere = |v4: bool| with_address().any(|i| has(i, v4));
    let common = with_address().next().is_some() && (everywhere(true) || everywhere(false));
    let (ipv4, ipv6) = match families {
        Families::Common if common => (everywhere(true), everywhere(false)),
        Families::Common | Families::Any => (anywhere(true), anywhere(false)),
    };
    Some(Ranking { visible, bands, ipv4, ipv6, undeclared })
}

fn candidate<'a>(
    share: &'a Share,
    view: View,
    clusters: &[Cluster],
    undeclared: &mut Vec<(ClusterId, IpAddr)>,
) -> Option<Candidate<'a>> {
    let (tier, shares_pods) = match view {
        View::External => (Tier::Rest, false),
        View::Internal(own) => {
            let (own_cluster, other) = (&clusters[own.index()], &clusters[share.cluster.index()]);
            let network = own_cluster.network.is_some() && own_cluster.network == other.network;
            (tier(own, share.cluster, clusters), network)
        }
    };
    let (addresses, pods) = match (&share.cluster_address, tier) {
        (ClusterAddress::Virtual(addresses), Tier::OwnCluster) => (addresses.clone(), &[][..]),
        (ClusterAddress::Headless, Tier::OwnCluster) => (pod_addresses(share), &share.pods[..]),
        (ClusterAddress::Headless, _) if shares_pods => (pod_addresses(share), &share.pods[..]),
        (ClusterAddress::Virtual(_) | ClusterAddress::Headless, _) => match share.exposure {
            Exposure::ClusterOnly => return None,
            Exposure::LoadBalancer => (published_ingress(share, clusters, undeclared), &[][..]),
        },
    };
    Some(Candidate { share, tier, weight: DEFAULT_WEIGHT, addresses, pods })
}

fn tier(own: ClusterId, other: ClusterId, clusters: &[Cluster]) -> Tier {
    let (here, there) = (&clusters[own.index()], &clusters[other.index()]);
    if own == other {
        Tier::OwnCluster
    } else if here.region.is_none() || here.region != there.region {
        Tier::Rest
    } else if here.availability_zones.iter().any(|az| there.availability_zones.contains(az)) {
        Tier::SameAvailabilityZone
    } else {
        Tier::SameRegion
    }
}

fn pod_addresses(share: &Share) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = share.pods.iter().flat_map(|pod| pod.addresses.iter().copied()).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// The origin rule: globally routable, or declared by the operator.
fn published_ingress(share: &Share, clusters: &[Cluster], undeclared: &mut Vec<(ClusterId, IpAddr)>) -> Vec<IpAddr> {
    let declared = &clusters[share.cluster.index()].ingress_cidrs;
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(share.ingress.len());
    for &address in &share.ingress {
        if is_special_purpose(address) && !declared.iter().any(|cidr| cidr.contains(&address)) {
            undeclared.push((share.cluster, address));
        } else if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}
