//! Mass loss, seen through the index. Services have no selector, so that there is no other timer.

use super::*;

/// What happens, and which of the services `s0`, `s1`, ... are there after it.
enum Event {
    /// A list with these.
    List(Vec<u32>),
    /// A list with these, of which the second ones could not be understood.
    ListKeep(Vec<u32>, Vec<u32>),
    Delete(u32),
    Apply(u32),
}
use Event::*;

/// Second, event; after it: how many are there, how many are held and when to ask for a list.
type Step = (u64, Event, usize, Option<(usize, u64)>);

struct Case {
    name: &'static str,
    events: Vec<Step>,
}

fn of_kind(kind: Kind, number: u32) -> Object {
    match kind {
        Kind::Service => Object::Service(service(&format!("s{number} noselector"))),
        Kind::EndpointSlice => Object::Slice(slice(&format!("s{number} owner"))),
        other => unreachable!("no {} here", other.name()),
    }
}

fn range(range: std::ops::Range<u32>) -> Vec<u32> {
    range.collect()
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "a list that lacks more than half is held, and released by one that comes 30 s later",
            events: vec![
                (0, List(range(0..20)), 20, None),
                (100, List(range(0..9)), 20, Some((11, 130))),
                (129, List(range(0..9)), 20, Some((11, 130))),
                (130, List(range(0..9)), 9, None),
            ],
        },
        Case {
            name: "an empty list too",
            events: vec![
                (0, List(range(0..20)), 20, None),
                (100, List(vec![]), 20, Some((20, 130))),
                (130, List(vec![]), 0, None),
            ],
        },
        Case {
            name: "half is not more than half",
            events: vec![(0, List(range(0..20)), 20, None), (100, List(range(0..10)), 10, None)],
        },
        Case {
            name: "nine are not ten",
            events: vec![(0, List(range(0..10)), 10, None), (100, List(range(0..1)), 1, None)],
        },
        Case {
            name: "ten are ten",
            events: vec![(0, List(range(0..10)), 10, None), (100, List(vec![]), 10, Some((10, 130)))],
        },
        Case {
            name: "what few objects a small cluster has may all go, however many come and go",
            events: vec![
                (0, List(range(0..9)), 9, None),
                (1, List(range(10..19)), 9, None),
                (2, List(range(20..29)), 9, None),
                (3, List(vec![]), 0, None),
            ],
        },
        Case {
            name: "what a list adds is there at once, only the losses are held",
            events: vec![(0, List(range(0..20)), 20, None), (100, List(range(15..40)), 40, Some((15, 130)))],
        },
        Case {
            name: "what comes back is no longer held: in a list, not understood in a list, by itself",
            events: vec![
                (0, List(range(0..20)), 20, None),
                (100, List(vec![]), 20, Some((20, 130))),
                (110, List(range(0..4)), 20, Some((16, 130))),
                (120, ListKeep(range(0..4), range(4..6)), 20, Some((14, 130))),
                (125, Apply(6), 20, Some((13, 130))),
                (130, List(range(0..7)), 7, None),
            ],
        },
        Case {
            name: "all come back",
            events: vec![
                (0, List(range(0..20)), 20, None),
                (100, List(vec![]), 20, Some((20, 130))),
                (110, List(range(0..20)), 20, None),
                (140, List(range(1..20)), 19, None),
            ],
        },
        Case {
            name: "creeping deletions are through up to the half, and held from then on",
            events: [(0, List(range(0..20)), 20, None)]
                .into_iter()
                .chain((0..10).map(|n| (100 + u64::from(n), Delete(n), 19 - n as usize, None)))
                .chain([
                    (110, Delete(10), 10, Some((1, 140))),
                    (112, Delete(11), 10, Some((2, 142))),
                    (113, Delete(11), 10, Some((2, 142))),
                    (141, List(range(13..20)), 8, Some((1, 142))),
                    (142, List(range(13..20)), 7, None),
                    (172, Delete(13), 6, None),
                ])
                .collect(),
        },
        Case {
            name: "a deletion after 60 s counts anew",
            events: [(0, List(range(0..20)), 20, None)]
                .into_iter()
                .chain((0..10).map(|n| (100, Delete(n), 19 - n as usize, None)))
                .chain([(159, Delete(10), 10, Some((1, 189))), (159, Apply(10), 10, None), (160, Delete(10), 9, None)])
                .collect(),
        },
        Case {
            name: "one object that comes and goes is one object",
            events: [(0, List(range(0..12)), 12, None)]
                .into_iter()
                .chain((0..20).flat_map(|n| [(100 + n, Delete(0), 11, None), (100 + n, Apply(0), 12, None)]))
                .collect(),
        },
        Case {
            name: "lists and deletions are one count",
            events: vec![
                (0, List(range(0..20)), 20, None),
                (100, List(range(5..20)), 15, None),
                (110, List(range(10..20)), 10, None),
                (120, Delete(10), 10, Some((1, 150))),
            ],
        },
        Case {
            name: "while losses are held they count, however old",
            events: vec![
                (0, List(range(0..20)), 20, None),
                (100, List(range(0..5)), 20, Some((15, 130))),
                (500, Delete(0), 20, Some((16, 160))),
                (501, List(range(1..5)), 5, Some((1, 530))),
            ],
        },
        Case {
            name: "a list that releases may lack more, which counts anew",
            events: vec![
                (0, List(range(0..40)), 40, None),
                (100, List(range(0..19)), 40, Some((21, 130))),
                (130, List(range(0..5)), 19, Some((14, 160))),
                (160, List(range(0..5)), 5, None),
            ],
        },
    ]
}

#[test]
fn mass_loss() {
    for kind in Kind::CORE {
        for case in cases() {
            let mut index = Index::new(vec![SlicePolicy::Expected]);
            for (number, (second, event, present, held)) in case.events.into_iter().enumerate() {
                let objects = |numbers: Vec<u32>| numbers.into_iter().map(|n| of_kind(kind, n)).collect();
                let name = |n: u32| object_key(&format!("s{n}"));
                let update = match event {
                    List(listed) => Update::Reset { kind, objects: objects(listed), keep: vec![] },
                    ListKeep(listed, kept) => {
                        let keep = kept.into_iter().map(name).collect();
                        Update::Reset { kind, objects: objects(listed), keep }
                    }
                    Delete(n) => Update::Delete(kind, name(n)),
                    Apply(n) => Update::Apply(of_kind(kind, n)),
                };
                index.apply(C0, update, at(second));
                let step = format!("{kind:?}, {}, event {number} at {second} s", case.name);
                let (services, slices) = index.counts(C0);
                let counted = match kind {
                    Kind::Service => services,
                    Kind::EndpointSlice => slices,
                    other => unreachable!("no {} here", other.name()),
                };
                assert_eq!(counted, present, "{step}");
                let held = held.map(|(count, from)| Held { cluster: C0, kind, count, release_from: at(from) });
                assert_eq!(index.held(), Vec::from_iter(held), "{step}");
            }
        }
    }
}

#[test]
fn kinds_and_clusters_are_judged_apart() {
    let mut index = Index::new(vec![SlicePolicy::Expected; 2]);
    let list = |kind, numbers: Vec<u32>| Update::Reset {
        kind,
        objects: numbers.into_iter().map(|n| of_kind(kind, n)).collect(),
        keep: vec![],
    };
    for cluster in [C0, C1] {
        for kind in Kind::CORE {
            index.apply(cluster, list(kind, range(0..20)), at(0));
        }
    }
    let changes = index.apply(C1, list(Kind::Service, vec![]), at(100));
    assert_eq!(changes, Changes::default(), "a held loss changes nothing");
    index.apply(C1, list(Kind::EndpointSlice, range(0..15)), at(100));
    index.apply(C0, list(Kind::Service, range(0..15)), at(100));

    assert_eq!(index.held(), [Held { cluster: C1, kind: Kind::Service, count: 20, release_from: at(130) }]);
    assert_eq!((index.counts(C0), index.counts(C1)), ((15, 20), (20, 15)));

    let mut other = Index::new(vec![SlicePolicy::Expected]);
    other.adopt(C0, &mut index, C1);
    assert_eq!(index.held(), []);
    let changes = other.apply(C0, list(Kind::Service, vec![]), at(130));
    assert_eq!(changes.services.len(), 20);
    assert_eq!((other.held(), other.counts(C0)), (vec![], (0, 15)));
}

#[test]
fn while_deletions_go_on_lists_are_asked_for_at_least_30_seconds_apart() {
    let mut index = Index::new(vec![SlicePolicy::Expected]);
    let kind = Kind::Service;
    let list = |from: u32| Update::Reset {
        kind,
        objects: range(from..1000).into_iter().map(|n| of_kind(kind, n)).collect(),
        keep: vec![],
    };
    index.apply(C0, list(0), at(0));
    index.apply(C0, list(600), at(100));
    let mut asked = vec![];
    let mut gone = 600;
    for second in 101..300 {
        index.apply(C0, Update::Delete(kind, object_key(&format!("s{gone}"))), at(second));
        gone += 1;
        if index.held().first().is_some_and(|held| held.release_from <= at(second)) {
            asked.push(second);
            index.apply(C0, list(gone), at(second));
        }
    }
    assert!(asked.len() >= 2, "{asked:?}");
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= 30), "{asked:?}");
}
