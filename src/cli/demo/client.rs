//! The demo's client: one question, one fresh socket, one reply, and the time between.
//!
//! Built on hickory-proto, which shares no code with the agent: what is shown is what a stranger understood.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::UdpSocket;

/// The patience of glibc's resolver; what is not here by then is lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// Size offered for UDP answers, in octets. RFC 9715 section 3.1.
const PAYLOAD_SIZE: u16 = 1232;
/// Octets of a DNS header.
const HEADER: usize = 12;
/// EDNS option that carries an extended error. RFC 8914 section 2.
const EDE: EdnsCode = EdnsCode::Unknown(15);

/// A question as the user would type it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Question {
    pub(super) name: Name,
    pub(super) kind: RecordType,
}

/// A reply, reduced to what the demo shows and checks.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) result: Outcome,
    /// Lowest TTL of the answer section, or that of the SOA if the answer is negative.
    pub(super) ttl: Option<u32>,
    /// INFO-CODE of the first extended error. RFC 8914 section 4.
    pub(super) ede: Option<u16>,
    pub(super) took: Duration,
}

/// What a reply says. Its `Display` is what the screen shows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// The data of the answer section, in an order that does not depend on the server's.
    Data(Vec<String>),
    /// The name exists, this type does not.
    NoData,
    /// The name does not exist.
    NxDomain,
    Failure(String),
}

/// Why there is no [`Reply`].
#[derive(Debug)]
pub(super) enum AskError {
    Socket(io::Error),
    /// Nothing came in time.
    Lost,
    /// A datagram came that is no answer to the question, and why.
    Unfit(String),
}

// === impl Question ===

impl Question {
    /// # Panics
    /// If `name` is not a legal name; questions are written down in this program.
    pub(super) fn new(kind: RecordType, name: &str) -> Self {
        let mut name = Name::from_ascii(name).expect("names written down in this program are legal");
        name.set_fqdn(true);
        Self { name, kind }
    }

    /// Asks `server` over UDP from a port of its own, with EDNS.
    ///
    /// # Errors
    /// If nothing comes within 5 s, or the first thing to come does not fit the question octet for octet.
    pub(super) async fn ask(&self, server: SocketAddr) -> Result<Reply, AskError> {
        let query = self.query();
        let socket = UdpSocket::bind(match server {
            SocketAddr::V4(_) => "0.0.0.0:0",
            SocketAddr::V6(_) => "[::]:0",
        })
        .await?;
        socket.connect(server).await?;
        let asked_at = Instant::now();
        socket.send(&query).await?;
        let mut octets = [0; PAYLOAD_SIZE as usize];
        let received = tokio::time::timeout(PATIENCE, socket.recv(&mut octets)).await;
        let took = asked_at.elapsed();
        let length = received.map_err(|_| AskError::Lost)??;
        Reply::read(&octets[..length], &query, took)
    }

    fn query(&self) -> Vec<u8> {
        let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(self.name.clone(), self.kind));
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD_SIZE).set_version(0);
        message.set_edns(edns);
        message.to_vec().expect("one question fits into any message")
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.to_ascii();
        let shown = if name.len() > 1 { name.trim_end_matches('.') } else { &name };
        write!(f, "{:<5} {shown}", self.kind.to_string())
    }
}

// === impl Reply ===

impl Reply {
    /// Reads `octets` as the answer to `query`.
    fn read(octets: &[u8], query: &[u8], took: Duration) -> Result<Self, AskError> {
        let message = Message::from_vec(octets).map_err(|error| AskError::Unfit(error.to_string()))?;
        // The OPT record ends the query: 11 octets, and the question is all between it and the header.
        let question = &query[HEADER..query.len() - 11];
        if octets[..2] != query[..2] || octets.get(HEADER..HEADER + question.len()) != Some(question) {
            return Err(AskError::Unfit("it repeats another question than ours".to_owned()));
        }
        if message.metadata.message_type != MessageType::Response || !message.metadata.recursion_available {
            return Err(AskError::Unfit("its flags are not those of a resolver".to_owned()));
        }
        let ede = message.edns.as_ref().and_then(|edns| match edns.option(EDE) {
            Some(EdnsOption::Unknown(_, data)) => Some(u16::from_be_bytes([*data.first()?, *data.get(1)?])),
            _ => None,
        });
        let negative = message.authorities.iter().find(|it| it.record_type() == RecordType::SOA);
        let ttl = message.answers.iter().map(|it| it.ttl).min().or(negative.map(|soa| soa.ttl));
        let result = match message.metadata.response_code {
            ResponseCode::NoError if !message.answers.is_empty() => {
                let mut data: Vec<_> = message.answers.iter().map(|it| show(&it.data)).collect();
                data.sort();
                Outcome::Data(data)
            }
            ResponseCode::NoError if negative.is_some() => Outcome::NoData,
            ResponseCode::NXDomain => Outcome::NxDomain,
            ResponseCode::NoError => Outcome::Failure("empty, without SOA".to_owned()),
            ResponseCode::ServFail => Outcome::Failure("SERVFAIL".to_owned()),
            other => Outcome::Failure(other.to_str().to_owned()),
        };
        Ok(Self { result, ttl, ede, took })
    }
}

/// Record data as short as it stays clear.
fn show(data: &RData) -> String {
    let text = match data {
        RData::CNAME(target) => format!("alias of {}", target.0),
        RData::HTTPS(https) => https.0.svc_params.iter().fold(String::new(), |shown, (key, value)| {
            let value = value.to_string();
            format!("{shown}{}{key}={}", if shown.is_empty() { "" } else { " " }, value.trim_end_matches(','))
        }),
        other => other.to_string(),
    };
    text.trim_end_matches('.').to_owned()
}

// === impl Outcome ===

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(data) => f.write_str(&data.join(", ")),
            Self::Failure(what) => f.write_str(what),
            Self::NoData => f.write_str("NODATA"),
            Self::NxDomain => f.write_str("NXDOMAIN"),
        }
    }
}

// === impl AskError ===

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => write!(f, "no answer within {} s", PATIENCE.as_secs()),
            Self::Socket(error) => write!(f, "{error}"),
            Self::Unfit(why) => write!(f, "an answer that does not fit: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::names;
    use super::super::server::{Manner, Server};
    use super::*;

    fn ask(server: &Server, kind: RecordType, name: &str) -> Result<Reply, AskError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(Question::new(kind, name).ask(server.address()))
    }

    fn data(server: &Server, kind: RecordType, name: &str) -> Outcome {
        ask(server, kind, name).expect("a reply").result
    }

    #[test]
    fn the_cluster_dns_answers_every_kind_of_kubernetes_name() {
        let server = Server::start(names::cluster_dns()).expect("a server");
        let one = |data: &str| Outcome::Data(vec![data.to_owned()]);
        assert_eq!(data(&server, RecordType::A, "kubernetes.default.svc.cluster.local"), one("10.96.0.1"));
        assert_eq!(
            data(&server, RecordType::A, "web.default.svc.cluster.local").to_string(),
            "10.244.1.11, 10.244.2.12, 10.244.3.13"
        );
        assert_eq!(data(&server, RecordType::A, "web-1.web.default.svc.cluster.local"), one("10.244.2.12"));
        assert_eq!(
            data(&server, RecordType::PTR, "10.0.96.10.in-addr.arpa"),
            one("kube-dns.kube-system.svc.cluster.local")
        );
        assert_eq!(
            data(&server, RecordType::SRV, "_https._tcp.kubernetes.default.svc.cluster.local"),
            one("0 33 443 kubernetes.default.svc.cluster.local")
        );
        assert_eq!(
            data(&server, RecordType::A, "files.default.svc.cluster.local").to_string(),
            "192.0.2.21, alias of files.example.com"
        );
        assert_eq!(data(&server, RecordType::AAAA, "shop.default.svc.cluster.local"), Outcome::NoData);
        assert_eq!(data(&server, RecordType::A, "nobody.default.svc.cluster.local"), Outcome::NxDomain);
        assert_eq!(data(&server, RecordType::AAAA, "example.com"), one("2001:db8::80"));
        assert_eq!(data(&server, RecordType::MX, "example.com"), one("10 mail.example.com"));
        assert_eq!(
            data(&server, RecordType::HTTPS, "example.com"),
            one("alpn=h2,h3 ipv4hint=192.0.2.80 ipv6hint=2001:db8::80")
        );
    }

    #[test]
    fn technitium_knows_its_hosts_both_ways_and_nothing_else() {
        let server = Server::start(names::technitium()).expect("a server");
        let one = |data: &str| Outcome::Data(vec![data.to_owned()]);
        assert_eq!(data(&server, RecordType::A, "idrac.viktorbarzin.lan"), one("192.168.1.4"));
        assert_eq!(data(&server, RecordType::PTR, "4.1.168.192.in-addr.arpa"), one("idrac.viktorbarzin.lan"));
        assert!(matches!(data(&server, RecordType::A, "example.com"), Outcome::Failure(_)));
    }

    #[test]
    fn queries_are_counted_by_name_in_any_letter_case_and_probes_are_not() {
        let server = Server::start(names::technitium()).expect("a server");
        data(&server, RecordType::A, "idrac.viktorbarzin.lan");
        data(&server, RecordType::AAAA, "IDRAC.viktorbarzin.LAN");
        data(&server, RecordType::NS, ".");
        assert_eq!(server.queries_for(&Question::new(RecordType::A, "idrac.viktorbarzin.lan").name), 2);
        assert_eq!(server.queries(), 2);
    }

    #[test]
    fn a_slow_server_answers_late_and_a_stopped_one_has_closed_its_port() {
        let mut server = Server::start(names::technitium()).expect("a server");
        let delay = Duration::from_millis(30);
        server.behave(Manner::Slow(delay));
        assert!(ask(&server, RecordType::A, "nas.viktorbarzin.lan").expect("a reply").took >= delay);
        server.stop();
        let refused = ask(&server, RecordType::A, "nas.viktorbarzin.lan").expect_err("nobody is there");
        assert!(matches!(refused, AskError::Socket(error) if error.kind() == io::ErrorKind::ConnectionRefused));
    }

    #[test]
    fn a_silent_server_hears_the_question_and_says_nothing() {
        let server = Server::start(names::technitium()).expect("a server");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let question = Question::new(RecordType::A, "nas.viktorbarzin.lan");
        runtime.block_on(async {
            server.behave(Manner::Silent);
            let unheard = tokio::spawn({
                let (question, address) = (question.clone(), server.address());
                async move { question.ask(address).await }
            });
            while server.queries() == 0 {
                tokio::task::yield_now().await;
            }
            // Its answer, were there one, would be underway before this one.
            server.behave(Manner::Prompt);
            question.ask(server.address()).await.expect("a reply");
            assert!(!unheard.is_finished());
        });
    }

    #[test]
    fn an_answer_to_another_question_does_not_fit() {
        let query = Question::new(RecordType::A, "one.test").query();
        let mut other = Message::from_vec(&Question::new(RecordType::A, "two.test").query()).expect("our own query");
        other.metadata.id = u16::from_be_bytes([query[0], query[1]]);
        other.metadata.message_type = MessageType::Response;
        other.metadata.recursion_available = true;
        let octets = other.to_vec().expect("our own answer");
        assert!(matches!(Reply::read(&octets, &query, Duration::ZERO), Err(AskError::Unfit(_))));
    }
}
