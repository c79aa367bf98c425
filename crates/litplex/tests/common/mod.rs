//! A server of Rust models for tests.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use litplex::{Error, RunServers};

/// Serves on a free port for as long as the test lives.
pub(crate) struct Served {
    pub(crate) port: u16,
    server: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Served {
    pub(crate) async fn start(servers: RunServers) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = tokio::spawn(servers.port(port).into_future());
        let served = Self { port, server };
        while served.get("/health").await.0 != 200 {
            assert!(!served.server.is_finished(), "{:?}", served.server.await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        served
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        self.request(format!("GET {path} HTTP/1.1\r\n\r\n")).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> (u16, String) {
        let length = body.len();
        self.request(format!("POST {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}"))
            .await
    }

    /// Sends a request and returns the status and all that follows it.
    pub(crate) async fn request(&self, request: String) -> (u16, String) {
        let port = self.port;
        let exchange = move || {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            let request = request.replacen("\r\n", "\r\nHost: a\r\nConnection: close\r\n", 1);
            stream.write_all(request.as_bytes())?;
            let mut response = String::new();
            stream.read_to_string(&mut response)?;
            Ok::<_, std::io::Error>(response)
        };
        let response = tokio::task::spawn_blocking(exchange).await.unwrap().unwrap_or_default();
        let status = response.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or(0), response)
    }
}
