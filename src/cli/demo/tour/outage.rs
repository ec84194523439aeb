//! The tour's second half: the cluster DNS stops answering, and comes back.
//!
//! Read first: RFC 8767 section 5 (the timers), RFC 8914 (EDE 3, EDE 22).

use std::io::Write;
use std::ops::Range;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use tokio::task::JoinHandle;

use super::super::screen::show_time;
use super::super::server::Manner;
use super::{Ended, Source, Tour, Wanted, data, wrong};
use crate::cli::client::{AskError, Outcome, Question, Reply};

/// The name that is known before the outage, relative to which everything is shown.
pub(super) const KNOWN: &str = "kubernetes.default.svc.cluster.local";
/// A name that exists and is asked for the first time when nobody can answer.
const UNKNOWN: &str = "shop.default.svc.cluster.local";

/// Life of a cluster name in the demo's configuration (`max_ttl: 3s`), and a little.
const LIFE: Duration = Duration::from_millis(3_100);
/// Asks of the known name once its staleness is known.
const REPEATS: usize = 100;
/// Waiting this long means that the agent waited for the upstream again.
const AT_ONCE: Duration = Duration::from_millis(900);
/// Where the first stale answer has to lie: `client_timeout: 1.8s`, with room for a busy machine.
const FIRST_STALE: Range<Duration> = Duration::from_millis(1_500)..Duration::from_secs(3);
/// An agent that knows nothing gives up after 4 s; here too there is room for a busy machine.
const GIVES_UP: Duration = Duration::from_millis(4_700);
/// Longest time from the server's return to the first fresh answer.
const RECOVERY: Duration = Duration::from_secs(6);
/// Pause between two looks whether the server's return was noticed.
const LOOK: Duration = Duration::from_millis(100);

impl<W: Write> Tour<'_, W> {
    /// `known_since`: the moment at which [`KNOWN`] entered the cache.
    pub(super) async fn outage(&mut self, known_since: Instant) -> Result<(), Ended> {
        self.screen.section("The cluster DNS stops answering")?;
        let left = LIFE.saturating_sub(known_since.elapsed());
        self.screen.whisper(&format!("waiting {} for the TTLs to run out", show_time(left)))?;
        tokio::time::sleep(left).await;

        self.cluster.behave(Manner::Silent);
        let heard = self.cluster.queries();
        let unknown = Question::new(RecordType::A, UNKNOWN);
        let (question, agent) = (unknown.clone(), self.agent);
        let hopeless = tokio::spawn(async move { question.ask(agent).await });

        let stale = || Wanted { source: Source::Stale, result: data(&["10.96.0.1"]), ede: Some(3) };
        let reply = self.check(RecordType::A, KNOWN, "waits 1.8 s for a fresh answer", stale()).await?;
        if !FIRST_STALE.contains(&reply.took) {
            let question = Question::new(RecordType::A, KNOWN);
            return Err(wrong(&question, "a stale answer after 1.8 s", show_time(reply.took)));
        }
        self.known_name_stays_fast(&stale()).await?;
        let nas = data(&["192.168.1.10"]);
        let note = "Technitium is not concerned";
        self.step(RecordType::A, "nas.viktorbarzin.lan", note, Source::Technitium, nas).await?;
        self.unknown_name_fails(&unknown, hopeless).await?;
        self.tally.unheard = self.cluster.queries() - heard;
        self.recovery().await
    }

    async fn known_name_stays_fast(&mut self, wanted: &Wanted) -> Result<(), Ended> {
        let question = Question::new(RecordType::A, KNOWN);
        let mut times = Vec::with_capacity(REPEATS);
        let mut ttl = None;
        for _ in 0..REPEATS {
            let (reply, source) = self.ask(&question).await.map_err(|error| wrong(&question, wanted, error))?;
            let got = Wanted { source, result: reply.result, ede: reply.ede };
            if got != *wanted {
                return Err(wrong(&question, wanted, &got));
            }
            if reply.took > AT_ONCE {
                return Err(wrong(&question, "a stale answer at once", show_time(reply.took)));
            }
            times.push(reply.took);
            ttl = reply.ttl;
        }
        times.sort_unstable();
        let note = format!("and then no more: {REPEATS} times");
        let answer = format!("10.96.0.1 (EDE 3), slowest {}", show_time(times[REPEATS - 1]));
        self.screen.row(&question.to_string(), &note, &answer, Source::Stale, ttl, times[REPEATS / 2])?;
        Ok(())
    }

    async fn unknown_name_fails(
        &mut self,
        question: &Question,
        hopeless: JoinHandle<Result<Reply, AskError>>,
    ) -> Result<(), Ended> {
        let wanted = Wanted { source: Source::Nobody, result: Outcome::Failure("SERVFAIL".to_owned()), ede: Some(22) };
        let reply = hopeless.await.expect("asking does not panic").map_err(|error| wrong(question, &wanted, error))?;
        self.tally.asked += 1;
        self.tally.missed += 1;
        let got = Wanted { source: Source::Nobody, result: reply.result.clone(), ede: reply.ede };
        if got != wanted {
            return Err(wrong(question, &wanted, &got));
        }
        if reply.took > GIVES_UP {
            return Err(wrong(question, "SERVFAIL within 4 s", show_time(reply.took)));
        }
        self.screen.exchange(question, "never seen: an error, in time", &reply, Source::Nobody)?;
        Ok(())
    }

    async fn recovery(&mut self) -> Result<(), Ended> {
        self.screen.section("The cluster DNS is back")?;
        self.cluster.behave(Manner::Prompt);
        let back_at = Instant::now();
        let stale = Source::Stale;
        self.until_fresh(KNOWN, &data(&["10.96.0.1"]), stale, back_at).await?;
        self.until_fresh(UNKNOWN, &data(&["10.96.14.7"]), Source::Nobody, back_at).await
    }

    /// Asks until the cluster DNS is the one who answers; until then only `meanwhile` may.
    async fn until_fresh(
        &mut self,
        name: &str,
        wanted: &Outcome,
        meanwhile: Source,
        back_at: Instant,
    ) -> Result<(), Ended> {
        let question = Question::new(RecordType::A, name);
        loop {
            let (reply, source) = self.ask(&question).await.map_err(|error| wrong(&question, wanted, error))?;
            let fresh = matches!(source, Source::Cluster | Source::Hit | Source::Here) && reply.ede.is_none();
            if fresh && reply.result == *wanted {
                let note = format!("fresh {} after its return", show_time(back_at.elapsed()));
                // A refresh behind a stale answer is how the fresh one may have come: then this is a hit.
                self.know(&question);
                let source = if source == Source::Here { Source::Hit } else { source };
                return self.screen.exchange(&question, &note, &reply, source).map_err(Ended::from);
            }
            if fresh || source != meanwhile || back_at.elapsed() > RECOVERY {
                let got = Wanted { source, result: reply.result, ede: reply.ede };
                return Err(wrong(&question, format!("{wanted}, fresh"), &got));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
