//! Which candidates a client gets for a service, and in which order. Pure: the same arguments, the same ranking.
//!
//! Two questions are kept apart: the band decides membership and SRV priority; inside a band the order is a weighted
//! random one, drawn anew for each answer. Nothing here allocates: it is asked for each answer, over what a record says of
//! its candidates, so that a change that concerns a whole cluster needs no record to be made anew.

use std::net::IpAddr;

use crate::config::{Cluster, Config, Families, Mode, Published};
use crate::location::{Site, Spot, World, tiers};
use crate::model::{ClusterId, Share, View};

/// How near a candidate is to the client: the lower, the nearer. Below [`Tier::COUNT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tier(u8);

impl Tier {
    pub const COUNT: u8 = 64;
    pub const OWN_CLUSTER: Tier = Tier(0);
    pub const SAME_AVAILABILITY_ZONE: Tier = Tier(1);
    pub const SAME_REGION: Tier = Tier(2);
    /// Other regions, and behind it those that are farther. Also every candidate of a client whose place is unknown.
    pub const ELSEWHERE: Tier = Tier(3);

    /// The farthest one, if there are not so many.
    pub fn new(number: u8) -> Tier {
        Tier(number.min(Tier::COUNT - 1))
    }

    #[inline]
    pub fn number(self) -> u8 {
        self.0
    }
}

/// What membership and SRV priority go by; the order of the values is the order of the bands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Band(u8);

impl Band {
    pub const COUNT: u8 = 2 * Tier::COUNT;

    /// Those that are overloaded come behind all others.
    #[inline]
    pub fn new(tier: Tier, overloaded: bool) -> Band {
        Band(tier.0 | if overloaded { Tier::COUNT } else { 0 })
    }

    /// The same tier's.
    pub fn overloaded(self, overloaded: bool) -> Band {
        Band::new(Tier(self.0 % Tier::COUNT), overloaded)
    }

    pub fn is_overloaded(self) -> bool {
        self.0 >= Tier::COUNT
    }

    #[inline]
    pub fn number(self) -> u8 {
        self.0
    }
}

/// What a view has to do with a cluster, whatever the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    pub tier: Tier,
    /// The cluster's pods can be reached as they are.
    pub pods: bool,
}

/// A candidate as one view sees it, as far as choice and order depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub band: Band,
    /// By its own cluster's word. Pods are listed by their own readiness, so that a candidate that is pods is ready.
    pub ready: bool,
    /// Its weight is 0.
    pub drained: bool,
    pub ipv4: bool,
    pub ipv6: bool,
    /// All its addresses of the family are Down.
    pub down: BothFamilies,
}

impl Standing {
    #[inline]
    pub fn has_address(&self) -> bool {
        self.ipv4 || self.ipv6
    }

    #[inline]
    pub fn has_family(&self, v4: bool) -> bool {
        if v4 { self.ipv4 } else { self.ipv6 }
    }

    /// Drained, or Down in all that would be answered with.
    #[inline]
    fn is_out(&self, asked: Asked) -> bool {
        let down = self.down;
        self.drained
            | match asked {
                Asked::Ipv4 => down.ipv4,
                Asked::Ipv6 => down.ipv6,
                Asked::Targets => down.any() & (down.ipv4 | !self.ipv4) & (down.ipv6 | !self.ipv6),
            }
    }
}

/// What candidates are chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Ipv4,
    Ipv6,
    /// The targets of SRV records, with all their addresses.
    Targets,
}

impl Asked {
    #[inline]
    pub fn family(v4: bool) -> Asked {
        if v4 { Asked::Ipv4 } else { Asked::Ipv6 }
    }
}

/// Which candidates are answered with: those that are ready, and neither drained nor Down. If there are none, drained ones and
/// Down ones help out for ready ones; and if there are none of these either, all that are neither, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    asked: Asked,
    only_ready: bool,
    /// Those that are drained or Down are left out. If not, there is nobody else: the answer fails open.
    none_out: bool,
    /// One of them is Down.
    down: bool,
}

impl Choice {
    /// For what not every candidate has, which `has` says; see [`Summary::choice`].
    pub fn among<T: AsRef<Standing>>(candidates: &[T], asked: Asked, has: impl Fn(&T) -> bool) -> Choice {
        let mut kinds = Kinds::default();
        for candidate in candidates.iter().filter(|c| c.as_ref().has_address() && has(c)) {
            kinds.0 |= Kinds::of(candidate.as_ref(), asked).0;
        }
        kinds.choice(asked)
    }

    #[inline]
    pub fn takes(self, candidate: &Standing) -> bool {
        let ready = candidate.ready || !self.only_ready;
        candidate.has_address() && ready && !(self.none_out && candidate.is_out(self.asked))
    }

    /// What is Down is answered with nevertheless, for there is nothing else.
    #[inline]
    pub fn fails_open(self) -> bool {
        self.down && !self.none_out
    }
}

/// Which kinds of candidates there are, in one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Kinds(u8);

impl Kinds {
    const READY: u8 = 1;
    const OUT: u8 = 1 << 1;
    /// Beside the bits of the kinds.
    const DOWN: u8 = 1 << 4;

    #[inline]
    fn of(candidate: &Standing, asked: Asked) -> Kinds {
        let out = candidate.is_out(asked);
        let down = u8::from(out & !candidate.drained) * Kinds::DOWN;
        Kinds(1 << (u8::from(candidate.ready) | u8::from(out) << 1) | down)
    }

    #[inline]
    fn has(self, ready: u8, out: u8) -> bool {
        self.0 >> (ready | out) & 1 != 0
    }

    #[inline]
    fn choice(self, asked: Asked) -> Choice {
        let only_ready = self.has(Kinds::READY, 0) || self.has(Kinds::READY, Kinds::OUT);
        let ready = if only_ready { Kinds::READY } else { 0 };
        Choice { asked, only_ready, none_out: self.has(ready, 0), down: self.0 & Kinds::DOWN != 0 }
    }
}

/// What is known of all candidates together, summed up while they are gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    any: BothFamilies,
    /// A candidate that has an address has none of the family.
    lacking: BothFamilies,
    /// Of those that have an address of the family.
    ipv4: Kinds,
    ipv6: Kinds,
    /// One bit for each band in which a candidate has an address: those that are not overloaded, and those that are.
    bands: [u64; 2],
    /// Load has its say in bands and weights.
    loaded: bool,
    /// The second one goes first in this answer.
    exchanged: Option<(Band, Band)>,
}

/// Something that is so for one family of addresses and for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BothFamilies {
    pub ipv4: bool,
    pub ipv6: bool,
}

impl BothFamilies {
    #[inline]
    pub fn any(self) -> bool {
        self.ipv4 | self.ipv6
    }
}

impl Summary {
    #[inline]
    pub fn add(&mut self, candidate: &Standing) {
        if candidate.has_address() {
            self.any.ipv4 |= candidate.ipv4;
            self.any.ipv6 |= candidate.ipv6;
            self.lacking.ipv4 |= !candidate.ipv4;
            self.lacking.ipv6 |= !candidate.ipv6;
            let kind = |asked| Kinds::of(candidate, asked).0;
            self.ipv4.0 |= if candidate.ipv4 { kind(Asked::Ipv4) } else { 0 };
            self.ipv6.0 |= if candidate.ipv6 { kind(Asked::Ipv6) } else { 0 };
            self.add_band(candidate.band);
        }
    }

    /// Before each candidate's band is [added](Summary::add_band) anew, by its load.
    pub fn clear_bands(&mut self) {
        (self.bands, self.loaded) = ([0; 2], true);
    }

    #[inline]
    pub fn add_band(&mut self, band: Band) {
        self.bands[usize::from(band.0 / Tier::COUNT)] |= 1 << (band.0 % Tier::COUNT);
    }

    #[inline]
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// These two change places.
    pub fn exchange(&mut self, best: Band, next: Band) {
        self.exchanged = Some((best, next));
    }

    /// Those in which a candidate has an address, the best first.
    #[inline]
    pub fn bands(self) -> impl Iterator<Item = Band> {
        let [mut calm, mut overloaded] = self.bands;
        std::iter::from_fn(move || {
            let next = if calm != 0 {
                let next = calm.trailing_zeros() as u8;
                calm &= calm - 1;
                Band(next)
            } else if overloaded != 0 {
                let next = overloaded.trailing_zeros() as u8;
                overloaded &= overloaded - 1;
                Band(Tier::COUNT | next)
            } else {
                return None;
            };
            Some(match self.exchanged {
                None => next,
                Some((one, other)) if one == next => other,
                Some((one, other)) if other == next => one,
                Some(_) => next,
            })
        })
    }

    /// Readiness is no vote: a cluster without a ready endpoint is no candidate, unless that would leave none with what is
    /// asked for: what is NODATA must not change with readiness, nor with weights or health.
    #[inline]
    pub fn choice(self, v4: bool) -> Choice {
        let kinds = if v4 { self.ipv4 } else { self.ipv6 };
        kinds.choice(Asked::family(v4))
    }

    /// Which families the service has at its own name: IPv4, IPv6. By all exporting clusters, not by the ready ones: what
    /// is NODATA must not change with readiness. A cluster without any address (a load balancer that has none yet, a
    /// headless service without a ready pod) says nothing of families.
    #[inline]
    pub fn families(self, rule: Families) -> (bool, bool) {
        let Summary { any, lacking, .. } = self;
        let everywhere = (any.ipv4 && !lacking.ipv4, any.ipv6 && !lacking.ipv6);
        match rule {
            Families::Common if everywhere.0 || everywhere.1 => everywhere,
            Families::Common | Families::Any => (any.ipv4, any.ipv6),
        }
    }
}

/// Where an answer with addresses is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub mode: Mode,
    /// Most addresses in one answer.
    pub most: u8,
}

impl Cut {
    /// How many addresses are answered with, if the best band has `best`. `whole`: there are pods among them, which a cut
    /// never goes through: each may hold a part of the data.
    #[inline(always)]
    pub fn addresses(self, best: usize, whole: bool) -> usize {
        let most = if whole { usize::MAX } else { usize::from(self.most) };
        match self.mode {
            Mode::Ordered => most,
            Mode::Nearest { spare } => most.min(best + usize::from(spare)),
            Mode::Single if whole => best,
            Mode::Single => 1,
        }
    }
}

/// The clusters as far as distance goes by them.
pub fn sites(clusters: &[Cluster]) -> Vec<Site<'_>> {
    fn site(cluster: &Cluster) -> Site<'_> {
        Site { region: cluster.region.as_ref(), availability_zones: &cluster.availability_zones }
    }
    clusters.iter().map(site).collect()
}

/// What the configuration says of distances.
pub fn world(config: &Config) -> World<'_> {
    World { coordinates: &config.location.regions, distances: &config.location.distances }
}

/// What each cluster is to a view, by cluster. To clients outside: if nothing is known of their place.
pub fn reach(view: View, config: &Config) -> Box<[Reach]> {
    let clusters = &config.clusters;
    let View::Internal(own) = view else {
        return clusters.iter().map(|_| Reach { tier: Tier::ELSEWHERE, pods: false }).collect();
    };
    let here = config.cluster(own);
    let spot =
        Spot { region: here.region.clone(), availability_zones: here.availability_zones.clone(), coordinates: None };
    let tiers = tiers(&spot, &sites(clusters), &world(config));
    let reach = |((id, there), tier): ((ClusterId, &Cluster), &u8)| {
        let is_own = id == own;
        let network = here.network.is_some() && here.network == there.network;
        let tier = if is_own { Tier::OWN_CLUSTER } else { Tier::new(*tier) };
        Reach { tier, pods: network || is_own }
    };
    config.numbered().zip(&tiers).map(reach).collect()
}

/// A share's ingress addresses by the origin rule: globally routable, or declared by the operator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ingress {
    /// For clients outside. All in the object's order, each once.
    pub outside: Vec<IpAddr>,
    /// For clients inside of clusters: those and perhaps more.
    pub inside: Vec<IpAddr>,
    /// Not in the cluster's ranges: no view may see them.
    pub undeclared: Vec<IpAddr>,
}

impl Ingress {
    pub fn of(share: &Share, cluster: &Cluster) -> Ingress {
        let mut ingress = Ingress::default();
        ingress.set(share, cluster);
        ingress
    }

    /// Becomes what [`of`](Ingress::of) gives.
    pub fn set(&mut self, share: &Share, cluster: &Cluster) {
        let Ingress { outside, inside, undeclared } = self;
        for list in [&mut *outside, inside, undeclared] {
            list.clear();
        }
        for &address in &share.ingress {
            let lists: &mut [&mut Vec<IpAddr>] = match cluster.ingress.published(address) {
                Published::Everywhere => &mut [outside, inside],
                Published::Inside => &mut [inside],
                Published::Nowhere => &mut [undeclared],
            };
            for list in lists {
                if !list.contains(&address) {
                    list.push(address);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str, Standing);

    impl AsRef<Standing> for Named {
        fn as_ref(&self) -> &Standing {
            &self.1
        }
    }

    /// `r` ready, `d` drained, `4` IPv4, `6` IPv6, `x` IPv4 that is Down, `y` IPv6 that is Down.
    fn candidates(list: &[&'static str]) -> Vec<Named> {
        let standing = |text: &'static str| Standing {
            band: Band::new(Tier::ELSEWHERE, false),
            ready: text.contains('r'),
            drained: text.contains('d'),
            ipv4: text.contains(['4', 'x']),
            ipv6: text.contains(['6', 'y']),
            down: BothFamilies { ipv4: text.contains('x'), ipv6: text.contains('y') },
        };
        list.iter().map(|text| Named(text, standing(text))).collect()
    }

    fn summary(candidates: &[Named]) -> Summary {
        let mut summary = Summary::default();
        candidates.iter().for_each(|c| summary.add(&c.1));
        summary
    }

    #[test]
    fn only_ready_ones_unless_none_has_what_is_asked_for() {
        for (list, v4, expected) in [
            (&["r4", "4", "r4"][..], true, &["r4", "r4"][..]),
            (&["4", "4"], true, &["4", "4"]),
            (&["r6", "4"], true, &["r6", "4"]),
            (&["r6", "4"], false, &["r6"]),
            (&["r", "4"], true, &["4"]),
            (&["r", ""], true, &[]),
            (&["r4", "rd4", "4"], true, &["r4"]),
            (&["rd4", "rd4", "4"], true, &["rd4", "rd4"]),
            (&["d4", "4"], true, &["4"]),
            (&["d4", "d4"], true, &["d4", "d4"]),
            (&["r6", "rd4"], true, &["r6", "rd4"]),
            (&["r6", "rd4"], false, &["r6"]),
            (&["r4", "rx"], true, &["r4"]),
            (&["rx", "rx", "4"], true, &["rx", "rx"]),
            (&["rx", "rd4"], true, &["rx", "rd4"]),
            (&["x", "4"], true, &["4"]),
            (&["x", "x"], true, &["x", "x"]),
            (&["rx6", "r46"], true, &["r46"]),
            (&["rx6", "r46"], false, &["rx6", "r46"]),
        ] {
            let candidates = candidates(list);
            let choice = Choice::among(&candidates, Asked::family(v4), |c| c.1.has_family(v4));
            assert_eq!(summary(&candidates).choice(v4), choice, "{list:?}");
            let taken: Vec<&str> = candidates.iter().filter(|c| choice.takes(&c.1)).map(|c| c.0).collect();
            assert_eq!(taken, expected, "{list:?}");
        }
    }

    #[test]
    fn a_target_is_down_with_all_its_families() {
        for (list, expected, open) in [
            (&["r4", "rx"][..], &["r4"][..], false),
            (&["rx6", "ry4", "r4"], &["rx6", "ry4", "r4"], false),
            (&["rxy", "r4", "d4"], &["r4"], false),
            (&["rxy", "rx"], &["rxy", "rx"], true),
            (&["rx", "4"], &["rx"], true),
        ] {
            let candidates = candidates(list);
            let choice = Choice::among(&candidates, Asked::Targets, |_| true);
            let taken: Vec<&str> = candidates.iter().filter(|c| choice.takes(&c.1)).map(|c| c.0).collect();
            assert_eq!((&taken[..], choice.fails_open()), (expected, open), "{list:?}");
        }
    }

    #[test]
    fn families_are_those_of_all_who_have_an_address() {
        for (list, common, any) in [
            (&["r4", "4"][..], (true, false), (true, false)),
            (&["46", "r4"], (true, false), (true, true)),
            (&["46", "r6"], (false, true), (true, true)),
            (&["46", "46"], (true, true), (true, true)),
            (&["4", "6"], (true, true), (true, true)),
            (&["4", "r"], (true, false), (true, false)),
            (&["r"], (false, false), (false, false)),
            (&[], (false, false), (false, false)),
        ] {
            let summary = summary(&candidates(list));
            assert_eq!(summary.families(Families::Common), common, "{list:?}");
            assert_eq!(summary.families(Families::Any), any, "{list:?}");
        }
    }

    #[test]
    fn an_answer_is_cut_by_its_mode() {
        let nearest = |spare| Mode::Nearest { spare };
        for (mode, best, whole, expected) in [
            (Mode::Ordered, 2, false, 8),
            (Mode::Ordered, 2, true, usize::MAX),
            (nearest(0), 2, false, 2),
            (nearest(1), 2, false, 3),
            (nearest(255), 2, false, 8),
            (nearest(0), 20, false, 8),
            (nearest(1), 20, true, 21),
            (Mode::Single, 2, false, 1),
            (Mode::Single, 2, true, 2),
        ] {
            assert_eq!(Cut { mode, most: 8 }.addresses(best, whole), expected, "{mode:?} {best} {whole}");
        }
    }

    #[test]
    fn bands_are_those_with_an_address() {
        let band = |tier, overloaded| Band::new(Tier::new(tier), overloaded);
        let mut summary = Summary::default();
        assert_eq!(summary.bands().next(), None);
        for (band, ipv4) in [
            (band(3, false), true),
            (band(2, false), false),
            (band(0, true), true),
            (band(63, false), true),
            (band(200, true), true),
            (band(0, false), true),
        ] {
            summary.add(&Standing {
                band,
                ready: false,
                drained: false,
                ipv4,
                ipv6: false,
                down: BothFamilies::default(),
            });
        }
        let expected =
            [(0, false), (3, false), (63, false), (0, true), (63, true)].map(|(tier, over)| band(tier, over));
        assert_eq!(summary.bands().collect::<Vec<_>>(), expected);
    }
}
