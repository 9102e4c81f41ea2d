//! Any order of updates leads to what the same objects give to a fresh index, and every step names what it changes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Enough names in one cluster that a list can lose ten and more of them.
const NAMES: u8 = 16;
const CLUSTERS: u16 = 2;

#[derive(Debug, Clone)]
enum Step {
    Say(ClusterId, Update),
    Tick,
}

fn a_service() -> impl Strategy<Value = Service> {
    let ingress = select(vec!["lb", "lb", "lb=1.1.1.1", "lb=2.2.2.2,1.1.1.1", ""]);
    let more = select(vec!["", "", "headless", "noselector", "noselector headless"]);
    (0..NAMES, ingress, more).prop_map(|(name, ingress, more)| service(format!("s{name} {ingress} {more}").trim()))
}

fn a_slice() -> impl Strategy<Value = Slice> {
    let endpoint = select(vec![
        " 10.1.0.1",
        " 10.1.0.1!",
        " 10.1.0.1!ready",
        " 10.1.0.1!serving",
        " fd00::1@web",
        " 10.1.0.2@web",
        " 10.1.0.2@other",
        " port=80",
    ]);
    let words = prop::collection::vec(endpoint, 0..3);
    (0..NAMES, 0..NAMES, words).prop_map(|(name, owner, words)| slice(&format!("e{name} s{owner}{}", words.concat())))
}

fn an_object() -> impl Strategy<Value = Object> {
    prop_oneof![a_service().prop_map(Object::Service), a_slice().prop_map(Object::Slice)]
}

fn a_key(kind: Kind) -> impl Strategy<Value = ObjectKey> {
    (0..NAMES).prop_map(move |name| match kind {
        Kind::Service => object_key(&format!("s{name}")),
        Kind::EndpointSlice => object_key(&format!("e{name}")),
        other => unreachable!("no {} here", other.name()),
    })
}

fn an_update() -> impl Strategy<Value = Update> {
    let kind = || select(Kind::CORE.to_vec());
    let list = kind().prop_flat_map(|kind| {
        let objects: BoxedStrategy<Object> = match kind {
            Kind::Service => a_service().prop_map(Object::Service).boxed(),
            Kind::EndpointSlice => a_slice().prop_map(Object::Slice).boxed(),
            other => unreachable!("no {} here", other.name()),
        };
        let objects = prop::collection::vec(objects, 0..40);
        let keep = prop::collection::vec(a_key(kind), 0..3);
        (objects, keep).prop_map(move |(objects, keep)| Update::Reset { kind, objects, keep })
    });
    let delete = kind().prop_flat_map(|kind| a_key(kind).prop_map(move |key| Update::Delete(kind, key)));
    prop_oneof![6 => an_object().prop_map(Update::Apply), 4 => delete, 1 => list]
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let cluster = (0..CLUSTERS).prop_map(ClusterId);
    let step = prop_oneof![
        5 => (cluster, an_update()).prop_map(|(cluster, update)| Step::Say(cluster, update)),
        1 => Just(Step::Tick),
    ];
    prop::collection::vec((select(vec![0, 0, 1, 5, 31, 61, 301]), step), 0..120)
}

/// What a cluster really has, without any rule of ours.
#[derive(Default)]
struct Truth([BTreeMap<ObjectKey, Object>; 2]);

impl Truth {
    /// A list keeps what is there: of an object that was deleted and is back in a broken state there is no truth to
    /// compare with (the index has its last good state only if the deletion was held).
    fn restrict(&self, update: &mut Update) {
        if let Update::Reset { kind, keep, .. } = update {
            keep.retain(|key| self.0[*kind as usize].contains_key(key));
        }
    }

    fn hear(&mut self, update: &Update) {
        match update.clone() {
            Update::Apply(object) => {
                self.0[object.kind() as usize].insert(object.key(), object);
            }
            Update::Delete(kind, key) => {
                self.0[kind as usize].remove(&key);
            }
            Update::Reset { kind, objects, keep } => {
                let before = std::mem::take(&mut self.0[kind as usize]);
                let listed = objects.into_iter().map(|object| (object.key(), object));
                let kept = before.into_iter().filter(|(key, _)| keep.contains(key));
                self.0[kind as usize] = kept.chain(listed).collect();
            }
        }
    }

    fn list(&self, kind: Kind) -> Update {
        Update::Reset { kind, objects: self.0[kind as usize].values().cloned().collect(), keep: vec![] }
    }
}

fn everything(index: &Index) -> BTreeMap<ServiceKey, Federated> {
    let all = (0..NAMES).map(|name| key(&format!("s{name}")));
    let found: BTreeMap<_, _> = all.filter_map(|key| Some((key.clone(), index.service(&key)?))).collect();
    assert!(index.keys().iter().eq(found.keys()), "keys() and service() agree");
    found
}

fn assert_named(before: &BTreeMap<ServiceKey, Federated>, after: &BTreeMap<ServiceKey, Federated>, changes: &Changes) {
    for key in before.keys().chain(after.keys()) {
        if before.get(key) != after.get(key) {
            assert!(changes.services.contains(key), "{key}: {:?} → {:?}", before.get(key), after.get(key));
        }
    }
}

fn policies() -> Vec<SlicePolicy> {
    vec![SlicePolicy::Expected, SlicePolicy::Optional]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn updates_lead_to_what_a_fresh_index_says(synced in any::<bool>(), steps in steps()) {
        let mut index = Index::new(policies());
        for id in (0..CLUSTERS).map(ClusterId).filter(|_| synced) {
            for kind in Kind::CORE {
                index.apply(id, Truth::default().list(kind), at(0));
            }
        }
        let mut truths = [Truth::default(), Truth::default()];
        let mut now = 0;
        let mut before = everything(&index);
        for (wait, step) in steps {
            now += wait;
            let changes = match step {
                Step::Say(cluster, mut update) => {
                    truths[cluster.index()].restrict(&mut update);
                    truths[cluster.index()].hear(&update);
                    let again = matches!(update, Update::Apply(_)).then(|| update.clone());
                    let changes = index.apply(cluster, update, at(now));
                    if let Some(update) = again {
                        prop_assert_eq!(index.apply(cluster, update, at(now)), Changes::default());
                    }
                    changes
                }
                Step::Tick => {
                    if let Some(deadline) = index.next_deadline() {
                        let just_before = Moment(deadline.0.saturating_sub(Duration::from_nanos(1)));
                        prop_assert_eq!(index.tick(just_before), Changes::default());
                    }
                    let changes = index.tick(at(now));
                    prop_assert!(index.next_deadline().is_none_or(|deadline| deadline > at(now)));
                    changes
                }
            };
            let after = everything(&index);
            assert_named(&before, &after, &changes);
            before = after;
        }

        let mut restored = Index::new(policies());
        for id in (0..CLUSTERS).map(ClusterId).filter(|id| index.is_synced(*id)) {
            let (mut objects, mut overdue) = (vec![], vec![]);
            for name in index.names(id) {
                let Kept { service, overdue: is_overdue, slices } = index.kept(id, &name).unwrap();
                objects.extend(service.map(Object::Service));
                objects.extend(slices.into_iter().map(Object::Slice));
                overdue.extend(is_overdue.then_some(name));
            }
            restored.restore(id, objects, &overdue, at(7));
            prop_assert!(restored.is_synced(id));
            prop_assert_eq!(restored.counts(id), index.counts(id));
        }
        prop_assert_eq!(everything(&restored), everything(&index));

        // Lists only where they are due: where no loss is held and all is synced, the updates alone must have done it.
        for id in (0..CLUSTERS).map(ClusterId) {
            for kind in Kind::CORE {
                let is_due = |index: &Index| {
                    !index.is_synced(id) || index.held().iter().any(|held| (held.cluster, held.kind) == (id, kind))
                };
                while is_due(&index) {
                    now += 31;
                    for kind in Kind::CORE {
                        index.apply(id, truths[id.index()].list(kind), at(now));
                    }
                }
            }
        }
        let mut fresh = Index::new(policies());
        for (id, truth) in (0..CLUSTERS).map(ClusterId).zip(&truths) {
            for kind in Kind::CORE {
                fresh.apply(id, truth.list(kind), at(now));
            }
        }
        for index in [&mut index, &mut fresh] {
            index.tick(at(now + 1000));
            prop_assert_eq!(index.next_deadline(), None);
        }
        prop_assert_eq!(everything(&index), everything(&fresh));
        for id in (0..CLUSTERS).map(ClusterId) {
            prop_assert_eq!(index.counts(id), fresh.counts(id));
        }
    }
}
