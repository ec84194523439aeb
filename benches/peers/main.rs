//! Nodens beside the other DNS caches of this machine: what each takes of a core, of memory, of time to start.
//!
//! The figure is **server CPU microseconds per answered query**: it survives a busy machine and a generator that
//! saturates first. Server on one core, load and upstream on another, 16 clients, loopback, in turns A B A B; medians.
//! The yardstick is an echo that does nothing but `recvmmsg` and `sendmmsg`: what is above it is the server's own doing.
//!
//! ```text
//! core 0: server (a child process)  ◄── 16 sockets ──►  core 1: this process: asks, checks every answer by its content,
//!                    └────────── misses ─────────────────►      and is the upstream as well
//! ```
//!
//! `cargo bench --bench peers` takes about five minutes on a quiet machine. Environment:
//!
//! | variable | means |
//! |---|---|
//! | `NODENS_BENCH=smoke` | a few seconds: that it runs, not how fast |
//! | `NODENS_BENCH_ONLY=echo,nodens` | only these |
//! | `NODENS_BENCH_BIN=PATH` | this program, not the one just built |
//! | `NODENS_BENCH_COREDNS=PATH` | a `CoreDNS` or `node-cache` to run beside |
//!
//! An answer that is wrong ends it with an error. Peers that are not installed are left out, aloud.

// Figures are printed, not computed with.
#![allow(clippy::cast_precision_loss)]

mod client;
mod echo;
mod load;
mod process;
mod servers;
mod table;
mod upstream;

use std::env;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use load::{Load, Names, Pace};
use process::{Process, pin};
use servers::{Kind, Server};
use table::{Figures, Table};

/// The core of the server, and that of load and upstream.
const CORES: (usize, usize) = (0, 1);

/// How long, how much.
struct Extent {
    rounds: usize,
    warm_up: Duration,
    measured: Duration,
    hot_names: u32,
    all_names: u32,
}

const FULL: Extent = Extent {
    rounds: 3,
    warm_up: Duration::from_millis(500),
    measured: Duration::from_secs(2),
    hot_names: 1_000,
    all_names: 100_000,
};

const SMOKE: Extent = Extent {
    rounds: 1,
    warm_up: Duration::from_millis(20),
    measured: Duration::from_millis(100),
    hot_names: 100,
    all_names: 2_000,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    if let [_, command, port] = &arguments[..]
        && command == echo::COMMAND
    {
        return echo::serve(port.parse().expect("this program starts itself with a port"));
    }
    let smoke = env::var("NODENS_BENCH").is_ok_and(|it| it == "smoke");
    let servers = Server::found();
    say_what_is_compared(&servers);
    match compare(&servers, if smoke { &SMOKE } else { &FULL }) {
        Ok(table) => {
            println!("\n{table}");
            if smoke {
                println!("Smoke run: the figures mean nothing.");
            }
            if table.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn say_what_is_compared(servers: &[Server]) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{cores} cores, load {}", load.split(' ').next().unwrap_or("unknown"));
    if cores < 2 {
        println!("One core only: server and load share it, nothing can be concluded.");
    }
    for server in servers {
        match &server.program {
            Some(path) => println!("{:<10} {}", server.name, path.display()),
            None => println!("{:<10} not installed, left out", server.name),
        }
    }
    if cfg!(debug_assertions) {
        println!("Built without optimisation.");
    }
}

/// All rounds: each server once, then again from the first.
fn compare(servers: &[Server], extent: &Extent) -> io::Result<Table> {
    pin(CORES.1);
    let mut table = Table::new(servers.iter().filter(|server| server.program.is_some()).map(|server| server.name));
    for round in 1..=extent.rounds {
        for server in servers.iter().filter(|server| server.program.is_some()) {
            let figures = measure(server, extent)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", server.name)))?;
            println!("round {round} of {}: {:<10} {figures}", extent.rounds, server.name);
            table.add(server.name, figures);
        }
    }
    Ok(table)
}

/// One server's life, from its start to its end.
fn measure(server: &Server, extent: &Extent) -> io::Result<Figures> {
    let mut figures = Figures::default();
    let mut load = Load::new()?;
    let process = Process::start(server, load.upstream_port(), CORES.0)?;
    figures.start = Some(load.first_answer(&process)?);
    figures.idle_memory = Some(process.memory()?);
    if server.kind == Kind::Echo {
        let names = Names::random_below(extent.hot_names);
        figures.hot = load.cost(&process, names.clone(), Pace::Full, extent)?;
        figures.paced = load.cost(&process, names, Pace::PerSecond(20_000), extent)?;
        figures.tally = load.tally();
        return Ok(figures);
    }
    load.ask_each(0..extent.hot_names)?;
    let hot = Names::random_below(extent.hot_names);
    figures.hot = load.cost(&process, hot.clone(), Pace::Full, extent)?;
    figures.paced = load.cost(&process, hot, Pace::PerSecond(20_000), extent)?;
    load.ask_each(extent.hot_names..extent.all_names)?;
    figures.full_memory = Some(process.memory()?);
    figures.wide = load.cost(&process, Names::random_below(extent.all_names), Pace::Full, extent)?;
    figures.miss = load.cost(&process, Names::never_asked(), Pace::Full, extent)?;
    figures.tally = load.tally();
    Ok(figures)
}
