//! Announces the states of a server: in the log and the events, to the process that started it,
//! and to scripts.

use std::io::{self, Write};
use std::net::SocketAddr;

use litplex_admin::EventKind;
use litplex_config::Program;

use crate::events::Events;
use crate::notify::Notifier;
use crate::tls;

/// The announcer of a server's states.
pub(crate) struct Announcer {
    /// The URL of the server.
    pub(crate) url: String,
    /// The URL of the admin API on a port, if it is on one: its own, or below the dashboard.
    pub(crate) admin_url: Option<String>,
    /// The URL of the dashboard on the server's own port, if it is there.
    dashboard_url: Option<String>,
    has_admin_port: bool,
    pub(crate) port: u16,
    reachability_note: &'static str,
    startup_lines: Vec<String>,
    notifier: Notifier,
    events: Events,
}

impl Announcer {
    /// Returns the announcer of the server at this address, and of its admin API.
    pub(crate) fn new(
        config: &Program,
        address: SocketAddr,
        admin: Option<SocketAddr>,
        events: Events,
    ) -> Self {
        let url_of = |address| format!("{}://{address}", tls::scheme(config));
        let url = url_of(address);
        let dashboard_url = config.routes.dashboard.then(|| format!("{url}/dashboard"));
        Self {
            admin_url: admin.map(url_of).or_else(|| dashboard_url.clone()),
            has_admin_port: admin.is_some(),
            dashboard_url,
            port: address.port(),
            reachability_note: reachability_note(&config.host),
            startup_lines: startup_lines(config, &url),
            url,
            notifier: Notifier::from_env(),
            events,
        }
    }

    /// Announces that the server listens.
    pub(crate) fn listening(&self) {
        tracing::info!("listening on {}{}", self.url, self.reachability_note);
        if let Some(url) = self.admin_url.as_ref().filter(|_| self.has_admin_port) {
            tracing::info!("the admin API, for holders of `admin_keys`: {url}");
        }
        if let Some(url) = &self.dashboard_url {
            tracing::info!("the dashboard, for holders of `admin_keys`: {url}");
        }
        self.notifier.listening(&self.url);
    }

    /// Announces that all endpoints serve.
    pub(crate) fn ready(&self) {
        tracing::info!("ready: all endpoints serve at {}", self.url);
        let mut stderr = io::stderr().lock();
        // The reader of standard error may be gone.
        self.startup_lines.iter().for_each(|line| drop(writeln!(stderr, "{line}")));
        self.notifier.ready();
        self.events.record(EventKind::Ready {});
    }

    /// Announces that another process serves in place of this one.
    pub(crate) fn replaced_by(&self, pid: u32) {
        self.notifier.replaced_by(pid);
    }

    /// Announces that the server takes no new request.
    pub(crate) fn stopping(&self) {
        self.notifier.stopping();
        self.events.record(EventKind::Stopping {});
    }
}

fn reachability_note(host: &str) -> &'static str {
    match host {
        "127.0.0.1" | "localhost" | "::1" => {
            " (this machine only; host \"0.0.0.0\" lets others in)"
        }
        _ => "",
    }
}

/// Returns the lines that the program prints once all endpoints serve.
fn startup_lines(config: &Program, url: &str) -> Vec<String> {
    config.presentation.startup_lines.iter().map(|line| line.replace("{url}", url)).collect()
}
