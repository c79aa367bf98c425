//! The sockets that a server gets from the process that starts it, and its connections to the servers that it
//! replaces and that keep it.
//!
//! Sockets come as systemd passes them to a service with a socket unit (`LISTEN_FDS`, `sd_listen_fds(3)`), so
//! that socket activation and an upgrade are the same to a server.

use std::env;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use listenfd::ListenFd;
use tokio::net::lookup_host;

use super::link::{KeeperLink, Message, gone, line};

/// The variable with the path of the predecessor's socket.
pub(super) const PREDECESSOR: &str = "LITPLEX_PREDECESSOR";

/// The variable with the path of the first process's socket.
pub(super) const KEEPER: &str = "LITPLEX_KEEPER";

/// The names of the socket for clients of endpoints and of that of the admin API, as a successor gets them. All names
/// that are not those of the admin API are for clients of endpoints.
const HTTP: &str = "http";
const ADMIN: &str = "admin";

/// The same where a service manager chose the address.
const CHOSEN_HTTP: &str = "http.chosen";
const CHOSEN_ADMIN: &str = "admin.chosen";

/// The sockets and connections that this process got from the one that started it. The default is none.
#[derive(Debug, Default)]
pub struct Inherited {
    pub(crate) sockets: Sockets,
    pub(crate) predecessor: Option<Predecessor>,
    pub(crate) keeper: Option<KeeperLink>,
}

impl Inherited {
    /// Takes the sockets that the environment names, and connects to the predecessor, if there is one. To be
    /// called early, before threads and other processes are started.
    pub fn from_env() -> Self {
        let sockets = Sockets::from_env();
        let predecessor = env::var_os(PREDECESSOR).and_then(|path| UnixStream::connect(path).ok());
        let predecessor = predecessor.map(|stream| Predecessor(Arc::new(stream)));
        let keeper = predecessor.as_ref().and_then(|_| env::var_os(KEEPER));
        let keeper = keeper.and_then(|path| KeeperLink::connect(path.into()).ok());
        Self { sockets, predecessor, keeper }
    }

    /// Returns the server that this one replaces.
    pub fn predecessor(&self) -> Option<Predecessor> {
        self.predecessor.clone()
    }
}

/// The server that this one replaces, as long as this one starts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Predecessor(Arc<UnixStream>);

impl Predecessor {
    /// Tells the predecessor why this server does not start; the first reason counts.
    pub fn failed(&self, reason: &str) {
        self.tell(&Message::Failed { reason: reason.to_owned() });
    }

    /// Tells the predecessor that this server serves.
    pub(crate) fn ready(&self) {
        self.tell(&Message::Ready { version: env!("CARGO_PKG_VERSION").into() });
    }

    fn tell(&self, message: &Message) {
        // A predecessor that is gone is noticed elsewhere.
        let _ = (&*self.0).write_all(line(message).as_bytes());
    }

    /// Resolves when the predecessor is gone.
    pub(crate) async fn gone(&self) {
        gone(&self.0).await;
    }
}

/// The sockets to listen on that a process was given.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    listeners: Vec<(String, TcpListener)>,
    /// The errors of those that are no TCP sockets.
    pub(crate) errors: Vec<String>,
}

impl Sockets {
    fn from_env() -> Self {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut given = ListenFd::from_env();
        let (mut listeners, mut errors) = (Vec::new(), Vec::new());
        for number in 0..given.len() {
            let name = names.next().unwrap_or_default();
            match given.take_tcp_listener(number) {
                Ok(listener) => listeners.extend(listener.map(|it| (name.to_owned(), it))),
                Err(error) => errors.push(format!(
                    "invalid socket `{name}` in LISTEN_FDS: expected a TCP socket that listens: {error}"
                )),
            }
        }
        Self { listeners, errors }
    }

    /// Takes the socket for clients of endpoints, or that of the admin API.
    pub(crate) fn take(&mut self, is_admin: bool) -> io::Result<Option<TakenSocket>> {
        let is_of_admin = |name: &str| [ADMIN, CHOSEN_ADMIN].contains(&name);
        let at = self.listeners.iter().position(|(name, _)| is_of_admin(name) == is_admin);
        let Some(at) = at else { return Ok(None) };
        let (name, listener) = self.listeners.remove(at);
        // systemd passes blocking sockets.
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        Ok(Some(TakenSocket { listener, is_chosen: [CHOSEN_HTTP, CHOSEN_ADMIN].contains(&&*name) }))
    }
}

/// A socket that a process was given.
#[derive(Debug)]
pub(crate) struct TakenSocket {
    pub(crate) listener: tokio::net::TcpListener,
    /// Whether the predecessor had it from a service manager, which chose its address.
    pub(crate) is_chosen: bool,
}

/// Returns the name under which a successor gets a socket. It keeps one whose address a service manager chose, whatever
/// the address of its configuration.
pub(crate) fn socket_name(is_admin: bool, is_chosen: bool) -> &'static str {
    match (is_admin, is_chosen) {
        (false, false) => HTTP,
        (false, true) => CHOSEN_HTTP,
        (true, false) => ADMIN,
        (true, true) => CHOSEN_ADMIN,
    }
}

/// Returns whether a socket listens at this address; any free port is that of the socket.
pub(crate) async fn is_at(listener: &tokio::net::TcpListener, host: &str, port: u16) -> bool {
    let Ok(address) = listener.local_addr() else { return false };
    let Ok(mut wanted) = lookup_host((host, port)).await else { return false };
    (port == 0 || port == address.port()) && wanted.any(|wanted| wanted.ip() == address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    #[tokio::test]
    async fn the_socket_of_the_admin_api_is_the_one_of_that_name() {
        let (http, admin) = (listener(), listener());
        let ports = [&http, &admin].map(|it| it.local_addr().unwrap().port());
        let listeners = vec![("admin".into(), admin), ("litplex.socket".into(), http)];
        let mut sockets = Sockets { listeners, errors: Vec::new() };
        let mut port = |is_admin| {
            let taken = sockets.take(is_admin).unwrap();
            taken.map(|it| (it.listener.local_addr().unwrap().port(), it.is_chosen))
        };
        assert_eq!([port(false), port(true)], ports.map(|port| Some((port, false))));
        assert_eq!([port(false), port(true)], [None, None]);
    }

    #[tokio::test]
    async fn a_successor_learns_whose_choice_the_address_of_a_socket_was() {
        for (is_admin, is_chosen) in [(false, false), (false, true), (true, false), (true, true)] {
            let listeners = vec![(socket_name(is_admin, is_chosen).into(), listener())];
            let mut sockets = Sockets { listeners, errors: Vec::new() };
            assert!(sockets.take(!is_admin).unwrap().is_none());
            assert_eq!(sockets.take(is_admin).unwrap().unwrap().is_chosen, is_chosen);
        }
    }

    #[tokio::test]
    async fn a_free_port_is_that_of_the_socket_and_another_address_is_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_at(&listener, "127.0.0.1", 0).await);
        assert!(is_at(&listener, "localhost", port).await);
        assert!(!is_at(&listener, "127.0.0.1", port ^ 1).await);
        assert!(!is_at(&listener, "0.0.0.0", port).await);
    }
}
