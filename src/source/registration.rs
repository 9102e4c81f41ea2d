//! A Secret that registers a cluster, as written → what it says, or why it is not used.
//!
//! Whoever may write such Secrets is not trusted with this machine: a kubeconfig in one may name a server and hold what
//! lets us in, and nothing in it may make us run a program, read a file, or talk to somebody else. What is used is put
//! together anew from the fields that are known to be harmless. No text of a Secret's data goes into a message.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ::kube::config::{AuthInfo, Cluster, Context, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext};
use k8s_openapi::ByteString;
use serde::Deserialize;

use crate::config::{Credentials, LeftOut, Registration, is_topology};
use crate::model::{Label, Region};

/// The label by which such Secrets are found; whatever its value is.
pub const LABEL: &str = "signpost.dev/cluster";
/// Where the cluster is, if its nodes do not say it.
const REGION: &str = "signpost.dev/region";
/// The key of the data.
const KUBECONFIG: &str = "kubeconfig";
/// Octets of a kubeconfig: one with two certificates and a key has 8 kB.
const MOST: usize = 64 << 10;
/// What the only entry of each list is called in what is used.
const NAME: &str = "registered";

/// Why a Secret is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("metadata.name is no DNS label, and a cluster has the name of its Secret")]
    Name,
    #[error("a cluster of the configuration has this name")]
    Taken,
    #[error("there are as many clusters as there can be")]
    Full,
    #[error("metadata.annotations[{REGION}] is not what a node's topology label could be")]
    Region,
    #[error("it is not understood: data has to be base64")]
    Object,
    #[error("data.{KUBECONFIG} is missing")]
    NoKubeconfig,
    #[error("data.{KUBECONFIG} has more than {MOST} octets")]
    Large,
    #[error("data.{KUBECONFIG} is no kubeconfig{}", at(.0))]
    Syntax(Option<(u64, u64)>),
    #[error("data.{KUBECONFIG}: {field} is missing, or names nothing that is there")]
    Missing { field: String },
    #[error("data.{KUBECONFIG}: {field} is not allowed here")]
    Forbidden { field: String },
    #[error("data.{KUBECONFIG}: {field} is not an https:// URL of a host, and perhaps a port")]
    Server { field: String },
    #[error(
        "data.{KUBECONFIG}: {field} is at a loopback, link-local, multicast or unspecified address \
         (clusterSecrets.localServers would allow it)"
    )]
    LocalServer { field: String },
    #[error(
        "data.{KUBECONFIG}: the certificate-authority-data, client-certificate-data or client-key-data cannot be used"
    )]
    Credentials,
}

fn at(place: &Option<(u64, u64)>) -> String {
    place.map_or(String::new(), |(line, column)| format!(": see line {line}, column {column}"))
}

impl Unfit {
    pub const REASONS: [&str; 6] = ["name", "object", "kubeconfig", "forbidden", "server", "limit"];

    /// The metric's label, one of [`REASONS`](Unfit::REASONS).
    pub fn reason(&self) -> &'static str {
        match self {
            Unfit::Name | Unfit::Taken => "name",
            Unfit::Region | Unfit::Object | Unfit::NoKubeconfig => "object",
            Unfit::Syntax(_) | Unfit::Missing { .. } | Unfit::Credentials => "kubeconfig",
            Unfit::Forbidden { .. } => "forbidden",
            Unfit::Server { .. } | Unfit::LocalServer { .. } => "server",
            Unfit::Large | Unfit::Full => "limit",
        }
    }
}

impl From<LeftOut> for Unfit {
    fn from(left_out: LeftOut) -> Unfit {
        match left_out {
            LeftOut::Taken => Unfit::Taken,
            LeftOut::Full => Unfit::Full,
        }
    }
}

#[derive(Deserialize)]
struct Named {
    metadata: Name,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
struct Secret {
    metadata: Meta,
    #[serde(default)]
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    kubeconfig: Option<ByteString>,
}

/// The name of any object.
pub fn name_of(raw: &[u8]) -> Option<String> {
    serde_json::from_slice::<Named>(raw).ok().map(|object| object.metadata.name)
}

/// What a Secret of that name says.
pub fn read(name: &str, raw: &[u8], local_servers: bool) -> Result<(Label, Registration), Unfit> {
    let name = Label::parse(name).map_err(|_| Unfit::Name)?;
    let Secret { metadata, data } = serde_json::from_slice(raw).map_err(|_| Unfit::Object)?;
    let region = metadata.annotations.and_then(|mut all| all.remove(REGION));
    if region.as_deref().is_some_and(|region| !is_topology(region)) {
        return Err(Unfit::Region);
    }
    let ByteString(text) = data.and_then(|data| data.kubeconfig).ok_or(Unfit::NoKubeconfig)?;
    if text.len() > MOST {
        return Err(Unfit::Large);
    }
    let text = str::from_utf8(&text).map_err(|_| Unfit::Syntax(None))?;
    let credentials = Some(credentials(text, local_servers)?);
    Ok((name, Registration { credentials, region: region.map(|region| Region(Arc::from(region))) }))
}

/// A kubeconfig's current context, and nothing of it that is not known to be harmless.
fn credentials(text: &str, local_servers: bool) -> Result<Credentials, Unfit> {
    use ::kube::config::KubeconfigError::Parse;
    let kubeconfig = Kubeconfig::from_yaml(text).map_err(|error| match error {
        Parse(yaml) => Unfit::Syntax(yaml.location().map(|at| (at.line(), at.column()))),
        _ => Unfit::Syntax(None),
    })?;
    // All of it, whatever the context is: one who reads the Secret need not know which one that is.
    for (i, named) in kubeconfig.clusters.iter().enumerate() {
        let field = |field: &str| format!("clusters[{i}].cluster.{field}");
        let cluster =
            named.cluster.as_ref().ok_or_else(|| Unfit::Missing { field: format!("clusters[{i}].cluster") })?;
        check_cluster(cluster, local_servers, &field)?;
    }
    for (i, named) in kubeconfig.auth_infos.iter().enumerate() {
        if let Some(user) = &named.auth_info {
            check_user(user, &|field| format!("users[{i}].user.{field}"))?;
        }
    }
    let missing = |field: &str| Unfit::Missing { field: field.to_owned() };
    let current = kubeconfig.current_context.filter(|name| !name.is_empty()).ok_or(missing("current-context"))?;
    let context = kubeconfig.contexts.into_iter().find(|named| named.name == current);
    let context = context.and_then(|named| named.context).ok_or(missing("current-context"))?;
    let cluster = kubeconfig.clusters.into_iter().find(|named| named.name == context.cluster);
    let cluster = cluster.and_then(|named| named.cluster).ok_or(missing("the current context's cluster"))?;
    // The API would see nobody, and its "401" would not say why.
    let user = context.user.ok_or(missing("the current context's user"))?;
    let user = kubeconfig.auth_infos.into_iter().find(|named| named.name == user);
    let user = user.and_then(|named| named.auth_info).ok_or(missing("the current context's user"))?;

    let cluster = Cluster {
        server: cluster.server,
        certificate_authority_data: cluster.certificate_authority_data,
        tls_server_name: cluster.tls_server_name,
        ..Cluster::default()
    };
    let user = AuthInfo {
        token: user.token,
        client_certificate_data: user.client_certificate_data,
        client_key_data: user.client_key_data,
        ..AuthInfo::default()
    };
    let name = || NAME.to_owned();
    let context = Context { cluster: name(), user: Some(name()), ..Context::default() };
    let used = Kubeconfig {
        clusters: vec![NamedCluster { name: name(), cluster: Some(cluster), ..NamedCluster::default() }],
        auth_infos: vec![NamedAuthInfo { name: name(), auth_info: Some(user), ..NamedAuthInfo::default() }],
        contexts: vec![NamedContext { name: name(), context: Some(context), ..NamedContext::default() }],
        current_context: Some(name()),
        ..Kubeconfig::default()
    };
    let text = serde_json::to_string(&used).map_err(|_| Unfit::Syntax(None))?;
    Ok(Credentials::new(&text))
}

/// The first field that is there and must not be.
fn forbid(fields: &[(&str, bool)], field: &dyn Fn(&str) -> String) -> Result<(), Unfit> {
    match fields.iter().find(|(_, is_there)| *is_there) {
        Some((name, _)) => Err(Unfit::Forbidden { field: field(name) }),
        None => Ok(()),
    }
}

fn check_cluster(cluster: &Cluster, local_servers: bool, field: &dyn Fn(&str) -> String) -> Result<(), Unfit> {
    forbid(
        &[
            ("insecure-skip-tls-verify", cluster.insecure_skip_tls_verify == Some(true)),
            ("certificate-authority", is_given(&cluster.certificate_authority)),
            ("proxy-url", is_given(&cluster.proxy_url)),
        ],
        field,
    )?;
    let server = cluster.server.as_deref().ok_or_else(|| Unfit::Missing { field: field("server") })?;
    let wrong = || Unfit::Server { field: field("server") };
    let url: http::Uri = server.parse().map_err(|_| wrong())?;
    let authority = url.authority().ok_or_else(wrong)?;
    if url.scheme_str() != Some("https") || authority.as_str().contains('@') || url.query().is_some() {
        return Err(wrong());
    }
    match host(authority.host()) {
        None => Err(wrong()),
        Some(is_local) if is_local && !local_servers => Err(Unfit::LocalServer { field: field("server") }),
        Some(_) => Ok(()),
    }
}

fn check_user(user: &AuthInfo, field: &dyn Fn(&str) -> String) -> Result<(), Unfit> {
    forbid(
        &[
            ("exec", user.exec.is_some()),
            ("auth-provider", user.auth_provider.is_some()),
            ("tokenFile", is_given(&user.token_file)),
            ("client-certificate", is_given(&user.client_certificate)),
            ("client-key", is_given(&user.client_key)),
            ("username", is_given(&user.username)),
            ("password", user.password.is_some()),
            ("as", is_given(&user.impersonate)),
            ("as-uid", is_given(&user.impersonate_uid)),
            ("as-groups", user.impersonate_groups.as_ref().is_some_and(|groups| !groups.is_empty())),
            ("as-user-extra", user.impersonate_user_extra.as_ref().is_some_and(|extra| !extra.is_empty())),
        ],
        field,
    )
}

fn is_given(field: &Option<String>) -> bool {
    field.as_ref().is_some_and(|value| !value.is_empty())
}

/// Whether a host of a URL is this machine, or beside it; `None`: it is none. Names are not asked for: what they lead to may
/// be another address a moment later.
fn host(text: &str) -> Option<bool> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Ok(address) = inner.unwrap_or(text).parse::<IpAddr>() {
        return Some(is_local(address));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    // What ends in a number is an address in one of its old forms (127.1, 0x7f.1): the C library would take it.
    let is_number = last.starts_with("0x") || last.bytes().all(|b| b.is_ascii_digit());
    if inner.is_some() || last.is_empty() || is_number {
        return None;
    }
    Some(last == "localhost")
}

fn is_local(address: IpAddr) -> bool {
    let v4 = |address: std::net::Ipv4Addr| {
        address.is_loopback()
            || address.is_link_local()
            || address.is_multicast()
            || address.is_broadcast()
            // This network (RFC 791), which the system takes for itself.
            || address.octets()[0] == 0
    };
    match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unicast_link_local()
                || embedded(address).is_some_and(v4)
        }
    }
}

/// The address that a translator would make of it: mapped (RFC 4291), compatible, or by the well-known prefix (RFC 6052).
fn embedded(address: Ipv6Addr) -> Option<std::net::Ipv4Addr> {
    let segments = address.segments();
    let well_known = segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
    let [.., a, b, c, d] = address.octets();
    if well_known { Some([a, b, c, d].into()) } else { address.to_ipv4() }
}

#[cfg(test)]
mod tests;
