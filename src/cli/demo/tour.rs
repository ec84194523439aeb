//! The tour: what is asked, what must come back, who must have answered.
//!
//! Nothing is believed: the answer is compared, and who answered is read from the servers' own counts. The first
//! difference ends the tour.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hickory_proto::rr::{Name, RecordType};
use tokio::task::JoinSet;

use super::screen::Screen;
use super::server::{Manner, Server};
use crate::cli::client::{AskError, Outcome, Question, Reply};

mod outage;

/// Clients that ask for one name in the same moment.
const CROWD: usize = 200;
/// What the cluster DNS takes for its answer meanwhile, so that all of them are there before it comes.
const CROWD_DELAY: Duration = Duration::from_millis(100);

/// The tour's means and its account of what happened.
pub(super) struct Tour<'a, W> {
    agent: SocketAddr,
    cluster: &'a Server,
    technitium: &'a Server,
    screen: &'a mut Screen<W>,
    /// Questions that an upstream has answered.
    known: HashSet<(Name, RecordType)>,
    pub(super) tally: Tally,
}

/// The numbers of the summary.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Tally {
    pub(super) asked: u64,
    /// Answers that had to wait for an upstream of their own, failures included.
    pub(super) missed: u64,
    /// Queries that reached the cluster DNS while it said nothing.
    pub(super) unheard: u64,
}

/// Who answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Source {
    Cluster,
    /// The agent, by its own rules.
    Here,
    /// The agent, from its cache.
    Hit,
    /// Nobody had an answer.
    Nobody,
    /// The agent, from its cache, after the answer's time (RFC 8767).
    Stale,
    Technitium,
}

/// What a step must bring, or brought.
#[derive(Debug, Eq, PartialEq)]
struct Wanted {
    source: Source,
    result: Outcome,
    ede: Option<u16>,
}

/// Why a tour ended early.
#[derive(Debug)]
pub(super) enum Ended {
    /// The screen is gone.
    Screen(io::Error),
    /// An answer was not what it must be.
    Wrong { asked: String, wanted: String, got: String },
}

// === impl Tour ===

impl<'a, W: Write> Tour<'a, W> {
    pub(super) fn new(
        agent: SocketAddr,
        cluster: &'a Server,
        technitium: &'a Server,
        screen: &'a mut Screen<W>,
    ) -> Self {
        Self { agent, cluster, technitium, screen, known: HashSet::new(), tally: Tally::default() }
    }

    /// Takes all steps, in about nine seconds.
    ///
    /// # Errors
    /// The first answer that is wrong, or the screen's error.
    pub(super) async fn take(&mut self) -> Result<(), Ended> {
        let known_since = self.cache().await?;
        self.kinds().await?;
        self.routes().await?;
        self.rules().await?;
        self.crowd().await?;
        self.outage(known_since).await
    }

    /// Returns the moment from which the first name lives.
    async fn cache(&mut self) -> Result<Instant, Ended> {
        self.screen.section("A cache")?;
        let address = || data(&["10.96.0.1"]);
        self.step(RecordType::A, outage::KNOWN, "asked for the first time", Source::Cluster, address()).await?;
        let known_since = Instant::now();
        self.step(RecordType::A, outage::KNOWN, "asked again", Source::Hit, address()).await?;
        let shouted = "KUBERNETES.Default.SVC.Cluster.Local";
        self.step(RecordType::A, shouted, "any letter case, yours returned", Source::Hit, address()).await?;
        Ok(known_since)
    }

    async fn kinds(&mut self) -> Result<(), Ended> {
        self.screen.section("Every kind of name a cluster has")?;
        let pods = data(&["10.244.1.11", "10.244.2.12", "10.244.3.13"]);
        self.step(RecordType::A, "web.default.svc.cluster.local", "a headless Service", Source::Cluster, pods).await?;
        let pod = "web-1.web.default.svc.cluster.local";
        self.step(RecordType::A, pod, "a pod of a StatefulSet", Source::Cluster, data(&["10.244.2.12"])).await?;
        let service = data(&["kube-dns.kube-system.svc.cluster.local"]);
        self.step(RecordType::PTR, "10.0.96.10.in-addr.arpa", "whose address is it?", Source::Cluster, service).await?;
        let files = data(&["192.0.2.21", "alias of files.example.com"]);
        self.step(RecordType::A, "files.default.svc.cluster.local", "an ExternalName", Source::Cluster, files).await?;
        let mail = data(&["10 mail.example.com"]);
        self.step(RecordType::MX, "example.com", "everything else", Source::Cluster, mail).await
    }

    async fn routes(&mut self) -> Result<(), Ended> {
        self.screen.section("A zone with servers of its own")?;
        let idrac = "idrac.viktorbarzin.lan";
        let address = || data(&["192.168.1.4"]);
        self.step(RecordType::A, idrac, "routed to Technitium", Source::Technitium, address()).await?;
        self.step(RecordType::A, idrac, "and cached", Source::Hit, address()).await?;
        let reverse = "4.1.168.192.in-addr.arpa";
        self.step(RecordType::PTR, reverse, "its reverse zone too", Source::Technitium, data(&[idrac])).await
    }

    async fn rules(&mut self) -> Result<(), Ended> {
        self.screen.section("Answered here: no upstream hears of these")?;
        let reasons = "EDE, the reason sent along: 17 filtered, 29 made here, 3 stale, 22 no server";
        self.screen.whisper(reasons)?;
        let noise = "www.google.com.viktorbarzin.lan";
        self.step(RecordType::A, noise, "search-list noise (max_labels)", Source::Here, Outcome::NxDomain).await?;
        let forge = "forgejo.viktorbarzin.me";
        self.step(RecordType::A, forge, "pinned to an address", Source::Here, data(&["10.97.4.20"])).await?;
        let tracker = "tracker.emrsn.org";
        self.step(RecordType::A, tracker, "a zone answered NXDOMAIN", Source::Here, Outcome::NxDomain).await?;

        self.screen.section("No IPv6 here: AAAA is answered from A, so both agree (aaaa: strip)")?;
        let www = "www.example.com";
        self.step(RecordType::A, www, "the name has A and AAAA", Source::Cluster, data(&["192.0.2.80"])).await?;
        let stripped = Wanted { source: Source::Here, result: Outcome::NoData, ede: Some(17) };
        self.check(RecordType::AAAA, www, "NODATA with SOA: it exists", stripped).await?;
        let nobody = "nobody.example.com";
        self.step(RecordType::A, nobody, "a name that does not exist", Source::Cluster, Outcome::NxDomain).await?;
        self.step(RecordType::AAAA, nobody, "NXDOMAIN as well", Source::Here, Outcome::NxDomain).await?;
        let https = data(&["alpn=h2,h3 ipv4hint=192.0.2.80"]);
        self.step(RecordType::HTTPS, "example.com", "without its ipv6hint", Source::Cluster, https).await
    }

    /// Everybody asks for one name that nobody has asked for.
    async fn crowd(&mut self) -> Result<(), Ended> {
        self.screen.section("One name, 200 clients, the same moment")?;
        let question = Question::new(RecordType::A, "api.default.svc.cluster.local");
        let before = self.cluster.queries_for(&question.name);
        self.cluster.behave(Manner::Slow(CROWD_DELAY));
        let mut clients = JoinSet::new();
        for _ in 0..CROWD {
            let (question, agent) = (question.clone(), self.agent);
            clients.spawn(async move { question.ask(agent).await });
        }
        let replies = clients.join_all().await;
        self.cluster.behave(Manner::Prompt);
        self.tally.asked += CROWD as u64;
        self.tally.missed += 1;

        let wanted = data(&["10.96.14.8"]);
        let (mut slowest, mut ttl) = (Duration::ZERO, None);
        for reply in replies {
            let reply = reply.map_err(|error| wrong(&question, &wanted, error))?;
            if reply.result != wanted {
                return Err(wrong(&question, &wanted, reply.result));
            }
            (slowest, ttl) = (slowest.max(reply.took), reply.ttl);
        }
        let queries = self.cluster.queries_for(&question.name) - before;
        if queries != 1 {
            return Err(wrong(&question, "1 upstream query", format!("{queries} upstream queries")));
        }
        self.know(&question);
        let answer = format!("{wanted}, {CROWD} times");
        self.screen.row(&question.to_string(), "1 upstream query", &answer, Source::Cluster, ttl, slowest)?;
        Ok(())
    }

    /// A step whose answer carries no extended error.
    async fn step(
        &mut self,
        kind: RecordType,
        name: &str,
        note: &str,
        source: Source,
        result: Outcome,
    ) -> Result<(), Ended> {
        self.check(kind, name, note, Wanted { source, result, ede: None }).await.map(drop)
    }

    /// Asks, compares and shows.
    async fn check(&mut self, kind: RecordType, name: &str, note: &str, wanted: Wanted) -> Result<Reply, Ended> {
        let question = Question::new(kind, name);
        let (reply, source) = self.ask(&question).await.map_err(|error| wrong(&question, &wanted, error))?;
        let got = Wanted { source, result: reply.result.clone(), ede: reply.ede };
        // An extended error may explain what needs none; it must not be missing or another one.
        let ede_fits = wanted.ede.is_none() || wanted.ede == got.ede;
        if got.source != wanted.source || got.result != wanted.result || !ede_fits {
            return Err(wrong(&question, &wanted, &got));
        }
        if reply.ttl == Some(0) {
            return Err(wrong(&question, "a TTL above 0", "TTL 0"));
        }
        self.screen.exchange(&question, note, &reply, source)?;
        Ok(reply)
    }

    /// Asks and finds out who answered.
    async fn ask(&mut self, question: &Question) -> Result<(Reply, Source), AskError> {
        let before = (self.cluster.queries_for(&question.name), self.technitium.queries_for(&question.name));
        self.tally.asked += 1;
        let reply = question.ask(self.agent).await?;
        let cluster = self.cluster.queries_for(&question.name) > before.0;
        let technitium = self.technitium.queries_for(&question.name) > before.1;
        if cluster && technitium {
            return Err(AskError::Unfit("both upstreams were asked".to_owned()));
        }
        let source = match &reply.result {
            Outcome::Failure(_) => Source::Nobody,
            // RFC 8914 sections 4.4 and 4.20.
            _ if matches!(reply.ede, Some(3 | 19)) => Source::Stale,
            _ if cluster => Source::Cluster,
            _ if technitium => Source::Technitium,
            _ if self.known.contains(&(question.name.to_lowercase(), question.kind)) => Source::Hit,
            _ => Source::Here,
        };
        match source {
            Source::Cluster | Source::Technitium => {
                self.know(question);
                self.tally.missed += 1;
            }
            Source::Nobody => self.tally.missed += 1,
            Source::Here | Source::Hit | Source::Stale => {}
        }
        Ok((reply, source))
    }

    fn know(&mut self, question: &Question) {
        self.known.insert((question.name.to_lowercase(), question.kind));
    }
}

/// The outcome with these data, given in their sorted order.
fn data(records: &[&str]) -> Outcome {
    Outcome::Data(records.iter().map(|&it| it.to_owned()).collect())
}

fn wrong(asked: &Question, wanted: impl fmt::Display, got: impl fmt::Display) -> Ended {
    Ended::Wrong { asked: asked.to_string(), wanted: wanted.to_string(), got: got.to_string() }
}

// === impl Tally ===

impl Tally {
    /// Whole percent of the questions that were answered without waiting for an upstream of their own.
    pub(super) fn hit_rate(self) -> u64 {
        (self.asked - self.missed) * 100 / self.asked.max(1)
    }
}

// === impl Source ===

impl Source {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Cluster => "cluster DNS",
            Self::Here => "here",
            Self::Hit => "hit",
            Self::Nobody => "nobody",
            Self::Stale => "stale",
            Self::Technitium => "Technitium",
        }
    }
}

// === impl Wanted ===

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from: {}", self.result, self.source.label())?;
        self.ede.map_or(Ok(()), |code| write!(f, ", EDE {code}"))
    }
}

// === impl Ended ===

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Screen(error)
    }
}

#[cfg(test)]
mod tests {
    use super::super::names;
    use super::*;

    #[test]
    fn a_server_that_is_no_cache_fails_the_tour_at_the_second_step() {
        let cluster = Server::start(names::cluster_dns()).expect("a server");
        let technitium = Server::start(names::technitium()).expect("a server");
        let mut screen = Screen::new(Vec::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut tour = Tour::new(cluster.address(), &cluster, &technitium, &mut screen);
        let Err(Ended::Wrong { asked, wanted, got }) = runtime.block_on(tour.take()) else {
            panic!("a tour without a cache came through");
        };
        assert_eq!(asked, "A     kubernetes.default.svc.cluster.local");
        assert_eq!(wanted, "10.96.0.1 from: hit");
        assert_eq!(got, "10.96.0.1 from: cluster DNS");
        assert_eq!(tour.tally, Tally { asked: 2, missed: 2, unheard: 0 });
    }

    #[test]
    fn a_wrong_answer_fails_its_step() {
        let cluster = Server::start(names::cluster_dns()).expect("a server");
        let technitium = Server::start(names::technitium()).expect("a server");
        let mut screen = Screen::new(Vec::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut tour = Tour::new(technitium.address(), &cluster, &technitium, &mut screen);
        let step = tour.step(RecordType::A, "nas.viktorbarzin.lan", "", Source::Technitium, data(&["192.168.1.9"]));
        let Err(Ended::Wrong { got, .. }) = runtime.block_on(step) else { panic!("a wrong answer came through") };
        assert_eq!(got, "192.168.1.10 from: Technitium");
    }

    #[test]
    fn the_hit_rate_of_nothing_is_zero() {
        assert_eq!(Tally::default().hit_rate(), 0);
        assert_eq!(Tally { asked: 8, missed: 1, unheard: 0 }.hit_rate(), 87);
    }
}
