//! What an operator says, written into a cluster's API: a ConfigMap of one namespace.

use std::time::Duration;

use serde_json::Value;

use super::client::{Api, Failure, Verb};
use crate::config;
use crate::model::Label;
use crate::source::directive::{Data, KEYS, object};

const PATIENCE: Duration = Duration::from_secs(10);

/// Writes it in the place of what was there under that name.
pub async fn put(cluster: &config::Cluster, namespace: &Label, name: &str, data: &Data) -> Result<(), Failure> {
    let new = object(Some(namespace), name, data);
    // What is not said any more is to go.
    let mut merge = new.clone();
    for key in KEYS.iter().filter(|key| !data.contains_key(**key)) {
        merge["data"][*key] = Value::Null;
    }
    let [merge, new] = [merge, new].map(|value| value.to_string().into_bytes());
    Api::begun(cluster).await?.put(&collection(namespace), name, &merge, &new, PATIENCE).await
}

/// Takes it back. False: it was not there.
pub async fn delete(cluster: &config::Cluster, namespace: &Label, name: &str) -> Result<bool, Failure> {
    let path = format!("{}/{name}", collection(namespace));
    match Api::begun(cluster).await?.send(Verb::Delete, &path, Vec::new(), PATIENCE).await {
        Ok(()) => Ok(true),
        Err(Failure::Status(refusal)) if refusal.code == 404 => Ok(false),
        Err(failure) => Err(failure),
    }
}

fn collection(namespace: &Label) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}
