//! The choice of the running server that a command talks to.

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Args;
use litplex::ConfigError;
use litplex_admin::{AskError, Client, RemoteOptions, Status};
use litplex_core::is_loopback;

/// The variable with the key for the admin API on a port.
const KEY_VARIABLE: &str = "LITPLEX_ADMIN_KEY";

/// The time after which a server that takes the place of another one is there.
const REPLACED: Duration = Duration::from_millis(300);

/// The server that a command talks to, and how it prints what it gets.
#[derive(Args)]
pub(crate) struct ServerArgs {
    /// The server of this user that listens on this port [default: the one that is running]
    #[arg(long)]
    port: Option<u16>,
    /// The server whose admin API has this address: `http://gpu7:9000` (`admin_port`), or
    /// `http://gpu7:8000/dashboard` (`admin_dashboard`)
    #[arg(long, conflicts_with = "port")]
    url: Option<String>,
    /// Key for --url, of `admin_keys` [default: `LITPLEX_ADMIN_KEY`, which other users cannot see]
    #[arg(long, requires = "url")]
    key: Option<String>,
    /// PEM file with the authority of the certificate of --url [default: the public authorities]
    #[arg(long, value_name = "FILE", requires = "url")]
    ca: Option<PathBuf>,
    /// PEM file with a certificate and its key, for a server with `tls_client_ca`
    #[arg(long, value_name = "FILE", requires = "url")]
    cert: Option<PathBuf>,
    /// Print JSON instead, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

impl ServerArgs {
    /// Returns the server.
    pub(crate) fn running(&self) -> anyhow::Result<Running> {
        match &self.url {
            Some(url) => self.remote(url),
            None => only(self.port),
        }
    }

    /// Returns a client of the server.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Ok(self.running()?.client)
    }

    /// Returns all servers that are meant; there is at least one.
    pub(crate) fn all(&self) -> anyhow::Result<Vec<Running>> {
        match &self.url {
            Some(url) => Ok(vec![self.remote(url)?]),
            None => all(self.port),
        }
    }

    fn remote(&self, url: &str) -> anyhow::Result<Running> {
        let (ca, certificate) = (self.ca.clone(), self.cert.clone());
        let key = self.key.clone().or_else(|| env::var(KEY_VARIABLE).ok());
        let options = RemoteOptions { key, ca, certificate };
        let client = Client::remote(url, &options).map_err(|error| ConfigError(vec![error]))?;
        match client.ps() {
            Ok(status) => Ok(Running { client, status }),
            Err(AskError::Gone) => Err(anyhow!(
                "no server answers at {url}; `admin_port` is the port of its admin API"
            )),
            Err(error @ AskError::Endpoints { .. }) => {
                Err(anyhow!("{error}; {}", elsewhere(url, &options)))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Says how the admin API of the server whose endpoints have this URL is reached.
fn elsewhere(url: &str, options: &RemoteOptions) -> String {
    let shared = format!("{}/dashboard", url.trim_end_matches('/'));
    let asked = Client::remote(&shared, options).map(|client| client.ps());
    if matches!(asked, Ok(Ok(_) | Err(AskError::Refused(_)))) {
        return format!("give `--url {shared}`");
    }
    match running_at(url) {
        Some(Status { admin_url: Some(admin), .. }) => format!("give `--url {admin}`"),
        Some(Status { port, .. }) => {
            format!("without `admin_port` it is on its socket alone: give `--port {port}`")
        }
        None => "give the address of its `admin_port`, if it has one".into(),
    }
}

/// Returns the server of this user whose endpoints have this URL.
fn running_at(url: &str) -> Option<Status> {
    let (host, port) = url.trim_end_matches('/').split_once("://")?.1.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let mut found = ask_all().0.into_iter().map(|server| server.status);
    found.find(|status| status.port == port && (is_loopback(host) || status.url.contains(host)))
}

/// A server that answers.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) client: Client,
    pub(crate) status: Status,
}

/// Returns the servers that run, or those on a port; there is at least one.
fn all(port: Option<u16>) -> anyhow::Result<Vec<Running>> {
    let (found, silent) = ask_all();
    // What another server does says nothing about the one on this port.
    let is_there = found.iter().any(|server| Some(server.status.port) == port);
    if !is_there {
        for error in &silent {
            let _ = writeln!(io::stderr(), "warning: {error}");
        }
        if found.is_empty() && !silent.is_empty() {
            bail!("no litplex server of this user answers; the warning says which runs");
        }
    }
    on_port(found, port)
}

/// Returns the server that runs, or the one on a port.
pub(crate) fn only(port: Option<u16>) -> anyhow::Result<Running> {
    only_of(all(port)?)
}

/// Returns the servers that answer, and why others do not.
fn ask_all() -> (Vec<Running>, Vec<AskError>) {
    let answers = ask_once();
    if !answers.0.is_empty() || litplex_admin::running().is_empty() {
        return answers;
    }
    // One may have been replaced at this moment: it has left, and the next one was not there before.
    sleep(REPLACED);
    ask_once()
}

fn ask_once() -> (Vec<Running>, Vec<AskError>) {
    let (mut found, mut silent) = (Vec::new(), Vec::new());
    for client in litplex_admin::running() {
        match client.ps() {
            Ok(status) => found.push(Running { client, status }),
            Err(AskError::Gone) => {}
            Err(error) => silent.push(error),
        }
    }
    (without_replaced(found), silent)
}

/// Returns the servers by port, without those that another one replaces at this moment: it has the same
/// address, and runs for a shorter time.
fn without_replaced(mut found: Vec<Running>) -> Vec<Running> {
    found.sort_by(|one, other| {
        let (one, other) = (&one.status, &other.status);
        one.port.cmp(&other.port).then(one.uptime.total_cmp(&other.uptime))
    });
    found.dedup_by(|later, first| later.status.url == first.status.url);
    found
}

fn on_port(found: Vec<Running>, port: Option<u16>) -> anyhow::Result<Vec<Running>> {
    if found.is_empty() {
        bail!("no litplex server of this user is running");
    }
    let Some(port) = port else { return Ok(found) };
    let (meant, others): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|server| server.status.port == port);
    if meant.is_empty() {
        bail!("no litplex server listens on port {port}; running are:{}", list(&others));
    }
    Ok(meant)
}

fn only_of(mut found: Vec<Running>) -> anyhow::Result<Running> {
    match found.pop() {
        Some(server) if found.is_empty() => Ok(server),
        last => {
            found.extend(last);
            bail!("{} servers run; choose one with --port:{}", found.len(), list(&found))
        }
    }
}

fn list(servers: &[Running]) -> String {
    let line =
        |Running { status, .. }: &Running| format!("\n  {} (pid {})", status.url, status.pid);
    servers.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn server(port: u16) -> Running {
        let url = format!("http://127.0.0.1:{port}");
        let status = Status {
            pid: 7,
            url,
            admin_url: None,
            gpus: Vec::new(),
            port,
            uptime: 0.0,
            memory: None,
            failed_reload: None,
            endpoints: Vec::new(),
        };
        Running { client: Client::of(Path::new("/run/7")), status }
    }

    #[test]
    fn a_port_chooses_among_servers() {
        let chosen = on_port(vec![server(8000), server(9000)], Some(9000)).unwrap();
        assert_eq!(only_of(chosen).unwrap().status.port, 9000);
        assert_eq!(on_port(vec![server(8000), server(9000)], None).unwrap().len(), 2);
        assert_eq!(only_of(vec![server(8000)]).unwrap().status.port, 8000);
    }

    #[test]
    fn a_server_that_is_being_replaced_is_not_chosen() {
        let with = |port, pid, uptime| {
            let Running { client, status } = server(port);
            Running { client, status: Status { pid, uptime, ..status } }
        };
        let found = vec![with(9000, 1, 5.0), with(8000, 2, 100.0), with(8000, 3, 0.5)];
        let pids = without_replaced(found).into_iter().map(|server| server.status.pid);
        assert_eq!(Vec::from_iter(pids), [3, 1]);
    }

    #[test]
    fn what_cannot_be_chosen_says_what_could() {
        let nothing = on_port(Vec::new(), Some(1)).unwrap_err().to_string();
        assert_eq!(nothing, "no litplex server of this user is running");
        let elsewhere = on_port(vec![server(8000)], Some(1)).unwrap_err().to_string();
        let says =
            "no litplex server listens on port 1; running are:\n  http://127.0.0.1:8000 (pid 7)";
        assert_eq!(elsewhere, says);
        let several = only_of(vec![server(1), server(2)]).unwrap_err().to_string();
        assert!(several.starts_with("2 servers run; choose one with --port:\n"), "{several}");
        assert!(several.contains("127.0.0.1:1 ") && several.contains("127.0.0.1:2 "), "{several}");
    }
}
