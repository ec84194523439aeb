//! The plane at work: puts us on the host, keeps the lease while we are healthy, repairs, withdraws.
//!
//! ```text
//! start    addresses ─► tables, fallback and guard included ─► (health) ─► lease: the kernel hands us the traffic
//! healthy  the lease renewed, three times in its life       unhealthy  withdrawn at once; a hung process lets it lapse
//! event    somebody changed our tables, link or addresses ─► observed again, the least that differs is written
//! stop     withdrawn, in one transaction ─► the process answers what is in flight; tables, fallback, link stay
//! ```
//! It runs on a thread of its own and never in the way of a query. Its netlink socket owns the host's table: when the
//! process goes, however it goes, the kernel removes that table, and for pods the socket match ends with the sockets.
//!
//! Read first: interception.md of the design, "Rules for the author".

use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Interval, MissedTickBehavior};

use super::Desired;
use super::link::{self, Carrier, Links, Place};
use super::nft::{self, Feature, HOST, Nft, PODS, Renewal, Rules, Ruleset};
use crate::health::Health;
use crate::plan::Interception;

/// Lifetime of our addresses: a node whose agent is gone for good ends up clean. Minutes, because a host query under way
/// when its address goes is lost.
const ADDRESS_LIFETIME: Duration = Duration::from_secs(600);
/// How often it is renewed.
const ADDRESS_RENEWAL: Duration = Duration::from_secs(120);
/// Time between two attempts to set up after one failed.
const RETRY: Duration = Duration::from_secs(5);
/// Time the withdrawal may take; the lease lapses by itself if the kernel does not answer.
const WITHDRAWAL: Duration = Duration::from_secs(2);

/// How it stands, for those who look after the node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// Whether we hold the lease.
    pub intercepting: bool,
    /// What we do: `nftables`, `lease only`, `off`; empty before the first set-up.
    pub mode: &'static str,
    /// What this host lacks: a label for the metric, words for people.
    pub degraded: Vec<Degraded>,
    /// Where the addresses are.
    pub link: String,
    pub addresses: Vec<IpAddr>,
    /// Times something of ours had been changed by others and was restored: tables, link and addresses.
    pub repaired: Repaired,
    /// What keeps us from being set up, while it does.
    pub trouble: Option<String>,
}

/// A part of the plan that this host cannot have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Degraded {
    pub label: &'static str,
    pub words: String,
}

/// Repairs, by what was changed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Repaired {
    pub link: u64,
    pub tables: u64,
}

/// The handle of the running plane. Dropped, it withdraws and ends.
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
}

impl Plane {
    /// Starts the plane's thread.
    ///
    /// # Errors
    /// If there can be no thread. What the host refuses is no error here: it is tried again, and [`Status`] says so.
    pub fn start(desired: Desired, health: Arc<Health>) -> std::io::Result<Self> {
        let (commands, heard) = mpsc::unbounded_channel();
        let (told, status) = watch::channel(Status::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || runtime.block_on(work(desired, health, heard, told));
        let thread = std::thread::Builder::new().name("nodens-node".to_owned()).spawn(work)?;
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

    /// Gives the traffic back, waits until the kernel has it, and ends. Tables, fallback and link stay for the next
    /// instance.
    fn withdraw(&self) {
        let (done, awaited) = oneshot::channel();
        if self.commands.send(Command::Withdraw(done)).is_ok() {
            // An error means that the thread is gone, and the lease with it.
            let _ = awaited.blocking_recv();
        }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.withdraw();
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

/// Sets up, again and again until it works, and keeps at it.
async fn work(
    mut desired: Desired,
    health: Arc<Health>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    told: watch::Sender<Status>,
) {
    loop {
        match Host::set_up(desired.clone(), &health, &told).await {
            Ok(host) => return host.keep(commands).await,
            Err(trouble) => {
                tracing::error!(%trouble, "no interception: clients of other addresses than ours are not served");
                told.send_modify(|status| status.trouble = Some(trouble));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            command = commands.recv() => match command {
                Some(Command::Adapt(new)) => desired = *new,
                Some(Command::Look) => {}
                Some(Command::Withdraw(done)) => {
                    let _ = done.send(());
                    return;
                }
                None => return,
            },
        }
    }
}

/// What we have on the host.
struct Host<'a> {
    desired: Desired,
    health: &'a Health,
    told: &'a watch::Sender<Status>,
    links: Links,
    place: Place,
    nft: Nft,
    /// What the kernel's nf_tables can do.
    kernel: Kernel,
    rules: Rules,
}

/// What the kernel's nf_tables can do.
#[derive(Clone, Copy)]
struct Kernel {
    socket_match: bool,
    owner_flag: bool,
    renewal: Renewal,
}

impl<'a> Host<'a> {
    async fn set_up(desired: Desired, health: &'a Health, told: &'a watch::Sender<Status>) -> Result<Host<'a>, String> {
        let links = Links::open().map_err(|error| error.to_string())?;
        let mut nft = Nft::open().map_err(|error| format!("no netlink socket for nf_tables: {error}"))?;
        nft.can(Feature::Tables).await.map_err(|error| format!("nf_tables cannot be used: {error}"))?;
        let mut degraded = Vec::new();
        let mut lacks = |label, words: String| {
            tracing::warn!(reason = label, "{words}");
            degraded.push(Degraded { label, words });
        };
        let socket_match = nft.can(Feature::SocketMatch).await;
        if let Err(error) = &socket_match {
            lacks("no_socket_match", format!("after a crash the lease must run out first: {error}"));
        }
        let owner_flag = nft.can(Feature::OwnerFlag).await;
        if let Err(error) = &owner_flag {
            lacks("no_owner_flag", format!("after a crash host clients wait for the lease: {error}"));
        }
        let in_place = nft.renews_in_place().await.map_err(|error| error.to_string())?;
        let kernel = Kernel {
            socket_match: socket_match.is_ok(),
            owner_flag: owner_flag.is_ok(),
            renewal: if in_place { Renewal::InPlace } else { Renewal::Anew },
        };
        let mut desired = desired;
        for (address, holder) in held_by_ipvs(&links, &desired.addresses).await? {
            let words = format!("{holder} holds {address}: kube-proxy in IPVS mode answers for it, we do not");
            lacks("ipvs", words);
            desired.addresses.retain(|it| *it != address);
        }
        let place = links.ensure(&desired.interface).await.map_err(|error| error.to_string())?;
        if place.carrier == Carrier::LoopbackForWantOfDriver {
            lacks("no_dummy_driver", format!("no `dummy` driver: the addresses are on `{}`", place.name));
        }
        let uplinks = links.uplinks().await.map_err(|error| error.to_string())?;
        let rules = rules(&desired, uplinks, kernel);
        told.send_modify(|status| {
            status.mode = match (desired.interception, kernel.socket_match) {
                (Interception::Off, _) => "off",
                (_, true) => "nftables",
                (_, false) => "lease only",
            };
            status.degraded = degraded;
            status.link.clone_from(&place.name);
            status.addresses.clone_from(&desired.addresses);
            status.trouble = None;
        });
        let mut host = Self { desired, health, told, links, place, nft, kernel, rules };
        host.put_addresses().await?;
        host.put_tables().await?;
        host.renew().await?;
        Ok(host)
    }

    /// Renews, repairs and obeys until the agent ends.
    async fn keep(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let (mut tables, mut links) = match (nft::Events::open(&self.nft), link::Events::open()) {
            (Ok(tables), Ok(links)) => (tables, links),
            (Err(error), _) => return self.end(&format!("changes of tables cannot be heard: {error}")),
            (_, Err(error)) => return self.end(&format!("changes of links cannot be heard: {error}")),
        };
        let mut lease = every(self.desired.lease / 3);
        let mut addresses = every(ADDRESS_RENEWAL);
        loop {
            let done = tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Adapt(desired)) => self.adapt(*desired).await,
                    Some(Command::Look) => self.renew().await,
                    Some(Command::Withdraw(done)) => {
                        self.withdraw().await;
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                },
                _ = lease.tick() => self.renew().await,
                _ = addresses.tick() => self.put_addresses().await,
                change = tables.changed() => match change {
                    Ok(change) => self.repair_tables(&change).await,
                    Err(error) => Err(format!("changes of tables cannot be heard: {error}")),
                },
                event = links.next() => self.repair_link(&event).await,
            };
            if let Err(trouble) = done {
                // The lease lapses if this goes on; the next tick tries again.
                tracing::warn!(%trouble, "the node plane");
                self.told.send_modify(|status| status.trouble = Some(trouble));
            }
        }
    }

    fn end(self, trouble: &str) {
        tracing::error!(trouble, "the node plane ends; what is intercepted goes back to the cluster DNS");
        self.told.send_modify(|status| {
            status.intercepting = false;
            status.trouble = Some(trouble.to_owned());
        });
    }

    async fn put_addresses(&mut self) -> Result<(), String> {
        let put = self.links.put(&self.place, &self.desired.addresses, ADDRESS_LIFETIME).await;
        put.map_err(|error| error.to_string())?;
        let keep = Some((&self.place, &self.desired.addresses[..]));
        self.links.sweep(keep).await.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Makes the tables what they are to be, with the lease in the same transaction: never a moment without it.
    async fn put_tables(&mut self) -> Result<bool, String> {
        if self.desired.interception == Interception::Off {
            return Ok(false);
        }
        let found = self.nft.observe().await.map_err(|error| error.to_string())?;
        let mut batch = Ruleset::new(&self.rules).repair(&found).then(nft::accept_in_filter(&found, &self.rules));
        if batch.is_empty() {
            return Ok(false);
        }
        if self.may_intercept() {
            batch = batch.then(self.lease(Renewal::Anew));
        }
        self.nft.commit(&batch).await.map_err(|error| error.to_string())?;
        Ok(true)
    }

    fn may_intercept(&self) -> bool {
        self.health.is_serving() && self.desired.interception != Interception::Off
    }

    /// Renews the lease while we are healthy; gives it back when we are not.
    async fn renew(&mut self) -> Result<(), String> {
        let held = self.told.borrow().intercepting;
        if !self.may_intercept() {
            if held {
                self.give_back().await?;
                tracing::warn!("lease given back: the cluster DNS answers");
            }
            return Ok(());
        }
        let renewal = if held { self.kernel.renewal } else { Renewal::Anew };
        self.nft.commit(&self.lease(renewal)).await.map_err(|error| error.to_string())?;
        if !held {
            tracing::info!(addresses = ?self.desired.addresses, link = self.place.name, "intercepting");
        }
        self.told.send_modify(|status| {
            status.intercepting = true;
            status.trouble = None;
        });
        Ok(())
    }

    fn lease(&self, renewal: Renewal) -> nft::Batch {
        nft::lease(&[PODS, HOST], &self.desired.addresses, self.desired.lease, renewal)
    }

    async fn give_back(&mut self) -> Result<(), String> {
        let batch = nft::withdraw(&[PODS, HOST]);
        self.told.send_modify(|status| status.intercepting = false);
        self.nft.commit(&batch).await.map_err(|error| error.to_string())
    }

    async fn withdraw(&mut self) {
        if !self.told.borrow().intercepting {
            return;
        }
        match tokio::time::timeout(WITHDRAWAL, self.give_back()).await {
            Ok(Ok(())) => tracing::info!("lease given back"),
            Ok(Err(trouble)) => tracing::warn!(%trouble, "the lease could not be given back; it lapses"),
            Err(_) => tracing::warn!("the kernel does not answer; the lease lapses"),
        }
    }

    /// Other servers, addresses or limits: the least that differs is written.
    async fn adapt(&mut self, desired: Desired) -> Result<(), String> {
        // Interface and interception mode are the start's; the rest follows at once.
        self.desired.fallback = desired.fallback;
        self.desired.allow = desired.allow;
        self.desired.lease = desired.lease;
        self.rules = rules(&self.desired, std::mem::take(&mut self.rules.uplinks), self.kernel);
        self.put_tables().await.map(|_| ())
    }

    async fn repair_tables(&mut self, change: &nft::Change) -> Result<(), String> {
        if self.put_tables().await? {
            self.told.send_modify(|status| status.repaired.tables += 1);
            tracing::warn!(?change, "our tables had been changed and are restored");
        }
        Ok(())
    }

    async fn repair_link(&mut self, event: &link::Event) -> Result<(), String> {
        let observed = self.links.observe(&self.place.name).await.map_err(|error| error.to_string())?;
        let has = |address: &IpAddr| observed.iter().any(|link| link.addresses.iter().any(|it| it.address == *address));
        if observed.as_ref().is_none_or(|link| !link.up) || !self.desired.addresses.iter().all(has) {
            self.place = self.links.ensure(&self.desired.interface).await.map_err(|error| error.to_string())?;
            self.put_addresses().await?;
            self.told.send_modify(|status| status.repaired.link += 1);
            tracing::warn!(?event, "our link or addresses had been changed and are restored");
        }
        let uplinks = self.links.uplinks().await.map_err(|error| error.to_string())?;
        if uplinks != self.rules.uplinks {
            self.rules.uplinks = uplinks;
            self.put_tables().await?;
        }
        Ok(())
    }
}

fn rules(desired: &Desired, uplinks: Vec<String>, kernel: Kernel) -> Rules {
    Rules {
        addresses: desired.addresses.clone(),
        port: desired.port,
        health: desired.health.clone(),
        fallback: desired.fallback.clone(),
        allow: desired.allow.clone(),
        uplinks,
        socket_match: kernel.socket_match,
        owner_flag: kernel.owner_flag,
    }
}

/// Those of `addresses` that kube-proxy in IPVS mode holds; it answers for them before any of our rules is asked.
async fn held_by_ipvs(links: &Links, addresses: &[IpAddr]) -> Result<Vec<(IpAddr, String)>, String> {
    let survey = links.survey().await.map_err(|error| error.to_string())?;
    let ipvs = survey.iter().filter(|link| link.name == "kube-ipvs0");
    let held = ipvs.flat_map(|link| link.addresses.iter().map(|it| (it.address, link.name.clone())));
    Ok(held.filter(|(address, _)| addresses.contains(address)).collect())
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
    let found = nft.observe().await.map_err(|error| error.to_string())?;
    let batch = nft::remove_everything().then(nft::remove_from_filter(&found));
    nft.commit(&batch).await.map_err(|error| match found.tables.iter().find(|table| table.owner.is_some()) {
        Some(table) => format!("an agent is running, it owns the table {} {}: stop it first", table.family, table.name),
        None => error.to_string(),
    })?;
    removed.extend(found.tables.iter().map(|table| format!("table {} {}", table.family, table.name)));
    let swept = links.sweep(None).await.map_err(|error| error.to_string())?;
    removed.extend(swept.addresses.iter().map(|(link, address)| format!("address {address} on {link}")));
    removed.extend(swept.links.iter().map(|link| format!("link {link}")));
    Ok(removed)
}
