//! The first stage of a server: it owns its address, files and sockets, and runs no process yet.

use std::io;

use litplex_admin::{AdminGuard, AdminPort, AdminSocket, RunDir};
use litplex_config::Program;
use litplex_http::{EdgeMiddleware, bind};
use litplex_tls::Tls;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

use crate::access::Access;
use crate::app_host::AppHostSockets;
use crate::middleware::edge_middleware;
use crate::{Error, ServerSpec, descriptors, tls};

/// A server whose address is taken and whose configuration can be met.
pub(crate) struct Bound {
    pub(crate) spec: ServerSpec,
    pub(crate) access: Access,
    pub(crate) middleware: EdgeMiddleware,
    pub(crate) tls: Option<Tls>,
    pub(crate) listener: TcpListener,
    pub(crate) admin_port: Option<AdminPort>,
    pub(crate) private: PrivateSockets,
}

impl Bound {
    /// Reads the files that the configuration names, and takes the address.
    ///
    /// # Errors
    /// A file is invalid, or the address is not available.
    pub(crate) async fn new(spec: ServerSpec) -> Result<Self, Error> {
        let config = &spec.config;
        let mut access = Access::load(config)?;
        let mut middleware = edge_middleware(config)?;
        descriptors::raise();
        let tls = tls::read(config)?;
        let listener = listen("host", &config.host, config.port).await?;
        let admin_port = admin_port(config, access.guards.admin.take(), tls.as_ref()).await?;
        middleware.browsers.is_loopback = listener.local_addr()?.ip().is_loopback();
        let private = PrivateSockets::open(config)?;
        Ok(Self { spec, access, middleware, tls, listener, admin_port, private })
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
    guard: Option<AdminGuard>,
    tls: Option<&Tls>,
) -> Result<Option<AdminPort>, Error> {
    let (Some(port), Some(guard)) = (&config.admin, guard) else { return Ok(None) };
    let listener = listen("admin_host", &port.host, port.port).await?;
    if tls.is_none() && !listener.local_addr()?.ip().is_loopback() {
        tracing::warn!(
            "`admin_host`: keys for the admin API come unencrypted from other machines; set `tls_cert` \
             and `tls_key`"
        );
    }
    Ok(Some(AdminPort::new(listener, guard)?.over(tls.map(Tls::configs))))
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
