//! The physical limit on the box: a minimal axum server that answers the same JSON with the model inline in Rust.
//! args: WORKLOAD PORT. W2/W7 keep a real batcher (32, 5 ms) in front of a thread that sleeps 5 ms a batch.
//! W7/W7b also show what admission control can do: at most 0.5 s worth of work waits (else 503 at once), and a
//! request whose caller has gone is dropped before it reaches the batch. `floor-nolimit` runs them without either.
use axum::{
    body::{Body, Bytes},
    extract::DefaultBodyLimit,
    routing::post,
    Json, Router,
};
use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use base64::Engine;
use serde::{Deserialize, Serialize};
use std::{
    convert::Infallible,
    sync::{
        atomic::{AtomicUsize, Ordering::Relaxed},
        Arc,
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

#[derive(Deserialize)]
struct In {
    input: f64,
}
#[derive(Serialize)]
struct Out {
    output: f64,
}
#[derive(Deserialize)]
struct Img<'a> {
    #[serde(borrow)]
    image: std::borrow::Cow<'a, str>,
}

type Job = (f64, oneshot::Sender<f64>);
#[derive(Clone)]
struct Queue {
    tx: mpsc::UnboundedSender<Job>,
    waiting: Arc<AtomicUsize>,
    limit: usize,
}

/// One worker thread: up to `max` jobs, waiting `wait` for the batch to fill, then `work` of sleep.
/// `limit`: most jobs that may wait (0: no limit, and callers that have gone are not looked for).
fn worker(max: usize, wait: Duration, work: Duration, limit: usize) -> Queue {
    let (tx, mut rx) = mpsc::unbounded_channel::<Job>();
    let waiting = Arc::new(AtomicUsize::new(0));
    let q = Queue { tx, waiting: waiting.clone(), limit };
    std::thread::spawn(move || {
        let rt = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        loop {
            let mut v: Vec<Job> = Vec::with_capacity(max);
            let Some(j) = rx.blocking_recv() else { return };
            let add = |v: &mut Vec<Job>, j: Job| {
                waiting.fetch_sub(1, Relaxed);
                if limit == 0 || !j.1.is_closed() {
                    v.push(j)
                }
            };
            add(&mut v, j);
            while v.len() < max {
                match rx.try_recv() {
                    Ok(j) => add(&mut v, j),
                    Err(_) => break,
                }
            }
            if v.is_empty() {
                continue;
            }
            if v.len() < max && !wait.is_zero() {
                rt.block_on(async {
                    let end = tokio::time::Instant::now() + wait;
                    while v.len() < max {
                        match tokio::time::timeout_at(end, rx.recv()).await {
                            Ok(Some(j)) => add(&mut v, j),
                            _ => break,
                        }
                    }
                });
            }
            std::thread::sleep(work);
            for (x, r) in v {
                let _ = r.send(x * x);
            }
        }
    });
    q
}

async fn noop(Json(i): Json<In>) -> Json<Out> {
    Json(Out { output: i.input * i.input })
}

fn queued(q: Queue) -> axum::routing::MethodRouter {
    post(move |Json(i): Json<In>| {
        let q = q.clone();
        async move {
            if q.waiting.fetch_add(1, Relaxed) >= q.limit && q.limit > 0 {
                q.waiting.fetch_sub(1, Relaxed);
                return Response::into_response(StatusCode::SERVICE_UNAVAILABLE.into_response());
            }
            let (s, r) = oneshot::channel();
            q.tx.send((i.input, s)).ok();
            Json(Out { output: r.await.unwrap() }).into_response()
        }
    })
}

async fn stream(Json(i): Json<In>) -> Body {
    let n = i.input as u64;
    Body::from_stream(futures_util::stream::iter(
        (0..n).map(|k| Ok::<_, Infallible>(Bytes::from(format!("{{\"output\": {k}}}\n")))),
    ))
}

async fn image(b: Bytes) -> Json<Out> {
    let i: Img = serde_json::from_slice(&b).unwrap();
    let raw = base64::engine::general_purpose::STANDARD.decode(i.image.as_bytes()).unwrap();
    Json(Out { output: crc32fast::hash(&raw) as f64 })
}

async fn raw_image(b: Bytes) -> Json<Out> {
    Json(Out { output: crc32fast::hash(&b) as f64 })
}

#[tokio::main]
async fn main() {
    let a: Vec<String> = std::env::args().collect();
    let ms = Duration::from_millis;
    let on = std::env::var_os("NO_LIMIT").is_none() as usize;
    let app = match a[1].as_str() {
        "w1" => Router::new().route("/predict", post(noop)),
        "w2" => Router::new().route("/predict", queued(worker(32, ms(5), ms(5), 0))),
        "w7" => Router::new().route("/predict", queued(worker(32, ms(5), ms(5), 3200 * on))),
        "w7b" => Router::new().route("/predict", queued(worker(32, ms(5), ms(50), 320 * on))),
        "w3" => Router::new().route("/predict", post(stream)),
        "w4" => Router::new()
            .route("/fast", post(noop))
            .route("/slow", queued(worker(1, ms(0), ms(50), 0))),
        "w5" | "w5typed" => Router::new().route("/predict", post(image)),
        "w5raw" => Router::new().route("/predict", post(raw_image)),
        w => {
            eprintln!("floor has no {w}");
            std::process::exit(64)
        }
    }
    .layer(DefaultBodyLimit::max(16 << 20));
    let l =
        tokio::net::TcpListener::bind(("127.0.0.1", a[2].parse::<u16>().unwrap())).await.unwrap();
    use axum::serve::ListenerExt;
    axum::serve(
        l.tap_io(|s| {
            s.set_nodelay(true).ok();
        }),
        app,
    )
    .await
    .unwrap();
}
