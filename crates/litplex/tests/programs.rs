//! Rust programs as processes of their own: signals while models are in calls, and upgrades.

#![allow(missing_docs, missing_debug_implementations, clippy::unwrap_used)]

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use litplex::{
    Batch, Callee, Chunks, Device, Endpoint, LitApi, LitStream, Outcome, ServeError, run_servers,
};
use serde_json::Value;
use tokio::time::Instant;

/// The variable with the directory of a program that this process is to be.
const PROGRAM: &str = "LITPLEX_TEST_PROGRAM";

/// The variable with the seconds of its grace.
const GRACE: &str = "LITPLEX_TEST_GRACE";

/// Far more time than any step takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "{what} did not happen in time");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Notes that a model is here, and waits until it is let go on.
fn pass(directory: &Path, gate: &str) {
    fs::write(directory.join(format!("{gate}.came")), "").unwrap();
    while !directory.join(format!("{gate}.open")).exists() {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Passes the gate that its input names, and answers with the process id.
struct Slow(PathBuf);

impl LitApi for Slow {
    type Input = String;
    type Output = u32;

    fn predict(&mut self, batch: Batch<String>) -> litplex::Result<Vec<Outcome<u32>>> {
        batch.iter().filter(|gate| !gate.is_empty()).for_each(|gate| pass(&self.0, gate));
        Ok(batch.iter().map(|_| Ok(std::process::id())).collect())
    }
}

/// Sends one item, and the next one behind the gate.
struct Ticks(PathBuf);

impl LitStream for Ticks {
    type Input = String;
    type Output = u32;

    fn predict(&mut self, gate: String, chunks: &mut Chunks<u32>) -> litplex::Result<()> {
        chunks.send(1)?;
        pass(&self.0, &gate);
        chunks.send(2)
    }
}

/// Calls an endpoint with its input: `slow GATE`, `ticks GATE`, or `late GATE`, which passes the gate first.
struct Ask {
    directory: PathBuf,
    slow: Callee,
    ticks: Callee,
}

impl LitApi for Ask {
    type Input = String;
    type Output = Value;

    fn predict(&mut self, batch: Batch<String>) -> litplex::Result<Vec<Outcome<Value>>> {
        let (how, gate) = batch[0].split_once(' ').unwrap();
        let answer = match how {
            "slow" => self.slow.call(&gate),
            "ticks" => match self.ticks.stream::<_, Value>(&gate) {
                Ok(items) => items.collect(),
                Err(error) => Err(error),
            },
            _ => {
                pass(&self.directory, gate);
                self.slow.call(&"")
            }
        };
        Ok(vec![answer.map_err(ServeError::from)])
    }
}

/// The program that this file is for the tests below: they start it as a process of its own.
#[test]
fn program() {
    let Some(directory) = env::var_os(PROGRAM).map(PathBuf::from) else { return };
    let grace = env::var(GRACE).map_or(30.0, |seconds| seconds.parse().unwrap());
    let (slow, ticks) = (directory.clone(), directory.clone());
    let ask = move |_: Device, [slow, ticks]: [Callee; 2]| {
        Ok(Ask { directory: directory.clone(), slow, ticks })
    };
    let endpoints = [
        Endpoint::new("/slow", move |_: Device| Ok(Slow(slow.clone()))).workers_per_device(3),
        Endpoint::stream("/ticks", move |_: Device| Ok(Ticks(ticks.clone()))).workers_per_device(3),
        Endpoint::calling("/ask", ["/slow", "/ticks"], ask).workers_per_device(3),
    ];
    run_servers(endpoints).port(0).grace(Duration::from_secs_f64(grace)).run().unwrap();
}

/// The lines of a program so far.
#[derive(Clone, Default)]
struct Lines(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Lines {
    fn follow(&self, output: impl Read + Send + 'static) {
        let (lines, grown) = (self.0.clone(), self.clone());
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                lines.0.lock().unwrap().push(line);
                grown.0.1.notify_all();
            }
        });
    }

    /// Waits for a line with this text, and returns the rest of the line.
    fn after(&self, text: &str) -> String {
        let (lines, grown) = &*self.0;
        let found = |lines: &[String]| {
            lines.iter().find_map(|line| Some(line.split_once(text)?.1.to_owned()))
        };
        let lines = lines.lock().unwrap();
        let lines = grown.wait_timeout_while(lines, PATIENCE, |lines| found(lines).is_none());
        let lines = lines.unwrap().0;
        found(&lines).unwrap_or_else(|| panic!("no line has `{text}`:\n{}", lines.join("\n")))
    }
}

/// A running program. It is killed when this is dropped.
struct Running {
    process: Child,
    lines: Lines,
    port: u16,
    directory: tempfile::TempDir,
}

impl Running {
    fn start(grace: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("lm").tempdir_in("/tmp").unwrap();
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["program", "--exact", "--nocapture"])
            .env(PROGRAM, directory.path())
            .env(GRACE, grace)
            .env("XDG_RUNTIME_DIR", directory.path())
            .env("TMPDIR", directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Lines::default();
        lines.follow(process.stderr.take().unwrap());
        let url = lines.after("ready: all endpoints serve at http://127.0.0.1:");
        let port = url.trim().parse().unwrap();
        Self { process, lines, port, directory }
    }

    /// Sends a request on another thread; returns the status and the body of the response.
    fn post(&self, path: &str, input: &str) -> thread::JoinHandle<(u16, String)> {
        let (port, path, body) = (self.port, path.to_owned(), format!("\"{input}\""));
        thread::spawn(move || {
            let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            exchange(stream, "POST", &path, &body)
        })
    }

    fn came(&self, gate: &str) {
        let file = self.directory.path().join(format!("{gate}.came"));
        wait_until(gate, || file.exists());
    }

    fn open(&self, gate: &str) {
        fs::write(self.directory.path().join(format!("{gate}.open")), "").unwrap();
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("its end", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Sends a request to the admin API of the server that serves.
    fn admin(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let sockets = || {
            let servers = fs::read_dir(self.directory.path().join("litplex")).unwrap();
            let sockets = servers.map(|server| server.unwrap().path().join("admin.sock"));
            sockets.filter_map(|socket| UnixStream::connect(socket).ok()).collect::<Vec<_>>()
        };
        wait_until("one server with a socket", || sockets().len() == 1);
        let (status, body) = exchange(sockets().remove(0), method, path, body);
        (status, serde_json::from_str(&body).unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn exchange(mut stream: impl Read + Write, method: &str, path: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    // A server that ends breaks the connection off.
    let _ = stream.read_to_string(&mut response);
    let status = response.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = response.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (status.unwrap_or(0), body.unwrap_or_default())
}

#[test]
fn requests_whose_models_are_in_calls_are_answered_after_sigterm() {
    let mut running = Running::start("30");
    let waiting = ["slow a", "ticks b", "late c"].map(|input| running.post("/ask", input));
    ["a", "b", "c"].iter().for_each(|gate| running.came(gate));
    running.signal("-TERM");
    running.lines.after("stopping; requests in flight may take 30s more");
    let (status, body) = running.post("/slow", "").join().unwrap();
    assert!(status == 503 && body.contains("stopping"), "{status} {body}");
    ["a", "b", "c"].iter().for_each(|gate| running.open(gate));
    let id = running.process.id().to_string();
    let expected = [id.clone(), "[1,2]".into(), id].map(|body| (200, body));
    assert_eq!(waiting.map(|request| request.join().unwrap()), expected);
    assert!(running.ended().success());
}

#[test]
fn calls_that_outlast_the_grace_or_a_second_sigterm_do_not_keep_the_program() {
    for (grace, says) in [("1", "some requests did not finish in time"), ("60", "stopping at once")]
    {
        let mut running = Running::start(grace);
        let waiting = ["slow a", "ticks b", "late c"].map(|input| running.post("/ask", input));
        ["a", "b", "c"].iter().for_each(|gate| running.came(gate));
        running.signal("-TERM");
        running.lines.after("stopping; requests in flight");
        if grace == "60" {
            // Signals shortly after the first one count as the same.
            thread::sleep(Duration::from_secs(1));
            running.signal("-TERM");
        }
        running.lines.after(says);
        assert!(running.ended().success(), "{grace}");
        for request in waiting {
            let (status, _) = request.join().unwrap();
            assert!(status == 0 || status >= 500, "{status}");
        }
    }
}

#[test]
fn a_rust_program_is_upgraded_while_its_models_are_in_calls() {
    let mut running = Running::start("30");
    let first = running.process.id();
    let waiting = ["slow a", "ticks b", "late c"].map(|input| running.post("/ask", input));
    ["a", "b", "c"].iter().for_each(|gate| running.came(gate));
    let (status, upgraded) = running.admin("POST", "/v1/upgrade", "{\"limit\": 60}");
    assert_eq!((status, &upgraded["before"]), (200, &first.into()), "{upgraded}");
    let second = upgraded["pid"].as_u64().unwrap();
    assert_eq!(running.post("/ask", "slow ").join().unwrap(), (200, second.to_string()));
    // The requests of the first process end there.
    ["a", "b", "c"].iter().for_each(|gate| running.open(gate));
    let expected = [first.to_string(), "[1,2]".into(), first.to_string()].map(|body| (200, body));
    assert_eq!(waiting.map(|request| request.join().unwrap()), expected);
    running.lines.after(&format!("the requests of process {first} are finished"));

    running.signal("-USR2");
    let serving = || running.admin("GET", "/v1/server", "").1["pid"].as_u64().unwrap();
    wait_until("the second upgrade", || serving() != second);
    let third = serving();
    assert_eq!(running.post("/ask", "slow ").join().unwrap(), (200, third.to_string()));
    wait_until("the end of the second process", || !Path::new(&format!("/proc/{second}")).exists());
    running.signal("-TERM");
    assert!(running.ended().success());
    assert!(!Path::new(&format!("/proc/{third}")).exists());
}
