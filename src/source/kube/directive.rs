//! What an operator says, written into a cluster's API: a ConfigMap of one namespace.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::Timing;
use super::client::{Api, Failure, Verb};
use crate::config;
use crate::model::Label;
use crate::source::slim;

const PATIENCE: Duration = Duration::from_secs(10);

/// The object of that name as it stands in a file, and as it is created.
pub fn object(namespace: Option<&Label>, name: &str, data: &BTreeMap<&'static str, String>) -> serde_json::Value {
    let mut metadata = json!({
        "name": name,
        "labels": {"app.kubernetes.io/managed-by": "signpost", slim::DIRECTIVE: ""},
    });
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace.as_str());
    }
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
}

/// Writes it in the place of what was there under that name. `keys`: all that may be in it.
pub async fn put(
    cluster: &config::Cluster,
    namespace: &Label,
    name: &str,
    data: &BTreeMap<&'static str, String>,
    keys: &[&'static str],
) -> Result<(), Failure> {
    let api = begin(cluster).await?;
    let new = object(Some(namespace), name, data);
    // What is not said any more is to go.
    let mut merge = new.clone();
    for key in keys.iter().filter(|key| !data.contains_key(*key)) {
        merge["data"][*key] = serde_json::Value::Null;
    }
    let collection = collection(namespace);
    let octets = |value: &serde_json::Value| value.to_string().into_bytes();
    match api.send(Verb::Merge, &format!("{collection}/{name}"), octets(&merge), PATIENCE).await {
        Err(Failure::Status(refusal)) if refusal.code == 404 => {
            api.send(Verb::Create, &collection, octets(&new), PATIENCE).await
        }
        other => other,
    }
}

/// Takes it back. False: it was not there.
pub async fn delete(cluster: &config::Cluster, namespace: &Label, name: &str) -> Result<bool, Failure> {
    let path = format!("{}/{name}", collection(namespace));
    match begin(cluster).await?.send(Verb::Delete, &path, Vec::new(), PATIENCE).await {
        Ok(()) => Ok(true),
        Err(Failure::Status(refusal)) if refusal.code == 404 => Ok(false),
        Err(failure) => Err(failure),
    }
}

fn collection(namespace: &Label) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

async fn begin(cluster: &config::Cluster) -> Result<Api, Failure> {
    let api = Api::prepare(cluster, Timing::default()).await;
    let api = api.map_err(|error| Failure::Credentials(error.to_string()))?;
    api.begin().await;
    Ok(api)
}
