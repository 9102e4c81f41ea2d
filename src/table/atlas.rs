//! What the table knows of places: where a client outside is → what each cluster is to it.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::map::prefetch;
use super::{Retired, Table};
use crate::config::{Config, Places};
use crate::location::{Begun, Geography, OrderingId, Spot, UNKNOWN, overlaid};
use crate::model::Label;
use crate::ranking::{Reach, Tier, sites, world};

/// Prefixes from one source with what is there.
pub type Layer = Vec<(IpNet, Spot)>;

/// For one list of clusters.
pub struct Atlas {
    geography: Geography,
    /// By ordering, then by cluster, in one piece: an answer takes a few octets of it, of another place than the last one.
    reach: Box<[Reach]>,
    clusters: usize,
}

impl Atlas {
    /// `places`: what the files of `config.location.places` say; `databases`: the same of each database. What the operator
    /// says of an address counts before what the clusters' client CIDRs do, and this before the databases, the first of
    /// them first.
    pub fn new(config: &Config, places: Layer, databases: Vec<Layer>) -> Atlas {
        let mut operator = places;
        operator.extend(inline_places(config));
        let clusters = clients(config).map(|(cidr, spot, _)| (cidr, spot)).collect();
        let layers = [operator, clusters].into_iter().chain(databases);
        let geography = Geography::build(&sites(&config.clusters), &world(config), overlaid(layers));
        let reach = |&tier: &u8| Reach { tier: Tier::new(tier), pods: false };
        let reach = geography.orderings().flatten().map(reach).collect();
        Atlas { geography, reach, clusters: config.clusters.len() }
    }

    pub fn geography(&self) -> &Geography {
        &self.geography
    }

    /// What each cluster is to every client; `None`: that goes by place.
    pub(super) fn anywhere(&self) -> Option<&[Reach]> {
        (!self.geography.depends_on_place()).then(|| self.reach(UNKNOWN))
    }

    /// What each cluster is to the client there, and for how many bits of its subnet, if it is one's, this is the same.
    #[inline(always)]
    pub(super) fn look_up(&self, origin: Origin<'_>) -> (&[Reach], u8) {
        let (ordering, scope) = self.geography.look_up(origin.address, origin.subnet, origin.begun);
        (self.reach(ordering), scope)
    }

    /// Asks the processor for what [`look_up`](Atlas::look_up) reads first.
    #[inline]
    pub(super) fn prefetch_first(&self, origin: Origin<'_>) {
        prefetch(self.geography.prefixes(origin.subnet).first_read(*origin.address));
    }

    /// For what it reads then; gives what was found by that.
    #[inline]
    pub(super) fn prefetch_second(&self, origin: Origin<'_>) -> Begun {
        let (read, begun) = self.geography.prefixes(origin.subnet).second_read(*origin.address);
        prefetch(read);
        begun
    }

    #[inline]
    fn reach(&self, ordering: OrderingId) -> &[Reach] {
        &self.reach[usize::from(ordering.0) * self.clusters..][..self.clusters]
    }
}

/// The address that a client's place goes by.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    address: &'a IpAddr,
    /// A subnet begins there that the client speaks for.
    subnet: bool,
    /// What [`prefetch_order`](super::Snapshot::prefetch_order) of the same snapshot gave for it.
    begun: Option<Begun>,
}

impl<'a> Origin<'a> {
    /// `subnet`: `address` is not a client's, but the first of a subnet that it asks for.
    #[inline]
    pub fn new(address: &'a IpAddr, subnet: bool) -> Origin<'a> {
        Origin { address, subnet, begun: None }
    }

    /// With what [`prefetch_order`](super::Snapshot::prefetch_order) of the same snapshot gave for it.
    #[inline]
    pub fn with(self, begun: Option<Begun>) -> Origin<'a> {
        Origin { begun, ..self }
    }

    pub fn address(&self) -> IpAddr {
        *self.address
    }
}

/// What stands in the configuration itself; it counts before what a file says of the same prefix.
pub fn inline_places(config: &Config) -> impl Iterator<Item = (IpNet, Spot)> {
    let inline = config.location.places.iter().filter_map(|place| match place {
        Places::Inline { region, availability_zone, cidrs } => Some((region, availability_zone, cidrs)),
        Places::File(_) => None,
    });
    inline.flat_map(|(region, availability_zone, cidrs)| {
        let spot = Spot {
            region: Some(region.clone()),
            availability_zones: availability_zone.iter().cloned().collect(),
            coordinates: None,
        };
        cidrs.iter().map(move |cidr| (*cidr, spot.clone()))
    })
}

/// Where the clients of the clusters are, and of which.
pub fn clients(config: &Config) -> impl Iterator<Item = (IpNet, Spot, &Label)> {
    config.clusters.iter().flat_map(|cluster| {
        let spot = Spot {
            region: cluster.region.clone(),
            availability_zones: cluster.availability_zones.clone(),
            coordinates: None,
        };
        cluster.client_cidrs.iter().map(move |cidr| (*cidr, spot.clone(), &cluster.name))
    })
}

/// Replaces the atlas of the table that is published. Nobody may replace the table meanwhile: an atlas is for its clusters.
pub struct Cartographer(pub(super) Arc<ArcSwap<Table>>);

impl Cartographer {
    /// Gives the old one.
    pub fn publish(&self, atlas: Atlas) -> Retired {
        Retired(self.0.load().atlas.swap(Arc::new(atlas)))
    }
}
