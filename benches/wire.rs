//! What reading and writing one message costs: the part of an answer that is ours and not the kernel's.

#[path = "support/messages.rs"]
mod messages;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use nodens::wire::compose::{self, TtlRule};
use nodens::wire::response::Asked;
use nodens::wire::{Ede, MESSAGE_MAX, Query, Rcode, Response, Transport, edit};

fn queries(criterion: &mut Criterion) {
    let octets = messages::query(7);
    criterion.bench_function("query/parse", |bencher| {
        bencher.iter(|| Query::parse(black_box(&octets), Transport::Udp).expect("a legal query"));
    });
    let key = messages::key(7);
    let mut out = [0; compose::QUERY_MAX];
    criterion.bench_function("query/compose for upstream", |bencher| {
        bencher.iter(|| compose::upstream_query(black_box(&key), 7, Some([u64::MAX; 4]), true, &mut out));
    });
}

fn answers(criterion: &mut Criterion) {
    let (octets, query) = messages::answer(7);
    let asked = Asked { query: &query, transport: Transport::Udp, exact_case: false };
    criterion.bench_function("response/parse", |bencher| {
        bencher.iter(|| Response::parse_for(black_box(&octets), &asked).expect("a legal answer"));
    });

    let response = messages::response(7);
    let octets = messages::query(7);
    let query = Query::parse(&octets, Transport::Udp).expect("a legal query");
    let asker = query.asker();
    let mut out = vec![0; MESSAGE_MAX];
    criterion.bench_function("response/patch", |bencher| {
        bencher.iter(|| compose::patch(black_box(response.stored()), &asker, TtlRule::Age(7), None, &mut out));
    });
    criterion.bench_function("response/without AAAA, nothing to do", |bencher| {
        bencher.iter(|| edit::without_aaaa(black_box(response.stored())));
    });
    criterion.bench_function("response/failure", |bencher| {
        bencher.iter(|| compose::failure(black_box(&asker), Rcode::SERVFAIL, Some(Ede::NETWORK_ERROR), &mut out));
    });
}

criterion_group!(benches, queries, answers);
criterion_main!(benches);
