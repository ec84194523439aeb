//! What scenarios cannot tell: very many flights, and flights that nobody lands. The rest is in `tests/scenarios`.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::rc::Rc;

use super::pursuit::Landing;
use super::*;
use crate::plan::{self, Action, Draft, Members, Server, Zone};
use crate::wire::response::Asked;
use crate::wire::{Name, Response, Transport};

/// How many waiters were answered, and how many forgotten.
#[derive(Default)]
struct Told {
    answered: Cell<u32>,
    forgotten: Cell<u32>,
}

struct Guest {
    query: Rc<[u8]>,
    told: Rc<Told>,
    settled: bool,
}

impl Waiter for Guest {
    fn asker(&self) -> Asker<'_> {
        Query::parse(&self.query, Transport::Udp).expect("parsed before").asker()
    }

    fn answer(mut self, _: &[u8]) {
        self.told.answered.set(self.told.answered.get() + 1);
        self.settled = true;
    }

    fn discard(mut self) {
        self.settled = true;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if !self.settled {
            self.told.forgotten.set(self.told.forgotten.get() + 1);
        }
    }
}

/// A resolver, and one client that asks one question.
struct Stage {
    active: Active,
    resolver: Resolver<Guest>,
    count: Worker,
    now: Instant,
    query: Rc<[u8]>,
    told: Rc<Told>,
    out: Vec<u8>,
}

impl Stage {
    /// With room for `in_flight` flights; answers are not kept, so that each query makes a flight.
    fn new(in_flight: usize) -> Self {
        let server = Server::Address(([192, 0, 2, 1], 53).into());
        let upstream = plan::Upstream::new("all", Members::Servers(vec![server]));
        let draft = Draft {
            limits: plan::Limits { in_flight, in_flight_per_client: in_flight, ..plan::Limits::default() },
            ..Draft::new(vec![upstream], vec![Zone::new(Name::root(), Action::Route(0))])
        };
        let plan = Plan::new(draft).expect("a legal plan");
        let now = Instant::now();
        let key = Key::new(b"\x01a\x04test\0", Type::A, false, false).expect("a legal name makes a key");
        let mut query = [0; compose::QUERY_MAX];
        let length = compose::upstream_query(&key, 7, None, false, &mut query).expect("QUERY_MAX is enough");
        Self {
            resolver: Resolver::new(&plan, now),
            active: Active::new(plan, None, now),
            count: Worker::default(),
            now,
            query: query[..length].into(),
            told: Rc::default(),
            out: vec![0; 1232],
        }
    }

    /// An answer whose TTL of 0 forbids keeping it.
    fn answer(&self) -> Response {
        self.answer_for(0)
    }

    /// An answer for `ttl` seconds.
    fn answer_for(&self, ttl: u8) -> Response {
        let mut octets = self.query.to_vec();
        (octets[2], octets[3], octets[7]) = (0x81, 0x80, 1);
        octets.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0");
        octets.push(ttl);
        octets.extend_from_slice(b"\0\x04\xc0\0\x02\x07");
        let asked = Asked { query: &self.query, transport: Transport::Udp, exact_case: false };
        Response::parse_for(&octets, &asked).expect("a test's response is right")
    }

    fn ask(&mut self) -> Step<Guest> {
        let octets = Rc::clone(&self.query);
        let query = Query::parse(&octets, Transport::Udp).expect("a legal query");
        let waiter = || Guest { query: Rc::clone(&octets), told: Rc::clone(&self.told), settled: false };
        let turn = Turn { active: &self.active, count: &self.count, now: self.now };
        let ends = Ends { client: Ipv4Addr::LOCALHOST.into(), address: 0 };
        self.resolver.on_query(turn, &query, ends, waiter, &mut self.out)
    }

    fn launch(&mut self) -> Box<Flight<Guest>> {
        match self.ask() {
            Step::Launch(flight) => flight,
            _ => panic!("nothing is known and nothing in flight"),
        }
    }

    fn land(&mut self, flight: Flight<Guest>, landing: Landing) {
        let turn = Turn { active: &self.active, count: &self.count, now: self.now };
        assert!(self.resolver.land(turn, flight, landing, &mut self.out).is_empty());
    }
}

// Q10: whatever the number of flights, nothing is left of them: no flight, no place of the client, nobody untold. The
// million is for optimised builds; `cache::flight` makes it in every one, for its table alone.
#[test]
fn many_flights_leave_nothing_behind() {
    let cycles = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let mut stage = Stage::new(1);
    let answer = stage.answer();
    for _ in 0..cycles {
        let flight = stage.launch();
        stage.land(*flight, Landing::Answer(Box::new(answer.clone())));
    }
    assert_eq!(stage.resolver.in_flight(), 0);
    assert_eq!(stage.told.answered.get(), cycles);
    assert_eq!(stage.told.forgotten.get(), 0);
    assert_eq!(stage.resolver.cache.usage().positive, 0);
}

// Q10, O15: a flight that ends in a panic, or with the runtime, forgets nobody and frees its place.
#[test]
fn a_flight_that_is_dropped_tells_its_clients_and_frees_its_place() {
    let mut stage = Stage::new(1);
    let flight = stage.launch();
    assert!(matches!(stage.ask(), Step::Parked));
    drop(flight);
    assert_eq!(stage.told.forgotten.get(), 2, "their own drop answers them");
    assert_eq!(stage.resolver.in_flight(), 0);
    drop(stage.launch());
}

// T01: another worker lands the question between this one's look into the cache and its take-off. Those parked by then
// may have come over TCP, so that nothing may be written for them into the buffer of a datagram.
#[test]
fn a_question_answered_before_its_take_off_is_landed_not_asked() {
    let mut stage = Stage::new(1);
    let (answer, octets) = (stage.answer_for(60), Rc::clone(&stage.query));
    let query = Query::parse(&octets, Transport::Udp).expect("a legal query");
    let waiter = || {
        let (stored, _) = stage.resolver.cache.store(query.key(), answer.clone(), &Lifetimes::default(), stage.now);
        drop(stored);
        Guest { query: Rc::clone(&octets), told: Rc::clone(&stage.told), settled: false }
    };
    let turn = Turn { active: &stage.active, count: &stage.count, now: stage.now };
    let step =
        stage.resolver.on_query(turn, &query, Ends { client: Ipv4Addr::LOCALHOST.into(), address: 0 }, waiter, &mut []);
    let Step::Launch(flight) = step else { panic!("a flight answers, from its own buffer") };
    let pursuit::Order::Land(landing) = flight.pursuit(stage.now).next(stage.now, 0) else { panic!("nobody is asked") };
    stage.land(*flight, landing);
    assert_eq!((stage.told.answered.get(), stage.told.forgotten.get()), (1, 0));
    assert_eq!(stage.resolver.in_flight(), 0);
}

// O04: an answer after DISCARD is kept, but not sent: nobody waits for it any more.
#[test]
fn an_answer_that_comes_too_late_is_not_sent() {
    let mut stage = Stage::new(1);
    let (flight, answer) = (stage.launch(), stage.answer());
    stage.now += DISCARD + Duration::from_millis(1);
    stage.land(*flight, Landing::Answer(Box::new(answer)));
    assert_eq!((stage.told.answered.get(), stage.told.forgotten.get()), (0, 0));
    assert_eq!(stage.count.drops.value(Dropped::Late), 1);
}
