//! Clients that send nothing.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use litplex_http::{Layers, Server, bind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_no_request_comes_is_closed() {
    let listener = bind("127.0.0.1", 0).await.unwrap();
    let mut server =
        Server::new(listener, common::app().layered(Layers::default()), 1, 64).unwrap();
    let address = server.address().unwrap();
    tokio::spawn(async move { server.accept().await });
    for said in [&b""[..], b"PRI", b"GET /health HTTP/1.1\r\nHost"] {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(Duration::from_secs(90), client.read_to_end(&mut answer)).await;
        read.expect("it is closed").unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
}
