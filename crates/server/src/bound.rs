//! The first stage of a server: it owns its address, files and sockets, and runs no process yet.

use std::{io, mem};

use litplex_admin::{AdminGuard, AdminPort, AdminSocket, RunDir};
use litplex_config::{AdminAddress, ConfigError, Program};
use litplex_http::{EdgeMiddleware, bind};
use litplex_tls::Tls;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;

use crate::access::{Access, OperatorKeys};
use crate::app_host::AppHostSockets;
use crate::middleware::edge_middleware;
use crate::upgrade::{Inherited, Sockets, TakenSocket, is_at, socket_name};
use crate::{Error, ServerSpec, descriptors, tls};

/// A server whose address is taken and whose configuration can be met.
pub(crate) struct Bound {
    pub(crate) spec: ServerSpec,
    pub(crate) access: Access,
    pub(crate) middleware: EdgeMiddleware,
    pub(crate) tls: Option<Tls>,
    pub(crate) listener: TcpListener,
    pub(crate) admin_port: Option<AdminPort>,
    /// The names of their sockets for a process that takes them over.
    pub(crate) socket_names: [&'static str; 2],
    /// The guard of the dashboard on the server's own port, if it is there.
    pub(crate) dashboard: Option<AdminGuard>,
    pub(crate) private: PrivateSockets,
    /// The signal that asks for an upgrade.
    pub(crate) upgrades: Signal,
}

impl Bound {
    /// Reads the files that the configuration names, and takes the address.
    ///
    /// # Errors
    /// A file is invalid, or the address is not available.
    pub(crate) async fn new(mut spec: ServerSpec) -> Result<Self, Error> {
        // Before all else: it would end this process.
        let upgrades = signal(SignalKind::user_defined2())?;
        let mut given = Given::new(&mut spec.inherited)?;
        let config = &spec.config;
        let mut access = Access::load(config)?;
        let mut middleware = edge_middleware(config)?;
        descriptors::raise();
        let tls = tls::read(config)?;
        let listener = given.listen("host", &config.host, config.port).await?;
        let operators = access.guards.operators.take();
        let admin_port = admin_port(config, &mut given, operators.as_ref(), tls.as_ref()).await?;
        let is_loopback = listener.local_addr()?.ip().is_loopback();
        middleware.browsers.is_loopback = is_loopback;
        let dashboard = operators.filter(|_| config.routes.dashboard).map(|operators| {
            warn_of_plain_keys("admin_dashboard", is_loopback, tls.as_ref());
            operators.guard(&config.host).on_loopback(is_loopback)
        });
        let private = PrivateSockets::open(config)?;
        let socket_names = [false, true].map(|is_admin| given.name(is_admin));
        Ok(Self {
            spec,
            access,
            middleware,
            tls,
            listener,
            admin_port,
            socket_names,
            dashboard,
            private,
            upgrades,
        })
    }
}

/// The server's private directory and the sockets in it.
pub(crate) struct PrivateSockets {
    pub(crate) admin: AdminSocket,
    pub(crate) app_host: Option<AppHostSockets>,
    /// The last field: the directory is removed after the sockets are closed.
    pub(crate) run_dir: RunDir,
}

impl PrivateSockets {
    fn open(config: &Program) -> Result<Self, Error> {
        let run_dir = RunDir::create()?;
        let admin = AdminSocket::bind(&run_dir)?;
        let app_host = AppHostSockets::open(config, &run_dir)?;
        Ok(Self { admin, app_host, run_dir })
    }
}

/// Listens on the port of the admin API, if it has one.
async fn admin_port(
    config: &Program,
    given: &mut Given,
    operators: Option<&OperatorKeys>,
    tls: Option<&Tls>,
) -> Result<Option<AdminPort>, Error> {
    let port = config.admin.as_ref().and_then(|admin| admin.port.as_ref());
    let (Some(AdminAddress { host, port }), Some(operators)) = (port, operators) else {
        return Ok(None);
    };
    let listener = given.listen(ADMIN_HOST, host, *port).await?;
    warn_of_plain_keys(ADMIN_HOST, listener.local_addr()?.ip().is_loopback(), tls);
    Ok(Some(AdminPort::new(listener, operators.guard(host))?.over(tls.map(Tls::configs))))
}

/// Warns if keys of operators come unencrypted from other machines, because of this option.
fn warn_of_plain_keys(option: &str, is_loopback: bool, tls: Option<&Tls>) {
    if tls.is_none() && !is_loopback {
        tracing::warn!(
            "`{option}`: keys for the admin API come unencrypted from other machines; set `tls_cert` \
             and `tls_key`"
        );
    }
}

/// The option that sets the host of the admin API.
const ADMIN_HOST: &str = "admin_host";

/// The sockets that this process was given.
struct Given {
    sockets: Sockets,
    /// Whether they are those of a server that this one replaces. Otherwise they come from a service manager.
    are_taken_over: bool,
    /// Whether a service manager chose the address for clients of endpoints, and that of the admin API. That of the
    /// configuration does not count then.
    are_chosen: [bool; 2],
}

impl Given {
    fn new(inherited: &mut Inherited) -> Result<Self, Error> {
        let mut sockets = mem::take(&mut inherited.sockets);
        let errors = mem::take(&mut sockets.errors);
        if !errors.is_empty() {
            return Err(ConfigError(errors).into());
        }
        let are_taken_over = inherited.predecessor.is_some();
        Ok(Self { sockets, are_taken_over, are_chosen: [false; 2] })
    }

    /// Returns the name under which the next process gets a socket.
    fn name(&self, is_admin: bool) -> &'static str {
        socket_name(is_admin, self.are_chosen[usize::from(is_admin)])
    }

    /// Returns a socket that was given, or else takes the address, whose host the option `option` sets.
    async fn listen(
        &mut self,
        option: &'static str,
        host: &str,
        port: u16,
    ) -> Result<TcpListener, Error> {
        let is_admin = option == ADMIN_HOST;
        let Some(TakenSocket { listener, is_chosen }) = self.sockets.take(is_admin)? else {
            return listen(option, host, port).await;
        };
        let is_chosen = is_chosen || !self.are_taken_over;
        self.are_chosen[usize::from(is_admin)] = is_chosen;
        match is_chosen || is_at(&listener, host, port).await {
            true => Ok(listener),
            // The program has another address now.
            false => listen(option, host, port).await,
        }
    }
}

/// Takes an address, whose host the option `option` sets.
async fn listen(option: &'static str, host: &str, port: u16) -> Result<TcpListener, Error> {
    match bind(host, port).await {
        Ok(listener) => Ok(listener),
        Err(source) => {
            let taken_by = match source.kind() {
                io::ErrorKind::AddrInUse => server_on(port).await,
                _ => None,
            };
            let address = format!("{host}:{port}");
            Err(Error::Bind { option, address, taken_by, source })
        }
    }
}

/// Returns the process id of the server of this user that listens on this port, if one does.
async fn server_on(port: u16) -> Option<u32> {
    let find = move || {
        let mut statuses = litplex_admin::running().into_iter().filter_map(|it| it.ps().ok());
        statuses.find(|status| status.port == port).map(|status| status.pid)
    };
    spawn_blocking(find).await.ok().flatten()
}
