use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;

/// Few values, so that keys collide.
fn poor(key: Key<'_>) -> u64 {
    let n = u64::from(key.name.iter().fold(0u8, |a, &b| a.wrapping_mul(31).wrapping_add(b)));
    (n % 8) | (n % 3) << TAG_SHIFT
}

fn good(key: Key<'_>) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = foldhash::quality::FixedState::with_seed(1).build_hasher();
    hasher.write(key.name);
    hasher.write_u8(key.zone);
    hasher.finish()
}

fn key(name: &[u8]) -> Key<'_> {
    Key { zone: 7, name }
}

fn entry(key: Key<'_>, value: u32) -> Vec<u8> {
    let mut octets = Vec::new();
    put_head(&mut octets, key, 0, [0; 2]);
    octets.extend_from_slice(&value.to_le_bytes());
    octets
}

fn value(octets: &[u8]) -> u32 {
    u32::from_le_bytes(octets[octets.len() - 4..].try_into().unwrap())
}

proptest! {
    #[test]
    fn it_is_a_map(
        operations in prop::collection::vec((any::<bool>(), 0u16..100, 0u8..2, any::<u32>()), 0..600),
        well: bool,
    ) {
        let hash = if well { good } else { poor };
        let (map, mut writer) = new(Box::new(hash));
        let mut model = HashMap::new();
        for (put, name, zone, number) in operations {
            let name = name.to_string().into_bytes();
            let key = Key { zone, name: &name };
            if put {
                writer.insert(hash(key), &entry(key, number));
                model.insert((name, zone), number);
            } else {
                prop_assert_eq!(writer.remove(hash(key), key), model.remove(&(name.clone(), zone)).is_some());
                writer.reserve((number % 512) as usize);
            }
        }
        prop_assert_eq!(writer.len(), model.len());
        let pinned = map.enter();
        for (name, zone) in (0u16..100).flat_map(|n| [0, 1].map(|zone| (n.to_string().into_bytes(), zone))) {
            let key = Key { zone, name: &name };
            let hash = hash(key);
            pinned.prefetch_slot(hash);
            pinned.prefetch_entry(hash, zone == 1);
            prop_assert_eq!(pinned.get(hash, key).map(value), writer.get(hash, key).map(value));
            prop_assert_eq!(pinned.get(hash, key).map(value), model.get(&(name, zone)).copied());
        }
    }
}

fn put(writer: &mut Writer, name: &[u8], value: u32) {
    writer.insert((writer.hash)(key(name)), &entry(key(name), value));
}

fn take(writer: &mut Writer, name: &[u8]) -> bool {
    writer.remove((writer.hash)(key(name)), key(name))
}

#[test]
fn slots_of_removed_entries_are_used_again() {
    let (_, mut writer) = new(Box::new(good));
    for n in 0..100_000u32 {
        put(&mut writer, &n.to_le_bytes(), n);
        assert!(take(&mut writer, &n.to_le_bytes()));
    }
    assert_eq!(writer.len(), 0);
    assert_eq!(writer.slots().cells.len(), LEAST_SLOTS);
}

#[test]
fn what_a_reader_holds_stays_while_it_is_replaced_and_the_map_grows() {
    let (map, mut writer) = new(Box::new(good));
    put(&mut writer, b"held", 1);
    let pinned = map.enter();
    let held = pinned.get(good(key(b"held")), key(b"held")).unwrap();
    for n in 0..10_000u32 {
        put(&mut writer, b"held", n);
        put(&mut writer, &n.to_le_bytes(), n);
    }
    assert_eq!(value(held), 1);
    assert_eq!(pinned.get(good(key(b"held")), key(b"held")).map(value), Some(9_999), "a guard is no snapshot");
}

/// Names that are always there are always found, with a value that was written, whatever happens beside them.
#[test]
fn readers_beside_the_writer() {
    let (map, mut writer) = new(Box::new(poor));
    let stop = AtomicBool::new(false);
    let kept: Vec<Vec<u8>> = (0..20u8).map(|n| vec![b'k', n]).collect();
    kept.iter().for_each(|name| put(&mut writer, name, 0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = vec![0; kept.len()];
                while !stop.load(Ordering::Relaxed) {
                    let pinned = map.enter();
                    for (name, last) in kept.iter().zip(&mut last) {
                        let now = pinned.get(poor(key(name)), key(name)).map(value).expect("it is always there");
                        assert!(now >= *last, "{now} after {last}");
                        *last = now;
                    }
                }
            });
        }
        for round in 1..2_000u32 {
            kept.iter().for_each(|name| put(&mut writer, name, round));
            let other = |n: u32| (round + n).to_le_bytes();
            (0..40).for_each(|n| put(&mut writer, &other(n), n));
            (0..39).for_each(|n| assert!(take(&mut writer, &other(n))));
        }
        stop.store(true, Ordering::Relaxed);
    });
}
