use super::*;
use crate::index::Kind;

const C0: ClusterId = ClusterId(0);
const C1: ClusterId = ClusterId(1);
/// The time of day at which the process started.
const START: i64 = 1_000_000;
const TTL: Duration = Duration::from_secs(30);

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
}

/// Seconds after the start of the process, which may be before it.
fn clock(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).unwrap()
}

fn key() -> ServiceKey {
    "shop/cart".parse().unwrap()
}

fn directive(action: Action, from: Option<i64>, until: Option<i64>) -> Directive {
    Directive { service: None, action, from: from.map(clock), until: until.map(clock), reason: "".into() }
}

fn named(name: &str, directive: Directive) -> Object {
    Object::Directive(ObjectKey { namespace: "signpost".into(), name: name.into() }, directive)
}

struct World(Steering);

impl World {
    fn new() -> World {
        World(Steering::new(TTL))
    }

    fn say(&mut self, cluster: ClusterId, directive: Directive, second: u64) -> Vec<Subject> {
        let update = Update::Apply(named("directive", directive));
        self.0.take(cluster, update, at(second), clock(second as i64)).changed
    }

    /// What is done about the cluster at that time, when every deadline before it was kept.
    fn at(&mut self, second: u64) -> Steered {
        while let Some(next) = self.0.next_deadline().filter(|next| *next <= at(second)) {
            self.0.tick(next);
        }
        self.0.tick(at(second));
        let shifted = self.0.effect(&Subject::Cluster(C0)).shifted;
        Steered { shifted, ..self.0.of(C0, &key()) }
    }
}

fn drained() -> Steered {
    Steered { drained: true, ..Steered::default() }
}

fn brief() -> Steered {
    Steered { is_brief: true, ..Steered::default() }
}

#[test]
fn a_drain_begins_and_ends_by_itself() {
    let mut world = World::new();
    let drain = directive(Action::Drain { over: Duration::ZERO }, Some(100), Some(200));
    assert_eq!(world.say(C0, drain, 0), []);
    assert_eq!(world.at(69), Steered::default());
    assert_eq!(world.at(71), brief(), "whoever asks now must not be sent there later");
    assert_eq!(world.at(99), brief());
    assert_eq!(world.at(101), drained());
    assert_eq!(world.0.of(C1, &key()), Steered::default());
    assert_eq!(world.at(199), drained());
    assert_eq!(world.at(201), Steered::default());
    assert_eq!(world.0.next_deadline(), None);
    assert_eq!(world.0.sights(at(201)).first().map(|sight| sight.phase), Some(Phase::Over));
}

#[test]
fn it_shifts_step_by_step() {
    let mut world = World::new();
    world.say(C0, directive(Action::Drain { over: Duration::from_secs(100) }, Some(0), None), 0);
    let mut before = 0;
    for second in 1..100 {
        let steered = world.at(second);
        let due = (second as f64 / 100.0 * 255.0) as i32;
        assert!(!steered.drained && steered.is_brief, "{steered:?}");
        assert!((i32::from(steered.shifted) - due).abs() <= 8, "at {second}: {} of {due}", steered.shifted);
        assert!(steered.shifted >= before);
        before = steered.shifted;
    }
    assert_eq!(world.at(101), drained());
}

#[test]
fn after_a_restart_it_is_where_it_was() {
    // It began long before this process did, and ends after it; shifts are half done.
    let mut world = World::new();
    world.say(C0, directive(Action::Drain { over: Duration::ZERO }, Some(-1_000), Some(50)), 0);
    assert_eq!(world.at(1), drained());
    world.say(C0, directive(Action::Drain { over: Duration::from_secs(200) }, Some(-100), None), 2);
    let shifted = world.at(3).shifted;
    assert!((125..=140).contains(&shifted), "{shifted}");
    world.say(C0, directive(Action::ForceDown, Some(-1_000), Some(-10)), 4);
    assert_eq!(world.at(5), Steered::default(), "it was over before");
    world.say(C0, directive(Action::ForceDown, None, None), 6);
    assert_eq!(world.at(7).forced, Some(Health::Down));
}

#[test]
fn a_service_and_its_cluster_together() {
    let mut world = World::new();
    let subject = Subject::Service(C0, key());
    assert_eq!(world.say(C0, directive(Action::Drain { over: Duration::ZERO }, None, None), 0), [Subject::Cluster(C0)]);
    let up = Directive { service: Some(key()), ..directive(Action::ForceUp, None, None) };
    let taken = world.0.take(C0, Update::Apply(named("another", up)), at(1), clock(1));
    assert_eq!(taken.changed, std::slice::from_ref(&subject));
    assert_eq!(world.at(2), Steered { forced: Some(Health::Fine), ..drained() });
    assert_eq!(world.0.of(C0, &"shop/other".parse().unwrap()), drained());
    let gone = ObjectKey { namespace: "signpost".into(), name: "another".into() };
    assert_eq!(world.0.take(C0, Update::Delete(Kind::Directive, gone), at(3), clock(3)).changed, [subject]);
    assert_eq!(world.at(4), drained());
    // A list is all that there is, but for what was not understood.
    let keep = vec![ObjectKey { namespace: "signpost".into(), name: "directive".into() }];
    let list = |keep| Update::Reset { kind: Kind::Directive, objects: vec![], keep };
    assert_eq!(world.0.take(C0, list(keep), at(5), clock(5)), Moved::default());
    assert_eq!(world.0.take(C0, list(vec![]), at(6), clock(6)).changed, [Subject::Cluster(C0)]);
}

#[test]
fn what_is_read_again_goes_on_whatever_the_clock_does() {
    let mut world = World::new();
    let drain = directive(Action::Drain { over: Duration::ZERO }, Some(100), Some(200));
    world.say(C0, drain.clone(), 0);
    // Somebody set the clock an hour ahead; the list comes again.
    let again = Update::Reset { kind: Kind::Directive, objects: vec![named("directive", drain)], keep: vec![] };
    assert_eq!(world.0.take(C0, again, at(50), clock(3_650)), Moved::default());
    assert_eq!(world.at(150), drained());
}

#[test]
fn no_more_than_a_cluster_may_say() {
    let mut world = World::new();
    let all = (0..=MOST).map(|n| named(&format!("d{n}"), directive(Action::ForceUp, None, None))).collect();
    let taken = world.0.take(C0, Update::Reset { kind: Kind::Directive, objects: all, keep: vec![] }, at(0), clock(0));
    assert!(taken.refused);
    assert_eq!(world.0.sights(at(0)).len(), MOST);
    let numbered = world.0.renumbered(TTL, |_| Some(C1), at(1));
    assert_eq!(numbered.of(C1, &key()).forced, Some(Health::Fine));
    assert_eq!(numbered.of(C0, &key()), Steered::default());
}
