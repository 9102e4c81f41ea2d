use std::num::NonZeroU16;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::model::check::Check;
use crate::model::{Port, Protocol};

/// For what comes to an end by itself.
const LONG: Duration = Duration::from_secs(60);
/// For what does not.
const SHORT: Duration = Duration::from_millis(300);

/// What a server does with a connection.
trait Serve: Send + Sync + 'static {
    fn serve(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin) -> impl Future<Output = ()> + Send;
}

/// Starts a server that goes on until the test ends, and gives its address.
async fn serve(server: impl Serve) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            server.serve(stream).await;
        }
    });
    address
}

/// Probes an address in the way that an annotation asks for.
async fn probe(address: SocketAddr, check: &str, timeout: Duration) -> Result<(), Failure> {
    let number = NonZeroU16::new(address.port()).unwrap();
    let ports = [Port { name: None, protocol: Protocol::Tcp, number }];
    let check = Some(Arc::new(Check::parse(check, &ports).unwrap()));
    attempt(Means::new(), Probe { address: address.ip(), port: number, check }, timeout).await
}

/// Reads a request, and gives it up to the empty line.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut octets = Vec::new();
    while !octets.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(octet) => octets.push(octet),
            Err(_) => break,
        }
    }
    String::from_utf8(octets).unwrap()
}

/// Answers each request with a head, and then with the same piece again and again.
struct Http {
    head: &'static str,
    piece: Vec<u8>,
    pieces: usize,
    /// Between the pieces.
    pause: Duration,
    /// The requests are told.
    requests: tokio::sync::mpsc::UnboundedSender<String>,
}

impl Http {
    fn new(head: &'static str, piece: &[u8], pieces: usize, pause: Duration) -> Http {
        let (requests, _) = tokio::sync::mpsc::unbounded_channel();
        Http { head, piece: piece.to_vec(), pieces, pause, requests }
    }
}

impl Serve for Http {
    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Send + Unpin) {
        let _ = self.requests.send(request(&mut stream).await);
        let mut good = stream.write_all(self.head.as_bytes()).await.is_ok() && stream.flush().await.is_ok();
        for _ in 0..self.pieces {
            if !good {
                return;
            }
            tokio::time::sleep(self.pause).await;
            good = stream.write_all(&self.piece).await.is_ok() && stream.flush().await.is_ok();
        }
        let _ = stream.shutdown().await;
    }
}

/// Behind a certificate that nobody signed.
struct Secure<T>(TlsAcceptor, T);

impl<T> Secure<T> {
    fn new(protocol: &[u8], inner: T) -> Secure<T> {
        let certified = rcgen::generate_simple_self_signed(["somebody.example".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        Secure(TlsAcceptor::from(Arc::new(config)), inner)
    }
}

impl<T: Serve> Serve for Secure<T> {
    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin) {
        let Ok(stream) = self.0.accept(stream).await else { return };
        self.1.serve(stream).await;
    }
}

/// A server of the health checking protocol, for as many services as it says something of.
#[derive(Clone)]
struct Grpc {
    /// The status of each service; of others, it knows nothing.
    services: Vec<(&'static str, u8)>,
}

impl Serve for Grpc {
    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin) {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let called = (request.method().clone(), request.uri().path().to_owned());
            assert_eq!(called, (Method::POST, "/grpc.health.v1.Health/Check".to_owned()));
            assert_eq!(request.headers()["content-type"], "application/grpc");
            let services = self.services.clone();
            // The connection goes on while the request is read.
            tokio::spawn(async move {
                let mut body = request.into_body();
                let mut octets = Vec::new();
                while let Some(Ok(data)) = body.data().await {
                    octets.extend_from_slice(&data);
                }
                let name = octets.get(7..).map(|name| String::from_utf8(name.to_vec()).unwrap()).unwrap_or_default();
                assert_eq!(octets[..5], [0, 0, 0, 0, octets.len() as u8 - 5]);
                assert!(name.is_empty() || octets[5..7] == [0x0A, name.len() as u8]);
                let head = hyper::Response::builder().header("content-type", "application/grpc");
                match services.iter().find(|(known, _)| *known == name) {
                    Some((_, status)) => {
                        let mut sending = respond.send_response(head.body(()).unwrap(), false).unwrap();
                        sending.send_data(vec![0, 0, 0, 0, 2, 8, *status].into(), false).unwrap();
                        let mut trailers = hyper::HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        sending.send_trailers(trailers).unwrap();
                    }
                    None => {
                        respond.send_response(head.header("grpc-status", "5").body(()).unwrap(), true).unwrap();
                    }
                }
            });
        }
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn once(head: &'static str) -> Http {
    Http::new(head, b"", 0, Duration::ZERO)
}

#[tokio::test]
async fn connections() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(probe(address, "tcp", LONG).await, Ok(()));
    drop(listener);
    assert_eq!(probe(address, "tcp", LONG).await, Err(Failure::Unreachable));
    assert_eq!(probe(address, "http", LONG).await, Err(Failure::Unreachable));
}

#[tokio::test]
async fn a_connection_needs_little_room() {
    let probe = Probe { address: "127.0.0.1".parse().unwrap(), port: NonZeroU16::MIN, check: None };
    let octets = size_of_val(&attempt(Means::new(), probe, LONG));
    assert!(octets < 1_024, "{octets} for each of tens of thousands");
}

#[tokio::test]
async fn http_by_status() {
    for (head, check, outcome) in [
        (OK, "http", Ok(())),
        ("HTTP/1.1 204 No Content\r\n\r\n", "http", Ok(())),
        ("HTTP/1.0 200 OK\r\n\r\nuntil the end", "http", Ok(())),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "http", Ok(())),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "http", Ok(())),
        (OK, "http status=204", Err(Failure::Status)),
        ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "http", Err(Failure::Status)),
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "http status=401", Ok(())),
        // Nobody goes where it leads.
        ("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "http", Err(Failure::Status)),
        ("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "http status=200-399", Ok(())),
        ("", "http", Err(Failure::Garbled)),
        ("SSH-2.0-OpenSSH_9.2\r\n", "http", Err(Failure::Garbled)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", "http", Err(Failure::Garbled)),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "http", Err(Failure::Garbled)),
    ] {
        let address = serve(once(head)).await;
        assert_eq!(probe(address, check, LONG).await, outcome, "{check}: {head}");
    }
}

#[tokio::test]
async fn what_http_is_asked() {
    let (requests, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let address = serve(Http { requests, ..once(OK) }).await;
    assert_eq!(probe(address, "http path=/live?deep=1", LONG).await, Ok(()));
    let request = heard.recv().await.unwrap();
    assert!(request.starts_with("GET /live?deep=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("host: {address}\r\n")), "{request}");
    assert!(request.contains("user-agent: signpost/"), "{request}");
    assert_eq!(probe(address, "http host=shop.example.com", LONG).await, Ok(()));
    let request = heard.recv().await.unwrap();
    assert!(request.contains(&format!("host: shop.example.com:{}\r\n", address.port())), "{request}");
}

#[tokio::test]
async fn answers_that_do_not_end() {
    let never = usize::MAX;
    let some = vec![b'x'; 1_000];
    let chunk = [b"3e8\r\n".as_slice(), &some, b"\r\n"].concat();
    let header = b"X-More: and more\r\n".to_vec();
    for (head, piece) in [
        ("HTTP/1.1 200 OK\r\n\r\n", &some),
        ("HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n", &some),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &chunk),
        ("HTTP/1.1 200 OK\r\n", &header),
        ("HTTP/1.1 ", &some),
        ("", &b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
    ] {
        let address = serve(Http::new(head, piece, never, Duration::ZERO)).await;
        // Long before the time is up; some of them are no HTTP before they are too long.
        let outcome = probe(address, "http", LONG).await;
        assert!(matches!(outcome, Err(Failure::TooLong | Failure::Garbled)), "{head}: {outcome:?}");
    }
    for (head, piece) in [("HTTP/1.1 200 OK\r\n\r\n", b"x".as_slice()), ("HTTP/1.1 200 OK\r\n", b"x"), ("", b"H")] {
        let address = serve(Http::new(head, piece, never, Duration::from_secs(60))).await;
        assert_eq!(probe(address, "http", SHORT).await, Err(Failure::Late), "{head}");
    }
    let long = "x".repeat(MOST_OCTETS as usize);
    let address = serve(Http::new("HTTP/1.1 200 OK\r\n\r\n", long.as_bytes(), 1, Duration::ZERO)).await;
    assert_eq!(probe(address, "http", LONG).await, Err(Failure::TooLong), "with its head, it is longer");
    let address = serve(Http::new("HTTP/1.1 200 OK\r\n\r\n", &long.as_bytes()[..4_000], 1, Duration::ZERO)).await;
    assert_eq!(probe(address, "http", LONG).await, Ok(()));
}

#[tokio::test]
async fn https() {
    let address = serve(Secure::new(b"http/1.1", once(OK))).await;
    assert_eq!(probe(address, "https", LONG).await, Ok(()));
    assert_eq!(probe(address, "https host=another.example", LONG).await, Ok(()), "whoever's certificate it is");
    assert_eq!(probe(address, "https status=500", LONG).await, Err(Failure::Status));
    assert!(probe(address, "http", LONG).await.is_err(), "it speaks TLS only");
    let plain = serve(Grpc { services: Vec::new() }).await;
    assert_eq!(probe(plain, "https", LONG).await, Err(Failure::Tls));
    let silent = serve(Http::new("", b"", 1, Duration::from_secs(600))).await;
    assert_eq!(probe(silent, "https", SHORT).await, Err(Failure::Late));
    let endless = Http::new("HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 1_000], usize::MAX, Duration::ZERO);
    let endless = serve(Secure::new(b"http/1.1", endless)).await;
    assert_eq!(probe(endless, "https", LONG).await, Err(Failure::TooLong));
}

#[tokio::test]
async fn grpc_by_what_it_says_of_a_service() {
    let grpc = Grpc { services: vec![("", 1), ("shop.v1.Cart", 2), ("shop.v1.Search", 1)] };
    let (plain, secure) = (serve(grpc.clone()).await, serve(Secure::new(b"h2", grpc)).await);
    for (check, outcome) in [
        ("", Ok(())),
        (" service=shop.v1.Search", Ok(())),
        (" service=shop.v1.Search host=shop.example.com", Ok(())),
        (" service=shop.v1.Cart", Err(Failure::Status)),
        (" service=shop.v1.Nobody", Err(Failure::Status)),
    ] {
        assert_eq!(probe(plain, &format!("grpc{check}"), LONG).await, outcome, "{check}");
        assert_eq!(probe(secure, &format!("grpcs{check}"), LONG).await, outcome, "{check}");
    }
    assert_eq!(probe(plain, "grpcs", LONG).await, Err(Failure::Tls));
    // Whoever speaks something else.
    let http = serve(once(OK)).await;
    assert_eq!(probe(http, "grpc", LONG).await, Err(Failure::Garbled));
    let endless = serve(Http::new("HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 1_000], usize::MAX, Duration::ZERO)).await;
    assert!(matches!(probe(endless, "grpc", LONG).await, Err(Failure::TooLong | Failure::Garbled)));
    let silent = serve(Http::new("", b"", 1, Duration::from_secs(600))).await;
    assert_eq!(probe(silent, "grpc", SHORT).await, Err(Failure::Late));
}
