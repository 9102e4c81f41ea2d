//! All services at a glance, and what changed lately: for a page that shows thousands of them.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::ServiceKey;

/// Services that are looked at with one question.
const PIECE: usize = 256;
/// In one answer.
const MOST_LISTED: usize = 500;
const LISTED: usize = 100;
/// For looking at each service: what was not counted by then is not.
const PATIENCE: Duration = Duration::from_secs(2);
/// What happened before is forgotten.
const MOST_CHANGES: usize = 500;

/// Which services are to be listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// A part of `SERVICE.NAMESPACE`.
    #[serde(default)]
    pub search: String,
    /// A word for a [`State`], or `trouble`.
    pub only: Option<String>,
    /// Those that this cluster has.
    pub cluster: Option<String>,
    /// How many of those that match come before.
    #[serde(default)]
    pub offset: usize,
    /// How many of them at most: 100, and never more than 500.
    pub limit: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WantedError {
    #[error("only: {word:?} is not a state, as in {}", known_words())]
    Only { word: String },
    #[error("limit: {0} is not a number from 1 to {MOST_LISTED}")]
    Limit(usize),
}

/// Of a service, or of what one cluster has of it. The worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// All of its addresses are Down.
    Down,
    /// Nothing of it can be answered with: no endpoint is ready, or it has no address.
    Empty,
    /// Some of its addresses are Suspect or Down.
    Suspect,
    /// Behind all that are not.
    Overloaded,
    Drained,
    /// A part of its answers puts others first, by load or by a gradual drain.
    Shifting,
    Fine,
    /// Its cluster has it and does not export it.
    NotExported,
}

impl State {
    const ALL: [State; 8] = [
        State::Down,
        State::Empty,
        State::Suspect,
        State::Overloaded,
        State::Drained,
        State::Shifting,
        State::Fine,
        State::NotExported,
    ];

    pub fn word(self) -> &'static str {
        match self {
            State::Down => "down",
            State::Empty => "empty",
            State::Suspect => "suspect",
            State::Overloaded => "overloaded",
            State::Drained => "drained",
            State::Shifting => "shifting",
            State::Fine => "fine",
            State::NotExported => "notExported",
        }
    }
}

/// Which states are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Only {
    All,
    Trouble,
    State(State),
}

impl Only {
    fn parse(word: Option<&str>) -> Result<Only, WantedError> {
        match word {
            None | Some("") => Ok(Only::All),
            Some("trouble") => Ok(Only::Trouble),
            Some(word) => {
                let state = State::ALL.into_iter().find(|state| state.word() == word);
                state.map(Only::State).ok_or_else(|| WantedError::Only { word: word.to_owned() })
            }
        }
    }

    fn has(self, service: &Service) -> bool {
        match self {
            Only::All => true,
            Only::Trouble => service.state < State::Fine,
            Only::State(state) => service.state == state || service.clusters.iter().any(|share| share.state == state),
        }
    }
}

fn known_words() -> String {
    ["trouble"].into_iter().chain(State::ALL.map(State::word)).collect::<Vec<_>>().join(", ")
}

/// Some of all services, by namespace and name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Services {
    pub total: usize,
    /// Those that were asked for.
    pub matching: usize,
    /// Whether all that match were counted.
    pub complete: bool,
    pub services: Vec<Service>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    /// The worst of its clusters.
    pub state: State,
    pub clusters: Vec<Share>,
}

/// What one cluster has of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    pub cluster: String,
    pub state: State,
    /// `loadBalancer`, or `clusterOnly`: it is answered with inside its own cluster only.
    pub exposure: String,
    /// At least one endpoint is ready.
    pub ready: bool,
    /// Which are answered with outside, if they work.
    pub addresses: Vec<IpAddr>,
    /// Inside the cluster: the clusterIPs, or those of the first ready pods of a headless service.
    pub inside: Vec<IpAddr>,
    /// The ready pods of a headless service; nobody counts those of others.
    pub pods: Option<usize>,
    /// Of the external addresses with their ports, where they are probed.
    pub up: usize,
    pub suspect: usize,
    pub down: usize,
    pub unknown: usize,
    /// What was published of it, from 0 to 1.
    pub load: Option<f64>,
    /// The part of its answers that puts others first, from 0 to 1.
    pub shifted: f64,
}

/// All services by their keys.
pub type List = Pin<Box<dyn Future<Output = Vec<ServiceKey>> + Send>>;
/// Some of them in the order asked for; those that are gone by then are left out.
pub type Look = Pin<Box<dyn Future<Output = Vec<Service>> + Send>>;

/// Who knows all services.
pub struct Overview {
    pub list: Box<dyn Fn() -> List + Send + Sync>,
    pub look: Box<dyn Fn(Vec<ServiceKey>) -> Look + Send + Sync>,
}

impl Overview {
    pub async fn find(&self, wanted: &Wanted) -> Result<Services, WantedError> {
        let only = Only::parse(wanted.only.as_deref())?;
        let limit = wanted.limit.unwrap_or(LISTED);
        if !(1..=MOST_LISTED).contains(&limit) {
            return Err(WantedError::Limit(limit));
        }
        let began = Instant::now();
        let all = (self.list)().await;
        let total = all.len();
        let search = wanted.search.trim().to_ascii_lowercase();
        let is_found = |key: &ServiceKey| search.is_empty() || holds(key, &search);
        let found: Vec<ServiceKey> = all.into_iter().filter(is_found).collect();
        let cluster = wanted.cluster.as_deref().filter(|name| !name.is_empty());
        if only == Only::All && cluster.is_none() {
            // What they are has to be known of those only that are shown.
            let matching = found.len();
            let shown = found.into_iter().skip(wanted.offset).take(limit).collect();
            return Ok(Services { total, matching, complete: true, services: (self.look)(shown).await });
        }
        let mut listed = Services { total, matching: 0, complete: true, services: Vec::new() };
        for piece in found.chunks(PIECE) {
            if began.elapsed() > PATIENCE {
                listed.complete = false;
                break;
            }
            for service in (self.look)(piece.to_vec()).await {
                let has = |name| service.clusters.iter().any(|share| share.cluster == name);
                if !only.has(&service) || !cluster.is_none_or(has) {
                    continue;
                }
                if listed.matching >= wanted.offset && listed.services.len() < limit {
                    listed.services.push(service);
                }
                listed.matching += 1;
            }
        }
        Ok(listed)
    }
}

/// `part`: in lower case.
fn holds(key: &ServiceKey, part: &str) -> bool {
    let (name, namespace) = (key.name.as_str(), key.namespace.as_str());
    name.contains(part)
        || namespace.contains(part)
        || (part.contains('.') && format!("{name}.{namespace}").contains(part))
}

/// What a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum About {
    /// How well it is heard.
    Cluster,
    Service,
    Health,
    Directive,
    Configuration,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// From 1 on, since the start of the process.
    pub number: u64,
    /// RFC 3339.
    pub time: String,
    pub kind: About,
    pub cluster: Option<String>,
    /// `NAMESPACE/SERVICE`
    pub service: Option<String>,
    pub text: String,
}

/// The last of them in the order in which they happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// The number of the last one; 0: there was none.
    pub last: u64,
    pub changes: Vec<Change>,
}

/// Which of them are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// Those with a greater number.
    #[serde(default)]
    pub after: u64,
}

/// Keeps the last ones; written by the publisher, read by whoever is asked.
#[derive(Debug, Default)]
pub struct Recent(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    last: u64,
    changes: VecDeque<Change>,
}

impl Recent {
    pub fn add(&self, kind: About, cluster: Option<&str>, service: Option<&ServiceKey>, text: impl Into<String>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.last += 1;
        if kept.changes.len() >= MOST_CHANGES {
            kept.changes.pop_front();
        }
        let number = kept.last;
        kept.changes.push_back(Change {
            number,
            time: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            kind,
            cluster: cluster.map(str::to_owned),
            service: service.map(ToString::to_string),
            text: text.into(),
        });
    }

    pub fn since(&self, since: Since) -> Changes {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = kept.changes.iter().filter(|change| change.number > since.after).cloned().collect();
        Changes { last: kept.last, changes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Label;

    fn key(n: usize) -> ServiceKey {
        let label = |text: &str| Label::parse(text).unwrap();
        ServiceKey { namespace: label(["shop", "web"][n % 2]), name: label(&format!("s{n}")) }
    }

    fn service(key: &ServiceKey) -> Service {
        let n: usize = key.name.as_str()[1..].parse().unwrap();
        let share = |cluster: &str, state| Share {
            cluster: cluster.to_owned(),
            state,
            exposure: "loadBalancer".to_owned(),
            ready: true,
            addresses: vec![],
            inside: vec![],
            pods: None,
            up: 0,
            suspect: 0,
            down: 0,
            unknown: 0,
            load: None,
            shifted: 0.0,
        };
        let mut clusters = vec![share("a", if n.is_multiple_of(10) { State::Drained } else { State::Fine })];
        if n.is_multiple_of(100) {
            clusters.push(share("b", State::Down));
        }
        let state = clusters.iter().map(|share| share.state).min().unwrap();
        Service { namespace: key.namespace.to_string(), name: key.name.to_string(), state, clusters }
    }

    fn thousand() -> Overview {
        let mut keys: Vec<ServiceKey> = (0..1_000).map(key).collect();
        keys.sort();
        Overview {
            list: Box::new(move || {
                let keys = keys.clone();
                Box::pin(async move { keys })
            }),
            look: Box::new(|keys| Box::pin(async move { keys.iter().map(service).collect() })),
        }
    }

    fn named(services: &[Service]) -> Vec<String> {
        services.iter().map(|service| format!("{}.{}", service.name, service.namespace)).collect()
    }

    #[tokio::test]
    async fn what_is_asked_for_is_found_counted_and_cut() {
        let overview = thousand();
        let find = async |wanted: Wanted| overview.find(&wanted).await.unwrap();
        let of = |search: &str, only: Option<&str>, cluster: Option<&str>, offset, limit| Wanted {
            search: search.to_owned(),
            only: only.map(str::to_owned),
            cluster: cluster.map(str::to_owned),
            offset,
            limit,
        };
        let all = find(Wanted::default()).await;
        assert_eq!((all.total, all.matching, all.complete, all.services.len()), (1_000, 1_000, true, 100));
        assert_eq!(all.services[0].namespace, "shop");
        let some = find(of("S99", None, None, 0, None)).await;
        assert_eq!((some.total, some.matching), (1_000, 11));
        let both = find(of("s99.w", None, None, 0, None)).await;
        assert_eq!(named(&both.services), ["s99.web"]);
        assert_eq!(find(of("web", None, None, 0, Some(1))).await.matching, 500);
        let trouble = find(of("", Some("trouble"), None, 0, None)).await;
        assert_eq!((trouble.matching, trouble.services.len()), (100, 100));
        // A service with one cluster Down and one drained is both.
        assert_eq!(find(of("", Some("drained"), None, 0, None)).await.matching, 100);
        assert_eq!(find(of("", Some("down"), None, 0, None)).await.matching, 10);
        assert_eq!(find(of("", None, Some("b"), 0, None)).await.matching, 10);
        assert_eq!(find(of("", None, Some("nowhere"), 0, None)).await.matching, 0);
        let [first, second] = [0, 5].map(|offset| of("", Some("down"), None, offset, Some(5)));
        let pages = [named(&find(first).await.services), named(&find(second).await.services)].concat();
        assert_eq!(pages, named(&find(of("", Some("down"), None, 0, None)).await.services));
    }

    #[tokio::test]
    async fn what_cannot_be_asked_for() {
        let overview = thousand();
        let refused = async |wanted: Wanted| overview.find(&wanted).await.unwrap_err().to_string();
        let only = Wanted { only: Some("dwon".to_owned()), ..Wanted::default() };
        let words = "trouble, down, empty, suspect, overloaded, drained, shifting, fine, notExported";
        assert_eq!(refused(only).await, format!("only: \"dwon\" is not a state, as in {words}"));
        let limit = Wanted { limit: Some(501), ..Wanted::default() };
        assert_eq!(refused(limit).await, "limit: 501 is not a number from 1 to 500");
        for state in State::ALL {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{}\"", state.word()));
        }
    }

    #[test]
    fn old_changes_are_forgotten_and_their_numbers_are_not() {
        let recent = Recent::default();
        assert_eq!(recent.since(Since::default()), Changes { last: 0, changes: vec![] });
        for n in 0..MOST_CHANGES + 10 {
            recent.add(About::Service, Some("a"), Some(&key(n)), format!("change {n}"));
        }
        let all = recent.since(Since::default());
        assert_eq!((all.last as usize, all.changes.len()), (MOST_CHANGES + 10, MOST_CHANGES));
        assert_eq!(all.changes[0].number, 11);
        assert_eq!(all.changes[0].service.as_deref(), Some("shop/s10"));
        let new = recent.since(Since { after: all.last - 1 });
        assert_eq!(new.changes.len(), 1);
        assert_eq!(new.changes[0].text, format!("change {}", MOST_CHANGES + 9));
        assert!(recent.since(Since { after: all.last }).changes.is_empty());
    }
}
