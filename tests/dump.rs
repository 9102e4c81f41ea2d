//! `signpost dump`: other name servers load it, and answer as Signpost does.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use common::resolvers::{Kind, Server};
use common::signpost::{MemberSource, Setup, Signpost, ZONE};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

const QUESTIONS: usize = 10_000;
/// The data that a zone file can have beside services.
const RECORDS: &str = "\
@ MX 10 mail
@ TXT \"v=spf1 -all\" \"two \\\"strings\\\"; and \\195\\164\"
@ CAA 0 issue \"ca.example\"
mail A 192.0.2.25
mail AAAA 2001:db8::25
alias CNAME s1.n1
outside CNAME www.example.
*.wild TXT \"whatever is asked\"
*.wild A 192.0.2.77
deep.below.nothing A 192.0.2.78
sub NS ns.sub
sub NS ns.elsewhere.example.
ns.sub A 192.0.2.53
s9.n1 TXT \"static data wins the whole name\"
one.n2 A 192.0.2.79
";

/// What a cluster has: of every kind of service something.
fn manifests(cluster: usize) -> String {
    let mut text = String::new();
    for number in 0..60_usize {
        // Not every cluster has every service.
        if (number * 7 + cluster).is_multiple_of(4) {
            continue;
        }
        let namespace = format!("n{}", number % 5);
        let (v4, v6) = (format!("104.16.{cluster}.{number}"), format!("2600:{cluster:x}::{number:x}"));
        let ports = match number % 4 {
            0 => "[{port: 80}]",
            1 => "[{name: http, port: 80}, {name: https, port: 443}]",
            2 => "[{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]",
            _ => "[{name: web, port: 8080}]",
        };
        let (kind, ingress) = match number % 6 {
            0 => ("LoadBalancer", format!("[{{ip: {v4}}}]")),
            1 => ("LoadBalancer", format!("[{{ip: {v4}}}, {{ip: '{v6}'}}]")),
            2 => ("LoadBalancer", "[]".to_owned()),
            3 => ("LoadBalancer", format!("[{{ip: {v4}}}, {{ip: 104.17.{cluster}.{number}}}]")),
            4 => ("LoadBalancer", format!("[{{ip: '{v6}'}}]")),
            _ => ("ClusterIP", "[]".to_owned()),
        };
        // Of one namespace there is nothing to be seen from outside.
        let (namespace, kind) = if number % 6 == 5 { ("hidden".to_owned(), kind) } else { (namespace, kind) };
        let address = if number % 10 == 3 { "None".to_owned() } else { format!("10.{cluster}.0.{number}") };
        writeln!(
            text,
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: s{number}, namespace: {namespace}}}, spec: {{type: {kind}, \
             clusterIP: {address}, selector: {{a: b}}, ports: {ports}}}, status: {{loadBalancer: {{ingress: {ingress}}}}}}}\n---\n\
             {{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: s{number}-a, namespace: {namespace}, labels: \
             {{kubernetes.io/service-name: s{number}}}}}, addressType: IPv4, ports: {ports}, endpoints: [{{addresses: \
             [10.{cluster}.1.{number}], hostname: web-0}}, {{addresses: [10.{cluster}.2.{number}]}}]}}"
        )
        .expect("a String takes everything");
    }
    text
}

fn setup(directory: &Path) -> Setup {
    let source = |cluster: usize| {
        let manifests_at = directory.join(format!("cluster-{cluster}"));
        fs::create_dir(&manifests_at).expect("the folder is ours");
        fs::write(manifests_at.join("all.yaml"), manifests(cluster)).expect("the folder is ours");
        MemberSource::Manifests(manifests_at)
    };
    let mut setup = Setup::new([1, 2, 3].map(source).into());
    setup.clusters.iter_mut().for_each(|cluster| cluster.export = "all");
    setup.records = RECORDS.to_owned();
    setup
}

/// A connection over which one question is asked after the other.
struct Asking(TcpStream);

impl Asking {
    fn at(server: SocketAddr) -> Asking {
        let stream = TcpStream::connect(server).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
        stream.set_nodelay(true).expect("no delay");
        Asking(stream)
    }

    fn ask(&mut self, name: &Name, rtype: RecordType) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(name.clone(), rtype));
        let query = message.to_vec().expect("it is small");
        let framed = [&(query.len() as u16).to_be_bytes()[..], &query].concat();
        self.0.write_all(&framed).expect("it is sent");
        let mut length = [0; 2];
        self.0.read_exact(&mut length).expect("an answer");
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        self.0.read_exact(&mut answer).expect("an answer");
        Message::from_vec(&answer).expect("a message")
    }
}

/// What is the same whoever answers. How long "no" may be remembered is Signpost's own.
fn essence(message: &Message) -> (String, bool, BTreeSet<String>, BTreeSet<String>) {
    let text =
        |record: &Record| format!("{} {} {:?}", record.name.to_lowercase(), record.ttl, record.data).to_lowercase();
    let referral =
        message.authorities.iter().filter(|record| matches!(record.data, RData::NS(_)) && message.answers.is_empty());
    let no = message.authorities.iter().filter(|record| matches!(record.data, RData::SOA(_)));
    (
        message.metadata.response_code.to_string(),
        message.metadata.authoritative,
        message.answers.iter().map(text).collect(),
        referral.map(text).chain(no.map(|record| format!("{} SOA", record.name.to_lowercase()))).collect(),
    )
}

/// Names that are there, names near them, and others.
fn questions(dump: &str) -> Vec<(Name, RecordType)> {
    let owners: BTreeSet<&str> =
        dump.lines().filter(|line| !line.starts_with(';')).filter_map(|line| line.split(' ').next()).collect();
    assert!(owners.len() > 200, "{} names", owners.len());
    let parents = owners.iter().flat_map(|owner| owner.match_indices('.').map(|(at, _)| &owner[at + 1..]));
    let parents: BTreeSet<&str> = parents.filter(|parent| parent.ends_with(ZONE_DOT)).collect();
    let known: Vec<String> = owners.iter().copied().chain(parents).map(str::to_owned).collect();
    let labels =
        select(vec!["x", "web-0", "_http._tcp", "cluster-1", "s1", "n1", "a.b", "*", "wild", "sub", "_tcp", "svc"]);
    let name = prop_oneof![
        4 => select(known.clone()),
        2 => (labels.clone(), select(known)).prop_map(|(label, name)| format!("{label}.{name}")),
        1 => (labels.clone(), labels).prop_map(|(one, other)| format!("{one}.{other}.{ZONE_DOT}")),
    ];
    let rtype = select(vec![
        RecordType::A,
        RecordType::A,
        RecordType::AAAA,
        RecordType::AAAA,
        RecordType::SRV,
        RecordType::SRV,
        RecordType::TXT,
        RecordType::MX,
        RecordType::NS,
        RecordType::SOA,
        RecordType::CNAME,
        RecordType::CAA,
    ]);
    let mut runner = TestRunner::deterministic();
    let question = (name, rtype).prop_map(|(name, rtype)| (Name::from_ascii(name).expect("a name"), rtype));
    (0..QUESTIONS).map(|_| question.new_tree(&mut runner).expect("a question").current()).collect()
}

const ZONE_DOT: &str = "my-federation.my-domain.com.";

#[test]
fn other_servers_answer_the_same_from_it() {
    assert_eq!(ZONE_DOT.strip_suffix('.'), Some(ZONE));
    let directory = tempfile::tempdir().expect("a temporary folder");
    let signpost = Signpost::start(&setup(directory.path()));
    for (view, server) in [(&[][..], signpost.ports.external), (&["--cluster", "cluster-1"], signpost.ports.internal)] {
        let dumped = signpost.command(&[&["dump", ZONE], view].concat()).expect("a dump");
        let offline = signpost.command(&[&["dump", ZONE, "--offline"], view].concat()).expect("a dump");
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<String>>();
        assert_eq!(lines(&dumped), lines(&offline), "without a server it is the same");
        let peers = [
            ("nsd", Server::start(&Kind::Nsd { zone: ZONE, text: &dumped })),
            ("knot", Server::start(&Kind::Knot { zone: ZONE, text: &dumped })),
        ];
        let (mut ours, mut seen) = (Asking::at(server), BTreeMap::<String, usize>::new());
        let mut theirs: Vec<(&str, Asking)> =
            peers.iter().map(|(name, peer)| (*name, Asking::at(peer.address))).collect();
        for (name, rtype) in questions(&dumped) {
            let our_answer = essence(&ours.ask(&name, rtype));
            let kind = if our_answer.2.is_empty() { "without records" } else { "with records" };
            *seen.entry(format!("{} {kind}", our_answer.0)).or_default() += 1;
            for (peer, asking) in &mut theirs {
                let answer = essence(&asking.ask(&name, rtype));
                assert_eq!(our_answer, answer, "{view:?}: ours, and {peer}'s, of {name} {rtype}");
            }
        }
        println!("{view:?}: {seen:?}");
        assert!(seen.len() >= 3 && seen.values().all(|count| *count > 500), "questions of all kinds: {seen:?}");
    }
    signpost.stop();
}

#[test]
fn what_cannot_be_dumped() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let signpost = Signpost::start(&setup(directory.path()));
    let refused = |words: &[&str]| signpost.command(words).expect_err("it is refused").trim().to_owned();
    assert_eq!(
        refused(&["dump", "my-domain.com"]),
        format!("signpost: there is no zone \"my-domain.com\"; there are {ZONE_DOT}")
    );
    assert_eq!(refused(&["dump", ZONE, "--cluster", "cluster-9"]), "signpost: there is no cluster \"cluster-9\"");
    let no_view =
        "signpost: no listener gives the internal view of \"cluster-2\": add one with `view: {internal: cluster-2}`";
    assert_eq!(refused(&["dump", ZONE, "--cluster", "cluster-2"]), no_view);
    signpost.stop();
}
