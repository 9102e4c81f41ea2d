//! Load balancers that have a name and no address: they are asked for in the background, and answered with addresses.
//!
//! What was found stays until something else is found: a resolver that is away, or a name that is gone for a moment, takes nobody
//! out of the answers.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tracing::{info, warn};

use crate::config::Config;
use crate::model::{Moment, ServiceKey, Share};
use crate::names::Name;

/// Names that are asked for at one time.
const AT_ONCE: usize = 32;
/// Different names of all clusters together.
const MAX_NAMES: usize = 20_000;
/// Addresses of one name.
const MAX_ADDRESSES: usize = 100;
/// Seconds until a name is asked for again, whatever its TTL.
const LEAST: u32 = 5;
const MOST: u32 = 3_600;
/// After a failure; doubled with each one more, up to `MOST_PATIENCE`.
const PATIENCE: Duration = Duration::from_secs(5);
const MOST_PATIENCE: Duration = Duration::from_secs(60);
/// For one question with all its repetitions.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// In order, each once.
    pub addresses: Vec<IpAddr>,
    /// Seconds.
    pub ttl: u32,
}

type Answer = Result<Found, String>;
type Asking = Pin<Box<dyn Future<Output = (Arc<str>, Answer)> + Send>>;

/// Asks for a name.
pub type Ask = Arc<dyn Fn(Arc<str>) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// The names that services need, and what is known of them.
pub struct Hostnames {
    ask: Ask,
    /// What is below these would lead to ourselves.
    own: Vec<Name>,
    names: HashMap<Arc<str>, State>,
    /// What each service needs, where it needs any.
    services: HashMap<ServiceKey, Vec<Arc<str>>>,
    due: BTreeSet<(Moment, Arc<str>)>,
    asking: FuturesUnordered<Asking>,
    full: bool,
    /// Names that could not be resolved when they were asked for last.
    failing: usize,
}

#[derive(Default)]
struct State {
    found: Option<Found>,
    users: BTreeSet<ServiceKey>,
    failures: u32,
    /// `None`: it is being asked for, or never will be.
    due: Option<Moment>,
}

impl Hostnames {
    pub fn new(config: &Config, ask: Ask) -> Hostnames {
        let own = config.zones.iter().map(|zone| zone.name.clone()).collect();
        let (asking, due) = (FuturesUnordered::new(), BTreeSet::new());
        Hostnames { ask, own, names: HashMap::new(), services: HashMap::new(), due, asking, full: false, failing: 0 }
    }

    /// Goes on with another configuration, and what is known.
    pub fn reconfigure(&mut self, config: &Config, ask: Ask) {
        self.ask = ask;
        self.own = config.zones.iter().map(|zone| zone.name.clone()).collect();
    }

    /// Puts what is known of the names beside the shares' own addresses.
    pub fn fill(&self, shares: &mut [Share]) {
        for share in shares {
            for name in &share.hostnames {
                let Some(found) = self.names.get(name).and_then(|state| state.found.as_ref()) else { continue };
                share.ingress.extend(&found.addresses);
                share.most_ttl = Some(share.most_ttl.map_or(found.ttl, |most| most.min(found.ttl)));
            }
        }
    }

    /// Under which of a share's names an address was found.
    pub fn name_of(&self, share: &Share, address: IpAddr) -> Option<Arc<str>> {
        let leads_there = |name: &&Arc<str>| {
            let found = self.names.get(*name).and_then(|state| state.found.as_ref());
            found.is_some_and(|found| found.addresses.contains(&address))
        };
        share.hostnames.iter().find(leads_there).cloned()
    }

    /// Enters which names a service needs now.
    pub fn need(&mut self, key: &ServiceKey, shares: &[Share], now: Moment) {
        // What nobody exports is not answered with.
        let exported = shares.iter().filter(|share| share.exported || share.offered.is_some());
        let mut needed: Vec<Arc<str>> = exported.flat_map(|share| &share.hostnames).cloned().collect();
        if needed.is_empty() && !self.services.contains_key(key) {
            return;
        }
        needed.sort();
        needed.dedup();
        let before = match needed.is_empty() {
            true => self.services.remove(key),
            false => self.services.insert(key.clone(), needed.clone()),
        };
        let before: HashSet<Arc<str>> = before.unwrap_or_default().into_iter().collect();
        for name in needed.iter().filter(|name| !before.contains(*name)) {
            self.begin(name, key, now);
        }
        for name in before.iter().filter(|name| !needed.contains(name)) {
            self.end(name, key);
        }
    }

    fn begin(&mut self, name: &Arc<str>, key: &ServiceKey, now: Moment) {
        if let Some(state) = self.names.get_mut(name) {
            state.users.insert(key.clone());
            return;
        }
        if self.names.len() >= MAX_NAMES {
            if !std::mem::replace(&mut self.full, true) {
                warn!(
                    limit = MAX_NAMES,
                    "{key}: load balancers have more names than are asked for; {name} is left out"
                );
            }
            return;
        }
        let is_own = |own: &Name| Name::parse(name).is_ok_and(|name| name.is_at_or_below(own));
        let mut state = State::default();
        state.users.insert(key.clone());
        if self.own.iter().any(is_own) {
            warn!("{key}: the load balancer's name {name} is in a zone of our own, and not asked for");
        } else {
            state.due = Some(now);
            self.due.insert((now, name.clone()));
        }
        self.names.insert(name.clone(), state);
    }

    fn end(&mut self, name: &Arc<str>, key: &ServiceKey) {
        let Some(state) = self.names.get_mut(name) else { return };
        state.users.remove(key);
        if state.users.is_empty() {
            if let Some(at) = state.due {
                self.due.remove(&(at, name.clone()));
            }
            self.failing -= usize::from(state.failures > 0);
            self.names.remove(name);
        }
    }

    /// How many names could not be resolved when they were asked for last.
    pub fn failing(&self) -> usize {
        self.failing
    }

    /// Begins to ask for what is due.
    pub fn tick(&mut self, now: Moment) {
        while self.asking.len() < AT_ONCE && self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, name)) = self.due.pop_first() else { return };
            if let Some(state) = self.names.get_mut(&name) {
                state.due = None;
            }
            let answer = (self.ask)(name.clone());
            self.asking.push(Box::pin(async move { (name, answer.await) }));
        }
    }

    /// When [`tick`](Hostnames::tick) has something to do next.
    pub fn next_deadline(&self) -> Option<Moment> {
        // At the limit, the next answer makes room.
        if self.asking.len() >= AT_ONCE { None } else { self.due.first().map(|(at, _)| *at) }
    }

    /// The next answer; waits for ever if nothing is asked for. Nothing is lost if it is not waited for to the end.
    pub async fn next(&mut self) -> (Arc<str>, Answer) {
        match self.asking.next().await {
            Some(answered) => answered,
            None => std::future::pending().await,
        }
    }

    /// Enters an answer. Gives the services that it changes.
    pub fn take(&mut self, name: &Arc<str>, answer: Answer, now: Moment) -> Vec<ServiceKey> {
        // Nobody may need it any more.
        let Some(state) = self.names.get_mut(name) else { return Vec::new() };
        let (wait, changed) = match answer {
            Ok(found) => {
                if state.failures > 0 {
                    self.failing -= 1;
                    info!("{name}: found again");
                }
                state.failures = 0;
                let wait = Duration::from_secs(found.ttl.clamp(LEAST, MOST).into());
                let changed = state.found.as_ref() != Some(&found);
                state.found = Some(found);
                (wait, changed)
            }
            Err(error) => {
                state.failures += 1;
                if state.failures == 1 {
                    self.failing += 1;
                    let kept = state.found.as_ref().map_or("it has no address yet", |_| "its last addresses stay");
                    warn!("the load balancer's name {name} cannot be resolved, {kept}: {error}");
                }
                ((PATIENCE * 2u32.saturating_pow(state.failures - 1)).min(MOST_PATIENCE), false)
            }
        };
        if let Some(before) = state.due.replace(now + wait) {
            self.due.remove(&(before, name.clone()));
        }
        self.due.insert((now + wait, name.clone()));
        if changed { state.users.iter().cloned().collect() } else { Vec::new() }
    }
}

/// Asks the configured resolvers, or those of the system. Without any, each question fails and says why.
pub fn resolver(config: &Config) -> Ask {
    match build(config) {
        Ok(resolver) => Arc::new(move |name| Box::pin(look_up(resolver.clone(), name))),
        Err(error) => Arc::new(move |_| {
            let error = error.clone();
            Box::pin(async { Err(error) })
        }),
    }
}

fn build(config: &Config) -> Result<TokioResolver, String> {
    let mut builder = if config.resolvers.is_empty() {
        TokioResolver::builder_tokio().map_err(|error| format!("the system has no resolvers: {error}"))?
    } else {
        let server = |address: &SocketAddr| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            server.connections.iter_mut().for_each(|connection| connection.port = address.port());
            server
        };
        let servers = config.resolvers.iter().map(server).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // What is known is kept here, and asked for anew when it is over.
    options.cache_size = 0;
    builder.build().map_err(|error| error.to_string())
}

async fn look_up(resolver: TokioResolver, name: Arc<str>) -> Answer {
    // A final dot: no search list.
    let lookup = tokio::time::timeout(TIMEOUT, resolver.lookup_ip(format!("{name}.")));
    let lookup = lookup.await.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
    let mut addresses: Vec<IpAddr> = lookup.iter().map(|address| address.to_canonical()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    if addresses.is_empty() {
        return Err("it has no address".to_owned());
    }
    let ttl = lookup.as_lookup().answers().iter().map(|record| record.ttl).min().unwrap_or(LEAST);
    Ok(Found { addresses, ttl })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Cluster, Families, Mode, Schema, Zone};
    use crate::model::{ClusterAddress, ClusterId, Exposure, Label, Wishes};

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn key(name: &str) -> ServiceKey {
        ServiceKey { namespace: Label::parse("ns").unwrap(), name: Label::parse(name).unwrap() }
    }

    fn share(names: &[&str]) -> Share {
        Share {
            cluster: ClusterId(0),
            exposure: Exposure::LoadBalancer,
            cluster_address: ClusterAddress::Headless,
            ingress: vec!["192.0.2.1".parse().unwrap()],
            hostnames: names.iter().map(|name| (*name).into()).collect(),
            most_ttl: None,
            ports: vec![],
            ready: true,
            pods: vec![],
            exported: true,
            offered: None,
            sticky: false,
            proxied: false,
            wishes: Wishes::default(),
            check: None,
        }
    }

    fn found(address: &str, ttl: u32) -> Answer {
        Ok(Found { addresses: vec![address.parse().unwrap()], ttl })
    }

    /// Nothing is ever answered, but what is asked for is seen.
    fn hostnames() -> Hostnames {
        let mut config = Config::of(vec![Cluster::named("c")]);
        config.zones.push(Zone {
            name: Name::parse("own.example").unwrap(),
            schema: Schema::Federation,
            file: std::path::PathBuf::new(),
            ttl: 30,
            negative_ttl: 5,
            max_answers: 8,
            external_mode: Mode::Ordered,
            internal_mode: Mode::Ordered,
            families: Families::Common,
            hostnames: crate::config::Hostnames::Addresses,
            services: HashMap::new(),
        });
        Hostnames::new(&config, Arc::new(|_| Box::pin(std::future::pending())))
    }

    /// What a service's share has now, and for how many seconds.
    fn filled(hostnames: &Hostnames, names: &[&str]) -> (Vec<String>, Option<u32>) {
        let mut shares = [share(names)];
        hostnames.fill(&mut shares);
        (shares[0].ingress.iter().map(ToString::to_string).collect(), shares[0].most_ttl)
    }

    #[test]
    fn of_what_nobody_exports_no_name_is_asked_for() {
        let mut hostnames = hostnames();
        let hidden = Share { exported: false, ..share(&["lb.example"]) };
        hostnames.need(&key("a"), std::slice::from_ref(&hidden), at(0));
        assert_eq!(hostnames.next_deadline(), None);
        hostnames.need(&key("a"), &[Share { offered: Some(1), ..hidden.clone() }], at(1));
        assert_eq!(hostnames.next_deadline(), Some(at(1)));
        hostnames.need(&key("a"), &[hidden], at(2));
        assert_eq!(hostnames.next_deadline(), None);
    }

    #[test]
    fn a_name_is_asked_for_and_asked_for_again() {
        let mut hostnames = hostnames();
        let name: Arc<str> = "lb.example".into();
        hostnames.need(&key("a"), &[share(&["lb.example"])], at(0));
        hostnames.need(&key("b"), &[share(&["lb.example", "other.example"])], at(0));
        assert_eq!(hostnames.next_deadline(), Some(at(0)));
        hostnames.tick(at(0));
        assert_eq!((hostnames.asking.len(), hostnames.next_deadline()), (2, None));
        assert_eq!(filled(&hostnames, &["lb.example"]), (vec!["192.0.2.1".to_owned()], None));

        assert_eq!(hostnames.take(&name, found("198.51.100.1", 60), at(1)), [key("a"), key("b")]);
        let seen = (vec!["192.0.2.1".to_owned(), "198.51.100.1".to_owned()], Some(60));
        assert_eq!(filled(&hostnames, &["lb.example"]), seen);
        assert_eq!(hostnames.next_deadline(), Some(at(61)));
        hostnames.tick(at(61));
        // The same again changes nothing; a failure neither, and it is tried again soon.
        assert_eq!(hostnames.take(&name, found("198.51.100.1", 60), at(62)), []);
        for (second, wait) in [(122, 5), (127, 10), (137, 20), (157, 40), (197, 60), (257, 60)] {
            hostnames.tick(at(second));
            assert_eq!(hostnames.take(&name, Err("away".to_owned()), at(second)), []);
            assert_eq!(hostnames.next_deadline(), Some(at(second + wait)));
            assert_eq!(hostnames.failing(), 1);
        }
        assert_eq!(filled(&hostnames, &["lb.example"]), seen);
        hostnames.tick(at(317));
        assert_eq!(hostnames.take(&name, found("198.51.100.2", 1), at(317)), [key("a"), key("b")]);
        assert_eq!(hostnames.failing(), 0);
        assert_eq!(hostnames.next_deadline(), Some(at(322)), "never more often than every five seconds");
    }

    #[test]
    fn what_nobody_needs_is_forgotten() {
        let mut hostnames = hostnames();
        hostnames.need(&key("a"), &[share(&["one.example"])], at(0));
        hostnames.need(&key("b"), &[share(&["one.example"])], at(0));
        hostnames.need(&key("a"), &[share(&["two.example"])], at(1));
        hostnames.need(&key("b"), &[], at(1));
        assert_eq!(hostnames.names.keys().map(|name| &**name).collect::<Vec<_>>(), ["two.example"]);
        hostnames.need(&key("a"), &[share(&[])], at(1));
        assert!(hostnames.names.is_empty() && hostnames.due.is_empty() && hostnames.services.is_empty());
        // An answer that comes too late.
        assert_eq!(hostnames.take(&"one.example".into(), found("192.0.2.9", 60), at(2)), []);
    }

    #[test]
    fn our_own_names_are_not_asked_for() {
        let mut hostnames = hostnames();
        for name in ["own.example", "svc.ns.own.example"] {
            hostnames.need(&key("a"), &[share(&[name])], at(0));
            assert_eq!(hostnames.next_deadline(), None, "{name}");
        }
        hostnames.need(&key("a"), &[share(&["notown.example"])], at(0));
        assert_eq!(hostnames.next_deadline(), Some(at(0)));
    }

    #[test]
    fn only_so_many_at_one_time() {
        let mut hostnames = hostnames();
        let names: Vec<String> = (0..2 * AT_ONCE).map(|n| format!("n{n}.example")).collect();
        for name in &names {
            hostnames.need(&key(name.split('.').next().unwrap()), &[share(&[name])], at(0));
        }
        hostnames.tick(at(0));
        assert_eq!((hostnames.asking.len(), hostnames.next_deadline()), (AT_ONCE, None));
    }
}
