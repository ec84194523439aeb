//! Which page answers which request.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode};

use super::body::Content;
use super::page as status_page;
use crate::dump::{Field, Filter, Source};
use crate::metrics::Metrics;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// The Prometheus text format, version 0.0.4.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Names and clients at /debug/top, unless the request says otherwise.
const TOP: usize = 20;
const HTML: &str = "text/html; charset=utf-8";

/// What one listener shows.
#[derive(Debug)]
pub enum Site {
    /// For people; only for browsers that were given an address, not a name.
    Debug(Debug),
    /// For the kubelet.
    Health(Readiness),
    /// For Prometheus.
    Metrics(Arc<Metrics>),
}

/// Names what is missing before the agent is ready, nothing if it is.
pub struct Readiness(Box<dyn Fn() -> Vec<String> + Send + Sync>);

/// Where the debug pages come from.
pub struct Debug {
    /// The cache, entry by entry.
    pub cache: Source,
    /// The upstreams' servers and their health.
    pub upstreams: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// What we are on this host; null: nothing.
    pub node: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// The plan in force.
    pub plan: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// How the agent stands.
    pub status: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// At most so many of the names and clients that come up most.
    pub top: Box<dyn Fn(usize) -> serde_json::Value + Send + Sync>,
}

/// Why a request gets no page.
#[derive(Debug)]
enum Refusal {
    BadQuery(String),
    BadHost,
    Body,
    Method,
    NotFound,
}

// === impl Site ===

impl Site {
    /// The response to `request`, of which only the head is looked at.
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Response<Content> {
        let page = check(request).and_then(|()| match self {
            Self::Debug(debug) => debug.page(request),
            Self::Health(readiness) => readiness.page(request),
            Self::Metrics(metrics) => match request.uri().path() {
                "/metrics" => Ok(page(StatusCode::OK, EXPOSITION, Content::text(metrics.render()))),
                _ => Err(Refusal::NotFound),
            },
        });
        page.unwrap_or_else(Refusal::page)
    }
}

/// What holds for every request to every listener.
fn check<B>(request: &Request<B>) -> Result<(), Refusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Refusal::Method);
    }
    let length = request.headers().get(CONTENT_LENGTH);
    if request.headers().contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length != "0") {
        return Err(Refusal::Body);
    }
    Ok(())
}

// === impl Readiness ===

impl Readiness {
    /// Readiness as `missing` sees it: one line for each thing that is.
    pub fn new(missing: impl Fn() -> Vec<String> + Send + Sync + 'static) -> Self {
        Self(Box::new(missing))
    }

    fn page<B>(&self, request: &Request<B>) -> Result<Response<Content>, Refusal> {
        match request.uri().path() {
            "/health" | "/healthz" => Ok(page(StatusCode::OK, TEXT, Content::text("OK\n"))),
            "/readyz" => {
                let missing = (self.0)();
                if missing.is_empty() {
                    return Ok(page(StatusCode::OK, TEXT, Content::text("ready\n")));
                }
                let lines: String = missing.iter().flat_map(|line| [line, "\n"]).collect();
                Ok(page(StatusCode::SERVICE_UNAVAILABLE, TEXT, Content::text(lines)))
            }
            _ => Err(Refusal::NotFound),
        }
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Readiness")
    }
}

// === impl Debug ===

impl Debug {
    fn page<B>(&self, request: &Request<B>) -> Result<Response<Content>, Refusal> {
        if !is_local(request) {
            return Err(Refusal::BadHost);
        }
        let content = match request.uri().path() {
            "/" => {
                let nonce = status_page::nonce();
                let mut response = page(StatusCode::OK, HTML, status_page::content(&nonce));
                status_page::protect(&mut response, &nonce);
                return Ok(response);
            }
            "/debug/cache" => {
                let filter = filter(request.uri().query().unwrap_or_default())?;
                Content::rows(self.cache.open(&filter))
            }
            "/debug/node" => Content::text(format!("{:#}\n", (self.node)())),
            "/debug/plan" => Content::text(format!("{:#}\n", (self.plan)())),
            "/debug/status" => Content::text(format!("{:#}\n", (self.status)())),
            "/debug/top" => {
                let filter = filter(request.uri().query().unwrap_or_default())?;
                let Filter { zone: None, name: None, qtype: None, limit } = filter else {
                    return Err(Refusal::BadQuery("only limit has a meaning here".to_owned()));
                };
                Content::text(format!("{:#}\n", (self.top)(limit.unwrap_or(TOP))))
            }
            "/debug/upstreams" => Content::text(format!("{:#}\n", (self.upstreams)())),
            _ => return Err(Refusal::NotFound),
        };
        Ok(page(StatusCode::OK, JSON, content))
    }
}

impl fmt::Debug for Debug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Debug")
    }
}

/// Whether the client was given an address or `localhost`. A web page that has its own name point here (DNS rebinding)
/// makes the browser send that name.
fn is_local<B>(request: &Request<B>) -> bool {
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let named = request.uri().authority();
    let local = |authority: &Authority| {
        let host = authority.host();
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        host.eq_ignore_ascii_case("localhost") || literal.parse::<IpAddr>().is_ok()
    };
    // RFC 9112 section 3.2.2: the target's authority goes before Host, so both must do.
    header.as_ref().is_some_and(local) && named.is_none_or(local)
}

/// The filter of a query string. An empty value counts as left out; a key may come once.
fn filter(query: &str) -> Result<Filter, Refusal> {
    let mut filter = Filter::default();
    let mut seen = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(field) = Field::of_label(key) else {
            return Err(Refusal::BadQuery(format!("unknown key; there are zone, name, type and limit, got {key:?}")));
        };
        if seen.contains(&field) {
            return Err(Refusal::BadQuery(format!("{}: given twice", field.label())));
        }
        seen.push(field);
        let Some(value) = percent_decode(value) else {
            return Err(Refusal::BadQuery(format!("{}: broken percent encoding", field.label())));
        };
        if !value.is_empty() {
            filter.set(field, &value).map_err(|bad| Refusal::BadQuery(bad.to_string()))?;
        }
    }
    Ok(filter)
}

/// The text behind a percent-encoded one (RFC 3986 section 2.1; `+` is a plus). `None` if it is broken or no UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut octets = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        octets.push(u8::from_str_radix(digits, 16).ok()?);
        octets.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(octets).ok()
}

// === impl Refusal ===

impl Refusal {
    fn page(self) -> Response<Content> {
        let (status, text) = match self {
            Self::BadQuery(why) => (StatusCode::BAD_REQUEST, why),
            Self::BadHost => (StatusCode::MISDIRECTED_REQUEST, "ask for an address or localhost".to_owned()),
            Self::Body => (StatusCode::PAYLOAD_TOO_LARGE, "no body is taken".to_owned()),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD".to_owned()),
            Self::NotFound => (StatusCode::NOT_FOUND, "no such page".to_owned()),
        };
        let mut response = page(status, TEXT, Content::text(text + "\n"));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

fn page(status: StatusCode, kind: &'static str, content: Content) -> Response<Content> {
    let mut response = Response::new(content);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // What a client named is shown back as text, whatever a browser would make of it.
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percent_encoding_is_undone_or_refused() {
        assert_eq!(percent_decode("a%2eb%5C046+c").as_deref(), Some("a.b\\046+c"));
        for broken in ["%", "a%2", "%+1", "%zz", "%ff", "%é1"] {
            assert_eq!(percent_decode(broken), None, "{broken}");
        }
    }

    #[test]
    fn only_an_address_or_localhost_is_a_local_host() {
        let asked = |host: &str| is_local(&Request::get("/").header(HOST, host).body(()).expect("a request"));
        for host in ["127.0.0.1:9254", "localhost", "LocalHost:9254", "[::1]:9254", "10.0.0.7"] {
            assert!(asked(host), "{host}");
        }
        for host in ["evil.test", "localhost.evil.test:9254", "127.0.0.1.evil.test", "", "a b"] {
            assert!(!asked(host), "{host}");
        }
        assert!(!is_local(&Request::get("/").body(()).expect("a request")), "no Host at all");
        let absolute = Request::get("http://evil.test/").header(HOST, "127.0.0.1").body(()).expect("a request");
        assert!(!is_local(&absolute));
    }
}
