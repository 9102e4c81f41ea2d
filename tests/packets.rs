//! Any octets at all: no panic, no answer to an answer, nothing larger than allowed, bounded work.

mod support;

use std::net::IpAddr;

use signpost::answer::{Client, Reply, Responder, Transport};
use signpost::model::{ClusterId, View, ViewRule};
use support::ask::{Ask, TCP};
use support::*;

const PACKETS: usize = 1_000_000;
/// What `net` gives the answer function for a datagram.
const UDP_BUFFER: usize = 2048;

/// xorshift64* (Vigna 2016): a packet must be found again from the seed alone.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

const STATIC: &str = "\
www CNAME svc.ns
loop CNAME loop2
loop2 CNAME loop
old DNAME ns
*.wild TXT \"wild\"
sub NS ns.sub
ns.sub A 192.0.2.7
sub DS 1 8 2 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
deep.er.name MX 10 svc.ns
";

/// Static data of every kind beside services, and a cluster that was not heard yet.
fn world() -> World {
    let mut config = config(vec![cluster("c0", "r0"), cluster("c1", "r0"), cluster("c2", "r1")]);
    config.clusters[2].namespaces = signpost::config::Namespaces::Only(vec![label("late")]);
    let mut world = World::new(config, &format!("{ZONE_FILE}{STATIC}"));
    world.publisher.set_synced(ClusterId(0));
    world.publisher.set_synced(ClusterId(1));
    for (n, name) in ["svc", "other"].into_iter().enumerate() {
        let share = |c: u16| load_balancer(c, &format!("10.{c}.{n}.1"), &[&format!("104.{c}.{n}.1"), "2600::1"]);
        world.publish(key("ns", name), vec![share(0), share(1)]);
    }
    let mut pods = load_balancer(0, "10.0.0.9", &[]);
    pods.cluster_address = signpost::model::ClusterAddress::Headless;
    pods.pods = (0..200)
        .map(|i| signpost::model::Pod {
            hostname: label(&format!("pod-{i}")),
            addresses: addresses(&[&format!("10.9.0.{i}")]),
            ports: vec![port("client", 2379)],
        })
        .collect();
    world.publish(key("ns", "pods"), vec![pods]);
    world
}

/// Messages that mean something, so that mutations of them reach every branch.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        Ask::new("svc.ns.example.com", 1),
        Ask::new("svc.ns.example.com", 28).edns(1232),
        Ask::new("_client._tcp.svc.ns.example.com", 33).edns(4096),
        Ask::new("c0.svc.ns.example.com", 1).mixed_case(0x5555_5555),
        Ask::new("pod-7.c0.pods.ns.example.com", 255),
        Ask::new("pods.ns.example.com", 33).edns(512),
        Ask::new("pods.ns.example.com", 1),
        Ask::new("www.example.com", 1).edns(1232).option(3, &[]),
        Ask::new("loop.example.com", 16),
        Ask::new("svc.old.example.com", 1),
        Ask::new("a.wild.example.com", 16),
        Ask::new("x.sub.example.com", 1).edns(700),
        Ask::new("sub.example.com", 43),
        Ask::new("x.late.example.com", 1).edns(1232),
        Ask::new("nothing.at.all.example.com", 1),
        Ask::new("example.com", 6).edns(1232).option(8, &[0, 1, 24, 0, 192, 0, 2]).option(11, &[]),
        Ask::new("example.net", 1).edns(1232).option(10, &[1, 2, 3, 4, 5, 6, 7, 8]),
        Ask::new("example.com", 252),
        Ask { qclass: 3, ..Ask::new("version.bind", 16) },
        Ask { opcode: 5, ..Ask::new("example.com", 6) },
        Ask { opcode: 4, ..Ask::new("example.com", 6) },
        Ask::new("", 2),
    ]
    .iter()
    .map(Ask::to_vec)
    .collect();
    let mut two_questions = seeds[0].clone();
    two_questions[5] = 2;
    two_questions.extend_from_slice(&[0xC0, 12, 0, 28, 0, 1]);
    let mut compressed_owner = seeds[0].clone();
    compressed_owner[11] = 2;
    compressed_owner.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4]);
    compressed_owner.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
    let mut pointer_question = seeds[0][..12].to_vec();
    pointer_question.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1]);
    let mut longest = seeds[0][..12].to_vec();
    longest.extend((0..127).flat_map(|_| [1, b'a']));
    longest.extend_from_slice(&[0, 0, 1, 0, 1]);
    seeds.extend([two_questions, compressed_owner, pointer_question, longest]);
    seeds
}

fn mutate(packet: &mut Vec<u8>, seeds: &[Vec<u8>], dice: &mut Dice) {
    packet.clear();
    packet.extend_from_slice(&seeds[dice.below(seeds.len())]);
    for _ in 0..dice.below(5) {
        let at = dice.below(packet.len().max(1));
        match dice.below(9) {
            0 if !packet.is_empty() => packet[at] ^= 1 << dice.below(8),
            1 if !packet.is_empty() => packet[at] = dice.next() as u8,
            // Values at which something ends.
            2 if !packet.is_empty() => packet[at] = [0, 1, 63, 64, 127, 128, 0xC0, 255][dice.below(8)],
            3 => packet.truncate(at),
            4 => packet.insert(at.min(packet.len()), dice.next() as u8),
            5 if !packet.is_empty() => drop(packet.remove(at)),
            // Another message's tail.
            6 => {
                let other = &seeds[dice.below(seeds.len())];
                packet.truncate(at);
                packet.extend_from_slice(&other[dice.below(other.len())..]);
            }
            7 => packet.extend((0..dice.below(40)).map(|_| dice.next() as u8)),
            // Counts of the header, the flags, and the type of the question.
            _ if packet.len() > 12 => {
                let at = 2 + dice.below(10);
                packet[at] = dice.next() as u8;
            }
            _ => {}
        }
    }
    packet.truncate(UDP_BUFFER);
}

/// The payload size that the message asks for, as RFC 6891 has it; the largest that any OPT of it could mean.
fn allowed_udp(packet: &[u8]) -> usize {
    // A walk over the records would be the code under test once more: any three octets of an OPT's head will do.
    let opts = packet.windows(5).filter(|w| w[..3] == [0, 0, 41]);
    opts.map(|w| usize::from(u16::from_be_bytes([w[3], w[4]])).clamp(512, 1232)).max().unwrap_or(512)
}

#[test]
fn a_million_mutated_packets() {
    let world = world();
    let seeds = seeds();
    let mut dice = Dice(0x5157_9057);
    let mut responder = Responder::new(9);
    let address: IpAddr = "127.0.0.1".parse().unwrap();
    let views = [View::External, View::Internal(ClusterId(0)), View::Internal(ClusterId(2))];
    let mut packet = Vec::with_capacity(UDP_BUFFER + 64);
    let mut datagram = vec![0u8; UDP_BUFFER];
    let mut stream = vec![0u8; 65_535];
    let (mut answered, mut dropped) = (0u32, 0u32);
    let mut rcodes = [0u32; 16];
    for n in 0..PACKETS {
        mutate(&mut packet, &seeds, &mut dice);
        let view = ViewRule::Fixed(views[n % views.len()]);
        for (transport, buffer) in [(Transport::Udp, &mut datagram), (TCP, &mut stream)] {
            buffer[..packet.len()].copy_from_slice(&packet);
            let client = Client { address, audience: view.into(), transport, keepalive: 100 };
            let silent = packet.len() < 12 || packet[2] & 0x80 != 0;
            match world.reader.with(|table| responder.answer(table, client, buffer, packet.len())) {
                Reply::Send { length, .. } => {
                    let length = usize::from(length);
                    answered += 1;
                    assert!(!silent, "packet {n} gets no answer: {packet:?}");
                    let most = if transport == Transport::Udp { allowed_udp(&packet) } else { 65_535 };
                    assert!((12..=most).contains(&length), "packet {n}: {length} octets, allowed {most}: {packet:?}");
                    assert_eq!(buffer[..2], packet[..2], "packet {n}: the id");
                    assert_eq!(buffer[2] & 0x80, 0x80, "packet {n}: QR");
                    assert_eq!(buffer[2] & 0x79, packet[2] & 0x79, "packet {n}: opcode and RD");
                    assert_eq!(buffer[3] & 0xF0, 0, "packet {n}: RA, Z, AD and CD");
                    rcodes[usize::from(buffer[3] & 0x0F)] += 1;
                }
                Reply::Drop(_) => {
                    dropped += 1;
                    assert!(silent, "packet {n} gets an answer: {packet:?}");
                }
            }
        }
    }
    assert_eq!(answered + dropped, 2 * PACKETS as u32);
    // The mutations reach all that there is to reach; NOERROR is also BADVERS, whose upper bits are in the OPT.
    for rcode in [0, 1, 2, 3, 4, 5] {
        assert!(rcodes[rcode] > 1000, "RCODE {rcode} came {} times: {rcodes:?}", rcodes[rcode]);
    }
    assert!(dropped > 1000);
}

/// The dearest messages there are: the work is in proportion to the octets, whatever the counts say.
#[test]
fn work_is_paid_for() {
    let mut world = world();
    let header = |counts: [u8; 6]| {
        let mut m = vec![0, 1, 0, 0, 0, 1];
        m.extend_from_slice(&counts);
        m.extend_from_slice(b"\x03svc\x02ns\x07example\x03com\x00\x00\x01\x00\x01");
        m
    };
    let full = |mut head: Vec<u8>, unit: &[u8]| {
        while head.len() + unit.len() <= 65_535 {
            head.extend_from_slice(unit);
        }
        head
    };
    let mut options = header([0, 0, 0, 0, 0, 1]);
    options.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0]);
    let room = ((65_535 - options.len() - 2) / 4 * 4) as u16;
    options.extend_from_slice(&room.to_be_bytes());
    let labels: Vec<u8> = (0..127).flat_map(|_| [1, b'a']).chain([0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]).collect();
    let heavy = [
        ("empty records", full(header([0xFF; 6]), &[0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0])),
        ("empty options", full(options, &[0xFF, 0xF0, 0, 0])),
        ("long owners", full(header([0xFF; 6]), &labels)),
        ("counts that lie", header([0xFF; 6])),
    ];
    let mut buffer = vec![0u8; 65_535];
    let client = Client {
        address: "127.0.0.1".parse().unwrap(),
        audience: ViewRule::Fixed(View::External).into(),
        transport: TCP,
        keepalive: 100,
    };
    for (what, message) in &heavy {
        let mut round = || {
            buffer[..message.len()].copy_from_slice(message);
            let start = cpu_time();
            let reply = world.reader.with(|table| world.responder.answer(table, client, &mut buffer, message.len()));
            assert!(matches!(reply, Reply::Send { .. }), "{what}");
            (cpu_time() - start).as_nanos() as u64
        };
        // The shortest of many: what else the machine does can only make a round longer.
        let least = (0..50).map(|_| round()).min().unwrap_or_default();
        // An unoptimised build takes about 25 ns for an octet; work in the square of the length would take 65,535 times that.
        let most = 20_000 + 1_000 * message.len() as u64;
        assert!(least < most, "{what}: {least} ns for {} octets", message.len());
    }
}
