//! The agent without sockets and clock: a resolver, its flights, clients that remember what they heard, servers that do as
//! told. Flights are flown as `nodens::net::pilot` flies them; only the sockets are missing.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use nodens::cache::Filter;
use nodens::metrics;
use nodens::plan::Plan;
use nodens::resolve::pursuit::{Edns, Event, Order, Pursuit, Via};
use nodens::resolve::{Active, Ends, Flight, Resolver, Step, Turn};
use nodens::upstream::Group;
use nodens::wire::response::Asked;
use nodens::wire::{MESSAGE_MAX, Query, Response, Transport, compose};

use crate::client::{Client, Heard, Inquiry, Outcome};
use crate::message;
use crate::script::{Manner, Says, Target};

/// The configuration of a scenario that shows none: one server, everything goes there.
pub const CONFIG: &str =
    "upstreams: { all: { servers: [192.0.2.1], policy: sequential } }\nzones: { '.': { upstream: all } }\n";

/// As in `nodens::net::pilot`: what a socket may hear in vain before it is not listened to any more.
const PATIENCE: u32 = 64;
const NEAR_MISS: u32 = 16;
const MALFORMED: u32 = 1;

/// The whole stage.
pub struct World {
    active: Active,
    pub resolver: Resolver<Client>,
    count: Arc<metrics::Worker>,
    epoch: Instant,
    /// Time since the scenario began.
    clock: Rc<Cell<Duration>>,
    dice: StdRng,
    /// By number, in the order of take-off.
    airborne: BTreeMap<u64, Airborne>,
    timers: BTreeSet<(Instant, u64)>,
    mail: BTreeMap<(Instant, u64), Mail>,
    servers: BTreeMap<u8, Server>,
    /// What clients heard and the scenario has not spoken of.
    pub heard: Rc<RefCell<VecDeque<Heard>>>,
    /// What scripted servers got and the scenario has not spoken of.
    pub sent: VecDeque<Send>,
    numbers: u64,
    out: Vec<u8>,
}

/// A flight, and the questions it has sent.
struct Airborne {
    flight: Box<Flight<Client>>,
    pursuit: Pursuit,
    questions: Vec<Question>,
    until: Instant,
}

/// One question at one server.
struct Question {
    number: u64,
    server: u8,
    attempt: usize,
    via: Via,
    octets: Vec<u8>,
    answered: bool,
    in_vain: u32,
}

/// Something on its way from a server.
struct Mail {
    flight: u64,
    question: u64,
    what: Content,
}

pub enum Content {
    Broken,
    Octets(Vec<u8>),
}

struct Server {
    got: usize,
    answers: u32,
    manner: Option<Manner>,
    /// Rules of [`Manner::Answers`] for one question each.
    rules: Vec<(String, String, Says, Duration)>,
}

/// A question that reached a scripted server.
pub struct Send {
    pub server: u8,
    pub name: String,
    pub rtype: String,
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
    pub edns: bool,
    pub tcp: bool,
    pub again: bool,
    pub at: Duration,
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let epoch = Instant::now();
        let resolver = Resolver::new(&plan, epoch);
        Self {
            active: Active::new(plan, None, epoch),
            resolver,
            count: Arc::default(),
            epoch,
            clock: Rc::default(),
            dice: StdRng::seed_from_u64(2308),
            airborne: BTreeMap::new(),
            timers: BTreeSet::new(),
            mail: BTreeMap::new(),
            servers: BTreeMap::new(),
            heard: Rc::default(),
            sent: VecDeque::new(),
            numbers: 0,
            out: vec![0; MESSAGE_MAX],
        }
    }

    /// Time since the scenario began.
    pub fn clock(&self) -> Duration {
        self.clock.get()
    }

    fn now(&self) -> Instant {
        self.epoch + self.clock.get()
    }

    /// Puts another plan in force.
    pub fn reload(&mut self, plan: Plan) {
        self.resolver.cache.resize(&plan.cache);
        self.active = Active::new(plan, Some(&self.active), self.epoch);
    }

    pub fn flush(&self, filter: &Filter) {
        self.resolver.cache.flush(filter);
    }

    // === clients ===

    /// A query arrives, as in `nodens::net::udp`.
    pub fn ask(&mut self, inquiry: Inquiry, client: IpAddr) -> Result<(), String> {
        let inquiry = Rc::new(inquiry);
        let (now, clock) = (self.now(), self.clock());
        let hear = |what| Heard { inquiry: Rc::clone(&inquiry), what, at: clock };
        let query = match Query::parse(&inquiry.octets, inquiry.transport) {
            Ok(query) => query,
            Err(refusal) => {
                let length = compose::refuse(&inquiry.octets, &refusal, inquiry.transport, &mut self.out);
                let what = length.map_or(Outcome::Dropped("refusal"), |it| Outcome::Reply(self.out[..it].to_vec()));
                self.heard.borrow_mut().push_back(hear(what));
                return Ok(());
            }
        };
        let waiter = || Client {
            inquiry: Rc::clone(&inquiry),
            heard: Rc::clone(&self.heard),
            clock: Rc::clone(&self.clock),
            settled: false,
        };
        let turn = Turn { active: &self.active, count: &self.count, now };
        let step = self.resolver.on_query(turn, &query, Ends { client, address: 0 }, waiter, &mut self.out);
        // Who was given back has a place less; what it hears is what the step says.
        let given_back = |it: &Heard| Rc::ptr_eq(&it.inquiry, &inquiry) && matches!(it.what, Outcome::Dropped(_));
        if !matches!(step, Step::Parked) && self.heard.borrow().back().is_some_and(given_back) {
            self.heard.borrow_mut().pop_back();
        }
        let launched = match step {
            Step::Drop(reason) => {
                self.heard.borrow_mut().push_back(hear(Outcome::Dropped(reason.label())));
                None
            }
            Step::Launch(flight) => Some(flight),
            Step::Parked => None,
            Step::Reply(ready) => {
                self.heard.borrow_mut().push_back(hear(Outcome::Reply(self.out[..ready.length].to_vec())));
                None
            }
            Step::ReplyAndLaunch(ready, flight) => {
                self.heard.borrow_mut().push_back(hear(Outcome::Reply(self.out[..ready.length].to_vec())));
                Some(flight)
            }
        };
        if let Some(flight) = launched {
            self.launch(flight)?;
        }
        self.settle()
    }

    /// Clients that have heard nothing yet.
    pub fn waiting(&self) -> usize {
        // Each client that waits holds the queue.
        Rc::strong_count(&self.heard) - 1
    }

    // === servers ===

    fn server(&mut self, number: u8) -> &mut Server {
        let fresh = || Server { got: 0, answers: 0, manner: None, rules: Vec::new() };
        self.servers.entry(number).or_insert_with(fresh)
    }

    /// From here on the server deals with every question like this.
    pub fn set_manner(&mut self, number: u8, manner: &Manner) {
        let server = self.server(number);
        match manner {
            Manner::Scripted => (server.manner, server.rules) = (None, Vec::new()),
            Manner::Answers { to: Some((name, rtype)), says, after } => {
                let rule = (name.clone(), rtype.clone(), says.clone(), *after);
                server.rules.retain(|(known, known_type, ..)| (known, known_type) != (name, rtype));
                server.rules.push(rule);
            }
            manner => server.manner = Some(manner.clone()),
        }
    }

    /// Questions the server got since this was last asked.
    pub fn take_got(&mut self, number: u8) -> usize {
        std::mem::take(&mut self.server(number).got)
    }

    /// The server answers a health probe.
    pub fn probe(&mut self, number: u8) -> Result<(), String> {
        let mut known = false;
        for group in self.active.upstreams.iter() {
            for server in group.servers().iter().filter(|server| last_octet(server.address) == number) {
                group.on_reply(server, Duration::from_millis(1), self.now());
                known = true;
            }
        }
        if known { Ok(()) } else { Err(format!("no upstream has a server u{number}")) }
    }

    /// The name a server is probed with when it might forward to us.
    pub fn loop_name(&self, number: u8) -> Result<String, String> {
        let has_it = |group: &&Arc<Group>| group.servers().iter().any(|it| last_octet(it.address) == number);
        let group =
            self.active.upstreams.iter().find(has_it).ok_or_else(|| format!("no upstream has a server u{number}"))?;
        Ok(self.resolver.loops.name(group, 0x6761_7073, self.now()).to_string())
    }

    /// A question of the server that was not answered: its flight, itself, its octets; and how many the server answered.
    pub fn open_question(&mut self, server: u8, target: &Target) -> Result<(u64, u64, Vec<u8>, u32), String> {
        let mut open: Vec<(u64, u64, &Question)> = Vec::new();
        for (flight, airborne) in &self.airborne {
            for question in airborne.questions.iter().filter(|it| it.server == server && !it.answered) {
                if let Target::Named(name, rtype) = target {
                    let message = Message::from_vec(&question.octets).map_err(|error| error.to_string())?;
                    let asked = &message.queries[0];
                    if *asked.name() != message::name(name)? || asked.query_type() != message::record_type(rtype)? {
                        continue;
                    }
                }
                open.push((question.number, *flight, question));
            }
        }
        let number = |it: &&(u64, u64, &Question)| it.0;
        let found = if matches!(target, Target::Newest) {
            open.iter().max_by_key(number)
        } else {
            open.iter().min_by_key(number)
        };
        let found = found.map(|(number, flight, question)| (*flight, *number, question.octets.clone()));
        let (flight, number, octets) = found.ok_or_else(|| format!("u{server} has no such question open"))?;
        let server = self.server(server);
        server.answers += 1;
        Ok((flight, number, octets, server.answers))
    }

    /// What a server sends reaches us, now.
    pub fn post(&mut self, flight: u64, question: u64, what: Content) -> Result<(), String> {
        self.numbers += 1;
        self.mail.insert((self.now(), self.numbers), Mail { flight, question, what });
        self.settle()
    }

    // === time ===

    /// Moves the clock; stops where something happens on the way, which nobody may have expected.
    pub fn advance(&mut self, to: Duration) -> Result<(), String> {
        let target = self.epoch + to;
        loop {
            let timer = self.timers.first().map(|(at, _)| *at);
            let mail = self.mail.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = [timer, mail].into_iter().flatten().min().filter(|next| *next <= target) else { break };
            self.clock.set(next - self.epoch);
            self.settle()?;
            if next < target && (!self.heard.borrow().is_empty() || !self.sent.is_empty()) {
                return Ok(());
            }
        }
        self.clock.set(to);
        Ok(())
    }

    /// Does all that is due.
    fn settle(&mut self) -> Result<(), String> {
        let now = self.now();
        loop {
            if let Some(entry) = self.mail.first_entry()
                && entry.key().0 <= now
            {
                let mail = entry.remove();
                self.deliver(mail)?;
            } else if let Some((at, number)) = self.timers.first().copied()
                && at <= now
            {
                self.timers.pop_first();
                if self.airborne.get(&number).is_some_and(|it| it.until == at) {
                    self.fly(number)?;
                }
            } else {
                return Ok(());
            }
        }
    }

    fn deliver(&mut self, mail: Mail) -> Result<(), String> {
        let now = self.now();
        let Some(airborne) = self.airborne.get_mut(&mail.flight) else { return Ok(()) };
        let exact_case = airborne.flight.group.random_case;
        let Some(question) = airborne.questions.iter_mut().find(|it| it.number == mail.question && !it.answered) else {
            return Ok(());
        };
        let transport = if question.via == Via::Stream { Transport::Tcp } else { Transport::Udp };
        let event = match mail.what {
            Content::Broken => Event::Broken,
            Content::Octets(octets) => {
                let asked = Asked { query: &question.octets, transport, exact_case };
                match (Response::parse_for(&octets, &asked), transport) {
                    (Ok(response), _) => Event::Answer(Box::new(response)),
                    (Err(unfit), Transport::Tcp) if unfit.is_near_miss() => return Ok(()),
                    (Err(_), Transport::Tcp) => Event::Broken,
                    (Err(unfit), Transport::Udp) => {
                        question.in_vain += if unfit.is_near_miss() { NEAR_MISS } else { MALFORMED };
                        Event::NearMiss
                    }
                }
            }
        };
        question.answered = !matches!(event, Event::NearMiss) || question.in_vain >= PATIENCE;
        airborne.pursuit.on_event(question.attempt, event, now);
        self.fly(mail.flight)
    }

    // === flights ===

    fn launch(&mut self, flight: Box<Flight<Client>>) -> Result<(), String> {
        self.numbers += 1;
        let pursuit = flight.pursuit(self.now());
        self.airborne.insert(self.numbers, Airborne { flight, pursuit, questions: Vec::new(), until: self.now() });
        self.fly(self.numbers)
    }

    /// Flies a flight until it has to wait or lands.
    fn fly(&mut self, number: u64) -> Result<(), String> {
        let Some(mut it) = self.airborne.remove(&number) else { return Ok(()) };
        if it.flight.lapses_at.is_some_and(|lapse| lapse <= self.now()) {
            let turn = Turn { active: &self.active, count: &self.count, now: self.now() };
            self.resolver.lapse(turn, &mut it.flight, &mut self.out);
        }
        loop {
            let dice = self.dice.next_u32();
            match it.pursuit.next(self.now(), dice) {
                Order::Land(landing) => {
                    let turn = Turn { active: &self.active, count: &self.count, now: self.now() };
                    let follow = self.resolver.land(turn, *it.flight, landing, &mut self.out);
                    return follow.into_iter().try_for_each(|flight| self.launch(Box::new(flight)));
                }
                Order::Ask { attempt, server, via, edns } => self.send(number, &mut it, attempt, server, via, edns)?,
                Order::Wait(until) => {
                    let until = it.flight.lapses_at.map_or(until, |lapse| lapse.min(until));
                    if until <= self.now() {
                        return Err("the pursuit waits for a moment that has passed: it would spin".to_owned());
                    }
                    it.until = until;
                    self.timers.insert((until, number));
                    self.airborne.insert(number, it);
                    return Ok(());
                }
            }
        }
    }

    fn send(
        &mut self,
        flight: u64,
        it: &mut Airborne,
        attempt: usize,
        address: SocketAddr,
        via: Via,
        edns: Edns,
    ) -> Result<(), String> {
        let mut octets = [0; compose::QUERY_MAX];
        let random = &mut self.dice;
        let mut roll = || random.next_u64();
        let case = it.flight.group.random_case.then(|| [roll(), roll(), roll(), roll()]);
        let id = roll() as u16;
        let length = compose::upstream_query(it.flight.key(), id, case, edns == Edns::With, &mut octets);
        let octets = octets[..length.ok_or("a query did not fit")?].to_vec();
        let again = it.questions.iter().any(|question| question.attempt == attempt);
        let number = last_octet(address);
        let send = describe(&octets, number, via, edns, again, self.clock())?;
        self.numbers += 1;
        let question_number = self.numbers;
        let server = self.server(number);
        server.got += 1;
        let says = if matches!(server.manner, Some(Manner::Silent | Manner::Closed)) {
            None
        } else {
            let rule = server.rules.iter().find(|(name, rtype, ..)| {
                name.trim_end_matches('.').eq_ignore_ascii_case(send.name.trim_end_matches('.')) && *rtype == send.rtype
            });
            match (&server.manner, rule) {
                (_, Some((.., says, after))) | (Some(Manner::Answers { says, after, .. }), None) => {
                    Some((says.clone(), *after))
                }
                _ => None,
            }
        };
        let (content, after) = match (&server.manner, says) {
            (_, Some((says, after))) => {
                server.answers += 1;
                (Some(Content::Octets(message::response(&says, &octets, server.answers)?)), after)
            }
            (Some(Manner::Closed), None) => (Some(Content::Broken), Duration::ZERO),
            (Some(_), None) => (None, Duration::ZERO),
            (None, None) => {
                self.sent.push_back(send);
                (None, Duration::ZERO)
            }
        };
        if let Some(what) = content {
            self.numbers += 1;
            self.mail.insert((self.now() + after, self.numbers), Mail { flight, question: question_number, what });
        }
        it.questions.push(Question {
            number: question_number,
            server: number,
            attempt,
            via,
            octets,
            answered: false,
            in_vain: 0,
        });
        Ok(())
    }
}

/// Reads a query of ours as hickory does, and checks what must hold for every one (E08, E18, P08).
fn describe(octets: &[u8], server: u8, via: Via, edns: Edns, again: bool, at: Duration) -> Result<Send, String> {
    let message = Message::from_vec(octets).map_err(|error| format!("hickory cannot read our query: {error}"))?;
    let [question] = &message.queries[..] else { return Err("our query has not one question".to_owned()) };
    let header = &message.metadata;
    let sound = header.recursion_desired
        && header.authentic_data
        && !header.authoritative
        && !header.truncation
        && message.answers.is_empty()
        && message.authorities.is_empty()
        && message.additionals.is_empty()
        && message.edns.is_some() == (edns == Edns::With)
        && message
            .edns
            .as_ref()
            .is_none_or(|edns| edns.max_payload() == 1232 && edns.version() == 0 && edns.options().as_ref().is_empty());
    if !sound {
        return Err(format!("our query must not look like this: {message:?}"));
    }
    Ok(Send {
        server,
        name: question.name().to_string(),
        rtype: message::type_name(question.query_type()),
        dnssec_ok: message.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok),
        checking_disabled: header.checking_disabled,
        edns: message.edns.is_some(),
        tcp: via == Via::Stream,
        again,
        at,
    })
}

/// Servers are called by it.
fn last_octet(address: SocketAddr) -> u8 {
    match address.ip() {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}
