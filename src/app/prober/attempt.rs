//! One probe: a connection, and a question where the service has one. Whatever the other side does, it is over in time, and no more
//! than [`MOST_OCTETS`] of it are read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::{Method, Request, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use crate::health::Probe;
use crate::model::check::{Ask, How, Question};

/// Of an answer, head and body. A check is to be asked for something short.
const MOST_OCTETS: u64 = 4 << 10;
const AGENT: &str = concat!("signpost/", env!("CARGO_PKG_VERSION"));

/// Why a probe failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// No connection: refused, no route.
    Unreachable,
    /// Not over in time.
    Late,
    /// No agreement on how to encrypt.
    Tls,
    /// It ended the connection, or answered with something else than HTTP or gRPC.
    Garbled,
    /// More than [`MOST_OCTETS`].
    TooLong,
    /// Another status than was asked for, or not `SERVING`.
    Status,
}

impl Failure {
    pub const ALL: [Failure; 6] =
        [Failure::Unreachable, Failure::Late, Failure::Tls, Failure::Garbled, Failure::TooLong, Failure::Status];

    pub fn word(self) -> &'static str {
        match self {
            Failure::Unreachable => "unreachable",
            Failure::Late => "late",
            Failure::Tls => "tls",
            Failure::Garbled => "garbled",
            Failure::TooLong => "too_long",
            Failure::Status => "status",
        }
    }
}

/// What all probes need.
#[derive(Clone)]
pub struct Means {
    http: TlsConnector,
    grpc: TlsConnector,
}

impl Means {
    pub fn new() -> Means {
        let connector = |protocol: &[u8]| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = Arc::new(Anybody(provider.clone()));
            let mut config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("ring has all that TLS 1.2 and 1.3 need")
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth();
            config.alpn_protocols = vec![protocol.to_vec()];
            // Each probe is to go all the way, and nothing is kept of 50,000 servers.
            config.resumption = rustls::client::Resumption::disabled();
            TlsConnector::from(Arc::new(config))
        };
        Means { http: connector(b"http/1.1"), grpc: connector(b"h2") }
    }
}

/// Probes once.
pub async fn attempt(means: Means, probe: Probe, timeout: Duration) -> Result<(), Failure> {
    tokio::time::timeout(timeout, to_the_end(&means, &probe)).await.unwrap_or(Err(Failure::Late))
}

async fn to_the_end(means: &Means, probe: &Probe) -> Result<(), Failure> {
    let address = SocketAddr::new(probe.address, probe.port.get());
    let stream = TcpStream::connect(address).await.map_err(|_| Failure::Unreachable)?;
    // A reset leaves no connection behind that waits for its end, of which there would be hundreds of thousands.
    let _ = stream.set_zero_linger();
    match probe.check.as_ref().map(|check| &check.how) {
        None | Some(How::Connect | How::Nothing) => Ok(()),
        // By itself: tens of thousands of others need no room for what it needs.
        Some(How::Ask(ask)) => Box::pin(conversation(means, stream, address, ask)).await,
    }
}

async fn conversation(means: &Means, stream: TcpStream, address: SocketAddr, ask: &Ask) -> Result<(), Failure> {
    if !ask.tls {
        return answers(stream, address, ask).await;
    }
    let host = match &ask.host {
        Some(name) => ServerName::try_from(name.to_string()).map_err(|_| Failure::Tls)?,
        None => ServerName::from(address.ip()),
    };
    let connector = match ask.question {
        Question::Http { .. } => &means.http,
        Question::Grpc { .. } => &means.grpc,
    };
    let stream = connector.connect(host, stream).await.map_err(|_| Failure::Tls)?;
    answers(stream, address, ask).await
}

/// Asks, and judges the answer.
async fn answers<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    address: SocketAddr,
    ask: &Ask,
) -> Result<(), Failure> {
    let usual = if ask.tls { 443 } else { 80 };
    let host = match &ask.host {
        Some(name) => name.to_string(),
        None if address.is_ipv6() => format!("[{}]", address.ip()),
        None => address.ip().to_string(),
    };
    let authority = if address.port() == usual { host } else { format!("{host}:{}", address.port()) };
    let (reader, writer) = tokio::io::split(stream);
    let mut bounded = reader.take(MOST_OCTETS + 1);
    let outcome = {
        let stream = tokio::io::join(&mut bounded, writer);
        match &ask.question {
            Question::Http { path, status } => http(stream, &authority, path, *status).await,
            Question::Grpc { service } => grpc(stream, &authority, ask.tls, service).await,
        }
    };
    // To whoever reads, the answer ends where the bound is.
    if bounded.limit() == 0 { Err(Failure::TooLong) } else { outcome }
}

async fn http<S: AsyncRead + AsyncWrite + Send + Unpin>(
    stream: S,
    authority: &str,
    path: &str,
    (first, last): (u16, u16),
) -> Result<(), Failure> {
    let garbled = |_: hyper::Error| Failure::Garbled;
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(HOST, authority)
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| Failure::Garbled)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(garbled)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(garbled)?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame.map_err(garbled)?;
        }
        if (first..=last).contains(&status) { Ok(()) } else { Err(Failure::Status) }
    };
    over(connection, exchange).await
}

/// The exchange's outcome. Its connection may end before: what was read of it until then is still to be looked at.
async fn over<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        outcome = &mut exchange => outcome,
        _ = connection => exchange.await,
    }
}

/// gRPC over HTTP/2, and the health checking protocol in it: a message with the name, answered with one number.
async fn grpc<S: AsyncRead + AsyncWrite + Send + Unpin>(
    stream: S,
    authority: &str,
    tls: bool,
    service: &str,
) -> Result<(), Failure> {
    let garbled = |_: h2::Error| Failure::Garbled;
    let window = MOST_OCTETS as u32;
    let (sender, connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(window)
        .initial_connection_window_size(window)
        .max_header_list_size(window)
        .handshake(stream)
        .await
        .map_err(garbled)?;
    let uri = Uri::builder()
        .scheme(if tls { "https" } else { "http" })
        .authority(authority)
        .path_and_query("/grpc.health.v1.Health/Check")
        .build()
        .map_err(|_| Failure::Garbled)?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(uri)
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header(USER_AGENT, AGENT)
        .body(())
        .map_err(|_| Failure::Garbled)?;
    let exchange = async {
        let mut sender = sender.ready().await.map_err(garbled)?;
        let (response, mut sending) = sender.send_request(request, false).map_err(garbled)?;
        sending.send_data(check_request(service), true).map_err(garbled)?;
        let response = response.await.map_err(garbled)?;
        if response.status() != 200 {
            return Err(Failure::Status);
        }
        let status_of = |headers: &hyper::HeaderMap| headers.get("grpc-status").map(|status| status == "0");
        // A call that fails may have nothing but a head.
        if status_of(response.headers()) == Some(false) {
            return Err(Failure::Status);
        }
        let mut body = response.into_body();
        let mut octets = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.map_err(garbled)?;
            let _ = body.flow_control().release_capacity(data.len());
            octets.extend_from_slice(&data);
        }
        let trailers = body.trailers().await.map_err(garbled)?;
        match trailers.as_ref().and_then(status_of) {
            Some(true) if is_serving(&octets) => Ok(()),
            Some(_) => Err(Failure::Status),
            None => Err(Failure::Garbled),
        }
    };
    over(connection, exchange).await
}

/// The message `HealthCheckRequest`: field 1 is the service. Before it, as before each message of gRPC, whether it is compressed and
/// how long it is.
fn check_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    framed.into()
}

/// The message `HealthCheckResponse`: field 1 is the status, and 1 is `SERVING`. Nothing else is in it, in any version there is.
fn is_serving(framed: &[u8]) -> bool {
    *framed == [0, 0, 0, 0, 2, 1 << 3, 1]
}

/// Whoever it is: a probe shows nobody anything, and believes nothing but that somebody answers.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
