//! The command beside servers that are made up, over real sockets.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use litplex_admin::mock::MockAdmin;
use litplex_admin::{AdminSocket, RunDir, Status};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A user's runtime directory, with the servers that run there.
struct Machine {
    runtime: TempDir,
    servers: Vec<JoinHandle<()>>,
}

impl Machine {
    fn with_servers(ports: &[u16]) -> Self {
        let runtime = tempfile::tempdir().unwrap();
        let root = runtime.path().join("litplex");
        let servers = ports.iter().map(|port| serve(&root, *port)).collect();
        Self { runtime, servers }
    }

    /// Runs the command; returns its exit status and all that it printed.
    async fn litplex(&self, args: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_litplex"));
        command.args(args).env("XDG_RUNTIME_DIR", self.runtime.path());
        command.env("TMPDIR", self.runtime.path());
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(printed).unwrap())
    }
}

fn serve(root: &Path, port: u16) -> JoinHandle<()> {
    let directory = RunDir::create_in(root).unwrap();
    let socket = AdminSocket::bind(&directory).unwrap();
    socket.publisher()().unwrap();
    tokio::spawn(async move {
        socket.serve(Arc::new(MockAdmin::new(port)), std::future::pending()).await;
        drop(directory);
    })
}

#[tokio::test]
async fn ps_shows_every_server() {
    let machine = Machine::with_servers(&[9000, 8000]);
    let (status, printed) = machine.litplex(&["ps"]).await;
    assert_eq!(status, 0, "{printed}");
    let (first, second) = (printed.find("127.0.0.1:8000"), printed.find("127.0.0.1:9000"));
    assert!(first.is_some() && first < second, "{printed}");
    assert_eq!(printed.matches("/embed    Model  rust  ready  0/1").count(), 2, "{printed}");

    let (_, printed) = machine.litplex(&["ps", "--port", "9000", "--json"]).await;
    let told: Status = serde_json::from_str(&printed).unwrap();
    assert_eq!((told.port, told.endpoints[0].requests), (9000, 7));
}

#[tokio::test]
async fn ps_says_when_nothing_runs() {
    let says = (1, "error: no litplex server of this user is running\n".to_owned());
    let machine = Machine::with_servers(&[]);
    assert_eq!(machine.litplex(&["ps"]).await, says);

    let mut machine = Machine::with_servers(&[8000]);
    let server = machine.servers.remove(0);
    server.abort();
    server.await.unwrap_err();
    assert_eq!(machine.litplex(&["ps"]).await, says);
}

#[tokio::test]
async fn scale_needs_a_server_and_one_of_its_endpoints() {
    let machine = Machine::with_servers(&[8000, 9000]);
    let scaled = machine.litplex(&["scale", "/embed", "4", "--port", "8000"]).await;
    assert_eq!(scaled.0, 0, "{}", scaled.1);
    assert!(scaled.1.starts_with("/embed is to have 4 workers, and had 1"), "{}", scaled.1);
    for (args, status, says) in [
        (&["scale", "/embed", "4"][..], 1, "2 servers run; choose one with --port"),
        (&["scale", "/ocr", "4", "--port", "8000"], 1, "there is no endpoint `/ocr`"),
        (&["scale", "/embed", "4", "--port", "1"], 1, "no litplex server listens on port 1"),
        (
            &["scale", "/embed", "2000", "--port", "8000"],
            2,
            "expected a number from 0 to 1024, cold, or auto",
        ),
    ] {
        let (got, printed) = machine.litplex(args).await;
        assert_eq!((got, printed.contains(says)), (status, true), "{printed}");
    }
}
