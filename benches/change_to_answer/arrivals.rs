//! When changes come out of the API server: a watch of our own beside Signpost's, which only looks at each event's first
//! words. What it waits for is not Signpost's to mend.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;

use crate::client;
use crate::common::cluster::Cluster;

/// Without an event for so long, none is on its way.
const PEACE: Duration = Duration::from_millis(300);

const VERSION: &str = r#""resourceVersion":""#;

/// A change: the service, its load balancer's address (for a slice: unspecified), and whether it is ready.
pub type Change = (u32, Ipv4Addr, bool);

/// Watches the objects at `path` until `done` and no more comes; `ready` hears when the watch has begun. Changes that
/// came more than once are left out.
pub fn watch(
    cluster: &Cluster,
    path: &str,
    ready: &mpsc::Sender<()>,
    done: &AtomicBool,
) -> Result<HashMap<Change, Instant>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let client = client(cluster).await.map_err(|error| error.to_string())?;
        let mut version = version(&client, path).await?;
        let mut body = begin(&client, path, &version).await?;
        // Whoever waits for it has failed and says so.
        let _ = ready.send(());
        let (mut arrivals, mut held) = (HashMap::new(), Vec::new());
        loop {
            let frame = match tokio::time::timeout(PEACE, body.frame()).await {
                Err(_) if done.load(Ordering::Relaxed) => break,
                Err(_) => continue,
                // The API server ends a watch whose reader lags behind.
                Ok(None) => {
                    held.clear();
                    body = begin(&client, path, &version).await?;
                    continue;
                }
                Ok(Some(frame)) => frame.map_err(|error| error.to_string())?,
            };
            let Ok(data) = frame.into_data() else { continue };
            let now = Instant::now();
            held.extend_from_slice(&data);
            while let Some(end) = held.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = held.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if let Some(newer) = text_after(&line, VERSION) {
                    newer.clone_into(&mut version);
                }
                if let Some(change) = change_in(&line) {
                    arrivals.entry(change).and_modify(|at| *at = None).or_insert(Some(now));
                }
            }
        }
        Ok(arrivals.into_iter().filter_map(|(change, at)| Some((change, at?))).collect())
    })
}

/// Of what the API server has now.
async fn version(client: &Client, path: &str) -> Result<String, String> {
    let list = get(client, format!("{path}?limit=1")).await?.collect().await.map_err(|error| error.to_string())?;
    let list = String::from_utf8_lossy(&list.to_bytes()).into_owned();
    text_after(&list, VERSION).map(str::to_owned).ok_or_else(|| format!("no list: {list}"))
}

async fn begin(client: &Client, path: &str, version: &str) -> Result<Body, String> {
    get(client, format!("{path}?watch=true&resourceVersion={version}")).await
}

async fn get(client: &Client, target: String) -> Result<Body, String> {
    let request = http::Request::get(&target).body(Body::empty()).map_err(|error| error.to_string())?;
    let response = client.send(request).await.map_err(|error| error.to_string())?;
    if response.status() == http::StatusCode::OK {
        Ok(response.into_body())
    } else {
        Err(format!("{target}: {}", response.status()))
    }
}

fn change_in(event: &str) -> Option<Change> {
    let (_, name) = event.split_once(r#""name":"svc-"#)?;
    let service = name.get(..6)?.parse().ok()?;
    match text_after(event, r#""ingress":[{"ip":""#) {
        Some(address) => Some((service, address.parse().ok()?, true)),
        None => Some((service, Ipv4Addr::UNSPECIFIED, event.contains(r#""ready":true"#))),
    }
}

/// What stands there, up to the next quotation mark.
fn text_after<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split('"').next()
}
