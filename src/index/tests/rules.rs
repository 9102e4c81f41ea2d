use super::*;

#[test]
fn readiness_of_services_whose_slices_are_expected() {
    let cases: &[(&str, &[Step])] = &[
        (
            "an endpoint must be ready and serving",
            &[
                (0, "slice s a 10.1.0.1", "", "", None),
                (1, "service a", "a", "a ready", None),
                (2, "slice s a 10.1.0.1!ready", "a", "a unready", None),
                (3, "slice s a 10.1.0.1!serving", "", "a unready", None),
                (4, "slice s a 10.1.0.1!serving 10.1.0.2", "a", "a ready", None),
                (5, "slice s a 10.1.0.2", "", "a ready", None),
                (6, "slice s a", "a", "a unready", None),
            ],
        ),
        (
            "one ready slice is enough, and a copy of an address counts whole",
            &[
                (0, "slice s a 10.1.0.1!ready", "", "", None),
                (0, "slice t a 10.1.0.1!serving", "", "", None),
                (1, "service a", "a", "a unready", None),
                (2, "slice t a 10.1.0.1", "a", "a ready", None),
                (3, "no slice s", "", "a ready", None),
                (4, "no slice t", "", "a ready", Some(34)),
                (5, "slice t a", "a", "a unready", None),
            ],
        ),
        (
            "without selector and slice: ready for good",
            &[
                (0, "service a noselector", "a", "a ready", None),
                (99, "tick", "", "a ready", None),
                (100, "slice s a", "a", "a unready", None),
                (101, "no slice s", "a", "a ready", None),
            ],
        ),
        (
            "with a selector and no slice: 30 s from the first sight, however it changes meanwhile",
            &[
                (5, "service a", "a", "a ready", Some(35)),
                (15, "service a port=80", "a", "a ready :80", Some(35)),
                (34, "tick", "", "a ready :80", Some(35)),
                (35, "tick", "a", "a unready :80", None),
                (36, "service a port=81", "a", "a unready :81", None),
                (37, "slice s a 10.1.0.1", "a", "a ready :81", None),
            ],
        ),
        (
            "a slice in time ends the wait",
            &[
                (5, "service a", "a", "a ready", Some(35)),
                (6, "slice s a 10.1.0.1", "", "a ready", None),
                (35, "tick", "", "a ready", None),
            ],
        ),
        (
            "the last slice vanished: what was ready stays so for 30 s",
            &[
                (0, "slice s a 10.1.0.1", "", "", None),
                (0, "service a", "a", "a ready", None),
                (10, "no slice s", "", "a ready", Some(40)),
                (40, "tick", "a", "a unready", None),
            ],
        ),
        (
            "the last slice vanished: what was not ready does not become so",
            &[
                (0, "slice s a 10.1.0.1!", "", "", None),
                (0, "service a", "a", "a unready", None),
                (10, "no slice s", "", "a unready", None),
            ],
        ),
        (
            "a list takes all slices: what was ready before it stays so, whichever slice made it so",
            &[
                (0, "slices: s a 10.1.0.1; t a 10.1.0.2!; s2 b 10.1.0.2!; t2 b 10.1.0.1", "", "", None),
                (0, "services: a; b", "a b", "a ready | b ready", None),
                (10, "slices:", "", "a ready | b ready", Some(40)),
                (40, "tick", "a b", "a unready | b unready", None),
            ],
        ),
        (
            "a selector is added and removed",
            &[
                (0, "service a noselector", "a", "a ready", None),
                (10, "service a", "a", "a ready", Some(40)),
                (40, "tick", "a", "a unready", None),
                (41, "service a noselector", "a", "a ready", None),
            ],
        ),
        (
            "a deleted service is gone at once with its deadline, and starts anew",
            &[
                (0, "service a", "a", "a ready", Some(30)),
                (9, "no service a", "a", "", None),
                (10, "service a", "a", "a ready", Some(40)),
            ],
        ),
        (
            "a slice moves to another service",
            &[
                (0, "slice s a 10.1.0.1", "", "", None),
                (0, "service a", "a", "a ready", None),
                (0, "service b", "b", "a ready | b ready", Some(30)),
                (1, "slice s b 10.1.0.1!", "b", "a ready | b unready", Some(31)),
                (2, "no slice s", "", "a ready | b unready", Some(31)),
                (31, "tick", "a", "a unready | b unready", None),
            ],
        ),
        (
            "a slice belongs to the service of its own namespace",
            &[
                (0, "slice s other/a 10.1.0.1!", "", "", None),
                (0, "slice s a 10.1.0.1", "", "", None),
                (0, "service a", "a", "a ready", None),
                (0, "service other/a", "a", "a ready | other/a unready", None),
            ],
        ),
    ];
    for (name, steps) in cases {
        play(name, SlicePolicy::Expected, steps);
    }
}

#[test]
fn readiness_of_services_whose_slices_are_optional() {
    let cases: &[(&str, &[Step])] = &[
        (
            "no slice in the cluster: ready; the first and the last slice turn all the others",
            &[
                (0, "service a", "a", "a ready", Some(30)),
                (0, "service b", "b", "a ready | b ready", Some(30)),
                (0, "service c noselector", "c", "a ready | b ready | c ready", Some(30)),
                (30, "tick", "", "a ready | b ready | c ready", None),
                (31, "slice s a 10.1.0.1", "b", "a ready | b unready | c ready", None),
                (32, "slice t c 10.1.0.1", "", "a ready | b unready | c ready", None),
                (33, "slices: s a 10.1.0.1!", "a", "a unready | b unready | c ready", None),
                (34, "slices:", "a b", "a ready | b ready | c ready", None),
            ],
        ),
        (
            "one list brings a slice to two services",
            &[
                (0, "service a", "a", "a ready", Some(30)),
                (0, "service b", "b", "a ready | b ready", Some(30)),
                (30, "tick", "", "a ready | b ready", None),
                (31, "slices: s a 10.1.0.1; t b 10.1.0.1!", "b", "a ready | b unready", None),
            ],
        ),
        (
            "a slice of an unknown service counts, and leaves a new service its 30 s",
            &[
                (10, "service a", "a", "a ready", Some(40)),
                (11, "slice s nobody", "", "a ready", Some(40)),
                (40, "tick", "a", "a unready", None),
                (41, "no slice s", "a", "a ready", None),
            ],
        ),
    ];
    for (name, steps) in cases {
        play(name, SlicePolicy::Optional, steps);
    }
}

#[test]
fn ingress() {
    let cases: &[(&str, &[Step])] = &[
        (
            "emptied: the last addresses stay for 5 minutes from then on",
            &[
                (0, "service a lb noselector", "a", "a ready", None),
                (1, "service a lb=1.1.1.1,2.2.2.2 noselector", "a", "a ready 1.1.1.1 2.2.2.2", None),
                (10, "service a lb noselector", "a", "a ready 1.1.1.1 2.2.2.2", Some(310)),
                (20, "service a lb noselector", "", "a ready 1.1.1.1 2.2.2.2", Some(310)),
                (30, "service a lb noselector port=80", "a", "a ready 1.1.1.1 2.2.2.2 :80", Some(310)),
                (40, "services: a lb noselector port=80", "", "a ready 1.1.1.1 2.2.2.2 :80", Some(310)),
                (310, "tick", "a", "a ready :80", None),
            ],
        ),
        (
            "new addresses replace them at once",
            &[
                (0, "service a lb=1.1.1.1 noselector", "a", "a ready 1.1.1.1", None),
                (10, "service a lb noselector", "a", "a ready 1.1.1.1", Some(310)),
                (20, "service a lb=1.1.1.1 noselector", "a", "a ready 1.1.1.1", None),
                (30, "service a lb noselector", "a", "a ready 1.1.1.1", Some(330)),
                (40, "service a lb=3.3.3.3 noselector", "a", "a ready 3.3.3.3", None),
                (330, "tick", "", "a ready 3.3.3.3", None),
            ],
        ),
        (
            "another type drops them at once, and for good",
            &[
                (0, "service a lb=1.1.1.1 noselector", "a", "a ready 1.1.1.1", None),
                (10, "service a lb noselector", "a", "a ready 1.1.1.1", Some(310)),
                (20, "service a noselector", "a", "a ready", None),
                (30, "service a lb noselector", "a", "a ready", None),
            ],
        ),
        (
            "deletion drops them at once",
            &[
                (0, "service a lb=1.1.1.1 noselector", "a", "a ready 1.1.1.1", None),
                (10, "service a lb noselector", "a", "a ready 1.1.1.1", Some(310)),
                (20, "no service a", "a", "", None),
                (30, "service a lb noselector", "a", "a ready", None),
            ],
        ),
    ];
    for (name, steps) in cases {
        play(name, SlicePolicy::Expected, steps);
    }
}

#[test]
fn lists_are_entered_as_differences() {
    let all = "a ready | b ready 1.1.1.1 | c ready";
    let cases: &[(&str, &[Step])] = &[
        (
            "what is the same is no change, what is missing is gone, what is kept stays",
            &[
                (0, "services: a noselector; b noselector lb=1.1.1.1; c noselector", "a b c", all, None),
                (1, "services: c noselector; b noselector lb=1.1.1.1; a noselector", "", all, None),
                (
                    2,
                    "services: a noselector; keep b; c noselector port=80",
                    "c",
                    "a ready | b ready 1.1.1.1 | c ready :80",
                    None,
                ),
                (3, "services: keep a; keep x; keep No_Label", "b c", "a ready", None),
                (4, "services:", "a", "", None),
            ],
        ),
        (
            "slices too",
            &[
                (0, "service a", "a", "a ready", Some(30)),
                (1, "slices: s a 10.1.0.1!; t a 10.1.0.2", "", "a ready", None),
                (2, "slices: t a 10.1.0.2; s a 10.1.0.1!", "", "a ready", None),
                (3, "slices: s a 10.1.0.1!; keep t", "", "a ready", None),
                (4, "slices: s a 10.1.0.1!", "a", "a unready", None),
                (5, "slices: s a 10.1.0.1", "a", "a ready", None),
            ],
        ),
        (
            "of an object that is listed twice the last counts, and it is no change the second time",
            &[
                (0, "services: a noselector port=1; a noselector port=2", "a", "a ready :2", None),
                (1, "services: a noselector port=1; a noselector port=2", "", "a ready :2", None),
            ],
        ),
        (
            "what was never there, or never could be, is no change when it goes",
            &[
                (0, "service a noselector", "a", "a ready", None),
                (1, "no service b", "", "a ready", None),
                (1, "no service A_", "", "a ready", None),
                (1, "no service A_/a", "", "a ready", None),
                (1, "no slice a", "", "a ready", None),
            ],
        ),
    ];
    for (name, steps) in cases {
        play(name, SlicePolicy::Expected, steps);
    }
}

#[test]
fn headless() {
    let steps: &[Step] = &[
        (0, "slice s a 10.1.0.1@web-0 10.1.0.2!ready 10.1.0.3!serving", "", "", None),
        (1, "service a headless", "a", "a ready 10-1-0-3=[10.1.0.3] web-0=[10.1.0.1]", None),
        (2, "slice t a fd00::1@web-0", "a", "a ready 10-1-0-3=[10.1.0.3] web-0=[10.1.0.1, fd00::1]", None),
        (3, "slice t a fd00::1@web-0", "", "a ready 10-1-0-3=[10.1.0.3] web-0=[10.1.0.1, fd00::1]", None),
        (4, "no slice s", "a", "a ready web-0=[fd00::1]", None),
        (5, "service a", "a", "a ready", None),
    ];
    play("headless", SlicePolicy::Expected, steps);
}

#[test]
fn a_cluster_is_seen_when_all_kinds_were_listed() {
    let mut index = Index::new(vec![SlicePolicy::Expected; 2]);
    let say = |index: &mut Index, cluster, second, said| index.apply(cluster, update(said).unwrap(), at(second));
    let keys = |names: &[&str]| names.iter().map(|name| key(name)).collect::<Vec<_>>();

    for said in ["service a lb=1.1.1.1", "services: a lb=2.2.2.2; b", "service c", "slice s a 10.1.0.1", "no service c"]
    {
        assert_eq!(say(&mut index, C1, 0, said), Changes::default(), "{said}");
        assert_eq!((show(&index).as_str(), index.is_synced(C1)), ("", false), "{said}");
    }
    assert_eq!(index.counts(C1), (2, 1));
    assert_eq!(index.next_deadline(), None, "nobody knows yet that b has no slice");

    let changes = say(&mut index, C1, 50, "slices: s a 10.1.0.1");
    assert_eq!(changes, Changes { services: keys(&["a", "b"]), synced: Some(C1), refused: None });
    assert_eq!(show(&index), "a@1 ready 2.2.2.2 | b@1 ready");
    assert_eq!(index.next_deadline(), Some(at(80)), "30 s from the first list of slices");
    assert!(index.is_synced(C1) && !index.is_synced(C0));

    let changes = say(&mut index, C1, 51, "slices: s a 10.1.0.1");
    assert_eq!(changes, Changes::default(), "a cluster syncs once");

    say(&mut index, C0, 60, "slices:");
    let changes = say(&mut index, C0, 60, "services: a noselector lb=3.3.3.3");
    assert_eq!(changes, Changes { services: keys(&["a"]), synced: Some(C0), refused: None });
    assert_eq!(show(&index), "a ready 3.3.3.3 | a@1 ready 2.2.2.2 | b@1 ready");
    assert_eq!(index.tick(at(80)).services, keys(&["b"]));
    assert_eq!(index.service(&key("c")), None);
}

#[test]
fn a_cluster_has_no_more_objects_than_it_may() {
    let mut index = Index::new(vec![SlicePolicy::Optional; 2]).limited(2);
    for kind in Kind::CORE {
        index.apply(C0, Update::Reset { kind, objects: vec![], keep: vec![] }, at(0));
    }
    let apply = |text: &str| Update::Apply(Object::Service(service(text)));
    assert_eq!(index.apply(C0, apply("a"), at(1)).refused, None);
    assert_eq!(index.apply(C0, apply("b"), at(1)).refused, None);
    let refused = index.apply(C0, apply("c"), at(2));
    assert_eq!(refused, Changes { refused: Some((C0, Refused::Object)), ..Changes::default() });
    assert!(index.service(&key("c")).is_none());
    // What is known may change, and what goes makes room.
    assert_eq!(index.apply(C0, apply("b port=80"), at(3)).services, [key("b")]);
    let gone = ObjectKey { namespace: "ns".into(), name: "a".into() };
    index.apply(C0, Update::Delete(Kind::Service, gone), at(4));
    assert_eq!(index.apply(C0, apply("c"), at(5)).services, [key("c")]);
}

#[test]
fn time_passes_unseen_in_an_unsynced_cluster() {
    let mut index = Index::new(vec![SlicePolicy::Expected]);
    for said in ["service a noselector lb=1.1.1.1", "service a noselector lb"] {
        index.apply(C0, update(said).unwrap(), at(0));
    }
    assert_eq!(index.next_deadline(), Some(at(300)));
    assert_eq!(index.tick(at(300)), Changes::default());
    assert_eq!(index.next_deadline(), None);
}

#[test]
fn a_cluster_moves_to_another_index() {
    let mut old = Index::new(vec![SlicePolicy::Optional; 2]);
    for said in ["services: a; b noselector lb=1.1.1.1", "slices:", "service b noselector lb"] {
        old.apply(C1, update(said).unwrap(), at(0));
    }
    let mut new = Index::new(vec![SlicePolicy::Expected; 1]);
    new.adopt(C0, &mut old, C1);

    assert_eq!((old.counts(C1), old.is_synced(C1), old.next_deadline()), ((0, 0), false, None));
    assert_eq!((new.counts(C0), new.is_synced(C0)), ((2, 0), true));
    let steps: &[Step] = &[
        (1, "service a", "", "a ready | b ready 1.1.1.1", Some(30)),
        (30, "tick", "a", "a unready | b ready 1.1.1.1", Some(300)),
        (300, "tick", "b", "a unready | b ready", None),
    ];
    play_on("adopted", &mut new, steps);
}

#[test]
fn no_more_endpoints_than_a_service_may_have() {
    let mut index = Index::new(vec![SlicePolicy::Expected]).with_most_endpoints(3).seeded(1);
    let named = |name: &str, endpoints: &str| Object::Slice(slice(&format!("{name} a {endpoints}")));
    let list = |kind, objects| Update::Reset { kind, objects, keep: vec![] };
    index.apply(C0, list(Kind::Service, vec![Object::Service(service("a headless"))]), at(0));
    let too_many = Some((C0, Refused::Endpoints(key("a"))));
    // A list that is too long is a list: what is refused is a slice of it.
    let all = vec![named("a-1", "10.0.0.1 10.0.0.2"), named("a-2", "10.0.0.3 10.0.0.4"), named("a-3", "10.0.0.5")];
    let changes = index.apply(C0, list(Kind::EndpointSlice, all), at(1));
    assert_eq!((changes.synced, changes.refused), (Some(C0), too_many.clone()));
    let addresses = |index: &Index| {
        let service = index.service(&key("a")).expect("it is there");
        let pods = service.shares[0].pods.iter().flat_map(|pod| &pod.addresses);
        pods.map(|address| address.to_string().rsplit('.').next().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!((addresses(&index), index.counts(C0)), ("1 2 5".to_owned(), (1, 2)));
    // One that grows keeps its last good state; one that does not is taken as ever, and so is what has room again.
    let mut say = |object: Object| index.apply(C0, Update::Apply(object), at(2)).refused;
    assert_eq!(say(named("a-3", "10.0.0.5 10.0.0.6")), too_many);
    assert_eq!(say(named("a-1", "10.0.0.1 10.0.0.7")), None);
    assert_eq!(say(named("a-1", "10.0.0.1")), None);
    assert_eq!(say(named("a-3", "10.0.0.5 fd00::6")), None);
    assert_eq!(say(Object::Slice(slice("b-1 b 10.0.0.1 10.0.0.2 10.0.0.3"))), None, "another service has its own");
    assert_eq!(addresses(&index), "1 5 fd00::6");
}
