//! The response to clients if the app host gives none.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use litplex_access::Guard;
use litplex_http::{AppHost, AppHostSocket, Layers, Server, bind};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};

/// Returns the response to a client of a server with this app host.
async fn answer_with(app_host: PathBuf) -> String {
    ask(serve(app_host).await).await
}

/// Starts a server with this app host, and returns its address.
async fn serve(app_host: PathBuf) -> SocketAddr {
    let (direct, guard) = (HashSet::new(), Guard::default().into());
    let socket = AppHostSocket::new(app_host);
    let app_host = AppHost { socket, direct, answers_preflights: false, has_routes: false, guard };
    let app = common::app().behind(Some(app_host));
    let listener = bind("127.0.0.1", 0).await.unwrap();
    let mut server = Server::new(listener, app.layered(Layers::default()), 1, 64).unwrap();
    let address = server.address().unwrap();
    tokio::spawn(async move { server.accept().await });
    address
}

/// Returns the response to a request of a new client.
async fn ask(server: SocketAddr) -> String {
    let mut client = TcpStream::connect(server).await.unwrap();
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

/// Listens as an app host that responds with the number of the connection, to so many requests on each, and
/// then closes it.
fn counting_app_host(directory: &Path, requests: usize, framing: &'static str) -> PathBuf {
    let socket = directory.join("app.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        for number in 1.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                for _ in 0..requests {
                    if stream.read(&mut [0; 1024]).await.unwrap() == 0 {
                        return;
                    }
                    let head = format!("HTTP/1.1 200 OK\r\nx-connection: {number}\r\n");
                    stream.write_all(format!("{head}{framing}").as_bytes()).await.unwrap();
                }
            });
        }
    });
    socket
}

/// A body with a known length, one in chunks, and none.
const FRAMINGS: [&str; 3] = [
    "content-length: 2\r\n\r\nok",
    "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "content-length: 0\r\n\r\n",
];

/// Returns the connections on which this app host got three requests, one after the other.
async fn connections_of_three(app_host: PathBuf) -> Vec<String> {
    let server = serve(app_host).await;
    let mut connections = Vec::new();
    for _ in 0..3 {
        let answer = ask(server).await;
        let (_, rest) = answer.split_once("x-connection: ").expect("a response of the app host");
        connections.push(rest[..1].to_owned());
        // So long that the server learns whether the connection was closed.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    connections
}

#[tokio::test]
async fn a_connection_to_the_app_host_is_used_again_after_the_whole_response() {
    for framing in FRAMINGS {
        let directory = TempDir::new().unwrap();
        let app_host = counting_app_host(directory.path(), 9, framing);
        assert_eq!(connections_of_three(app_host).await, ["1", "1", "1"], "{framing}");
    }
}

#[tokio::test]
async fn a_connection_that_the_app_host_has_closed_is_not_used_again() {
    for framing in FRAMINGS {
        let directory = TempDir::new().unwrap();
        let app_host = counting_app_host(directory.path(), 1, framing);
        assert_eq!(connections_of_three(app_host).await, ["1", "2", "3"], "{framing}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_end_closes_the_connection_to_the_app_host() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("app.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = serve(socket).await;
    let asked = tokio::spawn(ask(server));
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = [0; 1024];
    assert!(stream.read(&mut request).await.unwrap() > 0);
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok").await.unwrap();
    asked.abort();
    let end = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut request));
    assert_eq!(end.await.expect("the connection is closed").unwrap(), 0);
}
