use hickory_proto::rr::Record;
use hickory_proto::serialize::binary::BinDecodable;
use proptest::prelude::*;

use super::*;

const HEAD: &str = "$TTL 300\n@ SOA ns1 hostmaster 7 1h 15m 1w 1h\n@ NS ns1\nns1 A 192.0.2.1\n";

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn read(text: &str) -> Result<ZoneData, ZoneFileError> {
    parse(text, &name("example.com"), Path::new("x.zone"))
}

fn good(text: &str) -> ZoneData {
    read(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn rdatas(zone: &ZoneData, owner: &str, rtype: u16) -> Vec<Vec<u8>> {
    zone.set(&name(owner), rtype).unwrap_or_else(|| panic!("{owner} {rtype} in {zone:?}")).rdatas.clone()
}

#[test]
fn the_forms_of_a_zone_file() {
    let zone = good(
        "\u{feff}; comment\r\n\
         $ORIGIN com.\r\n\
         Example 1h IN SOA ( ns1.example HOST\\.master.example ; who\n\
         \t2026010101 ; serial\n  1h 15m 1w 5m )\n\
         \tNS ns1.example\n\
         $ORIGIN example.com.\n\
         $TTL 2m\n\
         ns1 A 192.0.2.1\n\
         \x20  IN 60 AAAA 2001:db8::1\n\
         $ORIGIN sub\n\
         @ MX 10 @\n\
         a.example.com. 7 in a 192.0.2.7\n\
         txt TXT ( \"a b;c\" plain\\ word\n \"\\065\\\"\\255\" )\n\
         \\@ A 192.0.2.8\n\
         *.w CNAME @\n\
         esc\\046aped A 192.0.2.9",
    );
    assert_eq!(zone.warnings, []);
    assert_eq!((zone.soa.serial, zone.soa.minimum, zone.soa.ttl), (2026010101, 300, 3600));
    assert!(zone.soa.rdata.starts_with(b"\x03ns1\x07example\x03com\x00\x0bhost.master\x07example\x03com\x00"));
    assert_eq!(rdatas(&zone, "example.com", 6), std::slice::from_ref(&zone.soa.rdata));
    assert_eq!(zone.set(&name("example.com"), 2).unwrap().ttl, 3600, "the last stated TTL");
    assert_eq!(zone.set(&name("ns1.example.com"), 1).unwrap().ttl, 120, "$TTL");
    assert_eq!(zone.set(&name("ns1.example.com"), 28).unwrap().ttl, 60);
    assert_eq!(rdatas(&zone, "sub.example.com", 15), [b"\x00\x0a\x03sub\x07example\x03com\x00".to_vec()]);
    assert_eq!(rdatas(&zone, "a.example.com", 1), [vec![192, 0, 2, 7]]);
    assert_eq!(rdatas(&zone, "txt.sub.example.com", 16), [b"\x05a b;c\x0aplain word\x03A\"\xff".to_vec()]);
    assert_eq!(rdatas(&zone, "@.sub.example.com", 1), [vec![192, 0, 2, 8]]);
    assert_eq!(rdatas(&zone, "*.w.sub.example.com", 5), [b"\x03sub\x07example\x03com\x00".to_vec()]);
    let dotted = name("sub.example.com").child(b"esc.aped").unwrap();
    assert_eq!(zone.set(&dotted, 1).unwrap().rdatas, [vec![192, 0, 2, 9]]);
}

#[test]
fn every_type_is_uncompressed_and_reads_back() {
    let zone = good(&format!(
        "{HEAD}\
         p PTR Ns1\nh HINFO \"a cpu\" os\nm MX 0 .\ns SRV 1 2 3 NS1.Example.com.\n\
         n NAPTR 1 2 \"u\" \"E2U+sip\" \"!^.*$!sip:x@example.com!\" .\n\
         d DNAME Other.Example.\nc CERT 1 2 3 QUJD REVG\n\
         sub NS ns1\nsub DS 60485 5 1 ( 2BB183AF5F22588179A53B0A\n 98631FAD1A292118 )\n\
         f SSHFP 2 1 123456789abcdef67890123456789abcdef67890\n\
         _443._tcp TLSA 3 1 1 0011 22ff\nsm SMIMEA 3 1 1 00\no OPENPGPKEY QUJD REVG\ncs CSYNC 66 3 A NS AAAA\n\
         sv SVCB 1 Svc alpn=h2,h3 port=8443 ipv4hint=192.0.2.1\nht HTTPS 0 @\n\
         q HTTPS 1 . alpn=\"h2,h3\"\nca CAA 0 issue \"ca.example; a=b\"\nt TXT \"\"\n\
         g TYPE65534 \\# 3 01 02ff\nga A \\# 4 C0000203\ngn TYPE2 \\# 5 034E533100\n\
         gs TYPE64 \\# 7 0001 034E533100\ngd TYPE39 \\# 3 014100\n"
    ));
    let mut seen = 0;
    for (owner, sets) in &zone.sets {
        for set in sets {
            for data in &set.rdatas {
                let mut record = owner.as_wire().to_vec();
                record.extend(set.rtype.to_be_bytes());
                record.extend([0, 1, 0, 0, 0, 1]);
                record.extend((data.len() as u16).to_be_bytes());
                record.extend_from_slice(data);
                let back = Record::from_bytes(&record).unwrap_or_else(|e| panic!("{owner} {}: {e}", set.rtype));
                assert_eq!(u16::from(back.record_type()), set.rtype, "{owner}");
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 27);
    // Each name in record data whole: no pointer, lower case.
    let ns1 = b"\x03ns1\x07example\x03com\x00";
    assert_eq!(rdatas(&zone, "p.example.com", 12), [ns1.to_vec()]);
    assert_eq!(rdatas(&zone, "s.example.com", 33), [[&b"\0\x01\0\x02\0\x03"[..], ns1].concat()]);
    assert_eq!(rdatas(&zone, "d.example.com", 39), [b"\x05other\x07example\x00".to_vec()]);
    assert!(rdatas(&zone, "sv.example.com", 64)[0].starts_with(b"\0\x01\x03svc\x07example\x03com\x00"));
    assert_eq!(rdatas(&zone, "ht.example.com", 65), [b"\0\0\x07example\x03com\x00".to_vec()]);
    assert_eq!(rdatas(&zone, "q.example.com", 65), [b"\0\x01\0\0\x01\0\x06\x02h2\x02h3".to_vec()]);
    assert_eq!(rdatas(&zone, "c.example.com", 37), [b"\0\x01\0\x02\x03ABCDEF".to_vec()]);
    assert_eq!(rdatas(&zone, "ca.example.com", 257), [b"\0\x05issueca.example; a=b".to_vec()]);
    assert_eq!(rdatas(&zone, "g.example.com", 65534), [vec![1, 2, 255]]);
    assert_eq!(rdatas(&zone, "ga.example.com", 1), [vec![192, 0, 2, 3]]);
    assert_eq!(rdatas(&zone, "gn.example.com", 2), [b"\x03ns1\x00".to_vec()]);
    assert_eq!(rdatas(&zone, "gs.example.com", 64), [b"\0\x01\x03ns1\x00".to_vec()]);
    assert_eq!(rdatas(&zone, "gd.example.com", 39), [b"\x01a\x00".to_vec()]);
}

/// What follows HEAD (whose last line is 4), and the beginning of the error.
const WRONG: &[(&str, &str)] = &[
    ("a A 192.0.2.1 )", "x.zone:5: a ')' without a '('"),
    ("\na A ( 192.0.2.1\nb A 192.0.2.2\n", "x.zone:6: the '(' opened here is never closed"),
    ("a TXT \"b\n", "x.zone:5: a quote is not closed on its line"),
    ("a TXT \"\\999\"\n", "x.zone:5: a backslash is followed by"),
    ("a TXT b\\\n", "x.zone:5: a backslash is followed by"),
    ("a TXT b\x07\n", "x.zone:5: the control character \\007"),
    ("$INCLUDE /etc/passwd\n", "x.zone:5: $INCLUDE is not supported"),
    ("$GENERATE 1-2 a A 192.0.2.$\n", "x.zone:5: \"$GENERATE\" is no directive"),
    ("$ORIGIN a b\n", "x.zone:5: $ORIGIN takes one value: a name"),
    ("$TTL never\n", "x.zone:5: $TTL takes one value: a time"),
    ("a..b A 192.0.2.1\n", "x.zone:5: \"a..b\" is no name: a label is empty"),
    ("ä A 192.0.2.1\n", "x.zone:5: \"ä\" is no name: only ASCII"),
    ("a MX 1 \"b\"\n", "x.zone:5: \"b\" is no name: a name is written without quotes"),
    ("example.org. A 192.0.2.1\n", "x.zone:5: example.org. is not in the zone example.com."),
    ("A 192.0.2.1\n", "x.zone:5: \"192.0.2.1\" stands where a TTL, IN or a type"),
    ("a FOO bar\n", "x.zone:5: \"FOO\" stands where a TTL, IN or a type"),
    ("a 60 IN\n", "x.zone:5: the record ends before its type"),
    ("a CH TXT b\n", "x.zone:5: the class \"CH\" is not served"),
    ("a 60 60 A 192.0.2.1\n", "x.zone:5: \"60\" is a second TTL"),
    ("a 2147483648 A 192.0.2.1\n", "x.zone:5: the TTL \"2147483648\""),
    ("a 5x A 192.0.2.1\n", "x.zone:5: the TTL \"5x\""),
    ("a DNSKEY 256 3 8 AA\n", "x.zone:5: DNSKEY belongs to signed zones"),
    ("a TYPE255 \\# 0\n", "x.zone:5: TYPE255 is not a type of data"),
    ("a TYPE999 b\n", "x.zone:5: the data of TYPE999 can only be written in the form of RFC 3597"),
    ("a TYPE999 \\# 2 00\n", "x.zone:5: after \\# the data of TYPE999"),
    ("a MX 10\n", "x.zone:5: MX needs a mail server"),
    ("a A 999.1.1.1\n", "x.zone:5: the address \"999.1.1.1\" is wrong: expected an IPv4 address"),
    ("a ( A\n 1.2.3 )\n", "x.zone:6: the address \"1.2.3\" is wrong"),
    ("a MX +1 b\n", "x.zone:5: the preference \"+1\" is wrong: expected a number from 0 to 65535"),
    ("a A 192.0.2.1 192.0.2.2\n", "x.zone:5: \"192.0.2.2\" stands behind the end of the A record"),
    ("a HTTPS 1 . alpn=\"a b\"\n", "x.zone:5: \"alpn=\\\"a b\\\"\" can't be read in HTTPS"),
    ("a HTTPS x .\n", "x.zone:5: the data of HTTPS is wrong: "),
    ("a NS \\# 2 c000\n", "x.zone:5: the data of NS is wrong: "),
    ("a NS \\# 0\n", "x.zone:5: the data of NS is wrong: it is empty"),
    ("a TYPE46 \\# 1 00\n", "x.zone:5: RRSIG belongs to signed zones"),
    ("a SOA a b 1 1 1 1 1\n", "x.zone:5: a SOA record stands only at the apex example.com., and this one is at a.ex"),
    ("@ SOA a b 1 1 1 1 1\n", "x.zone:5: example.com. has two SOA records"),
    ("a CNAME b\na CNAME c\n", "x.zone:6: a.example.com. has two CNAME records"),
    ("a DNAME b.\na DNAME c.\n", "x.zone:6: a.example.com. has two DNAME records"),
    ("a CNAME b\n\na A 192.0.2.1\n", "x.zone:7: a.example.com. has a CNAME record and other data (A)"),
    ("*.a NS ns1\n", "x.zone:5: the wildcard *.a.example.com. can't have a NS record"),
];

#[test]
fn every_error_has_its_line() {
    for (text, expected) in WRONG {
        let error = read(&format!("{HEAD}{text}")).expect_err(text).to_string();
        assert!(error.starts_with(expected), "{text:?}\n  {error}\n  {expected}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn errors_of_the_whole_file() {
    for (text, expected) in [
        ("", "x.zone: the zone example.com. has no SOA record"),
        ("@ 60 NS a.\n", "x.zone: the zone example.com. has no SOA record"),
        ("@ 60 SOA a b 1 1 1 1 1\n", "x.zone: the zone example.com. has no NS record"),
        (" 60 A 192.0.2.1\n", "x.zone:1: the first record has no owner"),
        ("@ A 192.0.2.1\n", "x.zone:1: the record has no TTL"),
        ("example.com 60 SOA a b 1 1 1 1 1\n", "x.zone:1: a SOA record stands only at the apex"),
    ] {
        let error = read(text).expect_err(text).to_string();
        assert!(error.starts_with(expected), "{text:?}\n  {error}");
    }
}

#[test]
fn limits() {
    let long = format!("{HEAD}{}", "a TXT x\n".repeat(MAX_RECORDS));
    assert_eq!(read(&long).unwrap_err().reason, Reason::ManyRecords);
    let text = format!("\"{}\"", "x".repeat(250));
    let wide: String = (0..300).map(|i| format!("a TXT {i} {text}\n")).collect();
    let error = read(&format!("{HEAD}{wide}")).unwrap_err();
    assert!(matches!(error.reason, Reason::LongSet { .. }), "{error}");
    let error = read(&format!("{HEAD}a TXT {}\n", format!("{text} ").repeat(300))).unwrap_err();
    assert!(matches!(error.reason, Reason::LongData { .. }), "{error}");
    let long = format!("{}.example.com. A 192.0.2.1\n", vec!["x".repeat(60); 4].join("."));
    assert!(read(&format!("{HEAD}{long}")).unwrap_err().to_string().contains("longer than 255 octets"));
}

#[test]
fn warnings() {
    let warnings = |text: &str| -> Vec<String> {
        good(&format!("{HEAD}{text}")).warnings.iter().map(ToString::to_string).collect()
    };
    for (text, expected) in [
        ("a A 192.0.2.1\nA A 192.0.2.1\n", "x.zone:6: the A record of a.example.com. stands there twice"),
        (
            "a 9 A 192.0.2.1\na 8 A 192.0.2.2\n",
            "x.zone:5: the A records of a.example.com. have different TTLs; the lowest, 8 s",
        ),
        ("@ NS ns2\n", "x.zone:3: the name server ns2.example.com. of example.com. is in this zone and has no A"),
        ("sub NS ns.sub\n", "x.zone:5: the name server ns.sub.example.com. of sub.example.com. is in this zone"),
        ("sub NS al\nal CNAME ns1\n", "x.zone:5: the name server al.example.com. of sub.example.com. is a CNAME"),
        ("sub NS ns1\nx.sub TXT y\n", "x.zone:6: the TXT record of x.sub.example.com. is never served, because sub.ex"),
        ("sub NS ns1\nsub TXT y\n", "x.zone:6: the TXT record of sub.example.com. is never served"),
        ("d DNAME e.\nx.d A 192.0.2.1\n", "x.zone:6: the A record of x.d.example.com. is never served, because d.ex"),
        ("a DS 1 8 2 00\n", "x.zone:5: the DS record of a.example.com. stands without a delegation"),
    ] {
        let found = warnings(text);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{text:?}\n  {found:?}\n  {expected}");
    }
    let none = "sub NS ns.sub\nsub NS ns.other\nother NS ns.else.\nns.sub AAAA 2001:db8::1\nsub DS 1 8 2 00\n";
    assert_eq!(warnings(none), [""; 0]);
    let many = warnings(&"a A 192.0.2.1\n".repeat(MAX_WARNINGS + 5));
    assert_eq!((many.len(), &*many[MAX_WARNINGS]), (MAX_WARNINGS + 1, "x.zone: 4 more warnings"));

    let zone = good("@ SOA a. b. 1 1 1 1 77\n@ NS a.\nx 5 A 192.0.2.1\ny A 192.0.2.1\n");
    assert_eq!(zone.warnings[0].doubt, Doubt::TtlFromMinimum { ttl: 77 });
    assert_eq!((zone.soa.ttl, zone.set(&name("y.example.com"), 1).unwrap().ttl), (77, 77));
    let zone = good(&format!("{HEAD}a 9 A 192.0.2.1\na 8 A 192.0.2.2\n"));
    assert_eq!(zone.set(&name("a.example.com"), 1).unwrap().ttl, 8);
}

#[test]
fn parents_delegate_children() {
    let zone = |apex: &str, text: &str| parse(&format!("{HEAD}{text}"), &name(apex), Path::new("x.zone")).unwrap();
    let child = || zone("a.b.example.com", "");
    assert_eq!(check_delegations(&[zone("example.com", "a.b NS ns1"), child()], &[]), []);
    assert_eq!(
        check_delegations(&[child(), zone("example.com", "b NS ns.else.")], &[]),
        [],
        "by a zone served elsewhere"
    );
    assert_eq!(check_delegations(&[child(), zone("example.org", "")], &[]), []);
    let missing = |parent: &str, child: &str| Problem::NotDelegated { parent: name(parent), child: name(child) };
    assert_eq!(
        check_delegations(&[child(), zone("example.com", "")], &[]),
        [missing("example.com", "a.b.example.com")]
    );
    // The closest zone around it counts, not one further up.
    let zones = [child(), zone("b.example.com", ""), zone("example.com", "b NS ns1\na.b NS ns1")];
    assert_eq!(check_delegations(&zones, &[]), [missing("b.example.com", "a.b.example.com")]);
    // What a file that cannot be read would have delegated is not known; whether its own zone is delegated is.
    let zones = [child(), zone("example.com", "")];
    assert_eq!(check_delegations(&zones, &[name("b.example.com")]), [missing("example.com", "b.example.com")]);
    assert_eq!(check_delegations(&[zone("example.com", "b NS ns1")], &[name("b.example.com")]), []);
    let zones = [child(), zone("b.example.com", ""), zone("example.com", "b NS ns1\na.b NS ns1")];
    assert!(zones[2].is_delegation(&name("b.example.com")) && !zones[2].is_delegation(&name("example.com")));
}

#[test]
fn files() {
    let dir = tempfile::tempdir().unwrap();
    let apex = name("example.com");
    let path = dir.path().join("x.zone");
    let error = load(&path, &apex).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: the zone file can't be read", path.display())), "{error}");
    assert_eq!(load(dir.path(), &apex).unwrap_err().reason, Reason::NotAFile);
    std::fs::write(&path, HEAD).unwrap();
    assert_eq!(load(&path, &apex).unwrap().soa.serial, 7);
    std::fs::write(&path, b"; a\n; \xe4\n").unwrap();
    let error = load(&path, &apex).unwrap_err();
    assert_eq!((error.line, error.reason), (Some(2), Reason::NotUtf8));
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(MAX_FILE + 1).unwrap();
    assert_eq!(load(&path, &apex).unwrap_err().reason, Reason::LongFile);
}

/// Words that lead deep into the parser, and any characters between them.
fn zone_like() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "@",
            "$TTL",
            "$ORIGIN",
            "IN",
            "A",
            "AAAA",
            "NS",
            "SOA",
            "MX",
            "TXT",
            "SRV",
            "CNAME",
            "DNAME",
            "DS",
            "CAA",
            "SVCB",
            "HTTPS",
            "CERT",
            "OPENPGPKEY",
            "CSYNC",
            "NAPTR",
            "TLSA",
            "TYPE1",
            "TYPE64",
            "TYPE47",
            "TYPE6",
            "\\#",
            "0",
            "1",
            "4",
            "60",
            "1h",
            ".",
            "ns1",
            "192.0.2.1",
            "2001:db8::1",
            "0001",
            "c00c",
            "\"",
            "(",
            ")",
            "\n",
            "\n",
            "\n@ ",
            "\n ",
            "\t",
            ";",
            "\\",
            "alpn=h2",
            "alpn=\"h2\"",
            "mandatory=alpn",
            "ipv6hint=::1",
            "port=",
            "key1=x",
            "ech=AA==",
            "no-default-alpn",
            "=",
            "*",
            "QUJD",
        ])
        .prop_map(String::from),
        "\\PC{0,6}",
        "[ -~]{0,12}",
        ".{0,3}",
    ];
    prop::collection::vec(word, 0..40).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_text_panics(text in zone_like(), head in any::<bool>()) {
        let text = if head { format!("{HEAD}{text}") } else { text };
        if let Ok(zone) = read(&text) {
            for (owner, sets) in &zone.sets {
                prop_assert!(owner.is_at_or_below(&zone.apex));
                prop_assert!(sets.iter().all(|set| !set.rdatas.is_empty() && set.ttl <= MAX_TTL));
            }
        }
    }

    #[test]
    fn no_record_data_panics(
        rtype in prop_oneof![1u16..70, prop::sample::select(vec![257u16, 65305, 65534]), any::<u16>()],
        data in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let hex: String = data.iter().map(|b| format!("{b:02x}")).collect();
        let text = format!("{HEAD}x TYPE{rtype} \\# {} {hex}\n", data.len());
        if let Ok(zone) = read(&text) {
            let kept = &zone.set(&name("x.example.com"), rtype).unwrap().rdatas[0];
            prop_assert!(kept.eq_ignore_ascii_case(&data));
        }
    }
}
