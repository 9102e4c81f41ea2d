//! One cluster's API server, listed and watched.
//!
//! | part | what it is |
//! |---|---|
//! | [`client`] | credentials, one client, requests whose failures are told apart |
//! | [`list`] | a list's body → its objects, one by one |
//! | [`watch`] | a watch's body → events |
//! | [`resource`] | the kinds, as the API has them |
//! | [`nodes`] | the region and the zones of its nodes |
//! | [`session`] | list, then watch, then what to do when either fails |
//! | [`voice`] | what this instance says of endpoints, written for all to read |
//! | [`directive`] | what an operator says, written |
//! | [`examine`] | what it lets us do, for people |
//! | [`secrets`] | clusters that are registered by Secrets |
//! | [`identity`] | which cluster it is |
//! | [`backoff`] | when to try again |
//!
//! Why not `kube::runtime::watcher`: it hides bookmarks and reconnects, so silence cannot be told from peace.
//!
//! The bounds, with the values of [`Timing::default`]: a server that goes silent is found when its watch does not end
//! in time (35 s). One that comes back is tried again within 15 s of its return, and a try that hangs is given up after
//! 10 s; so what changed meanwhile is listed within 60 s.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch as asks;

use self::backoff::Pace;
use self::client::Api;
use self::session::{Link, Session};
use super::{Feed, kinds};
use crate::config;
use crate::index::Kind;

pub use self::client::SourceError;
pub use self::identity::Identities;
pub use self::voice::{Saying, Speech, Writes, speak};

pub mod backoff;
pub mod client;
pub mod directive;
pub mod examine;
pub mod identity;
pub mod list;
mod nodes;
mod plugin;
mod resource;
pub mod secrets;
mod session;
mod voice;
pub mod watch;

/// Every time, and the size of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// For a connection with its handshake, for the head of an answer to a watch, for a small answer.
    pub small: Duration,
    /// For a credential plugin.
    pub plugin: Duration,
    /// After this long without an octet of a list, and at this age of a watch, its server counts as silent. Must
    /// be at least 5 s more than `watch`: the server ends a watch in its own time.
    pub read: Duration,
    /// For a whole list with all its pages: 100,000 Services take a small API server 15 s.
    pub list: Duration,
    /// What a watch asks for as `timeoutSeconds`; a bookmark comes before its end.
    pub watch: Duration,
    /// A watch is not begun more often than this.
    pub watch_spacing: Duration,
    /// A watch is resumed from where it was, if that was heard no longer ago than this; else there is a new list.
    pub resume: Duration,
    /// From one list to the next while all is well, give or take a tenth.
    pub relist: Duration,
    /// From a list that failed while the watch is well to the next.
    pub relist_again: Duration,
    /// From one look for a kind that the API does not have to the next.
    pub missing: Duration,
    /// From one look at the labels of the nodes to the next.
    pub places: Duration,
    pub pace: Pace,
    /// Objects in one page of a list: 10,000 are about 10 MB, which a server has in memory at once.
    pub page: u32,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            small: Duration::from_secs(10),
            plugin: Duration::from_secs(30),
            read: Duration::from_secs(35),
            list: Duration::from_secs(300),
            watch: Duration::from_secs(25),
            watch_spacing: Duration::from_secs(1),
            resume: Duration::from_secs(60),
            relist: Duration::from_secs(3600),
            relist_again: Duration::from_secs(30),
            missing: Duration::from_secs(30),
            places: Duration::from_secs(600),
            pace: Pace {
                first: Duration::from_millis(500),
                cap: Duration::from_secs(15),
                retry_after_cap: Duration::from_secs(30),
            },
            page: 10_000,
        }
    }
}

/// A cluster whose credentials are in order. Whether its API answers is not known yet.
pub struct Prepared {
    api: Api,
}

/// Reads the kubeconfig (or the pod's service account) and builds the client; no request is made. An error needs the
/// operator; an API that is down, or a certificate that it does not accept, is none.
pub async fn prepare(cluster: &config::Cluster) -> Result<Prepared, SourceError> {
    prepare_with(cluster, Timing::default()).await
}

/// [`prepare`] with other times, for tests.
pub async fn prepare_with(cluster: &config::Cluster, timing: Timing) -> Result<Prepared, SourceError> {
    Ok(Prepared { api: Api::prepare(cluster, timing).await? })
}

/// Lists and watches until `feed.stop` is cancelled. `feed.relist.notify_one()` asks for fresh lists of all kinds.
pub async fn run(prepared: Prepared, feed: Feed, identities: Arc<Identities>) {
    let stop = feed.stop.clone();
    let relist = Arc::clone(&feed.relist);
    let (ask, asked) = asks::channel(0_u64);
    tokio::select! {
        () = stop.cancelled() => return,
        () = prepared.api.begin() => {}
    }
    // What the source before this one missed is not known to be missing, or is not asked for any more.
    Kind::ALL.into_iter().for_each(|kind| feed.status.missing(kind, false));
    let kinds = kinds(&feed.config);
    let link = Link::new(prepared.api, feed, identities);
    let sessions = kinds.into_iter().map(|kind| Session::new(&link, kind, asked.clone()).run());
    let bell = async {
        loop {
            relist.notified().await;
            ask.send_modify(|asks| *asks = asks.wrapping_add(1));
        }
    };
    let places = link.follow_places();
    tokio::select! {
        () = stop.cancelled() => {}
        () = places => {}
        _ = futures::future::join(futures::future::join_all(sessions), bell) => {}
    }
}
