//! Handshakes over real sockets.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use litplex_http::{Layers, Server, bind};
use litplex_tls::{Pem, Tls, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// An authority that signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// Returns a certificate and its key.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn files(&self, client_ca: Option<&Self>) -> TlsFiles {
        let (cert, key) = self.issue();
        let client_ca = client_ca.map(|authority| Pem::Text(authority.pem()));
        TlsFiles { cert: Pem::Text(cert), key: Pem::Text(key), client_ca }
    }
}

async fn serve(tls: Tls) -> SocketAddr {
    let listener = bind("127.0.0.1", 0).await.unwrap();
    let mut server = Server::new(listener, common::app().layered(Layers::default()), 1, 64)
        .unwrap()
        .over(Some(&tls));
    let address = server.address().unwrap();
    tokio::spawn(async move { tokio::join!(server.accept(), tls.follow()) });
    address
}

/// A client that trusts one authority.
struct Client {
    trusts: String,
    has: Option<(String, String)>,
    speaks: Vec<Vec<u8>>,
}

impl Client {
    fn of(authority: &Authority) -> Self {
        Self { trusts: authority.pem(), has: None, speaks: Vec::new() }
    }

    fn with(self, pair: (String, String)) -> Self {
        Self { has: Some(pair), ..self }
    }

    fn speaking(self, protocols: &[&str]) -> Self {
        let speaks = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self { speaks, ..self }
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.trusts.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.has {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols.clone_from(&self.speaks);
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Returns the response on a connection of its own.
    async fn get_health(&self, address: SocketAddr) -> io::Result<String> {
        get_health(&mut self.connect(address).await?).await
    }
}

/// Returns the head of a response, and its body as far as it goes.
async fn get_health(stream: &mut TlsStream<TcpStream>) -> io::Result<String> {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await?;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await?;
    answer.truncate(length);
    Ok(String::from_utf8(answer).unwrap())
}

async fn read_to_end(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

#[tokio::test]
async fn clients_choose_the_protocol() {
    let authority = Authority::new("ours");
    let address = serve(Tls::load(authority.files(None)).unwrap()).await;
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let client = Client::of(&authority).speaking(offered);
        let stream = client.connect(address).await.unwrap();
        let agreed = stream.get_ref().1.alpn_protocol();
        assert_eq!(agreed, chosen.map(str::as_bytes), "{offered:?}");
    }
    let answer = Client::of(&authority).get_health(address).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    assert!(Client::of(&authority).speaking(&["spdy"]).connect(address).await.is_err());
}

#[tokio::test]
async fn only_clients_with_a_certificate_are_served_where_they_need_one() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let address = serve(Tls::load(ours.files(Some(&theirs))).unwrap()).await;
    let client = || Client::of(&ours);
    let answer = client().with(theirs.issue()).get_health(address).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for (who, wrong) in [
        ("no certificate", client()),
        ("that of another", client().with(Authority::new("others").issue())),
        ("one by the same name", client().with(Authority::new("theirs").issue())),
    ] {
        // Clients notice it when they read.
        assert!(wrong.get_health(address).await.is_err(), "{who}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_holds_nobody_up_and_is_given_up() {
    let authority = Authority::new("ours");
    let address = serve(Tls::load(authority.files(None)).unwrap()).await;
    let silent = TcpStream::connect(address).await.unwrap();
    let answer = Client::of(&authority).get_health(address).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(read_to_end(silent).await, b"");
}

#[tokio::test]
async fn a_connection_without_tls_gets_no_response() {
    let authority = Authority::new("ours");
    let address = serve(Tls::load(authority.files(None)).unwrap()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let said = read_to_end(stream).await;
    // At most an alert, which is not HTTP.
    assert!(said.len() < 10 && !said.starts_with(b"HTTP"), "{said:?}");
}

/// Writes a pair as tools that renew certificates do.
fn write(directory: &Path, (cert, key): &(String, String)) {
    for (name, text) in [("cert.pem", cert), ("key.pem", key)] {
        let new = directory.join("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, directory.join(name)).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn new_connections_get_the_new_certificate_and_old_ones_stay() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let directory = TempDir::new().unwrap();
    write(directory.path(), &before.issue());
    let file = |name| Pem::File(directory.path().join(name));
    let files = TlsFiles { cert: file("cert.pem"), key: file("key.pem"), client_ca: None };
    let address = serve(Tls::load(files).unwrap()).await;
    let mut open = Client::of(&before).connect(address).await.unwrap();
    assert!(get_health(&mut open).await.unwrap().starts_with("HTTP/1.1 200"));

    // An invalid pair changes nothing.
    fs::write(directory.path().join("cert.pem"), "not PEM").unwrap();
    sleep(Duration::from_secs(10)).await;
    assert!(Client::of(&before).connect(address).await.is_ok());

    write(directory.path(), &after.issue());
    sleep(Duration::from_secs(10)).await;
    assert!(Client::of(&before).connect(address).await.is_err());
    let answer = Client::of(&after).get_health(address).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(get_health(&mut open).await.unwrap().starts_with("HTTP/1.1 200"));
}

#[test]
fn a_key_that_does_not_fit_is_named() {
    let authority = Authority::new("ours");
    let ((cert, _), (_, key)) = (authority.issue(), authority.issue());
    let files = TlsFiles { cert: Pem::Text(cert), key: Pem::Text(key), client_ca: None };
    let mistakes = Tls::load(files).unwrap_err().join("\n");
    assert!(mistakes.starts_with("`tls_key`: the text that was given is not the key of"));
    // The chain in the wrong order.
    let (cert, key) = authority.issue();
    let cert = Pem::Text(authority.pem() + &cert);
    let files = TlsFiles { cert, key: Pem::Text(key), client_ca: None };
    assert!(Tls::load(files).unwrap_err()[0].contains("put the server's own certificate first"));
}
