//! The requests of operators on the server's own port: they go to the dashboard and the admin API below it.

use litplex_admin::SharedDashboard;
use litplex_http::OperatorRequest;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Responds to the requests of operators until dropped.
pub(crate) async fn serve(
    mut requests: mpsc::Receiver<OperatorRequest>,
    dashboard: SharedDashboard,
) {
    let mut responding = JoinSet::new();
    while let Some(request) = requests.recv().await {
        while responding.try_join_next().is_some() {}
        let dashboard = dashboard.clone();
        responding.spawn(request.answer(async move |request, forwarded_host| {
            dashboard.respond(request, forwarded_host).await
        }));
    }
}
