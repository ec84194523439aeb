//! The plane at work: puts us on the host, keeps the lease while we are healthy, repairs, withdraws.
//!
//! ```text
//! start    addresses ─► tables, fallback and guard included ─► (health) ─► lease: the kernel hands us the traffic
//! healthy  the lease renewed, three times in its life       unhealthy  withdrawn at once; who hangs lets it lapse
//! event    somebody changed our tables, link or addresses ─► observed again, the least that differs is written
//! stop     withdrawn, in one transaction ─► the process answers what is in flight ─► the host's table goes; tables,
//!          fallback, link stay
//! two      one holds the traffic, the other waits and writes nothing but addresses: super::tables
//! ```
//! It runs on a thread of its own and never in the way of a query. Its netlink socket owns the host's table: when the
//! process goes, however it goes, the kernel removes that table, and for pods the socket match ends with the sockets.
//!
//! Read first: interception.md of the design, "Rules for the author".

use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Interval, MissedTickBehavior};

use super::Desired;
use super::facts::{Choice, Facts, Host, Mode, Tried, Wanted};
use super::iptables::{Iptables, Ports};
use super::link::{self, Links, Place, Put};
use super::nft::{self, Feature, Found, Nft, Renewal, Rules};
use super::status::Status;
use super::tables::{Lease, Mended, Tables, Tended};
use crate::health::{Health, Verdict};
use crate::incidents::What;
use crate::plan::Interception;

/// Lifetime of our addresses: a node whose agent is gone for good ends up clean. Minutes, because a host query under way
/// when its address goes is lost.
const ADDRESS_LIFETIME: Duration = Duration::from_secs(600);
/// How often it is renewed.
const ADDRESS_RENEWAL: Duration = Duration::from_secs(120);
/// Time the withdrawal may take; the lease lapses by itself if the kernel does not answer.
const WITHDRAWAL: Duration = Duration::from_secs(2);

/// The handle of the running plane. Dropped, it gives the traffic back, lets the next instance have it, and ends.
pub struct Plane {
    commands: mpsc::UnboundedSender<Command>,
    status: watch::Receiver<Status>,
    thread: Option<JoinHandle<()>>,
}

enum Command {
    /// Other addresses, servers or limits.
    Adapt(Box<Desired>),
    /// Health has turned.
    Look,
    /// Give the traffic back, for good.
    Withdraw(oneshot::Sender<()>),
    /// Let the next instance have it, and end.
    Leave,
}

impl Plane {
    /// Goes to work on the host: addresses and tables are there when this returns, the traffic is not ours yet.
    ///
    /// # Errors
    /// What the host refuses, in one line with the remedy. Nothing was intercepted.
    pub fn start(desired: Desired, health: Arc<Health>) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("no runtime for the node plane: {error}"))?;
        let (commands, heard) = mpsc::unbounded_channel();
        let (told, status) = watch::channel(Status::default());
        let (done, outcome) = oneshot::channel();
        let work = move || {
            runtime.block_on(async {
                match Presence::set_up(desired, &health, &told).await {
                    Ok(presence) => {
                        // Whoever started us waits for this; gone, it has no use for us either.
                        if done.send(Ok(())).is_ok() {
                            presence.keep(heard).await;
                        }
                    }
                    Err(refusal) => {
                        let _ = done.send(Err(refusal));
                    }
                }
            });
        };
        let thread = std::thread::Builder::new().name("nodens-node".to_owned()).spawn(work);
        let thread = thread.map_err(|error| format!("no thread for the node plane: {error}"))?;
        outcome.blocking_recv().unwrap_or_else(|_| Err("the node plane panicked".to_owned()))?;
        Ok(Self { commands, status, thread: Some(thread) })
    }

    /// How it stands.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// A handle for those who have news.
    pub fn news(&self) -> News {
        News(self.commands.clone())
    }

    /// Gives the traffic back, for good, and waits until the kernel has it. Tables, fallback and link stay for the next
    /// instance, which does not begin before this is dropped, and the host's table, which knows the host's connections to us:
    /// until then what is on its way to us is answered.
    pub fn withdraw(&self) {
        let (done, awaited) = oneshot::channel();
        if self.commands.send(Command::Withdraw(done)).is_ok() {
            // An error means that it is done already, or that the thread is gone, and the lease with it.
            let _ = awaited.blocking_recv();
        }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.withdraw();
        // Gone, it has left.
        let _ = self.commands.send(Command::Leave);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the node plane panicked");
        }
    }
}

/// Tells the plane what has changed.
#[derive(Clone)]
pub struct News(mpsc::UnboundedSender<Command>);

impl News {
    /// Health has turned.
    pub fn look(&self) {
        // A plane that is gone needs no news.
        let _ = self.0.send(Command::Look);
    }

    /// Other things are desired.
    pub fn adapt(&self, desired: Desired) {
        let _ = self.0.send(Command::Adapt(Box::new(desired)));
    }
}

/// What we are on this host.
struct Presence<'a> {
    desired: Desired,
    health: &'a Health,
    told: &'a watch::Sender<Status>,
    links: Links,
    place: Place,
    means: Means,
    /// When the kernel last took what we wrote.
    written: Instant,
}

/// How the traffic becomes ours.
enum Means {
    Iptables(Iptables),
    Nft(Box<Tables>),
    Nothing,
}

impl<'a> Presence<'a> {
    async fn set_up(
        mut desired: Desired,
        health: &'a Health,
        told: &'a watch::Sender<Status>,
    ) -> Result<Presence<'a>, String> {
        let links = Links::open().map_err(|error| error.to_string())?;
        let mut nft = Nft::open().map_err(|error| format!("no netlink socket for nf_tables: {error}"))?;
        let tried = try_out(&mut nft).await;
        let try_iptables = match desired.interception {
            Interception::Iptables => true,
            Interception::Auto => tried.nf_tables.is_err(),
            Interception::Nftables | Interception::Off => false,
        };
        let host = Host::read(&links, &desired.addresses, try_iptables).await.map_err(|error| error.to_string())?;
        let facts = Facts::of(host, tried, &desired.addresses);
        let is_own = |address: &IpAddr| desired.fallback.iter().any(|(own, _)| own == address);
        let (own, services): (Vec<IpAddr>, Vec<IpAddr>) = desired.addresses.iter().copied().partition(is_own);
        let interface = &desired.interface;
        let wanted = Wanted { interception: desired.interception, interface, services: &services, own: &own };
        let choice = Choice::of(&wanted, &facts).map_err(|refusal| refusal.to_string())?;
        for it in &choice.degraded {
            tracing::warn!(reason = it.label.label(), "{}", it.words);
        }
        desired.addresses.retain(|address| choice.addresses.contains(address));
        desired.fallback.retain(|(address, _)| choice.addresses.contains(address));
        if matches!(choice.mode, Mode::LeaseOnly | Mode::Nftables) {
            nobody_elses(&nft.observe().await.map_err(|error| error.to_string())?)?;
        }
        let place = links.ensure(&desired.interface).await.map_err(|error| error.to_string())?;
        let means = match Means::open(choice.mode, nft, &links, &desired, &facts).await {
            Ok(means) => means,
            Err(refusal) => {
                links.take_back(&place, &Put::default()).await;
                return Err(refusal);
            }
        };
        told.send_modify(|status| {
            status.mode = choice.mode.label();
            status.degraded.clone_from(&choice.degraded);
            status.link.clone_from(&place.name);
            status.addresses.clone_from(&desired.addresses);
            status.lease = desired.lease;
        });
        let mut presence = Self { desired, health, told, links, place, means, written: Instant::now() };
        presence.appear().await?;
        Ok(presence)
    }

    /// Addresses first, then tables; then goes what an earlier configuration wanted. Refused, it takes back what it has put
    /// there, and nothing else.
    async fn appear(&mut self) -> Result<(), String> {
        let put = self.links.put(&self.place, &self.desired.addresses, ADDRESS_LIFETIME).await;
        let (put, refusal) = match put {
            Ok(put) => (put, self.renew().await.err()),
            Err(error) => (Put::default(), Some(error.to_string())),
        };
        if let Some(refusal) = refusal {
            self.links.take_back(&self.place, &put).await;
            return Err(refusal);
        }
        self.sweep().await
    }

    /// Renews, repairs and obeys until the agent ends.
    async fn keep(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let (mut tables, mut links) = match self.listen() {
            Ok(events) => events,
            Err(trouble) => {
                tracing::error!(trouble, "changes by others are not noticed, so nothing is intercepted");
                return self.told.send_modify(|status| status.trouble = Some(trouble));
            }
        };
        let mut lease = every(self.desired.lease / 3);
        let mut addresses = every(ADDRESS_RENEWAL);
        loop {
            let done = tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Adapt(desired)) => {
                        if desired.lease != self.desired.lease {
                            // Its first tick is at once.
                            lease = every(desired.lease / 3);
                        }
                        self.adapt(*desired).await
                    }
                    Some(Command::Look) => self.renew().await,
                    Some(Command::Withdraw(done)) => {
                        self.withdraw().await;
                        let _ = done.send(());
                        return self.leave(commands).await;
                    }
                    Some(Command::Leave) | None => return,
                },
                _ = lease.tick() => self.renew().await,
                _ = addresses.tick() => {
                    let done = self.put_addresses().await;
                    soon_again(&mut addresses, &done, &self.desired);
                    done
                }
                change = next_change(tables.as_mut()) => match change {
                    Ok(change) => self.on_tables_changed(&change).await,
                    Err(error) => Err(format!("changes of tables cannot be heard: {error}")),
                },
                event = links.next() => {
                    let done = self.on_link_changed(&event).await;
                    soon_again(&mut addresses, &done, &self.desired);
                    done
                }
            };
            if let Err(trouble) = done {
                // The lease lapses if this goes on; the next tick tries again.
                let known = self.told.borrow().trouble.as_ref() == Some(&trouble);
                if !known {
                    tracing::warn!(%trouble, "the node plane");
                }
                self.told.send_modify(|status| {
                    if !known {
                        status.incidents.note(Instant::now(), What::NodeTrouble, &trouble);
                    }
                    status.failures += 1;
                    status.trouble = Some(trouble);
                });
            }
        }
    }

    fn listen(&self) -> Result<(Option<nft::Events>, link::Events), String> {
        let tables = match &self.means {
            Means::Nft(tables) => Some(tables.events().map_err(|error| error.to_string())?),
            Means::Iptables(_) | Means::Nothing => None,
        };
        Ok((tables, link::Events::open().map_err(|error| error.to_string())?))
    }

    async fn put_addresses(&mut self) -> Result<(), String> {
        self.place = self.links.ensure(&self.desired.interface).await.map_err(|error| error.to_string())?;
        let put = self.links.put(&self.place, &self.desired.addresses, ADDRESS_LIFETIME).await;
        put.map_err(|error| error.to_string())?;
        self.sweep().await
    }

    /// Removes what is ours and not wanted.
    async fn sweep(&self) -> Result<(), String> {
        // Those of another instance may be others.
        if self.is_waiting() {
            return Ok(());
        }
        let keep = Some((&self.place, &self.desired.addresses[..]));
        self.links.sweep(keep).await.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Mends the tables, and renews the lease in the same transaction while we are healthy; gives it back when we are not.
    async fn renew(&mut self) -> Result<(), String> {
        let now = Instant::now();
        let waiting = self.is_waiting();
        let verdict = if waiting { Verdict::HeldBack } else { self.health.verdict(now) };
        let held = self.told.borrow().intercepting;
        let addresses = &self.desired.addresses;
        let holds = match &mut self.means {
            Means::Nothing => return Ok(()),
            Means::Nft(tables) => {
                let lease = match verdict {
                    Verdict::HeldBack => Lease::GiveBack,
                    Verdict::Serving => Lease::Renew(addresses, self.desired.lease),
                    Verdict::Unknown { .. } => Lease::LetLapse,
                };
                let tended = match tables.tend(lease, held).await {
                    Ok(tended) => tended,
                    Err(trouble) => {
                        // What is not renewed has lapsed by itself.
                        if held && self.written.elapsed() > self.desired.lease {
                            self.told.send_modify(|status| status.turn(false));
                        }
                        return Err(trouble);
                    }
                };
                self.written = now;
                self.told.send_modify(|status| status.tables.clone_from(&tables.seen));
                match tended {
                    Tended::Waiting { holder } => {
                        self.wait_for(holder);
                        return Ok(());
                    }
                    Tended::Holding { .. } if waiting => return self.step_in().await,
                    Tended::Holding { mended, leased } => {
                        if held && mended == Mended::Yes {
                            tracing::warn!(
                                what = tables.differed,
                                "our tables had been changed by somebody and are restored"
                            );
                            self.told.send_modify(|status| {
                                status.repaired.tables += 1;
                                status.on_repair(tables.differed.clone());
                            });
                        }
                        leased
                    }
                }
            }
            Means::Iptables(iptables) => match verdict {
                // Nothing lapses by itself here.
                Verdict::Unknown { since } if now < since + self.desired.lease => held,
                Verdict::HeldBack | Verdict::Unknown { .. } => {
                    iptables.remove().map_err(|error| error.to_string())?;
                    false
                }
                Verdict::Serving => {
                    let health = self.desired.health.iter().map(std::net::SocketAddr::port).collect();
                    let ports = Ports { dns: self.desired.port, health };
                    iptables.ensure(addresses, &ports).map_err(|error| error.to_string())?;
                    true
                }
            },
        };
        let mut turn = None;
        if holds != held {
            if holds {
                tracing::info!(addresses = ?self.desired.addresses, link = self.place.name, "intercepting");
                turn = Some((What::Intercepting, "the traffic is ours".to_owned()));
            } else {
                tracing::warn!("the traffic is given back: the cluster DNS answers");
                let why = self.health.state(now).held_by.join("; ");
                let lapsed = matches!(verdict, Verdict::Unknown { .. });
                let what = if lapsed { What::Lapsed } else { What::GivenBack };
                turn = Some((what, format!("the cluster DNS answers: {why}")));
            }
        }
        self.told.send_modify(|status| {
            if let Some((what, words)) = &turn {
                status.incidents.note(Instant::now(), *what, words);
            }
            status.turn(holds);
            status.trouble = None;
        });
        Ok(())
    }

    fn is_waiting(&self) -> bool {
        self.told.borrow().waiting_for.is_some()
    }

    /// Another instance holds the traffic.
    fn wait_for(&mut self, holder: u32) {
        if self.told.borrow().waiting_for == Some(holder) {
            return;
        }
        self.health.stand_by(Instant::now());
        tracing::info!(netlink_port = holder, "another instance holds the traffic; waiting for it to go");
        self.told.send_modify(|status| {
            status.turn(false);
            status.waiting_for = Some(holder);
            status.trouble = None;
        });
    }

    /// It has gone; nothing is leased. What is to be leased is probed first.
    async fn step_in(&mut self) -> Result<(), String> {
        self.health.step_in(Instant::now());
        tracing::info!("the instance before us has gone");
        self.told.send_modify(|status| status.waiting_for = None);
        self.put_addresses().await
    }

    async fn withdraw(&mut self) {
        self.told.send_modify(|status| status.turn(false));
        let given_back = match &mut self.means {
            Means::Nothing => Ok(()),
            Means::Iptables(iptables) => iptables.remove().map(|_| ()).map_err(|error| error.to_string()),
            Means::Nft(tables) => match tokio::time::timeout(WITHDRAWAL, tables.give_back()).await {
                Ok(outcome) => outcome,
                Err(_) => Err("the kernel does not answer".to_owned()),
            },
        };
        match given_back {
            Ok(()) => tracing::info!("the traffic is given back"),
            Err(trouble) => tracing::warn!(%trouble, "the traffic could not be given back; the lease lapses"),
        }
    }

    /// Waits until our sockets are closed, and lets the next instance have the traffic.
    async fn leave(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        while !matches!(commands.recv().await, Some(Command::Leave) | None) {}
        if let Means::Nft(tables) = &mut self.means
            // Our socket closes in any case; then the next one finds out by itself.
            && let Ok(Err(trouble)) = tokio::time::timeout(WITHDRAWAL, tables.leave()).await
        {
            tracing::warn!(%trouble, "the next instance could not be told");
        }
    }

    /// Other servers, addresses or limits: the least that differs is written.
    async fn adapt(&mut self, desired: Desired) -> Result<(), String> {
        // The link, the addresses and the means are the start's; the rest follows at once.
        let chosen = |(address, _): &(IpAddr, _)| self.desired.addresses.contains(address);
        self.desired.fallback = desired.fallback.into_iter().filter(chosen).collect();
        self.desired.allow = desired.allow;
        self.desired.lease = desired.lease;
        self.told.send_modify(|status| status.lease = desired.lease);
        if let Means::Nft(tables) = &mut self.means {
            tables.rules.fallback.clone_from(&self.desired.fallback);
            tables.rules.allow.clone_from(&self.desired.allow);
            tables.mend().await?;
        }
        Ok(())
    }

    async fn on_tables_changed(&mut self, change: &nft::Change) -> Result<(), String> {
        tracing::debug!(?change, "somebody changed tables");
        self.renew().await
    }

    async fn on_link_changed(&mut self, event: &link::Event) -> Result<(), String> {
        let observed = self.links.observe(&self.place.name).await.map_err(|error| error.to_string())?;
        let has = |address: &IpAddr| observed.iter().any(|link| link.addresses.iter().any(|it| it.address == *address));
        if observed.as_ref().is_none_or(|link| !link.up) || !self.desired.addresses.iter().all(has) {
            self.put_addresses().await?;
            let what = format!("the link {} or an address on it was changed or gone", self.place.name);
            self.told.send_modify(|status| {
                status.repaired.link += 1;
                status.on_repair(what);
            });
            tracing::warn!(?event, "our link or addresses had been changed by somebody and are restored");
        }
        if let Means::Nft(tables) = &mut self.means {
            let uplinks = self.links.uplinks().await.map_err(|error| error.to_string())?;
            if uplinks != tables.rules.uplinks {
                tables.rules.uplinks = uplinks;
                tables.mend().await?;
            }
        }
        Ok(())
    }
}

impl Means {
    async fn open(mode: Mode, mut nft: Nft, links: &Links, desired: &Desired, facts: &Facts) -> Result<Self, String> {
        Ok(match mode {
            Mode::Iptables => Self::Iptables(Iptables::open(&desired.addresses).map_err(|error| error.to_string())?),
            Mode::LeaseOnly | Mode::Nftables => {
                let uplinks = links.uplinks().await.map_err(|error| error.to_string())?;
                let renewal =
                    if nft.renews_in_place().await.unwrap_or(false) { Renewal::InPlace } else { Renewal::Anew };
                Self::Nft(Box::new(Tables::new(nft, rules(desired, uplinks, facts), renewal)))
            }
            Mode::Off => Self::Nothing,
        })
    }
}

/// An error if a table of our name belongs to a program that is none of us. The host's table may: the agent that we are
/// about to follow has it until it ends.
fn nobody_elses(found: &Found) -> Result<(), String> {
    let taken = found.tables.iter().find(|table| table.name != nft::HOST && table.owner.is_some());
    taken.map_or(Ok(()), |table| {
        Err(format!(
            "another program owns the table `{} {}` that has to be ours: end that program, `nft list tables` names it",
            table.family, table.name
        ))
    })
}

/// What nf_tables can do here, found out by trying.
async fn try_out(nft: &mut Nft) -> Tried {
    let nf_tables = nft.can(Feature::Tables).await.map_err(|error| error.to_string());
    let socket_match = nft.can(Feature::SocketMatch).await.is_ok();
    let owner_flag = nft.can(Feature::OwnerFlag).await.is_ok();
    let input_drops = nft.observe().await.is_ok_and(|found| !nft::filter_drops(&found).is_empty());
    Tried { nf_tables, socket_match, owner_flag, input_drops }
}

fn rules(desired: &Desired, uplinks: Vec<String>, facts: &Facts) -> Rules {
    Rules {
        addresses: desired.addresses.clone(),
        port: desired.port,
        health: desired.health.clone(),
        fallback: desired.fallback.clone(),
        allow: desired.allow.clone(),
        uplinks,
        socket_match: facts.socket_match,
        owner_flag: facts.owner_flag,
    }
}

async fn next_change(tables: Option<&mut nft::Events>) -> std::io::Result<nft::Change> {
    match tables {
        Some(tables) => tables.changed().await,
        None => std::future::pending().await,
    }
}

/// Addresses that could not be put there are tried again before the lease is over.
fn soon_again(addresses: &mut Interval, done: &Result<(), String>, desired: &Desired) {
    if done.is_err() {
        addresses.reset_after(desired.lease / 3);
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

/// Removes everything Nodens ever put on this host, and says what that was.
///
/// # Errors
/// The step that failed; what was removed before stays removed.
pub async fn tear_down() -> Result<Vec<String>, String> {
    let links = Links::open().map_err(|error| error.to_string())?;
    let mut removed = Vec::new();
    let mut nft = Nft::open().map_err(|error| format!("no netlink socket for nf_tables: {error}"))?;
    let found = nft.observe().await.map_err(|error| match error.source.kind() {
        std::io::ErrorKind::PermissionDenied => format!("{error} (this needs CAP_NET_ADMIN)"),
        _ => error.to_string(),
    })?;
    let batch = nft::remove_everything().then(nft::remove_from_filter(&found));
    nft.commit(&batch).await.map_err(|error| match found.tables.iter().find(|table| table.owner.is_some()) {
        Some(table) => format!("an agent is running, it owns the table {} {}: stop it first", table.family, table.name),
        None => error.to_string(),
    })?;
    removed.extend(found.tables.iter().map(|table| format!("table {} {}", table.family, table.name)));
    let rules = Iptables::found().remove().map_err(|error| error.to_string())?;
    if rules > 0 {
        removed.push(format!("{rules} iptables rules"));
    }
    let swept = links.sweep(None).await.map_err(|error| error.to_string())?;
    removed.extend(swept.addresses.iter().map(|(link, address)| format!("address {address} on {link}")));
    removed.extend(swept.links.iter().map(|link| format!("link {link}")));
    Ok(removed)
}
