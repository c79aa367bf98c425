//! Tests of the model and of its server, which runs on a free port for as long as a test.

use std::time::Duration;

use litplex::{Batch, LitApi, Outcome};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use words::{Counter, Text, Words, server};

#[test]
fn the_model_counts_words() {
    let text = Text { text: "a fine day".into() };
    let outcomes: Vec<Outcome<Words>> = Counter.predict(Batch::from(vec![text])).unwrap();
    assert_eq!(outcomes[0], Ok(Words { words: 3 }));
}

#[tokio::test]
async fn a_text_is_answered() {
    let port = serve().await;
    assert_eq!(post(port, json!({"text": "a fine day"})).await, (200, json!({"words": 3})));
}

#[tokio::test]
async fn a_request_without_a_word_is_refused() {
    let port = serve().await;
    for body in [json!({"text": ""}), json!({"word": "a"})] {
        let (status, response) = post(port, body).await;
        assert_eq!(status, 422);
        assert!(response["detail"].as_str().unwrap().contains("text"));
    }
}

/// Starts the server, which ends with the test, and returns its port once it can be called.
async fn serve() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    tokio::spawn(server().port(port).into_future());
    while request(port, "GET /readyz", "").await.is_none_or(|(status, _)| status != 200) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    port
}

async fn post(port: u16, body: Value) -> (u16, Value) {
    let (status, body) = request(port, "POST /words", &body.to_string()).await.unwrap();
    (status, serde_json::from_str(&body).unwrap())
}

/// Sends a request, and returns the status and the body of its response; `None` without a connection.
async fn request(port: u16, line: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\
         Content-Type: application/json\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await.ok()?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
