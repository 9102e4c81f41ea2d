//! The clusters that are registered now, as whoever follows the Secrets tells it to the app and to metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::registration::Unfit;
use super::status::Status;
use crate::config::{Config, LeftOut, Registration};
use crate::model::Label;

/// Shared by the follower, the app and metrics.
#[derive(Debug)]
pub struct Registrations {
    state: Mutex<State>,
    /// Of the API that holds the Secrets.
    pub status: Arc<Status>,
    /// Something else is registered.
    pub changed: Notify,
}

#[derive(Debug)]
struct State {
    is_followed: bool,
    /// Or nobody waits for the list.
    listed: bool,
    registered: BTreeMap<Label, Registration>,
    /// By the Secret's name.
    unfit: BTreeMap<String, Unfit>,
    left_out: Vec<(Label, LeftOut)>,
    held: usize,
}

impl Default for State {
    fn default() -> State {
        State {
            is_followed: false,
            listed: true,
            registered: BTreeMap::new(),
            unfit: BTreeMap::new(),
            left_out: Vec::new(),
            held: 0,
        }
    }
}

/// How many Secrets there are of which kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    pub registered: usize,
    /// By reason: each of [`Unfit::REASONS`].
    pub refused: Vec<(&'static str, usize)>,
    /// Deletions that are not believed yet.
    pub held: usize,
}

impl Registrations {
    pub fn new(started: Instant) -> Registrations {
        Registrations { state: Mutex::default(), status: Arc::new(Status::new(started)), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until the Secrets are listed, there may be clusters that nobody knows of, and those are known that an earlier process knew.
    pub fn expect(&self, registered: BTreeMap<Label, Registration>) {
        *self.state() = State { is_followed: true, listed: false, registered, ..State::default() };
    }

    /// Somebody follows them.
    pub fn begin(&self) {
        self.state().is_followed = true;
    }

    /// All Secrets as they are now.
    pub fn set(&self, registered: BTreeMap<Label, Registration>, unfit: BTreeMap<String, Unfit>, held: usize) {
        let mut state = self.state();
        let is_news = !state.listed || state.registered != registered;
        let left_out = std::mem::take(&mut state.left_out);
        *state = State { is_followed: true, listed: true, registered, unfit, left_out, held };
        drop(state);
        if is_news {
            self.changed.notify_one();
        }
    }

    /// Nobody can be registered any more.
    pub fn clear(&self) {
        *self.state() = State::default();
    }

    /// Puts exactly the registered clusters in. Gives those that have no place, and had one or were not there before.
    pub fn fill(&self, config: &mut Config) -> Vec<(Label, LeftOut)> {
        let mut state = self.state();
        let left_out = config.register(&state.registered);
        if let Some(secrets) = &mut config.cluster_secrets {
            secrets.listed = state.listed;
        }
        let news = left_out.iter().filter(|one| !state.left_out.contains(one)).cloned().collect();
        state.left_out = left_out;
        news
    }

    /// `None`: the configuration has none.
    pub fn counts(&self) -> Option<Counts> {
        let state = self.state();
        if !state.is_followed {
            return None;
        }
        let left_out = state.left_out.iter().map(|(_, why)| Unfit::from(*why).reason());
        let all: Vec<&str> = state.unfit.values().map(Unfit::reason).chain(left_out).collect();
        Some(Counts {
            registered: state.registered.len().saturating_sub(state.left_out.len()),
            refused: Unfit::REASONS.map(|reason| (reason, all.iter().filter(|one| **one == reason).count())).into(),
            held: state.held,
        })
    }

    /// What the next process may begin with: no credentials.
    pub fn to_remember(&self) -> Option<BTreeMap<Label, Registration>> {
        let state = self.state();
        let without = |registration: &Registration| Registration { credentials: None, ..registration.clone() };
        state.listed.then(|| state.registered.iter().map(|(name, one)| (name.clone(), without(one))).collect())
    }
}
