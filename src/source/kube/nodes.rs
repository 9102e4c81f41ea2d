//! Where a cluster is, by the well-known labels of its nodes. Nodes change all the time and their places hardly ever: they are not
//! watched but listed now and then, and only their metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::client::{Api, Failure, escape};
use super::list::ListDecoder;
use crate::config::{MAX_AVAILABILITY_ZONES, is_topology};
use crate::model::{AvailabilityZone, Place, Region};

/// Of one page. A node's metadata takes some kB.
const PAGE: u32 = 500;
/// More nodes say nothing new.
const MAX_PAGES: u32 = 100;
/// An API server that cannot leave out the rest sends all of it.
const ACCEPT: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=1, application/json";

/// What the nodes of a cluster say.
#[derive(Debug, Default)]
struct Told {
    /// How many nodes are there.
    regions: BTreeMap<String, usize>,
    availability_zones: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Node {
    metadata: Meta,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    labels: Option<Labels>,
}

#[derive(Deserialize)]
struct Labels {
    #[serde(rename = "topology.kubernetes.io/region", default)]
    region: Option<String>,
    #[serde(rename = "topology.kubernetes.io/zone", default)]
    zone: Option<String>,
}

impl Told {
    /// A node that is not understood says nothing.
    fn node(&mut self, raw: &[u8]) {
        let Ok(Node { metadata: Meta { labels: Some(labels) } }) = serde_json::from_slice(raw) else { return };
        let Labels { region, zone } = labels;
        if let Some(region) = region.filter(|text| is_topology(text)) {
            *self.regions.entry(region).or_default() += 1;
        }
        self.availability_zones.extend(zone.filter(|text| is_topology(text)));
    }

    /// The region of most nodes, of equals the first by name.
    fn place(self) -> Place {
        let most = self.regions.iter().max_by(|a, b| a.1.cmp(b.1).then(b.0.cmp(a.0)));
        let zones = self.availability_zones.iter().take(MAX_AVAILABILITY_ZONES);
        Place {
            region: most.map(|(region, _)| Region(Arc::from(region.as_str()))),
            availability_zones: zones.map(|zone| AvailabilityZone(Arc::from(zone.as_str()))).collect(),
        }
    }
}

/// Lists the nodes.
pub async fn place(api: &Api) -> Result<Place, Failure> {
    let timing = api.timing();
    let end = Instant::now() + timing.list;
    let mut told = Told::default();
    let mut token: Option<String> = None;
    for _ in 0..MAX_PAGES {
        let from = token.as_deref().map(|token| format!("&continue={}", escape(token))).unwrap_or_default();
        let target = format!("/api/v1/nodes?limit={PAGE}{from}");
        let mut chunks = api.get_as(&target, ACCEPT, "a list of nodes", timing.read).await?;
        let mut decoder = ListDecoder::default();
        while let Some(chunk) = chunks.next(end.min(Instant::now() + timing.read)).await? {
            decoder.feed(&chunk, &mut |raw| {
                told.node(raw);
                Ok(())
            })?;
        }
        let head = decoder.finish()?;
        if !matches!(head.kind.as_str(), "PartialObjectMetadataList" | "NodeList") {
            return Err(Failure::Unexpected { expected: "a list of nodes", got: head.kind });
        }
        token = head.continue_token;
        if token.is_none() {
            break;
        }
        sleep(timing.watch_spacing).await;
    }
    Ok(told.place())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_most_nodes_are() {
        let cases: &[(&[&str], Option<&str>, &[&str])] = &[
            (&[], None, &[]),
            (&["{}", "[]", r#"{"metadata": {}}"#, r#"{"metadata": {"labels": null}}"#], None, &[]),
            (&[r#"{"metadata": {"labels": {"a": "b"}}}"#], None, &[]),
            (&["r1/a", "r1/b", "r2/a"], Some("r1"), &["a", "b"]),
            (&["r2/a", "r1/b"], Some("r1"), &["a", "b"]),
            (&["/a", "r1/"], Some("r1"), &["a"]),
            (&["r 1/a b"], None, &[]),
        ];
        for (nodes, region, zones) in cases {
            let mut told = Told::default();
            for node in *nodes {
                match node.split_once('/') {
                    Some((region, zone)) => {
                        let label = |name: &str, value: &str| match value {
                            "" => format!(r#""other.{name}": "x""#),
                            value => format!(r#""topology.kubernetes.io/{name}": "{value}""#),
                        };
                        let labels = format!("{}, {}", label("region", region), label("zone", zone));
                        told.node(format!(r#"{{"metadata": {{"name": "n", "labels": {{{labels}}}}}}}"#).as_bytes());
                    }
                    None => told.node(node.as_bytes()),
                }
            }
            let place = told.place();
            assert_eq!(place.region.as_ref().map(|region| &*region.0), *region, "{nodes:?}");
            assert_eq!(place.availability_zones.iter().map(|zone| &*zone.0).collect::<Vec<_>>(), *zones, "{nodes:?}");
        }
    }
}
