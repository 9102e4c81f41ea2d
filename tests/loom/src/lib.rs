//! Models of the map and of the memory of its entries: a writer and readers, few steps each, in every order. What they hold
//! is what `table/map.rs` says of itself: who looks up a name that stays finds it, whole, whatever happens to other names, to
//! the array of slots and to the entry; what was freed is not looked at.

#![cfg(test)]

// Not all of them is asked here, and their own tests are not in reach.
#[rustfmt::skip]
#[allow(dead_code)]
#[path = "../../../src/table/arena.rs"]
mod arena;
#[rustfmt::skip]
#[allow(dead_code)]
#[path = "../../../src/table/map.rs"]
mod map;
mod shim;

mod names {
    pub fn is_same(a: &[u8], b: &[u8]) -> bool {
        a == b
    }
}

use std::ptr::NonNull;
use std::sync::atomic::AtomicPtr;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use map::{Key, Map, Writer};

/// Every name has the same place and tag, so that they stand in one another's way.
const HASH: u64 = 1 << 48 | 1;

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    // Orders with more changes of thread that nothing asked for are left out: there are too many.
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn key(name: &str) -> Key<'_> {
    Key { zone: 0, name: name.as_bytes() }
}

fn entry(name: &str, value: u8) -> Vec<u8> {
    let mut octets = Vec::new();
    map::put_head(&mut octets, key(name), 0, [0; 2]);
    octets.extend_from_slice(&[value; 4]);
    octets
}

fn put(writer: &mut Writer, name: &str, value: u8) {
    writer.insert(HASH, &entry(name, value));
}

/// The value of a name; an entry is found as it was put, or not at all.
fn get(map: &map::Pinned<'_>, name: &str) -> Option<u8> {
    let octets = map.get(HASH, key(name))?;
    let value = octets[octets.len() - 1];
    assert_eq!(octets, entry(name, value), "an entry is whole");
    Some(value)
}

fn new() -> (Map, Writer) {
    map::new(Box::new(|_| HASH))
}

#[test]
fn a_new_entry_is_whole_or_not_there() {
    check(|| {
        let (map, mut writer) = new();
        let reader = thread::spawn(move || {
            let map = map.enter();
            let seen = [(); 2].map(|()| get(&map, "name"));
            assert!(matches!(seen, [None, None | Some(1)] | [Some(1), Some(1)]), "{seen:?}");
        });
        put(&mut writer, "name", 1);
        reader.join().unwrap();
    });
}

#[test]
fn a_name_that_stays_is_found_while_others_come_and_go() {
    check(|| {
        let (map, mut writer) = new();
        put(&mut writer, "gone", 1);
        put(&mut writer, "stays", 2);
        let reader = thread::spawn(move || {
            let map = map.enter();
            assert_eq!(get(&map, "stays"), Some(2));
            assert_eq!(get(&map, "never"), None);
        });
        writer.remove(HASH, key("gone"));
        // Into the slot of the one that is gone, in front of the one that stays.
        put(&mut writer, "new", 3);
        reader.join().unwrap();
    });
}

#[test]
fn a_name_that_stays_is_found_while_the_array_grows() {
    check(|| {
        let (map, mut writer) = new();
        put(&mut writer, "stays", 1);
        put(&mut writer, "other", 2);
        let reader = thread::spawn(move || {
            for _ in 0..2 {
                assert_eq!(get(&map.enter(), "stays"), Some(1));
            }
        });
        // Two of four slots are in use; a third one is too many.
        put(&mut writer, "third", 3);
        reader.join().unwrap();
    });
}

#[test]
fn a_replaced_entry_is_the_old_or_the_new_one_and_never_goes_back() {
    check(|| {
        let (map, mut writer) = new();
        put(&mut writer, "name", 1);
        let reader = thread::spawn(move || {
            let map = map.enter();
            let seen = [(); 2].map(|()| get(&map, "name").expect("it is always there"));
            assert!(matches!(seen, [1, 1] | [1, 2] | [2, 2]), "{seen:?}");
        });
        put(&mut writer, "name", 2);
        reader.join().unwrap();
    });
}

#[test]
fn who_was_told_of_a_name_finds_it() {
    check(|| {
        let (map, mut writer) = new();
        put(&mut writer, "first", 1);
        put(&mut writer, "second", 2);
        let told = Arc::new(AtomicBool::new(false));
        let reader = thread::spawn({
            let told = told.clone();
            move || {
                // Also who entered before.
                let map = map.enter();
                let before = told.load(Ordering::Acquire);
                let found = get(&map, "third");
                assert!(found == Some(3) || !before);
            }
        });
        // With a new array.
        put(&mut writer, "third", 3);
        told.store(true, Ordering::Release);
        reader.join().unwrap();
    });
}

#[test]
fn what_two_readers_may_have_seen_outlives_both() {
    check(|| {
        let (map, mut writer) = new();
        put(&mut writer, "name", 1);
        let readers = [map.clone(), map].map(|map| {
            thread::spawn(move || {
                let map = map.enter();
                let first = map.get(HASH, key("name")).map(<[u8]>::to_vec);
                let _ = get(&map, "name");
                first
            })
        });
        writer.remove(HASH, key("name"));
        for reader in readers {
            assert!(reader.join().unwrap().is_none_or(|octets| octets == entry("name", 1)));
        }
    });
}

/// What `table/arena.rs` says of itself: a piece is in one place.
#[test]
fn what_is_given_back_is_taken_once() {
    check(|| {
        let (store, mut taker) = arena::new();
        let [first, second, third] = [(); 3].map(|()| taker.take(100));
        // SAFETY: each was taken with this size, and is not used again; the store is dropped last.
        let give = |piece: NonNull<u8>| unsafe { arena::give(piece, 100) };
        give(third);
        let givers = [first, second].map(|piece| {
            let piece = AtomicPtr::new(piece.as_ptr());
            thread::spawn(move || give(NonNull::new(piece.into_inner()).unwrap()))
        });
        let mut taken = vec![taker.take(100), taker.take(100)];
        givers.into_iter().for_each(|giver| giver.join().unwrap());
        taken.extend([taker.take(100), taker.take(100)]);
        for piece in [first, second, third] {
            assert_eq!(taken.iter().filter(|taken| **taken == piece).count(), 1);
        }
        taken.sort_unstable();
        assert!(taken.windows(2).all(|pair| pair[0] != pair[1]));
        drop(store);
    });
}
