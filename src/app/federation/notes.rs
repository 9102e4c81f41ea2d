//! What the publisher last said about each service, and how many of each kind that are.

use std::collections::BTreeMap;

use crate::model::ServiceKey;
use crate::table::{Note, NoteKind};

#[derive(Default)]
pub struct Notes {
    by_service: BTreeMap<ServiceKey, Vec<Note>>,
    /// In the order of [`NoteKind::ALL`]. Kept with each change: there may be a note for each of 100,000 services.
    counts: [u64; NoteKind::ALL.len()],
}

impl Notes {
    /// Replaces what was said about a service; gives what is new.
    pub fn set(&mut self, key: &ServiceKey, notes: Vec<Note>) -> Vec<Note> {
        if self.by_service.get(key).map_or(notes.is_empty(), |before| *before == notes) {
            return Vec::new();
        }
        let before = match notes.is_empty() {
            true => self.by_service.remove(key).unwrap_or_default(),
            false => self.by_service.insert(key.clone(), notes.clone()).unwrap_or_default(),
        };
        before.iter().for_each(|note| *self.count(note) -= 1);
        notes.iter().for_each(|note| *self.count(note) += 1);
        notes.into_iter().filter(|note| !before.contains(note)).collect()
    }

    /// How many there are of each kind, by its label.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        NoteKind::ALL.iter().map(|kind| kind.label()).zip(self.counts).collect()
    }

    pub fn get(&self, key: &ServiceKey) -> Option<&Vec<Note>> {
        self.by_service.get(key)
    }

    fn count(&mut self, note: &Note) -> &mut u64 {
        let place = NoteKind::ALL.iter().position(|kind| *kind == note.kind());
        &mut self.counts[place.expect("ALL has every kind")]
    }
}
