//! The endpoints over real sockets: heads, limits, pages, streams.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::dump::testing::row;
use crate::dump::{DumpRow, Filter, Source};
use crate::metrics::{Arrival, Gauges, Metrics};

/// Longer than anything here may take; a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn metrics_are_served_in_the_text_format() {
    let metrics = Arc::new(Metrics::new(1, Gauges::default()));
    metrics.worker(0).queries.add(Arrival::TcpIpv4, 7);
    let at = start(Site::Metrics(metrics));
    let response = get(at, "/metrics").await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.contains("content-type: text/plain; version=0.0.4"), "{response}");
    assert!(response.contains("\nnodens_queries_total{transport=\"tcp\",family=\"ipv4\"} 7\n"), "{response}");
    assert!(!response.to_lowercase().contains("access-control"), "no CORS: {response}");
    assert!(get(at, "/healthz").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let missing = Arc::new(AtomicUsize::new(2));
    let seen = Arc::clone(&missing);
    let at = start(Site::Health(Readiness::new(move || {
        (0..seen.load(Ordering::Relaxed)).map(|at| format!("10.96.0.{at} does not answer")).collect()
    })));
    let response = get(at, "/readyz").await;
    assert!(response.starts_with("HTTP/1.1 503"), "{response}");
    assert!(response.ends_with("\r\n\r\n10.96.0.0 does not answer\n10.96.0.1 does not answer\n"), "{response}");
    for alive in ["/health", "/healthz"] {
        assert!(get(at, alive).await.starts_with("HTTP/1.1 200"), "alive, though not ready");
    }
    missing.store(0, Ordering::Relaxed);
    assert!(get(at, "/readyz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn the_cache_is_shown_as_json_with_filters() {
    let at = start(debug_site(3));
    let rows = rows(&get(at, "/debug/cache").await);
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[2], row(2));
    assert_eq!(self::rows(&get(at, "/debug/cache?zone=&limit=2").await).len(), 2);
    assert!(self::rows(&get(at, "/debug/cache?name=n1.t%65st&type=A").await) == [row(1)]);
    assert!(self::rows(&get(at, "/debug/cache?zone=other.test").await).is_empty());
    for bad in ["zone=a..b", "type=NOSUCH", "limit=x", "what=1", "name=%zz", "name=a&name=b"] {
        let response = get(at, &format!("/debug/cache?{bad}")).await;
        assert!(response.starts_with("HTTP/1.1 400"), "{bad}: {response}");
    }
    assert!(get(at, "/debug/plan").await.ends_with("{\n  \"zones\": 1\n}\n"));
    assert!(get(at, "/debug/upstreams").await.ends_with("[]\n"));
    assert!(get(at, "/debug/status").await.ends_with("{\n  \"ready\": true\n}\n"));
}

#[tokio::test]
async fn the_page_may_run_what_is_in_it_and_nothing_else() {
    let at = start(debug_site(1));
    let nonce = |response: &str| {
        let policy =
            response.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).expect("a policy");
        assert!(policy.starts_with("default-src 'none'; connect-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let (_, rest) = policy.split_once("script-src 'nonce-").expect("a nonce");
        rest.split_once('\'').expect("its end").0.to_owned()
    };
    let response = get(at, "/").await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.contains("content-type: text/html; charset=utf-8\r\n"), "{response}");
    let first = nonce(&response);
    assert_eq!((first.len(), response.matches(&format!("nonce=\"{first}\"")).count()), (32, 2), "style and script");
    assert!(!response.contains("NONCE"));
    assert_ne!(nonce(&get(at, "/").await), first, "of this response only");
    let head = ask(at, "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    nonce(&head);
    for other in ["/index.html", "/favicon.ico", "//", "/debug/", "/../"] {
        assert!(get(at, other).await.starts_with("HTTP/1.1 404"), "{other}");
    }
    let rebound = ask(at, "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n").await;
    assert!(rebound.starts_with("HTTP/1.1 421"), "{rebound}");
}

#[tokio::test]
async fn a_large_dump_is_pulled_only_as_fast_as_it_is_read() {
    let pulled = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&pulled);
    let cache = Source::new(move |_: &Filter| {
        let seen = Arc::clone(&seen);
        (0..1_000_000).map(row).inspect(move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
        })
    });
    let at = start(Site::Debug(Debug {
        cache,
        upstreams: Box::new(|| 0.into()),
        node: Box::new(|| 0.into()),
        plan: Box::new(|| 0.into()),
        status: Box::new(|| 0.into()),
        top: Box::new(|_| 0.into()),
    }));
    let mut stream = connect(at).await;
    stream.write_all(b"GET /debug/cache HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    let mut some = vec![0; 64 * 1024];
    timeout(PATIENCE, stream.read_exact(&mut some)).await.expect("in time").expect("64 KiB");
    // The same thread serves another connection meanwhile: pulling has stopped where the sockets' buffers ended.
    assert_eq!(rows(&get(at, "/debug/cache?limit=1").await).len(), 1);
    let pulled = pulled.load(Ordering::Relaxed);
    assert!((200..200_000).contains(&pulled), "{pulled} rows were pulled for 64 KiB read");
}

#[tokio::test]
async fn the_most_frequent_are_as_many_as_wanted() {
    let at = start(debug_site(1));
    assert!(get(at, "/debug/top").await.ends_with("\"limit\": 20\n}\n"));
    assert!(get(at, "/debug/top?limit=3").await.ends_with("\"limit\": 3\n}\n"));
    for wrong in ["limit=x", "name=a.test", "zone=test", "type=A", "order=up"] {
        assert!(get(at, &format!("/debug/top?{wrong}")).await.starts_with("HTTP/1.1 400"), "{wrong}");
    }
}

#[tokio::test]
async fn the_debug_listener_answers_no_rebound_name() {
    let at = start(debug_site(1));
    for host in ["evil.test", "evil.test:9254"] {
        let response = ask(at, &format!("GET /debug/plan HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert!(response.starts_with("HTTP/1.1 421") && !response.contains("zones"), "{response}");
    }
}

#[tokio::test]
async fn nothing_but_get_and_head_without_a_body_is_answered() {
    let at = start(debug_site(1));
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        let response = ask(at, &format!("{method} /debug/plan HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert!(response.starts_with("HTTP/1.1 405") && response.contains("allow: GET, HEAD"), "{response}");
    }
    let posted = "POST /debug/plan HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";
    assert!(ask(at, posted).await.starts_with("HTTP/1.1 405"));
    let body = "GET /debug/plan HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";
    assert!(ask(at, body).await.starts_with("HTTP/1.1 413"));
    let chunked = "GET /debug/plan HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert!(ask(at, chunked).await.starts_with("HTTP/1.1 413"));
    for path in ["/debug/plan", "/debug/cache"] {
        let head = ask(at, &format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    }
}

#[tokio::test]
async fn one_request_a_connection_however_many_are_sent() {
    let at = start(debug_site(1));
    let twice = "GET /debug/plan HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2);
    assert_eq!(ask(at, &twice).await.matches("HTTP/1.1 ").count(), 1);
}

#[tokio::test]
async fn a_head_above_8_kib_is_refused() {
    let at = start(debug_site(1));
    let head = |padding: usize| {
        format!("GET /debug/plan HTTP/1.1\r\nHost: localhost\r\nX-Padding: {}\r\n\r\n", "a".repeat(padding))
    };
    assert!(ask(at, &head(7 * 1024)).await.starts_with("HTTP/1.1 200"));
    let refused = ask(at, &head(9 * 1024)).await;
    // The refusal itself may be lost to the reset that follows what was not read.
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431"), "{refused}");
    assert!(get(at, "/debug/plan").await.starts_with("HTTP/1.1 200"), "others are served on");
}

#[tokio::test]
async fn a_head_that_takes_longer_than_2_s_is_cut_off() {
    let at = start(debug_site(1));
    let began = Instant::now();
    let mut stream = connect(at).await;
    let slow = async {
        // An octet every 100 ms: the time of the whole head counts, not the pause between two octets.
        for octet in
            b"GET /debug/plan HTTP/1.1\r\nHost: localhost\r\nX-Padding: ".iter().chain(std::iter::repeat(&b'a'))
        {
            stream.write_all(std::slice::from_ref(octet)).await?;
            match timeout(Duration::from_millis(100), stream.read(&mut [0; 64])).await {
                Ok(Ok(0)) => return Ok(()),
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
        Ok(())
    };
    let _: io::Result<()> = timeout(PATIENCE, slow).await.expect("cut off in time");
    assert!(began.elapsed() >= HEAD_TIME, "an honest client has its 2 s");
}

#[tokio::test]
async fn a_17th_connection_waits_for_a_place() {
    let at = start(debug_site(1));
    let began = Instant::now();
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        idle.push(connect(at).await);
    }
    assert!(get(at, "/debug/plan").await.starts_with("HTTP/1.1 200"));
    // The others hold their places until they are cut off; only then was there one to answer it from.
    assert!(began.elapsed() >= HEAD_TIME, "answered although every place was taken");
    drop(idle);
}

#[tokio::test]
async fn a_taken_port_is_reported_and_nothing_else_happens() {
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let at = taken.local_addr().expect("an address");
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let serving = keep_serving(at, Arc::new(debug_site(1)), move |outcome| {
        let _ = tell.send(outcome.map_err(|error| error.kind()));
    });
    let serving = tokio::spawn(serving);
    let first = timeout(PATIENCE, told.recv()).await.expect("in time");
    assert_eq!(first, Some(Err(io::ErrorKind::AddrInUse)));
    drop(taken);
    let second = timeout(PATIENCE, told.recv()).await.expect("tried again in time");
    assert_eq!(second, Some(Ok(at)));
    assert!(get(at, "/debug/plan").await.starts_with("HTTP/1.1 200"));
    serving.abort();
}

fn start(site: Site) -> SocketAddr {
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
    let at = listener.local_addr().expect("an address");
    tokio::spawn(serve(listener, Arc::new(site)));
    at
}

fn debug_site(entries: usize) -> Site {
    let cache = Source::new(move |filter: &Filter| {
        let filter = filter.clone();
        (0..entries).map(row).filter(move |row| {
            let name = row.name.parse().expect("a name");
            filter.admits(&name, row.qtype.parse().expect("a type"))
        })
    });
    Site::Debug(Debug {
        cache,
        upstreams: Box::new(|| serde_json::json!([])),
        node: Box::new(|| serde_json::Value::Null),
        plan: Box::new(|| serde_json::json!({ "zones": 1 })),
        status: Box::new(|| serde_json::json!({ "ready": true })),
        top: Box::new(|limit| serde_json::json!({ "limit": limit })),
    })
}

/// The rows in the chunked body of a response.
fn rows(response: &str) -> Vec<DumpRow> {
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    let (head, mut body) = response.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    let mut json = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a length");
        json.push_str(&rest[..length]);
        body = rest[length..].strip_prefix("\r\n").expect("the end of a chunk");
    }
    serde_json::from_str(&json).expect("a JSON array")
}

async fn get(at: SocketAddr, target: &str) -> String {
    ask(at, &format!("GET {target} HTTP/1.1\r\nHost: {at}\r\n\r\n")).await
}

/// Sends `request` and returns everything that comes back until the end of the connection.
async fn ask(at: SocketAddr, request: &str) -> String {
    let mut stream = connect(at).await;
    // The server may have hung up on what it does not want to read.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut response = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut response)).await.expect("closed in time");
    String::from_utf8(response).expect("text")
}

async fn connect(at: SocketAddr) -> TcpStream {
    timeout(PATIENCE, TcpStream::connect(at)).await.expect("in time").expect("connected")
}
