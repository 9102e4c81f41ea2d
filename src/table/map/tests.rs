use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;

/// Few values, so that names collide.
fn poor(name: &[u8]) -> u64 {
    let n = u64::from(name.iter().fold(0u8, |a, &b| a.wrapping_mul(31).wrapping_add(b)));
    (n % 8) | (n % 3) << TAG_SHIFT
}

fn good(name: &[u8]) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = foldhash::quality::FixedState::with_seed(1).build_hasher();
    hasher.write(name);
    hasher.finish()
}

fn entry(name: &[u8], value: u32) -> Vec<u8> {
    let mut octets = Vec::new();
    put_head(&mut octets, name, 0, [0; 2]);
    octets.extend_from_slice(&value.to_le_bytes());
    octets
}

fn value(octets: &[u8]) -> u32 {
    u32::from_le_bytes(octets[octets.len() - 4..].try_into().unwrap())
}

proptest! {
    #[test]
    fn it_is_a_map(
        operations in prop::collection::vec((any::<bool>(), 0u16..200, any::<u32>()), 0..600),
        well: bool,
    ) {
        let hash = if well { good } else { poor };
        let (map, mut writer) = new(Box::new(hash));
        let mut model = HashMap::new();
        for (put, name, number) in operations {
            let name = name.to_string().into_bytes();
            if put {
                writer.insert(hash(&name), &entry(&name, number));
                model.insert(name, number);
            } else {
                prop_assert_eq!(writer.remove(hash(&name), &name), model.remove(&name).is_some());
                writer.reserve((number % 512) as usize);
            }
        }
        prop_assert_eq!(writer.len(), model.len());
        let pinned = map.enter();
        for name in (0u16..200).map(|n| n.to_string().into_bytes()) {
            let expected = model.get(&name).copied();
            let hash = hash(&name);
            pinned.prefetch_slot(hash);
            pinned.prefetch_entry(hash);
            prop_assert_eq!(pinned.get(hash, &name).map(value), expected);
            prop_assert_eq!(writer.get(hash, &name).map(value), expected);
        }
    }
}

#[test]
fn slots_of_removed_entries_are_used_again() {
    let (_, mut writer) = new(Box::new(good));
    for n in 0..100_000u32 {
        writer.insert(good(&n.to_le_bytes()), &entry(&n.to_le_bytes(), n));
        assert!(writer.remove(good(&n.to_le_bytes()), &n.to_le_bytes()));
    }
    assert_eq!(writer.len(), 0);
    assert_eq!(writer.slots().cells.len(), LEAST_SLOTS);
}

#[test]
fn what_a_reader_holds_stays_while_it_is_replaced_and_the_map_grows() {
    let (map, mut writer) = new(Box::new(good));
    writer.insert(good(b"held"), &entry(b"held", 1));
    let pinned = map.enter();
    let held = pinned.get(good(b"held"), b"held").unwrap();
    for n in 0..10_000u32 {
        writer.insert(good(b"held"), &entry(b"held", n));
        writer.insert(good(&n.to_le_bytes()), &entry(&n.to_le_bytes(), n));
    }
    assert_eq!(value(held), 1);
    assert_eq!(pinned.get(good(b"held"), b"held").map(value), Some(9_999), "a guard is no snapshot");
}

/// Names that are always there are always found, with a value that was written, whatever happens beside them.
#[test]
fn readers_beside_the_writer() {
    let (map, mut writer) = new(Box::new(poor));
    let stop = AtomicBool::new(false);
    let kept: Vec<Vec<u8>> = (0..20u8).map(|n| vec![b'k', n]).collect();
    kept.iter().for_each(|name| writer.insert(poor(name), &entry(name, 0)));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = vec![0; kept.len()];
                while !stop.load(Ordering::Relaxed) {
                    let pinned = map.enter();
                    for (name, last) in kept.iter().zip(&mut last) {
                        let now = pinned.get(poor(name), name).map(value).expect("it is always there");
                        assert!(now >= *last, "{now} after {last}");
                        *last = now;
                    }
                }
            });
        }
        for round in 1..2_000u32 {
            kept.iter().for_each(|name| writer.insert(poor(name), &entry(name, round)));
            let other = |n: u32| (round + n).to_le_bytes();
            (0..40).for_each(|n| writer.insert(poor(&other(n)), &entry(&other(n), n)));
            (0..39).for_each(|n| assert!(writer.remove(poor(&other(n)), &other(n))));
        }
        stop.store(true, Ordering::Relaxed);
    });
}
