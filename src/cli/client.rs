//! The client of `demo` and `verify`: one question, one fresh socket, one reply, and the time between.
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

/// A reply, reduced to what is shown and checked.
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
    use super::*;

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
