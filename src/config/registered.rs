//! Clusters that are registered at run time, by Secrets in one namespace.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{Cluster, Config, Export, IngressRanges, MAX_CLUSTERS, Namespaces, Source};
use crate::model::{Label, Region};

/// Where such Secrets are, and what each of the clusters may do.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSecrets {
    /// The API that holds them; not manifests.
    pub source: Source,
    pub namespace: Label,
    /// Their API servers may be at loopback, link-local and unspecified addresses.
    pub local_servers: bool,
    pub export: Export,
    pub namespaces: Namespaces,
    pub ingress: IngressRanges,
    pub weight: u16,
    /// As for the configured clusters.
    pub directives: Option<Label>,
    pub mcs: bool,
    /// They were listed since this process began; until then, there may be clusters that nobody knows of.
    pub listed: bool,
}

/// What a Secret says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// `None`: it is known from an earlier process that there was one.
    pub credentials: Option<Credentials>,
    pub region: Option<Region>,
}

/// A kubeconfig with nothing in it but a server and how to be let in. It is neither shown nor written anywhere.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials(Arc<str>);

impl Credentials {
    pub fn new(kubeconfig: &str) -> Credentials {
        Credentials(kubeconfig.into())
    }

    pub fn kubeconfig(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Why a registered cluster is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// A cluster of the configuration has that name.
    Taken,
    /// There are as many clusters as there can be.
    Full,
}

impl ClusterSecrets {
    /// The same Secrets, judged alike.
    pub fn same_place(&self, other: &ClusterSecrets) -> bool {
        let place = |one: &ClusterSecrets| (one.source.clone(), one.namespace.clone(), one.local_servers);
        place(self) == place(other)
    }

    /// One of the clusters. It does not vote, has no clients of its own, and no network: whoever may write those Secrets
    /// decides neither what is Down nor which answers are given inside other clusters.
    pub fn cluster(&self, name: &Label, registration: &Registration) -> Cluster {
        let Registration { credentials, region } = registration.clone();
        Cluster {
            name: name.clone(),
            source: Source::Registered(credentials),
            placed_by_nodes: region.is_none(),
            region,
            availability_zones: Vec::new(),
            network: None,
            client_cidrs: Vec::new(),
            ingress: self.ingress.clone(),
            export: self.export,
            namespaces: self.namespaces.clone(),
            weight: self.weight,
            voter: None,
            directives: self.directives.clone(),
            mcs: self.mcs,
        }
    }
}

impl Cluster {
    pub fn is_registered(&self) -> bool {
        matches!(self.source, Source::Registered(_))
    }
}

impl Config {
    /// Puts exactly these clusters behind the configured ones, by name, so that all instances have the same order. Gives
    /// those that have no place.
    pub fn register(&mut self, registered: &BTreeMap<Label, Registration>) -> Vec<(Label, LeftOut)> {
        self.clusters.retain(|cluster| !cluster.is_registered());
        let Some(secrets) = &self.cluster_secrets else { return Vec::new() };
        let configured = self.clusters.len();
        let mut left_out = Vec::new();
        for (name, registration) in registered {
            if self.clusters[..configured].iter().any(|cluster| cluster.name == *name) {
                left_out.push((name.clone(), LeftOut::Taken));
            } else if self.clusters.len() == MAX_CLUSTERS {
                left_out.push((name.clone(), LeftOut::Full));
            } else {
                self.clusters.push(secrets.cluster(name, registration));
            }
        }
        left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(text: &str) -> Registration {
        Registration { credentials: Some(Credentials::new(text)), region: None }
    }

    fn config(clusters: &[&str]) -> Config {
        let mut config = Config::of(clusters.iter().map(|name| Cluster::named(name)).collect());
        config.cluster_secrets = Some(ClusterSecrets {
            source: Source::InCluster,
            namespace: Label::parse("clusters").unwrap(),
            local_servers: false,
            export: Export::Annotated,
            namespaces: Namespaces::Only(vec![Label::parse("shop").unwrap()]),
            ingress: IngressRanges { everywhere: vec!["10.9.0.0/16".parse().unwrap()], ..IngressRanges::default() },
            weight: 7,
            directives: Some(Label::parse("signpost").unwrap()),
            mcs: true,
            listed: true,
        });
        config
    }

    fn names(config: &Config) -> Vec<&str> {
        config.clusters.iter().map(|cluster| cluster.name.as_str()).collect()
    }

    fn all(names: &[&str]) -> BTreeMap<Label, Registration> {
        names.iter().map(|name| (Label::parse(name).unwrap(), registration(name))).collect()
    }

    #[test]
    fn the_configured_ones_keep_their_names_and_numbers() {
        let mut config = config(&["z", "b"]);
        let left_out = config.register(&all(&["b", "c", "a"]));
        assert_eq!(names(&config), ["z", "b", "a", "c"]);
        assert_eq!(left_out, [(Label::parse("b").unwrap(), LeftOut::Taken)]);
        assert!(!config.clusters[1].is_registered());
        assert_eq!(config.register(&all(&["c"])), []);
        assert_eq!(names(&config), ["z", "b", "c"]);
        let cluster = config.clusters[2].clone();
        let secrets = config.cluster_secrets.take().unwrap();
        let as_granted = Cluster {
            source: Source::Registered(Some(Credentials::new("c"))),
            placed_by_nodes: true,
            export: Export::Annotated,
            namespaces: secrets.namespaces.clone(),
            ingress: secrets.ingress.clone(),
            weight: 7,
            directives: secrets.directives.clone(),
            mcs: true,
            ..Cluster::named("c")
        };
        assert_eq!(cluster, as_granted);
        assert_eq!(config.register(&all(&["c"])), [], "nobody may be registered any more");
        assert_eq!(names(&config), ["z", "b"]);
    }

    #[test]
    fn there_is_an_end_to_them() {
        let mut config = config(&["z"]);
        let many: Vec<String> = (0..MAX_CLUSTERS + 1).map(|number| format!("c{number:05}")).collect();
        let left_out = config.register(&all(&many.iter().map(String::as_str).collect::<Vec<_>>()));
        assert_eq!(config.clusters.len(), MAX_CLUSTERS);
        let full = |name: &str| (Label::parse(name).unwrap(), LeftOut::Full);
        assert_eq!(left_out, [full("c01023"), full("c01024")]);
    }

    #[test]
    fn credentials_are_not_shown() {
        let cluster =
            config(&[]).cluster_secrets.unwrap().cluster(&Label::parse("a").unwrap(), &registration("secret"));
        let shown = format!("{cluster:?}");
        assert!(shown.contains("Registered(Some(Credentials))") && !shown.contains("secret"), "{shown}");
    }
}
