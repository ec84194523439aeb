//! `nodens demo`: the agent between two DNS servers of ours, a tour of what it does, and proof at every step.
//!
//! hickory-server stands in for the cluster DNS and for Technitium.
//!
//! One process, no root, no network: everything happens on loopback ports that the kernel picks. With root the same tour
//! is taken in network namespaces, from a pod, behind a chapter on interception; see [`cluster`].
//!
//! ```text
//! tour ──► agent ─┬─► cluster DNS   cluster.local and everything else
//!  ▲              └─► Technitium    viktorbarzin.lan
//!  └── counts of both: who was asked, how often
//! ```

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Instant;

use super::Exit;
use crate::config;
use crate::run::Agent;

mod cluster;
mod names;
mod screen;
mod serve;
mod server;
mod tour;
mod zone;

use cluster::{Cluster, Count, Interception};
use screen::{Screen, show_time};
use server::Server;
use tour::{Ended, Tally, Tour};

/// The port that README and `--serve` speak of.
const USUAL_PORT: u16 = 1053;
/// Ports tried until one is free for UDP and TCP both.
const PORT_ATTEMPTS: usize = 16;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  nodens demo                   a tour: hit, miss, route, search noise, outage, recovery
  sudo nodens demo              in network namespaces: interception too, and the agent is killed
  unshare -Ur nodens demo       the same without root, where the host permits it
  nodens demo --serve           no tour: leave everything running, and ask it with dig
  nodens demo --print-config    the tour, and the configuration that it runs with

Exit codes: 0 if every step of the tour was right, 1 if one was not.")]
pub(super) struct Args {
    /// Skip the tour, leave everything running and print lines for dig.
    #[arg(long)]
    serve: bool,
    /// Show the configuration that the agent runs with.
    #[arg(long)]
    print_config: bool,
    /// Become the agent of the demo that is this process.
    #[arg(long, hide = true, value_name = "PID")]
    leash: Option<i32>,
}

/// Both servers, and the agent in front of them.
struct Stage {
    cluster: Server,
    technitium: Server,
    agent: Agent,
    address: SocketAddr,
    yaml: String,
}

/// Runs the tour, or serves until Ctrl-C. Fails if a step was not right or nothing could start.
pub(super) fn execute(args: &Args) -> Exit {
    if let Some(owner) = args.leash {
        let Err(error) = cluster::leash(owner);
        anstream::eprintln!("nodens demo: {error}");
        return Exit::Failed;
    }
    args.play(&mut Screen::new(anstream::stdout())).unwrap_or_else(|error| {
        // Whoever stopped reading has seen enough.
        if error.kind() != io::ErrorKind::BrokenPipe {
            anstream::eprintln!("nodens demo: {error}");
        }
        Exit::Failed
    })
}

// === impl Args ===

impl Args {
    fn play(&self, screen: &mut Screen<impl Write + Send>) -> io::Result<Exit> {
        let began = Instant::now();
        let (cluster, yaml) = (if self.serve { None } else { Some(Cluster::build()) }, Cluster::configuration());
        let cluster = cluster.transpose();
        let raised = match &cluster {
            Ok(Some(cluster)) => Interception::begin(cluster, &yaml).map(|begun| Some((cluster, begun))),
            Ok(None) => Ok(None),
            Err(why) => Err(why.clone()),
        };
        match raised {
            Ok(Some((cluster, interception))) => self.on_a_cluster(cluster, interception, began, screen),
            Ok(None) => self.on_loopback(None, began, screen),
            Err(why) => self.on_loopback(Some(&why), began, screen),
        }
    }

    /// The tour without rights, or what `--serve` leaves running. `lacks`: what rights would add, or why they do not.
    fn on_loopback(&self, lacks: Option<&str>, began: Instant, screen: &mut Screen<impl Write>) -> io::Result<Exit> {
        screen.title("Nodens demo", "one process, no root, no network")?;
        let stage = Stage::set(if self.serve { USUAL_PORT } else { 0 })?;
        stage.introduce(screen)?;
        if let Some(why) = lacks {
            screen.whisper(&format!("interception is not shown: {why}"))?;
        }
        self.show_configuration(&stage.yaml, screen)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let code = if self.serve {
            runtime.block_on(serve::until_interrupted(stage.address, &stage.cluster, screen))?;
            Exit::Done
        } else {
            let mut tour = Tour::new(stage.address, &stage.cluster, &stage.technitium, screen);
            let ended = runtime.block_on(tour.take());
            let tally = tour.tally;
            let summary =
                || Summary { began, tally, cluster: stage.cluster.queries(), technitium: stage.technitium.queries() };
            conclude(ended, screen, |screen| summary().show(None, screen))?
        };
        stage.strike();
        Ok(code)
    }

    /// The tour with rights, from a pod.
    fn on_a_cluster(
        &self,
        cluster: &Cluster,
        mut interception: Interception<'_>,
        began: Instant,
        screen: &mut Screen<impl Write + Send>,
    ) -> io::Result<Exit> {
        screen.title("Nodens demo", "in network namespaces; the host's own is not touched")?;
        for (label, text) in Cluster::plan() {
            screen.pair(label, &text)?;
        }
        self.show_configuration(&Cluster::configuration(), screen)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut ended = interception.show(screen);
        let before = (cluster.dns.queries(), cluster.technitium.queries());
        let mut tally = Tally::default();
        if ended.is_ok() {
            let mut tour = Tour::new(Cluster::address(), &cluster.dns, &cluster.technitium, screen);
            ended = cluster.in_a_pod(|| runtime.block_on(tour.take()));
            tally = tour.tally;
        }
        let asked = (cluster.dns.queries() - before.0, cluster.technitium.queries() - before.1);
        let summary = Summary { began, tally, cluster: asked.0, technitium: asked.1 };
        let code = conclude(ended, screen, |screen| summary.show(Some(interception.total), screen))?;
        interception.end()?;
        Ok(code)
    }

    fn show_configuration(&self, yaml: &str, screen: &mut Screen<impl Write>) -> io::Result<()> {
        if self.print_config {
            screen.section("The agent's configuration")?;
            yaml.lines().try_for_each(|line| screen.say(line))?;
        }
        Ok(())
    }
}

/// Sums a tour up, or says what was wrong.
fn conclude<W: Write>(
    ended: Result<(), Ended>,
    screen: &mut Screen<W>,
    sum_up: impl FnOnce(&mut Screen<W>) -> io::Result<()>,
) -> io::Result<Exit> {
    match ended {
        Ok(()) => sum_up(screen).map(|()| Exit::Done),
        Err(Ended::Screen(error)) => Err(error),
        Err(Ended::Wrong { asked, wanted, got }) => {
            screen.failure(&asked, &wanted, &got)?;
            anstream::eprintln!("nodens demo: this step failed: {}: wanted {wanted}, got {got}", asked.trim());
            Ok(Exit::Failed)
        }
    }
}

/// The figures at the end.
struct Summary {
    began: Instant,
    tally: Tally,
    /// Queries that the servers saw of the tour.
    cluster: u64,
    technitium: u64,
}

// === impl Summary ===

impl Summary {
    /// `streamed`: what became of the streams, if there were any.
    fn show(&self, streamed: Option<Count>, screen: &mut Screen<impl Write>) -> io::Result<()> {
        let Self { began, tally, cluster, technitium } = self;
        screen.section(&format!("Every step was right, in {}", show_time(began.elapsed())))?;
        if let Some(Count { asked, cluster, agent, lost }) = streamed {
            screen.pair(
                "streams",
                &format!("{asked} questions: {agent} to the agent, {cluster} to cluster DNS, {lost} lost"),
            )?;
        }
        // A question without an answer ends the tour, so that here none is lost.
        screen.pair("asked", &format!("{0} questions, {0} answers, 0 lost", tally.asked))?;
        let (total, unheard) = (cluster + technitium, tally.unheard);
        let shares = format!("cluster DNS {cluster} ({unheard} while silent), Technitium {technitium}");
        screen.pair("upstream", &format!("{total} queries: {shares}"))?;
        screen.pair("hit rate", &format!("{} % answered without a query of their own", tally.hit_rate()))?;
        screen.section("Next")?;
        screen.pair("try it", "nodens demo --serve          # and ask with dig")?;
        screen.pair("run it", "nodens run -c nodens.yaml    # README.md shows a configuration")?;
        screen.blank()
    }
}

// === impl Stage ===

impl Stage {
    /// Starts the servers, then the agent, on `port` if it is free.
    fn set(port: u16) -> io::Result<Self> {
        let cluster = Server::start(names::cluster_dns())?;
        let technitium = Server::start(names::technitium())?;
        let listen = [Ipv4Addr::LOCALHOST];
        let yaml = configuration(&listen, free_port(port)?, &[cluster.address()], technitium.address());
        let agent = start_agent(&yaml)?;
        let address =
            agent.addresses().first().copied().ok_or_else(|| io::Error::other("the agent listens nowhere"))?;
        Ok(Self { cluster, technitium, agent, address, yaml })
    }

    fn introduce(&self, screen: &mut Screen<impl Write>) -> io::Result<()> {
        screen.pair("agent", &format!("{:<18}Nodens {}", self.address.to_string(), env!("CARGO_PKG_VERSION")))?;
        let cluster = self.cluster.address().to_string();
        screen.pair("cluster DNS", &format!("{cluster:<18}hickory-server: cluster.local, example.com"))?;
        let technitium = self.technitium.address().to_string();
        screen.pair("Technitium", &format!("{technitium:<18}hickory-server, a stand-in: viktorbarzin.lan"))
    }

    /// Takes everything down, the agent first, so that it never sees its upstreams gone.
    fn strike(self) {
        let Self { mut cluster, mut technitium, agent, .. } = self;
        agent.stop();
        cluster.stop();
        technitium.stop();
    }
}

/// Starts the agent in this process.
fn start_agent(yaml: &str) -> io::Result<Agent> {
    let plan = config::parse(yaml, "nodens demo", &|_| None).map_err(|errors| io::Error::other(errors.to_string()))?;
    Agent::start(plan).map_err(|error| io::Error::other(error.to_string()))
}

/// What the agent is told, as a user would write it. Short times only so that nobody has to wait for an outage.
fn configuration(listen: &[Ipv4Addr], port: u16, cluster: &[SocketAddr], technitium: SocketAddr) -> String {
    let list = |all: Vec<String>| all.join(", ");
    let listen = list(listen.iter().map(ToString::to_string).collect());
    let cluster = list(cluster.iter().map(|it| format!("\"{it}\"")).collect());
    let mut yaml = String::new();
    write!(
        yaml,
        r#"listen: {{ addresses: [{listen}], port: {port}, workers: 1 }}
upstreams:
  cluster:
    servers: [{cluster}]
    health_check: {{ interval: 500ms, max_fails: 2, name: "." }}
  technitium:
    servers: ["{technitium}"]
zones:
  cluster.local:
    upstream: cluster
    cache: {{ max_ttl: 3s, max_negative_ttl: 1s, max_stale: 1h }}
  viktorbarzin.lan: {{ upstream: technitium, max_labels: 1 }}
  1.168.192.in-addr.arpa: {{ upstream: technitium }}
  emrsn.org: {{ answer: nxdomain }}
  forgejo.viktorbarzin.me: {{ answer: [10.97.4.20] }}
  ".": {{ upstream: cluster, aaaa: strip }}
cache:
  memory: 8MiB
  failure_ttl: 1s
  serve_stale: {{ max_stale: 24h, ttl: 30s, client_timeout: 1.8s, recheck: 1s }}
http: {{ control: off }}
"#
    )
    .expect("a String takes everything");
    yaml
}

/// `wanted` if it is free on the loopback address for UDP and TCP, else a port that is.
fn free_port(wanted: u16) -> io::Result<u16> {
    let free = |port: u16| -> io::Result<u16> {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
        let port = udp.local_addr()?.port();
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(|_| port)
    };
    std::iter::once(wanted)
        .chain(std::iter::repeat_n(0, PORT_ATTEMPTS))
        .find_map(|port| free(port).ok())
        .ok_or_else(|| io::Error::other("no port of the loopback address is free for UDP and TCP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_passed_over() {
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let taken = (taken.local_addr().expect("bound").port(), taken);
        let found = free_port(taken.0).expect("another port");
        assert_ne!(found, taken.0);
    }

    #[test]
    fn the_configurations_of_the_demo_are_legal() {
        let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, 5301));
        for yaml in [configuration(&[Ipv4Addr::LOCALHOST], 1053, &[upstream], upstream), Cluster::configuration()] {
            let parsed = config::parse(&yaml, "nodens demo", &|_| None);
            assert!(parsed.is_ok(), "{yaml}\n{}", parsed.expect_err("it is not"));
        }
    }
}
