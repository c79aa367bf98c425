//! Notifies the process that started the server of its state: systemd (`Type=notify`), or `litplex.start` in
//! Python.
//!
//! The protocol is that of `sd_notify(3)`: datagrams of `NAME=value` lines to the Unix socket that
//! `NOTIFY_SOCKET` names. Nothing waits for a receiver, and none is needed.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The environment variable that names the receiver's socket.
const SOCKET: &str = "NOTIFY_SOCKET";

/// A sender of the states of this server.
#[derive(Debug)]
pub(crate) struct Notifier(Option<UnixDatagram>);

impl Notifier {
    /// Connects to the receiver that the environment names; without one, nothing is sent.
    pub(crate) fn from_env() -> Self {
        let Some(name) = env::var_os(SOCKET).filter(|name| !name.is_empty()) else {
            return Self(None);
        };
        let connected = connect(&name);
        if let Err(error) = &connected {
            tracing::warn!("cannot notify `{}` of {SOCKET}: {error}", name.display());
        }
        Self(connected.ok())
    }

    /// Sends that the socket listens, with the URL for clients.
    pub(crate) fn listening(&self, url: &str) {
        self.send(&format!("STATUS=listening on {url}\nX_LITPLEX_URL={url}"));
    }

    /// Sends that every endpoint serves.
    pub(crate) fn ready(&self) {
        self.send("READY=1\nSTATUS=all endpoints serve");
    }

    /// Sends that another process serves. This one stays the main process of its service.
    pub(crate) fn replaced_by(&self, pid: u32) {
        self.send(&format!("STATUS=process {pid} serves, after an upgrade"));
    }

    /// Sends that the server takes no new request.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, state: &str) {
        if let Some(socket) = &self.0
            && let Err(error) = socket.send(state.as_bytes())
        {
            tracing::debug!("cannot notify: {error}");
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address(name)?)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Returns the address of a path, or of an abstract name, which begins with `@`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn states_are_sent_as_systemd_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier(Some(connect(path.as_os_str()).unwrap()));
        notifier.listening("http://127.0.0.1:8000");
        notifier.ready();
        notifier.stopping();
        let listening = received(&receiver);
        assert!(listening.lines().any(|line| line == "X_LITPLEX_URL=http://127.0.0.1:8000"));
        assert!(received(&receiver).lines().any(|line| line == "READY=1"));
        assert_eq!(received(&receiver), "STOPPING=1");
    }

    #[test]
    fn an_abstract_name_begins_with_an_at() {
        let name = format!("litplex-test-{}", std::process::id());
        let receiver =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Notifier(Some(connect(OsStr::new(&format!("@{name}"))).unwrap())).stopping();
        assert_eq!(received(&receiver), "STOPPING=1");
    }

    #[test]
    fn a_receiver_that_is_gone_costs_nothing() {
        assert!(connect(OsStr::new("/nonexistent/notify")).is_err());
        Notifier(None).ready();
    }
}
