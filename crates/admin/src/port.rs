//! The admin API on a port of its own.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use litplex_tls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::guard::{AdminGuard, guarded};
use crate::operations::Admin;
use crate::routes::router;
use crate::socket::{Clients, HEADER_TIMEOUT, serve_client};

/// The admin API on a port of its own, for clients with a key.
#[derive(Debug)]
pub struct AdminPort {
    listener: TcpListener,
    guard: AdminGuard,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
}

impl AdminPort {
    /// Returns the port that admits the clients that `guard` does.
    ///
    /// # Errors
    /// The error of the system.
    pub fn new(listener: TcpListener, guard: AdminGuard) -> io::Result<Self> {
        let guard = guard.on_loopback(listener.local_addr()?.ip().is_loopback());
        Ok(Self { listener, guard, tls: None })
    }

    /// Serves HTTPS with the configuration of this channel.
    #[must_use]
    pub fn over(self, tls: Option<watch::Receiver<Arc<ServerConfig>>>) -> Self {
        Self { tls, ..self }
    }

    /// Returns the address.
    ///
    /// # Errors
    /// The error of the system.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Returns another descriptor of the socket, for a process that takes it over.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// Serves the admin API with `admin`, until dropped. When `left` resolves, another process accepts the
    /// connections to the port, and those that are open are served further.
    pub async fn serve(self, admin: Arc<dyn Admin>, left: impl Future<Output = ()>) {
        let Self { listener, guard, tls } = self;
        let router = router(admin).layer(from_fn_with_state(Arc::new(guard), guarded));
        let mut clients = Clients::new("the port of the admin API");
        let mut left = pin!(left);
        loop {
            tokio::select! {
                () = &mut left => break,
                client = clients.next(listener.accept()) => {
                    if let Some((client, _)) = client {
                        let config = tls.as_ref().map(|tls| http1_config(&tls.borrow()));
                        clients.spawn(serve_tcp(client, config, router.clone()));
                    }
                }
            }
        }
        drop(listener);
        clients.served().await;
    }
}

/// Returns the configuration for HTTP/1.1, which is all that the admin API speaks.
fn http1_config(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

async fn serve_tcp(client: TcpStream, tls: Option<Arc<ServerConfig>>, router: axum::Router) {
    let Some(config) = tls else { return serve_client(client, router).await };
    if let Some(client) = litplex_tls::accept(config, client, HEADER_TIMEOUT).await {
        serve_client(client, router).await;
    }
}

#[cfg(test)]
mod tests {
    use litplex_access::{Browsers, Keys, digest};
    use tokio::task::spawn_blocking;

    use super::*;
    use crate::mock::MockAdmin;
    use crate::{AskError, Client, Mode, RemoteOptions};

    fn keys(holder: &str, key: &str) -> watch::Receiver<Keys> {
        watch::channel(Keys::from_iter([(holder.to_owned(), digest(key))])).1
    }

    fn client(address: SocketAddr, key: Option<&str>) -> Client {
        let options = RemoteOptions { key: key.map(str::to_owned), ..RemoteOptions::default() };
        Client::remote(&format!("http://{address}"), &options).unwrap()
    }

    #[tokio::test]
    async fn a_client_needs_a_key_that_opens_what_it_asks_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let guard = AdminGuard::new(keys("ann", "a"), keys("bob", "b"), Browsers::default());
        let port = AdminPort::new(listener, guard).unwrap();
        let address = port.address().unwrap();
        let asked = spawn_blocking(move || {
            let refused = |answer: Result<(), AskError>| match answer {
                Err(AskError::Refused(reason)) => reason,
                other => panic!("{other:?}"),
            };
            let ps = |key| client(address, key).ps().map(drop);
            assert!(refused(ps(None)).starts_with("Not authenticated."));
            assert!(refused(ps(Some("c"))).starts_with("Invalid API Key."));
            ps(Some("a")).unwrap();
            ps(Some("b")).unwrap();
            let drain = |key| client(address, Some(key)).set_mode("/embed", Mode::Draining);
            assert_eq!(drain("a").unwrap().mode, Mode::Draining);
            let reason = refused(drain("b").map(drop));
            assert!(reason.starts_with("the key `bob` may only read"), "{reason}");
            let reason = refused(client(address, Some("b")).logs(&[("lines", "x")]).map(drop));
            assert!(reason.contains("invalid digit"), "{reason}");
        });
        tokio::select! {
            () = port.serve(Arc::new(MockAdmin::new(8000)), std::future::pending()) => unreachable!("it serves until dropped"),
            asked = asked => asked.unwrap(),
        }
    }

    #[test]
    fn an_address_is_checked_before_it_is_used() {
        let error = |url: &str, key: &str| {
            let options = RemoteOptions { key: Some(key.into()), ..RemoteOptions::default() };
            Client::remote(url, &options).unwrap_err()
        };
        for url in ["127.0.0.1:9000", "ftp://a", "http://", "http://a/?key=b", "http://u:p@a"] {
            assert!(error(url, "k").contains("expected `http://host:port`"), "{url}");
        }
        assert!(error("http://a", "k\n").starts_with("invalid key: "));
    }
}
