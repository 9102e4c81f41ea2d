//! Real sockets on loopback. What is asked is in no zone, so that any table will do: the answer is REFUSED.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::config::Config;
use crate::metrics::Closing;
use crate::model::{ClusterId, View, ViewRule};
use crate::table::Publisher;

/// Far above what any of this takes, also on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(30);
const NEVER: Duration = Duration::from_secs(3600);
/// A time-out that a test wants to see.
const SOON: Duration = Duration::from_millis(100);
const EXTERNAL: ViewRule = ViewRule::Fixed(View::External);
const PATIENT: StreamTiming = StreamTiming {
    first_message: NEVER,
    message: NEVER,
    idle: NEVER,
    idle_crowded: NEVER,
    write: NEVER,
    stop: Duration::from_secs(1),
};

pub(super) fn empty_table() -> Reader {
    let config = Config { limits: limits(), ..Config::of(Vec::new()) };
    Publisher::new(Arc::new(config), &[], 0).1
}

fn limits() -> Limits {
    Limits {
        udp_workers: 2,
        udp_receive_buffer: 1 << 20,
        tcp_connections: 1024,
        tcp_connections_per_client: 32,
        tcp_idle: Duration::from_secs(10),
        tcp_idle_internal: Duration::from_secs(30),
        sync_wait: Duration::from_secs(30),
        lame_duck: Duration::ZERO,
        manifest_size: 1 << 20,
        manifest_files: 100,
        objects_per_cluster: 1000,
        endpoints_per_service: 1000,
    }
}

fn bound(address: &str, view: ViewRule) -> Bound {
    bind(&Listener { address: address.parse().unwrap(), audience: view.into() }, &limits(), "listeners[0]").unwrap()
}

struct Server {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    connections: Connections,
    stop: CancellationToken,
    serving: Serving,
}

fn serve(bound: Bound, connections: Connections, stop: CancellationToken) -> Server {
    let metrics = Metrics::new();
    let address = bound.address();
    let serving = bound.serve(empty_table(), connections.clone(), Arc::clone(&metrics), stop.clone());
    Server { address, metrics, connections, stop, serving }
}

fn start(address: &str) -> Server {
    serve(bound(address, EXTERNAL), Connections::new(1024, 1024), CancellationToken::new())
}

fn start_streams(timing: StreamTiming, connections: Connections) -> Server {
    serve(bound("127.0.0.1:0", EXTERNAL).with_timing(timing), connections, CancellationToken::new())
}

impl Server {
    async fn stop(self) {
        self.stop.cancel();
        let failed = timeout(DEADLINE, self.serving.join()).await.expect("all threads and tasks end");
        assert_eq!(failed, []);
    }

    fn metric(&self, line: &str) -> u64 {
        let text = self.metrics.text().unwrap();
        let value = text.lines().find_map(|l| l.strip_prefix(line)).unwrap_or_else(|| panic!("no {line} in\n{text}"));
        value.trim().parse().unwrap()
    }

    fn sum(&self, family: &str) -> u64 {
        let text = self.metrics.text().unwrap();
        let lines = text.lines().filter(|l| l.starts_with(family));
        lines.map(|l| l.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    async fn until(&self, what: &str, condition: impl Fn(&Server) -> bool) {
        let waiting = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(timeout(DEADLINE, waiting).await.is_ok(), "waited for {what}:\n{}", self.metrics.text().unwrap());
    }

    async fn until_closed_by(&self, cause: Closing, count: u64) {
        self.until(&format!("{count} × {cause:?}"), |s| s.metrics.streams().closed_by(cause) == count).await;
    }
}

/// `nowhere. A IN`
fn query(id: u16) -> Vec<u8> {
    let mut q = id.to_be_bytes().to_vec();
    q.extend_from_slice(b"\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07nowhere\x00\x00\x01\x00\x01");
    q
}

fn frame(message: &[u8]) -> Vec<u8> {
    let mut f = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    f.extend_from_slice(message);
    f
}

#[track_caller]
fn assert_answers(answer: &[u8], id: u16) {
    assert!(answer.len() >= 12, "{answer:?}");
    assert_eq!(answer[..2], id.to_be_bytes());
    assert_eq!(answer[2] & 0x80, 0x80, "QR");
}

fn client(server: SocketAddr) -> UdpSocket {
    let local: IpAddr = if server.is_ipv6() { "::1".parse().unwrap() } else { "127.0.0.1".parse().unwrap() };
    let socket = UdpSocket::bind((local, 0)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.connect(server).unwrap();
    socket
}

fn ask_udp(socket: &UdpSocket, id: u16) {
    socket.send(&query(id)).unwrap();
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).expect("an answer");
    assert_answers(&buffer[..length], id);
    assert_eq!(buffer[3] & 0x0f, 5, "REFUSED");
}

async fn read_answer(stream: &mut TcpStream) -> Vec<u8> {
    let reading = async {
        let mut message = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut message).await?;
        io::Result::Ok(message)
    };
    timeout(DEADLINE, reading).await.expect("an answer in time").expect("a whole answer")
}

async fn ask_tcp(stream: &mut TcpStream, id: u16) {
    stream.write_all(&frame(&query(id))).await.unwrap();
    assert_answers(&read_answer(stream).await, id);
}

/// The server closes without another octet.
async fn assert_closed(stream: &mut TcpStream) {
    let mut octet = [0];
    match timeout(DEADLINE, stream.read(&mut octet)).await.expect("a close in time") {
        Ok(0) | Err(_) => {}
        Ok(_) => panic!("an octet instead of the end"),
    }
}

#[tokio::test]
async fn udp_answers_and_counts() {
    let server = start("127.0.0.1:0");
    // Each from a port of its own, so that both workers get some.
    for id in 0..50 {
        ask_udp(&client(server.address), id);
    }
    let one = client(server.address);
    for ignored in [&[][..], &[0; 11], &[0x80; 40], &[0; 3000]] {
        one.send(ignored).unwrap();
    }
    ask_udp(&one, 50);
    server.until("all 55", |s| s.sum("signpost_queries_total") + s.sum("signpost_queries_dropped_total") == 55).await;
    assert_eq!(
        server.metric(r#"signpost_queries_total{rcode="REFUSED",transport="udp",view="external",zone="none"}"#),
        51
    );
    assert_eq!(server.metric(r#"signpost_queries_dropped_total{cause="short"}"#), 2);
    assert_eq!(server.metric(r#"signpost_queries_dropped_total{cause="response"}"#), 1);
    assert_eq!(server.metric(r#"signpost_queries_dropped_total{cause="oversized"}"#), 1);
    assert_eq!(server.metric("signpost_udp_send_errors_total"), 0);
    server.stop().await;
}

#[tokio::test]
async fn ipv6() {
    let server = start("[::1]:0");
    ask_udp(&client(server.address), 1);
    ask_tcp(&mut TcpStream::connect(server.address).await.unwrap(), 2).await;
    server.stop().await;
}

#[tokio::test]
async fn a_wildcard_answers_from_the_address_asked() {
    let server = start("0.0.0.0:0");
    let port = server.address.port();
    for asked in ["127.0.0.1", "127.1.2.3"] {
        // A connected socket hears the address that it asked, and no other.
        ask_udp(&client(SocketAddr::new(asked.parse().unwrap(), port)), 7);
    }
    let broadcaster = UdpSocket::bind("127.0.0.1:0").unwrap();
    broadcaster.set_broadcast(true).unwrap();
    broadcaster.send_to(&query(8), ("127.255.255.255", port)).unwrap();
    let dropped = r#"signpost_queries_dropped_total{cause="destination_address"}"#;
    // The kernel gives a copy to each worker.
    server.until("the broadcast", |s| s.metric(dropped) == 2).await;
    let both_families = start(&format!("[::]:{port}"));
    ask_udp(&client(SocketAddr::new("::1".parse().unwrap(), port)), 9);
    both_families.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn the_stop_answers_what_has_arrived() {
    let bound = bound("127.0.0.1:0", EXTERNAL);
    let address = bound.address();
    let sockets: Vec<_> = (0..100).map(|_| client(address)).collect();
    for (id, socket) in (0..).zip(&sockets) {
        socket.send(&query(id)).unwrap();
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&frame(&query(100))).await.unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    serve(bound, Connections::new(10, 10), stop).stop().await;
    let mut buffer = [0; 2048];
    for (id, socket) in (0..).zip(&sockets) {
        let length = socket.recv(&mut buffer).expect("an answer");
        assert_answers(&buffer[..length], id);
    }
    assert_answers(&read_answer(&mut stream).await, 100);
    assert_closed(&mut stream).await;
}

#[tokio::test]
async fn the_stop_wakes_who_waits() {
    let server = start_streams(PATIENT, Connections::new(10, 10));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    ask_tcp(&mut stream, 1).await;
    ask_udp(&client(server.address), 2);
    let metrics = Arc::clone(&server.metrics);
    server.stop().await;
    assert_closed(&mut stream).await;
    assert_eq!((metrics.streams().closed_by(Closing::Stop), metrics.streams().open()), (1, 0));
}

#[tokio::test]
async fn an_aborted_task_takes_its_thread_along() {
    let server = start("127.0.0.1:0");
    ask_udp(&client(server.address), 1);
    drop(server.serving);
    // The workers have gone when their sockets have: then the address is free.
    let listener = Listener { address: server.address, audience: EXTERNAL.into() };
    let waiting = async {
        while bind(&listener, &limits(), "listeners[0]").is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(DEADLINE, waiting).await.expect("the sockets are closed");
}

#[tokio::test]
async fn a_panic_of_a_worker_is_told() {
    let (_, sockets) = udp::bind("127.0.0.1:0".parse().unwrap(), 1, 1 << 16).unwrap();
    let socket = sockets.into_iter().next().unwrap();
    let (_, stopper) = udp::Worker::new(socket, EXTERNAL.into(), empty_table(), 0, Metrics::new().udp_worker());
    let (sender, ended) = oneshot::channel();
    let thread = thread::spawn(move || {
        let _sender: oneshot::Sender<io::Result<()>> = sender;
        std::panic::resume_unwind(Box::new("as if it had panicked"));
    });
    let (stop, handed_over) = (CancellationToken::new(), Arc::default());
    let ended = watch("udp worker".to_owned(), thread, ended, stopper, stop, handed_over);
    let ended = timeout(DEADLINE, ended).await.unwrap();
    assert!(ended.error.is_some_and(|e| e.contains("panicked")));
}

#[tokio::test]
async fn pipelined_queries_are_answered_in_order() {
    let server = start_streams(PATIENT, Connections::new(10, 10));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let all: Vec<u8> = (0..10_000).flat_map(|id| frame(&query(id))).collect();
    let (mut reader, mut writer) = stream.split();
    let write = async {
        // Pieces that fit no frame.
        for piece in all.chunks(1237) {
            writer.write_all(piece).await.unwrap();
        }
    };
    let read = async {
        for id in 0..10_000 {
            let mut message = vec![0; usize::from(reader.read_u16().await.unwrap())];
            reader.read_exact(&mut message).await.unwrap();
            assert_answers(&message, id);
        }
    };
    timeout(DEADLINE, async { tokio::join!(write, read) }).await.expect("all answers");
    assert_eq!(
        server.metric(r#"signpost_queries_total{rcode="REFUSED",transport="tcp",view="external",zone="none"}"#),
        10_000
    );
    server.stop().await;
}

#[tokio::test]
async fn a_frame_may_come_octet_by_octet_and_be_of_any_size() {
    let server = start_streams(PATIENT, Connections::new(10, 10));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for octet in frame(&query(1)) {
        stream.write_all(&[octet]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_answers(&read_answer(&mut stream).await, 1);
    let mut longest = query(2);
    longest.resize(65_535, 0);
    stream.write_all(&frame(&longest)).await.unwrap();
    assert_answers(&read_answer(&mut stream).await, 2);
    ask_tcp(&mut stream, 3).await;
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_query_ends_the_connection_after_the_answers_owed() {
    let server = start_streams(PATIENT, Connections::new(10, 10));
    for (count, nonsense) in (1..).zip([&[][..], &[0; 11], &[0x80; 40]]) {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let mut octets = frame(&query(1));
        octets.extend(frame(nonsense));
        octets.extend(frame(&query(2)));
        stream.write_all(&octets).await.unwrap();
        assert_answers(&read_answer(&mut stream).await, 1);
        assert_closed(&mut stream).await;
        drop(stream);
        server.until_closed_by(Closing::NoQuery, count).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_close_is_counted_by_whether_a_message_was_begun() {
    let server = start_streams(PATIENT, Connections::new(10, 10));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    ask_tcp(&mut stream, 1).await;
    drop(stream);
    server.until_closed_by(Closing::Peer, 1).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&frame(&query(1))[..9]).await.unwrap();
    drop(stream);
    server.until_closed_by(Closing::Broken, 1).await;
    server.stop().await;
}

#[tokio::test]
async fn the_first_message_has_its_time() {
    let server = start_streams(StreamTiming { first_message: SOON, ..PATIENT }, Connections::new(10, 10));
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(&frame(&query(1))[..9]).await.unwrap();
    assert_closed(&mut silent).await;
    assert_closed(&mut slow).await;
    server.until_closed_by(Closing::FirstMessage, 2).await;
    server.stop().await;
}

#[tokio::test]
async fn a_later_message_has_its_time() {
    let server = start_streams(StreamTiming { message: SOON, ..PATIENT }, Connections::new(10, 10));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    ask_tcp(&mut stream, 1).await;
    stream.write_all(&[0]).await.unwrap();
    assert_closed(&mut stream).await;
    server.until_closed_by(Closing::Message, 1).await;
    // Begun in the same segment as the last one's end.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let mut octets = frame(&query(1));
    octets.extend(&frame(&query(2))[..20]);
    stream.write_all(&octets).await.unwrap();
    assert_answers(&read_answer(&mut stream).await, 1);
    assert_closed(&mut stream).await;
    server.until_closed_by(Closing::Message, 2).await;
    server.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = start_streams(StreamTiming { idle: SOON, ..PATIENT }, Connections::new(10, 10));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    ask_tcp(&mut stream, 1).await;
    assert_closed(&mut stream).await;
    server.until_closed_by(Closing::Idle, 1).await;
    server.stop().await;
}

#[tokio::test]
async fn in_a_crowd_idle_connections_are_closed_sooner() {
    let server = start_streams(StreamTiming { idle_crowded: SOON, ..PATIENT }, Connections::new(10, 10));
    let mut streams = Vec::new();
    for id in 0..8 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        ask_tcp(&mut stream, id).await;
        streams.push(stream);
    }
    assert_eq!(server.connections.open(), 8);
    // The ninth makes those that wait already think again.
    streams.push(TcpStream::connect(server.address).await.unwrap());
    server.until("room", |s| s.connections.open() <= 6).await;
    assert!(server.metrics.streams().closed_by(Closing::Idle) >= 3);
    server.stop().await;
}

#[tokio::test]
async fn a_full_table_closes_the_longest_idle() {
    let server = start_streams(PATIENT, Connections::new(2, 10));
    let mut streams = Vec::new();
    for id in 0..2 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        ask_tcp(&mut stream, id).await;
        streams.push(stream);
    }
    ask_tcp(&mut streams[0], 3).await;
    // Octets that complete nothing do not make it less idle.
    streams[1].write_all(&[0]).await.unwrap();
    let mut third = TcpStream::connect(server.address).await.unwrap();
    ask_tcp(&mut third, 4).await;
    assert_closed(&mut streams[1]).await;
    ask_tcp(&mut streams[0], 5).await;
    server.until_closed_by(Closing::Evicted, 1).await;
    assert_eq!(server.metrics.streams().open(), 2);
    server.stop().await;
}

#[tokio::test]
async fn a_client_has_its_share_of_connections() {
    let server = start_streams(PATIENT, Connections::new(10, 2));
    let mut first = TcpStream::connect(server.address).await.unwrap();
    ask_tcp(&mut first, 1).await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    ask_tcp(&mut second, 2).await;
    let mut third = TcpStream::connect(server.address).await.unwrap();
    assert_closed(&mut third).await;
    ask_tcp(&mut first, 3).await;
    server.until_closed_by(Closing::ClientLimit, 1).await;
    server.stop().await;
}

#[tokio::test]
async fn on_internal_listeners_each_address_has_its_share() {
    let inside = ViewRule::Fixed(View::Internal(ClusterId(0)));
    let from = |local: &'static str, address| async move {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(local.parse().unwrap(), 0)).unwrap();
        socket.connect(address).await.unwrap()
    };
    for (view, admitted) in [(inside, true), (EXTERNAL, false)] {
        let bound = bound("127.0.0.1:0", view).with_timing(PATIENT);
        let server = serve(bound, Connections::new(10, 1), CancellationToken::new());
        let mut one = from("127.0.0.2", server.address).await;
        ask_tcp(&mut one, 1).await;
        let mut neighbour = from("127.0.0.3", server.address).await;
        if admitted {
            ask_tcp(&mut neighbour, 2).await;
        } else {
            assert_closed(&mut neighbour).await;
        }
        server.stop().await;
    }
    assert_eq!(StreamTiming::new(inside, &limits()).idle, Duration::from_secs(30));
    assert_eq!(StreamTiming::new(EXTERNAL, &limits()).idle, Duration::from_secs(10));
}

#[tokio::test]
async fn a_peer_that_never_reads_is_closed_and_others_do_not_wait() {
    let server = start_streams(StreamTiming { write: SOON, ..PATIENT }, Connections::new(10, 10));
    let socket = TcpSocket::new_v4().unwrap();
    // Small, so that the server's side fills up soon.
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(server.address).await.unwrap();
    let many: Vec<u8> = (0..1000).flat_map(|id| frame(&query(id))).collect();
    let flood = async { while deaf.write_all(&many).await.is_ok() {} };
    let mut other = TcpStream::connect(server.address).await.unwrap();
    let others = async {
        for id in 0..100 {
            ask_tcp(&mut other, id).await;
        }
    };
    timeout(DEADLINE, async { tokio::join!(flood, others) }).await.expect("the deaf one is closed");
    server.until_closed_by(Closing::Unread, 1).await;
    server.stop().await;
}

#[track_caller]
fn assert_bind_error(listener: SocketAddr, sentence: &str) {
    match bind(&Listener { address: listener, audience: EXTERNAL.into() }, &limits(), "listeners[0]") {
        Ok(_) => panic!("{listener} was bound"),
        Err(error) => assert_eq!(error.to_string(), sentence),
    }
}

#[test]
fn a_taken_port_is_told_and_never_shared() {
    let holder = bound("127.0.0.1:0", EXTERNAL);
    let address = holder.address();
    let sentence =
        |transport| format!("another process listens on {address}/{transport}; stop it or change listeners[0]");
    assert_bind_error(address, &sentence("udp"));
    let Bound { udp, tcp, .. } = holder;
    drop(udp);
    assert_bind_error(address, &sentence("tcp"));
    drop(tcp);
    let again = bind(&Listener { address, audience: EXTERNAL.into() }, &limits(), "listeners[0]").unwrap();
    assert_eq!(again.address(), address);
}

#[test]
fn bind_errors_say_what_to_do() {
    assert_bind_error(
        "192.0.2.1:5300".parse().unwrap(),
        "no network interface has the address 192.0.2.1; add it to one or change listeners[0]",
    );
    let error = |address: &str, errno| {
        BindError {
            address: address.parse().unwrap(),
            transport: Transport::Udp,
            key: "listeners[1]".to_owned(),
            source: io::Error::from_raw_os_error(errno),
        }
        .to_string()
    };
    assert_eq!(
        error("0.0.0.0:53", libc::EACCES),
        "no permission to listen on 0.0.0.0:53/udp: a port below 1024 needs CAP_NET_BIND_SERVICE; grant it or give \
         listeners[1] a port from 1024 on"
    );
    assert!(error("[::1]:5300", libc::EAFNOSUPPORT).starts_with("this host has no IPv6"));
    assert!(error("127.0.0.1:5300", libc::ENOMEM).contains("(listeners[1])"));
}
