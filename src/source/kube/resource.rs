//! The kinds that are asked for, as the API has them.

use crate::index::Kind;

/// A kind's collection.
pub struct Resource {
    /// The path of each version of its group, the best one first.
    pub versions: &'static [&'static str],
    /// As it stands in the path.
    pub plural: &'static str,
    /// What a list of it is, in each version.
    pub lists: &'static [&'static str],
    /// A part of the query of lists and watches.
    pub selector: &'static str,
    /// Whether its objects are in namespaces.
    pub is_namespaced: bool,
    pub presence: Presence,
}

/// What it means that the API does not have a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Every API server has it: this is a failure.
    Always,
    /// The configuration asks for it, but nobody has installed it yet: there are no objects, and the operator is warned.
    Asked,
    /// Nobody has installed it, or nobody has given the right to read it, and nobody need do so.
    Optional,
    /// The configuration says that operators may say something here. Where nobody has given the right to read it, they say nothing,
    /// and are warned.
    Steered,
    /// The configuration says that this cluster votes. Where nobody has given the right to read it, it abstains, and the operator is
    /// warned.
    Voted,
}

/// Both have the same shape, and clusters have the one, the other or both.
const MCS: &[&str] = &["/apis/multicluster.x-k8s.io/v1beta1", "/apis/multicluster.x-k8s.io/v1alpha1"];

/// Others keep their Leases and ConfigMaps in any namespace.
const VOTES: &str = "&labelSelector=signpost.dev%2Fhealth";

impl Resource {
    pub fn of(kind: Kind) -> &'static Resource {
        match kind {
            Kind::Service => &Resource {
                versions: &["/api/v1"],
                plural: "services",
                lists: &["ServiceList of v1"],
                selector: "",
                is_namespaced: true,
                presence: Presence::Always,
            },
            Kind::EndpointSlice => &Resource {
                versions: &["/apis/discovery.k8s.io/v1"],
                plural: "endpointslices",
                lists: &["EndpointSliceList of discovery.k8s.io/v1"],
                // Slices of no Service say nothing that is answered with.
                selector: "&labelSelector=kubernetes.io%2Fservice-name",
                is_namespaced: true,
                presence: Presence::Always,
            },
            Kind::ServiceExport => &Resource {
                versions: MCS,
                plural: "serviceexports",
                lists: &[
                    "ServiceExportList of multicluster.x-k8s.io/v1beta1",
                    "ServiceExportList of multicluster.x-k8s.io/v1alpha1",
                ],
                selector: "",
                is_namespaced: true,
                presence: Presence::Asked,
            },
            Kind::ServiceImport => &Resource {
                versions: MCS,
                plural: "serviceimports",
                lists: &[
                    "ServiceImportList of multicluster.x-k8s.io/v1beta1",
                    "ServiceImportList of multicluster.x-k8s.io/v1alpha1",
                ],
                selector: "",
                is_namespaced: true,
                presence: Presence::Asked,
            },
            Kind::ServiceLoad => &Resource {
                versions: &["/apis/signpost.dev/v1alpha1"],
                plural: "serviceloads",
                lists: &["ServiceLoadList of signpost.dev/v1alpha1"],
                selector: "",
                is_namespaced: true,
                presence: Presence::Optional,
            },
            Kind::ClusterLoad => &Resource {
                versions: &["/apis/signpost.dev/v1alpha1"],
                plural: "clusterloads",
                lists: &["ClusterLoadList of signpost.dev/v1alpha1"],
                selector: "",
                is_namespaced: false,
                presence: Presence::Optional,
            },
            Kind::Lease => &Resource {
                versions: &["/apis/coordination.k8s.io/v1"],
                plural: "leases",
                lists: &["LeaseList of coordination.k8s.io/v1"],
                selector: VOTES,
                is_namespaced: true,
                presence: Presence::Voted,
            },
            Kind::Directive => &Resource {
                versions: &["/api/v1"],
                plural: "configmaps",
                lists: &["ConfigMapList of v1"],
                selector: "&labelSelector=signpost.dev%2Fdirective",
                is_namespaced: true,
                presence: Presence::Steered,
            },
            Kind::HealthReport => &Resource {
                versions: &["/api/v1"],
                plural: "configmaps",
                lists: &["ConfigMapList of v1"],
                selector: VOTES,
                is_namespaced: true,
                presence: Presence::Voted,
            },
        }
    }

    /// The collection's path in one of its versions, without a query.
    pub fn path(&self, version: usize, namespace: Option<&str>) -> String {
        let (group, plural) = (self.versions[version], self.plural);
        match namespace {
            None => format!("{group}/{plural}"),
            Some(namespace) => format!("{group}/namespaces/{namespace}/{plural}"),
        }
    }
}
