//! Plays a scenario: carries out its steps one by one and compares what happens with what it says.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hickory_proto::op::Message;

use nodens::cache::Filter;
use nodens::wire::{Name, Transport};

use crate::client::{Heard, Inquiry, Outcome};
use crate::reply;
use crate::script::{Bound, Manner, Says, Sent, Step, Target, What, When, Words};
use crate::world::{CONFIG, Content, Send, World};
use crate::{message, script};

/// Why a scenario does not hold, and where.
#[derive(Debug)]
pub struct Failure {
    pub file: String,
    pub line: usize,
    pub text: String,
    /// What the clock showed; `None` if the scenario did not begin.
    pub at: Option<Duration>,
    pub trouble: Trouble,
}

#[derive(Debug)]
pub enum Trouble {
    Differs {
        expected: String,
        got: String,
    },
    /// The scenario itself is wrong, or something happened that may never happen.
    Wrong(String),
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}:{}: {}", self.file, self.line, self.text)?;
        if let Some(at) = self.at {
            writeln!(f, "  clock:    {at:?}")?;
        }
        match &self.trouble {
            Trouble::Differs { expected, got } => writeln!(f, "  expected: {expected}\n  got:      {got}"),
            Trouble::Wrong(why) => writeln!(f, "  {why}"),
        }
    }
}

/// Plays the scenario `text` of the file called `file`.
pub fn play(file: &str, text: &str) -> Result<(), Failure> {
    let fails =
        |line, text: &str, at, trouble| Failure { file: file.to_owned(), line, text: text.to_owned(), at, trouble };
    let script = script::read(text).map_err(|it| fails(it.line, &it.text, None, it.why.into()))?;
    let plan = plan(script.config.as_deref().unwrap_or(CONFIG)).map_err(|why| fails(1, "config:", None, why.into()))?;
    let mut player = Player { world: World::new(plan), ids: 0 };
    let mut place = (0, String::new());
    let played = player.steps(&script.steps, None, &mut place).and_then(|()| {
        place = (text.lines().count(), "the end".to_owned());
        player.nothing_left()?;
        same("flights", 0, player.world.resolver.in_flight())?;
        same("clients waiting", 0, player.world.waiting())
    });
    played.map_err(|trouble| fails(place.0, &place.1, Some(player.world.clock()), trouble))
}

fn plan(yaml: &str) -> Result<nodens::plan::Plan, String> {
    nodens::config::parse(yaml, "config", &|_| None).map_err(|errors| format!("{errors}"))
}

struct Player {
    world: World,
    /// The last ID given to a query.
    ids: u16,
}

impl Player {
    fn steps(&mut self, steps: &[Step], nth: Option<usize>, place: &mut (usize, String)) -> Result<(), Trouble> {
        for step in steps {
            place.0 = step.line;
            place.1.clone_from(&step.text);
            if let What::Repeat { times, every, steps } = &step.what {
                let start = self.world.clock();
                for nth in 1..=*times {
                    if let Some(every) = every {
                        self.advance(start + *every * (nth - 1) as u32)?;
                    }
                    self.steps(steps, Some(nth), place)?;
                }
            } else {
                self.step(&step.what, nth)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, what: &What, nth: Option<usize>) -> Result<(), Trouble> {
        match what {
            What::Ask { times, label, name, rtype, words } => {
                for time in 1..=*times {
                    self.ask(label, &fill(name, nth.or(Some(time))), rtype, words)?;
                }
                Ok(())
            }
            What::At(When::After(time)) => self.advance(self.world.clock() + *time),
            What::At(When::Since(time)) => self.advance(*time),
            What::Becomes { server, manner } => {
                let mut manner = manner.clone();
                if let Manner::Answers { to: Some((name, _)), .. } = &mut manner {
                    *name = fill(name, nth);
                }
                self.world.set_manner(*server, &manner);
                Ok(())
            }
            What::Cache(words) => {
                let usage = self.world.resolver.cache.usage();
                for (key, wanted) in &words.0 {
                    let count = match key.as_str() {
                        "positive" => usage.positive,
                        "negative" => usage.negative,
                        _ => usage.failures,
                    };
                    same(key, message::number(wanted)?, count)?;
                }
                Ok(())
            }
            What::Dropped { times, label, reason } => {
                for _ in 0..*times {
                    let heard = self.next_heard(label, "no reply")?;
                    match heard.what {
                        Outcome::Dropped(got) if reason.as_deref().is_none_or(|reason| reason == got) => {}
                        _ => {
                            return Err(differs(
                                format!("dropped {}", reason.as_deref().unwrap_or_default()),
                                tell(&heard),
                            ));
                        }
                    }
                }
                Ok(())
            }
            What::Flights(count) => same("flights", *count, self.world.resolver.in_flight()),
            What::Flush(words) => {
                let name = |key| words.get(key).map(str::parse::<Name>).transpose();
                let wrong = |error| format!("{error:?}");
                let filter = Filter { zone: name("zone").map_err(wrong)?, name: name("name").map_err(wrong)? };
                self.world.flush(&filter);
                Ok(())
            }
            What::Gets { server, name, rtype, words } => self.gets(*server, &fill(name, nth), rtype, words),
            What::Got { server, bound, count } => {
                let got = self.world.take_got(*server);
                let (holds, word) = match bound {
                    Bound::Exactly => (got == *count, ""),
                    Bound::Least => (got >= *count, "at least "),
                    Bound::Most => (got <= *count, "at most "),
                };
                if holds {
                    Ok(())
                } else {
                    Err(differs(format!("{word}{count} questions at u{server}"), got.to_string()))
                }
            }
            What::Loop { server } => {
                let name = self.world.loop_name(*server)?;
                self.ask("", &name, "NS", &Words::default())
            }
            What::Probe { server } => Ok(self.world.probe(*server)?),
            What::Reload(yaml) => {
                self.world.reload(plan(yaml)?);
                Ok(())
            }
            What::Repeat { .. } => unreachable!("played where steps are"),
            What::Reply { times, label, says } => {
                for _ in 0..*times {
                    let heard = self.next_heard(label, &says.rcode)?;
                    reply::check(&heard, says).map_err(|expected| differs(expected, tell(&heard)))?;
                }
                Ok(())
            }
            What::Sends { server, to: Target::Named(name, rtype), what } => {
                self.sends(*server, &Target::Named(fill(name, nth), rtype.clone()), what)
            }
            What::Sends { server, to, what } => self.sends(*server, to, what),
            What::Waiting(count) => same("clients waiting", *count, self.world.waiting()),
        }
    }

    fn advance(&mut self, to: Duration) -> Result<(), Trouble> {
        if to < self.world.clock() {
            return Err(Trouble::Wrong(format!("the clock shows {:?} already", self.world.clock())));
        }
        if to > self.world.clock() {
            self.nothing_left()?;
            self.world.advance(to)?;
            if self.world.clock() < to {
                return self.nothing_left();
            }
        }
        Ok(())
    }

    /// What the scenario does not speak of must not happen.
    fn nothing_left(&self) -> Result<(), Trouble> {
        let nothing = || "nothing else".to_owned();
        if let Some(heard) = self.world.heard.borrow().front() {
            return Err(differs(nothing(), tell(heard)));
        }
        match self.world.sent.front() {
            Some(send) => Err(differs(nothing(), tell_send(send))),
            None => Ok(()),
        }
    }

    fn ask(&mut self, label: &str, name: &str, rtype: &str, words: &Words) -> Result<(), Trouble> {
        // Any step will do that visits all IDs: nobody may depend on their order.
        self.ids = self.ids.wrapping_add(0x6d2b);
        let octets = message::query(name, rtype, self.ids, words)?;
        let transport = if words.has("tcp") { Transport::Tcp } else { Transport::Udp };
        let client = match words.get("from") {
            None => IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            Some(address) => address.parse().map_err(|_| format!("`{address}` is no address"))?,
        };
        Ok(self.world.ask(Inquiry { label: label.to_owned(), octets, transport }, client)?)
    }

    fn next_heard(&mut self, label: &str, expected: &str) -> Result<Heard, Trouble> {
        let mut heard = self.world.heard.borrow_mut();
        let next = heard.iter().position(|it| it.inquiry.label == label);
        let next = next.and_then(|at| heard.remove(at));
        let of = if label.is_empty() { String::new() } else { format!(" of {label}") };
        next.ok_or_else(|| {
            let others = heard.front().map_or_else(|| "nothing yet".to_owned(), tell);
            let sent = self.world.sent.front().map_or_else(String::new, |send| format!("; {}", tell_send(send)));
            differs(format!("reply{of} {expected}"), format!("{others}{sent}"))
        })
    }

    fn gets(&mut self, server: u8, name: &str, rtype: &str, words: &Words) -> Result<(), Trouble> {
        let mut wanted = Send {
            server,
            name: message::name(name)?.to_string(),
            rtype: message::type_name(message::record_type(rtype)?),
            dnssec_ok: words.has("do"),
            checking_disabled: words.has("cd"),
            edns: !words.has("no-edns"),
            tcp: words.has("tcp"),
            again: words.has("again"),
            at: self.world.clock(),
        };
        let same =
            |it: &Send| it.server == server && it.name.eq_ignore_ascii_case(&wanted.name) && it.rtype == wanted.rtype;
        let expected = tell_send(&wanted);
        let Some(at) = self.world.sent.iter().position(same) else {
            let got = self.world.sent.front().map(tell_send);
            let heard = self.world.heard.borrow().front().map(tell);
            return Err(differs(expected, got.or(heard).unwrap_or_else(|| "nothing".to_owned())));
        };
        let send = self.world.sent.remove(at).expect("it was found there");
        // 0x20 is the server's business.
        wanted.name.clone_from(&send.name);
        if tell_send(&send) == tell_send(&wanted) { Ok(()) } else { Err(differs(expected, tell_send(&send))) }
    }

    fn sends(&mut self, server: u8, to: &Target, what: &Sent) -> Result<(), Trouble> {
        let (flight, question, query, serial) = self.world.open_question(server, to)?;
        // Right but for one thing.
        let says = match what {
            Sent::Answer(says) => says,
            _ => &Says {
                rcode: "NOERROR".to_owned(),
                words: Words(vec![("a".to_owned(), "192.0.2.66".to_owned())]),
                records: Vec::new(),
            },
        };
        let mut octets = message::response(says, &query, serial)?;
        match what {
            Sent::Answer(_) => {}
            Sent::Break => return Ok(self.world.post(flight, question, Content::Broken)?),
            Sent::Malformed => octets.truncate(octets.len() - 13),
            Sent::WrongCase => octets[13] ^= 0x20,
            Sent::WrongId => octets[1] ^= 1,
            Sent::WrongQuestion => octets[13] ^= 1,
        }
        Ok(self.world.post(flight, question, Content::Octets(octets))?)
    }
}

/// Names may count what they are repeated for: `{n}`.
fn fill(name: &str, nth: Option<usize>) -> String {
    match nth {
        Some(nth) if name.contains("{n}") => name.replace("{n}", &nth.to_string()),
        _ => name.to_owned(),
    }
}

fn same(what: &str, expected: usize, got: usize) -> Result<(), Trouble> {
    if expected == got { Ok(()) } else { Err(differs(format!("{what} {expected}"), format!("{what} {got}"))) }
}

fn differs(expected: String, got: String) -> Trouble {
    Trouble::Differs { expected, got }
}

fn tell(heard: &Heard) -> String {
    let of = if heard.inquiry.label.is_empty() { String::new() } else { format!("of {} ", heard.inquiry.label) };
    let asked = Message::from_vec(&heard.inquiry.octets).ok();
    let question = asked.and_then(|it| it.queries.first().map(|it| format!("{} {}", it.name(), it.query_type())));
    let question = question.unwrap_or_default();
    match &heard.what {
        Outcome::Dropped(reason) => format!("at {:?} {of}{question}: dropped {reason}", heard.at),
        Outcome::Reply(octets) => format!("at {:?} {of}{question}: reply {}", heard.at, reply::show(octets)),
    }
}

fn tell_send(it: &Send) -> String {
    let word = |holds: bool, word: &'static str| if holds { word } else { "" };
    format!(
        "at {:?} u{} gets {} {}{}{}{}{}{}",
        it.at,
        it.server,
        it.name,
        it.rtype,
        word(it.dnssec_ok, " do"),
        word(it.checking_disabled, " cd"),
        word(!it.edns, " no-edns"),
        word(it.tcp, " tcp"),
        word(it.again, " again"),
    )
}
