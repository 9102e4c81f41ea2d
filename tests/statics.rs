//! Static zone data beside services: a world, a question, and the whole answer as it stands in a zone file.

mod support;

use signpost::config::{Namespaces, Schema};
use signpost::model::{ClusterId, View};
use signpost::zonefile;
use support::ask::{Ask, render};
use support::small::*;
use support::*;

/// Questions that share a world.
struct Group {
    statics: &'static str,
    cases: &'static [(View, &'static str, &'static str)],
}

fn run(groups: &[Group]) {
    let mut wrong = String::new();
    for group in groups {
        let mut world = world(group.statics);
        for (view, asked, answer) in group.cases {
            for ask in [question(asked).edns(1232), question(asked).tcp().mixed_case(0x0F0F_F0F0_3333_CCCC)] {
                let seen = render(&ask.send(&mut world, *view)).to_ascii_lowercase();
                // Extended errors go with EDNS only.
                let plain = answer.replace(" ede=20", "").replace(" ede=30", "");
                let answer = if ask.opt.is_some() { answer } else { plain.as_str() };
                let expected = expected(answer).to_ascii_lowercase();
                if seen != expected {
                    wrong +=
                        &format!("\n{}--- {view:?} {asked}\nexpected {expected}\nseen     {seen}\n", group.statics);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn apex() {
    run(&[Group {
        statics: "@ TXT \"v=spf1 -all\"\n@ MX 10 mail\nmail A 192.0.2.25\n@ CAA 0 issue \"ca.example.net\"\n",
        cases: &[
            (EXTERNAL, "@ SOA", "NOERROR aa\n@ 3600 SOA ns1.@ hostmaster.@ 1 7200 900 1209600 30"),
            (
                EXTERNAL,
                "@ NS",
                "NOERROR aa\n@ 3600 NS ns1.@\n@ 3600 NS ns2.@\nextra ns1.@ 3600 A 192.0.2.1\n\
                 extra ns2.@ 3600 AAAA 2001:db8::2",
            ),
            (C0, "@ TXT", "NOERROR aa\n@ 3600 TXT v=spf1 -all"),
            (EXTERNAL, "@ MX", "NOERROR aa\n@ 3600 MX 10 mail.@"),
            (EXTERNAL, "@ A", "NOERROR aa\n@nodata"),
            (EXTERNAL, "@ DS", "NOERROR aa\n@nodata"),
            (EXTERNAL, "@ TYPE0", "NOERROR aa\n@nodata"),
            (EXTERNAL, "mail A", "NOERROR aa\nmail.@ 3600 A 192.0.2.25"),
            (EXTERNAL, "mail AAAA", "NOERROR aa\n@nodata"),
            (EXTERNAL, "x.mail A", "NXDOMAIN aa\n@negative"),
            // RFC 8482: one RRset is enough.
            (EXTERNAL, "ns1 ANY", "NOERROR aa\nns1.@ 3600 A 192.0.2.1"),
            (
                EXTERNAL,
                "@ ANY",
                "NOERROR aa\n@ 3600 NS ns1.@\n@ 3600 NS ns2.@\nextra ns1.@ 3600 A 192.0.2.1\n\
                 extra ns2.@ 3600 AAAA 2001:db8::2",
            ),
        ],
    }]);
}

#[test]
fn services() {
    run(&[Group {
        statics: "",
        cases: &[
            (EXTERNAL, "svc.ns A", "NOERROR aa\nsvc.ns.@ 30 A 104.0.0.1\nsvc.ns.@ 30 A 104.0.1.1"),
            (C0, "svc.ns A", "NOERROR aa\nsvc.ns.@ 30 A 10.0.0.1\nsvc.ns.@ 30 A 104.0.1.1"),
            (C0, "c0.svc.ns A", "NOERROR aa\nc0.svc.ns.@ 30 A 10.0.0.1"),
            (C1, "c0.svc.ns A", "NOERROR aa\nc0.svc.ns.@ 30 A 104.0.0.1"),
            (C0, "c2.svc.ns A", "NXDOMAIN aa\n@negative"),
            (EXTERNAL, "svc.ns TYPE0", "NOERROR aa\n@nodata"),
            (EXTERNAL, "_tcp.svc.ns TYPE0", "NOERROR aa\n@nodata"),
            (EXTERNAL, "_tcp.svc.ns ANY", "NOERROR aa\n@nodata"),
            (EXTERNAL, "_udp.svc.ns A", "NXDOMAIN aa\n@negative"),
            (EXTERNAL, "x._client._tcp.svc.ns SRV", "NXDOMAIN aa\n@negative"),
            (EXTERNAL, "_client._tcp.svc.ns A", "NOERROR aa\n@nodata"),
            (
                C1,
                "_client._tcp.svc.ns ANY",
                "NOERROR aa\n_client._tcp.svc.ns.@ 30 SRV 0 100 2379 c1.svc.ns.@\n\
                 _client._tcp.svc.ns.@ 30 SRV 10 100 2379 c0.svc.ns.@\nextra c1.svc.ns.@ 30 A 10.1.0.1\n\
                 extra c0.svc.ns.@ 30 A 104.0.0.1",
            ),
            (
                C1,
                "svc.ns SRV",
                "NOERROR aa\nsvc.ns.@ 30 SRV 0 100 2379 c1.svc.ns.@\nsvc.ns.@ 30 SRV 0 100 2380 c1.svc.ns.@\n\
                 svc.ns.@ 30 SRV 10 100 2379 c0.svc.ns.@\nsvc.ns.@ 30 SRV 10 100 2380 c0.svc.ns.@\n\
                 extra c1.svc.ns.@ 30 A 10.1.0.1\nextra c0.svc.ns.@ 30 A 104.0.0.1",
            ),
            // A Service of type ClusterIP exists for its own cluster only, and so does its namespace.
            (C1, "own.private A", "NOERROR aa\nown.private.@ 30 A 10.1.0.2"),
            (C1, "private A", "NOERROR aa\n@nodata"),
            (C0, "own.private A", "NXDOMAIN aa\n@negative"),
            (EXTERNAL, "c1.own.private A", "NXDOMAIN aa\n@negative"),
            (EXTERNAL, "_client._tcp.own.private SRV", "NXDOMAIN aa\n@negative"),
            (EXTERNAL, "private A", "NXDOMAIN aa\n@negative"),
            // Headless.
            (C0, "db.ns A", "NOERROR aa\ndb.ns.@ 30 A 10.10.0.1\ndb.ns.@ 30 A 10.10.0.2"),
            (C0, "c0.db.ns A", "NOERROR aa\nc0.db.ns.@ 30 A 10.10.0.1\nc0.db.ns.@ 30 A 10.10.0.2"),
            (C0, "db-1.c0.db.ns A", "NOERROR aa\ndb-1.c0.db.ns.@ 30 A 10.10.0.2"),
            (C0, "db-1.c0.db.ns AAAA", "NOERROR aa\n@nodata"),
            (C0, "db-2.c0.db.ns A", "NXDOMAIN aa\n@negative"),
            (C0, "x.db-1.c0.db.ns A", "NXDOMAIN aa\n@negative"),
            (
                C0,
                "_client._tcp.db.ns SRV",
                "NOERROR aa\n_client._tcp.db.ns.@ 30 SRV 0 100 2379 db-0.c0.db.ns.@\n\
                 _client._tcp.db.ns.@ 30 SRV 0 100 2379 db-1.c0.db.ns.@\nextra db-0.c0.db.ns.@ 30 A 10.10.0.1\n\
                 extra db-1.c0.db.ns.@ 30 A 10.10.0.2",
            ),
            (C1, "db-1.c0.db.ns A", "NXDOMAIN aa\n@negative"),
        ],
    }]);
}

#[test]
fn delegations() {
    const REFERRAL: &str = "NOERROR\nauthority sub.@ 600 NS a.sub.@\nauthority sub.@ 600 NS b.example.net.\n\
                            extra a.sub.@ 600 A 192.0.2.50\nextra a.sub.@ 600 AAAA 2001:db8::50";
    run(&[
        Group {
            statics: "$TTL 600\nsub NS a.sub\nsub NS b.example.net.\nsub DS 1 8 2 00112233445566778899aabbccddeeff0011223344556677\
                      8899aabbccddeeff\na.sub A 192.0.2.50\na.sub AAAA 2001:db8::50\nout NS ns.example.net.\n",
            cases: &[
                (EXTERNAL, "sub A", REFERRAL),
                (EXTERNAL, "sub NS", REFERRAL),
                (C0, "www.sub A", REFERRAL),
                (EXTERNAL, "a.sub A", REFERRAL),
                (EXTERNAL, "x.y.z.sub DS", REFERRAL),
                (
                    EXTERNAL,
                    "sub DS",
                    "NOERROR aa\nsub.@ 600 DS 1 8 2 00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF",
                ),
                (EXTERNAL, "out DS", "NOERROR aa\n@nodata"),
                (EXTERNAL, "out A", "NOERROR\nauthority out.@ 600 NS ns.example.net."),
                (EXTERNAL, "svc.ns A", "NOERROR aa\nsvc.ns.@ 30 A 104.0.0.1\nsvc.ns.@ 30 A 104.0.1.1"),
            ],
        },
        // A delegation at a namespace, at a service, and below one: what is at and below it is somebody else's.
        Group {
            statics: "ns NS ns.example.net.\n",
            cases: &[
                (EXTERNAL, "svc.ns A", "NOERROR\nauthority ns.@ 3600 NS ns.example.net."),
                (EXTERNAL, "ns A", "NOERROR\nauthority ns.@ 3600 NS ns.example.net."),
                (C1, "own.private A", "NOERROR aa\nown.private.@ 30 A 10.1.0.2"),
            ],
        },
        Group {
            statics: "svc.ns NS ns.example.net.\n",
            cases: &[
                (EXTERNAL, "svc.ns A", "NOERROR\nauthority svc.ns.@ 3600 NS ns.example.net."),
                (EXTERNAL, "_client._tcp.svc.ns SRV", "NOERROR\nauthority svc.ns.@ 3600 NS ns.example.net."),
                (C0, "db-0.c0.db.ns A", "NOERROR aa\ndb-0.c0.db.ns.@ 30 A 10.10.0.1"),
            ],
        },
        Group {
            statics: "c0.db.ns NS ns.example.net.\n",
            cases: &[
                (C0, "db-0.c0.db.ns A", "NOERROR\nauthority c0.db.ns.@ 3600 NS ns.example.net."),
                (C0, "db.ns A", "NOERROR aa\ndb.ns.@ 30 A 10.10.0.1\ndb.ns.@ 30 A 10.10.0.2"),
            ],
        },
    ]);
}

#[test]
fn aliases() {
    run(&[
        Group {
            statics: "a CNAME b\nb CNAME c.d\nc.d TXT end\nto-service CNAME svc.ns\nto-port CNAME _client._tcp.svc.ns\n\
                      to-nothing CNAME nothing.ns\nto-nodata CNAME ns\nout CNAME www.example.net.\n\
                      l0 CNAME l1\nl1 CNAME l2\nl2 CNAME l0\nself CNAME self\nto-sub CNAME x.sub\nsub NS ns.example.net.\n",
            cases: &[
                (EXTERNAL, "a TXT", "NOERROR aa\na.@ 3600 CNAME b.@\nb.@ 3600 CNAME c.d.@\nc.d.@ 3600 TXT end"),
                (EXTERNAL, "a CNAME", "NOERROR aa\na.@ 3600 CNAME b.@"),
                (EXTERNAL, "a ANY", "NOERROR aa\na.@ 3600 CNAME b.@"),
                (EXTERNAL, "a A", "NOERROR aa\na.@ 3600 CNAME b.@\nb.@ 3600 CNAME c.d.@\n@nodata"),
                (
                    C0,
                    "to-service A",
                    "NOERROR aa\nto-service.@ 3600 CNAME svc.ns.@\nsvc.ns.@ 30 A 10.0.0.1\nsvc.ns.@ 30 A 104.0.1.1",
                ),
                (
                    C0,
                    "to-port SRV",
                    "NOERROR aa\nto-port.@ 3600 CNAME _client._tcp.svc.ns.@\n\
                     _client._tcp.svc.ns.@ 30 SRV 0 100 2379 c0.svc.ns.@\n\
                     _client._tcp.svc.ns.@ 30 SRV 10 100 2379 c1.svc.ns.@",
                ),
                (EXTERNAL, "to-nothing A", "NXDOMAIN aa\nto-nothing.@ 3600 CNAME nothing.ns.@\n@negative"),
                (EXTERNAL, "to-nodata A", "NOERROR aa\nto-nodata.@ 3600 CNAME ns.@\n@nodata"),
                (EXTERNAL, "out A", "NOERROR aa\nout.@ 3600 CNAME www.example.net."),
                (EXTERNAL, "x.out A", "NXDOMAIN aa\n@negative"),
                // A loop is told once.
                (EXTERNAL, "l0 A", "NOERROR aa\nl0.@ 3600 CNAME l1.@\nl1.@ 3600 CNAME l2.@\nl2.@ 3600 CNAME l0.@"),
                (EXTERNAL, "self A", "NOERROR aa\nself.@ 3600 CNAME self.@"),
                // RFC 1034 section 4.3.2: AA is about the first owner.
                (
                    EXTERNAL,
                    "to-sub A",
                    "NOERROR aa\nto-sub.@ 3600 CNAME x.sub.@\nauthority sub.@ 3600 NS ns.example.net.",
                ),
            ],
        },
        // RFC 6672.
        Group {
            statics: "old DNAME ns\nout DNAME example.net.\nd0 DNAME d1\nd1 DNAME d0\n",
            cases: &[
                (EXTERNAL, "old DNAME", "NOERROR aa\nold.@ 3600 DNAME ns.@"),
                (EXTERNAL, "old A", "NOERROR aa\n@nodata"),
                (
                    EXTERNAL,
                    "svc.old A",
                    "NOERROR aa\nold.@ 3600 DNAME ns.@\nsvc.old.@ 3600 CNAME svc.ns.@\nsvc.ns.@ 30 A 104.0.0.1\n\
                     svc.ns.@ 30 A 104.0.1.1",
                ),
                (EXTERNAL, "no.old A", "NXDOMAIN aa\nold.@ 3600 DNAME ns.@\nno.old.@ 3600 CNAME no.ns.@\n@negative"),
                (
                    EXTERNAL,
                    "a.b.out A",
                    "NOERROR aa\nout.@ 3600 DNAME example.net.\na.b.out.@ 3600 CNAME a.b.example.net.",
                ),
                (
                    EXTERNAL,
                    "x.d0 A",
                    "NOERROR aa\nd0.@ 3600 DNAME d1.@\nx.d0.@ 3600 CNAME x.d1.@\nd1.@ 3600 DNAME d0.@\n\
                     x.d1.@ 3600 CNAME x.d0.@",
                ),
            ],
        },
        // A DNAME at a namespace hides its services, but not the namespace.
        Group {
            statics: "ns DNAME elsewhere.example.net.\n",
            cases: &[
                (
                    EXTERNAL,
                    "svc.ns A",
                    "NOERROR aa\nns.@ 3600 DNAME elsewhere.example.net.\n\
                     svc.ns.@ 3600 CNAME svc.elsewhere.example.net.",
                ),
                (EXTERNAL, "ns A", "NOERROR aa\n@nodata"),
            ],
        },
        // At a service: static data wins the name, and what is below is elsewhere.
        Group {
            statics: "svc.ns DNAME elsewhere.example.net.\n",
            cases: &[
                (EXTERNAL, "svc.ns A", "NOERROR aa\n@nodata"),
                (
                    EXTERNAL,
                    "c0.svc.ns A",
                    "NOERROR aa\nsvc.ns.@ 3600 DNAME elsewhere.example.net.\n\
                     c0.svc.ns.@ 3600 CNAME c0.elsewhere.example.net.",
                ),
            ],
        },
    ]);
}

#[test]
fn a_dname_that_makes_a_name_too_long() {
    let target = ["x".repeat(60), "y".repeat(60), "z".repeat(60)].join(".");
    let mut world = world(&format!("long DNAME {target}\n"));
    let fits = "a".repeat(58);
    for (label, answer) in [
        (
            fits.as_str(),
            format!("NXDOMAIN aa\nlong.@ 3600 DNAME {target}.@\n{fits}.long.@ 3600 CNAME {fits}.{target}.@\n@negative"),
        ),
        (&"a".repeat(59), format!("YXDOMAIN aa\nlong.@ 3600 DNAME {target}.@")),
    ] {
        let seen = render(&question(&format!("{label}.long A")).edns(1232).send(&mut world, EXTERNAL));
        assert_eq!(seen, expected(&answer), "{}", label.len());
    }
}

#[test]
fn wildcards() {
    run(&[
        // RFC 4592 section 2.2.1, with a service's namespace beside it.
        Group {
            statics: "*.w TXT wild\n*.w MX 10 host1.w\nsub.*.w TXT literal\nhost1.w A 192.0.2.1\n_ssh._tcp.host1.w SRV 0 0 22 host1.w\n\
                      cut.w NS ns.example.net.\n",
            cases: &[
                (EXTERNAL, "host3.w TXT", "NOERROR aa\nhost3.w.@ 3600 TXT wild"),
                (EXTERNAL, "host3.w MX", "NOERROR aa\nhost3.w.@ 3600 MX 10 host1.w.@"),
                (EXTERNAL, "host3.w A", "NOERROR aa\n@nodata"),
                (EXTERNAL, "foo.bar.w TXT", "NOERROR aa\nfoo.bar.w.@ 3600 TXT wild"),
                (EXTERNAL, "host1.w TXT", "NOERROR aa\n@nodata"),
                (EXTERNAL, "sub.*.w MX", "NOERROR aa\n@nodata"),
                (EXTERNAL, "_telnet._tcp.host1.w SRV", "NXDOMAIN aa\n@negative"),
                (EXTERNAL, "_tcp.host1.w TXT", "NOERROR aa\n@nodata"),
                (EXTERNAL, "x.cut.w TXT", "NOERROR\nauthority cut.w.@ 3600 NS ns.example.net."),
                (EXTERNAL, "ghost.*.w MX", "NXDOMAIN aa\n@negative"),
                (EXTERNAL, "*.w TXT", "NOERROR aa\n*.w.@ 3600 TXT wild"),
                (EXTERNAL, "w TXT", "NOERROR aa\n@nodata"),
            ],
        },
        // At the apex: everywhere but in namespaces that exist, for whom they exist.
        Group {
            statics: "* TXT wild\n*.c CNAME svc.ns\n",
            cases: &[
                (EXTERNAL, "any TXT", "NOERROR aa\nany.@ 3600 TXT wild"),
                (EXTERNAL, "any.thing.at.all TXT", "NOERROR aa\nany.thing.at.all.@ 3600 TXT wild"),
                (EXTERNAL, "any A", "NOERROR aa\n@nodata"),
                (EXTERNAL, "ns TXT", "NOERROR aa\n@nodata"),
                (EXTERNAL, "other.ns TXT", "NXDOMAIN aa\n@negative"),
                (EXTERNAL, "svc.ns TXT", "NOERROR aa\n@nodata"),
                (EXTERNAL, "x.svc.ns TXT", "NXDOMAIN aa\n@negative"),
                (C1, "x.private TXT", "NXDOMAIN aa\n@negative"),
                (C1, "private TXT", "NOERROR aa\n@nodata"),
                // Another cluster's namespace must not show by a hole in the wildcard.
                (C0, "own.private TXT", "NOERROR aa\nown.private.@ 3600 TXT wild"),
                (C0, "private TXT", "NOERROR aa\nprivate.@ 3600 TXT wild"),
                (C0, "x.c A", "NOERROR aa\nx.c.@ 3600 CNAME svc.ns.@\nsvc.ns.@ 30 A 10.0.0.1\nsvc.ns.@ 30 A 104.0.1.1"),
                (EXTERNAL, "ns1 TXT", "NOERROR aa\n@nodata"),
            ],
        },
        // In a namespace that exists it is not asked, even if it is written there.
        Group {
            statics: "*.ns TXT wild\n*.empty TXT wild\n",
            cases: &[
                (EXTERNAL, "nothing.ns TXT", "NXDOMAIN aa\n@negative"),
                (EXTERNAL, "nothing.empty TXT", "NOERROR aa\nnothing.empty.@ 3600 TXT wild"),
                (EXTERNAL, "svc.ns A", "NOERROR aa\nsvc.ns.@ 30 A 104.0.0.1\nsvc.ns.@ 30 A 104.0.1.1"),
            ],
        },
    ]);
}

#[test]
fn static_data_and_services_at_one_name() {
    run(&[Group {
        statics: "svc.ns TXT static\nns TXT namespace\nx.svc.ns TXT below\nx.c0.svc.ns TXT deeper\na.b.own.private TXT hidden\n",
        cases: &[
            // Static data wins the whole name; names below stay.
            (EXTERNAL, "svc.ns TXT", "NOERROR aa\nsvc.ns.@ 3600 TXT static"),
            (EXTERNAL, "svc.ns A", "NOERROR aa\n@nodata"),
            (EXTERNAL, "svc.ns SRV", "NOERROR aa\n@nodata"),
            (EXTERNAL, "c0.svc.ns A", "NOERROR aa\nc0.svc.ns.@ 30 A 104.0.0.1"),
            (C0, "c0.svc.ns A", "NOERROR aa\nc0.svc.ns.@ 30 A 10.0.0.1"),
            (
                EXTERNAL,
                "_peer._tcp.svc.ns SRV",
                "NOERROR aa\n_peer._tcp.svc.ns.@ 30 SRV 0 100 2380 c0.svc.ns.@\n\
                 _peer._tcp.svc.ns.@ 30 SRV 0 100 2380 c1.svc.ns.@\nextra c0.svc.ns.@ 30 A 104.0.0.1\n\
                 extra c1.svc.ns.@ 30 A 104.0.1.1",
            ),
            // Namespace and static owner both live.
            (EXTERNAL, "ns TXT", "NOERROR aa\nns.@ 3600 TXT namespace"),
            (EXTERNAL, "ns A", "NOERROR aa\n@nodata"),
            (EXTERNAL, "no.ns A", "NXDOMAIN aa\n@negative"),
            // Below services, and below such as this view does not see.
            (EXTERNAL, "x.svc.ns TXT", "NOERROR aa\nx.svc.ns.@ 3600 TXT below"),
            (EXTERNAL, "y.svc.ns TXT", "NXDOMAIN aa\n@negative"),
            (EXTERNAL, "x.c0.svc.ns TXT", "NOERROR aa\nx.c0.svc.ns.@ 3600 TXT deeper"),
            (EXTERNAL, "a.b.own.private TXT", "NOERROR aa\na.b.own.private.@ 3600 TXT hidden"),
            (EXTERNAL, "b.own.private TXT", "NOERROR aa\n@nodata"),
            (EXTERNAL, "own.private A", "NOERROR aa\n@nodata"),
            (EXTERNAL, "c1.own.private A", "NXDOMAIN aa\n@negative"),
            (C1, "own.private A", "NOERROR aa\nown.private.@ 30 A 10.1.0.2"),
        ],
    }]);
}

#[test]
fn what_is_no_ordinary_question() {
    run(&[Group {
        statics: "",
        cases: &[
            (EXTERNAL, "svc.ns MAILA", "NOTIMP"),
            (EXTERNAL, "svc.ns MAILB", "NOTIMP"),
            (EXTERNAL, "svc.ns TKEY", "NOTIMP"),
            (EXTERNAL, "svc.ns TSIG", "FORMERR"),
            (EXTERNAL, "svc.ns OPT", "FORMERR"),
            (EXTERNAL, "svc.ns NXNAME", "FORMERR ede=30"),
            (EXTERNAL, "www.example.net. A", "REFUSED ede=20"),
            (EXTERNAL, "com. NS", "REFUSED ede=20"),
            (EXTERNAL, ". NS", "REFUSED ede=20"),
            (EXTERNAL, "xexample.com. A", "REFUSED ede=20"),
        ],
    }]);
    let mut world = world("");
    let mut check = |ask: Ask, answer: &str| {
        let seen = render(&ask.send(&mut world, EXTERNAL));
        assert_eq!(seen.to_ascii_lowercase(), expected(answer).to_ascii_lowercase(), "{ask:?}");
    };
    // Transfers.
    check(question("@ AXFR").edns(1232), "FORMERR");
    check(question("@ AXFR").edns(1232).tcp(), "REFUSED ede=18");
    check(question("@ IXFR").edns(1232).tcp(), "REFUSED ede=18");
    check(question("@ IXFR"), "NOERROR aa\n@ 3600 SOA ns1.@ hostmaster.@ 1 7200 900 1209600 30");
    // Classes.
    let class = |name: &str, qclass, qtype: &str| Ask { qclass, ..question(&format!("{name} {qtype}")) };
    check(class("svc.ns", 255, "A"), "NOERROR aa\nsvc.ns.@ 30 A 104.0.0.1\nsvc.ns.@ 30 A 104.0.1.1");
    check(class("svc.ns", 4, "A"), "REFUSED");
    check(class("version.bind.", 3, "TXT"), "NOERROR aa\nversion.bind. CH 0 TXT v");
    check(class("version.server.", 3, "ANY"), "NOERROR aa\nversion.server. CH 0 TXT v");
    check(class("ID.server.", 3, "TXT").edns(1232), "NOERROR aa\nid.server. CH 0 TXT s1");
    check(class("hostname.bind.", 3, "TXT"), "NOERROR aa\nhostname.bind. CH 0 TXT s1");
    check(class("version.bind.", 3, "A"), "NOERROR aa");
    check(class("authors.bind.", 3, "TXT"), "REFUSED");
    check(class("svc.ns", 3, "TXT"), "REFUSED");
    // Opcodes: IQUERY, STATUS, an unassigned one, NOTIFY, UPDATE, DSO.
    for opcode in [1, 2, 3, 4, 5, 6, 15] {
        let plain = Ask { opcode, ..question("@ SOA") };
        let mut with_opt = plain.clone().edns(1232);
        with_opt.opt.as_mut().expect("there is one").dnssec_ok = true;
        // hickory reads only the opcodes that it knows.
        for ask in [plain, with_opt] {
            let query = ask.to_vec();
            let (answer, _) = world.exchange(EXTERNAL, ask.transport, &query).expect("an answer");
            assert_eq!(answer[2..4], [0x80 | opcode << 3 | 1, 4], "NOTIMP, opcode and RD echoed");
            assert_eq!(answer[12..query.len().min(29)], query[12..query.len().min(29)]);
            assert_eq!(answer.len(), query.len(), "question and OPT, nothing else");
            if ask.opt.is_some() {
                assert_eq!(answer[answer.len() - 4], 0x80, "DO is copied");
            }
        }
    }
}

#[test]
fn edns() {
    let mut world = world("");
    let mut check = |ask: Ask, answer: &str| {
        let seen = render(&ask.send(&mut world, EXTERNAL));
        assert_eq!(seen.to_ascii_lowercase(), expected(answer).to_ascii_lowercase(), "{ask:?}");
    };
    let answer = "\nns1.@ 3600 A 192.0.2.1";
    check(question("ns1 A").edns(1232).option(3, &[]), &format!("NOERROR aa nsid=s1{answer}"));
    check(question("ns1 A").edns(1232), &format!("NOERROR aa{answer}"));
    check(question("ns1 A").edns(1232).option(11, &[]).tcp(), &format!("NOERROR aa keepalive=100{answer}"));
    check(question("ns1 A").edns(1232).option(11, &[]), &format!("NOERROR aa{answer}"));
    check(question("ns1 A").edns(1232).tcp(), &format!("NOERROR aa{answer}"));
    check(question("ns1 A").edns(1232).option(65_001, b"whatever"), &format!("NOERROR aa{answer}"));
    check(question("ns1 A").edns(1232).option(8, &[0, 1, 24, 0, 192, 0, 2]), &format!("NOERROR aa{answer}"));
    check(question("ns1 A").edns(1232).option(8, &[0, 1, 33, 0, 192, 0, 2, 0, 0]), "FORMERR");
    // RFC 6891 section 6.1.3, whatever the options of that version mean.
    let mut ask = question("ns1 A").edns(1232);
    let opt = ask.opt.as_mut().expect("there is one");
    (opt.version, opt.dnssec_ok, opt.options) = (1, true, vec![0xFF; 3]);
    // hickory calls 16 by its name in TSIG.
    check(ask, "BADSIG");
    // Two OPT records: what was understood is answered with an OPT.
    let mut twice = question("ns1 A").edns(1232).to_vec();
    twice[11] = 2;
    twice.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    let (answer, _) = world.exchange(EXTERNAL, signpost::answer::Transport::Udp, &twice).expect("an answer");
    assert_eq!((answer[3] & 0x0F, answer[11]), (1, 1));
    // Too many questions, or none: FORMERR, and none comes back.
    for count in [0, 2] {
        let mut query = question("ns1 A").to_vec();
        query[5] = count;
        let (answer, _) = world.exchange(EXTERNAL, signpost::answer::Transport::Udp, &query).expect("an answer");
        assert_eq!((answer[3] & 0x0F, answer.len()), (1, 12));
    }
}

/// The identity may have 255 octets and a name 255 more: what was asked for beside them must not break the limit.
#[test]
fn a_long_identity_does_not_make_an_answer_too_long() {
    let mut config = clusters();
    config.identity.server = Some("i".repeat(255));
    let mut world = World::new(config, ZONE_FILE).synced();
    let name = longest_name();
    let ask = Ask::new(&name, 1).edns(512).option(3, &[]).option(11, &[]);
    assert_eq!(ask.name.len(), 255);
    for ask in [ask.clone(), ask.clone().tcp(), Ask::new(ZONE, 1).edns(512).option(3, &[])] {
        ask.send(&mut world, EXTERNAL);
    }
}

#[test]
fn zones_in_zones() {
    let mut config = clusters();
    config.zones.push(zone("inner.example.com"));
    let mut fixed = zone("fixed.example.com");
    fixed.schema = Schema::Static;
    config.zones.push(fixed);
    let config = std::sync::Arc::new(config);
    let outer = format!(
        "{ZONE_FILE}inner NS ns1\ninner DS 1 8 2 {}\nfixed NS ns1\nto-inner CNAME svc.ns.inner\n",
        "ab".repeat(32)
    );
    let files = [
        outer.as_str(),
        ZONE_FILE,
        "@ 600 SOA ns1 h 1 2 3 4 60\n@ 600 NS ns1.example.com.\n*.w 600 A 192.0.2.9\nl.w 600 TXT l\n",
    ];
    let parsed: Vec<_> = config
        .zones
        .iter()
        .zip(files)
        .map(|(zone, text)| zonefile::parse(text, &zone.name, "z".as_ref()).expect("the file is right"))
        .collect();
    assert_eq!(zonefile::check_delegations(&parsed, &[]), []);
    let (publisher, reader) = signpost::table::Publisher::new(config.clone(), &parsed, 1);
    let mut world = World::over(config, publisher, reader).synced();
    let share = || vec![load_balancer(0, "10.0.0.1", &["104.0.0.1"])];
    world.publish(key("ns", "svc"), share());
    // A namespace called like the inner zone: below the cut it is not the outer zone's.
    world.publish(key("inner", "svc"), share());
    world.publish(key("inner", "ns"), share());
    let inner_soa = "authority inner.@ 5 SOA ns1.inner.@ hostmaster.inner.@ 1 7200 900 1209600 30";
    let fixed_soa = "authority fixed.@ 60 SOA ns1.fixed.@ h.fixed.@ 1 2 3 4 60";
    let mut check = |asked: &str, answer: String| {
        let ask = question(asked).edns(1232);
        let seen = render(&ask.send(&mut world, EXTERNAL)).to_ascii_lowercase();
        assert_eq!(seen, expected(&answer).to_ascii_lowercase(), "{asked}");
    };
    check("svc.ns A", "NOERROR aa\nsvc.ns.@ 30 A 104.0.0.1".into());
    check("svc.ns.inner A", "NOERROR aa\nsvc.ns.inner.@ 30 A 104.0.0.1".into());
    check("ns.inner A", format!("NOERROR aa\n{}", inner_soa.replacen(" 5 ", " 30 ", 1)));
    check("svc.inner A", format!("NXDOMAIN aa\n{inner_soa}"));
    check("svc.inner.inner A", "NOERROR aa\nsvc.inner.inner.@ 30 A 104.0.0.1".into());
    check(
        "ns.inner.inner SRV",
        "NOERROR aa\nns.inner.inner.@ 30 SRV 0 100 2379 c0.ns.inner.inner.@\n\
         ns.inner.inner.@ 30 SRV 0 100 2380 c0.ns.inner.inner.@\nextra c0.ns.inner.inner.@ 30 A 104.0.0.1"
            .into(),
    );
    // DS at the cut is the parent's, everything else the child's.
    check("inner DS", format!("NOERROR aa\ninner.@ 3600 DS 1 8 2 {}", "AB".repeat(32)));
    check("fixed DS", "NOERROR aa\n@nodata".into());
    check("inner SOA", "NOERROR aa\ninner.@ 3600 SOA ns1.inner.@ hostmaster.inner.@ 1 7200 900 1209600 30".into());
    check("to-inner A", "NOERROR aa\nto-inner.@ 3600 CNAME svc.ns.inner.@\nsvc.ns.inner.@ 30 A 104.0.0.1".into());
    // A zone without services has none, and its negative answers go by its own file.
    check("svc.ns.fixed A", format!("NXDOMAIN aa\n{fixed_soa}"));
    check("ns.fixed A", format!("NXDOMAIN aa\n{fixed_soa}"));
    check("x.y.w.fixed A", "NOERROR aa\nx.y.w.fixed.@ 600 A 192.0.2.9".into());
    check("x.l.w.fixed A", format!("NXDOMAIN aa\n{fixed_soa}"));
    check("w.fixed A", format!("NOERROR aa\n{fixed_soa}"));
    // What was published can be taken back, zone by zone.
    for name in [key("ns", "svc"), key("inner", "svc"), key("inner", "ns")] {
        world.publisher.publish(&name, None);
    }
    assert_eq!(world.publisher.name_count(), 0);
}

#[test]
fn a_cluster_that_was_not_heard() {
    let mut config = clusters();
    config.clusters[2].namespaces = Namespaces::Only(vec![label("late"), label("ns")]);
    let mut world = World::new(config, &format!("{ZONE_FILE}* TXT wild\nx.late TXT static\na.b.late TXT static\n"));
    world.publisher.set_synced(ClusterId(0));
    world.publisher.set_synced(ClusterId(1));
    world.publish(key("ns", "svc"), vec![load_balancer(0, "10.0.0.1", &["104.0.0.1"])]);
    let mut check = |asked: &str, answer: &str| {
        let seen = render(&question(asked).edns(1232).send(&mut world, EXTERNAL)).to_ascii_lowercase();
        assert_eq!(seen, expected(answer).to_ascii_lowercase(), "{asked}");
    };
    check("svc.late A", "SERVFAIL ede=14");
    check("_client._tcp.svc.late SRV", "SERVFAIL ede=14");
    check("other.ns A", "SERVFAIL ede=14");
    check("c2.svc.ns A", "SERVFAIL ede=14");
    check("late A", "NOERROR aa\n@nodata");
    check("late TXT", "NOERROR aa\n@nodata");
    check("x.late TXT", "NOERROR aa\nx.late.@ 3600 TXT static");
    // The missing cluster may have the service b, with data at this name.
    check("b.late TXT", "SERVFAIL ede=14");
    check("svc.ns A", "NOERROR aa\nsvc.ns.@ 30 A 104.0.0.1");
    check("svc.ns AAAA", "NOERROR aa\n@nodata");
    check("ns A", "NOERROR aa\n@nodata");
    check("svc.other TXT", "NOERROR aa\nsvc.other.@ 3600 TXT wild");
    check("other TXT", "NOERROR aa\nother.@ 3600 TXT wild");
    check("x.ns1 A", "NXDOMAIN aa\n@negative");
    world.publisher.set_synced(ClusterId(2));
    let mut check = |asked: &str, answer: &str| {
        let seen = render(&question(asked).edns(1232).send(&mut world, EXTERNAL)).to_ascii_lowercase();
        assert_eq!(seen, expected(answer).to_ascii_lowercase(), "{asked}");
    };
    check("svc.late A", "NXDOMAIN aa\n@negative");
    check("other.ns A", "NXDOMAIN aa\n@negative");
}
