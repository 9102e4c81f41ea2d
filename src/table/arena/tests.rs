use std::collections::HashMap;
use std::sync::mpsc;
use std::thread;

use proptest::prelude::*;

use super::*;

fn fill(piece: NonNull<u8>, size: usize, with: u8) {
    // SAFETY: it was taken with this size.
    unsafe { piece.as_ptr().write_bytes(with, size) };
}

fn is_full_of(piece: NonNull<u8>, size: usize, with: u8) -> bool {
    // SAFETY: as above, and it was filled.
    unsafe { slice::from_raw_parts(piece.as_ptr(), size) }.iter().all(|octet| *octet == with)
}

proptest! {
    /// Pieces of all sizes keep what is written to them until they are given back, whatever is taken meanwhile.
    #[test]
    fn pieces_do_not_overlap(steps in prop::collection::vec((any::<bool>(), 1_usize..1_200, any::<u8>()), 1..400)) {
        let (_store, mut taker) = new();
        let mut held: HashMap<NonNull<u8>, (usize, u8)> = HashMap::new();
        for (take, size, with) in steps {
            if take {
                let piece = taker.take(size);
                prop_assert_eq!(piece.as_ptr().addr() % STEP, 0);
                fill(piece, size, with);
                prop_assert!(held.insert(piece, (size, with)).is_none(), "taken twice");
            } else if let Some(piece) = held.keys().nth(size % held.len().max(1)).copied() {
                let (size, with) = held.remove(&piece).unwrap();
                prop_assert!(is_full_of(piece, size, with));
                // SAFETY: it was taken with this size, and is forgotten.
                unsafe { give(piece, size) };
            }
        }
        for (piece, (size, with)) in held {
            prop_assert!(is_full_of(piece, size, with));
            // SAFETY: as above.
            unsafe { give(piece, size) };
        }
    }
}

#[test]
fn what_was_given_back_is_taken_first() {
    let (store, mut taker) = new();
    for round in 0..1_000 {
        let pieces: Vec<NonNull<u8>> = (0..1_000).map(|_| taker.take(100)).collect();
        // SAFETY: each was taken with this size, and is not used again.
        pieces.iter().for_each(|piece| unsafe { give(*piece, 100) });
        let chunk = store.chunks.load(Ordering::Relaxed);
        // SAFETY: chunks live as long as the store.
        assert!(unsafe { (*chunk).before }.is_null(), "a second chunk in round {round}");
    }
}

/// Many chunks, and neighbours in the order in which they were taken.
#[test]
fn side_by_side() {
    let (_store, mut taker) = new();
    let pieces: Vec<usize> = (0..100_000).map(|_| taker.take(90).as_ptr().addr()).collect();
    let gaps = pieces.windows(2).filter(|pair| pair[1] != pair[0] + 96).count();
    assert_eq!(gaps, 96 * 100_000 / CHUNK);
}

/// Two threads give back what one takes.
#[test]
fn from_other_threads() {
    let (store, mut taker) = new();
    thread::scope(|scope| {
        let givers: Vec<mpsc::Sender<(AtomicPtr<u8>, u8)>> = (0..2)
            .map(|_| {
                let (giver, pieces) = mpsc::channel::<(AtomicPtr<u8>, u8)>();
                scope.spawn(move || {
                    for (piece, with) in pieces {
                        let piece = NonNull::new(piece.into_inner()).unwrap();
                        assert!(is_full_of(piece, 48, with));
                        // SAFETY: it was taken with this size, and sent away.
                        unsafe { give(piece, 48) };
                    }
                });
                giver
            })
            .collect();
        for n in 0..100_000_usize {
            let piece = taker.take(48);
            fill(piece, 48, n as u8);
            givers[n % 2].send((AtomicPtr::new(piece.as_ptr()), n as u8)).unwrap();
        }
    });
    // All came back, and are enough for as many again.
    let chunk = store.chunks.load(Ordering::Relaxed);
    let mut pieces: Vec<NonNull<u8>> = (0..1_000).map(|_| taker.take(48)).collect();
    assert_eq!(store.chunks.load(Ordering::Relaxed), chunk);
    pieces.sort_unstable();
    assert!(pieces.windows(2).all(|pair| pair[0] != pair[1]), "one piece was taken twice");
}
