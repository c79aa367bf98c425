//! The response to clients if the app host gives none.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use litplex_access::Guard;
use litplex_http::{AppHost, Layers, Server, bind};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};

/// Returns the response to a client of a server with this app host.
async fn answer_with(app_host: PathBuf) -> String {
    let (direct, guard) = (HashSet::new(), Guard::default().into());
    let app_host =
        AppHost { socket: app_host, direct, answers_preflights: false, has_routes: false, guard };
    let app = common::app().behind(Some(app_host));
    let listener = bind("127.0.0.1", 0).await.unwrap();
    let mut server = Server::new(listener, app.layered(Layers::default()), 1, 64).unwrap();
    let mut client = TcpStream::connect(server.address().unwrap()).await.unwrap();
    tokio::spawn(async move { server.accept().await });
    let request = b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Listens as an app host that responds with this to any request.
fn app_host(directory: &Path, answer: &'static [u8]) -> PathBuf {
    let socket = directory.join("app.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
        stream.write_all(answer).await.unwrap();
    });
    socket
}

#[tokio::test]
async fn an_app_host_that_is_not_there_is_worth_a_retry() {
    let directory = TempDir::new().unwrap();
    let answer = answer_with(directory.path().join("missing.sock")).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
}

#[tokio::test]
async fn an_app_host_that_sends_nothing_or_garbage_is_a_bad_gateway() {
    for garbage in [&b""[..], b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nx"] {
        let directory = TempDir::new().unwrap();
        let answer = answer_with(app_host(directory.path(), garbage)).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    }
}

#[tokio::test]
async fn an_answer_is_passed_on_without_what_was_said_between_the_two() {
    let directory = TempDir::new().unwrap();
    let said = b"HTTP/1.1 201 Created\r\nx-a: 1\r\nkeep-alive: 5\r\ncontent-length: 2\r\n\r\nok";
    let answer = answer_with(app_host(directory.path(), said)).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(answer.contains("x-a: 1\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
    assert!(!answer.contains("keep-alive"), "{answer}");
}
