//! Load client for the workloads that wrk cannot do, and for checking every body of a closed loop.
//! One thread. Modes: closed | stream | open | crash. Prints one JSON object.
use serde_json::{json, Value};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, sleep_until, timeout_at, Instant};

type Res<T> = Result<T, String>;

#[derive(Clone)]
struct Opt(BTreeMap<String, String>);
impl Opt {
    fn s(&self, k: &str, d: &str) -> String {
        self.0.get(k).cloned().unwrap_or(d.into())
    }
    fn f(&self, k: &str, d: f64) -> f64 {
        self.0.get(k).map(|v| v.parse().unwrap()).unwrap_or(d)
    }
    fn n(&self, k: &str, d: usize) -> usize {
        self.f(k, d as f64) as usize
    }
}

/// One keep-alive HTTP/1.1 connection.
struct Conn {
    s: TcpStream,
    buf: Vec<u8>,
    reusable: bool,
}

struct Head {
    status: u16,
    len: Option<usize>,
    chunked: bool,
}

impl Conn {
    async fn open(addr: &str) -> Res<Conn> {
        let s = TcpStream::connect(addr).await.map_err(|e| format!("connect: {e}"))?;
        s.set_nodelay(true).ok();
        Ok(Conn { s, buf: Vec::with_capacity(16 << 10), reusable: true })
    }
    async fn fill(&mut self) -> Res<()> {
        let n = self.s.read_buf(&mut self.buf).await.map_err(|e| format!("read: {}", e.kind()))?;
        if n == 0 {
            return Err("closed".into());
        }
        Ok(())
    }
    async fn head(&mut self) -> Res<Head> {
        loop {
            let mut hs = [httparse::EMPTY_HEADER; 48];
            let mut r = httparse::Response::new(&mut hs);
            match r.parse(&self.buf).map_err(|e| format!("parse: {e}"))? {
                httparse::Status::Complete(n) => {
                    let (mut len, mut chunked) = (None, false);
                    for h in r.headers.iter() {
                        let v = std::str::from_utf8(h.value).unwrap_or("");
                        if h.name.eq_ignore_ascii_case("content-length") {
                            len = v.trim().parse().ok()
                        }
                        if h.name.eq_ignore_ascii_case("transfer-encoding")
                            && v.to_ascii_lowercase().contains("chunked")
                        {
                            chunked = true
                        }
                        if h.name.eq_ignore_ascii_case("connection")
                            && v.eq_ignore_ascii_case("close")
                        {
                            self.reusable = false
                        }
                    }
                    let status = r.code.unwrap();
                    self.buf.drain(..n);
                    return Ok(Head { status, len, chunked });
                }
                _ => self.fill().await?,
            }
        }
    }
    /// Reads the body; `f` sees each piece as it arrives. Returns the number of HTTP chunks (0 if not chunked).
    async fn body(&mut self, h: &Head, mut f: impl FnMut(&[u8])) -> Res<usize> {
        if !h.chunked {
            let Some(mut left) = h.len else {
                return Err("no length".into());
            };
            loop {
                let k = left.min(self.buf.len());
                if k > 0 {
                    f(&self.buf[..k]);
                    self.buf.drain(..k);
                    left -= k;
                }
                if left == 0 {
                    return Ok(0);
                }
                self.fill().await?;
            }
        }
        let mut chunks = 0;
        let mut pos = 0; // consumed prefix of buf
        loop {
            match httparse::parse_chunk_size(&self.buf[pos..])
                .map_err(|_| "chunk size".to_string())?
            {
                httparse::Status::Complete((n, size))
                    if self.buf.len() >= pos + n + size as usize + 2 =>
                {
                    let a = pos + n;
                    f(&self.buf[a..a + size as usize]);
                    pos = a + size as usize + 2;
                    if size == 0 {
                        self.buf.drain(..pos);
                        return Ok(chunks);
                    }
                    chunks += 1;
                }
                _ => {
                    self.buf.drain(..pos);
                    pos = 0;
                    self.fill().await?;
                }
            }
        }
    }
    async fn call(&mut self, req: &[u8]) -> Res<(u16, Vec<u8>)> {
        self.s.write_all(req).await.map_err(|e| format!("write: {}", e.kind()))?;
        let h = self.head().await?;
        let mut b = Vec::new();
        self.body(&h, |p| b.extend_from_slice(p)).await?;
        Ok((h.status, b))
    }
}

fn post(path: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
fn square_req(path: &str, x: f64) -> Vec<u8> {
    post(path, &format!("{{\"input\": {x:?}}}"))
}
fn square_ok(x: f64, b: &[u8]) -> bool {
    serde_json::from_slice::<Value>(b)
        .ok()
        .and_then(|v| v["output"].as_f64())
        .map_or(false, |y| (y - x * x).abs() <= 1e-6 * (1.0 + x * x))
}
fn pct(v: &mut Vec<f64>, p: f64) -> Value {
    if v.is_empty() {
        return Value::Null;
    }
    v.sort_by(|a, b| a.total_cmp(b));
    json!((v[((v.len() - 1) as f64 * p).round() as usize] * 1e3 * 1e3).round() / 1e3)
}
#[derive(Default)]
struct Tally {
    lat: Vec<f64>,
    ok: u64,
    wrong: u64,
    status: BTreeMap<String, u64>,
    err: BTreeMap<String, u64>,
}
impl Tally {
    fn st(&mut self, s: u16) {
        *self.status.entry(s.to_string()).or_default() += 1
    }
    fn er(&mut self, e: &str) {
        *self.err.entry(e.to_string()).or_default() += 1
    }
}

async fn closed(o: Opt) -> Value {
    let (addr, path) = (o.s("addr", ""), o.s("path", "/predict"));
    let (conns, secs) = (o.n("conns", 64), o.f("secs", 2.0));
    let end = Instant::now() + Duration::from_secs_f64(secs);
    let t = Rc::new(RefCell::new(Tally::default()));
    let start = Instant::now();
    let mut js = vec![];
    for c in 0..conns {
        let (addr, path, t) = (addr.clone(), path.clone(), t.clone());
        js.push(tokio::task::spawn_local(async move {
            let mut conn: Option<Conn> = None;
            let mut i = 0u64;
            while Instant::now() < end {
                if conn.is_none() {
                    match Conn::open(&addr).await {
                        Ok(k) => conn = Some(k),
                        Err(e) => {
                            t.borrow_mut().er(&e);
                            sleep(Duration::from_millis(50)).await;
                            continue;
                        }
                    }
                }
                let x = (c as u64 + conns as u64 * i) as f64 * 0.5 + 1.0;
                i += 1;
                let b = Instant::now();
                let r = timeout_at(
                    b + Duration::from_secs(5),
                    conn.as_mut().unwrap().call(&square_req(&path, x)),
                )
                .await;
                let mut t = t.borrow_mut();
                match r {
                    Ok(Ok((s, body))) => {
                        t.st(s);
                        if s == 200 {
                            if square_ok(x, &body) {
                                t.ok += 1;
                                t.lat.push(b.elapsed().as_secs_f64())
                            } else {
                                t.wrong += 1
                            }
                        }
                        if !conn.as_ref().unwrap().reusable {
                            conn = None
                        }
                    }
                    Ok(Err(e)) => {
                        t.er(&e);
                        conn = None
                    }
                    Err(_) => {
                        t.er("timeout");
                        conn = None
                    }
                }
            }
        }));
    }
    for j in js {
        j.await.ok();
    }
    let el = start.elapsed().as_secs_f64();
    let mut t = t.borrow_mut();
    let ok = t.ok;
    json!({"rps": ok as f64 / el, "p50_ms": pct(&mut t.lat, 0.5), "p99_ms": pct(&mut t.lat, 0.99), "ok": ok, "wrong": t.wrong, "status": t.status, "errors": t.err})
}

/// Finds the numbers after each "output" in arriving text and checks that they count up from 0.
#[derive(Default)]
struct Seq {
    buf: Vec<u8>,
    next: u64,
    wrong: u64,
    first: Option<Instant>,
    last: Option<Instant>,
}
impl Seq {
    fn feed(&mut self, p: &[u8], end: bool) {
        self.buf.extend_from_slice(p);
        let mut pos = 0;
        while let Some(k) = memchr::memmem::find(&self.buf[pos..], b"output") {
            let mut a = pos + k + 6;
            while a < self.buf.len() && matches!(self.buf[a], b'\\' | b'"' | b':' | b' ') {
                a += 1
            }
            let mut z = a;
            while z < self.buf.len() && self.buf[z].is_ascii_digit() {
                z += 1
            }
            if z == self.buf.len() && !end {
                break;
            }
            let v = std::str::from_utf8(&self.buf[a..z]).unwrap().parse::<u64>();
            if v != Ok(self.next) {
                self.wrong += 1
            }
            self.next += 1;
            let now = Instant::now();
            self.first.get_or_insert(now);
            self.last = Some(now);
            pos = z;
        }
        let keep =
            pos.max(self.buf.len().saturating_sub(64).min(self.buf.len())).min(self.buf.len());
        let cut =
            if memchr::memmem::find(&self.buf[pos..], b"output").is_some() { pos } else { keep };
        self.buf.drain(..cut);
    }
}

async fn stream(o: Opt) -> Value {
    let (addr, path) = (o.s("addr", ""), o.s("path", "/predict"));
    let (clients, chunks, limit) = (o.n("clients", 1), o.n("chunks", 10000), o.f("limit", 18.0));
    let start = Instant::now();
    let deadline = start + Duration::from_secs_f64(limit);
    let mut js = vec![];
    for _ in 0..clients {
        let (addr, path) = (addr.clone(), path.clone());
        js.push(tokio::task::spawn_local(async move {
            let mut q = Seq::default();
            let mut frames = 0usize;
            let mut cn = match Conn::open(&addr).await {
                Ok(c) => c,
                Err(e) => return (q, 0, Some(e), Instant::now()),
            };
            let b = Instant::now();
            let r = timeout_at(deadline, async {
                cn.s.write_all(&post(&path, &format!("{{\"input\": {chunks}}}")))
                    .await
                    .map_err(|e| e.to_string())?;
                let h = cn.head().await?;
                if h.status != 200 {
                    return Err(format!("status {}", h.status));
                }
                let n = cn
                    .body(&h, |p| {
                        frames += 1;
                        q.feed(p, false)
                    })
                    .await?;
                q.feed(b"", true);
                Ok::<usize, String>(n)
            })
            .await;
            let e = match r {
                Ok(Ok(_)) => None,
                Ok(Err(e)) => Some(e),
                Err(_) => Some("timeout".into()),
            };
            (q, frames, e, b)
        }));
    }
    let (mut got, mut wrong, mut frames, mut ttft, mut errs) =
        (0u64, 0u64, 0usize, vec![], BTreeMap::<String, u64>::new());
    let mut last = start;
    let mut complete = 0;
    for j in js {
        let (q, n, e, b) = j.await.unwrap();
        got += q.next;
        wrong += q.wrong;
        frames += n;
        if q.next == chunks as u64 && e.is_none() {
            complete += 1
        }
        if let Some(f) = q.first {
            ttft.push((f - b).as_secs_f64())
        }
        if let Some(l) = q.last {
            last = last.max(l)
        }
        if let Some(e) = e {
            *errs.entry(e).or_default() += 1
        }
    }
    let el = (last - start).as_secs_f64();
    json!({"tokens_s": if el > 0.0 { got as f64 / el } else { 0.0 }, "ttft_p50_ms": pct(&mut ttft, 0.5), "ttft_max_ms": pct(&mut ttft, 1.0), "tokens": got, "http_chunks": frames, "complete": complete, "clients": clients, "wrong": wrong, "errors": errs, "wall_s": el})
}

#[derive(Default)]
struct Pool {
    idle: Vec<Conn>,
    total: usize,
    max: usize,
    wait: VecDeque<oneshot::Sender<Option<Conn>>>,
    peak: usize,
}
type P = Rc<RefCell<Pool>>;
/// Ok(None): the caller may open a connection of its own (the slot is already counted).
async fn take(p: &P) -> Option<Conn> {
    let rx = {
        let mut g = p.borrow_mut();
        if let Some(c) = g.idle.pop() {
            return Some(c);
        }
        if g.total < g.max {
            g.total += 1;
            g.peak = g.peak.max(g.total);
            return None;
        }
        let (tx, rx) = oneshot::channel();
        g.wait.push_back(tx);
        rx
    };
    rx.await.unwrap_or(None)
}
fn give(p: &P, mut c: Option<Conn>) {
    let mut g = p.borrow_mut();
    while let Some(w) = g.wait.pop_front() {
        match w.send(c) {
            Ok(()) => return,
            Err(back) => c = back,
        }
    }
    match c {
        Some(c) => g.idle.push(c),
        None => g.total -= 1,
    }
}
/// Returns the slot on drop, so a timed-out request closes its connection and frees the slot.
struct Slot {
    p: P,
    c: Option<Conn>,
}
impl Drop for Slot {
    fn drop(&mut self) {
        give(&self.p, self.c.take())
    }
}

#[derive(Clone, PartialEq)]
enum Out {
    Ok,
    Wrong,
    Status(u16),
    Err(String),
    Timeout,
    Unsent,
}

async fn one(p: P, addr: String, path: String, x: f64, deadline: Instant) -> Out {
    // wait for a slot
    let got = match timeout_at(deadline, take(&p)).await {
        Ok(c) => c,
        Err(_) => return Out::Unsent,
    };
    let mut slot = Slot { p, c: None };
    let r = timeout_at(deadline, async {
        let fresh = got.is_none();
        let mut c = match got {
            Some(c) => c,
            None => Conn::open(&addr).await?,
        };
        let r = c.call(&square_req(&path, x)).await;
        let r = match r {
            // an idle keep-alive connection that the server had closed: one retry on a fresh one, as HTTP clients do
            Err(e) if !fresh && e == "closed" && c.buf.is_empty() => {
                c = Conn::open(&addr).await?;
                c.call(&square_req(&path, x)).await
            }
            r => r,
        };
        let r = r?;
        if c.reusable {
            slot.c = Some(c)
        }
        Ok::<_, String>(r)
    })
    .await;
    match r {
        Err(_) => Out::Timeout,
        Ok(Err(e)) => Out::Err(e),
        Ok(Ok((200, b))) => {
            if square_ok(x, &b) {
                Out::Ok
            } else {
                Out::Wrong
            }
        }
        Ok(Ok((s, _))) => Out::Status(s),
    }
}

async fn open(o: Opt, crash: Vec<f64>) -> Value {
    let (addr, path) = (o.s("addr", ""), o.s("path", "/predict"));
    let (rate, secs, tmo) = (o.f("rate", 100.0), o.f("secs", 10.0), o.f("timeout", 2.0));
    let p: P = Rc::new(RefCell::new(Pool { max: o.n("max-conns", 4096), ..Default::default() }));
    let recs: Rc<RefCell<Vec<(f64, f64, Out)>>> = Default::default();
    let crashes: Rc<RefCell<Vec<Value>>> = Default::default();
    let start = Instant::now() + Duration::from_millis(20);
    let total = (rate * secs) as u64;
    let mut js = vec![];
    for (i, c) in crash.iter().enumerate() {
        let (addr, path, c, crashes) = (addr.clone(), path.clone(), *c, crashes.clone());
        js.push(tokio::task::spawn_local(async move {
            sleep_until(start + Duration::from_secs_f64(c)).await;
            let b = Instant::now();
            let r = timeout_at(b + Duration::from_secs(5), async {
                Conn::open(&addr).await?.call(&square_req(&path, -1.0)).await
            })
            .await;
            let w = match r {
                Ok(Ok((s, _))) => s.to_string(),
                Ok(Err(e)) => e,
                Err(_) => "timeout".into(),
            };
            crashes.borrow_mut().push(json!([i, w, (b.elapsed().as_secs_f64() * 1e3).round()]));
        }));
    }
    let mut i = 0u64;
    while i < total {
        // request i is due at i/rate; `start` lies a little ahead at first
        let due = if Instant::now() < start {
            0
        } else {
            (start.elapsed().as_secs_f64() * rate) as u64 + 1
        };
        while i < due.min(total) {
            let at = start + Duration::from_secs_f64(i as f64 / rate);
            let x = i as f64 * 0.5 + 1.0;
            let (p, addr, path, recs) = (p.clone(), addr.clone(), path.clone(), recs.clone());
            js.push(tokio::task::spawn_local(async move {
                // the pacing is no finer than a timer's tick: what a refusal takes counts from here
                let begun = Instant::now();
                let r = one(p, addr, path, x, at + Duration::from_secs_f64(tmo)).await;
                let since = if matches!(r, Out::Status(_)) { begun } else { at };
                recs.borrow_mut().push((
                    (at - start).as_secs_f64(),
                    since.elapsed().as_secs_f64(),
                    r,
                ));
            }));
            i += 1;
        }
        sleep(Duration::from_millis(1)).await;
    }
    let offered_in = start.elapsed().as_secs_f64();
    for j in js {
        j.await.ok();
    }
    // how long after the last offered request until 5 requests in a row are answered within 100 ms
    let rstart = start + Duration::from_secs_f64(secs);
    let (mut streak, mut rec) = (0, Value::Null);
    let rend = Instant::now() + Duration::from_secs_f64(o.f("recover", 6.0));
    while Instant::now() < rend {
        let b = Instant::now();
        let r = timeout_at(b + Duration::from_secs(1), async {
            Conn::open(&addr).await?.call(&square_req(&path, 3.0)).await
        })
        .await;
        let good = matches!(&r, Ok(Ok((200, x))) if square_ok(3.0, x))
            && b.elapsed() < Duration::from_millis(100);
        streak = if good { streak + 1 } else { 0 };
        if streak == 5 {
            rec = json!(rstart.elapsed().as_secs_f64());
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    let recs = recs.borrow();
    let (mut l, mut shed_l) = (vec![], vec![]);
    let (mut good, mut late, mut wrong, mut shed, mut tm, mut un) =
        (0u64, 0u64, 0u64, 0u64, 0u64, 0u64);
    let (mut other, mut errs) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
    for (_, lat, r) in recs.iter() {
        match r {
            Out::Ok => {
                l.push(*lat);
                if *lat <= 1.0 {
                    good += 1
                } else {
                    late += 1
                }
            }
            Out::Wrong => wrong += 1,
            Out::Status(s) if *s == 429 || *s == 503 => {
                shed += 1;
                shed_l.push(*lat)
            }
            Out::Status(s) => *other.entry(s.to_string()).or_default() += 1,
            Out::Err(e) => *errs.entry(e.clone()).or_default() += 1,
            Out::Timeout => tm += 1,
            Out::Unsent => un += 1,
        }
    }
    let bad = |r: &Out| *r != Out::Ok;
    let windows: Vec<Value> = crash.iter().enumerate().map(|(k, c)| {
        let e = crash.get(k + 1).copied().unwrap_or(f64::MAX);
        let w: Vec<_> = recs.iter().filter(|x| x.0 >= *c - 0.1 && x.0 < e - 0.1).collect();
        let nbad = w.iter().filter(|x| bad(&x.2)).count();
        let lastbad = w.iter().filter(|x| bad(&x.2)).map(|x| x.0 - c).fold(0.0f64, f64::max);
        let lastslow = w.iter().filter(|x| bad(&x.2) || x.1 > 0.2).map(|x| x.0 - c).fold(0.0f64, f64::max);
        json!({"failed": nbad, "last_failure_s": (lastbad * 1e3).round() / 1e3, "last_slow_s": (lastslow * 1e3).round() / 1e3})
    }).collect();
    let mut v = json!({"offered": total, "offered_rps": total as f64 / offered_in.max(secs), "good": good, "goodput_rps": good as f64 / secs, "late": late, "shed": shed, "timeouts": tm, "client_unsent": un, "wrong": wrong,
        "other_status": other, "errors": errs, "p50_ms": pct(&mut l, 0.5), "p99_ms": pct(&mut l, 0.99), "shed_p50_ms": pct(&mut shed_l, 0.5), "shed_p99_ms": pct(&mut shed_l, 0.99), "peak_conns": p.borrow().peak, "recovery_s": rec});
    if !crash.is_empty() {
        v["crashes"] = json!(*crashes.borrow());
        v["windows"] = json!(windows);
    }
    v
}

fn main() {
    let a: Vec<String> = std::env::args().collect();
    let mut m = BTreeMap::new();
    let mut i = 2;
    while i + 1 < a.len() {
        m.insert(a[i].trim_start_matches("--").to_string(), a[i + 1].clone());
        i += 2
    }
    let o = Opt(m);
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ls = tokio::task::LocalSet::new();
    let v = ls.block_on(&rt, async {
        match a[1].as_str() {
            "closed" => closed(o).await,
            "stream" => stream(o).await,
            "open" => open(o, vec![]).await,
            "crash" => {
                let c = o.s("at", "1,3,5,7,9").split(',').map(|x| x.parse().unwrap()).collect();
                open(o, c).await
            }
            m => panic!("mode {m}"),
        }
    });
    println!("{v}");
}
