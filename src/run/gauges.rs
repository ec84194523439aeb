//! What a scrape looks at: the readers behind every metric that is not counted by a worker.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::{Inner, drops, process};
use crate::metrics::{Gauges, Label as _, Reader, Reload, Said, Samples, Scene};
use crate::net::worker::Shared;
use crate::node::status::Status;
use crate::plan::Plan;
use crate::upstream::{Group, Health, Server};

/// A reader for each metric. An agent that is about to come or go shows nothing.
pub(super) fn gauges(inner: &Weak<Inner>) -> Gauges {
    let series = |show: fn(&Inner, &mut Samples)| {
        let inner = Weak::clone(inner);
        Reader::series(move |samples| inner.upgrade().iter().for_each(|inner| show(inner, samples)))
    };
    let start = process::unix_time();
    let incumbent = Weak::clone(inner);
    Gauges {
        build_info: Reader::series(|samples| samples.push(&[env!("CARGO_PKG_VERSION")], 1.0)),
        cache_bytes: series(|it, samples| samples.push(&[], it.shared.resolver.cache.usage().bytes as f64)),
        cache_limit_bytes: series(|it, samples| samples.push(&[], it.shared.active.load().plan.cache.memory as f64)),
        cache_entries: series(|it, samples| {
            let usage = it.shared.resolver.cache.usage();
            samples.push(&["positive"], usage.positive as f64);
            samples.push(&["negative"], usage.negative as f64);
            samples.push(&["failure"], usage.failures as f64);
        }),
        cache_evictions: series(|it, samples| {
            let gone = it.shared.resolver.cache.gone();
            for (reason, kinds) in [("room", gone.evicted), ("flushed", gone.flushed)] {
                samples.push(&["positive", reason], kinds.positive as f64);
                samples.push(&["negative", reason], kinds.negative as f64);
                samples.push(&["failure", reason], kinds.failures as f64);
            }
        }),
        config_generation: series(|it, samples| samples.push(&[], it.reloads.generation() as f64)),
        config_info: series(|it, samples| samples.push(&[&fingerprint(&it.shared.active.load().plan)], 1.0)),
        config_refused: series(|it, samples| samples.push(&[], flag(it.refused().is_some()))),
        config_reloaded: series(|it, samples| {
            for what in Reload::ALL {
                samples.push(&[what.label()], it.reloads.at(*what));
            }
        }),
        in_flight: series(|it, samples| samples.push(&[], it.shared.resolver.in_flight() as f64)),
        kernel_drops: series(|it, samples| {
            let addresses: Vec<_> = it.shared.active.load().plan.listen_sockets().collect();
            for (address, drops) in drops::at(&addresses) {
                samples.push(&[&address.to_string()], drops as f64);
            }
        }),
        ready: series(|it, samples| samples.push(&[], flag(it.missing().is_empty()))),
        probes: series(|it, samples| samples.push_times(&[], &it.probes.said(Said::NoError))),
        probe_failures: series(|it, samples| samples.push(&[], it.probes.failed_probes() as f64)),
        cpu: known(process::cpu_seconds),
        start_time: Reader::value(move || start),
        resident_memory: known(|| process::memory().map(|(_, resident)| resident)),
        virtual_memory: known(|| process::memory().map(|(virtual_memory, _)| virtual_memory)),
        threads: known(process::threads),
        open_fds: known(process::open_descriptors),
        max_fds: known(process::descriptor_limit),
        incumbent: Some(Box::new(move || incumbent.upgrade().and_then(|inner| scene(&inner)))),
        ..of_node(inner, of_servers(inner))
    }
}

/// Those about upstreams.
fn of_servers(inner: &Weak<Inner>) -> Gauges {
    let each = |show: fn(&Group, &Server, &[&str], &mut Samples)| {
        let inner = Weak::clone(inner);
        Reader::series(move |samples| {
            let Some(inner) = inner.upgrade() else { return };
            each_server(&inner.shared, |group, server| {
                show(group, server, &[&group.name, &server.address.to_string()], samples);
            });
        })
    };
    let groups = Weak::clone(inner);
    Gauges {
        upstream_up: each(|group, server, labels, samples| {
            samples.push(labels, flag(group.health(server) == Health::Healthy));
        }),
        upstream_outstanding: each(|_, server, labels, samples| samples.push(labels, server.outstanding().into())),
        upstream_rtt: each(|_, server, labels, samples| {
            samples.push(labels, server.round_trip().map_or(f64::NAN, |time| time.as_secs_f64()));
        }),
        upstream_asked: each(|_, server, labels, samples| samples.push(labels, server.talks.asked() as f64)),
        upstream_replies: each(|_, server, labels, samples| {
            for what in Said::ALL {
                samples.push_times(&[labels, &[what.label()]].concat(), &server.talks.said(*what));
            }
        }),
        upstream_probe_failures: each(|_, server, labels, samples| {
            samples.push(labels, server.talks.failed_probes() as f64);
        }),
        upstream_all_suspect: Reader::series(move |samples| {
            let Some(inner) = groups.upgrade() else { return };
            for group in inner.shared.active.load().upstreams.iter() {
                samples.push(&[&group.name], group.all_suspect() as f64);
            }
        }),
        ..Gauges::default()
    }
}

/// Those about the host, if the plan wants us to be anything there.
fn of_node(inner: &Weak<Inner>, others: Gauges) -> Gauges {
    let status = |show: fn(&Status, &mut Samples)| {
        let inner = Weak::clone(inner);
        Reader::series(move |samples| {
            let Some(inner) = inner.upgrade() else { return };
            if let Some(link) = inner.node.get() {
                show(&link.status.borrow(), samples);
            }
        })
    };
    let lease = Weak::clone(inner);
    Gauges {
        intercepting: status(|it, samples| samples.push(&[], flag(it.intercepting))),
        fallback_active: status(|it, samples| {
            samples.push(&[], flag(it.mode != "off" && !it.intercepting && it.waiting_for.is_none()));
        }),
        lease: Reader::series(move |samples| {
            let Some(inner) = lease.upgrade() else { return };
            if let Some(node) = &inner.shared.active.load().plan.node {
                samples.push(&[], node.lease.as_secs_f64());
            }
        }),
        interception_mode: status(|it, samples| samples.push(&[it.mode], 1.0)),
        degraded: status(|it, samples| {
            it.degraded.iter().for_each(|it| samples.push(&[it.label.label()], 1.0));
        }),
        repairs: status(|it, samples| {
            samples.push(&["link"], it.repaired.link as f64);
            samples.push(&["tables"], it.repaired.tables as f64);
        }),
        node_failures: status(|it, samples| samples.push(&[], it.failures as f64)),
        node_trouble: status(|it, samples| samples.push(&[], flag(it.trouble.is_some()))),
        ..others
    }
}

/// What the incumbent's metrics show beyond the cells; `None`: the plan does not want them.
fn scene(inner: &Inner) -> Option<Scene> {
    let active = inner.shared.active.load();
    let mut servers = Vec::new();
    each_server(&inner.shared, |_, server| servers.push((server.address, Arc::clone(&server.talks))));
    let usage = inner.shared.resolver.cache.usage();
    let evicted = inner.shared.resolver.cache.gone().evicted;
    active.plan.coredns_names.then(|| Scene {
        pairs: active.slots.pairs().to_vec(),
        servers,
        probes: Arc::clone(&inner.probes),
        positive: usage.positive as u64,
        negative: (usage.negative + usage.failures) as u64,
        positive_evicted: evicted.positive,
        negative_evicted: evicted.negative + evicted.failures,
        all_suspect: active.upstreams.iter().map(|group| group.all_suspect()).sum(),
        node_failures: inner.node.get().map_or(0, |link| link.status.borrow().failures),
        config: fingerprint(&active.plan),
    })
}

/// Which plan is in force, and when what became of the others.
pub(super) struct Reloads {
    generation: AtomicU64,
    /// Bits of seconds since 1970, by [`Reload`]; 0: never.
    at: [AtomicU64; Reload::COUNT],
}

impl Reloads {
    /// The first plan comes into force.
    pub(super) fn begin() -> Self {
        let reloads = Self { generation: AtomicU64::new(0), at: Default::default() };
        reloads.note(Reload::Accepted);
        reloads
    }

    fn note(&self, what: Reload) {
        if what == Reload::Accepted {
            self.generation.fetch_add(1, Ordering::Relaxed);
        }
        self.at[what.index()].store(process::unix_time().to_bits(), Ordering::Relaxed);
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn at(&self, what: Reload) -> f64 {
        f64::from_bits(self.at[what.index()].load(Ordering::Relaxed))
    }
}

impl Inner {
    /// Counts what became of a changed configuration. One at a time: the lock `running` sees to that.
    pub(super) fn note_reload(&self, what: Reload) {
        self.reloads.note(what);
        self.metrics.control().reloads.bump(what);
    }
}

/// Tells plans apart: equal on every node with the same configuration and version.
fn fingerprint(plan: &Plan) -> String {
    struct Hashed(DefaultHasher);
    impl std::fmt::Write for Hashed {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut hashed = Hashed(DefaultHasher::new());
    write!(hashed, "{plan:?}").expect("hashing cannot fail");
    format!("{:016x}", hashed.0.finish())
}

/// A reader of what the kernel tells, if it does.
fn known(read: fn() -> Option<f64>) -> Reader {
    Reader::series(move |samples| read().iter().for_each(|value| samples.push(&[], *value)))
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn each_server(shared: &Shared, mut show: impl FnMut(&Group, &Server)) {
    for group in shared.active.load().upstreams.iter() {
        for server in group.servers().iter() {
            show(group, server);
        }
    }
}
